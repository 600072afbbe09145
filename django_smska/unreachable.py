"""Why a gateway could not be reached, in texts that name what to correct.

These are for people only: the phase alone decides what a failure means for the message.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator

from .exceptions import GatewayUnreachable, gettext_noop

#: By the error's code.
CAUSES = {
    "connect-name": gettext_noop(
        "The gateway could not be reached: its host name was not found. Nothing was sent. Correct "
        "the address in the settings (url), or look at this server's name lookup."
    ),
    "connect-refused": gettext_noop(
        "The gateway could not be reached: the connection was refused. Nothing was sent. Correct "
        "host and port in the settings (url), or wait until the gateway is up."
    ),
    "connect-timeout": gettext_noop(
        "The gateway could not be reached: the connection timed out. Nothing was sent. Look at "
        "the network and the firewall between this server and the gateway."
    ),
    "connect-network": gettext_noop(
        "The gateway could not be reached: there is no route to its network. Nothing was sent. "
        "Check this server's network."
    ),
    "connect-certificate": gettext_noop(
        "The gateway could not be reached: its certificate is not valid for this address, or not "
        "trusted. Nothing was sent. Correct the address (url) or the file of certificates "
        "(ca_bundle) in the settings."
    ),
    "connect-tls": gettext_noop(
        "The gateway could not be reached: what answers there does not speak TLS as expected. "
        "Nothing was sent. Correct the address in the settings (url): https:// needs a port for "
        "TLS."
    ),
    "connect-bundle": gettext_noop(
        "The gateway could not be reached: the file of certificates cannot be read. Nothing was "
        "sent. Correct its path in the settings (ca_bundle)."
    ),
    "connect-proxy": gettext_noop(
        "The gateway could not be reached: the proxy does not answer. Nothing was sent. Correct "
        "its address in the settings (proxy)."
    ),
    "connect-tunnel": gettext_noop(
        "The gateway could not be reached: the proxy does not connect to it. Nothing was sent. "
        "Correct the proxy's address or its login in the settings (proxy)."
    ),
    "hung-up": gettext_noop(
        "The gateway could not be reached: it closed the connection before the request. Nothing "
        "was sent."
    ),
    "spoke-first": gettext_noop(
        "The server at this address is not an SMS gateway: it sent data before the request. "
        "Nothing was sent. Correct the address in the settings (url)."
    ),
    "test-run": gettext_noop(
        "The gateway was not contacted, because this is a test run and its address is not on this "
        "machine. Nothing was sent. Use the stand-in gateway, or mock requests with responses, "
        "requests-mock or vcrpy. SMSKA_NETWORK_IN_TESTS = True allows real requests."
    ),
    "test-recording": gettext_noop(
        "The gateway was not contacted, because this is a test run and vcrpy would record the "
        "request. Nothing was sent. Use a recorded cassette with record_mode none. "
        "SMSKA_NETWORK_IN_TESTS = True allows real requests."
    ),
    "test-no-answer": gettext_noop(
        "The mock of this test has no answer for the request. Nothing was sent. Register its "
        "method and address with the mock."
    ),
    "deadline": gettext_noop(
        "The gateway could not be reached within the deadline. Nothing was sent."
    ),
}
_NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)


def unreachable(code: str, address: str) -> GatewayUnreachable:
    """Return the error for a code of ``CAUSES``; others have the general text."""
    error = GatewayUnreachable(CAUSES.get(code, ""), code=code)
    error.address = address
    return error


def cause_of(error: BaseException | None) -> str:
    """Return a code of ``CAUSES`` for what was raised while connecting, else its class's name."""
    chain = list(_chain(error))
    for one in chain:
        if code := _cause(one):
            return code
    if any(_is_missing_bundle(one) for one in chain):
        return "connect-bundle"
    return f"connect-{type(error).__name__}"[:32]


def _cause(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return "connect-name"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "connect-certificate"
    if isinstance(error, (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError)):
        return "hung-up"
    if isinstance(error, ssl.SSLError):
        return "connect-tls"
    if isinstance(error, ConnectionRefusedError):
        return "connect-refused"
    if isinstance(error, TimeoutError):
        return "connect-timeout"
    return "connect-network" if getattr(error, "errno", None) in _NO_WAY else ""


def _is_missing_bundle(error: BaseException) -> bool:
    """Return whether the file of certificates is missing. Requests raises a bare ``OSError`` for
    it, and ssl one without the file's name."""
    return type(error) in (OSError, FileNotFoundError) and error.errno in (None, errno.ENOENT)  # type: ignore[attr-defined]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Return the error and its causes, the innermost first: requests and urllib3 wrap errors."""
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and not any(one is other for other in seen):
            seen.append(one)
            waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    return reversed(seen)

"""The wire of a test run: it reaches this machine and the mocks of HTTP, and no paid gateway.

A mock answers in place of the connection, so that the phase of an attempt cannot be seen. The
first byte is announced before the mock is called. After that the *class* of an exception decides,
and only one that says that no connection was made means that nothing was sent.

Real requests take the way of :class:`~django_smska.wire.Wire`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool

from .exceptions import SmsError
from .exchange import Answer
from .unreachable import cause_of, unreachable
from .wire import (
    ANSWER_LIMIT_BYTES,
    AnswerTooLong,
    Attempt,
    HTTPPool,
    HTTPSPool,
    PhasedAdapter,
    PhasedHTTPConnection,
    PhasedHTTPSConnection,
    Wire,
)

#: What says that no connection was made.
NEVER_CONNECTED = (
    requests.exceptions.ConnectTimeout,
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    socket.gaierror,
    ConnectionRefusedError,
    ssl.SSLCertVerificationError,
)
#: What requests-mock raises that has no answer, by module and name of the class.
NO_ANSWER = ("requests_mock.exceptions", "NoMockAddress")
#: How the text of requests' own ``ConnectionError`` begins where responses has no answer.
NO_ANSWER_OF_RESPONSES = "Connection refused by Responses"


#: Held while a cassette is looked for, and while it answers or records.
_cassette_lock = threading.Lock()


class Refused(Exception):
    """A test may not make this request; the code is one of ``unreachable.CAUSES``."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


if TYPE_CHECKING:
    _Connection = PhasedHTTPConnection
else:
    _Connection = object


class _LocalConnection(_Connection):
    """It connects to this machine only, whatever was seen of mocks and addresses before."""

    def _addresses(self) -> list[Any]:
        if not _is_local_host(self._dns_host):
            raise Refused("test-run")  # without asking DNS for the name
        found = super()._addresses()
        if not all(_is_local_host(address[0]) for *_, address in found):
            raise Refused("test-run")
        return found


class _LocalHTTPConnection(_LocalConnection, PhasedHTTPConnection):
    pass


class _LocalHTTPSConnection(_LocalConnection, PhasedHTTPSConnection):
    pass


class _LocalHTTPPool(HTTPPool):
    ConnectionCls = cast(Any, _LocalHTTPConnection)


class _LocalHTTPSPool(HTTPSPool):
    ConnectionCls = cast(Any, _LocalHTTPSConnection)


class _LocalAdapter(PhasedAdapter):
    """It reaches this machine only. A mock that lets a request pass also comes here."""

    pools = {"http": _LocalHTTPPool, "https": _LocalHTTPSPool}

    def add_headers(self, request: requests.PreparedRequest, **kwargs: Any) -> None:
        """Refuse what would leave this machine, also what a proxy here would pass on. requests
        calls it before it connects."""
        addresses: list[Any] = [request.url, *(kwargs.get("proxies") or {}).values()]
        if not all(map(_is_local, addresses)):
            raise Refused("test-run")
        super().add_headers(request, **kwargs)


class WireInTests(Wire):
    """:param network: requests may also leave this machine (``SMSKA_NETWORK_IN_TESTS``)"""

    def __init__(self, *, network: bool, pool_size: int = 64, **options: Any) -> None:
        super().__init__(pool_size=pool_size, **options)
        self._network = network
        if not network:
            for scheme in ("http://", "https://"):
                self._session.mount(scheme, _LocalAdapter(pool_maxsize=pool_size))

    def _post(self, attempt: Attempt, request: requests.PreparedRequest) -> Answer:
        if (cassette := _cassette_for(request)) is not None:
            return self._replayed(attempt, request, cassette)
        if not _is_mocked(self._session):
            return super()._post(attempt, request)
        attempt.begin_without_connection()
        response = self._session.send(
            request,
            timeout=(self.connect_timeout, self.deadline),
            allow_redirects=False,
            stream=True,
        )
        return _answer_of(response)

    def _replayed(
        self, attempt: Attempt, request: requests.PreparedRequest, cassette: Any
    ) -> Answer:
        """Answer from vcrpy's cassette itself. A connection is made only to record one.

        Each connection under vcrpy puts the real classes back for a moment, in all threads.
        """
        records = not cassette.write_protected
        if records and not (self._network or _is_local(request.url)):
            raise Refused("test-recording")
        attempt.begin_without_connection()
        asked = _for_vcr(request)
        with _cassette_lock:
            if cassette.can_play_response_for(asked):
                return _recorded(cassette.play_response(asked))
            if not records:
                raise Refused("test-no-answer")
            return self._record(request)

    def _record(self, request: requests.PreparedRequest) -> Answer:
        """Send it through an adapter whose connections vcrpy replaces."""
        timeout = (self.connect_timeout, self.deadline)
        verify = self._session.verify or True
        with contextlib.closing(HTTPAdapter()) as adapter:
            return _answer_of(adapter.send(request, stream=True, timeout=timeout, verify=verify))

    def _failure(
        self, attempt: Attempt, error: Exception | None, request: requests.PreparedRequest
    ) -> SmsError:
        if isinstance(error, Refused):
            return unreachable(error.code, self._address(request.url or ""))
        # Where a connection of ours was made, the phase is known.
        if attempt.mocked and attempt.begun and (code := _never_connected(error)):
            return unreachable(code, self._address(request.url or ""))
        return super()._failure(attempt, error, request)


def _is_mocked(session: requests.Session) -> bool:
    """Return whether a library has replaced how requests sends: responses the adapter's method,
    requests-mock the session's. Instrumentation that wraps a function keeps its module."""
    return (
        getattr(HTTPAdapter.send, "__module__", "") != "requests.adapters"
        or getattr(requests.Session.send, "__module__", "") != "requests.sessions"
        or not isinstance(session.get_adapter("http://"), PhasedAdapter)
    )


def _cassette_for(request: requests.PreparedRequest) -> Any:
    """Return vcrpy's cassette in use; ``None`` where there is none, or it ignores this request."""
    with _cassette_lock:  # while another thread records, none is seen
        cassette = getattr(HTTPConnectionPool.ConnectionCls, "cassette", None)
    if cassette is None:
        return None
    return cassette if cassette.filter_request(_for_vcr(request)) else None


def _for_vcr(request: requests.PreparedRequest) -> Any:
    from vcr.request import Request  # type: ignore[import-not-found, import-untyped, unused-ignore]

    return cast(Any, Request)(request.method, request.url, request.body, dict(request.headers))


def _recorded(response: Any) -> Answer:
    return _checked_answer(response["status"]["code"], response["body"]["string"])


def _answer_of(response: requests.Response) -> Answer:
    with contextlib.closing(response):
        return _checked_answer(response.status_code, response.content)


def _checked_answer(status: int, body: bytes) -> Answer:
    if len(body) > ANSWER_LIMIT_BYTES:
        raise AnswerTooLong
    return Answer(status, body)


def _never_connected(error: Exception | None) -> str:
    """Return the code of an error that says that no connection was made, else ""."""
    if (type(error).__module__, type(error).__name__) == NO_ANSWER:
        return "test-no-answer"
    if isinstance(error, requests.ConnectionError) and str(error).startswith(
        NO_ANSWER_OF_RESPONSES
    ):
        return "test-no-answer"
    if not any(isinstance(one, NEVER_CONNECTED) for one in _named(error)):
        return ""
    is_timeout = isinstance(error, requests.exceptions.ConnectTimeout)
    return "connect-timeout" if is_timeout else cause_of(error)


def _named(error: object) -> Iterator[BaseException]:
    """Return the error and those that it names as its reason. One that was only handled while it
    was raised is none of these."""
    if isinstance(error, BaseException):
        yield error
        for one in (*error.args, getattr(error, "reason", None), error.__cause__):
            yield from _named(one)


def _is_local(url: Any) -> bool:
    return _is_local_host(urlsplit(str(url)).hostname or "")


def _is_local_host(host: str) -> bool:
    host = host.removesuffix(".")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")

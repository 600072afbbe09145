"""Base of the backends that speak HTTP: options, connection, errors without the request."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import ssl
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from django.core.checks import CheckMessage, Error, Warning

from .. import conf
from ..exceptions import InvalidProvider, SmsError
from ..exchange import LOOPBACK, Answer, Request
from ..receipts import Receipt
from ..redact import Hidden, contained
from .base import UNKNOWN_HINT, BaseSmsBackend, parse_rate

if TYPE_CHECKING:
    from ..wire import Wire
    from ..wire_in_tests import WireInTests

MAX_STEP_SECONDS = 3600

_T = TypeVar("_T")


class HttpBackend(BaseSmsBackend):
    """A backend that makes one HTTP request for a message, over :mod:`django_smska.wire`.

    A subclass defines :meth:`send_request` and :meth:`read_send_answer`, and calls :meth:`query`
    in the methods that query something. Its own OPTIONS are keyword arguments; it passes the rest
    on.

    :param login: what logs in, by the names of the options: all of it is required and withheld
    :param url: the provider's address
    :param sender_id: the sender of messages that name none
    :param senders: as with :class:`~django_smska.backends.base.BaseSmsBackend`
    :param connect_timeout: seconds in which the connection must stand
    :param deadline: seconds for connection, request and answer together
    :param keep_alive: seconds that an idle connection may be used again; 0 never uses one again
    :param proxy: an HTTP proxy, ``http://host:port``; those in the environment are ignored
    :param ca_bundle: path of a file of CA certificates, instead of those of ``certifi``
    :param rate: the most messages in a time, over all workers of all hosts: ``"20/s"``,
        ``"100/m"``, ``"1000/h"``
    """

    announces_first_byte = True

    def __init__(
        self,
        *,
        login: Mapping[str, Any],
        url: str,
        sender_id: str = "",
        senders: Sequence[str] | None = None,
        connect_timeout: float = 10,
        deadline: float = BaseSmsBackend.deadline,
        keep_alive: float = 1,
        proxy: str | None = None,
        ca_bundle: str | os.PathLike[str] | None = None,
        rate: str | float | None = None,
        alias: str | None = None,
        **unknown: Any,
    ) -> None:
        self.login = Hidden(**login)
        self._proxy = Hidden(url=proxy or None)
        del login, proxy
        super().__init__(alias=alias)
        self._wrong: list[tuple[str, str, str]] = []  # check, text and hint of what is refused
        self.sender_id, self.senders = sender_id, senders
        self.url = url
        self.deadline = deadline
        self._connection: dict[str, Any] = {
            "connect_timeout": connect_timeout,
            "deadline": deadline,
            "keep_alive": keep_alive,
            "ca_bundle": os.fspath(ca_bundle) if isinstance(ca_bundle, os.PathLike) else ca_bundle,
        }
        self._wire: Wire | None = None
        try:
            self.rate = parse_rate(rate)
        except ValueError as error:
            self._refuse(f"'rate': {error}.")
        if unknown:
            self._refuse(self._unknown(unknown), UNKNOWN_HINT, check="E003")
        self._refuse_wrong_options()
        self._raise_wrong()

    # --- the connection

    def open(self) -> bool:
        if self._wire is not None:
            return False
        made = contained(self._make_wire)
        if isinstance(made, BaseException):
            raise made
        self._wire = made
        return True

    def _make_wire(self) -> Wire:
        if conf.in_test_run():
            return self._make_wire_in_tests()
        from ..wire import Wire  # requests is loaded by the first use, not at start-up

        return Wire(proxy=self._proxy.url, **self._connection)

    def _make_wire_in_tests(self) -> Wire:
        options = {"proxy": self._proxy.url, **self._connection}
        return _wire_in_tests()(network=conf.network_in_tests(), **options)

    def close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    # --- requests

    def send_message(self, message: Any) -> Receipt:
        return self._contained(
            lambda wire: wire.exchange(
                self.send_request(message),
                self.read_send_answer,
                lambda: self.before_first_byte(message),
            )
        )

    def send_request(self, message: Any) -> Request:
        """Return the request that sends a message. Raise ``SmsNotSent`` where there is none."""
        raise TypeError(f"{type(self).__module__}.{type(self).__name__} defines no send_request().")

    def read_send_answer(self, answer: Answer) -> Receipt | SmsError:
        """Return what the answer to it means; an error is returned, not raised. All that is not
        definitely a refusal is ``SmsOutcomeUnknown``."""
        raise TypeError(f"{type(self).__module__}.{type(self).__name__} reads no answers.")

    def request(self, name: str, message: Any = None, **parts: Any) -> Request:
        """Return a request whose answer shows neither the login, nor what is in the message.

        :param name: what is asked, for the log
        :param parts: what :class:`~django_smska.wire.Request` has
        """
        secrets = list(vars(self.login).values())
        number = ""
        if message is not None:
            secrets += filter(None, (message.body, getattr(message, "code", "")))
            number = "".join(filter(str.isdigit, str(message.to)))
        return Request(**{"url": self.url, **parts}, name=name, secrets=secrets, number=number)

    def query(self, make: Callable[[], Request], read: Callable[[Answer], _T | SmsError]) -> _T:
        """Make a request that sends nothing, and return what ``read`` makes of the answer."""
        return self._contained(lambda wire: wire.query(make(), read))

    def _contained(self, ask: Callable[[Wire], _T | SmsError]) -> _T:
        """Raise errors here, where no local variable holds a secret."""
        result = contained(lambda: self._with_wire(ask))
        if isinstance(result, SmsError):
            result.alias = self.alias
        if isinstance(result, BaseException):
            raise result
        return result

    def _with_wire(self, ask: Callable[[Wire], _T | SmsError]) -> _T | SmsError:
        opened = self.open()
        assert self._wire is not None
        try:
            return ask(self._wire)
        finally:
            if opened:
                self.close()

    # --- options

    def check(self) -> list[CheckMessage]:
        return self._check_sender() + self._check_address() + self._check_ca_bundle()

    def _check_sender(self) -> list[CheckMessage]:
        """Return what is wrong with the sender; a subclass knows the provider's rule."""
        return []

    def _urls(self) -> list[str]:
        """Return the addresses that requests go to."""
        return [self.url]

    def _check_address(self) -> list[CheckMessage]:
        if all(map(_is_private, self._urls())):
            return []
        return [
            Warning(
                f"SMS_PROVIDERS[{self.alias!r}] sends the login, the numbers and the texts over "
                "http://, where every host on the way can read them.",
                hint="Ask the provider's support for TLS, then set 'url' to the https:// address. "
                "To accept that, add 'smska.W002' to SILENCED_SYSTEM_CHECKS.",
                id="smska.W002",
            )
        ]

    def _check_ca_bundle(self) -> list[CheckMessage]:
        bundle = self._connection["ca_bundle"]
        if not bundle or os.path.isdir(bundle):
            return []
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(bundle)
        except OSError:  # also what ssl raises
            return [
                Error(
                    f"SMS_PROVIDERS[{self.alias!r}]: 'ca_bundle' holds no certificates.",
                    hint="Name a file of CA certificates in PEM format.",
                    id="smska.E005",
                )
            ]
        return []

    def _refuse_wrong_options(self) -> None:
        if not all(isinstance(part, str) and part for part in vars(self.login).values()):
            names = " and ".join(map(repr, vars(self.login)))
            self._refuse(
                f"{names} must not be empty, and must be text.",
                "Put the provider's login in OPTIONS, from the environment.",
                check="E004",
            )
        for name in ("connect_timeout", "deadline", "keep_alive"):
            value = self._connection[name]
            least = 0 if name == "keep_alive" else 0.001
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and least <= value <= MAX_STEP_SECONDS):  # neither is NaN
                self._refuse(f"{name!r} must be a number of seconds up to {MAX_STEP_SECONDS}.")
        if not isinstance(self.sender_id, str):
            self._refuse("'sender_id' must be text.")
        if problem := self._problem_of_senders():
            self._refuse(problem)
        if problem := problem_of_address(self.url, ("http", "https")):
            self._refuse(f"'url' {problem}.")
        elif "@" in urlsplit(self.url).netloc or "?" in self.url:
            logins = ", ".join(map(repr, vars(self.login)))
            self._refuse(f"'url' must hold no login and no query: use {logins}.")
        if self._proxy.url and (problem := problem_of_address(self._proxy.url, ("http",))):
            self._refuse(f"'proxy' {problem}.")
        bundle = self._connection["ca_bundle"]
        if bundle and not (isinstance(bundle, str) and os.access(bundle, os.R_OK)):
            self._refuse("'ca_bundle' must be the path of a file that is there and can be read.")

    def _refuse(self, text: str, hint: str = "Correct OPTIONS.", check: str = "E005") -> None:
        self._wrong.append((check, text, hint))

    def _raise_wrong(self) -> None:
        """Raise one error about all that is wrong, so that it can be corrected at once."""
        if self._wrong:
            checks, texts, hints = zip(*self._wrong, strict=True)
            raise InvalidProvider(
                " ".join(texts),
                alias=self.alias,
                hint=" ".join(dict.fromkeys(hints)),
                check=checks[0],
            )


_loading = threading.Lock()


def _wire_in_tests() -> type[WireInTests]:
    """Load it once, and not from vcrpy's classes, which ours would inherit from.

    Putting the real ones back ends vcrpy's in all threads for that time.
    """
    with _loading:
        is_loaded = "django_smska.wire_in_tests" in sys.modules
        vcr = None if is_loaded else sys.modules.get("vcr.patch")
        with vcr.force_reset() if vcr else contextlib.nullcontext():
            from ..wire_in_tests import WireInTests
    return WireInTests


_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")
_BLANK = re.compile(r"[\s\x00-\x1f\x7f\\]")


def _is_private(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in LOOPBACK


def problem_of_address(url: Any, schemes: tuple[str, ...]) -> str:
    """Return what is wrong with an address. It is not repeated, because it may hold a password."""
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)
    if not isinstance(url, str):
        return f"must be an {wanted} address"
    if _BLANK.search(url) or not url.isprintable():
        return "must hold no blanks, control characters or backslashes"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "must be an address whose port, after the host, is a number from 1 to 65535"
    if parts.scheme not in schemes or not parts.hostname:
        return f"must be an {wanted} address"
    if port == 0:
        return "must be an address whose port, after the host, is a number from 1 to 65535"
    if not _is_host(parts.hostname):
        return "has no valid host name: between dots there are 1 to 63 letters, digits and hyphens"
    return ""


def _is_host(name: str) -> bool:
    if ":" in name:  # IPv6, whose brackets are stripped
        return _is_ip_address(name)
    if not name.isascii():
        name = _in_ascii(name)
    labels = name.removesuffix(".").split(".")
    if labels[-1].isdigit():
        return _is_ip_address(name)
    return len(name) <= 253 and all(_LABEL.fullmatch(label) for label in labels)


def _is_ip_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _in_ascii(name: str) -> str:
    """Return the name as it is looked up, or "" where it has no such form."""
    import idna  # requests' own; few names need it

    try:
        return idna.encode(name, uts46=True).decode()
    except UnicodeError:
        return ""

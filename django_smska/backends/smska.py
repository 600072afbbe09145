"""The SMS-ka gateway (my2.sms-ka.net), as its document of 2014-05-05 describes it."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import ssl
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ValidationError

from ..exceptions import InvalidProvider, InvalidRecipient, QueryFailed, SmsError, gettext_noop
from ..numbers import is_russian_mobile, normalize
from ..receipts import Receipt, Report
from ..redact import Hidden, contained
from ..senders import RULE, can_be_shown
from .base import UNKNOWN_HINT, BaseSmsBackend, parse_rate

if TYPE_CHECKING:
    from ..client import Gateway

logger = logging.getLogger(__name__)

MAX_STEP_SECONDS = 3600
DEFAULT_URL = "http://my2.sms-ka.net/api/httppost.php"


_T = TypeVar("_T", Receipt, Report, Decimal)


class SmsBackend(BaseSmsBackend):
    """Send through SMS-ka over ``requests``.

    :param api_key: the login; required
    :param api_password: the password; required
    :param sender_id: the sender of messages that name none
    :param url: the gateway's address; ask the provider for one with TLS
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
        api_key: str = "",
        api_password: str = "",
        sender_id: str = "",
        url: str = DEFAULT_URL,
        connect_timeout: float = 10,
        deadline: float = 30,
        keep_alive: float = 1,
        proxy: str | None = None,
        ca_bundle: str | os.PathLike[str] | None = None,
        rate: str | float | None = None,
        alias: str | None = None,
        **kwargs: Any,
    ) -> None:
        self._login = Hidden(api_key=api_key, api_password=api_password)
        self._proxy = Hidden(url=proxy or None)
        del api_key, api_password, proxy
        super().__init__(alias=alias)
        self._wrong: list[tuple[str, str, str]] = []  # check, text and hint of what is refused
        self.sender_id = sender_id
        self.url = url
        self.deadline = deadline
        self._connection: dict[str, Any] = {
            "connect_timeout": connect_timeout,
            "deadline": deadline,
            "keep_alive": keep_alive,
            "ca_bundle": os.fspath(ca_bundle) if isinstance(ca_bundle, os.PathLike) else ca_bundle,
        }
        self._gateway: Gateway | None = None
        try:
            self.rate = parse_rate(rate)
        except ValueError as error:
            self._refuse(f"'rate': {error}.")
        if kwargs:
            self._refuse(self._unknown(kwargs), UNKNOWN_HINT, check="E003")
        self._refuse_wrong_options()
        self._raise_wrong()

    def open(self) -> bool:
        if self._gateway is not None:
            return False
        made = contained(self._make_gateway)
        if isinstance(made, BaseException):
            raise made
        self._gateway = made
        return True

    def _make_gateway(self) -> Gateway:
        from ..client import Gateway  # requests is loaded by the first use, not at start-up

        return Gateway(**vars(self._login), url=self.url, proxy=self._proxy.url, **self._connection)

    def close(self) -> None:
        gateway, self._gateway = self._gateway, None
        if gateway is not None:
            gateway.close()

    def send_message(self, message: Any) -> Receipt:
        """Send to ``79`` and nine digits; other numbers raise ``InvalidRecipient`` unsent."""
        if message.sender:
            _warn_of_sender(self.alias, message.sender)
        return self._contained(lambda gateway: self._send(gateway, message))

    def _send(self, gateway: Gateway, message: Any) -> Receipt | SmsError:
        return gateway.send(
            self._msisdn(message),
            message.body,
            message.sender or self.sender_id,
            lambda: self.before_first_byte(message),
        )

    def get_status(self, message: Any) -> Report:
        if not message.gateway_id:
            text = gettext_noop("The gateway gave no ID to query by.")
            raise QueryFailed(text, alias=self.alias)
        return self._contained(
            lambda gateway: gateway.status(
                message.gateway_id, text=message.body, msisdn=_as_msisdn(message.to)
            )
        )

    def get_balance(self) -> Decimal:
        return self._contained(lambda gateway: gateway.balance())

    def _contained(self, ask: Callable[[Gateway], _T | SmsError]) -> _T:
        """Raise errors here, where no local variable holds a secret."""
        result = contained(lambda: self._with_gateway(ask))
        if isinstance(result, SmsError):
            result.alias = self.alias
        if isinstance(result, BaseException):
            raise result
        return result

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

    def _with_gateway(self, ask: Callable[[Gateway], _T | SmsError]) -> _T | SmsError:
        opened = self.open()
        assert self._gateway is not None
        try:
            return ask(self._gateway)
        finally:
            if opened:
                self.close()

    def check(self) -> list[CheckMessage]:
        return self._check_sender() + self._check_address() + self._check_ca_bundle()

    def _check_sender(self) -> list[CheckMessage]:
        if self.sender_id and not can_be_shown(self.sender_id):
            return [
                Warning(
                    f"SMS_PROVIDERS[{self.alias!r}] has the 'sender_id' {self.sender_id!r}, which "
                    "networks do not carry: the gateway will refuse it.",
                    hint=f"A sender has {RULE}. Register such a name with the provider.",
                    id="smska.W012",
                )
            ]
        if self.sender_id:
            return []
        return [
            Warning(
                f"SMS_PROVIDERS[{self.alias!r}] has no 'sender_id': the gateway refuses each "
                "message that names no sender of its own.",
                hint="Set 'sender_id' in OPTIONS to a name registered with the provider.",
                id="smska.W003",
            )
        ]

    def _check_address(self) -> list[CheckMessage]:
        parts = urlsplit(self.url)
        if parts.scheme == "https" or parts.hostname in ("127.0.0.1", "::1", "localhost"):
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

    def _msisdn(self, message: Any) -> str:
        if msisdn := _as_msisdn(message.to):
            return msisdn
        raise InvalidRecipient(
            gettext_noop(
                "SMS-ka sends to Russian mobile numbers only: +79 and nine digits. Correct the "
                "number or send it through another provider."
            ),
            alias=self.alias,
            code="number",
        )

    def _refuse_wrong_options(self) -> None:
        if not all(isinstance(part, str) and part for part in vars(self._login).values()):
            self._refuse(
                "'api_key' and 'api_password' must not be empty, and must be text.",
                "Put the gateway's login and password in OPTIONS, from the environment.",
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
        if problem := _problem_of_address(self.url, ("http", "https")):
            self._refuse(f"'url' {problem}.")
        elif "@" in urlsplit(self.url).netloc or "?" in self.url:
            self._refuse("'url' must hold no login and no query: use 'api_key', 'api_password'.")
        if self._proxy.url and (problem := _problem_of_address(self._proxy.url, ("http",))):
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


@lru_cache(maxsize=1000)  # once for each sender
def _warn_of_sender(alias: str | None, sender: str) -> None:
    """Warn only: the provider's document has no rule for senders, so the gateway decides."""
    if not can_be_shown(sender):
        logger.warning("%s: the sender %r will be refused; a sender has %s", alias, sender, RULE)


def _as_msisdn(value: Any) -> str:
    """Return ``79XXXXXXXXX`` as the gateway wants it, or ""."""
    try:
        number = normalize(value)
    except ValidationError:
        return ""
    return number[1:] if is_russian_mobile(number) else ""


_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")
_BLANK = re.compile(r"[\s\x00-\x1f\x7f\\]")


def _problem_of_address(url: Any, schemes: tuple[str, ...]) -> str:
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

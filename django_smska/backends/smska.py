"""The SMS-ka gateway (my2.sms-ka.net), as its document of 2014-05-05 describes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import SplitResult, urlsplit

from django.core.checks import CheckMessage, Warning
from django.core.exceptions import ValidationError

from ..exceptions import InvalidProvider, InvalidRecipient, QueryFailed, SmsError, gettext_noop
from ..numbers import is_russian_mobile, normalize
from ..receipts import Receipt, Report
from .base import BaseSmsBackend, parse_rate

if TYPE_CHECKING:
    from ..gateway import Gateway

LONGEST = 3600  # seconds that any step may take
DEFAULT_URL = "http://my2.sms-ka.net/api/httppost.php"


_T = TypeVar("_T", Receipt, Report, Decimal)


class SmsBackend(BaseSmsBackend):
    """Sends through SMS-ka over ``requests``.

    OPTIONS: ``api_key`` (login) and ``api_password``; ``sender_id``, the sender of messages that
    name none; ``url``; ``connect_timeout``, ``deadline`` and ``keep_alive`` in seconds; ``proxy``
    (``http://host:port``); ``ca_bundle`` (path); ``rate``, the most messages in a time, over all
    workers (``"20/s"``, ``"100/m"``). :class:`django_smska.gateway.Gateway` describes
    them.
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
        ca_bundle: str | None = None,
        rate: str | float | None = None,
        alias: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(alias=alias, **kwargs)
        self._credentials = Credentials(api_key, api_password)
        self.sender_id = sender_id
        self.url = url
        self.deadline = deadline
        self._connection: dict[str, Any] = {
            "connect_timeout": connect_timeout,
            "deadline": deadline,
            "keep_alive": keep_alive,
            "proxy": proxy or None,
            "ca_bundle": ca_bundle or None,
        }
        self._gateway: Gateway | None = None
        try:
            self.rate = parse_rate(rate)
        except ValueError as error:
            self._refuse(f"'rate': {error}.")
        self._refuse_wrong_options()

    def open(self) -> bool:
        if self._gateway is not None:
            return False
        from ..gateway import Gateway  # requests is loaded by the first use, not at start-up

        self._gateway = Gateway(
            self._credentials.key,
            self._credentials.password,
            url=self.url,
            **self._connection,
        )
        return True

    def close(self) -> None:
        gateway, self._gateway = self._gateway, None
        if gateway is not None:
            gateway.close()

    def send_message(self, message: Any) -> Receipt:
        """Send to ``79`` and nine digits; other numbers raise ``InvalidRecipient`` unsent."""
        msisdn = self._msisdn(message)
        with self._line() as gateway:
            result = gateway.send(
                msisdn,
                message.body,
                message.sender or self.sender_id,
                lambda: self.before_first_byte(message),
            )
        del msisdn
        return self._or_raise(result)

    def get_status(self, message: Any) -> Report:
        if not message.gateway_id:
            text = gettext_noop("The gateway gave no id to ask about.")
            raise QueryFailed(text, alias=self.alias)
        with self._line() as gateway:
            result = gateway.status(message.gateway_id)
        return self._or_raise(result)

    def get_balance(self) -> Decimal:
        with self._line() as gateway:
            result = gateway.balance()
        return self._or_raise(result)

    def check(self) -> list[CheckMessage]:
        return self._check_sender() + self._check_address()

    def _check_sender(self) -> list[CheckMessage]:
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
                "http://, where anybody on the way can read them.",
                hint="Ask the provider's support for TLS, then set 'url' to the https:// address. "
                "To live with it, add 'smska.W002' to SILENCED_SYSTEM_CHECKS.",
                id="smska.W002",
            )
        ]

    @contextmanager
    def _line(self) -> Iterator[Gateway]:
        opened = self.open()
        assert self._gateway is not None
        try:
            yield self._gateway
        finally:
            if opened:
                self.close()

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

    def _or_raise(self, result: _T | SmsError) -> _T:
        """Raise a returned error here, where no local variable holds a secret."""
        if isinstance(result, SmsError):
            result.alias = self.alias
            raise result
        return result

    def _refuse_wrong_options(self) -> None:
        login = (self._credentials.key, self._credentials.password)
        if not all(isinstance(part, str) and part for part in login):
            self._refuse(
                "'api_key' and 'api_password' must not be empty, and must be text.",
                "Put the gateway's login and password in OPTIONS, from the environment.",
                check="E004",
            )
        for name in ("connect_timeout", "deadline", "keep_alive"):
            value = self._connection[name]
            least = 0 if name == "keep_alive" else 0.001
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and least <= value <= LONGEST):  # neither is NaN
                self._refuse(f"{name!r} must be a number of seconds up to {LONGEST}.")
        if not isinstance(self.sender_id, str):
            self._refuse("'sender_id' must be text.")
        parts = self._split(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            self._refuse("'url' must be an http:// or https:// address.")
        if parts.username or parts.query:
            self._refuse("'url' must hold no login and no query: use 'api_key', 'api_password'.")
        proxy = self._connection["proxy"]
        if proxy and self._split(proxy).scheme != "http":
            self._refuse("'proxy' must be an http:// address.")

    @staticmethod
    def _split(url: Any) -> SplitResult:
        try:
            return urlsplit(str(url))
        except ValueError:
            return urlsplit("")

    def _refuse(self, text: str, hint: str = "Correct OPTIONS.", check: str = "E005") -> None:
        raise InvalidProvider(text, alias=self.alias, hint=hint, check=check)


def _as_msisdn(value: Any) -> str:
    """``79XXXXXXXXX`` as the gateway wants it, or nothing."""
    try:
        number = normalize(value)
    except ValidationError:
        return ""
    return number[1:] if is_russian_mobile(number) else ""


class Credentials:
    """Login and password, not shown by ``repr()``."""

    def __init__(self, key: str, password: str) -> None:
        self.key = key
        self.password = password

    def __repr__(self) -> str:
        return "<Credentials •••>"

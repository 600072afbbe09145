"""The base class of backends. A new one needs only ``send_message``."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

from django.core.checks import CheckMessage

from .. import log_fields
from ..exceptions import InvalidProvider, QueryFailed, SmsError, SmsOutcomeUnknown, gettext_noop
from ..receipts import Evidence, Inbound, Receipt, Report
from ..shapes import is_sequence
from ..states import STOPPING_KINDS
from ..webhook_urls import webhook_url

if TYPE_CHECKING:
    from django.http import HttpRequest

    from ..models import SmsMessage

logger = logging.getLogger(__name__)

UNKNOWN_HINT = "Correct the name in OPTIONS, or remove it."
MAX_SENDER_CHARACTERS = 32  # that are stored


class BaseSmsBackend:
    """Base class of SMS backends, in the manner of Django's email backends.

    A subclass accepts its OPTIONS as keyword arguments and passes the rest on; unknown ones are
    refused. It must define :meth:`send_message`; everything else is optional.

    :param senders: the sender IDs that the account may use, ``["Shop", "ShopSale"]``, besides the
        provider's own. Where they are given, messages with another sender are refused, and the
        admin offers these as a choice. None means any
    """

    #: False for a backend that never waits for anything: it acts even inside a transaction.
    uses_network: ClassVar[bool] = True
    #: True if ``send_message`` itself calls :meth:`before_first_byte` once a connection stands.
    #: Otherwise the message counts as "may have been accepted" from the call on.
    announces_first_byte: ClassVar[bool] = False
    #: The sender of messages that name none: the do-not-send list may have entries for it.
    sender_id: str = ""
    #: The option of this name.
    senders: Sequence[str] | None = None
    #: How the numbers begin that it sends to, such as ``("+79",)``; none means all.
    prefixes: tuple[str, ...] = ()
    #: The longest that one send may take, in seconds; the claim's lease must outlast it, and so
    #: must a web server: gunicorn kills after 30, which leaves a message unknown.
    deadline: float = 20
    #: Messages a second, over all workers; None for no limit.
    rate: float | None = None
    #: The most requests in flight at once that the provider allows one account; None for no limit.
    most_at_once: int | None = None
    #: The most segments of one text; None for no limit of the provider.
    most_segments: int | None = None
    #: What a sender must match as a whole; another one is refused before the request.
    sender_rule: ClassVar[re.Pattern[str] | None] = None
    #: What the balance counts: "credits", a currency of three letters, "money" for the currency of
    #: the account and its prices, or empty where that is not known.
    balance_unit: str = ""
    #: How reports come: "polling" (:meth:`get_status`), "push" (:meth:`parse_reports`) or "both".
    reports_by: str = "polling"
    #: What it can prove about an unknown outcome.
    evidence: ClassVar[Evidence] = Evidence.MUTE
    #: True where reports and messages of phones are pushed to one address.
    one_webhook: ClassVar[bool] = False
    #: The body of the answer to a webhook request, as the provider wants it.
    webhook_answer: str = ""

    def __init__(
        self,
        *,
        senders: Sequence[str] | None = None,
        alias: str | None = None,
        **options: Any,
    ) -> None:
        self.alias = alias
        self.senders = senders
        if options:
            raise InvalidProvider(
                self._unknown(options), alias=alias, check="E003", hint=UNKNOWN_HINT
            )
        if problem := self._problem_of_senders():
            raise InvalidProvider(problem, alias=alias, hint="Correct OPTIONS.")

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} alias={self.alias!r}>"

    def open(self) -> bool | None:
        """Open a connection; return True if there was none before."""
        return None

    def close(self) -> None:
        """Close the connection."""

    def __enter__(self) -> BaseSmsBackend:
        try:
            self.open()
        except Exception:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def send_message(self, message: SmsMessage) -> Receipt:
        """Send one message (anything with ``to``, ``body``, ``sender``) in one request.

        Raise an :class:`~django_smska.exceptions.SmsNotSent` only for a message that was
        definitely not accepted, and :class:`~django_smska.exceptions.SmsOutcomeUnknown` for every
        doubt. Any other exception counts as a doubt.
        """
        name = type(self).__name__
        raise TypeError(f"{name} is a subclass of BaseSmsBackend and must define send_message().")

    def send_messages(self, messages: Iterable[SmsMessage]) -> int:
        """Send each message; return how many were accepted.

        Each message then carries ``receipt`` (a :class:`~django_smska.receipts.Receipt`, or
        ``None``) and ``error`` (the :class:`~django_smska.exceptions.SmsError`, or ``None``). An
        error that concerns the whole account ends the run: the rest carry it without being tried.
        """
        accepted, stopped = 0, None
        opened = self.open()
        try:
            for message in messages:
                message.receipt, message.error = self._try(message, stopped)
                accepted += message.error is None
                if message.error and message.error.kind in STOPPING_KINDS:
                    stopped = message.error
        finally:
            if opened:
                self.close()
        return accepted

    def _try(self, message: SmsMessage, stopped: SmsError | None) -> tuple[Receipt | None, Any]:
        if stopped is not None:
            return None, stopped
        try:
            receipt = self.send_message(message)
        except SmsError as error:
            extra = log_fields.of_message(message, error.code, alias=self.alias)
            logger.warning("not accepted: %s", error, extra=extra)
            return None, error
        except Exception as error:  # its text may hold the request
            extra = log_fields.of_message(message, "crash", alias=self.alias)
            logger.error("%r raised %s", self, type(error).__name__, extra=extra)
            return None, SmsOutcomeUnknown(alias=self.alias, code="crash")
        if not isinstance(receipt, Receipt):
            return None, SmsOutcomeUnknown(alias=self.alias, code="no-receipt")
        return receipt, None

    def get_status(self, message: SmsMessage) -> Report:
        """Poll the delivery report of a message with a ``gateway_id``."""
        text = gettext_noop("This provider gives no delivery reports.")
        raise QueryFailed(text, alias=self.alias)

    def find(self, message: SmsMessage) -> Report | None:
        """Ask the provider for a message whose outcome is unknown, by its ``reference``; return
        what is known of it, or ``None`` where the provider does not know it.

        ``None`` proves nothing, unless :attr:`evidence` is ``CERTAIN``.
        """
        text = gettext_noop("This provider cannot be asked for a message.")
        raise QueryFailed(text, alias=self.alias)

    def webhook_url(self, kind: str) -> str:
        """Return the public address at which the provider pushes to this site, or "" where the
        project has not set one up.

        :param kind: ``"report"`` or ``"inbound"``
        """
        return webhook_url(self.alias or "", kind)

    def authenticate(self, request: HttpRequest) -> bool:
        """Return whether a webhook request is the provider's, beyond the secret in its address.

        Compare in constant time (:func:`django.utils.crypto.constant_time_compare`).
        """
        return True

    def parse_reports(self, request: HttpRequest) -> list[Report]:
        """Return the delivery reports of a webhook request. Raise ``ValueError`` for one that
        cannot be read."""
        return []

    def parse_inbound(self, request: HttpRequest) -> list[Inbound]:
        """Return the messages of a webhook request that phones sent. Raise ``ValueError`` for one
        that cannot be read."""
        return []

    def get_balance(self) -> Decimal:
        """Return what is left, in :attr:`balance_unit`."""
        raise QueryFailed(gettext_noop("This provider has no balance."), alias=self.alias)

    def check(self) -> list[CheckMessage]:
        """Return system check messages about this provider's settings; no network."""
        return []

    @property
    def gives_reports(self) -> bool:
        return type(self).get_status is not BaseSmsBackend.get_status

    @property
    def takes_reports(self) -> bool:
        """Whether the provider pushes delivery reports that this backend can read."""
        return type(self).parse_reports is not BaseSmsBackend.parse_reports

    @property
    def takes_inbound(self) -> bool:
        """Whether the provider pushes messages of phones that this backend can read."""
        return type(self).parse_inbound is not BaseSmsBackend.parse_inbound

    @property
    def has_balance(self) -> bool:
        return type(self).get_balance is not BaseSmsBackend.get_balance

    @staticmethod
    def before_first_byte(message: SmsMessage) -> None:
        """Announce to the sender of ``message`` that the request's first byte comes next.

        Where this raises, the attempt must end with nothing written.
        """
        announce = getattr(message, "before_first_byte", None)
        if announce is not None:
            announce()

    def _problem_of_senders(self) -> str:
        """Return what is wrong with the option, or ""."""
        if self.senders is None:
            return ""
        listed: Any = self.senders
        if not (is_sequence(listed) and listed and all(map(_can_be_sender, listed))):
            return (
                "'senders' must be a list of sender IDs, such as ['Shop', 'ShopSale']: one line "
                f"each, of {MAX_SENDER_CHARACTERS} characters at most."
            )
        if doubled := [one for at, one in enumerate(listed) if one in listed[:at]]:
            return f"'senders' names {doubled[0]!r} twice."
        rule = self.sender_rule
        wrong = [one for one in listed if rule is not None and not rule.fullmatch(one)]
        return f"'senders' names {wrong[0]!r}, which the provider does not carry." if wrong else ""

    @classmethod
    def _unknown(cls, options: Iterable[str]) -> str:
        names = ", ".join(repr(name) for name in sorted(options))
        return f"Unknown option {names}. {cls.__module__} knows: {cls._known()}."

    @classmethod
    def _known(cls) -> str:
        names: dict[str, None] = {}
        for one in cls.__mro__:  # each passes on to the next what it does not know
            if "__init__" in vars(one):
                parameters = inspect.signature(one.__init__).parameters.values()  # type: ignore[misc]
                names |= {p.name: None for p in parameters if p.kind == p.KEYWORD_ONLY}
        return ", ".join(name for name in names if name not in _NO_OPTIONS) or "no options"


#: What backends pass to each other.
_NO_OPTIONS = frozenset({"alias", "login"})


def _can_be_sender(value: object) -> bool:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_SENDER_CHARACTERS:
        return False
    return value.isprintable() and value == value.strip()


_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?:/(s|m|h))?")
_SECONDS = {"s": 1, "m": 60, "h": 3600, None: 1}


def parse_rate(rate: object) -> float | None:
    """Return the messages a second of ``"20/s"``, ``"100/m"``, ``"1000/h"`` or a number.

    ``None`` and an empty text mean no limit: ``None``. Raises ``ValueError``.
    """
    if rate is None or rate == "":
        return None
    match = None if isinstance(rate, bool) else _RATE.fullmatch(str(rate))
    if match is None or float(match[1]) <= 0:
        raise ValueError("a rate is written like 20/s, 100/m or 1000/h")
    return float(match[1]) / _SECONDS[match[2]]

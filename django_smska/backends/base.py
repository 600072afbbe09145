"""The base class of backends. A new one needs only ``send_message``."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, ClassVar

from django.core.checks import CheckMessage

from ..exceptions import InvalidProvider, QueryFailed, SmsError, SmsOutcomeUnknown, gettext_noop
from ..receipts import Receipt, Report
from ..states import STOPPING_KINDS

logger = logging.getLogger(__name__)

UNKNOWN_HINT = "Correct the name in OPTIONS, or remove it."


class BaseSmsBackend:
    """Base class of SMS backends, in the manner of Django's email backends.

    A subclass accepts its OPTIONS as keyword arguments and passes the rest on; unknown ones are
    refused. It must define :meth:`send_message`; everything else is optional.
    """

    #: False for a backend that never waits for anything: it acts even inside a transaction.
    uses_network: ClassVar[bool] = True
    #: True if ``send_message`` itself calls :meth:`before_first_byte` once a connection stands.
    #: Otherwise the message counts as "may have been accepted" from the call on.
    announces_first_byte: ClassVar[bool] = False
    #: The longest that one send may take, in seconds; the claim's lease must outlast it.
    deadline: float = 30
    #: Messages a second, over all workers; None for no limit.
    rate: float | None = None

    def __init__(self, *, alias: str | None = None, **options: Any) -> None:
        self.alias = alias
        if options:
            raise InvalidProvider(
                self._unknown(options), alias=alias, check="E003", hint=UNKNOWN_HINT
            )

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

    def send_message(self, message: Any) -> Receipt:
        """Send one message (anything with ``to``, ``body``, ``sender``) in one request.

        Raise an :class:`~django_smska.exceptions.SmsNotSent` only for a message that was
        definitely not accepted, and :class:`~django_smska.exceptions.SmsOutcomeUnknown` for every
        doubt. Any other exception counts as a doubt.
        """
        name = type(self).__name__
        raise TypeError(f"{name} is a subclass of BaseSmsBackend and must define send_message().")

    def send_messages(self, messages: Iterable[Any]) -> int:
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

    def _try(self, message: Any, stopped: SmsError | None) -> tuple[Receipt | None, Any]:
        if stopped is not None:
            return None, stopped
        try:
            receipt = self.send_message(message)
        except SmsError as error:
            logger.warning("not accepted: %s", error)
            return None, error
        except Exception as error:  # its text may hold the request
            logger.error("%r raised %s", self, type(error).__name__)
            return None, SmsOutcomeUnknown(alias=self.alias, code="crash")
        if not isinstance(receipt, Receipt):
            return None, SmsOutcomeUnknown(alias=self.alias, code="no-receipt")
        return receipt, None

    def get_status(self, message: Any) -> Report:
        """Poll the delivery report of a message with a ``gateway_id``."""
        text = gettext_noop("This provider gives no delivery reports.")
        raise QueryFailed(text, alias=self.alias)

    def get_balance(self) -> Decimal:
        """Return the credits left."""
        raise QueryFailed(gettext_noop("This provider has no balance."), alias=self.alias)

    def check(self) -> list[CheckMessage]:
        """Return system check messages about this provider's settings; no network."""
        return []

    @property
    def gives_reports(self) -> bool:
        return type(self).get_status is not BaseSmsBackend.get_status

    @property
    def has_balance(self) -> bool:
        return type(self).get_balance is not BaseSmsBackend.get_balance

    @staticmethod
    def before_first_byte(message: Any) -> None:
        """Announce to the sender of ``message`` that the request's first byte comes next.

        Where this raises, the attempt must end with nothing written.
        """
        announce = getattr(message, "before_first_byte", None)
        if announce is not None:
            announce()

    @classmethod
    def _unknown(cls, options: Iterable[str]) -> str:
        names = ", ".join(repr(name) for name in sorted(options))
        return f"Unknown option {names}. {cls.__module__} knows: {cls._known()}."

    @classmethod
    def _known(cls) -> str:
        parameters = inspect.signature(cls.__init__).parameters.values()
        names = [p.name for p in parameters if p.kind == p.KEYWORD_ONLY and p.name != "alias"]
        return ", ".join(names) or "no options"


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

"""Call backends safely: a third party's class may raise and return anything.

The engine, the commands and the checks reach every backend through :class:`CheckedBackend`. Its
methods raise ``SmsError`` and no other error, and return values that any database can store. What a
backend does wrong is logged with the exception's class alone, because its text may hold the
request.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, TypeVar

from django.core.checks import CheckMessage, Warning
from django.core.signals import setting_changed
from django.dispatch import receiver

from .backends.base import BaseSmsBackend, parse_rate
from .exceptions import (
    ErrorKind,
    InvalidProvider,
    ProviderFailed,
    QueryCrashed,
    QueryFailed,
    SmsError,
    SmsNotSent,
    SmsOutcomeUnknown,
    gettext_noop,
)
from .providers import providers
from .receipts import Receipt, Report
from .states import MOVES, STOPPING_KINDS, Status

logger = logging.getLogger(__name__)

REPORTED = (MOVES[Status.SENT] | {Status.SENT}) - {Status.UNCONFIRMED}
KINDS = frozenset(ErrorKind) - {ErrorKind.ERROR, ErrorKind.STATUS}  # that a backend may raise
MAX_ERROR_CHARACTERS = 1000
MIN_RATE_PER_SECOND = 1e-6  # one message in eleven days
CREDITS_LIMIT = 10**12  # no account has so many, and the column cannot hold them

FAILED = gettext_noop(
    "The provider's backend on this site failed before anything was sent; the log says more."
)
NO_ANSWER = gettext_noop(
    "The provider's backend on this site gave no usable answer; the log says more."
)
BAD_RATE = gettext_noop("Its 'rate' cannot be read: write it like 20/s, 100/m or 1000/h.")
NO_RECEIPT = gettext_noop(
    "The provider's backend on this site did not say whether the message was accepted."
)

_T = TypeVar("_T")


def provider(alias: str) -> CheckedBackend:
    """Make the backend of this alias. Raises ``InvalidProvider`` where it cannot be made."""
    return CheckedBackend(alias, providers[alias])


def unusable(alias: str, error: InvalidProvider) -> CheckedBackend:
    """Return what stands for a backend that cannot be made: its calls raise ``ProviderFailed``."""
    checked = CheckedBackend(alias, None)
    checked.unusable = str(error).removeprefix(f"SMS_PROVIDERS[{alias!r}]: ")
    return checked


#: Providers that give reports. Every outcome needs this, and making a backend costs a quarter of
#: storing one. Others are not kept: a property that fails counts as a no, this time.
_reporting: set[str] = set()


def gives_reports(alias: str) -> bool:
    """Return whether this provider can be queried for reports; True where that is not known."""
    if alias in _reporting:
        return True
    try:
        reports = provider(alias).gives_reports
    except InvalidProvider as error:
        logger.error("%s", error)
        return True
    if reports:
        _reporting.add(alias)
    return reports


@receiver(setting_changed)  # in tests
def _forget_reporting(**kwargs: Any) -> None:
    _reporting.clear()


class CheckedBackend:
    """A backend, and the only access to it. Its attributes are read once, when this is made."""

    def __init__(self, alias: str, backend: Any) -> None:
        self.alias = alias
        self.unusable = ""  # why no call can be made
        self.module = type(backend).__module__
        self._backend = backend
        self._opened = False
        # Where the value makes no sense, the careful one is used.
        self.uses_network = self._attribute("uses_network", True) is not False
        self.announces_first_byte = self._attribute("announces_first_byte", False) is True
        reports, balance = (hasattr(type(backend), one) for one in ("get_status", "get_balance"))
        self.gives_reports = self._attribute("gives_reports", reports) is True
        self.has_balance = self._attribute("has_balance", balance) is True
        self.members = self._members()
        self.deadline = self._deadline()
        self.rate = self._rate()

    def __enter__(self) -> CheckedBackend:
        try:
            self.open()
        except SmsError:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # --- calls

    def open(self) -> None:
        """Open a connection. Raises ``SmsNotSent`` of a kind that concerns the provider."""
        self._opened = True
        error = _caught(lambda: self._optional("open"))
        if error is None:
            return
        if isinstance(error, SmsNotSent) and (fit := self._fit(error)).kind in STOPPING_KINDS:
            raise fit
        raise self._failed(error, "open")

    def close(self) -> None:
        """Close the connection. An error is logged only, because outcomes are known by now."""
        opened, self._opened = self._opened, False
        if not opened or self.unusable:
            return
        if (error := _caught(lambda: self._optional("close"))) is not None:
            self._log("close", error)

    def send_message(self, message: Any) -> Receipt:
        """Send one message.

        Its ``before_first_byte`` is called before the backend, unless that announces its first
        byte itself.

        Raises ``SmsError``, and what ``before_first_byte`` raised.
        """
        first_byte = _FirstByte(getattr(message, "before_first_byte", None))
        message.before_first_byte = first_byte
        try:
            outcome = self._outcome(message, first_byte)
            if not isinstance(outcome, SmsNotSent):
                first_byte()  # also where the backend promised to announce it, and did not
        finally:
            message.before_first_byte = first_byte.announce
        if isinstance(outcome, SmsError):
            raise outcome
        return outcome

    def get_status(self, message: Any) -> Report:
        """Query a report. Raises ``SmsError``."""
        return self._answer("get_status", _report, message)

    def get_balance(self) -> Decimal:
        """Query the credits left: a finite number. Raises ``SmsError``."""
        return self._answer("get_balance", _balance)

    def check(self) -> list[CheckMessage]:
        """Return the backend's system check messages, and ours where it has none to return."""
        found: list[CheckMessage] = []
        error = _caught(lambda: found.extend(_check_messages(self._optional("check", []))))
        if error is None:
            return found
        why = self.unusable or f"check() of its backend failed ({type(error).__name__})."
        return [
            Warning(
                f"SMS_PROVIDERS[{self.alias!r}]: {why}",
                hint="Report it to the author of the backend. Until it is fixed, its settings are "
                "not checked, or nothing is sent through it.",
                id="smska.W009",
            )
        ]

    def skip(self, aliases: Iterable[str]) -> None:
        """Let a failover try none of these members until it is closed. It may be called while
        messages are sent."""
        if self.members:
            self._backend.skipped.update(aliases)

    # --- what came of a call

    def _outcome(self, message: Any, first_byte: _FirstByte) -> Receipt | SmsError:
        if self.unusable:
            return self._is_unusable()
        if not self.announces_first_byte:
            first_byte()
        returned: list[Any] = []
        error = _caught(lambda: returned.append(self._backend.send_message(message)))
        if first_byte.error is not None:
            raise first_byte.error  # whatever the backend raised after it
        if error is not None:
            return self._fit(self._judged(error, begun=first_byte.begun))
        (receipt,) = returned
        if not isinstance(receipt, Receipt):
            return SmsOutcomeUnknown(NO_RECEIPT, alias=self.alias, code="no-receipt")
        return self._cleaned(receipt)

    def _judged(self, error: Exception, *, begun: bool) -> Exception:
        """Return the two classes about a send as they are; any other error means a doubt."""
        if isinstance(error, (SmsNotSent, SmsOutcomeUnknown)):
            return error
        return self.crashed(error, begun=begun)

    def crashed(self, error: BaseException, *, begun: bool) -> SmsError:
        """Return the outcome of a ``send_message`` that raised this error.

        :param begun: the first byte may have been written
        """
        if begun:
            self._log("send_message", error)
            return SmsOutcomeUnknown(code=_crash(error))
        return self._failed(error, "send_message")

    def _answer(self, name: str, read: Callable[[Any], _T], *args: Any) -> _T:
        answers: list[_T] = []
        error = _caught(lambda: answers.append(read(self._optional(name, None, *args))))
        if error is None:
            return answers[0]
        if isinstance(error, SmsError) and not self.unusable:
            raise self._fit(error)
        raise self.no_answer(error, name)

    def _cleaned(self, receipt: Receipt) -> Receipt:
        """Return the receipt without values that cannot be stored: the message was accepted."""
        readers: dict[str, Callable[[Any], Any]] = {
            "gateway_id": _id,
            "balance": _balance_if_any,
            "alias": _alias,
        }
        good: dict[str, Any] = {}
        for name, read in readers.items():
            try:
                good[name] = read(getattr(receipt, name))
            except Exception as error:
                self._log(f"{name} of a receipt", error)
        return Receipt(**good, refused=receipt.refused if self.members else ())

    def _is_unusable(self) -> ProviderFailed:
        return ProviderFailed(self.unusable, alias=self.alias, code="provider")

    def _failed(self, error: BaseException, name: str) -> ProviderFailed:
        if self.unusable:
            return self._is_unusable()
        self._log(name, error)
        return ProviderFailed(FAILED, alias=self.alias, code=_crash(error))

    def no_answer(self, error: BaseException, name: str) -> QueryCrashed:
        """Return the outcome of a query that raised this error."""
        self._log(name, error)
        return QueryCrashed(self.unusable or NO_ANSWER, alias=self.alias, code=_crash(error))

    def _fit(self, error: Exception) -> SmsError:
        """Make an error fit to be stored and shown, without its frames, which may hold the request.

        An error of a third party's class may lack attributes that all of ours have.
        """
        flaw = _caught(lambda: _tidy(error, self))
        if flaw is not None or not isinstance(error, SmsError):
            self._log("an error that it raised", error)
            ours = (one for one in (SmsOutcomeUnknown, SmsNotSent) if isinstance(error, one))
            return next(ours, QueryFailed)(alias=self.alias, code=_crash(error))
        return error

    # --- the backend itself

    def _optional(self, name: str, otherwise: Any = None, *args: Any) -> Any:
        """Call a method that a backend which does not inherit ours may lack."""
        if self.unusable:
            raise self._is_unusable()
        method = getattr(self._backend, name, None)
        return otherwise if method is None else method(*args)

    def _attribute(self, name: str, missing: Any) -> Any:
        try:
            return getattr(self._backend, name, missing)
        except Exception as error:
            self._log(name, error)
            return None

    def _members(self) -> list[CheckedBackend]:
        """Return the providers that a failover tries in turn, each as a CheckedBackend."""
        members = self._attribute("members", None)
        if not isinstance(members, list):
            return []
        return [member for member in members if isinstance(member, CheckedBackend)]

    def _deadline(self) -> float:
        value = self._attribute("deadline", BaseSmsBackend.deadline)
        try:
            return _above_zero(value)
        except Exception as error:
            self._log("deadline", error)
            return BaseSmsBackend.deadline

    def _rate(self) -> float | None:
        """Return the rate limit. Where it cannot be read, nothing is sent."""
        try:
            value = getattr(self._backend, "rate", None)
            rate = _above_zero(value) if isinstance(value, (int, float)) else parse_rate(value)
            if rate is not None and rate < MIN_RATE_PER_SECOND:
                raise ValueError("a rate that is never reached")
            return rate
        except Exception as error:
            self._log("rate", error)
            self.unusable = BAD_RATE
            return None

    def _log(self, name: str, error: BaseException) -> None:
        words = f"{type(error).__name__}{_where(error)}"
        logger.error("provider %s: %s failed (%s)", self.alias, name, words)


def _where(error: BaseException) -> str:
    """Return file and line of the innermost frame. Never its values, which may hold the request."""
    traceback, place = error.__traceback__, ""
    while traceback is not None:
        place = f", {traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place


def _caught(call: Callable[[], Any]) -> Exception | None:
    """Call, and return what was raised, so that later errors have no context."""
    try:
        call()
    except Exception as error:
        return error
    return None


class _FirstByte:
    """Passes the announcement of the first byte on, and remembers its result."""

    def __init__(self, announce: Callable[[], Any] | None) -> None:
        self.announce, self.begun = announce, False
        self.error: BaseException | None = None

    def __call__(self) -> None:
        if self.error is not None:
            raise self.error
        if self.begun:
            return
        try:
            if self.announce is not None:
                self.announce()
        except BaseException as error:
            self.error = error
            raise
        self.begun = True


# --- what a backend may return --------------------------------------------------------------------


def storable(text: str, most: int) -> str:
    """Return one line of at most ``most`` characters, without NUL and halves of surrogate pairs.

    What the database's character set lacks, its field replaces.
    """
    kept = (one for one in " ".join(text.split()) if one.isprintable())
    return "".join(kept)[:most]


def _tidy(error: Any, raised_by: CheckedBackend) -> None:
    doubt = isinstance(error, SmsOutcomeUnknown)
    if error.kind not in KINDS or (error.kind == ErrorKind.UNKNOWN) != doubt:
        raise ValueError("a kind that the engine does not know")
    error.args = (storable(str(error.args[0]), MAX_ERROR_CHARACTERS) or error.summary,)
    error.code = storable(str(error.code), 32)
    error.gateway_text = storable(str(error.gateway_text), MAX_ERROR_CHARACTERS)
    error.answered = error.answered is True
    error.sms = None
    if not raised_by.members:  # the members of a failover name themselves
        error.alias, error.refused = raised_by.alias, ()
    error.__cause__ = error.__context__ = error.__traceback__ = None


def _crash(error: BaseException) -> str:
    return storable(f"crash-{type(error).__name__}", 32)


def _above_zero(value: Any) -> float:
    number = float(value)
    if isinstance(value, (bool, str)) or not 0 < number < math.inf:
        raise ValueError("not a number above 0")
    return number


def _id(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value == "":
        return ""
    if not (isinstance(value, str) and value.isascii() and value.isprintable()):
        raise ValueError("no id that can be stored")
    if len(value) > 64:
        raise ValueError("an id that is too long")
    return str(value)


def _balance(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise TypeError("a balance is a number")
    balance = Decimal(str(value))
    if not (balance.is_finite() and abs(balance) < CREDITS_LIMIT):
        raise ValueError("a balance that no account has")
    exponent = int(balance.as_tuple().exponent)
    return balance.quantize(Decimal("0.0001")) if exponent < -4 else balance


def _balance_if_any(value: Any) -> Decimal | None:
    return None if value is None else _balance(value)


def _alias(value: Any) -> str:
    if value and value not in providers:
        raise ValueError("no alias of SMS_PROVIDERS")
    return str(value or "")


def _report(report: Any) -> Report:
    if not isinstance(report, Report):
        raise TypeError("a report is a Report")
    raw = storable(report.raw, 64) if isinstance(report.raw, str) else ""
    status = report.status if isinstance(report.status, str) else ""
    if status in REPORTED:
        return Report(Status(status).value, raw)
    return Report("", raw or storable(status, 64))


def _check_messages(found: Any) -> list[CheckMessage]:
    messages: list[CheckMessage] = list(found)
    if not all(isinstance(one, CheckMessage) for one in messages):
        raise TypeError("check() returns check messages")
    return messages

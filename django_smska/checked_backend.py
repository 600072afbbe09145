"""Call backends safely: a third party's class may raise and return anything.

The engine, the commands and the checks reach every backend through :class:`CheckedBackend`. Its
methods raise ``SmsError`` and no other error, and return values that any database can store. What a
backend does wrong is logged with the exception's class alone, because its text may hold the
request.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar, cast

from django.core.checks import CheckMessage, Warning
from django.core.signals import setting_changed
from django.dispatch import receiver

from . import log_fields
from .backends.base import BaseSmsBackend, parse_rate
from .exceptions import (
    ErrorKind,
    InvalidProvider,
    InvalidRequest,
    InvalidSender,
    ProviderFailed,
    QueryCrashed,
    QueryFailed,
    SmsError,
    SmsNotSent,
    SmsOutcomeUnknown,
    gettext_noop,
    one_line,
)
from .fields import UNSENDABLE
from .providers import providers
from .receipts import CREDITS, MONEY, Evidence, Inbound, Receipt, Report
from .redact import WITHHELD, withhold
from .shapes import is_mapping, is_sequence
from .states import MOVES, STOPPING_KINDS, Status
from .webhook_urls import REPORT, webhook_url

logger = logging.getLogger(__name__)

REPORTED = (MOVES[Status.SENT] | {Status.SENT}) - {Status.UNCONFIRMED}
KINDS = frozenset(ErrorKind) - {ErrorKind.ERROR, ErrorKind.STATUS}  # that a backend may raise
MAX_ERROR_CHARACTERS = 1000
MAX_RETRY_IN_SECONDS = 24 * 3600.0
MIN_RATE_PER_SECOND = 1e-6  # one message in eleven days
PRICE_LIMIT = 10**6  # of one message, in any currency; more does not fit into the column
MOST_BILLED_SEGMENTS = 32767
CREDITS_LIMIT = 10**12  # no account has so many, and the column cannot hold them

FAILED = gettext_noop(
    "The provider's backend on this site failed before anything was sent; the log says more."
)
NO_ANSWER = gettext_noop(
    "The provider's backend on this site gave no usable answer; the log says more."
)
BAD_RATE = gettext_noop("Its 'rate' cannot be read: write it like 20/s, 100/m or 1000/h.")
BAD_SENDER = gettext_noop("The provider carries no such sender. Nothing was sent.")
TOO_LONG = gettext_noop(
    "The text has more segments than the provider accepts. Shorten it. Nothing was sent."
)
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


class Traits(NamedTuple):
    """What follows for a provider's messages after they were sent.

    :param polled: it can be queried for reports
    :param pushed: it sends them to this site
    :param asked: it can be asked for a message of which it is unknown whether it was accepted
    :param proving: it cannot be asked, but what it sends proves that such a message was accepted
    """

    polled: bool
    pushed: bool
    asked: bool
    proving: bool


#: Those of providers with reports. Every outcome needs them, and making a backend costs a quarter
#: of storing one. Others are not kept: a property that fails counts as a no, this time.
_traits: dict[str, Traits] = {}


def traits(alias: str) -> Traits:
    """Return those of this provider; it counts as polled where nothing is known of it."""
    if alias in _traits:
        return _traits[alias]
    try:
        backend = provider(alias)
    except InvalidProvider as error:
        logger.error("%s", error, extra=log_fields.of_provider(alias, error.check))
        return Traits(polled=True, pushed=False, asked=False, proving=False)
    pushed = backend.takes_reports and _has_address(alias)
    found = Traits(
        polled=backend.gives_reports,
        pushed=pushed,
        asked=backend.can_be_asked,
        proving=pushed and backend.evidence is Evidence.REPORTED,
    )
    if found.polled or found.pushed:
        _traits[alias] = found
    return found


def _has_address(alias: str) -> bool:
    """Return whether the site has an address for reports. Finding that out runs the project's URLs,
    and what was accepted must be recorded whatever they raise."""
    try:
        return bool(webhook_url(alias, REPORT))
    except Exception as error:
        words, name = "provider %s: no address for reports (%s)", type(error).__name__
        logger.error(words, alias, name, extra=log_fields.of_provider(alias, name))
        return False


@receiver(setting_changed)  # in tests
def _forget_traits(**kwargs: Any) -> None:
    _traits.clear()


def configured(alias: str) -> CheckedBackend:
    """Make the backend that the settings name, also in a test run: it is for requests that come in.

    Raises ``InvalidProvider`` where it cannot be made.
    """
    return CheckedBackend(alias, providers.configured(alias))


def has_balance(alias: str) -> bool:
    """Return whether a stored balance can be this provider's: the alias may have been that of
    another one, before the settings were changed."""
    try:
        return configured(alias).has_balance
    except InvalidProvider:
        return True


def balance_unit(alias: str) -> str:
    """Return what this provider's balance counts; empty where that is not known."""
    try:
        return configured(alias).balance_unit
    except InvalidProvider:
        return ""


def may_have_sent(alias: str, using: str) -> bool:
    """Return whether the provider ``alias`` may have sent a message of ``using``: it is that one,
    or a member of that failover."""
    if alias == using:
        return True
    try:
        return alias in {member.alias for member in provider(using).members}
    except InvalidProvider:
        return False


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
        cls = cast(Any, type(backend))
        reports, balance = (hasattr(cls, one) for one in ("get_status", "get_balance"))
        self.gives_reports = self._attribute("gives_reports", reports) is True
        self.has_balance = self._attribute("has_balance", balance) is True
        self.balance_unit = self._balance_unit()
        self.members = self._members()
        self.senders = self._senders()
        self.allowed_senders = self._allowed_senders()
        self.prefixes = self._prefixes()
        self.evidence = self._evidence()
        self.takes_reports = self._attribute("takes_reports", False) is True
        self.takes_inbound = self._attribute("takes_inbound", False) is True
        self.one_webhook = self._attribute("one_webhook", False) is True
        self.webhook_answer = str(self._attribute("webhook_answer", ""))
        self.most_at_once = self._at_least_one("most_at_once")
        self.most_segments = self._at_least_one("most_segments")
        self.sender_rule = self._sender_rule()
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

    def at_once(self, most: int) -> int:
        """Return how many requests may be in flight: ``most``, or less where the provider allows
        an account only that."""
        return min(most, self.most_at_once or most)

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
                with suppress(SmsError):  # a refusal of what may have been sent is no outcome
                    first_byte()  # also where the backend promised to announce it, and did not
        finally:
            message.before_first_byte = first_byte.announce
        if isinstance(outcome, SmsError):
            raise outcome
        return outcome

    def get_status(self, message: Any) -> Report:
        """Query a report. Raises ``SmsError``."""
        return self._answer("get_status", self._report, message)

    def find(self, message: Any) -> Report | None:
        """Ask for a message by its reference: ``None`` where the provider does not know it.

        Raises ``SmsError``.
        """
        return self._answer("find", lambda found: found and self._report(found), message)

    def authenticate(self, request: Any) -> bool:
        """Return whether a webhook request is the provider's; one that cannot be read is not."""
        answers: list[bool] = []
        error = _caught(lambda: answers.append(self._optional("authenticate", True, request)))
        if error is not None:
            self._log("authenticate", error)
        return answers == [True]

    def parse_reports(self, request: Any) -> list[Report]:
        """Return the reports of a webhook request. Raises ``QueryFailed`` for an unreadable one."""
        return self._parsed("parse_reports", self._report, request)

    def parse_inbound(self, request: Any) -> list[Inbound]:
        """Return the messages of phones in a webhook request. Raises ``QueryFailed`` likewise."""
        return self._parsed("parse_inbound", _inbound, request)

    def _parsed(self, name: str, read: Callable[[Any], _T], request: Any) -> list[_T]:
        return self._answer(name, lambda found: [read(one) for one in found], request)

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
        if (refusal := self._refusal(message)) is not None:
            return refusal
        if not self.announces_first_byte:
            first_byte()
        returned: list[Any] = []
        error = _caught(lambda: returned.append(self._backend.send_message(message)))
        if first_byte.error is not None:
            raise first_byte.error  # whatever the backend raised after it
        if error is not None:
            return self._fit(self._judged(error, begun=first_byte.begun), message)
        (receipt,) = returned
        if not isinstance(receipt, Receipt):
            return SmsOutcomeUnknown(NO_RECEIPT, alias=self.alias, code="no-receipt")
        return self._cleaned(receipt)

    def _refusal(self, message: Any) -> SmsNotSent | None:
        """Return why the provider's own rules let this message not pass, before any request."""
        sender = getattr(message, "sender", "")
        if sender and self.sender_rule is not None and not self.sender_rule.fullmatch(sender):
            return InvalidSender(BAD_SENDER, alias=self.alias, code="sender")
        if self.most_segments and getattr(message, "segments", 0) > self.most_segments:
            return InvalidRequest(TOO_LONG, alias=self.alias, code="segments")
        return None

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
            raise self._fit(error, *args)
        raise self.no_answer(error, name)

    def _cleaned(self, receipt: Receipt) -> Receipt:
        """Return the receipt without values that cannot be stored: the message was accepted."""
        readers: dict[str, Callable[[Any], Any]] = {
            "gateway_id": _id,
            "balance": _balance_if_any,
            "alias": _alias,
            **PRICE_READERS,
        }
        good = self._storable(receipt, readers, "a receipt")
        return Receipt(**good, refused=receipt.refused if self.members else ())

    def _storable(self, said: Any, readers: dict[str, Callable[[Any], Any]], what: str) -> Any:
        """Return by name what can be stored of the provider's word; the log names the rest."""
        good: dict[str, Any] = {}
        for name, read in readers.items():
            try:
                good[name] = read(getattr(said, name))
            except Exception as error:
                self._log(f"{name} of {what}", error)
        return good

    def _report(self, report: Any) -> Report:
        if not isinstance(report, Report):
            raise TypeError("a report is a Report")
        raw = storable(report.raw, 64) if isinstance(report.raw, str) else ""
        status = report.status if isinstance(report.status, str) else ""
        known = status in REPORTED
        readers = {"gateway_id": _id, "reference": _id, **PRICE_READERS}
        return Report(
            Status(status).value if known else "",
            raw if known else raw or storable(status, 64),
            alias=report.alias if self.members else "",
            **self._storable(report, readers, "a report"),
        )

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

    def _fit(self, error: Exception, message: Any = None) -> SmsError:
        """Make an error fit to be stored and shown, without its frames, which may hold the request,
        and without what it quotes of the request.

        An error of a third party's class may lack attributes that all of ours have.
        """
        flaw = _caught(lambda: _tidy(error, self)) or _caught(
            lambda: self._withhold(error, message)
        )
        if flaw is not None or not isinstance(error, SmsError):
            self._log("an error that it raised", error)
            ours = (one for one in (SmsOutcomeUnknown, SmsNotSent) if isinstance(error, one))
            return next(ours, QueryFailed)(alias=self.alias, code=_crash(error))
        return error

    def _withhold(self, error: Any, message: Any) -> None:
        """Take the number, the text and the login out of an error that quotes them."""
        if self.module.startswith(OURS):  # they do it themselves, and know what is secret
            return
        number, body = getattr(message, "to", ""), getattr(message, "body", "")
        secrets = [one for one in (str(body), *_secrets(self.alias)) if one]
        summary: str = error.summary
        error.gateway_text = withhold(error.gateway_text, secrets, str(number))
        if error.args[0] != summary:
            text = withhold(error.args[0], secrets, str(number))
            error.args = (summary if text == WITHHELD else text,)
        if withhold(error.code, secrets, str(number)) != error.code:
            error.code = ""

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

    @property
    def can_be_asked(self) -> bool:
        """Whether it can find a message whose outcome is unknown; of a failover, one member can."""
        if self.members:
            return any(member.can_be_asked for member in self.members)
        return self.evidence in (Evidence.CERTAIN, Evidence.ASKED, Evidence.SEARCHED)

    def _balance_unit(self) -> str:
        unit = self._attribute("balance_unit", "")
        if unit in (CREDITS, MONEY):
            return str(unit)
        try:
            return _currency(unit)
        except Exception as error:
            self._log("balance_unit", error)
            return ""

    def _members(self) -> list[CheckedBackend]:
        """Return the providers that a failover tries in turn, each as a CheckedBackend."""
        members = self._attribute("members", None)
        if not is_sequence(members):
            return []
        return [member for member in members if isinstance(member, CheckedBackend)]

    def _senders(self) -> frozenset[str]:
        """Return the senders that a message may have that names none: of a failover, those of all
        members."""
        if self.members:
            return frozenset[str]().union(*(member.senders for member in self.members))
        value = self._attribute("sender_id", "")
        return frozenset([value] if isinstance(value, str) and value else [])

    def _allowed_senders(self) -> tuple[str, ...] | None:
        """Return the senders that a message may name, or ``None`` for any: of a failover without
        a list of its own, those that every list of its members has."""
        listed = self._attribute("senders", None)
        if is_sequence(listed) and listed:
            every = [self._attribute("sender_id", ""), *listed]
            return tuple(dict.fromkeys(one for one in every if one and isinstance(one, str)))
        lists = [one.allowed_senders for one in self.members if one.allowed_senders is not None]
        if not lists:
            return None
        return tuple(one for one in lists[0] if all(one in other for other in lists[1:]))

    def _prefixes(self) -> tuple[str, ...]:
        value = self._attribute("prefixes", ())
        every = value if is_sequence(value) else ()
        return tuple(one for one in every if isinstance(one, str))

    def _evidence(self) -> Evidence:
        """Return what the provider can prove; of a failover, what each of its members can."""
        if self.members:
            return max((member.evidence for member in self.members), key=list(Evidence).index)
        try:
            return Evidence(self._attribute("evidence", Evidence.MUTE))
        except ValueError as error:
            self._log("evidence", error)
            return Evidence.MUTE

    def _sender_rule(self) -> re.Pattern[str] | None:
        rule = self._attribute("sender_rule", None)
        return cast("re.Pattern[str]", rule) if isinstance(rule, re.Pattern) else None

    def _at_least_one(self, name: str) -> int | None:
        """Return a number that limits something, or ``None`` for no limit."""
        value = self._attribute(name, None)
        if value is None or (isinstance(value, int) and value >= 1):
            return value
        self._log(name, ValueError(name))
        return None

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
        extra = log_fields.of_provider(self.alias, type(error).__name__)
        logger.error("provider %s: %s failed (%s)", self.alias, name, words, extra=extra)


def _where(error: BaseException) -> str:
    """Return file and line of the innermost frame. Never its values, which may hold the request."""
    traceback, place = error.__traceback__, ""
    while traceback is not None:
        place = f", {traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place


def _caught(call: Callable[[], Any]) -> Exception | None:
    """Call, and return what was raised, so that later errors have no context.

    An abort, such as a web server's, goes on without the frames that it left: they hold the
    request, and the backend's login.
    """
    try:
        call()
    except Exception as error:
        return error
    except BaseException as abort:
        abort.__traceback__ = abort.__context__ = abort.__cause__ = None
        raise abort
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


OURS = "django_smska."
#: Names of OPTIONS whose values are secret.
_SECRET = re.compile("key|pass|secret|token|auth|login|user|account|sign", re.IGNORECASE)


def _secrets(alias: str) -> list[str]:
    """Return the values of a provider's OPTIONS that no error may quote."""
    entry = providers.settings.get(alias)
    options = entry.get("OPTIONS") if is_mapping(entry) else None
    items = options.items() if is_mapping(options) else ()
    return [str(value) for name, value in items if _SECRET.search(str(name))]


def storable(text: str, most: int) -> str:
    """Return one line of at most ``most`` characters, without NUL and halves of surrogate pairs.

    What the database's character set lacks, its field replaces.
    """
    return one_line(text)[:most]


def _tidy(error: Any, raised_by: CheckedBackend) -> None:
    doubt = isinstance(error, SmsOutcomeUnknown)
    if error.kind not in KINDS or (error.kind == ErrorKind.UNKNOWN) != doubt:
        raise ValueError("a kind that the engine does not know")
    error.args = (storable(str(error.args[0]), MAX_ERROR_CHARACTERS) or error.summary,)
    error.code = storable(str(error.code), 32)
    error.gateway_text = storable(str(error.gateway_text), MAX_ERROR_CHARACTERS)
    error.answered = error.answered is True
    error.retry_in = min(max(0.0, float(error.retry_in)), MAX_RETRY_IN_SECONDS)  # no NaN
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


def _price(value: Any) -> Decimal | None:
    if value is None:
        return None
    price = Decimal(str(value))
    if not (price.is_finite() and abs(price) < PRICE_LIMIT):
        raise ValueError("a price that no message has")
    return price.quantize(Decimal("0.000001"))


def _currency(value: Any) -> str:
    if value and not (isinstance(value, str) and _CURRENCY.fullmatch(value)):
        raise ValueError("no three letters of ISO 4217")
    return str(value or "").upper()


def _segments(value: Any) -> int | None:
    if value is None:
        return None
    if not 0 <= int(value) <= MOST_BILLED_SEGMENTS:
        raise ValueError("more segments than a message has")
    return int(value)


_CURRENCY = re.compile("[A-Za-z]{3}")
PRICE_READERS: dict[str, Callable[[Any], Any]] = {
    "price": _price,
    "currency": _currency,
    "segments": _segments,
}


def _alias(value: Any) -> str:
    if value and value not in providers:
        raise ValueError("no alias of SMS_PROVIDERS")
    return str(value or "")


def _inbound(found: Any) -> Inbound:
    """Return a phone's message as it can be stored: its text is anybody's."""
    if not isinstance(found, Inbound):
        raise TypeError("a message of a phone is an Inbound")
    body, the_id = UNSENDABLE.sub("", str(found.body)), found.gateway_id
    return Inbound(
        storable(str(found.sender), 32),
        storable(str(found.to), 32),
        body,
        "" if the_id is None else str(the_id),
    )


def _check_messages(found: Any) -> list[CheckMessage]:
    messages: list[CheckMessage] = list(found)
    if not all(isinstance(one, CheckMessage) for one in messages):
        raise TypeError("check() returns check messages")
    return messages

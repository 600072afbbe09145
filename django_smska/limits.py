"""What may be sent at most (``SMSKA_LIMITS``), exact over all processes and hosts.

Per number and per caller a row keeps the times of what was let through. It is locked until the
message is stored, and a rollback undoes both together. A row's key is a keyed hash: it shows
neither number nor address.

Of a message that was definitely not sent, the text does not count, so that it can be sent again.
That is looked up where its text comes again: to record an outcome, which requests wait for, locks
no log. All other limits count it: a program that tries must not get free tries.

The segments of a provider's day are one number in its row. A message counts once a day: where it is
stored, or where it is claimed, if it is scheduled for a later day, or if a transaction of the
caller's was open, which would keep all others waiting for that row.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime, time, timedelta, timezone
from itertools import accumulate
from typing import Any

from django.core.signals import setting_changed
from django.db import connections
from django.db.models import Case, F, Q, Value, When
from django.dispatch import receiver
from django.utils.timezone import get_default_timezone, is_naive, make_aware, make_naive

from . import checked_backend, clock, conf
from .exceptions import AGAIN, InvalidProvider, LimitExceeded, NumberNotAllowed, gettext_noop
from .keyed_hash import keyed_hash, keyed_hashes
from .limit_rules import Limits, Log, Passed
from .models import ProviderState, SmsLimit, SmsMessage, provider_states, rows, write_db
from .states import Status
from .times import date_and_time

#: Why a message is refused, by the limit.
WORDS = {
    "number": gettext_noop(
        "This number has got too many messages (SMSKA_LIMITS, number). Nothing was sent."
    ),
    "caller": gettext_noop(
        "Too many messages were sent for this caller (SMSKA_LIMITS, caller). Nothing was sent."
    ),
    "same_text": gettext_noop(
        "The same text was sent to this number a short time ago. Nothing was sent. To send it "
        "again all the same, pass repeat=True."
    ),
    "codes": gettext_noop(
        "A code was sent to this number a short time ago (SMSKA_LIMITS, codes). Nothing was sent."
    ),
    "segments": gettext_noop(
        "The provider's segments for today are used up (SMSKA_LIMITS, segments). Nothing was sent."
    ),
}


# --- who sends ------------------------------------------------------------------------------------

_caller: ContextVar[str] = ContextVar("django_smska_caller", default="")


@contextmanager
def acting_for(caller: str) -> Generator[None]:
    """Count all that is sent inside for this caller, where no other ``caller`` is given."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)


# --- numbers and callers --------------------------------------------------------------------------


class Admission:
    """Decide which messages of one call may be stored.

    :param caller: for whom they are sent, such as an address; "" for whom :func:`acting_for` names
    :param repeat: let the same text go to the same number again
    :param exempt: let the limits of number, caller, text and code not hold, nor count
    :raises TypeError: for a caller that is no text
    """

    def __init__(self, *, caller: str = "", repeat: bool = False, exempt: bool = False) -> None:
        if not isinstance(caller, str):
            raise TypeError("caller must be text that differs for each visitor, as an address.")
        self.limits = conf.limits()
        self.caller = caller or _caller.get()
        self.repeat, self.exempt = repeat, exempt
        self._left: dict[str, int | None] = {}  # segments of the day, by alias
        self._left_before = self._left

    @property
    def _by_number(self) -> bool:
        return not self.exempt and self.limits.number_seconds + self.limits.code_seconds > 0

    @property
    def _by_caller(self) -> bool:
        return not self.exempt and bool(self.caller and self.limits.caller)

    @property
    def writes(self) -> bool:
        """Whether it notes what it lets through, which a transaction must undo with the message."""
        return self._by_number or self._by_caller

    def require(self, message: SmsMessage, *, counts: bool = False) -> None:
        """Let a message through, and note it. Call it in the transaction that stores it.

        :param counts: count its segments now, which locks the provider's row until the end of the
            transaction; otherwise they are compared only, and counted when it is claimed. Those of
            a message for a later day are not even compared
        :raises LimitExceeded: where a limit does not allow it
        """
        if counts:
            self._left[message.using] = None  # counting compares, too
        (refusal,) = self.refusals([message])
        if refusal is not None:
            raise refusal
        if counts and self._leaves_today(message) and not within_day([message]):
            raise no_segments_left(message)

    def refusals(self, messages: Sequence[SmsMessage]) -> list[LimitExceeded | None]:
        """Return for each message why it may not be stored; note those that may. Call it in the
        transaction that stores them, and :meth:`take_back` after its rollback."""
        self._left_before = dict(self._left)
        by_number = self._by_number
        numbers = {one.to: _key("number", one.to) for one in messages} if by_number else {}
        caller_key = _key("caller", self.caller) if self._by_caller else ""
        logs = self._locked({*numbers.values(), caller_key} - {""})
        self.now = clock.now()  # after the wait for others, so that the logs are in their order
        for log in logs.values():
            log.forget(self.now.timestamp(), self._seconds, self.limits.code_seconds)
        caller = logs.get(caller_key)
        logs_of_numbers = [logs.get(numbers.get(one.to, "")) for one in messages]
        passed = [
            Passed(self.now.timestamp(), _text_key(one), bool(one.code), one.reference)
            for one in messages
        ]
        self._forget_unsent(logs_of_numbers, passed)
        refusals = [
            self._refusal(message, one, log, caller)
            for message, one, log in zip(messages, passed, logs_of_numbers, strict=True)
        ]
        self._write(logs)
        return refusals

    def take_back(self) -> None:
        """Let the messages of the last call not count, because they were not stored."""
        self._left = dict(self._left_before)

    def _forget_unsent(self, logs: Sequence[Log | None], passed: Sequence[Passed]) -> None:
        """Let those texts not count that came before in messages that were not sent. It is a query
        only where a text comes again."""
        since = self.now.timestamp() - self.limits.same_text
        pairs = [(log, one) for log, one in zip(logs, passed, strict=True) if log is not None]
        before = {key for log, one in pairs for key in log.references(one.text, since)}
        if self.repeat or not before:
            return
        found = rows().unsent().filter(reference__in=before, resent_as__isnull=True)
        unsent = set(found.values_list("reference", flat=True))
        for log, _ in pairs:
            log.forget_texts(unsent)

    def _refusal(
        self, message: SmsMessage, passed: Passed, number: Log | None, caller: Log | None
    ) -> LimitExceeded | None:
        if not _fits(message, prefixes(message.using, self.limits)):
            return NumberNotAllowed(alias=message.using, code="limit-prefixes", sms=message.pk)
        left = self._segments_left(message.using) if self._leaves_today(message) else None
        if left is not None and message.segments > left:
            return no_segments_left(message)
        opens = self._opening_times(passed, number, caller)
        name, at = max(opens.items(), key=lambda one: one[1], default=("", 0.0))
        if at > passed.at:
            return _refused(name, message, _moment(at, self.now))
        if number is not None:
            number.add(passed)
        if caller is not None:
            caller.add(passed._replace(reference=""))  # a caller's row names no message
        if left is not None:
            self._left[message.using] = left - message.segments
        return None

    def _opening_times(
        self, passed: Passed, number: Log | None, caller: Log | None
    ) -> dict[str, float]:
        """Return by limit when it allows this message."""
        opens: dict[str, float] = {}
        if number is not None:
            opens["number"] = max(map(number.window_opens, self.limits.number), default=0.0)
            if not self.repeat:
                opens["same_text"] = number.text_opens(passed.text, self.limits.same_text)
            if passed.is_code:
                opens["codes"] = number.code_opens(passed.at, self.limits.codes)
        if caller is not None:
            opens["caller"] = max(map(caller.window_opens, self.limits.caller), default=0.0)
        return opens

    def _leaves_today(self, message: SmsMessage) -> bool:
        """Return False where it waits in the queue for a later day."""
        return message.status != Status.QUEUED or message.send_after < day_ends(self.now)

    def _segments_left(self, alias: str) -> int | None:
        if alias not in self._left:
            self._left[alias] = segments_left(alias)
        return self._left[alias]

    # --- the rows

    def _locked(self, keys: Collection[str]) -> dict[str, Log]:
        """Return the logs of these keys; no other process reads or writes them until the end of
        the transaction."""
        if not keys:
            return {}
        # To insert or update locks a row that is there, and one that is not, alike; a SELECT
        # before it would let two transactions of MariaDB or SQLite wait for each other.
        _upsert([self._row(key) for key in sorted(keys)], ["ends_at"])
        rows = SmsLimit.objects.using(write_db()).select_for_update().filter(key__in=keys)
        return {row.key: _read(row.log) for row in rows}

    @property
    def _seconds(self) -> float:
        return max(self.limits.number_seconds, self.limits.caller_seconds)

    def _row(self, key: str, log: str = "[]") -> SmsLimit:
        seconds = max(self._seconds, self.limits.code_seconds)
        return SmsLimit(key=key, log=log, ends_at=clock.now() + timedelta(seconds=seconds))

    def _write(self, logs: dict[str, Log]) -> None:
        changed = [
            self._row(key, _written(log)) for key, log in sorted(logs.items()) if log.changed
        ]
        if changed:
            _upsert(changed, ["log"])


def forget(number: str) -> int:
    """Delete what is kept about a number; return how many rows that were.

    :param number: in E.164
    """
    keys = keyed_hashes(_purpose("number"), number)
    deleted, _ = SmsLimit.objects.using(write_db()).filter(key__in=keys).delete()
    return deleted


def _upsert(rows: list[SmsLimit], fields: list[str]) -> None:
    """Insert these rows; where they are there already, update these fields."""
    features = connections[write_db()].features
    unique = ["key"] if features.supports_update_conflicts_with_target else None
    SmsLimit.objects.using(write_db()).bulk_create(
        rows, update_conflicts=True, update_fields=fields, unique_fields=unique
    )


def _purpose(name: str) -> str:
    return f"limit.{name}"


def _key(name: str, value: str) -> str:
    return keyed_hash(_purpose(name), value)


def _text_key(message: SmsMessage) -> str:
    return keyed_hash("limit.text", message.body)[:12]


def _read(text: str) -> Log:
    return Log(
        Passed(at / 1000, key, bool(is_code), *reference)
        for at, key, is_code, *reference in json.loads(text)
    )


def _written(log: Log) -> str:
    entries = [
        (round(one.at * 1000), one.text, int(one.is_code), *filter(None, [one.reference]))
        for one in log.entries
    ]
    return json.dumps(entries, separators=(",", ":"))


# --- prefixes -------------------------------------------------------------------------------------

#: By alias, what the backends themselves say. Making a backend for each message costs too much.
_prefixes: dict[str, tuple[str, ...]] = {}


@receiver(setting_changed)  # in tests
def _forget_prefixes(**kwargs: Any) -> None:
    _prefixes.clear()


def prefixes(alias: str, limits: Limits) -> tuple[str, ...]:
    """Return how the numbers begin that may be sent to through this provider; none means all."""
    given = limits.prefixes
    if given is None:
        return ()
    if alias in given:
        return given[alias]
    if alias not in _prefixes:
        try:
            _prefixes[alias] = checked_backend.provider(alias).prefixes
        except InvalidProvider:
            return ()
    return _prefixes[alias]


def _fits(message: SmsMessage, allowed: tuple[str, ...]) -> bool:
    return not allowed or message.to.startswith(allowed)


# --- the segments of a day ------------------------------------------------------------------------


def today(now: datetime | None = None) -> date:
    """Return the local day by the database's clock, in the site's own time zone."""
    moment = now or clock.now()
    return moment.date() if is_naive(moment) else moment.astimezone(get_default_timezone()).date()


def day_ends(now: datetime) -> datetime:
    """Return when the next day begins."""
    midnight = datetime.combine(today(now) + timedelta(days=1), time.min)
    return midnight if is_naive(now) else make_aware(midnight, get_default_timezone())


def segments_used(alias: str) -> int:
    """Return how many segments count today."""
    used = provider_states().filter(alias=alias, segments_on=today())
    return used.values_list("segments_used", flat=True).first() or 0


def segments_left(alias: str) -> int | None:
    """Return how many segments may still leave today through this provider; None for no limit."""
    limit = conf.limits().segments_of(alias)
    return None if limit is None else max(limit - segments_used(alias), 0)


def has_room(message: SmsMessage) -> bool:
    """Return whether its provider's day has room for a message, or counts it already."""
    left = segments_left(message.using)
    return left is None or message.counted_on == today() or message.segments <= left


def day_is_full(state: ProviderState) -> bool:
    """Return whether the segments of today are used up."""
    limit = conf.limits().segments_of(state.alias)
    return limit is not None and state.segments_on == today() and state.segments_used >= limit


def no_segments_left(message: SmsMessage) -> LimitExceeded:
    """Return the error for a message that does not fit into its provider's day."""
    return _refused("segments", message, day_ends(clock.now()))


def within_day(messages: Sequence[SmsMessage]) -> list[SmsMessage]:
    """Count messages of one provider for today, as many of the first ones as fit; return these.

    Each has its day in ``counted_on``, which the caller stores. Those of today count already.
    """
    days = (today(), _next(today()))
    new = [one for one in messages if one.counted_on not in days]
    if not new:
        return list(messages)
    limit = conf.limits().segments_of(new[0].using)
    if limit is None:
        return list(messages)
    day, number = _count(new[0].using, limit, new)
    for one in new[:number]:
        one.counted_on = day
    left_out = set(map(id, new[number:]))
    return [one for one in messages if id(one) not in left_out]


def _count(alias: str, limit: int, messages: Sequence[SmsMessage]) -> tuple[date, int]:
    """Count the first of these messages that fit; return for which day, and how many."""
    sizes = [one.segments for one in messages]
    day = today()
    if _add(alias, day, limit, sum(sizes)):
        return day, len(sizes)
    provider_states().get_or_create(alias=alias)
    while True:
        day, used = _day_and_used(alias)
        fitting = [total for total in accumulate(sizes) if total <= limit - used]
        if not fitting or _add(alias, day, limit, fitting[-1]):
            return day, len(fitting)


def _day_and_used(alias: str) -> tuple[date, int]:
    """Return the day for which to count now, and how many segments count for it.

    It is the next day where another process, to which midnight came first, has begun it.
    """
    state = provider_states().get(alias=alias)
    day = today()
    if state.segments_on == _next(day):
        day = _next(day)
    return day, state.segments_used if state.segments_on == day else 0


def _next(day: date) -> date:
    return day + timedelta(days=1)


def _add(alias: str, day: date, limit: int, segments: int) -> bool:
    """Count segments by one conditional UPDATE; return False where they are too many, or where the
    next day has begun."""
    if segments > limit:
        return False
    same_day = Q(segments_on=day)
    # A later day than the next one was written while the clock was wrong.
    another_day = Q(segments_on=None) | ~Q(segments_on__in=(day, _next(day)))
    fits = Q(same_day, segments_used__lte=limit - segments) | another_day
    used = Case(When(same_day, then=F("segments_used") + segments), default=Value(segments))
    # The number comes first, because MariaDB assigns from left to right.
    row = provider_states().filter(fits, alias=alias)
    return bool(row.update(segments_used=used, segments_on=day))


# --- refusals -------------------------------------------------------------------------------------


def _refused(name: str, message: SmsMessage, retry_at: datetime) -> LimitExceeded:
    words = f"{WORDS[name]}{AGAIN}{date_and_time(retry_at)}."
    code = f"limit-{name}".replace("_", "-")
    return LimitExceeded(words, alias=message.using, code=code, sms=message.pk, retry_at=retry_at)


def _moment(seconds: float, like: datetime) -> datetime:
    """Return a time since 1970 in the form of another one."""
    aware = datetime.fromtimestamp(seconds, timezone.utc)
    return make_naive(aware, get_default_timezone()) if is_naive(like) else aware

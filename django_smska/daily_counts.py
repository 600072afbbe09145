"""Counts the messages of each day, so that statistics read days, not messages.

A day is counted anew as long as something of it may change, the less often the older it is; then
never again. What is pruned is noted beforehand, so it stays in its day's numbers.
"""

from __future__ import annotations

import json
import time as clock
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from math import inf
from typing import Any, NamedTuple

from django.db import models, transaction
from django.db.models import Count, F, Sum
from django.utils import timezone

from . import conf
from .models import SmsDay, SmsMessage, SmsMessageQuerySet, rows, write_db
from .states import FINAL, Status
from .times import FIRST, Readable, as_stored

#: By words: ``("messages", provider, sender, status)``, ``("segments", provider, sender)``,
#: ``("failure", provider, status, error code)``, ``("time", provider, at most so many seconds)``.
Numbers = Counter[tuple[str, ...]]

FRESH_FOR = timedelta(minutes=1)  # that numbers count as new
FRESH_SHARE = 50  # and those of older days for this part of their age
SLACK = timedelta(hours=1)  # by which some host's clock may be wrong

#: Seconds; about half as much again from one to the next. Beyond them, whole days.
BOUNDS = (
    *(5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 420, 600, 900, 1200, 1800, 2700, 3600),
    *(5400, 7200, 10800, 14400, 21600, 32400, 43200, 64800, 86400),
)
DAY = 86400

#: The gateway took these, and wants to be paid.
ACCEPTED = frozenset(
    {
        *(Status.SENT, Status.DELIVERED, Status.REJECTED, Status.EXPIRED),
        *(Status.DELETED, Status.UNCONFIRMED),
    }
)
#: These did not arrive, or nobody knows.
FAILURES = frozenset(
    {
        *(Status.FAILED, Status.REJECTED, Status.EXPIRED, Status.DELETED),
        *(Status.UNCONFIRMED, Status.UNKNOWN),
    }
)


class Group(NamedTuple):
    """So many messages that have all this in common. ``delay``: whole seconds, from taken by the
    gateway to finished."""

    using: str
    sender: str
    status: str
    error_code: str
    delay: int | None
    number: int
    segments: int


def at_most(delay: int) -> int:
    """The bound, in seconds, that a time of ``delay`` whole seconds and a bit does not pass."""
    end = max(delay, 0) + 1
    return next((bound for bound in BOUNDS if end <= bound), -(-end // DAY) * DAY)


def count_up(groups: Iterable[Group]) -> Numbers:
    """Add groups up to the numbers that are kept."""
    found: Numbers = Counter()
    for group in groups:
        using, sender, status = group.using, group.sender, group.status
        found["messages", using, sender, status] += group.number
        if status in ACCEPTED:
            found["segments", using, sender] += group.segments
        if status in FAILURES:
            code = group.error_code if status == Status.FAILED else ""
            found["failure", using, status, code] += group.number
        if status == Status.DELIVERED and group.delay is not None:
            found["time", using, str(at_most(group.delay))] += group.number
    return found


def stored(numbers: Numbers) -> str:
    """As a row keeps them: lists of words and a number, in JSON."""
    return json.dumps([[*words, number] for words, number in sorted(numbers.items())])


def read(text: str) -> Numbers:
    """What :func:`stored` made."""
    return Counter({tuple(words): number for *words, number in json.loads(text)})


# --- days -----------------------------------------------------------------------------------------


def day_of(moment: datetime) -> date:
    """The day in the project's time zone."""
    zone = timezone.get_default_timezone()
    return timezone.localdate(moment, zone) if timezone.is_aware(moment) else moment.date()


def start_of(day: date) -> datetime:
    """When the day begins in the project's time zone."""
    start = datetime.combine(day, time.min)
    zone = timezone.get_default_timezone()
    return start.replace(tzinfo=zone) if conf.uses_time_zones() else start


def days() -> models.QuerySet[SmsDay]:
    """The counted days, in the database that is written to."""
    return SmsDay.objects.using(write_db())


def catch_up(first: date = date.min, *, budget: float = inf) -> int:
    """Count the days from ``first`` on that are due, the newest first, for about ``budget``
    seconds, but one at least; return how many are left that were never counted."""
    end, now = clock.monotonic() + budget, timezone.now()
    _make(_missing(first, now))
    kept = days().filter(day__range=(first, day_of(now)), settled=False).order_by("-day")
    due = [
        (day, seen)
        for day, seen in kept.values_list("day", "counted_at")
        if _is_due(day, seen, now)
    ]
    for done, (day, seen) in enumerate(due, 1):
        count(day, seen)
        if clock.monotonic() >= end:
            return sum(seen is None for day, seen in due[done:])
    return 0


def _missing(first: date, now: datetime) -> set[date]:
    """The days since the first message that have no row yet."""
    begin = as_stored(FIRST)  # what is written as older was not written by us
    known = rows().filter(created_at__gt=begin).order_by("created_at")
    oldest = known.values_list("created_at", flat=True).first()
    if oldest is None or oldest <= begin:
        return set()
    first, today = max(first, day_of(oldest)), day_of(now)
    every = {first + timedelta(number) for number in range((today - first).days + 1)}
    return every.difference(days().filter(day__gte=first).values_list("day", flat=True))


def _make(missing: Iterable[date]) -> None:
    """Another one may be making the same."""
    new = [SmsDay(day=day) for day in missing]
    if new:
        days().bulk_create(new, ignore_conflicts=True)


def _is_due(day: date, seen: datetime | None, now: datetime) -> bool:
    if seen is None:
        return True
    age = now - start_of(day + timedelta(1))
    return now - seen > max(FRESH_FOR, age / FRESH_SHARE)


def count(day: date, seen: datetime | None) -> None:
    """Count a day that was counted at ``seen``, unless somebody else just does.

    The UPDATE comes first: it holds the row until the numbers are written, so of two that count
    one does it, and nobody prunes meanwhile.
    """
    now = timezone.now()
    with transaction.atomic(using=write_db()):
        mine = days().filter(day=day)
        if not mine.filter(counted_at=seen).update(counted_at=now):
            return
        groups = _groups(day)
        pruned = read(mine.values_list("pruned", flat=True).get())
        over = now > start_of(day + timedelta(1)) + SLACK
        settled = over and all(group.status in FINAL for group in groups)
        mine.update(numbers=stored(count_up(groups) + pruned), settled=settled)


class _Seconds(models.Func):
    """Whole seconds from the second time to the first, as each database tells them."""

    output_field = models.IntegerField()
    arity = 2

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        words = "CAST(ROUND((julianday(%(expressions)s)) * 86400, 3) AS INTEGER)"
        return self.as_sql(
            compiler, connection, template=words, arg_joiner=") - julianday(", **context
        )

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        words = "CAST(FLOOR(EXTRACT(EPOCH FROM %(expressions)s)) AS bigint)"
        return self.as_sql(compiler, connection, template=words, arg_joiner=" - ", **context)

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        words = "-TIMESTAMPDIFF(SECOND, %(expressions)s)"
        return self.as_sql(compiler, connection, template=words, **context)


def _groups(day: date) -> list[Group]:
    """One GROUP BY over the messages of a day."""
    delay = _Seconds(Readable(F("finished_at")), Readable(F("sent_at")))
    alike = ("using", "sender", "status", "error_code", "delay")
    found = _of(day).annotate(delay=delay).values_list(*alike)
    return [Group(*row) for row in found.annotate(number=Count("pk"), size=Sum("segments"))]


def _of(day: date) -> SmsMessageQuerySet:
    start, end = start_of(day), start_of(day + timedelta(1))
    return rows().filter(created_at__gte=start, created_at__lt=end).order_by()


# --- before messages are deleted ------------------------------------------------------------------


def keep(pks: Iterable[Any]) -> None:
    """Note these messages in the numbers of their days; call it in the transaction that deletes
    them. The days are counted anew at the next occasion."""
    found: dict[date, list[Group]] = defaultdict(list)
    for message in rows(pks).defer("body"):
        found[day_of(message.created_at)].append(_alone(message))
    _make(found)
    for kept in days().select_for_update().filter(day__in=found).order_by("day"):
        kept.pruned = stored(read(kept.pruned) + count_up(found[kept.day]))
        kept.counted_at, kept.settled = None, False
        kept.save(update_fields=["pruned", "counted_at", "settled"])


def _alone(message: SmsMessage) -> Group:
    delay = None
    if message.sent_at and message.finished_at:
        delay = int((message.finished_at - message.sent_at).total_seconds())
    told = (message.using, message.sender, message.status, message.error_code)
    return Group(*told, delay, 1, message.segments)

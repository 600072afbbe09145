"""Count the messages of each day, so that statistics read days and not messages.

A day is counted again as long as one of its messages may change, and less often the older it is.
Messages that are pruned are noted in the counts of their day before they are deleted.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from math import inf
from typing import Any, NamedTuple

from django.db import models, transaction
from django.db.models import Count, F, Sum
from django.utils import timezone

from . import conf, monotonic
from .models import SmsDay, SmsDayCount, SmsMessageQuerySet, rows, write_db
from .states import FINAL, Status
from .times import FIRST, Readable, as_stored

FRESH_FOR = timedelta(minutes=1)  # the shortest time between two counts of a day
FRESH_SHARE = 50  # the part of an older day's age (1/50) that must pass between two counts
CLOCK_TOLERANCE = timedelta(hours=1)  # the largest error of a host's clock

#: The ranges of delivery times end here; each end is about half as much again as the one before.
#: Beyond the last one, ranges end with whole days.
BOUNDS_SECONDS = (
    *(5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 420, 600, 900, 1200, 1800, 2700, 3600),
    *(5400, 7200, 10800, 14400, 21600, 32400, 43200, 64800, 86400),
)
DAY_SECONDS = 86400
PRICE_UNIT = Decimal("0.000001")  # the smallest part of a price that is stored

#: The gateway accepted these messages and charges for them.
ACCEPTED = frozenset(
    {
        *(Status.SENT, Status.DELIVERED, Status.REJECTED, Status.EXPIRED),
        *(Status.DELETED, Status.UNCONFIRMED),
    }
)
#: These did not arrive, or it is not known whether they did.
FAILURES = frozenset(
    {
        *(Status.FAILED, Status.REJECTED, Status.EXPIRED, Status.DELETED),
        *(Status.UNCONFIRMED, Status.UNKNOWN),
    }
)


#: The columns of messages, and an annotation, that decide to which group of a day they belong.
ALIKE = ("using", "sender", "status", "error_code", "seconds", "currency")


class Group(NamedTuple):
    """What the messages of one row have in common: the unique columns of ``SmsDayCount``."""

    day_id: date
    using: str
    sender: str
    status: str
    error_code: str
    delivered_within_seconds: int
    currency: str


class Size(NamedTuple):
    """A number of messages, of their segments, and the sum of their known prices; None where none
    is known."""

    messages: int = 0
    segments: int = 0
    price: Decimal | None = None

    def plus(self, messages: int, segments: int, price: Decimal | None) -> Size:
        return Size(
            self.messages + messages, self.segments + segments, sum_of_prices(self.price, price)
        )


def sum_of_prices(*prices: Decimal | None) -> Decimal | None:
    """Return the sum of those prices that are known, as it is stored."""
    known = [price for price in prices if price is not None]
    # SQLite adds in binary.
    return sum(known, Decimal(0)).quantize(PRICE_UNIT) if known else None


def group_of(
    day: date,
    using: str,
    sender: str,
    status: str,
    error_code: str,
    seconds: int | None,
    currency: str,
) -> Group:
    """Return the group of messages.

    :param seconds: whole ones from accepted to finished
    """
    error_code = error_code if status == Status.FAILED else ""
    within = 0
    if status == Status.DELIVERED and seconds is not None:
        within = upper_bound(seconds)
    return Group(day, using, sender, status, error_code, within, currency)


def total(parts: Iterable[tuple[Group, Size]]) -> dict[Group, Size]:
    """Return the size of each group."""
    found: dict[Group, Size] = {}
    for group, size in parts:
        found[group] = found.get(group, Size()).plus(*size)
    return found


# --- delivery times -------------------------------------------------------------------------------


def upper_bound(seconds: int) -> int:
    """Return the end, in seconds, of the range of a time of ``seconds`` and a fraction."""
    end = max(seconds, 0) + 1
    whole_days = -(-end // DAY_SECONDS) * DAY_SECONDS
    return next((bound for bound in BOUNDS_SECONDS if end <= bound), whole_days)


def place_of(bound: int | None) -> int:
    """Return the place of a bound among all: 1 for the first one, 0 for none."""
    if bound is None:
        return 0
    if bound in BOUNDS_SECONDS:
        return BOUNDS_SECONDS.index(bound) + 1
    return len(BOUNDS_SECONDS) + bound // DAY_SECONDS - 1


def bound_at(place: int) -> int:
    """Return the bound at this place."""
    most = len(BOUNDS_SECONDS)
    return BOUNDS_SECONDS[place - 1] if place <= most else (place - most + 1) * DAY_SECONDS


# --- days -----------------------------------------------------------------------------------------


def day_of(moment: datetime) -> date:
    """Return the day of this moment in the project's time zone."""
    zone = timezone.get_default_timezone()
    return timezone.localdate(moment, zone) if timezone.is_aware(moment) else moment.date()


def start_of(day: date) -> datetime:
    """Return the moment at which this day begins in the project's time zone."""
    start = datetime.combine(day, datetime.min.time())
    zone = timezone.get_default_timezone()
    return start.replace(tzinfo=zone) if conf.uses_time_zones() else start


def days() -> models.QuerySet[SmsDay]:
    """Return the days, in the database that is written to."""
    return SmsDay.objects.using(write_db())


def counts() -> models.QuerySet[SmsDayCount]:
    """Return the counts of all days, in the database that is written to."""
    return SmsDayCount.objects.using(write_db())


def totals(first: date, last: date, *columns: str) -> models.QuerySet[Any, Any]:
    """Return the numbers of the messages of these days, in groups by the named columns.

    Each row has these columns, ``number``, ``size``, which is the number of segments, and ``cost``,
    which is the sum of the known prices, or None. Ask for ``currency``, too, where you read it.
    """
    found = counts().filter(day__gte=first, day__lte=last, messages__gt=0).order_by()
    summed = found.values(*columns).annotate(
        number=Sum("messages"), size=Sum("segments"), cost=Sum("price")
    )
    read = (*columns, "number", "size", "cost")
    named: models.QuerySet[Any, Any] = summed.values_list(*read, named=True)
    return named


def catch_up(first: date = date.min, *, budget: float = inf) -> int:
    """Count the days since ``first`` that are due, and return how many were never counted.

    The newest day goes first. At least one is counted, and no other begins after ``budget``
    seconds.
    """
    end, now = monotonic.now() + budget, timezone.now()
    _make(_missing(first, now))
    kept = days().filter(day__range=(first, day_of(now)), settled=False).order_by("-day")
    due = [
        (day, seen)
        for day, seen in kept.values_list("day", "counted_at")
        if _is_due(day, seen, now)
    ]
    for done, (day, seen) in enumerate(due, 1):
        count(day, seen)
        if monotonic.now() >= end:
            return sum(seen is None for _, seen in due[done:])
    return 0


def reopen(created: Iterable[datetime]) -> None:
    """Let days be counted again whose messages have changed after their final status: prices may
    come late.

    :param created: the times at which these messages were written
    """
    changed = {day_of(moment) for moment in created}
    days().filter(day__in=changed, settled=True).update(settled=False)


def _missing(first: date, now: datetime) -> set[date]:
    """Return the days since the first message that have no row yet."""
    begin = as_stored(FIRST)  # an older time was written by raw SQL
    # In two queries, because an ORDER BY of a time that is also selected uses no index: see times.
    known = rows().filter(created_at__gt=begin).order_by("created_at")
    oldest_pk = known.values_list("pk", flat=True).first()
    oldest = rows([oldest_pk]).values_list("created_at", flat=True).first()
    if oldest is None or oldest <= begin:
        return set()
    first, today = max(first, day_of(oldest)), day_of(now)
    every = {first + timedelta(number) for number in range((today - first).days + 1)}
    return every.difference(days().filter(day__gte=first).values_list("day", flat=True))


def _make(missing: Iterable[date]) -> None:
    """Create the rows of these days, unless another process does it at the same time."""
    new = [SmsDay(day=day) for day in missing]
    if new:
        days().bulk_create(new, ignore_conflicts=True)


def _is_due(day: date, seen: datetime | None, now: datetime) -> bool:
    if seen is None:
        return True
    age = now - start_of(day + timedelta(1))
    return now - seen > max(FRESH_FOR, age / FRESH_SHARE)


def count(day: date, seen: datetime | None) -> None:
    """Count a day that was counted at ``seen``, unless another process counted it since.

    The UPDATE comes first because it locks the row until the counts are written. So of two
    processes one counts, and none prunes messages of this day in the meantime.
    """
    now = timezone.now()
    with transaction.atomic(using=write_db()):
        mine = days().filter(day=day)
        if not mine.filter(counted_at=seen).update(counted_at=now):
            return
        present = _present(day)
        _update(present, counts().filter(day=day))
        over = now > start_of(day + timedelta(1)) + CLOCK_TOLERANCE
        settled = over and all(group.status in FINAL for group in present)
        mine.update(settled=settled)
        if settled:
            counts().filter(day=day, messages=0).delete()


def _update(present: dict[Group, Size], stored: models.QuerySet[SmsDayCount]) -> None:
    """Make the rows of a day count the present messages and the pruned ones.

    A row whose group has no message is kept with zero. Where such a row is deleted and inserted
    again, MariaDB also locks its neighbours in the index, which may be rows of another day.
    """
    changed: list[SmsDayCount] = []
    for group, row in _rows(present, stored).items():
        pruned = (row.pruned_messages, row.pruned_segments, row.pruned_price)
        size = present.get(group, Size()).plus(*pruned)
        if size != (row.messages, row.segments, row.price):
            row.messages, row.segments, row.price = size
            changed.append(row)
    _save(changed, *Size._fields)


def _rows(
    groups: Iterable[Group], stored: models.QuerySet[SmsDayCount]
) -> dict[Group, SmsDayCount]:
    """Return the stored rows, and new ones for the groups that have none."""
    found = {Group(*(getattr(row, name) for name in Group._fields)): row for row in stored}
    for group in groups:
        found.setdefault(group, SmsDayCount(**group._asdict()))
    return found


def _save(changed: list[SmsDayCount], *fields: str) -> None:
    """Insert the new rows, and write these fields of the others."""
    new = [row for row in changed if row.pk is None]
    old = [row for row in changed if row.pk is not None]
    counts().bulk_create(new)
    counts().bulk_update(old, fields, batch_size=100)


IntegerField: Any = models.IntegerField


class Seconds(models.Func):
    """Whole seconds from the second time to the first, in the functions of each database."""

    output_field = IntegerField()
    arity = 2

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        sql = "CAST(ROUND((julianday(%(expressions)s)) * 86400, 3) AS INTEGER)"
        return self.as_sql(
            compiler, connection, template=sql, arg_joiner=") - julianday(", **context
        )

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        sql = "CAST(FLOOR(EXTRACT(EPOCH FROM %(expressions)s)) AS bigint)"
        return self.as_sql(compiler, connection, template=sql, arg_joiner=" - ", **context)

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        sql = "-TIMESTAMPDIFF(SECOND, %(expressions)s)"
        return self.as_sql(compiler, connection, template=sql, **context)


def _present(day: date) -> dict[Group, Size]:
    """Return the sizes of a day's groups by one GROUP BY over its messages."""
    found = _with_seconds(_of(day)).values_list(*ALIKE)
    sized: Any = found.annotate(number=Count("pk"), size=Sum("segments"), cost=Sum("price"))
    return total(
        (group_of(day, *common), Size(number, size, cost)) for *common, number, size, cost in sized
    )


def _with_seconds(messages: SmsMessageQuerySet) -> models.QuerySet[Any]:
    return messages.annotate(seconds=Seconds(Readable(F("finished_at")), Readable(F("sent_at"))))


def _of(day: date) -> SmsMessageQuerySet:
    start, end = start_of(day), start_of(day + timedelta(1))
    return rows().filter(created_at__gte=start, created_at__lt=end).order_by()


# --- before messages are deleted ------------------------------------------------------------------


def keep(pks: Iterable[Any]) -> None:
    """Note messages as pruned in the counts of their days, which are then due to be counted.

    Call it in the transaction that deletes the messages.
    """
    gone: Any = _with_seconds(rows(pks)).values_list("created_at", "segments", "price", *ALIKE)
    found = total(
        (group_of(day_of(created_at), *common), Size(1, segments, price))
        for created_at, segments, price, *common in gone
    )
    dates = sorted({group.day_id for group in found})
    _make(dates)
    mine = days().filter(day__in=dates)
    list(mine.select_for_update().order_by("day"))
    # Locked too, because a transaction that began to read earlier would see older rows.
    stored = _rows(found, counts().filter(day__in=dates).select_for_update())
    for group, size in found.items():
        row = stored[group]
        row.pruned_messages += size.messages
        row.pruned_segments += size.segments
        row.pruned_price = sum_of_prices(row.pruned_price, size.price)
    pruned = (f"pruned_{name}" for name in Size._fields)
    _save([stored[group] for group in found], *pruned)
    mine.update(counted_at=None, settled=False)

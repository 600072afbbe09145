"""Count the messages of mailings by status, so that a page reads one row, not a hundred thousand.

A mailing is counted when its page or the list is shown, at most once in two seconds, and no more
once every status is final. Messages that are pruned are noted in its row before they are deleted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import connections, transaction
from django.db.models import Case, Count, DateTimeField, F, QuerySet, Sum, Value, When

from . import clock
from .daily_counts import Seconds, sum_of_prices
from .models import SmsMailing, SmsMessage, SmsMessageQuerySet, mailings, rows, write_db
from .states import FINAL, Status
from .times import Readable

FRESH_FOR = timedelta(seconds=2)  # the shortest time between two counts of a mailing
MAX_COUNTED = 100_000  # about the most messages that are counted for one page
PRICED_EVERY = timedelta(minutes=10)  # the shortest time between two sums of its prices
PRICES_COME_WITHIN = timedelta(days=1)  # of the last change: providers report some of them late
SAMPLE_EVERY = timedelta(seconds=10)  # the least time between two samples of those that wait
RATE_OVER = timedelta(seconds=60)  # the time over which the rate of a mailing is known
#: They are on their way to the provider, or will be without a person.
WAITING = frozenset({Status.QUEUED, Status.CLAIMED, Status.SENDING})
#: The provider has accepted them, and has not said what became of them.
SENT = frozenset({Status.SENT, Status.UNCONFIRMED})
#: They will not arrive.
NOT_DELIVERED = frozenset({Status.REJECTED, Status.EXPIRED, Status.DELETED})
#: What is sent again instead of these counts as one recipient with it.
REPLACED = NOT_DELIVERED | {Status.FAILED, Status.UNKNOWN}


@dataclass(frozen=True)
class Progress:
    """How far a mailing is, in messages.

    :ivar total: recipients; what was sent again instead of what did not arrive is one
    :ivar waiting: they leave without a person
    :ivar drafts: they leave when the mailing goes on
    :ivar sent: accepted, and not known to have arrived
    :ivar not_delivered: accepted, and known not to have arrived
    :ivar failed: definitely not accepted
    :ivar unknown: perhaps accepted
    :ivar again: how many of those that had failed, or were unknown, were sent again
    :ivar seconds_left: until none waits, at the rate of the last minute; None where none left in
        that time
    """

    total: int = 0
    waiting: int = 0
    drafts: int = 0
    sent: int = 0
    delivered: int = 0
    not_delivered: int = 0
    failed: int = 0
    unknown: int = 0
    cancelled: int = 0
    again: int = 0
    seconds_left: float | None = None


def progress(mailing: SmsMailing) -> Progress:
    """Return how far it is, as last counted."""
    counts = Counter(mailing.counts)

    def of(statuses: Iterable[Status]) -> int:
        return sum(counts[status] for status in statuses)

    return Progress(
        total=max(counts.total() - mailing.again, counts[Status.DELIVERED]),
        waiting=of(WAITING),
        drafts=counts[Status.DRAFT],
        sent=of(SENT),
        delivered=counts[Status.DELIVERED],
        not_delivered=of(NOT_DELIVERED),
        failed=counts[Status.FAILED],
        unknown=counts[Status.UNKNOWN],
        cancelled=counts[Status.CANCELLED],
        again=mailing.again,
        seconds_left=_seconds_left(mailing, of(WAITING)),
    )


def _seconds_left(mailing: SmsMailing, waiting: int) -> float | None:
    if not (waiting and mailing.samples and mailing.counted_at):
        return None
    at, waited = mailing.samples[0]
    gone = waited - waiting
    seconds = (mailing.counted_at - _moment(at)).total_seconds()
    return waiting * seconds / gone if gone > 0 and seconds > 0 else None


def refresh(found: Sequence[SmsMailing]) -> None:
    """Count those of these mailings again that may have changed, by a fixed number of queries.

    Of large ones only some are counted, and first those that were not counted for the longest time.
    The others show what was counted before.
    """
    now = clock.now()
    if due := _affordable([mailing for mailing in found if _is_due(mailing, now)]):
        with transaction.atomic(using=write_db()):
            counted = {mailing.pk: mailing for mailing in _count(due, now)}
        for mailing in due:
            for name in COUNTED if mailing.pk in counted else ():
                setattr(mailing, name, getattr(counted[mailing.pk], name))


COUNTED = ("counts", "samples", "counted_at", "settled")


def _is_due(mailing: SmsMailing, now: datetime) -> bool:
    if mailing.settled:
        return False
    seen = mailing.counted_at
    return seen is None or not now - FRESH_FOR < seen <= now


def _affordable(due: list[SmsMailing]) -> list[SmsMailing]:
    """Return as many of them as fit ``MAX_COUNTED``, and at least one."""
    chosen: list[SmsMailing] = []
    left = MAX_COUNTED
    never = [mailing for mailing in due if mailing.counted_at is None]
    seen = [mailing for mailing in due if mailing.counted_at is not None]
    for mailing in never + sorted(seen, key=_seen):
        if (size := _size(mailing)) <= left or not chosen:
            chosen.append(mailing)
            left -= size
    return chosen


def _seen(mailing: SmsMailing) -> Any:
    return mailing.counted_at


def _size(mailing: SmsMailing) -> int:
    """Return about how many messages it has: before the first count, the number of segments."""
    return sum(mailing.counts.values()) or mailing.segments


def _count(due: list[SmsMailing], now: datetime) -> list[SmsMailing]:
    """Count them and store it. The lock keeps a prune out, and a second reader, who shows what was
    counted before."""
    locked = list(_locked(mailings(mailing.pk for mailing in due)))
    live: dict[int, Counter[str]] = defaultdict(Counter)
    # These columns are in one index, so that no row is read.
    for key, status, number in _sizes(rows().filter(mailing__in=[one.pk for one in locked])):
        live[key][status] = number
    for mailing in locked:
        _note(mailing, live[mailing.pk] + Counter(mailing.pruned), now)
    mailings().bulk_update(locked, COUNTED)
    return locked


def _sizes(messages: SmsMessageQuerySet) -> Iterator[tuple[Any, str, int]]:
    """Yield the number of messages of each mailing and status."""
    counted = messages.order_by().values("mailing_id", "status").annotate(number=Count("*"))
    yield from counted.values_list("mailing_id", "status", "number")


def _locked(found: QuerySet[SmsMailing]) -> QuerySet[SmsMailing]:
    skips = connections[write_db()].features.has_select_for_update_skip_locked
    return found.order_by("pk").select_for_update(skip_locked=skips)


def _note(mailing: SmsMailing, counts: Counter[str], now: datetime) -> None:
    mailing.counts, mailing.counted_at = dict(+counts), now
    mailing.samples = _samples(mailing.samples, now, sum(counts[status] for status in WAITING))
    open_ones = counts.keys() - FINAL
    mailing.settled = bool(counts) and not any(counts[status] for status in open_ones)


def _samples(samples: list[Any], now: datetime, waiting: int) -> list[Any]:
    """Return the samples of the last minute, the oldest first, and this one where it is time."""
    fresh = [one for one in samples if now - RATE_OVER <= _moment(one[0]) <= now]
    if not fresh or now - _moment(fresh[-1][0]) >= SAMPLE_EVERY:
        fresh.append([now.isoformat(), waiting])
    return fresh


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def refresh_prices(mailing: SmsMailing) -> None:
    """Sum up the prices that providers have reported, once nothing waits, and then rarely: every
    row is read. Pruned messages keep their part."""
    now = clock.now()
    if not _is_price_due(mailing, now):
        return
    sums = rows().filter(mailing=mailing.pk).exclude(price=None).order_by().values("currency")
    found = dict(sums.annotate(Sum("price")).values_list("currency", "price__sum"))
    mailing.prices = {currency: str(sum_of_prices(price)) for currency, price in found.items()}
    mailing.priced_at = now
    mailings([mailing.pk]).update(prices=mailing.prices, priced_at=now)


def _is_price_due(mailing: SmsMailing, now: datetime) -> bool:
    if mailing.counted_at is None or mailing.pruned or progress(mailing).waiting:
        return False
    seen = mailing.priced_at
    return seen is None or (
        not now - PRICED_EVERY < seen <= now and seen < mailing.counted_at + PRICES_COME_WITHIN
    )


def add(key: Any, segments: int, *, again: int = 0) -> None:
    """Note messages that a mailing gets, in the transaction that stores them.

    :param segments: of them
    :param again: how many of them are sent again
    """
    more = {"segments": F("segments") + segments, "again": F("again") + again}
    mailings([key]).update(settled=False, **more)


def expire(mailing: SmsMailing) -> None:
    """Let it be counted again when it is shown next, because many of its messages have moved."""
    mailings([mailing.pk]).update(counted_at=None)


def remove(message: SmsMessage) -> None:
    """Note that a message is deleted that was never sent, in the same transaction."""
    fewer = {"segments": _less("segments", message.segments)}
    if message.resend_of_id is not None:
        fewer["again"] = _less("again", 1)
    mailings([message.mailing_id]).update(settled=False, counted_at=None, **fewer)


def resize(key: Any, by: int) -> None:
    """Note that an edited draft has more or fewer segments, in the same transaction."""
    changed = F("segments") + by if by > 0 else _less("segments", -by)
    if by:
        mailings([key]).update(segments=changed)


def _less(name: str, number: int) -> Case:
    """Return a column less this number, and not below 0: MariaDB refuses even to subtract more."""
    return Case(When(**{f"{name}__gte": number}, then=F(name) - number), default=Value(0))


def keep(keys: list[Any]) -> None:
    """Note the messages with these keys in their mailings, before they are deleted in the same
    transaction."""
    found: dict[int, Counter[str]] = defaultdict(Counter)
    for key, status, number in _sizes(rows(keys).exclude(mailing=None)):
        found[key][status] = number
    if not found:
        return
    noted = list(mailings(found).order_by("pk").select_for_update())
    for mailing in noted:
        mailing.pruned = dict(+(Counter(mailing.pruned) + found[mailing.pk]))
    mailings().bulk_update(noted, ["pruned"])


# --- statistics of one ----------------------------------------------------------------------------


class Part(NamedTuple):
    """Messages of a mailing that have these things in common.

    :ivar seconds: whole ones from accepted to finished; None where one of the two is not known
    :ivar minute: in which they were accepted, or None
    :ivar size: the number of their segments
    :ivar cost: the sum of their known prices, or None
    """

    seconds: int | None
    minute: int | None
    status: str
    error_code: str
    currency: str
    number: int
    size: int
    cost: Any


def parts(mailing: SmsMailing, begin: datetime) -> list[Part]:
    """Return its messages in groups, by one query, since reading the rows is most of its time.

    The numbers stand first in the groups: the database compares them faster than texts.

    :param begin: from which minutes are counted
    """
    since = Value(begin, output_field=DateTimeField())
    found = rows().filter(mailing=mailing.pk).order_by()
    timed: QuerySet[Any] = found.annotate(
        seconds=Seconds(_time("finished_at"), _time("sent_at")),
        minute=_Minutes(_time("sent_at"), since),
        # Django groups by a model's own columns first.
        **{f"its_{name}": F(name) for name in ("status", "error_code", "currency")},
    )
    alike = timed.values_list("seconds", "minute", "its_status", "its_error_code", "its_currency")
    sized = alike.annotate(number=Count("*"), size=Sum("segments"), cost=Sum("price"))
    return [Part(*one) for one in sized]


def _time(name: str) -> Any:
    """Return a column as a time. SQLite reads any text as one or as NULL, and checks slowly."""
    return F(name) if connections[write_db()].vendor == "sqlite" else Readable(F(name))


class _Minutes(Seconds):
    """Whole minutes from the second time to the first, which is not earlier."""

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        sql, params = super().as_sqlite(compiler, connection, **context)
        return f"{sql} / 60", params

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        sql, params = super().as_postgresql(compiler, connection, **context)
        return f"{sql} / 60", params

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        sql, params = super().as_mysql(compiler, connection, **context)
        return f"({sql}) DIV 60", params

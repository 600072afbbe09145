"""Count the messages of mailings by status, so that a page reads one row, not a hundred thousand.

A mailing is counted when somebody looks at it, at most once in two seconds, and no more once every
status is final. Messages that are pruned are noted in its row before they are deleted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connections, transaction
from django.db.models import Count, QuerySet

from . import clock
from .models import SmsMailing, mailings, rows, write_db
from .states import FINAL, Status

FRESH_FOR = timedelta(seconds=2)  # the shortest time between two counts of a mailing
SAMPLE_EVERY = timedelta(seconds=10)  # the least time between two samples of those that wait
RATE_OVER = timedelta(seconds=60)  # the time over which the rate of a mailing is known
#: That many messages were sent again, as new messages of the mailing, which are counted, too.
AGAIN = "again"

#: They are on their way to the provider, or will be without a person.
WAITING = frozenset({Status.QUEUED, Status.CLAIMED, Status.SENDING})
#: The provider has accepted them, and has not said what became of them.
SENT = frozenset({Status.SENT, Status.UNCONFIRMED})
#: They will not arrive.
NOT_DELIVERED = frozenset({Status.REJECTED, Status.EXPIRED, Status.DELETED})


@dataclass(frozen=True)
class Progress:
    """How far a mailing is, in messages.

    :ivar total: recipients; what was sent again is one
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
    again = counts.pop(AGAIN, 0)

    def of(statuses: Iterable[Status]) -> int:
        return sum(counts[status] for status in statuses)

    return Progress(
        total=counts.total() - again,
        waiting=of(WAITING),
        drafts=counts[Status.DRAFT],
        sent=of(SENT),
        delivered=counts[Status.DELIVERED],
        not_delivered=of(NOT_DELIVERED),
        failed=counts[Status.FAILED],
        unknown=counts[Status.UNKNOWN],
        cancelled=counts[Status.CANCELLED],
        again=again,
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
    """Count those of these mailings again that may have changed. It is a fixed number of queries,
    however many they are."""
    now = clock.now()
    if due := [mailing for mailing in found if _is_due(mailing, now)]:
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


def _count(due: list[SmsMailing], now: datetime) -> list[SmsMailing]:
    """Count them and store it. The lock keeps a prune out, and a second reader, who shows what was
    counted before."""
    locked = list(_locked(mailings(mailing.pk for mailing in due)))
    live: dict[int, Counter[str]] = defaultdict(Counter)
    groups = rows().filter(mailing__in=[mailing.pk for mailing in locked]).order_by()
    counted = groups.values_list("mailing_id", "status").annotate(Count("pk"), Count("resend_of"))
    for key, status, number, again in counted:
        live[key].update({status: number, AGAIN: again})
    for mailing in locked:
        _note(mailing, live[mailing.pk] + Counter(mailing.pruned), now)
    mailings().bulk_update(locked, COUNTED)
    return locked


def _locked(found: QuerySet[SmsMailing]) -> QuerySet[SmsMailing]:
    skips = connections[write_db()].features.has_select_for_update_skip_locked
    return found.order_by("pk").select_for_update(skip_locked=skips)


def _note(mailing: SmsMailing, counts: Counter[str], now: datetime) -> None:
    mailing.counts, mailing.counted_at = dict(+counts), now
    mailing.samples = _samples(mailing.samples, now, sum(counts[status] for status in WAITING))
    open_ones = counts.keys() - FINAL - {AGAIN}
    mailing.settled = bool(counts) and not any(counts[status] for status in open_ones)


def _samples(samples: list[Any], now: datetime, waiting: int) -> list[Any]:
    """Return the samples of the last minute, the oldest first, and this one where it is time."""
    fresh = [one for one in samples if now - RATE_OVER <= _moment(one[0]) <= now]
    if not fresh or now - _moment(fresh[-1][0]) >= SAMPLE_EVERY:
        fresh.append([now.isoformat(), waiting])
    return fresh


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def reopen(keys: Iterable[Any]) -> None:
    """Let mailings be counted again that get a message more."""
    if known := [key for key in keys if key is not None]:
        mailings(known).filter(settled=True).update(settled=False)


def keep(keys: list[Any]) -> None:
    """Note the messages with these keys in their mailings, before they are deleted in the same
    transaction."""
    groups = rows(keys).exclude(mailing=None).order_by()
    counted = groups.values_list("mailing_id", "status").annotate(Count("pk"), Count("resend_of"))
    found: dict[int, Counter[str]] = defaultdict(Counter)
    for key, status, number, again in counted:
        found[key].update({status: number, AGAIN: again})
    if not found:
        return
    noted = list(mailings(found).order_by("pk").select_for_update())
    for mailing in noted:
        mailing.pruned = dict(+(Counter(mailing.pruned) + found[mailing.pk]))
    mailings().bulk_update(noted, ["pruned"])

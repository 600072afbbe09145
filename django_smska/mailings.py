"""Mailings: stop one, let it go on, write again to those that it definitely did not reach."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Any

from django.db import transaction

from . import clock, conf, mailing_counts, quiet_hours, sending
from .conf import QuietHours
from .conflicts import repeat_conflicts
from .exceptions import SmsError
from .models import Resent, SmsMailing, SmsMessageQuerySet, mailings, rows, write_db
from .states import Status

BATCH_ROWS = 1000  # the rows of one transaction
#: Errors after which the same text to the same number fails again, by their codes.
FAILS_AGAIN = frozenset({"-2", "-6", "-7", "number", "text"})


def stop(mailing: SmsMailing, by: str = "") -> int:
    """Let no more of its messages leave; return how many wait now, as drafts."""
    mailings([mailing.pk]).filter(stopped_at=None).update(stopped_at=clock.now(), stopped_by=by)
    mailing.refresh_from_db(using=write_db())
    at = mailing.stopped_at
    # What is held waits for a person in any case, who releases it on a page of its own.
    moved = _in_batches(mailing, at, of(mailing).not_held(), Status.QUEUED, sending.set_aside)
    # A worker that has claimed one finds its claim gone, before the first byte.
    claimed = of(mailing).filter(immediate=False)
    take_back = partial(sending.set_aside, claimed=True)
    moved += _in_batches(mailing, at, claimed, Status.CLAIMED, take_back)
    mailing_counts.expire(mailing)
    return moved


def resume(mailing: SmsMailing) -> int:
    """Queue what waits; return how many messages. Where it was interrupted, it can be repeated."""
    mailings([mailing.pk]).update(stopped_at=None, stopped_by="")
    mailing.refresh_from_db(using=write_db())
    moved = _in_batches(mailing, None, of(mailing), Status.DRAFT, sending.enqueue)
    mailing_counts.expire(mailing)
    return moved


def send_at_night(mailing: SmsMailing) -> None:
    """Let its messages leave in quiet hours, too, also those of its drafts that wait for their end.

    No transaction is open: a function of the project's may be asked for the time zones.
    """
    mailings([mailing.pk]).update(at_any_hour=True)
    hours, now = conf.quiet_hours(), clock.now()
    if hours is None:
        return
    later = drafts(mailing).filter(send_after__gt=now).order_by("pk")
    last: int | None = 0
    while last is not None:
        put_off, last = _put_off(later.filter(pk__gt=last)[:BATCH_ROWS], hours, now)
        rows(put_off).filter(status=Status.DRAFT).update(send_after=now)


def _put_off(
    later: SmsMessageQuerySet, hours: QuietHours, now: datetime
) -> tuple[list[int], int | None]:
    """Return the keys of those that wait for the end of the present quiet hours, and the last key
    of all: no frame above has numbers."""
    found = list(later.values_list("pk", "to", "send_after"))
    zones = quiet_hours.zones([to for _pk, to, _at in found], hours)
    ends = {zone: quiet_hours.end_of(now, zone, hours) for zone in set(zones.values())}
    put_off = [pk for pk, to, at in found if ends[zones[to]] == at]
    return put_off, found[-1][0] if found else None


def of(mailing: SmsMailing) -> SmsMessageQuerySet:
    """Return its messages, in the database that is written to."""
    return rows().filter(mailing=mailing.pk).order_by()


def stopped(keys: Iterable[int]) -> dict[int, SmsMailing]:
    """Return, by the keys of messages, the stopped mailings that these belong to."""
    waiting = rows(keys).exclude(mailing__stopped_at=None).exclude(mailing=None).order_by()
    found = dict(waiting.values_list("pk", "mailing"))
    by_key = mailings(set(found.values())).in_bulk() if found else {}
    return {pk: by_key[key] for pk, key in found.items() if key in by_key}


def drafts(mailing: SmsMailing) -> SmsMessageQuerySet:
    """Return what leaves when it goes on."""
    return of(mailing).filter(status=Status.DRAFT)


def _in_batches(
    mailing: SmsMailing,
    stopped_at: datetime | None,
    found: SmsMessageQuerySet,
    status: Status,
    move: Callable[[SmsMessageQuerySet], int],
) -> int:
    """Move these messages, a thousand in a transaction, so that no lock is held for long. It ends
    where another person has stopped the mailing, or let it go on, since."""
    moved, last = 0, 0

    def move_some() -> tuple[int, int]:
        with transaction.atomic(using=write_db()):
            later = found.filter(status=status, pk__gt=last).order_by("pk")
            # A claim of a worker locks messages before their mailing, too.
            locked = later.select_for_update().values_list("pk", flat=True)
            keys: list[int] = list(locked[:BATCH_ROWS])
            state = mailings([mailing.pk]).select_for_update().values_list("stopped_at", flat=True)
            if not keys or list(state) != [stopped_at]:
                return 0, 0
            return move(rows(keys).filter(status=status)), keys[-1]

    while True:
        number, last = repeat_conflicts(move_some)
        if not last:
            return moved
        moved += number


def failed(mailing: SmsMailing) -> SmsMessageQuerySet:
    """Return its messages that have definitely failed, were not sent again, and need not fail
    again."""
    found = of(mailing).filter(
        status=Status.FAILED, resent_as=None, sensitive=False, erased_at=None
    )
    return found.exclude(error_code__in=FAILS_AGAIN)


def resend_failed(
    mailing: SmsMailing, *, created_by: Any = None, most: int | None = None, last: int | None = None
) -> Resent:
    """Queue the texts again of those that have definitely failed; see
    :meth:`SmsMailing.resend_failed`.

    :param last: the highest key, as a page has shown them
    """
    found = failed(mailing) if last is None else failed(mailing).filter(pk__lte=last)
    chosen = list(found.order_by("pk")[:most])
    errors: list[tuple[int, SmsError]] = []
    for message in chosen:
        try:
            repeat_conflicts(partial(sending.resend, message, created_by=created_by))
        except SmsError as error:
            errors.append((message.pk, error))
    result = Resent(len(chosen) - len(errors))
    result.errors = errors
    return result

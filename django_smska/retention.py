"""End of the time that rows are kept: old messages, sent and received, are deleted, or their number
and text blanked.

Everything is done in batches with a transaction each, the newest message first. So neither memory
nor the time of a lock depends on the size of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef, ProtectedError, QuerySet, RestrictedError

from . import clock, daily_counts, mailing_counts
from .models import (
    SmsInbound,
    SmsLimit,
    SmsMessage,
    SmsMessageQuerySet,
    mailings,
    rows,
    write_db,
)
from .states import FINAL

BATCH_ROWS = 1000  # the rows of one transaction

Row = tuple[Any, Any]  # key, key of the message that it is a resend of
#: What is left of a number or a text in a row, and what may quote it: gateways and programs write
#: into the last ones. The error's code stays, because statistics count by it.
BLANK: dict[str, Any] = {
    "to": "",
    "body": "",
    "code": "",
    "text_hash": "",
    "idempotency_key": None,
    "gateway_id": "",
    "gateway_status": "",
    "error_text": "",
}
#: The same of a received message. Its provider may find the person by the id.
BLANK_RECEIVED: dict[str, Any] = {"sender": "", "body": "", "gateway_id": None}


def blank(messages: SmsMessageQuerySet) -> int:
    """Blank number and text of finished messages; return how many were not blank yet. It is one
    UPDATE, so give it no more than ``BATCH_ROWS``."""
    fit = messages.filter(status__in=FINAL, erased_at=None)
    return fit.update(**BLANK, erased_at=clock.now())


def blank_old(before: datetime, *, dry_run: bool = False) -> Iterator[tuple[int, int]]:
    """Blank the messages that were finished before this time. Yield for each batch how many were
    blanked, and 0: none has to stay."""
    last = _newest(before)
    while last is not None:
        # Those that are blank are not read again: an index leads past them.
        due = rows().filter(erased_at=None, pk__lte=last)
        old = due.filter(status__in=FINAL, finished_at__lt=before).order_by("-pk")
        keys = list(old.values_list("pk", flat=True)[:BATCH_ROWS])
        yield len(keys) if dry_run else blank(rows(keys)), 0
        last = keys[-1] - 1 if len(keys) == BATCH_ROWS else None


def delete_old(before: datetime, *, dry_run: bool = False) -> Iterator[tuple[int, int]]:
    """Delete the messages that were finished before this time. Yield for each batch how many were
    deleted, and how many stay because other rows point to them.

    The newest message goes first, so that a resend goes before the original.
    """
    freed: set[Any] = set()  # originals whose resend is deleted, or would be
    last = _newest(before)
    while last is not None:
        with transaction.atomic(using=write_db()):
            batch = _batch(before, last)
            doomed = _doomed(batch, freed)
            deleted = len(doomed) if dry_run else _delete(doomed)
        if not dry_run:
            freed.clear()  # the next batch sees which resends are gone
        yield deleted, len(batch) - deleted
        last = batch[-1][0] - 1 if len(batch) == BATCH_ROWS else None


def received() -> QuerySet[SmsInbound]:
    """Return the received messages, in the database that is written to."""
    return SmsInbound.objects.using(write_db())


def blank_received(keys: list[Any]) -> int:
    """Blank number and text of these received messages; return how many were not blank yet."""
    return received().filter(pk__in=keys).exclude(**BLANK_RECEIVED).update(**BLANK_RECEIVED)


def end_old_received(way: str, before: datetime, *, dry_run: bool = False) -> Iterator[int]:
    """Delete or blank the messages that were received before this time. Yield for each batch how
    many."""
    old = received().filter(received_at__lt=before)
    if way == "blank":
        old = old.exclude(**BLANK_RECEIVED)
    for keys in batches(old):
        if dry_run:
            yield len(keys)
        else:
            yield blank_received(keys) if way == "blank" else _delete_received(keys)


def blank_old_mailings(before: datetime) -> int:
    """Blank the texts of the mailings from before this time that have no open message; return how
    many. Their names and counts stay."""
    is_open = rows().filter(mailing=OuterRef("pk")).exclude(status__in=FINAL)
    old = mailings().filter(created_at__lt=before).exclude(body="").exclude(Exists(is_open))
    return sum(mailings(keys).update(body="") for keys in batches(old))


def delete_old_limits() -> int:
    """Delete what was counted for limits whose time is over; return how many rows."""
    ended = SmsLimit.objects.using(write_db()).filter(ends_at__lt=clock.now())
    return sum(ended.filter(pk__in=keys).delete()[0] for keys in batches(ended))


def batches(found: QuerySet[Any]) -> Iterator[list[Any]]:
    """Yield the keys of these rows, ``BATCH_ROWS`` at a time."""
    keys: list[Any] = list(found.order_by("pk").values_list("pk", flat=True)[:BATCH_ROWS])
    while keys:
        yield keys
        later = found.filter(pk__gt=keys[-1]).order_by("pk")
        keys = list(later.values_list("pk", flat=True)[:BATCH_ROWS])


#: What ``SMSKA_PRUNE`` names.
WAYS: dict[str, Callable[..., Iterator[tuple[int, int]]]] = {
    "delete": delete_old,
    "blank": blank_old,
}


def _newest(before: datetime) -> Any:
    """Return the highest key that may be old. An index finds it, so no newer row is read."""
    older = rows().filter(created_at__lt=before).order_by("-created_at", "-id")
    return older.values_list("pk", flat=True).first()


def _batch(before: datetime, last: Any) -> list[Row]:
    """Return the next rows and lock them, so that no process resends them in the meantime."""
    finished = rows().filter(status__in=FINAL, finished_at__lt=before, pk__lte=last)
    locked = finished.select_for_update().order_by("-pk")
    return list(locked.values_list("pk", "resend_of_id")[:BATCH_ROWS])


def _doomed(batch: list[Row], freed: set[Any]) -> list[Any]:
    """Return the keys of the rows to which no message points that is kept."""
    keys = [pk for pk, _ in batch]
    resent = set(rows().filter(resend_of__in=keys).values_list("resend_of_id", flat=True))
    doomed: list[Any] = []
    for pk, original in batch:
        if pk not in resent or pk in freed:
            doomed.append(pk)
            freed.add(original)
        freed.discard(pk)
    freed.discard(None)
    return doomed


def _delete(keys: list[Any]) -> int:
    """Delete the messages that no table of the project protects, and return their number."""
    try:
        return _delete_together(keys)
    except (ProtectedError, RestrictedError):
        return sum(_delete_alone(pk) for pk in keys)


def _delete_together(keys: list[Any]) -> int:
    with transaction.atomic(using=write_db()):
        daily_counts.keep(keys)
        mailing_counts.keep(keys)
        # MariaDB checks row by row, so no message may point to another one of the same DELETE.
        rows(keys).exclude(resend_of=None).update(resend_of=None)
        return rows(keys).delete()[1].get(SmsMessage._meta.label, 0)


def _delete_received(keys: list[Any]) -> int:
    """Delete received messages that no table of the project protects; return their number."""
    try:
        with transaction.atomic(using=write_db()):
            deleted = received().filter(pk__in=keys).delete()[1]
    except (ProtectedError, RestrictedError):
        return sum(_delete_received([pk]) for pk in keys) if len(keys) > 1 else 0
    return deleted.get(SmsInbound._meta.label, 0)


def _delete_alone(pk: Any) -> int:
    try:
        return _delete_together([pk])
    except (ProtectedError, RestrictedError):
        return 0

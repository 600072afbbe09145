"""Mailings: stop one, let it go on, write again to those that it definitely did not reach."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from . import clock, sending
from .exceptions import SmsError
from .models import Resent, SmsMailing, SmsMessageQuerySet, mailings, rows, write_db
from .states import Status

BATCH_ROWS = 1000  # the rows of one transaction


def stop(mailing: SmsMailing, by: str = "") -> int:
    """Let no more of its messages leave; return how many wait now, as drafts."""
    now = clock.now()
    mailings([mailing.pk]).filter(stopped_at=None).update(stopped_at=now, stopped_by=by)
    moved = _in_batches(of(mailing).filter(status=Status.QUEUED), sending.set_aside)
    mailing.refresh_from_db(using=write_db())
    return moved


def resume(mailing: SmsMailing) -> int:
    """Queue what waits; return how many messages. Where it was interrupted, it can be repeated."""
    mailings([mailing.pk]).update(stopped_at=None, stopped_by="")
    moved = _in_batches(of(mailing).filter(status=Status.DRAFT), sending.enqueue)
    mailing.refresh_from_db(using=write_db())
    return moved


def of(mailing: SmsMailing) -> SmsMessageQuerySet:
    """Return its messages, in the database that is written to."""
    return rows().filter(mailing=mailing.pk).order_by()


def _in_batches(found: SmsMessageQuerySet, move: Any) -> int:
    """Move these messages, a thousand in a transaction, so that no lock is held for long."""
    moved = 0
    while keys := list(found.values_list("pk", flat=True)[:BATCH_ROWS]):
        with transaction.atomic(using=write_db()):
            moved += move(found.filter(pk__in=keys))
    return moved


def failed(mailing: SmsMailing) -> SmsMessageQuerySet:
    """Return its messages that have definitely failed and were not sent again."""
    return of(mailing).filter(status=Status.FAILED, resent_as=None, sensitive=False, erased_at=None)


def resend_failed(
    mailing: SmsMailing, *, created_by: Any = None, most: int | None = None
) -> Resent:
    """Queue the texts again of those that have definitely failed; see
    :meth:`SmsMailing.resend_failed`."""
    found = list(failed(mailing).order_by("pk")[:most])
    errors: list[tuple[int, SmsError]] = []
    for message in found:
        try:
            sending.resend(message, created_by=created_by)
        except SmsError as error:
            errors.append((message.pk, error))
    result = Resent(len(found) - len(errors))
    result.errors = errors
    return result

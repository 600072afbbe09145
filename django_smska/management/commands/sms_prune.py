"""``manage.py sms_prune``: delete messages that were finished long ago."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import CommandError
from django.db import transaction
from django.db.models import ProtectedError, RestrictedError
from django.utils import timezone

from django_smska import conf, daily_counts
from django_smska.management.tables import DatabaseCommand, require_tables
from django_smska.models import SmsMessage, rows, write_db
from django_smska.states import FINAL
from django_smska.times import local

BATCH_MESSAGES = 1000  # the messages of one transaction

Row = tuple[Any, Any]  # key, key of the message that it is a resend of


class Command(DatabaseCommand):
    help = (
        "Deletes messages that were finished (delivered, rejected, expired, deleted, unconfirmed, "
        "failed, cancelled) longer ago than SMSKA_KEEP. Unknown and unsent ones stay, and so does "
        "a message whose resend stays. Idempotency keys go with their messages, so that the same "
        "key then sends again. The statistics keep their numbers, and are brought up to date."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--keep",
            type=float,
            metavar="DAYS",
            help="instead of SMSKA_KEEP (180 days, where it is not set)",
        )
        parser.add_argument("--dry-run", action="store_true", help="count, delete nothing")

    def handle(self, **options: Any) -> None:
        before = _time_before(options["keep"])
        require_tables()
        deleted = kept = 0
        for number, left in _prune(before, dry_run=options["dry_run"]):
            deleted += number
            kept += left
        verb = "Would delete" if options["dry_run"] else "Deleted"
        day = f"{local(before):%Y-%m-%d %H:%M}"
        self.stdout.write(f"{verb} {deleted} messages that were finished before {day}.")
        if kept:
            self.stdout.write(f"Kept {kept} that other rows point to.")
        if not options["dry_run"]:
            daily_counts.catch_up()


def _time_before(days: float | None) -> datetime:
    try:
        keep = conf.keep_for() if days is None else timedelta(days=days)
        if keep > timedelta(0):
            return timezone.now() - keep
    except (OverflowError, ValueError):
        pass
    raise CommandError(
        f"--keep {days} cannot be used. Write a number of days above 0, such as 180."
    )


def _prune(before: datetime, *, dry_run: bool) -> Iterator[tuple[int, int]]:
    """Delete in batches and yield how many messages each of them deleted and kept.

    The newest message goes first, so that a resend goes before the original.
    """
    freed: set[Any] = set()  # originals in later batches, whose resend is deleted
    last = _newest(before)
    while last is not None:
        with transaction.atomic(using=write_db()):
            batch = _batch(before, last)
            doomed = _doomed(batch, freed)
            deleted = len(doomed) if dry_run else _delete(doomed)
        yield deleted, len(batch) - deleted
        last = batch[-1][0] - 1 if len(batch) == BATCH_MESSAGES else None


def _newest(before: datetime) -> Any:
    """Return the highest key that may be deleted. An index finds it, so no newer row is read."""
    older = rows().filter(created_at__lt=before).order_by("-created_at", "-id")
    return older.values_list("pk", flat=True).first()


def _batch(before: datetime, last: Any) -> list[Row]:
    """Return the next rows and lock them, so that no process resends them in the meantime."""
    finished = rows().filter(status__in=FINAL, finished_at__lt=before, pk__lte=last)
    locked = finished.select_for_update().order_by("-pk")
    return list(locked.values_list("pk", "resend_of_id")[:BATCH_MESSAGES])


def _doomed(batch: list[Row], freed: set[Any]) -> list[Any]:
    """Return the keys of the rows to which no message points that is kept."""
    keys = [pk for pk, _ in batch]
    resent = set(rows().filter(resend_of__in=keys).values_list("resend_of_id", flat=True))
    doomed = []
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
        # MariaDB checks row by row, so no message may point to another one of the same DELETE.
        rows(keys).exclude(resend_of=None).update(resend_of=None)
        return rows(keys).delete()[1].get(SmsMessage._meta.label, 0)


def _delete_alone(pk: Any) -> int:
    try:
        return _delete_together([pk])
    except (ProtectedError, RestrictedError):
        return 0

"""``manage.py sms_prune``: delete or blank messages that were finished or received long ago, or
those of one person."""

from __future__ import annotations

import getpass
from argparse import ArgumentParser
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.utils import timezone

from django_smska import conf, daily_counts, personal_data, retention
from django_smska.management.tables import DatabaseCommand, given_number, require_tables
from django_smska.models import SmsErasure, SmsTemplate
from django_smska.numbers import mask, normalize
from django_smska.states import Status
from django_smska.times import local

#: What is done, and what would be.
VERBS = {"delete": ("Deleted", "Would delete"), "blank": ("Blanked", "Would blank")}
#: The same of texts in which the number stands. Their keys follow: a name may be that of a person.
REPLACED = ("Replaced the number in", "Would replace the number in")
#: What to do with texts that are still sent.
NOTES = {SmsTemplate._meta.label_lower: "Read them before they are sent again."}
MAX_KEYS = 20  # the keys that a line shows
#: Why a message of a person who is erased is kept, and what to do.
KEPT = {
    Status.UNKNOWN: "may have been sent: decide about them in the admin, then run this again.",
    Status.SENT: "wait for their delivery reports: run this again when they are finished, at the "
    "latest after SMSKA_STATUS_WINDOW.",
}
BEING_SENT = "are being sent: run this again in a few minutes."


class Command(DatabaseCommand):
    help = (
        "Deletes messages that were finished (delivered, rejected, expired, deleted, unconfirmed, "
        "failed, cancelled) longer ago than SMSKA_KEEP, or blanks their numbers and texts where "
        "SMSKA_PRUNE says so, and does the same with received ones. Unknown and unsent ones stay, "
        "and so does a message whose resend is not deleted. Idempotency keys go, too, so that the "
        "same key then sends again. The statistics keep their numbers, and are brought up to date. "
        "With --number it erases one person instead, and prints a record of it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--keep",
            type=float,
            metavar="DAYS",
            help="instead of SMSKA_KEEP (180 days, where it is not set)",
        )
        parser.add_argument(
            "--number",
            help="erase the person with this number, in any spelling, or - to read it from the "
            "input: cancel what waits, blank what is finished, however new, and its histories",
        )
        parser.add_argument(
            "--by",
            metavar="NAME",
            help="who erases, for the record; by default the user of the operating system",
        )
        parser.add_argument("--dry-run", action="store_true", help="count, change nothing")

    def handle(self, **options: Any) -> None:
        if options["number"] is not None:
            self._erase(options)
            return
        if options["by"] is not None:
            raise CommandError("--by is for the record of an erasure. Give --number, too.")
        before = _time_before(options["keep"])
        require_tables()
        way = conf.prune()
        dry_run: bool = options["dry_run"]
        done = kept = 0
        for number, left in retention.WAYS[way](before, dry_run=dry_run):
            done += number
            kept += left
        day = f"{local(before):%Y-%m-%d %H:%M}"
        verb = VERBS[way][dry_run]
        self.stdout.write(f"{verb} {done} messages that were finished before {day}.")
        if kept:
            self.stdout.write(f"Kept {kept} that other rows point to.")
        if received := sum(retention.end_old_received(way, before, dry_run=dry_run)):
            self.stdout.write(f"{verb} {received} messages that were received before {day}.")
        if not dry_run:
            retention.blank_old_mailings(before)
            retention.delete_old_limits()
            daily_counts.catch_up()

    def _erase(self, options: dict[str, Any]) -> None:
        if options["keep"] is not None:
            raise CommandError("--number erases messages of any age. Leave --keep out.")
        require_tables()
        dry_run: bool = options["dry_run"]
        try:
            number = normalize(given_number(options["number"]))
            by = _user() if options["by"] is None else options["by"]
            erasure = personal_data.erase(number, by=by, dry_run=dry_run)
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        self._print(mask(number), erasure, VERBS["blank"][dry_run])

    def _print(self, masked: str, erasure: SmsErasure, verb: str) -> None:
        details = erasure.details
        self.stdout.write(
            f"{masked}: {verb} {erasure.messages} messages, {details['cancelled']} of them queued "
            f"or drafts until now, {details['received']} received ones, and "
            f"{details['do_not_send']} entries of the do-not-send list."
        )
        is_dry = erasure.pk is None
        for label, number in sorted(details.get("deleted", {}).items()):
            self.stdout.write(f"{VERBS['delete'][is_dry]} {number} of {label}.")
        for label, keys in sorted(details.get("changed", {}).items()):
            words = f"{REPLACED[is_dry]} {len(keys)} of {label}: {_listed(keys)}."
            self.stdout.write(f"{words} {NOTES.get(label, '')}".rstrip())
        for status, number in sorted(details["kept"].items()):
            why = KEPT.get(Status(status), BEING_SENT)
            self.stdout.write(f"Kept {number} {status} messages: they {why}")
        if erasure.pk is not None:
            at = f"{local(erasure.erased_at):%Y-%m-%d %H:%M:%S}"
            by = f" by {erasure.erased_by}" if erasure.erased_by else ""
            self.stdout.write(f"Erasure {erasure.pk}, {at}{by}, hash {erasure.number_hash}")


def _listed(keys: list[Any]) -> str:
    shown = ", ".join(str(key) for key in keys[:MAX_KEYS])
    return f"{shown} and {len(keys) - MAX_KEYS} more" if len(keys) > MAX_KEYS else shown


def _user() -> str:
    try:
        return getpass.getuser()
    except Exception:  # what it raises without a user differs by the version of Python
        return ""


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

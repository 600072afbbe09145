"""``manage.py sms_stop``: stops sending, and resumes it."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from django_smska import kill_switch
from django_smska.management.tables import DatabaseCommand, require_tables
from django_smska.models import provider_states, rows
from django_smska.providers import providers
from django_smska.states import Status

BY = "manage.py sms_stop"


class Command(DatabaseCommand):
    help = (
        "Stops sending through one provider, or through every provider, for all processes; the "
        "queue stays whole. Requests in flight end normally. With --resume it ends the stop."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--using", metavar="ALIAS", help="only this provider")
        parser.add_argument("--resume", action="store_true", help="end the stop")

    def handle(self, **options: Any) -> None:
        require_tables()
        alias = options["using"] or kill_switch.EVERY
        _require_known(alias)
        name = "every provider" if alias == kill_switch.EVERY else alias
        if options["resume"]:
            changed = kill_switch.resume(alias)
            self.stdout.write(f"{name}: {'the stop is ended' if changed else 'was not stopped'}.")
            self._say_what_is_left()
        else:
            changed = kill_switch.stop(alias, by=BY)
            queued = rows().filter(status=Status.QUEUED)
            waiting = queued if alias == kill_switch.EVERY else queued.filter(using=alias)
            words = "stopped" if changed else "was stopped already"
            self.stdout.write(f"{name}: {words}. {waiting.count()} messages wait in the queue.")

    def _say_what_is_left(self) -> None:
        """Say what is stopped still, and how to end that."""
        for alias, row in kill_switch.stops().items():
            name = "Every provider" if alias == kill_switch.EVERY else alias
            if row is None:
                self.stdout.write(f"{name} is still stopped by SMSKA_STOPPED in the settings.")
            else:
                using = "" if alias == kill_switch.EVERY else f"--using {alias} "
                fix = f"run manage.py sms_stop {using}--resume"
                self.stdout.write(f"{name} is still stopped by {row.stopped_by}: {fix}.")


def _require_known(alias: str) -> None:
    """Refuse a misspelt alias, which would stop nothing. A stop may be older than the settings."""
    known = alias == kill_switch.EVERY or alias in providers
    if not known and not provider_states().filter(alias=alias).exists():
        names = ", ".join(providers) or "none"
        raise CommandError(f"The SMS provider {alias!r} is not configured. Known: {names}.")

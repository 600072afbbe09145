"""``manage.py sms_status``: what is queued, held and failing, for people and monitoring."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError

from django_smska import provider_status
from django_smska.management.tables import DatabaseCommand, require_tables, unit_of_balance
from django_smska.provider_status import MAX_AGE_SECONDS, ProviderStatus
from django_smska.times import local


class Command(DatabaseCommand):
    help = (
        "Prints for each provider what is queued and for how long, what is stuck past its lease, "
        "which messages need attention, whether it is paused or stopped, what is held until a "
        "person decides, and its last known balance. "
        "Queries no gateway. Exits with 1 if something needs attention."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument(
            "--max-age",
            type=float,
            default=MAX_AGE_SECONDS,
            metavar="SECONDS",
            help="a message that is due for longer needs attention "
            f"(default: {MAX_AGE_SECONDS:.0f})",
        )

    def handle(self, **options: Any) -> None:
        if not options["max_age"] >= 0:
            raise CommandError("--max-age must be a number of seconds, 0 or more.")
        require_tables()
        max_age, found = options["max_age"], provider_status.read()
        if options["json"]:
            facts = {one.alias: _fact(one, max_age) for one in found}
            self.stdout.write(json.dumps(facts, ensure_ascii=False))
        else:
            for one in found:
                self.stdout.write(f"{one.alias}: {_in_words(one, max_age)}")
        failing = [one.alias for one in found if one.problems(max_age)]
        if failing:
            raise CommandError(f"Needs attention: {', '.join(failing)}.")


def _fact(one: ProviderStatus, max_age: float) -> dict[str, Any]:
    """Return what ``--json`` prints of a provider."""
    fact = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in asdict(one).items()
        if name not in ("alias", "read_at")
    }
    fact["balance"] = _number(one)
    fact["problems"] = [problem.text for problem in one.problems(max_age)]
    return fact


def _number(one: ProviderStatus) -> str | None:
    return None if one.balance is None else f"{one.balance.normalize():f}"


def _balance(one: ProviderStatus) -> str:
    number = _number(one)
    return "not known" if number is None else f"{number} {unit_of_balance(one.alias)}"


def _in_words(one: ProviderStatus, max_age: float) -> str:
    oldest = one.oldest_due_seconds
    words = [
        f"{one.queued} queued"
        + (f", {one.due} of them due, the oldest for {oldest} s" if one.due else ""),
        f"{one.past_lease} stuck past their lease",
        f"{one.unknown} unknown",
        f"{one.needs_attention} need attention",
        f"{one.segments_today} segments today",
        f"balance {_balance(one)}",
        f"worker seen {_time(one.worker_seen_at)}",
        *(["\n  no worker is running: run manage.py sms_worker"] if one.lacks_worker else []),
        *(f"\n  {problem.text}" for problem in one.problems(max_age)),
    ]
    return "; ".join(words).replace("; \n", "\n")


def _time(moment: datetime | None) -> str:
    return f"{local(moment):%Y-%m-%d %H:%M:%S}" if moment else "never"

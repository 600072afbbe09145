"""``manage.py sms_status``: what is queued, held and failing, for people and monitoring."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError

from django_smska import circuit_breaker, clock
from django_smska.management.tables import DatabaseCommand, require_tables
from django_smska.models import rows
from django_smska.sms import providers
from django_smska.states import Status
from django_smska.times import local


class Command(DatabaseCommand):
    help = (
        "Prints for each provider what is queued and for how long, what is held past its lease, "
        "which messages need attention, whether it is paused, and its last known balance. "
        "Queries no gateway. Exits with 1 if something needs attention."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument(
            "--max-age",
            type=float,
            default=900,
            metavar="SECONDS",
            help="a message that is due for longer needs attention (default: 900)",
        )

    def handle(self, **options: Any) -> None:
        if not options["max_age"] >= 0:
            raise CommandError("--max-age must be a number of seconds, 0 or more.")
        require_tables()
        aliases = sorted({*providers, *_aliases_in_use()})
        facts = {alias: _facts(alias, clock.now()) for alias in aliases}
        for fact in facts.values():
            fact["problems"] = _problems(fact, options["max_age"])
        if options["json"]:
            self.stdout.write(json.dumps(facts, ensure_ascii=False))
        else:
            for alias, fact in facts.items():
                self.stdout.write(f"{alias}: {_in_words(fact)}")
        failing = [alias for alias, fact in facts.items() if fact["problems"]]
        if failing:
            raise CommandError(f"Needs attention: {', '.join(failing)}.")


def _aliases_in_use() -> list[str]:
    """Return aliases with queued messages, also ones that are not in the settings."""
    queued = rows().filter(status=Status.QUEUED).order_by()
    return list(queued.values_list("using", flat=True).distinct())


def _facts(alias: str, now: datetime) -> dict[str, Any]:
    mine, state = rows().filter(using=alias), circuit_breaker.state_of(alias)
    due = mine.due(now)
    oldest = due.order_by("send_after").values_list("send_after", flat=True).first()
    return {
        "configured": alias in providers,
        "queued": mine.filter(status=Status.QUEUED).count(),
        "due": due.count(),
        "oldest_due_seconds": round((now - oldest).total_seconds()) if oldest else None,
        "past_lease": mine.stale(now).count(),
        "unknown": mine.filter(status=Status.UNKNOWN, resent_as=None).count(),
        "needs_attention": len(mine.needing_attention(now)),
        "paused": state.reason if state.is_paused else None,
        "paused_detail": state.detail if state.is_paused else None,
        "balance": None if state.balance is None else f"{state.balance.normalize():f}",
        "balance_at": state.balance_at and state.balance_at.isoformat(),
        "worker_seen_at": state.worker_seen_at and state.worker_seen_at.isoformat(),
        "no_worker": circuit_breaker.has_no_worker(state),
    }


def _problems(fact: dict[str, Any], max_age: float) -> list[str]:
    found = {
        "queued messages have a provider that is not in SMS_PROVIDERS": not fact["configured"],
        f"paused ({fact['paused']}): {fact['paused_detail']}": fact["paused"],
        "messages wait too long; check that sms_worker is running": (
            fact["oldest_due_seconds"] or 0
        )
        > max_age,
        "messages are held past their lease; check that sms_worker is running": fact["past_lease"],
        "messages need attention; see “needs attention” in the admin": fact["needs_attention"],
    }
    return [words for words, holds in found.items() if holds]


def _in_words(fact: dict[str, Any]) -> str:
    oldest = fact["oldest_due_seconds"]
    words = [
        f"{fact['queued']} queued"
        + (f", {fact['due']} of them due, the oldest for {oldest} s" if fact["due"] else ""),
        f"{fact['past_lease']} held past their lease",
        f"{fact['unknown']} unknown",
        f"{fact['needs_attention']} need attention",
        f"balance {fact['balance'] or 'not known'}",
        f"worker seen {_time(fact['worker_seen_at'])}",
        *(["\n  no worker is running: run manage.py sms_worker"] if _lacks_worker(fact) else []),
        *(f"\n  {problem}" for problem in fact["problems"]),
    ]
    return "; ".join(words).replace("; \n", "\n")


def _lacks_worker(fact: dict[str, Any]) -> bool:
    """Return whether messages wait for a worker. That alone is no problem: cron may start one."""
    return bool(fact["due"] and fact["no_worker"] and fact["configured"])


def _time(iso: str | None) -> str:
    return f"{local(datetime.fromisoformat(iso)):%Y-%m-%d %H:%M:%S}" if iso else "never"

"""``manage.py sms_balance``: the balances at the gateways, for people and monitoring."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from django_smska import checked_backend, circuit_breaker, conf
from django_smska.circuit_breaker import Finding
from django_smska.exceptions import ErrorKind, InvalidProvider, SmsError
from django_smska.management.tables import unit_of_balance
from django_smska.sms import providers

EMPTY = "still paused, because the account is empty"
TRIED = "still paused, because only a message shows that it works; the next one tries it"
#: In the texts of errors about a message; here none was to be sent.
NOTHING_SENT = " Nothing was sent."


class Command(BaseCommand):
    help = (
        "Queries the balance of each provider. A good answer lets a paused provider send again, "
        "and so does the command itself where a paused provider has no balance. After unknown "
        "outcomes and failures of a backend's code it lets the next message try. Exits with 1 if a "
        "provider gives no balance, or has less than --min."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--using", metavar="ALIAS", help="only this provider of SMS_PROVIDERS")
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument("--min", metavar="N", help="exit with 1 if a balance is below N")

    def handle(self, **options: Any) -> None:
        least = _amount(options["min"])
        if conf.sends_nothing():
            raise CommandError(
                f"{conf.TEST_RUN} is set, as in tests: no gateway is queried, and no pause "
                f"is ended. Remove {conf.TEST_RUN} from the environment."
            )
        answers = {alias: _ask(alias, least) for alias in _aliases(options["using"])}
        if options["json"]:
            self.stdout.write(json.dumps(answers, ensure_ascii=False))
        else:
            for alias, answer in answers.items():
                words = _in_words(alias, answer).removeprefix(f"SMS_PROVIDERS[{alias!r}]: ")
                self.stdout.write(f"{alias}: {words}")
        self._complain(answers, least)

    def _complain(self, answers: dict[str, dict[str, Any]], least: Decimal | None) -> None:
        """Exit with 1 if there is a problem."""
        low = [alias for alias, answer in answers.items() if answer.get("low")]
        mute = [alias for alias, answer in answers.items() if "error" in answer]
        problems: list[str] = []
        if low:
            problems.append(f"Below {least}: {', '.join(low)}. Top up the account.")
        if mute:
            problems.append(f"No balance from: {', '.join(mute)}.")
        if problems:
            raise CommandError(" ".join(problems))


def _amount(text: str | Decimal | None) -> Decimal | None:
    if text is None:
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite():
        raise CommandError(f"--min {text} is not a number. Write it like 100 or 99.50.")
    return amount


def _aliases(using: str | None) -> list[str]:
    """Return the providers to query, also one that cannot be made, so that the output says why, and
    one without a balance whose pause is to end."""
    if using is not None:
        try:
            backend = checked_backend.provider(using)
        except InvalidProvider as error:
            raise CommandError(str(error)) from None
        if not (backend.has_balance or _is_paused(using)):
            raise CommandError(f"The provider {using!r} has no balance.")
        return [using]
    aliases = [alias for alias in providers if _may_have_balance(alias) or _is_paused(alias)]
    if not aliases:
        raise CommandError("No provider in SMS_PROVIDERS has a balance.")
    return aliases


def _may_have_balance(alias: str) -> bool:
    try:
        return checked_backend.provider(alias).has_balance
    except InvalidProvider:
        return True


def _is_paused(alias: str) -> bool:
    try:
        return circuit_breaker.state_of(alias).is_paused
    except DatabaseError:
        return False


def _ask(alias: str, least: Decimal | None) -> dict[str, Any]:
    """Return ``balance`` or ``error``, and what follows from it."""
    try:
        backend = checked_backend.provider(alias)
        balance = circuit_breaker.ask(backend)
    except (SmsError, InvalidProvider) as error:
        return {"error": str(error).replace(NOTHING_SENT, "")}
    answer: dict[str, Any] = {} if balance is None else {"balance": f"{balance:f}"}
    if balance is not None and least is not None:
        answer["low"] = balance < least
    return answer | _keep(alias, balance)


def _keep(alias: str, balance: Decimal | None) -> dict[str, Any]:
    """Store the balance, and return what it shows about a pause."""
    try:
        shown = circuit_breaker.settle(alias, balance)
        reason = circuit_breaker.state_of(alias).reason
    except DatabaseError as error:
        fix = "Run 'manage.py migrate', or check that the database can be reached."
        return {"not_stored": f"{type(error).__name__}. {fix}"}
    if shown is None:
        return {}
    return {"opened_again": True} if shown is Finding.OVER else {"paused": reason}


def _in_words(alias: str, answer: dict[str, Any]) -> str:
    if "error" in answer:
        return str(answer["error"])
    words = [
        f"{answer['balance']} {unit_of_balance(alias)}" if "balance" in answer else "has no balance"
    ]
    if answer.get("paused"):
        words.append(EMPTY if answer["paused"] == ErrorKind.FUNDS else TRIED)
    if answer.get("opened_again"):
        words.append("was paused and sends again")
    if answer.get("not_stored"):
        words.append(f"not stored: {answer['not_stored']}")
    return "; ".join(words)

"""What the commands that need the database have in common."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections

from django_smska import conf, pricing
from django_smska.checks import missing_tables
from django_smska.models import write_db
from django_smska.receipts import MONEY
from django_smska.sending import UNAVAILABLE

UNITS = {MONEY: "in the account's currency", "": "(unit not known)"}


class DatabaseCommand(BaseCommand):
    """A command that ends with one line where the database is away."""

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except UNAVAILABLE as error:
            raise CommandError(f"{away(error)} Run this again when it can be reached.") from error


def unit_of_balance(alias: str) -> str:
    """Return the word for what a balance counts. A currency may stand in the database alone."""
    try:
        unit = pricing.unit_of_balance(alias)
    except DatabaseError:
        unit = MONEY
    return UNITS.get(unit, unit)


def given_number(argument: str) -> str:
    """Return the number that a command was given. ``-`` stands for a line of its input, because all
    users of a machine see the arguments of its processes."""
    return sys.stdin.readline() if argument == "-" else argument


def away(error: Exception) -> str:
    """Return the error's class only, because its text may hold values of the query."""
    return f"The database cannot be reached or is busy ({type(error).__name__})."


def note_of_test_run() -> str:
    """Return what a command says that would send, where nothing leaves; "" where it does."""
    if not conf.sends_nothing():
        return ""
    return f"{conf.TEST_RUN} is set, as in tests: messages are kept in memory and not sent."


def require_tables() -> None:
    """Raise ``CommandError`` that says what to run where ``migrate`` was forgotten."""
    connection = connections[write_db()]
    missing = missing_tables(connection)
    if missing:
        raise CommandError(
            f"The database {connection.alias!r} has no table {missing[0]}. Run 'manage.py migrate'."
        )

"""Transactions that the database has rolled back in favour of others: they are run again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.db import OperationalError, connections

from .models import write_db

_T = TypeVar("_T")

MAX_CONFLICTS = 5
#: A deadlock, or a row that has changed since it was read: of PostgreSQL, and of MariaDB.
CONFLICTS = {"40P01", "40001", 1213, 1020}


def repeat_conflicts(operation: Callable[[], _T]) -> _T:
    """Run it again where the database has rolled it back in favour of another transaction.

    Inside a transaction of the caller, which is rolled back as a whole, it is run once.
    """
    for _ in range(MAX_CONFLICTS):
        try:
            return operation()
        except OperationalError as error:
            if in_atomic_block() or not _is_conflict(error):
                raise
    return operation()


def _is_conflict(error: OperationalError) -> bool:
    cause: Any = error.__cause__
    code = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return bool({code, *getattr(cause, "args", ())[:1]} & CONFLICTS)


def in_atomic_block() -> bool:
    """Return whether a transaction is open on the messages' database."""
    return connections[write_db()].in_atomic_block

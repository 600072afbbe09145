"""Work on a connection of its own: its commits are none of the caller's open transaction."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from contextvars import copy_context
from typing import Any, TypeVar

from django.db import connections, transaction
from django.utils import timezone, translation

from .models import write_db

_T = TypeVar("_T")

#: How long it waits for a row that another transaction has locked. The caller's own may have: it
#: ends only when the work has, and no database would see that the two wait for each other.
MAX_LOCK_SECONDS = 3
LOCKING = ("SELECT", "INSERT", "UPDATE", "DELETE")


def is_needed() -> bool:
    """Return whether a transaction is open on the messages' database, and another connection would
    see that database at work.

    SQLite has one lock for all, and what a test's own transaction holds is seen by it alone.
    """
    connection = connections[write_db()]
    blocks: Any = connection.atomic_blocks
    in_test = any(block._from_testcase for block in blocks)
    return connection.in_atomic_block and connection.vendor != "sqlite" and not in_test


def run(work: Callable[[], _T]) -> _T:
    """Do it in a thread, because a connection belongs to one; return or raise what it does.

    Context variables, language and time zone are the caller's. Whatever interrupts the caller, the
    work is done first.
    """
    # Django keeps these two by thread.
    language, zone = translation.get_language(), timezone.get_current_timezone()

    def as_the_caller() -> _T:
        with translation.override(language), timezone.override(zone):
            return _with_connection(work)

    with ThreadPoolExecutor(1, "smska-own-connection") as threads:
        return threads.submit(copy_context().run, as_the_caller).result()


def _with_connection(work: Callable[[], _T]) -> _T:
    try:
        with ExitStack() as limits:
            for connection in connections.all():  # receivers of signals may use another database
                limits.enter_context(connection.execute_wrapper(_wait_briefly))
            return work()
    finally:
        connections.close_all()


def _wait_briefly(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
    """Run a query with a limit for locks that ends with it: one of the session would go on in a
    pool, and behind PgBouncer it would be another client's."""
    connection = context["connection"]
    if not sql.startswith(LOCKING):
        return execute(sql, params, many, context)
    if connection.vendor == "mysql":
        sql = f"SET STATEMENT innodb_lock_wait_timeout = {MAX_LOCK_SECONDS} FOR {sql}"
        return execute(sql, params, many, context)
    if connection.vendor != "postgresql":
        return execute(sql, params, many, context)
    if not connection.in_atomic_block:
        with transaction.atomic(using=connection.alias):
            return _wait_briefly(execute, sql, params, many, context)
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{MAX_LOCK_SECONDS}s'")
    return execute(sql, params, many, context)

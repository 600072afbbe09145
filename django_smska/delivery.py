"""Query delivery reports, apply them, stop querying."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from operator import attrgetter, itemgetter
from typing import Any, TypeVar

from django.db import transaction
from django.db.models import F

from . import checked_backend, circuit_breaker, clock, conf, states
from .batch_update import per_row
from .checked_backend import CheckedBackend
from .exceptions import ErrorKind, InvalidProvider, SmsError
from .models import SmsMessage, SmsMessageQuerySet, rows, write_db
from .providers import providers
from .receipts import Report
from .sending import announce, grouped, in_transaction, move, reread
from .states import Status

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
RETRY_QUERY_IN = timedelta(minutes=1)  # the wait where a status query was not made
BATCH_MESSAGES = 500  # the most messages held in memory at once
CONCURRENT_QUERIES = 8  # the default number in flight at once


def refresh_one(message: SmsMessage) -> None:
    """Query one message's report and show it on the message. Raises ``SmsError`` without one.

    Only a *sent* message with a gateway id can be queried; any other is just read again.
    """
    message.refresh_from_db(using=write_db())
    if not _can_be_queried(message):
        return
    backend = _backend(message.using)
    if backend.gives_reports:
        with backend:
            apply([(message, backend.get_status(message))])


def refresh(messages: Iterable[SmsMessage]) -> dict[str, int]:
    """Query the reports of many messages; return how many now have which status.

    A status query without an answer changes nothing and is logged; an error that concerns the whole
    provider ends its status queries.
    """
    keys = [message.pk for message in messages]
    statuses: Counter[str] = Counter()
    for part in _parts(keys, BATCH_MESSAGES):
        for alias, group in grouped(rows(part), attrgetter("using")).items():
            _query_group(alias, group, CONCURRENT_QUERIES, lambda: False)
            statuses.update(message.status for message in group)
    return {str(status): number for status, number in statuses.items()}


# --- what follows from a report -------------------------------------------------------------------


def apply(answers: list[tuple[SmsMessage, Report]]) -> None:
    """Store reports, in one UPDATE for all that say the same. A final status never moves; unknown
    texts change nothing."""
    for report, pairs in grouped(answers, itemgetter(1)).items():
        group = [message for message, _ in pairs]
        if report.status and Status(report.status) in states.FINAL:
            end(group, Status(report.status), gateway_status=report.raw)
        else:
            _keep_raw_status(group, report.raw)
    give_up(message for message, _ in answers)


def end(messages: list[SmsMessage], status: Status, **changes: Any) -> None:
    """Move sent messages to their last status."""
    changes |= {"finished_at": clock.now(), "next_status_at": None}
    ours = rows(message.pk for message in messages)
    winners = {message.pk for message in messages}
    if move(ours, [Status.SENT], status, **changes) < len(winners):
        ended = ours.filter(status=status, finished_at=changes["finished_at"])
        winners = set(ended.values_list("pk", flat=True))
    for message in messages:
        if message.pk in winners:
            for name, value in {"status": status, **changes}.items():
                setattr(message, name, value)
            announce(message, Status.SENT)
        else:
            reread(message)


def _keep_raw_status(messages: list[SmsMessage], raw: str) -> None:
    news = [message for message in messages if message.gateway_status != raw]
    if news:
        rows(message.pk for message in news).filter(status=Status.SENT).update(gateway_status=raw)
    for message in news:
        message.gateway_status = raw


def give_up(messages: Iterable[SmsMessage]) -> None:
    """Mark messages as *unconfirmed* whose window for a final report has passed."""
    oldest = clock.now() - conf.status_window()
    late = [
        message
        for message in messages
        if message.status == Status.SENT and message.sent_at and message.sent_at <= oldest
    ]
    if late:
        end(late, Status.UNCONFIRMED)


# --- status queries that are due ------------------------------------------------------------------


def query_due(
    using: str | None = None,
    *,
    limit: int,
    width: int = CONCURRENT_QUERIES,
    stopping: Callable[[], bool] = lambda: False,
) -> int:
    """Make the status queries that are due, at most ``limit`` and until ``stopping()``, with
    ``width`` in flight at once; return how many were due. The rest is made next time."""
    due = take_due(using, limit=limit)
    for alias, group in grouped(due, attrgetter("using")).items():
        _put_back(_query_group(alias, group, width, stopping))
        give_up(group)
    return len(due)


def query_soon(messages: SmsMessageQuerySet) -> int:
    """Let the workers query these on their next pass; return how many they will."""
    waiting = messages.filter(status=Status.SENT, next_status_at__isnull=False)
    return waiting.update(next_status_at=clock.now())


def take_due(using: str | None = None, *, limit: int) -> list[SmsMessage]:
    """Postpone the next status query of messages whose query is due, so that only one of several
    workers makes it; return them."""
    now = clock.now()
    due = rows().awaiting_report(now).exclude(using__in=circuit_breaker.paused())
    if using is not None:
        due = due.filter(using=using)
    found = list(due[:limit])
    if not found:
        return []
    later = {message.pk: now + _wait(message) for message in found}
    ours = rows(later).awaiting_report(now).order_by()
    moved = ours.update(
        next_status_at=per_row("next_status_at", later), status_queries=F("status_queries") + 1
    )
    if moved < len(found):
        # Another worker may have some. The times are drawn, so they show which worker wrote them.
        stored = dict(rows(later).values_list("pk", "next_status_at"))
        found = [message for message in found if stored.get(message.pk) == later[message.pk]]
    return found


def _put_back(not_queried: list[SmsMessage]) -> None:
    """Make messages due again soon whose status query was not made, and do not count it."""
    rows(message.pk for message in not_queried).filter(status=Status.SENT).update(
        next_status_at=clock.now() + RETRY_QUERY_IN, status_queries=F("status_queries") - 1
    )


def _wait(message: SmsMessage) -> timedelta:
    seconds = states.next_query_in(message.status_queries + 1) * random.uniform(0.9, 1.1)
    return timedelta(seconds=seconds)


# --- status queries -------------------------------------------------------------------------------


def _can_be_queried(message: SmsMessage) -> bool:
    """Return whether a gateway can be queried about this message."""
    return bool(message.status == Status.SENT and message.gateway_id and message.using in providers)


def _query_group(
    alias: str, messages: list[SmsMessage], width: int, stopping: Callable[[], bool]
) -> list[SmsMessage]:
    """Query those messages of one provider that can be queried, and store the answers; return
    those that were not queried."""
    queryable = [message for message in messages if _can_be_queried(message)]
    if not queryable:
        return []
    try:
        backend = _backend(alias)
        if not backend.gives_reports:
            return []
        with backend, ThreadPoolExecutor(min(width, len(queryable))) as pool:
            queries = _StatusQueries(backend, stopping)
            # The first alone: a wrong login, or a gateway that hangs, is not to be tried by all.
            for part in [queryable[:1], *_parts(queryable[1:], width)]:
                apply([pair for pair in pool.map(queries.query, part) if pair is not None])
    except InvalidProvider as error:
        logger.error("%s", error)
        return []
    except SmsError as error:  # it could not be opened
        logger.error("%s", error)
        circuit_breaker.note_error(alias, error)
        return queryable
    if queries.error is not None and queries.error.kind in states.STOPPING_KINDS:
        circuit_breaker.note_error(alias, queries.error)
    return [message for message in queryable if message.pk not in queries.queried]


def _parts(whole: list[_T], size: int) -> list[list[_T]]:
    return [whole[start : start + size] for start in range(0, len(whole), size)]


class _StatusQueries:
    """Queries the gateway in the threads, and never the database, until something ends it."""

    def __init__(self, backend: CheckedBackend, stopping: Callable[[], bool]) -> None:
        self.backend, self.stopping = backend, stopping
        self.error: SmsError | None = None  # that ends them
        self.queried: set[Any] = set()

    def query(self, message: SmsMessage) -> tuple[SmsMessage, Report] | None:
        if self.error is not None or self.stopping():
            return None
        self.queried.add(message.pk)
        try:
            return message, self.backend.get_status(message)
        except SmsError as error:
            logger.warning("no report for message %s: %s", message.pk, error)
            silent = not error.gateway_text and error.kind != ErrorKind.BROKEN
            if error.kind in states.STOPPING_KINDS or silent:  # also where no answer came at all
                self.error = error
        except BaseException as error:  # such as SystemExit: it ends the queries, not the worker
            self.error = self.backend.no_answer(error, "get_status")
        return None


def _backend(alias: str) -> CheckedBackend:
    backend = checked_backend.provider(alias)
    if backend.uses_network and in_transaction():
        raise transaction.TransactionManagementError(
            "A delivery report is queried over the network, which must not be waited for inside a "
            "transaction. Call refresh_status() outside of atomic()."
        )
    return backend

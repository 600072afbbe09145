"""Delivery reports: query them, apply them, stop querying; and ask for what is *unknown*."""

from __future__ import annotations

import logging
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple, TypeVar

from django.db import transaction
from django.db.models import F

from . import (
    checked_backend,
    circuit_breaker,
    clock,
    conf,
    daily_counts,
    database_slots,
    log_fields,
    states,
)
from .batch_update import per_row
from .checked_backend import CheckedBackend
from .exceptions import ErrorKind, InvalidProvider, SmsError
from .models import Proof, SmsMessage, SmsMessageQuerySet, rows, write_db
from .providers import providers
from .receipts import Report
from .redact import WITHHELD
from .sending import (
    announce,
    apply_reported,
    grouped,
    in_transaction,
    move,
    price_fields,
    prove_sent,
    reread,
)
from .states import Status

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
RETRY_QUERY_IN = timedelta(minutes=1)  # the wait where a status query was not made
BATCH_MESSAGES = 500  # the most messages held in memory at once
CONCURRENT_QUERIES = 8  # the default number in flight at once


def refresh_one(message: SmsMessage) -> None:
    """Query one message's report and show it on the message. Raises ``SmsError`` without one.

    Only a *sent* message with a gateway id can be queried, and an *unknown* one whose provider can
    be asked for it; any other is just read again.
    """
    message.refresh_from_db(using=write_db())
    for query in (REPORTS, PROOFS):
        if query.concerns(message):
            backend = _backend(message.using)
            if query.is_answered_by(backend):
                with database_slots.released(), backend:
                    report = query.ask(backend, message)
                query.apply([(message, report)])


def refresh(messages: Iterable[SmsMessage]) -> dict[str, int]:
    """Query the reports of many messages; return how many now have which status.

    A status query without an answer changes nothing and is logged; an error that concerns the whole
    provider ends its status queries.
    """
    keys = [message.pk for message in messages]
    statuses: Counter[str] = Counter()
    for part in _parts(keys, BATCH_MESSAGES):
        for alias, group in grouped(rows(part), attrgetter("using")).items():
            for query in (REPORTS, PROOFS):
                _query_group(query, alias, group, CONCURRENT_QUERIES, lambda: False)
            statuses.update(message.status for message in group)
    return {str(status): number for status, number in statuses.items()}


# --- what follows from a report -------------------------------------------------------------------


def apply(answers: list[tuple[SmsMessage, Report]]) -> None:
    """Store reports, in one UPDATE for all that say the same. A final status never moves; unknown
    texts change nothing."""
    answers = [(message, without_text(message, report)) for message, report in answers]
    for report, pairs in grouped(answers, itemgetter(1)).items():
        group = [message for message, _ in pairs]
        keep_price(group, report)
        if report.status and Status(report.status) in states.FINAL:
            end(group, Status(report.status), gateway_status=report.raw)
        else:
            _keep_raw_status(group, report.raw)
    give_up(message for message, _ in answers)


#: ``4|DELIVRD``, ``5|DELIVERED_TO_HANDSET``, ``30007|undelivered``.
_STATUS_ONLY = re.compile(
    r"[0-9]{0,5}\|?(?:[A-Z_]{0,32}|sent|sending|queued|delivered|undelivered|read|failed|canceled)"
)


def without_text(message: SmsMessage, report: Report) -> Report:
    """Return the report without what may be a piece of a sensitive text, which is wiped by now, so
    that there is nothing to compare with."""
    if not message.sensitive or _STATUS_ONLY.fullmatch(report.raw):
        return report
    return replace(report, raw=WITHHELD)


def keep_price(messages: list[SmsMessage], report: Report) -> None:
    """Store what the report says about the price; a receipt may have said it before."""
    if report.price is None and report.segments is None:
        return
    said = {name: value for name, value in price_fields(report).items() if value not in (None, "")}
    rows(message.pk for message in messages).update(**said)
    for message in messages:
        for name, value in said.items():
            setattr(message, name, value)
    if late := [message.created_at for message in messages if message.status in states.FINAL]:
        daily_counts.reopen(late)


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
    for message in due:
        if message.reported_status:  # the process stopped that was about to apply it
            apply_reported(message)
    for alias, group in grouped(due, attrgetter("using")).items():
        _put_back(_query_group(REPORTS, alias, group, width, stopping), Status.SENT)
        give_up(group)
    return len(due)


def ask_due(
    using: str | None = None,
    *,
    limit: int,
    width: int = CONCURRENT_QUERIES,
    stopping: Callable[[], bool] = lambda: False,
) -> int:
    """Ask for *unknown* messages of which it is time to ask, like :func:`query_due`; return how
    many those were."""
    now = clock.now()
    # Lost answers are why it may be paused, and what it knows of them ends that.
    paused = circuit_breaker.paused(but_for=states.HANGING)
    found = _due(rows().awaiting_proof(now).exclude(using__in=paused), using, limit)
    due = _postpone(found, rows().awaiting_proof(now), _next_question)
    for alias, group in grouped(due, attrgetter("using")).items():
        _put_back(_query_group(PROOFS, alias, group, width, stopping), Status.UNKNOWN)
    return len(due)


def _next_question(message: SmsMessage) -> datetime | None:
    seconds = states.next_question_in(message.status_queries + 1)
    return None if seconds is None else clock.now() + timedelta(seconds=seconds)


def query_soon(messages: SmsMessageQuerySet) -> int:
    """Let the workers query these on their next pass; return how many they will."""
    waiting = messages.filter(status=Status.SENT, next_status_at__isnull=False)
    return waiting.update(next_status_at=clock.now())


def take_due(using: str | None = None, *, limit: int) -> list[SmsMessage]:
    """Postpone the next status query of messages whose query is due, so that only one of several
    workers makes it; return them."""
    now = clock.now()
    due = rows().awaiting_report(now).exclude(using__in=circuit_breaker.paused())
    found = _due(due, using, limit)
    return _postpone(found, rows().awaiting_report(now), lambda message: now + _wait(message))


def _due(messages: SmsMessageQuerySet, using: str | None, limit: int) -> list[SmsMessage]:
    return list((messages if using is None else messages.filter(using=using))[:limit])


def _postpone(
    found: list[SmsMessage],
    due: SmsMessageQuerySet,
    next_at: Callable[[SmsMessage], datetime | None],
) -> list[SmsMessage]:
    """Set the time of the next query of those of these messages that are still due; return them."""
    if not found:
        return []
    later = {message.pk: next_at(message) for message in found}
    ours = due.filter(pk__in=list(later)).order_by()
    moved = ours.update(
        next_status_at=per_row("next_status_at", later), status_queries=F("status_queries") + 1
    )
    if moved < len(found):
        # Another worker may have some. The times are drawn, so they show which worker wrote them.
        stored = dict(rows(later).values_list("pk", "next_status_at"))
        found = [message for message in found if stored.get(message.pk) == later[message.pk]]
    return found


def _put_back(not_queried: list[SmsMessage], status: Status) -> None:
    """Make messages due again soon whose status query was not made, and do not count it."""
    rows(message.pk for message in not_queried).filter(status=status).update(
        next_status_at=clock.now() + RETRY_QUERY_IN, status_queries=F("status_queries") - 1
    )


def _wait(message: SmsMessage) -> timedelta:
    pushed = checked_backend.traits(message.using).pushed
    seconds = states.next_query_in(message.status_queries + 1, pushed=pushed)
    return timedelta(seconds=seconds * random.uniform(0.9, 1.1))


# --- queries --------------------------------------------------------------------------------------


def prove(answers: list[tuple[SmsMessage, Report | None]]) -> None:
    """Move *unknown* messages to *sent* that the provider knows, and apply what it says of them.
    That it does not know the others proves nothing: it may have learned of them too late."""
    for message, report in answers:
        if report is not None:
            prove_by(Proof.ANSWER, message, report)


def prove_by(proof: Proof, message: SmsMessage, report: Report) -> bool:
    """Move an *unknown* message to *sent*, because of this answer or report, and apply it; return
    False where it is not unknown any more."""
    known = {"using": report.alias or message.using}
    if report.gateway_id:
        known["gateway_id"] = report.gateway_id
        # Another alias may be of the same account, whose messages a search finds, too.
        where = {"gateway_id": report.gateway_id} if proof == Proof.ANSWER else known
        if rows().filter(**where).exclude(pk=message.pk).exists():
            words = "message %s: the id that was found is another message's"
            logger.warning(words, message.pk, extra=log_fields.of_message(message))
            return True
    if not prove_sent(message, proof, **known):
        return False
    apply([(message, report)])
    return True


class Query(NamedTuple):
    """What a provider is asked about messages.

    :param name: of the backend's method
    :param concerns: returns whether it is asked about a message
    :param is_answered_by: returns whether a backend has an answer
    :param ask: returns the answer
    :param apply: stores answers
    """

    name: str
    concerns: Callable[[SmsMessage], bool]
    is_answered_by: Callable[[CheckedBackend], bool]
    ask: Callable[[CheckedBackend, SmsMessage], Report | None]
    apply: Callable[[list[tuple[SmsMessage, Any]]], None]


def _can_be_queried(message: SmsMessage) -> bool:
    """Return whether a gateway can be queried about this message."""
    return bool(message.status == Status.SENT and message.gateway_id and message.using in providers)


def _can_be_proved(message: SmsMessage) -> bool:
    return message.status == Status.UNKNOWN and message.using in providers


REPORTS = Query(
    "get_status", _can_be_queried, attrgetter("gives_reports"), CheckedBackend.get_status, apply
)
PROOFS = Query("find", _can_be_proved, attrgetter("can_be_asked"), CheckedBackend.find, prove)


def _query_group(
    query: Query,
    alias: str,
    messages: list[SmsMessage],
    width: int,
    stopping: Callable[[], bool],
) -> list[SmsMessage]:
    """Query those messages of one provider that can be queried, and store the answers; return
    those that were not queried."""
    queryable = [message for message in messages if query.concerns(message)]
    if not queryable:
        return []
    try:
        backend = _backend(alias)
        if not query.is_answered_by(backend):
            return []
        width = backend.at_once(width)
        with backend, ThreadPoolExecutor(min(width, len(queryable))) as pool:
            queries = _Queries(query, backend, stopping)
            # The first alone: a wrong login, or a gateway that hangs, is not to be tried by all.
            for part in [queryable[:1], *_parts(queryable[1:], width)]:
                query.apply([pair for pair in pool.map(queries.ask, part) if pair is not None])
    except InvalidProvider as error:
        logger.error("%s", error, extra=log_fields.of_provider(alias, error.check))
        return []
    except SmsError as error:  # it could not be opened
        logger.error("%s", error, extra=log_fields.of_provider(alias, error.code))
        circuit_breaker.note_error(alias, error)
        return queryable
    if queries.error is not None and queries.error.kind in states.STOPPING_KINDS:
        circuit_breaker.note_error(alias, queries.error)
    return [message for message in queryable if message.pk not in queries.queried]


def _parts(whole: list[_T], size: int) -> list[list[_T]]:
    return [whole[start : start + size] for start in range(0, len(whole), size)]


class _Queries:
    """Queries the gateway in the threads, and never the database, until something ends it."""

    def __init__(self, query: Query, backend: CheckedBackend, stopping: Callable[[], bool]) -> None:
        self.query, self.backend, self.stopping = query, backend, stopping
        self.error: SmsError | None = None  # that ends them
        self.queried: set[Any] = set()

    def ask(self, message: SmsMessage) -> tuple[SmsMessage, Report | None] | None:
        if self.error is not None or self.stopping():
            return None
        self.queried.add(message.pk)
        try:
            with log_fields.during(message):
                return message, self.query.ask(self.backend, message)
        except SmsError as error:
            extra = log_fields.of_message(message, error.code)
            logger.warning("no answer about message %s: %s", message.pk, error, extra=extra)
            silent = not error.gateway_text and error.kind != ErrorKind.BROKEN
            if error.kind in states.STOPPING_KINDS or silent:  # also where no answer came at all
                self.error = error
        except BaseException as error:  # such as SystemExit: it ends the queries, not the worker
            self.error = self.backend.no_answer(error, self.query.name)
        return None


def _backend(alias: str) -> CheckedBackend:
    backend = checked_backend.provider(alias)
    if backend.uses_network and in_transaction():
        raise transaction.TransactionManagementError(
            "A delivery report is queried over the network, which must not be waited for inside a "
            "transaction. Call refresh_status() outside of atomic()."
        )
    return backend

"""The only path to the network for messages: claim, send, record, recover.

Every change of status is one conditional UPDATE, with a commit of its own. A request leaves only
after its row went *queued ─► claimed ─► sending* in two such steps, the second one right before the
first byte. No transaction is open while the network is waited for.
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial, reduce
from operator import or_
from typing import Any, TypeVar

from django.db import (
    DatabaseError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    connections,
    transaction,
)
from django.db.models import Case, DateTimeField, ExpressionWrapper, F, Q, Value, When
from django.db.models.functions import Coalesce, Least

from . import (
    batch_update,
    checked_backend,
    circuit_breaker,
    clock,
    conf,
    notify,
    rate_limit,
    states,
    times,
)
from .batch_update import Claim, by_token
from .checked_backend import CheckedBackend
from .exceptions import (
    InvalidProvider,
    SmsError,
    SmsNotSent,
    SmsOutcomeUnknown,
    TemporaryFailure,
    WrongStatus,
    gettext_noop,
)
from .models import SmsMessage, SmsMessageQuerySet, rows, write_db
from .receipts import Receipt
from .signals import sms_failed, sms_sent, sms_status_changed
from .states import Status

logger = logging.getLogger(__name__)

Outcome = Receipt | SmsError
_T = TypeVar("_T")

#: Errors of a database that cannot answer, as opposed to one that refuses.
UNAVAILABLE = (OperationalError, InterfaceError, InternalError)


class ClaimLost(Exception):
    """The row is no longer this process's to send; nothing was written to the network."""


@dataclass(frozen=True)
class Result:
    """The outcome of an attempt, to be recorded."""

    message: SmsMessage
    outcome: Outcome


# --- one message, while the caller waits ----------------------------------------------------------

NO_DATABASE = gettext_noop("The database did not answer. Nothing was sent.")
MAY_BE_QUEUED = gettext_noop(
    "The database did not answer. The SMS may be in the queue: do not send it again."
)
UNRECORDED = gettext_noop(
    "The gateway accepted the SMS, but the database did not store that. Do not send it again."
)
LEASE_PASSED = gettext_noop("It was not sent in time: its process stopped before the request.")
STILL_OPEN = gettext_noop("A transaction was still open at the time of sending. Nothing was sent.")
STAYS_QUEUED = gettext_noop("The SMS stays in the queue: do not send it again.")


def send(message: SmsMessage) -> None:
    """Send one draft or queued message now, or right after the commit of the open transaction.

    Raises ``SmsNotSent`` if it was not sent: it has *failed*, or is a draft as before, and no
    worker sends it. Raises ``SmsOutcomeUnknown`` if it may have been sent, or will be: a queued
    message stays queued while its provider is paused (code "paused"), or where too many wait
    under its rate ("rate"). Raises ``WrongStatus`` where it is neither draft nor queued, or
    another worker was faster.
    """
    queued = message.status == Status.QUEUED
    without_database = nothing_sent_without_database(message, may_be_queued=lambda: queued)
    with _not_sent_is_final(message), without_database:
        if not message._state.adding and not reread(message):
            raise WrongStatus("It was deleted.", alias=message.using, sms=message.pk)
        backend = checked_backend.provider(message.using)
        waits = backend.uses_network and in_transaction()
        circuit_breaker.admit(backend, may_ask=not waits)
        if message._state.adding:
            message.save()
        until = 0.0 if waits else rate_limit.wait(message.using, backend.rate)
        _claim_one(message)
    if waits:
        send_after_commit(message)
    else:
        _send_claimed(backend, message, until, last=True)


def send_new(message: SmsMessage, backend: CheckedBackend, *, may_wait: bool = False) -> None:
    """Send a message that this process has just stored as claimed, for a caller who waits, through
    a backend to which it was admitted.

    Raises ``SmsError`` if it was not sent; then nothing of it follows. With ``may_wait`` it is
    left in the queue instead, where it was definitely not accepted and may be later.
    """
    try:
        with nothing_sent_without_database(message):
            until = rate_limit.wait(message.using, backend.rate)
    except SmsNotSent as error:
        error.sms = message.pk
        _end(message, error, last=not may_wait)
    else:
        _send_claimed(backend, message, until, last=not may_wait)


def _send_claimed(
    backend: CheckedBackend, message: SmsMessage, until: float, *, last: bool
) -> None:
    """Send, and store the outcome.

    :param until: the monotonic time at which the reserved slot of a rate expires
    """

    def mark(one: SmsMessage) -> bool:
        if time.monotonic() > until:  # connecting was slow
            rate_limit.wait(one.using, backend.rate)
        return bool(mark_sending([one]))

    try:
        outcome = attempt(backend, message, mark)
    finally:
        backend.close()
    if outcome is None:
        with suppress(*UNAVAILABLE):
            reread(message)
        if not last and message.status != Status.FAILED:
            return  # a worker has it
        raise _not_sent_in_time(message)
    _end(message, outcome, last=last)


def _not_sent_in_time(message: SmsMessage) -> SmsNotSent:
    """Return the error for a message that has expired, or whose claim is lost."""
    where: dict[str, Any] = {"alias": message.using, "sms": message.pk}
    if message.error_code == "expired":
        return SmsNotSent(message.error_text, code="expired", **where)
    return SmsNotSent(LEASE_PASSED, code="lease", **where)


def _end(message: SmsMessage, outcome: Outcome, *, last: bool) -> None:
    """Store the outcome and raise it where it is an error that ends the message."""
    asked = message.using
    try:
        record([Result(message, outcome)], last=last)
    except Error:  # it is in the log, and the row's lease ends it
        if isinstance(outcome, SmsError) and not last and message.status == Status.CLAIMED:
            return  # a worker has it
        if words := _doubt_without_record(message, outcome, last):
            where: dict[str, Any] = {"alias": asked, "code": "database", "sms": message.pk}
            raise SmsOutcomeUnknown(words, **where) from None
    report_to_breaker(asked, outcome)
    if isinstance(outcome, SmsError) and not (message.status == Status.QUEUED and not last):
        raise outcome


def _doubt_without_record(message: SmsMessage, outcome: Outcome, last: bool) -> str:
    """Return why the caller must not send it again, where its outcome was perhaps not stored; ""
    where it may."""
    if isinstance(outcome, Receipt):
        return UNRECORDED
    return MAY_BE_QUEUED if _decision(message, outcome, last).status == Status.QUEUED else ""


@contextmanager
def _not_sent_is_final(message: SmsMessage) -> Iterator[None]:
    """Turn a refusal before the claim into ``SmsOutcomeUnknown`` where a worker will send the
    message: who reads ``SmsNotSent`` may send the text again."""
    try:
        yield
    except SmsNotSent as error:
        error.sms = message.pk
        if not message._state.adding:
            with suppress(*UNAVAILABLE):
                reread(message)
        if message.status != Status.QUEUED:
            raise
        text = f"{error.args[0]} {STAYS_QUEUED}"
        raise SmsOutcomeUnknown(
            text, alias=message.using, code=error.code, sms=message.pk
        ) from error


@contextmanager
def nothing_sent_without_database(
    message: SmsMessage, *, may_be_queued: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Turn a failure of the database before the request into ``SmsNotSent``: the caller may send
    again, because no worker sends this message, even if it was stored.

    :param may_be_queued: returns whether a worker may send it: then it is ``SmsOutcomeUnknown``
    """
    failed = False
    try:
        yield
    except UNAVAILABLE as error:
        if in_atomic_block():
            raise
        # These errors are about the connection or the table, and repeat no values.
        logger.error("the database failed for message %s: %s", message.pk, error)
        failed = True
    if failed:  # raised here, so that no frame with the query's values hangs on it
        where: dict[str, Any] = {"alias": message.using, "code": "database", "sms": message.pk}
        if may_be_queued():
            raise SmsOutcomeUnknown(MAY_BE_QUEUED, **where)
        raise TemporaryFailure(NO_DATABASE, **where)


def report_to_breaker(alias: str, outcome: Outcome) -> None:
    """Update the circuit breaker. An error here must not be reported as a failed send, because the
    outcome is already stored."""
    # A success is one UPDATE: where no transaction is open, it needs none.
    alone = not in_atomic_block() and isinstance(outcome, Receipt) and not outcome.refused
    try:
        with nullcontext() if alone else transaction.atomic(using=write_db()):
            circuit_breaker.note(alias, outcome)
    except Exception as error:
        logger.error("the circuit breaker of %s was not updated: %s", alias, type(error).__name__)


def send_after_commit(message: SmsMessage, *, may_wait: bool = False) -> None:
    """Send a message that is stored as claimed when the open transaction commits.

    An error is logged, because there is no caller to raise it to: the message has failed with an
    error text, or waits in the queue with ``may_wait``.
    """
    waits_for = open_transaction()
    # A lambda: Django 5.2 asks a failing callback for its name, which a partial has not.
    transaction.on_commit(
        lambda: _send_committed(message, waits_for, may_wait), using=waits_for, robust=True
    )


def _send_committed(message: SmsMessage, waited_for: str | None, may_wait: bool) -> None:
    try:
        still_open = open_transaction()
        if still_open is not None and still_open != waited_for:
            send_after_commit(message, may_wait=may_wait)  # another database's transaction
        elif still_open is not None:  # a test only plays the commit
            error = SmsNotSent(STILL_OPEN, alias=message.using, code="transaction", sms=message.pk)
            _end(message, error, last=True)
        else:
            _send_stored(message, may_wait=may_wait)
    except (SmsError, InvalidProvider, Error) as error:
        why = type(error).__name__ if isinstance(error, Error) else error
        logger.error("message %s was not sent after the commit: %s", message.pk, why)


def _send_stored(message: SmsMessage, *, may_wait: bool) -> None:
    if not renew(message):
        raise _not_sent_in_time(message)
    backend = checked_backend.provider(message.using)
    try:
        circuit_breaker.admit(backend)
    except SmsNotSent as error:
        error.sms = message.pk
        _end(message, error, last=not may_wait)
    else:
        send_new(message, backend, may_wait=may_wait)


def _claim_one(message: SmsMessage) -> None:
    """Claim a draft or queued message, whatever its time, for sending while the caller waits."""
    now, this = clock.now(), rows([message.pk])
    mine = this.filter(using=message.using)  # the provider to which the caller was admitted
    with transaction.atomic(using=write_db()):  # a draft is claimed, or stays a draft
        _into_queue(mine)
        claimed = claim(mine, now, immediate=True)
    if not claimed:
        fail_overdue(this)
        reread(message)
        if message.error_code == "expired":
            raise _not_sent_in_time(message)
        raise WrongStatus(
            f"Only a draft or a queued message can be sent; this one is {message.status}.",
            alias=message.using,
            sms=message.pk,
        )
    # As claimed: a moment later the row may be under another process's claim.
    for field in SmsMessage._meta.concrete_fields:
        setattr(message, field.attname, getattr(claimed[0], field.attname))


def reread(message: SmsMessage) -> bool:
    """Show what is stored now; return False, and change nothing, where the row was deleted."""
    try:
        message.refresh_from_db(using=write_db())
    except SmsMessage.DoesNotExist:
        return False
    return True


def in_transaction() -> bool:
    """Return True while a transaction is open on any database, so that no network may be waited
    for."""
    return open_transaction() is not None


def open_transaction() -> str | None:
    """Return the alias of a database with an open transaction, the messages' own before others.

    Raises ``TransactionManagementError`` where autocommit is off: there is no commit to wait for.
    """
    connections[write_db()].ensure_connection()
    opened = [one for one in connections.all(initialized_only=True) if one.connection is not None]
    for connection in sorted(opened, key=lambda one: one.alias != write_db()):
        if connection.in_atomic_block:
            return str(connection.alias)
        if not connection.get_autocommit() and connection.alias == write_db():
            raise transaction.TransactionManagementError(
                "Autocommit is off, so it is not known when a message is committed. Use atomic()."
            )
    return None


# --- claim, mark, release -------------------------------------------------------------------------


def move(messages: SmsMessageQuerySet, old: Sequence[Status], new: Status, **changes: Any) -> int:
    """Change the status by one conditional UPDATE; return how many rows moved."""
    for status in old:
        _require_move(status, new)
    return messages.filter(status__in=old).update(status=new, **changes)


def _require_move(old: Status, new: Status) -> None:
    if not states.may_move(old, new):
        raise ValueError(f"{old} ─► {new} is not in the table of states")


def enqueue(messages: SmsMessageQuerySet) -> int:
    """Put drafts into the queue, and wake the workers; return how many."""
    moved = _into_queue(messages)
    if moved:
        notify.notify_workers()
    return moved


def _into_queue(messages: SmsMessageQuerySet) -> int:
    """Put drafts into the queue; those without an expiry get one. Does not notify workers, because
    the caller claims the messages itself."""
    now, latest = clock.now(), times.latest()
    too_far = When(send_after__gt=latest, then=Value(latest))  # by an UPDATE that is none of ours
    start = Case(too_far, When(send_after__gt=now, then=F("send_after")), default=Value(now))
    expiry = ExpressionWrapper(start + conf.expires_after(), output_field=DateTimeField())
    return move(
        messages,
        [Status.DRAFT],
        Status.QUEUED,
        expires_at=Least(Coalesce(F("expires_at"), expiry), Value(times.latest_expiry())),
        send_after=Case(too_far, default=F("send_after")),
    )


def cancel(messages: SmsMessageQuerySet) -> int:
    """Cancel drafts and queued messages; return how many."""
    return move(messages, [Status.DRAFT, Status.QUEUED], Status.CANCELLED, finished_at=clock.now())


def claim_of(message: SmsMessage) -> Claim:
    """Return the claim under which this process holds the message."""
    return Claim(message.pk, message.token)


def claim(
    candidates: SmsMessageQuerySet,
    now: datetime,
    token: str | None = None,
    *,
    immediate: bool = False,
) -> list[SmsMessage]:
    """Claim queued messages for this process; return those that it got, in their order.

    :param token: of this claim, never used before
    :param immediate: the caller waits for the outcome, so that no worker may send them after this
        claim
    """
    # A row that another transaction has locked is not waited for: outcomes would wait with it.
    skips = not immediate and connections[write_db()].features.has_select_for_update_skip_locked
    with transaction.atomic(using=write_db()) if skips else nullcontext():
        if skips:
            candidates = candidates.select_for_update(skip_locked=True)
        return _claim(candidates, now, token or uuid.uuid4().hex, immediate)


def _claim(
    candidates: SmsMessageQuerySet, now: datetime, token: str, immediate: bool
) -> list[SmsMessage]:
    pks = list(candidates.values_list("pk", flat=True))
    if not pks:
        return []
    claimed = move(
        rows(pks).filter(expires_at__gt=now),
        [Status.QUEUED],
        Status.CLAIMED,
        **claim_fields(token, now),
        immediate=immediate,
        attempts=F("attempts") + 1,
    )
    if not claimed:
        return []
    mine = rows(pks).filter(token=token, status=Status.CLAIMED).in_bulk()
    return [mine[pk] for pk in pks if pk in mine]


def claim_fields(token: str, now: datetime) -> dict[str, Any]:
    """Return the fields of a claimed row."""
    return {"token": token, "claimed_at": now, "lease_until": now + conf.lease()}


def renew(message: SmsMessage) -> bool:
    """Let the lease of a claim begin now; return False where the claim is lost."""
    lease_until = clock.now() + conf.lease()
    held = _held([message]).filter(status=Status.CLAIMED)
    return bool(held.update(lease_until=lease_until))


def mark_sending(messages: Sequence[SmsMessage]) -> set[Claim]:
    """Mark claimed messages as *sending*; return the claims whose messages may now be written to
    the network: all others are no longer this process's."""
    return _persist(partial(_record_and_mark, [], messages, clock.now()), []) if messages else set()


def release(messages: Iterable[SmsMessage], *, tokens: Collection[str] = ()) -> int:
    """Give back what is claimed and not begun, as when a worker is stopped; return how many.

    :param tokens: claims whose messages this process never saw, because the database failed before
        it answered
    """
    messages = list(messages)
    if not (messages or tokens):
        return 0
    ours = Q(token__in=tokens) | _claims_filter(messages)
    return move(rows().filter(ours), [Status.CLAIMED], Status.QUEUED, **_UNTRIED)


def take_back(messages: Iterable[SmsMessage]) -> int:
    """Queue messages that were marked as *sending* and then got no permission: not a byte of
    their requests was written."""
    return move(_held(messages), [Status.SENDING], Status.QUEUED, **_UNTRIED)


_UNCLAIMED = {"token": "", "lease_until": None}
#: Nothing was tried, so that it does not count as an attempt.
_UNTRIED = {**_UNCLAIMED, "attempts": F("attempts") - 1}


def _held(messages: Iterable[SmsMessage]) -> SmsMessageQuerySet:
    """Return the rows that are still under these messages' claims."""
    return rows().filter(_claims_filter(messages))


def _claims_filter(messages: Iterable[SmsMessage]) -> Q:
    groups = by_token(map(claim_of, messages))
    none = Q(pk__in=[])
    return reduce(or_, (Q(token=token, pk__in=pks) for token, pks in groups.items()), none)


def grouped(items: Iterable[_T], key: Callable[[_T], Any]) -> dict[Any, list[_T]]:
    """Return the items by key, the keys in the order in which they first occur."""
    groups: dict[Any, list[_T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


# --- the attempt ----------------------------------------------------------------------------------


def attempt(
    backend: CheckedBackend, message: SmsMessage, mark: Callable[[SmsMessage], bool]
) -> Outcome | None:
    """Hand a claimed message to its backend; ``None`` if the claim was lost and nothing was sent.

    ``mark`` sets the row to *sending*. It is called by the backend right before the first byte,
    or before the backend is called where it does not announce its first byte. This function
    itself makes no query.
    """

    def begin() -> None:
        if not mark(message):
            raise ClaimLost
        if time.monotonic() > message.leave_until:  # the process, or the database, stood still
            raise TemporaryFailure(LEASE_PASSED, code="lease")

    theirs: Any = _copy(message)  # a third party's class may write on it whatever it likes
    theirs.before_first_byte = begin
    try:
        outcome = _call(backend, theirs)
    except ClaimLost:
        return None
    if isinstance(outcome, SmsError):
        outcome.alias = outcome.alias or backend.alias
        outcome.sms = message.pk
    return outcome


def _copy(message: SmsMessage) -> SmsMessage:
    """Return a shallow copy, as ``copy()`` does in ten times as long through ``__reduce__``."""
    copied = SmsMessage.__new__(SmsMessage)
    vars(copied).update(vars(message))
    copied._state = copy(message._state)
    return copied


def _call(backend: CheckedBackend, message: SmsMessage) -> Outcome:
    try:
        backend.open()
        return backend.send_message(message)
    except SmsError as error:
        return error
    except Error as error:  # the mark failed, so nothing was written
        logger.error("the database failed for message %s: %s", message.pk, type(error).__name__)
        return TemporaryFailure(NO_DATABASE, code="database")


# --- record ---------------------------------------------------------------------------------------


def record(results: Sequence[Result], *, last: bool = False) -> None:
    """Store the outcomes of attempts. The status is written first; the error text follows and may
    fail. What can be stored is stored, also where another one cannot."""
    accepted = [result for result in results if isinstance(result.outcome, Receipt)]
    errors = [[result] for result in results if isinstance(result.outcome, SmsError)]
    failures: list[Exception] = []
    for group in [accepted, *errors] if accepted else errors:
        try:
            _persist(partial(_record_group, group, clock.now(), last), group)
        except Exception as error:
            failures.append(error)
    if failures:
        raise failures[0]


def _record_group(group: list[Result], now: datetime, last: bool) -> None:
    outcome = group[0].outcome
    if isinstance(outcome, SmsError):
        _record_error(group[0], outcome, last)
    else:
        _record_and_mark(group, [], now)


def record_and_mark(accepted: Sequence[Result], going: Sequence[SmsMessage]) -> set[Claim]:
    """Do :func:`record` and :func:`mark_sending` in one UPDATE, since requests wait for it."""
    keys = {result.message.pk for result in accepted}
    if not (accepted and going) or any(message.pk in keys for message in going):
        record(accepted)
        return mark_sending(going)
    return _persist(partial(_record_and_mark, accepted, going, clock.now()), list(accepted))


def _record_and_mark(
    accepted: Sequence[Result], going: Sequence[SmsMessage], now: datetime
) -> set[Claim]:
    """Move ``accepted`` from *sending* to *sent*, and ``going`` from *claimed* to *sending*; return
    the claims that may go."""
    aliases = {_accepted_by(result) for result in accepted}
    first = {alias: _first_query_at(alias, now) for alias in aliases}
    sent = {claim_of(one.message): _sent_fields(one, now, first) for one in accepted}
    begun = {"sending_at": now, "lease_until": now + conf.lease()}
    leave_until = time.monotonic() + (begun["lease_until"] - clock.now()).total_seconds()
    marked = set(map(claim_of, going))
    winners = set(sent)
    _require_move(Status.SENDING, Status.SENT)
    _require_move(Status.CLAIMED, Status.SENDING)
    if batch_update.sent_and_sending(sent, marked, begun) < len(sent) + len(marked):
        # Some were lost; or an earlier try of this very UPDATE went through, which its time shows.
        ours = _held([*(result.message for result in accepted), *going])
        recorded = ours.filter(status=Status.SENT, sent_at=now)
        winners &= set(recorded.values_list("pk", "token"))
        sending = ours.filter(status=Status.SENDING, sending_at=now)
        marked &= set(sending.values_list("pk", "token"))
        expired = _held(going).filter(status=Status.CLAIMED, expires_at__lte=now)
        _end_each(expired, Status.FAILED, **_expired_at(now))
    for message in going:
        if claim_of(message) in marked:
            _reflect(message, Status.SENDING, leave_until=leave_until, **begun)
    for result in accepted:
        if claim_of(result.message) in winners:
            _reflect(result.message, Status.SENT, **sent[claim_of(result.message)])
            announce(result.message, Status.SENDING)
        else:
            _record_late(result)
    return marked


def _accepted_by(result: Result) -> str:
    assert isinstance(result.outcome, Receipt)
    return result.outcome.alias or result.message.using


def _sent_fields(
    result: Result, now: datetime, first: dict[str, datetime | None]
) -> dict[str, Any]:
    """Return the fields of a row whose message was accepted.

    :param first: when to query, by provider
    """
    assert isinstance(result.outcome, Receipt)
    using = _accepted_by(result)
    query_at = first[using]
    if query_at is not None and not result.outcome.gateway_id:
        query_at = now + conf.status_window()  # there is no id to query by: it is given up then
    return {
        "sent_at": now,
        "gateway_id": result.outcome.gateway_id,
        "using": using,
        "next_status_at": query_at,
        "error_code": "",
        "error_text": "",
    }


def _first_query_at(alias: str, now: datetime) -> datetime | None:
    """Return when to query a report first; None for never."""
    if not checked_backend.gives_reports(alias):
        return None
    return now + timedelta(seconds=states.next_query_in(0))


def _decision(message: SmsMessage, error: SmsError, last: bool) -> states.Decision:
    return states.decide(error.kind, attempts=message.attempts, most=conf.max_attempts(), last=last)


def _record_error(result: Result, error: SmsError, last: bool) -> None:
    message, now = result.message, clock.now()
    decision = _decision(message, error, last)
    old = (
        [Status.SENDING] if decision.status == Status.UNKNOWN else [Status.CLAIMED, Status.SENDING]
    )
    changes: dict[str, Any] = {}
    if decision.status == Status.QUEUED:
        changes = dict(_UNCLAIMED)
        if decision.retry_in:
            wait = decision.retry_in * random.uniform(1, 1.2)
            changes["send_after"] = now + timedelta(seconds=wait)
    elif decision.status == Status.FAILED:
        changes["finished_at"] = now
    diagnostics = {"error_code": str(error.code)[:32], "error_text": error.text}
    held = _held([message])
    # Where it exists, an earlier try of this very UPDATE went through.
    if not (move(held, old, decision.status, **changes) or held.filter(status=decision.status)):
        _record_late(result)
        return
    _write_diagnostics(message, diagnostics)
    was = Status(message.status)
    if decision.status == Status.UNKNOWN:
        code = error.code or type(error).__name__
        logger.warning("message %s: unknown whether it was sent (%s)", message.pk, code)
    if decision.status != Status.QUEUED:
        _reflect(message, decision.status, **changes, **diagnostics)
    elif not reread(message):
        return
    announce(message, was, decision.status)


def _write_diagnostics(message: SmsMessage, diagnostics: dict[str, str]) -> None:
    """Store the error's code and text, after the status; that may fail without harm."""
    try:
        with transaction.atomic(using=write_db()):
            rows([message.pk]).update(**diagnostics)
    except DatabaseError as error:
        logger.warning(
            "the error text of message %s was not stored: %s", message.pk, type(error).__name__
        )


LATE = "A late answer: "
ACCEPTED = gettext_noop("it was accepted.")


def _record_late(result: Result) -> None:
    """Keep an outcome that comes after the row became *unknown*, or after a person said that it was
    sent, for the person who resolves it, and keep the gateway's id to query by."""
    message, outcome = result.message, result.outcome
    held = _held([message])
    if isinstance(outcome, Receipt):
        query_at = _first_query_at(_accepted_by(result), clock.now())
        known: dict[str, Any] = {"gateway_id": outcome.gateway_id, "using": _accepted_by(result)}
        text = {"error_text": f"{LATE}{ACCEPTED}"}
        confirmed = known | {"next_status_at": query_at} if outcome.gateway_id else {}
    else:
        known, confirmed = {}, {}
        text = {"error_text": f"{LATE}{outcome.text}"}
    if held.filter(status=Status.UNKNOWN).update(**known, **text):
        pass
    elif held.filter(status=Status.SENT, gateway_id="").update(**confirmed, **text):
        logger.warning("message %s: a late answer, after a person said it was sent", message.pk)
    elif isinstance(outcome, SmsNotSent):
        logger.warning("message %s was not sent, but its status had already changed", message.pk)
    else:
        _log_contradiction(
            result,
            "its status had already changed" if held.exists() else "its row was deleted or claimed",
        )
    reread(message)


def _log_contradiction(result: Result, why: str) -> None:
    outcome = result.outcome
    verdict = (
        outcome.kind if isinstance(outcome, SmsError) else f"accepted as {outcome.gateway_id!r}"
    )
    logger.critical("message %s: %s, but %s", result.message.pk, verdict, why)


MAX_PERSIST_SECONDS = 10.0  # the longest repetition of a write whose loss does no harm
MAX_PAUSE_SECONDS = 1.0  # the longest pause between two tries of it


def _persist(operation: Callable[[], _T], results: list[Result]) -> _T:
    """Repeat a write over new connections until it succeeds: for as long as a lease where it stores
    the outcome of a request."""
    begun = any(result.message.status == Status.SENDING for result in results)
    lease = conf.lease().total_seconds()
    give_up = time.monotonic() + (lease if begun else min(lease, MAX_PERSIST_SECONDS))
    pause = 0.05
    while True:
        try:
            return operation()
        except Exception as error:
            if (
                not isinstance(error, UNAVAILABLE)
                or in_atomic_block()
                or time.monotonic() > give_up
            ):
                for result in results:
                    _log_contradiction(
                        result, f"the database did not store it ({type(error).__name__})"
                    )
                raise
        connections[write_db()].close()
        time.sleep(pause)
        pause = min(pause * 2, MAX_PAUSE_SECONDS)


def reconnect(*, in_transaction: bool = False) -> None:
    """Make the next query use a new connection: this one may be cut, or have a transaction open
    whose block an exception has left without its end, as one that a signal raises can.

    :param in_transaction: the caller's own transaction is open: then nothing is done
    """
    if in_transaction:
        return
    connection = connections[write_db()]
    left_open = connection.in_atomic_block
    connection.close()
    if left_open:
        connection.connect()  # close() alone would keep the state of the block


@contextmanager
def whole_connection() -> Iterator[None]:
    """Leave a connection that works, also where a signal's exception comes in a query."""
    in_transaction = in_atomic_block()
    try:
        yield
    except BaseException:
        with suppress(Error):
            reconnect(in_transaction=in_transaction)
        raise


def in_atomic_block() -> bool:
    """Return whether a transaction is open on the messages' database."""
    return connections[write_db()].in_atomic_block


def _reflect(message: SmsMessage, status: Status, **changes: Any) -> None:
    """Show on the caller's instance what was written."""
    for name, value in {"status": status, **changes}.items():
        setattr(message, name, value)


def announce(message: SmsMessage, old: Status, new: Status | None = None) -> None:
    """Send the signals, after the commit; ``new`` is the message's status where it is left out."""
    new = new or Status(message.status)
    transaction.on_commit(partial(_announce, message, old, new), using=write_db())


def _announce(message: SmsMessage, old: Status, new: Status) -> None:
    sms_status_changed.send_robust(SmsMessage, message=message, old=old.value, new=new.value)
    if new == Status.SENT:
        sms_sent.send_robust(SmsMessage, message=message)
    elif new == Status.FAILED:
        sms_failed.send_robust(SmsMessage, message=message)


# --- recover --------------------------------------------------------------------------------------

LEASE_ENDED = gettext_noop("The worker stopped or hung during the request.")
EXPIRED_UNSENT = gettext_noop("It expired before it could be sent.")
RECOVERED_PER_PASS = 1000  # rows; the next pass recovers the rest


def recover() -> dict[str, int]:
    """Recover what crashed workers held: *claimed* goes back to the queue, or fails where the
    caller waited for it; *sending* becomes unknown."""
    now = clock.now()
    stale = rows().stale(now)
    claimed, begun = stale.filter(status=Status.CLAIMED), stale.filter(status=Status.SENDING)
    waited_for, others = claimed.filter(immediate=True), claimed.filter(immediate=False)
    back = move(others, [Status.CLAIMED], Status.QUEUED, **_UNTRIED) if others.exists() else 0
    lost = _end_each(begun, Status.UNKNOWN, error_code="lease", error_text=LEASE_ENDED)
    failed = _end_each(
        waited_for, Status.FAILED, error_code="lease", error_text=LEASE_PASSED, finished_at=now
    )
    return {"queued": back, "unknown": lost, "failed": failed + fail_overdue(rows())}


def fail_overdue(messages: SmsMessageQuerySet) -> int:
    """Fail queued messages whose expiry has passed; return how many."""
    now = clock.now()
    return _end_each(messages.overdue(now), Status.FAILED, **_expired_at(now))


def _expired_at(now: datetime) -> dict[str, Any]:
    return {"error_code": "expired", "error_text": EXPIRED_UNSENT, "finished_at": now}


def _end_each(messages: SmsMessageQuerySet, new: Status, **changes: Any) -> int:
    """Move those that are still as they were found, each with its signals; return how many."""
    ended = 0
    for message in messages[:RECOVERED_PER_PASS]:
        old = Status(message.status)
        if move(messages.filter(pk=message.pk, token=message.token), [old], new, **changes):
            ended += 1
            _reflect(message, new, **changes)
            announce(message, old)
    return ended


# --- manual decisions -----------------------------------------------------------------------------


def confirm_sent(message: SmsMessage) -> None:
    """Mark an *unknown* message as sent, because a person says so.

    :param message: reread, so that it shows what is stored
    :raises WrongStatus: for any other message; nothing is changed
    """
    now = clock.now()
    # A late answer may have brought the id since the message was read.
    no_id = When(gateway_id="", then=Value(now + conf.status_window()))
    reports = checked_backend.gives_reports(message.using)
    moved = move(
        rows([message.pk]),
        [Status.UNKNOWN],
        Status.SENT,
        sent_at=F("sending_at"),
        next_status_at=Case(no_id, default=Value(now)) if reports else None,
    )
    there = reread(message)
    if not moved:
        status = message.status if there else "deleted"
        raise WrongStatus(f"It is {status}, not unknown.", sms=message.pk)
    announce(message, Status.UNKNOWN)


RESENDABLE = (states.FINAL - {Status.CANCELLED}) | {Status.UNKNOWN}
PROVED = gettext_noop(
    "A late answer says that the gateway accepted it. Choose “It was sent”. If you send it again, "
    "you pay twice."
)


def is_proved(message: SmsMessage) -> bool:
    """Return whether a late answer says that the gateway accepted this *unknown* message."""
    late = bool(message.gateway_id) or message.error_text == f"{LATE}{ACCEPTED}"
    return late and message.status == Status.UNKNOWN


def resend(message: SmsMessage, *, created_by: Any = None) -> SmsMessage:
    """Queue the same text as a new message that points to the old one; return the new one.

    A message can be resent once (then its successor can be).

    :param message: reread, so that it shows what is stored
    :param created_by: the user who decided so
    :raises WrongStatus: where its status does not allow it, where it has been resent already, and
        with the code "accepted" where it was accepted after all; nothing is stored
    """
    try:
        # The lock keeps a late answer and "It was sent" out until the new row is stored.
        with transaction.atomic(using=write_db()):
            message.refresh_from_db(using=write_db(), from_queryset=rows().select_for_update())
            _require_resendable(message)
            again = SmsMessage(
                to=message.to,
                body=message.body,
                sender=message.sender,
                using=message.using,
                priority=message.priority,
                status=Status.QUEUED,
                resend_of=message,
                created_by=created_by,
            )
            again.save(using=write_db())
            notify.notify_workers()
    except IntegrityError:
        raise WrongStatus("It has been resent already.", sms=message.pk) from None
    return again


def _require_resendable(message: SmsMessage) -> None:
    if message.status not in RESENDABLE:
        raise WrongStatus(f"It is {message.status}: it cannot be resent.", sms=message.pk)
    if is_proved(message):
        raise WrongStatus(PROVED, code="accepted", sms=message.pk)

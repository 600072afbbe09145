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
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import contextmanager, nullcontext, suppress
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial, reduce
from typing import Any, TypeVar

from django.db import (
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
    database_slots,
    kill_switch,
    limits,
    log_fields,
    mailing_counts,
    monotonic,
    night,
    notify,
    opt_out,
    rate_limit,
    states,
    times,
    tracing,
)
from .batch_update import Claim, by_token
from .checked_backend import CheckedBackend
from .conflicts import in_atomic_block, repeat_conflicts
from .exceptions import (
    InvalidProvider,
    RecipientOptedOut,
    SmsError,
    SmsNotSent,
    SmsOutcomeUnknown,
    TemporaryFailure,
    WrongStatus,
    gettext_noop,
)
from .models import (
    REPORTED,
    Proof,
    SmsMessage,
    SmsMessageQuerySet,
    mailings,
    rows,
    write_db,
)
from .query_errors import first_line, hide_values
from .receipts import Receipt
from .redact import WITHHELD, repeats
from .signals import sms_failed, sms_sent, sms_status_changed
from .states import Status

logger = logging.getLogger(__name__)

Outcome = Receipt | SmsError
_T = TypeVar("_T")

NO_CONDITION = Q()
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
CHANGED = gettext_noop(
    "Another user or program changed it a moment ago. Nothing was sent. Look at it, then send it."
)


def send(message: SmsMessage, only: Q = NO_CONDITION, *, exempt: bool = False) -> None:
    """Send one draft or queued message now, or right after the commit of the open transaction.

    :param only: what must hold for its row, such as the text that a user agreed to
    :param exempt: of the limits, prefixes and segments alone hold

    Raises ``LimitExceeded`` for a draft that ``SMSKA_LIMITS`` does not allow, which then stays one.
    Raises ``RecipientOptedOut`` where its number is on the do-not-send list: it is *cancelled*.
    Raises ``SmsNotSent`` if it was not sent: it has *failed*, or is a draft as before, and no
    worker sends it. Raises ``SmsOutcomeUnknown`` if it may have been sent, or will be: a queued
    message stays queued while its provider is paused (code "paused") or stopped ("stopped"), or
    where too many wait under its rate ("rate"). Raises ``WrongStatus`` where it is neither draft
    nor queued, or another worker was faster, and with the code "changed" where its row is not as it
    must be.
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
        _claim_one(message, limits.Admission(exempt=exempt), only)
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
    with nothing_sent_without_database(message, may_be_queued=lambda: not last):
        fits = bool(count_for_today([message]))
    if not fits:
        _end_over_limit(message, last)
        return

    @database_slots.held()
    def mark(one: SmsMessage) -> bool:
        if monotonic.now() > until:  # connecting was slow
            rate_limit.wait(one.using, backend.rate)
        return bool(mark_sending([one]))

    @database_slots.held()
    def look() -> None:
        if (stop := kill_switch.refusal(backend)) is not None:
            raise stop

    with database_slots.released():
        try:
            outcome = attempt(backend, message, mark, look)
        finally:
            backend.close()
    if outcome is None:
        claim = claim_of(message)
        with suppress(*UNAVAILABLE):
            reread(message)
            if claim_of(message) == claim and message.status == Status.CLAIMED:
                outcome = kill_switch.refusal(backend)
    if outcome is None:
        if not last and message.status != Status.FAILED and not was_opted_out(message):
            return  # a worker has it
        raise _not_begun(message)
    _end(message, outcome, last=last)


def _end_over_limit(message: SmsMessage, last: bool) -> None:
    """Fail a message for which the provider has no segments left today, or leave it in the queue
    for tomorrow.

    :raises LimitExceeded: where it failed
    """
    if last:
        _end(message, limits.no_segments_left(message), last=True)
    else:
        release([message])
        reread(message)


def was_opted_out(message: SmsMessage) -> bool:
    """Return whether it was cancelled because its number is on the do-not-send list."""
    return message.status == Status.CANCELLED and message.error_code == opt_out.CODE


def _not_begun(message: SmsMessage) -> SmsNotSent:
    """Return the error for a message that has expired, whose number is on the do-not-send list, or
    whose claim is lost."""
    if was_opted_out(message):
        return opt_out.error_for(message)
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
    if is_reported(message):
        return
    with log_fields.during(message):
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
def _not_sent_is_final(message: SmsMessage) -> Generator[None]:
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
) -> Generator[None]:
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
        which = "a new message" if message.pk is None else f"message {message.pk}"
        extra = log_fields.of_message(message, "database")
        logger.error("the database failed for %s: %s", which, first_line(error), extra=extra)
        failed = True
    if failed:  # raised here, so that no frame with the query's values hangs on it
        where: dict[str, Any] = {"alias": message.using, "code": "database", "sms": message.pk}
        if may_be_queued():
            raise SmsOutcomeUnknown(MAY_BE_QUEUED, **where)
        raise TemporaryFailure(NO_DATABASE, **where)


def report_to_breaker(alias: str, outcome: Outcome) -> None:
    """Update the circuit breaker. An error here must not be reported as a failed send, because the
    outcome is already stored."""
    # A success is one UPDATE at most, which needs no transaction of its own.
    alone = in_atomic_block() or (isinstance(outcome, Receipt) and not outcome.refused)
    with (
        _may_fail(
            f"the circuit breaker of {alias} was not updated",
            log_fields.of_provider(alias, "database"),
        ),
        nullcontext() if alone else transaction.atomic(using=write_db()),
    ):
        circuit_breaker.note(alias, outcome)


def send_after_commit(message: SmsMessage, *, may_wait: bool = False) -> None:
    """Send a message that is stored as claimed when the open transaction commits.

    No caller can be raised an error: the message has failed or is unknown, which the log says, or
    waits in the queue with ``may_wait``. What prevented the attempt itself is logged here.
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
        if message.status in (Status.FAILED, Status.UNKNOWN):  # that is in the log
            return
        why = type(error).__name__ if isinstance(error, Error) else error
        extra = log_fields.of_message(message, getattr(error, "code", "") or type(error).__name__)
        logger.error("message %s was not sent after the commit: %s", message.pk, why, extra=extra)


def _send_stored(message: SmsMessage, *, may_wait: bool) -> None:
    if not renew(message):
        raise _not_begun(message)
    backend = checked_backend.provider(message.using)
    try:
        circuit_breaker.admit(backend)
    except SmsNotSent as error:
        error.sms = message.pk
        _end(message, error, last=not may_wait)
    else:
        send_new(message, backend, may_wait=may_wait)


def _claim_one(message: SmsMessage, admission: limits.Admission, only: Q) -> None:
    """Claim a draft or queued message, whatever its time, for sending while the caller waits.

    :raises LimitExceeded: for a draft that the limits do not allow; it stays one
    """
    now, this = clock.now(), rows([message.pk])
    mine = this.filter(only, using=message.using)  # the provider to which the caller was admitted
    claimed = repeat_conflicts(lambda: _queue_and_claim(message, mine, admission, now))
    if not claimed:
        fail_overdue(this)
        reread(message)
        if message.error_code == "expired" or was_opted_out(message):
            raise _not_begun(message)
        require_unchanged(message)
        raise WrongStatus(
            f"Only a draft or a queued message can be sent; this one is {message.status}.",
            alias=message.using,
            sms=message.pk,
        )
    # As claimed: a moment later the row may be under another process's claim.
    for field in SmsMessage._meta.concrete_fields:
        setattr(message, field.attname, getattr(claimed[0], field.attname))


def _queue_and_claim(
    message: SmsMessage, row: SmsMessageQuerySet, admission: limits.Admission, now: datetime
) -> list[SmsMessage]:
    with transaction.atomic(using=write_db()):  # a draft is claimed or cancelled, or stays a draft
        was_draft = _into_queue(row)
        claimed = claim(row, now, immediate=True)
        if was_draft and claimed:
            admission.require(claimed[0])  # what was read before may have been edited
        elif claimed and not limits.has_room(claimed[0]):
            raise limits.no_segments_left(claimed[0])  # it stays queued, for tomorrow
        return claimed


def require_unchanged(message: SmsMessage) -> None:
    """Raise ``WrongStatus`` for a message that was not as it had to be: its status is not why."""
    if message.status in (Status.DRAFT, Status.QUEUED) and rows([message.pk]).exists():
        raise WrongStatus(CHANGED, alias=message.using, code="changed", sms=message.pk)


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
    """Change the status by one conditional UPDATE, which also wipes a sensitive text that is not
    needed any more; return how many rows moved."""
    for status in old:
        _require_move(status, new)
    wiped = batch_update.wiped() if any(states.drops_text(one, new) for one in old) else {}
    return messages.filter(status__in=old).update(**wiped, status=new, **changes)


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
        # Before the expiry, because MariaDB assigns from left to right.
        has_site_lifetime=Q(expires_at__isnull=True),
        expires_at=Least(Coalesce(F("expires_at"), expiry), Value(times.latest_expiry())),
        send_after=start,  # not before now, or a hold would include it
    )


def set_aside(messages: SmsMessageQuerySet, *, claimed: bool = False) -> int:
    """Make drafts of what is queued or claimed, until its mailing goes on; return how many.

    What had the site's lifetime gets a new one then. A time that the caller gave stays.

    :param claimed: they are claimed, and nothing was tried
    """
    old = [Status.CLAIMED] if claimed else [Status.QUEUED]
    given = Case(When(has_site_lifetime=True, then=Value(None)), default=F("expires_at"))
    untried = {"attempts": F("attempts") - 1} if claimed else {}
    return move(messages, old, Status.DRAFT, expires_at=given, **_UNCLAIMED, **untried)


def cancel(messages: SmsMessageQuerySet) -> int:
    """Cancel drafts and queued messages; return how many."""
    return move(messages, [Status.DRAFT, Status.QUEUED], Status.CANCELLED, finished_at=clock.now())


class Claimed(list[SmsMessage]):
    """Messages that were claimed.

    :ivar cancelled: how many others were cancelled, because of the do-not-send list
    :ivar set_aside: how many others are drafts now, because their mailing is stopped
    :ivar put_off: how many others are queued again, because of the quiet hours of their recipients
    """

    cancelled = set_aside = put_off = 0


def claim_of(message: SmsMessage) -> Claim:
    """Return the claim under which this process holds the message."""
    return Claim(message.pk, message.token)


def claim(
    candidates: SmsMessageQuerySet,
    now: datetime,
    token: str | None = None,
    *,
    immediate: bool = False,
) -> Claimed:
    """Claim queued messages for this process; return those that it got, in their order.

    Those whose numbers are on the do-not-send list are cancelled, those of a stopped mailing are
    set aside, and those of a mailing that heeds quiet hours are put off to their end.

    :param token: of this claim, never used before
    :param immediate: the caller waits for the outcome, so that no worker may send them after this
        claim
    """
    # A row that another transaction has locked is not waited for: outcomes would wait with it.
    skips = not immediate and connections[write_db()].features.has_select_for_update_skip_locked
    if skips:
        candidates = candidates.select_for_update(skip_locked=True)
    token = token or uuid.uuid4().hex

    def claim_together() -> Claimed:
        with transaction.atomic(using=write_db()) if skips else nullcontext():
            claimed = _claim(candidates.all(), now, token, immediate)
            going = claimed if immediate else _of_going_mailings(claimed)
            mine = Claimed(cancel_opted_out(going))
            mine.cancelled = len(going) - len(mine)
            mine.set_aside = len(claimed) - len(going)
            return mine

    hours = None if immediate else conf.quiet_hours()  # a wrong setting is to raise before
    claimed = repeat_conflicts(claim_together)
    return claimed if hours is None else _outside_quiet_hours(claimed, hours)


def _outside_quiet_hours(claimed: Claimed, hours: conf.QuietHours) -> Claimed:
    """Put those of these claimed messages back into the queue that would leave in their recipients'
    quiet hours, for the end of these; return the others."""
    found = night.find_quiet(claimed, hours)
    if not found.keys:
        return claimed
    for end, messages in found.ends.items():
        later = night.fields(end)
        held = _held(messages)
        repeat_conflicts(partial(move, held, [Status.CLAIMED], Status.QUEUED, **later, **_UNTRIED))
        night.put_off_queued(messages, hours, end)
    if found.unasked:
        repeat_conflicts(partial(release, found.unasked))
    mine = Claimed(message for message in claimed if message.pk not in found.keys)
    mine.cancelled, mine.set_aside = claimed.cancelled, claimed.set_aside
    mine.put_off = len(found.keys)
    return mine


def _of_going_mailings(claimed: list[SmsMessage]) -> list[SmsMessage]:
    """Set those of these claimed messages aside whose mailing is stopped; return the others. A
    person sends one of them all the same, by "Send"."""
    keys = {message.mailing_id for message in claimed} - {None}
    if not keys:
        return claimed
    found = mailings(keys).exclude(stopped_at=None).order_by("pk")
    if not found.exists():
        return claimed
    with transaction.atomic(using=write_db()):
        # The lock keeps "Go on" out, which would not see these rows, until they are drafts.
        stopped = set(found.select_for_update().values_list("pk", flat=True))
        waiting = [message for message in claimed if message.mailing_id in stopped]
        set_aside(_held(waiting), claimed=True)
    return [message for message in claimed if message.mailing_id not in stopped]


def cancel_opted_out(claimed: Sequence[SmsMessage]) -> list[SmsMessage]:
    """Cancel those of these claimed messages whose numbers are on the do-not-send list; return the
    others. It is one query, and one more where there are such numbers."""
    if not claimed:
        return []
    listed = opt_out.refused(claimed)
    barred = [message for message, is_listed in zip(claimed, listed, strict=True) if is_listed]
    if barred:
        _cancel_claimed(barred)
    return [message for message, is_listed in zip(claimed, listed, strict=True) if not is_listed]


def _cancel_claimed(messages: list[SmsMessage]) -> None:
    now = clock.now()
    why = {"error_code": opt_out.CODE, "error_text": RecipientOptedOut.summary, "finished_at": now}
    held = _held(messages)
    untried = {"lease_until": None, "attempts": F("attempts") - 1}
    moved = move(held, [Status.CLAIMED], Status.CANCELLED, **untried, **why)
    if moved < len(messages):  # other claims have some of them
        mine = held.filter(status=Status.CANCELLED, finished_at=now)
        keys = set(mine.values_list("pk", flat=True))
        messages = [message for message in messages if message.pk in keys]
    for message in messages:
        _reflect(message, Status.CANCELLED, **why, lease_until=None, attempts=message.attempts - 1)
        announce(message, Status.CLAIMED)
    if messages:
        extra = log_fields.of_messages(messages, Status.CANCELLED, opt_out.CODE)
        words = "%s messages were cancelled: %s"
        logger.info(words, len(messages), RecipientOptedOut.summary, extra=extra)


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


def count_for_today(messages: list[SmsMessage]) -> list[SmsMessage]:
    """Count messages of one provider, which this process has claimed, under its segments of the
    day; return those that fit. The others are still claimed."""
    old = {message.pk: message.counted_on for message in messages}
    fit = limits.within_day(messages)
    if new := [message for message in fit if message.counted_on != old[message.pk]]:
        # If this fails, they count twice: too few messages leave rather than too many.
        _held(new).update(counted_on=new[0].counted_on)
    return fit


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
    return reduce(Q.__or__, (Q(token=token, pk__in=pks) for token, pks in groups.items()), none)


def grouped(items: Iterable[_T], key: Callable[[_T], Any]) -> dict[Any, list[_T]]:
    """Return the items by key, the keys in the order in which they first occur."""
    groups: dict[Any, list[_T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


# --- the attempt ----------------------------------------------------------------------------------


def attempt(
    backend: CheckedBackend,
    message: SmsMessage,
    mark: Callable[[SmsMessage], bool],
    look: Callable[[], None] = lambda: None,
) -> Outcome | None:
    """Hand a claimed message to its backend; ``None`` if the claim was lost and nothing was sent.

    ``mark`` sets the row to *sending*. It is called by the backend right before the first byte,
    or before the backend is called where it does not announce its first byte. This function
    itself makes no query.

    :param look: looks for stops after ``mark``, for each member of a failover that is tried: the
        mark knows nothing of its members. In a pass the dispatcher does that
    """
    with log_fields.during(message), tracing.attempt(backend.alias, message) as span:
        outcome = _attempt(backend, message, mark, look, span.begins)
        span.ends(outcome)
    return outcome


def _attempt(
    backend: CheckedBackend,
    message: SmsMessage,
    mark: Callable[[SmsMessage], bool],
    look: Callable[[], None],
    begins: Callable[[], None],
) -> Outcome | None:
    def begin() -> None:
        if not mark(message):
            raise ClaimLost
        if monotonic.now() > message.leave_until:  # the process, or the database, stood still
            raise TemporaryFailure(LEASE_PASSED, code="lease")
        begins()

    def look_for_stops() -> None:
        failed: TemporaryFailure | None = None
        try:
            look()
        except Error as error:
            failed = _no_database(message, error)
        if failed is not None:  # raised here, so that no frame with the query's values hangs on it
            raise failed

    theirs: Any = _copy(message)  # a third party's class may write on it whatever it likes
    theirs.before_first_byte, theirs.look_for_stops = begin, look_for_stops
    try:
        outcome = _call(backend, theirs)
    except ClaimLost:
        return None
    if isinstance(outcome, SmsError):
        outcome.alias = outcome.alias or backend.alias
        outcome.sms = message.pk
    if message.sensitive:
        failed = [outcome] if isinstance(outcome, SmsError) else []
        for error in (*failed, *outcome.refused):
            _withhold(error, [message.body, message.code])
    return outcome


def _withhold(error: Any, secrets: list[str]) -> None:
    """Keep a sensitive text, and a code, which is shorter than what a backend looks for, out of an
    error: it is stored and shown for longer than the text."""
    if repeats(str(error.args[0] if error.args else ""), secrets):
        error.args = (error.summary,)
    if repeats(error.gateway_text, secrets):
        error.gateway_text = WITHHELD


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
        return _no_database(message, error)


def _no_database(message: SmsMessage, error: Error) -> TemporaryFailure:
    extra = log_fields.of_message(message, "database")
    name = type(error).__name__
    logger.error("the database failed for message %s: %s", message.pk, name, extra=extra)
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
        _list_opted_out(group[0].message, outcome)
    else:
        _record_and_mark(group, [], now)


def may_begin(backend: CheckedBackend, ended: list[Result]) -> bool:
    """Return whether requests may begin: the provider is not stopped. It is repeated like the write
    that follows, which stores what has ``ended``."""
    return not _persist(partial(kill_switch.is_stopped, backend), ended)


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
    # What was claimed right before the quiet hours is given back, and then put off.
    going = [one for one in going if one.quiet_from is None or now < one.quiet_from]
    if not (accepted or going):
        return set()
    aliases = {_accepted_by(result) for result in accepted}
    first = {alias: _first_query_at(alias, now) for alias in aliases}
    sent = {claim_of(one.message): _sent_fields(one, now, first) for one in accepted}
    for one in filter(_is_priced, accepted):  # the others keep what an early report said
        sent[claim_of(one.message)] |= price_fields(one.outcome)
    begun = {"sending_at": now, "lease_until": now + conf.lease()}
    leave_until = monotonic.now() + (begun["lease_until"] - clock.now()).total_seconds()
    bars = {claim_of(message): opt_out.bar_of(message) for message in going}
    marked = set(bars)
    winners = set(sent)
    _require_move(Status.SENDING, Status.SENT)
    _require_move(Status.CLAIMED, Status.SENDING)
    wipes = any(result.message.sensitive for result in accepted)
    moved = batch_update.sent_and_sending(sent, bars, begun, wipes=wipes)
    if moved < len(sent) + len(marked):
        # Some were lost; or an earlier try of this very UPDATE went through, which its time shows.
        ours = _held([*(result.message for result in accepted), *going])
        recorded = ours.filter(status=Status.SENT, sent_at=now)
        winners &= set(recorded.values_list("pk", "token"))
        sending = ours.filter(status=Status.SENDING, sending_at=now)
        marked &= set(sending.values_list("pk", "token"))
        expired = _held(going).filter(status=Status.CLAIMED, expires_at__lte=now)
        ended = {one.pk for one in _end_each(expired, Status.FAILED, **_expired_at(now))}
        for message in going:
            if message.pk in ended:
                _reflect(message, Status.FAILED, **_expired_at(now))
        cancel_opted_out([message for message in going if claim_of(message) not in marked])
    for message in going:
        if claim_of(message) in marked:
            _reflect(message, Status.SENDING, leave_until=leave_until, **begun)
    for result in accepted:
        if claim_of(result.message) in winners:
            _reflect(result.message, Status.SENT, **sent[claim_of(result.message)])
            announce(result.message, Status.SENDING)
        else:
            _record_late(result)
    if any(checked_backend.traits(alias).pushed for alias in aliases):
        apply_early([result.message for result in accepted])
    return marked


def _accepted_by(result: Result) -> str:
    assert isinstance(result.outcome, Receipt)
    return result.outcome.alias or result.message.using


def _sent_fields(result: Result, now: datetime, first: dict[str, datetime]) -> dict[str, Any]:
    """Return the fields of a row whose message was accepted.

    :param first: when to query, by provider
    """
    assert isinstance(result.outcome, Receipt)
    using = _accepted_by(result)
    query_at = first[using]
    if not result.outcome.gateway_id:
        query_at = now + conf.status_window()  # there is no id to query by: it is given up then
    return {
        "sent_at": now,
        "gateway_id": result.outcome.gateway_id,
        "using": using,
        "next_status_at": query_at,
        "error_code": "",
        "error_text": "",
    }


def _is_priced(result: Result) -> bool:
    """Return whether there is a price to store; most providers say none, and each column costs."""
    outcome: Any = result.outcome
    return outcome.price is not None or outcome.segments is not None


def price_fields(said: Any) -> dict[str, Any]:
    """Return the fields of what a provider's receipt or report says about the price."""
    return {
        "price": said.price,
        "currency": said.currency,
        "billed_segments": said.segments,
    }


def _first_query_at(alias: str, now: datetime) -> datetime:
    """Return when to query a report first; where there is none to come, the end of the wait for
    one, because a message that stays *sent* for ever is never deleted or erased."""
    traits = checked_backend.traits(alias)
    if not traits.polled:
        return now + conf.status_window()
    return now + timedelta(seconds=states.next_query_in(0, pushed=traits.pushed))


def _decision(message: SmsMessage, error: SmsError, last: bool) -> states.Decision:
    return states.decide(
        error.kind,
        attempts=message.attempts,
        most=conf.max_attempts(),
        last=last,
        retry_in=error.retry_in,
    )


def _record_error(result: Result, error: SmsError, last: bool) -> None:
    message, now = result.message, clock.now()
    decision = _decision(message, error, last)
    old = (
        [Status.SENDING] if decision.status == Status.UNKNOWN else [Status.CLAIMED, Status.SENDING]
    )
    changes: dict[str, Any] = {}
    if decision.status == Status.QUEUED:
        changes = {**_UNCLAIMED, "reported_status": ""}  # the next attempt has reports of its own
        if decision.retry_in:
            wait = decision.retry_in * random.uniform(1, 1.2)
            changes["send_after"] = now + timedelta(seconds=wait)
    elif decision.status == Status.FAILED:
        changes["finished_at"] = now
    else:
        changes = _doubt_fields(error.alias or message.using, now)
    diagnostics = {"error_code": str(error.code)[:32], "error_text": error.text}
    held = _held([message])
    refused = decision.status != Status.UNKNOWN
    fit = held.exclude(reported_status__in=states.ACCEPTED) if refused else held
    # Where it exists, an earlier try of this very UPDATE went through.
    if not (move(fit, old, decision.status, **changes) or held.filter(status=decision.status)):
        reported = held.filter(reported_status__in=states.ACCEPTED)
        if refused and reported.filter(status__in=(Status.SENDING, Status.UNKNOWN)).exists():
            _record_false_refusal(result, error)
        else:
            _record_late(result)
        return
    _write_diagnostics(message, diagnostics)
    was = Status(message.status)
    _log_end(message, decision.status, error.code or type(error).__name__)
    if decision.status != Status.QUEUED:
        _reflect(message, decision.status, **changes, **diagnostics)
    elif not reread(message):
        return
    announce(message, was, decision.status)
    if decision.status == Status.UNKNOWN:
        apply_early([message])


def _log_end(message: SmsMessage, new: Status, code: str) -> None:
    """Log that a message failed or became unknown: its caller may drop the error, and a rollback
    its row."""
    extra = log_fields.of_message(message, code) | {"status": str(new)}
    if new == Status.FAILED:
        logger.warning("message %s has failed (%s)", message.pk, code, extra=extra)
    elif new == Status.UNKNOWN:
        words = "message %s: unknown whether it was sent (%s)"
        logger.warning(words, message.pk, code, extra=extra)


def _record_false_refusal(result: Result, error: SmsError) -> None:
    """Record a refusal of a message of which a report says that it was accepted."""
    message, code = result.message, error.code or type(error).__name__
    words = "message %s was refused (%s), and a report says it was not"
    logger.error(words, message.pk, code, extra=log_fields.of_message(message, code))
    doubt = SmsOutcomeUnknown(alias=error.alias, code=error.code, gateway_text=error.gateway_text)
    _record_error(Result(message, doubt), doubt, last=True)


def is_reported(message: SmsMessage) -> bool:
    """Return whether a report has proved that it was accepted, whatever its request ended in."""
    return message.proof == Proof.REPORT


def _doubt_fields(alias: str, now: datetime) -> dict[str, Any]:
    """Return the fields of a message of which it is unknown whether this provider accepted it.

    :param alias: of a failover, the member that may have. The message stays the failover's, so that
        it can be sent again through any of them.
    """
    seconds = states.next_question_in(0)
    asked = seconds is not None and checked_backend.traits(alias).asked
    return {"next_status_at": now + timedelta(seconds=seconds or 0) if asked else None}


def _list_opted_out(message: SmsMessage, error: SmsError) -> None:
    """Put the number on the do-not-send list where the provider says that its person wants no
    messages. That may fail, because the outcome is already stored."""
    if not isinstance(error, RecipientOptedOut) or error.code == opt_out.CODE:
        return
    words = f"the number of message {message.pk} was not put on the list"
    with _may_fail(words, log_fields.of_message(message, "database")):
        opt_out.stop_at_provider(message, error)


def _write_diagnostics(message: SmsMessage, diagnostics: dict[str, str]) -> None:
    """Store the error's code and text, after the status; that may fail without harm. A report may
    have resolved the doubt by now, or cancelled what was to be tried again."""
    words = f"the error text of message {message.pk} was not stored"
    with _may_fail(words, log_fields.of_message(message, "database")):
        ours = rows([message.pk]).filter(proof="").exclude(status=Status.CANCELLED)
        ours.update(**diagnostics)


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
        words = "message %s: a late answer, after a person said it was sent"
        logger.warning(words, message.pk, extra=_late_fields(result))
    elif isinstance(outcome, SmsNotSent):
        words = "message %s was not sent, but its status had already changed"
        logger.warning(words, message.pk, extra=_late_fields(result))
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
    extra = _late_fields(result)
    logger.critical("message %s: %s, but %s", result.message.pk, verdict, why, extra=extra)


def _late_fields(result: Result) -> dict[str, Any]:
    return log_fields.of_message(result.message, getattr(result.outcome, "code", ""))


MAX_PERSIST_SECONDS = 10.0  # the longest repetition of a write whose loss does no harm
MAX_PAUSE_SECONDS = 1.0  # the longest pause between two tries of it


def _persist(operation: Callable[[], _T], results: list[Result]) -> _T:
    """Repeat a write over new connections until it succeeds: for as long as a lease where it stores
    the outcome of a request."""
    begun = any(result.message.status == Status.SENDING for result in results)
    lease = conf.lease().total_seconds()
    give_up = monotonic.now() + (lease if begun else min(lease, MAX_PERSIST_SECONDS))
    pause = 0.05
    while True:
        try:
            return operation()
        except Exception as error:
            if not isinstance(error, UNAVAILABLE) or in_atomic_block() or monotonic.now() > give_up:
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
def _may_fail(loss: str, extra: dict[str, Any]) -> Generator[None]:
    """Log an error of a write without which the outcome is whole, and leave a connection that
    works: one that is cut in the last step of a transaction would stay without autocommit."""
    in_transaction = in_atomic_block()
    try:
        with transaction.atomic(using=write_db()) if in_transaction else nullcontext():
            yield
    except Exception as error:
        logger.error("%s: %s", loss, type(error).__name__, extra=extra)
        with suppress(Error):
            reconnect(in_transaction=in_transaction)


@contextmanager
def whole_connection() -> Generator[None]:
    """Leave a connection that works, also where a signal's exception comes in a query."""
    in_transaction = in_atomic_block()
    try:
        yield
    except BaseException as error:
        hide_values(error)
        with suppress(Error):
            reconnect(in_transaction=in_transaction)
        raise


def _reflect(message: SmsMessage, status: Status, **changes: Any) -> None:
    """Show on the caller's instance what was written."""
    if states.drops_text(message.status, status):
        message.wipe()
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
    caller waited for it; *sending* becomes unknown. Fail what expired in the queue. Return how
    many have which status now."""
    now = clock.now()
    stale = rows().stale(now)
    claimed, begun = stale.filter(status=Status.CLAIMED), stale.filter(status=Status.SENDING)
    waited_for, others = claimed.filter(immediate=True), claimed.filter(immediate=False)
    back = move(others, [Status.CLAIMED], Status.QUEUED, **_UNTRIED) if others.exists() else 0
    lost = _end_each(
        begun,
        Status.UNKNOWN,
        lambda message: _doubt_fields(message.using, now),
        error_code="lease",
        error_text=LEASE_ENDED,
    )
    failed = _end_each(
        waited_for, Status.FAILED, error_code="lease", error_text=LEASE_PASSED, finished_at=now
    )
    now_in = Counter(str(message.status) for message in (*lost, *failed))
    now_in.update(queued=back, unknown=0, failed=fail_overdue(rows()))
    return dict(now_in)


def fail_overdue(messages: SmsMessageQuerySet) -> int:
    """Fail queued messages whose expiry has passed; return how many."""
    now = clock.now()
    return len(_end_each(messages.overdue(now), Status.FAILED, **_expired_at(now)))


def _expired_at(now: datetime) -> dict[str, Any]:
    return {"error_code": "expired", "error_text": EXPIRED_UNSENT, "finished_at": now}


def _end_each(
    messages: SmsMessageQuerySet,
    new: Status,
    own: Callable[[SmsMessage], dict[str, Any]] = lambda message: {},
    **changes: Any,
) -> list[SmsMessage]:
    """Move those that are still as they were found, each with its signals and a line in the log;
    return them.

    :param own: returns the fields that differ from message to message
    """
    ended: list[SmsMessage] = []
    for message in messages[:RECOVERED_PER_PASS]:
        old, fields = Status(message.status), changes | own(message)
        in_doubt = new == Status.UNKNOWN
        # A report that is kept is applied with it or never: nothing looks for it later.
        with transaction.atomic(using=write_db()) if in_doubt else nullcontext():
            if not move(messages.filter(pk=message.pk, token=message.token), [old], new, **fields):
                continue
            ended.append(message)
            _reflect(message, new, **fields)
            _log_end(message, new, message.error_code)
            announce(message, old)
            if in_doubt:
                apply_early([message])
    return ended


# --- what resolves a doubt ------------------------------------------------------------------------


def prove_sent(message: SmsMessage, proof: Proof, **known: Any) -> bool:
    """Move an *unknown* message to *sent*; return False where it is not unknown any more.

    :param message: reread, so that it shows what is stored
    :param known: fields that the proof brings, such as ``gateway_id``
    """
    now = clock.now()
    using = known.get("using") or message.using
    # Not where the worker was killed, nor where a report came before the outcome.
    counted = message.error_code != "lease" and not message.reported_status
    no_report = Value(now + conf.status_window())
    # A late answer may have brought the id since the message was read.
    no_id = When(gateway_id="", then=no_report)
    if proof != Proof.PERSON:
        known |= {"error_code": "", "error_text": ""}
    soon = Value(now) if known.get("gateway_id") else Case(no_id, default=Value(now))
    moved = move(
        rows([message.pk]),
        [Status.UNKNOWN],
        Status.SENT,
        sent_at=F("sending_at"),
        proof=proof,
        status_queries=0,
        next_status_at=soon if checked_backend.traits(using).polled else no_report,
        **known,
    )
    there = reread(message)
    if moved and there:
        announce(message, Status.UNKNOWN)
        if proof != Proof.PERSON:
            extra = log_fields.of_message(message)
            logger.info("message %s was accepted: %s", message.pk, proof.value, extra=extra)
            _cancel_resend(message)
            if counted:
                circuit_breaker.take_back(message.using)
    return bool(moved)


ACCEPTED_AFTER_ALL = gettext_noop(
    "The gateway refused it, and then reported that it had accepted it. It is not sent again."
)


FIRST_ACCEPTED = gettext_noop(
    "The provider has accepted the first message after all. This one is not sent."
)


def _cancel_resend(proved: SmsMessage) -> None:
    """Cancel what a person has queued instead of a message that is now proved to be sent. What has
    left by now cannot be helped."""
    waiting = (Status.QUEUED, Status.DRAFT)  # a draft where its mailing is stopped
    for again in rows().filter(resend_of=proved.pk, status__in=waiting):
        cancel_reported(again, FIRST_ACCEPTED)


def cancel_reported(message: SmsMessage, why: str = ACCEPTED_AFTER_ALL) -> bool:
    """Cancel a message that is not to be sent (again), because a report says that it was accepted
    after all; return False where it has changed since it was read."""
    old = Status(message.status)
    ended = {
        "lease_until": None,
        "finished_at": clock.now(),
        "error_code": REPORTED,
        "error_text": why,
    }
    if not move(rows([message.pk]), [old], Status.CANCELLED, **ended):
        return False
    _reflect(message, Status.CANCELLED, **ended)
    announce(message, old)
    return True


def apply_early(messages: Iterable[SmsMessage]) -> None:
    """Apply the pushed reports that came while the answers to these requests were awaited. It is
    one query, and more where there are such reports."""
    by_key = {message.pk: message for message in messages}
    if not by_key:
        return
    ended = rows(by_key).filter(status__in=(Status.SENT, Status.UNKNOWN))
    for stored in ended.exclude(reported_status=""):
        apply_reported(stored)
        reread(by_key[stored.pk])


def apply_reported(message: SmsMessage) -> None:
    """Give a *sent* or *unknown* message the status that was reported early."""
    if message.status == Status.UNKNOWN and not prove_sent(message, Proof.REPORT):
        return
    status, now = Status(message.reported_status), clock.now()
    if status not in states.FINAL:
        return
    ended = {"finished_at": now, "next_status_at": None}
    if move(rows([message.pk]), [Status.SENT], status, **ended):
        _reflect(message, status, **ended)
        announce(message, Status.SENT)


# --- manual decisions -----------------------------------------------------------------------------


def confirm_sent(message: SmsMessage) -> None:
    """Mark an *unknown* message as sent, because a person says so.

    :param message: reread, so that it shows what is stored
    :raises WrongStatus: for any other message; nothing is changed
    """
    if not prove_sent(message, Proof.PERSON):
        there = rows([message.pk]).exists()
        status = message.status if there else "deleted"
        raise WrongStatus(f"It is {status}, not unknown.", sms=message.pk)


RESENDABLE = (states.FINAL - {Status.CANCELLED}) | {Status.UNKNOWN}
PROVED = gettext_noop(
    "A late answer says that the gateway accepted it. Choose “Mark as sent”. If you send it again, "
    "you pay twice."
)

OTHER_STATUS = gettext_noop(
    "Its status has changed since the page was shown. Nothing was sent. Look at it, and decide "
    "again."
)

SENSITIVE = gettext_noop("Its text was sensitive and is not stored any more. Write a new message.")
ERASED = gettext_noop("Its number and text were erased. Write a new message.")


def is_proved(message: SmsMessage) -> bool:
    """Return whether a late answer says that the gateway accepted this *unknown* message."""
    late = bool(message.gateway_id) or message.error_text == f"{LATE}{ACCEPTED}"
    return late and message.status == Status.UNKNOWN


def lost_text(message: Any) -> str:
    """Return why the text of this finished message is not stored any more; "" where it is."""
    if message.sensitive:
        return SENSITIVE
    return ERASED if message.erased_at is not None else ""


def may_resend(message: SmsMessage) -> bool:
    """Return whether the text of this message may be sent again, if it has not been resent."""
    try:
        _require_resendable(message)
    except WrongStatus:
        return False
    return True


def resend(message: SmsMessage, *, created_by: Any = None, seen: str | None = None) -> SmsMessage:
    """Queue the same text as a new message that points to the old one; return the new one.

    A message can be resent once (then its successor can be).

    :param message: reread, so that it shows what is stored
    :param created_by: the user who decided so
    :param seen: its status when the user decided; with another one it is not sent again
    :raises LimitExceeded: where prefixes or segments of the day do not allow it; nothing is stored
    :raises RecipientOptedOut: where its number is on the do-not-send list; nothing is stored
    :raises WrongStatus: where its status does not allow it, where it has been resent already, with
        the code "no-text" where its text is not stored any more, with the code "accepted" where
        it was accepted after all, and with the code "changed" where its status is not as it was
        seen; nothing is stored
    """
    try:
        # The lock keeps a late answer and "Mark as sent" out until the new row is stored.
        with transaction.atomic(using=write_db()):
            message.refresh_from_db(using=write_db(), from_queryset=rows().select_for_update())
            _require_resendable(message)
            if seen is not None and message.status != seen:
                raise WrongStatus(OTHER_STATUS, code="changed", sms=message.pk)
            again = SmsMessage(
                to=message.to,
                body=message.body,
                sender=message.sender,
                using=message.using,
                priority=message.priority,
                send_after=clock.now(),
                status=Status.QUEUED,
                resend_of=message,
                mailing_id=message.mailing_id,
                created_by=created_by,
            )
            opt_out.require(again)
            if again.mailing_id is not None:
                # Before the INSERT: its check of the key would lock the mailing for reading only.
                replaced = message.status in mailing_counts.REPLACED
                mailing_counts.add(again.mailing_id, message.segments, again=int(replaced))
            again.save(using=write_db())  # it counts the segments
            limits.Admission(exempt=True).require(again)
            notify.notify_workers()
    except IntegrityError:
        raise WrongStatus("It has been resent already.", sms=message.pk) from None
    return again


def _require_resendable(message: SmsMessage) -> None:
    if message.status not in RESENDABLE:
        raise WrongStatus(f"It is {message.status}: it cannot be resent.", sms=message.pk)
    if why := lost_text(message):
        raise WrongStatus(why, code="no-text", sms=message.pk)
    if is_proved(message):
        raise WrongStatus(PROVED, code="accepted", sms=message.pk)

"""The only way out: claim, send, record, recover.

Every change of status is one conditional UPDATE, committed by itself. A request leaves only after
its row went *queued ─► claimed ─► sending* in two such steps, the second one right before the first
byte. No transaction is open while the network is waited for.
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from django.db import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    connections,
    transaction,
)
from django.db.models import Case, DateTimeField, ExpressionWrapper, F, Value, When
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce, Least
from django.utils import timezone

from . import brakes, conf, pace, states, times, wakeup
from .backends.base import BaseSmsBackend
from .exceptions import (
    SmsError,
    SmsNotSent,
    SmsOutcomeUnknown,
    TemporaryFailure,
    WrongStatus,
    gettext_noop,
)
from .models import SmsMessage, SmsMessageQuerySet, rows, write_db
from .providers import providers
from .receipts import Receipt
from .signals import sms_failed, sms_sent, sms_status_changed
from .states import Status

logger = logging.getLogger(__name__)

Outcome = Receipt | SmsError


class ClaimLost(Exception):
    """The row is no longer this process's to send; nothing was written to the network."""


@dataclass(frozen=True)
class Result:
    """An attempt's end, to be recorded."""

    message: SmsMessage
    outcome: Outcome


# --- one message, while the caller waits ----------------------------------------------------------


def send(message: SmsMessage) -> None:
    """Send one draft or queued message now, or right after the commit of the open transaction.

    Raises ``SmsError`` if it was not sent, ``WrongStatus`` where another worker was faster.
    """
    backend = providers[message.using]
    waits = backend.uses_network and in_transaction()
    if message._state.adding:
        message.save()
    if waits:
        _into_queue(rows([message.pk]))
        message.refresh_from_db(using=write_db())
        send_after_commit(message)
        return
    brakes.refuse_locked_out(message.using)
    _claim_one(message)
    _send_claimed(backend, message, last=False)


def send_new(message: SmsMessage) -> None:
    """Send a message that this process has just stored as claimed, for a caller who waits.

    Raises ``SmsError`` if it was not sent; then nothing of it follows. Returns without an error,
    too, if the lease ran out meanwhile and another worker has it.
    """
    _send_claimed(providers[message.using], message, last=True)


def _send_claimed(backend: BaseSmsBackend, message: SmsMessage, *, last: bool) -> None:
    outcome = _paced_attempt(backend, message)
    if outcome is None:
        message.refresh_from_db(using=write_db())
        return
    asked = message.using
    record([Result(message, outcome)], last=last)
    tell_brakes(asked, outcome)
    if isinstance(outcome, SmsError):
        raise outcome


def tell_brakes(alias: str, outcome: Outcome) -> None:
    """What is recorded is recorded: a fault of the brakes must not look like one of the send."""
    try:
        with transaction.atomic(using=write_db()):
            brakes.note(alias, outcome)
    except Exception as error:
        logger.error("the brakes of %s took no note: %s", alias, type(error).__name__)


def _paced_attempt(backend: BaseSmsBackend, message: SmsMessage) -> Outcome | None:
    try:
        pace.wait(message.using, backend.rate)
        return attempt(backend, message, lambda one: bool(mark_sending([one])))
    except TemporaryFailure as error:
        error.sms = message.pk
        return error
    finally:
        backend.close()


def send_after_commit(message: SmsMessage) -> None:
    """Send when the open transaction commits; an error is logged, for there is nobody to hear it:
    the message stays queued for the worker, or has failed with a word."""
    # A lambda: Django 5.2 asks a failing callback for its name, which a partial has not.
    transaction.on_commit(lambda: _send_quietly(message), using=open_transaction(), robust=True)


def _send_quietly(message: SmsMessage) -> None:
    if in_transaction():  # another database's, or a test's that only plays a commit
        logger.warning("message %s is left to the worker: a transaction is open", message.pk)
        return
    try:
        send(message)
    except SmsError as error:
        logger.error("message %s was not sent after the commit: %s", message.pk, error)


def _claim_one(message: SmsMessage) -> None:
    """Claim a draft or queued message, whatever its time, for sending while somebody waits."""
    _into_queue(rows([message.pk]))
    claimed = claim(rows([message.pk]), timezone.now())
    if not claimed:
        fail_overdue(rows([message.pk]))
        message.refresh_from_db(using=write_db())
        if message.error_code == "expired":
            raise SmsNotSent(
                message.error_text, alias=message.using, code="expired", sms=message.pk
            )
        raise WrongStatus(
            f"Only a draft or a queued message can be sent; this one is {message.status}.",
            alias=message.using,
            sms=message.pk,
        )
    # As claimed: what the row holds a moment later may be another's claim.
    for field in SmsMessage._meta.concrete_fields:
        setattr(message, field.attname, getattr(claimed[0], field.attname))


def in_transaction() -> bool:
    """True while a transaction is open on any database: the network must not be waited for."""
    return open_transaction() is not None


def open_transaction() -> str | None:
    """The alias of a database with an open transaction, the messages' own before others.

    Raises ``TransactionManagementError`` where autocommit is off: there is no commit to wait for.
    """
    connections[write_db()].ensure_connection()
    opened = [one for one in connections.all(initialized_only=True) if one.connection is not None]
    for connection in sorted(opened, key=lambda one: one.alias != write_db()):
        if connection.in_atomic_block:
            return str(connection.alias)
        if not connection.get_autocommit() and connection.alias == write_db():
            raise transaction.TransactionManagementError(
                "Autocommit is off, so nobody can tell when a message is committed. Use atomic()."
            )
    return None


# --- claim, mark, release -------------------------------------------------------------------------


def move(messages: SmsMessageQuerySet, old: Sequence[Status], new: Status, **changes: Any) -> int:
    """The conditional UPDATE behind every change of status; return how many rows moved."""
    for status in old:
        if not states.may_move(status, new):
            raise ValueError(f"{status} ─► {new} is not in the table of states")
    return messages.filter(status__in=old).update(status=new, **changes)


def enqueue(messages: SmsMessageQuerySet) -> int:
    """Put drafts into the queue, and wake the workers; return how many."""
    moved = _into_queue(messages)
    if moved:
        wakeup.ring()
    return moved


def _into_queue(messages: SmsMessageQuerySet) -> int:
    """Put drafts into the queue; those without an expiry get one. Nobody is woken: who calls this
    claims them next."""
    now, latest = timezone.now(), times.latest()
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
    """Take drafts and queued messages out for good; return how many."""
    return move(
        messages, [Status.DRAFT, Status.QUEUED], Status.CANCELLED, finished_at=timezone.now()
    )


def claim(
    candidates: SmsMessageQuerySet, now: datetime, token: str | None = None
) -> list[SmsMessage]:
    """Claim queued messages for this process; return those that it got, in their order.

    A caller that claims again under the same ``token`` must leave out what it still has in hand.
    """
    pks = list(candidates.values_list("pk", flat=True))
    if not pks:
        return []
    token = token or uuid.uuid4().hex
    claimed = move(
        rows(pks).filter(expires_at__gt=now),
        [Status.QUEUED],
        Status.CLAIMED,
        **claim_marks(token, now),
        attempts=F("attempts") + 1,
    )
    if not claimed:
        return []
    mine = rows(pks).filter(token=token, status=Status.CLAIMED).in_bulk()
    return [mine[pk] for pk in pks if pk in mine]


def claim_marks(token: str, now: datetime) -> dict[str, Any]:
    """What a claimed row carries."""
    return {"token": token, "claimed_at": now, "lease_until": now + conf.lease()}


def mark_sending(messages: Sequence[SmsMessage]) -> set[Any]:
    """Mark claimed messages as *sending*; return the keys of those that may now be written to the
    network: all others are no longer this process's."""
    marked: set[Any] = set()
    for token, group in _by_token(messages).items():
        marked |= _persist(partial(_turn, token, [], group, timezone.now()), [])
    return marked


def release(messages: Iterable[SmsMessage]) -> int:
    """Give back what is claimed and not begun, as when a worker is told to stop."""
    given_back = 0
    for token, group in _by_token(messages).items():
        ours = rows(message.pk for message in group).filter(token=token)
        given_back += move(ours, [Status.CLAIMED], Status.QUEUED, **_UNTRIED)
    return given_back


_NOBODYS = {"token": "", "lease_until": None}
#: It was not the message's turn after all: that counts as no attempt.
_UNTRIED = {**_NOBODYS, "attempts": F("attempts") - 1}


def _by_token(messages: Iterable[SmsMessage]) -> dict[str, list[SmsMessage]]:
    groups: dict[str, list[SmsMessage]] = defaultdict(list)
    for message in messages:
        groups[message.token].append(message)
    return groups


# --- the attempt ----------------------------------------------------------------------------------


def attempt(
    backend: BaseSmsBackend, message: SmsMessage, mark: Callable[[SmsMessage], bool]
) -> Outcome | None:
    """Hand a claimed message to its backend; ``None`` if the claim was lost and nothing was sent.

    ``mark`` sets the row to *sending*. It is called by the backend right before the first byte,
    or before the backend is called where it does not announce its first byte. This function
    itself makes no query.
    """
    step = _Step(message, mark)
    message.before_first_byte = step.begin  # type: ignore[attr-defined]
    try:
        outcome = _call(backend, message, step)
        if not (step.begun or isinstance(outcome, SmsNotSent)):
            step.begin()  # the backend promised to announce its first byte, and did not
    except ClaimLost:
        return None
    finally:
        del message.before_first_byte  # type: ignore[attr-defined]
    if isinstance(outcome, SmsError):
        outcome.alias = outcome.alias or backend.alias
        outcome.sms = message.pk
    return outcome


class _Step:
    """Remembers whether the row was marked before the request."""

    def __init__(self, message: SmsMessage, mark: Callable[[SmsMessage], bool]) -> None:
        self.message, self.mark, self.begun = message, mark, False

    def begin(self) -> None:
        if not self.begun:
            if not self.mark(self.message):
                raise ClaimLost
            self.begun = True


def _call(backend: BaseSmsBackend, message: SmsMessage, step: _Step) -> Outcome:
    try:
        backend.open()
        if not backend.announces_first_byte:
            step.begin()
        receipt = backend.send_message(message)
    except ClaimLost:
        raise
    except SmsError as error:
        return error
    except DatabaseError as error:
        if not step.begun:
            logger.error("no database for message %s: %s", message.pk, type(error).__name__)
            text = gettext_noop("The database did not answer. Nothing was sent.")
            return TemporaryFailure(text, code="database")
        return _crash(type(error).__name__, begun=True)
    except Exception as error:
        # The text of a foreign exception may hold the request: only its class is kept.
        name = type(error).__name__
        logger.error("%r raised %s for message %s", backend, name, message.pk)
        return _crash(name, step.begun)
    if not isinstance(receipt, Receipt):
        text = gettext_noop("The provider's program did not say whether the message was taken.")
        return SmsOutcomeUnknown(text, code="no-receipt")
    return _cleaned(receipt)


def _cleaned(receipt: Receipt) -> Receipt:
    """Make a third party's receipt fit for any database."""
    gateway_id, balance = str(receipt.gateway_id), receipt.balance
    if not (gateway_id.isascii() and gateway_id.isprintable() and len(gateway_id) <= 64):
        gateway_id = ""
    if balance is not None and not abs(Decimal(balance)) < 10**12:  # also what is no number
        balance = None
    return replace(receipt, gateway_id=gateway_id, balance=balance)


def _crash(name: str, begun: bool) -> SmsError:
    if begun:
        return SmsOutcomeUnknown(code=f"crash-{name}"[:32])
    text = gettext_noop("The program failed before anything was sent; the log says more.")
    return SmsNotSent(text, code=f"crash-{name}"[:32])


# --- record ---------------------------------------------------------------------------------------


def record(results: Sequence[Result], *, last: bool = False) -> None:
    """Write down what became of attempts: the status first, then the words, which may fail."""
    accepted = [result for result in results if isinstance(result.outcome, Receipt)]
    deeds: list[tuple[Callable[[], Any], list[Result]]] = [
        (partial(_turn, token, group, [], timezone.now()), group)
        for token, group in _results_by_token(accepted).items()
    ] + [
        (partial(_record_error, result, result.outcome, last), [result])
        for result in results
        if isinstance(result.outcome, SmsError)
    ]
    failure: Exception | None = None
    for deed, concerned in deeds:
        try:
            _persist(deed, concerned)
        except Exception as error:
            failure = failure or error
    if failure is not None:
        raise failure


def _results_by_token(results: Iterable[Result]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        groups[result.message.token].append(result)
    return groups


def turn(taken: Sequence[Result], messages: Sequence[SmsMessage]) -> set[Any]:
    """Do :func:`record` and :func:`mark_sending` for a worker, whose messages all have one token:
    what was taken and what goes in its place share one UPDATE, since requests wait for it."""
    if not (taken and messages):
        record(taken)
        return mark_sending(messages)
    token = messages[0].token
    return _persist(partial(_turn, token, taken, messages, timezone.now()), list(taken))


def _turn(
    token: str, taken: Sequence[Result], going: Sequence[SmsMessage], now: datetime
) -> set[Any]:
    """Move ``taken`` from *sending* to *sent*, and ``going`` from *claimed* to *sending*; return
    the keys of those that may go."""
    aliases = {_taken_by(result) for result in taken}
    first = {alias: _first_question(providers[alias], now) for alias in aliases}
    sent = {result.message.pk: _sent_marks(result, now, first) for result in taken}
    marks = {"sending_at": now, "lease_until": now + conf.lease()}
    marked = {message.pk for message in going}
    winners = set(sent)
    if _turn_rows(token, sent, marked, marks) < len(sent) + len(marked):
        # Some were lost; or an earlier try of this very UPDATE went through, which its time tells.
        ours = rows([*sent, *marked]).filter(token=token)
        winners &= set(ours.filter(status=Status.SENT).values_list("pk", flat=True))
        begun = ours.filter(status=Status.SENDING, sending_at=now)
        marked &= set(begun.values_list("pk", flat=True))
    for message in going:
        if message.pk in marked:
            _reflect(message, Status.SENDING, **marks)
    for result in taken:
        if result.message.pk in winners:
            _reflect(result.message, Status.SENT, **sent[result.message.pk])
            announce(result.message, Status.SENDING)
        else:
            _record_late(result)
    return marked


def _turn_rows(
    token: str, sent: dict[Any, dict[str, Any]], going: set[Any], marks: dict[str, Any]
) -> int:
    """The conditional UPDATE of :func:`_turn`, as :func:`move` does one; how many rows moved.

    Written out: a worker's database does little else, and the ORM takes longer to compose this
    than any database to do it. MariaDB assigns from left to right, so the status comes last.
    """
    connection = connections[write_db()]
    field, quote = SmsMessage._meta.get_field, connection.ops.quote_name
    pk, status = quote(str(SmsMessage._meta.pk.column)), quote("status")
    sets: list[str] = []
    params: list[Any] = []

    def assign(name: str, cases: str, values: Iterable[Any]) -> None:
        column = quote(str(field(name).column))  # type: ignore[union-attr]
        sets.append(f"{column} = CASE {cases} ELSE {column} END")
        params.extend(values)

    def ready(name: str, value: Any) -> Any:
        return field(name).get_db_prep_save(value, connection)  # type: ignore[union-attr]

    for name in next(iter(sent.values()), {}):
        values = {key: ready(name, changes[name]) for key, changes in sent.items()}
        one, *others = set(values.values())
        if others:
            each = chain.from_iterable(values.items())
            assign(name, f"{pk} {'WHEN %s THEN %s ' * len(values)}", each)
        else:
            assign(name, f"WHEN {status} = %s THEN %s", (Status.SENDING.value, one))
    for name, value in marks.items() if going else ():
        assign(name, f"WHEN {status} = %s THEN %s", (Status.CLAIMED.value, ready(name, value)))
    params += [Status.CLAIMED.value, Status.SENDING.value, Status.SENT.value, token]
    sets.append(f"{status} = CASE {status} WHEN %s THEN %s ELSE %s END")
    which: list[str] = []
    if sent:
        which.append(f"({pk} IN ({_places(sent)}) AND {status} = %s)")
        params += [*sent, Status.SENDING.value]
    if going:
        in_time = f"{quote('lease_until')} > %s"
        which.append(f"({pk} IN ({_places(going)}) AND {status} = %s AND {in_time})")
        params += [*going, Status.CLAIMED.value, ready("lease_until", marks["sending_at"])]
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {quote(SmsMessage._meta.db_table)} SET {', '.join(sets)}"
            f" WHERE {quote('token')} = %s AND ({' OR '.join(which)})",
            params,
        )
        return int(cursor.rowcount)


def _places(values: Collection[Any]) -> str:
    return ", ".join(["%s"] * len(values))


def _taken_by(result: Result) -> str:
    assert isinstance(result.outcome, Receipt)
    return result.outcome.alias or result.message.using


def _sent_marks(result: Result, now: datetime, first: dict[str, datetime | None]) -> dict[str, Any]:
    """What a row carries once its message was taken. ``first``: when to ask, by provider."""
    assert isinstance(result.outcome, Receipt)
    using = _taken_by(result)
    ask_at = first[using]
    if ask_at is not None and not result.outcome.gateway_id:
        ask_at = now + conf.status_window()  # nothing to ask with: it is given up then
    return {
        "sent_at": now,
        "gateway_id": result.outcome.gateway_id,
        "using": using,
        "next_status_at": ask_at,
        "error_code": "",
        "error_text": "",
    }


def _first_question(backend: BaseSmsBackend, now: datetime) -> datetime | None:
    """When to ask for a report: soon, or never."""
    if not backend.gives_reports:
        return None
    return now + timedelta(seconds=states.ask_again_in(0))


def per_row(name: str, values: dict[Any, Any]) -> Any:
    """The new value of the field ``name``, by key: one where all agree, else a CASE, so that it
    is still one UPDATE."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    # Written out: When() objects cost more than the whole UPDATE.
    connection = connections[write_db()]
    field: Any = SmsMessage._meta.get_field(name)
    key = connection.ops.quote_name(str(SmsMessage._meta.pk.column))
    parts: list[Any] = []
    for pk, value in values.items():
        parts += [pk, field.get_db_prep_save(value, connection)]
    return RawSQL(f"CASE {key} {'WHEN %s THEN %s ' * len(values)}END", parts, field)


def _record_error(result: Result, error: SmsError, last: bool) -> None:
    message, now = result.message, timezone.now()
    decision = states.decide(
        error.kind, attempts=message.attempts, most=conf.max_attempts(), last=last
    )
    old = (
        [Status.SENDING] if decision.status == Status.UNKNOWN else [Status.CLAIMED, Status.SENDING]
    )
    changes: dict[str, Any] = {}
    if decision.status == Status.QUEUED:
        changes = dict(_NOBODYS)
        if decision.retry_in:
            wait = decision.retry_in * random.uniform(1, 1.2)
            changes["send_after"] = now + timedelta(seconds=wait)
    elif decision.status == Status.FAILED:
        changes["finished_at"] = now
    words = {"error_code": str(error.code)[:32], "error_text": error.words}
    before = rows([message.pk]).filter(token=message.token)
    if not move(before, old, decision.status, **changes):
        after = rows([message.pk]).filter(token=message.token, status=decision.status)
        if not after.exists():  # else the first try of this very UPDATE went through
            _record_late(result)
            return
    _write_words(message, words)
    was = Status(message.status)
    if decision.status == Status.QUEUED:
        message.refresh_from_db(using=write_db())
    else:
        _reflect(message, decision.status, **changes, **words)
    announce(message, was, decision.status)


def _write_words(message: SmsMessage, words: dict[str, str]) -> None:
    """Diagnostics are written after the status, and may fail without harm."""
    try:
        with transaction.atomic(using=write_db()):
            rows([message.pk]).update(**words)
    except DatabaseError as error:
        logger.warning("no words for message %s: %s", message.pk, type(error).__name__)


LATE = "A late answer: "
TAKEN = gettext_noop("it was taken.")


def _record_late(result: Result) -> None:
    """The row was given up meanwhile: keep what is known for the person who decides."""
    message, outcome = result.message, result.outcome
    if isinstance(outcome, Receipt):
        words = {"gateway_id": outcome.gateway_id, "error_text": f"{LATE}{TAKEN}"}
    else:
        words = {"error_text": f"{LATE}{outcome.words}"}
    unknown = rows([message.pk]).filter(token=message.token, status=Status.UNKNOWN)
    if not unknown.update(**words):
        if isinstance(outcome, SmsNotSent):
            logger.warning("message %s was not sent, and its row had moved on", message.pk)
        else:
            _cry(result, "its row had moved on")
    message.refresh_from_db(using=write_db())


def _cry(result: Result, why: str) -> None:
    outcome = result.outcome
    verdict = outcome.kind if isinstance(outcome, SmsError) else f"taken as {outcome.gateway_id!r}"
    logger.critical("message %s: %s, but %s", result.message.pk, verdict, why)


_T = TypeVar("_T")


def _persist(deed: Callable[[], _T], results: list[Result]) -> _T:
    """Do a write that must not be lost: over new connections, again and again, for a lease."""
    give_up = time.monotonic() + conf.lease().total_seconds()
    pause = 0.05
    while True:
        try:
            return deed()
        except Exception as error:
            passing = isinstance(error, (OperationalError, InterfaceError, InternalError))
            if not passing or in_atomic_block() or time.monotonic() > give_up:
                for result in results:
                    _cry(result, f"the database did not take it ({type(error).__name__})")
                raise
        connections[write_db()].close()
        time.sleep(pause)
        pause = min(pause * 2, 5)


def in_atomic_block() -> bool:
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

LEASE_ENDED = gettext_noop("Its worker died or stood still in the middle of the request.")
EXPIRED_UNSENT = gettext_noop("It expired before it could be sent.")
AT_MOST = 1000  # rows a pass: the rest is the next pass's


def recover() -> dict[str, int]:
    """Take up what dead workers left: *claimed* goes back to the queue, *sending* is unknown."""
    now = timezone.now()
    stale = rows().stale(now)
    back = move(stale, [Status.CLAIMED], Status.QUEUED, **_UNTRIED) if stale.exists() else 0
    lost = 0
    for message in stale.filter(status=Status.SENDING)[:AT_MOST]:
        ours = rows([message.pk]).filter(token=message.token, lease_until__lte=now)
        words = {"error_code": "lease", "error_text": LEASE_ENDED}
        if move(ours, [Status.SENDING], Status.UNKNOWN, **words):
            lost += 1
            _reflect(message, Status.UNKNOWN, **words)
            announce(message, Status.SENDING)
    return {"queued": back, "unknown": lost, "failed": fail_overdue(rows())}


def fail_overdue(messages: SmsMessageQuerySet) -> int:
    """Fail queued messages whose expiry has passed; return how many."""
    now, failed = timezone.now(), 0
    for message in messages.overdue(now)[:AT_MOST]:
        changes = {"error_code": "expired", "error_text": EXPIRED_UNSENT, "finished_at": now}
        if move(rows([message.pk]).overdue(now), [Status.QUEUED], Status.FAILED, **changes):
            failed += 1
            _reflect(message, Status.FAILED, **changes)
            announce(message, Status.QUEUED)
    return failed


# --- a person's word ------------------------------------------------------------------------------


def confirm_sent(message: SmsMessage) -> None:
    """A person says that an *unknown* message was sent. Raises ``WrongStatus`` for any other."""
    now = timezone.now()
    ask_at = now if message.gateway_id else now + conf.status_window()
    reports = providers[message.using].gives_reports
    moved = move(
        rows([message.pk]),
        [Status.UNKNOWN],
        Status.SENT,
        sent_at=F("sending_at"),
        next_status_at=ask_at if reports else None,
    )
    message.refresh_from_db(using=write_db())
    if not moved:
        raise WrongStatus(f"It is {message.status}, not unknown.", sms=message.pk)
    announce(message, Status.UNKNOWN)


RESENDABLE = (states.FINAL - {Status.CANCELLED}) | {Status.UNKNOWN}


def resend(message: SmsMessage, *, created_by: Any = None) -> SmsMessage:
    """Queue the same text as a new message that points to the old one; return the new one.

    A message can be resent once (then its successor can be). Raises ``WrongStatus`` otherwise.
    """
    message.refresh_from_db(using=write_db())
    if message.status not in RESENDABLE:
        raise WrongStatus(f"It is {message.status}: it cannot be resent.", sms=message.pk)
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
    try:
        with transaction.atomic(using=write_db()):
            again.save(using=write_db())
            wakeup.ring()
    except IntegrityError:
        raise WrongStatus("It has been resent already.", sms=message.pk) from None
    return again

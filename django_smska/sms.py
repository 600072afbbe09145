"""Public functions: ``send_sms``, ``queue_sms``, ``send_mass_sms``, ``providers``, ``outbox``."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from . import checked_backend, circuit_breaker, clock, conf, notify, sending
from .backends.locmem import outbox
from .checked_backend import CheckedBackend
from .exceptions import SmsNotSent
from .models import SmsMessage, rolled_back, rows, write_db
from .providers import DEFAULT_ALIAS, providers
from .states import Status

if TYPE_CHECKING:
    from .tasks import Handover

__all__ = ["outbox", "providers", "queue_sms", "send_mass_sms", "send_sms"]

logger = logging.getLogger(__name__)

BATCH_ROWS = 1000  # the rows of one INSERT
# Of texts in a query, so that MariaDB accepts them in one packet (16 MB)
MAX_QUERY_CHARACTERS = 1_000_000
MAX_BAD_ROWS_KEPT = 1000

ROW = "(number, text) pairs or unsaved SmsMessage objects"
Row = tuple[int, SmsMessage]  # number of the row from 0, and its message


def send_sms(
    to: Any,
    body: str | Promise,
    *,
    sender: str | Promise = "",
    using: str = DEFAULT_ALIAS,
    expires_at: datetime | None = None,
    priority: int = 0,
    idempotency_key: str | None = None,
    created_by: Any = None,
    may_wait: bool = False,
    send_after: None = None,
) -> SmsMessage:
    """Store a message, send it, and return it.

    Inside a transaction it is stored, and sent right after the commit. A failure is then seen in
    its status, in the log and by the signals. A backend without a network acts at once.

    No worker sends it later, unless ``may_wait`` is set: it ends as *sent*, *failed* or *unknown*,
    also where its process is killed.

    Two messages to one number may be in flight at once, so that they may arrive in either order.
    Where the order matters, send the second when the first is *delivered* (``sms_status_changed``).

    :param to: a number in any spelling of :func:`django_smska.numbers.normalize`
    :param body: the text, or a ``gettext_lazy`` text
    :param sender: the sender ID; empty for the provider's
    :param using: an alias of ``SMS_PROVIDERS``
    :param expires_at: not sent after this time; by default ``SMSKA_EXPIRES_AFTER`` from now
    :param priority: a whole number from -32767 to 32767; higher goes first
    :param idempotency_key: the same key again returns the first message and sends nothing
    :param created_by: a user, such as ``request.user``; one who is not logged in counts as ``None``
    :param may_wait: leave the message in the queue, and raise nothing, where it was definitely not
        accepted and may be accepted later
    :param send_after: refused with ``TypeError``, because it belongs to :func:`queue_sms`
    :raises ValidationError: for a number, text, key or time that cannot be used, and for a key that
        has another number or text; nothing is stored
    :raises InvalidProvider: for an unknown alias or a wrong entry; nothing is stored
    :raises SmsNotSent: where it was definitely not sent. The stored message is *failed*, and
        sending again is safe. With the code "paused" nothing is stored, and the text says until
        when the provider is paused.
    :raises SmsOutcomeUnknown: where it may have been sent: do not send again. Errors carry the
        message's primary key as ``sms``.
    """
    message = SmsMessage(
        to=to, body=cast(Any, body), sender=cast(Any, sender), using=using, expires_at=expires_at,
        priority=priority, idempotency_key=idempotency_key, status=Status.QUEUED,
        immediate=not may_wait,
    )  # fmt: skip
    del to, body  # a debug page shows the local variables of every frame
    if send_after is not None:
        raise TypeError("send_sms() sends now. Use queue_sms(…, send_after=…) to send later.")
    message.created_by = created_by
    backend = checked_backend.provider(using)

    waits = storing = False

    def claim() -> None:
        nonlocal storing
        if _admitted(backend, waits=waits, may_wait=may_wait):
            _claim_unstored(message)
        storing = True

    with sending.nothing_sent_without_database(message, may_be_queued=lambda: may_wait and storing):
        waits = backend.uses_network and sending.in_transaction()
        _check(message)
        stored, is_new = _store(message, claim)
    if is_new and waits and stored.status == Status.CLAIMED:
        sending.send_after_commit(stored, may_wait=may_wait)
    elif is_new and stored.status == Status.CLAIMED:
        sending.send_new(stored, backend, may_wait=may_wait)
    if is_new and stored.status == Status.QUEUED:
        _hand_to_workers(stored)
    return stored


def _admitted(backend: CheckedBackend, *, waits: bool, may_wait: bool) -> bool:
    """Return False where the provider is paused and the message may wait for its end."""
    try:
        circuit_breaker.admit(backend, may_ask=not waits)
    except SmsNotSent:
        if not may_wait:
            raise
        return False
    return True


def queue_sms(
    to: Any,
    body: str | Promise,
    *,
    sender: str | Promise = "",
    using: str = DEFAULT_ALIAS,
    send_after: datetime | None = None,
    expires_at: datetime | None = None,
    priority: int = 0,
    idempotency_key: str | None = None,
    created_by: Any = None,
) -> SmsMessage:
    """Store a message for a worker to send, and return it. Never wait for the network.

    Workers are ``manage.py sms_worker``, or those of the task engine that ``SMSKA_TASKS`` names.

    Messages leave by priority and time, but the order to one number is not kept: two may be in
    flight at once, and one that is tried again comes later.

    :param send_after: not sent before this time; by default now
    :param expires_at: not sent after this time; by default ``SMSKA_EXPIRES_AFTER`` after
        ``send_after``

    The rest is as with :func:`send_sms`.
    """
    message = SmsMessage(
        to=to, body=cast(Any, body), sender=cast(Any, sender), using=using,
        send_after=send_after or clock.now(), expires_at=expires_at, priority=priority,
        idempotency_key=idempotency_key, status=Status.QUEUED,
    )  # fmt: skip
    del to, body
    message.created_by = created_by
    providers.require(using)
    _check(message)
    stored, is_new = _store(message)
    if is_new:
        _hand_to_workers(stored)
    return stored


def _hand_to_workers(message: SmsMessage) -> None:
    notify.notify_workers()
    if (handover := _handover()) is not None:
        handover.add([message])
        handover.on_commit()


class Stored(int):
    """The number of messages that were stored.

    :ivar errors: ``(row number from 0, ValidationError)`` of those that were not, the first
        thousand
    :ivar bad: how many were not
    """

    errors: list[tuple[int, ValidationError]]
    bad: int


def send_mass_sms(messages: Iterable[Any], *, using: str | None = None) -> Stored:
    """Store many messages for the workers; return how many, as a :class:`Stored`.

    A row that is not valid is skipped, logged, and listed in ``errors`` of the result; the others
    are stored. Of messages with an idempotency key that is stored already, nothing is stored
    again; one with another number or text is not valid. Everything is stored in one transaction: if
    the iterable or the database fails on the way, nothing is stored, and the call can be repeated
    without a duplicate, also with the same objects, and after a rollback of the caller. Only where
    the connection is lost during the commit all of it may be stored; then repeating is safe for
    messages with a key.

    :param messages: ``(number, text)`` pairs or unsaved ``SmsMessage`` objects, from any iterable;
        no more than a batch of it is held in memory
    :param using: the provider for all of them
    :raises TypeError: where no row at all is of such a kind
    """
    if isinstance(messages, (str, bytes)):
        raise TypeError(f"send_mass_sms takes an iterable of {ROW}.")
    messages = iter(messages)  # a debug page does not show what an iterator holds
    if using is not None:
        providers.require(using)
    bad = _BadRows()
    stored = 0
    handover = _handover()
    with transaction.atomic(using=write_db()):
        good = _of_right_kind(messages, bad)
        while batch := list(islice(good, BATCH_ROWS)):
            new = _store_batch(_valid(_without_stored(batch, bad), using, bad), bad)
            stored += len(new)
            if handover is not None:
                handover.add(new)
        if handover is not None:
            handover.on_commit()
        notify.notify_workers()
    if bad.wrong_kind and bad.wrong_kind == bad.rows:
        raise TypeError(f"send_mass_sms takes an iterable of {ROW}; this one has {bad.first_kind}.")
    result = Stored(stored)
    result.errors, result.bad = sorted(bad.errors, key=itemgetter(0)), bad.number
    if bad.number:
        words = "%s of %s messages were not valid: see 'errors' of what send_mass_sms returned"
        logger.warning(words, bad.number, bad.number + stored)
    return result


def _handover() -> Handover | None:
    """Return the handover to the task engine, or None without one: the worker command sends."""
    try:
        if conf.tasks() is None:
            return None
        from .tasks import Handover
    except Exception as error:  # of another party's backend: the messages are stored all the same
        logger.error("SMSKA_TASKS cannot be used (%s); sms_worker sends.", type(error).__name__)
        return None
    return Handover()


class _BadRows:
    def __init__(self) -> None:
        self.errors: list[tuple[int, ValidationError]] = []
        self.number = 0
        self.rows = 0  # in all, good ones too
        self.wrong_kind = 0
        self.first_kind = ""

    def add(self, index: int, error: ValidationError) -> None:
        self.number += 1
        if len(self.errors) < MAX_BAD_ROWS_KEPT:
            self.errors.append((index, error))


class _WrongKind(ValidationError):
    """A row that is neither a pair nor a message; ``kind`` says what it is, never its content."""

    def __init__(self, row: Any) -> None:
        self.kind = type(row).__name__
        if isinstance(row, (tuple, list)):
            self.kind += f" of {len(row)}"
        words = _("A row is (number, text) or an SmsMessage, not %(kind)s.")
        super().__init__(words, code="invalid_row", params={"kind": self.kind})


def _of_right_kind(messages: Iterable[Any], bad: _BadRows) -> Iterator[Row]:
    """Iterate over the rows as messages that are not checked yet."""
    for index, row in enumerate(messages):
        bad.rows += 1
        try:
            message = _message(row)
        except _WrongKind as error:
            bad.wrong_kind += 1
            bad.first_kind = bad.first_kind or error.kind
            bad.add(index, error)
            continue
        finally:
            del row
        yield index, message


def _message(row: Any) -> SmsMessage:
    if isinstance(row, SmsMessage):
        return row
    if isinstance(row, (tuple, list)) and len(row) == 2:
        return SmsMessage(to=row[0], body=row[1], send_after=clock.now())
    raise _WrongKind(row)


def _without_stored(batch: list[Row], bad: _BadRows) -> list[Row]:
    """Leave out objects that are stored. One whose transaction was rolled back is new again."""
    seem_stored = [message for _, message in batch if not message._state.adding]
    for message in rolled_back(seem_stored):
        message.make_new()
    for index, message in batch:
        if not message._state.adding:
            bad.add(index, _stored_already())
    return [(index, message) for index, message in batch if message._state.adding]


def _valid(batch: list[Row], using: str | None, bad: _BadRows) -> list[Row]:
    """Make the messages of a batch ready to be queued; leave out those that are not valid.

    :raises InvalidProvider: for an unknown alias
    """
    valid: list[Row] = []
    for index, message in batch:
        message.using = using or message.using
        message.status = Status.QUEUED
        providers.require(message.using)
        try:
            _check(message)
        except ValidationError as error:
            bad.add(index, error)
        else:
            valid.append((index, message))
    return valid


def _store_batch(batch: list[Row], bad: _BadRows) -> list[SmsMessage]:
    """Insert the messages whose idempotency key is new; return them."""
    batch = _without_repeats(batch, bad)
    new, refused = _with_new_keys(batch)
    longest = max([1, *(len(message.body) for _, message in new)])
    try:
        with transaction.atomic(using=write_db()):
            rows().bulk_create(
                [message for _, message in new], batch_size=max(MAX_QUERY_CHARACTERS // longest, 1)
            )
    except IntegrityError as error:
        _require_key_conflict(error)
        return list(_store_each(batch, bad))  # another process has just stored one of the keys
    for index in refused:
        bad.add(index, _reused())
    return [message for _, message in new]


def _without_repeats(batch: list[Row], bad: _BadRows) -> list[Row]:
    """Leave out an object that is in the batch twice: the first of them is stored."""
    firsts: dict[int, Row] = {}
    for index, message in batch:
        if id(message) in firsts:
            bad.add(index, _stored_already())
        firsts.setdefault(id(message), (index, message))
    return list(firsts.values())


def _with_new_keys(batch: list[Row]) -> tuple[list[Row], list[int]]:
    """Leave out messages whose idempotency key is stored already, or stands twice in the batch;
    return the others, and the row numbers of those that have another number or text."""
    keys = [message.idempotency_key for _, message in batch if message.idempotency_key]
    stored = rows().filter(idempotency_key__in=keys).values_list("idempotency_key", "to", "body")
    known = {key: content for key, *content in stored} if keys else {}
    new, refused = [], []
    for index, message in batch:
        key, content = message.idempotency_key, [message.to, message.body]
        if not key or key not in known:
            new.append((index, message))
        elif known[key] != content:
            refused.append(index)
        if key:
            known.setdefault(key, content)
    return new, refused


def _store_each(batch: list[Row], bad: _BadRows) -> Iterator[SmsMessage]:
    for index, message in batch:
        message.make_new()  # the INSERT that failed may have set its key
        try:
            stored, is_new = _store(message)
        except ValidationError as error:
            bad.add(index, error)
            continue
        if is_new:
            yield stored


def _check(message: SmsMessage) -> None:
    message.prepare()
    if message.expires_at and message.expires_at <= timezone.now():
        words = _("This time is in the past.")
        raise ValidationError({"expires_at": words})


def _claim_unstored(message: SmsMessage) -> None:
    """Store it as claimed by us at once, so that no worker claims it before the caller."""
    claimed = sending.claim_fields(uuid.uuid4().hex, clock.now())
    for name, value in {**claimed, "status": Status.CLAIMED, "attempts": 1}.items():
        setattr(message, name, value)


def _store(
    message: SmsMessage, before: Callable[[], None] = lambda: None
) -> tuple[SmsMessage, bool]:
    """Insert the message, or find the one with its key; return it, and whether it is new.

    :param before: called right before a new one is inserted; it may raise
    :raises ValidationError: where the one with the key has another number or text
    """
    key = message.idempotency_key
    if key is None:
        before()
        message.save(using=write_db())
        return message, True
    first = _first_with(key)
    if first is None:
        before()
        if _insert(message):
            return message, True
        first = _first_with(key) or _latest_with(key)
    if first is None:  # a SERIALIZABLE transaction sees the rows as they were at its start
        words = _("Another transaction has just stored a message with this key. Run yours again.")
        raise ValidationError({"idempotency_key": ValidationError(words, code="conflict")})
    if (first.idempotency_key, first.to, first.body) != (key, message.to, message.body):
        raise _reused()
    return first, False


def _insert(message: SmsMessage) -> bool:
    """Return False, with nothing stored, where the idempotency key is another message's."""
    try:
        with transaction.atomic(using=write_db()):
            message.save(using=write_db())
    except IntegrityError as error:
        _require_key_conflict(error)
        return False
    return True


def _require_key_conflict(error: IntegrityError) -> None:
    """Raise the error again unless it is about the key.

    Its text quotes the key, so that it must not be the context of an error of ours.
    """
    if "idempotency_key" not in str(error):
        raise error


def _stored_already() -> ValidationError:
    return ValidationError(_("This message is stored already."), code="stored")


def _reused() -> ValidationError:
    words = _(
        "A message with this key and another number or text is stored already. Use another key "
        "for another message."
    )
    error = ValidationError(words, code="idempotency_key_reused")
    return ValidationError({"idempotency_key": error})


def _first_with(key: str) -> SmsMessage | None:
    return rows().filter(idempotency_key=key).first()


def _latest_with(key: str) -> SmsMessage | None:
    """Read past the snapshot of a REPEATABLE READ transaction on MariaDB."""
    with transaction.atomic(using=write_db()):
        return rows().select_for_update().filter(idempotency_key=key).first()

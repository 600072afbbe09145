"""The front door: ``send_sms``, ``queue_sms``, ``send_mass_sms``, ``providers``, ``outbox``."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from . import brakes, conf, fence, sending, wakeup
from .backends.locmem import outbox
from .models import SmsMessage, rows, write_db
from .providers import DEFAULT_ALIAS, providers
from .states import Status

if TYPE_CHECKING:
    from .tasks import Handover

__all__ = ["outbox", "providers", "queue_sms", "send_mass_sms", "send_sms"]

logger = logging.getLogger(__name__)

BATCH = 1000  # rows an INSERT
CHARACTERS = 1_000_000  # of texts a query, so that MariaDB takes them in one packet (16 MB)
BAD_ROWS_KEPT = 1000


def send_sms(
    to: Any,
    body: str,
    *,
    sender: str = "",
    using: str = DEFAULT_ALIAS,
    expires_at: datetime | None = None,
    priority: int = 0,
    idempotency_key: str | None = None,
    created_by: Any = None,
) -> SmsMessage:
    """Store a message and send it before returning.

    Inside a transaction it is stored, and sent right after the commit; a failure is then seen in
    its status, in the log and by the signals. A backend that touches no network acts at once.

    ``to``: a number in any spelling of :func:`django_smska.numbers.normalize`. ``sender``: the
    sender ID, empty for the provider's. ``using``: an alias of ``SMS_PROVIDERS``.
    ``idempotency_key``: the same key again returns the first message and sends nothing.

    Raises ``ValidationError`` and ``InvalidProvider`` before anything is stored, and so, at once,
    ``SmsNotSent`` with the code "paused" while the provider is paused: its text says until when.
    Raises ``SmsNotSent`` where it was definitely not sent (the stored message is then *failed*:
    sending again is safe);
    ``SmsOutcomeUnknown`` where it may have been (do not send anew). Errors carry the message's
    primary key as ``sms``.
    """
    message = SmsMessage(
        to=to, body=body, sender=sender, using=using, expires_at=expires_at, priority=priority,
        idempotency_key=idempotency_key, created_by=created_by, status=Status.QUEUED,
    )  # fmt: skip
    del to, body  # a debug page shows the local variables of every frame
    backend = fence.provider(using)
    waits = backend.uses_network and sending.in_transaction()

    def admit() -> None:
        brakes.admit(backend, may_ask=not waits)
        if not waits:
            _claim_unstored(message)

    _check(message)
    stored, is_new = _store(message, admit)
    if is_new and waits:
        sending.send_after_commit(stored)
    elif is_new:
        sending.send_new(stored, backend)
    return stored


def queue_sms(
    to: Any,
    body: str,
    *,
    sender: str = "",
    using: str = DEFAULT_ALIAS,
    send_after: datetime | None = None,
    expires_at: datetime | None = None,
    priority: int = 0,
    idempotency_key: str | None = None,
    created_by: Any = None,
) -> SmsMessage:
    """Store a message for a worker (``manage.py sms_worker``, or those of the task engine that
    ``SMSKA_TASKS`` names) to send; never wait for the network.

    ``send_after``: not before this time. ``expires_at``: not after this time, by default
    ``SMSKA_EXPIRES_AFTER`` after ``send_after``. ``priority``: higher goes first. The rest is as
    with :func:`send_sms`.
    """
    message = SmsMessage(
        to=to, body=body, sender=sender, using=using, send_after=send_after or timezone.now(),
        expires_at=expires_at, priority=priority, idempotency_key=idempotency_key,
        created_by=created_by, status=Status.QUEUED,
    )  # fmt: skip
    del to, body
    providers.require(using)
    _check(message)
    stored, is_new = _store(message)
    if is_new:
        wakeup.ring()
    if is_new and (handover := _handover()) is not None:
        handover.add([stored])
        handover.on_commit()
    return stored


class Stored(int):
    """How many messages were stored; ``errors`` has ``(row number from 0, ValidationError)`` of
    those that were not, the first thousand, and ``bad`` their number."""

    errors: list[tuple[int, ValidationError]]
    bad: int


def send_mass_sms(messages: Iterable[Any], *, using: str | None = None) -> Stored:
    """Store many messages for the workers; return how many, as an int with ``errors``.

    ``messages``: ``(number, text)`` pairs or unsaved ``SmsMessage`` objects, from any iterable; no
    more than a batch of it is held in memory. ``using``: the provider for all of them.

    A row that is not valid is passed over, logged, and told in the result; the others are stored.
    Of messages with an idempotency key that is stored already, nothing is stored again. All is
    stored in one transaction: if the iterable or the database fails on the way, nothing is, and
    the whole can be run again without a double.
    """
    if isinstance(messages, (str, bytes)):
        raise TypeError("send_mass_sms takes an iterable of (number, text) or SmsMessage.")
    messages = iter(messages)  # and hides what it holds from a debug page
    if using is not None:
        providers.require(using)
    bad = _BadRows()
    stored = 0
    handover = _handover()
    with transaction.atomic(using=write_db()):
        good = _good_rows(messages, using, bad)
        while batch := list(islice(good, BATCH)):
            batch = _without_known_keys(batch)
            longest = max([1, *(len(message.body) for message in batch)])
            rows().bulk_create(batch, batch_size=max(CHARACTERS // longest, 1))
            stored += len(batch)
            if handover is not None:
                handover.add(batch)
        if handover is not None:
            handover.on_commit()
        wakeup.ring()
    result = Stored(stored)
    result.errors, result.bad = bad.errors, bad.number
    if bad.number:
        logger.warning("%s of %s messages were not valid", bad.number, bad.number + stored)
    return result


def _handover() -> Handover | None:
    """The way to the task engine; None without one: the worker command sends."""
    try:
        if conf.tasks() is None:
            return None
        from .tasks import Handover
    except Exception as error:  # of another party's backend, and no reason to store nothing
        logger.error("SMSKA_TASKS cannot be used (%s); sms_worker sends.", type(error).__name__)
        return None
    return Handover()


class _BadRows:
    def __init__(self) -> None:
        self.errors: list[tuple[int, ValidationError]] = []
        self.number = 0

    def add(self, index: int, error: ValidationError) -> None:
        self.number += 1
        if len(self.errors) < BAD_ROWS_KEPT:
            self.errors.append((index, error))


def _good_rows(messages: Iterable[Any], using: str | None, bad: _BadRows) -> Iterator[SmsMessage]:
    for index, row in enumerate(messages):
        try:
            message = _queued(row, using)
        except ValidationError as error:
            bad.add(index, error)
            continue
        finally:
            del row
        yield message


def _without_known_keys(batch: list[SmsMessage]) -> list[SmsMessage]:
    """Leave out messages whose idempotency key is stored already, or stands twice in the batch."""
    keyed = {one.idempotency_key: one for one in reversed(batch) if one.idempotency_key}
    if not keyed:
        return batch
    known = set(rows().filter(idempotency_key__in=keyed).values_list("idempotency_key", flat=True))
    return [
        one
        for one in batch
        if not one.idempotency_key
        or (one.idempotency_key not in known and keyed[one.idempotency_key] is one)
    ]


def _queued(row: Any, using: str | None) -> SmsMessage:
    """Make a row of ``send_mass_sms`` a valid, queued, unsaved message."""
    if isinstance(row, SmsMessage):
        if not row._state.adding or getattr(row, "_queued_once", False):
            raise ValidationError(_("This message is stored already."), code="stored")
        message = row
        message.using = using or message.using
        message._queued_once = True  # type: ignore[attr-defined]
    elif isinstance(row, (tuple, list)) and len(row) == 2:
        message = SmsMessage(to=row[0], body=row[1], using=using or DEFAULT_ALIAS)
    else:
        words = _("A row is (number, text) or an SmsMessage.")
        raise ValidationError(words, code="invalid_row")
    providers.require(message.using)
    message.status = Status.QUEUED
    _check(message)
    return message


def _check(message: SmsMessage) -> None:
    message.prepare()
    if message.expires_at and message.expires_at <= timezone.now():
        words = _("This time has passed: nothing would be sent.")
        raise ValidationError({"expires_at": words})


def _claim_unstored(message: SmsMessage) -> None:
    """Store it as claimed by us at once, so that no worker takes it from under the caller."""
    marks = sending.claim_marks(uuid.uuid4().hex, timezone.now())
    for name, value in {**marks, "status": Status.CLAIMED, "attempts": 1}.items():
        setattr(message, name, value)


def _store(
    message: SmsMessage, before: Callable[[], None] = lambda: None
) -> tuple[SmsMessage, bool]:
    """Insert the message, or find the one with its idempotency key; tell whether it is new.

    ``before``: called right before a new one is inserted; it may raise.
    """
    if message.idempotency_key is None:
        before()
        message.save(using=write_db())
        return message, True
    if (first := _first_with(message.idempotency_key)) is not None:
        return first, False
    before()
    try:
        with transaction.atomic(using=write_db()):
            message.save(using=write_db())
    except IntegrityError:
        first = _first_with(message.idempotency_key)
        if first is None:
            raise
        return first, False
    return message, True


def _first_with(key: str) -> SmsMessage | None:
    first = rows().filter(idempotency_key=key).first()
    if first is not None and first.idempotency_key != key:
        # MariaDB compares text without regard to case and accents.
        words = _("Another message has this key in another spelling (case, accent).")
        raise ValidationError({"idempotency_key": words})
    return first

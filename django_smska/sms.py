"""Public functions ``send_sms``, ``send_code``, ``queue_sms``, ``send_mass_sms``,
``send_template``, ``render_template``; ``asend_sms``, ``asend_code``, ``aqueue_sms``,
``asend_template`` for asynchronous code; ``providers``, ``outbox``."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import nullcontext
from datetime import datetime, timedelta
from functools import partial, wraps
from inspect import signature
from itertools import islice
from operator import itemgetter
from typing import Any, ParamSpec, cast

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.formats import date_format
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from . import (
    allowed_senders,
    async_calls,
    checked_backend,
    circuit_breaker,
    clock,
    handover,
    held_queue,
    mailing_counts,
    notify,
    opt_out,
    own_connection,
    sending,
    text_templates,
    times,
)
from .backends.locmem import outbox
from .checked_backend import CheckedBackend
from .conflicts import in_atomic_block, repeat_conflicts
from .exceptions import LimitExceeded, RecipientOptedOut, SmsNotSent, SmsOutcomeUnknown
from .limits import Admission
from .models import SmsMailing, SmsMessage, mailings, rolled_back, rows, write_db
from .providers import DEFAULT_ALIAS, providers
from .query_errors import hides_frames, hides_values
from .redact import Hidden
from .shapes import is_sequence
from .states import Status

__all__ = [
    "aqueue_sms",
    "asend_code",
    "asend_sms",
    "asend_template",
    "outbox",
    "providers",
    "queue_sms",
    "render_template",
    "send_code",
    "send_mass_sms",
    "send_sms",
    "send_template",
]

logger = logging.getLogger(__name__)

BATCH_ROWS = 1000  # the rows of one INSERT
# Of texts in a query, so that MariaDB accepts them in one packet (16 MB)
MAX_QUERY_CHARACTERS = 1_000_000
MAX_BAD_ROWS_KEPT = 1000
MAX_CODE_VALIDITY = timedelta(days=1)

ROW = "(number, text) pairs or unsaved SmsMessage objects"
Refusal = ValidationError | SmsNotSent
Row = tuple[int, SmsMessage]  # number of the row from 0, and its message
_P = ParamSpec("_P")


@hides_values
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
    sensitive: bool = False,
    code: str = "",
    despite_opt_out: bool = False,
    caller: str = "",
    repeat: bool = False,
    exempt: bool = False,
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
    :param sensitive: the text is for the recipient alone: no user of the admin sees it, and it is
        never stored. With ``may_wait`` it is wiped from the row once it is not needed for sending.
        ``body`` of the returned message shows what is stored
    :param code: the one-time code in the text. The message is sensitive, and of its text the code
        alone is wiped, and replaced by dots. Between two codes to one number the wait grows
        (``SMSKA_LIMITS``)
    :param despite_opt_out: send the code also where the number is on the do-not-send list, because
        the person has just asked for it. Refused without ``code``
    :param caller: for whom it is sent, such as the address of a visitor: ``SMSKA_LIMITS`` counts
        by it; by default whom :func:`~django_smska.decorators.limit_visitors` counts
    :param repeat: the same text may go to the same number again. It may in any case where the first
        message was definitely not sent
    :param exempt: the limits of number, caller, text and code neither hold nor count it, as for
        the shop's own manager; prefixes and segments always hold
    :param send_after: refused with ``TypeError``, because it belongs to :func:`queue_sms`
    :raises ValidationError: for a number, text, key or time that cannot be used, and for a key that
        has another number or text; nothing is stored
    :raises InvalidProvider: for an unknown alias or a wrong entry; nothing is stored
    :raises RecipientOptedOut: where the number is on the do-not-send list; nothing is stored, or
        the message is *cancelled*, if the number was added at this moment
    :raises LimitExceeded: where ``SMSKA_LIMITS`` does not allow it; nothing is stored, and
        ``retry_at`` says when it would pass
    :raises SmsNotSent: where it was definitely not sent. The stored message is *failed*, and
        sending again is safe. With the code "paused" nothing is stored, and the text says until
        when the provider is paused; with "stopped" nothing is stored either, and a person must
        resume it.
    :raises SmsOutcomeUnknown: where it may have been sent: do not send again. Errors carry the
        message's primary key as ``sms``.
    """
    message = SmsMessage(
        to=to, body=cast(Any, body), sender=cast(Any, sender), using=using, expires_at=expires_at,
        priority=priority, idempotency_key=idempotency_key, status=Status.QUEUED,
        immediate=not may_wait, sensitive=sensitive, code=code, despite_opt_out=despite_opt_out,
    )  # fmt: skip
    del to, body, code  # a debug page shows the local variables of every frame
    if send_after is not None:
        raise TypeError("send_sms() sends now. Use queue_sms(…, send_after=…) to send later.")
    message.created_by = created_by
    admission = Admission(caller=caller, repeat=repeat, exempt=exempt)
    return _store_and_send(message, admission, may_wait=may_wait)


@hides_values
def send_code(
    to: Any,
    text: str | Promise,
    *,
    code: str,
    valid_for: float | timedelta = 300,
    sender: str | Promise = "",
    using: str = DEFAULT_ALIAS,
    despite_opt_out: bool = False,
    caller: str = "",
    exempt: bool = False,
) -> SmsMessage:
    """Send a one-time code now or never, and return its message.

    Inside a transaction, too, it is sent before this returns, so that the caller learns what became
    of it. On PostgreSQL and MariaDB the message is then stored through a connection of its own, and
    stays where the caller's transaction is rolled back. On SQLite, and in the transaction of a
    test, it is stored in the caller's transaction, which stays open while the gateway is waited
    for.

    The code is in the row from the start as dots, and *Send again* is not offered. Between two
    codes to one number the wait grows (``SMSKA_LIMITS``).

    :param to: a number in any spelling of :func:`django_smska.numbers.normalize`
    :param text: with the code in it
    :param code: the one-time code, as it stands in the text
    :param valid_for: seconds, or a ``timedelta``, after which it is not sent any more
    :param sender: as with :func:`send_sms`, like the rest
    :returns: the message, whose ``status`` is *sent*, or *unknown* where it may have been sent: the
        code may be on the phone, so accept it
    :raises ValidationError: for a number, text, code or time that cannot be used; nothing is stored
    :raises InvalidProvider: for an unknown alias or a wrong entry; nothing is stored
    :raises SmsNotSent: where it was definitely not sent, and never will be: among others
        ``LimitExceeded`` with ``retry_at``, and ``RecipientOptedOut``
    """
    message = SmsMessage(
        to=to, body=str(text) if isinstance(text, Promise) else text,
        sender=str(sender) if isinstance(sender, Promise) else sender, using=using, code=code,
        sensitive=True, despite_opt_out=despite_opt_out,
    )  # fmt: skip
    del to, text, code
    if not message.code:
        raise ValidationError({"code": _("Pass the code that stands in the text.")})
    validity = _validity(valid_for)
    with sending.nothing_sent_without_database(message):
        message.expires_at = clock.now() + validity
    return send_at_once(message, Admission(caller=caller, repeat=True, exempt=exempt))


@hides_frames
def render_template(
    name: str,
    /,
    *,
    language: str | None = None,
    values: Mapping[str, Any] | None = None,
    **more: Any,
) -> str:
    """Return a text that is saved in the admin, with its placeholders filled.

    ``render_template("order-ready", order="A-17")`` fills ``{order}``. Names are compared without
    case. Numbers and dates are written as in the language of the text. Line breaks in a value
    become blanks.

    :param name: of the template
    :param language: a code such as ``"ru"``; by default the active language. For ``"ru-ru"`` the
        text may be that of ``ru``, and then that of all languages
    :param values: by their names: for names that are no identifiers, or that are parameters
    :param more: further values, by their names
    :raises UnknownTemplate: for a name, or a language, without a text
    :raises ValidationError: for a value that is missing, empty or a function, and for braces in the
        text that are no placeholder; it names the placeholder
    """
    return text_templates.render(name, language, [*(values or {}).items(), *more.items()])


_OF_SENDING = {
    name for name, one in signature(send_sms).parameters.items() if one.kind == one.KEYWORD_ONLY
}


@hides_values
def send_template(
    name: str,
    to: Any,
    /,
    *,
    language: str | None = None,
    values: Mapping[str, Any] | None = None,
    **more: Any,
) -> SmsMessage:
    """Send the text of a template, as :func:`send_sms` does, and return its message.

    ``send_template("order-ready", "8 904 176-49-95", order="A-17", using="bulk")`` fills
    ``{order}`` and passes ``using`` on.

    :param name: as with :func:`render_template`, like ``language`` and ``values``
    :param to: as with :func:`send_sms`
    :param more: the parameters of :func:`send_sms`; all others are values
    :raises UnknownTemplate: as :func:`render_template`; nothing is stored
    :raises ValidationError: as both of them; nothing is stored

    It raises what :func:`send_sms` raises, too.
    """
    own = {name: more.pop(name) for name in _OF_SENDING & more.keys()}
    given = Hidden(to=to, values=[*(values or {}).items(), *more.items()], options=own)
    del to, values, more, own  # a debug page shows the local variables of every frame
    body = Hidden(text=text_templates.render(name, language, given.values))
    return send_sms(given.to, body.text, **given.options)


@hides_values
def send_at_once(message: SmsMessage, admission: Admission) -> SmsMessage:
    """Store a new message and send it before this returns, also inside a transaction; return it.

    Of other apps, which report at once what became of a message: see :func:`send_code`.

    :returns: the message, whose ``status`` is *sent*, or *unknown* where it may have been sent
    :raises ValidationError: for a number, text or time that cannot be used; nothing is stored
    :raises SmsNotSent: where it was definitely not sent, and never will be
    """
    message.status, message.immediate = Status.QUEUED, True
    send = partial(_store_and_send, message, admission, at_once=True)
    try:
        return own_connection.run(send) if _needs_own_connection(message.using) else send()
    except SmsOutcomeUnknown as error:
        if message.status != Status.UNKNOWN:  # the database did not store it
            message.status, message.error_text = Status.UNKNOWN, error.text
        return message


def _validity(seconds: float | timedelta) -> timedelta:
    """:raises ValidationError: for what is no time, not positive, or longer than a day"""
    try:
        validity = seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)
    except (TypeError, ValueError, OverflowError):
        validity = timedelta()
    if not timedelta() < validity <= MAX_CODE_VALIDITY:
        words = _("Pass the seconds for which the code is valid: more than 0, at most 86400.")
        raise ValidationError({"valid_for": words})
    return validity


def _needs_own_connection(alias: str) -> bool:
    return checked_backend.provider(alias).uses_network and own_connection.is_needed()


def _store_and_send(
    message: SmsMessage, admission: Admission, *, may_wait: bool = False, at_once: bool = False
) -> SmsMessage:
    """Store a message, send it now or after the commit of the open transaction, and return it.

    :param at_once: send it now also where a transaction is open
    """
    backend = checked_backend.provider(message.using)
    waits = storing = False

    def claim() -> None:
        nonlocal storing
        if _admitted(backend, waits=waits, may_wait=may_wait):
            _claim_unstored(message)
        storing = True

    with sending.nothing_sent_without_database(message, may_be_queued=lambda: may_wait and storing):
        # Asked also at once: without autocommit, a rollback would take back what was sent.
        waits = backend.uses_network and sending.in_transaction() and not at_once
        message.send_after = clock.now()
        _check(message)
        held_queue.leave_out([message])
        stored, is_new = _store(message, admission, claim)
    if is_new and waits and stored.status == Status.CLAIMED:
        sending.send_after_commit(stored, may_wait=may_wait)
    elif is_new and stored.status == Status.CLAIMED:
        sending.send_new(stored, backend, may_wait=may_wait)
    if is_new and stored.status == Status.QUEUED:
        _hand_to_workers(stored)
    return stored


def _admitted(backend: CheckedBackend, *, waits: bool, may_wait: bool) -> bool:
    """Return False where the provider is paused or stopped and the message may wait."""
    try:
        circuit_breaker.admit(backend, may_ask=not waits)
    except SmsNotSent:
        if not may_wait:
            raise
        return False
    return True


@hides_values
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
    sensitive: bool = False,
    code: str = "",
    despite_opt_out: bool = False,
    caller: str = "",
    repeat: bool = False,
    exempt: bool = False,
) -> SmsMessage:
    """Store a message for a worker to send, and return it. Never wait for the network.

    Workers are ``manage.py sms_worker``, or those of the task engine that ``SMSKA_TASKS`` or
    ``SMSKA_ENQUEUE`` names.

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
        idempotency_key=idempotency_key, status=Status.QUEUED, sensitive=sensitive, code=code,
        despite_opt_out=despite_opt_out,
    )  # fmt: skip
    del to, body, code
    message.created_by = created_by
    providers.require(using)
    _check(message)
    held_queue.leave_out([message])
    admission = Admission(caller=caller, repeat=repeat, exempt=exempt)
    stored, is_new = _store(message, admission)
    if is_new:
        _hand_to_workers(stored)
    return stored


def _hand_to_workers(message: SmsMessage) -> None:
    notify.notify_workers()
    handover.hand_over([message])


def _twin(function: Callable[_P, SmsMessage]) -> Callable[_P, Coroutine[Any, Any, SmsMessage]]:
    """Return ``function`` for asynchronous code."""

    @wraps(function)
    async def twin(*args: _P.args, **kwargs: _P.kwargs) -> SmsMessage:
        alias = cast(str, kwargs.get("using", DEFAULT_ALIAS))
        given = Hidden(call=partial(function, *args, **kwargs))
        del args, kwargs  # a debug page shows the local variables of every frame

        def work() -> SmsMessage:
            return given.call()  # type: ignore[no-any-return]

        if function is queue_sms:
            return await async_calls.run_here(work)
        return await async_calls.run(alias, work)

    twin.__name__ = twin.__qualname__ = f"a{function.__name__}"
    return twin


asend_sms = _twin(send_sms)
asend_sms.__doc__ = """Like :func:`send_sms`, for asynchronous code.

It is sent in a thread that holds no connection to the database while it waits for the network.
Where the caller is cancelled, it is sent all the same, and recorded. Inside a transaction, which
asynchronous code has open through ``sync_to_async`` only, it is sent right after the commit.
"""

asend_code = _twin(send_code)
asend_code.__doc__ = """Like :func:`send_code`, for asynchronous code, in the manner of
:func:`asend_sms`."""

asend_template = _twin(send_template)
asend_template.__doc__ = """Like :func:`send_template`, for asynchronous code, in the manner of
:func:`asend_sms`."""

aqueue_sms = _twin(queue_sms)
aqueue_sms.__doc__ = """Like :func:`queue_sms`, for asynchronous code, in the thread and the
transaction of its synchronous code."""


class Stored(int):
    """The number of messages that were stored.

    :ivar errors: ``(row number from 0, error)`` of those that were not, the first thousand; the
        error is a ``ValidationError``, ``LimitExceeded`` or ``RecipientOptedOut``
    :ivar bad: how many were not
    :ivar mailing: that they belong to; ``None`` where none was asked for, or nothing was stored
    """

    errors: list[tuple[int, Refusal]]
    bad: int
    mailing: SmsMailing | None


@hides_values
def send_mass_sms(
    messages: Iterable[Any],
    *,
    using: str | None = None,
    mailing: SmsMailing | str | None = None,
    repeat: bool = False,
    exempt: bool = False,
) -> Stored:
    """Store many messages for the workers; return how many, as a :class:`Stored`.

    A row that is not valid, that ``SMSKA_LIMITS`` does not allow, or whose number is on the
    do-not-send list, is skipped, logged, and listed in ``errors`` of the result; the others are
    stored. Of messages with an idempotency key that is
    stored already, nothing is stored again; one with another number or text is not valid.
    Everything is stored in one transaction: if the iterable or the database fails on the way,
    nothing is stored, and the call can be repeated without a duplicate, also with the same objects,
    and after a rollback of the caller. Only where the connection is lost during the commit all of
    it may be stored; then repeating is safe for messages with a key.

    :param messages: ``(number, text)`` pairs or unsaved ``SmsMessage`` objects, from any iterable;
        no more than a batch of it is held in memory
    :param using: the provider for all of them
    :param mailing: its name, or an ``SmsMailing``: it is made with the first message that is
        stored, and its page shows, stops and counts them together. With ``at_any_hour=False`` it
        heeds the quiet hours of its recipients. A ``mailing`` of the objects themselves is replaced
        by it
    :param repeat: as with :func:`send_sms`
    :param exempt: as with :func:`send_sms`
    :raises TypeError: where no row at all is of such a kind
    :raises ValidationError: for a mailing's name that cannot be stored
    """
    if isinstance(messages, (str, bytes)):
        raise TypeError(f"send_mass_sms takes an iterable of {ROW}.")
    messages = iter(messages)  # a debug page does not show what an iterator holds
    if using is not None:
        providers.require(using)
    mailing = SmsMailing(name=mailing) if isinstance(mailing, str) else mailing
    if mailing is not None:
        mailing.require_name()
        mailing.using = using or mailing.using
    bad = _BadRows()
    admission = Admission(repeat=repeat, exempt=exempt)
    stored = segments = 0
    to_engine = handover.begin()
    with transaction.atomic(using=write_db()):
        good = _of_right_kind(messages, bad)
        is_new = mailing is not None and _open(mailing)
        while batch := list(islice(good, BATCH_ROWS)):
            unstored = _without_stored(batch, bad)
            new = _store_batch(_valid(unstored, using, mailing, bad), admission, bad)
            stored += len(new)
            segments += sum(message.segments for message in new)
            if to_engine is not None:
                to_engine.add(new)
        if to_engine is not None:
            to_engine.on_commit()
        notify.notify_workers()
        if mailing is not None and stored:
            mailing_counts.add(mailing.pk, segments)
        elif mailing is not None and is_new:
            mailing.delete(using=write_db())
    if bad.wrong_kind and bad.wrong_kind == bad.rows:
        raise TypeError(f"send_mass_sms takes an iterable of {ROW}; this one has {bad.first_kind}.")
    result = Stored(stored)
    result.errors, result.bad = sorted(bad.errors, key=itemgetter(0)), bad.number
    result.mailing = mailing if mailing is not None and mailing.pk is not None else None
    if bad.number:
        words = "%s of %s messages were not stored: see 'errors' of what send_mass_sms returned"
        logger.warning(words, bad.number, bad.number + stored)
    return result


def _open(mailing: SmsMailing) -> bool:
    """Store a new mailing, also one whose transaction was rolled back; return whether it is new."""
    # The lock comes first: the check of the messages' keys would lock it for reading only.
    known = mailings([mailing.pk]).select_for_update() if mailing.pk is not None else mailings([])
    is_known = known.exists()
    if not is_known:
        mailing.pk = None
        mailing.save(force_insert=True, using=write_db())
    return not is_known


class _BadRows:
    def __init__(self) -> None:
        self.errors: list[tuple[int, Refusal]] = []
        self.number = 0
        self.rows = 0  # in all, good ones too
        self.wrong_kind = 0
        self.first_kind = ""

    def add(self, index: int, error: Refusal) -> None:
        self.number += 1
        if len(self.errors) < MAX_BAD_ROWS_KEPT:
            self.errors.append((index, error))


class _WrongKind(ValidationError):
    """A row that is neither a pair nor a message; ``kind`` says what it is, never its content."""

    def __init__(self, row: Any) -> None:
        self.kind = type(row).__name__
        if is_sequence(row):
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
    if is_sequence(row) and len(row) == 2:
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


def _valid(
    batch: list[Row], using: str | None, mailing: SmsMailing | None, bad: _BadRows
) -> list[Row]:
    """Make the messages of a batch ready to be queued; leave out those that are not valid.

    :raises InvalidProvider: for an unknown alias
    """
    valid: list[Row] = []
    for index, message in batch:
        message.using = using or message.using
        message.mailing = mailing
        message.status, message.counted_on = Status.QUEUED, None
        providers.require(message.using)
        try:
            _check(message)
        except ValidationError as error:
            bad.add(index, error)
        else:
            valid.append((index, message))
    held_queue.leave_out(message for _, message in valid)
    return valid


def _store_batch(batch: list[Row], admission: Admission, bad: _BadRows) -> list[SmsMessage]:
    """Insert the messages whose idempotency key is new, and that the limits allow; return them."""
    batch = _without_repeats(batch, bad)
    new, reused = _with_new_keys(batch)
    new, listed = _without_opted_out(new)
    try:
        with transaction.atomic(using=write_db()):
            refusals = admission.refusals([message for _, message in new])
            stored = [
                one for (_index, one), refusal in zip(new, refusals, strict=True) if not refusal
            ]
            longest = max([1, *(len(message.body) for message in stored)])
            rows().bulk_create(stored, batch_size=max(MAX_QUERY_CHARACTERS // longest, 1))
    except IntegrityError as error:
        _require_key_conflict(error)
        # another process has just stored one of the keys
        admission.take_back()
        return list(_store_each(batch, admission, bad))
    for index, message in listed:
        bad.add(index, opt_out.error_for(message))
    for (index, _message), refusal in zip(new, refusals, strict=True):
        if refusal is not None:
            bad.add(index, refusal)
    for index in reused:
        bad.add(index, _reused())
    return stored


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
    stored = rows().filter(idempotency_key__in=keys) if keys else ()
    known = {first.idempotency_key: first for first in stored}
    new: list[Row] = []
    refused: list[int] = []
    for index, message in batch:
        key = message.idempotency_key
        if not key or key not in known:
            new.append((index, message))
        elif not known[key].repeats(message):
            refused.append(index)
        if key:
            known.setdefault(key, message)
    return new, refused


def _without_opted_out(batch: list[Row]) -> tuple[list[Row], list[Row]]:
    """Return the rows that may be sent, and those whose numbers are on the do-not-send list."""
    listed = opt_out.refused([message for _, message in batch])
    good = [row for row, is_listed in zip(batch, listed, strict=True) if not is_listed]
    return good, [row for row, is_listed in zip(batch, listed, strict=True) if is_listed]


def _store_each(batch: list[Row], admission: Admission, bad: _BadRows) -> Iterator[SmsMessage]:
    for index, message in batch:
        try:
            stored, is_new = _store(message, admission)
        except (ValidationError, LimitExceeded, RecipientOptedOut) as error:
            bad.add(index, error)
            continue
        if is_new:
            yield stored


def _check(message: SmsMessage) -> None:
    message.prepare()
    allowed_senders.require(message.sender, message.using)
    now = clock.now()
    if message.expires_at and message.expires_at <= now:
        raise _past(message, now)


def _past(message: SmsMessage, now: datetime) -> ValidationError:
    """Name the time that counts: it is the database's, and a test may have frozen the process's."""
    params = {"now": date_format(times.local(now), "SHORT_DATETIME_FORMAT")}
    if not message.has_site_lifetime:
        words = _("This time is in the past. By the workers’ clock it is %(now)s.")
        return ValidationError({"expires_at": ValidationError(words, params=params)})
    words = _(
        "The message would have expired by now (SMSKA_EXPIRES_AFTER). By the workers’ clock it "
        "is %(now)s."
    )
    return ValidationError({"send_after": ValidationError(words, params=params)})


def _claim_unstored(message: SmsMessage) -> None:
    """Store it as claimed by us at once, so that no worker claims it before the caller."""
    claimed = sending.claim_fields(uuid.uuid4().hex, clock.now())
    for name, value in {**claimed, "status": Status.CLAIMED, "attempts": 1}.items():
        setattr(message, name, value)


def _store(
    message: SmsMessage, admission: Admission, before: Callable[[], None] = lambda: None
) -> tuple[SmsMessage, bool]:
    """Insert the message, or find the one with its key; return it, and whether it is new.

    :param before: called right before a new one is inserted; it may raise
    :raises RecipientOptedOut: where the number of a new one is on the do-not-send list
    :raises LimitExceeded: where a limit does not allow a new one
    :raises ValidationError: where the one with the key has another number or text
    """
    key = message.idempotency_key
    first = _first_with(key) if key is not None else None
    if first is None:
        opt_out.require(message)
        before()
        if _insert(message, admission):
            return message, True
        assert key is not None
        first = _first_with(key) or _latest_with(key)
    if first is None:  # a SERIALIZABLE transaction sees the rows as they were at its start
        words = _("Another transaction has just stored a message with this key. Run yours again.")
        raise ValidationError({"idempotency_key": ValidationError(words, code="conflict")})
    if first.idempotency_key != key or not first.repeats(message):
        raise _reused()
    return first, False


def _insert(message: SmsMessage, admission: Admission) -> bool:
    """Return False, with nothing stored or counted, where the idempotency key is another's."""
    try:
        repeat_conflicts(lambda: _admit_and_insert(message, admission))
    except IntegrityError as error:
        if message.idempotency_key is None:
            raise
        _require_key_conflict(error)
        admission.take_back()
        return False
    return True


def _admit_and_insert(message: SmsMessage, admission: Admission) -> None:
    alone = not in_atomic_block()
    together = (alone and admission.writes) or message.idempotency_key is not None
    message.make_new()  # an INSERT that failed, or a COMMIT, may have set its key
    with transaction.atomic(using=write_db()) if together else nullcontext():
        # In a transaction of the caller's, to count would keep all others waiting for its end.
        admission.require(message, counts=alone)
        message.save(using=write_db())


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

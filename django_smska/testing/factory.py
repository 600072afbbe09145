"""Messages in every status, with a past as sending would have left it.

The numbers are of the British range for fiction (+44 7700 900000 to 900999, by Ofcom), which belong
to no person; Russia keeps none for that. The SMS-ka gateway sends to Russian mobiles only: pass
``to=`` where a made message is to be sent through the stand-in.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from django_smska import checked_backend, clock, conf, daily_counts, limits, states
from django_smska.exceptions import InvalidRecipient, SmsError, SmsOutcomeUnknown
from django_smska.models import SmsInbound, SmsMessage, rows, write_db
from django_smska.numbers import normalize
from django_smska.providers import DEFAULT_ALIAS
from django_smska.states import Status

S = Status

#: The statuses that a message has had, the last one included.
PATHS: dict[Status, tuple[Status, ...]] = {
    S.DRAFT: (S.DRAFT,),
    S.QUEUED: (S.QUEUED,),
    S.CLAIMED: (S.QUEUED, S.CLAIMED),
    S.SENDING: (S.QUEUED, S.CLAIMED, S.SENDING),
    S.FAILED: (S.QUEUED, S.CLAIMED, S.SENDING, S.FAILED),
    S.UNKNOWN: (S.QUEUED, S.CLAIMED, S.SENDING, S.UNKNOWN),
    S.CANCELLED: (S.QUEUED, S.CANCELLED),
    **{
        status: (S.QUEUED, S.CLAIMED, S.SENDING, S.SENT, *((status,) if status != S.SENT else ()))
        for status in (S.SENT, S.DELIVERED, S.REJECTED, S.EXPIRED, S.DELETED, S.UNCONFIRMED)
    },
}
#: Seconds between the status before and this one, where the schedule of reports says no other.
SECONDS = {S.CLAIMED: 0.5, S.SENDING: 0.1, S.SENT: 0.4, S.FAILED: 0.4, S.UNKNOWN: 30.0}
CANCELLED_AFTER_SECONDS = 60.0
REPORTS = {
    S.DELIVERED: "4|DELIVRD",
    S.REJECTED: "5|REJECTD",
    S.EXPIRED: "7|EXPIRED",
    S.DELETED: "8|DELETED",
    S.UNCONFIRMED: "3|ACCEPTD",
}

_made = count()


def fictional_number() -> str:
    """Return a number that belongs to no person; after a thousand they come again."""
    return f"+447700900{next(_made) % 1000:03d}"


def make_sms(
    status: str = S.DELIVERED,
    *,
    to: Any = None,
    body: str = "Ваш заказ готов",
    days_ago: float = 0,
    error: SmsError | None = None,
    using: str = DEFAULT_ALIAS,
    **fields: Any,
) -> SmsMessage:
    """Store a message of this status with a past, and return it. Nothing is sent, no limit counts
    it, and no signal follows.

    :param status: one of the thirteen
    :param to: the number, in any spelling; by default one of the range for fiction
    :param days_ago: when it was written. By default so lately that its past fits in
    :param error: why it *failed*, or is *unknown*; by default a wrong number, and no answer in time
    :param fields: further fields that a draft has: ``sender``, ``priority``, ``send_after``,
        ``expires_at``, ``idempotency_key``, ``sensitive``, ``code``, ``created_by``; and
        ``price``, ``currency``, ``billed_segments``
    :raises ValueError: for an unknown status, for ``days_ago`` that are too few for its past, for a
        ``send_after`` that is too late for it, and for an error that does not lead to this status
    :raises TypeError: for another field
    :raises ValidationError: for a number or text that cannot be used
    """
    end = _status(status)
    _require_fields(fields)
    _require_error(end, error)
    past = _Past(PATHS[end], using)
    now = clock.now()
    written = now - _age(end, past, days_ago)
    message = SmsMessage(
        to=to if to is not None else fictional_number(),
        body=body,
        using=using,
        created_at=written,
        # What is drafted alone has no expiry yet.
        status=S.DRAFT if end == S.DRAFT else S.QUEUED,
        **{"send_after": written, **_drafted(fields)},
    )
    message.prepare()
    _count(message, written)
    at = written if end == S.CANCELLED else max(written, message.send_after)
    if past.steps and at + timedelta(seconds=past.seconds) > now:
        raise ValueError(f"send_after: a message that is {end} was sent later. Raise days_ago.")
    for reached, after in past.steps:
        at += timedelta(seconds=after)
        _STEPS[reached](message, reached, at, error)
    for name in PRICE & fields.keys():
        setattr(message, name, fields[name])
    [stored] = rows().bulk_create([message])
    daily_counts.reopen([stored.created_at])
    return stored


def make_inbound(
    body: str = "Спасибо",
    *,
    sender: Any = None,
    to: str = "1234",
    days_ago: float = 0,
    using: str = DEFAULT_ALIAS,
) -> SmsInbound:
    """Store a message that a phone has sent, and return it. A STOP has no effect, and no signal
    follows: post to the webhook to see these.

    :param sender: the phone's number; by default one of the range for fiction
    :param to: the site's own number or short code
    :raises ValidationError: for a ``sender`` that is no phone number
    """
    return SmsInbound.objects.using(write_db()).create(
        using=using,
        sender=normalize(sender) if sender is not None else fictional_number(),
        to=to,
        body=body,
        gateway_id=uuid.uuid4().hex,
        received_at=clock.now() - timedelta(days=days_ago),
    )


# --- what is asked for ----------------------------------------------------------------------------

PRICE = frozenset({"price", "currency", "billed_segments"})
DRAFTED = frozenset(SmsMessage.SAVED) - {"to", "body", "using", "segments", "encoding", "text_hash"}


def _status(status: str) -> Status:
    if status not in S.values:
        raise ValueError(f"No status {status!r}. There are: {', '.join(S.values)}.")
    return S(status)


def _require_fields(fields: dict[str, Any]) -> None:
    known = sorted({*DRAFTED, *PRICE})
    if wrong := sorted(fields.keys() - set(known)):
        raise TypeError(
            f"make_sms() takes no {', '.join(wrong)}. It follows from status=, days_ago= and "
            f"error=, or is none of: {', '.join(known)}."
        )


def _drafted(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name in DRAFTED}


def _require_error(status: Status, error: SmsError | None) -> None:
    if error is None:
        return
    led_to = states.decide(error.kind, attempts=1, most=1, last=True).status
    if led_to != status:
        raise ValueError(f"After {type(error).__name__} a message is {led_to}, not {status}.")


def _age(status: Status, past: _Past, days_ago: float) -> timedelta:
    least = timedelta(seconds=past.seconds)
    age = timedelta(days=days_ago)
    if days_ago and age < least:
        days = least / timedelta(days=1)
        raise ValueError(
            f"A message that is {status} was written {days:.4f} days ago at least. Raise days_ago."
        )
    return max(age, least)


class _Past:
    """The steps of a message after the first, each with the seconds since the one before.

    :param path: of ``PATHS``
    """

    def __init__(self, path: tuple[Status, ...], using: str) -> None:
        self.using = using
        self.steps = [(status, self._seconds(status)) for status in path[1:]]

    @property
    def seconds(self) -> float:
        return sum(seconds for _, seconds in self.steps)

    def _seconds(self, status: Status) -> float:
        if status == S.UNCONFIRMED:
            return conf.status_window().total_seconds()
        if status == S.CANCELLED:
            return CANCELLED_AFTER_SECONDS
        if status in REPORTS:  # by the first query, or pushed by then
            return states.next_query_in(0) * random.uniform(1, 1.1)
        return SECONDS[status]


# --- what each step writes, as in sending and delivery --------------------------------------------


def _count(message: SmsMessage, at: datetime) -> None:
    """Note the day whose segments include it, from its place in the queue on."""
    limited = conf.limits().segments_of(message.using) is not None
    if message.status != S.DRAFT and limited:
        message.counted_on = limits.today(at)


def _claim(message: SmsMessage, _: Status, at: datetime, error: SmsError | None) -> None:
    _set(message, S.CLAIMED, token=uuid.uuid4().hex, claimed_at=at, lease_until=at + conf.lease())
    message.attempts = 1


def _begin(message: SmsMessage, _: Status, at: datetime, error: SmsError | None) -> None:
    _count(message, at)
    _set(message, S.SENDING, sending_at=at, lease_until=at + conf.lease())


def _accept(message: SmsMessage, _: Status, at: datetime, error: SmsError | None) -> None:
    _set(message, S.SENT, sent_at=at, gateway_id=uuid.uuid4().hex[:17])
    _query(message, clock.now())


def _query(message: SmsMessage, now: datetime) -> None:
    """Let the queries be made that were due by now and within the window."""
    assert message.sent_at is not None
    traits = checked_backend.traits(message.using)
    ends = message.sent_at + conf.status_window()
    if not traits.polled:
        message.next_status_at = ends
        return
    at, queries = message.sent_at, 0
    while True:
        at += timedelta(seconds=states.next_query_in(queries, pushed=traits.pushed))
        if at > min(now, ends):
            break
        queries += 1
    _set(message, S.SENT, next_status_at=at, status_queries=queries)
    if queries:
        message.gateway_status = "3|ACCEPTD"


def _report(message: SmsMessage, status: Status, at: datetime, error: SmsError | None) -> None:
    message.status_queries = 0
    _query(message, at)
    _set(message, status, finished_at=at, next_status_at=None, gateway_status=REPORTS[status])


def _fail(message: SmsMessage, _: Status, at: datetime, error: SmsError | None) -> None:
    _explain(message, error or InvalidRecipient(code="-6"))
    _set(message, S.FAILED, finished_at=at)


def _doubt(message: SmsMessage, _: Status, at: datetime, error: SmsError | None) -> None:
    _explain(message, error or SmsOutcomeUnknown(code="deadline"))
    _set(message, S.UNKNOWN)
    if not checked_backend.traits(message.using).asked:
        return
    asked = 0
    while (wait := states.next_question_in(asked)) is not None:
        at += timedelta(seconds=wait)
        if at > clock.now():
            break
        asked += 1
    _set(message, S.UNKNOWN, status_queries=asked, next_status_at=at if wait is not None else None)


def _cancel(message: SmsMessage, _: Status, at: datetime, error: SmsError | None) -> None:
    _set(message, S.CANCELLED, finished_at=at)


def _explain(message: SmsMessage, error: SmsError) -> None:
    message.error_code, message.error_text = str(error.code)[:32], error.text


def _set(message: SmsMessage, status: Status, **changes: Any) -> None:
    if states.drops_text(message.status, status):
        message.wipe()
    for name, value in {"status": status, **changes}.items():
        setattr(message, name, value)


_STEPS: dict[Status, Callable[[SmsMessage, Status, datetime, SmsError | None], None]] = {
    S.CLAIMED: _claim,
    S.SENDING: _begin,
    S.SENT: _accept,
    S.FAILED: _fail,
    S.UNKNOWN: _doubt,
    S.CANCELLED: _cancel,
    **dict.fromkeys(REPORTS, _report),
}

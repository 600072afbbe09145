"""The hold: an old queue waits for a person before it is sent.

Where no worker was seen for ``SMSKA_HOLD_AFTER``, what is due may be long out of date, or sent
already: by the live site whose database was copied, or before its dump was restored. The first
worker then stores one moment beside its heartbeat, and no worker claims what was due at that
moment. A person releases or cancels it. What is due later, or was queued later, is sent as always.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db.models import Case, DateTimeField, Exists, F, OuterRef, Q, QuerySet, Value, When
from django.db.models.functions import Coalesce

from . import circuit_breaker, clock, conf, log_fields, notify, times
from .circuit_breaker import HEARTBEAT_INTERVAL
from .models import ProviderState, SmsMessage, SmsMessageQuerySet, provider_states, rows
from .states import Status

logger = logging.getLogger(__name__)

NOW = timedelta(seconds=1)  # what was to be sent so long ago at most is to be sent now


def heartbeat(aliases: Iterable[str]) -> None:
    """Note that a worker is running for these providers, and hold what is due for those without any
    worker for ``SMSKA_HOLD_AFTER``.

    One UPDATE does both, so that of several workers one decides for all, and no worker that is
    killed leaves a heartbeat without its hold.
    """
    now, limit = clock.now(), conf.hold_after()
    for alias in aliases:
        if _beat(alias, now, limit):
            continue
        provider_states().get_or_create(alias=alias)
        if limit is None:
            _beat(alias, now, limit)
        else:
            _hold(alias, now, limit)


def _beat(alias: str, now: datetime, limit: timedelta | None) -> bool:
    """Refresh the heartbeat; return False where there is none, or it is too old."""
    mine = provider_states().filter(alias=alias)
    if limit is not None:
        mine = mine.filter(worker_seen_at__gt=now - limit)
    return bool(mine.update(worker_seen_at=now))


def _hold(alias: str, now: datetime, limit: timedelta) -> None:
    """Write the first heartbeat, or the first after a long time, and hold what is due.

    Without any heartbeat before, it is held only if something has waited for longer than the limit.
    """
    due = _due(alias, now)
    waits = Q(Exists(due), worker_seen_at__isnull=False)
    waits_long = Q(Exists(due.filter(send_after__lte=now - limit)))
    # The hold comes first, because MariaDB assigns from left to right.
    _unseen(alias, now - limit).update(
        held_before=Case(When(waits | waits_long, then=Value(now)), default=F("held_before")),
        worker_seen_at=now,
    )
    _report(alias, now)


def hold_old(aliases: Iterable[str]) -> None:
    """Do the same for a task, which is no sign of a worker for all messages: it notes that it was
    seen only where it holds something.

    A task comes when its message is queued, also after a quiet night. So only what was queued
    before the last heartbeat, or has waited for longer than the limit, causes a hold. What is held
    already causes no other one, however long it waits for a person.
    """
    limit = conf.hold_after()
    if limit is None:
        return
    now, aliases = clock.now(), list(aliases)
    fresh = provider_states().filter(alias__in=aliases, worker_seen_at__gt=now - limit)
    for alias in set(aliases).difference(fresh.values_list("alias", flat=True)):
        provider_states().get_or_create(alias=alias)
        before = Q(created_at__lte=OuterRef("worker_seen_at") + HEARTBEAT_INTERVAL)
        old = _due(alias, now).filter(before | Q(send_after__lte=now - limit), _is_free())
        _unseen(alias, now - limit).filter(Exists(old)).update(held_before=now, worker_seen_at=now)
        _report(alias, now)


def _unseen(alias: str, since: datetime) -> QuerySet[ProviderState]:
    """Return the provider where no worker was seen for it since then."""
    unseen = Q(worker_seen_at__isnull=True) | Q(worker_seen_at__lte=since)
    return provider_states().filter(unseen, alias=alias)


def _due(alias: str, now: datetime) -> SmsMessageQuerySet:
    """Return what is due or held, also what a worker that ended had claimed: it goes back into the
    queue."""
    lost = Q(status=Status.CLAIMED, immediate=False, lease_until__lte=now)
    waiting = rows().filter(Q(status=Status.QUEUED) | lost, using=alias).order_by()
    return waiting.filter(send_after__lte=now, expires_at__gt=now)


def _is_free() -> Q:
    """Return, for a query of messages in one of their provider, those that the present hold, if
    there is one, does not hold."""
    never = Value(times.as_stored(times.FIRST))
    return Q(send_after__gt=Coalesce(OuterRef("held_before"), never, output_field=DateTimeField()))


def _report(alias: str, now: datetime) -> None:
    if provider_states().filter(alias=alias, held_before=now).exists():
        logger.warning(
            "provider %s: %s messages are held, because no worker was seen for long: release "
            "or cancel them in the admin, or run “manage.py sms_worker --release”",
            alias,
            number_held(alias),
            extra=log_fields.of_provider(alias, "held"),
        )


def number_held(alias: str, *, most: int | None = None) -> int:
    """Return how many messages of this provider are held.

    :param most: count no more than these, so that it is quick
    """
    return rows().filter(using=alias).held(clock.now(), alias).order_by()[:most].count()


def is_held(message: SmsMessage) -> bool:
    """Return whether a message waits for a person."""
    if message.status != Status.QUEUED:
        return False
    moment = moments([message.using]).get(message.using)
    return moment is not None and message.send_after <= moment


def moments(aliases: Iterable[str]) -> dict[str, datetime]:
    """Return the moment of the hold of each of these providers that has one; perhaps no message is
    left to be held."""
    states = circuit_breaker.states_of(aliases).exclude(held_before=None).order_by("alias")
    return {state.alias: state.held_before for state in states if state.held_before is not None}


def leave_out(messages: Iterable[SmsMessage]) -> None:
    """Let messages that are being queued be due now, where a hold would include them: they were to
    be sent at a time in the past."""
    now = clock.now()
    past = [message for message in messages if message.send_after < now - NOW]
    if not past:
        return
    held = moments({message.using for message in past})
    for message in past:
        if message.using in held and message.send_after <= held[message.using]:
            message.send_after = now


def release(alias: str, before: datetime | None = None) -> int:
    """Let workers send what is held; return how many messages that are.

    :param before: the moment of the hold that is meant: a later one is not released, and 0 is
        returned
    """
    held = provider_states().filter(alias=alias).exclude(held_before=None)
    if before is not None:
        held = held.filter(held_before=before)
    number = number_held(alias)
    if not held.update(held_before=None):
        return 0
    extra = log_fields.of_provider(alias)
    logger.warning("provider %s: %s held messages are released", alias, number, extra=extra)
    notify.notify_workers()
    return number

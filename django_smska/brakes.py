"""Pause a provider that is ill, for all workers at once, so that its queue stays whole.

A wrong login, an empty account and a gateway that cannot be reached pause at once; several unknown
outcomes in a row pause too. A paused provider is looked at by a balance question, never by sending.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal

from django.db.models import F, QuerySet
from django.utils import timezone

from . import states
from .exceptions import AuthenticationFailed, SmsError, gettext_noop
from .fence import Fenced
from .models import ProviderState, write_db
from .receipts import Receipt

logger = logging.getLogger(__name__)


SEEN_EVERY = timedelta(minutes=1)


def states_of(aliases: Iterable[str]) -> QuerySet[ProviderState]:
    """What is known of these providers; those that are well may have no row."""
    return _states().filter(alias__in=list(aliases))


def paused() -> list[str]:
    """The aliases of the providers that are paused."""
    return list(_states().exclude(paused_at=None).values_list("alias", flat=True))


def be_seen(aliases: Iterable[str]) -> None:
    """Note that a worker is at work for these providers."""
    now = timezone.now()
    for alias in aliases:
        if not _states().filter(alias=alias).update(worker_seen_at=now):
            _states().get_or_create(alias=alias, defaults={"worker_seen_at": now})


def state_of(alias: str) -> ProviderState:
    """What is known of this provider; a provider without a row is well."""
    return _states().filter(alias=alias).first() or ProviderState(alias=alias)


def note(alias: str, outcome: Receipt | SmsError) -> None:
    """Take note of what became of an attempt through the provider that was asked."""
    if isinstance(outcome, SmsError):
        note_error(alias, outcome)
        return
    note_success(alias, None if outcome.alias else outcome.balance)
    if outcome.alias:
        note_success(outcome.alias, outcome.balance)


def note_error(alias: str, error: SmsError) -> None:
    """Count an error against the provider, and pause it where its kind says so."""
    kind = "hanging" if error.kind == "unknown" else error.kind
    if kind not in states.PAUSES:
        if error.code.startswith("-"):  # it answered, and with the login all was well
            note_success(alias)
        return
    _states().get_or_create(alias=alias)
    same = _states().filter(alias=alias, reason=kind).update(strikes=F("strikes") + 1)
    if not same:
        _states().filter(alias=alias, paused_at=None).update(reason=kind, strikes=1, looks=0)
    if kind in states.STOPPING_KINDS or state_of(alias).strikes >= states.STRIKES:
        _pause(alias, kind, error)


def note_success(alias: str, balance: Decimal | None = None) -> None:
    """The provider answered as it should: forget the strikes, keep the balance it told."""
    _states().filter(alias=alias).exclude(reason="").update(
        reason="", detail="", strikes=0, looks=0, paused_at=None, look_at=None
    )
    if balance is not None:
        note_balance(alias, balance)


def note_balance(alias: str, balance: Decimal) -> None:
    """Keep a balance for people to see; nothing is computed from it."""
    told = {"balance": balance, "balance_at": timezone.now()}
    if not _states().filter(alias=alias).update(**told):
        _states().get_or_create(alias=alias, defaults=told)


def may_send(backend: Fenced) -> bool:
    """Tell whether messages may leave; look at a paused provider when it is time to.

    Asks for the balance, so it must not be called inside a transaction.
    """
    state = state_of(backend.alias)
    if not state.is_paused:
        return True
    return _my_turn_to_look(state) and look(backend)


def look(backend: Fenced) -> bool:
    """Ask for the balance; open the provider again if the answer is good.

    Its strikes are kept until a message is really taken: if the next one fares no better, it is
    paused at once, and for longer.
    """
    alias = backend.alias
    if not backend.has_balance:
        return _open(alias)
    try:
        balance = backend.get_balance()
    except SmsError as error:
        logger.warning("provider %s stays paused: %s", alias, error)
        return False
    note_balance(alias, balance)
    if state_of(alias).reason == "funds" and balance <= 0:
        return False
    return _open(alias)


def _open(alias: str) -> bool:
    _states().filter(alias=alias).update(paused_at=None, look_at=None)
    logger.warning("provider %s is open again", alias)
    return True


def refuse_locked_out(alias: str) -> None:
    """Raise ``AuthenticationFailed`` without asking after several wrong logins in a row."""
    state = state_of(alias)
    if state.is_paused and state.reason == "account" and state.strikes >= states.STRIKES:
        raise AuthenticationFailed(
            gettext_noop(
                "The gateway refused the login several times in a row; more tries might lock the "
                "account. Correct the login, then run “manage.py sms_balance” to go on."
            ),
            alias=alias,
            code="paused",
        )


def _pause(alias: str, kind: str, error: SmsError) -> None:
    now, looks = timezone.now(), state_of(alias).looks
    marks = {
        "paused_at": now,
        "look_at": now + timedelta(seconds=states.pause_for(kind, looks)),
        "looks": looks + 1,
        "detail": error.words,
    }
    # Only for the reason just noted: another worker's success may have cleared it meanwhile.
    if _states().filter(alias=alias, paused_at=None, reason=kind).update(**marks):
        logger.error("provider %s is paused (%s): %s", alias, kind, error)


def _my_turn_to_look(state: ProviderState) -> bool:
    """Of all workers one looks: the one whose conditional UPDATE finds the time unchanged."""
    now = timezone.now()
    if state.look_at is None or state.look_at > now:
        return False
    later = now + timedelta(seconds=states.pause_for(state.reason, state.looks))
    return bool(
        _states()
        .filter(alias=state.alias, look_at=state.look_at)
        .update(look_at=later, looks=F("looks") + 1)
    )


def _states() -> QuerySet[ProviderState]:
    return ProviderState.objects.using(write_db())

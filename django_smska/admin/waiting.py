"""Why what is queued does not leave, in words: for the alerts, a message's page, and what is
reported after messages were queued."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from django.utils.translation import gettext

from .. import checked_backend, circuit_breaker, clock, handover, kill_switch, limits
from ..exceptions import InvalidProvider
from ..models import ProviderState, SmsMessage
from ..providers import providers
from .wording import nothing_sent_through, paused_words

QUEUED_GRACE = timedelta(minutes=2)  # the time that queued messages may wait without an alert


def of_provider(state: ProviderState, *, is_late: bool, today: bool = True) -> str:
    """Return why messages of this provider wait, and what to do; "" where nothing is known.

    :param is_late: some of them would have left by now, if anything sent them
    :param today: they are to leave before midnight
    """
    name = {"name": state.alias}
    if state.alias not in providers:
        words = gettext(
            "“%(name)s” is not in the settings, so that nothing is sent through it. Ask your "
            "administrator."
        )
        return words % name
    if state.is_paused:
        parts = {**name, "why": paused_words(state)}
        return gettext("“%(name)s” is paused. %(why)s") % parts
    if today and limits.day_is_full(state):
        words = gettext(
            "“%(name)s” has used up its segments for today. What waits goes on at midnight, or "
            "when your administrator raises the limit (SMSKA_LIMITS)."
        )
        return words % name
    return _without_sender() % name if is_late and circuit_breaker.has_no_worker(state) else ""


def _without_sender() -> str:
    if handover.is_set():
        return gettext(
            "Messages are waiting for “%(name)s”, but no job is sending them. Ask your "
            "administrator whether the workers of the task engine are running."
        )
    return gettext(
        "Messages are waiting for “%(name)s”, but no worker is sending them. Ask your "
        "administrator to start sms_worker."
    )


def of_message(message: SmsMessage) -> str:
    """Return why this queued message waits, as far as its provider is concerned."""
    now = clock.now()
    # Whether the workers of a task engine run is known only by what they leave undone.
    is_late = not handover.is_set() or message.send_after <= now - QUEUED_GRACE
    state = circuit_breaker.state_of(message.using)
    today = message.send_after < limits.day_ends(now)
    why = _of_members(message.using) or of_provider(state, is_late=is_late, today=today)
    if why or not today or limits.has_room(message):
        return why
    words = gettext(
        "It has more segments than “%(name)s” may still send today. It goes on at midnight, or "
        "when your administrator raises the limit (SMSKA_LIMITS)."
    )
    return words % {"name": message.using}


def of_providers(aliases: Iterable[str]) -> list[str]:
    """Return, of each of these through which messages have just been queued, why they wait."""
    found = (
        nothing_sent_through(alias)
        or _of_members(alias)
        or of_provider(circuit_breaker.state_of(alias), is_late=not handover.is_set())
        for alias in sorted(set(aliases))
    )
    return [why for why in found if why]


def _of_members(alias: str) -> str:
    """Return that a failover can use none of its members; "" for any other provider."""
    try:
        members = [member.alias for member in checked_backend.provider(alias).members]
    except InvalidProvider:
        return ""
    paused = {one.alias: one for one in circuit_breaker.states_of(members) if one.is_paused}
    if not members or set(members) - paused.keys() - kill_switch.stopped(members):
        return ""
    words = gettext("Each provider that “%(name)s” may use is paused or stopped.")
    each = [f"“{one}”: {paused_words(state)}" for one, state in sorted(paused.items())]
    return " ".join([words % {"name": alias}, *each])

"""Why a stored message was not sent, for the failure of an assertion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django_smska import circuit_breaker, clock, kill_switch
from django_smska.models import rows
from django_smska.sending import in_transaction
from django_smska.states import Status

COMMIT = (
    "It is claimed: it waits for a commit, which a TestCase never makes. Use TransactionTestCase, "
    "or with pytest transactional_db."
)


def unsent(*statuses: str) -> list[Any]:
    """Return the messages in these statuses."""
    return list(rows().filter(status__in=statuses).order_by("pk"))


def why(message: Any) -> str:
    """Return why it was not sent, as a sentence for the person who runs the test."""
    words = _WORDS.get(message.status)
    return words(message) if words is not None else f"It is {message.status}."


def _why_queued(message: Any) -> str:
    now, alias = clock.now(), message.using
    state = circuit_breaker.state_of(alias)
    if kill_switch.stopped({alias}):
        return f"It is queued, and sending through {alias!r} is stopped."
    if state.is_paused:
        return f"It is queued, and {alias!r} is paused ({state.reason}): {state.detail}"
    if message.send_after > now:
        return f"It is queued for {message.send_after}: run_sms_worker(until=…) sends it then."
    if message.expires_at is not None and message.expires_at <= now:
        return f"It is queued, and expired at {message.expires_at}."
    if state.held_before is not None and message.send_after <= state.held_before:
        return "It is queued and held, because no worker was seen for SMSKA_HOLD_AFTER."
    return "It is queued: run_sms_worker() sends it."


def _why_claimed(message: Any) -> str:
    return COMMIT if in_transaction() else "It is claimed by a worker."


def _with_cause(head: str) -> Callable[[Any], str]:
    return lambda message: f"{head} ({message.error_code}): {message.error_text}"


_WORDS: dict[str, Callable[[Any], str]] = {
    Status.QUEUED: _why_queued,
    Status.CLAIMED: _why_claimed,
    Status.FAILED: _with_cause("It has failed"),
    Status.UNKNOWN: _with_cause("Its outcome is unknown"),
}

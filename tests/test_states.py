"""The table of states, row by row, written a second time from the documented picture."""

import pytest

from django_smska import circuit_breaker, states
from django_smska.states import Status, decide

ARROWS = """
draft queued
draft cancelled
queued claimed
queued cancelled
queued failed
queued draft
claimed queued
claimed sending
claimed failed
claimed cancelled
claimed draft
sending queued
sending sent
sending failed
sending unknown
sent delivered
sent rejected
sent expired
sent deleted
sent unconfirmed
unknown sent
"""


def test_the_table_has_just_these_arrows():
    arrows = {(old.value, new.value) for old, news in states.MOVES.items() for new in news}
    assert arrows == {tuple(line.split()) for line in ARROWS.split("\n") if line}


def test_nothing_follows_a_final_status():
    assert {status.value for status in states.FINAL} == {
        "delivered", "rejected", "expired", "deleted", "unconfirmed", "failed", "cancelled",
    }  # fmt: skip
    assert not any(states.may_move(old, new) for old in states.FINAL for new in Status)


def test_no_setting_and_no_number_brings_unknown_back_to_the_queue():
    """Promise 3: once a byte may have been written, nothing sends it again automatically."""
    for last in (True, False):
        for attempts in range(1, 20):
            for most in range(1, 20):
                decision = decide("unknown", attempts=attempts, most=most, last=last)
                assert decision == states.Decision(Status.UNKNOWN)


@pytest.mark.parametrize("kind", ["account", "funds", "unreachable"])
def test_a_fault_of_the_provider_leaves_the_message_in_the_queue(kind):
    assert decide(kind, attempts=99, most=5).status == Status.QUEUED


@pytest.mark.parametrize("kind", ["message", "sender"])
def test_a_fault_of_the_message_fails_it(kind):
    assert decide(kind, attempts=1, most=5).status == Status.FAILED


def test_not_now_is_tried_again_later_and_not_for_ever():
    assert [decide("temporary", attempts=n, most=3) for n in (1, 2, 3)] == [
        states.Decision(Status.QUEUED, 15),
        states.Decision(Status.QUEUED, 60),
        states.Decision(Status.FAILED),
    ]


@pytest.mark.parametrize("kind", ["account", "busy", "temporary"])
def test_a_provider_that_wants_more_time_gets_it(kind):
    waits = [decide(kind, attempts=n, most=9, retry_in=65).retry_in for n in (1, 2, 3)]
    assert waits == [65, 65, 240]
    assert decide("message", attempts=1, most=9, retry_in=65) == states.Decision(Status.FAILED)


@pytest.mark.parametrize("kind", ["account", "funds", "unreachable", "temporary"])
def test_nothing_follows_where_the_caller_got_the_error(kind):
    assert decide(kind, attempts=1, most=5, last=True).status == Status.FAILED


def test_every_reason_of_a_pause_has_its_words():
    assert set(circuit_breaker.PAUSES) == set(states.PAUSE_SECONDS)


def test_waits_grow_and_end():
    assert [states.backoff(n) for n in (1, 2, 3, 4, 5, 500)] == [15, 60, 240, 960, 3600, 3600]
    assert [states.next_query_in(n) for n in (0, 1, 2, 7, 500)] == [10, 30, 90, 21600, 21600]
    assert [states.pause_for("unreachable", n) for n in (0, 1, 2, 500)] == [15, 30, 60, 3600]

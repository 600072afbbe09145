"""What the dispatcher decides by: plain objects, tested without a thread and without a query."""

import pytest

from django_smska import dispatcher, monotonic
from django_smska.dispatcher import ClaimSize, Event, Inbox, Slots, TimeSlice
from django_smska.exceptions import (
    AuthenticationFailed,
    GatewayUnreachable,
    InvalidRecipient,
    SmsOutcomeUnknown,
)
from django_smska.receipts import Receipt


@pytest.fixture
def clock(monkeypatch):
    """Time that stands until it is moved."""

    class Clock:
        time = 1000.0

    monkeypatch.setattr(monotonic, "now", lambda: Clock.time)
    return Clock


class TestSlots:
    def test_one_request_goes_alone_until_the_gateway_is_proven_to_work(self):
        slots = Slots(4)
        assert slots.free() == 1
        slots.in_use.add(1)
        assert slots.free() == 0
        slots.prove(Receipt("id"))
        assert slots.free() == 3

    def test_a_slot_is_free_again_when_its_message_has_left_it(self):
        slots = Slots(2, proven=True)
        slots.in_use |= {1, 2}
        assert slots.free() == 0
        slots.in_use.discard(1)
        assert slots.free() == 1

    @pytest.mark.parametrize(
        ("outcome", "proves"),
        [
            (Receipt("id"), True),
            (InvalidRecipient(answered=True), True),
            (InvalidRecipient(), False),
            (AuthenticationFailed(), False),
            (GatewayUnreachable(), False),
            (SmsOutcomeUnknown(), False),
        ],
    )
    def test_what_proves_that_the_gateway_works(self, outcome, proves):
        slots = Slots(4)
        slots.prove(outcome)
        assert slots.free() == (4 if proves else 1)

    def test_proven_once_is_proven_for_the_pass(self):
        slots = Slots(4, proven=True)
        slots.prove(SmsOutcomeUnknown())
        assert slots.proven


def time_slice(seconds=10, others_wait=True):
    return TimeSlice(seconds, 60, lambda: others_wait)


class TestTimeSlice:
    def test_it_ends_when_its_time_is_over_and_others_wait(self, clock):
        one = time_slice()
        one.begun = True
        assert one.may_go_on() and not one.is_over()
        clock.time += 10
        assert not one.may_go_on() and one.is_over()

    def test_while_no_others_wait_it_goes_on_for_a_minute(self, clock):
        one = time_slice(others_wait=False)
        one.begun, begun_at = True, clock.time
        while one.may_go_on():
            clock.time += 1
        assert clock.time - begun_at == 60 and one.is_over()

    def test_it_does_not_go_on_again_when_the_others_are_done(self, clock):
        """Its slots run empty already."""
        waiting = [True]
        one = TimeSlice(10, 60, lambda: waiting[0])
        one.begun = True
        clock.time += 10
        assert not one.may_go_on()
        waiting[0] = False
        assert not one.may_go_on()

    def test_whatever_the_time_one_request_begins(self, clock):
        one = time_slice(0)
        assert one.may_go_on()
        one.begun = True
        assert not one.may_go_on()

    def test_a_pause_ends_it(self, clock):
        one = time_slice()
        one.open = False
        assert not one.may_go_on() and not one.is_over()

    def test_it_can_be_ended(self, clock):
        one = time_slice()
        one.ended = True
        assert not one.may_go_on()


class TestClaimSize:
    def test_claims_grow_while_they_are_used_up_within_a_second(self, clock):
        size, found = ClaimSize(16), []
        for _ in range(6):
            found.append(size.next())
            clock.time += 0.5
        assert found == [16, 32, 64, 128, 256, 256]

    def test_a_slow_gateway_gets_the_least_again(self, clock):
        size = ClaimSize(16)
        size.next()
        size.next()
        clock.time += 1
        assert size.next() == 16

    def test_the_least_may_be_above_the_limit(self, clock):
        size = ClaimSize(1000)
        assert [size.next(), size.next()] == [1000, 1000]


class TestInbox:
    def events(self, number):
        return [Event(message) for message in range(number)]

    def test_it_gives_what_has_come_in_order_and_once(self):
        inbox = Inbox()
        events = self.events(3)
        for event in events:
            inbox.put(event)
        assert not inbox.is_empty()
        assert list(inbox.get(timeout=0, most=3)) == events
        assert inbox.is_empty()
        assert list(inbox.get(timeout=0, most=3)) == []

    def test_it_does_not_wait_for_more_than_may_come(self, monkeypatch):
        """With one request at once, nothing else can come: each would wait for nothing."""
        monkeypatch.setattr(dispatcher, "BATCH_DELAY_SECONDS", 3600)
        inbox = Inbox()
        for event in self.events(2):
            inbox.put(event)
        assert len(list(inbox.get(timeout=3600, most=2))) == 2

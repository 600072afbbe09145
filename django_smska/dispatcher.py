"""Send the due messages of one provider, with many requests in flight.

One thread, the caller's, does all work on the database. The others only wait for the network: they
ask it for permission right before the first byte, and hand it the outcome. It grants and records in
groups, so that many requests cost few queries, and because SQLite has one writer.

What it decides by are four plain objects: :class:`Slots`, :class:`rate_limit.RateSlots`,
:class:`TimeSlice` and :class:`Inbox`.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import Error

from . import circuit_breaker, clock, limits, log_fields, monotonic, rate_limit, sending
from .checked_backend import CheckedBackend
from .conflicts import in_atomic_block
from .exceptions import SmsError, SmsOutcomeUnknown
from .models import SmsMessage, SmsMessageQuerySet
from .receipts import Receipt
from .sending import Outcome, Result
from .states import FINAL, Status

logger = logging.getLogger(__name__)

HELD = (Status.CLAIMED, Status.SENDING)  # the outcome is not recorded yet

TIME_SLICE_SECONDS = 10.0  # the turn of one provider, while others have messages due
LONGEST_SLICE_SECONDS = 60.0  # the turn of a provider, while no other has messages due
STOP_SECONDS = 0.2  # the time after which a pass looks again whether its provider is stopped
REPORT_SUCCESS_SECONDS = 1.0  # the time between two reports of success to the circuit breaker
BATCH_DELAY_SECONDS = 0.001  # the wait of an event for others, so that one query serves them all
MAX_EVENT_WAIT_SECONDS = (
    1.0  # the longest wait for an event: a signal right before it does not end it
)
LOCKED_SECONDS = 0.2  # the wait for rows that other processes have locked
JOIN_SECONDS = 0.05  # the wait for a thread to end, between two looks at what the others want
CLAIM_USED_UP_SECONDS = 1.0  # the time of use below which the next claim has twice the size
MAX_CLAIM = 256  # the largest claim, in messages


# --- what it decides by: no threads, no queries ---------------------------------------------------


class Slots:
    """Limit the requests in flight to ``width``, and to one until the gateway is proven to work.

    A slot is in use from the moment its message is marked until its outcome is stored, so that a
    killed process leaves at most ``width`` messages unknown.
    """

    def __init__(self, width: int, *, proven: bool = False) -> None:
        self.width = width
        self.proven = proven
        self.in_use: set[Any] = set()  # keys of messages

    @property
    def number(self) -> int:
        return self.width if self.proven else 1

    def free(self) -> int:
        """Return how many more requests may begin."""
        return max(self.number - len(self.in_use), 0)

    def prove(self, outcome: Outcome) -> None:
        """Note that login and connection work: a refusal shows it, too, if the gateway answered
        it. A backend may also refuse a number without a request."""
        self.proven = self.proven or isinstance(outcome, Receipt) or outcome.answered


class TimeSlice:
    """Decide whether requests may still begin: not after the time, a pause or the end.

    Whatever the time, one request begins, so that every provider gets on. While no ``others_wait``
    the time is extended up to ``longest`` seconds, because at its end the slots run empty.
    """

    def __init__(self, seconds: float, longest: float, others_wait: Callable[[], bool]) -> None:
        self.seconds, self.others_wait = seconds, others_wait
        self.until = monotonic.now() + seconds
        self.latest = self.until - seconds + longest
        self.begun = False  # a request has begun
        self.open = True  # the circuit breaker lets requests through
        self.ended = False

    def is_over(self) -> bool:
        return self.begun and monotonic.now() >= self.until

    def may_go_on(self) -> bool:
        if self.is_over() and not self.ended:
            if self.until >= self.latest or self.others_wait():
                self.ended = True
            else:
                self.until = min(monotonic.now() + self.seconds, self.latest)
        return self.open and not self.ended


class ClaimSize:
    """Choose how many messages to claim: enough for a second, so that few queries claim them, and
    few more, so that a slow gateway's claims do not outlive their lease."""

    def __init__(self, least: int) -> None:
        self.least = least
        self.size = least
        self._claimed_at = float("-inf")

    def next(self) -> int:
        now = monotonic.now()
        fast = now - self._claimed_at < CLAIM_USED_UP_SECONDS
        self.size = max(self.least, min(2 * self.size, MAX_CLAIM)) if fast else self.least
        self._claimed_at = now
        return self.size


@dataclass(frozen=True)
class Event:
    """From a thread: a message that asks for permission (``answer``), or has ended."""

    message: SmsMessage
    outcome: Outcome | None = None
    answer: queue.SimpleQueue[bool] | None = None

    def reply(self, permitted: bool) -> None:
        """Give the answer. Only the first one counts, because each event has a queue of its own."""
        assert self.answer is not None
        self.answer.put(permitted)


class Inbox:
    """Hand over the threads' events in batches, because one query serves a batch."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._enough = threading.Event()
        self._wanted = 1

    def put(self, event: Event) -> None:
        self._events.append(event)
        if len(self._events) >= self._wanted:
            self._enough.set()

    def is_empty(self) -> bool:
        return not self._events

    def get(self, *, timeout: float, most: int) -> Iterator[Event]:
        """Wait for an event, at most ``timeout`` seconds, and then ``BATCH_DELAY_SECONDS`` for the
        others; iterate over them.

        An event is removed after the caller is done with it. So an exception, whenever it comes,
        loses none, but the event may be given again.

        :param most: how many events may come in all
        """
        if self._wait(1, timeout):
            self._wait(most, BATCH_DELAY_SECONDS)
        for _ in range(len(self._events)):
            yield self._events[0]
            self._events.popleft()

    def _wait(self, number: int, seconds: float) -> bool:
        self._wanted = number
        self._enough.clear()
        # What came before this line is seen here; what comes after it sees the new number.
        if len(self._events) < number and seconds > 0:
            self._enough.wait(seconds)
        return bool(self._events)


# --- the dispatcher -------------------------------------------------------------------------------


class Dispatcher:
    """The threads of one provider for one pass, and the loop that serves them.

    A few more threads than requests may be in flight have a message ready, so that the next request
    leaves when one has ended.

    :param others_wait: returns whether another provider has messages due
    :param new_token: makes the token of a claim
    :param progress: called with the messages by status each time outcomes were recorded
    """

    def __init__(
        self,
        backend: CheckedBackend,
        messages: SmsMessageQuerySet,
        *,
        width: int,
        proven: bool,
        stopping: Callable[[], bool],
        others_wait: Callable[[], bool],
        new_token: Callable[[], str],
        progress: Callable[[Counter[str]], None],
    ) -> None:
        self.backend = backend
        self.alias = str(backend.alias)
        self.messages = messages
        self.stopping, self.new_token, self.progress = stopping, new_token, progress
        self.slots = Slots(width, proven=proven)
        self.rate_slots = rate_limit.RateSlots(self.alias, backend.rate)
        self.time_slice = TimeSlice(TIME_SLICE_SECONDS, LONGEST_SLICE_SECONDS, others_wait)
        self.claim_size = ClaimSize(width if backend.rate is None else self._ready())
        self.inbox = Inbox()
        self.jobs: queue.SimpleQueue[SmsMessage | None] = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []
        self.claimed: deque[SmsMessage] = deque()
        self.out: set[Any] = set()  # keys of the messages that the threads have
        self.waiting: deque[Event] = deque()  # for permission
        self.ended: list[Result] = []  # to be recorded
        self.day_is_full: bool | None = None  # not known yet
        self.draining = False
        self.refused: list[SmsMessage] = []  # marked, perhaps, and got no permission
        self.unrecorded: list[Result] = []  # the database did not store them
        self.done: Counter[str] = Counter()
        self.look_for_stop_at = 0.0  # monotonic
        self.report_success_at = 0.0  # monotonic: when the circuit breaker is next informed

    def run(self) -> None:
        """Send until the queue is empty or this must end; raise what the database raised.

        Whatever ends it, also an exception that a signal raises at any moment, the threads end and
        the outcomes are recorded. Afterwards ``refused`` and ``unrecorded`` hold what is left to
        do once the database answers.
        """
        failure: BaseException | None = None
        over = False
        in_transaction = in_atomic_block()
        while not over:
            try:
                if failure is None:
                    self._work()
                self._end_threads()
                over = True
            except BaseException as error:  # no thread may be left waiting
                failure = failure or error
                with contextlib.suppress(Error):
                    sending.reconnect(in_transaction=in_transaction)
                if self.draining or isinstance(error, Error):  # it was tried, or tried again
                    self._put_aside()
        try:
            with contextlib.suppress(Error):
                self.rate_slots.give_back()
            sending.release([*self.claimed, *self.refused])
        except Exception as error:  # the database is away, perhaps; the leases will end
            failure = failure or error
        if failure is not None:
            raise failure

    def _work(self) -> None:
        going = self._may_go_on()
        self._claim(going)
        self._hand_out(going)
        while self.out:
            self._step()

    @property
    def out_of_time(self) -> bool:
        """Whether this yielded to another provider: there may be more to do."""
        return self.time_slice.open and self.time_slice.is_over()

    def held_back(self) -> list[float]:
        """Return the seconds until the next message may leave, where the rate ended this, or where
        other processes have locked what is due: MariaDB locks the rows that it looks at, too."""
        if not self.time_slice.open or self.stopping():
            return []
        if not self._allowed(self._due(clock.now())).exists():
            return []
        return [self.rate_slots.until_next() if not self.rate_slots.near() else LOCKED_SECONDS]

    # --- one step, in the caller's thread

    def _step(self) -> None:
        """Process events: record outcomes before requests begin in their slots, because an
        unrecorded one would be left unknown."""
        silent = len(self.out) - len(self.waiting)  # threads from which an event may come
        self._receive(timeout=self._longest_wait(), most=silent)
        self._record_errors()
        going = self._may_go_on()
        self._record_and_mark(going)
        self._hand_out(going)
        self._claim(going)
        self._hand_out(going)

    def _may_go_on(self) -> bool:
        if self.stopping() or not self.time_slice.may_go_on():
            return False
        # A stop of this very provider ends all permission at once; the query ends the pass. A
        # failover is queried for each group of requests, because of its members.
        if self.backend.members or monotonic.now() >= self.look_for_stop_at:
            self.time_slice.open = sending.may_begin(self.backend, self.ended)
            self.look_for_stop_at = monotonic.now() + STOP_SECONDS
        return self.time_slice.open

    def _longest_wait(self) -> float:
        """Return the seconds to wait for an event: until one that asks for permission has its
        slot under the rate."""
        if self.rate_slots.rate is None or not self.waiting or not self.slots.free():
            return MAX_EVENT_WAIT_SECONDS
        return min(MAX_EVENT_WAIT_SECONDS, self.rate_slots.until_next())

    def _receive(self, *, timeout: float, most: int) -> None:
        for event in self.inbox.get(timeout=timeout, most=most):
            self._sort(event)

    def _sort(self, event: Event) -> None:
        """Take over an event. The one that was the last may come again."""
        if event.answer is not None:
            self.waiting.append(event)
            return
        self.out.discard(event.message.pk)
        self.slots.in_use.discard(event.message.pk)
        if event.outcome is None:
            if self.draining:
                self.refused.append(event.message)
        elif not self.ended or self.ended[-1].message is not event.message:
            self.ended.append(Result(event.message, event.outcome))
            self.slots.prove(event.outcome)

    def _record_errors(self) -> None:
        """Record errors before permission is given, because they may pause the provider."""
        errors = [result for result in self.ended if isinstance(result.outcome, SmsError)]
        if errors:
            sending.record(errors)
            self.ended = [result for result in self.ended if isinstance(result.outcome, Receipt)]
            self._note(errors)

    def _record_and_mark(self, going: bool) -> None:
        """Record what was accepted, and let as many requests begin as there are slots; refuse all
        when stopping."""
        places = self._places() if going else 0
        asking = list(self.waiting)
        granted, others = asking[:places], asking[places:]
        # Under a rate, one that would wait for long also gives its place in the queue back.
        denied = [] if going and self.rate_slots.near() else others
        accepted = self.ended
        marked = sending.record_and_mark(accepted, [event.message for event in granted])
        self.ended = []
        left = [one.message for one in granted if sending.claim_of(one.message) not in marked]
        if left:  # perhaps it is stopped
            self.look_for_stop_at = 0.0
        # Their numbers are on the do-not-send list, or they have expired in our hands.
        self.done.update(str(one.status) for one in left if one.status in FINAL)
        sending.release([*left, *(event.message for event in denied)])
        self.slots.in_use.update(pk for pk, _ in marked)
        self.time_slice.begun = self.time_slice.begun or bool(marked)
        for event in (*granted, *denied):
            event.reply(sending.claim_of(event.message) in marked)
        self.waiting = deque([] if denied else others)
        if accepted:
            self._note(accepted)

    def _places(self) -> int:
        return self.rate_slots.take(min(self.slots.free(), len(self.waiting)))

    def _ready(self) -> int:
        """Return how many messages the threads should have beside those in flight."""
        if self.rate_slots.rate is None:
            return self.slots.width // 2 if self.slots.proven else 0
        # Enough to connect before their slots begin, and no more: a connection grows stale.
        ahead = round(self.rate_slots.rate * 2 * rate_limit.RESERVE_AHEAD_SECONDS)
        return min(self.slots.width, max(1, ahead))

    def _room(self) -> int:
        """Return how many messages the threads should have in all."""
        if self.rate_slots.rate is None:
            return self.slots.number + self._ready()
        if not self.rate_slots.near():
            return 0
        return min(self.slots.number, len(self.slots.in_use)) + self._ready()

    def _hand_out(self, going: bool) -> None:
        """Give the threads as many messages as they should have."""
        room = self._room() if going and self.claimed else 0
        while self.claimed and len(self.out) < room:
            if len(self.threads) <= len(self.out) and not self._hire():
                break
            message = self.claimed[0]
            self.out.add(message.pk)
            self.jobs.put(message)
            self.claimed.popleft()

    def _claim(self, going: bool) -> None:
        """Claim ahead, so that a free thread finds a claimed message: when no event waits, or when
        few claimed ones are left."""
        if not (going and self.rate_slots.near()):
            sending.release(self.claimed)
            self.claimed.clear()
            return
        least = self.claim_size.least
        if len(self.claimed) < (least if self.inbox.is_empty() else least // 4 + 1):
            some_remain = self._claim_more()
            # Without a message in hand this would end, and no outcome waits to be recorded.
            while some_remain and not (self.claimed or self.out) and self._may_go_on():
                some_remain = self._claim_more()

    def _claim_more(self) -> bool:
        """Claim a batch; return whether it had messages that may not be sent, so that behind them
        there may be others."""
        claimed = self._claim_batch()
        fit = self._within_day(claimed)
        self.claimed += fit
        left_out = bool(claimed.cancelled or claimed.set_aside or claimed.put_off)
        # That is progress as a request is, and many of them would keep other providers waiting.
        self.time_slice.begun = self.time_slice.begun or left_out
        return left_out or len(fit) < len(claimed)

    def _claim_batch(self) -> sending.Claimed:
        now = clock.now()
        in_hand = self.out.union(message.pk for message in self.claimed)
        due = self._allowed(self._due(now)).exclude(pk__in=in_hand)
        claimed = sending.claim(due[: self.claim_size.next()], now, self.new_token())
        if claimed.cancelled:
            self.done[str(Status.CANCELLED)] += claimed.cancelled
            self.progress(self.done)
        return claimed

    def _due(self, now: datetime) -> SmsMessageQuerySet:
        return self.messages.due(now, self.alias)

    def _allowed(self, due: SmsMessageQuerySet) -> SmsMessageQuerySet:
        """Return, once the provider's segments of the day are used up, those that count already."""
        if self.day_is_full is None:
            self.day_is_full = limits.segments_left(self.alias) == 0
        return due.filter(counted_on=limits.today()) if self.day_is_full else due

    def _within_day(self, claimed: list[SmsMessage]) -> list[SmsMessage]:
        """Return those that the provider's segments of the day allow; put the others back."""
        fit = sending.count_for_today(claimed)
        if len(fit) < len(claimed):
            self.day_is_full = True
            sending.release(one for one in claimed if one not in fit)
        return fit

    def _note(self, results: list[Result]) -> None:
        self.done.update(str(result.message.status) for result in results)
        self._report_to_breaker(
            [result for result in results if not sending.is_reported(result.message)]
        )
        self.progress(self.done)

    def _report_to_breaker(self, results: Iterable[Result]) -> None:
        """Report every error at once, also one after which another provider accepted the message;
        of each provider's successes the newest, now and then."""
        errors = [
            one for one in results if isinstance(one.outcome, SmsError) or one.outcome.refused
        ]
        for one in errors:
            self._report(one)
        if errors:
            self.time_slice.open &= circuit_breaker.may_go_on(self.backend)
            self.report_success_at = 0.0
        accepted = {one.outcome.alias: one for one in results if isinstance(one.outcome, Receipt)}
        if accepted and monotonic.now() >= self.report_success_at:
            for newest in accepted.values():
                self._report(newest)
            self.report_success_at = monotonic.now() + REPORT_SUCCESS_SECONDS

    def _report(self, result: Result) -> None:
        with log_fields.during(result.message):
            sending.report_to_breaker(self.alias, result.outcome)

    # --- the end, in the caller's thread

    def _end_threads(self) -> None:
        """Serve the threads without permission for anything, until all have ended. It may be called
        again after an exception."""
        self.draining = self.time_slice.ended = True
        for _ in self.threads:
            self.jobs.put(None)
        while True:
            alive = [thread for thread in self.threads if thread.is_alive()]
            self._receive(timeout=0, most=0)
            while self.waiting:
                self.waiting[0].reply(False)
                self.waiting.popleft()
            self._record_ended()
            if not alive:
                return
            alive[0].join(JOIN_SECONDS)

    def _record_ended(self) -> None:
        """Record what has ended, but for what was recorded before the exception came."""
        self.ended = [one for one in self.ended if one.message.status in HELD]
        if ended := self.ended:
            sending.record(ended)
            self.ended = []
            self._note(ended)

    def _put_aside(self) -> None:
        """Leave the outcomes of requests to the worker's next pass. A message that was not begun
        needs none: its claim is given back."""
        begun = [one for one in self.ended if one.message.status == Status.SENDING]
        self.unrecorded, self.ended = self.unrecorded + begun, []

    # --- in the threads: no query here

    def _hire(self) -> bool:
        """Start a thread; return False where the machine allows no more of them."""
        name = f"smska-{len(self.threads)}"
        thread = threading.Thread(target=self._send_all, name=name, daemon=True)
        self.threads.append(thread)  # before it starts, so that none is ever left behind
        try:
            thread.start()
        except RuntimeError:
            self.threads.remove(thread)
            words = "provider %s: only %s threads could be started"
            extra = log_fields.of_provider(self.alias, "threads")
            logger.error(words, self.alias, len(self.threads), extra=extra)
            return False
        return True

    def _send_all(self) -> None:
        def ask_permission(message: SmsMessage) -> bool:
            answer: queue.SimpleQueue[bool] = queue.SimpleQueue()
            self.inbox.put(Event(message, answer=answer))
            return answer.get()

        while (message := self.jobs.get()) is not None:
            # None says that nothing was written: only attempt() may say so.
            outcome: Outcome | None = SmsOutcomeUnknown(alias=self.alias, code="crash")
            try:
                outcome = sending.attempt(self.backend, message, ask_permission)
            except BaseException as error:  # such as SystemExit
                begun = message.status == Status.SENDING
                outcome = self.backend.crashed(error, begun=begun)
            finally:
                self.inbox.put(Event(message, outcome))

"""A worker's pass: recover, send what is due, ask for the reports that are due.

One thread, the caller's, does all work on the database; the others only wait for the network. They
ask it for leave right before the first byte, and hand it the outcome; it answers and records in
groups. So many sends in the air cost few queries, and SQLite has one writer.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import Error
from django.db.models import Exists, OuterRef, Subquery

from . import checked_backend, circuit_breaker, clock, delivery, rate_limit, sending
from .checked_backend import CheckedBackend
from .exceptions import InvalidProvider, SmsError
from .models import SmsMessage, SmsMessageQuerySet, rows
from .providers import providers
from .receipts import Receipt
from .sending import Outcome, Result
from .states import Status

logger = logging.getLogger(__name__)

REPORTS_PER_PASS = 200
TIME_SLICE_SECONDS = 10.0  # seconds for one provider, before others have their turn
MAX_RATE_WAIT_SECONDS = 60.0  # seconds that a pass with an end waits for times under a ``rate``
# Seconds: what is due so soon is waited for. The process that stored it "for now" may have read the
# database's clock a moment ahead of us, and nobody wakes us again for it.
NEARLY_DUE_SECONDS = 2.0
REPORT_SUCCESS_SECONDS = 1.0  # between two reports of success to the circuit breaker
MAX_BATCH_DELAY_SECONDS = 0.004  # seconds, at most, that a event waits for others
BATCH_DELAY_SHARE = 0.06  # and no more than this share of what a request takes


class Worker:
    """Sends queued messages.

    ``using``: only this provider's. ``concurrency``: requests in the air at once. ``progress``:
    called with a ``Counter`` of statuses each time outcomes were recorded.
    """

    def __init__(
        self,
        *,
        using: str | None = None,
        concurrency: int = 16,
        progress: Callable[[Counter[str]], None] = lambda done: None,
    ) -> None:
        self.using = using
        self.concurrency = concurrency
        self.progress = progress
        self.stopping = threading.Event()
        #: Seconds until a message may leave that a provider's ``rate`` held back, or that is nearly
        #: due; None for none.
        self.next_in: float | None = None
        self.proven: set[str] = set()  # providers that answered as they should in this pass
        self._tokens: set[str] = set()  # the claims of a pass that is not ended, or failed
        self._refused: list[SmsMessage] = []  # marked in a failure, and not written

    def stop(self) -> None:
        """Finish what is in the air, give back what is only claimed, and end."""
        self.stopping.set()

    def run_once(self) -> Counter[str]:
        """Do one pass; return how many messages it left in which status, and the number of
        ``reports`` that were due."""
        done: Counter[str] = Counter()
        self.next_in = None
        self.proven.clear()
        self._give_back()
        if not self._anything_to_do():
            return done
        while not self.stopping.is_set():
            sending.recover()
            sent, more = self._send(rows(), self._aliases())
            asked = self._ask_some()
            done += sent
            done["reports"] += asked
            if not more and (not asked or done["reports"] >= REPORTS_PER_PASS):
                break
        return done

    def _anything_to_do(self) -> bool:
        """One cheap query, all that a sleeping worker costs; and once a minute, be seen."""
        now, aliases = clock.now(), list(self._aliases())
        every = rows().order_by()
        mine = every.filter(using=OuterRef("alias")).next_time()
        found = circuit_breaker.states_of(aliases).values_list(
            "worker_seen_at",
            Subquery(mine.values("send_after")[:1]),
            Exists(every.stale(now)),
            Exists(every.overdue(now)),
            Exists(every.awaiting_report(now)),
        )
        answers = list(found)
        fresh = [
            seen for seen, *_ in answers if seen and seen > now - circuit_breaker.HEARTBEAT_INTERVAL
        ]
        if len(fresh) < len(aliases):
            circuit_breaker.heartbeat(aliases)
            return True
        soon = now + timedelta(seconds=NEARLY_DUE_SECONDS)
        return any((first and first <= soon) or any(flags) for _, first, *flags in answers)

    def _ask_some(self) -> int:
        return delivery.ask_due(
            self.using,
            limit=self.concurrency,
            width=self.concurrency,
            stopping=self.stopping.is_set,
        )

    def send_due(self) -> Counter[str]:
        """Send all that is due; count the messages by status."""
        return self._send_all(rows(), list(self._aliases()))

    def send_these(self, pks: Iterable[Any]) -> Counter[str]:
        """Send those of these messages that are due, and nothing else; count them by status."""
        chosen = rows(pks)
        aliases = chosen.order_by().values_list("using", flat=True).distinct()
        return self._send_all(chosen, [alias for alias in aliases if alias in providers])

    def _aliases(self) -> Iterable[str]:
        return [self.using] if self.using is not None else list(providers)

    def _send_all(self, messages: SmsMessageQuerySet, aliases: list[str]) -> Counter[str]:
        done, more = self._send(messages, aliases)
        end = time.monotonic() + MAX_RATE_WAIT_SECONDS
        while not self.stopping.is_set() and (more or self.wait_for_next(end)):
            sent, more = self._send(messages, aliases)
            done += sent
        return done

    def _send(
        self, messages: SmsMessageQuerySet, aliases: Iterable[str]
    ) -> tuple[Counter[str], bool]:
        """Work for each provider in turn, for a while; tell whether there is more."""
        self._give_back()
        done: Counter[str] = Counter()
        more = False
        held_back: list[float] = []
        for alias in aliases:
            mine = messages.filter(using=alias)
            due_in = _due_in(mine)
            if due_in <= 0 and (dispatcher := self._send_through(alias, mine)) is not None:
                done += dispatcher.done
                more = more or dispatcher.out_of_time
                held_back += dispatcher.held_back()
                due_in = _due_in(mine)
            if 0 < due_in <= NEARLY_DUE_SECONDS:
                held_back.append(due_in)
        self.next_in = min(held_back, default=None)
        return done, more

    def wait_for_next(self, end: float) -> bool:
        """Wait until a message may leave that a ``rate`` held back, or that is nearly due; return
        False at once where there is none, or its time comes after ``end`` (monotonic)."""
        if self.next_in is None or time.monotonic() + self.next_in > end:
            return False
        return not self.stopping.wait(self.next_in)

    def claiming(self) -> str:
        """A new token, remembered until the pass has ended well."""
        token = uuid.uuid4().hex
        self._tokens.add(token)
        return token

    def _give_back(self) -> None:
        """Queue again what a failed pass had claimed and not begun; its threads have ended."""
        if self._tokens:
            sending.take_back(self._refused)
            sending.release([], tokens=self._tokens)
            self._tokens.clear()
            self._refused.clear()

    def _send_through(self, alias: str, messages: SmsMessageQuerySet) -> _Dispatcher | None:
        backend = _backend(alias)
        if not circuit_breaker.may_send(backend):
            return None
        try:
            backend.open()
            dispatcher = _Dispatcher(self, backend, messages)
            try:
                dispatcher.work()
            except Exception:
                self._refused += dispatcher.refused
                sending.reconnect()
                with contextlib.suppress(Error):
                    self._give_back()
                raise
            self._tokens.clear()
            return dispatcher
        except SmsError as error:  # it could not be opened: its queue waits, others go on
            logger.error("%s", error)
            sending.report_to_breaker(alias, error)
            return None
        finally:
            backend.close()


def _due_in(messages: SmsMessageQuerySet) -> float:
    """Seconds until the next queued message's time, 0 or less where it has come."""
    first = messages.next_time().values_list("send_after", flat=True).first()
    return math.inf if first is None else (first - clock.now()).total_seconds()


def _backend(alias: str) -> CheckedBackend:
    try:
        return checked_backend.provider(alias)
    except InvalidProvider as error:
        return checked_backend.unusable(alias, error)


@dataclass(frozen=True)
class _Event:
    """From a thread to the desk: a message that asks for leave (``answer``), or has ended."""

    message: SmsMessage
    outcome: Outcome | None = None
    answer: queue.SimpleQueue[bool] | None = None


class _Dispatcher:
    """The threads of one provider for one pass, and the desk that they report to.

    A few more threads than requests may be in the air have a message ready, so that the next
    request leaves when one has ended.
    """

    def __init__(
        self, worker: Worker, backend: CheckedBackend, messages: SmsMessageQuerySet
    ) -> None:
        self.worker = worker
        self.backend = backend
        self.messages = messages
        self.alias = str(backend.alias)
        self.width = worker.concurrency
        # No SimpleQueue: up to CPython 3.12 it may wait for ever where the timeout is short.
        self.inbox: queue.Queue[_Event] = queue.Queue()
        self.jobs: queue.SimpleQueue[SmsMessage | None] = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []
        self.claimed: deque[SmsMessage] = deque()
        self.out: set[Any] = set()  # keys of the messages that the threads have
        self.waiting: deque[_Event] = deque()
        self.in_flight: dict[Any, float] = {}  # key: when it was given leave
        self.ended: list[Result] = []
        self.refused: list[SmsMessage] = []
        self.rate_slots = rate_limit.RateSlots(self.alias, backend.rate)
        self.request_seconds = 0.0  # seconds that a request takes
        self.done: Counter[str] = Counter()
        self.open = self.open_to_the_end = True
        # One goes alone, until the gateway has answered as it should.
        self.proven = self.alias in worker.proven
        self.begun = False  # whatever the time, a pass sends one
        self.until = 0.0
        self.report_success_at = 0.0  # monotonic: when the circuit breaker is next informed

    def work(self) -> None:
        try:
            self._claim()
            self.until = time.monotonic() + TIME_SLICE_SECONDS
            self._hand_out()
            while self.out:
                self._serve()
        finally:
            self._drain()
            if self.proven and self.open_to_the_end:
                self.worker.proven.add(self.alias)
            else:
                self.worker.proven.discard(self.alias)

    @property
    def out_of_time(self) -> bool:
        """True where this ended for others' sake: there may be more to do."""
        return self.open_to_the_end and self.begun and time.monotonic() >= self.until

    def held_back(self) -> list[float]:
        """The seconds until the next message may leave, where the rate ended this."""
        if not self.open_to_the_end or self.rate_slots.near() or not self.messages.due(clock.now()):
            return []
        return [self.rate_slots.until_next()]

    # --- at the desk

    def _serve(self) -> None:
        """Take what has come, record it, and let the next go: what is not recorded is in doubt."""
        for event in self._events():
            self._sort(event)
        self._record_and_mark()
        self._hand_out()
        self._claim()
        self._hand_out()

    def _events(self) -> list[_Event]:
        """Wait for a event, and a moment for those that come with it: a query serves them all.

        A signal that comes right before the wait does not end it, so that is bounded, too.
        """
        events: list[_Event] = []
        try:
            events.append(self.inbox.get(timeout=self._longest_wait()))
            end = time.monotonic() + min(
                self.request_seconds * BATCH_DELAY_SHARE, MAX_BATCH_DELAY_SECONDS
            )
            while len(events) < self.width:
                events.append(self.inbox.get(timeout=max(end - time.monotonic(), 0)))
        except queue.Empty:
            pass
        return events

    def _sort(self, event: _Event) -> None:
        if event.answer is not None:
            self.waiting.append(event)
            return
        pk = event.message.pk
        self.out.discard(pk)
        if (since := self.in_flight.pop(pk, None)) is not None:
            self.request_seconds += (time.monotonic() - since - self.request_seconds) / 8
        if event.outcome is not None:
            self.ended.append(Result(event.message, event.outcome))
            # A refusal of the message, too, shows that the login and the line are good.
            kind = getattr(event.outcome, "kind", "taken")
            self.proven = self.proven or kind in ("taken", "message", "sender")

    def _may_go_on(self) -> bool:
        in_time = not self.begun or time.monotonic() < self.until
        return self.open and in_time and not self.worker.stopping.is_set()

    def _record_and_mark(self) -> None:
        """Record what has ended, and mark as many as may take its place in the air; refuse all
        where we must stop. Errors are recorded first, because they may pause the provider."""
        errors = [result for result in self.ended if isinstance(result.outcome, SmsError)]
        self.ended = [result for result in self.ended if result not in errors]
        if errors:
            sending.record(errors)
            self._note(errors)
        going = self._may_go_on()
        let_go = self._pop(self._room() if going else 0)
        # Under a rate, one that would wait for long gives its place in the queue back, too.
        refused = self._pop(0 if going and self.rate_slots.near() else len(self.waiting))
        messages = [event.message for event in let_go]
        taken, self.ended = self.ended, []
        marked: set[sending.Claim] = set()
        try:
            marked = sending.record_and_mark(taken, messages)
            sending.release(event.message for event in refused)
        except Exception:
            self.refused += [one for one in messages if sending.claim_of(one) not in marked]
            raise
        finally:
            self.begun = self.begun or bool(marked)
            self.in_flight |= dict.fromkeys((pk for pk, _ in marked), time.monotonic())
            for event in (*let_go, *refused):
                assert event.answer is not None
                event.answer.put(sending.claim_of(event.message) in marked)
        if taken:
            self._note(taken)

    def _pop(self, number: int) -> list[_Event]:
        return [self.waiting.popleft() for _ in range(min(number, len(self.waiting)))]

    def _room(self) -> int:
        """How many more may be in the air now."""
        return self.rate_slots.take(min(self._free_places(), len(self.waiting)))

    def _free_places(self) -> int:
        return (self.width if self.proven else 1) - len(self.in_flight)

    def _longest_wait(self) -> float:
        """Seconds to wait for a event: until one that asks for leave has its time."""
        if self.rate_slots.rate is None or not self.waiting or not self._free_places():
            return 1.0
        return min(1.0, self.rate_slots.until_next())

    def _ready(self) -> int:
        """How many messages the threads should have beside those in the air."""
        if self.rate_slots.rate is None:
            return self.width // 4 if self.proven else 0
        # Enough to connect before their times come, and no more: a connection grows stale.
        return min(
            self.width, max(1, round(self.rate_slots.rate * 2 * rate_limit.BOOK_AHEAD_SECONDS))
        )

    def _hand_out(self) -> None:
        """Give the threads what they have room for."""
        ready, room = self._ready(), self.width if self.proven else 1
        if self.rate_slots.rate is not None:
            room = min(room, len(self.in_flight)) if self.rate_slots.near() else -ready
        while self.claimed and len(self.out) < room + ready and self._may_go_on():
            if len(self.threads) <= len(self.out) and not self._hire():
                break
            message = self.claimed.popleft()
            self.out.add(message.pk)
            self.jobs.put(message)

    def _claim(self) -> None:
        """Keep a small stock, so that a thread never waits for a claim."""
        stock = self.width if self.rate_slots.rate is None else self._ready()
        if not (self._may_go_on() and self.rate_slots.near()):
            sending.release(self.claimed)
            self.claimed.clear()
        elif len(self.claimed) < (stock if self.inbox.empty() else stock // 4 + 1):
            now = clock.now()
            in_hand = self.out.union(message.pk for message in self.claimed)
            due = self.messages.due(now).exclude(pk__in=in_hand)[: 3 * stock]
            self.claimed += sending.claim(due, now, self.worker.claiming())

    def _note(self, results: list[Result]) -> None:
        self.done.update(str(result.message.status) for result in results)
        self._report_to_breaker([result.outcome for result in results])
        self.worker.progress(self.done)

    def _report_to_breaker(self, outcomes: list[Outcome]) -> None:
        """Tell every error at once, also one after which another provider accepted the message; of
        each provider's successes now and then the newest."""
        errors = [one for one in outcomes if isinstance(one, SmsError) or one.refused]
        for error in errors:
            sending.report_to_breaker(self.alias, error)
        if errors:
            self.open = self.open and circuit_breaker.may_go_on(self.backend)
            self.report_success_at = 0.0
        accepted = {one.alias: one for one in outcomes if isinstance(one, Receipt)}
        if accepted and time.monotonic() >= self.report_success_at:
            for newest in accepted.values():
                sending.report_to_breaker(self.alias, newest)
            self.report_success_at = time.monotonic() + REPORT_SUCCESS_SECONDS

    def _drain(self) -> None:
        """Whatever happened at the desk: no thread waits for leave for ever, and no outcome that
        came is lost."""
        self.open_to_the_end, self.open = self.open, False
        with contextlib.suppress(Error):
            self.rate_slots.give_back()
        failure: Exception | None = None
        while self.out or self.ended or self.claimed:
            try:
                if self.out:
                    self._serve()
                else:
                    self._record_and_mark()
                    self._claim()
            except Exception as error:  # the database is away, perhaps; the lease will tell
                failure = failure or error
                if not self.out:
                    break
        for _ in self.threads:
            self.jobs.put(None)
        for thread in self.threads:
            thread.join()
        if failure is not None:
            raise failure

    # --- in the threads: no query here

    def _hire(self) -> bool:
        """Return False where the machine allows no more threads: those that are there go on."""
        thread = threading.Thread(target=self._send_all, name=f"smska-{len(self.threads)}")
        try:
            thread.start()
        except RuntimeError:
            logger.error("provider %s: no more than %s threads", self.alias, len(self.threads))
            return False
        self.threads.append(thread)
        return True

    def _send_all(self) -> None:
        answer: queue.SimpleQueue[bool] = queue.SimpleQueue()

        def ask_permission(message: SmsMessage) -> bool:
            self.inbox.put(_Event(message, answer=answer))
            return answer.get()

        while (message := self.jobs.get()) is not None:
            outcome: Outcome | None = None
            try:
                outcome = sending.attempt(self.backend, message, ask_permission)
            except BaseException as error:  # such as SystemExit
                begun = message.status == Status.SENDING
                outcome = self.backend.crashed(error, begun=begun)
            finally:
                self.inbox.put(_Event(message, outcome))

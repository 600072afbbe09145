"""A worker's pass: recover, send what is due, ask for the reports that are due.

One thread, the caller's, does all work on the database; the others only wait for the network. They
ask it for leave right before the first byte, and hand it the outcome; it answers and records in
groups. So many sends in the air cost few queries, and SQLite has one writer.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, OuterRef, Subquery
from django.utils import timezone

from . import brakes, delivery, fence, pace, sending
from .exceptions import InvalidProvider, SmsError
from .fence import Fenced
from .models import SmsMessage, SmsMessageQuerySet, rows
from .providers import providers
from .receipts import Receipt
from .sending import Outcome, Result

logger = logging.getLogger(__name__)

REPORTS_A_PASS = 200
SHIFT = 10.0  # seconds for one provider, before others have their turn
TELL_EVERY = 1.0  # seconds between two good news to the brakes
LINGER = 0.004  # seconds, at most, that a letter waits for others
PATIENCE = 0.06  # and no more than this share of what a request takes


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

    def stop(self) -> None:
        """Finish what is in the air, give back what is only claimed, and end."""
        self.stopping.set()

    def run_once(self) -> Counter[str]:
        """Do one pass; return how many messages it left in which status, and the number of
        ``reports`` that were due."""
        done: Counter[str] = Counter()
        if not self._anything_to_do():
            return done
        while not self.stopping.is_set():
            sending.recover()
            sent, more = self._send(rows(), self._aliases())
            asked = self._ask_some()
            done += sent
            done["reports"] += asked
            if not more and (not asked or done["reports"] >= REPORTS_A_PASS):
                break
        return done

    def _anything_to_do(self) -> bool:
        """One cheap query, all that a sleeping worker costs; and once a minute, be seen."""
        now, aliases = timezone.now(), list(self._aliases())
        every = rows().order_by()
        mine = every.filter(using=OuterRef("alias")).next_time()
        found = brakes.states_of(aliases).values_list(
            "worker_seen_at",
            Subquery(mine.values("send_after")[:1]),
            Exists(every.stale(now)),
            Exists(every.overdue(now)),
            Exists(every.awaiting_report(now)),
        )
        answers = list(found)
        fresh = [seen for seen, *_ in answers if seen and seen > now - brakes.SEEN_EVERY]
        if len(fresh) < len(aliases):
            brakes.be_seen(aliases)
            return True
        return any((first and first <= now) or any(flags) for _, first, *flags in answers)

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
        while more and not self.stopping.is_set():
            sent, more = self._send(messages, aliases)
            done += sent
        return done

    def _send(
        self, messages: SmsMessageQuerySet, aliases: Iterable[str]
    ) -> tuple[Counter[str], bool]:
        """Work for each provider in turn, for a while; tell whether there is more."""
        done: Counter[str] = Counter()
        more = False
        for alias in aliases:
            crew = self._send_through(alias, messages.filter(using=alias))
            if crew is not None:
                done += crew.done
                more = more or crew.out_of_time
        return done, more

    def _send_through(self, alias: str, messages: SmsMessageQuerySet) -> _Crew | None:
        first = messages.next_time().values_list("send_after", flat=True).first()
        if first is None or first > timezone.now():
            return None
        backend = _backend(alias)
        if not brakes.may_send(backend):
            return None
        try:
            backend.open()
            crew = _Crew(self, backend, messages)
            crew.work()
            return crew
        except SmsError as error:  # it could not be opened: its queue waits, others go on
            logger.error("%s", error)
            sending.tell_brakes(alias, error)
            return None
        finally:
            backend.close()


def _backend(alias: str) -> Fenced:
    try:
        return fence.provider(alias)
    except InvalidProvider as error:
        return fence.unusable(alias, error)


@dataclass(frozen=True)
class _Letter:
    """From a thread to the desk: a message that asks for leave (``answer``), or has ended."""

    message: SmsMessage
    outcome: Outcome | None = None
    answer: queue.SimpleQueue[bool] | None = None


class _Crew:
    """The threads of one provider for one pass, and the desk that they report to.

    A few more threads than requests may be in the air have a message ready, so that the next
    request leaves when one has ended.
    """

    def __init__(self, worker: Worker, backend: Fenced, messages: SmsMessageQuerySet) -> None:
        self.worker = worker
        self.backend = backend
        self.messages = messages
        self.alias = str(backend.alias)
        self.width = worker.concurrency
        self.token = uuid.uuid4().hex
        # No SimpleQueue: up to CPython 3.12 it may wait for ever where the timeout is short.
        self.desk: queue.Queue[_Letter] = queue.Queue()
        self.tray: queue.SimpleQueue[SmsMessage | None] = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []
        self.claimed: deque[SmsMessage] = deque()
        self.out: set[Any] = set()  # keys of the messages that the threads have
        self.asking: deque[_Letter] = deque()
        self.in_the_air: dict[Any, float] = {}  # key: when it was given leave
        self.ended: list[Result] = []
        self.times: deque[float] = deque()  # at which one each may leave, where there is a rate
        self.usual = 0.0  # seconds that a request takes
        self.done: Counter[str] = Counter()
        self.open = self.open_to_the_end = True
        self.proven = False  # one goes alone, until the gateway has answered as it should
        self.until = time.monotonic() + SHIFT
        self.tell_at = 0.0  # when the brakes hear of a success again

    def work(self) -> None:
        try:
            self._claim()
            self._hand_out()
            while self.out:
                self._serve()
        finally:
            self._drain()

    @property
    def out_of_time(self) -> bool:
        """True where this ended for others' sake: there may be more to do."""
        return self.open_to_the_end and time.monotonic() >= self.until

    # --- at the desk

    def _serve(self) -> None:
        """Take what has come, record it, and let the next go: what is not recorded is in doubt."""
        for letter in self._letters():
            self._sort(letter)
        self._turn()
        self._hand_out()
        self._claim()
        self._hand_out()

    def _letters(self) -> list[_Letter]:
        """Wait for a letter, and a moment for those that come with it: a query serves them all.

        A signal that comes right before the wait does not end it, so that is bounded, too.
        """
        letters: list[_Letter] = []
        try:
            letters.append(self.desk.get(timeout=min(1.0, self._until_next_time())))
            end = time.monotonic() + min(self.usual * PATIENCE, LINGER)
            while len(letters) < self.width:
                letters.append(self.desk.get(timeout=max(end - time.monotonic(), 0)))
        except queue.Empty:
            pass
        return letters

    def _sort(self, letter: _Letter) -> None:
        if letter.answer is not None:
            self.asking.append(letter)
            return
        pk = letter.message.pk
        self.out.discard(pk)
        if (since := self.in_the_air.pop(pk, None)) is not None:
            self.usual += (time.monotonic() - since - self.usual) / 8
        if letter.outcome is not None:
            self.ended.append(Result(letter.message, letter.outcome))
            # A refusal of the message, too, shows that the login and the line are good.
            kind = getattr(letter.outcome, "kind", "taken")
            self.proven = self.proven or kind in ("taken", "message", "sender")

    def _may_go_on(self) -> bool:
        in_time = time.monotonic() < self.until
        return self.open and in_time and not self.worker.stopping.is_set()

    def _turn(self) -> None:
        """Record what has ended, and mark as many as may take its place in the air; refuse all
        where we must stop. Errors come first: the brakes may have a word to say."""
        errors = [result for result in self.ended if isinstance(result.outcome, SmsError)]
        self.ended = [result for result in self.ended if result not in errors]
        if errors:
            sending.record(errors)
            self._tell(errors)
        going = self._may_go_on()
        room = self._room() if going else len(self.asking)
        letters = [self.asking.popleft() for _ in range(min(room, len(self.asking)))]
        messages = [letter.message for letter in letters]
        taken, self.ended = self.ended, []
        marked: set[Any] = set()
        try:
            marked = sending.turn(taken, messages if going else [])
            if not going:
                sending.release(messages)
        finally:
            self.in_the_air |= dict.fromkeys(marked, time.monotonic())
            for letter in letters:
                assert letter.answer is not None
                letter.answer.put(letter.message.pk in marked)
        if taken:
            self._tell(taken)

    def _room(self) -> int:
        """How many more may be in the air now."""
        room = (self.width if self.proven else 1) - len(self.in_the_air)
        if self.backend.rate is None:
            return room
        room = min(room, len(self.asking))
        if room > len(self.times):
            self._reserve_times(self.backend.rate, room - len(self.times))
        due = sum(at <= time.monotonic() for at in self.times)
        for _ in range(min(room, due)):
            self.times.popleft()
        return min(room, due)

    def _reserve_times(self, rate: float, number: int) -> None:
        """Not more than for a second, so that another worker's need not wait for ours."""
        number = min(number, max(1, int(rate)))
        now = time.monotonic()
        self.times += [now + after for after in pace.reserve(self.alias, rate, number)]

    def _until_next_time(self) -> float:
        """Seconds until one that asks for leave has its time."""
        if not (self.asking and self.times):
            return 1.0
        return max(self.times[0] - time.monotonic(), 0.0)

    def _hand_out(self) -> None:
        """Give the threads what they have room for."""
        room = self.width + self.width // 4 if self.proven else 1
        while self.claimed and len(self.out) < room and self._may_go_on():
            message = self.claimed.popleft()
            self.out.add(message.pk)
            if len(self.threads) < len(self.out):
                self._hire()
            self.tray.put(message)

    def _claim(self) -> None:
        """Keep a small stock, so that a thread never waits for a claim."""
        if not self._may_go_on():
            sending.release(self.claimed)
            self.claimed.clear()
        elif len(self.claimed) < (self.width if self.desk.empty() else self.width // 4 + 1):
            now = timezone.now()
            due = self.messages.due(now).exclude(pk__in=self.out)[: 3 * self.width]
            self.claimed += sending.claim(due, now, self.token)

    def _tell(self, results: list[Result]) -> None:
        self.done.update(str(result.message.status) for result in results)
        self._tell_brakes([result.outcome for result in results])
        self.worker.progress(self.done)

    def _tell_brakes(self, outcomes: list[Outcome]) -> None:
        """Tell every error at once, also one after which another provider accepted the message; of
        each provider's successes now and then the newest."""
        errors = [one for one in outcomes if isinstance(one, SmsError) or one.refused]
        for error in errors:
            sending.tell_brakes(self.alias, error)
        if errors:
            self.open = self.open and brakes.may_go_on(self.backend)
            self.tell_at = 0.0
        accepted = {one.alias: one for one in outcomes if isinstance(one, Receipt)}
        if accepted and time.monotonic() >= self.tell_at:
            for newest in accepted.values():
                sending.tell_brakes(self.alias, newest)
            self.tell_at = time.monotonic() + TELL_EVERY

    def _drain(self) -> None:
        """Whatever happened at the desk: no thread waits for leave for ever, and no outcome that
        came is lost."""
        self.open_to_the_end, self.open = self.open, False
        failure: Exception | None = None
        while self.out or self.ended or self.claimed:
            try:
                if self.out:
                    self._serve()
                else:
                    self._turn()
                    self._claim()
            except Exception as error:  # the database is away, perhaps; the lease will tell
                failure = failure or error
                if not self.out:
                    break
        for _ in self.threads:
            self.tray.put(None)
        for thread in self.threads:
            thread.join()
        if failure is not None:
            raise failure

    # --- in the threads: no query here

    def _hire(self) -> None:
        thread = threading.Thread(target=self._send_all, name=f"smska-{len(self.threads)}")
        thread.start()
        self.threads.append(thread)

    def _send_all(self) -> None:
        answer: queue.SimpleQueue[bool] = queue.SimpleQueue()

        def ask_leave(message: SmsMessage) -> bool:
            self.desk.put(_Letter(message, answer=answer))
            return answer.get()

        while (message := self.tray.get()) is not None:
            outcome: Outcome | None = None
            try:
                outcome = sending.attempt(self.backend, message, ask_leave)
            except BaseException as error:  # such as SystemExit; its text may be another party's
                logger.error("message %s: %s in its thread", message.pk, type(error).__name__)
            finally:
                self.desk.put(_Letter(message, outcome))

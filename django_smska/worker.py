"""A worker's pass: recover, send what is due, query the reports that are due."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any

from django.db import Error
from django.db.models import Exists, OuterRef, Subquery

from . import (
    checked_backend,
    circuit_breaker,
    clock,
    delivery,
    held_queue,
    kill_switch,
    log_fields,
    monotonic,
    sending,
)
from .checked_backend import CheckedBackend
from .dispatcher import Dispatcher
from .exceptions import InvalidProvider, SmsError
from .models import SmsMessage, SmsMessageQuerySet, rows
from .providers import providers
from .sending import Result
from .states import Status

logger = logging.getLogger(__name__)

REPORTS_PER_PASS = 200  # the most reports that one pass queries
MAX_RATE_WAIT_SECONDS = 60.0  # the longest wait for slots of a ``rate``, in a pass with an end
#: The time before its start at which a message counts as nearly due, and is waited for. The process
#: that stored it "for now" may have read the database's clock a moment ahead of this one, and no
#: second notification follows.
NEARLY_DUE_SECONDS = 2.0


class Worker:
    """Sends queued messages.

    :param using: only this provider's
    :param concurrency: requests in flight at once
    :param progress: called with a ``Counter`` of statuses each time outcomes were recorded
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
        self._unrecorded: list[Result] = []  # of a failed pass: no more than its width

    def stop(self) -> None:
        """Finish what is in flight, give back what is only claimed, and end."""
        self.stopping.set()

    @sending.whole_connection()
    def run_once(self) -> Counter[str]:
        """Do one pass; return how many messages it left in which status, and the number of
        ``reports`` that were due."""
        done: Counter[str] = Counter()
        self.next_in = None
        self.proven.clear()
        self._give_back()
        if not self.has_work():
            return done
        while not self.stopping.is_set():
            held_queue.heartbeat(self._aliases())  # a long queue makes a long pass
            recovered = sending.recover()
            recovered.pop("queued")  # these count by what becomes of them
            done += Counter(recovered)
            sent, more = self._send(rows(), self._aliases())
            queried = self._query_reports()
            done += sent
            done["reports"] += queried
            if not more and (not queried or done["reports"] >= REPORTS_PER_PASS):
                break
        return done

    def passes(self) -> Iterator[Counter[str]]:
        """Do a pass, and more while a ``rate`` holds messages back for a short time; iterate over
        what each has done."""
        end = monotonic.now() + MAX_RATE_WAIT_SECONDS
        yield self.run_once()
        while self.wait_for_next(end):
            yield self.run_once()

    def has_work(self) -> bool:
        """Return whether a pass is needed, by one query, which is all that a sleeping worker costs;
        once a minute, write the heartbeat, which may hold what is due."""
        now, aliases = clock.now(), list(self._aliases())
        every = rows().order_by()
        mine = every.filter(using=OuterRef("alias")).next_times(OuterRef(OuterRef("alias")))
        found = circuit_breaker.states_of(aliases).values_list(
            "worker_seen_at",
            Subquery(mine[:1]),
            Exists(every.stale(now)),
            Exists(every.overdue(now)),
            Exists(every.awaiting_report(now)),
            Exists(every.awaiting_proof(now)),
        )
        answers = list(found)
        fresh = [
            seen for seen, *_ in answers if seen and seen > now - circuit_breaker.HEARTBEAT_INTERVAL
        ]
        if len(fresh) < len(aliases):
            held_queue.heartbeat(aliases)
            return True
        soon = now + timedelta(seconds=NEARLY_DUE_SECONDS)
        return any((first and first <= soon) or any(flags) for _, first, *flags in answers)

    def _query_reports(self) -> int:
        width, stopping = self.concurrency, self.stopping.is_set
        asked = delivery.ask_due(self.using, limit=width, width=width, stopping=stopping)
        return asked + delivery.query_due(self.using, limit=width, width=width, stopping=stopping)

    @sending.whole_connection()
    def send_these(self, pks: Iterable[Any]) -> Counter[str]:
        """Send those of these messages that are due, and nothing else; count them by status."""
        chosen = rows(pks)
        aliases = chosen.order_by().values_list("using", flat=True).distinct()
        known = [alias for alias in aliases if alias in providers]
        held_queue.hold_old(known)
        done, more = self._send(chosen, known)
        end = monotonic.now() + MAX_RATE_WAIT_SECONDS
        while not self.stopping.is_set() and (more or self.wait_for_next(end)):
            sent, more = self._send(chosen, known)
            done += sent
        return done

    def _aliases(self) -> Iterable[str]:
        return [self.using] if self.using is not None else list(providers)

    def _send(
        self, messages: SmsMessageQuerySet, aliases: Iterable[str]
    ) -> tuple[Counter[str], bool]:
        """Send for each provider in turn, for a time slice; return the messages by status, and
        whether there are more."""
        self._give_back()
        done: Counter[str] = Counter()
        more = False
        held_back: list[float] = []
        aliases = list(aliases)
        for alias in aliases:
            mine = messages.filter(using=alias)
            due_in = _due_in(mine, alias)
            others = messages.filter(using__in=[other for other in aliases if other != alias])
            dispatcher = self._send_through(alias, mine, others) if due_in <= 0 else None
            if dispatcher is not None:
                done += dispatcher.done
                more = more or dispatcher.out_of_time
                held_back += dispatcher.held_back()
                due_in = _due_in(mine, alias)
            if 0 < due_in <= NEARLY_DUE_SECONDS:
                held_back.append(due_in)
        self.next_in = min(held_back, default=None)
        return done, more

    def wait_for_next(self, end: float) -> bool:
        """Wait until a message may leave that a ``rate`` held back, or that is nearly due; return
        False at once where there is none, or its time comes after ``end`` (monotonic)."""
        if self.next_in is None or monotonic.now() + self.next_in > end:
            return False
        return not self.stopping.wait(self.next_in)

    def _new_token(self) -> str:
        """Return a new token for a claim; it is remembered until the pass has ended without an
        error."""
        token = uuid.uuid4().hex
        self._tokens.add(token)
        return token

    def _give_back(self) -> None:
        """Finish a failed pass: queue again what it had claimed and not begun, and record what it
        knows. Its threads have ended."""
        if self._tokens:
            sending.take_back(self._refused)
            sending.release([], tokens=self._tokens)
            self._tokens.clear()
            self._refused.clear()
        if self._unrecorded:
            self._record_late()

    def _record_late(self) -> None:
        """Record outcomes that the database did not store. Those that it refuses are in the log;
        the others are kept until it answers."""
        try:
            sending.record(self._unrecorded)
        except sending.UNAVAILABLE:
            begun = (one for one in self._unrecorded if one.message.status == Status.SENDING)
            self._unrecorded = list(begun)
            raise
        except Exception as error:
            failed = log_fields.of_messages(
                (one.message for one in self._unrecorded), Status.SENDING, "database"
            )
            logger.error("an outcome was not stored: %s", type(error).__name__, extra=failed)
        self._unrecorded = []

    def _send_through(
        self, alias: str, messages: SmsMessageQuerySet, others: SmsMessageQuerySet
    ) -> Dispatcher | None:
        backend = _backend(alias)
        if not circuit_breaker.may_send(backend):
            return None
        try:
            backend.open()
            return self._dispatch(backend, messages, others)
        except SmsError as error:  # it could not be opened: its queue waits, others go on
            logger.error("%s", error, extra=log_fields.of_provider(alias, error.code))
            sending.report_to_breaker(alias, error)
            return None
        finally:
            backend.close()

    def _dispatch(
        self, backend: CheckedBackend, messages: SmsMessageQuerySet, others: SmsMessageQuerySet
    ) -> Dispatcher:
        dispatcher = Dispatcher(
            backend,
            messages,
            width=backend.at_once(self.concurrency),
            proven=backend.alias in self.proven,
            stopping=self.stopping.is_set,
            others_wait=lambda: _can_be_sent(others),
            new_token=self._new_token,
            progress=self.progress,
        )
        self.proven.discard(backend.alias)
        try:
            dispatcher.run()
        except BaseException:  # also the time-out of a task engine, by a signal
            self._refused += dispatcher.refused
            self._unrecorded += dispatcher.unrecorded
            with contextlib.suppress(Error):
                self._give_back()
            raise
        if dispatcher.slots.proven and dispatcher.time_slice.open:
            self.proven.add(backend.alias)
        self._tokens.clear()
        return dispatcher


def _due_in(messages: SmsMessageQuerySet, alias: str) -> float:
    """Return the seconds until the next queued message of this provider is due, 0 or less where one
    is."""
    first = messages.next_times(alias).first()
    return math.inf if first is None else (first - clock.now()).total_seconds()


def _can_be_sent(messages: SmsMessageQuerySet) -> bool:
    """Return whether one of them is due, and its provider is neither paused nor stopped."""
    closed = [*circuit_breaker.paused(), *kill_switch.stopped(providers)]
    return messages.due(clock.now()).exclude(using__in=closed).exists()


def _backend(alias: str) -> CheckedBackend:
    try:
        return checked_backend.provider(alias)
    except InvalidProvider as error:
        return checked_backend.unusable(alias, error)

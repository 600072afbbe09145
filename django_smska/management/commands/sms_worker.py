"""``manage.py sms_worker``: sends queued messages; from cron with --once, or as a daemon."""

from __future__ import annotations

import json
import logging
import math
import signal
import sys
import threading
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from django.core.management.base import CommandError
from django.db import close_old_connections, connections

from django_smska import circuit_breaker, clock, held_queue, kill_switch, monotonic
from django_smska.exceptions import InvalidProvider
from django_smska.management.tables import (
    DatabaseCommand,
    away,
    note_of_test_run,
    require_tables,
)
from django_smska.models import rows, write_db
from django_smska.notify import Listener
from django_smska.sending import UNAVAILABLE
from django_smska.sms import providers
from django_smska.times import clock_time
from django_smska.worker import MAX_RATE_WAIT_SECONDS, REPORTS_PER_PASS, Worker

try:
    from tqdm import tqdm  # pyright: ignore[reportMissingModuleSource]  # optional
except ImportError:  # the app does not require it
    tqdm = None

logger = logging.getLogger(__name__)

WORDS = {
    "sent": "sent",
    "queued": "back in the queue",
    "failed": "failed",
    "cancelled": "cancelled (do-not-send list)",
    "unknown": "unknown",
    "reports": "reports requested",
}


class Command(DatabaseCommand):
    help = (
        "Sends queued messages and queries delivery reports. Any number of workers may run at "
        "once. SIGTERM and Ctrl-C end it cleanly: requests in flight are finished, and the rest "
        "stays queued."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--once", action="store_true", help="one pass, as for cron")
        parser.add_argument("--using", metavar="ALIAS", help="only this provider's messages")
        parser.add_argument(
            "--release",
            action="store_true",
            help="release what is held, because no worker was seen for a long time, and end; with "
            "--once, do one pass, too",
        )
        parser.add_argument(
            "--concurrency",
            type=int,
            default=16,
            metavar="N",
            help="requests in flight at once (default: %(default)s)",
        )
        parser.add_argument(
            "--interval",
            type=float,
            default=5,
            metavar="SECONDS",
            help="pause between two passes (default: %(default)s)",
        )
        parser.add_argument(
            "--json",
            action="store_true",
            help="print one JSON object for each pass that did anything",
        )

    def handle(self, **options: Any) -> None:
        _refuse_wrong(options)
        with suppress(*UNAVAILABLE):  # a daemon waits for its database
            require_tables()
        self.json = options["json"]
        self.bar: Any = None
        self.worker = Worker(
            using=options["using"], concurrency=options["concurrency"], progress=self._progress
        )
        self.paused: dict[str, str] = {}
        self.stopped: set[str] = set()
        self.held: dict[str, datetime] = {}
        if note := note_of_test_run():
            self._say(note)
        if options["release"]:
            self._release()
            if not options["once"]:
                return
        with _ended_by_signals(self._stop):
            if options["once"]:
                self._once()
            else:
                self._for_ever(options["interval"])

    def _aliases(self) -> list[str]:
        return list(providers) if self.worker.using is None else [self.worker.using]

    def _release(self) -> None:
        """Release what is held, also what this worker would hold, because a person says so."""
        held_queue.heartbeat(self._aliases())
        for alias in self._aliases():
            self._say(f"{alias}: {held_queue.release(alias)} held messages released.")

    def _once(self) -> None:
        end = monotonic.now() + MAX_RATE_WAIT_SECONDS
        try:
            done = self._pass()
            while self.worker.wait_for_next(end):
                self._pass()
        except UNAVAILABLE as error:
            raise CommandError(f"{away(error)} Nothing is lost. Run this again.") from error
        if not +done and not self.worker.stopping.is_set():
            self._say(self._why_nothing())

    def _why_nothing(self) -> str:
        """Return why a pass did nothing; what holds it up was reported line by line before."""
        for what, aliases in (("stopped", self.stopped), ("paused", self.paused)):
            if rows().due(clock.now()).filter(using__in=list(aliases)).exists():
                verb = "is" if len(aliases) == 1 else "are"
                return f"Nothing was sent: {', '.join(sorted(aliases))} {verb} {what}."
        held = any(map(held_queue.number_held, self.held))
        return "Nothing else was due." if held else "Nothing was due."

    def _for_ever(self, interval: float) -> None:
        self._say("Waiting for messages. Press Ctrl-C to stop.")
        listener = Listener()
        while not self.worker.stopping.is_set():
            if self._guarded_pass(listener)["reports"] < REPORTS_PER_PASS:
                next_in = self.worker.next_in
                self._rest(listener, interval if next_in is None else min(interval, next_in))
        self._say("Stopped.")

    def _rest(self, listener: Listener, interval: float) -> None:
        try:
            # The driver is used directly, so that its errors are wrapped here.
            with connections[write_db()].wrap_database_errors:
                listener.wait(interval, self.worker.stopping)
        except UNAVAILABLE:
            self.worker.stopping.wait(interval)  # the next pass reports it

    def _guarded_pass(self, listener: Listener) -> Counter[str]:
        """Do a pass; survive a database that cannot be reached for a while."""
        close_old_connections()
        try:
            listener.listen()
            return self._pass()
        except UNAVAILABLE as error:
            logger.error("%s Trying again.", away(error))
            connections.close_all()
            return Counter()

    def _pass(self) -> Counter[str]:
        with self._shown():
            done = self.worker.run_once()
        if self.json:
            if +done:
                self.stdout.write(json.dumps(+done))
                self.stdout.flush()
        elif words := [f"{text} {done[key]}" for key, text in WORDS.items() if done[key]]:
            self._say(", ".join(words))
        self._report_pauses()
        self._report_stops()
        self._report_holds()
        return done

    @contextmanager
    def _shown(self) -> Generator[None]:
        """Show a progress bar on a terminal, where tqdm is installed."""
        if not (tqdm and sys.stderr.isatty()) or self.json:
            yield
            return
        due = rows().due(clock.now())
        total = (due if self.worker.using is None else due.filter(using=self.worker.using)).count()
        with tqdm(total=total, unit=" SMS", disable=not total, leave=False) as self.bar:
            yield
        self.bar = None

    def _progress(self, done: Counter[str]) -> None:
        if self.bar is not None:
            self.bar.set_postfix(done, refresh=False)
            self.bar.update(sum(done.values()) - self.bar.n)

    def _report_pauses(self) -> None:
        """Print once that a provider is paused, and once that it is open again."""
        for alias in self._aliases():
            state = circuit_breaker.state_of(alias)
            if state.is_paused and self.paused.get(alias) != state.reason:
                self.paused[alias] = state.reason
                again = f"; next probe at {clock_time(state.probe_at)}" if state.probe_at else ""
                self._say(f"{alias} is paused ({state.reason}{again}): {state.detail}")
            elif not state.is_paused and self.paused.pop(alias, ""):
                self._say(f"{alias} is open again.")

    def _report_stops(self) -> None:
        """Print once that a provider is stopped, and once that it is not any more."""
        stopped = kill_switch.stopped(self._aliases())
        for alias in sorted(stopped - self.stopped):
            self._say(f"{alias} is stopped: nothing is sent through it until it is resumed.")
        for alias in sorted(self.stopped - stopped):
            self._say(f"{alias} is resumed.")
        self.stopped = stopped

    def _report_holds(self) -> None:
        """Print once how many messages a person must decide about."""
        held = held_queue.moments(self._aliases())
        for alias, moment in held.items():
            if self.held.get(alias) != moment and (number := held_queue.number_held(alias)):
                self._say(
                    f"{alias}: {number} messages are held, because no worker was seen for a long "
                    "time. Release or cancel them: in the admin, or manage.py sms_worker --release."
                )
        for alias in self.held.keys() - held.keys():
            self._say(f"{alias}: what was held is released.")
        self.held = held

    def _stop(self) -> None:
        self.worker.stop()
        self._say("Stopping: requests in flight are finished first.")

    def _say(self, line: str) -> None:
        self.stdout.write(json.dumps({"note": line}, ensure_ascii=False) if self.json else line)
        self.stdout.flush()


def _refuse_wrong(options: dict[str, Any]) -> None:
    if options["concurrency"] < 1:
        raise CommandError("--concurrency must be at least 1.")
    if not (options["interval"] > 0 and math.isfinite(options["interval"])):
        raise CommandError("--interval must be a number of seconds above 0.")
    try:
        if options["using"] is not None:
            providers.require(options["using"])
    except InvalidProvider as error:
        raise CommandError(str(error)) from None


@contextmanager
def _ended_by_signals(stop: Callable[[], None]) -> Generator[None]:
    def on_signal(*args: Any) -> None:
        # In a thread, because the signal may interrupt a wait() that holds the lock stop() needs.
        threading.Thread(target=stop).start()

    in_main = threading.current_thread() is threading.main_thread()
    ends = (signal.SIGINT, signal.SIGTERM) if in_main else ()
    before = [signal.signal(end, on_signal) for end in ends]
    try:
        yield
    finally:
        for end, handler in zip(ends, before, strict=True):
            signal.signal(end, handler)

"""Exceptions that come at any moment of a pass, as a task engine's time-out does by a signal."""

import contextlib
import logging
import signal
import sys
import threading
from collections import Counter

import pytest
from django.db import OperationalError, connection

from django_smska import checked_backend, clock, dispatcher, sending
from django_smska.models import SmsMessage
from django_smska.sms import queue_sms
from django_smska.testing.gateway import Fault
from django_smska.worker import Worker

from .extent import ALL
from .outages import Outage

pytestmark = pytest.mark.slow

NUMBER = "+79041764995"
SENT = {"sent", "delivered"}  # after ten seconds reports are requested


class Timeout(BaseException):
    """As gevent's."""


class Interruption:
    """Raise ``Timeout`` at this line, counted from 1, of those that this thread runs in the files.

    :ivar left: how many lines were missing to it
    """

    FILES = (dispatcher.__file__, sending.__file__)

    def __init__(self, line):
        self.left = line

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self.trace)

    def __exit__(self, *exc_info):
        sys.settrace(self.before)

    def trace(self, frame, event, arg):
        if frame.f_code.co_filename not in self.FILES or self.left <= 0:
            return None
        if event == "line":
            self.left -= 1
            if not self.left:
                raise Timeout
        return self.trace


def threads():
    return [one for one in threading.enumerate() if one.name.startswith("smska-")]


def statuses():
    return Counter(SmsMessage.objects.values_list("status", flat=True))


def interrupted_at(line, provider):
    """Send three messages with an interruption; return whether it came. All must have been sent
    once at the end of the next pass, before any lease has ended."""
    keys = {queue_sms(NUMBER, f"text {n}").pk for n in range(3)}
    before = len(provider.accepted)
    worker, interruption = Worker(concurrency=2), Interruption(line)
    with contextlib.suppress(Timeout), interruption:
        worker.run_once()
    assert threads() == [], line
    states = dict(SmsMessage.objects.filter(pk__in=keys).values_list("pk", "status"))
    accepted = len(provider.accepted) - before
    assert sum(state in SENT for state in states.values()) == accepted, (line, states)
    worker.run_once()
    assert set(statuses()) <= SENT, (line, statuses())
    assert len(provider.accepted) - before == 3, line
    return interruption.left <= 0


@pytest.mark.parametrize("every", [61, *([7] if ALL else [])])
def test_at_no_line_does_it_hang_or_lose_an_outcome(provider, every, caplog):
    caplog.set_level(logging.CRITICAL + 1)
    provider.balance = 10**6
    line = 1
    while interrupted_at(line, provider):
        line += every
    assert line > 300


@pytest.mark.parametrize("name", ["record", "record_and_mark", "release", "claim"])
@pytest.mark.parametrize("after", [False, True])
def test_at_a_call_of_the_engine(provider, monkeypatch, name, after):
    provider.script(2, Fault("bad_number"))
    for n in range(6):
        queue_sms(NUMBER, f"text {n}")
    real, calls = getattr(sending, name), []

    def strikes(*args, **kwargs):
        calls.append(name)
        if len(calls) == 2 and not after:
            raise Timeout
        result = real(*args, **kwargs)
        if len(calls) == 2:
            raise Timeout
        return result

    monkeypatch.setattr(sending, name, strikes)
    worker = Worker(concurrency=3)
    with contextlib.suppress(Timeout):
        worker.run_once()
    assert threads() == []
    worker.run_once()
    assert statuses() == {"sent": 5, "failed": 1} and provider.sends == 6


def test_a_callback_that_raises_each_time_ends_all_the_same(provider):
    def leave(done):
        raise SystemExit

    for n in range(6):
        queue_sms(NUMBER, f"text {n}")
    with pytest.raises(SystemExit):
        Worker(concurrency=3, progress=leave).run_once()
    assert threads() == []
    assert statuses()["sent"] == len(provider.accepted) > 0
    assert statuses()["claimed"] == 0


# A signal may also come in a destructor, which drops the exception. Then the pass just goes on.
@pytest.mark.skipif(connection.vendor != "sqlite", reason="no driver of a server bears it")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_by_a_real_signal(provider, caplog):
    def strike(*args):
        raise Timeout

    caplog.set_level(logging.CRITICAL + 1)
    provider.latency = 0.01
    before = signal.signal(signal.SIGALRM, strike)
    try:
        for moment in range(1, 9):
            for n in range(12):
                queue_sms(NUMBER, f"text {n}")
            with contextlib.suppress(Timeout):
                signal.setitimer(signal.ITIMER_REAL, 0.008 * moment)
                Worker(concurrency=4).run_once()
                signal.setitimer(signal.ITIMER_REAL, 0)
            assert threads() == []
            assert set(statuses()) <= {*SENT, "queued"}
            assert sum(statuses()[one] for one in SENT) == len(provider.accepted)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_after_its_request_queues_nothing(provider, monkeypatch):
    """Its outcome is not known, while the pass ends and takes back what was not begun."""
    real, struck = sending.attempt, threading.Event()

    def dies(*args):
        real(*args)
        assert struck.wait(30)
        raise SystemExit

    def strike():
        if provider.accepted and not struck.is_set():
            struck.set()
            raise Timeout
        return False

    def fails(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(sending, "attempt", dies)
    monkeypatch.setattr(checked_backend.CheckedBackend, "crashed", fails)
    worker = Worker(concurrency=2)
    monkeypatch.setattr(worker.stopping, "is_set", strike)
    queue_sms(NUMBER, "text")
    with contextlib.suppress(Timeout):
        worker.run_once()
    assert statuses() == {"unknown": 1} and provider.sends == 1


def test_outcomes_outlast_an_outage_that_is_longer_than_a_lease(provider, sleeps_pass):
    """The worker knows them: they are no unknown ones, and nothing is sent again."""
    queue_sms(NUMBER, "text")
    worker = Worker(concurrency=2)
    outage = Outage(10**6, begins=lambda: len(provider.accepted) == 1)
    with connection.execute_wrapper(outage), pytest.raises(OperationalError):
        worker.run_once()
    assert statuses() == {"sending": 1} and threads() == []
    SmsMessage.objects.update(lease_until=clock.now())
    worker.run_once()
    message = SmsMessage.objects.get()
    assert (message.status, message.gateway_id != "") == ("sent", True)
    assert provider.sends == 1

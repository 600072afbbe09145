"""``kill -9`` at each step of a send, in a process of its own, on a real database."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest
from django.db import connection
from django.utils import timezone

from django_smska.models import SmsMessage
from django_smska.sms import queue_sms
from django_smska.testing.gateway import Fault
from django_smska.worker import Worker

from .worker_process import STEPS

pytestmark = pytest.mark.slow

NUMBER = "+79041764995"
MESSAGES = 7
WIDTH = 4


def start(provider, die_at=""):
    env = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "SMSKA_DB": str(connection.settings_dict["NAME"]),
        "SMSKA_URL": provider.url,
        "SMSKA_DIE_AT": die_at,
        "SMSKA_CONCURRENCY": str(WIDTH),
    }
    return subprocess.Popen([sys.executable, "-m", "tests.worker_process"], env=env)


def statuses():
    return Counter(SmsMessage.objects.values_list("status", flat=True))


def work_on_after_the_lease():
    SmsMessage.objects.exclude(lease_until=None).update(lease_until=timezone.now())
    Worker(concurrency=WIDTH).run_once()


def times_accepted(provider):
    return Counter(entry.text for entry in provider.accepted)


@pytest.fixture
def queued(provider):
    for n in range(MESSAGES):
        queue_sms(NUMBER, f"text {n}")
    return provider


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_killed_at_any_step_doubles_and_loses_nothing(queued, step):
    """Promise 5: what was in flight is unknown, all others go on automatically."""
    assert start(queued, step).wait(60) == -signal.SIGKILL
    before = times_accepted(queued)
    if step in ("claimed", "connected", "marked"):
        assert before == {}, "nothing leaves before its row is marked and committed"
    work_on_after_the_lease()
    after = statuses()
    assert sum(after.values()) == MESSAGES
    assert set(after) <= {"sent", "unknown"}
    assert after["unknown"] <= WIDTH
    if step in ("claimed", "connected"):
        assert after["unknown"] == 0
    assert all(times == 1 for times in times_accepted(queued).values())
    for row in SmsMessage.objects.filter(status="sent"):
        assert queued.times_accepted("79041764995", row.body) == 1
    for row in SmsMessage.objects.filter(status="unknown"):
        assert row.error_code == "lease"


@pytest.mark.parametrize("accepted", [True, False])
def test_a_worker_killed_with_requests_in_flight(queued, accepted):
    release = threading.Event()
    queued.script_all(Fault("late", accepted=accepted, until=release))
    queued.script(1, None)  # the first goes alone, until it is answered
    worker = start(queued)
    assert queued.wait_for(lambda: queued.sends == 1 + WIDTH, timeout=30)
    worker.kill()
    assert worker.wait(30) == -signal.SIGKILL
    queued.unscript()
    release.set()
    left = statuses()
    assert (left["sent"], left["sending"]) == (1, WIDTH)
    assert left["claimed"] + left["queued"] == MESSAGES - WIDTH - 1
    work_on_after_the_lease()
    assert statuses() == {"unknown": WIDTH, "sent": MESSAGES - WIDTH}
    assert queued.sends == MESSAGES
    assert all(times == 1 for times in times_accepted(queued).values())


def test_a_worker_that_stands_still_for_two_leases_sends_nothing_of_it_again(queued):
    """SIGSTOP in the middle of the requests; another worker goes on."""
    release = threading.Event()
    queued.script_all(Fault("late", accepted=True, until=release))
    queued.script(1, None)
    worker = start(queued)
    assert queued.wait_for(lambda: queued.sends == 1 + WIDTH, timeout=30)
    worker.send_signal(signal.SIGSTOP)
    queued.unscript()
    work_on_after_the_lease()
    assert statuses() == {"unknown": WIDTH, "sent": MESSAGES - WIDTH}
    release.set()
    worker.send_signal(signal.SIGCONT)
    assert worker.wait(60) == 0
    assert statuses() == {"unknown": WIDTH, "sent": MESSAGES - WIDTH}
    for row in SmsMessage.objects.filter(status="unknown"):
        assert row.error_text == "A late answer: it was accepted."
        assert row.gateway_id
    assert queued.sends == MESSAGES


def test_two_workers_and_two_people_send_each_message_once(provider):
    for n in range(60):
        queue_sms(NUMBER, f"text {n}")
    workers = [start(provider) for _ in range(2)]
    sent = Counter()
    for message in SmsMessage.objects.all()[:20]:
        try:
            message.send()
            sent["by hand"] += 1
        except Exception as error:
            sent[type(error).__name__] += 1
    assert [worker.wait(60) for worker in workers] == [0, 0]
    assert set(sent) <= {"by hand", "WrongStatus"}
    assert statuses() == {"sent": 60}
    assert len(provider.accepted) == 60
    assert all(times == 1 for times in times_accepted(provider).values())

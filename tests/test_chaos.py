"""The chaos test in its short form; and planted bugs, each of which must be found.

``python -m tests.chaos`` is the long form.
"""

import contextlib
import signal
from types import SimpleNamespace

import pytest
from django.utils import timezone

from django_smska import clock, sending
from django_smska.exceptions import GatewayUnreachable, WrongStatus
from django_smska.models import SmsMessage, rows
from django_smska.providers import providers
from django_smska.sending import Result
from django_smska.sms import queue_sms
from django_smska.testing.gateway import Fault, StandInGateway
from django_smska.worker import Worker

from .chaos import Chaos, Log, Nursery, Plan, end_leases, violations
from .chaos_process import PLANTS, plant
from .conftest import options

pytestmark = pytest.mark.slow

NUMBER = "+79041764995"


@pytest.mark.parametrize("seed", [1])
def test_chaos(transactional_db, seed):
    """Whatever is killed, stopped, cut off or pressed twice: no text is accepted twice, no row is
    lost, no status lies, and no more are unknown than were in flight or met a doubtful fault."""
    chaos = Chaos(Plan(seed=seed))
    found = chaos.run()
    assert found == [], "\n".join([*chaos.table(), *chaos.crashes()])


# --- planted bugs ---------------------------------------------------------------------------------


class Stage:
    """A gateway, and what a scenario does with it; texts of later scenarios differ."""

    def __init__(self, gateway, log):
        self.gateway, self.log = gateway, log
        self.texts = []
        self.in_flight = 0

    def queue(self):
        self.texts.append(f"text {len(self.texts)}")
        return queue_sms(NUMBER, self.texts[-1])

    def claim(self):
        [claimed] = sending.claim(rows().due(clock.now()), clock.now())
        return claimed

    def attempt(self, message, mark=lambda one: bool(sending.mark_sending([one]))):
        """Let the message go, if it has permission; return what became of it."""
        with providers["default"] as backend:
            return sending.attempt(backend, message, mark)

    def send(self, message):
        outcome = self.attempt(message)
        if outcome is not None:
            sending.record([Result(message, outcome)])

    def next_meets(self, name, accepted=None):
        self.gateway.script_next(Fault(name, accepted))

    def work(self):
        """All that goes on: leases end, what waits is due, a worker makes its pass."""
        for _ in range(3):
            end_leases()
            SmsMessage.objects.filter(status="queued").update(send_after=timezone.now())
            Worker(concurrency=2).run_once()

    def worker_dies(self, step, plant):
        providers = {"default": {"OPTIONS": options(self.gateway)}}
        env = {"SMSKA_PLANT": plant, "SMSKA_DIE_AT": step}
        with Nursery({"SMS_PROVIDERS": providers}, **env) as nursery:
            assert nursery.start("once", 1).wait() == -signal.SIGKILL
        self.in_flight += 1

    def violations(self):
        return violations(self.gateway, self.log, self.texts, self.in_flight)


def two_people_press_send(stage, bug):
    """Both have opened the page while the message was queued."""
    first = stage.queue()
    second = SmsMessage.objects.get(pk=first.pk)
    first.send()
    with contextlib.suppress(WrongStatus):
        second.send()


def recovered_and_claimed_again(stage, bug):
    """By a worker whose clock is ahead; the first still holds its old copy."""
    stage.queue()
    old = stage.claim()
    rows([old.pk]).update(status="queued", token="", lease_until=None)
    new = stage.claim()
    marked = sending.mark_sending([old, new])
    for message in (old, new):
        outcome = stage.attempt(message, lambda one: sending.claim_of(one) in marked)
        if outcome is not None:
            sending.record([Result(message, outcome)])


def one_edits_what_the_other_sends(stage, bug):
    stage.texts.append(f"text {len(stage.texts)}")
    SmsMessage.objects.create(to=NUMBER, body=stage.texts[-1])
    first, second = (SmsMessage.objects.get(body=stage.texts[-1]) for _ in range(2))
    first.send()
    second.priority = 1
    with contextlib.suppress(WrongStatus):
        second.save()
        second.send()


def killed_before_it_could_record(stage, bug):
    stage.queue()
    stage.worker_dies("answered", bug)
    stage.work()


def killed_before_it_could_mark(stage, bug):
    stage.queue()
    stage.worker_dies("connected", bug)
    stage.work()


def accepted_without_an_answer(stage, bug):
    stage.queue()
    stage.next_meets("close_without_answer", True)
    stage.work()


def lost_without_an_answer(stage, bug):
    stage.queue()
    stage.next_meets("close_without_answer", False)
    stage.work()


def refused(stage, bug):
    stage.queue()
    stage.next_meets("bad_number")
    stage.work()


def died_with_a_claim(stage, bug):
    stage.queue()
    stage.claim()
    stage.work()


def stood_still_before_it_asked_permission(stage, bug):
    """Its lease ended, another has the message now; then both go on."""
    stage.queue()
    late = stage.claim()
    end_leases()
    sending.recover()
    second = stage.claim() if rows().due(clock.now()).exists() else None
    stage.send(late)
    if second is not None:
        stage.send(second)
    stage.work()


def stood_still_before_it_recorded(stage, bug):
    """It could not connect; another's request is in flight when it writes that down."""
    stage.queue()
    late = stage.claim()
    end_leases()
    sending.recover()
    second = stage.claim()
    outcome = stage.attempt(second)
    sending.record([Result(late, GatewayUnreachable(alias="default"))])
    sending.record([Result(second, outcome)])
    stage.work()


def another_recovers_in_the_meantime(stage, bug):
    """Of a request that is in flight, and within its lease."""
    stage.queue()
    message = stage.claim()
    outcome = stage.attempt(message)
    sending.recover()
    sending.record([Result(message, outcome)])


FOUND_BY = {
    "claim_without_condition": (two_people_press_send, "accepted twice"),
    "dead_sending_back_to_queued": (killed_before_it_could_record, "accepted twice"),
    "retry_on_timeout": (accepted_without_an_answer, "accepted twice"),
    "save_of_a_whole_row": (one_edits_what_the_other_sends, "accepted twice"),
    "mark_without_token": (stood_still_before_it_asked_permission, "unknown without a fault"),
    "record_without_token": (stood_still_before_it_recorded, "accepted twice"),
    "permission_for_all": (stood_still_before_it_asked_permission, "accepted twice"),
    "permission_for_a_key": (recovered_and_claimed_again, "accepted twice"),
    "mark_after_the_send": (killed_before_it_could_mark, "accepted twice"),
    "living_counted_as_dead": (another_recovers_in_the_meantime, "unknown without a fault"),
    "doubt_counts_as_failed": (accepted_without_an_answer, "called unsent, but accepted"),
    "doubt_counts_as_sent": (lost_without_an_answer, "called sent, but not accepted"),
    "nothing_recovered": (died_with_a_claim, "left unfinished"),
    "refused_row_deleted": (refused, "lost"),
}


@pytest.fixture
def stage(settings, transactional_db):
    log = Log()
    with StandInGateway(on_send=log.note) as gateway:
        settings.SMSKA_LOCMEM_IN_TESTS = False
        settings.SMS_PROVIDERS = {"default": {"OPTIONS": options(gateway)}}
        yield Stage(gateway, log)


@pytest.mark.parametrize("bug", PLANTS)
def test_a_planted_bug_is_found(stage, monkeypatch, bug):
    """The scenario finds nothing against the app as it is, and the bug when it is planted."""
    scenario, found = FOUND_BY[bug]
    scenario(stage, "")
    assert stage.violations() == []
    plant(bug, monkeypatch.setattr)
    scenario(stage, bug)
    assert any(found in sentence for sentence in stage.violations()), stage.violations()


def test_every_bug_has_its_scenario():
    assert set(FOUND_BY) == set(PLANTS)


def test_the_check_sees_a_doubt_that_nothing_explains(stage):
    stage.queue()
    message = stage.claim()
    sending.mark_sending([message])
    stage.work()
    assert stage.violations() == [
        "1 unknown without a fault of the gateway; at most 0 were in flight, 0 were struck unread"
    ]
    stage.in_flight = 1
    assert stage.violations() == []


def test_the_check_sees_what_no_row_stands_for(stage):
    with providers["default"] as backend:
        backend.send_message(SimpleNamespace(to=NUMBER, body="no row", sender=""))
    assert stage.violations() == ["1 accepted without a row, such as 'no row'"]

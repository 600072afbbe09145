"""``SMSKA_ENQUEUE``: any task engine by one line. The engines themselves: test_engines.py."""

import logging
import subprocess
import sys
import threading
from collections import Counter
from datetime import timedelta

import pytest
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone

from django_smska import clock, handover, jobs
from django_smska.models import SmsMessage
from django_smska.sms import outbox, queue_sms, send_mass_sms, send_sms
from django_smska.testing.gateway import Fault

from . import canaries
from .canaries import TEXT, found
from .task_engines import ROOT

NUMBER = "+79041764995"
HOUR = timedelta(hours=1)

calls = []  # what keep() was called with


def keep(pks, not_before):
    calls.append((pks, not_before))


def fail(pks, not_before):
    calls.append((pks, not_before))
    raise ConnectionError("redis://:password@broker.example")


def at_once(pks, not_before):
    """Do as an engine in its eager mode, which knows no time."""
    jobs.send_queued(pks)


def one_argument(pks):
    """Do as who names the job itself."""
    calls.append(pks)


async def asynchronous(pks, not_before):
    calls.append(pks)


NO_FUNCTION = "text"


@pytest.fixture(autouse=True)
def no_calls():
    yield
    calls.clear()


@pytest.fixture
def enqueue(settings):
    """Set ``SMSKA_ENQUEUE`` to a function of this module."""

    def use(function):
        settings.SMSKA_ENQUEUE = f"{__name__}.{getattr(function, '__name__', function)}"

    return use


@pytest.fixture
def kept(enqueue, transactional_db):
    enqueue(keep)
    return calls


def statuses():
    return Counter(SmsMessage.objects.values_list("status", flat=True))


def texts(number):
    return [(NUMBER, f"text {n}") for n in range(number)]


def make_due():
    SmsMessage.objects.update(send_after=timezone.now())


class TestHandingOver:
    def test_the_function_gets_keys_and_no_time_for_what_is_due_now(self, kept):
        message = queue_sms(NUMBER, "text")
        assert kept == [([message.pk], None)]

    def test_the_clock_of_the_database_says_what_is_due_now(self, kept, monkeypatch):
        """An engine that knows no time would get nothing from a host whose own clock is slow."""
        real = clock.now
        monkeypatch.setattr(clock, "now", lambda: real() + timedelta(seconds=30))
        message = queue_sms(NUMBER, "text")
        assert kept == [([message.pk], None)]

    def test_nothing_happens_before_the_commit(self, kept):
        with transaction.atomic():
            message = queue_sms(NUMBER, "text")
            send_mass_sms(texts(2))
            assert kept == []
        first = message.pk
        assert kept == [([first], None), ([first + 1, first + 2], None)]

    def test_a_rollback_calls_nothing(self, kept):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            queue_sms(NUMBER, "text")
            1 / 0  # noqa: B018
        assert kept == []

    def test_a_message_for_later_comes_with_its_time_rounded_up(self, kept):
        later = (timezone.now() + HOUR).replace(microsecond=5)
        message = queue_sms(NUMBER, "text", send_after=later)
        assert kept == [([message.pk], later.replace(microsecond=0) + timedelta(seconds=1))]

    @pytest.mark.parametrize("use_tz", [True, False])
    def test_the_time_is_in_utc(self, kept, settings, use_tz):
        settings.USE_TZ = use_tz
        message = queue_sms(NUMBER, "text", send_after=clock.now() + HOUR)
        [(_, not_before)] = kept
        assert str(not_before.tzinfo) == "UTC"
        there = message.send_after if use_tz else timezone.make_aware(message.send_after)
        assert timedelta(0) <= not_before - there <= timedelta(seconds=1)

    def test_a_mass_sending_comes_in_lists_of_64(self, kept):
        send_mass_sms(texts(130))
        assert [len(pks) for pks, _ in kept] == [64, 64, 2]
        assert sorted(sum((pks for pks, _ in kept), [])) == sorted(
            SmsMessage.objects.values_list("pk", flat=True)
        )
        assert {type(pk) for pks, _ in kept for pk in pks} == {int}

    def test_what_is_sent_at_once_is_not_handed_over(self, kept):
        send_sms(NUMBER, "text")
        assert kept == [] and len(outbox) == 1

    def test_a_repeat_of_an_idempotency_key_calls_nothing(self, kept):
        for _ in range(2):
            queue_sms(NUMBER, "text", idempotency_key="once")
        assert len(kept) == 1

    def test_the_arguments_are_keys_and_a_time_alone(self, kept):
        """Promise 7."""
        queue_sms(canaries.NUMBER, TEXT, send_after=timezone.now() + HOUR)
        send_mass_sms([(canaries.NUMBER, TEXT + end) for end in "abc"])
        assert len(kept) == 2 and found(repr(kept)) == set()

    def test_an_empty_setting_is_none(self, kept, settings):
        settings.SMSKA_ENQUEUE = ""  # as an environment variable has it
        queue_sms(NUMBER, "text")
        assert kept == [] and run_checks(tags=["sms"], databases=[]) == []

    def test_a_right_setting_passes_the_checks(self, kept):
        assert run_checks(tags=["sms"], databases=[]) == []


class TestFaults:
    @pytest.mark.slow
    def test_a_function_that_raises_costs_one_line_that_names_the_class_only(
        self, enqueue, transactional_db, caplog
    ):
        enqueue(fail)
        with transaction.atomic():
            queue_sms(NUMBER, "text 0")
        assert send_mass_sms([(NUMBER, f"text {n}") for n in range(1, 200)]) == 199
        assert len(calls) == 2, "one try a mass"
        assert [record.getMessage() for record in caplog.records] == [
            f"The task engine did not accept (all of) {number} messages (ConnectionError); "
            "sms_worker sends them."
            for number in (1, 199)
        ]
        assert "password" not in caplog.text
        assert statuses() == {"queued": 200}
        call_command("sms_worker", "--once")
        assert statuses() == {"sent": 200} and len(outbox) == 200

    WRONG = [
        ("nosuchmodule.enqueue", "No module named 'nosuchmodule'."),
        (f"{__name__}.enqeue", 'does not define a "enqeue" attribute/class.'),
        (f"{__name__}.at_once.delay", f"No module named '{__name__}.at_once'"),
        (f"{__name__}.one_argument", "cannot be called with two: too many positional arguments."),
        (f"{__name__}.asynchronous", "is an 'async def', and is not awaited."),
        (f"{__name__}.NO_FUNCTION", "cannot be called with two: 'text' is not a callable object."),
        ("tests.raises_at_import.enqueue", "its module raised ZeroDivisionError."),
    ]

    @pytest.mark.parametrize(("path", "words"), WRONG)
    def test_a_wrong_path(self, path, words, settings, transactional_db, caplog):
        settings.SMSKA_ENQUEUE = path
        [error] = run_checks(tags=["sms"], databases=[])
        assert error.id == "smska.E013" and words in error.msg
        assert error.msg.startswith("SMSKA_ENQUEUE cannot be used: ")
        assert "list of primary keys and a time or None" in error.hint
        queue_sms(NUMBER, "text")
        send_mass_sms(texts(2))
        self.assert_stored_and_logged(caplog, "ImproperlyConfigured")

    def test_two_engines(self, kept, settings, caplog):
        settings.SMSKA_TASKS = "default"
        [error] = [e for e in run_checks(tags=["sms"], databases=[]) if e.id == "smska.E013"]
        assert error.msg == "SMSKA_TASKS and SMSKA_ENQUEUE are both set."
        assert error.hint.startswith("Remove one of them")
        queue_sms(NUMBER, "text")
        send_mass_sms(texts(2))
        self.assert_stored_and_logged(caplog, "ImproperlyConfigured")
        assert kept == []

    @pytest.mark.parametrize("wrong", [5, "enqueue", "a b.c", "shop.tasks:enqueue", ["a.b"]])
    def test_what_is_no_dotted_path(self, wrong, settings, transactional_db, caplog):
        settings.SMSKA_ENQUEUE = wrong
        [error] = run_checks(tags=["sms"], databases=[])
        assert error.id == "smska.E011" and repr(wrong) in error.msg
        assert "'shop.tasks.enqueue_sms'" in error.msg.replace('"', "'")
        queue_sms(NUMBER, "text")
        send_mass_sms(texts(2))
        self.assert_stored_and_logged(caplog, "ImproperlyConfigured")

    def assert_stored_and_logged(self, caplog, name):
        """Two calls: a line each."""
        assert statuses() == {"queued": 3}
        assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
            (
                logging.ERROR,
                f"The task engine cannot be used ({name}); sms_worker sends. "
                "'manage.py check' says why.",
            )
        ] * 2
        call_command("sms_worker", "--once")
        assert statuses() == {"sent": 3}


class Timer:
    """A timer that fires at the moment that the test chooses."""

    made = []

    def __init__(self, seconds, function):
        self.seconds, self.fire = seconds, function
        self.made.append(self)

    def start(self):
        self.cancelled = False

    def cancel(self):
        self.cancelled = True


class TestSendQueued:
    def test_it_sends_these_and_no_others(self, kept, provider):
        first, second = (queue_sms(NUMBER, text) for text in ("text 0", "text 1"))
        assert jobs.send_queued([first.pk]) == {"sent": 1}
        assert statuses() == {"sent": 1, "queued": 1}
        assert jobs.send_queued(pk for pk in (first.pk, second.pk)) == {"sent": 1}
        assert provider.sends == 2 and len(kept) == 2

    def test_it_counts_what_has_expired(self, kept, provider):
        first, second = (queue_sms(NUMBER, text) for text in ("text 0", "text 1"))
        SmsMessage.objects.filter(pk=first.pk).update(expires_at=timezone.now())
        assert jobs.send_queued([first.pk, second.pk]) == {"sent": 1, "failed": 1}
        assert statuses() == {"sent": 1, "failed": 1}

    def test_a_not_now_of_the_gateway_is_handed_over_for_its_time(self, kept, provider):
        provider.script(1, Fault("sent_error"))
        message = queue_sms(NUMBER, "text 0")
        kept.clear()
        assert jobs.send_queued([message.pk]) == {"queued": 1}
        message.refresh_from_db()
        [(pks, not_before)] = kept
        assert pks == [message.pk] and message.attempts == 1
        assert timedelta(0) <= not_before - message.send_after <= timedelta(seconds=1)
        make_due()
        assert jobs.send_queued([message.pk]) == {"sent": 1} and len(kept) == 1

    def test_an_engine_that_ignores_the_time_is_not_asked_again_and_again(
        self, kept, provider, caplog
    ):
        message = queue_sms(NUMBER, "text 0", send_after=timezone.now() + HOUR)
        kept.clear()
        assert jobs.send_queued([message.pk]) == {}
        assert kept == [] and statuses() == {"queued": 1}
        assert "A job for 1 messages ran before their time" in caplog.text

    def test_a_doubled_job_for_what_waits_for_its_next_attempt_adds_none(
        self, kept, provider, caplog
    ):
        provider.script(1, Fault("sent_error"))
        message = queue_sms(NUMBER, "text 0")
        jobs.send_queued([message.pk])
        kept.clear(), caplog.clear()
        assert jobs.send_queued([message.pk]) == {}
        assert kept == [] and caplog.records == []

    def test_work_once_is_a_whole_pass(self, kept, provider):
        send_mass_sms(texts(3))
        SmsMessage.objects.filter(body="text 0").update(expires_at=timezone.now())
        assert jobs.work_once()["sent"] == 2
        assert statuses() == {"sent": 2, "failed": 1}

    @pytest.mark.slow
    def test_work_once_ends_in_its_time_and_the_next_one_goes_on(self, kept, provider, monkeypatch):
        """The time ends while the first request, which goes alone, waits for its answer."""
        answer = threading.Event()
        provider.script(1, Fault("late", accepted=True, until=answer))
        send_mass_sms(texts(3))
        monkeypatch.setattr(jobs, "Timer", Timer)
        monkeypatch.setattr(Timer, "made", [])

        def end_the_time():
            assert provider.wait_for(lambda: provider.sends == 1, timeout=30)
            Timer.made[0].fire()
            answer.set()

        ending = threading.Thread(target=end_the_time)
        ending.start()
        assert jobs.work_once(seconds=7)["sent"] == 1
        ending.join(30)
        assert [(timer.seconds, timer.cancelled) for timer in Timer.made] == [(7, True)]
        assert statuses() == {"sent": 1, "queued": 2}
        assert jobs.work_once()["sent"] == 2 and provider.sends == 3


class TestEagerEngines:
    """Celery's task_always_eager, huey's immediate, django-q2's sync."""

    def test_in_a_test_run_the_message_is_in_the_outbox_at_once(self, enqueue, transactional_db):
        enqueue(at_once)
        queue_sms(NUMBER, "text")
        assert len(outbox) == 1 and statuses() == {"sent": 1}

    def test_in_a_test_case_it_is_when_the_callbacks_run(
        self, enqueue, db, django_capture_on_commit_callbacks
    ):
        enqueue(at_once)
        with django_capture_on_commit_callbacks(execute=True):
            queue_sms(NUMBER, "text")
        assert len(outbox) == 1

    def test_what_is_for_later_waits_and_goes_round_in_no_circle(
        self, enqueue, transactional_db, caplog
    ):
        enqueue(at_once)
        queue_sms(NUMBER, "text", send_after=timezone.now() + HOUR)
        assert len(outbox) == 0 and statuses() == {"queued": 1} and caplog.records == []

    def test_queue_sms_does_not_wait_for_the_network(self, enqueue, provider, caplog):
        enqueue(at_once)
        message = queue_sms(NUMBER, "text 0")
        assert provider.sends == 0 and statuses() == {"queued": 1}
        assert "did not accept (all of) 1 messages (ImproperlyConfigured)" in caplog.text
        assert not handover.is_running()
        with pytest.raises(Exception, match="eager or immediate mode"), handover._running():
            jobs.send_queued([message.pk])
        call_command("sms_worker", "--once")
        assert statuses() == {"sent": 1}


@pytest.mark.slow
def test_neither_djangos_tasks_nor_an_engine_is_imported():
    code = (
        "import sys, django; django.setup(); import django_smska.jobs, django_smska.sms;"
        "print([name for name in sys.modules if name.split('.')[0] in ('django_tasks', 'celery')"
        " or name in ('django.tasks', 'django_smska.tasks')])"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, text=True, cwd=ROOT) == "[]\n"

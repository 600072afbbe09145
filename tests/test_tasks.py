"""Sending through Django's Tasks framework, with real engines and their real workers."""

import logging
import subprocess
import sys
import threading
from collections import Counter
from datetime import timedelta
from importlib import import_module
from types import SimpleNamespace

import django
import pytest
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.core.management import call_command
from django.db import connection, transaction
from django.utils import timezone

from django_smska.models import SmsMessage
from django_smska.sms import queue_sms, send_mass_sms
from django_smska.testing.gateway import Fault
from django_smska.worker import Worker

from . import canaries
from .canaries import TEXT, found
from .task_engines import ROOT, Database, RedisQueue

NUMBER = "+79041764995"
SEND = "django_smska.tasks.send_messages"
FRAMEWORK = "django.tasks" if django.VERSION >= (6, 0) else "django_tasks"
IMMEDIATE = {"BACKEND": f"{FRAMEWORK}.backends.immediate.ImmediateBackend"}
DUMMY = {"BACKEND": f"{FRAMEWORK}.backends.dummy.DummyBackend"}
WIDTH = 16


@pytest.fixture
def fresh(monkeypatch):
    """The tasks are made when their module is imported, of the engine that is configured then."""
    import django_smska

    monkeypatch.delitem(sys.modules, "django_smska.tasks", raising=False)
    monkeypatch.delattr(django_smska, "tasks", raising=False)


@pytest.fixture(params=[Database, RedisQueue], ids=["db", "rq"])
def engine(request, fresh, provider, settings):
    engine = request.param(settings, provider)
    yield engine
    engine.close()


@pytest.fixture
def dummy(fresh, settings, transactional_db):
    """An engine that keeps its tasks, in a test run, where every provider is locmem."""
    framework = pytest.importorskip(FRAMEWORK)
    settings.TASKS = {"default": DUMMY}
    settings.SMSKA_TASKS = "default"
    return lambda: framework.task_backends["default"].results


def statuses():
    return Counter(SmsMessage.objects.values_list("status", flat=True))


def texts(number):
    return [(NUMBER, f"text {n}") for n in range(number)]


def each_accepted_once(gateway, number):
    return Counter(entry.text for entry in gateway.accepted) == {
        f"text {n}": 1 for n in range(number)
    }


@pytest.mark.slow
class TestEngines:
    def test_a_queued_message_is_sent_by_a_worker_of_the_engine(self, engine, provider):
        message = queue_sms(NUMBER, "text 0")
        assert engine.waiting() == [(SEND, [[message.pk]], None)]
        assert provider.sends == 0
        engine.run()
        assert statuses() == {"sent": 1} and each_accepted_once(provider, 1)
        assert engine.waiting() == []

    def test_a_mass_sending_goes_in_groups_of_keys_to_any_number_of_workers(self, engine, provider):
        assert send_mass_sms(texts(200)) == 200
        groups = [keys for _, (keys,), _ in engine.waiting()]
        assert [len(keys) for keys in groups] == [64, 64, 64, 8]
        assert sorted(sum(groups, [])) == sorted(SmsMessage.objects.values_list("pk", flat=True))
        engine.run(workers=2)
        assert statuses() == {"sent": 200} and each_accepted_once(provider, 200)

    def test_a_task_says_no_number_and_no_text(self, engine):
        """Promise 7."""
        message = queue_sms(NUMBER, "a secret", idempotency_key="key", sender="Sender")
        send_mass_sms([(NUMBER, "a secret")])
        assert [arguments for _, arguments, _ in engine.waiting()] == [
            [[message.pk]],
            [[message.pk + 1]],
        ]

    def test_a_rolled_back_message_leaves_no_task(self, engine):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            queue_sms(NUMBER, "text 0")
            send_mass_sms(texts(3))
            1 / 0  # noqa: B018
        assert engine.waiting() == []

    def test_a_lost_task_is_made_good_by_the_worker_command(self, engine, provider):
        send_mass_sms(texts(3))
        engine.lose()
        engine.run()
        assert statuses() == {"queued": 3}
        call_command("sms_worker", "--once")
        assert statuses() == {"sent": 3} and each_accepted_once(provider, 3)

    def test_doubled_tasks_send_nothing_twice(self, engine, provider):
        from django_smska.handover import hand_over

        send_mass_sms(texts(100))
        hand_over(SmsMessage.objects.all())
        hand_over(SmsMessage.objects.all())
        assert len(engine.waiting()) == 6
        engine.run(workers=2)
        assert statuses() == {"sent": 100} and each_accepted_once(provider, 100)

    def test_a_task_that_comes_after_its_messages_were_sent_does_nothing(self, engine, provider):
        send_mass_sms(texts(3))
        Worker().run_once()
        engine.run()
        assert statuses() == {"sent": 3} and each_accepted_once(provider, 3)

    def test_a_task_that_comes_after_the_expiry_sends_nothing_and_says_so(self, engine, provider):
        message = queue_sms(NUMBER, "text 0")
        SmsMessage.objects.update(expires_at=timezone.now())
        engine.run()
        message.refresh_from_db()
        assert (message.status, message.error_code) == ("failed", "expired")
        assert "expired" in message.error_text and provider.sends == 0

    def test_a_task_whose_messages_are_gone_does_nothing(self, engine, provider):
        send_mass_sms(texts(2))
        SmsMessage.objects.first().delete()
        SmsMessage.objects.update(status="cancelled")
        engine.run()
        assert statuses() == {"cancelled": 1} and provider.sends == 0

    def test_a_worker_killed_with_requests_in_flight(self, engine, provider):
        """Promise 5: at most these are unknown; all others go on."""
        release = threading.Event()
        provider.script_all(Fault("late", accepted=True, until=release))
        provider.script(1, None)  # the first goes alone, until it is answered
        send_mass_sms(texts(100))
        worker = engine.start()
        assert provider.wait_for(lambda: provider.sends == 1 + WIDTH, timeout=30)
        engine.kill(worker)
        provider.unscript()
        release.set()
        engine.run()  # the second group, and whatever the engine makes of the first one's task
        SmsMessage.objects.exclude(lease_until=None).update(lease_until=timezone.now())
        call_command("sms_worker", "--once")
        assert statuses() == {"unknown": WIDTH, "sent": 100 - WIDTH}
        assert each_accepted_once(provider, 100)

    def test_an_engine_that_is_away_breaks_no_view_and_loses_nothing(
        self, engine, provider, caplog
    ):
        engine.go_away()
        with transaction.atomic():
            queue_sms(NUMBER, "text 0")
        assert send_mass_sms([(NUMBER, f"text {n}") for n in range(1, 200)]) == 199
        assert statuses() == {"queued": 200}
        errors = [record for record in caplog.records if record.name == "django_smska.handover"]
        assert [record.levelno for record in errors] == [logging.ERROR] * 2, "one try a mass"
        assert errors[1].getMessage().startswith("The task engine did not accept (all of) 199 mess")
        assert "password" not in caplog.text and "text 0" not in caplog.text
        call_command("sms_worker", "--once")
        assert statuses() == {"sent": 200} and each_accepted_once(provider, 200)

    def test_a_message_for_later_gets_a_task_for_its_time(self, engine, provider):
        later = (timezone.now() + timedelta(hours=1)).replace(microsecond=5)
        message = queue_sms(NUMBER, "text 0", send_after=later)
        full_second = later.replace(microsecond=0) + timedelta(seconds=1)
        assert engine.waiting() == [(SEND, [[message.pk]], full_second)]
        engine.run()
        assert statuses() == {"queued": 1}
        SmsMessage.objects.update(send_after=timezone.now())
        engine.let_time_come()
        engine.run()
        assert statuses() == {"sent": 1}

    def test_a_worker_that_waits_sends_it_in_its_time(self, engine, provider):
        later = timezone.now() + timedelta(seconds=2)
        queue_sms(NUMBER, "text 0", send_after=later)
        worker = engine.start(*engine.patient)
        assert worker.wait(60) == 0
        [message] = SmsMessage.objects.all()
        assert message.status == "sent" and message.sending_at >= later

    def test_a_not_now_of_the_gateway_gets_a_task_for_the_next_attempt(self, engine, provider):
        provider.script(1, Fault("sent_error"))
        message = queue_sms(NUMBER, "text 0")
        engine.run()
        message.refresh_from_db()
        assert (message.status, message.attempts) == ("queued", 1)
        [(function, arguments, moment)] = engine.waiting()
        assert (function, arguments) == (SEND, [[message.pk]])
        assert timedelta(0) <= moment - message.send_after <= timedelta(seconds=1)
        SmsMessage.objects.update(send_after=timezone.now())
        engine.let_time_come()
        engine.run()
        assert statuses() == {"sent": 1} and engine.waiting() == []

    def test_a_paused_provider_leaves_the_queue_whole_and_ends_the_tasks(self, engine, provider):
        """Promise 6."""
        provider.script_all(Fault("no_credit"))
        send_mass_sms(texts(100))
        engine.run()
        assert statuses() == {"queued": 100}
        tried = provider.sends
        assert 1 <= tried <= WIDTH
        SmsMessage.objects.update(send_after=timezone.now())
        engine.let_time_come()
        engine.run()
        assert statuses() == {"queued": 100}
        assert provider.sends == tried and engine.waiting() == []

    def test_work_is_a_whole_pass_of_the_worker_command(self, engine, provider):
        from django_smska import tasks

        send_mass_sms(texts(3))
        engine.lose()
        SmsMessage.objects.filter(body="text 0").update(expires_at=timezone.now())
        tasks.work.using(queue_name=tasks.queue_of("default")).enqueue()
        engine.run()
        assert statuses() == {"sent": 2, "failed": 1}


class TestHandingOver:
    def test_nothing_happens_before_the_commit(self, dummy):
        with transaction.atomic():
            message = queue_sms(NUMBER, "text 0")
            send_mass_sms(texts(2))
            assert dummy() == []
        first = message.pk
        assert [result.args for result in dummy()] == [[[first]], [[first + 1, first + 2]]]

    def test_a_repeat_of_an_idempotency_key_makes_no_task(self, dummy):
        for _ in range(2):
            queue_sms(NUMBER, "text 0", idempotency_key="once")
        assert len(dummy()) == 1

    def test_without_the_setting_there_are_no_tasks(self, dummy, settings):
        settings.SMSKA_TASKS = None
        queue_sms(NUMBER, "text 0")
        send_mass_sms(texts(2))
        settings.SMSKA_TASKS = ""  # as an environment variable has it
        queue_sms(NUMBER, "text 0")
        assert dummy() == [] and statuses() == {"queued": 4}

    @pytest.mark.slow
    def test_without_the_setting_the_framework_is_not_imported(self):
        """On Django 5.2 it may not be there, and it would cost time at each start."""
        code = (
            "import sys, django; django.setup(); import django_smska.sms;"
            "from django.core.checks import run_checks; run_checks(tags=['sms'], databases=[]);"
            "print('django_smska.tasks' in sys.modules, 'django_tasks' in sys.modules)"
        )
        command = [sys.executable, "-c", code]
        assert subprocess.check_output(command, text=True, cwd=ROOT) == "False False\n"

    def test_an_engine_that_cannot_wait_leaves_what_is_for_later(self, dummy, monkeypatch):
        from django_smska.tasks import framework

        monkeypatch.setattr(framework.task_backends["default"], "supports_defer", False)
        later = timezone.now() + timedelta(hours=1)
        row = SmsMessage(to=NUMBER, body="later", send_after=later)
        send_mass_sms([row, *texts(2)])
        first = SmsMessage.objects.get(body="text 0").pk
        assert [result.args for result in dummy()] == [[[first, first + 1]]]

    def test_messages_for_several_times_are_grouped_by_them(self, dummy):
        hour = timezone.now().replace(microsecond=0) + timedelta(hours=1)
        times = [hour, hour + timedelta(hours=1), hour]
        send_mass_sms(SmsMessage(to=NUMBER, body="later", send_after=time) for time in times)
        assert [(len(result.args[0]), result.task.run_after) for result in dummy()] == [
            (2, times[0]),
            (1, times[1]),
        ]

    def test_rows_without_a_key_are_left_to_the_worker_command(self, dummy):
        """MySQL does not return the keys of a bulk INSERT."""
        from django_smska.handover import hand_over

        hand_over([SmsMessage(to=NUMBER, body="stored somewhere")])
        assert dummy() == []

    def test_without_autocommit_the_worker_command_sends(self, dummy, caplog):
        connection.set_autocommit(False)
        try:
            queue_sms(NUMBER, "text 0")
            connection.commit()
        finally:
            connection.set_autocommit(True)
        assert dummy() == [] and statuses() == {"queued": 1}
        assert "did not accept (all of) 1 messages (TransactionManagementError)" in caplog.text

    def test_eight_bytes_a_message_are_kept_until_the_commit(self, dummy):
        """Promise 9."""
        from django_smska.handover import Handover

        handover, now = Handover(), timezone.now()
        handover.add(SimpleNamespace(pk=n, send_after=now) for n in range(100_000))
        [keys] = handover.keys.values()
        assert len(keys) == 100_000 and sys.getsizeof(keys) < 1_000_000

    def test_the_only_queue_of_an_engine_is_used(self, dummy, settings):
        settings.TASKS = {"default": DUMMY, "sms": DUMMY | {"QUEUES": ["sms"]}}
        settings.SMSKA_TASKS = "sms"
        queue_sms(NUMBER, "text 0")
        assert dummy() == []
        from django_smska.tasks import framework

        [result] = framework.task_backends["sms"].results
        assert result.task.queue_name == "sms"


WRONG = [
    ({"default": DUMMY}, "other", "other"),
    ({"default": IMMEDIATE}, "default", "TASKS['default'] has no workers (ImmediateBackend)."),
    ({"default": DUMMY}, "default", "TASKS['default'] has no workers (DummyBackend)."),
    ({"default": {"BACKEND": "no.such.Backend"}}, "default", "Could not find backend 'no.such."),
    ({"default": DUMMY | {"QUEUES": ["a", "b"]}}, "default", "TASKS['default'] has several QUEUES"),
    ({"default": {"BACKEND": "tests.test_tasks.Broken"}}, "default", "raised ZeroDivisionError"),
]


class Broken:
    def __init__(self, **kwargs):
        1 / 0  # noqa: B018


@pytest.mark.parametrize(("tasks", "alias", "words"), WRONG)
class TestWrongSettings:
    @pytest.fixture(autouse=True)
    def wrong(self, dummy, settings, tasks, alias):
        settings.TASKS, settings.SMSKA_TASKS = tasks, alias
        settings.SMSKA_LOCMEM_IN_TESTS = False

    def test_a_check_refuses_them(self, words):
        [error] = run_checks(tags=["sms"], databases=[])
        assert (error.id, bool(error.hint)) == ("smska.E008", True)
        assert error.msg.startswith("SMSKA_TASKS cannot be used: ") and words in error.msg

    def test_they_break_no_view_and_wait_for_no_network(self, words, caplog):
        queue_sms(NUMBER, "text 0")
        assert send_mass_sms(texts(2)) == 2
        assert statuses() == {"queued": 3}
        assert {record.levelname for record in caplog.records} == {"ERROR"}


def test_an_immediate_backend_will_do_where_no_network_is_used(dummy, settings):
    """In a project's tests, messages reach the outbox at once."""
    from django_smska.sms import outbox

    settings.TASKS = {"default": IMMEDIATE}
    assert run_checks(tags=["sms"], databases=[]) == []
    queue_sms(NUMBER, "text 0")
    assert [message.body for message in outbox] == ["text 0"]
    assert statuses() == {"sent": 1}


def test_a_missing_framework_is_reported_by_a_check(dummy):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, FRAMEWORK, None)
        [error] = run_checks(tags=["sms"], databases=[])
        queue_sms(NUMBER, "text 0")
    assert error.id == "smska.E008" and FRAMEWORK in error.msg
    assert "django-tasks package" in error.hint
    assert statuses() == {"queued": 1}


def test_an_engine_that_was_removed_is_gone_from_the_admin(fresh, provider, settings, client):
    """The tests that come after those of an engine see the admin that they always see."""
    usual = settings.INSTALLED_APPS
    Database(settings, provider).close()
    settings.INSTALLED_APPS = usual
    client.force_login(User.objects.create_superuser("boss"))
    assert client.get("/admin/").status_code == 200


def test_an_engine_may_import_the_tasks_of_every_app(fresh, settings):
    """Celery, huey and others do; they end with an error where one raises."""
    settings.SMSKA_TASKS = None
    settings.TASKS = {"default": {"BACKEND": "no.such.Backend"}}
    import_module("django_smska.tasks")


def test_an_engine_may_import_them_without_djangos_framework(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, FRAMEWORK, None)
    import_module("django_smska.tasks")


def test_a_task_carries_keys_alone(dummy):
    queue_sms(canaries.NUMBER, TEXT)
    send_mass_sms([(canaries.NUMBER, TEXT + end) for end in "abc"])
    shown = [f"{task!r} {task} {task.args} {task.kwargs}" for task in dummy()]
    assert len(shown) == 2 and found("".join(shown)) == set()

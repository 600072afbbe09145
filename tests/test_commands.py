"""The management commands, as the person at the terminal and the monitoring see them."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from threading import Event, Timer

import pytest
from django.core.management import CommandError, call_command
from django.db import InterfaceError, InternalError, OperationalError, connection, transaction
from django.db.models import ProtectedError
from django.db.models.signals import pre_delete
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation

from django_smska import circuit_breaker, clock, retention
from django_smska.exceptions import AuthenticationFailed, InsufficientCredits, SmsOutcomeUnknown
from django_smska.models import ProviderState, SmsMessage
from django_smska.notify import Listener
from django_smska.sms import outbox, queue_sms, send_mass_sms
from django_smska.states import FINAL, Status
from django_smska.testing.gateway import Fault, StandInGateway, closed_port
from django_smska.worker import Worker

from .conftest import PATIENT

ROOT = Path(__file__).resolve().parent.parent
NUMBER = "+79041764995"
CONSOLE = {"BACKEND": "django_smska.backends.console.SmsBackend"}

real_sends = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def empty_outbox():
    outbox.clear()
    yield
    outbox.clear()


@pytest.fixture
def gateway(settings):
    """A stand-in gateway that the default provider really sends to."""
    with StandInGateway() as gateway:
        settings.SMSKA_LOCMEM_IN_TESTS = False
        settings.SMS_PROVIDERS = {"default": through(gateway.url)}
        yield gateway


def through(url, **options):
    login = {"api_key": "test", "api_password": "test", "sender_id": "T"}
    return {"OPTIONS": {**login, **PATIENT, "url": url, **options}}


def run(*args):
    """Call a command; return what it printed and the error it ended with, or None."""
    out = StringIO()
    try:
        call_command(*args, stdout=out, stderr=out)
    except CommandError as error:
        return out.getvalue(), str(error)
    return out.getvalue(), None


# --- sms_balance ----------------------------------------------------------------------------------


@real_sends
class TestBalance:
    def test_it_prints_and_keeps_the_balance(self, gateway):
        assert run("sms_balance") == ("default: 1000 credits\n", None)
        assert ProviderState.objects.get().balance == 1000

    def test_json_is_for_machines(self, gateway):
        gateway.balance = Decimal("941.50")
        out, _ = run("sms_balance", "--json")
        assert json.loads(out) == {"default": {"balance": "941.50"}}

    def test_below_the_minimum_it_fails_and_says_so(self, gateway):
        gateway.balance = 99
        out, error = run("sms_balance", "--min", "99.5", "--json")
        assert json.loads(out) == {"default": {"balance": "99", "low": True}}
        assert error == "Below 99.5: default. Top up the account."

    def test_at_the_minimum_all_is_well(self, gateway):
        assert run("sms_balance", "--min", "1000")[1] is None

    @pytest.mark.parametrize("amount", ["NaN", "Infinity", "ten", "1,5", ""])
    def test_a_minimum_must_be_a_number(self, gateway, amount):
        assert "is not a number. Write it like" in run("sms_balance", f"--min={amount}")[1]
        assert not gateway.balances

    def test_a_provider_that_is_away_does_not_hide_the_others(self, gateway, settings):
        with closed_port() as port:
            away = through(f"http://127.0.0.1:{port}/")
            settings.SMS_PROVIDERS = {"away": away, **settings.SMS_PROVIDERS, "log": CONSOLE}
            out, error = run("sms_balance", "--json")
        answers = json.loads(out)
        assert answers["default"] == {"balance": "1000"}
        assert "SMS_PROVIDERS['away']" in answers["away"]["error"]
        assert "log" not in answers
        assert error == "No balance from: away."

    def test_using_asks_one(self, gateway, settings):
        settings.SMS_PROVIDERS = {**settings.SMS_PROVIDERS, "bulk": through(gateway.url)}
        assert run("sms_balance", "--using", "bulk") == ("bulk: 1000 credits\n", None)

    def test_an_unknown_alias_is_named_with_those_that_are_known(self, gateway):
        assert (
            "'bluk' is not configured. Known aliases: 'default'"
            in (run("sms_balance", "--using", "bluk")[1])
        )

    def test_a_provider_without_a_balance_cannot_be_asked(self, gateway, settings):
        settings.SMS_PROVIDERS = {"default": CONSOLE}
        assert "'default' has no balance" in run("sms_balance", "--using", "default")[1]
        assert "No provider" in run("sms_balance")[1]

    def test_a_wrong_login_is_said_without_showing_it(self, gateway, settings):
        settings.SMS_PROVIDERS = {"default": through(gateway.url, api_password="hush-hush")}
        out, error = run("sms_balance")
        assert "refused the login" in out
        assert "hush-hush" not in out + error

    def test_a_good_answer_opens_a_paused_provider(self, gateway):
        for _ in range(3):
            circuit_breaker.note_error("default", AuthenticationFailed())
        assert run("sms_balance")[0] == "default: 1000 credits; was paused and sends again\n"
        assert not circuit_breaker.state_of("default").is_paused

    def test_an_account_that_is_still_empty_stays_paused(self, gateway):
        circuit_breaker.note_error("default", InsufficientCredits())
        gateway.balance = 0
        assert "0 credits; still paused, because the account is empty" in run("sms_balance")[0]
        assert circuit_breaker.state_of("default").is_paused
        gateway.balance = 1
        run("sms_balance")
        assert not circuit_breaker.state_of("default").is_paused

    def test_after_unknown_outcomes_the_next_message_tries(self, gateway):
        """That a balance is answered does not show that a message will be."""
        for _ in range(3):
            circuit_breaker.note_error("default", SmsOutcomeUnknown())
        assert circuit_breaker.state_of("default").probe_at > timezone.now()
        out, error = run("sms_balance")
        assert out.endswith("only a message shows that it works; the next one tries it\n")
        state = circuit_breaker.state_of("default")
        assert error is None and state.is_paused and state.probe_at <= clock.now()
        assert json.loads(run("sms_balance", "--json")[0])["default"]["paused"] == "hanging"

    @pytest.mark.parametrize("backend", ["django_smska.backends.console", "tests.backends"])
    def test_a_pause_ends_where_there_is_no_balance(self, gateway, settings, backend):
        name = "Minimal" if backend == "tests.backends" else "SmsBackend"
        settings.SMS_PROVIDERS = {"default": {"BACKEND": f"{backend}.{name}"}}
        circuit_breaker.note_error("default", AuthenticationFailed())
        words = "default: has no balance; was paused and sends again\n"
        assert run("sms_balance") == (words, None)
        state = circuit_breaker.state_of("default")
        assert (state.is_paused, state.reason, state.failures) == (False, "", 0)
        assert "No provider" in run("sms_balance")[1]
        circuit_breaker.note_error("default", AuthenticationFailed())
        out, error = run("sms_balance", "--using", "default", "--json")
        assert (json.loads(out), error) == ({"default": {"opened_again": True}}, None)

    def test_the_error_of_a_query_speaks_of_no_message(self, settings):
        with closed_port() as port:
            settings.SMSKA_LOCMEM_IN_TESTS = False
            settings.SMS_PROVIDERS = {"default": through(f"http://127.0.0.1:{port}/")}
            out, _ = run("sms_balance")
        assert "the connection was refused. Correct host and port" in out

    def test_without_the_database_the_balance_is_reported_all_the_same(self, gateway, monkeypatch):
        monkeypatch.setattr(circuit_breaker, "state_of", raises(OperationalError("no such table")))
        assert "default: 1000 credits; not stored: OperationalError" in run("sms_balance")[0]


def raises(error):
    def function(*args, **kwargs):
        raise error

    return function


# --- sendtestsms ----------------------------------------------------------------------------------


@real_sends
class TestSendTestSms:
    def test_it_sends_to_each_number_and_shows_none_whole(self, gateway):
        out, error = run("sendtestsms", "8 904 176-49-95", "+79041764996", "--text", "Hello")
        assert error is None
        assert [entry.msisdn for entry in gateway.accepted] == ["79041764995", "79041764996"]
        assert {entry.text for entry in gateway.accepted} == {"Hello"}
        pk = SmsMessage.objects.get(to=NUMBER).pk
        assert f"+7904•••4995 (SMS {pk}): accepted as {gateway.accepted[0].id}.\n" in out
        assert "1764995" not in out and "1764996" not in out

    def test_a_number_may_come_by_the_input(self, gateway, monkeypatch):
        """No other user of the machine sees it there."""
        monkeypatch.setattr(sys, "stdin", StringIO("8 904 176-49-95\n"))
        run("sendtestsms", "-")
        assert [entry.msisdn for entry in gateway.accepted] == ["79041764995"]

    def test_a_number_that_was_not_sent_is_masked_like_any_other(self, gateway):
        gateway.balance = 0
        out, _ = run("sendtestsms", "89041764995")
        assert out.startswith("+7904•••4995 (SMS ")

    def test_the_text_says_by_itself_whence_it_comes(self):
        run("sendtestsms", NUMBER)
        assert outbox[0].body.startswith("Test SMS from ")

    def test_sender_and_provider_can_be_chosen(self, settings):
        settings.SMS_PROVIDERS = {**settings.SMS_PROVIDERS, "bulk": CONSOLE}
        run("sendtestsms", NUMBER, "--sender", "Clinic", "--using", "bulk")
        assert (outbox[0].sender, outbox[0].using) == ("Clinic", "bulk")

    def test_a_bad_number_does_not_stop_the_others(self):
        out, error = run("sendtestsms", "8904", NUMBER)
        assert "8904: nothing was sent. A Russian number has" in out
        assert len(outbox) == 1
        assert error == "Accepted: 1 of 2."

    def test_its_output_is_in_english_in_any_language(self):
        with translation.override("ru"):
            assert "8904: nothing was sent. A Russian number has" in run("sendtestsms", "8904")[0]

    def test_a_refusal_is_reported_in_the_gateways_words(self, gateway):
        gateway.senders = ["Other"]
        out, error = run("sendtestsms", NUMBER)
        assert "not sent. SMS_PROVIDERS['default']: The gateway does not accept this sender" in out
        assert error == "Accepted: 0 of 1."

    def test_a_doubt_is_said_plainly(self, gateway):
        gateway.script(1, Fault("reset_after_request", accepted=True))
        out, error = run("sendtestsms", NUMBER)
        assert "OUTCOME UNKNOWN, it may have been sent." in out
        assert error == "Accepted: 0 of 1."

    def test_the_code_of_an_outcome_is_shown_and_logged(self, gateway, caplog):
        gateway.script(1, Fault("reset_after_request", accepted=True))
        out, _ = run("sendtestsms", NUMBER)
        message = SmsMessage.objects.get()
        assert message.error_code and f" (code {message.error_code})\n" in out
        words = f"message {message.pk}: unknown whether it was sent ({message.error_code})"
        assert words in caplog.messages

    def test_a_backend_without_a_network_is_not_held_by_an_older_pause(self, gateway, settings):
        circuit_breaker.note_error("default", AuthenticationFailed())
        settings.SMS_PROVIDERS = {"default": CONSOLE}
        out, error = run("sendtestsms", NUMBER)
        assert ": accepted" in out and error is None
        assert not circuit_breaker.state_of("default").is_paused

    def test_an_unknown_alias_sends_nothing(self):
        assert "Known aliases" in run("sendtestsms", NUMBER, "--using", "bluk")[1]
        assert not SmsMessage.objects.exists()

    def test_an_empty_text_is_refused(self):
        assert "The text is empty." in run("sendtestsms", NUMBER, "--text", "")[0]


# --- sms_worker -----------------------------------------------------------------------------------


@real_sends
class TestWorkerCommand:
    def test_one_pass_sends_what_is_due_and_counts(self, gateway):
        send_mass_sms([(f"+7904176{n}", "Hello") for n in range(4950, 4955)])
        queue_sms("+74950000000", "No mobile number")
        assert run("sms_worker", "--once") == ("sent 5, failed 1\n", None)
        assert len(gateway.accepted) == 5

    def test_it_says_that_nothing_was_due(self):
        assert run("sms_worker", "--once") == ("Nothing was due.\n", None)

    def test_it_counts_the_reports(self, gateway):
        queue_sms(NUMBER, "Hello")
        run("sms_worker", "--once")
        SmsMessage.objects.update(next_status_at=timezone.now())
        assert run("sms_worker", "--once")[0] == "reports requested 1\n"

    def test_using_leaves_the_other_providers_messages(self, gateway, settings):
        settings.SMS_PROVIDERS = {**settings.SMS_PROVIDERS, "bulk": through(gateway.url)}
        queue_sms(NUMBER, "Mine", using="bulk")
        queue_sms(NUMBER, "Not mine")
        run("sms_worker", "--once", "--using", "bulk")
        assert [entry.text for entry in gateway.accepted] == ["Mine"]

    @pytest.mark.parametrize(
        ("option", "words"),
        [
            ("--concurrency=0", "--concurrency must be at least 1."),
            ("--interval=0", "--interval must be a number of seconds above 0."),
            ("--interval=nan", "--interval must be a number of seconds above 0."),
            ("--interval=inf", "--interval must be a number of seconds above 0."),
            ("--using=bluk", "'bluk' is not configured. Known aliases: 'default'"),
        ],
    )
    def test_wrong_options_are_refused(self, option, words):
        assert words in run("sms_worker", "--once", option)[1]

    def test_it_says_that_a_provider_is_paused(self, gateway):
        gateway.balance = 0
        queue_sms(NUMBER, "Hello")
        out, error = run("sms_worker", "--once", "--concurrency", "1")
        assert "back in the queue 1" in out
        assert "default is paused (funds; next probe at " in out
        assert "Top it up." in out
        assert error is None
        SmsMessage.objects.update(send_after=timezone.now())
        out, error = run("sms_worker", "--once")
        assert out.endswith("Nothing was sent: default is paused.\n")
        assert "default is paused (funds; next probe at " in out

    def test_a_pause_with_nothing_due_is_not_the_reason(self, gateway):
        circuit_breaker.note_error("default", AuthenticationFailed())
        assert run("sms_worker", "--once")[0].endswith("\nNothing was due.\n")

    @pytest.mark.slow
    def test_a_pause_is_said_once_and_its_end_once(self, gateway, monkeypatch):
        """What a daemon prints over five passes."""
        gateway.balance = 0
        queue_sms(NUMBER, "Hello")

        def top_up():
            gateway.balance = 10
            circuit_breaker.note_success("default", Decimal(10))

        said = during_passes(monkeypatch, None, None, top_up, None, None)
        assert said.count("default is paused") == 1
        assert said.count("default is open again.") == 1

    @pytest.mark.parametrize("error", [OperationalError, InterfaceError, InternalError])
    def test_a_database_that_is_away_is_waited_for(self, monkeypatch, caplog, error):
        away = error("the host db.internal does not answer")
        said = during_passes(monkeypatch, raises(away), raises(away), None)
        assert said.endswith("Stopped.\n")
        words = f"The database cannot be reached or is busy ({error.__name__})."
        assert caplog.text.count(words) == 2
        assert "db.internal" not in caplog.text

    def test_one_pass_without_a_database_fails_with_a_word(self, monkeypatch):
        monkeypatch.setattr(Worker, "run_once", raises(OperationalError("gone")))
        assert "Nothing is lost. Run this again." in run("sms_worker", "--once")[1]

    def test_the_signal_handlers_are_put_back(self):
        before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        run("sms_worker", "--once")
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def during_passes(monkeypatch, *actions):
    """Let the daemon do a pass after each action, then stop it; return what it said."""
    run_once, left = Worker.run_once, list(actions)

    def after_an_action(worker):
        action = left.pop(0)
        if not left:
            worker.stop()
        if action:
            action()
        return run_once(worker)

    monkeypatch.setattr(Worker, "run_once", after_an_action)
    return run("sms_worker", "--interval", "0.001")[0]


@pytest.mark.parametrize(
    "command", [["sms_status"], ["sms_prune"], ["sendtestsms", NUMBER], ["sms_worker", "--once"]]
)
def test_a_database_that_is_away_is_one_line(db, monkeypatch, command):
    away = OperationalError("the host db.internal does not answer")
    monkeypatch.setattr(connection.introspection, "table_names", raises(away))
    monkeypatch.setattr(Worker, "run_once", raises(away))
    out, error = run(*command)
    assert out == ""
    assert error.startswith("The database cannot be reached or is busy (OperationalError). ")
    assert error.endswith((" Run this again when it can be reached.", " Run this again."))


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["sms_worker"],
        ["sms_worker", "--once"],
        ["sendtestsms", NUMBER],
        ["sms_status", "--json"],
        ["sms_prune"],
    ],
)
def test_a_forgotten_migrate_is_named(tmp_path, command):
    env = os.environ | {
        "DATABASE_URL": f"sqlite:///{tmp_path / 'empty.sqlite3'}",
        "DJANGO_SETTINGS_MODULE": "tests.settings",
    }
    line = [sys.executable, "-W", "error", "-m", "django", *command]
    run = subprocess.run(line, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("CommandError: The database 'default' has no table django_smska_")
    assert run.stderr.endswith("Run 'manage.py migrate'.\n")


START = """
import json, os, sys
from tests import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
settings.SMS_PROVIDERS = json.loads(sys.argv[2])
settings.SMSKA_LOCMEM_IN_TESTS = False  # it is a child of a test run
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "sms_worker", *sys.argv[3:]])
"""


@pytest.fixture
def start_worker(gateway):
    """Start the command as a process of its own; none outlives the test."""
    started = []

    def start(*args, stderr=None):
        providers = json.dumps({"default": through(gateway.url)})
        name = str(connection.settings_dict["NAME"])
        worker = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", START, name, providers, *args],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            encoding="utf-8",
        )
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.kill()
        worker.wait()
        worker.stdout.close()


@pytest.mark.slow
@real_sends
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_reported_to_stop_leaves_nothing_in_doubt(gateway, start_worker, end):
    """What is in flight is finished as sent, what was only claimed is queued again, exit code 0.

    Of two threads one is answered at once and gets another message. So there are two in flight,
    and of the others some are claimed already.
    """
    send_mass_sms([(f"+7904176{n}", "Hello") for n in range(4950, 4958)])
    answer = Event()
    gateway.script_all(Fault("late", accepted=True, until=answer))
    gateway.script(1, None)
    worker = start_worker("--concurrency", "2", "--interval", "0.1")
    try:
        assert gateway.wait_for(lambda: gateway.sends == 3, timeout=30)
        before = statuses()
        assert (before["sent"], before["sending"]) == (1, 2)
        assert before["claimed"] >= 1 and before["claimed"] + before["queued"] == 5
        worker.send_signal(end)
        assert any("Stopping" in line for line in worker.stdout)
    finally:
        answer.set()
    assert worker.wait(30) == 0
    assert worker.stdout.read() == "sent 3\nStopped.\n"
    assert statuses() == {"sent": 3, "queued": 5}
    assert len(gateway.accepted) == 3
    assert set(SmsMessage.objects.filter(status="queued").values_list("token", "lease_until")) == {
        ("", None)
    }


@pytest.mark.slow
@real_sends
def test_an_idle_worker_reported_to_stop_ends(gateway, start_worker):
    worker = start_worker("--interval", "600")
    assert "Waiting for messages." in worker.stdout.readline()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


def statuses():
    return Counter(SmsMessage.objects.values_list("status", flat=True))


# --- sms_prune ------------------------------------------------------------------------------------

LONG_AGO = timedelta(days=200)


def make(status, age=LONG_AGO, **fields):
    """Store a message that got this status so long ago."""
    then = timezone.now() - age
    message = queue_sms(NUMBER, "Hello", idempotency_key=fields.pop("idempotency_key", None))
    finished_at = then if status in FINAL else None
    SmsMessage.objects.filter(pk=message.pk).update(
        status=status, created_at=then, lease_until=then, finished_at=finished_at, **fields
    )
    return message


def left():
    return set(SmsMessage.objects.values_list("pk", flat=True))


@pytest.mark.slow
@pytest.mark.django_db
class TestPrune:
    def test_only_what_is_finished_goes(self):
        for status in Status:
            make(status)
        out, error = run("sms_prune")
        assert f"Deleted {len(FINAL)} messages that were finished before " in out
        assert error is None
        assert set(statuses()) == set(Status) - FINAL
        assert "unknown" in statuses()

    def test_what_was_finished_lately_stays(self):
        lately = make("delivered", timedelta(days=100))
        make("delivered", timedelta(days=181))
        run("sms_prune")
        assert left() == {lately.pk}

    def test_an_old_message_that_was_finished_lately_stays(self):
        message = make("delivered")
        SmsMessage.objects.update(finished_at=timezone.now())
        run("sms_prune")
        assert left() == {message.pk}

    def test_the_time_is_in_the_settings_or_given(self, settings):
        settings.SMSKA_KEEP = timedelta(days=300)
        make("delivered")
        assert "Deleted 0" in run("sms_prune")[0]
        assert "Deleted 1" in run("sms_prune", "--keep", "7.5")[0]

    @pytest.mark.parametrize("days", ["0", "-1", "nan", "inf", "1e9"])
    def test_the_days_must_make_sense(self, days):
        make("delivered")
        assert "Write a number of days above 0" in run("sms_prune", f"--keep={days}")[1]
        assert left()

    @pytest.mark.parametrize("batch", [1, 2, 3, 1000])
    def test_a_message_stays_while_its_resend_stays(self, monkeypatch, batch):
        """In batches of any size; a dry run shows the same numbers and deletes nothing."""
        monkeypatch.setattr(retention, "BATCH_ROWS", batch)
        gone = make("failed")
        make("rejected", resend_of=make("failed", resend_of=gone))
        oldest = make("failed")
        older = make("failed", resend_of=oldest)
        newest = make("sent", timedelta(days=1), resend_of=older)
        make("delivered")
        dry, _ = run("sms_prune", "--dry-run")
        assert len(left()) == 7
        out, _ = run("sms_prune")
        assert left() == {oldest.pk, older.pk, newest.pk}
        assert dry.startswith("Would delete 4 ")
        assert out.startswith("Deleted 4 ")
        assert dry.splitlines()[1] == out.splitlines()[1] == "Kept 2 that other rows point to."

    def test_what_the_projects_own_tables_protect_stays(self):
        parent = make("failed")
        child = make("delivered", resend_of=parent)
        make("delivered")

        def protect(sender, instance, **kwargs):
            if instance.pk == child.pk:
                raise ProtectedError("An order points here.", {instance})

        pre_delete.connect(protect, SmsMessage)
        try:
            out, error = run("sms_prune")
        finally:
            pre_delete.disconnect(protect, SmsMessage)
        assert left() == {parent.pk, child.pk}
        assert SmsMessage.objects.get(pk=child.pk).resend_of_id == parent.pk
        assert "Deleted 1 " in out
        assert "Kept 2 " in out
        assert error is None

    def test_a_key_can_be_used_again_afterwards(self):
        make("delivered", idempotency_key="order-1")
        run("sms_prune")
        assert queue_sms(NUMBER, "Hello", idempotency_key="order-1").status == "queued"

    def test_each_batch_costs_the_same(self, monkeypatch):
        monkeypatch.setattr(retention, "BATCH_ROWS", 5)
        costs = []
        for rows in (9, 19, 29):  # two, four and six batches
            for _ in range(rows):
                make("delivered")
            with CaptureQueriesContext(connection) as queries:
                run("sms_prune")
            costs.append(len(queries))
        assert costs[1] - costs[0] == costs[2] - costs[1]
        assert not left()

    def test_an_empty_table_is_no_error(self):
        assert "Deleted 0 messages" in run("sms_prune")[0]


@real_sends
@pytest.mark.skipif(connection.vendor != "postgresql", reason="NOTIFY is PostgreSQL's")
def test_a_sleeping_worker_is_woken_on_postgresql(gateway, start_worker):
    """Its interval is an hour: only a notification brings it back to work."""
    worker = start_worker("--interval", "3600")
    assert "Waiting for messages" in worker.stdout.readline()
    queue_sms(NUMBER, "first")  # perhaps before its first sleep
    assert gateway.wait_for(lambda: gateway.sends == 1, timeout=30)
    assert worker.stdout.readline() == "sent 1\n"
    with transaction.atomic():
        queue_sms(NUMBER, "second")
    assert gateway.wait_for(lambda: gateway.sends == 2, timeout=30)
    assert worker.stdout.readline() == "sent 1\n"
    assert send_mass_sms([(NUMBER, "third")]) == 1
    assert gateway.wait_for(lambda: gateway.sends == 3, timeout=30)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


@pytest.mark.skipif(connection.vendor != "postgresql", reason="NOTIFY is PostgreSQL's")
@pytest.mark.parametrize("between", [lambda: None, connection.close])
@pytest.mark.django_db(transaction=True)
def test_what_is_stored_between_a_look_and_the_wait_wakes(between):
    """Also where the connection is another one by then, as after a failure."""

    def store():
        queue_sms(NUMBER, "text")
        connection.close()

    listener, never = Listener(), Event()
    listener.listen()
    between()
    with ThreadPoolExecutor(1) as other:
        other.submit(store).result()
    limit = Timer(60, never.set)
    limit.start()
    SmsMessage.objects.exists()  # a query that the driver reads the notification with
    listener.wait(3600, never)
    limit.cancel()
    assert not never.is_set()


@pytest.mark.skipif(connection.vendor != "postgresql", reason="NOTIFY is PostgreSQL's")
@pytest.mark.django_db(transaction=True)
def test_a_worker_listens_before_it_looks(monkeypatch):
    """Django closes the connection before each pass, unless CONN_MAX_AGE keeps it."""
    channels = []

    def look(worker):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_listening_channels()")
            channels.append(cursor.fetchall())
        worker.stop() if len(channels) == 2 else connection.close()
        return Counter()

    monkeypatch.setattr(Worker, "run_once", look)
    run("sms_worker", "--interval", "0.01")
    assert channels == [[("django_smska",)]] * 2


@real_sends
@pytest.mark.skipif(connection.vendor != "postgresql", reason="its connections are cut")
def test_a_sleeping_worker_outlives_its_connection(gateway, start_worker):
    worker = start_worker("--interval", "0.2")
    assert "Waiting for messages" in worker.stdout.readline()
    for n in range(2):
        queue_sms(NUMBER, f"text {n}")
        assert gateway.wait_for(lambda n=n: gateway.sends == n + 1, timeout=30)
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    queue_sms(NUMBER, "last")
    assert gateway.wait_for(lambda: gateway.sends == 3, timeout=30)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0


def test_machines_get_an_object_a_line(db, smsoutbox):
    queue_sms(NUMBER, "text")
    out, _ = run("sms_worker", "--once", "--json")
    assert [json.loads(line) for line in out.splitlines()] == [{"sent": 1}]
    out, _ = run("sms_worker", "--once", "--json")
    assert [json.loads(line) for line in out.splitlines()] == [{"note": "Nothing was due."}]


@pytest.mark.slow
@real_sends
def test_in_a_terminal_there_is_a_bar(gateway, start_worker):
    send_mass_sms([(NUMBER, f"text {n}") for n in range(30)])
    ours, its = os.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    worker = start_worker("--once", stderr=its)
    assert worker.wait(30) == 0
    os.set_blocking(ours, False)
    shown = os.read(ours, 65536)
    os.close(ours)
    os.close(its)
    assert b"0/30" in shown and b"SMS" in shown
    assert worker.stdout.read() == "sent 30\n"

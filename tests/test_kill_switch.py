"""The kill switch: nothing leaves while a provider is stopped, and its queue stays whole."""

import json
import threading
from collections import Counter
from datetime import timedelta
from functools import partial
from io import StringIO

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.utils import timezone

from django_smska import checked_backend, circuit_breaker, conf, kill_switch, sending
from django_smska.admin import alerts
from django_smska.backends import failover as failover_backend
from django_smska.backends.base import BaseSmsBackend
from django_smska.exceptions import (
    AuthenticationFailed,
    SendingStopped,
    SmsNotSent,
    SmsOutcomeUnknown,
    TemporaryFailure,
)
from django_smska.models import ProviderState, SmsMessage
from django_smska.receipts import Receipt
from django_smska.sms import outbox, queue_sms, send_mass_sms, send_sms
from django_smska.testing.gateway import Fault
from django_smska.worker import Worker

from .conftest import options
from .outages import Once, Outage

NUMBER = "+79041764995"
STOP_URL = "/admin/django_smska/providerstate/stop/"


def statuses():
    return Counter(SmsMessage.objects.values_list("status", flat=True))


def queue(number, **kwargs):
    return [queue_sms(NUMBER, f"text {n}", **kwargs) for n in range(number)]


@pytest.fixture
def second(provider, settings):
    settings.SMS_PROVIDERS["second"] = settings.SMS_PROVIDERS["default"]


@pytest.fixture
def failover(provider, second, settings):
    settings.SMS_PROVIDERS["safe"] = {
        "BACKEND": "django_smska.backends.failover.SmsBackend",
        "OPTIONS": {"providers": ["default", "second"]},
    }


def by_setting(settings, alias):
    settings.SMSKA_STOPPED = True if alias == kill_switch.EVERY else [alias]


def by_person(settings, alias):
    kill_switch.stop(alias, by="anna")


WAYS = pytest.mark.parametrize("stop", [by_setting, by_person])
WHOM = pytest.mark.parametrize("alias", ["default", kill_switch.EVERY])


class TestTheSetting:
    @pytest.mark.parametrize(
        ("value", "stopped"),
        [
            (False, set()),
            (True, {"default"}),
            (["default"], {"default"}),
            (("default",), {"default"}),
            ([], set()),
        ],
    )
    def test_it_names_providers_or_all(self, settings, value, stopped):
        settings.SMSKA_STOPPED = value
        assert conf.stopped() == stopped

    @pytest.mark.parametrize("value", ["default", "True", 1, None, {"default": True}])
    def test_another_type_is_refused(self, settings, value):
        settings.SMSKA_STOPPED = value
        with pytest.raises(ImproperlyConfigured, match="must be True, False or a list of aliases"):
            conf.stopped()

    @pytest.mark.parametrize("value", [["defualt"], [["default"]], [None]])
    def test_a_misspelt_alias_is_refused_because_it_would_stop_nothing(self, settings, value):
        settings.SMSKA_STOPPED = value
        with pytest.raises(ImproperlyConfigured, match="SMSKA_STOPPED: .* is not in SMS_PROVIDERS"):
            conf.stopped()


class TestSendingNow:
    @WAYS
    @WHOM
    def test_it_is_refused_and_nothing_is_stored(self, provider, settings, stop, alias):
        stop(settings, alias)
        with pytest.raises(SmsNotSent, match="Sending is stopped") as caught:
            send_sms(NUMBER, "text")
        assert (type(caught.value), caught.value.code) == (SendingStopped, "stopped")
        assert provider.requests == [] and not SmsMessage.objects.exists()

    @WAYS
    @WHOM
    def test_what_may_wait_waits_in_the_queue(self, provider, settings, stop, alias):
        stop(settings, alias)
        assert send_sms(NUMBER, "text", may_wait=True).status == "queued"
        assert queue_sms(NUMBER, "text").status == "queued"
        assert send_mass_sms([(NUMBER, "text")]) == 1
        assert Worker().run_once()["sent"] == 0
        assert provider.requests == [] and statuses() == {"queued": 3}
        settings.SMSKA_STOPPED = False
        kill_switch.resume(alias)
        assert Worker().run_once()["sent"] == 3

    @WAYS
    def test_a_draft_stays_a_draft(self, provider, settings, stop):
        stop(settings, "default")
        draft = SmsMessage.objects.create(to=NUMBER, body="text")
        with pytest.raises(SendingStopped):
            draft.send()
        assert statuses() == {"draft": 1} and provider.requests == []

    @WAYS
    def test_a_queued_message_stays_queued_and_its_caller_must_not_send_it_again(
        self, provider, settings, stop
    ):
        stop(settings, "default")
        [message] = queue(1)
        with pytest.raises(SmsOutcomeUnknown, match="Sending is stopped") as caught:
            message.send()
        assert caught.value.code == "stopped"
        assert statuses() == {"queued": 1} and provider.requests == []

    def test_inside_a_transaction_it_is_refused_at_once(self, provider):
        kill_switch.stop(by="anna")
        with transaction.atomic(), pytest.raises(SendingStopped):
            send_sms(NUMBER, "text")
        assert not SmsMessage.objects.exists()

    @pytest.mark.parametrize(("may_wait", "status"), [(False, "failed"), (True, "queued")])
    def test_a_stop_before_the_commit_holds_for_what_is_sent_after_it(
        self, provider, may_wait, status
    ):
        with transaction.atomic():
            send_sms(NUMBER, "text", may_wait=may_wait)
            kill_switch.stop(by="anna")
        assert provider.requests == [] and statuses() == {status: 1}

    @pytest.mark.parametrize(("may_wait", "status"), [(False, "failed"), (True, "queued")])
    def test_a_stop_right_before_the_first_byte_holds(
        self, provider, monkeypatch, may_wait, status
    ):
        """The caller was admitted, and waits for its connection or its slot."""
        count = sending.count_for_today

        def stop_and_count(messages):
            kill_switch.stop(by="anna")
            return count(messages)

        monkeypatch.setattr(sending, "count_for_today", stop_and_count)
        if may_wait:
            send_sms(NUMBER, "text", may_wait=True)
        else:
            with pytest.raises(SendingStopped):
                send_sms(NUMBER, "text")
        assert provider.sends == 0 and statuses() == {status: 1}
        assert not circuit_breaker.state_of("default").is_paused

    def test_a_backend_without_a_network_is_stopped_too(self, db):
        kill_switch.stop(by="anna")
        with pytest.raises(SendingStopped):
            send_sms(NUMBER, "text")
        assert outbox == []

    def test_another_provider_goes_on(self, provider, second):
        kill_switch.stop("default", by="anna")
        assert send_sms(NUMBER, "text", using="second").status == "sent"
        queue(1)
        queue_sms(NUMBER, "second", using="second")
        assert Worker().run_once()["sent"] == 1
        assert statuses() == {"sent": 2, "queued": 1}

    def test_every_provider_is_also_one_that_has_no_row(self, provider, second):
        kill_switch.stop(by="anna")
        assert not ProviderState.objects.filter(alias="second").exists()
        with pytest.raises(SendingStopped):
            send_sms(NUMBER, "text", using="second")


class TestARunningPass:
    @pytest.mark.slow
    @pytest.mark.parametrize("alias", ["default", kill_switch.EVERY])
    def test_it_ends_with_what_is_in_flight(self, provider, alias):
        release = threading.Event()
        provider.script_all(Fault("late", until=release))
        provider.script(1, None)
        queue(12)

        def press():
            provider.wait_for(lambda: provider.sends == 4, timeout=30)
            kill_switch.stop(alias, by="anna")
            connection.close()
            release.set()

        other = threading.Thread(target=press)
        other.start()
        done = Worker(concurrency=3).run_once()
        other.join()
        assert done["sent"] == 4 and provider.sends == 4
        assert statuses() == {"sent": 4, "queued": 8}
        assert not SmsMessage.objects.filter(status="queued").exclude(token="").exists()
        kill_switch.resume(alias)
        assert Worker().run_once()["sent"] == 8

    def test_no_request_begins_after_the_stop_is_committed(self, provider):
        """It is looked for right before each group of requests is marked."""
        queue(6)
        mark = Once(lambda: kill_switch.stop(by="anna"), only='UPDATE "django_smska_smsmessage"')
        if connection.vendor == "mysql":
            mark.only = "UPDATE `django_smska_smsmessage`"
        with connection.execute_wrapper(mark):  # the claim
            Worker(concurrency=1).run_once()
        assert mark.done and provider.sends == 0 and statuses() == {"queued": 6}

    @pytest.mark.slow
    def test_one_of_two_providers_goes_on(self, provider, second):
        release = threading.Event()
        provider.script_all(Fault("late", until=release))
        queue(5)
        for n in range(3):
            queue_sms(NUMBER, f"second {n}", using="second")

        def press():
            provider.wait_for(lambda: provider.sends == 1, timeout=30)
            kill_switch.stop("default", by="anna")
            connection.close()
            release.set()

        other = threading.Thread(target=press)
        other.start()
        Worker().run_once()
        other.join()
        sent = SmsMessage.objects.filter(status="sent")
        assert Counter(sent.values_list("using", flat=True)) == {"default": 1, "second": 3}
        assert statuses() == {"sent": 4, "queued": 4}

    def test_only_these_obeys(self, provider):
        """As a task does."""
        messages = queue(2)
        kill_switch.stop(by="anna")
        assert not +Worker().send_these(message.pk for message in messages)
        assert statuses() == {"queued": 2} and provider.requests == []


class TestFailover:
    def test_a_stopped_member_is_passed_over(self, failover, provider):
        kill_switch.stop("default", by="anna")
        assert send_sms(NUMBER, "text", using="safe").using == "second"
        queue_sms(NUMBER, "queued", using="safe")
        assert Worker().run_once()["sent"] == 1
        assert set(SmsMessage.objects.values_list("using", flat=True)) == {"second"}

    @pytest.mark.parametrize("aliases", [["safe"], ["default", "second"], [kill_switch.EVERY]])
    def test_it_is_stopped_itself_or_with_all_its_members(self, failover, provider, aliases):
        for alias in aliases:
            kill_switch.stop(alias, by="anna")
        with pytest.raises(SendingStopped):
            send_sms(NUMBER, "text", using="safe")
        queue_sms(NUMBER, "text", using="safe")
        assert Worker().run_once()["sent"] == 0 and provider.requests == []

    @pytest.fixture
    def closed(self, failover):
        """One member is stopped, and the other one is paused."""
        kill_switch.stop("default", by="anna")
        now, later = timezone.now(), timezone.now() + timedelta(hours=1)
        ProviderState.objects.create(
            alias="second", reason="account", paused_at=now, probe_at=later
        )

    def test_one_member_stopped_and_the_other_paused_is_refused(self, closed, provider):
        with pytest.raises(SmsNotSent, match="None of the providers") as caught:
            send_sms(NUMBER, "text", using="safe")
        assert caught.value.code == "paused"
        with transaction.atomic(), pytest.raises(SmsNotSent, match="None of the providers"):
            send_sms(NUMBER, "text", using="safe")
        assert not SmsMessage.objects.exists() and provider.requests == []

    def test_then_a_queued_message_stays_queued(self, closed, provider):
        message = queue_sms(NUMBER, "text", using="safe")
        with pytest.raises(SmsOutcomeUnknown, match="None of the providers"):
            message.send()
        assert Worker().run_once()["sent"] == 0
        assert statuses() == {"queued": 1} and provider.requests == []

    def test_then_a_member_whose_probe_is_due_is_tried_after_the_commit(self, closed, provider):
        ProviderState.objects.filter(alias="second").update(probe_at=timezone.now())
        with transaction.atomic():
            message = send_sms(NUMBER, "text", using="safe")
        message.refresh_from_db()
        assert (message.status, message.using) == ("sent", "second")

    def test_one_member_stopped_and_the_other_paused_in_a_pass_ends_it(self, failover, provider):
        """Or each message would be tried in vain, and put back for longer and longer."""
        provider.script_all(Fault("wrong_login"))
        kill_switch.stop("default", by="anna")
        for n in range(4):
            queue_sms(NUMBER, f"text {n}", using="safe")
        Worker(concurrency=1).run_once()
        assert provider.sends == 1 and statuses() == {"queued": 4}
        assert SmsMessage.objects.filter(attempts=0).count() == 3

    @pytest.mark.slow
    def test_a_member_stopped_in_a_pass_is_passed_over_from_then_on(self, failover, provider):
        release = threading.Event()
        provider.script_all(Fault("late", until=release))
        for n in range(4):
            queue_sms(NUMBER, f"text {n}", using="safe")

        def press():
            provider.wait_for(lambda: provider.sends == 1, timeout=30)
            kill_switch.stop("default", by="anna")
            connection.close()
            release.set()

        other = threading.Thread(target=press)
        other.start()
        Worker(concurrency=1).run_once()
        other.join()
        used = Counter(SmsMessage.objects.values_list("using", flat=True))
        assert used == {"default": 1, "second": 3} and statuses() == {"sent": 4}


class Silent(BaseSmsBackend):
    """Promises to announce its first byte, and does not."""

    announces_first_byte = True

    def send_message(self, message):
        return Receipt(gateway_id="1")


def before(monkeypatch, module, name, action):
    """Let ``action`` happen right before this function is called."""
    function = getattr(module, name)

    def act_and_call(*args, **options):
        action()
        return function(*args, **options)

    monkeypatch.setattr(module, name, act_and_call)


def update():
    return f"UPDATE {connection.ops.quote_name(SmsMessage._meta.db_table)}"


class TestAMemberStoppedBeforeItsFirstByte:
    """It was open when the attempt began."""

    @pytest.mark.parametrize("may_wait", [False, True])
    def test_while_it_connects(self, failover, provider, monkeypatch, may_wait):
        stop = partial(kill_switch.stop, "default", by="anna")
        before(monkeypatch, sending, "count_for_today", stop)
        assert send_sms(NUMBER, "text", using="safe", may_wait=may_wait).using == "second"
        assert provider.sends == 1 and statuses() == {"sent": 1}

    def test_right_before_the_mark(self, failover, provider):
        mark = Once(lambda: kill_switch.stop("default", by="anna"), only=update())
        with connection.execute_wrapper(mark):
            message = send_sms(NUMBER, "text", using="safe")
        assert mark.done and message.using == "second" and provider.sends == 1

    def test_in_a_pass_while_it_waits_for_permission(self, failover, provider):
        queue_sms(NUMBER, "text", using="safe")
        claim = Once(lambda: kill_switch.stop("default", by="anna"), only=update())
        with connection.execute_wrapper(claim):
            assert Worker(concurrency=1).run_once()["sent"] == 1
        assert claim.done and provider.sends == 1
        assert SmsMessage.objects.get().using == "second"

    def test_the_second_one_after_the_first_one_refused(self, failover, provider, monkeypatch):
        provider.script_all(Fault("wrong_login"))
        stop = partial(kill_switch.stop, "second", by="anna")
        before(monkeypatch, failover_backend.logger, "warning", stop)
        with pytest.raises(AuthenticationFailed):
            send_sms(NUMBER, "text", using="safe")
        assert provider.sends == 1 and statuses() == {"failed": 1}
        assert circuit_breaker.paused() == ["default"]

    @pytest.mark.parametrize(("may_wait", "status"), [(False, "failed"), (True, "queued")])
    def test_all_of_them(self, failover, provider, monkeypatch, may_wait, status):
        def stop_all():
            for alias in ("default", "second"):
                kill_switch.stop(alias, by="anna")

        before(monkeypatch, sending, "count_for_today", stop_all)
        if may_wait:
            send_sms(NUMBER, "text", using="safe", may_wait=True)
        else:
            with pytest.raises(SendingStopped):
                send_sms(NUMBER, "text", using="safe")
        assert provider.sends == 0 and statuses() == {status: 1}
        assert not circuit_breaker.paused()

    def test_without_a_database_to_look_in_nothing_is_sent(self, failover, provider):
        marked = []
        mark = Once(lambda: marked.append(True), only=update())
        outage = Outage(2, begins=lambda: marked, only="SELECT")
        with (
            connection.execute_wrapper(outage),
            connection.execute_wrapper(mark),
            pytest.raises(TemporaryFailure, match="database did not answer") as caught,
        ):
            send_sms(NUMBER, "text", using="safe")
        assert caught.value.code == "database" and outage.left == 0
        assert provider.sends == 0 and statuses() == {"failed": 1}

    def test_what_left_unannounced_is_not_sent_again(
        self, failover, provider, settings, monkeypatch
    ):
        settings.SMS_PROVIDERS["default"] = {"BACKEND": "tests.test_kill_switch.Silent"}
        stop = partial(kill_switch.stop, "default", by="anna")
        before(monkeypatch, sending, "count_for_today", stop)
        assert send_sms(NUMBER, "text", using="safe").using == "default"
        assert provider.sends == 0 and statuses() == {"sent": 1}


class TestItsEnd:
    def test_a_good_answer_of_the_gateway_does_not_end_it(self, provider):
        kill_switch.stop("default", by="anna")
        circuit_breaker.note_success("default")
        circuit_breaker.resume("default")
        assert circuit_breaker.probe(checked_backend.provider("default"))
        call_command("sms_balance", stdout=StringIO())
        assert kill_switch.stopped(["default"]) == {"default"}

    def test_a_pause_is_neither_probed_nor_ended_by_it(self, provider):
        circuit_breaker.note_error("default", sending.TemporaryFailure())
        ProviderState.objects.create(
            alias="default", reason="account", paused_at=timezone.now(), probe_at=timezone.now()
        )
        kill_switch.stop("default", by="anna")
        queue(1)
        Worker().run_once()
        assert provider.requests == [] and circuit_breaker.state_of("default").is_paused
        kill_switch.resume("default")
        assert circuit_breaker.state_of("default").is_paused

    def test_each_of_the_two_stops_is_ended_alone(self, db):
        kill_switch.stop("default", by="anna")
        kill_switch.stop(by="boris")
        assert kill_switch.resume()
        assert kill_switch.stopped(["default", "second"]) == {"default"}
        assert kill_switch.resume("default")
        assert not kill_switch.stopped(["default", "second"])
        assert not kill_switch.resume("default")

    def test_the_first_who_stops_it_is_remembered(self, db):
        assert kill_switch.stop("default", by="anna")
        assert not kill_switch.stop("default", by="boris")
        assert circuit_breaker.state_of("default").stopped_by == "anna"

    def test_reports_are_still_queried(self, provider):
        message = send_sms(NUMBER, "text")
        kill_switch.stop(by="anna")
        SmsMessage.objects.update(next_status_at=timezone.now())
        Worker().run_once()
        message.refresh_from_db()
        assert message.status_queries == 1 or message.status == "delivered"


class TestWhatIsSeen:
    def words(self):
        return [(line.words, line.warns) for line in alerts.alerts()]

    def test_the_list_of_messages_warns(self, db, settings):
        kill_switch.stop("default", by="anna")
        [(words, warns)] = self.words()
        assert warns and words.startswith("Nothing is sent through “default”: stopped since ")
        assert words.endswith(" by anna.")
        kill_switch.stop(by="boris")
        assert [words.partition(":")[0] for words, _ in self.words()] == [
            "Nothing is sent through any provider",
            "Nothing is sent through “default”",
        ]
        ProviderState.objects.all().delete()
        settings.SMSKA_STOPPED = True
        assert self.words() == [
            (
                "Nothing is sent through any provider: stopped by the setting SMSKA_STOPPED.",
                True,
            )
        ]

    def test_sms_status_reports_it_and_exits_1(self, db):
        kill_switch.stop(by="anna")
        out = StringIO()
        with pytest.raises(CommandError, match=r"Needs attention: default\."):
            call_command("sms_status", stdout=out)
        assert "stopped; to go on" in out.getvalue()
        out = StringIO()
        with pytest.raises(CommandError):
            call_command("sms_status", "--json", stdout=out)
        facts = json.loads(out.getvalue())
        assert list(facts) == ["default"] and facts["default"]["stopped"] is True

    def test_the_worker_says_it(self, provider):
        queue(1)
        kill_switch.stop(by="anna")
        out = StringIO()
        call_command("sms_worker", "--once", stdout=out)
        assert "default is stopped: nothing is sent through it" in out.getvalue()
        assert "Nothing was sent: default is stopped." in out.getvalue()

    def test_a_daemon_says_once_that_it_is_stopped_and_once_that_it_is_resumed(
        self, provider, monkeypatch
    ):
        from django_smska.management.commands import sms_worker

        acts = [
            lambda: kill_switch.stop(by="anna"),
            lambda: None,
            lambda: kill_switch.resume(),
        ]

        def rest(command, *args):
            if acts:
                acts.pop(0)()
            else:
                command.worker.stop()

        monkeypatch.setattr(sms_worker.Command, "_rest", rest)
        out = StringIO()
        call_command("sms_worker", stdout=out)
        assert out.getvalue().count("default is stopped") == 1
        assert out.getvalue().count("default is resumed.") == 1

    def test_the_confirmation_page_says_it(self, admin_client):
        draft = SmsMessage.objects.create(to=NUMBER, body="text")
        kill_switch.stop(by="anna")
        url = "/admin/django_smska/smsmessage/send/"
        page = admin_client.get(url, {"pks": draft.pk}).content.decode()
        assert "stopped since" in page and "paused or stopped" in page
        page = admin_client.post(url, {"pks": draft.pk}, follow=True).content.decode()
        assert "Not sent: <a " in page and "Sending is stopped." in page
        assert statuses() == {"draft": 1} and outbox == []

    def test_the_row_of_all_providers_is_no_provider(self, admin_client):
        kill_switch.stop(by="anna")
        ProviderState.objects.create(alias="default")
        page = admin_client.get("/admin/django_smska/providerstate/").content.decode()
        assert page.count("field-alias") == 1 and "stopped since" in page
        assert f'href="{STOP_URL}"' in page


def run(*args):
    out = StringIO()
    call_command("sms_stop", *args, stdout=out)
    return out.getvalue()


class TestTheCommand:
    def test_it_stops_every_provider_and_resumes(self, db):
        queue(2)
        assert run() == "every provider: stopped. 2 messages wait in the queue.\n"
        assert run().startswith("every provider: was stopped already.")
        assert kill_switch.stopped(["default"])
        assert run("--resume") == "every provider: the stop is ended.\n"
        assert run("--resume") == "every provider: was not stopped.\n"
        assert not kill_switch.stopped(["default"])

    def test_it_stops_one(self, db):
        assert run("--using", "default").startswith("default: stopped.")
        assert kill_switch.stopped(["default", "other"]) == {"default"}
        assert run("--using", "default", "--resume") == "default: the stop is ended.\n"

    def test_it_says_what_is_still_stopped(self, db, settings):
        run()
        run("--using", "default")
        assert run("--resume").splitlines()[1:] == [
            "default is still stopped by manage.py sms_stop: run manage.py sms_stop --using "
            "default --resume."
        ]
        settings.SMSKA_STOPPED = ["default"]
        assert run("--using", "default", "--resume").splitlines()[1:] == [
            "Every provider is still stopped by SMSKA_STOPPED in the settings."
        ]

    def test_a_misspelt_alias_is_refused(self, db):
        with pytest.raises(CommandError, match="'defualt' is not configured. Known: default"):
            run("--using", "defualt")


class TestTheAdmin:
    def test_a_press_stops_and_another_resumes(self, admin_client, caplog):
        for alias in ("default", kill_switch.EVERY):
            page = admin_client.post(STOP_URL, {"alias": alias, "_stop": "1"}, follow=True)
            assert kill_switch.stopped(["default"]) and "is stopped." in page.content.decode()
            assert "stopped since" in page.content.decode()
            page = admin_client.post(STOP_URL, {"alias": alias, "_resume": "1"}, follow=True)
            assert not kill_switch.stopped(["default"])
            assert "is ended." in page.content.decode()
        assert [one.object_repr for one in LogEntry.objects.order_by("pk")] == [
            *["default"] * 2,
            *["every provider"] * 2,
        ]
        assert "sending through every provider is stopped" in caplog.text

    @pytest.mark.parametrize("alias", ["", "unknown", "x\0"])
    @pytest.mark.parametrize("button", ["_stop", "_resume", "_other"])
    def test_what_is_no_provider_is_refused(self, admin_client, alias, button):
        page = admin_client.post(STOP_URL, {"alias": alias, button: "1"}, follow=True)
        assert "There was nothing to do." in page.content.decode()
        assert not ProviderState.objects.exists()

    def test_what_the_setting_stops_has_no_button(self, admin_client, settings):
        settings.SMSKA_STOPPED = ["default"]
        page = admin_client.get(STOP_URL).content.decode()
        assert "correct SMSKA_STOPPED" in page and page.count("<form method") == 1

    @pytest.mark.parametrize("stopped", [False, True])
    def test_its_words_hold_before_and_after(self, admin_client, stopped):
        if stopped:
            kill_switch.stop(by="anna")
        page = admin_client.get(STOP_URL).content.decode()
        assert "Stop or resume sending</h1>" in page and "Stop sending" not in page
        assert "While it is stopped, nothing leaves." in page

    def test_a_stop_of_a_provider_that_is_gone_can_be_ended(self, admin_client):
        kill_switch.stop("gone", by="anna")
        assert "gone" in admin_client.get(STOP_URL).content.decode()
        admin_client.post(STOP_URL, {"alias": "gone", "_resume": "1"})
        assert not kill_switch.stops()

    @pytest.mark.parametrize("names", [set(), {"view"}, {"stop"}, {"view", "stop"}])
    def test_it_needs_its_permission(self, client, names):
        user = User.objects.create_user("anna", is_staff=True)
        codenames = [f"{name}_providerstate" for name in names]
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        may = names == {"view", "stop"}
        assert client.get(STOP_URL).status_code == (200 if may else 403)
        answer = client.post(STOP_URL, {"alias": "default", "_stop": "1"})
        assert answer.status_code == (302 if may else 403)
        assert bool(kill_switch.stopped(["default"])) is may

    pytestmark = pytest.mark.django_db


def test_to_admit_a_message_costs_one_query(
    gateway, settings, transactional_db, django_assert_num_queries
):
    settings.SMSKA_LOCMEM_IN_TESTS = False
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": options(gateway)}}
    backend = checked_backend.provider("default")
    with django_assert_num_queries(1):
        assert circuit_breaker.may_send(backend)

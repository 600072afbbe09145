"""The hold: what was due while no worker was seen for long waits for a person."""

import contextlib
import json
import re
import threading
from collections import Counter
from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_smska import circuit_breaker, clock, conf, held_queue, kill_switch, sending, tasks
from django_smska.admin import alerts, held
from django_smska.admin.advice import advice
from django_smska.models import ProviderState, SmsMessage, rows
from django_smska.sms import outbox, queue_sms, send_mass_sms, send_sms
from django_smska.worker import Worker

from .outages import Once

NUMBER = "+79041764995"
HELD_URL = "/admin/django_smska/smsmessage/held/"
HOUR = timedelta(hours=1)


def statuses():
    return Counter(SmsMessage.objects.values_list("status", flat=True))


def queue(number, **kwargs):
    return [queue_sms(NUMBER, f"text {n}", **kwargs) for n in range(number)]


def last_seen(ago, alias="default"):
    """Let the last worker have been seen so long ago, as in a dump of that age."""
    ProviderState.objects.update_or_create(
        alias=alias, defaults={"worker_seen_at": clock.now() - ago}
    )


def waited(messages, ago):
    keys = [message.pk for message in messages]
    SmsMessage.objects.filter(pk__in=keys).update(
        send_after=clock.now() - ago, created_at=clock.now() - ago
    )


def old_queue(number=3):
    """Return what a dump of seven hours ago has in its queue."""
    messages = queue(number)
    waited(messages, 7 * HOUR)
    last_seen(7 * HOUR)
    return messages


def sent_texts():
    return sorted(SmsMessage.objects.filter(status="sent").values_list("body", flat=True))


class TestTheSetting:
    @pytest.mark.parametrize(
        ("value", "limit"),
        [
            (60, timedelta(minutes=1)),
            (timedelta(days=2), timedelta(days=2)),
            (0.5, timedelta(seconds=0.5)),
            (0, None),
            (0.0, None),
            (None, None),
        ],
    )
    def test_it_is_a_duration_or_never(self, settings, value, limit):
        settings.SMSKA_HOLD_AFTER = value
        assert conf.hold_after() == limit

    def test_six_hours_are_the_default(self):
        assert conf.hold_after() == 6 * HOUR

    @pytest.mark.parametrize("value", [-1, True, False, "6h", timedelta(0), timedelta(-1), 1e12])
    def test_all_else_is_refused(self, settings, value):
        settings.SMSKA_HOLD_AFTER = value
        with pytest.raises(ImproperlyConfigured, match="SMSKA_HOLD_AFTER must be a number of sec"):
            conf.hold_after()


class TestWhatIsHeld:
    def test_what_was_due_when_the_first_worker_came_back(self, provider, caplog):
        old_queue()
        assert Worker().run_once()["sent"] == 0
        assert provider.requests == [] and statuses() == {"queued": 3}
        assert held_queue.number_held("default") == 3
        assert "3 messages are held" in caplog.text
        assert Worker().run_once()["sent"] == 0 and caplog.text.count("are held") == 1

    def test_also_what_became_due_since_the_dump_was_made(self, provider):
        """The live site has sent that in the meantime."""
        [message] = queue(1)
        last_seen(7 * HOUR)
        waited([message], timedelta(minutes=1))
        Worker().run_once()
        assert provider.requests == [] and held_queue.number_held("default") == 1

    @pytest.mark.slow
    def test_what_is_queued_or_due_later_goes_on(self, provider):
        old_queue()
        [later] = queue(1, send_after=timezone.now() + HOUR)
        Worker().run_once()
        queue_sms(NUMBER, "new")
        queue_sms(NUMBER, "for a time in the past", send_after=timezone.now() - 2 * HOUR)
        send_mass_sms([(NUMBER, "one of many"), SmsMessage(to=NUMBER, body="made by hand")])
        old = SmsMessage(to=NUMBER, body="made for the past", send_after=timezone.now() - 2 * HOUR)
        send_mass_sms([old])
        SmsMessage.objects.filter(pk=later.pk).update(send_after=clock.now())
        Worker().run_once()
        assert sent_texts() == [
            "for a time in the past", "made by hand", "made for the past", "new", "one of many",
            "text 0",
        ]  # fmt: skip
        assert held_queue.number_held("default") == 3

    def test_a_draft_that_is_older_than_the_hold_goes_on_when_it_is_queued_later(self, provider):
        draft = SmsMessage.objects.create(to=NUMBER, body="draft")
        waited([draft], 30 * HOUR)
        old_queue()
        Worker().run_once()
        assert sending.enqueue(rows([draft.pk])) == 1
        assert Worker().run_once()["sent"] == 1 and sent_texts() == ["draft"]

    def test_a_message_that_is_sent_again_goes_on(self, provider):
        [failed] = queue(1)
        SmsMessage.objects.update(status="failed")
        old_queue()
        Worker().run_once()
        failed.refresh_from_db()
        sending.resend(failed)
        assert Worker().run_once()["sent"] == 1

    def test_a_worker_that_was_seen_lately_holds_nothing(self, provider):
        messages = queue(2)
        waited(messages, 7 * HOUR)
        last_seen(5.9 * HOUR)
        assert Worker().run_once()["sent"] == 2

    @pytest.mark.parametrize("never", [0, None])
    def test_with_never_nothing_is_held(self, provider, settings, never):
        settings.SMSKA_HOLD_AFTER = never
        old_queue()
        assert Worker().run_once()["sent"] == 3
        assert circuit_breaker.state_of("default").worker_seen_at > clock.now() - HOUR

    def test_the_limit_is_the_settings(self, provider, settings):
        settings.SMSKA_HOLD_AFTER = timedelta(days=2)
        old_queue()
        assert Worker().run_once()["sent"] == 3

    def test_each_provider_has_its_own(self, provider, settings):
        settings.SMS_PROVIDERS["second"] = settings.SMS_PROVIDERS["default"]
        old_queue()
        last_seen(timedelta(seconds=10), "second")
        queue_sms(NUMBER, "second", using="second")
        assert Worker().run_once()["sent"] == 1 and sent_texts() == ["second"]

    def test_an_empty_queue_holds_nothing(self, provider):
        last_seen(7 * HOUR)
        Worker().run_once()
        assert held_queue.moments(["default"]) == {}
        queue(1)
        assert Worker().run_once()["sent"] == 1

    @pytest.mark.parametrize(("ago", "number"), [(5.9 * HOUR, 0), (6.1 * HOUR, 2)])
    def test_before_any_worker_was_seen_the_oldest_message_decides(self, provider, ago, number):
        old, _new = queue(2)
        waited([old], ago)
        Worker().run_once()
        assert held_queue.number_held("default") == number
        assert provider.sends == 2 - number

    def test_what_expires_while_it_is_held_expires(self, provider):
        messages = old_queue(2)
        Worker().run_once()
        SmsMessage.objects.filter(pk=messages[0].pk).update(expires_at=clock.now())
        last_seen(timedelta(minutes=2))
        Worker().run_once()
        assert statuses() == {"failed": 1, "queued": 1}
        assert held_queue.number_held("default") == 1

    def test_what_has_expired_before_is_not_held(self, provider):
        old_queue()
        SmsMessage.objects.update(expires_at=clock.now())
        Worker().run_once()
        assert statuses() == {"failed": 3} and held_queue.moments(["default"]) == {}

    def test_a_claim_of_a_dead_worker_comes_back_held(self, provider):
        """It was claimed when the dump was made."""
        old_queue(2)
        message = SmsMessage.objects.first()
        SmsMessage.objects.filter(pk=message.pk).update(
            status="claimed", token="t", attempts=1, lease_until=clock.now() - 7 * HOUR
        )
        Worker().run_once()
        assert statuses() == {"queued": 2} and provider.requests == []

    def test_a_new_hold_includes_what_the_last_one_let_through(self, provider):
        old_queue(1)
        Worker().run_once()
        queue(1)
        last_seen(7 * HOUR)
        Worker().run_once()
        assert held_queue.number_held("default") == 2 and provider.requests == []

    def test_without_time_zones(self, provider, settings):
        settings.USE_TZ = False
        old_queue()
        Worker().run_once()
        assert held_queue.number_held("default") == 3
        queue(1)
        assert Worker().run_once()["sent"] == 1


@pytest.mark.parametrize("ago", [7, 23])
def test_what_a_lost_worker_had_claimed_is_held_alone_too(provider, ago):
    """As in the dump of a queue that was nearly done."""
    messages = queue(4)
    past = timezone.now() - timedelta(hours=ago)
    rows().update(status="claimed", token="t", attempts=1, send_after=past, lease_until=past)
    last_seen(timedelta(hours=ago))
    Worker().run_once()
    assert statuses() == {"queued": len(messages)} and provider.sends == 0
    assert held_queue.number_held("default") == len(messages)


class TestWhatAPersonSends:
    def test_a_held_message_that_is_sent_by_hand_leaves(self, provider):
        first, *_ = old_queue()
        Worker().run_once()
        first.send()
        assert statuses() == {"sent": 1, "queued": 2}

    def test_what_is_sent_now_is_not_held(self, provider):
        old_queue()
        Worker().run_once()
        assert send_sms(NUMBER, "now").status == "sent"
        assert send_sms(NUMBER, "now", may_wait=True).status == "sent"

    def test_the_admins_send(self, admin_client, db):
        first, *_ = old_queue()
        Worker().run_once()
        admin_client.post("/admin/django_smska/smsmessage/send/", {"pks": first.pk})
        assert len(outbox) == 1 and statuses() == {"sent": 1, "queued": 2}


class TestSeveralWorkers:
    @pytest.mark.slow
    def test_two_that_start_at_once_agree(self, provider):
        old_queue(20)
        queue(1, send_after=timezone.now() + HOUR)
        start, done = threading.Barrier(3), []

        def work():
            start.wait(20)
            done.append(Worker(concurrency=4).run_once())
            connections.close_all()

        workers = [threading.Thread(target=work) for _ in range(3)]
        for one in workers:
            one.start()
        for one in workers:
            one.join()
        assert len(done) == 3 and provider.requests == []
        assert held_queue.number_held("default") == 20

    def test_the_second_does_not_hold_again_what_was_queued_since(self, provider):
        old_queue(2)
        moments = []

        def be_faster():
            held_queue.heartbeat(["default"])
            moments.append(held_queue.moments(["default"]))
            queue_sms(NUMBER, "new")

        # Between the two queries of a worker that has found no heartbeat: it looks for the row.
        race = Once(be_faster, only="SELECT")
        with connection.execute_wrapper(race):
            held_queue.heartbeat(["default"])
        assert race.done and [held_queue.moments(["default"])] == moments
        assert Worker().run_once()["sent"] == 1 and sent_texts() == ["new"]

    @pytest.mark.parametrize("queries", range(1, 9))
    def test_a_worker_that_dies_at_any_query_leaves_no_heartbeat_without_a_hold(
        self, provider, queries
    ):
        old_queue()
        left = [queries]

        class Died(BaseException):
            pass

        def die(execute, sql, *args):
            left[0] -= 1
            if left[0] == 0:
                raise Died
            return execute(sql, *args)

        with connection.execute_wrapper(die), contextlib.suppress(Died):
            Worker().run_once()
        seen = circuit_breaker.state_of("default").worker_seen_at
        assert (seen > clock.now() - HOUR) is ("default" in held_queue.moments(["default"]))
        Worker().run_once()
        assert provider.requests == [] and held_queue.number_held("default") == 3

    def test_a_claim_goes_by_what_is_stored(self, provider):
        """Also of a worker that read the provider before another one held its queue."""
        messages = rows().filter(using="default")
        due = messages.due(clock.now(), "default")
        due_of_all = rows().due(clock.now())
        old_queue()
        assert due.count() == due_of_all.count() == 3
        held_queue.heartbeat(["default"])
        assert sending.claim(due, clock.now()) == []
        assert sending.claim(due_of_all, clock.now()) == []

    def test_the_look_of_a_sleeping_worker_sorts_no_queue(self, provider):
        """Its order is that of an index, whatever else is selected."""
        with CaptureQueriesContext(connection) as queries:
            Worker().has_work()
        assert "send_after" in queries[0]["sql"] and "ORDER BY 1" not in queries[0]["sql"]

    def test_asleep_it_costs_one_query_while_messages_are_held(
        self, provider, django_assert_num_queries
    ):
        old_queue()
        worker = Worker()
        worker.run_once()
        with django_assert_num_queries(1):
            worker.run_once()


class TestTasks:
    def test_it_sends_nothing_of_what_is_held(self, provider):
        messages = old_queue()
        Worker().run_once()
        [new] = queue(1)
        done = Worker().send_these(message.pk for message in (*messages, new))
        assert done == {"sent": 1} and sent_texts() == ["text 0"]

    def test_the_first_process_after_a_dump_may_be_a_task(self, provider):
        messages = old_queue()
        assert not +Worker().send_these(message.pk for message in messages)
        assert provider.requests == [] and held_queue.number_held("default") == 3

    def test_it_holds_what_was_queued_before_the_dump_and_became_due_since(self, provider):
        [message] = queue(1)
        last_seen(7 * HOUR)
        SmsMessage.objects.update(created_at=clock.now() - 8 * HOUR)
        assert not +Worker().send_these([message.pk])
        assert provider.requests == []

    def test_after_a_quiet_night_the_first_message_leaves(self, provider):
        """Where tasks alone send: no worker is seen while there is nothing to send."""
        last_seen(9 * HOUR)
        [message] = queue(1)
        assert Worker().send_these([message.pk]) == {"sent": 1}
        ProviderState.objects.all().delete()
        [message] = queue(1)
        assert Worker().send_these([message.pk]) == {"sent": 1}

    def test_without_any_heartbeat_a_message_that_waited_too_long_is_held(self, provider):
        [message] = queue(1)
        waited([message], 7 * HOUR)
        assert not +Worker().send_these([message.pk])
        assert held_queue.number_held("default") == 1

    def hold_by_a_task(self, ago):
        """Return messages that a task found and held so long ago."""
        messages = old_queue()
        assert not +Worker().send_these(message.pk for message in messages)
        waited(messages, ago + 7 * HOUR)
        ProviderState.objects.update(
            worker_seen_at=clock.now() - ago, held_before=clock.now() - ago
        )
        return messages

    def test_a_hold_that_waits_for_long_causes_no_other_one(self, provider):
        """Where tasks alone send, and no person has decided."""
        held = self.hold_by_a_task(7 * HOUR)
        moments = held_queue.moments(["default"])
        for _ in range(2):
            [new] = queue(1)
            assert Worker().send_these([new.pk, *(one.pk for one in held)]) == {"sent": 1}
        assert held_queue.moments(["default"]) == moments
        assert held_queue.number_held("default") == 3 and statuses() == {"queued": 3, "sent": 2}

    @pytest.mark.parametrize("use_tz", [True, False])
    def test_what_waited_too_long_since_the_hold_causes_the_next_one(
        self, provider, settings, use_tz
    ):
        settings.USE_TZ = use_tz
        self.hold_by_a_task(8 * HOUR)
        [lost] = queue(1)  # its task was
        waited([lost], 7 * HOUR)
        assert not +Worker().send_these([lost.pk])
        assert held_queue.number_held("default") == 4 and provider.requests == []

    def test_with_never_it_costs_nothing(self, provider, settings, django_assert_num_queries):
        settings.SMSKA_HOLD_AFTER = None
        with django_assert_num_queries(0):
            held_queue.hold_old(["default"])

    def test_the_task_leaves_it_in_the_queue(self, provider, settings):
        settings.SMSKA_TASKS = None
        messages = old_queue()
        keys = [message.pk for message in messages]
        assert tasks.send_messages.func(keys) == {}
        assert statuses() == {"queued": 3}
        held_queue.release("default")
        assert tasks.send_messages.func(keys) == {"sent": 3}


class TestRelease:
    def test_what_is_released_is_sent(self, provider):
        old_queue()
        Worker().run_once()
        assert held_queue.release("default") == 3
        assert held_queue.number_held("default") == 0
        assert Worker().run_once()["sent"] == 3
        assert held_queue.release("default") == 0

    def test_a_later_hold_is_not_released_by_an_older_page(self, provider):
        old_queue()
        Worker().run_once()
        moment = held_queue.moments(["default"])["default"]
        last_seen(7 * HOUR)
        Worker().run_once()
        assert held_queue.release("default", moment) == 0
        assert held_queue.number_held("default") == 3

    def test_the_command_releases_and_ends(self, provider):
        old_queue()
        Worker().run_once()
        out = StringIO()
        call_command("sms_worker", "--release", stdout=out)
        assert out.getvalue() == "default: 3 held messages released.\n"
        assert provider.requests == [] and Worker().run_once()["sent"] == 3

    def test_the_command_releases_what_it_would_hold_itself_and_sends_it(self, provider):
        old_queue()
        out = StringIO()
        call_command("sms_worker", "--release", "--once", stdout=out)
        assert out.getvalue() == "default: 3 held messages released.\nsent 3\n"

    def test_it_releases_one_providers(self, provider, settings):
        settings.SMS_PROVIDERS["second"] = settings.SMS_PROVIDERS["default"]
        old_queue()
        last_seen(7 * HOUR, "second")
        waited([queue_sms(NUMBER, "second", using="second")], 7 * HOUR)
        call_command("sms_worker", "--release", "--using", "second", stdout=StringIO())
        Worker().run_once()
        assert sent_texts() == ["second"]


class TestWhatIsSeen:
    def test_the_worker_says_it_once(self, provider):
        old_queue()
        out = StringIO()
        call_command("sms_worker", "--once", stdout=out)
        assert "default: 3 messages are held" in out.getvalue()
        assert "sms_worker --release" in out.getvalue()
        assert out.getvalue().endswith("Nothing else was due.\n")

    @pytest.mark.slow
    def test_a_daemon_says_once_that_they_are_held_and_once_that_they_are_released(
        self, provider, monkeypatch
    ):
        from django_smska.management.commands import sms_worker

        acts = [lambda: None, lambda: held_queue.release("default"), lambda: None]

        def rest(command, *args):
            if acts:
                acts.pop(0)()
            else:
                command.worker.stop()

        monkeypatch.setattr(sms_worker.Command, "_rest", rest)
        old_queue()
        out = StringIO()
        call_command("sms_worker", stdout=out)
        assert out.getvalue().count("messages are held") == 1
        assert out.getvalue().count("default: what was held is released.") == 1
        assert out.getvalue().count("sent 3") == 1

    def test_sms_status_reports_it_and_exits_1(self, provider):
        old_queue()
        Worker().run_once()
        out = StringIO()
        with pytest.raises(CommandError, match=r"Needs attention: default\."):
            call_command("sms_status", stdout=out)
        assert "3 messages are held" in out.getvalue()
        assert "wait too long" not in out.getvalue()
        out = StringIO()
        with pytest.raises(CommandError):
            call_command("sms_status", "--json", stdout=out)
        facts = json.loads(out.getvalue())["default"]
        moment = held_queue.moments(["default"])["default"]
        assert (facts["held"], facts["due"]) == (3, 0)
        assert facts["held_before"] == moment.isoformat()

    def test_the_list_of_messages_warns(self, db):
        old_queue()
        Worker().run_once()
        [line] = alerts.alerts()
        assert line.warns and line.words.startswith("3 messages of “default” are held until")
        SmsMessage.objects.update(status="cancelled")
        assert alerts.alerts() == []

    def test_above_the_list_not_all_of_many_are_counted(self, db, monkeypatch):
        monkeypatch.setattr(alerts, "MAX_HELD_COUNT", 2)
        old_queue()
        Worker().run_once()
        [line] = alerts.alerts()
        assert line.words.startswith("more than 2 messages of “default” are held")


@pytest.fixture
def one_held(db):
    old_queue()
    Worker().run_once()
    return {
        "alias": "default",
        "before": held_queue.moments(["default"])["default"].isoformat(),
    }


class TestTheAdmin:
    def test_its_page_shows_the_numbers(self, admin_client, one_held):
        page = admin_client.get(HELD_URL).content.decode()
        assert "3 messages, 3 segments" in page and "Release: 3" in page
        changes = admin_client.get("/admin/django_smska/smsmessage/").content.decode()
        assert f'href="{HELD_URL}' in changes

    def test_its_two_buttons_are_not_alike(self, admin_client, one_held):
        page = admin_client.get(HELD_URL).content.decode()
        for button in ('class="default" name="_release"', 'class="smska-danger" name="_cancel"'):
            assert page.count(f'<input type="submit" {button}') == 1

    def test_its_times_end_no_sentence(self, admin_client, one_held):
        page = admin_client.get(HELD_URL).content.decode()
        assert re.search(r"First due: [^<]*\d{4}, [^<]*; held since: [^<]*\d{4}, [^<]*</p>", page)
        assert ".m.." not in page

    @pytest.mark.parametrize(
        ("stopped", "words"),
        [
            (("default",), "Nothing is sent through “default”: stopped since"),
            (("*",), "Nothing is sent through any provider: stopped since"),
            (("default", "*"), "Nothing is sent through any provider: stopped since"),
            (("other",), ""),
        ],
    )
    def test_it_says_that_a_provider_is_stopped(self, admin_client, one_held, stopped, words):
        for alias in stopped:
            kill_switch.stop(alias, by="anna")
        page = admin_client.get(HELD_URL).content.decode()
        assert words in page and bool(words) is ("Nothing is sent" in page)
        assert ("The worker sends them at once" in page) is (not words)
        assert ("The worker sends them when sending is resumed" in page) is bool(words)

    def test_nothing_held_is_said(self, admin_client, db):
        assert "No message is held." in admin_client.get(HELD_URL).content.decode()

    def test_release(self, admin_client, one_held):
        page = admin_client.post(HELD_URL, {**one_held, "_release": "1"}, follow=True)
        assert "3 messages of “default” are released." in page.content.decode()
        assert Worker().run_once()["sent"] == 3
        assert LogEntry.objects.get().get_change_message().endswith("are released.")

    def test_cancel(self, admin_client, one_held):
        queue_sms(NUMBER, "new")
        page = admin_client.post(HELD_URL, {**one_held, "_cancel": "1"}, follow=True)
        assert "3 messages of “default” are cancelled." in page.content.decode()
        assert "No message is held." in page.content.decode()
        assert statuses() == {"cancelled": 3, "queued": 1}
        assert LogEntry.objects.count() == 4  # one for each message
        assert Worker().run_once()["sent"] == 1

    def test_many_are_cancelled_in_batches(self, admin_client, one_held, monkeypatch):
        monkeypatch.setattr(held, "BATCH_MESSAGES", 2)
        admin_client.post(HELD_URL, {**one_held, "_cancel": "1"})
        assert statuses() == {"cancelled": 3}

    @pytest.mark.parametrize("button", ["_release", "_cancel"])
    @pytest.mark.parametrize(
        "change", [{"before": ""}, {"before": "2026-01-01T00:00:00"}, {"alias": "x\0"}]
    )
    def test_a_page_that_is_out_of_date_does_nothing(self, admin_client, one_held, button, change):
        data = {**one_held, **change, button: "1"}
        page = admin_client.post(HELD_URL, data, follow=True).content.decode()
        assert "Nothing was done" in page and "3 messages, 3 segments" in page

    def test_without_a_button_nothing_happens(self, admin_client, one_held):
        admin_client.post(HELD_URL, one_held)
        assert held_queue.number_held("default") == 3

    @pytest.mark.parametrize("button", ["_release", "_cancel"])
    @pytest.mark.parametrize("names", [set(), {"view"}, {"release"}, {"view", "release"}])
    def test_it_needs_its_permission(self, client, one_held, names, button):
        user = User.objects.create_user("anna", is_staff=True)
        codenames = [f"{name}_smsmessage" for name in names]
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        may = names == {"view", "release"}
        assert client.get(HELD_URL).status_code == (200 if may else 403)
        answer = client.post(HELD_URL, {**one_held, button: "1"})
        assert answer.status_code == (302 if may else 403)
        assert (held_queue.number_held("default") == 0) is may

    def test_who_sees_a_part_releases_and_cancels_no_more_than_that(
        self, admin_client, one_held, monkeypatch
    ):
        from django.contrib import admin

        model_admin = admin.site._registry[SmsMessage]
        of_all = model_admin.get_queryset
        monkeypatch.setattr(
            model_admin, "get_queryset", lambda request: of_all(request).filter(body="text 1")
        )
        page = admin_client.post(HELD_URL, {**one_held, "_release": "1"}, follow=True)
        assert "you may not see all that is held" in page.content.decode()
        assert "1 message, 1 segment" in page.content.decode()
        admin_client.post(HELD_URL, {**one_held, "_cancel": "1"})
        assert statuses() == {"cancelled": 1, "queued": 2}
        assert held_queue.number_held("default") == 2


def test_the_page_of_a_message_says_what_it_waits_for(settings, transactional_db):
    message = queue_sms(NUMBER, "text")
    assert "no worker is sending them" in advice(message)
    ProviderState.objects.update_or_create(
        alias="default", defaults={"held_before": message.send_after}
    )
    assert "Held messages…" in advice(message)
    kill_switch.stop("default", by="a test")
    assert "sending is stopped" in advice(message)

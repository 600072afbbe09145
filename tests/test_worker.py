"""A worker's pass."""

import contextlib
import io
import json
import threading
import time
from collections import Counter
from datetime import datetime, timedelta

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection, connections, transaction
from django.utils import timezone

from django_smska import (
    checked_backend,
    circuit_breaker,
    clock,
    dispatcher,
    monotonic,
    opt_out,
    rate_limit,
    sending,
)
from django_smska.backends.base import parse_rate
from django_smska.exceptions import (
    GatewayUnreachable,
    InvalidRecipient,
    SmsOutcomeUnknown,
    TemporaryFailure,
)
from django_smska.models import ProviderState, SmsMessage
from django_smska.receipts import Receipt
from django_smska.sms import outbox, queue_sms, send_sms
from django_smska.testing.gateway import Fault, StandInGateway, closed_port
from django_smska.worker import Worker

from .backends import Passage
from .conftest import options
from .outages import Once, Outage

NUMBER = "+79041764995"


def statuses():
    return Counter(SmsMessage.objects.values_list("status", flat=True))


def queue(number, **kwargs):
    return [queue_sms(NUMBER, f"text {n}", **kwargs) for n in range(number)]


@pytest.mark.slow
def test_all_that_is_due_is_sent_once(provider):
    queue(50)
    done = Worker(concurrency=8).run_once()
    assert done["sent"] == 50 and statuses() == {"sent": 50}
    assert Counter(entry.text for entry in provider.accepted) == {f"text {n}": 1 for n in range(50)}
    ids = {row.body: row.gateway_id for row in SmsMessage.objects.all()}
    assert ids == {entry.text: entry.id for entry in provider.accepted}
    assert Worker().run_once()["sent"] == 0
    assert provider.sends == 50


def test_the_order_is_priority_then_time_then_key(provider):
    now = timezone.now()
    queue_sms(NUMBER, "third")
    queue_sms(NUMBER, "second", send_after=now - timedelta(minutes=1))
    queue_sms(NUMBER, "fourth", send_after=SmsMessage.objects.get(body="third").send_after)
    queue_sms(NUMBER, "fifth", priority=-1, send_after=now - timedelta(hours=1))
    queue_sms(NUMBER, "first", priority=1)
    Worker(concurrency=1).run_once()
    assert [entry.text for entry in provider.accepted] == [
        "first", "second", "third", "fourth", "fifth",
    ]  # fmt: skip


def test_drafts_later_ones_and_expired_ones_stay(provider):
    SmsMessage.objects.create(to=NUMBER, body="draft")
    queue_sms(NUMBER, "later", send_after=timezone.now() + timedelta(hours=1))
    expired = queue_sms(NUMBER, "expired")
    SmsMessage.objects.filter(pk=expired.pk).update(expires_at=timezone.now())
    assert Worker().run_once()["sent"] == 0
    assert provider.requests == []
    assert statuses() == {"draft": 1, "queued": 1, "failed": 1}


@pytest.mark.slow
def test_each_message_ends_as_its_own_answer_says(provider):
    provider.script(2, Fault("bad_number"))
    provider.script(3, Fault("sent_error"))
    provider.script(4, Fault("reset_after_request", accepted=True))
    provider.script(5, Fault("bad_sender"))
    queue(6)
    done = Worker(concurrency=1).run_once()
    assert statuses() == {"sent": 2, "failed": 2, "queued": 1, "unknown": 1}
    assert done["sent"] == 2 and done["failed"] == 2 and done["unknown"] == 1
    assert len(provider.accepted) == 3


def test_only_the_asked_for_provider_is_worked_for(provider, settings):
    settings.SMS_PROVIDERS["bulk"] = settings.SMS_PROVIDERS["default"]
    queue(1)
    queue_sms(NUMBER, "bulk", using="bulk")
    Worker(using="bulk").run_once()
    assert [entry.text for entry in provider.accepted] == ["bulk"]
    Worker().run_once()
    assert statuses() == {"sent": 2}


def test_one_wrongly_configured_provider_does_not_stop_the_others(provider, settings, caplog):
    settings.SMS_PROVIDERS = {"wrong": {"OPTIONS": {}}, **settings.SMS_PROVIDERS}
    queue_sms(NUMBER, "wrong", using="wrong")
    queue(1)
    assert Worker().run_once()["sent"] == 1
    assert "SMS_PROVIDERS['wrong']: 'api_key'" in caplog.text


def abandoned():
    """Leave a message that a dead worker may have sent, and one that has expired."""
    queue_sms(NUMBER, "lost")
    sending.mark_sending(sending.claim(SmsMessage.objects.all(), timezone.now()))
    late = queue_sms(NUMBER, "late")
    SmsMessage.objects.update(lease_until=timezone.now())
    SmsMessage.objects.filter(pk=late.pk).update(expires_at=timezone.now())


def test_a_pass_counts_what_it_recovers(provider):
    abandoned()
    assert Worker().run_once() == {"unknown": 1, "failed": 1, "reports": 0}
    assert statuses() == {"unknown": 1, "failed": 1}
    assert Worker().run_once() == Counter()


def test_the_command_counts_what_it_recovers(provider, capsys):
    abandoned()
    call_command("sms_worker", "--once", "--json")
    assert json.loads(capsys.readouterr().out) == {"unknown": 1, "failed": 1}


def test_what_goes_back_to_the_queue_counts_once(provider):
    queue_sms(NUMBER, "claimed")
    sending.claim(SmsMessage.objects.all(), timezone.now())
    SmsMessage.objects.update(lease_until=timezone.now())
    assert +Worker().run_once() == {"sent": 1}


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_what_ends_between_claim_and_request_counts(provider, monkeypatch, end):
    """It expires, or its number comes on the do-not-send list, while it is connected for."""
    queue_sms(NUMBER, "text")
    mark = sending.record_and_mark

    def first_end(accepted, going):
        if going and end == "failed":
            SmsMessage.objects.update(expires_at=timezone.now())
        elif going:
            opt_out.opt_out(NUMBER)
        return mark(accepted, going)

    monkeypatch.setattr(sending, "record_and_mark", first_end)
    assert +Worker().run_once() == {end: 1} and statuses() == {end: 1}
    assert provider.sends == 0


@pytest.mark.slow
def test_threads_make_no_query(provider, monkeypatch):
    """SQLite has one writer, and an open connection for each thread is dear on any database."""
    from django.db.backends.utils import CursorWrapper

    threads = set()
    execute = CursorWrapper.execute

    def spy(self, *args, **kwargs):
        threads.add(threading.current_thread())
        return execute(self, *args, **kwargs)

    monkeypatch.setattr(CursorWrapper, "execute", spy)
    queue(10)
    Worker().run_once()
    assert threads == {threading.current_thread()}


@pytest.mark.slow
def test_requests_are_in_flight_together(provider):
    release = threading.Event()
    provider.script_all(Fault("late", until=release))
    provider.script(1, None)
    queue(9)
    together = []

    def watch():
        together.append(provider.wait_for(lambda: provider.sends == 9, timeout=30))
        release.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    Worker(concurrency=8).run_once()
    watcher.join()
    assert together == [True]
    assert statuses() == {"sent": 9}


@pytest.mark.slow
@pytest.mark.parametrize("using", ["limited", "both"])
def test_no_more_are_in_flight_than_the_provider_allows(settings, transactional_db, using):
    """Also where it is a member of a failover."""
    passage = Passage()
    settings.SMSKA_LOCMEM_IN_TESTS = False
    settings.SMS_PROVIDERS = {
        "limited": {"BACKEND": "tests.backends.Limited", "OPTIONS": {"shared": passage}},
        "other": {"BACKEND": "tests.backends.Minimal"},
        "both": {
            "BACKEND": "django_smska.backends.failover.SmsBackend",
            "OPTIONS": {"providers": ["limited", "other"]},
        },
    }
    queue(7, using=using)
    Worker(concurrency=8).run_once()
    assert passage.most == {"sends": 3} and statuses() == {"sent": 7}
    SmsMessage.objects.update(next_status_at=timezone.now())
    Worker(concurrency=8).run_once()
    assert passage.most == {"sends": 3, "queries": 3} and statuses() == {"delivered": 7}


@pytest.mark.parametrize("using", ["slow", "both"])
def test_a_provider_that_wants_more_time_is_not_asked_before(settings, transactional_db, using):
    settings.SMSKA_LOCMEM_IN_TESTS = False
    hostile = "tests.backends.Hostile"
    refusals = {"slow": TemporaryFailure(retry_in=90), "fast": TemporaryFailure()}
    settings.SMS_PROVIDERS = {
        alias: {"BACKEND": hostile, "OPTIONS": {"raises": {"send_message": error}}}
        for alias, error in refusals.items()
    }
    settings.SMS_PROVIDERS["both"] = {
        "BACKEND": "django_smska.backends.failover.SmsBackend",
        "OPTIONS": {"providers": ["slow", "fast"]},
    }
    (one,) = queue(1, using=using)
    before = clock.now()
    Worker().run_once()
    one.refresh_from_db()
    assert one.status == "queued" and one.attempts == 1
    assert one.send_after >= before + timedelta(seconds=90)


@pytest.mark.slow
def test_the_first_goes_alone_until_the_gateway_has_answered(provider):
    """A wrong login must not be tried by all threads at once: that locks accounts."""
    provider.script_all(Fault("wrong_login"))
    queue(40)
    Worker(concurrency=16).run_once()
    assert provider.sends == 1 and statuses() == {"queued": 40}


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("queries", [1, 4, 12])
def test_a_database_that_goes_away_in_the_middle_hangs_nothing(
    provider, monkeypatch, concurrency, queries
):
    """Neither a thread that waits for permission, nor the pass; what was accepted is recorded."""
    monkeypatch.setattr(sending, "MAX_PERSIST_SECONDS", 0)
    monkeypatch.setattr(sending, "MAX_PAUSE_SECONDS", 0.01)
    queue(20)
    one = Worker(concurrency=concurrency)
    outage = Outage(queries, begins=lambda: provider.sends >= 2)
    with connection.execute_wrapper(outage), contextlib.suppress(OperationalError):
        one.run_once()
    assert not outage.left
    assert statuses()["sent"] == len(provider.accepted) >= 2
    one.run_once()  # with a database again, it gives its claims back and goes on, before any lease
    assert statuses() == {"sent": 20} and provider.sends == 20


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_a_connection_that_is_cut_at_any_query_costs_no_lease(provider, after, monkeypatch):
    """Before the database has done the query, or after, so that only its answer is lost."""
    monkeypatch.setattr(sending, "MAX_PERSIST_SECONDS", 0)
    for number in range(1, 40):
        queue(3)
        cut = Cut(number, after)
        one = Worker(concurrency=2)
        with connection.execute_wrapper(cut), contextlib.suppress(OperationalError):
            one.run_once()
        one.run_once()
        found = statuses()  # after ten seconds reports are requested
        assert found["sent"] + found["delivered"] == found.total() == len(provider.accepted)
        if not cut.happened:
            break
    texts = Counter(entry.text for entry in provider.accepted)
    assert texts == dict.fromkeys(["text 0", "text 1", "text 2"], number) and number > 10


class Cut:
    """The connection is cut at this query; the next ones go over a new one."""

    def __init__(self, number, after):
        self.left, self.after, self.happened = number, after, False

    def __call__(self, execute, sql, *args):
        args = (sql, *args)
        self.left -= sql.startswith(("SELECT", "UPDATE", "INSERT"))
        if self.left or self.happened:
            return execute(*args)
        self.happened = True
        if self.after:
            execute(*args)
        raise OperationalError("server closed the connection")


@pytest.mark.slow
def test_a_provider_with_a_long_queue_does_not_hold_up_another(provider, settings, monkeypatch):
    settings.SMS_PROVIDERS["second"] = settings.SMS_PROVIDERS["default"]
    queue(30)
    queue_sms(NUMBER, "second", using="second")
    # Over at once: each slice sends one all the same.
    monkeypatch.setattr(dispatcher, "TIME_SLICE_SECONDS", 0)
    Worker(concurrency=1).run_once()
    assert statuses() == {"sent": 31}
    assert [entry.text for entry in provider.accepted].index("second") == 1


@pytest.mark.skipif(connection.vendor == "sqlite", reason="it has one lock for all")
def test_a_task_waits_for_what_others_have_locked(provider, monkeypatch):
    """No other task comes for these messages, and MariaDB locks more rows than are claimed."""
    stored = queue(3)
    locked, let_go = threading.Event(), threading.Event()

    def hold():
        with contextlib.closing(connections["default"]), transaction.atomic():
            list(SmsMessage.objects.select_for_update())
            locked.set()
            let_go.wait(20)

    other = threading.Thread(target=hold)
    other.start()
    locked.wait(20)
    worker = Worker()
    wait = worker.wait_for_next

    def wait_for_next(end):
        let_go.set()
        other.join()
        return wait(end)

    monkeypatch.setattr(worker, "wait_for_next", wait_for_next)
    assert worker.send_these(message.pk for message in stored) == {"sent": 3}


@pytest.mark.slow
def test_stopped_it_finishes_what_is_in_flight_and_gives_back_the_rest(provider):
    release = threading.Event()
    provider.script_all(Fault("late", until=release))
    provider.script(1, None)
    queue(10)
    one = Worker(concurrency=2)

    def stop():
        provider.wait_for(lambda: provider.sends == 3, timeout=30)
        one.stop()
        release.set()

    stopper = threading.Thread(target=stop)
    stopper.start()
    one.run_once()
    stopper.join()
    assert statuses() == {"sent": 3, "queued": 7}
    assert provider.sends == 3
    assert not SmsMessage.objects.filter(status="queued").exclude(token="").exists()


@pytest.mark.slow
def test_a_bug_in_the_loop_leaves_no_thread_waiting_and_no_outcome_lost(provider):
    def bug(done):
        raise RuntimeError("a bug")

    queue(4)
    with pytest.raises(RuntimeError, match="a bug"):
        Worker(concurrency=1, progress=bug).run_once()
    assert statuses()["sent"] == len(provider.accepted) == 1
    assert statuses()["claimed"] == 0
    Worker().run_once()
    assert statuses() == {"sent": 4}


def test_it_works_in_a_test_case_transaction(db):
    queue(3)
    assert outbox == []
    assert Worker().run_once()["sent"] == 3
    assert len(outbox) == 3


def test_asleep_it_costs_one_query(provider, django_assert_num_queries):
    queue(1)
    one = Worker()
    one.run_once()
    with django_assert_num_queries(1):
        one.run_once()
    queue_sms(NUMBER, "later", send_after=timezone.now() + timedelta(hours=1))
    with django_assert_num_queries(1):
        one.run_once()


def test_it_is_seen(provider):
    Worker().run_once()
    assert circuit_breaker.state_of("default").worker_seen_at <= clock.now()


def test_it_is_seen_again_during_a_long_pass(provider, monkeypatch):
    monkeypatch.setattr(dispatcher, "TIME_SLICE_SECONDS", 0)
    monkeypatch.setattr(dispatcher, "LONGEST_SLICE_SECONDS", 0)
    queue(2)
    sends = []

    def forget_the_worker_once(done):
        if not sends:
            ProviderState.objects.update(worker_seen_at=None)
        sends.append(1)

    Worker(concurrency=1, progress=forget_the_worker_once).run_once()
    assert statuses() == {"sent": 2} and len(sends) == 2
    assert circuit_breaker.state_of("default").worker_seen_at <= clock.now()


def test_only_the_given_messages_are_sent(provider):
    first, second, third = queue(3)
    SmsMessage.objects.filter(pk=third.pk).update(send_after=timezone.now() + timedelta(hours=1))
    assert Worker().send_these([first.pk, third.pk, 10**9]) == {"sent": 1}
    assert [entry.text for entry in provider.accepted] == ["text 0"]


def test_a_group_costs_as_many_queries_as_one(provider, django_assert_num_queries):
    """So a full queue costs less than half a query a message."""
    queue(16)
    begin_and_commit = 2 * connection.features.has_select_for_update_skip_locked
    with django_assert_num_queries(4 + begin_and_commit):
        claimed = sending.claim(SmsMessage.objects.order_by("pk"), timezone.now())
    with django_assert_num_queries(1):
        assert len(sending.mark_sending(claimed)) == 16
    results = [sending.Result(one, Receipt(f"id-{one.pk}")) for one in claimed]
    with django_assert_num_queries(1):
        sending.record(results)
    assert statuses() == {"sent": 16}


@pytest.mark.slow
def test_never_more_rows_are_in_doubt_than_its_width(provider):
    """Promise 5, at every moment: what is marked and not yet recorded."""
    most = [0]
    release = threading.Event()
    provider.script_all(Fault("late", until=release))
    provider.script(1, None)  # the first goes alone

    def spy(execute, sql, *args):
        result = execute(sql, *args)
        if sql.startswith("UPDATE"):
            most[0] = max(most[0], SmsMessage.objects.filter(status="sending").count())
        return result

    def let_go():
        provider.wait_for(lambda: provider.sends == 6, timeout=30)
        release.set()

    other = threading.Thread(target=let_go)
    other.start()
    queue(60)
    with connection.execute_wrapper(spy):
        Worker(concurrency=5).run_once()
    other.join()
    assert most[0] == 5 and statuses() == {"sent": 60}


class Clock:
    """Time that passes only where the code of this thread waits: others have their own."""

    def __init__(self, monkeypatch):
        self.time = 1000.0
        self.ahead = 0.0  # of the database's clock
        self.owner = threading.get_ident()
        self.real = {"monotonic": monotonic.now, "sleep": time.sleep}
        monkeypatch.setattr(monotonic, "now", self.monotonic)
        monkeypatch.setattr(time, "sleep", self.sleep)
        monkeypatch.setattr(clock, "now", self.now)

    def monotonic(self):
        return self.time if self.is_mine() else self.real["monotonic"]()

    def sleep(self, seconds):
        if self.is_mine():
            self.time += seconds
        else:
            self.real["sleep"](seconds)

    def is_mine(self):
        return threading.get_ident() == self.owner

    def now(self):
        return timezone.make_aware(datetime(2026, 1, 1)) + timedelta(seconds=self.time + self.ahead)


def sent_at(times, clock, seconds, ask=4):
    """When messages leave through one worker's times in so many seconds."""
    end, left = clock.time + seconds, []
    while clock.time < end:
        left += [clock.time] * times.take(ask)
        clock.sleep(max(times.until_next(), 0.001))
    return left


def most_within(left, seconds):
    return max(sum(at <= one < at + seconds for one in left) for at in left)


class TestPace:
    def at_rate(self, settings, rate):
        settings.SMS_PROVIDERS["default"]["OPTIONS"]["rate"] = rate

    @pytest.fixture
    def clock(self, monkeypatch):
        return Clock(monkeypatch)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("rate", "window", "seconds"),
        [
            ("50/s", 1, 20), ("7/s", 1, 60), ("1/s", 1, 120), ("100/m", 60, 600),
            ("5/m", 60, 1800), ("1000/h", 3600, 4 * 3600), ("1/h", 3600, 100 * 3600),
        ],
    )  # fmt: skip
    def test_nearly_all_of_it_is_used_and_never_more(self, db, clock, rate, window, seconds):
        number = parse_rate(rate)
        left = sent_at(rate_limit.RateSlots("default", number), clock, seconds)
        assert len(left) >= 0.95 * number * seconds
        assert most_within(left, window) <= round(number * window)

    @pytest.mark.slow
    def test_several_workers_share_it(self, db, clock):
        workers = [rate_limit.RateSlots("default", 10) for _ in range(3)]
        end, left = clock.time + 60, []
        while clock.time < end:
            for times in workers:
                left += [clock.time] * times.take(2)
            clock.sleep(max(min(times.until_next() for times in workers), 0.001))
        assert len(left) >= 0.95 * 10 * 60
        assert most_within(left, 1) <= 10

    def test_unused_time_is_lost_so_that_there_is_no_burst(self, db, clock):
        times = rate_limit.RateSlots("default", 10)
        assert times.take(4) == 1
        clock.sleep(60)
        assert times.take(4) == 1

    def test_a_worker_that_stood_still_makes_no_burst(self, db, clock):
        times = rate_limit.RateSlots("default", 10)
        times.take(10)
        clock.sleep(0.45)  # four reserved slots pass
        assert times.take(10) <= 1

    @pytest.mark.parametrize(("rate", "window"), [("20/s", 1), ("5/m", 60), ("100/h", 3600)])
    def test_a_time_used_late_is_not_too_near_to_another_workers(self, db, clock, rate, window):
        number = parse_rate(rate)
        slow = rate_limit.RateSlots("default", number)
        assert slow.take(2) == 1
        clock.sleep(slow.until_next() + 0.99 * rate_limit.LATE_SHARE * window)
        left = [clock.time] * slow.take(1)
        slow.give_back()
        left += sent_at(rate_limit.RateSlots("default", number), clock, 1.1 * window)
        assert most_within(left, window) <= round(number * window)

    @pytest.mark.slow
    def test_a_caller_whose_connection_was_slow_waits_for_another_time(
        self, provider, settings, monkeypatch
    ):
        self.at_rate(settings, "50/s")
        waited, wait = [], rate_limit.wait
        monkeypatch.setattr(rate_limit, "wait", lambda *args: waited.append(wait(*args)) or 0.0)
        send_sms(NUMBER, "text")
        draft = SmsMessage.objects.create(to=NUMBER, body="text")
        draft.send()
        assert len(waited) == 4 and len(provider.accepted) == 2

    def test_what_is_reserved_and_not_used_is_given_back(self, db, clock):
        first, second = rate_limit.RateSlots("default", 10), rate_limit.RateSlots("default", 10)
        assert first.take(5) == 1
        first.give_back()
        clock.sleep(0.11)
        assert second.take(1) == 1

    def test_what_others_reserved_behind_it_is_left_to_them(self, db, clock):
        first, second = rate_limit.RateSlots("default", 10), rate_limit.RateSlots("default", 10)
        first.take(3)
        second.take(3)
        ends = ProviderState.objects.get().next_send_at
        first.give_back()
        assert ProviderState.objects.get().next_send_at == ends

    @pytest.mark.parametrize("rate", [50, 1, 5 / 60])
    def test_a_row_from_a_clock_that_stood_ahead_heals(self, db, clock, rate):
        far = clock.now() + timedelta(hours=1)
        ProviderState.objects.create(alias="default", next_send_at=far)
        times = rate_limit.RateSlots("default", rate)
        assert times.near() and times.take(1) == 1
        rate_limit.wait("default", 50)

    def test_a_caller_who_waits_goes_before_the_queue(self, db, clock):
        """The worker reserves half a second ahead, the caller ten."""
        rate = parse_rate("20/m")
        queue = rate_limit.RateSlots("default", rate)
        assert queue.take(4) == 1
        start = clock.time
        rate_limit.wait("default", rate)
        assert clock.time - start == pytest.approx(3, rel=0.05)
        assert queue.take(4) == 0
        assert queue.until_next() == pytest.approx(3 - rate_limit.RESERVE_AHEAD_SECONDS, rel=0.05)

    def test_of_two_who_reserve_at_once_one_goes_after_the_other(self, db, clock):
        """Another reserves between the look and the UPDATE."""
        others = []

        def race(execute, sql, *args):
            if sql.startswith("UPDATE") and not others:
                others.append(rate_limit.RateSlots("default", 10))
                others[0].take(1)
            return execute(sql, *args)

        ProviderState.objects.create(alias="default")
        mine = rate_limit.RateSlots("default", 10)
        with connection.execute_wrapper(race):
            assert mine.take(1) == 0
        assert mine.until_next() == pytest.approx(0.1, rel=0.5)

    @pytest.mark.slow
    def test_a_worker_sends_all_under_a_rate(self, provider, settings):
        self.at_rate(settings, "50/s")
        queue(10)
        Worker(concurrency=4).run_once()
        assert statuses() == {"sent": 10}
        left = ProviderState.objects.get().next_send_at
        first = SmsMessage.objects.order_by("sending_at").first()
        assert left - first.sending_at >= 9 * rate_limit.step_of(50)

    def test_a_pass_sends_what_may_leave_and_says_when_the_next_may(self, provider, settings):
        self.at_rate(settings, "5/m")
        queue(3)
        one = Worker(concurrency=2)
        one.run_once()
        assert statuses() == {"sent": 1, "queued": 2}
        assert 0 < one.next_in <= 12.5
        assert not SmsMessage.objects.exclude(token="", status="queued").filter(lease_until=None)

    @pytest.mark.slow
    def test_once_from_cron_waits_for_the_next_time(self, provider, settings):
        self.at_rate(settings, "90/m")
        queue(3)
        call_command("sms_worker", once=True, concurrency=1, stdout=io.StringIO())
        assert statuses() == {"sent": 3}

    def test_a_slow_rate_is_left_to_the_next_run(self, provider, settings):
        self.at_rate(settings, "1/h")
        queue(3)
        call_command("sms_worker", once=True, stdout=io.StringIO())
        assert statuses() == {"sent": 1, "queued": 2}
        ProviderState.objects.update(next_send_at=timezone.now())
        call_command("sms_worker", once=True, stdout=io.StringIO())
        assert statuses() == {"sent": 2, "queued": 1}

    def test_who_waits_for_a_page_gets_an_answer_and_is_not_kept_waiting(self, provider, settings):
        self.at_rate(settings, "1/m")
        queue(1)
        Worker().run_once()
        with pytest.raises(TemporaryFailure, match="provider's rate") as refused:
            send_sms(NUMBER, "text")
        assert SmsMessage.objects.get(pk=refused.value.sms).status == "failed"
        assert provider.sends == 1

    def test_a_stored_message_that_the_rate_refuses_stays_as_it_was(self, provider, settings):
        self.at_rate(settings, "1/m")
        draft = SmsMessage.objects.create(to=NUMBER, body="text")
        send_sms(NUMBER, "text")
        with pytest.raises(TemporaryFailure, match="provider's rate"):
            draft.send()
        assert SmsMessage.objects.get(pk=draft.pk).status == "draft"

    @pytest.mark.parametrize(
        ("rate", "number"), [("20/s", 20), ("90/m", 1.5), ("36/h", 0.01), (5, 5), (None, None)]
    )
    def test_a_rate_is_written_so(self, rate, number):
        assert parse_rate(rate) == number

    @pytest.mark.parametrize("rate", ["0/s", "-1", "fast", "5/d", True, "1e3", "٣/s"])
    def test_and_not_so(self, rate):
        with pytest.raises(ValueError, match="written like 20/s"):
            parse_rate(rate)


class TestNearlyDue:
    """What a process stored "for now" whose reading of the clock leads the worker's."""

    @pytest.fixture
    def behind(self, monkeypatch):
        """A function that sets how many seconds the worker's clock, which stands, is behind."""
        moment = clock.now()

        def behind(seconds):
            monkeypatch.setattr(clock, "now", lambda: moment - timedelta(seconds=seconds))

        behind(0)
        return behind

    @pytest.mark.parametrize("by", [0.001, 0.4])
    def test_the_worker_comes_back_for_it(self, provider, behind, by):
        worker = Worker()
        worker.run_once()  # it has been seen: what follows is the look of a sleeping worker
        queue(1)
        behind(by)
        assert not +worker.run_once() and worker.next_in == pytest.approx(by)
        behind(0)
        assert worker.run_once()["sent"] == 1 and worker.next_in is None

    def test_also_beside_one_that_was_due(self, provider, behind):
        queue(1)
        queue(1, send_after=clock.now() + timedelta(seconds=0.3))
        worker = Worker()
        assert worker.run_once()["sent"] == 1 and worker.next_in == pytest.approx(0.3)

    def test_the_worker_of_a_task_waits_for_it(self, provider, behind, monkeypatch):
        """Its task comes once."""
        (message,) = queue(1)
        behind(0.4)
        worker, waited = Worker(), []
        monkeypatch.setattr(worker.stopping, "wait", lambda left: waited.append(left) or behind(0))
        assert worker.send_these([message.pk])["sent"] == 1 and waited == [pytest.approx(0.4)]

    def test_one_for_later_is_left_to_the_interval(self, provider, behind):
        queue(1, send_after=clock.now() + timedelta(minutes=1))
        worker = Worker()
        assert not +worker.run_once() and worker.next_in is None


class TestBrakes:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["wrong_login", "no_credit", "http_404"])
    def test_a_failing_provider_pauses_it_and_leaves_the_queue_whole(self, provider, name):
        """Promise 6."""
        provider.script_all(Fault(name))
        queue(20)
        Worker(concurrency=1).run_once()
        assert provider.sends == 1
        assert statuses() == {"queued": 20}
        assert circuit_breaker.state_of("default").is_paused
        Worker().run_once()
        assert provider.sends == 1 and provider.balances == 0

    def test_a_gateway_that_is_away_leaves_the_queue_whole(self, provider, settings):
        queue(20)
        with closed_port() as port:
            url = f"http://127.0.0.1:{port}/"
            settings.SMS_PROVIDERS = {"default": {"OPTIONS": options(provider) | {"url": url}}}
            Worker(concurrency=1).run_once()
        assert statuses() == {"queued": 20}
        assert circuit_breaker.state_of("default").reason == "unreachable"

    @pytest.mark.slow
    def test_a_gateway_that_hangs_costs_a_few_unknowns_and_not_the_queue(self, provider):
        provider.script_all(Fault("close_without_answer"))
        queue(20)
        Worker(concurrency=1).run_once()
        assert statuses() == {"unknown": 3, "queued": 17}
        assert circuit_breaker.state_of("default").reason == "hanging"

    @pytest.mark.slow
    def test_a_good_answer_in_between_forgives(self, provider, caplog):
        for number in (1, 2, 4, 5):
            provider.script(number, Fault("close_without_answer"))
        queue(7)
        Worker(concurrency=1).run_once()
        assert statuses() == {"unknown": 4, "sent": 3}
        assert not circuit_breaker.state_of("default").is_paused
        assert "answers again" not in caplog.text  # it was never paused

    def paused(self, provider, name, number=2):
        provider.script_all(Fault(name))
        queue(number)
        Worker(concurrency=1).run_once()
        provider.unscript()
        ProviderState.objects.update(probe_at=timezone.now())

    @pytest.mark.slow
    def test_it_opens_again_by_a_balance_query(self, provider):
        self.paused(provider, "no_credit")
        Worker(concurrency=1).run_once()
        assert provider.balances == 1
        # The one that was refused lets others go first: perhaps it was not the provider.
        assert [entry.text for entry in provider.accepted] == ["text 1"]
        SmsMessage.objects.update(send_after=timezone.now())
        Worker(concurrency=1).run_once()
        assert statuses() == {"sent": 2}
        state = circuit_breaker.state_of("default")
        assert (state.is_paused, state.reason, state.failures) == (False, "", 0)

    @pytest.mark.slow
    def test_an_empty_account_stays_paused_and_is_looked_at_less_and_less(self, provider):
        self.paused(provider, "no_credit")
        provider.balance = 0
        waits = []
        for _ in range(3):
            Worker().run_once()
            probe_at = circuit_breaker.state_of("default").probe_at
            waits.append(round((probe_at - timezone.now()).total_seconds() / 300))
            ProviderState.objects.update(probe_at=timezone.now())
        assert waits == [2, 4, 8]  # times five minutes
        assert provider.balances == 3 and provider.sends == 1
        assert statuses() == {"queued": 2}

    @pytest.mark.parametrize("reason", ["unreachable", "hanging"])
    def test_a_wrong_login_that_a_look_finds_is_tried_as_rarely_as_any(self, provider, reason):
        queue(1)
        now = timezone.now()
        ProviderState.objects.create(
            alias="default", reason=reason, failures=3, probes=2, paused_at=now, probe_at=now
        )
        provider.api_password = "changed"
        Worker().run_once()
        state = circuit_breaker.state_of("default")
        assert (state.is_paused, state.reason, state.failures) == (True, "account", 1)
        assert state.probe_at > now + timedelta(seconds=500)
        circuit_breaker.note_error(
            "default", GatewayUnreachable()
        )  # of a request that was in flight
        assert circuit_breaker.state_of("default").reason == "account"
        assert (provider.balances, provider.sends) == (1, 0)

    def test_of_two_workers_one_probes(self, provider):
        """The other one has read the row before the first one's UPDATE."""
        self.paused(provider, "wrong_login")
        answers = []

        def probe():
            with checked_backend.provider("default") as backend:
                answers.append(circuit_breaker.may_send(backend))

        with connection.execute_wrapper(Once(probe, "UPDATE")):
            probe()
        assert sorted(answers) == [False, True] and provider.balances == 1

    def test_a_provider_without_a_balance_opens_by_a_message_when_its_time_has_come(
        self, settings, transactional_db
    ):
        settings.SMSKA_LOCMEM_IN_TESTS = False
        settings.SMS_PROVIDERS = {"default": {"BACKEND": "tests.backends.Minimal"}}
        now = timezone.now()
        ProviderState.objects.create(alias="default", reason="funds", paused_at=now, probe_at=now)
        queue(3)
        Worker().run_once()
        assert statuses() == {"sent": 3}
        assert not circuit_breaker.state_of("default").is_paused

    @pytest.mark.slow
    def test_after_hanging_one_message_goes_alone(self, provider, caplog):
        """A balance query that is answered does not show that a message will be."""
        self.paused(provider, "close_without_answer", 10)
        assert statuses() == {"unknown": 3, "queued": 7}
        provider.script_all(Fault("close_without_answer"), on="send")
        Worker().run_once()
        assert statuses() == {"unknown": 4, "queued": 6}
        state = circuit_breaker.state_of("default")
        assert state.is_paused and state.probe_at > timezone.now()
        provider.unscript()
        ProviderState.objects.update(probe_at=timezone.now())
        Worker().run_once()
        assert statuses() == {"unknown": 4, "sent": 6}
        assert not circuit_breaker.state_of("default").is_paused
        assert caplog.text.count("provider default answers again") == 1

    def test_a_success_that_comes_between_leaves_no_pause_without_a_reason(self, db):
        """Another worker's, right before the UPDATE that pauses."""
        found = []

        def race(execute, sql, *args):
            pauses = sql.startswith("UPDATE") and '"paused_at" = %s' in sql.replace("`", '"')
            if pauses and not found:
                found.append(sql)
                circuit_breaker.note_success("default")
            return execute(sql, *args)

        with connection.execute_wrapper(race):
            circuit_breaker.note_error("default", GatewayUnreachable())
        assert found
        state = circuit_breaker.state_of("default")
        assert (state.is_paused, state.reason) == (False, "")

    def test_a_pause_that_begins_while_failures_are_forgotten_stays(self, db):
        circuit_breaker.note_error("default", SmsOutcomeUnknown())
        pause = Once(lambda: circuit_breaker.note_error("default", GatewayUnreachable()), "UPDATE")
        with connection.execute_wrapper(pause):
            circuit_breaker.note_success("default")
        assert circuit_breaker.state_of("default").is_paused

    @pytest.mark.parametrize("answered", [True, False])
    def test_a_refusal_shows_that_the_gateway_works_if_it_is_the_gateways(self, db, answered):
        """Unlike one that the backend made of its own, without a request."""
        circuit_breaker.note_error("default", SmsOutcomeUnknown())
        circuit_breaker.note_error("default", InvalidRecipient(code="21211", answered=answered))
        assert circuit_breaker.state_of("default").failures == (0 if answered else 1)

    def test_one_provider_paused_does_not_hold_up_another(self, provider, settings):
        with StandInGateway(api_password="other") as second:
            settings.SMS_PROVIDERS["second"] = {"OPTIONS": options(second)}
            queue_sms(NUMBER, "second", using="second")
            queue(3)
            Worker().run_once()
        assert statuses() == {"sent": 3, "queued": 1}


class TestReports:
    @pytest.mark.slow
    def test_reports_are_asked_for_when_they_are_due(self, provider):
        queue(3)
        Worker().run_once()
        assert Worker().run_once()["reports"] == 0 and provider.queries == 0
        SmsMessage.objects.update(next_status_at=timezone.now())
        assert Worker().run_once()["reports"] == 3
        assert statuses() == {"sent": 3}
        SmsMessage.objects.update(next_status_at=timezone.now())
        Worker().run_once()
        assert statuses() == {"delivered": 3}
        assert Worker().run_once()["reports"] == 0 and provider.queries == 6


@pytest.mark.parametrize("allowed", [0, 2])
def test_a_machine_that_allows_few_threads(provider, monkeypatch, allowed):
    """Those that there are do the work; without any the queue waits, and nothing stands still."""
    left, start = [allowed], threading.Thread.start

    def scarce(thread):
        if thread.name.startswith("smska-"):
            left[0] -= 1
            if left[0] < 0:
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    for n in range(6):
        queue_sms(NUMBER, f"text {n}")
    Worker().run_once()
    assert len(provider.accepted) == (6 if allowed else 0)
    assert SmsMessage.objects.filter(status="sent" if allowed else "queued").count() == 6

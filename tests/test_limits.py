"""SMSKA_LIMITS: what may be sent at most, exact over threads, processes and hosts."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import IntegrityError, OperationalError, connection, connections, transaction
from django.http import HttpResponse
from django.test import AsyncClient, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils import timezone as django_timezone
from django.views import View

from django_smska import clock, conf, decorators, limit_rules, limits, sending
from django_smska.backends.base import BaseSmsBackend
from django_smska.decorators import limit_visitors, too_many, visitor, why
from django_smska.exceptions import (
    GatewayBusy,
    InvalidRecipient,
    LimitExceeded,
    NumberNotAllowed,
    RecipientOptedOut,
    SmsOutcomeUnknown,
    TemporaryFailure,
)
from django_smska.limit_rules import Log, Passed, Window, parse
from django_smska.models import ProviderState, SmsLimit, SmsMessage, rows
from django_smska.receipts import Receipt
from django_smska.sms import outbox, queue_sms, send_mass_sms, send_sms
from django_smska.testing import Fault
from django_smska.worker import Worker

from .conftest import options

NUMBER, OTHER = "+79031112233", "+79031112244"
DEFAULTS = limit_rules.DEFAULTS
NO_LIMITS = dict.fromkeys(DEFAULTS)


def only(**values):
    return {**NO_LIMITS, **values}


@pytest.fixture
def noon(monkeypatch):
    """Let it be noon of the next day, so that no day ends while a test runs, and what is stored for
    "now" is no later."""
    noon = limits.day_ends(django_timezone.now()) + timedelta(hours=12)
    monkeypatch.setattr(limits, "clock", SimpleNamespace(now=lambda: noon))
    return noon


@pytest.fixture
def at(monkeypatch):
    """Set the time by a function call: seconds after the first one."""
    start = datetime(2031, 5, 5, 9, 0, tzinfo=timezone.utc)

    def travel(seconds):
        moment = start + timedelta(seconds=seconds)
        monkeypatch.setattr(limits, "clock", SimpleNamespace(now=lambda: moment))
        return moment

    travel(0)
    return travel


@pytest.fixture
def refusing(settings):
    """A backend whose ``answers`` its messages get, where that is an error."""
    settings.SMSKA_LOCMEM_IN_TESTS = False
    settings.SMS_PROVIDERS = {"default": {"BACKEND": f"{__name__}.Refusing"}}
    Refusing.answers = InvalidRecipient(code="-6")
    return Refusing


class Refusing(BaseSmsBackend):
    number = NUMBER
    answers = None
    uses_network = False

    def send_message(self, message):
        if self.answers:
            raise copy.copy(self.answers)
        return Receipt(gateway_id=message.reference)


def passes(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except LimitExceeded as error:
        return error
    return None


# --- the setting ----------------------------------------------------------------------------------


class TestSetting:
    def test_what_is_left_out_has_its_default(self):
        parsed = parse({"number": ["3/10m", "9/2d"]})
        assert parsed.number == (Window(3, 600.0), Window(9, 172_800.0))
        assert parsed.same_text == 300 and parsed.caller == parse({}).caller != ()

    def test_none_turns_off(self):
        assert parse(None) == limit_rules.NONE
        assert parse({"codes": None, "segments": None}).codes == ()

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            (["5/h"], "must be a dict"),
            ({"numbers": "5/h"}, "'numbers' is no limit; known: number"),
            ({"number": "5 per hour"}, "'number' is written like"),
            ({"number": ["0/h"]}, "'number' is written like"),
            ({"caller": ["5/99d"]}, "'caller' is written like"),
            ({"number": 7}, "'number' is written like"),
            ({"same_text": "5m"}, "'same_text' must be seconds"),
            ({"codes": [30, -1]}, "'codes' must be seconds"),
            ({"segments": "many"}, "'segments' must be"),
            ({"segments": {"bulk": True}}, "'segments' must be"),
            ({"prefixes": ["+79"]}, "'prefixes' must be a dict"),
            ({"prefixes": {"default": "79"}}, "'prefixes' are written like"),
        ],
    )
    def test_what_cannot_be_read_is_refused_with_its_part(self, settings, value, words):
        settings.SMSKA_LIMITS = value
        with pytest.raises(ImproperlyConfigured, match=f"SMSKA_LIMITS: .*{words}"):
            conf.limits()

    def test_the_defaults_are_on(self, settings):
        del settings.SMSKA_LIMITS
        assert conf.limits() == parse({}) and conf.limits().number and conf.limits().segments


class TestLog:
    def test_a_window_slides(self):
        log = Log(Passed(at, "", False) for at in (0, 10, 20))
        assert log.window_opens(Window(3, 60)) == 60
        assert log.window_opens(Window(2, 60)) == 70
        assert log.window_opens(Window(4, 60)) == 0

    def test_codes_wait_longer_each_time_and_the_last_wait_stays(self):
        waits, log = (30.0, 60.0, 120.0), Log()
        seen, now = [], 0.0
        for _ in range(5):
            log.add(Passed(now, "", True))
            seen.append(log.code_opens(now, waits) - now)
            now += 600
        assert seen == [30, 60, 120, 120, 120]

    def test_what_is_old_is_forgotten_and_codes_last_a_day(self):
        log = Log([Passed(0, "a", False), Passed(0, "b", True), Passed(900, "c", False)])
        log.forget(1000, 500, 86400)
        assert [one.text for one in log.entries] == ["b", "c"]


# --- numbers, texts, callers ----------------------------------------------------------------------


@pytest.mark.django_db
class TestOneAfterTheOther:
    @pytest.mark.parametrize("function", [send_sms, queue_sms])
    def test_a_number_gets_so_many_in_each_window(self, settings, at, function):
        settings.SMSKA_LIMITS = only(number=["2/h", "3/d"])
        for seconds in (0, 60):
            at(seconds)
            function(NUMBER, f"text {seconds}")
        at(120)
        refused = passes(function, NUMBER, "text")
        assert refused.code == "limit-number" and refused.retry_at == at(0) + timedelta(hours=1)
        assert "+7" not in str(refused) and "9031" not in repr(refused)
        assert passes(function, OTHER, "text") is None
        at(3599)
        assert passes(function, NUMBER, "text")
        at(3600)
        assert passes(function, NUMBER, "text") is None
        at(7300)
        refused = passes(function, NUMBER, "another")
        assert refused.retry_at == at(0) + timedelta(days=1)
        assert SmsMessage.objects.filter(to=NUMBER).count() == 3

    def test_the_same_text_waits_unless_asked_for(self, settings, at):
        settings.SMSKA_LIMITS = only(same_text=240)
        send_sms(NUMBER, "ready")
        at(239)
        refused = passes(send_sms, NUMBER, "ready")
        assert refused.code == "limit-same-text" and refused.retry_at == at(240)
        at(239)
        assert passes(send_sms, NUMBER, "ready!") is passes(send_sms, OTHER, "ready") is None
        assert passes(send_sms, NUMBER, "ready", repeat=True) is None
        at(241)
        assert passes(send_sms, NUMBER, "ready")  # it was sent again at 239
        assert len(outbox) == 4

    def test_a_text_that_was_not_sent_may_go_again(self, settings, at, refusing):
        settings.SMSKA_LIMITS = only(same_text=240)
        for _ in range(2):
            with pytest.raises(InvalidRecipient):
                send_sms(refusing.number, "ready")
        refusing.answers = False
        assert send_sms(refusing.number, "ready").status == "sent"
        assert passes(send_sms, refusing.number, "ready").retry_at == at(240)

    def test_a_text_that_may_have_been_sent_waits(self, settings, at, refusing):
        settings.SMSKA_LIMITS = only(same_text=240)
        refusing.answers = SmsOutcomeUnknown(code="reset")
        with pytest.raises(SmsOutcomeUnknown):
            send_sms(refusing.number, "ready")
        refusing.answers = InvalidRecipient(code="-6")
        with pytest.raises(InvalidRecipient):
            send_sms(refusing.number, "ready", repeat=True)
        assert passes(send_sms, refusing.number, "ready").code == "limit-same-text"

    def test_what_was_not_sent_counts_for_number_caller_and_codes(self, settings, at, refusing):
        settings.SMSKA_LIMITS = only(number="2/h", same_text=240)
        for _ in range(2):
            with pytest.raises(InvalidRecipient):
                send_sms(refusing.number, "ready", caller="a")
        assert passes(send_sms, refusing.number, "ready").code == "limit-number"
        settings.SMSKA_LIMITS = only(codes=[60], same_text=240)
        with pytest.raises(InvalidRecipient):
            send_sms(OTHER, "123", code="123")
        assert passes(send_sms, OTHER, "123", code="123").code == "limit-codes"

    def test_a_text_that_was_cancelled_in_the_queue_may_go_again(self, settings, at):
        settings.SMSKA_LIMITS = only(same_text=240)
        first = queue_sms(NUMBER, "ready", send_after=django_timezone.now() + timedelta(hours=1))
        assert passes(queue_sms, NUMBER, "ready").code == "limit-same-text"
        assert sending.cancel(rows([first.pk])) == 1
        assert passes(queue_sms, NUMBER, "ready") is None

    def test_one_that_was_sent_again_by_a_person_waits(self, settings, at, refusing):
        settings.SMSKA_LIMITS = only(same_text=240)
        with pytest.raises(InvalidRecipient):
            send_sms(refusing.number, "ready")
        refusing.answers = False
        sending.resend(SmsMessage.objects.get())
        assert passes(send_sms, refusing.number, "ready").code == "limit-same-text"

    def test_one_that_was_cancelled_because_it_had_been_sent_waits(self, settings, at):
        settings.SMSKA_LIMITS = only(same_text=240)
        first = queue_sms(NUMBER, "ready", send_after=django_timezone.now() + timedelta(hours=1))
        assert sending.cancel_reported(first)
        assert passes(queue_sms, NUMBER, "ready").code == "limit-same-text"

    def test_the_row_of_a_caller_names_no_message(self, settings, at):
        settings.SMSKA_LIMITS = only(caller="5/h", same_text=240)
        message = send_sms(NUMBER, "ready", caller="a")
        naming = [message.reference in row.log for row in SmsLimit.objects.all()]
        assert sorted(naming) == [False, True]

    def test_a_caller_is_counted_over_all_numbers(self, settings, at):
        settings.SMSKA_LIMITS = only(caller="2/h")
        send_sms(NUMBER, "1", caller="192.0.2.7")
        queue_sms(OTHER, "2", caller="192.0.2.7")
        assert passes(send_sms, "+79031112255", "3", caller="192.0.2.7").code == "limit-caller"
        assert passes(send_sms, "+79031112255", "3", caller="192.0.2.8") is None
        assert passes(send_sms, "+79031112255", "4") is None
        assert not any("192.0.2" in row.key + row.log for row in SmsLimit.objects.all())

    def test_the_time_is_that_of_the_last_limit_to_open(self, settings, at):
        settings.SMSKA_LIMITS = only(number="1/m", caller="1/h", same_text=600)
        send_sms(NUMBER, "text", caller="a")
        refused = passes(send_sms, NUMBER, "text", caller="a")
        assert refused.code == "limit-caller" and refused.retry_at == at(3600)

    def test_who_is_exempt_is_neither_held_nor_counted(self, settings, at):
        settings.SMSKA_LIMITS = only(number="1/h", caller="1/h", same_text=60)
        for _ in range(3):
            send_sms(NUMBER, "text", exempt=True, caller="a")
        assert passes(send_sms, NUMBER, "text", caller="a") is None
        assert passes(send_sms, NUMBER, "other").code == "limit-number"

    def test_a_caller_is_text(self, settings):
        for wrong in (None, 7, object()):
            with pytest.raises(TypeError, match="text that differs"):
                send_sms(NUMBER, "text", caller=wrong)

    def test_a_key_that_is_stored_is_found_and_not_counted(self, settings, at):
        settings.SMSKA_LIMITS = only(number="2/h")
        first = send_sms(NUMBER, "text", idempotency_key="k")
        assert send_sms(NUMBER, "text", idempotency_key="k") == first
        assert passes(send_sms, NUMBER, "more", idempotency_key="l") is None
        assert send_sms(NUMBER, "text", idempotency_key="k") == first
        assert passes(send_sms, NUMBER, "more", idempotency_key="m")

    def test_a_rollback_takes_the_count_back(self, settings, noon):
        settings.SMSKA_LIMITS = only(number="1/h", segments=1)
        with transaction.atomic():
            queue_sms(NUMBER, "text")
            transaction.set_rollback(True)
        assert not SmsLimit.objects.exists()
        assert passes(queue_sms, NUMBER, "text") is None

    def test_a_draft_is_limited_and_stays_one(self, settings):
        settings.SMSKA_LIMITS = only(number="1/h")
        SmsMessage(to=NUMBER, body="1").send()
        draft = SmsMessage(to=NUMBER, body="2")
        assert passes(draft.send).code == "limit-number"
        draft.refresh_from_db()
        assert draft.status == "draft" and len(outbox) == 1
        draft.send(exempt=True)
        assert draft.status == "sent"

    @pytest.mark.parametrize("numbers", [(NUMBER, OTHER), (OTHER, NUMBER)])
    def test_a_draft_is_limited_as_it_is_claimed(self, settings, numbers):
        """It is edited after it was read."""
        settings.SMSKA_LIMITS = only(number="1/h")
        queue_sms(NUMBER, "1")
        read, stored = numbers
        draft = SmsMessage.objects.create(to=read, body="2")

        def edit_first(execute, sql, *args):
            if sql.startswith("UPDATE") and "smsmessage" in sql and not edited:
                edited.append(sql)
                SmsMessage.objects.filter(pk=draft.pk).update(to=stored)
            return execute(sql, *args)

        edited = []
        with connection.execute_wrapper(edit_first):
            refused = passes(draft.send)
        assert edited and (refused is not None) is (stored == NUMBER)
        draft.refresh_from_db()
        assert draft.status == ("draft" if refused else "sent")
        assert (passes(queue_sms, OTHER, "3") is None) is (stored == NUMBER)

    def test_what_is_queued_was_counted_already(self, settings):
        settings.SMSKA_LIMITS = only(number="1/h")
        message = queue_sms(NUMBER, "1")
        message.send()
        assert message.status == "sent"

    def test_what_is_noted_has_the_time_after_the_wait_for_others(self, settings, at):
        """A call may be made long before: a mailing reads its rows for an hour."""
        settings.SMSKA_LIMITS = only(number="1/h")
        admission = limits.Admission()
        at(3600)
        with transaction.atomic():
            admission.require(SmsMessage(to=NUMBER, body="1"))
        at(7199)
        assert passes(queue_sms, NUMBER, "2").retry_at == at(7200)

    def test_a_copy_of_what_was_counted_is_counted(self, settings, noon):
        settings.SMSKA_LIMITS = only(segments=3)
        message = send_sms(NUMBER, "text")
        for _ in range(2):
            message.pk, message._state.adding, message.status = None, True, "draft"
            message.send()
        assert ProviderState.objects.get().segments_used == 3
        message.pk, message._state.adding, message.status = None, True, "draft"
        assert passes(message.send).code == "limit-segments"

    def test_an_error_can_be_pickled(self, settings):
        settings.SMSKA_LIMITS = only(number="1/h")
        queue_sms(NUMBER, "1")
        error = passes(queue_sms, NUMBER, "2")
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.retry_at) == (str(error), error.retry_at)

    def test_a_number_can_be_forgotten(self, settings):
        settings.SMSKA_LIMITS = only(number="1/h")
        queue_sms(NUMBER, "1")
        assert limits.forget(NUMBER) == 1
        assert passes(queue_sms, NUMBER, "2") is None


@pytest.mark.django_db
@pytest.mark.usefixtures("noon")
class TestMassSending:
    def test_each_row_that_is_refused_is_listed(self, settings):
        settings.SMSKA_LIMITS = only(number="2/h", same_text=60)
        rows = [(NUMBER, "a"), (NUMBER, "a"), (OTHER, "a"), (NUMBER, "b"), (NUMBER, "c"), ("x", "")]
        result = send_mass_sms(rows)
        assert (result, result.bad) == (3, 3)
        errors = dict(result.errors)
        assert {index: getattr(errors[index], "code", "") for index in (1, 4)} == {
            1: "limit-same-text",
            4: "limit-number",
        }
        assert isinstance(errors[4], LimitExceeded) and errors[4].retry_at is not None
        assert send_mass_sms(rows[:5], exempt=True) == 5

    def test_the_segments_of_a_day_are_compared_within_the_call(self, settings):
        settings.SMSKA_LIMITS = only(segments=3)
        result = send_mass_sms([(f"+7903111{n:04}", "я" * 71) for n in range(3)])
        assert (result, [error.code for _, error in result.errors]) == (1, ["limit-segments"] * 2)

    @pytest.mark.parametrize("lost", [1, 2])
    def test_a_batch_that_is_rolled_back_uses_up_no_segments(self, settings, lost):
        """Another process has one of its keys: then each row is stored alone."""
        settings.SMSKA_LIMITS = only(segments=2)
        races = iter(range(lost))

        def lose(execute, sql, *args):
            if (
                sql.startswith("INSERT INTO")
                and "smsmessage" in sql
                and next(races, None) is not None
            ):
                raise IntegrityError("UNIQUE constraint failed: idempotency_key")
            return execute(sql, *args)

        rows = [SmsMessage(to=NUMBER, body="text", idempotency_key=f"{n}") for n in range(4)]
        with connection.execute_wrapper(lose):
            assert send_mass_sms(rows) == 2
        stored = SmsMessage.objects.order_by("pk").values_list("idempotency_key", flat=True)
        assert list(stored) == [["0", "1"], ["1", "2"]][lost - 1]

    @pytest.mark.slow
    def test_it_costs_three_queries_a_batch(self, settings):
        rows = [(f"+7903111{n:04}", f"text {n}") for n in range(100)]
        queries = []
        for value in (None, only(number="5/h")):
            settings.SMSKA_LIMITS = value
            with CaptureQueriesContext(connection) as captured:
                send_mass_sms(rows)
            queries.append(len(captured))
        assert queries[1] == queries[0] + 3


# --- prefixes -------------------------------------------------------------------------------------


class TestPrefixes:
    def test_a_backend_says_where_it_sends(self, provider, settings):
        settings.SMSKA_LIMITS = {}
        refused = passes(queue_sms, "+447911123456", "text")
        assert refused.code == "limit-prefixes" and refused.retry_at is None
        assert send_mass_sms([("+447911123456", "text"), (NUMBER, "text")]).bad == 1
        assert not SmsMessage.objects.exclude(to=NUMBER).exists() and provider.sends == 0

    def test_the_setting_goes_first(self, provider, settings):
        settings.SMSKA_LIMITS = only(prefixes={"default": ["+7903", "+7904"]})
        assert passes(queue_sms, "+79051112233", "text").code == "limit-prefixes"
        assert passes(queue_sms, NUMBER, "text") is None

    def test_a_failover_sends_where_any_member_does(self, gateway, settings, transactional_db):
        settings.SMSKA_LIMITS = {}
        settings.SMSKA_LOCMEM_IN_TESTS = False
        failover = "django_smska.backends.failover.SmsBackend"
        dummy = {"BACKEND": "django_smska.backends.dummy.SmsBackend"}
        settings.SMS_PROVIDERS = {
            "default": {"BACKEND": failover, "OPTIONS": {"providers": ["a", "b"]}},
            "a": {"OPTIONS": options(gateway)},
            "b": {"OPTIONS": options(gateway)},
        }
        assert passes(queue_sms, "+447911123456", "text").code == "limit-prefixes"
        settings.SMS_PROVIDERS = {**settings.SMS_PROVIDERS, "b": dummy}
        assert passes(queue_sms, "+447911123456", "text") is None


# --- the segments of a day ------------------------------------------------------------------------


@pytest.mark.usefixtures("noon")
class TestSegments:
    def test_a_day_ends_at_the_sites_midnight(self, settings, db, at):
        settings.SMSKA_LIMITS = only(segments=2)
        settings.TIME_ZONE = "Asia/Vladivostok"  # 19:00 there
        send_sms(NUMBER, "я" * 71)
        refused = passes(send_sms, NUMBER, "text")
        assert refused.code == "limit-segments" and refused.retry_at == at(5 * 3600)
        at(5 * 3600 - 1)
        assert passes(queue_sms, NUMBER, "text")
        at(5 * 3600)
        assert passes(send_sms, NUMBER, "text") is None
        assert ProviderState.objects.get().segments_used == 1

    @pytest.mark.parametrize(("segments", "allowed"), [(3, True), (2, False)])
    def test_who_comes_to_midnight_late_counts_for_the_new_day(
        self, provider, settings, at, segments, allowed
    ):
        """The other process begins the day between the reading of the day and the UPDATE."""
        settings.SMSKA_LIMITS = only(segments=segments)
        settings.TIME_ZONE = "Asia/Vladivostok"
        at(5 * 3600 - 1)
        queue_sms(NUMBER, "yesterday")
        others = []

        def another_is_faster(execute, sql, *args):
            if sql.startswith("UPDATE") and "segments_used" in sql and not others:
                others[:] = [SmsMessage(segments=2)]
                at(5 * 3600)
                assert limits.within_day(others) == others
                at(5 * 3600 - 1)
            return execute(sql, *args)

        with connection.execute_wrapper(another_is_faster):
            assert (passes(queue_sms, NUMBER, "late") is None) is allowed
        state = ProviderState.objects.get()
        tomorrow = limits.today(at(5 * 3600))
        assert (state.segments_on, state.segments_used) == (tomorrow, 2 + allowed)
        counted = SmsMessage.objects.filter(body="late").values_list("counted_on", flat=True)
        assert list(counted) == [tomorrow] * allowed
        late = list(SmsMessage.objects.filter(body="late"))
        for seconds in (0, -1):
            at(5 * 3600 + seconds)
            assert limits.within_day(late) == late
        assert ProviderState.objects.get().segments_used == 2 + allowed

    def test_a_day_that_a_wrong_clock_began_does_not_last(self, settings, db, at):
        settings.SMSKA_LIMITS = only(segments=2)
        ProviderState.objects.create(
            alias="default", segments_on=limits.today() + timedelta(days=2), segments_used=2
        )
        (message,) = limits.within_day([SmsMessage(segments=1)])
        state = ProviderState.objects.get()
        assert state.segments_on == message.counted_on == limits.today()
        assert state.segments_used == 1

    def test_each_provider_has_its_own(self, settings, db):
        settings.SMS_PROVIDERS = {"default": {}, "bulk": {}}
        settings.SMSKA_LIMITS = only(segments={"default": 1, "bulk": None})
        send_sms(NUMBER, "text")
        assert passes(send_sms, NUMBER, "text")
        assert passes(send_sms, NUMBER, "text", using="bulk") is None

    @pytest.mark.slow
    def test_what_is_queued_in_transactions_leaves_as_far_as_the_day_goes(self, provider, settings):
        settings.SMSKA_LIMITS = only(segments=5)
        for _ in range(2):
            send_mass_sms([(f"+7903111{n:04}", "text") for n in range(5)])
        Worker().run_once()
        left = SmsMessage.objects.filter(status="queued")
        assert len(provider.accepted) == 5 and left.count() == 5
        assert set(left.values_list("attempts", "token")) == {(0, "")}
        Worker().run_once()
        assert len(provider.accepted) == 5
        ProviderState.objects.update(segments_on="2001-01-01")
        Worker().run_once()
        assert len(provider.accepted) == 10

    def test_what_counted_where_it_was_stored_leaves_when_the_day_is_full(self, provider, settings):
        settings.SMSKA_LIMITS = only(segments=3)
        for n in range(3):
            queue_sms(NUMBER, f"text {n}")
        assert passes(queue_sms, NUMBER, "text").code == "limit-segments"
        Worker().run_once()
        assert len(provider.accepted) == 3

    @pytest.mark.slow
    def test_they_leave_also_from_behind_what_does_not_fit(self, provider, settings):
        """One segment is left, and those in front need two each."""
        settings.SMSKA_LIMITS = only(segments=61)
        with transaction.atomic():
            for n in range(30):
                queue_sms(f"+7903111{n:04}", "x" * 161, priority=1)
        for n in range(60):
            queue_sms(f"+7903222{n:04}", "text")
        done = Worker(concurrency=2).run_once()
        assert (done["sent"], len(provider.accepted)) == (60, 60)
        assert set(SmsMessage.objects.filter(priority=1).values_list("attempts")) == {(0,)}

    def test_a_person_who_sends_a_queued_one_now_does_not_end_it(self, provider, settings):
        settings.SMSKA_LIMITS = only(segments=1)
        with transaction.atomic():
            first, second = queue_sms(NUMBER, "1"), queue_sms(NUMBER, "2")
        first.send()
        with pytest.raises(SmsOutcomeUnknown) as caught:
            second.send()
        assert caught.value.code == "limit-segments"
        row = rows([second.pk]).get()
        assert (row.status, row.attempts, row.error_code) == ("queued", 0, "")
        ProviderState.objects.update(segments_on="2001-01-01")
        Worker().run_once()
        assert len(provider.accepted) == 2

    def test_sending_again_is_no_way_past_prefixes_and_segments(self, provider, settings):
        first, second = queue_sms(NUMBER, "1"), queue_sms("+79051112233", "2")
        rows().update(status="failed")
        settings.SMSKA_LIMITS = only(segments=1, prefixes={"default": ["+7903"]})
        with pytest.raises(LimitExceeded):
            sending.resend(second)
        assert sending.resend(first).status == "queued"
        assert rows().count() == 3
        Worker().run_once()
        rows([second.pk]).update(to="+79031112255")
        with pytest.raises(LimitExceeded):  # the day is full
            sending.resend(second)
        assert rows().count() == 3

    @pytest.fixture
    def midnight(self, noon):
        return limits.day_ends(noon)

    @pytest.mark.slow
    @pytest.mark.parametrize("open_transaction", [False, True])
    def test_what_is_for_a_later_day_counts_on_that_day(
        self, provider, settings, midnight, open_transaction
    ):
        settings.SMSKA_LIMITS = only(segments=2)
        with transaction.atomic() if open_transaction else nullcontext():
            for n in range(3):
                queue_sms(NUMBER, f"later {n}", send_after=midnight)
        later = [SmsMessage(to=NUMBER, body="later", send_after=midnight) for _ in range(2)]
        assert send_mass_sms([*later, (NUMBER, "1")]) == 3
        assert passes(queue_sms, NUMBER, "2") is None
        Worker().run_once()
        assert (len(provider.accepted), ProviderState.objects.get().segments_used) == (2, 2)

        SmsMessage.objects.filter(status="queued").update(send_after=clock.now())
        ProviderState.objects.update(segments_on="2001-01-01")
        Worker().run_once()
        assert len(provider.accepted) == 4
        assert SmsMessage.objects.filter(status="queued").count() == 3

    def test_what_is_for_the_end_of_the_day_counts_on_this_day(self, provider, settings, midnight):
        settings.SMSKA_LIMITS = only(segments=1)
        last = midnight - timedelta(seconds=1)
        queue_sms(NUMBER, "late", send_after=last)
        assert passes(queue_sms, NUMBER, "2", send_after=last).retry_at == midnight

    def test_a_draft_for_a_later_day_that_is_sent_now_counts_now(
        self, provider, settings, midnight
    ):
        settings.SMSKA_LIMITS = only(segments=1)
        draft = SmsMessage.objects.create(to=NUMBER, body="later", send_after=midnight)
        queue_sms(NUMBER, "1")
        assert passes(draft.send).code == "limit-segments"
        draft.refresh_from_db()
        assert draft.status == "draft"

    def test_after_a_commit_it_is_counted_again(self, provider, settings):
        settings.SMSKA_LIMITS = only(segments=1)
        with transaction.atomic():
            first, second = send_sms(NUMBER, "1"), send_sms(NUMBER, "2")
        for message in (first, second):
            message.refresh_from_db()
        assert [first.status, second.status] == ["sent", "failed"]
        assert second.error_code == "limit-segments" and len(provider.accepted) == 1

    def test_what_may_wait_stays_queued(self, provider, settings):
        settings.SMSKA_LIMITS = only(segments=1)
        with transaction.atomic():
            send_sms(NUMBER, "1")
            second = send_sms(NUMBER, "2", may_wait=True)
        second.refresh_from_db()
        assert second.status == "queued" and len(provider.accepted) == 1


# --- many at once ---------------------------------------------------------------------------------


def at_once(number, work):
    """Call ``work`` in so many threads that all start together; return what each returned."""
    barrier = threading.Barrier(number)

    def one(n):
        try:
            barrier.wait(20)
            return work(n)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(one, range(number)))


@pytest.mark.usefixtures("noon")
class TestAtOnce:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "limit", [{"number": "3/h"}, {"caller": "3/h"}, {"segments": 3}], ids=lambda one: [*one][0]
    )
    @pytest.mark.parametrize("function", [send_sms, queue_sms])
    def test_so_many_as_are_allowed_are_sent(self, provider, settings, limit, function):
        settings.SMSKA_LIMITS = only(**limit)

        def work(n):
            return [passes(function, NUMBER, f"{n} {i}", caller="a") is None for i in range(2)]

        allowed = sum(map(sum, at_once(8, work)))
        Worker().run_once()
        assert allowed == len(provider.accepted) == SmsMessage.objects.count() == 3

    def test_the_same_text_at_once_is_sent_once(self, provider, settings):
        settings.SMSKA_LIMITS = only(same_text=60)
        answers = at_once(8, lambda n: passes(send_sms, NUMBER, "text"))
        assert answers.count(None) == 1 == len(provider.accepted)

    @pytest.mark.slow
    def test_workers_share_the_segments_of_the_day(self, provider, settings):
        settings.SMSKA_LIMITS = only()
        send_mass_sms([(f"+7903111{n:04}", "text") for n in range(60)])
        settings.SMSKA_LIMITS = only(segments=23)
        at_once(4, lambda n: Worker(concurrency=4).run_once())
        assert len(provider.accepted) == 23
        assert SmsMessage.objects.filter(status="queued").count() == 37

    @pytest.mark.slow
    def test_the_same_text_that_fails_is_tried_by_each(self, provider, settings):
        settings.SMSKA_LIMITS = only(same_text=60)
        for n in (1, 2, 3):
            provider.script(n, Fault("sent_error"))

        def work(n):
            while True:
                with contextlib.suppress(TemporaryFailure, LimitExceeded):
                    return send_sms(NUMBER, "text").pk
                if rows().filter(status="sent").exists():
                    return None

        sent = [pk for pk in at_once(4, work) if pk]
        assert len(sent) == 1 == len(provider.accepted)
        assert rows().filter(status="failed").count() == 3

    @pytest.mark.parametrize("function", [send_sms, queue_sms])
    @pytest.mark.parametrize("statement", ["django_smska_smslimit", "django_smska_smsmessage"])
    def test_a_deadlock_is_run_again_and_counts_once(self, provider, settings, function, statement):
        settings.SMSKA_LIMITS = only(number="2/h", segments=2)
        left = [True]

        def lose_once(execute, sql, *args):
            if sql.startswith("INSERT INTO") and statement in sql and left:
                left.clear()
                raise OperationalError from Exception(1213, "Deadlock found")
            return execute(sql, *args)

        with connection.execute_wrapper(lose_once):
            function(NUMBER, "1")
        assert ProviderState.objects.get().segments_used == 1 == SmsMessage.objects.count()
        assert passes(function, NUMBER, "2") is None
        assert passes(function, NUMBER, "3").code == "limit-number"

    @pytest.mark.skipif(connection.vendor == "sqlite", reason="one process writes at a time")
    def test_an_open_transaction_keeps_only_its_own_number_waiting(self, provider, settings):
        settings.SMSKA_LIMITS = only(number="5/h", segments=100)
        with transaction.atomic():
            queue_sms(NUMBER, "text")
            (done,) = at_once(1, lambda n: passes(queue_sms, OTHER, "text"))
        assert done is None and SmsMessage.objects.count() == 2


# --- what a visitor reads -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "1 second."),
        (0.2, "1 second."),
        (29.001, "30 seconds."),
        (90, "90 seconds."),
        (90.5, "2 minutes."),
        (240, "4 minutes."),
        (241, "5 minutes."),
        (3600, "60 minutes."),
        (5401, "2 hours."),
        (86_400, "24 hours."),
    ],
)
def test_a_visitor_reads_how_long_to_wait(at, monkeypatch, seconds, words):
    """No time of day, which each of Russia's eleven zones would read as another one."""
    monkeypatch.setattr(decorators, "clock", SimpleNamespace(now=lambda: at(0)))
    error = LimitExceeded(retry_at=at(seconds))
    assert why(error) == f"Too many SMS were asked for. Try again in {words}"


@pytest.mark.parametrize(
    ("limit", "asked_after", "words", "wait"),
    [
        ({"codes": [30]}, 0.4, "30 seconds.", 30),
        ({"number": "1/7m"}, 61, "6 minutes.", 360),
        ({"number": "1/3h"}, 1, "3 hours.", 3 * 3600),
    ],
)
def test_what_a_visitor_reads_then_passes(
    at, monkeypatch, settings, db, limit, asked_after, words, wait
):
    settings.SMSKA_LIMITS = only(**limit)
    monkeypatch.setattr(decorators, "clock", SimpleNamespace(now=lambda: limits.clock.now()))
    send_sms(NUMBER, "Code 4711", code="4711")
    at(asked_after)
    refused = passes(send_sms, NUMBER, "Code 4712", code="4712")
    assert why(refused).endswith(f" in {words}")
    seconds = int(too_many(refused)["Retry-After"])
    at(asked_after + seconds - 1.1)
    assert passes(send_sms, NUMBER, "Code 4712", code="4712")
    at(asked_after + seconds)
    assert seconds <= wait and passes(send_sms, NUMBER, "Code 4712", code="4712") is None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValidationError({"to": "nine"}), "No SMS can be sent to this number."),
        (InvalidRecipient(gateway_text="secret"), "No SMS can be sent to this number."),
        (RecipientOptedOut(), "No SMS can be sent to this number."),
        (NumberNotAllowed(), "No SMS can be sent to this number."),
        (GatewayBusy("secret"), "The SMS was not sent. Try again in a few minutes."),
    ],
)
def test_a_visitor_reads_nothing_about_the_provider(error, words):
    assert why(error) == words


# --- views ----------------------------------------------------------------------------------------


@pytest.mark.django_db
class TestViews:
    def request(self, address, user=None):
        request = RequestFactory().post("/", REMOTE_ADDR=address)
        if user is not None:
            request.user = user
        return request

    def test_a_visitor_is_a_user_or_an_address(self, django_user_model):
        user = django_user_model.objects.create(username="anna")
        assert visitor(self.request("192.0.2.7", user)) == f"user {user.pk}"
        assert visitor(self.request("192.0.2.7")) == "address 192.0.2.7"
        one, two = (visitor(self.request(f"2001:db8:1:2::{n}")) for n in (1, 2))
        assert one == two != visitor(self.request("2001:db8:1:3::1"))
        assert visitor(self.request("")) == "address "
        assert visitor(self.request("::ffff:192.0.2.7")) == "address 192.0.2.7"

    def test_each_visitor_is_counted_alone(self, settings):
        settings.SMSKA_LIMITS = only(caller="1/h")

        @limit_visitors
        def view(request, number):
            send_sms(number, "text")
            return HttpResponse("sent")

        assert view(self.request("192.0.2.7"), NUMBER).status_code == 200
        answer = view(self.request("192.0.2.7"), OTHER)
        assert answer.status_code == 429 and 3590 <= int(answer["Retry-After"]) <= 3601
        assert "Try again in" in answer.content.decode()
        assert view(self.request("192.0.2.8"), OTHER).status_code == 200

    def test_a_key_of_the_project(self, settings):
        settings.SMSKA_LIMITS = only(caller="1/h")

        @limit_visitors(key=lambda request: request.META["HTTP_X_SHOP"])
        def view(request):
            send_sms(NUMBER, "text")
            return HttpResponse()

        def answer(shop):
            return view(RequestFactory().post("/", HTTP_X_SHOP=shop)).status_code

        assert [answer("a"), answer("a"), answer("b")] == [200, 429, 200]

    def test_an_async_view(self, settings):
        settings.SMSKA_LIMITS = only(caller="1/h")

        @limit_visitors
        async def view(request):
            return HttpResponse(limits.Admission().caller)

        answer = asyncio.run(view(self.request("192.0.2.7")))
        assert answer.content == b"address 192.0.2.7"
        assert limits.Admission().caller == ""

    @pytest.mark.parametrize("url", ["/function/", "/class/"])
    def test_an_async_view_for_users_with_a_session(self, settings, django_user_model, url):
        """Whose session and user are read from the database when the view first asks for them."""
        settings.SMSKA_LIMITS = only(caller="1/h")
        settings.ROOT_URLCONF = __name__

        def answer(user):
            client = AsyncClient()
            client.force_login(user)
            return async_to_sync(client.post)(url)

        anna, boris = (django_user_model.objects.create(username=one) for one in ("anna", "boris"))
        assert answer(anna).content == f"user {anna.pk}".encode()
        refusal = answer(anna)
        assert refusal.status_code == 429 and 3590 <= int(refusal["Retry-After"]) <= 3601
        assert "Try again in" in refusal.content.decode()
        assert answer(boris).status_code == 200

    def test_the_answer_of_an_async_view_may_query_the_time(self, provider, settings):
        settings.SMSKA_LIMITS = only(caller="1/h")

        @limit_visitors
        async def view(request):
            clock.readings.clear()
            raise LimitExceeded("too many", retry_at=django_timezone.now() + timedelta(hours=1))

        assert async_to_sync(view)(self.request("192.0.2.7")).status_code == 429


async def send(request):
    await sync_to_async(send_sms)(NUMBER, "text")
    return HttpResponse(limits.Admission().caller)


class Sending(View):
    async def post(self, request):
        return await send(request)


urlpatterns = [
    path("function/", limit_visitors(send)),
    path("class/", limit_visitors(Sending.as_view())),
]

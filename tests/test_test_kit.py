"""The test kit of ``django_smska.testing``: assertions, gateway, worker and factory."""

import subprocess
import sys
import unittest
from contextlib import suppress
from datetime import timedelta
from unittest import mock

import pytest
from django.db import connection, transaction
from django.test import SimpleTestCase, TestCase
from django.utils import timezone
from django.utils.translation import gettext_lazy

from django_smska import clock, conf, kill_switch, sending, testing
from django_smska.exceptions import (
    InvalidRecipient,
    SmsNotSent,
    SmsOutcomeUnknown,
    TemporaryFailure,
)
from django_smska.inbound import receive
from django_smska.models import ProviderState, SmsInbound, SmsMessage, rows
from django_smska.receipts import Inbound
from django_smska.signals import sms_sent
from django_smska.sms import outbox, providers, queue_sms, send_sms
from django_smska.states import FINAL, MOVES, NEEDS_TEXT, Status
from django_smska.testing import (
    Fault,
    SmsTestMixin,
    assert_no_sms_sent,
    assert_sms_queued,
    assert_sms_sent,
    make_inbound,
    make_sms,
    run_sms_worker,
    unsent,
    use_stand_in_gateway,
)
from django_smska.testing.factory import PATHS

NUMBER, OTHER = "+79041764995", "+79041764996"


# --- names ----------------------------------------------------------------------------------------


def test_each_public_name_is_there():
    assert all(getattr(testing, name) for name in testing.__all__)
    assert set(testing.__all__) <= set(dir(testing))
    with pytest.raises(AttributeError, match="no attribute 'outbox'"):
        testing.outbox  # noqa: B018


@pytest.mark.slow
def test_the_kit_needs_no_pytest():
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from django_smska import testing; assert 'django' not in sys.modules\n"
        "import django; django.setup()\n"
        "assert all(getattr(testing, name) for name in testing.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# --- assertions -----------------------------------------------------------------------------------


def failure(assertion, **wanted):
    with pytest.raises(AssertionError) as caught:
        assertion(**wanted)
    return str(caught.value)


@pytest.fixture
def sent(db):
    send_sms(NUMBER, "Ваш заказ готов", sender="Shop")
    send_sms(OTHER, "Код 1234", code="1234")


def test_what_was_sent_is_found(sent):
    assert len(assert_sms_sent()) == 2
    for wanted in (
        {"to": "8 904 176-49-95"},
        {"contains": "заказ"},
        {"contains": gettext_lazy("заказ")},
        {"body": "Ваш заказ готов"},
        {"sender": "Shop", "using": "default", "count": 1},
    ):
        [found] = assert_sms_sent(**wanted)
        assert found.to == NUMBER
    assert assert_sms_sent(to="+79990000000", count=0) == []
    assert_no_sms_sent(to=NUMBER, contains="Код")


def test_a_near_miss_comes_first_and_says_what_is_wrong(sent):
    assert failure(assert_sms_sent, to=OTHER, contains="готово") == (
        f"No SMS was sent to {OTHER} with 'готово' in its text. 2 were sent instead:\n"
        f"  to {OTHER} through 'default': 'Код 1234'\n"
        "    Nearly: its text does not contain 'готово'.\n"
        f"  to {NUMBER} through 'default': 'Ваш заказ готов'\n"
        "    it went to another number; its text does not contain 'готово'."
    )


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"body": "Ваш заказ принят"}, "its text differs from character 11 on"),
        ({"body": "Ваш заказ"}, "its text differs from character 10 on"),
        ({"sender": "Bank"}, "its sender is 'Shop'"),
        ({"sender": "Bank"}, "its sender is the provider's own ('')"),
        ({"using": "bulk"}, "it went through 'default'"),
        ({"to": NUMBER, "count": 3}, "1 SMS was sent to +79041764995. 3 were to be."),
    ],
)
def test_each_reason_is_named(sent, wanted, words):
    assert words in failure(assert_sms_sent, **wanted)


def test_nothing_was_to_be_sent(sent):
    words = failure(assert_no_sms_sent)
    assert words.startswith("2 SMS were sent. None was to be.\n") and "Код 1234" in words


def test_a_long_list_is_cut(db):
    for number in range(25):
        send_sms(NUMBER, f"text {number}")
    words = failure(assert_sms_sent, contains="nothing")
    assert words.count("\n  to ") == 20 and words.endswith("\n  … and 5 more")


def test_what_is_queued_is_found_and_named_where_it_should_be_sent(db):
    queue_sms(NUMBER, "text")
    [message] = assert_sms_queued(to=NUMBER, contains="text", count=1)
    assert message.status == Status.QUEUED
    words = failure(assert_sms_sent, to=NUMBER)
    assert words.endswith(
        f"None was sent at all.\n1 was not sent:\n  to {NUMBER} through 'default': 'text'\n"
        "    It is queued: run_sms_worker() sends it."
    )
    run_sms_worker()
    words = failure(assert_sms_queued, to=NUMBER)
    assert "None was queued at all.\n1 was sent:" in words


def test_why_a_queued_one_stays_is_named(db):
    tomorrow = timezone.now() + timedelta(days=1)
    queue_sms(NUMBER, "text", send_after=tomorrow)
    run_sms_worker()
    [row] = SmsMessage.objects.all()
    words = f"It is queued for {row.send_after}: run_sms_worker(until=…) sends it then."
    assert words in failure(assert_sms_sent)
    with mock.patch.object(clock, "now", lambda: row.expires_at):
        assert f"expired at {row.expires_at}" in failure(assert_sms_sent)
    ProviderState.objects.update_or_create(alias="default", defaults={"held_before": tomorrow})
    with mock.patch.object(clock, "now", lambda: tomorrow):
        assert "queued and held, because no worker was seen" in failure(assert_sms_sent)


def test_a_pause_and_a_stop_are_named(sms_gateway):
    sms_gateway.api_password = "other"
    queue_sms(NUMBER, "text")
    assert run_sms_worker() == {"queued": 1}
    words = failure(assert_sms_sent)
    assert "It is queued, and 'default' is paused (account): The gateway" in words
    kill_switch.stop("default", by="a test")
    assert "sending through 'default' is stopped." in failure(assert_sms_sent)


@pytest.mark.slow
def test_a_failed_and_an_unknown_one_are_named_with_their_cause(sms_gateway):
    sms_gateway.script(1, Fault("bad_number"))
    sms_gateway.script(2, Fault("reset_after_request"))
    for text, left in (("first", "failed"), ("second", "unknown")):
        queue_sms(NUMBER, text)
        assert run_sms_worker() == {left: 1}
    for words in (failure(assert_sms_sent, count=3), failure(assert_sms_queued)):
        assert "'first'\n    It has failed (-6): " in words
        assert "'second'\n    Its outcome is unknown (lost-" in words


def test_one_that_waits_for_a_commit_is_named_with_the_way_out(db):
    with use_stand_in_gateway():
        send_sms(NUMBER, "text")
        words = failure(assert_sms_sent)
    assert "2 were" not in words and unsent.COMMIT in words


def roll_back_a_send():
    with suppress(ZeroDivisionError), transaction.atomic():
        send_sms(NUMBER, "text")
        raise ZeroDivisionError
    assert not SmsMessage.objects.exists()


def test_in_memory_a_rollback_leaves_the_message_in_the_outbox(transactional_db):
    roll_back_a_send()
    failure(assert_no_sms_sent)


def test_through_a_gateway_a_rollback_sends_nothing(sms_gateway):
    roll_back_a_send()
    assert_no_sms_sent()
    assert sms_gateway.sends == 0


def test_one_that_a_worker_has_is_named_so(transactional_db):
    make_sms("claimed")
    assert "It is claimed by a worker." in failure(assert_sms_sent)


def test_a_number_that_is_none_is_an_error_of_the_test(db):
    with pytest.raises(ValueError, match="to='8 904' is no phone number: A Russian number has"):
        assert_sms_sent(to="8 904")


class WithoutADatabase(SmsTestMixin, SimpleTestCase):
    def test_it_says_what_it_can(self):
        words = failure(self.assertSMSSent, to=NUMBER)
        assert words == f"No SMS was sent to {NUMBER}. None was sent at all."
        self.assertNoSMSSent()


def test_the_database_need_not_be_allowed():
    assert failure(assert_sms_sent).endswith("None was sent at all.")


class Mixed(SmsTestMixin, TestCase):
    def setUp(self):
        """Without super(), as people write it."""

    def test_it_starts_empty_and_asserts(self):
        self.assertNoSMSSent()
        assert self.sms_outbox is outbox
        send_sms(NUMBER, "text")
        self.assertSMSSent(to=NUMBER, body="text")
        queue_sms(OTHER, "text")
        self.assertSMSQueued(to=OTHER)
        with self.assertRaises(AssertionError):
            self.assertNoSMSSent()

    test_once_more = test_it_starts_empty_and_asserts


def test_the_mixin_empties_what_was_left_before():
    class Case(SmsTestMixin, unittest.TestCase):
        def test_it(self):
            self.assertEqual(self.sms_outbox, [])

    outbox.append("left")
    assert Case("test_it").run().wasSuccessful()


def test_no_frame_of_ours_is_in_a_traceback_of_unittest():
    class Case(SmsTestMixin, unittest.TestCase):
        def test_it(self):
            self.assertSMSSent()

    [(_, trace)] = Case("test_it").run().failures
    assert "assertions.py" not in trace and "cases.py" not in trace


# --- the gateway ----------------------------------------------------------------------------------


def test_the_gateway_gets_what_is_sent(sms_gateway):
    assert assert_no_sms_sent() is None
    send_sms(NUMBER, "text")
    assert sms_gateway.times_accepted("79041764995", "text") == 1
    assert outbox == []
    assert_sms_sent(to=NUMBER, body="text", using="default", sender="Test", count=1)


def test_its_faults_can_be_scripted(sms_gateway):
    sms_gateway.script(1, Fault("reset_after_request"))
    with pytest.raises(SmsOutcomeUnknown):
        send_sms(NUMBER, "text")
    assert sms_gateway.sends == 1


def test_a_fault_by_its_name_alone_is_refused(sms_gateway):
    words = r"A fault is scripted as Fault\('refused'\), not as 'refused'\."
    for script in (
        lambda: sms_gateway.script(1, "refused"),
        lambda: sms_gateway.script_next("refused"),
        lambda: sms_gateway.script_all("refused"),
    ):
        with pytest.raises(TypeError, match=words):
            script()


def test_no_other_alias_reaches_its_provider(db, settings):
    settings.SMS_PROVIDERS = {**settings.SMS_PROVIDERS, "bulk": settings.SMS_PROVIDERS["default"]}
    with use_stand_in_gateway("bulk", balance=7) as gateway:
        assert providers["bulk"].get_balance() == 7
        assert type(providers["default"]).__module__ == "django_smska.backends.locmem"
        assert gateway.balances == 1
    assert type(providers["bulk"]).__module__ == "django_smska.backends.locmem"


def test_the_projects_sender_is_kept_where_it_can_be(db, settings):
    for sender, used in (("MyShop", "MyShop"), ("a name that is too long", "Test"), (3, "Test")):
        settings.SMS_PROVIDERS = {"default": {"OPTIONS": {"sender_id": sender}}}
        with use_stand_in_gateway(options={"deadline": 3}):
            backend = providers["default"]
            assert (backend.sender_id, backend.deadline) == (used, 3)


# --- the worker -----------------------------------------------------------------------------------


def test_the_worker_sends_what_is_due(db):
    queue_sms(NUMBER, "now")
    queue_sms(NUMBER, "tomorrow", send_after=timezone.now() + timedelta(days=1))
    SmsMessage(to=NUMBER, body="draft").save()
    assert run_sms_worker() == {"sent": 1}
    assert [message.body for message in outbox] == ["now"]
    assert run_sms_worker() == {}


def test_the_worker_runs_until_a_time_ahead(db):
    start = timezone.now()
    due, late = start + timedelta(hours=20), start + timedelta(days=3)
    reminder = queue_sms(NUMBER, "reminder", send_after=due)
    never = queue_sms(OTHER, "late", send_after=late)
    assert run_sms_worker(until=due - timedelta(minutes=1)) == {}
    assert run_sms_worker(until=due) == {"sent": 1}
    reminder.refresh_from_db()
    assert due <= reminder.sent_at < due + timedelta(minutes=1)
    assert run_sms_worker(until=due + timedelta(minutes=1)) == {"delivered": 1}
    never.refresh_from_db()
    assert never.status == Status.QUEUED
    assert clock.now() < start + timedelta(hours=1)


def test_what_a_worker_would_have_sent_in_time_does_not_expire(db):
    in_time = timezone.now() + timedelta(hours=1)
    queue_sms(NUMBER, "text", send_after=in_time, expires_at=in_time + timedelta(minutes=5))
    assert run_sms_worker(until=in_time + timedelta(days=2)) == {"delivered": 1}


def test_a_worker_that_runs_on_holds_nothing(db):
    assert run_sms_worker() == {}
    due = timezone.now() + timedelta(days=2)
    queue_sms(NUMBER, "text", send_after=due)
    assert run_sms_worker(until=due) == {"sent": 1}


def test_what_is_queued_on_the_way_does_not_count(transactional_db):
    def queue_another(message, **kwargs):
        queue_sms(OTHER, "tomorrow", send_after=timezone.now() + timedelta(days=1))

    queue_sms(NUMBER, "text")
    sms_sent.connect(queue_another)
    try:
        assert run_sms_worker() == {"sent": 1}
    finally:
        sms_sent.disconnect(queue_another)
    assert_sms_queued(to=OTHER)


def test_what_expired_fails(db):
    make_sms("queued", days_ago=2)
    assert run_sms_worker() == {"failed": 1}


def test_only_one_provider_is_worked_for(db, settings):
    settings.SMS_PROVIDERS = {**settings.SMS_PROVIDERS, "bulk": settings.SMS_PROVIDERS["default"]}
    queue_sms(NUMBER, "text", using="bulk")
    queue_sms(NUMBER, "text")
    assert run_sms_worker(using="bulk") == {"sent": 1}
    assert_sms_sent(using="bulk", count=1)
    with pytest.raises(KeyError):
        run_sms_worker(using="nowhere")


def test_a_message_that_waits_again_is_counted(sms_gateway):
    sms_gateway.api_password = "another"
    queue_sms(NUMBER, "text")
    assert run_sms_worker() == {"queued": 1}


@pytest.mark.parametrize(
    ("until", "words"),
    [
        (lambda: timezone.now() - timedelta(hours=1), "this time is past"),
        (lambda: timezone.now().replace(tzinfo=None), "USE_TZ"),
        (lambda: timezone.now() + timedelta(days=5000), "too far ahead"),
    ],
)
def test_a_time_that_cannot_be_reached_is_refused(db, until, words):
    with pytest.raises(ValueError, match=words):
        run_sms_worker(until=until())


def test_under_a_test_case_the_signals_can_be_had(db, django_capture_on_commit_callbacks):
    seen = []

    def note(message, **kwargs):
        seen.append(message.pk)

    sms_sent.connect(note)
    try:
        message = queue_sms(NUMBER, "text")
        with django_capture_on_commit_callbacks(execute=True):
            run_sms_worker()
    finally:
        sms_sent.disconnect(note)
    assert seen == [message.pk]


# --- the factory ----------------------------------------------------------------------------------


def test_each_status_has_a_path_in_the_table_of_states():
    assert set(PATHS) == set(Status)
    for status, path in PATHS.items():
        assert path[-1] == status
        assert all(new in MOVES[old] for old, new in zip(path, path[1:], strict=False))


@pytest.mark.parametrize("status", Status.values)
@pytest.mark.parametrize("days_ago", [0, 4])
def test_the_times_are_in_order_and_past(db, status, days_ago):
    message = make_sms(status, days_ago=days_ago)
    message.refresh_from_db()
    order = [
        getattr(message, f"{name}_at") for name in ("created", "claimed", "sending", "sent")
    ] + [message.finished_at]
    known = [moment for moment in order if moment is not None]
    assert known == sorted(known) and known[-1] <= timezone.now()
    assert (message.finished_at is None) == (status not in FINAL)
    if days_ago:
        age = timezone.now() - message.created_at
        assert timedelta(days=days_ago) <= age < timedelta(days=days_ago, minutes=5)


#: What the two may have differently: chance, and the moment of the call.
CHANCE = {"id", "reference", "token", "gateway_id", "error_code", "error_text", "to"}


def shape(message):
    """Return the values of a row; of what is chance, or a time, whether there is one."""
    message.refresh_from_db()
    found = {}
    for field in message._meta.concrete_fields:
        value = getattr(message, field.attname)
        hidden = field.name in CHANCE or hasattr(value, "year")
        found[field.name] = bool(value) if hidden else value
    return found


def by_the_engine(status, gateway, **fields):
    """Return a message of this status that the engine has made, and no line of the factory."""
    if status == "draft":
        message = SmsMessage(to=NUMBER, body="Код 1234", **fields)
        message.save()
        return message
    message = queue_sms(NUMBER, "Код 1234", **fields)
    if status == "cancelled":
        assert sending.cancel(rows([message.pk])) == 1
    if status in ("claimed", "sending"):
        [claimed] = sending.claim(rows([message.pk]), clock.now())
        if status == "sending":
            sending.count_for_today([claimed])
            assert sending.mark_sending([claimed])
    if status == "failed":
        gateway.senders = {"None"}
    if status == "unknown":
        gateway.script(1, Fault("reset_after_request"))
    word = {"delivered": "DELIVRD", "rejected": "REJECTD", "expired": "EXPIRED"}.get(status)
    if word or status == "deleted":
        gateway.fate(NUMBER, word or "DELETED", after=0)
    if status == "unconfirmed":
        gateway.fate(NUMBER, "ACCEPTD")
    if status in ("sent", "failed", "unknown"):
        run_sms_worker()
    elif status in ("delivered", "rejected", "expired", "deleted"):
        run_sms_worker(until=clock.now() + timedelta(seconds=20))
    elif status == "unconfirmed":
        run_sms_worker(until=clock.now() + conf.status_window() + timedelta(hours=8))
    message.refresh_from_db()
    return message


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, {"code": "1234"}], ids=["plain", "code"])
@pytest.mark.parametrize("status", Status.values)
def test_a_made_row_is_like_one_of_the_engine(sms_gateway, settings, status, fields):
    settings.SMSKA_LIMITS = {}  # the defaults, which count the segments of a day
    made = make_sms(status, to=OTHER, body="Код 1234", **fields)
    real = by_the_engine(status, sms_gateway, **fields)
    assert real.status == status
    found, expected = shape(made), shape(real)
    if status == "unconfirmed":  # the engine's waits are drawn
        assert abs(found.pop("status_queries") - expected.pop("status_queries")) <= 2
    assert found.pop("counted_on") == expected.pop("counted_on")
    assert found == expected
    assert made.body == real.body
    assert ("1234" in made.body) == (not fields or status in NEEDS_TEXT)


def test_what_was_made_can_be_worked_with(db):
    make_sms("sent", days_ago=1)
    make_sms("sent", days_ago=5)
    make_sms("claimed", days_ago=0.5)
    make_sms("sending", days_ago=0.5)
    ProviderState.objects.create(alias="default", worker_seen_at=clock.now())
    done = run_sms_worker(until=timezone.now() + timedelta(days=1))
    assert done == {"delivered": 3, "unknown": 1}


def test_an_error_is_that_of_the_message(db):
    error = SmsNotSent(code="17", gateway_text="no such thing")
    message = make_sms("failed", error=error)
    assert (message.error_code, message.error_text) == ("17", error.text)
    for status, wrong in (("unknown", InvalidRecipient()), ("delivered", TemporaryFailure())):
        with pytest.raises(ValueError, match=f"a message is failed, not {status}"):
            make_sms(status, error=wrong)


def test_further_fields_are_stored(db, django_user_model):
    user = django_user_model.objects.create(username="anna")
    message = make_sms(sender="Shop", priority=3, idempotency_key="a", created_by=user, price=2)
    message.refresh_from_db()
    assert (message.sender, message.priority, message.idempotency_key) == ("Shop", 3, "a")
    assert message.created_by == user and message.price == 2


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"status": "lost"}, ValueError, "No status 'lost'. There are: draft, queued"),
        ({"status": "unconfirmed", "days_ago": 1}, ValueError, "3.000. days ago at least"),
        ({"sent_at": None}, TypeError, "takes no sent_at"),
    ],
)
def test_what_cannot_be_made_is_refused(db, wrong, error, words):
    with pytest.raises(error, match=words):
        make_sms(**wrong)


def test_it_is_not_sent_before_its_time(db):
    with pytest.raises(ValueError, match="send_after"):
        make_sms("sent", send_after=timezone.now() + timedelta(hours=1))
    queued = make_sms("queued", send_after=timezone.now() + timedelta(hours=1))
    assert run_sms_worker(until=queued.send_after) == {"sent": 1}


def test_made_numbers_belong_to_no_person(db):
    numbers = {make_sms().to for _ in range(3)}
    assert len(numbers) == 3
    assert all(number.startswith("+447700900") and len(number) == 13 for number in numbers)


def test_a_made_reply_is_like_a_real_one(db):
    made = make_inbound("Спасибо", sender="8 904 176-49-95", to="1234", days_ago=2)
    receive("default", [Inbound("79041764995", "1234", "Спасибо", "r-1")])
    real = SmsInbound.objects.exclude(pk=made.pk).get()
    for name in ("using", "sender", "to", "body"):
        assert getattr(made, name) == getattr(real, name)
    assert made.gateway_id and real.gateway_id
    assert timedelta(days=2) <= timezone.now() - made.received_at < timedelta(days=2, minutes=5)


def test_no_query_is_lost_on_a_made_message(db, django_assert_max_num_queries):
    make_sms()
    with django_assert_max_num_queries(3, connection=connection):
        make_sms()

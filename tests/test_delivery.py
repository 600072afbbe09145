"""Delivery reports: asked for, applied, given up."""

from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from django_smska import circuit_breaker, delivery, sending
from django_smska.exceptions import AuthenticationFailed, QueryFailed
from django_smska.models import SmsMessage
from django_smska.sms import queue_sms, send_sms
from django_smska.testing.gateway import Fault

from .outages import Once

NUMBER = "+79041764995"


def stored(message):
    return SmsMessage.objects.get(pk=message.pk)


@pytest.fixture
def sent(provider):
    return send_sms(NUMBER, "text")


def test_a_message_becomes_delivered(sent, provider):
    sent.refresh_status()
    assert (sent.status, sent.gateway_status) == ("sent", "3|ACCEPTD")
    sent.refresh_status()
    row = stored(sent)
    assert (row.status, row.gateway_status) == ("delivered", "4|DELIVRD")
    assert row.finished_at and row.next_status_at is None
    assert sent.status == "delivered"


@pytest.mark.parametrize(
    ("word", "status"),
    [("5|REJECTD", "rejected"), ("6|REJECTD", "rejected"), ("EXPIRED", "expired"),
     ("DELETED", "deleted")],
)  # fmt: skip
def test_every_final_word_has_its_status(sent, provider, word, status):
    provider.fate(NUMBER[1:], word)
    sent.refresh_status()
    sent.refresh_status()
    assert stored(sent).status == status


@pytest.mark.parametrize(
    "name", ["status_unknown_number", "status_unknown_word", "status_contradicts"]
)
def test_unknown_words_are_kept_and_change_nothing(sent, provider, name):
    provider.script_all(Fault(name), on="query")
    sent.refresh_status()
    row = stored(sent)
    assert row.status == "sent" and row.gateway_status


def test_a_final_status_never_goes_back(sent, provider):
    provider.fate(NUMBER[1:], "DELIVRD", "REJECTD", after=0)
    twin = stored(sent)
    sent.refresh_status()
    assert sent.status == "delivered"
    report = delivery.providers["default"].get_status(twin)
    assert report.status == "rejected"
    delivery.apply([(twin, report)])
    assert stored(sent).status == twin.status == "delivered"


@pytest.mark.parametrize("name", ["http_500", "cut_headers", "reset_after_request", "empty_body"])
def test_a_query_that_fails_is_raised_and_changes_nothing(sent, provider, name):
    before = stored(sent).__dict__
    provider.script_all(Fault(name), on="query")
    with pytest.raises(QueryFailed):
        sent.refresh_status()
    after = stored(sent).__dict__
    assert {k: v for k, v in before.items() if k != "_state"} == {
        k: v for k, v in after.items() if k != "_state"
    }


def test_what_cannot_be_asked_about_is_just_read_again(provider):
    message = queue_sms(NUMBER, "text")
    twin = stored(message)
    twin.send()
    SmsMessage.objects.filter(pk=twin.pk).update(gateway_id="")
    message.refresh_status()
    assert message.status == "sent" and provider.queries == 0


def test_it_is_not_asked_inside_a_transaction(sent, provider):
    with (
        transaction.atomic(),
        pytest.raises(transaction.TransactionManagementError, match="outside"),
    ):
        sent.refresh_status()
    assert provider.queries == 0


def test_many_are_asked_and_counted(provider):
    for _ in range(3):
        send_sms(NUMBER, "text")
    queue_sms(NUMBER, "later")
    provider.fate(NUMBER[1:], "DELIVRD", after=0)
    provider.script(2, Fault("http_500"), on="query")
    counts = SmsMessage.objects.all().refresh_status()
    assert counts == {"delivered": 2, "sent": 1, "queued": 1}
    assert SmsMessage.objects.filter(status="queued").refresh_status() == {"queued": 1}


def test_a_wrong_login_ends_the_queries(provider, caplog):
    for _ in range(3):
        send_sms(NUMBER, "text")
    provider.api_password = "changed"
    assert SmsMessage.objects.all().refresh_status() == {"sent": 3}
    assert provider.queries == 1
    with pytest.raises(AuthenticationFailed):
        SmsMessage.objects.first().refresh_status()


def test_a_wrong_login_at_a_query_pauses_the_provider(provider):
    for _ in range(5):
        send_sms(NUMBER, "text")
    provider.api_password = "changed"
    SmsMessage.objects.update(next_status_at=timezone.now())
    for _ in range(2):
        delivery.query_due(limit=2)
    assert provider.queries == 1
    assert circuit_breaker.state_of("default").reason == "account"


class TestDue:
    def age(self, **fields):
        SmsMessage.objects.update(**fields)

    def test_the_intervals_grow(self, sent, provider):
        provider.fate(NUMBER[1:], "ACCEPTD")
        waits = []
        for _ in range(4):
            before = timezone.now()
            self.age(next_status_at=before)
            assert delivery.query_due(limit=10) == 1
            asked_again = stored(sent).next_status_at
            least = (asked_again - timezone.now()).total_seconds()
            waits.append((least, (asked_again - before).total_seconds()))
        for (least, most), about in zip(waits, (30, 90, 270, 810), strict=True):
            assert least < 1.11 * about and most > 0.89 * about

    def test_past_the_window_it_is_unconfirmed(self, sent, provider):
        provider.fate(NUMBER[1:], "ACCEPTD")
        now = timezone.now()
        self.age(next_status_at=now, sent_at=now - timedelta(hours=73))
        delivery.query_due(limit=10)
        row = stored(sent)
        assert row.status == "unconfirmed" and row.finished_at and row.next_status_at is None

    def test_past_the_window_a_failing_gateway_does_not_keep_it_for_ever(self, sent, provider):
        provider.script_all(Fault("http_500"), on="query")
        now = timezone.now()
        self.age(next_status_at=now, sent_at=now - timedelta(hours=73))
        delivery.query_due(limit=10)
        assert stored(sent).status == "unconfirmed"

    def test_an_untrackable_one_is_unconfirmed_at_the_windows_end_unasked(self, provider):
        provider.script(1, Fault("no_id"))
        message = send_sms(NUMBER, "text")
        assert message.gateway_id == ""
        now = timezone.now()
        self.age(next_status_at=now, sent_at=now - timedelta(hours=73))
        delivery.query_due(limit=10)
        assert stored(message).status == "unconfirmed" and provider.queries == 0

    @pytest.mark.parametrize("confirmed", [False, True])
    def test_so_is_one_of_a_backend_that_gives_no_reports(
        self, settings, transactional_db, confirmed
    ):
        settings.SMSKA_LOCMEM_IN_TESTS = False
        settings.SMS_PROVIDERS = {"default": {"BACKEND": "tests.backends.Minimal"}}
        message = send_sms(NUMBER, "text")
        if confirmed:
            self.age(status="unknown", next_status_at=None)
            sending.confirm_sent(message)
        due = stored(message).next_status_at
        assert due > timezone.now() + timedelta(hours=71)
        self.age(next_status_at=timezone.now(), sent_at=timezone.now() - timedelta(hours=73))
        delivery.query_due(limit=10)
        assert stored(message).status == "unconfirmed"

    def test_where_another_worker_has_some_the_rest_is_known(self, provider):
        for _ in range(3):
            send_sms(NUMBER, "text")
        self.age(next_status_at=timezone.now())
        first = SmsMessage.objects.order_by("pk")[0]

        def other():
            later = timezone.now() + timedelta(hours=1)
            SmsMessage.objects.filter(pk=first.pk).update(next_status_at=later)

        with connection.execute_wrapper(Once(other, "UPDATE")):
            due = delivery.take_due(limit=10)
        assert len(due) == 2 and first not in due

    @pytest.mark.slow
    def test_a_pass_costs_few_database_queries(self, provider, django_assert_max_num_queries):
        provider.fate(NUMBER[1:], "DELIVRD", after=0)
        for _ in range(20):
            send_sms(NUMBER, "text")
        self.age(next_status_at=timezone.now())
        with django_assert_max_num_queries(12):
            delivery.query_due(limit=100, width=8)
        assert SmsMessage.objects.filter(status="delivered").count() == 20

    def test_of_two_workers_one_asks(self, sent, provider):
        self.age(next_status_at=timezone.now())
        assert len(delivery.take_due(limit=10)) == 1
        assert delivery.take_due(limit=10) == []

    def test_a_pass_is_bounded(self, provider):
        for _ in range(3):
            send_sms(NUMBER, "text")
        self.age(next_status_at=timezone.now())
        assert delivery.query_due(limit=2) == 2
        assert delivery.query_due(limit=2) == 1

    def test_a_worker_that_is_stopping_asks_no_more(self, sent, provider):
        send_sms(NUMBER, "text")
        self.age(next_status_at=timezone.now())
        stopping = iter([False, True])
        delivery.query_due(limit=10, stopping=lambda: next(stopping))
        assert provider.queries == 1

    def test_a_wrongly_configured_provider_is_not_asked(self, sent, provider, settings, caplog):
        settings.SMS_PROVIDERS = {"default": {"OPTIONS": {}}}
        self.age(next_status_at=timezone.now())
        delivery.query_due(limit=10)
        assert provider.queries == 0
        assert "'api_key' and 'api_password' must not be empty" in caplog.text

    def test_a_provider_that_left_the_settings_is_not_asked(self, sent, provider, settings):
        settings.SMS_PROVIDERS = {"other": settings.SMS_PROVIDERS["default"]}
        self.age(next_status_at=timezone.now())
        delivery.query_due(limit=10)
        assert provider.queries == 0
        sent.refresh_status()
        assert stored(sent).status == "sent"

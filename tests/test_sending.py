"""One message's way out: stored first, claimed, marked, sent once, recorded."""

import logging
import pickle
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, nullcontext, suppress
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.db.utils import DataError, OperationalError
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext_lazy

from django_smska import circuit_breaker, clock, monotonic, opt_out, sending, sms
from django_smska.exceptions import (
    AuthenticationFailed,
    GatewayBusy,
    GatewayUnreachable,
    InsufficientCredits,
    InvalidProvider,
    InvalidRecipient,
    ProviderDoesNotExist,
    ProviderFailed,
    QueryFailed,
    RecipientOptedOut,
    SmsError,
    SmsNotSent,
    SmsOutcomeUnknown,
    TemporaryFailure,
    WrongStatus,
)
from django_smska.models import ProviderState, SmsMessage
from django_smska.providers import providers
from django_smska.receipts import Receipt
from django_smska.signals import sms_failed, sms_sent, sms_status_changed
from django_smska.sms import outbox, queue_sms, send_mass_sms, send_sms
from django_smska.states import Status
from django_smska.testing.gateway import Fault, StandInGateway, answer, closed_port
from django_smska.worker import Worker

from .conftest import options
from .outages import Beside, Outage

NUMBER = "+79041764995"


def stored(pk):
    return SmsMessage.objects.get(pk=pk)


@pytest.fixture
def heard():
    """The signals, as (name, key, old, new)."""
    got = []

    def on_sent(message, **kwargs):
        got.append(("sent", message.pk))

    def on_failed(message, **kwargs):
        got.append(("failed", message.pk))

    def on_change(message, old, new, **kwargs):
        got.append((old, new, message.pk))

    pairs = [(sms_sent, on_sent), (sms_failed, on_failed), (sms_status_changed, on_change)]
    for signal, receiver in pairs:
        signal.connect(receiver)
    yield got
    for signal, receiver in pairs:
        signal.disconnect(receiver)


def test_a_message_is_stored_sent_and_tracked(provider, heard):
    message = send_sms("8 904 176-49-95", "Ваш заказ готов")
    assert message.to == NUMBER
    assert message.status == stored(message.pk).status == "sent"
    (entry,) = provider.accepted
    assert (entry.msisdn, entry.text, entry.sender) == ("79041764995", "Ваш заказ готов", "Test")
    row = stored(message.pk)
    assert row.gateway_id == entry.id
    assert (row.segments, row.encoding, row.attempts) == (1, "UCS-2", 1)
    assert row.created_at <= row.claimed_at <= row.sending_at <= row.sent_at
    assert row.next_status_at > row.sent_at
    assert heard == [("sending", "sent", row.pk), ("sent", row.pk)]


def test_when_the_gateway_reads_the_request_the_row_is_committed_as_sending(provider, settings):
    """Promises 1 and 2, seen from another connection while the request is in flight."""
    seen = []
    with StandInGateway(on_send=lambda *args: seen.append(_seen_by_another_connection())) as one:
        settings.SMS_PROVIDERS = {"default": {"OPTIONS": options(one)}}
        send_sms(NUMBER, "text")
    assert seen == [["sending"]]


def _seen_by_another_connection():
    try:
        return list(SmsMessage.objects.values_list("status", flat=True))
    finally:
        connection.close()  # of the gateway's thread


REFUSALS = [
    ("wrong_login", AuthenticationFailed, "-1"),
    ("sent_error", TemporaryFailure, "-3"),
    ("no_credit", InsufficientCredits, "-5"),
    ("bad_number", InvalidRecipient, "-6"),
    ("http_404", GatewayUnreachable, "http-404"),
]


@pytest.mark.parametrize(("name", "error", "code"), REFUSALS)
def test_a_refusal_is_raised_and_nothing_follows_it(provider, heard, name, error, code):
    """The caller got the error and may send again, so that this row is at its end."""
    provider.script(1, Fault(name))
    with pytest.raises(error) as refused:
        send_sms(NUMBER, "text")
    row = stored(refused.value.sms)
    assert refused.value.alias == "default" and refused.value.code == code
    assert (row.status, row.error_code) == ("failed", code)
    assert row.error_text == refused.value.text and row.finished_at
    assert provider.accepted == []
    assert heard == [("sending", "failed", row.pk), ("failed", row.pk)]


def test_no_connection_is_raised_and_nothing_was_written(provider, settings):
    with closed_port() as port:
        url = f"http://127.0.0.1:{port}/"
        settings.SMS_PROVIDERS = {"default": {"OPTIONS": options(provider) | {"url": url}}}
        with pytest.raises(GatewayUnreachable) as refused:
            send_sms(NUMBER, "text")
    row = stored(refused.value.sms)
    assert (row.status, row.sending_at) == ("failed", None)


@pytest.mark.parametrize("accepted", [True, False])
def test_a_lost_answer_is_unknown_whatever_the_truth(provider, heard, accepted):
    provider.script(1, Fault("reset_after_request", accepted))
    with pytest.raises(SmsOutcomeUnknown) as lost:
        send_sms(NUMBER, "text")
    row = stored(lost.value.sms)
    assert row.status == "unknown"
    assert len(provider.accepted) == accepted
    assert heard == [("sending", "unknown", row.pk)]


BAD_INPUT = [
    ({"to": "no number"}, ValidationError),
    ({"body": ""}, ValidationError),
    ({"body": "  \n"}, ValidationError),
    ({"body": "a\0b"}, ValidationError),
    ({"body": "\ud83d"}, ValidationError),
    ({"body": None}, ValidationError),
    ({"body": "я" * 67 * 256}, ValidationError),
    ({"sender": "x" * 33}, ValidationError),
    ({"sender": "a\nb"}, ValidationError),
    ({"idempotency_key": "x" * 129}, ValidationError),
    ({"expires_at": timezone.now() - timedelta(seconds=1)}, ValidationError),
    ({"using": "unknown"}, ProviderDoesNotExist),
    ({"using": []}, ProviderDoesNotExist),
    ({"expires_at": datetime(2100, 1, 1)}, ValidationError),  # without a time zone
    ({"expires_at": "tomorrow"}, ValidationError),
    ({"expires_at": date(2100, 1, 1)}, ValidationError),
    ({"priority": 1.5}, ValidationError),
    ({"priority": None}, ValidationError),
    ({"priority": 32768}, ValidationError),
    ({"priority": -(10**12)}, ValidationError),
    ({"created_by": 5}, ValidationError),
    ({"created_by": "boss"}, ValidationError),
    ({"body": "я" * 67 * 10 + "!"}, ValidationError),  # 11 segments
]


@pytest.mark.parametrize(("wrong", "error"), BAD_INPUT)
@pytest.mark.parametrize("function", [send_sms, queue_sms])
def test_bad_input_is_refused_before_anything_is_stored(provider, function, wrong, error):
    arguments = {"to": NUMBER, "body": "secret text", **wrong}
    with pytest.raises(error) as refused:
        function(arguments.pop("to"), arguments.pop("body"), **arguments)
    assert not SmsMessage.objects.exists() and provider.requests == []
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("function", [send_sms, queue_sms])
def test_a_user_is_kept_in_whatever_form_a_request_has_one(provider, function):
    user = get_user_model().objects.create_user("boss")
    for given, kept in [
        (user, user),
        (SimpleLazyObject(lambda: user), user),
        (AnonymousUser(), None),
        (SimpleLazyObject(AnonymousUser), None),
        (None, None),
    ]:
        message = function(NUMBER, "text", created_by=given)
        assert stored(message.pk).created_by == kept
    with pytest.raises(ValidationError, match="must be a user .auth.User. or None, not int"):
        SmsMessage(to=NUMBER, body="text").created_by = 5
    assert SmsMessage(to=NUMBER, body="text", created_by=AnonymousUser()).created_by is None


@pytest.mark.parametrize("function", [send_sms, queue_sms])
def test_lazy_texts_are_stored_as_they_read_now(provider, function):
    message = function(NUMBER, gettext_lazy("delivered"), sender=gettext_lazy("sent"))
    assert (type(message.body), type(message.sender)) == (str, str)
    assert (stored(message.pk).body, stored(message.pk).sender) == ("delivered", "sent")


@pytest.mark.slow
def test_lazy_texts_are_typed_as_accepted(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "view.py").write_text(
        "from django.utils.translation import gettext_lazy as _\n"
        "from django_smska.sms import asend_sms, queue_sms, send_sms\n"
        "send_sms('+79041764995', _('text'), sender=_('Shop'))\n"
        "queue_sms('+79041764995', 'text', sender='Shop')\n"
        "send_sms('+79041764995', 5)\n"
        "async def view() -> str:\n"
        "    await asend_sms('+79041764995', 5)\n"
        "    message = await asend_sms('+79041764995', _('text'), sender=_('Shop'))\n"
        "    return message.body\n"
    )
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-incremental",
        str(tmp_path / "view.py"),
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert {*re.findall(r"view\.py:(\d+): error:", run.stdout)} == {"5", "7"}
    assert run.stdout.count("error:") == 2


def test_a_later_time_is_not_for_what_is_sent_now(provider):
    with pytest.raises(TypeError, match=r"Use queue_sms\(…, send_after=…\)"):
        send_sms(NUMBER, "text", send_after=timezone.now())
    assert not SmsMessage.objects.exists()


@pytest.mark.parametrize("priority", [-32767, 32767, True])
def test_a_priority_of_the_range_is_stored_on_every_database(provider, priority):
    message = queue_sms(NUMBER, "text", priority=priority)
    assert stored(message.pk).priority == priority


def test_a_wrong_provider_is_refused_before_anything_is_stored(provider, settings):
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": {}}}
    with pytest.raises(InvalidProvider):
        send_sms(NUMBER, "text")
    assert not SmsMessage.objects.exists()


def test_arguments_after_the_text_are_keyword_only():
    for function in (send_sms, queue_sms):
        with pytest.raises(TypeError):
            function(NUMBER, "text", "sender")


@contextmanager
def blind_once():
    """The first look for a key finds nothing, as where another process inserts right after it."""
    looks = []

    def look(execute, sql, params, many, context):
        if (
            not looks
            and sql.startswith("SELECT")
            and "idempotency_key" in sql.partition("WHERE")[2]
        ):
            looks.append(sql)
            sql = sql.partition("ORDER BY")[0].partition("LIMIT")[0] + " LIMIT 0"
        return execute(sql, params, many, context)

    with connection.execute_wrapper(look):
        yield looks


def keyed(key, body="text", to=NUMBER):
    return SmsMessage(to=to, body=body, idempotency_key=key)


#: What collations of MariaDB, and PostgreSQL's nondeterministic ones, count as one.
LOOKALIKES = [
    ("Key", "kEY"),
    ("заказ-всё", "заказ-все"),
    ("café", "cafe"),
    ("cafe\u0301", "caf\u00e9"),
    ("key", "key "),
    ("straße", "strasse"),
    ("key", "k\u200bey"),
    ("№1", "№\u00ad1"),
    ("a😀", "a🎁"),
]


def test_one_costs_six_queries(provider, django_assert_num_queries):
    """The do-not-send list, the pause or stop, the row, the mark, the outcome and the balance."""
    send_sms(NUMBER, "the first makes the provider's row")
    with django_assert_num_queries(6):
        send_sms(NUMBER, "text")


class TestIdempotencyKey:
    def test_the_same_key_again_returns_the_first_message_and_sends_nothing(self, provider):
        first = send_sms(NUMBER, "text", idempotency_key="order-42")
        again = send_sms("8 904 176-49-95", "text", idempotency_key="order-42", sender="Other")
        queued = queue_sms(NUMBER, "text", idempotency_key="order-42")
        assert first == again == queued
        assert len(provider.accepted) == 1 and SmsMessage.objects.count() == 1

    def test_a_text_with_the_line_ends_of_a_browser_is_the_same_text(self, provider):
        first = queue_sms(NUMBER, "a\r\nb", idempotency_key="k")
        assert queue_sms(NUMBER, "a\nb", idempotency_key="k") == first

    @pytest.mark.parametrize(
        "other", [("+79041764996", "первый"), (NUMBER, "Первый"), (NUMBER, "первый ")]
    )
    @pytest.mark.parametrize("function", [send_sms, queue_sms])
    @pytest.mark.parametrize("looked", [nullcontext, blind_once])
    def test_with_another_number_or_text_it_is_refused(self, provider, function, other, looked):
        """Otherwise the second customer would get nothing, and the caller would hear of success."""
        first = send_sms(NUMBER, "первый", idempotency_key="order-8642")
        with pytest.raises(ValidationError) as refused, looked():
            function(*other, idempotency_key="order-8642")
        (error,) = refused.value.error_dict["idempotency_key"]
        assert error.code == "idempotency_key_reused"
        assert "Use another key" in str(refused.value)
        # Nor does what it came from: the database's words quote the key.
        assert refused.value.__context__ is None
        for secret in ("8642", "первый", "1764995", "4996"):
            assert secret not in str(refused.value)
        assert list(SmsMessage.objects.all()) == [first] and len(provider.accepted) == 1

    def test_a_failed_one_is_returned_and_not_sent_again(self, provider):
        provider.script(1, Fault("bad_number"))
        with pytest.raises(InvalidRecipient):
            send_sms(NUMBER, "text", idempotency_key="k")
        assert send_sms(NUMBER, "text", idempotency_key="k").status == "failed"
        assert provider.sends == 1

    def test_the_loser_of_a_race_returns_the_winners_message(self, provider):
        first = queue_sms(NUMBER, "text", idempotency_key="k")
        with blind_once() as looks:
            assert queue_sms(NUMBER, "text", idempotency_key="k") == first
        assert looks

    def test_it_works_inside_a_transaction(self, provider):
        with transaction.atomic():
            first = queue_sms(NUMBER, "text", idempotency_key="k")
            assert queue_sms(NUMBER, "text", idempotency_key="k") == first

    @pytest.mark.parametrize(("one", "other"), LOOKALIKES)
    def test_keys_that_look_alike_are_two(self, transactional_db, one, other):
        queue_sms(NUMBER, "text", idempotency_key=one)
        queue_sms(NUMBER, "text", idempotency_key=other)
        assert send_mass_sms([keyed(one), keyed(other), keyed(f"{one}!"), keyed(f"{other}!")]) == 2
        assert SmsMessage.objects.count() == 4


class TestIdempotencyKeysOfMany:
    def test_one_that_is_stored_is_not_stored_again(self, provider):
        queue_sms(NUMBER, "a", idempotency_key="a")
        result = send_mass_sms(keyed(key, body=key) for key in ["a", "b", "b", "c"])
        assert (result, result.bad) == (2, 0)
        bodies = SmsMessage.objects.order_by("pk").values_list("body", flat=True)
        assert list(bodies) == ["a", "b", "c"]

    @pytest.mark.parametrize("looked", [nullcontext, blind_once])
    def test_another_number_or_text_is_one_bad_row(self, provider, looked, caplog):
        queue_sms(NUMBER, "text", idempotency_key="stored-17")
        every = [
            keyed("new-17"),
            keyed("stored-17", body="other"),
            keyed("new-17", to="+79041764996"),
            keyed("stored-17"),
            (NUMBER, ""),
            keyed("last-17"),
        ]
        with looked():
            result = send_mass_sms(every)
        assert (result, result.bad) == (2, 3)
        assert [index for index, _ in result.errors] == [1, 2, 4]
        assert result.errors[0][1].error_dict["idempotency_key"][0].code == "idempotency_key_reused"
        assert "-17" not in str(result.errors) + caplog.text
        assert SmsMessage.objects.count() == 3 and every[0].pk and every[5].pk

    @pytest.mark.slow
    def test_the_loser_of_a_race_stores_what_is_left(self, provider):
        """In one batch of many INSERTs, some of which had been done before the conflict."""
        stored = [queue_sms(NUMBER, "text", idempotency_key=f"k{n}") for n in (3, 998)]
        every = [keyed(f"k{n}") for n in range(1000)]
        with blind_once() as looks:
            assert send_mass_sms(every) == 998
        assert looks and SmsMessage.objects.count() == 1000
        assert all(one.pk for n, one in enumerate(every) if n not in (3, 998))
        assert {one.pk for one in stored} <= set(SmsMessage.objects.values_list("pk", flat=True))

    @pytest.mark.slow
    def test_two_at_once_store_each_message_once(self, transactional_db):
        """Each has looked before the other inserts; SQLite has one writer, which waits for none."""
        results, barrier = [], threading.Barrier(2)

        def look_together(execute, sql, params, many, context):
            answer = execute(sql, params, many, context)
            if connection.vendor != "sqlite" and sql.startswith("SELECT") and "IN (" in sql:
                with suppress(threading.BrokenBarrierError):
                    barrier.wait(timeout=20)
            return answer

        def send():
            try:
                with connection.execute_wrapper(look_together):
                    results.append(send_mass_sms(keyed(f"k{n}") for n in range(200)))
            finally:
                connection.close()

        threads = [threading.Thread(target=send) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == [0, 200] and [one.bad for one in results] == [0, 0]
        assert SmsMessage.objects.count() == 200


class TestInsideATransaction:
    def test_it_is_sent_right_after_the_commit(self, provider):
        with transaction.atomic():
            message = send_sms(NUMBER, "text")
            assert message.status == "claimed" and provider.sends == 0
        assert message.status == stored(message.pk).status == "sent"
        assert len(provider.accepted) == 1

    def test_a_rollback_sends_nothing(self, provider):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            send_sms(NUMBER, "text")
            raise ZeroDivisionError
        assert provider.sends == 0 and not SmsMessage.objects.exists()

    def test_a_failure_after_the_commit_is_logged_and_harms_no_view(self, provider, caplog):
        provider.script(1, Fault("no_credit"))
        with transaction.atomic():
            message = send_sms(NUMBER, "secret text")
        assert message.status == stored(message.pk).status == "failed"
        assert f"message {message.pk} has failed (-5)" in caplog.text
        assert "secret" not in caplog.text and "1764995" not in caplog.text

    def test_a_stored_message_waits_for_the_commit_too(self, provider):
        draft = SmsMessage.objects.create(to=NUMBER, body="text")
        with transaction.atomic():
            draft.send()
            assert draft.status == "claimed" and provider.sends == 0
        assert draft.status == "sent"

    def test_autocommit_switched_off_is_refused_before_anything_is_stored(self, provider):
        transaction.set_autocommit(False)
        try:
            with pytest.raises(transaction.TransactionManagementError, match="Autocommit is off"):
                send_sms(NUMBER, "text")
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)
        assert not SmsMessage.objects.exists()

    def test_a_commit_that_is_only_played_sends_nothing_and_fails_with_a_word(self, provider):
        """As TestCase.captureOnCommitCallbacks(execute=True) does."""
        with transaction.atomic():
            with transaction.atomic():
                message = send_sms(NUMBER, "text")
            callbacks, connection.run_on_commit = connection.run_on_commit, []
            for _, callback, _ in callbacks:
                callback()
        row = stored(message.pk)
        assert (row.status, row.error_code) == ("failed", "transaction")
        assert provider.sends == 0

    @pytest.mark.django_db
    def test_a_backend_without_network_acts_at_once(self, db):
        assert connection.in_atomic_block
        message = send_sms(NUMBER, "text")
        assert message.status == "sent"
        assert [one.body for one in outbox] == ["text"]


class TestQueue:
    def test_a_queued_message_never_waits_for_the_network(self, provider):
        message = queue_sms(NUMBER, "text", priority=5, sender="Own")
        assert (message.status, message.attempts, message.priority) == ("queued", 0, 5)
        assert provider.requests == []

    def test_its_expiry_counts_from_when_it_may_be_sent(self, provider, settings):
        settings.SMSKA_EXPIRES_AFTER = 3600
        later = timezone.now() + timedelta(days=3)
        message = queue_sms(NUMBER, "text", send_after=later)
        assert stored(message.pk).expires_at == later + timedelta(hours=1)

    def test_it_can_be_sent_at_once_by_hand(self, provider):
        message = queue_sms(NUMBER, "text", send_after=timezone.now() + timedelta(days=1))
        message.send()
        assert message.status == "sent" and len(provider.accepted) == 1


class TestSendOfAStoredMessage:
    def test_one_that_another_process_has_claimed_is_not_sent_by_its_token(self, provider):
        """The row carries the other's token: its reader must not treat it as its own."""
        queue_sms(NUMBER, "text")
        (claimed,) = sending.claim(SmsMessage.objects.all(), timezone.now())
        for message in (stored(claimed.pk), pickle.loads(pickle.dumps(claimed))):
            with pytest.raises(WrongStatus, match="this one is claimed"):
                message.send()
        assert provider.sends == 0
        assert sending.mark_sending([claimed]) == {sending.claim_of(claimed)}
        assert sending.mark_sending([stored(claimed.pk)]) == set()

    def test_a_copy_of_a_row_has_no_past(self, provider):
        sent = send_sms(NUMBER, "text")
        sent.pk, sent._state.adding = None, True
        with pytest.raises(WrongStatus, match="A new message cannot be sent"):
            sent.save()
        sent.status, sent.idempotency_key = "draft", None
        sent.save()
        row = stored(sent.pk)
        assert (row.gateway_id, row.sent_at) == ("", None)

    def test_a_made_up_key_overwrites_nothing(self, provider):
        sent = send_sms(NUMBER, "text")
        with pytest.raises(IntegrityError), transaction.atomic():
            SmsMessage(pk=sent.pk, to=NUMBER, body="other").save()
        assert stored(sent.pk).status == "sent"

    def test_a_draft_is_sent(self, provider):
        draft = SmsMessage.objects.create(to="8 904 176 49 95", body="text")
        assert draft.to == NUMBER and draft.status == "draft" and draft.expires_at is None
        draft.send()
        assert stored(draft.pk).status == "sent"
        assert stored(draft.pk).expires_at > timezone.now()

    def test_no_worker_is_woken_to_snatch_it(self, provider, monkeypatch):
        rung = []
        monkeypatch.setattr(sending.notify, "notify_workers", lambda: rung.append(1))
        SmsMessage.objects.create(to=NUMBER, body="text").send()
        with transaction.atomic():
            SmsMessage.objects.create(to=NUMBER, body="text").send()
        assert rung == []
        SmsMessage.objects.create(to=NUMBER, body="text")
        sending.enqueue(SmsMessage.objects.all())
        assert rung == [1]

    def test_an_unsaved_message_is_stored_first(self, provider):
        message = SmsMessage(to=NUMBER, body="text")
        message.send()
        assert stored(message.pk).status == "sent"

    @pytest.mark.parametrize(
        "status", [s for s in Status if s not in (Status.DRAFT, Status.QUEUED)]
    )
    def test_any_other_status_is_refused(self, provider, status):
        now = timezone.now()
        message = queue_sms(NUMBER, "text")
        SmsMessage.objects.update(status=status, lease_until=now + timedelta(hours=1))
        with pytest.raises(WrongStatus, match=f"this one is {status}"):
            message.send()
        assert provider.requests == []
        assert stored(message.pk).status == status

    @pytest.mark.parametrize("name", ["no_credit", "wrong_login", "sent_error"])
    @pytest.mark.parametrize("make", [queue_sms, SmsMessage.objects.create])
    def test_whatever_the_reason_no_worker_sends_it_later(self, provider, name, make):
        """The caller got the error, and may send another one in its place."""
        provider.script(1, Fault(name))
        message = make(to=NUMBER, body="text")
        with pytest.raises(SmsNotSent):
            message.send()
        assert stored(message.pk).status == message.status == "failed"
        ProviderState.objects.all().delete()  # whatever it was, it is over
        Worker().run_once()
        assert provider.accepted == []

    def test_an_expired_one_fails_with_a_word(self, provider):
        message = queue_sms(NUMBER, "text")
        SmsMessage.objects.update(expires_at=timezone.now())
        with pytest.raises(SmsNotSent, match="expired") as refused:
            message.send()
        assert refused.value.code == stored(message.pk).error_code == "expired"
        assert stored(message.pk).status == "failed" and provider.requests == []


class TestClaim:
    def test_of_two_claims_one_gets_the_row(self, provider):
        queue_sms(NUMBER, "text")
        now = timezone.now()
        every = SmsMessage.objects.all()
        assert len(sending.claim(every, now)) == 1
        assert sending.claim(every, now) == []

    def test_a_stale_look_claims_nothing(self, provider):
        """Both have read the key; one has claimed it since."""
        message = queue_sms(NUMBER, "text")
        look = SmsMessage.objects.filter(pk=message.pk)
        list(look)
        sending.claim(SmsMessage.objects.all(), timezone.now())
        assert sending.claim(look, timezone.now()) == []

    def test_a_lost_claim_ends_the_attempt_before_the_first_byte(self, provider):
        """Recovered while connecting, as after a long stop of the process."""
        message = queue_sms(NUMBER, "text")

        def steal(one):
            SmsMessage.objects.update(status="queued", token="", lease_until=None)
            return bool(sending.mark_sending([one]))

        (claimed,) = sending.claim(SmsMessage.objects.all(), timezone.now())
        from django_smska.providers import providers

        with providers["default"] as backend:
            assert sending.attempt(backend, claimed, steal) is None
        assert provider.sends == 0 and stored(message.pk).status == "queued"

    def test_an_outlived_lease_cannot_be_marked(self, provider):
        queue_sms(NUMBER, "text")
        (claimed,) = sending.claim(SmsMessage.objects.all(), timezone.now())
        SmsMessage.objects.update(lease_until=timezone.now())
        assert sending.mark_sending([claimed]) == set()
        assert stored(claimed.pk).status == "claimed"

    def test_marking_separates_ours_from_others(self, provider):
        for text in "abc":
            queue_sms(NUMBER, text)
        claimed = sending.claim(SmsMessage.objects.all(), timezone.now())
        SmsMessage.objects.filter(pk=claimed[1].pk).update(token="another")
        assert sending.mark_sending(claimed) == set(map(sending.claim_of, [claimed[0], claimed[2]]))
        assert stored(claimed[1].pk).status == "claimed"

    def test_released_rows_are_queued_again_and_only_the_claimed_ones(self, provider):
        for text in "abc":
            queue_sms(NUMBER, text)
        claimed = sending.claim(SmsMessage.objects.order_by("pk"), timezone.now())
        sending.mark_sending(claimed[:1])
        assert sending.release(claimed) == 2
        statuses = SmsMessage.objects.order_by("pk").values_list("status", flat=True)
        assert list(statuses) == ["sending", "queued", "queued"]

    @pytest.mark.skipif(connection.vendor == "sqlite", reason="one process writes at a time")
    def test_a_row_that_another_transaction_has_locked_is_not_waited_for(self, provider):
        held, free = queue_sms(NUMBER, "held"), queue_sms(NUMBER, "free")
        claimed = []

        def claim():
            try:
                every = SmsMessage.objects.order_by("pk")
                claimed.extend(sending.claim(every, timezone.now()))
            finally:
                connection.close()

        with transaction.atomic():
            SmsMessage.objects.select_for_update().get(pk=held.pk)
            worker = threading.Thread(target=claim)
            worker.start()
            worker.join(timeout=30)
            assert claimed == [free]
        worker.join()

    def test_a_move_that_is_not_in_the_table_is_refused(self, provider):
        with pytest.raises(ValueError, match="not in the table"):
            sending.move(SmsMessage.objects.all(), [Status.UNKNOWN], Status.QUEUED)


class TestNow:
    """What was asked as "now" is sent, failed or unknown; no worker sends it later."""

    @pytest.fixture
    def others(self):
        """What other workers do when the lease of what this process held has ended."""

        def work():
            SmsMessage.objects.exclude(lease_until=None).update(lease_until=timezone.now())
            ProviderState.objects.all().delete()
            Worker().run_once()

        return work

    def test_a_database_that_goes_away_before_the_mark(self, provider, others, monkeypatch):
        monkeypatch.setattr(sending, "MAX_PERSIST_SECONDS", 0)
        with connection.execute_wrapper(Away("UPDATE")), pytest.raises(SmsNotSent) as refused:
            send_sms(NUMBER, "text")
        assert refused.value.code == "database" and provider.sends == 0
        assert stored(refused.value.sms).status == "claimed"
        others()
        row = stored(refused.value.sms)
        assert (row.status, row.error_code) == ("failed", "lease")
        assert provider.sends == 0

    def test_a_commit_whose_answer_is_lost(self, provider, others):
        """The row is stored, and the caller may send another in its place."""
        with (
            connection.execute_wrapper(Away("INSERT INTO", after=True)),
            pytest.raises(SmsNotSent) as refused,
        ):
            send_sms(NUMBER, "text")
        assert refused.value.code == "database"
        others()
        assert SmsMessage.objects.get().status == "failed" and provider.sends == 0

    def test_a_commit_whose_answer_is_lost_of_what_may_wait(self, provider, others):
        """A worker sends the row, so no caller hears that nothing was sent."""
        with (
            connection.execute_wrapper(Away("INSERT INTO", after=True)),
            pytest.raises(SmsOutcomeUnknown, match="may be in the queue") as doubt,
        ):
            send_sms(NUMBER, "text", may_wait=True)
        assert doubt.value.code == "database"
        others()
        assert SmsMessage.objects.get().status == "sent" and len(provider.accepted) == 1

    def test_a_database_that_is_away_before_what_may_wait_is_stored(self, provider):
        with connection.execute_wrapper(Away("")), pytest.raises(SmsNotSent) as refused:
            send_sms(NUMBER, "text", may_wait=True)
        assert refused.value.code == "database" and not SmsMessage.objects.exists()

    @pytest.mark.parametrize("may_wait", [False, True])
    def test_a_database_that_cannot_be_reached(self, provider, monkeypatch, may_wait):
        """Its very first question is whether a transaction is open, which connects."""

        def away():
            raise OperationalError("no route to the server")

        connection.close()
        with monkeypatch.context() as patch, pytest.raises(SmsNotSent) as refused:
            patch.setattr(connection, "connect", away)
            send_sms(NUMBER, "text", may_wait=may_wait)
        assert refused.value.code == "database" and not SmsMessage.objects.exists()

    @pytest.mark.parametrize(("rate", "first"), [(None, 1), ("20/s", 1), ("20/s", 2)])
    def test_a_database_that_goes_away_after_what_may_wait_is_stored(
        self, provider, others, settings, monkeypatch, rate, first
    ):
        """Its claim ends, and then a worker sends it: no error says that it was not sent."""
        settings.SMS_PROVIDERS = {"default": {"OPTIONS": options(provider, rate=rate)}}
        monkeypatch.setattr(sending, "MAX_PERSIST_SECONDS", 0)
        with connection.execute_wrapper(Away("UPDATE", first=first)):
            message = send_sms(NUMBER, "text", may_wait=True)
        assert stored(message.pk).status == "claimed" and provider.sends == 0
        others()
        assert stored(message.pk).status == "sent" and len(provider.accepted) == 1

    @pytest.mark.parametrize(
        ("status", "error"), [("draft", SmsNotSent), ("queued", SmsOutcomeUnknown)]
    )
    def test_a_stored_message_and_a_database_that_is_away(self, provider, others, status, error):
        """A worker sends what was queued before."""
        message = SmsMessage(to=NUMBER, body="text", status=status)
        message.save()
        with connection.execute_wrapper(Away("")), pytest.raises(error) as refused:
            message.send()
        assert (refused.value.code, refused.value.sms) == ("database", message.pk)
        others()
        assert len(provider.accepted) == (status == "queued")

    @pytest.mark.parametrize("paused", [False, True])
    def test_what_is_stored_is_so_though_no_worker_could_be_woken(self, provider, paused):
        """On PostgreSQL, the only one that is asked to wake them."""
        with connection.execute_wrapper(Away("SELECT pg_notify")):
            if paused:
                circuit_breaker.note("default", AuthenticationFailed())
                message = send_sms(NUMBER, "text", may_wait=True)
            else:
                message = queue_sms(NUMBER, "text")
        assert stored(message.pk).status == "queued"

    @pytest.mark.slow
    def test_a_database_that_fails_between_request_and_record(self, provider, sleeps_pass, caplog):
        marked = Away("UPDATE", first=2)  # the mark passes
        with connection.execute_wrapper(marked), pytest.raises(SmsOutcomeUnknown) as lost:
            send_sms(NUMBER, "text")
        assert stored(lost.value.sms).status == "sending" and len(provider.accepted) == 1
        assert "CRITICAL" in caplog.text

    def test_its_process_is_killed_after_the_commit(self, provider, others, monkeypatch):
        """The callback never runs."""
        monkeypatch.setattr(sending, "send_after_commit", lambda *args, **kwargs: None)
        with transaction.atomic():
            message = send_sms(NUMBER, "text")
        others()
        assert stored(message.pk).status == "failed" and provider.sends == 0

    def test_a_transaction_longer_than_the_lease(self, provider):
        with transaction.atomic():
            message = send_sms(NUMBER, "text")
            SmsMessage.objects.update(lease_until=timezone.now() - timedelta(hours=1))
        assert stored(message.pk).status == "sent" and len(provider.accepted) == 1

    def test_a_claim_that_was_given_up_is_not_sent(self, provider, monkeypatch):
        begin = sending.attempt

        def stalled(*args):
            SmsMessage.objects.update(lease_until=timezone.now())
            sending.recover()
            return begin(*args)

        monkeypatch.setattr(sending, "attempt", stalled)
        with pytest.raises(SmsNotSent, match="It was not sent in time") as refused:
            send_sms(NUMBER, "text")
        assert stored(refused.value.sms).status == "failed" and provider.sends == 0
        # What may wait is in the queue again, and no error.
        assert send_sms(NUMBER, "text", may_wait=True).status == "queued" and provider.sends == 0

    @pytest.mark.parametrize("may_wait", [False, True])
    def test_a_process_that_stands_still_after_the_mark(self, provider, monkeypatch, may_wait):
        """Longer than its lease: the row is no longer its own, and a person may send again."""
        mark = sending.mark_sending

        def stalled(messages):
            marked = mark(messages)
            SmsMessage.objects.update(lease_until=timezone.now())
            sending.recover()
            for message in messages:
                message.leave_until = time.monotonic() - 1
            return marked

        monkeypatch.setattr(sending, "mark_sending", stalled)
        with pytest.raises(SmsNotSent) as refused:
            send_sms(NUMBER, "text", may_wait=may_wait)
        row = stored(refused.value.sms)
        assert (refused.value.code, row.status, provider.sends) == ("lease", "unknown", 0)
        assert row.error_text.startswith(sending.LATE + sending.LEASE_PASSED)

    def test_the_permission_ends_with_the_lease(self, provider, settings, monkeypatch):
        settings.SMSKA_LEASE = 20
        queue_sms(NUMBER, "text")
        (claimed,) = sending.claim(SmsMessage.objects.all(), timezone.now())
        moment = clock.now()
        monkeypatch.setattr(clock, "now", lambda: moment)
        monkeypatch.setattr(monotonic, "now", lambda: 1000.0)
        sending.mark_sending([claimed])
        assert claimed.leave_until == 1020

    @pytest.mark.slow
    def test_the_answer_to_a_refusals_record_is_lost(
        self, provider, others, sleeps_pass, monkeypatch
    ):
        """The row is in the queue: who reads "not sent" would send the text a second time."""
        monkeypatch.setattr(sending, "MAX_PERSIST_SECONDS", 0)
        provider.script_all(Fault("sent_error"), on="send")
        back = Outage(1, after=True, only="UPDATE", begins=lambda: provider.sends)
        stays_away = Outage(10**6, begins=lambda: back.begun and not back.left)
        with (
            connection.execute_wrapper(stays_away),
            connection.execute_wrapper(back),
            pytest.raises(SmsOutcomeUnknown, match="may be in the queue") as lost,
        ):
            send_sms(NUMBER, "text", may_wait=True)
        assert lost.value.code == "database" and stored(lost.value.sms).status == "queued"

    @pytest.mark.parametrize("wait", ["commit", "connection"])
    def test_what_expires_before_its_request_is_not_sent(self, provider, monkeypatch, wait):
        def expire(*args):
            SmsMessage.objects.update(expires_at=timezone.now())

        soon = timezone.now() + timedelta(hours=1)
        if wait == "commit":
            with transaction.atomic():
                message = send_sms(NUMBER, "text", expires_at=soon)
                expire()
            row = stored(message.pk)
        else:
            begin = sending.attempt
            monkeypatch.setattr(sending, "attempt", lambda *args: (expire(), begin(*args))[1])
            with pytest.raises(SmsNotSent, match="It expired") as refused:
                send_sms(NUMBER, "text", expires_at=soon)
            row = stored(refused.value.sms)
        assert (row.status, row.error_code, provider.sends) == ("failed", "expired", 0)
        assert row.finished_at

    def test_a_claim_that_ends_with_the_transaction_is_not_sent(self, provider, caplog):
        with transaction.atomic():
            transaction.on_commit(lambda: SmsMessage.objects.update(status="failed", token=""))
            message = send_sms(NUMBER, "text")
        assert stored(message.pk).status == "failed" and provider.sends == 0
        assert "was not sent after the commit: " in caplog.text

    @pytest.mark.parametrize(("may_wait", "status"), [(False, "failed"), (True, "queued")])
    def test_a_pause_that_begins_before_the_commit(self, provider, may_wait, status):
        with transaction.atomic():
            transaction.on_commit(lambda: circuit_breaker.note("default", AuthenticationFailed()))
            message = send_sms(NUMBER, "text", may_wait=may_wait)
        assert message.status == stored(message.pk).status == status
        assert stored(message.pk).error_code == "paused" and provider.requests == []

    def test_a_text_of_an_error_that_cannot_be_stored_changes_no_outcome(self, provider):
        def refuse(execute, sql, *args):
            if sql.startswith("UPDATE") and "error_text" in sql and "error_code" in sql:
                raise DataError("invalid byte sequence")
            return execute(sql, *args)

        provider.script_all(Fault("bad_number"))
        with connection.execute_wrapper(refuse), pytest.raises(InvalidRecipient) as refused:
            send_sms(NUMBER, "text")
        assert stored(refused.value.sms).status == "failed"

    @pytest.mark.parametrize("name", ["no_credit", "wrong_login", "sent_error"])
    def test_in_a_transaction_a_refusal_is_its_end(self, provider, others, name):
        provider.script(1, Fault(name))
        with transaction.atomic():
            message = send_sms(NUMBER, "text")
        assert stored(message.pk).status == "failed"
        others()
        assert provider.accepted == []

    @pytest.mark.parametrize("name", ["no_credit", "sent_error"])
    def test_what_may_wait_waits_in_the_queue_and_raises_nothing(self, provider, others, name):
        provider.script_all(Fault(name))
        message = send_sms(NUMBER, "text", may_wait=True)
        with transaction.atomic():
            second = send_sms(NUMBER, "text", may_wait=True)
        assert message.status == stored(second.pk).status == "queued"
        provider.unscript()
        SmsMessage.objects.update(send_after=timezone.now())
        others()
        assert stored(message.pk).status == stored(second.pk).status == "sent"

    @pytest.mark.parametrize("inside", [nullcontext, transaction.atomic])
    def test_what_may_wait_waits_for_the_end_of_a_pause(self, provider, others, inside):
        provider.script(1, Fault("no_credit"))
        with pytest.raises(InsufficientCredits):
            send_sms(NUMBER, "text")
        with inside():
            message = send_sms(NUMBER, "text", may_wait=True)
        assert message.status == stored(message.pk).status == "queued" and provider.sends == 1
        others()
        assert stored(message.pk).status == "sent"

    def test_what_may_wait_and_is_refused_for_itself_fails(self, provider):
        provider.script_all(Fault("bad_number"))
        with pytest.raises(InvalidRecipient) as refused:
            send_sms(NUMBER, "text", may_wait=True)
        assert stored(refused.value.sms).status == "failed"

    def test_what_may_wait_is_a_workers_after_its_process_is_killed(self, provider, others):
        message = queue_sms(NUMBER, "text")
        sending.claim(SmsMessage.objects.all(), timezone.now())
        others()
        assert stored(message.pk).status == "sent"


class Away:
    """Queries of this kind fail, before or ``after`` they are done, from the ``first`` on."""

    def __init__(self, kind, *, first=1, after=False):
        self.kind, self.left, self.after = kind, first - 1, after

    def __call__(self, execute, sql, *args):
        if not sql.startswith(self.kind):
            return execute(sql, *args)
        self.left -= 1
        if self.left >= 0:
            return execute(sql, *args)
        if self.after:
            execute(sql, *args)
        raise OperationalError("server closed the connection")


class TestDeletedInFlight:
    def test_it_ends_neither_the_record_nor_the_others(self, provider, caplog):
        for text in "abc":
            queue_sms(NUMBER, text)
        first, second, third = sending.claim(SmsMessage.objects.order_by("pk"), timezone.now())
        sending.mark_sending([first])
        SmsMessage.objects.filter(pk=first.pk).delete()
        marked = sending.record_and_mark([sending.Result(first, Receipt("id-1"))], [second, third])
        assert marked == set(map(sending.claim_of, [second, third]))
        assert f"message {first.pk}: accepted as 'id-1', but its row was deleted" in caplog.text

    @pytest.mark.parametrize(
        "outcome", [InvalidRecipient(code="-6"), TemporaryFailure(), SmsOutcomeUnknown()]
    )
    def test_an_error_of_it_ends_nothing(self, provider, outcome):
        queue_sms(NUMBER, "text")
        (claimed,) = sending.claim(SmsMessage.objects.all(), timezone.now())
        sending.mark_sending([claimed])
        SmsMessage.objects.all().delete()
        sending.record([sending.Result(claimed, outcome)])

    @pytest.mark.slow
    def test_a_worker_goes_on(self, provider):
        """The gateway is late until the row is gone."""
        for text in "abcdef":
            queue_sms(NUMBER, text)
        release = threading.Event()
        provider.script(2, Fault("late", until=release))

        def delete():
            provider.wait_for(lambda: provider.sends == 2, timeout=30)
            try:
                SmsMessage.objects.filter(status="sending").delete()
            finally:
                connection.close()
                release.set()

        other = threading.Thread(target=delete)
        other.start()
        Worker(concurrency=1).run_once()
        other.join()
        assert list(SmsMessage.objects.values_list("status", flat=True)) == ["sent"] * 5


class TestOneClaimOnePermission:
    def test_two_copies_of_a_row_do_not_both_go(self, provider):
        """Claimed by a worker whose clock is ahead, and claimed again by the first."""
        queue_sms(NUMBER, "text")
        (old,) = sending.claim(SmsMessage.objects.all(), timezone.now())
        SmsMessage.objects.update(status="queued", token="", lease_until=None)
        (new,) = sending.claim(SmsMessage.objects.all(), timezone.now())
        assert old.token != new.token
        assert sending.mark_sending([old, new]) == {sending.claim_of(new)}

    def test_nor_where_the_old_one_is_recorded_in_the_same_turn(self, provider):
        queue_sms(NUMBER, "text")
        (old,) = sending.claim(SmsMessage.objects.all(), timezone.now())
        sending.mark_sending([old])
        SmsMessage.objects.update(status="queued", token="", lease_until=None)
        (new,) = sending.claim(SmsMessage.objects.all(), timezone.now())
        marked = sending.record_and_mark([sending.Result(old, Receipt("id-1"))], [new])
        assert marked == {sending.claim_of(new)}
        assert stored(new.pk).gateway_id == ""

    @pytest.mark.slow
    def test_a_worker_does_not_claim_again_what_it_holds(self, provider):
        """Another process claims its stock back, again and again."""
        for n in range(30):
            queue_sms(NUMBER, f"text {n}")

        times = iter(range(20))

        def take_back(execute, sql, *args):
            result = execute(sql, *args)
            if sql.startswith("SELECT") and next(times, None) is not None:
                with connection.cursor() as cursor:
                    cursor.execute(
                        "UPDATE django_smska_smsmessage SET status = 'queued', token = ''"
                        " WHERE status = 'claimed'"
                    )
            return result

        with connection.execute_wrapper(Once(take_back)):
            Worker(concurrency=4).run_once()
        Worker(concurrency=4).run_once()
        assert {entry.text for entry in provider.accepted} <= {f"text {n}" for n in range(30)}
        assert len(provider.accepted) == len({entry.text for entry in provider.accepted})


class Once:
    """Not for the queries that the wrapper itself makes."""

    def __init__(self, wrapper):
        self.wrapper, self.busy = wrapper, False

    def __call__(self, execute, sql, *args):
        if self.busy:
            return execute(sql, *args)
        self.busy = True
        try:
            return self.wrapper(execute, sql, *args)
        finally:
            self.busy = False


class TestTurn:
    """An outcome and the next mark share one UPDATE; each row keeps its conditions."""

    @pytest.fixture
    def six(self, provider):
        """Three in flight, three that ask for permission, all under one token."""
        for text in "abcdef":
            queue_sms(NUMBER, text)
        claimed = sending.claim(SmsMessage.objects.order_by("pk"), timezone.now())
        sending.mark_sending(claimed[:3])
        return claimed

    def accepted(self, messages):
        return [sending.Result(message, Receipt(f"id-{message.body}")) for message in messages]

    def rows(self):
        rows = SmsMessage.objects.order_by("pk").values_list("body", "status", "gateway_id")
        return [" ".join(row).strip() for row in rows]

    def test_it_is_one_query(self, six, django_assert_num_queries):
        with django_assert_num_queries(1):
            marked = sending.record_and_mark(self.accepted(six[:3]), six[3:])
        assert marked == set(map(sending.claim_of, six[3:]))
        sent = ["a sent id-a", "b sent id-b", "c sent id-c"]
        assert self.rows() == [*sent, "d sending", "e sending", "f sending"]
        for message in six:
            found = stored(message.pk)
            assert found.sending_at == message.sending_at is not None
            assert found.lease_until == message.lease_until > timezone.now()
            assert (found.sent_at is not None) == (message in six[:3])
            assert found.next_status_at == message.next_status_at

    @pytest.mark.parametrize(
        ("lost", "found"),
        [
            ({"token": "another"}, {"b": "b sending", "e": "e claimed"}),
            ({"status": "unknown"}, {"b": "b unknown id-b", "e": "e unknown"}),
            ({"status": "cancelled"}, {"b": "b cancelled", "e": "e cancelled"}),
            ({"lease_until": timezone.now()}, {"b": "b sent id-b", "e": "e claimed"}),
        ],
    )
    def test_what_was_lost_in_the_meantime_stays_as_it_is(self, six, lost, found):
        SmsMessage.objects.filter(pk__in=[six[1].pk, six[4].pk]).update(**lost)
        marked = sending.record_and_mark(self.accepted(six[:3]), six[3:])
        assert marked == set(map(sending.claim_of, [six[3], six[5]]))
        expected = ["a sent id-a", found["b"], "c sent id-c", "d sending", found["e"], "f sending"]
        assert self.rows() == expected

    def test_others_under_the_token_are_left_alone(self, six):
        assert sending.record_and_mark(self.accepted(six[:1]), six[3:4]) == {
            sending.claim_of(six[3])
        }
        left = ["b sending", "c sending", "d sending", "e claimed", "f claimed"]
        assert self.rows() == ["a sent id-a", *left]

    def test_a_commit_whose_answer_was_lost_is_not_seen_as_a_lost_race(
        self, six, monkeypatch, caplog
    ):
        monkeypatch.setattr(sending.time, "sleep", lambda seconds: None)
        with connection.execute_wrapper(Outage(1, after=True, only="UPDATE")):
            marked = sending.record_and_mark(self.accepted(six[:3]), six[3:])
        assert marked == set(map(sending.claim_of, six[3:]))
        assert [message.status for message in six] == ["sent"] * 3 + ["sending"] * 3
        assert "CRITICAL" not in caplog.text

    def test_ids_and_query_times_are_each_rows_own(self, six):
        """Of a message without an id nothing can be asked."""
        results = [sending.Result(six[0], Receipt("id-a")), sending.Result(six[1], Receipt())]
        sending.record_and_mark(results, six[3:])
        first, second = stored(six[0].pk), stored(six[1].pk)
        assert (first.gateway_id, second.gateway_id) == ("id-a", "")
        assert second.next_status_at - first.next_status_at > timedelta(hours=1)


class TestRecord:
    def claimed(self, *texts, marked=True):
        for text in texts:
            queue_sms(NUMBER, text)
        claimed = sending.claim(SmsMessage.objects.order_by("pk"), timezone.now())
        if marked:
            sending.mark_sending(claimed)
        return claimed

    def test_a_group_is_recorded_with_each_ones_own_id(self, provider):
        claimed = self.claimed("a", "b", "c")
        results = [sending.Result(message, Receipt(f"id-{message.body}")) for message in claimed]
        sending.record(results)
        rows = SmsMessage.objects.order_by("pk").values_list("body", "status", "gateway_id")
        assert list(rows) == [("a", "sent", "id-a"), ("b", "sent", "id-b"), ("c", "sent", "id-c")]

    def test_an_untrackable_message_is_asked_about_never_and_given_up_at_the_windows_end(
        self, provider
    ):
        (message,) = self.claimed("a")
        sending.record([sending.Result(message, Receipt())])
        assert stored(message.pk).next_status_at >= timezone.now() + timedelta(hours=71)

    @pytest.mark.parametrize(
        ("outcome", "words", "gateway_id"),
        [
            (Receipt("late-1"), "A late answer: it was accepted.", "late-1"),
            (InvalidRecipient(code="-6"), "A late answer: The gateway does not send", ""),
        ],
    )
    def test_a_late_answer_is_kept_for_the_person_who_decides(
        self, provider, outcome, words, gateway_id
    ):
        """Promise 4: the loser of a race records what it knows."""
        (message,) = self.claimed("a")
        SmsMessage.objects.update(lease_until=timezone.now())
        assert sending.recover()["unknown"] == 1
        sending.record([sending.Result(message, outcome)])
        row = stored(message.pk)
        assert (row.status, row.gateway_id) == ("unknown", gateway_id)
        assert row.error_text.startswith(words)

    def test_after_a_person_said_that_it_was_sent_the_late_id_is_asked_with(self, provider, caplog):
        (message,) = self.claimed("a")
        SmsMessage.objects.update(lease_until=timezone.now())
        sending.recover()
        sending.confirm_sent(stored(message.pk))
        sending.record([sending.Result(message, Receipt("late-1"))])
        row = stored(message.pk)
        assert (row.status, row.gateway_id) == ("sent", "late-1")
        assert row.next_status_at <= timezone.now() + timedelta(minutes=1)
        assert "after a person said it was sent" in caplog.text

    def test_an_answer_for_a_row_that_is_elsewhere_is_cried_out(self, provider, caplog):
        (message,) = self.claimed("a")
        SmsMessage.objects.update(token="another")
        sending.record([sending.Result(message, Receipt("id-1"))])
        (cry,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
        assert f"message {message.pk}: accepted as 'id-1'" in cry.getMessage()

    def test_a_database_that_comes_back_loses_nothing(self, provider, monkeypatch):
        (message,) = self.claimed("a")
        monkeypatch.setattr(sending.time, "sleep", lambda seconds: None)
        with connection.execute_wrapper(Outage(2)):
            sending.record([sending.Result(message, Receipt("id-1"))])
        assert stored(message.pk).gateway_id == "id-1"

    def test_a_commit_whose_answer_was_lost_is_not_seen_as_a_lost_race(
        self, provider, monkeypatch, caplog
    ):
        (message,) = self.claimed("a")
        monkeypatch.setattr(sending.time, "sleep", lambda seconds: None)
        with connection.execute_wrapper(Outage(1, after=True, only="UPDATE")):
            sending.record([sending.Result(message, Receipt("id-1"))])
        assert (message.status, message.gateway_id) == ("sent", "id-1")
        assert "CRITICAL" not in caplog.text

    @pytest.mark.skipif(connection.vendor == "sqlite", reason="a server cuts connections")
    @pytest.mark.parametrize(
        ("module", "write", "error", "status"),
        [
            (circuit_breaker, "note", AuthenticationFailed, "queued"),
            (opt_out, "stop_at_provider", RecipientOptedOut, "failed"),
        ],
    )
    def test_a_connection_cut_after_the_commit_of_a_write_that_may_fail(
        self, provider, monkeypatch, caplog, module, write, error, status
    ):
        """It would stay without autocommit, and what comes next could announce nothing."""
        real, switch, calls = getattr(module, write), connection._set_autocommit, []

        def noted(*args, **kwargs):
            calls.append(write)
            return real(*args, **kwargs)

        def cut(autocommit):
            if autocommit and calls == [write]:
                calls.append("cut")
                raise OperationalError("server closed the connection")
            switch(autocommit)

        monkeypatch.setattr(module, write, noted)
        monkeypatch.setattr(connection, "_set_autocommit", cut)
        claimed = self.claimed("a", "b")
        for message in claimed:
            sending.record([sending.Result(message, error(alias="default"))])
            sending.report_to_breaker("default", error())
            assert connection.get_autocommit()
        assert "cut" in calls and "OperationalError" in caplog.text
        assert [message.status for message in claimed] == [status] * 2

    def test_a_database_that_stays_away_is_logged_as_critical(self, provider, caplog, settings):
        settings.SMSKA_LEASE = 0.000001
        (message,) = self.claimed("a", marked=False)
        with connection.execute_wrapper(Outage(100)), pytest.raises(OperationalError):
            sending.record([sending.Result(message, Receipt("id-1"))])
        (line,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
        assert f"message {message.pk}: accepted as 'id-1', but the database" in line.getMessage()

    def test_words_that_cannot_be_stored_do_not_lose_the_status(
        self, provider, monkeypatch, caplog
    ):
        (message,) = self.claimed("a")
        error = InvalidRecipient(gateway_text="bad \0 words", code="-6")
        monkeypatch.setattr(type(error), "text", "x\0")
        sending.record([sending.Result(message, error)])
        assert stored(message.pk).status == "failed"


class TestThirdPartyBackends:
    @pytest.fixture(autouse=True)
    def _use(self, settings, transactional_db):
        settings.SMSKA_LOCMEM_IN_TESTS = False
        self.settings = settings

    def use(self, name, **opts):
        self.settings.SMS_PROVIDERS = {
            "default": {"BACKEND": f"tests.backends.{name}", "OPTIONS": opts}
        }

    def test_one_with_one_method_works_and_is_not_asked_for_reports(self):
        self.use("Minimal")
        message = send_sms(NUMBER, "text")
        assert (message.status, message.gateway_id) == ("sent", "minimal-1")
        wait = stored(message.pk).next_status_at - message.sent_at
        assert wait >= timedelta(hours=71)  # then it counts as unconfirmed

    def test_one_that_does_not_announce_is_marked_before_it_is_called(self, monkeypatch):
        self.use("Minimal")
        from .backends import Minimal

        seen = []
        send_message = Minimal.send_message

        def spy(self, message):
            seen.append(stored(message.pk).status)
            return send_message(self, message)

        monkeypatch.setattr(Minimal, "send_message", spy)
        send_sms(NUMBER, "text")
        assert seen == ["sending"]

    def test_its_refusal_is_believed(self):
        self.use("Talkative", refuse="no")
        with pytest.raises(SmsNotSent, match="refused by its option") as refused:
            send_sms(NUMBER, "no")
        assert stored(refused.value.sms).status == "failed"

    @pytest.mark.parametrize("name", ["Broken", "Careless"])
    def test_any_other_exception_is_a_doubt_and_shows_nothing(self, name, caplog):
        self.use(name)
        with pytest.raises(SmsOutcomeUnknown) as lost:
            send_sms(NUMBER, "text")
        row = stored(lost.value.sms)
        assert row.status == "unknown"
        assert "secret" not in caplog.text + str(lost.value) + row.error_text

    def test_an_exception_before_the_announced_first_byte_is_definitely_not_sent(self):
        self.use("BrokenBeforeItsFirstByte")
        with pytest.raises(SmsNotSent) as refused:
            send_sms(NUMBER, "text")
        assert stored(refused.value.sms).status == "failed"

    def test_one_that_forgot_to_announce_is_recorded_all_the_same(self):
        self.use("Forgetful")
        assert stored(send_sms(NUMBER, "text").pk).status == "sent"


class TestRecover:
    def test_what_a_dead_worker_only_claimed_is_queued_again(self, provider):
        message = queue_sms(NUMBER, "text")
        sending.claim(SmsMessage.objects.all(), timezone.now())
        assert sending.recover() == {"queued": 0, "unknown": 0, "failed": 0}
        SmsMessage.objects.update(lease_until=timezone.now())
        assert sending.recover() == {"queued": 1, "unknown": 0, "failed": 0}
        assert stored(message.pk).token == ""

    def test_what_it_may_have_sent_is_unknown_and_stays_so(self, provider, heard):
        message = queue_sms(NUMBER, "text")
        sending.mark_sending(sending.claim(SmsMessage.objects.all(), timezone.now()))
        SmsMessage.objects.update(lease_until=timezone.now())
        assert sending.recover()["unknown"] == 1
        assert sending.recover()["unknown"] == 0
        row = stored(message.pk)
        assert (row.status, row.error_code) == ("unknown", "lease")
        assert heard == [("sending", "unknown", row.pk)]

    def test_what_expired_unsent_fails_with_a_word(self, provider, heard):
        message = queue_sms(NUMBER, "text")
        SmsMessage.objects.update(expires_at=timezone.now())
        assert sending.recover()["failed"] == 1
        row = stored(message.pk)
        assert (row.status, row.error_code) == ("failed", "expired")
        assert heard == [("queued", "failed", row.pk), ("failed", row.pk)]


class TestAPersonsWord:
    @pytest.fixture
    def unknown(self, provider):
        provider.script(1, Fault("reset_after_request", accepted=True))
        with pytest.raises(SmsOutcomeUnknown) as lost:
            send_sms(NUMBER, "text", sender="Own", priority=3)
        return stored(lost.value.sms)

    def test_it_was_sent(self, unknown):
        sending.confirm_sent(unknown)
        assert unknown.status == "sent" and unknown.sent_at == unknown.sending_at
        with pytest.raises(WrongStatus, match="It is sent, not unknown"):
            sending.confirm_sent(unknown)

    def test_send_again_makes_a_new_row_that_points_to_the_old_one(self, unknown, provider):
        again = sending.resend(unknown)
        assert again.resend_of == unknown and unknown.resent_as == again
        assert (again.status, again.sender, again.priority, again.body) == (
            "queued", "Own", 3, "text",
        )  # fmt: skip
        assert stored(unknown.pk).status == "unknown"

    def test_two_who_press_at_once_make_one_row(self, unknown):
        sending.resend(unknown)
        with pytest.raises(WrongStatus, match="resent already"):
            sending.resend(unknown)
        assert SmsMessage.objects.count() == 2

    @pytest.mark.parametrize(
        "status", ["draft", "queued", "claimed", "sending", "sent", "cancelled"]
    )
    def test_what_is_under_way_or_was_claimed_back_cannot_be_resent(self, unknown, status):
        SmsMessage.objects.update(status=status)
        with pytest.raises(WrongStatus, match="cannot be resent"):
            sending.resend(unknown)

    @pytest.mark.slow
    def test_it_cannot_be_marked_as_sent_while_it_is_being_resent(self, unknown):
        """Else there would be a message that was sent, and a queued one for the same text."""
        other = Beside(lambda: sending.confirm_sent(stored(unknown.pk)), after="SELECT")
        with connection.execute_wrapper(other):
            again = sending.resend(unknown)
        assert other.begun and not other.was_done
        other.thread.join(30)
        assert stored(again.pk).status == "queued"

    @pytest.mark.parametrize("gateway_id", ["late-1", ""])
    def test_what_a_late_answer_accepted_is_not_resent(self, unknown, gateway_id):
        late = f"{sending.LATE}{sending.ACCEPTED}"
        SmsMessage.objects.update(gateway_id=gateway_id, error_text=late)
        with pytest.raises(WrongStatus, match="Choose “Mark as sent”") as refused:
            sending.resend(unknown)  # read before the late answer came
        assert refused.value.code == "accepted" and SmsMessage.objects.count() == 1
        sending.confirm_sent(unknown)
        assert unknown.status == "sent"

    def test_a_late_id_that_came_a_moment_ago_is_asked_with(self, unknown):
        SmsMessage.objects.update(gateway_id="late-1")
        sending.confirm_sent(unknown)
        assert unknown.next_status_at <= timezone.now() + timedelta(minutes=1)

    def test_drafts_and_queued_messages_can_be_cancelled_and_nothing_else(self, provider):
        draft = SmsMessage.objects.create(to=NUMBER, body="text")
        queued = queue_sms(NUMBER, "text")
        sent = send_sms(NUMBER, "text")
        assert sending.cancel(SmsMessage.objects.all()) == 2
        assert [stored(one.pk).status for one in (draft, queued, sent)] == [
            "cancelled", "cancelled", "sent",
        ]  # fmt: skip


class TestMassSms:
    @pytest.mark.slow
    def test_pairs_are_stored_and_queued_in_batches(self, provider, django_assert_max_num_queries):
        # Old SQLite takes 999 parameters a statement: some thirty rows.
        with django_assert_max_num_queries(125):
            assert send_mass_sms((NUMBER, f"text {n}") for n in range(2500)) == 2500
        assert SmsMessage.objects.filter(status="queued", segments=1).count() == 2500
        assert provider.requests == []

    def test_long_texts_are_stored_in_smaller_queries(self, provider, monkeypatch):
        """MariaDB refuses a query above 16 MB: a thousand texts of ten thousand characters."""
        monkeypatch.setattr(sms, "MAX_QUERY_CHARACTERS", 40)
        with CaptureQueriesContext(connection) as queries:
            assert send_mass_sms((NUMBER, "x" * 20) for _ in range(6)) == 6
        assert sum("INSERT" in query["sql"] for query in queries) == 3

    def test_messages_are_stored_with_what_they_carry(self, provider, settings):
        settings.SMS_PROVIDERS["bulk"] = settings.SMS_PROVIDERS["default"]
        messages = [SmsMessage(to="8 904 176 49 95", body="a", sender="Own", using="bulk")]
        assert send_mass_sms(messages) == 1
        row = SmsMessage.objects.get()
        assert (row.to, row.sender, row.using, row.status) == (NUMBER, "Own", "bulk", "queued")
        assert row.expires_at

    def test_bad_rows_are_listed_and_the_good_ones_stored(self, provider, caplog):
        rows = [(NUMBER, "a"), ("wrong", "b"), (NUMBER, ""), 5, (NUMBER, "c")]
        result = send_mass_sms(rows)
        assert result == 2 and result.bad == 3
        assert [index for index, error in result.errors] == [1, 2, 3]
        assert "to" in result.errors[0][1].message_dict
        assert "3 of 5 messages were not stored" in caplog.text

    @pytest.mark.slow
    def test_a_source_that_breaks_stores_nothing(self, provider):
        """So that the whole can be run again without a double."""

        def rows():
            for n in range(1500):
                yield NUMBER, f"text {n}"
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            send_mass_sms(rows())
        assert not SmsMessage.objects.exists()

    def test_the_same_objects_can_be_given_again_after_a_failure(self, provider, monkeypatch):
        monkeypatch.setattr(sms, "BATCH_ROWS", 3)
        messages = [SmsMessage(to=NUMBER, body=f"text {n}") for n in range(8)]

        def broken():
            yield from messages[:7]
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            send_mass_sms(broken())
        queue_sms(NUMBER, "On SQLite it gets the key that the first of them had.")
        result = send_mass_sms(messages)
        assert (result, result.bad) == (8, 0)
        assert SmsMessage.objects.filter(body__startswith="text").count() == 8
        assert {stored(one.pk).body for one in messages} == {f"text {n}" for n in range(8)}
        assert send_mass_sms(messages).bad == 8

    def test_and_after_a_rollback_of_the_callers_transaction(self, provider, transactional_db):
        messages = [SmsMessage(to=NUMBER, body=f"text {n}") for n in range(3)]
        with suppress(ZeroDivisionError), transaction.atomic():
            assert send_mass_sms(messages) == 3
            raise ZeroDivisionError
        with CaptureQueriesContext(connection) as queries:
            assert send_mass_sms(messages) == 3
        looks = [query["sql"] for query in queries if query["sql"].startswith("SELECT")]
        assert sum("smsmessage" in sql for sql in looks) == 1

    def test_a_refused_object_is_left_as_it_was(self, provider):
        message = send_sms(NUMBER, "text")
        assert send_mass_sms([message], using="default").bad == 1
        assert (message.status, message.pk) == ("sent", stored(message.pk).pk)

    def test_the_same_object_twice_is_one_message(self, provider):
        message = SmsMessage(to=NUMBER, body="text")
        result = send_mass_sms([message, message])
        assert (result, result.bad) == (1, 1)

    def test_a_text_is_no_list_of_messages(self, provider):
        with pytest.raises(TypeError, match="takes an iterable"):
            send_mass_sms("+79041764995")

    @pytest.mark.parametrize(
        ("wrong", "kind"),
        [
            ([{"to": NUMBER, "body": "secret"}] * 2, "dict"),
            ([(NUMBER, "secret", "Shop")], "tuple of 3"),
            ((NUMBER, "secret"), "str"),
            ({NUMBER: "secret"}, "str"),
            (iter([[], None]), "list of 0"),
        ],
    )
    def test_rows_that_are_all_of_a_wrong_kind_are_the_callers_mistake(self, provider, wrong, kind):
        with pytest.raises(TypeError, match=f"this one has {kind}") as refused:
            send_mass_sms(wrong)
        assert "secret" not in str(refused.value) and not SmsMessage.objects.exists()

    def test_one_row_of_a_wrong_kind_is_a_bad_row(self, provider):
        for right in ((NUMBER, "text"), ("no number", "text")):
            result = send_mass_sms([{"to": NUMBER}, right])
            assert "not dict" in str(result.errors[0][1])
        assert send_mass_sms([]) == 0

    def test_a_stored_message_is_no_new_one(self, provider):
        message = queue_sms(NUMBER, "text")
        assert send_mass_sms([message]).bad == 1


class TestModel:
    def test_a_draft_can_be_saved_again_after_a_rollback(self, provider, transactional_db):
        draft = SmsMessage(to=NUMBER, body="text")
        with suppress(ZeroDivisionError), transaction.atomic():
            draft.save()
            raise ZeroDivisionError
        other = SmsMessage.objects.create(to=NUMBER, body="On SQLite it has the draft's key.")
        draft.save()
        assert (stored(draft.pk).body, stored(other.pk).body) == ("text", other.body)

    def test_a_draft_that_was_deleted_is_not_stored_again(self, provider):
        draft = stored(SmsMessage.objects.create(to=NUMBER, body="text").pk)
        SmsMessage.objects.all().delete()
        with pytest.raises(WrongStatus, match="Only a draft"):
            draft.save()

    @pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
    def test_the_ends_of_lines_are_one_character(self, provider, end):
        """A CR is in the GSM alphabet and would be sent: here the 161st character."""
        text = "x" * 79 + end + "y" * 80
        message = send_sms(NUMBER, text)
        assert (message.segments, stored(message.pk).segments) == (1, 1)
        assert [one.text for one in provider.accepted] == ["x" * 79 + "\n" + "y" * 80]
        assert stored(message.pk).body == message.body == provider.accepted[0].text

    def test_an_edit_writes_what_a_person_may_edit_and_no_status(self, db):
        """Saving all columns would revert what a worker has written."""
        draft = SmsMessage.objects.create(to=NUMBER, body="text")
        draft.body = "я" * 71
        draft.status = "sent"
        draft.save()
        row = stored(draft.pk)
        assert (row.body, row.segments, row.encoding, row.status) == ("я" * 71, 2, "UCS-2", "draft")

    @pytest.mark.parametrize(
        "fields",
        [["gateway_id"], ["sent_at"], ["body", "status"], ["id"], ["nonsense"], {"error_text": 1}],
    )
    def test_what_no_person_may_edit_is_refused_and_nothing_is_stored(self, db, fields):
        draft = SmsMessage.objects.create(to=NUMBER, body="text")
        draft.body, draft.gateway_id = "changed", "made-up"
        with pytest.raises(ValueError, match="save.. cannot write .*It writes: to, body"):
            draft.save(update_fields=fields)
        with pytest.raises(ValueError, match="cannot write"):
            async_to_sync(draft.asave)(update_fields=fields)
        row = stored(draft.pk)
        assert (row.body, row.gateway_id, row.status) == ("text", "", "draft")

    def test_what_django_offers_beside_save_is_no_way_around_it(self, db):
        draft = SmsMessage.objects.create(to=NUMBER, body="text")
        draft.gateway_id = "made-up"
        with pytest.raises(TypeError, match="Call save"):
            SmsMessage.objects.bulk_update([draft], ["gateway_id"])
        with pytest.raises(ValueError, match="cannot write gateway_id"):
            SmsMessage.objects.update_or_create(pk=draft.pk, defaults={"gateway_id": "made-up"})
        with pytest.raises(ValueError, match="force"):
            draft.save(force_insert=True)
        assert stored(draft.pk).gateway_id == ""

    def test_no_fields_to_update_store_nothing(self, db):
        draft = SmsMessage.objects.create(to=NUMBER, body="text")
        draft.body = "changed"
        draft.save(update_fields=[])
        assert stored(draft.pk).body == "text"
        draft.save(update_fields=["priority", "created_by_id"])
        assert stored(draft.pk).body == "text"
        draft.save(update_fields=("body",))
        assert (stored(draft.pk).body, SmsMessage.objects.count()) == ("changed", 1)
        SmsMessage.objects.update_or_create(pk=draft.pk, defaults={"body": "again"})
        assert stored(draft.pk).body == "again"

    def test_a_message_that_is_no_draft_cannot_be_edited(self, db):
        draft = SmsMessage.objects.create(to=NUMBER, body="text")
        sending.enqueue(SmsMessage.objects.all())
        draft.body = "changed"
        with pytest.raises(WrongStatus, match="Only a draft"):
            draft.save()
        assert stored(draft.pk).body == "text"

    def test_sending_twice_is_not_the_fault_of_the_settings(self, provider):
        message = send_sms(NUMBER, "text")
        with pytest.raises(WrongStatus) as refused:
            message.send()
        assert str(refused.value).startswith("Only a draft or a queued message can be sent")
        assert refused.value.alias == "default"

    def test_neither_str_nor_repr_shows_number_or_text(self, db):
        message = SmsMessage(to=NUMBER, body="secret")
        assert "+7904•••4995" in str(message) and "+7904•••4995" in repr(message)
        assert "secret" not in repr(message) and "1764995" not in repr(message)

    def test_a_message_survives_pickling_after_a_send(self, provider):
        message = send_sms(NUMBER, "text")
        assert pickle.loads(pickle.dumps(message)).gateway_id == message.gateway_id

    @pytest.mark.parametrize(
        "wrong", [{"status": "nonsense"}, {"status": "sending"}, {"status": "queued"}]
    )
    def test_the_database_itself_refuses_what_cannot_be(self, db, wrong):
        message = SmsMessage.objects.create(to=NUMBER, body="text")
        with pytest.raises(IntegrityError), transaction.atomic():
            SmsMessage.objects.filter(pk=message.pk).update(**wrong)


PAUSES = {
    "account": AuthenticationFailed,
    "funds": InsufficientCredits,
    "unreachable": GatewayUnreachable,
    "hanging": GatewayUnreachable,
    "busy": GatewayBusy,
    "broken": ProviderFailed,
}
LATER = datetime(2031, 5, 4, 14, 30, 15, tzinfo=ZoneInfo("Europe/Moscow"))


class TestPaused:
    """A caller who waits is answered at once while the provider is paused."""

    def pause(self, reason, probe_at=LATER, alias="default"):
        marks = {"reason": reason, "failures": 3, "paused_at": timezone.now(), "probe_at": probe_at}
        ProviderState.objects.update_or_create(alias=alias, defaults=marks)

    @pytest.mark.parametrize("reason, error", PAUSES.items())
    def test_nothing_is_asked_and_nothing_is_stored(self, provider, reason, error):
        self.pause(reason)
        with pytest.raises(error, match="paused.* Nothing was sent.* 14:30:15") as refused:
            send_sms(NUMBER, "text")
        assert (refused.value.code, refused.value.sms) == ("paused", None)
        assert provider.requests == [] and not SmsMessage.objects.exists()
        assert circuit_breaker.state_of("default").failures == 3

    @pytest.mark.parametrize("reason, error", PAUSES.items())
    def test_a_stored_message_stays_as_it_is(self, provider, reason, error):
        self.pause(reason)
        draft, queued = SmsMessage(to=NUMBER, body="text"), queue_sms(NUMBER, "text")
        with pytest.raises(error, match="14:30:15"):
            draft.send()
        assert draft.pk is None
        # A worker sends it later: who reads "not sent" would send the text a second time.
        with pytest.raises(SmsOutcomeUnknown, match="14:30:15. The SMS stays in the queue") as kept:
            queued.send()
        assert (kept.value.code, kept.value.sms) == ("paused", queued.pk)
        assert isinstance(kept.value.__cause__, error)
        assert (stored(queued.pk).status, stored(queued.pk).attempts) == ("queued", 0)
        assert provider.requests == []

    def test_what_counts_is_the_row_and_not_the_instance(self, provider):
        """Someone else has queued or cancelled it since it was read."""
        draft, queued = SmsMessage.objects.create(to=NUMBER, body="text"), queue_sms(NUMBER, "text")
        sending.enqueue(SmsMessage.objects.filter(pk=draft.pk))
        sending.cancel(SmsMessage.objects.filter(pk=queued.pk))
        self.pause("funds")
        with pytest.raises(SmsOutcomeUnknown, match="stays in the queue"):
            draft.send()
        with pytest.raises(InsufficientCredits):
            queued.send()
        assert queued.status == "cancelled"

    def test_it_leaves_through_the_provider_of_the_row(self, provider, both):
        draft = SmsMessage.objects.create(to=NUMBER, body="text")
        SmsMessage.objects.update(using="second")
        draft.send()
        assert (provider.sends, both.sends) == (0, 1) and stored(draft.pk).using == "second"

    def test_so_does_a_queued_one_whose_turn_under_the_rate_is_far(self, provider, settings):
        settings.SMS_PROVIDERS = {"default": {"OPTIONS": options(provider, rate="2/h")}}
        draft, queued = SmsMessage(to=NUMBER, body="text"), queue_sms(NUMBER, "text")
        draft.save()
        send_sms(NUMBER, "first")
        for message, error in ((draft, SmsNotSent), (queued, SmsOutcomeUnknown)):
            with pytest.raises(error) as refused:
                message.send()
            assert (refused.value.code, refused.value.sms) == ("rate", message.pk)
        assert (stored(draft.pk).status, stored(queued.pk).status) == ("draft", "queued")
        assert provider.sends == 1

    @pytest.mark.parametrize("fault", ["wrong_login", "no_credit", "http_404"])
    def test_after_one_such_answer_the_next_is_refused(self, provider, fault):
        provider.script_all(Fault(fault))
        for _ in range(3):
            with pytest.raises(SmsNotSent):
                send_sms(NUMBER, "text")
        assert provider.sends == 1 and SmsMessage.objects.count() == 1

    def test_a_gateway_that_hangs_costs_three_unknowns_and_one_at_each_look(self, provider):
        """Its balance may well be answered: that says nothing of a send."""
        provider.script_all(Fault("close_without_answer"), on="send")
        refused = []
        for n in range(12):
            if n in (6, 9):
                ProviderState.objects.update(probe_at=timezone.now())
            with pytest.raises(SmsError) as error:
                send_sms(NUMBER, "text")
            refused.append(error.value.code == "paused")
        assert refused == [n not in (0, 1, 2, 6, 9) for n in range(12)]
        assert provider.sends == 5 and SmsMessage.objects.count() == 5

    @pytest.mark.parametrize("reason", PAUSES)
    def test_without_a_worker_it_opens_again(self, provider, reason):
        self.pause(reason, timezone.now())
        assert send_sms(NUMBER, "text").status == "sent"
        assert provider.balances == 1
        assert send_sms(NUMBER, "text").status == "sent"
        assert provider.balances == 1
        assert not circuit_breaker.state_of("default").is_paused

    def test_a_look_that_finds_it_failing_names_the_next(self, provider):
        self.pause("account", timezone.now())
        provider.api_password = "changed"
        for _ in range(2):
            with pytest.raises(AuthenticationFailed, match="paused"):
                send_sms(NUMBER, "text")
        assert (provider.balances, provider.sends) == (1, 0)
        assert circuit_breaker.state_of("default").probe_at > timezone.now()

    def test_of_many_callers_one_looks(self, provider):
        self.pause("hanging", timezone.now())
        provider.script_all(Fault("close_without_answer"), on="send")
        start, outcomes = threading.Barrier(6), []

        def call():
            start.wait(30)
            try:
                send_sms(NUMBER, "text")
            except SmsError as error:
                outcomes.append(error.code)
            finally:
                connection.close()

        threads = [threading.Thread(target=call) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert outcomes.count("paused") == 5 and len(outcomes) == 6
        assert (provider.balances, provider.sends) == (1, 1)

    def test_without_a_balance_one_message_tries(self, provider, settings):
        settings.SMS_PROVIDERS = {
            "default": {"BACKEND": "tests.backends.Talkative", "OPTIONS": {"refuse": "no"}}
        }
        self.pause("hanging", timezone.now())
        assert send_sms(NUMBER, "text").status == "sent"
        assert not circuit_breaker.state_of("default").is_paused

    def test_inside_a_transaction_it_is_refused_where_it_is_known(self, provider):
        self.pause("hanging")
        with transaction.atomic():
            with pytest.raises(GatewayUnreachable, match="14:30:15"):
                send_sms(NUMBER, "text")
            with pytest.raises(GatewayUnreachable, match="14:30:15"):
                SmsMessage(to=NUMBER, body="text").send()
        assert provider.requests == [] and not SmsMessage.objects.exists()

    def test_inside_a_transaction_the_look_waits_for_the_commit(self, provider):
        self.pause("hanging", timezone.now())
        with transaction.atomic():
            message = send_sms(NUMBER, "text")
            assert provider.requests == []
        assert stored(message.pk).status == "sent"
        assert provider.balances == 1

    def test_the_same_key_again_returns_the_first_message(self, provider):
        first = send_sms(NUMBER, "text", idempotency_key="one")
        self.pause("hanging")
        assert send_sms(NUMBER, "text", idempotency_key="one") == first

    def test_queueing_goes_on(self, provider):
        self.pause("hanging")
        assert queue_sms(NUMBER, "text").status == "queued"

    @pytest.fixture
    def both(self, provider, settings):
        with StandInGateway() as second:
            settings.SMS_PROVIDERS |= {
                "second": {"OPTIONS": options(second)},
                "both": {
                    "BACKEND": "django_smska.backends.failover.SmsBackend",
                    "OPTIONS": {"providers": ["default", "second"]},
                },
            }
            yield second

    def test_a_failover_passes_over_what_is_paused(self, provider, both):
        self.pause("hanging")
        assert send_sms(NUMBER, "text", using="both").using == "second"
        assert provider.requests == []

    def test_a_failover_is_refused_until_the_first_look_where_all_are_paused(self, provider, both):
        self.pause("hanging")
        self.pause("funds", LATER + timedelta(hours=1), "second")
        with pytest.raises(GatewayUnreachable, match="None of the providers .* 14:30:15") as error:
            send_sms(NUMBER, "text", using="both")
        assert error.value.code == "paused" and not SmsMessage.objects.exists()
        assert provider.requests == both.requests == []
        with transaction.atomic(), pytest.raises(GatewayUnreachable, match="14:30:15"):
            send_sms(NUMBER, "text", using="both")

    def test_a_wrong_login_of_a_member_is_tried_once(self, provider, both):
        provider.script_all(Fault("wrong_login"))
        for _ in range(3):
            assert send_sms(NUMBER, "text", using="both").using == "second"
        assert (provider.sends, provider.balances) == (1, 0)

    def test_a_member_is_looked_at_in_its_time(self, provider, both):
        self.pause("hanging", timezone.now())
        assert send_sms(NUMBER, "text", using="both").using == "default"
        assert (provider.balances, both.requests) == (1, [])
        assert not circuit_breaker.state_of("default").is_paused


class TestBalances:
    @pytest.mark.parametrize("balance", ["999999999999.9999", "9999999999999999", "9" * 30])
    def test_no_balance_stops_the_sending(self, provider, balance):
        provider.script(1, answer(f"0|Message sent|a1|Balance status|{balance}".encode()))
        provider.script(1, answer(f"_0|Balance status|{balance}".encode()), on="balance")
        send_sms(NUMBER, "text")
        with suppress(QueryFailed):
            circuit_breaker.note_balance("default", providers["default"].get_balance())
        send_sms(NUMBER, "text")
        assert circuit_breaker.state_of("default").balance is not None
        assert set(SmsMessage.objects.values_list("status", flat=True)) == {"sent"}

    def test_the_balance_that_an_answer_has_is_kept_for_people(self, provider):
        send_sms(NUMBER, "text")
        assert ProviderState.objects.get().balance == 999

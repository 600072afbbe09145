"""The do-not-send list: who is on it gets nothing, from any way to the gateway."""

import io
import subprocess
import sys
import threading
import tracemalloc
from collections import Counter

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_smska import clock, personal_data, sending
from django_smska.admin.permissions import grouped
from django_smska.exceptions import RecipientOptedOut, SmsNotSent
from django_smska.keyed_hash import keyed_hash
from django_smska.models import SmsLimit, SmsMessage, SmsOptOut
from django_smska.opt_out import is_opted_out, opt_in, opt_out, opt_out_many
from django_smska.signals import sms_status_changed
from django_smska.sms import outbox, queue_sms, send_mass_sms, send_sms
from django_smska.testing.gateway import Fault, StandInGateway
from django_smska.worker import Worker

from .conftest import options
from .extent import ALL

NUMBER, OTHER = "+79041764995", "+79051234567"
SPELT = "8 (904) 176-49-95"
WORDS = "This number is on the do-not-send list. Nothing was sent."


def numbers(many):
    return [f"+7900{n:07}" for n in range(many)]


def statuses():
    return Counter(SmsMessage.objects.values_list("status", flat=True))


def sent_to(gateway):
    return sorted(f"+{entry.msisdn}" for entry in gateway.accepted)


def assert_cancelled(message):
    message.refresh_from_db()
    assert (message.status, message.error_code, message.error_text) == (
        "cancelled", "opted-out", WORDS,
    )  # fmt: skip
    assert message.attempts == 0 and message.finished_at is not None
    assert message.lease_until is None and message.sending_at is None


def elsewhere(do):
    """Run it in a thread, whose transactions are its own."""

    def run():
        try:
            do()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def locals_of(error):
    """Yield what a debug page shows of our frames."""
    while error is not None:
        traceback = error.__traceback__
        while traceback is not None:
            if traceback.tb_frame.f_globals["__name__"] != __name__:
                yield from map(repr, traceback.tb_frame.f_locals.values())
            traceback = traceback.tb_next
        error = error.__cause__ or error.__context__


# --- the list -------------------------------------------------------------------------------------


@pytest.mark.django_db
class TestTheList:
    def test_any_spelling_is_one_number(self):
        assert opt_out(SPELT, reason="wrote STOP", source="call centre") is True
        assert opt_out("+7 904 176-49-95") is False
        entry = SmsOptOut.objects.get()
        assert (entry.number, entry.sender) == (NUMBER, "")
        assert (entry.reason, entry.source) == ("wrote STOP", "call centre")
        assert timezone.now() >= entry.created_at and entry.created_by is None
        assert is_opted_out("tel:+79041764995") and not is_opted_out(OTHER)

    def test_for_one_sender_or_for_all(self):
        opt_out(NUMBER, sender="Shop")
        assert is_opted_out(NUMBER, sender="Shop")
        assert not is_opted_out(NUMBER) and not is_opted_out(NUMBER, sender="shop")
        opt_out(NUMBER)
        assert is_opted_out(NUMBER) and is_opted_out(NUMBER, sender="Clinic")
        assert SmsOptOut.objects.count() == 2

    def test_removed_for_one_sender_or_for_all(self):
        opt_out(NUMBER)
        opt_out(NUMBER, sender="Shop")
        opt_out(NUMBER, sender="Clinic")
        assert opt_in(SPELT, sender="Shop") == 1 and opt_in(NUMBER, sender="Shop") == 0
        assert is_opted_out(NUMBER, sender="Clinic")
        assert opt_in(NUMBER) == 2 and not is_opted_out(NUMBER, sender="Clinic")

    @pytest.mark.slow
    def test_many_at_once(self):
        every = numbers(2500)
        opt_out(every[7])
        assert opt_out_many([*every, *every[:50]], sender="") == 2499
        assert opt_out_many(every) == 0
        assert SmsOptOut.objects.count() == 2500

    @pytest.mark.parametrize("wrong", ["12", "", None, 79041764995, "8 904 176"])
    def test_what_is_no_number(self, wrong):
        for call in (opt_out, opt_in, is_opted_out):
            with pytest.raises(ValidationError):
                call(wrong)
        with pytest.raises(ValidationError):
            opt_out_many([NUMBER, wrong])
        assert not SmsOptOut.objects.exists()

    @pytest.mark.parametrize(
        "about",
        [
            {"sender": "s" * 33},
            {"reason": "r" * 201},
            {"source": "s" * 65},
            {"reason": "two\nlines"},
            {"reason": "NUL\0"},
            {"source": None},
            {"sender": "half \ud83d"},
        ],
    )
    def test_what_no_column_can_hold(self, about):
        with pytest.raises(ValidationError) as caught:
            opt_out(NUMBER, **about)
        assert caught.value.message_dict.keys() == about.keys()
        assert not SmsOptOut.objects.exists()

    def test_words_that_people_paste(self):
        opt_out(NUMBER, reason="попросил\u00a0не писать", source="колл-центр")
        assert SmsOptOut.objects.get().reason == "попросил\u00a0не писать"

    def test_the_number_is_in_no_repr_and_no_name(self):
        opt_out(NUMBER)
        entry = SmsOptOut.objects.get()
        assert str(entry) == "+7904•••4995" and "1764" not in repr(entry)

    def test_a_changed_secret_key(self, settings):
        opt_out(NUMBER)
        opt_out(OTHER)
        personal_data.erase(NUMBER)
        settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "a new key"
        assert is_opted_out(NUMBER) and is_opted_out(OTHER)
        assert opt_out(NUMBER) is False and opt_out(OTHER) is False
        settings.SECRET_KEY_FALLBACKS = []
        assert is_opted_out(OTHER), "an entry with its number needs no key"
        assert opt_out(OTHER) is False and opt_in(OTHER) == 1

    def test_erased_after_the_key_of_its_entry_was_thrown_away(self, settings):
        opt_out(NUMBER)
        opt_out(NUMBER, sender="Shop")
        opt_out(OTHER)
        settings.SECRET_KEY = "a new key"
        assert personal_data.erase(NUMBER).details["do_not_send"] == 2
        assert set(SmsOptOut.objects.values_list("number", "sender")) == {
            ("", ""), ("", "Shop"), (OTHER, ""),
        }  # fmt: skip
        with pytest.raises(RecipientOptedOut):
            send_sms(NUMBER, "Hello")
        assert is_opted_out(OTHER) and opt_in(NUMBER, sender="Shop") == 1
        assert is_opted_out(NUMBER, sender="Shop"), "the entry for all senders"
        assert opt_in(NUMBER) == 1 and not is_opted_out(NUMBER)

    @pytest.mark.parametrize("blank", [False, True])
    def test_erased_with_entries_of_several_keys(self, settings, blank):
        """As of two processes that had different keys for a moment, or of a merged database."""
        entries = []
        for key in ("oldest", "older", "newest"):
            settings.SECRET_KEY = key
            number = "" if blank and key == "newest" else NUMBER
            entries.append(SmsOptOut(number=number, number_hash=keyed_hash("number", NUMBER)))
        settings.SECRET_KEY_FALLBACKS = ["older"]
        SmsOptOut.objects.bulk_create(entries)
        assert personal_data.erase(NUMBER).details["do_not_send"] == 3 - blank
        entry = SmsOptOut.objects.get()
        assert (entry.number, entry.number_hash) == ("", keyed_hash("number", NUMBER))
        assert personal_data.erase(NUMBER).details["do_not_send"] == 0
        assert is_opted_out(NUMBER)

    @pytest.mark.parametrize("number", [NUMBER, "8 904 176-49-95"])
    @pytest.mark.parametrize(
        "call",
        [
            opt_out, opt_in, is_opted_out, lambda number: opt_out_many(iter([number])),
            lambda number: send_sms(number, "Hello"), lambda number: queue_sms(number, "Hello"),
            lambda number: send_mass_sms(iter([(number, "Hello")])),
        ],
    )  # fmt: skip
    def test_no_frame_shows_a_number_where_the_database_fails(self, call, number):
        def fail(execute, sql, params, many, context):
            if "smsoptout" in sql:
                raise OperationalError("the server closed the connection")
            return execute(sql, params, many, context)

        with connection.execute_wrapper(fail), pytest.raises(Exception) as caught:
            call(number)
        shown = list(locals_of(caught.value))
        assert shown and not any("1764" in one or "176-49" in one for one in shown)

    def test_two_processes_that_add_the_same_number(self, monkeypatch):
        monkeypatch.setattr("django_smska.opt_out.listed", lambda numbers, sender: set())
        for _ in range(2):
            opt_out_many([NUMBER, OTHER])
        assert SmsOptOut.objects.count() == 2


# --- before it is stored --------------------------------------------------------------------------


@pytest.mark.django_db
class TestRefused:
    def refuse(self, send, **kwargs):
        with pytest.raises(RecipientOptedOut) as caught:
            send(SPELT, "Hello", **kwargs)
        assert isinstance(caught.value, SmsNotSent)
        assert (str(caught.value), caught.value.code) == (WORDS, "opted-out")
        assert not SmsMessage.objects.exists() and outbox == []

    @pytest.mark.parametrize("send", [send_sms, queue_sms])
    def test_nothing_is_stored_or_sent(self, send):
        opt_out(NUMBER)
        self.refuse(send)
        self.refuse(send, exempt=True, sender="Shop")
        with transaction.atomic():
            self.refuse(send)
        assert not SmsLimit.objects.exists(), "it does not count"
        opt_in(NUMBER)
        assert send(SPELT, "Hello").pk

    @pytest.mark.parametrize("send", [send_sms, queue_sms])
    def test_of_one_sender(self, send, settings):
        settings.SMS_PROVIDERS = {
            "default": {"OPTIONS": {"api_key": "k", "api_password": "p", "sender_id": "Shop"}},
            "spare": {"OPTIONS": {"api_key": "k", "api_password": "p", "sender_id": "Clinic"}},
            "both": {
                "BACKEND": "django_smska.backends.failover.SmsBackend",
                "OPTIONS": {"providers": ["default", "spare"]},
            },
        }
        opt_out(NUMBER, sender="Clinic")
        self.refuse(send, sender="Clinic")
        self.refuse(send, using="spare")
        self.refuse(send, using="both")
        assert send(NUMBER, "Hello").pk and send(NUMBER, "Bye", using="spare", sender="Shop").pk

    def test_the_same_key_returns_the_first_message(self):
        first = send_sms(NUMBER, "Hello", idempotency_key="order-42")
        opt_out(NUMBER)
        assert send_sms(NUMBER, "Hello", idempotency_key="order-42") == first
        assert queue_sms(NUMBER, "Hello", idempotency_key="order-42") == first
        assert send_mass_sms([]) == 0 and len(outbox) == 1

    def test_rows_of_many(self):
        opt_out_many(numbers(10)[::2])
        result = send_mass_sms([(number, "Hello") for number in numbers(10)])
        assert result == 5 and result.bad == 5
        assert [index for index, _ in result.errors] == [0, 2, 4, 6, 8]
        assert all(type(error) is RecipientOptedOut for _, error in result.errors)
        assert set(SmsMessage.objects.values_list("to", flat=True)) == set(numbers(10)[1::2])

    def test_rows_of_many_beside_a_race_for_a_key(self, monkeypatch):
        opt_out(OTHER)
        send_sms(NUMBER, "Hello", idempotency_key="k1")
        monkeypatch.setattr("django_smska.sms._with_new_keys", lambda batch: (batch, []))
        rows = [
            SmsMessage(to=NUMBER, body="Hello", idempotency_key="k1"),
            SmsMessage(to=OTHER, body="Hello", idempotency_key="k2"),
            SmsMessage(to=numbers(1)[0], body="Hello"),
        ]
        result = send_mass_sms(rows)
        assert result == 1 and [index for index, _ in result.errors] == [1]

    @pytest.mark.slow
    def test_one_query_more_and_no_more_with_a_long_list(self):
        def cost(send):
            with CaptureQueriesContext(connection) as queries:
                send()
            asked = [one["sql"] for one in queries if "smsoptout" in one["sql"]]
            return sum(sql.startswith("SELECT") for sql in asked)

        opt_out_many(numbers(50))
        assert cost(lambda: send_sms(NUMBER, "Hello")) == 1
        assert cost(lambda: queue_sms(OTHER, "Hello")) == 1
        rows = [(f"+7901{n:07}", "Hello") for n in range(100)]
        assert cost(lambda: send_mass_sms(rows)) == 1
        assert cost(lambda: Worker().run_once()) <= 4

    def test_an_erased_person_still_gets_nothing(self):
        opt_out(NUMBER)
        personal_data.erase(SPELT)
        assert SmsOptOut.objects.get().number == ""
        self.refuse(send_sms)
        self.refuse(queue_sms)
        assert opt_in(NUMBER) == 1 and send_sms(NUMBER, "Hello").status == "sent"


@pytest.mark.django_db
class TestCodes:
    def test_a_code_is_refused_too(self):
        opt_out(NUMBER)
        with pytest.raises(RecipientOptedOut):
            send_sms(NUMBER, "Code 1234", code="1234")

    def test_a_code_that_the_caller_lets_pass(self):
        opt_out(NUMBER)
        message = send_sms(NUMBER, "Code 1234", code="1234", despite_opt_out=True)
        assert message.status == "sent" and len(outbox) == 1
        queued = queue_sms(NUMBER, "Code 777", code="777", despite_opt_out=True, exempt=True)
        Worker().run_once()
        queued.refresh_from_db()
        assert queued.status == "sent" and len(outbox) == 2
        row = SmsMessage(to=NUMBER, body="Code 5", code="5", despite_opt_out=True)
        assert send_mass_sms([row], exempt=True) == 1
        Worker().run_once()
        assert len(outbox) == 3

    @pytest.mark.parametrize("send", [send_sms, queue_sms])
    def test_only_a_code_may_pass(self, send):
        with pytest.raises(ValidationError) as caught:
            send(NUMBER, "Sale", despite_opt_out=True)
        assert caught.value.message_dict.keys() == {"despite_opt_out"}
        with pytest.raises(ValidationError):
            send(NUMBER, "Code 1", code="1", despite_opt_out="yes")
        assert not SmsMessage.objects.exists()

    def test_a_draft_keeps_it(self):
        draft = SmsMessage(to=NUMBER, body="Code 1", code="1", despite_opt_out=True)
        draft.save()
        opt_out(NUMBER)
        SmsMessage.objects.get().send()
        assert len(outbox) == 1


# --- while it waits -------------------------------------------------------------------------------


class TestClaims:
    def test_what_was_queued_before_is_cancelled(self, provider):
        heard = []

        def hear(message, old, new, **kwargs):
            heard.append((message.pk, old, new))

        sms_status_changed.connect(hear)
        try:
            messages = [queue_sms(number, "Hello") for number in numbers(6)]
            opt_out_many(numbers(6)[:3])
            Worker().run_once()
        finally:
            sms_status_changed.disconnect(hear)
        for message in messages[:3]:
            assert_cancelled(message)
        assert sent_to(provider) == numbers(6)[3:]
        assert {one for one in heard if one[2] == "cancelled"} == {
            (message.pk, "claimed", "cancelled") for message in messages[:3]
        }

    def test_a_sensitive_text_is_wiped(self, provider):
        message = queue_sms(NUMBER, "Code 1234", code="1234")
        opt_out(NUMBER)
        Worker().run_once()
        assert_cancelled(message)
        assert (message.body, message.code) == ("Code ••••", "")

    @pytest.mark.slow
    def test_a_long_row_of_them_does_not_end_the_pass(self, provider):
        """A claim of which nothing is left is followed by the next one."""
        send_mass_sms([(number, "Hello") for number in numbers(600)], exempt=True)
        opt_out_many(numbers(597))
        done = Worker(concurrency=4).run_once()
        assert (done["cancelled"], done["sent"]) == (597, 3)
        assert statuses() == {"cancelled": 597, "sent": 3}
        assert sent_to(provider) == numbers(600)[597:]

    def test_other_senders_go_on(self, provider):
        opt_out(NUMBER, sender="Other")
        queue_sms(NUMBER, "Hello")
        mine = queue_sms(OTHER, "Hello")
        opt_out(OTHER, sender="Test")  # the provider's own
        Worker().run_once()
        assert_cancelled(mine)
        assert sent_to(provider) == [NUMBER]

    def test_an_entry_that_is_removed_in_time_does_no_harm(self, provider):
        queue_sms(NUMBER, "Hello")
        opt_out(NUMBER)
        opt_in(NUMBER)
        assert Worker().run_once()["sent"] == 1

    def test_an_entry_that_is_not_committed_does_not_count(self, provider):
        message = queue_sms(NUMBER, "Hello")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            opt_out(NUMBER)
            raise ZeroDivisionError
        Worker().run_once()
        message.refresh_from_db()
        assert message.status == "sent"

    def test_queued_again_after_not_now(self, provider):
        provider.script(1, Fault("sent_error"))
        message = queue_sms(NUMBER, "Hello")
        Worker().run_once()
        message.refresh_from_db()
        assert message.status == "queued" and message.attempts == 1
        opt_out(NUMBER)
        SmsMessage.objects.update(send_after=timezone.now())
        Worker().run_once()
        message.refresh_from_db()
        assert (message.status, message.error_code) == ("cancelled", "opted-out")
        assert message.attempts == 1 and provider.sends == 1

    def test_a_task(self, provider, settings):
        from django_smska import tasks

        settings.SMSKA_TASKS = None
        messages = [queue_sms(number, "Hello") for number in (NUMBER, OTHER)]
        opt_out(NUMBER)
        done = Worker().send_these([message.pk for message in messages])
        assert done["sent"] == 1 and tasks.send_messages
        assert_cancelled(messages[0])
        assert sent_to(provider) == [OTHER]

    def test_a_failover(self, provider, settings):
        with StandInGateway() as second:
            settings.SMS_PROVIDERS = {
                "default": {
                    "BACKEND": "django_smska.backends.failover.SmsBackend",
                    "OPTIONS": {"providers": ["first", "second"]},
                },
                "first": {"OPTIONS": options(provider, sender_id="Shop")},
                "second": {"OPTIONS": options(second, sender_id="Clinic")},
            }
            messages = [queue_sms(number, "Hello") for number in numbers(3)]
            opt_out(numbers(3)[0])
            opt_out(numbers(3)[1], sender="Clinic")
            Worker().run_once()
            assert_cancelled(messages[0])
            assert_cancelled(messages[1])
            assert sent_to(provider) == numbers(3)[2:] and second.sends == 0

    def test_send_of_a_draft_or_a_queued_message(self, provider):
        draft = SmsMessage(to=NUMBER, body="Hello")
        draft.save()
        queued = queue_sms(NUMBER, "Bye")
        SmsLimit.objects.all().delete()
        opt_out(NUMBER)
        for message in (draft, queued):
            with pytest.raises(RecipientOptedOut) as caught:
                message.send()
            assert (caught.value.sms, caught.value.code) == (message.pk, "opted-out")
            assert message.status == "cancelled"
            assert_cancelled(message)
        assert provider.requests == [] and not SmsLimit.objects.exists()

    def test_a_draft_that_a_limit_refuses_stays_one(self, provider, settings):
        settings.SMSKA_LIMITS = {"number": "1/d"}
        send_sms(NUMBER, "Hello")
        draft = SmsMessage(to=NUMBER, body="Bye")
        draft.save()
        with pytest.raises(SmsNotSent):
            draft.send()
        draft.refresh_from_db()
        assert (draft.status, draft.token) == ("draft", "")

    def test_send_again(self, provider):
        message = send_sms(NUMBER, "Hello")
        SmsMessage.objects.update(status="delivered")
        opt_out(NUMBER)
        with pytest.raises(RecipientOptedOut):
            sending.resend(SmsMessage.objects.get())
        assert SmsMessage.objects.get() == message

    @pytest.mark.slow
    def test_queries_of_a_claim(self, provider):
        """At most one more for a batch, however many messages it has."""
        for many in (1, 200):
            SmsMessage.objects.all().delete()
            rows = [(f"+7902{many:03}{n:04}", "Hello") for n in range(many)]
            send_mass_sms(rows, exempt=True)
            with CaptureQueriesContext(connection) as queries:
                claimed = sending.claim(SmsMessage.objects.due(timezone.now()), timezone.now())
            assert len(claimed) == many
            asked = [one["sql"] for one in queries if "smsoptout" in one["sql"]]
            assert len(asked) == 1
            with CaptureQueriesContext(connection) as queries:
                assert len(sending.mark_sending(claimed)) == many
            # Beside it there may be one about the database's clock.
            assert [one["sql"].split()[0] for one in queries if "sms" in one["sql"]] == ["UPDATE"]
            assert sum("smsoptout" in one["sql"] for one in queries) == 1


class TestTheFirstByte:
    """An entry that comes between the claim and the first byte is obeyed, too."""

    @pytest.fixture(params=["plain", "erased"])
    def add(self, request):
        def add(number=NUMBER, **kwargs):
            opt_out(number, **kwargs)
            if request.param == "erased":
                SmsOptOut.objects.update(number="", reason="")

        return add

    def claimed(self, *to):
        for number in to:
            queue_sms(number, "Hello")
        messages = sending.claim(SmsMessage.objects.all(), timezone.now())
        assert len(messages) == len(to)
        return sorted(messages, key=lambda one: one.pk)

    def test_one_of_several(self, provider, add):
        first, second = self.claimed(NUMBER, OTHER)
        add()
        assert sending.mark_sending([first, second]) == {sending.claim_of(second)}
        assert first.status == "cancelled" and second.status == "sending"
        assert_cancelled(first)

    def test_of_its_sender(self, provider, add):
        add(sender="Test")
        SmsOptOut.objects.all().delete()
        first, second = self.claimed(NUMBER, OTHER)
        add(sender="Test")
        add(OTHER, sender="Other")
        assert sending.mark_sending([first, second]) == {sending.claim_of(second)}
        assert_cancelled(first)

    def test_beside_an_outcome_that_is_recorded(self, provider, add):
        from django_smska.receipts import Receipt

        first, second = self.claimed(NUMBER, OTHER)
        sending.mark_sending([second])
        add()
        accepted = [sending.Result(second, Receipt(gateway_id="17"))]
        assert sending.record_and_mark(accepted, [first]) == set()
        assert_cancelled(first)
        second.refresh_from_db()
        assert (second.status, second.gateway_id) == ("sent", "17")

    def test_a_code_that_may_pass(self, provider, add):
        queue_sms(NUMBER, "Code 1", code="1", despite_opt_out=True)
        (message,) = sending.claim(SmsMessage.objects.all(), timezone.now())
        add()
        assert len(sending.mark_sending([message])) == 1

    def test_an_older_key(self, provider, settings):
        opt_out(NUMBER)
        personal_data.erase(NUMBER)
        entry = SmsOptOut.objects.get()
        SmsOptOut.objects.all().delete()
        settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "a new key"
        first, second = self.claimed(NUMBER, OTHER)
        entry.save(force_insert=True)
        assert sending.mark_sending([first, second]) == {sending.claim_of(second)}

    def test_send_sms(self, provider, monkeypatch, add):
        self.interrupt(monkeypatch, add)
        with pytest.raises(RecipientOptedOut) as caught:
            send_sms(NUMBER, "Hello")
        message = SmsMessage.objects.get()
        assert caught.value.sms == message.pk
        assert_cancelled(message)
        assert provider.sends == 0

    def test_send_sms_that_may_wait(self, provider, monkeypatch, add):
        self.interrupt(monkeypatch, add)
        with pytest.raises(RecipientOptedOut):
            send_sms(NUMBER, "Hello", may_wait=True)
        assert_cancelled(SmsMessage.objects.get())

    def test_send_sms_after_the_commit(self, provider, caplog, add):
        with transaction.atomic():
            message = send_sms(NUMBER, "Hello")
            add()
        assert_cancelled(message)
        assert provider.sends == 0 and "do-not-send list" in caplog.text

    def test_send_of_a_message(self, provider, monkeypatch, add):
        message = queue_sms(NUMBER, "Hello")
        self.interrupt(monkeypatch, add)
        with pytest.raises(RecipientOptedOut):
            message.send()
        assert_cancelled(message)

    @pytest.mark.slow
    def test_a_worker(self, provider, monkeypatch, add):
        messages = [queue_sms(number, "Hello") for number in numbers(20)]
        mark = sending.record_and_mark
        added = []

        def after(accepted, going):
            if going and not added:
                added.append(True)
                elsewhere(lambda: [add(number) for number in numbers(20)[10:]])
            return mark(accepted, going)

        monkeypatch.setattr(sending, "record_and_mark", after)
        Worker(concurrency=4).run_once()
        assert sent_to(provider) == numbers(20)[:10]
        for message in messages[10:]:
            assert_cancelled(message)

    def interrupt(self, monkeypatch, add):
        mark = sending.mark_sending

        def after(messages):
            elsewhere(add)
            return mark(messages)

        monkeypatch.setattr(sending, "mark_sending", after)


@pytest.mark.slow
class TestRaces:
    def work(self, *jobs):
        """Run the jobs at once, each with a connection of its own, and raise what they raised."""
        failures = []

        def run(job):
            try:
                job()
            except BaseException as error:
                failures.append(error)
            finally:
                connections.close_all()

        threads = [threading.Thread(target=run, args=[job]) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []

    def send_all(self):
        worker = Worker(concurrency=8)
        while SmsMessage.objects.filter(status__in=["queued", "claimed", "sending"]).exists():
            worker.run_once()

    def test_entries_that_come_while_three_workers_send(self, provider):
        """A request leaves exactly for each number that is not on the list at its first byte."""
        every = numbers(300)
        send_mass_sms([(number, "Hello") for number in every], exempt=True)
        committed = {}

        def add():
            for number in reversed(every[::2]):
                opt_out(number)
                committed[number] = clock.now()

        self.work(self.send_all, self.send_all, self.send_all, add)
        assert len(committed) == 150
        sent = SmsMessage.objects.filter(status="sent")
        assert sent_to(provider) == sorted(sent.values_list("to", flat=True))
        assert statuses() == {"sent": len(sent), "cancelled": 300 - len(sent)}
        assert set(every[1::2]) <= {message.to for message in sent}
        late = [one.to for one in sent if one.sending_at > committed.get(one.to, one.sending_at)]
        assert late == []
        assert 0 < len(sent) - 150 < 150, "some were before and some after, or this proves nothing"

    def test_a_list_that_was_committed_before_the_workers_began(self, provider):
        every = numbers(300)
        send_mass_sms([(number, "Hello") for number in every], exempt=True)
        self.work(*(lambda part=part: opt_out_many(part) for part in (every[:90], every[60:200])))
        assert SmsOptOut.objects.count() == 200
        self.work(self.send_all, self.send_all, self.send_all)
        assert sent_to(provider) == every[200:]
        assert statuses() == {"sent": 100, "cancelled": 200}

    def test_many_processes_add_and_remove_the_same_numbers(self, transactional_db):
        every = numbers(200)
        self.work(*[lambda: opt_out_many(every)] * 2, *[lambda: [opt_in(n) for n in every]] * 2)
        assert opt_out_many(every) <= 200
        assert SmsOptOut.objects.count() == 200 and all(map(is_opted_out, every))


# --- the admin ------------------------------------------------------------------------------------

LIST = "/admin/django_smska/smsoptout/"
MESSAGES = "/admin/django_smska/smsmessage/"
RUSSIAN = "Телефон;Имя\r\n8 904 176-49-95;Анна\r\n8 905 123-45-67;Борис\r\n123;Кто-то\r\n"


@pytest.fixture
def staff(client, django_user_model):
    """Return a client of a user with these permissions."""

    def staff(*codenames):
        user = django_user_model.objects.create_user("anna", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        client.user = user
        return client

    return staff


KEEPER = ("view_smsoptout", "add_smsoptout", "delete_smsoptout")
SENDER = (
    *("view_smsmessage", "add_smsmessage", "change_smsmessage", "send_smsmessage"),
    *("resend_smsmessage", "see_text_smsmessage"),
)


def texts(response):
    return [str(one) for one in response.context["messages"]]


def file(data, name="list.csv"):
    data = data.encode() if isinstance(data, str) else data
    return SimpleUploadedFile(name, data)


def found(client, term):
    page = client.get(LIST, {"q": term})
    return [one.pk for one in page.context["cl"].result_list]


@pytest.mark.django_db
class TestAdmin:
    @pytest.mark.slow
    def test_the_list_and_its_search(self, admin_client):
        opt_out(NUMBER, sender="Shop", reason="wrote STOP", source="call centre")
        opt_out(OTHER)
        page = admin_client.get(LIST).content.decode()
        shown = [grouped(NUMBER), grouped(OTHER)]
        assert all(word in page for word in (*shown, "Shop", "wrote STOP", "call centre"))
        first = SmsOptOut.objects.get(number=NUMBER).pk
        for term in (NUMBER, SPELT, "9041764995", " tel:+79041764995 "):
            assert found(admin_client, term) == [first], term
        for term in ("4995", "Shop", "'\"%", "STOP"):
            assert found(admin_client, term) == []
        assert len(found(admin_client, " ")) == 2

    def test_an_erased_person_is_found_by_the_number(self, admin_client):
        opt_out(NUMBER)
        personal_data.erase(NUMBER)
        assert found(admin_client, SPELT) == [SmsOptOut.objects.get().pk]
        assert "erased number" in admin_client.get(LIST).content.decode()

    def test_add(self, staff):
        client = staff(*KEEPER, "see_number_smsmessage")
        new = {"number": SPELT, "sender": "Shop", "reason": "asked", "source": "letter"}
        client.post(f"{LIST}add/", new, follow=True)
        entry = SmsOptOut.objects.get()
        assert (entry.number, entry.sender, entry.reason, entry.source) == (
            NUMBER, "Shop", "asked", "letter",
        )  # fmt: skip
        assert entry.created_by == client.user and is_opted_out(NUMBER, sender="Shop")
        history = LogEntry.objects.get()
        assert (history.object_id, history.object_repr) == (str(entry.pk), "+7904•••4995")
        again = client.post(f"{LIST}add/", {**new, "reason": "again"}, follow=True)
        assert texts(again) == ["The number was on the list already. Its entry was not changed."]
        assert again.redirect_chain == [(LIST, 302)]
        assert SmsOptOut.objects.get().reason == "asked"
        assert LogEntry.objects.count() == 1

    def test_add_another(self, staff):
        client = staff(*KEEPER, "see_number_smsmessage")
        for new in (SPELT, SPELT):
            page = client.post(f"{LIST}add/", {"number": new, "_addanother": "1"})
            assert page.status_code == 302 and page.url == f"{LIST}add/"

    def test_only_the_page_to_add_has_hints(self, admin_client):
        opt_out(NUMBER)
        for page, has in (("add", True), (f"{SmsOptOut.objects.get().pk}/change", False)):
            words = admin_client.get(f"{LIST}{page}/").content.decode()
            assert ("Empty: all." in words) is has and ("Where the entry" in words) is has

    @pytest.mark.parametrize("new", [{"number": "123"}, {"number": SPELT, "reason": "r" * 201}])
    def test_add_what_is_wrong(self, admin_client, new):
        page = admin_client.post(f"{LIST}add/", new)
        assert page.status_code == 200 and page.context["errors"]
        assert not SmsOptOut.objects.exists()

    def test_an_empty_list_says_what_it_is_for(self, staff):
        client = staff("view_smsoptout")
        words = "No number is on this list yet."
        assert words in client.get(LIST).content.decode()
        assert words not in client.get(LIST, {"q": NUMBER}).content.decode()
        opt_out(NUMBER)
        assert words not in client.get(LIST).content.decode()

    def test_its_names_fit_into_sentences(self, staff):
        client = staff("view_smsoptout")
        opt_out(NUMBER)
        page = client.get(LIST).content.decode()
        assert "Do-not-send entries" in page and "1 do-not-send entry" in page
        names = Permission.objects.filter(codename__endswith="_smsoptout")
        assert {one.name for one in names} == {
            f"Can {verb} do-not-send entry" for verb in ("add", "delete", "view")
        }

    def test_delete(self, staff):
        client = staff(*KEEPER)
        opt_out(NUMBER)
        url = f"{LIST}{SmsOptOut.objects.get().pk}/delete/"
        page = client.post(url, {"post": "yes"}, follow=True)
        assert page.redirect_chain == [(LIST, 302)] and len(texts(page)) == 1
        assert not is_opted_out(NUMBER)
        assert [one.object_repr for one in LogEntry.objects.all()] == ["+7904•••4995"]

    @pytest.mark.slow
    def test_who_may_see_no_number_can_find_none_out(self, staff):
        client = staff(*KEEPER, *SENDER)
        opt_out(NUMBER, reason=f"wrote from {NUMBER}", source="letter")
        for term in (NUMBER, SPELT, "1764", "4995"):
            assert found(client, term) == []
        entry = SmsOptOut.objects.get()
        for url in (LIST, f"{LIST}{entry.pk}/change/", f"{LIST}?number={NUMBER}"):
            page = client.get(url, follow=True).content.decode()
            assert "1764" not in page, url
        assert "+7904•••4995" in client.get(LIST).content.decode()
        assert client.get(f"{LIST}import/").status_code == 403
        answers = []
        for number in (SPELT, OTHER):  # one is there, and the other is new
            page = client.post(f"{LIST}add/", {"number": number}, follow=True)
            answers += texts(page)
        assert answers == ["The number is on the do-not-send list."] * 2
        logged = [one.get_change_message() for one in LogEntry.objects.all()]
        assert logged == answers
        data = {"numbers": f"{NUMBER}\n+79261112233", "body": "Hello", "using": "default"}
        page = client.post(f"{MESSAGES}compose/", {**data, "nonce": "n", "_check": "1"})
        assert page.context["number"] == 2 and page.context["left_out"] == []
        assert "Numbers on the do-not-send list get nothing." in page.content.decode()

    def test_drafts_reveal_nothing_either(self, staff):
        client = staff(*KEEPER, *SENDER)
        draft = SmsMessage(to=NUMBER, body="Hello")
        draft.save()
        opt_out(NUMBER)
        page = client.get(f"{MESSAGES}send/", {"pks": draft.pk})
        assert page.context["plan"].opted_out == set()
        assert "Numbers on the do-not-send list get nothing." in page.content.decode()


@pytest.mark.django_db
class TestImport:
    def test_the_preview_and_then_the_list(self, staff):
        client = staff(*KEEPER, "see_number_smsmessage")
        opt_out(OTHER, reason="earlier")
        about = {"reason": "moved", "source": "old system", "sender": ""}
        page = client.post(f"{LIST}import/", {"file": file(RUSSIAN), **about, "_check": "1"})
        assert page.context["new"] == page.context["known"] == page.context["bad"] == 1
        assert [(one.line, one.written) for one in page.context["left_out"]] == [(4, "123")]
        assert "11 digits" in page.content.decode() or page.context["left_out"][0].why
        assert SmsOptOut.objects.count() == 1, "nothing is stored before"
        carried = {one.html_name: one.value() or "" for one in page.context["hidden"]}
        page = client.post(f"{LIST}import/", {**carried, "_add": "1"}, follow=True)
        assert texts(page) == ["1 number was added. 1 was on the list already."]
        entry = SmsOptOut.objects.get(number=NUMBER)
        assert (entry.reason, entry.source) == ("moved", "old system")
        assert entry.created_by == client.user
        assert SmsOptOut.objects.get(number=OTHER).reason == "earlier"
        assert "1 number was added" in LogEntry.objects.get().change_message

    def carried(self, page):
        assert "hidden" in page.context, page.context["errors"]
        return {one.html_name: one.value() or "" for one in page.context["hidden"]}

    def test_what_was_skipped_can_be_corrected(self, admin_client):
        typed = {"numbers": f"{NUMBER}\nОля 8904176499\n{OTHER}\n77", "reason": "asked"}
        page = admin_client.post(f"{LIST}import/", {**typed, "_check": "1"})
        assert page.context["to_correct"] == "Оля 8904176499\n77"
        assert "\nОля 8904176499\n77</textarea>" in page.content.decode()
        fixed = {**self.carried(page), "corrected": "Оля 89041764990\r\n77"}
        page = admin_client.post(f"{LIST}import/", {**fixed, "_add": "1"})
        assert not SmsOptOut.objects.exists(), "it is shown before it is added"
        assert (page.context["new"], page.context["to_correct"]) == (3, "77")
        same = {**self.carried(page), "corrected": "77"}
        admin_client.post(f"{LIST}import/", {**same, "_add": "1"})
        listed = SmsOptOut.objects.values_list("number", "reason")
        assert set(listed) == {(one, "asked") for one in (NUMBER, OTHER, "+79041764990")}

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(("\ufeff" + RUSSIAN).encode(), id="BOM"),
            pytest.param(RUSSIAN.encode("cp1251"), id="cp1251"),
            pytest.param(RUSSIAN.replace(";", ",").encode(), id="commas"),
            pytest.param(RUSSIAN.replace(";", "\t").encode("utf-16"), id="UTF-16"),
            pytest.param(b"+7 904 176-49-95\n+79051234567\n", id="no head"),
            pytest.param("№;Моб.\n1;79041764995,00\n2;+7 905 123 45 67\n".encode(), id="floats"),
        ],
    )
    def test_files_as_people_have_them(self, admin_client, tmp_path, data):
        page = admin_client.post(f"{LIST}import/", {"file": file(data), "_check": "1"})
        assert page.context["new"] == 2, page.context["errors"]
        path = tmp_path / "list.csv"
        path.write_bytes(data)
        run("sms_optout", "import", path, "--skip-wrong")
        assert is_opted_out(NUMBER) and is_opted_out(OTHER)

    @pytest.mark.parametrize(
        "data", [b"", b"%PDF", b"\0\1\2", b"Name;Order\nAnna;79041764995\n", b"nothing"]
    )
    def test_files_that_cannot_be_read(self, admin_client, tmp_path, data):
        page = admin_client.post(f"{LIST}import/", {"file": file(data), "_check": "1"})
        assert page.status_code == 200 and page.context["errors"]
        path = tmp_path / "list.csv"
        path.write_bytes(data)
        with pytest.raises(CommandError):
            run("sms_optout", "import", path)
        assert not SmsOptOut.objects.exists()

    def test_a_column_that_is_not_clear(self, admin_client, tmp_path):
        data = f"Phone;Phone 2\n{NUMBER};{OTHER}\n{NUMBER};{OTHER}\n"
        page = admin_client.post(f"{LIST}import/", {"file": file(data), "_check": "1"})
        assert "column" in str(page.context["errors"])
        again = {"file": file(data), "column_letter": "B", "_check": "1"}
        page = admin_client.post(f"{LIST}import/", again)
        assert (page.context["new"], page.context["doubled"]) == (1, 1)
        path = tmp_path / "list.csv"
        path.write_text(data)
        with pytest.raises(CommandError, match="column"):
            run("sms_optout", "import", path)
        assert "Twice in the file: 1." in run("sms_optout", "import", path, "--column", "b")
        assert is_opted_out(OTHER) and not is_opted_out(NUMBER)

    @pytest.mark.slow
    def test_many_lines(self, admin_client, tmp_path):
        many = 20_000 if ALL else 4000
        lines = "".join(f"8 (900) {n // 10000:03}-{n % 10000:04};Client {n}\n" for n in range(many))
        data = f"Phone;Name\n{lines}".encode()
        path = tmp_path / "list.csv"
        path.write_bytes(data)
        tracemalloc.start()
        run("sms_optout", "import", path)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert SmsOptOut.objects.count() == many
        assert most < many * 2000
        page = admin_client.post(f"{LIST}import/", {"file": file(data), "_check": "1"})
        assert (page.context["new"], page.context["known"]) == (0, many)

    def test_too_many(self, admin_client, monkeypatch):
        monkeypatch.setattr("django_smska.admin.opt_outs.ImportForm.most_numbers", 1)
        data = {"numbers": f"{NUMBER}\n{OTHER}", "_add": "1"}
        assert admin_client.post(f"{LIST}import/", data).context["errors"]
        assert not SmsOptOut.objects.exists()


@pytest.mark.django_db
class TestPages:
    @pytest.mark.slow
    def test_send_says_what_will_be_cancelled(self, admin_client):
        drafts = [SmsMessage(to=number, body="Hello") for number in (NUMBER, OTHER)]
        for draft in drafts:
            draft.save()
        opt_out(NUMBER)
        keys = ",".join(str(draft.pk) for draft in drafts)
        page = admin_client.get(f"{MESSAGES}send/", {"pks": keys})
        assert page.context["plan"].opted_out == {drafts[0].pk}
        words = page.content.decode()
        assert "1 of them will be cancelled, because its number is on the do-not-send list" in words
        assert words.count("(on the do-not-send list)") == 1
        assert [message.to for message in outbox] == []
        page = admin_client.post(f"{MESSAGES}send/", {"pks": keys}, follow=True)
        assert any(one.startswith("Cancelled: <a ") for one in texts(page))
        assert_cancelled(drafts[0])
        assert [message.to for message in outbox] == [OTHER]
        page = admin_client.get(f"{MESSAGES}{drafts[0].pk}/change/").content.decode()
        assert "never sent, because its number is on the do-not-send list" in page
        history = admin_client.get(f"{MESSAGES}{drafts[0].pk}/history/").content.decode()
        assert "Cancelled: This number is on the do-not-send list." in history

    def test_save_and_send(self, admin_client, django_capture_on_commit_callbacks):
        opt_out(NUMBER)
        data = {
            "to": NUMBER, "body": "Hello", "using": "default", "priority": "0",
            "send_after_0": "2026-01-01", "send_after_1": "12:00", "_send": "1",
        }  # fmt: skip
        with django_capture_on_commit_callbacks(execute=True):
            admin_client.post(f"{MESSAGES}add/", data)
        assert_cancelled(SmsMessage.objects.get())
        assert outbox == []

    def test_send_again(self, admin_client):
        message = send_sms(NUMBER, "Hello")
        SmsMessage.objects.update(status="unknown", gateway_id="")
        opt_out(NUMBER)
        page = admin_client.get(f"{MESSAGES}resend/", {"pks": message.pk}).content.decode()
        assert "1 of them will not be sent again, because its number is" in page
        page = admin_client.post(f"{MESSAGES}resend/", {"pks": message.pk}, follow=True)
        assert any(one.startswith("Not sent: <a ") for one in texts(page))
        assert SmsMessage.objects.get().status == "unknown"

    def test_compose(self, admin_client):
        opt_out(NUMBER, sender="Shop")
        data = {
            "numbers": f"{SPELT}\n{OTHER}\n123", "body": "Hello", "using": "default",
            "sender": "Shop", "nonce": "n",
        }  # fmt: skip
        page = admin_client.post(f"{MESSAGES}compose/", {**data, "_check": "1"})
        assert (page.context["number"], page.context["opted_out"]) == (1, 1)
        assert [(one.line, one.written) for one in page.context["left_out"]] == [
            (1, NUMBER), (3, "123"),
        ]  # fmt: skip
        assert "It is on the do-not-send list." in page.content.decode()
        page = admin_client.post(f"{MESSAGES}compose/", {**data, "_send": "1"}, follow=True)
        assert "1 number is on the do-not-send list and gets nothing." in texts(page)
        assert [message.to for message in outbox] == [OTHER]
        assert SmsMessage.objects.count() == 1
        page = admin_client.post(f"{MESSAGES}compose/", {**data, "sender": "", "_check": "1"})
        assert (page.context["number"], page.context["opted_out"]) == (2, 0)

    def test_compose_to_none_but_opted_out(self, admin_client):
        opt_out(NUMBER)
        data = {"numbers": NUMBER, "body": "Hello", "using": "default", "nonce": "n"}
        page = admin_client.post(f"{MESSAGES}compose/", {**data, "_check": "1"})
        assert page.context["number"] == 0 and 'name="_send"' not in page.content.decode()
        admin_client.post(f"{MESSAGES}compose/", {**data, "_send": "1"}, follow=True)
        assert not SmsMessage.objects.exists()


# --- the command ----------------------------------------------------------------------------------


def run(*arguments):
    out = io.StringIO()
    call_command(*map(str, arguments), stdout=out, stderr=out)
    return out.getvalue()


@pytest.mark.django_db
class TestCommand:
    def test_add_list_and_remove(self):
        about = ("--reason", "asked", "--source", "letter", "--sender", "Shop")
        assert run("sms_optout", "add", SPELT, OTHER, *about).startswith(
            "Added: 2. On the list already: 0."
        )
        assert run("sms_optout", "add", NUMBER, *about).startswith(
            "Added: 0. On the list already: 1."
        )
        with pytest.raises(CommandError, match="--reason: This is longer than 200 characters"):
            run("sms_optout", "add", NUMBER, "--reason", "r" * 201)
        lines = run("sms_optout", "list").splitlines()
        assert [line.split("\t")[0] for line in lines] == [NUMBER, OTHER]
        assert lines[0].split("\t")[1::2] == ["Shop", "letter"] and lines[0].endswith("\tasked")
        assert run("sms_optout", "list", "8 905 123-45-67").count("\n") == 1
        assert run("sms_optout", "list", "--sender", "Other") == ""
        assert run("sms_optout", "remove", SPELT, "--sender", "Other") == (
            "Removed 0 entries of 1 numbers.\n"
        )
        assert run("sms_optout", "remove", SPELT) == "Removed 1 entries of 1 numbers.\n"
        assert not is_opted_out(NUMBER, sender="Shop") and is_opted_out(OTHER, sender="Shop")

    def test_numbers_of_the_input(self, monkeypatch):
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{SPELT}\n\n{OTHER}\n"))
        run("sms_optout", "add", "-")
        assert is_opted_out(NUMBER) and is_opted_out(OTHER)

    @pytest.mark.parametrize(
        "arguments",
        [
            ("add", NUMBER, "123"),
            ("add",),
            ("remove",),
            ("import",),
            ("import", "/no/such/file"),
            ("add", NUMBER, "--reason", "r" * 201),
            ("add", NUMBER, "--sender", "two\nlines"),
        ],
    )
    def test_what_is_wrong_is_said_and_nothing_is_stored(self, arguments):
        with pytest.raises(CommandError) as caught:
            run("sms_optout", *arguments)
        assert str(caught.value) and NUMBER not in str(caught.value)
        assert not SmsOptOut.objects.exists()

    def test_wrong_lines_of_a_file(self, tmp_path):
        path = tmp_path / "list.csv"
        path.write_text(RUSSIAN, encoding="utf-8")
        with pytest.raises(CommandError, match=r"1 entries are no numbers[^$]*line 4: "):
            run("sms_optout", "import", path)
        assert not SmsOptOut.objects.exists()
        out = run("sms_optout", "import", path, "--skip-wrong", "--source", "file")
        assert "line 4: " in out and "Added: 2." in out
        assert "Added: 0. On the list already: 2." in run(
            "sms_optout", "import", path, "--skip-wrong"
        )
        assert set(SmsOptOut.objects.values_list("source", flat=True)) == {"file"}

    def test_an_erased_person(self):
        run("sms_optout", "add", NUMBER)
        run("sms_prune", "--number", NUMBER)
        assert run("sms_optout", "list").startswith("erased\t")
        assert '"record": "do-not-send"' in run("sms_person", SPELT)
        assert "Removed 1 " in run("sms_optout", "remove", SPELT)

    @pytest.mark.slow
    def test_without_the_admin(self):
        """The command reads files without django.contrib.admin, too."""
        code = (
            "import django; from django.conf import settings; settings.configure("
            "INSTALLED_APPS=['django.contrib.contenttypes', 'django.contrib.auth',"
            "'django_smska']); django.setup();"
            "from django.core.management import load_command_class as load;"
            "load('django_smska', 'sms_optout').print_help('manage.py', 'sms_optout')"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0 and "NUMBER|FILE" in done.stdout, done.stderr

"""Messages that phones send: stored once, announced once, and STOP is obeyed."""

import threading
from collections import Counter
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.core.checks import run_checks
from django.db import IntegrityError, OperationalError, connection, connections, transaction
from django.utils import timezone

from django_smska import conf, inbound, opt_out, replies
from django_smska.exceptions import RecipientOptedOut
from django_smska.inbound import receive
from django_smska.models import SmsInbound, SmsOptOut, rows
from django_smska.opt_out import is_opted_out
from django_smska.receipts import Inbound
from django_smska.signals import sms_received
from django_smska.sms import outbox, queue_sms, send_sms
from django_smska.worker import Worker

from .test_opt_out import locals_of

NUMBER, OTHER, OURS = "+79041764995", "+79051234567", "+79990001122"


def reply(body="Да, приду", *, sender="79041764995", to=OURS, gateway_id=""):
    return Inbound(sender=sender, to=to, body=body, gateway_id=gateway_id)


@pytest.fixture
def heard():
    """Return what receivers of the signal got."""
    heard = []

    def receiver(sender, inbound, **kwargs):
        assert sender is SmsInbound and set(kwargs) == {"signal"}
        heard.append(inbound)

    sms_received.connect(receiver)
    yield heard
    sms_received.disconnect(receiver)


def listed():
    return sorted(SmsOptOut.objects.values_list("number", "sender"))


# --- stored once ----------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
class TestReceive:
    def test_a_message_is_stored_and_announced(self, heard):
        begun = timezone.now()
        assert receive("default", [reply(gateway_id="SM17")]) == 1
        row = SmsInbound.objects.get()
        assert (row.using, row.sender, row.to, row.body, row.gateway_id) == (
            "default", NUMBER, OURS, "Да, приду", "SM17",
        )  # fmt: skip
        assert begun <= row.received_at <= timezone.now()
        assert heard == [row] and heard[0].body == "Да, приду"
        assert not SmsOptOut.objects.exists()

    def test_a_repeated_delivery_changes_nothing(self, heard):
        assert receive("default", [reply("first", gateway_id="17")]) == 1
        before = SmsInbound.objects.values().get()
        assert receive("default", [reply("second", gateway_id="17", sender=OTHER)]) == 0
        assert SmsInbound.objects.values().get() == before
        assert len(heard) == 1

    def test_a_repeated_stop_changes_nothing(self):
        receive("default", [reply("STOP", gateway_id="17")])
        opt_out.opt_in(NUMBER)
        assert receive("default", [reply("STOP", gateway_id="17")]) == 0
        assert not SmsOptOut.objects.exists()

    def test_an_id_is_compared_character_by_character(self):
        ids = ["sm1", "SM1", "sm1 ", "śm1", "x" * 65, "x" * 66]
        assert receive("default", [reply(gateway_id=one) for one in ids]) == 6
        assert receive("default", [reply(gateway_id=one) for one in ids]) == 0
        assert SmsInbound.objects.count() == 6

    def test_an_id_belongs_to_its_provider(self):
        assert receive("default", [reply(gateway_id="17")]) == 1
        assert receive("bulk", [reply(gateway_id="17")]) == 1

    def test_the_same_id_twice_in_one_delivery(self, heard):
        assert receive("default", [reply(gateway_id="17"), reply(gateway_id="17")]) == 1
        assert len(heard) == 1

    def test_without_an_id_each_is_stored(self, heard):
        assert receive("default", [reply(), reply()]) == 2
        assert receive("default", [reply()]) == 1
        assert set(SmsInbound.objects.values_list("gateway_id")) == {(None,)}
        assert len(heard) == 3

    def test_nothing_is_nothing(self, django_assert_num_queries):
        with django_assert_num_queries(0):
            assert receive("default", []) == 0

    @pytest.mark.parametrize(
        ("number", "stored"),
        [
            ("8 (904) 176-49-95", NUMBER),
            ("9041764995", NUMBER),
            ("+12025550123", "+12025550123"),
            ("375291234567", "+375291234567"),  # as Infobip writes it
            ("12025550123", "+12025550123"),
            ("2025550123", "2025550123"),  # may be national
            ("1234", "1234"),
            ("MyBank", "MyBank"),
            ("Банк\nи ещё что-то длинное, чего не бывает", "Банк и ещё что-то длинное, чего "),
            ("", ""),
        ],
    )
    def test_a_number_is_stored_as_e164_where_it_is_one(self, number, stored):
        receive("default", [reply(sender=number)])
        assert SmsInbound.objects.get().sender == stored

    def test_whatever_stands_in_a_message(self, heard):
        body = "\0 \ud800 😀 " + "ы" * 5000
        assert receive("default", [reply(body, to="4" * 50, gateway_id="\0ы")]) == 1
        row = SmsInbound.objects.get()
        assert row.body.startswith("? ? ") and len(row.body) == 4000
        assert row.to == "4" * 32 and len(row.gateway_id) == 64
        assert heard[0].body == row.body
        assert receive("default", [reply(gateway_id="\0ы")]) == 0

    def test_the_signal_waits_for_the_commit_of_the_caller(self, heard):
        with transaction.atomic():
            assert receive("default", [reply(gateway_id="17")]) == 1
            assert heard == []
        assert len(heard) == 1
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            receive("default", [reply(gateway_id="18")])
            raise ZeroDivisionError
        assert len(heard) == 1 and SmsInbound.objects.count() == 1
        assert receive("default", [reply(gateway_id="18")]) == 1

    def test_a_receiver_that_fails_disturbs_nothing(self, heard, caplog):
        def broken(**kwargs):
            raise ZeroDivisionError

        sms_received.connect(broken)
        try:
            assert receive("default", [reply("STOP"), reply()]) == 2
        finally:
            sms_received.disconnect(broken)
        assert len(heard) == 2 and is_opted_out(NUMBER)
        assert "ZeroDivisionError" in caplog.text

    def test_what_failed_is_stored_when_it_is_delivered_again(self, heard):
        delivery = [reply(gateway_id="1"), reply("STOP", gateway_id="2"), reply(gateway_id="3")]
        with refusing("smsoptout", OperationalError), pytest.raises(OperationalError):
            receive("default", delivery)
        assert [row.gateway_id for row in SmsInbound.objects.all()] == ["1"]
        assert len(heard) == 1 and not SmsOptOut.objects.exists()
        assert receive("default", delivery) == 2
        assert SmsInbound.objects.count() == 3 and is_opted_out(NUMBER) and len(heard) == 3

    def test_another_refusal_of_the_database_is_no_repetition(self):
        with refusing("INSERT", IntegrityError), pytest.raises(IntegrityError):
            receive("default", [reply(gateway_id="1")])
        with refusing("INSERT", IntegrityError), pytest.raises(IntegrityError):
            receive("default", [reply()])

    def test_no_error_shows_a_number_or_a_text(self):
        with refusing("INSERT", IntegrityError), pytest.raises(IntegrityError) as caught:
            receive("default", [reply("Мой код 12-34")])
        shown = [*locals_of(caught.value), repr(reply("Мой код 12-34"))]
        assert not any("1764" in one or "Мой" in one for one in shown)


@contextmanager
def refusing(words, error):
    """Let the database fail in queries with these words."""

    def fail(execute, sql, params, many, context):
        if words in sql:
            raise error("refused")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(fail):
        yield


# --- races ----------------------------------------------------------------------------------------


def at_once(*jobs):
    """Run the jobs in threads with connections of their own; return what they returned."""
    together, results, failures = threading.Barrier(len(jobs)), [], []

    def run(job):
        try:
            together.wait()
            results.append(job())
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
    return results


@pytest.mark.django_db(transaction=True)
class TestRaces:
    def test_one_that_is_committed_after_it_was_looked_for(self, heard, monkeypatch):
        """The other process commits between the query and the INSERT."""
        known, asked = inbound._known, []

        def late(alias, ids):
            found = known(alias, ids)
            if not asked:
                asked.append(ids)
                at_once(lambda: receive("default", [reply("STOP", gateway_id="17")]))
            return found

        monkeypatch.setattr(inbound, "_known", late)
        delivery = [reply("STOP", gateway_id="17"), reply(gateway_id="18")]
        assert receive("default", delivery) == 1
        assert Counter(row.gateway_id for row in heard) == {"17": 1, "18": 1}
        assert SmsInbound.objects.count() == 2 and len(listed()) == len(set(listed())) == 2

    @pytest.mark.slow
    @pytest.mark.parametrize("body", ["Да", "STOP"])
    def test_four_that_deliver_the_same(self, heard, body):
        each = [reply(body, gateway_id=str(n), sender=f"+7900{n % 7:07}") for n in range(40)]
        deliveries = [each, each[::-1], each[20:] + each[:20], each[::2] + each[1::2]]
        counts = at_once(*(lambda one=one: receive("default", one) for one in deliveries))
        assert sum(counts) == 40
        assert Counter(row.gateway_id for row in heard) == dict.fromkeys(map(str, range(40)), 1)
        assert SmsInbound.objects.count() == 40
        assert SmsOptOut.objects.count() == (14 if body == "STOP" else 0)


# --- STOP -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        *("STOP", "stop", " Stop. ", "«стоп»", "СТОП!!!", "Отписка", "отписаться 🙏", "Quit"),
        *("\u200bSTOP\ufeff", "ＳＴＯＰ", "unsubscribe\r\n", "stop  all", '"Stop"', "STOP\0"),
    ],
)
def test_a_stop_word(body):
    assert replies.stop_word(body, conf.stop_words())


@pytest.mark.parametrize(
    "body",
    [
        *("STOP 12345", "1 STOP", "Не СТОП", "стопка", "STOP-STOP", "START", "СТАРТ", "CANCEL"),
        *("END", "Отмена", "", " ", "!", "...", "🙏", "STOP" * 10_000, "\0"),
    ],
)
def test_no_stop_word(body):
    assert not replies.stop_word(body, conf.stop_words())


def test_the_words_are_a_setting(settings):
    settings.SMSKA_STOP_WORDS = ["Хватит!", "no more"]
    words = conf.stop_words()
    assert [replies.stop_word(one, words) for one in ("хватит", "No  More.", "STOP")] == [
        "ХВАТИТ", "NO MORE", "",
    ]  # fmt: skip
    for none in ([], (), None):
        settings.SMSKA_STOP_WORDS = none
        assert conf.stop_words() == frozenset()


@pytest.mark.parametrize("value", ["STOP", ["STOP", ""], ["!"], [b"STOP"], 7, {"STOP": 1}, True])
def test_a_wrong_setting_is_reported(settings, value):
    settings.SMSKA_STOP_WORDS = value
    [error] = [one for one in run_checks(tags=["sms"], databases=[]) if one.id == "smska.E011"]
    assert "SMSKA_STOP_WORDS must be a list of words" in error.msg


def entry(**options):
    return {"OPTIONS": {"api_key": "k", "api_password": "p", **options}}


@pytest.mark.django_db
class TestStop:
    @pytest.fixture(autouse=True)
    def site(self, settings):
        settings.SMS_PROVIDERS = {
            "default": entry(sender_id="MyShop"),
            "clinic": entry(sender_id="Clinic"),
            "both": {
                "BACKEND": "django_smska.backends.failover.SmsBackend",
                "OPTIONS": {"providers": ["clinic", "default"]},
            },
            "anonymous": entry(sender_id=""),
        }

    def test_the_number_gets_no_more_from_this_sender(self):
        send_sms(NUMBER, "Скидки")
        queued = queue_sms(NUMBER, "Скидки")
        receive("default", [reply("Стоп!")])
        assert listed() == [(NUMBER, OURS), (NUMBER, "MyShop")]
        assert set(SmsOptOut.objects.values_list("reason", "source")) == {("СТОП", "STOP")}
        for send in (send_sms, queue_sms):
            for kwargs in ({}, {"using": "both"}, {"sender": "MyShop"}, {"sender": OURS}):
                with pytest.raises(RecipientOptedOut):
                    send(NUMBER, "Скидки", **kwargs)
        Worker().run_once()
        queued.refresh_from_db()
        assert (queued.status, queued.error_code, len(outbox)) == ("cancelled", "opted-out", 1)

    def test_others_still_write_and_others_still_get(self):
        receive("default", [reply("STOP")])
        assert send_sms(NUMBER, "Приём в 14:30", using="clinic").status == "sent"
        assert send_sms(OTHER, "Скидки").status == "sent"

    def test_a_code_that_was_asked_for_still_comes(self):
        receive("default", [reply("STOP")])
        assert send_sms(NUMBER, "Код 1234", code="1234", despite_opt_out=True).status == "sent"

    def test_any_other_text_stops_nothing(self):
        receive("default", [reply("STOP 12345"), reply("Не надо")])
        assert listed() == [] and send_sms(NUMBER, "Скидки").status == "sent"

    def test_a_start_word_removes_nothing(self):
        receive("default", [reply("STOP"), reply("START"), reply("СТАРТ")])
        assert is_opted_out(NUMBER)

    def test_the_sender_that_wrote_last_is_stopped_too(self):
        """The alias writes from several names, and all replies go to one number."""
        send_sms(NUMBER, "Приём в 14:30", sender="Clinic")
        send_sms(NUMBER, "Скидки", sender="Sales")
        send_sms(NUMBER, "Приём в 15:30", sender="School", using="clinic")
        queue_sms(NUMBER, "Приём в 16:30", sender="Clinic")
        rows().filter(sender="Sales").update(sending_at=timezone.now() - timedelta(minutes=1))
        rows().filter(sender="Clinic", status="sent").update(
            sending_at=timezone.now() - timedelta(minutes=2)
        )
        receive("default", [reply("STOP", to="1234")])
        assert listed() == [(NUMBER, "1234"), (NUMBER, "MyShop"), (NUMBER, "Sales")]

    def test_our_number_in_both_spellings(self):
        receive("default", [reply("STOP", to="79990001122")])
        assert listed() == [(NUMBER, OURS), (NUMBER, "79990001122"), (NUMBER, "MyShop")]

    @pytest.mark.parametrize("alias", ["anonymous", "gone"])
    def test_where_messages_name_no_sender_all_are_stopped(self, alias):
        receive(alias, [reply("STOP")])
        assert listed() == [(NUMBER, "")]
        with pytest.raises(RecipientOptedOut):
            send_sms(NUMBER, "Скидки", using="anonymous")

    def test_a_sender_that_the_list_cannot_hold_stops_all(self, settings):
        settings.SMS_PROVIDERS = {"default": entry(sender_id="x" * 33)}
        receive("default", [reply("STOP", to="")])
        assert listed() == [(NUMBER, "")]

    def test_what_is_no_number_is_stored_and_noted(self, caplog):
        assert receive("default", [reply("STOP", sender="MyBank")]) == 1
        assert listed() == [] and "no phone number" in caplog.text

    def test_an_entry_that_is_there_stays(self):
        opt_out.opt_out(NUMBER, sender="MyShop", reason="by phone")
        receive("default", [reply("STOP", to="")])
        assert SmsOptOut.objects.get().reason == "by phone"

    def test_by_the_words_of_the_site(self, settings):
        settings.SMSKA_STOP_WORDS = ["хватит"]
        receive("default", [reply("STOP")])
        assert listed() == []
        receive("default", [reply("ХВАТИТ")])
        assert is_opted_out(NUMBER)


def test_a_stored_reply_shows_neither_number_nor_text():
    row = SmsInbound(sender=NUMBER, to=OURS, body="Да, приду")
    for shown in (repr(row), str(row), repr(reply())):
        assert NUMBER[2:] not in shown and "приду" not in shown

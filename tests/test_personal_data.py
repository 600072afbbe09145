"""How long numbers and texts are kept, how a person is erased, and what a person's file holds."""

import json
import re
import sys
import tracemalloc
from datetime import datetime, timedelta
from io import StringIO
from urllib.parse import urlencode

import pytest
from django.apps import apps
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Permission, User
from django.core.checks import run_checks
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models import ProtectedError
from django.test.utils import CaptureQueriesContext, override_settings
from django.utils import timezone

from django_smska import daily_counts, limits, personal_data, retention, sending
from django_smska.admin.actions import log
from django_smska.exceptions import WrongStatus
from django_smska.keyed_hash import keyed_hash
from django_smska.models import (
    ProviderState,
    SmsDay,
    SmsDayCount,
    SmsErasure,
    SmsInbound,
    SmsLimit,
    SmsMailing,
    SmsMessage,
    SmsOptOut,
    SmsTemplate,
)
from django_smska.sms import outbox, queue_sms, send_sms
from django_smska.states import FINAL, Status
from tests import columns
from tests.documents import DOCUMENTS
from tests.extent import ALL
from tests.rows import message as row

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

LIST = "/admin/django_smska/smsmessage/"
ERASURES = "/admin/django_smska/smserasure/"
NUMBER, OTHER, TEXT = "+79041764995", "+79051234567", "Ваш заказ готов"
SPELT = "8 (904) 176-49-95"
LONG_AGO = timedelta(days=200)


def run(*arguments):
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def make(status="delivered", number=1, *, to=NUMBER, body=TEXT, age=LONG_AGO, **fields):
    """Store messages that were written so long ago; return the last one."""
    at = timezone.now() - age
    made = [row(to, body, status, at, **fields) for _ in range(number)]
    SmsMessage.objects.bulk_create(made, batch_size=1000)
    return SmsMessage.objects.latest("id")


def make_received(number=1, *, sender=NUMBER, body=TEXT, age=LONG_AGO, **fields):
    """Store messages that came so long ago; return the last one."""
    at = timezone.now() - age
    fields = {"using": "default", "to": "1234", **fields}
    SmsInbound.objects.bulk_create(
        [SmsInbound(sender=sender, body=body, received_at=at, **fields) for _ in range(number)],
        batch_size=1000,
    )
    return SmsInbound.objects.latest("id")


def whole():
    """Return the statuses of the messages that still have number and text."""
    return set(SmsMessage.objects.exclude(to="").values_list("status", flat=True))


def dump():
    """Return all that is in our tables and in the admin's log, as text."""
    models = (SmsMessage, SmsInbound, SmsOptOut, SmsErasure, SmsLimit, LogEntry)
    return "\n".join(str(one) for model in models for one in model.objects.values())


def assert_no_number(text, number=NUMBER):
    for part in (number, number[1:], number[2:], TEXT, "заказ"):
        assert part not in text


# --- blanking ----------------------------------------------------------------------------------


class TestBlank:
    @pytest.fixture(autouse=True)
    def blank(self, settings):
        settings.SMSKA_PRUNE = "blank"

    def test_what_is_finished_is_blanked_and_nothing_else(self):
        for status in Status:
            make(status, idempotency_key=f"{NUMBER}-{status}", gateway_id="17", sender="Shop")
        assert run("sms_prune").startswith(f"Blanked {len(FINAL)} messages that were finished ")
        assert whole() == set(Status) - FINAL
        for one in SmsMessage.objects.filter(to=""):
            assert one.status in FINAL and one.erased_at is not None
            assert (one.body, one.error_text, one.gateway_id, one.gateway_status) == ("",) * 4
            assert (one.idempotency_key, one.sender, one.segments) == (None, "Shop", 1)

    def test_what_was_finished_lately_stays(self):
        make(age=timedelta(days=100))
        assert run("sms_prune").startswith("Blanked 0 ")
        assert whole() == {"delivered"}

    def test_a_dry_run_counts_the_same_and_changes_nothing(self):
        make("failed", 3)
        assert run("sms_prune", "--dry-run").startswith("Would blank 3 messages")
        assert whole() == {"failed"}

    @pytest.mark.parametrize("batch", [1, 2, 3, 1000])
    def test_a_second_run_finds_nothing(self, monkeypatch, batch):
        monkeypatch.setattr(retention, "BATCH_ROWS", batch)
        make("unknown", 2)
        make("delivered", 5)
        make("sent", 2)
        assert run("sms_prune").startswith("Blanked 5 ")
        erased = set(SmsMessage.objects.values_list("erased_at"))
        assert run("sms_prune").startswith("Blanked 0 ")
        assert set(SmsMessage.objects.values_list("erased_at")) == erased

    def test_a_resend_stands_in_no_way(self):
        first = make("failed")
        make("sent", age=timedelta(days=1), resend_of=first)
        assert run("sms_prune").startswith("Blanked 1 ")
        assert SmsMessage.objects.latest("id").resend_of_id == first.pk

    def test_the_statistics_keep_their_numbers(self):
        def counted():
            names = ("status", "error_code", "messages", "segments")
            return sorted(SmsDayCount.objects.values_list(*names))

        make("failed", 3)
        make("delivered", 2)
        daily_counts.catch_up()
        before = counted()
        run("sms_prune")
        daily_counts.days().update(settled=False, counted_at=None)
        daily_counts.catch_up()
        assert before and counted() == before

    def test_the_key_sends_again(self):
        make(idempotency_key="order-1")
        run("sms_prune")
        assert queue_sms(NUMBER, TEXT, idempotency_key="order-1").status == "queued"

    def test_it_is_not_sent_again(self):
        message = make("failed")
        run("sms_prune")
        with pytest.raises(WrongStatus, match="Its number and text were erased"):
            sending.resend(message)
        assert SmsMessage.objects.count() == 1

    def test_delete_deletes_what_was_blanked(self, settings):
        make("delivered", 3)
        run("sms_prune")
        settings.SMSKA_PRUNE = "delete"
        assert run("sms_prune").startswith("Deleted 3 ")

    def test_the_pages_of_the_admin(self, client):
        client.force_login(User.objects.create_superuser("boss"))
        for status in sorted(FINAL):
            make(status)
        run("sms_prune")
        page = client.get(LIST)
        assert page.status_code == 200
        assert page.content.decode().count("(erased)") == 2 * len(FINAL)  # number and text
        for message in SmsMessage.objects.all():
            page = client.get(f"{LIST}{message.pk}/change/").content.decode()
            assert "(erased)" in page and "Number and text erased" in page
            assert "Send again" not in page
            assert client.get(f"{LIST}{message.pk}/history/").status_code == 200
        table = client.post(f"{LIST}export/", {"_csv": "1"})
        assert b"".join(table.streaming_content).decode().count("(erased)") == len(FINAL)
        assert client.get(f"{LIST}?q=4995").context["cl"].result_count == 0

    def test_an_index_leads_past_what_is_blank(self):
        """So that a run costs what it blanks, and not what was blanked in ten years."""
        make("delivered", 2000)
        SmsMessage.objects.update(erased_at=timezone.now(), to="")
        make("delivered", 10)
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("ANALYZE django_smska_smsmessage")
        with CaptureQueriesContext(connection) as queries:
            run("sms_prune", "--dry-run")
        [sql] = [one["sql"] for one in queries if "erased_at" in one["sql"]]
        explain = {"sqlite": "EXPLAIN QUERY PLAN "}.get(connection.vendor, "EXPLAIN ")
        with connection.cursor() as cursor:
            cursor.execute(explain + sql)
            plan = str(cursor.fetchall())
        assert "smska_erased" in plan


class TestReceived:
    @pytest.mark.parametrize("batch", [1, 2, 1000])
    def test_old_ones_are_deleted(self, monkeypatch, batch):
        monkeypatch.setattr(retention, "BATCH_ROWS", batch)
        make_received(5)
        new = make_received(age=timedelta(days=100))
        assert "Would delete 5 messages that were received" in run("sms_prune", "--dry-run")
        assert SmsInbound.objects.count() == 6
        out = run("sms_prune")
        assert out.startswith("Deleted 0 ") and "Deleted 5 messages that were received" in out
        assert SmsInbound.objects.get() == new
        assert "received" not in run("sms_prune")

    @pytest.mark.parametrize("batch", [1, 2, 1000])
    def test_or_blanked(self, monkeypatch, settings, batch):
        settings.SMSKA_PRUNE = "blank"
        monkeypatch.setattr(retention, "BATCH_ROWS", batch)
        for number in range(5):
            make_received(gateway_id=f"in{number}")
        make_received(sender="", body=TEXT)
        make_received(age=timedelta(days=100), sender=OTHER, gateway_id="new")
        assert "Would blank 6 messages that were received" in run("sms_prune", "--dry-run")
        assert "Blanked 6 messages that were received" in run("sms_prune")
        rows = SmsInbound.objects.values_list("sender", "body", "gateway_id", "to", "using")
        assert sorted(rows, key=str) == [
            *[("", "", None, "1234", "default")] * 6, (OTHER, TEXT, "new", "1234", "default"),
        ]  # fmt: skip
        assert "received" not in run("sms_prune")
        settings.SMSKA_PRUNE = "delete"
        assert "Deleted 6 messages that were received" in run("sms_prune")

    def test_what_another_table_protects_stays(self, monkeypatch):
        make_received(3)
        kept = make_received()
        delete = retention.QuerySet.delete

        def protecting(rows):
            if kept in rows:
                raise ProtectedError("a table of the project", {kept})
            return delete(rows)

        monkeypatch.setattr(retention.QuerySet, "delete", protecting)
        assert "Deleted 3 messages that were received" in run("sms_prune")
        assert SmsInbound.objects.get() == kept

    def test_another_error_is_one(self, monkeypatch):
        make_received()

        def broken(rows):
            raise ZeroDivisionError

        monkeypatch.setattr(retention.QuerySet, "delete", broken)
        with pytest.raises(ZeroDivisionError):
            run("sms_prune")


def test_a_wrong_setting_is_reported(settings):
    settings.SMSKA_PRUNE = "anonymise"
    [error] = [one for one in run_checks(tags=["sms"]) if one.id == "smska.E011"]
    assert "SMSKA_PRUNE must be 'delete' or 'blank'" in error.msg


# --- at any size -------------------------------------------------------------------------------

LARGE = 10_000 if ALL else 4000


@pytest.mark.parametrize("way", ["delete", "blank"])
def test_memory_does_not_grow_with_the_table(settings, way):
    """The peak of many batches is that of two."""
    settings.SMSKA_PRUNE = way

    def cost(number):
        SmsMessage.objects.all().delete()
        make("delivered", number)
        daily_counts.catch_up()
        tracemalloc.start()
        for _ in retention.WAYS[way](timezone.now() - timedelta(days=180)):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert whole() == set()
        return peak

    cost(1000)  # what is imported and cached
    assert cost(LARGE) < cost(2000) + 1_000_000  # a row of them takes more than a kilobyte


@pytest.mark.parametrize("way", ["delete", "blank"])
def test_memory_does_not_grow_with_what_was_received(way):
    def cost(number):
        SmsInbound.objects.all().delete()
        make_received(number)
        tracemalloc.start()
        assert sum(retention.end_old_received(way, timezone.now() - timedelta(days=180))) == number
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert not SmsInbound.objects.exclude(sender="").exists()
        return peak

    cost(1000)
    assert cost(LARGE) < cost(2000) + 500_000


def test_ended_limits_are_deleted(monkeypatch):
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    now = timezone.now()
    for number in range(7):
        ends_at = now + timedelta(hours=1 if number in (2, 5) else -1)
        SmsLimit.objects.create(key=str(number), log="[]", ends_at=ends_at)
    run("sms_prune", "--dry-run")
    assert SmsLimit.objects.count() == 7
    run("sms_prune")
    assert set(SmsLimit.objects.values_list("key", flat=True)) == {"2", "5"}


# --- erasure -----------------------------------------------------------------------------------


@pytest.fixture
def person():
    """Store all that can be about a person, and the same of another one."""
    user = User.objects.create_superuser("boss")
    for to, name, text in ((NUMBER, "a", TEXT), (OTHER, "b", "Hello")):
        for status in Status:
            make(
                status,
                to=to,
                body=text,
                age=timedelta(minutes=5),
                idempotency_key=f"{name}{status}",
            )
        messages = SmsMessage.objects.filter(to=to)
        messages.update(gateway_status=f"4|{to}"[:64], error_text=f"said: {to} {text}")
        log(user, list(messages), f"Called {to}: {text}")
        entry = SmsOptOut.objects.create(
            number=to, number_hash=keyed_hash("number", to), reason=f"Wrote from {to}",
            created_by=user,
        )  # fmt: skip
        LogEntry.objects.log_actions(user.pk, [entry], CHANGE, f"Added {to}")
        # No message has this key: histories are looked for by it.
        fields = {"pk": 10**6 + ord(name), "gateway_id": name}
        received = make_received(sender=to, body=text, age=timedelta(minutes=1), **fields)
        LogEntry.objects.log_actions(user.pk, [received], CHANGE, f"Deleted what {to} wrote")
        with override_settings(SMSKA_LIMITS={}), transaction.atomic():
            limits.Admission().require(SmsMessage(to=to, body=text, segments=1))
    return user


class TestErase:
    def test_all_that_is_finished_or_waits(self, person):
        SmsMessage.objects.filter(status__in=["claimed", "sending", "sent", "unknown"]).delete()
        out = run("sms_prune", "--number", SPELT, "--by", "Anna")
        assert_no_number(dump())
        assert "Kept" not in out
        assert f"+7904•••4995: Blanked {len(FINAL) + 2} messages, 2 of them queued" in out
        assert "1 received ones, and 1 entries of the do-not-send list" in out
        assert_no_number(out)

    def test_nothing_about_others_changes(self, person):
        def others():
            theirs = SmsMessage.objects.filter(to=OTHER)
            keys = [str(key) for key in theirs.values_list("pk", flat=True)]
            return (
                list(theirs.order_by("pk").values()),
                list(SmsOptOut.objects.filter(number=OTHER).values()),
                list(SmsInbound.objects.filter(sender=OTHER).values()),
                list(LogEntry.objects.filter(object_id__in=keys).order_by("pk").values()),
            )

        before = others()
        assert SmsLimit.objects.count() == 2
        run("sms_prune", "--number", NUMBER)
        assert others() == before
        assert SmsLimit.objects.count() == 1

    def test_what_is_kept_is_named_with_the_reason(self, person):
        out = run("sms_prune", "--number", NUMBER)
        kept = SmsMessage.objects.filter(to=NUMBER).values_list("status", flat=True)
        assert set(kept) == {"claimed", "sending", "sent", "unknown"}
        for words in (
            "Kept 1 claimed messages: they are being sent",
            "Kept 1 sending messages: they are being sent",
            "Kept 1 sent messages: they wait for their delivery reports",
            "Kept 1 unknown messages: they may have been sent: decide about them",
        ):
            assert words in out
        [erasure] = SmsErasure.objects.all()
        assert erasure.details["kept"] == dict.fromkeys(kept, 1)

    def test_what_waited_is_never_sent(self):
        queue_sms(NUMBER, TEXT)
        call_command("sms_prune", "--number", NUMBER, stdout=StringIO())
        call_command("sms_worker", "--once", stdout=StringIO())
        assert not outbox
        assert SmsMessage.objects.get().status == "cancelled"

    def test_the_record_is_fit_for_proof(self, person):
        begun = timezone.now()
        out = run("sms_prune", "--number", NUMBER, "--by", "Anna")
        [erasure] = SmsErasure.objects.all()
        assert erasure.number_hash == keyed_hash("number", NUMBER)
        assert erasure.erased_by == "Anna" and begun <= erasure.erased_at <= timezone.now()
        assert erasure.messages == len(FINAL) + 2
        details = erasure.details
        assert (details["cancelled"], details["do_not_send"], details["limits"]) == (2, 1, 1)
        assert details["received"] == 1
        assert details["histories"] >= len(Status) - 4 and details["finished"] is True
        assert f"Erasure {erasure.pk}, " in out and "by Anna" in out
        assert erasure.number_hash in out

    def test_again_is_harmless(self, person):
        run("sms_prune", "--number", NUMBER)
        before = list(SmsMessage.objects.order_by("pk").values())
        assert "Blanked 0 messages, 0 of them" in run("sms_prune", "--number", NUMBER)
        assert list(SmsMessage.objects.order_by("pk").values()) == before

    def test_what_was_left_goes_by_the_next_run(self, person):
        run("sms_prune", "--number", NUMBER)
        SmsMessage.objects.filter(to=NUMBER).update(status="delivered")
        assert "Blanked 4 messages" in run("sms_prune", "--number", NUMBER)
        assert_no_number(dump())

    def test_the_person_still_gets_nothing(self, person):
        run("sms_prune", "--number", NUMBER)
        entry = SmsOptOut.objects.get(number_hash=keyed_hash("number", NUMBER))
        assert (entry.number, entry.reason, entry.created_by) == ("", "", person)

    def test_what_came_in_another_spelling(self):
        make_received(3, sender=NUMBER[1:])
        make_received(2, sender=OTHER[1:])
        assert "3 received ones" in run("sms_prune", "--number", NUMBER)
        assert "0 received ones" in run("sms_prune", "--number", NUMBER)
        assert set(SmsInbound.objects.values_list("sender", flat=True)) == {"", OTHER[1:]}

    def test_received_ones_in_batches(self, monkeypatch):
        monkeypatch.setattr(retention, "BATCH_ROWS", 2)
        make_received(5)
        assert len(list(personal_data.records(NUMBER))) == 5
        assert personal_data.erase(NUMBER).details["received"] == 5
        assert_no_number(dump())

    def test_a_dry_run_changes_nothing(self, person):
        before = dump()
        out = run("sms_prune", "--number", NUMBER, "--dry-run")
        assert dump() == before and "1 received ones" in out
        assert f"Would blank {len(FINAL) + 2} messages, 2 of them" in out
        assert "Kept 1 unknown" in out and "Erasure" not in out

    def test_whatever_a_program_wrote_into_the_histories(self, person):
        message, entry = make(), SmsOptOut.objects.get(number=NUMBER)
        for one in (message, entry):
            LogEntry.objects.log_actions(person.pk, [one], CHANGE, "Ivan was angry")
            LogEntry.objects.filter(object_id=str(one.pk)).update(object_repr="SMS to Ivan")
        assert "Ivan" in dump()
        run("sms_prune", "--number", NUMBER)
        assert "Ivan" not in dump()
        entry = LogEntry.objects.filter(object_id=str(message.pk)).get()
        assert (entry.user, entry.object_repr, entry.change_message) == (person, "SMS", "")

    def test_histories_of_what_was_deleted(self, person):
        make(to=NUMBER)
        SmsMessage.objects.filter(to=NUMBER).delete()
        run("sms_prune", "--number", NUMBER)
        assert_no_number(dump())
        assert "•4995" not in dump()

    def test_a_process_that_ends_on_the_way_leaves_a_record(self, monkeypatch):
        monkeypatch.setattr(retention, "BATCH_ROWS", 2)
        make("delivered", 5)
        blank, calls = retention.blank, []

        def dying(messages):
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return blank(messages)

        monkeypatch.setattr(retention, "blank", dying)
        with pytest.raises(KeyboardInterrupt):
            personal_data.erase(NUMBER)
        [erasure] = SmsErasure.objects.all()
        assert (erasure.messages, erasure.details) == (2, {"finished": False})
        assert personal_data.erase(NUMBER).messages == 3

    def test_by_the_older_secret_key(self, person, settings):
        settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
        settings.SECRET_KEY = "new"
        run("sms_prune", "--number", NUMBER)
        assert not SmsOptOut.objects.filter(number=NUMBER).exists()
        assert SmsLimit.objects.count() == 1

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--number", "12"], "number"),
            (["--number", NUMBER, "--keep", "3"], "Leave --keep out"),
            (["--by", "Anna"], "Give --number, too"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, arguments, words):
        with pytest.raises(CommandError, match=words):
            run("sms_prune", *arguments)
        assert not SmsErasure.objects.exists()

    def test_without_the_admin(self, person, settings):
        settings.INSTALLED_APPS = [
            name for name in settings.INSTALLED_APPS if name != "django.contrib.admin"
        ]
        erasure = personal_data.erase(NUMBER)
        assert erasure.messages and erasure.details["histories"] == 0


class TestMailings:
    SPELLINGS = ("8 (904) 176-49-95", "+79041764995", "9041764995", "79041764995", "8904 176 49 95")

    @pytest.mark.parametrize("written", SPELLINGS)
    @pytest.mark.parametrize("field", ["name", "body"])
    def test_a_number_in_a_name_or_text_is_found_and_erased(self, written, field):
        words = {"name": "Autumn", "body": "Sale", field: f"Call {written}, Anna"}
        mailing = SmsMailing.objects.create(**words)
        others = ("Autumn", "Call 89041764996", "Order 990417649951")
        kept = [SmsMailing.objects.create(name=name).pk for name in others]
        user = User.objects.create_superuser("boss")
        log(user, [mailing], f"Sent for {written}")
        assert [one["id"] for one in personal_data.records(NUMBER)] == [mailing.pk]
        dry = personal_data.erase(NUMBER, dry_run=True)
        changed = {"django_smska.smsmailing": [mailing.pk]}
        assert dry.details["changed"] == changed
        assert personal_data.erase(NUMBER).details["changed"] == changed
        mailing.refresh_from_db()
        assert getattr(mailing, field) == "Call •••, Anna"
        assert written not in LogEntry.objects.get().change_message
        assert list(personal_data.records(NUMBER))[0]["record"] == "erasure"
        named = SmsMailing.objects.filter(pk__in=kept).order_by("pk")
        assert tuple(named.values_list("name", flat=True)) == others

    def test_that_of_another_country(self):
        mailing = SmsMailing.objects.create(name="For +49 171 123-45-67")
        assert [one["id"] for one in personal_data.records("+491711234567")] == [mailing.pk]
        personal_data.erase("+491711234567")
        mailing.refresh_from_db()
        assert mailing.name == "For •••"

    def test_where_none_has_it_nothing_is_said_of_mailings(self):
        SmsMailing.objects.create(name="Autumn")
        assert "changed" not in personal_data.erase(NUMBER).details


#: A number that stands nowhere else, and its spellings.
WRITER = "+79257418836"
SPELLINGS = (
    "8 (925) 741-88-36",
    "+7 925 741 88 36",
    "9257418836",
    "7 925\u00a0741\u201188\u201136",
)


def everywhere():
    """Return all that is stored in the tables of the package and in the admin's log, as text."""
    models = [*apps.get_app_config("django_smska").get_models(), LogEntry]
    return "\n".join(str(one) for model in models for one in model.objects.values())


def assert_nowhere(text):
    assert not re.search("[^0-9]{0,3}".join(WRITER[2:]), text) and "•8836" not in text


class TestFreeTexts:
    def texts(self, text):
        """Store a row with this text in each column of free text, by model."""
        mailing = SmsMailing.objects.create(name=f"Spring {text}", body=f"Ask {text}, Vera")
        body = f"Dear {{name}}: {text}!"
        template = SmsTemplate.objects.create(name=f"spring {text}", body=body)
        entry = SmsOptOut.objects.create(
            number=OTHER, number_hash=keyed_hash("number", OTHER),
            reason=f"Wife of {text}", source=f"by {text}",
        )  # fmt: skip
        state = ProviderState.objects.create(alias="default", detail=f"No credits for {text}")
        return {SmsMailing: mailing, SmsTemplate: template, SmsOptOut: entry, ProviderState: state}

    @pytest.mark.parametrize("written", SPELLINGS)
    def test_each_is_handed_out(self, written):
        rows = self.texts(written)
        found = {one["record"]: one for one in json.loads(run("sms_person", WRITER))}
        assert found == {
            "mailing": {
                "record": "mailing", "id": rows[SmsMailing].pk,
                "name": f"Spring {written}", "body": f"Ask {written}, Vera",
            },
            "template": {
                "record": "template", "id": rows[SmsTemplate].pk,
                "name": f"spring {written}", "body": f"Dear {{name}}: {written}!",
            },
            "text of smsoptout": {
                "record": "text of smsoptout", "id": rows[SmsOptOut].pk,
                "reason": f"Wife of {written}", "source": f"by {written}",
            },
            "text of providerstate": {
                "record": "text of providerstate", "id": "default",
                "detail": f"No credits for {written}",
            },
        }  # fmt: skip

    @pytest.mark.parametrize("written", SPELLINGS)
    def test_an_erasure_leaves_dots(self, written):
        rows = self.texts(written)
        run("sms_prune", "--number", WRITER, "--by", f"Olga, asked by {written}")
        assert_nowhere(everywhere())
        for one in rows.values():
            one.refresh_from_db()
        template, entry = rows[SmsTemplate], rows[SmsOptOut]
        assert (template.name, template.body) == ("spring •••", "Dear {name}: •••!")
        assert rows[ProviderState].detail == "No credits for •••"
        assert (entry.number, entry.reason, entry.source) == (OTHER, "Wife of •••", "by •••")
        assert SmsErasure.objects.get().erased_by == "Olga, asked by •••"

    def test_the_rest_of_another_person_is_not_handed_out(self):
        entry = self.texts("nothing")[SmsOptOut]
        SmsOptOut.objects.filter(pk=entry.pk).update(source=f"Wife: {SPELLINGS[0]}")
        [record] = json.loads(run("sms_person", WRITER))
        assert record == {
            "record": "text of smsoptout", "id": entry.pk, "source": f"Wife: {SPELLINGS[0]}",
        }  # fmt: skip

    def test_an_own_entry_is_handed_out_once(self):
        SmsOptOut.objects.create(
            number=WRITER, number_hash=keyed_hash("number", WRITER), reason=SPELLINGS[0]
        )
        assert [one["record"] for one in personal_data.records(WRITER)] == ["do-not-send"]
        erasure = personal_data.erase(WRITER)
        assert erasure.details["do_not_send"] == 1 and "changed" not in erasure.details

    def test_a_longer_number_is_another_one(self):
        self.texts("order 192574188360")
        before = everywhere()
        assert not list(personal_data.records(WRITER))
        assert personal_data.erase(WRITER).details["histories"] == 0
        SmsErasure.objects.all().delete()
        assert everywhere() == before

    def test_the_command_names_what_it_has_changed(self):
        rows = self.texts(SPELLINGS[0])
        keys = {model: row.pk for model, row in rows.items()}
        lines = [
            "%s the number in 1 of django_smska.providerstate: default.",
            f"%s the number in 1 of django_smska.smsmailing: {keys[SmsMailing]}.",
            f"%s the number in 1 of django_smska.smsoptout: {keys[SmsOptOut]}.",
            f"%s the number in 1 of django_smska.smstemplate: {keys[SmsTemplate]}. "
            "Read them before they are sent again.",
        ]
        for verb, options in (("Would replace", ["--dry-run"]), ("Replaced", [])):
            out = run("sms_prune", "--number", WRITER, *options)
            said = [line for line in out.splitlines() if " the number in " in line]
            assert said == [line % verb for line in lines]
            assert_nowhere(out.replace("+7925•••8836", ""))
        assert "the number in" not in run("sms_prune", "--number", WRITER)

    def test_of_many_the_command_names_twenty(self):
        made = [SmsMailing.objects.create(name=SPELLINGS[0]).pk for _ in range(23)]
        out = run("sms_prune", "--number", WRITER, "--dry-run")
        shown = ", ".join(map(str, made[:20]))
        assert f"in 23 of django_smska.smsmailing: {shown} and 3 more." in out

    def test_a_column_beside_it_may_be_null(self, monkeypatch):
        """Columns that other apps name may be."""
        monkeypatch.setitem(personal_data.FREE_TEXTS, SmsInbound, ("gateway_id", "body"))
        received = make_received(sender=OTHER, body=f"from {SPELLINGS[1]}")
        [record] = personal_data.records(WRITER)
        assert record["body"] == f"from {SPELLINGS[1]}"
        personal_data.erase(WRITER)
        received.refresh_from_db()
        assert (received.gateway_id, received.body) == (None, "from •••")

    def test_two_names_that_become_the_same(self):
        made = [SmsTemplate.objects.create(name=one, body="Hi").pk for one in SPELLINGS]
        personal_data.erase(WRITER)
        names = list(SmsTemplate.objects.order_by("pk").values_list("name", flat=True))
        assert names == ["•••", *(f"•••{key}" for key in made[1:])]

    def test_the_record_in_the_admin_has_the_keys(self, admin_client):
        made = [SmsTemplate.objects.create(name=f"n{i}", body=SPELLINGS[i]).pk for i in (0, 1)]
        erasure = personal_data.erase(WRITER)
        page = admin_client.get(f"{ERASURES}{erasure.pk}/change/").content.decode()
        assert f"Number replaced by dots, SMS templates: {made[0]}, {made[1]}" in page

    def test_histories_of_texts_that_are_gone(self):
        """Their entries keep what the rows were called."""
        user = User.objects.create_superuser("boss")
        rows = self.texts(SPELLINGS[0])
        for model in (SmsMailing, SmsTemplate):
            log(user, [rows[model]], f"Was about {SPELLINGS[1]}")
            rows[model].delete()
        log(user, [rows[ProviderState]], "Stopped by the accountant.")
        assert LogEntry.objects.filter(object_repr__contains="741-88-36").count() == 2
        assert personal_data.erase(WRITER).details["histories"] == 2
        assert_nowhere(everywhere())
        left = LogEntry.objects.order_by("pk").values_list("object_repr", "change_message")
        assert list(left) == [
            ("Spring •••", ""), ("spring •••", ""), ("default", "Stopped by the accountant."),
        ]  # fmt: skip

    def test_the_history_of_an_export_by_the_number(self, admin_client):
        make(to=WRITER)
        received = make_received(sender=WRITER)
        filters = urlencode({"_changelist_filters": f"received={received.pk}"})
        table = admin_client.post(f"{LIST}export/?{filters}", {"_csv": "1"})
        assert b"".join(table.streaming_content)
        assert "•8836" in LogEntry.objects.get().change_message
        personal_data.erase(WRITER)
        assert "•8836" not in everywhere()
        assert LogEntry.objects.get().change_message.startswith("Exported 1 message")


# --- what can hold something about a person -------------------------------------------------------

#: No one's data: names of ours, codes, hashes, sizes.
OURS = "ours"
#: Who works here.
STAFF = "staff"
#: Blanked with the row of the person.
OWN = "own"
#: Searched for the number, as people write there.
FREE = "free"
#: What each column is in which a text can stand. Decide about a new one, and write it here.
TEXTS = {
    SmsMessage: {
        "to": OWN, "body": OWN, "code": OWN, "text_hash": OWN, "idempotency_key": OWN,
        "gateway_id": OWN, "gateway_status": OWN, "error_text": OWN,
        "sender": OURS, "using": OURS, "status": OURS, "reported_status": OURS, "proof": OURS,
        "reference": OURS, "error_code": OURS, "encoding": OURS, "currency": OURS, "token": OURS,
    },
    SmsInbound: {"sender": OWN, "body": OWN, "gateway_id": OWN, "using": OURS, "to": OURS},
    SmsOptOut: {
        "number": OWN, "number_hash": OURS, "sender": OURS, "reason": FREE, "source": FREE,
    },
    SmsMailing: {
        "name": FREE, "body": FREE, "sender": OURS, "using": OURS, "stopped_by": STAFF,
        "counts": OURS, "pruned": OURS, "samples": OURS, "prices": OURS,
    },
    SmsTemplate: {"name": FREE, "body": FREE, "language": OURS},
    SmsErasure: {"number_hash": OURS, "erased_by": STAFF, "details": OURS},
    SmsLimit: {"key": OURS, "log": OURS},
    SmsDayCount: {
        "using": OURS, "sender": OURS, "status": OURS, "error_code": OURS, "currency": OURS,
    },
    SmsDay: {},
    ProviderState: {"alias": OURS, "reason": OURS, "detail": FREE, "stopped_by": STAFF},
}  # fmt: skip


class TestEachColumn:
    def test_what_can_hold_a_text_was_decided_about(self):
        """It fails for a new column: is it handed out and erased, and does the guide say so?"""
        decided = {model: set(names) for model, names in TEXTS.items()}
        assert columns.of_text("django_smska") == decided

    def test_what_was_decided_is_done(self):
        def of(model, kind):
            return {name for name, one in TEXTS[model].items() if one == kind}

        assert of(SmsMessage, OWN) == retention.BLANK.keys()
        assert of(SmsInbound, OWN) == retention.BLANK_RECEIVED.keys()
        free = {model: of(model, FREE) for model in TEXTS}
        searched = {model: set(names) for model, names in personal_data.FREE_TEXTS.items()}
        assert {model: names for model, names in free.items() if names} == searched

    def test_the_guide_has_each_table(self):
        guide = DOCUMENTS["howto/personal-data"]
        lacking = {model._meta.db_table for model in TEXTS if TEXTS[model]}
        assert {name for name in lacking if f"``{name}``" not in guide} == set()


class TestErasuresInTheAdmin:
    def test_they_are_shown_and_not_changed(self, client):
        client.force_login(User.objects.create_superuser("boss"))
        make()
        erasure = personal_data.erase(NUMBER, by="Anna")
        page = client.get(ERASURES).content.decode()
        assert "Anna" in page and erasure.number_hash in page
        page = client.get(f"{ERASURES}{erasure.pk}/change/").content.decode()
        assert "Waiting messages cancelled: 0" in page
        assert_no_number(page)
        assert client.get(f"{ERASURES}add/").status_code == 403
        assert client.post(f"{ERASURES}{erasure.pk}/change/", {"erased_by": "x"}).status_code == 403
        assert client.post(f"{ERASURES}{erasure.pk}/delete/").status_code == 403

    @pytest.mark.parametrize(
        ("details", "lines"),
        [
            ({}, ["It has not finished. Run sms_prune --number again."]),
            (
                {"cancelled": 2, "kept": {"sent": 1, "other": 3}, "finished": True},
                [
                    "Waiting messages cancelled: 2",
                    "Messages kept with the status “other”: 3",
                    "Messages kept with the status “sent”: 1",
                ],
            ),
            (
                {"histories": 4, "do_not_send": 1, "limits": 5, "kept": {}, "finished": True}
                | {"received": 3},
                [
                    "Received messages blanked: 3",
                    "Entries of the admin&#x27;s log erased or masked: 4",
                    "Do-not-send entries whose number was erased: 1",
                    "Counters of limits deleted: 5",
                ],
            ),
        ],
    )
    def test_each_count_has_its_line(self, admin_client, details, lines):
        erasure = SmsErasure.objects.create(details=details)
        page = admin_client.get(f"{ERASURES}{erasure.pk}/change/").content.decode()
        assert "<br>".join(lines) in page and "Number hash:" in page
        assert "{" not in page.partition('id="content"')[2].partition("<footer")[0]

    def test_its_title_shows_the_local_time(self):
        at = datetime.fromisoformat("2026-03-01T22:30+00:00")
        assert str(SmsErasure(erased_at=at)) == "2026-03-02 01:30"

    def test_by_permission_only(self, client):
        user = User.objects.create_user("clerk", is_staff=True)
        client.force_login(user)
        assert client.get(ERASURES).status_code == 403
        user.user_permissions.set(Permission.objects.filter(codename="view_smserasure"))
        assert client.get(ERASURES).status_code == 200


# --- a person's file ---------------------------------------------------------------------------


class TestPersonsFile:
    def test_all_that_is_stored(self, person):
        records = json.loads(run("sms_person", SPELT))
        kinds = [one["record"] for one in records]
        assert kinds == ["message"] * len(Status) + ["received", "do-not-send"]
        assert {one["to"] for one in records[:-2]} == {NUMBER} == {records[-2]["sender"]}
        assert {one["body"] for one in records[:-1]} == {TEXT}
        assert records[-2]["received_at"] and records[-2]["gateway_id"] == "a"
        assert records[0]["created_at"] and records[-1]["reason"] == f"Wrote from {NUMBER}"
        assert OTHER not in json.dumps(records)
        assert not personal_data.INTERNAL & records[0].keys()

    def test_in_batches(self, person, monkeypatch):
        every = run("sms_person", NUMBER)
        monkeypatch.setattr(retention, "BATCH_ROWS", 3)
        assert run("sms_person", NUMBER) == every

    def test_after_an_erasure_it_says_so(self):
        make()
        run("sms_prune", "--number", NUMBER, "--by", "Anna")
        [record] = json.loads(run("sms_person", NUMBER))
        assert (record["record"], record["erased_by"], record["messages"]) == ("erasure", "Anna", 1)

    def test_of_an_unknown_person_nothing(self):
        assert json.loads(run("sms_person", NUMBER)) == []

    def test_no_code_that_waits(self):
        queue_sms(NUMBER, "Код 482913", code="482913")
        send_sms(NUMBER, "Код 482913", code="482913")
        out = run("sms_person", NUMBER)
        assert "482913" not in out
        assert [one["body"] for one in json.loads(out)] == ["", "Код ••••"]

    @pytest.mark.parametrize("command", [["sms_person", "-"], ["sms_prune", "--number", "-"]])
    def test_the_number_may_come_by_the_input(self, command, monkeypatch):
        """No other user of the machine sees it there."""
        make()
        monkeypatch.setattr(sys, "stdin", StringIO(f"{SPELT}\n"))
        assert "message" in run(*command)

    def test_what_is_no_number_is_refused(self):
        with pytest.raises(CommandError):
            run("sms_person", "12")
        with pytest.raises(ValidationError):
            list(personal_data.records("12"))

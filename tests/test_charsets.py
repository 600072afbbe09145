"""Databases that do not hold every character, and what they are sent all the same."""

import contextlib

import pytest
from django.contrib.auth import get_user_model
from django.core.checks import run_checks
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from django_smska import circuit_breaker, kill_switch, personal_data
from django_smska.exceptions import InsufficientCredits, InvalidRequest, SmsError
from django_smska.inbound import receive
from django_smska.models import ProviderState, SmsMessage, SmsTemplate
from django_smska.opt_out import is_opted_out
from django_smska.receipts import Inbound
from django_smska.sms import queue_sms, send_mass_sms, send_sms
from django_smska.testing.gateway import answer
from django_smska.worker import Worker

NUMBER = "+79041764995"

#: Of each server: how a database is made, what it holds and what it does not hold.
NARROW = {
    "mysql": [
        ("CHARACTER SET utf8mb3", "Привет, é €", "😀"),
        ("CHARACTER SET cp1251", "Привет, №1 €", "é"),
        ("CHARACTER SET latin1", "café €", "я"),
        ("CHARACTER SET koi8r", "Привет", "№"),
    ],
    "postgresql": [
        ("ENCODING 'WIN1251' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'", "Привет, №1", "😀"),
        ("ENCODING 'KOI8R' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'", "Привет", "№"),
        ("ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'", "café", "€"),
    ],
}
CASES = NARROW.get(connection.vendor, [])  # SQLite holds every character


@contextlib.contextmanager
def database(made, *, migrated=True):
    """Use a new database on the same server, in place of the tests' own."""
    usual = connection.settings_dict["NAME"]
    name = f"{usual}_narrow"
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name}")
        cursor.execute(f"CREATE DATABASE {name} {made}")
    try:
        connection.close()
        connection.settings_dict["NAME"] = name
        if migrated:
            call_command("migrate", verbosity=0)
        yield
    finally:
        connection.close()
        connection.settings_dict["NAME"] = usual
        with connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name}")


@pytest.fixture(scope="class")
def made(request, django_db_setup, django_db_blocker):
    how, good, bad = request.param
    with django_db_blocker.unblock(), database(how):
        yield good, bad


@pytest.fixture
def narrow(made, provider):
    yield made


in_each = pytest.mark.parametrize("made", CASES, indirect=True, scope="class")


@in_each
class TestTexts:
    def test_what_it_holds_is_stored_and_sent(self, narrow):
        good, _ = narrow
        message = send_sms(NUMBER, good)
        assert SmsMessage.objects.get(pk=message.pk).body == good

    @pytest.mark.parametrize("function", [send_sms, queue_sms])
    @pytest.mark.parametrize("field", ["body", "sender"])
    def test_another_character_is_refused_before_anything_is_stored(
        self, narrow, provider, function, field
    ):
        _, bad = narrow
        with pytest.raises(ValidationError) as refused:
            function(**{"to": NUMBER, "body": "text", field: f"Hello {bad}"})
        assert refused.value.error_dict[field][0].code == "charset"
        assert f"character 7 (U+{ord(bad):04X})" in str(refused.value)
        assert not SmsMessage.objects.exists() and provider.requests == []

    def test_of_many_it_is_one_bad_row(self, narrow):
        good, bad = narrow
        result = send_mass_sms([(NUMBER, good), (NUMBER, f"{good}{bad}"), (NUMBER, "ASCII")])
        assert (result, [index for index, _ in result.errors]) == (2, [1])
        assert "body" in result.errors[0][1].message_dict

    def test_a_draft_cannot_be_given_it(self, narrow):
        good, bad = narrow
        draft = SmsMessage.objects.create(to=NUMBER, body=good)
        draft.body = bad
        with pytest.raises(ValidationError):
            draft.save()

    def test_keys_are_exact_or_refused(self, narrow):
        _, bad = narrow
        for key in ("Key", "kEY", "key "):
            queue_sms(NUMBER, "text", idempotency_key=key)
        with contextlib.suppress(ValidationError):
            queue_sms(NUMBER, "text", idempotency_key=bad)
        assert SmsMessage.objects.count() >= 3

    def test_a_person_is_erased(self, narrow):
        good, _ = narrow
        template = SmsTemplate.objects.create(name="spring", body=f"{good} 8 (925) 741-88-36")
        queue_sms("+79257418836", good)
        assert personal_data.erase("+79257418836").messages == 1
        template.refresh_from_db()
        assert template.body in (f"{good} •••", f"{good} ...")
        assert [one["record"] for one in personal_data.records("+79257418836")] == ["erasure"]

    def test_the_pages_of_the_admin_show_the_error(self, narrow, client, provider):
        _, bad = narrow
        client.force_login(get_user_model().objects.create_superuser("boss"))
        compose = {"numbers": NUMBER, "body": f"text {bad}", "using": "default", "nonce": "n"}
        add = {
            "to": NUMBER,
            "body": f"text {bad}",
            "using": "default",
            "priority": "0",
            "send_after_0": "2026-01-01",
            "send_after_1": "12:00",
        }
        for page, fields in (("compose", compose), ("add", add)):
            answered = client.post(reverse(f"admin:django_smska_smsmessage_{page}"), fields)
            assert answered.status_code == 200
            assert "The database cannot store character 6" in answered.content.decode()
        assert not SmsMessage.objects.exists() and provider.requests == []


@in_each
class TestWordsOfOthers:
    def test_a_refusal_is_kept(self, narrow, provider):
        good, bad = narrow
        provider.script(1, answer(f"-4|{good} {bad}\0 {'x' * 5000}".encode(), accepted=False))
        with pytest.raises((InvalidRequest, SmsError)) as refused:
            send_sms(NUMBER, "text")
        row = SmsMessage.objects.get(pk=refused.value.sms)
        assert row.status in ("failed", "unknown") and row.error_text

    def test_a_report_ends_neither_the_worker_nor_the_message(self, narrow, provider):
        _, bad = narrow
        provider.fate("79041764995", f"9|{bad}", "4|DELIVRD", after=0)
        message = send_sms(NUMBER, "text")
        for status, words in (("sent", "9|?"), ("delivered", "4|DELIVRD")):
            SmsMessage.objects.update(next_status_at=message.created_at)
            Worker().run_once()
            message.refresh_from_db()
            assert (message.status, message.gateway_status.replace(bad, "?")) == (status, words)

    def test_a_stop_is_obeyed_in_any_language(self, narrow):
        _, bad = narrow
        receive("default", [Inbound(NUMBER, f"Shop{bad}", "Стоп!", f"id{bad}")])
        assert is_opted_out(NUMBER)

    def test_who_stops_a_provider_may_have_any_name(self, narrow):
        good, bad = narrow
        assert kill_switch.stop(by=f"{good}{bad}")
        assert circuit_breaker.state_of(kill_switch.EVERY).stopped_by == f"{good}?"

    def test_why_a_provider_is_paused_is_kept(self, narrow):
        good, bad = narrow
        circuit_breaker.note("default", InsufficientCredits(gateway_text=f"{good}{bad}{good}"))
        assert f"{good}?{good}" in ProviderState.objects.get().detail

    def test_what_the_column_is_too_short_for_is_cut(self, narrow):
        good, bad = narrow
        message = queue_sms(NUMBER, "text")
        words = {"gateway_status": bad + good * 50, "error_code": "x" * 100}
        SmsMessage.objects.filter(pk=message.pk).update(**words, error_text=f"\0\ud83d{good}{bad}")
        message.refresh_from_db()
        assert message.gateway_status == ("?" + good * 50)[:64]
        assert (message.error_code, message.error_text) == ("x" * 32, f"??{good}?")


def database_checks():
    found = run_checks(databases=["default"])
    return [error for error in found if error.id in ("smska.W013", "smska.W014")]


def run(error):
    with connection.cursor() as cursor:
        for sql in error.hint.partition("un: ")[2].split(";")[:-1]:
            cursor.execute(sql)


@in_each
class TestCheck:
    def test_it_says_what_to_run_and_that_helps(self, narrow):
        good, bad = narrow
        before = queue_sms(NUMBER, good)
        found = database_checks()
        assert {error.id for error in found} == {"smska.W013"}
        if connection.vendor == "postgresql":
            assert "ENCODING 'UTF8'" in found[0].hint
            return
        for error in found:
            run(error)
        assert database_checks() == []
        # At once, in processes that have been refused such characters.
        assert SmsMessage.objects.get(pk=queue_sms(NUMBER, bad).pk).body == bad
        assert SmsMessage.objects.get(pk=before.pk).body == good


def only_with(vendor):
    if connection.vendor != vendor:
        pytest.skip(f"of {vendor}")


class TestOtherWaysToBeNarrow:
    def test_the_connection_of_mariadb(self, transactional_db):
        only_with("mysql")
        connection.close()
        connection.settings_dict["OPTIONS"]["charset"] = "utf8"
        try:
            (error,) = database_checks()
            assert "'charset' to 'utf8mb4'" in error.hint
            with pytest.raises(ValidationError):
                queue_sms(NUMBER, "😀")
            message = queue_sms(NUMBER, "Привет")
            SmsMessage.objects.update(error_text="Отказ 😀")
            message.refresh_from_db()
            assert (message.body, message.error_text) == ("Привет", "Отказ ?")
        finally:
            connection.close()
            connection.settings_dict["OPTIONS"]["charset"] = "utf8mb4"
        assert database_checks() == []

    def test_tables_of_mariadb_that_are_still_to_be_made(self, transactional_db):
        only_with("mysql")
        with database("CHARACTER SET cp1251", migrated=False):
            (error,) = database_checks()
            run(error)
            assert database_checks() == []

    def test_a_table_of_mariadb_whose_keys_were_given_another_collation(self, transactional_db):
        only_with("mysql")
        table = SmsMessage._meta.db_table
        with database("CHARACTER SET utf8mb4"):
            with connection.cursor() as cursor:
                cursor.execute(f"ALTER TABLE {table} CONVERT TO CHARACTER SET utf8mb4")
            (error,) = database_checks()
            assert error.id == "smska.W014"
            every = [
                SmsMessage(to=NUMBER, body="a", idempotency_key=key) for key in ("Key-17", "b")
            ]
            queue_sms(NUMBER, "a", idempotency_key="kéy-17 ")
            result = send_mass_sms(every)
            assert (result, [index for index, _ in result.errors]) == (1, [0])
            assert "17" not in str(result.errors)
            with pytest.raises(ValidationError):
                queue_sms(NUMBER, "a", idempotency_key="Key-17")
            run(error)
            assert database_checks() == []
            assert queue_sms(NUMBER, "a", idempotency_key="Key-17")

    def test_sql_ascii_counts_bytes(self, transactional_db):
        only_with("postgresql")
        with database("ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"):
            assert [error.id for error in database_checks()] == ["smska.W013"]
            message = queue_sms(NUMBER, "Привет 😀")
            with pytest.raises(ValidationError):
                queue_sms(NUMBER, "text", sender="я" * 20)
            SmsMessage.objects.update(gateway_status="я" * 64, error_text="я😀")
            message.refresh_from_db()
            assert (message.body, message.error_text) == ("Привет 😀", "я😀")


def test_a_database_that_holds_all_is_not_asked_again(transactional_db):
    """Nor at all where there is only ASCII."""
    connection.close()
    for most, text in ((0, "ASCII"), (2, "Привет 😀"), (0, "Ещё 😀")):
        message = SmsMessage(to=NUMBER, body=text)
        connection.ensure_connection()
        with CaptureQueriesContext(connection) as queries:
            message.prepare()
        assert len(queries) <= most
    assert database_checks() == []

"""``send_code``: now or never, raised also inside a transaction, and never stored."""

import threading
from contextlib import suppress
from contextvars import ContextVar
from datetime import timedelta
from unittest import mock

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, connections, transaction
from django.db.backends.utils import CursorWrapper
from django.db.utils import OperationalError
from django.test import TestCase, override_settings
from django.utils import timezone, translation
from django.utils.functional import lazystr
from django.utils.translation import get_language

from django_smska import circuit_breaker, clock, own_connection, sending
from django_smska.exceptions import (
    AuthenticationFailed,
    GatewayUnreachable,
    InvalidRecipient,
    LimitExceeded,
    RecipientOptedOut,
    SmsNotSent,
    TemporaryFailure,
)
from django_smska.limits import acting_for
from django_smska.models import DOTS, ProviderState, SmsMessage
from django_smska.opt_out import opt_out
from django_smska.sms import outbox, queue_sms, send_code, send_sms
from django_smska.states import Status
from django_smska.testing.gateway import Fault, closed_port
from django_smska.worker import Worker

NUMBER, OTHER = "+79041764995", "+79041764996"
CODE = "739251"
TEXT, WIPED = f"{CODE} is your code.", f"{DOTS} is your code."
SERVER = connection.vendor != "sqlite"

on_servers = pytest.mark.skipif(not SERVER, reason="it has one lock for all")


def rows():
    return list(SmsMessage.objects.order_by("pk").values_list("status", "body", "code"))


@pytest.fixture
def parameters(monkeypatch):
    """All that the database is given, by whatever connection."""
    seen = []
    execute = CursorWrapper._execute_with_wrappers

    def noted(self, sql, params, many, executor):
        seen.append(repr(params))
        return execute(self, sql, params, many, executor)

    monkeypatch.setattr(CursorWrapper, "_execute_with_wrappers", noted)
    return seen


class Stop(Exception):
    """Ends a transaction of the caller's."""


@pytest.fixture(params=[False, True], ids=["alone", "in a transaction"])
def inside(request):
    return transaction.atomic if request.param else suppress


# --- outcomes -------------------------------------------------------------------------------------


def test_it_is_sent_before_it_returns(provider, inside):
    with inside():
        message = send_code(NUMBER, TEXT, code=CODE)
        assert [one.text for one in provider.accepted] == [TEXT]
        assert (message.status, message.body, message.code) == ("sent", WIPED, "")
        assert timedelta(seconds=290) < message.expires_at - clock.now() <= timedelta(seconds=300)
    assert rows() == [("sent", WIPED, "")]


@pytest.mark.parametrize("function", [send_code, send_sms])
def test_no_query_holds_the_code(provider, inside, parameters, function):
    with inside():
        function(NUMBER, TEXT, code=CODE)
    assert [one.text for one in provider.accepted] == [TEXT]
    assert not [one for one in parameters if CODE in one] and any(DOTS in one for one in parameters)


def test_a_text_for_the_recipient_alone_is_in_no_query(provider, parameters):
    assert send_sms(NUMBER, TEXT, sensitive=True).status == "sent"
    assert not [one for one in parameters if TEXT in one] and rows() == [("sent", "", "")]


@pytest.mark.parametrize(
    ("fault", "error"), [("bad_number", InvalidRecipient), ("wrong_login", AuthenticationFailed)]
)
def test_a_refusal_is_raised_and_final(provider, inside, fault, error):
    provider.script(1, Fault(fault))
    with inside():
        with pytest.raises(error) as raised:
            send_code(NUMBER, TEXT, code=CODE)
        assert raised.value.sms is not None
    assert rows() == [("failed", WIPED, "")]
    Worker().run_once()
    assert provider.sends == 1


def test_a_closed_port_is_raised_and_never_sent_later(settings, provider, inside):
    with closed_port() as port:
        settings.SMS_PROVIDERS["default"]["OPTIONS"]["url"] = f"http://127.0.0.1:{port}/"
        with inside(), pytest.raises(GatewayUnreachable):
            send_code(NUMBER, TEXT, code=CODE)
    assert rows() == [("failed", WIPED, "")]


def test_an_unknown_outcome_is_returned(provider, inside):
    provider.script(1, Fault("reset_after_request", accepted=True))
    with inside():
        message = send_code(NUMBER, TEXT, code=CODE)
        assert (message.status, message.body) == ("unknown", WIPED)
    assert rows() == [("unknown", WIPED, "")]


def test_an_outcome_that_the_database_did_not_store_is_unknown(provider, monkeypatch):
    def away(*args, **kwargs):
        raise OperationalError("server closed the connection")

    monkeypatch.setattr(sending, "record", away)
    message = send_code(NUMBER, TEXT, code=CODE)
    assert message.status == "unknown" and "did not store" in message.error_text
    assert [one.text for one in provider.accepted] == [TEXT]


@pytest.mark.parametrize("function", [send_code, send_sms])
def test_a_database_that_is_away_from_the_start_means_not_sent(provider, monkeypatch, function):
    def away():
        raise OperationalError("no connection to the host db.example")

    monkeypatch.setattr(clock, "now", away)
    with pytest.raises(TemporaryFailure) as raised:
        function(NUMBER, TEXT, code=CODE)
    assert raised.value.code == "database" and "example" not in str(raised.value)
    assert provider.sends == 0


def test_a_paused_provider_refuses_and_nothing_is_stored(provider, inside):
    circuit_breaker.note("default", AuthenticationFailed())
    ProviderState.objects.update(probe_at=timezone.now() + timedelta(hours=1))
    with inside(), pytest.raises(SmsNotSent) as raised:
        send_code(NUMBER, TEXT, code=CODE)
    assert raised.value.code == "paused" and rows() == [] and provider.sends == 0


def test_what_was_not_sent_in_time_fails(provider, monkeypatch):
    """The wait for a slot of the rate was longer than the code is valid."""
    real = sending.mark_sending

    def late(messages):
        SmsMessage.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        return real(messages)

    monkeypatch.setattr(sending, "mark_sending", late)
    with pytest.raises(SmsNotSent) as raised:
        send_code(NUMBER, TEXT, code=CODE, valid_for=timedelta(seconds=20))
    assert raised.value.code == "expired" and rows() == [("failed", WIPED, "")]
    assert provider.sends == 0


def test_codes_have_limits_of_their_own(provider, settings, inside):
    settings.SMSKA_LIMITS = {"codes": [60, 300]}
    send_code(NUMBER, TEXT, code=CODE)
    with inside(), pytest.raises(LimitExceeded) as raised:
        send_code(NUMBER, TEXT.replace(CODE, "111222"), code="111222")
    assert raised.value.code == "limit-codes" and raised.value.retry_at > clock.now()
    assert send_code(NUMBER, TEXT, code=CODE, exempt=True).status == "sent"
    assert provider.sends == 2


def test_the_do_not_send_list_holds_unless_the_person_asks(provider, inside):
    opt_out(NUMBER)
    with inside(), pytest.raises(RecipientOptedOut):
        send_code(NUMBER, TEXT, code=CODE)
    assert send_code(NUMBER, TEXT, code=CODE, despite_opt_out=True).status == "sent"


# --- what it is given -----------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, -1, 86401, float("nan"), "300", None, timedelta(0), 1e99])
def test_a_time_that_cannot_be_used(provider, seconds):
    with pytest.raises(ValidationError, match=r"Pass the seconds .* at most 86400"):
        send_code(NUMBER, TEXT, code=CODE, valid_for=seconds)
    assert rows() == []


@pytest.mark.parametrize("code", ["", "999999", " 739251", None])
def test_a_code_that_cannot_be_used(provider, inside, code):
    with inside(), pytest.raises(ValidationError) as raised:
        send_code(NUMBER, TEXT, code=code)
    assert list(raised.value.message_dict) == ["code"] and rows() == []


def test_the_context_of_the_caller_is_the_works(provider, settings, inside, monkeypatch):
    settings.SMSKA_LIMITS = {"caller": "1/h"}
    mine, seen, real = ContextVar("mine"), [], sending.attempt

    def attempt(*args):
        seen.append((mine.get(), get_language()))
        return real(*args)

    monkeypatch.setattr(sending, "attempt", attempt)
    mine.set("context")
    with translation.override("ru"), acting_for("198.51.100.7"), inside():
        send_code(NUMBER, lazystr(TEXT), code=CODE)
        with pytest.raises(LimitExceeded):
            send_code(OTHER, TEXT, code=CODE)
    assert seen == [("context", "ru")] and [one.text for one in provider.accepted] == [TEXT]


# --- inside a transaction -------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [None, "bad_number"])
def test_the_row_survives_a_rollback_where_the_database_can(provider, fault):
    if fault:
        provider.script(1, Fault(fault))
    with suppress(Stop), transaction.atomic():
        with suppress(InvalidRecipient):
            send_code(NUMBER, TEXT, code=CODE)
        raise Stop
    assert provider.sends == 1
    assert rows() == ([("failed" if fault else "sent", WIPED, "")] if SERVER else [])


def test_the_callers_transaction_goes_on_after_a_refusal(provider):
    provider.script(1, Fault("bad_number"))
    with transaction.atomic():
        first = queue_sms(OTHER, "an order")
        with pytest.raises(InvalidRecipient):
            send_code(NUMBER, TEXT, code=CODE)
        queue_sms(OTHER, "another order")
    assert first.pk and [status for status, _, _ in rows()].count("queued") == 2


def test_without_autocommit_nothing_is_sent(provider):
    """A rollback would take the row of a message away that was sent."""
    transaction.set_autocommit(False)
    try:
        with pytest.raises(transaction.TransactionManagementError, match="Autocommit is off"):
            send_code(NUMBER, TEXT, code=CODE)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert provider.sends == 0 and rows() == []


@on_servers
@pytest.mark.slow
def test_it_does_not_wait_for_its_own_caller(provider, settings, monkeypatch):
    """The caller's transaction has locked the limits of this number until its end."""
    settings.SMSKA_LIMITS = {"number": "5/h"}
    monkeypatch.setattr(own_connection, "MAX_LOCK_SECONDS", 1)
    with transaction.atomic():
        queue_sms(NUMBER, "an order")
        with pytest.raises(TemporaryFailure) as raised:
            send_code(NUMBER, TEXT, code=CODE)
        assert raised.value.code == "database"
    assert rows() == [("queued", "an order", "")] and provider.sends == 0


@on_servers
def test_no_limit_of_a_lock_is_left_in_the_session(provider):
    query = {
        "postgresql": "SHOW lock_timeout",
        "mysql": "SELECT @@innodb_lock_wait_timeout",
    }[connection.vendor]

    def limit():
        with connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchone()

    before = limit()
    with connection.execute_wrapper(own_connection._wait_briefly):
        assert send_sms(NUMBER, TEXT).status == "sent"
    assert limit() == before


def test_each_database_has_the_limit(transactional_db):
    """A receiver of a signal may want a row of another database that the caller has locked."""
    with mock.patch.dict(connections.settings, other=connection.settings_dict):
        found = own_connection.run(
            lambda: {one.alias: [*one.execute_wrappers] for one in connections.all()}
        )
    assert {"default", "other"} <= set(found)
    assert all(own_connection._wait_briefly in wrappers for wrappers in found.values())


@on_servers
def test_its_connection_is_closed(provider, monkeypatch):
    opened, real = [], own_connection._with_connection

    def noted(work):
        result = real(work)
        opened.append((threading.current_thread() is not threading.main_thread(), own()))
        return result

    def own():
        return own_connection.connections[connection.alias].connection

    monkeypatch.setattr(own_connection, "_with_connection", noted)
    with transaction.atomic():
        send_code(NUMBER, TEXT, code=CODE)
    assert opened == [(True, None)]


class TestOfAProject(TestCase):
    """Its own transaction is seen by it alone, also where its backend uses the network."""

    def test_its_backends_fill_the_outbox(self):
        assert send_code(NUMBER, TEXT, code=CODE).status == Status.SENT
        assert outbox[-1].body == TEXT and rows() == [("sent", WIPED, "")]

    def test_the_row_is_in_its_transaction(self):
        with closed_port() as port:
            url = f"http://127.0.0.1:{port}/"
            login = {"api_key": "key", "api_password": "password", "sender_id": "Shop"}
            providers = {"default": {"OPTIONS": {**login, "url": url}}}
            real = override_settings(SMSKA_LOCMEM_IN_TESTS=False, SMS_PROVIDERS=providers)
            with real, pytest.raises(GatewayUnreachable):
                send_code(NUMBER, TEXT, code=CODE)
        assert rows() == [("failed", WIPED, "")]


def test_nothing_of_the_test_before_is_left(db):
    assert rows() == []

"""Other apps' messages, through the adapters that they are pointed at, to the stand-in gateway.

Each view runs twice: alone, and in the transaction of ``ATOMIC_REQUESTS``.
"""

from __future__ import annotations

import logging
import pickle
from unittest import mock

import pytest
import sms
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import connection
from drfpasswordless.models import CallbackToken
from phone_verify.models import SMSVerification
from phone_verify.services import send_security_code_and_generate_session_token
from rest_framework.exceptions import APIException
from sendsms import api
from sendsms.message import SmsMessage as SendsmsMessage

from django_smska.adapters import phone_verify
from django_smska.adapters.django_sendsms import SmsBackend as SendsmsBackend
from django_smska.adapters.django_sms import SmsBackend
from django_smska.adapters.each_recipient import NotAllSent
from django_smska.exceptions import (
    InsufficientCredits,
    InvalidProvider,
    InvalidRecipient,
    LimitExceeded,
    SmsNotSent,
)
from django_smska.limit_rules import DEFAULTS
from django_smska.models import DOTS, SmsMessage
from django_smska.testing.gateway import Fault
from django_smska.worker import Worker
from tests.documents import run

A, B, C = NUMBERS = ["+79041764995", "+79041764996", "+79041764997"]
TEXT = "Ваш заказ готов"
REFUSED = Fault("bad_number")
UNKNOWN = Fault("reset_after_request", accepted=True)


@pytest.fixture(autouse=True, params=[False, True], ids=["alone", "atomic"])
def atomic_requests(request, provider):
    with mock.patch.dict(connection.settings_dict, ATOMIC_REQUESTS=request.param):
        yield request.param


@pytest.fixture
def kept(atomic_requests):
    """Whether the rows of a view that raised are kept."""
    return not (atomic_requests and connection.vendor == "sqlite")


@pytest.fixture(autouse=True)
def nothing_more_is_sent(provider, caplog):
    """Nothing goes out later, and no log line of ours has a whole number or a text."""
    caplog.set_level(logging.DEBUG)
    yield
    count = len(provider.accepted)
    Worker().run_once()
    assert len(provider.accepted) == count
    ours = " ".join(one.getMessage() for one in caplog.records if "django_smska" in one.name)
    for part in [*NUMBERS, *(number[1:] for number in NUMBERS), TEXT]:
        assert part not in ours


def accepted(provider):
    return sorted(f"+{one.msisdn}" for one in provider.accepted)


def texts_of_rows():
    return list(SmsMessage.objects.order_by("pk").values_list("status", "body", "code"))


# --- django-sms and django-sendsms ----------------------------------------------------------------


@pytest.fixture(params=["/django-sms/", "/sendsms/"])
def send(request, client):
    def send(*numbers):
        return client.post(request.param, {"text": TEXT, "to": numbers}).json()["sent"]

    return send


def test_each_recipient_gets_a_message(send, provider):
    assert send(*NUMBERS) == 3
    assert accepted(provider) == NUMBERS
    assert {one.sender for one in provider.accepted} == {"Shop"}
    assert texts_of_rows() == [("sent", TEXT, "")] * 3


def test_one_that_fails_stops_no_other(send, provider, kept):
    provider.script(2, REFUSED)
    with pytest.raises(NotAllSent) as raised:
        send(A, B, "12", C)
    assert accepted(provider) == [A, C]
    error = raised.value
    assert not isinstance(error, SmsNotSent)  # which says that sending again is safe
    assert (error.accepted, list(error.errors)) == (2, [1, 2])
    assert isinstance(error.errors[1], InvalidRecipient)
    assert isinstance(error.errors[2], ValidationError)
    assert str(error).startswith(
        "2 of 4 messages were not sent. Recipient 1 (+7904•••4996): The ga"
    )
    assert "Recipient 2 (•••): " in str(error)
    if kept:
        assert sorted(status for status, *_ in texts_of_rows()) == ["failed", "sent", "sent"]


def test_a_caller_who_tries_all_again_sends_none_twice(send, provider, settings, kept):
    settings.SMSKA_LIMITS = DEFAULTS
    provider.script(2, REFUSED)
    with pytest.raises(NotAllSent):
        send(*NUMBERS)
    if not kept:  # the limits were rolled back with the rows
        return
    with pytest.raises(NotAllSent) as raised:
        send(*NUMBERS)
    assert {type(error) for error in raised.value.errors.values()} == {LimitExceeded}
    assert accepted(provider) == [A, B, C]  # the one that was refused may go again


@pytest.mark.parametrize(
    ("number", "fault", "error"),
    [
        (A, REFUSED, InvalidRecipient),
        (A, Fault("no_credit"), InsufficientCredits),
        ("12", None, ValidationError),
    ],
)
def test_of_one_recipient_the_error_is_its_own(send, provider, number, fault, error):
    provider.script(1, fault)
    with pytest.raises(error):
        send(number)
    assert not provider.accepted


def test_what_may_have_been_sent_counts_as_accepted(send, provider):
    provider.script(2, UNKNOWN)
    assert send(*NUMBERS) == 3
    assert [status for status, *_ in texts_of_rows()] == ["sent", "unknown", "sent"]


def sms_message(backend, *numbers):
    return sms.Message(TEXT, recipients=list(numbers), connection=backend)


def sendsms_message(backend, *numbers):
    return SendsmsMessage(TEXT, to=numbers, connection=backend)


@pytest.mark.parametrize(
    ("backend", "message"), [(SmsBackend, sms_message), (SendsmsBackend, sendsms_message)]
)
class TestBackends:
    def test_what_fails_silently_is_in_the_log(self, provider, caplog, backend, message):
        provider.script(2, REFUSED)
        assert message(backend(fail_silently=True), A, B, "12").send() == 1
        said = [one.getMessage() for one in caplog.records if "each_recipient" in one.name]
        assert [line[:40] for line in said] == [
            "SMS to +7904•••4996 was not sent: The ga",
            "SMS to ••• was not sent: Start the numbe",
        ]

    @pytest.mark.parametrize("fault", [None, REFUSED, UNKNOWN])
    def test_a_code_is_never_stored(self, provider, backend, message, fault):
        provider.script(1, fault)
        coded = message(backend(fail_silently=True), A)
        coded.body, coded.code = "Код 482913", "482913"
        assert coded.send() == (0 if fault is REFUSED else 1)
        assert [row[1:] for row in texts_of_rows()] == [(f"Код {DOTS}", "")]

    def test_the_alias_is_an_option(self, provider, backend, message):
        with pytest.raises(InvalidProvider, match="bulk"):
            message(backend(using="bulk", fail_silently=True), A).send()

    def test_another_option_is_refused(self, backend, message):
        with pytest.raises(TypeError, match="sid"):
            backend(sid="AC1")


def test_a_login_is_refused():
    with pytest.raises(TypeError, match="SMS_PROVIDERS"):
        api.get_connection(username="me", password="word")


def test_the_error_survives_pickling_and_shows_no_number(provider):
    provider.script_all(REFUSED)
    with pytest.raises(NotAllSent) as raised:
        sms.send_sms(TEXT, recipients=[A, B])
    twin = pickle.loads(pickle.dumps(raised.value))
    assert (str(twin), twin.accepted, list(twin.errors)) == (str(raised.value), 0, [0, 1])
    for part in [A[1:], B[1:], TEXT]:
        assert part not in repr(vars(twin)) + repr(twin)


@pytest.mark.parametrize(
    ("url", "field", "status"),
    [("/limited/django-sms/", "to", 429), ("/phone/register", "phone_number", 429),
     ("/auth/mobile/", "mobile", 400)],
)  # fmt: skip
def test_visitors_are_counted_where_a_view_limits_them(
    client, provider, settings, url, field, status
):
    settings.SMSKA_LIMITS = {"caller": "1/h", "number": None}
    answers = [client.post(url, {"text": TEXT, field: number}) for number in (A, B)]
    assert [one.status_code for one in answers] == [200, status]
    assert accepted(provider) == [A]


# --- drfpasswordless ------------------------------------------------------------------------------


def ask_to_log_in(client, number=A):
    return client.post("/auth/mobile/", {"mobile": number})


def refusals(caplog):
    """The lines about codes that were not sent."""
    return [line for line in caplog.records if line.name == "django_smska.adapters.refusals"]


def code_of(provider):
    return provider.accepted[-1].text[-6:]


def test_a_visitor_logs_in(client, provider):
    answered = ask_to_log_in(client)
    assert (answered.status_code, answered.json()) == (
        200,
        {"detail": "We texted you a login code."},
    )
    (message,) = provider.accepted
    assert (message.sender, message.text) == ("Shop", f"Код для входа: {code_of(provider)}")
    assert texts_of_rows() == [("sent", f"Код для входа: {DOTS}", "")]
    logged_in = client.post("/auth/token/", {"mobile": A, "token": code_of(provider)})
    assert logged_in.status_code == 200 and logged_in.json()["token"]


@pytest.mark.parametrize("fault", [REFUSED, Fault("no_credit"), Fault("redirect_307")])
def test_a_visitor_hears_that_no_login_code_was_sent(client, provider, caplog, fault):
    provider.script(1, fault)
    answered = ask_to_log_in(client)
    assert answered.status_code == 400
    assert answered.json() == {"detail": "Unable to send you a login code. Try again later."}
    assert texts_of_rows() == [("failed", f"Код для входа: {DOTS}", "")]
    [line] = refusals(caplog)
    assert line.getMessage().startswith("a code was not sent: ")
    assert line.alias == "default"
    assert CallbackToken.objects.get().key not in line.getMessage()


def test_a_login_code_that_may_be_on_the_phone_is_asked_for(client, provider):
    provider.script(1, UNKNOWN)
    assert ask_to_log_in(client).status_code == 200
    assert texts_of_rows() == [("unknown", f"Код для входа: {DOTS}", "")]
    logged_in = client.post("/auth/token/", {"mobile": A, "token": code_of(provider)})
    assert logged_in.status_code == 200


def test_login_codes_are_limited(client, provider, settings, caplog):
    settings.SMSKA_LIMITS = DEFAULTS
    assert [ask_to_log_in(client).status_code for _ in range(2)] == [200, 400]
    assert len(provider.accepted) == 1
    assert [line.code for line in refusals(caplog)] == ["limit-codes"]


def test_a_number_that_drfpasswordless_accepts_and_we_do_not(client, provider):
    assert ask_to_log_in(client, "+7904").status_code == 400
    assert not SmsMessage.objects.exists()


def test_a_national_number_is_refused_by_drfpasswordless(client, provider):
    assert ask_to_log_in(client, "8 904 176-49-95").status_code == 400
    assert not provider.requests


def test_its_own_suppression_holds(client, provider):
    where = "django_smska.adapters.drfpasswordless.api_settings.PASSWORDLESS_TEST_SUPPRESSION"
    with mock.patch(where, True):
        assert ask_to_log_in(client).status_code == 200
    assert not provider.requests


# --- django-phone-verify --------------------------------------------------------------------------


def register(client, number=A):
    return client.post("/phone/register", {"phone_number": number})


def test_a_visitor_verifies_a_number(client, provider):
    answered = register(client)
    assert answered.status_code == 200
    (message,) = provider.accepted
    assert (message.sender, message.text) == ("Shop", f"Shop: {code_of(provider)}")
    assert texts_of_rows() == [("sent", f"Shop: {DOTS}", "")]
    data = {"phone_number": A, "security_code": code_of(provider), **answered.json()}
    assert client.post("/phone/verify", data).status_code == 200


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        (REFUSED, 400, "No SMS can be sent to this number."),
        (Fault("no_credit"), 503, "The SMS was not sent. Try again in a few minutes."),
        (Fault("redirect_307"), 503, "The SMS was not sent. Try again in a few minutes."),
    ],
)
def test_a_visitor_hears_that_no_security_code_was_sent(
    client, provider, kept, atomic_requests, fault, status, words
):
    provider.script(1, fault)
    answered = register(client)
    assert (answered.status_code, *answered.json().values()) == (
        status, [words] if status == 400 else words
    )  # fmt: skip
    assert texts_of_rows() == ([("failed", f"Shop: {DOTS}", "")] if kept else [])
    assert SMSVerification.objects.exists() is not atomic_requests


def test_a_security_code_that_may_be_on_the_phone_is_asked_for(client, provider):
    provider.script(1, UNKNOWN)
    assert register(client).status_code == 200
    assert texts_of_rows() == [("unknown", f"Shop: {DOTS}", "")]


def test_security_codes_are_limited(client, provider, settings, caplog, atomic_requests):
    settings.SMSKA_LIMITS = DEFAULTS
    first, second = register(client), register(client)
    assert (first.status_code, second.status_code) == (200, 429)
    assert 0 < int(second["Retry-After"]) <= 30
    assert "Try again in" in second.json()["detail"]
    [line] = refusals(caplog)
    assert (line.levelname, line.alias, line.code) == ("WARNING", "default", "limit-codes")
    data = {"phone_number": A, "security_code": code_of(provider), **first.json()}
    # In a transaction, the package's own rows are as they were before the second request.
    assert client.post("/phone/verify", data).status_code == (200 if atomic_requests else 400)


def test_without_a_view_the_error_says_why(provider, caplog):
    provider.script(1, REFUSED)
    with pytest.raises(APIException) as raised:
        send_security_code_and_generate_session_token(A)
    assert isinstance(raised.value.__cause__, InvalidRecipient)
    assert A not in caplog.text


def test_a_national_number_is_read(client, provider, settings):
    verify = run("howto/adapters", "PHONE_VERIFICATION", INSTALLED_APPS=[])
    settings.PHONENUMBER_DEFAULT_REGION = verify["PHONENUMBER_DEFAULT_REGION"]
    assert register(client, "8 904 176-49-95").status_code == 200
    assert accepted(provider) == [A]


def test_another_text_is_sensitive(provider):
    phone_verify.Backend().send_sms(A, TEXT)
    assert accepted(provider) == [A] and texts_of_rows() == [("sent", "", "")]


def test_a_code_is_used_once(provider):
    backend = phone_verify.Backend()
    backend.generate_message("482913")
    backend.send_sms(A, "Код 482913")
    backend.send_sms(A, "Уже не код: 482913")
    assert [row[1] for row in texts_of_rows()] == [f"Код {DOTS}", ""]


def test_in_bulk_one_that_fails_stops_no_other(provider):
    provider.script(1, REFUSED)
    with pytest.raises(NotAllSent):
        phone_verify.Backend().send_bulk_sms(NUMBERS, TEXT)
    assert accepted(provider) == [B, C]


def test_options_of_another_backend_are_refused():
    with pytest.raises(ImproperlyConfigured, match="has SECRET, SID"):
        phone_verify.Backend(SID="AC1", SECRET="word")

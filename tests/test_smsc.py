"""What SMSC.ru alone does: its codes, its minute, its account-wide handler."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.test import RequestFactory

from django_smska import clock
from django_smska.backends import smsc
from django_smska.checked_backend import provider
from django_smska.conf import sms_url
from django_smska.exceptions import (
    AuthenticationFailed,
    GatewayBusy,
    GatewayUnreachable,
    InvalidProvider,
    InvalidRecipient,
    QueryFailed,
    SmsError,
    SmsOutcomeUnknown,
    TemporaryFailure,
)
from django_smska.exchange import Answer
from django_smska.models import SmsMessage
from django_smska.receipts import Inbound, Receipt, Report
from django_smska.references import new_reference
from django_smska.sms import queue_sms
from django_smska.worker import Worker

from .conftest import PATIENT
from .counterparts import standin
from .counterparts.smsc import LOGIN, PASSWORD, SECRET, Smsc, error, md5, post
from .counterparts.standin import reply
from .test_contract import NUMBER, make, message


@pytest.fixture
def account():
    with Smsc() as account:
        yield account


@pytest.fixture
def provided(account, settings, transactional_db):
    settings.SMSKA_LOCMEM_IN_TESTS = False
    settings.SMS_PROVIDERS = {
        "default": {
            "BACKEND": "django_smska.backends.smsc.SmsBackend",
            "OPTIONS": {**account.options(), **PATIENT},
        }
    }
    return account


def answer(body, status=200):
    return Answer(status, body.encode())


# --- the request ----------------------------------------------------------------------------------


def test_the_form_has_what_is_documented_and_the_address_nothing(account):
    one = message("Заказ готов")
    receipt = make(account).send_message(one)
    (request,) = account.requests
    assert (request.method, request.target) == ("POST", "/sys/send.php")
    assert request.form == {
        "login": LOGIN,
        "psw": PASSWORD,
        "charset": "utf-8",
        "fmt": "3",
        "phones": "79041764981",
        "mes": "Заказ готов",
        "id": one.reference,
        "cost": "3",
        "sender": "Shop",
    }
    assert receipt == Receipt(
        one.reference, Decimal("97.50"), price=Decimal("2.5"), currency="RUB", segments=1
    )


def test_without_a_sender_the_accounts_own_is_used(account):
    make(account, sender_id="").send_message(message())
    assert "sender" not in account.requests[0].form


@pytest.mark.parametrize("end", ["/sys", "/sys/", "/sys//"])
def test_the_address_may_end_in_a_slash(account, end):
    assert make(account, url=account.url + end).get_balance() == 100
    assert account.requests[0].target == "/sys/balance.php"


def test_a_secret_that_is_no_text_is_refused(account):
    with pytest.raises(InvalidProvider, match="'secret' must be text"):
        make(account, secret=5)


def test_the_url_of_an_account():
    given = "smsc://me%40shop:p%2Fw@smsc.ru?sender_id=Shop&secret=s&rate=5/s"
    assert sms_url(given) == {
        "BACKEND": "django_smska.backends.smsc.SmsBackend",
        "OPTIONS": {
            "login": "me@shop",
            "password": "p/w",
            "url": smsc.DEFAULT_URL,
            "sender_id": "Shop",
            "secret": "s",
            "rate": "5/s",
        },
    }
    assert sms_url("smsc://a:b@www2.smsc.ru/sys/")["OPTIONS"]["url"] == "https://www2.smsc.ru/sys/"


# --- answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "the_id"),
    [
        ('{"id": 0, "cnt": 2, "cost": 5, "balance": -1.5}', "0"),
        ('{"id": "a.b-c_9", "cnt": "2", "cost": "5.00", "balance": "-1.5"}', "a.b-c_9"),
        ('{"id": true, "cnt": 2, "cost": 5, "balance": "-1.50"}', ""),
        ('{"id": "a b", "cnt": 2, "cost": "5", "balance": "-1.5"}', ""),
        ('\ufeff{"cnt": 2, "cost": 5, "balance": -1.5}', ""),
    ],
)
def test_what_accepts(body, the_id):
    receipt = smsc.read_send_answer(answer(body))
    money = {"price": Decimal(5), "currency": "RUB", "segments": 2}
    assert receipt == Receipt(the_id, Decimal("-1.5"), **money)


def test_what_accepts_without_a_price():
    body = '{"id": "a", "cnt": 1, "cost": NaN, "balance": "none"}'
    assert smsc.read_send_answer(answer(body)) == Receipt("a", segments=1)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ('{"error": "x", "error_code": 10}', 200, "10"),
        ('{"error": "x", "error_code": -1}', 200, "-1"),
        ('{"error": "x", "error_code": true}', 200, "unreadable"),
        ('{"error": "x", "error_code": "7.0"}', 200, "unreadable"),
        ('{"error": "x"}', 200, "unreadable"),
        ('{"error": "x", "error_code": 7, "id": "a", "cnt": 1}', 200, "7"),
        ('{"error": "x", "id": "a", "cnt": 1}', 200, "unreadable"),
        ('{"id": "a", "cnt": 0}', 200, "unreadable"),
        ('{"id": "a", "cnt": true}', 200, "unreadable"),
        ('{"id": "a"}', 200, "unreadable"),
        ("ERROR = 7 (invalid number)", 200, "unreadable"),
        ("[" * 100_000, 200, "unreadable"),
        ('{"error": "x", "error_code": 7}', 500, "http-500"),
        ('{"error": "x", "error_code": 7}', 408, "http-408"),
        ('{"id": "a", "cnt": 1}', 502, "http-502"),
        ('{"id": "a", "cnt": 1}', 202, "unreadable"),
        ('{"id": "a", "cnt": 1}', 403, "http-403"),
    ],
)
def test_what_is_a_doubt(body, status, code):
    result = smsc.read_send_answer(answer(body, status))
    assert (type(result), result.code) == (SmsOutcomeUnknown, code)


@pytest.mark.parametrize(
    ("status", "error"),
    [(301, GatewayUnreachable), (403, AuthenticationFailed), (429, GatewayBusy)],
)
def test_what_stands_before_smsc_ru_refuses_by_the_http_status(status, error):
    result = smsc.read_send_answer(answer("<h1>Go away</h1>", status))
    assert (type(result), result.code) == (error, f"http-{status}")


def test_a_refusal_may_have_its_code_as_text_and_an_id():
    result = smsc.read_send_answer(answer('{"error": "x", "error_code": "8", "id": 5}'))
    assert (type(result), result.code, result.answered) == (InvalidRecipient, "8", True)


def test_after_every_refusal_the_minute_is_waited_for():
    for code in smsc.REFUSALS:
        result = smsc.read_send_answer(answer(f'{{"error": "x", "error_code": {code}}}'))
        assert result.retry_in > 60 and result.code == str(code)


# --- the minute, and 14 at once, through the engine -----------------------------------------------


def test_the_same_again_within_a_minute_is_no_final_refusal(provided):
    """The first try is refused, so that the second one must not come before its minute is over."""
    one = queue_sms(NUMBER, "text")
    provided.spoil(standin.instead(error(9)))
    begun = clock.now()
    Worker().run_once()
    one.refresh_from_db()
    assert (one.status, one.attempts) == ("queued", 1)
    assert one.send_after >= begun + timedelta(seconds=60)
    Worker().run_once()
    assert len(provided.requests) == 1
    SmsMessage.objects.update(send_after=clock.now())
    Worker().run_once()
    one.refresh_from_db()
    assert (one.status, one.gateway_id) == ("sent", one.reference)
    assert (one.price, one.currency, one.billed_segments) == (Decimal("2.5"), "RUB", 1)
    assert [taking.reference for taking in provided.accepted] == [one.reference]


def test_an_account_has_at_most_14_requests_at_once(provided):
    assert provider("default").at_once(16) == 14


# --- questions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (-2, "sent"), (-1, "sent"), (0, "sent"), (1, "delivered"), (2, "delivered"),
        (3, "expired"), (20, "rejected"), (22, "rejected"), (23, "rejected"), (24, "rejected"),
        (25, "rejected"), (21, ""), (4, ""), (-4, ""),
    ],
)  # fmt: skip
def test_the_meaning_of_a_status(status, meaning):
    body = f'{{"status": {status}, "last_timestamp": 1286524541, "err": 6}}'
    report = smsc.read_status_answer(answer(body), "ref")
    assert report == Report(meaning, f"{status}|6", gateway_id="ref")


@pytest.mark.parametrize("body", ['{"status": -3}', '{"error": "x", "error_code": 3}'])
def test_what_is_not_known_proves_nothing(account, body):
    account.ask = lambda fields: reply(body)
    backend, one = make(account), message()
    one.gateway_id = "17"
    assert backend.find(one) is None
    assert backend.get_status(one) == Report(raw="-3")
    assert [request.form["id"] for request in account.requests] == [one.reference, "17"]


@pytest.mark.parametrize(
    ("body", "status", "raised"),
    [
        ('{"error": "x", "error_code": 2}', 200, AuthenticationFailed),
        ('{"error": "x", "error_code": 4}', 200, GatewayBusy),
        ('{"error": "x", "error_code": 9}', 200, QueryFailed),
        ('{"status": "none"}', 200, QueryFailed),
        ("[]", 200, QueryFailed),
        ('{"status": 1, "error_code": 7}', 200, QueryFailed),
        ('{"status": 1, "balance": 1}', 500, QueryFailed),
    ],
)
def test_questions_without_an_answer(account, body, status, raised):
    account.ask = account.say_balance = lambda fields: reply(body, status)
    backend = make(account)
    for ask in (backend.get_balance, lambda: backend.find(message())):
        with pytest.raises(SmsError) as caught:
            ask()
        assert type(caught.value) is raised and caught.value.alias == "default"


def test_a_message_without_an_id_is_not_asked_for(account):
    with pytest.raises(QueryFailed):
        make(account).get_status(message())
    assert account.requests == []


# --- what is pushed -------------------------------------------------------------------------------


def report_of(the_id="ref", status="1", **more):
    signature = md5(f"{the_id}:79041764981:{status}:{SECRET}")
    return post({"id": the_id, "phone": "79041764981", "status": status, "md5": signature, **more})


def test_a_report_carries_our_reference(account):
    (report,) = make(account).parse_reports(report_of(err="0"))
    assert report == Report("delivered", "1", gateway_id="ref", reference="ref")


def test_a_signature_in_capitals_is_one(account):
    request = report_of()
    assert make(account).authenticate(report_of(md5=request.POST["md5"].upper()))


def test_without_a_secret_the_address_alone_decides(account):
    assert make(account, secret="").authenticate(report_of(md5="wrong"))


def test_a_forged_reply_is_refused(account):
    backend = make(account)
    signature = md5(f"79041764988:STOP:5555:{SECRET}")
    fields = {"phone": "79041764988", "mes": "STOP", "to": "5555", "md5": signature}
    assert backend.authenticate(post(fields))
    for name in fields:
        assert not backend.authenticate(post({**fields, name: fields[name] + "1"})), name
    assert not backend.authenticate(RequestFactory().get("/", fields))


def test_one_handler_gets_both_kinds(account):
    backend = make(account)
    reply_of_a_phone = account.inbound("79041764988", "5555", "STOP", "in-7")
    assert backend.parse_reports(reply_of_a_phone) == []
    assert backend.parse_inbound(reply_of_a_phone) == [
        Inbound("79041764988", "5555", "STOP", "in-7")
    ]
    assert backend.parse_inbound(report_of()) == []


@pytest.mark.parametrize(
    "fields",
    [{}, {"id": "a"}, {"status": "1"}, {"id": "a b", "status": "1"}, {"id": "", "status": "1"}],
)
def test_what_is_no_report(account, fields):
    with pytest.raises(ValueError):
        make(account).parse_reports(post(fields))


def test_a_reply_without_a_phone_is_none(account):
    with pytest.raises(ValueError):
        make(account).parse_inbound(post({"mes": "text", "to": "5555"}))


def test_a_login_that_is_wrong_waits_with_its_queue(provided, settings):
    settings.SMS_PROVIDERS["default"]["OPTIONS"]["password"] = "another-password"
    one = queue_sms(NUMBER, "text")
    assert Worker().run_once()["queued"] == 1
    one.refresh_from_db()
    assert one.error_code == "2" and provided.accepted == []


def test_our_references_are_what_it_takes_as_an_id():
    assert smsc._ID.fullmatch(new_reference()) and len(new_reference()) <= 40


def test_a_busy_account_is_not_asked_again_at_once(provided):
    queue_sms(NUMBER, "first")
    queue_sms(NUMBER, "second")
    provided.spoil(standin.instead(error(4)))
    Worker().run_once()
    assert len(provided.requests) == 1
    assert set(SmsMessage.objects.values_list("status", flat=True)) == {"queued"}


def test_the_class_of_error_9():
    assert smsc.REFUSALS[9] is TemporaryFailure

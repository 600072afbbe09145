"""What is Twilio's own matter; what all backends over HTTP keep stands in ``test_contract``."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from email.utils import format_datetime

import pytest
from django.test import RequestFactory
from django.utils import timezone as django_timezone

from django_smska.backends import twilio
from django_smska.checked_backend import CheckedBackend
from django_smska.exceptions import (
    AuthenticationFailed,
    GatewayUnreachable,
    InvalidProvider,
    InvalidRecipient,
    InvalidRequest,
    QueryFailed,
    RecipientOptedOut,
    SmsOutcomeUnknown,
)
from django_smska.exchange import Answer
from django_smska.json_answers import REFUSALS as STATUS_REFUSALS
from django_smska.receipts import Evidence, Receipt

from . import test_contract
from .counterparts import standin
from .counterparts.twilio import SERVICE, SID, TOKEN, Twilio, problem, pushed, signature

NUMBER, TEXT = "+79041764983", "Заказ № 8 в пути"
PUBLIC = "https://shop.example"
NOW = datetime(2026, 3, 5, 12, 30, 15, tzinfo=timezone.utc)
MESSAGE_SID = "SM" + "0a" * 16


@pytest.fixture
def public(settings):
    settings.SMSKA_PUBLIC_URL = PUBLIC
    return settings


@pytest.fixture
def counterpart():
    with Twilio() as counterpart:
        yield counterpart


def make(counterpart=None, **changes):
    options = counterpart.options() if counterpart else {"account_sid": SID, "auth_token": TOKEN}
    return twilio.SmsBackend(alias="default", **{"sender_id": "+15005550006", **options, **changes})


def message(**changes):
    return test_contract.message(**{"to": NUMBER, "body": TEXT, **changes})


def answer(body, status=200, framed=True):
    return Answer(status, json.dumps(body).encode(), framed)


# --- requests -------------------------------------------------------------------------------------


def test_a_request_has_these_fields_and_no_others(counterpart, public):
    one = message()
    make(counterpart).send_message(one)
    (request,) = counterpart.requests
    callback = request.form["StatusCallback"]
    assert request.form == {
        "To": NUMBER,
        "Body": TEXT,
        "From": "+15005550006",
        "StatusCallback": callback,
    }
    assert callback.startswith(f"{PUBLIC}/sms/default/")
    assert callback.endswith(f"/report/?reference={one.reference}")
    assert request.target == f"/2010-04-01/Accounts/{SID}/Messages.json"
    login = base64.b64encode(f"{SID}:{TOKEN}".encode()).decode()
    assert request.headers["authorization"] == f"Basic {login}"


def test_without_a_public_address_no_report_is_asked_for(counterpart):
    make(counterpart).send_message(message())
    assert "StatusCallback" not in counterpart.requests[0].form


def test_a_message_without_a_reference_is_reported_on_by_its_id_alone(counterpart, public):
    make(counterpart).send_message(message(reference=""))
    assert counterpart.requests[0].form["StatusCallback"].endswith("/report/")


@pytest.mark.parametrize(
    ("of_provider", "of_message", "sent"),
    [("", "", None), ("Shop", "", "Shop"), ("Shop", "Other", "Other"), ("", "Other", "Other")],
)
def test_a_messaging_service_goes_with_or_without_a_sender(
    counterpart, of_provider, of_message, sent
):
    backend = make(counterpart, messaging_service_sid=SERVICE, sender_id=of_provider)
    receipt = backend.send_message(message(sender=of_message))
    form = counterpart.requests[0].form
    assert form["MessagingServiceSid"] == SERVICE and form.get("From") == sent
    assert receipt.segments is None  # Twilio says 0 until a sender is chosen


def test_a_number_is_written_as_twilio_wants_it(counterpart):
    make(counterpart).send_message(message(to="8 (904) 176-49-83"))
    assert counterpart.requests[0].form["To"] == NUMBER
    with pytest.raises(InvalidRecipient):
        make(counterpart).send_message(message(to="12"))
    assert len(counterpart.requests) == 1


def test_a_slash_at_the_end_of_the_address_does_no_harm(counterpart):
    make(counterpart, url=f"{counterpart.url}/").send_message(message())
    assert len(counterpart.accepted) == 1


# --- answers to a send ----------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "error"), twilio.REFUSALS.items())
def test_the_table_of_refusals(code, error):
    result = twilio.read_send_answer(answer({"code": code, "message": "why", "status": 400}, 400))
    assert type(result) is error and result.code == str(code)
    assert result.gateway_text == "why"
    assert result.answered is (error is not AuthenticationFailed)


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 429])
def test_a_code_that_no_table_has_refuses_the_message(status):
    result = twilio.read_send_answer(answer({"code": 21999, "message": "new"}, status))
    assert type(result) is InvalidRequest and result.code == "21999"


@pytest.mark.parametrize("code", [20503, 21610, 20003, 20500])
@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_5xx_is_a_doubt_whatever_its_code_says(status, code):
    result = twilio.read_send_answer(answer({"code": code, "message": "x"}, status))
    assert type(result) is SmsOutcomeUnknown and result.code == f"http-{status}"


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"code": 21610},  # a refusal under 200
        {"sid": ""},
        {"sid": None},
        {"sid": MESSAGE_SID[:-1]},
        {"sid": "CA" + "0a" * 16},  # a call
        {"sid": [MESSAGE_SID]},
    ],
)
@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_success_without_a_message_is_a_doubt(status, body):
    assert type(twilio.read_send_answer(answer(body, status))) is SmsOutcomeUnknown


def test_only_201_makes_a_message():
    assert type(twilio.read_send_answer(answer({"sid": MESSAGE_SID}))) is SmsOutcomeUnknown
    assert twilio.read_send_answer(answer({"sid": MESSAGE_SID}, 201)) == Receipt(MESSAGE_SID)


@pytest.mark.parametrize("code", [True, "21610", None, 21610.5, [21610]])
def test_a_code_that_is_no_whole_number_is_none(code):
    result = twilio.read_send_answer(answer({"code": code}, 408))
    assert type(result) is SmsOutcomeUnknown


@pytest.mark.parametrize(("status", "error"), STATUS_REFUSALS.items())
def test_a_status_of_http_refuses_where_twilio_says_no_code(status, error):
    result = twilio.read_send_answer(Answer(status, b"<h1>proxy</h1>"))
    assert type(result) is error and result.code == f"http-{status}"
    cut = twilio.read_send_answer(Answer(status, b"<h1>proxy</h1>", framed=False))
    assert type(cut) is SmsOutcomeUnknown


@pytest.mark.parametrize("status", [408, 409, 418, 425, 499])
def test_other_statuses_of_a_proxy_are_doubts(status):
    assert type(twilio.read_send_answer(Answer(status, b""))) is SmsOutcomeUnknown


def test_the_error_names_twilios_own_options():
    for refused in (Answer(401, b""), answer({"code": 20003, "message": "Authenticate"}, 401)):
        assert "account_sid, auth_token" in str(twilio.read_send_answer(refused))
    assert "url" in str(twilio.read_send_answer(Answer(404, b"")))
    assert type(twilio.read_send_answer(Answer(404, b""))) is GatewayUnreachable


def test_an_opt_out_is_one(counterpart):
    counterpart.spoil(standin.instead(problem(21610, "Attempt to send to unsubscribed recipient")))
    with pytest.raises(RecipientOptedOut, match="unsubscribed"):
        make(counterpart).send_message(message())


@pytest.mark.parametrize(
    ("price", "unit", "found"),
    [
        ("-0.00750", "USD", (Decimal("0.00750"), "USD")),
        ("0.00750", "usd", (Decimal("0.00750"), "USD")),
        (-0.0075, "EUR", (Decimal("0.0075"), "EUR")),
        ("0", "USD", (Decimal(0), "USD")),
        (None, "USD", (None, "")),
        (None, None, (None, "")),
        ("-0.5", None, (Decimal("0.5"), "")),
        ("free", "USD", (None, "")),
        ("-1e3", "USD", (None, "")),
        (True, "USD", (None, "")),
        ("-0.5", "dollars", (Decimal("0.5"), "")),
    ],
)
def test_a_price_has_no_minus(price, unit, found):
    body = {"sid": MESSAGE_SID, "price": price, "price_unit": unit, "num_segments": "3"}
    receipt = twilio.read_send_answer(answer(body, 201))
    assert (receipt.price, receipt.currency) == found
    assert receipt.segments == 3


# --- queries --------------------------------------------------------------------------------------

WORDS = {
    "accepted": "sent",
    "scheduled": "sent",
    "queued": "sent",
    "sending": "sent",
    "sent": "sent",
    "partially_delivered": "sent",
    "delivered": "delivered",
    "read": "delivered",
    "undelivered": "rejected",
    "failed": "rejected",
    "canceled": "deleted",
    "received": "",
    "of_tomorrow": "",
}


@pytest.mark.parametrize(("word", "status"), WORDS.items())
def test_each_status(word, status):
    report = twilio.read_message(answer({"status": word, "error_code": None}))
    assert (report.status, report.raw) == (status, word)


def test_why_a_message_has_failed():
    carrier = twilio.read_message(answer({"status": "undelivered", "error_code": 30007}))
    assert (carrier.status, carrier.raw) == ("rejected", "30007|undelivered")
    late = twilio.read_message(answer({"status": "failed", "error_code": 30036}))
    assert late.status == "expired"


def test_the_price_comes_with_the_status(counterpart):
    backend, one = make(counterpart), message()
    one.gateway_id = backend.send_message(one).gateway_id
    counterpart.rows[0] |= {"status": "delivered", "price": "-0.079", "num_segments": "2"}
    report = backend.get_status(one)
    assert (report.status, report.price, report.currency) == ("delivered", Decimal("0.079"), "USD")
    assert report.segments == 2 and report.gateway_id == one.gateway_id


@pytest.mark.parametrize("sid", ["", None, "../Balance", MESSAGE_SID + "/Media", "SM1"])
def test_only_an_id_of_twilio_is_asked_about(counterpart, sid):
    with pytest.raises(QueryFailed):
        make(counterpart).get_status(message(gateway_id=sid))
    assert counterpart.requests == []


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, AuthenticationFailed), (403, QueryFailed), (404, QueryFailed), (429, QueryFailed)],
)
def test_a_query_stops_the_sending_only_where_the_login_is_wrong(status, error):
    for read in (twilio.read_balance, twilio.read_message):
        assert type(read(answer({"code": 1, "message": "no"}, status))) is error


@pytest.mark.parametrize("balance", [None, "", "much", True, {}, "NaN"])
def test_a_balance_that_is_none(balance):
    assert type(twilio.read_balance(answer({"balance": balance}))) is QueryFailed


def test_a_debt_is_a_balance():
    assert twilio.read_balance(answer({"balance": "-1.25"})) == Decimal("-1.25")


# --- a search -------------------------------------------------------------------------------------


def test_a_lost_answer_is_found_by_search(counterpart):
    backend, lost = make(counterpart), message()
    counterpart.spoil(standin.accepts_and_resets)
    with pytest.raises(SmsOutcomeUnknown):
        backend.send_message(lost)
    found = backend.find(lost)
    assert (found.gateway_id, found.status) == (counterpart.accepted[0].id, "sent")


def test_two_equal_texts_stay_unknown(counterpart):
    backend, twins = make(counterpart), [message(), message()]
    counterpart.spoil(standin.accepts_and_resets, standin.accepts_and_resets)
    for one in twins:
        with pytest.raises(SmsOutcomeUnknown):
            backend.send_message(one)
    assert len(counterpart.accepted) == 2
    assert [backend.find(one) for one in twins] == [None, None]


def test_of_two_equal_texts_one_may_be_an_hour_older(counterpart):
    backend = make(counterpart)
    counterpart.add(to=NUMBER, body=TEXT, sender="+15005550006", made=NOW - timedelta(hours=1))
    row = counterpart.add(to=NUMBER, body=TEXT, sender="+15005550006", made=NOW)
    assert backend.find(message(sending_at=NOW)).gateway_id == row["sid"]


@pytest.mark.parametrize(
    ("seconds", "found"), [(-61, False), (-60, True), (0, True), (80, True), (81, False)]
)
def test_the_time_of_a_match(counterpart, seconds, found):
    """A minute before the request, and a minute after its deadline of 20 seconds."""
    made = NOW + timedelta(seconds=seconds)
    counterpart.add(to=NUMBER, body=TEXT, sender="+15005550006", made=made)
    assert (make(counterpart).find(message(sending_at=NOW)) is not None) is found


def test_a_longer_deadline_is_a_longer_time(counterpart):
    made = NOW + timedelta(seconds=150)
    counterpart.add(to=NUMBER, body=TEXT, sender="+15005550006", made=made)
    assert make(counterpart, deadline=90).find(message(sending_at=NOW)) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"body": TEXT + " "},
        {"body": TEXT[:-1]},
        {"body": ""},
        {"sender": "+15005550007"},
        {"sender": None},
        {"direction": "inbound"},
        {"direction": "outbound-reply"},
        {"date_created": "yesterday"},
        {"date_created": None},
        {"sid": "MM1"},
        {"sid": None},
    ],
)
def test_what_is_no_match(counterpart, change):
    counterpart.add(**{"to": NUMBER, "body": TEXT, "sender": "+15005550006", "made": NOW, **change})
    assert make(counterpart).find(message(sending_at=NOW)) is None


def test_another_number_or_sender_is_no_match():
    """Also where Twilio would not keep to the filters."""
    sought = twilio.Sought(
        to=NUMBER, body=TEXT, sender="Shop", service="", since=NOW, until=NOW + timedelta(seconds=9)
    )
    with Twilio() as counterpart:
        row = counterpart.add(to=NUMBER, body=TEXT, sender="Shop", made=NOW)
    others = [{**row, "to": "+79041764984"}, {**row, "from": "Other"}, "nonsense", None]
    page = {"messages": [*others, row]}
    assert twilio.read_search(answer(page), sought).gateway_id == row["sid"]
    assert repr(sought) == "<Hidden •••>"


@pytest.mark.parametrize("older", [0, 1])
def test_a_page_that_ends_within_the_time_proves_nothing(counterpart, older):
    """A second match may stand on the next page, unless this one reaches further back."""
    sender = "+15005550006"
    for _ in range(2):
        counterpart.add(to=NUMBER, body="old", sender=sender, made=NOW - timedelta(days=1))
    counterpart.add(to=NUMBER, body=TEXT, sender=sender, made=NOW)
    for number in range(twilio.PAGE_MESSAGES - 1 - older):
        counterpart.add(to=NUMBER, body=f"text {number}", sender=sender, made=NOW)
    found = make(counterpart).find(message(sending_at=NOW))
    assert (found is not None) is bool(older)


def test_with_a_service_the_sender_may_be_any_of_its_own(counterpart):
    backend = make(counterpart, messaging_service_sid=SERVICE, sender_id="")
    row = counterpart.add(to=NUMBER, body=TEXT, sender="+15005550009", service=SERVICE, made=NOW)
    assert backend.find(message(sending_at=NOW)).gateway_id == row["sid"]
    row["messaging_service_sid"] = SERVICE.replace("b", "c")
    assert backend.find(message(sending_at=NOW)) is None


def test_without_a_time_nothing_is_searched(counterpart):
    assert make(counterpart).find(message(sending_at=None)) is None
    one = message()
    del one.sending_at
    assert make(counterpart).find(one) is None
    assert counterpart.requests == []


def test_a_project_without_time_zones_is_searched_for(counterpart, settings):
    settings.USE_TZ = False
    counterpart.add(to=NUMBER, body=TEXT, sender="+15005550006", made=NOW)
    local = NOW.astimezone(django_timezone.get_default_timezone()).replace(tzinfo=None)
    assert make(counterpart).find(message(sending_at=local)) is not None


@pytest.mark.parametrize("wiped", [{"body": ""}, {"sensitive": True}])
def test_a_text_that_is_wiped_is_not_searched_for(counterpart, wiped):
    """An empty one would match a message whose text was removed at Twilio."""
    counterpart.add(to=NUMBER, body=wiped.get("body", TEXT), sender="+15005550006", made=NOW)
    assert make(counterpart).find(message(sending_at=NOW, **wiped)) is None
    assert counterpart.requests == []


@pytest.mark.parametrize("body", [{}, {"messages": None}, {"messages": {}}, []])
def test_a_search_without_an_answer_fails(counterpart, body):
    sought = twilio.Sought(to="", body="", sender="", service="", since=NOW, until=NOW)
    assert type(twilio.read_search(answer(body), sought)) is QueryFailed


def test_our_log_of_a_search_shows_no_number(counterpart, caplog):
    caplog.set_level("DEBUG", logger="django_smska")
    make(counterpart).find(message())
    shown = [record.getMessage() for record in caplog.records if record.name[:6] == "django"]
    assert shown == ["find: ok"]


# --- signatures -----------------------------------------------------------------------------------

FORM = {"MessageSid": MESSAGE_SID, "MessageStatus": "sent", "To": NUMBER}


def request_of(url, form, signed, settings=""):
    request = pushed(url, form, signed)
    if settings:
        request.META["HTTP_X_TWILIO_WEBHOOKS_SIGNATURE_SETTINGS"] = settings
    return request


@pytest.mark.parametrize(
    ("public", "signed"),
    [
        ("https://shop.example", "https://shop.example"),
        ("https://shop.example", "https://shop.example:443"),
        ("https://shop.example/", "https://shop.example"),
        ("https://shop.example:443", "https://shop.example"),
        ("https://shop.example:8443", "https://shop.example:8443"),
        ("https://shop.example:8443", "https://shop.example"),
        ("http://shop.example", "http://shop.example:80"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]:443"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]"),
    ],
)
def test_the_address_is_the_public_one_with_or_without_its_port(settings, public, signed):
    settings.SMSKA_PUBLIC_URL = public
    rest = "/sms/default/key/report/?reference=abc"
    request = request_of(f"{PUBLIC}{rest}", FORM, signature(f"{signed}{rest}", FORM))
    assert request.get_host() == "testserver"
    assert make().authenticate(request)
    other = request_of(f"{PUBLIC}{rest}", FORM, signature(f"https://other.example{rest}", FORM))
    assert not make().authenticate(other)


def test_without_a_public_address_nothing_is_authentic():
    url = "http://testserver/sms/default/key/report/"
    assert not make().authenticate(request_of(url, FORM, signature(url, FORM)))


def test_a_shared_key_signs_by_sha_256(public):
    url = f"{PUBLIC}/sms/default/key/report/?reference=abc"
    settings = "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"
    signed = signature(url, FORM, "shared-key", hashlib.sha256)
    assert make(signing_key="shared-key").authenticate(request_of(url, FORM, signed, settings))
    assert not make().authenticate(request_of(url, FORM, signed, settings))
    assert not make(signing_key="shared-key").authenticate(request_of(url, FORM, signed))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ("", "sha1"),
        ("key=1", "sha1"),
        ("algorithm=", "sha1"),
        ("algorithm=HMAC_SHA1", "sha1"),
        ("key=1, algorithm = hmac_sha256 ", "sha256"),
        ("algorithm=HMAC_SHA256,key=1", "sha256"),
        ("algorithm=HMAC_MD5", ""),
        ("algorithm=none", ""),
        ("algorithm=sha1", ""),
    ],
)
def test_the_algorithm_that_a_request_names(settings, name):
    assert twilio.algorithm_of(settings) == name


def test_an_unknown_algorithm_is_not_authentic(public):
    url = f"{PUBLIC}/x/"
    request = request_of(url, FORM, signature(url, FORM), "algorithm=HMAC_MD5")
    assert not make().authenticate(request)


def test_a_field_that_comes_twice_is_signed_with_each_value(public):
    url = f"{PUBLIC}/x/"
    values = {"MediaUrl": ["b", "a", "b"], "To": [NUMBER]}
    request = RequestFactory().post(
        "/x/", values, headers={"X-Twilio-Signature": twilio.sign(TOKEN, url, values)}
    )
    assert make().authenticate(request)
    assert twilio.sign(TOKEN, url, values) == signature(f"{url}MediaUrlaMediaUrlb", {"To": NUMBER})


@pytest.mark.parametrize("given", ["é", "=", "a" * 5000])
def test_a_signature_that_is_none(public, given):
    assert not make().authenticate(request_of(f"{PUBLIC}/x/", FORM, given))


# --- what is pushed -------------------------------------------------------------------------------


def test_a_report_has_its_reference_from_the_address(public):
    form = {**FORM, "MessageStatus": "undelivered", "ErrorCode": "30006"}
    (report,) = make().parse_reports(pushed(f"{PUBLIC}/x/?reference=ref1", form))
    assert (report.status, report.raw) == ("rejected", "30006|undelivered")
    assert (report.gateway_id, report.reference) == (MESSAGE_SID, "ref1")


@pytest.mark.parametrize(
    "change", [{"MessageSid": ""}, {"MessageSid": "SM1"}, {"MessageStatus": ""}]
)
def test_a_report_that_is_none(public, change):
    with pytest.raises(ValueError):
        make().parse_reports(pushed(f"{PUBLIC}/x/", {**FORM, **change}))


@pytest.mark.parametrize("missing", ["From", "To", "Body"])
def test_a_message_of_a_phone_that_is_none(public, missing):
    form = {"From": NUMBER, "To": "5555", "Body": "", "MessageSid": MESSAGE_SID}
    (one,) = make().parse_inbound(pushed(f"{PUBLIC}/x/", form))
    assert (one.sender, one.to, one.body, one.gateway_id) == (NUMBER, "5555", "", MESSAGE_SID)
    del form[missing]
    with pytest.raises(ValueError):
        make().parse_inbound(pushed(f"{PUBLIC}/x/", form))


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words", "check"),
    [
        ({"account_sid": "AC1"}, "'account_sid' must be AC and 32", "E004"),
        ({"account_sid": TOKEN, "auth_token": SID}, "'account_sid' must be AC and 32", "E004"),
        ({"account_sid": f"{SID}/.."}, "'account_sid' must be AC and 32", "E004"),
        ({"account_sid": ""}, "'account_sid' and 'auth_token' must not be empty", "E004"),
        ({"messaging_service_sid": "MG1"}, "'messaging_service_sid' must be MG and 32", "E005"),
        ({"messaging_service_sid": 5}, "'messaging_service_sid' must be MG and 32", "E005"),
        ({"signing_key": 5}, "'signing_key' must be text", "E005"),
        ({"url": "api.twilio.com"}, "'url' must be an http:// or https:// address", "E005"),
    ],
)
def test_wrong_options(options, words, check):
    with pytest.raises(InvalidProvider, match=words) as refused:
        make(**options)
    assert refused.value.check == check
    assert TOKEN not in str(refused.value)


def test_a_sender_or_a_service_is_needed():
    assert [one.id for one in make(sender_id="").check()] == ["smska.W003"]
    assert make(sender_id="", messaging_service_sid=SERVICE).check() == []
    assert make().check() == []


@pytest.mark.parametrize(
    ("sender", "right"),
    [
        ("+15005550006", True),
        ("73822", True),
        ("Shop", True),
        ("My-Shop & Co", False),
        ("Shop & Co", True),
        ("Магазин", False),
        ("ElevenChars1", False),
        ("", False),
        ("@", False),
    ],
)
def test_the_rule_of_senders(sender, right):
    assert bool(twilio.SmsBackend.sender_rule.fullmatch(sender)) is right


def test_the_engine_reads_what_it_can():
    checked = CheckedBackend("default", make())
    assert checked.evidence == Evidence.SEARCHED
    assert checked.takes_reports and checked.takes_inbound
    assert checked.gives_reports and checked.has_balance


def test_times_are_read_as_twilio_writes_them():
    written = "Thu, 24 Aug 2023 05:01:45 +0000"
    assert format_datetime(datetime(2023, 8, 24, 5, 1, 45, tzinfo=timezone.utc)) == written
    with Twilio() as counterpart:
        row = counterpart.add(to=NUMBER, body=TEXT, sender="+15005550006", date_created=written)
        made = datetime(2023, 8, 24, 5, 1, 45, tzinfo=timezone.utc)
        assert make(counterpart).find(message(sending_at=made)).gateway_id == row["sid"]


def test_a_message_with_a_time_that_is_none_hides_no_other(counterpart):
    lost = message(sending_at=django_timezone.now())
    for zone in ("+99999999999999", "+2460", "x"):
        counterpart.add(
            to=NUMBER,
            body=TEXT,
            sender="+15005550006",
            date_created=f"Mon, 01 Jan 2026 00:00:00 {zone}",
        )
    assert make(counterpart).find(lost) is None


def test_no_log_has_the_address_of_a_search(caplog):
    """It holds the number, since Twilio can be searched in no other way."""
    caplog.set_level(logging.DEBUG)
    with Twilio() as twilio:
        make(twilio).find(message())
        assert NUMBER.replace("+", "%2B") in twilio.requests[-1].target
    assert NUMBER.lstrip("+") not in caplog.text

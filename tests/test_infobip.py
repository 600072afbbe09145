"""What is Infobip's own matter; what all backends over HTTP keep stands in ``test_contract``."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from django.test import RequestFactory

from django_smska.backends import infobip
from django_smska.checked_backend import CheckedBackend
from django_smska.exceptions import (
    AuthenticationFailed,
    GatewayBusy,
    InvalidProvider,
    InvalidRecipient,
    InvalidRequest,
    QueryFailed,
    SmsNotSent,
    SmsOutcomeUnknown,
)
from django_smska.exchange import Answer
from django_smska.receipts import Evidence, Receipt, Report

from . import test_contract
from .counterparts import standin
from .counterparts.infobip import KEY, Infobip, answered, newer_problem, problem, pushed, status_of

NUMBER, TEXT = "+79041764982", "Заказ № 9 в пути"
PUBLIC = "https://shop.example"


@pytest.fixture
def public(settings):
    settings.SMSKA_PUBLIC_URL = PUBLIC
    return settings


@pytest.fixture
def counterpart():
    with Infobip() as counterpart:
        yield counterpart


def make(counterpart=None, **changes):
    options = counterpart.options() if counterpart else {"api_key": KEY, "url": PUBLIC}
    return infobip.SmsBackend(alias="default", **{"sender_id": "Shop", **options, **changes})


def message(**changes):
    return test_contract.message(**{"to": NUMBER, "body": TEXT, **changes})


def answer(body, status=200, framed=True):
    return Answer(status, json.dumps(body).encode(), framed)


def body_of(raw):
    """Return the body of an answer as the counterpart writes it."""
    return raw.partition(b"\r\n\r\n")[2]


# --- requests -------------------------------------------------------------------------------------


def test_a_request_has_these_fields_and_no_others(counterpart, public):
    one = message()
    make(counterpart).send_message(one)
    (request,) = counterpart.requests
    url = request.json["messages"][0]["webhooks"]["delivery"]["url"]
    assert request.json == {
        "messages": [
            {
                "sender": "Shop",
                "destinations": [{"to": NUMBER[1:], "messageId": one.reference}],
                "content": {"text": TEXT},
                "webhooks": {
                    "delivery": {"url": url},
                    "contentType": "application/json",
                    "callbackData": one.reference,
                },
            }
        ],
        "options": {"includeSmsCountInResponse": True},
    }
    assert url.startswith(f"{PUBLIC}/sms/default/") and url.endswith("/report/")
    assert (request.method, request.target) == ("POST", "/sms/3/messages")
    assert request.headers["authorization"] == f"App {KEY}"


def test_without_a_public_address_subscribed_reports_carry_the_reference(counterpart):
    one = message()
    make(counterpart).send_message(one)
    (sent,) = counterpart.requests[0].json["messages"]
    assert sent["webhooks"] == {"callbackData": one.reference}


def test_a_message_without_reference_and_sender_leaves_them_out(counterpart):
    receipt = make(counterpart, sender_id="").send_message(message(reference=""))
    (sent,) = counterpart.requests[0].json["messages"]
    assert set(sent) == {"destinations", "content"} and set(sent["destinations"][0]) == {"to"}
    assert receipt.gateway_id == "made-here-1"


def test_a_number_is_written_as_infobip_wants_it(counterpart):
    make(counterpart).send_message(message(to="8 (904) 176-49-82"))
    assert counterpart.accepted[0].number == "79041764982"
    with pytest.raises(InvalidRecipient):
        make(counterpart).send_message(message(to="12"))
    assert len(counterpart.requests) == 1


def test_the_receipt_has_the_segments(counterpart):
    one = message()
    receipt = make(counterpart).send_message(one)
    assert receipt == Receipt(one.reference, segments=1)


# --- answers to a send ----------------------------------------------------------------------------


def status(group, number, **more):
    found = {"groupId": group, "groupName": "X", "id": number, "name": "Y", "description": "Z"}
    return {"messages": [{"messageId": "m", "status": {**found, **more}}]}


@pytest.mark.parametrize(("number", "error"), infobip.REFUSALS.items())
def test_the_table_of_refusals(number, error):
    result = infobip.read_send_answer(answer(status(5, number)))
    assert type(result) is error
    assert (result.code, result.gateway_text, result.answered) == (str(number), "Y: Z", True)


@pytest.mark.parametrize("number", [0, 1, 7, 26, 51000, -1])
def test_a_refusal_that_no_table_has_refuses_the_message(number):
    assert type(infobip.read_send_answer(answer(status(5, number)))) is InvalidRequest


@pytest.mark.parametrize(("group", "number"), [(0, 0), (1, 26), (1, 7), (1, 3), (3, 2), (3, 5)])
def test_what_infobip_has_is_accepted(group, number):
    assert infobip.read_send_answer(answer(status(group, number))) == Receipt("m")


@pytest.mark.parametrize(
    ("group", "number"),
    [
        (2, 9),
        (2, 31),
        (4, 15),
        (6, 1),
        (-1, 1),
        (None, 1),
        ("1", 7),
        (True, 7),
        (1.0, 7),
        (5, None),
    ],
)
def test_any_other_group_is_a_doubt(group, number):
    assert type(infobip.read_send_answer(answer(status(group, number)))) is SmsOutcomeUnknown


def test_a_message_id_that_was_there_before_is_a_doubt(counterpart):
    """As after a dump was restored: the earlier request may have been accepted, and here it was."""
    backend, one = make(counterpart), message()
    backend.send_message(one)
    with pytest.raises(SmsOutcomeUnknown, match="DUPLICATE"):
        backend.send_message(one)
    assert len(counterpart.accepted) == 1
    assert backend.find(one).status == "sent"


def test_one_answer_is_for_one_message():
    one = answered("PENDING_ACCEPTED")["messages"][0]
    for messages in ([], [one, one], None, {}, [None], ["x"], [[]]):
        result = infobip.read_send_answer(answer({"messages": messages}))
        assert type(result) is SmsOutcomeUnknown, messages


@pytest.mark.parametrize("code", [201, 202, 204, 206, 500, 503])
def test_another_status_of_http_is_a_doubt_whatever_the_body_says(code):
    for name in ("PENDING_ACCEPTED", "REJECTED_NETWORK"):
        assert type(infobip.read_send_answer(answer(answered(name), code))) is SmsOutcomeUnknown


def test_both_forms_of_an_error_are_read():
    older = Answer(400, body_of(problem(400, "BAD_REQUEST", "Bad Request")))
    result = infobip.read_send_answer(older)
    assert (result.code, result.gateway_text) == ("BAD_REQUEST", "Bad Request")
    newer = Answer(400, body_of(newer_problem(400, "E400", "Cannot be processed.", "is empty")))
    result = infobip.read_send_answer(newer)
    assert (result.code, result.gateway_text) == ("E400", "Cannot be processed. is empty")
    assert type(result) is InvalidRequest and result.answered


@pytest.mark.parametrize(
    "body", [{}, {"violations": 5}, {"violations": [5]}, {"requestError": []}, {"errorCode": {}}]
)
def test_an_error_of_another_form_keeps_its_status(body):
    result = infobip.read_send_answer(answer(body, 400))
    assert type(result) is InvalidRequest and result.code == "http-400"


def test_a_login_without_the_right_to_send():
    for code in (401, 403):
        result = infobip.read_send_answer(Answer(code, body_of(problem(code, "X", "no"))))
        assert type(result) is AuthenticationFailed and not result.answered
        assert "(api_key, url)" in str(result)


def test_busy_is_busy():
    result = infobip.read_send_answer(answer({}, 429))
    assert type(result) is GatewayBusy and isinstance(result, SmsNotSent)


# --- queries --------------------------------------------------------------------------------------


def test_a_lost_answer_is_found_by_its_reference(counterpart):
    backend, lost = make(counterpart), message()
    twin = message()
    backend.send_message(twin)
    counterpart.spoil(standin.accepts_and_resets)
    with pytest.raises(SmsOutcomeUnknown):
        backend.send_message(lost)
    found = backend.find(lost)
    assert (found.gateway_id, found.reference, found.status) == (*[lost.reference] * 2, "sent")
    assert counterpart.requests[-1].query == {"messageId": lost.reference}
    assert NUMBER[1:] not in counterpart.requests[-1].target


def test_a_found_message_may_have_been_rejected(counterpart):
    backend, lost = make(counterpart), message()
    counterpart.spoil(standin.accepts_and_resets)
    with pytest.raises(SmsOutcomeUnknown):
        backend.send_message(lost)
    counterpart.set_status(counterpart.accepted[0], "REJECTED_NETWORK")
    assert backend.find(lost).status == "rejected"


def test_another_message_in_the_log_is_not_this_one():
    other = {"messageId": "another", "status": status_of("DELIVERED_TO_HANDSET")}
    log = answer({"results": [None, {}, other]})
    assert infobip.read_log(log, "mine") is None
    assert infobip.read_log(log, "another").status == "delivered"


def test_without_a_reference_there_is_no_question(counterpart):
    assert make(counterpart).find(message(reference="")) is None
    assert counterpart.requests == []


def test_nothing_is_known_of_a_message_that_has_left_the_log(counterpart):
    assert make(counterpart).get_status(message(gateway_id="older-than-48-hours")) == Report()
    with pytest.raises(QueryFailed):
        make(counterpart).get_status(message())


MEANINGS = {
    (0, 0): "sent",
    (1, 7): "sent",
    (2, 9): "rejected",
    (3, 2): "sent",  # DELIVERED_TO_OPERATOR
    (3, 5): "delivered",
    (4, 15): "expired",
    (5, 6): "rejected",
    (6, 1): "",
    (None, 5): "",
    ("3", 5): "",
    (True, 5): "",
}


@pytest.mark.parametrize(("pair", "meaning"), MEANINGS.items())
def test_each_status(pair, meaning):
    entry = {"messageId": "m", **status(*pair)["messages"][0]}
    report = infobip.read_log(answer({"results": [entry]}), "m")
    assert report.status == meaning
    assert report.raw == f"{pair[1]}|Y"


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"price": {"pricePerMessage": 0.01, "currency": "EUR"}, "messageCount": 3}, ("0.03", 3)),
        ({"price": {"pricePerMessage": 0.01, "currency": "EUR"}, "smsCount": 2}, ("0.02", 2)),
        ({"price": {"pricePerMessage": 0.01, "currency": "EUR"}}, ("0.01", None)),
        ({"price": {"pricePerMessage": 0, "currency": "EUR"}, "messageCount": 1}, ("0", 1)),
        ({"price": {"pricePerMessage": 7.5e-07, "currency": "EUR"}}, ("0.00000075", None)),
        ({"messageCount": 1}, (None, 1)),
        ({"price": None, "messageCount": 0}, (None, None)),
        ({"price": {"pricePerMessage": "much", "currency": "EUR"}}, (None, None)),
        ({"price": {"pricePerMessage": True, "currency": "EUR"}}, (None, None)),
    ],
)
def test_the_price_is_that_of_all_segments(fields, found):
    entry = {"messageId": "m", "status": status_of("DELIVERED_TO_HANDSET"), **fields}
    report = infobip.read_log(answer({"results": [entry]}), "m")
    price, segments = found
    assert report.price == (None if price is None else Decimal(price))
    assert report.segments == segments
    assert report.currency == ("" if price is None else "EUR")


@pytest.mark.parametrize(
    ("code", "error"), [(401, AuthenticationFailed), (403, QueryFailed), (429, QueryFailed)]
)
def test_a_query_stops_the_sending_only_where_the_login_is_wrong(code, error):
    """A key may have the scope to send alone, and the log has a limit of its own."""
    assert type(infobip.read_balance(answer({}, code))) is error
    assert type(infobip.read_log(answer({}, code), "m")) is error


@pytest.mark.parametrize("balance", [None, "", "much", True, {}])
def test_a_balance_that_is_none(balance):
    assert type(infobip.read_balance(answer({"balance": balance}))) is QueryFailed


@pytest.mark.parametrize(
    ("balance", "found"),
    [
        (47.79134, "47.79134"),
        (0, "0"),
        (-3, "-3"),
        (1e3, "1000"),
        ("5.5", "5.5"),
        (0.1 + 0.2, "0.30000000000000004"),
    ],
)
def test_a_balance(balance, found):
    assert infobip.read_balance(answer({"balance": balance})) == Decimal(found)


# --- what is pushed -------------------------------------------------------------------------------


def test_reports_come_in_batches(public):
    entries = [
        {"messageId": f"m{number}", "callbackData": f"r{number}", "status": status_of(name)}
        for number, name in enumerate(["DELIVERED_TO_HANDSET", "EXPIRED_EXPIRED"] * 50)
    ]
    reports = make().parse_reports(pushed(f"{PUBLIC}/x/", entries))
    assert [one.reference for one in reports] == [f"r{number}" for number in range(100)]
    assert {one.status for one in reports[::2]} == {"delivered"}
    assert {one.status for one in reports[1::2]} == {"expired"}


def test_a_report_without_callback_data_has_our_reference_as_its_id(public):
    entry = {"messageId": "m", "status": status_of("PENDING_ENROUTE")}
    (report,) = make().parse_reports(pushed(f"{PUBLIC}/x/", [entry]))
    assert (report.gateway_id, report.reference, report.raw) == ("m", "m", "7|PENDING_ENROUTE")


WRONG = [
    "",
    "[]",
    "null",
    "{}",
    '{"results": {}}',
    '{"results": [5]}',
    '{"results": [{}',
    "[" * 9999,
]


@pytest.mark.parametrize("body", WRONG, ids=range(len(WRONG)))
def test_a_push_that_cannot_be_read(body):
    request = RequestFactory().post("/x/", body, content_type="application/json")
    for parse in (make().parse_reports, make().parse_inbound):
        with pytest.raises(ValueError):
            parse(request)


@pytest.mark.parametrize(
    ("number", "sender"),
    [("79041764988", "+79041764988"), ("5555", "5555"), ("Bank", "Bank"), ("+7904", "+7904")],
)
def test_a_phones_number_gets_its_plus(number, sender):
    entry = {"messageId": "i1", "from": number, "to": "5555", "text": "STOP 5", "cleanText": "5"}
    (one,) = make().parse_inbound(pushed(f"{PUBLIC}/x/", [entry]))
    assert (one.sender, one.to, one.body, one.gateway_id) == (sender, "5555", "STOP 5", "i1")


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"api_key": ""}, "'api_key' must not be empty"),
        ({"url": ""}, "'url' must be an http:// or https:// address"),
        ({"url": "xyz1ab.api.infobip.com"}, "'url' must be an http:// or https:// address"),
    ],
)
def test_wrong_options(options, words):
    with pytest.raises(InvalidProvider, match=words) as refused:
        make(**options)
    assert KEY not in str(refused.value)


def test_the_engine_reads_what_it_can():
    checked = CheckedBackend("default", make())
    assert checked.evidence == Evidence.ASKED and checked.most_segments == 25
    assert checked.takes_reports and checked.takes_inbound
    assert checked.gives_reports and checked.has_balance

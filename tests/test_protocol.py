"""What an answer means: the wire's reading of bytes, without a network and without settings."""

import subprocess
import sys
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_smska import protocol as wire
from django_smska.exceptions import (
    AuthenticationFailed,
    GatewayBusy,
    GatewayUnreachable,
    InsufficientCredits,
    InvalidRecipient,
    InvalidRequest,
    InvalidSender,
    QueryFailed,
    SmsError,
    SmsNotSent,
    SmsOutcomeUnknown,
    TemporaryFailure,
)
from django_smska.exchange import TEXT_LIMIT_CHARACTERS, Answer, clean
from django_smska.protocol import read_balance_answer, read_send_answer, read_status_answer
from django_smska.receipts import Receipt, Report

SENT = "0|Message sent|ah1acugxz98a27t9z|Balance status|7463"
PHP = "<br />\n<b>Warning</b>: mysql_connect() in <b>/www/x.php</b> on line <b>3</b><br />\n"


def send(text, status=200, framed=True):
    body = text if isinstance(text, bytes) else text.encode()
    return read_send_answer(Answer(status, body, framed))


@pytest.mark.parametrize(
    "text",
    [
        SENT,
        "_" + SENT,
        "\ufeff" + SENT,
        "\n\r\n" + SENT + "\r\n\n",
        " 0 | Message sent | ah1acugxz98a27t9z | Balance status | 7463 ",
        "0|Message  Sent|ah1acugxz98a27t9z|Balance status|7463",
        SENT + "|",
        SENT + "|extra",
        PHP + SENT,
        SENT + "\n" + SENT,
    ],
)
def test_a_known_positive_line_is_accepted_however_it_is_wrapped(text):
    receipt = send(text)
    assert isinstance(receipt, Receipt)
    assert (receipt.gateway_id, receipt.balance) == ("ah1acugxz98a27t9z", 7463)


@pytest.mark.parametrize(
    ("text", "gateway_id", "balance"),
    [
        ("0|Message sent|ah1|Balance status", "ah1", None),
        ("0|Message sent|ah1", "ah1", None),
        ("0|Message sent", "", None),
        ("0|Message sent||Balance status|5", "", Decimal(5)),
        ("0|Message sent|<script>alert(1)</script>|Balance status|5", "", Decimal(5)),
        ("0|Message sent|" + "a" * 65 + "|Balance status|5", "", Decimal(5)),
        ("0|Message sent|ab\0cd|Balance status|5", "", Decimal(5)),
        ("0|Message sent|идентификатор|Balance status|5", "", Decimal(5)),
        ("0|Message sent|ah1|Balance status|-7,25", "ah1", Decimal("-7.25")),
        ("0|Message sent|ah1|Balance status|7 463.5", "ah1", Decimal("7463.5")),
        ("0|Message sent|ah1|Balance status|7\u00a0463", "ah1", Decimal(7463)),
        ("0|Message sent|ah1|Balance status|NaN", "ah1", None),
        ("0|Message sent|ah1|Balance status|1_0", "ah1", None),
        ("0|Message sent|ah1|Balance status|٥", "ah1", None),
        ("0|Message sent|ah1|Balance status|" + "9" * 30, "ah1", None),
        ("0|Message sent|ah1|Balance status|1000000000000", "ah1", None),
        (
            "0|Message sent|ah1|Balance status|999999999999.9999",
            "ah1",
            Decimal("999999999999.9999"),
        ),
        ("0|Message sent|ah1|Balance status|1.00001", "ah1", None),
    ],
)
def test_without_a_usable_id_it_is_sent_and_untrackable(text, gateway_id, balance):
    receipt = send(text)
    assert (receipt.gateway_id, receipt.balance) == (gateway_id, balance)


def test_an_id_that_may_be_cut_is_not_kept():
    assert send("0|Message sent|ah1ac", framed=False).gateway_id == ""
    assert send("0|Message sent|ah1ac|Bal", framed=False).gateway_id == "ah1ac"


REFUSED = [
    ("-1|Authentication failed.", AuthenticationFailed, "account"),
    ("-2|SenderID does not belong to you", InvalidSender, "sender"),
    ("-3|Sent Error", TemporaryFailure, "temporary"),
    ("-4|Argument validation failed.", InvalidRequest, "message"),
    ("-5|Insufficient Credits.", InsufficientCredits, "funds"),
    ("-6|Invalid MSISDN.", InvalidRecipient, "message"),
    ("-7|Your SenderID is not valid.", InvalidSender, "sender"),
    ("-99|Never heard of", InvalidRequest, "message"),
]


@pytest.mark.parametrize(("text", "error", "kind"), REFUSED)
@pytest.mark.parametrize("wrapping", ["{}", "_{}", "\ufeff{}\r\n", " {} |", PHP + "{}", "{}\n{}"])
def test_a_negative_line_is_a_refusal_of_its_kind(text, error, kind, wrapping):
    refusal = send(wrapping.format(text, text))
    assert type(refusal) is error
    assert refusal.kind == kind
    assert refusal.answered == (error is not AuthenticationFailed)
    assert refusal.code == text.split("|")[0]
    assert text.split("|")[1] in refusal.gateway_text


def test_a_bare_known_code_is_understood_only_if_it_cannot_be_cut():
    assert type(send("-5")) is InsufficientCredits
    assert type(send("-5", framed=False)) is SmsOutcomeUnknown
    assert type(send("-99")) is SmsOutcomeUnknown


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", 200),
        (" \n", 200),
        ("OK", 200),
        ("<html><body>Error</body></html>", 200),
        ("0|Status|4|DELIVRD", 200),
        ("0|Balance status|7463", 200),
        ("0", 200),
        ("0|", 200),
        ("00|Message sent|a|b|1", 200),
        ("٠|Message sent|a|b|1", 200),
        ("0_0|Message sent|a|b|1", 200),
        ("-0|Message sent|a|b|1", 200),
        ("+0|Message sent|a|b|1", 200),
        ("1|Message sent|a|b|1", 200),
        ("−1|Authentication failed", 200),
        ("-1.5|x", 200),
        ("Message sent|a|b", 200),
        ("x\u20280|Message sent|a|b|1", 200),
        ("0|Message not sent|a|b|1", 200),
        (SENT + "\n-5|Insufficient Credits", 200),
        ("-5|Insufficient Credits\n" + SENT, 200),
        ("Notice: x in y.php" + SENT + "\n-3|Sent Error", 200),
        ("<b>" + SENT + "</b>\n-6|Invalid MSISDN", 200),
        ("", 304),
        ("", 305),
        (SENT, 201),
        (SENT, 204),
        (SENT, 302),
        (SENT, 404),
        (SENT, 500),
        (SENT, 502),
        ("-5|Insufficient Credits", 500),
        ("-1|Authentication failed", 502),
        ("", 204),
        ("", 500),
        ("", 503),
        ("<h1>Bad gateway</h1>", 502),
    ],
)
def test_whatever_is_not_understood_is_unknown_never_failed(text, status):
    assert type(send(text, status)) is SmsOutcomeUnknown


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 400, 404, 405, 413])
def test_a_redirect_and_a_client_error_mean_a_wrong_address(status):
    error = send("<h1>no</h1>", status)
    assert type(error) is GatewayUnreachable
    assert error.code == f"http-{status}"
    assert "Correct it in the settings (url)" in str(error) and f"HTTP {status}" in str(error)


@pytest.mark.parametrize("status", [302, 404, 429])
def test_one_that_may_be_cut_inside_its_headers_is_unknown(status):
    assert type(send("", status, framed=False)) is SmsOutcomeUnknown


def test_too_many_requests_concern_the_provider_not_the_message():
    assert type(send("", 429)) is GatewayBusy


def test_other_http_refusals_have_their_kind():
    assert type(send("", 401)) is AuthenticationFailed
    assert type(send("", 403)) is AuthenticationFailed
    assert type(send("-6|Invalid MSISDN", 400)) is InvalidRecipient


def test_bytes_are_utf_8_else_windows_1251():
    text = "-3|Ошибка отправки"
    assert send(text.encode()).gateway_text == text
    assert send(text.encode("windows-1251")).gateway_text == text


@given(st.binary(max_size=300), st.sampled_from([200, 204, 301, 404, 500]), st.booleans())
def test_no_bytes_break_the_reader_and_none_make_a_sent_message(body, status, framed):
    result = read_send_answer(Answer(status, body, framed))
    assert isinstance(result, SmsError) or b"essage sent" in body
    read_balance_answer(Answer(status, body, framed))
    read_status_answer(Answer(status, body, framed))


@pytest.mark.slow
@given(st.text(max_size=60))
def test_foreign_text_is_cleaned_for_every_database(text):
    assert "\0" not in clean(text)
    assert clean(text).isprintable()
    assert len(clean(text * 100)) <= TEXT_LIMIT_CHARACTERS


@pytest.mark.parametrize(
    ("text", "balance"),
    [
        ("_0|Balance status|7464", "7464"),
        ("0|Balance status|7464", "7464"),
        ("\ufeff_0 | Balance status | 7464 \r\n", "7464"),
        ("_0|Balance status|-12.5", "-12.5"),
        ("_0|Balance status|12,50", "12.50"),
        ("_0|Balance status|1 234 567,8", "1234567.8"),
        ("_0|Balance status|0", "0"),
    ],
)
def test_a_balance_is_read_in_every_spelling(text, balance):
    assert read_balance_answer(Answer(200, text.encode())) == Decimal(balance)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7464",
        "_0|Balance status|",
        "_0|Balance status|NaN",
        "_0|Balance status|Infinity",
        "_0|Balance status|1_0",
        "_0|Balance status|٧",
        "_0|Balance status|12 34",
        "0|Message sent|a|Balance status|7",
    ],
)
def test_what_is_no_balance_is_not_guessed(text):
    assert type(read_balance_answer(Answer(200, text.encode()))) is QueryFailed


def test_a_refused_question_shows_of_the_login_not_of_the_message():
    assert type(read_balance_answer(Answer(200, b"-1|Authentication failed"))) is (
        AuthenticationFailed
    )
    refused = read_status_answer(Answer(200, b"-4|Argument validation failed"))
    assert type(refused) is QueryFailed and refused.code == "-4"
    assert type(read_status_answer(Answer(500, b"0|Status|4|DELIVRD"))) is QueryFailed


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ("3|ACCEPTD", "sent"),
        ("4|DELIVRD", "delivered"),
        ("5|REJECTD", "rejected"),
        ("6|REJECTD", "rejected"),
        ("7|EXPIRED", "expired"),
        ("8|DELETED", "deleted"),
        ("4|delivrd", "delivered"),
        ("4", "delivered"),
        ("4|", "delivered"),
        ("4|DELIVRD|extra", "delivered"),
        ("4|REJECTD", ""),
        ("3|DELIVRD", ""),
        ("1|ENROUTE", ""),
        ("9|WHATEVER", ""),
        ("04|DELIVRD", ""),
        ("٤|DELIVRD", ""),
        ("|DELIVRD", ""),
        ("", ""),
    ],
)
def test_a_status_is_what_number_and_word_say_together(fields, status):
    report = read_status_answer(Answer(200, f"0|Status|{fields}".encode()))
    assert isinstance(report, Report)
    assert report.status == status
    assert report.raw == "|".join(part for part in fields.split("|")[:2] if part)


def test_a_status_that_may_be_cut_is_not_believed():
    assert read_status_answer(Answer(200, b"0|Status|4", framed=False)).status == ""
    assert read_status_answer(Answer(200, b"0|Status|4|DELIV", framed=False)).status == ""
    assert read_status_answer(Answer(200, b"0|Status|4|DELIVRD", framed=False)).status == (
        "delivered"
    )


def test_the_wire_needs_no_settings():
    code = (
        "import django_smska.protocol as g; print(g.read_send_answer(g.Answer(200, b'-5|x')).code)"
    )
    env = {"PYTHONPATH": ":".join(sys.path), "PATH": ""}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert (out.stdout.strip(), out.stderr) == ("-5", "")


def test_every_refusal_is_proven_not_sent():
    assert all(issubclass(error, SmsNotSent) for error in wire.REFUSALS.values())

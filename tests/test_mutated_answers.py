"""Answers of the gateway that were damaged or forged: none breaks a reader or looks like a success,
and what becomes of each can be stored."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from django_smska import sending
from django_smska.exceptions import SmsError, SmsNotSent, SmsOutcomeUnknown
from django_smska.exchange import Answer
from django_smska.models import SmsMessage
from django_smska.protocol import (
    read_balance_answer,
    read_send_answer,
    read_status_answer,
)
from django_smska.receipts import Receipt, Report
from django_smska.sending import Result
from django_smska.sms import queue_sms

from .extent import ALL

pytestmark = pytest.mark.slow

KNOWN = [
    b"0|Message sent|5a77f1c2|1|7464",
    b"_0|Message sent|5a77f1c2",
    b"-1|Authentication failed",
    b"-3|\xce\xf8\xe8\xe1\xea\xe0",
    b"-5|Insufficient Credits",
    b"-6",
    b"_0|Balance status|7464,5",
    b"0|Status|4|DELIVRD",
    b"<br />\n<b>Warning</b>: mysql_connect()\n0|Message sent|9|1|2\n",
    b"HTTP/1.1 200 OK\r\n\r\n0|Message sent|9",
]
PIECES = [
    b"", b"\0", b"\n", b"\r", b"|", b"0", b"-", b"_", b"\xff", b"\xe2\x80\xa8", b"\xed\xa0\x80",
    "😀".encode(), "٠".encode(), b"\x1b[31m", b"<a href=//x>", b"-6|Invalid MSISDN\n", b"sent",
    b"0|Message sent|", b"\n0|Message sent|8\n", b"a" * 70, b"9" * 30, b"\x08", b"&#48;",
]  # fmt: skip
STATUSES = [200, 200, 200, 200, 201, 204, 302, 400, 403, 404, 429, 500, 502]


@st.composite
def answers(draw):
    """A known answer after some edits: pieces put in or over what was there, a cut, another one's
    end."""
    body = draw(st.sampled_from(KNOWN))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(body)))
        gone = draw(st.integers(0, 4))
        piece = draw(st.sampled_from(PIECES) | st.binary(min_size=1, max_size=3))
        body = body[:at] + piece + body[at + gone :]
    if draw(st.booleans()):
        body = body[: draw(st.integers(0, len(body)))] + draw(st.sampled_from([b"", *KNOWN]))
    return Answer(draw(st.sampled_from(STATUSES)), body, draw(st.booleans()))


def may_be_accepted(answer: Answer) -> bool:
    """Whether it is a complete success by the provider's document, written as a pattern."""
    try:
        text = answer.body.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = answer.body.decode("windows-1251", "replace")
    lines = [
        [field.strip(" \t\0\ufeff\u00a0") for field in line.split("|")]
        for line in re.split(r"[\r\n]", text)
    ]
    sent = [
        code in ("0", "_0") and " ".join(words[0].lower().split()) == "message sent"
        for code, *words in lines
        if words
    ]
    refused = [
        re.fullmatch(r"_?-[1-9][0-9]{0,3}" if words else "_?-[1-7]", code) for code, *words in lines
    ]
    return answer.status == 200 and any(sent) and not any(refused)


def check(answer: Answer) -> None:
    outcome = read_send_answer(answer)
    if isinstance(outcome, Receipt):
        assert may_be_accepted(answer)
    else:
        assert isinstance(outcome, (SmsNotSent, SmsOutcomeUnknown))
        assert outcome.gateway_text.isprintable() and len(outcome.gateway_text) <= 500
        # A word of success beside anything else is a doubt, never a refusal.
        accepted = b"message sent" in answer.body.lower()
        assert not accepted or isinstance(outcome, SmsOutcomeUnknown)
    assert isinstance(read_status_answer(answer), (Report, SmsError))
    read_balance_answer(answer)


@settings(max_examples=250, deadline=None)
@given(answers())
def test_no_damaged_answer_is_a_success(answer):
    check(answer)


MANY = 12_500 if ALL else 125  # for each of eight seeds


@pytest.mark.parametrize("number", range(8))
def test_none_of_many_is(number):
    others = settings(
        max_examples=MANY, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    seed(number)(others(given(answers())(check)))()


@pytest.fixture
def message(db):
    return queue_sms("+79031112233", "text")


@settings(
    max_examples=75,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(answer=answers())
def test_what_follows_can_be_stored(message, answer):
    outcome = read_send_answer(answer)
    SmsMessage.objects.update(status="queued", token="", gateway_id="", error_text="")
    (claimed,) = sending.claim(SmsMessage.objects.all(), message.send_after, immediate=False)
    assert sending.mark_sending([claimed])
    sending.record([Result(claimed, outcome)])
    claimed.refresh_from_db()
    refused = ("failed", "queued")
    expected = (
        ("sent",)
        if isinstance(outcome, Receipt)
        else refused if isinstance(outcome, SmsNotSent) else ("unknown",)
    )  # fmt: skip
    assert claimed.status in expected

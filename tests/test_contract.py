"""What every backend over HTTP keeps, each against its own counterpart.

Never a false "sent", never a false "not sent", one request a send, and nothing secret shown. What
is one provider's own matter stands in the test module of its backend.
"""

from __future__ import annotations

import logging
from importlib import import_module
from types import SimpleNamespace

import pytest
from django.utils import timezone

from django_smska.exceptions import (
    AuthenticationFailed,
    GatewayUnreachable,
    InvalidProvider,
    InvalidRequest,
    QueryFailed,
    SmsError,
    SmsNotSent,
    SmsOutcomeUnknown,
)
from django_smska.receipts import Evidence, Receipt
from django_smska.references import new_reference
from django_smska.testing.faults import frame
from django_smska.testing.gateway import closed_port

from .conftest import PATIENT
from .counterparts import standin
from .counterparts.http import Acme
from .counterparts.infobip import Infobip
from .counterparts.kannel import Kannel
from .counterparts.sms_ka import SmsKa
from .counterparts.smsc import Smsc
from .counterparts.twilio import Twilio

COUNTERPARTS = [SmsKa, Twilio, Infobip, Kannel, Smsc, Acme]

NUMBER = "+79041764981"
TEXTS = {
    "Cyrillic": "Ваш заказ № 17 готов, ждём до 21:00",
    "marks of forms and addresses": "a+b & c=d % e;f | 100%25 ?#/\\'\"<b>",
    "lines": "first line\nsecond line\n",
    "emoji": "👩‍👩‍👧 ура",
    "extended GSM": "price {10} [€] ~^|\\",
    "long": "Ж" * 200,
    "JSON and XML": '{"a": "<![CDATA[x]]>&amp;"}',
}
#: Where the name of the case says what the counterpart does: whether it accepts the message.
DOUBTS = {
    "accepts and resets": standin.accepts_and_resets,
    "accepts and hangs up": standin.accepts_and_hangs_up,
    "resets": standin.resets,
    "accepts, 500": standin.accepts_and_answers(frame(b"Internal Server Error", 500)),
    "500": standin.instead(frame(b"Internal Server Error", 500)),
    "accepts, 502 of a proxy": standin.accepts_and_answers(frame(b"<h1>Bad Gateway</h1>", 502)),
    "503": standin.instead(frame(b"", 503)),
    "accepts, 200 and nothing": standin.accepts_and_answers(frame(b"")),
    "200 and a page": standin.instead(frame(b"<html>Under construction</html>")),
    "accepts, 200 and half of JSON": standin.accepts_and_answers(frame(b'{"status": ')),
    "200 and another JSON": standin.instead(frame(b"[[], {}, null]")),
    "accepts, no HTTP": standin.accepts_and_answers(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "accepts, 201 and nothing": standin.accepts_and_answers(frame(b"", 201)),
}


def message(body="text", **more):
    """A message, and in ``begun`` how often its first byte was announced."""
    begun = []
    fields = {
        "to": NUMBER,
        "body": body,
        "sender": "",
        "code": "",
        "reference": new_reference(),
        "gateway_id": "",
        "sending_at": timezone.now(),
        "begun": begun,
        "before_first_byte": lambda: begun.append(1),
        **more,
    }
    return SimpleNamespace(**fields)


@pytest.fixture(autouse=True)
def public_address(settings):
    """Let providers push to this site."""
    settings.SMSKA_PUBLIC_URL = "https://shop.example"


@pytest.fixture(params=COUNTERPARTS, ids=lambda one: one.__name__)
def counterpart(request):
    with request.param() as counterpart:
        yield counterpart


def able_to(what):
    """Run a test with those counterparts alone whose backends can do this."""
    chosen = [one for one in COUNTERPARTS if what in one.can]
    return pytest.mark.parametrize(
        "counterpart", chosen, ids=lambda one: one.__name__, indirect=True
    )


def test_a_backend_can_do_what_its_counterpart_says(counterpart):
    """No test of an ability may be passed over because a backend has lost it."""
    backend = make(counterpart)
    asked = (Evidence.CERTAIN, Evidence.ASKED, Evidence.SEARCHED)
    able = {
        "balance": backend.has_balance,
        "status": backend.gives_reports,
        "find": backend.evidence in asked,
        "reports": backend.takes_reports,
        "inbound": backend.takes_inbound,
    }
    assert {name for name, can in able.items() if can} == counterpart.can


def make(counterpart, **changes):
    more = {"sender_id": "Shop", **PATIENT}
    backend = import_module(counterpart.backend).SmsBackend
    return backend(alias="default", **{**more, **counterpart.options(), **changes})


def outcome(backend, one):
    try:
        return backend.send_message(one)
    except SmsError as error:
        return error


# --- accepted -------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_comes_as_it_was_sent(counterpart, text):
    one = message(text)
    receipt = make(counterpart).send_message(one)
    (taking,) = counterpart.accepted
    assert isinstance(receipt, Receipt) and one.begun == [1]
    assert (taking.number, taking.body, taking.sender) == (NUMBER[1:], text, "Shop")
    assert receipt.gateway_id == (taking.id if counterpart.gives_ids else "")


def test_a_sender_of_the_message_goes_before_that_of_the_provider(counterpart):
    make(counterpart).send_message(message(sender="Other"))
    assert counterpart.accepted[0].sender == "Other"


def test_many_messages_go_over_one_connection(counterpart):
    with make(counterpart, keep_alive=60) as backend:
        receipts = [backend.send_message(message(f"text {number}")) for number in range(5)]
    assert [one.body for one in counterpart.accepted] == [f"text {number}" for number in range(5)]
    assert len({one.gateway_id for one in receipts}) == (5 if counterpart.gives_ids else 1)


def test_the_reference_goes_along_where_evidence_needs_it(counterpart):
    backend, one = make(counterpart), message()
    backend.send_message(one)
    if backend.evidence in (Evidence.CERTAIN, Evidence.ASKED, Evidence.REPORTED):
        assert counterpart.accepted[0].reference == one.reference


# --- refused --------------------------------------------------------------------------------------


def test_each_refusal_is_of_its_kind(counterpart):
    assert counterpart.refusals
    for expected, data in counterpart.refusals:
        counterpart.spoil(standin.instead(data))
        one = message()
        result = outcome(make(counterpart), one)
        assert type(result) is expected, (data, result)
        assert result.alias == "default" and one.begun == [1]
    assert counterpart.accepted == []


def test_a_refusal_that_is_cut_is_none(counterpart):
    """What stands behind the cut may change its meaning."""
    for expected, data in counterpart.refusals:
        head, _, body = data.partition(b"\r\n\r\n")
        counterpart.spoil(standin.cut_in_half(data))
        result = outcome(make(counterpart), message())
        assert isinstance(result, SmsOutcomeUnknown), (expected, head, body)


def test_a_wrong_login(counterpart):
    backend = make(counterpart, **counterpart.wrong_login())
    result = outcome(backend, message())
    assert type(result) is AuthenticationFailed and not result.answered
    assert counterpart.accepted == []


def test_no_connection_is_not_sent(counterpart):
    one = message()
    with closed_port() as port:
        there = str(counterpart.port)
        changed = {
            name: value.replace(there, str(port))
            for name, value in counterpart.options().items()
            if isinstance(value, str)
        }
        result = outcome(make(counterpart, **changed), one)
    assert type(result) is GatewayUnreachable and one.begun == []
    assert f"127.0.0.1:{port}" in str(result)


def test_what_cannot_be_written_is_refused_before_the_request(counterpart):
    one = message("half of a pair: \ud83d")
    assert isinstance(outcome(make(counterpart), one), InvalidRequest)
    assert counterpart.requests == [] and one.begun == []


def test_what_the_hook_raises_ends_it_unsent(counterpart):
    class Stop(Exception):
        pass

    def stop():
        raise Stop

    with pytest.raises(Stop):
        make(counterpart).send_message(message(before_first_byte=stop))
    assert counterpart.requests == []


# --- doubt ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoiler", DOUBTS.values(), ids=DOUBTS)
def test_a_doubt_is_a_doubt(counterpart, spoiler):
    counterpart.spoil(spoiler)
    one = message()
    result = outcome(make(counterpart), one)
    assert isinstance(result, SmsOutcomeUnknown), result
    assert one.begun == [1] and len(counterpart.requests) == 1


def test_an_answer_that_is_cut_is_no_refusal(counterpart):
    counterpart.spoil(standin.accepts_and_cuts)
    result = outcome(make(counterpart), message())
    assert isinstance(result, (Receipt, SmsOutcomeUnknown))
    assert getattr(result, "gateway_id", "") in ("", counterpart.accepted[0].id)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(counterpart, status):
    answer = frame(b"", status, [("Location", f"{counterpart.url}/elsewhere")])
    counterpart.spoil(standin.instead(answer))
    result = outcome(make(counterpart), message())
    assert isinstance(result, (SmsOutcomeUnknown, GatewayUnreachable))
    if status in (302, 303) and not isinstance(counterpart, SmsKa):
        assert isinstance(result, SmsOutcomeUnknown)  # programs answer so what they have done
    assert len(counterpart.requests) == 1


@pytest.mark.slow
def test_a_silent_provider_is_given_up_at_the_deadline(counterpart, let_deadlines_pass):
    counterpart.spoil(lambda wire, honest: (honest(), let_deadlines_pass(), wire.wait(None)))
    result = outcome(make(counterpart), message())
    assert isinstance(result, SmsOutcomeUnknown)


def test_a_wrong_path_is_never_sent(counterpart):
    counterpart.spoil(standin.instead(frame(b"<h1>Not Found</h1>", 404)))
    result = outcome(make(counterpart), message())
    assert isinstance(result, (SmsNotSent, SmsOutcomeUnknown)) and not isinstance(result, Receipt)


# --- secrets --------------------------------------------------------------------------------------


def test_nothing_secret_is_shown(counterpart, caplog):
    caplog.set_level(logging.DEBUG)
    text, code = "Your code for tests is 918273", "918273"
    echo = " ".join([*counterpart.secrets, text, NUMBER, NUMBER[1:]])
    answers = [data for _, data in counterpart.refusals]
    answers += [frame(echo.encode(), status) for status in (200, 400, 401, 403, 500)]
    results = []
    with make(counterpart) as backend:
        results.append(repr(backend))
        for data in [None, *answers]:
            if data is not None:
                counterpart.spoil(standin.instead(data))
            results.append(outcome(backend, message(text, code=code)))
    shown = caplog.text + "".join(
        f"{one!r} {one} {getattr(one, 'gateway_text', '')}" for one in results
    )
    for secret in (*counterpart.secrets, text, code, NUMBER, NUMBER[1:]):
        assert secret not in shown
    for request in counterpart.requests:  # servers and proxies keep addresses in their logs
        assert not any(secret in request.target for secret in counterpart.secrets)


# --- queries --------------------------------------------------------------------------------------


@able_to("balance")
def test_the_balance(counterpart):
    backend = make(counterpart)
    assert backend.get_balance() > 0
    with pytest.raises((AuthenticationFailed, QueryFailed)):
        make(counterpart, **counterpart.wrong_login()).get_balance()


@able_to("status")
def test_a_status_query(counterpart):
    backend = make(counterpart)
    one = message()
    one.gateway_id = backend.send_message(one).gateway_id
    for meaning, word in counterpart.statuses.items():
        counterpart.set_status(counterpart.accepted[0], word)
        assert backend.get_status(one).status == meaning
    counterpart.set_status(counterpart.accepted[0], next(iter(counterpart.statuses.values())))
    with pytest.raises((QueryFailed, SmsNotSent)):
        make(counterpart, **counterpart.wrong_login()).get_status(one)


@able_to("find")
def test_a_question_about_a_doubt(counterpart):
    backend = make(counterpart)
    lost = message("the answer is lost")
    counterpart.spoil(standin.accepts_and_resets)
    assert isinstance(outcome(backend, lost), SmsOutcomeUnknown)
    found = backend.find(lost)
    assert found.gateway_id == counterpart.accepted[0].id and found.status
    assert backend.find(message("never sent")) is None


# --- webhooks -------------------------------------------------------------------------------------


@able_to("reports")
def test_pushed_reports(counterpart):
    backend = make(counterpart)
    one = message()
    receipt = backend.send_message(one)
    (taking,) = counterpart.accepted
    for meaning, word in counterpart.statuses.items():
        request = counterpart.report(taking, word)
        assert backend.authenticate(request)
        (report,) = backend.parse_reports(request)
        assert report.status == meaning, word
        if backend.evidence == Evidence.REPORTED:
            assert report.reference == one.reference
        else:
            assert report.gateway_id == receipt.gateway_id or report.reference == one.reference


@able_to("reports")
def test_forged_reports_are_refused(counterpart):
    backend = make(counterpart)
    backend.send_message(message())
    word = next(iter(counterpart.statuses.values()))
    for number, request in enumerate(
        counterpart.forged(counterpart.report(counterpart.accepted[0], word))
    ):
        assert not backend.authenticate(request), number


@able_to("inbound")
def test_messages_of_phones(counterpart):
    backend = make(counterpart)
    for text in TEXTS.values():
        request = counterpart.inbound("79041764988", "5555", text, "in-7")
        assert backend.authenticate(request)
        (one,) = backend.parse_inbound(request)
        assert one.sender.lstrip("+") == "79041764988" and one.to == "5555"
        assert one.body == text


# --- options --------------------------------------------------------------------------------------


def test_an_unknown_option_is_named_with_those_that_are_known(counterpart):
    with pytest.raises(InvalidProvider, match="'sendr_id'.*sender_id"):
        make(counterpart, sendr_id="Shop")


def test_an_empty_login_is_refused(counterpart):
    for name in counterpart.wrong_login():
        with pytest.raises(InvalidProvider, match=repr(name)):
            make(counterpart, **{name: ""})

"""The backend for Kannel against the real one, and what its answers and reports mean.

Kannel is connected to an SMSC over SMPP, and configured as the documentation says.
"""

from __future__ import annotations

import http.client
import threading
import time
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

import pytest
from django.test import RequestFactory
from django.utils import timezone

from django_smska import circuit_breaker, conf
from django_smska.backends.kannel import (
    ACCEPTED,
    REFUSALS,
    SmsBackend,
    minutes_until,
    read_send_answer,
    status_of,
)
from django_smska.exceptions import (
    AuthenticationFailed,
    GatewayUnreachable,
    InvalidProvider,
    InvalidRecipient,
    InvalidRequest,
    InvalidSender,
    RecipientOptedOut,
    SmsOutcomeUnknown,
)
from django_smska.exchange import Answer
from django_smska.models import SmsInbound, SmsMessage
from django_smska.receipts import Evidence, Inbound, Receipt, Report
from django_smska.sms import send_sms
from django_smska.states import Status
from django_smska.testing.faults import frame
from django_smska.webhook_urls import webhook_url

from . import smpp_smsc
from .counterparts import standin
from .kannel_server import (
    IN_BLACK_LIST,
    NO_SMSC,
    NOT_ROUTABLE,
    PASSWORD,
    USERNAME,
    Kannel,
    documented,
    require_kannel,
)
from .smpp_smsc import INVALID_NUMBER, Smsc
from .test_contract import TEXTS, message, outcome

ALPHABET = smpp_smsc.ALPHABET.replace("\x1b", "") + "".join(smpp_smsc.EXTENSION.values())
MORE_TEXTS = {
    "blanks at the ends": "  text \n",
    "the whole alphabet of GSM": ALPHABET,
    "ten parts": "Ж" * 669,
    "ten parts of GSM": "x" * 1529,
    "emoji over the ends of parts": "я" + "🙂" * 100,
    "what would be decoded once more": "100%41 %25 + %2B",
}


# --- what its words mean --------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "expected"), REFUSALS.items())
def test_what_is_definitely_refused(answer, expected):
    status, text = answer
    error = read_send_answer(Answer(status, f"{text}\n".encode()))
    assert type(error) is expected[0] and error.gateway_text == text
    assert error.answered is (type(error) is not AuthenticationFailed)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (503, "Temporal failure, try again later."),
        (500, "Sending failed."),
        (202, "Sent."),
        (202, ""),
        (202, "0: Accepted for"),
        (202, "3: Queued for later delivery Denied receivers are: 1"),
        (200, ACCEPTED[0]),
        (400, "Authorization failed for sendsms"),
        (403, "Forbidden"),
        (408, "Request Timeout"),
        *((other, text) for status, text in REFUSALS for other in (200, 202, 500)),
    ],
)
def test_all_else_is_a_doubt(status, text):
    assert type(read_send_answer(Answer(status, text.encode()))) is SmsOutcomeUnknown


@pytest.mark.parametrize(("status", "text"), [*REFUSALS, (404, "Unknown request.")])
def test_a_refusal_without_a_length_is_a_doubt(status, text):
    answer = Answer(status, text.encode(), framed=False)
    assert type(read_send_answer(answer)) is SmsOutcomeUnknown


#: The bits that are set, and what they mean together. What is left out means nothing.
MEANINGS = {
    "delivered": {1, 1 + 4, 1 + 8, 1 + 4 + 8},
    "rejected": {2, 16, 2 + 16},
    "sent": {4, 8, 4 + 8},
}


@pytest.mark.parametrize("kind", range(32))
def test_the_bits_of_a_report(kind):
    refused = {one + more for one in MEANINGS["rejected"] for more in (0, 4, 8, 12)}
    meanings = {**MEANINGS, "rejected": refused}
    expected = [meaning for meaning, kinds in meanings.items() if kind in kinds]
    assert status_of(kind, "") == "".join(expected)
    assert status_of(kind + 32, "") == (
        "expired" if kind & 2 and not kind & 1 else status_of(kind, "")
    )
    assert status_of(kind + 64, "") == ("" if kind & 2 else status_of(kind, ""))


def test_what_kannel_itself_gave_up():
    assert status_of(16, "NACK/validity") == "expired"
    assert status_of(16, "NACK/Retries") == "rejected"


def reports(query):
    request = RequestFactory().get(f"/report/?{query}")
    return SmsBackend(username="a", password="b", url="http://127.0.0.1/").parse_reports(request)


def test_a_report():
    assert reports("reference=abc&type=1") == [Report("delivered", "1", reference="abc")]
    query = "reference=abc&type=16&answer=NACK%2F0x0000000b%2FInvalid"
    assert reports(query) == [Report("rejected", "16|NACK/0x0000000b/Invalid", reference="abc")]


@pytest.mark.parametrize(
    "query", ["", "type=1", "reference=abc", "reference=abc&type=%d", "reference=abc&type=%D9%A1"]
)
def test_what_is_no_report(query):
    with pytest.raises(ValueError):
        reports(query)


def inbound(request):
    return SmsBackend(username="a", password="b", url="http://127.0.0.1/").parse_inbound(request)


def test_a_reply_that_comes_by_get():
    utf_16 = "".join(f"%{byte:02x}" for byte in "Стоп".encode("utf-16-be"))
    for text, charset in [("%D0%A1%D1%82%D0%BE%D0%BF", "UTF-8"), (utf_16, "UTF-16BE")]:
        query = f"from=%2B79041764988&to=5555&text={text}&charset={charset}&id=7"
        assert inbound(RequestFactory().get(f"/?{query}")) == [
            Inbound("+79041764988", "5555", "Стоп", "7")
        ]


@pytest.mark.parametrize(
    "query",
    ["text=a", "from=1&text=%FF", "from=1&text=a&charset=8-BIT", "from=1&text=a&charset=hex"],
)
def test_what_is_no_reply(query):
    with pytest.raises(ValueError):
        inbound(RequestFactory().get(f"/?{query}"))


@pytest.mark.parametrize(
    ("left", "minutes"),
    [(-5, "1"), (0, "1"), (60, "1"), (61, "2"), (3600, "60"), (86400 * 441, "635040")],
)
def test_for_how_long_it_may_try(left, minutes, monkeypatch):
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now)
    assert minutes_until(now + timedelta(seconds=left)) == minutes
    assert minutes_until(now + timedelta(days=442)) == minutes_until(None) == ""


def test_what_proves_a_doubt_is_a_report(settings):
    backend = SmsBackend(username="a", password="b", url="http://127.0.0.1/", alias="default")
    assert backend.evidence == Evidence.MUTE
    assert b"dlr" not in backend.send_request(message()).body
    settings.SMSKA_PUBLIC_URL = "https://shop.example"
    assert backend.evidence == Evidence.REPORTED
    assert b"dlr" in backend.send_request(message()).body
    assert b"dlr" not in backend.send_request(message(reference="")).body


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"smsc": 7}, "'smsc' must be printable text"),
        ({"smsc": "a\x02"}, "'smsc' must be printable text"),
        ({"url": ""}, "'url' must be an http:// or https:// address"),
        ({"password": ""}, "'username' and 'password' must not be empty"),
    ],
)
def test_options_that_are_wrong(changes, words):
    right = {"username": "a", "password": "b", "url": "http://127.0.0.1/"}
    with pytest.raises(InvalidProvider, match=words):
        SmsBackend(**{**right, **changes})


def test_a_sender_that_no_xml_can_hold():
    """Kannel would read nothing of it, and refuse the login that it has not found."""


@pytest.mark.parametrize("sender", ["Shop\x01", "Пицца", "Café", "S" * 21])
def test_a_sender_that_cannot_arrive(sender):
    """No XML can hold the first one: Kannel would read nothing of it, and refuse the login that it
    has not found. Of the others a phone would show something else, or nothing would arrive."""
    for named in ({"sender_id": sender}, {}):
        backend = SmsBackend(username="a", password="b", url="http://127.0.0.1/", **named)
        with pytest.raises(InvalidSender):
            backend.send_request(message(sender="" if named else sender))


@pytest.mark.parametrize("sender", ["Shop & Co_1", "+79990000001", "12345", "S" * 20])
def test_a_sender_that_can_arrive(sender):
    backend = SmsBackend(username="a", password="b", url="http://127.0.0.1/")
    assert escape(sender).encode() in backend.send_request(message(sender=sender)).body


def test_the_documented_kannel_cuts_no_text():
    longest = documented()["sendsms-user"]["max-messages"]
    assert int(longest) >= conf.max_segments()


# --- the real one ---------------------------------------------------------------------------------

slow = pytest.mark.slow


class Receiver(ThreadingHTTPServer):
    """A site's webhooks: keeps each request, as a view gets it.

    :ivar answers: the HTTP statuses of the next answers, 200 where there are none
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), ReceiverHandler)
        self.requests, self.answers = [], []
        self.changed = threading.Condition()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def wait_for(self, condition, what):
        with self.changed:
            assert self.changed.wait_for(condition, 30), f"not within 30 s: {what}"

    def wait_for_status(self, backend, reference, status):
        self.wait_for(lambda: status in self.statuses(backend, reference), f"it is {status}")

    def statuses(self, backend, reference):
        return [
            report.status
            for request in list(self.requests)
            if "reference" in request.GET
            for report in backend.parse_reports(request)
            if report.reference == reference
        ]

    def replies(self, backend):
        found = [one for one in list(self.requests) if "reference" not in one.GET]
        return [reply for one in found for reply in backend.parse_inbound(one)]


class ReceiverHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind = self.headers.get("Content-Type", "")
        headers = {name: value for name, value in self.headers.items() if name.startswith("X-")}
        request = RequestFactory().generic(
            self.command, self.path, body, content_type=kind, headers=headers
        )
        with self.server.changed:
            status = self.server.answers.pop(0) if self.server.answers else 200
            if status == 200:
                self.server.requests.append(request)
            self.server.changed.notify_all()
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *args):
        pass


class Proxy(standin.Standin):
    """What stands before a Kannel and spoils the answers; ``accepted`` stays empty."""

    def __init__(self, kannel):
        super().__init__()
        self.kannel = kannel

    def sends(self, request):
        return True

    def answer(self, request):
        """Return Kannel's answer, when it has come whole."""
        connection = http.client.HTTPConnection("127.0.0.1", self.kannel.port, timeout=30)
        connection.request(request.method, request.target, request.body, dict(request.headers))
        response = connection.getresponse()
        answer = frame(response.read(), response.status)
        connection.close()
        return answer


@contextmanager
def receiving():
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever, args=(0.01,))
        thread.start()
        yield receiver
        receiver.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def receiver():
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def smsc():
    with Smsc() as smsc:
        yield smsc


def post_url(receiver):
    return {"post-url": f'"{receiver.url}/mo?id=%I"'}


def get_url(receiver):
    query = "from=%p&to=%P&text=%b&charset=%C&id=%I"
    return {"post-url": None, "get-url": f'"{receiver.url}/mo?{query}"'}


@pytest.fixture(scope="module")
def kannel(tmp_path_factory, smsc, receiver):
    require_kannel()
    folder = tmp_path_factory.mktemp("kannel")
    with Kannel(folder, smsc.port, sms_service=post_url(receiver)) as kannel:
        smsc.wait_for_kannel()
        yield kannel


@pytest.fixture
def public(receiver, settings):
    """Kannel reaches this site."""
    settings.SMSKA_PUBLIC_URL = receiver.url


def make(kannel, **changes):
    options = {"username": USERNAME, "password": PASSWORD, "url": kannel.url, "sender_id": "Shop"}
    return SmsBackend(alias="default", **{**options, "deadline": 30, **changes})


_numbers = iter(range(79050000000, 79059999999))


def to_a_new_number(body="text", **more):
    """A message to a number that no other test sends to."""
    return message(body, to=f"+{next(_numbers)}", **more)


def arrived(smsc, one, parts=1):
    """Return the parts of a message, when the SMSC has them."""
    number = one.to.lstrip("+")
    smsc.wait_for(lambda: len(smsc.sent_to(number)) >= parts, "the SMSC has it")
    return smsc.sent_to(number)


@slow
@pytest.mark.parametrize("text", [*TEXTS.values(), *MORE_TEXTS.values()], ids=[*TEXTS, *MORE_TEXTS])
def test_a_text_reaches_the_smsc_as_it_was_sent(kannel, smsc, text):
    one = to_a_new_number(text)
    assert make(kannel).send_message(one) == Receipt()
    first, *_ = arrived(smsc, one)
    parts = arrived(smsc, one, first.place[1])
    assert smpp_smsc.text_of(*sorted(parts, key=lambda part: part.place)) == text
    assert (first.number_type, first.sender) == (1, "Shop")
    assert one.begun == [1] and len(parts) == first.place[1] <= 10


@slow
def test_the_rest_of_a_message_reaches_it_too(kannel, smsc):
    soon = timezone.now() + timedelta(minutes=30)
    one = to_a_new_number(sender="A&B <C>", expires_at=soon)
    assert make(kannel, smsc="operator").send_message(one) == Receipt()
    (part,) = arrived(smsc, one)
    assert part.sender == "A&B <C>"
    until = datetime.strptime(part.validity[:12] + "+0000", "%y%m%d%H%M%S%z")
    assert soon - timedelta(seconds=2) <= until <= timezone.now() + timedelta(minutes=31)


# --- refused --------------------------------------------------------------------------------------


@slow
@pytest.mark.parametrize(
    ("number", "error"),
    [
        (IN_BLACK_LIST, InvalidRecipient),
        ("letters", InvalidRecipient),
        ("", InvalidRecipient),
        (NOT_ROUTABLE, InvalidRequest),
        (NO_SMSC, InvalidRequest),
    ],
)
def test_what_kannel_refuses(kannel, smsc, number, error):
    result = outcome(make(kannel), message(to=number))
    assert type(result) is error and result.answered
    assert smsc.sent_to(number.lstrip("+")) == []


@slow
def test_bearerbox_also_reports_what_it_refuses(kannel, receiver, public):
    one, backend = message(to=NO_SMSC), make(kannel)
    assert type(outcome(backend, one)) is InvalidRequest
    receiver.wait_for_status(backend, one.reference, "rejected")
    assert receiver.statuses(backend, one.reference) == ["rejected"]


@slow
def test_an_smsc_that_is_not_there(kannel):
    result = outcome(make(kannel, smsc="nowhere"), to_a_new_number())
    assert type(result) is InvalidRequest and "Not routable" in result.gateway_text


@slow
def test_a_login_that_is_wrong(kannel):
    for changes in ({"password": "another"}, {"username": "another"}):
        assert type(outcome(make(kannel, **changes), message())) is AuthenticationFailed


@slow
def test_a_path_that_is_wrong(kannel):
    wrong = f"http://127.0.0.1:{kannel.port}/cgi-bin/sendms"
    assert type(outcome(make(kannel, url=wrong), message())) is GatewayUnreachable


# --- reports --------------------------------------------------------------------------------------


@slow
@pytest.mark.parametrize(
    ("words", "status"),
    [
        ([smpp_smsc.DELIVERED], "delivered"),
        ([smpp_smsc.ACCEPTED, smpp_smsc.DELIVERED], "delivered"),
        ([smpp_smsc.UNDELIVERABLE], "rejected"),
        ([smpp_smsc.REJECTED], "rejected"),
        ([smpp_smsc.DELETED], "rejected"),
        ([smpp_smsc.UNKNOWN], "rejected"),
        ([smpp_smsc.EXPIRED], "expired"),
        (INVALID_NUMBER, "rejected"),
        ([], "sent"),
    ],
    ids=str,
)
def test_reports_come_with_our_reference(kannel, smsc, receiver, public, words, status):
    """And with nothing of the text: receipts of SMSCs repeat its beginning."""
    one, backend = to_a_new_number("918273 is the code"), make(kannel)
    refused = isinstance(words, int)
    smsc.answers[one.to.lstrip("+")] = (words, []) if refused else (0, words)
    assert backend.send_message(one) == Receipt()
    receiver.wait_for_status(backend, one.reference, status)
    if not refused:
        receiver.wait_for_status(backend, one.reference, "sent")
    assert set(receiver.statuses(backend, one.reference)) <= {"sent", status}
    for request in list(receiver.requests):
        if request.GET.get("reference") == one.reference:
            address = request.get_full_path()
            assert "918273" not in address and one.to.lstrip("+") not in address


@slow
def test_a_receipt_without_a_state_is_read_by_kannel(kannel, smsc, receiver, public, monkeypatch):
    """Which knows no word but that of delivery there: what expired counts as rejected."""
    monkeypatch.setattr(smsc, "states_in_receipts", False)
    for word, status in [(smpp_smsc.DELIVERED, "delivered"), (smpp_smsc.EXPIRED, "rejected")]:
        one, backend = to_a_new_number(), make(kannel)
        smsc.answers[one.to.lstrip("+")] = (0, [word])
        backend.send_message(one)
        receiver.wait_for_status(backend, one.reference, status)


@slow
def test_of_a_long_text_the_first_part_is_reported(kannel, smsc, receiver, public):
    long, last, backend = to_a_new_number("Ж" * 200), to_a_new_number(), make(kannel)
    for one in (long, last):
        backend.send_message(one)
        receiver.wait_for_status(backend, one.reference, "delivered")
        receiver.wait_for_status(backend, one.reference, "sent")
    assert len(arrived(smsc, long, 3)) == 3
    assert sorted(receiver.statuses(backend, long.reference)) == ["delivered", "sent"]


@slow
def test_a_report_that_the_site_did_not_answer_comes_again(kannel, receiver, public):
    one, backend = to_a_new_number(), make(kannel)
    receiver.answers += [503, 503, 503]
    backend.send_message(one)
    receiver.wait_for(lambda: not receiver.answers, "three are not answered")
    receiver.wait_for_status(backend, one.reference, "sent")
    receiver.wait_for_status(backend, one.reference, "delivered")


@slow
def test_percent_signs_of_the_address_survive(kannel, receiver, monkeypatch):
    one, backend = to_a_new_number(), make(kannel)
    monkeypatch.setattr(backend, "webhook_url", lambda kind: f"{receiver.url}/a%20b/%C3%A9/100%25")
    backend.send_message(one)
    receiver.wait_for_status(backend, one.reference, "delivered")
    paths = {
        one_of.get_full_path().partition("?")[0]
        for one_of in receiver.requests
        if one_of.GET.get("reference") == one.reference
    }
    assert paths == {"/a%20b/%C3%A9/100%25"}


# --- away, and doubts -----------------------------------------------------------------------------


@slow
def test_what_kannel_keeps_while_its_smsc_is_away(kannel, smsc, receiver, public):
    one, backend = to_a_new_number(), make(kannel)
    smsc.go_down()
    kannel.wait_for(lambda: "(online" not in kannel.status(), "the SMSC is away")
    assert backend.send_message(one) == Receipt()
    assert smsc.sent_to(one.to.lstrip("+")) == []
    smsc.go_up()
    assert len(arrived(smsc, one)) == 1
    receiver.wait_for_status(backend, one.reference, "delivered")


@slow
def test_reports_prove_ten_answers_that_are_lost(kannel, smsc, receiver, public):
    lost = [to_a_new_number() for _ in range(10)]
    with Proxy(kannel) as proxy:
        backend = make(kannel, url=f"{proxy.url}/cgi-bin/sendsms")
        for one in lost:
            proxy.spoil(standin.accepts_and_resets)
            assert isinstance(outcome(backend, one), SmsOutcomeUnknown)
    for one in lost:
        receiver.wait_for_status(backend, one.reference, "sent")
        receiver.wait_for_status(backend, one.reference, "delivered")
        assert len(arrived(smsc, one)) == 1
    assert len(proxy.requests) == 10


@slow
def test_no_report_proves_a_request_that_is_lost(kannel, smsc, receiver, public):
    lost = [to_a_new_number() for _ in range(10)]
    with Proxy(kannel) as proxy:
        backend = make(kannel, url=f"{proxy.url}/cgi-bin/sendsms")
        for one in lost:
            proxy.spoil(standin.resets)
            assert isinstance(outcome(backend, one), SmsOutcomeUnknown)
    last = to_a_new_number()  # behind them: what they had sent would have come before
    make(kannel).send_message(last)
    receiver.wait_for_status(backend, last.reference, "delivered")
    for one in lost:
        assert receiver.statuses(backend, one.reference) == []
        assert smsc.sent_to(one.to.lstrip("+")) == []


@slow
def test_an_answer_may_end_at_any_byte(kannel, smsc, receiver, public):
    """It is accepted or unknown, and each is proven by a report."""
    sent = []
    with Proxy(kannel) as proxy:
        backend = make(kannel, url=f"{proxy.url}/cgi-bin/sendsms")

        def cut_at(at):
            def spoil(wire, honest):
                whole = honest()
                sizes.add(len(whole))
                wire.send(whole[:at])
                wire.finish()

            return spoil

        sizes, at = set(), 0
        while not sizes or at <= max(sizes):
            one = to_a_new_number()
            proxy.spoil(cut_at(at))
            result = outcome(backend, one)
            assert isinstance(result, SmsOutcomeUnknown) or (at in sizes and result == Receipt())
            sent.append(one)
            at += 1
    assert at > 100
    for one in sent:
        receiver.wait_for_status(backend, one.reference, "delivered")
        assert len(arrived(smsc, one)) == 1


@pytest.fixture
def own_kannel(tmp_path, receiver):
    """A Kannel that the test may end, and its SMSC."""
    require_kannel()
    changes = {"sms_service": get_url(receiver), "smsbox": {"mo-recode": "true"}}
    with Smsc() as smsc, Kannel(tmp_path, smsc.port, **changes) as kannel:
        smsc.wait_for_kannel()
        yield kannel, smsc


def sending(backend, one):
    """Send in a thread; return it, and the list that gets the outcome."""
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(outcome(backend, one)))
    thread.start()
    return thread, outcomes


def killed_while_it_sends(kannel, one, box):
    """Kill a box that has the message; return the outcome of the attempt."""
    kannel.freeze("bearerbox")  # smsbox waits for its word
    thread, outcomes = sending(make(kannel), one)
    kannel.wait_for(lambda: f"msg:<{one.body}>" in kannel.log(), "smsbox has the request")
    # A heartbeat has fewer.
    kannel.wait_for(lambda: kannel.waiting_bytes() > 100, "bearerbox could read it")
    kannel.kill(box)
    thread.join(30)
    (result,) = outcomes
    assert one.begun == [1] and kannel.log().count(f"msg:<{one.body}>") == 1
    return result


@slow
def test_a_bearerbox_that_is_killed_while_it_sends(own_kannel, receiver, public):
    """It is unknown, and not sent by a Kannel that is back."""
    kannel, smsc = own_kannel
    lost, last, backend = to_a_new_number("killed"), to_a_new_number(), make(kannel)
    assert isinstance(killed_while_it_sends(kannel, lost, "bearerbox"), SmsOutcomeUnknown)
    kannel.kill("smsbox")
    kannel.start()
    smsc.wait_for_kannel()
    backend.send_message(last)
    receiver.wait_for_status(backend, last.reference, "delivered")
    assert len(arrived(smsc, last)) == 1 and smsc.sent_to(lost.to.lstrip("+")) == []
    assert receiver.statuses(backend, lost.reference) == []


@slow
def test_a_smsbox_that_is_killed_while_it_sends(own_kannel, receiver, public):
    """It is unknown, and sent once. The report waits for the smsbox that is back."""
    kannel, smsc = own_kannel
    one = to_a_new_number("killed")
    assert isinstance(killed_while_it_sends(kannel, one, "smsbox"), SmsOutcomeUnknown)
    kannel.go_on("bearerbox")
    arrived(smsc, one)
    kannel.run("smsbox", kannel.port)
    receiver.wait_for_status(make(kannel), one.reference, "delivered")
    assert len(smsc.sent_to(one.to.lstrip("+"))) == 1


@slow
def test_a_kannel_that_is_not_there(own_kannel):
    kannel, _ = own_kannel
    kannel.kill("smsbox")
    one = message()
    assert type(outcome(make(kannel), one)) is GatewayUnreachable and one.begun == []


# --- messages of phones ---------------------------------------------------------------------------

REPLIES = ["STOP", "Стоп", "да & нет + 100% = ?", "two\nlines", "🙂 emoji", "{€}", "  blanks  "]


def answered(smsc, receiver, backend):
    """Let phones send the texts; return what the site got of them, in the order of the texts."""
    before = len(receiver.replies(backend))
    for text in REPLIES:
        smsc.deliver("79041764988", "5555", text)
    receiver.wait_for(
        lambda: len(receiver.replies(backend)) == before + len(REPLIES), "all replies came"
    )
    return sorted(receiver.replies(backend)[before:], key=lambda one: REPLIES.index(one.body))


def check_replies(smsc, receiver, backend):
    replies = answered(smsc, receiver, backend)
    assert [one.body for one in replies] == REPLIES
    assert {(one.sender, one.to) for one in replies} == {("+79041764988", "5555")}
    assert len({one.gateway_id for one in replies}) == len(REPLIES)
    assert all(len(one.gateway_id) == 36 for one in replies)


@slow
def test_replies_by_post(kannel, smsc, receiver):
    check_replies(smsc, receiver, make(kannel))
    for request in receiver.requests:  # which servers keep in their logs
        assert "79041764988" not in request.get_full_path()


@slow
def test_replies_by_get(own_kannel, receiver):
    kannel, smsc = own_kannel
    check_replies(smsc, receiver, make(kannel))


# --- through the engine, with a site that Kannel calls --------------------------------------------


@pytest.fixture
def site(tmp_path, live_server, settings, transactional_db):
    """A site whose provider is a Kannel behind a proxy; returns the proxy and the SMSC."""
    require_kannel()
    settings.SMSKA_LOCMEM_IN_TESTS = False
    settings.SMSKA_LIMITS = None
    settings.SMSKA_PUBLIC_URL = live_server.url.replace("localhost", "127.0.0.1")
    replies = {"post-url": f'"{webhook_url("default", "inbound")}?id=%I"'}
    with (
        Smsc() as smsc,
        Kannel(tmp_path, smsc.port, sms_service=replies) as kannel,
        Proxy(kannel) as proxy,
    ):
        smsc.wait_for_kannel()
        options = {"username": USERNAME, "password": PASSWORD, "sender_id": "5555"}
        settings.SMS_PROVIDERS = {
            "default": {
                "BACKEND": "django_smska.backends.kannel.SmsBackend",
                "OPTIONS": {**options, "url": f"{proxy.url}/cgi-bin/sendsms"},
            }
        }
        yield proxy, smsc
        # No report may come into the database of the next test.
        kannel.wait_for(lambda: kannel.is_idle(), "all reports are pushed")


def until(condition, what):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, f"not within 30 s: {what}"
        time.sleep(0.02)


@slow
def test_ten_doubts_resolve_themselves(site):
    proxy, smsc = site
    for number in range(10):
        proxy.spoil(standin.accepts_and_resets)
        with suppress(SmsOutcomeUnknown):  # its report may be faster than the end of the connection
            send_sms(f"+7904176490{number}", "Ваш заказ готов")
        circuit_breaker.resume("default")  # which three in a row pause
    delivered = SmsMessage.objects.filter(status=Status.DELIVERED)
    until(lambda: delivered.count() == 10, "all are delivered")
    assert set(delivered.values_list("proof", flat=True)) == {"report"}
    assert set(delivered.values_list("gateway_id", flat=True)) == {""}
    assert smsc.texts() == ["Ваш заказ готов"] * 10


@slow
def test_a_stop_ends_it(site):
    _, smsc = site
    message = send_sms("+79041764901", "Скидки!")
    smsc.deliver("79041764901", "5555", "Стоп")
    until(lambda: SmsInbound.objects.exists(), "the reply is there")
    (reply,) = SmsInbound.objects.all()
    assert (reply.sender, reply.to, reply.body) == ("+79041764901", "5555", "Стоп")
    with pytest.raises(RecipientOptedOut):
        send_sms("+79041764901", "Скидки!")
    until(lambda: SmsMessage.objects.get(pk=message.pk).status == Status.DELIVERED, "delivered")

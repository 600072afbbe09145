"""The backend that settings describe: what they may say, and the ready ones of the docs."""

from __future__ import annotations

import os
import re
from decimal import Decimal
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from django.core.checks import run_checks
from django.test import RequestFactory
from django.views.debug import ExceptionReporter

from django_smska.backends.http import KINDS, SmsBackend
from django_smska.conf import WrongPart
from django_smska.exceptions import (
    AuthenticationFailed,
    GatewayBusy,
    InsufficientCredits,
    InvalidProvider,
    InvalidRecipient,
    InvalidRequest,
    InvalidSender,
    QueryFailed,
    SmsError,
    SmsOutcomeUnknown,
    TemporaryFailure,
)
from django_smska.exchange import Answer
from django_smska.http_answers import Said, conditions, place
from django_smska.receipts import Evidence, Receipt, Report
from django_smska.redact import Hidden
from django_smska.testing.faults import frame

from .counterparts import standin
from .counterparts.described import Exolve, Jasmin, SmsAero, SmsRu
from .counterparts.http import KEY, Acme, push
from .counterparts.standin import reply
from .documents import DOCUMENTS, run
from .test_contract import NUMBER, TEXTS, make, message, outcome

DIGITS = NUMBER[1:]


@pytest.fixture
def acme():
    with Acme() as acme:
        yield acme


# --- what the settings may say --------------------------------------------------------------------

GOOD = {
    "secrets": {"key": "value-of-the-key"},
    "url": "https://acme.example/messages",
    "form": {"to": "{to}", "text": "{text}", "key": "{key}"},
    "accepted": {"http": 200, "text": "OK"},
}
QUERY = {"url": "https://acme.example/status", "status": "state"}
WORDS = {"statuses": {"delivered": "yes"}}

WRONG = [
    ({"url": ""}, "'url' must be an"),
    ({"secrets": "key"}, "'secrets' must be a dict"),
    ({"secrets": {"a-b": "x"}}, "'secrets' must have names of letters"),
    ({"secrets": {"text": "x"}}, "'secrets' must not have the name 'text'"),
    ({"secrets": {"key": ""}}, "'key' must not be empty"),
    ({"secrets": {"key": 5}}, "'key' must not be empty, and must be text"),
    ({"form": {"to": "{to}"}}, "must have {text}, {text_hex} or {text_url} in it"),
    ({"form": {"text": "{text}"}}, "must have {to}, {to_digits} or {to_number}"),
    ({"form": {"t": "{texd}", "to": "{to}"}}, "'form': 't' has an unknown placeholder, {texd}"),
    ({"form": {"t": "{text:5}", "to": "{to}"}}, "'form': 't' has an unknown placeholder"),
    ({"form": {"t": "{text!r}", "to": "{to}"}}, "'form': 't' has an unknown placeholder"),
    ({"form": {"t": "{text.a}", "to": "{to}"}}, "an unknown placeholder, {text.a}"),
    ({"form": {"t": "{}", "to": "{to}"}}, "an unknown placeholder, {}"),
    ({"form": {"t": "{text", "to": "{to}"}}, "'form': 't' has a brace too much or too few"),
    ({"form": {"t": "text}", "to": "{to}"}}, "'form': 't' has a brace too much or too few"),
    ({"form": {"t": 5}}, "'form': 't' must be text"),
    ({"form": ["{text}"]}, "'form' must be a dict of texts"),
    ({"form": {5: "{text}"}}, "'form' must be a dict of texts"),
    ({"json": {"a": b"x"}, "form": None}, "'json': 'a' may hold only text, numbers"),
    ({"json": {"a": "{text}"}}, "'json' and 'form' cannot both be the body"),
    ({"text": ["{text}"], "form": None}, "'text' must be text"),
    ({"headers": {"X": "{text}"}}, "'headers': 'X' has an unknown placeholder, {text}"),
    ({"headers": "X: y"}, "'headers' must be a dict of texts"),
    ({"basic": "{login}:x"}, "'basic' has an unknown placeholder, {login}"),
    ({"url": "https://acme.example/{key}"}, "'url' has an unknown placeholder, {key}"),
    ({"url": "https://acme.example/{to}"}, "'url' has an unknown placeholder, {to}"),
    ({"url": "https://acme.example/?a=1"}, "'url' must hold no login and no query"),
    ({"method": "GET"}, "'method' must be POST, PUT or PATCH"),
    ({"method": "post"}, "'method' must be one of GET, POST"),
    ({"accepted": None}, "'accepted' must be a condition"),
    ({"accepted": []}, "'accepted' must be a condition"),
    ({"accepted": {}}, "'accepted' has a condition that is no dict of 'http', 'json' and 'text'"),
    ({"accepted": {"status": 200}}, "'accepted' has a condition that is no dict"),
    ({"accepted": ["OK"]}, "'accepted' has a condition that is no dict"),
    ({"accepted": {"http": "200"}}, "'accepted' has an 'http' outside of 200 to 499"),
    ({"accepted": {"http": []}}, "'accepted' has an 'http' outside of 200 to 499"),
    ({"accepted": {"http": True}}, "'accepted' has an 'http' outside of 200 to 499"),
    ({"accepted": {"json": "a"}}, "'accepted' has a 'json' that is no dict"),
    ({"accepted": {"json": {"a b": 1}}}, "'accepted' must be a path such as 'data.id'"),
    ({"accepted": {"json": {"a": None}}}, "'accepted' has a 'json' value that is no text"),
    ({"accepted": {"json": {"a": []}}}, "'accepted' has a 'json' value that is no text"),
    ({"accepted": {"json": {"a": "("}}}, "'accepted' has no regular expression"),
    ({"accepted": {"text": 5}}, "'accepted' has no regular expression"),
    ({"refused": {"number": {"http": 400}}}, "'refused' has an unknown 'number'; known here: 'rec"),
    ({"refused": {"busy": {"http": 503}}}, "'refused': 'busy' has an 'http' outside of 200 to 499"),
    ({"refused": [{"http": 400}]}, "'refused' must be a dict"),
    ({"id": "a b"}, "'id' must be a path such as 'data.id', or a regular expression with one"),
    ({"id": "(a)(b)"}, "'id' must be a path such as 'data.id', or a regular expression with one"),
    ({"balance": 5}, "'balance' has no regular expression"),
    ({"statuses": {"arrived": "x"}}, "'statuses' has an unknown 'arrived'; known here: 'sent'"),
    ({"statuses": {"sent": "x", "delivered": ["x"]}}, "'statuses' has a word that stands for two"),
    ({"status_query": QUERY}, "'statuses' must be a dict such as"),
    ({"status_query": "x", **WORDS}, "'status_query' must be a dict"),
    ({"status_query": {**QUERY, "uri": "x"}, **WORDS}, "'status_query' has an unknown 'uri'"),
    ({"status_query": {**QUERY, "status": ""}, **WORDS}, "'status_query': 'status' must be a path"),
    ({"status_query": {**QUERY, "url": "/a"}, **WORDS}, "'status_query': 'url' must be an http://"),
    (
        {"status_query": {**QUERY, "url": "https://a.example/{reference}/{to}"}, **WORDS},
        "'status_query': 'url' has an unknown placeholder, {to}; known here: {reference}, {gate",
    ),
    (
        {"status_query": {**QUERY, "form": {"t": "{text}"}}, **WORDS},
        "'status_query': 'form': 't' has an unknown placeholder, {text}",
    ),
    (
        {"balance_query": {"url": "https://a.example/", "form": {"i": "{to}"}, "balance": "b"}},
        "'balance_query': 'form': 'i' has an unknown placeholder, {to}; known here: {key}",
    ),
    (
        {"balance_query": {"url": "https://a.example/", "balance": "b", "missing": {"http": 404}}},
        "'balance_query': 'missing' has no meaning here",
    ),
    (
        {"find_query": {"url": "https://a.example/{reference}", "id": "id"}, **WORDS},
        "only where the body or 'headers' have {reference}",
    ),
    ({"reports": {"reference": "own", "status": "s"}, **WORDS}, "have {reference}"),
    ({"reports": {"status": "s"}, **WORDS}, "'reports' must have 'status', and 'reference' or"),
    ({"reports": {"id": "i", "status": "a b"}, **WORDS}, "'reports': 'status' must be a path"),
    ({"reports": {"id": "i", "status": "s", "answer": 5}, **WORDS}, "'answer' must be text"),
    ({"reports": {"id": "i", "status": "s"}}, "'statuses' must be a dict such as"),
    ({"retry_in": -1}, "'retry_in' must be a number of seconds"),
    ({"retry_in": True}, "'retry_in' must be a number of seconds"),
    ({"most_at_once": 0}, "'most_at_once' must be a whole number"),
    ({"most_at_once": 1.5}, "'most_at_once' must be a whole number"),
    ({"currency": "roubles"}, "'currency' must be three letters"),
    ({"acepted": 1}, "Unknown option 'acepted'"),
    ({"rate": "fast"}, "'rate'"),
]


def test_what_is_right_is_accepted():
    assert SmsBackend(**GOOD).evidence == Evidence.MUTE
    SmsBackend(**{**GOOD, "secrets": {}, "form": {"to": "{to}", "text": "{{{text}}}"}})


@pytest.mark.parametrize(("change", "words"), WRONG)
def test_what_is_wrong_is_named_with_what_to_do(change, words):
    with pytest.raises(InvalidProvider, match=re.escape(words)) as refused:
        SmsBackend(**{**GOOD, **change}, alias="acme")
    assert str(refused.value).startswith("SMS_PROVIDERS['acme']: ") and refused.value.hint
    assert "value-of-the-key" not in str(refused.value)


def test_a_secret_is_in_no_repr_of_the_backend(acme):
    assert KEY not in repr(vars(make(acme)))


@pytest.mark.parametrize("insecure", ["url", "status_query"])
def test_a_query_without_tls_is_warned_of(settings, insecure):
    options = {**GOOD, **WORDS, "status_query": QUERY}
    if insecure == "url":
        options["url"] = "http://acme.example/messages"
    else:
        options["status_query"] = {**QUERY, "url": "http://acme.example/status"}
    settings.SMSKA_LOCMEM_IN_TESTS = False
    settings.SMS_PROVIDERS = {
        "default": {"BACKEND": "django_smska.backends.http.SmsBackend", "OPTIONS": options}
    }
    found = {
        one.id for one in run_checks(tags=["sms"], include_deployment_checks=True, databases=[])
    }
    assert "smska.W002" in found


# --- requests -------------------------------------------------------------------------------------


class Recorder(standin.Standin):
    """Accepts whatever it gets."""

    def sends(self, request):
        return True

    def answer(self, request):
        return frame(b"OK")


@pytest.fixture
def recorder():
    with Recorder() as recorder:
        yield recorder


def sent(recorder, one=None, /, **options):
    """Send by a backend with these options; return the request that came."""
    changed = {**GOOD, "form": None, "url": f"{recorder.url}/messages", "sender_id": "Shop"}
    backend = SmsBackend(**{**changed, **options})
    assert backend.send_message(one or message()) == Receipt()
    return recorder.requests[-1]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
class TestNoTextBreaksOut:
    def test_of_json(self, recorder, text):
        tree = {"a": [{"b": "<{text}>"}, 5, True, None], "to": "{to}", "{text}": "x"}
        request = sent(recorder, message(text), json=tree)
        assert request.headers["content-type"].startswith("application/json")
        same = {"a": [{"b": f"<{text}>"}, 5, True, None], "to": NUMBER, "{text}": "x"}
        assert request.json == same

    def test_of_a_form(self, recorder, text):
        request = sent(
            recorder, message(text), form={"t": "[{text}]", "to": "{to}", "key": "{key}"}
        )
        assert request.headers["content-type"] == "application/x-www-form-urlencoded"
        assert request.form == {"t": f"[{text}]", "to": NUMBER, "key": "value-of-the-key"}

    def test_of_xml(self, recorder, text):
        template = '<?xml version="1.0" encoding="UTF-8"?><m to="{to}" t="{text}"><b>{text}</b></m>'
        request = sent(recorder, message(text), xml=template)
        assert request.headers["content-type"].startswith("text/xml")
        tree = ElementTree.fromstring(request.body)
        assert tree.attrib == {"to": NUMBER, "t": text}
        assert [(one.tag, one.text) for one in tree] == [("b", text)]

    def test_of_plain_text(self, recorder, text):
        request = sent(recorder, message(text), text="{text}", headers={"X-To": "{to_digits}"})
        assert request.headers["content-type"].startswith("text/plain")
        assert (request.body.decode(), request.headers["x-to"]) == (text, DIGITS)

    def test_of_hexadecimal_digits(self, recorder, text):
        request = sent(recorder, message(text), form={"t": "{text_hex}", "to": "{to}"})
        assert bytes.fromhex(request.form["t"]).decode("utf-16-be") == text

    def test_of_percent_encoding(self, recorder, text):
        request = sent(recorder, message(text), xml="<m><n>{to}</n><t>{text_url}</t></m>")
        encoded = ElementTree.fromstring(request.body).findtext("t")
        assert re.fullmatch("[A-Za-z0-9_.~%-]+", encoded) and unquote(encoded) == text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"xml": "<m>{to}{text}</m>"}, "a\x0bb"),
        ({"xml": "<m>{to}{text}</m>"}, "\ud83d"),
        ({"text": "{text}", "headers": {"X-To": "{to}"}}, "\ud83d"),
        ({"form": {"t": "{text_hex}", "to": "{to}"}}, "\ud83d"),
        ({"json": {"t": "{text}", "to": "{to}"}}, "\ud83d"),
        ({"form": {"t": "{text}", "to": "{to}"}}, "\ud83d"),
    ],
)
def test_what_cannot_be_written_is_refused_unsent(recorder, body, text):
    changed = {**GOOD, "form": None, "url": f"{recorder.url}/messages", **body}
    assert isinstance(outcome(SmsBackend(**changed), message(text)), InvalidRequest)
    assert recorder.requests == []


@pytest.mark.parametrize("sender", ["Магазин", "Shop\r\nX-Key: y", "Shop\n"])
def test_a_sender_that_no_header_holds_is_refused_unsent(recorder, sender):
    changed = {**GOOD, "url": f"{recorder.url}/messages", "headers": {"X-From": "{sender}"}}
    assert isinstance(outcome(SmsBackend(**changed), message(sender=sender)), InvalidSender)
    assert recorder.requests == []


def test_a_secret_that_no_header_holds_is_refused_at_once():
    with pytest.raises(InvalidProvider, match="'headers' cannot hold the value of 'key'"):
        SmsBackend(**{**GOOD, "secrets": {"key": "ключ"}, "headers": {"X-Key": "{key}"}})


def test_a_number_may_be_a_number(recorder):
    request = sent(recorder, json={"to": "{to_number}", "text": "{text}", "also": "x{to_number}"})
    assert request.json == {"to": int(DIGITS), "text": "text", "also": f"x{DIGITS}"}


def test_what_has_no_value_is_left_out(recorder):
    fields = {"t": "{text}", "to": "{to}", "from": "{sender}", "url": "{report_url}?r={reference}"}
    assert sent(recorder, sender_id="", form=fields).form == {"t": "text", "to": NUMBER}
    tree = {"a": {**fields}}
    assert sent(recorder, sender_id="", json=tree).json == {"a": {"t": "text", "to": NUMBER}}
    headers = {"X-From": "{sender}"}
    assert "x-from" not in sent(recorder, sender_id="", form=fields, headers=headers).headers


def test_the_address_for_reports(recorder, settings):
    settings.SMSKA_PUBLIC_URL = "https://shop.example"
    fields = {"t": "{text}", "to": "{to}", "url": "{report_url}?r={reference}"}
    one = message()
    request = sent(recorder, one, form=fields, alias="default")
    assert request.form["url"].startswith("https://shop.example/")
    assert request.form["url"].endswith(f"/report/?r={one.reference}")


def test_method_header_and_basic(recorder):
    request = sent(
        recorder,
        method="PUT",
        form={"t": "{text}", "to": "{to}"},
        basic="me:{key}",
        headers={"X-Key": "{key}", "content-type": "application/x-other"},
    )
    assert request.method == "PUT" and request.headers["x-key"] == "value-of-the-key"
    assert request.headers["authorization"] == "Basic bWU6dmFsdWUtb2YtdGhlLWtleQ=="
    assert request.headers["content-type"] == "application/x-other"


def test_an_id_is_percent_encoded_in_an_address(acme):
    one = message()
    one.gateway_id = "a/../b?c=d&e"
    with pytest.raises(QueryFailed):
        make(acme).get_status(one)
    assert acme.requests[-1].target == "/messages/a%2F..%2Fb%3Fc%3Dd%26e"


# --- answers --------------------------------------------------------------------------------------


def said(body, status=200, framed=True):
    return Said.by(Answer(status, body.encode(), framed))


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ("a", "1"),
        ("b.0", "x"),
        ("b.1.c", "true"),
        ("b.2", ""),
        ("b.-1", ""),
        ("b.*", ""),
        ("d.*.e", "439166556416706151"),
        ("f", "1.10"),
        ("g", ""),
        ("d", ""),
        ("a.b", ""),
        ("none", ""),
        ('"e": ([0-9]+)', "439166556416706151"),
        ("nothing(x)?", ""),
        ("", ""),
    ],
)
def test_places(where, found):
    body = '{"a": 1, "b": ["x", {"c": true}], "d": {"any": {"e": 439166556416706151}}, "f": 1.10,'
    assert said(body + '"g": null}').at(place(where)) == found


def test_a_text_that_is_cut_has_no_places():
    assert said("id=123", framed=False).at(place("id=([0-9]+)")) == ""
    assert said('{"id": 123}', framed=False).at(place("id")) == "123"


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"json": {"a": 1}}, True),
        ({"json": {"a": "1"}}, True),
        ({"json": {"a": [2, 1]}}, True),
        ({"json": {"a": [2, 3]}}, False),
        ({"json": {"b": True}}, True),
        ({"json": {"b": "true"}}, True),
        ({"json": {"b": 1}}, False),
        ({"json": {"w": "OK|YES"}}, True),
        ({"json": {"w": "O"}}, False),
        ({"json": {"w": ".+", "a": 2}}, False),
        ({"json": {"e": ".*"}}, False),
        ({"json": {"none": ".*"}}, False),
        ({"http": 200}, True),
        ({"http": [201, 202]}, False),
        ({"text": '"w": "O'}, True),
        ({"text": "^OK"}, False),
        ({"text": "w", "json": {"a": 1}, "http": 200}, True),
    ],
)
def test_conditions(condition, holds):
    one = said('{"a": 1, "b": true, "w": "OK", "e": ""}')
    assert conditions(condition)[0].holds(one) == holds


@pytest.mark.parametrize("condition", [{"http": 200}, {"text": "OK"}])
def test_a_condition_without_json_needs_the_whole_text(condition):
    """What is cut may go on: "-1" as "-12"."""
    (one,) = conditions(condition)
    assert one.holds(said("OK")) and not one.holds(said("OK", framed=False))


def test_a_path_is_no_empty_text():
    with pytest.raises(WrongPart):
        conditions({"json": {"": "x"}})


def test_what_says_both_is_a_doubt(acme):
    both = {"data": {"id": "a"}, "problem": "later"}
    acme.spoil(standin.accepts_and_answers(reply(both)))
    backend = make(acme, accepted={"json": {"data.id": ".+"}})
    result = outcome(backend, message())
    assert (type(result), result.code) == (SmsOutcomeUnknown, "contradiction")


def test_a_receipt_has_what_the_answer_says(acme):
    money = {"price": Decimal("1.25"), "currency": "RUB", "segments": 1}
    assert make(acme).send_message(message()) == Receipt("acme-1", Decimal("98.25"), **money)


@pytest.mark.parametrize(
    ("data", "credits"),
    [
        ({"id": "a b", "price": "free", "parts": "one"}, None),
        ({"id": "x" * 65, "price": [1], "parts": {}}, "NaN"),
    ],
)
def test_values_that_cannot_be_used_are_left_out(acme, data, credits):
    acme.spoil(standin.accepts_and_answers(reply({"data": data, "credits": credits}, 202)))
    assert make(acme).send_message(message()) == Receipt()


def test_a_refusal_has_the_providers_code_and_time(acme):
    acme.spoil(standin.instead(reply({"problem": "later"})))
    result = outcome(make(acme, retry_in=90), message())
    assert (result.code, result.retry_in, result.answered) == ("later", 90, True)
    acme.spoil(standin.instead(reply("Slow down!", 429)))
    assert outcome(make(acme), message()).code == "http-429"


@pytest.mark.parametrize("code", [KEY, DIGITS, "x" * 33, "two\nlines", ["later"]])
def test_a_code_that_is_none_is_not_kept(acme, code):
    acme.spoil(standin.instead(reply({"problem": "later", "code": code})))
    assert outcome(make(acme, code="code"), message()).code == "http-200"


def shown(error):
    """All that monitoring and Django's debug page can show of an error."""
    page = ExceptionReporter(None, type(error), error, error.__traceback__).get_traceback_html()
    return f"{error!r} {vars(error)} {page}"


def test_no_frame_keeps_a_secret(acme, settings):
    settings.DEBUG = True
    backend, one = make(acme), message("the text " + "of the message", gateway_id="acme-1")
    acme.sends = lambda request: True
    for ask in (backend.send_message, backend.get_status, backend.find):
        acme.spoil(standin.instead(frame(b"", 500)))
        with pytest.raises(SmsError) as caught:
            ask(one)
        assert KEY not in shown(caught.value)
    acme.spoil(standin.instead(frame(b"", 500)))
    with pytest.raises(QueryFailed) as caught:
        backend.get_balance()
    assert KEY not in shown(caught.value)


def test_no_frame_of_a_refused_setting_keeps_a_secret(acme):
    login = Hidden(key=KEY)  # because this very frame is shown, too
    with pytest.raises(InvalidProvider) as caught:
        SmsBackend(**{**GOOD, "accepted": None, "secrets": vars(login)})
    assert KEY not in shown(caught.value)


def test_every_kind_is_one_that_the_engine_knows():
    assert list(KINDS) == re.findall(r"^``([a-z_]+)``  ", DOCUMENTS["howto/http"], re.M)


# --- questions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "raised"),
    [
        (reply({"problem": "key"}, 401), AuthenticationFailed),
        (reply({"problem": "credits"}, 402), InsufficientCredits),
        (reply("Slow down!", 429), GatewayBusy),
        (reply({"problem": "recipient"}, 400), QueryFailed),
        (reply({"state": "arrived", "credits": 1}, 500), QueryFailed),
        (reply({"state": "arrived", "credits": 1}, 202), QueryFailed),
        (reply({"found": [], "state": None, "credits": "many"}), QueryFailed),
        (frame(b"<html>"), QueryFailed),
    ],
)
def test_questions_without_an_answer(acme, data, raised):
    acme.sends = lambda request: True
    backend, one = make(acme), message()
    one.gateway_id = "acme-1"
    for ask in (lambda: backend.get_status(one), lambda: backend.find(one), backend.get_balance):
        acme.spoil(standin.instead(data))
        with pytest.raises(SmsError) as caught:
            ask()
        assert type(caught.value) is raised and caught.value.alias == "default"


def test_a_balance_of_nothing_is_one(acme):
    acme.sends = lambda request: True
    acme.spoil(standin.instead(reply({"credits": 0})))
    assert make(acme).get_balance() == 0


def test_two_that_are_found_are_none(acme):
    """``*`` stands for the only one that there is."""
    acme.sends = lambda request: True
    acme.spoil(standin.instead(reply({"found": [{"id": "a"}, {"id": "b"}]})))
    with pytest.raises(QueryFailed):
        make(acme).find(message())


def test_what_is_found_without_a_status_was_accepted(acme):
    acme.sends = lambda request: True
    acme.spoil(standin.instead(reply({"found": [{"id": "a"}]})))
    assert make(acme).find(message()) == Report("sent", gateway_id="a")
    acme.spoil(standin.instead(reply({"found": [{"id": "a", "state": "strange"}]})))
    assert make(acme).find(message()) == Report("", "strange", gateway_id="a")


def test_what_is_missing_says_nothing_of_its_status(acme):
    query = {**acme.options()["status_query"], "missing": {"http": 404}}
    one = message()
    one.gateway_id = "none"
    assert make(acme, status_query=query).get_status(one) == Report()


def test_what_is_not_described_cannot_be_asked():
    backend, one = SmsBackend(**GOOD), message()
    assert (backend.gives_reports, backend.takes_reports, backend.has_balance) == (False,) * 3
    for ask in (lambda: backend.find(one), backend.get_balance, lambda: backend.get_status(one)):
        with pytest.raises(QueryFailed):
            ask()


def test_what_it_can_prove_follows_from_what_is_described(acme, settings):
    options = {"find_query": None, "reports": None}
    pushed = {"reports": {"reference": "own", "status": "state"}}
    by_id = {"reports": {"id": "id", "status": "state"}}
    assert make(acme).evidence == Evidence.ASKED
    settings.SMSKA_PUBLIC_URL = ""
    assert make(acme, find_query=None).evidence == Evidence.MUTE  # the site has no address yet
    settings.SMSKA_PUBLIC_URL = "https://shop.example"
    assert make(acme, find_query=None).evidence == Evidence.REPORTED
    assert make(acme, **options).evidence == Evidence.MUTE
    assert make(acme, **{**options, **by_id}).evidence == Evidence.MUTE
    assert make(acme).reports_by == "both"
    assert make(acme, **options).reports_by == "polling"
    assert make(acme, **{**options, **pushed, "status_query": None}).reports_by == "push"
    assert SmsBackend.reports_by == "polling"


# --- what is pushed -------------------------------------------------------------------------------


def test_reports_come_in_batches(acme):
    results = [{"own": "a", "state": "arrived"}, {"id": 17, "state": "strange"}]
    assert make(acme).parse_reports(push({"results": results})) == [
        Report("delivered", "arrived", reference="a"),
        Report("", "strange", gateway_id="17"),
    ]


@pytest.mark.parametrize("method", ["get", "post"])
def test_reports_come_as_fields(acme, method):
    backend = make(acme, reports={"id": "id", "status": "state", "answer": "thanks"})
    request = getattr(RequestFactory(), method)("/", {"id": "a", "state": "too late"})
    assert backend.parse_reports(request) == [Report("expired", "too late", gateway_id="a")]
    assert backend.webhook_answer == "thanks" and SmsBackend.webhook_answer == ""


@pytest.mark.parametrize(
    "body", [{}, [], {"results": {}}, {"results": [{"own": "a"}]}, {"results": [{"state": "x"}]}]
)
def test_what_is_no_report(acme, body):
    with pytest.raises(ValueError):
        make(acme).parse_reports(push(body))


def test_what_is_no_json(acme):
    request = RequestFactory().post("/", "{", content_type="application/json")
    with pytest.raises(ValueError):
        make(acme).parse_reports(request)


# --- the ready settings of the documentation ------------------------------------------------------


def ready(words, provider, monkeypatch):
    """Return the backend of the settings in the documentation, at the stand-in's address."""
    for name in re.findall(r'os\.environ\["(\w+)"\]', DOCUMENTS["howto/http"]):
        monkeypatch.setenv(name, "login")
    (entry,) = run("howto/http", words)["SMS_PROVIDERS"].values()
    options = moved(entry["OPTIONS"], provider.url)
    assert options["secrets"].keys() == provider.login.keys()
    assert all(value == os.environ["SMS_KEY"] for value in options["secrets"].values())
    return SmsBackend(**{**options, "secrets": provider.login}, alias="default")


def moved(node, url):
    if isinstance(node, dict):
        return {name: moved(one, url) for name, one in node.items()}
    return re.sub(r"^https?://[^/]+", url, node) if isinstance(node, str) else node


def refused(backend, provider, refusal):
    provider.refusal = refusal
    result = outcome(backend, message())
    assert provider.accepted == []
    return type(result), getattr(result, "code", "")


class TestSmsRu:
    @pytest.fixture
    def provider(self):
        with SmsRu() as provider:
            yield provider

    @pytest.fixture
    def backend(self, provider, monkeypatch):
        return ready("https://sms.ru/sms/send", provider, monkeypatch)

    def test_it_is_accepted(self, backend, provider):
        receipt = backend.send_message(message("Привет & +"))
        assert receipt == Receipt("000000-10000000", Decimal("90.5"))
        (taking,) = provider.accepted
        assert (taking.number, taking.body, taking.sender) == (DIGITS, "Привет & +", "MyShop")
        assert backend.get_balance() == Decimal("90.5")

    @pytest.mark.parametrize("where", ["request", "message"])
    @pytest.mark.parametrize(
        ("error", "numbers"),
        [
            (AuthenticationFailed, [200, 300, 301, 302, 303, 304]),
            (InsufficientCredits, [201]),
            (GatewayBusy, [206]),
            (InvalidRecipient, [202, 207, 209]),
            (InvalidSender, [204]),
            (InvalidRequest, [203, 205, 212, 230, 232, 233]),
            (TemporaryFailure, [220, 231]),
            (SmsOutcomeUnknown, [101, 999]),
        ],
    )
    def test_both_codes_are_looked_at(self, backend, provider, where, error, numbers):
        for number in numbers:
            code = "http-200" if error is SmsOutcomeUnknown else str(number)
            assert refused(backend, provider, (where, number)) == (error, code)

    def test_the_same_text_is_not_repeated_within_a_minute(self, backend, provider):
        provider.refusal = ("message", 231)
        assert outcome(backend, message()).retry_in > 60

    def test_a_wrong_login(self, backend, provider):
        provider.login = {"api_id": "another"}
        assert isinstance(outcome(backend, message()), AuthenticationFailed)
        with pytest.raises(AuthenticationFailed):
            backend.get_balance()

    @pytest.mark.parametrize(
        ("word", "meaning"),
        [
            *[(code, "sent") for code in (100, 101, 102)],
            *[(code, "delivered") for code in (103, 110)],
            *[(code, "rejected") for code in (106, 107, 108, 150)],
            (104, "expired"),
            (105, "deleted"),
            (-1, ""),
        ],
    )
    def test_the_meaning_of_a_status(self, backend, provider, word, meaning):
        one, provider.word = message(), word
        one.gateway_id = "000000-10000000"
        assert backend.get_status(one) == Report(meaning, str(word))


class TestSmsAero:
    @pytest.fixture
    def provider(self):
        with SmsAero() as provider:
            yield provider

    @pytest.fixture
    def backend(self, provider, monkeypatch):
        return ready("https://gate.smsaero.ru", provider, monkeypatch)

    def test_it_is_accepted(self, backend, provider):
        receipt = backend.send_message(message("Привет"))
        assert receipt == Receipt("1", price=Decimal("2.49"), currency="RUB")
        (taking,) = provider.accepted
        assert (taking.number, taking.body, taking.sender) == (DIGITS, "Привет", "MyShop")
        assert backend.get_balance() == Decimal("337.03")

    @pytest.mark.parametrize(
        ("status", "body", "error"),
        [
            (200, {"success": False, "message": "x", "data": {"sign": ["x"]}}, InvalidRequest),
            (400, {"success": False, "message": "x", "data": None}, InvalidRequest),
            (200, {"success": False, "result": "no credits"}, InsufficientCredits),
            (402, {"success": False, "result": "no credits"}, InsufficientCredits),
            (200, {"success": True, "result": "reject"}, InvalidRequest),
            (401, {"success": False}, AuthenticationFailed),
            (200, {"success": True, "data": {}}, SmsOutcomeUnknown),
            (200, {"success": "no"}, SmsOutcomeUnknown),
            (500, {"success": False}, SmsOutcomeUnknown),
        ],
    )
    def test_its_refusals(self, backend, provider, status, body, error):
        assert refused(backend, provider, (status, body))[0] is error

    def test_a_wrong_login(self, backend, provider):
        provider.login = {"email": "another", "key": "another"}
        assert refused(backend, provider, None)[0] is AuthenticationFailed

    @pytest.mark.parametrize(
        ("word", "meaning"), [("queue", "sent"), ("delivery", "delivered"), ("failed", "")]
    )
    def test_the_meaning_of_a_status(self, backend, provider, word, meaning):
        one, provider.word = message(), word
        one.gateway_id = "1"
        assert backend.get_status(one) == Report(meaning, word)


class TestExolve:
    @pytest.fixture
    def provider(self):
        with Exolve() as provider:
            yield provider

    @pytest.fixture
    def backend(self, provider, monkeypatch):
        return ready("https://api.exolve.ru", provider, monkeypatch)

    @pytest.mark.parametrize("the_id", [439166556416706151, "439166556416706151"])
    def test_an_id_keeps_all_of_its_digits(self, backend, provider, the_id):
        provider.the_id = the_id
        assert backend.send_message(message("Привет")) == Receipt("439166556416706151")
        (taking,) = provider.accepted
        assert (taking.number, taking.body, taking.sender) == (DIGITS, "Привет", "79041234567")
        assert backend.get_balance() == Decimal("120.5")

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            (401, AuthenticationFailed),
            (400, InvalidRequest),
            (429, GatewayBusy),
            (402, SmsOutcomeUnknown),
            (404, SmsOutcomeUnknown),
            (500, SmsOutcomeUnknown),
        ],
    )
    def test_its_refusals(self, backend, provider, status, error):
        assert refused(backend, provider, status)[0] is error

    def test_a_wrong_login(self, backend, provider):
        provider.login = {"key": "another"}
        assert refused(backend, provider, None)[0] is AuthenticationFailed


class TestJasmin:
    @pytest.fixture
    def provider(self):
        with Jasmin() as provider:
            yield provider

    @pytest.fixture
    def backend(self, provider, monkeypatch, settings):
        settings.SMSKA_PUBLIC_URL = "https://shop.example"
        return ready('"dlr-url"', provider, monkeypatch)

    def test_it_is_accepted(self, backend, provider):
        one = message("Привет 🙂")
        assert backend.send_message(one) == Receipt("07033084-5cfd-4812-90a4-e4d24ffb6e3d")
        (taking,) = provider.accepted
        assert (taking.number, taking.body, taking.sender) == (DIGITS, "Привет 🙂", "MyShop")
        assert taking.callback == f"{backend.webhook_url('report')}?reference={one.reference}"

    @pytest.mark.parametrize(
        ("status", "words", "error"),
        [
            (403, "Authentication failure for username:x", AuthenticationFailed),
            (403, "Cannot charge submit_sm, check RouterPB log file", InsufficientCredits),
            (412, "No route found", InvalidRecipient),
            (400, "Mandatory argument [to] is not found.", InvalidRequest),
            (500, "Cannot send submit_sm", SmsOutcomeUnknown),
            (200, "anything", SmsOutcomeUnknown),
        ],
    )
    def test_its_refusals(self, backend, provider, status, words, error):
        assert refused(backend, provider, (status, words))[0] is error

    def test_a_wrong_login(self, backend, provider):
        provider.login = {"username": "another", "password": "another"}
        assert refused(backend, provider, None)[0] is AuthenticationFailed

    @pytest.mark.parametrize(
        ("word", "meaning"),
        [
            ("ESME_ROK", "sent"),
            ("DELIVRD", "delivered"),
            ("EXPIRED", "expired"),
            ("DELETED", "deleted"),
            ("UNDELIV", "rejected"),
            ("REJECTD", "rejected"),
            ("UNKNOWN", ""),
        ],
    )
    def test_its_reports_carry_our_reference(self, backend, word, meaning):
        fields = {"id": "07033084", "level": "2", "message_status": word}
        request = RequestFactory().post("/sms/default/key/report?reference=abc", fields)
        report = Report(meaning, word, gateway_id="07033084", reference="abc")
        assert backend.parse_reports(request) == [report]
        assert backend.webhook_answer == "ACK/Jasmin"
        assert backend.evidence == Evidence.REPORTED

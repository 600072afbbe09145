"""What strangers, phones and providers try: no page, memory or message suffers from it."""

import json
import resource
from decimal import Decimal

import pytest
from django.test import Client, RequestFactory
from django.urls import set_script_prefix
from django.utils import timezone

from django_smska.backends.http import SmsBackend as FromSettings
from django_smska.backends.infobip import SmsBackend as Infobip
from django_smska.exceptions import InvalidProvider
from django_smska.exchange import Answer
from django_smska.http_answers import Said, path
from django_smska.json_answers import json_object, number_of
from django_smska.models import SmsInbound, SmsMessage, SmsOptOut
from django_smska.redact import repeats
from django_smska.sms import queue_sms
from django_smska.webhook_urls import webhook_url

from .counterparts.twilio import SID, TOKEN, signature

# --- what is withheld -----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["&#" + "1" * 5000, "%26%23" + "2" * 5000 + ";"])
def test_an_id_that_html_cannot_read_is_compared_all_the_same(text):
    """``html.unescape()`` raises for a character reference of more digits than ``int()`` reads: an
    accepted message would become unknown."""
    assert not repeats(text, ["the secret"])
    assert repeats(f"{text} the%20secret", ["the secret"])


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number", ["1e40000000", "-1e-40000000", "0e40000000", "1e999999999999999999999999"]
)
def test_a_number_that_would_fill_the_memory_is_none(number):
    """Written out, ``1e40000000`` has 40 MB."""
    text = f'{{"price": {number}, "id": "x1"}}'
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert number_of(json_object(text)["price"]) is None
    said = Said.by(Answer(200, text.encode()))
    assert said.number_at(path("price")) is None and said.at(path("id")) == "x1"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # kB


@pytest.mark.parametrize("number", ["1.5e1", "15.0", "1500e-2"])
def test_a_number_of_any_usual_form_is_one(number):
    assert number_of(json_object(json.dumps({"n": 0}).replace("0", number))["n"]) == Decimal(15)


# --- webhooks -------------------------------------------------------------------------------------

RULES = {
    "secrets": {"key": "value-of-the-key"},
    "url": "https://acme.example/messages",
    "accepted": {"http": 200, "text": "OK"},
}
PUBLIC = "https://shop.example"
NUMBER = "+79041764995"
MESSAGE = {"From": NUMBER, "To": "+79990000001", "Body": "Hello", "MessageSid": "SM1"}


@pytest.fixture
def providers(settings):
    settings.SMSKA_PUBLIC_URL = PUBLIC
    settings.SMS_PROVIDERS = {
        "twilio": {
            "BACKEND": "django_smska.backends.twilio.SmsBackend",
            "OPTIONS": {"account_sid": SID, "auth_token": TOKEN},
        },
        "infobip": {
            "BACKEND": "django_smska.backends.infobip.SmsBackend",
            "OPTIONS": {"api_key": "key", "url": "https://xyz1ab.api.infobip.com"},
        },
        "acme": {
            "BACKEND": "django_smska.backends.http.SmsBackend",
            "OPTIONS": {
                **RULES,
                "form": {"to": "{to}", "text": "{text}", "own": "{reference}"},
                "statuses": {"delivered": "yes"},
                "reports": {"reference": "own", "status": "state"},
            },
        },
    }
    return settings


@pytest.mark.django_db
@pytest.mark.parametrize("public", [PUBLIC, f"{PUBLIC}/app"])
def test_what_twilio_signs_is_authentic_where_the_site_has_a_root(providers, public):
    """The path of a request begins with the root, which the setting may have, too."""
    providers.SMSKA_PUBLIC_URL = public
    try:
        set_script_prefix("/app/")
        address = webhook_url("twilio", "inbound")
        headers = {"X-Twilio-Signature": signature(address, MESSAGE)}
        path = address.removeprefix(f"{PUBLIC}/app")
        answer = Client().post(path, MESSAGE, SCRIPT_NAME="/app", headers=headers)
    finally:
        set_script_prefix("/")
    assert answer.status_code == 200
    assert SmsInbound.objects.get().body == "Hello"


@pytest.mark.django_db
def test_who_knows_the_address_for_reports_cannot_claim_a_stop(providers):
    """It goes along with each message, and so into logs of the provider's."""
    known = webhook_url("infobip", "report").removeprefix(PUBLIC)
    body = json.dumps({"results": [{"from": NUMBER, "text": "STOP", "messageId": "1"}]})
    forged = known.replace("/report/", "/inbound/")
    assert Client().post(forged, body, "application/json").status_code == 403
    assert Client().post(known, body, "application/json").status_code == 200
    assert not SmsInbound.objects.exists() and not SmsOptOut.objects.exists()


@pytest.mark.django_db
def test_a_length_of_thousands_of_digits_is_too_long(providers):
    path = webhook_url("infobip", "inbound").removeprefix(PUBLIC)
    answer = Client().post(path, b"{}", "application/json", CONTENT_LENGTH="9" * 5000)
    assert answer.status_code == 413


@pytest.mark.parametrize("one", [{}, {"messageId": "1", "status": {"groupId": 3}}])
def test_an_entry_without_a_sender_is_no_message_of_a_phone(providers, one):
    """64 KiB have room for twenty thousand empty entries, each of which would be a row."""
    backend = Infobip(alias="infobip", **providers.SMS_PROVIDERS["infobip"]["OPTIONS"])
    entry = {"from": "79041764995", "to": "1234", "text": "", "messageId": "2"}
    request = RequestFactory().post("/", {"results": [one, entry]}, "application/json")
    assert [found.gateway_id for found in backend.parse_inbound(request)] == ["2"]
    with pytest.raises(ValueError):
        backend.parse_inbound(RequestFactory().post("/", {"results": [one]}, "application/json"))


@pytest.mark.django_db
def test_a_word_that_is_not_understood_proves_nothing(providers):
    """It may be the provider's word for "refused"."""
    message = queue_sms(NUMBER, "text", using="acme")
    SmsMessage.objects.update(status="unknown", sending_at=timezone.now())
    path = webhook_url("acme", "report").removeprefix(PUBLIC)
    for state, status in (("blocked", "unknown"), ("yes", "delivered")):
        report = {"own": message.reference, "state": state}
        assert Client().post(path, report).status_code == 200
        message.refresh_from_db()
        assert message.status == status


@pytest.mark.django_db
@pytest.mark.parametrize("sender", ["+71234567890", "+" + "1" * 20, "+1", "+89041764995"])
def test_a_stop_from_what_is_no_number_loses_nothing(providers, sender):
    """Who sends it may have faked the sender."""
    every = [(sender, "STOP"), (NUMBER, "Hello")]
    results = [{"from": one, "text": text, "messageId": text} for one, text in every]
    path = webhook_url("infobip", "inbound").removeprefix(PUBLIC)
    answer = Client().post(path, json.dumps({"results": results}), "application/json")
    assert answer.status_code == 200
    assert [one.body for one in SmsInbound.objects.order_by("id")] == ["STOP", "Hello"]
    assert not SmsOptOut.objects.exists()


# --- a provider by settings -----------------------------------------------------------------------


def test_a_report_that_cannot_be_read_loses_no_other():
    backend = FromSettings(
        **RULES,
        form={"to": "{to}", "text": "{text}"},
        statuses={"delivered": "yes"},
        reports={"id": "id", "status": "state"},
    )
    body = [{"id": "a" * 65, "state": "yes"}, 5, {"id": "7"}, {"id": "8", "state": "yes"}]
    request = RequestFactory().post("/", body, "application/json")
    assert [one.gateway_id for one in backend.parse_reports(request)] == ["8"]


@pytest.mark.parametrize("text", ["to={to_digits}&text={text}", "{to};{sender};{text_url}"])
def test_a_text_without_escapes_stands_alone(text):
    """Who writes "hello&to=79040000000" would otherwise choose the number."""
    with pytest.raises(InvalidProvider, match="has no escapes"):
        FromSettings(**RULES, text=text)
    FromSettings(**RULES, text=text.replace("{text}", "{text_url}").replace("{sender}", "Shop"))
    FromSettings(**RULES, text="{text}", headers={"X-To": "{to}", "X-From": "{sender}"})

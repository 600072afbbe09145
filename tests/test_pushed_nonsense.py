"""Whatever is pushed to the webhook of a backend is read or refused, stored or dropped. Nothing of
it fails, on any database."""

import hashlib
import json
from urllib.parse import urlencode

import pytest
from django.test import Client, RequestFactory
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from django_smska.models import SmsInbound, SmsMessage
from django_smska.sms import queue_sms
from django_smska.webhook_urls import webhook_url

from .counterparts.twilio import SID, TOKEN, signature

pytestmark = pytest.mark.slow

PUBLIC = "https://shop.example"
REFERENCE, TWILIO_ID, PHONE = "R" * 22, "SM" + "0" * 32, "79041764995"

TEXTS = (
    *("STOP", "стоп\u202e!", "x" * 70, "ж" * 70, "😀" * 40, "\0", "a\0b", "ﷺ" * 300, "é" * 64),
    *("9" * 5000, "1e999999999", "NaN", "-0", "٣", "²", "&#" + "9" * 5000, "%00", "\r\nX: y"),
    *("tel:+79041764995", "+" * 40, "alpha", "", " ", "\\ud83d", "whatsapp:+79041764995"),
)
text = st.one_of(st.sampled_from(TEXTS), st.text(max_size=40))
number = st.one_of(
    st.sampled_from([10**4200, -(10**400), 2**63, 0, 1, 2, 3, 5, 1e300, float("nan"), True, None]),
    st.integers(),
)
value = st.one_of(text, number, st.just("\ud83d"), st.lists(text, max_size=2))
MISSING = object()


def fields(**usual):
    """Return what fills these fields: mostly the usual, else nonsense or nothing."""
    every = {
        name: st.one_of(*[st.sampled_from(most)] * 9, value, st.just(MISSING))
        for name, most in usual.items()
    }
    return st.fixed_dictionaries(every).map(
        lambda found: {name: one for name, one in found.items() if one is not MISSING}
    )


phone, our = [PHONE, f"+{PHONE}"], ["1234", "Shop"]
words = ["STOP", "Hello", "😀"]


def entries(one):
    return st.lists(one, max_size=4).map(lambda every: {"results": every})


ACME = fields(own=[REFERENCE], id=["x1"], state=["yes", "odd"], price=["1.5"], count=["2"])
REPORTS = {
    "kannel": fields(reference=[REFERENCE], type=["1", "8", "34", "66"], answer=["NACK/1"]),
    "twilio": fields(
        MessageSid=[TWILIO_ID], MessageStatus=["delivered", "failed"], ErrorCode=["30007"]
    ),
    "infobip": entries(
        fields(
            messageId=[REFERENCE],
            status=[{"groupId": 3, "id": 5}, {"groupId": 2}, {"groupId": 10**4200, "name": "\0"}],
            price=[{"pricePerMessage": 1e300, "currency": "EUR"}, {"pricePerMessage": "0.1"}],
            smsCount=[1, 10**9, -1],
        )
    ),
    "smsc": fields(id=[REFERENCE, "x1"], phone=phone, status=["1", "-1", "20"], err=["5"]),
    "acme": st.one_of(ACME, entries(ACME)),
}
MESSAGES = {
    "kannel": fields(
        **{"from": phone}, to=our, text=words, charset=["utf-8", "UTF-16BE", "utf-7", "zlib"]
    ),
    "twilio": fields(From=phone, To=our, Body=words, MessageSid=[TWILIO_ID]),
    "infobip": entries(fields(**{"from": phone}, to=our, text=words, messageId=["m1", "m2"])),
    "smsc": fields(id=["7"], phone=phone, mes=words, to=our),
}
#: What is read for certain, however an old or new hypothesis draws the rest.
SOUND = {
    ("kannel", "report"): {"reference": REFERENCE, "type": "1", "answer": ""},
    ("twilio", "report"): {"MessageSid": TWILIO_ID, "MessageStatus": "delivered"},
    ("infobip", "report"): {
        "results": [{"messageId": REFERENCE, "status": {"groupId": 3, "id": 5}}]
    },
    ("smsc", "report"): {"id": REFERENCE, "phone": PHONE, "status": "1", "err": "0"},
    ("acme", "report"): {"results": [{"own": REFERENCE, "id": "x1", "state": "yes"}]},
    ("kannel", "inbound"): {"from": PHONE, "to": "1234", "text": "Hello", "charset": "utf-8"},
    ("twilio", "inbound"): {"From": PHONE, "To": "1234", "Body": "Hello", "MessageSid": TWILIO_ID},
    ("infobip", "inbound"): {
        "results": [{"from": PHONE, "to": "1234", "text": "Hello", "messageId": "m1"}]
    },
    ("smsc", "inbound"): {"id": "7", "phone": PHONE, "mes": "Hello", "to": "1234"},
}
RAW = (b"", b"{", b"[" * 60_000, b'{"a":' * 10_000, b"a&" * 2000, b"\xff\xfe\0", b"--x\r\n\r\n")
TYPES = (
    *("application/json", "application/x-www-form-urlencoded", "text/plain; charset=utf-16"),
    *("multipart/form-data; boundary=x", "multipart/form-data", "text/plain; charset=punycode", ""),
)

backend = "django_smska.backends.{}.SmsBackend".format
PROVIDERS = {
    "kannel": {
        "BACKEND": backend("kannel"),
        "OPTIONS": {"username": "shop", "password": "secret", "url": "http://127.0.0.1:1/"},
    },
    "twilio": {
        "BACKEND": backend("twilio"),
        "OPTIONS": {"account_sid": SID, "auth_token": TOKEN},
    },
    "infobip": {
        "BACKEND": backend("infobip"),
        "OPTIONS": {"api_key": "key", "url": "https://xyz1ab.api.infobip.com"},
    },
    "smsc": {
        "BACKEND": backend("smsc"),
        "OPTIONS": {"login": "shop", "password": "secret", "secret": "signs"},
    },
    "acme": {
        "BACKEND": backend("http"),
        "OPTIONS": {
            "secrets": {"key": "value-of-the-key"},
            "url": "https://acme.example/",
            "form": {"to": "{to}", "text": "{text}", "own": "{reference}"},
            "accepted": {"http": 200},
            "statuses": {"delivered": "yes"},
            "reports": {
                **{"each": "results", "reference": "own", "id": "id", "status": "state"},
                **{"price": "price", "segments": "count"},
            },
        },
    },
}


def as_text(one):
    return (one if isinstance(one, str) else repr(one)[:100]).encode("utf-8", "replace").decode()


def push(alias, path, pushed, method, content_type):
    """Push it as this provider does; what is bytes comes as it is."""
    if isinstance(pushed, bytes):
        return Client().generic("POST", path, pushed, content_type)
    if alias == "infobip" or (alias == "acme" and "results" in pushed):
        return Client().post(path, json.dumps(pushed), "application/json")
    form = {name: as_text(one) for name, one in pushed.items()}
    if alias == "kannel":
        return Client().get(path, form)
    if alias == "smsc":
        names = ("phone", "mes", "to") if "mes" in form else ("id", "phone", "status")
        signed = ":".join([*(form.get(name, "") for name in names), "signs"])
        form["md5"] = hashlib.md5(signed.encode()).hexdigest()
    headers = {}
    if alias == "twilio":
        path = f"{path}?reference={REFERENCE}"
        full = RequestFactory().post(path).get_full_path()
        headers = {"X-Twilio-Signature": signature(f"{PUBLIC}{full}", form)}
    if alias == "acme" and method == "GET":
        return Client().get(path, form)
    encoded = urlencode(form)
    form_type = "application/x-www-form-urlencoded"
    return Client().post(path, encoded, form_type, headers=headers)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("alias", "kind"),
    [*((one, "report") for one in REPORTS), *((one, "inbound") for one in MESSAGES)],
)
def test_nothing_that_is_pushed_fails(alias, kind, settings, caplog):
    usual = (REPORTS if kind == "report" else MESSAGES)[alias]
    caplog.set_level("CRITICAL")
    settings.SMSKA_PUBLIC_URL, settings.SMS_PROVIDERS = PUBLIC, PROVIDERS
    message = queue_sms("+79041764996", "text", using=alias)
    path = webhook_url(alias, kind).removeprefix(PUBLIC)

    def answer_to(pushed, method="POST", content_type=""):
        SmsMessage.objects.filter(pk=message.pk).update(
            status="sent", reference=REFERENCE, gateway_id="x1", sent_at=timezone.now()
        )
        return push(alias, path, pushed, method, content_type).status_code

    @hypothesis_settings(
        max_examples=100,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        pushed=st.one_of(usual, usual, usual, st.sampled_from(RAW)),
        method=st.sampled_from(["GET", "POST"]),
        content_type=st.sampled_from(TYPES),
    )
    def run(pushed, method, content_type):
        expected = (200, 403) if isinstance(pushed, bytes) else (200,)
        assert answer_to(pushed, method, content_type) in expected

    run()
    SmsInbound.objects.all().delete()
    assert answer_to(SOUND[alias, kind]) == 200
    message.refresh_from_db()
    assert message.status == "delivered" if kind == "report" else SmsInbound.objects.exists()

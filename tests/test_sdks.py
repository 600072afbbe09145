"""The official Python clients of Twilio and Infobip, as peers of our stand-ins and backends.

They are the dependency group ``sdks``.
"""

from __future__ import annotations

import pytest
from django.test import RequestFactory

from django_smska.backends import infobip, twilio

from . import test_contract
from .counterparts import infobip as infobip_standin
from .counterparts import twilio as twilio_standin
from .packages import package

NUMBER, TEXT, SENDER = "+79041764987", "Ваш заказ: 3 + 4 = 7 & 100% 🎁", "+15005550006"
PUBLIC = "https://shop.example"


@pytest.fixture(autouse=True)
def public_address(settings):
    settings.SMSKA_PUBLIC_URL = PUBLIC


def message(**changes):
    return test_contract.message(**{"to": NUMBER, "body": TEXT, **changes})


# --- Twilio ---------------------------------------------------------------------------------------


@pytest.fixture
def counterpart():
    with twilio_standin.Twilio() as counterpart:
        yield counterpart


@pytest.fixture
def client(counterpart):
    """Return Twilio's client, whose requests go to the stand-in."""
    http_client, rest = package("twilio.http.http_client"), package("twilio.rest")

    class ToStandin(http_client.TwilioHttpClient):
        def request(self, method, url, *args, **kwargs):
            there = url.replace("https://api.twilio.com", counterpart.url)
            return super().request(method, there, *args, **kwargs)

    to_standin = ToStandin(timeout=10)
    to_standin.session.trust_env = False
    yield rest.Client(twilio_standin.SID, twilio_standin.TOKEN, http_client=to_standin)
    to_standin.session.close()


@pytest.fixture
def validator():
    return package("twilio.request_validator").RequestValidator


def our_twilio(counterpart, **changes):
    return twilio.SmsBackend(
        alias="default", **{"sender_id": SENDER, **counterpart.options(), **changes}
    )


def seen(request):
    """Return all of a request that has a meaning."""
    headers = ("authorization", "accept", "content-type")
    return {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "form": request.form,
        **{name: request.headers.get(name) for name in headers if request.body or name[0] == "a"},
    }


def test_twilios_client_is_understood_by_the_standin(counterpart, client):
    sent = client.messages.create(to=NUMBER, from_=SENDER, body=TEXT)
    (taking,) = counterpart.accepted
    assert (taking.id, taking.body, taking.sender) == (sent.sid, TEXT, SENDER)
    assert sent.status == "queued" and sent.num_segments == "1" and sent.price is None
    counterpart.set_status(taking, "delivered")
    fetched = client.messages(sent.sid).fetch()
    assert fetched.status == "delivered" and fetched.date_created.tzinfo
    listed = client.messages.list(to=NUMBER, from_=SENDER)
    assert [one.sid for one in listed] == [sent.sid]
    assert client.api.account.balance.fetch().balance == "12.345"


def test_twilios_client_reads_the_refusals_of_the_standin(counterpart, client):
    from twilio.base.exceptions import TwilioRestException

    for options in ({"from_": SENDER}, {"from_": SENDER, "body": ""}, {"body": TEXT}):
        with pytest.raises(TwilioRestException) as refused:
            client.messages.create(to=NUMBER, **options)
        assert refused.value.status == 400
        assert refused.value.code in twilio.REFUSALS
    assert counterpart.accepted == []


def test_our_requests_to_twilio_have_the_fields_of_its_client(counterpart, client):
    backend, one = our_twilio(counterpart), message()
    one.gateway_id = backend.send_message(one).gateway_id
    callback = counterpart.requests[0].form["StatusCallback"]
    client.messages.create(to=NUMBER, from_=SENDER, body=TEXT, status_callback=callback)
    backend.get_status(one)
    client.messages(one.gateway_id).fetch()
    backend.find(one)
    client.messages.page(to=NUMBER, from_=SENDER, page_size=twilio.PAGE_MESSAGES)
    backend.get_balance()
    client.api.account.balance.fetch()
    ours, theirs = counterpart.requests[::2], counterpart.requests[1::2]
    assert list(map(seen, ours)) == list(map(seen, theirs))
    assert [request.method for request in ours] == ["POST", "GET", "GET", "GET"]


def test_a_messaging_service_has_the_fields_of_twilios_client(counterpart, client):
    service = twilio_standin.SERVICE
    our_twilio(counterpart, messaging_service_sid=service).send_message(message(reference=""))
    callback = counterpart.requests[0].form["StatusCallback"]
    client.messages.create(
        to=NUMBER,
        from_=SENDER,
        body=TEXT,
        messaging_service_sid=service,
        status_callback=callback,
    )
    assert seen(counterpart.requests[0]) == seen(counterpart.requests[1])


URL = f"{PUBLIC}/sms/default/key/report/?reference=abc"
FORM = {
    "AccountSid": twilio_standin.SID,
    "Body": TEXT,
    "ErrorCode": "",
    "MessageSid": "SM" + "0b" * 16,
    "MessageStatus": "delivered",
    "To": NUMBER,
}
ALGORITHMS = {
    "HMAC_SHA1": "",
    "HMAC_SHA256": "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256",
}


def pushed(url, form, signed, settings):
    headers = {"X-Twilio-Signature": signed}
    if settings:
        headers["X-Twilio-Webhooks-Signature-Settings"] = settings
    there = url.removeprefix(PUBLIC)
    return RequestFactory().post(there, form, headers=headers)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("port", ["", ":443"])
def test_what_twilio_signs_is_authentic(validator, algorithm, port):
    key = "shared-key" if algorithm == "HMAC_SHA256" else twilio_standin.TOKEN
    backend = twilio.SmsBackend(
        account_sid=twilio_standin.SID, auth_token=twilio_standin.TOKEN, signing_key="shared-key"
    )
    if algorithm == "HMAC_SHA1":
        backend = twilio.SmsBackend(account_sid=twilio_standin.SID, auth_token=twilio_standin.TOKEN)
    signed_url = URL.replace(PUBLIC, PUBLIC + port)
    signed = validator(key).compute_signature(signed_url, FORM, algorithm)
    assert backend.authenticate(pushed(URL, FORM, signed, ALGORITHMS[algorithm]))


MUTATIONS = {
    "a field has another value": lambda url, form, signed: (
        url,
        {**form, "MessageStatus": "undelivered"},
        signed,
    ),
    "a field more": lambda url, form, signed: (url, {**form, "OptOutType": "STOP"}, signed),
    "a field less": lambda url, form, signed: (
        url,
        {name: value for name, value in form.items() if name != "Body"},
        signed,
    ),
    "a value moves into the next field": lambda url, form, signed: (
        url,
        {**form, "MessageStatus": "delivere", "To": f"d{form['To']}"},
        signed,
    ),
    "another reference": lambda url, form, signed: (url.replace("abc", "abd"), form, signed),
    "no reference": lambda url, form, signed: (url.partition("?")[0], form, signed),
    "another path": lambda url, form, signed: (url.replace("report", "inbound"), form, signed),
    "half of the signature": lambda url, form, signed: (url, form, signed[: len(signed) // 2]),
    "no signature": lambda url, form, signed: (url, form, ""),
    "one bit of the signature": lambda url, form, signed: (
        url,
        form,
        chr(ord(signed[0]) ^ 1) + signed[1:],
    ),
    "capitals": lambda url, form, signed: (url, form, signed.swapcase()),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("mutate", MUTATIONS.values(), ids=MUTATIONS)
def test_what_twilio_did_not_sign_is_refused(validator, algorithm, mutate):
    token = twilio_standin.TOKEN
    backend = twilio.SmsBackend(account_sid=twilio_standin.SID, auth_token=token)
    settings = ALGORITHMS[algorithm]
    signed = validator(token).compute_signature(URL, FORM, algorithm)
    assert backend.authenticate(pushed(URL, FORM, signed, settings))
    url, form, other = mutate(URL, FORM, signed)
    assert (url, form, other) != (URL, FORM, signed)
    assert not backend.authenticate(pushed(url, form, other, settings))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_counts_for_its_own_key_address_and_algorithm(validator, algorithm):
    token = twilio_standin.TOKEN
    backend = twilio.SmsBackend(account_sid=twilio_standin.SID, auth_token=token)
    settings = ALGORITHMS[algorithm]
    (another,) = set(ALGORITHMS.values()) - {settings}
    right = validator(token).compute_signature(URL, FORM, algorithm)
    other_key = validator("another-token").compute_signature(URL, FORM, algorithm)
    plain = URL.replace("https://", "http://")
    other_scheme = validator(token).compute_signature(plain, FORM, algorithm)
    other_host = URL.replace("shop.example", "testserver")
    other_site = validator(token).compute_signature(other_host, FORM, algorithm)
    for signed in (other_key, other_scheme, other_site):
        assert not backend.authenticate(pushed(URL, FORM, signed, settings))
    assert not backend.authenticate(pushed(URL, FORM, right, another))
    assert not backend.authenticate(pushed(URL, FORM, right, "algorithm=HMAC_SHA512"))


def test_the_standin_signs_as_twilio_does(validator, counterpart):
    """So the other tests need no client of Twilio."""
    backend = our_twilio(counterpart)
    backend.send_message(message())
    for request in (
        counterpart.report(counterpart.accepted[0], "delivered"),
        counterpart.inbound("79041764988", "5555", TEXT, "SM1"),
    ):
        url, signed = PUBLIC + request.get_full_path(), request.headers["X-Twilio-Signature"]
        assert validator(twilio_standin.TOKEN).validate(url, request.POST, signed)
        for other in counterpart.forged(request):
            url, signed = PUBLIC + other.get_full_path(), other.headers["X-Twilio-Signature"]
            assert not validator(twilio_standin.TOKEN).validate(url, other.POST, signed)


# --- Infobip --------------------------------------------------------------------------------------


@pytest.fixture
def infobip_counterpart():
    with infobip_standin.Infobip() as counterpart:
        yield counterpart


@pytest.fixture
def sdk():
    return package("infobip_api_client")


@pytest.fixture
def api(infobip_counterpart, sdk):
    """Return Infobip's client, whose requests go to the stand-in."""
    from infobip_api_client.api.sms_api import SmsApi

    config = sdk.Configuration(host=infobip_counterpart.url, api_key=infobip_standin.KEY)
    with sdk.ApiClient(config) as client:
        yield SmsApi(client)
        client.rest_client.pool_manager.clear()


def their_request(reference, **webhooks):
    """Return a message as Infobip's client writes it."""
    from infobip_api_client import models

    text = models.SmsTextContent(text=TEXT)
    return models.SmsRequest(
        messages=[
            models.SmsMessage(
                sender="Shop",
                destinations=[models.SmsDestination(to=NUMBER[1:], message_id=reference)],
                content=models.SmsMessageContent(text),
                webhooks=models.SmsWebhooks(callback_data=reference, **webhooks),
            )
        ],
        options=models.SmsMessageRequestOptions(include_sms_count_in_response=True),
    )


def our_infobip(counterpart):
    return infobip.SmsBackend(alias="default", sender_id="Shop", **counterpart.options())


@pytest.mark.slow
def test_infobips_client_is_understood_by_the_standin(infobip_counterpart, api):
    answer = api.send_sms_messages(their_request("reference1"))
    (taking,) = infobip_counterpart.accepted
    assert (taking.id, taking.number, taking.body) == ("reference1", NUMBER[1:], TEXT)
    (one,) = answer.messages
    assert (one.message_id, one.status.group_id, one.details.message_count) == ("reference1", 1, 1)
    infobip_counterpart.set_status(taking, "DELIVERED_TO_HANDSET")
    (entry,) = api.get_outbound_sms_message_logs(message_id=["reference1"]).results
    assert (entry.status.name, entry.destination) == ("DELIVERED_TO_HANDSET", NUMBER[1:])
    (again,) = api.send_sms_messages(their_request("reference1")).messages
    assert again.status.id == 23


def test_infobips_client_reads_the_refusals_of_the_standin(infobip_counterpart, api, sdk):
    api.api_client.configuration.api_key = {"APIKeyHeader": "another-key"}
    with pytest.raises(sdk.exceptions.UnauthorizedException):
        api.send_sms_messages(their_request("reference1"))
    assert infobip_counterpart.accepted == []


def test_our_requests_to_infobip_have_the_fields_of_its_client(infobip_counterpart, api):
    from infobip_api_client import models

    backend, one = our_infobip(infobip_counterpart), message()
    backend.send_message(one)
    url = infobip_counterpart.requests[0].json["messages"][0]["webhooks"]["delivery"]["url"]
    delivery = models.SmsMessageDeliveryReporting(url=url)
    api.send_sms_messages(
        their_request(one.reference, delivery=delivery, content_type="application/json")
    )
    ours, theirs = infobip_counterpart.requests
    assert ours.json == theirs.json
    assert (ours.method, ours.target) == (theirs.method, theirs.target)
    for name in ("authorization", "content-type"):
        assert ours.headers[name] == theirs.headers[name]
    backend.find(one)
    api.get_outbound_sms_message_logs(message_id=[one.reference])
    ours, theirs = infobip_counterpart.requests[2:]
    assert (ours.method, ours.path, ours.query) == (theirs.method, theirs.path, theirs.query)
    assert ours.headers["authorization"] == theirs.headers["authorization"]


def test_what_the_standin_of_infobip_pushes_is_what_its_client_reads(infobip_counterpart, sdk):
    backend = our_infobip(infobip_counterpart)
    one = message()
    backend.send_message(one)
    request = infobip_counterpart.report(infobip_counterpart.accepted[0], "DELIVERED_TO_HANDSET")
    (theirs,) = sdk.models.SmsDeliveryResult.from_json(request.body.decode()).results
    (ours,) = backend.parse_reports(request)
    assert (theirs.message_id, theirs.callback_data) == (ours.gateway_id, ours.reference)
    assert theirs.price.price_per_message == float(ours.price) and ours.currency == "EUR"
    assert f"{theirs.status.id}|{theirs.status.name}" == ours.raw
    request = infobip_counterpart.inbound("79041764988", "5555", TEXT, "in-7")
    (theirs,) = sdk.models.SmsInboundMessageResult.from_json(
        '{"messageCount": 1, "pendingMessageCount": 0, ' + request.body.decode()[1:]
    ).results
    (ours,) = backend.parse_inbound(request)
    assert (f"+{theirs.var_from}", theirs.to, theirs.text) == (ours.sender, ours.to, ours.body)
    assert theirs.message_id == ours.gateway_id

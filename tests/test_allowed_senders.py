"""The option ``senders``: the names that an account may send under."""

import html
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.utils.timezone import now

from django_smska import allowed_senders
from django_smska.conf import sms_url
from django_smska.exceptions import InvalidProvider
from django_smska.models import SmsMailing, SmsMessage
from django_smska.providers import providers
from django_smska.sms import outbox, queue_sms, send_code, send_mass_sms, send_sms

pytestmark = pytest.mark.django_db

NUMBER = "+79165550177"
LIST = "/admin/django_smska/smsmessage/"
CONSOLE = "django_smska.backends.console.SmsBackend"
LOGIN = {"api_key": "x", "api_password": "x"}


def smska(**options):
    return {"OPTIONS": {**LOGIN, **options}}


def console(*senders):
    return {"BACKEND": CONSOLE, "OPTIONS": {"senders": list(senders)} if senders else {}}


@pytest.fixture
def clinic(settings):
    settings.SMS_PROVIDERS = {"default": smska(sender_id="Clinic", senders=["Dentist", "Eyes"])}


# --- the option


@pytest.mark.parametrize(
    "senders, words",
    [
        ("Clinic", "must be a list of sender IDs"),
        ([], "must be a list"),
        ([7], "must be a list"),
        ([""], "must be a list"),
        (["two\nlines"], "must be a list"),
        ([" Clinic"], "must be a list"),
        (["x" * 33], "32 characters at most"),
        (["Eyes", "Dentist", "Eyes"], "names 'Eyes' twice"),
    ],
)
@pytest.mark.parametrize(
    "made", [smska, lambda senders: {"BACKEND": CONSOLE, "OPTIONS": {"senders": senders}}]
)
def test_a_wrong_list_is_refused(settings, made, senders, words):
    settings.SMS_PROVIDERS = {"default": made(senders=senders)}
    with pytest.raises(InvalidProvider, match=words):
        providers.configured("default")


def test_what_the_provider_never_carries_is_refused(settings):
    options = {"account_sid": f"AC{'0' * 32}", "auth_token": "x", "senders": ["Очень длинное имя"]}
    twilio = {"BACKEND": "django_smska.backends.twilio.SmsBackend", "OPTIONS": options}
    settings.SMS_PROVIDERS = {"default": twilio}
    with pytest.raises(InvalidProvider, match="does not carry"):
        providers.configured("default")


def test_a_url_has_it_with_commas():
    entry = sms_url("smskas://me:word@sms.example/?sender_id=Clinic&senders=Dentist,Eyes")
    assert entry["OPTIONS"]["senders"] == ["Dentist", "Eyes"]


def test_the_providers_own_is_always_allowed(clinic):
    assert allowed_senders.of("default") == ("Clinic", "Dentist", "Eyes")


def test_without_the_option_every_sender_is_allowed(settings):
    settings.SMS_PROVIDERS = {"default": smska(sender_id="Clinic")}
    assert allowed_senders.of("default") is None
    send_sms(NUMBER, "x", sender="Anything")


def test_a_failover_allows_what_all_lists_of_its_members_have(settings):
    settings.SMS_PROVIDERS = {
        "one": console("Eyes", "Clinic", "Dentist"),
        "two": console("Clinic", "Eyes"),
        "free": console(),
        "other": console("Night"),
        "default": failover("one", "two", "free"),
        "none": failover("one", "other"),
        "any": failover("free"),
        "own": failover("one", "two", senders=["Eyes"]),
    }
    found = {alias: allowed_senders.of(alias) for alias in ("default", "none", "any", "own")}
    assert found == {"default": ("Eyes", "Clinic"), "none": (), "any": None, "own": ("Eyes",)}
    with pytest.raises(ValidationError, match="no sender in common"):
        send_sms(NUMBER, "x", sender="Eyes", using="none")
    send_sms(NUMBER, "x", using="none")


def failover(*names, **options):
    backend = "django_smska.backends.failover.SmsBackend"
    return {"BACKEND": backend, "OPTIONS": {"providers": list(names), **options}}


# --- from code


@pytest.mark.parametrize(
    "send",
    [
        lambda **more: send_sms(NUMBER, "x", **more),
        lambda **more: queue_sms(NUMBER, "x", **more),
        lambda **more: send_code(NUMBER, "Code 8841", code="8841", **more),
    ],
)
def test_another_sender_is_refused_before_anything_is_stored(clinic, send):
    with pytest.raises(ValidationError) as caught:
        send(sender="Night")
    assert caught.value.message_dict == {
        "sender": ["The sender must be one of these: Clinic, Dentist, Eyes. Or leave it empty."]
    }
    assert not SmsMessage.objects.exists() and not outbox
    for sender in ("", "Clinic", "Eyes"):
        send(sender=sender)


def test_of_many_those_with_another_sender_are_skipped(clinic):
    rows = [SmsMessage(to=NUMBER, body="x", sender=one) for one in ("Eyes", "Night", "")]
    stored = send_mass_sms(rows)
    assert stored == 2 and [index for index, _error in stored.errors] == [1]


# --- in the admin


@pytest.fixture
def boss(client):
    client.force_login(User.objects.create_superuser("boss"))
    return client


def offered(form):
    return [value for value, _label in form.fields["sender"].widget.choices]


def filled(**changes):
    form = {"numbers": NUMBER, "body": "Hello", "sender": "", "using": "default", "nonce": "n1"}
    return form | changes


def test_the_page_for_writing_offers_them(boss, clinic):
    response = boss.get(f"{LIST}compose/")
    assert offered(response.context["form"]) == ["", "Clinic", "Dentist", "Eyes"]
    page = response.content.decode()
    assert (
        '<select name="sender"' in page and ">The provider&#x27;s sender: Clinic</option>" in page
    )
    boss.post(f"{LIST}compose/", filled(sender="Eyes", _send="1"))
    assert [message.sender for message in outbox] == ["Eyes"]


def test_without_a_list_it_is_a_field_for_any(boss):
    assert '<input type="text" name="sender"' in boss.get(f"{LIST}compose/").content.decode()


@pytest.mark.parametrize("button", ["_check", "_send", "_save"])
def test_the_page_refuses_another_one_with_the_names(boss, clinic, button):
    response = boss.post(f"{LIST}compose/", {**filled(sender="Night"), button: "1"})
    form = response.context["form"]
    assert "one of these: Clinic, Dentist, Eyes" in form.errors["sender"][0]
    assert form["sender"].value() == "Night" and "Night" in offered(form)
    assert not SmsMessage.objects.exists()


def test_with_several_providers_the_chosen_one_decides(boss, settings):
    settings.SMS_PROVIDERS = {
        "default": console("Eyes", "Clinic"),
        "two": console("Clinic", "Night"),
    }
    form = boss.get(f"{LIST}compose/").context["form"]
    assert offered(form) == ["", "Eyes", "Clinic", "Night"]
    for sender, using, good in (("Night", "default", False), ("Night", "two", True)):
        response = boss.post(f"{LIST}compose/", filled(sender=sender, using=using))
        assert ("sender" not in response.context["form"].errors) is good


def test_a_draft_is_edited_with_the_same_choice(boss, clinic):
    draft = SmsMessage(to=NUMBER, body="Hello", sender="Night")
    draft.save()
    url = f"{LIST}{draft.pk}/change/"
    form = boss.get(url).context["adminform"].form
    assert offered(form) == ["", "Clinic", "Dentist", "Eyes", "Night"]
    assert form["sender"].value() == "Night"
    data = {"to": NUMBER, "body": "Hello", "using": "default", "priority": "0"}
    data |= {"send_after_0": "2026-01-01", "send_after_1": "10:00"}
    response = boss.post(url, {**data, "sender": "Night"})
    assert "one of these" in response.context["adminform"].form.errors["sender"][0]
    boss.post(url, {**data, "sender": "Eyes"})
    draft.refresh_from_db()
    assert draft.sender == "Eyes"


# --- a sender that is listed no more


NONE_OF_THESE = "The sender “Night” is none of those that “default” may use."
ELSEWHERE = f"{NONE_OF_THESE} Choose “Copy to a new message” on its page, and another sender there."
IN_DRAFT = f"{NONE_OF_THESE} Choose another one on its page."


def stored(status, number=NUMBER, **more):
    message = SmsMessage(to=number, body="Hello", sender="Night", **more)
    message.save()
    end = message.send_after + timedelta(days=1)
    SmsMessage.objects.filter(pk=message.pk).update(status=status, expires_at=end)
    message.refresh_from_db()
    return message


def post(client, action, *messages):
    pks = {"pks": ",".join(str(one.pk) for one in messages)}
    response = client.post(f"{LIST}{action}/", pks, follow=True)
    return [str(one) for one in response.context["messages"]]


class TestASenderThatIsListedNoMore:
    @pytest.mark.parametrize("status", ["failed", "unknown", "expired", "delivered"])
    def test_a_message_is_not_sent_again(self, boss, clinic, status):
        message = stored(status)
        page = boss.get(f"{LIST}{message.pk}/change/")
        labels = [str(one["label"]) for one in page.context["actions"]]
        assert "Send again" not in labels and labels[0] == "Copy to a new message"
        assert status == "delivered" or ELSEWHERE in page.content.decode()
        assert ELSEWHERE in boss.get(f"{LIST}resend/?pks={message.pk}").content.decode()
        [words] = post(boss, "resend", message)
        assert words.startswith("Skipped: ") and ELSEWHERE in words
        assert SmsMessage.objects.count() == 1

    @pytest.mark.parametrize("many", [1, 7])
    def test_drafts_are_not_sent(self, boss, clinic, settings, many):
        """Neither at once nor by the queue."""
        settings.SMSKA_SEND_AT_ONCE = 5
        drafts = [stored("draft", f"+7916555000{digit}") for digit in range(many)]
        pks = ",".join(str(one.pk) for one in drafts)
        page = boss.get(f"{LIST}send/?pks={pks}").content.decode()
        assert IN_DRAFT in page and "Not sent:" in page and "Yes: " not in page
        words = post(boss, "send", *drafts)
        assert words[0].startswith("Skipped: ") and IN_DRAFT in words[0]
        assert set(SmsMessage.objects.values_list("status", flat=True)) == {"draft"}
        assert not outbox

    def test_a_draft_for_later_is_not_queued(self, boss, clinic):
        draft = stored("draft", send_after=now() + timedelta(hours=3))
        assert IN_DRAFT in post(boss, "send", draft)[0]
        draft.refresh_from_db()
        assert draft.status == "draft"

    def test_others_beside_it_are_sent(self, boss, clinic):
        good = stored("draft", "+79165550178")
        SmsMessage.objects.filter(pk=good.pk).update(sender="Eyes")
        assert len(post(boss, "send", stored("draft"), good)) == 2
        assert [message.sender for message in outbox] == ["Eyes"]

    @pytest.mark.parametrize(("action", "status"), [("resume", "draft"), ("resend", "failed")])
    def test_a_mailing_does_not_go_on(self, boss, clinic, action, status):
        mailing = SmsMailing.objects.create(name="Spring")
        message = stored(status, mailing=mailing)
        url = f"/admin/django_smska/smsmailing/{mailing.pk}/{action}/"
        asked = boss.get(url)
        page = html.unescape(asked.content.decode())
        advice = 'Ask your administrator to add it to OPTIONS["senders"].'
        assert f"{NONE_OF_THESE} {advice}" in page and "Yes: " not in page
        answer = boss.post(url, {"state": asked.context["state"]}, follow=True)
        assert NONE_OF_THESE in [str(one) for one in answer.context["messages"]][0]
        message.refresh_from_db()
        assert message.status == status and SmsMessage.objects.count() == 1

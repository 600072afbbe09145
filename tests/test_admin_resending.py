"""Sending again, and copying: what is said before, on every way, and what is not offered."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.utils import timezone
from django.utils.formats import date_format

from django_smska import sending
from django_smska.admin import permissions
from django_smska.admin.wording import FAILURES
from django_smska.models import ProviderState, SmsMessage, rows
from django_smska.times import local

pytestmark = pytest.mark.django_db

LIST = "/admin/django_smska/smsmessage/"
NUMBER, TEXT = "+79163334455", "Your parcel 77 is here"
HOPELESS = ["-2", "-6", "-7", "number", "text"]
TWICE = "may have arrived, because no clear answer came from the gateway"


@pytest.fixture
def boss(client):
    client.force_login(User.objects.create_superuser("boss"))
    return client


def make(status, code="", **values):
    now = timezone.now()
    day = now + timedelta(days=1)
    given = {"expires_at": day, "lease_until": day, "finished_at": now, "segments": 1}
    message = SmsMessage(to=NUMBER, body=TEXT, status=status, error_code=code, **(given | values))
    return SmsMessage.objects.bulk_create([message])[0]


def choose(client, *messages):
    data = {"action": "resend_selected", "_selected_action": [one.pk for one in messages]}
    return client.post(LIST, data)


def button(client, *messages):
    """Follow the button of a message's page, or an address with several keys."""
    return client.get(f"{LIST}resend/?pks={','.join(str(one.pk) for one in messages)}")


def press(client, *messages):
    pks = ",".join(str(one.pk) for one in messages)
    response = client.post(f"{LIST}resend/", {"pks": pks}, follow=True)
    return [str(one) for one in response.context["messages"]]


class TestItsStatusChangesAfterThePage:
    def shown(self, client, *messages):
        plan = button(client, *messages).context["plan"]
        return {"pks": plan.pks, "seen": plan.seen}

    def press(self, client, fields):
        response = client.post(f"{LIST}resend/", fields, follow=True)
        return [str(one) for one in response.context["messages"]]

    @pytest.mark.slow
    def test_one_that_is_reported_delivered_is_not_sent_again(self, boss):
        message = make("unknown")
        fields = self.shown(boss, message)
        rows([message.pk]).update(status="delivered")
        assert "Its status has changed since the page was shown." in self.press(boss, fields)[0]
        assert not rows().filter(resend_of=message).exists()
        assert any(
            one.startswith("Queued again") for one in self.press(boss, self.shown(boss, message))
        )

    def test_of_many_the_others_are_sent_again(self, boss):
        first, second, third = make("unknown"), make("failed", "connect"), make("unknown")
        fields = self.shown(boss, first, second, third)
        rows([first.pk]).update(status="delivered")
        said = self.press(boss, fields)
        assert any("Queued again: 2 messages (" in one for one in said)
        assert any("Not done: <a " in one and "has changed" in one for one in said)
        again = rows().exclude(resend_of=None).values_list("resend_of", flat=True)
        assert set(again) == {second.pk, third.pk}

    def test_the_page_carries_it(self, boss):
        message = make("unknown")
        page = button(boss, message).content.decode()
        assert f'name="seen" value="{message.pk}:unknown"' in page


def buttons(client, message):
    response = client.get(f"{LIST}{message.pk}/change/")
    return [str(one["label"]) for one in response.context["actions"]]


@pytest.mark.parametrize("way", [choose, button])
class TestBeforeItIsSentAgain:
    def test_an_unknown_one_may_arrive_twice(self, boss, way):
        page = way(boss, make("unknown")).content.decode()
        assert f"1 message {TWICE}. If it did, the recipient gets it twice, and you pay" in page

    def test_a_delivered_one_has_arrived_at_its_time(self, boss, way):
        at = timezone.now() - timedelta(hours=31)
        page = way(boss, make("delivered", finished_at=at)).content.decode()
        said = date_format(local(at), "SHORT_DATETIME_FORMAT")
        assert f"1 message has already been delivered ({said}). Its recipient gets it a se" in page

    def test_of_a_mixed_selection_each_is_said(self, boss, way):
        at = timezone.now() - timedelta(hours=50)
        chosen = [make("unknown") for _ in range(3)]
        chosen += [make("delivered", finished_at=at), make("delivered"), make("unconfirmed")]
        chosen += [make("failed", "connect"), make("rejected")]
        response = way(boss, *chosen)
        page = response.content.decode()
        assert f"3 messages {TWICE}." in page and "you pay twice" in page
        assert "2 messages have already been delivered." in page
        assert "1 message was accepted by the gateway, and may have arrived." in page
        assert page.count("(unknown whether it arrived") == 3
        assert f"(delivered {date_format(local(at), 'SHORT_DATETIME_FORMAT')})" in page
        assert response.context["plan"].number == 8

    def test_what_definitely_failed_is_no_cause_for_alarm(self, boss, way):
        response = way(boss, make("failed", "connect"), make("failed", "-5"))
        assert response.context["plan"].warnings == []
        assert response.context["plan"].number == 2

    def test_beyond_those_that_are_shown_they_are_counted(self, boss, way):
        response = way(boss, *(make("failed", "-3") for _ in range(12)), make("unknown"))
        assert f"1 message {TWICE}." in response.content.decode()

    @pytest.mark.parametrize("code", HOPELESS)
    def test_what_fails_again_is_left_out_with_the_reason(self, boss, way, code):
        good, bad = make("failed", "connect"), make("failed", code)
        response = way(boss, good, bad)
        assert response.context["plan"].pks == str(good.pk)
        assert f"1 message: {FAILURES[code].short}. It would fail again." in (
            response.content.decode()
        )

    def test_what_was_sent_again_before_is_left_out_with_the_reason(self, boss, way):
        message = make("failed", "connect")
        sending.resend(message)
        page = way(boss, message).content.decode()
        assert "1 message: It was sent again already." in page
        assert "There is nothing to do." in page and "Yes: " not in page

    def test_nothing_promises_a_worker_where_none_is_seen(self, boss, way):
        message = make("unknown")
        page = way(boss, message).content.decode()
        assert "No worker has been seen for “default”" in page and "worker sends it" not in page
        ProviderState.objects.create(alias="default", worker_seen_at=timezone.now())
        assert "and the worker sends it." in way(boss, message).content.decode()


@pytest.mark.parametrize("code", HOPELESS)
def test_what_fails_again_is_copied_and_not_sent_again(boss, code):
    message = make("failed", code)
    assert buttons(boss, message) == ["Copy to a new message"]
    [text] = press(boss, message)
    assert text.startswith("Skipped: <a ") and "It would fail again." in text
    assert SmsMessage.objects.count() == 1


@pytest.mark.parametrize("code", sorted(set(FAILURES) - set(HOPELESS)))
def test_what_may_work_is_sent_again(boss, code):
    assert buttons(boss, make("failed", code)) == ["Send again", "Copy to a new message"]


def test_a_code_that_failed_before_says_nothing_of_what_was_sent_since(boss):
    assert "Send again" in buttons(boss, make("delivered", "-6"))


def test_after_sending_again_it_is_said_that_no_worker_is_seen(boss):
    [first, second] = press(boss, make("unknown"))
    assert first.startswith("Queued again: <a ")
    assert second.startswith("Messages are waiting for “default”, but no worker is sending")
    ProviderState.objects.create(alias="default", worker_seen_at=timezone.now())
    assert len(press(boss, make("unknown"))) == 1


class TestCopy:
    @pytest.fixture
    def copy(self, boss):
        return lambda message: boss.get(f"{LIST}compose/?copy={message.pk}")

    def test_the_form_has_text_sender_provider_and_the_number_to_correct(self, copy, settings):
        settings.SMS_PROVIDERS = {"default": {}, "bulk": {}}
        response = copy(make("failed", "-6", sender="SHOP", using="bulk"))
        form = response.context["form"]
        names = ("numbers", "body", "sender", "using")
        assert [form[name].value() for name in names] == [NUMBER, TEXT, "SHOP", "bulk"]
        assert form["nonce"].value() and not form.is_bound
        assert list(response.context["messages"]) == []

    def test_the_button_leads_there_without_text_or_number_in_the_address(self, boss):
        message = make("failed", "number")
        [button] = boss.get(f"{LIST}{message.pk}/change/").context["actions"]
        assert button["url"] == f"{LIST}compose/?copy={message.pk}"
        assert boss.get(button["url"]).context["form"]["body"].value() == TEXT

    def test_it_stores_nothing_and_the_copy_is_a_message_of_its_own(self, boss, copy):
        message = make("failed", "-6", idempotency_key="order-7")
        form = copy(message).context["form"]
        assert SmsMessage.objects.count() == 1
        data = {name: form[name].value() for name in ("body", "sender", "using", "nonce")}
        boss.post(f"{LIST}compose/", {**data, "numbers": "8 916 333-44-56", "_send": "1"})
        new = rows().exclude(pk=message.pk).get()
        assert (new.to, new.body, new.resend_of) == ("+79163334456", TEXT, None)

    @pytest.mark.parametrize(
        ("status", "words"),
        [
            ("unknown", f"1 message {TWICE}"),
            ("delivered", "1 message has already been delivered"),
            ("unconfirmed", "may have arrived"),
            ("queued", "The first message is still sent"),
            ("sent", "The first message is still sent"),
        ],
    )
    def test_a_copy_of_what_arrives_says_so(self, copy, status, words):
        assert words in copy(make(status)).content.decode()

    def test_a_sensitive_text_is_never_copied(self, copy):
        response = copy(make("queued", sensitive=True, code="77"))
        assert (
            TEXT not in response.content.decode() and not response.context["form"]["body"].value()
        )
        assert "The text was not copied" in response.content.decode()

    def test_of_an_erased_message_neither_is_copied(self, copy):
        response = copy(make("failed", "-6", erased_at=timezone.now()))
        form = response.context["form"]
        assert not form["body"].value() and not form["numbers"].value()

    @pytest.mark.parametrize("key", ["", "x", "0", "999999", "7,8", "\0"])
    def test_what_is_not_there_is_reported(self, boss, key):
        response = boss.get(f"{LIST}compose/", {"copy": key})
        assert "The message to copy was not found." in response.content.decode()
        assert not response.context["form"]["numbers"].value()

    @pytest.mark.parametrize("text", [False, True])
    @pytest.mark.parametrize("number", [False, True])
    def test_it_shows_no_more_than_the_user_may_see(self, client, text, number):
        user = User.objects.create_user("nina", is_staff=True)
        names = ["view", "add", "send", *["see_text"] * text, *["see_number"] * number]
        codenames = [f"{name}_smsmessage" for name in names]
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        page = client.get(f"{LIST}compose/?copy={make('failed', '-6').pk}").content.decode()
        assert (TEXT in page) is text and ("The text was not copied" in page) is not text
        assert (NUMBER[2:] in page) is number
        assert ("The number was not copied" in page) is not number

    def test_who_may_not_view_that_message_gets_none_of_it(self, boss, monkeypatch):
        from django_smska.admin import SmsMessageAdmin

        message = make("failed", "-6")
        monkeypatch.setattr(
            SmsMessageAdmin, "has_view_permission", lambda self, request, obj=None: obj is None
        )
        page = boss.get(f"{LIST}compose/?copy={message.pk}").content.decode()
        assert TEXT not in page and NUMBER not in page and "was not found" in page

    def test_who_may_not_send_has_no_such_button(self, client):
        user = User.objects.create_user("nina", is_staff=True)
        wanted = ["view_smsmessage", "add_smsmessage", "see_text_smsmessage"]
        user.user_permissions.set(Permission.objects.filter(codename__in=wanted))
        client.force_login(user)
        message = make("failed", "-6")
        assert buttons(client, message) == []
        assert client.get(f"{LIST}compose/?copy={message.pk}").status_code == 403
        assert permissions.may_see_text(user)

"""The admin: its list, its search, its form, and the actions that its pages lead to."""

from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ValidationError
from django.db import connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.formats import date_format

import django_smska.admin.actions
import django_smska.admin.messages
from django_smska import sending
from django_smska.admin.forms import DraftForm, SmsMessageForm
from django_smska.models import ProviderState, SmsMessage, rows
from django_smska.signals import sms_sent
from django_smska.sms import outbox
from django_smska.states import Status
from django_smska.testing.gateway import Fault
from django_smska.times import local

pytestmark = pytest.mark.django_db

LIST = "/admin/django_smska/smsmessage/"


@pytest.fixture
def boss(client):
    client.user = User.objects.create_superuser("boss")
    client.force_login(client.user)
    return client


def make(status="draft", to="89041764995", body="The text", **fields):
    message = SmsMessage(to=to, body=body, **fields)
    message.save()
    changes = {"status": status}
    if status not in ("draft", "cancelled"):
        changes["expires_at"] = message.send_after + timedelta(days=1)
    rows([message.pk]).update(**changes)
    message.refresh_from_db()
    return message


def see_worker(alias="default"):
    seen = {"worker_seen_at": timezone.now()}
    ProviderState.objects.update_or_create(alias=alias, defaults=seen)


def form(button="_save", **changes):
    return {
        "to": "8 (904) 176-49-95",
        "body": "Hello",
        "sender": "",
        "using": "default",
        "priority": "0",
        "send_after_0": "2026-01-01",
        "send_after_1": "12:00",
        button: "1",
    } | changes


def post(client, action, *messages):
    """Press the button on an action's page; return what the next page shows."""
    pks = ",".join(str(message.pk) for message in messages)
    response = client.post(f"{LIST}{action}/", {"pks": pks}, follow=True)
    return shown(response)


def shown(response):
    return [str(message) for message in response.context["messages"]]


def choose(client, action, *messages, **more):
    keys = [message.pk for message in messages]
    data = {"action": f"{action}_selected", "_selected_action": keys, **more}
    return client.post(LIST, data)


def history(message):
    entries = LogEntry.objects.filter(object_id=str(message.pk)).order_by("pk")
    return [entry.change_message for entry in entries]


# --- the list


@pytest.mark.slow
def test_the_list_takes_as_many_queries_for_many_rows_as_for_one(boss):
    def queries():
        with CaptureQueriesContext(
            connection,
        ) as context:
            assert boss.get(LIST).status_code == 200
        return len(context)

    make(created_by=boss.user)
    one = queries()
    for _ in range(12):
        make(created_by=boss.user)
    assert queries() == one


def test_the_list_shows_the_start_of_the_text_and_escapes_it(boss):
    make(body="<b>bold</b>\n" + "long " * 30)
    page = boss.get(LIST).content.decode()
    assert "&lt;b&gt;bold&lt;/b&gt; long long" in page and "…" in page
    assert "long " * 12 not in page


def test_the_filter_by_provider_offers_the_aliases_of_the_settings(boss, settings):
    """It must not walk over the table to find them."""
    settings.SMS_PROVIDERS = {"default": {}, "bulk": {}}
    bulk = make(using="bulk")
    make()
    with CaptureQueriesContext(connection) as context:
        response = boss.get(LIST, {"using": "bulk"})
    assert list(response.context["cl"].result_list) == [bulk]
    assert not any("DISTINCT" in query["sql"] for query in context)


# --- the form


def test_a_draft_is_saved_with_the_number_in_order_and_by_whom(boss):
    response = boss.post(f"{LIST}add/", form(body="two\r\nlines"))
    message = SmsMessage.objects.get()
    assert response.status_code == 302
    assert (message.to, message.body, message.status) == ("+79041764995", "two\nlines", "draft")
    assert (message.created_by, message.segments) == (boss.user, 1)
    assert not outbox


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"to": "12"}, "to"),
        ({"to": ""}, "to"),
        ({"body": " "}, "body"),
        ({"body": "x" * 50_000}, "body"),
        ({"sender": "two\nlines"}, "sender"),
        ({"using": "unknown"}, "using"),
        ({"expires_at_0": "2025-01-01", "expires_at_1": "12:00"}, "expires_at"),
    ],
)
def test_what_is_wrong_is_said_once_at_its_field_and_nothing_is_stored(boss, changes, field):
    response = boss.post(f"{LIST}add/", form(**changes))
    errors = response.context["adminform"].form.errors
    assert list(errors) == [field] and len(errors[field]) == 1
    assert not SmsMessage.objects.exists()


def test_an_error_of_a_field_that_the_form_does_not_have_is_shown_above_it():
    filled = SmsMessageForm({})
    filled.full_clean()
    filled.add_error(None, ValidationError({"idempotency_key": ["It is wrong."]}))
    assert "It is wrong." in filled.non_field_errors()


def test_one_provider_is_no_choice(boss, settings):
    settings.SMS_PROVIDERS = {"only": {}}
    page = boss.get(f"{LIST}add/").content.decode()
    assert '<input type="hidden" name="using" value="only"' in page


class TestBracesInADraft:
    """They would be sent as they are, so the page for writing refuses them, too."""

    NAMED = "The text has {name} in it, which would be sent as it is written."
    NO_NAME = "“{% x %}” is no placeholder."

    @pytest.mark.parametrize(
        ("body", "words"), [("Dear {name}!", NAMED), ("Dear {% x %}!", NO_NAME)]
    )
    @pytest.mark.parametrize("button", ["_save", "_send"])
    def test_the_form_refuses_them(self, boss, body, words, button):
        draft = make()
        for url in (f"{LIST}add/", f"{LIST}{draft.pk}/change/"):
            response = boss.post(url, form(button, body=body))
            assert response.context["adminform"].form.errors["body"][0].startswith(words)
        assert not outbox and SmsMessage.objects.get().body == "The text"

    def test_the_page_of_a_stored_one_says_so(self, boss):
        def says_so(message):
            return self.NAMED in boss.get(f"{LIST}{message.pk}/change/").content.decode()

        assert says_so(make(body="Dear {name}!"))
        assert not says_so(make()) and not says_so(make("sent", body="Dear {name}!"))

    def test_who_may_not_see_the_text_does_not_see_them(self, client):
        user = User.objects.create_user("nina", is_staff=True)
        wanted = ["view_smsmessage", "send_smsmessage"]
        user.user_permissions.set(Permission.objects.filter(codename__in=wanted))
        client.force_login(user)
        page = client.get(f"{LIST}{make(body='Dear {name}!').pk}/change/").content.decode()
        assert "It is not sent until" in page and "name}" not in page


@pytest.mark.django_db(transaction=True)
def test_save_and_send_sends_before_the_next_page(boss, provider):
    response = boss.post(f"{LIST}add/", form("_send"), follow=True)
    message = SmsMessage.objects.get()
    assert message.status == Status.SENT and provider.times_accepted("79041764995", "Hello") == 1
    assert any(text.startswith("Sent: <a ") for text in shown(response))
    assert history(message)[1:] == ["Sent."]


@pytest.mark.django_db(transaction=True)
def test_save_and_send_shows_what_was_wrong_and_keeps_the_message(boss, provider):
    response = boss.post(f"{LIST}add/", form("_send", to="+491711234567"), follow=True)
    assert SmsMessage.objects.get().status == Status.FAILED
    assert any(text.startswith("Not sent: <a ") for text in shown(response))


@pytest.mark.django_db(transaction=True)
def test_save_and_send_of_an_edited_draft_sends_what_was_saved(boss, provider):
    message = make()
    boss.post(f"{LIST}{message.pk}/change/", form("_send", body="Better"))
    assert provider.times_accepted("79041764995", "Better") == 1 and provider.sends == 1


@pytest.mark.django_db(transaction=True)
def test_save_and_send_before_its_time_queues(boss, provider):
    later = f"{timezone.now() + timedelta(days=200):%Y-%m-%d}"
    response = boss.post(f"{LIST}add/", form("_send", send_after_0=later), follow=True)
    assert SmsMessage.objects.get().status == Status.QUEUED and provider.sends == 0
    assert any(text.startswith("Queued for sending: <a ") for text in shown(response))


def lost(response):
    """The page that shows what was not saved, as text."""
    assert response.status_code == 409 and not response.redirect_chain
    assert "Your changes were not saved" in response.context["title"]
    return response.content.decode()


@pytest.mark.parametrize("button", ["_save", "_send"])
def test_a_message_that_left_the_draft_in_the_meantime_is_not_edited(boss, button):
    """Neither by a form that was opened before, and the user is reported so."""
    message = make()
    sending.enqueue(rows([message.pk]))
    url = f"{LIST}{message.pk}/change/"
    response = boss.post(url, form(button, body="Other\n<b>", to="8 904 176-49-90"), follow=True)
    message.refresh_from_db()
    assert (message.body, message.status) == ("The text", "queued") and not outbox
    page = lost(response)
    assert "This message is no longer a draft. Your changes were not saved." in page
    assert "\nOther\n&lt;b&gt;</textarea>" in page and "Number: 8 904 176-49-90" in page
    assert "queued" in response.context["badge"] and f'href="{url}"' in page
    assert "Last action" not in page


@pytest.mark.django_db(transaction=True)
def test_a_message_that_leaves_the_draft_while_it_is_saved_is_not_edited(boss, monkeypatch):
    message = make()

    def clean_to(self):
        sending.enqueue(rows([message.pk]))
        rows([message.pk]).update(status="claimed", lease_until=timezone.now())
        return "+79041764990"

    monkeypatch.setattr(DraftForm, "clean_to", clean_to, raising=False)
    page = lost(boss.post(f"{LIST}{message.pk}/change/", form("_send", body="Mine"), follow=True))
    assert "no longer a draft" in page and "\nMine</textarea>" in page
    assert SmsMessage.objects.get().to == "+79041764995" and not outbox


@pytest.mark.parametrize("way", ["cancel", "delete"])
def test_who_was_faster_and_with_what_stands_beside_the_lost_text(boss, way):
    message, url = make(), ""
    olga = User.objects.create_superuser("olga")
    other = Client()
    other.force_login(olga)
    if way == "cancel":
        other.post(f"{LIST}cancel/", {"pks": message.pk})
    else:
        other.post(f"{LIST}{message.pk}/delete/", {"post": "yes"})
    entry = LogEntry.objects.order_by("pk").last()
    when = date_format(timezone.localtime(entry.action_time), "SHORT_DATETIME_FORMAT")
    url = f"{LIST}{message.pk}/change/"
    page = lost(boss.post(url, form("_save", body="Mine"), follow=True))
    assert f"Last action: olga, {when}: {'Cancelled' if way == 'cancel' else 'Deleted.'}" in page
    assert ("This message has been deleted." in page) is (way == "delete")
    assert (f'href="{url}"' in page) is (way == "cancel") and "\nMine</textarea>" in page


def test_a_lost_text_can_be_written_as_a_new_message(boss):
    message = make()
    sending.cancel(rows([message.pk]))
    response = boss.post(f"{LIST}{message.pk}/change/", form(body="Mine", to="89041764990"))
    carried = dict(response.context["carried"])
    page = response.content.decode()
    assert all(f'name="{name}" value="{value}"' in page for name, value in carried.items())
    new = boss.post(f"{LIST}compose/", carried | {"_back": "1"})
    assert new.context["form"]["body"].value() == "Mine" and not new.context["errors"]
    assert new.context["form"]["numbers"].value() == "89041764990"
    assert SmsMessage.objects.count() == 1


def test_without_the_permission_to_send_a_lost_text_can_be_copied_alone(client):
    user = User.objects.create_user("clerk", is_staff=True)
    needed = ["view", "change", "see_text", "see_number"]
    user.user_permissions.set(
        Permission.objects.filter(codename__in=[f"{name}_smsmessage" for name in needed])
    )
    client.force_login(user)
    message = make()
    sending.cancel(rows([message.pk]))
    page = lost(client.post(f"{LIST}{message.pk}/change/", form(body="Mine"), follow=True))
    assert "\nMine</textarea>" in page and "as a new message" not in page
    user.user_permissions.remove(Permission.objects.get(codename="change_smsmessage"))
    assert client.post(f"{LIST}{message.pk}/change/", form(body="Mine")).status_code == 403


@pytest.mark.slow
def test_the_page_of_a_queued_message_is_read_only_even_for_a_superuser(boss):
    for status in Status.values:
        if status in ("claimed", "sending"):
            continue
        page = boss.get(f"{LIST}{make(status).pk}/change/").content.decode()
        assert ("<textarea" in page) is (status == "draft")


@pytest.mark.parametrize(
    "status, labels",
    [
        # "Save and send" is below, and sends what one sees.
        ("draft", ["Cancel sending", "Copy to a new message"]),
        ("queued", ["Send", "Cancel sending", "Copy to a new message"]),
        ("sent", ["Refresh status", "Copy to a new message"]),
        ("delivered", ["Copy to a new message", "Send again"]),
        ("failed", ["Send again", "Copy to a new message"]),
        ("unknown", ["Mark as sent", "Send again", "Copy to a new message"]),
        ("cancelled", ["Copy to a new message"]),
    ],
)
def test_each_status_has_its_buttons(boss, status, labels):
    message = make(status)
    response = boss.get(f"{LIST}{message.pk}/change/")
    assert [str(action["label"]) for action in response.context["actions"]] == labels
    assert all(action["url"] in response.content.decode() for action in response.context["actions"])


def test_a_draft_that_one_may_not_edit_can_be_sent_as_it_is(client, django_user_model):
    user = django_user_model.objects.create_user("sender", is_staff=True)
    wanted = ["view_smsmessage", "send_smsmessage"]
    user.user_permissions.set(Permission.objects.filter(codename__in=wanted))
    client.force_login(user)
    response = client.get(f"{LIST}{make('draft').pk}/change/")
    assert [str(action["label"]) for action in response.context["actions"]] == ["Send"]


def test_who_may_not_decide_is_not_reported_to(client, django_user_model):
    user = django_user_model.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_smsmessage"))
    client.force_login(user)
    page = client.get(f"{LIST}{make('unknown').pk}/change/").content.decode()
    assert "A colleague with the permission" in page and "Then choose" not in page


def test_what_was_sent_again_is_reported_to_be_so(boss):
    message = make("unknown")
    sending.resend(message)
    page = boss.get(f"{LIST}{message.pk}/change/").content.decode()
    assert "It was sent again as a new message" in page and "It is not known whether" not in page


def test_the_page_of_an_unknown_message_says_what_is_to_be_decided(boss):
    page = boss.get(f"{LIST}{make('unknown').pk}/change/").content.decode()
    assert "It may or may not have accepted this message" in page


def test_what_the_gateway_said_is_shown_escaped_and_is_no_link(boss):
    message = make("failed")
    bad = "<script>x</script> javascript:alert(1) http://x.test/"
    rows([message.pk]).update(error_text=bad, gateway_id="javascript:1", gateway_status="<i>")
    page = boss.get(f"{LIST}{message.pk}/change/").content.decode()
    assert "<script>x" not in page and "<i>" not in page
    assert 'href="javascript' not in page and 'href="http://x.test' not in page


def test_a_draft_that_was_queued_in_the_meantime_is_not_deleted(boss, monkeypatch):
    message = make()

    def log_deletions(self, request, queryset):
        rows([message.pk]).update(status="queued", expires_at=timezone.now())

    monkeypatch.setattr(django_smska.admin.SmsMessageAdmin, "log_deletions", log_deletions)
    response = boss.post(f"{LIST}{message.pk}/delete/", {"post": "yes"}, follow=True)
    assert [text.partition(".")[0] for text in shown(response)] == ["This message was not deleted"]
    assert SmsMessage.objects.exists()


# --- the page before an action


def test_the_page_says_how_many_messages_and_segments_and_who_is_passed_over(boss):
    drafts = [make(), make(body="x" * 200)]
    done = [make("sent"), make("sent"), make("delivered")]
    response = choose(boss, "send", *drafts, *done)
    page = response.content.decode()
    assert "2 messages, 3 segments" in page and "Sending starts at once" in page
    assert "<li>sent: 2</li>" in page and "<li>delivered: 1</li>" in page
    assert response.context["plan"].pks == ",".join(str(draft.pk) for draft in drafts)
    assert SmsMessage.objects.filter(status="draft").count() == 2 and not outbox


@pytest.mark.parametrize(
    "name, number, question",
    [
        ("send", 1, "Send this message?"),
        ("send", 2, "Send these messages?"),
        ("cancel", 1, "Cancel sending this message? This cannot be undone."),
        ("cancel", 2, "Cancel sending these messages? This cannot be undone."),
    ],
)
def test_the_page_asks_about_one_message_or_several(boss, name, number, question):
    assert question in choose(boss, name, *(make() for _ in range(number))).content.decode()


def test_the_page_shows_balance_and_pause_of_each_provider(boss, settings):
    settings.SMS_PROVIDERS = {"default": {}, "bulk": {}}
    now = timezone.now()
    ProviderState.objects.create(alias="default", balance=1000, balance_at=now)
    ProviderState.objects.create(alias="bulk", reason="funds", paused_at=now)
    page = choose(boss, "send", make(), make(using="bulk")).content.decode()
    at = date_format(local(now), "SHORT_DATETIME_FORMAT")
    assert f"1000 (unit not known), as of {at}" in page
    assert "Paused since" in page and "The account has too few credits." in page
    one = choose(boss, "send", make(using="bulk")).content.decode()
    assert "Sending starts" not in one and "what cannot be sent now stays as it is" in one


def test_the_page_of_more_than_a_handful_says_that_they_are_queued(boss, settings):
    settings.SMSKA_SEND_AT_ONCE = 2
    page = choose(boss, "send", make(), make(), make()).content.decode()
    assert "More than 2 messages: they go into the queue." in page
    see_worker()
    page = choose(boss, "send", make(), make(), make()).content.decode()
    assert "More than 2 messages: the worker will send them" in page


def test_the_page_shows_of_messages_whose_time_has_not_come(boss):
    later = timezone.now() + timedelta(hours=1)
    page = choose(boss, "send", make(send_after=later), make()).content.decode()
    assert "1 of them has a later sending time" in page


def test_the_page_shows_what_one_agrees_to(boss):
    page = choose(boss, "send", make()).content.decode()
    assert "+7 904 176-49-95: “" in page


def test_it_warns_where_no_worker_has_been_seen(boss, settings):
    settings.SMSKA_SEND_AT_ONCE = 1
    words = "No worker has been seen"
    assert words in choose(boss, "send", make(), make()).content.decode()
    see_worker()
    assert words not in choose(boss, "send", make(), make()).content.decode()
    assert words not in choose(boss, "send", make()).content.decode()


def test_the_page_leads_back_to_the_list_as_it_was_filtered(boss):
    data = {"action": "send_selected", "_selected_action": make().pk}
    page = boss.post(f"{LIST}?status__exact=draft", data).content.decode()
    assert "_changelist_filters=status__exact%3Ddraft" in page


def test_a_page_with_nothing_to_do_has_no_button(boss):
    page = boss.get(f"{LIST}send/?pks={make('sent').pk},999999,x").content.decode()
    assert "There is nothing to do." in page and 'name="pks"' not in page


@pytest.mark.parametrize("pks", ["", "x", "999999", "9" * 30, "-1", "1;2", "²"])
def test_keys_that_are_none_do_nothing(boss, pks):
    assert boss.get(f"{LIST}send/", {"pks": pks}).status_code == 200
    response = boss.post(f"{LIST}send/", {"pks": pks})
    assert response.status_code == 302 and not outbox


def test_thousands_of_messages_fit_into_one_field(boss, settings):
    settings.DATA_UPLOAD_MAX_NUMBER_FIELDS = 6
    drafts = [make() for _ in range(8)]
    response = choose(boss, "send", drafts[0], select_across="1")
    boss.post(f"{LIST}send/", {"pks": response.context["plan"].pks})
    assert SmsMessage.objects.filter(status=Status.QUEUED).count() == 8


def test_more_than_fit_into_one_request_are_refused_with_words(boss, monkeypatch):
    monkeypatch.setattr(django_smska.admin.actions, "MAX_KEYS", 2)
    response = choose(boss, "send", make(), make(), make())
    assert response.status_code == 302
    assert shown(boss.get(LIST)) == ["Select at most 2 messages; a filter can help."]


def test_what_a_person_waits_for_one_by_one_is_bounded_by_less(boss, monkeypatch):
    monkeypatch.setattr(django_smska.admin.actions, "MAX_ONE_BY_ONE", 1)
    choose(boss, "resend", make(Status.UNKNOWN), make(Status.UNKNOWN))
    assert shown(boss.get(LIST)) == ["Select at most 1 messages; a filter can help."]


def test_several_unknown_ones_are_decided_at_once(boss):
    messages = [make(Status.UNKNOWN) for _ in range(3)]
    page = choose(boss, "resend", *messages)
    assert page.context["plan"].number == 3
    assert post(boss, "resend", *messages)[0].startswith("Queued again")
    assert SmsMessage.objects.filter(resend_of__in=messages).count() == 3


def test_post_needs_the_csrf_token(boss):
    boss.handler.enforce_csrf_checks = True
    message = make()
    for action in django_smska.admin.actions.ACTIONS:
        assert boss.post(f"{LIST}{action.name}/", {"pks": message.pk}).status_code == 403
    assert not outbox


@pytest.mark.parametrize(
    "path", ["smsmessage/", "smsmessage/held/", "smsoptout/", "smserasure/", "providerstate/stop/"]
)
def test_every_page_has_the_styles(boss, path):
    page = boss.get(f"/admin/django_smska/{path}").content.decode()
    assert page.count("django_smska/admin.css") == 1


def test_the_templates_have_no_script_and_no_style_of_their_own():
    """A site with a strict Content-Security-Policy can use them."""
    folder = Path(django_smska.__file__).parent / "templates"
    for template in folder.rglob("*.html"):
        text = template.read_text()
        assert "<script" not in text and "<style" not in text and "style=" not in text


# --- send


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_the_summary_counts_by_kind_of_outcome(boss, provider):
    provider.script(3, Fault("reset_after_request"), on="send")
    good, foreign, also, unsure = make(), make(to="+491711234567"), make(), make()
    texts = post(boss, "send", good, foreign, also, unsure)
    assert len(texts) == 3
    assert texts[0].startswith("Sent: 2 messages (")
    assert texts[1].startswith("Not sent: <a ") and "Russian mobile numbers" in texts[1]
    assert texts[2].startswith("Unknown whether it was sent: <a ")
    assert provider.sends == 3
    assert history(good) == ["Sent."]
    assert history(foreign)[0].startswith("Not sent: ")
    assert history(unsure)[0].startswith("Unknown whether it was sent: ")


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_after_an_error_of_the_provider_the_rest_is_queued_and_not_tried(boss, provider):
    """A gateway that hangs would keep the person waiting, and a wrong login would be locked."""
    provider.script_all(Fault("close_without_answer"), on="send")
    first, second, third = make(), make(), make()
    texts = post(boss, "send", first, second, third)
    assert provider.sends == 1
    assert texts[0].startswith("Unknown whether it was sent: <a ")
    assert texts[1].startswith("Queued for sending: 2 messages")
    assert SmsMessage.objects.filter(status=Status.QUEUED).count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_paused_provider_is_not_asked_and_the_page_says_until_when(boss, provider):
    at = timezone.localtime().replace(hour=14, minute=30, second=15) + timedelta(days=1)
    ProviderState.objects.create(alias="default", reason="hanging", paused_at=at, probe_at=at)
    message, other = make(), make()
    (text,) = post(boss, "send", message, other)
    assert (
        text.startswith("Not sent: 2 messages")
        and "The next attempt is possible at 14:30:15." in text
    )
    assert provider.requests == [] and history(message)[0].startswith("Not sent: ")
    assert set(SmsMessage.objects.values_list("status", flat=True)) == {Status.DRAFT}
    sending.enqueue(rows())
    (text,) = post(boss, "send", message, other)
    assert text.startswith("Not sent yet; it stays in the queue: 2 messages")
    assert "The next attempt is possible at 14:30:15." in text


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_pressing_twice_sends_once(boss, provider):
    message = make()
    post(boss, "send", message)
    assert post(boss, "send", message)[0].startswith("Skipped: <a ")
    assert provider.sends == 1 and history(message) == ["Sent."]


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_who_loses_a_race_is_reported_so_and_sees_no_error_page(boss, provider):
    """Another admin or worker claims the second message while the first one is being sent."""
    first, second = make(), make()

    def claim_second(sender, message, **kwargs):
        sending.enqueue(rows([second.pk]))
        assert sending.claim(rows([second.pk]), timezone.now())

    sms_sent.connect(claim_second)
    try:
        texts = post(boss, "send", first, second)
    finally:
        sms_sent.disconnect(claim_second)
    assert [text.split(":")[0] for text in texts] == ["Sent", "Skipped"]
    assert provider.sends == 1 and history(second) == []


def test_more_than_a_handful_is_queued_with_a_history_each(boss, settings):
    settings.SMSKA_SEND_AT_ONCE = 2
    drafts = [make(), make(), make()]
    texts = post(boss, "send", *drafts)
    assert texts[0].startswith("Queued for sending: 3 messages") and not outbox
    assert SmsMessage.objects.filter(status=Status.QUEUED).count() == 3
    assert all(history(draft)[0].startswith("Queued for sending") for draft in drafts)
    assert post(boss, "send", *drafts)[0].startswith("Skipped: 3 messages")
    assert LogEntry.objects.count() == 3


def test_queueing_takes_as_many_queries_for_many_as_for_few(boss, settings):
    settings.SMSKA_SEND_AT_ONCE = 1

    def queries(number):
        pks = ",".join(str(make().pk) for _ in range(number))
        with CaptureQueriesContext(connection) as context:
            boss.post(f"{LIST}send/", {"pks": pks})
        return len(context)

    queries(2)
    assert queries(30) == queries(3)


def test_a_draft_before_its_time_is_queued_and_a_queued_one_is_sent_now(boss):
    see_worker()
    later = timezone.now() + timedelta(hours=1)
    draft, queued = make(send_after=later), make("queued", send_after=later)
    texts = post(boss, "send", draft, queued)
    assert [text.split(":")[0] for text in texts] == ["Queued for sending", "Sent"]
    assert [message.pk for message in outbox] == [queued.pk]


def test_a_provider_that_is_not_configured_any_more_is_reported_and_no_error_page(boss):
    message = make(using="gone")
    assert post(boss, "send", message)[0].startswith("Not done: <a ")
    assert history(message)[0].startswith("Not done: ")


# --- the other actions


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_refresh_shows_what_the_gateway_said(boss, provider):
    message = make()
    message.send()
    assert post(boss, "refresh", message)[0].startswith("No final status yet: <a ")
    assert post(boss, "refresh", message)[0].startswith("Delivered: <a ")
    assert history(message) == ["Status queried: sent.", "Status queried: delivered."]


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_refresh_without_an_answer_is_reported_and_changes_nothing(boss, provider):
    message, other = make(), make()
    message.send()
    other.send()
    provider.script_all(Fault("close_without_answer"), on="query")
    texts = post(boss, "refresh", message, other)
    assert texts[0].startswith("Not done: <a ")
    assert texts[1].startswith("Queued for the worker: <a ")
    message.refresh_from_db()
    assert message.status == Status.SENT and provider.queries == 1


def test_refresh_of_many_is_left_to_the_worker(boss, settings):
    settings.SMSKA_SEND_AT_ONCE = 1
    later = timezone.now() + timedelta(hours=1)
    messages = [make("sent"), make("sent")]
    SmsMessage.objects.update(next_status_at=later, gateway_id="g")
    assert post(boss, "refresh", *messages)[0].startswith("Queued for the worker: 2 messages")
    assert not SmsMessage.objects.filter(next_status_at=later).exists()


def test_it_was_sent_is_a_persons_word(boss):
    message = make("unknown")
    assert post(boss, "confirm_sent", message)[0].startswith("Marked as sent")
    message.refresh_from_db()
    assert message.status == Status.SENT and not outbox
    assert history(message) == ["Marked as sent."]


def test_send_again_makes_a_new_message_once(boss):
    message = make("unknown")
    assert post(boss, "resend", message)[0].startswith("Queued again: <a ")
    again = SmsMessage.objects.get(resend_of=message)
    assert (again.status, again.created_by) == (Status.QUEUED, boss.user)
    assert history(message) == [f"Sent again as message {again.pk}."]
    assert history(again) == [f"Created to send message {message.pk} again."]
    assert post(boss, "resend", message)[0].startswith("Skipped")
    assert SmsMessage.objects.count() == 2


def test_what_a_late_answer_accepted_is_only_offered_to_be_marked_as_sent(boss):
    message = make("unknown")
    rows([message.pk]).update(gateway_id="late-1", error_text="A late answer: it was accepted.")
    response = boss.get(f"{LIST}{message.pk}/change/")
    labels = [str(action["label"]) for action in response.context["actions"]]
    assert labels == ["Mark as sent", "Copy to a new message"]
    assert "A late answer says that the gateway accepted it." in response.content.decode()
    [text] = post(boss, "resend", message)
    assert text.startswith("Not done: <a ") and "Choose “Mark as sent”." in text
    assert SmsMessage.objects.count() == 1


def test_the_two_pages_of_a_message_that_was_sent_again_link_to_each_other(boss):
    message = make("unknown")
    again = sending.resend(message)
    old = boss.get(f"{LIST}{message.pk}/change/")
    assert f'href="{LIST}{again.pk}/change/"' in old.content.decode()
    assert "Send again" not in [str(action["label"]) for action in old.context["actions"]]
    new = boss.get(f"{LIST}{again.pk}/change/").content.decode()
    assert f'href="{LIST}{message.pk}/change/"' in new


@pytest.mark.parametrize("most", [1, 5])
def test_cancel_takes_drafts_and_queued_messages_out(boss, settings, most):
    settings.SMSKA_SEND_AT_ONCE = most
    messages = [make(), make("queued"), make("sent")]
    texts = post(boss, "cancel", *messages)
    assert len(texts) == 2
    assert texts[0].startswith("Cancelled: 2 messages (")
    assert texts[1].startswith("Skipped: <a ")
    statuses = SmsMessage.objects.order_by("pk").values_list("status", flat=True)
    assert list(statuses) == ["cancelled", "cancelled", "sent"]
    assert [history(message) for message in messages] == [["Cancelled."], ["Cancelled."], []]


def test_what_a_worker_held_at_that_moment_is_not_called_cancelled(boss):
    """Also if the worker gives it back before its status is looked at."""
    message = make("queued")
    cancel = django_smska.admin.actions.CANCEL

    def claimed_for_a_moment(messages):
        rows([message.pk]).update(status="claimed", lease_until=timezone.now())
        moved = sending.cancel(messages)
        rows([message.pk]).update(status="queued")
        return moved

    object.__setattr__(cancel, "hand_over", claimed_for_a_moment)
    try:
        assert post(boss, "cancel", message)[0].startswith("Skipped: <a ")
    finally:
        object.__setattr__(cancel, "hand_over", sending.cancel)
    assert not history(message)


@pytest.mark.slow
@pytest.mark.parametrize(
    "action, status",
    [
        pytest.param(action, status, id=f"{action.name}-{status}")
        for action in django_smska.admin.actions.ACTIONS
        for status in Status.values
        if status not in action.statuses
    ],
)
def test_an_action_leaves_every_other_status_alone(boss, action, status):
    message = make()
    rows([message.pk]).update(status=status, lease_until=timezone.now(), expires_at=timezone.now())
    before = list(SmsMessage.objects.values())
    post(boss, action.name, message)
    assert list(SmsMessage.objects.values()) == before and not outbox
    assert not LogEntry.objects.exists()


@pytest.mark.slow
def test_no_history_holds_a_text_or_a_whole_number(boss):
    boss.post(f"{LIST}add/", form(body="Secret code"))
    message = SmsMessage.objects.get()
    boss.post(f"{LIST}{message.pk}/change/", form(body="Secret code 2"))
    post(boss, "send", message)
    post(boss, "refresh", message)
    post(boss, "resend", message)
    entries = LogEntry.objects.all()
    assert len(entries) == 6
    for entry in entries:
        words = f"{entry.object_repr} {entry.get_change_message()}"
        assert "Secret" not in words and "79041764995" not in words


# --- transactions


@pytest.fixture
def atomic_requests(monkeypatch):
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)


@pytest.mark.django_db(transaction=True)
def test_with_atomic_requests_the_network_is_waited_for_outside_of_a_transaction(
    boss, provider, atomic_requests
):
    """The outcome is known when the page is answered: it was not put off to the commit."""
    assert post(boss, "send", make())[0].startswith("Sent: <a ")


@pytest.mark.django_db(transaction=True)
def test_with_atomic_requests_save_and_send_shows_the_outcome_too(boss, provider, atomic_requests):
    response = boss.post(f"{LIST}add/", form("_send"), follow=True)
    assert any(text.startswith("Sent: <a ") for text in shown(response))
    assert SmsMessage.objects.get().status == Status.SENT


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_with_atomic_requests_a_refresh_is_asked_outside_of_a_transaction(
    boss, provider, atomic_requests
):
    message = make()
    message.send()
    assert post(boss, "refresh", message)[0].startswith("No final status yet")

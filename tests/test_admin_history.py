"""Who is late with an action learns who was earlier, as far as the admin's log knows."""

from datetime import timedelta

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Permission, User
from django.utils import timezone
from django.utils.formats import date_format

from django_smska import sending
from django_smska.admin import SmsMessageAdmin, history
from django_smska.models import SmsMessage, rows
from django_smska.times import local

pytestmark = pytest.mark.django_db

LIST = "/admin/django_smska/smsmessage/"
NUMBER, TEXT = "+79165556677", "Your table is booked"


@pytest.fixture
def olga(client):
    return User.objects.create_superuser("olga")


@pytest.fixture
def pavel(client):
    client.force_login(User.objects.create_superuser("pavel"))
    return client


def make(status="cancelled"):
    message = SmsMessage(to=NUMBER, body=TEXT)
    message.save()
    rows([message.pk]).update(status=status, expires_at=message.created_at + timedelta(days=1))
    message.refresh_from_db()
    return message


def note(user, message, words, minutes=0):
    """Write what an action writes, and return its time as pages show it."""
    [entry] = LogEntry.objects.log_actions(user.pk, [message], CHANGE, words) or [None]
    entry = entry or LogEntry.objects.latest("pk")
    at = timezone.now() - timedelta(minutes=minutes)
    LogEntry.objects.filter(pk=entry.pk).update(action_time=at)
    return date_format(local(at), "SHORT_DATETIME_FORMAT")


def press(client, action, *messages):
    pks = ",".join(str(one.pk) for one in messages)
    response = client.post(f"{LIST}{action}/", {"pks": pks}, follow=True)
    return [str(one) for one in response.context["messages"]]


def test_who_presses_second_learns_who_was_first_and_when(olga, pavel):
    message = make()
    at = note(olga, message, "Cancelled.", minutes=44)
    [text] = press(pavel, "cancel", message)
    assert text.startswith("Skipped: <a ")
    assert text.endswith(f"Last action: Cancelled. (olga, {at})")
    assert LogEntry.objects.count() == 1


def test_the_page_before_it_says_so_too(olga, pavel):
    message = make()
    at = note(olga, message, "Cancelled.", minutes=80)
    for answer in (
        pavel.get(f"{LIST}cancel/?pks={message.pk}"),
        pavel.post(LIST, {"action": "cancel_selected", "_selected_action": message.pk}),
    ):
        assert f"Last action: Cancelled. (olga, {at})" in answer.content.decode()


def test_of_several_each_person_and_action_is_one_line(olga, pavel):
    vera = User.objects.create_user("vera")
    messages = [make() for _ in range(4)]
    note(olga, messages[0], "Cancelled.", minutes=9)
    last = note(olga, messages[1], "Cancelled.", minutes=3)
    note(vera, messages[2], "Sent.", minutes=5)
    texts = press(pavel, "cancel", *messages)
    assert len(texts) == 3
    assert "2 messages" in texts[0] and texts[0].endswith(f"Cancelled. (olga, {last})")
    assert "SMS to" in texts[1] and "Sent. (vera, " in texts[1]
    assert "SMS to" in texts[2] and "Last action" not in texts[2]  # by a program, perhaps


def test_the_last_action_counts_and_an_edit_is_none(olga, pavel):
    message = make("draft")
    note(olga, message, "Sent again as message 5.", minutes=30)
    note(User.objects.create_user("vera"), message, "Cancelled.", minutes=20)
    note(olga, message, '[{"changed": {"fields": ["Text"]}}]', minutes=10)
    rows([message.pk]).update(status="cancelled")
    [text] = press(pavel, "cancel", message)
    assert text.startswith("Skipped: ") and "Cancelled. (vera, " in text


def test_sending_again_twice_names_the_first(olga, pavel):
    message = make("unknown")
    again = sending.resend(message, created_by=olga)
    note(olga, message, f"Sent again as message {again.pk}.")
    [text] = press(pavel, "resend", message)
    assert text.startswith("Skipped: ") and f"Sent again as message {again.pk}." in text


def test_what_a_history_repeats_is_hidden_from_those_who_may_not_see_it(olga, client):
    user = User.objects.create_user("nina", is_staff=True)
    wanted = ["view_smsmessage", "change_smsmessage"]
    user.user_permissions.set(Permission.objects.filter(codename__in=wanted))
    client.force_login(user)
    message = make()
    note(olga, message, f"Not sent: The gateway said: {NUMBER}: no")
    [text] = press(client, "cancel", message)
    assert "olga" in text and "5556677" not in text
    note(olga, message, f"Not sent: The gateway said: {TEXT}")
    [text] = press(client, "cancel", message)
    assert "olga" in text and TEXT not in text


def test_of_messages_that_the_user_may_not_see_nothing_is_said(olga, pavel, monkeypatch):
    message = make()
    note(olga, message, "Cancelled.")
    none = SmsMessage.objects.none()
    monkeypatch.setattr(SmsMessageAdmin, "get_queryset", lambda self, request: none)
    monkeypatch.setattr("django_smska.conf.send_at_once", lambda: 0)
    assert not any("olga" in text for text in press(pavel, "cancel", message))


def test_a_log_that_cannot_be_read_hides_no_outcome(olga, pavel, monkeypatch, caplog):
    message = make()
    note(olga, message, "Cancelled.")
    monkeypatch.setattr(history, "ContentType", None)
    [text] = press(pavel, "cancel", message)
    assert text.startswith("Skipped: <a ") and "olga" not in text
    assert "cannot be read: AttributeError" in caplog.text and NUMBER not in caplog.text

"""What one bad message among many leaves of the others: all of it."""

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import DataError, IntegrityError, OperationalError, connection, transaction
from django.utils.timezone import now

from django_smska import sending
from django_smska.admin import SmsMessageAdmin, actions
from django_smska.exceptions import SmsError, SmsNotSent
from django_smska.models import ProviderState, SmsMessage, rows
from django_smska.numbers import mask
from django_smska.signals import sms_sent
from django_smska.sms import outbox
from django_smska.states import Status

pytestmark = pytest.mark.slow

LIST = "/admin/django_smska/smsmessage/"
NUMBERS = [f"+7904176499{digit}" for digit in range(4)]
BAD = NUMBERS[2]
TEXT = "The text"


class Foreign(SmsError):
    """As a third party may write it: its text holds the number, or it has none."""

    def __init__(self, *args):
        Exception.__init__(self, *args)
        self.alias, self.code, self.gateway_text, self.sms = None, "", "", None


ERRORS = [
    *(RuntimeError(f"{BAD} {TEXT}"), ValueError(), KeyError(BAD), AssertionError(), TypeError()),
    *(DataError(BAD), IntegrityError(BAD), OperationalError("gone"), ValidationError({"to": "x"})),
    *(SmsNotSent(f"No {BAD}: {TEXT}"), Foreign(), Foreign(f"{BAD}"), SmsMessage.DoesNotExist()),
    transaction.TransactionManagementError(),
]


ALONE = pytest.param("alone", marks=pytest.mark.django_db(transaction=True))
TOGETHER = pytest.param("in a transaction", marks=pytest.mark.django_db)


@pytest.fixture(params=[ALONE, TOGETHER])
def boss(client):
    """With a transaction around all that a page does, as in a TestCase, and without one."""
    client.force_login(User.objects.create_superuser("boss"))
    ProviderState.objects.create(alias="default", worker_seen_at=now())
    return client


def make(status):
    messages = [SmsMessage(to=number, body=TEXT) for number in NUMBERS]
    for message in messages:
        message.save()
    keys = [message.pk for message in messages]
    rows(keys).update(
        status=status, expires_at=now() + timedelta(days=1), gateway_id="g", sent_at=now()
    )
    return keys


def post(client, action, keys):
    response = client.post(f"{LIST}{action}/", {"pks": ",".join(map(str, keys))}, follow=True)
    assert response.status_code == 200
    return [str(message) for message in response.context["messages"]]


def fail_for_one(function, error):
    def failing(message, *args, **kwargs):
        to = getattr(message, "to", None) or message.values_list("to", flat=True).first()
        if to == BAD:
            raise error
        return function(message, *args, **kwargs)

    return failing


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    ("action", "status", "broken", "after"),
    [
        ("send", "draft", "django_smska.sending.send", "sent"),
        ("refresh", "sent", "django_smska.models.SmsMessage.refresh_status", "delivered"),
        ("resend", "failed", "django_smska.sending.resend", "failed"),
        ("confirm_sent", "unknown", "django_smska.sending.confirm_sent", "sent"),
    ],
)
def test_the_others_are_done_and_each_has_its_word(
    boss, monkeypatch, caplog, action, status, broken, after, error
):
    place, name = broken.rpartition(".")[::2]
    owner = {"refresh_status": SmsMessage}.get(name, sending)
    monkeypatch.setattr(owner, name, fail_for_one(getattr(owner, name), error))
    keys = make(status)
    words = post(boss, action, keys)
    [bad] = [line for line in words if f"/{keys[2]}/change/" in line]
    assert f">SMS to {mask(BAD)}</a>" in bad
    assert len(words) == 2 and ": 3 messages (" in words[0]
    others = rows(key for key in keys if key != keys[2])
    assert set(others.values_list("status", flat=True)) == {after}
    if action == "resend":
        assert rows().filter(resend_of__in=others).count() == 3
    if action == "send":
        assert [message.to for message in outbox] == [one for one in NUMBERS if one != BAD]
    noted = {entry.object_id for entry in LogEntry.objects.all()}
    assert {str(key) for key in keys if key != keys[2]} <= noted
    shown = "".join(words) + caplog.text + "".join(str(one) for one in LogEntry.objects.values())
    assert TEXT not in shown and BAD[1:] not in shown


@pytest.mark.parametrize("error", [RuntimeError(BAD), DataError(BAD)])
@pytest.mark.parametrize(
    ("action", "status", "name", "after"),
    [("send", "draft", "enqueue", "queued"), ("cancel", "queued", "cancel", "cancelled")],
)
def test_among_those_that_are_handed_over_together_too(
    boss, monkeypatch, settings, action, status, name, after, error
):
    settings.SMSKA_SEND_AT_ONCE = 1
    function = getattr(sending, name)

    def failing(messages):
        if messages.filter(to=BAD).exists():
            raise error
        return function(messages)

    mended = next(one for one in actions.ACTIONS if one.name == action)
    object.__setattr__(mended, "hand_over", failing)
    try:
        keys = make(status)
        words = post(boss, action, keys)
    finally:
        object.__setattr__(mended, "hand_over", function)
    assert (
        len(words) == 2 and " 3 messages (" in words[0] and f">SMS to {mask(BAD)}</a>" in words[1]
    )
    assert words[1].startswith("Not finished")
    statuses = dict(rows().values_list("pk", "status"))
    assert [statuses[key] for key in keys] == [after, after, status, after]


def test_a_real_error_of_the_database_breaks_no_transaction(boss, monkeypatch):
    send = sending.send

    def failing(message, *args, **options):
        if message.to == BAD:
            with connection.cursor() as cursor:
                cursor.execute("SELECT * FROM no_such_table")
        send(message, *args, **options)

    monkeypatch.setattr(sending, "send", failing)
    words = post(boss, "send", make("draft"))
    assert words[0].startswith("Sent: 3 messages") and words[1].startswith("Not finished: <a ")
    assert len(outbox) == 3


def test_a_history_that_cannot_be_written_undoes_nothing(boss, monkeypatch, caplog):
    def log_actions(*args, **kwargs):
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM no_such_table")

    monkeypatch.setattr(type(LogEntry.objects), "log_actions", log_actions)
    for action, status, first in (
        ("send", "draft", "Sent"),
        ("resend", "failed", "Queued again"),
        ("cancel", "queued", "Cancelled"),
    ):
        keys = make(status)
        words = post(boss, action, keys)
        assert all(line.startswith(f"{first}: ") for line in words)
    assert rows().filter(status="sent").count() == 4 and "no history entry" in caplog.text


def test_what_was_sent_before_the_database_went_away_has_its_word(boss, monkeypatch):
    """The permission is asked between two messages; here a project's own way to do so fails."""
    keys = make("draft")
    may = SmsMessageAdmin.may

    def failing(self, request, permission, obj=None):
        if obj is not None and obj.pk == keys[2]:
            raise OperationalError("gone")
        return may(self, request, permission, obj)

    monkeypatch.setattr(SmsMessageAdmin, "may", failing)
    words = post(boss, "send", keys)
    assert words[0].startswith("Sent: 3 messages") and words[1].startswith("Not finished: <a ")


@pytest.mark.parametrize("number", [4, 8])
@pytest.mark.parametrize("error", [DataError(BAD), ValidationError({"body": "Bad."})])
def test_compose_stores_the_others_or_says_that_nothing_is_stored(boss, monkeypatch, number, error):
    """A handful is sent one by one; what goes into the queue is stored as a whole."""
    save, create = SmsMessage.save, type(rows()).bulk_create
    monkeypatch.setattr(SmsMessage, "save", fail_for_one(save, error))

    def bulk_create(self, messages, **kwargs):
        if any(message.to == BAD for message in messages):
            raise error
        return create(self, messages, **kwargs)

    monkeypatch.setattr(type(rows()), "bulk_create", bulk_create)
    numbers = NUMBERS + [f"+7904176500{digit}" for digit in range(number - 4)]
    form = {"numbers": "\n".join(numbers), "body": TEXT, "using": "default", "nonce": "n"}
    response = boss.post(f"{LIST}compose/", form | {"_send": "1"}, follow=True)
    shown = [str(message) for message in response.context["messages"]]
    assert response.status_code == 200 and BAD[1:] not in "".join(shown)
    if number == 4:
        assert shown[0].startswith("Sent: 3 messages")
        assert shown[1].startswith("Not sent to +7904•••4992.")
        assert len(outbox) == 3
    else:
        assert response.context["errors"] and not rows().exists() and not outbox


def test_a_receiver_that_fails_changes_nothing(boss):
    def receiver(**kwargs):
        raise RuntimeError("crash")

    sms_sent.connect(receiver)
    try:
        assert post(boss, "send", make("draft"))[0].startswith("Sent: 4 messages")
    finally:
        sms_sent.disconnect(receiver)
    assert set(rows().values_list("status", flat=True)) == {Status.SENT}

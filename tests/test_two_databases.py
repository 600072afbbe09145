"""A read replica that lags behind; and messages in a database of their own."""

import contextlib
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connections, transaction
from django.utils import timezone

from django_smska import daily_counts, delivery, sending
from django_smska.exceptions import SmsNotSent, WrongStatus
from django_smska.models import SmsMessage, rows
from django_smska.sms import queue_sms, send_mass_sms, send_sms
from django_smska.worker import Worker

from .outages import Outage
from .second_database import ALIAS, replicate, second_database
from .test_admin import LIST

NUMBER = "+79041764995"

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", ALIAS]),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def second(django_db_setup, django_db_blocker):
    with django_db_blocker.unblock(), second_database():
        yield


@pytest.fixture(autouse=True)
def with_second(second, provider):
    """The flush after each test empties both."""


def old(status, **fields):
    """Store a message that reached this status a year ago."""
    past = timezone.now() - timedelta(days=365)
    message = queue_sms(NUMBER, f"{status} {SmsMessage.objects.using('default').count()}")
    times = {"sending_at": past, "sent_at": past, "finished_at": past, "created_at": past}
    rows([message.pk]).update(status=status, **times | fields)
    sending.reread(message)
    return message


# --- a replica ------------------------------------------------------------------------------------


@pytest.fixture
def replica(settings):
    settings.DATABASE_ROUTERS = ["tests.second_database.Replica"]


@contextlib.contextmanager
def unread(alias):
    """Fail each query to this database."""
    with connections[alias].execute_wrapper(Outage(10**6)):
        yield


def send_by_worker(gateway):
    queue_sms(NUMBER, "by a worker")
    assert Worker().run_once()["sent"] == 1


def send_the_same_key(gateway):
    first = queue_sms(NUMBER, "once", idempotency_key="k")
    assert queue_sms(NUMBER, "once", idempotency_key="k").pk == first.pk
    assert send_sms(NUMBER, "once", idempotency_key="k").pk == first.pk
    assert send_mass_sms([SmsMessage(to=NUMBER, body="once", idempotency_key="k")]) == 0


def send_a_draft(gateway):
    draft = SmsMessage(to=NUMBER, body="a draft")
    draft.save()
    draft.priority = 3
    draft.save()
    draft.send()
    assert draft.status == "sent"


def send_at_once(gateway):
    assert send_sms(NUMBER, "now").status == "sent"
    with transaction.atomic():
        message = send_sms(NUMBER, "after the commit")
    assert rows([message.pk]).get().status == "sent"


def ask_for_reports(gateway):
    message = send_sms(NUMBER, "reported")
    message.refresh_status()
    rows().update(status="sent", next_status_at=timezone.now())
    assert delivery.query_due(limit=9) == 1
    assert rows([message.pk]).refresh_status() == {"delivered": 1}


def decide_about_unknown_ones(gateway):
    one, other = old("unknown"), old("unknown")
    sending.confirm_sent(one)
    again = sending.resend(other)
    assert (one.status, again.status) == ("sent", "queued")


def recover_what_was_held(gateway):
    held = old("claimed", lease_until=timezone.now(), token="t", attempts=1)
    assert sending.recover()["queued"] == 1
    assert rows([held.pk]).get().status == "queued"


def count_and_prune(gateway):
    old("delivered")
    daily_counts.catch_up()
    call_command("sms_prune", verbosity=0)
    assert not rows().exists()


def look_at_the_status(gateway):
    queue_sms(NUMBER, "queued")
    call_command("sms_status")


ACTIONS = (
    send_by_worker,
    send_the_same_key,
    send_a_draft,
    send_at_once,
    ask_for_reports,
    decide_about_unknown_ones,
    recover_what_was_held,
    count_and_prune,
    look_at_the_status,
)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__)
def test_nothing_that_decides_reads_the_replica(replica, provider, action, capsys):
    with unread(ALIAS):
        action(provider)


def test_an_object_from_a_replica_is_sent_by_what_its_row_says(replica, provider):
    sent, draft = SmsMessage(to=NUMBER, body="sent"), SmsMessage(to=NUMBER, body="draft")
    sent.save(), draft.save()
    replicate()
    sent.send()
    stale = SmsMessage.objects.get(pk=sent.pk)
    assert (stale.status, stale._state.db) == ("draft", ALIAS)
    with pytest.raises(WrongStatus):
        stale.save()
    with pytest.raises(WrongStatus):
        stale.send()
    SmsMessage.objects.get(pk=draft.pk).send()
    SmsMessage.objects.filter(body="sent").refresh_status()
    assert [entry.text for entry in provider.accepted] == ["sent", "draft"]


# --- messages in a database of their own ----------------------------------------------------------


@pytest.fixture
def apart(settings):
    settings.DATABASE_ROUTERS = ["tests.second_database.Apart"]


def test_a_worker_asks_the_messages_database_alone(apart, provider):
    connections["default"].close()
    with unread("default"):
        queue_sms(NUMBER, "text")
        assert Worker().run_once()["sent"] == 1
    assert rows().get().status == "sent" and rows().db == ALIAS


def test_the_checks_pass_where_the_users_are_beside_them(apart):
    call_command("check", databases=[ALIAS], tags=["sms"], fail_level="WARNING")


@pytest.mark.parametrize("outer", ["default", ALIAS])
@pytest.mark.parametrize("inner", ["default", ALIAS])
def test_nothing_leaves_before_the_last_transaction_has_ended(apart, provider, outer, inner):
    """Whichever of the databases they are of."""
    with transaction.atomic(using=outer):
        with transaction.atomic(using=inner):
            message = send_sms(NUMBER, "text")
        assert provider.sends == 0
    assert provider.sends == 1
    assert rows([message.pk]).get().status == "sent"


def test_what_waited_for_a_rollback_elsewhere_fails_and_is_never_sent(apart, provider):
    with contextlib.suppress(ZeroDivisionError), transaction.atomic(using="default"):
        message = send_sms(NUMBER, "text")
        raise ZeroDivisionError
    assert rows([message.pk]).get().status == "claimed"
    rows().update(lease_until=timezone.now())
    Worker().run_once()
    assert (rows().get().status, rows().get().error_code) == ("failed", "lease")
    assert provider.sends == 0


def test_a_rollback_elsewhere_does_not_take_a_queued_message_back(apart, provider):
    with contextlib.suppress(ZeroDivisionError), transaction.atomic(using="default"):
        queue_sms(NUMBER, "text")
        raise ZeroDivisionError
    assert Worker().run_once()["sent"] == 1


def test_a_rollback_of_their_own_database_does(apart, provider):
    with contextlib.suppress(ZeroDivisionError), transaction.atomic(using=ALIAS):
        queue_sms(NUMBER, "queued")
        send_sms(NUMBER, "sent")
        raise ZeroDivisionError
    Worker().run_once()
    assert not rows().exists() and provider.sends == 0


def test_a_refusal_in_a_transaction_elsewhere_stores_nothing(apart, provider):
    provider.api_password = "another"
    with pytest.raises(SmsNotSent):
        send_sms(NUMBER, "pauses the provider")
    with transaction.atomic(using="default"), pytest.raises(SmsNotSent, match="paused"):
        send_sms(NUMBER, "refused")
    assert not rows().filter(body="refused").exists()


def test_the_admin_works_there(apart, client, provider):
    client.force_login(User.objects.create_superuser("boss"))
    draft = SmsMessage(to=NUMBER, body="draft")
    draft.save()
    client.post(f"{LIST}send/", {"pks": draft.pk}, follow=True)
    page = client.get(f"{LIST}{draft.pk}/history/").content.decode()
    assert rows().get().status == "sent" and "Sent." in page


# --- the admin on a replica -----------------------------------------------------------------------


@pytest.fixture
def boss(client):
    client.force_login(User.objects.create_superuser("boss"))
    return client


def behind():
    """Return a message that is a draft on the replica, and was sent since."""
    draft = SmsMessage(to=NUMBER, body="a draft")
    draft.save()
    replicate()
    draft.send()
    return draft


FORM = {"to": NUMBER, "body": "edited", "sender": "", "using": "default", "priority": "0"}
PRESSED = {
    "send": lambda pk: ("send/", {"pks": pk}),
    "cancel": lambda pk: ("cancel/", {"pks": pk}),
    "resend": lambda pk: ("resend/", {"pks": pk}),
    "send in the list": lambda pk: ("", {"action": "send_selected", "_selected_action": pk}),
    "edit": lambda pk: (f"{pk}/change/", FORM),
    "edit and send": lambda pk: (f"{pk}/change/", FORM | {"_send": "1"}),
    "delete": lambda pk: (f"{pk}/delete/", {"post": "yes"}),
}


@pytest.mark.parametrize("pressed", PRESSED)
def test_a_press_on_a_page_of_the_replica_goes_by_the_row(replica, provider, boss, pressed):
    sent = behind()
    path, data = PRESSED[pressed](sent.pk)
    answer = boss.post(f"{LIST}{path}", data, follow=True)
    assert answer.status_code == 200
    row = rows([sent.pk]).get()
    assert (row.status, row.body, provider.sends) == ("sent", "a draft", 1)


def test_what_is_composed_and_sent_there_is_sent_once(replica, provider, boss):
    nonce = boss.get(f"{LIST}compose/").context["form"]["nonce"].value()
    form = {"numbers": NUMBER, "body": "new", "sender": "", "using": "default", "nonce": nonce}
    for button in ({"_check": "1"}, {"_send": "1"}, {"_send": "1"}):
        answer = boss.post(f"{LIST}compose/", form | button, follow=True)
        assert answer.status_code == 200
    assert [entry.text for entry in provider.accepted] == ["new"]


def test_pages_of_the_replica_lag_behind_and_none_fails(replica, provider, boss):
    sent = behind()
    new = send_sms(NUMBER, "not there yet")
    for page in ("", "statistics/", "export/", f"{sent.pk}/change/", f"{sent.pk}/history/"):
        assert boss.get(f"{LIST}{page}").status_code == 200
    assert boss.get(f"{LIST}{new.pk}/change/").status_code == 302  # as what does not exist
    replicate()
    assert boss.get(f"{LIST}{new.pk}/change/").status_code == 200

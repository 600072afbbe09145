"""The check page's test message: the text goes to the writer's own phone first."""

from datetime import timedelta
from threading import Barrier, Thread

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connections
from django.test import Client
from django.utils.timezone import localtime, now

from django_smska import opt_out
from django_smska.admin import trial
from django_smska.models import ProviderState, SmsMailing, SmsMessage
from django_smska.sms import outbox
from django_smska.states import Status
from django_smska.testing.gateway import Fault

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

PAGE = "/admin/django_smska/smsmessage/compose/"
OTHERS = "+79261110022\n+79261110033"
MINE, SHOWN = "+79165550101", "+7 916 555-01-01"


@pytest.fixture
def olga(client):
    client.user = User.objects.create_superuser("olga")
    client.force_login(client.user)
    return client


@pytest.fixture
def clerk(client):
    """Who sends, and may see no number."""
    client.user = User.objects.create_user("clerk", is_staff=True)
    needed = ["view_smsmessage", "add_smsmessage", "send_smsmessage"]
    client.user.user_permissions.set(Permission.objects.filter(codename__in=needed))
    client.force_login(client.user)
    return client


def filled(**changes):
    form = {"numbers": OTHERS, "body": "Ждём вас", "sender": "", "using": "default", "nonce": "n7"}
    return form | changes


def press(client, number="8 916 555-01-01", **changes):
    return client.post(PAGE, filled(_test="1", test_number=number, **changes))


def result(response):
    return response.context["trial"]


def test_the_text_goes_to_the_own_phone_at_once_and_to_no_one_else(olga):
    response = press(olga, sender="Salon")
    (message,) = SmsMessage.objects.all()
    assert (message.to, message.body, message.sender) == (MINE, "Ждём вас", "Salon")
    assert (message.status, message.mailing, message.priority) == ("sent", None, 0)
    assert message.created_by == olga.user and [one.to for one in outbox] == [MINE]
    assert result(response).words.startswith("Sent at ") and SHOWN in result(response).words
    assert result(response).level == "success"
    page = response.content.decode()
    assert 'name="_send"' in page and "+7 926 111-00-22" in page
    assert f'href="/admin/django_smska/smsmessage/{message.pk}/change/"' in page
    (entry,) = LogEntry.objects.all()
    assert entry.change_message == "Test from the page for writing: sent"


def test_it_never_belongs_to_the_mailing(olga):
    press(olga)
    olga.post(PAGE, filled(numbers=f"{OTHERS}\n{MINE}", _send="1", name="Spring"))
    mailing = SmsMailing.objects.get()
    assert mailing.messages.count() == 3 and SmsMessage.objects.count() == 4
    assert SmsMessage.objects.get(mailing=None).to == MINE


def test_it_is_no_reason_to_warn_of_a_text_sent_twice(olga):
    assert "within the last hour" not in press(olga, numbers=MINE).content.decode()


def test_pressed_again_nothing_is_sent_and_the_page_says_when_it_was(olga):
    press(olga)
    SmsMessage.objects.update(status=Status.DELIVERED)
    again = result(press(olga, number=MINE))
    assert len(outbox) == 1 and LogEntry.objects.count() == 1
    assert again.words.startswith(f"It was sent to {SHOWN} already, at ")
    for changes in ({"nonce": "n8"}, {"body": "Ждём вас!"}, {"number": "+79165550102"}):
        press(olga, **changes)
    assert len(outbox) == 4


def test_a_time_of_another_day_has_its_date(olga):
    press(olga)
    at = now() - timedelta(days=3)
    SmsMessage.objects.update(sent_at=at)
    assert f"{localtime(at):%Y}" in result(press(olga)).words


@pytest.mark.django_db(transaction=True)
def test_pressed_at_the_same_moment_it_is_sent_once(olga, provider):
    start, words = Barrier(4), []

    def one():
        client = Client()
        client.cookies = olga.cookies
        start.wait(10)
        words.append(result(press(client)).words)
        connections.close_all()

    threads = [Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(words) == 4 and provider.sends == 1 and SmsMessage.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_what_was_not_sent_may_be_tried_again(olga, provider):
    provider.script(1, Fault("bad_number"), on="send")
    refused = result(press(olga))
    assert refused.words.startswith("Not sent: ") and refused.level == "error"
    assert result(press(olga)).words.startswith("Sent at ")
    assert result(press(olga)).words.startswith("It was sent to ")
    assert list(SmsMessage.objects.order_by("pk").values_list("status", flat=True)) == [
        "failed",
        "sent",
    ]


@pytest.mark.django_db(transaction=True)
def test_what_may_have_been_sent_is_not_sent_again(olga, provider):
    provider.script(1, Fault("reset_after_request"), on="send")
    assert result(press(olga)).words.startswith("Unknown whether it was sent: ")
    assert result(press(olga)).words.startswith(f"Unknown whether it was sent to {SHOWN}. ")
    assert provider.sends == 1 and SmsMessage.objects.get().status == "unknown"


def test_one_that_is_under_way_is_said_to_be(olga):
    press(olga)
    later = now() + timedelta(minutes=1)
    SmsMessage.objects.update(status=Status.SENDING, lease_until=later, sent_at=None)
    assert result(press(olga)).words == f"It is being sent to {SHOWN}."


def test_the_tries_have_an_end(olga):
    for _ in range(trial.MAX_TRIES + 2):
        last = press(olga)
        SmsMessage.objects.update(status=Status.FAILED, error_text="The number is not valid.")
    assert len(outbox) == trial.MAX_TRIES
    assert result(last).words == f"Not sent to {SHOWN}. The number is not valid."


@pytest.mark.django_db(transaction=True)
def test_a_paused_provider_leaves_nothing_behind(olga, provider):
    paused = {"reason": "funds", "paused_at": now(), "probe_at": now() + timedelta(hours=1)}
    ProviderState.objects.update_or_create(alias="default", defaults=paused)
    assert result(press(olga)).words.startswith("Not sent: ")
    assert not provider.sends and not SmsMessage.objects.exists()


def test_the_do_not_send_list_holds(olga):
    opt_out.opt_out(MINE)
    response = press(olga)
    assert result(response).words.startswith("Not sent: ")
    assert "do-not-send list" in result(response).words
    assert not outbox and not SmsMessage.objects.exists()


def test_the_limits_do_not_count_it(olga, settings):
    settings.SMSKA_LIMITS = {"number": "1/h", "same_text": 3600}
    for nonce in ("a", "b", "c"):
        press(olga, nonce=nonce)
    assert len(outbox) == 3


@pytest.mark.parametrize(
    "number, words", [("", "required"), ("12", "country code"), ("Olga", "digits")]
)
def test_a_wrong_number_is_said_at_its_field_and_all_is_kept(olga, number, words):
    response = press(olga, number=number, body="Ждём\nвас", sender="Salon")
    field = result(response).form["test_number"]
    assert words in field.errors[0] and field.value() == number
    page = response.content.decode()
    assert "+7 926 111-00-22" in page and 'value="Salon"' in page and 'aria-invalid="true"' in page
    assert not outbox and not SmsMessage.objects.exists()


def test_where_no_row_has_a_text_there_is_no_test(olga):
    rows = "Телефон\tИмя\n+79261110022\t\n+79261110033\t"
    page = press(olga, numbers=rows, body="{имя}, ждём вас")
    assert result(page) is None and "_test" not in page.content.decode()
    assert not SmsMessage.objects.exists()
    page = press(olga, numbers=rows + "Лев", body="{имя}, ждём вас")
    assert SmsMessage.objects.get().body == "Лев, ждём вас"


def test_what_is_wrong_elsewhere_is_said_first(olga):
    assert "body" in press(olga, body=" ").context["errors"]
    assert not outbox


def test_the_number_is_remembered_until_it_is_erased(olga):
    def offered():
        return result(olga.post(PAGE, filled(nonce="next")))

    assert offered().form["test_number"].value() == ""
    press(olga)
    press(olga, number="+79165550102")
    other = User.objects.create_superuser("another")
    SmsMessage(to="+79165550103", body="x", idempotency_key=f"{trial.prefix(other)}1").save()
    assert offered().form["test_number"].value() == "+79165550102"
    SmsMessage.objects.filter(to="+79165550102").update(erased_at=now(), to="")
    assert offered().form["test_number"].value() == MINE
    SmsMessage.objects.all().delete()
    assert offered().form["test_number"].value() == ""


def test_what_was_typed_outlives_another_button(olga):
    response = olga.post(PAGE, filled(test_number="8 916", _correct="1"))
    assert result(response).form["test_number"].value() == "8 916" and not outbox


def test_who_may_see_no_number_types_it_each_time(clerk):
    assert SHOWN in result(press(clerk)).words and len(outbox) == 1
    assert MINE not in clerk.post(PAGE, filled()).content.decode()


def test_who_may_not_send_has_no_test(client):
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_smsmessage"))
    client.force_login(user)
    assert press(client).status_code == 403 and not outbox


@pytest.mark.django_db(transaction=True)
def test_requests_in_transactions_send_it_before_the_page(olga, provider, monkeypatch):
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    assert result(press(olga)).words.startswith("Sent at ")
    assert provider.sends == 1

"""What the admin's list and the page of a message show of it, and what they leave out."""

import re
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.test import override_settings
from django.utils import timezone as django_timezone
from django.utils.text import capfirst

from django_smska.admin import timeline
from django_smska.admin.permissions import grouped
from django_smska.models import SmsMessage, rows
from django_smska.numbers import normalize
from django_smska.states import Status

pytestmark = pytest.mark.django_db

LIST = "/admin/django_smska/smsmessage/"
NOW = datetime(2026, 3, 4, 12, 30, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


@pytest.fixture
def boss(client):
    client.force_login(User.objects.create_superuser("boss"))
    return client


@pytest.fixture
def clerk(client):
    user = User.objects.create_user("clerk", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_smsmessage"))
    client.force_login(user)
    return client


@pytest.fixture
def now(monkeypatch):
    monkeypatch.setattr(django_timezone, "now", lambda: NOW)


def make(status="delivered", to="89041700059", **values):
    message = SmsMessage(to=to, body=values.pop("body", "The text"))
    message.save()
    rows([message.pk]).update(status=status, **{"expires_at": NOW, "lease_until": NOW} | values)
    return rows().get(pk=message.pk)


def columns(client):
    names = client.get(LIST).context["cl"].list_display
    return [name for name in names if name != "action_checkbox"]


def cell(client, name):
    """Return the text of this cell of the only row."""
    page = client.get(LIST).content.decode()
    [found] = re.findall(rf'<(?:td|th) class="field-{name}[^"]*"[^>]*>(.*?)</(?:td|th)>', page)
    return re.sub("<[^>]*>", "", found)


# --- numbers


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("+79041700059", "+7 904 170-00-59"),
        ("+74951234567", "+7 495 123-45-67"),
        ("+491711234567", "+491711234567"),
        ("+7904170005", "+7904170005"),
        ("900", "900"),
        ("Shop", "Shop"),
        ("", ""),
    ],
)
def test_a_number_is_shown_in_groups_where_they_are_known(number, shown):
    assert grouped(number) == shown


def test_what_is_shown_is_a_spelling_of_the_number():
    assert normalize(grouped("+79041700059")) == "+79041700059"


def test_list_and_page_show_groups_and_the_export_does_not(boss):
    message = make()
    assert cell(boss, "whole_number") == "+7 904 170-00-59"
    page = boss.get(f"{LIST}{message.pk}/change/").content.decode()
    assert "+7 904 170-00-59" in page and "+79041700059" not in page
    answer = boss.post(f"{LIST}export/", {"pks": message.pk, "_csv": "1"})
    assert b'"79041700059"' in b"".join(answer.streaming_content)


def test_a_masked_number_stays_masked(clerk):
    message = make()
    assert cell(clerk, "masked_number") == "+7904•••0059"
    page = clerk.get(f"{LIST}{message.pk}/change/").content.decode()
    assert "<h1>SMS to +7904•••0059</h1>" in page and "170-00" not in page


def test_the_list_is_sorted_by_number_as_before(boss):
    last, first = make(to="89041700060"), make(to="89041700059")
    assert list(boss.get(LIST, {"o": "2"}).context["cl"].result_list) == [first, last]
    assert list(boss.get(LIST, {"o": "-2"}).context["cl"].result_list) == [last, first]


# --- columns


def test_a_provider_has_a_column_where_there_are_several(boss, settings):
    make()
    assert columns(boss) == ["status_badge", "whole_number", "when", "text_start"]
    settings.SMS_PROVIDERS = {"default": {}, "bulk": {}}
    assert columns(boss)[4:] == ["provider"]
    assert cell(boss, "provider") == "Provider: default"


@pytest.mark.parametrize(
    ("values", "details"),
    [
        ({}, ""),
        ({"segments": 3}, "3 segments"),
        ({"sender": "<Shop>"}, "from &lt;Shop&gt;"),
        ({"price": Decimal("2.5"), "currency": "RUB"}, "₽2.50"),
        (
            {"segments": 2, "sender": "Shop", "price": Decimal(5), "currency": "EUR"},
            "2 segments · €5.00 · from Shop",
        ),
    ],
)
def test_what_is_unusual_stands_under_the_text(boss, values, details):
    make(**values)
    assert cell(boss, "text_start") == f"The text{details}"


def test_who_may_not_see_the_text_sees_what_is_unusual(clerk):
    make(segments=2)
    assert columns(clerk) == ["status_badge", "masked_number", "when", "details"]
    assert cell(clerk, "details") == "2 segments"


# --- one time


@pytest.mark.parametrize(
    ("status", "times", "words"),
    [
        ("draft", {}, "written 11:30 a.m."),
        ("queued", {"send_after": NOW - HOUR}, "waiting since 11:30 a.m."),
        ("queued", {"send_after": NOW + 22 * HOUR}, "due tomorrow 10:30 a.m."),
        ("queued", {"send_after": NOW + 48 * HOUR}, "due 03/06/2026 12:30 p.m."),
        ("claimed", {"claimed_at": NOW}, "being sent since 12:30 p.m."),
        ("sending", {"sending_at": NOW}, "being sent since 12:30 p.m."),
        ("sent", {"sent_at": NOW - 13 * HOUR}, "sent yesterday 11:30 p.m."),
        ("delivered", {"sent_at": NOW - HOUR, "finished_at": NOW}, "sent 11:30 a.m."),
        ("expired", {"sent_at": NOW - 50 * HOUR}, "sent 03/02/2026 10:30 a.m."),
        ("unknown", {"sending_at": NOW}, "attempted 12:30 p.m."),
        ("failed", {"finished_at": NOW}, "failed 12:30 p.m."),
        ("failed", {"finished_at": None}, "written 11:30 a.m."),
        ("cancelled", {"finished_at": NOW}, "cancelled 12:30 p.m."),
    ],
)
@override_settings(TIME_ZONE="UTC")
def test_each_status_has_one_time_with_a_word(boss, now, status, times, words):
    make(status, **{"created_at": NOW - HOUR, "send_after": NOW - HOUR} | times)
    assert cell(boss, "when").replace("\xa0", " ") == words


@override_settings(TIME_ZONE="Asia/Vladivostok")
def test_the_day_is_that_of_the_clock_on_the_wall(boss, now):
    """There it is half past ten in the evening."""
    make("queued", send_after=NOW + 2 * HOUR)
    assert cell(boss, "when").replace("\xa0", " ") == "due tomorrow 12:30 a.m."


@override_settings(TIME_ZONE="UTC")
def test_the_other_times_are_in_its_title(now):
    times = {"created_at": NOW - 30 * HOUR, "sent_at": NOW - 2 * HOUR, "finished_at": NOW - HOUR}
    shown = timeline.when(make(send_after=NOW - 3 * HOUR, **times)).replace("\xa0", " ")
    assert 'datetime="2026-03-04T10:30:00+00:00"' in shown
    assert (
        'title="created: 03/03/2026 6:30 a.m., send after: 03/04/2026 9:30 a.m., '
        'sent: 03/04/2026 10:30 a.m., finished: 03/04/2026 11:30 a.m."'
    ) in shown


# --- an empty list


def test_an_empty_list_offers_to_write(boss):
    words = f'<a href="{LIST}compose/">Write the first message</a>'
    assert words in boss.get(LIST).content.decode()
    assert words not in boss.get(LIST, {"status__exact": "sent"}).content.decode()
    assert words not in boss.get(LIST, {"q": "4995"}).content.decode()
    make()
    assert words not in boss.get(LIST).content.decode()


@pytest.mark.parametrize(
    ("names", "path"), [(["view", "add"], "add/"), (["view", "add", "send"], "compose/")]
)
def test_it_leads_to_where_the_user_may_write(clerk, names, path):
    codenames = [f"{name}_smsmessage" for name in names]
    User.objects.get().user_permissions.set(Permission.objects.filter(codename__in=codenames))
    page = clerk.get(LIST).content.decode()
    assert f'<a href="{LIST}{path}">Write the first message</a>' in page


def test_a_user_who_may_not_write_is_offered_nothing(clerk):
    page = clerk.get(LIST).content.decode()
    assert "No message has been written yet." in page and "Write the first" not in page


# --- the page of a message


@pytest.mark.parametrize("status", Status.values)
def test_its_title_is_the_number(boss, status):
    page = boss.get(f"{LIST}{make(status).pk}/change/").content.decode()
    assert "<h1>SMS to +7 904 170-00-59</h1>" in page
    assert "<title>SMS to +7 904 170-00-59 |" in page and "<h2>SMS" not in page


def test_what_is_written_apart_from_the_compose_page_is_a_draft(boss):
    page = boss.get(f"{LIST}add/").content.decode()
    assert "<h1>New draft</h1>" in page and "<title>New draft |" in page


def test_an_erased_message_has_a_page(boss):
    message = make(to="89041700059")
    rows([message.pk]).update(to="", body="", erased_at=NOW)
    page = boss.get(f"{LIST}{message.pk}/change/").content.decode()
    assert "<h1>SMS to (erased)</h1>" in page
    assert cell(boss, "whole_number") == "(erased)"


def test_a_page_that_is_only_read_has_no_help_for_input(boss):
    message = make("queued", sender="Shop")
    assert 'class="help"' not in boss.get(f"{LIST}{message.pk}/change/").content.decode()


def test_what_only_technicians_need_is_folded_away(boss, settings):
    settings.SMS_PROVIDERS = {"default": {}, "bulk": {}}
    message = make(encoding="UCS-2", attempts=2)
    page = boss.get(f"{LIST}{message.pk}/change/").content.decode()
    above, folded = page.split("For technical support")
    assert "UCS-2" in folded and "Attempts:" in folded and "UCS-2" not in above
    assert "Provider:" in above and "Steps:" not in page


@pytest.mark.parametrize(("using", "is_shown"), [("default", False), ("gone", True)])
def test_the_only_provider_is_not_named(boss, using, is_shown):
    page = boss.get(f"{LIST}{make(using=using).pk}/change/").content.decode()
    assert ("Provider:" in page) is is_shown


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"status": "sent", "status_queries": 0}, "Waiting for the delivery report"),
        ({"status": "sent", "status_queries": 1}, "Status checked 1 time"),
        ({"status": "unknown", "status_queries": 0}, "The provider will be asked"),
        ({"status": "unknown", "status_queries": 2}, "Provider asked 2 times"),
    ],
)
def test_no_query_is_not_counted(values, words):
    message = make(gateway_id="g", sent_at=NOW, next_status_at=NOW, **values)
    page = timeline.timeline(message)
    assert words in page and "0 times" not in page and "next: " in page


def test_what_happened_within_a_second_happened_at_once():
    times = {"sending_at": NOW, "sent_at": NOW + timedelta(milliseconds=999)}
    message = make(**times, finished_at=NOW + timedelta(seconds=3))
    assert [step.after for step in timeline.steps(message) if step.after] == [
        "at once",
        "after 2 s",
    ]


def test_what_waits_to_be_said_is_not_lost_in_a_renewal(boss):
    """A script renews the list; a person would never see what is said in its answer."""
    message = make("draft")
    boss.post(f"{LIST}cancel/?pks={message.pk}", {"pks": message.pk, "_confirm": "1"})
    said = "Cancelled: <a "
    assert said not in boss.get(LIST, headers={"X-Smska-Renew": "1"}).content.decode()
    assert said in boss.get(LIST).content.decode()


@pytest.mark.slow
def test_only_a_list_of_what_is_on_its_way_is_renewed(boss, now):
    soon, later = NOW + timedelta(minutes=29), NOW + timedelta(minutes=31)
    for status, values, is_live in (
        ("draft", {}, False),
        ("queued", {"send_after": soon}, True),
        ("queued", {"send_after": later}, False),
        ("claimed", {}, True),
        ("sending", {}, True),
        ("sent", {"sent_at": NOW - timedelta(minutes=29)}, True),
        ("sent", {"sent_at": NOW - timedelta(minutes=31)}, False),
        ("delivered", {}, False),
        ("unknown", {}, False),
    ):
        rows().delete()
        make(status, **values)
        assert (b" data-live" in boss.get(LIST).content) == is_live, (status, values)
    make("sending")
    assert b" data-live" not in boss.get(f"{LIST}?_popup=1").content


def test_the_breadcrumb_shows_the_number_to_those_who_may_see_it(boss):
    message = make("delivered", "+79165550142")
    page = boss.get(f"{LIST}{message.pk}/change/").content.decode()
    [crumb] = re.findall(r'<li aria-current="page">(.*?)</li>|&rsaquo; (SMS to [^<]*)', page)
    assert "SMS to +7 916 555-01-42" in "".join(crumb)
    assert f'href="{LIST}{message.pk}/history/' in page


def test_the_breadcrumb_masks_the_number_for_others(clerk):
    message = make("delivered", "+79165550142")
    page = clerk.get(f"{LIST}{message.pk}/change/")
    assert "SMS to +7916•••0142" in page.content.decode()
    assert "555" not in page.content.decode()
    assert "916" not in repr(page.context["original"])


OURS = [model for model in admin.site._registry if model._meta.app_label == "django_smska"]


@pytest.mark.parametrize("model", OURS, ids=lambda model: model._meta.model_name)
def test_a_list_is_called_what_it_shows_and_asks_for_nothing(boss, model):
    """Django's own heading asks to select a row, though nothing here is to be changed."""
    page = boss.get(f"/admin/django_smska/{model._meta.model_name}/")
    heading = capfirst(model._meta.verbose_name_plural)
    assert page.context["title"] == heading
    assert f"<h1>{heading}</h1>" in page.content.decode()


def test_the_actions_begin_with_what_is_asked_for(boss):
    make()
    form = boss.get(LIST).context["action_form"]
    assert form.fields["action"].choices[0] == ("", "Choose what to do")

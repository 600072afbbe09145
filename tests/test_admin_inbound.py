"""The admin of messages that phones sent."""

import re
from datetime import timedelta
from urllib.parse import urlencode

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_smska import personal_data
from django_smska.inbound import receive
from django_smska.models import SmsInbound
from django_smska.receipts import Inbound
from django_smska.sms import queue_sms, send_sms

pytestmark = pytest.mark.django_db

LIST = "/admin/django_smska/smsinbound/"
MESSAGES = "/admin/django_smska/smsmessage/"
NUMBER, OTHER = "+79041764995", "+79048884995"
SHOWN = "+7 904 176-49-95"
MASKED = "+7904•••4995"


def make(body="Да, приду", sender=NUMBER, to="1234", gateway_id=""):
    receive("default", [Inbound(sender, to, body, gateway_id)])
    return SmsInbound.objects.latest("id")


@pytest.fixture
def staff(client):
    """Return a client of a user with these permissions."""

    def staff(*names):
        user = User.objects.create_user("anna", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=names))
        client.force_login(user)
        client.user = user
        return client

    return staff


def content(response):
    assert response.status_code == 200
    return response.content.decode().partition('id="content"')[2]


def keys(response):
    return [one.pk for one in response.context["cl"].result_list]


def columns(client):
    return list(client.get(LIST).context["cl"].list_display)


def test_the_list_and_one_message(admin_client):
    row = make("Да,\nприду", gateway_id="SM17")
    page = content(admin_client.get(LIST))
    assert all(words in page for words in (SHOWN, "Да, приду", "1234", "default"))
    page = content(admin_client.get(f"{LIST}{row.pk}/change/"))
    assert all(words in page for words in (SHOWN, "Да,<br>приду", "1234", "default", "SM17"))
    assert "<input" not in re.sub(r'<input[^>]*type="hidden"[^>]*>', "", page)


def test_the_text_comes_early_and_a_lone_provider_has_no_column(admin_client, settings):
    """A phone shows the first columns, and a long link or a name that is always the same would push
    others out of the page of a small screen."""
    make()
    one = settings.SMS_PROVIDERS["default"]
    settings.SMS_PROVIDERS = {"default": one}
    assert columns(admin_client) == ["received", "text_start", "whole_number", "to", "sent_link"]
    assert "messages to this number" not in content(admin_client.get(LIST))
    settings.SMS_PROVIDERS = {"default": one, "bulk": one}
    assert columns(admin_client)[4:] == ["using", "sent_link"]


def test_who_may_only_read_sees_no_number(staff):
    client = staff("view_smsinbound")
    row = make(f"Перезвоните: {NUMBER}, 8 905 123-45-67", gateway_id=f"id-{NUMBER[1:]}")
    LogEntry.objects.log_actions(client.user.pk, [row], CHANGE, f"Called {NUMBER}")
    for page in ("", f"{row.pk}/change/", f"{row.pk}/history/"):
        shown = content(client.get(f"{LIST}{page}"))
        assert "1764" not in shown and "176-49" not in shown and "123-45" not in shown
        assert MASKED in shown or page.endswith("history/")
    assert "Перезвоните" in content(client.get(LIST))
    assert "Перезвоните" in content(client.get(f"{LIST}{row.pk}/change/"))


def test_who_may_see_numbers_sees_them_in_the_history_too(staff):
    client = staff("view_smsinbound", "see_number_smsmessage")
    row = make()
    LogEntry.objects.log_actions(client.user.pk, [row], CHANGE, f"Called {NUMBER}: Да, приду")
    assert f"Called {NUMBER}: Да, приду" in content(client.get(f"{LIST}{row.pk}/history/"))


def test_search_by_a_whole_number(admin_client):
    first, short = make(), make(sender="4455")
    make(sender=OTHER)
    for term in (NUMBER, "8 (904) 176-49-95", " tel:+79041764995 "):
        assert keys(admin_client.get(LIST, {"q": term})) == [first.pk]
    assert keys(admin_client.get(LIST, {"q": "4455"})) == [short.pk]
    for term in ("4995", "приду", "'\"%"):
        assert keys(admin_client.get(LIST, {"q": term})) == []
    assert len(keys(admin_client.get(LIST, {"q": " "}))) == 3


def test_search_reveals_nothing_to_who_sees_no_numbers(staff):
    client = staff("view_smsinbound")
    make()
    assert keys(client.get(LIST, {"q": NUMBER})) == keys(client.get(LIST, {"q": "1"})) == []
    assert len(keys(client.get(LIST))) == 1


def test_filters_by_provider_and_date(admin_client, settings):
    settings.SMS_PROVIDERS = {"default": {}, "bulk": {}}
    new = make()
    old = make()
    SmsInbound.objects.filter(pk=old.pk).update(
        received_at=timezone.now() - timedelta(days=40), using="bulk"
    )
    assert keys(admin_client.get(LIST, {"using": "bulk"})) == [old.pk]
    since = (timezone.now() - timedelta(days=7)).isoformat()
    assert keys(admin_client.get(LIST, {"received_at__gte": since})) == [new.pk]
    for query in ({"using": "gone"}, {"received_at__gte": "x"}, {"sender__startswith": "+7904"}):
        response = admin_client.get(LIST, query)
        assert response.status_code == 302 and response["Location"].endswith("?e=1")


def test_an_empty_list_says_why(admin_client):
    words = "No phone has written to this site yet."
    assert words in content(admin_client.get(LIST))
    assert words not in content(admin_client.get(LIST, {"q": NUMBER}))
    assert words not in content(admin_client.get(LIST, {"using": "default"}))
    make()
    assert words not in content(admin_client.get(LIST))


def test_it_costs_the_same_for_fifty(admin_client):
    def cost():
        with CaptureQueriesContext(connection) as queries:
            admin_client.get(LIST)
        return len(queries)

    make()
    cost()
    one = cost()
    for _ in range(49):
        make()
    assert cost() == one


class TestLink:
    def link(self, client):
        [url] = re.findall(r'href="([^"]*\?received=[^"]*)"', content(client.get(LIST)))
        return url

    @pytest.mark.parametrize("sees", [False, True])
    def test_to_the_messages_of_the_number(self, staff, sees):
        names = ["view_smsinbound", "view_smsmessage", "see_number_smsmessage"]
        client = staff(*names[: 2 + sees])
        mine = [send_sms(NUMBER, "Приём в 14:30").pk, queue_sms(NUMBER, "Приём в 15:30").pk]
        send_sms(OTHER, "Приём в 16:30")
        row = make()
        url = self.link(client)
        assert url == f"{MESSAGES}?received={row.pk}"
        response = client.get(url)
        assert sorted(keys(response)) == sorted(mine)
        assert (SHOWN in content(response)) == sees and "888-49-95" not in content(response)
        assert "By number" in content(response)
        assert "By number" not in content(client.get(MESSAGES))

    def test_the_log_of_an_export_has_no_number(self, admin_client):
        send_sms(NUMBER, "Приём в 14:30")
        send_sms(OTHER, "Приём в 14:30")
        filters = {"_changelist_filters": f"received={make().pk}"}
        url = f"{MESSAGES}export/?{urlencode(filters)}"
        file = b"".join(admin_client.post(url, {"_csv": "1"}).streaming_content).decode()
        assert NUMBER[1:] in file and OTHER[1:] not in file
        entry = LogEntry.objects.get()
        assert MASKED in entry.change_message and "1764" not in entry.change_message

    def test_not_for_who_may_see_no_messages(self, staff):
        client = staff("view_smsinbound")
        row = make()
        for page in (LIST, f"{LIST}{row.pk}/change/"):
            assert "?received=" not in content(client.get(page))

    def test_who_may_read_nothing_finds_nothing_by_it(self, staff):
        client = staff("view_smsmessage", "see_number_smsmessage")
        send_sms(OTHER, "Приём в 14:30")
        send_sms(NUMBER, "Приём в 14:30")
        row = make()
        response = client.get(MESSAGES, {"received": row.pk})
        assert keys(response) == []
        assert SHOWN not in content(response) and MASKED not in content(response)

    @pytest.mark.parametrize("key", ["0", "x", "-1", "1" * 19, "1 OR 1=1", ""])
    def test_what_is_no_key(self, admin_client, key):
        response = admin_client.get(MESSAGES, {"received": key})
        assert response.status_code == 302

    def test_not_for_what_is_no_number(self, admin_client):
        make(sender="MyBank")
        assert "?received=" not in content(admin_client.get(LIST))

    def test_a_row_that_is_gone_or_erased(self, admin_client):
        send_sms(NUMBER, "Приём")
        row = make()
        personal_data.erase(NUMBER)
        assert "?received=" not in content(admin_client.get(LIST))
        assert content(admin_client.get(LIST)).count("(erased)") == 1
        assert keys(admin_client.get(MESSAGES, {"received": row.pk})) == []
        assert keys(admin_client.get(MESSAGES, {"received": 10**9})) == []


class TestDelete:
    def test_who_may_deletes_one(self, staff):
        client = staff("view_smsinbound", "delete_smsinbound")
        row, kept = make(), make(sender=OTHER)
        page = content(client.get(f"{LIST}{row.pk}/delete/"))
        assert MASKED in page and "1764" not in page
        response = client.post(f"{LIST}{row.pk}/delete/", {"post": "yes"})
        assert response["Location"] == LIST
        assert SmsInbound.objects.get() == kept
        entry = LogEntry.objects.get()
        assert MASKED in entry.object_repr and "1764" not in entry.object_repr

    def test_without_view_the_index_comes_next(self, staff):
        client, row = staff("delete_smsinbound"), make()
        response = client.post(f"{LIST}{row.pk}/delete/", {"post": "yes"})
        assert response["Location"] == "/admin/" and not SmsInbound.objects.exists()

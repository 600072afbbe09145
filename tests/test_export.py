"""The export: which messages, what of them, and that spreadsheets only show it."""

import csv
import io
import tracemalloc
from datetime import datetime, timedelta, timezone
from math import ceil
from urllib.parse import urlencode

import pytest
from asgiref.sync import async_to_sync
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.http import StreamingHttpResponse
from django.test import AsyncClient
from django.test.utils import CaptureQueriesContext
from django.utils import translation

from django_smska import export
from django_smska.models import SmsMessage

pytestmark = pytest.mark.django_db

LIST = "/admin/django_smska/smsmessage/"
PAGE = f"{LIST}export/"
NUMBER = "+79041764995"
NOON = datetime(2026, 3, 5, 9, 0, 7, tzinfo=timezone.utc)  # in Moscow 12:00:07


@pytest.fixture
def boss(client):
    client.user = User.objects.create_superuser("boss")
    client.force_login(client.user)
    return client


@pytest.fixture
def clerk(client):
    """Log in one who may export, and nothing else but what is named."""

    def log_in(*names):
        client.user = User.objects.create_user("clerk", is_staff=True)
        codenames = [f"{name}_smsmessage" for name in ("view", "export", *names)]
        client.user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(client.user)
        return client

    return log_in


def make(number=1, body="Ваш заказ готов", status="draft", **values):
    values = {"to": NUMBER, "body": body, "status": status, "expires_at": NOON} | values
    made = [SmsMessage(**values) for _ in range(number)]
    return SmsMessage.objects.bulk_create(made)


def filtered(query):
    return f"{PAGE}?{urlencode({'_changelist_filters': query})}"


def content(response):
    assert isinstance(response, StreamingHttpResponse) and response.status_code == 200
    return b"".join(response.streaming_content)


def parsed(data):
    """The lines as dictionaries, read as Excel reads them."""
    heads, *lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=";")
    return [dict(zip(heads, line, strict=True)) for line in lines]


def exported(client, url=PAGE, **data):
    return parsed(content(client.post(url, data)))


def noted():
    entry = LogEntry.objects.get()
    assert entry.content_type.model_class() is SmsMessage
    return entry.change_message


# --- the file


def test_the_bytes_are_those_that_excel_reads_in_russian(boss):
    make(created_at=NOON)
    data = content(boss.post(PAGE))
    assert data.startswith("\ufeff".encode())
    head, line, end = data.split(b"\r\n")
    assert head.startswith('\ufeff"Created";"Status";"Number";"Text";'.encode()) and end == b""
    assert line.startswith('"05.03.2026 12:00:07";"draft";"\'+79041764995";"Ваш заказ'.encode())


def test_it_is_a_file_to_keep_and_no_cache_keeps_it(boss):
    response = boss.post(PAGE)
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert response["Content-Disposition"].startswith('attachment; filename="sms-20')
    assert "no-store" in response["Cache-Control"]


def test_every_column_parses_back(boss):
    [first] = make(status="sent", gateway_id="17", created_by=boss.user, sent_at=NOON)
    make(resend_of=first, body='semi;colon "quoted"\nsecond line', error_text="=gone")
    second, again = exported(boss)
    assert second["Text"] == 'semi;colon "quoted"\nsecond line' and second["Error"] == "'=gone"
    assert second["Resend of"] == str(first.pk) == again["ID"]
    assert (again["Sent"], again["Finished"]) == ("05.03.2026 12:00:07", "")
    assert (again["Created by"], again["Gateway id"], again["Status"]) == ("boss", "17", "sent")


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@x", "\t=1", "\rx", "\nx", " =1", "\u00a0+1", "＝1", "＋1", "'x", "'=1"],
)
def test_what_a_spreadsheet_would_calculate_is_text(text):
    assert export.safe(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "1", "1+1", "Скидка -10%", "a=b", "a'b", " x"])
def test_other_text_stays_as_it_is(text):
    assert export.safe(text) == text


def test_no_cell_of_the_file_is_a_formula(boss):
    make(
        body='=HYPERLINK("http://x")', sender="@evil", gateway_id="-1", error_text="+1", using="=2"
    )
    User.objects.filter(pk=boss.user.pk).update(username="=boss")
    SmsMessage.objects.update(created_by=boss.user)
    [line] = exported(boss)
    assert not [cell for cell in line.values() if cell.startswith(("=", "+", "-", "@"))]
    assert line["Text"] == '\'=HYPERLINK("http://x")' and line["Created by"] == "'=boss"


def test_in_russian_the_words_are_russian(boss):
    with translation.override("ru"):
        heads = export.headings(export.COLUMNS)
    assert heads[-1] == "ID" and len(set(heads)) == len(heads)


@pytest.mark.parametrize("zone", [True, False])
def test_with_and_without_time_zones(boss, settings, zone):
    settings.USE_TZ = zone
    make(created_at=NOON if zone else NOON.replace(tzinfo=None), expires_at=None)
    assert exported(boss)[0]["Created"] == f"05.03.2026 {'12' if zone else '09'}:00:07"


def test_fifty_thousand_messages_take_a_query_a_batch_and_short_pieces(boss):
    multiply(50_000)
    with CaptureQueriesContext(connection) as none:
        assert not exported(boss, filtered("q=no-such-id"))
    with CaptureQueriesContext(connection) as context:
        found = [(piece.count(b"\r\n"), len(piece)) for piece in boss.post(PAGE).streaming_content]
    assert sum(lines for lines, _size in found) == 50_000 + 1
    assert max(size for _lines, size in found) < export.BATCH * 300
    assert len(context) == len(none) + 50_000 / export.BATCH
    words = LogEntry.objects.order_by("pk").last().change_message
    assert words == "Exported 50000 messages: all messages."


def multiply(number):
    """Double one message until there are so many."""
    make(body="x" * 60, status="sent", created_at=NOON)
    names = [one.column for one in SmsMessage._meta.concrete_fields if one.name not in UNIQUE]
    columns = ", ".join(connection.ops.quote_name(name) for name in names)
    table = SmsMessage._meta.db_table
    have = 1
    with connection.cursor() as cursor:
        while have < number:
            more = min(have, number - have)
            cursor.execute(
                f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table} LIMIT {more}"
            )
            have += more


UNIQUE = ("id", "idempotency_key", "resend_of")


def test_the_memory_is_that_of_one_batch(boss, monkeypatch):
    monkeypatch.setattr(export, "BATCH", 200)
    multiply(4000)
    few = SmsMessage.objects.filter(pk__gt=newest() - 2 * export.BATCH)
    assert peak(SmsMessage.objects.all(), boss.user) < 1.2 * peak(few, boss.user)


def newest():
    return SmsMessage.objects.order_by("-pk").first().pk


def peak(chosen, user):
    """The most bytes that were held while the pieces went by."""
    tracemalloc.start()
    try:
        assert sum(number for _piece, number in export.pieces(chosen, user))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_message_stands_in_the_file_once_though_more_come_meanwhile(boss, monkeypatch):
    monkeypatch.setattr(export, "BATCH", 2)
    old = make(5)
    response = boss.post(PAGE)
    data = b""
    for piece in response.streaming_content:
        data += piece
        make()
    ids = [int(line["ID"]) for line in parsed(data)]
    assert sorted(ids)[: len(old)] == sorted(message.pk for message in old)
    assert ids == sorted(set(ids), reverse=True) and len(ids) <= len(old) + 1


# --- which messages


def test_the_filter_of_the_list_is_the_filter_of_the_file(boss):
    [sent], [_draft] = make(status="sent"), make()
    url = filtered("status__exact=sent&p=7")
    page = boss.get(url).content.decode()
    assert "<strong>1 message</strong> (status: sent)" in page
    assert [line["ID"] for line in exported(boss, url)] == [str(sent.pk)]
    assert noted() == "Exported 1 message: status: sent."


def test_the_search_is_not_noted_with_its_number(boss):
    make()
    make(to="+79041764996")
    assert len(exported(boss, filtered(f"q={NUMBER.replace('+', '%2B')}"))) == 1
    assert noted() == "Exported 1 message: search: •••."


def test_other_filters_of_the_address_are_named(boss):
    make()
    assert not exported(boss, filtered("created_at__lt=2026-01-01"))
    assert noted() == "Exported 0 messages: created_at__lt."


def test_selected_messages_lead_to_the_page_and_to_their_file(boss):
    chosen, _other = make(2)
    data = {"action": "export_selected", "_selected_action": chosen.pk}
    response = boss.post(f"{LIST}?status__exact=draft", data)
    assert response.context["pks"] == str(chosen.pk)
    assert "1 message</strong> (chosen by hand)" in response.content.decode()
    url = response.context["action_url"]
    assert [line["ID"] for line in exported(boss, url, pks=chosen.pk)] == [str(chosen.pk)]


def test_all_selected_messages_are_those_of_the_filter(boss):
    make(3)
    make(status="sent")
    data = {"action": "export_selected", "_selected_action": newest(), "select_across": "1"}
    response = boss.post(f"{LIST}?status__exact=draft", data | {"_selected_action": newest() - 1})
    assert response.context["pks"] == "" and response.context["number"] == 3
    assert len(exported(boss, response.context["action_url"], pks="")) == 3


@pytest.mark.parametrize("pks", ["x", "999999", "-1"])
def test_keys_that_are_none_export_nothing(boss, pks):
    make()
    assert exported(boss, pks=pks) == []
    assert "There is nothing to export." in boss.get(PAGE, {"pks": pks}).content.decode()


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_filter_that_makes_no_sense_is_told_and_nothing_leaves(boss, method):
    response = getattr(boss, method)(filtered("created_at__gte=nonsense"), follow=True)
    assert [str(message) for message in response.context["messages"]] == [
        "This filter is not understood: choose another."
    ]
    assert not LogEntry.objects.exists()


def test_many_messages_are_not_counted_to_the_end(boss, monkeypatch):
    monkeypatch.setattr(export, "COUNTED", 2)
    make(4)
    page = boss.get(PAGE).content.decode()
    assert "more than 2 messages" in page and "1,048,575" in page
    assert len(exported(boss)) == 4


# --- who sees what


def test_without_their_permissions_numbers_are_masked_and_texts_left_out(clerk):
    make()
    client = clerk()
    page = client.get(PAGE).content.decode()
    assert "Numbers are masked" in page and "Texts are left out" in page
    data = content(client.post(PAGE)).decode()
    assert "9041764995" not in data and "заказ" not in data
    [line] = parsed(data.encode())
    assert line["Number"] == "'+7904•••4995" and "Text" not in line


def test_with_them_all_is_there(clerk):
    make()
    client = clerk("see_text", "see_number")
    page = client.get(PAGE).content.decode()
    assert "Numbers are masked" not in page and "Texts are left out" not in page
    [line] = exported(client)
    assert (line["Number"], line["Text"]) == (f"'{NUMBER}", "Ваш заказ готов")


def test_the_list_offers_it_with_its_filter_to_whom_it_is_for(clerk):
    link = f'href="{PAGE}?_changelist_filters=status__exact%3Ddraft"'
    client = clerk()
    assert link in client.get(f"{LIST}?status__exact=draft").content.decode()
    client.user.user_permissions.remove(Permission.objects.get(codename="export_smsmessage"))
    page = client.get(f"{LIST}?status__exact=draft").content.decode()
    assert link not in page and "export_selected" not in page
    assert client.get(PAGE).status_code == client.post(PAGE).status_code == 403


def test_post_needs_the_csrf_token(boss):
    boss.handler.enforce_csrf_checks = True
    assert boss.post(PAGE).status_code == 403
    assert not LogEntry.objects.exists()


# --- the journal


@pytest.mark.django_db(transaction=True)
def test_it_is_noted_before_the_first_byte_and_a_broken_download_with_what_left(boss, monkeypatch):
    monkeypatch.setattr(export, "BATCH", 2)
    make(5)
    response = boss.post(PAGE)
    assert noted() == "Began to export: all messages."
    file = iter(response.streaming_content)
    next(file), next(file)
    response.close()  # and with it the database connection
    assert noted() == "Exported 2 messages: all messages."
    assert LogEntry.objects.get().user == boss.user


def test_get_notes_nothing(boss):
    make()
    boss.get(PAGE)
    assert not LogEntry.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_under_asgi_it_streams_too(monkeypatch):
    """Django warns of a plain iterator, and here warnings are errors."""
    monkeypatch.setattr(export, "BATCH", 2)
    make(5)
    client = AsyncClient()
    client.force_login(User.objects.create_superuser("boss"))

    async def download():
        response = await client.post(PAGE)
        return [piece async for piece in response.streaming_content]

    found = async_to_sync(download)()
    assert len(found) == 1 + ceil(5 / 2)
    assert len(parsed(b"".join(found))) == 5
    assert noted() == "Exported 5 messages: all messages."


def test_times_before_summer_and_after_are_of_one_zone(boss, settings):
    settings.TIME_ZONE = "Europe/Berlin"
    make(created_at=NOON)
    make(created_at=NOON + timedelta(days=120))
    assert [line["Created"][-8:] for line in exported(boss)] == ["11:00:07", "10:00:07"]

"""The export: which messages, what of them, and that spreadsheets only show it."""

import csv
import io
import tracemalloc
from datetime import datetime, timedelta, timezone
from math import ceil
from urllib.parse import urlencode
from zipfile import ZipFile

import pytest
from asgiref.sync import async_to_sync
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.http import StreamingHttpResponse
from django.test import AsyncClient
from django.test.utils import CaptureQueriesContext
from django.utils import translation
from openpyxl import load_workbook

from django_smska.admin import export, recipients, xlsx
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
    assert line.startswith('"05.03.2026 12:00:07";"draft";"79041764995";"Ваш заказ'.encode())


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
    ["=1+1", "+1", "-1", "@x", "＝1", "＋1", "－1", "＠x", "﹢1", "⁼1", "\u22121", "'x", "'=1"],
)
def test_what_a_spreadsheet_would_calculate_is_text(text):
    assert export.safe(text) == f"'{text}"


@pytest.mark.parametrize(
    "before",
    ["\t", "\r", "\n", " ", "\u00a0", "\ufeff", "\u200b", "\u00ad", "\u202e", "\u2060", "\u180e"]
    + [
        "\x00",
        "\x01",
        "\x1b",
        "\x7f",
        "\x85",
        "\ufe0f",
        "\u2800",
        "\u3164",
        "\u200b \t\x02\n\u00ad ",
    ],
)
@pytest.mark.parametrize("formula", ["=1+1", "@SUM(A1)", "＋7", "-2", "0042"])
def test_nothing_that_cannot_be_seen_hides_a_formula(before, formula):
    assert export.safe(before + formula) == f"'{formula}"
    assert export.safe(f"{before}x").startswith("x")


@pytest.mark.parametrize(
    "text",
    [
        "0042",
        "00",
        "12.05",
        "12,5",
        "3E5",
        "3e-5",
        "1E+5",
        "1/2",
        "1 1/2",
        "TRUE",
        "false",
        "Истина",
    ]
    + ["12345678901234567890", "123456789012", "1 000 000", "5%", "10:30", "10:30 PM", "7 p", "5 ₽"]
    + [
        "12.05.2026",
        "2026-05-12",
        "2026-05-12T10:00:00+03:00",
        "1-2",
        "5 мая",
        "Май 5",
        "MAR1",
        "(5)",
    ]
    + ["5 р.", "SEPT2", "#N/A", "#ССЫЛКА!", "10\n20", "٤٢", "1\u00a0000", "8-800-555-35-35"],
)
def test_what_a_spreadsheet_would_change_is_text(text):
    assert export.safe(text) == f"'{text}"


@pytest.mark.parametrize(
    "text",
    ["", "0", "1", "42", "12345678901", "1+1", "Скидка -10%", "a=b", "a'b", "Код: 0042", "Код 4821"]
    + [
        "true story",
        "Мария",
        "№ 5",
        "👨\u200d👩\u200d👧 x",
        "а\nб",
        "5 яблок",
        "заказ 12.05 готов",
    ],
)
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


def test_errors_are_in_the_language_of_the_reader(boss):
    make(error_text="The gateway does not send to this number. Correct the number.")
    with translation.override("ru"):
        error = exported(boss)[0]["Ошибка"]
    assert error.startswith("Сервис SMS") and "number" not in error


@pytest.mark.parametrize("zone", [True, False])
def test_with_and_without_time_zones(boss, settings, zone):
    settings.USE_TZ = zone
    make(created_at=NOON if zone else NOON.replace(tzinfo=None), expires_at=None)
    assert exported(boss)[0]["Created"] == f"05.03.2026 {'12' if zone else '09'}:00:07"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["_csv", "_xlsx"])
def test_fifty_thousand_messages_take_a_query_a_batch_and_short_pieces(boss, kind):
    multiply(50_000)
    ContentType.objects.get_for_model(SmsMessage)  # Django keeps it from its first query on
    with CaptureQueriesContext(connection) as none:
        b"".join(boss.post(filtered("status__exact=cancelled"), {kind: "1"}).streaming_content)
    with CaptureQueriesContext(connection) as context:
        found = list(boss.post(PAGE, {kind: "1"}).streaming_content)
    if kind == "_csv":
        assert sum(piece.count(b"\r\n") for piece in found) == 50_000 + 1
    assert max(map(len, found)) < export.BATCH_ROWS * 300
    assert len(found) > 3
    assert len(context) == len(none) + 50_000 / export.BATCH_ROWS
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
            own = f"CAST(id * 1000000 + {have} AS CHAR(22))"
            cursor.execute(
                f"INSERT INTO {table} (reference, {columns}) "
                f"SELECT {own}, {columns} FROM {table} LIMIT {more}"
            )
            have += more


UNIQUE = ("id", "reference", "idempotency_key", "resend_of")


@pytest.mark.slow
@pytest.mark.parametrize("pieces", [export.csv_pieces, export.xlsx_pieces])
def test_the_memory_is_that_of_one_batch(boss, monkeypatch, pieces):
    monkeypatch.setattr(export, "BATCH_ROWS", 200)
    multiply(4000)
    few = SmsMessage.objects.filter(pk__gt=newest() - 2 * export.BATCH_ROWS)
    peak(pieces(few, boss.user))  # fills the caches, whose size is not in question
    assert peak(pieces(SmsMessage.objects.all(), boss.user)) < 1.2 * peak(pieces(few, boss.user))


def newest():
    return SmsMessage.objects.order_by("-pk").first().pk


def peak(pieces):
    """The most bytes that were held while the pieces went by."""
    tracemalloc.start()
    try:
        assert sum(number for _piece, number in pieces)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_message_stands_in_the_file_once_though_more_come_in_the_meantime(boss, monkeypatch):
    monkeypatch.setattr(export, "BATCH_ROWS", 2)
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
def test_a_filter_that_makes_no_sense_is_reported_and_nothing_leaves(boss, method):
    response = getattr(boss, method)(filtered("created_at__gte=nonsense"), follow=True)
    assert [str(message) for message in response.context["messages"]] == [
        "This filter is not known. Choose another."
    ]
    assert not LogEntry.objects.exists()


@pytest.mark.slow
def test_the_count_is_exact_and_the_warning_is_for_those_whom_it_concerns(boss, monkeypatch):
    multiply(11_915)
    page = boss.get(PAGE).content.decode()
    assert "<strong>11915 messages</strong>" in page and "1,048,575" not in page
    monkeypatch.setattr(export, "MAX_EXCEL_MESSAGES", 11_915)
    assert "1,048,575" not in boss.get(PAGE).content.decode()
    make()
    assert "1,048,575" in boss.get(PAGE).content.decode()


# --- XLSX


def workbook(client, url=PAGE, **data):
    response = client.post(url, data | {"_xlsx": "Download XLSX"})
    return load_workbook(io.BytesIO(content(response)))


def test_an_xlsx_is_a_file_to_keep(boss):
    response = boss.post(PAGE, {"_xlsx": "1"})
    assert response["Content-Type"] == export.XLSX
    assert response["Content-Disposition"].endswith('.xlsx"')
    page = boss.get(PAGE).content.decode()
    assert 'name="_xlsx"' not in page
    make()
    page = boss.get(PAGE).content.decode()
    assert 'name="_xlsx"' in page and 'name="_csv"' in page


def test_every_text_of_an_xlsx_is_text_as_it_was(boss):
    texts = ["0042", "12.05", "3E5", "1/2", "TRUE", "1" * 20, "=1+1", "\ufeff=1", "+7", "#N/A"]
    texts += ["a < b & c > d", " x ", "two\nlines", '"q"', "🎉", "@x", "'=1"]
    for text in texts:
        make(body=text, gateway_id=text.strip("\ufeff \n") or "x", created_by=boss.user)
    heads, *lines = workbook(boss).active.iter_rows()
    found = {head.value: [line[at] for line in lines] for at, head in enumerate(heads)}
    assert [cell.value for cell in reversed(found["Text"])] == texts
    assert {
        cell.data_type for name in ("Text", "Number", "Gateway id") for cell in found[name]
    } == {"s"}
    assert {cell.value for cell in found["Number"]} == {NUMBER}
    assert {cell.data_type for cell in found["ID"]} == {"n"}
    assert found["Created"][0].value.count(".") == 2


def test_what_xml_cannot_hold_is_left_out_of_an_xlsx(boss):
    make(body="a\x01\x1b\ufffeb\r\nc", error_text="_x0041_")
    raw = content(boss.post(PAGE, {"_xlsx": "1"}))
    [_heads, line] = load_workbook(io.BytesIO(raw)).active.iter_rows(values_only=True)
    assert line[3] == "ab\nc"
    with ZipFile(io.BytesIO(raw)) as archive:
        assert "_x005F_x0041_" in archive.read("xl/worksheets/sheet1.xml").decode()


def test_an_xlsx_has_as_many_sheets_as_its_messages_need(boss, monkeypatch):
    monkeypatch.setattr(export, "BATCH_ROWS", 2)
    monkeypatch.setattr(xlsx, "MAX_SHEET_ROWS", 5)
    make(9)
    book = workbook(boss)
    assert [sheet.max_row for sheet in book] == [5, 5, 2]
    assert len({row[0].value for sheet in book for row in sheet.iter_rows(max_row=1)}) == 1
    ids = [row[-1] for sheet in book for row in sheet.iter_rows(min_row=2, values_only=True)]
    assert ids == sorted(ids, reverse=True) and len(set(ids)) == 9


def test_a_sheet_stays_below_what_a_zip_file_holds(boss, monkeypatch):
    monkeypatch.setattr(export, "BATCH_ROWS", 2)
    monkeypatch.setattr(xlsx, "MAX_SHEET_BYTES", 1000)
    make(4, body="x" * 1000)
    assert [sheet.max_row for sheet in workbook(boss)] == [3, 3]


def test_a_cell_is_not_longer_than_excel_allows(boss):
    make(body="x" * 40_000)
    [_heads, line] = workbook(boss).active.iter_rows(values_only=True)
    assert line[3] == "x" * 32_767


def test_an_xlsx_of_nothing_has_its_heads(boss):
    assert workbook(boss).active.max_row == 1


def test_an_xlsx_shows_nothing_that_may_not_be_seen(clerk):
    make()
    [heads, line] = workbook(clerk()).active.iter_rows(values_only=True)
    assert "Text" not in heads and line[heads.index("Number")] == "+7904•••4995"


def test_our_own_reader_reads_what_we_write(boss):
    make()
    make(to="+4915112345678")
    found = recipients.column(content(boss.post(PAGE, {"_xlsx": "1"})))
    assert recipients.read(found.lines).numbers == ["+4915112345678", NUMBER]


def test_numbers_of_a_csv_are_exact_where_a_spreadsheet_makes_numbers_of_them(boss):
    make()
    make(to="+491511234567890")
    make(to="=1+1", gateway_id="0042")
    assert [line["Number"] for line in exported(boss)] == ["'=1+1", "491511234567890", NUMBER[1:]]
    found = recipients.column(content(boss.post(PAGE, {"_csv": "1"})), asked="C")
    assert recipients.read(found.lines).numbers == [NUMBER]


# --- who sees what


def test_without_their_permissions_numbers_are_masked_and_texts_left_out(clerk):
    make()
    client = clerk()
    page = client.get(PAGE).content.decode()
    assert "Numbers are masked" in page and "Texts are left out" in page
    data = content(client.post(PAGE)).decode()
    assert "9041764995" not in data and "заказ" not in data
    [line] = parsed(data.encode())
    assert line["Number"] == "7904•••4995" and "Text" not in line


def test_with_them_all_is_there(clerk):
    make()
    client = clerk("see_text", "see_number")
    page = client.get(PAGE).content.decode()
    assert "Numbers are masked" not in page and "Texts are left out" not in page
    [line] = exported(client)
    assert (line["Number"], line["Text"]) == (NUMBER[1:], "Ваш заказ готов")


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
@pytest.mark.parametrize("kind, number", [("_csv", 2), ("_xlsx", 5)])
def test_it_is_noted_before_the_first_byte_and_a_broken_download_with_what_left(
    boss, monkeypatch, kind, number
):
    """What was packed for an XLSX file counts, too: it may be on its way."""
    monkeypatch.setattr(export, "BATCH_ROWS", 2)
    make(5)
    response = boss.post(PAGE, {kind: "1"})
    assert noted() == "Export started: all messages."
    file = iter(response.streaming_content)
    next(file), next(file)
    response.close()  # and with it the database connection
    assert noted() == f"Exported {number} messages: all messages."
    assert LogEntry.objects.get().user == boss.user


def test_get_notes_nothing(boss):
    make()
    boss.get(PAGE)
    assert not LogEntry.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_under_asgi_it_streams_too(monkeypatch):
    """Django warns of a plain iterator, and here warnings are errors."""
    monkeypatch.setattr(export, "BATCH_ROWS", 2)
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

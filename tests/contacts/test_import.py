"""The import of contacts: what is read from a table, what the page says first, what is stored."""

import io
import re

import pytest
from django.contrib.admin.models import LogEntry
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test.utils import CaptureQueriesContext
from openpyxl import Workbook

from django_smska.admin.recipients import UnclearColumn
from django_smska.contacts import imports, tables
from django_smska.contacts.models import Contact, ContactGroup

from .conftest import ALL
from .test_book import NUMBER, OTHER, make

pytestmark = pytest.mark.django_db

URL = "/admin/smska_contacts/contact/import/"
TABLE = (
    "Дата\tФИО\tТелефон\n"
    "01.02.2026\tАнна Кузнецова\t8 913 400-10-20\n"
    "02.02.2026\tБорис\t8 913 400-10\n"
    "03.02.2026\tВера\t+7 913 400-10-21\n"
    "04.02.2026\tАня\t79134001020\n"
)


def names(text, **asked):
    return tables.read(text.encode(), **asked).names


def html(response):
    assert response.status_code == 200
    return response.content.decode()


def hidden(page):
    """Return what the check page carries, as a browser would send it."""
    import html as entities

    form = page[page.rindex("<form") :]
    found = {}
    for field in re.findall(r'<input type="hidden"[^>]*>', form):
        value = re.search(r'value="([^"]*)"', field)
        found[re.search(r'name="([^"]*)"', field)[1]] = entities.unescape(value[1] if value else "")
    return found


# --- reading


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TABLE, {NUMBER: "Анна Кузнецова", OTHER: "Вера"}),
        ("phone;name\n89134001020;Ann\n", {NUMBER: "Ann"}),
        ("Имя,Отчество,Фамилия,Тел\nАнна,Львовна,Кац,89134001020\n", {NUMBER: "Кац Анна Львовна"}),
        ("Клиент|Телефон|Город\nАнна|89134001020|Омск\n", {NUMBER: "Анна"}),
        ("FirstName\tLastName\tPhone\nAnn\tLee\t89134001020\n", {NUMBER: "Lee Ann"}),
        ("8 913 400-10-20\tАнна\n8 913 400-10-21\tВера\n", {NUMBER: "Анна", OTHER: "Вера"}),
        ("Анна;89134001020\nВера;89134001021\n", {NUMBER: "Анна", OTHER: "Вера"}),
        ("Анна К., тел. 8 913 400-10-20\n", {NUMBER: "Анна К."}),
        ("Анна 8 913 400-10-20\nВера — 8 913 400-10-21\n", {NUMBER: "Анна", OTHER: "Вера"}),
        ("89134001020\n+79134001021\n", {NUMBER: "", OTHER: ""}),
        ("Телефон\tЗаказ\n89134001020\t17\n", {NUMBER: ""}),
        ("Телефон\tИмя\n89134001020\t\n89134001021\tВера\n", {NUMBER: "", OTHER: "Вера"}),
        ("Клиенты\n\nТелефон\tИмя\n89134001020\tАнна\n", {NUMBER: "Анна"}),
    ],
)
def test_numbers_and_names_are_found(text, expected):
    assert names(text) == expected


@pytest.mark.parametrize("text", [TABLE, "Анна 8 913 400-10-20\nВера — 8 913 400-10-21\n"])
def test_what_the_next_page_carries_reads_alike(text):
    """In the same lines."""
    first = tables.read(text.encode())
    again = tables.read(first.text.encode(), "A", first.letter)
    assert again.names == first.names and again.text == first.text
    assert [(one.line, one.why) for one in again.left_out] == [
        (one.line, one.why) for one in first.left_out
    ]


def test_names_with_delimiters_and_quotation_marks_survive_the_next_page():
    text = 'Телефон\tИмя\n89134001020\t"ООО ""Сад; огород"", Омск"\n89134001021\t"a;b|c,d"\n'
    first = tables.read(text.encode())
    assert first.names == {NUMBER: 'ООО "Сад; огород", Омск', OTHER: "a;b|c,d"}
    assert tables.read(first.text.encode(), "A", "B").names == first.names


def test_a_delimiter_in_every_name_divides_nothing_on_the_next_page():
    first = tables.read('89134001020,"Сад; Омск"\n89134001021,"Лес; Тверь"\n'.encode())
    assert first.names == {NUMBER: "Сад; Омск", OTHER: "Лес; Тверь"}
    assert tables.read(first.text.encode(), "A", "B").names == first.names


def test_the_columns_may_be_named():
    text = "Телефон\tИмя\tПрозвище\n89134001020\tАнна\tНюта\n"
    assert names(text, asked_name="C") == {NUMBER: "Нюта"}
    with pytest.raises(ValidationError, match="The table has no column F"):
        names(text, asked_name="F")
    two = "Моб\tТел\tИмя\n89134001020\t89134001021\tАнна\n"
    with pytest.raises(UnclearColumn):
        names(two)
    assert names(two, asked="B") == {OTHER: "Анна"}


def test_a_name_that_is_too_long_is_skipped():
    """Some databases refuse it, and with it all of the import."""
    parts = ["Я" * 90, "Е" * 110]
    table = f"Телефон\tФамилия\tИмя\n{NUMBER}\t{parts[0]}\t{parts[1]}\n{OTHER}\tВера\tПетрова\n"
    found = tables.read(table.encode())
    assert found.names == {OTHER: "Вера Петрова"}
    [one] = found.left_out
    assert one.line == 2 and "at most 200 characters" in one.why
    assert tables.read(found.text.encode(), "A", "B").names == found.names


def test_what_is_skipped_has_its_line_and_reason():
    found = tables.read(TABLE.encode())
    assert [(one.line, one.written) for one in found.left_out] == [
        (3, "8 913 400-10"),
        (5, "79134001020"),
    ]
    assert "11 digits" in found.left_out[0].why
    assert found.left_out[1].why == "The same number as in line 2."
    assert (found.number_title, found.name_title) == ("Телефон", "ФИО")


def test_a_spreadsheet_is_read():
    book, file = Workbook(), io.BytesIO()
    for row in (["Имя", "Мобильный"], ["Анна", 79134001020], ["Вера", "8(913)400-10-21"]):
        book.active.append(row)
    book.save(file)
    assert tables.read(file.getvalue()).names == {NUMBER: "Анна", OTHER: "Вера"}


def test_neither_names_nor_numbers_stand_in_a_report():
    shown = repr(tables.read(TABLE.encode())) + repr(imports.plan({NUMBER: "Анна"}))
    assert "Анна" not in shown and "13400" not in shown and "400-10" not in shown


# --- storing


def test_a_repeated_import_changes_nothing():
    group = ContactGroup.objects.create(name="Сад")
    given = {NUMBER: "Анна", OTHER: ""}
    assert imports.store(given, group=group) == (2, 0, 2)
    before = list(Contact.objects.order_by("pk").values())
    assert imports.store(given, group=group) == (0, 0, 0)
    assert list(Contact.objects.order_by("pk").values()) == before
    assert group.contacts.count() == 2


def test_known_names_stay_unless_they_are_to_be_replaced():
    make(NUMBER, "Анна К.", note="из первого файла")
    make(OTHER)
    given = {NUMBER: "Аня", OTHER: "Вера", "+79134001022": "Глеб"}
    assert imports.store(given) == (1, 1, 0)
    stored = dict(Contact.objects.values_list("number", "name"))
    assert stored == {NUMBER: "Анна К.", OTHER: "Вера", "+79134001022": "Глеб"}
    assert imports.store(given, replace=True) == (0, 1, 0)
    assert Contact.objects.get(number=NUMBER).name == "Аня"
    assert Contact.objects.get(number=NUMBER).note == "из первого файла"


def test_a_blank_name_replaces_none():
    make(NUMBER, "Анна")
    assert imports.store({NUMBER: ""}, replace=True) == (0, 0, 0)
    assert Contact.objects.get().name == "Анна"


def test_where_it_fails_on_the_way_nothing_is_stored(monkeypatch):
    def fail(*args):
        raise RuntimeError

    monkeypatch.setattr(imports, "join", fail)
    with pytest.raises(RuntimeError):
        imports.store({NUMBER: "Анна"}, new_group="Сад")
    assert not Contact.objects.exists() and not ContactGroup.objects.exists()


def test_ten_thousand_need_few_queries():
    given = {f"+7913{at:07}": f"Клиент {at}" for at in range(10_000)}
    with CaptureQueriesContext(connection) as first:
        assert imports.store(given, new_group="Все") == (10_000, 0, 10_000)
    other = {number: f"{name} б" for number, name in given.items()}
    with CaptureQueriesContext(connection) as second:
        assert imports.store(other, new_group="Все", replace=True) == (0, 10_000, 0)
    assert len(first) < 100 and len(second) < 300
    assert Contact.objects.filter(name__endswith="б").count() == 10_000


# --- the pages


def test_a_pasted_table_is_shown_first_and_stored_then(log_in):
    client = log_in(*ALL)
    make(OTHER, "Вера старая")
    data = {"numbers": TABLE, "new_group": "Февраль", "_check": "1"}
    page = html(client.post(URL, data))
    assert "1 contact will be added." in page and "1 is known already." in page
    assert "2 lines are skipped." in page and "The names come from the column “ФИО”." in page
    assert "1 contact is known with another name, which stays." in page
    assert "+7 913 400-10-21" in page and "Вера старая" in page
    assert "All of them come into the group “Февраль”." in page
    assert Contact.objects.count() == 1 and not ContactGroup.objects.exists()
    said = html(client.post(URL, hidden(page) | with_text(page) | {"_add": "1"}, follow=True))
    assert "1 contact was added. 2 contacts came into the group “Февраль”." in said
    anna = Contact.objects.get(number=NUMBER)
    assert anna.name == "Анна Кузнецова" and anna.created_by == client.user
    assert Contact.objects.get(number=OTHER).name == "Вера старая"
    assert ContactGroup.objects.get().contacts.count() == 2
    [entry] = LogEntry.objects.all()
    assert "1 contact was added." in entry.change_message and "Анна" not in str(entry)


def with_text(page):
    """Django writes the hidden table as an input, whose value has line breaks."""
    import html as entities

    found = re.search(r'<input type="hidden" name="numbers" value="([^"]*)"', page)
    return {"numbers": entities.unescape(found[1])}


def test_a_file_is_carried_on_as_a_table(log_in):
    client = log_in(*ALL)
    file = SimpleUploadedFile("clients.csv", TABLE.replace("\t", ";").encode("windows-1251"))
    page = html(client.post(URL, {"file": file, "replace": "on", "_check": "1"}))
    carried = hidden(page) | with_text(page)
    assert carried["replace"] == "True" and carried["column_letter"] == "A"
    html(client.post(URL, carried | {"_add": "1"}, follow=True))
    assert dict(Contact.objects.values_list("number", "name")) == {
        NUMBER: "Анна Кузнецова",
        OTHER: "Вера",
    }


def test_back_shows_the_table_and_forgets_its_columns(log_in):
    client = log_in(*ALL)
    page = html(client.post(URL, {"numbers": TABLE, "_check": "1"}))
    page = html(client.post(URL, hidden(page) | with_text(page) | {"_back": "1"}))
    assert "Анна Кузнецова" in page and "<textarea" in page
    assert 'name="column_letter" value=' not in page and not Contact.objects.exists()


def test_an_unclear_column_is_asked_for(log_in):
    client = log_in(*ALL)
    two = "Моб\tТел\tИмя\n89134001020\t89134001021\tАнна\n"
    page = html(client.post(URL, {"numbers": two, "_check": "1"}))
    assert "It is not clear which column" in page and '<select name="column_letter"' in page
    page = html(client.post(URL, {"numbers": two, "column_letter": "B", "_check": "1"}))
    assert "The numbers come from the column “Тел”." in page


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "Paste a table, or choose a file."),
        ({"numbers": "Имя\tТелефон\nАнна\t8913\n"}, "Line 2"),
        ({"numbers": TABLE, "group": "VIP", "new_group": "Сад"}, "not both"),
        ({"numbers": TABLE, "name_letter": "Z"}, "The table has no column Z."),
        ({"numbers": TABLE, "new_group": "x" * 101}, "at most 100 characters"),
        ({"numbers": TABLE, "file": "both"}, "Paste a table above or upload a file, not both."),
    ],
)
def test_what_cannot_be_imported_is_refused_with_the_reason(log_in, data, words):
    group = ContactGroup.objects.create(name="VIP")
    data = dict(data)
    if "group" in data:
        data["group"] = group.pk
    if "file" in data:
        data["file"] = SimpleUploadedFile("a.csv", b"1")
    page = html(log_in(*ALL).post(URL, data | {"_add": "1"}))
    assert words in page and not Contact.objects.exists()


def test_who_may_add_no_group_is_not_offered_one(log_in):
    client = log_in(*(set(ALL) - {"add_contactgroup"}))
    assert "new_group" not in html(client.get(URL))
    client.post(URL, {"numbers": TABLE, "new_group": "Сад", "_add": "1"})
    assert Contact.objects.count() == 2 and not ContactGroup.objects.exists()

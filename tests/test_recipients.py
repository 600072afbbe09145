"""Numbers out of pasted text and out of tables."""

import io
import sys
import zipfile

import pytest
from django.core.exceptions import ValidationError
from openpyxl import Workbook

from django_smska import recipients
from django_smska.recipients import column, read

ONE, TWO, THREE = "+79041764995", "+79041764996", "+79041764997"


def left_out(found):
    return [(one.line, one.written) for one in found]


@pytest.mark.parametrize(
    "text",
    [
        "8 904 176-49-95\n8 904 176-49-96",
        "+7(904)1764995\r\n+7(904)1764996\r\n",
        "89041764995,9041764996",
        "8 904 176-49-95; 8 (904) 176 49 96;",
        "\n\n  79041764995 \t 79041764996",
        '\'+79041764995\n="+79041764996"',
        "\u00a08\u00a0904\u00a0176\u201149\u201195\n8.904.176.49.96",
    ],
)
def test_numbers_are_read_in_any_spelling(text):
    found = read(text)
    assert found.numbers == [ONE, TWO] and not found.bad and not found.doubled


def test_doubled_and_bad_numbers_are_told_with_their_lines_and_why():
    found = read("8 904 176-49-95\nIvan\n\n+7 904 176 49 95, 8904176\n89041764996")
    assert found.numbers == [ONE, TWO]
    assert left_out(found.doubled) == [(4, "+7 904 176 49 95")]
    assert str(found.doubled[0].why) == "The same number as in line 1."
    assert left_out(found.bad) == [(2, "Ivan"), (4, "8904176")]
    assert "only digits" in found.bad[0].why and "11 digits" in found.bad[1].why


@pytest.mark.parametrize("text", ["7,90418E+10", "7.90418E+10", "7,90418e+10; 89041764996"])
def test_a_number_that_a_spreadsheet_has_shortened_is_told_to_be_one(text):
    bad = read(text).bad
    assert len(bad) == 1 and "A spreadsheet has shortened this number" in bad[0].why


def test_there_is_a_limit(monkeypatch):
    monkeypatch.setattr(recipients, "MOST", 3)
    assert len(read("89041764995\n1\n2").bad) == 2
    with pytest.raises(ValidationError, match="more than 3 numbers"):
        read("89041764995\n1\n2\n3")


# --- CSV


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "windows-1251", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_is_read_with_any_delimiter_and_encoding(encoding, delimiter):
    table = [["Имя", "Телефон"], ["Иван", "8 904 176-49-95"], ["Ёж", "+79041764996"]]
    data = "\r\n".join(delimiter.join(row) for row in table).encode(encoding)
    taken = column(data)
    assert taken == ("Телефон", "\n8 904 176-49-95\n+79041764996")
    assert read(taken.lines).numbers == [ONE, TWO]


@pytest.mark.parametrize(
    "head",
    ["phone", "Phone number", "PHONE_NUMBER", "tel", "Tel.", "mobile", "msisdn", "Номер"]
    + ["Телефон 1", "Моб. тел.", "Сотовый"],
)
def test_the_column_is_found_by_its_head(head):
    """Even where another one has more numbers."""
    data = f"Старый,{head},Отель\n{ONE},{TWO},1\n{ONE},,2".encode()
    assert column(data) == (head, f"\n{TWO}\n")


@pytest.mark.parametrize("head", ["Hotel", "Автомобиль", "Сотрудник", "Контакт"])
def test_without_a_telling_head_it_is_the_column_with_most_numbers(head):
    data = f"{head};Связь\nx;{ONE}\n{TWO};{THREE}".encode()
    assert column(data) == ("Связь", f"\n{ONE}\n{THREE}")


def test_a_telling_head_over_no_numbers_is_not_followed():
    data = f"Номер заказа;Контакт\n17;{ONE}\n18;{TWO}".encode()
    assert column(data).title == "Контакт"


def test_a_table_without_a_head_loses_no_number():
    assert column(f"1;{ONE}\n2;{TWO}".encode()) == ("2", f"{ONE}\n{TWO}")
    assert column(f"{ONE}\n{TWO}\n".encode()) == ("1", f"{ONE}\n{TWO}")
    assert column(b"8904176\n89041764996").lines.startswith("8904176\n")


def test_a_line_is_a_row_of_the_table():
    """Whatever stands in its cells: blank rows, line ends in quotes, a few numbers in a cell."""
    data = f'Phone;Note\n\n"{ONE}";"a\nb"\n"x\ny";\n"{TWO},{THREE}";'.encode()
    found = read(column(data).lines)
    assert found.numbers == [ONE, TWO, THREE]
    assert left_out(found.bad) == [(4, "x y")]


def test_a_comma_in_the_head_does_not_hide_the_semicolons():
    data = f"Имя, фамилия;Телефон\nИван;{ONE}".encode()
    assert column(data).title == "Телефон"


def test_a_long_cell_is_cut_and_so_no_number():
    found = read(column(f"{ONE}\n{TWO}{' ' * 1000}x{'9' * 1000}".encode()).lines)
    assert found.numbers == [ONE] and len(found.bad[0].written) == recipients.LONGEST + 1


@pytest.mark.parametrize(
    "data, words",
    [
        (b"\x89PNG\0\0", "cannot be read"),
        (b'"' + b"x" * 200_000, "cannot be read"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "old Excel file"),
        (b"PK\x03\x04 cut short", "cannot be read"),
        (b"\n\n", "The file is empty"),
        (b"1\n" * (recipients.MOST + 2), "more than 10000 rows"),
        (b"1" * (recipients.LARGEST + 1), "too large"),
    ],
)
def test_what_is_no_table_is_refused_with_words(data, words):
    with pytest.raises(ValidationError, match=words):
        column(data)


def test_ten_thousand_rows_under_a_head_are_taken():
    lines = column(b"phone\n" + b"1\n" * recipients.MOST).lines
    assert len(read(lines).bad) == recipients.MOST


# --- XLSX


def xlsx(*rows):
    book = Workbook()
    for row in rows:
        book.active.append(row)
    data = io.BytesIO()
    book.save(data)
    return data.getvalue()


def test_an_xlsx_is_read_also_where_numbers_are_numbers():
    data = xlsx(["Name", "Phone"], ["A", 79041764995], ["B", None], ["C", "8 904 176-49-96"])
    assert column(data) == ("Phone", "\n79041764995\n\n8 904 176-49-96")
    assert read(column(xlsx([79041764995.0], [89041764996])).lines).numbers == [ONE, TWO]


def test_an_archive_that_is_no_xlsx_is_refused():
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("letter.txt", "hello")
    with pytest.raises(ValidationError, match="cannot be read"):
        column(data.getvalue())


def test_an_xlsx_that_swells_is_refused():
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", b"0" * (recipients.UNPACKED + 1))
    assert len(data.getvalue()) < 100_000
    with pytest.raises(ValidationError, match="too large"):
        column(data.getvalue())


def test_an_xlsx_with_more_rows_is_not_read_to_its_end():
    with pytest.raises(ValidationError, match="more than 10000 rows"):
        column(xlsx(*[[1]] * (recipients.MOST + 2)))


def test_without_openpyxl_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ValidationError, match=r"administrator to install django-smska\[xlsx\]"):
        column(xlsx([ONE]))

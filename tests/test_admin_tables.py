"""Files as rows: what is read of them, what is left out, and that nothing swells."""

import io
import tracemalloc
from zipfile import ZIP_DEFLATED, ZIP_LZMA, ZipFile, ZipInfo

import pytest
from django.core.exceptions import ValidationError
from openpyxl import Workbook

from django_smska.admin import pasted_lines, recipients, tables
from django_smska.admin.recipients import column, read
from django_smska.numbers import normalize

ONE, TWO, THREE = "+79041764995", "+79041764996", "+79041764997"
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
A_ROW = f'<row><c t="inlineStr"><is><t>{ONE}</t></is></c></row>'
MILLION = 1_000_000


def xlsx(*rows, edit=lambda book: None):
    """A file as another program writes it."""
    book = Workbook()
    book.active.title = "Лист1"
    for row in rows:
        book.active.append(row)
    edit(book)
    data = io.BytesIO()
    book.save(data)
    return data.getvalue()


def packed(rows=A_ROW, method=ZIP_DEFLATED, **parts):
    """A file made by hand; ``parts`` take the place of others, or stand beside them."""
    sheets = '<sheet name="One" sheetId="1" r:id="rId1"/>'
    whole = {
        "rels": f'<Relationships><Relationship Id="rId1" Type="{RELATIONS}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "book": f'<workbook xmlns:r="{RELATIONS}"><sheets>{sheets}</sheets></workbook>',
        "links": f'<Relationships><Relationship Id="rId1" Type="{RELATIONS}/worksheet" '
        f'Target="worksheets/sheet1.xml"/><Relationship Id="rId2" Type="{RELATIONS}/sharedStrings" '
        'Target="/xl/sharedStrings.xml"/></Relationships>',
        "strings": "<sst/>",
        "sheet": f"<worksheet><sheetData>{rows}</sheetData></worksheet>",
    } | parts
    names = {
        "rels": "_rels/.rels",
        "book": "xl/workbook.xml",
        "links": "xl/_rels/workbook.xml.rels",
        "strings": "xl/sharedStrings.xml",
        "sheet": "xl/worksheets/sheet1.xml",
        "styles": "xl/styles.xml",
    }
    data = io.BytesIO()
    with ZipFile(data, "w", method) as archive:
        for name, content in whole.items():
            archive.writestr(names[name], content)
    return data.getvalue()


def part(name):
    with ZipFile(io.BytesIO(packed())) as archive:
        return archive.read(name).decode()


def rows(data):
    return list(tables.read(data).rows())


# --- XLSX: what is read


def test_numbers_may_be_numbers_texts_and_what_formulas_gave():
    data = xlsx(["Name", "Phone"], ["A", 79041764995], ["B", None], ["C", "8 904 176-49-96"])
    found = column(data)
    assert (found.title, found.lines) == ("Phone", "\n79041764995\n\n8 904 176-49-96")
    assert read(column(xlsx([79041764995.0], [89041764996])).lines).numbers == [ONE, TWO]


@pytest.mark.parametrize(
    "cell",
    [
        "<c><v>79041764995</v></c>",
        "<c><v>7.9041764995E10</v></c>",
        "<c><v>79041764995.0</v></c>",
        '<c t="str"><f>CONCAT("+", A2)</f><v>+79041764995</v></c>',
        '<c t="inlineStr"><is><r><t>+7904</t></r><r><t>1764995</t></r></is></c>',
        '<c t="s"><v>1</v></c>',
        '<c t="s"><v>2</v></c>',
        "<c><v>7904&#49;764995</v></c>",
        '<c r="C1"><v>79041764995</v></c>',
    ],
)
def test_a_number_is_read_however_it_is_kept(cell):
    strings = (
        "<sst><si><t>x</t></si><si><t>+7904</t><rPh><t>no</t></rPh><t>1764995</t></si>"
        "<si><t>8904\n1764995_x000D_</t></si></sst>"
    )
    data = packed(f'<row r="3">{cell}</row>', strings=strings)
    assert read(column(data).lines).numbers == [ONE]
    [(line, _cells)] = rows(data)
    assert line == 3


def test_other_namespaces_and_encodings_are_read():
    sheet = f"<x:worksheet><x:sheetData>{A_ROW}</x:sheetData></x:worksheet>"
    sheet = sheet.replace("<row", "<x:row").replace("</row", "</x:row").replace("<c ", "<x:c ")
    sheet = sheet.replace("</c>", "</x:c>").replace("<is><t>", "<x:is><x:t>")
    sheet = sheet.replace("</t></is>", "</x:t></x:is>")
    assert read(column(packed(sheet=sheet.encode("utf-16"))).lines).numbers == [ONE]


def test_a_line_is_a_row_of_the_sheet_where_rows_are_missing():
    data = packed('<row r="2"><c><v>89041764995</v></c></row><row r="5"><c><v>1</v></c></row>')
    assert column(data).lines == "\n89041764995\n\n\n1"
    assert [one.line for one in read(column(data).lines).bad] == [5]


def test_macros_are_no_obstacle_and_not_read():
    data = io.BytesIO(packed())
    with ZipFile(data, "a") as archive:
        archive.writestr("xl/vbaProject.bin", b"\0" * 1000)
    assert read(column(data.getvalue()).lines).numbers == [ONE]


# --- XLSX: what is left out


def test_rows_that_a_filter_hides_get_nothing_and_are_counted():
    def edit(book):
        sheet = book.active
        sheet.auto_filter.ref = "A1:B5"
        sheet.row_dimensions[3].hidden = True
        sheet.row_dimensions.group(5, 6, hidden=True)

    people = [["Имя", "Телефон"], ["A", ONE], ["B", TWO], ["C", THREE], ["D", TWO]]
    found = column(xlsx(*people, edit=edit))
    assert found.lines == f"\n{ONE}\n\n{THREE}"
    assert found.notes == ["Left out: 2 hidden rows."]


def test_hidden_columns_get_nothing_and_are_named():
    def edit(book):
        dimensions = book.active.column_dimensions
        dimensions["B"].hidden = True
        dimensions.group("D", "E", hidden=True)

    heads = ["Имя", "Телефон", "Контакт", "Телефон 2", "x", "y"]
    found = column(xlsx(heads, ["A", ONE, TWO, ONE, "x", "y"], edit=edit))
    assert (found.title, found.lines) == ("Контакт", f"\n{TWO}")
    assert found.notes == ["Left out: hidden columns B, D, E."]


def test_what_has_no_width_or_height_is_hidden():
    flat = f'<row ht="0" customHeight="1">{A_ROW[5:]}'
    columns = '<cols><col min="2" max="16384" width="0" customWidth="1"/></cols>'
    cells = f"<row><c><v>79041764996</v></c>{A_ROW[5:]}"
    data = packed(sheet=f"<worksheet>{columns}<sheetData>{flat}{cells}</sheetData></worksheet>")
    assert read(column(data).lines).numbers == [TWO]
    assert column(data).notes == ["Left out: 1 hidden row.", "Left out: hidden columns B."]


def test_a_range_of_columns_may_begin_anywhere():
    """This one would be ten billion columns long."""
    columns = '<cols><col min="-9999999999" max="1" hidden="1"/></cols>'
    data = packed(sheet=f"<worksheet>{columns}<sheetData>{A_ROW}</sheetData></worksheet>")
    assert tables.read(data).hidden_columns == {0}


def test_a_number_beyond_all_others_is_left_as_it_is():
    data = packed(f"<row><c><v>1E999999999</v></c></row>{A_ROW}")
    assert [cells for _line, cells in rows(data)] == [["1E999999999"], [ONE]]


def test_a_table_without_numbers_says_that_some_are_hidden():
    def edit(book):
        book.active.column_dimensions["B"].hidden = True

    with pytest.raises(ValidationError) as refused:
        column(xlsx(["Имя", "Телефон"], ["A", ONE], edit=edit))
    assert refused.value.messages[1] == "Left out: hidden columns B."


def test_the_first_sheet_that_can_be_seen_is_read_and_the_others_are_named():
    def edit(book):
        book.active.sheet_state = "hidden"
        for title in ("Архив", "Пустой", "Май", "Июнь"):
            book.create_sheet(title).append([TWO] if title != "Пустой" else [])
        book["Архив"].sheet_state = "veryHidden"

    found = column(xlsx([ONE], edit=edit))
    assert read(found.lines).numbers == [TWO]
    assert found.notes == [
        "Only the sheet “Май” was read.",
        "Left out: hidden sheets “Лист1”, “Архив”.",
        "Left out: other sheets “Пустой”, “Июнь”.",
    ]


def test_a_file_of_hidden_sheets_is_refused():
    book = part("xl/workbook.xml").replace("<sheet ", '<sheet state="veryHidden" ')
    with pytest.raises(ValidationError, match="All sheets of this file are hidden"):
        column(packed(book=book))


def test_of_many_names_some_are_listed():
    def edit(book):
        for number in range(30):
            book.create_sheet(f"S{number}")

    read, note = column(xlsx([ONE], edit=edit)).notes
    assert read == "Only the sheet “Лист1” was read." and note.endswith("“S9”, +20.")


# --- what is no table


def nested():
    data = io.BytesIO()
    with ZipFile(data, "w") as archive:
        archive.writestr("people.xlsx", packed())
    return data.getvalue()


def locked():
    data = bytearray(packed())
    for start in (data.find(b"PK\x03\x04") + 6, data.find(b"PK\x01\x02") + 8):
        data[start] |= 1
    return bytes(data)


ENTITIES = '<!DOCTYPE x [<!ENTITY a "99"><!ENTITY b "&a;&a;">]>'


@pytest.mark.parametrize(
    "data, words",
    [
        (b"\x89PNG\0\0", "cannot be read"),
        (b'a;"b\n1;2\n', "quotation mark in this file is opened and never closed"),
        (b'"' + b"x" * 200_000, "A row of this file is too long"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "old Excel file, or one with a password"),
        (b"PK\x03\x04 cut short", "cannot be read"),
        (b"PK\x05\x06" + b"\0" * 18, "cannot be read"),
        (b"\n\n", "The file is empty"),
        (b"<html><table><tr><td>89041764995", "cannot be read"),
        (b"%PDF-1.7 89041764995", "cannot be read"),
        (b"1\n" * (tables.MAX_ROWS + 2), "more than 10000 rows"),
        (b"\n" * (tables.MAX_LINES + 1), "more than 100000 rows"),
        (b"1;" * 300 + b"1\n2\n", "more than 200 columns"),
        (b"1" * (tables.MAX_FILE_BYTES + 1), "too large"),
        (nested(), "cannot be read"),
        (locked(), "cannot be read"),
        (packed()[:-100], "cannot be read"),
        (packed(method=ZIP_LZMA), "cannot be read"),
        (packed(book="<workbook"), "cannot be read"),
        (packed(links="<Relationships/>"), "The file is empty"),
        (packed(sheet=f"{ENTITIES}<worksheet/>"), "cannot be read"),
        (packed(strings=f"{ENTITIES}<sst><si><t>&b;</t></si></sst>"), "cannot be read"),
        (packed('<row><c t="s"><v>7</v></c></row>'), "cannot be read"),
        (packed('<row><c r="ZZZZ1"><v>7</v></c></row>'), "cannot be read"),
        (packed('<row r="5"/><row r="5"/>'), "cannot be read"),
        (packed('<row r="1048576"><c><v>7</v></c></row>'), "more than 100000 rows"),
        (packed('<row><c r="XFD1"><v>7</v></c></row>'), "more than 200 columns"),
    ],
)
def test_what_is_no_table_is_refused_with_words(data, words):
    with pytest.raises(ValidationError, match=words):
        column(data)


def test_links_that_lead_out_of_the_file_are_not_followed():
    links = part("xl/_rels/workbook.xml.rels")
    outside = links.replace("worksheets/sheet1.xml", "../../../../etc/passwd")
    with pytest.raises(ValidationError, match="cannot be read"):
        column(packed(links=outside))
    external = links.replace('Id="rId1"', 'Id="rId1" TargetMode="External"')
    with pytest.raises(ValidationError, match="is empty"):
        column(packed(links=external))


@pytest.mark.slow
def test_ten_thousand_rows_under_a_title_and_a_head_are_read():
    lines = column(b"list\n\nphone\n" + b"1\n" * tables.MAX_ROWS).lines
    assert len(read(lines).bad) == tables.MAX_ROWS


@pytest.mark.slow
def test_a_long_sheet_of_which_a_filter_shows_little_is_read():
    hidden = '<row hidden="1"><c><v>79041764996</v></c></row>'
    found = column(packed(hidden * 30_000 + A_ROW + hidden * 30_000))
    assert read(found.lines).numbers == [ONE]
    assert found.notes == ["Left out: 60000 hidden rows."]


# --- bounds


def attributes(number):
    return " ".join(f'a{at}=""' for at in range(number))


SWOLLEN = {
    "cells": lambda: packed(f"<row>{'<c/>' * 3 * MILLION}</row>"),
    "rows": lambda: packed("<row/>" * 2 * MILLION),
    "hidden rows": lambda: packed('<row hidden="1"><c><v>1</v></c></row>' * 400_000),
    "cells with long texts": lambda: packed(
        '<row><c t="s"><v>0</v></c></row>' * 9000 * 11,
        strings=f"<sst><si><t>{'я' * 99}</t></si></sst>",
    ),
    "strings": lambda: packed(strings=f"<sst>{'<si/>' * 3 * MILLION}</sst>"),
    "long strings": lambda: packed(
        strings=f"<sst>{('<si><t>' + 'я' * 60 + '</t></si>') * 100_000}</sst>"
    ),
    "one string": lambda: packed(strings=f"<sst><si><t>{'9' * 40 * MILLION}</t></si></sst>"),
    "columns": lambda: packed(
        sheet="<worksheet><cols>" + '<col min="1" max="16384" hidden="1"/>' * 300_000
    ),
    "an attribute": lambda: packed(f'<row x="{"9" * 20 * MILLION}"/>'),
    "attributes": lambda: packed(f"<row {attributes(300_000)}/>"),
    "names": lambda: packed("".join(f"<a{at}/>" for at in range(300_000))),
    "a comment": lambda: packed(f"<!--{'x' * 20 * MILLION}-->"),
    "depth": lambda: packed("<a>" * MILLION),
    "sheets": lambda: packed(
        book=f'<workbook xmlns:r="{RELATIONS}"><sheets>'
        + '<sheet name="One" r:id="rId1"/>' * 300_000
    ),
    "links": lambda: packed(
        links="<Relationships>"
        + "".join(
            f'<Relationship Id="{at}" Type="/worksheet" Target="a"/>' for at in range(100_000)
        )
    ),
    "members": lambda: many_members(),
}


def many_members():
    data = io.BytesIO(packed())
    with ZipFile(data, "a") as archive:
        for number in range(5000):
            archive.writestr(ZipInfo(str(number)), "")
    return data.getvalue()


@pytest.fixture
def read_from_archives(monkeypatch):
    """The numbers of unpacked bytes, one for each time that a part was read on."""
    sizes = []

    class Counting(ZipFile):
        def open(self, *args, **kwargs):
            stream = super().open(*args, **kwargs)
            read = stream.read

            def counted(size):
                data = read(size)
                sizes.append(len(data))
                return data

            stream.read = counted
            return stream

    monkeypatch.setattr(tables, "ZipFile", Counting)
    return sizes


def peak(data):
    tracemalloc.start()
    try:
        with pytest.raises(ValidationError, match="too large"):
            column(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("name", SWOLLEN)
def test_an_xlsx_that_swells_is_refused_before_it_does(name, read_from_archives, monkeypatch):
    """The bounds are a tenth of the real ones, so that the test is quick."""
    for bound in ("MAX_UNPACKED_BYTES", "MAX_ELEMENTS", "MAX_KEPT_CHARACTERS"):
        monkeypatch.setattr(tables, bound, getattr(tables, bound) // 10)
    assert peak(SWOLLEN[name]()) < 6 * MILLION
    assert sum(read_from_archives) <= tables.MAX_UNPACKED_BYTES + tables.CHUNK_BYTES
    assert max(read_from_archives, default=0) <= tables.CHUNK_BYTES


@pytest.mark.parametrize(
    "bound, value, data",
    [
        ("MAX_ELEMENTS", 1000, packed(f"<row>{'<c/>' * 2000}</row>")),
        (
            "MAX_KEPT_CHARACTERS",
            1000,
            packed(strings=f"<sst>{'<si><t>123456789</t></si>' * 300}</sst>"),
        ),
        (
            "MAX_UNPACKED_BYTES",
            2 * tables.CHUNK_BYTES,
            packed(f"<row>{' ' * 3 * tables.CHUNK_BYTES}</row>"),
        ),
        ("MAX_ELEMENTS", MILLION, packed(sheet="<worksheet>" + '<col min="1" max="9"/>' * 20_001)),
    ],
)
def test_each_bound_holds_alone(monkeypatch, bound, value, data):
    monkeypatch.setattr(tables, bound, value)
    with pytest.raises(ValidationError, match="too large"):
        column(data)


@pytest.mark.slow
def test_a_large_table_is_looked_at_here_and_there(monkeypatch):
    looked_at = []

    def counting(written):
        looked_at.append(written)
        return normalize(written)

    monkeypatch.setattr(pasted_lines, "normalize", counting)
    with pytest.raises(ValidationError, match="not clear"):
        column(f"x;y;{';'.join([ONE] * 30)}\n".encode() * 10_000)
    assert len(looked_at) <= recipients.SAMPLE_CELLS


@pytest.mark.parametrize(
    "parts",
    [
        {"styles": f"<styleSheet><cellXfs>{'<xf/>' * 2 * MILLION}"},
        {
            "book": part("xl/workbook.xml").replace("</workbook>", "<definedNames>")
            + "<definedName/>" * MILLION
        },
        {"sheet": f"<worksheet><sheetData>{A_ROW}</sheetData><mergeCells>{'<m/>' * MILLION}"},
        {
            "sheet": '<worksheet><dimension ref="A1:XFD1048576"/><sheetData>'
            f"{A_ROW}</sheetData></worksheet>"
        },
    ],
    ids=["styles", "names", "merged", "dimension"],
)
def test_what_is_not_needed_is_not_unpacked(parts, read_from_archives):
    assert read(column(packed(**parts)).lines).numbers == [ONE]
    assert sum(read_from_archives) <= 4 * tables.CHUNK_BYTES


@pytest.mark.slow
@pytest.mark.parametrize(
    "data, words",
    [
        (b"x" * 4_900_000, "too long"),
        (b";" * 4_900_000, "too long"),
        (b"ab;" * 1_600_000, "too long"),
        (b'"a";"b\n' * 600_000, "too long"),
        (b'"' * 4_900_000, "too long"),
        ((b"ab;" * 30_000 + b"\n") * 50, "more than 200 columns"),
        (b"\n" * 4_900_000, "more than 100000 rows"),
        (b"\0" * 4_900_000, "cannot be read"),
        (("😀" * 60 + ";x\n").encode() * 20_000, "more than 10000 rows"),
        (("я;" * 150 + "\n").encode() * 4_000, "No column"),
    ],
)
def test_a_csv_takes_little_more_memory_than_its_bytes(data, words):
    tracemalloc.start()
    try:
        with pytest.raises(ValidationError, match=words):
            column(data)
        assert tracemalloc.get_traced_memory()[1] < 25 * MILLION
    finally:
        tracemalloc.stop()

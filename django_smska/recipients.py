"""Numbers as people have them: pasted in any spelling, or a column of a CSV or XLSX file."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple
from zipfile import ZipFile

from django.core.exceptions import ValidationError
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .numbers import normalize

MOST = 10_000  # numbers at a time
LARGEST = 5_000_000  # bytes of a file
UNPACKED = 30_000_000  # bytes of what is in an XLSX file, which is an archive
COLUMNS = 100
LONGEST = 60  # characters of a cell: longer ones are no number, and would swell the page
SAMPLE = 1000  # rows by which the column is chosen

# What spreadsheets put around a number to keep it text: '+7904…, ="+7904…".
_WRAPPING = " \u00a0'\"="
# A comma stands in a number that a spreadsheet has shortened, too: 7,90418E+10.
_SHORTENED = re.compile(r"[0-9]E\+[0-9]+$", re.IGNORECASE)
_BETWEEN = re.compile(r"[;\t]|,(?![0-9]+E\+[0-9])", re.IGNORECASE)
_PHONE_HEAD = re.compile(
    r"phone|number|mobile|msisdn|\btel|телефон|номер|\bтел\b|\bмоб|сотов", re.IGNORECASE
)


@dataclass(frozen=True)
class LeftOut:
    """A number that gets nothing. ``line``: counted from 1; ``why``: in words."""

    line: int
    written: str = field(repr=False)  # logs and reports show what stands here without it
    why: str


@dataclass(frozen=True)
class Recipients:
    """``numbers``: as E.164, each once, in their order."""

    numbers: list[str] = field(default_factory=list, repr=False)
    doubled: list[LeftOut] = field(default_factory=list)
    bad: list[LeftOut] = field(default_factory=list)


class Column(NamedTuple):
    """``lines``: a cell each, so that a cell's line is its row in the file."""

    title: str
    lines: str

    def __repr__(self) -> str:
        return f"<Column {self.title!r}>"


def read(text: str) -> Recipients:
    """Read numbers that stand on lines of their own, or between commas, semicolons or tabs.

    Raises ``ValidationError`` if there are more than ``MOST``.
    """
    found = Recipients()
    lines: dict[str, int] = {}
    for index, (line, written) in enumerate(_entries(text)):
        if index == MOST:
            raise ValidationError(
                _("These are more than %(most)s numbers. Send them in parts."),
                code="too_many",
                params={"most": MOST},
            )
        try:
            number = _number(written)
        except ValidationError as error:
            found.bad.append(LeftOut(line, written, " ".join(error.messages)))
            continue
        if number in lines:
            why = gettext("The same number as in line %s.") % lines[number]
            found.doubled.append(LeftOut(line, written, why))
            continue
        lines[number] = line
        found.numbers.append(number)
    return found


def _entries(text: str) -> Iterator[tuple[int, str]]:
    for line, words in enumerate(text.splitlines(), start=1):
        for piece in _BETWEEN.split(words):
            if written := piece.strip(_WRAPPING):
                yield line, written


def _number(written: str) -> str:
    if _SHORTENED.search(written):
        raise ValidationError(
            _("A spreadsheet has shortened this number: give its column the format “text” there.")
        )
    return normalize(written)


def _is_number(cell: str) -> bool:
    try:
        return bool(_number(cell.strip(_WRAPPING)))
    except ValidationError:
        return False


# --- files ----------------------------------------------------------------------------------------


def column(data: bytes) -> Column:
    """Take the column with the numbers out of a CSV file (comma, semicolon or tab; UTF-8, UTF-16
    or windows-1251) or of the first sheet of an XLSX file.

    It is the one whose head speaks of phones, otherwise the one with the most numbers. Raises
    ``ValidationError`` with the cure for what cannot be read or is too large.
    """
    if len(data) > LARGEST:
        raise _too_large()
    rows = [[_cell(value) for value in row] for row in _rows(data)]
    if len(rows) > MOST + 1:
        raise ValidationError(_("The file has more than %s rows. Send them in parts.") % MOST)
    width = max(map(len, rows), default=0)
    if not width:
        raise ValidationError(_("The file is empty."))
    columns = [[row[at] if at < len(row) else "" for row in rows] for at in range(width)]
    chosen = max(columns, key=_fitness)
    title = str(columns.index(chosen) + 1)
    if _is_head(chosen[0]):
        title, chosen = chosen[0] or title, ["", *chosen[1:]]
    return Column(title, "\n".join(chosen))


def _fitness(cells: list[str]) -> tuple[bool, int]:
    numbers = sum(map(_is_number, cells[:SAMPLE]))
    return bool(numbers and _PHONE_HEAD.search(cells[0])), numbers


def _is_head(cell: str) -> bool:
    if _is_number(cell):
        return False
    return bool(_PHONE_HEAD.search(cell)) or not re.search("[0-9]", cell)


def _cell(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = "" if value is None else " ".join(str(value).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _rows(data: bytes) -> Iterable[Iterable[Any]]:
    if data.startswith(b"PK\x03\x04"):
        return _xlsx_rows(data)
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise ValidationError(_("This is an old Excel file. Save it as XLSX or CSV."))
    return _csv_rows(data)


def _csv_rows(data: bytes) -> list[list[str]]:
    text = _decoded(data)
    first = text.splitlines()[:10]

    def splits(delimiter: str) -> tuple[int, int]:
        counts = [line.count(delimiter) for line in first]
        return min(counts, default=0), sum(counts)

    if "\0" in text:  # pictures, documents
        raise _unreadable()
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=splits))
        return [row[:COLUMNS] for row in islice(reader, MOST + 2)]
    except csv.Error:
        raise _unreadable() from None


def _decoded(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("windows-1251", "replace")


def _xlsx_rows(data: bytes) -> list[Any]:
    try:
        from openpyxl import load_workbook
    except ImportError:
        load_workbook = None
    if load_workbook is None:
        raise ValidationError(
            _(
                "This site cannot read XLSX files yet. Save the table as CSV, or ask your "
                "administrator to install django-smska[xlsx]."
            )
        )
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > UNPACKED:
            raise _too_large()
        sheet = load_workbook(io.BytesIO(data), read_only=True, data_only=True).active
        sheet.reset_dimensions()  # some programs write a wrong size
        return list(islice(sheet.iter_rows(max_col=COLUMNS, values_only=True), MOST + 2))
    except ValidationError:
        raise
    except Exception:  # whatever a broken archive or its XML leads to
        raise _unreadable() from None


def _unreadable() -> ValidationError:
    return ValidationError(_("This file cannot be read. Save it as XLSX or CSV."))


def _too_large() -> ValidationError:
    return ValidationError(_("This file is too large. Send to its numbers in parts."))

"""CSV and XLSX files as rows of short texts, read within bounds whatever they hold.

The files are untrusted. An XLSX file of 30 KB can unpack to gigabytes, and a CSV file of 5 MB
to millions of cells. So what is unpacked is counted while it is read, and only what is needed is
read: no styles, no names, no formulas, nothing outside of the file.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from posixpath import dirname, join, normpath
from typing import Any
from xml.parsers import expat
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

MAX_FILE_BYTES = 5_000_000  # the largest file
MAX_ROWS = 10_000  # the most rows that are not blank
MAX_HEAD_ROWS = 20  # the most rows above these: a title, heads
MAX_LINES = 100_000  # the last row that is read, counting blank and hidden ones
MAX_COLUMNS = 200
MAX_SHOWN_CHARACTERS = 60  # the longest cell that may be a number
MAX_CELL_CHARACTERS = 200  # the longest cell that is kept whole
MAX_KEPT_CHARACTERS = 5_000_000  # the most characters of all cells together
MAX_ROW_CHARACTERS = 100_000  # the longest row in a CSV file

MAX_UNPACKED_BYTES = 30_000_000  # the largest size of an XLSX file's parts, as far as read
MAX_ELEMENTS = 800_000  # the most XML elements in these parts
MAX_DEPTH = 30  # the deepest nesting of elements
MAX_TAG_BYTES = 250_000  # the longest tag, with its attributes
MAX_NAMES = 5_000  # the most names of elements and attributes
MAX_MEMBERS = 2_000  # the most files within an XLSX file
MAX_SHEETS = 200
CHUNK_BYTES = 65_536  # the size of a piece that is unpacked at once

_CELL_END = "\x1f"  # no cell has it: it counts as a blank, and blanks are made one


@dataclass
class Table:
    """The rows of a file, and what else is in it.

    :param sheet: the name of the sheet that was read
    :param other_sheets: those that can be seen and were not read
    :param hidden_rows: how many were left out
    :param hidden_columns: which were left out, from 0
    :param hidden_sheets: the names of those that were left out
    """

    sheet: str = ""
    other_sheets: list[str] = field(default_factory=list[str])
    hidden_sheets: list[str] = field(default_factory=list[str])
    hidden_rows: int = 0
    hidden_columns: set[int] = field(default_factory=set[int])
    width: int = 0
    undivided: set[int] = field(default_factory=set[int])  # lines of a CSV file without a delimiter
    most: int = MAX_ROWS
    # A row is one text, since as many small ones would take ten times the memory.
    _rows: list[str] = field(default_factory=list[str])
    _lines: list[int] = field(default_factory=list[int])
    _kept: int = 0

    def add(self, line: int, cells: list[str]) -> None:
        """Keep the row in ``line``, counted from 1, unless all of it is blank."""
        cells = [_short(cell) for cell in cells]
        while cells and not cells[-1]:
            cells.pop()
        if not cells:
            return
        if len(cells) > MAX_COLUMNS:
            raise _too_wide()
        self._lines.append(line)
        self._rows.append(_CELL_END.join(cells))
        self._kept += len(self._rows[-1])
        self.width = max(self.width, len(cells))
        if len(self._rows) > self.most + MAX_HEAD_ROWS:
            raise too_many_rows(self.most)
        if self._kept > MAX_KEPT_CHARACTERS:
            raise _too_large()

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, step: int = 1) -> Iterator[tuple[int, list[str]]]:
        """Yield each row, or each ``step``-th, with its line; all are as long as the longest."""
        for at in range(0, len(self._rows), step):
            cells = self._rows[at].split(_CELL_END)
            yield self._lines[at], cells + [""] * (self.width - len(cells))


def read(data: bytes, most: int = MAX_ROWS) -> Table:
    """Return the rows of a CSV file (comma, semicolon, tab or bar; UTF-8, UTF-16 or windows-1251),
    or of the first sheet of an XLSX file that can be seen and is not empty.

    :param most: the most rows that are not blank

    Raises ``ValidationError``, which says what to do, for what cannot be read or is too large.
    """
    if len(data) > MAX_FILE_BYTES:
        raise _too_large()
    if data.startswith(b"PK"):
        return _read_xlsx(data, most)
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise ValidationError(
            _("This is an old Excel file, or one with a password. Save it as XLSX or CSV.")
        )
    if re.match(rb"(?:\xef\xbb\xbf)?\s*<", data) or data.startswith((b"%PDF", b"{\\rtf")):
        raise _unreadable()  # a web page, even if its name ends in .xls
    return read_csv(data, most)


def letter(column: int) -> str:
    """Return a spreadsheet's name of a column, counted from 0: ``A``, …, ``Z``, ``AA``."""
    name = ""
    column += 1
    while column:
        column, digit = divmod(column - 1, 26)
        name = chr(ord("A") + digit) + name
    return name


def too_many_rows(most: int) -> ValidationError:
    return ValidationError(_("The file has more than %s rows. Split it.") % most)


def cut(text: str, most: int = MAX_SHOWN_CHARACTERS) -> str:
    """Return a cell with the sign ``…`` for what is beyond its first characters."""
    return text if len(text) <= most else f"{text[:most]}…"


def is_cut(cell: str) -> bool:
    """Return whether a cell of a table is not whole."""
    return len(cell) > MAX_CELL_CHARACTERS


def _short(cell: str) -> str:
    text = " ".join(cell[: 20 * MAX_SHOWN_CHARACTERS].split())
    return cut(text, MAX_CELL_CHARACTERS)


def _unreadable() -> ValidationError:
    return ValidationError(_("This file cannot be read. Save it as XLSX or CSV."))


def _too_large() -> ValidationError:
    return ValidationError(_("This file is too large. Split it."))


def _too_wide() -> ValidationError:
    words = _("The table has more than %s columns. Keep only the one with the numbers.")
    return ValidationError(words % MAX_COLUMNS)


# --- CSV ------------------------------------------------------------------------------------------


def read_csv(data: bytes, most: int = MAX_ROWS, delimiter: str = "") -> Table:
    """Return the rows of a CSV file; a row's line is its number among the rows.

    :param delimiter: where it is known
    """
    encoding = _encoding(data)
    is_announced = False
    if not delimiter:
        delimiter, is_announced = _delimiter(_first_lines(data, encoding))
    lines = _Lines(data, encoding)
    table = Table(most=most)
    try:
        for line, row in enumerate(csv.reader(lines, delimiter=delimiter), start=1):
            lines.row_is_complete()
            if line > MAX_LINES:
                raise too_many_rows(MAX_LINES)
            if len(row) > MAX_COLUMNS and any(row[MAX_COLUMNS:]):
                raise _too_wide()
            if line > 1 or not is_announced:
                table.add(line, row[:MAX_COLUMNS])
            if len(row) == 1 and line <= MAX_HEAD_ROWS:
                table.undivided.add(line)
    except (csv.Error, UnicodeError):
        raise _unreadable() from None
    return table


class _Lines:
    """The lines of a CSV file for ``csv``, which would keep a row of any length."""

    def __init__(self, data: bytes, encoding: str) -> None:
        self._stream = _open(data, encoding)
        self._length = 0

    def row_is_complete(self) -> None:
        self._length = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(MAX_ROW_CHARACTERS + 1)
        if "\0" in line:  # pictures, documents
            raise _unreadable()
        if line:
            self._length += len(line)
        elif self._length:
            raise ValidationError(_("A quotation mark in this file is opened and never closed."))
        else:
            raise StopIteration
        if self._length > MAX_ROW_CHARACTERS:
            raise ValidationError(
                _(
                    "A row of this file is too long for a table. Is a quotation mark opened and "
                    "never closed?"
                )
            )
        return line


def _open(data: bytes, encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data), encoding, errors="replace", newline="")


def _first_lines(data: bytes, encoding: str) -> list[str]:
    stream = _open(data, encoding)
    return [stream.readline(MAX_ROW_CHARACTERS) for _number in range(MAX_HEAD_ROWS)]


def _encoding(data: bytes) -> str:
    if data.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in data:  # some databases export UTF-16 without a mark
        for encoding, high in (("utf-16-le", data[1::2]), ("utf-16-be", data[::2])):
            if high.count(0) > len(data) / 5:
                return encoding
    text = data.decode("utf-8", "replace")
    wrong = text.count("\ufffd")
    # A file put together from several has a few wrong bytes; in another encoding most are.
    others = len(data) - len(text) - wrong
    return "utf-8" if wrong * 10 <= others else "windows-1251"


# What is quoted, and commas within a number: 7,90418E+10; 79041764995,00.
_NO_DELIMITER = re.compile(r'"[^"]*"|(?<=[0-9]),[0-9]+E\+?[0-9]+|(?<=[0-9]{7}),0+(?![0-9])', re.I)


def _delimiter(lines: list[str]) -> tuple[str, bool]:
    """Return the delimiter, and whether the first line only names it, as in Excel's files."""
    if match := re.fullmatch(r'\s*"?sep=([^\w\s"]|\t)"?\s*', lines[0], re.IGNORECASE):
        return match[1], True
    bare = [_NO_DELIMITER.sub("", line) for line in lines]

    def agreement(delimiter: str) -> int:
        """Return in how many lines it stands equally often: titles and names may differ."""
        counts = [count for line in bare if (count := line.count(delimiter))]
        return max(map(counts.count, counts), default=0)

    return max(";\t|,", key=agreement), False


# --- XLSX -----------------------------------------------------------------------------------------


class _Finished(Exception):
    """Raised by a part that has all that it needs, so that the rest of it is not unpacked."""


def _read_xlsx(data: bytes, most: int) -> Table:
    if data.count(b"PK\x01\x02") > MAX_MEMBERS:  # before the list of them is read
        raise _too_large()
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            return _Archive(archive).table(most)
    except ValidationError:
        raise
    except Exception:  # whatever a broken archive or its XML leads to
        raise _unreadable() from None


class _Archive:
    """What may still be unpacked and parsed of one file."""

    def __init__(self, archive: ZipFile) -> None:
        self._archive = archive
        self._bytes = MAX_UNPACKED_BYTES
        self._elements = MAX_ELEMENTS

    def table(self, most: int) -> Table:
        [path] = self._links("", "officeDocument").values()
        book = _Book()
        self._parse(path, book)
        if not book.visible:
            raise ValidationError(
                _("All sheets of this file are hidden. Show the one with the numbers.")
            )
        worksheets = self._links(path, "worksheet")
        texts = self._texts(path)
        names = [name for name, link in book.visible if link in worksheets]
        table = Table()
        for name, link in book.visible:
            if link not in worksheets:  # a chart
                continue
            table = Table(
                sheet=name,
                other_sheets=[other for other in names if other != name],
                hidden_sheets=book.hidden,
                most=most,
            )
            self._parse(worksheets[link], _Sheet(table, texts))
            if len(table):
                break
        return table

    def _texts(self, book: str) -> _Texts:
        texts = _Texts()
        for path in self._links(book, "sharedStrings").values():
            self._parse(path, texts)
        return texts

    def _links(self, source: str, kind: str) -> dict[str, str]:
        """Return the paths of the parts of a kind to which ``source`` links, by link name."""
        folder = dirname(source)
        links = _Links(folder, kind)
        self._parse(join(folder, "_rels", f"{source.rpartition('/')[2]}.rels"), links)
        return links.paths

    def _parse(self, path: str, part: _Part) -> None:
        member = self._archive.getinfo(path)
        # Others are not used in XLSX files, and one of them may ask for gigabytes to unpack.
        if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise _unreadable()
        parser = self._parser(part)
        done = 0
        try:
            with self._archive.open(member) as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    done += len(chunk)
                    self._bytes -= len(chunk)
                    parser.Parse(chunk)
                    is_long = done - parser.CurrentByteIndex > MAX_TAG_BYTES
                    if self._bytes < 0 or is_long or len(parser.intern) > MAX_NAMES:
                        raise _too_large()
            parser.Parse(b"", True)
        except _Finished:
            pass

    def _parser(self, part: _Part) -> Any:
        parser = expat.ParserCreate()
        parser.buffer_text = True
        depth = 0
        names: dict[str, str] = {}

        def start(name: str, attributes: dict[str, str]) -> None:
            nonlocal depth
            depth += 1
            self._elements -= 1
            if self._elements < 0 or depth > MAX_DEPTH:
                raise _too_large()
            local = names.get(name) or names.setdefault(name, _local(name))
            part.start(local, attributes)
            if local in part.TEXTS:
                parser.CharacterDataHandler = part.text

        def end(name: str) -> None:
            nonlocal depth
            depth -= 1
            local = names[name]
            if local in part.TEXTS:
                parser.CharacterDataHandler = None
            part.end(local)

        def refuse(*_doctype: Any) -> None:
            raise _unreadable()

        parser.StartElementHandler = start
        parser.EndElementHandler = end
        parser.StartDoctypeDeclHandler = refuse  # and with it all entities
        return parser


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def _is_true(value: str | None) -> bool:
    return value in ("1", "true")


class _Part:
    """What is done with the elements of a part, and with the texts within ``TEXTS``."""

    TEXTS: frozenset[str] = frozenset()

    def start(self, name: str, attributes: dict[str, str]) -> None:
        pass

    def text(self, piece: str) -> None:
        pass

    def end(self, name: str) -> None:
        pass


class _Links(_Part):
    """A part's links to other parts; those that lead out of the file are not followed."""

    def __init__(self, folder: str, kind: str) -> None:
        self._folder = folder
        self._kind = f"/{kind}"
        self.paths: dict[str, str] = {}

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name != "Relationship" or attributes.get("TargetMode") == "External":
            return
        if attributes["Type"].endswith(self._kind):
            target = attributes["Target"]
            path = normpath(join("/", self._folder, target)).lstrip("/")
            self.paths[attributes["Id"]] = path
        if len(self.paths) > MAX_SHEETS:
            raise _too_large()


class _Book(_Part):
    """The sheets of a workbook.

    :ivar visible: the names of the sheets, and of the links to them
    :ivar hidden: names
    """

    def __init__(self) -> None:
        self.visible: list[tuple[str, str]] = []
        self.hidden: list[str] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name != "sheet":
            return
        sheet = _short(attributes["name"])
        if attributes.get("state", "visible") != "visible":
            self.hidden.append(sheet)
        else:
            [link] = (value for key, value in attributes.items() if _local(key) == "id")
            self.visible.append((sheet, link))
        if len(self.visible) + len(self.hidden) > MAX_SHEETS:
            raise _too_large()

    def end(self, name: str) -> None:
        if name == "sheets":  # defined names follow
            raise _Finished


class _Texts(_Part):
    """The texts that cells share, in one piece: each for itself takes more than its characters."""

    TEXTS = frozenset({"t"})

    def __init__(self) -> None:
        self._all = bytearray()
        self._ends = array("L", [0])
        self._text = ""
        self._phonetic = False

    def __getitem__(self, at: int) -> str:
        start, end = self._ends[at], self._ends[at + 1]
        return self._all[start:end].decode()

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "rPh":
            self._phonetic = True

    def text(self, piece: str) -> None:
        if not self._phonetic and len(self._text) <= MAX_SHOWN_CHARACTERS:
            self._text += piece[: 20 * MAX_SHOWN_CHARACTERS]

    def end(self, name: str) -> None:
        if name == "rPh":
            self._phonetic = False
        elif name == "si":
            if self._text:
                self._all += _short(_unescape(self._text)).encode()
                self._text = ""
            self._ends.append(len(self._all))
            if len(self._all) > 2 * MAX_KEPT_CHARACTERS:
                raise _too_large()


class _Sheet(_Part):
    """Puts the rows of a sheet that can be seen into ``table``."""

    TEXTS = frozenset({"v", "t"})

    def __init__(self, table: Table, texts: _Texts) -> None:
        self._table = table
        self._texts = texts
        self._hidden: set[int] = set()
        self._column_groups = 0
        self._line = 0
        self._row: dict[int, str] = {}
        self._row_is_hidden = False
        self._column = -1
        self._type = ""
        self._value = ""
        self._phonetic = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "c":
            place = attributes.get("r")
            self._column = _column(place) if place else self._column + 1
            self._type = attributes.get("t", "n")
        elif name == "row":
            self._start_row(attributes)
        elif name == "col":
            self._start_columns(attributes)
        elif name == "rPh":
            self._phonetic = True

    def text(self, piece: str) -> None:
        if not self._phonetic and len(self._value) <= MAX_SHOWN_CHARACTERS:
            self._value += piece[: 20 * MAX_SHOWN_CHARACTERS]

    def end(self, name: str) -> None:
        if name == "c":
            self._end_cell()
        elif name == "row":
            self._end_row()
        elif name == "rPh":
            self._phonetic = False
        elif name == "sheetData":  # merged cells, rules and pictures follow
            raise _Finished

    def _start_columns(self, attributes: dict[str, str]) -> None:
        self._column_groups += 1
        if self._column_groups > 20_000:
            raise _too_large()
        if _is_true(attributes.get("hidden")) or float(attributes.get("width", 1)) == 0:
            first, last = int(attributes["min"]), int(attributes["max"])
            self._hidden.update(range(max(first, 1) - 1, min(last, MAX_COLUMNS)))

    def _start_row(self, attributes: dict[str, str]) -> None:
        line = int(attributes.get("r", self._line + 1))
        if line <= self._line:
            raise _unreadable()
        self._line = line
        self._row = {}
        self._column = -1
        is_flat = float(attributes.get("ht", 1)) == 0
        self._row_is_hidden = _is_true(attributes.get("hidden")) or is_flat

    def _end_cell(self) -> None:
        value, self._value = self._value, ""
        if self._type == "s":
            value = self._texts[int(value)] if value else ""
        elif self._type == "n":
            value = _number(value)
        else:
            value = _unescape(value)
        if not value.strip():
            return
        if self._column in self._hidden:
            self._table.hidden_columns.add(self._column)
        elif self._column >= MAX_COLUMNS:
            raise _too_wide()
        else:
            self._row[self._column] = value

    def _end_row(self) -> None:
        if not self._row:
            return
        if self._row_is_hidden:
            self._table.hidden_rows += 1
        elif self._line > MAX_LINES:
            raise too_many_rows(MAX_LINES)
        else:
            cells = [self._row.get(at, "") for at in range(max(self._row) + 1)]
            self._table.add(self._line, cells)


def _column(place: str) -> int:
    """Return the column of a cell, counted from 0: 54 for ``BC12``."""
    column = 0
    for one in place.rstrip("0123456789"):
        column = column * 26 + ord(one) - 64
        if not "A" <= one <= "Z" or column > 16_384:
            raise _unreadable()
    return column - 1


def _number(written: str) -> str:
    """Return the digits of a whole number that a program wrote as 7.9041764995E10."""
    if not written or written.isdigit():
        return written
    try:
        number = Decimal(written)
        whole = abs(number) < 10**15 and number == number.to_integral_value()
    except ArithmeticError:  # 1E999999999 overflows
        return written
    return f"{number:.0f}" if whole else written


def _unescape(text: str) -> str:
    """Replace line ends and the like, which spreadsheets write as ``_x000D_``."""
    return re.sub("_x00[01][0-9A-Fa-f]_", " ", text)

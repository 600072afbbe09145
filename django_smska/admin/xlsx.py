"""An XLSX file that is written as a stream, without a file on disk.

Its texts are stored as texts, so that no program turns them into numbers, dates or formulas.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import IO, Any
from xml.sax.saxutils import escape
from zipfile import ZIP_DEFLATED, ZipFile

from ..segments import with_plain_lines

MAX_SHEET_ROWS = 1_048_576  # the most rows of a sheet in Excel, its heads among them
MAX_SHEET_BYTES = 1_000_000_000  # the largest sheet: zip files differ from 2 GiB on
# In a cell: Excel calls a file with more of them broken.
EXCEL_CELL_CHARACTERS = 32_767

Cell = str | int | Decimal

_NOT_IN_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPED = re.compile("_(?=x[0-9A-Fa-f]{4}_)")  # Excel would read _x0041_ as A

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_PACKAGE_TYPE = "application/vnd.openxmlformats-package"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"


class Book:
    """Rows of texts and numbers, in as many sheets as they need; ``heads`` stand above each.

    What :meth:`add` and :meth:`close` return, one after the other, is the file.
    """

    def __init__(self, heads: Sequence[str]) -> None:
        self._heads = heads
        self._sink = _Sink()
        self._archive = ZipFile(self._sink, "w", ZIP_DEFLATED)  # type: ignore[call-overload]
        self._sheets = 0
        self._rows = 0
        self._bytes = 0
        self._sheet: IO[bytes] | None = None

    def add(self, rows: Sequence[Iterable[Cell]]) -> bytes:
        """Return the next piece of the file, which may be empty."""
        if (
            self._sheet is None
            or self._rows + len(rows) > MAX_SHEET_ROWS
            or self._bytes > MAX_SHEET_BYTES
        ):
            self._start_sheet()
        self._write("".join(map(_row, rows)))
        self._rows += len(rows)
        return self._sink.written()

    def close(self) -> bytes:
        """Return the last piece of the file."""
        if self._sheet is None:
            self._start_sheet()
        self._end_sheet()
        for name, content in _parts(range(1, self._sheets + 1)):
            self._archive.writestr(name, content)
        self._archive.close()
        return self._sink.written()

    def _start_sheet(self) -> None:
        self._end_sheet()
        self._sheets += 1
        self._rows, self._bytes = 1, 0
        self._sheet = self._archive.open(f"xl/worksheets/sheet{self._sheets}.xml", "w")
        width = f'<col min="1" max="{len(self._heads)}" width="18" customWidth="1"/>'
        self._write(f'<worksheet xmlns="{_MAIN}"><cols>{width}</cols><sheetData>')
        self._write(_row(self._heads))

    def _end_sheet(self) -> None:
        if self._sheet is not None:
            self._write("</sheetData></worksheet>")
            self._sheet.close()

    def _write(self, xml: str) -> None:
        assert self._sheet is not None
        data = xml.encode()
        self._bytes += len(data)
        self._sheet.write(data)


class _Sink:
    """Keeps what is written until it is fetched. Like a socket, it cannot seek."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def written(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def _row(cells: Iterable[Cell]) -> str:
    return f"<row>{''.join(map(_cell, cells))}</row>"


def _cell(value: Cell) -> str:
    if isinstance(value, int):
        return f"<c><v>{value}</v></c>"
    if isinstance(value, Decimal):
        return f"<c><v>{value:f}</v></c>"
    if not value:
        return "<c/>"
    text = _NOT_IN_XML.sub("", with_plain_lines(value))
    text = escape(_ESCAPED.sub("_x005F_", text[:EXCEL_CELL_CHARACTERS]))
    return f'<c t="inlineStr"><is><t xml:space="preserve">{text}</t></is></c>'


def _parts(sheets: Iterable[int]) -> Iterable[tuple[str, str]]:
    types = f'<Types xmlns="{_PACKAGE}/content-types">'
    types += f'<Default Extension="rels" ContentType="{_PACKAGE_TYPE}.relationships+xml"/>'
    types += f'<Override PartName="/xl/workbook.xml" ContentType="{_TYPE}.sheet.main+xml"/>'
    book = f'<workbook xmlns="{_MAIN}" xmlns:r="{_RELATIONS}"><sheets>'
    links = ""
    for number in sheets:
        part = f"worksheets/sheet{number}.xml"
        types += f'<Override PartName="/xl/{part}" ContentType="{_TYPE}.worksheet+xml"/>'
        book += f'<sheet name="SMS {number}" sheetId="{number}" r:id="rId{number}"/>'
        links += _link(number, "worksheet", part)
    yield "[Content_Types].xml", f"{types}</Types>"
    yield "_rels/.rels", _links(_link(1, "officeDocument", "xl/workbook.xml"))
    yield "xl/workbook.xml", f"{book}</sheets></workbook>"
    yield "xl/_rels/workbook.xml.rels", _links(links)


def _links(links: str) -> str:
    return f'<Relationships xmlns="{_PACKAGE}/relationships">{links}</Relationships>'


def _link(number: int, kind: str, target: str) -> str:
    return f'<Relationship Id="rId{number}" Type="{_RELATIONS}/{kind}" Target="{target}"/>'

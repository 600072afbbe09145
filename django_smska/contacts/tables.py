"""Read contacts from a table that was pasted or uploaded: a column of numbers, and one of names."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from ..admin import recipients, tables
from ..admin.phone_words import Kind, kind
from ..models import problem_of_text
from ..numbers import find, plain
from .models import Contact

MAX_SAMPLE_ROWS = 500  # the number of rows by which a column without a head is chosen

#: What people write above names: all of one, the parts in the order in which they are joined, and
#: what may be names.
_WHOLE = r"\b(фио|ф и о|full ?name)\b"
_PARTS = (
    r"\b(фамили\w*|last ?name|surname|family ?name)\b",
    r"\b(имя|first ?name|given ?name)\b",
    r"\b(отчеств\w*|middle ?name|patronymic)\b",
)
_OTHERS = (
    r"\b(names?|клиент\w*|покупател\w*|заказчик\w*|получател\w*|абонент\w*|ученик\w*|пациент\w*|"
    r"родител\w*|сотрудник\w*|контакт\w*|customers?|clients?|contacts?|recipients?|users?|"
    r"наименовани\w*|названи\w*|организаци\w*|компани\w*|company)\b"
)
_QUOTED = re.compile('[;,|"]')
_AROUND = " ,.;:|()[]<>«»\"'-–—\t"


@dataclass(frozen=True)
class Found:
    """The contacts of a table.

    :param names: by number in E.164; "" where no name stands there
    :param left_out: the lines that are no contacts, each with the reason
    :param number_title: the head or the letter of the column with the numbers
    :param name_title: the same of the names; "" where they have no column
    :param notes: what else is in the file and was left out, in sentences
    :param text: the same as a table of two columns, which reads alike
    """

    names: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    left_out: list[recipients.LeftOut] = field(default_factory=list[recipients.LeftOut])
    number_title: str = ""
    name_title: str = ""
    notes: list[str] = field(default_factory=list[str])
    text: str = field(default="", repr=False)

    @property
    def letter(self) -> str:
        """Return the column of the names in ``text``."""
        return "B" if any(self.names.values()) else ""


def read(data: bytes, asked: str = "", asked_name: str = "") -> Found:
    """Read a CSV or XLSX file, with heads or without.

    :param asked: the letter of the column with the numbers, where it is not clear
    :param asked_name: the letter of the column with the names; without it, it is found by its head
    :raises recipients.UnclearColumn: where more than one column may have the numbers
    :raises ValidationError: for what cannot be read or is too large; it says what to do
    """
    table = tables.read(data)
    column = recipients.column(data, asked)
    read_out = recipients.read(column.lines)
    head_line, heads = recipients.head_row(table)
    at = _asked(table, asked_name) if asked_name else _name_columns(table, head_line, heads, column)
    cells = {line: _joined(row, at) for line, row in table.rows() if line != head_line}
    if not at:
        cells = {line: _beside(cell) for line, cell in _numbered(column.lines)}
    names: dict[str, str] = {}
    left_out = [*read_out.bad, *read_out.doubled]
    for number, line in read_out.lines.items():
        name = cells.get(line, "")
        if why := _why_unstorable(name):
            left_out.append(recipients.LeftOut(line, name, why))
        else:
            names[number] = name
    every = [*heads, *[""] * (table.width - len(heads))]
    title = _joined([head or tables.letter(place) for place, head in enumerate(every)], at)
    return Found(
        names,
        sorted(left_out, key=lambda one: one.line),
        number_title=column.title,
        name_title=title,
        notes=column.notes,
        text=_text(column.lines, cells, head_line),
    )


# --- the column of the names


def _asked(table: tables.Table, letter: str) -> list[int]:
    for place in range(table.width):
        if tables.letter(place) == letter:
            return [place]
    raise ValidationError(_("The table has no column %s.") % letter)


def _name_columns(
    table: tables.Table, head_line: int, heads: Sequence[str], column: recipients.Column
) -> list[int]:
    """Return the places of the columns that make a name together; none where there is none."""
    others = [place for place in range(table.width) if place != column.at]
    if not len(column.table):
        return []
    if heads and any(heads[place] for place in others):
        return _by_heads({place: _words(heads[place]) for place in others})
    return _by_cells(table, others)


def _by_heads(heads: dict[int, str]) -> list[int]:
    heads = {place: head for place, head in heads.items() if kind(head) != Kind.PHONE}
    if whole := _headed(heads, _WHOLE):
        return [whole[0]]
    parts = [places[0] for words in _PARTS if (places := _headed(heads, words))]
    return parts or _headed(heads, _OTHERS)[:1]


def _headed(heads: dict[int, str], words: str) -> list[int]:
    return [place for place, head in heads.items() if re.search(words, head)]


def _by_cells(table: tables.Table, places: Collection[int]) -> list[int]:
    """Return the first column in which most cells are words."""
    sample = [row for at, (_line, row) in enumerate(table.rows()) if at < MAX_SAMPLE_ROWS]
    for place in places:
        filled = [row[place] for row in sample if row[place]]
        if 2 * sum(not re.search(r"\d", one) for one in filled) > len(filled):
            return [place]
    return []


def _words(head: str) -> str:
    apart = re.sub(r"(?<=[a-zа-яё])(?=[A-ZА-ЯЁ])", " ", plain(head))
    return " ".join(re.sub(r"[^\w]|_", " ", apart.casefold().replace("ё", "е")).split())


# --- names


def _joined(row: Sequence[str], at: list[int]) -> str:
    return " ".join(row[place] for place in at if row[place])


def _numbered(lines: str) -> list[tuple[int, str]]:
    return list(enumerate(lines.splitlines(), start=1))


def _beside(cell: str) -> str:
    """Return the words that stand beside the one number of a cell: ``Anna, tel. 8904…``."""
    text = plain(cell)
    found = find(text)
    if len(found) != 1:
        return ""
    rest = f"{text[: found[0].start]} {text[found[0].end :]}".split()
    words = [word for word in rest if kind(word) != Kind.PHONE]
    name = " ".join(words).strip(_AROUND)
    return name if re.search(r"[^\W\d_]", name) else ""


def _why_unstorable(name: str) -> str:
    """Return why the database cannot store this name, or ""."""
    field: Any = Contact._meta.get_field("name")
    try:
        field.run_validators(name)  # its length
    except ValidationError as error:
        return " ".join(error.messages)
    why = problem_of_text(field, name, one_line=True)
    return " ".join(why.messages) if why else ""


# --- as a table that can be pasted


def _text(lines: str, names: dict[int, str], head_line: int) -> str:
    written = [_row(cell, names.get(line, "")) for line, cell in _numbered(lines)]
    if head_line:
        written += [""] * (head_line - len(written))
        written[head_line - 1] = "Phone\tName"
    return "\n".join(written)


def _row(number: str, name: str) -> str:
    return f"{_cell(number)}\t{_cell(name)}".rstrip("\t") if number or name else ""


def _cell(text: str) -> str:
    quoted = text.replace('"', '""')
    return f'"{quoted}"' if _QUOTED.search(text) else text

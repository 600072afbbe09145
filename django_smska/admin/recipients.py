"""Read numbers that are pasted in any spelling, or that are a column of a CSV or XLSX file."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice

from django.core.exceptions import ValidationError
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from ..numbers import is_russian_mobile
from . import tables
from .pasted_lines import WRAPPING, PassportOrPhone, Piece, pieces
from .permissions import grouped
from .phone_words import Kind, is_head, kind
from .tables import MAX_FILE_BYTES, Table, letter

__all__ = [
    "KEPT",
    "MAX_FILE_BYTES",
    "MAX_NUMBERS",
    "NUMBER_HEAD",
    "Column",
    "Recipients",
    "UnclearColumn",
    "column",
    "head_row",
    "pasted_table",
    "read",
    "without",
]

MAX_NUMBERS = tables.MAX_ROWS  # the most numbers of one form
SAMPLE_CELLS = 20_000  # the number of cells by which the column is chosen
#: Instead of a column's letter, for a table of :func:`pasted_table`: its first line has the heads,
#: and its first column the numbers.
KEPT = "=A"
#: In the first cell of a table it says that this column has the numbers, whatever other columns are
#: called and hold.
NUMBER_HEAD = "☎"
MAX_NAMED = 10  # the most columns and sheets that a message lists

_SEVEN_DIGITS = re.compile(r"(?:[^0-9]*[0-9]){7}")
_TEN_DIGITS = re.compile(r"9[0-9]{9}(?:[.,]0+)?")


@dataclass(frozen=True)
class LeftOut:
    """A number that gets nothing.

    :param line: counted from 1
    :param why: the reason, as text
    """

    line: int
    written: str = field(repr=False)  # logs and reports show what stands here without it
    why: str


@dataclass(frozen=True)
class ReadOut:
    """A number that stood among other words.

    :param line: counted from 1
    """

    line: int
    written: str = field(repr=False)
    number: str = field(repr=False)

    @property
    def grouped(self) -> str:
        """Return the number as people read it."""
        return grouped(self.number)


@dataclass(frozen=True)
class Column:
    """A column of a file.

    :param title: the head, or the letter
    :param lines: a cell each, so that a cell's line is its row in the file
    :param notes: what else is in the file and was left out, in sentences
    :param table: where it stands; an empty one where the numbers stand in several columns
    :param head_line: the line of its heads, counted from 1; 0 for a table without
    :param at: which column it is, counted from 0
    """

    title: str
    lines: str
    notes: list[str]
    table: Table = field(default_factory=Table)
    head_line: int = 0
    heads: Sequence[str] = ()
    at: int = 0

    def __repr__(self) -> str:
        return f"<Column {self.title!r}>"


@dataclass(frozen=True)
class Recipients:
    """Who gets the text, and who does not.

    :param lines: the line of each number, as E.164, in their order
    :param read_out: those that stood among other words
    :param column: where they stood, if the text was a table
    """

    lines: dict[str, int] = field(default_factory=dict[str, int], repr=False)
    doubled: list[LeftOut] = field(default_factory=list[LeftOut])
    bad: list[LeftOut] = field(default_factory=list[LeftOut])
    read_out: list[ReadOut] = field(default_factory=list[ReadOut])
    column: Column | None = None

    @property
    def numbers(self) -> list[str]:
        return list(self.lines)


class UnclearColumn(ValidationError):
    """Several columns may be meant.

    :param columns: their letters, and how to name them
    """

    def __init__(self, columns: list[tuple[str, str]]) -> None:
        self.columns = columns
        names = ", ".join(_quoted(name) for _letter, name in columns[:MAX_NAMED])
        words = _(
            "It is not clear which column holds the phone numbers: %(columns)s. Choose it below, "
            "and upload the file again."
        )
        super().__init__(words, code="unclear_column", params={"columns": names})


def read(text: str, asked: str = "", most: int | None = None) -> Recipients:
    """Read numbers that stand on lines of their own, or between commas, semicolons or tabs, or in a
    column of a table with heads.

    :param asked: the letter of this column, where it is not clear
    :param most: the most numbers, by default ``MAX_NUMBERS``
    :raises ValidationError: for more
    :raises UnclearColumn: for a table in which it is not clear
    """
    most = MAX_NUMBERS if most is None else most
    found = Recipients(column=_column_of_text(text, asked, most))
    text = found.column.lines if found.column else text
    lines = found.lines
    some = _among_phones(list(islice(_entries(text), most + 1)))
    for index, (line, (written, number, among_words)) in enumerate(some):
        if index == most:
            raise ValidationError(
                _("More than %(most)s numbers. Split the list."),
                code="too_many",
                params={"most": most},
            )
        if isinstance(number, ValidationError):
            found.bad.append(LeftOut(line, written, " ".join(number.messages)))
        elif number in lines:
            why = gettext("The same number as in line %s.") % lines[number]
            found.doubled.append(LeftOut(line, written, why))
        else:
            lines[number] = line
            if among_words:
                found.read_out.append(ReadOut(line, written, number))
    return found


def pasted_table(heads: Sequence[str], table_rows: Iterable[Sequence[str]]) -> str:
    """Return a table as the text that :func:`read` reads as one: its heads, then a line for each
    row, with tabs between the cells."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    for cells in (heads, *table_rows):
        writer.writerow([" ".join(str(cell).split()) for cell in cells])
    return text.getvalue().rstrip("\n")


def without(text: str, refused: Collection[str]) -> str:
    """Return ``text`` without what is no number and without the ``refused`` numbers. A line stays
    in its place."""
    lines: list[list[str]] = [[] for _line in text.splitlines()]
    for (line, written), group in groupby(
        _among_phones(list(_entries(text))), lambda one: (one[0], one[1].written)
    ):
        found = [piece.number for _line, piece in group]
        numbers = [one for one in found if isinstance(one, str) and one not in refused]
        lines[line - 1] += [written] if numbers == found else numbers
    return "\n".join(map(", ".join, lines))


def _among_phones(entries: list[tuple[int, Piece]]) -> list[tuple[int, Piece]]:
    """Read what could be a passport by its shape alone as the phone number that it is, where
    everything else is one, too."""
    may_be = {
        at: piece.number.number
        for at, (_line, piece) in enumerate(entries)
        if isinstance(piece.number, PassportOrPhone)
    }
    sure = sum(isinstance(piece.number, str) for _line, piece in entries)
    read = {at: number for at, number in may_be.items() if number}
    words = sum(_is_a_mere_word(piece) for _line, piece in entries) if read else 0
    if sure + len(may_be) + words < len(entries) or sure + len(read) < 2:
        return entries
    return [
        (line, piece._replace(number=read.get(at, piece.number)))
        for at, (line, piece) in enumerate(entries)
    ]


def _is_a_mere_word(piece: Piece) -> bool:
    """Return whether it is a name or a head, and none of other numbers."""
    return not re.search("[0-9]", piece.written) and kind(piece.written) != Kind.SOMETHING_ELSE


def _entries(text: str) -> Iterator[tuple[int, Piece]]:
    for line, words in enumerate(text.splitlines(), start=1):
        found = list(pieces(words))
        has_number = any(isinstance(piece.number, str) for piece in found)
        for piece in found:
            # A name beside its number is no missing number.
            is_number = isinstance(piece.number, str)
            if is_number or not has_number or re.search("[0-9]", piece.written):
                yield line, piece


# --- the column of a table ------------------------------------------------------------------------


@dataclass
class _Candidate:
    """A column that may hold the numbers.

    :ivar filled: cells that are not blank
    :ivar good: those with a number that an SMS can reach
    :ivar certain: those of them that are more than ten digits in a row, as other numbers have, too
    """

    at: int
    head: str
    kind: Kind
    filled: int = 0
    good: int = 0
    certain: int = 0

    @property
    def name(self) -> str:
        return f"{letter(self.at)}: {self.head}" if self.head else letter(self.at)

    def look_at(self, cell: str) -> None:
        self.filled += 1
        if strength := _strength(cell):
            self.good += 1
            self.certain += strength > 1

    @property
    def is_certain(self) -> bool:
        return self.good * 2 > self.filled and self.certain > 0

    @property
    def qualifies(self) -> bool:
        if self.kind == Kind.SOMETHING_ELSE or not self.good:
            return False
        return self.kind == Kind.PHONE or self.good * 2 > self.filled


def column(data: bytes, asked: str = "", most: int | None = None) -> Column:
    """Return the column with the phone numbers of a file that :func:`tables.read` reads.

    :param asked: the letter of the requested column. Without it, take the column whose heading
        names phones and which has some, otherwise the one in which most cells are phone numbers;
        never one whose heading names orders, cards or documents
    :param most: the most rows, by default ``MAX_NUMBERS``
    :raises UnclearColumn: where more than one may be meant
    :raises ValidationError: for what cannot be read or is too large; it says what to do
    """
    most = MAX_NUMBERS if most is None else most
    table = tables.read(data, most)
    if not len(table):
        raise ValidationError([_("The file is empty."), *_hidden(table)])
    return _column_of(table, asked, most)


def _column_of_text(text: str, asked: str, most: int) -> Column | None:
    """Return the column of a table that was pasted with its heads, or None for other text."""
    if asked == KEPT:
        return _kept_column(text, most)
    try:
        table = tables.read_csv(_encoded(text), most)
    except ValidationError:
        if text.startswith(
            (f"{NUMBER_HEAD}\t", f"{NUMBER_HEAD}\n")
        ):  # or numbers of other columns would get the text
            raise
        return None
    rows = _first_rows(table)
    head = _head_row(rows)
    if head is None:
        return None
    # Or a single column, whose head warns of it.
    warns = head == rows[0] and table.width == 1 and kind(head[1][0]) == Kind.SOMETHING_ELSE
    has_heads = re.search(r"[\t;|,]", text) and sum(map(bool, head[1])) > 1
    is_table = warns or has_heads or head[1][0] == NUMBER_HEAD
    return _column_of(table, asked, most) if is_table else None


def _kept_column(text: str, most: int) -> Column:
    table = tables.read_csv(_encoded(text), most, "\t")
    line, heads = next(table.rows(), (0, [""]))
    lines = _lines(table, line, [_Candidate(0, heads[0], Kind.PHONE)], most)
    return Column(heads[0], lines, [], table, line, heads)


def _encoded(text: str) -> bytes:
    """Return bytes with a mark. Without it, a few signs ``\ufffd`` make them another encoding."""
    return text.encode("utf-8-sig", "replace")


def _column_of(table: Table, asked: str, most: int) -> Column:
    line, heads = head_row(table)
    title = _title(table, line, heads)
    if title or not heads:
        heads = [""] * table.width
    candidates = _candidates(table, line, heads)
    is_one_line = len(table) == 1 or (line in table.undivided and kind(title) == Kind.PHONE)
    if is_one_line and all(one.is_certain for one in candidates if one.filled):
        return Column(title, _lines(table, line, candidates, most), _hidden(table))
    chosen = _asked(candidates, asked) if asked else _choose(candidates, table)
    others = [one.name for one in candidates if one.qualifies and one is not chosen]
    notes = _hidden(table)
    if others:
        words = gettext("Left out: other columns with phone numbers, %s.")
        notes.append(words % ", ".join(others[:MAX_NAMED]))
    title, lines = chosen.head or letter(chosen.at), _lines(table, line, [chosen], most)
    return Column(title, lines, notes, table, line, heads, chosen.at)


def head_row(table: Table) -> tuple[int, list[str]]:
    """Return the line of a table's heads, and these; 0 and none for a table without."""
    return _head_row(_first_rows(table)) or _unknown_head_row(table) or (0, [])


def _title(table: Table, line: int, heads: list[str]) -> str:
    """Return the text that stands alone above a table. It does not describe the column below it,
    unless it warns of it."""
    is_alone = table.width > 1 and heads and not any(heads[1:]) and heads[0] != NUMBER_HEAD
    warns = heads and kind(heads[0]) == Kind.SOMETHING_ELSE and line not in table.undivided
    return heads[0] if is_alone and not warns else ""


def _first_rows(table: Table) -> list[tuple[int, list[str]]]:
    return list(islice(table.rows(), tables.MAX_HEAD_ROWS))


def _head_row(rows: list[tuple[int, list[str]]]) -> tuple[int, list[str]] | None:
    """Return the row with the most heads. It has no numbers, and only a title's are above it."""
    if rows and rows[0][1][0] == NUMBER_HEAD:
        return rows[0]
    best, most, numbers_above, is_title = None, 0, 0, False
    for line, cells in rows:
        if any(map(_SEVEN_DIGITS.match, cells)):
            numbers_above += 1
            continue
        filled = list(filter(None, cells))
        heads = sum(map(is_head, filled))
        is_below_title = numbers_above < 3 and (heads > 1 or len(filled) == 1)
        if heads >= most + (not is_title) and (not numbers_above or is_below_title):
            best, most, is_title = (line, cells), heads, len(filled) == 1
    return best if most else None


def _unknown_head_row(table: Table) -> tuple[int, list[str]] | None:
    """Return the first row, if it has no digits: it may hold heads that are not known."""
    [(line, cells)] = islice(table.rows(), 1)
    is_head_row = len(table) > 1 and not re.search("[0-9]", " ".join(cells))
    return (line, cells) if is_head_row else None


def _candidates(table: Table, head_line: int, heads: list[str]) -> list[_Candidate]:
    candidates = [_Candidate(at, head, kind(head)) for at, head in enumerate(heads)]
    step = 1 + len(table) * table.width // SAMPLE_CELLS
    for line, cells in table.rows(step):
        if line > head_line:
            for candidate, cell in zip(candidates, cells, strict=True):
                if cell:
                    candidate.look_at(tables.cut(cell))
    return candidates


def _strength(cell: str) -> int:
    """Return 2 for a number that an SMS can reach, 1 for ten digits that may be one, else 0."""
    if not _SEVEN_DIGITS.match(cell):
        return 0
    written = cell.strip(WRAPPING)
    numbers = [one.number for one in pieces(written) if isinstance(one.number, str)]
    reached = [one for one in numbers if is_russian_mobile(one) or not one.startswith("+7")]
    return 0 if not reached else 1 if _TEN_DIGITS.fullmatch(written) else 2


def _asked(candidates: list[_Candidate], asked: str) -> _Candidate:
    for candidate in candidates:
        if letter(candidate.at) == asked:
            return candidate
    raise ValidationError(_("The table has no column %s.") % asked)


def _choose(candidates: list[_Candidate], table: Table) -> _Candidate:
    if candidates[0].head == NUMBER_HEAD:
        return candidates[0]
    qualified = [one for one in candidates if one.qualifies]
    # Numbers of orders begin with 9, too.
    if any(one.certain for one in qualified):
        qualified = [one for one in qualified if one.certain or one.kind == Kind.PHONE]
    if not qualified:
        return _without_good_numbers(candidates, table)
    best = max(qualified, key=lambda one: (one.kind, one.good))
    rivals = [
        one
        for one in qualified
        if one is not best and (one.kind == best.kind or one.good > 2 * best.good)
    ]
    is_doubtful = best.head and len(candidates) > 1 and best.kind == Kind.UNKNOWN
    if rivals or (is_doubtful and not best.certain):
        meant = sorted([best, *rivals], key=lambda one: one.at)
        raise UnclearColumn([(letter(one.at), one.name) for one in meant])
    return best


def _without_good_numbers(candidates: list[_Candidate], table: Table) -> _Candidate:
    """Return the column whose cells are reported as wrong, one by one."""
    phones = [one for one in candidates if one.kind == Kind.PHONE]
    hidden = _hidden(table)
    alone = [one for one in candidates if one.kind != Kind.SOMETHING_ELSE and not hidden]
    if phones or len(alone) == len(candidates) == 1:
        return max(phones or alone, key=lambda one: one.filled)
    words = _("No column with phone numbers was found. Add the heading “Phone”.")
    raise ValidationError([words, *hidden])


def _lines(table: Table, head_line: int, chosen: list[_Candidate], most: int) -> str:
    lines: list[str] = []
    number = 0
    for line, cells in table.rows():
        lines.extend([""] * (line - len(lines) - 1))
        # On each page of a printed table the head stands again.
        written = [tables.cut(cells[one.at]) for one in chosen if cells[one.at] != one.head]
        lines.append(";".join(filter(None, written)) if line > head_line else "")
        number += line > head_line
    if number > most:
        raise tables.too_many_rows(most)
    return "\n".join(lines)


def _quoted(name: str) -> str:
    return gettext("“%(text)s”") % {"text": name}


def _hidden(table: Table) -> list[str]:
    """Return notes about the parts of the file that are hidden or were not read."""
    notes: list[str] = []
    if table.other_sheets:
        notes.append(gettext("Only the sheet %s was read.") % _quoted(table.sheet))
    if table.hidden_rows:
        words = ngettext("Left out: %s hidden row.", "Left out: %s hidden rows.", table.hidden_rows)
        notes.append(words % table.hidden_rows)
    for words, names in (
        (gettext("Left out: hidden columns %s."), map(letter, sorted(table.hidden_columns))),
        (gettext("Left out: hidden sheets %s."), map(_quoted, table.hidden_sheets)),
        (gettext("Left out: other sheets %s."), map(_quoted, table.other_sheets)),
    ):
        if listed := list(names):
            more = [f"+{len(listed) - MAX_NAMED}"] if len(listed) > MAX_NAMED else []
            notes.append(words % ", ".join([*listed[:MAX_NAMED], *more]))
    return notes

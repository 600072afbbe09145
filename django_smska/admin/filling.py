"""The text for each row of a table: what stands in its columns takes the place of placeholders."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from django.core.exceptions import ValidationError
from django.utils.translation import gettext, ngettext

from ..placeholders import Text, is_name, key, shown
from . import tables
from .phone_words import Kind, kind
from .recipients import MAX_NAMED, Column, pasted_table


class Filling:
    """A text and the columns of its placeholders.

    :param text: with placeholders
    :param column: of the numbers
    :ivar heads: of the columns that are needed, the numbers' first
    :raises ValidationError: for a placeholder without a column; it names the columns that there are
    """

    def __init__(self, text: Text, column: Column | None) -> None:
        self._text = text
        ats = [_column_of(name, text.names[name], column) for name in text.names]
        _require(text, column, [name for name, at in zip(text.names, ats, strict=True) if at < 0])
        assert column is not None
        self._column = column
        self.heads, self._order = _order(column, ats)
        places = [self.heads.index(column.heads[at]) for at in ats]
        self._places = dict(zip(text.names, places, strict=True))
        self._rows = {line: _of_row(column, cells, self._order) for line, cells in _rows(column)}

    @property
    def names_numbers(self) -> bool:
        """Return whether the cell with the number is put into the text, too."""
        return self._column.at in self._order[1:] or 0 in self._places.values()

    def text_for(self, line: int) -> str:
        """Return the text for the row in this line.

        :raises ValidationError: where it lacks a value, or has a longer one than a table can have
        """
        cells = self._rows[line]
        empty = [self.heads[at] for at in self._places.values() if not cells[at]]
        if empty:
            words = ngettext(
                "Nothing in the column %(names)s.", "Nothing in the columns %(names)s.", len(empty)
            )
            raise ValidationError(words % {"names": _listed(empty)})
        long = [self.heads[at] for at in self._places.values() if tables.is_cut(cells[at])]
        if long:
            words = gettext("More than %(most)s characters in the column %(names)s.")
            params = {"most": tables.MAX_CELL_CHARACTERS, "names": _listed(long)}
            raise ValidationError(words % params)
        return self._text.render({name: cells[at] for name, at in self._places.items()})

    def written(self, line: int) -> str:
        """Return the row as people read it."""
        return ", ".join(filter(None, self._rows[line]))

    def row(self, line: int, number: str = "") -> str:
        """Return the row as it is offered to be corrected, with tabs.

        :param number: what stands for its cell with the number; empty for the cell itself
        """
        cells = self._rows[line]
        return "\t".join([number or cells[0], *cells[1:]])

    def table(
        self, dropped: Collection[int] = (), numbers: str | None = None, added: str = ""
    ) -> str:
        """Return the columns that are needed, as a table for :func:`recipients.read`. Rows stay in
        their lines.

        :param dropped: lines whose rows are left out
        :param numbers: a line each instead of the cells with the numbers
        :param added: further rows, as :meth:`row` gives them
        """
        cells = None if numbers is None else numbers.split("\n")
        rows: list[list[str]] = []
        for line in range(self._column.head_line + 1, max(self._rows, default=0) + 1):
            row = self._rows.get(line, [])
            if row and cells is not None:
                row = [cells[line - 1] if line <= len(cells) else "", *row[1:]]
            keeps = row and row[0] and line not in dropped
            rows.append(row if keeps else [""] * len(self.heads))
        rows += [self._added(line) for line in added.splitlines() if line.strip()]
        return _above(self._column) + pasted_table(self.heads, rows)

    def _added(self, line: str) -> list[str]:
        """Return the cells of a row that a person has corrected.

        A row with more or fewer cells has lost a tab, or the end of its line: all of it counts as
        its number, so that it lacks its values.
        """
        width = len(self.heads)
        cells = line.split("\t")
        if "\t" not in line and line.count(";") == width - 1:  # a field has no key for a tab
            cells = line.split(";")
        return cells if len(cells) == width else [" ".join(cells), *[""] * (width - 1)]


def whole_table(column: Column) -> str:
    """Return all columns that have heads as a table for :func:`recipients.read`, or "" for none."""
    ats = [at for at, head in enumerate(column.heads) if head and at != column.at]
    if not ats:
        return ""
    heads, order = _order(column, ats)
    found = {line: _of_row(column, cells, order) for line, cells in _rows(column)}
    lines = range(column.head_line + 1, max(found, default=0) + 1)
    return _above(column) + pasted_table(heads, [found.get(at, [""] * len(heads)) for at in lines])


def _column_of(name: str, written: str, column: Column | None) -> int:
    """Return which column a placeholder means, or -1.

    :raises ValidationError: where it may be two
    """
    heads = column.heads if column is not None else ()
    ats = [at for at, head in enumerate(heads) if key(head) == name]
    if len(ats) > 1:
        words = gettext("Two columns are named %(name)s. Rename one of them.")
        raise ValidationError(words % {"name": _listed([heads[ats[0]]])})
    return ats[0] if ats else -1


def _require(text: Text, column: Column | None, missing: list[str]) -> None:
    if not missing:
        return
    names = shown(text.names[name] for name in missing)
    heads = list(dict.fromkeys(filter(is_name, column.heads if column is not None else ())))
    if not heads:
        words = gettext(
            "The text has %(names)s in it, and the numbers stand in no table with heads. Upload a "
            "file, or paste a table, with such a column."
        )
        raise ValidationError(words % {"names": names})
    words = gettext("There is no column for %(names)s. You can write: %(columns)s.")
    raise ValidationError(words % {"names": names, "columns": shown(heads)})


def _order(column: Column, ats: Sequence[int]) -> tuple[list[str], list[int]]:
    """Return the heads and the places of the columns that are kept, the numbers' first.

    Its head is such that it is found again. Where the text names it, it keeps its own head, too.
    """
    own = column.heads[column.at]
    others = sorted({at for at in ats if at != column.at})
    head = own
    if kind(own) != Kind.PHONE and not any(
        key(column.heads[at]) == key(gettext("Phone")) for at in others
    ):
        head = gettext("Phone")
    again = [column.at] if column.at in ats and head != own else []
    order = [column.at, *again, *others]
    return [head, *(column.heads[at] for at in order[1:])], order


def _rows(column: Column) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows below the heads, without those in which the heads stand again."""
    for line, cells in column.table.rows():
        if line > column.head_line and cells[column.at] != column.heads[column.at]:
            yield line, cells


def _of_row(column: Column, cells: list[str], order: list[int]) -> list[str]:
    number, *others = order
    return [tables.cut(cells[number]), *(cells[at] for at in others)]


def _above(column: Column) -> str:
    """Return blank lines for what stands above the heads, so that each row stays in its line."""
    return "\n" * (column.head_line - 1)


def _listed(names: Sequence[str]) -> str:
    more = ["…"] if len(names) > MAX_NAMED else []
    quoted = [gettext("“%(text)s”") % {"text": one} for one in names[:MAX_NAMED]]
    return ", ".join([*quoted, *more])

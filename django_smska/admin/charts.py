"""Bar charts as inline SVG with shapes and classes only. Texts and numbers are HTML around it.

So a picture can be stretched to any width while its texts keep their size, and no style is inline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from django.utils.html import format_html, format_html_join

BAR_UNITS = 10  # with the gap; the picture is 100 units high


@dataclass(frozen=True)
class Layer:
    """Bars of one meaning.

    :param spans: lower and upper end of each, as parts of the whole height
    """

    mark: str
    words: Any
    spans: list[tuple[float, float]]


class Column(NamedTuple):
    """A column of a table. ``cell`` returns what stands in the line of an item."""

    head: Any
    cell: Callable[[Any], Any]


@dataclass(frozen=True)
class Table:
    """The numbers behind a picture, or without one."""

    heads: list[Any]
    lines: list[list[Any]]

    @classmethod
    def of(cls, items: Iterable[Any], *columns: Column) -> Table:
        """Return the table that has a line for each item."""
        lines = [[column.cell(item) for column in columns] for item in items]
        return cls([column.head for column in columns], lines)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A picture with its texts and its numbers.

    :param ticks: at even distances, from the top down
    """

    key: str
    title: Any
    help: Any
    description: str
    layers: list[Layer]
    ticks: list[Any]
    table: Table

    @property
    def dates(self) -> list[Any]:
        """Return the names below the first, the middle and the last bar."""
        names = [line[0] for line in self.table.lines]
        shown: set[int] = {0, len(names) // 2, len(names) - 1} if names else set()
        return [names[place] for place in sorted(shown)]

    @property
    def svg(self) -> str:
        return draw(self)


def stack(rows: Sequence[Sequence[float]], top: float) -> list[list[tuple[float, float]]]:
    """Return the spans of each layer, where the numbers of each bar stand on top of each other."""
    ends = [list(accumulate((number / top for number in row), initial=0.0)) for row in rows]
    bars = [list(zip(row[:-1], row[1:], strict=True)) for row in ends]
    return [list(layer) for layer in zip(*bars, strict=True)]


def round_top(highest: float) -> int:
    """Return the next of the numbers 2, 4, 6, 8, 10, 20, 40…, whose halves are whole, too."""
    size = 1
    while highest > 10 * size:
        size *= 10
    return next(part * size for part in (2, 4, 6, 8, 10) if highest <= part * size)


def draw(chart: Chart) -> str:
    """Return the SVG with a title and a description for screen readers, and with the numbers of
    each bar for the mouse."""
    number = len(chart.table.lines)
    paths = ((layer.mark, _path(layer.spans, number)) for layer in chart.layers)
    return format_html(
        '<svg class="smska-chart" viewBox="0 0 {width} 100" preserveAspectRatio="none" role="img" '
        'aria-labelledby="smska-{key}-title" aria-describedby="smska-{key}-words">'
        '<title id="smska-{key}-title">{title}</title>'
        '<desc id="smska-{key}-words">{description}</desc>'
        '<path class="smska-grid" d="M0 0H{width}M0 50H{width}M0 100H{width}"/>{bars}{hints}</svg>',
        key=chart.key,
        width=max(number, 1) * BAR_UNITS,
        title=chart.title,
        description=chart.description,
        bars=format_html_join("", '<path class="smska-bar-{}" d="{}"/>', paths),
        hints=format_html_join("", _HINT, _hints(chart.table)),
    )


_HINT = '<rect class="smska-hint" x="{}" y="0" width="{}" height="100"><title>{}</title></rect>'


def _path(spans: list[tuple[float, float]], number: int) -> str:
    """Return the outlines of the bars. Many bars have no gaps, which would be as wide as they."""
    gap = 1 if number <= 100 else 0
    drawn = (
        f"M{x * BAR_UNITS + gap} {100 - 100 * low:.4g}"
        f"H{(x + 1) * BAR_UNITS - gap}V{100 - 100 * high:.4g}"
        f"H{x * BAR_UNITS + gap}Z"
        for x, (low, high) in enumerate(spans)
        if high > low
    )
    return "".join(drawn)


def _hints(table: Table) -> list[tuple[int, int, str]]:
    return [
        (
            x * BAR_UNITS,
            BAR_UNITS,
            ", ".join(f"{head}: {cell}" for head, cell in zip(table.heads, line, strict=True)),
        )
        for x, line in enumerate(table.lines)
    ]

"""Bar charts as inline SVG: shapes and classes only; words and numbers stand around them in HTML.

So a picture can be stretched to any width while its words keep their size, and no style is inline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from django.utils.html import format_html, format_html_join

STEP = 10  # units from bar to bar; all is 100 units high


@dataclass(frozen=True)
class Layer:
    """Bars of one meaning. ``spans``: lower and upper end of each, as parts of the whole height."""

    mark: str
    words: Any
    spans: list[tuple[float, float]]


@dataclass(frozen=True)
class Table:
    """The numbers behind a picture, or without one."""

    heads: list[Any]
    lines: list[list[Any]]


@dataclass(frozen=True)
class Chart:
    """A picture with its words. ``ticks``: at even distances, from the top down; ``dates``: the
    same, from left to right."""

    key: str
    title: Any
    help: Any
    description: str
    layers: list[Layer]
    ticks: list[Any]
    dates: list[Any]
    table: Table

    @property
    def svg(self) -> str:
        return draw(self)


def stack(rows: Sequence[Sequence[float]], top: float) -> list[list[tuple[float, float]]]:
    """Put the numbers of each bar on top of each other; return the spans of each layer."""
    ends = [list(accumulate((number / top for number in row), initial=0.0)) for row in rows]
    bars = [list(zip(row[:-1], row[1:], strict=True)) for row in ends]
    return [list(layer) for layer in zip(*bars, strict=True)]


def round_top(highest: float) -> int:
    """The next number of the kind 2, 4, 6, 8, 10, 20, 40…: half of it is a whole one, too."""
    size = 1
    while highest > 10 * size:
        size *= 10
    return next(part * size for part in (2, 4, 6, 8, 10) if highest <= part * size)


def draw(chart: Chart) -> str:
    """The SVG, with a title and a description for those who do not see it, and a word on each bar
    for the mouse."""
    number = len(chart.table.lines)
    paths = ((layer.mark, _path(layer.spans, number)) for layer in chart.layers)
    return format_html(
        '<svg class="smska-chart" viewBox="0 0 {width} 100" preserveAspectRatio="none" role="img" '
        'aria-labelledby="smska-{key}-title" aria-describedby="smska-{key}-words">'
        '<title id="smska-{key}-title">{title}</title><desc id="smska-{key}-words">{words}</desc>'
        '<path class="smska-grid" d="M0 0H{width}M0 50H{width}M0 100H{width}"/>{bars}{hints}</svg>',
        key=chart.key,
        width=max(number, 1) * STEP,
        title=chart.title,
        words=chart.description,
        bars=format_html_join("", '<path class="smska-bar-{}" d="{}"/>', paths),
        hints=format_html_join("", _HINT, _hints(chart.table)),
    )


_HINT = '<rect class="smska-hint" x="{}" y="0" width="{}" height="100"><title>{}</title></rect>'


def _path(spans: list[tuple[float, float]], number: int) -> str:
    """Where there are many bars, gaps between them would eat them."""
    gap = 1 if number <= 100 else 0
    drawn = (
        f"M{x * STEP + gap} {100 - 100 * low:.4g}H{(x + 1) * STEP - gap}V{100 - 100 * high:.4g}"
        f"H{x * STEP + gap}Z"
        for x, (low, high) in enumerate(spans)
        if high > low
    )
    return "".join(drawn)


def _hints(table: Table) -> list[tuple[int, int, str]]:
    return [
        (
            x * STEP,
            STEP,
            ", ".join(f"{head}: {cell}" for head, cell in zip(table.heads, line, strict=True)),
        )
        for x, line in enumerate(table.lines)
    ]

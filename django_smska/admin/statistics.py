"""What the statistics page tells, from the counted days of ``daily_counts``: no number or text of a
person is among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.functional import cached_property
from django.utils.translation import gettext, ngettext, pgettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from .. import daily_counts
from ..daily_counts import FAILURES, Numbers
from ..states import Status
from .charts import Chart, Layer, Table, round_top, stack
from .forms import aliases
from .timeline import lasting
from .wording import undelivered

COUNTING_BUDGET_SECONDS = 0.1  # seconds of counting before a page is shown
LISTED = 50  # lines of a table that could grow with what people type

RANGES = {
    "7": _("7 days"),
    "30": _("30 days"),
    "90": _("90 days"),
    "365": _("a year"),
}
STEPS = {
    "day": pgettext_lazy("SMS statistics", "day"),
    "week": pgettext_lazy("SMS statistics", "week"),
}

#: What a picture tells apart; the tables have each status.
MARKS: dict[str, tuple[Any, tuple[Status, ...]]] = {
    "good": (pgettext_lazy("SMS status", "delivered"), (Status.DELIVERED,)),
    "moving": (
        _("on their way"),
        (Status.QUEUED, Status.CLAIMED, Status.SENDING, Status.SENT),
    ),
    "doubt": (pgettext_lazy("SMS statistics", "not known"), (Status.UNCONFIRMED, Status.UNKNOWN)),
    "bad": (
        _("not delivered"),
        (Status.FAILED, Status.REJECTED, Status.EXPIRED, Status.DELETED),
    ),
    "over": (_("not to be sent"), (Status.DRAFT, Status.CANCELLED)),
}
FINISHED = {Status.DELIVERED} | FAILURES


class RangeForm(forms.Form):
    """Which messages, by what steps. ``seen``: providers that messages went through."""

    days = forms.ChoiceField(
        label=pgettext_lazy("SMS statistics", "Last"), choices=[*RANGES.items()]
    )
    by = forms.ChoiceField(label=pgettext_lazy("SMS statistics", "By"), choices=[*STEPS.items()])
    using = forms.ChoiceField(label=_("Provider"), required=False)

    def __init__(self, asked: Mapping[str, Any], seen: Iterable[str]) -> None:
        usual = {"days": "30", "by": "day", "using": ""}
        super().__init__({name: asked.get(name, value) for name, value in usual.items()})
        names = sorted({*dict(aliases()), *seen})
        choices = [("", pgettext_lazy("SMS statistics", "all")), *((name, name) for name in names)]
        self.fields["using"].choices = choices  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Period:
    """A day, or the week that begins on it, and what was counted in it."""

    start: date
    numbers: Numbers

    @cached_property
    def name(self) -> str:
        return date_format(self.start, "SHORT_DATE_FORMAT")

    @cached_property
    def statuses(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for words, number in self.numbers.items():
            if words[0] == "messages":
                found[words[3]] += number
        return found

    @property
    def segments(self) -> int:
        return sum(number for words, number in self.numbers.items() if words[0] == "segments")

    @cached_property
    def times(self) -> Counter[int]:
        found: Counter[int] = Counter()
        for words, number in self.numbers.items():
            if words[0] == "time":
                found[int(words[2])] += number
        return found


def percentile(times: Counter[int], part: float) -> int | None:
    """The bound, in seconds, within which at least this part of all was delivered."""
    wanted, so_far = part * times.total(), 0
    for bound, number in sorted(times.items()):
        so_far += number
        if so_far >= wanted:
            return bound
    return None


def share(statuses: Counter[str]) -> float | None:
    """The part that was delivered of those whose end is known or given up."""
    finished = sum(statuses[status] for status in FINISHED)
    return statuses[Status.DELIVERED] / finished if finished else None


# --- the page -------------------------------------------------------------------------------------


def page(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows; ``asked``: the query of the URL. Days that are due are counted
    first, for a moment."""
    today = daily_counts.day_of(timezone.now())
    length = asked.get("days", "30")
    first = today - timedelta(days=int(length) - 1 if length in RANGES else 29)
    by_week = asked.get("by") == "week"
    if by_week:
        first = _monday(first)
    uncounted = daily_counts.catch_up(first, budget=COUNTING_BUDGET_SECONDS)
    kept = daily_counts.days().filter(day__gte=first, day__lte=today).values_list("day", "numbers")
    counted = {day: daily_counts.read(numbers) for day, numbers in kept}
    form = RangeForm(asked, {words[1] for numbers in counted.values() for words in numbers})
    if form.is_valid() and (alias := form.cleaned_data["using"]):
        counted = {day: _only(alias, numbers) for day, numbers in counted.items()}
    periods = _periods(first, today, counted, _monday if by_week else lambda day: day)
    whole = Period(first, _sum(counted.values()))
    return {
        "form": form,
        "uncounted": uncounted,
        "summary": _summary(whole),
        "charts": _charts(
            periods, whole, gettext("Week from") if by_week else pgettext("SMS statistics", "Day")
        ),
        "tables": _tables(whole) if whole.numbers else [],
    }


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _only(alias: str, numbers: Numbers) -> Numbers:
    return Counter({words: number for words, number in numbers.items() if words[1] == alias})


def _sum(counted: Iterable[Numbers]) -> Numbers:
    found: Numbers = Counter()
    for numbers in counted:
        found.update(numbers)
    return found


def _periods(
    first: date, last: date, counted: dict[date, Numbers], step: Callable[[date], date]
) -> list[Period]:
    """All from the first day to the last one, also those without a message."""
    groups: dict[date, list[Numbers]] = {}
    for after in range((last - first).days + 1):
        day = first + timedelta(days=after)
        groups.setdefault(step(day), []).append(counted.get(day, Counter()))
    return [Period(start, _sum(group)) for start, group in groups.items()]


def _summary(whole: Period) -> list[tuple[Any, str]]:
    """The most wanted numbers of the whole range."""
    return [
        (_("Messages"), _number(whole.statuses.total())),
        (pgettext_lazy("SMS statistics", "Delivered"), _percent(share(whole.statuses))),
        (_("Half of them within"), _within(percentile(whole.times, 0.5))),
        (_("Nearly all (95%) within"), _within(percentile(whole.times, 0.95))),
        (pgettext_lazy("SMS", "Segments"), _number(whole.segments)),
    ]


def _number(number: int) -> str:
    return number_format(number, use_l10n=True, force_grouping=True)


def _percent(part: float | None) -> str:
    """Rounded down: not all is all but one."""
    return "–" if part is None else f"{number_format(int(part * 1000) / 10, 1)}%"


def _within(seconds: int | None) -> str:
    return "–" if seconds is None else lasting(timedelta(seconds=seconds))


# --- pictures -------------------------------------------------------------------------------------


def _charts(periods: list[Period], whole: Period, head: str) -> list[Chart]:
    makers = (_by_status, _shares, _times, _segments)
    middle = [periods[len(periods) // 2]] if len(periods) > 2 else []
    shown = [periods[0], *middle, periods[-1]] if len(periods) > 1 else periods
    dates = [period.name for period in shown]
    return [make(periods, whole, head, dates) for make in makers]


def _by_status(periods: list[Period], whole: Period, head: str, dates: list[str]) -> Chart:
    found = [period.statuses for period in periods]
    occurring = [status for status in Status if whole.statuses[status]]
    marked = [
        [sum(counted[status] for status in statuses) for words, statuses in MARKS.values()]
        for counted in found
    ]
    top = round_top(max(map(sum, marked)))
    layers = [
        Layer(mark, words, spans)
        for (mark, (words, statuses)), spans in zip(MARKS.items(), stack(marked, top), strict=True)
    ]
    number = whole.statuses.total()
    told = ngettext("%s message in all.", "%s messages in all.", number) % _number(number)
    parts = ", ".join(f"{s.label}: {_number(whole.statuses[s])}" for s in occurring)
    return Chart(
        "status",
        _("Messages by status"),
        _("Each message counts on the day on which it was written."),
        f"{told} {parts}".strip(),
        layers,
        [_number(top), _number(top // 2), "0"],
        dates,
        Table(
            [
                head,
                *(status.label.capitalize() for status in occurring),
                pgettext_lazy("SMS statistics", "All"),
            ],
            [
                [
                    period.name,
                    *(_number(counted[status]) for status in occurring),
                    _number(counted.total()),
                ]
                for period, counted in zip(periods, found, strict=True)
            ],
        ),
    )


def _shares(periods: list[Period], whole: Period, head: str, dates: list[str]) -> Chart:
    found = [period.statuses for period in periods]
    parts = [share(counted) for counted in found]
    return Chart(
        "share",
        _("Share delivered"),
        _(
            "Of the messages that are finished. Those on their way, drafts and cancelled ones are "
            "not counted; those of which nobody knows count as not delivered."
        ),
        gettext("In all: %s") % _percent(share(whole.statuses)),
        [
            Layer(
                "good",
                pgettext_lazy("SMS status", "delivered"),
                [(0.0, part or 0.0) for part in parts],
            )
        ],
        ["100%", "50%", "0%"],
        dates,
        Table(
            [
                head,
                pgettext_lazy("SMS statistics", "Finished"),
                pgettext_lazy("SMS statistics", "Delivered"),
                _("Share delivered"),
            ],
            [
                [
                    period.name,
                    _number(sum(counted[status] for status in FINISHED)),
                    _number(counted[Status.DELIVERED]),
                    _percent(part),
                ]
                for period, counted, part in zip(periods, found, parts, strict=True)
            ],
        ),
    )


def _times(periods: list[Period], whole: Period, head: str, dates: list[str]) -> Chart:
    """Higher by one step for each bound: a logarithmic scale that ends on the bounds."""
    halves = [percentile(period.times, 0.5) for period in periods]
    most = [percentile(period.times, 0.95) for period in periods]
    top = _top_step(max((_step(bound) for bound in most), default=0))
    told = gettext("In all: half within %(half)s, nearly all (95%%) within %(most)s") % {
        "half": _within(percentile(whole.times, 0.5)),
        "most": _within(percentile(whole.times, 0.95)),
    }
    layers = [
        Layer(mark, words, [(0.0, _step(bound) / top) for bound in bounds])
        for mark, words, bounds in (
            ("most", _("nearly all (95%) within"), most),
            ("half", _("half of them within"), halves),
        )
    ]
    return Chart(
        "time",
        _("Time to deliver"),
        _(
            "From taken by the gateway until its word came that the message was delivered. It is "
            "asked after 10 seconds, half a minute, one and a half minutes and so on, so a message "
            "may have arrived earlier."
        ),
        told,
        layers,
        [_within(_bound(top)), _within(_bound(top // 2)), "0"],
        dates,
        Table(
            [
                head,
                pgettext_lazy("SMS statistics", "Delivered"),
                _("Half of them within"),
                _("Nearly all (95%) within"),
            ],
            [
                [period.name, _number(period.times.total()), _within(half), _within(end)]
                for period, half, end in zip(periods, halves, most, strict=True)
            ],
        ),
    )


def _step(bound: int | None) -> int:
    """The place of a bound among all: 1 for the first, 0 for none."""
    if bound is None:
        return 0
    if bound in daily_counts.BOUNDS:
        return daily_counts.BOUNDS.index(bound) + 1
    return len(daily_counts.BOUNDS) + bound // daily_counts.DAY - 1


def _top_step(step: int) -> int:
    return max(step + step % 2, 2)


def _bound(step: int) -> int:
    """The bound at that place."""
    most = len(daily_counts.BOUNDS)
    return daily_counts.BOUNDS[step - 1] if step <= most else (step - most + 1) * daily_counts.DAY


def _segments(periods: list[Period], whole: Period, head: str, dates: list[str]) -> Chart:
    found = [period.segments for period in periods]
    top = round_top(max(found))
    return Chart(
        "segments",
        pgettext_lazy("SMS", "Segments"),
        _("Of the messages that the gateway took: about what you pay for."),
        gettext("In all: %s") % _number(whole.segments),
        [
            Layer(
                "moving",
                pgettext_lazy("SMS statistics", "segments"),
                [(0.0, number / top) for number in found],
            )
        ],
        [_number(top), _number(top // 2), "0"],
        dates,
        Table(
            [head, pgettext_lazy("SMS", "Segments")],
            [[period.name, _number(number)] for period, number in zip(periods, found, strict=True)],
        ),
    )


# --- tables ---------------------------------------------------------------------------------------


def _tables(whole: Period) -> list[tuple[Any, Table]]:
    return [
        (_("What failed"), _failures(whole)),
        (_("By provider"), _split(whole, 1, _("Provider"))),
        (_("By sender"), _split(whole, 2, pgettext_lazy("SMS statistics", "Sender"))),
    ]


def _failures(whole: Period) -> Table:
    found: Counter[str] = Counter()
    for words, number in whole.numbers.items():
        if words[0] == "failure":
            found[str(undelivered(words[2], words[3]))] += number
    every = whole.statuses.total()
    return Table(
        [_("What happened"), _("Messages"), _("Share of all")],
        [
            [words, _number(number), _percent(number / every)]
            for words, number in found.most_common()
        ],
    )


def _split(whole: Period, place: int, head: Any) -> Table:
    """By the word at this place, those with most messages first."""
    statuses: dict[str, Counter[str]] = {}
    segments: Counter[str] = Counter()
    for words, number in whole.numbers.items():
        if words[0] == "messages":
            statuses.setdefault(words[place], Counter())[words[3]] += number
        elif words[0] == "segments":
            segments[words[place]] += number
    ordered = sorted(statuses.items(), key=lambda item: -item[1].total())
    return Table(
        [
            head,
            _("Messages"),
            pgettext_lazy("SMS statistics", "Delivered"),
            _("Failed or not known"),
            pgettext_lazy("SMS", "Segments"),
        ],
        [
            [
                name or gettext("(the provider's own)"),
                _number(counted.total()),
                _percent(share(counted)),
                _number(sum(counted[status] for status in FAILURES)),
                _number(segments[name]),
            ]
            for name, counted in ordered[:LISTED]
        ],
    )

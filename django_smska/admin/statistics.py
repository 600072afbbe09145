"""The statistics page. It reads the rows of ``daily_counts``, which have no phone number and no
text of a message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.translation import gettext, ngettext, pgettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from .. import daily_counts
from ..daily_counts import ACCEPTED, FAILURES, bound_at, place_of, sum_of_prices
from ..states import Status
from .charts import Chart, Column, Layer, Table, round_top, stack
from .forms import aliases, focus_on_error
from .timeline import lasting
from .wording import MARKS, money, number_words, undelivered

COUNTING_BUDGET_SECONDS = 0.1  # the time for counting before a page is shown
MAX_DAYS = 366  # the most days of a range that people choose: each has its bar
MAX_TABLE_LINES = 50  # the most lines of a table: people may type any number of senders

YESTERDAY, OWN = "yesterday", "own"
RANGES = {
    YESTERDAY: _("yesterday"),
    "7": _("7 days"),
    "30": _("30 days"),
    "90": _("90 days"),
    "365": _("a year"),
    OWN: _("other dates"),
}
STEPS = {
    "day": pgettext_lazy("SMS statistics", "day"),
    "week": pgettext_lazy("SMS statistics", "week"),
}

#: The layers of the picture, by the mark of their statuses; the tables show each status.
LAYERS: dict[str, Any] = {
    "good": Status.DELIVERED.label,
    "moving": _("on their way"),
    "waiting": pgettext_lazy("SMS statistics", "waiting"),
    "doubt": pgettext_lazy("SMS statistics", "not known"),
    "bad": _("not delivered"),
    "over": Status.CANCELLED.label,
}
FINISHED = {Status.DELIVERED} | FAILURES


class DayField(forms.DateField):
    """A day, for which browsers show a calendar. They send it in one format in every language."""

    def __init__(self, **options: Any) -> None:
        widget = forms.DateInput(format="%Y-%m-%d", attrs={"type": "date"})
        super().__init__(required=False, widget=widget, **options)


class RangeForm(forms.Form):
    """The range of days, the steps and the provider.

    Once it is valid, ``first`` and ``last`` are the days of the range.
    """

    days = forms.ChoiceField(
        label=pgettext_lazy("SMS statistics", "Period"), choices=[*RANGES.items()]
    )
    since = DayField(label=pgettext_lazy("SMS statistics", "From"))
    until = DayField(label=pgettext_lazy("SMS statistics", "Until"))
    by = forms.ChoiceField(label=pgettext_lazy("SMS statistics", "By"), choices=[*STEPS.items()])
    using = forms.CharField(label=_("Provider"), required=False, widget=forms.Select)

    def __init__(self, asked: Mapping[str, Any], today: date) -> None:
        usual = {"days": "30", "since": "", "until": "", "by": "day", "using": ""}
        given = {name: asked.get(name, value) for name, value in usual.items()}
        for name, known in (("days", RANGES), ("by", STEPS)):
            if given[name] not in known:
                given[name] = usual[name]
        super().__init__(given)
        self.today = self.first = self.last = today

    def offer(self, seen: Iterable[str]) -> str:
        """Offer the providers, those of counted messages, too, and return the chosen one."""
        names = sorted({*dict(aliases()), *seen})
        choices = [("", pgettext_lazy("SMS statistics", "all")), *((name, name) for name in names)]
        self.fields["using"].widget.choices = choices
        chosen = self.data["using"]
        return chosen if chosen in names else ""

    def clean(self) -> None:
        days = self.cleaned_data["days"]
        if days == OWN:
            self._clean_dates()
        elif given := [name for name in ("since", "until") if self.data[name]]:
            words = _("Choose “other dates” for this date, or leave it empty.")
            self.add_error(given[0], words)
        elif days == YESTERDAY:
            self.first = self.last = self.today - timedelta(days=1)
        else:
            self.first = self.today - timedelta(days=int(days) - 1)

    def _clean_dates(self) -> None:
        if {"since", "until"} & self.errors.keys():
            return
        since, until = self.cleaned_data["since"], self.cleaned_data["until"] or self.today
        if since is None:
            self.add_error("since", _("Enter the first day."))
        elif since > self.today:
            self.add_error("since", _("This day is in the future."))
        elif since > until:
            self.add_error("until", _("The last day is before the first one."))
        elif (until - since).days >= MAX_DAYS:
            words = ngettext(
                "This is a range of more than %s day. Choose a shorter one.",
                "This is a range of more than %s days. Choose a shorter one.",
                MAX_DAYS,
            )
            self.add_error("until", words % MAX_DAYS)
        else:
            self.first, self.last = since, min(until, self.today)


@dataclass
class Counts:
    """What was counted of a period, a provider or a sender."""

    name: str
    statuses: Counter[str] = field(default_factory=Counter[str])
    times: Counter[int] = field(default_factory=Counter[int])  # by their upper bound in seconds
    segments: int = 0
    prices: dict[str, Decimal] = field(default_factory=dict[str, Decimal])  # their sum, by currency

    def add(self, row: Any, seconds: int = 0) -> None:
        """Add a row of ``daily_counts.totals()``.

        :param seconds: its upper bound, if it has one
        """
        self.statuses[row.status] += row.number
        if seconds:
            self.times[seconds] += row.number
        if row.status in ACCEPTED:
            self.segments += row.size
        if (price := sum_of_prices(self.prices.get(row.currency), row.cost)) is not None:
            self.prices[row.currency] = price

    @property
    def number(self) -> int:
        return self.statuses.total()

    @property
    def finished(self) -> int:
        return sum(self.statuses[status] for status in FINISHED)

    @property
    def failures(self) -> int:
        return sum(self.statuses[status] for status in FAILURES)

    @property
    def share(self) -> float | None:
        """Return the delivered part of the messages that are finished or given up."""
        return self.statuses[Status.DELIVERED] / self.finished if self.finished else None

    @property
    def cost(self) -> str:
        """Return the sum of the known prices for each currency; "" where none is known."""
        return ", ".join(money(price, currency) for currency, price in sorted(self.prices.items()))

    @property
    def half_within(self) -> int | None:
        return percentile(self.times, 0.5)

    @property
    def most_within(self) -> int | None:
        return percentile(self.times, 0.95)


def percentile(times: Counter[int], part: float) -> int | None:
    """Return the bound, in seconds, within which at least this part was delivered."""
    wanted, so_far = part * times.total(), 0
    for bound, number in sorted(times.items()):
        so_far += number
        if so_far >= wanted:
            return bound
    return None


# --- the page -------------------------------------------------------------------------------------


def page(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template shows for the query of a URL. Days that are due are counted first,
    for a moment."""
    form = RangeForm(asked, daily_counts.day_of(timezone.now()))
    if not form.is_valid():
        form.offer([])
        focus_on_error(form, form.fields)
        return {"form": form, "uncounted": 0, "summary": [], "charts": [], "tables": []}
    first, last = form.first, form.last
    by_week = form.cleaned_data["by"] == "week"
    if by_week and form.cleaned_data["days"] not in (YESTERDAY, OWN):
        first = _monday(first)
    uncounted = daily_counts.catch_up(first, budget=COUNTING_BUDGET_SECONDS)
    columns = ("using", "sender", "status", "error_code", "currency")
    parts = list(daily_counts.totals(first, last, *columns))
    if alias := form.offer({part.using for part in parts}):
        parts = [part for part in parts if part.using == alias]
    whole, periods = _count(first, last, alias, _monday if by_week else lambda day: day)
    head = gettext("Week from") if by_week else pgettext("SMS statistics", "Day")
    return {
        "form": form,
        "uncounted": uncounted,
        "summary": _summary(whole),
        "charts": [
            make(whole, periods, _column(head, lambda period: period.name))
            for make in (_by_status, _shares, _times, _segments)
        ],
        "tables": _tables(parts) if parts else [],
    }


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _count(
    first: date, last: date, alias: str, start_of: Callable[[date], date]
) -> tuple[Counts, list[Counts]]:
    """Return the counts of the whole range, and those of each period, also of the empty ones."""
    every = [first + timedelta(days=after) for after in range((last - first).days + 1)]
    starts = sorted({start_of(day) for day in every})
    periods = {start: Counts(date_format(start, "SHORT_DATE_FORMAT")) for start in starts}
    whole = Counts("")
    columns = ("day", "status", "delivered_within_seconds", "currency")
    rows = daily_counts.totals(first, last, *columns)
    for row in rows.filter(using=alias) if alias else rows:
        for counts in (whole, periods[start_of(row.day)]):
            counts.add(row, row.delivered_within_seconds)
    return whole, list(periods.values())


def _summary(whole: Counts) -> list[tuple[Any, str]]:
    """Return the most important numbers of the whole range."""
    return [
        (_("Messages"), number_words(whole.number)),
        (_("Share delivered"), percent(whole.share)),
        (_("Half of them within"), within(whole.half_within)),
        (_("Nearly all (95%) within"), within(whole.most_within)),
        (pgettext_lazy("SMS", "Segments"), number_words(whole.segments)),
        *([(_("Price"), whole.cost)] if whole.cost else []),
    ]


def percent(part: float | None) -> str:
    """Return a percentage. It is rounded down, so that 100% means all of them."""
    return "–" if part is None else f"{number_format(int(part * 1000) / 10, 1)}%"


def within(seconds: int | None) -> str:
    """Return a time, or a dash for none."""
    return "–" if seconds is None else lasting(timedelta(seconds=seconds))


# --- pictures -------------------------------------------------------------------------------------


def _by_status(whole: Counts, periods: list[Counts], period: Column) -> Chart:
    occurring = [status for status in Status if whole.statuses[status]]
    marked = [_by_mark(counts) for counts in periods]
    top = round_top(max(map(sum, marked)))
    spans = stack(marked, top)
    every = ngettext("%s message in total.", "%s messages in total.", whole.number)
    parts = ", ".join(f"{one.label}: {number_words(whole.statuses[one])}" for one in occurring)
    return Chart(
        key="status",
        title=_("Messages by status"),
        help=_("Each message counts on the day on which it was created."),
        description=f"{every % number_words(whole.number)} {parts}".strip(),
        layers=[
            Layer(mark, words, spans[place]) for place, (mark, words) in enumerate(LAYERS.items())
        ],
        ticks=[number_words(top), number_words(top // 2), "0"],
        table=Table.of(
            periods,
            period,
            *(_status_column(status) for status in occurring),
            _column(
                pgettext_lazy("SMS statistics", "All"), lambda counts: number_words(counts.number)
            ),
        ),
    )


def _column(head: Any, cell: Callable[[Counts], Any]) -> Column:
    return Column(head, cell)


def _by_mark(counts: Counts) -> list[int]:
    numbers: Counter[str] = Counter()
    for status in Status:
        numbers[MARKS[status]] += counts.statuses[status]
    return [numbers[mark] for mark in LAYERS]


def _status_column(status: Status) -> Column:
    return _column(status.label.capitalize(), lambda counts: number_words(counts.statuses[status]))


def _shares(whole: Counts, periods: list[Counts], period: Column) -> Chart:
    label = pgettext_lazy("SMS status", "delivered")
    return Chart(
        key="share",
        title=_("Share delivered"),
        help=_(
            "The share of finished messages. Messages on their way, drafts and cancelled ones are "
            "not counted. If it is not known whether a message arrived, it counts as not "
            "delivered."
        ),
        description=gettext("Overall: %s") % percent(whole.share),
        layers=[Layer("good", label, [(0.0, counts.share or 0.0) for counts in periods])],
        ticks=["100%", "50%", "0%"],
        table=Table.of(
            periods,
            period,
            _column(
                pgettext_lazy("SMS statistics", "Finished"),
                lambda counts: number_words(counts.finished),
            ),
            _delivered(lambda counts: number_words(counts.statuses[Status.DELIVERED])),
            _column(_("Share delivered"), lambda counts: percent(counts.share)),
        ),
    )


def _delivered(cell: Callable[[Counts], str]) -> Column:
    return _column(pgettext_lazy("SMS statistics", "Delivered"), cell)


def _times(whole: Counts, periods: list[Counts], period: Column) -> Chart:
    """Return bars that are higher by one step for each bound: a logarithmic scale whose lines are
    bounds, too."""
    half = _column(_("Half of them within"), lambda counts: within(counts.half_within))
    most = _column(_("Nearly all (95%) within"), lambda counts: within(counts.most_within))
    highest = max(place_of(counts.most_within) for counts in periods)
    top = max(highest + highest % 2, 2)
    description = gettext("Overall: half within %(half)s, nearly all (95%%) within %(most)s")
    return Chart(
        key="time",
        title=_("Time to deliver"),
        help=_(
            "From acceptance by the gateway to its delivery report. Reports are requested after "
            "10 seconds, half a minute, one and a half minutes and so on, so a message may have "
            "arrived earlier. The scale is not even: short times have more room."
        ),
        description=description % {"half": half.cell(whole), "most": most.cell(whole)},
        layers=[
            Layer(mark, words, [(0.0, place_of(bound) / top) for bound in bounds])
            for mark, words, bounds in (
                ("most", _("nearly all (95%) within"), [one.most_within for one in periods]),
                ("half", _("half of them within"), [one.half_within for one in periods]),
            )
        ],
        ticks=[within(bound_at(top)), within(bound_at(top // 2)), "0"],
        table=Table.of(
            periods,
            period,
            _delivered(lambda counts: number_words(counts.times.total())),
            half,
            most,
        ),
    )


def _segments(whole: Counts, periods: list[Counts], period: Column) -> Chart:
    top = round_top(max(counts.segments for counts in periods))
    label = pgettext_lazy("SMS statistics", "segments")
    return Chart(
        key="segments",
        title=pgettext_lazy("SMS", "Segments"),
        help=_("Segments of accepted messages. This is roughly what you pay for."),
        description=gettext("Total: %s") % number_words(whole.segments),
        layers=[Layer("moving", label, [(0.0, counts.segments / top) for counts in periods])],
        ticks=[number_words(top), number_words(top // 2), "0"],
        table=Table.of(periods, period, SEGMENTS, *_price_column([whole])),
    )


SEGMENTS = _column(pgettext_lazy("SMS", "Segments"), lambda counts: number_words(counts.segments))


def _price_column(counted: Iterable[Counts]) -> list[Column]:
    """Return the column of prices where one is known; most providers say none."""
    if not any(counts.prices for counts in counted):
        return []
    return [_column(_("Price"), lambda counts: counts.cost)]


# --- tables ---------------------------------------------------------------------------------------


def _tables(parts: list[Any]) -> list[tuple[Any, Table]]:
    sender = pgettext_lazy("SMS statistics", "Sender")
    return [
        (_("What failed"), failures(parts)),
        (_("By provider"), _split(_("Provider"), parts, lambda part: part.using)),
        (_("By sender"), _split(sender, parts, lambda part: part.sender)),
    ]


def failures(parts: list[Any]) -> Table:
    """Return the reasons why messages did not arrive; the most frequent stands first."""
    found: Counter[str] = Counter()
    for part in parts:
        if part.status in FAILURES:
            found[str(undelivered(part.status, part.error_code))] += part.number
    every = sum(part.number for part in parts)
    ordered = sorted(found.items(), key=lambda failure: (-failure[1], failure[0]))
    return Table(
        [_("What happened"), _("Messages"), _("Share of all")],
        [[words, number_words(number), percent(number / every)] for words, number in ordered],
    )


def _split(head: Any, parts: list[Any], name_of: Callable[[Any], str]) -> Table:
    """Return a table with a line for each name. The name with most messages stands first."""
    found: dict[str, Counts] = {}
    for part in parts:
        name = name_of(part)
        found.setdefault(name, Counts(name or gettext("(the provider's own)"))).add(part)
    ordered = sorted(found.values(), key=lambda counts: (-counts.number, counts.name))
    return Table.of(
        ordered[:MAX_TABLE_LINES],
        _column(head, lambda counts: counts.name),
        _column(_("Messages"), lambda counts: number_words(counts.number)),
        _delivered(lambda counts: percent(counts.share)),
        _column(_("Failed or unknown"), lambda counts: number_words(counts.failures)),
        SEGMENTS,
        *_price_column(ordered),
    )

"""The statistics of one mailing: which part arrived and when, why others did not, and the cost."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from datetime import timezone as zones
from typing import Any

from django.utils.formats import date_format
from django.utils.translation import gettext, ngettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from .. import mailing_counts
from ..models import SmsMailing
from ..states import Status
from ..times import local
from .charts import Chart, Column, Layer, Table, round_top
from .statistics import Counts, failures, number_words, percent, within

#: The steps of the chart over time, in seconds: a minute to a day.
STEPS_SECONDS = (60, 300, 900, 3600, 10_800, 86_400)
MAX_STEPS = 60  # the most bars of that chart
DAY_SECONDS = 86_400


def page(mailing: SmsMailing) -> dict[str, Any]:
    """Return what the template shows, by a few queries of which two read all messages."""
    parts = mailing_counts.parts(mailing)
    whole = Counts("")
    for part in parts:
        whole.add(part)
        if part.status == Status.DELIVERED and part.seconds is not None:
            whole.times[max(part.seconds, 1)] += part.number
    return {
        "summary": _summary(mailing, whole),
        "share_help": gettext(
            "Of the recipients for whom it is decided: those on their way, drafts and cancelled "
            "messages are not counted. Whom you wrote to again counts once. If it is not known "
            "whether a message arrived, it counts as not delivered."
        ),
        "pruned": sum(mailing.pruned.values()),
        "chart": _over_time(mailing, parts),
        "tables": [(_("What failed"), failures(parts)), (_("By status"), _by_status(whole))],
    }


def _summary(mailing: SmsMailing, whole: Counts) -> list[tuple[Any, str]]:
    every = Counts("", whole.statuses + Counter(mailing.pruned))
    delivered = every.statuses[Status.DELIVERED]
    decided = max(every.finished - mailing.again, delivered)
    return [
        (pgettext_lazy("SMS statistics", "Delivered"), number_words(delivered)),
        (_("Share delivered"), percent(delivered / decided if decided else None)),
        (_("Usually within"), within(whole.half_within)),
        (_("Nearly always (95%) within"), within(whole.most_within)),
        (pgettext_lazy("SMS", "Segments"), number_words(whole.segments)),
        *([(_("Price"), whole.cost)] if whole.cost else []),
    ]


def _by_status(whole: Counts) -> Table:
    return Table(
        [pgettext_lazy("SMS statistics", "Status"), _("Messages")],
        [
            [status.label.capitalize(), number_words(whole.statuses[status])]
            for status in Status
            if whole.statuses[status]
        ],
    )


def _over_time(mailing: SmsMailing, parts: list[mailing_counts.Part]) -> Chart | None:
    """Return the chart of when they were accepted; None where none was."""
    firsts = [part.first for part in parts if part.first is not None]
    lasts = [part.last for part in parts if part.last is not None]
    if not firsts:
        return None
    step = _step(min(firsts), max(lasts))
    begin = _start(min(firsts), step)
    numbers = mailing_counts.sent_after(mailing, begin, step)
    bars = [(begin + timedelta(seconds=at), numbers.get(at, 0)) for at in _starts(numbers, step)]
    top = round_top(max((number for _at, number in bars), default=0))
    in_all = sum(number for _at, number in bars)
    every = ngettext("%s message in total.", "%s messages in total.", in_all)
    return Chart(
        key="sent",
        title=_("Messages sent over time"),
        help=gettext("When the gateway accepted them. Each bar is %s.") % within(step),
        description=every % number_words(in_all),
        layers=[Layer("moving", _("messages sent"), [(0.0, number / top) for _at, number in bars])],
        ticks=[number_words(top), number_words(top // 2), "0"],
        table=Table.of(
            bars,
            Column(pgettext_lazy("SMS statistics", "From"), lambda bar: _moment(bar[0])),
            Column(_("Messages"), lambda bar: number_words(bar[1])),
        ),
    )


def _step(first: datetime, last: datetime) -> int:
    """Return the shortest step, in seconds, by which there are not too many bars."""
    seconds = (last - first).total_seconds()
    days = int(seconds // (DAY_SECONDS * (MAX_STEPS - 1))) + 1
    fit = (step for step in STEPS_SECONDS if seconds < step * (MAX_STEPS - 1))
    return next(fit, days * DAY_SECONDS)


def _start(first: datetime, step: int) -> datetime:
    """Return the start of the step in which this is, counted from midnight on the site's clock."""
    at = local(first)
    into_day = timedelta(hours=at.hour, minutes=at.minute, seconds=at.second)
    seconds = int(into_day.total_seconds()) % min(step, DAY_SECONDS)
    begin = first - timedelta(seconds=seconds, microseconds=at.microsecond)
    return begin if begin.tzinfo is None else begin.astimezone(zones.utc)


def _starts(numbers: dict[int, int], step: int) -> range:
    return range(0, max(numbers, default=-step) + step, step)


def _moment(at: datetime) -> str:
    return date_format(local(at), "SHORT_DATETIME_FORMAT")

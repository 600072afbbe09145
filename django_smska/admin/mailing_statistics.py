"""The statistics of one mailing: which part arrived and when, why others did not, and the cost."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from django.utils.formats import date_format
from django.utils.translation import gettext, ngettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from .. import mailing_counts
from ..daily_counts import DAY_SECONDS, day_of, start_of
from ..models import SmsMailing
from ..states import Status
from ..times import local
from .charts import Chart, Column, Layer, Table, round_top
from .money import total_of
from .statistics import Counts, failures, percent, within
from .wording import number_words

#: The steps of the chart over time, in seconds: a minute to a day.
STEPS_SECONDS = (60, 300, 900, 3600, 10_800, 86_400)
MAX_STEPS = 60  # the most bars of that chart
MAX_MINUTES = 3660 * 1440  # ten years: a later time was written by raw SQL


def page(mailing: SmsMailing) -> dict[str, Any]:
    """Return what the template shows, by a few queries one of which reads all messages."""
    begin = _begin(mailing)
    parts = mailing_counts.parts(mailing, begin)
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
        "chart": _over_time(begin, parts),
        "tables": [(_("What failed"), failures(parts)), (_("By status"), _by_status(whole))],
    }


def _summary(mailing: SmsMailing, whole: Counts) -> list[tuple[Any, str]]:
    every = Counts("", whole.statuses + Counter(mailing.pruned))
    delivered = every.statuses[Status.DELIVERED]
    cost = whole.cost or total_of(mailing.using, whole.segments)
    decided = max(every.finished - mailing.again, delivered)
    return [
        (pgettext_lazy("SMS statistics", "Delivered"), number_words(delivered)),
        (_("Share delivered"), percent(delivered / decided if decided else None)),
        (_("Usually within"), within(whole.half_within)),
        (_("Nearly always (95%) within"), within(whole.most_within)),
        (pgettext_lazy("SMS", "Segments"), number_words(whole.segments)),
        *([(_("Price"), cost)] if cost else []),
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


def _over_time(begin: datetime, parts: list[mailing_counts.Part]) -> Chart | None:
    """Return the chart of when they were accepted; None where none was."""
    minutes: Counter[int] = Counter()
    for part in parts:
        if part.minute is not None:
            minutes[part.minute] += part.number
    if not minutes:
        return None
    step = _step(60 * (min(max(minutes), MAX_MINUTES) - max(min(minutes), 0)))
    numbers: Counter[int] = Counter()
    for minute, number in minutes.items():
        numbers[60 * min(max(minute, 0), MAX_MINUTES) // step] += number
    places = range(min(numbers), max(numbers) + 1)
    bars = [(begin + timedelta(seconds=place * step), numbers[place]) for place in places]
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
            Column(pgettext_lazy("SMS statistics", "From"), _begin_of),
            Column(_("Messages"), _number_of),
        ),
    )


def _begin(mailing: SmsMailing) -> datetime:
    """Return the midnight of the site before the day of the mailing; nothing was sent earlier."""
    return start_of(day_of(mailing.created_at) - timedelta(days=1))


def _step(seconds: int) -> int:
    """Return the shortest step, in seconds, by which there are not too many bars."""
    days = seconds // (DAY_SECONDS * (MAX_STEPS - 1)) + 1
    fit = (step for step in STEPS_SECONDS if seconds < step * (MAX_STEPS - 1))
    return next(fit, days * DAY_SECONDS)


def _begin_of(bar: tuple[datetime, int]) -> str:
    return date_format(local(bar[0]), "SHORT_DATETIME_FORMAT")


def _number_of(bar: tuple[datetime, int]) -> str:
    return number_words(bar[1])

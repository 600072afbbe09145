"""When the messages of the page for writing leave: the times that it offers, the hours over which
they are spread, and the quiet hours of their recipients."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.formats import date_format, time_format
from django.utils.timezone import get_current_timezone, now
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from .. import conf, quiet_hours, times

NOW, HOUR, OTHER = "now", "hour", "other"
EVENING, MORNING = time(18), time(10)
DAYS_OFFERED = 6  # from tomorrow on: the day after them has the name of today
LEAST_AHEAD = timedelta(minutes=10)  # the least time until the evening for which it is offered
SPREADS_HOURS = (1, 2, 3, 4, 6, 8, 12, 24)

#: From Monday on.
_ON = (
    _("on Monday at 10:00"),
    _("on Tuesday at 10:00"),
    _("on Wednesday at 10:00"),
    _("on Thursday at 10:00"),
    _("on Friday at 10:00"),
    _("on Saturday at 10:00"),
    _("on Sunday at 10:00"),
)
_FIXED = re.compile("hour ([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}Z)")
_WALL = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}")


# --- the times that are offered -------------------------------------------------------------------


def presets() -> list[tuple[str, Any]]:
    """Return the choices. The value of a day is its date, so that "tomorrow" is the same day when
    the page is sent after midnight."""
    today = times.local(now()).date()
    evening = _wall(today, EVENING)
    soon = [(evening, _("today at 18:00"))] if moment_of(evening) >= now() + LEAST_AHEAD else []
    days = [today + timedelta(days=number) for number in range(1, DAYS_OFFERED + 1)]
    return [
        (NOW, _("now")),
        (HOUR, _("in an hour")),
        *soon,
        (_wall(days[0], MORNING), _("tomorrow at 10:00")),
        *((_wall(day, MORNING), _ON[day.weekday()]) for day in days[1:]),
        (OTHER, _("at another time")),
    ]


def _wall(day: date, at: time) -> str:
    return f"{day.isoformat()}T{at:%H:%M}"


def moment_of(value: str) -> datetime:
    """Return the moment of a choice, as models have times.

    :raises ValueError: where it names none
    :raises OverflowError: where it is beyond the calendar
    """
    if value == HOUR:
        return (now() + timedelta(hours=1)).replace(second=0, microsecond=0)
    if found := _FIXED.fullmatch(value):
        fixed = datetime.strptime(found[1], "%Y-%m-%dT%H:%MZ").replace(tzinfo=timezone.utc)
        return times.as_stored(fixed)
    if not _WALL.fullmatch(value):
        raise ValueError(value)
    wall = datetime.fromisoformat(value)
    return times.as_stored(times.moments(wall.date(), wall.time(), get_current_timezone())[0])


def fixed(value: str) -> str:
    """Return a choice whose moment does not move."""
    return f"hour {times.in_utc(moment_of(HOUR)):%Y-%m-%dT%H:%MZ}" if value == HOUR else value


def is_moment(value: str) -> bool:
    try:
        return bool(moment_of(value))
    except (ValueError, OverflowError):
        return False


class WhenField(forms.ChoiceField):
    """A choice of :func:`presets`, or one that a page had offered before."""

    def __init__(self, **options: Any) -> None:
        super().__init__(choices=presets, required=False, initial=NOW, **options)

    def valid_value(self, value: str) -> bool:
        return super().valid_value(value) or is_moment(value)

    def offer(self, value: Any) -> None:
        """Let the page show a choice that it would not offer any more."""
        if isinstance(value, str) and value not in dict(presets()) and is_moment(value):
            self.choices = [*presets(), (value, time_words(moment_of(value)))]


class SendAtField(forms.SplitDateTimeField):
    """A date and a time, or neither."""

    def compress(self, data_list: Any) -> Any:
        day, at = data_list or (None, None)
        if day and at is None:
            raise ValidationError(_("Enter the time, too."), code="no_time")
        if at is not None and not day:
            raise ValidationError(_("Enter the date, too."), code="no_date")
        return super().compress(data_list)


def spreads() -> list[tuple[Any, str]]:
    over = (
        (number, ngettext("over %s hour", "over %s hours", number) % number)
        for number in SPREADS_HOURS
    )
    return [("", gettext("all at once")), *over]


def time_words(at: datetime) -> str:
    return date_format(times.local(at), "SHORT_DATETIME_FORMAT")


# --- when each one leaves -------------------------------------------------------------------------

#: A number whose quiet hours it would be, the time there, and when these end.
_Quiet = tuple[str, time, datetime]


@dataclass(frozen=True)
class Plan:
    """When the messages leave.

    :ivar leaves: by number, where this is not the time of all
    :ivar there: what the clocks of the recipients show whose quiet hours it would be, in the order
        of a night
    :ivar ends: when these quiet hours end
    """

    leaves: dict[str, datetime] = field(default_factory=dict[str, datetime])
    there: list[time] = field(default_factory=list[time])
    ends: list[datetime] = field(default_factory=list[datetime])

    def __bool__(self) -> bool:
        return bool(self.leaves)

    @property
    def quiet(self) -> int:
        """Return the number of recipients whose quiet hours it would be."""
        return len(self.there)

    @property
    def from_until(self) -> dict[str, str]:
        every = sorted(self.leaves.values())
        return {"first": time_words(every[0]), "last": time_words(every[-1])} if every else {}

    @property
    def words(self) -> str:
        """Return what the page says of quiet hours, or an empty text."""
        if not self.there:
            return ""
        there = [time_format(one, "TIME_FORMAT") for one in self.there]
        ends = [time_words(one) for one in sorted(self.ends)]
        if not ends:
            words = gettext("Quiet hours: by the recipient's clock it is %s then.")
            return words % _range(there)
        words = ngettext(
            "Quiet hours: by the clock of %(number)s recipient it is %(there)s then. This message "
            "leaves at %(end)s, when they end.",
            "Quiet hours: by the clocks of %(number)s recipients it is %(there)s then. Their "
            "messages leave at %(end)s, when they end.",
            self.quiet,
        )
        return words % {"number": self.quiet, "there": _range(there), "end": _range(ends)}

    @property
    def outcome(self) -> str:
        """Return what is said once they are queued: how many wait; may be empty."""
        if not self.ends:
            return ""
        words = ngettext(
            "%s message waits until the quiet hours end.",
            "%s messages wait until the quiet hours end.",
            self.quiet,
        )
        return words % self.quiet


def _range(words: Sequence[str]) -> str:
    first, last = words[0], words[-1]
    return first if first == last else f"{first} – {last}"


def plan(
    numbers: Sequence[str], at: datetime | None, spread: int, *, waits: bool, at_any_hour: bool
) -> Plan:
    """Return when the message to each number leaves.

    :param at: when the first one leaves; None for now
    :param spread: the hours over which they leave
    :param waits: quiet hours are waited for; otherwise the plan only says whose they are
    """
    step = timedelta(hours=spread) / max(len(numbers), 1)
    start = times.in_utc(at or now())  # in UTC, where hours have the same length in each night
    wanted = {number: start + step * index for index, number in enumerate(numbers)}
    leaves = {number: times.as_stored(at) for number, at in wanted.items()} if spread else {}
    hours = conf.quiet_hours()
    if hours is None or at_any_hour:
        return Plan(leaves)
    quiet = _quiet(wanted, hours)
    if not waits:
        return Plan(leaves, _there(quiet, hours))
    return _until_they_end(leaves, quiet, hours)


def plan_of_stored(earliest: dict[str, datetime], hours: conf.QuietHours) -> Plan:
    """Return the plan for messages that would leave now, but for quiet hours.

    :param earliest: by number, the time before which its message does not leave in any case
    """
    quiet = _quiet(dict.fromkeys(earliest, times.in_utc(now())), hours)
    return _until_they_end({}, [one for one in quiet if earliest[one[0]] <= one[2]], hours)


def _until_they_end(
    leaves: dict[str, datetime], quiet: Sequence[_Quiet], hours: conf.QuietHours
) -> Plan:
    ends = {number: end for number, _at, end in quiet}
    return Plan(leaves | ends, _there(quiet, hours), list(ends.values()))


def _there(quiet: Sequence[_Quiet], hours: conf.QuietHours) -> list[time]:
    """Return what their clocks show, in the order of a night."""
    return sorted((there for _number, there, _end in quiet), key=lambda one: _after(hours, one))


def _quiet(wanted: dict[str, datetime], hours: conf.QuietHours) -> list[_Quiet]:
    """Return the numbers whose quiet hours it would be."""
    # No generator: error reports would show the variables of its frame.
    found: list[_Quiet] = []
    zones = quiet_hours.zones(wanted, hours)
    known: dict[tuple[datetime, str], tuple[time, datetime | None]] = {}
    for number, at in wanted.items():
        key = at, zones[number]
        if key not in known:
            moment = times.as_stored(at)
            known[key] = (
                quiet_hours.clock_of(moment, zones[number]),
                quiet_hours.end_of(moment, zones[number], hours),
            )
        there, end = known[key]
        if end is not None:
            found.append((number, there, end))
    return found


def _after(hours: conf.QuietHours, at: time) -> int:
    """Return the minutes of a time after the beginning of the quiet hours."""
    minutes = [one.hour * 60 + one.minute for one in (at, hours.start)]
    return (minutes[0] - minutes[1]) % (24 * 60)

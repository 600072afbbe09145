"""The quiet hours of recipients: whether a moment lies in them, when they end, and when they begin.

``SMSKA_QUIET_HOURS`` has them by the clock of the recipient. Which clock that is, no number says: a
Russian mobile number moves with its owner. So all have one time zone, or a function of the project
knows more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from math import inf
from typing import Any
from zoneinfo import ZoneInfo

from django.core.exceptions import ImproperlyConfigured

from . import conf, monotonic, times
from .conf import QuietHours
from .dotted_paths import function_at

logger = logging.getLogger(__name__)

WARN_EVERY_SECONDS = 3600.0  # the time between two warnings of the same kind
#: The monotonic times of the last warnings, by their kinds.
_warned: dict[str, float] = {}

#: Returns the IANA name of the time zone of a number, or None where it knows none.
ZoneOf = Callable[[str], Any]


def end_of(moment: datetime, zone: str, hours: QuietHours) -> datetime | None:
    """Return when the quiet hours end in which this moment lies, or None where it lies in none.

    :param moment: as models have times, and so is the answer
    """
    at, clock = times.in_utc(moment), ZoneInfo(zone)
    if not _is_quiet(at, clock, hours):
        return None
    return times.as_stored(
        _next(at, hours.until, clock, lambda one: not _is_quiet(one, clock, hours))
    )


def start_after(moment: datetime, zone: str, hours: QuietHours) -> datetime:
    """Return when the next quiet hours begin after a moment that lies in none."""
    at, clock = times.in_utc(moment), ZoneInfo(zone)
    return times.as_stored(_next(at, hours.start, clock, lambda one: _is_quiet(one, clock, hours)))


def clock_of(moment: datetime, zone: str) -> time:
    """Return what the clock of a zone shows."""
    return times.in_utc(moment).astimezone(ZoneInfo(zone)).time()


def _is_quiet(at: datetime, clock: ZoneInfo, hours: QuietHours) -> bool:
    now, start, until = at.astimezone(clock).time(), hours.start, hours.until
    return start <= now < until if start < until else now >= start or now < until


def _next(at: datetime, hour: time, clock: ZoneInfo, fits: Callable[[datetime], bool]) -> datetime:
    """Return the next moment at which the clock comes to this hour, and which fits: a clock that is
    set forward may jump over quiet hours."""
    today: date = at.astimezone(clock).date()
    while True:
        for moment in times.moments(today, hour, clock):
            if moment > at and fits(moment):
                return moment
        today += timedelta(days=1)


def zones(numbers: Iterable[str], hours: QuietHours, *, until: float = inf) -> dict[str, str]:
    """Return the time zone of each number.

    Where the function of the setting fails, or gives what is no zone, it is the default one, and
    the log says so now and then.

    :param until: the monotonic time after which the function is not called any more, but for the
        first number; the others are left out
    """
    if not hours.zone_of:
        return dict.fromkeys(numbers, hours.time_zone)
    try:
        function = function_at(hours.zone_of, 1)
    except ImproperlyConfigured:
        _warn("cannot be used")
        return dict.fromkeys(numbers, hours.time_zone)
    known: dict[Any, bool] = {None: False}
    found: dict[str, str] = {}
    for number in numbers:
        if found and monotonic.now() > until:
            break
        found[number] = _zone(function, number, known) or hours.time_zone
    return found


def _zone(function: ZoneOf, number: str, known: dict[Any, bool]) -> str:
    """Return the zone, or an empty text.

    :param known: the answers that were looked at, and whether they are zones
    """
    try:
        zone = function(number)
        if zone not in known:
            known[zone] = conf.is_time_zone(zone)
            if not known[zone]:
                _warn("returned what is no time zone")
        return str(zone) if known[zone] else ""
    except Exception as error:  # of the project's, whose text may hold the number
        _warn(f"raised {type(error).__name__}")
        return ""


def _warn(what: str) -> None:
    last = _warned.get(what)
    if last is None or monotonic.now() - last >= WARN_EVERY_SECONDS:
        _warned[what] = monotonic.now()
        logger.warning(
            "The function that SMSKA_QUIET_HOURS names %s: the default time zone counts.",
            what,
        )

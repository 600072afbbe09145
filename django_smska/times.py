"""The times that every database, time zone and calendar can hold.

A row with a time beyond them could not be read or shown: psycopg has no year 10000, Python no 31
February, and the last day of the calendar has no local time east of Greenwich.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from typing import Any

from django.db import models
from django.utils.formats import date_format
from django.utils.timezone import (
    get_default_timezone,
    is_aware,
    is_naive,
    localtime,
    make_aware,
    make_naive,
    now,
)
from django.utils.translation import gettext_lazy as _

from . import conf

#: The ends of the times that are stored or looked for, in UTC.
FIRST = datetime(1970, 1, 1, tzinfo=timezone.utc)
LAST = datetime(9999, 12, 30, tzinfo=timezone.utc)
#: When the process began. A test that freezes its clock in an earlier year does not move this.
BEGUN = datetime.now(timezone.utc)


def as_stored(moment: datetime) -> datetime:
    """Return an aware time as models have it: naive where ``USE_TZ`` is off."""
    return moment if conf.uses_time_zones() else make_naive(moment, get_default_timezone())


def in_utc(moment: datetime) -> datetime:
    """Return a time as models have it in UTC."""
    aware = moment if is_aware(moment) else make_aware(moment, get_default_timezone())
    return aware.astimezone(timezone.utc)


def moments(day: date, at: time, zone: tzinfo) -> list[datetime]:
    """Return the moments, in UTC, at which the clock of a zone comes to this time of a day: two
    where it is set back over it. Where it is set forward over it, that is the moment."""
    wall = datetime.combine(day, at, zone)
    first, second = (wall.replace(fold=fold).astimezone(timezone.utc) for fold in (0, 1))
    if first <= second:
        return sorted({first, second})
    return [_first_with_offset_of(first, second, zone)]


def _first_with_offset_of(later: datetime, earlier: datetime, zone: tzinfo) -> datetime:
    """Return the moment at which the clock is set, between these two, to the second."""
    offset = later.astimezone(zone).utcoffset()
    while later - earlier > timedelta(seconds=1):
        middle = (earlier + (later - earlier) / 2).replace(microsecond=0)
        if middle.astimezone(zone).utcoffset() == offset:
            later = middle
        else:
            earlier = middle
    return later


def local(moment: datetime) -> datetime:
    """Return a time by the clock of the current time zone."""
    return localtime(moment) if is_aware(moment) else moment


def clock_time(moment: datetime) -> str:
    """Return hours, minutes and seconds of a time by the clock of the current time zone."""
    return f"{local(moment):%H:%M:%S}"


def date_and_time(moment: datetime) -> str:
    """Return a time by the clock of the current time zone, with its date if that is not today."""
    at = local(moment)
    return clock_time(at) if at.date() == local(now()).date() else f"{at:%Y-%m-%d %H:%M:%S}"


def latest() -> datetime:
    """Return the latest time to which a sending may be put off, by ``SMSKA_MAX_AHEAD``."""
    return max(now(), as_stored(BEGUN)) + conf.max_ahead()


def latest_expiry() -> datetime:
    """Return the latest expiry: that of a message which is put off as far as can be."""
    return latest() + conf.expires_after()


def problem(value: Any, latest: Callable[[], datetime] = latest) -> Any:
    """Return a text that says why this cannot be a time of a message, or None.

    :param latest: the time that it may not pass
    """
    if not isinstance(value, datetime):
        return _("This must be a datetime.")
    if is_naive(value) == conf.uses_time_zones():
        return _("This must have a time zone if USE_TZ is on, and none if it is off.")
    if value < as_stored(FIRST):
        return _("This time is before 1970.")
    if value > latest():
        words = _("This is too far ahead. The latest time is %s (SMSKA_MAX_AHEAD).")
        return words % date_format(local(latest()), "SHORT_DATETIME_FORMAT")
    return None


def make_readable(model: type[models.Model]) -> None:
    """Let the rows of this model be read whatever raw SQL wrote into their time columns.

    A time beyond ``FIRST`` and ``LAST`` is read as the nearer one, and what is no time at all as
    ``FIRST``. Only what a SELECT gives is different: conditions and orders see the column itself.
    """
    for field in model._meta.local_fields:
        if isinstance(field, models.DateTimeField):
            # On the field, since expressions do not mix a DateTimeField with a subclass of it.
            field.select_format = _select_readable  # type: ignore[method-assign]


def _select_readable(compiler: Any, sql: str, params: Any) -> Any:
    if compiler.query.distinct:  # its ORDER BY must repeat what it selects
        return sql, params
    return _readable(compiler.connection, sql, params)


class Readable(models.Func):
    """A time column as a SELECT gives it, for expressions."""

    arity = 1

    def as_sql(self, compiler: Any, connection: Any, *args: Any, **context: Any) -> Any:
        sql, params = compiler.compile(self.get_source_expressions()[0])
        return _readable(connection, sql, params)


def _readable(connection: Any, sql: str, params: Any) -> Any:
    template = READABLE.get(connection.vendor, "{}")
    return template.replace("{}", sql), [*params] * template.count("{}")


# SQLite keeps any text and number. ``datetime`` with a modifier rolls 31 February over to March,
# and ``%f`` has milliseconds only, so that what Django wrote is passed on as it is.
_WHOLE = "datetime(substr({}, 1, 19), '+0 days') = substr({}, 1, 19)"
_PARTS = f"substr({{}}, 20) GLOB '.{'[0-9]' * 6}'"
READABLE = {
    "sqlite": (
        "CASE WHEN {} IS NOT NULL THEN max('1970-01-01 00:00:00', min('9999-12-30 00:00:00',"
        f" CASE WHEN {_WHOLE} AND (length({{}}) = 19 OR {_PARTS}) THEN {{}}"
        " ELSE coalesce(strftime('%%Y-%%m-%%d %%H:%%M:%%f', {}, '+0 days'), '') END)) END"
    ),
    # Beyond the year 9999, and with "infinity", psycopg fails for the whole result.
    "postgresql": (
        "CASE WHEN {} > '9999-12-30Z'::timestamptz THEN '9999-12-30Z'::timestamptz"
        " WHEN {} < '1970-01-01Z'::timestamptz THEN '1970-01-01Z'::timestamptz ELSE {} END"
    ),
    # By its SQL mode MySQL holds 0000-00-00 and 31 February; LAST_DAY may be NULL for these.
    "mysql": (
        "CASE WHEN {} IS NULL THEN NULL"
        " WHEN LAST_DAY({}) IS NULL OR DAYOFMONTH({}) > DAYOFMONTH(LAST_DAY({}))"
        " OR {} < TIMESTAMP'1970-01-01 00:00:00'"
        " THEN TIMESTAMP'1970-01-01 00:00:00'"
        " WHEN {} > TIMESTAMP'9999-12-30 00:00:00' THEN TIMESTAMP'9999-12-30 00:00:00'"
        " ELSE {} END"
    ),
}

"""One clock for all hosts: the database's.

Leases, rates and pauses are compared by workers on several hosts, whose own clocks may differ. So
their times come from the server that all of them share. It is asked rarely; between two readings
this process's monotonic clock carries the time on, which no correction of the host's clock moves.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone

from django.db import Error, connections
from django.utils import timezone as django_timezone

from . import conf
from .models import write_db
from .providers import keeps_in_memory

READ_EVERY = 30.0  # seconds

# Each answers in UTC, whatever the session's time zone.
_QUESTIONS = {
    "postgresql": "SELECT clock_timestamp() AT TIME ZONE 'UTC'",
    "mysql": "SELECT UTC_TIMESTAMP(6)",
    "sqlite": "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')",
}

#: By database alias: the monotonic time of the last reading, and what was read.
readings: dict[str, tuple[float, datetime]] = {}


def now() -> datetime:
    """Return the database's time, in the form that ``USE_TZ`` asks for.

    In a test run it is the process's own time, so that tests can travel in time. Raises
    ``django.db.Error`` if the database has never answered.
    """
    if keeps_in_memory():
        return django_timezone.now()
    asked, moment = _reading(write_db())
    moment += timedelta(seconds=time.monotonic() - asked)
    if conf.uses_time_zones():
        return moment
    return django_timezone.make_naive(moment, django_timezone.get_default_timezone())


def _reading(alias: str) -> tuple[float, datetime]:
    last = readings.get(alias)
    if last is not None and time.monotonic() - last[0] < READ_EVERY:
        return last
    try:
        last = readings[alias] = _read(alias)
    except Error:
        if last is None:
            raise
    return last


def _read(alias: str) -> tuple[float, datetime]:
    connection = connections[alias]
    asked = time.monotonic()
    if connection.vendor not in _QUESTIONS:  # a database that this app is not tested on
        return asked, datetime.now(timezone.utc)
    with connection.cursor() as cursor:
        cursor.execute(_QUESTIONS[connection.vendor])
        (answer,) = cursor.fetchone()
    if isinstance(answer, str):
        # SQLite cuts to milliseconds: round up, so that what was just stored is already due.
        answer = datetime.fromisoformat(answer) + timedelta(milliseconds=1)
    return asked, answer.replace(tzinfo=timezone.utc)

"""One clock for all hosts: the database's.

Leases, rates and pauses are compared by workers on several hosts, whose own clocks may differ. So
their times come from the server that all of them share. It is queried rarely; between two readings
this process's monotonic clock carries the time on, which no correction of the host's clock moves.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from django.db import Error, connections
from django.utils import timezone as django_timezone

from . import conf, monotonic
from .models import write_db
from .providers import keeps_in_memory

READ_EVERY_SECONDS = 30.0

# Each answers in UTC, whatever the session's time zone.
_QUERIES = {
    "postgresql": "SELECT clock_timestamp() AT TIME ZONE 'UTC'",
    "mysql": "SELECT UTC_TIMESTAMP(6)",
    "sqlite": "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')",
}

#: Between the host's two clocks; after a larger drift the database is queried again.
MAX_DRIFT_SECONDS = 1.0


@dataclass(frozen=True)
class Reading:
    """The database's time, and the host's at that moment.

    :param moment: the database's time, in UTC
    :param steady: what the host's monotonic clock said then, in seconds
    :param wall: what its other clock said
    """

    steady: float
    wall: float
    moment: datetime

    def holds(self) -> bool:
        """Return False where it is old, or the host slept or had its clock set since: not all
        systems count sleep in their monotonic clock."""
        gone = monotonic.now() - self.steady
        return gone < READ_EVERY_SECONDS and abs(time.time() - self.wall - gone) < MAX_DRIFT_SECONDS


#: By database alias, the last reading.
readings: dict[str, Reading] = {}


def now() -> datetime:
    """Return the database's time, in the form that ``USE_TZ`` requires.

    In a test run it is the process's own time, so that tests can travel in time. Without ``USE_TZ``
    it is the clock of the site's zone. Where that is set forward or back, no sum with it is exact:
    ``smska.W022`` warns of that.

    :raises django.db.Error: if the database has never answered
    """
    if keeps_in_memory():
        return django_timezone.now()
    last = _reading(write_db())
    moment = last.moment + timedelta(seconds=monotonic.now() - last.steady)
    if conf.uses_time_zones():
        return moment
    return django_timezone.make_naive(moment, django_timezone.get_default_timezone())


def _reading(alias: str) -> Reading:
    last = readings.get(alias)
    if last is not None and last.holds():
        return last
    try:
        last = readings[alias] = _read(alias)
    except Error:
        if last is None:
            raise
    return last


def _read(alias: str) -> Reading:
    connection = connections[alias]
    query = _QUERIES.get(connection.vendor)
    if query is None:  # a database that this app is not tested on
        return Reading(monotonic.now(), time.time(), datetime.now(timezone.utc))
    with connection.cursor() as cursor:  # connects, if need be: that is not to be counted
        steady, wall = monotonic.now(), time.time()
        cursor.execute(query)
        (answer,) = cursor.fetchone()
    if isinstance(answer, str):
        # SQLite cuts to milliseconds: round up, so that what was just stored is already due.
        answer = datetime.fromisoformat(answer) + timedelta(milliseconds=1)
    return Reading(steady, wall, answer.replace(tzinfo=timezone.utc))

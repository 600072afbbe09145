"""Wake sleeping workers when there is something to send: by NOTIFY, on PostgreSQL with psycopg 3
(from 3.2.4 on, which keeps what arrives during a query).

On other databases a worker looks every ``--interval`` seconds; so it does here, too, if a
notification is lost.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from django.db import Error, connections

from . import monotonic
from .models import write_db

logger = logging.getLogger(__name__)

CHANNEL = "django_smska"
LOOK_AGAIN_SECONDS = 1.0  # the wait after which a missed notification is made up for


def notify_workers() -> None:
    """Wake the workers once the open transaction is committed.

    Outside of one, the messages are stored already, so that an error here is only logged.
    """
    connection = connections[write_db()]
    if connection.vendor != "postgresql":
        return
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, '')", [CHANNEL])
    except Error as error:
        if connection.in_atomic_block:
            raise
        logger.warning("workers were not notified: %s", type(error).__name__)


class Listener:
    """Wait for :func:`notify_workers`, for a time to pass, or for an event.

    A worker listens, then looks for work, then waits: so what is stored after its look is notified.
    """

    def __init__(self) -> None:
        self._listening: Any = None

    def wait(self, seconds: float, stopping: threading.Event) -> None:
        """Return after ``seconds``, on a notification since :meth:`listen`, or when ``stopping`` is
        set."""
        listened = self._listening
        raw = self.listen()
        if raw is None:
            stopping.wait(seconds)
            return
        if raw is not listened:  # connected again since the look
            seconds = min(seconds, LOOK_AGAIN_SECONDS)
        end = monotonic.now() + seconds
        while not stopping.is_set() and (left := end - monotonic.now()) > 0:
            # In short turns: a signal that comes right before the wait does not end it.
            if list(raw.notifies(timeout=min(left, 1), stop_after=1)):
                break

    def listen(self) -> Any:
        """Return the connection, listening; None where the database or its driver cannot."""
        connection = connections[write_db()]
        if connection.vendor != "postgresql":
            return None
        connection.ensure_connection()
        raw = connection.connection
        if not callable(getattr(raw, "notifies", None)):  # psycopg 2 has a list of that name
            return None
        if raw is not self._listening:
            with connection.cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
            self._listening = raw
        return raw

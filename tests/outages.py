"""A database that goes away: wrappers for ``connection.execute_wrapper()``."""

from threading import Thread

from django.db import connections
from django.db.utils import OperationalError


class Outage:
    """The database fails the next ``queries`` queries, once ``begins()``.

    ``after``: it does them, and the connection is cut before it says so. ``only``: those queries
    that begin like this.
    """

    error = OperationalError

    def __init__(self, queries, *, begins=lambda: True, after=False, only=""):
        self.left, self.begins, self.after, self.only = queries, begins, after, only
        self.begun = False

    def __call__(self, execute, sql, *args):
        self.begun = self.begun or self.begins()
        if not (self.begun and self.left and sql.startswith(self.only)):
            return execute(sql, *args)
        self.left -= 1
        if self.after:
            execute(sql, *args)
        raise self.error("server closed the connection")


class Once:
    """Runs ``action`` right before the first query that begins with ``only``: a race."""

    def __init__(self, action, only=""):
        self.action, self.only, self.done = action, only, False

    def __call__(self, execute, sql, *args):
        if not self.done and sql.startswith(self.only):
            self.done = True
            self.action()
        return execute(sql, *args)


class Beside:
    """Begins ``action`` in another process's place right after the first query that begins with
    ``after``, and waits for it a moment.

    ``was_done``: it came through; else a lock holds it, and ``thread`` is still to be joined.
    """

    def __init__(self, action, after):
        self.action, self.after = action, after
        self.begun = self.was_done = False

    def __call__(self, execute, sql, *args):
        result = execute(sql, *args)
        if not self.begun and sql.startswith(self.after):
            self.begun = True
            self.thread = Thread(target=self._run)
            self.thread.start()
            self.thread.join(0.5)
            self.was_done = not self.thread.is_alive()
        return result

    def _run(self):
        self.action()
        connections.close_all()

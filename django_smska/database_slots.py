"""A few database connections for many threads, none of which holds one while it waits for the
network.

A slot is a set of connections, one to each database that was used through it. In :func:`working`
a thread has a slot in place of connections of its own, gives it back where it waits, and gets one
again for its next query.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from threading import Condition, local

from django.db import Error, connections, reset_queries
from django.db.backends.base.base import BaseDatabaseWrapper

from . import conf
from .models import write_db

#: Connections to a database. They are busy for milliseconds, and a server has a hundred by default.
MAX_SLOTS = 4
#: It has one lock for all writers, for which they wait in growing sleeps.
MAX_SLOTS_OF_SQLITE = 1

Slot = dict[str, BaseDatabaseWrapper]


class _Slots:
    def __init__(self, number: int) -> None:
        self._free: list[Slot] = [{} for _ in range(number)]
        self._freed = Condition()
        self.waiting = 0

    def take(self) -> Slot:
        with self._freed:
            self.waiting += 1
            try:
                self._freed.wait_for(lambda: self._free)
            finally:
                self.waiting -= 1
            return self._free.pop()

    def give_back(self, slot: Slot) -> None:
        with self._freed:
            self._free.append(slot)
            self._freed.notify()

    def take_unwanted(self) -> list[Slot]:
        """Take those slots for which no thread waits."""
        with self._freed:
            unwanted = self._free[self.waiting :]
            del self._free[self.waiting :]
            return unwanted


class _Thread(local):
    """What this thread does: it holds a slot of these, or waits without one, or neither."""

    holds: _Slots | None = None
    waits: bool = False


_this = _Thread()
_slots: _Slots | None = None
_parents: list[_Slots | None] = []


def _forget() -> None:
    """After a fork: the connections are the parent's, and closing them would end its sessions."""
    global _slots
    _parents.append(_slots)
    _slots = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def is_working() -> bool:
    """Return whether this thread uses slots."""
    return _this.holds is not None or _this.waits


@contextmanager
def working() -> Generator[None]:
    """Give this thread, which has no connections, a slot in their place, once one is free."""
    _take()
    try:
        yield
    finally:
        _give_back()


@contextmanager
def released() -> Generator[None]:
    """Hold no slot, because what follows waits. Queries in it stand in :func:`held`.

    Nothing changes in a thread without a slot, or with a transaction that another must not get.
    """
    if _this.holds is None or not all(map(_may_move, _connections())):
        yield
        return
    _give_back()
    _this.waits = True
    try:
        yield
    finally:
        _this.waits = False
        _take()


@contextmanager
def held() -> Generator[None]:
    """Hold a slot for queries inside :func:`released`. Elsewhere nothing changes."""
    if not _this.waits:
        yield
        return
    _this.waits = False
    _take()
    try:
        yield
    finally:
        _give_back()
        _this.waits = True


def _shared() -> _Slots:
    global _slots
    if _slots is None:
        is_sqlite = connections[write_db()].vendor == "sqlite"
        _slots = _Slots(MAX_SLOTS_OF_SQLITE if is_sqlite else MAX_SLOTS)
    return _slots


def _take() -> None:
    slots = _shared()
    for opened in _connections():  # by a backend, while it waited
        with suppress(Error):  # an outcome is still to be recorded
            opened.close()
    slot = slots.take()
    _this.holds = slots
    for alias, connection in slot.items():
        connections[alias] = connection


def _give_back() -> None:
    slots, _this.holds = _this.holds, None
    assert slots is not None
    slot: Slot = {}
    try:
        reset_queries()  # with DEBUG they are kept, as for the page of a request
        for connection in _connections():
            del connections[connection.alias]
            if _is_whole(connection):
                slot[connection.alias] = connection
    finally:
        slots.give_back(slot)
    for unwanted in slots.take_unwanted():
        try:
            for connection in unwanted.values():
                _end_use(connection)
        finally:
            slots.give_back(unwanted)


def _connections() -> list[BaseDatabaseWrapper]:
    return list(connections.all(initialized_only=True))


def _may_move(connection: BaseDatabaseWrapper) -> bool:
    return not connection.in_atomic_block and not connection.execute_wrappers


def _is_whole(connection: BaseDatabaseWrapper) -> bool:
    """Close what cannot be used again. Return False where another thread must not have it."""
    with suppress(Error):
        if not _may_move(connection):
            connection.close()
            return False
        if connection.errors_occurred or not _is_in_autocommit(connection):
            connection.close()
        if not connection.allow_thread_sharing:
            connection.inc_thread_sharing()
        return True
    return False


def _end_use(connection: BaseDatabaseWrapper) -> None:
    """Close what ``CONN_MAX_AGE`` closes at the end of a request: here the end is when no other
    thread wants it.

    Nothing stays open in a test run, or the test database could not be destroyed.
    """
    with suppress(Error):
        if conf.in_test_run():
            connection.close()
        else:
            connection.close_if_unusable_or_obsolete()


def _is_in_autocommit(connection: BaseDatabaseWrapper) -> bool:
    return connection.connection is None or connection.get_autocommit()

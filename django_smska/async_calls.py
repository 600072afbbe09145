"""Synchronous work for asynchronous callers: it is done to its end, in a bounded number of threads.

A cancelled caller changes nothing of it: what has begun to be sent must be recorded.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from threading import Lock, Thread
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.db import Error, connections

from . import checked_backend, database_slots, log_fields
from .exceptions import InvalidProvider, SmsError
from .models import rows, write_db

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

MAX_THREADS = 256  # further work waits for one


async def run(alias: str, work: Callable[[], _T]) -> _T:
    """Do ``work``, which sends through the provider ``alias``; return or raise what it does.

    It is done in a thread of its own, with the caller's context variables. Where a transaction is
    open, or nothing waits for a network, it is done in the thread of the caller's synchronous code.
    """
    done = await run_here(lambda: [work()] if _belongs_here(alias) else [])
    if done:
        return done[0]
    caller = _Caller()
    # A task of its own, because asgiref would also cancel what receivers await in that thread.
    task = asyncio.ensure_future(_in_thread(work, caller))
    try:
        await asyncio.wait([task])  # unlike shield(), it leaves reporting the error to us
        return task.result()
    except asyncio.CancelledError:
        caller.has_left = True
        task.add_done_callback(caller.hear)
        raise


class _Caller:
    """Who awaits an outcome. Once it has left, an error is logged instead of raised."""

    def __init__(self) -> None:
        self.has_left = False
        self._is_logged = False

    def hear(self, task: asyncio.Task[Any]) -> None:
        """Retrieve the error of a task that is done, or asyncio prints it with its traceback."""
        error = None if task.cancelled() else task.exception()
        # The thread had its error when the caller was still there.
        if isinstance(error, Exception) and not self._is_logged:
            self.log(error)

    def log(self, error: Exception, status: str = "") -> None:
        self._is_logged = True
        why = error if isinstance(error, SmsError) else type(error).__name__
        words = "an SMS whose caller was cancelled ended with an error: %s"
        logger.error(words, why, extra=log_fields.of_error(error, status))


async def _in_thread(work: Callable[[], _T], caller: _Caller) -> _T:
    executor: Any = _threads
    do = sync_to_async(_with_slot, thread_sensitive=False, executor=executor)
    return await do(work, caller)


def _with_slot(work: Callable[[], _T], caller: _Caller) -> _T:
    """Do it in this thread, and log its error where the caller has left."""
    try:
        with database_slots.working():
            return work()
    except Exception as error:
        if caller.has_left:
            caller.log(error, _status_after(error))
        raise


def _status_after(error: Exception) -> str:
    """Return the status of the message that an error names, "" where it cannot be read."""
    key = getattr(error, "sms", None)
    if key is None:
        return ""
    with suppress(Error), database_slots.working():
        return rows([key]).values_list("status", flat=True).first() or ""
    return ""


async def run_here(work: Callable[[], _T]) -> _T:
    """Do ``work`` in the thread of the caller's synchronous code: its transaction is open there."""
    return await sync_to_async(work, thread_sensitive=True)()


def _belongs_here(alias: str) -> bool:
    """Return whether only this thread can do it: it has a transaction open, or another one could
    not see its database. Opens no connection."""
    if database_slots.is_working():  # it would wait for a slot while it holds one
        return True
    try:
        if not checked_backend.provider(alias).uses_network:
            return True
    except InvalidProvider:
        return True  # the work raises that, too
    connection: Any = connections[write_db()]
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        return True
    opened = [one for one in connections.all(initialized_only=True) if one.connection is not None]
    return any(one.in_atomic_block or not one.get_autocommit() for one in opened)


class _Threads(Executor):
    """Threads that end when nothing is to be done."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], None]] = deque()
        self._running = 0
        self._lock = Lock()

    def submit(self, function: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """Let a thread do it, which cannot be cancelled any more. Raises ``RuntimeError`` where the
        system starts none."""
        future: Future[_T] = Future()
        future.set_running_or_notify_cancel()
        self._add(partial(_do, future, partial(function, *args, **kwargs)))
        return future

    def _add(self, job: Callable[[], None]) -> None:
        with self._lock:
            self._jobs.append(job)
            if self._running >= MAX_THREADS:
                return
            self._running += 1
        try:
            Thread(target=self._work, name="smska-async").start()
        except BaseException:
            if self._is_left(job):
                raise

    def _is_left(self, job: Callable[[], None]) -> bool:
        """Return whether no thread is there to do it, and drop it then."""
        with self._lock:
            self._running -= 1
            left = not self._running and job in self._jobs
            if left:
                self._jobs.remove(job)
            return left

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job()

    def _next(self) -> Callable[[], None] | None:
        with self._lock:
            if self._jobs:
                return self._jobs.popleft()
            self._running -= 1
            return None


def _do(future: Future[_T], work: Callable[[], _T]) -> None:
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
        del future  # its error leads to this frame
    else:
        future.set_result(result)


_threads = _Threads()


def _forget() -> None:
    """After a fork: the threads are the parent's, and do its work there."""
    global _threads
    _threads = _Threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

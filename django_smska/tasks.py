"""Sending through the project's task engine: ``SMSKA_TASKS`` names it.

A task carries primary keys, and the row decides: a task claims messages as every worker does. A
duplicate or late task therefore sends nothing twice, and ``manage.py sms_worker`` sends what a lost
task should have sent. It also recovers messages and polls delivery reports.

Imported when it is used, never before: on Django 5.2 it needs the django-tasks package.
"""

from __future__ import annotations

import logging
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any

from django import VERSION
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.utils import timezone

from . import checked_backend, conf, sending
from .exceptions import InvalidProvider
from .models import SmsMessage, rows, write_db
from .providers import providers
from .states import Status
from .worker import Worker

try:
    framework = import_module("django.tasks" if VERSION >= (6, 0) else "django_tasks")
except ModuleNotFoundError as error:
    # Celery imports "tasks" of every app, and skips one whose own name the error gives.
    raise ModuleNotFoundError(str(error), name=__name__) from error

logger = logging.getLogger(__name__)

#: Keys a task. One request goes alone, then 16 at once: if all take the deadline of 30 seconds, it
#: ends in 150, before RQ's default timeout of 180 seconds, at which RQ stops a task wherever it is.
KEYS_PER_TASK = 64

#: Backends that have no workers of their own, in Django as in the backport.
WITHOUT_WORKERS = {"ImmediateBackend", "DummyBackend"}


def _task(function: Callable[..., Any]) -> Any:
    """Make a task that the engine accepts: not every engine has a default alias and queue."""
    alias = conf.tasks() or framework.DEFAULT_TASK_BACKEND_ALIAS
    return framework.task(backend=alias, queue_name=queue_of(alias))(function)


def queue_of(alias: str) -> str:
    """Return the engine's default queue, or the only one that it has."""
    queues = framework.task_backends[alias].queues
    default: str = framework.DEFAULT_TASK_QUEUE_NAME
    if not queues or default in queues:
        return default
    if len(queues) > 1:
        raise ImproperlyConfigured(
            f"TASKS[{alias!r}] has several QUEUES, and none is {default!r}: add it, or give SMS "
            "an entry with one queue."
        )
    return str(next(iter(queues)))


def require_workers(alias: str) -> None:
    """Raise ``ImproperlyConfigured`` for an engine that would send inside ``queue_sms``, or never.

    It is accepted where no backend uses the network: in test runs, and in development.
    """
    backend = type(framework.task_backends[alias])
    if WITHOUT_WORKERS & {one.__name__ for one in backend.__mro__} and _network_is_used():
        raise ImproperlyConfigured(f"TASKS[{alias!r}] has no workers ({backend.__name__}).")


def _network_is_used() -> bool:
    try:
        return any(checked_backend.provider(alias).uses_network for alias in providers)
    except InvalidProvider:
        return True


# --- the tasks ------------------------------------------------------------------------------------


@_task
def send_messages(pks: list[int]) -> dict[str, int]:
    """Send those of these messages that are due; count them by status.

    What is to be sent later, as after a "not now" of the gateway, gets a task for its time.
    """
    done = Worker().send_these(pks)
    left = rows(pks).filter(status=Status.QUEUED)
    if left.exists():
        sending.fail_overdue(left)
        hand_over(left.filter(send_after__gt=timezone.now()))
    return dict(done)


@_task
def work() -> dict[str, int]:
    """Do what ``manage.py sms_worker --once`` does, for an engine with periodic tasks."""
    return dict(Worker().run_once())


# --- the way to the engine ------------------------------------------------------------------------


def hand_over(messages: Iterable[SmsMessage]) -> None:
    """Make tasks of queued messages when the open transaction commits."""
    handover = Handover()
    handover.add(messages)
    handover.on_commit()


class Handover:
    """Queued messages on their way to the engine.

    It keeps eight bytes of each, because one transaction may hold a million. An engine that cannot
    be reached costs one attempt and a line in the log; then the worker command sends the messages.
    """

    def __init__(self) -> None:
        self.keys: dict[datetime | None, array[int]] = defaultdict(lambda: array("q"))

    def add(self, messages: Iterable[SmsMessage]) -> None:
        now = timezone.now()
        for message in messages:
            if message.pk is not None:  # not every database returns the keys of a bulk INSERT
                later = message.send_after > now
                self.keys[_full_second(message.send_after) if later else None].append(message.pk)

    def on_commit(self) -> None:
        try:
            transaction.on_commit(self._enqueue, using=write_db())
        except transaction.TransactionManagementError as error:
            # Without autocommit and atomic(), it is not known when the rows can be seen.
            self._give_up(error)

    def _enqueue(self) -> None:
        try:
            alias = conf.tasks()
            if alias is None:
                return
            require_workers(alias)
            task = send_messages.using(backend=alias, queue_name=queue_of(alias))
            for moment, keys in self._groups(framework.task_backends[alias]):
                task.using(run_after=moment).enqueue(keys)
        except Exception as error:
            self._give_up(error)

    def _groups(self, backend: Any) -> Iterator[tuple[datetime | None, list[int]]]:
        for moment, keys in self.keys.items():
            if moment is None or backend.supports_defer:
                for start in range(0, len(keys), KEYS_PER_TASK):
                    yield moment, keys[start : start + KEYS_PER_TASK].tolist()

    def _give_up(self, error: Exception) -> None:
        # The class only, because a broker's own text may hold its address and password.
        logger.error(
            "The task engine did not accept (all of) %s messages (%s); sms_worker sends them.",
            sum(map(len, self.keys.values())),
            type(error).__name__,
        )


def _full_second(moment: datetime) -> datetime:
    """Round up, because RQ cuts the fraction off, and a task that runs too early sends nothing."""
    cut = moment.replace(microsecond=0)
    return cut if cut == moment else cut + timedelta(seconds=1)

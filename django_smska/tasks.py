"""Sending through Django's Tasks framework: ``SMSKA_TASKS`` names an entry of ``TASKS``.

On Django 5.2 it needs the django-tasks package. This app imports it when it is used, never before;
Celery, huey and others import the ``tasks`` of every app.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from importlib import import_module
from typing import Any

from django import VERSION
from django.core.exceptions import ImproperlyConfigured

from . import conf, jobs
from .handover import Enqueue

FRAMEWORK = "django.tasks" if VERSION >= (6, 0) else "django_tasks"

framework: Any
try:
    framework = import_module(FRAMEWORK)
except ModuleNotFoundError:
    framework = None

#: Backends that have no workers of their own, in Django as in the backport.
WITHOUT_WORKERS = {"ImmediateBackend", "DummyBackend"}


def _task(function: Callable[..., Any]) -> Any:
    """Make a task that the engine accepts: not every engine has a default alias and queue.

    Where no engine is set, it may stay a function. Other engines import the ``tasks`` of every app
    and end where one raises.
    """
    alias = conf.tasks()
    if framework is None:
        return function
    if alias is not None:
        return _task_of(alias, function)
    try:
        return _task_of(framework.DEFAULT_TASK_BACKEND_ALIAS, function)
    except Exception:
        return function


def _task_of(alias: Any, function: Callable[..., Any]) -> Any:
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
    backend: Any = framework.task_backends[alias]
    names = [one.__name__ for one in type(backend).__mro__]
    if WITHOUT_WORKERS.intersection(names) and jobs.network_is_used():
        raise ImproperlyConfigured(f"TASKS[{alias!r}] has no workers ({names[0]}).")


# --- the tasks ------------------------------------------------------------------------------------


@_task
def send_messages(pks: list[int]) -> dict[str, int]:
    """Do what :func:`~django_smska.jobs.send_queued` does."""
    return jobs.send_queued(pks)


@_task
def work() -> dict[str, int]:
    """Do what :func:`~django_smska.jobs.work_once` does, for an engine with periodic tasks."""
    return jobs.work_once()


# --- the way to the engine ------------------------------------------------------------------------


def way_to(alias: str) -> Enqueue:
    """Return the function that makes tasks of this engine; one that cannot wait gets none for
    later.

    :raises ImproperlyConfigured: where the engine has no workers, or no queue to choose
    :raises ModuleNotFoundError: where the framework is not installed
    """
    import_module(FRAMEWORK)
    require_workers(alias)
    task = send_messages.using(backend=alias, queue_name=queue_of(alias))
    can_wait = framework.task_backends[alias].supports_defer

    def enqueue(pks: list[int], not_before: datetime | None) -> None:
        if not_before is None or can_wait:
            task.using(run_after=not_before).enqueue(pks)

    return enqueue

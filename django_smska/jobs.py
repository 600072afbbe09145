"""What the jobs of a task engine call: Celery, RQ, huey, Django's Tasks, or another.

A job carries primary keys, and the row decides: a job claims messages as every worker does. A
duplicate or late job therefore sends nothing twice, and ``manage.py sms_worker`` sends what a lost
job should have sent. It also recovers messages and polls delivery reports.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import datetime
from threading import Timer

from django.core.exceptions import ImproperlyConfigured
from django.db import close_old_connections

from . import checked_backend, clock, handover, log_fields, sending
from .exceptions import InvalidProvider
from .models import SmsMessageQuerySet, rows
from .providers import providers
from .states import Status
from .worker import Worker

logger = logging.getLogger(__name__)


def send_queued(pks: Iterable[int]) -> dict[str, int]:
    """Send those of these messages that are queued, due and not held; count them by status.

    What gets another time in this call, as after a "not now" of the gateway, is given to the engine
    again for its time. To call it twice with the same keys does no harm.

    :param pks: primary keys, as ``SMSKA_ENQUEUE`` got them
    :raises ImproperlyConfigured: where ``SMSKA_ENQUEUE`` calls it at once, as an engine without
        workers does, and a provider uses the network: ``queue_sms`` must not wait for it
    """
    keys = list(pks)
    if handover.is_running():
        _require_no_network()
        return dict(Worker().send_these(keys))
    with _own_connections():
        planned = dict(_for_later(keys).values_list("pk", "send_after"))
        done = Worker().send_these(keys)
        left = rows(keys).filter(status=Status.QUEUED)
        if left.exists():
            done[str(Status.FAILED)] += sending.fail_overdue(left)
            _hand_over_again(keys, planned)
    return dict(+done)


def work_once(*, seconds: float = 120) -> dict[str, int]:
    """Do what ``manage.py sms_worker --once`` does, for an engine that can run a job every minute.

    Returns how many messages it left in which status, and the number of ``reports`` that were due.

    :param seconds: begin no request after so many, and finish those in flight; the next call goes
        on. The default ends before the time limits that engines have unless they are configured.
    """
    worker = Worker()
    done: Counter[str] = Counter()
    with _own_connections(), _stopped_after(worker, seconds):
        for of_pass in worker.passes():
            done.update(of_pass)
    return dict(done)


def _for_later(keys: list[int]) -> SmsMessageQuerySet:
    return rows(keys).filter(status=Status.QUEUED, send_after__gt=clock.now())


def _hand_over_again(keys: list[int], planned: dict[int, datetime]) -> None:
    """Give the engine what has another time than ``planned``, its time before this call.

    What came before its time is left to sms_worker: an engine that ignores times would get the same
    messages again and again.
    """
    later = list(_for_later(keys))
    handover.hand_over(one for one in later if planned.get(one.pk) != one.send_after)
    unmoved = [one for one in later if planned.get(one.pk) == one.send_after]
    if early := [one for one in unmoved if not one.attempts]:
        logger.warning(
            "A job for %s messages ran before their time; sms_worker sends them. Does the function "
            "that SMSKA_ENQUEUE names pass its second argument on to the engine?",
            len(early),
            extra=log_fields.of_messages(early, Status.QUEUED, "early"),
        )


def network_is_used() -> bool:
    """Return whether a provider of the settings uses the network, or may do so."""
    try:
        return any(checked_backend.provider(alias).uses_network for alias in providers)
    except InvalidProvider:
        return True


def _require_no_network() -> None:
    if network_is_used():
        raise ImproperlyConfigured(
            "The task engine runs send_queued() inside queue_sms(), which must not wait for a "
            "provider. Turn off the engine's eager or immediate mode."
        )


@contextmanager
def _own_connections() -> Generator[None]:
    """Replace database connections that are too old: not every engine does, and its processes and
    threads live long."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


@contextmanager
def _stopped_after(worker: Worker, seconds: float) -> Generator[None]:
    timer = Timer(seconds, worker.stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()

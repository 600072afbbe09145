"""Queued messages on their way to the project's task engine.

``SMSKA_TASKS`` names an entry of Django's ``TASKS``, ``SMSKA_ENQUEUE`` a function of the project's.
This module needs neither Django's Tasks framework nor any engine.
"""

from __future__ import annotations

import logging
import threading
from array import array
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from datetime import timezone as time_zone
from functools import partial

from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from . import circuit_breaker, clock, conf
from .dotted_paths import function_at
from .models import ProviderState, SmsMessage, write_db

logger = logging.getLogger(__name__)

#: Keys a task. One request goes alone, then 16 at once: if all take the deadline of 20 seconds, it
#: ends in 100, before RQ's default timeout of 180 seconds, at which RQ stops a task wherever it is.
KEYS_PER_TASK = 64

#: Gives primary keys to the engine, not before a time, or for now where that is None.
Enqueue = Callable[[list[int], datetime | None], object]

_thread = threading.local()


def engine() -> Enqueue | None:
    """Return the way to the engine that the settings name, or None without one.

    :raises ImproperlyConfigured: where they name two, or one that cannot be used
    :raises ImportError: without Django's Tasks framework, for ``SMSKA_TASKS``
    """
    alias, path = conf.tasks(), conf.enqueue()
    if alias is not None and path is not None:
        raise ImproperlyConfigured("SMSKA_TASKS and SMSKA_ENQUEUE are both set.")
    if path is not None:
        return partial(_call, function_at(path, 2))
    if alias is not None:
        from .tasks import way_to

        return way_to(alias)
    return None


def _call(function: Enqueue, pks: list[int], not_before: datetime | None) -> None:
    """Let the function get a time in UTC: each engine reads naive ones in a zone of its own."""
    # Django sets the process's clock to TIME_ZONE, in which naive times are.
    function(pks, not_before and not_before.astimezone(time_zone.utc))


def is_set() -> bool:
    """Return whether the settings name a task engine."""
    return bool(conf.tasks() or conf.enqueue())


def lacks_sender(state: ProviderState) -> bool:
    """Return whether messages would stay queued: no task engine sends, and no worker was seen."""
    return circuit_breaker.has_no_worker(state) and not is_set()


def begin() -> Handover | None:
    """Return a handover, or None where no engine is set or a setting is wrong: the worker command
    sends."""
    try:
        return Handover() if is_set() else None
    except ImproperlyConfigured as error:  # the messages are stored all the same
        _log_wrong_setting(error)
        return None


def hand_over(messages: Iterable[SmsMessage]) -> None:
    """Give queued messages to the engine, if there is one, when the open transaction commits."""
    if (handover := begin()) is not None:
        handover.add(messages)
        handover.on_commit()


def is_running() -> bool:
    """Return whether this thread gives messages to the engine at this moment."""
    return getattr(_thread, "running", False)


@contextmanager
def _running() -> Generator[None]:
    before, _thread.running = is_running(), True
    try:
        yield
    finally:
        _thread.running = before


class Handover:
    """Queued messages on their way to the engine.

    It keeps eight bytes of each, because one transaction may hold a million. An engine that cannot
    be reached costs one attempt and a line in the log; then the worker command sends the messages.
    """

    def __init__(self) -> None:
        self.keys: dict[datetime | None, array[int]] = defaultdict(lambda: array("q"))

    def add(self, messages: Iterable[SmsMessage]) -> None:
        now = clock.now()
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
            enqueue = engine()
        except Exception as error:
            _log_wrong_setting(error)
            return
        if enqueue is not None:
            self._give_to(enqueue)

    def _give_to(self, enqueue: Enqueue) -> None:
        try:
            with _running():
                for moment, keys in self._groups():
                    enqueue(keys, moment)
        except Exception as error:
            self._give_up(error)

    def _groups(self) -> Iterator[tuple[datetime | None, list[int]]]:
        for moment, keys in self.keys.items():
            for start in range(0, len(keys), KEYS_PER_TASK):
                yield moment, keys[start : start + KEYS_PER_TASK].tolist()

    def _give_up(self, error: Exception) -> None:
        # The class only, because a broker's own text may hold its address and password.
        logger.error(
            "The task engine did not accept (all of) %s messages (%s); sms_worker sends them.",
            sum(map(len, self.keys.values())),
            type(error).__name__,
        )


def _log_wrong_setting(error: Exception) -> None:
    logger.error(
        "The task engine cannot be used (%s); sms_worker sends. 'manage.py check' says why.",
        type(error).__name__,
    )


def _full_second(moment: datetime) -> datetime:
    """Round up, because RQ cuts the fraction off, and a task that runs too early sends nothing."""
    cut = moment.replace(microsecond=0)
    return cut if cut == moment else cut + timedelta(seconds=1)

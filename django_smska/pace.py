"""At most so many messages a second, over all workers on all hosts.

One row a provider holds the time at which the next message may leave. Who wants to send moves it
on by a conditional UPDATE, and so owns the times in between; time that has passed unused is lost,
so there are no bursts. The workers' clocks must agree.
"""

from __future__ import annotations

import random
import time
from datetime import timedelta

from django.db.models import QuerySet
from django.utils import timezone

from .exceptions import TemporaryFailure, gettext_noop
from .models import ProviderState, write_db

PATIENCE = timedelta(seconds=10)


def reserve(alias: str, rate: float, number: int = 1) -> list[float]:
    """Reserve the next ``number`` times to send at; return them as seconds from now.

    ``rate``: messages a second.
    """
    step = timedelta(seconds=1 / rate)
    while True:
        state, _ = _states().get_or_create(alias=alias)
        now = timezone.now()
        start = max(state.next_send_at or now, now)
        unchanged = _states().filter(alias=alias, next_send_at=state.next_send_at)
        if unchanged.update(next_send_at=start + number * step):
            return [(start - now + n * step).total_seconds() for n in range(number)]
        time.sleep(random.uniform(0, 0.01))  # somebody was faster: out of each other's step


def wait(alias: str, rate: float | None) -> None:
    """Wait until one message may leave; return at once where there is no limit.

    Raises ``TemporaryFailure`` where that would take longer than anybody waits for a page.
    """
    if rate is None:
        return
    state = _states().filter(alias=alias).first()
    if state and state.next_send_at and state.next_send_at > timezone.now() + PATIENCE:
        raise TemporaryFailure(
            gettext_noop("More messages wait than the provider's rate allows. Queue this one."),
            alias=alias,
            code="rate",
        )
    time.sleep(reserve(alias, rate)[0])


def _states() -> QuerySet[ProviderState]:
    return ProviderState.objects.using(write_db())

"""Limit the messages a second, over all workers on all hosts.

One row a provider holds the time at which the next message may leave, by the database's clock. A
process that wants to send reserves the next slots by a conditional UPDATE that moves it on. A slot
that has passed unused is lost, so there are no bursts. A worker reserves only what it sends within
half a second. A caller who waits reserves up to ten seconds ahead, so that the caller goes first.
"""

from __future__ import annotations

import math
import random
import time
from collections import deque
from datetime import datetime, timedelta

from . import clock, database_slots, monotonic
from .exceptions import TemporaryFailure, gettext_noop
from .models import ProviderState, provider_states

RESERVE_AHEAD_SECONDS = 0.5  # how far ahead a worker may reserve slots
MAX_CALLER_WAIT_SECONDS = 10.0  # the longest wait of a caller for its slot
#: The factor by which slots are further apart than the rate requires, so that delays on the way to
#: the gateway do not put one message too many into a second (minute, hour).
SPACING_FACTOR = 1.02
#: The share of that second (minute, hour) by which a slot may be used late. It is less than the
#: extra spacing, because the next slot may be another worker's and be used on time.
LATE_SHARE = 0.015


def step_of(rate: float) -> timedelta:
    """Return the time between two messages.

    :param rate: messages a second
    """
    return timedelta(seconds=SPACING_FACTOR / rate)


def wait(alias: str, rate: float | None) -> float:
    """Reserve a slot and wait for it; return the monotonic time at which it expires. With no limit
    return at once, with a slot that never expires.

    Raises ``TemporaryFailure`` where the wait would be longer than ``MAX_CALLER_WAIT_SECONDS``.
    """
    if rate is None:
        return math.inf
    times, _ = _reserve(alias, rate, 1, MAX_CALLER_WAIT_SECONDS)
    if not times:
        raise TemporaryFailure(
            gettext_noop("More messages wait than the provider's rate allows. Queue this one."),
            alias=alias,
            code="rate",
        )
    with database_slots.released():
        time.sleep(times[0])
    return monotonic.now() + LATE_SHARE * _window(rate)


class RateSlots:
    """The slots in which a worker may send through a provider.

    :param rate: messages a second, or ``None`` for no limit
    """

    def __init__(self, alias: str, rate: float | None) -> None:
        self.alias, self.rate = alias, rate
        self._reserved: deque[float] = deque()  # monotonic
        self._last = 0  # the number of those from the last reservation
        self._end: datetime | None = None  # the time that the last reservation left in the row
        self._reserve_from: float | None = None  # monotonic; before it no slot can be reserved
        # Until when each of the last messages counts: as many as may leave in that window.
        self._counts = 1.005 * _window(rate) if rate else 0.0
        self._left: deque[float] = deque(maxlen=round(rate * _window(rate)) if rate else 1)

    def take(self, most: int) -> int:
        """Use up to ``most`` slots that have begun, reserving more if needed; return how many."""
        if self.rate is None:
            return most
        self._drop_late()
        # In groups, and not while a request waits for the answer.
        if not self._due() and 2 * len(self._reserved) < most and self.near():
            self._reserve(self.rate, most - len(self._reserved))
        used = 0
        while used < most and self._reserved and self._usable_at(self.rate) <= monotonic.now():
            self._reserved.popleft()
            self._left.append(monotonic.now() + self._counts)
            used += 1
        return used

    def until_next(self) -> float:
        """Return the seconds until :meth:`take` may find a slot; 0 where it may now."""
        if self.rate is None:
            return 0.0
        return max(self._usable_at(self.rate) - monotonic.now(), 0.0)

    def _usable_at(self, rate: float) -> float:
        """Return when the next message may leave, or when a slot may be free to reserve."""
        if not self._reserved:
            return self._reservable_at(rate)
        full = len(self._left) == self._left.maxlen
        return max(self._reserved[0], self._left[0]) if full else self._reserved[0]

    def _due(self) -> bool:
        return bool(self._reserved) and self._reserved[0] <= monotonic.now()

    def near(self) -> bool:
        """Return whether a worker should have a message ready: a slot is reserved, or can be."""
        if self.rate is None or self._reserved:
            return True
        return monotonic.now() >= self._reservable_at(self.rate)

    def give_back(self) -> None:
        """Give back the reserved slots that have not begun, unless another worker has reserved
        slots after them."""
        if self.rate is None:
            return
        now = monotonic.now()
        unused = min(sum(at > now for at in self._reserved), self._last)
        self._reserved.clear()
        if unused and self._end is not None:
            row = provider_states().filter(alias=self.alias, next_send_at=self._end)
            row.update(next_send_at=self._end - unused * step_of(self.rate))

    def _reserve(self, rate: float, number: int) -> None:
        now = monotonic.now()
        times, free = _reserve(self.alias, rate, number, RESERVE_AHEAD_SECONDS)
        self._reserved.extend(now + after for after in times)
        if times:
            self._last, self._end = len(times), free
        self._expect(free)

    def _reservable_at(self, rate: float) -> float:
        if self._reserve_from is None:
            state = provider_states().filter(alias=self.alias).first()
            self._expect(_free_from(state, clock.now(), rate))
        assert self._reserve_from is not None
        return self._reserve_from

    def _expect(self, free: datetime) -> None:
        self._reserve_from = (
            monotonic.now() + (free - clock.now()).total_seconds() - RESERVE_AHEAD_SECONDS
        )

    def _drop_late(self) -> None:
        assert self.rate is not None
        oldest = monotonic.now() - LATE_SHARE * _window(self.rate)
        while self._reserved and self._reserved[0] < oldest:
            self._reserved.popleft()


def _window(rate: float) -> float:
    """Return the seconds in which people count a rate: a second, a minute or an hour."""
    return next((window for window in (1.0, 60.0) if rate * window >= 1), 3600.0)


def _reserve(alias: str, rate: float, number: int, ahead: float) -> tuple[list[float], datetime]:
    """Reserve up to ``number`` slots that begin within ``ahead`` seconds; return them as seconds
    from now, and the time from which on the next is free."""
    step = step_of(rate)
    while True:
        state, _ = provider_states().get_or_create(alias=alias)
        now = clock.now()
        start = _free_from(state, now, rate)
        room = (now + timedelta(seconds=ahead) - start) // step + 1
        number = min(number, max(room, 0))
        end = start + number * step
        unchanged = provider_states().filter(alias=alias, next_send_at=state.next_send_at)
        if not number or unchanged.update(next_send_at=end):
            return [(start - now + n * step).total_seconds() for n in range(number)], end
        time.sleep(random.uniform(0, 0.01))  # lost the race: retry with jitter


def _free_from(state: ProviderState | None, now: datetime, rate: float) -> datetime:
    """Return when the next slot begins. A row further ahead than any process reserves is ignored,
    because it was written under a slower rate, or by a clock that was ahead."""
    at = state.next_send_at if state is not None else None
    furthest = now + step_of(rate) + timedelta(seconds=MAX_CALLER_WAIT_SECONDS + 1)
    return at if at is not None and now < at <= furthest else now

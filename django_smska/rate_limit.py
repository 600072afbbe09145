"""Limit the messages a second, over all workers on all hosts.

One row a provider holds the time at which the next message may leave, by the database's clock. A
process that wants to send books the next times by a conditional UPDATE that moves it on. Time that
has passed unused is lost, so there are no bursts. A worker books only what it sends within half a
second, and a caller who waits for a page up to ten seconds ahead, so that the caller goes first.
"""

from __future__ import annotations

import math
import random
import time
from collections import deque
from datetime import datetime, timedelta

from . import clock
from .exceptions import TemporaryFailure, gettext_noop
from .models import ProviderState, provider_states

BOOK_AHEAD_SECONDS = 0.5  # that a worker books ahead
MAX_WAIT_SECONDS = 10.0  # that a caller waits for a time
#: Times are a little further apart than the rate asks, so that delays on the way to the gateway do
#: not put one message too many into a second (minute, hour).
SPACING_FACTOR = 1.02
#: Share of that second (minute, hour) by which a time may be used late: less than they are further
#: apart, since the next ones may be other workers', and these be on time.
LATE_SHARE = 0.015


def step_of(rate: float) -> timedelta:
    """Return the time between two messages. ``rate``: messages a second."""
    return timedelta(seconds=SPACING_FACTOR / rate)


def wait(alias: str, rate: float | None) -> float:
    """Wait until one message may leave; return until when (monotonic) that permission counts. With
    no limit it returns at once, and the permission never ends.

    Raises ``TemporaryFailure`` where that would take longer than ``MAX_WAIT_SECONDS``.
    """
    if rate is None:
        return math.inf
    times, _ = _book(alias, rate, 1, MAX_WAIT_SECONDS)
    if not times:
        raise TemporaryFailure(
            gettext_noop("More messages wait than the provider's rate allows. Queue this one."),
            alias=alias,
            code="rate",
        )
    time.sleep(times[0])
    return time.monotonic() + LATE_SHARE * _window(rate)


class RateSlots:
    """The times at which a worker may send through a provider. ``rate``: messages a second, or
    ``None`` for no limit."""

    def __init__(self, alias: str, rate: float | None) -> None:
        self.alias, self.rate = alias, rate
        self._booked: deque[float] = deque()  # monotonic
        self._last = 0  # of them, those of the last booking
        self._end: datetime | None = None  # what the last booking left in the row
        self._book_from: float | None = None  # monotonic; before it there is nothing to book
        # Until when each of the last ones counts: as many as may leave in a second (minute, hour).
        self._counts = 1.005 * _window(rate) if rate else 0.0
        self._left: deque[float] = deque(maxlen=round(rate * _window(rate)) if rate else 1)

    def take(self, most: int) -> int:
        """Use up to ``most`` times that have come, booking more where needed; return how many."""
        if self.rate is None:
            return most
        self._drop_late()
        # In groups, and not while a request waits for the answer.
        if not self._due() and 2 * len(self._booked) < most and self.near():
            self._book(self.rate, most - len(self._booked))
        used = 0
        while used < most and self._booked and self._usable_at(self.rate) <= time.monotonic():
            self._booked.popleft()
            self._left.append(time.monotonic() + self._counts)
            used += 1
        return used

    def until_next(self) -> float:
        """Seconds until :meth:`take` may find a time; 0 where it may now."""
        if self.rate is None:
            return 0.0
        return max(self._usable_at(self.rate) - time.monotonic(), 0.0)

    def _usable_at(self, rate: float) -> float:
        """Return when the next message may leave, or when there may be a time to book."""
        if not self._booked:
            return self._bookable_at(rate)
        full = len(self._left) == self._left.maxlen
        return max(self._booked[0], self._left[0]) if full else self._booked[0]

    def _due(self) -> bool:
        return bool(self._booked) and self._booked[0] <= time.monotonic()

    def near(self) -> bool:
        """Return whether a worker should have a message ready: a time is booked, or can be."""
        if self.rate is None or self._booked:
            return True
        return time.monotonic() >= self._bookable_at(self.rate)

    def give_back(self) -> None:
        """Give back the booked times that have not come, where no other worker has booked behind
        them."""
        if self.rate is None:
            return
        now = time.monotonic()
        unused = min(sum(at > now for at in self._booked), self._last)
        self._booked.clear()
        if unused and self._end is not None:
            row = provider_states().filter(alias=self.alias, next_send_at=self._end)
            row.update(next_send_at=self._end - unused * step_of(self.rate))

    def _book(self, rate: float, number: int) -> None:
        now = time.monotonic()
        times, free = _book(self.alias, rate, number, BOOK_AHEAD_SECONDS)
        self._booked.extend(now + after for after in times)
        if times:
            self._last, self._end = len(times), free
        self._expect(free)

    def _bookable_at(self, rate: float) -> float:
        if self._book_from is None:
            state = provider_states().filter(alias=self.alias).first()
            self._expect(_free_from(state, clock.now(), rate))
        assert self._book_from is not None
        return self._book_from

    def _expect(self, free: datetime) -> None:
        self._book_from = (
            time.monotonic() + (free - clock.now()).total_seconds() - BOOK_AHEAD_SECONDS
        )

    def _drop_late(self) -> None:
        assert self.rate is not None
        oldest = time.monotonic() - LATE_SHARE * _window(self.rate)
        while self._booked and self._booked[0] < oldest:
            self._booked.popleft()


def _window(rate: float) -> float:
    """Return the seconds in which people count a rate: a second, a minute or an hour."""
    return next((window for window in (1.0, 60.0) if rate * window >= 1), 3600.0)


def _book(alias: str, rate: float, number: int, ahead: float) -> tuple[list[float], datetime]:
    """Book up to ``number`` times that begin within ``ahead`` seconds; return them as seconds from
    now, and the time from which on the next is free."""
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
    """Return when the next time begins. A row further ahead than any process books is ignored,
    because it was written under a slower rate, or by a clock that was ahead."""
    at = state.next_send_at if state is not None else None
    furthest = now + step_of(rate) + timedelta(seconds=MAX_WAIT_SECONDS + 1)
    return at if at is not None and now < at <= furthest else now

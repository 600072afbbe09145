"""What ``SMSKA_LIMITS`` says, and what follows from what was let through so far. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from math import isfinite
from typing import Any, NamedTuple

from .shapes import is_mapping, is_sequence

MAX_MESSAGES = 1000  # of one window: the time of each is kept
MAX_WINDOW = timedelta(days=31)
DAY_SECONDS = 86400.0

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_WINDOW = re.compile(r"([0-9]{1,4})/([0-9]{0,7})([smhd])")
_PREFIX = re.compile(r"\+[1-9][0-9]{0,13}")

DEFAULTS: dict[str, Any] = {
    "number": ["5/h", "20/d"],
    "caller": ["10/h", "30/d"],
    "same_text": 300,
    "codes": [30, 60, 120, 300, 900],
    "segments": 10_000,
    "prefixes": {},
}


class Window(NamedTuple):
    """At most ``messages`` within any span of ``seconds``."""

    messages: int
    seconds: float


@dataclass(frozen=True)
class Limits:
    """The limits of this site.

    :param number: of messages to one number
    :param caller: of messages for one caller
    :param same_text: seconds in which the same text does not go to the same number again, unless
        the first message was not sent
    :param codes: seconds between two codes to one number: after the first, after the second…;
        counted over a day, and the last one holds for all that follow
    :param segments: a day, for each provider, or by alias; ``None`` for no limit
    :param prefixes: by alias, how the numbers that may be sent to begin
    """

    number: tuple[Window, ...] = ()
    caller: tuple[Window, ...] = ()
    same_text: float = 0.0
    codes: tuple[float, ...] = ()
    segments: int | Mapping[str, int | None] | None = None
    prefixes: Mapping[str, tuple[str, ...]] | None = None

    @property
    def number_seconds(self) -> float:
        """Return for how long a message to a number counts."""
        return max([self.same_text, *(window.seconds for window in self.number)])

    @property
    def code_seconds(self) -> float:
        """Return for how long a code to a number counts."""
        return DAY_SECONDS if self.codes else 0.0

    @property
    def caller_seconds(self) -> float:
        """Return for how long a message for a caller counts."""
        return max((window.seconds for window in self.caller), default=0.0)

    def segments_of(self, alias: str) -> int | None:
        """Return how many segments a day may leave through this provider; None for no limit."""
        if isinstance(self.segments, Mapping):
            return self.segments.get(alias, DEFAULTS["segments"])
        return self.segments


NONE = Limits()


def parse(value: Any) -> Limits:
    """Read the setting. What it leaves out has its default; ``None`` turns off one limit, or all.

    :raises ValueError: where it cannot be used; the text says which part, and how it is written
    """
    if value is None:
        return NONE
    if not is_mapping(value):
        raise ValueError("it must be a dict, or None for no limits")
    known = [field.name for field in fields(Limits)]
    if unknown := sorted(str(name) for name in value if name not in known):
        raise ValueError(f"{unknown[0]!r} is no limit; known: {', '.join(known)}")
    given = {**DEFAULTS, **value}
    return Limits(
        number=_windows("number", given["number"]),
        caller=_windows("caller", given["caller"]),
        same_text=_seconds("same_text", given["same_text"]),
        codes=tuple(_seconds("codes", one) for one in _several("codes", given["codes"])),
        segments=_segments(given["segments"]),
        prefixes=_prefixes(given["prefixes"]),
    )


def _windows(name: str, value: Any) -> tuple[Window, ...]:
    return tuple(_window(name, one) for one in _several(name, value))


def _window(name: str, value: Any) -> Window:
    match = _WINDOW.fullmatch(value) if isinstance(value, str) else None
    if match is not None:
        messages = int(match[1])
        seconds = float(int(match[2] or 1) * _UNITS[match[3]])
        if 1 <= messages <= MAX_MESSAGES and 0 < seconds <= MAX_WINDOW.total_seconds():
            return Window(messages, seconds)
    raise ValueError(
        f"{name!r} is written like '5/h', '20/d' or '3/10m' (s, m, h, d), with at most "
        f"{MAX_MESSAGES} messages in at most {MAX_WINDOW.days} days"
    )


def _several(name: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, (str, int, float, timedelta)):
        return [value]
    if is_sequence(value):
        return list(value)
    raise ValueError(f"{name!r} must be a list, or None")


def _seconds(name: str, value: Any) -> float:
    if value is None:
        return 0.0
    if isinstance(value, timedelta):
        value = value.total_seconds()
    right_type = isinstance(value, (int, float)) and not isinstance(value, bool)
    if right_type and isfinite(value) and 0 <= value <= MAX_WINDOW.total_seconds():
        return float(value)
    raise ValueError(f"{name!r} must be seconds, from 0 to {MAX_WINDOW.days} days")


def _segments(value: Any) -> int | dict[str, int | None] | None:
    if is_mapping(value):
        return {str(alias): _whole(one) for alias, one in value.items()}
    return _whole(value)


def _whole(value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError("'segments' must be a whole number, None, or a dict of these by alias")


def _prefixes(value: Any) -> dict[str, tuple[str, ...]]:
    if value is None:
        return {}
    if not is_mapping(value):
        raise ValueError("'prefixes' must be a dict: the beginnings of numbers by alias")
    return {str(alias): _beginnings(one) for alias, one in value.items()}


def _beginnings(value: Any) -> tuple[str, ...]:
    every = tuple(_several("prefixes", value))
    for one in every:
        if not isinstance(one, str) or not _PREFIX.fullmatch(one):
            raise ValueError("'prefixes' are written like '+79', with the plus")
    return every


# --- what was let through -------------------------------------------------------------------------


class Passed(NamedTuple):
    """A message that was let through.

    :param at: the time, in seconds since 1970
    :param text: a short keyed hash of its text; "" where the text does not count
    :param is_code: it holds a one-time code
    :param reference: the message's own, where it counts for a number
    """

    at: float
    text: str
    is_code: bool
    reference: str = ""


class Log:
    """What was let through lately for one number or one caller, the oldest first."""

    def __init__(self, entries: Iterable[Passed] = ()) -> None:
        self.entries = list(entries)
        self.changed = False

    def add(self, passed: Passed) -> None:
        """Note that a message was let through."""
        self.entries.append(passed)
        self.changed = True

    def forget(self, now: float, seconds: float, code_seconds: float = 0.0) -> None:
        """Forget what is older than ``seconds``, and codes that are older than both."""
        since, codes_since = now - seconds, now - max(seconds, code_seconds)
        self.entries = [
            one for one in self.entries if one.at > (codes_since if one.is_code else since)
        ]

    def references(self, text: str, since: float) -> list[str]:
        """Return the messages with this text that were let through after ``since``."""
        return [one.reference for one in self.entries if one.text == text and one.at > since]

    def forget_texts(self, references: Collection[str]) -> None:
        """Let the texts of these messages not count, because they were not sent."""
        before = self.entries
        self.entries = [
            one._replace(text="") if one.reference in references else one for one in before
        ]
        self.changed = self.changed or self.entries != before

    def window_opens(self, window: Window) -> float:
        """Return when one more message fits into the window; 0 where nothing was let through."""
        if len(self.entries) < window.messages:
            return 0.0
        return self.entries[-window.messages].at + window.seconds

    def text_opens(self, text: str, seconds: float) -> float:
        """Return when this text may be sent again."""
        times = [one.at for one in self.entries if one.text == text]
        return times[-1] + seconds if times and seconds else 0.0

    def code_opens(self, now: float, waits: tuple[float, ...]) -> float:
        """Return when the next code may be sent."""
        times = [one.at for one in self.entries if one.is_code and one.at > now - DAY_SECONDS]
        return times[-1] + waits[min(len(times), len(waits)) - 1] if times and waits else 0.0

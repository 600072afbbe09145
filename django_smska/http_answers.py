"""Answers as settings describe them: places where something stands, conditions of what it means.

What cannot be used raises ``WrongPart``, whose text says what it must be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from .conf import WrongPart
from .exchange import Answer, decode
from .json_answers import json_value, number_of
from .shapes import is_list, is_object

#: A path into JSON, or a regular expression whose group has what is meant.
Place = tuple[str, ...] | re.Pattern[str]

_PATH = re.compile(r"(?:[\w-]+|\*)(?:\.(?:[\w-]+|\*))*")
_ID = re.compile("[!-~]{1,64}")


@dataclass(frozen=True)
class Said:
    """What an answer or a report says.

    :param value: of its JSON, or its fields; ``None`` where it has none
    :param framed: nothing of its text is cut
    """

    text: str
    value: Any = None
    status: int = 200
    framed: bool = True

    @classmethod
    def by(cls, answer: Answer) -> Said:
        text = decode(answer.body)
        return cls(text, json_value(text), answer.status, answer.framed)

    def at(self, place: Place | None) -> str:
        """Return what stands at this place, as text; "" where nothing does."""
        if isinstance(place, re.Pattern):
            match = place.search(self.text) if self.framed else None
            return (match and match[1]) or ""
        return "" if place is None else _as_text(self.value_at(place))

    def value_at(self, path: tuple[str, ...]) -> Any:
        """Return the value at this path; a ``*`` stands for the only one that there is."""
        value = self.value
        for part in path:
            if is_list(value):
                value = dict(zip(map(str, range(len(value))), value, strict=True))
            if not is_object(value):
                return None
            value = (
                next(iter(value.values())) if part == "*" and len(value) == 1 else value.get(part)
            )
        return value

    def id_at(self, place: Place | None) -> str:
        found = self.at(place)
        return found if _ID.fullmatch(found) else ""

    def number_at(self, place: Place | None) -> Decimal | None:
        return number_of(self.at(place).replace(",", "."))


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (str, int, Decimal)) else ""


def path(given: Any) -> tuple[str, ...]:
    """Read a path such as ``data.id``."""
    if not (isinstance(given, str) and _PATH.fullmatch(given)):
        raise WrongPart("must be a path such as 'data.id'")
    return tuple(given.split("."))


def place(given: Any) -> Place | None:
    """Read a path, or a regular expression with one group; "" is ``None``."""
    if given is None or given == "":
        return None
    if isinstance(given, str) and _PATH.fullmatch(given):
        return path(given)
    pattern = _pattern(given)
    if pattern.groups != 1:
        raise WrongPart("must be a path such as 'data.id', or a regular expression with one group")
    return pattern


@dataclass(frozen=True)
class Condition:
    """What must all hold of an answer: its HTTP status, values of its JSON, its text."""

    statuses: frozenset[int]
    values: Mapping[tuple[str, ...], tuple[re.Pattern[str], ...]]
    text: re.Pattern[str] | None

    def holds(self, said: Said) -> bool:
        return (
            said.status in self.statuses
            # JSON shows where it is cut; any other text may go on.
            and (said.framed or bool(self.values))
            and all(_is_one_of(said.at(path), wanted) for path, wanted in self.values.items())
            and (self.text is None or self.text.search(said.text) is not None)
        )


def _is_one_of(text: str, patterns: Iterable[re.Pattern[str]]) -> bool:
    return bool(text) and any(pattern.fullmatch(text) for pattern in patterns)


def conditions(given: Any) -> list[Condition]:
    """Read one condition, or a list of them of which one must hold."""
    every = several(given)
    if not isinstance(given, (dict, list, tuple)) or not every:
        raise WrongPart("must be a condition, such as {'http': 200, 'json': {'status': 'OK'}}")
    return [_condition(one) for one in every]


def _condition(given: Any) -> Condition:
    if not is_object(given) or not given or not given.keys() <= {"http", "json", "text"}:
        raise WrongPart("has a condition that is no dict of 'http', 'json' and 'text'")
    statuses = several(given.get("http", 200))
    if not statuses or not all(type(one) is int and 200 <= one < 500 for one in statuses):
        raise WrongPart("has an 'http' outside of 200 to 499; any other status proves nothing")
    values = given.get("json", {})
    if not is_object(values):
        raise WrongPart("has a 'json' that is no dict of paths and values")
    return Condition(
        frozenset(statuses),
        {path(name): _wanted(value) for name, value in values.items()},
        _pattern(given["text"]) if "text" in given else None,
    )


def _wanted(given: Any) -> tuple[re.Pattern[str], ...]:
    """Read a value, or several; a text is a regular expression for the whole of it."""
    every = several(given)
    if not every or not all(isinstance(one, (str, int)) for one in every):
        raise WrongPart("has a 'json' value that is no text, whole number, True or False")
    return tuple(
        _pattern(one if isinstance(one, str) else re.escape(_as_text(one))) for one in every
    )


def several(given: Any) -> list[Any]:
    """Return what a list or a tuple holds; anything else stands for itself."""
    return [*given] if isinstance(given, (list, tuple)) else [given]


def _pattern(given: Any) -> re.Pattern[str]:
    try:
        return re.compile(given)
    except (re.error, TypeError):
        raise WrongPart("has no regular expression where one must stand") from None

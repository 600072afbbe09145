"""What kind of thing a value is: after ``isinstance`` alone, a type checker does not know what is
in a list or a mapping, and these say that it may be anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard


def is_mapping(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    """Return whether it is a ``dict`` or the like."""
    return isinstance(value, Mapping)


def is_sequence(value: Any) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """Return whether it is a list or a tuple."""
    return isinstance(value, (list, tuple))


def is_collection(value: Any) -> TypeGuard[Iterable[Any]]:
    """Return whether it is a list, a tuple or a set."""
    return isinstance(value, (list, tuple, set, frozenset))


def is_object(value: Any) -> TypeGuard[dict[str, Any]]:
    """Return whether a JSON value is an object; its values may be anything."""
    return isinstance(value, dict)


def is_list(value: Any) -> TypeGuard[list[Any]]:
    """Return whether a JSON value is a list, of anything."""
    return isinstance(value, list)

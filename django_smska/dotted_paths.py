"""Functions of a project that settings name by their dotted paths."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

_WORDS = {1: "one", 2: "two"}


def function_at(path: str, takes: int) -> Callable[..., Any]:
    """Import a function.

    :param takes: the number of arguments that it is called with, one or two
    :raises ImproperlyConfigured: where it cannot be imported or called so, or is an ``async def``
    """
    try:
        found: Callable[..., Any] = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(f"{error}.") from None
    except Exception as error:  # of the project's module, whose text may hold anything
        raise ImproperlyConfigured(f"its module raised {type(error).__name__}.") from None
    if inspect.iscoroutinefunction(found):
        raise ImproperlyConfigured(f"{path} is an 'async def', and is not awaited.")
    try:
        inspect.signature(found).bind(*[None] * takes)
    except TypeError as mismatch:
        words = f"{path} cannot be called with {_WORDS[takes]}: {mismatch}."
        raise ImproperlyConfigured(words) from None
    except ValueError:  # it has no signature: a function in C
        pass
    return found

"""Keep the values of queries out of the errors of databases: they are numbers and texts.

Every frame below a query holds its values in local variables, which debug pages and error trackers
show, and PostgreSQL quotes whole rows in its errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import wraps
from types import TracebackType
from typing import ParamSpec, TypeVar

from django.db import Error

_P = ParamSpec("_P")
_T = TypeVar("_T")

_LAYER = "django.db."
#: Where values are; a signal's receivers are called from other parts of that layer.
_QUERIES = ("django.db.backends.", "django.db.models.query", "django.db.models.sql.")
_HOOKS = "run_and_clear_commit_hooks"
#: MariaDB: Duplicate entry '…' for key 'name'.
_QUOTED = re.compile(r"(?<= )'.*' for ")


def hides_values(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let errors of the database leave ``function`` without the values of its queries."""

    @wraps(function)
    def hiding(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            del args, kwargs  # of this frame, too
            hide_values(error)
            raise

    return hiding


def hides_frames(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let errors leave ``function`` without its frames and those below, whose local variables are
    numbers or texts: debug pages and error trackers show them."""

    @wraps(function)
    def hiding(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            del args, kwargs  # of this frame, too
            hide_values(error)
            raise error.with_traceback(None)  # noqa: B904

    return hiding


def hide_values(error: BaseException) -> None:
    """Cut the frames of queries off an error of the database and off what it was raised from.

    So are those of an abort (a web server's, a signal's), which may come in a query. Other errors
    keep all frames: they are those of receivers and callbacks of the project.
    """
    chain = list(_chain(error))
    if not any(isinstance(one, Error) or not isinstance(one, Exception) for one in chain):
        return
    for one in chain:
        one.__traceback__ = _without_queries(one.__traceback__)
    for one in _of_database(chain):
        one.args = tuple(first_line(arg) if isinstance(arg, str) else arg for arg in one.args)


def first_line(error: object) -> str:
    """Return the first line of a database's error: rows and queries are quoted in the others."""
    return _QUOTED.sub("'•••' for ", str(error).partition("\n")[0])


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and not any(one is other for other in seen):
            seen.append(one)
            yield one
            waiting += [one.__cause__, one.__context__]


def _of_database(chain: list[BaseException]) -> Iterator[BaseException]:
    """Yield Django's errors of the database, and the driver's errors that they stand for."""
    for one in chain:
        if isinstance(one, Error):
            yield one
            if one.__cause__ is not None:
                yield one.__cause__


def _without_queries(traceback: TracebackType | None) -> TracebackType | None:
    """Return the frames up to the one that called the database layer for the query."""
    place, before = traceback, None
    inside, queries = False, False
    caller: TracebackType | None = None
    while place is not None:
        name = place.tb_frame.f_globals.get("__name__", "")
        if name.startswith(_LAYER) and place.tb_frame.f_code.co_name != _HOOKS:
            if not inside:
                inside, caller = True, before
            queries = queries or name.startswith(_QUERIES)
        elif not queries:
            inside = False
        place, before = place.tb_next, place
    if not (inside and queries):
        return traceback
    if caller is None:
        return None
    caller.tb_next = None
    return traceback

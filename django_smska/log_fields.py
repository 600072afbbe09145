"""The fields that log lines carry beside their text, for logs that are read by programs.

A line about a message has all of ``sms``, ``alias``, ``status`` and ``code``, and one about a
provider ``alias`` and ``code``. None of them is ever a number, a text or a login.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

#: The fields of the message that this thread is handing to a provider.
_current: ContextVar[dict[str, Any] | None] = ContextVar("django_smska_log_fields", default=None)


def of_message(message: Any, code: str = "", *, alias: str | None = None) -> dict[str, Any]:
    """Return ``extra`` for a line about a message, or anything with its attributes.

    :param code: the cause; the message's own error code where it is left out
    :param alias: the provider that is meant, where it is not the message's
    """
    return {
        "sms": getattr(message, "pk", None),
        "alias": alias or getattr(message, "using", None),
        "status": str(getattr(message, "status", "")),
        "code": str(code or getattr(message, "error_code", "")),
    }


def of_messages(messages: Iterable[Any], status: str, code: str = "") -> dict[str, Any]:
    """Return ``extra`` for a line about several messages: each field but ``sms`` is of them all.

    :param messages: they, or their keys
    """
    keys = [getattr(one, "pk", one) for one in messages]
    aliases = {one.using for one in messages if hasattr(one, "using")}
    alias = aliases.pop() if len(aliases) == 1 else None
    return {"sms": keys, "alias": alias, "status": str(status), "code": str(code)}


def of_provider(alias: str | None, code: str = "") -> dict[str, Any]:
    """Return ``extra`` for a line about a provider, and about the message that it was just given.

    :param code: the cause
    """
    message = _current.get() or {}
    known = {"code": str(code)} if code else {}
    return {"alias": alias, "code": "", **message, **({"alias": alias} if alias else {}), **known}


def of_error(error: Exception, status: str = "") -> dict[str, Any]:
    """Return ``extra`` for a line about an error that ended a call; it may name its message.

    :param status: of that message, where it is known
    """
    return {
        "sms": getattr(error, "sms", None),
        "alias": getattr(error, "alias", None),
        "status": status,
        "code": str(getattr(error, "code", "") or type(error).__name__),
    }


@contextmanager
def during(message: Any) -> Generator[None]:
    """Let the lines about a provider carry this message's fields, in this thread."""
    token = _current.set(of_message(message))
    try:
        yield
    finally:
        _current.reset(token)

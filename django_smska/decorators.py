"""For views behind which a visitor can make the site send an SMS."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext, ngettext

from . import clock, limits
from .exceptions import InvalidRecipient, LimitExceeded

#: So many of the smaller unit are said before the next one, so that little is rounded up.
MOST_OF_A_UNIT = 90


def visitor(request: HttpRequest) -> str:
    """Return what ``SMSKA_LIMITS`` counts a visitor by: the user, or the address without one.

    The address is ``REMOTE_ADDR``; behind a proxy your server or a middleware must set it to that
    of the visitor, since otherwise all visitors count as one. Of an IPv6 address the first 64 bits
    count, because one line has them all.
    """
    user = getattr(request, "user", None)
    if user is not None and user.is_authenticated:
        return f"user {user.pk}"
    address = str(request.META.get("REMOTE_ADDR", ""))
    try:
        known = ipaddress.ip_address(address)
    except ValueError:  # a Unix socket has none
        return f"address {address}"
    known = getattr(known, "ipv4_mapped", None) or known  # of a server that listens on both
    if known.version == 6:
        return f"address {ipaddress.ip_network((known, 64), strict=False)}"
    return f"address {known}"


def limit_visitors(
    view: Callable[..., Any] | None = None, *, key: Callable[[HttpRequest], str] = visitor
) -> Callable[..., Any]:
    """Count all that the view sends for its visitor, under ``caller`` of ``SMSKA_LIMITS``.

    A ``LimitExceeded`` that the view does not catch becomes an answer with the status 429, a
    sentence for the visitor and the header ``Retry-After``. Views may be ``async``.

    :param key: returns what a visitor is counted by; it must be text that differs for each
    """
    if view is None:
        return partial(limit_visitors, key=key)
    # Before Python 3.12, inspect does not see what asgiref marks.
    if iscoroutinefunction(view):  # pyright: ignore[reportDeprecated]

        @wraps(view)
        async def limited_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            # The user of a request is read from the database when it is first asked for.
            caller = await sync_to_async(key)(request)
            with limits.acting_for(caller):
                try:
                    return await view(request, *args, **kwargs)
                except LimitExceeded as error:
                    return await sync_to_async(too_many)(error)

        return limited_async

    @wraps(view)
    def limited(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        with limits.acting_for(key(request)):
            try:
                return view(request, *args, **kwargs)
            except LimitExceeded as error:
                return too_many(error)

    return limited


def too_many(error: LimitExceeded) -> HttpResponse:
    """Return the answer with the status 429 for a visitor."""
    response = HttpResponse(why(error), status=429, content_type="text/plain; charset=utf-8")
    seconds = seconds_to_wait(error)
    if seconds is not None:
        response["Retry-After"] = str(seconds)
    return response


def seconds_to_wait(error: Exception) -> int | None:
    """Return after how many whole seconds the same message would pass; ``None`` where the error
    names no time."""
    retry_at = getattr(error, "retry_at", None)
    return retry_at and max(math.ceil((retry_at - clock.now()).total_seconds()), 1)


def why(error: Exception) -> str:
    """Return a sentence for the visitor: why nothing was sent, and when it would be.

    It says nothing about the provider, and no limit's size, which would help an attacker. It says
    how long to wait, since the visitor's clock may show another zone than the site's. For that it
    may query the database's time, so that asynchronous code calls it by ``sync_to_async``.
    """
    if isinstance(error, (InvalidRecipient, ValidationError)):
        return gettext("No SMS can be sent to this number.")
    if not isinstance(error, LimitExceeded):
        return gettext("The SMS was not sent. Try again in a few minutes.")
    seconds = seconds_to_wait(error)
    if seconds is None:
        return gettext("No SMS can be sent to this number.")
    return " ".join([gettext("Too many SMS were asked for."), _again_in(seconds)])


def _again_in(seconds: int) -> str:
    if seconds <= MOST_OF_A_UNIT:
        words = ngettext("Try again in %s second.", "Try again in %s seconds.", seconds)
        return words % seconds
    minutes = math.ceil(seconds / 60)
    if minutes <= MOST_OF_A_UNIT:
        words = ngettext("Try again in %s minute.", "Try again in %s minutes.", minutes)
        return words % minutes
    hours = math.ceil(minutes / 60)
    return ngettext("Try again in %s hour.", "Try again in %s hours.", hours) % hours

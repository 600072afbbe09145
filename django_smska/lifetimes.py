"""The lifetimes of messages: which are the site's, ``SMSKA_EXPIRES_AFTER``, and which their callers
gave. Only the site's is moved."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db.models import Case, DateTimeField, ExpressionWrapper, F, Q, Value, When

from . import conf

#: The longest time between the beginning of a message's lifetime, when it is made, and its
#: ``created_at``, which comes from another clock when it is stored.
STORED_WITHIN = timedelta(minutes=5)


def none_if_of_site(*, claimed: bool) -> Case:
    """Return, for an UPDATE, the expiry that a caller gave, or NULL for the site's."""
    return Case(When(is_of_site(claimed=claimed), then=Value(None)), default=F("expires_at"))


def moved_to(start: datetime, *, claimed: bool) -> Case:
    """Return, for an UPDATE of what is not to leave before ``start``, the expiry: where the site's
    would pass before that, it begins at ``start``."""
    passes = Q(expires_at__lte=start) & is_of_site(claimed=claimed)
    return Case(
        When(passes, then=Value(start + conf.expires_after())),
        default=F("expires_at"),
        output_field=DateTimeField(),
    )


def is_of_site(*, claimed: bool) -> Q:
    """Return the condition that a message has the lifetime of the site.

    :param claimed: of messages whose present claim already counts as an attempt
    """
    lifetime = conf.expires_after()
    of_untried = Q(expires_at=_later("send_after", lifetime))
    # The time of one that was tried is that of its next attempt, and the time of one that was put
    # off is the end of quiet hours.
    moved = Q(attempts__gt=int(claimed)) | Q(send_after__gt=_later("created_at", STORED_WITHIN))
    since_made = Q(
        expires_at__gte=_later("created_at", lifetime - STORED_WITHIN),
        expires_at__lte=_later("created_at", lifetime + STORED_WITHIN),
    )
    return of_untried | (moved & since_made)


def _later(name: str, by: timedelta) -> Any:
    return ExpressionWrapper(F(name) + by, output_field=DateTimeField())

"""The life of a message as one pure table, and what follows from an outcome. No queries here.

::

    draft ─► queued ─► claimed ─► sending ─► sent ─► delivered | rejected | expired | deleted
                ▲         │          │         └───► unconfirmed   (no final status in the window)
                └─────────┤          ├───► failed    (definitely not accepted; see the error)
               not accepted,         └───► unknown   (may be accepted: a person decides, or the
               tried again with back-off, bounded     provider proves it) ─► sent
    draft, queued ─► cancelled
    claimed ─► cancelled                             (its number is on the do-not-send list)
    queued, claimed ─► draft                         (its mailing is stopped)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import models
from django.utils.translation import pgettext_lazy

from .exceptions import ErrorKind


class Status(models.TextChoices):
    """The status of a message."""

    DRAFT = "draft"
    QUEUED = "queued"
    CLAIMED = "claimed"
    SENDING = "sending"
    SENT = "sent"
    DELIVERED = "delivered"
    REJECTED = "rejected"
    EXPIRED = "expired"
    DELETED = "deleted"
    UNCONFIRMED = "unconfirmed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"

    @property
    def label(self) -> Any:
        """Its name for people; lazy."""
        return LABELS[self]


# Beside the members and not in them, as Django has it: type checkers would take a member for a
# tuple, which equals no status.
LABELS: dict[Status, Any] = {
    Status.DRAFT: pgettext_lazy("SMS status", "draft"),
    Status.QUEUED: pgettext_lazy("SMS status", "queued"),
    Status.CLAIMED: pgettext_lazy("SMS status", "about to be sent"),
    Status.SENDING: pgettext_lazy("SMS status", "sending"),
    Status.SENT: pgettext_lazy("SMS status", "sent"),
    Status.DELIVERED: pgettext_lazy("SMS status", "delivered"),
    Status.REJECTED: pgettext_lazy("SMS status", "rejected"),
    Status.EXPIRED: pgettext_lazy("SMS status", "expired"),
    Status.DELETED: pgettext_lazy("SMS status", "deleted"),
    Status.UNCONFIRMED: pgettext_lazy("SMS status", "unconfirmed"),
    Status.FAILED: pgettext_lazy("SMS status", "failed"),
    Status.UNKNOWN: pgettext_lazy("SMS status", "unknown"),
    Status.CANCELLED: pgettext_lazy("SMS status", "cancelled"),
}

S = Status

MOVES: dict[Status, frozenset[Status]] = {
    S.DRAFT: frozenset({S.QUEUED, S.CANCELLED}),
    # queued ─► failed: it expired before a worker could send it.
    # queued ─► draft: a person has stopped its mailing.
    S.QUEUED: frozenset({S.CLAIMED, S.CANCELLED, S.FAILED, S.DRAFT}),
    # claimed ─► cancelled: its number is on the do-not-send list. Nothing was written yet.
    S.CLAIMED: frozenset({S.QUEUED, S.SENDING, S.FAILED, S.CANCELLED, S.DRAFT}),
    S.SENDING: frozenset({S.QUEUED, S.SENT, S.FAILED, S.UNKNOWN}),
    S.SENT: frozenset({S.DELIVERED, S.REJECTED, S.EXPIRED, S.DELETED, S.UNCONFIRMED}),
    # By a person's word, or by the provider's own: a report or an answer with our reference.
    S.UNKNOWN: frozenset({S.SENT}),
}

#: Statuses that never change again.
FINAL = frozenset(S) - frozenset(MOVES)

#: Statuses of a report that says that the provider accepted the message, and nothing against it.
ACCEPTED = frozenset({S.SENT, S.DELIVERED})

#: Statuses in which the text is still needed for sending.
NEEDS_TEXT = frozenset({S.DRAFT, S.QUEUED, S.CLAIMED, S.SENDING})

#: Kinds of error that concern the provider, not the message: its queue waits.
STOPPING_KINDS = frozenset(
    {ErrorKind.ACCOUNT, ErrorKind.FUNDS, ErrorKind.UNREACHABLE, ErrorKind.BUSY}
)

#: Errors after which a message waits: it may be sent when the provider can be used again.
WAITING_KINDS = STOPPING_KINDS | {ErrorKind.BROKEN}

#: The reason of a pause after unknown outcomes. The other reasons are the kinds of the errors.
HANGING = "hanging"

#: Seconds from a provider's pause to the first probe; the next ones follow after twice, four times…
#: as long. A wrong login is probed rarely, because repeated ones lock accounts.
PAUSE_SECONDS: dict[str, int] = {
    ErrorKind.ACCOUNT: 600,
    ErrorKind.FUNDS: 300,
    ErrorKind.UNREACHABLE: 15,
    ErrorKind.BUSY: 30,
    HANGING: 60,
    ErrorKind.BROKEN: 60,
}
LONGEST_PAUSE_SECONDS = 3600

#: Unknown outcomes in a row after which a provider counts as hanging, and failures of its backend
#: in a row after which it counts as broken.
FAILURES_BEFORE_PAUSE = 3


def may_move(old: Status, new: Status) -> bool:
    """Return whether the table allows this move."""
    return new in MOVES.get(old, frozenset())


def drops_text(old: str, new: str) -> bool:
    """Return whether a message that moves so needs its text no more."""
    return old in NEEDS_TEXT and new not in NEEDS_TEXT


@dataclass(frozen=True)
class Decision:
    """What follows from an attempt.

    :param retry_in: seconds until the message is due again
    """

    status: Status
    retry_in: float = 0


def decide(
    kind: ErrorKind, *, attempts: int, most: int, last: bool = False, retry_in: float = 0
) -> Decision:
    """Return what follows from an attempt that did not succeed.

    :param kind: of the error
    :param attempts: so far, this one included
    :param most: attempts in all for a gateway that says "not now"
    :param last: the caller gets the error at once and may send again, so that this message must not
        be sent later
    :param retry_in: the least seconds before the next attempt, as the provider wants it
    """
    if kind == ErrorKind.UNKNOWN:
        return Decision(S.UNKNOWN)
    wait = max(backoff(attempts), retry_in)
    if kind in WAITING_KINDS and not last:
        # The provider is paused. The back-off lets other messages go first, in case it is this one.
        return Decision(S.QUEUED, wait)
    if kind == ErrorKind.TEMPORARY and attempts < most and not last:
        return Decision(S.QUEUED, wait)
    return Decision(S.FAILED)


def backoff(attempts: int) -> float:
    """Return the seconds before the next attempt: 15, 60, 240, 960, then an hour each."""
    return float(min(15 * 4 ** min(attempts - 1, 5), 3600))


def pause_for(reason: str, probes: int) -> float:
    """Return the seconds until a paused provider is probed again, after ``probes`` failed."""
    return float(min(PAUSE_SECONDS[reason] * 2 ** min(probes, 12), LONGEST_PAUSE_SECONDS))


def milder(reason: str) -> list[str]:
    """Return the reasons of a pause that this one replaces.

    A wrong login that is found while a gateway is away must not be tried as often as a connection.
    """
    if reason not in STOPPING_KINDS:
        return []
    return [one for one, seconds in PAUSE_SECONDS.items() if seconds < PAUSE_SECONDS[reason]]


def next_query_in(queries: int, *, pushed: bool = False) -> float:
    """Return the seconds until the next status query: 10, 30, 90… up to six hours.

    :param queries: those so far
    :param pushed: reports come unasked, so that it begins with 10 minutes
    """
    first = 600 if pushed else 10
    return float(min(first * 3 ** min(queries, 8), 6 * 3600))


#: Seconds after an unknown outcome at which the provider is asked for the message. The last one is
#: an hour, because providers forget: Infobip keeps its log for two days.
QUESTIONS_AFTER_SECONDS = (30, 120, 600, 3600)


def next_question_in(asked: int) -> float | None:
    """Return the seconds until the provider is asked next for a message of which it is unknown
    whether it was accepted; ``None`` where it was asked often enough.

    :param asked: how often it was
    """
    if asked >= len(QUESTIONS_AFTER_SECONDS):
        return None
    before = QUESTIONS_AFTER_SECONDS[asked - 1] if asked else 0
    return float(QUESTIONS_AFTER_SECONDS[asked] - before)

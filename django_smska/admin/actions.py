"""The admin's actions on messages, with their consequences and outcomes.

``sending`` and ``delivery`` do the work. This module adds names, permissions, questions for the
confirmation page, and texts for the outcomes.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import ValidationError
from django.db import DatabaseError, router, transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .. import circuit_breaker, clock, conf, delivery, sending
from ..exceptions import (
    SAID,
    InvalidProvider,
    SmsError,
    SmsNotSent,
    SmsOutcomeUnknown,
    WrongStatus,
)
from ..models import SmsMessage, SmsMessageQuerySet, rows, write_db
from ..redact import withhold
from ..states import WAITING_KINDS, Status
from .wording import balance_words, error_words, has_no_worker, paused_words

logger = logging.getLogger(__name__)

MAX_KEYS = 100_000  # messages per action: their keys must fit into one POST
MAX_ONE_BY_ONE = 500  # where each is done by itself, while a person waits
LISTED = 10  # messages that a page names one by one


@dataclass(frozen=True)
class Outcome:
    """What became of a message. ``history``: what its history says, where that is not the same."""

    what: Any
    why: Any = ""
    level: int = messages.SUCCESS
    history: Any = ""

    def __str__(self) -> str:
        return str(self.history or (f"{self.what}: {self.why}" if self.why else f"{self.what}."))


SKIPPED = Outcome(
    _("Passed over"),
    _("It is queued, being sent or finished, or somebody was faster."),
    messages.WARNING,
)
QUEUED = Outcome(
    _("Queued for sending"), _("A worker sends what is queued when its time has come.")
)


@dataclass(frozen=True)
class Action:
    """Something that a person may do with messages of certain statuses.

    ``do``: does it with one message, while the person waits. ``hand_over``: does it with many, or
    leaves it to the worker, from the statuses ``handed_from`` and with the outcome
    ``handed_over``.
    """

    name: str
    permission: str
    label: Any
    question: Any
    statuses: frozenset[Status]
    do: Callable[[SmsMessage, Any], Outcome]
    hand_over: Callable[[SmsMessageQuerySet], int] | None = None
    handed_over: Outcome = SKIPPED
    handed_from: frozenset[Status] = frozenset()
    costs: bool = False


def _send(message: SmsMessage, user: Any) -> Outcome:
    # "Now" was written down by the clock of some host.
    later = message.send_after > max(clock.now(), timezone.now())
    if message.status == Status.DRAFT and later:
        return _hand_over(SEND, message)
    message.send()
    if message.status == Status.SENT:
        return Outcome(_("Sent"))
    return QUEUED if message.status == Status.QUEUED else SKIPPED


def _refresh(message: SmsMessage, user: Any) -> Outcome:
    message.refresh_status()
    status = message.get_status_display()
    history = gettext("Asked for the status: %s.") % status
    if message.status == Status.SENT:
        return Outcome(_("No final word yet"), level=messages.INFO, history=history)
    good = message.status == Status.DELIVERED
    level = messages.SUCCESS if good else messages.WARNING
    return Outcome(status.capitalize(), level=level, history=history)


def _cancel(message: SmsMessage, user: Any) -> Outcome:
    return _hand_over(CANCEL, message)


def _confirm_sent(message: SmsMessage, user: Any) -> Outcome:
    sending.confirm_sent(message)
    return Outcome(_("Noted as sent"), history=gettext("Said: it was sent."))


def _resend(message: SmsMessage, user: Any) -> Outcome:
    again = sending.resend(message, created_by=user)
    log(user, [again], gettext("Made to send message %s again.") % message.pk)
    return Outcome(
        _("Queued once more"),
        gettext("The new message is %s.") % again.pk,
        history=gettext("Sent again as message %s.") % again.pk,
    )


def hand_over_one(action: Action) -> Action:
    """Return the action that hands one message over, as this one hands many over."""
    return replace(
        action, do=lambda message, user: _hand_over(action, message), statuses=action.handed_from
    )


def _hand_over(action: Action, message: SmsMessage) -> Outcome:
    assert action.hand_over is not None
    moved = action.hand_over(rows([message.pk]))
    message.refresh_from_db(using=write_db())
    return action.handed_over if moved or message.status == Status.QUEUED else SKIPPED


SEND = Action(
    "send",
    "send",
    _("Send"),
    _("Shall this be sent?"),
    frozenset({Status.DRAFT, Status.QUEUED}),
    _send,
    sending.enqueue,
    QUEUED,
    frozenset({Status.DRAFT}),
    costs=True,
)
REFRESH = Action(
    "refresh",
    "refresh",
    _("Refresh status"),
    _("Shall the gateway be asked what became of this?"),
    frozenset({Status.SENT}),
    _refresh,
    delivery.ask_soon,
    Outcome(_("Left to the worker"), _("It asks for the status on its next pass.")),
    frozenset({Status.SENT}),
)
CONFIRM_SENT = Action(
    "confirm_sent",
    "resend",
    _("It was sent"),
    _("Do you know that the gateway took this? Then it counts as sent."),
    frozenset({Status.UNKNOWN}),
    _confirm_sent,
)
RESEND = Action(
    "resend",
    "resend",
    _("Send again"),
    _("Shall the same text be sent once more, as a new message? It is paid for once more."),
    frozenset(sending.RESENDABLE),
    _resend,
    costs=True,
)
CANCEL = Action(
    "cancel",
    "change",
    _("Cancel sending"),
    _("Shall this never be sent? It cannot be undone."),
    frozenset({Status.DRAFT, Status.QUEUED}),
    _cancel,
    sending.cancel,
    Outcome(_("Cancelled")),
    frozenset({Status.DRAFT, Status.QUEUED}),
)
ACTIONS = (SEND, REFRESH, CONFIRM_SENT, RESEND, CANCEL)


def run_action(
    action: Action, message: SmsMessage, user: Any, may: Callable[[], bool], failing: set[str]
) -> Outcome:
    """Do it with one of many messages and return what became of it, whatever the error.

    ``may``: whether this user may do it. ``failing``: the providers that had an error which
    concerns them; their other messages are not waited for.
    """
    try:
        if message.status not in action.statuses or not may():
            return SKIPPED
        if message.using in failing and action.hand_over is not None:
            return _apart(lambda: _hand_over(action, message))
        return _apart(lambda: action.do(message, user))
    except Exception as error:
        concerns_it = getattr(error, "kind", "") in (*WAITING_KINDS, "unknown", "query")
        if concerns_it and getattr(error, "code", "") != "paused":
            failing.add(message.using)
        return _failure(message, error)


def _apart(do: Callable[[], Outcome]) -> Outcome:
    """Keep a database error of one message from those of the same transaction, if one is open."""
    if not sending.in_atomic_block():
        return do()
    failure: Exception
    with transaction.atomic(using=write_db()):
        try:
            return do()
        except DatabaseError:
            raise
        except Exception as error:  # what is stored about it stays stored
            failure = error
    raise failure


def crashed(keys: Any, error: Exception) -> Outcome:
    """Return the outcome of an error that is none of ours. Its text may hold the request."""
    name = type(error).__name__
    logger.error("messages %s: %s", keys, name)
    why = gettext("The program failed (%s). Look at the message before you try again.") % name
    return Outcome(_("Not finished"), why, messages.ERROR)


def _failure(message: SmsMessage, error: Exception) -> Outcome:
    if isinstance(error, (WrongStatus, SmsMessage.DoesNotExist)):
        return SKIPPED
    if isinstance(error, ValidationError):
        return Outcome(_("Not done"), " ".join(error.messages), messages.ERROR)
    if isinstance(error, InvalidProvider):
        why = gettext("The provider “%s” is not set up as it should be: tell your administrator.")
        return Outcome(_("Not done"), why % message.using, messages.ERROR)
    if not isinstance(error, SmsError):
        return crashed(message.pk, error)
    ours = str(error.args[0]) if error.args else str(error.summary)
    address = error.text.partition(SAID)[0].removeprefix(ours) if error.args else ""
    why = error_words(withhold(ours, [message.body]) + address)  # a third party's, perhaps
    if isinstance(error, SmsOutcomeUnknown):
        return Outcome(_("Unknown whether it was sent"), why, messages.ERROR)
    if isinstance(error, SmsNotSent) and message.status == Status.QUEUED:
        return Outcome(_("Not sent yet, it stays in the queue"), why, messages.WARNING)
    what = _("Not sent") if isinstance(error, SmsNotSent) else _("Not done")
    return Outcome(what, why, messages.ERROR)


def log(user: Any, affected: Sequence[SmsMessage], words: str) -> None:
    """Write into the histories. What was done stays done where that fails."""
    try:
        with transaction.atomic(using=router.db_for_write(LogEntry)):
            LogEntry.objects.log_actions(user.pk, affected, CHANGE, words)
    except Exception as error:
        pks = [message.pk for message in affected]
        logger.error("no history entry for messages %s: %s", pks, type(error).__name__)


def read_keys(text: str) -> list[int]:
    """Read ``"17,18"``; what cannot be a key is left out."""
    return keys_among(text.split(","))[:MAX_KEYS]


def keys_among(words: Iterable[str]) -> list[int]:
    """Return those of the words that can be keys."""
    return sorted({int(word) for word in words if re.fullmatch(r"[0-9]{1,18}", word)})


class Plan:
    """What an action would do with the chosen messages, for people to read before they agree."""

    def __init__(self, action: Action, chosen: QuerySet[SmsMessage]) -> None:
        wanted = ("pk", "status", "using", "segments", "send_after")
        self.limit = MAX_KEYS if action.hand_over is not None else MAX_ONE_BY_ONE
        found = list(chosen.order_by("pk").values_list(*wanted)[: self.limit + 1])
        self.too_many = len(found) > self.limit
        self.chosen = [row[0] for row in found]
        self.most = conf.send_at_once()
        fit = [row for row in found if row[1] in action.statuses]
        if action.hand_over is not None and len(fit) > self.most:
            fit = [row for row in fit if row[1] in action.handed_from]
        others = Counter(Status(row[1]).label for row in set(found).difference(fit))
        self.skipped = sorted(others.items())
        self.number, self.segments = len(fit), sum(row[3] for row in fit)
        self.first = [row[0] for row in fit[:LISTED]]
        self.pks = ",".join(str(row[0]) for row in fit)
        self.handed_over = action.hand_over is not None and self.number > self.most
        self.later = sum(row[4] > timezone.now() for row in fit)
        self.providers = [
            _of_provider(alias, [row for row in fit if row[2] == alias])
            for alias in sorted({row[2] for row in fit})
        ]


def _of_provider(alias: str, found: list[Any]) -> dict[str, Any]:
    state = circuit_breaker.state_of(alias)
    return {
        "state": state,
        "number": len(found),
        "segments": sum(row[3] for row in found),
        "balance": balance_words(state),
        "paused": paused_words(state),
        "has_no_worker": has_no_worker(state),
    }

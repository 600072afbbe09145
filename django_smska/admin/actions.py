"""The admin's actions on messages, with their consequences and outcomes.

``sending`` and ``delivery`` do the work. This module adds names, permissions, questions for the
confirmation page, and texts for the outcomes.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import Any

from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import ValidationError
from django.db import DatabaseError, router, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .. import (
    circuit_breaker,
    clock,
    conf,
    delivery,
    handover,
    log_fields,
    mailings,
    opt_out,
    sending,
)
from ..conflicts import in_atomic_block, repeat_conflicts
from ..exceptions import (
    SAID,
    ErrorKind,
    InvalidProvider,
    RecipientOptedOut,
    SmsError,
    SmsNotSent,
    SmsOutcomeUnknown,
    WrongStatus,
)
from ..models import SmsMailing, SmsMessage, SmsMessageQuerySet, rows, write_db
from ..redact import withhold
from ..states import WAITING_KINDS, Status
from . import resending
from .money import Cost, cost_of
from .wording import balance_words, error_words, paused_words, stop_of

logger = logging.getLogger(__name__)

MAX_KEYS = 100_000  # the most messages per action: their keys must fit into one POST
MAX_ONE_BY_ONE = 500  # the most messages per action that no worker can do: a user waits for it
MAX_ITEMS_SHOWN = 10  # the most items of a list that a page shows in part
#: Errors after which the provider is not waited for again, for the messages that follow.
KINDS_OF_THE_PROVIDER = WAITING_KINDS | {ErrorKind.UNKNOWN, ErrorKind.QUERY}


@dataclass(frozen=True)
class Outcome:
    """The result for a message.

    :param history: the text in its history, if it is another one
    :param waits: it is for a worker to do the rest
    :param mailing: the key of the mailing where the user can do more about it
    :param new: the key of the new message that it has made
    """

    what: Any
    why: Any = ""
    level: int = messages.SUCCESS
    history: Any = ""
    waits: bool = False
    mailing: int | None = None
    new: int | None = None

    @property
    def is_skipped(self) -> bool:
        return self.what is SKIPPED.what

    def __str__(self) -> str:
        return str(self.history or (f"{self.what}: {self.why}" if self.why else f"{self.what}."))


SKIPPED = Outcome(
    _("Skipped"),
    _("Already queued, being sent, finished or deleted."),
    messages.WARNING,
)
QUEUED = Outcome(_("Queued for sending"), waits=True)


def mailing_stopped(mailing: SmsMailing) -> Outcome:
    """Return the outcome of what the queue would only set aside again."""
    words = gettext(
        "Its mailing “%(name)s” is stopped, so it would only wait in the queue. Let the mailing go "
        "on, or send it from its own page."
    )
    return replace(SKIPPED, why=words % {"name": mailing}, mailing=mailing.pk)


class Mode(Enum):
    """How an action is done."""

    NOW = "one message after the other, while the user waits"
    QUEUE = "all together: the queue, and so the worker, gets them"
    REFUSED = "not at all, because there are too many"


def no_obstacles(messages: Sequence[Any]) -> dict[int, str]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Action:
    """Something that a user may do with messages of certain statuses.

    :param question: about one message
    :param questions: about several
    :param do: does it with one message, while the user waits
    :param hand_over: does it with many, or hands them to the worker
    :param handed_from: the statuses from which ``hand_over`` takes messages
    :param handed_over: the outcome of ``hand_over``
    :param handed_to: the status after ``hand_over``, also where another process was faster with it
    :param obstacles: returns by key why it is not done with some of these messages
    """

    name: str
    permission: str
    label: Any
    question: Any
    questions: Any
    statuses: frozenset[Status]
    do: Callable[[SmsMessage, Any], Outcome]
    hand_over: Callable[[SmsMessageQuerySet], int] | None = None
    handed_over: Outcome = SKIPPED
    handed_from: frozenset[Status] = frozenset()
    handed_to: Status | None = None
    costs: bool = False
    obstacles: Callable[[Sequence[Any]], dict[int, str]] = no_obstacles

    @property
    def most(self) -> int:
        """Return the number of messages for which the action is not refused."""
        return MAX_ONE_BY_ONE if self.hand_over is None else MAX_KEYS

    def mode(self, number: int) -> Mode:
        """Return how the action is done with this number of messages.

        The confirmation page and its POST both call this.
        """
        if number > self.most:
            return Mode.REFUSED
        if self.hand_over is None or number <= conf.send_at_once():
            return Mode.NOW
        return Mode.QUEUE

    def statuses_in(self, mode: Mode) -> frozenset[Status]:
        """Return the statuses of the messages with which it is done in this mode."""
        return self.handed_from if mode is Mode.QUEUE else self.statuses


def _send(message: SmsMessage, user: Any, only: Q = sending.NO_CONDITION) -> Outcome:
    if obstacle := SEND.obstacles([message]):
        return replace(SKIPPED, why=obstacle[message.pk])
    # "Now" was written by the clock of any host.
    later = message.send_after > max(clock.now(), timezone.now())
    if message.status == Status.DRAFT and later:
        return _hand_over(SEND, message, only)
    sending.send(message, only, exempt=True)  # a person has decided
    if message.status == Status.QUEUED:
        return QUEUED
    if message.status == Status.UNKNOWN:  # the answer came after its lease, and says that it was
        return Outcome(_("Unknown whether it was sent"), gettext(sending.PROVED), messages.ERROR)
    return Outcome(_("Sent"))


def send_as_saved(saved: SmsMessage) -> Action:
    """Return the action that sends this message with no other content than this.

    Another user may have saved the same draft a moment later.
    """
    only = Q(**{name: getattr(saved, name) for name in ("to", "body", "sender", "using")})
    return replace(SEND, do=partial(_send, only=only))


def _refresh(message: SmsMessage, user: Any) -> Outcome:
    message.refresh_status()
    status = message.get_status_display()
    history = gettext("Status queried: %s.") % status
    if message.status == Status.SENT:
        return Outcome(_("No final status yet"), level=messages.INFO, history=history)
    good = message.status == Status.DELIVERED
    level = messages.SUCCESS if good else messages.WARNING
    return Outcome(status.capitalize(), level=level, history=history)


def _cancel(message: SmsMessage, user: Any) -> Outcome:
    return _hand_over(CANCEL, message)


def _confirm_sent(message: SmsMessage, user: Any) -> Outcome:
    sending.confirm_sent(message)
    return Outcome(_("Marked as sent"), history=gettext("Marked as sent."))


NOT_SEEN: Mapping[int, str] = {}


def _resend(message: SmsMessage, user: Any, seen: Mapping[int, str] = NOT_SEEN) -> Outcome:
    if resending.fails_again(message) or resending.lacks_sender(message):
        return replace(SKIPPED, why=resending.obstacle(message))
    again = sending.resend(message, created_by=user, seen=seen.get(message.pk))
    log(user, [again], gettext("Created to send message %s again.") % message.pk)
    return Outcome(
        _("Queued again"),
        history=gettext("Sent again as message %s.") % again.pk,
        waits=True,
        new=again.pk,
    )


def resend_as_seen(text: str) -> Action:
    """Return the action that sends again what has the status that the page showed: one that was
    *unknown* there may have been reported as delivered since.

    :param text: the keys and statuses, as ``Plan.seen``
    """
    pairs = (one.partition(":") for one in text.split(",")[: MAX_ONE_BY_ONE + 1])
    seen = {key: status for pk, _colon, status in pairs for key in keys_among([pk])}
    return replace(RESEND, do=partial(_resend, seen=seen))


def hand_over_one(action: Action) -> Action:
    """Return the action that hands one message over, as this one hands many over."""

    def do(message: SmsMessage, user: Any) -> Outcome:
        return _hand_over(action, message)

    return replace(action, do=do, statuses=action.handed_from)


def _hand_over(action: Action, message: SmsMessage, only: Q = sending.NO_CONDITION) -> Outcome:
    assert action.hand_over is not None
    if action.name == SEND.name and (found := mailings.stopped([message.pk])):
        return mailing_stopped(found[message.pk])
    if obstacle := action.obstacles([message]):
        return replace(SKIPPED, why=obstacle[message.pk])
    moved = action.hand_over(rows([message.pk]).filter(only))
    message.refresh_from_db(using=write_db())
    if only and not moved:
        sending.require_unchanged(message)
    return action.handed_over if moved or message.status == action.handed_to else SKIPPED


SEND = Action(
    name="send",
    permission="send",
    label=_("Send"),
    question=_("Send this message?"),
    questions=_("Send these messages?"),
    statuses=frozenset({Status.DRAFT, Status.QUEUED}),
    do=_send,
    hand_over=sending.enqueue,
    handed_over=QUEUED,
    handed_from=frozenset({Status.DRAFT}),
    handed_to=Status.QUEUED,
    costs=True,
    obstacles=resending.obstacles_of_drafts,
)
REFRESH = Action(
    name="refresh",
    permission="refresh",
    label=_("Refresh status"),
    question=_("Refresh the status of this message? This queries the gateway."),
    questions=_("Refresh the status of these messages? This queries the gateway."),
    statuses=frozenset({Status.SENT}),
    do=_refresh,
    hand_over=delivery.query_soon,
    handed_over=Outcome(_("Queued for the worker"), _("A worker queries the status."), waits=True),
    handed_from=frozenset({Status.SENT}),
)
CONFIRM_SENT = Action(
    name="confirm_sent",
    permission="resend",
    label=_("Mark as sent"),
    question=_("Mark this message as sent? Only do this if you know that the gateway accepted it."),
    questions=_(
        "Mark these messages as sent? Only do this if you know that the gateway accepted them."
    ),
    statuses=frozenset({Status.UNKNOWN}),
    do=_confirm_sent,
)
RESEND = Action(
    name="resend",
    permission="resend",
    label=_("Send again"),
    question=_("Send the same text again as a new message? You will be charged again."),
    questions=_("Send the same texts again as new messages? You will be charged again."),
    statuses=frozenset(sending.RESENDABLE),
    do=_resend,
    costs=True,
    obstacles=resending.obstacles,
)
CANCEL = Action(
    name="cancel",
    permission="change",
    label=_("Cancel sending"),
    question=_("Cancel sending this message? This cannot be undone."),
    questions=_("Cancel sending these messages? This cannot be undone."),
    statuses=frozenset({Status.DRAFT, Status.QUEUED}),
    do=_cancel,
    hand_over=sending.cancel,
    handed_over=Outcome(_("Cancelled")),
    handed_from=frozenset({Status.DRAFT, Status.QUEUED}),
    handed_to=Status.CANCELLED,
)
ACTIONS = (SEND, REFRESH, CONFIRM_SENT, RESEND, CANCEL)


def run_action(
    action: Action, message: SmsMessage, user: Any, may: Callable[[], bool], failing: set[str]
) -> Outcome:
    """Do the action with one of many messages and return its outcome, also after any error.

    :param may: whether this user may do it
    :param failing: the providers that had an error of their own. Their other messages are handed
        to the worker, if the action can be handed over.
    """
    try:
        if message.status not in action.statuses or not may():
            return SKIPPED
        if message.using in failing and action.hand_over is not None:
            return _apart(lambda: _hand_over(action, message))
        return _apart(lambda: action.do(message, user))
    except Exception as error:
        concerns_it = getattr(error, "kind", "") in KINDS_OF_THE_PROVIDER
        if concerns_it and getattr(error, "code", "") not in circuit_breaker.NOT_COUNTED:
            failing.add(message.using)
        return outcome_of(message, error)


def _apart(do: Callable[[], Outcome]) -> Outcome:
    """Run in a savepoint, if a transaction is open, so that an error concerns one message only."""
    if not in_atomic_block():
        return repeat_conflicts(do)
    failure: Exception
    with transaction.atomic(using=write_db()):
        try:
            return do()
        except DatabaseError:
            raise
        except Exception as error:  # what was stored about it is not rolled back
            failure = error
    raise failure


def crashed(keys: list[int] | int, error: Exception) -> Outcome:
    """Return the outcome of an error that is none of ours. Its text, which may hold the request, is
    left out."""
    name = type(error).__name__
    several = keys if isinstance(keys, list) else [keys]
    extra = log_fields.of_messages(several, "", name)
    logger.error("an action on messages %s failed: %s", keys, name, extra=extra)
    why = gettext("This site had an error (%s). Look at the message before you try again.") % name
    return Outcome(_("Not finished"), why, messages.ERROR)


def outcome_of(message: SmsMessage, error: Exception) -> Outcome:
    """Return the outcome of an action on a message that has raised this."""
    if isinstance(error, SmsMessage.DoesNotExist):
        return SKIPPED
    if isinstance(error, WrongStatus) and not error.code:  # a code has words of its own
        return SKIPPED
    if isinstance(error, ValidationError):
        return Outcome(_("Not done"), " ".join(error.messages), messages.ERROR)
    if isinstance(error, InvalidProvider):
        why = gettext("The provider “%s” is not set up correctly. Ask your administrator.")
        return Outcome(_("Not done"), why % message.using, messages.ERROR)
    if isinstance(error, RecipientOptedOut) and sending.was_opted_out(message):
        return Outcome(_("Cancelled"), error_words(error.summary), messages.WARNING)
    if not isinstance(error, SmsError):
        return crashed(message.pk, error)
    stays_queued = False
    if isinstance(error.__cause__, SmsNotSent):  # see SmsMessage.send()
        error, stays_queued = error.__cause__, True
    ours = str(error.args[0]) if error.args else str(error.summary)
    address = error.text.partition(SAID)[0].removeprefix(ours) if error.args else ""
    why = error_words(withhold(ours, [message.body]) + address)  # a third party's, perhaps
    if stays_queued:
        return Outcome(_("Not sent yet; it stays in the queue"), why, messages.WARNING)
    if isinstance(error, SmsOutcomeUnknown):
        return Outcome(_("Unknown whether it was sent"), why, messages.ERROR)
    what = _("Not sent") if isinstance(error, SmsNotSent) else _("Not done")
    return Outcome(what, why, messages.ERROR)


def log(user: Any, affected: Sequence[Any], text: str) -> None:
    """Write into the histories of the messages, or of a provider. A failure is logged and undoes no
    action."""
    try:
        with transaction.atomic(using=router.db_for_write(LogEntry)):
            LogEntry.objects.log_actions(user.pk, affected, CHANGE, text)
    except Exception as error:
        pks = [one.pk for one in affected]
        extra = log_fields.of_messages(pks, "", type(error).__name__)
        words = "no history entry for messages %s: %s"
        logger.error(words, pks, type(error).__name__, extra=extra)


def read_keys(text: str) -> list[int]:
    """Return the keys in ``"17,18"``. One more than any action accepts is enough to refuse it."""
    return keys_among(text.split(","))[: MAX_KEYS + 1]


def keys_among(texts: Iterable[str]) -> list[int]:
    """Return those of the texts that can be keys."""
    return sorted({int(text) for text in texts if re.fullmatch(r"[0-9]{1,18}", text)})


class Plan:
    """What an action would do with the chosen messages, for users to read before they agree.

    :param names_opted_out: which of them are on the do-not-send list, for a user who may see whole
        numbers; others could find them out here, by drafts to numbers that fit a mask
    """

    def __init__(
        self, action: Action, chosen: QuerySet[SmsMessage], *, names_opted_out: bool
    ) -> None:
        wanted: tuple[str, ...] = ("pk", "status", "using", "segments", "send_after", "sensitive")
        wanted += ("erased_at", "to", "sender", "despite_opt_out", "finished_at")
        wanted += ("error_code", "error_text", "gateway_id")
        found = list(chosen.order_by("pk").values_list(*wanted, named=True)[: action.most + 1])
        self.chosen = [row.pk for row in found]
        fit = [row for row in found if row.status in action.statuses]
        against = action.obstacles(fit)
        fit = [row for row in fit if row.pk not in against]
        possible = action.statuses_in(action.mode(len(fit)))
        fit = [row for row in fit if row.status in possible]
        is_queued = action.name == SEND.name and action.mode(len(fit)) is Mode.QUEUE
        waiting = mailings.stopped(row.pk for row in fit) if is_queued else {}
        fit = [row for row in fit if row.pk not in waiting]
        self.stopped = sorted(Counter(waiting.values()).items(), key=lambda one: one[0].pk)
        # The POST gets these keys, and finds the mode of their number again.
        self.mode = Mode.REFUSED if len(found) > action.most else action.mode(len(fit))
        self.most = conf.send_at_once()
        keys = {row.pk for row in fit}
        left = [row for row in found if row.pk not in keys]
        shown = {*against, *waiting}
        others = Counter(Status(row.status).label for row in left if row.pk not in shown)
        self.skipped = sorted(others.items())
        self.obstacles = sorted(Counter(against.values()).items())
        self.left_out = [row.pk for row in left[: MAX_ITEMS_SHOWN + 1]]
        self.warnings = resending.warnings(fit) if action.name == RESEND.name else []
        self.number, self.segments = len(fit), sum(row.segments for row in fit)
        self.question = action.question if self.number == 1 else action.questions
        self.first = [row.pk for row in fit[:MAX_ITEMS_SHOWN]]
        self.names_opted_out = names_opted_out
        listed = opt_out.refused(fit if action.costs and names_opted_out else [])
        self.opted_out = {row.pk for row, is_listed in zip(fit, listed, strict=False) if is_listed}
        self.pks = ",".join(str(row.pk) for row in fit)
        shows = fit if action.name == RESEND.name else []
        self.seen = ",".join(f"{row.pk}:{row.status}" for row in shows)
        self.later = sum(row.send_after > timezone.now() for row in fit)
        self.providers = [
            _of_provider(alias, [row for row in fit if row.using == alias], costs=action.costs)
            for alias in sorted({row.using for row in fit})
        ]

    @property
    def held(self) -> bool:
        """Return whether all of the providers are paused or stopped."""
        return all(provider["paused"] or provider["stopped"] for provider in self.providers)

    @property
    def lacks_worker(self) -> bool:
        return any(provider["has_no_worker"] for provider in self.providers)

    @property
    def handed_over(self) -> bool:
        return self.mode is Mode.QUEUE


def _of_provider(alias: str, found: list[Any], *, costs: bool) -> dict[str, Any]:
    state = circuit_breaker.state_of(alias)
    segments = sum(row.segments for row in found)
    return {
        "state": state,
        "number": len(found),
        "segments": segments,
        "cost": cost_of(state, segments) if costs else Cost(),
        "balance": balance_words(state),
        "paused": paused_words(state),
        "stopped": stop_of(alias),
        "has_no_worker": handover.lacks_sender(state),
    }

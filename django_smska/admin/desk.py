"""What the admin's list says above the messages: who needs a person, and how the providers are.

A handful of queries, each bounded, however long the table is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext, ngettext

from .. import brakes, conf
from ..models import ProviderState, SmsMessage, SmsMessageQuerySet
from ..providers import providers
from ..states import Status
from .deeds import balance_words, paused_words, worker_away

RECENT = timedelta(days=7)  # a failure that nobody looked at in a week needs nobody any more
COUNTED = 99  # people who have a hundred to look at need no exact number
LOOKED_AT = 500  # of each kind, at most
PATIENCE = timedelta(minutes=2)  # for which queued messages may wait without a word


@dataclass(frozen=True)
class Line:
    """One line above the list. ``query``: the part of the list that it speaks of."""

    words: str
    warns: bool = False
    query: str = ""


def needing_a_person(messages: SmsMessageQuerySet) -> SmsMessageQuerySet:
    """Unknown ones, and those that failed in the last week, unless they were sent again; the
    newest ``LOOKED_AT`` of both kinds, so that the list is as quick in a long table."""
    return messages.filter(pk__in=[*_needing(Status.UNKNOWN), *_needing(Status.FAILED)])


def _needing(status: Status, most: int | None = None) -> list[Any]:
    """The keys of those of this status, among the newest ``most``.

    Each condition that an index cannot serve comes after the limit: in one query, PostgreSQL joins
    whole tables first.
    """
    since = timezone.now() - RECENT
    newest = SmsMessage.objects.filter(status=status).order_by("-id")
    found = [
        pk
        for pk, finished in newest.values_list("pk", "finished_at")[: most or LOOKED_AT]
        if status == Status.UNKNOWN or (finished is not None and finished >= since)
    ]
    again = SmsMessage.objects.filter(resend_of__in=found).order_by()
    resent = set(again.values_list("resend_of_id", flat=True)) if found else set()
    return [pk for pk in found if pk not in resent]


def lines() -> list[Line]:
    """All that there is to say now."""
    states = {state.alias: state for state in brakes.states_of(providers)}
    found: list[Line | None] = [_needing_line()]
    for alias in providers:
        found += _of_provider(states.get(alias) or ProviderState(alias=alias))
    return [line for line in found if line is not None]


def _needing_line() -> Line | None:
    number = sum(len(_needing(s, COUNTED + 1)) for s in (Status.UNKNOWN, Status.FAILED))
    if not number:
        return None
    words = ngettext(
        "%(number)s message needs a person", "%(number)s messages need a person", number
    )
    shown: Any = number if number <= COUNTED else gettext("more than %s") % COUNTED
    return Line(words % {"number": shown}, warns=True, query="needs=person")


def _of_provider(state: ProviderState) -> list[Line]:
    """Its balance, and what ails it."""
    name = {"name": state.alias}
    found = [_balance(state)] if state.balance is not None else []
    if state.is_paused:
        told = {**name, "why": paused_words(state)}
        found.append(Line(gettext("“%(name)s” is paused. %(why)s") % told, warns=True))
    elif worker_away(state) and _waiting(state.alias):
        words = gettext(
            "Messages wait for “%(name)s”, and nothing sends them: tell your administrator that "
            "sms_worker must run."
        )
        found.append(Line(words % name, warns=True, query="status__exact=queued"))
    return found


def _balance(state: ProviderState) -> Line:
    told = {"name": state.alias, "balance": balance_words(state)}
    if state.balance is not None and state.balance < conf.low_balance():
        words = gettext("Balance of “%(name)s”: %(balance)s. That is low: top up the account.")
        return Line(words % told, warns=True)
    return Line(gettext("Balance of “%(name)s”: %(balance)s") % told)


def _waiting(alias: str) -> bool:
    late = timezone.now() - PATIENCE
    queued = SmsMessage.objects.filter(status=Status.QUEUED, using=alias, send_after__lte=late)
    return queued.order_by().exists()

"""What the admin's list says above the messages: who needs a person, and how the providers are.

A handful of queries, each bounded, however long the table is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext, ngettext

from .. import circuit_breaker, conf
from ..models import ProviderState, SmsMessage, SmsMessageQuerySet
from ..providers import providers
from ..states import Status
from .actions import balance_words, has_no_worker, paused_words

RECENT = timedelta(days=7)  # a failure that nobody looked at in a week needs nobody any more
MAX_COUNT = 99  # people who have a hundred to look at need no exact number
MAX_EXAMINED = 500  # of each kind, at most
QUEUED_GRACE = timedelta(minutes=2)  # for which queued messages may wait without a word


@dataclass(frozen=True)
class Alert:
    """One line above the list. ``query``: the part of the list that it speaks of."""

    words: str
    warns: bool = False
    query: str = ""


def needing_attention(messages: SmsMessageQuerySet) -> SmsMessageQuerySet:
    """Unknown ones, and those that failed in the last week, unless they were sent again; the
    newest ``MAX_EXAMINED`` of both kinds, so that the list is as quick in a long table."""
    return messages.filter(
        pk__in=[*_keys_needing_attention(Status.UNKNOWN), *_keys_needing_attention(Status.FAILED)]
    )


def _keys_needing_attention(status: Status, most: int | None = None) -> list[Any]:
    """The keys of those of this status, among the newest ``most``.

    Each condition that an index cannot serve comes after the limit: in one query, PostgreSQL joins
    whole tables first.
    """
    since = timezone.now() - RECENT
    newest = SmsMessage.objects.filter(status=status).order_by("-id")
    found = [
        pk
        for pk, finished in newest.values_list("pk", "finished_at")[: most or MAX_EXAMINED]
        if status == Status.UNKNOWN or (finished is not None and finished >= since)
    ]
    again = SmsMessage.objects.filter(resend_of__in=found).order_by()
    resent = set(again.values_list("resend_of_id", flat=True)) if found else set()
    return [pk for pk in found if pk not in resent]


def alerts() -> list[Alert]:
    """All that there is to say now."""
    states = {state.alias: state for state in circuit_breaker.states_of(providers)}
    found: list[Alert | None] = [_needing_line()]
    for alias in providers:
        found += _of_provider(states.get(alias) or ProviderState(alias=alias))
    return [line for line in found if line is not None]


def _needing_line() -> Alert | None:
    number = sum(
        len(_keys_needing_attention(s, MAX_COUNT + 1)) for s in (Status.UNKNOWN, Status.FAILED)
    )
    if not number:
        return None
    words = ngettext(
        "%(number)s message needs a person", "%(number)s messages need a person", number
    )
    shown: Any = number if number <= MAX_COUNT else gettext("more than %s") % MAX_COUNT
    return Alert(words % {"number": shown}, warns=True, query="needs=person")


def _of_provider(state: ProviderState) -> list[Alert]:
    """Its balance, and what ails it."""
    name = {"name": state.alias}
    found = [_balance(state)] if state.balance is not None else []
    if state.is_paused:
        told = {**name, "why": paused_words(state)}
        found.append(Alert(gettext("“%(name)s” is paused. %(why)s") % told, warns=True))
    elif has_no_worker(state) and _waiting(state.alias):
        words = gettext(
            "Messages wait for “%(name)s”, and nothing sends them: tell your administrator that "
            "sms_worker must run."
        )
        found.append(Alert(words % name, warns=True, query="status__exact=queued"))
    return found


def _balance(state: ProviderState) -> Alert:
    told = {"name": state.alias, "balance": balance_words(state)}
    if state.balance is not None and state.balance < conf.low_balance():
        words = gettext("Balance of “%(name)s”: %(balance)s. That is low: top up the account.")
        return Alert(words % told, warns=True)
    return Alert(gettext("Balance of “%(name)s”: %(balance)s") % told)


def _waiting(alias: str) -> bool:
    late = timezone.now() - QUEUED_GRACE
    queued = SmsMessage.objects.filter(status=Status.QUEUED, using=alias, send_after__lte=late)
    return queued.order_by().exists()

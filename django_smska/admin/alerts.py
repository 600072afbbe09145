"""The alerts above the admin's list: messages that need attention, and the providers' states.

A handful of queries, each bounded, however long the table is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Exists, OuterRef
from django.utils import timezone
from django.utils.translation import gettext, ngettext

from .. import circuit_breaker, clock, conf, held_queue, kill_switch, pricing
from ..checked_backend import has_balance
from ..models import ProviderState, SmsMailing, SmsMessage
from ..providers import providers
from ..states import Status
from . import waiting
from .wording import ask_words, balance_words, nothing_sent_words

MAX_COUNT = 99  # above it, the number is not counted exactly
MAX_HELD_COUNT = 9999  # the same, of held messages
BALANCE_GRACE = timedelta(hours=1)  # the age from which a balance may be asked for again


@dataclass(frozen=True)
class Alert:
    """One line above the list.

    :param query: the filter that shows the messages it is about
    :param button: the label of a button that asks a provider for its balance; it has one where the
        provider is paused, or its balance is low or old
    :param alias: of that provider
    :param url: the page that it is about, instead of a filter
    """

    words: str
    warns: bool = False
    query: str = ""
    button: str = ""
    alias: str = ""
    url: str = ""


def alerts() -> list[Alert]:
    """Return the present alerts."""
    needing = _needing_line()
    return [*([needing] if needing else []), *of(providers)]


def of(aliases: Iterable[str]) -> list[Alert]:
    """Return what there is to say of these providers, and of all of them together."""
    aliases = list(aliases)
    states = {state.alias: state for state in circuit_breaker.states_of(aliases)}
    stops = kill_switch.stops()
    about = {*aliases, kill_switch.EVERY}
    found: list[Alert | None] = [_stop(one, row) for one, row in stops.items() if one in about]
    for alias in aliases:
        state = states.get(alias) or ProviderState(alias=alias)
        found += _of_provider(state, stopped=bool({alias, kill_switch.EVERY} & stops.keys()))
    return [line for line in found if line is not None]


def stopped_line(key: str | None, url: Callable[..., str]) -> Alert | None:
    """Return the line about stopped mailings, or None.

    :param key: that of the one to look at; None for all of which drafts wait
    :param url: returns the address of a page of mailings
    """
    stopped = SmsMailing.objects.exclude(stopped_at=None).order_by("-pk")
    drafts = SmsMessage.objects.filter(mailing=OuterRef("pk"), status=Status.DRAFT)
    chosen = stopped.filter(Exists(drafts.order_by())) if key is None else stopped.filter(pk=key)
    found = list(chosen.values_list("pk", "name")[: MAX_COUNT + 1])
    if not found:
        return None
    if len(found) == 1:
        [(pk, name)] = found
        words = gettext("The mailing “%s” is stopped. Its messages wait until you let it go on.")
        return Alert(words % name, warns=True, url=url("change", pk))
    shown: Any = len(found) if len(found) <= MAX_COUNT else gettext("more than %s") % MAX_COUNT
    words = ngettext(
        "%s mailing is stopped. Its messages wait until you let it go on.",
        "%s mailings are stopped. Their messages wait until you let them go on.",
        len(found),
    )
    return Alert(words % shown, warns=True, url=url("changelist"))


def _needing_line() -> Alert | None:
    number = len(SmsMessage.objects.needing_attention(timezone.now(), most=MAX_COUNT + 1))
    if not number:
        return None
    words = ngettext(
        "%(number)s message needs attention", "%(number)s messages need attention", number
    )
    shown: Any = number if number <= MAX_COUNT else gettext("more than %s") % MAX_COUNT
    return Alert(words % {"number": shown}, warns=True, query="needs=attention")


def _stop(alias: str, row: ProviderState | None) -> Alert:
    return Alert(nothing_sent_words(alias, row), warns=True, query="status__exact=queued")


def _hold(alias: str) -> Alert | None:
    number = held_queue.number_held(alias, most=MAX_HELD_COUNT + 1)
    if not number:
        return None
    shown: Any = number if number <= MAX_HELD_COUNT else gettext("more than %s") % MAX_HELD_COUNT
    words = ngettext(
        "%(number)s message of “%(name)s” is held until a person releases or cancels it, because "
        "no worker was seen for a long time.",
        "%(number)s messages of “%(name)s” are held until a person releases or cancels them, "
        "because no worker was seen for a long time.",
        number,
    )
    parts = {"number": shown, "name": alias}
    return Alert(words % parts, warns=True, query="status__exact=queued")


def _of_provider(state: ProviderState, *, stopped: bool) -> list[Alert | None]:
    """Return the alerts about one provider: its balance and its problems.

    :param stopped: nothing is sent through it, which has an alert of its own
    """
    found: list[Alert | None] = []
    balance = pricing.balance_of(state)
    if balance is not None:
        found.append(_balance(state, balance))
    found += [_hold(state.alias)] if state.held_before is not None else []
    if stopped:
        return found
    is_late = circuit_breaker.has_no_worker(state) and _waiting(state.alias)
    if why := waiting.of_provider(state, is_late=is_late):
        query = "" if state.is_paused else "status__exact=queued"
        button = ask_words(state, has_balance=has_balance(state.alias)) if state.is_paused else ""
        found.append(Alert(why, warns=True, query=query, button=button, alias=state.alias))
    return found


def _balance(state: ProviderState, balance: Decimal) -> Alert:
    parts = {"name": state.alias, "balance": balance_words(state)}
    is_old = state.balance_at is not None and state.balance_at < clock.now() - BALANCE_GRACE
    is_low = balance < conf.low_balance()
    words = gettext("Balance of “%(name)s”: %(balance)s")
    if is_low:
        words = gettext("Balance of “%(name)s”: %(balance)s. That is low: top up the account.")
    button = ask_words(state) if (is_low or is_old) and not state.is_paused else ""
    return Alert(words % parts, warns=is_low, button=button, alias=state.alias)


def _waiting(alias: str) -> bool:
    late = timezone.now() - waiting.QUEUED_GRACE
    queued = SmsMessage.objects.filter(status=Status.QUEUED, using=alias, send_after__lte=late)
    return queued.order_by().exists()

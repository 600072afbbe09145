"""Asking a provider for its balance in the admin, so that a pause ends where it may."""

from __future__ import annotations

import logging
from decimal import Decimal
from typing import Any

from django.contrib import messages
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .. import checked_backend, circuit_breaker, conf, log_fields, pricing
from ..circuit_breaker import Finding
from ..exceptions import ErrorKind, InvalidProvider, SmsError
from ..models import ProviderState
from . import permissions
from .actions import log
from .wording import amount, ask_words, balance_words, error_words, nothing_sent_through

logger = logging.getLogger(__name__)

#: What an answer shows about a pause, in words.
FINDINGS: dict[Finding | None, Any] = {
    None: "",
    Finding.OVER: _("Its pause is ended."),
    Finding.EMPTY: _("It stays paused, because the account is empty. Top it up, then ask again."),
    Finding.NOTHING: _(
        "It stays paused, because a balance does not show that messages leave. The next message "
        "tries it. When that is accepted, the others follow."
    ),
}
WRONG_SETTINGS = _(
    "“%(name)s” cannot be used, because its settings are wrong. Ask your administrator to run "
    "“manage.py check”."
)


def line_of(state: ProviderState) -> dict[str, Any]:
    """Return what the page shows of one provider."""
    alias = state.alias
    try:
        backend = checked_backend.provider(alias)
        why, button = _why_not(backend), ask_words(state, has_balance=backend.has_balance)
    except InvalidProvider:
        why, button = WRONG_SETTINGS % {"name": alias}, ""
    return {
        "alias": alias,
        "balance": balance_words(state),
        "button": button,
        "why": "" if button else why,
        "risks_account": state.is_paused and state.reason == ErrorKind.ACCOUNT,
    }


def _why_not(backend: checked_backend.CheckedBackend) -> str:
    if backend.members:
        return gettext("Each of its providers is asked on its own.")
    return gettext("It has no balance.")


def ask(user: Any, alias: str) -> tuple[str, int]:
    """Ask a provider, and return what came of it and the level of the message."""
    if conf.sends_nothing():
        words = gettext("No provider is asked, because this site runs as in a test (%s).")
        return words % conf.TEST_RUN, messages.ERROR
    try:
        balance = circuit_breaker.ask(checked_backend.provider(alias))
    except InvalidProvider as error:
        logger.error("%s", error, extra=log_fields.of_provider(alias, error.check))
        return WRONG_SETTINGS % {"name": alias}, messages.ERROR
    except SmsError as error:
        words = gettext("“%(name)s” did not report its balance. %(why)s")
        return words % {"name": alias, "why": _why(user, alias, error)}, messages.ERROR
    shown = circuit_breaker.settle(alias, balance)
    words = " ".join(filter(None, _found(alias, balance, shown)))
    log(user, list(circuit_breaker.states_of([alias])), words)
    waits = shown in (Finding.EMPTY, Finding.NOTHING)
    return words, messages.WARNING if waits else messages.SUCCESS


def _why(user: Any, alias: str, error: SmsError) -> str:
    return error_words(permissions.detail_for(user, ProviderState(alias=alias), error.text))


def _found(alias: str, balance: Decimal | None, shown: Finding | None) -> list[str]:
    """Return sentences: the balance, what it shows about a pause, and whether there is a stop."""
    name = {"name": alias}
    if balance is None:
        words = gettext("“%(name)s” has no balance to ask for.") % name
    else:
        parts = {**name, "balance": amount(balance, pricing.unit_of_balance(alias))}
        words = gettext("The balance of “%(name)s” is %(balance)s.") % parts
    return [words, str(FINDINGS[shown]), nothing_sent_through(alias)]

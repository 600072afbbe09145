"""Circuit breaker: pause a failing provider for all workers, and keep its queue.

A wrong login, an empty account and a gateway that cannot be reached pause a provider immediately.
Several unknown outcomes in a row pause it too, and so do several failures of its backend. A paused
provider is probed by a balance query. Where that cannot show that it works again, one message is
tried.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from typing import NamedTuple

from django.db.models import F, Q, QuerySet

from . import clock, conf, database_slots, kill_switch, log_fields, states
from .backends.failover import NONE_OPEN
from .checked_backend import CheckedBackend
from .exceptions import (
    AGAIN,
    AuthenticationFailed,
    ErrorKind,
    GatewayBusy,
    GatewayUnreachable,
    InsufficientCredits,
    ProviderFailed,
    SmsError,
    SmsNotSent,
    gettext_noop,
)
from .models import ProviderState, provider_states
from .receipts import Receipt
from .times import clock_time

logger = logging.getLogger(__name__)


HEARTBEAT_INTERVAL = timedelta(minutes=1)
NOT_COUNTED = ("paused", "stopped")  # the codes of our own refusals
#: Pauses after failures that a balance query does not have: only a message shows that they end.
PROBED_BY_A_SEND = (states.HANGING, ErrorKind.BROKEN)


def states_of(aliases: Iterable[str]) -> QuerySet[ProviderState]:
    """Return the states of these providers; healthy ones may have no row."""
    return provider_states().filter(alias__in=list(aliases))


def paused(*, but_for: str = "") -> list[str]:
    """Return the aliases of the providers that are paused.

    :param but_for: a reason whose pauses do not matter
    """
    found = provider_states().exclude(paused_at=None).exclude(reason=but_for)
    return list(found.values_list("alias", flat=True))


def has_no_worker(state: ProviderState) -> bool:
    """Return whether no worker has been seen for a while, so that messages would stay queued."""
    seen = state.worker_seen_at
    return not seen or seen < clock.now() - 5 * HEARTBEAT_INTERVAL


def state_of(alias: str) -> ProviderState:
    """Return the state of this provider; one without a row is healthy."""
    return provider_states().filter(alias=alias).first() or ProviderState(alias=alias)


def note(alias: str, outcome: Receipt | SmsError) -> None:
    """Count the outcome of an attempt. Of a failover, each member is counted on its own."""
    if conf.sends_nothing():  # it was kept in memory, which says nothing about the provider
        return
    for refusal in outcome.refused:
        if isinstance(refusal, SmsError):
            note_error(refusal.alias or alias, refusal)
    if isinstance(outcome, SmsError):
        note_error(outcome.alias or alias, outcome)
    else:
        note_success(outcome.alias or alias, outcome.balance)


def note_error(alias: str, error: SmsError) -> None:
    """Count an error against the provider, and pause it where its kind says so.

    Our own refusals, of code "paused" or "stopped", do not count.

    :param alias: of the provider that it concerns
    """
    if error.code in NOT_COUNTED:
        return
    reason = states.HANGING if error.kind == ErrorKind.UNKNOWN else str(error.kind)
    if reason not in states.PAUSE_SECONDS:
        if error.answered:
            note_success(alias)
        return
    provider_states().get_or_create(alias=alias)
    same = provider_states().filter(alias=alias, reason=reason).update(failures=F("failures") + 1)
    if not same:
        free = Q(paused_at=None) | Q(reason__in=states.milder(reason))
        provider_states().filter(free, alias=alias).update(reason=reason, failures=1, probes=0)
    pauses = reason in states.STOPPING_KINDS
    if pauses or state_of(alias).failures >= states.FAILURES_BEFORE_PAUSE:
        _pause(alias, reason, error)


def note_success(alias: str, balance: Decimal | None = None) -> None:
    """Forget the failures, because the provider answered as it should; keep its balance."""
    if balance is not None and _keep_balance(provider_states().filter(reason=""), alias, balance):
        return  # one query, in the usual case: there was nothing to forget
    if _forget(alias):
        logger.warning("provider %s answers again", alias, extra=log_fields.of_provider(alias))
    if balance is not None:
        note_balance(alias, balance)


def take_back(alias: str) -> None:
    """Count one unknown outcome less, because it has become known; end a pause that too few are
    left for."""
    hanging = provider_states().filter(alias=alias, reason=states.HANGING)
    if not hanging.filter(failures__gt=0).update(failures=F("failures") - 1):
        return
    few = hanging.filter(failures__lt=states.FAILURES_BEFORE_PAUSE).exclude(paused_at=None)
    if few.update(paused_at=None, probe_at=None, probes=0):
        words = "provider %s is open again: its answers were lost, not its messages"
        logger.warning(words, alias, extra=log_fields.of_provider(alias))


def note_balance(alias: str, balance: Decimal) -> None:
    """Keep a balance for people to see; nothing is computed from it."""
    if not _keep_balance(provider_states(), alias, balance):
        defaults = {"balance": balance, "balance_at": clock.now()}
        provider_states().get_or_create(alias=alias, defaults=defaults)


def resume(alias: str) -> None:
    """End a pause, because a person says so."""
    if provider_states().filter(alias=alias).exclude(paused_at=None).exists():
        _forget(alias)
        logger.warning("provider %s is open again", alias, extra=log_fields.of_provider(alias))


def _forget(alias: str) -> bool:
    """Forget the failures; return whether that ended a pause."""
    failing = provider_states().filter(alias=alias).exclude(reason="")
    found = failing.values_list("paused_at").first()
    if found is None:  # as a rule
        return False
    (paused_at,) = found
    same = failing.filter(paused_at=paused_at)  # a pause that begins now stays
    forgot = same.update(reason="", detail="", failures=0, probes=0, paused_at=None, probe_at=None)
    return bool(forgot and paused_at)


def _keep_balance(states: QuerySet[ProviderState], alias: str, balance: Decimal) -> bool:
    return bool(states.filter(alias=alias).update(balance=balance, balance_at=clock.now()))


def may_send(backend: CheckedBackend) -> bool:
    """Return whether messages may leave; probe a paused provider when it is time to, and never one
    that is stopped.

    Queries the balance, so it must not be called inside a transaction. Of a failover each member
    is probed, and those that are paused are not tried. A backend without a network is never paused.
    """
    if not backend.members and _is_open(backend.alias):
        return True
    if kill_switch.is_stopped(backend):
        return False
    if backend.members:
        closed = [member.alias for member in backend.members if not may_send(member)]
        backend.skip(closed)
        return len(closed) < len(backend.members)
    if not backend.uses_network:  # the pause is of another backend, which had this alias before
        return True
    state = state_of(backend.alias)
    return not state.is_paused or (_may_probe(state) and probe(backend))


def _is_open(alias: str) -> bool:
    """Return whether a provider is neither paused nor stopped; it is one short query."""
    rows = provider_states().filter(alias__in=(alias, kill_switch.EVERY))
    closed = rows.exclude(paused_at=None, stopped_at=None)
    return alias not in conf.stopped() and not closed.exists()


def may_go_on(backend: CheckedBackend) -> bool:
    """Return whether more messages may leave after an error was noted. Queries no provider."""
    closed = _closed(backend, _paused(backend))
    backend.skip(closed)
    return closed < _aliases(backend)


def probe(backend: CheckedBackend) -> bool:
    """Query the balance; return whether a message may be tried.

    A good answer opens the provider for all where it shows that what paused it is over. Where it
    shows nothing, the caller alone tries a message, whose success opens the provider. Failures are
    kept until a message is accepted; another failure pauses it again immediately, for longer.
    """
    alias = backend.alias
    if not backend.has_balance:
        return True
    try:
        with database_slots.released():
            balance = backend.get_balance()
    except SmsError as error:
        if error.kind == ErrorKind.BROKEN:
            return True  # its backend cannot query, which says nothing of the gateway
        extra = log_fields.of_provider(alias, error.code)
        logger.warning("provider %s stays paused: %s", alias, error, extra=extra)
        if error.kind in states.STOPPING_KINDS:
            note_error(alias, error)
        return False
    note_balance(alias, balance)
    shown = finding(state_of(alias).reason, balance)
    return _open(alias) if shown is Finding.OVER else shown is Finding.NOTHING


def _open(alias: str) -> bool:
    provider_states().filter(alias=alias).update(paused_at=None, probe_at=None)
    logger.warning("provider %s is open again", alias, extra=log_fields.of_provider(alias))
    return True


def admit(backend: CheckedBackend, *, may_ask: bool = True) -> None:
    """Raise ``SmsNotSent`` at once, for a caller who waits, while the provider is paused or
    stopped.

    When the next probe is due, one caller probes and goes on, and the others are still refused, so
    that a provider also opens again where no worker runs.

    :param may_ask: False inside a transaction, where no network may be waited for; the probe is
        left for after the commit
    """
    if not (may_send(backend) if may_ask else _is_probe_due(backend)):
        refusal = _refusal(backend)
        if refusal is not None:
            raise refusal


def _is_probe_due(backend: CheckedBackend) -> bool:
    if kill_switch.is_stopped(backend):
        return False
    not_due = _paused(backend).filter(probe_at__gt=clock.now())
    return _closed(backend, not_due) < _aliases(backend)


def _refusal(backend: CheckedBackend) -> SmsNotSent | None:
    """Return why it is stopped, or why and until when it is paused; None if it was opened in the
    meantime."""
    if (stop := kill_switch.refusal(backend)) is not None:
        return stop
    paused = _paused(backend)
    if not paused or _closed(backend, paused) < _aliases(backend):
        return None
    pause = None if backend.members else PAUSES.get(paused[0].reason)
    cls, why = (pause.error, pause.refusal) if pause else (GatewayUnreachable, NONE_OPEN)
    probes = [state.probe_at for state in paused if state.probe_at is not None]
    again = f"{AGAIN}{clock_time(min(probes))}." if probes else ""
    return cls(f"{why}{again}", alias=backend.alias, code="paused")


def _aliases(backend: CheckedBackend) -> set[str]:
    """Return the providers that answer for a message: those of a failover, or the one itself."""
    return {member.alias for member in backend.members} or {backend.alias}


def _paused(backend: CheckedBackend) -> QuerySet[ProviderState]:
    """Return the states of those that are paused and whose backends use a network."""
    pausable = {one.alias for one in backend.members or [backend] if one.uses_network}
    return states_of(pausable).exclude(paused_at=None)


def _closed(backend: CheckedBackend, paused: Iterable[ProviderState]) -> set[str]:
    """Return the aliases of these, and of those that are stopped."""
    return {state.alias for state in paused} | kill_switch.stopped(_aliases(backend))


class Finding(Enum):
    """What an answer to a balance query shows about the pause of its provider."""

    OVER = "over"  # what paused it is over
    EMPTY = "empty"  # the account is still empty
    NOTHING = "nothing"  # only a message can show more


def finding(reason: str, balance: Decimal) -> Finding:
    """Return what this balance shows about a pause for this reason."""
    if reason == ErrorKind.FUNDS and balance <= 0:
        return Finding.EMPTY
    return Finding.NOTHING if reason in PROBED_BY_A_SEND else Finding.OVER


def ask(backend: CheckedBackend) -> Decimal | None:
    """Query the balance, because a person wants it; ``None`` where the provider has none.

    It must not be called inside a transaction. Raises ``SmsError`` for an unusable answer.
    """
    if not backend.has_balance:
        return None
    with database_slots.released():
        return backend.get_balance()


def settle(alias: str, balance: Decimal | None) -> Finding | None:
    """Store what :func:`ask` returned, and do with a pause what it shows: end it, keep it, or let
    the next message try. A pause of a provider without a balance ends, because a person says so.

    Return what it shows, or ``None`` where the provider was not paused.
    """
    before = state_of(alias)
    shown = Finding.OVER if balance is None else finding(before.reason, balance)
    if balance is None:
        resume(alias)
    elif shown is Finding.OVER:
        note_success(alias, balance)
    else:
        note_balance(alias, balance)
    if shown is Finding.NOTHING:
        same = provider_states().filter(alias=alias, paused_at=before.paused_at)
        same.exclude(paused_at=None).update(probe_at=clock.now())
    return shown if before.is_paused else None


class Pause(NamedTuple):
    """The texts of a reason to pause.

    :param why: for a page
    :param advice: what a person can do about it, for a page
    :param error: what is raised for a caller who waits
    :param refusal: its text
    """

    why: str
    advice: str
    error: type[SmsNotSent]
    refusal: str


PAUSES: dict[str, Pause] = {
    ErrorKind.ACCOUNT: Pause(
        gettext_noop("The gateway refuses the login."),
        gettext_noop("Ask your administrator to correct it."),
        AuthenticationFailed,
        gettext_noop(
            "The provider is paused, because the gateway refused the login and more tries might "
            "lock the account. Nothing was sent. Correct the login, then run “manage.py "
            "sms_balance” to go on at once."
        ),
    ),
    ErrorKind.FUNDS: Pause(
        gettext_noop("The account has too few credits."),
        gettext_noop("Top it up."),
        InsufficientCredits,
        gettext_noop(
            "The provider is paused, because its account has too few credits. Nothing was sent. "
            "Top it up, then run “manage.py sms_balance” to go on at once."
        ),
    ),
    ErrorKind.UNREACHABLE: Pause(
        gettext_noop("The gateway cannot be reached."),
        gettext_noop("Ask your administrator to look at its address and at the network."),
        GatewayUnreachable,
        gettext_noop(
            "The provider is paused, because no SMS gateway answers at its address. Nothing was "
            "sent. Correct the address in the settings (url), or wait until the gateway is up, "
            "then run “manage.py sms_balance” to go on at once."
        ),
    ),
    states.HANGING: Pause(
        gettext_noop("The gateway gives no clear answers."),
        gettext_noop("Ask the provider whether it works."),
        GatewayUnreachable,
        gettext_noop(
            "The provider is paused, because the gateway accepts requests and gives no clear "
            "answer. Nothing was sent. When it works again, run “manage.py sms_balance” to go on "
            "at once."
        ),
    ),
    ErrorKind.BUSY: Pause(
        gettext_noop("The gateway asks for fewer requests."),
        "",
        GatewayBusy,
        gettext_noop(
            "The provider is paused, because the gateway asks for fewer requests. Nothing was sent."
        ),
    ),
    ErrorKind.BROKEN: Pause(
        gettext_noop("The provider's backend on this site fails."),
        gettext_noop("Ask your administrator."),
        ProviderFailed,
        gettext_noop(
            "The provider is paused, because its backend on this site fails. Nothing was sent; "
            "the log says more. Correct the backend, then run “manage.py sms_balance” to go on at "
            "once."
        ),
    ),
}


def _pause(alias: str, reason: str, error: SmsError) -> None:
    now, probes = clock.now(), state_of(alias).probes
    pause = {
        "paused_at": now,
        "probe_at": now + timedelta(seconds=states.pause_for(reason, probes)),
        "probes": probes + 1,
        "detail": error.text,
    }
    # Only for the reason just noted: another worker's success may have cleared it.
    new = Q(paused_at=None) | Q(probes=0)  # also where the reason of a pause has just changed
    if provider_states().filter(new, alias=alias, reason=reason).update(**pause):
        extra = log_fields.of_provider(alias, error.code or reason)
        logger.error("provider %s is paused (%s): %s", alias, reason, error, extra=extra)


def _may_probe(state: ProviderState) -> bool:
    """Return whether this worker may probe: its conditional UPDATE must find ``probe_at``
    unchanged."""
    now = clock.now()
    if state.probe_at is None or state.probe_at > now:
        return False
    later = now + timedelta(seconds=states.pause_for(state.reason, state.probes))
    return bool(
        provider_states()
        .filter(alias=state.alias, probe_at=state.probe_at)
        .update(probe_at=later, probes=F("probes") + 1)
    )

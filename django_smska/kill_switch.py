"""The kill switch: nothing is sent through a stopped provider, and its queue stays whole.

A person stops one provider, or every provider, in the admin or by ``manage.py sms_stop``; or
``SMSKA_STOPPED`` does. Only a person, or the setting, ends it. A pause of the circuit breaker is
another thing, which ends when the provider works again.

A stop is looked for before each request: by ``circuit_breaker`` for a caller who waits and for a
pass, and by the UPDATE that permits the first byte. Requests in flight end as always.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from . import clock, conf, log_fields
from .checked_backend import CheckedBackend
from .exceptions import SendingStopped
from .models import EVERY_ALIAS, ProviderState, provider_states
from .providers import providers

logger = logging.getLogger(__name__)

#: The alias of the row whose stop holds for every provider, also for one without a row.
EVERY = EVERY_ALIAS


def stop(alias: str = EVERY, *, by: str) -> bool:
    """Stop sending through this provider, or through every one; return False where it was stopped.

    :param by: who stops it, for people to read; no log has it, because it may be a number
    """
    provider_states().get_or_create(alias=alias)
    running = provider_states().filter(alias=alias, stopped_at=None)
    stopped = bool(running.update(stopped_at=clock.now(), stopped_by=by))
    if stopped:
        extra = log_fields.of_provider(alias, "stopped")
        logger.warning("sending through %s is stopped", _name(alias), extra=extra)
    return stopped


def resume(alias: str = EVERY) -> bool:
    """End the stop of this provider, or the one of every provider; return False where there was
    none. Each of the two lasts until it is ended itself."""
    stopped = provider_states().filter(alias=alias).exclude(stopped_at=None)
    resumed = bool(stopped.update(stopped_at=None, stopped_by=""))
    if resumed:
        extra = log_fields.of_provider(alias)
        logger.warning("sending through %s is resumed", _name(alias), extra=extra)
    return resumed


def _name(alias: str) -> str:
    return "every provider" if alias == EVERY else f"provider {alias}"


def stopped(aliases: Iterable[str]) -> set[str]:
    """Return those of these providers that are stopped, in whatever way. It is one query."""
    aliases = set(aliases)
    by_setting = aliases & conf.stopped()
    if by_setting == aliases:
        return by_setting
    rows = provider_states().filter(alias__in=[*aliases, EVERY]).exclude(stopped_at=None)
    found = set(rows.values_list("alias", flat=True))
    return aliases if EVERY in found else by_setting | (aliases & found)


def is_stopped(backend: CheckedBackend) -> bool:
    """Return whether nothing may leave through this backend.

    Members of a failover that are stopped are not tried.
    """
    members = {member.alias for member in backend.members}
    found = stopped({backend.alias, *members})
    backend.skip(found & members)
    return backend.alias in found or (bool(members) and members <= found)


def refusal(backend: CheckedBackend) -> SendingStopped | None:
    """Return the error for a caller who waits; None where the backend is not stopped."""
    if not is_stopped(backend):
        return None
    return SendingStopped(alias=backend.alias, code="stopped")


def stops() -> dict[str, ProviderState | None]:
    """Return each stopped provider, and ``EVERY`` where every one is, with the row that says since
    when and by whom; None where the setting has stopped it."""
    by_setting = conf.stopped()
    if by_setting and by_setting == set(providers):
        by_setting = frozenset({EVERY})
    rows = provider_states().exclude(stopped_at=None).order_by("alias")
    return {**{row.alias: row for row in rows}, **dict.fromkeys(sorted(by_setting))}

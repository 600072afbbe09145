"""Quiet hours in the queue: what of a mailing would leave in its recipients' quiet hours waits for
the end of these."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import connections, transaction
from django.db.models import Case, F, Value, When

from . import clock, conf, handover, monotonic, quiet_hours
from .conf import QuietHours
from .conflicts import repeat_conflicts
from .models import SmsMessage, mailings, rows, write_db
from .states import Status

MAX_PUT_OFF = 1000  # the most queued messages that a claim puts off to the end of quiet hours
#: The longest time for which one claim asks the project's function: outcomes of requests wait to be
#: recorded, and the claim's own lease runs.
MAX_ASKING_SECONDS = 2.0


@dataclass
class Quiet:
    """Claimed messages that do not leave now.

    :ivar ends: those in whose recipients' quiet hours it is, by the end of these
    :ivar unasked: those whose recipients' time zones are not known yet
    """

    ends: dict[datetime, list[SmsMessage]] = field(default_factory=dict[datetime, list[SmsMessage]])
    unasked: list[SmsMessage] = field(default_factory=list[SmsMessage])

    @property
    def keys(self) -> set[Any]:
        """Return the keys of all of them."""
        return {message.pk for one in (*self.ends.values(), self.unasked) for message in one}


def find_quiet(claimed: Sequence[SmsMessage], hours: QuietHours) -> Quiet:
    """Find those of these claimed messages that do not leave now, and note on the others of
    mailings that heed quiet hours when the next ones begin.

    No transaction is open: a function of the project's may be asked for the time zones.
    """
    heeding = _heeding(claimed)
    kept = [message for message in claimed if message.mailing_id in heeding]
    if not kept:
        return Quiet()
    zones = _zones(kept, hours)
    now = clock.now()
    ends = {zone: quiet_hours.end_of(now, zone, hours) for zone in set(zones.values())}
    begins = {
        zone: quiet_hours.start_after(now, zone, hours) for zone, end in ends.items() if end is None
    }
    waiting: dict[datetime, list[SmsMessage]] = defaultdict(list)
    for message in kept:
        zone = zones.get(message.pk)
        if zone is not None and (end := ends[zone]) is not None:
            waiting[end].append(message)
        elif zone is not None:
            message.quiet_from = begins[zone]
    return Quiet(waiting, [message for message in kept if message.pk not in zones])


def _heeding(messages: Iterable[SmsMessage]) -> set[Any]:
    """Return the keys of those of their mailings that heed quiet hours."""
    keys = {message.mailing_id for message in messages} - {None}
    if not keys:
        return set()
    return set(mailings(keys).filter(at_any_hour=False).values_list("pk", flat=True))


def _zones(messages: Sequence[SmsMessage], hours: QuietHours) -> dict[Any, str]:
    """Return the time zones of these messages' recipients by key: no frame above has numbers."""
    until = monotonic.now() + MAX_ASKING_SECONDS
    zones = quiet_hours.zones([message.to for message in messages], hours, until=until)
    return {message.pk: zones[message.to] for message in messages if message.to in zones}


def fields(end: datetime) -> dict[str, Any]:
    """Return what changes where messages are put off to this time: where the site's lifetime would
    end before it, that begins at it. An expiry that the caller gave stays."""
    passes = When(
        has_site_lifetime=True, expires_at__lte=end, then=Value(end + conf.expires_after())
    )
    return {"expires_at": Case(passes, default=F("expires_at")), "send_after": end}


def put_off_queued(put_off: Sequence[SmsMessage], hours: QuietHours, end: datetime) -> None:
    """Put off a part of what else is due of the mailings of these messages, so that it need not be
    claimed for that.

    Each message is claimed where each one has a time zone of its own; and with a task engine,
    because that gets each one again.
    """
    if hours.zone_of or handover.is_set():
        return
    keys: dict[str, set[Any]] = defaultdict(set)
    for message in put_off:
        keys[message.using].add(message.mailing_id)
    for alias, of_alias in keys.items():
        _put_off_queued(of_alias, alias, end)


def _put_off_queued(keys: set[Any], alias: str, end: datetime) -> None:
    now = clock.now()

    def put_off_some() -> None:
        with transaction.atomic(using=write_db()):
            due = rows().filter(mailing__in=keys, using=alias).due(now, alias)
            skips = connections[write_db()].features.has_select_for_update_skip_locked
            locked = due.select_for_update(skip_locked=skips).values_list("pk", flat=True)
            found = list(locked[:MAX_PUT_OFF])
            if found:
                rows(found).filter(status=Status.QUEUED).update(**fields(end))

    repeat_conflicts(put_off_some)

"""The worker, within a test: it sends what was queued, now or at a time that lies ahead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

from django.db.models import Min, Q

from django_smska import clock, monotonic
from django_smska.models import SmsMessageQuerySet, provider_states, rows
from django_smska.providers import providers
from django_smska.states import Status
from django_smska.times import problem
from django_smska.worker import Worker


def run_sms_worker(*, until: datetime | None = None, using: str | None = None) -> Counter[str]:
    """Do what a worker does; return how many messages it left in which status, as in
    ``run_sms_worker() == {"sent": 2}``.

    Only messages count that it has changed. Signals follow the commit, which a ``TestCase`` never
    makes: there, call it within ``captureOnCommitCallbacks(execute=True)``.

    :param until: a time ahead: let a worker run from now until then, without waiting. Messages
        leave at their time, those that expire fail, and reports that are due are queried
    :param using: only this provider's messages
    :raises ValueError: for a time that is past, or does not fit ``USE_TZ``
    """
    if using is not None:
        providers.require(using)
    begin = clock.now()
    if until is not None:
        _require_ahead(until, begin)
    before = _stored()
    for _done in Worker(using=using).passes():
        pass
    if until is not None:
        _run_until(Worker(using=using), until, begin)
    changed = _stored() - before
    waiting = {Status.DRAFT, Status.QUEUED}
    return Counter(
        status for _, status, attempts, _ in changed if attempts or status not in waiting
    )


def _require_ahead(until: datetime, now: datetime) -> None:
    if words := problem(until):
        raise ValueError(f"until: {words}")
    if until < now:
        raise ValueError("until: this time is past. Leave it out, or name a later one.")


def _stored() -> set[Any]:
    """Return what shows a change, of each message that can be changed."""
    return set(rows().values_list("pk", "status", "attempts", "send_after"))


def _run_until(worker: Worker, until: datetime, now: datetime) -> None:
    """Do a pass at each moment at which something is due."""
    mine = rows() if worker.using is None else rows().filter(using=worker.using)
    while (moment := _next_moment(mine, now)) is not None and moment <= until:
        _pass_at(worker, moment)
        now = moment
    _pass_at(worker, until)


def _next_moment(messages: SmsMessageQuerySet, now: datetime) -> datetime | None:
    """Return when something is due next, after ``now``."""
    held = Q(status__in=(Status.CLAIMED, Status.SENDING))
    queued = Q(status=Status.QUEUED)
    asked = Q(status__in=(Status.SENT, Status.UNKNOWN))
    times = messages.order_by().aggregate(
        due=Min("send_after", filter=queued & Q(send_after__gt=now)),
        overdue=Min("expires_at", filter=queued & Q(expires_at__gt=now)),
        stale=Min("lease_until", filter=held & Q(lease_until__gt=now)),
        query=Min("next_status_at", filter=asked & Q(next_status_at__gt=now)),
    )
    return min((moment for moment in times.values() if moment is not None), default=None)


def _pass_at(worker: Worker, moment: datetime) -> None:
    with _clock_at(moment):
        # A worker that runs on is seen each minute, so that it never holds what is due.
        provider_states().exclude(worker_seen_at=None).update(worker_seen_at=moment)
        worker.run_once()


@contextmanager
def _clock_at(moment: datetime) -> Generator[None]:
    """Let the clock of the engine go on from this moment."""
    begin = monotonic.now()

    def now() -> datetime:
        return moment + timedelta(seconds=monotonic.now() - begin)

    with mock.patch.object(clock, "now", now):
        yield

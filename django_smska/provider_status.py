"""What is queued, held and failing, by provider: one reading for ``sms_status``, health checks and
metrics. It queries no provider, and its number of queries does not depend on that of messages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from django.db.models import Case, Count, DateTimeField, F, Min, Q, Value, When

from . import checked_backend, circuit_breaker, clock, conf, handover, kill_switch, limits
from .models import ProviderState, provider_states, rows
from .providers import providers
from .states import Status
from .times import FIRST, Readable, as_stored

#: Seconds for which a message may be due. It is more than the first pause after a wrong login (10
#: minutes), and than the time between two runs of a worker that cron starts.
MAX_AGE_SECONDS = 900.0


class Problem(NamedTuple):
    """What needs attention.

    :param code: a short name of it
    :param text: what it is and what to do
    :param fails: messages do not leave, and no person wants that; otherwise it is a warning
    """

    code: str
    text: str
    fails: bool


@dataclass(frozen=True)
class ProviderStatus:
    """What is known here about a provider and its messages.

    :param oldest_due_seconds: for how long the oldest due message is due; None where none is
    :param unknown: *unknown* messages that were not sent again
    :param needs_attention: those that a person must look at, of each kind the newest 500 at most
    :param paused: why the circuit breaker has paused it; None where it is open
    :param segments_limit: None for no limit
    :param no_worker: no worker was seen for some minutes
    """

    alias: str
    configured: bool
    queued: int
    due: int
    oldest_due_seconds: int | None
    past_lease: int
    unknown: int
    needs_attention: int
    stopped: bool
    held: int
    held_before: datetime | None
    paused: str | None
    paused_detail: str | None
    segments_today: int
    segments_limit: int | None
    balance: Decimal | None
    balance_at: datetime | None
    worker_seen_at: datetime | None
    no_worker: bool
    read_at: datetime

    @property
    def day_is_full(self) -> bool:
        """Whether the segments of today are used up."""
        return self.segments_limit is not None and self.segments_today >= self.segments_limit > 0

    @property
    def lacks_worker(self) -> bool:
        """Whether messages wait for a worker. That alone is no problem: cron may start one. Where a
        task engine sends, none is waited for: whether its own workers run is not known here."""
        return bool(self.due and self.no_worker and self.configured) and not handover.is_set()

    def fails(self, max_age: float = MAX_AGE_SECONDS) -> bool:
        """Return whether messages do not leave through it, and no person wants that."""
        return any(problem.fails for problem in self.problems(max_age))

    def problems(self, max_age: float = MAX_AGE_SECONDS) -> list[Problem]:
        """Return what needs attention.

        :param max_age: seconds for which a message may be due
        """
        known = [
            Problem("not-configured", NOT_CONFIGURED, True) if not self.configured else None,
            Problem("stopped", STOPPED, False) if self.stopped else None,
            Problem("held", f"{self.held} {HELD}", False) if self.held else None,
            Problem("paused", f"paused ({self.paused}): {self.paused_detail}", True)
            if self.paused
            else None,
            Problem("day-is-full", DAY_IS_FULL, True) if self.day_is_full else None,
            # What a person has stopped is meant to wait.
            Problem("waiting", _waiting(), not self.stopped) if self._waits(max_age) else None,
            Problem("no-worker", NO_WORKER, not self.stopped) if self._is_left(max_age) else None,
            Problem("past-lease", PAST_LEASE, False) if self.past_lease else None,
            Problem("attention", ATTENTION, False) if self.needs_attention else None,
        ]
        return [problem for problem in known if problem is not None]

    def _waits(self, max_age: float) -> bool:
        return (self.oldest_due_seconds or 0) > max_age

    def _is_left(self, max_age: float) -> bool:
        """Return whether a message is due, and a worker was there and is gone."""
        if not self.lacks_worker or self.worker_seen_at is None:
            return False
        return self.worker_seen_at < self.read_at - timedelta(seconds=max_age)


NOT_CONFIGURED = "queued messages have a provider that is not in SMS_PROVIDERS"
STOPPED = "stopped; to go on: admin, sms_stop --resume, or SMSKA_STOPPED"
HELD = (
    "messages are held, because no worker was seen for a long time; release or cancel them: "
    "admin, or sms_worker --release"
)
DAY_IS_FULL = "the segments of today are used up (SMSKA_LIMITS)"
WAITING = "messages wait too long; check that sms_worker is running"
WAITING_FOR_ENGINE = (
    "messages wait too long, and no job has sent them; check that the task engine's workers run, "
    "and sms_worker --once or work_once() every minute"
)
NO_WORKER = "no worker was seen for too long, and messages are due; run manage.py sms_worker"
PAST_LEASE = "messages are stuck past their lease; check that sms_worker is running"
ATTENTION = "messages need attention; see “needs attention” in the admin"


def _waiting() -> str:
    return WAITING_FOR_ENGINE if handover.is_set() else WAITING


def read() -> list[ProviderStatus]:
    """Return the status of each provider that is configured, or has queued messages.

    :raises django.db.Error: where the database cannot be read
    """
    now = clock.now()
    states = {state.alias: state for state in provider_states()}
    queue = {row["using"]: row for row in _queue(now, states.values())}
    aliases = sorted({*providers, *queue})
    stopped = kill_switch.stopped(aliases)
    past_lease = _by_alias(rows().stale(now))
    unknown = _by_alias(rows().filter(status=Status.UNKNOWN, resent_as=None))
    return [
        _status(
            states.get(alias) or ProviderState(alias=alias),
            now,
            queue.get(alias, _NO_QUEUE),
            stopped=alias in stopped,
            past_lease=past_lease.get(alias, 0),
            unknown=unknown.get(alias, 0),
        )
        for alias in aliases
    ]


_NO_QUEUE: dict[str, Any] = {"queued": 0, "due": 0, "held": 0, "oldest": None}


def _queue(now: datetime, states: Iterable[ProviderState]) -> Any:
    """Return the numbers of the queue by provider. One query reads it once, since it may be long.

    What is due and what is held is the same as in ``SmsMessageQuerySet``.
    """
    holds = [
        When(using=one.alias, then=Value(one.held_before)) for one in states if one.held_before
    ]
    never = Value(as_stored(FIRST))
    unexpired = Q(expires_at__gt=now)
    due = Q(unexpired, send_after__lte=now, send_after__gt=F("held_before"))
    queued = rows().filter(status=Status.QUEUED).order_by().values("using")
    return queued.alias(
        held_before=Case(*holds, default=never, output_field=DateTimeField())
    ).annotate(
        queued=Count("pk"),
        due=Count("pk", filter=due),
        held=Count("pk", filter=Q(unexpired, send_after__lte=F("held_before"))),
        oldest=Min(Readable("send_after"), filter=due, output_field=DateTimeField()),
    )


def _by_alias(messages: Any) -> dict[str, int]:
    found = messages.order_by().values_list("using").annotate(Count("pk"))
    return dict(found)


def _status(
    state: ProviderState,
    now: datetime,
    queue: dict[str, Any],
    *,
    stopped: bool,
    past_lease: int,
    unknown: int,
) -> ProviderStatus:
    alias = state.alias
    if not checked_backend.has_balance(alias):
        state.balance = state.balance_at = None
    counts_today = state.segments_on == limits.today(now)
    return ProviderStatus(
        alias=alias,
        configured=alias in providers,
        queued=queue["queued"],
        due=queue["due"],
        oldest_due_seconds=_seconds(queue["oldest"], now),
        past_lease=past_lease,
        unknown=unknown,
        needs_attention=len(rows().filter(using=alias).needing_attention(now)),
        stopped=stopped,
        held=queue["held"],
        held_before=state.held_before,
        paused=state.reason if state.is_paused else None,
        paused_detail=state.detail if state.is_paused else None,
        segments_today=state.segments_used if counts_today else 0,
        segments_limit=conf.limits().segments_of(alias),
        balance=state.balance,
        balance_at=state.balance_at,
        worker_seen_at=state.worker_seen_at,
        no_worker=circuit_breaker.has_no_worker(state),
        read_at=now,
    )


def _seconds(since: datetime | None, now: datetime) -> int | None:
    return None if since is None else round((now - since).total_seconds())

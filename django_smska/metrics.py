"""Metrics for Prometheus. Only what names this module imports ``prometheus_client``.

They are read from the database when they are asked for, so that it does not matter which process
is asked, and no process counts on its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.contrib.auth.decorators import login_not_required
from django.db import Error, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from . import daily_counts, provider_status
from .models import write_db
from .provider_status import ProviderStatus

if TYPE_CHECKING:  # where types are checked, it need not be installed
    CONTENT_TYPE_LATEST: str
    CollectorRegistry: Any
    generate_latest: Any
    GaugeMetricFamily: Any
    Metric = Any
    Collector = Any
else:
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    from prometheus_client.core import GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector

logger = logging.getLogger(__name__)

Reading = Callable[[ProviderStatus], float | Decimal | None]

#: What each gauge is, by its name, and how it is read; None where it is not known.
GAUGES: dict[str, tuple[str, Reading]] = {
    "queued_messages": ("Messages in the queue.", lambda one: one.queued),
    "due_messages": ("Queued messages whose time has come.", lambda one: one.due),
    "oldest_due_seconds": (
        "For how long the oldest due message is due; 0 where none is.",
        lambda one: one.oldest_due_seconds or 0,
    ),
    "held_messages": ("Queued messages that wait for a person.", lambda one: one.held),
    "past_lease_messages": ("Messages that a lost worker holds.", lambda one: one.past_lease),
    "unknown_messages": (
        "Messages of which a person must find out whether they were sent.",
        lambda one: one.unknown,
    ),
    "needing_attention_messages": (
        "Messages that a person must look at, a thousand at most.",
        lambda one: one.needs_attention,
    ),
    "paused": ("1 where the circuit breaker has paused it.", lambda one: one.paused is not None),
    "stopped": ("1 where a person has stopped it.", lambda one: one.stopped),
    "segments_today": (
        "Segments that count today; 0 without a limit.",
        lambda one: one.segments_today,
    ),
    "segments_limit": ("Segments that may leave in a day.", lambda one: one.segments_limit),
    "balance_credits": (
        "The balance that it reported last, in the unit of its account.",
        lambda one: one.balance,
    ),
    "balance_timestamp_seconds": (
        "When it reported its balance, in seconds since 1970.",
        lambda one: _timestamp(one.balance_at),
    ),
    "worker_seen_timestamp_seconds": (
        "When a worker was seen, in seconds since 1970.",
        lambda one: _timestamp(one.worker_seen_at),
    ),
}


class SmsCollector(Collector):
    """Reads the metrics of all providers whenever its registry is asked for them.

    Where the database cannot be read, ``smska_up`` is 0 and the rest is left out, so that the
    project's other metrics are not lost.
    """

    def describe(self) -> Iterable[Metric]:
        """Return nothing: to register this makes no query."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield each metric."""
        found: list[Metric] = []
        try:
            # A server of metrics has threads of its own, in which Django closes no connection.
            with connections[write_db()].temporary_connection():
                found = [*_gauges(provider_status.read()), _messages_today()]
        except Error as error:  # its text may hold the database's address
            logger.error("the metrics of sending cannot be read: %s", type(error).__name__)
        yield GaugeMetricFamily("smska_up", "Whether these metrics can be read.", bool(found))
        yield from found


def _gauges(providers: list[ProviderStatus]) -> Iterator[Metric]:
    for name, (words, read) in GAUGES.items():
        gauge = GaugeMetricFamily(f"smska_{name}", words, labels=["provider"])
        for one in providers:
            value = read(one)
            if value is not None:
                gauge.add_metric([one.alias], float(value))
        yield gauge


def _timestamp(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _messages_today() -> Metric:
    """Return the numbers of the messages that were written today. A day is counted once a minute at
    most, for all processes together."""
    words = "Messages that were written today, by their present status."
    gauge = GaugeMetricFamily("smska_today_messages", words, labels=["provider", "status"])
    today = daily_counts.day_of(timezone.now())
    daily_counts.catch_up(today)
    for row in daily_counts.totals(today, today, "using", "status"):
        gauge.add_metric([row.using, row.status], row.number)
    return gauge


# With ATOMIC_REQUESTS a database that is away would raise before the view begins.
@transaction.non_atomic_requests
@login_not_required  # what asks has no account here
@never_cache
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer with these metrics alone, for a project that has no other ones."""
    registry = CollectorRegistry()
    registry.register(SmsCollector())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

"""Metrics for Prometheus, read by its own parser (dependency group ``observability``)."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, connections
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_smska.models import ProviderState, SmsMessage
from django_smska.sms import queue_sms, send_sms
from django_smska.states import Status

from .canaries import NUMBER, TEXT, found
from .outages import Outage
from .packages import package


@pytest.fixture
def metrics():
    package("prometheus_client")
    from django_smska import metrics

    return metrics


@pytest.fixture
def text(metrics):
    return lambda: metrics.metrics(RequestFactory().get("/metrics/")).content.decode()


@pytest.fixture
def families(text):
    """Return what gives the metrics by their names, as Prometheus reads them."""
    parse = package("prometheus_client.parser").text_string_to_metric_families
    return lambda: {family.name: family for family in parse(text())}


def values(families, name):
    return {tuple(one.labels.values()): one.value for one in families()[f"smska_{name}"].samples}


def test_each_is_there(metrics, families, db):
    assert set(families()) == {
        *("smska_up", "smska_today_messages"),
        *(f"smska_{name}" for name in metrics.GAUGES),
    }


def test_each_falls_again_so_that_none_is_a_counter(families, db):
    for name, family in families().items():
        assert family.type == "gauge" and not name.endswith("_total"), name
        assert family.documentation.endswith(".")


@pytest.mark.slow
@pytest.mark.usefixtures("one_moment")
def test_they_say_what_is_stored(families, db, settings):
    settings.SMS_PROVIDERS = {"default": {}, "bulk": {}}
    settings.SMSKA_LIMITS = {"segments": {"bulk": 100}}
    now = timezone.now()
    for status in (Status.QUEUED, Status.UNKNOWN):
        message = queue_sms(NUMBER, TEXT, using="bulk", repeat=True)
        changes = {"status": status, "send_after": now - timedelta(minutes=5)}
        SmsMessage.objects.filter(pk=message.pk).update(**changes)
    send_sms(NUMBER, TEXT, repeat=True)
    SmsMessage.objects.update(created_at=now)
    ProviderState.objects.create(
        alias="bulk", paused_at=now, reason="funds", balance="12.5", balance_at=now,
        worker_seen_at=now, segments_on=timezone.localdate(), segments_used=7,
    )  # fmt: skip
    assert values(families, "up") == {(): 1}
    assert values(families, "queued_messages") == {("bulk",): 1, ("default",): 0}
    assert values(families, "unknown_messages") == {("bulk",): 1, ("default",): 0}
    assert values(families, "oldest_due_seconds")["bulk",] >= 300
    assert values(families, "oldest_due_seconds")["default",] == 0
    assert values(families, "paused") == {("bulk",): 1, ("default",): 0}
    assert values(families, "balance_credits") == {("bulk",): 12.5}
    assert values(families, "balance_timestamp_seconds")["bulk",] == pytest.approx(now.timestamp())
    assert values(families, "worker_seen_timestamp_seconds") == {
        ("bulk",): pytest.approx(now.timestamp())
    }
    assert values(families, "segments_today")["bulk",] == 7
    assert values(families, "segments_limit") == {("bulk",): 100, ("default",): 10000}
    assert values(families, "today_messages") == {
        ("bulk", "queued"): 1,
        ("bulk", "unknown"): 1,
        ("default", "sent"): 1,
    }


@pytest.mark.usefixtures("one_moment")
def test_no_query_is_for_one_message(text, db):
    def queries():
        with CaptureQueriesContext(connection) as captured:
            text()
        return len(captured)

    for _ in range(2):
        queue_sms(NUMBER, TEXT, repeat=True)
    text()  # it counts the day
    before = queries()
    for _ in range(8):
        queue_sms(NUMBER, TEXT, repeat=True)
    assert queries() == before


def test_to_register_it_makes_no_query(metrics, db, django_assert_num_queries):
    registry = package("prometheus_client").CollectorRegistry()
    with django_assert_num_queries(0):
        registry.register(metrics.SmsCollector())


def test_a_database_that_is_away_leaves_the_other_metrics(metrics, transactional_db):
    prometheus = package("prometheus_client")
    registry = prometheus.CollectorRegistry()
    registry.register(metrics.SmsCollector())
    prometheus.Gauge("orders", "Orders.", registry=registry).set(3)
    with connection.execute_wrapper(Outage(1, only="SELECT")):
        said = prometheus.generate_latest(registry).decode()
    assert "smska_up 0.0" in said and "orders 3.0" in said and "smska_queued" not in said


def test_no_scrape_leaves_a_connection_open(metrics, transactional_db):
    """As in the threads of ``prometheus_client.start_http_server``."""
    alias = connection.alias

    def scrape():
        up, *rest = metrics.SmsCollector().collect()
        return up.samples[0].value, bool(rest), connections[alias].connection

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(scrape).result() == (1, True, None)
        assert threads.submit(scrape).result() == (1, True, None)


def test_they_show_no_number_and_no_text(text, db):
    queue_sms(NUMBER, TEXT, repeat=True)
    send_sms(NUMBER, TEXT, repeat=True)
    assert found(text()) == set()

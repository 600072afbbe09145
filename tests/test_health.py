"""Health: the view, and the check for django-health-check (dependency group ``observability``)."""

import json
from contextlib import suppress
from datetime import timedelta

import pytest
from django.db import OperationalError, connection, connections
from django.test import RequestFactory
from django.urls import path
from django.utils import timezone

from django_smska import health, provider_status
from django_smska.models import ProviderState, SmsMessage
from django_smska.sms import queue_sms
from django_smska.states import Status

from .canaries import NUMBER, TEXT, found
from .outages import Outage
from .packages import package


def queued(**changes):
    message = queue_sms(NUMBER, TEXT)
    SmsMessage.objects.filter(pk=message.pk).update(**changes)


def long_due():
    queued(send_after=timezone.now() - timedelta(minutes=20))


def look(method="GET", **options):
    response = health.health(RequestFactory().generic(method, "/health/"), **options)
    return response, json.loads(response.content or "{}")


def test_it_is_well_where_all_is_sent(db):
    response, answer = look()
    assert response.status_code == 200
    assert "no-store" in response.headers["Cache-Control"]
    assert answer == {
        "healthy": True,
        "providers": {
            "default": {
                "problems": [],
                "warnings": [],
                "queued": 0,
                "due": 0,
                "oldest_due_seconds": None,
                "held": 0,
                "unknown": 0,
                "worker_seen": False,
            }
        },
    }


def test_it_fails_where_messages_wait_too_long(db):
    long_due()
    response, answer = look()
    assert (response.status_code, answer["healthy"]) == (503, False)
    assert answer["providers"]["default"]["problems"] == ["waiting"]
    assert look(max_age=1800)[0].status_code == 200


def test_unknown_messages_are_a_warning(db):
    queued(status=Status.UNKNOWN)
    response, answer = look()
    assert response.status_code == 200
    assert answer["providers"]["default"]["warnings"] == ["attention"]
    assert answer["providers"]["default"]["unknown"] == 1


def test_a_stranger_sees_no_more_than_numbers_and_states(db):
    long_due()
    ProviderState.objects.create(
        alias="default", paused_at=timezone.now(), reason="funds", detail=f"{NUMBER} {TEXT}",
        balance="17.25", balance_at=timezone.now(), worker_seen_at=timezone.now(),
    )  # fmt: skip
    response, answer = look()
    assert found(response.content) == set()
    assert answer["providers"]["default"]["problems"] == ["paused", "waiting"]
    assert b"17.25" not in response.content and b"funds" not in response.content


def test_it_only_reads(db):
    assert look("HEAD")[0].status_code == 200
    assert health.health(RequestFactory().post("/")).status_code == 405


def test_no_provider_is_asked(provider, gateway):
    long_due()
    assert look()[0].status_code == 503
    assert gateway.requests == []


def test_a_database_that_is_away_is_no_error_page(transactional_db, caplog):
    with connection.execute_wrapper(Outage(1, only="SELECT")):
        response, answer = look()
    assert (response.status_code, answer) == (503, {"healthy": False, "problem": "database"})
    assert any("the health of sending cannot be read" in line for line in caplog.messages)


def test_no_transaction_of_a_request_begins_first(client, settings, transactional_db, monkeypatch):
    """Where the database is away, it would raise before the view begins."""
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    inside, real = [], provider_status.read

    def read():
        inside.append(connection.in_atomic_block)
        return real()

    monkeypatch.setattr(provider_status, "read", read)
    views = [health.health]
    with suppress(ImportError):
        from django_smska.metrics import metrics

        views.append(metrics)
    for view in views:
        settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("health/", view)]})
        assert client.get("/health/").status_code == 200
    assert inside == [False] * len(views)


# --- django-health-check --------------------------------------------------------------------------


@pytest.fixture
def page(client, settings, transactional_db):
    """Return what asks django-health-check's own view, with these arguments of the check."""
    views = package("health_check.views")

    def ask(**arguments):
        check = ("django_smska.health_check.Sms", arguments)
        view = views.HealthCheckView.as_view(checks=[check])
        settings.ROOT_URLCONF = type("urls", (), {"urlpatterns": [path("ht/", view)]})
        response = client.get("/ht/?format=json")
        return response.status_code, response.json()

    return ask


def test_the_check_says_what_the_view_says(page):
    assert page() == (200, {"Sms(max_age=900.0, warnings=False)": "OK"})
    long_due()
    assert look()[0].status_code == 503
    status, answer = page()
    assert (status, list(answer.values())) == (500, ["Unavailable: default: waiting"])
    assert page(max_age=1800)[0] == 200


def test_a_warning_fails_where_it_is_asked_to(page):
    queued(status=Status.UNKNOWN)
    assert page()[0] == 200
    status, answer = page(warnings=True)
    assert (status, list(answer.values())) == (500, ["Warning: default: attention"])


def test_the_check_of_a_database_that_is_away(page, monkeypatch, caplog):
    def fail():
        raise OperationalError(f"{NUMBER} {TEXT}")

    monkeypatch.setattr(provider_status, "read", fail)
    status, answer = page()
    expected = "Unavailable: the database cannot be read (OperationalError)"
    assert (status, list(answer.values())) == (500, [expected])
    assert found(caplog.text) == set()

"""The clock that decides between hosts is the database's."""

from datetime import datetime, timedelta, timezone

import pytest
from django.db import OperationalError, connection
from django.utils import timezone as django_timezone

from django_smska import clock
from django_smska.models import SmsMessage
from django_smska.sms import queue_sms, send_mass_sms


@pytest.fixture(autouse=True)
def no_reading(monkeypatch):
    monkeypatch.setattr(clock, "readings", {})


@pytest.fixture
def real(settings, transactional_db):
    settings.SMSKA_LOCMEM_IN_TESTS = False
    connection.ensure_connection()


def away(execute, *args):
    raise OperationalError("server closed the connection")


def utc():
    return datetime.now(timezone.utc)


def test_it_is_the_databases_whatever_the_hosts_says(real, monkeypatch):
    monkeypatch.setattr(django_timezone, "now", lambda: utc() + timedelta(hours=1))
    before = utc() - timedelta(seconds=1)
    assert before <= clock.now() <= utc() + timedelta(seconds=1)


def test_no_time_zone_of_the_session_moves_it(real):
    zone = {"postgresql": "SET TIME ZONE 'Asia/Tokyo'", "mysql": "SET time_zone = '+09:00'"}
    if connection.vendor in zone:
        with connection.cursor() as cursor:
            cursor.execute(zone[connection.vendor])
    try:
        assert abs(clock.now() - utc()) < timedelta(seconds=60)
    finally:
        connection.close()


def test_without_time_zones_it_is_naive_and_local(real, settings):
    settings.USE_TZ = False
    now = clock.now()
    assert now.tzinfo is None
    assert abs(now - datetime.now()) < timedelta(seconds=60)


def test_it_is_asked_for_once_in_a_while(real, monkeypatch, django_assert_num_queries):
    with django_assert_num_queries(1):
        first = clock.now()
        second = clock.now()
    assert first <= second
    monkeypatch.setattr(clock, "READ_EVERY_SECONDS", 0)
    with django_assert_num_queries(1):
        clock.now()


def test_a_host_that_slept_asks_again(real, monkeypatch, django_assert_num_queries):
    """Its monotonic clock stood still in the meantime."""
    clock.now()
    wall = clock.time.time
    monkeypatch.setattr(clock.time, "time", lambda: wall() + 300)
    with django_assert_num_queries(1):
        clock.now()


def test_what_was_just_stored_is_not_in_its_future(real):
    for _ in range(20):
        stored = utc()
        clock.readings.clear()
        assert clock.now() >= stored


def test_while_the_database_is_away_the_last_reading_is_carried_on(real, monkeypatch):
    first = clock.now()
    monkeypatch.setattr(clock, "READ_EVERY_SECONDS", 0)
    with connection.execute_wrapper(away):
        assert clock.now() >= first


def test_a_database_that_never_answered_is_an_error(real):
    with connection.execute_wrapper(away), pytest.raises(OperationalError):
        clock.now()


def test_a_test_run_can_travel_in_time(db, monkeypatch, django_assert_num_queries):
    monkeypatch.setattr(django_timezone, "now", lambda: datetime(2030, 1, 1, tzinfo=timezone.utc))
    with django_assert_num_queries(0):
        assert clock.now().year == 2030


@pytest.mark.parametrize("hours", [1, 25, -25])
def test_what_is_queued_for_now_is_due_now_whatever_the_hosts_clock_says(real, monkeypatch, hours):
    monkeypatch.setattr(django_timezone, "now", lambda: utc() + timedelta(hours=hours))
    queue_sms("+79041764995", "text")
    send_mass_sms([("+79041764995", "text")])
    assert SmsMessage.objects.due(clock.now()).count() == 2

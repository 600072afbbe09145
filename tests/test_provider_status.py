"""The one reading of providers, for ``sms_status``, health checks and metrics."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_smska import provider_status
from django_smska.circuit_breaker import HEARTBEAT_INTERVAL
from django_smska.models import ProviderState, SmsMessage
from django_smska.sms import queue_sms
from django_smska.states import Status

NUMBER = "+79041764995"
MINUTE = timedelta(minutes=1)


def status(alias="default"):
    [found] = [one for one in provider_status.read() if one.alias == alias]
    return found


def codes(one, **options):
    return [(problem.code, problem.fails) for problem in one.problems(**options)]


def queued(*, ago=timedelta(0), **changes):
    message = queue_sms(NUMBER, "text")
    changes = {"send_after": timezone.now() - ago, **changes}
    SmsMessage.objects.filter(pk=message.pk).update(**changes)
    return message


def seen(ago, **fields):
    ProviderState.objects.update_or_create(
        alias="default", defaults={"worker_seen_at": timezone.now() - ago, **fields}
    )


def test_it_counts_as_the_worker_claims(db, settings):
    settings.SMS_PROVIDERS = {"default": {}, "bulk": {}}
    now = timezone.now()
    ProviderState.objects.create(alias="bulk", held_before=now - 3 * MINUTE)
    for alias in ("default", "bulk"):
        for minutes in (-5, 1, 2, 4, 6):
            queued(ago=minutes * MINUTE, using=alias)
        queued(ago=9 * MINUTE, using=alias, expires_at=now - MINUTE)
    for one in provider_status.read():
        mine = SmsMessage.objects.filter(using=one.alias)
        assert one.queued == 6
        assert one.due == mine.due(timezone.now(), one.alias).count()
        assert one.held == mine.held(timezone.now(), one.alias).count()
    assert [(one.due, one.held) for one in provider_status.read()] == [(2, 2), (4, 0)]
    assert [one.oldest_due_seconds // 60 for one in provider_status.read()] == [2, 6]


def test_no_query_is_for_one_message(db):
    def queries():
        with CaptureQueriesContext(connection) as captured:
            provider_status.read()
        return len(captured)

    before = queries()
    for status in (Status.QUEUED, Status.UNKNOWN, Status.FAILED):
        for _ in range(3):
            queued(status=status, finished_at=timezone.now())
    assert queries() <= before + 2  # what was sent again is looked for where there is something


def test_what_waits_fails_unless_a_person_has_stopped_it(db):
    queued(ago=20 * MINUTE)
    assert codes(status()) == [("waiting", True)]
    assert codes(status(), max_age=1800) == []
    seen(timedelta(0), stopped_at=timezone.now())
    assert codes(status()) == [("stopped", False), ("waiting", False)]
    assert not status().fails()


def test_a_worker_that_is_gone_fails_as_soon_as_something_is_due(db, settings):
    seen(20 * MINUTE)
    assert codes(status()) == []
    queued()
    assert codes(status()) == [("no-worker", True)]
    seen(6 * HEARTBEAT_INTERVAL)  # cron may start the next one
    assert codes(status()) == [] and status().lacks_worker


ENGINES = [{"SMSKA_TASKS": "default"}, {"SMSKA_ENQUEUE": "shop.tasks.enqueue_sms"}]


@pytest.mark.parametrize("engine", ENGINES)
def test_where_an_engine_sends_no_worker_is_missed(db, settings, engine):
    seen(20 * MINUTE)
    queued()
    for name, value in engine.items():
        setattr(settings, name, value)
    assert codes(status()) == [] and not status().lacks_worker


@pytest.mark.parametrize("engine", ENGINES)
def test_what_no_job_sends_needs_a_look_at_the_engine(db, settings, engine):
    queued(ago=20 * MINUTE)
    for name, value in engine.items():
        setattr(settings, name, value)
    [problem] = status().problems()
    assert (problem.code, problem.fails) == ("waiting", True)
    assert "the task engine's workers" in problem.text


def test_a_pause_fails_and_what_a_person_decides_is_a_warning(db):
    queued(status=Status.UNKNOWN)
    assert codes(status()) == [("attention", False)]
    seen(timedelta(0), paused_at=timezone.now(), reason="funds", detail="Top it up.")
    assert codes(status()) == [("paused", True), ("attention", False)]


@pytest.mark.usefixtures("one_moment")
@pytest.mark.parametrize(("used", "fails"), [(9, []), (10, [("day-is-full", True)])])
def test_a_day_that_is_full_fails(db, settings, used, fails):
    settings.SMSKA_LIMITS = {"segments": 10}
    seen(timedelta(0), segments_on=timezone.localdate(), segments_used=used)
    assert codes(status()) == fails
    seen(timedelta(0), segments_on=timezone.localdate() - timedelta(days=1), segments_used=10)
    assert (status().segments_today, codes(status())) == (0, [])

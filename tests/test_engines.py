"""Real engines by ``SMSKA_ENQUEUE``, as the guide has them, with real workers.

They are the dependency group ``engines``; ``SMSKA_REQUIRE_PACKAGES`` forbids to skip them.
"""

import threading
from collections import Counter
from datetime import timedelta
from datetime import timezone as time_zone

import pytest
from django.core.management import call_command
from django.utils import timezone

from django_smska.models import SmsMessage
from django_smska.sms import queue_sms, send_mass_sms
from django_smska.testing.gateway import Fault, closed_port

from .enqueue_engines import Celery, DjangoQ, Dramatiq, Huey, Rq, until

NUMBER = "+79041764995"
WIDTH = 16

pytestmark = pytest.mark.slow


@pytest.fixture
def project(request, provider, settings, tmp_path, monkeypatch):
    project = request.param(settings, provider, tmp_path, monkeypatch)
    yield project
    project.close()


def with_(*engines):
    return pytest.mark.parametrize(
        "project", engines, ids=lambda engine: engine.__name__, indirect=True
    )


def statuses():
    return Counter(SmsMessage.objects.values_list("status", flat=True))


def each_accepted_once(gateway, number):
    return Counter(entry.text for entry in gateway.accepted) == {
        f"text {n}": 1 for n in range(number)
    }


@with_(Celery, Huey, Rq, Dramatiq, DjangoQ)
def test_its_worker_sends_what_is_queued_now_and_for_later(project, provider, caplog):
    queue_sms(NUMBER, "text 0")
    send_mass_sms((NUMBER, f"text {n}") for n in range(1, 80))
    later = timezone.now() + timedelta(seconds=1)
    last = queue_sms(NUMBER, "text 80", send_after=later)
    assert statuses() == {"queued": 81} and provider.sends == 0 and caplog.records == []
    project.start()
    assert until(lambda: statuses() == {"sent": 80, "queued": 1} or statuses() == {"sent": 81})
    assert until(lambda: timezone.now() > later)
    project.let_time_come()
    assert until(lambda: statuses() == {"sent": 81}), statuses()
    assert each_accepted_once(provider, 81)
    last.refresh_from_db()
    assert last.sending_at >= later


@with_(Huey)
def test_a_worker_gives_the_engine_again_what_is_tried_later(project, provider):
    provider.script(1, Fault("sent_error"))
    queue_sms(NUMBER, "text 0")
    project.start()
    assert until(lambda: project.huey.scheduled_count() == 1)
    [job] = project.huey.scheduled()
    [message] = SmsMessage.objects.all()
    assert (message.status, message.attempts, job.args) == ("queued", 1, ([message.pk],))
    assert abs(timezone.make_aware(job.eta, time_zone.utc) - message.send_after) <= timedelta(
        seconds=1
    )


@with_(Celery, Huey)
def test_an_engine_that_is_away_breaks_no_view_and_loses_nothing(project, provider, caplog):
    with closed_port() as port:
        project.go_away(f"redis://:password@127.0.0.1:{port}/0")
        queue_sms(NUMBER, "text 0")
    [line] = [one for one in caplog.records if one.name.startswith("django_smska")]
    assert line.getMessage().startswith("The task engine did not accept (all of) 1 messages (")
    assert "password" not in line.getMessage() and "text 0" not in caplog.text
    call_command("sms_worker", "--once")
    assert statuses() == {"sent": 1} and each_accepted_once(provider, 1)


@with_(Celery)
def test_a_worker_of_celery_killed_with_requests_in_flight(project, provider):
    """Promise 5: at most these are unknown; all others go on, none is doubled or lost."""
    release = threading.Event()
    provider.script_all(Fault("late", accepted=True, until=release))
    provider.script(1, None)  # the first goes alone, until it is answered
    send_mass_sms((NUMBER, f"text {n}") for n in range(100))
    worker = project.start()
    assert provider.wait_for(lambda: provider.sends == 1 + WIDTH, timeout=60)
    project.kill(worker)
    provider.unscript()
    release.set()
    SmsMessage.objects.exclude(lease_until=None).update(lease_until=timezone.now())
    call_command("sms_worker", "--once")
    assert statuses() == {"unknown": WIDTH, "sent": 100 - WIDTH}
    assert each_accepted_once(provider, 100)

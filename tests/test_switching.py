"""One shop, and ``SMS_PROVIDERS["default"]`` switched through all providers: no line changes.

Each is played by its counterpart of the contract test.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from django.conf import settings as site
from django.db import connection
from django.utils import timezone

from django_smska import checked_backend, circuit_breaker, webhook_urls
from django_smska.exceptions import (
    InvalidRecipient,
    RecipientOptedOut,
    SmsNotSent,
    SmsOutcomeUnknown,
)
from django_smska.models import SmsInbound, SmsMessage
from django_smska.receipts import Evidence
from django_smska.sms import queue_sms, send_sms
from django_smska.states import Status
from django_smska.webhooks import webhook
from django_smska.worker import Worker

from .conftest import PATIENT
from .counterparts import standin
from .test_contract import COUNTERPARTS, able_to
from .test_doubts import let_pass

NUMBER = "+79041764973"
MANY = 200


@pytest.fixture(params=COUNTERPARTS, ids=lambda one: one.__name__)
def counterpart(request, settings, transactional_db):
    settings.SMSKA_LOCMEM_IN_TESTS = False
    settings.SMSKA_LIMITS = None
    settings.SMSKA_PUBLIC_URL = "https://shop.example"
    with request.param() as counterpart:
        configure(counterpart)
        yield counterpart


def configure(counterpart, **changes):
    options = {"sender_id": "Shop", **PATIENT}
    options |= {**counterpart.options(), **changes}
    site.SMS_PROVIDERS = {
        "default": {"BACKEND": f"{counterpart.backend}.SmsBackend", "OPTIONS": options}
    }
    checked_backend._traits.clear()


def push(request, kind="report"):
    """Let the request come in through the view."""
    key = webhook_urls.webhook_url("default", kind).rstrip("/").split("/")[-2]
    request._dont_enforce_csrf_checks = True
    return webhook(request, "default", key, kind)


def stored(message):
    return SmsMessage.objects.get(pk=message.pk)


def word_of(counterpart, meaning):
    return counterpart.statuses[meaning]


def test_it_sends_now(counterpart):
    message = send_sms(NUMBER, "Ваш заказ готов")
    assert stored(message).status == Status.SENT
    assert [(one.number, one.body) for one in counterpart.accepted] == [
        (NUMBER[1:], "Ваш заказ готов")
    ]


@pytest.mark.slow
def test_it_sends_what_is_queued(counterpart):
    messages = [queue_sms(NUMBER, f"Заказ № {number}") for number in range(MANY)]
    Worker().run_once()
    texts = [one.body for one in counterpart.accepted]
    assert sorted(texts) == sorted(one.body for one in messages)
    assert set(SmsMessage.objects.values_list("status", flat=True)) == {Status.SENT}


@pytest.mark.slow
def test_a_wrong_login_pauses_it_and_loses_nothing(counterpart):
    configure(counterpart, **counterpart.wrong_login())
    for number in range(5):
        queue_sms(NUMBER, f"text {number}")
    Worker().run_once()
    assert counterpart.accepted == [] and circuit_breaker.paused() == ["default"]
    assert set(SmsMessage.objects.values_list("status", flat=True)) == {Status.QUEUED}
    configure(counterpart)
    circuit_breaker.resume("default")
    SmsMessage.objects.update(send_after="2026-01-01T00:00:00Z")
    Worker().run_once()
    assert len(counterpart.accepted) == 5


def test_a_refused_number_fails(counterpart):
    refusals = [data for error, data in counterpart.refusals if issubclass(error, InvalidRecipient)]
    assert refusals
    counterpart.spoil(standin.instead(refusals[0]))
    with pytest.raises(SmsNotSent):
        send_sms(NUMBER, "text")
    assert SmsMessage.objects.get().status == Status.FAILED and counterpart.accepted == []


def test_it_becomes_delivered(counterpart):
    message = send_sms(NUMBER, "text")
    (taking,) = counterpart.accepted
    backend = checked_backend.provider("default")
    if backend.takes_reports:
        request = counterpart.report(taking, word_of(counterpart, "delivered"))
        assert push(request).status_code == 200
    else:
        counterpart.set_status(taking, word_of(counterpart, "delivered"))
        message.refresh_status()
    assert stored(message).status == Status.DELIVERED


@able_to("inbound")
def test_a_reply_comes_in_and_stop_ends_it(counterpart):
    message = send_sms(NUMBER, "text")
    for body, the_id in (("Спасибо", "in-1"), ("СТОП", "in-2")):
        request = counterpart.inbound(NUMBER[1:], "5050", body, the_id)
        assert push(request, "inbound").status_code == 200
    assert list(SmsInbound.objects.order_by("pk").values_list("body", flat=True)) == [
        "Спасибо",
        "СТОП",
    ]
    with pytest.raises(RecipientOptedOut):
        send_sms(NUMBER, "one more")
    assert stored(message).status == Status.SENT and len(counterpart.accepted) == 1


def test_a_lost_answer_ends_where_the_evidence_says(counterpart):
    counterpart.spoil(standin.accepts_and_resets)
    with pytest.raises(SmsOutcomeUnknown):
        send_sms(NUMBER, "the answer is lost")
    message = SmsMessage.objects.get()
    (taking,) = counterpart.accepted
    evidence = checked_backend.provider("default").evidence
    if evidence in (Evidence.ASKED, Evidence.SEARCHED):
        let_pass(30)
        Worker().run_once()
        assert stored(message).status == Status.SENT and stored(message).proof == "answer"
    elif evidence == Evidence.REPORTED:
        push(counterpart.report(taking, word_of(counterpart, "delivered")))
        assert stored(message).status == Status.DELIVERED and stored(message).proof == "report"
    else:
        let_pass(3600)
        Worker().run_once()
        assert stored(message).status == Status.UNKNOWN
    assert len(counterpart.accepted) == 1


@pytest.mark.slow
def test_lost_answers_among_many(counterpart):
    """Ten of forty answers are lost: none is sent twice, none is lost, and none is called wrong."""
    lost = {3 * number for number in range(10)}
    counterpart.spoil(*[standin.accepts_and_resets if n in lost else None for n in range(40)])
    for number in range(40):
        queue_sms(f"+790417649{number:02}", f"text {number}")
    for _ in range(4):
        circuit_breaker.resume("default")
        Worker().run_once()
    accepted = [one.body for one in counterpart.accepted]
    assert sorted(accepted) == sorted(f"text {number}" for number in range(40))
    unknown = SmsMessage.objects.filter(status=Status.UNKNOWN)
    backend = checked_backend.provider("default")
    if backend.evidence in (Evidence.ASKED, Evidence.SEARCHED):
        let_pass(3600)
        Worker().run_once()
        assert not unknown.exists()
    elif backend.evidence == Evidence.REPORTED:
        for taking in counterpart.accepted:
            push(counterpart.report(taking, word_of(counterpart, "delivered")))
        assert not SmsMessage.objects.exclude(status=Status.DELIVERED).exists()
    else:
        assert unknown.count() == 10


# --- a worker that is killed ----------------------------------------------------------------------

WIDTH = 4


def start_worker():
    ours = ("SMS_PROVIDERS", "SMSKA_PUBLIC_URL", "ROOT_URLCONF")
    env = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "SMSKA_DB": str(connection.settings_dict["NAME"]),
        "SMSKA_SETTINGS": json.dumps({name: getattr(site, name) for name in ours}),
        "SMSKA_CONCURRENCY": str(WIDTH),
    }
    return subprocess.Popen([sys.executable, "-m", "tests.worker_process"], env=env)


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_a_worker_that_is_killed_doubles_and_loses_nothing(counterpart):
    released = threading.Event()
    held = [standin.accepts_and_waits(released) for _ in range(WIDTH)]
    counterpart.spoil(None, *held)  # the first goes alone, until it is answered
    texts = [f"text {number}" for number in range(12)]
    for number, text in enumerate(texts):
        queue_sms(f"+790417649{number:02}", text)
    worker = start_worker()
    until(lambda: len(counterpart.accepted) == 1 + WIDTH)
    worker.kill()
    assert worker.wait(30) == -signal.SIGKILL
    released.set()
    SmsMessage.objects.exclude(lease_until=None).update(lease_until=timezone.now())
    Worker(concurrency=WIDTH).run_once()
    assert sorted(one.body for one in counterpart.accepted) == sorted(texts)
    doubts = SmsMessage.objects.filter(status=Status.UNKNOWN)
    assert doubts.count() == WIDTH
    evidence = checked_backend.provider("default").evidence
    if evidence in (Evidence.ASKED, Evidence.SEARCHED):
        let_pass(30)
        Worker().run_once()
    elif evidence == Evidence.REPORTED:
        for taking in counterpart.accepted:
            push(counterpart.report(taking, word_of(counterpart, "delivered")))
    assert doubts.count() == (WIDTH if evidence == Evidence.MUTE else 0)
    assert len(counterpart.accepted) == len(texts) == SmsMessage.objects.count()

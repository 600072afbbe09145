"""Each provider with a stand-in, through the engine: what its evidence makes of a lost answer."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.urls import resolve

from django_smska.exceptions import RecipientOptedOut, SmsOutcomeUnknown
from django_smska.models import SmsInbound, SmsMessage
from django_smska.opt_out import is_opted_out
from django_smska.sms import send_sms
from django_smska.states import Status
from django_smska.worker import Worker

from .conftest import PATIENT
from .counterparts import standin
from .counterparts.infobip import Infobip
from .counterparts.twilio import Twilio

NUMBER, SENDER = "+79041764976", "+15005550006"


@pytest.fixture(params=[Twilio, Infobip], ids=lambda one: one.__name__)
def counterpart(request, settings, transactional_db):
    with request.param() as counterpart:
        settings.SMSKA_LOCMEM_IN_TESTS = False
        settings.SMSKA_PUBLIC_URL = "https://shop.example"
        settings.SMS_PROVIDERS = {
            "default": {
                "BACKEND": f"{counterpart.backend}.SmsBackend",
                "OPTIONS": {"sender_id": SENDER, **PATIENT, **counterpart.options()},
            }
        }
        yield counterpart


def lose(counterpart, text="the answer is lost"):
    """Send a message whose answer is lost; return it as it is stored."""
    counterpart.spoil(standin.accepts_and_resets)
    with pytest.raises(SmsOutcomeUnknown) as raised:
        send_sms(NUMBER, text)
    return SmsMessage.objects.get(pk=raised.value.sms)


def push(request):
    """Let the site's view answer a provider's request; return the answer's status."""
    found = resolve(request.path_info)
    return found.func(request, *found.args, **found.kwargs).status_code


def ask_now():
    """Let the question that is due after half a minute be asked."""
    for message in SmsMessage.objects.filter(next_status_at__isnull=False):
        at = message.next_status_at - timedelta(seconds=30)
        SmsMessage.objects.filter(pk=message.pk).update(next_status_at=at)
    Worker().run_once()


def test_a_question_resolves_a_lost_answer(counterpart):
    message = lose(counterpart)
    assert message.status == Status.UNKNOWN
    ask_now()
    message.refresh_from_db()
    assert message.status == Status.SENT and message.proof == "answer"
    assert message.gateway_id == counterpart.accepted[0].id
    assert len(counterpart.accepted) == 1


def test_a_report_resolves_a_lost_answer(counterpart):
    message = lose(counterpart)
    assert push(counterpart.report(counterpart.accepted[0], counterpart.statuses["sent"])) == 200
    message.refresh_from_db()
    assert message.status == Status.SENT and message.proof == "report"
    final = counterpart.report(counterpart.accepted[0], counterpart.statuses["delivered"])
    assert push(final) == 200
    message.refresh_from_db()
    assert message.status == Status.DELIVERED
    assert message.gateway_id == counterpart.accepted[0].id


def test_a_forged_report_changes_nothing(counterpart):
    message = lose(counterpart)
    right = counterpart.report(counterpart.accepted[0], counterpart.statuses["delivered"])
    for request in counterpart.forged(right):
        assert push(request) == 403
    message.refresh_from_db()
    assert message.status == Status.UNKNOWN


def test_a_status_is_polled_with_its_price(counterpart):
    message = send_sms(NUMBER, "text")
    counterpart.set_status(counterpart.accepted[0], counterpart.statuses["rejected"])
    message.refresh_status()
    assert message.status == Status.REJECTED and message.gateway_status


def test_stop_blocks_the_next(counterpart):
    assert push(counterpart.inbound(NUMBER[1:], SENDER, "Стоп!", "in-1")) == 200
    (one,) = SmsInbound.objects.all()
    assert (one.sender, one.to, one.body) == (NUMBER, SENDER, "Стоп!")
    assert is_opted_out(NUMBER, sender=SENDER)
    with pytest.raises(RecipientOptedOut):
        send_sms(NUMBER, "text")
    assert counterpart.accepted == []


def test_two_equal_texts_at_twilio_are_for_a_person(counterpart):
    """Its search cannot choose between them; at Infobip each is found by its reference."""
    twins = [lose(counterpart, "the same"), lose(counterpart, "the same")]
    ask_now()
    statuses = {SmsMessage.objects.get(pk=one.pk).status for one in twins}
    assert statuses == {Status.UNKNOWN if isinstance(counterpart, Twilio) else Status.SENT}
    assert len(counterpart.accepted) == 2

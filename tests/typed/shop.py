"""What a project writes: type checkers read it, and it never runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.contrib.auth.admin import GroupAdmin
from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.test import TestCase
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_smska.admin import SmsPermissionsMixin
from django_smska.backends.base import BaseSmsBackend
from django_smska.decorators import limit_visitors
from django_smska.exceptions import LimitExceeded, RecipientOptedOut, SmsNotSent, SmsOutcomeUnknown
from django_smska.models import SmsInbound, SmsMessage
from django_smska.numbers import normalize
from django_smska.receipts import Receipt, Report
from django_smska.signals import sms_received, sms_status_changed
from django_smska.sms import (
    aqueue_sms,
    asend_code,
    outbox,
    providers,
    queue_sms,
    send_code,
    send_mass_sms,
    send_sms,
)
from django_smska.states import Status
from django_smska.testing.cases import SmsTestMixin
from django_smska.testing.factory import make_sms
from django_smska.testing.gateway import Fault, StandInGateway
from django_smska.testing.worker import run_sms_worker


class ShopGroupAdmin(SmsPermissionsMixin, GroupAdmin):
    list_display = ("name",)


READY = _("Your order is ready.")


@limit_visitors
def send_login_code(request: HttpRequest) -> HttpResponse:
    try:
        number = normalize(request.POST["number"])
        message = send_code(number, "Code: 4711", code="4711", valid_for=timedelta(minutes=5))
    except ValidationError as error:
        return HttpResponse(error.messages[0], status=400)
    except LimitExceeded as error:
        when = f"after {error.retry_at:%H:%M}" if error.retry_at else "never"
        return HttpResponse(when, status=429)
    except SmsNotSent as error:
        return HttpResponse(error.text, status=503)
    return HttpResponse(message.status)


@limit_visitors(key=lambda request: request.META["REMOTE_ADDR"])
async def send_code_later(request: HttpRequest) -> HttpResponse:
    message = await asend_code(request.POST["number"], "Code: 4711", code="4711")
    await aqueue_sms(message.to, READY, send_after=timezone.now() + timedelta(hours=1))
    await message.arefresh_status()
    return HttpResponse(message.get_status_display())


def notify(number: str, user: AbstractBaseUser) -> int | None:
    try:
        message = send_sms(number, READY, sender=_("Shop"), created_by=user, idempotency_key="7")
    except RecipientOptedOut:
        return None
    except SmsOutcomeUnknown as error:
        return error.sms.id if error.sms else None
    if message.status == "unknown" or message.sent_at is None:
        return None
    late: timedelta = message.sent_at - message.created_at
    return len(message.body.upper()) + message.segments + late.seconds


def remind(numbers: list[str]) -> str:
    report = send_mass_sms((number, "Closed on Monday") for number in numbers)
    for message in SmsMessage.objects.filter(status=Status.UNKNOWN).order_by("-id")[:10]:
        message.send(exempt=True)
    waiting = SmsMessage.objects.filter(status=Status.QUEUED, to__in=numbers)
    first = waiting.first()
    counts: dict[str, int] = SmsMessage.objects.filter(using="default").refresh_status()
    name: str = first.to if first else ""
    paid = sum(one.price or 0 for one in SmsMessage.objects.filter(currency="RUB"))
    return f"{report} {name} {counts} {paid} {providers['default'].get_balance()}"


@receiver(sms_status_changed)
def note_status(message: SmsMessage, old: str, new: str, **kwargs: object) -> None:
    if new == Status.DELIVERED and message.idempotency_key is not None:
        key = message.idempotency_key + "-thanks"
        queue_sms(message.to, "Thank you", priority=-1, idempotency_key=key)


@receiver(sms_received)
def answer(inbound: SmsInbound, **kwargs: object) -> None:
    if inbound.body.strip().lower() == "hours":
        queue_sms(inbound.sender, "9 to 18", using=inbound.using)


class Acme(BaseSmsBackend):
    rate = 10.0

    def __init__(self, *, token: str, alias: str) -> None:
        super().__init__(alias=alias)
        self.token = token

    def send_message(self, message: SmsMessage) -> Receipt:
        return Receipt(gateway_id=f"{self.token[:1]}{message.reference}")

    def get_status(self, message: SmsMessage) -> Report:
        return Report(Status.DELIVERED, "done")


class OrderReady(SmsTestMixin, TestCase):
    def test_it_is_announced(self) -> None:
        notify("+79041764995", make_user())
        self.assertSMSSent(to="+79041764995", contains="ready", count=1)
        self.assertEqual(self.sms_outbox[0].sender, outbox[0].sender)
        self.assertEqual(make_sms(status="delivered").status, run_sms_worker().most_common(1)[0][0])


def make_user() -> AbstractBaseUser:
    raise NotImplementedError


@pytest.fixture
def refusing(sms_gateway: StandInGateway) -> Iterator[StandInGateway]:
    sms_gateway.script_next(Fault("bad_number"))
    yield sms_gateway

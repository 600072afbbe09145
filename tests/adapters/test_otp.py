"""django-otp: a device that sends its tokens by SMS."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone

from django_smska.adapters.otp.models import ChallengeNotSent, SmsDevice
from django_smska.exceptions import InsufficientCredits
from django_smska.models import SmsLimit, SmsMessage
from django_smska.opt_out import opt_out
from django_smska.testing.gateway import Fault

from .conftest import (
    PASSWORD,
    REFUSALS,
    codes_in_clear,
    last_code,
    nothing_goes_out_later,
    page,
)

NUMBER = "+79041764995"
NOT_SENT = "The SMS was not sent. Try again in a few minutes."


@pytest.fixture
def device(user):
    return SmsDevice.objects.create(user=user, name="phone", number=NUMBER)


def post(site, device, **fields):
    login = {"username": "ann", "password": PASSWORD, "otp_device": device.persistent_id}
    return page(site.post("/otp/", {**login, **fields}))


def ask(site, device):
    return post(site, device, otp_challenge="1")


def later(device, seconds):
    """Let the device be so much older, and the limits forget, as if time had passed."""
    SmsLimit.objects.all().delete()
    device.refresh_from_db()
    device.last_generated_timestamp -= timedelta(seconds=seconds)
    device.save()


def test_a_token_logs_in_once(site, device):
    assert "OTP Challenge: sent by SMS" in ask(site, device)
    assert codes_in_clear() == []
    token = last_code(site.gateway)
    post(site, device, otp_token=token)
    assert "_auth_user_id" in site.session
    device.refresh_from_db()
    assert device.token is None
    assert device.last_used_at is not None
    assert not device.verify_token(token)


def test_a_failure_is_an_error_of_the_form_and_leaves_nothing(site, device):
    site.gateway.balance = 0
    assert f"Error generating challenge: {NOT_SENT}" in ask(site, device)
    device.refresh_from_db()
    assert device.token is None
    assert device.last_generated_timestamp is None
    site.gateway.balance = 1000
    assert nothing_goes_out_later(site.gateway)
    assert codes_in_clear() == []


def test_after_a_failure_the_token_before_is_good(site, device):
    ask(site, device)
    token = last_code(site.gateway)
    later(device, 61)
    site.gateway.balance = 0
    with pytest.raises(ChallengeNotSent) as caught:
        device.generate_challenge()
    assert isinstance(caught.value.__cause__, InsufficientCredits)
    assert device.token == token
    assert device.verify_token(token)


def test_what_is_stored_is_what_may_have_been_sent(site, device):
    site.gateway.script(1, Fault("reset_after_request", accepted=True))
    assert "OTP Challenge: sent by SMS" in ask(site, device)
    device.refresh_from_db()
    assert device.token == last_code(site.gateway)


def test_the_cooldown_says_when(site, device):
    ask(site, device)
    SmsLimit.objects.all().delete()
    assert "Too many SMS were asked for. Try again in" in ask(site, device)
    assert len(site.gateway.accepted) == 1
    later(device, 61)
    assert "OTP Challenge: sent by SMS" in ask(site, device)


@pytest.mark.parametrize("cooldown", [0, 60])
def test_limits_hold_too_and_are_in_the_log(site, device, settings, caplog, cooldown):
    settings.OTP_SMS_COOLDOWN_DURATION = cooldown
    ask(site, device)
    assert "Too many SMS were asked for. Try again in" in ask(site, device)
    [line] = [one for one in caplog.records if one.name == REFUSALS]
    assert line.levelname == "WARNING"
    assert line.code == ("LimitExceeded" if cooldown else "limit-codes")


def test_the_provider_can_be_another(site, device, second_provider, settings):
    settings.OTP_SMS_USING = second_provider
    ask(site, device)
    assert SmsMessage.objects.get().using == second_provider


def test_a_wrong_token_makes_it_wait(device):
    device.token, device.valid_until = "123456", timezone.now() + timedelta(minutes=5)
    device.save()
    assert not device.verify_token("654321")
    assert not device.verify_token("123456")
    device.throttle_reset()
    assert device.verify_token("123456")


def test_it_is_sent_despite_an_opt_out(site, device):
    opt_out(NUMBER)
    assert "OTP Challenge: sent by SMS" in ask(site, device)


def test_a_number_is_stored_in_one_form(user):
    device = SmsDevice(user=user, name="phone", number="8 (904) 176-49-95")
    device.full_clean()
    assert device.number == NUMBER
    device.number = "8904"
    with pytest.raises(ValidationError, match="11 digits"):
        device.full_clean()


def test_the_admin_shows_no_token(site, device):
    get_user_model().objects.update(is_staff=True, is_superuser=True)
    site.force_login(device.user)
    SmsDevice.objects.update(token="987654")
    for url in (
        reverse("admin:smska_otp_smsdevice_change", args=[device.pk]),
        reverse("admin:smska_otp_smsdevice_changelist") + "?q=4995",
    ):
        text = page(site.get(url))
        assert NUMBER in text
        assert "987654" not in text


def test_no_migration_is_missing(db):
    call_command("makemigrations", "smska_otp", "--check", "--dry-run")

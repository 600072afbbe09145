"""django-two-factor-auth: a login with a token by SMS, and a backup phone."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.urls import reverse, reverse_lazy
from django_otp.oath import totp
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice
from two_factor.plugins.phonenumber.models import PhoneDevice

from django_smska.adapters.two_factor import Gateway
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

NUMBER, WRITTEN = "+79041764995", "8 904 176-49-95"
SENT, NOT_SENT = "We sent you a text message", "The SMS was not sent. Try again in a few minutes."


@pytest.fixture
def phone(user):
    backup = StaticDevice.objects.create(user=user, name="backup")
    backup.token_set.create(token="spare")
    return PhoneDevice.objects.create(user=user, name="default", number=NUMBER, method="sms")


def give_password(site):
    fields = {"auth-username": "ann", "auth-password": PASSWORD}
    return page(
        site.post(reverse("two_factor:login"), {"login_view-current_step": "auth", **fields})
    )


def give_token(site, token):
    fields = {"login_view-current_step": "token", "token-otp_token": token}
    return site.post(reverse("two_factor:login"), fields)


class TestLogin:
    def test_a_token_logs_in(self, site, phone):
        assert SENT in give_password(site)
        assert codes_in_clear() == []
        give_token(site, last_code(site.gateway))
        assert "_auth_user_id" in site.session

    def test_a_failure_is_an_error_of_the_form(self, site, phone):
        site.gateway.balance = 0
        text = give_password(site)
        assert NOT_SENT in text
        assert SENT not in text
        site.gateway.balance = 1000
        assert nothing_goes_out_later(site.gateway)
        assert codes_in_clear() == []

    def test_a_backup_token_still_logs_in(self, site, phone):
        site.gateway.balance = 0
        assert "Use Backup Token" in give_password(site)
        site.post(reverse("two_factor:login"), {"wizard_goto_step": "backup"})
        fields = {"login_view-current_step": "backup", "backup-otp_token": "spare"}
        site.post(reverse("two_factor:login"), fields)
        assert "_auth_user_id" in site.session

    def test_a_limit_says_when_and_the_token_before_is_good(self, site, phone):
        give_password(site)
        text = give_password(site)
        assert "Too many SMS were asked for. Try again in" in text
        assert SENT not in text
        assert len(site.gateway.accepted) == 1
        give_token(site, last_code(site.gateway))
        assert "_auth_user_id" in site.session

    def test_a_token_that_may_have_been_sent_is_good(self, site, phone):
        site.gateway.script(1, Fault("reset_after_request", accepted=True))
        assert SENT in give_password(site)
        give_token(site, last_code(site.gateway))
        assert "_auth_user_id" in site.session

    def test_it_counts_for_the_visitor(self, site, phone, settings):
        settings.SMSKA_LIMITS = {"caller": "1/h", "codes": None}
        give_password(site)
        assert "Too many SMS were asked for." in give_password(site)

    def test_the_provider_can_be_another(self, site, phone, second_provider, monkeypatch):
        monkeypatch.setattr(Gateway, "using", second_provider)
        give_password(site)
        assert SmsMessage.objects.get().using == second_provider

    def test_it_is_sent_despite_an_opt_out(self, site, phone):
        opt_out(NUMBER)
        assert SENT in give_password(site)


class TestBackupPhone:
    def add(self, site, user):
        app = TOTPDevice.objects.create(user=user, name="default")
        site.post(
            reverse("two_factor:login"),
            {
                "login_view-current_step": "auth",
                "auth-username": "ann",
                "auth-password": PASSWORD,
            },
        )
        give_token(site, f"{totp(app.bin_key):06}")
        fields = {"setup-number": WRITTEN, "setup-method": "sms"}
        step = {"phone_setup_view-current_step": "setup"}
        return page(site.post(reverse("two_factor:phone_create"), {**step, **fields}))

    def test_a_token_confirms_it(self, site, user):
        assert "sent a token to your phone number" in self.add(site, user)
        fields = {
            "phone_setup_view-current_step": "validation",
            "validation-token": last_code(site.gateway),
        }
        site.post(reverse("two_factor:phone_create"), fields)
        assert PhoneDevice.objects.get().number.as_e164 == NUMBER

    def test_a_failure_is_an_error_of_the_form(self, site, user):
        site.gateway.balance = 0
        text = self.add(site, user)
        assert NOT_SENT in text
        assert WRITTEN in text
        assert "sent a token" not in text


class TestFirstPhone:
    url, step = reverse_lazy("two_factor:setup"), "setup_view-current_step"

    def add(self, site, user, method="sms"):
        site.force_login(user)
        site.post(self.url, {self.step: "welcome"})
        site.post(self.url, {self.step: "method", "method-method": method})
        return page(site.post(self.url, {self.step: "sms", "sms-number": WRITTEN}))

    def test_a_token_confirms_it(self, site, user):
        assert SENT in self.add(site, user)
        assert len(site.gateway.accepted) == 1
        token = {"validation-token": last_code(site.gateway)}
        site.post(self.url, {self.step: "validation", **token})
        assert PhoneDevice.objects.get().number.as_e164 == NUMBER

    def test_a_failure_is_an_error_of_the_form(self, site, user, caplog):
        site.gateway.balance = 0
        text = self.add(site, user)
        assert NOT_SENT in text
        assert WRITTEN in text
        assert "encountered an issue" not in text
        assert [one.name for one in caplog.records if one.exc_info] == []
        [line] = [one for one in caplog.records if one.name == REFUSALS]
        assert line.code == "-5"

    def test_after_a_limit_the_number_can_be_given_again(self, site, user):
        self.add(site, user)
        assert "Too many SMS were asked for. Try again in" in self.add(site, user)
        SmsLimit.objects.all().delete()
        assert SENT in self.add(site, user)

    def test_an_app_is_set_up_by_their_view(self, site, user):
        site.force_login(user)
        site.post(self.url, {self.step: "welcome"})
        chosen = {self.step: "method", "method-method": "generator"}
        assert "generator-token" in page(site.post(self.url, chosen))


def test_calls_are_refused():
    with pytest.raises(ImproperlyConfigured, match="Remove TWO_FACTOR_CALL_GATEWAY"):
        Gateway().make_call(None, "123456")

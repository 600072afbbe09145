"""django-allauth: login and sign-up by phone."""

from __future__ import annotations

import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth import get_user_model
from django.core.cache import cache
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone

from django_smska.models import SmsLimit, SmsMessage
from django_smska.opt_out import opt_out
from django_smska.testing.gateway import Fault
from tests.documents import run

from .accounts import AccountAdapter
from .conftest import (
    PASSWORD,
    REFUSALS,
    codes_in_clear,
    last_code,
    nothing_goes_out_later,
    page,
)
from .models import Phone

NUMBER, WRITTEN, STRANGER = "+79041764995", "8 904 176-49-95", "8 904 176-49-96"
API = "/_allauth/browser/v1/auth/"


@pytest.fixture(autouse=True)
def forgetful_allauth():
    cache.clear()  # it counts there


@pytest.fixture
def ann(user):
    Phone.objects.create(user=user, number=NUMBER, verified=True)
    return user


def ask(site, number=WRITTEN):
    return site.post(reverse("account_request_login_code"), {"phone": number}, follow=True)


def enter(site, code):
    return site.post(reverse("account_confirm_login_code"), {"code": code})


def sign_up(site, number=WRITTEN):
    return site.post(reverse("account_signup"), {"phone": number}, follow=True)


def time_passes(site):
    site.session.flush()
    SmsLimit.objects.all().delete()
    call_command("sms_balance")  # ends a pause


def is_logged_in(site):
    return "_auth_user_id" in site.session


def test_a_code_logs_in(site, ann):
    answer = ask(site)
    assert answer.redirect_chain == [(reverse("account_confirm_login_code"), 302)]
    assert [one.to for one in SmsMessage.objects.all()] == [NUMBER]
    assert len(site.gateway.accepted) == 1
    assert codes_in_clear() == []
    enter(site, last_code(site.gateway))
    assert is_logged_in(site)


def test_a_code_that_failed_is_reported_on_the_page_of_the_form(site, ann):
    site.gateway.balance = 0
    answer = ask(site)
    assert answer.redirect_chain == [(reverse("account_request_login_code"), 302)]
    assert "The SMS was not sent. Try again in a few minutes." in page(answer)
    assert codes_in_clear() == []
    site.gateway.balance = 1000
    assert nothing_goes_out_later(site.gateway)


def test_a_code_that_may_have_been_sent_can_be_entered(site, ann):
    site.gateway.script(1, Fault("reset_after_request", accepted=True))
    assert ask(site).redirect_chain == [(reverse("account_confirm_login_code"), 302)]
    enter(site, last_code(site.gateway))
    assert is_logged_in(site)


def test_limits_hold_and_say_when(site, ann, caplog):
    ask(site)
    site.session.flush()
    answer = ask(site)
    assert "Too many SMS were asked for. Try again in" in page(answer)
    assert len(site.gateway.accepted) == 1
    [line] = [one for one in caplog.records if one.name == REFUSALS]
    assert line.levelname == "WARNING"
    assert line.getMessage().startswith("a code was not sent: A code was sent to this number a")
    assert (line.alias, line.code) == ("default", "limit-codes")
    assert NUMBER not in str(vars(line))


def test_codes_count_for_the_visitor(site, ann, settings):
    settings.SMSKA_LIMITS = {"caller": "2/h"}
    sign_up(site, STRANGER)
    site.session.flush()
    sign_up(site, "8 904 176-49-97")
    site.session.flush()
    assert "Too many SMS were asked for." in page(ask(site))
    assert len(site.gateway.accepted) == 2


def test_the_provider_and_the_text_can_be_others(site, ann, second_provider, monkeypatch):
    monkeypatch.setattr(AccountAdapter, "using", second_provider)
    monkeypatch.setattr(AccountAdapter, "code_text", "%(code)s is for the shop.")
    ask(site)
    message = SmsMessage.objects.get()
    assert message.using == second_provider
    assert message.body == "•••• is for the shop."


def test_after_another_that_failed_the_code_before_is_good(site, ann, settings):
    settings.ACCOUNT_LOGIN_BY_CODE_SUPPORTS_RESEND = True
    ask(site)
    again = {"action": "resend"}
    answer = site.post(reverse("account_confirm_login_code"), again, follow=True)
    assert "Too many SMS were asked for." in page(answer)
    enter(site, last_code(site.gateway))
    assert is_logged_in(site)


class TestSignUp:
    def test_a_code_verifies_the_number(self, site, db):
        answer = sign_up(site)
        assert answer.redirect_chain == [(reverse("account_verify_phone"), 302)]
        site.post(reverse("account_verify_phone"), {"code": last_code(site.gateway)})
        assert Phone.objects.get().number == NUMBER
        assert Phone.objects.get().verified
        assert is_logged_in(site)

    def test_after_a_failure_a_login_sends_the_next_code(self, site, db):
        site.gateway.balance = 0
        answer = sign_up(site)
        assert answer.redirect_chain == [(reverse("account_login"), 302)]
        assert "The SMS was not sent. Try again in a few minutes." in page(answer)
        site.gateway.balance = 1000
        assert nothing_goes_out_later(site.gateway)
        SmsLimit.objects.all().delete()  # as if time had passed
        call_command("sms_balance")  # and the provider were looked at again
        ask(site)
        enter(site, last_code(site.gateway))
        assert is_logged_in(site)
        assert Phone.objects.get().verified

    @pytest.mark.parametrize("failed", [True, False], ids=["failed", "abandoned"])
    def test_a_second_one_sends_a_code_where_the_first_was_not_finished(self, site, db, failed):
        site.gateway.balance = 0 if failed else 1000
        sign_up(site)
        site.gateway.balance = 1000
        time_passes(site)
        answer = sign_up(site)
        assert answer.redirect_chain == [(reverse("account_verify_phone"), 302)]
        site.post(reverse("account_verify_phone"), {"code": last_code(site.gateway)})
        assert is_logged_in(site)
        assert Phone.objects.get().verified

    @pytest.mark.parametrize("way", ["password", "email", "login", "inactive"])
    def test_an_account_with_another_way_in_is_not_shared(self, site, db, way):
        sign_up(site)
        user = get_user_model().objects.get()
        if way == "password":
            user.set_password(PASSWORD)
        elif way == "email":
            EmailAddress.objects.create(user=user, email="mallory@example.com")
        elif way == "login":
            user.last_login = timezone.now()
        else:
            user.is_active = False
        user.save()
        time_passes(site)
        answer = sign_up(site)
        assert answer.redirect_chain == [(reverse("account_verify_phone"), 302)]
        assert len(site.gateway.accepted) == 1

    def test_without_verification_a_second_one_is_no_way_in(self, site, user, settings):
        settings.ACCOUNT_PHONE_VERIFICATION_ENABLED = False
        user.set_unusable_password()
        user.save()
        Phone.objects.create(user=user, number=NUMBER)
        sign_up(site)
        assert not is_logged_in(site)

    def test_no_account_follows_a_number_that_can_be_changed(self, site, db, settings):
        settings.ACCOUNT_PHONE_VERIFICATION_SUPPORTS_CHANGE = True
        sign_up(site)
        time_passes(site)
        sign_up(site)
        assert len(site.gateway.accepted) == 1
        site.post(reverse("account_verify_phone"), {"action": "change", "phone": STRANGER})
        assert Phone.objects.get().number == NUMBER

    def test_a_code_goes_to_the_number_that_was_asked_for_alone(self, site, user, monkeypatch):
        user.set_unusable_password()
        user.save()
        Phone.objects.create(user=user, number=NUMBER)
        monkeypatch.setattr(AccountAdapter, "get_user_by_phone", lambda self, phone: user)
        sign_up(site, STRANGER)  # a second number of the same user
        assert site.gateway.accepted == []

    def test_a_second_one_at_once_hears_when(self, site, db):
        sign_up(site)
        site.session.flush()
        answer = sign_up(site)
        assert answer.redirect_chain == [(reverse("account_login"), 302)]
        assert "Too many SMS were asked for. Try again in" in page(answer)

    def test_so_does_one_that_allauth_limits(self, site, db, settings, caplog):
        settings.ACCOUNT_RATE_LIMITS = {}  # their defaults
        sign_up(site)
        site.session.flush()
        answer = sign_up(site)
        assert answer.redirect_chain == [(reverse("account_login"), 302)]
        assert "The SMS was not sent. Try again in a few minutes." in page(answer)
        [line] = [one for one in caplog.records if one.name == REFUSALS]
        assert line.getMessage() == "a code was not sent: RateLimited"

    def test_the_guide_leaves_it_to_our_limits(self, site, db, settings):
        settings.ACCOUNT_RATE_LIMITS = run("howto/adapters", "verify_phone")["ACCOUNT_RATE_LIMITS"]
        sign_up(site)
        site.session.flush()
        assert "Try again in" in page(sign_up(site))

    def test_a_number_that_no_code_reaches_makes_no_account(self, site, db, settings):
        settings.SMSKA_LIMITS = {"prefixes": {"default": ["+79"]}}
        assert "No SMS can be sent to this number." in page(sign_up(site, "+12025550123"))
        assert not get_user_model().objects.exists()

    @pytest.mark.parametrize("number, words", [("8904", "11 digits"), ("+70001234567", "+70")])
    def test_the_error_of_a_number_is_ours(self, site, number, words):
        assert words in page(sign_up(site, number))
        assert not get_user_model().objects.exists()


class TestNumbersWithoutAccount:
    def test_they_get_nothing(self, site, ann):
        answer = ask(site, STRANGER)
        assert answer.redirect_chain == [(reverse("account_confirm_login_code"), 302)]
        site.session.flush()
        assert sign_up(site).redirect_chain == [(reverse("account_verify_phone"), 302)]
        assert site.gateway.accepted == []
        assert not SmsMessage.objects.exists()

    def test_limits_do_not_show_them(self, site, ann):
        answers = []
        for number in (WRITTEN, STRANGER):
            site.session.flush()
            ask(site, number)
            site.session.flush()
            answers.append(ask(site, number))
        assert ["Too many SMS were asked for." in page(answer) for answer in answers] == [
            True,
            True,
        ]
        assert answers[0].redirect_chain == answers[1].redirect_chain

    def test_neither_does_the_list_of_those_who_want_no_sms(self, site, ann):
        for number in (WRITTEN, STRANGER):
            opt_out(number)
            answer = ask(site, number)
            assert answer.redirect_chain == [(reverse("account_request_login_code"), 302)]
            assert "No SMS can be sent to this number." in page(answer)

    def test_texts_can_be_turned_on(self, site, ann, monkeypatch):
        monkeypatch.setattr(AccountAdapter, "texts_without_code", True)
        ask(site, STRANGER)
        site.session.flush()
        sign_up(site)
        texts = [one.text for one in site.gateway.accepted]
        assert texts == [AccountAdapter.unknown_account_text, AccountAdapter.account_exists_text]


class TestApi:
    def ask(self, site, number=NUMBER):
        return site.post(f"{API}code/request", {"phone": number}, content_type="application/json")

    def test_a_failure_is_an_error(self, site, ann):
        site.gateway.balance = 0
        answer = self.ask(site)
        assert answer.status_code == 400
        assert answer.json()["errors"] == [
            {
                "code": "sms_not_sent",
                "message": "The SMS was not sent. Try again in a few minutes.",
            }
        ]

    def test_so_is_a_limit(self, site, ann):
        assert self.ask(site).status_code == 401  # and waits for the code
        answer = self.ask(site)
        assert answer.status_code == 429
        assert 0 < int(answer["Retry-After"]) <= 30
        assert "Try again in" in answer.json()["errors"][0]["message"]

    def test_after_a_sign_up_no_code_is_waited_for(self, site, db):
        site.gateway.balance = 0
        answer = self.sign_up(site)
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["message"] == (
            "The SMS was not sent. Try again in a few minutes."
        )
        waits = site.get(f"{API}session").json()["data"]["flows"]
        assert not any("is_pending" in flow for flow in waits)
        site.gateway.balance = 1000
        assert nothing_goes_out_later(site.gateway)

    @pytest.mark.parametrize("exists", [True, False], ids=["account", "stranger"])
    def test_a_limited_sign_up_says_when(self, site, user, exists):
        self.sign_up(site)
        Phone.objects.update(verified=exists)
        site.session.flush()
        answer = self.sign_up(site)
        assert answer.status_code == 429
        assert 0 < int(answer["Retry-After"]) <= 30
        assert "Try again in" in answer.json()["errors"][0]["message"]

    def test_so_does_one_that_allauth_limits(self, site, db, settings):
        settings.ACCOUNT_RATE_LIMITS = {}
        self.sign_up(site)
        site.session.flush()
        answer = self.sign_up(site)
        assert answer.status_code == 429
        assert answer.json()["errors"][0]["code"] == "sms_not_sent"

    def test_after_a_sign_up_a_code_is_waited_for(self, site, db):
        flows = self.sign_up(site).json()["data"]["flows"]
        assert [flow["id"] for flow in flows if "is_pending" in flow] == ["verify_phone"]

    def sign_up(self, site):
        return site.post(f"{API}signup", {"phone": NUMBER}, content_type="application/json")

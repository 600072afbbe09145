"""The example project: the demo as a newcomer runs it, and the two forms as a visitor uses them."""

from __future__ import annotations

import html
import os
import re
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format

from django_smska.models import SmsLimit, SmsMessage
from django_smska.sms import outbox
from django_smska.testing.gateway import Fault

from . import catalogue
from .conftest import EXAMPLE

pytestmark = pytest.mark.slow

PHONE = "8 904 176-49-95"


def manage(tmp_path, *args, **env):
    """Run the example's manage.py from another directory, against a database of this test's."""
    mine = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    mine |= {
        "PYTHONPATH": str(EXAMPLE.parent),
        "PYTHONIOENCODING": "utf-8",
        "DEMO_DATABASE_FILE": str(tmp_path / "demo.sqlite3"),
        "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
    }
    return subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE / "manage.py"), *args],
        cwd=tmp_path,
        env={**mine, **env},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )


def test_the_demo_does_what_it_says_and_can_be_run_again(tmp_path):
    passwords = set()
    for _ in range(2):
        ended = manage(tmp_path, "demo", "--no-serve")
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr == ""
        assert "+7904•••4995  delivered" in ended.stdout
        assert "+7904•••4901  rejected" in ended.stdout
        assert "'+7 904 176' is refused, nothing is stored" in ended.stdout
        assert "each text was accepted exactly once: yes" in ended.stdout
        assert "all is as it should be" in ended.stdout
        assert ": NO" not in ended.stdout
        passwords |= set(re.findall(r"name admin, password (\S{12})\n", ended.stdout))
    assert len(passwords) == 2
    with closing(sqlite3.connect(tmp_path / "demo.sqlite3")) as database:
        kept = database.execute("SELECT balance FROM django_smska_providerstate").fetchall()
    assert [float(balance) for (balance,) in kept] == [948, 948]  # of both providers


def test_the_demo_says_at_once_that_its_port_is_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = manage(tmp_path, "demo", "--port", str(port))
    assert ended.returncode == 1
    assert f"Port {port}: " in ended.stderr
    assert "Choose a free one with --port." in ended.stderr
    assert ended.stdout == ""


def test_two_demos_do_not_get_into_each_others_way(tmp_path):
    with closing(sqlite3.connect(tmp_path / "demo.sqlite3.lock")) as other:
        other.execute("BEGIN EXCLUSIVE")
        ended = manage(tmp_path, "demo", "--no-serve")
    assert ended.returncode == 1
    assert "Another demo is running here." in ended.stderr


def test_the_demo_touches_no_other_database(tmp_path):
    ended = manage(tmp_path, "demo", "--no-serve", "--settings=shop.settings")
    assert ended.returncode == 1
    assert "it must not touch another database" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_example_project_has_no_problems(tmp_path):
    """System checks, and no .env is needed."""
    assert manage(tmp_path, "check").returncode == 0
    assert manage(tmp_path, "check", SMS_URL="smska://login:password@gateway.invalid").stderr != ""


LOGIN = """
import re
from django.test import Client
from django_smska.sms import outbox

site = Client()
site.post("/accounts/signup/", {"phone": "8 904 176-49-95"})
[message] = outbox
code = re.match("([0-9]{6}) – ваш код для входа", message.body)[1]
page = site.post("/accounts/phone/verify/", {"code": code}, follow=True)
print(message.using, page.redirect_chain, "_auth_user_id" in site.session)
"""


def test_a_customer_logs_in_by_a_code_of_the_second_provider(tmp_path):
    assert manage(tmp_path, "migrate").returncode == 0
    ended = manage(tmp_path, "shell", "-v", "0", "-c", LOGIN, ALLOWED_HOSTS="testserver")
    assert ended.stderr == ""
    assert ended.stdout == "codes [('/', 302)] True\n"


# --- the site -------------------------------------------------------------------------------------


@pytest.fixture
def site(example, settings, client, db):
    """The example's pages in the test suite's own database."""
    settings.SMSKA_LIMITS = {}
    outbox.clear()
    yield client
    outbox.clear()


@pytest.fixture
def real_site(provider, site):
    """The same, with the stand-in gateway at the other end."""
    site.gateway = provider
    return site


def page(response):
    return response.content.decode()


def test_the_start_page_leads_everywhere(site):
    text = page(site.get(reverse("start")))
    for name in ("order-ready", "code", "admin:index"):
        assert f'href="{reverse(name)}"' in text
    assert "SMS are kept in memory. None is sent." in text


@pytest.fixture
def russian(site, settings):
    """The same for a visitor whose browser asks for Russian."""
    settings.LOCALE_PATHS = []  # so that Django reads the catalogues again, with the shop's
    site.defaults["HTTP_ACCEPT_LANGUAGE"] = "ru"
    return site


class TestInRussian:
    NAMES = {"SMS", "django", "smska", "allauth"}

    def words(self, response):
        text = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page(response), flags=re.DOTALL)
        return html.unescape(text)

    def left_in_english(self, response):
        return set(re.findall("[A-Za-z]{2,}", self.words(response))) - self.NAMES

    @pytest.mark.parametrize("name", ["start", "order-ready", "code"])
    def test_a_page_is_russian_throughout(self, russian, name):
        response = russian.get(reverse(name))
        assert '<html lang="ru">' in page(response)
        assert self.left_in_english(response) == set()

    @pytest.mark.parametrize("times", [1, 2])
    def test_what_became_of_the_sms_is_said_in_russian(self, russian, times):
        given = {"order": "42", "phone": PHONE}
        for _ in range(times):
            response = russian.post(reverse("order-ready"), given, follow=True)
        assert self.left_in_english(response) == set()
        said = "отправлено." if times == 1 else "Сейчас ничего не отправлено. Статус: отправлено."
        assert said in self.words(response)

    def test_a_wrong_code_is_refused_in_russian(self, russian):
        russian.post(reverse("code"), {"phone": PHONE})
        response = russian.post(reverse("code-check"), {"code": "0"})
        assert "В коде шесть цифр." in self.words(response)
        [right] = re.findall("[0-9]{6}", outbox[0].body)
        wrong = "111111" if right == "000000" else "000000"
        response = russian.post(reverse("code-check"), {"code": wrong})
        assert "Код неверный. Осталось попыток: 2." in self.words(response)
        assert self.left_in_english(response) == set()


def test_the_shops_catalogue_is_whole():
    stored = catalogue.read("ru", catalogue.SHOP)
    texts = {message.id: message.string for message in stored if message.id}
    assert set(texts) == {text for text, _ in catalogue.texts(catalogue.SHOP)}
    assert all(texts.values())
    compiled = catalogue.path("ru", "mo", catalogue.SHOP).read_bytes()
    assert compiled == catalogue.compiled(catalogue.updated(stored, catalogue.SHOP))


class TestOrderReady:
    def press(self, site, order="42", phone=PHONE):
        return site.post(reverse("order-ready"), {"order": order, "phone": phone}, follow=True)

    def test_pressed_twice_it_is_sent_once_and_the_second_time_says_so(self, site):
        first, second = page(self.press(site)), page(self.press(site))
        message = SmsMessage.objects.get()
        assert f"SMS {message.pk} to +7904•••4995 is sent." in first
        assert "Nothing was sent now." not in first
        when = date_format(timezone.localtime(message.sent_at), "SHORT_DATETIME_FORMAT")
        assert f"SMS {message.pk} to +7904•••4995 was already sent ({when})." in second
        assert "Nothing was sent now. Status: sent." in second
        assert [message.body for message in outbox] == ["Ваш заказ №42 готов. Ждём вас!"]

    def test_pressed_again_while_the_first_is_in_flight(self, site):
        self.press(site)
        SmsMessage.objects.update(status="sending", sent_at=None)
        text = page(self.press(site))
        assert "is already on its way (sending). Nothing was sent now." in text

    def test_the_same_order_with_another_phone_is_refused(self, site):
        """The second customer gets nothing, and the shop must not say that he does."""
        self.press(site)
        text = page(self.press(site, phone="8 904 176-49-96"))
        assert "Another number has the SMS of order 42 already. Nothing was sent now." in text
        assert "is sent." not in text
        assert [message.to for message in outbox] == ["+79041764995"]

    def test_too_many_to_one_number_are_refused_in_words(self, site):
        for order in range(1, 6):
            self.press(site, order=str(order))
        text = page(self.press(site, order="6"))
        assert "Try again in" in text and "Staff can send" not in text
        assert len(outbox) == 5

    def test_another_order_is_another_message(self, site):
        self.press(site)
        self.press(site, order="43")
        assert len(outbox) == 2

    @pytest.mark.parametrize("phone", ["8904", "nine", ""])
    def test_a_bad_number_is_said_at_its_field(self, site, phone):
        assert 'aria-invalid="true"' in page(self.press(site, phone=phone))
        assert not SmsMessage.objects.exists()

    def test_a_number_that_the_gateway_does_not_serve(self, real_site):
        assert "No SMS can be sent to this number." in page(
            self.press(real_site, phone="+49 30 123456")
        )

    def test_a_refusal_is_said_and_pressing_again_does_not_hide_it(self, real_site):
        real_site.gateway.balance = 0
        assert "The SMS was not sent." in page(self.press(real_site))
        assert "failed. Staff can send it again in the admin." in page(self.press(real_site))

    def test_a_doubt_is_said_and_pressing_again_sends_nothing(self, real_site):
        real_site.gateway.script(1, Fault("reset_after_request", accepted=True))
        assert "It is not certain whether the SMS was sent." in page(self.press(real_site))
        assert "was perhaps sent. Decide in the admin." in page(self.press(real_site))
        assert len(real_site.gateway.accepted) == 1


class TestCode:
    def ask(self, site, phone=PHONE):
        return site.post(reverse("code"), {"phone": phone}, follow=True)

    def check(self, site, code):
        return page(site.post(reverse("code-check"), {"code": code}, follow=True))

    def sent(self):
        return outbox[-1].body[:6]

    def wrong(self):
        return f"{(int(self.sent()) + 1) % 1_000_000:06d}"

    def later(self, **time):
        """Let the messages be so much older, and the limits forget, as if time had passed."""
        SmsLimit.objects.all().delete()
        for message in SmsMessage.objects.all():
            SmsMessage.objects.filter(pk=message.pk).update(
                created_at=message.created_at - timedelta(**time),
                idempotency_key=f"{message.idempotency_key}/{message.pk}",
            )

    def test_the_right_code_is_good_once(self, site):
        assert "We sent it to +7904•••4995." in page(self.ask(site))
        code = self.sent()
        assert "The number +7904•••4995 is yours." in self.check(site, f" {code} ")
        assert "Send me a code" in self.check(site, code)

    def test_the_session_does_not_know_the_code(self, site):
        self.ask(site)
        assert self.sent() not in str(dict(site.session))

    def test_a_few_wrong_tries_lock_it_for_the_right_code_too(self, site):
        self.ask(site)
        assert "Tries left: 2." in self.check(site, self.wrong())
        assert "Tries left: 1." in self.check(site, self.wrong())
        assert "it is locked now" in self.check(site, self.wrong())
        assert "this code is locked" in self.check(site, self.sent())

    def test_what_cannot_be_a_code_is_no_try(self, site):
        self.ask(site)
        assert "The code has six digits." in self.check(site, "12345")
        assert "Tries left: 2." in self.check(site, self.wrong())

    def test_it_expires_and_is_not_sent_late(self, site, monkeypatch):
        self.ask(site)
        assert outbox[0].expires_at - timezone.now() <= timedelta(minutes=5)
        now = timezone.now
        monkeypatch.setattr("shop.codes.timezone.now", lambda: now() + timedelta(minutes=5))
        assert "This code has expired." in self.check(site, self.sent())

    def test_a_second_code_must_wait_and_the_first_stays_good(self, site):
        self.ask(site)
        text = page(self.ask(site))
        assert "Try again in" in text
        assert "I have a code" in text
        assert len(outbox) == 1
        assert "is yours" in self.check(site, self.sent())

    def test_a_visitor_without_cookies_must_wait_too(self, site):
        self.ask(site)
        site.cookies.clear()
        assert "Try again in" in page(self.ask(site, phone="+79041764995"))

    def test_a_new_code_makes_the_old_one_void(self, site):
        self.ask(site)
        old = self.sent()
        self.later(minutes=2)
        self.ask(site)
        assert len(outbox) == 2
        if old != self.sent():
            assert "This is not the code." in self.check(site, old)
        assert "is yours" in self.check(site, self.sent())

    def test_one_visitor_does_not_close_the_form_for_all(self, site):
        for n in range(10):
            self.ask(site, phone=f"8 904 176-49-{n:02}")
        assert "Try again in" in page(self.ask(site, phone="8 904 176-49-20"))
        assert len(outbox) == 10
        site.defaults["REMOTE_ADDR"] = "192.0.2.7"
        self.ask(site, phone="8 904 176-49-20")
        assert len(outbox) == 11

    def test_a_refusal_is_said(self, real_site):
        real_site.gateway.balance = 0
        assert "The SMS was not sent." in page(self.ask(real_site))

    def test_a_code_that_may_have_been_sent_can_be_typed(self, real_site):
        real_site.gateway.script(1, Fault("reset_after_request", accepted=True))
        assert "If it does not arrive in a minute, ask for another." in page(self.ask(real_site))
        code = real_site.gateway.accepted[0].text[:6]
        assert "is yours" in self.check(real_site, code)

    def test_a_bad_number_is_said_at_its_field(self, site):
        assert 'aria-invalid="true"' in page(self.ask(site, phone="8904"))

    def test_without_a_code_there_is_nothing_to_check(self, site):
        assert site.get(reverse("code-check")).url == reverse("code")

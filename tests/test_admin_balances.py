"""The admin asks a provider for its balance, and a pause ends where the answer proves enough."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.utils import timezone

from django_smska import circuit_breaker, conf, kill_switch
from django_smska.admin import alerts
from django_smska.circuit_breaker import Finding
from django_smska.exceptions import SmsError
from django_smska.models import ProviderState, SmsMessage
from django_smska.sms import queue_sms, send_sms
from django_smska.testing.gateway import Fault, closed_port
from django_smska.worker import Worker

PAGE = "/admin/django_smska/providerstate/balances/"
LIST = "/admin/django_smska/smsmessage/"
NUMBER = "+79054443322"
OTHER = "+79054443323"
AGAIN = "Ask for the balance and try again"


@pytest.fixture
def boss(client, transactional_db):
    client.force_login(User.objects.create_superuser("boss"))
    return client


def pause(reason, **fields):
    """Pause the provider, so that it is probed only in an hour."""
    now = timezone.now()
    state = {"reason": reason, "failures": 3, "paused_at": now, **fields}
    ProviderState.objects.update_or_create(
        alias="default", defaults={"probe_at": now + timedelta(hours=1), **state}
    )


def ask(client, alias="default", **more):
    """Press the button; return what is said above the next page."""
    response = client.post(PAGE, {"alias": alias, "_ask": "1", **more}, follow=True)
    assert response.status_code == 200
    [said] = response.context["messages"]
    return f"{said.level_tag}: {said}"


def state():
    return circuit_breaker.state_of("default")


class TestTheAnswer:
    def test_it_is_shown_and_stored(self, provider, boss):
        provider.balance = Decimal("231.75")
        assert ask(boss) == "success: The balance of “default” is 231.75 credits."
        assert (state().balance, provider.balances, provider.sends) == (Decimal("231.75"), 1, 0)
        entry = LogEntry.objects.get()
        assert (entry.object_id, entry.user.username) == ("default", "boss")
        assert entry.change_message == "The balance of “default” is 231.75 credits."

    @pytest.mark.parametrize("reason", ["account", "funds", "unreachable", "busy"])
    def test_it_ends_a_pause_that_it_proves_to_be_over(self, provider, boss, reason):
        pause(reason)
        said = "success: The balance of “default” is 1000 credits. Its pause is ended."
        assert ask(boss) == said
        assert (state().is_paused, state().reason, state().failures) == (False, "", 0)
        assert send_sms(NUMBER, "Ваш заказ готов").status == "sent"

    @pytest.mark.parametrize("balance", [0, -3])
    def test_an_empty_account_stays_paused(self, provider, boss, balance):
        pause("funds")
        provider.balance = balance
        said = ask(boss)
        assert said.startswith(f"warning: The balance of “default” is {balance} credits.")
        assert said.endswith("because the account is empty. Top it up, then ask again.")
        assert state().is_paused and state().balance == balance
        assert state().probe_at > timezone.now()

    @pytest.mark.slow
    @pytest.mark.parametrize("reason", ["hanging", "broken"])
    def test_where_it_proves_nothing_one_message_tries(self, provider, boss, reason):
        pause(reason)
        queue_sms(NUMBER, "one")
        queue_sms(OTHER, "two")
        said = ask(boss)
        assert said.startswith("warning: The balance of “default” is 1000 credits. It stays paused")
        assert state().is_paused and state().reason == reason and state().failures == 3
        provider.script_all(Fault("close_without_answer"), on="send")
        Worker(concurrency=1).run_once()
        statuses = list(SmsMessage.objects.order_by("pk").values_list("status", flat=True))
        assert statuses == ["unknown", "queued"] and state().is_paused
        provider.unscript()
        ask(boss)
        Worker(concurrency=1).run_once()
        statuses = list(SmsMessage.objects.order_by("pk").values_list("status", flat=True))
        assert statuses == ["unknown", "sent"] and not state().is_paused

    def test_a_stop_stays_and_is_said(self, provider, boss):
        pause("unreachable")
        kill_switch.stop("default", by="olga")
        said = ask(boss)
        assert "Its pause is ended. Nothing is sent through “default”: stopped since" in said
        assert "by olga" in said and kill_switch.stops()

    def test_without_a_balance_the_person_ends_the_pause(self, boss, settings):
        settings.SMSKA_LOCMEM_IN_TESTS = False
        settings.SMS_PROVIDERS = {"default": {"BACKEND": "tests.backends.Minimal"}}
        assert ask(boss) == "success: “default” has no balance to ask for."
        pause("hanging")
        said = "success: “default” has no balance to ask for. Its pause is ended."
        assert ask(boss) == said and not state().is_paused

    def test_nothing_is_asked_inside_a_transaction(self, provider, boss, monkeypatch):
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
        seen = []

        def asked(backend):
            seen.append(connection.in_atomic_block)
            return Decimal(5)

        monkeypatch.setattr(circuit_breaker, "ask", asked)
        ask(boss)
        assert seen == [False]


class TestErrors:
    def test_a_wrong_login(self, provider, boss):
        pause("account")
        provider.api_password = "changed"
        said = ask(boss)
        assert said.startswith("error: “default” did not report its balance. The gateway refused")
        assert state().is_paused and state().balance is None
        assert not LogEntry.objects.exists()

    def test_a_gateway_that_is_away(self, provider, boss, settings):
        with closed_port() as port:
            settings.SMS_PROVIDERS["default"]["OPTIONS"]["url"] = f"http://127.0.0.1:{port}/"
            assert "could not be reached: the connection was refused." in ask(boss)

    def test_an_answer_that_is_no_balance(self, provider, boss):
        provider.script_all(Fault("balance_nan"), on="balance")
        assert ask(boss).startswith("error: “default” did not report its balance. ")

    def test_settings_that_are_wrong(self, boss, settings, caplog):
        settings.SMSKA_LOCMEM_IN_TESTS = False
        settings.SMS_PROVIDERS = {"default": {"BACKEND": "gone.away"}}
        said = ask(boss)
        assert "its settings are wrong" in said and "gone.away" not in said
        assert "gone.away" in caplog.text
        assert "its settings are wrong" in boss.get(PAGE).content.decode()

    @pytest.mark.parametrize("alias", ["", "*", "gone", "default\0"])
    def test_a_provider_that_there_is_not(self, provider, boss, alias):
        assert ask(boss, alias) == "warning: There was nothing to do."
        assert not provider.requests and not ProviderState.objects.exists()

    def test_a_process_that_sends_nothing_ends_no_pause(self, provider, boss, monkeypatch):
        pause("funds")
        monkeypatch.setattr(conf, "sends_nothing", lambda: True)
        assert "runs as in a test (SMSKA_TEST_RUN)" in ask(boss)
        assert state().is_paused and not provider.requests

    def test_a_gateways_words_are_for_those_who_may_see_texts(self, client, db, monkeypatch):
        said = f"The gateway refused it. The gateway said: to {NUMBER}: Ваш код 4417"

        def refuse(backend):
            raise SmsError(said)

        monkeypatch.setattr(circuit_breaker, "ask", refuse)
        log_in(client, "view_providerstate", "stop_providerstate")
        assert ask(client).endswith("did not report its balance. The gateway refused it.")


def log_in(client, *codenames):
    user = User.objects.create_user("seller", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client.force_login(user)


class TestThePage:
    def buttons(self, client):
        page = client.get(PAGE).content.decode()
        return re.findall(r'name="_ask"[^>]*aria-label="([^"]*)"', page), page

    def test_a_button_for_each_provider(self, provider, boss, settings):
        settings.SMS_PROVIDERS |= {
            "log": {"BACKEND": "django_smska.backends.console.SmsBackend"},
            "both": {
                "BACKEND": "django_smska.backends.failover.SmsBackend",
                "OPTIONS": {"providers": ["default", "log"]},
            },
        }
        buttons, page = self.buttons(boss)
        assert buttons == ["Ask for the balance: default"]
        assert "It has no balance." in page and "Each of its providers is asked on its own" in page
        pause("account")
        buttons, page = self.buttons(boss)
        assert buttons == ["Ask for the balance and try again: default"]
        assert "may lock the account" in page and "paused: The gateway refuses" in page
        pause("funds")
        assert "may lock the account" not in self.buttons(boss)[1]

    def test_it_is_linked_for_those_who_may(self, client, db):
        log_in(client, "view_providerstate")
        providers = "/admin/django_smska/providerstate/"
        assert PAGE not in client.get(providers).content.decode()
        client.logout()
        User.objects.all().delete()
        log_in(client, "view_providerstate", "stop_providerstate")
        assert (
            f'<a href="{PAGE}">Balances and pauses…</a>' in client.get(providers).content.decode()
        )

    def test_looking_at_it_asks_nothing(self, provider, boss):
        boss.get(PAGE)
        assert not provider.requests


class TestTheAlerts:
    def button(self, client):
        page = client.get(LIST).content.decode()
        return re.findall(r'form="smska-ask"[^>]*>([^<]*)<', page)

    @pytest.mark.parametrize(
        ("fields", "button"),
        [
            ({"reason": "funds", "paused_at": 0, "balance": 5, "balance_at": 0}, AGAIN),
            ({"reason": "account", "paused_at": 0}, AGAIN),
            ({"balance": 5000, "balance_at": 61}, "Ask for the balance"),
            ({"balance": 5, "balance_at": 1}, "Ask for the balance"),
            ({"balance": 5000, "balance_at": 59}, None),
            ({}, None),
        ],
    )
    def test_where_there_is_a_button(self, boss, fields, button):
        now = timezone.now()
        fields = {
            name: now - timedelta(minutes=value) if name.endswith("_at") else value
            for name, value in fields.items()
        }
        ProviderState.objects.create(alias="default", **fields)
        assert self.button(boss) == ([button] if button else [])

    def test_without_a_balance_it_only_tries_again(self, boss, settings):
        settings.SMS_PROVIDERS = {"default": {"BACKEND": "tests.pushing.Mute"}}
        pause("hanging")
        assert self.button(boss) == ["Try again"]

    def test_it_is_for_those_who_may(self, client, db):
        pause("funds")
        log_in(client, "view_smsmessage", "view_providerstate")
        page = client.get(LIST).content.decode()
        assert "is paused" in page and "smska-ask" not in page

    def test_a_press_leads_back_to_the_list(self, provider, boss):
        pause("account")
        page = boss.get(LIST).content.decode()
        form = page.partition('<form id="smska-ask"')[2].partition("</form>")[0]
        assert f'action="{PAGE}"' in form and "csrfmiddlewaretoken" in form
        response = boss.post(PAGE, {"alias": "default", "_list": "1"})
        assert response["Location"] == LIST and not state().is_paused

    def test_who_sees_no_messages_is_led_to_the_page(self, provider, client):
        log_in(client, "view_providerstate", "stop_providerstate")
        assert client.post(PAGE, {"alias": "default", "_list": "1"})["Location"] == PAGE

    def test_a_site_without_providers_has_no_button(self, boss, monkeypatch):
        pause("funds")
        monkeypatch.delitem(admin.site._registry, ProviderState)
        assert alerts.alerts() and self.button(boss) == []


@pytest.mark.parametrize(
    ("reason", "balance", "finding"),
    [
        ("", "7", Finding.OVER),
        ("account", "0", Finding.OVER),
        ("account", "-5", Finding.OVER),
        ("funds", "0", Finding.EMPTY),
        ("funds", "-0.01", Finding.EMPTY),
        ("funds", "0.01", Finding.OVER),
        ("unreachable", "0", Finding.OVER),
        ("busy", "7", Finding.OVER),
        ("hanging", "7", Finding.NOTHING),
        ("broken", "7", Finding.NOTHING),
    ],
)
def test_what_a_balance_shows_of_a_pause(reason, balance, finding):
    assert circuit_breaker.finding(reason, Decimal(balance)) is finding


def test_a_pause_that_begins_while_the_answer_is_stored_is_not_tried_at_once(db, monkeypatch):
    """It is another one, and its own time to be tried has not come."""
    pause("hanging")
    before = state()
    later = timezone.now() + timedelta(minutes=5)
    pause("hanging", paused_at=later, probe_at=later)
    monkeypatch.setattr(circuit_breaker, "state_of", lambda alias: before)
    circuit_breaker.settle("default", Decimal(1))
    assert ProviderState.objects.get().probe_at == later

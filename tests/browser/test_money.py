"""Cost and balance before sending, and a pause that ends at the press of a button."""

import os
from datetime import timedelta

import pytest
from django.utils import timezone

from django_smska import circuit_breaker
from django_smska.models import ProviderState

from .pages import fits

LIST = "/admin/django_smska/smsmessage/"
PROVIDERS = "/admin/django_smska/providerstate/"


@pytest.fixture
def paused(provider):
    now = timezone.now()
    ProviderState.objects.create(
        alias="default",
        reason="funds",
        failures=1,
        paused_at=now,
        probe_at=now + timedelta(hours=1),
        balance=0,
        balance_at=now - timedelta(hours=2),
    )


def kept(page, name):
    """Keep a picture of the page, where a person wants to see it."""
    if folder := os.environ.get("SMSKA_PICTURES"):
        page.screenshot(path=f"{folder}/money-{name}.png", full_page=True)


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 360)])
def test_topped_up_and_tried_again_from_the_list(
    look, superuser, paused, gateway, accessible, theme, width
):
    page = look(superuser, theme=theme, width=width)
    page.goto(LIST)
    button = page.get_by_role("button", name="Ask for the balance and try again: default")
    accessible(page)
    assert fits(page)
    kept(page, f"list-{width}")
    button.click()
    page.get_by_text("Its pause is ended.").wait_for()
    assert page.url.endswith(LIST) and not button.is_visible()
    assert gateway.balances == 1 and not circuit_breaker.state_of("default").is_paused


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 360)])
def test_the_page_of_balances(look, superuser, paused, gateway, accessible, theme, width):
    gateway.balance = 0
    page = look(superuser, theme=theme, width=width, script=theme == "light")
    page.goto(PROVIDERS)
    page.get_by_role("link", name="Balances and pauses…").click()
    page.get_by_role("button", name="Ask for the balance and try again: default").click()
    page.get_by_text("It stays paused, because the account is empty.").wait_for()
    assert fits(page)
    kept(page, f"balances-{width}")
    if theme == "light":  # axe is a script
        accessible(page)
    gateway.balance = 50
    page.get_by_role("button", name="Ask for the balance and try again: default").click()
    page.get_by_text("The balance of “default” is 50 credits. Its pause is ended.").wait_for()
    page.get_by_role("button", name="Ask for the balance: default", exact=True).wait_for()


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 360)])
def test_the_cost_before_sending(look, superuser, provider, settings, accessible, theme, width):
    settings.SMSKA_PRICES = {"default": (1, "credits")}
    ProviderState.objects.create(alias="default", balance=831, balance_at=timezone.now())
    page = look(superuser, theme=theme, width=width)
    page.goto(f"{LIST}compose/")
    page.locator("textarea[name=numbers]").fill("89031112233, 89031112234")
    page.locator("textarea[name=body]").fill("Ваш заказ готов")
    page.get_by_role("button", name="Check").click()
    page.get_by_text("2 messages, 2 segments, about 2 credits").wait_for()
    assert page.get_by_text("about 829 credits, if nothing else is sent").is_visible()
    accessible(page)
    assert fits(page)
    kept(page, f"check-{width}")

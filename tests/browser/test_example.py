"""The example project's pages, as a visitor of the shop meets them."""

import re

import pytest

from django_smska.backends.smska import SmsBackend
from django_smska.models import SmsMessage
from tests.conftest import options
from tests.test_demo import PHONE

from .pages import fits


@pytest.fixture
def shop(provider, example, look):
    """A page of the example shop, whose messages go to the stand-in gateway."""
    return look


@pytest.mark.parametrize("width", [1200, 360])
def test_an_order_is_announced_once(shop, gateway, accessible, width):
    page = shop(width=width)
    page.goto("/")
    accessible(page)
    page.get_by_role("link", name="Your order is ready").click()
    page.get_by_role("heading", name="Your order is ready").wait_for()
    for words in ("+7904•••4995 is sent.", "Nothing was sent now."):
        page.get_by_label("Order number").fill("42")
        page.get_by_label("Customer's phone").fill(PHONE)
        page.get_by_role("button", name="Send the SMS").click()
        page.get_by_text(words).wait_for()
        accessible(page)
    assert fits(page)
    assert gateway.sends == 1


def test_a_code_proves_a_number(shop, gateway, accessible):
    page = shop()
    page.goto("/code/")
    accessible(page)
    page.get_by_label("Your phone").fill(PHONE)
    page.get_by_role("button", name="Send me a code").click()
    page.get_by_role("heading", name="Type the code").wait_for()
    accessible(page)
    [code] = re.findall(r"\d{6}", gateway.accepted[0].text)
    page.get_by_label("Code from the SMS").fill("000000" if code != "000000" else "111111")
    page.get_by_role("button", name="Check").click()
    page.get_by_text("This is not the code").wait_for()
    accessible(page)
    page.get_by_label("Code from the SMS").fill(code)
    page.get_by_role("button", name="Check").click()
    page.get_by_text("+7904•••4995 is yours").wait_for()


@pytest.mark.parametrize("locale", ["en", "ru"])
@pytest.mark.parametrize("width", [1200, 360])
def test_the_pages_of_the_login_by_code(shop, settings, accessible, locale, width):
    settings.LANGUAGE_CODE = locale  # the live server has the middleware of the other tests
    page = shop(locale=locale, width=width)
    for path in ("/accounts/signup/", "/accounts/login/", "/accounts/login/code/"):
        page.goto(path)
        assert page.locator("html").get_attribute("lang") == locale
        accessible(page)
        assert fits(page)
    page.locator("[name=phone]").fill("8 904 17")
    page.locator("button[type=submit]").first.click()
    page.get_by_text("11 цифр" if locale == "ru" else "11 digits").wait_for()
    accessible(page)


@pytest.mark.parametrize("width", [1200, 360])
def test_the_page_of_the_stand_in_gateway(chromium, gateway, accessible, width):
    page = chromium.new_page(viewport={"width": width, "height": 800})
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    try:
        for accepted in (0, 2):
            for number in ("79041764995", "79041764901")[:accepted]:
                backend = SmsBackend(**options(gateway))
                backend.send_message(SmsMessage(to=number, body="Ваш заказ готов. " * 10))
            page.goto(f"http://{gateway.host}:{gateway.port}/")
            page.get_by_role("heading", name=f"Messages accepted: {accepted}").wait_for()
            accessible(page)
            assert fits(page)
        assert complaints == []
    finally:
        page.close()

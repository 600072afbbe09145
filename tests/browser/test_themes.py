"""The admin under the themes that people put over Django's: all is there, and a message is sent.

A theme that is not installed is left out, and said so; ``SMSKA_REQUIRE_BROWSER`` forbids that.
"""

from importlib.util import find_spec

import pytest

from tests.theme_settings import THEMES
from tests.theme_site import site

from .conftest import missing

LIST = "/admin/django_smska/smsmessage/"


def require(theme):
    for app in THEMES[theme]:
        if find_spec(app) is None:
            missing(f"{app} is not installed (pip install --group themes)")


@pytest.fixture(params=[name for name, apps in THEMES.items() if apps])
def themed(request, chromium, gateway, tmp_path):
    """A page of a site under each theme; ``keys`` are those of its messages, by status."""
    require(request.param)
    with site(tmp_path, theme=request.param, gateway_url=gateway.url) as opened:
        context = chromium.new_context(base_url=opened.url, viewport={"width": 1200, "height": 900})
        context.set_default_timeout(20_000)
        context.add_cookies([{"name": "sessionid", "value": opened.session, "url": opened.url}])
        context.route(lambda url: not url.startswith(opened.url), lambda route: route.abort())
        page = context.new_page()
        page.keys = opened.keys
        yield page
        context.close()


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def open_page(page, path):
    assert page.goto(f"{LIST}{path}").status == 200


def test_all_is_there_and_the_buttons_send(themed, gateway):
    """One test for all pages of a theme: each theme is a process."""
    page, keys = themed, themed.keys

    open_page(page, "")
    page.get_by_text("2 messages need attention").wait_for()
    assert page.locator(".smska-status", has_text="delivered").count() == 13
    assert page.get_by_role("link", name="Export…").is_visible()
    press(page, "Ask for the balance: default")
    page.get_by_text("The balance of “default” is 1000 credits.").wait_for()
    assert page.url.endswith(LIST)

    open_page(page, f"{keys['failed']}/change/")
    assert page.get_by_text("and correct the number there.").is_visible()
    assert page.get_by_role("link", name="Send again", exact=True).count() == 0
    page.get_by_role("link", name="Copy to a new message", exact=True).click()
    page.wait_for_url(f"**{LIST}compose/?copy={keys['failed']}*")
    assert page.get_by_role("textbox", name="Numbers").input_value().startswith("+7")
    assert page.get_by_role("textbox", name="Text").input_value()

    open_page(page, f"{keys['delivered']}/change/")
    assert page.get_by_role("link", name="Send again", exact=True).is_visible()

    open_page(page, f"{keys['queued']}/change/")
    assert page.get_by_role("link", name="Cancel sending").is_visible()
    page.get_by_role("link", name="Send", exact=True).click()
    page.get_by_text("Send this message?").wait_for()
    assert gateway.sends == 0
    press(page, "Yes: Send")
    page.get_by_text("Sent: SMS to").wait_for()
    assert gateway.sends == 1

    open_page(page, "add/")
    page.get_by_role("textbox", name="Number").fill("8 904 176-49-95")
    page.get_by_role("textbox", name="Text").fill("Ваш заказ готов")
    assert page.locator("[name=_save]").is_visible()
    page.locator("[name=_send]").click()
    page.get_by_text("Sent: SMS to").wait_for()
    assert gateway.sends == 2

    open_page(page, f"{keys['draft']}/change/")
    assert page.locator("[name=_save]").is_visible() and page.locator("[name=_send]").is_visible()

    open_page(page, f"send/?pks={keys['draft']}")
    page.get_by_role("button", name="No, go back").click()
    page.wait_for_url(f"**{LIST}{keys['draft']}/change/")

    open_page(page, "compose/")
    page.get_by_role("textbox", name="Numbers").fill("8 904 176-49-95\n8 904 176-49-96")
    page.get_by_role("textbox", name="Text").fill("Скидка до воскресенья")
    press(page, "Check…")
    page.get_by_role("button", name="Save as draft").wait_for()
    press(page, "Send now")
    page.get_by_text("Sent: 2 messages").wait_for()
    assert gateway.sends == 4

    open_page(page, "export/")
    with page.expect_download() as download:
        press(page, "Download CSV")
    assert download.value.suggested_filename.endswith(".csv")

    open_page(page, "?status__exact=draft")
    for box in page.locator("[name=_selected_action]").all():
        box.check()
    choose_action(page, "Send…")
    page.get_by_text("2 messages, 2 segments").wait_for()
    press(page, "Yes: Send")
    page.get_by_text("Sent: 2 messages").wait_for()
    assert gateway.sends == 6

    open_page(page, "../providerstate/balances/")
    press(page, "Ask for the balance: default")
    page.get_by_text("The balance of “default” is 994 credits.").wait_for()


def choose_action(page, label):
    with page.expect_navigation():
        page.locator("select[name=action]").select_option(label=label, force=True)
        page.locator("button[name=index]").click()


#: axe's rules about what is ours under a theme; landmarks, for one, are the theme's.
OURS = ("color-contrast", "listitem", "list", "label", "empty-heading")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_unfold_has_our_titles_and_readable_colours(chromium, gateway, tmp_path, scheme, width):
    from axe_playwright_python.sync_playwright import Axe

    require("unfold")
    with site(tmp_path, theme="unfold", gateway_url=gateway.url) as opened:
        context = chromium.new_context(
            base_url=opened.url, viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        context.add_cookies([{"name": "sessionid", "value": opened.session, "url": opened.url}])
        page, keys = context.new_page(), opened.keys
        for path, title in (
            ("", None),
            (f"{keys['delivered']}/change/", "SMS to +7 904 176-"),
            (f"send/?pks={keys['draft']}", "Send"),
            ("compose/", "Write a message"),
            ("statistics/", "Statistics of SMS messages"),
            ("../smsmailing/", None),
            (f"../smsmailing/{keys['mailing']}/change/", "Осенняя распродажа"),
            (f"../smsmailing/{keys['mailing']}/statistics/", "Statistics of “Осенняя"),
        ):
            open_page(page, path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            found = Axe().run(page).response["violations"]
            assert not [one["id"] for one in found if one["id"] in OURS], path
            if title is not None:
                assert page.locator("h2.smska-title").inner_text().startswith(title)
        open_page(page, "")
        links = page.locator(".smska-tool")
        assert links.count() == 3
        boxes = [link.bounding_box() for link in links.all()]
        for left, right in zip(boxes, boxes[1:], strict=False):
            assert width == 360 or left["x"] + left["width"] < right["x"]
        context.close()

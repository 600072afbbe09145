"""An operator's day in a real browser, from the login to a delivered message."""

import pytest
from django.contrib.auth.models import User

from django_smska.models import SmsMessage
from django_smska.states import Status

from .pages import fits

LIST = "/admin/django_smska/smsmessage/"


@pytest.fixture
def drafts(provider):
    for number in (95, 96):
        SmsMessage(to=f"+790417649{number}", body="Ваш заказ готов").save()


def statuses():
    return list(SmsMessage.objects.order_by("pk").values_list("status", flat=True))


def choose_all(page):
    page.wait_for_load_state()  # Django's script does it, which runs when the page is there
    page.get_by_role("checkbox").first.check()


def choose(page, action):
    page.get_by_label("Action:").select_option(label=action)
    page.get_by_role("button", name="Run").or_(page.get_by_role("button", name="Go")).first.click()


def test_from_the_login_to_delivered(look, drafts, gateway, accessible):
    User.objects.create_superuser("boss", password="boss")
    page = look()
    page.goto(LIST)
    page.get_by_label("Username").fill("boss")
    page.get_by_label("Password").fill("boss")
    page.get_by_role("button", name="Log in").click()

    page.wait_for_url(lambda url: "login" not in url)
    choose_all(page)
    choose(page, "Send…")
    page.get_by_text("2 messages, 2 segments").wait_for()
    accessible(page)
    assert gateway.sends == 0
    page.get_by_role("button", name="Yes: Send").click()
    page.get_by_text("Sent: 2 messages").wait_for()
    assert gateway.sends == 2 and statuses() == [Status.SENT, Status.SENT]

    for words in ("No final status yet: 2 messages", "Delivered: 2 messages"):
        choose_all(page)
        choose(page, "Refresh status…")
        page.get_by_role("button", name="Yes: Refresh status").click()
        page.get_by_text(words).wait_for()
    assert statuses() == [Status.DELIVERED, Status.DELIVERED]


def test_the_keyboard_alone_sends(look, superuser, drafts, gateway):
    """Tab, Enter, and the first letter of an action; what has the focus is seen to have it."""
    page = look(superuser)
    page.goto(f"{LIST}?status__exact=draft")
    tab_to(page, "[name=_selected_action]")
    page.keyboard.press("Space")
    tab_to(page, "[name=action]", back=True)
    page.keyboard.type("Send")
    tab_to(page, "button[name=index]")
    page.keyboard.press("Enter")
    page.get_by_text("1 message, 1 segment").first.wait_for()
    tab_to(page, "input[type=submit].default")
    page.keyboard.press("Enter")
    page.get_by_text("Sent: SMS to").wait_for()
    assert gateway.sends == 1


def tab_to(page, selector, back=False):
    # More than a page has, because its start differs: Django focuses the search field, or not yet.
    for _ in range(120):
        page.keyboard.press("Shift+Tab" if back else "Tab")
        if page.evaluate("where => document.activeElement.matches(where)", selector):
            return
    raise AssertionError(f"120 times Tab, and no {selector}")


@pytest.mark.parametrize(("theme", "width"), [("light", 1200), ("dark", 360)])
@pytest.mark.parametrize("path", ["send/?pks={}", "cancel/?pks={}", "export/", "add/"])
def test_pages_are_accessible_and_fit(look, superuser, drafts, accessible, path, width, theme):
    page = look(superuser, theme=theme, width=width)
    page.goto(LIST + path.format(SmsMessage.objects.first().pk))
    accessible(page)
    assert fits(page)


def test_the_export_is_a_file(look, superuser, drafts):
    page = look(superuser)
    page.goto(f"{LIST}?status__exact=draft")
    page.get_by_role("link", name="Export…").click()
    page.get_by_text("2 messages").wait_for()
    for kind, start in (("XLSX", b"PK"), ("CSV", "\ufeff".encode())):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Download {kind}").click()
        assert download.value.path().read_bytes().startswith(start)
    page.get_by_role("button", name="Back").click()
    page.wait_for_url(f"**{LIST}?status__exact=draft")

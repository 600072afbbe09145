"""Times, hours and quiet hours on the page for writing, in a real browser."""

from datetime import datetime, timezone

import pytest

from django_smska import clock
from django_smska.models import SmsMailing, SmsMessage
from django_smska.sms import outbox

from .pages import fits

PAGE = "/admin/django_smska/smsmessage/compose/"
#: Moscow is three hours ahead; there it is 1:20.
NIGHT = datetime(2031, 8, 6, 22, 20, tzinfo=timezone.utc)
MORNING = datetime(2031, 8, 7, 5, 0, tzinfo=timezone.utc)
NUMBERS = "+79041764995\n+79041764996\n+79041764997"


@pytest.fixture(autouse=True)
def night(monkeypatch, settings):
    settings.SMSKA_QUIET_HOURS = {"from": "22:00", "until": "08:00"}
    settings.SMSKA_MAX_AHEAD = 10 * 366 * 24 * 3600
    for name in ("compose_times", "mailing_times"):
        monkeypatch.setattr(f"django_smska.admin.{name}.now", lambda: NIGHT)
    monkeypatch.setattr(clock, "now", lambda: NIGHT)


def write(page, numbers=NUMBERS):
    page.goto(PAGE)
    page.fill("#id_numbers", numbers)
    page.fill("#id_body", "Ready")


@pytest.mark.parametrize("script", [True, False])
def test_a_preset_by_its_name(look, superuser, script):
    page = look(superuser, script=script)
    write(page)
    page.get_by_label("When to send").select_option("on Sunday at 10:00")
    page.click("input[name=_check]")
    assert page.locator("input[name=_send_at_night]").count() == 0
    page.click("input[name=_send]")
    page.wait_for_selector(".messagelist")
    at = datetime(2031, 8, 10, 7, tzinfo=timezone.utc)
    assert set(SmsMessage.objects.values_list("send_after", flat=True)) == {at}


@pytest.mark.parametrize("script", [True, False])
def test_the_first_button_waits_for_the_morning(look, superuser, script):
    page = look(superuser, script=script)
    write(page)
    page.click("input[name=_check]")
    assert "Quiet hours: by the clocks of 3 recipients" in page.inner_text("#content")
    page.get_by_role("button", name="Send outside the quiet hours").click()
    page.get_by_text("Waits until 8 a.m.: quiet hours.").wait_for()
    assert set(SmsMessage.objects.values_list("send_after", flat=True)) == {MORNING}
    assert SmsMailing.objects.get().at_any_hour is False and not outbox


def test_the_other_button_sends_at_night(look, superuser):
    page = look(superuser)
    write(page)
    page.click("input[name=_check]")
    page.get_by_role("button", name="Send at night all the same").click()
    page.wait_for_selector(".messagelist")
    assert len(outbox) == 3


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 768), ("light", 360)])
def test_the_pages_are_accessible_and_fit(look, superuser, accessible, theme, width):
    page = look(superuser, theme=theme, width=width)
    write(page)
    page.select_option("#id_spread", "4")
    assert fits(page)
    accessible(page)
    page.click("input[name=_check]")
    page.wait_for_selector("input[name=_send_at_night]")
    assert fits(page)
    accessible(page)

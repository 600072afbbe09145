"""The pages of mailings in a real browser: they live, also without JavaScript, and fit."""

import pytest
from django.utils import timezone

from django_smska.models import SmsMailing, SmsMessage
from django_smska.sms import send_mass_sms
from django_smska.worker import Worker

from .pages import fits

LIST = "/admin/django_smska/smsmailing/"


@pytest.fixture
def mailing(transactional_db):
    pairs = [(f"+7916{n:07}", f"Скидка до воскресенья, {n}") for n in range(5)]
    mailing = SmsMailing(name="Осенняя распродажа", body="Скидка до воскресенья")
    return send_mass_sms(pairs, mailing=mailing).mailing


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 768), ("light", 360)])
def test_the_pages_are_accessible_and_fit(look, superuser, mailing, accessible, theme, width):
    one, two, three, _four, _five = mailing.messages.order_by("pk")
    for message, status in ((one, "delivered"), (two, "failed"), (three, "unknown")):
        SmsMessage.objects.filter(pk=message.pk).update(status=status)
    page = look(superuser, theme=theme, width=width)
    own = f"{LIST}{mailing.pk}"
    for url in (LIST, f"{own}/change/", f"{own}/statistics/", f"{own}/resend/", f"{own}/resume/"):
        page.goto(url)
        assert fits(page)
        accessible(page)
    mailing.stop(by="olga")
    page.goto(f"{LIST}{mailing.pk}/change/")
    assert page.get_by_role("button", name="Go on…").is_visible() and fits(page)
    accessible(page)


def test_its_numbers_change_without_a_reload(look, superuser, mailing, provider):
    page = look(superuser)
    page.goto(f"{LIST}{mailing.pk}/change/")
    row = page.get_by_role("row", name="Waiting to be sent")
    assert row.get_by_role("link").inner_text() == "5"
    page.evaluate("window.here = true")
    Worker().run_once()
    page.get_by_role("row", name="Sent, not delivered yet 5").wait_for()
    SmsMessage.objects.update(status="delivered")
    page.get_by_text("5 of 5 delivered").first.wait_for()
    assert page.locator(".smska-said").inner_text() == "5 of 5 delivered"
    assert page.evaluate("window.here") is True


def test_its_statistics_are_one_click_away(look, superuser, mailing, accessible):
    mailing.messages.update(status="delivered", sent_at=timezone.now(), finished_at=timezone.now())
    page = look(superuser, width=360, theme="dark")
    page.goto(f"{LIST}{mailing.pk}/change/")
    page.get_by_role("link", name="Statistics").click()
    page.get_by_text("100.0%").first.wait_for()
    page.get_by_role("img", name="Messages sent over time").wait_for()
    page.get_by_text("Messages sent over time: table").click()
    accessible(page)
    assert fits(page)
    page.locator(".smska-back a").click()
    page.wait_for_url(f"**{LIST}{mailing.pk}/change/")


@pytest.mark.parametrize("script", [True, False])
def test_stop_by_two_clicks_and_go_on_by_two_more(look, superuser, mailing, script):
    page = look(superuser, script=script)
    page.goto(LIST)
    page.get_by_role("link", name="Осенняя распродажа").click()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped: 5 messages wait.").wait_for()
    page.get_by_role("button", name="Go on…").click()
    page.get_by_role("button", name="Yes: Let the mailing go on").click()
    page.get_by_text("Queued: 5 messages.").wait_for()
    assert set(mailing.messages.values_list("status", flat=True)) == {"queued"}

"""The lists renew themselves while something is on its way, and never while they are used."""

from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone

from django_smska.models import SmsMailing, SmsMessage, rows
from django_smska.sms import send_mass_sms
from tests.rows import message

LIST = "/admin/django_smska/smsmessage/"
MAILINGS = "/admin/django_smska/smsmailing/"
DONE = "Nothing on this page is on its way now."
STOPPED = "This page is no longer renewed. Load it again to see what has changed."


@pytest.fixture
def sent(transactional_db):
    """Three messages that were sent a minute ago."""
    at = timezone.now() - timedelta(minutes=1)
    numbers = [f"+7915700110{n}" for n in range(3)]
    SmsMessage.objects.bulk_create(message(to, "Букет собран", "sent", at) for to in numbers)
    return list(rows().order_by("-pk"))


#: Notes for how long the script waits each time.
PAUSES = """
window.pauses = [];
const wait = window.setTimeout;
window.setTimeout = (what, ms) => { if (ms >= 4000) pauses.push(ms); return wait(what, ms); };
"""


@pytest.fixture
def open_list(look, superuser):
    """Open a list whose clock goes on by hand; ``fetches`` are the renewals."""

    def opened(url=LIST, **kwargs):
        page = look(superuser, **kwargs)
        page.clock.install()
        page.add_init_script(PAUSES)
        assert page.goto(url).status == 200
        page.wait_for_load_state()
        page.evaluate("window.here = true")
        page.fetches = []
        page.on("request", lambda one: one.resource_type == "fetch" and page.fetches.append(one))
        return page

    return opened


def renew(page):
    """Let the time of one renewal pass, and wait until it is in the page."""
    pauses = page.evaluate("pauses")
    with page.expect_response(lambda answer: answer.request.resource_type == "fetch"):
        page.clock.run_for(pauses[-1])
    said = "document.querySelector('.smska-said').textContent !== ''"
    page.wait_for_function(f"number => pauses.length > number || {said}", arg=len(pauses))


def badge(page, text):
    return page.locator("#result_list .smska-status", has_text=text)


def test_statuses_change_and_the_end_is_said_once(open_list, sent):
    page = open_list()
    page.locator("#searchbar").focus()
    rows([sent[1].pk]).update(status="delivered", finished_at=timezone.now())
    renew(page)
    badge(page, "delivered").wait_for()
    assert badge(page, "sent").count() == 2
    assert page.locator(".smska-said").inner_text() == ""
    rows().update(status="delivered", finished_at=timezone.now())
    renew(page)
    page.get_by_text(DONE).wait_for()
    assert badge(page, "delivered").count() == 3
    assert page.locator("[role=status]", has_text=DONE).count() == 1
    assert page.evaluate("document.activeElement.id") == "searchbar"
    assert page.evaluate("window.here") is True
    number = len(page.fetches)
    page.clock.run_for(120_000)
    assert len(page.fetches) == number


def test_a_new_message_comes_with_a_box_that_works(open_list, sent):
    page = open_list()
    SmsMessage(to="+79157001109", body="Букет собран").save()
    renew(page)
    page.get_by_role("link", name="+7 915 700-11-09").wait_for()
    assert page.locator(".paginator").inner_text().endswith("4 SMS messages")
    page.locator("#action-toggle").check()
    assert page.locator(".action-counter").is_hidden() or "4 of 4" in page.inner_text(".actions")
    assert page.locator("[name=_selected_action]:checked").count() == 4
    page.locator("[name=_selected_action]").first.uncheck()
    assert page.inner_text(".action-counter") == "3 of 4 selected"


def test_a_row_that_stays_keeps_its_box(open_list, sent):
    page = open_list()
    page.evaluate("window.box = document.querySelector('[name=_selected_action]')")
    rows([sent[0].pk]).update(status="rejected", finished_at=timezone.now())
    renew(page)
    badge(page, "rejected").wait_for()
    assert page.evaluate("window.box.isConnected")
    page.locator("[name=_selected_action]").first.check()
    assert page.inner_text(".action-counter") == "1 of 3 selected"


USES = {
    "a ticked box": "document.querySelector('[name=_selected_action]').click()",
    "the focus in a row": "document.querySelector('#result_list tbody a').focus()",
    "a chosen action": "document.querySelector('select[name=action]').selectedIndex = 1",
    "selected text": "getSelection().selectAllChildren(document.querySelector('#result_list'))",
    "an open menu": "document.querySelector('#result_list').setAttribute('aria-expanded', 'true')",
}
ENDS = {
    "a ticked box": "document.querySelector('[name=_selected_action]').click()",
    "the focus in a row": "document.activeElement.blur()",
    "a chosen action": "document.querySelector('select[name=action]').selectedIndex = 0",
    "selected text": "getSelection().removeAllRanges()",
    "an open menu": "document.querySelector('#result_list').removeAttribute('aria-expanded')",
}


@pytest.mark.parametrize("use", USES)
def test_nothing_is_renewed_while_the_list_is_used(open_list, sent, use):
    page = open_list()
    page.evaluate(USES[use])
    rows().update(status="delivered", finished_at=timezone.now())
    page.clock.run_for(60_000)
    assert page.fetches == [] and badge(page, "sent").count() == 3
    page.evaluate(ENDS[use] + "; document.activeElement.blur()")
    renew(page)
    page.get_by_text(DONE).wait_for()


def test_no_row_moves_away_from_the_mouse(open_list, sent):
    page = open_list()
    badge(page, "sent").first.hover()
    SmsMessage(to="+79157001109", body="Букет собран").save()
    renew(page)
    assert badge(page, "sent").count() == page.locator("#result_list tbody tr").count() == 3
    page.mouse.move(1, 1)
    renew(page)
    page.get_by_role("link", name="+7 915 700-11-09").wait_for()


def test_it_asks_less_often_where_nothing_changes_and_ends_after_half_an_hour(open_list, sent):
    page = open_list()
    for _ in range(6):
        renew(page)
    assert page.evaluate("pauses") == [4000, 6000, 9000, 13_500, 20_250, 30_000, 30_000]
    rows([sent[0].pk]).update(status="delivered", finished_at=timezone.now())
    renew(page)
    assert page.evaluate("pauses.at(-1)") == 4000
    page.clock.fast_forward(30 * 60_000)
    page.get_by_text(STOPPED).wait_for()


def test_it_stops_where_the_user_is_logged_out(open_list, sent, complaints):
    page = open_list()
    Session.objects.all().delete()
    page.clock.run_for(5_000)
    page.get_by_text(STOPPED).wait_for()
    number = len(page.fetches)
    page.clock.run_for(120_000)
    assert len(page.fetches) == number
    complaints.clear()  # the browser's own word on the redirect


def test_nothing_is_fetched_where_nothing_is_on_its_way(open_list, sent):
    rows().update(status="delivered", finished_at=timezone.now())
    page = open_list()
    page.clock.run_for(120_000)
    assert page.fetches == []


def test_the_mailings_progress_without_a_reload(open_list, provider, monkeypatch):
    from django_smska import mailing_counts

    monkeypatch.setattr(mailing_counts, "FRESH_FOR", timedelta())
    pairs = [(f"+7915700220{n}", "Скидка на розы") for n in range(4)]
    mailing = send_mass_sms(pairs, mailing=SmsMailing(name="Розы", body="Скидка на розы")).mailing
    page = open_list(MAILINGS)
    page.get_by_text("0 of 4 delivered; waiting: 4").wait_for()
    mailing.messages.update(status="sent")
    renew(page)
    page.get_by_text("0 of 4 delivered", exact=True).wait_for()
    mailing.messages.update(status="delivered")
    renew(page)
    page.get_by_text("4 of 4 delivered").wait_for()
    page.get_by_text(DONE).wait_for()
    assert page.evaluate("window.here") is True

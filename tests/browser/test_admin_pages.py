"""The admin's pages in a real browser: read by a screen reader's rules, and on a phone's width."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from django_smska.models import ProviderState, SmsMessage, rows
from django_smska.states import Status

from .pages import fits

LIST = "/admin/django_smska/smsmessage/"


@pytest.fixture
def messages(transactional_db):
    """One of each status, by status; and a provider with something to say."""
    now = timezone.now()
    ProviderState.objects.create(alias="default", balance=Decimal(9), balance_at=now)
    SmsMessage.objects.bulk_create(
        SmsMessage(
            to=f"+7904176{4995 + number}",
            body="Ваш заказ 1234 готов, ждём вас до 20:00 в магазине на улице Ленина, 5",
            sender="Shop",
            status=status,
            expires_at=now,
            lease_until=now,
            sending_at=now - timedelta(seconds=90),
            sent_at=now - timedelta(seconds=89),
            finished_at=now,
            attempts=1,
        )
        for number, status in enumerate(Status.values)
    )
    return {message.status: message for message in SmsMessage.objects.all()}


@pytest.mark.parametrize(("theme", "width"), [("light", 1200), ("dark", 360)])
def test_list_and_messages_are_accessible_and_fit(
    look, superuser, messages, accessible, theme, width
):
    page = look(superuser, theme=theme, width=width)
    page.goto(LIST)
    assert page.get_by_text("2 messages need attention").is_visible()
    assert fits(page)
    accessible(page)
    for status in ("delivered", "failed", "unknown", "draft"):
        page.goto(f"{LIST}{messages[status].pk}/change/")
        assert fits(page)
        accessible(page)


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("light", 768), ("dark", 360)])
@pytest.mark.parametrize("names", [["view", "send"], ["resend"]])
def test_a_refusal_is_accessible_and_leads_back(
    look, staff, accessible, complaints, theme, width, names
):
    page = look(staff(*names), theme=theme, width=width)
    assert page.goto(f"{LIST}compose/").status == 403
    assert "403" in complaints.pop() and complaints == []  # the browser's own word
    assert page.get_by_role("heading", name="You lack").is_visible()
    assert fits(page)
    accessible(page)
    page.get_by_role("button", name="Back").click()
    page.wait_for_url(LIST if "view" in names else "**/admin/")


@pytest.mark.parametrize(
    ("width", "display"), [(1440, "table-row"), (1280, "table-row"), (768, "grid"), (360, "grid")]
)
@pytest.mark.parametrize("providers", [["default"], ["default", "transactional"]])
def test_the_list_is_never_cut(look, superuser, messages, settings, width, display, providers):
    """It is a table where one fits, and cards elsewhere; the search field keeps its width."""
    settings.LANGUAGE_CODE = "ru"
    settings.SMS_PROVIDERS = {alias: {} for alias in providers}
    rows().filter(status="delivered").update(using=providers[-1], sender="Romashka", segments=3)
    page = look(superuser, width=width)
    page.goto(LIST)
    table = page.locator("#result_list")
    assert table.evaluate("node => node.parentNode.scrollWidth <= node.parentNode.clientWidth")
    assert fits(page)
    row = table.locator("tbody tr", has_text="Romashka").first
    assert row.evaluate("node => getComputedStyle(node).display") == display
    label = row.locator(".smska-label")
    assert label.count() == (len(providers) > 1)
    assert not label.count() or label.is_visible() == (display == "grid")
    assert page.locator("#action-toggle").is_visible()
    assert page.locator("#searchbar").bounding_box()["width"] > 200


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("query", ["?q=8930", "?status__exact=expired", ""])
def test_a_list_without_rows_is_accessible(
    look, superuser, transactional_db, accessible, theme, query
):
    page = look(superuser, width=360, theme=theme)
    page.goto(f"{LIST}{query}")
    assert fits(page)
    accessible(page)


def test_the_mark_before_a_status_is_not_read_aloud(look, superuser, messages):
    page = look(superuser)
    page.goto(f"{LIST}{messages['unknown'].pk}/change/")
    badge = page.locator(".smska-status")
    assert badge.inner_text() == "unknown"
    content = badge.evaluate("node => getComputedStyle(node, '::before').content")
    assert content == '"?" / ""'


def test_the_gateways_own_words_are_folded_away(look, superuser, messages):
    page = look(superuser)
    page.goto(f"{LIST}{messages['failed'].pk}/change/")
    attempts = page.get_by_text("Attempts:")
    assert not attempts.is_visible()
    page.get_by_text("For technical support").click()
    assert attempts.is_visible()


def test_from_the_login_to_a_delivered_message_in_seven_clicks(look, superuser, provider):
    provider.fate("79041764995", "DELIVRD", after=0)
    page = look()
    page.goto("/admin/")
    page.get_by_label("Username").fill("boss")
    page.get_by_label("Password").fill("boss")
    page.get_by_role("button", name="Log in").click()
    page.locator(".model-smsmessage").get_by_role("link", name="SMS messages").click()
    page.get_by_role("link", name="Write to one or many…").click()
    page.locator("#id_numbers").fill("8 904 176-49-95")
    page.locator("#id_body").fill("Ваш заказ готов")
    page.get_by_role("button", name="Check…").click()
    page.get_by_role("button", name="Send now").click()
    page.get_by_role("link", name="Refresh status").click()
    page.get_by_role("button", name="Yes").click()
    assert page.locator(".smska-status").inner_text() == "delivered"
    assert provider.times_accepted("79041764995", "Ваш заказ готов") == 1


@pytest.mark.parametrize("model", ["smsoptout", "smsinbound"])
def test_fields_to_search_in_have_names_and_help(look, superuser, accessible, model):
    page = look(superuser)
    page.goto(f"/admin/django_smska/{model}/")
    assert page.locator(".smska-searches").inner_text() == "A whole number, in any spelling."
    accessible(page)

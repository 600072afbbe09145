"""The page that asks before an action, in a real browser."""

import pytest
from django.utils import timezone

from django_smska.models import ProviderState, SmsMessage
from django_smska.sms import queue_sms

LIST = "/admin/django_smska/smsmessage/"


@pytest.fixture
def draft(transactional_db):
    draft = SmsMessage(to="+79041764995", body="Ваш заказ готов")
    draft.save()
    return draft


@pytest.mark.parametrize(("theme", "language"), [("light", "en"), ("dark", "ru")])
def test_it_is_accessible_and_fits_a_phone(
    look, superuser, draft, accessible, settings, language, theme
):
    settings.LANGUAGE_CODE = language
    page = look(superuser, width=360, theme=theme)
    page.goto(f"{LIST}send/?pks={draft.pk}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    button = {"en": "Yes: Send", "ru": "Да: Отправить"}[language]
    assert page.get_by_role("button", name=button, exact=True).is_visible()
    accessible(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_is_said_before_sending_again_fits_a_phone(
    look, superuser, transactional_db, accessible, theme
):
    message = queue_sms("+79161234567", "Your parcel 8 is here")
    other = queue_sms("+79161234568", "Your parcel 9 is here")
    SmsMessage.objects.filter(pk=message.pk).update(status="unknown")
    SmsMessage.objects.filter(pk=other.pk).update(status="failed", error_code="-6")
    page = look(superuser, width=360, theme=theme)
    page.goto(f"{LIST}resend/?pks={message.pk},{other.pk}")
    assert "1 message may have arrived" in page.locator(".smska-warns").inner_text()
    assert page.get_by_text("It would fail again.").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    accessible(page)


@pytest.mark.parametrize("path", ["providerstate/stop/", "smsmessage/held/"])
@pytest.mark.parametrize(("theme", "language"), [("light", "en"), ("dark", "ru")])
def test_stops_and_holds_fit_a_phone(
    look, superuser, transactional_db, accessible, settings, language, theme, path
):
    settings.LANGUAGE_CODE = language
    queue_sms("+79041764995", "Ваш заказ готов")
    ProviderState.objects.create(alias="default", held_before=timezone.now())
    page = look(superuser, width=360, theme=theme)
    page.goto(f"/admin/django_smska/{path}")
    assert page.locator("input[type=submit]").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    accessible(page)

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

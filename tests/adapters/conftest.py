"""The site, with the stand-in gateway at the other end, with and without ``ATOMIC_REQUESTS``."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection

from django_smska.models import SmsMessage

PASSWORD = "correct horse"
REFUSALS = "django_smska.adapters.refusals"


@pytest.fixture(params=[False, True], ids=["autocommit", "atomic-requests"])
def site(request, provider, client, settings, monkeypatch):
    """Return a client of the site; its ``gateway`` is the stand-in."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", request.param)
    settings.SMSKA_LIMITS = {}  # the defaults
    client.gateway = provider
    return client


@pytest.fixture
def second_provider(settings):
    settings.SMS_PROVIDERS["codes"] = settings.SMS_PROVIDERS["default"]
    return "codes"


@pytest.fixture
def user(transactional_db):
    return get_user_model().objects.create_user("ann", password=PASSWORD)


def page(response):
    return response.content.decode()


def last_code(gateway):
    return re.search("[0-9]{6}", gateway.accepted[-1].text)[0]


def nothing_goes_out_later(gateway):
    """Whether a worker finds nothing to send."""
    before = len(gateway.accepted)
    call_command("sms_worker", "--once")
    return len(gateway.accepted) == before


def codes_in_clear():
    """The texts of the table in which a code stands."""
    return [body for body in SmsMessage.objects.values_list("body", flat=True) if "•" not in body]

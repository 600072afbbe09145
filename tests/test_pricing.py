"""What a segment costs, by the settings or by what was charged, and what a balance counts."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_smska import conf, pricing
from django_smska.admin import wording
from django_smska.checks import check_settings
from django_smska.exceptions import InvalidProvider
from django_smska.management.tables import unit_of_balance
from django_smska.models import ProviderState, SmsMessage
from django_smska.providers import providers

NOW = timezone.now()
TWILIO = {
    "BACKEND": "django_smska.backends.twilio.SmsBackend",
    "OPTIONS": {"account_sid": "AC" + "1" * 32, "auth_token": "t", "sender_id": "+15005550006"},
}
HTTP = {
    "BACKEND": "django_smska.backends.http.SmsBackend",
    "OPTIONS": {
        "url": "https://sms.invalid/send",
        "form": {"to": "{to}", "text": "{text}"},
        "accepted": {"text": "OK"},
        "balance_query": {"url": "https://sms.invalid/balance", "balance": "rest"},
    },
}


def charged(price, currency="RUB", *, ago=1, using="default", status="delivered", **sizes):
    """Store a message for which this was charged; None for one whose price is not known."""
    at = NOW - timedelta(minutes=ago)
    sizes = {"segments": 1, **sizes}
    values = {"status": status, "using": using, "send_after": at, "expires_at": NOW, **sizes}
    message = SmsMessage(
        to="+79031112233",
        body="text",
        price=price,
        currency="" if price is None else currency,
        **values,
    )
    SmsMessage.objects.bulk_create([message])


class TestThePrice:
    pytestmark = pytest.mark.django_db

    def test_it_is_not_known_at_first(self):
        charged(None)
        charged("4", status="failed")
        assert pricing.price_of_segment("default") is None

    def test_the_setting_comes_first(self, settings):
        charged("4")
        settings.SMSKA_PRICES = {"default": ("2.90", "rub")}
        assert pricing.price_of_segment("default") == (Decimal("2.90"), "RUB")

    def test_it_is_the_mean_of_what_was_charged_for_a_segment(self):
        charged("7.50", segments=3)
        charged("2.50", segments=1, status="sent")
        assert pricing.price_of_segment("default") == (Decimal("2.5"), "RUB")

    def test_segments_are_those_that_were_billed(self):
        charged("6", segments=3, billed_segments=2)
        charged(Decimal(0), segments=1, billed_segments=0)
        assert pricing.price_of_segment("default") == (Decimal(3), "RUB")

    def test_nothing_billed_is_no_price(self):
        charged(Decimal(0), segments=1, billed_segments=0)
        assert pricing.price_of_segment("default") is None

    def test_the_currency_is_that_of_the_newest(self):
        charged("90", "RUB", ago=5)
        charged("0.04", "EUR", ago=3)
        assert pricing.price_of_segment("default") == (Decimal("0.04"), "EUR")

    def test_another_providers_charges_do_not_count(self):
        charged("4", using="bulk")
        assert pricing.price_of_segment("default") is None

    def test_the_newest_messages_of_each_status_count(self, monkeypatch):
        monkeypatch.setattr(pricing, "NEWEST_MESSAGES", 2)
        for price, ago in (("5", 4), ("2", 3), ("3", 2)):
            charged(price, ago=ago)
        assert pricing.price_of_segment("default") == (Decimal("2.5"), "RUB")

    def test_it_is_found_by_an_index_and_reads_few_rows(self):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            pricing.price_of_segment("default")
        assert len(queries) == 2
        for query in queries:
            assert f"LIMIT {pricing.NEWEST_MESSAGES}" in query["sql"]
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                cursor.execute("EXPLAIN QUERY PLAN " + queries[0]["sql"])
                plan = " ".join(row[3] for row in cursor.fetchall())
            assert "smska_due" in plan and "TEMP B-TREE" not in plan


class TestTheSetting:
    @pytest.mark.parametrize(
        ("value", "price"),
        [
            (("3.50", "RUB"), (Decimal("3.50"), "RUB")),
            ([Decimal("0.0079"), "usd"], (Decimal("0.0079"), "USD")),
            ((1, "credits"), (Decimal(1), "credits")),
            ((2.5, "RUB"), (Decimal("2.5"), "RUB")),
        ],
    )
    def test_a_price(self, settings, value, price):
        settings.SMSKA_PRICES = {"default": value}
        assert conf.prices() == {"default": price}
        assert check_settings(None) == []

    @pytest.mark.parametrize(
        "value",
        [
            "3.50",
            ("3.50",),
            ("3,50", "RUB"),
            ("0", "RUB"),
            ("-1", "RUB"),
            ("NaN", "RUB"),
            ("Infinity", "RUB"),
            ("1e6", "RUB"),
            ("3.50", "roubles"),
            ("3.50", ""),
            ("3.50", None),
            (None, "RUB"),
            ("3.50", "RUB", "x"),
            7,
        ],
        ids=repr,
    )
    def test_what_is_no_price(self, settings, value):
        settings.SMSKA_PRICES = {"default": value}
        [error] = check_settings(None)
        assert error.id == "smska.E011"
        assert error.msg == (
            "SMSKA_PRICES: 'default' must have a price and its unit, such as ('3.50', 'RUB') or "
            "(1, 'credits')."
        )

    def test_a_provider_that_there_is_not(self, settings):
        settings.SMSKA_PRICES = {"bulk": ("3", "RUB")}
        [error] = check_settings(None)
        assert error.msg == "SMSKA_PRICES: 'bulk' is not in SMS_PROVIDERS."

    @pytest.mark.parametrize("value", [["3"], "3", None, 3])
    def test_it_is_a_dict(self, settings, value):
        settings.SMSKA_PRICES = value
        with pytest.raises(ImproperlyConfigured, match="SMSKA_PRICES must be a dict"):
            conf.prices()


class TestTheUnit:
    @pytest.mark.parametrize(
        ("backend", "unit"), [("smska", "credits"), ("smsc", "RUB"), ("locmem", "credits")]
    )
    def test_of_our_backends(self, settings, backend, unit):
        login = {"smska": ("api_key", "api_password"), "smsc": ("login", "password")}
        options = dict.fromkeys(login.get(backend, ()), "x")
        path = f"django_smska.backends.{backend}.SmsBackend"
        settings.SMS_PROVIDERS = {"default": {"BACKEND": path, "OPTIONS": options}}
        assert pricing.unit_of_balance("default") == unit

    def test_of_an_account_in_a_currency_that_its_charges_show(self, db, settings):
        settings.SMS_PROVIDERS = {"default": TWILIO}
        settings.SMSKA_PRICES = {"default": ("9", "RUB")}  # what the shop reckons with
        assert pricing.unit_of_balance("default") == "money"
        charged("0.0079", "USD")
        assert pricing.unit_of_balance("default") == "USD"

    @pytest.mark.parametrize(("given", "unit"), [("", ""), ("RUB", "RUB"), ("credits", "credits")])
    def test_of_one_that_the_settings_describe(self, settings, given, unit):
        options = {**HTTP["OPTIONS"], "balance_unit": given}
        settings.SMS_PROVIDERS = {"default": {**HTTP, "OPTIONS": options}}
        assert pricing.unit_of_balance("default") == unit

    def test_another_word_is_refused(self, settings):
        options = {**HTTP["OPTIONS"], "balance_unit": "roubles"}
        settings.SMS_PROVIDERS = {"default": {**HTTP, "OPTIONS": options}}
        with pytest.raises(InvalidProvider, match="'balance_unit' must be 'credits', or three"):
            providers.configured("default")

    @pytest.mark.parametrize("value", ["roubles", 7, None, "money"])
    def test_of_a_foreign_backend(self, settings, monkeypatch, value):
        settings.SMS_PROVIDERS = {"default": {"BACKEND": "tests.backends.Minimal"}}
        monkeypatch.setattr("tests.backends.Minimal.balance_unit", value)
        monkeypatch.setattr(pricing, "_charged", lambda alias: None)
        assert pricing.unit_of_balance("default") == (value if value == "money" else "")

    def test_of_one_that_cannot_be_made(self, settings):
        settings.SMS_PROVIDERS = {"default": {"BACKEND": "gone"}}
        assert pricing.unit_of_balance("default") == ""


class TestItsWord:
    @pytest.mark.parametrize(
        ("number", "unit", "words"),
        [
            ("1", "credits", "1 credit"),
            ("831", "credits", "831 credits"),
            ("0", "credits", "0 credits"),
            ("7463.5", "credits", "7463.50 credits"),
            ("1831.5", "RUB", "₽1,831.50"),
            ("-2.25", "EUR", "-€2.25"),
            ("12.345", "money", "12.35 in the account's currency"),
            ("90", "", "90 (unit not known)"),
        ],
    )
    def test_an_amount(self, number, unit, words):
        assert wording.amount(Decimal(number), unit) == words

    def test_a_balance(self, db, settings):
        settings.SMS_PROVIDERS = {"default": {**HTTP, "OPTIONS": dict(HTTP["OPTIONS"])}}
        state = ProviderState(alias="default", balance=Decimal("61"), balance_at=NOW)
        assert wording.balance_words(state).startswith("61 (unit not known), as of ")
        settings.SMS_PROVIDERS["default"]["OPTIONS"]["balance_unit"] = "KZT"
        assert wording.balance_words(state).startswith("₸61.00, as of ")

    def test_commands_name_it_without_the_database(self, settings, monkeypatch):
        def away(alias):
            raise DatabaseError

        settings.SMS_PROVIDERS = {"default": TWILIO}
        monkeypatch.setattr(pricing, "_charged", away)
        assert unit_of_balance("default") == "in the account's currency"

"""Our own name of a message, and what its provider says that it costs."""

import copy
import re
from decimal import Decimal

import pytest

from django_smska import checked_backend, clock, sending
from django_smska.backends.base import BaseSmsBackend
from django_smska.models import SmsMessage
from django_smska.receipts import Receipt, Report
from django_smska.references import new_reference
from django_smska.sms import queue_sms, send_mass_sms, send_sms
from django_smska.states import Status
from django_smska.worker import Worker

NUMBER = "+79041764993"


def test_a_reference_has_22_letters_and_digits():
    drawn = {new_reference() for _ in range(2000)}
    assert len(drawn) == 2000
    assert all(re.fullmatch("[A-Za-z0-9]{22}", one) for one in drawn)
    assert set("".join(drawn)) == set(
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    )


@pytest.mark.django_db
def test_a_copy_keeps_the_reference_that_it_was_noted_by():
    message = SmsMessage(to=NUMBER, body="one")
    message.save()
    message.make_new()
    noted = message.reference
    message.save()
    assert message.reference == noted


@pytest.mark.django_db
def test_a_late_error_text_hides_no_report_that_cancelled_it():
    message = queue_sms(NUMBER, "one")
    SmsMessage.objects.update(status=Status.CANCELLED, error_code="reported")
    sending._write_diagnostics(message, {"error_code": "busy", "error_text": "later"})
    assert SmsMessage.objects.get().error_code == "reported"
    assert not SmsMessage.objects.all().unsent().exists()


@pytest.mark.django_db
def test_each_row_has_its_own(provider):
    first = queue_sms(NUMBER, "one")
    again = copy.copy(first)
    again.make_new()
    again.status = Status.DRAFT
    again.save()
    twins = [SmsMessage(to=NUMBER, body="two")]
    twins.append(copy.deepcopy(twins[0]))
    assert send_mass_sms(twins) == 2
    stored = SmsMessage.objects.values_list("reference", flat=True)
    assert len(set(stored)) == 4 and all(re.fullmatch("[A-Za-z0-9]{22}", one) for one in stored)
    first.refresh_from_db()
    assert again.reference != first.reference


@pytest.mark.django_db
def test_a_message_that_is_sent_again_has_another(provider):
    message = queue_sms(NUMBER, "text")
    SmsMessage.objects.update(status=Status.FAILED)
    assert sending.resend(message).reference != message.reference


class Priced(BaseSmsBackend):
    """Says what each message costs; what it was given is in ``seen``."""

    uses_network = False
    receipt = Receipt("id", price=Decimal("2.9"), currency="rub", segments=2)
    seen: list = []

    def send_message(self, message):
        self.seen.append(message.reference)
        return self.receipt


@pytest.fixture
def priced(settings, monkeypatch):
    monkeypatch.setattr(Priced, "seen", [])
    settings.SMSKA_LOCMEM_IN_TESTS = False
    settings.SMS_PROVIDERS = {"default": {"BACKEND": f"{__name__}.Priced"}}


@pytest.mark.django_db
def test_a_backend_gets_the_reference_that_is_stored(priced):
    message = send_sms(NUMBER, "text")
    assert Priced.seen == [message.reference]
    assert SmsMessage.objects.get().reference == message.reference


def price_of(message):
    message.refresh_from_db()
    return message.price, message.currency, message.billed_segments


@pytest.mark.django_db(transaction=True)
def test_what_a_receipt_says_about_the_price_is_stored(priced, monkeypatch):
    assert price_of(send_sms(NUMBER, "now")) == (Decimal("2.9"), "RUB", 2)
    queued = [queue_sms(NUMBER, f"later {number}") for number in range(3)]
    Worker().run_once()
    assert {price_of(one) for one in queued} == {(Decimal("2.9"), "RUB", 2)}
    monkeypatch.setattr(Priced, "receipt", Receipt("other"))
    assert price_of(send_sms(NUMBER, "free of words")) == (None, "", None)


@pytest.mark.parametrize(
    ("said", "stored"),
    [
        ({"price": Decimal("NaN")}, (None, "", None)),
        ({"price": Decimal(10) ** 9, "segments": 1}, (None, "", 1)),
        ({"price": 0.05, "currency": "US dollars"}, (Decimal("0.05"), "", None)),
        ({"price": Decimal("0.00750004"), "currency": "EUR"}, (Decimal("0.0075"), "EUR", None)),
        ({"segments": -1, "currency": None}, (None, "", None)),
        ({"segments": "3"}, (None, "", 3)),
    ],
)
@pytest.mark.django_db
def test_a_price_that_cannot_be_stored_loses_no_message(priced, monkeypatch, said, stored):
    monkeypatch.setattr(Priced, "receipt", Receipt("id", **said))
    message = send_sms(NUMBER, "text")
    assert message.status == Status.SENT and price_of(message) == stored


def test_what_a_report_says_is_kept_as_far_as_it_can_be_stored(priced, monkeypatch):
    said = Report("delivered", "ok", "id", "é" * 22, Decimal("1.5"), "EUR", 10**9)
    monkeypatch.setattr(Priced, "get_status", lambda self, message: said, raising=False)
    kept = checked_backend.provider("default").get_status(SmsMessage())
    assert kept == Report("delivered", "ok", "id", "", Decimal("1.5"), "EUR", None)


@pytest.mark.django_db(transaction=True)
def test_a_receipt_without_a_price_keeps_what_a_report_has_said(priced, monkeypatch):
    """Also where another one of its group has a price."""
    priced_one, silent = (queue_sms(NUMBER, text) for text in ("priced", "silent"))
    messages = sending.claim(SmsMessage.objects.order_by("pk"), clock.now())
    assert len(sending.mark_sending(messages)) == 2
    SmsMessage.objects.filter(pk=silent.pk).update(price="7.5", currency="EUR", billed_segments=3)
    outcomes = [Receipt("one", price=Decimal("2.9"), currency="RUB", segments=2), Receipt("two")]
    sending.record([sending.Result(*pair) for pair in zip(messages, outcomes, strict=True)])
    assert price_of(priced_one) == (Decimal("2.9"), "RUB", 2)
    assert price_of(silent) == (Decimal("7.5"), "EUR", 3)
    assert {silent.status, priced_one.status} == {Status.SENT}

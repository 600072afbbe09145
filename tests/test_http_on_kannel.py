"""The settings that the documentation has for the backend ``http``, against the real Kannel."""

from __future__ import annotations

import pytest

from django_smska.backends.http import SmsBackend
from django_smska.exceptions import AuthenticationFailed, InvalidRecipient, InvalidRequest
from django_smska.receipts import Evidence, Receipt

from . import smpp_smsc
from .documents import run
from .kannel_server import IN_BLACK_LIST, NOT_ROUTABLE, PASSWORD, USERNAME
from .test_contract import TEXTS, message, outcome
from .test_kannel import arrived, kannel, public, receiver, smsc, to_a_new_number

__all__ = ["kannel", "public", "receiver", "smsc"]  # fixtures
pytestmark = pytest.mark.slow


@pytest.fixture
def backend(kannel, public, monkeypatch):
    monkeypatch.setenv("KANNEL_USERNAME", USERNAME)
    monkeypatch.setenv("KANNEL_PASSWORD", PASSWORD)
    (entry,) = run("howto/http", "<dlr-url>")["SMS_PROVIDERS"].values()
    return SmsBackend(**{**entry["OPTIONS"], "url": kannel.url}, alias="default")


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_reaches_the_smsc_as_it_was_sent(backend, smsc, text):
    one = to_a_new_number(text)
    assert backend.send_message(one) == Receipt() and one.begun == [1]
    first, *_ = arrived(smsc, one)
    parts = sorted(arrived(smsc, one, first.place[1]), key=lambda part: part.place)
    assert smpp_smsc.text_of(*parts) == text and first.sender == "MyShop"


@pytest.mark.parametrize(
    ("number", "error"), [(IN_BLACK_LIST, InvalidRecipient), (NOT_ROUTABLE, InvalidRequest)]
)
def test_what_kannel_refuses(backend, smsc, number, error):
    assert type(outcome(backend, message(to=number))) is error
    assert smsc.sent_to(number.lstrip("+")) == []


def test_a_wrong_login(backend, smsc, monkeypatch):
    wrong = {"username": USERNAME, "password": "another"}
    monkeypatch.setattr(backend, "login", type(backend.login)(**wrong))
    one = to_a_new_number()
    assert type(outcome(backend, one)) is AuthenticationFailed
    assert smsc.sent_to(one.to.lstrip("+")) == []


def test_a_report_carries_our_reference(backend, receiver):
    one = to_a_new_number()
    backend.send_message(one)
    receiver.wait_for_status(backend, one.reference, "delivered")
    assert backend.evidence == Evidence.REPORTED

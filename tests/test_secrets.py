"""Promise 7: password, text and whole number in no log line, exception, repr, row or debug page."""

import importlib
import logging
import pickle
import sys
import traceback

import pytest
from django.views.debug import ExceptionReporter

from django_smska.exceptions import SmsError
from django_smska.models import SmsMessage
from django_smska.providers import providers
from django_smska.sms import queue_sms, send_sms
from django_smska.testing.faults import Fault, answer
from django_smska.testing.gateway import StandInGateway, closed_port
from django_smska.worker import Worker

from .conftest import options

# Put together, since a traceback quotes the source.
LOGIN, PASSWORD = "-".join(("log", "in")), "-".join(("pass", "word"))
TEXT = " ".join(("the", "whole", "text"))
NUMBER = "+7904" + "1764995"
SECRETS = {
    "login": LOGIN,
    "password": PASSWORD,
    "text": TEXT,
    "number": NUMBER[1:],
    "number as typed": NUMBER[3:],
}

FAULTS = {
    "wrong login": Fault("wrong_login"),
    "no answer": Fault("reset_after_request"),
    "echo of the request": answer(
        f"-4|{LOGIN} {PASSWORD} {TEXT} {NUMBER} APIPassword={PASSWORD}".encode(), accepted=False
    ),
    "echo in a PHP warning": answer(
        f"Warning: query('{PASSWORD}', '{NUMBER[1:]}', '{TEXT}') in x.php".encode()
    ),
    "echo in the id": answer(f"0|Message sent|{PASSWORD}|Balance status|5".encode()),
    "server error": Fault("http_500"),
    "redirect": Fault("redirect_302"),
    "accepted": None,
}


@pytest.fixture
def account(settings, transactional_db):
    settings.SMSKA_LOCMEM_IN_TESTS = False
    with StandInGateway(api_key=LOGIN, api_password=PASSWORD) as gateway:
        settings.SMS_PROVIDERS = {
            "default": {"OPTIONS": options(gateway, api_key=LOGIN, api_password=PASSWORD)}
        }
        yield gateway


def secrets_in(text, *allowed):
    return [name for name, secret in SECRETS.items() if secret in text and name not in allowed]


def reports(error):
    """All that logs, monitoring and Django's debug page can show of an error."""
    return (
        f"{error!r} {error} {pickle.dumps(error)!r} {vars(error)}"
        + "".join(traceback.format_exception(error))
        + ExceptionReporter(None, type(error), error, error.__traceback__).get_traceback_html()
    )


def try_to_send():
    """A view whose own variables hold no secret: what is shown is ours."""
    try:
        send_sms(NUMBER, TEXT)
    except SmsError as error:
        # The frame of this very function names nothing.
        return reports(error)
    return ""


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_secret_is_shown_whatever_happens(account, caplog, fault, settings):
    settings.DEBUG = True  # the debug page then shows all local variables
    caplog.set_level(logging.DEBUG)
    logging.getLogger("django.db.backends").setLevel(logging.INFO)  # Django's own, with its rows
    if FAULTS[fault]:
        account.script(1, FAULTS[fault])
    shown = try_to_send()
    assert secrets_in(shown) == []
    assert secrets_in(caplog.text) == []
    row = SmsMessage.objects.get()
    kept = {**vars(row), "to": "", "body": ""}
    if fault != "echo in the id":  # an id that looks like one is kept as it is
        assert secrets_in(str(kept)) == []
    assert secrets_in(repr(row) + str(row)) == []


def test_nothing_secret_is_shown_by_a_worker(account, caplog):
    caplog.set_level(logging.DEBUG)
    account.script(1, FAULTS["echo of the request"])
    account.script(2, FAULTS["no answer"])
    for _ in range(3):
        queue_sms(NUMBER, TEXT)
    Worker(concurrency=1).run_once()
    assert caplog.text and secrets_in(caplog.text) == []


def test_a_gateway_that_is_away_shows_nothing(account, settings, caplog):
    settings.DEBUG = True
    caplog.set_level(logging.DEBUG)
    with closed_port() as port:
        settings.SMS_PROVIDERS["default"]["OPTIONS"]["url"] = f"http://127.0.0.1:{port}/"
        assert secrets_in(try_to_send()) == []
    assert secrets_in(caplog.text) == []


def test_reprs_show_nothing(account):
    with providers["default"] as backend:
        shown = repr(backend) + repr(vars(backend))
    assert secrets_in(shown) == []


def test_an_error_outside_of_ours_shows_nothing_of_our_frames(account, monkeypatch, settings):
    """A bug below the front door: the frames of sms.py hold neither number nor text."""
    settings.DEBUG = True
    from django_smska import sending

    def bug(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(sending, "attempt", bug)
    try:
        send_sms(NUMBER, TEXT)
    except ZeroDivisionError:
        html = ExceptionReporter(None, *sys.exc_info()).get_traceback_html()
    assert secrets_in(html) == []


@pytest.mark.parametrize("owner", ["http.client", "urllib3.connection"])
@pytest.mark.parametrize("fault", ["accepted", "echo of the request"])
def test_a_program_that_debugs_http_prints_none_of_our_requests(
    account, monkeypatch, capfd, owner, fault
):
    """The switch is one for all connections of a process."""
    connection = importlib.import_module(owner).HTTPConnection
    monkeypatch.setattr(connection, "debuglevel", 1)
    if FAULTS[fault]:
        account.script(1, FAULTS[fault])
    try_to_send()
    with providers["default"] as backend:
        backend.get_balance()
    printed = "".join(capfd.readouterr())
    assert "send:" not in printed and "reply:" not in printed
    assert secrets_in(printed) == []

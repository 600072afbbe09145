"""Texts of a gateway that wants to harm its readers: links and markup in pages, escape sequences
and forged lines in logs and terminals, formulas in tables.

``ANSWERS`` are what it says. All of them go through the whole app, and the outcome is looked at in
each place.
"""

from __future__ import annotations

import csv
import io
import logging
from html.parser import HTMLParser

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from openpyxl import load_workbook

from django_smska.exceptions import InvalidRequest, QueryFailed, SmsError, SmsOutcomeUnknown
from django_smska.models import ProviderState, SmsMessage, rows
from django_smska.receipts import Receipt, Report
from django_smska.sms import providers, queue_sms, send_sms
from django_smska.testing.faults import answer
from django_smska.worker import Worker

from .backends import Hostile

NUMBER = "+79041764995"
LIST = "/admin/django_smska/smsmessage/"
STATES = "/admin/django_smska/providerstate/"
LONGEST_LINE = 2500  # our own text, and 1000 characters of a third party's

# Escape sequences of terminals, in two and in one byte, bidi overrides, NUL, and all line ends.
MARKUP = (
    '=HYPERLINK("https://evil.example/") <a href="https://evil.example/">x</a> '
    "<script>alert(1)</script> https://evil.example/ [x](https://evil.example/) "
    "javascript:alert(1) \x1b[31m \x1b]8;;https://evil.example/\x07x \x9b2J \u202egnp\u2066\u200f "
    "\0 \x08 \x7f \x85 \u2028 \u2029 \v\f\x1c CRITICAL forged 1\nCRITICAL forged 2\r\n"
    "CRITICAL forged 3\rCRITICAL forged 4"
)
ONE_LINE = MARKUP.replace("\n", " ").replace("\r", " ")
ANSWERS = {
    "unreadable": MARKUP,
    "refusal": f"-4|{ONE_LINE}",
    "refusal of the login": f"-1|{ONE_LINE}",
    "accepted": f"0|Message sent|{ONE_LINE}|Balance status|{ONE_LINE}",
    "glued": f"x0|Message sent|{MARKUP}",
    "balance": f"0|Balance status|{ONE_LINE}",
    "status": f"0|Status|{ONE_LINE}|{ONE_LINE}",
    "page": f"<html><body>{MARKUP * 50}</body></html>",
    "megabyte": f"-4|{ONE_LINE * 3000}",
}
STATUSES = {"login": 401, "busy": 429, "wrong address": 404, "server error": 503}


def say(gateway, name):
    """Let the gateway answer whatever it is asked with this text."""
    text = ANSWERS.get(name, MARKUP).encode()
    for kind in ("send", "query", "balance"):
        gateway.script_all(answer(text, STATUSES.get(name, 200), accepted=False), on=kind)


# --- what is done ---------------------------------------------------------------------------------


def use(boss):
    """Do all that queries the gateway; return the texts of what was raised and printed."""
    raised = []

    def catch(call):
        try:
            call()
        except SmsError as error:
            raised.extend([str(error), error.text])

    draft = SmsMessage(to=NUMBER, body="A draft")
    draft.save()
    boss.post(f"{LIST}send/", {"pks": str(draft.pk)})
    catch(lambda: send_sms(NUMBER, "One"))
    queue_sms(NUMBER, "Two")
    Worker(concurrency=1).run_once()
    bare = SmsMessage(to=NUMBER, body="Three")
    with providers["default"] as backend:
        backend.send_messages([bare])
        catch(backend.get_balance)
    raised.append(str(bare.error))
    sent = queue_sms(NUMBER, "Four")
    rows([sent.pk]).update(status="sent", gateway_id="an-id")
    ProviderState.objects.filter(probe_at=None).delete()
    sent.refresh_from_db()
    catch(sent.refresh_status)
    SmsMessage.objects.filter(pk=sent.pk).refresh_status()
    return raised


COMMANDS = (
    ("sms_balance",),
    ("sms_balance", "--json"),
    ("sendtestsms", NUMBER, "--text", "Five"),
    ("sms_worker", "--once"),
    ("sms_status",),
    ("sms_status", "--json"),
)


def printed():
    """Return the lines that the commands print."""
    out = io.StringIO()
    for command in COMMANDS:
        try:
            call_command(*command, stdout=out, stderr=out)
        except CommandError as error:
            out.write(f"{error}\n")
    return out.getvalue().split("\n")


# --- where to look --------------------------------------------------------------------------------


def is_harmless(line):
    return line.isprintable() and len(line) <= LONGEST_LINE and not line.startswith("CRITICAL")


class Page(HTMLParser):
    """Collects what a text of the gateway must not become."""

    def __init__(self, page):
        super().__init__()
        self.harm = []
        self.in_script = False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.in_script = tag in ("script", "style")
        values = [value or "" for name, value in attributes if name not in ("title", "value")]
        if any("evil" in value or "alert(1)" in value for value in values):
            self.harm.append((tag, attributes))

    def handle_data(self, data):
        if self.in_script and ("evil" in data or "alert(1)" in data):
            self.harm.append(data)
        if not all(one.isprintable() or one in "\n\r\t" for one in data):
            self.harm.append(ascii(data))

    def handle_endtag(self, tag):
        self.in_script = False


def pages(boss):
    keys = list(SmsMessage.objects.values_list("pk", flat=True))
    states = list(ProviderState.objects.values_list("pk", flat=True))
    urls = [LIST, f"{LIST}add/", f"{LIST}statistics/", STATES]
    urls += [f"{LIST}{key}/{page}/" for key in keys for page in ("change", "history")]
    urls += [f"{STATES}{key}/change/" for key in states]
    for url in urls:
        response = boss.get(url)
        assert response.status_code == 200, url
        yield url, response.content.decode()


def csv_cells(boss):
    data = b"".join(boss.post(f"{LIST}export/").streaming_content).decode("utf-8-sig")
    return [
        cell for line in csv.reader(io.StringIO(data, newline=""), delimiter=";") for cell in line
    ]


def xlsx_cells(boss):
    data = b"".join(boss.post(f"{LIST}export/", {"_xlsx": "1"}).streaming_content)
    return [cell for line in load_workbook(io.BytesIO(data)).active.iter_rows() for cell in line]


@pytest.fixture
def boss(client, transactional_db):
    client.force_login(User.objects.create_superuser("boss"))
    return client


@pytest.fixture
def at_debug(caplog):
    for name in ("", "urllib3", "requests", "django_smska"):
        caplog.set_level(logging.DEBUG, name or None)
    return caplog


def look(boss, logs):
    """Do everything, and assert that it harms in no place; return the texts that are stored."""
    raised, lines = use(boss), printed()
    # Django's own at DEBUG have SQL and templates in them.
    ours = [one for one in logs.records if not one.name.startswith("django.")]
    logged = [logging.Formatter().format(one) for one in ours]
    places = {"raised": raised, "logged": logged, "printed": lines}
    harm = {
        place: [ascii(text)[:300] for text in texts if not is_harmless(text)]
        for place, texts in places.items()
    }
    harm |= {url: Page(page).harm for url, page in pages(boss)}
    harm["csv"] = [cell for cell in csv_cells(boss) if cell.startswith(("=", "@", "+", "-"))]
    harm["csv lines"] = [ascii(cell) for cell in csv_cells(boss) if not cell.isprintable()]
    harm["xlsx"] = [cell.value for cell in xlsx_cells(boss) if cell.data_type == "f"]
    assert {place: found for place, found in harm.items() if found} == {}
    stored = [*SmsMessage.objects.values_list("error_text", "gateway_status", "gateway_id")]
    return f"{stored}{raised}{logged}{lines}"


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ANSWERS, *STATUSES])
def test_what_a_gateway_says_harms_in_no_place(name, provider, boss, at_debug):
    say(provider, name)
    found = look(boss, at_debug)
    # Where it is not too long to be read, it is shown, so that a person sees what was wrong.
    assert ("evil.example" in found) == (name != "megabyte")


ERRORS = (InvalidRequest, SmsOutcomeUnknown, QueryFailed)


@pytest.mark.slow
@pytest.mark.parametrize("error", [*ERRORS, None])
def test_what_a_third_partys_backend_quotes_harms_in_no_place(error, settings, boss, at_debug):
    settings.SMSKA_LOCMEM_IN_TESTS = False
    calls = ("send_message", "get_status", "get_balance")
    if error is None:
        short = '=HYPERLINK("https://evil.example/")'
        given = {
            "send_message": Receipt(gateway_id=short),
            "get_status": Report("odd", MARKUP),
            "get_balance": MARKUP,
        }
        hostile = {"returns": given}
    else:
        raised = error(MARKUP, code=MARKUP, gateway_text=MARKUP)
        hostile = {"raises": dict.fromkeys(calls, raised)}
    settings.SMS_PROVIDERS = {
        "default": {"BACKEND": f"{Hostile.__module__}.Hostile", "OPTIONS": hostile}
    }
    assert "evil.example" in look(boss, at_debug)

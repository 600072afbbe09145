"""No number and no text gets into logs by way of the pages that show them."""

import copy
import logging

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils.timezone import now

from django_smska.admin import recipients
from django_smska.admin.actions import ACTIONS
from django_smska.admin.compose_form import ComposeForm
from django_smska.admin.forms import SmsMessageForm
from django_smska.models import ProviderState, SmsMessage, rows

pytestmark = pytest.mark.django_db

LIST = "/admin/django_smska/smsmessage/"
STATES = "/admin/django_smska/providerstate/"
NUMBER = "+79041764995"
WRONG = "+790417649951"
TEXT = "Your code is 512733"
INVALID = "!!invalid!!"
COMPOSE = {
    "numbers": f"{NUMBER}\n{WRONG}\n{NUMBER}",
    "body": TEXT,
    "using": "default",
    "nonce": "n",
}
WRITTEN = {"to": NUMBER, "body": TEXT, "using": "default", "priority": "0"}


@pytest.fixture
def boss(client, settings):
    settings.SMS_PROVIDERS = {"default": {}, "bulk": {}}
    templates = copy.deepcopy(settings.TEMPLATES)
    templates[0]["OPTIONS"]["string_if_invalid"] = INVALID
    settings.TEMPLATES = templates
    client.force_login(User.objects.create_superuser("boss"))
    return client


def make(status):
    message = SmsMessage(to=NUMBER, body=TEXT)
    message.save()
    values = {"sending_at": now(), "sent_at": now(), "finished_at": now(), "gateway_id": "17"}
    rows([message.pk]).update(status=status, expires_at=now(), lease_until=now(), **values)
    return message.pk


def pages(client):
    """Every page of ours: its address and what is posted there."""
    statuses = ("draft", "queued", "claimed", "sent", "failed", "unknown", "cancelled")
    keys = [make(status) for status in statuses]
    user = client.session["_auth_user_id"]
    LogEntry.objects.log_actions(user, rows(keys), CHANGE, "Sent.")
    state = {"balance": 3, "balance_at": now(), "paused_at": now(), "reason": "funds"}
    ProviderState.objects.create(alias="default", detail="The login.", **state)
    for query in ("", "?q=79041764995", "?q=nothing", "?o=2", "?needs=attention", "?e=1", "?x=1"):
        yield f"{LIST}{query}", None
    yield from ((f"{LIST}{page}/", None) for page in ("add", "compose", "statistics", "export"))
    for key in keys:
        yield from ((f"{LIST}{key}/{page}/", None) for page in ("change", "history"))
    yield f"{LIST}{keys[0]}/delete/", None
    joined = ",".join(map(str, keys))
    for name in (*(action.name for action in ACTIONS), "export"):
        yield from ((f"{LIST}{name}/?pks={chosen}", None) for chosen in (joined, keys[0], ""))
    for action in ("send", "resend", "export"):
        chosen = {"action": f"{action}_selected", "_selected_action": keys}
        yield LIST, chosen
    for wrong in ({"to": WRONG}, {"using": "x"}, {"send_after_0": "x"}, {"priority": "x"}):
        yield f"{LIST}add/", WRITTEN | wrong
        yield f"{LIST}{keys[0]}/change/", WRITTEN | wrong
    yield f"{LIST}compose/", COMPOSE
    yield f"{LIST}compose/", COMPOSE | {"send_at_0": "x"}
    yield f"{LIST}compose/", COMPOSE | {"_back": "1"}
    yield f"{LIST}compose/", COMPOSE | {"numbers": WRONG}
    file = SimpleUploadedFile("a.csv", f"Phone\n{NUMBER}\n{WRONG}".encode())
    yield f"{LIST}compose/", COMPOSE | {"numbers": "", "file": file}
    yield STATES, None
    yield f"{STATES}default/change/", None
    yield f"{STATES}default/history/", None


def shown(client, address, posted):
    response = client.get(address) if posted is None else client.post(address, posted)
    assert response.status_code in (200, 302)
    return response


def holds_a_secret(words):
    return [one for one in (NUMBER[1:], NUMBER[2:], NUMBER[5:], TEXT, "512733") if one in words]


@pytest.mark.slow
def test_the_templates_log_no_number_and_no_text(boss, caplog):
    """For a missing variable Django logs the whole context."""
    caplog.set_level(logging.DEBUG, "django")
    logging.getLogger("django.db.backends").setLevel(logging.INFO)
    count = 0
    for address, posted in list(pages(boss)):
        caplog.clear()
        response = shown(boss, address, posted)
        logged = "\n".join(map(caplog.handler.format, caplog.records))
        assert not holds_a_secret(logged), address
        missing = [one.args for one in caplog.records if one.msg.startswith("Exception while res")]
        # Django's own, of a dictionary with a field's name and label.
        assert {name for name, _ in missing} <= {"is_fieldset", "id_for_label"}, address
        assert INVALID not in response.content.decode(), address
        count += 1
    assert count > 60


@pytest.mark.slow
def test_no_context_of_our_pages_shows_them_by_its_repr(boss):
    """As for a variable that a theme's template misses."""
    for address, posted in list(pages(boss)):
        response = shown(boss, address, posted)
        context = getattr(response, "context_data", None) or {}
        if "?q=" in address:
            continue  # it is in the address, which the page links to
        assert not holds_a_secret(repr(context)), address


def test_neither_does_the_repr_of_anything_that_holds_them():
    """These are the local variables of frames, which error trackers report."""
    forms = [
        ComposeForm(COMPOSE),
        ComposeForm(COMPOSE | {"numbers": WRONG}),
        SmsMessageForm(WRITTEN),
        SmsMessageForm(WRITTEN | {"to": WRONG, "using": NUMBER}),
    ]
    for form in forms:
        form.is_valid()
        made = [form, form.errors, *form.errors.values(), form.instance, *form]
        assert not holds_a_secret(repr(made))
    assert forms[1].errors and forms[3].errors
    assert not holds_a_secret(repr([form.recipients for form in forms[:2]]))
    read = recipients.read(f"{NUMBER}\n{WRONG}\n{NUMBER}")
    column = recipients.column(f"Phone\n{NUMBER}\n{WRONG}".encode())
    assert read.numbers and read.bad and read.doubled and NUMBER in column.lines
    assert not holds_a_secret(repr([read, read.bad, read.doubled, column]))

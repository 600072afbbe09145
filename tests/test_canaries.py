"""Canaries: no login, password, number, text or code shows where it does not belong.

``FAILURES`` break the way of a message, ``CALLS`` are what a project asks for, and all of them go
through the whole app and a gateway on a real socket. What comes of it is looked at in each of the
``PLACES``. A new place, call or failure is a line.
"""

import http.client
import logging
import pickle
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from traceback import format_exception

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Permission, User
from django.core.management import ManagementUtility, get_commands
from django.db import connection, transaction

from django_smska import checked_backend, conf
from django_smska.exceptions import SmsNotSent
from django_smska.inbound import receive
from django_smska.models import ProviderState, SmsInbound, SmsLimit, SmsMessage
from django_smska.receipts import Inbound
from django_smska.sms import (
    aqueue_sms,
    asend_sms,
    providers,
    queue_sms,
    send_code,
    send_mass_sms,
    send_sms,
)
from django_smska.states import Status
from django_smska.testing.faults import Fault, answer
from django_smska.testing.gateway import StandInGateway, closed_port
from django_smska.worker import Worker

from . import canaries
from .canaries import LOGIN, NUMBER, PASSWORD, TEXT, found
from .conftest import PATIENT
from .outages import Outage

START = "/admin/django_smska/"
MESSAGES, RECEIVED = "django_smska_smsmessage", "django_smska_smsinbound"

# --- what a project asks for ----------------------------------------------------------------------


def draft():
    message = SmsMessage(to=NUMBER, body=TEXT)
    message.save()
    return message


def edit():
    message = draft()
    message.body += "!"
    message.save()


def send_bare():
    with providers["default"] as backend:
        message = SmsMessage(to=NUMBER, body=TEXT)
        backend.send_messages([message])
    if message.error:
        raise message.error


async def asend():
    await asend_sms(NUMBER, TEXT)


async def aqueue():
    await aqueue_sms(NUMBER, TEXT)


async def asend_draft():
    message = await sync_to_async(draft)()
    await message.asend()


def reply(body, **fields):
    return Inbound(sender=NUMBER[1:], to="1234", body=body, **fields)


CALLS = {
    "send_sms": lambda: send_sms(NUMBER, TEXT),
    "send_code": lambda: send_code(NUMBER, TEXT, code=TEXT),
    "send_code in a transaction": transaction.atomic(lambda: send_code(NUMBER, TEXT, code=TEXT)),
    "asend_sms": lambda: async_to_sync(asend)(),
    "queue_sms": lambda: queue_sms(NUMBER, TEXT),
    "aqueue_sms": lambda: async_to_sync(aqueue)(),
    "send_mass_sms": lambda: send_mass_sms([(NUMBER, TEXT), SmsMessage(to=NUMBER, body=TEXT)]),
    "a wrong number": lambda: send_sms(f"{NUMBER}99999", TEXT),
    "a text that is too long": lambda: send_sms(NUMBER, TEXT * 50),
    "a reused key": lambda: [
        send_sms(NUMBER, TEXT + end, idempotency_key="1") for end in ("", "!")
    ],
    "an unknown provider": lambda: send_sms(NUMBER, TEXT, using="nowhere"),
    "a draft": edit,
    "objects.create": lambda: SmsMessage.objects.create(to=NUMBER, body=TEXT),
    "objects.create of a wrong number": lambda: SmsMessage.objects.create(to="1", body=TEXT),
    "objects.all().create": lambda: SmsMessage.objects.all().create(to=NUMBER, body=TEXT * 50),
    "a draft that is sent": lambda: draft().send(),
    "a draft that is sent by asynchronous code": lambda: async_to_sync(asend_draft)(),
    "a worker": lambda: Worker(concurrency=2).run_once(),
    "reports": lambda: SmsMessage.objects.all().refresh_status(),
    "a report": lambda: SmsMessage.objects.filter(status=Status.SENT).first().refresh_status(),
    "the balance": lambda: providers["default"].get_balance(),
    "the bare backend": send_bare,
    "a reply": lambda: receive("default", [reply(TEXT, gateway_id="in-1")]),
    "a reply again": lambda: receive("default", [reply(TEXT, gateway_id="in-1")]),
    "a STOP, the last call": lambda: receive("default", [reply("STOP")]),
}
#: They call a third party's class without the app, whose frames are its own then.
BARE = {"the balance", "the bare backend"}

# --- what fails -----------------------------------------------------------------------------------

ECHO = f"{LOGIN} {PASSWORD} {NUMBER} {TEXT}"


@contextmanager
def plays(fault, gateway, settings):
    for on in ("send", "query", "balance"):
        gateway.script_all(fault, on)
    yield


@contextmanager
def away(gateway, settings):
    with closed_port() as port:
        settings.SMS_PROVIDERS = entry(f"http://127.0.0.1:{port}/")
        yield


@contextmanager
def sends_through(backend, gateway, settings):
    options = {"token": PASSWORD} if backend != "Broken" else {}
    backend = f"tests.backends.{backend}"
    settings.SMS_PROVIDERS = {"default": {"BACKEND": backend, "OPTIONS": options}}
    yield


@contextmanager
def database_refuses(condition, gateway, settings):
    """Let the server itself refuse rows: PostgreSQL then quotes them."""
    table = connection.ops.quote_name(MESSAGES)
    add = f"ALTER TABLE {table} ADD CONSTRAINT canary CHECK (NOT ({condition}))"
    add, drop = [add], [f"ALTER TABLE {table} DROP CONSTRAINT canary"]
    if connection.vendor == "sqlite":
        new = (
            condition.replace('"', "")
            .replace("status", "NEW.status")
            .replace("sender", "NEW.sender")
        )
        add = [
            f"CREATE TRIGGER canary_{when} BEFORE {when} ON {table} WHEN {new} "
            "BEGIN SELECT RAISE(ABORT, 'refused'); END"
            for when in ("INSERT", "UPDATE")
        ]
        drop = [f"DROP TRIGGER canary_{when}" for when in ("INSERT", "UPDATE")]
    run(add)
    try:
        yield
    finally:
        run(drop)


def run(statements):
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@contextmanager
def database_fails(make, gateway, settings):
    with connection.execute_wrapper(make(gateway)):
        yield


class Abort(Outage):
    """A web server's abort comes in a query."""

    error = SystemExit


FAILURES = {
    "nothing": lambda *_: nullcontext(),
    "the login": partial(plays, Fault("wrong_login")),
    "the answer is cut": partial(plays, Fault("short_body")),
    "the connection is cut": partial(plays, Fault("reset_after_request", accepted=True)),
    "the answer repeats the request": partial(plays, answer(ECHO.encode())),
    "a refusal repeats the request": partial(plays, answer(f"-4|{ECHO}".encode(), accepted=False)),
    "the gateway is away": away,
    "a backend quotes the request": partial(sends_through, "Quoting"),
    "a backend breaks": partial(sends_through, "Broken"),
    "an abort in a backend": partial(sends_through, "Aborting"),
    "the database refuses the row": partial(database_refuses, "sender = ''"),
    "the database refuses the request": partial(
        database_refuses, "sender = '' AND status = 'sending'"
    ),
    "the database refuses the outcome": partial(
        database_refuses, "sender = '' AND status = 'sent'"
    ),
    "the database is away": partial(database_fails, lambda _: Outage(3, only="INSERT")),
    "the database is away before the request": partial(
        database_fails, lambda _: Outage(3, only="UPDATE")
    ),
    "the database is away during the request": partial(
        database_fails, lambda gateway: Outage(3, begins=lambda: gateway.sends)
    ),
    "an abort in a query": partial(database_fails, lambda _: Abort(99, only="INSERT")),
    "an abort before the request": partial(database_fails, lambda _: Abort(99, only="UPDATE")),
}

# --- where to look --------------------------------------------------------------------------------

PLACES_OF_AN_ERROR = {
    "words": canaries.words,
    "traceback": canaries.traceback_with_locals,
    "debug page": canaries.debug_page,
    "error mail": canaries.error_mail,
    "pickle": canaries.pickled,
    "Sentry": canaries.sentry_event,
}
#: Where a value belongs in the database.
COLUMNS = {
    (MESSAGES, "to"): {"number"},
    (MESSAGES, "body"): {"text", "code"},
    (RECEIVED, "sender"): {"number"},
    (RECEIVED, "body"): {"text", "code"},
    ("django_smska_smsoptout", "number"): {"number"},
}


def entry(url):
    return {"default": {"OPTIONS": {
        "api_key": LOGIN, "api_password": PASSWORD, "sender_id": "Test", "url": url,
        **PATIENT,
    }}}  # fmt: skip


@pytest.fixture
def account(settings, transactional_db):
    settings.SMSKA_LOCMEM_IN_TESTS = False
    with StandInGateway(api_key=LOGIN, api_password=PASSWORD) as gateway:
        settings.SMS_PROVIDERS = entry(gateway.url)
        yield gateway


@pytest.fixture
def at_debug(caplog, monkeypatch):
    """Let every logger be at DEBUG, http.client's prints too."""
    caplog.set_level(logging.DEBUG)
    for name in ("urllib3", "requests", "django", "django_smska"):
        caplog.set_level(logging.DEBUG, name)
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    return caplog


def errors_of_calls():
    """Make all calls; return what they raised, by call."""
    raised = {}
    ours = type(providers["default"]).__module__.startswith("django_smska.")
    for name, call in CALLS.items():
        if name in BARE and not ours:
            continue
        try:
            call()
        except BaseException as error:
            raised[name] = error
    return raised


def misplaced():
    """Return the canaries in the database, by column, but for those that belong there."""
    return {
        place: found(value) - COLUMNS.get(place, set())
        for place, value in canaries.dump()
        if found(value) - COLUMNS.get(place, set())
    }


@pytest.mark.slow
@pytest.mark.parametrize("failure", FAILURES)
def test_nothing_shows_where_it_does_not_belong(failure, account, settings, at_debug, capfd):
    settings.SMSKA_LEASE = 30
    send_sms(NUMBER, TEXT, sender="First")
    with FAILURES[failure](account, settings):
        errors = errors_of_calls()
    records = [*at_debug.records]  # before Django's pages write more
    shown = {
        f"{place} of {call}": found(show(error))
        for call, error in errors.items()
        for place, show in PLACES_OF_AN_ERROR.items()
    }
    shown |= {
        f"the log: {one.msg}": found(f"{at_debug.handler.format(one)} {vars(one)}")
        for one in records
    }
    shown["the terminal"] = found("".join(capfd.readouterr()))
    shown |= misplaced()
    assert {place: names for place, names in shown.items() if names} == {}


# --- objects, tasks, commands, pages --------------------------------------------------------------


def objects_of_the_app():
    """Return by name what a program may hold of this app, after a message was sent."""
    backend = providers["default"]
    backend.open()
    checked = checked_backend.provider("default")
    checked.open()
    message = send_sms(NUMBER, TEXT, caller=NUMBER)
    draft().delete()
    worker = Worker()
    worker.run_once()
    return {
        "backend": backend,
        "checked backend": checked,
        "wire": backend._wire,
        "providers": providers,
        "receipt": checked.send_message(message),
        "report": checked.get_status(message),
        "worker": worker,
        "the key of a limit": SmsLimit.objects.first(),
        "provider's state": ProviderState.objects.first(),
        "settings": conf.limits(),
    }


@pytest.mark.slow
def test_no_object_shows_or_pickles_what_it_holds(account, settings):
    del settings.SMSKA_LIMITS
    for name, one in objects_of_the_app().items():
        assert one is not None, name
        assert found(f"{one!r} {one} {vars(one)}") == set(), name
        with suppress(TypeError, AttributeError, pickle.PicklingError):  # it cannot be pickled
            assert found(pickle.dumps(one)) == set(), name
    message = SmsMessage(to=NUMBER, body=TEXT)
    assert found(f"{message!r} {message} {reply(TEXT)!r}") == set()
    assert found(pickle.dumps(message)) == {"number", "text", "code"}  # it is its row


def test_a_login_is_not_pickled(account):
    with providers["default"] as backend, pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(backend)


#: Every command of the app, but for the stand-in gateway's, which sends nothing of ours.
COMMANDS = {
    "sms_balance": ["sms_balance"],
    "sms_status": ["sms_status"],
    "sms_worker": ["sms_worker", "--once"],
    "sendtestsms": ["sendtestsms", NUMBER, "--text", TEXT],
    "sms_prune": ["sms_prune", "--keep", "0.000001"],
    "sms_prune --number": ["sms_prune", "--number", NUMBER],
    "sms_webhooks": ["sms_webhooks"],
    "sms_groups": ["sms_groups"],
    "check": ["check", "--deploy", "--database", "default"],
    "sms_optout": ["sms_optout", "add", NUMBER],  # the last ones, for they end sending
    "sms_stop": ["sms_stop"],
}


def test_each_command_is_looked_at():
    ours = {name for name, app in get_commands().items() if app == "django_smska"}
    assert ours - {"sms_gateway", "sms_person"} == set(COMMANDS).intersection(ours)


@pytest.mark.slow
@pytest.mark.parametrize("failure", FAILURES)
def test_no_command_prints_what_does_not_belong(failure, account, settings, at_debug, capfd):
    # What is stored already must not break the rule that is added.
    sender = "First" if failure == "the database refuses the row" else ""
    for _ in range(2):
        queue_sms(NUMBER, TEXT, sender=sender)
    send_sms(NUMBER, TEXT, sender="First")
    capfd.readouterr()
    shown = {}
    with FAILURES[failure](account, settings):
        for name, argv in COMMANDS.items():
            error = ""
            try:
                ManagementUtility(["manage.py", *argv, "--traceback", "-v3"]).execute()
            except Exception as raised:  # Python prints it, with all that it comes from
                error = "".join(format_exception(raised))
            except SystemExit:
                pass
            shown[name] = found(error + "".join(capfd.readouterr()))
    assert {name: names for name, names in shown.items() if names} == {}


@pytest.mark.slow
@pytest.mark.parametrize("may_see", [False, True])
def test_no_page_shows_what_does_not_belong(may_see, account, settings, client):
    user = User.objects.create_user("clerk", is_staff=True)
    for one in Permission.objects.filter(content_type__app_label="django_smska"):
        if may_see or not one.codename.startswith("see_"):
            user.user_permissions.add(one)
    client.force_login(user)
    message = send_sms(NUMBER, TEXT)
    with FAILURES["a refusal repeats the request"](account, settings), suppress(SmsNotSent):
        send_sms(NUMBER, TEXT)
    LogEntry.objects.log_actions(user.pk, SmsMessage.objects.all(), CHANGE, f"{NUMBER} {TEXT}")
    receive("default", [reply("Да")])
    received = SmsInbound.objects.get().pk
    pages = [
        START,
        *(
            f"{START}{model}/"
            for model in ("smsmessage", "providerstate", "smserasure", "smsinbound", "smsoptout")
        ),
        f"{START}smsmessage/?received={received}",
        f"{START}smsinbound/{received}/change/",
    ]
    pages += [f"{START}smsmessage/{page}/" for page in ("compose", "export", "statistics")]
    for pk in SmsMessage.objects.values_list("pk", flat=True):
        pages += [f"{START}smsmessage/{pk}/{page}/" for page in ("change", "history")]
        pages += [f"{START}smsmessage/compose/?copy={pk}"]
        pages += [f"{START}smsmessage/{action}/?pks={pk}" for action in ("resend", "send")]
    allowed = {"number", "text", "code"} if may_see else set()
    for page in pages:
        answer = client.get(page)
        assert answer.status_code == 200, page
        assert found(answer.content) <= allowed, page
    row = client.get(f"{START}smsmessage/{message.pk}/change/")
    assert found(row.content) == allowed

"""The documentation: its code runs, and what it names is there."""

from __future__ import annotations

import ast
import contextlib
import http.client
import http.server
import importlib.util
import inspect
import json
import os
import re
import socket
import subprocess
import sys
import threading
import types
import unittest
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from unittest import mock

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Permission
from django.core.checks import run_checks
from django.core.management import call_command, get_commands, load_command_class
from django.core.management.base import SystemCheckError
from django.db import connection
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path

import django_smska
from django_smska import conf
from django_smska.backends import console, dummy, failover, filebased, locmem, smska
from django_smska.exceptions import (
    AuthenticationFailed,
    GatewayBusy,
    GatewayUnreachable,
    InsufficientCredits,
    InvalidRecipient,
    QueryFailed,
    SmsError,
    SmsNotSent,
    SmsOutcomeUnknown,
)
from django_smska.models import SmsMessage
from django_smska.receipts import Receipt, Report
from django_smska.signals import sms_failed
from django_smska.sms import outbox, providers, queue_sms, send_sms
from django_smska.states import Status
from django_smska.testing.gateway import closed_port
from tests.documents import DOCUMENTS, ROOT, block_with, blocks, run

NUMBER, TEXT = "+79041764995", "Ваш заказ готов"
WORDS = "\n".join(DOCUMENTS.values())


def test_all_code_is_found():
    for name, text in DOCUMENTS.items():
        assert len(blocks(text)) == text.count("code-block:: python"), name


def test_each_block_of_code_is_run_here():
    source = Path(__file__).read_text(encoding="utf-8")
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    ran = {
        block_with(*(argument.value for argument in call.args[:2]))
        for call in calls
        if getattr(call.func, "id", "") in ("run", "block_with")
        and all(isinstance(argument, ast.Constant) for argument in call.args)
    }
    assert [
        block for text in DOCUMENTS.values() for block in blocks(text) if block not in ran
    ] == []


# --- settings -------------------------------------------------------------------------------------


@pytest.fixture
def logins(monkeypatch):
    for name in ("SMSKA_API_KEY", "SMSKA_API_PASSWORD", "BULK_API_KEY", "BULK_API_PASSWORD"):
        monkeypatch.setenv(name, "login")
    monkeypatch.setenv("ACME_TOKEN", "token")


def checked(names):
    """Apply the settings that a block made; return the ids of what the checks say."""
    found = {name: value for name, value in names.items() if name.isupper()}
    with override_settings(SMS_PROVIDERS=found["SMS_PROVIDERS"], SMSKA_LOCMEM_IN_TESTS=False):
        assert all(providers[alias] for alias in providers)
        return [message.id for message in run_checks(tags=["sms"], databases=[])]


def test_the_settings(logins):
    for names in (
        run("README", "SMS_PROVIDERS"),
        run("howto/sms-ka", 'os.environ["SMSKA_API_KEY"]'),
    ):
        assert names["INSTALLED_APPS"] == ["django_smska"]
        assert checked(names) == []


def test_the_settings_in_one_line(monkeypatch):
    [url] = re.findall(r"# (smska://\S+)", block_with("howto/sms-ka", "cast=sms_url"))
    monkeypatch.setenv("SMS_URL", url)
    assert checked(run("howto/sms-ka", "cast=sms_url")) == []


@pytest.mark.django_db
def test_several_providers(logins, settings):
    names = run("howto/failover", "failover.SmsBackend")
    assert checked(names) == []
    settings.SMS_PROVIDERS = names["SMS_PROVIDERS"]
    run("howto/failover", 'using="bulk"', number=NUMBER)
    assert list(SmsMessage.objects.values_list("using", flat=True)) == ["safe", "bulk"]


def test_the_task_engines(settings):
    apps = settings.INSTALLED_APPS
    assert run("howto/queues", "SMSKA_TASKS =")["SMSKA_TASKS"] == "default"
    for names in (
        run("howto/queues", "django_tasks_db.DatabaseBackend", INSTALLED_APPS=list(apps)),
        run("howto/queues", "django_tasks_rq.RQBackend", INSTALLED_APPS=list(apps)),
    ):
        assert len(names["INSTALLED_APPS"]) > len(apps)
        assert list(names["TASKS"]) == ["default"]


def test_sqlite_as_the_example_project_has_it(tmp_path):
    [entry] = run("howto/deployment", "sqlite3", BASE_DIR=tmp_path)["DATABASES"].values()
    source = (ROOT / "example_project/shop/settings.py").read_text(encoding="utf-8")
    options = re.search(r"^SQLITE_OPTIONS = (\{.*?^\})", source, re.S | re.M)
    assert entry["OPTIONS"] == ast.literal_eval(options[1])


def test_languages(settings):
    names = run("howto/languages-themes", "LocaleMiddleware")
    places = [settings.MIDDLEWARE.index(name) for name in names["MIDDLEWARE"][::2]]
    assert places == sorted(places)
    assert dict(names["LANGUAGES"]).keys() == {"en", names["LANGUAGE_CODE"]}


@pytest.mark.skipif(connection.vendor != "sqlite", reason="a database that is NORMAL in the tests")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("only_ours", [[], ["--tag", "sms"]])
@pytest.mark.parametrize("page", ["howto/deployment", "reference/checks"])
def test_the_command_that_runs_all_checks(page, only_ours):
    """It finds what needs both options: synchronous=NORMAL."""
    [command] = re.findall(r"^    python manage\.py (check .*)$", DOCUMENTS[page], re.M)
    with pytest.raises(SystemCheckError, match=r"smska\.W017.*synchronous=NORMAL"):
        call_command(*command.split(), *only_ours, "--fail-level", "WARNING")


# --- sending --------------------------------------------------------------------------------------


def urls(*patterns):
    module = types.ModuleType("urls_of_the_docs")
    module.urlpatterns = patterns
    return module


def patients():
    return mock.Mock(iterator=lambda: [mock.Mock(phone=f"890417649{n}") for n in (96, 97)])


@pytest.mark.django_db
def test_send():
    assert run("README", "send_sms(", number=NUMBER)["message"].status == "sent"
    assert "message" not in run("README", "send_sms(", number="8 904")
    names = run("howto/sending", 'f"order-{order.pk}-ready"', order=mock.Mock(pk=1), **context())
    assert names["queue_sms"](NUMBER, TEXT, idempotency_key="order-1-ready").status == "queued"
    assert run("howto/sending", "backend.send_messages", **context())["accepted"] == 1
    assert [one.body for one in outbox] == [TEXT, "Код для входа: 503918", TEXT]


def context():
    return {"number": NUMBER, "text": TEXT, "code": "503918"}


@pytest.mark.django_db
def test_queue():
    run("README", "queue_sms(", order=mock.Mock(pk=42), patients=patients(), **context())
    assert SmsMessage.objects.filter(status="queued").count() == 3


@pytest.mark.parametrize(
    ("balance", "answer"), [(1, "The SMS is sent."), (0, "The SMS was not sent.")]
)
def test_a_view_that_must_know(provider, settings, client, balance, answer):
    """Also where each view is a transaction."""
    provider.balance = balance
    view = run("howto/sending", "@transaction.non_atomic_requests")["order_ready"]
    settings.ROOT_URLCONF = urls(path("ready/", view))
    with mock.patch.dict(connection.settings_dict, ATOMIC_REQUESTS=True):
        response = client.post("/ready/", {"phone": "8 904 176-49-95"})
    assert response.content.decode().startswith(answer)


def test_a_view_that_must_know_says_what_is_wrong_with_a_number(provider, settings, client):
    view = run("howto/sending", "@transaction.non_atomic_requests")["order_ready"]
    settings.ROOT_URLCONF = urls(path("ready/", view))
    response = client.post("/ready/", {"phone": "8 904"})
    assert response.status_code == 400
    assert response.content.decode().startswith("A Russian number has")


def test_a_receiver(provider):
    provider.balance = 0
    calls = []
    receiver = run("howto/sending", "@receiver(sms_failed)", calls=calls)["call_the_customer"]
    try:
        with pytest.raises(SmsNotSent):
            send_sms(NUMBER, TEXT, idempotency_key="order-42-ready")
    finally:
        assert sms_failed.disconnect(receiver)
    assert calls == ["order-42-ready"]


@pytest.mark.django_db(transaction=True)
def test_async():
    names = run("howto/sending", "sync_to_async(send_sms)")
    assert async_to_sync(names["notify"])(NUMBER, TEXT).status == "sent"


@pytest.mark.django_db
def test_mass_sending(settings, capsys):
    settings.SMS_PROVIDERS = {"bulk": {}, "default": {}}
    bad = mock.Mock(iterator=lambda: [mock.Mock(phone=NUMBER), mock.Mock(phone="12")])
    assert run("howto/mass-sending", "result.errors", patients=bad)["result"] == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "1 queued, 1 not valid" and printed[1].startswith("row 1: ")

    at = datetime(2026, 11, 27, 14, 30, tzinfo=timezone.utc)
    some = [mock.Mock(pk=pk, phone=NUMBER, at=at) for pk in (1, 2)]
    for _ in range(2):
        run("howto/mass-sending", "def reminders", appointments=some)
    reminders = SmsMessage.objects.filter(priority=-10)
    assert {message.body for message in reminders} == {"Ждём вас завтра в 14:30"}
    assert reminders.count() == 2


@pytest.mark.django_db
def test_a_lazy_text():
    run("howto/languages-themes", "gettext_lazy", number=NUMBER)
    assert SmsMessage.objects.get().to == NUMBER


@pytest.mark.django_db
def test_unknown_and_pruning(capsys):
    message = queue_sms(NUMBER, TEXT)
    SmsMessage.objects.filter(pk=message.pk).update(status="unknown", error_code="deadline")
    run("howto/unknown", "status=")
    assert capsys.readouterr().out.split()[::2] == [str(message.pk), "deadline"]
    queue_sms(NUMBER, TEXT)
    run("howto/pruning", "theirs")
    assert SmsMessage.objects.get().status == "queued"


@pytest.fixture
def celery(monkeypatch):
    """So much of Celery as the docs use; it is no requirement of the tests."""
    module = types.SimpleNamespace(shared_task=lambda **options: lambda function: function)
    monkeypatch.setitem(sys.modules, "celery", module)


@pytest.mark.django_db(transaction=True)
def test_celery(celery):
    queue_sms(NUMBER, TEXT)
    run("howto/queues", "from celery import shared_task")["send_queued_sms"]()
    assert len(outbox) == 1
    [entry] = run("howto/queues", "CELERY_BEAT_SCHEDULE")["CELERY_BEAT_SCHEDULE"].values()
    source = block_with("howto/queues", "from celery import shared_task")
    assert "def " + entry["task"].rpartition(".")[2] in source


# --- tests ----------------------------------------------------------------------------------------


@pytest.fixture
def ready(settings):
    def view(request):
        send_sms(NUMBER, TEXT)
        return HttpResponse()

    settings.ROOT_URLCONF = urls(path("orders/1/ready/", view))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["OrderReady", "LostAnswer"])
def test_the_tests(ready, name):
    names = run("howto/testing", "class OrderReady") | run("howto/testing", "class LostAnswer")
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(names[name])
    result = suite.run(unittest.TestResult())
    assert (result.testsRun, result.errors, result.failures) == (1, [], [])


@pytest.mark.django_db
def test_the_test_for_pytest(ready, client, smsoutbox):
    names = run("howto/testing", "@pytest.mark.django_db")
    names["test_the_customer_gets_an_sms"](client, smsoutbox)


@pytest.mark.django_db(transaction=True)
def test_the_worker_in_tests_prints_nothing(capfd):
    queue_sms(NUMBER, TEXT)
    run("howto/testing", "call_command(")
    assert len(outbox) == 1
    assert capfd.readouterr() == ("", "")


# --- the tutorial, in a fresh folder --------------------------------------------------------------


class Folder:
    """Where a reader of the tutorial types."""

    def __init__(self, path):
        self.path = path
        hidden = {conf.TEST_RUN, "DJANGO_SETTINGS_MODULE"}
        self.env = {name: value for name, value in os.environ.items() if name not in hidden}
        self.env["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        self.env["PYTHONUNBUFFERED"] = "1"

    def type(self, *arguments, text=None, code=0):
        ran = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.path,
            env=self.env,
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ran.returncode == code, ran.stderr
        return ran.stdout

    def start(self, *arguments):
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.path,
            env=self.env,
            stdout=subprocess.PIPE,
            text=True,
        )

    @contextlib.contextmanager
    def gateway(self, command):
        """The stand-in in its own terminal, at any free port; put its address into the settings."""
        arguments = command.removeprefix("python ").split()
        with self.start(*arguments, "--port", "0") as process:
            try:
                address = process.stdout.readline().split()[-1]
                settings = self.path / "shop/settings.py"
                text = re.sub(r"http://127.0.0.1:\d+/\S+?(?=\")", address, settings.read_text())
                settings.write_text(text)
                yield
            finally:
                process.terminate()


def test_the_tutorial(tmp_path):
    folder = Folder(tmp_path)
    commands = re.findall(r"^   \$ (.*)$", DOCUMENTS["tutorial"], re.M)
    start, migrate, check, _user, gateway, send, _worker, _serve, faulty, again = (
        one for one in commands if "manage.py" in one or "startproject" in one
    )
    folder.type("-m", *start.replace("django-admin", "django").split())
    with open(tmp_path / "shop/settings.py", "a") as file:
        file.write(block_with("tutorial", "INSTALLED_APPS +="))
    for command in (migrate, check):
        folder.type(*command.split()[1:])
    with folder.gateway(gateway):
        assert " accepted as " in folder.type(*send.split()[1:])
        code = block_with("tutorial", "send_sms(") + "print(message.status, message.to)\n"
        assert folder.type("manage.py", "shell", text=code).split()[-2:] == ["sent", NUMBER]
        folder.type("manage.py", "shell", text=block_with("tutorial", "queue_sms("))
        assert "sent 1" in folder.type("manage.py", "sms_worker", "--once")
    with folder.gateway(faulty):
        assert "OUTCOME UNKNOWN, it may have been sent" in folder.type(*again.split()[1:], code=1)


# --- a backend of one's own -----------------------------------------------------------------------


@pytest.fixture
def acme(monkeypatch):
    """The file that the docs give to copy, at the place that they name."""
    spec = importlib.util.spec_from_file_location("shop.acme", ROOT / "docs/howto/acme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "shop", types.ModuleType("shop"))
    monkeypatch.setitem(sys.modules, "shop.acme", module)
    return module


class Acme(http.server.BaseHTTPRequestHandler):
    """The imaginary provider; ``answers``: what it answers next, None to hang up."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, self.headers["Authorization"], json.loads(body)))
        self.do_GET()

    def do_GET(self):
        answer = self.server.answers.pop(0)
        if answer is None:
            self.close_connection = True
            return
        status, text = answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def acme_server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Acme) as server:
        server.answers, server.requests = [], []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def acme_backend(acme, acme_server):
    return acme.SmsBackend(token="token", sender_id="MyShop", url=acme_server.url, alias="acme")


def test_a_backend_of_ones_own(logins, acme, monkeypatch):
    """Also with the settings below it."""
    backend = run("howto/new-provider", "the_id = ...")["SmsBackend"]
    assert backend(token="secret").send_messages([SmsMessage(to=NUMBER, body=TEXT)]) == 1
    monkeypatch.setattr(acme, "SmsBackend", backend)
    assert checked(run("howto/new-provider", "shop.acme.SmsBackend")) == []


def test_a_backend_that_announces_its_first_byte(acme_server, monkeypatch):
    monkeypatch.setattr(http.client, "HTTPSConnection", http.client.HTTPConnection)
    backend = run("howto/new-provider", "announces_first_byte = True")["SmsBackend"]
    announced = []
    message = SmsMessage(to=NUMBER, body=TEXT)
    message.before_first_byte = lambda: announced.append(len(acme_server.requests))
    acme_server.answers = [(201, ""), (500, ""), None]
    here = backend(host=acme_server.url.removeprefix("http://"))
    assert here.send_message(message) == Receipt()
    for error in (SmsOutcomeUnknown, http.client.RemoteDisconnected):
        with pytest.raises(error):
            here.send_message(message)
    assert announced == [0, 1, 2]
    with closed_port() as port, pytest.raises(GatewayUnreachable):
        backend(host=f"127.0.0.1:{port}").send_message(message)
    assert announced == [0, 1, 2]


def test_the_file_to_copy_is_found_and_checked(acme, logins, monkeypatch):
    assert checked(run("howto/new-provider", "shop.acme.SmsBackend")) == []
    monkeypatch.setenv("ACME_TOKEN", "")
    assert checked(run("howto/new-provider", "shop.acme.SmsBackend")) == ["acme.E001"]


def test_the_file_to_copy_sends(acme_backend, acme_server):
    acme_server.answers = [
        (201, '{"id": "17", "credits": "99.50"}'),
        (200, '{"state": "delivered"}'),
        (200, '{"credits": "99.50"}'),
    ]
    with acme_backend as backend:
        receipt = backend.send_message(SmsMessage(to=NUMBER, body=TEXT))
        assert receipt == Receipt(gateway_id="17", balance=Decimal("99.50"))
        message = SmsMessage(to=NUMBER, body=TEXT, gateway_id="17")
        assert backend.get_status(message) == Report("delivered", "delivered")
        assert backend.get_balance() == Decimal("99.50")
    body = {"to": NUMBER, "from": "MyShop", "text": TEXT}
    assert acme_server.requests == [("/messages", "Bearer token", body)]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((401, ""), AuthenticationFailed),
        ((402, ""), InsufficientCredits),
        ((422, ""), InvalidRecipient),
        ((429, ""), GatewayBusy),
        ((500, ""), SmsOutcomeUnknown),
        ((302, ""), SmsOutcomeUnknown),
        (None, SmsOutcomeUnknown),
    ],
)
def test_the_file_to_copy_calls_each_doubt_a_doubt(acme_backend, acme_server, answer, error):
    acme_server.answers = [answer]
    with pytest.raises(SmsError) as caught:
        acme_backend.send_message(SmsMessage(to=NUMBER, body=TEXT))
    assert type(caught.value) is error
    assert NUMBER not in str(caught.value) and TEXT not in str(caught.value)
    assert len(acme_server.requests) == 1


def test_the_file_to_copy_asks_without_a_doubt(acme_backend, acme_server):
    acme_server.answers = [(500, ""), (200, "nonsense"), None]
    for _ in range(3):
        with pytest.raises(QueryFailed):
            acme_backend.get_balance()


def test_the_file_to_copy_knows_that_nothing_was_written(acme, monkeypatch):
    with closed_port() as port:
        backend = acme.SmsBackend(token="token", url=f"http://127.0.0.1:{port}")
        with pytest.raises(GatewayUnreachable):
            backend.send_message(SmsMessage(to=NUMBER, body=TEXT))
    for error in (socket.gaierror("no such host"), TimeoutError(), OSError("no network")):
        with (
            mock.patch("socket.getaddrinfo", side_effect=error),
            pytest.raises(GatewayUnreachable),
        ):
            backend.send_message(SmsMessage(to=NUMBER, body=TEXT))


# --- what it lists --------------------------------------------------------------------------------


def sources():
    """Of the package that is imported: an installed one has no checkout beside it."""
    package = Path(django_smska.__file__).parent
    return "".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))


def test_each_system_check_is_listed():
    listed = re.findall(r"^\.\. smska-check:: (smska\.\w+)$", DOCUMENTS["reference/checks"], re.M)
    assert listed == sorted(set(listed))
    in_source = {
        f"smska.{name}" for name in re.findall(r'"(?:smska\.)?([EW]\d{3})"', sources())
    } | {"smska.E001"}
    assert set(listed) == in_source
    assert set(re.findall(r"smska\.[EW]\d{3}", WORDS)) == in_source


def test_each_command_is_listed_and_each_option_exists():
    ours = {name for name, app in get_commands().items() if app == "django_smska"}
    page = DOCUMENTS["reference/commands"]
    assert set(re.findall(r"^\.\. smska-command:: (\w+)$", page, re.M)) == ours
    named = re.findall(r"\b(sms_\w+|sendtestsms)((?: +[^`\s]+)*)", WORDS)
    for name, rest in named:
        if name in ours and "--" in rest:
            parser = load_command_class("django_smska", name).create_parser("manage.py", name)
            for option in re.findall(r"(?<=\s)--[a-z-]+", rest):
                assert option in parser.format_help(), name


#: Commands of the task engines that the docs describe, of the example project, of another app.
OTHERS = {
    "db_worker",
    "prune_db_task_results",
    "rqworker",
    "demo",
    "send_queued_mail",
    "cleanup_mail",
}


def test_each_command_that_is_to_be_typed_exists():
    named = set(re.findall(r"manage\.py\s+([a-z_]+)", WORDS))
    assert len(named) > 10 and named <= set(get_commands()) | OTHERS


#: Names in the environment of a project, and one that is misspelt to show what happens.
NOT_OURS = {"SMSKA_API_KEY", "SMSKA_API_PASSWORD", "SMSKA_EXPIRE_AFTER", conf.TEST_RUN}


def test_each_setting_that_is_named_exists():
    assert set(re.findall(r"SMSKA_[A-Z_]+\b(?!_)", WORDS)) - NOT_OURS <= set(conf.Setting.known)


@pytest.mark.parametrize("module", [console, dummy, failover, filebased, locmem, smska])
def test_each_option_is_described(module):
    backend = module.SmsBackend
    parameters = inspect.signature(backend.__init__).parameters.values()
    options = [one.name for one in parameters if one.kind == one.KEYWORD_ONLY]
    assert backend.__doc__ and [name for name in options if name != "alias"] == re.findall(
        r":param (\w+):", backend.__doc__
    )


@pytest.mark.django_db
def test_each_permission_is_listed():
    listed = set(re.findall(r"^(Can .*?)  ", DOCUMENTS["reference/permissions"], re.M))
    ours = Permission.objects.filter(content_type__app_label="django_smska")
    assert listed == set(ours.values_list("name", flat=True))


def test_each_status_is_explained():
    listed = re.findall(r"^([a-z]+) {2,}\S", DOCUMENTS["reference/messages"], re.M)
    assert listed == Status.values


def test_each_file_that_is_named_exists():
    folders = "benchmarks|docs|example_project|tests"
    named = set(re.findall(rf"\b((?:{folders})/[\w./-]+\.(?:py|rst|png))\b", WORDS))
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []

"""The README: its code runs, and what it lists is what there is."""

from __future__ import annotations

import ast
import re
import sys
import textwrap
import types
import unittest
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
from asgiref.sync import async_to_sync
from django.core.checks import run_checks
from django.core.management import get_commands, load_command_class
from django.db import connection
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path

import django_smska
from django_smska import conf
from django_smska.backends.smska import SmsBackend
from django_smska.models import SmsMessage
from django_smska.sms import outbox, providers, send_sms

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.rst").read_text(encoding="utf-8")
GUIDE = (ROOT / "README.ru.rst").read_text(encoding="utf-8")
CODE = re.compile(r"^( *)\.\. code-block:: python\n\n((?:\1 +\S.*\n|\n)+)", re.M)
NUMBER, TEXT = "+79041764995", "Ваш заказ готов"


def blocks(text):
    return [textwrap.dedent(match[2]).strip() + "\n" for match in CODE.finditer(text)]


def block_with(words):
    [found] = [block for block in blocks(README) if words in block]
    return found


def run(words, **names):
    """Execute the block that has these words; return its names."""
    names = {"__name__": "readme", "number": NUMBER, "text": TEXT, **names}
    exec(compile(block_with(words), "README.rst", "exec"), names)
    return names


@pytest.fixture
def celery(monkeypatch):
    """So much of Celery as the README uses; it is no requirement of the tests."""
    module = types.SimpleNamespace(shared_task=lambda **options: lambda function: function)
    monkeypatch.setitem(sys.modules, "celery", module)


def test_all_code_compiles():
    assert len(blocks(README)) == README.count("code-block:: python") > 10
    assert len(blocks(GUIDE)) == GUIDE.count("code-block:: python") > 1
    for block in blocks(README) + blocks(GUIDE):
        compile(block, "README", "exec")


def test_each_block_of_code_is_run_here():
    source = Path(__file__).read_text(encoding="utf-8")
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    words = [call.args[0].value for call in calls if getattr(call.func, "id", "") == "run"]
    assert set(map(block_with, words)) == set(blocks(README))


# --- the settings ---------------------------------------------------------------------------------


@pytest.fixture
def login(monkeypatch):
    monkeypatch.setenv("SMSKA_API_KEY", "login")
    monkeypatch.setenv("SMSKA_API_PASSWORD", "password")


def checked(names):
    """Apply the settings that a block made; return the ids of what the checks say."""
    found = {name: value for name, value in names.items() if name.isupper()}
    with override_settings(**found, SMSKA_LOCMEM_IN_TESTS=False):
        assert isinstance(providers["default"], SmsBackend)
        return [message.id for message in run_checks(tags=["sms"])]


def test_the_settings(login):
    names = run('os.environ["SMSKA_API_KEY"]')
    assert names["INSTALLED_APPS"] == ["django_smska"]
    assert checked({"SMS_PROVIDERS": names["SMS_PROVIDERS"]}) == []


def test_the_settings_in_one_line(monkeypatch):
    [url] = re.findall(r"# (smska://\S+)", block_with("cast=sms_url"))
    monkeypatch.setenv("SMS_URL", url)
    assert checked({"SMS_PROVIDERS": run("cast=sms_url")["SMS_PROVIDERS"]}) == []


def test_the_task_engines(settings):
    apps = settings.INSTALLED_APPS
    assert run("SMSKA_TASKS =")["SMSKA_TASKS"] == "default"
    for names in (
        run("django_tasks_db.DatabaseBackend", INSTALLED_APPS=list(apps)),
        run("django_tasks_rq.RQBackend", INSTALLED_APPS=list(apps)),
    ):
        assert len(names["INSTALLED_APPS"]) > len(apps)
        assert list(names["TASKS"]) == ["default"]


@pytest.mark.django_db(transaction=True)
def test_celery(celery):
    queued_three()
    run("from celery import shared_task")["send_queued_sms"]()
    assert len(outbox) == 3
    [entry] = run("CELERY_BEAT_SCHEDULE")["CELERY_BEAT_SCHEDULE"].values()
    assert "def " + entry["task"].rpartition(".")[2] in block_with("from celery import shared_task")


# --- sending --------------------------------------------------------------------------------------


def queued_three():
    patients = mock.Mock(iterator=lambda: [mock.Mock(phone=f"890417649{n}") for n in (96, 97)])
    sms = run("from django_smska.sms import send_sms, queue_sms")
    outbox.clear()
    names = {name: sms[name] for name in ("queue_sms", "send_mass_sms")}
    run("queue_sms(number, text", order=mock.Mock(pk=42), patients=patients, **names)
    assert SmsMessage.objects.filter(status="queued").count() == 3


def urls(*patterns):
    module = types.ModuleType("urls_of_the_readme")
    module.urlpatterns = patterns
    return module


@pytest.mark.django_db
def test_send():
    message = run("from django_smska.sms import send_sms, queue_sms")["message"]
    assert (message.status, message.to) == ("sent", NUMBER)
    assert run("backend.send_messages")["accepted"] == 1
    assert [one.to for one in outbox] == [NUMBER, NUMBER]


@pytest.mark.django_db(transaction=True)
def test_async():
    names = run("sync_to_async(send_sms)", send_sms=run("@transaction.non_atomic")["send_sms"])
    assert async_to_sync(names["notify"])(NUMBER, TEXT).status == "sent"


@pytest.mark.parametrize(
    ("balance", "answer"), [(1, "The SMS is sent."), (0, "The SMS was not sent.")]
)
def test_a_view_that_must_know(provider, settings, client, balance, answer):
    """Also where each view is a transaction."""
    provider.balance = balance
    view = run("@transaction.non_atomic_requests")["order_ready"]
    settings.ROOT_URLCONF = urls(path("ready/", view))
    with mock.patch.dict(connection.settings_dict, ATOMIC_REQUESTS=True):
        response = client.post("/ready/", {"phone": "8 904 176-49-95"})
    assert response.content.decode().startswith(answer)
    assert len(provider.accepted) == balance


@pytest.mark.django_db(transaction=True)
def test_the_worker_in_tests_prints_nothing(capfd):
    queued_three()
    run("call_command(")
    assert len(outbox) == 3
    assert capfd.readouterr() == ("", "")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["OrderReady", "LostAnswer"])
def test_the_tests(settings, name):
    def ready(request):
        send_sms(NUMBER, TEXT)
        return HttpResponse()

    settings.ROOT_URLCONF = urls(path("orders/1/ready/", ready))
    names = run("class OrderReady") | run("class LostAnswer")
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(names[name])
    result = suite.run(unittest.TestResult())
    assert (result.testsRun, result.errors, result.failures) == (1, [], [])


def test_a_backend_of_ones_own():
    backend = run("super().__init__(**kwargs)")["SmsBackend"](token="secret")
    assert backend.send_messages([SmsMessage(to=NUMBER, body=TEXT)]) == 1


# --- what it lists --------------------------------------------------------------------------------


def sources():
    """Of the package that is imported: an installed one has no checkout beside it."""
    package = Path(django_smska.__file__).parent
    return "".join(path.read_text(encoding="utf-8") for path in package.rglob("*.py"))


def test_each_system_check_has_its_line():
    listed = re.findall(r"^(smska\.[EW]\d{3}) ", README, re.M)
    assert listed == sorted(set(listed))
    in_source = {
        f"smska.{name}" for name in re.findall(r'"(?:smska\.)?([EW]\d{3})"', sources())
    } | {"smska.E001"}
    assert set(listed) == in_source


def test_each_setting_has_its_line_and_its_default():
    listed = dict(re.findall(r"^``(SMSKA_[A-Z_]+)`` {2,}(\S+) ", README, re.M))
    assert listed == {name: as_listed(read()) for name, read in conf.Setting.known.items()}


def as_listed(value):
    value = value.total_seconds() if isinstance(value, timedelta) else value
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def test_each_command_has_its_line_and_its_options():
    ours = [name for name, app in get_commands().items() if app == "django_smska"]
    listed = dict(re.findall(r"^``([a-z_]+)((?: [^`]*)?)``\n    [A-Z]", README, re.M))
    assert set(ours) <= set(listed)
    for name in ours:
        parser = load_command_class("django_smska", name).create_parser("manage.py", name)
        for option in re.findall(r"--[a-z-]+", listed[name]):
            assert option in parser.format_help()


def test_plain_words():
    """Words that a reader with English as a second language misreads, outside of code."""
    text = re.sub(r"``.*?``", "", CODE.sub("", README), flags=re.S)
    wrong = "surely|deeds?|shall|told|tells|taken|anew|meanwhile|cure|ill|ails?|nobody|somebody"
    assert re.findall(rf"\b(?:{wrong}|by itself|in the air)\b", text, re.I) == []

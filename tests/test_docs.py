"""The documentation: its code runs, and what it names is there."""

from __future__ import annotations

import ast
import contextlib
import hmac
import html
import http.client
import http.server
import importlib.util
import inspect
import json
import logging
import logging.config
import os
import re
import socket
import subprocess
import sys
import textwrap
import threading
import types
import unittest
import uuid
from datetime import datetime, timezone
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from unittest import mock

import pytest
from django.contrib.auth.models import Permission, User
from django.core.checks import run_checks
from django.core.management import call_command, get_commands, load_command_class
from django.core.management.base import SystemCheckError
from django.db import connection
from django.db.models import F
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path

import django_smska
from django_smska import (
    backends,
    conf,
    inbound,
    limit_rules,
    provider_status,
    quiet_hours,
    replies,
)
from django_smska.admin.permissions import CONTACTS_NAMES, translated
from django_smska.backends.over_http import HttpBackend
from django_smska.exceptions import (
    AuthenticationFailed,
    ErrorKind,
    GatewayBusy,
    GatewayUnreachable,
    InsufficientCredits,
    InvalidProvider,
    InvalidRecipient,
    QueryFailed,
    SmsError,
    SmsNotSent,
    SmsOutcomeUnknown,
)
from django_smska.models import SmsInbound, SmsMessage, SmsTemplate
from django_smska.opt_out import is_opted_out, opt_out
from django_smska.receipts import Inbound, Receipt, Report
from django_smska.signals import sms_failed, sms_received
from django_smska.sms import outbox, providers, queue_sms, send_sms
from django_smska.states import Status
from django_smska.testing import assert_sms_sent, closed_port
from django_smska.testing.faults import Fault
from django_smska.tracing import ABORTED, ACCEPTED, NOT_BEGUN
from django_smska.webhook_urls import webhook_url
from tests import providers_table
from tests.documents import DOCUMENTS, ROOT, block_with, blocks, run
from tests.packages import package, require

NUMBER, TEXT = "+79041764995", "Ваш заказ готов"
WORDS = "\n".join(DOCUMENTS.values())


def test_all_code_is_found():
    for name, text in DOCUMENTS.items():
        assert len(blocks(text)) == text.count("code-block:: python"), name


def test_each_block_of_code_is_run_here():
    here = Path(__file__)
    others = ("test_mocked_http.py", "test_groups.py")
    files = (here, *map(here.with_name, others))
    source = "\n".join(file.read_text(encoding="utf-8") for file in files)
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
    monkeypatch.setenv("KANNEL_PASSWORD", "password")


def checked(names):
    """Apply the settings that a block made; return the ids of what the checks say."""
    found = {name: value for name, value in names.items() if name.isupper()}
    ours = {name: value for name, value in found.items() if name.startswith("SMS")}
    with override_settings(**ours, SMSKA_LOCMEM_IN_TESTS=False):
        assert all(providers[alias] for alias in providers)
        return [message.id for message in run_checks(tags=["sms"], databases=[])]


def test_the_settings(logins):
    for names in (
        run("README", "SMS_PROVIDERS"),
        run("howto/sms-ka", 'os.environ["SMSKA_API_KEY"]'),
    ):
        assert names["INSTALLED_APPS"] == ["django_smska"]
        assert checked(names) == []


def test_the_senders_to_choose_from(logins):
    assert checked(run("reference/backends", '"senders"')) == []


def test_the_settings_of_kannel(logins):
    names = run("howto/kannel", "kannel.SmsBackend")
    assert checked(names) == []
    assert names["SMSKA_PUBLIC_URL"].startswith("https://")
    [url] = re.findall(r"``(kannel://\S+)``", DOCUMENTS["howto/kannel"])
    options = conf.sms_url(url)["OPTIONS"]
    assert options == names["SMS_PROVIDERS"]["default"]["OPTIONS"]


def test_the_settings_in_one_line(monkeypatch):
    [url] = re.findall(r"# (smska://\S+)", block_with("howto/sms-ka", "cast=sms_url"))
    monkeypatch.setenv("SMS_URL", url)
    assert checked(run("howto/sms-ka", "cast=sms_url")) == []


def test_the_settings_of_twilio_and_infobip(monkeypatch):
    sid = "AC" + "1f" * 16
    monkeypatch.setenv("TWILIO_ACCOUNT_SID", sid)
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "token")
    monkeypatch.setenv("INFOBIP_API_KEY", "key")
    for name, names in (
        ("twilio", run("howto/twilio", "SMS_PROVIDERS")),
        ("infobip", run("howto/infobip", "SMS_PROVIDERS")),
    ):
        assert checked(names) == []
        [url] = re.findall(rf"SMS_URL=({name}://\S+)", DOCUMENTS[f"howto/{name}"])
        entry = conf.sms_url(url.replace("ACCOUNT_SID", sid))
        expected = names["SMS_PROVIDERS"]["default"]
        assert entry["BACKEND"] == expected["BACKEND"]
        assert set(entry["OPTIONS"]) == {"url", *expected["OPTIONS"]}
        assert checked({"SMS_PROVIDERS": {"default": entry}}) == []


@pytest.mark.parametrize("name", ["twilio", "infobip"])
def test_each_code_that_a_guide_names_is_in_the_table(name):
    """By what it does, so that the guide and the table say the same."""
    refusals = import_module(f"django_smska.backends.{name}").REFUSALS
    [table] = re.findall(
        r"What is refused\n.*?^=+ =+$(.*)^=+ =+$", DOCUMENTS[f"howto/{name}"], re.M | re.S
    )
    rows = re.findall(r"^((?:[0-9]+(?:, |,?\s))+)", table, re.M)
    named = {int(code) for row in rows for code in re.findall("[0-9]+", row)}
    assert len(named) > 8 and named <= set(refusals)


def test_the_settings_of_other_providers(monkeypatch):
    for page in ("howto/smsc", "howto/http"):
        for name in re.findall(r'os\.environ\["(\w+)"\]', DOCUMENTS[page]):
            monkeypatch.setenv(name, "login")
    for names in (
        run("howto/smsc", "smsc.SmsBackend"),
        run("howto/http", "api.acme.example"),
        run("howto/http", "https://sms.ru/sms/send"),
        run("howto/http", "https://gate.smsaero.ru"),
        run("howto/http", "https://api.exolve.ru"),
    ):
        assert checked(names) == []
    for names in (run("howto/http", '"dlr-url"'), run("howto/http", "<dlr-url>")):
        assert checked(names) == ["smska.W023"]  # no address to report to


@pytest.mark.django_db
def test_several_providers(logins, settings):
    names = run("howto/failover", "failover.SmsBackend")
    assert checked(names) == []
    settings.SMS_PROVIDERS = names["SMS_PROVIDERS"]
    run("howto/failover", 'using="bulk"', number=NUMBER)
    assert list(SmsMessage.objects.values_list("using", flat=True)) == ["safe", "bulk"]


def test_the_webhooks(settings):
    settings.ROOT_URLCONF = ModuleType("urls_of_the_guide")
    vars(settings.ROOT_URLCONF).update(run("howto/webhooks", "urlpatterns"))
    settings.SMSKA_PUBLIC_URL = run("howto/webhooks", "SMSKA_PUBLIC_URL")["SMSKA_PUBLIC_URL"]
    assert re.fullmatch(
        "https://shop.example/sms/default/[0-9a-f]{32}/report/", webhook_url("default", "report")
    )


def test_the_task_engines(settings):
    apps = settings.INSTALLED_APPS
    assert run("howto/queues", "SMSKA_TASKS =")["SMSKA_TASKS"] == "default"
    for names in (
        run("howto/queues", "django_tasks_db.DatabaseBackend", INSTALLED_APPS=list(apps)),
        run("howto/queues", "django_tasks_rq.RQBackend", INSTALLED_APPS=list(apps)),
    ):
        assert len(names["INSTALLED_APPS"]) > len(apps)
        assert list(names["TASKS"]) == ["default"]


def test_what_stops_and_holds(settings, tmp_path):
    assert run("howto/stopping", "SMSKA_STOPPED")["SMSKA_STOPPED"] == ["bulk"]
    assert run("howto/restoring", "SMSKA_HOLD_AFTER")["SMSKA_HOLD_AFTER"] == conf.hold_after.default
    names = run("howto/restoring", "SMSKA_STOPPED")
    settings.SMS_PROVIDERS, settings.SMSKA_STOPPED = names["SMS_PROVIDERS"], names["SMSKA_STOPPED"]
    assert conf.stopped() == {"default"} and checked(names) == []


def test_the_price_of_a_segment(settings):
    settings.SMSKA_PRICES = run("howto/admin", "SMSKA_PRICES")["SMSKA_PRICES"]
    assert conf.prices() == {"default": (Decimal("3.50"), "RUB")}


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
    shop = {"order": mock.Mock(pk=1), "manager": mock.Mock(phone=NUMBER)}
    names = run("howto/sending", 'f"order-{order.pk}-ready"', **shop, **context())
    assert names["queue_sms"](NUMBER, TEXT, idempotency_key="order-1-ready").status == "queued"
    assert run("howto/sending", "backend.send_messages", **context())["accepted"] == 1
    assert [one.body for one in outbox] == [TEXT, "Заказ 1 оплачен", TEXT]


@pytest.mark.django_db
def test_codes(settings):
    settings.SMSKA_LIMITS = {"codes": [60]}
    code_sent = run("howto/sending", "def code_sent")["code_sent"]
    assert code_sent("8 904", "503918").startswith("A Russian number has")
    assert code_sent(NUMBER, "503918") == "Введите код из SMS."
    words = r"Too many SMS were asked for\. Try again in (59|60) seconds\."
    assert re.fullmatch(words, code_sent(NUMBER, "111222"))
    assert [one.body for one in outbox] == ["Код для входа: 503918"]
    settings.SMSKA_STOPPED = True
    assert code_sent(NUMBER.replace("9", "8"), "503918").startswith("The SMS was not sent")


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


@pytest.mark.parametrize("atomic", [False, True])
def test_an_async_view(provider, settings, client, atomic, monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", atomic)
    view = run("howto/async", "await asend_sms(")["order_ready"]
    settings.ROOT_URLCONF = urls(path("ready/", view))
    assert client.post("/ready/", {"phone": NUMBER}).json() == {"status": "sent"}


@pytest.mark.django_db
def test_templates():
    for name, text in {"order-ready": "{order}: {sum} ₽", "login": "Код: {code}"}.items():
        SmsTemplate.objects.create(name=name, body=text)
    order = mock.Mock(phone=NUMBER, number="A-18", sum=5)
    one = run("howto/templates", "using=", number=NUMBER)
    assert [message.body for message in outbox] == ["A-17: 990.50 ₽"]
    run("howto/templates", "send_mass_sms(", number=NUMBER, code="5039", orders=[order])
    assert SmsMessage.objects.filter(status="queued").count() == 2
    names = run("howto/templates", "def notify_customer", send_template=one["send_template"])
    assert names["notify_customer"](order) is None and outbox[-1].body == "A-18: 5 ₽"
    SmsTemplate.objects.all().delete()
    assert "There is no template “order-ready”" in names["notify_customer"](order)


@pytest.mark.django_db
def test_mass_sending(settings, capsys):
    settings.SMS_PROVIDERS = {"bulk": {}, "default": {}}
    bad = mock.Mock(iterator=lambda: [mock.Mock(phone=NUMBER), mock.Mock(phone="12")])
    assert run("howto/mass-sending", "result.errors", patients=bad)["result"] == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "1 queued, 1 not stored" and printed[1].startswith("row 1: ")

    at = datetime(2026, 11, 27, 14, 30, tzinfo=timezone.utc)
    some = [mock.Mock(pk=pk, phone=NUMBER, at=at) for pk in (1, 2)]
    for _ in range(2):
        run("howto/mass-sending", "def reminders", appointments=some)
    reminders = SmsMessage.objects.filter(priority=-10)
    assert {message.body for message in reminders} == {"Ждём вас завтра в 14:30"}
    assert reminders.count() == 2


@pytest.mark.django_db
def test_a_mailing(capsys):
    patients = [mock.Mock(phone=number) for number in (NUMBER, "+79161234567")]
    found = run("howto/mass-sending", "resend_failed()", patients=patients)
    assert capsys.readouterr().out == "0 queued again, 0 not\n"
    mailing = found["mailing"]
    assert (mailing.name, mailing.stopped_at) == ("Closed on Friday", None)
    assert mailing.messages.filter(status="queued").count() == 2


@pytest.mark.django_db
def test_quiet_hours(settings, monkeypatch):
    set_to = run("howto/quiet-hours", '"21:00", "until"')["SMSKA_QUIET_HOURS"]
    assert set_to == conf.QUIET_HOURS == conf.quiet_hours.default
    run("howto/quiet-hours", "at_any_hour=False", clients=[mock.Mock(phone=NUMBER)])
    assert SmsMessage.objects.get().mailing.at_any_hour is False

    clients = mock.Mock()
    clients.objects.filter().values_list().first.return_value = "Asia/Omsk"
    modules = {"shop": mock.Mock(), "shop.models": mock.Mock(Client=clients)}
    with mock.patch.dict("sys.modules", modules):
        function = run("howto/quiet-hours", "def zone_of")["zone_of"]
        monkeypatch.setitem(sys.modules, "shop.regions", mock.Mock(zone_of=function))
        settings.SMSKA_QUIET_HOURS = run("howto/quiet-hours", "shop.regions.zone_of")[
            "SMSKA_QUIET_HOURS"
        ]
        assert quiet_hours.zones([NUMBER], conf.quiet_hours()) == {NUMBER: "Asia/Omsk"}


def test_limits_are_listed_with_their_defaults():
    assert run("howto/limits", "SMSKA_LIMITS = {")["SMSKA_LIMITS"] == limit_rules.DEFAULTS
    listed = re.findall(r"^``(\w+)``$", DOCUMENTS["howto/limits"], re.M)
    assert listed == list(limit_rules.DEFAULTS)


@pytest.mark.django_db
def test_the_do_not_send_list():
    names = run("howto/do-not-send", "import is_opted_out", numbers=["8 905 123-45-67"])
    assert not names["is_opted_out"](NUMBER) and names["is_opted_out"]("+79051234567")
    run("howto/do-not-send", "despite_opt_out", number="+79051234567", code="17", send_sms=send_sms)
    assert [message.to for message in outbox] == ["+79051234567"]


@pytest.mark.django_db(transaction=True)
def test_a_reply(settings):
    confirmed = []
    names = run("howto/inbound", "@receiver(sms_received)", confirmed=confirmed)
    try:
        inbound.receive(
            "default", [Inbound(NUMBER, "1234", " Да\n"), Inbound(NUMBER, "1234", "Нет")]
        )
    finally:
        assert sms_received.disconnect(names["confirm_the_appointment"])
    assert confirmed == [NUMBER]


@pytest.mark.django_db
def test_the_words_of_stop(settings):
    settings.SMSKA_STOP_WORDS = run("howto/inbound", "SMSKA_STOP_WORDS")["SMSKA_STOP_WORDS"]
    inbound.receive("default", [Inbound(NUMBER, "1234", "хватит!")])
    assert is_opted_out(NUMBER)
    [listed] = re.findall(r"By default the words are ([^.]+)\.", DOCUMENTS["howto/inbound"])
    assert re.split(r",\s+", " ".join(listed.split())) == list(replies.STOP_WORDS)


PAGE = {
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "OPTIONS": {
        "loaders": [("django.template.loaders.locmem.Loader", {"code.html": "{{ form.as_div }}"})]
    },
}


@pytest.fixture(params=[False, True], ids=["alone", "atomic"])
def open_form(request, provider, settings, client):
    """Return what posts a number to the form, and returns the answer as text."""
    ask = run("howto/limits", "class PhoneForm", new_code=lambda request: "482913")["ask_for_code"]
    settings.ROOT_URLCONF = urls(path("", ask), path("check/", ask, name="check-code"))
    settings.TEMPLATES = [PAGE]

    def post(phone):
        response = client.post("/", {"phone": phone})
        return response.headers.get("Location") or html.unescape(response.content.decode())

    with mock.patch.dict(connection.settings_dict, ATOMIC_REQUESTS=request.param):
        yield post


def test_the_open_form_counts_by_visitor(open_form, settings):
    settings.SMSKA_LIMITS = {"caller": "1/h", "number": None}
    assert open_form("8 904 176-49-95") == "/check/"
    assert "Try again in 60 minutes." in open_form("8 904 176-49-96")
    assert SmsMessage.objects.get().to == NUMBER


@pytest.mark.parametrize("phone", ["", "8 904", "8 904 176-49-95 / 8 904 176-49-96", "nine"])
def test_the_open_form_refuses_what_is_no_number(open_form, provider, phone):
    assert 'aria-invalid="true"' in open_form(phone)
    assert not SmsMessage.objects.exists() and not provider.requests


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault("sent_error"), "The SMS was not sent. Try again in a few minutes."),
        (Fault("no_credit"), "The SMS was not sent. Try again in a few minutes."),
        (Fault("wrong_login"), "The SMS was not sent. Try again in a few minutes."),
        (Fault("bad_number"), "No SMS can be sent to this number."),
    ],
)
def test_the_open_form_says_what_was_not_sent(open_form, provider, fault, words):
    provider.script(1, fault)
    assert words in open_form(NUMBER)
    assert SmsMessage.objects.get().status == "failed"


def test_the_open_form_refuses_numbers_that_get_nothing(open_form, provider):
    opt_out(NUMBER)
    for phone in (NUMBER, "+49 30 123456"):
        assert "No SMS can be sent to this number." in open_form(phone)
    assert not provider.requests


def test_the_open_form_goes_on_where_a_code_may_have_been_sent(open_form, provider):
    provider.script(1, Fault("reset_after_request", accepted=True))
    assert open_form(NUMBER) == "/check/"


@pytest.mark.parametrize("fault", ["wrong_login", "no_credit", "http_429"])
def test_the_open_form_leaves_a_paused_provider_alone(open_form, provider, fault):
    provider.script(1, Fault(fault))
    for n in (95, 96, 97):
        assert "Try again in a few minutes." in open_form(f"890417649{n}")
    assert len(provider.requests) == 1


@pytest.mark.django_db
def test_a_lazy_text():
    run("howto/languages-themes", "gettext_lazy", number=NUMBER)
    assert SmsMessage.objects.get().to == NUMBER


@pytest.mark.django_db
def test_unknown(capsys):
    message = queue_sms(NUMBER, TEXT)
    SmsMessage.objects.filter(pk=message.pk).update(status="unknown", error_code="deadline")
    run("howto/unknown", "status=")
    assert capsys.readouterr().out.split()[::2] == [str(message.pk), "deadline"]


# --- task engines ---------------------------------------------------------------------------------


class Order:
    """An order, as the recipes find it."""

    pk, phone = 7, NUMBER

    @classmethod
    def get(cls, pk):
        assert pk == cls.pk
        return cls


Order.objects = Order


@pytest.fixture
def celery():
    """An app of Celery whose tasks run at once, and the names of a block. A shared task belongs to
    each app that is made, so that each has a name of its own."""
    app = package("celery").Celery("docs", broker="memory://", set_as_current=False)
    app.conf.update(task_always_eager=True, task_eager_propagates=False)
    app.set_default()
    yield {
        "__name__": f"docs_{uuid.uuid4().hex}",
        "Order": Order,
        "send_sms": send_sms,
        "shared_task": package("celery").shared_task,
    }
    app.close()


@pytest.fixture
def huey(settings, monkeypatch):
    """huey in its immediate mode; its module for Django makes what the settings say when it is
    imported."""
    package("huey")
    settings.HUEY = {"huey_class": "huey.MemoryHuey", "immediate": True}
    monkeypatch.delitem(sys.modules, "huey.contrib.djhuey", raising=False)
    return {"__name__": "docs", "Order": Order}


def sent_by(names, function, settings):
    """Queue a message by the recipe's function; return its status."""
    module = ModuleType("engine_of_the_docs")
    vars(module).update(names)
    settings.SMSKA_ENQUEUE = f"{module.__name__}.{function}"
    with mock.patch.dict(sys.modules, {module.__name__: module}):
        assert run_checks(tags=["sms"], databases=[]) == []
        now = queue_sms(NUMBER, TEXT)
        now.refresh_from_db()
    return now.status


def test_the_setting_of_any_engine():
    assert run("howto/task-engines", "SMSKA_ENQUEUE")["SMSKA_ENQUEUE"] == "shop.tasks.enqueue_sms"


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_celery(celery, settings):
    names = run("howto/task-engines", "send_queued_sms.apply_async", **celery)
    assert sent_by(names, "enqueue_sms", settings) == "sent"
    settings.SMSKA_ENQUEUE = None
    queue_sms(NUMBER, TEXT)
    names["sms_work"].delay()
    assert len(outbox) == 2
    [entry] = run("howto/task-engines", "CELERY_BEAT_SCHEDULE")["CELERY_BEAT_SCHEDULE"].values()
    assert entry["task"] == "shop.tasks.sms_work"


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_huey(huey, settings):
    names = run("howto/task-engines", "crontab", **huey)
    assert sent_by(names, "enqueue_sms", settings) == "sent"
    settings.SMSKA_ENQUEUE = None
    queue_sms(NUMBER, TEXT)
    names["sms_work"].call_local()
    assert len(outbox) == 2


@pytest.mark.parametrize("retries", ["once", "WRONG"])
@pytest.mark.parametrize("fault", ["reset_after_request", "sent_error"])
def test_send_sms_in_a_task_of_celery(celery, provider, fault, retries):
    """The requests that arrive, where the outcome of the first is unknown, or it was not sent."""
    provider.script(1, Fault(fault))
    if retries == "WRONG":
        names = run("howto/task-engines", "WRONG", **celery)
    else:
        names = run("howto/task-engines", "idempotency_key=self.request.id)", **celery)
    names["order_is_ready"].delay(7)
    assert provider.sends == (2 if retries == "WRONG" else 1)


@pytest.mark.parametrize(("fault", "sends"), [("reset_after_request", 1), ("sent_error", 2)])
def test_retries_of_what_was_not_sent(celery, provider, fault, sends):
    provider.script(1, Fault(fault))
    task = run("howto/task-engines", "self.request.retries", **celery)["order_is_ready"]
    task.apply((7,), task_id="one")
    assert provider.sends == sends
    task.apply((7,), task_id="one")  # as where it is delivered again
    assert provider.sends == sends


def test_what_was_not_sent_is_sent_by_a_retry_under_the_default_limits(celery, provider, settings):
    settings.SMSKA_LIMITS = {}
    for n in (1, 2, 3):
        provider.script(n, Fault("sent_error"))
    task = run("howto/task-engines", "self.request.retries", **celery)["order_is_ready"]
    task.apply((7,), task_id="one")
    assert provider.sends == 4
    (accepted,) = provider.accepted
    assert accepted.text == "Order 7 is ready"
    statuses = SmsMessage.objects.order_by("pk").values_list("status", flat=True)
    assert list(statuses) == ["failed"] * 3 + ["sent"]


@pytest.mark.parametrize("fault", ["reset_after_request", "sent_error"])
def test_send_sms_in_a_task_of_huey(huey, provider, fault):
    provider.script(1, Fault(fault))
    names = run("howto/task-engines", "context=True", **huey)
    names["order_is_ready"](7)
    assert provider.sends == 1


def test_huey_retries_what_may_have_been_sent(huey, provider):
    """Without the key of the recipe."""
    provider.script(1, Fault("reset_after_request"))
    source = block_with("howto/task-engines", "context=True")
    wrong = source.replace(", idempotency_key=task.id", "")
    exec(compile(wrong, "wrong", "exec"), huey)
    huey["order_is_ready"](7)
    assert provider.sends == 2


def test_the_other_engines():
    """test_engines.py has their workers run them."""
    for source in (
        block_with("howto/task-engines", "django_rq"),
        block_with("howto/task-engines", "@dramatiq.actor"),
        block_with("howto/task-engines", "async_task("),
    ):
        compile(source, "howto/task-engines", "exec")


# --- other apps -----------------------------------------------------------------------------------


def test_the_settings_of_other_apps():
    """They name what is there; tests/adapted has them at work."""
    backends = run("howto/adapters", "SMS_BACKEND")
    paths = [backends["SMS_BACKEND"], backends["SENDSMS_BACKEND"]]
    passwordless = run("howto/adapters", "PASSWORDLESS_AUTH", INSTALLED_APPS=[])[
        "PASSWORDLESS_AUTH"
    ]
    verify = run("howto/adapters", "PHONE_VERIFICATION", INSTALLED_APPS=[])["PHONE_VERIFICATION"]
    for one in [*paths, passwordless["PASSWORDLESS_SMS_CALLBACK"], verify["BACKEND"]]:
        module, _, name = one.rpartition(".")
        source = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
        assert re.search(rf"^(class|def) {name}\b", source, re.M)


@pytest.fixture(params=[False, True], ids=["alone", "atomic"])
def api(request, provider, settings, client):
    """Return a client of the API, whose views are transactions or not."""
    require("rest_framework")
    names = {"new_code": lambda request: "482913", "phone_of": lambda pk: NUMBER}
    ask = run("howto/rest-framework", "class AskForCode", **names)["AskForCode"]
    ready = run("howto/rest-framework", "class OrderReady", **names)["OrderReady"]
    settings.ROOT_URLCONF = urls(
        path("code/", ask.as_view()), path("orders/<int:pk>/ready/", ready.as_view())
    )
    settings.SMSKA_LIMITS = {"codes": [30]}
    with mock.patch.dict(connection.settings_dict, ATOMIC_REQUESTS=request.param):
        yield client


def test_an_api_that_sends_codes(api, provider):
    answers = [api.post("/code/", {"phone": "8 904 176-49-95"}) for _ in range(2)]
    assert [one.status_code for one in answers] == [202, 429]
    assert answers[0].json() == {"phone": NUMBER}
    assert 0 < int(answers[1]["Retry-After"]) <= 30
    bad = api.post("/code/", {"phone": "12"})
    assert (bad.status_code, list(bad.json())) == (400, ["phone"])
    assert api.post("/code/", {}).status_code == 400
    assert [one.text for one in provider.accepted] == ["Ваш код: 482913"]


def test_an_api_that_counts_visitors(api, settings):
    settings.SMSKA_LIMITS = {"caller": "1/h", "number": None}
    answers = [api.post("/code/", {"phone": f"890417649{n}"}).status_code for n in (95, 96)]
    assert answers == [202, 429]


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault("no_credit"), 503),
        (Fault("bad_number"), 400),
        (Fault("reset_after_request", accepted=True), 202),
    ],
)
def test_an_api_answers_by_what_became_of_the_code(api, provider, fault, status):
    provider.script(1, fault)
    answered = api.post("/code/", {"phone": NUMBER})
    assert answered.status_code == status
    if status == 503:
        assert answered.json() == {"detail": "The SMS was not sent. Try again in a few minutes."}


@pytest.mark.parametrize("api", [False], indirect=True)
def test_an_api_that_is_asked_again_after_a_failure(api, provider):
    """The wait between two codes holds also after one that was not sent."""
    provider.script(1, Fault("sent_error"))
    answers = [api.post("/code/", {"phone": NUMBER}) for _ in range(2)]
    assert [one.status_code for one in answers] == [503, 429]
    assert 0 < int(answers[1]["Retry-After"]) <= 30


@pytest.mark.parametrize("fault", ["wrong_login", "no_credit", "http_429"])
def test_an_api_leaves_a_paused_provider_alone(request, api, provider, fault):
    """Except where the guide says that a rollback takes the pause back."""
    provider.script_all(Fault(fault), on="send")
    for n in (95, 96, 97):
        assert api.post("/code/", {"phone": f"890417649{n}"}).status_code == 503
    rolled_back = "atomic" in request.node.name and connection.vendor == "sqlite"
    assert len(provider.requests) == (3 if rolled_back else 1)


@pytest.mark.parametrize(
    ("fault", "first", "again", "became"),
    [
        (None, 200, 200, "sent"),
        (Fault("no_credit"), 503, 503, "failed"),
        (Fault("bad_number"), 400, 503, "failed"),
        (Fault("reset_after_request", accepted=True), 202, 202, "unknown"),
    ],
)
def test_an_api_that_sends_notices(api, provider, fault, first, again, became):
    """A request that is repeated sends nothing, and its answer says so."""
    assert api.post("/orders/1/ready/").status_code == 403
    api.force_login(User.objects.create_superuser("boss"))
    provider.script(1, fault)
    answers = [api.post("/orders/1/ready/") for _ in range(2)]
    assert [one.status_code for one in answers] == [first, again]
    assert answers[1].json() == {"status": became}
    assert SmsMessage.objects.get().status == became
    assert len(provider.requests) == 1


@pytest.mark.parametrize(("status", "code"), [("sending", 202), ("claimed", 202), ("sent", 200)])
def test_an_api_that_is_asked_twice_at_once(api, provider, status, code):
    api.force_login(User.objects.create_superuser("boss"))
    api.post("/orders/1/ready/")
    SmsMessage.objects.update(status=status)
    answer = api.post("/orders/1/ready/")
    assert (answer.status_code, answer.json()) == (code, {"status": status})


# --- tests ----------------------------------------------------------------------------------------


@pytest.fixture
def ready(settings):
    def view(request):
        send_sms(NUMBER, TEXT)
        return HttpResponse()

    settings.ROOT_URLCONF = urls(path("orders/1/ready/", view))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["OrderReady", "Reminder", "LostAnswer"])
def test_the_tests(ready, name):
    names = (
        run("howto/testing", "class OrderReady")
        | run("howto/testing", "class Reminder")
        | run("howto/testing", "class LostAnswer")
    )
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(names[name])
    result = suite.run(unittest.TestResult())
    assert (result.testsRun, result.errors, result.failures) == (1, [], [])


@pytest.mark.django_db
def test_the_test_for_pytest(ready, client, smsoutbox):
    names = run("howto/testing", "def test_the_customer_gets_an_sms(client, smsoutbox)")
    names["test_the_customer_gets_an_sms"](client, smsoutbox)


def test_the_failure_that_the_guide_shows(ready, client, db):
    client.post("/orders/1/ready/")
    with pytest.raises(AssertionError) as caught:
        assert_sms_sent(to=NUMBER, contains="готово")
    assert textwrap.indent(str(caught.value), "   ") in DOCUMENTS["howto/testing"]


@pytest.mark.django_db
def test_the_messages_with_a_past(settings, client):
    def view(request):
        return HttpResponse(SmsMessage.objects.get(to=NUMBER).body)

    settings.ROOT_URLCONF = urls(path("customers/1/", view))
    run("howto/testing", "make_inbound, make_sms")["test_the_page_of_a_customer"](client)
    assert SmsInbound.objects.get().sender == NUMBER


def test_the_gateway_of_the_guide(sms_gateway):
    run("howto/testing", "(sms_gateway)")["test_it_is_not_sent_twice"](sms_gateway)


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


@pytest.mark.slow
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
    with pytest.raises(InvalidProvider, match="'token' must not be empty"):
        checked(run("howto/new-provider", "shop.acme.SmsBackend"))


def test_the_file_to_copy_is_short():
    assert len((ROOT / "docs/howto/acme.py").read_text().splitlines()) <= 60


@pytest.mark.slow
def test_the_file_to_copy_sends(acme_backend, acme_server):
    acme_server.answers = [
        (201, '{"id": "17", "credits": "99.50"}'),
        (200, '{"state": "delivered"}'),
        (200, '{"credits": "99.50"}'),
    ]
    with acme_backend as backend:
        message = SmsMessage(to=NUMBER, body=TEXT)
        receipt = backend.send_message(message)
        assert receipt == Receipt(gateway_id="17", balance=Decimal("99.50"))
        message.gateway_id = receipt.gateway_id
        assert backend.get_status(message) == Report("delivered", "delivered")
        assert backend.get_balance() == Decimal("99.50")
    body = {"to": NUMBER, "from": "MyShop", "text": TEXT, "ref": message.reference}
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


@pytest.mark.django_db(transaction=True)
def test_what_the_provider_of_ones_own_pushes(acme, client, monkeypatch, settings):
    sys.modules["shop"].acme = acme
    backend = run("howto/new-provider", "parse_reports")["SmsBackend"]
    monkeypatch.setattr(acme, "SmsBackend", backend)
    settings.SMS_PROVIDERS = {
        "default": {"BACKEND": "shop.acme.SmsBackend", "OPTIONS": {"token": "secret"}}
    }
    settings.SMSKA_PUBLIC_URL = "https://shop.example"
    now = datetime.now(timezone.utc)
    times = {"expires_at": now, "sending_at": now}
    message = SmsMessage(to=NUMBER, body=TEXT, status="unknown", **times)
    SmsMessage.objects.bulk_create([message])

    def push(kind, content, token=b"secret"):
        body = json.dumps(content)
        signature = hmac.new(token, body.encode(), "sha256").hexdigest()
        headers = {"X-Acme-Signature": signature}
        where = webhook_url("default", kind).removeprefix("https://shop.example")
        return client.post(where, body, "application/json", headers=headers).status_code

    report = [{"state": "delivered", "ref": message.reference}]
    assert push("report", report, token=b"another") == 403
    message.refresh_from_db()
    assert message.status == Status.UNKNOWN
    assert push("report", report) == push("report", [{"nonsense": 1}]) == 200
    message.refresh_from_db()
    assert (message.status, message.proof) == (Status.DELIVERED, "report")
    reply = {"from": NUMBER, "to": "1234", "text": "Спасибо", "id": "r-1"}
    assert push("inbound", reply) == push("inbound", reply) == 200
    assert list(SmsInbound.objects.values_list("sender", "body")) == [(NUMBER, "Спасибо")]


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


BACKENDS = [
    import_module(f"django_smska.backends.{one.name}").SmsBackend
    for one in iter_modules(backends.__path__)
    if one.name not in ("base", "over_http")
]


@pytest.mark.parametrize("backend", [*BACKENDS, HttpBackend])
def test_each_option_is_described(backend):
    parameters = inspect.signature(backend.__init__).parameters.values()
    own = parameters if "__init__" in vars(backend) else ()  # that of the base is described there
    options = [one.name for one in own if one.kind == one.KEYWORD_ONLY]
    assert backend.__doc__ and [name for name in options if name != "alias"] == re.findall(
        r":param (\w+):", backend.__doc__
    )


@pytest.mark.django_db
def test_each_permission_is_listed():
    listed = set(re.findall(r"^(Can .*?)  ", DOCUMENTS["reference/permissions"], re.M))
    ours = Permission.objects.filter(content_type__app_label="django_smska")
    assert listed == {
        *ours.values_list("name", flat=True),
        *map(translated, CONTACTS_NAMES.values()),
    }


def test_each_status_is_explained():
    listed = re.findall(r"^([a-z]+) {2,}\S", DOCUMENTS["reference/messages"], re.M)
    assert listed == Status.values


def test_each_file_that_is_named_exists():
    folders = "benchmarks|docs|example_project|tests"
    named = set(re.findall(rf"\b((?:{folders})/[\w./-]+\.(?:py|rst|png))\b", WORDS))
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_table_of_providers_is_that_of_the_backends():
    page = providers_table.PAGE.read_text(encoding="utf-8")
    assert page == providers_table.written(page)
    listed = {module for _, module, *_ in providers_table.PROVIDERS}
    local = {"base", "over_http", "failover", "http", "console", "dummy", "filebased", "locmem"}
    assert listed | local == {one.name for one in iter_modules(backends.__path__)} | {"http"}


# --- monitoring -----------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_the_health_checks(settings, client):
    package("health_check")
    for names in (
        run("howto/monitoring", "import health\n"),
        run("howto/monitoring", "HealthCheckView"),
    ):
        settings.ROOT_URLCONF = urls(*names["urlpatterns"])
        [route] = names["urlpatterns"]
        assert client.get(f"/{route.pattern}?format=json").status_code == 200


@pytest.mark.django_db
def test_the_metrics(settings, client):
    registry = package("prometheus_client").REGISTRY
    names = run("howto/monitoring", "REGISTRY.register")
    [ours] = [one for one in registry._collector_to_names if type(one) is names["SmsCollector"]]
    registry.unregister(ours)
    names = run("howto/monitoring", "import metrics\n")
    settings.ROOT_URLCONF = urls(*names["urlpatterns"])
    page = client.get("/metrics-9ad2/").content.decode()
    named = re.findall(r"^``(smska_\w+)``", DOCUMENTS["howto/monitoring"], re.M)
    assert len(named) > 9 and all(f"# TYPE {name} gauge" in page for name in named)


def test_each_outcome_of_a_span_is_listed():
    of_no_send = {ErrorKind.ERROR, ErrorKind.STATUS, ErrorKind.QUERY}
    text = (
        DOCUMENTS["howto/monitoring"]
        .split("``smska.outcome``")[1]
        .split("``smska.accepted_by``")[0]
    )
    listed = set(re.findall("``([a-z-]+)``", text))
    assert listed == {*map(str, set(ErrorKind) - of_no_send), ACCEPTED, NOT_BEGUN, ABORTED}


def test_each_problem_is_in_the_table():
    source = inspect.getsource(provider_status)
    codes = set(re.findall(r'Problem\(\s*"([\w-]+)"', source))
    rows = re.findall(r"^``([\w-]+)`` +(fails|warning) ", DOCUMENTS["howto/monitoring"], re.M)
    assert {code for code, _ in rows} == codes and len(rows) == len(codes)


@pytest.mark.django_db(transaction=True)
def test_logs_as_json(provider, capsys):
    package("pythonjsonlogger.json")
    logger = logging.getLogger("django_smska")
    before = logger.handlers[:], logger.level, logger.propagate
    provider.script_all(Fault("reset_after_request", accepted=True))
    try:
        logging.config.dictConfig(run("reference/logs", "LOGGING")["LOGGING"])
        with pytest.raises(SmsOutcomeUnknown):
            send_sms(NUMBER, TEXT)
    finally:
        logger.handlers[:], logger.level, logger.propagate = before
    [line] = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    message = SmsMessage.objects.get()
    assert line.pop("timestamp")
    assert line == {
        "levelname": "WARNING",
        "name": "django_smska.sending",
        "message": f"message {message.pk}: unknown whether it was sent ({message.error_code})",
        "sms": message.pk,
        "alias": "default",
        "status": "unknown",
        "code": message.error_code,
    }


def test_the_code_for_adapters_compiles():
    """It runs on the site of tests/adapters, which has the apps that it needs."""
    for block in (
        block_with("howto/adapters", "AccountMiddleware"),
        block_with("howto/adapters", "class Phone("),
        block_with("howto/adapters", "class AccountAdapter("),
        block_with("howto/adapters", "TWO_FACTOR_SMS_GATEWAY"),
        block_with("howto/adapters", "verify_phone"),
        block_with("howto/adapters", "two_factor.urls"),
        block_with("howto/adapters", "drfpasswordless.urls"),
        block_with("howto/adapters", "phone_verify.urls"),
        block_with("howto/adapters", "django_smska.adapters.otp"),
        # And these on the site of tests/contacts.
        block_with("howto/contacts", "SMSKA_RECIPIENTS"),
        block_with("howto/contacts", "Contact.objects.create"),
    ):
        compile(block, "howto/adapters", "exec")


# --- the project's clients ------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_clients_of_the_guide_are_recipients_with_names(monkeypatch, settings):
    from django_smska.admin import clients

    rows = [{"username": NUMBER, "first_name": "Anna", "last_name": "Perm", "is_staff": True}]
    User.objects.bulk_create(User(**row) for row in rows)

    class Client:
        """Django's users under the names of the guide's fields."""

        class objects:
            @staticmethod
            def order_by(*names):
                return Client.objects

            @staticmethod
            def values(*names, number):
                own = {"name": F("first_name"), "city": F("last_name"), "vip": F("is_staff")}
                assert number == F("phone")
                return User.objects.values(number=F("username"), **own)

    shop, models, sms = (types.ModuleType(f"shop{name}") for name in ("", ".models", ".sms"))
    models.Client = Client
    shop.__path__ = []
    for module in (shop, models, sms):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    package_names = {"__package__": "shop"}
    code = run("howto/recipients", "def clients", **package_names)
    more = run("howto/recipients", "def groups", Client=Client, F=F)
    sms.clients = code["clients"]
    names = run("howto/recipients", "SMSKA_RECIPIENTS")
    assert checked(names) == []
    settings.SMSKA_RECIPIENTS = names["SMSKA_RECIPIENTS"]
    boss = User(is_superuser=True, is_active=True)
    assert clients.names(boss, [NUMBER]) == {NUMBER: "Anna"}
    sms.clients = more["groups"]
    labels = [one.label for one in clients.groups(boss)[0]]
    assert labels == ["Clients: VIP", "Clients: Perm"]
    assert clients.names(boss, [NUMBER]) == {NUMBER: "Anna"}

"""The fields of log lines: ``sms``, ``alias``, ``status`` and ``code``."""

import ast
import logging
import re
from contextlib import suppress

import pytest
from django.db import transaction

from django_smska import clock, log_fields, sending
from django_smska.exceptions import SmsError
from django_smska.models import SmsMessage
from django_smska.sms import queue_sms, send_code, send_sms
from django_smska.states import Status
from django_smska.testing.faults import Fault, answer
from django_smska.worker import Worker

from .documents import DOCUMENTS
from .test_layers import MODULES

NUMBER, TEXT = "+79041764995", "Ваш заказ готов"
FIELDS = {"sms", "alias", "status", "code"}
#: Lines that are about no stored message and no provider.
WITHOUT_FIELDS = {
    "%s of %s messages were not stored: see 'errors' of what send_mass_sms returned",
    "The function that SMSKA_QUIET_HOURS names %s: the default time zone counts.",
    "The task engine cannot be used (%s); sms_worker sends. 'manage.py check' says why.",
    "The task engine did not accept (all of) %s messages (%s); sms_worker sends them.",
    "a message of the admin was not stored: %s",
    "the database failed for messages of the admin: %s",
    "workers were not notified: %s",
    "clients cannot be read: %s",
    "%s Trying again.",
    "a span was not recorded: %s",
    "the health of sending cannot be read: %s",
    "the metrics of sending cannot be read: %s",
}
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def log_calls():
    """Yield module, call and text of every line that the package logs."""
    for name, path in MODULES.items():
        if name.startswith("testing"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        named = {}  # texts that stand in a variable before the call
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                pairs = zip(
                    getattr(node.targets[0], "elts", node.targets),
                    getattr(node.value, "elts", [node.value]),
                    strict=False,
                )
                for target, value in pairs:
                    if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                        named[target.id, node.lineno] = value.value
        for node in ast.walk(tree):
            function = getattr(node, "func", None)
            if (
                isinstance(function, ast.Attribute)
                and ast.unparse(function.value) == "logger"
                and function.attr in LEVELS
            ):
                text = node.args[0]
                if isinstance(text, ast.Name):
                    before = [at for one, at in named if one == text.id and at <= node.lineno]
                    yield name, node, named[text.id, max(before)]
                else:
                    yield name, node, text.value


@pytest.mark.slow
def test_no_log_call_lacks_its_fields():
    calls = list(log_calls())
    assert len(calls) > 40
    bare = [text for _, call, text in calls if "extra" not in {word.arg for word in call.keywords}]
    assert set(bare) == WITHOUT_FIELDS


def test_no_field_has_the_name_of_what_every_record_has():
    record = logging.makeLogRecord({})
    assert FIELDS.isdisjoint({*vars(record), "message", "asctime"})


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.DEBUG, "django_smska")
    return lambda: [one for one in caplog.records if one.name.startswith("django_smska")]


def fields(record):
    return {name: vars(record).get(name, "missing") for name in FIELDS}


@pytest.mark.parametrize("by", ["send_sms", "worker"])
@pytest.mark.parametrize("fault", [None, "reset_after_request", "wrong_login", "temporary"])
def test_each_line_about_a_message_has_all_of_them(gateway, provider, lines, fault, by):
    if fault == "temporary":
        gateway.script_all(answer(b"-3|later", accepted=False))
    elif fault:
        gateway.script_all(Fault(fault))
    if by == "worker":
        queue_sms(NUMBER, TEXT)
        Worker(concurrency=1).run_once()
    else:
        with suppress(SmsError):
            send_sms(NUMBER, TEXT)
    message = SmsMessage.objects.get()
    wire = [one for one in lines() if one.getMessage().startswith("send to ")]
    assert len(wire) == 1
    about = [one for one in lines() if re.search(r"\bmessage \d+", one.getMessage())]
    for one in [*wire, *about]:
        found = fields(one)
        assert found["sms"] == message.pk and found["alias"] == "default", one.getMessage()
        assert isinstance(found["status"], str) and isinstance(found["code"], str)
        assert found["status"]
    if fault == "reset_after_request":
        [doubt] = [one for one in about if "unknown whether" in one.getMessage()]
        assert fields(doubt) == {
            "sms": message.pk,
            "alias": "default",
            "status": "unknown",
            "code": message.error_code,
        }
        assert message.error_code


def fails_in_the_queue():
    queue_sms(NUMBER, TEXT)
    Worker(concurrency=1).run_once()


def fails_in_send_sms():
    with suppress(SmsError):
        send_sms(NUMBER, TEXT)


def fails_after_the_commit():
    with transaction.atomic():
        send_sms(NUMBER, TEXT)


def fails_in_send_code():
    """On SQLite the caller's rollback takes the row back."""
    with suppress(SmsError), transaction.atomic():
        send_code(NUMBER, "code 4711", code="4711")


def expires_in_the_queue():
    queue_sms(NUMBER, TEXT)
    SmsMessage.objects.update(expires_at=clock.now())
    Worker(concurrency=1).run_once()


def dies_before_its_request():
    queue_sms(NUMBER, TEXT)
    sending.claim(SmsMessage.objects.all(), clock.now(), immediate=True)
    SmsMessage.objects.update(lease_until=clock.now())
    Worker(concurrency=1).run_once()


@pytest.mark.parametrize(
    ("fail", "code"),
    [
        (fails_in_the_queue, "-6"),
        (fails_in_send_sms, "-6"),
        (fails_after_the_commit, "-6"),
        (fails_in_send_code, "-6"),
        (expires_in_the_queue, "expired"),
        (dies_before_its_request, "lease"),
    ],
)
def test_a_message_that_fails_has_one_line(gateway, provider, lines, fail, code):
    gateway.script_all(answer(b"-6|wrong number", accepted=False))
    fail()
    [line] = [one for one in lines() if one.levelno > logging.INFO]
    assert line.levelname == "WARNING"
    assert line.getMessage() == f"message {line.sms} has failed ({code})"
    assert fields(line) == {"sms": line.sms, "alias": "default", "status": "failed", "code": code}


def test_what_a_dead_worker_may_have_sent_has_the_line_of_every_doubt(provider, lines):
    queue_sms(NUMBER, TEXT)
    sending.mark_sending(sending.claim(SmsMessage.objects.all(), clock.now()))
    SmsMessage.objects.update(lease_until=clock.now())
    Worker().run_once()
    [line] = [one for one in lines() if one.levelno > logging.INFO]
    assert line.getMessage() == f"message {line.sms}: unknown whether it was sent (lease)"
    assert (line.status, line.code, line.alias) == ("unknown", "lease", "default")


@pytest.mark.parametrize(
    ("fail", "status"), [(fails_in_the_queue, "queued"), (fails_in_send_sms, "failed")]
)
def test_the_line_of_a_pause_names_the_message_that_was_the_occasion(
    gateway, provider, lines, fail, status
):
    gateway.script_all(Fault("wrong_login"))
    fail()
    [pause] = [one for one in lines() if "is paused" in one.getMessage()]
    pk = SmsMessage.objects.get().pk
    assert fields(pause) == {"sms": pk, "alias": "default", "status": status, "code": "-1"}


def test_a_line_about_a_provider_carries_the_message_that_it_was_given():
    assert log_fields.of_provider("bulk", "connect") == {"alias": "bulk", "code": "connect"}
    message = SmsMessage(pk=17, using="safe", status=Status.CLAIMED)
    with log_fields.during(message):
        found = log_fields.of_provider("bulk", "connect")
        assert found == {"sms": 17, "alias": "bulk", "status": "claimed", "code": "connect"}
    assert log_fields.of_provider("bulk") == {"alias": "bulk", "code": ""}


def test_a_line_about_several_messages_has_their_keys():
    found = log_fields.of_messages([SmsMessage(pk=1), SmsMessage(pk=2)], Status.CANCELLED, "x")
    assert found == {"sms": [1, 2], "alias": "default", "status": "cancelled", "code": "x"}
    assert log_fields.of_messages([7], "")["sms"] == [7]


@pytest.mark.slow
def test_the_reference_has_each_line():
    page = DOCUMENTS["reference/logs"]
    listed = re.findall(r"^   \* - (\w.*)\n     - (.*)\n     - ``(.*)``$", page, re.M)
    logged: dict[str, tuple[set[str], set[str]]] = {}
    for name, call, text in log_calls():
        levels, names = logged.setdefault(text, (set(), set()))
        levels.add(call.func.attr)
        names.add(f"``{name}``")
    assert {text: (set(a.split(", ")), set(b.split(", "))) for a, b, text in listed} == logged

"""Spans of OpenTelemetry, by the real packages: one for each attempt, and no secret in any.

They are the dependency group ``observability``.
"""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from django_smska import tracing
from django_smska.exceptions import SmsError
from django_smska.models import SmsMessage
from django_smska.sms import queue_sms, send_sms
from django_smska.testing.faults import Fault
from django_smska.worker import Worker

from . import test_contract
from .canaries import CODE, LOGIN, NUMBER, PASSWORD, TEXT, found
from .packages import package
from .test_contract import COUNTERPARTS, make

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def exporter():
    """Let spans be kept in memory. A process can set its provider once."""
    trace = package("opentelemetry.trace")
    sdk = package("opentelemetry.sdk.trace")
    export = package("opentelemetry.sdk.trace.export")
    memory = package("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = memory.InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    patch = pytest.MonkeyPatch()
    patch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    patch.undo()
    provider.shutdown()


@pytest.fixture
def spans(exporter):
    exporter.clear()
    return exporter.get_finished_spans


@pytest.fixture
def instrumented():
    """Let every HTTP client in this process make spans."""
    instrumentors = [
        package("opentelemetry.instrumentation.requests").RequestsInstrumentor(),
        package("opentelemetry.instrumentation.urllib3").URLLib3Instrumentor(),
    ]
    for one in instrumentors:
        one.instrument()
    yield
    for one in instrumentors:
        one.uninstrument()


@pytest.mark.parametrize("by", ["send_sms", "worker"])
def test_an_attempt_is_one_span(provider, spans, by):
    if by == "worker":
        queue_sms(NUMBER, TEXT)
        Worker(concurrency=1).run_once()
    else:
        send_sms(NUMBER, TEXT)
    message = SmsMessage.objects.get()
    [span] = spans()
    assert (span.name, span.kind.name, span.status.status_code.name) == (
        *("send sms", "CLIENT", "UNSET"),
    )
    assert span.attributes == {
        "smska.provider": "default",
        "smska.message": message.pk,
        "smska.segments": message.segments,
        "smska.attempt": 1,
        "smska.outcome": "accepted",
    }
    assert [event.name for event in span.events] == ["first byte"]


def test_a_failure_is_an_error_without_its_text(provider, gateway, spans):
    gateway.script_all(Fault("reset_after_request", accepted=True))
    with pytest.raises(SmsError):
        send_sms(NUMBER, TEXT)
    [span] = spans()
    assert span.attributes["smska.outcome"] == "unknown"
    assert span.attributes["error.type"].startswith("lost-")
    assert (span.status.status_code.name, span.status.description) == ("ERROR", None)
    assert [event.name for event in span.events] == ["first byte"]


def test_a_failover_says_who_accepted_it(provider, spans, settings):
    entry = settings.SMS_PROVIDERS["default"]
    wrong = {"OPTIONS": {**entry["OPTIONS"], "api_password": "wrong"}}
    failover = {
        "BACKEND": "django_smska.backends.failover.SmsBackend",
        "OPTIONS": {"providers": ["first", "second"]},
    }
    settings.SMS_PROVIDERS = {"first": wrong, "second": entry, "default": failover}
    send_sms(NUMBER, TEXT)
    [span] = spans()
    assert span.attributes["smska.provider"] == "default"
    assert span.attributes["smska.accepted_by"] == "second"


def test_it_belongs_to_the_span_of_the_caller(provider, spans):
    tracer = package("opentelemetry.trace").get_tracer("shop")
    with tracer.start_as_current_span("order") as order:
        send_sms(NUMBER, TEXT)
    [span, _] = spans()
    assert span.parent.span_id == order.get_span_context().span_id


def test_a_broken_exporter_ends_no_attempt(provider, spans, monkeypatch, caplog):
    export = package("opentelemetry.sdk.trace.export")

    def fail(self, *args, **kwargs):
        raise ZeroDivisionError(TEXT)

    monkeypatch.setattr(export.SimpleSpanProcessor, "on_end", fail)
    assert send_sms(NUMBER, TEXT).status == "sent"
    monkeypatch.setattr(export.SimpleSpanProcessor, "on_start", fail)
    assert send_sms(NUMBER, TEXT, repeat=True).status == "sent"
    said = [one for one in caplog.messages if "span" in one]
    assert said == ["a span was not recorded: ZeroDivisionError"] * 2


# --- what instrumented HTTP clients see -----------------------------------------------------------


def shown(spans):
    return "\n".join(f"{one.to_json()}{one.resource.to_json()}" for one in spans)


def test_the_instrumented_client_would_show_a_number(spans, instrumented, gateway):
    """What this guards against: the address of a plain request is in a span."""
    import requests

    with suppress(requests.RequestException):
        requests.get(gateway.url, params={"login": LOGIN, "to": NUMBER}, timeout=5)
    assert {"login", "number"} <= found(shown(spans()))


@pytest.mark.parametrize("kind", COUNTERPARTS, ids=lambda one: one.__name__)
def test_no_request_of_a_backend_makes_a_span(kind, spans, instrumented, settings):
    settings.SMSKA_PUBLIC_URL = "https://shop.example"
    with kind() as counterpart:
        backend = make(counterpart)
        message = test_contract.message(to=NUMBER, body=TEXT, code=CODE)
        receipt = backend.send_message(message)
        message.gateway_id = receipt.gateway_id
        with suppress(SmsError, AttributeError):
            backend.get_status(message)
        with suppress(SmsError, AttributeError):
            backend.get_balance()
        backend.close()
        assert counterpart.requests
        assert not any("traceparent" in one.headers for one in counterpart.requests)
    assert spans() == ()


def test_no_canary_is_in_the_spans_of_a_send(provider, spans, instrumented, settings, gateway):
    for fault in (None, Fault("wrong_login"), Fault("reset_after_request", accepted=True)):
        if fault is not None:
            gateway.script_all(fault)
        with suppress(SmsError):
            send_sms(NUMBER, TEXT, repeat=True)
    assert {span.name for span in spans()} == {"send sms"}
    assert found(shown(spans())) == set()
    assert PASSWORD not in shown(spans())


def test_old_instrumentations_are_suppressed_too(
    provider, spans, instrumented, gateway, monkeypatch
):
    """Up to version 0.43 the function that suppresses them is not there."""
    utils = package("opentelemetry.instrumentation.utils")
    monkeypatch.delattr(utils, "suppress_http_instrumentation", raising=False)
    assert send_sms(NUMBER, TEXT).status == "sent"
    assert [span.name for span in spans()] == ["send sms"]
    assert not any("traceparent" in one.headers for one in gateway.requests)


# --- without it -----------------------------------------------------------------------------------


def test_it_is_not_imported():
    """By a process that sends, where it is installed and where it is not."""
    code = (
        "import sys, django; django.setup()\n"
        "import django_smska.worker, django_smska.sms, django_smska.wire\n"
        "names = [n for n in sys.modules if n.split('.')[0] in "
        "('opentelemetry', 'prometheus_client', 'health_check')]\n"
        "print(names)"
    )
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_without_it_there_is_one_span_that_does_nothing(monkeypatch):
    for name in ("opentelemetry.trace", "opentelemetry.instrumentation.utils"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    first = tracing.attempt("default", SimpleNamespace())
    assert first is tracing.attempt("default", SimpleNamespace())
    with first as span:
        span.begins()
        span.ends(None)
    with tracing.without_http_spans() as nothing:
        assert nothing is None

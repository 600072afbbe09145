"""A project's tests freeze time: deadlines and waits go on, and nothing hangs."""

import ast
import contextlib
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone as django_timezone

import django_smska
from django_smska import clock, monotonic, rate_limit
from django_smska.exceptions import SmsOutcomeUnknown
from django_smska.models import SmsMessage
from django_smska.sms import outbox, queue_sms, send_sms
from django_smska.testing.gateway import Fault
from django_smska.worker import Worker

from .conftest import options
from .packages import package

pytestmark = pytest.mark.slow

NUMBER = "+79041764995"
PACKAGE = Path(django_smska.__file__).parent
#: Far longer than any of these tests may wait, and less than a deadline that never passes.
GENEROUS_SECONDS = 60


def freezegun(year=2030):
    return package("freezegun").freeze_time(f"{year}-01-01")


def time_machine(year=2030):
    at = datetime(year, 1, 1, tzinfo=timezone.utc)
    return package("time_machine").travel(at, tick=False)


each_library = pytest.mark.parametrize("frozen", [freezegun, time_machine])


@contextlib.contextmanager
def freed_in_time(gateway):
    """End a gateway's silence where the deadline does not; return whether that was needed."""
    late = threading.Event()

    def end():
        late.set()
        gateway.close()

    timer = threading.Timer(GENEROUS_SECONDS, end)
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
        timer.join()


@each_library
def test_the_deadline_ends_a_gateway_that_hangs(provider, settings, frozen):
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": options(provider, deadline=0.3)}}
    provider.script_all(Fault("silence"))
    with freed_in_time(provider) as late, frozen(), pytest.raises(SmsOutcomeUnknown):
        send_sms(NUMBER, "text")
    assert not late.is_set()
    assert SmsMessage.objects.get().status == "unknown"


@each_library
def test_one_that_drips_is_ended_too(provider, settings, frozen):
    """Its bytes come within each read's timeout, so that the watchdog alone ends it."""
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": options(provider, deadline=0.3)}}
    provider.script_all(Fault("byte_by_byte", seconds=0.02))
    with freed_in_time(provider) as late, frozen(), pytest.raises(SmsOutcomeUnknown) as lost:
        send_sms(NUMBER, "text")
    assert lost.value.code == "deadline" and not late.is_set()


@pytest.mark.parametrize("year", [2020, 2030])
@each_library
def test_a_worker_sends_and_keeps_to_a_rate(provider, settings, frozen, year):
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": options(provider, rate="50/s")}}
    with frozen(year):
        for text in "abc":
            queue_sms(NUMBER, text)
        assert Worker().run_once()["sent"] == 3
        assert rate_limit.wait("default", 50.0) > monotonic.now()
    assert provider.sends == 3


@each_library
def test_with_messages_in_memory_all_times_are_frozen(db, smsoutbox, frozen):
    with frozen():
        message = send_sms(NUMBER, "text")
        assert clock.now().year == message.created_at.year == message.sent_at.year == 2030
    assert len(outbox) == 1


@pytest.mark.parametrize("year", [2020, 2030])
@each_library
def test_against_a_gateway_the_databases_clock_goes_on(provider, monkeypatch, frozen, year):
    monkeypatch.setattr(clock, "readings", {})
    with frozen(year):
        message = send_sms(NUMBER, "text")
        assert 2020 < clock.now().year == message.sent_at.year < 2030
        assert message.created_at.year == year


@each_library
def test_a_time_that_has_expired_by_the_databases_clock_is_refused_with_it(
    provider, monkeypatch, frozen
):
    monkeypatch.setattr(clock, "readings", {})
    year = clock.now().year
    with frozen(2020), pytest.raises(ValidationError) as refused:
        queue_sms(NUMBER, "text", send_after=django_timezone.now() + timedelta(hours=2))
    [words] = refused.value.message_dict["send_after"]
    assert "SMSKA_EXPIRES_AFTER" in words and str(year) in words
    with frozen(2020), pytest.raises(ValidationError) as refused:
        queue_sms(
            NUMBER,
            "text",
            send_after=django_timezone.now(),
            expires_at=django_timezone.now() + timedelta(hours=2),
        )
    [words] = refused.value.message_dict["expires_at"]
    assert words.startswith("This time is in the past.") and str(year) in words


def test_freezegun_does_not_stop_the_clock_of_the_package():
    with freezegun():
        begun = monotonic.now()
        while monotonic.now() == begun:
            pass


def test_no_module_measures_time_by_what_a_test_may_freeze():
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            words = ast.unparse(node) if isinstance(node, (ast.Attribute, ast.ImportFrom)) else ""
            if words.startswith(("time.", "from time import")) and any(
                one in words for one in ("monotonic", "perf_counter")
            ):
                found.append(f"{path.relative_to(PACKAGE)}: {words}")
    assert found == ["monotonic.py: time.monotonic"]

"""``manage.py sms_status``."""

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from django_smska import circuit_breaker
from django_smska.models import ProviderState, SmsMessage
from django_smska.sms import queue_sms

NUMBER = "+79041764995"


def run(*args):
    out = StringIO()
    try:
        call_command("sms_status", *args, stdout=out)
    except CommandError as error:
        return out.getvalue(), str(error)
    return out.getvalue(), ""


def test_where_all_is_well_it_says_so_and_exits_0(db):
    queue_sms(NUMBER, "later", send_after=timezone.now() + timedelta(hours=1))
    out, error = run()
    assert out == (
        "default: 1 queued; 0 stuck past their lease; 0 unknown; 0 need attention; "
        "0 segments today; balance not known; worker seen never\n"
    )
    assert error == ""


def test_with_a_task_engine_it_misses_no_worker(db, settings):
    queue_sms(NUMBER, "now")
    assert "run manage.py sms_worker" in run()[0]
    settings.SMSKA_ENQUEUE = "shop.tasks.enqueue_sms"
    out, error = run()
    assert "sms_worker" not in out and error == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"send_after": timedelta(minutes=-20)}, "wait too long; check that sms_worker is running"),
        ({"status": "unknown"}, "messages need attention"),
        ({"status": "failed", "finished_at": timedelta(0)}, "messages need attention"),
        ({"status": "sending", "lease_until": timedelta(0)}, "are stuck past their lease"),
        ({"using": "gone"}, "a provider that is not in SMS_PROVIDERS"),
    ],
)
def test_each_problem_is_reported_and_makes_it_exit_1(db, change, words):
    queue_sms(NUMBER, "text")
    now = timezone.now()
    values = {k: now + v if isinstance(v, timedelta) else v for k, v in change.items()}
    SmsMessage.objects.update(**values)
    out, error = run()
    assert words in out
    assert error == f"Needs attention: {values.get('using', 'default')}."


def test_a_paused_provider_is_reported_with_its_reason_and_balance(db):
    now = timezone.now()
    ProviderState.objects.create(
        alias="default", reason="funds", detail="Top it up.", paused_at=now, balance="0.5",
        balance_at=now,
    )  # fmt: skip
    out, error = run()
    assert "balance 0.5 credits;" in out and "paused (funds): Top it up." in out
    assert error


def test_an_unknown_message_that_was_sent_again_is_settled(db):
    old = queue_sms(NUMBER, "text")
    new = queue_sms(NUMBER, "text")
    SmsMessage.objects.filter(pk=old.pk).update(status="unknown")
    SmsMessage.objects.filter(pk=new.pk).update(resend_of=old, status="sent")
    assert run()[1] == ""


def test_machines_get_an_object(db):
    message = queue_sms(NUMBER, "text")
    SmsMessage.objects.update(send_after=message.send_after - timedelta(seconds=100))
    out, error = run("--json", "--max-age", "60")
    facts = json.loads(out)["default"]
    assert (facts["queued"], facts["due"], facts["paused"]) == (1, 1, None)
    assert facts["oldest_due_seconds"] >= 100
    assert facts["problems"] == ["messages wait too long; check that sms_worker is running"]
    assert error


def test_due_messages_without_a_worker_name_the_command(db):
    message = queue_sms(NUMBER, "text")
    now = timezone.now()
    SmsMessage.objects.update(send_after=message.send_after - timedelta(seconds=1))
    words = "\n  no worker is running: run manage.py sms_worker\n"
    assert words in run()[0]
    state = ProviderState.objects.create(alias="default", worker_seen_at=now)
    out, error = run()
    assert "no worker" not in out
    assert out.endswith(f"; worker seen {timezone.localtime(now):%Y-%m-%d %H:%M:%S}\n")
    state.worker_seen_at = now - 6 * circuit_breaker.HEARTBEAT_INTERVAL
    state.save()
    out, error = run()
    assert words in out and error == ""
    assert json.loads(run("--json")[0])["default"]["no_worker"] is True


def test_the_balance_of_a_provider_that_had_the_alias_before_is_not_reported(db, settings):
    settings.SMS_PROVIDERS = {"default": {"BACKEND": "tests.pushing.Mute"}}
    ProviderState.objects.create(alias="default", balance="0.5", balance_at=timezone.now())
    assert "balance not known" in run()[0]
    fact = json.loads(run("--json")[0])["default"]
    assert fact["balance"] is fact["balance_at"] is None

"""Reports and replies that providers push."""

import io
import json
import logging
import re
import threading
from datetime import timedelta
from unittest import mock

import pytest
from django.core import mail
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection
from django.test import Client
from django.test.client import FakePayload
from django.urls import set_script_prefix
from django.utils import timezone
from django.utils.log import AdminEmailHandler

from django_smska import circuit_breaker, clock, conf, pushed_reports, sending, webhook_urls
from django_smska.admin.advice import advice
from django_smska.exceptions import RecipientOptedOut, SmsOutcomeUnknown, TemporaryFailure
from django_smska.models import SmsInbound, SmsMessage
from django_smska.opt_out import is_opted_out
from django_smska.receipts import Inbound, Receipt, Report
from django_smska.sms import queue_sms, send_sms
from django_smska.states import Status
from django_smska.worker import Worker

from . import pushing
from .pushing import Pushing
from .test_doubts import lose, stored

NUMBER = "+79041764972"
PUBLIC = "https://shop.example"


@pytest.fixture(autouse=True)
def pushing_provider(settings, monkeypatch, transactional_db):
    monkeypatch.setattr(Pushing, "known", {})
    monkeypatch.setattr(Pushing, "asked", [])
    settings.SMSKA_LOCMEM_IN_TESTS = False
    settings.SMSKA_LIMITS = None
    settings.SMSKA_PUBLIC_URL = PUBLIC
    settings.SMS_PROVIDERS = {
        "default": {"BACKEND": pushing.PATH, "OPTIONS": {"signature": "mine"}},
        "second": {"BACKEND": pushing.PATH},
        "polled": {"BACKEND": "tests.pushing.AlsoPolled"},
        "either": {
            "BACKEND": "django_smska.backends.failover.SmsBackend",
            "OPTIONS": {"providers": ["default", "second"]},
        },
    }


def path(alias="default", kind="report"):
    address = webhook_urls.webhook_url(alias, kind)
    assert address.startswith(f"{PUBLIC}/sms/{alias}/")
    return address.removeprefix(PUBLIC)


def push(*reports, alias="default", signature="mine", kind="report", **more):
    """Push reports (dicts) as the provider does; return the answer."""
    headers = {"X-Signature": signature} if signature else {}
    return Client(enforce_csrf_checks=True, raise_request_exception=False).post(
        path(alias, kind), json.dumps(reports), "application/json", headers=headers, **more
    )


def report(message, status="delivered", **more):
    return {"status": status, "raw": status.upper(), "reference": message.reference, **more}


# --- who may push ---------------------------------------------------------------------------------


def test_a_report_is_applied_and_answered_as_the_provider_wants_it():
    message = send_sms(NUMBER, "text")
    answer = push(report(message))
    assert (answer.status_code, answer.content) == (200, b"thank you")
    assert answer["Cache-Control"].startswith("max-age=0") and "Set-Cookie" not in answer
    row = stored(message)
    assert (row.status, row.gateway_status) == ("delivered", "DELIVERED")
    assert row.finished_at and row.next_status_at is None


def test_by_get_as_some_providers_do():
    message = send_sms(NUMBER, "text")
    answer = Client().get(path(), report(message), headers={"X-Signature": "mine"})
    assert answer.status_code == 200 and stored(message).status == "delivered"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda address: address.replace("/default/", "/second/"),
        lambda address: address.replace("/default/", "/nonesuch/"),
        lambda address: re.sub("/default/.", "/default/x", address),
        lambda address: re.sub("/default/[0-9a-f]+/", "/default/0/", address),
        lambda address: address.replace("/report/", "/status/"),
    ],
)
def test_another_address_is_refused(spoil):
    message = send_sms(NUMBER, "text")
    answer = Client().post(
        spoil(path()),
        json.dumps([report(message)]),
        "application/json",
        headers={"X-Signature": "mine"},
    )
    assert (answer.status_code, answer.content) == (403, b"")
    assert stored(message).status == "sent"


@pytest.mark.parametrize("signature", ["", "theirs"])
def test_a_request_that_is_not_authentic_is_refused(signature, caplog):
    message = send_sms(NUMBER, "text")
    assert push(report(message), signature=signature).status_code == 403
    assert stored(message).status == "sent" and "not authentic" in caplog.text


def test_other_methods_are_refused():
    assert Client().put(path()).status_code == 405


def test_the_key_differs_from_provider_to_provider_and_from_site_to_site(settings):
    first = path()
    assert path("second").split("/")[3] != first.split("/")[3]
    settings.SECRET_KEY = "another " * 8
    assert path() != first
    settings.SECRET_KEY_FALLBACKS = ["x" * 50]
    assert Client().post(first).status_code == 403


def test_an_address_of_an_old_key_still_works(settings):
    old, message = path(), send_sms(NUMBER, "text")
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "the new key " * 5
    assert path() != old
    answer = Client().post(
        old, json.dumps([report(message)]), "application/json", headers={"X-Signature": "mine"}
    )
    assert answer.status_code == 200 and stored(message).status == "delivered"


def test_more_than_64_kib_is_not_read():
    message = send_sms(NUMBER, "text")
    padding = report(message, raw="x" * 70_000)
    assert push(padding).status_code == 413
    assert stored(message).status == "sent"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b'[{"status": "delivered", "no": 1}]', b"\xff"]
)
def test_what_cannot_be_read_is_answered_so_that_it_does_not_come_again(body, caplog):
    message = send_sms(NUMBER, "text")
    answer = Client().post(path(), body, "application/json", headers={"X-Signature": "mine"})
    assert answer.status_code == 200 and stored(message).status == "sent"
    if body:
        assert "parse_reports failed" in caplog.text
    assert NUMBER not in caplog.text


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_failing_database_is_no_success_and_shows_nothing(settings, monkeypatch, caplog, method):
    settings.DEBUG = True
    settings.ADMINS = ["admin@shop.example"]
    message = send_sms(NUMBER, "text")

    def fail(*args):
        raise DatabaseError(f"it is away: {NUMBER}")

    monkeypatch.setattr(pushed_reports, "_apply_to", fail)
    if method == "post":
        answer = push(report(message, raw=NUMBER))
    else:
        words = report(message, raw=NUMBER)
        answer = Client().get(path(), words, headers={"X-Signature": "mine"})
    assert (answer.status_code, answer.content) == (500, b"")
    assert "a webhook was not applied (DatabaseError)" in caplog.text
    assert NUMBER not in caplog.text and mail.outbox == []


def test_a_site_with_a_login_wall_lets_it_in(settings):
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]
    message = send_sms(NUMBER, "text")
    assert push(report(message)).status_code == 200 and stored(message).status == "delivered"


def test_it_makes_no_transaction_around_all(settings, monkeypatch):
    message = send_sms(NUMBER, "text")
    seen = []
    apply = pushed_reports._apply_to

    def look(*args):
        seen.append(connection.in_atomic_block)
        return apply(*args)

    monkeypatch.setattr(pushed_reports, "_apply_to", look)
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    assert push(report(message)).status_code == 200
    assert seen == [False]


@pytest.mark.parametrize("expected", [403, 405, 413, 500])
def test_no_log_and_no_mail_has_the_secret_of_an_address(settings, monkeypatch, caplog, expected):
    """Django logs each answer from 400 on with the address, and mails those from 500 on, with the
    query."""
    settings.DEBUG = False
    settings.ADMINS = ["admin@shop.example"]
    logger = logging.getLogger("django")
    logger.addHandler(mails := AdminEmailHandler())
    monkeypatch.setattr(pushed_reports, "_apply_to", lambda *args: 1 / 0)
    message = send_sms(NUMBER, "text")
    client = Client(raise_request_exception=False)
    signature = {"X-Signature": "theirs" if expected == 403 else "mine"}
    try:
        if expected == 405:
            answer = client.put(path())
        elif expected == 413:
            answer = push(report(message, raw="x" * 70_000))
        else:
            answer = client.get(path(), report(message, raw=NUMBER), headers=signature)
    finally:
        logger.removeHandler(mails)
    assert answer.status_code == expected
    assert path().split("/")[3] not in caplog.text and mail.outbox == []


def test_a_request_that_breaks_off_is_no_success(monkeypatch, caplog):
    monkeypatch.setattr(FakePayload, "read", mock.Mock(side_effect=OSError("it is gone")))
    assert push({"status": "delivered"}).status_code == 500
    assert "not applied (UnreadablePostError)" in caplog.text


# --- in any order ---------------------------------------------------------------------------------


def test_a_final_status_never_moves():
    message = send_sms(NUMBER, "text")
    push(report(message, "delivered"))
    finished = stored(message).finished_at
    for status in ("delivered", "rejected", "sent", "expired", ""):
        assert push(report(message, status)).status_code == 200
    row = stored(message)
    assert (row.status, row.finished_at, row.gateway_status) == ("delivered", finished, "DELIVERED")


def test_one_that_is_not_final_is_kept_as_a_word():
    message = send_sms(NUMBER, "text")
    push(report(message, "sent", raw="buffered"))
    row = stored(message)
    assert (row.status, row.gateway_status) == ("sent", "buffered")


def test_by_the_providers_id_where_it_returns_no_reference():
    message, other = send_sms(NUMBER, "text"), send_sms(NUMBER, "text of second", using="second")
    SmsMessage.objects.filter(pk=other.pk).update(gateway_id=message.gateway_id)
    push({"status": "delivered", "raw": "D", "gateway_id": message.gateway_id})
    assert (stored(message).status, stored(other).status) == ("delivered", "sent")


def test_one_for_a_message_of_another_provider_is_ignored():
    message = send_sms(NUMBER, "text", using="second")
    assert push(report(message)).status_code == 200
    assert stored(message).status == "sent"


def test_one_of_no_message_here_is_answered():
    assert push({"status": "delivered", "reference": "x" * 22}).status_code == 200


def test_several_in_one_request():
    messages = [send_sms(NUMBER, f"text {number}") for number in range(5)]
    push(*(report(one) for one in messages[:4]), report(messages[4], "expired"))
    statuses = [stored(one).status for one in messages]
    assert statuses == ["delivered"] * 4 + ["expired"]


def test_its_price_is_kept():
    message = send_sms(NUMBER, "text")
    push(report(message, "sent", price="1.25", currency="RUB", segments=1))
    push(report(message, "delivered"))
    row = stored(message)
    assert (str(row.price), row.currency, row.billed_segments) == ("1.250000", "RUB", 1)
    push(report(message, "delivered", price="2.5", currency="RUB"))
    assert str(stored(message).price) == "2.500000"


def test_the_id_that_the_answer_lacked_is_kept():
    message = send_sms(NUMBER, "without an id")
    assert message.gateway_id == ""
    push(report(message, "sent", gateway_id="late-7"))
    assert stored(message).gateway_id == "late-7"


def elsewhere(do):
    """Do it in another thread, with a connection of its own."""
    thread = threading.Thread(target=lambda: (do(), connection.close()))
    thread.start()
    thread.join()


def during_the_request(monkeypatch, do):
    """Let the provider do this between accepting a message and answering."""
    done = threading.Event()

    def act(message):
        if not done.is_set():
            done.set()
            elsewhere(lambda: do(message))

    monkeypatch.setattr(Pushing, "before_answering", staticmethod(act))


@pytest.mark.parametrize("text", ["accepted", "lost"])
@pytest.mark.parametrize("status", ["delivered", "rejected", "sent"])
def test_one_that_is_faster_than_the_answer_is_kept_and_applied(monkeypatch, text, status):
    seen = []

    def early(message):
        seen.append(stored(message).status)
        assert push(report(message, status)).status_code == 200
        push(report(message, "sent"))  # an older one, which comes later
        seen.append(stored(message).status)

    during_the_request(monkeypatch, early)
    message = queue_sms(NUMBER, text)
    Worker().run_once()
    row = stored(message)
    assert seen == ["sending", "sending"]
    assert (row.status, row.proof) == (status, "report" if text == "lost" else "")
    assert row.finished_at if status != "sent" else row.finished_at is None


def test_the_caller_who_waits_sees_it(monkeypatch):
    during_the_request(monkeypatch, lambda message: push(report(message)))
    assert send_sms(NUMBER, "text").status == "delivered"


def test_one_that_came_before_the_worker_was_killed(monkeypatch):
    message = queue_sms(NUMBER, "text")
    (claimed,) = sending.claim(SmsMessage.objects.filter(pk=message.pk), clock.now())
    assert sending.mark_sending([claimed])
    push(report(claimed))
    assert (stored(message).status, stored(message).reported_status) == ("sending", "delivered")
    SmsMessage.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    sending.recover()
    row = stored(message)
    assert (row.status, row.proof, row.sent_at) == ("delivered", "report", row.sending_at)


def test_one_whose_application_was_cut_short_is_applied_later(monkeypatch):
    """The process may die between recording the outcome and applying the report."""
    message = send_sms(NUMBER, "text", using="polled")
    due = timezone.now() - timedelta(seconds=1)
    SmsMessage.objects.update(reported_status="delivered", next_status_at=due)
    Worker().run_once()
    assert stored(message).status == "delivered"


def test_a_refusal_that_a_report_contradicts_is_none(monkeypatch, caplog):
    """The message was accepted, so that a second attempt would send it twice."""
    during_the_request(monkeypatch, lambda message: push(report(message)))
    message = queue_sms(NUMBER, "refused")
    Worker().run_once()
    row = stored(message)
    assert (row.status, row.proof, row.attempts) == ("delivered", "report", 1)
    assert "a report says it was not" in caplog.text


@pytest.mark.parametrize("text", ["refused", "lost"])
def test_who_waits_for_it_need_not_send_it_again(monkeypatch, text):
    during_the_request(monkeypatch, lambda message: push(report(message)))
    assert send_sms(NUMBER, text).status == "delivered"


def test_a_report_of_an_attempt_that_was_refused_is_not_of_the_next_one(monkeypatch):
    during_the_request(monkeypatch, lambda message: push(report(message, "rejected")))
    message = queue_sms(NUMBER, "refused")
    Worker().run_once()
    assert (stored(message).status, stored(message).reported_status) == ("queued", "")
    SmsMessage.objects.update(send_after=timezone.now() - timedelta(seconds=1), body="accepted")
    Worker().run_once()
    assert stored(message).status == "sent"


@pytest.mark.slow
def test_doubts_that_reports_resolve_at_once_pause_nothing(monkeypatch):
    lost = lose("lost and counted")
    monkeypatch.setattr(
        Pushing,
        "before_answering",
        staticmethod(lambda message: elsewhere(lambda: push(report(message)))),
    )
    for number in range(4):
        queue_sms(NUMBER, f"lost {number}")
    Worker().run_once()
    statuses = SmsMessage.objects.exclude(pk=lost.pk).values_list("status", flat=True)
    assert list(statuses) == ["delivered"] * 4
    assert circuit_breaker.state_of("default").failures == 1


def test_the_price_of_an_early_one_is_kept(monkeypatch):
    early = {"price": "1.5", "currency": "RUB", "segments": 2}
    during_the_request(monkeypatch, lambda message: push(report(message, **early)))
    row = stored(send_sms(NUMBER, "text"))
    assert (row.status, str(row.price), row.billed_segments) == ("delivered", "1.500000", 2)


def test_an_early_one_keeps_nothing_of_a_sensitive_text(monkeypatch):
    text = "Your code is 4711"
    during_the_request(monkeypatch, lambda message: push(report(message, raw=text)))
    row = stored(send_sms(NUMBER, text, sensitive=True))
    assert row.status == "delivered" and "4711" not in row.gateway_status


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["accepted", "lost"])
def test_a_member_of_a_failover_that_refused_it_says_nothing_about_the_next(monkeypatch, ending):
    """Infobip, for one, reports what it has refused, too."""

    def send(backend, message):
        if backend.alias == "default":
            elsewhere(lambda: push(report(message, "rejected")))
            raise TemporaryFailure(alias="default")
        if ending == "lost":
            raise SmsOutcomeUnknown(code="lost")
        return Receipt("s-1")

    monkeypatch.setattr(Pushing, "send_message", send)
    message = queue_sms(NUMBER, "text", using="either")
    Worker().run_once()
    row = stored(message)
    expected = (Status.SENT, "second") if ending == "accepted" else (Status.UNKNOWN, "either")
    assert (row.status, row.using) == expected


def test_a_kept_one_is_not_lost_where_the_database_fails_in_the_recovery(monkeypatch):
    message = queue_sms(NUMBER, "text")
    (claimed,) = sending.claim(SmsMessage.objects.filter(pk=message.pk), clock.now())
    assert sending.mark_sending([claimed])
    push(report(claimed))
    SmsMessage.objects.update(lease_until=clock.now() - timedelta(seconds=1))
    with monkeypatch.context() as patch:
        patch.setattr(sending, "apply_early", mock.Mock(side_effect=DatabaseError("it is away")))
        with pytest.raises(DatabaseError):
            sending.recover()
    sending.recover()
    assert (stored(message).status, stored(message).proof) == ("delivered", "report")


# --- doubts ---------------------------------------------------------------------------------------


def test_it_proves_that_an_unknown_message_was_accepted():
    message = lose()
    push(report(message, gateway_id="p-77"))
    row = stored(message)
    assert (row.status, row.proof, row.gateway_id) == ("delivered", "report", "p-77")
    assert row.sent_at == row.sending_at and row.error_text == ""


def test_of_a_failover_the_member_that_reports_it_has_sent_it():
    message = lose(using="either")
    SmsMessage.objects.update(using="either")  # the process died before it was known which
    push(report(message, "sent"), alias="second", signature="")
    row = stored(message)
    assert (row.status, row.using) == ("sent", "second")


@pytest.mark.parametrize("status", [Status.QUEUED, Status.FAILED, Status.CANCELLED])
def test_one_of_a_message_that_was_refused_is_logged_for_a_person(status, caplog):
    message = queue_sms(NUMBER, "text")
    SmsMessage.objects.update(status=status)
    assert push(report(message)).status_code == 200
    assert stored(message).status == status and "false refusal" in caplog.text


def test_a_status_that_keeps_changing_is_given_up(monkeypatch, caplog):
    message = send_sms(NUMBER, "text")
    monkeypatch.setattr(pushed_reports, "_apply_to", lambda *args: False)
    assert pushed_reports.receive("default", [Report(reference=message.reference)]) == 1
    assert "kept changing" in caplog.text


@pytest.mark.parametrize("status", ["sent", "delivered", "rejected"])
def test_a_message_that_was_accepted_after_all_is_not_sent_again(status, caplog):
    message = queue_sms(NUMBER, "refused")
    Worker().run_once()
    assert stored(message).status == Status.QUEUED
    assert push(report(message, status)).status_code == 200
    SmsMessage.objects.update(send_after=timezone.now() - timedelta(seconds=1))
    Worker().run_once()
    row = stored(message)
    expected = (Status.QUEUED, 2) if status == "rejected" else (Status.CANCELLED, 1)
    assert (row.status, row.attempts) == expected
    for words in (caplog.text, str(advice(row))):
        assert ("false refusal" in words or "then reported" in words) is (status != "rejected")


def test_a_doubt_that_is_resolved_at_once_keeps_no_error(monkeypatch):
    write = sending._write_diagnostics

    def resolve_before(message, diagnostics):
        push(report(message))
        write(message, diagnostics)

    monkeypatch.setattr(sending, "_write_diagnostics", resolve_before)
    row = lose()
    assert (row.status, row.error_code, row.error_text) == ("delivered", "", "")


# --- polling --------------------------------------------------------------------------------------


def test_polling_thins_out_where_reports_are_pushed(settings):
    def wait(message):
        return (stored(message).next_status_at - clock.now()).total_seconds()

    pushed = send_sms(NUMBER, "text", using="polled")
    assert 590 < wait(pushed) <= 600
    settings.SMSKA_PUBLIC_URL = ""
    assert wait(send_sms(NUMBER, "another", using="polled")) <= 10
    never = send_sms(NUMBER, "third", using="second")
    assert wait(never) > conf.status_window().total_seconds() - 60


# --- addresses ------------------------------------------------------------------------------------


def test_there_is_no_address_without_the_setting_or_the_urls(settings):
    settings.SMSKA_PUBLIC_URL = ""
    assert webhook_urls.webhook_url("default", "report") == ""
    settings.SMSKA_PUBLIC_URL = PUBLIC
    settings.ROOT_URLCONF = "django.contrib.auth.urls"
    assert webhook_urls.webhook_url("default", "report") == ""


@pytest.mark.parametrize(
    "wrong",
    ["shop.example", "https://", "https://a b.example", "https://u:p@x", "https://x/?a=1", 7],
)
def test_a_wrong_public_address_is_refused(settings, wrong):
    settings.SMSKA_PUBLIC_URL = wrong
    with pytest.raises(Exception, match="SMSKA_PUBLIC_URL must be"):
        conf.public_url()


def test_it_may_lie_below_a_path(settings):
    settings.SMSKA_PUBLIC_URL = "https://shop.example/hooks/"
    assert webhook_urls.webhook_url("default", "report").startswith(
        "https://shop.example/hooks/sms/default/"
    )


@pytest.mark.parametrize(
    "wrong", [{"SMSKA_PUBLIC_URL": "shop.example"}, {"ROOT_URLCONF": "no.such.urls"}]
)
def test_an_outcome_is_stored_whatever_is_wrong_with_the_addresses(settings, wrong, caplog):
    """Also that of a process that was killed: no row may keep its worker from all the others."""
    message, killed = queue_sms(NUMBER, "text", using="second"), queue_sms(NUMBER, "killed")
    (claimed,) = sending.claim(SmsMessage.objects.filter(pk=killed.pk), clock.now())
    assert sending.mark_sending([claimed])
    SmsMessage.objects.filter(pk=killed.pk).update(lease_until=clock.now() - timedelta(seconds=1))
    for name, value in wrong.items():
        setattr(settings, name, value)
    Worker().run_once()
    assert (stored(message).status, stored(killed).status) == ("sent", "unknown")
    assert "no address for reports" in caplog.text


def test_the_sites_own_root_is_in_it_once(settings):
    """A web process knows the root from the server (``SCRIPT_NAME``), and a worker does not."""
    settings.SMSKA_PUBLIC_URL = "https://shop.example/app"
    in_a_worker = webhook_urls.webhook_url("default", "report")
    set_script_prefix("/app/")
    try:
        assert webhook_urls.webhook_url("default", "report") == in_a_worker
        settings.SMSKA_PUBLIC_URL = PUBLIC
        assert webhook_urls.webhook_url("default", "report") == in_a_worker
    finally:
        set_script_prefix("/")


# --- what says so ---------------------------------------------------------------------------------


def checks(**options):
    return {one.id for one in run_checks(tags=["sms"], **options)}


def test_a_check_says_where_reports_cannot_arrive(settings):
    push_only = {"smska.W023"}
    assert not checks() & {"smska.W023", "smska.W024"}
    settings.SMSKA_PUBLIC_URL = ""
    found = [one for one in run_checks(tags=["sms"]) if one.id in push_only]
    assert [re.search(r"'\w+'", one.msg)[0] for one in found] == ["'default'", "'second'"]
    assert "SMSKA_PUBLIC_URL" in found[0].hint
    settings.SMSKA_PUBLIC_URL = PUBLIC
    settings.ROOT_URLCONF = "django.contrib.auth.urls"
    assert "smska.W024" in checks() and not push_only & checks()


def test_a_check_says_where_they_can_be_read_on_the_way(settings):
    assert "smska.W025" not in checks(include_deployment_checks=True)
    settings.SMSKA_PUBLIC_URL = "http://shop.example"
    assert "smska.W025" in checks(include_deployment_checks=True)
    assert "smska.W025" not in checks()
    settings.SMSKA_PUBLIC_URL = "http://127.0.0.1:8000"  # for a Kannel on the same host
    assert "smska.W025" not in checks(include_deployment_checks=True)


def printed(**options):
    out = io.StringIO()
    call_command("sms_webhooks", stdout=out, **options)
    return out.getvalue().splitlines()


def test_the_command_prints_what_to_paste(settings):
    lines = printed()
    assert f"default, reports: {PUBLIC}{path()}" in lines
    assert f"second, messages of phones: {PUBLIC}{path('second', 'inbound')}" in lines
    assert not any(line.startswith("either") for line in lines)
    assert printed(using="polled") == [one for one in lines if one.startswith("polled")]
    settings.SMS_PROVIDERS = {"default": {"BACKEND": "django_smska.backends.dummy.SmsBackend"}}
    assert printed() == ["No provider of SMS_PROVIDERS calls the site."]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"SMSKA_PUBLIC_URL": ""}, "Set SMSKA_PUBLIC_URL"),
        ({"ROOT_URLCONF": "django.contrib.auth.urls"}, "include"),
    ],
)
def test_the_command_says_what_is_missing(settings, change, words):
    for name, value in change.items():
        setattr(settings, name, value)
    with pytest.raises(CommandError, match=words):
        printed()
    with pytest.raises(CommandError):
        printed(using="nonesuch")


# --- messages of phones ---------------------------------------------------------------------------


def test_a_reply_is_stored_once_and_stop_is_obeyed():
    reply = {"sender": "79041764972", "to": "5050", "body": "Стоп!", "gateway_id": "in-1"}
    for _ in range(3):
        assert push(reply, kind="inbound").status_code == 200
    (received,) = SmsInbound.objects.all()
    assert (received.using, received.sender, received.body) == ("default", NUMBER, "Стоп!")
    assert is_opted_out(NUMBER)
    with pytest.raises(RecipientOptedOut):
        send_sms(NUMBER, "more")


def test_reports_and_replies_have_an_address_each(monkeypatch):
    message = send_sms(NUMBER, "text")
    assert push(report(message), kind="inbound").status_code == 200
    assert stored(message).status == "sent" and not SmsInbound.objects.exists()
    monkeypatch.setattr(Pushing, "one_webhook", True, raising=False)
    monkeypatch.setattr(Pushing, "parse_inbound", lambda *args: [Inbound("7904", "1", "hello")])
    assert push(report(message)).status_code == 200
    assert stored(message).status == "delivered" and SmsInbound.objects.count() == 1
    words = f"default, reports and messages of phones: {PUBLIC}{path()}"
    assert printed(using="default") == [words]


@pytest.mark.parametrize("the_id", ["x" * 65, "номер", "\ud83d", 7, None])
def test_a_strange_id_loses_no_reply(the_id):
    reply = {"sender": "79041764972", "to": "5050", "body": "Стоп!", "gateway_id": the_id}
    for _ in range(2):
        assert push(reply, kind="inbound").status_code == 200
    assert SmsInbound.objects.count() == (2 if the_id is None else 1)
    assert is_opted_out(NUMBER)


def test_a_reply_that_cannot_be_read_as_a_report_is_stored(monkeypatch):
    monkeypatch.setattr(Pushing, "one_webhook", True, raising=False)
    assert push({"sender": NUMBER, "to": "5050", "body": "stop"}).status_code == 200
    assert is_opted_out(NUMBER)

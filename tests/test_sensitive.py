"""Sensitive texts: shown to no user, and stored only while they are needed for sending."""

import logging
import re
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.test import override_settings
from django.utils import timezone

import django_smska
from django_smska import delivery, sending
from django_smska.exceptions import SmsError, WrongStatus
from django_smska.models import DOTS, ProviderState, SmsMessage
from django_smska.receipts import Receipt, Report
from django_smska.redact import WITHHELD
from django_smska.sending import Result
from django_smska.sms import outbox, queue_sms, send_mass_sms, send_sms
from django_smska.states import FINAL, NEEDS_TEXT, Status
from django_smska.testing.gateway import Fault, answer
from django_smska.worker import Worker
from tests.test_admin import LIST, choose, post
from tests.test_charsets import CASES, made, narrow  # noqa: F401

NUMBER, OTHER = "+79041764995", "+79041764996"
CODE, TEXT, WIPED = "482913", "Ваш код 482913, никому", f"Ваш код {DOTS}, никому"


def stored(message):
    """Return text and code as they are in the row."""
    return SmsMessage.objects.values_list("body", "code").get(pk=message.pk)


def shown(message):
    return message.body, message.code


# --- when it is wiped -----------------------------------------------------------------------------


@pytest.mark.django_db
class TestWiped:
    def test_what_is_sent_at_once_leaves_no_text(self):
        message = send_sms(NUMBER, TEXT, sensitive=True)
        assert message.status == "sent"
        assert stored(message) == shown(message) == ("", "")
        assert outbox[0].body == TEXT

    def test_a_code_that_is_named_becomes_dots(self):
        message = send_sms(NUMBER, TEXT, code=CODE)
        assert message.sensitive
        assert stored(message) == shown(message) == (WIPED, "")
        assert (outbox[0].body, outbox[0].code) == (TEXT, CODE)

    def test_another_text_is_kept(self):
        assert stored(send_sms(NUMBER, TEXT)) == (TEXT, "")

    def test_what_waits_keeps_its_text(self):
        assert stored(queue_sms(NUMBER, TEXT, code=CODE)) == (TEXT, CODE)

    def test_a_report_changes_nothing_of_it(self):
        message = send_sms(NUMBER, TEXT, code=CODE)
        message.refresh_status()
        assert (message.status, stored(message)) == ("delivered", (WIPED, ""))

    def test_of_many_in_one_update_each_has_its_own(self):
        """Also of several in one UPDATE, some of which are only marked as sending by it."""
        texts = {"plain": {}, "secret": {"sensitive": True}, "coded": {"code": CODE}}
        accepted = {name: queue_sms(NUMBER, TEXT, **fields) for name, fields in texts.items()}
        going = {name: queue_sms(OTHER, TEXT, **fields) for name, fields in texts.items()}
        now = timezone.now() + timedelta(seconds=1)
        claimed = {one.pk: one for one in sending.claim(SmsMessage.objects.due(now), now)}
        sent = [claimed[one.pk] for one in accepted.values()]
        sending.mark_sending(sent)
        results = [Result(one, Receipt(f"id-{one.pk}")) for one in sent]
        marked = [claimed[one.pk] for one in going.values()]
        assert len(sending.record_and_mark(results, marked)) == 3
        wiped = {"plain": (TEXT, ""), "secret": ("", ""), "coded": (WIPED, "")}
        assert {name: stored(one) for name, one in accepted.items()} == wiped
        assert [shown(one) for one in sent] == list(wiped.values())
        whole = {"plain": (TEXT, ""), "secret": (TEXT, ""), "coded": (TEXT, CODE)}
        assert {name: stored(one) for name, one in going.items()} == whole
        assert [shown(one) for one in marked] == list(whole.values())

    @pytest.mark.parametrize("old", sorted(NEEDS_TEXT))
    @pytest.mark.parametrize("fields", [{"sensitive": True}, {"code": CODE}])
    def test_every_way_out_wipes_it(self, old, fields):
        """By the one function that moves rows, wherever the table lets them go."""
        for new in Status:
            if not sending.states.may_move(old, new):
                continue
            message = queue_sms(NUMBER, TEXT, **fields)
            row = SmsMessage.objects.filter(pk=message.pk)
            row.update(status=old, lease_until=timezone.now())
            assert sending.move(row, [Status(old)], new) == 1
            whole = (TEXT, fields.get("code", ""))
            wiped = (WIPED if "code" in fields else "", "")
            assert stored(message) == (whole if new in NEEDS_TEXT else wiped)
            row.delete()

    def test_a_code_is_replaced_wherever_it_stands_and_exactly(self):
        message = queue_sms(NUMBER, "aB1 ab1 AB1 aB1", code="aB1")
        sending.cancel(SmsMessage.objects.filter(pk=message.pk))
        assert stored(message) == (f"{DOTS} ab1 AB1 {DOTS}", "")

    def test_what_expired_or_lost_its_worker_is_wiped(self):
        messages = [queue_sms(NUMBER, TEXT, sensitive=True) for _ in range(3)]
        ago = timezone.now() - timedelta(hours=1)
        for message, status in zip(messages, ("queued", "claimed", "sending"), strict=True):
            SmsMessage.objects.filter(pk=message.pk).update(
                status=status, immediate=True, expires_at=ago, lease_until=ago
            )
        assert sending.recover() == {"queued": 0, "unknown": 1, "failed": 2}
        assert {stored(message) for message in messages} == {("", "")}


class TestWipedBySending:
    def test_what_the_gateway_refuses(self, provider):
        provider.script(1, Fault("bad_number"))
        with pytest.raises(SmsError) as refused:
            send_sms(NUMBER, TEXT, code=CODE)
        assert stored(SmsMessage.objects.get(pk=refused.value.sms)) == (WIPED, "")

    def test_what_is_unknown(self, provider):
        provider.script(1, Fault("reset_after_request", accepted=True))
        message = queue_sms(NUMBER, TEXT, code=CODE)
        Worker().run_once()
        message.refresh_from_db()
        assert (message.status, stored(message)) == ("unknown", (WIPED, ""))
        sending.confirm_sent(message)
        assert (message.status, stored(message)) == ("sent", (WIPED, ""))

    def test_a_worker_sends_it_whole(self, provider):
        message = queue_sms(NUMBER, TEXT, sensitive=True)
        Worker().run_once()
        assert [one.form["Message"] for one in provider.requests][:1] == [TEXT]
        assert stored(message) == ("", "")

    def test_what_goes_back_to_the_queue_keeps_it(self, provider):
        provider.script(1, Fault("no_credit"))
        message = queue_sms(NUMBER, TEXT, code=CODE)
        Worker().run_once()
        message.refresh_from_db()
        assert (message.status, stored(message)) == ("queued", (TEXT, CODE))

    @pytest.mark.parametrize("said", [f"-4|Bad code {CODE}|", f"-4|{TEXT}|"])
    def test_no_error_repeats_it(self, provider, caplog, said):
        caplog.set_level(logging.DEBUG)
        provider.script(1, answer(said.encode()))
        with pytest.raises(SmsError) as refused:
            send_sms(NUMBER, TEXT, code=CODE)
        row = SmsMessage.objects.get(pk=refused.value.sms)
        state = str(list(ProviderState.objects.values_list("detail", "reason")))
        ours = [one.getMessage() for one in caplog.records if "django_smska" in one.name]
        for place in (str(refused.value), row.error_text, row.gateway_status, state, *ours):
            assert CODE not in place
        assert WITHHELD in row.error_text

    @pytest.mark.parametrize(
        ("raw", "kept"), [("4|DELIVRD", "4|DELIVRD"), (f"4|{CODE}", WITHHELD), (TEXT, WITHHELD)]
    )
    def test_no_report_repeats_it(self, provider, raw, kept):
        message = send_sms(NUMBER, TEXT, code=CODE)
        delivery.apply([(message, Report("delivered", raw))])
        message.refresh_from_db()
        assert (message.status, message.gateway_status) == ("delivered", kept)


@pytest.mark.parametrize("made", CASES, indirect=True, scope="class")
class TestNarrowDatabases:
    def test_dots_are_those_that_it_can_store(self, narrow):  # noqa: F811
        message = send_sms(NUMBER, "Code 482913", code=CODE)
        cancelled = queue_sms(NUMBER, "Code 482913", code=CODE)
        sending.cancel(SmsMessage.objects.filter(pk=cancelled.pk))
        assert (
            stored(message)
            == stored(cancelled)
            == shown(message)
            in ((f"Code {DOTS}", ""), ("Code ....", ""))
        )


def test_statuses_are_written_in_two_places_only():
    """So that none of them can forget the text."""
    writes = re.compile(r"update\([^)]*\bstatus=")
    found = {
        path.name
        for path in Path(django_smska.__file__).parent.rglob("*.py")
        if writes.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"sending.py"}
    source = (Path(django_smska.__file__).parent / "sending.py").read_text(encoding="utf-8")
    assert len(writes.findall(source)) == 1


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.django_db
class TestRefused:
    @pytest.mark.parametrize(
        "code", ["482914", " 482913", "482913 ", " ", "x" * 65, 482913, "48\n29", "\0"]
    )
    @pytest.mark.parametrize("function", [send_sms, queue_sms])
    def test_a_code_that_is_not_in_the_text(self, function, code):
        with pytest.raises(ValidationError) as refused:
            function(NUMBER, f"{TEXT} {'x' * 65}", code=code)
        assert list(refused.value.error_dict) == ["code"]
        assert CODE not in str(refused.value)
        assert not SmsMessage.objects.exists() and not outbox

    def test_a_flag_that_is_none(self):
        with pytest.raises(ValidationError) as refused:
            queue_sms(NUMBER, TEXT, sensitive="no")
        assert refused.value.message_dict == {"sensitive": ["This must be True or False."]}

    def test_of_many_it_is_one_bad_row(self):
        rows = [
            SmsMessage(to=NUMBER, body=TEXT, code="1"),
            SmsMessage(to=NUMBER, body=TEXT, code=CODE),
            SmsMessage(to=NUMBER, body=TEXT, sensitive=True),
        ]
        rows[0].code = "x"
        result = send_mass_sms(rows)
        assert (result, [index for index, _ in result.errors]) == (2, [0])
        assert set(SmsMessage.objects.values_list("sensitive", flat=True)) == {True}

    def test_to_send_it_again(self):
        message = queue_sms(NUMBER, TEXT, code=CODE)
        SmsMessage.objects.filter(pk=message.pk).update(status="failed")
        with pytest.raises(WrongStatus) as refused:
            sending.resend(message)
        assert refused.value.code == "no-text"
        assert "Write a new message" in str(refused.value)
        assert SmsMessage.objects.count() == 1

    def test_a_draft_keeps_text_and_code_together(self):
        draft = SmsMessage.objects.create(to=NUMBER, body=TEXT, code=CODE)
        draft.body = "Код 1234"
        with pytest.raises(ValidationError):
            draft.save()
        draft.code = "1234"
        draft.save()
        draft.send()
        assert stored(draft) == (f"Код {DOTS}", "")


# --- idempotency keys -----------------------------------------------------------------------------


@pytest.mark.django_db
class TestKeys:
    FIELDS = ({"sensitive": True}, {"code": CODE})

    @pytest.mark.parametrize("fields", FIELDS)
    @pytest.mark.parametrize("function", [send_sms, queue_sms])
    def test_the_same_again_finds_what_was_wiped(self, fields, function):
        first = send_sms(NUMBER, TEXT, idempotency_key="login-1", **fields)
        again = function(NUMBER, TEXT, idempotency_key="login-1", **fields)
        assert (again.pk, len(outbox)) == (first.pk, 1)
        row = SmsMessage(to=NUMBER, body=TEXT, idempotency_key="login-1", **fields)
        assert (send_mass_sms([row]), SmsMessage.objects.count()) == (0, 1)

    @pytest.mark.parametrize("fields", FIELDS)
    @pytest.mark.parametrize(("to", "body"), [(OTHER, TEXT), (NUMBER, "Ваш код 482913, никому!")])
    def test_another_number_or_text_is_refused(self, fields, to, body):
        send_sms(NUMBER, TEXT, idempotency_key="login-1", **fields)
        with pytest.raises(ValidationError) as refused:
            send_sms(to, body, idempotency_key="login-1", **fields)
        assert list(refused.value.error_dict) == ["idempotency_key"]
        row = SmsMessage(to=to, body=body, idempotency_key="login-1", **fields)
        assert send_mass_sms([row]).bad == 1

    def test_another_code_in_the_same_text_is_refused(self):
        send_sms(NUMBER, TEXT, idempotency_key="login-1", code=CODE)
        with pytest.raises(ValidationError):
            send_sms(NUMBER, TEXT.replace(CODE, "1111"), idempotency_key="login-1", code="1111")

    def test_a_new_secret_key_forgets_nothing(self, settings):
        send_sms(NUMBER, TEXT, idempotency_key="login-1", code=CODE)
        with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
            assert send_sms(NUMBER, TEXT, idempotency_key="login-1", code=CODE).status == "sent"
        assert len(outbox) == 1

    def test_nothing_is_hashed_without_need(self):
        queue_sms(NUMBER, TEXT, idempotency_key="1")
        queue_sms(NUMBER, TEXT, code=CODE)
        assert set(SmsMessage.objects.values_list("text_hash", flat=True)) == {""}


# --- the admin ------------------------------------------------------------------------------------

WORD = "сырники"
SECRET = f"Пароль {WORD} и код {CODE}"


@pytest.fixture
def boss(client):
    client.force_login(User.objects.create_superuser("boss"))
    return client


def each_status(**fields):
    """Make a message of each status; what has left has no text in its row."""
    every = {}
    for status in Status:
        message = queue_sms(NUMBER, SECRET, **fields)
        row = SmsMessage.objects.filter(pk=message.pk)
        then = timezone.now()
        row.update(status=status, lease_until=then, finished_at=then if status in FINAL else None)
        if status not in NEEDS_TEXT:
            row.update(**sending.batch_update.wiped())
        every[status] = message
    return every


def body(response):
    assert response.status_code == 200
    if response.streaming:
        return b"".join(response.streaming_content).decode("utf-8-sig")
    return response.content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize("fields", [{"sensitive": True}, {"code": CODE}])
class TestAdmin:
    """What a superuser sees, who has every permission."""

    def assert_hidden(self, page):
        for part in (WORD, CODE, quote(WORD)):
            assert part not in page

    @pytest.mark.slow
    def test_no_page_shows_it(self, boss, fields):
        every = each_status(**fields)
        page = body(boss.get(LIST))
        self.assert_hidden(page)
        assert page.count("(hidden: sensitive)") == len(Status)
        for message in every.values():
            for name in ("change", "history"):
                page = body(boss.get(f"{LIST}{message.pk}/{name}/"))
                self.assert_hidden(page)
                assert name == "history" or "(hidden: sensitive)" in page
        for status in ("draft", "cancelled"):
            self.assert_hidden(body(boss.get(f"{LIST}{every[status].pk}/delete/")))

    @pytest.mark.parametrize("action", ["send", "refresh", "cancel", "confirm_sent", "resend"])
    def test_no_confirmation_shows_it(self, boss, fields, action):
        page = body(choose(boss, action, *each_status(**fields).values()))
        self.assert_hidden(page)
        assert action == "resend" or "(hidden: sensitive)" in page

    def test_no_export_has_it(self, boss, fields):
        each_status(**fields)
        table = body(boss.post(f"{LIST}export/", {"_csv": "1"}))
        self.assert_hidden(table)
        assert table.count("(hidden: sensitive)") == len(Status)

    @pytest.mark.slow
    def test_no_search_order_or_filter_finds_it(self, boss, fields):
        every = each_status(**fields)
        for query in (f"q={CODE}", f"q={quote(WORD)}"):
            assert boss.get(f"{LIST}?{query}").context["cl"].result_count == 0
        for query in (f"body__contains={CODE}", f"code={CODE}", "sensitive=1", "o=4"):
            page = boss.get(f"{LIST}?{query}", follow=True)
            assert page.context["cl"].result_count == len(every)  # refused: the whole list

    def test_the_check_of_a_new_text_does_not_confirm_a_guess(self, boss, fields):
        queue_sms(NUMBER, SECRET, **fields)
        form = {"numbers": NUMBER, "body": SECRET, "using": "default", "nonce": "1"}
        assert "They would get it twice" not in body(boss.post(f"{LIST}compose/", form))
        queue_sms(NUMBER, SECRET)
        assert "They would get it twice" in body(boss.post(f"{LIST}compose/", form))

    def test_it_is_not_edited(self, boss, fields):
        draft = SmsMessage.objects.create(to=NUMBER, body=SECRET, **fields)
        data = {"to": OTHER, "body": "x", "using": "default", "priority": "0"}
        assert boss.post(f"{LIST}{draft.pk}/change/", data).status_code == 403
        draft.refresh_from_db()
        assert (draft.to, draft.body) == (NUMBER, SECRET)

    @pytest.mark.slow
    def test_send_again_is_not_offered(self, boss, fields):
        every = each_status(**fields)
        for status in ("failed", "unknown", "expired"):
            page = body(boss.get(f"{LIST}{every[status].pk}/change/"))
            assert "/resend/" not in page and "Send again" not in page
        assert post(boss, "resend", every["failed"])[0].startswith("Not done")
        assert choose(boss, "resend", *every.values()).context["plan"].number == 0

    def test_no_text_of_others_repeats_it(self, boss, fields):
        """Histories are written by any program, and rows by any raw SQL."""
        draft = SmsMessage.objects.create(to=NUMBER, body=SECRET, **fields)
        SmsMessage.objects.filter(pk=draft.pk).update(error_text=f"said: {SECRET}")
        sending_log(draft)
        for name in ("change", "history"):
            self.assert_hidden(body(boss.get(f"{LIST}{draft.pk}/{name}/")))

    def test_neither_repr_nor_str_has_it(self, fields):
        for message in (queue_sms(NUMBER, SECRET, **fields), send_sms(NUMBER, SECRET, **fields)):
            self.assert_hidden(f"{message} {message!r}")


def sending_log(message):
    from django_smska.admin.actions import log

    log(User.objects.get(), [message], f"Sent: {SECRET}")

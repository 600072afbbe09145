"""A message of which it is unknown whether it was accepted: what its provider can prove of it."""

import re
from datetime import timedelta
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from django_smska import circuit_breaker, clock, delivery, sending, states
from django_smska.exceptions import QueryFailed, SmsOutcomeUnknown, WrongStatus
from django_smska.models import ProviderState, SmsMessage
from django_smska.pushed_reports import receive
from django_smska.receipts import Report
from django_smska.signals import sms_sent, sms_status_changed
from django_smska.sms import queue_sms, send_sms
from django_smska.states import Status
from django_smska.worker import Worker

from . import pushing
from .pushing import Pushing

NUMBER = "+79041764971"


@pytest.fixture(autouse=True)
def pushing_provider(settings, monkeypatch, transactional_db):
    monkeypatch.setattr(Pushing, "known", {})
    monkeypatch.setattr(Pushing, "asked", [])
    settings.SMSKA_LOCMEM_IN_TESTS = False
    settings.SMSKA_LIMITS = None
    settings.SMS_PROVIDERS = {
        "default": {"BACKEND": pushing.PATH},
        "mute": {"BACKEND": "tests.pushing.Mute"},
        "reporting": {"BACKEND": "tests.pushing.Reporting"},
        "either": {
            "BACKEND": "django_smska.backends.failover.SmsBackend",
            "OPTIONS": {"providers": ["default", "reporting"]},
        },
    }


def lose(text="the answer is lost", **more):
    """Send a message whose answer is lost; return it as it is stored."""
    with pytest.raises(SmsOutcomeUnknown) as raised:
        send_sms(NUMBER, text, **more)
    return SmsMessage.objects.get(pk=raised.value.sms)


def stored(message):
    return SmsMessage.objects.get(pk=message.pk)


def let_pass(seconds):
    """Let what is due in so many seconds be due now."""
    due = SmsMessage.objects.filter(next_status_at__isnull=False)
    for message in due:
        at = message.next_status_at - timedelta(seconds=seconds)
        SmsMessage.objects.filter(pk=message.pk).update(next_status_at=at)


# --- the questions --------------------------------------------------------------------------------


def test_the_questions_come_after_half_a_minute_two_ten_and_an_hour():
    waits = [states.next_question_in(asked) for asked in range(5)]
    assert waits == [30, 90, 480, 3000, None]
    assert [sum(waits[: n + 1]) for n in range(4)] == [30, 120, 600, 3600]


def test_a_message_that_is_found_is_sent():
    message = lose()
    assert message.status == Status.UNKNOWN and message.status_queries == 0
    wait = message.next_status_at - clock.now()
    assert timedelta(seconds=20) < wait <= timedelta(seconds=30)
    Worker().run_once()
    assert stored(message).status == Status.UNKNOWN and Pushing.asked == []
    let_pass(30)
    seen = []
    with mock.patch.object(sms_sent, "send_robust", lambda *a, **k: seen.append(k["message"].pk)):
        Worker().run_once()
    found = stored(message)
    assert (found.status, found.gateway_id, found.proof) == (Status.SENT, "p-1", "answer")
    assert found.sent_at == message.sending_at and found.status_queries == 0
    assert Pushing.asked == [message.reference] and seen == [message.pk]
    Worker().run_once()
    assert len(Pushing.asked) == 1


def test_what_it_says_beyond_that_is_applied_too():
    message = lose()
    Pushing.known[message.reference] = Report("delivered", "there", "p-9", price=2, currency="RUB")
    let_pass(30)
    Worker().run_once()
    found = stored(message)
    assert (found.status, found.gateway_id, found.gateway_status) == ("delivered", "p-9", "there")
    assert (found.price, found.currency) == (2, "RUB")


@pytest.mark.slow
def test_not_found_proves_nothing_and_ends_after_four_questions():
    message = lose()
    Pushing.known.clear()
    for asked, wait in enumerate((90, 480, 3000), start=1):
        let_pass(3600)
        Worker().run_once()
        row = stored(message)
        assert (row.status, row.status_queries) == (Status.UNKNOWN, asked)
        left = (row.next_status_at - clock.now()).total_seconds()
        assert wait - 20 < left <= wait
    let_pass(3600)
    Worker().run_once()
    row = stored(message)
    assert (row.status, row.status_queries, row.next_status_at) == (Status.UNKNOWN, 4, None)
    let_pass(10**6)
    Worker().run_once()
    assert len(Pushing.asked) == 4 and SmsMessage.objects.count() == 1


def test_it_may_learn_of_the_message_late():
    message = lose()
    known = Pushing.known.pop(message.reference)
    let_pass(30)
    Worker().run_once()
    assert stored(message).status == Status.UNKNOWN
    Pushing.known[message.reference] = known
    let_pass(90)
    Worker().run_once()
    assert stored(message).status == Status.SENT


def test_a_question_without_an_answer_is_no_answer():
    message = lose("lost and silent")
    let_pass(30)
    Worker().run_once()
    row = stored(message)
    assert (row.status, row.status_queries) == (Status.UNKNOWN, 1)
    assert row.next_status_at is not None


def test_a_mute_provider_is_not_asked():
    message = lose(using="mute")
    assert message.next_status_at is None
    message.refresh_status()
    Worker().run_once()
    assert stored(message).status == Status.UNKNOWN and Pushing.asked == []


@pytest.mark.parametrize("using", ["default", "reporting"])
def test_the_id_of_another_message_is_no_proof(caplog, using):
    other = send_sms(NUMBER, "first", using=using)
    message = lose()
    Pushing.known[message.reference] = Report("delivered", "there", other.gateway_id)
    let_pass(30)
    Worker().run_once()
    assert stored(message).status == Status.UNKNOWN
    assert "another message's" in caplog.text


def test_who_looks_at_it_may_ask_at_once():
    message = lose()
    message.refresh_status()
    assert (message.status, message.proof) == (Status.SENT, "answer")
    second = lose("another is lost")
    assert SmsMessage.objects.filter(pk=second.pk).refresh_status() == {"sent": 1}


def test_a_worker_that_was_killed_leaves_what_can_be_asked():
    message = queue_sms(NUMBER, "sent by a worker that is killed")
    (claimed,) = sending.claim(SmsMessage.objects.filter(pk=message.pk), clock.now())
    assert sending.mark_sending([claimed])
    Pushing.known[claimed.reference] = Report("sent", "on its way", "p-5")
    SmsMessage.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    sending.recover()
    assert stored(message).status == Status.UNKNOWN
    let_pass(30)
    Worker().run_once()
    assert stored(message).status == Status.SENT and stored(message).gateway_id == "p-5"


def test_of_two_workers_one_asks():
    lose()
    let_pass(30)
    found = delivery.rows().awaiting_proof(clock.now())
    twice = [list(found), list(found)]
    wins = [delivery._postpone(one, found, delivery._next_question) for one in twice]
    assert [len(one) for one in wins] == [1, 0]


def test_a_person_may_say_so_before():
    message = lose()
    sending.confirm_sent(message)
    assert (stored(message).status, stored(message).proof) == (Status.SENT, "person")
    with pytest.raises(WrongStatus, match="not unknown"):
        sending.confirm_sent(message)
    let_pass(3600)
    Worker().run_once()
    assert Pushing.asked == []


def test_the_change_is_announced():
    message = lose()
    seen = []
    listen = lambda *args, **words: seen.append((words["old"], words["new"]))  # noqa: E731
    with mock.patch.object(sms_status_changed, "send_robust", listen):
        message.refresh_status()
    assert seen == [("unknown", "sent")]


@pytest.mark.slow
def test_what_was_not_asked_is_asked_soon_and_loses_no_question():
    """The first one of a provider goes alone; where it gets no answer, the others wait."""
    messages = [lose("lost and silent"), lose("lost too")]
    let_pass(40)
    Worker().run_once()
    first, second = map(stored, messages)
    assert Pushing.asked == [first.reference]
    assert (first.status_queries, second.status_queries) == (1, 0)
    assert second.next_status_at - clock.now() <= delivery.RETRY_QUERY_IN
    let_pass(61)
    Worker().run_once()
    assert stored(second).status == Status.SENT


@pytest.mark.slow
def test_a_proof_cancels_what_was_queued_instead(page):
    """The pause that lost answers cause ends with the proof, and would let it out."""
    messages = [lose(f"lost {number}") for number in range(3)]
    assert circuit_breaker.paused() == ["default"]
    again = sending.resend(messages[0])
    let_pass(30)
    for _ in range(2):
        Worker().run_once()
    assert [stored(one).status for one in messages] == [Status.SENT] * 3
    assert (stored(again).status, stored(again).attempts) == (Status.CANCELLED, 0)
    assert "accepted the first message after all" in page(stored(again))


def test_what_a_person_says_cancels_nothing():
    message = lose()
    again = sending.resend(message)
    sending.confirm_sent(message)
    assert stored(again).status == Status.QUEUED


def test_questions_of_different_number_are_put_off_together():
    first, second = lose("lost first"), lose("lost second")
    Pushing.known.clear()
    SmsMessage.objects.filter(pk=first.pk).update(status_queries=3)
    let_pass(30)
    Worker().run_once()
    assert (stored(first).status_queries, stored(first).next_status_at) == (4, None)
    assert stored(second).status_queries == 1 and stored(second).next_status_at is not None


# --- the breaker ----------------------------------------------------------------------------------


def test_a_doubt_that_is_resolved_counts_no_more():
    messages = [lose(f"lost {number}") for number in range(2)]
    assert ProviderState.objects.get(alias="default").failures == 2
    messages[0].refresh_status()
    assert ProviderState.objects.get(alias="default").failures == 1
    lose("lost again")
    assert "default" not in circuit_breaker.paused()


@pytest.mark.slow
def test_a_pause_ends_when_its_doubts_are_resolved():
    for number in range(3):
        lose(f"lost {number}")
    assert circuit_breaker.paused() == ["default"]
    let_pass(30)
    Worker().run_once()
    assert set(SmsMessage.objects.values_list("status", flat=True)) == {"sent"}
    assert circuit_breaker.paused() == []
    assert send_sms(NUMBER, "sent at once").status == Status.SENT


def test_a_pause_for_another_reason_does_not_end():
    message = lose()
    ProviderState.objects.filter(alias="default").update(reason="account", failures=5)
    message.refresh_status()
    assert ProviderState.objects.get(alias="default").failures == 5


# --- failover -------------------------------------------------------------------------------------


def test_of_a_failover_the_member_is_asked_that_may_have_it():
    message = lose(using="either")
    assert message.using == "either" and message.next_status_at
    let_pass(30)
    Worker().run_once()
    assert (stored(message).status, stored(message).using) == (Status.SENT, "default")
    assert Pushing.asked == [message.reference]


def test_a_doubt_of_a_failover_is_sent_again_through_any_member():
    message = lose(using="either")
    assert sending.resend(message).using == "either"


def test_where_the_member_in_doubt_cannot_be_asked_no_other_one_is(settings):
    settings.SMS_PROVIDERS["either"]["OPTIONS"] = {"providers": ["mute", "default"]}
    assert lose(using="either").next_status_at is None


def test_a_failover_proves_no_more_than_its_weakest_member(settings):
    from django_smska import checked_backend

    assert str(checked_backend.provider("either").evidence) == "told"
    settings.SMS_PROVIDERS["either"]["OPTIONS"] = {"providers": ["default", "mute"]}
    assert str(checked_backend.provider("either").evidence) == "mute"


def test_of_a_failover_one_silent_member_does_not_hide_what_the_other_knows(settings):
    settings.SMS_PROVIDERS["second"] = {"BACKEND": pushing.PATH}
    settings.SMS_PROVIDERS["either"]["OPTIONS"] = {"providers": ["default", "second"]}
    message = lose("lost by one of them")
    SmsMessage.objects.update(using="either")  # the process was killed

    def find(backend, message):
        if backend.alias == "default":
            raise QueryFailed(alias="default")
        return Report("sent", "on its way", "s-1")

    with mock.patch.object(Pushing, "find", find):
        message.refresh_status()
    assert (message.status, message.using, message.gateway_id) == (Status.SENT, "second", "s-1")
    other = lose("lost by another one")
    SmsMessage.objects.filter(pk=other.pk).update(using="either")
    silent = mock.Mock(side_effect=QueryFailed(alias="default"))
    with mock.patch.object(Pushing, "find", silent), pytest.raises(QueryFailed):
        other.refresh_status()


# --- what a person sees ---------------------------------------------------------------------------


@pytest.fixture
def page(client):
    client.force_login(User.objects.create_superuser("boss"))

    def read(message):
        answer = client.get(f"/admin/django_smska/smsmessage/{message.pk}/change/")
        return " ".join(re.sub("<[^>]*>", " ", answer.content.decode()).split())

    return read


@pytest.mark.slow
def test_the_page_says_when_it_is_asked_and_what_came_of_it(page):
    message = lose()
    words = page(message)
    assert (
        "Wait for that before you decide" in words and "The provider will be asked next: " in words
    )
    Pushing.known.pop(message.reference)
    for _ in range(4):
        let_pass(3600)
        Worker().run_once()
    words = page(message)
    assert "the provider was asked in vain about this message" in words
    assert "Provider asked 4 times" in words and "next:" not in words.partition("asked 4")[2][:20]
    Pushing.known[message.reference] = Report("sent", "", "p-1")
    message.refresh_status()
    assert "known by an answer of the provider" in page(message)


def test_where_it_cannot_be_asked_a_person_decides(page):
    words = page(lose(using="mute"))
    assert "cannot be asked" in words and "Provider asked" not in words
    assert "reports that" not in words
    message = lose("lost, and a person knows", using="mute")
    sending.confirm_sent(message)
    assert "known by a person" in page(message)


def test_where_a_report_may_come_a_person_waits_for_it(page, settings):
    settings.SMSKA_PUBLIC_URL = "https://shop.example"
    message = lose(using="reporting")
    words = page(message)
    assert "Wait for that before you decide" in words and "cannot be asked" not in words
    assert "Provider asked" not in words
    receive("reporting", [Report("delivered", "", "p-1", reference=message.reference)])
    assert "known by a report of the provider" in page(message)


def test_without_an_address_no_report_is_announced(page):
    assert "cannot be asked" in page(lose(using="reporting"))


def test_what_was_sent_without_an_id_may_still_be_reported(page, settings):
    message = send_sms(NUMBER, "without an id", using="reporting")
    assert "gave no ID" in page(message)
    settings.SMSKA_PUBLIC_URL = "https://shop.example"
    words = page(message)
    assert "gave no ID" not in words and "The status will update automatically" in words


def test_a_person_waits_for_no_question_that_no_worker_asks(page):
    message = lose()
    assert "Wait for that" in page(message)
    let_pass(30 + 301)
    assert "Wait for that" not in page(message)
    again = sending.resend(stored(message))
    assert again.status == Status.QUEUED
    let_pass(-3600)
    assert "It was sent again" in page(message)


def test_what_is_reported_without_an_id_needs_none(settings, page):
    message = send_sms(NUMBER, "without an id", using="reporting")
    assert "gave no ID" in page(message)
    settings.SMSKA_PUBLIC_URL = "https://shop.example"
    assert "will update automatically" in page(message)

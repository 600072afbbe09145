"""What stands above the admin's list, and what one message's page shows of its life."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import escape

from django_smska import circuit_breaker, held_queue, states
from django_smska.admin import alerts, timeline, wording
from django_smska.admin.advice import Rights, advice
from django_smska.exceptions import AuthenticationFailed
from django_smska.models import ProviderState, SmsMessage
from django_smska.sms import queue_sms
from django_smska.states import Status
from django_smska.times import local

pytestmark = pytest.mark.django_db
NUMBER = "+79041764995"


def make(status, number=1, **values):
    now = timezone.now()
    day = now + timedelta(days=1)
    times = {"expires_at": day, "lease_until": day, "finished_at": now} | values
    messages = [SmsMessage(to=NUMBER, body="text", status=status, **times) for _ in range(number)]
    return SmsMessage.objects.bulk_create(messages)


def needing_attention(**options):
    return SmsMessage.objects.needing_attention(timezone.now(), **options)


def words():
    return [line.words for line in alerts.alerts()]


class TestNeedsAPerson:
    def test_an_idle_app_says_nothing(self):
        assert alerts.alerts() == []

    def test_unknown_and_freshly_failed_ones_are_counted(self):
        old = timezone.now() - timedelta(days=8)
        make("unknown", 2)
        make("unknown", finished_at=None, created_at=old)
        make("failed", 3)
        make("failed", finished_at=old)
        make("delivered")
        [line] = alerts.alerts()
        assert (line.words, line.warns) == ("6 messages need attention", True)
        assert len(needing_attention()) == 6

    def test_what_was_sent_again_needs_no_attention(self):
        [done, left] = make("failed", 2)
        make("queued", resend_of=done, send_after=timezone.now() + timedelta(days=1))
        assert words() == ["1 message needs attention"]
        assert needing_attention() == [left.pk]

    def test_of_many_it_does_not_count_all(self, django_assert_max_num_queries):
        make("failed", 120)
        with django_assert_max_num_queries(6):
            assert words() == ["more than 99 messages need attention"]

    def test_of_each_kind_the_newest_are_examined(self):
        unknown, failed = make("unknown", 3), make("failed", 3)
        newest = {message.pk for message in (*unknown[1:], *failed[1:])}
        assert set(needing_attention(most=2)) == newest

    def test_its_link_shows_just_these(self, admin_client):
        make("delivered", 2)
        [message] = make("unknown")
        url = "/admin/django_smska/smsmessage/"
        page = admin_client.get(url)
        assert '<a href="?needs=attention">1 message needs attention</a>' in page.content.decode()
        found = admin_client.get(f"{url}?needs=attention").context["cl"].result_list
        assert list(found) == [message]


class TestProviders:
    def test_its_balance_and_the_time_of_it(self):
        at = timezone.now() - timedelta(minutes=5)
        ProviderState.objects.create(alias="default", balance=Decimal("7464"), balance_at=at)
        when = date_format(local(at), "SHORT_DATETIME_FORMAT")
        assert words() == [f"Balance of “default”: 7464 credits, as of {when}"]
        assert not alerts.alerts()[0].warns

    @pytest.mark.parametrize(("low", "warns"), [(100, True), (99, False), (0, False)])
    def test_a_low_balance_warns(self, settings, low, warns):
        settings.SMSKA_LOW_BALANCE = low
        state = {"balance": Decimal(99), "balance_at": timezone.now()}
        ProviderState.objects.create(alias="default", **state)
        [line] = alerts.alerts()
        assert line.warns is warns and ("top up the account" in line.words) is warns

    def test_no_balance_of_the_provider_that_had_the_alias_before(self, settings):
        settings.SMS_PROVIDERS = {"default": {"BACKEND": "tests.pushing.Mute"}}
        state = {"balance": Decimal(1), "balance_at": timezone.now()}
        state = ProviderState.objects.create(alias="default", **state)
        assert words() == [] and wording.balance_words(state) == "not known"

    def test_a_pause_and_its_reason(self):
        circuit_breaker.note_error("default", AuthenticationFailed(alias="default"))
        [line] = alerts.alerts()
        at = timezone.localtime(ProviderState.objects.get().probe_at)
        assert line.words == (
            "“default” is paused. The gateway refuses the login. Ask your administrator to correct "
            f"it. It is tried again at {at:%H:%M:%S}."
        )
        assert line.warns
        ProviderState.objects.update(probe_at=timezone.now())
        [line] = alerts.alerts()
        assert line.words.endswith("correct it. The next message tries it again.")

    @pytest.mark.parametrize("reason", states.PAUSE_SECONDS)
    def test_each_pause_says_what_to_do(self, reason):
        later = timezone.now() + timedelta(hours=1)
        ProviderState.objects.create(
            alias="default", reason=reason, paused_at=timezone.now(), probe_at=later
        )
        [line] = alerts.alerts()
        helps = "Ask" in line.words or "Top it up." in line.words
        assert helps or reason == "busy"
        assert "It is tried again at " in line.words

    def test_messages_that_wait_while_no_worker_is_seen(self):
        queue_sms(NUMBER, "just queued")
        assert words() == []
        SmsMessage.objects.update(send_after=timezone.now() - timedelta(minutes=3))
        [line] = alerts.alerts()
        assert "no worker is sending them" in line.words and line.query == "status__exact=queued"
        held_queue.heartbeat(["default"])
        assert words() == []

    def test_a_provider_that_is_no_longer_in_the_settings_is_not_spoken_of(self):
        state = {"balance": Decimal(1), "balance_at": timezone.now()}
        ProviderState.objects.create(alias="gone", **state)
        assert alerts.alerts() == []

    def test_the_list_of_providers_says_that_one_is_not_in_the_settings(self, admin_client):
        ProviderState.objects.create(alias="gone")
        ProviderState.objects.create(alias="default")
        page = admin_client.get("/admin/django_smska/providerstate/").content.decode()
        assert page.count(">not in the settings<") == 1 and page.count(">works<") == 1


class TestTimeline:
    def test_a_delivered_message(self):
        start = timezone.now().replace(microsecond=0) - timedelta(hours=1)
        [message] = make(
            "delivered",
            created_at=start,
            send_after=start,
            sending_at=start + timedelta(seconds=2),
            sent_at=start + timedelta(seconds=3),
            finished_at=start + timedelta(seconds=128),
            created_by=User.objects.create_user("anna"),
        )
        assert [(step.what, step.after) for step in timeline.steps(message)] == [
            ("Created by anna", ""),
            ("Request to the gateway began", ""),
            ("Accepted by the gateway", "after 1 s"),
            ("Delivered", "after 2 min 5 s"),
        ]
        assert timeline.timeline(message).count("<li>") == 4

    def test_one_for_later_with_three_attempts(self):
        later = timezone.now() + timedelta(hours=2)
        [message] = make("sending", send_after=later, sending_at=later, attempts=3)
        whats = [(step.what, step.after) for step in timeline.steps(message)]
        assert whats[1:] == [
            ("To be sent from this time on", ""),
            ("Request to the gateway began", "3 attempts"),
        ]

    def test_one_that_is_on_its_way_shows_what_was_asked(self):
        now = timezone.now()
        asked = {"sent_at": now, "next_status_at": now, "status_queries": 2, "gateway_id": "g"}
        [message] = make("sent", finished_at=None, **asked)
        page = timeline.timeline(message)
        assert "Status checked 2 times" in page and "next: " in page

    def test_one_without_an_id_promises_no_answer(self):
        now = timezone.now()
        [message] = make("sent", finished_at=None, sent_at=now, next_status_at=now)
        assert "checked" not in timeline.timeline(message)
        assert "gave no ID" in advice(message)

    def test_one_that_was_refused_and_waits_shows_the_refusal(self):
        start = timezone.now().replace(microsecond=0) - timedelta(minutes=9)
        refused = {"claimed_at": start, "sending_at": start + timedelta(seconds=1)}
        again = start + timedelta(minutes=30)
        [message] = make(
            "queued", created_at=start, send_after=again, attempts=1, error_code="-1", **refused
        )
        assert [(step.what, step.after, step.at) for step in timeline.steps(message)][1:] == [
            ("Request to the gateway began", "", refused["sending_at"]),
            ("Attempt 1 failed", "The gateway refuses this site's login", refused["sending_at"]),
            ("To be sent from this time on", "", again),
        ]

    def test_one_that_could_not_be_handed_over_shows_no_request(self):
        start = timezone.now() - timedelta(minutes=2)
        [message] = make(
            "queued",
            created_at=start,
            send_after=start,
            claimed_at=start,
            attempts=3,
            error_code="connect-Refused",
        )
        assert [(step.what, step.after) for step in timeline.steps(message)][1:] == [
            ("Attempt 3 failed", "The gateway could not be reached")
        ]

    def test_one_that_failed_shows_why(self):
        start = timezone.now() - timedelta(minutes=2)
        began = {"created_at": start, "send_after": start, "sending_at": start, "attempts": 2}
        [message] = make("failed", error_code="-6", **began)
        assert [(step.what, step.after) for step in timeline.steps(message)][1:] == [
            ("Request to the gateway began", "2 attempts"),
            ("Attempt 2 failed", "The gateway does not accept the number"),
            ("Failed", "after 2 min"),
        ]

    @pytest.mark.parametrize("code", ["expired", "stopped", "opted-out", "limit-segments", ""])
    def test_what_was_not_tried_shows_no_attempt(self, code):
        start = timezone.now() - timedelta(minutes=2)
        begun = {"created_at": start, "send_after": start, "attempts": 1}
        [message] = make("failed", error_code=code, **begun)
        assert [step.what for step in timeline.steps(message)][1:] == ["Failed"]

    def test_an_earlier_error_is_no_attempt_of_what_was_delivered(self):
        start = timezone.now() - timedelta(minutes=2)
        begun = {"created_at": start, "send_after": start, "attempts": 1}
        [message] = make("delivered", error_code="-6", **begun)
        assert [step.what for step in timeline.steps(message)][1:] == ["Delivered"]

    def test_an_unknown_one_shows_that_no_answer_came(self):
        start = timezone.now() - timedelta(minutes=2)
        [message] = make("unknown", created_at=start, send_after=start, sending_at=start)
        assert [step.what for step in timeline.steps(message)][1:] == [
            "Request to the gateway began",
            "No clear answer from the gateway",
        ]

    def test_names_are_escaped(self):
        [message] = make("draft", created_by=User.objects.create_user("<b>x"))
        assert "<b>" not in timeline.timeline(message)

    @pytest.mark.parametrize(
        ("seconds", "words"),
        [
            (0, "0 s"),
            (0.4, "0 s"),
            (59.6, "1 min"),
            (3600, "1 h"),
            (3661, "1 h 1 min"),
            (180000, "2 d 2 h"),
        ],
    )
    def test_a_duration_is_reported_by_its_two_largest_parts(self, seconds, words):
        assert timeline.lasting(timedelta(seconds=seconds)) == words


class TestAdvice:
    @pytest.mark.parametrize("status", Status)
    def test_every_status_has_its_words_and_its_mark(self, status, admin_client):
        [message] = make(status)
        assert advice(message)
        page = admin_client.get(f"/admin/django_smska/smsmessage/{message.pk}/change/")
        badge = f'<span class="smska-status smska-{wording.MARKS[status]}">{status.label}<'
        if status != "draft":
            assert badge in page.content.decode()
            assert escape(advice(message)) in page.content.decode()

    @pytest.mark.parametrize("code", ["-1", "-2", "-3", "-4", "-5", "-6", "-7", "expired"])
    def test_every_failure_of_the_gateway_has_its_own(self, code):
        [message] = make("failed", error_code=code)
        [other] = make("failed", error_code="connect-X")
        assert advice(message) == str(wording.FAILURES[code].advice) != advice(other)

    def test_who_may_not_decide_is_not_reported_to(self):
        [message] = make("unknown")
        assert "“Send again”" in advice(message)
        assert "A colleague with the permission" in advice(message, Rights(decide=False))

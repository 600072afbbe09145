"""What one message's page says is to be done: never "nothing", where something is."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.utils import timezone
from django.utils.formats import date_format

from django_smska import clock, kill_switch, limits, sending
from django_smska.admin import alerts, waiting
from django_smska.admin.advice import Rights, advice
from django_smska.models import ProviderState, SmsMessage
from django_smska.times import local

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("one_moment")]

NUMBER = "+79161234567"
NOTHING = "There is nothing to do."
FAILOVER = "django_smska.backends.failover.SmsBackend"


def make(status="queued", **values):
    now = clock.now()
    day = now + timedelta(days=1)
    given = {"expires_at": day, "lease_until": day, "send_after": now - timedelta(seconds=5)}
    message = SmsMessage(to=NUMBER, body="Your order", status=status, **given | values)
    message.segments = values.get("segments", 1)
    return SmsMessage.objects.bulk_create([message])[0]


def seen(alias="default", **values):
    """Let a worker be seen for the provider."""
    values = {"worker_seen_at": clock.now(), **values}
    return ProviderState.objects.update_or_create(alias=alias, defaults=values)[0]


def said(moment):
    at = local(moment)
    return f"at {date_format(at, 'TIME_FORMAT')} on {date_format(at, 'DATE_FORMAT')}"


def until(message):
    return f"If it is still waiting {said(message.expires_at)}, it is not sent any more."


def paused(reason="account", **values):
    now = clock.now()
    return {"reason": reason, "paused_at": now, "probe_at": now + timedelta(minutes=7), **values}


class TestQueued:
    def test_what_is_due_while_a_worker_is_seen_needs_nothing(self):
        seen()
        assert advice(make()) == f"It is waiting for its turn. {NOTHING}"

    def test_without_a_worker_the_administrator_is_to_be_asked(self):
        message = make()
        assert advice(message) == (
            "It is waiting. Messages are waiting for “default”, but no worker is sending them. Ask "
            f"your administrator to start sms_worker. {until(message)}"
        )

    def test_while_the_provider_is_paused_it_says_why_what_to_do_and_until_when(self):
        state, message = seen(**paused()), make()
        assert advice(message) == (
            "It is waiting. “default” is paused. The gateway refuses the login. Ask your "
            f"administrator to correct it. It is tried again at {local(state.probe_at):%H:%M:%S}. "
            f"{until(message)}"
        )

    @pytest.mark.parametrize("trouble", ["paused", "worker", "full"])
    def test_it_says_the_same_as_the_alert_above_the_list(self, settings, trouble):
        settings.SMSKA_LIMITS = {"segments": 4}
        full = {"segments_on": limits.today(), "segments_used": 4}
        seen(
            **{"paused": paused("funds"), "worker": {"worker_seen_at": None}, "full": full}[trouble]
        )
        message = make(send_after=clock.now() - timedelta(minutes=3))
        [alert] = alerts.alerts()
        assert alert.words in advice(message)

    def test_one_for_later_says_when_it_leaves(self):
        seen()
        later = clock.now() + timedelta(days=3)
        message = make(send_after=later, expires_at=later + timedelta(days=1))
        assert advice(message) == f"It leaves {said(later)}."

    @pytest.mark.parametrize(
        "trouble", [paused(), {"worker_seen_at": None}], ids=["pause", "worker"]
    )
    def test_one_for_later_promises_nothing_in_trouble(self, trouble):
        seen(**trouble)
        later = clock.now() + timedelta(hours=5)
        words = advice(make(send_after=later))
        assert words.startswith(f"It is to be sent {said(later)}. ") and "Ask your" in words
        assert "leaves" not in words

    def test_one_that_was_refused_says_so_and_when_it_is_tried_again(self):
        seen()
        later = clock.now() + timedelta(minutes=4)
        message = make(send_after=later, attempts=2, error_code="-3")
        at = date_format(local(later), "TIME_FORMAT")
        assert advice(message) == (
            "The last attempt failed. The gateway was out of order or too busy. "
            f"At {at} it is tried again."
        )

    def test_the_segments_of_the_day_are_used_up(self, settings):
        settings.SMSKA_LIMITS = {"segments": 9}
        seen(segments_on=limits.today(), segments_used=9)
        message = make()
        assert "“default” has used up its segments for today." in advice(message)
        assert until(message) in advice(message)
        tomorrow = limits.day_ends(clock.now()) + timedelta(hours=1)
        morning = make(send_after=tomorrow, expires_at=tomorrow + timedelta(days=1))
        assert advice(morning) == f"It leaves {said(tomorrow)}."

    def test_it_is_longer_than_what_is_left_of_the_day(self, settings):
        settings.SMSKA_LIMITS = {"segments": 9}
        seen(segments_on=limits.today(), segments_used=7)
        assert advice(make(segments=2)).endswith(NOTHING)
        words = advice(make(segments=3))
        assert "more segments than “default” may still send today" in words and "midnight" in words

    def test_a_held_one_names_no_page_that_its_reader_may_not_see(self, client):
        message = make()
        seen(held_before=clock.now())
        user = User.objects.create_user("reader", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename="view_smsmessage"))
        client.force_login(user)
        url = f"/admin/django_smska/smsmessage/{message.pk}/change/"
        page = client.get(url).content.decode()
        assert "Held messages…" not in page
        assert "A colleague with the permission to release held messages" in page
        more = Permission.objects.get(codename="release_smsmessage")
        user.user_permissions.add(more)
        assert "Choose “Held messages…” above the" in client.get(url).content.decode()

    def test_stopped_and_held_ones_say_until_when_too(self):
        message = make()
        seen(held_before=clock.now())
        assert "Held messages…" in advice(message) and until(message) in advice(message)
        kill_switch.stop("default", by="olga")
        assert "sending is stopped" in advice(message) and until(message) in advice(message)

    def test_its_provider_is_no_longer_in_the_settings(self):
        seen("gone")
        words = advice(make(using="gone"))
        assert "“gone” is not in the settings" in words and "Ask your administrator." in words

    def test_the_name_of_a_provider_is_no_html(self, admin_client):
        message = make(using="<b>gone")
        page = admin_client.get(f"/admin/django_smska/smsmessage/{message.pk}/change/")
        assert "“&lt;b&gt;gone” is not in" in page.content.decode()
        assert "<b>gone" not in page.content.decode()

    def test_of_a_failover_all_members_count(self, settings):
        both = {"BACKEND": FAILOVER, "OPTIONS": {"providers": ["one", "two"]}}
        mute = {"BACKEND": "tests.pushing.Mute"}
        settings.SMS_PROVIDERS = {"one": mute, "two": mute, "default": both}
        settings.SMSKA_LOCMEM_IN_TESTS = False
        seen()
        seen("one", **paused())
        message = make()
        assert advice(message).endswith(NOTHING)
        kill_switch.stop("two", by="olga")
        words = advice(message)
        assert "Each provider that “default” may use is paused or stopped. “one”: The gate" in words

    def test_one_that_is_too_late_is_no_longer_waiting(self):
        seen()
        passed = clock.now() - timedelta(seconds=1)
        words = advice(make(send_after=passed - timedelta(days=1), expires_at=passed))
        assert "is not sent any more" in words and "marks it as failed" in words

    def test_where_a_task_engine_sends_lateness_shows_that_it_does_not(self, settings):
        settings.SMSKA_ENQUEUE = "tests.enqueue_engines.enqueue"
        assert advice(make()).endswith(NOTHING)
        late = make(send_after=clock.now() - waiting.QUEUED_GRACE - timedelta(seconds=1))
        assert "whether the workers of the task engine are running" in advice(late)


class TestOthers:
    @pytest.mark.parametrize("status", ["claimed", "sending"])
    def test_a_process_that_has_stopped_sends_nothing_right_now(self, status):
        assert "It is " in advice(make(status))
        words = advice(make(status, lease_until=clock.now()))
        assert "has stopped or hangs" in words and "It is " not in words

    def test_a_status_that_no_worker_updates_is_not_promised(self):
        soon = {"gateway_id": "g7", "next_status_at": clock.now() + timedelta(minutes=3)}
        message = make("sent", **soon)
        assert "At present the status is not updated." in advice(message)
        seen()
        assert "will update automatically" in advice(message)
        overdue = make("sent", **soon | {"next_status_at": clock.now() - timedelta(minutes=6)})
        assert "At present the status is not updated." in advice(overdue)

    def test_a_provider_without_reports_promises_none(self, settings):
        settings.SMS_PROVIDERS = {
            "default": {"BACKEND": "django_smska.backends.console.SmsBackend"}
        }
        settings.SMSKA_LOCMEM_IN_TESTS = False
        seen()
        assert "does not report whether" in advice(make("sent", gateway_id="g7"))

    def test_a_draft_names_a_button_that_the_reader_has(self):
        draft = make("draft")
        assert "choose “Save and send”." in advice(draft)
        assert "choose “Send”." in advice(draft, Rights(edit=False))
        for edit in (True, False):
            words = advice(draft, Rights(send=False, edit=edit))
            assert (
                words == "It is not sent until a colleague with the permission to send does that."
            )

    @pytest.mark.parametrize(
        ("wanted", "words"),
        [
            ("view send", "It is not sent until you choose “Send”."),
            ("view", "It is not sent until a colleague"),
            ("view change see_text see_number send", "until you choose “Save and send”."),
        ],
    )
    def test_the_page_of_a_draft_says_it(self, client, wanted, words):
        user = User.objects.create_user("vera", is_staff=True)
        names = [f"{name}_smsmessage" for name in wanted.split()]
        user.user_permissions.set(Permission.objects.filter(codename__in=names))
        client.force_login(user)
        page = client.get(f"/admin/django_smska/smsmessage/{make('draft').pk}/change/")
        assert words in page.content.decode()

    @pytest.mark.parametrize(("status", "code"), [("failed", "-5"), ("expired", "")])
    def test_who_may_not_resend_is_not_advised_to(self, status, code):
        message = make(status, error_code=code, finished_at=timezone.now())
        assert "“Send again”" in advice(message)
        words = advice(message, Rights(decide=False))
        assert words.endswith("A colleague with the permission to resend can send it again.")

    @pytest.mark.parametrize("code", ["-2", "-6", "-7", "number", "text"])
    def test_what_fails_again_is_to_be_copied(self, code):
        message = make("failed", error_code=code, finished_at=timezone.now())
        assert "“Copy to a new message”" in advice(message)
        assert "“Copy to a new message”" in advice(message, Rights(decide=False))
        assert "“Copy" not in advice(message, Rights(write=False))
        assert "“Send again”" not in advice(message)

    def test_what_was_sent_again_is_not_to_be_sent_again(self):
        message = make("failed", error_code="connect", finished_at=timezone.now())
        again = sending.resend(message)
        words = advice(SmsMessage.objects.get(pk=again.resend_of_id))
        assert words.endswith("It was sent again as a new message.") and "choose" not in words

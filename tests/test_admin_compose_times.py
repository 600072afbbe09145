"""The page for writing: the times that it offers, hours over which it spreads, and quiet hours."""

import re
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import Permission, User
from django.utils.timezone import override

from django_smska import clock
from django_smska.admin import compose_times
from django_smska.models import ProviderState, SmsMailing, SmsMessage
from django_smska.opt_out import opt_out
from django_smska.sms import outbox, send_mass_sms
from django_smska.worker import Worker

from .test_admin_compose import PAGE, carried_by, errors, filled, many, shown

pytestmark = pytest.mark.django_db

MAILINGS = "/admin/django_smska/smsmailing/"
HOURS = {"from": "21:30", "until": "09:15"}
#: Half past two in the afternoon in Moscow, a Thursday.
DAY = datetime(2027, 5, 13, 11, 30, 45, tzinfo=timezone.utc)
#: Half past midnight there, a Friday.
NIGHT = datetime(2027, 5, 13, 21, 30, 45, tzinfo=timezone.utc)
MORNING = datetime(2027, 5, 14, 6, 15, tzinfo=timezone.utc)
TWO = many(2)
OUTSIDE, ANYWAY = "Send outside the quiet hours", "Send at night all the same"


def zone_of(number):
    return "Asia/Kamchatka" if number.endswith("1") else "Europe/Moscow"


@pytest.fixture(autouse=True)
def at(monkeypatch, settings):
    """A clock that the test sets."""
    settings.SMSKA_HOLD_AFTER = None  # it jumps over hours

    class Clock:
        now = DAY

    ours = Clock()
    monkeypatch.setattr(clock, "now", lambda: ours.now)
    for name in ("django.utils.timezone.now", "django_smska.times.now"):
        monkeypatch.setattr(name, lambda: ours.now)
    for name in ("compose_times", "mailing_times"):
        monkeypatch.setattr(f"django_smska.admin.{name}.now", lambda: ours.now)
    return ours


@pytest.fixture
def boss(client):
    client.user = User.objects.create_superuser("boss")
    client.force_login(client.user)
    return client


@pytest.fixture
def quiet(settings):
    settings.SMSKA_QUIET_HOURS = HOURS


def offered(client):
    page = client.get(PAGE).content.decode()
    select = re.search(r'<select name="when".*?</select>', page, re.S)[0]
    return dict(re.findall(r'<option value="([^"]*)"[^>]*>([^<]*)<', select))


def answer(client, **changes):
    return client.post(PAGE, filled(**changes))


def submit(client, checked, button="_send"):
    return client.post(PAGE, carried_by(checked) | {button: "1"}, follow=True)


def send(client, button="_send", **changes):
    return submit(client, answer(client, **changes), button)


def times_of():
    return list(SmsMessage.objects.order_by("pk").values_list("send_after", flat=True))


def buttons(response):
    found = re.findall(r'<input type="submit"[^>]* value="([^"]*)"', response.content.decode())
    return [
        words
        for words in found
        if words not in ("Log out", "Back", "Save as draft", "Send a test to me")
    ]


def warnings(response):
    return [str(words) for words in response.context["warnings"]]


def moscow(text):
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Moscow"))


# --- presets


def test_the_times_that_are_offered_in_the_afternoon(boss):
    assert offered(boss) == {
        "now": "now",
        "hour": "in an hour",
        "2027-05-13T18:00": "today at 18:00",
        "2027-05-14T10:00": "tomorrow at 10:00",
        "2027-05-15T10:00": "on Saturday at 10:00",
        "2027-05-16T10:00": "on Sunday at 10:00",
        "2027-05-17T10:00": "on Monday at 10:00",
        "2027-05-18T10:00": "on Tuesday at 10:00",
        "2027-05-19T10:00": "on Wednesday at 10:00",
        "other": "at another time",
    }


@pytest.mark.parametrize("minutes, is_offered", [(200, True), (201, False), (400, False)])
def test_this_evening_is_offered_until_shortly_before(boss, at, minutes, is_offered):
    at.now = DAY.replace(second=0) + timedelta(minutes=minutes)  # 17:50 after 200 minutes
    assert ("2027-05-13T18:00" in offered(boss)) is is_offered


def test_days_are_those_of_the_current_time_zone(boss, at):
    at.now = NIGHT
    with override("America/New_York"):
        names = dict(compose_times.presets())
    assert names["2027-05-13T18:00"] == "today at 18:00"
    assert "2027-05-14T18:00" in offered(boss)  # it is after midnight in Moscow


@pytest.mark.parametrize(
    "when, expected",
    [
        ("hour", datetime(2027, 5, 13, 12, 30, tzinfo=timezone.utc)),
        ("2027-05-13T18:00", moscow("2027-05-13T18:00")),
        ("2027-05-17T10:00", moscow("2027-05-17T10:00")),
    ],
)
def test_a_preset_becomes_a_time(boss, when, expected):
    page = answer(boss, when=when)
    assert buttons(page)[0].startswith("Send at May")
    submit(boss, page)
    assert times_of() == [expected]


@pytest.mark.parametrize("when", ["now", ""])
def test_now_is_now(boss, when):
    assert buttons(answer(boss, when=when)) == ["Send now"]
    send(boss, when=when)
    assert len(outbox) == 1


def test_in_an_hour_does_not_move_between_the_pages(boss, at):
    page = answer(boss, when="hour")
    at.now += timedelta(minutes=20)
    again = boss.post(PAGE, carried_by(page))  # as with "Add as corrected and check again"
    at.now += timedelta(minutes=20)
    submit(boss, again)
    assert times_of() == [datetime(2027, 5, 13, 12, 30, tzinfo=timezone.utc)]


def test_in_an_hour_on_the_way_back_is_shown_as_its_time(boss, at):
    carried = carried_by(answer(boss, when="hour"))
    at.now += timedelta(minutes=20)
    page = boss.post(PAGE, carried | {"_back": "1"}).content.decode()
    assert '<option value="hour 2027-05-13T12:30Z" selected>05/13/2027 3:30 p.m.' in page


@pytest.mark.slow
def test_in_an_hour_checked_and_sent_twice_is_sent_once(boss, at):
    """The user goes back in the browser to the first page, and presses everything again."""
    send(boss, when="hour", numbers=TWO)
    at.now += timedelta(minutes=20)
    again = send(boss, when="hour", numbers=TWO)
    assert any("will not be sent again" in words for words in shown(again))
    assert SmsMessage.objects.count() == 2 and SmsMailing.objects.count() == 1


def test_tomorrow_is_the_same_day_after_midnight(boss, at):
    at.now = NIGHT - timedelta(hours=1)
    [tomorrow] = [value for value, words in offered(boss).items() if words.startswith("tomorrow")]
    at.now = NIGHT
    send(boss, when=tomorrow)
    assert times_of() == [moscow("2027-05-14T10:00")]


@pytest.mark.parametrize("when, hours", [("hour", 1.01), ("2027-05-13T18:00", 4)])
def test_a_page_that_is_sent_too_late_says_so(boss, at, when, hours):
    carried = carried_by(answer(boss, when=when))
    at.now += timedelta(hours=hours)
    page = boss.post(PAGE, carried | {"_send": "1"})
    assert errors(page) == {"when": ["This time has passed. Leave it empty to send now."]}
    assert not SmsMessage.objects.exists()


@pytest.mark.parametrize(
    "changes, field, words",
    [
        ({"send_at_0": "2027-05-20", "send_at_1": ""}, "send_at", "Enter the time, too."),
        ({"send_at_0": "", "send_at_1": "12:00"}, "send_at", "Enter the date, too."),
        ({"when": "other"}, "send_at", "Enter the date and the time."),
        ({"when": "yesterday"}, "when", "not one of the available choices"),
        ({"when": "hour 2027-13-01T00:00Z"}, "when", "not one of the available choices"),
        ({"when": "0001-01-01T00:00"}, "when", ""),
        ({"when": "9999-12-31T23:59"}, "when", ""),
        *(
            (
                {"when": when, "send_at_0": "2027-05-20", "send_at_1": "12:00"},
                "send_at",
                "Choose “at another time”",
            )
            for when in ("now", "hour", "2027-05-14T10:00")
        ),
        ({"spread": "5"}, "spread", "not one of the available choices"),
        ({"spread": "-1"}, "spread", "not one of the available choices"),
    ],
)
def test_what_contradicts_itself_is_refused(boss, changes, field, words):
    page = answer(boss, **changes)
    assert list(errors(page)) == [field] and words in errors(page)[field][0]


def test_another_time_is_the_one_that_is_typed(boss):
    send(boss, when="other", send_at_0="2027-05-20", send_at_1="12:15")
    assert times_of() == [moscow("2027-05-20T12:15")]


@pytest.mark.parametrize(
    "zone, value, expected",
    [
        ("Europe/Berlin", "2027-03-28T02:30", "2027-03-28T01:00"),  # it does not exist
        ("Europe/Berlin", "2027-10-31T02:30", "2027-10-31T00:30"),  # the first of two
        ("Pacific/Apia", "2011-12-30T10:00", "2011-12-30T10:00"),  # a day that was left out
        ("Asia/Pyongyang", "2018-05-04T23:45", "2018-05-04T15:00"),
        ("Antarctica/Troll", "2027-05-14T10:00", "2027-05-14T08:00"),
    ],
)
def test_a_time_that_a_clock_does_not_show_or_shows_twice(zone, value, expected):
    with override(zone):
        moment = compose_times.moment_of(value)
    assert moment == datetime.fromisoformat(expected).replace(tzinfo=timezone.utc)


def test_the_hour_that_comes_twice_is_carried_on(boss, at, settings):
    settings.TIME_ZONE = "Europe/Berlin"
    at.now = datetime(2027, 10, 31, 0, 15, tzinfo=timezone.utc)
    boss.force_login(boss.user)  # the session has ended since
    send(boss, when="hour")
    assert times_of() == [datetime(2027, 10, 31, 1, 15, tzinfo=timezone.utc)]


@pytest.mark.slow
def test_without_time_zones_the_presets_are_those_of_the_site(boss, at, settings):
    settings.USE_TZ, settings.TIME_ZONE = False, "Asia/Omsk"
    at.now = datetime(2027, 5, 13, 14, 30, 45)
    send(boss, when="hour")
    send(boss, when="2027-05-14T10:00", nonce="n2")
    assert times_of() == [datetime(2027, 5, 13, 15, 30), datetime(2027, 5, 14, 10)]


# --- spread


def test_messages_are_spread_over_hours(boss):
    page = answer(boss, numbers=many(4), when="2027-05-14T10:00", spread="2")
    words = page.content.decode()
    assert "From 05/14/2027 10 a.m. until 05/14/2027 11:30 a.m." in words
    assert buttons(page) == ["Send over these hours"]
    submit(boss, page)
    start = moscow("2027-05-14T10:00")
    assert times_of() == [start + timedelta(minutes=30 * index) for index in range(4)]
    lives = {one.expires_at - one.send_after for one in SmsMessage.objects.all()}
    assert lives == {timedelta(days=1)}
    assert SmsMailing.objects.get().send_after == start


def test_what_is_spread_from_now_on_goes_through_the_queue(boss):
    words = shown(send(boss, numbers=TWO, spread="1"))
    assert times_of() == [DAY, DAY + timedelta(minutes=30)] and not outbox
    assert "Queued to be sent from 05/13/2027 2:30 p.m. until 05/13/2027 3 p.m." in words[0]


def test_an_hour_has_its_length_in_each_night(boss, at, settings):
    settings.TIME_ZONE = "Europe/Berlin"
    at.now = datetime(2027, 3, 27, 12, tzinfo=timezone.utc)
    send(boss, numbers=TWO, send_at_0="2027-03-28", send_at_1="01:30", spread="4")
    first, second = times_of()
    assert second - first == timedelta(hours=2)


def test_a_spread_beyond_the_latest_time_is_refused(boss, settings):
    settings.SMSKA_MAX_AHEAD = 3600
    page = answer(boss, numbers=many(3), spread="4")
    assert list(errors(page)) == ["spread"] and "too far ahead" in errors(page)["spread"][0]


@pytest.mark.slow
def test_another_spread_of_the_same_form_sends_nothing_twice(boss):
    send(boss, numbers=TWO, spread="1")
    send(boss, numbers=TWO, spread="2")
    assert SmsMessage.objects.count() == 2


@pytest.mark.slow
@pytest.mark.parametrize("first, then", [("", "2027-05-14T10:00"), ("hour", ""), ("hour", "other")])
@pytest.mark.parametrize("numbers", [TWO, many(8)])
def test_another_time_of_the_same_form_sends_nothing_twice(boss, numbers, first, then):
    send(boss, numbers=numbers, when=first)
    stored = times_of()
    at = {"send_at_0": "2027-05-20", "send_at_1": "12:00"} if then == "other" else {}
    words = shown(send(boss, numbers=numbers, when=then, **at))
    assert times_of() == stored and "will not be sent again" in words[-1]


@pytest.mark.parametrize("spread", ["", "2"])
def test_drafts_of_the_form_leave_at_the_time_of_its_last_button(boss, spread):
    """Saved for now, and then sent for tomorrow, after Back."""
    send(boss, "_save", numbers=TWO)
    send(boss, numbers=TWO, when="2027-05-14T10:00", spread=spread)
    start = moscow("2027-05-14T10:00")
    assert times_of() == [start, start + timedelta(hours=1) if spread else start]
    assert set(SmsMessage.objects.values_list("status", flat=True)) == {"queued"}


def test_drafts_keep_their_times(boss):
    send(boss, "_save", numbers=TWO, when="2027-05-14T10:00", spread="2")
    SmsMailing.objects.get().resume()
    start = moscow("2027-05-14T10:00")
    assert times_of() == [start, start + timedelta(hours=1)]


# --- quiet hours


def test_at_night_the_page_offers_the_morning_first(boss, at, quiet):
    at.now = NIGHT
    page = answer(boss, numbers=many(3))
    assert buttons(page) == [OUTSIDE, ANYWAY]
    assert warnings(page)[:1] == [
        "Quiet hours: by the clocks of 3 recipients it is 12:30 a.m. then. Their messages leave "
        "at 05/14/2027 9:15 a.m., when they end."
    ]
    assert "When the quiet hours end." in page.content.decode()
    words = shown(submit(boss, page))
    assert not outbox and times_of() == [MORNING] * 3
    assert "3 messages wait until the quiet hours end." in words[0]
    mailing = SmsMailing.objects.get()
    assert (mailing.at_any_hour, mailing.send_after) == (False, MORNING)


def test_who_confirms_it_sends_at_night(boss, at, quiet):
    at.now = NIGHT
    send(boss, "_send_at_night", numbers=many(3))
    assert len(outbox) == 3


@pytest.mark.slow
def test_a_mailing_that_is_confirmed_leaves_at_night(boss, at, quiet):
    at.now = NIGHT
    send(boss, "_send_at_night", numbers=many(9))
    assert SmsMailing.objects.get().at_any_hour is True
    Worker().run_once()
    assert len(outbox) == 9


def test_the_page_after_a_correction_asks_again(boss, at, quiet):
    at.now = NIGHT
    page = answer(boss, numbers=many(3) + "\n8 904 176-49")
    corrected = carried_by(page) | {"corrected": "8 904 176-49-95", "_send_at_night": "1"}
    page = boss.post(PAGE, corrected)
    assert "4 recipients" in warnings(page)[0]
    assert buttons(page) == [OUTSIDE, ANYWAY] and not SmsMessage.objects.exists()


@pytest.mark.slow
def test_drafts_of_the_same_form_leave_at_night_too(boss, at, quiet):
    at.now = NIGHT
    page = answer(boss, numbers=many(9))
    submit(boss, page, "_save")
    submit(boss, page, "_send_at_night")
    assert SmsMailing.objects.get().at_any_hour is True
    Worker().run_once()
    assert len(outbox) == 9


def test_by_day_nothing_is_asked_and_the_mailing_heeds_the_next_night(boss, at, quiet):
    page = answer(boss, numbers=many(9))
    assert buttons(page) == ["Send now"] and "Quiet" not in str(warnings(page))
    submit(boss, page)
    assert SmsMailing.objects.get().at_any_hour is False
    at.now = NIGHT
    Worker().run_once()
    assert not outbox and set(times_of()) == {MORNING}


def test_a_page_of_the_evening_that_is_sent_at_night_waits_for_the_morning(boss, at, quiet):
    page = answer(boss, numbers=TWO)
    assert buttons(page) == ["Send now"]
    at.now = NIGHT
    words = shown(submit(boss, page))
    assert not outbox and "2 messages wait until the quiet hours end." in words[0]


def test_a_single_message_leaves_with_a_warning(boss, at, quiet):
    at.now = NIGHT
    page = answer(boss)
    assert warnings(page) == ["Quiet hours: by the recipient's clock it is 12:30 a.m. then."]
    assert buttons(page) == ["Send now"]
    submit(boss, page)
    assert len(outbox) == 1


def test_a_time_at_night_counts_as_the_present_does(boss, quiet):
    page = answer(boss, numbers=TWO, send_at_0="2027-05-14", send_at_1="03:10")
    assert buttons(page) == [OUTSIDE, ANYWAY] and "3:10 a.m. then" in warnings(page)[0]
    submit(boss, page)
    assert times_of() == [MORNING] * 2


def test_each_recipient_has_a_clock(boss, settings):
    settings.SMSKA_QUIET_HOURS = HOURS | {"time_zone": "tests.test_admin_compose_times.zone_of"}
    page = answer(boss, numbers=TWO)  # 14:30 in Moscow, 23:30 in Kamchatka
    assert "1 recipient it is 11:30 p.m. then" in warnings(page)[0]
    submit(boss, page)
    assert sorted(times_of()) == [DAY, datetime(2027, 5, 13, 21, 15, tzinfo=timezone.utc)]
    assert SmsMailing.objects.get().send_after is None  # one of them leaves now
    assert not outbox  # the other one, too, is for a worker


def test_the_page_asks_once_for_the_clock_of_each_recipient(boss, settings, monkeypatch):
    settings.SMSKA_QUIET_HOURS = HOURS | {"time_zone": "tests.test_admin_compose_times.zone_of"}
    asked = []
    monkeypatch.setattr("django_smska.quiet_hours.function_at", lambda path, takes: asked.append)
    answer(boss, numbers=many(7))
    assert len(asked) == len(set(asked)) == 7


def test_of_a_spread_only_the_night_is_put_off(boss, quiet):
    page = answer(boss, numbers=many(4), spread="12")  # 14:30, 17:30, 20:30 and 23:30
    assert "1 recipient it is 11:30 p.m. then" in warnings(page)[0]
    submit(boss, page)
    assert times_of() == [*(DAY + timedelta(hours=3 * index) for index in range(3)), MORNING]


def test_drafts_heed_the_quiet_hours(boss, at, quiet):
    at.now = NIGHT
    send(boss, "_save", numbers=many(7))
    mailing = SmsMailing.objects.get()
    assert mailing.at_any_hour is False
    mailing.resume()
    Worker().run_once()
    assert not outbox and set(times_of()) == {MORNING}


def test_switched_off_nothing_is_asked(boss, at):
    at.now = NIGHT
    assert buttons(answer(boss, numbers=TWO)) == ["Send now"]


def test_the_end_of_quiet_hours_may_not_be_too_far_ahead(boss, at, quiet, settings):
    settings.SMSKA_MAX_AHEAD = 3600
    at.now = NIGHT
    assert list(errors(answer(boss, numbers=TWO))) == ["when"]


def test_who_sees_no_numbers_does_not_find_the_do_not_send_list_there(client, at, quiet):
    user = User.objects.create_user("desk", is_staff=True)
    names = ["view_smsmessage", "send_smsmessage", "add_smsmessage"]
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(user)
    at.now = NIGHT
    before = answer(client, numbers=TWO)
    opt_out(TWO.split()[0])
    after = answer(client, numbers=TWO)
    assert warnings(before) == warnings(after) and "2 recipients" in warnings(after)[0]
    assert buttons(before) == buttons(after) == [OUTSIDE, ANYWAY]
    submit(client, after)
    assert times_of() == [MORNING]


# --- the page of a mailing


def mailing_page(client, mailing):
    return client.get(f"{MAILINGS}{mailing.pk}/change/").context["waiting"]


def test_the_page_of_a_mailing_says_that_it_waits_for_the_morning(boss, at, quiet):
    at.now = NIGHT
    mailing = send_mass_sms(
        [(one, "Sale") for one in many(5).split()],
        mailing=SmsMailing(name="Spring", at_any_hour=False),
    ).mailing
    assert mailing_page(boss, mailing) == ("", "")  # due, and no worker has looked yet
    Worker().run_once()
    assert mailing_page(boss, mailing) == ("Waits until 9:15 a.m.: quiet hours.", "")
    response = boss.get(f"{MAILINGS}{mailing.pk}/progress/")
    assert "Waits until 9:15 a.m.: quiet hours." in response.content.decode()


def test_right_after_the_evening_no_time_left_is_shown(boss, at, quiet):
    mailing = send_mass_sms(
        [(one, "Sale") for one in many(40).split()],
        mailing=SmsMailing(name="Spring", at_any_hour=False),
    ).mailing
    at.now = datetime(2027, 5, 13, 18, 29, 40, tzinfo=timezone.utc)
    mailing_page(boss, mailing)
    gone = list(SmsMessage.objects.values_list("pk", flat=True)[:10])
    SmsMessage.objects.filter(pk__in=gone).update(status="sent")
    at.now += timedelta(seconds=15)
    assert mailing_page(boss, mailing).time_left == "about 1 minute left"
    at.now += timedelta(seconds=15)
    Worker().run_once()
    assert mailing_page(boss, mailing) == ("Waits until 05/14/2027 9:15 a.m.: quiet hours.", "")


def test_while_the_provider_is_paused_no_time_left_is_shown(boss, at):
    rows = [(one, "Sale") for one in many(40).split()]
    mailing = send_mass_sms(rows, mailing="Spring", using="default").mailing
    mailing_page(boss, mailing)
    gone = list(SmsMessage.objects.values_list("pk", flat=True)[:10])
    SmsMessage.objects.filter(pk__in=gone).update(status="sent")
    at.now += timedelta(seconds=15)
    assert mailing_page(boss, mailing).time_left == "about 1 minute left"
    paused = {"reason": "funds", "paused_at": at.now, "probe_at": at.now + timedelta(hours=1)}
    ProviderState.objects.create(alias="default", **paused)
    assert mailing_page(boss, mailing) == ("", "")


@pytest.mark.slow
def test_of_a_spread_mailing_the_last_message_gives_the_time_left(boss, at):
    send(boss, numbers=many(24), spread="4")
    mailing = SmsMailing.objects.get()
    mailing_page(boss, mailing)
    at.now += timedelta(seconds=30)
    SmsMessage.objects.filter(send_after=DAY).update(status="sent")
    assert mailing_page(boss, mailing).words == "Next message: 2:40 p.m."
    at.now += timedelta(minutes=10)
    assert mailing_page(boss, mailing).words == ""


# --- a stopped mailing goes on


def stopped(client, at_any_hour=False):
    pairs = [(one, "Sale") for one in many(3).split()]
    mailing = SmsMailing(name="Spring", at_any_hour=at_any_hour)
    mailing = send_mass_sms(pairs, mailing=mailing).mailing
    client.post(f"{MAILINGS}{mailing.pk}/stop/")
    return mailing


def ask(client, mailing, action="resume"):
    return client.get(f"{MAILINGS}{mailing.pk}/{action}/")


def go_on(client, mailing, asked, **button):
    fields = {"state": asked.context["state"]} | button
    return client.post(f"{MAILINGS}{mailing.pk}/resume/", fields, follow=True)


WAITS = (
    "Quiet hours: by the clocks of 3 recipients it is 12:30 a.m. then. Their messages leave "
    "at 05/14/2027 9:15 a.m., when they end."
)


class TestAStoppedMailingGoesOnAtNight:
    def test_the_page_says_that_it_waits_and_offers_the_night(self, boss, at, quiet):
        mailing = stopped(boss)
        at.now = NIGHT
        asked = ask(boss, mailing)
        assert warnings(asked)[0] == WAITS
        assert buttons(asked) == ["Yes: Let the mailing go on", ANYWAY]
        words = shown(go_on(boss, mailing, asked))
        assert words[0] == "Queued: 3 messages. 3 messages wait until the quiet hours end."
        Worker().run_once()
        assert not outbox and times_of() == [MORNING] * 3

    def test_who_chooses_the_night_sends_at_night(self, boss, at, quiet):
        mailing = stopped(boss)
        at.now = NIGHT
        words = shown(go_on(boss, mailing, ask(boss, mailing), _send_at_night="1"))
        assert words[0] == "Queued: 3 messages."
        Worker().run_once()
        assert len(outbox) == 3

    def test_what_was_put_off_before_it_was_stopped_leaves_too(self, boss, at, quiet, settings):
        settings.SMSKA_QUIET_HOURS = {
            **HOURS,
            "time_zone": "tests.test_admin_compose_times.zone_of",
        }
        at.now = NIGHT
        send(boss, numbers=many(9))
        assert len(set(times_of())) == 2  # in the east and in Moscow
        mailing = SmsMailing.objects.get()
        boss.post(f"{MAILINGS}{mailing.pk}/stop/")
        go_on(boss, mailing, ask(boss, mailing), _send_at_night="1")
        Worker().run_once()
        assert len(outbox) == 9

    def test_what_a_person_put_to_a_later_time_keeps_it(self, boss, at, quiet):
        later = MORNING + timedelta(hours=5)
        mailing = stopped(boss)
        SmsMessage.objects.update(send_after=later)
        at.now = NIGHT
        asked = ask(boss, mailing)
        assert "Quiet" not in str(warnings(asked)) and ANYWAY not in buttons(asked)
        go_on(boss, mailing, asked, _send_at_night="1")
        Worker().run_once()
        assert not outbox and times_of() == [later] * 3

    @pytest.mark.parametrize("now, at_any_hour", [(DAY, False), (NIGHT, True)])
    def test_nothing_is_said_where_nothing_waits(self, boss, at, quiet, now, at_any_hour):
        mailing = stopped(boss, at_any_hour)
        at.now = now
        asked = ask(boss, mailing)
        assert "Quiet" not in str(warnings(asked))
        assert buttons(asked) == ["Yes: Let the mailing go on"]

    def test_writing_again_to_those_that_failed_says_that_it_waits(self, boss, at, quiet):
        mailing = send_mass_sms(
            [(one, "Sale") for one in many(3).split()],
            mailing=SmsMailing(name="Spring", at_any_hour=False),
        ).mailing
        SmsMessage.objects.update(status="failed")
        at.now = NIGHT
        asked = ask(boss, mailing, "resend")
        assert warnings(asked)[0] == WAITS and ANYWAY not in buttons(asked)

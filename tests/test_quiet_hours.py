"""Mailings do not leave in the quiet hours of their recipients."""

import logging
import threading
from collections import Counter
from datetime import datetime, time, timedelta, timezone

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_smska import clock, conf, jobs, monotonic, quiet_hours, sending
from django_smska.models import ProviderState, SmsMailing, SmsMessage, rows
from django_smska.sms import queue_sms, send_code, send_mass_sms
from django_smska.testing.gateway import Fault
from django_smska.worker import Worker

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

HOURS = {"from": "22:00", "until": "08:30", "time_zone": "Asia/Yekaterinburg"}
#: Yekaterinburg is five hours ahead of UTC, Kamchatka twelve.
EVENING = datetime(2027, 3, 10, 16, 59, 57, tzinfo=timezone.utc)
NIGHT = datetime(2027, 3, 10, 19, 40, tzinfo=timezone.utc)
MORNING = datetime(2027, 3, 11, 3, 30, tzinfo=timezone.utc)
EAST = "+79240000000"
EAST_ENDS = datetime(2027, 3, 10, 20, 30, tzinfo=timezone.utc)


def zone_of(number):
    if number.endswith("13"):
        raise LookupError(number)
    if number.endswith("14"):
        return "Mars/Olympus"
    if number.endswith("15"):
        return ["Asia/Omsk"]
    return "Asia/Kamchatka" if number.startswith("+7924") else None


not_callable = 7


@pytest.fixture(autouse=True)
def quiet(settings, monkeypatch):
    settings.SMSKA_QUIET_HOURS = HOURS
    settings.SMSKA_HOLD_AFTER = None  # the clock jumps over hours
    monkeypatch.setattr(quiet_hours, "_warned", {})


@pytest.fixture
def at(monkeypatch):
    """A clock that the test sets."""

    class Clock:
        now = NIGHT

    ours = Clock()
    monkeypatch.setattr(clock, "now", lambda: ours.now)
    monkeypatch.setattr("django.utils.timezone.now", lambda: ours.now)
    monkeypatch.setattr("django_smska.times.now", lambda: ours.now)
    return ours


def numbers(many, first=0):
    return [f"+7912{n:07}" for n in range(first, first + many)]


def mail(who, at_any_hour=False, **more):
    mailing = SmsMailing(name="Spring", at_any_hour=at_any_hour)
    more = {"send_after": clock.now(), **more}
    messages = [SmsMessage(to=one, body=f"Sale {one[-4:]}", **more) for one in who]
    return send_mass_sms(messages, mailing=mailing).mailing


def statuses():
    return Counter(rows().order_by().values_list("status", flat=True))


def state():
    """What a message in the queue shows of an attempt."""
    found = rows().order_by().values_list("status", "send_after", "attempts", "token")
    return Counter(found)


# --- when it is quiet


def hours(start, until, zone="Europe/Moscow"):
    return conf.QuietHours(time.fromisoformat(start), time.fromisoformat(until), zone)


def moment(text):
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "start, until, zone, now, end",
    [
        ("21:00", "09:00", "Europe/Moscow", "2027-03-10T17:59:59", None),
        ("21:00", "09:00", "Europe/Moscow", "2027-03-10T18:00", "2027-03-11T06:00"),
        ("21:00", "09:00", "Europe/Moscow", "2027-03-11T05:59:59", "2027-03-11T06:00"),
        ("21:00", "09:00", "Europe/Moscow", "2027-03-11T06:00", None),
        # Within a day.
        ("13:15", "14:45", "Asia/Kolkata", "2027-03-10T07:44", None),
        ("13:15", "14:45", "Asia/Kolkata", "2027-03-10T07:45", "2027-03-10T09:15"),
        ("13:15", "14:45", "Asia/Kolkata", "2027-03-10T09:15", None),
        # Midnight is an end like others.
        ("20:00", "00:00", "UTC", "2027-03-10T23:59", "2027-03-11T00:00"),
        ("00:00", "06:00", "UTC", "2027-03-10T00:00", "2027-03-10T06:00"),
        # The clock of Berlin is set forward at 1:00 UTC, and back at 1:00 UTC.
        ("22:00", "08:00", "Europe/Berlin", "2027-03-27T23:30", "2027-03-28T06:00"),
        ("22:00", "08:00", "Europe/Berlin", "2027-10-30T23:30", "2027-10-31T07:00"),
        # The end does not exist: 2:20 is jumped over.
        ("22:00", "02:20", "Europe/Berlin", "2027-03-28T00:59", "2027-03-28T01:00"),
        # The end comes twice, and so do the quiet minutes before it.
        ("22:00", "02:20", "Europe/Berlin", "2027-10-31T00:10", "2027-10-31T00:20"),
        ("22:00", "02:20", "Europe/Berlin", "2027-10-31T00:30", None),
        ("22:00", "02:20", "Europe/Berlin", "2027-10-31T01:10", "2027-10-31T01:20"),
        # Lord Howe sets its clock by half an hour.
        ("22:00", "02:15", "Australia/Lord_Howe", "2027-10-02T15:20", "2027-10-02T15:30"),
        # Samoa left out a day.
        ("22:00", "08:00", "Pacific/Apia", "2011-12-30T09:00", "2011-12-30T18:00"),
    ],
)
def test_whether_it_is_quiet_and_until_when(start, until, zone, now, end):
    found = quiet_hours.end_of(moment(now), zone, hours(start, until))
    assert found == (None if end is None else moment(end))


@pytest.mark.parametrize(
    "start, until, zone, now, begins",
    [
        ("21:00", "09:00", "Europe/Moscow", "2027-03-10T06:00", "2027-03-10T18:00"),
        ("13:15", "14:45", "Asia/Kolkata", "2027-03-10T09:15", "2027-03-11T07:45"),
        # Its begin does not exist.
        ("02:20", "05:00", "Europe/Berlin", "2027-03-27T12:00", "2027-03-28T01:00"),
        # The clock jumps over all of it, so that there are none in that night.
        ("02:20", "02:40", "Europe/Berlin", "2027-03-27T12:00", "2027-03-29T00:20"),
    ],
)
def test_when_the_next_ones_begin(start, until, zone, now, begins):
    assert quiet_hours.start_after(moment(now), zone, hours(start, until)) == moment(begins)


def test_without_time_zones_times_are_those_of_the_site(settings):
    settings.USE_TZ, settings.TIME_ZONE = False, "Asia/Omsk"
    end = quiet_hours.end_of(
        datetime(2027, 3, 10, 23, 10), "Asia/Vladivostok", hours("21:00", "09:00")
    )
    assert end == datetime(2027, 3, 11, 5, 0)  # Vladivostok is four hours ahead of Omsk


# --- the setting


def test_the_default_is_the_night_of_moscow(settings):
    del settings.SMSKA_QUIET_HOURS
    assert conf.quiet_hours() == hours("21:00", "09:00")


def test_what_is_left_out_has_its_default(settings):
    settings.SMSKA_QUIET_HOURS = {"until": "10:30"}
    assert conf.quiet_hours() == hours("21:00", "10:30")


@pytest.mark.parametrize(
    "value, words",
    [
        ("21:00", "must be a dict, or None"),
        ({"to": "09:00"}, "'to' is not one of 'from', 'until', 'time_zone'"),
        ({"from": "9 pm"}, "'from' must be a time such as \"21:00\", not '9 pm'"),
        ({"until": "24:00"}, "'until' must be a time"),
        ({"from": 21}, "'from' must be a time"),
        ({"from": "07:00", "until": "07:00"}, "'from' and 'until' are the same time"),
        ({"time_zone": "Moscow"}, "'time_zone' must be the name of a zone"),
        ({"time_zone": "Europe"}, "'time_zone' must be the name of a zone"),
        ({"time_zone": "../etc/passwd"}, "'time_zone' must be the name of a zone"),
        ({"time_zone": None}, "'time_zone' must be the name of a zone"),
    ],
)
def test_a_wrong_setting_is_refused(settings, value, words):
    settings.SMSKA_QUIET_HOURS = value
    with pytest.raises(ImproperlyConfigured, match="SMSKA_QUIET_HOURS") as caught:
        conf.quiet_hours()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "path, words",
    [
        ("tests.test_quiet_hours.zone_of", None),
        ("tests.test_quiet_hours.nothing", "does not define"),
        ("no.such.module", "No module"),
        ("tests.test_quiet_hours.not_callable", "cannot be called with one: "),
        ("tests.raises_at_import.zone_of", "its module raised"),
    ],
)
def test_a_check_looks_at_the_function(settings, path, words):
    settings.SMSKA_QUIET_HOURS = {"time_zone": path}
    found = [one.msg for one in run_checks(tags=["sms"], databases=[]) if one.id == "smska.E014"]
    assert (words is None) == (not found) and all(words in one for one in found)


# --- the zones of numbers


def zones(who, path="tests.test_quiet_hours.zone_of"):
    return quiet_hours.zones(who, conf.quiet_hours.read({"time_zone": path}))


def test_a_function_knows_the_zones_of_numbers():
    assert zones([EAST, "+79120000001"]) == {
        EAST: "Asia/Kamchatka",
        "+79120000001": "Europe/Moscow",
    }


@pytest.mark.parametrize(
    "end, words",
    [
        ("13", "raised LookupError"),
        ("14", "returned what is no time zone"),
        ("15", "raised TypeError"),
    ],
)
def test_a_function_that_fails_counts_as_the_default_and_is_logged_once(caplog, end, words):
    who = [f"+792400000{end}", f"+792400001{end}", EAST]
    with caplog.at_level(logging.WARNING, "django_smska"):
        assert list(zones(who).values()) == ["Europe/Moscow"] * 2 + ["Asia/Kamchatka"]
        zones(who)
    [line] = caplog.messages
    assert words in line and "+7924" not in line and "Mars" not in line


def test_it_is_logged_again_after_an_hour(caplog, monkeypatch):
    for hour in (0, 0.9, 1.1):
        monkeypatch.setattr(monotonic, "now", lambda hour=hour: hour * 3600)
        zones(["+79240000013"])
    assert len(caplog.messages) == 2


def test_a_function_that_is_missing_counts_as_the_default(caplog):
    assert zones([EAST], "no.such.function") == {EAST: "Europe/Moscow"}
    assert len(caplog.messages) == 1 and "cannot be used" in caplog.messages[0]


# --- the engine


def test_what_comes_due_at_night_leaves_in_the_morning(provider, at):
    mail(numbers(5))
    assert not +Worker().run_once()
    assert (state(), provider.sends) == ({("queued", MORNING, 0, ""): 5}, 0)
    at.now = MORNING - timedelta(seconds=1)
    Worker().run_once()
    assert provider.sends == 0
    at.now = MORNING
    Worker().run_once()
    assert (statuses(), provider.sends) == ({"sent": 5}, 5)


def test_all_others_leave_at_night(provider, at):
    mail(numbers(2), at_any_hour=True)
    send_mass_sms([(one, "Closed") for one in numbers(2, 40)], mailing="Water pipe burst")
    queue_sms("+79120000080", "Your taxi is here")
    send_code("+79120000090", "Code 1234", code="1234")
    Worker().run_once()
    assert statuses() == {"sent": 6}


def test_without_the_setting_all_leave(provider, at, settings):
    settings.SMSKA_QUIET_HOURS = None
    mail(numbers(2))
    Worker().run_once()
    assert statuses() == {"sent": 2}


def test_each_recipient_has_a_night_of_its_own(provider, at, settings):
    settings.SMSKA_QUIET_HOURS = HOURS | {"time_zone": "tests.test_quiet_hours.zone_of"}
    at.now = datetime(2027, 3, 10, 14, 5, tzinfo=timezone.utc)  # 17:05 in Moscow, 2:05 in Kamchatka
    mail([EAST, *numbers(2)])
    Worker().run_once()
    assert statuses() == {"sent": 2, "queued": 1}
    assert rows().get(status="queued").to == EAST
    assert rows().get(status="queued").send_after == EAST_ENDS


def test_what_was_claimed_right_before_does_not_leave_after(provider, at):
    mail(numbers(2))
    at.now = EVENING
    rows().update(send_after=EVENING)
    claimed = sending.claim(rows().order_by("pk"), at.now)
    assert len(claimed) == 2
    at.now += timedelta(seconds=5)
    assert sending.mark_sending(claimed) == set()
    sending.release(claimed)
    Worker().run_once()
    assert (state(), provider.sends) == ({("queued", MORNING, 0, ""): 2}, 0)


def test_of_two_messages_that_ask_the_one_of_the_mailing_does_not_begin(provider, at):
    """The other one's outcome is recorded in the same statement."""
    mail(numbers(1))
    other = queue_sms("+79120000080", "Your taxi is here")
    at.now = EVENING
    rows().update(send_after=EVENING)
    claimed = sending.claim(rows().order_by("pk"), at.now)
    at.now += timedelta(seconds=5)
    assert {claim.pk for claim in sending.mark_sending(claimed)} == {other.pk}


def test_a_retry_waits_too(provider, at):
    """The gateway says "not now" in the evening; the next attempt would come at night."""
    at.now = EVENING
    mail(numbers(1))
    provider.script(1, Fault("sent_error"))
    Worker().run_once()
    assert state() == {("queued", rows().get().send_after, 1, ""): 1}
    at.now = NIGHT
    Worker().run_once()
    assert state() == {("queued", MORNING, 1, ""): 1}


def test_what_a_crashed_worker_held_waits_too(provider, at):
    at.now = EVENING
    mail(numbers(3))
    sending.claim(rows(), at.now)
    at.now = NIGHT
    Worker().run_once()
    assert state() == {("queued", MORNING, 0, ""): 3}


def test_what_goes_on_at_night_waits_for_the_morning(provider, at):
    at.now = EVENING
    mailing = mail(numbers(3))
    mailing.stop()
    at.now = NIGHT
    mailing.resume()
    Worker().run_once()
    assert state() == {("queued", MORNING, 0, ""): 3}


def test_a_person_sends_one_of_them_all_the_same(provider, at):
    mail(numbers(2))
    rows().order_by("pk").first().send()
    assert statuses() == {"sent": 1, "queued": 1}


def test_a_lifetime_of_the_site_begins_in_the_morning(at, provider, settings):
    """That of those that were claimed, of those that were not, and of one that was tried."""
    settings.SMSKA_EXPIRES_AFTER = 4 * 3600
    mail(numbers(300))
    tried = rows().order_by("pk")[0]
    rows([tried.pk]).update(attempts=1, send_after=NIGHT - timedelta(seconds=30))
    rows().update(created_at=NIGHT)
    Worker().run_once()
    every = rows().values_list("status", "send_after", "expires_at")
    assert Counter(every) == {("queued", MORNING, MORNING + timedelta(hours=4)): 300}


def test_a_lifetime_of_the_site_that_outlasts_the_night_stays(at, provider):
    mail(numbers(2))
    Worker().run_once()
    assert set(rows().values_list("expires_at")) == {(NIGHT + conf.expires_after(),)}


def test_what_was_put_off_and_stopped_gets_a_new_lifetime(at, provider):
    """It leaves days later, as what was stopped before the night does."""
    mailing = mail(numbers(3))
    rows().update(created_at=NIGHT)
    Worker().run_once()
    mailing.stop()
    at.now = MORNING + timedelta(days=2)
    mailing.resume()
    Worker().run_once()
    assert statuses() == {"sent": 3}


def test_what_a_late_worker_put_off_and_was_stopped_gets_one_too(at, provider):
    """It was planned for long after it was made, for an evening on which no worker ran."""
    evening = NIGHT + timedelta(days=4, hours=-4)
    mailing = mail(numbers(3), send_after=evening)
    rows().update(created_at=NIGHT - timedelta(days=1))
    at.now = evening + timedelta(hours=5)
    Worker().run_once()
    assert set(rows().values_list("send_after")) == {(MORNING + timedelta(days=4),)}
    mailing.stop()
    at.now = MORNING + timedelta(days=9)
    mailing.resume()
    Worker().run_once()
    assert statuses() == {"sent": 3}


def test_a_time_of_the_caller_that_is_like_the_site_s_is_the_caller_s(at, provider):
    end = NIGHT + timedelta(hours=3)
    start = end - conf.expires_after()
    mail(numbers(2), send_after=start, expires_at=end)
    Worker().run_once()
    assert set(rows().values_list("expires_at")) == {(end,)}


def test_a_lifetime_of_the_site_may_begin_in_a_second_morning(at, provider):
    mail(numbers(3))
    rows().update(created_at=NIGHT)
    Worker().run_once()
    at.now = NIGHT + timedelta(hours=23)
    Worker().run_once()
    morning = MORNING + timedelta(days=1)
    every = rows().values_list("send_after", "expires_at")
    assert Counter(every) == {(morning, morning + conf.expires_after()): 3}


@pytest.mark.parametrize("attempts", [0, 1])
def test_a_time_of_the_caller_stays_and_passes_unsent(at, provider, attempts):
    """Those that were claimed, and those that were not."""
    end = NIGHT + timedelta(hours=2)
    mail(numbers(300), expires_at=end)
    rows().update(attempts=attempts)
    Worker().run_once()
    assert Counter(rows().values_list("send_after", "expires_at")) == {(MORNING, end): 300}
    at.now = end
    Worker().run_once()
    assert set(rows().values_list("status", "error_code")) == {("failed", "expired")}
    at.now = MORNING
    Worker().run_once()
    assert provider.sends == 0


def test_one_claim_puts_off_a_thousand_and_others_behind_them_leave(provider, at, monkeypatch):
    mail(numbers(2500))
    queue_sms("+79130000001", "Your taxi is here", priority=-5)
    claims, claim = [], sending.claim
    monkeypatch.setattr(sending, "claim", lambda *args: claims.append(1) or claim(*args))
    Worker(concurrency=2).run_once()
    assert statuses() == {"queued": 2500, "sent": 1}
    assert not rows().filter(status="queued").exclude(send_after=MORNING).exists()
    assert len(claims) < 10


def test_what_is_held_is_not_put_off(at, provider):
    mail(numbers(4))
    held = rows().order_by("pk")[:2]
    rows(one.pk for one in held).update(send_after=NIGHT - timedelta(hours=1))
    ProviderState.objects.create(alias="default", held_before=NIGHT - timedelta(minutes=30))
    ProviderState.objects.update(worker_seen_at=NIGHT)
    Worker().run_once()
    assert sorted(rows().values_list("send_after", flat=True)) == [
        *[NIGHT - timedelta(hours=1)] * 2,
        *[MORNING] * 2,
    ]


def test_two_workers_at_once_put_each_off_once(provider, at):
    mail(numbers(600))
    errors = []

    def work():
        try:
            Worker(concurrency=4).run_once()
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (errors, state(), provider.sends) == ([], {("queued", MORNING, 0, ""): 600}, 0)
    at.now = MORNING
    Worker().run_once()
    assert (statuses(), provider.sends) == ({"sent": 600}, 600)


def test_a_claim_of_others_asks_for_nothing(at):
    queue_sms("+79130000001", "Your taxi is here")
    with CaptureQueriesContext(connection) as queries:
        sending.claim(rows(), at.now)
    assert "at_any_hour" not in str(queries.captured_queries)


def test_a_task_engine_gets_them_again_for_the_morning(provider, at, settings, monkeypatch):
    given = []
    monkeypatch.setattr(
        "django_smska.handover.function_at",
        lambda path, takes: lambda pks, at: given.append((pks, at)),
    )
    settings.SMSKA_ENQUEUE = "shop.tasks.enqueue"
    mail(numbers(130))
    tasks, given[:] = given[:], []
    assert [(len(pks), moment) for pks, moment in tasks] == [(64, None), (64, None), (2, None)]
    jobs.send_queued(tasks[0][0])
    assert [(sorted(pks), moment) for pks, moment in given] == [(tasks[0][0], MORNING)]
    # The others wait for their own tasks.
    assert rows().filter(send_after=MORNING).count() == 64
    at.now = MORNING
    assert jobs.send_queued(tasks[0][0]) == {"sent": 64}


def test_a_slow_function_is_asked_for_a_while_and_others_are_given_back(at, settings, monkeypatch):
    """Its claim does not outlive its lease, and outcomes do not wait for it."""
    settings.SMSKA_QUIET_HOURS = HOURS | {"time_zone": "tests.test_quiet_hours.zone_of"}
    seconds = iter(range(10_000))
    monkeypatch.setattr(
        quiet_hours, "function_at", lambda path, takes: lambda to: next(seconds) and None
    )
    monkeypatch.setattr(monotonic, "now", lambda: float(next(seconds)))
    mail(numbers(20))
    claimed = sending.claim(rows().order_by("pk"), at.now)
    assert (len(claimed), claimed.put_off) == (0, 20)
    moscow_ends = datetime(2027, 3, 11, 5, 30, tzinfo=timezone.utc)
    assert state() == {("queued", moscow_ends, 0, ""): 2, ("queued", NIGHT, 0, ""): 18}


def test_even_the_slowest_function_is_asked_for_one(settings, monkeypatch):
    hours = conf.quiet_hours.read({"time_zone": "tests.test_quiet_hours.zone_of"})
    assert quiet_hours.zones([EAST, "+79120000001"], hours, until=monotonic.now() - 1) == {
        EAST: "Asia/Kamchatka"
    }


def test_many_that_are_put_off_do_not_keep_other_providers_waiting(
    provider, at, monkeypatch, settings
):
    settings.SMS_PROVIDERS["backup"] = settings.SMS_PROVIDERS["default"]
    monkeypatch.setattr("django_smska.dispatcher.TIME_SLICE_SECONDS", 0)
    monkeypatch.setattr("django_smska.night.MAX_PUT_OFF", 20)
    mail(numbers(200))
    queue_sms("+79120000080", "Your taxi is here", using="backup")
    waiting = []
    attempt = sending.attempt

    def counted(*args):
        waiting.append(rows().filter(send_after=NIGHT).count())
        connection.close()  # of a thread
        return attempt(*args)

    monkeypatch.setattr(sending, "attempt", counted)
    Worker(concurrency=2).run_once()
    assert waiting and waiting[0] > 100
    assert not rows().filter(send_after=NIGHT, status="queued").exists()


def test_a_wrong_setting_claims_nothing(at, settings):
    mail(numbers(2))
    settings.SMSKA_QUIET_HOURS = {"from": "9 pm"}
    with pytest.raises(ImproperlyConfigured):
        sending.claim(rows(), at.now)
    assert state() == {("queued", NIGHT, 0, ""): 2}


def test_a_worker_in_the_night_does_not_spin(provider, at):
    mail(numbers(3))
    worker = Worker()
    worker.run_once()
    assert worker.next_in is None
    with CaptureQueriesContext(connection) as queries:
        worker.run_once()
    assert not [one for one in queries.captured_queries if one["sql"].startswith("UPDATE")]

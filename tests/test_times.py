"""Times beyond what a database, a time zone or the calendar can hold."""

from contextlib import suppress
from datetime import datetime, timedelta, timezone

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils.timezone import now

from django_smska import conf, sending
from django_smska.models import ProviderState, SmsDay, SmsMessage, rows
from django_smska.sms import queue_sms, send_mass_sms, send_sms
from django_smska.times import FIRST, LAST
from django_smska.worker import Worker

pytestmark = pytest.mark.django_db

LIST = "/admin/django_smska/smsmessage/"
TABLE = SmsMessage._meta.db_table
TO = "+79041764995"
DAY = timedelta(days=1)
TIMES = [
    field.attname
    for field in SmsMessage._meta.concrete_fields
    if field.get_internal_type() == "DateTimeField"
]
UNREADABLE = {
    "sqlite": ["never", "2026-02-31 00:00:00", "9999-12-31 23:59:59.999999", "", 5, b"x"],
    "postgresql": ["10000-01-01", "infinity", "-infinity", "0044-01-01 BC", "9999-12-31 23:59"],
    "mysql": ["0000-00-00 00:00:00", "2026-02-31 00:00:00", "9999-12-31 23:59:59.999999"],
}[connection.vendor]
ENDS = [datetime.min, datetime.max, datetime(1, 1, 1, 23), datetime(9999, 12, 31)]


@pytest.fixture
def boss(client):
    client.force_login(User.objects.create_superuser("boss"))
    return client


@pytest.fixture
def write():
    """Write what Django would not, by SQL, and read it in the same SQL mode."""
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute("SELECT @@SESSION.sql_mode")
            [usual] = cursor.fetchone()
            cursor.execute("SET SESSION sql_mode = 'ALLOW_INVALID_DATES'")
        yield lambda pk, name, value: cursor.execute(
            f"UPDATE {TABLE} SET {name} = %s WHERE id = %s", [value, pk]
        )
        if connection.vendor == "mysql":
            cursor.execute("SET SESSION sql_mode = %s", [usual])


def make(status="draft", **values):
    message = SmsMessage(to=TO, body="The text")
    message.save()
    values = {"status": status, "expires_at": now() + DAY, "lease_until": now() + DAY} | values
    rows([message.pk]).update(**values)
    return message


# --- rows that are there already


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "bad"),
    [*((TIMES, bad) for bad in UNREADABLE), *(([name], UNREADABLE[0]) for name in TIMES)],
)
def test_a_time_that_cannot_be_read_ends_no_page_and_no_pass(boss, write, names, bad, settings):
    """Neither its own row's page nor those that show others beside it."""
    settings.SMSKA_HOLD_AFTER = 0  # the year 0 is long ago
    others = [make(status) for status in ("draft", "sent", "delivered")]
    for status in ("draft", "queued", "sent", "failed", "unknown"):
        message = make(status, sent_at=now(), finished_at=now(), gateway_id="17")
        for name in names:
            write(message.pk, name, bad)
    pks = list(rows().values_list("pk", flat=True))
    page = boss.get(LIST)
    assert page.status_code == 200 and len(page.context["cl"].result_list) == len(pks)
    for pk in pks:
        assert boss.get(f"{LIST}{pk}/change/").status_code == 200
        assert boss.get(f"{LIST}{pk}/history/").status_code == 200
    assert boss.get(f"{LIST}statistics/").status_code == 200
    assert boss.get(f"{LIST}?needs=attention").status_code == 200
    joined = ",".join(map(str, pks))
    for action in ("send", "refresh", "resend", "cancel", "confirm_sent", "export"):
        assert boss.get(f"{LIST}{action}/?pks={joined}").status_code == 200
    file = b"".join(boss.post(f"{LIST}export/", {"pks": joined}).streaming_content)
    assert file.count(b"\r\n") == len(pks) + 1
    queue_sms(TO, "Another")
    assert Worker().run_once()["sent"] >= 1
    call_command("sms_prune")
    with suppress(CommandError):  # which says that something needs attention
        call_command("sms_status")
    assert rows([one.pk for one in others]).count() == len(others)


@pytest.mark.parametrize("bad", UNREADABLE, ids=repr)
def test_a_provider_whose_times_cannot_be_read_ends_no_page(boss, write, bad):
    ProviderState.objects.create(alias="default", balance=5, reason="funds")
    names = [
        field.attname
        for field in ProviderState._meta.concrete_fields
        if field.get_internal_type() == "DateTimeField"
    ]
    with connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"UPDATE {ProviderState._meta.db_table} SET {name} = %s", [bad])
    message = make()
    assert boss.get(LIST).status_code == 200
    assert boss.get(f"{LIST}send/?pks={message.pk}").status_code == 200
    assert boss.get("/admin/django_smska/providerstate/").status_code == 200
    assert boss.get("/admin/django_smska/providerstate/default/change/").status_code == 200


def test_usual_times_are_read_to_the_microsecond():
    """Compare-and-set over a loaded time must find its row."""
    for at in (now(), now().replace(microsecond=0), FIRST, LAST, FIRST + timedelta(microseconds=1)):
        message = make(sent_at=at)
        assert rows().get(pk=message.pk).sent_at == at
    assert rows().values_list("created_at").distinct().order_by("-created_at").count() == 5
    assert len(rows().values_list("created_at", flat=True).distinct().order_by("created_at")) == 5


def test_a_day_long_ago_does_not_make_the_statistics_count_every_day_since(write):
    message = make("delivered", sent_at=now(), finished_at=now())
    bad = {"sqlite": "0001-01-01 00:00:00", "postgresql": "-infinity"}
    write(message.pk, "created_at", bad.get(connection.vendor, "0000-00-00 00:00:00"))
    make()
    call_command("sms_prune")
    assert SmsDay.objects.count() == 1


# --- what is not stored any more


def test_a_sending_can_be_put_off_by_a_year_and_the_setting_says_how_long(settings):
    assert conf.max_ahead() == 366 * DAY
    queue_sms(TO, "x", send_after=now() + 365 * DAY)
    settings.SMSKA_MAX_AHEAD = 3600
    queue_sms(TO, "x", send_after=now() + timedelta(minutes=59))
    with pytest.raises(ValidationError) as caught:
        queue_sms(TO, "x", send_after=now() + timedelta(minutes=61))
    [words] = caught.value.message_dict["send_after"]
    assert "too far ahead" in words and "SMSKA_MAX_AHEAD" in words


def test_a_message_that_is_put_off_as_far_as_can_be_gets_its_usual_expiry(settings):
    message = queue_sms(TO, "x", send_after=now() + 366 * DAY)
    assert message.expires_at == message.send_after + DAY
    queue_sms(TO, "x", send_after=now() + 366 * DAY, expires_at=now() + 366.5 * DAY)
    with pytest.raises(ValidationError):
        queue_sms(TO, "x", expires_at=now() + 368 * DAY)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("hours", [-12, 0, 14])
@pytest.mark.parametrize("name", ["send_after", "expires_at"])
def test_the_ends_of_the_calendar_are_refused_before_anything_is_stored(name, hours, end):
    at = end.replace(tzinfo=timezone(timedelta(hours=hours)))
    with pytest.raises(ValidationError) as caught:
        queue_sms(TO, "x", **{name: at})
    assert list(caught.value.message_dict) == [name]
    if name == "expires_at":
        with pytest.raises(ValidationError):
            send_sms(TO, "x", expires_at=at)
    stored = send_mass_sms([SmsMessage(to=TO, body="x", **{name: at}), (TO, "good")])
    assert (stored, stored.bad, rows().count()) == (1, 1, 1)


@pytest.mark.parametrize("end", ENDS)
def test_without_time_zones_too(settings, end):
    settings.USE_TZ = False
    with pytest.raises(ValidationError, match=r"1970|too far"):
        SmsMessage(to=TO, body="x", send_after=end).prepare()


def test_no_start_is_no_time():
    with pytest.raises(ValidationError) as caught:
        SmsMessage(to=TO, body="x", send_after=None).prepare()
    assert list(caught.value.message_dict) == ["send_after"]


@pytest.mark.parametrize("name", ["send_after", "expires_at"])
def test_a_draft_with_a_far_time_is_queued_with_the_bound(name, boss, write):
    """It was written by SQL, or under another setting."""
    message = make(expires_at=None)
    far = {"sqlite": "9999-12-31 23:00:00", "postgresql": "29999-12-31", "mysql": "9999-12-31"}
    write(message.pk, name, far[connection.vendor])
    assert sending.enqueue(rows([message.pk])) == 1
    message.refresh_from_db()
    assert message.status == "queued"
    assert message.send_after < message.expires_at < now() + 368 * DAY
    assert boss.get(LIST).status_code == 200


@pytest.mark.parametrize(
    "name", ["SMSKA_LEASE", "SMSKA_EXPIRES_AFTER", "SMSKA_STATUS_WINDOW", "SMSKA_KEEP"]
)
@pytest.mark.parametrize("value", [10**12, float("inf"), float("nan"), 10**400, timedelta.max])
def test_a_setting_that_no_calendar_holds_is_refused_by_its_name(settings, name, value):
    setattr(settings, name, value)
    ask = {
        "SMSKA_LEASE": conf.lease,
        "SMSKA_EXPIRES_AFTER": conf.expires_after,
        "SMSKA_STATUS_WINDOW": conf.status_window,
        "SMSKA_KEEP": conf.keep_for,
    }[name]
    with pytest.raises(ImproperlyConfigured, match=name):
        ask()


# --- forms


@pytest.mark.slow
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12", "Europe/Moscow"])
@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.parametrize("at", ["0001-01-01 00:00", "9999-12-31 23:59", "2199-01-01 12:00"])
def test_a_form_says_what_is_wrong_with_a_far_time(boss, settings, zone, use_tz, at):
    settings.TIME_ZONE, settings.USE_TZ = zone, use_tz
    day, time = at.split()
    usual = {"to": TO, "body": "x", "using": "default", "priority": "0", "_send": "1"}
    for name in ("send_after", "expires_at"):
        times = {"send_after_0": "2026-01-01", "send_after_1": "12:00"}
        times |= {f"{name}_0": day, f"{name}_1": time}
        response = boss.post(f"{LIST}add/", usual | times)
        assert response.status_code == 200
        assert name in response.context["adminform"].form.errors
    compose = {"numbers": TO, "body": "x", "using": "default", "nonce": "n", "_send": "1"}
    response = boss.post(f"{LIST}compose/", compose | {"send_at_0": day, "send_at_1": time})
    assert list(response.context["errors"]) == ["send_at"]
    assert not rows().exists()

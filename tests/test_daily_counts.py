"""Days that are counted once for all."""

import threading
from collections import Counter
from datetime import date, datetime, timedelta
from datetime import timezone as zones
from io import StringIO
from zoneinfo import ZoneInfo

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_smska import daily_counts
from django_smska.models import SmsDay, SmsMessage
from django_smska.states import FINAL, Status

NOW = datetime(2026, 5, 20, 12, tzinfo=ZoneInfo("Europe/Moscow"))
TODAY = NOW.date()


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A clock that the test sets."""

    class Clock:
        now = NOW

        def forward(self, **time):
            self.now += timedelta(**time)

    clock = Clock()
    monkeypatch.setattr(timezone, "now", lambda: clock.now)
    return clock


def make(status="delivered", number=1, *, at=NOW, after=None, **fields):
    """Store messages that were written and taken at ``at``, and finished ``after`` seconds."""
    end = None if after is None else at + timedelta(seconds=after)
    fields = {"to": "+79041764995", "body": "Hello", "segments": 1, **fields}
    times = {"created_at": at, "expires_at": at, "lease_until": at, "sent_at": at}
    SmsMessage.objects.bulk_create(
        SmsMessage(status=status, finished_at=end, **times, **fields) for _ in range(number)
    )


def numbers(day=TODAY):
    return daily_counts.read(SmsDay.objects.get(day=day).numbers)


def messages(day=TODAY):
    found = Counter()
    for words, number in numbers(day).items():
        if words[0] == "messages":
            found[words[3]] += number
    return dict(found)


# --- counting


@pytest.mark.django_db
class TestCount:
    def test_what_is_counted(self):
        make("delivered", 3, after=4.2, sender="Shop", segments=2)
        make("delivered", after=5.0, using="bulk")
        make("failed", after=0, error_code="-6")
        make("rejected", after=60)
        make("unknown")
        make("draft")
        daily_counts.catch_up()
        assert numbers() == {
            ("messages", "default", "Shop", "delivered"): 3,
            ("messages", "bulk", "", "delivered"): 1,
            ("messages", "default", "", "failed"): 1,
            ("messages", "default", "", "rejected"): 1,
            ("messages", "default", "", "unknown"): 1,
            ("messages", "default", "", "draft"): 1,
            ("segments", "default", "Shop"): 6,
            ("segments", "bulk", ""): 1,
            ("segments", "default", ""): 1,
            ("failure", "default", "failed", "-6"): 1,
            ("failure", "default", "rejected", ""): 1,
            ("failure", "default", "unknown", ""): 1,
            ("time", "default", "5"): 3,
            ("time", "bulk", "10"): 1,
        }

    @pytest.mark.parametrize(
        "after, bound",
        [(-3, 5), (0, 5), (4.99, 5), (5, 10), (100, 120), (86399, 86400), (86400, 172800)],
    )
    def test_no_time_is_longer_than_its_bound(self, after, bound):
        make(after=after)
        daily_counts.catch_up()
        assert numbers()["time", "default", str(bound)] == 1

    def test_a_day_is_one_of_the_projects_time_zone(self):
        for hour, day in ((20, 18), (21, 19)):  # midnight in Moscow is 21:00 in UTC
            make(at=datetime(2026, 5, 18, hour, tzinfo=zones.utc), after=1)
            assert daily_counts.day_of(SmsMessage.objects.latest("id").created_at) == date(
                2026, 5, day
            )
        daily_counts.catch_up()
        assert messages(date(2026, 5, 18)) == messages(date(2026, 5, 19)) == {"delivered": 1}

    def test_without_time_zones(self, settings, monkeypatch):
        settings.USE_TZ = False
        monkeypatch.setattr(timezone, "now", lambda: datetime(2026, 5, 20, 12))
        make(at=datetime(2026, 5, 20, 0, 0), after=1)
        make(at=datetime(2026, 5, 19, 23, 59), after=1)
        daily_counts.catch_up()
        assert messages() == messages(date(2026, 5, 19)) == {"delivered": 1}

    def test_a_day_without_messages_is_counted_too(self):
        make(at=NOW - timedelta(days=2), after=1)
        daily_counts.catch_up()
        assert SmsDay.objects.filter(counted_at=NOW).count() == 3

    def test_without_a_message_there_is_nothing_to_count(self):
        assert daily_counts.catch_up() == 0
        assert not SmsDay.objects.exists()

    def test_one_query_counts_a_day(self):
        make(at=NOW, after=1)
        SmsDay.objects.create(day=TODAY)
        with CaptureQueriesContext(connection) as queries:
            daily_counts.count(TODAY, None)
        assert sum("GROUP BY" in query["sql"] for query in queries) == 1


@pytest.mark.django_db
class TestAgain:
    """When a day is counted anew."""

    def counted(self, day=TODAY):
        daily_counts.catch_up()
        return SmsDay.objects.get(day=day).counted_at

    def test_today_after_a_minute(self, clock):
        make("sent")
        assert self.counted() == NOW
        clock.forward(seconds=60)
        assert self.counted() == NOW
        clock.forward(seconds=1)
        assert self.counted() == clock.now

    def test_what_is_final_never(self, clock):
        day = NOW - timedelta(days=1)
        for status in FINAL:
            make(status, at=day, after=1)
        assert self.counted(day.date()) == NOW
        clock.forward(days=365)
        assert self.counted(day.date()) == NOW

    @pytest.mark.parametrize("status", sorted(set(Status) - FINAL))
    def test_an_older_day_the_more_rarely_the_older_it_is(self, clock, status):
        """A draft is sent after weeks, and somebody decides about an unknown one."""
        day = NOW - timedelta(days=100)
        make(status, at=day)
        assert self.counted(day.date()) == NOW
        clock.forward(hours=47)
        assert self.counted(day.date()) == NOW
        SmsMessage.objects.update(status="delivered", finished_at=NOW)
        clock.forward(hours=3)
        assert self.counted(day.date()) == clock.now
        assert messages(day.date()) == {"delivered": 1}

    def test_a_day_that_has_just_ended_may_get_more(self, clock):
        """Another host's clock may be late."""
        clock.now = NOW.replace(hour=0, minute=10)
        day = NOW - timedelta(days=1)
        make(at=day, after=1)
        self.counted()
        make(at=day, after=1)
        clock.forward(hours=2)
        self.counted()
        assert messages(day.date()) == {"delivered": 2}

    def test_patience_counts_the_newest_first_and_tells_what_is_left(self, monkeypatch):
        make(at=NOW - timedelta(days=9), after=1)
        ticks = iter(range(100))
        monkeypatch.setattr(daily_counts.clock, "monotonic", lambda: next(ticks))
        assert daily_counts.catch_up(budget=3) == 7
        done = SmsDay.objects.exclude(counted_at=None).values_list("day", flat=True)
        assert sorted(day.day for day in done) == [18, 19, 20]

    def test_of_two_that_count_a_day_one_does(self):
        make(after=1)
        SmsDay.objects.create(day=TODAY)
        daily_counts.count(TODAY, None)
        with CaptureQueriesContext(connection) as queries:
            daily_counts.count(TODAY, None)
        assert not any("GROUP BY" in query["sql"] for query in queries)


@pytest.mark.django_db(transaction=True)
def test_many_at_once_double_nothing():
    for day in range(10):
        make("delivered", 5, at=NOW - timedelta(days=day), after=1)
    errors = []

    def count():
        try:
            daily_counts.catch_up()
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert SmsDay.objects.count() == 10
    assert {messages(day)["delivered"] for day in SmsDay.objects.values_list("day", flat=True)} == {
        5
    }


@pytest.mark.django_db(transaction=True)
def test_nobody_prunes_while_a_day_is_counted(monkeypatch):
    """Or a message counts once as it is there, and once more as it is gone."""
    make("delivered", 3, at=NOW - timedelta(days=200), after=7)
    day = daily_counts.day_of(NOW - timedelta(days=200))
    SmsDay.objects.create(day=day)

    def prune():
        call_command("sms_prune", stdout=StringIO())
        connection.close()

    pruner = threading.Thread(target=prune)
    find = daily_counts._groups

    def find_and_let_prune(day):
        found = find(day)
        if pruner.ident is None:
            pruner.start()
            pruner.join(0.3)
            assert pruner.is_alive()
        return found

    monkeypatch.setattr(daily_counts, "_groups", find_and_let_prune)
    daily_counts.count(day, None)
    pruner.join()
    assert not SmsMessage.objects.exists()
    daily_counts.catch_up()
    assert messages(day) == {"delivered": 3}


# --- pruning


@pytest.mark.django_db
class TestPrune:
    old = NOW - timedelta(days=200)

    def prune(self, *words):
        call_command("sms_prune", *words, stdout=StringIO())

    @pytest.mark.parametrize("counted_before", [True, False])
    def test_numbers_survive(self, clock, counted_before):
        make("delivered", 3, at=self.old, after=7, sender="Shop", segments=2)
        make("failed", 2, at=self.old, after=1, error_code="-6")
        make("unknown", at=self.old)
        daily_counts.catch_up()
        before = numbers(self.old.date())
        if not counted_before:
            SmsDay.objects.all().delete()
        self.prune()
        assert SmsMessage.objects.count() == 1
        assert numbers(self.old.date()) == before
        clock.forward(days=30)
        SmsMessage.objects.update(status="delivered", sent_at=self.old, finished_at=clock.now)
        daily_counts.catch_up()
        assert messages(self.old.date()) == {"delivered": 4, "failed": 2}
        clock.forward(days=200)
        self.prune()
        assert not SmsMessage.objects.exists()
        assert messages(self.old.date()) == {"delivered": 4, "failed": 2}

    def test_what_is_kept_after_all_is_not_counted_twice(self, monkeypatch):
        from django.db.models import ProtectedError
        from django.db.models.signals import pre_delete

        make("delivered", 3, at=self.old, after=7)
        kept = SmsMessage.objects.first()

        def protect(sender, instance, **kwargs):
            if instance.pk == kept.pk:
                raise ProtectedError("An order points here.", {instance})

        pre_delete.connect(protect, SmsMessage)
        try:
            self.prune()
        finally:
            pre_delete.disconnect(protect, SmsMessage)
        assert SmsMessage.objects.count() == 1
        assert messages(self.old.date()) == {"delivered": 3}

    def test_a_dry_run_counts_nothing(self):
        make(at=self.old, after=7)
        self.prune("--dry-run")
        assert not SmsDay.objects.exists()

"""Counts of days, which do not change when messages are pruned."""

import threading
from datetime import date, datetime, timedelta
from datetime import timezone as zones
from decimal import Decimal
from io import StringIO
from zoneinfo import ZoneInfo

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.db.models import Sum
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_smska import daily_counts, monotonic, pushed_reports, retention
from django_smska.models import SmsDay, SmsDayCount, SmsMessage
from django_smska.receipts import Report
from django_smska.states import FINAL, Status

pytestmark = pytest.mark.slow

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
    """Store messages that were written and accepted at ``at``, and finished ``after`` seconds."""
    end = None if after is None else at + timedelta(seconds=after)
    fields = {"to": "+79041764995", "body": "Hello", "segments": 1, **fields}
    times = {"created_at": at, "expires_at": at, "lease_until": at, "sent_at": at}
    SmsMessage.objects.bulk_create(
        SmsMessage(status=status, finished_at=end, **times, **fields) for _ in range(number)
    )


def numbers(day=TODAY):
    """Return messages and segments by what they have in common."""
    return {
        (row.using, row.sender, row.status, row.error_code, row.delivered_within_seconds): (
            row.messages,
            row.segments,
        )
        for row in SmsDayCount.objects.filter(day=day)
    }


def prices(day=TODAY):
    """Return the sums of prices by status and currency."""
    counted = SmsDayCount.objects.filter(day=day, messages__gt=0)
    return {
        (status, currency): price
        for status, currency, price in counted.values_list("status", "currency", "price")
    }


def messages(day=TODAY):
    counted = SmsDayCount.objects.filter(day=day, messages__gt=0)
    by_status = counted.order_by().values_list("status")
    return dict(by_status.annotate(Sum("messages")))


# --- counting


@pytest.mark.django_db
class TestCount:
    def test_what_is_counted(self):
        make("delivered", 3, after=4.2, sender="Shop", segments=2)
        make("delivered", after=5.0, using="bulk")
        make("failed", after=0, error_code="-6")
        make("rejected", after=60, error_code="ignored")
        make("unknown", error_code="ignored")
        make("draft")
        daily_counts.catch_up()
        assert numbers() == {
            ("default", "Shop", "delivered", "", 5): (3, 6),
            ("bulk", "", "delivered", "", 10): (1, 1),
            ("default", "", "failed", "-6", 0): (1, 1),
            ("default", "", "rejected", "", 0): (1, 1),
            ("default", "", "unknown", "", 0): (1, 1),
            ("default", "", "draft", "", 0): (1, 1),
        }

    def test_prices(self):
        """Of a group, the sum of those that are known. Old messages have none."""
        for number in range(30):
            make(after=1, price="0.100000", currency="EUR", to=f"+7900{number:07}")
        make(after=1, price="2.5", currency="RUB")
        make(after=1, price="0", currency="USD")
        make(after=1, price="0.000001")
        make("sent")
        make("sent", price="3")
        daily_counts.catch_up()
        assert prices() == {
            ("delivered", "EUR"): Decimal(3),
            ("delivered", "RUB"): Decimal("2.5"),
            ("delivered", "USD"): Decimal(0),
            ("delivered", ""): Decimal("0.000001"),
            ("sent", ""): Decimal(3),
        }
        assert numbers()["default", "", "sent", "", 0] == (2, 2)

    def test_where_no_price_is_known_there_is_none(self):
        make(after=1, number=3)
        daily_counts.catch_up()
        assert prices() == {("delivered", ""): None}

    def test_a_price_that_comes_later_is_counted(self, clock):
        make("sent", 2)
        daily_counts.catch_up()
        SmsMessage.objects.update(price="1.25", currency="RUB")
        clock.forward(minutes=2)
        daily_counts.catch_up()
        assert prices() == {("sent", "RUB"): Decimal("2.5")}
        assert messages() == {"sent": 2}

    def test_a_price_that_comes_after_the_last_status_is_counted(self, clock):
        old = NOW - timedelta(days=3)
        make("delivered", 2, at=old, after=1)
        make("delivered", at=NOW - timedelta(days=4), after=1)
        daily_counts.catch_up()
        assert set(SmsDay.objects.filter(day__lt=TODAY).values_list("settled")) >= {(True,)}
        first = SmsMessage.objects.order_by("pk").first()
        pushed_reports.receive(
            "default",
            [Report("delivered", reference=first.reference, price=Decimal("0.2"), currency="RUB")],
        )
        clock.forward(days=2)
        daily_counts.catch_up()
        assert prices(old.date()) == {
            ("delivered", "RUB"): Decimal("0.2"), ("delivered", ""): None,
        }  # fmt: skip
        assert not SmsDay.objects.filter(day__lte=old.date(), settled=False).exists()

    @pytest.mark.parametrize("counted", [False, True])
    def test_prices_of_pruned_messages_stay(self, clock, counted):
        old = NOW - timedelta(days=200)
        make(at=old, after=1, number=3, price="0.1", currency="RUB")
        make(at=old, after=1)
        make(at=old, price="0.5", currency="RUB", status="unknown")
        if counted:
            daily_counts.catch_up()
        call_command("sms_prune", stdout=StringIO())
        assert SmsMessage.objects.count() == 1
        clock.forward(days=30)
        daily_counts.catch_up()
        assert prices(old.date()) == {
            ("delivered", "RUB"): Decimal("0.3"),
            ("delivered", ""): None,
            ("unknown", "RUB"): Decimal("0.5"),
        }

    def test_names_are_compared_character_by_character(self):
        """Not by a database that counts capital letters, accents and blanks as the same."""
        names = ["Shop", "shop", "shöp", "Shop "]
        for name in names:
            make(at=NOW - timedelta(days=200), after=1, sender=name)
        call_command("sms_prune", stdout=StringIO())
        day = (NOW - timedelta(days=200)).date()
        assert sorted(sender for _, sender, *_ in numbers(day)) == sorted(names)

    @pytest.mark.parametrize(
        "after, bound",
        [
            *((-3, 5), (0, 5), (4.99, 5), (5, 10), (100, 120), (86399, 86400), (86400, 172800)),
            (200_000 * 86400, 200_001 * 86400),  # five centuries
        ],
    )
    def test_no_time_is_longer_than_its_bound(self, after, bound):
        make(after=after)
        daily_counts.catch_up()
        assert numbers() == {("default", "", "delivered", "", bound): (1, 1)}

    def test_bounds_and_their_places(self):
        day = daily_counts.DAY_SECONDS
        bounds = [*daily_counts.BOUNDS_SECONDS, 2 * day, 3 * day]
        places = list(range(1, len(bounds) + 1))
        assert [daily_counts.place_of(bound) for bound in bounds] == places
        assert [daily_counts.bound_at(place) for place in places] == bounds

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
    """When a day is counted again."""

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
    def test_an_older_day_less_often(self, clock, status):
        """A draft may be sent after weeks, and a user may decide about an unknown one."""
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

    def test_a_budget_goes_to_the_newest_days_and_the_rest_is_reported(self, monkeypatch):
        """Each day takes a second. What other threads ask the clock takes none."""
        make(at=NOW - timedelta(days=9), after=1)
        counted, count = [], daily_counts.count
        monkeypatch.setattr(monotonic, "now", lambda: len(counted))
        monkeypatch.setattr(
            daily_counts, "count", lambda *args: (count(*args), counted.append(args))
        )
        assert daily_counts.catch_up(budget=3) == 7
        done = SmsDay.objects.exclude(counted_at=None).values_list("day", flat=True)
        assert sorted(day.day for day in done) == [18, 19, 20]

    def test_only_what_differs_is_written(self, clock):
        make("queued", 2)
        make("delivered", 3, after=1)
        daily_counts.catch_up()
        before = set(SmsDayCount.objects.values_list("pk", flat=True))
        SmsMessage.objects.filter(status="queued").update(status="sent")
        clock.forward(minutes=2)
        with CaptureQueriesContext(connection) as queries:
            daily_counts.catch_up()
        assert messages() == {"sent": 2, "delivered": 3}
        assert before < set(SmsDayCount.objects.values_list("pk", flat=True))
        [update] = [
            query["sql"] for query in queries if 'WHEN ("' in query["sql"].replace("`", '"')
        ]
        assert "smsdaycount" in update and update.count("WHEN") == 3  # the columns of one row

    def test_a_settled_day_has_no_empty_rows(self, clock):
        day = NOW - timedelta(days=1)
        make("sent", at=day)
        daily_counts.catch_up()
        SmsMessage.objects.update(status="delivered", finished_at=NOW)
        clock.forward(days=1)
        daily_counts.catch_up()
        assert [status for _, _, status, *_ in numbers(day.date())] == ["delivered"]

    def test_of_two_that_count_a_day_one_does(self):
        make(after=1)
        SmsDay.objects.create(day=TODAY)
        daily_counts.count(TODAY, None)
        with CaptureQueriesContext(connection) as queries:
            daily_counts.count(TODAY, None)
        assert not any("GROUP BY" in query["sql"] for query in queries)


def at_once(*functions):
    """Call each function in a thread with a connection of its own; return their errors."""
    start, errors = threading.Barrier(len(functions)), []

    def call(function):
        try:
            start.wait()
            function()
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=call, args=[function]) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def prune(*options):
    call_command("sms_prune", *options, stdout=StringIO())


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pruners", [0, 1, 2])
def test_many_at_once_double_nothing(monkeypatch, pruners):
    """Each prune has several batches, which begin in the middle of a day."""
    monkeypatch.setattr(retention, "BATCH_ROWS", 7)
    every = [TODAY - timedelta(days=200 + number) for number in range(10)]
    for number, sender in enumerate(["Shop", "shop", ""] * len(every)):
        make("delivered", 5, at=NOW - timedelta(days=209 - number // 3), after=1, sender=sender)
    assert at_once(*[daily_counts.catch_up] * 3, *[prune] * pruners) == []
    daily_counts.catch_up()
    assert SmsMessage.objects.exists() == (not pruners)
    for day in every:
        counted = SmsDayCount.objects.filter(day=day)
        assert counted.aggregate(Sum("messages"))["messages__sum"] == 15
    assert set(SmsDay.objects.filter(day__in=every).values_list("settled", flat=True)) == {True}


NEVER_WAIT = {
    "sqlite": "PRAGMA busy_timeout = 0",
    "postgresql": "SET lock_timeout = '1ms'",
    "mysql": "SET innodb_lock_wait_timeout = 0",
}


def is_locked_out(function):
    """Return whether another connection would have to wait for this one, if it did wait."""
    found = []

    def call():
        try:
            with connection.cursor() as cursor:
                cursor.execute(NEVER_WAIT[connection.vendor])
            function()
            found.append(False)
        except (OperationalError, CommandError) as error:
            found.append("lock" in str(error.__cause__ or error).lower())
        finally:
            connection.close()

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return found.pop()


def after(part, function):
    """Return a wrapper of queries that calls the function after the first one with this part."""
    results = []

    def wrapper(execute, sql, *args):
        result = execute(sql, *args)
        if part in sql.replace("`", '"') and not results:
            results.append(None)
            results[0] = function()
        return result

    return connection.execute_wrapper(wrapper), results


@pytest.mark.django_db(transaction=True)
class TestCountAndPruneAtOnce:
    """Or a message counts once because it is there, and once more because it was pruned."""

    old = NOW - timedelta(days=200)

    @pytest.fixture
    def day(self):
        make("delivered", 3, at=self.old, after=7)
        day = daily_counts.day_of(self.old)
        SmsDay.objects.create(day=day)
        return day

    def test_what_is_being_counted_is_not_pruned(self, day):
        wrapper, results = after("GROUP BY", lambda: is_locked_out(prune))
        with wrapper:
            daily_counts.count(day, None)
        assert results == [True]
        assert SmsMessage.objects.count() == 3
        prune()
        assert not SmsMessage.objects.exists()
        assert messages(day) == {"delivered": 3}

    def test_what_is_being_pruned_is_not_counted(self, day):
        def count():
            daily_counts.count(day, None)

        wrapper, results = after(
            'DELETE FROM "django_smska_smsmessage"', lambda: is_locked_out(count)
        )
        with wrapper:
            prune()
        assert results == [True]
        assert messages(day) == {"delivered": 3}

    def test_days_side_by_side_are_counted_at_once(self):
        """No lock reaches into the rows of the next day."""
        if connection.vendor == "sqlite":
            pytest.skip("one process writes at a time")
        day = NOW.date() - timedelta(days=300)
        next_day = day + timedelta(days=1)
        make("delivered", 3, at=NOW - timedelta(days=300), after=7)
        make("delivered", 2, at=NOW - timedelta(days=299), after=7)
        SmsDay.objects.bulk_create([SmsDay(day=day), SmsDay(day=next_day)])
        wrapper, results = after(
            'INSERT INTO "django_smska_smsdaycount"',
            lambda: is_locked_out(lambda: daily_counts.count(next_day, None)),
        )
        with wrapper:
            daily_counts.count(day, None)
        assert results == [False]
        assert messages(day) == {"delivered": 3} and messages(next_day) == {"delivered": 2}

    def test_a_count_that_fails_changes_nothing(self, day):
        def fail():
            raise RuntimeError("killed")

        for part in ("GROUP BY", 'INSERT INTO "django_smska_smsdaycount"'):
            wrapper, _ = after(part, fail)
            with wrapper, pytest.raises(RuntimeError):
                daily_counts.count(day, None)
            assert SmsDay.objects.get(day=day).counted_at is None and not numbers(day)
        daily_counts.count(day, None)
        assert messages(day) == {"delivered": 3}


# --- pruning


@pytest.mark.django_db
class TestPrune:
    old = NOW - timedelta(days=200)

    @pytest.mark.parametrize("counted_before", [True, False])
    def test_numbers_survive(self, clock, counted_before):
        make("delivered", 3, at=self.old, after=7, sender="Shop", segments=2)
        make("failed", 2, at=self.old, after=1, error_code="-6")
        make("unknown", at=self.old)
        daily_counts.catch_up()
        before = numbers(self.old.date())
        if not counted_before:
            SmsDay.objects.all().delete()
        prune()
        assert SmsMessage.objects.count() == 1
        assert numbers(self.old.date()) == before
        clock.forward(days=30)
        SmsMessage.objects.update(status="delivered", sent_at=self.old, finished_at=clock.now)
        daily_counts.catch_up()
        assert messages(self.old.date()) == {"delivered": 4, "failed": 2}
        clock.forward(days=200)
        prune()
        assert not SmsMessage.objects.exists()
        assert messages(self.old.date()) == {"delivered": 4, "failed": 2}

    def test_numbers_stand_between_a_prune_and_the_next_count(self, monkeypatch):
        make("delivered", 3, at=self.old, after=7)
        daily_counts.catch_up()
        monkeypatch.setattr(daily_counts, "catch_up", lambda: None)
        prune()
        assert SmsDay.objects.get(day=self.old.date()).counted_at is None
        assert messages(self.old.date()) == {"delivered": 3}

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
            prune()
        finally:
            pre_delete.disconnect(protect, SmsMessage)
        assert SmsMessage.objects.count() == 1
        assert messages(self.old.date()) == {"delivered": 3}

    def test_a_dry_run_counts_nothing(self):
        make(at=self.old, after=7)
        prune("--dry-run")
        assert not SmsDay.objects.exists()

"""The statistics page."""

import math
import re
from collections import Counter
from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import translation

from django_smska import daily_counts, unreachable
from django_smska.admin import charts, statistics, wording
from django_smska.models import SmsMessage
from django_smska.states import Status
from tests.test_daily_counts import NOW, clock, make  # noqa: F401 - the clock stands still

#: With these a message becomes *failed*.
CODES = [f"-{number}" for number in range(1, 8)] + ["http-401", "http-404", "http-429", "number"]
CODES += ["text", "rate", "paused", "expired", "lease", "database", "transaction", "provider"]
CODES += ["crash-ValueError", "connect-OSError", *unreachable.CAUSES]
PAGE = "/admin/django_smska/smsmessage/statistics/"


@pytest.fixture(autouse=True)
def unlimited_counting(monkeypatch):
    monkeypatch.setattr(statistics, "COUNTING_BUDGET_SECONDS", math.inf)


@pytest.fixture
def boss(client, db):
    client.force_login(User.objects.create_superuser("boss"))
    return client


def figures(page):
    return {str(name): number for name, number in page["summary"]}


@pytest.mark.django_db
class TestPage:
    def test_figures(self):
        make("delivered", 94, after=12, segments=2)
        make("delivered", 4, after=100)
        make("rejected", 2, after=1)
        make("draft", 5)
        make("sent", 5)
        assert figures(statistics.page({})) == {
            "Messages": "110",
            "Share delivered": "98.0%",
            "Half of them within": "15 s",
            "Nearly all (95%) within": "15 s",
            "Segments": "199",
        }

    def test_money_by_currency_and_provider(self):
        make("delivered", 2, after=12, price="1250.5", currency="RUB")
        make("sent", using="twilio", price="0.0079", currency="USD")
        make("sent", using="twilio", price="0.1", currency="EUR")
        make("sent", using="twilio")
        make("delivered", 5, after=1, using="old")
        make("delivered", after=12, price="99", currency="RUB", at=NOW - timedelta(days=10))
        page = statistics.page({"days": "7"})
        whole = "€0.10, ₽2,501.00, $0.0079"
        assert figures(page)["Price"] == whole
        table = {str(title): table for title, table in page["tables"]}["By provider"]
        assert table.heads[-1] == "Price"
        assert {line[0]: line[-1] for line in table.lines} == {
            "default": "₽2,501.00", "twilio": "€0.10, $0.0079", "old": "",
        }  # fmt: skip
        days = page["charts"][-1].table
        assert days.heads[-1] == "Price"
        assert [line[-1] for line in days.lines] == [""] * 6 + [whole]
        assert figures(statistics.page({"days": "30"}))["Price"].endswith("₽2,600.00, $0.0079")
        twilio = statistics.page({"days": "30", "using": "twilio"})
        assert figures(twilio)["Price"] == "€0.10, $0.0079"

    def test_money_that_is_not_known_is_not_shown(self, boss):
        make("delivered", 3, after=12)
        page = statistics.page({})
        assert "Price" not in figures(page)
        for table in (*(table for _, table in page["tables"]), page["charts"][-1].table):
            assert "Price" not in table.heads
        assert "Price" not in boss.get(PAGE).content.decode()

    def test_a_price_of_nothing_is_known(self, boss):
        make("delivered", after=12, price="0", currency="RUB")
        assert figures(statistics.page({}))["Price"] == "₽0.00"
        assert "₽0.00" in boss.get(PAGE).content.decode()

    def test_percentiles_are_bounds_that_so_many_keep(self):
        times = Counter({5: 50, 10: 45, 3600: 5})
        assert statistics.percentile(times, 0.5) == 5
        assert statistics.percentile(times, 0.95) == 10
        assert statistics.percentile(times, 0.951) == 3600
        assert statistics.percentile(Counter(), 0.5) is None

    @pytest.mark.slow
    def test_all_is_not_all_but_one(self):
        make("delivered", 2000, after=1)
        make("failed", after=1)
        assert figures(statistics.page({}))["Share delivered"] == "99.9%"

    def test_the_range_and_the_provider_are_chosen(self):
        make(number=1, after=1)
        make(number=10, after=1, at=NOW - timedelta(days=7))
        make(number=100, after=1, using="old")
        for query, number in {
            (("days", "7"),): "101",
            (("days", "30"),): "111",
            (("days", "7"), ("using", "default")): "1",
            (("days", "30"), ("using", "old")): "100",
            (("days", "x"), ("using", "no-such"), ("by", "year")): "111",
        }.items():
            assert figures(statistics.page(dict(query)))["Messages"] == number

    def test_yesterday_alone(self):
        for day in range(3):
            make(number=10**day, after=1, at=NOW - timedelta(days=day))
        page = statistics.page({"days": "yesterday"})
        assert figures(page)["Messages"] == "10"
        assert [line[0] for line in page["charts"][0].table.lines] == ["05/19/2026"]

    @pytest.mark.parametrize(
        ("since", "until", "number"),
        [
            ("2026-05-18", "2026-05-19", "110"),
            ("2026-05-19", "", "11"),
            ("2026-05-20", "2027-01-01", "1"),  # until today
            ("19.05.2026", "19.05.2026", "10"),
            ("2025-05-20", "2026-05-20", "1111"),
        ],
    )
    def test_other_dates(self, since, until, number):
        for day in range(4):
            make(number=10**day, after=1, at=NOW - timedelta(days=day))
        with translation.override("ru"):
            page = statistics.page({"days": "own", "since": since, "until": until})
        assert list(figures(page).values())[0].replace("\xa0", "") == number

    def test_other_dates_by_week_have_no_day_more(self):
        monday = NOW - timedelta(days=NOW.weekday() + 7)
        for day, number in ((0, 1), (1, 10), (2, 100)):
            make(number=number, after=1, at=monday + timedelta(days=day))
        asked = {"days": "own", "since": f"{monday + timedelta(days=1):%Y-%m-%d}", "by": "week"}
        assert figures(statistics.page({**asked, "until": asked["since"]}))["Messages"] == "10"

    @pytest.mark.parametrize(
        ("query", "field", "words"),
        [
            ({"since": "31.02.2026"}, "since", "Enter a valid date."),
            ({"since": "2026-05-01", "until": "x"}, "until", "Enter a valid date."),
            ({}, "since", "Enter the first day."),
            ({"until": "2026-05-01"}, "since", "Enter the first day."),
            ({"since": "2026-05-21"}, "since", "This day is in the future."),
            ({"since": "2026-05-03", "until": "2026-05-02"}, "until", "is before the first one."),
            ({"since": "2025-05-19"}, "until", "This is a range of more than 366 days."),
            ({"since": "0001-01-01"}, "until", "This is a range of more than 366 days."),
            ({"days": "7", "since": "2026-05-01"}, "since", "Choose “other dates” for this"),
            ({"days": "7", "until": "2026-05-01"}, "until", "Choose “other dates” for this"),
        ],
    )
    def test_wrong_dates_are_said_and_nothing_is_counted(self, boss, query, field, words):
        make(after=1)
        response = boss.get(PAGE, {"days": "own", **query})
        assert list(response.context["form"].errors) == [field]
        page = response.content.decode()
        assert words in page and "Messages by status" not in page
        assert re.findall(r'name="(\w+)"[^>]* autofocus', page) == [field]

    @pytest.mark.parametrize("since", ["0001-01-01", "9999-12-31", "\0", "١.٢.٢٠٢٦"])
    @pytest.mark.parametrize("until", ["0001-01-01", "9999-12-31", ""])
    def test_no_date_breaks_the_page(self, boss, since, until):
        make(after=1)
        query = {"days": "own", "since": since, "until": until, "by": "week"}
        assert boss.get(PAGE, query).status_code == 200

    def test_a_week_begins_on_monday_and_is_whole(self):
        monday = NOW - timedelta(days=NOW.weekday() + 7)
        make(number=3, after=1, at=monday)
        make(number=4, after=1, at=monday + timedelta(days=6))
        make(number=5, after=1)
        page = statistics.page({"days": "7", "by": "week"})
        lines = page["charts"][0].table.lines
        assert [line[-1] for line in lines] == ["7", "5"]
        assert lines[0][0] == "05/11/2026"

    def test_each_day_of_the_range_has_its_bar(self):
        make(after=1)
        for days in ("7", "30", "90", "365"):
            page = statistics.page({"days": days})
            for chart in page["charts"]:
                assert len(chart.table.lines) == int(days)
                assert {len(layer.spans) for layer in chart.layers} == {int(days)}

    def test_the_pictures_say_what_the_tables_say(self):
        make("delivered", 6, after=12, segments=3)
        make("failed", 2, after=1)
        status, share, time, segments = statistics.page({"days": "7"})["charts"]
        assert [layer.spans[-1] for layer in status.layers] == [
            (0, 0.75),
            (0.75, 0.75),
            (0.75, 0.75),
            (0.75, 0.75),
            (0.75, 1),
            (1, 1),
        ]
        assert status.ticks == ["8", "4", "0"]
        assert share.layers[0].spans[-1] == (0, 0.75)
        assert time.ticks == ["20 s", "10 s", "0"]
        assert [layer.spans[-1] for layer in time.layers] == [(0, 3 / 4)] * 2
        assert segments.layers[0].spans[-1] == (0, 18 / 20)

    def test_every_status_has_its_place(self):
        assert {wording.MARKS[status] for status in Status} == set(statistics.LAYERS)

    def test_failures_by_kind_in_plain_text(self):
        make("failed", 2, after=1, error_code="-6")
        make("failed", 1, after=1, error_code="number")
        make("failed", 2, after=1, error_code="connect-timeout")
        make("unconfirmed", 1, after=1)
        make("delivered", 4, after=1)
        (_, table), *_ = statistics.page({})["tables"]
        assert [line[1:] for line in table.lines] == [
            ["3", "30.0%"],
            ["2", "20.0%"],
            ["1", "10.0%"],
        ]
        assert table.lines[0][0] == "The gateway does not accept the number"

    @pytest.mark.parametrize("status", sorted(daily_counts.FAILURES))
    @pytest.mark.parametrize("code", ["", "-1", "-12", "http-429", "connect-refused", "\u2603"])
    def test_every_failure_has_a_text(self, status, code):
        assert str(wording.undelivered(status, code))

    @pytest.mark.parametrize("code", CODES)
    def test_every_code_of_ours_has_its_own_text(self, code):
        assert wording.failure(code) != wording.failure("")

    @pytest.mark.parametrize("code", ["http-401", "http-403"])
    def test_a_login_that_http_refuses_is_a_login(self, code):
        assert wording.failure(code) == wording.failure("-1")

    def test_a_code_that_only_begins_alike_is_another_reason(self):
        assert wording.undelivered("failed", "-12") == wording.undelivered("failed", "")

    def test_by_provider_and_by_sender(self):
        make("delivered", 3, after=1, sender="Shop", segments=2)
        make("failed", 1, after=1, sender="Shop")
        make("delivered", 2, after=1, using="bulk")
        _, (_, by_provider), (_, by_sender) = statistics.page({})["tables"]
        assert by_provider.lines == [
            ["default", "4", "75.0%", "1", "6"],
            ["bulk", "2", "100.0%", "0", "2"],
        ]
        assert by_sender.lines == [
            ["Shop", "4", "75.0%", "1", "6"],
            ["(the provider's own)", "2", "100.0%", "0", "2"],
        ]

    def test_uncounted_days_are_reported(self, boss, monkeypatch):
        make(at=NOW - timedelta(days=9), after=1)
        monkeypatch.setattr(statistics, "COUNTING_BUDGET_SECONDS", 0)
        for left in ("9 days are", "8 days are"):
            assert f"{left} not counted yet" in boss.get(PAGE).content.decode()

    def test_pruned_messages_are_still_counted(self, clock):  # noqa: F811
        """Also where no older message is left at all."""
        make("delivered", 3, at=NOW - timedelta(days=20), after=7)
        call_command("sms_prune", "--keep", "10", stdout=StringIO())
        assert not SmsMessage.objects.exists()
        clock.forward(minutes=5)
        assert figures(statistics.page({}))["Messages"] == "3"

    def test_what_people_wrote_is_escaped(self, boss):
        make(after=1, sender="<b>Shop</b>", using="<i>")
        page = boss.get(PAGE).content.decode()
        assert "&lt;b&gt;Shop" in page and "<b>Shop" not in page and "<i>" not in page

    def test_no_number_and_no_text_is_in_it(self, boss):
        make("failed", after=1, error_text="the gateway's text", gateway_id="g17")
        page = boss.get(PAGE).content.decode()
        assert not any(text in page for text in ("4995", "Hello", "the gateway's text", "g17"))

    def test_without_a_message_there_is_a_page(self, boss):
        assert boss.get(PAGE, {"days": "365", "by": "week"}).status_code == 200

    @pytest.mark.slow
    def test_the_queries_are_as_few_for_a_year_as_for_a_week(self, boss):
        make(at=NOW - timedelta(days=400), after=1)
        make(after=1)
        daily_counts.catch_up()

        def queries(days):
            with CaptureQueriesContext(connection) as context:
                assert boss.get(PAGE, {"days": days}).status_code == 200
            return len(context)

        assert queries("7") == queries("365") <= 10


@pytest.mark.parametrize(
    "highest, top",
    [(0, 2), (1, 2), (2, 2), (3, 4), (5, 6), (7, 8), (10, 10), (11, 20), (41, 60), (999, 1000)],
)
def test_the_scale_ends_on_a_round_number(highest, top):
    assert charts.round_top(highest) == top

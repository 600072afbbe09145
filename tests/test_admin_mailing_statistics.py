"""The statistics of one mailing, by values that were computed by hand."""

from collections import Counter
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_smska.models import SmsMailing, SmsMessage

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 5, 11, 9, 0, 20, tzinfo=timezone.utc)  # 12:00:20 in Moscow


@pytest.fixture
def mailing():
    return SmsMailing.objects.create(name="Пионы", body="Пионы по 90 рублей", created_at=NOON)


@pytest.fixture
def page(client, mailing):
    client.force_login(User.objects.create_superuser("boss"))

    def opened():
        answer = client.get(f"/admin/django_smska/smsmailing/{mailing.pk}/statistics/")
        assert answer.status_code == 200
        return answer

    return opened


def add(mailing, number, status="delivered", *, at=NOON, after=10, **fields):
    """Store messages that were accepted ``at`` and finished ``after`` seconds."""
    known = {"segments": 1, "sent_at": at, "finished_at": at + timedelta(seconds=after), **fields}
    first = SmsMessage.objects.count()
    SmsMessage.objects.bulk_create(
        SmsMessage(
            to=f"+7917{first + n:07}",
            body="Пионы",
            status=status,
            mailing=mailing,
            expires_at=NOON,
            **known,
        )
        for n in range(number)
    )


def summary(answer):
    return {str(words): number for words, number in answer.context["summary"]}


def table(answer, name):
    return dict(answer.context["tables"])[name].lines


def test_share_times_segments_and_money(page, mailing):
    add(mailing, 10, after=4)
    add(mailing, 8, after=37, segments=2, price=Decimal("1.50"), currency="RUB")
    add(mailing, 1, after=90)
    add(mailing, 1, after=4000)
    add(mailing, 5, "sent", finished_at=None)
    add(mailing, 2, "failed", sent_at=None, error_code="-4")
    add(mailing, 3, "rejected", segments=3)
    add(mailing, 4, "draft", sent_at=None, finished_at=None)
    answer = page()
    assert summary(answer) == {
        "Delivered": "20",
        "Share delivered": "80.0%",  # 20 of 25: five more are on their way
        "Usually within": "4 s",  # ten of twenty
        "Nearly always (95%) within": "1 min 30 s",  # nineteen of twenty
        "Segments": "42",  # 10 + 16 + 1 + 1 + 5 + 9: failed ones and drafts cost nothing
        "Price": "₽12.00",
    }
    assert table(answer, "By status") == [
        ["Draft", "4"],
        ["Sent", "5"],
        ["Delivered", "20"],
        ["Rejected", "3"],
        ["Failed", "2"],
    ]


def test_without_reported_prices_it_says_what_those_that_left_cost(page, mailing, settings):
    settings.SMSKA_PRICES = {"default": ("4.10", "RUB")}
    SmsMailing.objects.filter(pk=mailing.pk).update(using="default")
    add(mailing, 3, segments=2)
    add(mailing, 2, "failed", sent_at=None)
    found = summary(page())
    assert found["Segments"] == "6"
    assert found["Price"].replace("\N{NO-BREAK SPACE}", " ") == "about ₽24.60"


def test_why_they_did_not_arrive(page, mailing):
    add(mailing, 6)
    add(mailing, 2, "failed", sent_at=None, error_code="-6")
    add(mailing, 1, "failed", sent_at=None, error_code="-7")
    add(mailing, 3, "expired")
    lines = table(page(), "What failed")
    assert [line[1:] for line in lines] == [["3", "25.0%"], ["2", "16.6%"], ["1", "8.3%"]]
    assert len({line[0] for line in lines}) == 3


def test_whom_one_wrote_to_again_counts_once(page, mailing):
    """Four arrived; one failed and arrived at the second attempt, one failed for good."""
    add(mailing, 5)
    add(mailing, 2, "failed", sent_at=None, error_code="-1")
    SmsMailing.objects.update(again=1)
    assert summary(page())["Share delivered"] == "83.3%"  # 5 of 6


def test_pruned_messages_count_in_the_share_alone(page, mailing):
    add(mailing, 1)
    SmsMailing.objects.update(pruned={"delivered": 5, "failed": 2})
    answer = page()
    assert summary(answer) == {
        "Delivered": "6",
        "Share delivered": "75.0%",
        "Usually within": "10 s",
        "Nearly always (95%) within": "10 s",
        "Segments": "1",
    }
    assert "7 messages of this mailing have been deleted since." in answer.content.decode()


def test_an_empty_mailing_has_a_page(page):
    answer = page()
    assert set(summary(answer).values()) == {"0", "–"}
    assert answer.context["chart"] is None and "No messages." in answer.content.decode()


def bars(answer):
    return answer.context["chart"].table.lines


@override_settings(TIME_ZONE="Europe/Moscow", USE_TZ=True)
def test_by_the_minute(page, mailing):
    """The first bar begins with its minute, and a minute without a message has its bar."""
    for seconds, number in ((0, 3), (39, 2), (40, 1), (175, 4)):  # 12:00:20, :59, 12:01, 12:03:15
        add(mailing, number, at=NOON + timedelta(seconds=seconds))
    add(mailing, 2, "failed", sent_at=None)
    answer = page()
    assert [line[1] for line in bars(answer)] == ["5", "1", "0", "4"]
    assert [line[0] for line in bars(answer)] == [
        "05/11/2026 noon",
        *(f"05/11/2026 12:0{minute} p.m." for minute in (1, 2, 3)),
    ]
    assert "Each bar is 1 min." in answer.content.decode()


@override_settings(TIME_ZONE="Europe/Moscow", USE_TZ=True)
@pytest.mark.parametrize(
    ("last", "step", "number"),
    [
        (timedelta(minutes=58), "1 min", 59),
        (timedelta(minutes=59), "5 min", 12),
        (timedelta(hours=10), "15 min", 41),
        (timedelta(days=2), "1 h", 49),
        (timedelta(days=7), "3 h", 57),
        (timedelta(days=50), "1 d", 51),
        (timedelta(days=100), "2 d", 51),
    ],
)
def test_the_bars_are_never_many(page, mailing, last, step, number):
    add(mailing, 1)
    add(mailing, 1, at=NOON + last)
    answer = page()
    assert f"Each bar is {step}." in answer.content.decode()
    lines = bars(answer)
    assert len(lines) == number
    assert [lines[0][1], lines[-1][1]] == ["1", "1"]


def test_the_number_of_queries_is_fixed(page, mailing):
    def queries():
        with CaptureQueriesContext(
            connection,
        ) as found:
            page()
        return Counter("smsmessage" in one["sql"] for one in found.captured_queries)

    add(mailing, 1)
    few = queries()
    for status, code in (("failed", "-3"), ("failed", "-5"), ("rejected", ""), ("sent", "")):
        add(mailing, 5, status, after=7, at=NOON + timedelta(hours=3), error_code=code)
    assert queries() == few and few[True] == 1


def test_no_number_and_no_text_is_on_it(page, mailing):
    add(mailing, 3)
    content = page().content.decode()
    assert "7917" not in content and "Пионы по 90" not in content

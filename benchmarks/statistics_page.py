"""Measure whether the statistics page stays quick at a million messages.

They are spread over a year or over a month. The page is opened for the first time, again, and after
a pause without any opening. Each time is the median of some runs. "All counted" is what sms_prune
does at its end, once.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import common

LIMIT_SECONDS = 0.5
MODELS = 20_000  # different messages, of which the others are copies
STATUSES = {"delivered": 85, "sent": 3, "failed": 5, "rejected": 3, "unconfirmed": 3, "unknown": 1}


def message(n: int, number: int, days: int, status: str) -> Any:
    from django.utils import timezone

    from django_smska.models import SmsMessage

    at = timezone.now() - timedelta(days=days) * n / number
    times = dict.fromkeys(("created_at", "send_after", "sending_at", "sent_at"), at)
    return SmsMessage(
        to=f"+{79000000000 + n}",
        body=f"text {n}",
        status=status,
        sender=f"Shop {n % 7}",
        segments=1 + n % 3,
        error_code=f"-{1 + n % 7}" if status == "failed" else "",
        expires_at=at + timedelta(days=1),
        finished_at=at + timedelta(seconds=n % 89 + n % 13 * (n % 7) ** 3),
        **times,
    )


def fill(number: int, days: int) -> None:
    from django_smska.models import SmsMessage

    common.empty()
    statuses = [status for status, share in STATUSES.items() for _ in range(share)]
    models = min(number, MODELS)
    SmsMessage.objects.bulk_create(
        (message(n, models, days, statuses[n * 37 % 100]) for n in range(models)), batch_size=2000
    )
    common.copy_rows(number)
    common.analyze()


def usual(action: Callable[[], Any], before: Callable[[], Any], runs: int = 5) -> float:
    times = []
    for _ in range(runs):
        before()
        times.append(common.seconds(action))
    return statistics.median(times)


def measure() -> dict[str, float]:
    from django.contrib.auth.models import User
    from django.db.models import F
    from django.test import Client

    from django_smska import daily_counts
    from django_smska.models import SmsDay

    boss, _ = User.objects.get_or_create(username="a", is_superuser=True, is_staff=True)
    client = Client()
    client.force_login(boss)

    def page(query: str) -> Callable[[], None]:
        def get() -> None:
            url = f"/admin/django_smska/smsmessage/statistics/?{query}"
            assert client.get(url).status_code == 200

        return get

    def uncounted() -> None:
        SmsDay.objects.all().delete()

    def long_ago(**time: Any) -> Callable[[], None]:
        def change() -> None:
            daily_counts.catch_up()
            seen = F("counted_at") - timedelta(**time)
            SmsDay.objects.filter(settled=False).update(counted_at=seen)

        return change

    page("days=7")()  # warm
    month, year, weeks = "days=30&by=day", "days=365&by=day", "days=365&by=week"
    found = {
        "first opening, 30 days": usual(page(month), uncounted),
        "first opening, a year": usual(page(year), uncounted),
        "all counted": usual(daily_counts.catch_up, uncounted, 1),
        "30 days, again": usual(page(month), daily_counts.catch_up),
        "a year by day, again": usual(page(year), daily_counts.catch_up),
        "a year by week, again": usual(page(weeks), daily_counts.catch_up),
        "30 days, an hour later": usual(page(month), long_ago(hours=1)),
        "a year by day, 3 days later": usual(page(year), long_ago(days=3)),
    }
    return found


def verdict(name: str, time: float) -> str:
    if name == "all counted":
        return f"{time:.2f}"
    return common.verdict(time, LIMIT_SECONDS, at_least=False)


if __name__ == "__main__":
    options = common.arguments(rows="1000,1000000", days="365,30")
    sizes = [int(size) for size in options.rows.split(",")]
    with common.database():
        for days in map(int, options.days.split(",")):
            found = []
            for size in sizes:
                fill(size, days)
                found.append(measure())
            common.table(
                f"Seconds of one, by rows, which are spread over {days} days",
                ["", *(f"{size:,}" for size in sizes)],
                [
                    [
                        name,
                        *(f"{by_size[name]:.3f}" for by_size in found[:-1]),
                        verdict(name, found[-1][name]),
                    ]
                    for name in found[0]
                ],
            )

"""Whether the frequent queries stay as fast when the table grows: the claim, the worker's look, the
due reports, and the admin's list, filters and search.

The same table grows from size to size. Each time is the lower quartile of many runs, which the
machine's other work moves least, and the last size's is divided by the first one's. The numbers
of queries must be the same at all sizes.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import common
from sending import CountQueries

LIMIT = 1.5
MOST = 5.0  # seconds for one measurement
HISTORY = {"delivered": 80, "sent": 10, "failed": 6, "unconfirmed": 3, "unknown": 1}


def message(n: int, status: str, **values: Any) -> Any:
    from django.utils import timezone

    from django_smska.models import SmsMessage

    old = timezone.now() - timedelta(days=5, minutes=n)
    times = dict.fromkeys(("created_at", "send_after", "claimed_at", "sending_at"), old)
    if status in ("delivered", "sent", "unconfirmed"):
        times["sent_at"] = old
        values.setdefault("gateway_id", f"g{n}")
    if status in ("delivered", "failed", "unconfirmed"):
        times["finished_at"] = old + timedelta(minutes=1)
    times["expires_at"] = old + timedelta(days=1)
    return SmsMessage(to=f"+{79000000000 + n}", body=f"text {n}", status=status, **times | values)


def fill(number: int) -> None:
    """History, and at most a hundredth of it for tomorrow; nothing to do yet."""
    from django.utils import timezone

    from django_smska.models import SmsMessage

    SmsMessage.objects.exclude(status__in=HISTORY).delete()
    SmsMessage.objects.filter(next_status_at__isnull=False).delete()
    if not SmsMessage.objects.exists():
        statuses = [status for status, share in HISTORY.items() for _ in range(share)]
        first = [message(n, statuses[n * 37 % 100]) for n in range(min(number, 1000) // 2)]
        SmsMessage.objects.bulk_create(first)
    tomorrow = timezone.now() + timedelta(days=1)
    times = {"send_after": tomorrow, "expires_at": tomorrow + timedelta(days=1)}
    scheduled = [message(n, "queued", **times) for n in range(min(number // 10, 10_000))]
    common.copy_rows(number - len(scheduled) - 2 * due(number))
    SmsMessage.objects.bulk_create(scheduled, batch_size=1000)
    common.analyze()


def due(number: int) -> int:
    return min(number // 10, 1000)


def give_work(number: int) -> None:
    from django.utils import timezone

    from django_smska.models import SmsMessage

    now = timezone.now()
    times = {"send_after": now, "expires_at": now + timedelta(days=1)}
    work = [message(n, "queued", **times) for n in range(due(number))]
    work += [message(n, "sent", next_status_at=now) for n in range(due(number))]
    SmsMessage.objects.bulk_create(work, batch_size=1000)
    common.analyze()


def usual(
    action: Callable[[], Any], runs: int, after: Callable[[Any], Any] = lambda result: None
) -> tuple[float, int]:
    """What ``action`` takes, and how many queries it makes."""
    from django.db import connection

    times: list[float] = []
    queries: list[int] = []
    after(action())  # warm
    while len(times) < runs and (len(times) < 5 or sum(times) < MOST):
        results: list[Any] = []
        with CountQueries(connection) as counted:
            times.append(common.seconds(lambda: results.append(action())))  # noqa: B023
        queries.append(counted.number)
        after(results[0])
    # A look makes a few more once a minute.
    return statistics.quantiles(times, n=4)[0], statistics.mode(queries)


def measure(number: int, runs: int) -> dict[str, tuple[float, int]]:
    from django.contrib.auth.models import User
    from django.test import Client
    from django.utils import timezone

    from django_smska import sending
    from django_smska.models import SmsMessage, rows
    from django_smska.worker import Worker

    worker, found = Worker(), {}
    fill(number)
    found["look, nothing to do"] = usual(worker.has_work, runs)
    assert not worker.has_work()
    give_work(number)
    found["look, much to do"] = usual(worker.has_work, runs)

    def claim() -> list[SmsMessage]:
        now = timezone.now()
        claimed = sending.claim(rows().due(now, "default").filter(using="default")[:32], now)
        assert len(claimed) == 32
        return claimed

    found["claim of 32"] = usual(claim, runs, sending.release)
    found["due reports"] = usual(
        lambda: list(rows().awaiting_report(timezone.now()).filter(using="default")[:16]), runs
    )
    client = Client()
    client.force_login(
        User.objects.get_or_create(username="a", is_superuser=True, is_staff=True)[0]
    )
    pages = {
        "admin list": "",
        "admin list, delivered": "status__exact=delivered",
        "admin list, queued": "status__exact=queued",
        "admin list, needs attention": "needs=attention",
        "admin search, a number": "q=%2B79000000007",
        "admin search, a gateway id": "q=g7",
        "admin search, part of a number": "q=00000007",
    }
    for name, query in pages.items():
        url = f"/admin/django_smska/smsmessage/?{query}"

        def get(url: str = url) -> None:
            assert client.get(url).status_code == 200

        found[name] = usual(get, max(runs // 5, 10))
    return found


if __name__ == "__main__":
    options = common.arguments(rows="1000,100000,1000000", runs=100)
    sizes = [int(size) for size in options.rows.split(",")]
    with common.database():
        found = [measure(size, options.runs) for size in sizes]
        common.table(
            "Time of one, in ms, by rows in the table",
            ["", *(f"{size:,}" for size in sizes), "ratio", "queries"],
            [
                [
                    name,
                    *(f"{by_size[name][0] * 1000:.2f}" for by_size in found),
                    common.verdict(found[-1][name][0] / first, LIMIT, at_least=False),
                    "/".join(sorted({str(by_size[name][1]) for by_size in found})),
                ]
                for name, (first, _) in found[0].items()
            ],
        )

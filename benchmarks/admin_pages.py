"""Measure the admin's pages over mailings of 100,000 messages each, as the table grows.

Every page is opened a few times, and the quickest counts: other programs share the machine. CPU is
that of this process, so that it leaves out what a database server does; on SQLite it is all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import common

LIMIT_SECONDS = {300_000: 0.15, 1_000_000: 0.5}
MAILING = 100_000  # messages of one
RUNS = 5
STATUSES = {"delivered": 60, "queued": 25, "sent": 8, "failed": 4, "rejected": 2, "unknown": 1}


def message(n: int, status: str, at: Any) -> Any:
    from django_smska.models import SmsMessage

    after = at + timedelta(seconds=n // 50)
    is_sent = status not in ("queued", "failed", "unknown")
    is_over = status not in ("queued", "sent", "unknown")
    return SmsMessage(
        to=f"+{79000000000 + n}",
        body=f"Order {n}",
        status=status,
        segments=1 + n % 2,
        gateway_id=f"g{n}" if is_sent else "",
        error_code=f"-{1 + n % 7}" if status == "failed" else "",
        created_at=at,
        send_after=at,
        expires_at=at + timedelta(days=1),
        sending_at=after if status == "unknown" else None,
        sent_at=after if is_sent else None,
        finished_at=after + timedelta(seconds=n % 89 + n % 13 * (n % 7) ** 3) if is_over else None,
    )


def fill(number: int) -> None:
    """Store the messages, each run of 100,000 as a mailing that is being sent."""
    from django.db.models import Sum
    from django.utils import timezone

    from django_smska.models import SmsMailing, SmsMessage

    common.empty()
    SmsMailing.objects.all().delete()
    at = timezone.now() - timedelta(hours=2)
    statuses = [status for status, share in STATUSES.items() for _ in range(share)]
    models = (message(n, statuses[n * 37 % 100], at) for n in range(20_000))
    SmsMessage.objects.bulk_create(models, batch_size=2000)
    common.copy_rows(number)
    first = SmsMessage.objects.order_by("pk").values_list("pk", flat=True)[0]
    for part in range(number // MAILING):
        mine = SmsMessage.objects.filter(
            pk__gte=first + part * MAILING, pk__lt=first + (part + 1) * MAILING
        )
        mailing = SmsMailing.objects.create(
            name=f"Mailing {part}", segments=mine.aggregate(Sum("segments"))["segments__sum"] or 0
        )
        mine.update(mailing=mailing)
    common.analyze()


def pages() -> dict[str, str]:
    from django_smska.models import SmsMailing, SmsMessage

    last = SmsMailing.objects.latest("pk").pk
    number = SmsMessage.objects.latest("pk").to
    messages, mailings = "smsmessage/", "smsmailing/"
    return {
        "messages": messages,
        "messages, page 100": f"{messages}?p=100",
        "messages, one status": f"{messages}?status__exact=failed",
        "messages of a mailing": f"{messages}?mailing={last}",
        "what needs attention": f"{messages}?needs=attention",
        "search, a number": f"{messages}?q=%2B{number[1:]}",
        "search, 4 digits": f"{messages}?q={number[-4:]}",
        "search, a text": f"{messages}?q=Order",
        "search, no such text": f"{messages}?q=Nothing+like+it",
        "mailings": mailings,
        "a mailing": f"{mailings}{last}/change/",
        "its statistics": f"{mailings}{last}/statistics/",
        "statistics": f"{messages}statistics/",
    }


def forget() -> None:
    """Let every mailing be due to be counted, as two seconds later."""
    from django_smska.models import SmsMailing

    SmsMailing.objects.update(counted_at=None)


def measure() -> dict[str, tuple[float, float]]:
    """Return the shortest time of each page, and the least CPU time, in seconds."""
    from django.contrib.auth.models import User
    from django.test import Client

    boss, _ = User.objects.get_or_create(username="a", is_superuser=True, is_staff=True)
    client = Client()
    client.force_login(boss)
    return {name: quickest(client, path) for name, path in pages().items()}


def quickest(client: Any, path: str) -> tuple[float, float]:
    walls, cpus = [], []
    for _ in range(RUNS + 1):
        forget()
        cpu = time.process_time()
        walls.append(common.seconds(opening(client, path)))
        cpus.append(time.process_time() - cpu)
    return min(walls[1:]), min(cpus[1:])


def opening(client: Any, path: str) -> Callable[[], None]:
    def get() -> None:
        assert client.get(f"/admin/django_smska/{path}").status_code == 200

    return get


def cell(size: int, wall: float, cpu: float) -> str:
    limit = LIMIT_SECONDS.get(size)
    missed = " MISSED" if limit and wall > limit else ""
    return f"{1000 * wall:.0f} ({1000 * cpu:.0f}){missed}"


if __name__ == "__main__":
    options = common.arguments(rows="100000,300000,1000000")
    sizes = [int(size) for size in options.rows.split(",")]
    found = []
    with common.database():
        for size in sizes:
            fill(size)
            found.append(measure())
        common.table(
            f"Milliseconds of one page, best of {RUNS} (CPU of this process)",
            ["", *(f"{size:,}" for size in sizes)],
            [
                [name, *(cell(size, *of[name]) for size, of in zip(sizes, found, strict=True))]
                for name in found[0]
            ],
        )

"""How fast the worker sends stored messages, against a bare pool of requests sessions.

The bare pool makes the same requests with the same number of threads, stores nothing and checks
nothing. Both take turns, and the median of the pairs' ratios counts.
"""

from __future__ import annotations

import statistics
import threading
from concurrent.futures import ThreadPoolExecutor

import common

LIMITS = {0: 0.6, 20: 0.9, 100: 0.9}  # by milliseconds of latency
NUMBER = "79041764995"


def bare(url: str, number: int, width: int) -> None:
    """Post with one ``requests.Session`` a thread."""
    import requests

    local = threading.local()

    def post(n: int) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        form = {"APIKey": "test", "APIPassword": "test", "SenderID": "Test"}
        form |= {"MSISDN": NUMBER, "Message": f"bare {n}"}
        local.session.post(url, data=form, timeout=30)

    with ThreadPoolExecutor(width) as pool:
        list(pool.map(post, range(number)))


def store(number: int) -> None:
    from django_smska.models import SmsMessage
    from django_smska.sms import send_mass_sms

    SmsMessage.objects.all().delete()
    send_mass_sms((f"+{NUMBER}", f"text {n}") for n in range(number))


def measure(latency: int, options: object) -> list[object]:
    from django.db import connection

    from django_smska.worker import Worker

    number, width = options.number, options.width  # type: ignore[attr-defined]
    bares, ours, ratios, queries = [], [], [], 0
    for _ in range(options.rounds):  # type: ignore[attr-defined]
        with common.Gateway(latency / 1000) as gateway:
            common.use(gateway)
            bares.append(number / common.seconds(lambda: bare(gateway.url, number, width)))
            store(number)
            worker = Worker(concurrency=width)
            with CountQueries(connection) as counted:
                ours.append(number / common.seconds(worker.send_due))
            queries = counted.number
            taken, texts = gateway.close()
            assert taken == texts == 2 * number, "a message was lost or sent twice"
        ratios.append(ours[-1] / bares[-1])
    ratio = common.verdict(statistics.median(ratios), LIMITS[latency])
    return [
        f"{latency} ms",
        f"{statistics.median(bares):.0f}/s",
        f"{statistics.median(ours):.0f}/s",
        ratio,
        common.verdict(queries / number, 0.5, at_least=False),
    ]


class CountQueries:
    """Counts without keeping the queries."""

    def __init__(self, connection: object) -> None:
        self.number = 0
        self.wrapper = connection.execute_wrapper(self._count)  # type: ignore[attr-defined]

    def _count(self, execute, sql, params, many, context):  # type: ignore[no-untyped-def]
        self.number += 1
        return execute(sql, params, many, context)

    def __enter__(self) -> CountQueries:
        self.wrapper.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.wrapper.__exit__(*exc_info)


if __name__ == "__main__":
    options = common.arguments(number=10_000, width=16, rounds=3, latency=-1)
    latencies = list(LIMITS) if options.latency < 0 else [options.latency]
    with common.database():
        common.table(
            f"Sending {options.number} stored messages, {options.width} at once",
            ["gateway", "bare pool", "worker", "ratio", "queries a message"],
            [measure(latency, options) for latency in latencies],
        )

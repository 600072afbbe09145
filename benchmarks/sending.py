"""How fast ``sms_worker --once`` sends stored messages, against a bare pool of requests sessions.

Both are processes of their own and are timed from outside, from their start to their end. The bare
pool makes the same requests with the same number of threads, stores nothing and checks nothing.
No delivery reports are asked for. They take turns, and the median of the pairs' ratios counts.
With ``--rate`` the worker alone is timed, from its first request to its last one, and its ratio is
to the rate that its provider is configured with.
"""

from __future__ import annotations

import argparse
import statistics
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import common

LIMITS = {0: 0.6, 20: 0.9, 100: 0.9}  # by milliseconds of latency
WIDTHS = {100: 64}  # by milliseconds of latency, where it is not 16
RATE_LIMIT = 0.95
NUMBER = "79041764995"
BARE = """
from sending import bare
bare(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
"""
WORKER = """
import io
from types import SimpleNamespace
from django.core.management import call_command
from django.db import connection
from sending import CountQueries
common.use(
    SimpleNamespace(url=sys.argv[1]), backend="send_only.SmsBackend", rate=sys.argv[3] or None
)
with CountQueries(connection) as counted:
    call_command("sms_worker", once=True, concurrency=int(sys.argv[2]), stdout=io.StringIO())
print(counted.number)
"""


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
    from django_smska.sms import send_mass_sms

    common.empty()
    send_mass_sms((f"+{NUMBER}", f"text {n}") for n in range(number))
    common.analyze()


def rate_of(number: int, code: str, *words: object) -> tuple[float, str]:
    """Run ``code`` in a process of its own; return messages a second, and what it printed."""
    output: list[str] = []

    def run() -> None:
        process = common.child(code, *words, attached=code is not BARE)
        output.append(process.communicate()[0])
        assert process.returncode == 0

    return number / common.seconds(run), output[0]


def pairs(latency: int, width: int, options: argparse.Namespace) -> Iterator[tuple[float, ...]]:
    """Messages a second of the bare pool (or the rate) and of the worker, and its queries."""
    number = options.number
    for turn in range(options.rounds):
        with common.Gateway(latency / 1000) as gateway:
            common.use(gateway)
            store(number)
            kinds = [] if options.rate else [(BARE, gateway.url, number, width)]
            kinds.append((WORKER, gateway.url, width, options.rate))
            found = [rate_of(number, *kind) for kind in kinds[:: -1 if turn % 2 else 1]]
            accepted, texts = gateway.close()
            assert accepted == texts == len(kinds) * number, "a message was lost or sent twice"
        ours, queries = found.pop(0 if turn % 2 else -1)
        if options.rate:
            yield per_second(options.rate), begun_per_second(), int(queries)
        else:
            yield found[0][0], ours, int(queries)


def begun_per_second() -> float:
    from django.db.models import Count, Max, Min

    from django_smska.models import SmsMessage

    begun = SmsMessage.objects.aggregate(
        first=Min("sending_at"), last=Max("sending_at"), number=Count("sending_at")
    )
    return float((begun["number"] - 1) / (begun["last"] - begun["first"]).total_seconds())


def per_second(rate: str) -> float:
    from django_smska.backends.base import parse_rate

    number = parse_rate(rate)
    assert number is not None
    return number


def measure(latency: int, options: argparse.Namespace) -> list[object]:
    width = options.width or WIDTHS.get(latency, 16)
    bares, ours, queries = zip(*pairs(latency, width, options), strict=True)
    ratios = [one / other for one, other in zip(ours, bares, strict=True)]
    limit = RATE_LIMIT if options.rate else LIMITS[latency]
    each = max(queries) / options.number
    return [
        f"{latency} ms",
        width,
        f"{statistics.median(bares):.0f}/s",
        f"{statistics.median(ours):.0f}/s",
        common.verdict(statistics.median(ratios), limit),
        " ".join(f"{ratio:.2f}" for ratio in sorted(ratios)),
        # Under a low rate messages go one by one: there is nothing to share a query with.
        f"{each:.2f}" if options.rate else common.verdict(each, 0.5, at_least=False),
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
    options = common.arguments(number=8000, width=0, rounds=3, latency=-1, rate="")
    latencies = list(LIMITS) if options.latency < 0 else [options.latency]
    with common.database():
        common.table(
            f"Sending {options.number} stored messages, process start included",
            ["gateway", "width", "bare pool" if not options.rate else "rate", "worker", "ratio"]
            + ["of each pair", "queries a message"],
            [measure(latency, options) for latency in latencies],
        )

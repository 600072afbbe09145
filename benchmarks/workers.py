"""Whether several worker processes are faster than one, and send nothing twice.

All send the same number of messages to a gateway in a process of its own. The numbers of workers
take turns, and the median of the rounds' ratios to one worker counts.
"""

from __future__ import annotations

import statistics

import common
from sending import store

LIMIT = 1.0
WORKER = """
from types import SimpleNamespace
from django.db import connection
from django_smska.worker import Worker
common.use(SimpleNamespace(url=sys.argv[1]), backend="send_only.SmsBackend")
connection.ensure_connection()
print("ready", flush=True)
sys.stdin.readline()
print(Worker(concurrency=int(sys.argv[2])).run_once()["sent"])
"""


def rate(workers: int, number: int, latency: int, width: int) -> float:
    """Messages a second, from the start of the workers' work to the end of the last one's."""
    from django_smska.models import SmsMessage

    with common.Gateway(latency / 1000) as gateway:
        common.use(gateway)
        common.empty()
        store(number)
        common.analyze()
        children = [common.child(WORKER, gateway.url, width) for _ in range(workers)]
        for one in children:
            assert one.stdout and one.stdout.readline() == "ready\n"
        sent: list[int] = []

        def work() -> None:
            for one in children:
                assert one.stdin
                one.stdin.write("go\n")
                one.stdin.flush()
            sent.extend(int(one.communicate()[0]) for one in children)

        seconds = common.seconds(work)
        accepted, texts = gateway.close()
        assert accepted == texts == number == sum(sent), f"{accepted}, {texts}, {sent}"
        assert SmsMessage.objects.filter(status="sent").count() == number
    return number / seconds


if __name__ == "__main__":
    options = common.arguments(number=5000, rounds=3, latency=20, width=16, workers="1,2,4")
    kinds = [int(kind) for kind in options.workers.split(",")]
    rates: dict[int, list[float]] = {kind: [] for kind in kinds}
    with common.database():
        for turn in range(options.rounds):
            for kind in kinds if turn % 2 else reversed(kinds):
                rates[kind].append(rate(kind, options.number, options.latency, options.width))
        common.table(
            f"Sending {options.number} messages, {options.width} at once in each worker,"
            f" gateway with {options.latency} ms",
            ["workers", "rate", "to one worker", "sent twice"],
            [
                [
                    kind,
                    f"{statistics.median(rates[kind]):.0f}/s",
                    common.verdict(
                        statistics.median(
                            many / one for many, one in zip(rates[kind], rates[1], strict=True)
                        ),
                        LIMIT,
                    ),
                    0,  # or the assertion had failed
                ]
                for kind in kinds
            ],
        )

"""How much more memory a worker takes where the queue is long.

Each worker is a process of its own that sends what is queued through the dummy backend, and is
stopped when it has sent enough; its peak is read at its end.
"""

from __future__ import annotations

import statistics

import common

LIMIT = 20  # MB
WORKER = """
from django.conf import settings
from django_smska.worker import Worker
settings.SMS_PROVIDERS = {"default": {"BACKEND": "django_smska.backends.dummy.SmsBackend"}}
most = int(sys.argv[1])
worker = Worker(progress=lambda done: worker.stop() if done.total() >= most else None)
done = worker.run_once()
print(done["sent"], common.peak())
"""


def queue(number: int) -> None:
    from django_smska.models import SmsMessage
    from django_smska.sms import send_mass_sms

    common.empty()
    first = min(number, 1000)
    send_mass_sms((f"+{79000000000 + n}", f"text {n}") for n in range(first))
    common.copy_rows(number)
    common.analyze()
    assert SmsMessage.objects.filter(status="queued").count() == number


def measure(number: int, most: int, runs: int) -> tuple[list[int], float]:
    sent, peaks = [], []
    for _ in range(runs):
        queue(number)
        out, _ = common.child(WORKER, most).communicate()
        sent.append(int(out.split()[0]))
        peaks.append(float(out.split()[1]))
    return sent, statistics.median(peaks)


if __name__ == "__main__":
    options = common.arguments(rows="1000,1000000", most=2000, runs=3)
    sizes = [int(size) for size in options.rows.split(",")]
    with common.database():
        found = [measure(size, options.most, options.runs) for size in sizes]
        least = found[0][1]
        common.table(
            "Peak memory of a worker, in MB, by messages in the queue",
            ["queued", "sent", "peak", "above the first"],
            [
                [
                    f"{size:,}",
                    "/".join(map(str, sorted(set(sent)))),
                    f"{peak:.1f}",
                    common.verdict(peak - least, LIMIT, at_least=False),
                ]
                for size, (sent, peak) in zip(sizes, found, strict=True)
            ],
        )

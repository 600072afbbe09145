"""What ``send_mass_sms`` costs above a bare ``bulk_create`` of rows that are ready.

Both store in batches of the same size, in one transaction, and take turns; the median of the
rounds' ratios counts. The memory is that of a process that does nothing else.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import common

LIMIT = 0.5
MEMORY = """
from mass import pairs
from django_smska.sms import send_mass_sms
send_mass_sms(pairs(1000))
before = common.peak()
assert send_mass_sms(pairs(int(sys.argv[1]))) == int(sys.argv[1])
print(common.peak() - before)
"""


def pairs(number: int) -> Iterator[tuple[str, str]]:
    return ((f"+{79000000000 + n}", f"Dear patient {n}, see you tomorrow.") for n in range(number))


def bare(number: int) -> float:
    from django.db import transaction

    from django_smska.models import SmsMessage
    from django_smska.sms import BATCH_ROWS

    ready = [SmsMessage(to=to, body=body, status="queued") for to, body in pairs(number)]
    for message in ready:
        message.prepare()

    def store() -> None:
        with transaction.atomic():
            SmsMessage.objects.bulk_create(ready, batch_size=BATCH_ROWS)

    return common.seconds(store)


def ours(number: int) -> float:
    from django_smska.sms import send_mass_sms

    return common.seconds(lambda: send_mass_sms(pairs(number)))


def measure(number: int, rounds: int) -> list[object]:
    times: dict[str, list[float]] = {"bare": [], "ours": []}
    for turn in range(rounds):
        actions = [("bare", bare), ("ours", ours)]
        for name, action in actions if turn % 2 else reversed(actions):
            common.empty()
            times[name].append(action(number))
    ratios = [bare / ours for bare, ours in zip(times["bare"], times["ours"], strict=True)]
    common.empty()
    growth, _ = common.child(MEMORY, number).communicate()
    return [
        *(f"{number / statistics.median(times[name]):.0f}/s" for name in times),
        common.verdict(statistics.median(ratios), LIMIT),
        f"{float(growth):.1f} MB",
    ]


if __name__ == "__main__":
    options = common.arguments(number=100_000, rounds=3)
    with common.database():
        common.table(
            f"Storing {options.number} messages",
            ["bulk_create", "send_mass_sms", "ratio", "memory above 1 000"],
            [measure(options.number, options.rounds)],
        )

"""Crashes of the database server under load: ``python -m tests.crashes postgresql --crashes 20``.

It starts a server of its own. Workers send through the stand-in gateway, people press Send, and
callers queue and send. The server crashes again and again, at whatever point they are. Afterwards
the gateway's ledger, the rows and what the callers were promised must agree.
"""

import argparse
import contextlib
import os
import random
import sys
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass

import django

from .chaos import ACCEPTED, Chaos, Plan
from .database_servers import SERVERS, START_SECONDS, PgBouncer

NO_VERDICT = 2  # of the exit codes
DISK_MB = 400  # of a server whose disk gets full: its own files need a half
OUTAGE_SECONDS = 1  # the longest wait until a caller meets an outage: one may be storing an outcome
NOTICE_SECONDS = 240  # the same for a full disk: pages of deleted versions have room for a while


@dataclass
class CrashPlan(Plan):
    """``kills``: how often the server crashes. The gateway is honest."""

    messages: int = 300
    away: float = 0  # seconds that the server is away after a crash
    full: bool = False  # its disk is full for a while, instead of a crash
    workers: int = 2
    callers: int = 2
    fault_rate: float = 0


class Callers(threading.Thread):
    """Queues and sends by turns as a view would, until it is stopped; notes what it was promised.

    What failed to be queued is queued again with its key until that works.

    :ivar promises: by text: *queued* or *sent*; what raised: *not sent* or *unknown*
    """

    def __init__(self, name):
        super().__init__(name=name, daemon=True)
        self.promises = {}
        self.unexpected = []
        self.met_outage = threading.Event()
        self.stopping = threading.Event()

    def run(self):
        from django.db import connections

        try:
            number = 0
            while not self.stopping.is_set():
                number += 1
                act = self.queue if number % 2 else self.send
                text = f"{self.name} {number}"
                self.promises[text] = act(text)
                self.stopping.wait(0.05)  # the rate of the load
        except Exception as error:
            self.unexpected.append(f"a caller met {error!r}")
        finally:
            connections.close_all()

    def queue(self, text):
        from django.db import Error, connections

        from django_smska.sms import queue_sms

        while True:
            try:
                queue_sms("+79041764995", text, idempotency_key=text)
                return "queued"
            except Error:  # as a request that fails; the next one has a new connection
                connections.close_all()
                self.met_outage.set()
                time.sleep(0.05)

    def send(self, text):
        from django.db import connections

        from django_smska.exceptions import SmsNotSent, SmsOutcomeUnknown
        from django_smska.sms import send_sms

        try:
            send_sms("+79041764995", text)
            return "sent"
        except SmsNotSent:
            promise = "not sent"
        except SmsOutcomeUnknown:
            promise = "unknown"
        connections.close_all()
        self.met_outage.set()
        return promise


class Crashes(Chaos):
    """Chaos whose strikes hit the server, not the workers: `in_flight` grows by all requests that
    may be in flight at once."""

    def __init__(self, plan, server, say=lambda line: None):
        super().__init__(plan, say)
        self.server = server
        self.callers = [Callers(f"caller {number}") for number in range(plan.callers)]

    def _store(self, number):
        reach_again()
        super()._store(number)

    def _strike(self, number):
        from django.db import connections

        if number == 0:
            for caller in self.callers:
                caller.start()
            self._wait(self.log.sends)
        plan = self.plan
        self.in_flight += plan.workers * plan.concurrency + plan.admins + plan.callers
        noticed = [caller.met_outage for caller in self.callers if plan.full or number % 2]
        for one in noticed:
            one.clear()
        if plan.full:
            self.counts["times that the disk was full"] += 1
            self._fill_until_noticed(noticed)
        else:
            self.counts["crashes of the server"] += 1
            self.server.crash()
        for one in noticed:  # by turns it is back at once, or is away for a while
            one.wait(OUTAGE_SECONDS)
        self.counts["callers that met it"] += sum(one.is_set() for one in noticed)
        time.sleep(plan.away)
        if plan.full:
            self.server.free_disk()
        else:
            self.server.start()
        connections.close_all()
        reach_again()

    def _fill_until_noticed(self, noticed):
        """Fill the disk, and again what a checkpoint or a vacuum gives back."""
        end = time.monotonic() + NOTICE_SECONDS
        while not any(one.is_set() for one in noticed) and time.monotonic() < end:
            self.server.fill_disk()
            fill_tables()
            noticed[0].wait(0.5)

    def _end(self):
        for caller in self.callers:
            caller.stopping.set()
        for caller in self.callers:
            caller.join()
        super()._end()

    def _sum_up(self):
        super()._sum_up()
        for caller in self.callers:
            self.found += caller.unexpected
            self.counts.update(f"promised: {promise}" for promise in caller.promises.values())
            self.found += broken_promises(self.gateway, caller.promises)


def fill_tables():
    """Use up the room that the server has reserved for its tables."""
    from django.db import Error, connection

    with contextlib.suppress(Error), connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS ballast (bytes text)")
        for size in (60_000, 1000):
            with contextlib.suppress(Error):
                while True:
                    cursor.execute("INSERT INTO ballast VALUES (%s)", ["x" * size])
    connection.close()


def reach_again():
    """Wait until a pooler knows that the server is back."""
    from django.db import OperationalError, connection

    end = time.monotonic() + START_SECONDS
    while True:
        try:
            with connection.cursor() as cursor:
                return cursor.execute("SELECT 1")
        except OperationalError:
            if time.monotonic() > end:
                raise
            connection.close()
            time.sleep(0.05)


def broken_promises(gateway, promises):
    """Return what callers were promised and did not get, as sentences."""
    from django_smska.models import SmsMessage

    times = Counter(entry.text for entry in gateway.accepted)
    rows = dict(SmsMessage.objects.values_list("body", "status"))
    # A user pressed Send, too: what is asked for as "now" fails where its process is cut off.
    pressed = set(SmsMessage.objects.filter(immediate=True).values_list("body", flat=True))
    kept = {
        "queued": lambda text: (
            rows.get(text) in ACCEPTED | {"unknown"}
            or (text in pressed and rows.get(text) == "failed" and times[text] == 0)
        ),
        "sent": lambda text: rows.get(text) in ACCEPTED and times[text] == 1,
        "not sent": lambda text: times[text] == 0,
        "unknown": lambda text: times[text] <= 1,
    }
    return [
        f"{text!r} was promised to be {promise}: its row is {rows.get(text)}, it was accepted "
        f"{times[text]} times"
        for text, promise in promises.items()
        if not kept[promise](text)
    ]


def read_arguments():
    parser = argparse.ArgumentParser(prog="python -m tests.crashes", description=__doc__)
    parser.add_argument("server", choices=SERVERS)
    parser.add_argument("--crashes", type=int, default=5)
    parser.add_argument("--messages", type=int, default=CrashPlan.messages)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument(
        "--careless", action="store_true", help="the server loses commits, to see it found"
    )
    parser.add_argument("--away", type=float, default=0, help="seconds it is away after a crash")
    parser.add_argument("--full", action="store_true", help="its disk is full, it does not crash")
    parser.add_argument("--pooled", action="store_true", help="PgBouncer is before PostgreSQL")
    return parser.parse_args()


def run(server, plan):
    """Play the plan on the server's fresh test database; return whether it was without a fault."""
    django.setup()
    from django.db import connection

    connection.creation.create_test_db(verbosity=0)
    connection.close()
    server.begin()
    begun = time.monotonic()
    chaos = Crashes(plan, server, say=lambda line: print(line, flush=True))
    found = chaos.run()
    print("\n".join(chaos.table()))
    print(f"{'seconds':36}{time.monotonic() - begun:.1f}")
    print("\n".join(chaos.crashes()))
    print("VIOLATIONS: " + "; ".join(found) if found else "no violation")
    connection.close()
    return not found


def main():
    options = read_arguments()
    plan = CrashPlan(
        kills=options.crashes,
        messages=options.messages,
        seed=options.seed,
        away=options.away,
        full=options.full,
        # A pooler gives others the connection that is cut. MariaDB 10.11 damages its indexes where
        # it kills a query on a full disk.
        cuts=not options.pooled and not options.full,
    )
    disk_mb = DISK_MB if options.full else None
    with (
        SERVERS[options.server](careless=options.careless, disk_mb=disk_mb) as server,
        contextlib.ExitStack() as more,
    ):
        front = more.enter_context(PgBouncer(server)) if options.pooled else server
        os.environ |= {"DJANGO_SETTINGS_MODULE": "tests.settings", "DATABASE_URL": front.url}
        print(f"crashes of {options.server}, seed {plan.seed}", flush=True)
        return verdict(server, plan)


def verdict(server, plan):
    """Return 0, 1 for a violation, or NO_VERDICT where the server has damaged its own tables, which
    InnoDB sometimes does on a full disk."""
    try:
        if run(server, plan):
            return 0
    except Exception:
        traceback.print_exc()
    if not (plan.full and server.is_damaged()):
        return 1
    print(f"NO VERDICT: the server has damaged its own tables\n{server.said()[-4000:]}")
    return NO_VERDICT


if __name__ == "__main__":
    sys.exit(main())

"""Chaos: workers that are killed, stopped and cut off, people who press Send, a gateway that lies.

``python -m tests.chaos --kills 50`` runs it on a fresh test database of ``DATABASE_URL``; the test
suite runs a short form. Afterwards the gateway's ledger and the rows must agree: `violations`.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass

import django

from django_smska.testing.gateway import FAULTS, StandInGateway

from .chaos_process import PLANTS, signature

#: What a row in these statuses says of the ledger; *unknown* says nothing.
ACCEPTED = {"sent", "delivered", "rejected", "expired", "deleted", "unconfirmed"}
NOT_ACCEPTED = {"draft", "queued", "claimed", "failed", "cancelled"}
#: After these a request is never repeated, whatever was its truth.
NO_ANSWER = {
    "reset_after_request",
    "close_without_answer",
    "silence",
    "cut_status_line",
    "cut_headers",
    "short_body",
    "http_500",
    "http_502",
    "http_503",
    "empty_body",
    "html_200",
}
#: They last until the client's deadline, or send much.
SLOW = {
    "silence",
    "tls_hang",
    "late",
    "endless_100",
    "byte_by_byte",
    "slow_body",
    "huge_body",
    "gzip_bomb",
}
NUMBERS = [f"790417649{end:02}" for end in range(20)]  # the ends have different fates


class Log:
    """What the gateway heard: the text and the fault's name of every send that it read."""

    def __init__(self):
        self.sends = []

    def note(self, request, line, fault):
        self.sends.append((request.form.get("Message"), fault.name if fault else ""))

    @property
    def doubtful(self):
        """Texts whose request met a fault that may leave a doubt whether it was accepted."""
        return {text for text, name in self.sends if name and FAULTS[name].group != "meaning"}

    def repeated(self):
        """Texts that were sent again after a request without a usable answer."""
        left, again = set(), set()
        for text, name in self.sends:
            if text in left:
                again.add(text)
            if name in NO_ANSWER:
                left.add(text)
        return again


def violations(gateway, log, texts, in_flight=0):
    """Return what the ledger and the rows say against each other, as sentences.

    ``texts``: all that was to be sent, each in one message; ``in_flight``: how many requests were
    at most in flight when workers were killed or stopped. Nothing may be at work any more.
    """
    from django_smska.models import SmsMessage

    ledger = {entry.id: entry.text for entry in gateway.accepted}
    times = Counter(ledger.values())
    stored = list(SmsMessage.objects.values_list("body", "status", "gateway_id"))
    rows = {body: status for body, status, _ in stored}
    found = {
        "accepted twice": [text for text, number in times.items() if number > 1],
        "lost": set(texts) - set(rows),
        "stored twice": [body for body, n in Counter(row[0] for row in stored).items() if n > 1],
        "accepted without a row": set(times) - set(rows),
        "called unsent, but accepted": [
            t for t, s in rows.items() if s in NOT_ACCEPTED and times[t]
        ],
        "called sent, but not accepted": [
            t for t, s in rows.items() if s in ACCEPTED and not times[t]
        ],
        "left unfinished": [t for t, s in rows.items() if s in ("queued", "claimed", "sending")],
        "under another's id": [
            body for body, _, key in stored if key in ledger and ledger[key] != body
        ],
        "repeated without an answer": log.repeated(),
    }
    problems = [f"{len(bad)} {what}, such as {min(bad)!r}" for what, bad in found.items() if bad]
    unread = gateway.sends - len(log.sends)  # struck by a fault before they were read
    unknown = {text for text, status in rows.items() if status == "unknown"}
    if len(unknown - log.doubtful) > in_flight + unread:
        problems.append(
            f"{len(unknown - log.doubtful)} unknown without a fault of the gateway; at most "
            f"{in_flight} were in flight, {unread} were struck unread"
        )
    return problems


class Nursery:
    """Starts children in another process, which is ready to: see `chaos_process`."""

    def __init__(self, settings, stderr=None, **env):
        from django.db import connection

        chaos = settings | {"DATABASE": str(connection.settings_dict["NAME"])}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos_process"],
            env=os.environ
            | {"DJANGO_SETTINGS_MODULE": "tests.settings", "SMSKA_CHAOS": json.dumps(chaos)}
            | env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        self.children = []

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        for child in self.children:
            child.kill()
        self.process.communicate()

    def ask(self, *words):
        print(*words, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def start(self, role, concurrency):
        child = Child(self, role, int(self.ask("start", role, concurrency)))
        self.children.append(child)
        return child


class Child:
    """Like ``Popen``; its id stays its own until it was waited for."""

    def __init__(self, nursery, role, pid):
        self.nursery, self.role, self.pid = nursery, role, pid
        self.code = None

    def poll(self):
        return self._ended("poll")

    def wait(self):
        return self._ended("wait")

    def _ended(self, how):
        if self.code is None and (code := self.nursery.ask(how, self.pid)) != "alive":
            self.code = int(code)
        return self.code

    def signal(self, number):
        if self.code is None:
            os.kill(self.pid, number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.wait()


@dataclass
class Plan:
    """What happens. ``every``: seconds between two kills; None: as soon as work goes on.

    ``lease``: real seconds, or None: the parent ends the leases of the dead and the stopped.
    """

    messages: int = 400
    workers: int = 3
    concurrency: int = 4
    admins: int = 2
    kills: int = 4
    every: float | None = None
    lease: float | None = None
    deadline: float = 15
    latency: float = 0.02
    fault_rate: float = 0.15
    slow_faults: bool = False
    seed: int = 1
    plant: str = ""
    cuts: bool = True  # connections are cut, too

    def faults(self):
        drawn = [name for name, kind in FAULTS.items() if kind.drawn and kind.on == "send"]
        return drawn if self.slow_faults else [name for name in drawn if name not in SLOW]


class Chaos:
    """One run of a plan on the current database; its result is `counts` and `found`."""

    def __init__(self, plan, say=lambda line: None):
        self.plan, self.say = plan, say
        self.dice = random.Random(plan.seed)
        self.log = Log()
        self.texts = [f"text {n}" for n in range(plan.messages)]
        self.stored = 0
        self.at_work = []
        self.frozen, self.thawing = None, None
        self.ended = set()  # process ids of the workers that ended on a signal
        self.in_flight = 0
        self.counts = Counter()
        self.found = []

    def run(self):
        """Play it; return the violations."""
        from django.test import override_settings

        plan = self.plan
        self.gateway = StandInGateway(
            balance=10**9,
            latency=plan.latency,
            fault_rate=plan.fault_rate,
            fault_names=plan.faults(),
            seed=plan.seed,
            on_send=self.log.note,
        )
        with (
            tempfile.TemporaryFile("w+") as stderr,
            self.gateway,
            override_settings(**self.settings(), SMSKA_LOCMEM_IN_TESTS=False),
        ):
            with Nursery(self.settings(), stderr, SMSKA_PLANT=plan.plant) as self.nursery:
                self._play()
            self._settle()
            stderr.seek(0)
            self.said = stderr.read()
            self._sum_up()
        return self.found

    def settings(self):
        plan = self.plan
        options = {
            "api_key": "test",
            "api_password": "test",
            "sender_id": "Test",
            "url": self.gateway.url,
            "connect_timeout": plan.deadline,
            "deadline": plan.deadline,
        }
        return {
            "SMS_PROVIDERS": {"default": {"OPTIONS": options}},
            "SMSKA_LEASE": plan.lease or 120,
            "SMSKA_MAX_ATTEMPTS": 50,
        }

    # ---- what happens

    def _play(self):
        plan = self.plan
        self._store(len(self.texts) // (plan.kills + 1))
        for role in ["worker"] * plan.workers + ["admin"] * plan.admins:
            self._start(role)
        self.gateway.wait_for(lambda: self.gateway.sends, 30)
        for number in range(plan.kills):
            self._store(len(self.texts) // (plan.kills + 1))
            self._wait(self.log.sends)
            self._strike(number)
            if self.dice.random() < 0.5 and plan.cuts:
                self.counts["connections cut"] += cut_connections(self.dice)
            if number % 10 == 9:
                self.say(f"{number + 1} kills, {self.stored} stored, {self.gateway.sends} sends")
        self._store(len(self.texts))
        self._wait(self.log.sends)
        self._end()

    def _store(self, number):
        """Store the next ones: four of five queued, the fifth a draft that waits for a person."""
        from django_smska.models import SmsMessage
        from django_smska.sms import send_mass_sms

        new = self.texts[self.stored : self.stored + number]
        self.stored += len(new)
        made = [SmsMessage(to="+" + self.dice.choice(NUMBERS), body=text) for text in new]
        drafts = made[::5]
        for draft in drafts:
            draft.prepare()
        SmsMessage.objects.bulk_create(drafts)
        send_mass_sms(one for n, one in enumerate(made) if n % 5)

    def _wait(self, sends):
        """Until the next strike; keep the circuit breaker closed and the queue due until then."""
        before, end = len(sends), time.monotonic() + (self.plan.every or 10)
        enough = len(self.texts) // (2 * (self.plan.kills + 1))
        while time.monotonic() < end:
            if self.plan.every is None and len(sends) - before >= enough:
                break
            self._keep_going()
            time.sleep(0.05)

    def _keep_going(self):
        """Open what the circuit breaker has closed, make due what waits, replace what has ended."""
        from django.utils import timezone

        from django_smska import circuit_breaker
        from django_smska.conflicts import repeat_conflicts
        from django_smska.models import SmsMessage

        circuit_breaker.note_success("default")
        now, every = timezone.now(), SmsMessage.objects
        waiting = every.filter(status="queued", send_after__gt=now)
        unreported = every.filter(status="sent", next_status_at__gt=now)
        repeat_conflicts(lambda: waiting.update(send_after=now))
        repeat_conflicts(lambda: unreported.update(next_status_at=now))
        for child in [child for child in self.at_work if child.poll() is not None]:
            self.counts[f"{child.role}s that ended without a signal"] += 1
            self._replace(child)

    def _strike(self, number):
        """Kill the worker that has worked longest; stop one now and then instead."""
        able = (one for one in self.at_work if one.role == "worker" and one is not self.frozen)
        victim = next(able)
        self.in_flight += self.plan.concurrency
        if number % 5 == 3 and self.frozen is None:
            self._freeze(victim)
            return
        self.counts["workers killed"] += 1
        victim.kill()
        self._lose_lease(victim)
        self._replace(victim)

    def _freeze(self, victim):
        """SIGSTOP for two leases, while the others go on."""
        self.counts["workers stopped"] += 1
        victim.signal(signal.SIGSTOP)
        self.frozen = victim
        # A timer's action: on SQLite the stopped one may hold the lock that this thread waits for.
        self.thawing = threading.Timer(2 * (self.plan.lease or 0.5), self._thaw)
        self.thawing.start()
        self._lose_lease(victim)

    def _thaw(self):
        os.kill(self.frozen.pid, signal.SIGCONT)  # nothing else ends or replaces it
        self.frozen = None

    def _lose_lease(self, process):
        if self.plan.lease is None:
            end_leases(token__startswith=signature(process.pid))

    def _start(self, role):
        self.at_work.append(self.nursery.start(role, self.plan.concurrency))

    def _replace(self, child):
        self.at_work.remove(child)
        self._start(child.role)

    # ---- how it ends

    def _end(self):
        """End all with SIGTERM."""
        if self.thawing is not None:
            self.thawing.join()
        for child in self.at_work:
            child.signal(signal.SIGTERM)
        for child in self.at_work:
            code = child.wait()
            if code == 0:
                self.ended.add(child.pid)
            elif code != -signal.SIGTERM:  # it came before the program was there to hear it
                self.counts["processes that ended badly"] += 1
        self.at_work = []

    def _settle(self):
        """All that is left goes on automatically: end the leases of the dead, and let one worker do
        what is due, with an honest gateway."""
        from django_smska import sending
        from django_smska.models import SmsMessage, rows
        from django_smska.worker import Worker

        self.gateway.unscript()
        held = SmsMessage.objects.filter(status="sending").values_list("token", flat=True)
        signatures = {signature(pid) for pid in self.ended}
        self.counts["left in flight after SIGTERM"] = sum(t[:8] in signatures for t in held)
        sending.enqueue(rows())
        for _ in range(100):
            end_leases()
            self._keep_going()
            try:
                Worker(concurrency=8).run_once()
            except Exception as error:
                self.found = [f"the last worker raised {error!r}"]
                break
            open_ones = ["queued", "claimed", "sending"]
            if not SmsMessage.objects.filter(status__in=open_ones).exists():
                break

    def _sum_up(self):
        from django_smska import circuit_breaker
        from django_smska.models import SmsMessage

        if (state := circuit_breaker.state_of("default")).is_paused:
            self.found.append(f"the provider is paused for {state.reason!r} after a good answer")
        self.found += violations(self.gateway, self.log, self.texts, self.in_flight)
        for what in (
            "workers that ended without a signal",
            "admins that ended without a signal",
            "processes that ended badly",
            "left in flight after SIGTERM",
        ):
            if self.counts[what]:
                self.found.append(f"{self.counts[what]} {what}")
        self.statuses = Counter(SmsMessage.objects.values_list("status", flat=True))

    def table(self):
        """The counts and the verdict, a line each."""
        unknown = self.statuses["unknown"]
        faults = sum(bool(name) for _, name in self.log.sends)
        lines = {
            "messages": len(self.texts),
            **self.counts,
            "sends begun": self.gateway.sends,
            "faults met": faults + self.gateway.sends - len(self.log.sends),
            "texts with a doubtful fault": len(self.log.doubtful),
            "accepted": len(self.gateway.accepted),
            **{f"rows {status}": number for status, number in sorted(self.statuses.items())},
            "unknown, and at most": f"{unknown} <= {self.in_flight} + "
            f"{len(self.log.doubtful) + self.gateway.sends - len(self.log.sends)}",
            "critical lines / tracebacks": f"{self.said.count('CRITICAL')} / "
            f"{self.said.count('Traceback')}",
        }
        return [f"{name:36}{value}" for name, value in lines.items()]

    def crashes(self):
        """What the processes said that no database that is away and no gateway explains."""
        kept = ("CRITICAL", "Traceback", " ")
        lines = self.said.splitlines()
        return [
            line
            for before, line in zip(["", *lines], lines, strict=False)
            if line.startswith(kept) or before.startswith(" ")
        ]


def end_leases(**held):
    """Let the leases end of what these hold."""
    from datetime import timedelta

    from django.utils import timezone

    from django_smska.models import SmsMessage

    past = timezone.now() - timedelta(seconds=1)
    SmsMessage.objects.filter(status__in=["claimed", "sending"], **held).update(lease_until=past)


def cut_connections(dice):
    """End one connection of the other processes to the database, or all; return how many."""
    from django.db import DatabaseError, connection

    others = {
        "postgresql": "SELECT pid FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        "mysql": "SELECT id FROM information_schema.processlist "
        "WHERE db = database() AND id <> connection_id()",
    }
    if connection.vendor not in others:
        return 0
    end = "SELECT pg_terminate_backend(%s)" if connection.vendor == "postgresql" else "KILL %s"
    with connection.cursor() as cursor:
        cursor.execute(others[connection.vendor])
        found = [key for (key,) in cursor.fetchall()]
        if found and dice.random() < 0.7:
            found = [dice.choice(found)]
        for key in found:
            with contextlib.suppress(DatabaseError):  # it has gone already
                cursor.execute(end, [key])
    return len(found)


# ---------------------------------------------------------------- the long form


def read_arguments():
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--concurrency", type=int, default=8, help="of each worker")
    parser.add_argument("--every", type=float, default=0.5, help="seconds between two kills")
    parser.add_argument("--lease", type=float, default=4, help="seconds that a claim holds")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--plant", default="", choices=PLANTS, help="a bug, to see it found")
    return parser.parse_args()


def main():
    options = read_arguments()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    from django.db import connection

    plan = Plan(**vars(options), deadline=1, slow_faults=True)
    print(f"chaos on {connection.vendor}, seed {plan.seed}", flush=True)
    own_name = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    begun = time.monotonic()
    try:
        chaos = Chaos(plan, say=lambda line: print(line, flush=True))
        found = chaos.run()
    finally:
        connection.creation.destroy_test_db(own_name, verbosity=0)
    print("\n".join(chaos.table()))
    print(f"{'seconds':36}{time.monotonic() - begun:.0f}")
    for line in chaos.crashes():
        print(line)
    print("VIOLATIONS: " + "; ".join(found) if found else "no violation")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

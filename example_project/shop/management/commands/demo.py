"""``manage.py demo``: every part of django-smska at work, against a gateway on this machine."""

import signal
import socket
import sqlite3
import sys
import threading
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from io import StringIO
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, connections
from django.utils.crypto import get_random_string
from tqdm import tqdm

from django_smska.models import ProviderState, SmsMessage
from django_smska.numbers import mask
from django_smska.sms import providers, send_mass_sms, send_sms
from django_smska.states import Status
from django_smska.testing.gateway import StandInGateway
from django_smska.worker import Worker

CREDITS = 1000
QUEUED = 50
ROUNDS = 5  # of asking for reports; the stand-in delivers at the second question

GOOD = "8 904 176-49-95"
WILL_BE_REJECTED = "+7 904 176-49-01"  # the stand-in rejects numbers that end in 01
BAD = "+7 904 176"


class Command(BaseCommand):
    help = (
        "Shows what django-smska does: sends through a stand-in gateway on this machine, checks "
        "the result, then serves the site and the admin. Nothing is really sent."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--no-serve", action="store_true", help="end after the check")
        parser.add_argument("--port", type=int, default=8000, help="for the site (default: 8000)")

    def handle(self, **options: Any) -> None:
        serve = not options["no_serve"]
        if not getattr(settings, "DEMO", False):
            raise CommandError("Run it as 'manage.py demo': it must not touch another database.")
        if serve:
            _refuse_busy(options["port"])
        with _alone():
            self._demo(serve, options["port"])

    def _demo(self, serve: bool, port: int) -> None:
        self._prepare()
        password = _make_admin()
        with StandInGateway(balance=CREDITS) as gateway:
            _send_through(gateway)
            self._report("Gateway", f"a stand-in on this machine, {_page(gateway)}")
            self._run(gateway)
            self._report("Admin login", f"name admin, password {password}")
            if serve:
                self._serve(gateway, port)

    def _prepare(self) -> None:
        self._say("django-smska: the demo. Nothing leaves this machine, nothing costs.")
        self._say("")
        call_command("migrate", verbosity=0)
        SmsMessage.objects.update(resend_of=None)
        SmsMessage.objects.all().delete()
        ProviderState.objects.all().delete()

    # --- the tour

    def _run(self, gateway: StandInGateway) -> None:
        before = self._balance()
        self._send_one(GOOD)
        self._send_one(WILL_BE_REJECTED)
        self._send_to_bad_number()
        self._queue_and_work(gateway)
        self._ask_for_reports()
        self._show_table()
        after = self._balance()
        call_command("sms_balance", stdout=StringIO())  # keeps it, for the admin to show
        self._check(gateway, before - after)

    def _balance(self) -> Decimal:
        balance = providers["default"].get_balance()
        self._report("Balance", f"{balance} credits")
        return balance

    def _send_one(self, number: str) -> None:
        # Exempt from SMSKA_LIMITS, because the demo may be run again at once.
        message = send_sms(number, "Ваш заказ №42 готов. Ждём вас!", exempt=True)
        self._report("send_sms", f"{mask(message.to)} is {message.status}, id {message.gateway_id}")

    def _send_to_bad_number(self) -> None:
        try:
            send_sms(BAD, "Ваш заказ №43 готов.")
        except ValidationError as error:
            words = " ".join(error.messages)
            self._report("send_sms", f"{BAD!r} is refused, nothing is stored: {words}")
        else:
            raise CommandError(f"{BAD!r} should have been refused.")

    def _queue_and_work(self, gateway: StandInGateway) -> None:
        bulk = ((f"+790417{10 + n:05d}", f"Скидка 10% по коду {1000 + n}") for n in range(QUEUED))
        self._report("send_mass_sms", f"{send_mass_sms(bulk, exempt=True)} messages are queued")
        gateway.latency = 0.1  # as over the internet, so that there is something to see
        with self._progress() as progress:
            done = Worker(concurrency=8, progress=progress).run_once()
        gateway.latency = 0
        self._report("sms_worker", f"{done['sent']} are sent, up to 8 at once")

    @contextmanager
    def _progress(self) -> Iterator[Callable[[Counter[str]], None]]:
        """A bar in a terminal, a line now and then elsewhere."""
        with tqdm(total=QUEUED, unit=" SMS", desc="sms_worker", disable=None) as bar:
            reported = 0

            def show(done: Counter[str]) -> None:
                nonlocal reported
                number = sum(done.values())
                bar.update(number - bar.n)
                if bar.disable and number // 10 > reported // 10:
                    reported = number
                    self._report("sms_worker", f"{number} of {QUEUED}")

            yield show

    def _ask_for_reports(self) -> None:
        """The daemon does this too, the first time 10 seconds after sending."""
        for _ in range(ROUNDS):
            waiting = SmsMessage.objects.filter(status=Status.SENT)
            if not waiting.exists():
                return
            self._report("refresh_status", _counted(waiting.refresh_status()))

    def _show_table(self) -> None:
        messages = list(SmsMessage.objects.order_by("id"))
        self._say("")
        self._say("  Number        Status     Segments  Id at the gateway")
        for message in messages[:5]:
            self._say(
                f"  {mask(message.to)}  {message.status:<9}  {message.segments:>8}  "
                f"{message.gateway_id}"
            )
        statuses = Counter(message.status for message in messages)
        self._say(f"  … {len(messages)} messages in all: {_counted(statuses)}")
        self._say("")

    # --- the check

    def _check(self, gateway: StandInGateway, spent: Decimal) -> None:
        """Compare what is stored with what the other side accepted."""
        messages = list(SmsMessage.objects.all())
        number, accepted = 2 + QUEUED, gateway.accepted
        statuses = Counter(str(message.status) for message in messages)
        ids = sorted(message.gateway_id for message in messages)
        facts = {
            f"{number} messages are stored": len(messages) == number,
            "one is rejected, all others are delivered": statuses
            == {"delivered": number - 1, "rejected": 1},
            f"the gateway accepted {number}": len(accepted) == number,
            "each text was accepted exactly once": all(_once(gateway, m) for m in messages),
            "both sides have the same ids": ids == sorted(entry.id for entry in accepted),
            f"{number} credits were spent": spent == number,
        }
        for fact, holds in facts.items():
            self._report("Check", f"{fact}: {'yes' if holds else 'NO'}")
        if not all(facts.values()):
            raise CommandError("Not all is as it should be.")
        self._report("Check", "all is as it should be")

    # --- the site

    def _serve(self, gateway: StandInGateway, port: int) -> None:
        site = f"http://127.0.0.1:{port}/"
        self._say("")
        self._report("The site", site)
        self._report("The admin", f"{site}admin/")
        self._report("The gateway", _page(gateway))
        self._report("A worker", "runs too; it asks for reports 10, 30, 90… s after sending")
        self._say("Ctrl-C ends.")
        self._say("")
        settings.DEMO_GATEWAY_PAGE = _page(gateway)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with _worker_beside():
                call_command("runserver", f"127.0.0.1:{port}", use_reloader=False)
        finally:
            self._say("The worker has ended, the gateway closes.")

    def _report(self, subject: str, words: str) -> None:
        self._say(f"{subject:<15} {words}")

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def _refuse_busy(port: int) -> None:
    """Say it now: runserver would only after the tour."""
    try:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        raise CommandError(f"Port {port}: {error}. Choose a free one with --port.") from error


@contextmanager
def _alone() -> Iterator[None]:
    """Two demos in one database would send each other's messages. The lock ends with the process,
    however it ends."""
    lock = sqlite3.connect(f"{settings.DATABASES['default']['NAME']}.lock", timeout=0)
    try:
        _lock(lock)
        yield
    finally:
        lock.close()


def _lock(lock: sqlite3.Connection) -> None:
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        raise CommandError("Another demo is running here. End it first, with Ctrl-C.") from error


def _make_admin() -> str:
    """Make the user "admin", or give the one of an earlier run a new password; return it."""
    admin, _ = get_user_model().objects.get_or_create(
        username="admin", defaults={"is_staff": True, "is_superuser": True}
    )
    password = get_random_string(12)
    admin.set_password(password)
    admin.save()
    return password


def _send_through(gateway: StandInGateway) -> None:
    provider = {
        "OPTIONS": {
            "api_key": gateway.api_key,
            "api_password": gateway.api_password,
            "sender_id": "Shop",
            "url": gateway.url,
        }
    }
    settings.SMS_PROVIDERS = dict.fromkeys(settings.SMS_PROVIDERS, provider)


def _page(gateway: StandInGateway) -> str:
    return f"http://{gateway.host}:{gateway.port}/"


def _once(gateway: StandInGateway, message: SmsMessage) -> bool:
    return gateway.times_accepted(message.to.removeprefix("+"), message.body) == 1


def _counted(statuses: dict[str, int]) -> str:
    return ", ".join(f"{number} {status}" for status, number in sorted(statuses.items()))


@contextmanager
def _worker_beside() -> Iterator[None]:
    """What ``manage.py sms_worker`` is on a real site: a process of its own."""
    worker = Worker()
    thread = threading.Thread(target=_work, args=[worker])
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join()


def _work(worker: Worker) -> None:
    while not worker.stopping.wait(2):
        try:
            worker.run_once()
        except DatabaseError as error:
            print(f"worker: {type(error).__name__}, trying again", file=sys.stderr)
        finally:
            connections.close_all()

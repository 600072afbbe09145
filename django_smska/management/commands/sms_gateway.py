"""``manage.py sms_gateway``: the stand-in gateway on loopback, for development."""

from __future__ import annotations

import signal
import threading
from argparse import ArgumentParser
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import quote, urlsplit

from django.core.management.base import BaseCommand, CommandError

from django_smska.numbers import mask
from django_smska.testing.faults import FAULTS, Fault
from django_smska.testing.gateway import Received, StandInGateway


class Command(BaseCommand):
    help = "Plays the SMS-ka gateway on loopback. No SMS is sent. Each send is printed."
    # The project's own settings may still be wrong when its developer needs a gateway.
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--host", default="127.0.0.1", help="loopback address (default: %(default)s)"
        )
        parser.add_argument(
            "--port", type=int, default=8009, help="0 for any free port (default: %(default)s)"
        )
        parser.add_argument("--api-key", default="test", help="login (default: %(default)s)")
        parser.add_argument(
            "--api-password", default="test", help="password (default: %(default)s)"
        )
        parser.add_argument(
            "--balance", default="1000", help="credits, one for each message (default: %(default)s)"
        )
        parser.add_argument(
            "--sender",
            action="append",
            metavar="NAME",
            help="an allowed sender; may be repeated (default: any that a phone can show)",
        )
        parser.add_argument(
            "--ledger", metavar="FILE", help="append each accepted message, as JSON"
        )
        parser.add_argument(
            "--latency", type=float, default=0, metavar="SECONDS", help="wait before each answer"
        )
        parser.add_argument(
            "--fault",
            action="append",
            default=[],
            metavar="NAME[:accepted|:not-accepted][@N]",
            help="a fault for the N-th send; without @N, for every send. May be repeated.",
        )
        parser.add_argument(
            "--fault-rate", type=float, default=0, help="share of requests with a random fault"
        )
        parser.add_argument("--seed", type=int, help="draw the same faults again")
        parser.add_argument("--list-faults", action="store_true", help="list the faults and exit")

    def handle(self, **options: Any) -> None:
        if options["list_faults"]:
            return self._list_faults()
        gateway = self._gateway(options)
        for text in options["fault"]:
            _script(gateway, text)
        try:
            gateway.start()
        except OSError as error:
            raise CommandError(f"Cannot start: {error}. {_advice(error)}") from error
        try:
            self._serve_until_stopped(gateway, options)
        finally:
            gateway.close()
        self._say(f"Closed. Messages accepted: {len(gateway.accepted)}.")

    def _gateway(self, options: dict[str, Any]) -> StandInGateway:
        names = "host port api_key api_password ledger latency fault_rate seed"
        try:
            return StandInGateway(
                balance=Decimal(options["balance"]),
                senders=options["sender"],
                on_send=self._show,
                **{name: options[name] for name in names.split()},
            )
        except InvalidOperation as error:
            raise CommandError(f"--balance {options['balance']} is not a number.") from error
        except ValueError as error:
            raise CommandError(str(error)) from error

    def _serve_until_stopped(self, gateway: StandInGateway, options: dict[str, Any]) -> None:
        ends = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(end, signal.default_int_handler) for end in ends]
        try:
            self._greet(gateway, options)
            threading.Event().wait()
        except KeyboardInterrupt:
            pass
        finally:
            for end, handler in zip(ends, before, strict=True):
                signal.signal(end, handler)

    def _greet(self, gateway: StandInGateway, options: dict[str, Any]) -> None:
        login = f"{quote(options['api_key'], '')}:{quote(options['api_password'], '')}"
        address = urlsplit(gateway.url)
        sender = quote((options["sender"] or ["Test"])[0], "")
        self._say(f"Stand-in SMS gateway: {gateway.url}")
        self._say(f"Accepted messages:    http://{address.netloc}/")
        self._say(f"SMS_URL=smska://{login}@{address.netloc}{address.path}?sender_id={sender}")
        self._say(
            "For the environment; in the settings: SMS_PROVIDERS = {'default':"
            " django_smska.conf.sms_url(os.environ['SMS_URL'])}"
        )
        if options["fault_rate"]:
            self._say(f"Faults are drawn with --seed {gateway.seed}")

    def _show(self, request: Received, line: str, fault: Fault | None) -> None:
        number = mask("+" + request.form.get("MSISDN", ""))
        played = f"  [{fault.name}]" if fault else ""
        self._say(f"{number}  {request.form.get('SenderID', '')}  {line}{played}")

    def _list_faults(self) -> None:
        for name, kind in FAULTS.items():
            truths = ", ".join("accepted" if truth else "not-accepted" for truth in kind.truths)
            self._say(f"{name:24} {kind.group:22} {truths}")

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def _advice(error: OSError) -> str:
    if error.filename is not None:  # of the ledger: an address has no name of a file
        return "Choose a ledger that can be written."
    return "Choose a free port with --port (0 for any), and a --host of this machine."


def _script(gateway: StandInGateway, text: str) -> None:
    """Script what "name[:accepted|:not-accepted][@N]" says."""
    rest, _, number = text.partition("@")
    name, _, truth = rest.partition(":")
    try:
        accepted = {"": None, "accepted": True, "not-accepted": False}[truth]
        fault = Fault(name, accepted)
        if number:
            gateway.script(int(number), fault)
        else:
            gateway.script_all(fault)
    except KeyError as error:
        raise CommandError(
            f"--fault {text}: write :accepted or :not-accepted, not :{truth}."
        ) from error
    except ValueError as error:
        hint = "See --list-faults; after @ comes a whole number."
        raise CommandError(f"--fault {text}: {error} {hint}") from error

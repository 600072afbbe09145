"""``manage.py sendtestsms NUMBER…``: does sending work? Like Django's ``sendtestemail``."""

from __future__ import annotations

import socket
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.utils import timezone, translation

from django_smska.exceptions import InvalidProvider, SmsError, SmsNotSent, SmsOutcomeUnknown
from django_smska.management.tables import (
    DatabaseCommand,
    given_number,
    note_of_test_run,
    require_tables,
)
from django_smska.models import SmsMessage
from django_smska.numbers import mask, normalize
from django_smska.providers import DEFAULT_ALIAS
from django_smska.sms import providers, send_sms
from django_smska.states import Status


class Command(DatabaseCommand):
    help = (
        "Sends a test SMS to each NUMBER and prints its outcome. Each costs as much as any SMS. "
        "Exits with 1 unless all were accepted."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "numbers",
            nargs="+",
            metavar="NUMBER",
            help="such as +79041764995; - reads one from a line of the input",
        )
        parser.add_argument(
            "--using",
            metavar="ALIAS",
            default=DEFAULT_ALIAS,
            help="provider of SMS_PROVIDERS (default: %(default)s)",
        )
        parser.add_argument("--text", help="instead of 'Test SMS from …'")
        parser.add_argument("--sender", default="", help="sender ID instead of the provider's own")

    def handle(self, **options: Any) -> None:
        try:
            providers[options["using"]]
        except InvalidProvider as error:
            raise CommandError(str(error)) from None
        require_tables()
        if note := note_of_test_run():
            self.stdout.write(note)
        numbers = [given_number(one).strip() for one in options["numbers"]]
        text = options["text"] if options["text"] is not None else _default_text()
        accepted = sum([self._send(number, text, options) for number in numbers])
        if accepted < len(numbers):
            raise CommandError(f"Accepted: {accepted} of {len(numbers)}.")

    def _send(self, number: str, text: str, options: dict[str, Any]) -> bool:
        try:
            message = send_sms(
                number, text, sender=options["sender"], using=options["using"], exempt=True
            )
        except ValidationError as error:
            # The number is shown as it was typed, so that the mistake can be seen.
            with translation.override(None):  # commands speak English
                self.stdout.write(f"{number}: nothing was sent. {' '.join(error.messages)}")
            return False
        except SmsOutcomeUnknown as error:
            words = f"OUTCOME UNKNOWN, it may have been sent. {error}"
            return self._say(number, f"{words}{_code(error)}", error.sms)
        except SmsNotSent as error:
            return self._say(number, f"not sent. {error}{_code(error)}", error.sms)
        except SmsError as error:
            return self._say(number, str(error), error.sms)
        return self._say(message.to, _outcome(message), message.pk, ok=_was_accepted(message))

    def _say(self, number: str, words: str, pk: Any = None, *, ok: bool = False) -> bool:
        row = f" (SMS {pk})" if pk is not None else ""
        self.stdout.write(f"{mask(normalize(number))}{row}: {words}")
        self.stdout.flush()
        return ok


def _code(error: SmsError) -> str:
    return f" (code {error.code})" if error.code else ""


def _default_text() -> str:
    return f"Test SMS from {socket.gethostname()[:60]}, {timezone.now():%Y-%m-%d %H:%M:%S}"


def _was_accepted(message: SmsMessage) -> bool:
    return message.status in (Status.SENT, Status.DELIVERED)


def _outcome(message: SmsMessage) -> str:
    """Return the status as text; another worker may have sent it."""
    if not _was_accepted(message):
        return f"stored, but not sent yet: it is {message.status}."
    return f"accepted as {message.gateway_id}." if message.gateway_id else "accepted."

"""``manage.py sms_person NUMBER``: print what is stored about a person."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.core.serializers.json import DjangoJSONEncoder

from django_smska import personal_data
from django_smska.management.tables import DatabaseCommand, given_number, require_tables


class Command(DatabaseCommand):
    help = (
        "Prints all that is stored about the person with this number, as a JSON list: messages, "
        "sent and received, with their texts and times, entries of the do-not-send list, what "
        "other apps store about it, such as a contact, mailings and templates with the number in "
        "their name or text, other texts of staff that have it, and erasures. A sensitive text "
        "that waits to be sent is left out."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("number", help="in any spelling, or - to read it from the input")

    def handle(self, **options: Any) -> None:
        require_tables()
        between = "[\n"
        try:
            for record in personal_data.records(given_number(options["number"])):
                words = json.dumps(record, cls=DjangoJSONEncoder, ensure_ascii=False)
                self.stdout.write(f"{between}{words}", ending="")
                between = ",\n"
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from None
        self.stdout.write("[]" if between == "[\n" else "\n]")

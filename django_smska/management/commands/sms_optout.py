"""``manage.py sms_optout``: add numbers to the do-not-send list, remove, list and import them."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError

from django_smska import opt_out
from django_smska.admin import recipients
from django_smska.management.tables import DatabaseCommand, require_tables
from django_smska.models import SmsOptOut
from django_smska.numbers import normalize
from django_smska.times import local

MAX_NUMBERS = 50_000  # the most numbers of one file
MAX_BAD_SHOWN = 20  # the most wrong lines that an error lists


class Command(DatabaseCommand):
    help = (
        "Keeps the do-not-send list. Numbers are accepted in any spelling; - reads them from the "
        "input, one per line, because other users of the machine see the arguments. A wrong number "
        "is an error, and then nothing is stored. What is on the list already, or not on it, does "
        "no harm, so that a call may be repeated."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        ways = ("add", "remove", "list", "import")
        parser.add_argument("way", choices=ways, help="add, remove, list or import")
        parser.add_argument(
            "what",
            nargs="*",
            metavar="NUMBER|FILE",
            help="numbers to add, remove or list (by default all), or a CSV or XLSX file to import",
        )
        parser.add_argument("--sender", default="", help="this sender ID alone; by default all")
        parser.add_argument("--reason", default="", help="of what is added, at most 200 characters")
        parser.add_argument(
            "--source", default="", help="where that comes from, at most 64 characters"
        )
        parser.add_argument(
            "--column", default="", help="the letter of the file's column; by default it is found"
        )
        parser.add_argument(
            "--skip-wrong",
            action="store_true",
            help="leave out what is no number in the file, and say so",
        )

    def handle(self, *, way: str, what: list[str], **options: Any) -> None:
        if way in ("add", "remove") and not what:
            raise CommandError(f"Write which numbers to {way}: sms_optout {way} NUMBER")
        if way == "import" and len(what) != 1:
            raise CommandError("Write one file: sms_optout import FILE")
        require_tables()
        try:
            getattr(self, f"_{way}")(what, options)
        except ValidationError as error:
            raise CommandError(_words(error)) from None

    def _add(self, what: list[str], options: dict[str, Any]) -> None:
        self._store(_numbers(what), options)

    def _import(self, what: list[str], options: dict[str, Any]) -> None:
        data = _read(Path(what[0]))
        column = recipients.column(data, options["column"].upper(), MAX_NUMBERS)
        found = recipients.read(column.lines, most=MAX_NUMBERS)
        wrong = [f"line {one.line}: {one.why}" for one in found.bad[:MAX_BAD_SHOWN]]
        if len(found.bad) > len(wrong):
            wrong.append(f"and {len(found.bad) - len(wrong)} more")
        if found.bad and not options["skip_wrong"]:
            raise CommandError(
                "\n".join([f"{len(found.bad)} entries are no numbers. Nothing was stored.", *wrong])
                + "\nCorrect the file, or leave them out with --skip-wrong."
            )
        for line in (*column.notes, *wrong):
            self.stderr.write(line)
        self._store(list(found.lines), options)
        if found.doubled:
            self.stdout.write(f"Twice in the file: {len(found.doubled)}.")

    def _store(self, numbers: list[str], options: dict[str, Any]) -> None:
        about = {name: options[name] for name in ("sender", "reason", "source")}
        added = opt_out.opt_out_many(numbers, **about)
        there = len(dict.fromkeys(numbers)) - added
        self.stdout.write(f"Added: {added}. On the list already: {there}.")

    def _remove(self, what: list[str], options: dict[str, Any]) -> None:
        numbers = _numbers(what)
        removed = sum(opt_out.opt_in(one, sender=options["sender"]) for one in numbers)
        self.stdout.write(f"Removed {removed} entries of {len(numbers)} numbers.")

    def _list(self, what: list[str], options: dict[str, Any]) -> None:
        for entry in _entries(_numbers(what), options["sender"]):
            at = f"{local(entry.created_at):%Y-%m-%d %H:%M}"
            cells = (entry.number or "erased", entry.sender, at, entry.source, entry.reason)
            self.stdout.write("\t".join(cells))


def _words(error: ValidationError) -> str:
    """Return what is wrong, and with which option."""
    if not hasattr(error, "error_dict"):
        return " ".join(error.messages)
    wrong = error.message_dict.items()
    return " ".join(f"--{name}: {' '.join(words)}" for name, words in wrong)


def _numbers(written: Iterable[str]) -> list[str]:
    """Return the numbers; for ``-`` those of the input."""
    words = [*written]
    if "-" in words:
        words = [*(one for one in words if one != "-"), *filter(str.strip, sys.stdin)]
    return [normalize(one) for one in words]


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(recipients.MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}.") from None


def _entries(numbers: list[str], sender: str) -> Iterator[SmsOptOut]:
    every = opt_out.entries().order_by("pk")
    every = every.filter(sender=sender) if sender else every
    if not numbers:
        yield from every.iterator(chunk_size=1000)
    for number in numbers:
        yield from opt_out.of_number(every, number)

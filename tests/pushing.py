"""A provider of the tests that pushes reports, can be asked, and loses its answers as it is asked.

What it knows stands in ``Pushing.known``: the phone network, so to speak.
"""

from __future__ import annotations

import json
import threading
from typing import Any

from django_smska.backends.base import BaseSmsBackend
from django_smska.exceptions import QueryFailed, SmsOutcomeUnknown, TemporaryFailure
from django_smska.receipts import Evidence, Inbound, Receipt, Report

PATH = f"{__name__}.Pushing"


class Pushing(BaseSmsBackend):
    """Accepts every message, and does with the answer what the message's text says: ``lost`` or
    ``refused`` (though it was accepted). ``before_answering`` is called with the message."""

    evidence = Evidence.ASKED
    reports_by = "push"
    webhook_answer = "thank you"
    known: dict[str, Report] = {}
    asked: list[str] = []
    lock = threading.Lock()
    before_answering: Any = staticmethod(lambda message: None)
    polled: Any = None

    def __init__(self, *, signature: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.signature = signature

    def send_message(self, message: Any) -> Receipt:
        with self.lock:
            the_id = f"p-{len(self.known) + 1}"
            self.known[message.reference] = Report("sent", "on its way", the_id)
        self.before_answering(message)
        if "lost" in message.body:
            raise SmsOutcomeUnknown(alias=self.alias, code="lost")
        if "refused" in message.body:
            raise TemporaryFailure(alias=self.alias)
        return Receipt(the_id if "without an id" not in message.body else "")

    def find(self, message: Any) -> Report | None:
        self.asked.append(message.reference)
        if "silent" in message.body:
            raise QueryFailed(alias=self.alias)
        return self.known.get(message.reference)

    def authenticate(self, request: Any) -> bool:
        return request.headers.get("X-Signature", "") == self.signature

    def parse_reports(self, request: Any) -> list[Report]:
        if request.method == "GET":
            return [Report(**request.GET.dict())]
        return [Report(**one) for one in json.loads(request.body)]

    def parse_inbound(self, request: Any) -> list[Inbound]:
        return [Inbound(**one) for one in json.loads(request.body)]


class AlsoPolled(Pushing):
    """Can be queried, too."""

    reports_by = "both"

    def get_status(self, message: Any) -> Report:
        return Report("sent", "polled")


class Reporting(Pushing):
    """Cannot be asked, but its reports carry the reference."""

    evidence = Evidence.REPORTED


class Mute(Pushing):
    """Says nothing of a message whose answer was lost."""

    evidence = Evidence.MUTE

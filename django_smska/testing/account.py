"""The customer's account at the stand-in gateway: its ledger, and the honest answers."""

from __future__ import annotations

import json
import os
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from decimal import Decimal

from django_smska.senders import can_be_shown

ERRORS = {
    -1: b"-1|Authentication failed. Your API Key, Password combination is not valid "
    b"or your account has been locked.",
    -2: b"-2|Your SenderID does not belong to your account.",
    -3: b"-3|Sent Error",
    -4: b"-4|Argument validation failed. One or more of your POST-Vars is invalid or missing.",
    -5: b"-5|Insufficient Credits. You do not have sufficient credits to send the message.",
    -6: b"-6|Invalid MSISDN. The mobile number is not valid or can not be reached via the API",
    -7: b"-7|Your SenderID is not valid.",
}
STATUSES = {
    "ACCEPTD": "3|ACCEPTD",
    "DELIVRD": "4|DELIVRD",
    "REJECTD": "5|REJECTD",
    "EXPIRED": "7|EXPIRED",
    "DELETED": "8|DELETED",
}
DELIVERED = ("3|ACCEPTD", "4|DELIVRD")
ENDINGS = {
    "01": ("3|ACCEPTD", "5|REJECTD"),
    "02": ("3|ACCEPTD", "7|EXPIRED"),
    "03": ("3|ACCEPTD", "8|DELETED"),
    "04": ("3|ACCEPTD",),
    "05": ("3|ACCEPTD", "4|DELIVRD", "3|ACCEPTD"),
    "06": ("3|ACCEPTD", "6|REJECTD"),
}


@dataclass(frozen=True)
class Received:
    """A request as it came; numbers count from 1, header names are in lower case."""

    number: int
    connection: int
    method: str
    target: str
    headers: dict[str, str]
    form: dict[str, str]
    body: bytes

    @property
    def sort(self) -> str:
        """What is requested: "send", "query", "balance", or else "GET" or the unknown Action."""
        return self.form.get("Action", "send") if self.method == "POST" else self.method


@dataclass(frozen=True)
class Accepted:
    """A message in the ledger.

    :param time: seconds since 1970
    :param request: a ``Received.number``
    """

    id: str
    msisdn: str
    text: str
    sender: str
    time: float
    request: int


class Account:
    """The customer's account with the provider: what is answered to a correct HTTP request.

    ``api_key``, ``api_password``, ``balance`` and ``senders`` may be changed at any time.
    """

    def __init__(
        self,
        api_key: str,
        api_password: str,
        balance: Decimal | int,
        senders: Iterable[str] | None,
        ledger: str | os.PathLike[str] | None,
    ) -> None:
        self.api_key = api_key
        self.api_password = api_password
        self.balance = Decimal(balance)
        if not self.balance.is_finite():
            raise ValueError(f"A balance is a finite number; {balance} is not.")
        self.senders = None if senders is None else set(senders)
        self._changed = threading.Condition()
        self._ledger = ledger
        self._accepted: dict[str, Accepted] = {}
        self._times: Counter[tuple[str, str]] = Counter()
        self._fates: dict[str, tuple[str, ...]] = {}
        self._asked: Counter[str] = Counter()

    @property
    def accepted(self) -> list[Accepted]:
        """The ledger so far, oldest first."""
        with self._changed:
            return list(self._accepted.values())

    def times_accepted(self, msisdn: str, text: str) -> int:
        """Return how often this text was accepted for this number (79041764995)."""
        with self._changed:
            return self._times[msisdn, text]

    def fate(self, msisdn: str, *statuses: str, after: int = 1) -> None:
        """Choose the answers to queries about a number's messages.

        :param statuses: words ("REJECTD") or whole statuses ("6|REJECTD"): one for each query, the
            last for ever
        :param after: how many queries are answered "3|ACCEPTD" before
        """
        if unknown := [word for word in statuses if "|" not in word and word not in STATUSES]:
            raise ValueError(f"No status {unknown[0]!r}. Use {', '.join(STATUSES)} or '6|REJECTD'.")
        chosen = tuple(STATUSES.get(word, word) for word in statuses)
        self._fates[msisdn.removeprefix("+")] = (STATUSES["ACCEPTD"],) * after + chosen

    def status(self, entry: Accepted) -> str:
        """Return the status that was reported last, or would be reported first."""
        fate = self._fates.get(entry.msisdn) or ENDINGS.get(entry.msisdn[-2:], DELIVERED)
        return fate[min(max(self._asked[entry.id] - 1, 0), len(fate) - 1)]

    def answer_to(self, request: Received) -> bytes:
        """Return the honest line, after the ledger was written."""
        with self._changed:
            return self._refusal(request) or getattr(self, f"_{request.sort}")(request)

    def _refusal(self, request: Received) -> bytes | None:
        form = request.form
        if "APIKey" not in form or "APIPassword" not in form:
            return ERRORS[-4]
        if (form["APIKey"], form["APIPassword"]) != (self.api_key, self.api_password):
            return ERRORS[-1]
        return None if request.sort in ("send", "query", "balance") else ERRORS[-4]

    def _balance(self, request: Received) -> bytes:
        return f"_0|Balance status|{Decimal(self.balance):f}".encode()

    def _query(self, request: Received) -> bytes:
        entry = self._accepted.get(request.form.get("BatchId", ""))
        if entry is None:
            return ERRORS[-4]
        self._asked[entry.id] += 1
        return f"0|Status|{self.status(entry)}".encode()

    def _send(self, request: Received) -> bytes:
        form = request.form
        if not (form.get("Message") and form.get("MSISDN") and form.get("SenderID")):
            return ERRORS[-4]
        if not re.fullmatch("79[0-9]{9}", form["MSISDN"]):
            return ERRORS[-6]
        if not self._allows(form["SenderID"]):
            return ERRORS[-7]
        return ERRORS[-5] if self.balance < 1 else self._accept_message(request)

    def _allows(self, sender: str) -> bool:
        return can_be_shown(sender) if self.senders is None else sender in self.senders

    def _accept_message(self, request: Received) -> bytes:
        form = request.form
        number, text, sender = form["MSISDN"], form["Message"], form["SenderID"]
        gateway_id = secrets.token_hex(9)[:17]
        entry = Accepted(gateway_id, number, text, sender, time.time(), request.number)
        self._write(entry)
        self._accepted[entry.id] = entry
        self._times[number, text] += 1
        self.balance -= 1
        self._changed.notify_all()
        return f"0|Message sent|{entry.id}|Balance status|{Decimal(self.balance):f}".encode()

    def _write(self, entry: Accepted) -> None:
        if not self._ledger:
            return
        with open(self._ledger, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry), ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

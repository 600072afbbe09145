"""SMSC.ru, as its HTTP API is documented: what it accepts, refuses, reports and pushes."""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import parse_qsl

from django.test import RequestFactory

from django_smska.exceptions import (
    AuthenticationFailed,
    GatewayBusy,
    InsufficientCredits,
    InvalidRecipient,
    InvalidRequest,
    TemporaryFailure,
)

from .counterpart import Counterpart
from .standin import Received, Taking, reply

LOGIN, PASSWORD, SECRET = "login-of-smsc", "password-of-smsc", "secret-of-smsc"
WORDS = {
    1: "parameters error",
    2: "authorise error",
    3: "not enough money",
    4: "ip is blocked",
    5: "date error",
    6: "message is denied",
    7: "invalid number",
    8: "message can't be delivered",
    9: "duplicate request, wait a minute",
}


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def error(code: int, **more: Any) -> bytes:
    return reply({"error": WORDS[code], "error_code": code, **more})


class Smsc(Counterpart):
    backend = "django_smska.backends.smsc"
    can = frozenset({"balance", "status", "find", "reports", "inbound"})
    secrets = (LOGIN, PASSWORD, SECRET)
    refusals = [
        (InvalidRequest, error(1)),
        (AuthenticationFailed, error(2)),
        (InsufficientCredits, error(3)),
        (GatewayBusy, error(4)),
        (InvalidRequest, error(5)),
        (InvalidRequest, error(6)),
        (InvalidRecipient, error(7)),
        (InvalidRecipient, error(8, id=17)),
        (TemporaryFailure, error(9)),
    ]
    statuses = {"sent": "0", "delivered": "1", "expired": "3", "rejected": "20"}

    def __init__(self) -> None:
        super().__init__()
        self.balance = 100.0
        self.status: dict[str, str] = {}  # by the id

    def options(self) -> dict[str, Any]:
        return {
            "login": LOGIN,
            "password": PASSWORD,
            "url": f"{self.url}/sys/",
            "secret": SECRET,
        }

    def wrong_login(self) -> dict[str, Any]:
        return {"password": "another-password"}

    def sends(self, request: Received) -> bool:
        return request.path == "/sys/send.php"

    def answer(self, request: Received) -> bytes:
        """Answer a form or a query; the password may come as its MD5, as clients of old send it."""
        fields = {**request.query, **dict(parse_qsl(request.body.decode(), keep_blank_values=True))}
        if fields.get("login") != LOGIN or fields.get("psw") not in (PASSWORD, md5(PASSWORD)):
            return error(2)
        if fields.get("fmt") != "3":
            return reply("ERROR = 1 (this stand-in writes only JSON)", kind="text/plain")
        play = {"send.php": self.send, "status.php": self.ask, "balance.php": self.say_balance}
        return play[request.path.removeprefix("/sys/")](fields)

    def send(self, fields: dict[str, str]) -> bytes:
        if not fields.get("phones") or not fields.get("mes") or fields.get("charset") != "utf-8":
            return error(1)
        if not fields["phones"].isdigit():
            return error(7)
        the_id = fields.get("id") or str(1000 + len(self.accepted))
        self.accepted.append(
            Taking(the_id, fields["phones"], fields["mes"], fields.get("sender", ""), the_id)
        )
        self.balance -= 2.5
        answer = {"id": int(the_id) if the_id.isdigit() else the_id, "cnt": 1}
        if fields.get("cost") == "3":
            answer |= {"cost": "2.5", "balance": f"{self.balance:.2f}"}
        return reply(answer)

    def ask(self, fields: dict[str, str]) -> bytes:
        found = [
            one
            for one in self.accepted
            if (one.id, one.number) == (fields["id"], fields["phone"].strip(","))
        ]
        if not found:
            return reply({"status": -3})
        status = int(self.status.get(fields["id"], "0"))
        return reply({"status": status, "last_timestamp": 1286524541, "err": 0})

    def say_balance(self, fields: dict[str, str]) -> bytes:
        return reply({"balance": f"{self.balance:.2f}"})

    def set_status(self, taking: Taking, word: str) -> None:
        self.status[taking.id] = word

    # --- what it pushes

    def report(self, taking: Taking, word: str) -> Any:
        fields = {"id": taking.id, "phone": taking.number, "status": word, "time": "1286524541"}
        signature = md5(f"{taking.id}:{taking.number}:{word}:{SECRET}")
        return post({**fields, "err": "0", "type": "0", "md5": signature})

    def forged(self, request: Any) -> list[Any]:
        fields = request.POST.dict()
        unsigned = {name: value for name, value in fields.items() if name != "md5"}
        signed = f"{fields['id']}:{fields['phone']}:{fields['status']}"
        return [
            post(unsigned),
            post({**fields, "md5": ""}),
            post({**fields, "md5": "я"}),
            post({**fields, "md5": fields["md5"][:-1]}),
            post({**fields, "status": "3"}),
            post({**fields, "id": fields["id"] + "1"}),
            post({**fields, "phone": "79041764982"}),
            post({**fields, "mes": "text", "to": "5555"}),
            post({**unsigned, "md5": md5(f"{signed}:another-secret")}),
            post({**unsigned, "md5": md5(f"{signed}:")}),
        ]

    def inbound(self, sender: str, to: str, body: str, the_id: str) -> Any:
        signature = md5(f"{sender}:{body}:{to}:{SECRET}")
        return post({"id": the_id, "phone": sender, "mes": body, "to": to, "md5": signature})


def post(fields: dict[str, str]) -> Any:
    return RequestFactory().post("/sms/default/key/report", fields)

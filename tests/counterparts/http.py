"""Acme, an imaginary provider with a JSON API, for the backend that settings describe.

::

    POST /messages            → 202 {"data": {"id", "price", "parts"}, "credits"}
    GET  /messages/ID         → 200 {"state"}, 404
    GET  /messages?own=OURS   → 200 {"found": [{"id", "state"}]}, 404 {"problem": "no such message"}
    GET  /account             → 200 {"credits"}
"""

from __future__ import annotations

import json
from typing import Any

from django.test import RequestFactory

from django_smska.exceptions import (
    AuthenticationFailed,
    GatewayBusy,
    InsufficientCredits,
    InvalidRecipient,
    InvalidRequest,
    InvalidSender,
    RecipientOptedOut,
    TemporaryFailure,
)

from .counterpart import Counterpart
from .standin import Received, Taking, reply

KEY = "key-of-the-imaginary-account"
PROBLEM = {"http": 400}


class Acme(Counterpart):
    backend = "django_smska.backends.http"
    can = frozenset({"balance", "status", "find", "reports"})
    secrets = (KEY,)
    refusals = [
        (AuthenticationFailed, reply({"problem": "key"}, 401)),
        (InsufficientCredits, reply({"problem": "credits"}, 402)),
        (GatewayBusy, reply("Slow down!", 429, kind="text/plain")),
        (InvalidRecipient, reply({"problem": "recipient"}, 400)),
        (InvalidRecipient, reply({"problem": "country"}, 400)),
        (RecipientOptedOut, reply({"problem": "stopped"}, 400)),
        (InvalidSender, reply({"problem": "sender"}, 400)),
        (InvalidRequest, reply({"problem": "text"}, 400)),
        (TemporaryFailure, reply({"problem": "later"})),
    ]
    statuses = {
        "sent": "accepted",
        "delivered": "arrived",
        "rejected": "refused",
        "expired": "too late",
        "deleted": "gone",
    }

    def __init__(self) -> None:
        super().__init__()
        self.states: dict[str, str] = {}

    def options(self) -> dict[str, Any]:
        login = {"Authorization": "Bearer {key}"}
        return {
            "secrets": {"key": KEY},
            "url": f"{self.url}/messages",
            "headers": login,
            "json": {
                "message": {"to": "{to}", "from": "{sender}", "text": "{text}"},
                "own": "{reference}",
            },
            "accepted": {"http": 202, "json": {"data.id": ".+"}},
            "refused": {
                "login": {"http": 401},
                "credits": {"http": 402},
                "busy": {"http": 429, "text": "^Slow"},
                "recipient": {**PROBLEM, "json": {"problem": ["recipient", "country"]}},
                "opted_out": {**PROBLEM, "json": {"problem": "stopped"}},
                "sender": {**PROBLEM, "json": {"problem": "sender"}},
                "request": {**PROBLEM, "json": {"problem": "text"}},
                "temporary": {"json": {"problem": "later"}},
            },
            "id": "data.id",
            "price": "data.price",
            "segments": "data.parts",
            "currency": "RUB",
            "balance": "credits",
            "code": "problem",
            "statuses": {ours: [word] for ours, word in self.statuses.items()},
            "status_query": {
                "url": f"{self.url}/messages/{{gateway_id}}",
                "headers": login,
                "status": "state",
            },
            "find_query": {
                "url": f"{self.url}/messages?own={{reference}}",
                "headers": login,
                "missing": {"http": 404, "json": {"problem": "no such message"}},
                "id": "found.*.id",
                "status": "found.*.state",
            },
            "balance_query": {
                "url": f"{self.url}/account",
                "headers": login,
                "balance": "credits",
            },
            "reports": {"each": "results", "reference": "own", "id": "id", "status": "state"},
        }

    def wrong_login(self) -> dict[str, Any]:
        return {"secrets": {"key": "another-key"}}

    def sends(self, request: Received) -> bool:
        return request.method == "POST"

    def answer(self, request: Received) -> bytes:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return reply({"problem": "key"}, 401)
        if request.method == "POST":
            return self.send(request.json)
        if request.path == "/account":
            return reply({"credits": "99.50"})
        own, the_id = request.query.get("own"), request.path.rpartition("/")[2]
        found = [
            {"id": one.id, "state": self.states.get(one.id, "accepted")}
            for one in self.accepted
            if own == one.reference or the_id == one.id
        ]
        if not found:
            return reply({"problem": "no such message"}, 404)
        return reply({"found": found} if own else found[0])

    def send(self, asked: Any) -> bytes:
        message, the_id = asked["message"], f"acme-{len(self.accepted) + 1}"
        number = message["to"].removeprefix("+")
        self.accepted.append(
            Taking(the_id, number, message["text"], message.get("from", ""), asked["own"])
        )
        data = {"id": the_id, "price": 1.25, "parts": 1}
        return reply({"data": data, "credits": 98.25}, 202)

    def set_status(self, taking: Taking, word: str) -> None:
        self.states[taking.id] = word

    def report(self, taking: Taking, word: str) -> Any:
        body = {"results": [{"own": taking.reference, "id": taking.id, "state": word}]}
        return push(body)


def push(body: Any) -> Any:
    return RequestFactory().post(
        "/sms/default/key/report", json.dumps(body), content_type="application/json"
    )

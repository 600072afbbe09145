"""Infobip's SMS API, version 3, for the contract that all backends keep."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from django.http import HttpRequest
from django.test import RequestFactory

from django_smska.exceptions import (
    AuthenticationFailed,
    GatewayBusy,
    GatewayUnreachable,
    InsufficientCredits,
    InvalidRecipient,
    InvalidRequest,
    InvalidSender,
    TemporaryFailure,
)
from django_smska.testing.faults import frame
from django_smska.webhook_urls import webhook_url

from .counterpart import Counterpart
from .standin import Received, Taking, reply

KEY = "api-key-of-infobip"
#: Group and id, by name.
STATUSES = {
    "PENDING_ENROUTE": (1, 7),
    "PENDING_ACCEPTED": (1, 26),
    "UNDELIVERABLE_NOT_DELIVERED": (2, 9),
    "DELIVERED_TO_OPERATOR": (3, 2),
    "DELIVERED_TO_HANDSET": (3, 5),
    "EXPIRED_EXPIRED": (4, 15),
    "REJECTED_NETWORK": (5, 6),
    "REJECTED_SOURCE": (5, 11),
    "REJECTED_NOT_ENOUGH_CREDITS": (5, 12),
    "REJECTED_SYSTEM_ERROR": (5, 21),
    "REJECTED_DUPLICATE_MESSAGE_ID": (5, 23),
    "REJECTED_MESSAGE_TOO_LONG": (5, 25),
    "REJECTED_DESTINATION": (5, 52),
    "REJECTED_OF_TOMORROW": (5, 999),
}
GROUPS = ("ACCEPTED", "PENDING", "UNDELIVERABLE", "DELIVERED", "EXPIRED", "REJECTED")


def status_of(name: str) -> dict[str, Any]:
    """Return Infobip's object for a status."""
    group, number = STATUSES[name]
    return {
        "groupId": group,
        "groupName": GROUPS[group],
        "id": number,
        "name": name,
        "description": "What it means",
    }


def answered(name: str, the_id: str = "message-1", number: str = "79041764981") -> dict[str, Any]:
    """Return the answer to a request with one message."""
    one = {
        "messageId": the_id,
        "status": status_of(name),
        "destination": number,
        "details": {"messageCount": 1},
    }
    return {"bulkId": "bulk-1", "messages": [one]}


def problem(status: int, code: str, text: str) -> bytes:
    """Return the older form of an error."""
    details = {"messageId": code, "text": text}
    return reply({"requestError": {"serviceException": details}}, status)


def newer_problem(status: int, code: str, text: str, violation: str) -> bytes:
    violations = [{"property": "messages[0].sender", "violation": violation}]
    return reply(
        {
            "errorCode": code,
            "description": text,
            "action": "Correct it.",
            "violations": violations,
            "resources": [],
        },
        status,
    )


class Infobip(Counterpart):
    """
    :ivar logs: the log's entries, by the message's id
    """

    backend = "django_smska.backends.infobip"
    can = frozenset({"balance", "status", "find", "reports", "inbound"})
    secrets = (KEY,)
    refusals = [
        (InvalidRecipient, reply(answered("REJECTED_NETWORK"))),
        (InvalidRecipient, reply(answered("REJECTED_DESTINATION"))),
        (InvalidSender, reply(answered("REJECTED_SOURCE"))),
        (InsufficientCredits, reply(answered("REJECTED_NOT_ENOUGH_CREDITS"))),
        (TemporaryFailure, reply(answered("REJECTED_SYSTEM_ERROR"))),
        (InvalidRequest, reply(answered("REJECTED_MESSAGE_TOO_LONG"))),
        (InvalidRequest, reply(answered("REJECTED_OF_TOMORROW"))),
        (InvalidRequest, problem(400, "BAD_REQUEST", "Bad Request")),
        (InvalidRequest, newer_problem(400, "E400", "Request cannot be processed.", "is empty")),
        (AuthenticationFailed, problem(401, "UNAUTHORIZED", "Invalid login details")),
        (AuthenticationFailed, newer_problem(403, "E403", "Forbidden.", "no scope")),
        (GatewayUnreachable, frame(b"<h1>Not Found</h1>", 404)),
        (GatewayBusy, problem(429, "TOO_MANY_REQUESTS", "Too many requests")),
    ]
    statuses = {
        "sent": "DELIVERED_TO_OPERATOR",
        "delivered": "DELIVERED_TO_HANDSET",
        "rejected": "UNDELIVERABLE_NOT_DELIVERED",
        "expired": "EXPIRED_EXPIRED",
    }

    def __init__(self) -> None:
        super().__init__()
        self.logs: dict[str, dict[str, Any]] = {}
        self._callback_data: dict[str, str] = {}

    def options(self) -> dict[str, Any]:
        return {"api_key": KEY, "url": self.url}

    def wrong_login(self) -> dict[str, Any]:
        return {"api_key": "another-key"}

    # --- the API

    def sends(self, request: Received) -> bool:
        return request.method == "POST"

    def answer(self, request: Received) -> bytes:
        if request.headers.get("authorization") != f"App {KEY}":
            return problem(401, "UNAUTHORIZED", "Invalid login details")
        match (request.method, request.path):
            case ("POST", "/sms/3/messages"):
                return self._send(request)
            case ("GET", "/sms/3/logs"):
                wanted = request.query["messageId"].split(",")
                found = [one for the_id, one in self.logs.items() if the_id in wanted]
                return reply({"results": found})
            case ("GET", "/account/1/balance"):
                return reply({"balance": 47.79134, "currency": "EUR"})
        return problem(404, "NOT_FOUND", "Not found")

    def _send(self, request: Received) -> bytes:
        if not request.headers["content-type"].startswith("application/json"):
            return problem(415, "UNSUPPORTED_MEDIA_TYPE", "JSON, please")
        ((message,), options) = request.json["messages"], request.json.get("options", {})
        (destination,) = message["destinations"]
        number, text = destination["to"], message["content"]["text"]
        the_id = destination.get("messageId") or f"made-here-{len(self.accepted) + 1}"
        if the_id in self.logs:
            return reply(answered("REJECTED_DUPLICATE_MESSAGE_ID", the_id, number))
        webhooks = message.get("webhooks", {})
        taking = Taking(
            the_id,
            number,
            text,
            message.get("sender", ""),
            destination.get("messageId", ""),
            webhooks.get("delivery", {}).get("url", ""),
        )
        self.accepted.append(taking)
        self.logs[the_id] = self._entry(taking)
        self._callback_data[the_id] = webhooks.get("callbackData", "")
        body = answered("PENDING_ACCEPTED", the_id, number)
        if not options.get("includeSmsCountInResponse"):
            del body["messages"][0]["details"]
        return reply(body)

    def _entry(self, taking: Taking) -> dict[str, Any]:
        return {
            "sender": taking.sender,
            "destination": taking.number,
            "bulkId": "bulk-1",
            "messageId": taking.id,
            "messageCount": 1,
            "price": {"pricePerMessage": 0.01, "currency": "EUR"},
            "status": status_of("PENDING_ENROUTE"),
            "content": {"text": taking.body},
        }

    def set_status(self, taking: Taking, word: str) -> None:
        self.logs[taking.id]["status"] = status_of(word)

    # --- webhooks

    def report(self, taking: Taking, word: str) -> HttpRequest:
        """A report names some of the log's fields otherwise, and has the callback data, too."""
        entry = {**self.logs[taking.id], "status": status_of(word)}
        entry["to"] = entry.pop("destination")
        entry["callbackData"] = self._callback_data[taking.id]
        del entry["content"]
        return pushed(taking.callback, [entry])

    def inbound(self, sender: str, to: str, body: str, the_id: str) -> HttpRequest:
        first, _, rest = body.partition(" ")
        one = {
            "messageId": the_id,
            "from": sender,
            "to": to,
            "text": body,
            "cleanText": rest,
            "keyword": first,
            "smsCount": 1,
        }
        return pushed(webhook_url("default", "inbound"), [one])


def pushed(url: str, results: list[dict[str, Any]]) -> HttpRequest:
    """Return Infobip's request as it comes through a proxy."""
    body = json.dumps({"results": results}, ensure_ascii=False)
    return RequestFactory().post(urlsplit(url).path, body, content_type="application/json")

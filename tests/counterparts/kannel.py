"""Kannel's smsbox, for the contract that all backends keep; ``test_kannel`` has the real one."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit
from xml.etree import ElementTree

from django.http import HttpRequest
from django.test import RequestFactory, override_settings

from django_smska.exceptions import (
    AuthenticationFailed,
    GatewayUnreachable,
    InvalidRecipient,
    InvalidRequest,
    InvalidSender,
)

from .counterpart import Counterpart
from .standin import Received, Taking, reply

USERNAME, PASSWORD = "login-of-kannel", "p<a>s&s-of-kannel%20"


def answer(status: int, text: str) -> bytes:
    return reply(text, status, kind="text/html")


class Kannel(Counterpart):
    backend = "django_smska.backends.kannel"
    can = frozenset({"reports", "inbound"})
    gives_ids = False
    refusals = [
        (AuthenticationFailed, answer(403, "Authorization failed for sendsms")),
        (InvalidRequest, answer(403, "Not routable. Do not try again.")),
        (InvalidRecipient, answer(400, "Missing receiver(s) number(s), rejected")),
        (
            InvalidRecipient,
            answer(400, "Number(s) has/have been denied by white- and/or black-lists."),
        ),
        (InvalidSender, answer(400, "Sender missing and no global set, rejected")),
        (InvalidRequest, answer(400, "Charset or body misformed, rejected")),
        (GatewayUnreachable, answer(404, "Unknown request.")),
    ]
    secrets = (USERNAME, PASSWORD)
    statuses = {"sent": "8", "delivered": "1", "rejected": "2", "expired": "34"}

    def __enter__(self) -> Any:
        self._settings = override_settings(SMSKA_PUBLIC_URL="https://shop.example")
        self._settings.enable()
        return super().__enter__()

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        self._settings.disable()

    def options(self) -> dict[str, Any]:
        url = f"{self.url}/cgi-bin/sendsms"
        return {"username": USERNAME, "password": PASSWORD, "url": url}

    def wrong_login(self) -> dict[str, Any]:
        return {"password": "another-password"}

    def sends(self, request: Received) -> bool:
        return True

    def answer(self, request: Received) -> bytes:
        """Read the XML as Kannel does: values without the blanks around them, the text decoded."""
        submit = ElementTree.fromstring(request.body).find("submit")
        assert submit is not None

        def value(path: str) -> str:
            return (submit.findtext(path) or "").strip()

        if (value("from/user"), value("from/pass")) != (USERNAME, PASSWORD):
            return answer(403, "Authorization failed for sendsms")
        callback = value("statusrequest/dlr-url")
        query = dict(part.split("=") for part in urlsplit(callback).query.split("&"))
        taking = Taking(
            id="",
            number=value("da/number").lstrip("+"),
            body=unquote_to_bytes(value("ud").replace("+", " ")).decode(),
            sender=value("oa/number"),
            reference=query["reference"],
            callback=callback,
        )
        self.accepted.append(taking)
        return answer(202, "0: Accepted for delivery")

    def report(self, taking: Taking, word: str) -> HttpRequest:
        filled = taking.callback.replace("%d", word).replace("%k", "id%3A17").replace("%%", "%")
        return RequestFactory().get(filled.removeprefix("https://shop.example"))

    def inbound(self, sender: str, to: str, body: str, the_id: str) -> HttpRequest:
        return RequestFactory().post(
            f"/sms/default/KEY/inbound/?id={the_id}",
            body.encode("utf-16-be"),
            content_type='text/plain; charset="UTF-16BE"',
            headers={"X-Kannel-From": sender, "X-Kannel-To": to},
        )

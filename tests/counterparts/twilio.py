"""Twilio's Messages and Balance, for the contract that all backends keep."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import datetime, timezone
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from django.http import HttpRequest
from django.test import RequestFactory

from django_smska import conf
from django_smska.exceptions import (
    AuthenticationFailed,
    GatewayBusy,
    GatewayUnreachable,
    InvalidRecipient,
    InvalidRequest,
    InvalidSender,
    RecipientOptedOut,
    TemporaryFailure,
)
from django_smska.testing.faults import frame
from django_smska.webhook_urls import webhook_url

from .counterpart import Counterpart
from .standin import Received, Taking, reply

# Letters alone, so that no port is found in them.
SID = "AC" + "bcdefabcfedcbafe" * 2
TOKEN = "fedbacafebadecafdeafbeefcabbedda"
SERVICE = "MG" + "abbafaceabbaface" * 2


def problem(code: int, message: str, status: int = 400) -> bytes:
    """Return the answer by which Twilio refuses a request."""
    more = f"https://www.twilio.com/docs/errors/{code}"
    return reply({"code": code, "message": message, "more_info": more, "status": status}, status)


def signature(url: str, form: dict[str, str], key: str = TOKEN, digest: Any = hashlib.sha1) -> str:
    """Return what Twilio's pages on the security of webhooks describe."""
    signed = url + "".join(name + form[name] for name in sorted(form))
    return base64.b64encode(hmac.new(key.encode(), signed.encode(), digest).digest()).decode()


class Twilio(Counterpart):
    """
    :ivar rows: the Message resources, oldest first
    """

    backend = "django_smska.backends.twilio"
    can = frozenset({"balance", "status", "find", "reports", "inbound"})
    secrets = (TOKEN,)  # the account's SID stands in each address
    refusals = [
        (AuthenticationFailed, problem(20003, "Authenticate", 401)),
        (AuthenticationFailed, problem(20005, "Account not active", 403)),
        (AuthenticationFailed, frame(b"Unauthorized", 401)),
        (GatewayUnreachable, frame(b"<h1>Not Found</h1>", 404)),
        (GatewayBusy, problem(20429, "Too Many Requests", 429)),
        (GatewayBusy, frame(b"slow down", 429)),
        (InvalidRecipient, problem(21211, "Invalid 'To' Phone Number")),
        (InvalidRecipient, problem(21614, "'To' number is not a valid mobile number")),
        (RecipientOptedOut, problem(21610, "Attempt to send to unsubscribed recipient")),
        (InvalidSender, problem(21606, "The 'From' number is not SMS-capable")),
        (InvalidRequest, problem(21617, "The message body exceeds the limit")),
        (InvalidRequest, problem(29999, "What no table has")),
        (TemporaryFailure, problem(21611, "The queue of this 'From' number is full", 429)),
    ]
    statuses = {
        "sent": "sending",
        "delivered": "delivered",
        "rejected": "undelivered",
        "deleted": "canceled",
    }

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []

    def options(self) -> dict[str, Any]:
        return {"account_sid": SID, "auth_token": TOKEN, "url": self.url}

    def wrong_login(self) -> dict[str, Any]:
        return {"auth_token": "another-token"}

    # --- the API

    def sends(self, request: Received) -> bool:
        return request.method == "POST"

    def answer(self, request: Received) -> bytes:
        login = base64.b64encode(f"{SID}:{TOKEN}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {login}":
            return problem(20003, "Authenticate", 401)
        _, version, accounts, sid, *rest = request.path.split("/")
        if (version, accounts, sid) != ("2010-04-01", "Accounts", SID):
            return problem(20404, "The requested resource was not found", 404)
        match (request.method, *rest):
            case ("POST", "Messages.json"):
                return self._create(request)
            case ("GET", "Messages.json"):
                return self._list(request.query)
            case ("GET", "Messages", name):
                found = [row for row in self.rows if f"{row['sid']}.json" == name]
                return reply(found[0]) if found else problem(20404, "Not found", 404)
            case ("GET", "Balance.json"):
                return reply({"account_sid": SID, "balance": "12.345", "currency": "USD"})
        return problem(20404, "The requested resource was not found", 404)

    def _create(self, request: Received) -> bytes:
        form = request.form
        if request.headers["content-type"] != "application/x-www-form-urlencoded":
            return problem(20001, "Unsupported media type", 415)
        if not form.get("To"):
            return problem(21604, "A 'To' phone number is required.")
        if not (form.get("From") or form.get("MessagingServiceSid")):
            return problem(21603, "A 'From' phone number is required.")
        if not form.get("Body"):
            return problem(21602, "Message body is required.")
        row = self.add(
            to=form["To"],
            body=form["Body"],
            sender=form.get("From"),
            service=form.get("MessagingServiceSid"),
        )
        callback = form.get("StatusCallback", "")
        reference = parse_qs(urlsplit(callback).query).get("reference", [""])[0]
        number = form["To"].lstrip("+")
        sender = form.get("From", "")
        self.accepted.append(Taking(row["sid"], number, form["Body"], sender, reference, callback))
        return reply(row, 201)

    def add(
        self,
        *,
        to: str,
        body: str,
        sender: str | None = None,
        service: str | None = None,
        made: datetime | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """Keep a Message resource, and return it."""
        row = {
            "sid": f"SM{len(self.rows) + 1:032x}",
            "account_sid": SID,
            "to": to,
            "from": sender,
            "messaging_service_sid": service,
            "body": body,
            "status": "accepted" if service else "queued",
            "direction": "outbound-api",
            "date_created": format_datetime(made or datetime.now(timezone.utc)),
            "date_sent": None,
            "num_segments": "0" if service else "1",
            "num_media": "0",
            "price": None,
            "price_unit": "USD",
            "error_code": None,
            "error_message": None,
            "api_version": "2010-04-01",
            **more,
        }
        self.rows.append(row)
        return row

    def _list(self, query: dict[str, str]) -> bytes:
        wanted = [
            row
            for row in reversed(self.rows)
            if query.get("To", row["to"]) == row["to"]
            and query.get("From", row["from"]) == row["from"]
        ]
        size = int(query.get("PageSize", 50))
        more = f"/2010-04-01/Accounts/{SID}/Messages.json?Page=1" if len(wanted) > size else None
        return reply({"messages": wanted[:size], "next_page_uri": more, "page_size": size})

    def set_status(self, taking: Taking, word: str) -> None:
        (row,) = [row for row in self.rows if row["sid"] == taking.id]
        row["status"] = word

    # --- webhooks

    def report(self, taking: Taking, word: str) -> HttpRequest:
        form = {
            "AccountSid": SID,
            "ApiVersion": "2010-04-01",
            "From": taking.sender,
            "MessageSid": taking.id,
            "MessageStatus": word,
            "SmsSid": taking.id,
            "SmsStatus": word,
            "To": f"+{taking.number}",
        }
        return pushed(taking.callback, form)

    def inbound(self, sender: str, to: str, body: str, the_id: str) -> HttpRequest:
        form = {
            "AccountSid": SID,
            "Body": body,
            "From": f"+{sender}",
            "MessageSid": the_id,
            "NumMedia": "0",
            "NumSegments": "1",
            "SmsStatus": "received",
            "To": to,
        }
        return pushed(webhook_url("default", "inbound"), form)

    def forged(self, request: HttpRequest) -> list[HttpRequest]:
        url = conf.public_url() + request.get_full_path()
        form = dict(request.POST.items())
        right = request.headers["X-Twilio-Signature"]
        later = {**form, "MessageStatus": "read"}
        return [
            pushed(url, form, ""),
            pushed(url, form, right[::-1]),
            pushed(url, later, right),
            pushed(url, {**form, "ErrorCode": "30007"}, right),
            pushed(f"{url}x", form, right),
            pushed(f"{url.partition('?')[0]}?reference=another", form, right),
            pushed(url, form, signature(url, form, "another-token")),
            pushed(url, form, signature(f"http://testserver{request.get_full_path()}", form)),
        ]


def pushed(url: str, form: dict[str, str], signed: str | None = None) -> HttpRequest:
    """Return Twilio's request as it comes through a proxy: its host is not the public one.

    :param signed: another signature than the right one
    """
    parts = urlsplit(url)
    return RequestFactory().post(
        f"{parts.path}?{parts.query}" if parts.query else parts.path,
        urlencode(form),
        content_type="application/x-www-form-urlencoded",
        headers={"X-Twilio-Signature": signature(url, form) if signed is None else signed},
    )

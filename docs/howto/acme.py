"""Sends through Acme, an imaginary provider with a JSON API. Copy this file and change it.

POST /messages   {"to": …, "from": …, "text": …}   → 201 {"id": "…", "credits": "99.50"}
GET  /messages/ID                                  → 200 {"state": "delivered"}
GET  /account                                      → 200 {"credits": "99.50"}
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

import requests
from django.core.checks import CheckMessage, Error
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from django_smska.backends.base import BaseSmsBackend
from django_smska.exceptions import (
    AuthenticationFailed,
    GatewayBusy,
    GatewayUnreachable,
    InsufficientCredits,
    InvalidRecipient,
    QueryFailed,
    SmsOutcomeUnknown,
)
from django_smska.receipts import Receipt, Report

#: What the provider documents as "not accepted". Every other answer is a doubt.
REFUSALS = {
    401: AuthenticationFailed,
    402: InsufficientCredits,
    422: InvalidRecipient,
    429: GatewayBusy,
}
#: The provider's words for the end of a message.
STATES = {"delivered": "delivered", "undeliverable": "rejected", "too_late": "expired"}


class SmsBackend(BaseSmsBackend):
    """OPTIONS: ``token``; ``sender_id``; ``url``."""

    #: The longest that one send may take, in seconds: here 5 to connect and 20 to answer.
    deadline = 25

    def __init__(
        self,
        *,
        token: str = "",
        sender_id: str = "",
        url: str = "https://api.acme.example",
        alias: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(alias=alias, **kwargs)  # what is left over is refused
        self.token = token
        self.sender_id = sender_id
        self.url = url
        self.session: requests.Session | None = None

    def open(self) -> bool:
        if self.session is not None:
            return False
        self.session = requests.Session()
        self.session.trust_env = False  # no proxy and no .netrc from the environment
        self.session.headers["Authorization"] = f"Bearer {self.token}"
        return True

    def close(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            session.close()

    def send_message(self, message: Any) -> Receipt:
        body = {"to": message.to, "from": message.sender or self.sender_id, "text": message.body}
        answer = self.request("POST", "/messages", json=body)
        code = answer.status_code
        if refusal := REFUSALS.get(code):
            raise refusal(alias=self.alias, code=str(code), answered=code != 401)
        if code != 201:
            raise SmsOutcomeUnknown(alias=self.alias, code=f"http-{code}")
        accepted = parsed(answer)
        return Receipt(gateway_id=str(accepted.get("id", "")), balance=credits(accepted))

    def get_status(self, message: Any) -> Report:
        state = str(self.ask(f"/messages/{message.gateway_id}").get("state", ""))
        return Report(status=STATES.get(state, "sent"), raw=state)

    def get_balance(self) -> Decimal:
        balance = credits(self.ask("/account"))
        if balance is None:
            raise QueryFailed(alias=self.alias)
        return balance

    def check(self) -> list[CheckMessage]:
        if self.token:
            return []
        text = f"SMS_PROVIDERS[{self.alias!r}] has no 'token'."
        return [Error(text, hint="Put Acme's token in OPTIONS.", id="acme.E001")]

    def request(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """Send one request, once: no retries, no redirects."""
        opened = self.open()
        assert self.session is not None
        try:
            return self.session.request(
                method, self.url + path, timeout=(5, 20), allow_redirects=False, **kwargs
            )
        except requests.RequestException as error:  # its text may hold the request
            if was_not_connected(error):
                raise GatewayUnreachable(alias=self.alias, code="connect") from None
            raise SmsOutcomeUnknown(alias=self.alias, code=type(error).__name__) from None
        finally:
            if opened:
                self.close()

    def ask(self, path: str) -> dict[str, Any]:
        """Ask something that changes nothing, so that no doubt can arise."""
        try:
            answer = self.request("GET", path)
        except SmsOutcomeUnknown as error:
            raise QueryFailed(alias=self.alias, code=error.code) from None
        if answer.status_code != 200:
            raise QueryFailed(alias=self.alias, code=str(answer.status_code))
        return parsed(answer)


def was_not_connected(error: requests.RequestException) -> bool:
    """Return whether urllib3 says that no connection was made, so that nothing was written."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(reason, (NewConnectionError, ConnectTimeoutError))


def parsed(answer: requests.Response) -> dict[str, Any]:
    try:
        value = answer.json()
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def credits(account: dict[str, Any]) -> Decimal | None:
    try:
        return Decimal(str(account["credits"]))
    except (KeyError, InvalidOperation):
        return None

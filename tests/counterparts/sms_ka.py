"""SMS-ka, as the stand-in gateway plays it, for the contract that all backends keep."""

from __future__ import annotations

from typing import Any

from django_smska.exceptions import (
    AuthenticationFailed,
    InsufficientCredits,
    InvalidRecipient,
    InvalidRequest,
    InvalidSender,
    TemporaryFailure,
)
from django_smska.testing.account import ERRORS, Account
from django_smska.testing.account import Received as Asked
from django_smska.testing.faults import frame

from .counterpart import Counterpart
from .standin import Received, Taking

LOGIN, PASSWORD = "login-of-sms-ka", "password-of-sms-ka"


class SmsKa(Counterpart):
    backend = "django_smska.backends.smska"
    can = frozenset({"balance", "status"})
    secrets = (LOGIN, PASSWORD)
    refusals = [
        (AuthenticationFailed, frame(ERRORS[-1])),
        (InvalidSender, frame(ERRORS[-2])),
        (TemporaryFailure, frame(ERRORS[-3])),
        (InvalidRequest, frame(ERRORS[-4])),
        (InsufficientCredits, frame(ERRORS[-5])),
        (InvalidRecipient, frame(ERRORS[-6])),
    ]
    statuses = {
        "sent": "ACCEPTD",
        "delivered": "DELIVRD",
        "rejected": "REJECTD",
        "expired": "EXPIRED",
        "deleted": "DELETED",
    }

    def __init__(self) -> None:
        super().__init__()
        self.account = Account(LOGIN, PASSWORD, 1000, None, None)

    def options(self) -> dict[str, Any]:
        return {"api_key": LOGIN, "api_password": PASSWORD, "url": f"{self.url}/api/httppost.php"}

    def wrong_login(self) -> dict[str, Any]:
        return {"api_password": "another-password"}

    def sends(self, request: Received) -> bool:
        return "Message" in request.form

    def answer(self, request: Received) -> bytes:
        asked = Asked(
            number=len(self.requests),
            connection=1,
            method=request.method,
            target=request.target,
            headers=dict(request.headers),
            form=request.form,
            body=request.body,
        )
        line = self.account.answer_to(asked)
        for one in self.account.accepted[len(self.accepted) :]:
            self.accepted.append(Taking(one.id, one.msisdn, one.text, one.sender))
        return frame(line)

    def set_status(self, taking: Taking, word: str) -> None:
        self.account.fate(taking.number, word, after=0)

"""SMSC.ru, over its HTTP API. Its answers come in JSON because the requests ask for it (fmt=3)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.utils.crypto import constant_time_compare

from ..exceptions import (
    AuthenticationFailed,
    GatewayBusy,
    InsufficientCredits,
    InvalidRecipient,
    InvalidRequest,
    QueryFailed,
    SmsError,
    SmsNotSent,
    SmsOutcomeUnknown,
    TemporaryFailure,
    gettext_noop,
)
from ..exchange import Answer, Request, clean, decode
from ..json_answers import (
    answered_object,
    no_query,
    number_of,
    refused_by_status,
    text_of,
    unclear,
)
from ..receipts import Evidence, Inbound, Receipt, Report
from ..redact import Hidden
from .over_http import HttpBackend

if TYPE_CHECKING:
    from django.http import HttpRequest

LOGIN_REFUSED = gettext_noop(
    "SMSC.ru refused the login. Correct 'login' and 'password' in the settings, or allow the "
    "address of this host in the account."
)
DEFAULT_URL = "https://smsc.ru/sys/"
#: SMSC.ru refuses the same request twice within a minute (error 9), also one that it refused
#: before. The minute begins earlier there than here, so that a few seconds are added.
RETRY_IN_SECONDS = 65.0

#: The documented refusals of send.php, by ``error_code``. Nothing was sent in any of these cases.
REFUSALS: dict[int, type[SmsNotSent]] = {
    1: InvalidRequest,  # a parameter
    2: AuthenticationFailed,  # also an IP address that the account does not allow
    3: InsufficientCredits,
    4: GatewayBusy,  # the IP address is blocked for a while, after too many errors
    5: InvalidRequest,  # the date
    6: InvalidRequest,  # the text or the sender is forbidden: only the words say which
    7: InvalidRecipient,  # the number's format
    8: InvalidRecipient,  # it cannot be delivered to this number
    9: TemporaryFailure,  # the same request twice within a minute, or 15 and more at once
}

#: The same in an answer to a query, where they concern the account.
QUERY_REFUSALS: dict[int, type[SmsNotSent]] = {2: AuthenticationFailed, 4: GatewayBusy}

#: The documented statuses of a message. One that is stopped (-2) may still be resumed.
STATUSES = {
    -2: "sent",
    -1: "sent",
    0: "sent",
    1: "delivered",
    2: "delivered",  # and read
    3: "expired",
    20: "rejected",
    22: "rejected",
    23: "rejected",
    24: "rejected",
    25: "rejected",
}
NOT_FOUND = -3
#: status.php says so in either way: here 3 is no lack of credits.
NOT_FOUND_ERROR = 3

_NUMBER = re.compile(r"-?[0-9]{1,9}")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class SmsBackend(HttpBackend):
    """Send through SMSC.ru. It takes the options of
    :class:`~django_smska.backends.over_http.HttpBackend`, too.

    :param login: the login; required
    :param password: the password; required
    :param url: the address above ``send.php``, ``status.php`` and ``balance.php``
    :param secret: what SMSC.ru signs its reports with, as the account's settings have it; a request
        that is signed otherwise is then refused
    """

    most_at_once = 14
    sender_rule = re.compile(r"[ -~]{1,11}|\+?[0-9]{1,15}")
    reports_by = "both"
    evidence = Evidence.ASKED
    balance_unit = "RUB"
    one_webhook = True

    def __init__(
        self,
        *,
        login: str = "",
        password: str = "",
        url: str = DEFAULT_URL,
        secret: str = "",
        **rest: Any,
    ) -> None:
        logins = {"login": login, "password": password}
        self._signing = Hidden(secret=secret)
        del login, password, secret
        super().__init__(login=logins, url=url, **rest)

    def _refuse_wrong_options(self) -> None:
        super()._refuse_wrong_options()
        if not isinstance(self._signing.secret, str):
            self._refuse("'secret' must be text.")

    # --- requests

    def send_request(self, message: Any) -> Request:
        form = {
            "phones": _digits(message),
            "mes": message.body,
            "id": message.reference,
            "cost": "3",  # the answer has price and balance
        }
        if sender := message.sender or self.sender_id:
            form["sender"] = sender
        return self._form("send", form, message)

    def read_send_answer(self, answer: Answer) -> Receipt | SmsError:
        return read_send_answer(answer)

    def get_status(self, message: Any) -> Report:
        return self._ask_status(message, message.gateway_id) or Report(raw=str(NOT_FOUND))

    def find(self, message: Any) -> Report | None:
        """Ask by the reference, which the message has as its id there, too."""
        return self._ask_status(message, message.reference)

    def get_balance(self) -> Decimal:
        return self.query(lambda: self._form("balance", {}), read_balance_answer)

    def _ask_status(self, message: Any, the_id: str) -> Report | None:
        if not the_id:
            text = gettext_noop("The gateway gave no ID to query by.")
            raise QueryFailed(text, alias=self.alias)
        form = {"phone": _digits(message), "id": the_id}
        return self.query(
            lambda: self._form("status", form, message),
            lambda answer: read_status_answer(answer, the_id),
        )

    def _form(self, name: str, form: dict[str, str], message: Any = None) -> Request:
        login = {"login": self.login.login, "psw": self.login.password}
        body = {**login, "charset": "utf-8", "fmt": "3", **form}
        return self.request(name, message, url=f"{self.url.rstrip('/')}/{name}.php", body=body)

    # --- webhooks

    def authenticate(self, request: HttpRequest) -> bool:
        """Compare the signature, where OPTIONS have a ``secret``: the MD5 of these fields."""
        secret = self._signing.secret
        if not secret:
            return True
        fields = request.POST
        names = ("phone", "mes", "to") if "mes" in fields else ("id", "phone", "status")
        signed = ":".join([*(fields.get(name, "") for name in names), secret])
        expected = hashlib.md5(signed.encode(errors="replace"), usedforsecurity=False).hexdigest()
        return constant_time_compare(fields.get("md5", "").lower(), expected)

    def parse_reports(self, request: HttpRequest) -> list[Report]:
        """Return the report. The account has one handler, which gets replies, too."""
        fields = request.POST
        if "mes" in fields:
            return []
        report = read_report(fields.get("status"), fields.get("err"))
        the_id = _id(fields.get("id"))
        if report is None or not the_id:
            raise ValueError("no report of a message")
        return [Report(report.status, report.raw, gateway_id=the_id, reference=the_id)]

    def parse_inbound(self, request: HttpRequest) -> list[Inbound]:
        """Return the message of a phone."""
        fields = request.POST
        if "mes" not in fields:
            return []
        if not fields.get("phone"):
            raise ValueError("no message of a phone")
        return [
            Inbound(fields["phone"], fields.get("to", ""), fields["mes"], _id(fields.get("id")))
        ]


# --- reading an answer ----------------------------------------------------------------------------


def read_send_answer(answer: Answer) -> Receipt | SmsError:
    """Return what an answer to send.php means; an error is returned, not raised."""
    fields = answered_object(answer)
    if answer.status != 200 or not fields:
        refused = None if "cnt" in fields else refused_by_status(answer, LOGIN_REFUSED)
        return refused or unclear(answer)
    segments, error = _number(fields.get("cnt")), _number(fields.get("error_code"))
    if segments and segments > 0 and fields.keys().isdisjoint(("error", "error_code")):
        return _receipt(fields, segments)
    refusal = REFUSALS.get(error or 0)
    if refusal is None or "cnt" in fields:
        text = clean(decode(answer.body))
        return SmsOutcomeUnknown(code=str(error or "unreadable"), gateway_text=text)
    result = _refusal(refusal, answer, error)
    result.answered = refusal is not AuthenticationFailed
    result.retry_in = RETRY_IN_SECONDS
    return result


def read_status_answer(answer: Answer, the_id: str) -> Report | None | SmsError:
    """Return the message's status, or ``None`` where SMSC.ru does not know it."""
    fields = answered_object(answer)
    status, error = _number(fields.get("status")), _number(fields.get("error_code"))
    if answer.status != 200 or "error_code" in fields:
        return None if error == NOT_FOUND_ERROR else _no_answer(answer, error)
    if status == NOT_FOUND:
        return None
    report = read_report(status, fields.get("err"))
    if report is None:
        return _no_answer(answer, error)
    return replace(report, gateway_id=the_id)


def read_balance_answer(answer: Answer) -> Decimal | SmsError:
    """Return the account's balance in roubles."""
    fields = answered_object(answer)
    balance = number_of(fields.get("balance"))
    if answer.status != 200 or "error_code" in fields or balance is None:
        return _no_answer(answer, _number(fields.get("error_code")))
    return balance


def read_report(status: Any, error: Any) -> Report | None:
    """Return a status and the network's error number; ``None`` for what is no status."""
    number, failure = _number(status), _number(error)
    if number is None:
        return None
    raw = f"{number}|{failure}" if failure else f"{number}"
    return Report(STATUSES.get(number, ""), raw)


def _receipt(fields: dict[str, Any], segments: int) -> Receipt:
    price = number_of(fields.get("cost"))
    return Receipt(
        _id(fields.get("id")),
        number_of(fields.get("balance")),
        price=price,
        currency="" if price is None else "RUB",
        segments=segments,
    )


def _refusal(error: type[SmsNotSent], answer: Answer, code: int | None) -> SmsNotSent:
    text = LOGIN_REFUSED if error is AuthenticationFailed else ""
    return error(text, code=str(code), gateway_text=clean(decode(answer.body)))


def _no_answer(answer: Answer, error: int | None) -> SmsError:
    refusal = QUERY_REFUSALS.get(error or 0)
    if answer.status == 200 and refusal is not None:
        return _refusal(refusal, answer, error)
    return no_query(answer, LOGIN_REFUSED)


def _number(value: Any) -> int | None:
    """Return a whole number, which may come as text; SMSC.ru writes both."""
    return int(value) if _NUMBER.fullmatch(text_of(value)) else None


def _id(value: Any) -> str:
    """Return an id: a number of SMSC.ru's own, or the text that was sent with the message."""
    return text_of(value) if _ID.fullmatch(text_of(value)) else ""


def _digits(message: Any) -> str:
    """Return the number as SMSC.ru wants it: with the country code and without a plus."""
    return str(message.to).removeprefix("+")

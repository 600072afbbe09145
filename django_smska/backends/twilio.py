"""Twilio (www.twilio.com), Programmable Messaging, API version 2010-04-01.

Source of every rule: Twilio's OpenAPI description, its dictionary of errors, its pages on webhook
security and test credentials, and its Python client 9.13.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from django.core.checks import CheckMessage, Warning
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from ..exceptions import (
    AuthenticationFailed,
    GatewayBusy,
    InvalidRecipient,
    InvalidRequest,
    InvalidSender,
    QueryFailed,
    RecipientOptedOut,
    SmsError,
    SmsNotSent,
    TemporaryFailure,
    gettext_noop,
)
from ..exchange import Answer, Request, clean
from ..json_answers import (
    answered_object,
    count_of,
    currency_of,
    no_query,
    number_of,
    refused_by_status,
    text_of,
    unclear,
    whole_of,
)
from ..numbers import normalize
from ..receipts import MONEY, Evidence, Inbound, Receipt, Report
from ..redact import Hidden
from ..shapes import is_list, is_object
from ..webhook_urls import public_address
from .over_http import HttpBackend

if TYPE_CHECKING:
    from django.http import HttpRequest

DEFAULT_URL = "https://api.twilio.com"
LOGIN_REFUSED = gettext_noop(
    "Twilio refused the login. Correct it in the settings (account_sid, auth_token), or look in "
    "Twilio's console whether the account is suspended."
)
#: By Twilio's code. A code that is not here refuses the message alone (``InvalidRequest``): Twilio
#: gives a code and a 4xx only to a request of which it has made no message.
REFUSALS: dict[int, type[SmsNotSent]] = {
    # The account: 20404 too, because the account's own address does not exist.
    **dict.fromkeys((10001, 20003, 20005, 20404), AuthenticationFailed),
    20429: GatewayBusy,
    # The number: invalid, unreachable, a region that the account may not send to, a landline, and
    # one that a trial account has not verified.
    **dict.fromkeys(
        (21211, 21214, 21217, 21265, 21266, 21408, 21608, 21612, 21614, 21635), InvalidRecipient
    ),
    21610: RecipientOptedOut,
    # The sender: missing, invalid, another account's, not for SMS, and a service without senders.
    **dict.fromkeys(
        (21212, 21603, 21606, 21607, 21659, 21660, 21661, 21703, 21704, 21705), InvalidSender
    ),
    # The sender's queue is full, and maintenance.
    **dict.fromkeys((21611, 21730), TemporaryFailure),
    # The text is missing or longer than 1,600 characters; the address for reports is not valid.
    **dict.fromkeys((21602, 21605, 21609, 21617, 21618, 21619), InvalidRequest),
}
STATUSES = {
    **dict.fromkeys(("accepted", "scheduled", "queued", "sending", "sent"), "sent"),
    "partially_delivered": "sent",
    **dict.fromkeys(("delivered", "read"), "delivered"),
    **dict.fromkeys(("undelivered", "failed"), "rejected"),
    "canceled": "deleted",
}
VALIDITY_EXPIRED = "30036"  # the error of a message that failed since its validity period ended

SLACK = timedelta(seconds=60)  # by which the clocks of both sides may differ
#: The messages of one page of a search. More would not fit into the 64 KiB that are read.
PAGE_MESSAGES = 20

_ACCOUNT_SID = re.compile("AC[0-9a-fA-F]{32}")
_SERVICE_SID = re.compile("MG[0-9a-fA-F]{32}")
_MESSAGE_SID = re.compile("(?:SM|MM)[0-9a-fA-F]{32}")


class SmsBackend(HttpBackend):
    """Send through Twilio. It takes the options of
    :class:`~django_smska.backends.over_http.HttpBackend`, too; ``sender_id`` is a number of the
    account or an alphanumeric sender.

    :param account_sid: of the account, ``AC`` and 32 digits; required
    :param auth_token: of the account; required
    :param messaging_service_sid: of a Messaging Service, ``MG`` and 32 digits, which chooses the
        sender of a message that has none
    :param signing_key: the secret of the shared key that signs the account's webhooks, where it has
        one; otherwise ``auth_token`` signs them
    :param url: the address of the API, for another edge or region
    """

    reports_by = "both"
    #: What holds always. A report carries our reference too, once there is a public address.
    evidence = Evidence.SEARCHED
    balance_unit = MONEY
    sender_rule = re.compile(r"\+?[0-9]{3,15}|(?=.*[A-Za-z])[A-Za-z0-9 +_&-]{1,11}")

    def __init__(
        self,
        *,
        account_sid: str = "",
        auth_token: str = "",
        messaging_service_sid: str = "",
        signing_key: str = "",
        url: str = DEFAULT_URL,
        **rest: Any,
    ) -> None:
        login = {"account_sid": account_sid, "auth_token": auth_token}
        self._signing = Hidden(key=signing_key)
        self.messaging_service_sid = messaging_service_sid
        del account_sid, auth_token, signing_key
        super().__init__(login=login, url=url, **rest)

    # --- sending

    def send_request(self, message: Any) -> Request:
        form = {
            "To": _number(message),
            "Body": message.body,
            "From": self._sender(message),
            "MessagingServiceSid": self.messaging_service_sid,
            "StatusCallback": self._callback(message),
        }
        body = {name: value for name, value in form.items() if value}
        return self._api("send", "Messages.json", message, body=body)

    def read_send_answer(self, answer: Answer) -> Receipt | SmsError:
        return read_send_answer(answer)

    def _sender(self, message: Any) -> str:
        return str(message.sender or self.sender_id)

    def _callback(self, message: Any) -> str:
        """Return the address for the reports of this message; Twilio keeps its query."""
        url = self.webhook_url("report")
        reference = getattr(message, "reference", "")
        return f"{url}?{urlencode({'reference': reference})}" if url and reference else url

    def _api(
        self,
        name: str,
        path: str,
        message: Any = None,
        body: Mapping[str, str] | None = None,
    ) -> Request:
        """Return a request of the account's address: a form, or a query without one."""
        login = f"{self.login.account_sid}:{self.login.auth_token}".encode()
        return self.request(
            name,
            message,
            url=f"{self.url.rstrip('/')}/2010-04-01/Accounts/{self.login.account_sid}/{path}",
            method="GET" if body is None else "POST",
            headers={
                "Authorization": f"Basic {base64.b64encode(login).decode()}",
                "Accept": "application/json",
            },
            body=body or b"",
        )

    # --- queries

    def get_status(self, message: Any) -> Report:
        sid = message.gateway_id
        if not _MESSAGE_SID.fullmatch(sid or ""):
            text = gettext_noop("The gateway gave no ID to query by.")
            raise QueryFailed(text, alias=self.alias)
        return self.query(lambda: self._api("query", f"Messages/{sid}.json", message), read_message)

    def get_balance(self) -> Decimal:
        return self.query(lambda: self._api("balance", "Balance.json"), read_balance)

    def find(self, message: Any) -> Report | None:
        """Search for a message with the same number, text and sender, made when this one was sent.

        ``None`` where there is none, or more than one, and for a sensitive text, which is not
        stored any more. Twilio can only be searched with the number in the address of the query.
        """
        began = _aware(getattr(message, "sending_at", None))
        if began is None or not message.body or getattr(message, "sensitive", False):
            return None
        sought = Sought(
            to=_number(message),
            body=message.body,
            sender=self._sender(message),
            service=self.messaging_service_sid,
            since=began - SLACK,
            until=began + timedelta(seconds=self.deadline) + SLACK,
        )
        return self.query(
            lambda: self._search(message, sought), lambda answer: read_search(answer, sought)
        )

    def _search(self, message: Any, sought: Sought) -> Request:
        filters = {"To": sought.to, "From": sought.sender, "PageSize": str(PAGE_MESSAGES)}
        query = urlencode({name: value for name, value in filters.items() if value})
        return self._api("find", f"Messages.json?{query}", message)

    # --- webhooks

    def authenticate(self, request: HttpRequest) -> bool:
        """Return whether Twilio has signed it.

        The signed address is the public one, which a request behind a proxy does not have: it is
        made of ``SMSKA_PUBLIC_URL``, without which no request is authentic.
        """
        public = public_address(request.get_full_path())
        given = request.headers.get("X-Twilio-Signature", "")
        settings = request.headers.get("X-Twilio-Webhooks-Signature-Settings", "")
        if not (public and given and algorithm_of(settings)):
            return False
        fields = {name: request.POST.getlist(name) for name in request.POST}
        key = self._signing.key or self.login.auth_token
        return any(
            constant_time_compare(given, sign(key, url, fields, settings))
            for url in _with_and_without_port(public)
        )

    def parse_reports(self, request: HttpRequest) -> list[Report]:
        form = request.POST
        word, sid = form.get("MessageStatus", ""), form.get("MessageSid", "")
        if not (word and _MESSAGE_SID.fullmatch(sid)):
            raise ValueError("no report of a message")
        error = form.get("ErrorCode", "")
        return [
            Report(
                status=_status(word, error),
                raw=_raw(word, error),
                gateway_id=sid,
                reference=request.GET.get("reference", ""),
            )
        ]

    def parse_inbound(self, request: HttpRequest) -> list[Inbound]:
        form = request.POST
        if not ({"From", "To", "Body"} <= set(form)):
            raise ValueError("no message of a phone")
        return [
            Inbound(
                sender=form["From"],
                to=form["To"],
                body=form["Body"],
                gateway_id=form.get("MessageSid", ""),
            )
        ]

    # --- options

    def _refuse_wrong_options(self) -> None:
        super()._refuse_wrong_options()
        sid, service = self.login.account_sid, self.messaging_service_sid
        if sid and not (isinstance(sid, str) and _ACCOUNT_SID.fullmatch(sid)):
            self._refuse("'account_sid' must be AC and 32 hexadecimal digits.", check="E004")
        if service and not (isinstance(service, str) and _SERVICE_SID.fullmatch(service)):
            self._refuse("'messaging_service_sid' must be MG and 32 hexadecimal digits.")
        if not isinstance(self._signing.key, str):
            self._refuse("'signing_key' must be text.")

    def _check_sender(self) -> list[CheckMessage]:
        if self.sender_id or self.messaging_service_sid:
            return []
        return [
            Warning(
                f"SMS_PROVIDERS[{self.alias!r}] has neither 'sender_id' nor "
                "'messaging_service_sid': Twilio refuses each message that names no sender of its "
                "own.",
                hint="Set one of them in OPTIONS.",
                id="smska.W003",
            )
        ]


# --- answers --------------------------------------------------------------------------------------


def read_send_answer(answer: Answer) -> Receipt | SmsError:
    """Return what an answer to a send means; an error is returned, not raised.

    A 5xx is a doubt, whatever its code says: the request may have been carried out before.
    """
    found = answered_object(answer)
    sid = text_of(found.get("sid"))
    if answer.status == 201 and _MESSAGE_SID.fullmatch(sid):
        price, currency = _price(found)
        return Receipt(sid, price=price, currency=currency, segments=_segments(found))
    code = whole_of(found.get("code"))
    if 400 <= answer.status < 500 and code is not None:
        return _refusal(code, clean(text_of(found.get("message"))))
    return refused_by_status(answer, LOGIN_REFUSED) or unclear(answer)


def _refusal(code: int, text: str) -> SmsNotSent:
    error = REFUSALS.get(code, InvalidRequest)
    login = error is AuthenticationFailed
    return error(
        LOGIN_REFUSED if login else "", code=str(code), gateway_text=text, answered=not login
    )


def read_message(answer: Answer) -> Report | SmsError:
    """Return the state of the message that was asked for."""
    found = answered_object(answer)
    if answer.status != 200 or not found.get("status"):
        return no_query(answer, LOGIN_REFUSED)
    return _report(found)


def read_balance(answer: Answer) -> Decimal | SmsError:
    """Return what is left in the account's currency."""
    balance = number_of(answered_object(answer).get("balance"))
    if answer.status != 200 or balance is None:
        return no_query(answer, LOGIN_REFUSED)
    return balance


def _report(found: dict[str, Any]) -> Report:
    word, error = text_of(found.get("status")), text_of(found.get("error_code"))
    price, currency = _price(found)
    return Report(
        status=_status(word, error),
        raw=_raw(word, error),
        gateway_id=text_of(found.get("sid")),
        price=price,
        currency=currency,
        segments=_segments(found),
    )


def _status(word: str, error: str) -> str:
    return "expired" if error == VALIDITY_EXPIRED else STATUSES.get(word, "")


def _raw(word: str, error: str) -> str:
    return clean(f"{error}|{word}" if error else word)[:64]


def _price(found: dict[str, Any]) -> tuple[Decimal | None, str]:
    """Return price and currency. Twilio writes what it charges with a minus, and ``null`` until it
    has charged it."""
    price = number_of(found.get("price"))
    return (None, "") if price is None else (abs(price), currency_of(found.get("price_unit")))


def _segments(found: dict[str, Any]) -> int | None:
    """Return the segments; a Messaging Service says 0 until it has chosen a sender."""
    return count_of(found.get("num_segments"))


# --- a search -------------------------------------------------------------------------------------


class Sought(Hidden):
    """What is known of a message that is searched for, which no ``repr()`` shows.

    :ivar sender: "" where the Messaging Service chose it
    :ivar since: the first moment at which Twilio may have made it
    :ivar until: the last one
    """

    to: str
    body: str
    sender: str
    service: str
    since: datetime
    until: datetime


def read_search(answer: Answer, sought: Sought) -> Report | None | SmsError:
    """Return the one message that matches, ``None`` where it is none, or where there may be more.

    The newest come first. Where a page ends within the sought time, the next one may have a second
    match.
    """
    found = answered_object(answer)
    messages = found.get("messages")
    if answer.status != 200 or not is_list(messages):
        return no_query(answer, LOGIN_REFUSED)
    rows = [one for one in messages if is_object(one)]
    whole = not found.get("next_page_uri") or any(_made_before(one, sought.since) for one in rows)
    matches = [one for one in rows if _matches(one, sought)]
    return _report(matches[0]) if whole and len(matches) == 1 else None


def _matches(row: dict[str, Any], sought: Sought) -> bool:
    sender, service = text_of(row.get("from")), text_of(row.get("messaging_service_sid"))
    return (
        text_of(row.get("direction")) == "outbound-api"
        and bool(_MESSAGE_SID.fullmatch(text_of(row.get("sid"))))
        and text_of(row.get("to")) == sought.to
        and text_of(row.get("body")) == sought.body
        and (sender == sought.sender if sought.sender else service == sought.service)
        and _is_between(_made_at(row), sought.since, sought.until)
    )


def _made_before(row: dict[str, Any], moment: datetime) -> bool:
    made = _made_at(row)
    return made is not None and made < moment


def _is_between(moment: datetime | None, since: datetime, until: datetime) -> bool:
    return moment is not None and since <= moment <= until


def _made_at(row: dict[str, Any]) -> datetime | None:
    """Return when Twilio made the message, which it writes as in mail: in GMT, by the second."""
    try:
        return _aware(parsedate_to_datetime(text_of(row.get("date_created"))))
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _aware(moment: datetime | None) -> datetime | None:
    """Return the moment with a time zone; a project without ``USE_TZ`` stores none."""
    if moment is None or timezone.is_aware(moment):
        return moment
    return timezone.make_aware(moment)


def _number(message: Any) -> str:
    """Return the number as E.164. Raises ``InvalidRecipient``."""
    try:
        return normalize(message.to)
    except ValidationError:
        raise InvalidRecipient(code="number") from None


# --- signatures -----------------------------------------------------------------------------------

#: By Twilio's names of them, in hashlib's.
ALGORITHMS = {"HMAC_SHA1": "sha1", "HMAC_SHA256": "sha256"}


def algorithm_of(settings: str) -> str:
    """Return hashlib's name of the algorithm, "" where it is not known.

    :param settings: ``key=…,algorithm=…``, "" where the auth token signs, which is by SHA-1
    """
    pairs = (part.partition("=") for part in settings.split(","))
    named = [value.strip() for name, _, value in pairs if name.strip() == "algorithm"]
    name = next(filter(None, named), "HMAC_SHA1")
    return ALGORITHMS.get(name.upper(), "")


def sign(key: str, url: str, fields: Mapping[str, list[str]], settings: str = "") -> str:
    """Return Twilio's signature of a request.

    :param url: the whole address, with its query
    :param fields: of the form, each with its values
    :param settings: as of :func:`algorithm_of`
    """
    signed = url + "".join(
        name + value for name in sorted(fields) for value in sorted(set(fields[name]))
    )
    digest = hmac.digest(key.encode(), signed.encode(errors="replace"), algorithm_of(settings))
    return base64.b64encode(digest).decode()


def _with_and_without_port(url: str) -> Iterator[str]:
    """Yield the address both ways, because Twilio signs now the one, now the other."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = parts.netloc.removesuffix(f":{port}")
    rest = url.partition("://")[2][len(parts.netloc) :]
    for netloc in (host, f"{host}:{port}"):
        yield f"{parts.scheme}://{netloc}{rest}"

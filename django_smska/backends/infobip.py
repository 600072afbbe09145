"""Infobip (www.infobip.com), SMS API version 3.

Source of every rule: Infobip's OpenAPI description, its list of status and error codes, and its
Python client 6.0.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.core.exceptions import ValidationError

from ..exceptions import (
    AuthenticationFailed,
    InsufficientCredits,
    InvalidRecipient,
    InvalidRequest,
    InvalidSender,
    QueryFailed,
    SmsError,
    SmsOutcomeUnknown,
    TemporaryFailure,
    gettext_noop,
)
from ..exchange import Answer, Request, clean, decode, json_body
from ..json_answers import (
    answered_object,
    count_of,
    currency_of,
    inner,
    json_object,
    no_query,
    number_of,
    refused_by_status,
    text_of,
    unclear,
    whole_of,
)
from ..numbers import normalize
from ..receipts import MONEY, Evidence, Inbound, Receipt, Report
from ..shapes import is_list, is_object
from .over_http import HttpBackend

if TYPE_CHECKING:
    from django.http import HttpRequest

LOGIN_REFUSED = gettext_noop(
    "Infobip refused the login. Correct it in the settings (api_key, url), or look in Infobip's "
    "portal whether the key is valid and may send SMS."
)
#: Groups of statuses that say that Infobip has the message: ACCEPTED, PENDING, DELIVERED.
ACCEPTED = (0, 1, 3)
REJECTED = 5
#: By the id of a status of group 5. One that is not here refuses the message alone
#: (``InvalidRequest``).
REFUSALS: dict[int, type[SmsError]] = {
    # The number: no route or network, no such prefix, on a blocklist, on a state's list of those
    # who want no advertisements, not the one that a trial account may send to.
    **dict.fromkeys((6, 8, 10, 14, 18, 19, 51, 52), InvalidRecipient),
    **dict.fromkeys((11, 13), InvalidSender),
    **dict.fromkeys((12, 17), InsufficientCredits),
    21: TemporaryFailure,
    # "The same message id was there before": so an earlier request, which this site has forgotten
    # as one may after a restored dump, has been accepted or not. The log knows.
    23: SmsOutcomeUnknown,
    # The same text too often within an hour, a text that is too long.
    **dict.fromkeys((20, 24, 25), InvalidRequest),
}
GROUPS = {0: "sent", 1: "sent", 2: "rejected", 3: "delivered", 4: "expired", 5: "rejected"}
DELIVERED_TO_OPERATOR = 2  # in the group of the delivered, and not the last word


class SmsBackend(HttpBackend):
    """Send through Infobip. It takes the options of
    :class:`~django_smska.backends.over_http.HttpBackend`, too.

    :param api_key: with the scope to send SMS; required
    :param url: the base URL of the account, ``https://….api.infobip.com``; required
    """

    reports_by = "both"
    evidence = Evidence.ASKED
    balance_unit = MONEY
    most_segments = 25

    def __init__(self, *, api_key: str = "", url: str = "", **rest: Any) -> None:
        login = {"api_key": api_key}
        del api_key
        super().__init__(login=login, url=url, **rest)

    # --- sending

    def send_request(self, message: Any) -> Request:
        reference = getattr(message, "reference", "")
        return self._api(
            "send",
            "/sms/3/messages",
            message,
            body=json_body(
                {
                    "messages": [
                        _filled(
                            sender=message.sender or self.sender_id,
                            destinations=[_filled(to=_digits(message), messageId=reference)],
                            content={"text": message.body},
                            webhooks=self._webhooks(reference),
                        )
                    ],
                    "options": {"includeSmsCountInResponse": True},
                }
            ),
        )

    def read_send_answer(self, answer: Answer) -> Receipt | SmsError:
        return read_send_answer(answer)

    def _webhooks(self, reference: str) -> dict[str, Any]:
        """Return what makes Infobip push reports; without a public address those that the account
        subscribes to carry our reference."""
        url = self.webhook_url("report")
        return _filled(
            delivery={"url": url} if url else None,
            contentType="application/json" if url else None,
            callbackData=reference,
        )

    def _api(self, name: str, path: str, message: Any = None, body: bytes = b"") -> Request:
        """Return a request with JSON, or a query without it."""
        headers = {"Authorization": f"App {self.login.api_key}", "Accept": "application/json"}
        if body:
            headers["Content-Type"] = "application/json"
        return self.request(
            name,
            message,
            url=f"{self.url.rstrip('/')}{path}",
            method="POST" if body else "GET",
            headers=headers,
            body=body,
        )

    # --- queries

    def get_status(self, message: Any) -> Report:
        """Look into the log, which has the last 48 hours; nothing is known of an older message."""
        if not message.gateway_id:
            text = gettext_noop("The gateway gave no ID to query by.")
            raise QueryFailed(text, alias=self.alias)
        return self._log("query", message, message.gateway_id) or Report()

    def find(self, message: Any) -> Report | None:
        reference = getattr(message, "reference", "")
        return self._log("find", message, reference) if reference else None

    def _log(self, name: str, message: Any, the_id: str) -> Report | None:
        """Return what the log says. ``/sms/3/reports`` says each report only once."""
        query = urlencode({"messageId": the_id})
        return self.query(
            lambda: self._api(name, f"/sms/3/logs?{query}", message),
            lambda answer: read_log(answer, the_id),
        )

    def get_balance(self) -> Decimal:
        return self.query(lambda: self._api("balance", "/account/1/balance"), read_balance)

    # --- webhooks

    def parse_reports(self, request: HttpRequest) -> list[Report]:
        return [_report(one) for one in _results(request)]

    def parse_inbound(self, request: HttpRequest) -> list[Inbound]:
        found = [
            Inbound(
                sender=_with_plus(text_of(one["from"])),
                to=text_of(one.get("to")),
                body=text_of(one.get("text")),
                gateway_id=text_of(one.get("messageId")),
            )
            for one in _results(request)
            if text_of(one.get("from"))  # a report has none
        ]
        if not found:
            raise ValueError("no message of a phone")
        return found


def _filled(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _digits(message: Any) -> str:
    """Return the number as Infobip wants it, without a plus. Raises ``InvalidRecipient``."""
    try:
        return normalize(message.to)[1:]
    except ValidationError:
        raise InvalidRecipient(code="number") from None


# --- answers --------------------------------------------------------------------------------------


def read_send_answer(answer: Answer) -> Receipt | SmsError:
    """Return what an answer to a send means; an error is returned, not raised.

    HTTP 200 says nothing: each message has a status of its own.
    """
    found = answered_object(answer)
    messages = found.get("messages")
    if answer.status == 200 and is_list(messages) and len(messages) == 1:
        return _outcome(answer, messages[0])
    refused = refused_by_status(answer, LOGIN_REFUSED)
    if refused is not None and found:
        code, text = _problem(found)
        refused.code = code or refused.code
        refused.gateway_text = clean(text) or refused.gateway_text
        refused.answered = not isinstance(refused, AuthenticationFailed)
    return refused or unclear(answer)


def _outcome(answer: Answer, message: Any) -> Receipt | SmsError:
    """Return what became of the message.

    UNDELIVERABLE and EXPIRED come after a message was accepted, and as the first answer they make
    no sense: the log decides.
    """
    status = inner(message, "status")
    group, number = whole_of(status.get("groupId")), whole_of(status.get("id"))
    if group in ACCEPTED:
        details = inner(message, "details")
        return Receipt(
            text_of(message.get("messageId")), segments=count_of(details.get("messageCount"))
        )
    if group == REJECTED and number is not None:
        error = REFUSALS.get(number, InvalidRequest)
        return error(code=str(number), gateway_text=_words(status), answered=True)
    return unclear(answer)


def _words(status: dict[str, Any]) -> str:
    names = (text_of(status.get(name)) for name in ("name", "description"))
    return clean(": ".join(filter(None, names)))


def _problem(found: dict[str, Any]) -> tuple[str, str]:
    """Return code and text of an error, for which Infobip has two forms."""
    older = inner(found, "requestError", "serviceException")
    code = text_of(found.get("errorCode")) or text_of(older.get("messageId"))
    violations = found.get("violations")
    first: Any = violations[0] if is_list(violations) and violations else {}
    texts = (found.get("description"), inner(first).get("violation"), older.get("text"))
    return code[:32], " ".join(filter(None, map(text_of, texts)))


def read_log(answer: Answer, the_id: str) -> Report | None | SmsError:
    """Return what the log says of this message, or ``None`` where it does not know it."""
    results = answered_object(answer).get("results")
    if answer.status != 200 or not is_list(results):
        return no_query(answer, LOGIN_REFUSED)
    for one in results:
        if inner(one).get("messageId") == the_id:
            return _report(one)
    return None


def read_balance(answer: Answer) -> Decimal | SmsError:
    """Return what is left in the account's currency."""
    balance = number_of(answered_object(answer).get("balance"))
    if answer.status != 200 or balance is None:
        return no_query(answer, LOGIN_REFUSED)
    return balance


# --- reports --------------------------------------------------------------------------------------


def _results(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the entries of a webhook request, at most a hundred. Raises ``ValueError``."""
    results = json_object(decode(request.body)).get("results")
    if not (is_list(results) and all(is_object(one) for one in results)):
        raise ValueError("no results")
    return results


def _report(found: dict[str, Any]) -> Report:
    status = inner(found, "status")
    price, currency, segments = _price(found)
    the_id = text_of(found.get("messageId"))
    raw = "|".join(filter(None, (text_of(status.get(name)) for name in ("id", "name"))))
    return Report(
        status=_meaning(status),
        raw=clean(raw)[:64],
        gateway_id=the_id,
        reference=text_of(found.get("callbackData")) or the_id,
        price=price,
        currency=currency,
        segments=segments,
    )


def _meaning(status: dict[str, Any]) -> str:
    group, number = whole_of(status.get("groupId")), whole_of(status.get("id"))
    if group == 3 and number == DELIVERED_TO_OPERATOR:
        return "sent"
    return "" if group is None else GROUPS.get(group, "")


def _price(found: dict[str, Any]) -> tuple[Decimal | None, str, int | None]:
    """Return price, currency and segments. Infobip says the price of one segment."""
    price = inner(found, "price")
    each = number_of(price.get("pricePerMessage"))
    segments = count_of(found.get("messageCount")) or count_of(found.get("smsCount"))
    if each is None:
        return None, "", segments
    return each * (segments or 1), currency_of(price.get("currency")), segments


def _with_plus(number: str) -> str:
    """Return a phone's number as E.164; a short code or a name is left as it is."""
    return f"+{number}" if number.isascii() and number.isdigit() and len(number) > 7 else number

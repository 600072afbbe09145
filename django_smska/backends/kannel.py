"""A Kannel of the project's own, as the smsbox of Kannel 1.4.5 speaks and answers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote
from xml.sax.saxutils import escape

from django.utils import timezone

from ..exceptions import (
    AuthenticationFailed,
    GatewayUnreachable,
    InvalidRecipient,
    InvalidRequest,
    InvalidSender,
    SmsError,
    SmsNotSent,
    SmsOutcomeUnknown,
    gettext_noop,
)
from ..exchange import CANNOT_BE_WRITTEN, Answer, Request, clean, decode
from ..receipts import Evidence, Inbound, Receipt, Report
from ..segments import UCS2, count
from ..webhook_urls import REPORT
from .over_http import HttpBackend

if TYPE_CHECKING:
    from django.http import HttpRequest

# --- what a request says --------------------------------------------------------------------------

CODING_GSM7, CODING_UCS2 = "0", "2"
MAX_VALIDITY_MINUTES = 63 * 7 * 24 * 60  # what the network can count (TS 23.040, 9.2.3.12.1)
#: What an address of SMPP holds (3.4, 4.4.1). Kannel writes the bytes of other characters into it,
#: and a phone shows each of them as another letter.
_SENDER = re.compile(r"[ -~]{0,20}")

# The bits of a report's type.
DELIVERED, FAILED, BUFFERED, ACCEPTED_BY_SMSC, REFUSED_BY_SMSC = 1, 2, 4, 8, 16
EXPIRED, NOT_KNOWN = 32, 64  # each comes together with FAILED
ALL_REPORTS = DELIVERED | FAILED | BUFFERED | ACCEPTED_BY_SMSC | REFUSED_BY_SMSC


def minutes_until(expires_at: datetime | None) -> str:
    """Return for how many minutes Kannel and the network may try, "" where nothing limits it.

    Kannel keeps for days what its SMSC does not accept. It drops a message of 0 minutes.
    """
    if expires_at is None:
        return ""
    minutes = max(1, math.ceil((expires_at - timezone.now()).total_seconds() / 60))
    return str(minutes) if minutes <= MAX_VALIDITY_MINUTES else ""


def report_url(base: str, reference: str) -> str:
    """Return the address at which Kannel pushes reports of one message.

    Kannel reads each percent sign as an escape of its own. ``%k`` is the first word of what the
    SMSC said, such as ``NACK/0x0000000b/Invalid``. ``%A`` would be all of it, and the receipts of
    many SMSCs repeat the first 20 characters of the text, which no address must hold.
    """
    return f"{base.replace('%', '%%')}?reference={reference}&type=%d&answer=%k"


def as_xml(tag: str, content: str | Mapping[str, Any]) -> str:
    """Return an element; what is empty is left out of it."""
    if isinstance(content, str):
        return f"<{tag}>{escape(content)}</{tag}>"
    inside = "".join(as_xml(name, part) for name, part in content.items() if part)
    return f"<{tag}>{inside}</{tag}>"


# --- what an answer means -------------------------------------------------------------------------

#: Each with 202. The second comes while no SMSC is connected: Kannel keeps the message.
ACCEPTED = ("0: Accepted for delivery", "3: Queued for later delivery")

LOGIN_REFUSED = gettext_noop(
    "Kannel refused the login, or the address of this host. Correct 'username' and 'password' in "
    "the settings, or 'user-allow-ip' in Kannel's group sendsms-user."
)
NOT_ROUTABLE = gettext_noop(
    "Kannel has no SMSC for this message, or one of its lists refuses the number or the sender."
)
WRONG_ADDRESS = gettext_noop(
    "This is not the gateway's address. Correct it in the settings (url). Nothing was sent."
)

#: What smsbox says of what it definitely did not accept: type and text of the error.
#:
#: Not here: 503 "Temporal failure, try again later." comes when bearerbox stops or its queue is
#: full, but also to an answer that smsbox does not know, and to the first part of a text whose
#: other parts are accepted, where Kannel does not concatenate. 202 "Sent." comes before bearerbox
#: has the message (immediate-sendsms-reply). 500 "Sending failed." may be about some parts.
REFUSALS: dict[tuple[int, str], tuple[type[SmsNotSent], str]] = {
    (403, "Authorization failed for sendsms"): (AuthenticationFailed, LOGIN_REFUSED),
    (403, "Not routable. Do not try again."): (InvalidRequest, NOT_ROUTABLE),
    (400, "Missing receiver number, rejected"): (InvalidRecipient, ""),
    (400, "Missing receiver(s) number(s), rejected"): (InvalidRecipient, ""),
    (400, "Empty receiver number not allowed, rejected"): (InvalidRecipient, ""),
    (400, "Number(s) has/have been denied by white- and/or black-lists."): (InvalidRecipient, ""),
    (400, "Sender missing and no global set, rejected"): (InvalidSender, ""),
    (400, "Charset or body misformed, rejected"): (InvalidRequest, ""),
    (400, "Coding field misformed, rejected"): (InvalidRequest, ""),
    (400, "DLR-Mask field misformed, rejected"): (InvalidRequest, ""),
    (400, "DLR-URL field misformed, rejected"): (InvalidRequest, ""),
    (400, "Validity field misformed, rejected"): (InvalidRequest, ""),
    (400, "Invalid content-type"): (InvalidRequest, ""),
    (415, "Unsupported content-type, rejected"): (InvalidRequest, ""),
}
#: What never comes from the sendsms of any Kannel, and is never sent after a message is accepted.
ELSEWHERE = (301, 307, 308, 404, 405)


def read_send_answer(answer: Answer) -> Receipt | SmsError:
    """Return what an answer to a send means; an error is returned, not raised."""
    text = decode(answer.body).strip()
    if answer.status == 202 and text in ACCEPTED:
        return Receipt()  # Kannel gives no id
    code, said = f"http-{answer.status}", clean(text)
    if answer.framed and (answer.status, text) in REFUSALS:
        error, why = REFUSALS[answer.status, text]
        answered = error is not AuthenticationFailed
        return error(why, code=code, gateway_text=said, answered=answered)
    if answer.framed and answer.status in ELSEWHERE:
        return GatewayUnreachable(WRONG_ADDRESS, code=code, gateway_text=f"HTTP {answer.status}")
    return SmsOutcomeUnknown(code=code, gateway_text=said)


def status_of(kind: int, answer: str) -> str:
    """Return what a report's bits mean, "" where they contradict each other or say nothing.

    :param kind: the bits; 1 may come before 8
    :param answer: the first word of what the SMSC, or Kannel for it, said
    """
    if kind & DELIVERED:
        return "" if kind & (FAILED | REFUSED_BY_SMSC) else "delivered"
    if kind & FAILED and kind & NOT_KNOWN:
        return ""
    if kind & (FAILED | REFUSED_BY_SMSC):
        # Kannel itself drops a message whose validity is over: "NACK/validity expired".
        over = kind & FAILED and kind & EXPIRED or answer == "NACK/validity"
        return "expired" if over else "rejected"
    return "sent" if kind & (BUFFERED | ACCEPTED_BY_SMSC) else ""


class SmsBackend(HttpBackend):
    """Send through the smsbox of a Kannel. It takes the options of
    :class:`~django_smska.backends.over_http.HttpBackend`, too. See :doc:`/howto/kannel`.

    :param username: of Kannel's group ``sendsms-user``; required
    :param password: of the same group; required
    :param url: the address of sendsms, such as ``http://127.0.0.1:13013/cgi-bin/sendsms``; required
    :param smsc: the ``smsc-id`` to send through, where Kannel is not to choose
    """

    reports_by = "push"

    def __init__(
        self, *, username: str = "", password: str = "", url: str = "", smsc: str = "", **rest: Any
    ) -> None:
        login = {"username": username, "password": password}
        del username, password
        self.smsc = smsc
        super().__init__(login=login, url=url, **rest)

    def _refuse_wrong_options(self) -> None:
        super()._refuse_wrong_options()
        if not (isinstance(self.smsc, str) and self.smsc.isprintable()):
            self._refuse("'smsc' must be printable text.")

    @property
    def evidence(self) -> Evidence:  # type: ignore[override]
        """Return ``REPORTED`` where the project has an address for reports, which carry our
        reference. Without reports Kannel can prove nothing."""
        return Evidence.REPORTED if self.webhook_url(REPORT) else Evidence.MUTE

    def send_request(self, message: Any) -> Request:
        """Return a POST of XML.

        Kannel refuses forms. Its GET would put login, number and text into the address, and its
        POST of a text puts login and sender into headers, which cannot carry every character.
        """
        try:
            # Kannel decodes this once more, and strips what is not percent-encoded.
            text = quote(message.body, safe="")
        except UnicodeError:  # half of a surrogate pair; the error's text quotes the message
            raise InvalidRequest(CANNOT_BE_WRITTEN, code="text") from None
        sender = message.sender or self.sender_id
        if not _SENDER.fullmatch(sender):
            raise InvalidSender(code="sender")
        coding = CODING_UCS2 if count(message.body).encoding == UCS2 else CODING_GSM7
        submit = {
            "da": {"number": str(message.to)},  # the plus makes it international over SMPP
            "oa": {"number": sender},
            "from": {"user": self.login.username, "pass": self.login.password},
            "smsc": self.smsc,
            "dcs": {"coding": coding},
            "statusrequest": self._reports(message),
            "vp": {"delay": minutes_until(getattr(message, "expires_at", None))},
            "ud": text,
        }
        xml = '<?xml version="1.0" encoding="UTF-8"?>' + as_xml("message", {"submit": submit})
        headers = {"Content-Type": "text/xml; charset=UTF-8"}
        return self.request("send", message, headers=headers, body=xml.encode())

    def read_send_answer(self, answer: Answer) -> Receipt | SmsError:
        return read_send_answer(answer)

    def _reports(self, message: Any) -> dict[str, str]:
        base, reference = self.webhook_url(REPORT), getattr(message, "reference", "")
        if not (base and reference):
            return {}
        return {"dlr-mask": str(ALL_REPORTS), "dlr-url": report_url(base, reference)}

    def parse_reports(self, request: HttpRequest) -> list[Report]:
        kind, answer = request.GET.get("type", ""), request.GET.get("answer", "")
        reference = request.GET.get("reference", "")
        if not (reference and kind.isascii() and kind.isdecimal() and len(kind) <= 3):
            raise ValueError("no reference, or no type")
        raw = clean(f"{kind}|{answer}" if answer else kind)[:64]
        return [Report(status_of(int(kind), answer), raw, reference=reference)]

    def parse_inbound(self, request: HttpRequest) -> list[Inbound]:
        """Read a request of ``post-url``, or one of ``get-url`` with ``from=%p&to=%P&text=%b&``
        ``charset=%C&id=%I``."""
        if request.method == "POST":
            sender = request.headers.get("X-Kannel-From", "")
            to, text = request.headers.get("X-Kannel-To", ""), request.body
            charset = (request.content_params or {}).get("charset", "")
        else:
            sender, to = request.GET.get("from", ""), request.GET.get("to", "")
            text, charset = _raw_text(request), request.GET.get("charset", "")
        if not sender:
            raise ValueError("no sender")
        return [Inbound(sender, to, _decoded(text, charset), request.GET.get("id", ""))]


def _raw_text(request: HttpRequest) -> bytes:
    """Return the text of a query as bytes, because its charset stands beside it."""
    query: str = request.META.get("QUERY_STRING", "")
    return dict(parse_qsl(query, encoding="latin-1")).get("text", "").encode("latin-1")


def _decoded(text: bytes, charset: str) -> str:
    """Return the text of a phone. Kannel calls data "8-BIT", and it is none."""
    try:
        return text.decode(charset or "utf-8")
    except LookupError:
        raise ValueError("an unknown charset") from None

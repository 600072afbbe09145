"""What SMS-ka's answers mean. Pure.

Source of every rule: the provider's "Руководство по взаимодействию с сервисом коротких сообщений
(SMS) на основе HTTP API протокола", version 2014-05-05.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from .exceptions import (
    AuthenticationFailed,
    GatewayBusy,
    GatewayUnreachable,
    InsufficientCredits,
    InvalidRecipient,
    InvalidRequest,
    InvalidSender,
    QueryFailed,
    SmsError,
    SmsNotSent,
    SmsOutcomeUnknown,
    TemporaryFailure,
    gettext_noop,
)
from .exchange import Answer, clean, decode
from .receipts import Receipt, Report

REDIRECTS = (301, 302, 303, 307, 308)

# -2 comes from a sister API with the same texts: the sender ID belongs to another account.
REFUSALS: dict[int, type[SmsNotSent]] = {
    -1: AuthenticationFailed,
    -2: InvalidSender,
    -3: TemporaryFailure,
    -4: InvalidRequest,
    -5: InsufficientCredits,
    -6: InvalidRecipient,
    -7: InvalidSender,
}

# Not SMPP's numbers, where 3 is EXPIRED and 4 is DELETED.
REPORTS: dict[str, tuple[str, str]] = {
    "3": ("ACCEPTD", "sent"),
    "4": ("DELIVRD", "delivered"),
    "5": ("REJECTD", "rejected"),
    "6": ("REJECTD", "rejected"),
    "7": ("EXPIRED", "expired"),
    "8": ("DELETED", "deleted"),
}


# --- reading an answer --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)  # an answer may have twenty thousand
class Line:
    """A line that starts with a code of the protocol."""

    code: int
    fields: tuple[str, ...]
    raw: str

    def field(self, index: int) -> str:
        return self.fields[index] if index < len(self.fields) else ""


# int() takes "0_0" and "٠": match ASCII first. The balance answer's code has an underscore before
# it in the provider's document, perhaps by mistake, so that it is accepted everywhere.
_CODE = re.compile(r"_?(0|-[1-9][0-9]{0,3})")
_USABLE_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_BALANCE = re.compile(r"-?[0-9]+(?:[ \u00a0][0-9]{3})*(?:[.,][0-9]{1,4})?")
_BLANK = " \t\r\n\0\ufeff\u00a0"


def read_lines(text: str) -> list[Line]:
    """Return the lines of the protocol in ``text``, without PHP warnings and HTML around them.

    ``str.splitlines()`` would also split on U+2028.
    """
    found: list[Line] = []
    for raw in re.split(r"\r\n|\n|\r", text):
        fields = tuple(part.strip(_BLANK) for part in raw.strip(_BLANK).split("|"))
        match = _CODE.fullmatch(fields[0])
        if match and (len(fields) > 1 or int(match[1]) in REFUSALS):
            found.append(Line(int(match[1]), fields, raw.strip(_BLANK)))
    return found


def read_balance(text: str) -> Decimal | None:
    """Return the credits of ``7464``, ``-3,50`` or ``7 464.5``; ``None`` for anything else."""
    if len(text) > 20 or not _BALANCE.fullmatch(text):
        return None
    balance = Decimal(re.sub(r"[ \u00a0]", "", text).replace(",", "."))
    return balance if abs(balance) < 10**12 else None  # more digits than any database keeps


def read_send_answer(answer: Answer) -> Receipt | SmsError:
    """Return what an answer to a send means; an error is returned, not raised."""
    text = decode(answer.body)
    lines = read_lines(text)
    accepted = [line for line in lines if _says(line, "message sent")]
    if accepted and answer.status == 200 and len(accepted) == len(lines):
        return _receipt(accepted[0], answer.framed)
    if "message sent" in text.lower():  # also glued to something, beside a refusal
        return SmsOutcomeUnknown(code="contradiction", gateway_text=clean(text))
    if (answer.status == 200 or 400 <= answer.status < 500) and _all_refuse(lines):
        return _refusal(lines[0], answer.framed)
    # An answer that is cut inside its headers has no length either.
    if answer.framed and answer.status == 429:
        return GatewayBusy(code="http-429", gateway_text=clean(text))
    if answer.framed and (answer.status in REDIRECTS or 400 <= answer.status < 500):
        return _wrong_address(answer.status, text)
    code = "unreadable" if answer.status == 200 else f"http-{answer.status}"
    return SmsOutcomeUnknown(code=code, gateway_text=clean(text))


def read_balance_answer(answer: Answer) -> Decimal | SmsError:
    """Return the credits left, or the error that says why they are not known."""
    line = _query_line(answer, "balance status")
    if isinstance(line, SmsError):
        return line
    balance = read_balance(line.field(2))
    return QueryFailed(gateway_text=clean(line.raw)) if balance is None else balance


def read_status_answer(answer: Answer) -> Report | SmsError:
    """Return a message's delivery status.

    The request's own code is read first, because a negative one says nothing about the message.
    """
    line = _query_line(answer, "status")
    if isinstance(line, SmsError):
        return line
    number, word = line.field(2), line.field(3).upper()
    known_word, status = REPORTS.get(number, ("", ""))
    raw = clean("|".join(part for part in (number, line.field(3)) if part))[:64]
    whole = ("", known_word) if answer.framed else (known_word,)  # "4" may be cut
    return Report(status if word in whole else "", raw)


def _says(line: Line, kind: str) -> bool:
    return line.code == 0 and " ".join(line.field(1).lower().split()) == kind


def _all_refuse(lines: list[Line]) -> bool:
    return bool(lines) and all(line.code < 0 for line in lines)


def _receipt(line: Line, framed: bool) -> Receipt:
    gateway_id = line.field(2)
    # Without a length the last field may be cut; half an id would be that of another message.
    if not _USABLE_ID.fullmatch(gateway_id) or (not framed and len(line.fields) < 4):
        gateway_id = ""
    return Receipt(gateway_id, read_balance(line.field(4)))


def _refusal(line: Line, framed: bool) -> SmsError:
    if len(line.fields) == 1 and not framed:  # "-1" may be the beginning of "-12"
        return SmsOutcomeUnknown(code="unreadable", gateway_text=clean(line.raw))
    error = REFUSALS.get(line.code, InvalidRequest)
    answered = error is not AuthenticationFailed
    return error(code=str(line.code), gateway_text=clean(line.raw), answered=answered)


def _wrong_address(status: int, text: str) -> SmsNotSent:
    if status in (401, 403):
        return AuthenticationFailed(code=f"http-{status}", gateway_text=clean(text))
    return GatewayUnreachable(
        gettext_noop(
            "This is not the gateway's address. Correct it in the settings (url). Nothing was sent."
        ),
        code=f"http-{status}",
        gateway_text=f"HTTP {status}",
    )


def _query_line(answer: Answer, kind: str) -> Line | SmsError:
    text = decode(answer.body)
    lines = read_lines(text)
    if answer.status == 200 and len(lines) == 1 and _says(lines[0], kind):
        return lines[0]
    if answer.status == 200 and lines and lines[0].code == -1:
        return AuthenticationFailed(code="-1", gateway_text=clean(lines[0].raw))
    code = f"http-{answer.status}" if answer.status != 200 else str(lines[0].code if lines else "")
    return QueryFailed(code=code, gateway_text=clean(text))

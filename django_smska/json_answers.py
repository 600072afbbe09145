"""What providers that answer with JSON have in common. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from .exceptions import (
    AuthenticationFailed,
    GatewayBusy,
    GatewayUnreachable,
    InvalidRequest,
    QueryFailed,
    SmsError,
    SmsNotSent,
    SmsOutcomeUnknown,
    gettext_noop,
)
from .exchange import Answer, clean, decode
from .shapes import is_object

WRONG_ADDRESS = gettext_noop(
    "This is not the gateway's address. Correct it in the settings (url). Nothing was sent."
)
#: HTTP statuses with which a server, or a proxy before it, says that it did not carry the request
#: out (RFC 9110, 15.4 and 15.5). 302 and 303 are not among them: programs answer so what they have
#: carried out. Nor are 408 and 409, with which some proxies give up while the server behind them
#: goes on.
REFUSALS: dict[int, type[SmsNotSent]] = {
    **dict.fromkeys((301, 307, 308), GatewayUnreachable),
    **dict.fromkeys((400, 413, 414, 415, 422, 431), InvalidRequest),
    **dict.fromkeys((401, 403), AuthenticationFailed),
    **dict.fromkeys((404, 405, 410, 421), GatewayUnreachable),
    429: GatewayBusy,
}

MOST_DIGITS = 100  # on either side of a point; none of a provider's numbers has so many
_NUMBER = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,40})?")  # with what a binary fraction adds


def json_value(text: str) -> Any:
    """Return the value of a JSON text, with ``Decimal`` for fractions; ``None`` for any other."""
    try:
        return json.loads(text, parse_float=_fraction)
    except (ValueError, RecursionError):
        return None


def _fraction(text: str) -> Decimal | None:
    """Return a number, or ``None`` for one whose digits would fill the memory: ``1e999999999``."""
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent that Decimal does not have
        return None
    return number if abs(number.adjusted()) < MOST_DIGITS else None


def json_object(text: str) -> dict[str, Any]:
    """Return the object that the text is, as :func:`json_value` does; empty for anything else.

    Half of an object is none, so that it needs no announced length.
    """
    found = json_value(text)
    return found if is_object(found) else {}


def answered_object(answer: Answer) -> dict[str, Any]:
    """Return the object that an answer is, or an empty one."""
    return json_object(decode(answer.body))


def inner(value: Any, *names: str) -> dict[str, Any]:
    """Return the object that stands in ``value`` under these names, or an empty one."""
    for name in names:
        value = value.get(name) if is_object(value) else None
    return value if is_object(value) else {}


def text_of(value: Any) -> str:
    """Return a text or a whole number as text, "" for anything else."""
    known = isinstance(value, (str, int)) and not isinstance(value, bool)
    return str(value) if known else ""


def whole_of(value: Any) -> int | None:
    """Return a whole JSON number, ``None`` for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def number_of(value: Any) -> Decimal | None:
    """Return a JSON number, or a text that is one; ``None`` for anything else."""
    known = isinstance(value, (str, int, Decimal)) and not isinstance(value, bool)
    match = _NUMBER.fullmatch(format(value, "f") if isinstance(value, Decimal) else str(value))
    return Decimal(match[0]) if known and match else None


def count_of(value: Any) -> int | None:
    """Return a number of segments, or ``None`` where it is not known, which some write as 0."""
    number = number_of(value)
    return int(number) if number is not None and number >= 1 else None


def currency_of(value: Any) -> str:
    """Return three capital letters (ISO 4217), or ""."""
    known = isinstance(value, str) and re.fullmatch("[A-Za-z]{3}", value)
    return str(value).upper() if known else ""


def refused_by_status(answer: Answer, login: str) -> SmsNotSent | None:
    """Return the refusal that the HTTP status alone is, or ``None`` where it is none.

    :param login: the text of the error where the login is refused
    """
    error = REFUSALS.get(answer.status)
    if error is None or not answer.framed:  # a head that is cut has no length either
        return None
    texts: Mapping[type[SmsNotSent], str] = {
        AuthenticationFailed: login,
        GatewayUnreachable: WRONG_ADDRESS,
    }
    return error(
        texts.get(error, ""), code=f"http-{answer.status}", gateway_text=clean(decode(answer.body))
    )


def unclear(answer: Answer) -> SmsOutcomeUnknown:
    """Return the doubt that any other answer to a send is."""
    code = f"http-{answer.status}" if answer.status >= 300 else "unreadable"
    return SmsOutcomeUnknown(code=code, gateway_text=clean(decode(answer.body)))


def no_query(answer: Answer, login: str) -> SmsError:
    """Return why an answer to a query is none.

    Only 401 says that the login is wrong: a login may be allowed to send and not to query (403),
    and queries may have a limit of their own (429), neither of which stops the sending.
    """
    text = clean(decode(answer.body))
    if answer.status == 401:
        return AuthenticationFailed(login, code="http-401", gateway_text=text)
    return QueryFailed(code=f"http-{answer.status}", gateway_text=text)

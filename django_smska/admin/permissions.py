"""The permissions to see a message's text and its whole number."""

from __future__ import annotations

import re
from typing import Any

from django.utils.translation import gettext

from ..models import SmsMessage
from ..numbers import mask
from ..redact import WITHHELD, repeats, withhold

PIECE = 5  # digits in a row that count as a part of a number
_DIGITS = re.compile(r"\d(?:[\W_]{0,3}\d){4,}")
# As people write them. A date and a time do not begin like this.
_NUMBER = re.compile(r"(?<!\d)(?:\+\d|[789])(?:[\s().\-]{0,3}\d){9,14}")


class Unlogged(str):
    """A number or a text that a page shows, and no log or report that shows the page's context."""

    def __repr__(self) -> str:
        return "'•••'"


def may_see_text(user: Any) -> bool:
    return bool(user.has_perm("django_smska.see_text_smsmessage"))


def may_see_number(user: Any) -> bool:
    return bool(user.has_perm("django_smska.see_number_smsmessage"))


def number_for(user: Any, message: SmsMessage) -> str:
    """The recipient's number, masked for those who may not see it."""
    return str(message.to) if may_see_number(user) else mask(str(message.to))


def text_for(user: Any, message: SmsMessage) -> str:
    """The message's text, or a word in its place for those who may not see it."""
    return str(message.body) if may_see_text(user) else gettext("(hidden)")


def words_for(user: Any, message: Any, words: str) -> str:
    """What a gateway or a program wrote about this message, without what the user may not see."""
    return without(
        words,
        number=None if may_see_number(user) else str(getattr(message, "to", "")),
        text=None if may_see_text(user) else str(getattr(message, "body", "")),
    )


def without(words: str, *, number: str | None = None, text: str | None = None) -> str:
    """Return the words without parts of the number and without other numbers, or nothing of them
    where they repeat a piece of the text; ``None``: this may be seen."""
    if text and withhold(words, [text]) == WITHHELD:
        return gettext(WITHHELD)
    if number is None:
        return words
    shown = _NUMBER.sub("•••", _DIGITS.sub(lambda found: _unless_of(number, found[0]), words))
    # In another spelling: a URL, base64.
    return gettext(WITHHELD) if repeats(shown, [number.lstrip("+")]) else shown


def _unless_of(number: str, found: str) -> str:
    digits = "".join(str(int(one)) for one in found if one.isdecimal())
    parts = (digits[at : at + PIECE] for at in range(len(digits) - PIECE + 1))
    return "•••" if any(part in number for part in parts) else found

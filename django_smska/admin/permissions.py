"""The permissions to see a message's text and its whole number."""

from __future__ import annotations

import re
from typing import Any

from django.contrib.auth import get_permission_codename
from django.utils.translation import gettext

from ..models import SmsMessage
from ..numbers import mask
from ..redact import WITHHELD, repeats, withhold

PIECE_DIGITS = 5  # digits in a row that count as a part of a number
_DIGITS = re.compile(r"\d(?:[\W_]{0,3}\d){4,}")
# As people write them. A date and a time do not begin like this.
_NUMBER = re.compile(r"(?<!\d)(?:\+\d|[789])(?:[\s().\-]{0,3}\d){9,14}")


class Unlogged(str):
    """A number or a text that pages show, and logs and reports of a page's context do not."""

    def __repr__(self) -> str:
        return "'•••'"


def may(user: Any, action: str, opts: Any) -> bool:
    """Return whether the user has the permission for an action on rows of a model."""
    return bool(user.has_perm(f"{opts.app_label}.{get_permission_codename(action, opts)}"))


def may_view(user: Any) -> bool:
    return bool(user.has_perm("django_smska.view_smsmessage"))


def may_see_text(user: Any) -> bool:
    return bool(user.has_perm("django_smska.see_text_smsmessage"))


def may_see_number(user: Any) -> bool:
    return bool(user.has_perm("django_smska.see_number_smsmessage"))


def number_for(user: Any, message: SmsMessage) -> str:
    """Return the recipient's number, masked for users who may not see it."""
    return str(message.to) if may_see_number(user) else mask(str(message.to))


def text_for(user: Any, message: SmsMessage) -> str:
    """Return the message's text, or a placeholder for users who may not see it."""
    seen = str(message.body) if may_see_text(user) else gettext("(hidden)")
    return placeholder(message) or seen


def placeholder(message: SmsMessage) -> str:
    """Return what every user is shown instead of the text, or "" where it may be seen."""
    return instead_of_text(sensitive=message.sensitive, erased_at=message.erased_at)


def instead_of_text(*, sensitive: bool, erased_at: Any) -> str:
    """Do the same by the fields of a row."""
    if erased_at is not None:
        return gettext("(erased)")
    return gettext("(hidden: sensitive)") if sensitive else ""


def external_text_for(user: Any, message: Any, text: str) -> str:
    """Return what a gateway or program wrote about this message, as this user may see it."""
    sensitive = getattr(message, "sensitive", False)
    if sensitive and repeats(text, [message.body, message.code]):
        return gettext(WITHHELD)
    return without(
        text,
        number=None if may_see_number(user) else str(getattr(message, "to", "")),
        text=None if may_see_text(user) else str(getattr(message, "body", "")),
    )


def without(external: str, *, number: str | None = None, text: str | None = None) -> str:
    """Return an external text without parts of the number and without other numbers.

    Where it repeats a piece of the message's text, all of it is withheld.

    :param number: the message's, or ``None`` where the user may see it
    :param text: the message's, or ``None`` where the user may see it
    """
    if text and withhold(external, [text]) == WITHHELD:
        return gettext(WITHHELD)
    if number is None:
        return external
    shown = _NUMBER.sub("•••", _DIGITS.sub(lambda found: _unless_of(number, found[0]), external))
    # In another spelling: a URL, base64.
    return gettext(WITHHELD) if repeats(shown, [number.lstrip("+")]) else shown


def _unless_of(number: str, found: str) -> str:
    digits = "".join(str(int(one)) for one in found if one.isdecimal())
    parts = (digits[at : at + PIECE_DIGITS] for at in range(len(digits) - PIECE_DIGITS + 1))
    return "•••" if any(part in number for part in parts) else found

"""Telephone numbers: E.164 in, E.164 out, and the masked form for logs."""

from __future__ import annotations

import re
from typing import Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

# What people type between digits: blanks (also U+00A0, U+2009, U+202F), brackets, hyphens, dots.
_SEPARATORS = re.compile(r"[\s\u00a0\u2009\u202f().\u2010-\u2015\u2212-]+")
_RUSSIAN_LENGTH = _("A Russian number has 11 digits: 8 or +7, and ten more; others need a +.")
_RUSSIAN_MOBILE = re.compile(r"\+79[0-9]{9}")


def normalize(value: Any) -> str:
    """Return ``value`` as E.164, such as ``+79041764995``.

    ``8…``, ``7…`` and ``9…`` with eleven, eleven and ten digits are read as Russian numbers, all
    others need ``+`` and the country code. Objects with ``as_e164`` (phonenumber libraries) are
    taken. Raises ``ValidationError`` for what cannot be a number (ITU-T E.164: at most 15 digits).
    """
    value = getattr(value, "as_e164", value)
    if not isinstance(value, str) or not value.strip():
        raise _invalid(_("Enter a phone number."))
    plus, digits = _split(value)
    number = "+" + digits if plus else _russian(digits)
    if number.startswith("+7") and len(number) != 12:
        raise _invalid(_RUSSIAN_LENGTH)
    if number.startswith("+89"):
        raise _invalid(_("No country code starts with +89. Write +7 9… or 8 9…."))
    if not re.fullmatch(r"\+[1-9][0-9]{6,14}", number):
        raise _invalid(_("A number has 7 to 15 digits after +."))
    return number


def is_russian_mobile(number: str) -> bool:
    """True for ``+79`` and nine digits: all that the SMS-ka gateway sends to."""
    return bool(_RUSSIAN_MOBILE.fullmatch(number))


def mask(number: str) -> str:
    """Return ``number`` as logs may show it: ``+7904•••4995``."""
    return f"{number[:5]}•••{number[-4:]}" if len(number) > 9 else "•••"


def _split(value: str) -> tuple[bool, str]:
    compact = _SEPARATORS.sub("", value)
    digits = compact.removeprefix("+")
    if not re.fullmatch(r"[0-9]+", digits):
        raise _invalid(_("A number has only digits, blanks, brackets, hyphens and a leading +."))
    return compact.startswith("+"), digits


def _russian(digits: str) -> str:
    if len(digits) == 11 and digits[0] in "78":
        return "+7" + digits[1:]
    if len(digits) == 10 and digits[0] == "9":
        return "+7" + digits
    if digits[0] in "789":
        raise _invalid(_RUSSIAN_LENGTH)
    raise _invalid(_("Start the number with + and the country code, or with 8 for Russia."))


def _invalid(message: Any) -> ValidationError:
    return ValidationError(message, code="invalid_number")

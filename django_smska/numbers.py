"""Telephone numbers: E.164 in, E.164 out, and the masked form for logs."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

_BETWEEN_DIGITS = r"[\s().\u2010-\u2015\u2212-]"  # after NFKC, which makes all blanks one
_SEPARATORS = re.compile(rf"{_BETWEEN_DIGITS}+")
_RUSSIAN_MOBILE = re.compile(r"\+79[0-9]{9}")
# Unicode's default ignorable characters that are not of the category Cf, the keycap, and the blank
# of Braille.
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u20e3\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
# How programs write a number that they keep as a float: 79041764995.0, 7.9041764995E+10.
_FLOAT = re.compile(r"\+?([0-9]{7,15})[.,]0+")
_SCIENTIFIC = re.compile(r"\+?([0-9](?:[.,][0-9]*)?)E\+?([0-9]{1,2})", re.IGNORECASE)
_SHORTENED = re.compile(r"[0-9]E\+[0-9]+$", re.IGNORECASE)

NO_EXTENSION = _("SMS cannot be sent to an extension. Write only the number.")
_RUSSIAN_LENGTH = _("A Russian number has 11 digits: 8 or +7, and ten more; others need a +.")


class Found(NamedTuple):
    """A number within a text.

    :param start: its place in the text
    :param end: where the text goes on
    """

    number: str
    start: int
    end: int


def normalize(value: Any) -> str:
    """Return ``value`` as E.164, such as ``+79041764995``.

    ``8…``, ``7…`` and ``9…`` with eleven, eleven and ten digits are read as Russian numbers, all
    others need ``+`` and the country code. ``tel:`` links, numbers that a spreadsheet keeps as
    ``79041764995.0``, objects with ``as_e164`` and those of ``phonenumbers`` are accepted. Raises
    ``ValidationError`` for what cannot be a number (ITU-T E.164: at most 15 digits).
    """
    text = plain(_as_text(value)).strip()
    if not text:
        raise _invalid(_("Enter a phone number."))
    if len(text) > 16 and len(find(text)) > 1:
        raise _invalid(_("There is more than one number here. Write one."))
    plus, digits = _split(_unfloat(_without_scheme(text)))
    number = "+" + digits if plus else _russian(digits)
    if number.startswith("+7"):
        _check_plan(number)
    if number.startswith("+89"):
        raise _invalid(_("No country code starts with +89. Write +7 9… or 8 9…."))
    if not re.fullmatch(r"\+[1-9][0-9]{6,14}", number):
        raise _invalid(_("A number has 7 to 15 digits after +."))
    return number


def is_russian_mobile(number: str) -> bool:
    """Return True for ``+79`` and nine digits: all that the SMS-ka gateway sends to."""
    return bool(_RUSSIAN_MOBILE.fullmatch(number))


def mask(number: str) -> str:
    """Return ``number`` as logs may show it: ``+7904•••4995``."""
    return f"{number[:5]}•••{number[-4:]}" if len(number) > 9 else "•••"


def is_invisible(character: str) -> bool:
    """Return whether it takes no room: direction marks, zero-width blanks, soft hyphens, variation
    selectors."""
    return unicodedata.category(character) == "Cf" or bool(_IGNORABLE.match(character))


def plain(text: str) -> str:
    """Return ``text`` without invisible characters and with the usual form of all others (NFKC).

    An ellipsis stays one: NFKC makes dots of it, which may stand within a number. Superscripts
    and circled digits stay, too, since they are marks beside a number.
    """
    return text if text.isascii() else "".join(map(_plain, text))


@lru_cache(maxsize=10_000)
def _plain(character: str) -> str:
    if is_invisible(character):
        return ""
    if character == "…" or unicodedata.category(character) == "No":
        return character
    usual = unicodedata.normalize("NFKC", character)
    return usual if len(usual) < 5 else character  # a ligature of whole words would lengthen a text


# Eleven digits from 7 or 8 on, ten from 9 on, or + and any country: not a part of a longer one.
_ANY_NUMBER = re.compile(
    rf"""(?<!\+)(?:(?<![0-9])|(?=\+))(?:
        (?:\+?7|8){_BETWEEN_DIGITS}{{0,3}}[346789](?:{_BETWEEN_DIGITS}{{0,3}}[0-9]){{9}}
        | 9(?:{_BETWEEN_DIGITS}{{0,3}}[0-9]){{9}}
        | \+(?!8{_BETWEEN_DIGITS}{{0,3}}9)[1-689](?:{_BETWEEN_DIGITS}{{0,3}}[0-9]){{6,14}}
    )(?![0-9…])""",
    re.VERBOSE,
)


def find(text: str) -> list[Found]:
    """Return the numbers that can be seen in ``text``, which is :func:`plain`."""
    return [
        Found(_as_e164(match[0]), match.start(), match.end())
        for match in _ANY_NUMBER.finditer(text)
    ]


def _as_e164(written: str) -> str:
    plus, digits = _split(written)
    return "+" + digits if plus else _russian(digits)


def _as_text(value: Any) -> str:
    if hasattr(value, "as_e164"):
        value = value.as_e164 or ""
    elif hasattr(value, "country_code") and hasattr(value, "national_number"):
        value = _of_phonenumbers(value)
    if not isinstance(value, str):
        raise _invalid(_("This must be text, not %(type)s."), type=type(value).__name__)
    return value


def _of_phonenumbers(value: Any) -> str:
    """Return the text of a ``phonenumbers`` object, which keeps leading zeros apart."""
    if value.country_code is None or value.national_number is None:
        return ""
    if getattr(value, "extension", None):
        raise _invalid(NO_EXTENSION)
    zeros = 0
    if getattr(value, "italian_leading_zero", None):
        zeros = getattr(value, "number_of_leading_zeros", None) or 1
    return f"+{value.country_code}{'0' * zeros}{value.national_number}"


def _without_scheme(text: str) -> str:
    """Return the number of a ``tel:`` link; its parameters change the recipient (RFC 3966)."""
    if text[:4].lower() != "tel:":
        return text
    number, semicolon, _parameters = text[4:].partition(";")
    if semicolon:
        raise _invalid(NO_EXTENSION)
    return number


def _unfloat(text: str) -> str:
    """Return a number that a spreadsheet wrote as a float as its digits.

    No digit is invented: 7.90418E+10 has lost some, and raises ``ValidationError``.
    """
    if match := _FLOAT.fullmatch(text):
        return text[: match.end(1)]
    if match := _SCIENTIFIC.fullmatch(text):
        mantissa = match[1].replace(",", ".")
        if len(mantissa.replace(".", "")) > int(match[2]):
            number = Decimal(f"{mantissa}E{match[2]}")
            if number == number.to_integral_value():
                return f"{text[0].strip('0123456789')}{number:.0f}"
    if _SHORTENED.search(text):
        raise _invalid(
            _("A spreadsheet has shortened this number: give its column the format “text” there.")
        )
    return text


def _split(text: str) -> tuple[bool, str]:
    compact = _SEPARATORS.sub("", text)
    digits = compact.removeprefix("+")
    if re.fullmatch(r"[0-9]+", digits):
        return compact.startswith("+"), digits
    if any(one.isnumeric() and not one.isascii() for one in digits):
        raise _invalid(_("Write a number with the digits 0 to 9."))
    raise _invalid(_("A number has only digits, blanks, brackets, hyphens, dots and a leading +."))


def _russian(digits: str) -> str:
    if len(digits) == 11 and digits[0] in "78":
        return "+7" + digits[1:]
    if len(digits) == 10 and digits[0] == "9":
        return "+7" + digits
    if digits[0] in "789":
        raise _invalid(_RUSSIAN_LENGTH)
    raise _invalid(_("Start the number with + and the country code, or with 8 for Russia."))


def _check_plan(number: str) -> None:
    """Check the numbering plan: Russia has +73, +74, +78 and +79, Kazakhstan +76 and +77.

    Belarus and Ukraine write 8 0… at home, as Russia writes 8 9….
    """
    if len(number) != 12:
        raise _invalid(_RUSSIAN_LENGTH)
    if number[2] in "0125":
        raise _invalid(
            _("No number starts with +7%(digit)s. Another country needs + and its own code."),
            digit=number[2],
        )


def _invalid(message: Any, **params: str) -> ValidationError:
    return ValidationError(message, code="invalid_number", params=params or None)

"""Find the numbers in a pasted line, whatever stands beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from ..numbers import NO_EXTENSION, Found, find, normalize, plain
from .phone_words import Kind, has_extension, is_amount, is_introduced, kind

# What spreadsheets put around a number to keep it text: '+7904…, ="+7904…".
WRAPPING = " \u00a0'\"="
# A comma stands in a number that a spreadsheet has shortened or made a float, too: 7,90418E+10,
# 79041764995,00. A semicolon stands before a parameter of a tel: link.
# And a comma stands within a price: 89 041 764 995,50.
_BETWEEN = re.compile(
    r"[\t|]|;(?!\s*[a-z-]+=)|,(?!0+(?![0-9])|[0-9]+E\+?[0-9]|(?<=\s[0-9]{3},)[0-9]{2}(?![0-9]))",
    re.IGNORECASE,
)
_NUMBERING = re.compile(r"\A\s*[0-9]{1,4}[.)]\s+")
_AND = {"and", "or", "и", "или"}
# Digits that belong to no number: dates, times, hours, and the shapes of a SNILS and of a passport,
# in which a Russian number is rarely written.
_NO_PHONE = re.compile(
    r"""(?<![0-9.])[0-3]?[0-9][./][01]?[0-9][./](?:19|20)[0-9]{2}(?![0-9])
    | (?<![0-9-])(?:19|20)[0-9]{2}-[01][0-9]-[0-3][0-9](?![0-9-])
    | (?<![0-9:])[0-2]?[0-9]:[0-5][0-9](?::[0-5][0-9])?(?![0-9:])
    | \b(?:с|до|после|from|until|till|after|before)\s[0-2]?[0-9](?=[\s),]|\Z)
    | (?<![0-9+-])[0-9]{3}-[0-9]{3}-[0-9]{3}[ -][0-9]{2}(?![0-9])
    | (?<![0-9+()-])(?<![0-9]\s)[0-9]{2}[ ]?[0-9]{2}[ ][0-9]{6}(?![0-9])""",
    re.VERBOSE | re.IGNORECASE,
)
_PASSPORT_OR_PHONE = re.compile("9[0-9] ?([0-9]{2}) [0-9]{6}")
#: The second two digits of a passport are the year of its form: 97 to 99, or from 00 on.
_NO_YEARS = range(40, 95)
_MARK = "•"  # stands for these, so that the digits on its sides do not make one number
_SLASHES = re.compile(r"(?<![0-9])(\+?7|8) ?/ ?(9[0-9]{2}) ?/")
_FLOAT = re.compile(r"(?<![0-9.])([0-9]{7,15})\.0{1,2}(?![0-9.])")
_ALMOST = re.compile(r"\+?[0-9](?:[\s().\u2010-\u2015\u2212-]{0,3}[0-9]){6,}")
_WITHIN_NUMBERS = re.compile(r"[\s().\u2010-\u2015\u2212-]*")


class PassportOrPhone(ValidationError):
    """Ten digits from 9 on, written as a passport is: ``9041 764995``.

    :ivar number: in E.164, where no passport has these digits; among phone numbers alone it is one
    """

    def __init__(self, found: re.Match[str]) -> None:
        super().__init__(
            _("This may be a passport. If it is a phone number, write it with 8 or +7 before it."),
            code="invalid_number",
        )
        self.number = normalize(found[0].replace(" ", "")) if int(found[1]) in _NO_YEARS else ""


class Piece(NamedTuple):
    """What stands between two commas or the like: a number, or why it is none."""

    written: str
    number: str | ValidationError
    among_words: bool = False


def pieces(words: str) -> Iterator[Piece]:
    """Yield what stands in a line. One that holds several numbers is yielded for each."""
    for piece in _BETWEEN.split(words):
        if not (written := piece.strip(WRAPPING)):
            continue
        try:
            numbers, among_words = _numbers_in(written)
        except ValidationError as error:
            yield Piece(written, error)
        else:
            yield from (Piece(written, number, among_words) for number in numbers)


def _numbers_in(written: str) -> tuple[list[str], bool]:
    """Return the number that ``written`` is, or those in it, ``tel. 8904…, 8905…``, and whether
    other words stand there.

    Raises ``ValidationError`` if there is none, or if it may be something else.
    """
    text = _NO_PHONE.sub(_MARK, plain(written))
    try:
        return [normalize(text)], False
    except ValidationError as error:
        whole = error
    text = _FLOAT.sub(r"\1", _NUMBERING.sub("", text).replace("_", "-"))
    text = _SLASHES.sub(r"\1(\2)", text)
    found = find(text)
    if not found:
        if either := _PASSPORT_OR_PHONE.fullmatch(plain(written).strip()):
            raise PassportOrPhone(either)
        raise _unclear() if _MARK in text else _why_none(text) or whole
    ends = [0, *(one.end for one in found)]
    starts = [*(one.start for one in found), len(text)]
    rest = [text[end:start] for end, start in zip(ends, starts, strict=True)]
    words = " ".join(rest)
    others = set(re.findall(r"\w+", words.casefold())) - _AND
    amount = is_amount(rest[0], rest[-1])
    is_clear = not amount and not _may_share_digits(text, found)
    if is_clear and all(kind(one) == Kind.PHONE for one in others):
        return [one.number for one in found], bool(others) or _MARK in text
    if len(found) > 1:
        raise ValidationError(
            _("There is more than one number here. Separate them with commas."),
            code="invalid_number",
        )
    if has_extension(words):
        raise ValidationError(NO_EXTENSION, code="invalid_number")
    if amount or kind(words) == Kind.SOMETHING_ELSE or _has_more_digits(*rest):
        raise _unclear()
    return [found[0].number], True


def _why_none(text: str) -> ValidationError | None:
    """Return what is wrong with the digits that stand among words, if they are one number."""
    almost = _ALMOST.findall(text)
    if len(almost) == 1:
        try:
            normalize(almost[0])
        except ValidationError as error:
            return error
    return None


def _may_share_digits(text: str, found: list[Found]) -> bool:
    """Return whether the 8 before a number may have been read as the end of the one before it."""
    return any(
        text[two.start] == "9"
        and _WITHIN_NUMBERS.fullmatch(text, one.end, two.start)
        and _shape(text, one) != _shape(text, two)
        for one, two in pairwise(found)
    )


def _shape(text: str, one: Found) -> str:
    return re.sub("[0-9]", "0", text[one.start : one.end])


def _unclear() -> ValidationError:
    return ValidationError(
        _("It is not clear which digits here are the phone number. Write only the number."),
        code="invalid_number",
    )


def _has_more_digits(before: str, after: str) -> bool:
    """Return whether other digits may belong to the number, or may be one themselves."""
    near = re.search(r"[0-9][^\w]*$", before) or re.match(r"[^\w]*[0-9]", after)
    apart = after if is_introduced(before) else before + " " + after
    return bool(near or re.search("[0-9]{5}", apart))

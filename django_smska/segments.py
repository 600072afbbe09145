"""How many segments a text has (3GPP TS 23.038 and TS 23.040).

The count is an estimate of the bill: some gateways charge Latin text at 140/134 characters.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

GSM_BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM_EXTENSION = frozenset("^{}\\[~]|€\f")
_GSM = GSM_BASIC | GSM_EXTENSION

GSM7, UCS2 = "GSM-7", "UCS-2"
MOST_ODD = 5  # the most characters that are named as those to replace
MOST_FEWER = 10  # the most characters by which a text is worth being made shorter
_ONE, _EACH = {GSM7: 160, UCS2: 70}, {GSM7: 153, UCS2: 67}


def with_plain_lines(text: str) -> str:
    """Return a text with the line ends that are stored and sent. Browsers and files end lines with
    CR LF, and CR would count as a character of GSM."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


class Segments(NamedTuple):
    """The size of a text.

    :param encoding: ``"GSM-7"`` or ``"UCS-2"``
    :param units: septets or UTF-16 units in all
    :param segments: parts
    :param left: units that the last part has room for
    :param foreign: index of the first character that is not in the GSM alphabet, -1 for none
    """

    encoding: str
    units: int
    segments: int
    left: int
    foreign: int


@lru_cache(maxsize=1)  # a mass mailing counts one text ten thousand times
def count(text: str) -> Segments:
    """Count the segments of ``text``; no text has none. ``static/…/counter.js`` does the same."""
    foreign = next((at for at, character in enumerate(text) if character not in _GSM), -1)
    encoding = GSM7 if foreign < 0 else UCS2
    units = len(text) + sum(map(text.count, GSM_EXTENSION)) if foreign < 0 else _utf16(text)
    if units <= _ONE[encoding]:
        return Segments(encoding, units, 1 if text else 0, _ONE[encoding] - units, foreign)
    starts, left = _starts(text, encoding)
    return Segments(encoding, units, len(starts), left, foreign)


def parts(text: str) -> list[str]:
    """Return the text cut where its segments end. ``static/…/counter.js`` does the same."""
    size = count(text)
    if size.segments < 2:
        return [text] if text else []
    starts, _ = _starts(text, size.encoding)
    return [text[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


def _utf16(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _width(character: str, encoding: str) -> int:
    if encoding == GSM7:
        return 2 if character in GSM_EXTENSION else 1
    return 2 if ord(character) > 0xFFFF else 1


def _starts(text: str, encoding: str) -> tuple[list[int], int]:
    """Fill parts in order; what takes two units is never split over two parts. Return the index at
    which each part starts, and the room that is left in the last."""
    starts, free = [0], _EACH[encoding]
    for index, character in enumerate(text):
        width = _width(character, encoding)
        if width > free:
            starts.append(index)
            free = _EACH[encoding]
        free -= width
    return starts, free


# --- what would make it cost less -----------------------------------------------------------------


class Savings(NamedTuple):
    """What would make a text cost less, each counted again.

    :param odd: the few characters because of which a Latin text is not in the GSM alphabet
    :param without_odd: segments of the text without them
    :param fewer: characters at the end without which it has fewer segments; 0 if they are many
    :param without_fewer: segments of the text without those
    """

    odd: tuple[str, ...]
    without_odd: int
    fewer: int
    without_fewer: int


def savings(text: str) -> Savings:
    """Return what would make ``text`` cost less. ``static/…/counter.js`` does the same."""
    segments, odd = count(text).segments, odd_characters(text)
    without_odd = count(_without(text, odd)).segments
    shorter = (count(text[:-fewer]).segments for fewer in range(1, MOST_FEWER + 1))
    found = ((at, size) for at, size in enumerate(shorter, start=1) if 0 < size < segments)
    return Savings(odd, without_odd, *next(found, (0, segments)))


def odd_characters(text: str) -> tuple[str, ...]:
    """Return the characters because of which a Latin text is not in the GSM alphabet, in their
    order; none for a text in another script, and where they are many."""
    odd = tuple(dict.fromkeys(character for character in text if character not in _GSM))
    few = 0 < len(odd) <= MOST_ODD and any(map(str.isalnum, _without(text, odd)))
    return odd if few and _is_latin(text) else ()


def _without(text: str, characters: tuple[str, ...]) -> str:
    return "".join(character for character in text if character not in characters)


def _is_latin(text: str) -> bool:
    """Return whether letters of other scripts stand only beside Latin ones, as one that looks the
    same does after a slip of the keyboard."""
    padded = f" {text} "
    return not any(
        is_of_other_script(padded[at]) and not (_beside(padded[at - 1]) or _beside(padded[at + 1]))
        for at in range(1, len(padded) - 1)
    )


def is_of_other_script(character: str) -> bool:
    """Return whether it is a letter of neither the Latin script nor the GSM alphabet."""
    latin = character <= "\u024f" or "\u1e00" <= character <= "\u1eff"
    return character.isalpha() and not latin and character not in _GSM


def _beside(character: str) -> bool:
    return character.isascii() and character.isalpha()

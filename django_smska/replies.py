"""What a person says who answers that they want no more messages. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from .numbers import plain

#: CANCEL and END are not among them, because they may answer a question: cancel the appointment.
STOP_WORDS = (
    *("STOP", "STOPALL", "STOP ALL", "UNSUBSCRIBE", "QUIT", "OPTOUT", "OPT OUT"),
    *("СТОП", "СТОП СМС", "ОТПИСКА", "ОТПИСАТЬСЯ", "ОТПИШИТЕ"),
)


def folded(text: str) -> str:
    """Return a text as it is compared: without case, invisible characters, and whatever is no
    letter or digit at its ends."""
    words = " ".join(unicodedata.normalize("NFC", plain(text)).casefold().split())
    inner = [place for place, one in enumerate(words) if one.isalnum()]
    return words[inner[0] : inner[-1] + 1] if inner else ""


def parse(words: Iterable[str]) -> frozenset[str]:
    """Return the words as they are compared.

    :raises ValueError: for one without a letter or digit, which an empty message would match
    """
    every = frozenset(map(folded, words))
    if "" in every:
        raise ValueError("a word without a letter or digit")
    return every


def stop_word(body: str, words: frozenset[str]) -> str:
    """Return the word of which a message consists, or "" where it says anything else.

    :param words: as :func:`parse` returns them
    """
    said = folded(body)
    return said.upper() if said in words else ""

"""Our own name of a message, by which a provider's word about it is recognized. Pure."""

from __future__ import annotations

import secrets
import string

#: What every provider takes in an id: SMSC.ru 40 of these and ``._-``, Vonage 100, Infobip 200.
ALPHABET = string.ascii_letters + string.digits
CHARACTERS = 22  # as many as 128 random bits need


def new_reference() -> str:
    """Return 22 letters and digits, drawn so that no two are equal and none can be guessed."""
    drawn: list[str] = []
    rest = secrets.randbits(128)
    for _ in range(CHARACTERS):
        rest, digit = divmod(rest, len(ALPHABET))
        drawn.append(ALPHABET[digit])
    return "".join(drawn)

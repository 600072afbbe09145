"""What a phone can show as a sender (3GPP TS 23.040, 9.1.2.5). Pure."""

from __future__ import annotations

import re

#: Letters, digits and marks that the GSM alphabet and every phone have.
_NAME = re.compile(r"[A-Za-z0-9 .,:;!?'\"()/&+*%#$@<>=_-]{1,11}")
_NUMBER = re.compile(r"\+?[0-9]{1,15}")

RULE = "11 Latin letters, digits, blanks and marks at most, or a number of up to 15 digits"


def can_be_shown(sender: str) -> bool:
    """Return whether networks can carry this sender: a name or a number."""
    named = bool(_NAME.fullmatch(sender)) and sender == sender.strip()
    return named or bool(_NUMBER.fullmatch(sender))

"""Keep what the gateway repeats of a request out of errors, logs and rows."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from urllib.parse import unquote_plus

from .exceptions import gettext_noop

PIECE = 8  # characters of a secret that are not shown
_LONG_NUMBER = re.compile(r"\+?[0-9](?:[\s()+.\-]*[0-9]){6,}")
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
WITHHELD = gettext_noop("(withheld: it repeats what was sent)")


def withhold(text: str, secrets: list[str]) -> str:
    """Return the gateway's words without numbers, or nothing of them where they hold a piece of a
    secret in any of the spellings in which PHP prints a request."""
    plain = _folded(html.unescape(unquote_plus(text)))
    plain += _folded(_ESCAPED.sub(lambda match: chr(int(match[1], 16)), text))
    if any(piece in plain for secret in secrets for piece in _pieces(_folded(secret))):
        return WITHHELD
    return _LONG_NUMBER.sub("•••", text)


def _pieces(secret: str) -> Iterator[str]:
    if len(secret) < 3:  # it would be found in every text
        return iter(())
    return (secret[at : at + PIECE] for at in range(max(len(secret) - PIECE, 0) + 1))


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())

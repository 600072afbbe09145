"""Keep the content of requests out of errors, logs, rows and the reports of error trackers."""

from __future__ import annotations

import base64
import binascii
import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import NoReturn, TypeVar
from urllib.parse import unquote_plus

from .exceptions import gettext_noop

_T = TypeVar("_T")


# --- local variables ------------------------------------------------------------------------------


class Hidden(SimpleNamespace):
    """Values that no ``repr()`` or pickle shows: error trackers report the local variables of every
    frame, and caches and task engines pickle what they are given.

    It has no ``__init__`` of its own, because that would be a frame with the values in it.
    """

    def __repr__(self) -> str:
        return "<Hidden •••>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("This object holds a login or a text, and cannot be pickled.")


def contained(call: Callable[[], _T]) -> _T | BaseException:
    """Return what ``call`` returns or raises; an error comes without the frames that it left.

    Those frames hold the request. A web server's abort, a signal or a timeout of gevent can be
    raised at any line, so each ``BaseException`` is caught here. The caller raises it from a frame
    that holds no secret.
    """
    try:
        return call()
    except BaseException as error:
        error.__traceback__ = error.__context__ = error.__cause__ = None
        return error


# --- the gateway's text ---------------------------------------------------------------------------

PIECE_CHARACTERS = 8  # the shortest piece of a secret that is hidden: shorter ones occur by chance
_LONG_NUMBER = re.compile(r"\+?[0-9](?:[\s()+.\-]*[0-9]){6,}")
_UNICODE = re.compile(r"\\u(?:\{([0-9a-fA-F]{1,6})\}|([0-9a-fA-F]{4}))")
_BYTES = re.compile(r"(?:[\\=]x?[0-9a-fA-F]{2})+")
_TOKEN = re.compile(r"[A-Za-z0-9+/_-]{4,}={0,2}")
#: No character has so long a number, and ``html.unescape()`` raises for one of 4,300 digits.
_NO_CHARACTER = re.compile("&#[0-9]{100,}")
WITHHELD = gettext_noop("(withheld: it repeats what was sent)")


def withhold(text: str, secrets: Iterable[str], number: str = "") -> str:
    """Return the gateway's text without numbers, or ``WITHHELD`` where it repeats a secret.

    :param number: the recipient's, which is withheld where it comes in another spelling
    """
    shown = _LONG_NUMBER.sub("•••", text)
    if repeats(text, secrets) or repeats(shown, [number]):
        return WITHHELD
    return shown


def repeats(text: str, secrets: Iterable[str]) -> bool:
    """Return whether ``text`` has a secret in it, or a piece of one.

    It may be in any of the spellings in which programs print a request. A piece has
    ``PIECE_CHARACTERS``.
    """
    readings = {fold(reading) for reading in _readings(text) for fold in (_words, _letters)}
    pieces = {one[at : at + PIECE_CHARACTERS] for one in readings for at in range(len(one))}
    return any(_is_in(secret, readings, pieces) for secret in secrets)


def _is_in(secret: str, readings: set[str], pieces: set[str]) -> bool:
    long = any(
        folded[at : at + PIECE_CHARACTERS] in pieces
        for folded in (_words(secret), _letters(secret))
        for at in range(len(folded) - PIECE_CHARACTERS + 1)
    )
    short = _words(secret)
    # One or two characters are found in every text.
    return long or (
        3 <= len(short) < PIECE_CHARACTERS and any(short in reading for reading in readings)
    )


def _readings(text: str) -> Iterator[str]:
    """Yield what ``text`` may mean: URLs, HTML, escapes, base64, hexadecimal, and UTF-8 that was
    read as windows-1251 or Latin-1."""
    plain = text
    for _ in range(3):  # escaped more than once
        yield plain
        plain = html.unescape(_NO_CHARACTER.sub("", unquote_plus(plain)))
    yield plain
    yield unquote_plus(text, encoding="windows-1251")
    yield text.replace("\\", "")
    yield _UNICODE.sub(lambda match: _character(match[1] or match[2]), text)
    yield from _from_bytes(_BYTES.sub(_joined, text).encode("latin-1", "replace"))
    for encoding in ("windows-1251", "latin-1"):
        yield text.encode(encoding, "replace").decode(errors="replace")
    for token in _TOKEN.findall(text):
        yield from _from_token(token)


def _joined(match: re.Match[str]) -> str:
    return bytes.fromhex(re.sub(r"[\\=]x?", "", match[0])).decode("latin-1")


def _character(code: str) -> str:
    return chr(int(code, 16)) if int(code, 16) < 0x110000 else ""


def _from_token(token: str) -> Iterator[str]:
    bare = token.rstrip("=").replace("-", "+").replace("_", "/")
    for decode, written in (
        (base64.b64decode, bare + "=" * (-len(bare) % 4)),
        (bytes.fromhex, token),
    ):
        try:
            data = decode(written)
        except (ValueError, binascii.Error):
            continue
        yield from _from_bytes(data)


def _from_bytes(data: bytes) -> Iterator[str]:
    yield data.decode(errors="replace")
    yield data.decode("windows-1251", errors="replace")


def visible(text: str) -> str:
    """Return ``text`` without format characters, and with blanks for control characters."""
    return "".join(
        c if c.isprintable() else "" if unicodedata.category(c) == "Cf" else " " for c in text
    )


def _words(text: str) -> str:
    return " ".join(visible(text).casefold().split())


def _letters(text: str) -> str:
    """Return letters and digits alone, because marks are added, doubled and dropped on the way."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())

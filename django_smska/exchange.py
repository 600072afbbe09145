"""What is asked of a provider over HTTP, and what it answers. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from .exceptions import InvalidRequest, gettext_noop
from .redact import Hidden, visible

TEXT_LIMIT_CHARACTERS = 500
#: Hosts that need no TLS, because nothing leaves the machine.
LOOPBACK = ("127.0.0.1", "::1", "localhost")
CANNOT_BE_WRITTEN = gettext_noop("The text has characters that cannot be sent. Remove them.")


class Request(Hidden):
    """What is asked of a provider, which no ``repr()`` shows.

    :ivar name: what is asked, for the log, such as ``"balance"``
    :ivar url: the address, without a login, because proxies and servers keep addresses in logs
    :ivar body: the fields of a form, or bytes
    :ivar secrets: what no log, row or error may repeat of the answer: login, text, code
    :ivar number: the recipient, as digits, which are withheld likewise
    """

    name: str
    url: str
    method: str = "POST"
    headers: Mapping[str, str] = MappingProxyType({})
    body: Mapping[str, str] | bytes = b""
    secrets: Sequence[str] = ()
    number: str = ""


def json_body(value: Any) -> bytes:
    """Return ``value`` as JSON. Raises ``InvalidRequest`` for half of a surrogate pair, which some
    providers would store as another character."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeError:  # its own text quotes the message
        raise InvalidRequest(CANNOT_BE_WRITTEN, code="text") from None


@dataclass(frozen=True)
class Answer:
    """An HTTP answer as it came.

    :param framed: its length was announced and reached, so that no field can be cut
    """

    status: int
    body: bytes
    framed: bool = True


def decode(body: bytes) -> str:
    """Decode UTF-8 with or without a byte order mark, else windows-1251.

    Requests would guess Latin-1.
    """
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return body.decode("windows-1251", errors="replace")


def clean(text: str) -> str:
    """Make another party's text fit for any database and page: no control characters, bounded."""
    return " ".join(visible(text[: 4 * TEXT_LIMIT_CHARACTERS]).split())[:TEXT_LIMIT_CHARACTERS]

"""Write messages to a stream instead of sending them, for development."""

from __future__ import annotations

import sys
import threading
from typing import Any, TextIO

from ..receipts import Receipt
from ..segments import count
from .base import BaseSmsBackend

_lock = threading.Lock()


class SmsBackend(BaseSmsBackend):
    """Print each message, with its number of segments.

    :param stream: an open text stream; standard output by default
    """

    uses_network = False

    def __init__(self, *, stream: TextIO | None = None, alias: str | None = None, **kwargs: Any):
        super().__init__(alias=alias, **kwargs)
        self.stream = stream

    def send_message(self, message: Any) -> Receipt:
        stream = self.stream or sys.stdout
        with _lock:
            stream.write(as_text(message))
            stream.flush()
        return Receipt()


def as_text(message: Any) -> str:
    """Return the message as people read it, with a rule below."""
    size = count(message.body)
    head = f"SMS to {message.to}" + (f" from {message.sender}" if message.sender else "")
    return f"{head} ({size.segments} × {size.encoding})\n{message.body}\n{'-' * 79}\n"

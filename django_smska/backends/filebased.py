"""Append messages to a file a day instead of sending them."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

from ..exceptions import InvalidProvider
from ..receipts import Receipt
from .base import BaseSmsBackend
from .console import as_text


class SmsBackend(BaseSmsBackend):
    """Append each message to a file a day.

    :param file_path: the folder, which is made if it does not exist; required
    """

    uses_network = False

    def __init__(self, *, file_path: str | Path = "", alias: str | None = None, **kwargs: Any):
        super().__init__(alias=alias, **kwargs)
        if not file_path:
            raise InvalidProvider(
                "OPTIONS must define 'file_path', the folder for the messages.", alias=alias
            )
        self.folder = Path(file_path)

    def send_message(self, message: Any) -> Receipt:
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"sms-{date.today():%Y%m%d}.log"
        with open(self.folder / name, "a", encoding="utf-8") as file:
            file.write(as_text(message))  # one write: lines of two processes do not mix
        return Receipt()

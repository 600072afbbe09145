"""The SMS-ka gateway (my2.sms-ka.net), as its document of 2014-05-05 describes it."""

from __future__ import annotations

import logging
from decimal import Decimal
from functools import lru_cache
from typing import Any

from django.core.checks import CheckMessage, Warning
from django.core.exceptions import ValidationError

from .. import log_fields
from ..exceptions import InvalidRecipient, QueryFailed, SmsError, gettext_noop
from ..exchange import Answer, Request
from ..numbers import is_russian_mobile, normalize
from ..protocol import read_balance_answer, read_send_answer, read_status_answer
from ..receipts import CREDITS, Receipt, Report
from ..senders import RULE, can_be_shown
from .over_http import HttpBackend

logger = logging.getLogger(__name__)

DEFAULT_URL = "http://my2.sms-ka.net/api/httppost.php"


class SmsBackend(HttpBackend):
    """Send through SMS-ka. It takes the options of
    :class:`~django_smska.backends.over_http.HttpBackend`, too.

    :param api_key: the login; required
    :param api_password: the password; required
    :param url: the gateway's address; ask the provider for one with TLS
    """

    prefixes = ("+79",)
    balance_unit = CREDITS

    def __init__(
        self, *, api_key: str = "", api_password: str = "", url: str = DEFAULT_URL, **rest: Any
    ) -> None:
        login = {"api_key": api_key, "api_password": api_password}
        del api_key, api_password
        super().__init__(login=login, url=url, **rest)

    def send_message(self, message: Any) -> Receipt:
        """Send to ``79`` and nine digits; other numbers raise ``InvalidRecipient`` unsent."""
        if message.sender:
            _warn_of_sender(self.alias, message.sender)
        return super().send_message(message)

    def send_request(self, message: Any) -> Request:
        sender = message.sender or self.sender_id
        form = {"Message": message.body, "MSISDN": _msisdn(message), "SenderID": sender}
        return self._form("send", form, message)

    def read_send_answer(self, answer: Answer) -> Receipt | SmsError:
        return read_send_answer(answer)

    def get_status(self, message: Any) -> Report:
        if not message.gateway_id:
            text = gettext_noop("The gateway gave no ID to query by.")
            raise QueryFailed(text, alias=self.alias)
        form = {"Action": "query", "BatchId": message.gateway_id}
        return self.query(lambda: self._form("query", form, message), read_status_answer)

    def get_balance(self) -> Decimal:
        form = {"Action": "balance"}
        return self.query(lambda: self._form("balance", form), read_balance_answer)

    def _form(self, name: str, form: dict[str, str], message: Any = None) -> Request:
        login = {"APIKey": self.login.api_key, "APIPassword": self.login.api_password}
        return self.request(name, message, body={**login, **form})

    def _check_sender(self) -> list[CheckMessage]:
        if self.sender_id and not can_be_shown(self.sender_id):
            return [
                Warning(
                    f"SMS_PROVIDERS[{self.alias!r}] has the 'sender_id' {self.sender_id!r}, which "
                    "networks do not carry: the gateway will refuse it.",
                    hint=f"A sender has {RULE}. Register such a name with the provider.",
                    id="smska.W012",
                )
            ]
        if self.sender_id:
            return []
        return [
            Warning(
                f"SMS_PROVIDERS[{self.alias!r}] has no 'sender_id': the gateway refuses each "
                "message that names no sender of its own.",
                hint="Set 'sender_id' in OPTIONS to a name registered with the provider.",
                id="smska.W003",
            )
        ]


@lru_cache(maxsize=1000)  # once for each sender
def _warn_of_sender(alias: str | None, sender: str) -> None:
    """Warn only: the provider's document has no rule for senders, so the gateway decides."""
    if not can_be_shown(sender):
        words = "%s: the sender %r will be refused; a sender has %s"
        logger.warning(words, alias, sender, RULE, extra=log_fields.of_provider(alias))


def _msisdn(message: Any) -> str:
    """Return ``79XXXXXXXXX`` as the gateway wants it. Raises ``InvalidRecipient``."""
    try:
        number = normalize(message.to)
    except ValidationError:
        number = ""
    if is_russian_mobile(number):
        return number[1:]
    raise InvalidRecipient(
        gettext_noop(
            "SMS-ka sends to Russian mobile numbers only: +79 and nine digits. Correct the "
            "number or send it through another provider."
        ),
        code="number",
    )

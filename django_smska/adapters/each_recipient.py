"""Messages to several recipients, for apps that have such: one that fails stops no other."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.utils.functional import Promise

from .. import log_fields
from ..exceptions import SmsError, SmsNotSent, gettext_noop
from ..limits import Admission
from ..models import SmsMessage
from ..numbers import mask, normalize
from ..providers import DEFAULT_ALIAS, providers
from ..sms import send_at_once
from .refusals import cause

logger = logging.getLogger(__name__)

Refusal = SmsNotSent | ValidationError
MAX_NAMED = 10  # recipients in the text of one error


class NotAllSent(SmsError):
    """Some recipients did not get a message. All were tried.

    :ivar errors: why, by the recipient's place in the call, from 0. Send again only to these.
    :ivar accepted: how many messages were sent, or may have been sent
    """

    summary = gettext_noop("Some of the messages were not sent.")

    def __init__(
        self,
        message: str = "",
        *,
        errors: Mapping[int, Refusal] | None = None,
        accepted: int = 0,
        **rest: Any,
    ) -> None:
        super().__init__(message, **rest)
        self.errors, self.accepted = dict(errors or {}), accepted


def message_to(
    number: Any, body: Any, *, sender: Any = "", using: str = DEFAULT_ALIAS, code: str = ""
) -> SmsMessage:
    """Return a new message of another app; lazy texts are read in the language of the caller."""
    body, sender = (str(one) if isinstance(one, Promise) else one for one in (body, sender or ""))
    return SmsMessage(
        to=number, body=body, sender=sender, using=using, code=code, sensitive=bool(code)
    )


def send_each(messages: Sequence[SmsMessage], *, fail_silently: bool = False) -> int:
    """Send all before this returns, also inside a transaction; return how many were accepted.

    One that may have been sent counts as accepted.

    :param fail_silently: log what was not sent, and raise nothing
    :raises InvalidProvider: for an unknown alias; nothing is sent
    :raises SmsNotSent: where the only message was not sent
    :raises ValidationError: where the only message cannot be sent
    :raises NotAllSent: where some or all of several were not sent
    """
    for alias in {one.using for one in messages}:
        providers.require(alias)
    errors: dict[int, Refusal] = {}
    for place, message in enumerate(messages):
        try:
            send_at_once(message, Admission(repeat=bool(message.code)))
        except (SmsNotSent, ValidationError) as error:
            errors[place] = error
    if errors and not fail_silently:
        raise _error(messages, errors)
    for place, refusal in errors.items():
        extra = log_fields.of_message(messages[place], getattr(refusal, "code", ""))
        who, why = _masked(messages[place]), cause(refusal)
        logger.error("SMS to %s was not sent: %s", who, why, extra=extra)
    return len(messages) - len(errors)


def _error(messages: Sequence[SmsMessage], errors: dict[int, Refusal]) -> Refusal | NotAllSent:
    if len(messages) == 1:
        return errors[0]
    named = [
        f"Recipient {place} ({_masked(messages[place])}): {cause(error)}"
        for place, error in list(errors.items())[:MAX_NAMED]
    ]
    text = f"{len(errors)} of {len(messages)} messages were not sent. {' '.join(named)}"
    return NotAllSent(text, errors=errors, accepted=len(messages) - len(errors))


def _masked(message: SmsMessage) -> str:
    try:
        return mask(normalize(message.to))
    except ValidationError:
        return mask("")

"""What adapters catch where no code was sent, what the log says of it, and the text of a code."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy

from .. import log_fields
from ..exceptions import SmsError, SmsNotSent

logger = logging.getLogger(__name__)

#: What ``send_code`` raises where no code was sent, and the visitor can do something about it.
NOT_SENT = (SmsNotSent, ValidationError)
CODE_TEXT = gettext_lazy("Your code: %(code)s. Do not share it with anyone.")


def log_not_sent(error: Exception) -> None:
    """Log why a visitor gets no code: a rollback may undo all else that says so."""
    logger.warning("a code was not sent: %s", cause(error), extra=log_fields.of_error(error))


@contextmanager
def logs_not_sent() -> Generator[None]:
    """Log one of ``NOT_SENT``, and let it pass."""
    try:
        yield
    except NOT_SENT as error:
        log_not_sent(error)
        raise


def cause(error: Exception) -> str:
    """Return what the log says of an error: neither number nor text."""
    if isinstance(error, ValidationError):
        return " ".join(error.messages)
    return error.text if isinstance(error, SmsError) else type(error).__name__

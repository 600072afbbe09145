"""Send the codes of `django-phone-verify <https://pypi.org/project/django-phone-verify/>`_:
``PHONE_VERIFICATION["BACKEND"]``."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured

from ..providers import DEFAULT_ALIAS
from .each_recipient import message_to, send_each
from .refusals import NOT_SENT, log_not_sent
from .rest_framework import api_error

if TYPE_CHECKING:
    BaseBackend = Any
else:
    from phone_verify.backends.base import BaseBackend

#: The code that is about to be sent. A backend may be shared by threads.
_code: ContextVar[str] = ContextVar("django_smska_phone_verify_code", default="")


class Backend(BaseBackend):
    """Each code is sent before the package answers its visitor.

    :param using: an alias of ``SMS_PROVIDERS``
    :param sender: the sender ID; empty for the provider's
    :raises ImproperlyConfigured: for another of ``PHONE_VERIFICATION["OPTIONS"]``
    """

    def __init__(self, *, using: str = DEFAULT_ALIAS, sender: str = "", **unknown: Any) -> None:
        if unknown:
            raise ImproperlyConfigured(
                f'PHONE_VERIFICATION["OPTIONS"] has {", ".join(sorted(unknown))}. It may have '
                '"using" and "sender". The login stands in SMS_PROVIDERS.'
            )
        theirs: Any = super()
        theirs.__init__()
        self.using, self.sender = using, sender
        # The package logs such errors with the whole number, and answers as if it had sent.
        self.exception_class = ()

    def generate_message(self, security_code: str, context: Any = None) -> str | None:
        """Note the code for :meth:`send_sms`. A subclass with a text of its own calls this, too."""
        _code.set(security_code)
        return None

    def send_sms(self, number: Any, message: str) -> None:
        """Send a code before this returns. Another text is sent as one that is sensitive.

        :raises APIException: where it was definitely not sent; its ``__cause__`` says why
        """
        code = _code.get() if _code.get() in message else ""
        _code.set("")
        sms = message_to(number, message, sender=self.sender, using=self.using, code=code)
        sms.sensitive = True
        try:
            send_each([sms])
        except NOT_SENT as error:
            log_not_sent(error)
            raise api_error(error) from error

    def send_bulk_sms(self, numbers: Iterable[Any], message: str) -> None:
        """Send a text that is no code to each number; raise what ``send_each`` raises."""
        send_each(
            [message_to(one, message, sender=self.sender, using=self.using) for one in numbers]
        )

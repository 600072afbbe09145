"""Send what `django-sendsms <https://pypi.org/project/django-sendsms/>`_ sends:
``SENDSMS_BACKEND``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..providers import DEFAULT_ALIAS
from .each_recipient import message_to, send_each

if TYPE_CHECKING:
    BaseSmsBackend = Any
else:
    from sendsms.backends.base import BaseSmsBackend


class SmsBackend(BaseSmsBackend):
    """Each recipient's message is stored, and sent before ``send()`` returns.

    :param fail_silently: log what was not sent, and raise nothing
    :param using: an alias of ``SMS_PROVIDERS``
    :param username: must be ``None``, which the package always passes; so must ``password``
    :raises TypeError: for a login, or another keyword argument
    """

    def __init__(
        self,
        fail_silently: bool = False,
        *,
        using: str = DEFAULT_ALIAS,
        username: None = None,
        password: None = None,
    ) -> None:
        if username is not None or password is not None:
            raise TypeError("The login stands in SMS_PROVIDERS: leave auth_user and auth_password.")
        theirs: Any = super()
        theirs.__init__(fail_silently=fail_silently)
        self.using = using

    def send_messages(self, messages: Iterable[Any]) -> int:
        """Return how many recipients' messages were accepted.

        A message with an attribute ``code``, the one-time code in its text, is sent as by
        ``send_code``. ``flash`` is ignored. Raises what
        :func:`~django_smska.adapters.each_recipient.send_each` raises.
        """
        ours = [
            message_to(
                number, one.body, sender=one.from_phone, using=self.using,
                code=getattr(one, "code", ""),
            )
            for one in messages
            for number in one.to
        ]  # fmt: skip
        return send_each(ours, fail_silently=self.fail_silently)

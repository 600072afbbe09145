"""Send the codes of `drfpasswordless <https://pypi.org/project/drfpasswordless/>`_:
``PASSWORDLESS_SMS_CALLBACK``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import sms
from .refusals import NOT_SENT, log_not_sent

if TYPE_CHECKING:
    api_settings: Any
else:
    from drfpasswordless.settings import api_settings


def send_code(user: Any, mobile_token: Any, **kwargs: Any) -> bool:
    """Send a user's code before this returns; return False where it was definitely not sent.

    :param user: its number is in the field ``PASSWORDLESS_USER_MOBILE_FIELD_NAME``
    :param mobile_token: its ``key`` is the code
    :param kwargs: ``mobile_message``, the text with ``%s`` for the code, by default
        ``PASSWORDLESS_MOBILE_MESSAGE``
    """
    if api_settings.PASSWORDLESS_TEST_SUPPRESSION is True:
        return True
    text = kwargs.get("mobile_message") or api_settings.PASSWORDLESS_MOBILE_MESSAGE
    try:
        sms.send_code(
            getattr(user, api_settings.PASSWORDLESS_USER_MOBILE_FIELD_NAME),
            text % mobile_token.key,
            code=mobile_token.key,
            sender=api_settings.PASSWORDLESS_MOBILE_NOREPLY_NUMBER or "",
        )
    except NOT_SENT as error:
        log_not_sent(error)
        return False
    return True

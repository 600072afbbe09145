"""Numbers and failed messages in the words of
`Django REST framework <https://www.django-rest-framework.org>`_."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy

from ..decorators import seconds_to_wait, why
from ..exceptions import InvalidRecipient, LimitExceeded, SmsNotSent
from ..numbers import normalize

if TYPE_CHECKING:
    serializers: Any
    APIException = Any
    Throttled: Any
    CharField = Any
    get_error_detail: Any
    api_settings: Any
else:
    from rest_framework import serializers
    from rest_framework.exceptions import APIException, Throttled
    from rest_framework.fields import CharField, get_error_detail
    from rest_framework.settings import api_settings


class PhoneField(CharField):
    """A number in any spelling of :func:`django_smska.numbers.normalize`; its value is E.164."""

    def to_internal_value(self, data: Any) -> str:
        theirs: Any = super()
        try:
            return normalize(theirs.to_internal_value(data))
        except ValidationError as error:
            raise serializers.ValidationError(get_error_detail(error)) from None


class NotSent(APIException):
    """The answer with the status 503: the visitor may try again later."""

    status_code = 503
    default_detail = gettext_lazy("The SMS was not sent. Try again in a few minutes.")
    default_code = "sms_not_sent"


def api_error(error: SmsNotSent | ValidationError) -> APIException:
    """Return what a view raises for it: the status 400, 429 with ``Retry-After``, or 503.

    Its text is for the visitor: no word of the gateway's, of the account or of the size of a limit.
    """
    if isinstance(error, ValidationError):
        return serializers.ValidationError(serializers.as_serializer_error(error))
    if isinstance(error, InvalidRecipient):
        return serializers.ValidationError({api_settings.NON_FIELD_ERRORS_KEY: [why(error)]})
    if not isinstance(error, LimitExceeded):
        return NotSent()
    throttled = Throttled(detail=why(error))
    throttled.wait = seconds_to_wait(error)
    return throttled

"""What django-allauth's API, an app of its own, answers where no code was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..decorators import seconds_to_wait
from ..exceptions import LimitExceeded

if TYPE_CHECKING:
    RateLimited: Any
    AuthenticationResponse = Any
    APIResponse: Any
else:
    from allauth.core.exceptions import RateLimited
    from allauth.headless.base.response import AuthenticationResponse
    from allauth.headless.internal.restkit.response import APIResponse


class Refusal(AuthenticationResponse):
    """An error as allauth writes its own, with the status 429 for a limit and 400 for the rest.

    After a sign-up allauth passes on an ``AuthenticationResponse`` alone.
    """

    def __init__(self, request: Any, error: Exception, words: str) -> None:
        APIResponse.__init__(
            self, request,
            errors=[{"message": words, "code": "sms_not_sent"}],
            status=429 if isinstance(error, (LimitExceeded, RateLimited)) else 400,
        )  # fmt: skip
        seconds = seconds_to_wait(error)
        if seconds is not None:
            self["Retry-After"] = str(seconds)

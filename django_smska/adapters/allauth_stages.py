"""The step of a login of django-allauth at which a number is verified.

allauth's own module of such steps cannot be imported while it makes its adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    get_adapter: Any
    PhoneVerificationStage = Any

    class ImmediateHttpResponse(Exception):
        response: Any

    class RateLimited(Exception): ...

else:
    from allauth.account.adapter import get_adapter
    from allauth.account.stages import PhoneVerificationStage
    from allauth.core.exceptions import ImmediateHttpResponse, RateLimited


class SmsVerificationStage(PhoneVerificationStage):
    """Their step at which a number is verified.

    Who signs up again after a code that never came gets one, as with a new number. Any code that
    was not sent ends the sign-up or login with an answer that says so.
    """

    request: Any
    login: Any

    def handle(self) -> Any:
        theirs: Any = super()
        adapter = get_adapter(self.request)
        if self.login.signup and self.login.user is None and self.login.phone:
            self.login.user = adapter.get_unfinished_user(self.login.phone)
        try:
            return theirs.handle()
        except RateLimited as error:  # their views catch it only where a code is sent again
            return adapter.refusal(error), False
        except ImmediateHttpResponse as error:  # which their API drops after a sign-up
            return error.response, False

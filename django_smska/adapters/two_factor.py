"""django-two-factor-auth: the tokens of its phone devices as SMS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import Promise

from ..decorators import visitor, why
from ..providers import DEFAULT_ALIAS
from ..query_errors import hides_frames
from ..sms import send_code
from .refusals import CODE_TEXT, NOT_SENT, logs_not_sent

if TYPE_CHECKING:
    get_current_request: Any
    SMSMethod = Any
    TheirPhoneSetupView = Any
    registry: Any

    class Wizard:
        steps: Any

        def render(self, form: Any, **kwargs: Any) -> Any: ...
        def render_next_step(self, form: Any, **kwargs: Any) -> Any: ...

    class TheirLoginView(Wizard):
        get_device: Any
        get_form: Any

    class TheirSetupView(Wizard):
        get_device: Any
        get_method: Any

else:
    from two_factor.middleware.threadlocals import get_current_request
    from two_factor.plugins.phonenumber.method import SMSMethod
    from two_factor.plugins.phonenumber.views import PhoneSetupView as TheirPhoneSetupView
    from two_factor.plugins.registry import registry
    from two_factor.views import LoginView as TheirLoginView
    from two_factor.views import SetupView as TheirSetupView

TOKEN_SECONDS = 150  # a PhoneDevice accepts a token for five to six steps of 30 seconds


class Gateway:
    """For ``TWO_FACTOR_SMS_GATEWAY``.

    :cvar using: an alias of ``SMS_PROVIDERS``
    :cvar text: with ``%(code)s`` in it
    """

    using = DEFAULT_ALIAS
    text: str | Promise = CODE_TEXT

    @hides_frames
    def send_sms(self, device: Any, token: str) -> None:
        """Send a token. Raises all that ``send_code`` raises."""
        request = get_current_request()
        caller = visitor(request) if request is not None else ""
        text = str(self.text) % {"code": token}
        # Its owner has just given the password, and cannot log in without it.
        with logs_not_sent():
            send_code(
                device.number, text, code=token, valid_for=TOKEN_SECONDS, using=self.using,
                caller=caller, despite_opt_out=True,
            )  # fmt: skip

    def make_call(self, device: Any, token: str) -> None:
        """Refuse: this package makes no calls, and the setting that asks for one is wrong."""
        raise ImproperlyConfigured("django-smska makes no calls. Remove TWO_FACTOR_CALL_GATEWAY.")


class LoginView(TheirLoginView):
    """Their view; it shows why no SMS was sent, and other devices stay within reach."""

    def render(self, form: Any = None, **kwargs: Any) -> Any:
        try:
            return super().render(form, **kwargs)
        except NOT_SENT as error:
            self.get_device().sms_not_sent = True
            form = form or self.get_form()
            form.cleaned_data = getattr(form, "cleaned_data", {})  # an unbound form has none
            form.add_error(None, why(error))
            return super(TheirLoginView, self).render(form, **kwargs)  # without sending


class PhoneSetupView(TheirPhoneSetupView):
    """Their view of a backup phone; it shows why no SMS was sent."""

    def render_next_step(self, form: Any, **kwargs: Any) -> Any:
        theirs: Any = super()
        try:
            return theirs.render_next_step(form, **kwargs)
        except NOT_SENT as error:
            form.add_error("number", why(error))
            return self.render(form)


class SetupView(TheirSetupView):
    """Their view of a first device; it shows why no SMS was sent."""

    def render_next_step(self, form: Any, **kwargs: Any) -> Any:
        if self.steps.next != "validation" or self.get_method().code != SmsMethod.code:
            return super().render_next_step(form, **kwargs)
        try:
            self.get_device().generate_challenge()
        except NOT_SENT as error:
            form.add_error("number", why(error))
            return self.render(form)
        # Theirs would send once more.
        return super(TheirSetupView, self).render_next_step(
            form, challenge_succeeded=True, **kwargs
        )


class SmsMethod(SMSMethod):
    """Their method; it does not say "We sent you a text message" where none was sent."""

    def get_verbose_action(self, device: Any) -> Any:
        theirs: Any = super()
        return "" if hasattr(device, "sms_not_sent") else theirs.get_verbose_action(device)


def _replace_their_method() -> None:
    registry.unregister(SmsMethod.code)
    registry.register(SmsMethod())


_replace_their_method()

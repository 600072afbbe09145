"""django-allauth: login and verification codes as SMS, and its phone field for Russian numbers."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from .. import conf, opt_out
from ..decorators import visitor, why
from ..exceptions import NumberNotAllowed, RecipientOptedOut, SmsOutcomeUnknown
from ..limits import Admission, prefixes
from ..models import SmsMessage, write_db
from ..numbers import normalize
from ..providers import DEFAULT_ALIAS
from ..query_errors import hides_frames
from ..sms import send_code, send_sms
from .refusals import CODE_TEXT, NOT_SENT, log_not_sent

if TYPE_CHECKING:
    app_settings: Any
    PhoneField = Any
    EmailAddress: Any
    ImmediateHttpResponse: Any
else:
    from allauth.account import app_settings
    from allauth.account.fields import PhoneField
    from allauth.account.models import EmailAddress
    from allauth.core.exceptions import ImmediateHttpResponse


class SmsPhoneField(PhoneField):
    """A number in any spelling of :func:`django_smska.numbers.normalize`.

    :param prefixes: how it begins; none means that it may be any
    """

    def __init__(self, *args: Any, prefixes: tuple[str, ...] = (), **kwargs: Any) -> None:
        theirs: Any = super()
        theirs.__init__(*args, **kwargs)
        self.prefixes = prefixes

    def to_python(self, value: Any) -> Any:
        theirs: Any = super()
        text = theirs.to_python(value)
        if not text:
            return text
        number = normalize(text)
        if self.prefixes and not number.startswith(self.prefixes):
            raise ValidationError(why(NumberNotAllowed()))
        return number


class SmsAdapterMixin:
    """To stand before ``DefaultAccountAdapter`` among the bases of an adapter.

    :cvar using: an alias of ``SMS_PROVIDERS``
    :cvar code_text: with ``%(code)s`` in it
    :cvar despite_opt_out: send codes also to numbers on the do-not-send list
    :cvar texts_without_code: send the next two texts. They are off because any visitor can write
        any number: they cost money, wake people who never gave you their number, and say to all
        who see a phone whether its owner has an account
    :cvar unknown_account_text: for a number that has no account, at a login
    :cvar account_exists_text: for a number that has one already, at a sign-up
    """

    using = DEFAULT_ALIAS
    code_text: str | Promise = CODE_TEXT
    despite_opt_out = False
    texts_without_code = False
    unknown_account_text: str | Promise = _(
        "A login with this number was tried, but no account has it. Sign up first."
    )
    account_exists_text: str | Promise = _(
        "A sign-up with this number was tried, but an account has it already. Log in instead."
    )
    request: Any

    def phone_form_field(self, **kwargs: Any) -> SmsPhoneField:
        # Others may have a number from elsewhere, and log in without a code.
        allowed = prefixes(self.using, conf.limits()) if self._signs_up() else ()
        return SmsPhoneField(prefixes=allowed, **kwargs)

    def get_login_stages(self) -> list[str]:
        theirs: Any = super()
        ours = "django_smska.adapters.allauth_stages.SmsVerificationStage"
        return [
            ours if path == "allauth.account.stages.PhoneVerificationStage" else path
            for path in theirs.get_login_stages()
        ]

    def get_unfinished_user(self, phone: str) -> Any:
        """Return the user that a sign-up with this number left unverified, or ``None``.

        One who has another way in than a code to this number is none: a stranger may have made the
        account, to share it with the owner of the number. Without verification there are none,
        because they would be logged in without a code; nor where a step of the sign-up may change
        the number, because the account would follow it.
        """
        theirs: Any = self
        if (
            not app_settings.PHONE_VERIFICATION_ENABLED
            or app_settings.PHONE_VERIFICATION_MAX_CHANGE_COUNT
        ):
            return None
        user = theirs.get_user_by_phone(phone)
        if user is None or _has_another_way_in(user):
            return None
        known = theirs.get_phone(user)
        return user if known is not None and tuple(known) == (phone, False) else None

    @hides_frames
    def send_verification_code_sms(self, user: Any, phone: str, code: str, **kwargs: Any) -> None:
        try:
            send_code(
                phone, str(self.code_text) % {"code": code}, code=code,
                valid_for=app_settings.LOGIN_BY_CODE_TIMEOUT, using=self.using,
                caller=visitor(self.request), despite_opt_out=self.despite_opt_out,
            )  # fmt: skip
        except NOT_SENT as error:
            raise ImmediateHttpResponse(self.refusal(error)) from error

    def send_unknown_account_sms(self, phone: str, **kwargs: Any) -> None:
        self._send_instead_of_code(phone, self.unknown_account_text)

    def send_account_already_exists_sms(self, phone: str) -> None:
        self._send_instead_of_code(phone, self.account_exists_text)

    @hides_frames
    def _send_instead_of_code(self, phone: str, text: str | Promise) -> None:
        """Send this text, or nothing, by the limits of a code: the wait for the next one would show
        who has an account."""
        code = SmsMessage(
            to=phone, body="0", code="0", using=self.using, despite_opt_out=self.despite_opt_out
        )
        try:
            code.prepare()
            opt_out.require(code)
            with transaction.atomic(using=write_db()):
                Admission(caller=visitor(self.request), repeat=True).require(code)
            if self.texts_without_code:
                with suppress(RecipientOptedOut):  # which would show that there is no account
                    send_sms(phone, text, using=self.using, exempt=True)
        except SmsOutcomeUnknown:
            pass
        except NOT_SENT as error:
            raise ImmediateHttpResponse(self.refusal(error)) from error

    def refusal(self, error: Exception) -> HttpResponse:
        """Return an answer that says why no code was sent, and log it.

        On a site it leads to the page that the visitor comes from, with a message. After a sign-up
        that is the login page, because the account is there, and a login sends the next code.

        :param error: one of ``NOT_SENT``, or allauth's ``RateLimited``
        """
        log_not_sent(error)
        request, words = self.request, why(error)
        if hasattr(getattr(request, "allauth", None), "headless"):
            from .allauth_api import Refusal  # it is an app of its own

            return Refusal(request, error, words)
        messages.error(request, words)
        stays = request.method == "POST" and not self._signs_up()
        page = request.get_full_path() if stays else reverse("account_login")
        return HttpResponseRedirect(page)

    def _signs_up(self) -> bool:
        match = getattr(self.request, "resolver_match", None)
        return "signup" in (getattr(match, "url_name", None) or "")


def _has_another_way_in(user: Any) -> bool:
    social = getattr(user, "socialaccount_set", None)  # of an app that may not be there
    return (
        not user.is_active
        or user.last_login is not None
        or user.has_usable_password()
        or EmailAddress.objects.filter(user=user).exists()
        or (social is not None and social.exists())
    )

"""The device, with its settings ``OTP_SMS_…``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ...decorators import why
from ...exceptions import LimitExceeded, SmsNotSent
from ...fields import CharField
from ...numbers import normalize
from ...providers import DEFAULT_ALIAS
from ...query_errors import hides_frames
from ...sms import send_code
from ..refusals import CODE_TEXT, NOT_SENT, log_not_sent

if TYPE_CHECKING:
    CooldownMixin = Any
    SideChannelDevice = Any
    ThrottlingMixin = Any
    TimestampMixin = Any
else:
    from django_otp.models import (
        CooldownMixin,
        SideChannelDevice,
        ThrottlingMixin,
        TimestampMixin,
    )


class ChallengeNotSent(SmsNotSent):
    """No token was sent; its text is for the visitor, because django-otp's forms show it."""


class SmsDevice(TimestampMixin, CooldownMixin, ThrottlingMixin, SideChannelDevice):
    """A phone that gets tokens by SMS. A token is stored only where it was sent, or perhaps was."""

    token: Any
    valid_until: Any
    text: str | Promise = CODE_TEXT
    number: Any = CharField(_("number"), max_length=32)

    class Meta:
        verbose_name = _("SMS device")
        verbose_name_plural = _("SMS devices")

    def clean(self) -> None:
        theirs: Any = super()
        theirs.clean()
        try:
            self.number = normalize(self.number)
        except ValidationError as error:
            raise ValidationError({"number": error}) from error

    @hides_frames
    def generate_challenge(self) -> str:
        """Send a new token, then store it and the cooldown. The token before stays valid till then.

        :returns: a sentence for the visitor, as django-otp's other devices do
        :raises ChallengeNotSent: where no token was sent
        """
        allowed, why_not = self.generate_is_allowed()
        if not allowed:
            too_soon = LimitExceeded(retry_at=why_not["next_generation_at"])
            log_not_sent(too_soon)
            raise ChallengeNotSent(why(too_soon)) from too_soon
        before = self.token, self.valid_until
        seconds = self._setting("TOKEN_VALIDITY", 300)
        self.generate_token(valid_secs=seconds, commit=False)
        try:
            self._send(seconds)
        except BaseException as error:
            self.token, self.valid_until = before
            if isinstance(error, NOT_SENT):
                log_not_sent(error)
                raise ChallengeNotSent(why(error)) from error
            raise
        self.cooldown_set(commit=False)
        self.save()
        return gettext("sent by SMS")

    def _send(self, seconds: float) -> None:
        # Its owner has just given the password, and cannot log in without it.
        send_code(
            self.number, str(self.text) % {"code": self.token}, code=self.token,
            valid_for=seconds, using=self._setting("USING", DEFAULT_ALIAS), despite_opt_out=True,
        )  # fmt: skip

    def verify_token(self, token: str) -> bool:
        """Return whether it is the token, which is void then; wait longer after each wrong one."""
        allowed, _why_not = self.verify_is_allowed()
        if not allowed:
            return False
        theirs: Any = super()
        verified = bool(theirs.verify_token(token))
        if verified:
            self.throttle_reset(commit=False)
            self.set_last_used_timestamp(commit=False)
            self.save()
        else:
            self.throttle_increment()
        return verified

    def get_cooldown_duration(self) -> Any:
        return self._setting("COOLDOWN_DURATION", 60)

    def get_throttle_factor(self) -> Any:
        return self._setting("THROTTLE_FACTOR", 1)

    @staticmethod
    def _setting(name: str, default: Any) -> Any:
        return getattr(settings, f"OTP_SMS_{name}", default)

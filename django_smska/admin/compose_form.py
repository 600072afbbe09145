"""The form of the page for writing: one text, its recipients, and when it is sent."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

from django import forms
from django.contrib.admin.widgets import AdminSplitDateTime
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .. import clock, conf, limits, opt_out, times
from ..models import SmsMailing, SmsMessage
from . import compose_times, recipients
from .compose_times import HOUR, NOW, OTHER, Plan, SendAtField, WhenField, time_words
from .forms import SmsMessageForm
from .number_forms import NumbersForm

ANY_NUMBER = "+79000000000"


def new_nonce() -> str:
    return secrets.token_hex(16)


class ComposeForm(SmsMessageForm, NumbersForm):
    """One text and its recipients.

    Once it is valid, it has ``instance``, too, which has the text's size.

    :ivar opted_out: numbers that get nothing, because they are on the do-not-send list
    :ivar given: all numbers, these too, in their order
    """

    to = None  # type: ignore[assignment]
    when = WhenField(label=_("When to send"))
    send_at = SendAtField(label=_("Send at"), required=False, widget=AdminSplitDateTime)
    spread = forms.TypedChoiceField(
        label=_("Spread"),
        choices=compose_times.spreads,
        coerce=int,
        required=False,
        help_text=_("Evenly over so many hours, so that not all call or come at once."),
    )
    name = forms.CharField(
        label=_("Name of the mailing"),
        max_length=200,
        required=False,
        help_text=_("For the list of mailings. Empty: its date and time."),
    )
    # A form that is submitted twice must not send twice: its messages' keys depend on this nonce.
    nonce = forms.CharField(max_length=64, widget=forms.HiddenInput, initial=new_nonce)

    class Meta(SmsMessageForm.Meta):
        fields: Any = ("body", "sender", "using")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.opted_out: list[recipients.LeftOut] = []
        self.given: list[str] = []
        words = gettext("For “at another time”. It is %s by the clock of this site.")
        self.fields["send_at"].help_text = words % time_words(timezone.now())
        when: Any = self.fields["when"]
        when.offer(self.data.get("when"))
        self.fields["numbers"].widget.attrs["autofocus"] = True

    def clean_when(self) -> Any:
        """Fix the time of "in an hour": the next page carries it."""
        when = compose_times.fixed(self.cleaned_data["when"])
        if when != self.cleaned_data["when"]:
            self._redisplay(when=when)
        if compose_times.is_moment(when):
            self._require_ahead(compose_times.moment_of(when))
        return when

    def clean_send_at(self) -> Any:
        at, when = self.cleaned_data["send_at"], self.cleaned_data.get("when", "")
        if at is not None and when not in ("", OTHER):
            raise ValidationError(
                _("Choose “at another time” for this date and time, or leave them empty.")
            )
        if at is None and when == OTHER:
            raise ValidationError(_("Enter the date and the time."))
        if at is None:
            return None if when in ("", NOW) else compose_times.moment_of(when)
        self._require_ahead(at)
        return at

    def _require_ahead(self, at: Any) -> None:
        if at <= timezone.now():
            raise ValidationError(_("This time has passed. Leave it empty to send now."))
        if problem := times.problem(at):
            raise ValidationError(problem)

    def clean(self) -> Any:
        cleaned = super().clean()
        self.read_numbers()
        # The model looks at the text only beside a number.
        self.instance.to = next(iter(self.recipients.lines), ANY_NUMBER)
        if "using" in self.cleaned_data:
            self._leave_out_unreachable()
        if not self.errors:
            self._leave_out_opted_out()
            self._require_last_in_time()
        return cleaned

    def _require_last_in_time(self) -> None:
        last = max(self.plan.leaves.values(), default=None)
        if last is not None and (problem := times.problem(last)):
            self.add_error("spread" if self.cleaned_data["spread"] else "when", problem)

    def _leave_out_unreachable(self) -> None:
        allowed = limits.prefixes(self.cleaned_data["using"], conf.limits())
        if not allowed:
            return
        why = gettext("This provider sends only to numbers that start with %s.")
        shown = ", ".join(allowed[: recipients.MAX_NAMED])
        for number in self.recipients.numbers:
            if not number.startswith(allowed):
                line = self.recipients.lines.pop(number)
                self.unreachable.append(recipients.LeftOut(line, number, why % shown))

    def _leave_out_opted_out(self) -> None:
        self.given = numbers = self.recipients.numbers
        about = {name: self.cleaned_data[name] for name in ("sender", "using")}
        listed = opt_out.barred(numbers, **about)
        why = gettext("It is on the do-not-send list.")
        for number in numbers:
            if number in listed:
                line = self.recipients.lines.pop(number)
                self.opted_out.append(recipients.LeftOut(line, number, why))

    @property
    def send_at_once(self) -> bool:
        """Return whether all is sent before the page is answered."""
        few = len(self.recipients.numbers) <= conf.send_at_once()
        later = self.cleaned_data["send_at"] is not None or bool(self.plan)
        return few and not later and not self.cleaned_data["name"]

    @property
    def at_any_hour(self) -> bool:
        """Return whether a person has said that messages may leave in quiet hours."""
        return "_send_at_night" in self.data

    @cached_property
    def plan(self) -> Plan:
        """Return when the messages leave."""
        return self.plan_of(self.recipients.numbers)

    def plan_of(self, numbers: list[str]) -> Plan:
        """Return when messages to these of its numbers would leave. One alone does not wait for the
        end of quiet hours."""
        return compose_times.plan(
            numbers,
            self.cleaned_data["send_at"],
            self.cleaned_data["spread"] or 0,
            waits=len(self.given) > 1,
            at_any_hour=self.at_any_hour,
        )

    def mailing(self, user: Any) -> SmsMailing | None:
        """Return a new mailing for the messages; None for a single one."""
        if len(self.recipients.numbers) < 2:
            return None
        given = {name: self.cleaned_data[name] for name in ("body", "sender", "using")}
        name = self.cleaned_data["name"] or gettext("Mailing of %s") % time_words(timezone.now())
        return SmsMailing(
            name=name,
            **given,
            send_after=self._first_time(),
            at_any_hour=self.at_any_hour,
            created_by=user,
        )

    def _first_time(self) -> Any:
        """Return when the first message leaves; None for now."""
        at, leaves = self.cleaned_data["send_at"], self.plan.leaves
        every_one_waits = leaves and len(leaves) == len(self.recipients.numbers)
        return min(leaves.values()) if every_one_waits else at

    def messages(self, user: Any) -> list[SmsMessage]:
        """Return a new message for each number; the same form and content give the same keys."""
        # No generator: error reports would show the variables of its frame.
        content = {name: self.cleaned_data[name] for name in ("body", "sender", "using")}
        at = self.cleaned_data["send_at"]
        return [
            SmsMessage(
                to=number,
                **content,
                send_after=self.plan.leaves.get(number) or at or clock.now(),
                idempotency_key=self._key(number),
                created_by=user,
            )
            for number in self.recipients.numbers
        ]

    def keys(self, numbers: list[str]) -> list[str]:
        """Return the idempotency keys of the messages to these numbers."""
        return [self._key(number) for number in numbers]

    def _key(self, number: str) -> str:
        names = ("nonce", "body", "sender", "using")
        # "In an hour" of the same form is the same, also where it was checked a second time.
        at = HOUR if self.cleaned_data["when"].startswith(HOUR) else self.cleaned_data["send_at"]
        parts = [number, *(str(self.cleaned_data[name]) for name in names), str(at)]
        return f"compose-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()}"

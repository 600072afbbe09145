"""The admin's form for a message that is a draft."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.admin.helpers import ActionForm
from django.contrib.admin.widgets import AdminTextareaWidget, AdminTextInputWidget
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.forms.utils import ErrorList
from django.utils.text import format_lazy
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .. import allowed_senders
from ..forms import PhoneField
from ..models import SmsMessage
from ..placeholders import Text, shown
from ..providers import DEFAULT_ALIAS, providers
from . import text_words

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[SmsMessage]
else:
    ModelForm = forms.ModelForm


def aliases() -> list[tuple[str, str]]:
    """Return the configured providers, as choices."""
    return [(alias, alias) for alias in providers]


class CountedTextarea(AdminTextareaWidget):
    """Shows the length and the segments under the text, and a phone, where scripts run."""

    WORDS = {
        "data-size": _("Characters: {characters}. Room left in this segment: {left}."),
        "data-empty": _("The text is empty."),
        "data-segments": _("Segments: {segments}."),
        "data-odd": text_words.ODD,
        "data-without": text_words.WITHOUT_ODD,
        "data-fewer": text_words.FEWER,
        "data-named": text_words.NAMED,
        "data-phone": text_words.PHONE,
        "data-sender": text_words.SENDER,
        "data-mark": text_words.MARK,
        "data-joined": text_words.JOINED,
    }

    class Media:
        css = {"all": ("django_smska/compose.css",)}
        js = ("django_smska/counter.js",)

    def __init__(self, attrs: Any = None) -> None:
        super().__init__({**self.WORDS, **(attrs or {})})


class UnloggedErrors(ErrorList):
    """Errors may quote what was typed; logs and reports that show them do not."""

    def __repr__(self) -> str:
        return f"<{len(self)} errors>"


class SmsMessageForm(ModelForm):
    """Takes a number in any spelling, and a provider of ``SMS_PROVIDERS``."""

    to = PhoneField(
        label=_("Number"),
        widget=AdminTextInputWidget(attrs={"inputmode": "tel"}),
        help_text=_("8 904 176-49-95 or +7 904 176-49-95; other countries with + and their code."),
    )
    using = forms.ChoiceField(label=_("Provider"), choices=aliases, initial=DEFAULT_ALIAS)

    class Meta:
        model = SmsMessage
        fields = ("to", "body", "sender", "using", "priority", "send_after", "expires_at")
        widgets = {"body": CountedTextarea}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"error_class": UnloggedErrors, **kwargs})
        for field in self.fields.values():
            if isinstance(field, forms.SplitDateTimeField):
                _label_both(field)
        if "using" in self.fields and len(aliases()) == 1:
            alias = self.initial["using"] = aliases()[0][0]
            self.fields["using"].widget = forms.HiddenInput()
            if "body" in self.fields:
                self.fields["body"].widget.attrs["data-sender"] = text_words.own_sender(alias)
        if "sender" in self.fields:
            self._offer_senders()

    def _offer_senders(self) -> None:
        """Let the sender be chosen where providers list theirs, and keep one that is none of
        these: it is refused in words, and not changed without a word."""
        listed = [one for alias in providers for one in allowed_senders.of(alias) or ()]
        if not listed and all(allowed_senders.of(alias) is None for alias in providers):
            return
        present = [self.data.get(self.add_prefix("sender")), self.initial.get("sender")]
        every = dict.fromkeys([*listed, *filter(None, present)])
        field = self.fields["sender"]
        field.help_text = ""
        field.widget = forms.Select(choices=[("", _own_sender()), *((one, one) for one in every)])

    def clean(self) -> Any:
        cleaned = super().clean()
        sender, using = (self.cleaned_data.get(name) for name in ("sender", "using"))
        if sender and using:
            try:
                allowed_senders.require(sender, using)
            except ValidationError as error:
                self.add_error(None, error)
        return cleaned

    def add_error(self, field: str | None, error: Any) -> None:
        """Put the model's errors at their fields, unless they have one already.

        Errors of fields that the form does not have are shown above it.
        """
        if not hasattr(error, "error_dict"):
            return super().add_error(field, error)
        for name, errors in error.error_dict.items():
            if name not in self.fields:
                super().add_error(None, ValidationError(errors))
            elif name not in self.errors or name == NON_FIELD_ERRORS:
                super().add_error(name, ValidationError(errors))


class DraftForm(SmsMessageForm):
    """One message. Nothing takes the place of placeholders, so that its text has none."""

    def clean_body(self) -> str:
        require_no_braces(body := self.cleaned_data["body"])
        return str(body)


def require_no_braces(text: str) -> None:
    """Raise ``ValidationError`` for a text with braces, which would be sent as they are. It names
    them, as the page for writing does."""
    if names := Text(text).names:
        words = gettext(
            "The text has %(names)s in it, which would be sent as it is written. Write what is "
            "meant in its place."
        )
        raise ValidationError(words % {"names": shown(names.values())})


def focus_on_error(form: forms.BaseForm, shown: Iterable[str]) -> None:
    """Put the keyboard focus on the first field with an error. What is no field's stands above the
    form, and gets the focus by its template.

    :param shown: the names of the visible fields, in the order of the page
    """
    wrong = [name for name in shown if name in form.errors]
    if not (wrong or form.non_field_errors()):
        return
    for field in form.fields.values():
        field.widget.attrs.pop("autofocus", None)
    if not form.non_field_errors():
        widget: Any = form.fields[wrong[0]].widget
        first = getattr(widget, "widgets", [widget])[0]  # of a date and a time
        first.attrs["autofocus"] = True


def _own_sender() -> Any:
    """Return what the choice says that leaves the sender to the provider."""
    if len(aliases()) > 1:
        return text_words.SENDER
    own = text_words.own_sender(aliases()[0][0])
    return own if own is text_words.SENDER else f"{text_words.SENDER}: {own}"


def _label_both(field: Any) -> None:
    """Name the two parts of a time for screen readers; Django does so from 6.0 on."""
    for part, words in zip(field.widget.widgets, (_("date"), _("time")), strict=True):
        part.attrs["aria-label"] = format_lazy("{}: {}", field.label, words)


class SmsActionForm(ActionForm):
    """The list's actions; under unfold their button shows only where the choice is bound so."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["action"].widget.attrs["x-model"] = "action"

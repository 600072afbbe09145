from typing import Any

from django import forms

from django_smska.numbers import normalize


class PhoneField(forms.CharField):
    """A number in any usual spelling; cleaned, it is E.164. Refuses what cannot be a number."""

    widget = forms.TextInput(
        attrs={"type": "tel", "autocomplete": "tel", "placeholder": "8 904 176-49-95"}
    )

    def clean(self, value: Any) -> str:
        return normalize(super().clean(value))


class OrderReadyForm(forms.Form):
    order = forms.IntegerField(label="Order number", min_value=1, max_value=999_999)
    phone = PhoneField(label="Customer's phone")


class PhoneForm(forms.Form):
    phone = PhoneField(label="Your phone")


class CodeForm(forms.Form):
    code = forms.RegexField(
        r"^\s*[0-9]{6}\s*$",
        label="Code from the SMS",
        error_messages={"invalid": "The code has six digits."},
        widget=forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "one-time-code"}),
    )

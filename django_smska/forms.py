"""A field for a number in the forms of a project."""

from __future__ import annotations

from typing import Any

from django import forms

from .numbers import normalize


class PhoneField(forms.CharField):
    """A number in any spelling of :func:`django_smska.numbers.normalize`; its value is E.164."""

    widget = forms.TextInput(attrs={"type": "tel", "autocomplete": "tel"})

    def to_python(self, value: Any) -> Any:
        text = super().to_python(value)
        return text if text in self.empty_values else normalize(text)

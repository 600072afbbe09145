from django import forms

from django_smska.forms import PhoneField

SPELLINGS = "8 904 176-49-95 or +7 904 176-49-95"


class OrderReadyForm(forms.Form):
    order = forms.IntegerField(label="Order number", min_value=1, max_value=999_999)
    phone = PhoneField(label="Customer's phone", help_text=SPELLINGS)


class PhoneForm(forms.Form):
    phone = PhoneField(label="Your phone", help_text=SPELLINGS)


class CodeForm(forms.Form):
    code = forms.RegexField(
        r"^\s*[0-9]{6}\s*$",
        label="Code from the SMS",
        error_messages={"invalid": "The code has six digits."},
        widget=forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "one-time-code"}),
    )

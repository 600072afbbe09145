from django import forms
from django.utils.translation import gettext_lazy as _

from django_smska.forms import PhoneField

SPELLINGS = _("8 904 176-49-95 or +7 904 176-49-95")


class OrderReadyForm(forms.Form):
    order = forms.IntegerField(label=_("Order number"), min_value=1, max_value=999_999)
    phone = PhoneField(label=_("Customer's phone"), help_text=SPELLINGS)


class PhoneForm(forms.Form):
    phone = PhoneField(label=_("Your phone"), help_text=SPELLINGS)


class CodeForm(forms.Form):
    code = forms.RegexField(
        r"^\s*[0-9]{6}\s*$",
        label=_("Code from the SMS"),
        error_messages={"invalid": _("The code has six digits.")},
        widget=forms.TextInput(attrs={"inputmode": "numeric", "autocomplete": "one-time-code"}),
    )

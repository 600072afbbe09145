"""The forms of the address book's admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget, AdminTextInputWidget
from django.core.exceptions import ValidationError
from django.utils.translation import gettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from ..admin import recipients
from ..admin.actions import MAX_ITEMS_SHOWN
from ..admin.forms import SmsActionForm, UnloggedErrors
from ..admin.number_forms import NumbersForm
from ..forms import PhoneField
from . import tables
from .models import Contact, ContactGroup

if TYPE_CHECKING:
    ContactFormBase = forms.ModelForm[Contact]
    GroupFormBase = forms.ModelForm[ContactGroup]
else:
    ContactFormBase = GroupFormBase = forms.ModelForm


class ContactForm(ContactFormBase):
    """Takes a number in any spelling. The groups are boxes to tick."""

    number = PhoneField(
        label=_("Number"),
        widget=AdminTextInputWidget(attrs={"inputmode": "tel"}),
        help_text=_("8 904 176-49-95 or +7 904 176-49-95; other countries with + and their code."),
    )
    groups = forms.ModelMultipleChoiceField(
        label=pgettext_lazy("contacts", "Groups"),
        queryset=ContactGroup.objects.all(),
        required=False,
        widget=forms.CheckboxSelectMultiple,
    )

    class Meta:
        model = Contact
        fields = ("number", "name", "groups", "note")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"error_class": UnloggedErrors, **kwargs})


class GroupForm(GroupFormBase):
    """Errors quote no name in a log."""

    class Meta:
        model = ContactGroup
        fields = ("name",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"error_class": UnloggedErrors, **kwargs})


class GroupActionForm(SmsActionForm):
    """The list's actions, with the group that they are about."""

    group = forms.ModelChoiceField(
        label=pgettext_lazy("contacts", "Group:"),
        queryset=ContactGroup.objects.all(),
        required=False,
        empty_label="—",
    )


class ImportForm(NumbersForm):
    """A table of contacts, pasted or as a file, and what is to be done with them. Once it is valid,
    it has ``found``."""

    numbers = forms.CharField(
        label=_("Table"),
        required=False,
        strip=False,
        widget=AdminTextareaWidget(attrs={"rows": 6, "autocomplete": "off", "spellcheck": "false"}),
        help_text=_(
            "Copy it from a spreadsheet, or write one contact per line: the number and the name."
        ),
    )
    file = forms.FileField(
        label=_("Or a file"),
        required=False,
        widget=forms.FileInput(attrs={"accept": ".csv,.txt,.xlsx,.xlsm"}),
        help_text=_(
            "A table, as CSV or XLSX. The columns with the numbers and the names are found "
            "automatically."
        ),
    )
    name_letter = forms.CharField(
        label=_("Column with the names"),
        required=False,
        max_length=3,
        widget=AdminTextInputWidget(attrs={"autocapitalize": "characters"}),
        help_text=_("Its letter, such as B. Empty: it is found automatically."),
    )
    group = forms.ModelChoiceField(
        label=pgettext_lazy("contacts", "Group"),
        queryset=ContactGroup.objects.all(),
        required=False,
        empty_label="—",
        help_text=_("All of them come into this group, also those that are known already."),
    )
    new_group = forms.CharField(
        label=_("Or a new group"), required=False, max_length=100, widget=AdminTextInputWidget
    )
    replace = forms.BooleanField(
        label=_("Replace names"),
        required=False,
        help_text=_(
            "Give contacts that are known the names of the table. Otherwise their names stay."
        ),
    )

    def __init__(self, *args: Any, may_add_groups: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **{"error_class": UnloggedErrors, **kwargs})
        self.found = tables.Found()
        if not may_add_groups:
            del self.fields["new_group"]

    def clean_file(self) -> Any:
        file = self.cleaned_data["file"]
        if file and ("numbers" in self.errors or self.cleaned_data["numbers"].strip()):
            raise ValidationError(_("Paste a table above or upload a file, not both."))
        return file

    def clean_name_letter(self) -> str:
        return str(self.cleaned_data["name_letter"]).upper()

    def clean_new_group(self) -> str:
        name: str = self.cleaned_data["new_group"]
        if name and self.cleaned_data.get("group"):
            raise ValidationError(_("Choose a group or name a new one, not both."))
        ContactGroup(name=name).clean()
        return name

    def clean(self) -> Any:
        asked = self._asked_column()
        if not {"numbers", "file", "name_letter"} & self.errors.keys():
            file = self.cleaned_data["file"]
            try:
                self._read(file, asked)
            except ValidationError as error:
                if isinstance(error, recipients.UnclearColumn):
                    self._ask_for_column(error)
                self.add_error("file" if file else "numbers", error)
        return self.cleaned_data

    def _read(self, file: Any, asked: str) -> None:
        text = self.cleaned_data["numbers"]
        if file:
            data = file.read(recipients.MAX_FILE_BYTES + 1)
        elif text.strip():
            data = text.encode("utf-8-sig", "replace")
        else:
            raise ValidationError(_("Paste a table, or choose a file."))
        found = tables.read(data, asked, self.cleaned_data["name_letter"])
        if not found.names:
            raise ValidationError(self._reasons(found))
        self.found = found
        # From here on it is a typed table, because the next page cannot carry a file.
        self._redisplay(numbers=found.text, column_letter="A", name_letter=found.letter)

    def _reasons(self, found: tables.Found) -> list[str]:
        words = gettext("Line %(line)s, “%(written)s”: %(why)s")
        bad = [words % vars(one) for one in found.left_out[:MAX_ITEMS_SHOWN]]
        return [*bad, *found.notes] or [gettext("Enter at least one number.")]

    def forget_columns(self) -> None:
        """Let the columns of the table be found again: the user may paste another one."""
        self._redisplay(column_letter="", name_letter="")

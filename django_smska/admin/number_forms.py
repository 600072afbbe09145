"""A form with many numbers: pasted, or a column of a file."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget
from django.core.exceptions import ValidationError
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from . import recipients
from .actions import MAX_ITEMS_SHOWN


class NumbersForm(forms.Form):
    """Once it is valid, it has ``recipients``.

    :cvar most_numbers: the most numbers that it accepts; None for ``recipients.MAX_NUMBERS``
    :ivar column: the column of a file that the numbers came from; then they are also in ``numbers``
    :ivar unreachable: numbers that get nothing, because no message can go there
    """

    most_numbers: ClassVar[int | None] = None

    numbers = forms.CharField(
        label=_("Numbers"),
        required=False,
        strip=False,
        widget=AdminTextareaWidget(attrs={"rows": 6, "autocomplete": "off", "spellcheck": "false"}),
        help_text=_(
            "One per line, or with commas between them: 8 904 176-49-95 or +7 904 176-49-95; "
            "other countries with + and their code."
        ),
    )
    # Shown where the column is not clear.
    column_letter = forms.CharField(
        label=_("Column with the numbers"),
        required=False,
        max_length=3,
        widget=forms.HiddenInput,
    )
    file = forms.FileField(
        label=_("Or a file with numbers"),
        required=False,
        widget=forms.FileInput(attrs={"accept": ".csv,.txt,.xlsx,.xlsm"}),
        help_text=_("A table, as CSV or XLSX; the column with the numbers is found automatically."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.column: recipients.Column | None = None
        self.recipients = recipients.Recipients()
        self.unreachable: list[recipients.LeftOut] = []

    def clean_file(self) -> None:
        file = self.cleaned_data["file"]
        if not file:
            return
        if "numbers" in self.errors or self.cleaned_data["numbers"].strip():
            raise ValidationError(_("Enter numbers above or upload a file, not both."))
        asked = self._asked_column()
        try:
            data = file.read(recipients.MAX_FILE_BYTES + 1)
            self.column = recipients.column(data, asked, self.most_numbers)
        except recipients.UnclearColumn as error:
            self._ask_for_column(error)
            raise
        # From here on they are like typed numbers, because the next page cannot carry a file.
        self.cleaned_data["numbers"] = self.column.lines
        self._redisplay(numbers=self.column.lines)

    def read_numbers(self) -> None:
        """Read them, and put what is wrong at their field."""
        if {"numbers", "file"} & self.errors.keys():
            return
        try:
            self._read_numbers()
        except ValidationError as error:
            self.add_error("numbers", error)

    def _read_numbers(self) -> None:
        text, asked = self.cleaned_data["numbers"], self._asked_column()
        try:
            self.recipients = recipients.read(text, asked, self.most_numbers)
        except recipients.UnclearColumn as error:
            self._ask_for_column(error)
            raise
        if column := self.recipients.column:
            self.column = column
            self._redisplay(numbers=column.lines)
        if self.recipients.lines:
            return
        bad = self.recipients.bad[:MAX_ITEMS_SHOWN]
        if not bad:
            raise ValidationError(_("Enter at least one number."))
        words = gettext("Line %(line)s, “%(written)s”: %(why)s")
        notes = self.column.notes if self.column else []
        raise ValidationError([*(words % vars(left_out) for left_out in bad), *notes])

    @property
    def to_correct(self) -> str:
        """Return what was skipped and may be corrected, one entry per line."""
        every = sorted([*self.recipients.bad, *self.unreachable], key=lambda one: one.line)
        return "\n".join(one.written for one in every)

    def corrections(self) -> dict[str, str] | None:
        """Return the data of a form in which what was skipped is as it has been corrected on the
        next page, or None if nothing was changed there."""
        self.is_valid()
        data = dict(self.data.items())
        given = data.pop("corrected", None)
        if given is None or given.splitlines() == self.to_correct.splitlines():
            return None
        refused = {one.written for one in self.unreachable}
        return data | {
            "numbers": f"{recipients.without(data.get('numbers', ''), refused)}\n{given}"
        }

    def _asked_column(self) -> str:
        """Return the chosen column and clear it, because another file needs another choice."""
        asked: str = self.cleaned_data.pop("column_letter", "")
        self._redisplay(column_letter="")
        return asked

    def _ask_for_column(self, error: recipients.UnclearColumn) -> None:
        choices = [("", "—"), *error.columns]
        self.fields["column_letter"].widget = forms.Select(choices=choices)

    def _redisplay(self, **values: str) -> None:
        self.data = {**dict(self.data.items()), **values}

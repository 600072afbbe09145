"""The form of the page for writing: one text, its recipients, and when it is sent."""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from typing import Any, NamedTuple, cast

from django import forms
from django.conf import settings
from django.contrib.admin.widgets import AdminSplitDateTime
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .. import clock, conf, limits, opt_out, times
from ..models import SmsMailing, SmsMessage
from ..placeholders import Text
from ..segments import with_plain_lines
from . import clients, compose_times, recipients
from .compose_times import NOW, OTHER, Plan, SendAtField, WhenField, time_words
from .filling import Filling, whole_table
from .forms import SmsMessageForm
from .number_forms import NumbersForm

ANY_NUMBER = "+79000000000"
OTHER_FIELDS_BYTES = 200_000  # the room for the other fields beside a table in one request


def new_nonce() -> str:
    return secrets.token_hex(16)


class FilledText(NamedTuple):
    """The text for one number."""

    text: str
    segments: int

    def __repr__(self) -> str:
        return "<FilledText •••>"


class ComposeForm(SmsMessageForm, NumbersForm):
    """One text and its recipients. A table's columns take the place of the text's placeholders.

    Once it is valid, it has ``instance``, too, which has the text's size.

    :ivar opted_out: numbers that get nothing, because they are on the do-not-send list
    :ivar given: all numbers, these too, in their order
    :ivar filling: the table, where the text has placeholders
    :ivar incomplete: rows whose text cannot be made; while there are any, nothing is sent
    :ivar chosen: the clients of the chosen group; then they are also in ``numbers``
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

    group = forms.ChoiceField(
        label=_("Recipients from"),
        required=False,
        help_text=_("Instead of numbers or a file."),
        error_messages={"invalid_choice": _("This group cannot be read now. Choose another.")},
    )

    class Meta(SmsMessageForm.Meta):
        fields: Any = ("body", "sender", "using")

    def __init__(self, *args: Any, sources: clients.Sources | None = None, **kwargs: Any) -> None:
        """Make it, with a choice of groups if there are ``sources``."""
        super().__init__(*args, **kwargs)
        self.sources = sources
        self.chosen: clients.Recipients | None = None
        if sources is None:
            del self.fields["group"]
        else:
            cast(Any, self.fields["group"]).choices = sources.choices
        self.opted_out: list[recipients.LeftOut] = []
        self.given: list[str] = []
        self.filling: Filling | None = None
        self.incomplete: list[recipients.LeftOut] = []
        self._filled: dict[str, FilledText] = {}
        words = gettext("For “at another time”. It is %s by the clock of this site.")
        self.fields["send_at"].help_text = words % time_words(timezone.now())
        when: Any = self.fields["when"]
        when.offer(self.data.get("when", self.initial.get("when")))
        self.fields["numbers"].widget.attrs["autofocus"] = True

    def clean_when(self) -> Any:
        """Fix the time of "in an hour": the next page carries it."""
        when = compose_times.fixed(self.cleaned_data["when"])
        if when != self.cleaned_data["when"]:
            self._redisplay(when=when)
        if compose_times.is_moment(when):
            self._require_ahead(compose_times.moment_of(when))
        return when

    def clean_group(self) -> None:
        key = self.cleaned_data["group"]
        if not key or self.sources is None or {"numbers", "file"} & self.errors.keys():
            return
        if self.cleaned_data["numbers"].strip():
            words = _("Enter numbers, upload a file or choose a group: only one of them.")
            raise ValidationError(words)
        self.chosen = self.sources.recipients(key)
        # As with a file: what the next page shows is what is sent, not what is true by then.
        self.cleaned_data["numbers"] = self.chosen.text
        self.cleaned_data["column_letter"] = ""  # it was chosen for another table
        self._redisplay(numbers=self.chosen.text, group="")

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
        if "group" not in self.errors:
            self.read_numbers()
            self._read_placeholders()
        # The model looks at the text only beside a number.
        self.instance.to = next(iter(self.recipients.lines), ANY_NUMBER)
        if "using" in self.cleaned_data:
            self._leave_out_unreachable()
        if self.filling is not None:
            self._fill(self.filling)
        if not self.errors:
            self._leave_out_opted_out()
            self._require_last_in_time()
        return cleaned

    def _require_last_in_time(self) -> None:
        last = max(self.plan.leaves.values(), default=None)
        if last is not None and (problem := times.problem(last)):
            self.add_error("spread" if self.cleaned_data["spread"] else "when", problem)

    def _read_placeholders(self) -> None:
        """Find the columns of the placeholders, and keep these in ``numbers`` for the next page."""
        has_numbers = not {"numbers", "file"} & self.errors.keys()
        try:
            text = Text(with_plain_lines(self.cleaned_data.get("body", "")))
            if text.names and has_numbers:
                self.filling = Filling(text, self.column)
        except ValidationError as error:
            self.add_error("body", error)
        if self.filling is not None:
            self._keep(self.filling.table())
        elif self.column is not None and has_numbers and "body" in self.errors:
            table = whole_table(self.column)
            if table and not _is_too_large(table):
                self._redisplay(numbers=table)

    def _keep(self, table: str) -> None:
        if _is_too_large(table):
            self._redisplay(numbers="")
            words = _("With the columns of the placeholders, the table is too large. Split it.")
            self.add_error("numbers", words)
            self.filling = None
        else:
            self._redisplay(numbers=table, column_letter=recipients.KEPT)

    def forget_column(self) -> None:
        """Leave the column of the numbers to be found: others may be typed now."""
        if self.data.get("column_letter") == recipients.KEPT:
            self._redisplay(column_letter="")

    def _fill(self, filling: Filling) -> None:
        also = (*self.recipients.doubled, *self.unreachable)
        per_line = Counter([*self.recipients.lines.values(), *(one.line for one in also)])
        message = SmsMessage(to=ANY_NUMBER, send_after=timezone.now())
        for number, line in list(self.recipients.lines.items()):
            try:
                if filling.names_numbers and per_line[line] > 1:
                    raise ValidationError(_("There are several numbers, and the text names one."))
                message.body = filling.text_for(line)
                message.check_text()
                self._filled[number] = FilledText(message.body, message.segments)
            except ValidationError as error:
                del self.recipients.lines[number]
                why = " ".join(error.messages)
                self.incomplete.append(recipients.LeftOut(line, filling.written(line), why))

    def text_for(self, number: str) -> str:
        """Return what this number gets."""
        found = self._filled.get(number)
        return str(self.cleaned_data["body"]) if found is None else found.text

    def stored_text_for(self, number: str) -> str:
        """Return it as it is stored."""
        return self.instance.body if self.filling is None else self.text_for(number)

    def segments_for(self, number: str) -> int:
        """Return the segments of what this number gets."""
        found = self._filled.get(number)
        return self.instance.segments if found is None else found.segments

    # --- corrections of a table

    @property
    def to_correct(self) -> str:
        if self.filling is None:
            return super().to_correct
        wrong: dict[int, list[str]] = {}
        for one in (*self.recipients.bad, *self.unreachable):
            wrong.setdefault(one.line, []).append(one.written)
        rows = {line: self.filling.row(line, ", ".join(parts)) for line, parts in wrong.items()}
        rows |= {one.line: self.filling.row(one.line) for one in self.incomplete}
        return "\n".join(rows[line] for line in sorted(rows))

    def corrections(self) -> dict[str, str] | None:
        self.is_valid()
        if self.filling is None or self.column is None:
            return super().corrections()
        data = dict(self.data.items())
        given = data.pop("corrected", None)
        if given is None or given.splitlines() == self.to_correct.splitlines():
            return None
        refused = {one.written for one in self.unreachable}
        numbers = recipients.without(self.column.lines, refused)
        table = self.filling.table(self._lines_of_incomplete, numbers, given)
        return data | {"numbers": table, "column_letter": recipients.KEPT}

    def without_incomplete(self) -> dict[str, str]:
        """Return the data of a form without the rows that lack a value."""
        self.is_valid()
        data = dict(self.data.items())
        data.pop("corrected", None)
        if self.filling is not None:
            table = self.filling.table(self._lines_of_incomplete)
            data |= {"numbers": table, "column_letter": recipients.KEPT}
        return data

    @property
    def _lines_of_incomplete(self) -> set[int]:
        return {one.line for one in self.incomplete}

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
        """Return whether all is sent before the page is answered. Numbers on the do-not-send list
        count, or the page would show whose they are."""
        few = len(self.given) <= conf.send_at_once()
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
        content = {name: self.cleaned_data[name] for name in ("sender", "using")}
        at = self.cleaned_data["send_at"]
        return [
            SmsMessage(
                to=number,
                body=self.text_for(number),
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
        # Another time is no reason to get the same text twice.
        content = {**self.cleaned_data, "body": self.text_for(number)}
        names = ("nonce", "body", "sender", "using")
        parts = [number, *(str(content[name]) for name in names)]
        return f"compose-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()}"


def _is_too_large(table: str) -> bool:
    """Return whether Django would refuse the next page's form with this table.

    What is corrected of it may stand there a second time, as far as it is shown.
    """
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    size = len(table.encode()) + table.count("\n")  # browsers send two characters for a line end
    return most is not None and size > most - OTHER_FIELDS_BYTES

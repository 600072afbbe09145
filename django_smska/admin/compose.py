"""The admin's page to write one text to one number or to thousands.

A second page shows the result of the check, and sends. Nothing is stored before that.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.helpers import AdminForm
from django.contrib.admin.widgets import AdminSplitDateTime, AdminTextareaWidget
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import Error, IntegrityError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from .. import circuit_breaker, clock, conf, sending, times
from ..models import SmsMessage, rows, write_db
from ..numbers import is_russian_mobile, mask
from ..sms import send_mass_sms
from ..states import Status
from . import recipients
from .action_views import BATCH_MESSAGES, ActionAdmin
from .actions import MAX_ITEMS_SHOWN, QUEUED, SEND, Outcome, log
from .forms import SmsMessageForm
from .permissions import Unlogged
from .wording import balance_words, paused_words

logger = logging.getLogger(__name__)

MAX_LEFT_OUT_SHOWN = 200  # the most skipped numbers that the page lists
MAX_NUMBERS_LOOKED_UP = 500  # the most numbers in the query for those that just got this text
ANY_NUMBER = "+79000000000"


def _new_nonce() -> str:
    return secrets.token_hex(16)


class ComposeForm(SmsMessageForm):
    """One text and its recipients.

    Once it is valid, it has ``recipients``, and ``instance``, which has the text's size.

    :ivar column: the column of a file that the numbers came from; then they are also in ``numbers``
    """

    to = None  # type: ignore[assignment]
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
    send_at = forms.SplitDateTimeField(
        label=_("Send at"), required=False, widget=AdminSplitDateTime
    )
    # A form that is submitted twice must not send twice: its messages' keys depend on this nonce.
    nonce = forms.CharField(max_length=64, widget=forms.HiddenInput, initial=_new_nonce)

    class Meta(SmsMessageForm.Meta):
        fields: Any = ("body", "sender", "using")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.column: recipients.Column | None = None
        self.recipients = recipients.Recipients()
        words = gettext("Empty: now. It is %s by the clock of this site.")
        self.fields["send_at"].help_text = words % _time(timezone.now())

    def clean_file(self) -> None:
        file = self.cleaned_data["file"]
        if not file:
            return
        if "numbers" in self.errors or self.cleaned_data["numbers"].strip():
            raise ValidationError(_("Enter numbers above or upload a file, not both."))
        asked = self._asked_column()
        try:
            self.column = recipients.column(file.read(recipients.MAX_FILE_BYTES + 1), asked)
        except recipients.UnclearColumn as error:
            self._ask_for_column(error)
            raise
        # From here on they are like typed numbers, because the next page cannot carry a file.
        self.cleaned_data["numbers"] = self.column.lines
        self._redisplay(numbers=self.column.lines)

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

    def clean_send_at(self) -> Any:
        at = self.cleaned_data["send_at"]
        if at is not None and at <= timezone.now():
            raise ValidationError(_("This time has passed. Leave it empty to send now."))
        if at is not None and (problem := times.problem(at)):
            raise ValidationError(problem)
        return at

    def clean(self) -> Any:
        cleaned = super().clean()
        if not {"numbers", "file"} & self.errors.keys():
            try:
                self._read_numbers()
            except ValidationError as error:
                self.add_error("numbers", error)
        # The model looks at the text only beside a number.
        self.instance.to = next(iter(self.recipients.numbers), ANY_NUMBER)
        return cleaned

    def _read_numbers(self) -> None:
        try:
            self.recipients = recipients.read(self.cleaned_data["numbers"], self._asked_column())
        except recipients.UnclearColumn as error:
            self._ask_for_column(error)
            raise
        if column := self.recipients.column:
            self.column = column
            self._redisplay(numbers=column.lines)
        if self.recipients.numbers:
            return
        bad = self.recipients.bad[:MAX_ITEMS_SHOWN]
        if not bad:
            raise ValidationError(_("Enter at least one number."))
        words = gettext("Line %(line)s, “%(written)s”: %(why)s")
        notes = self.column.notes if self.column else []
        raise ValidationError([*(words % vars(left_out) for left_out in bad), *notes])

    @property
    def send_at_once(self) -> bool:
        """Return whether all is sent before the page is answered."""
        few = len(self.recipients.numbers) <= conf.send_at_once()
        return few and self.cleaned_data["send_at"] is None

    def messages(self, user: Any) -> list[SmsMessage]:
        """Return a new message for each number; the same form and content give the same keys."""
        # No generator: error reports would show the variables of its frame.
        content = {name: self.cleaned_data[name] for name in ("body", "sender", "using")}
        at = self.cleaned_data["send_at"]
        return [
            SmsMessage(
                to=number,
                **content,
                send_after=at or clock.now(),
                idempotency_key=self._key(number),
                created_by=user,
            )
            for number in self.recipients.numbers
        ]

    def keys(self, numbers: list[str]) -> list[str]:
        """Return the idempotency keys of the messages to these numbers."""
        return [self._key(number) for number in numbers]

    def _key(self, number: str) -> str:
        names = ("nonce", "body", "sender", "using", "send_at")
        parts = [number, *(str(self.cleaned_data[name]) for name in names)]
        return f"compose-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()}"


# --- the pages ------------------------------------------------------------------------------------


@sensitive_variables()
@sensitive_post_parameters()
def compose(request: HttpRequest, *, model_admin: ActionAdmin) -> HttpResponse:
    """Answer GET by the form, its POST by what would be sent, and send by the POST from there."""
    may_add = model_admin.has_add_permission(request)
    if not (may_add and model_admin.may(request, "send")):
        raise PermissionDenied
    if request.method != "POST":
        return _write_page(request, model_admin, ComposeForm())
    form = ComposeForm(request.POST, request.FILES)
    if not form.is_valid() or "_back" in request.POST:
        return _write_page(request, model_admin, form)
    if "_send" not in request.POST:
        return _check_page(request, model_admin, form)
    return _send(request, model_admin, form)


def _write_page(request: HttpRequest, model_admin: ActionAdmin, form: ComposeForm) -> HttpResponse:
    return _page(
        request,
        model_admin,
        form,
        "compose",
        _("Write a message"),
        errors=form.errors,
        adminform=AdminForm(form, _fieldsets(form), {}, model_admin=model_admin),
        back_url=model_admin.url("changelist"),
    )


def _fieldsets(form: ComposeForm) -> list[Any]:
    groups = [
        (_("Recipients"), ("numbers", "file", "column_letter")),
        (_("Message"), ("body", "sender", "using")),
        (_("When"), ("send_at",)),
    ]
    # Some themes show the label of a hidden field.
    return [
        (title, {"fields": [name for name in names if not form[name].is_hidden]})
        for title, names in groups
    ]


def _check_page(request: HttpRequest, model_admin: ActionAdmin, form: ComposeForm) -> HttpResponse:
    found = form.recipients
    left_out = sorted(found.bad + found.doubled, key=lambda one: one.line)
    state = circuit_breaker.state_of(form.cleaned_data["using"])
    return _page(
        request,
        model_admin,
        form,
        "compose_check",
        _("Check and send"),
        number=len(found.numbers),
        segments=len(found.numbers) * form.instance.segments,
        numbers=Unlogged(", ".join(found.numbers)),
        doubled=len(found.doubled),
        bad=len(found.bad),
        left_out=left_out[:MAX_LEFT_OUT_SHOWN],
        more=len(left_out) - MAX_LEFT_OUT_SHOWN,
        state=state,
        balance=balance_words(state),
        warnings=list(_warnings(form, state)),
        most=conf.send_at_once(),
        hidden=[form[name] for name in form.fields if name != "file"],
    )


def _warnings(form: ComposeForm, state: Any) -> Iterator[str]:
    numbers = form.recipients.numbers
    segments = len(numbers) * form.instance.segments
    if state.is_paused:
        yield gettext("“%(name)s” is paused. %(why)s") % {
            "name": state.alias,
            "why": paused_words(state),
        }
    if not form.send_at_once and circuit_breaker.has_no_worker(state):
        words = gettext(
            "No worker has been seen for “%(name)s” lately, so messages will stay queued. Ask your "
            "administrator to start sms_worker."
        )
        yield words % {"name": state.alias}
    if state.balance is not None and state.balance < segments:
        yield gettext("The balance is lower than the number of segments and may not be enough.")
    if _just_sent(form):
        yield gettext(
            "This text went to some of these numbers within the last hour. They would get it twice."
        )
    abroad = sum(not is_russian_mobile(number) for number in numbers)
    if abroad:
        words = ngettext(
            "%s number is not a Russian mobile number: not every provider sends to it.",
            "%s numbers are not Russian mobile numbers: not every provider sends to them.",
            abroad,
        )
        yield words % abroad


def _just_sent(form: ComposeForm) -> bool:
    """Return whether this text has just been written to one of the numbers, by any other form:
    what this form has stored it does not store again."""
    numbers = form.recipients.numbers[:MAX_NUMBERS_LOOKED_UP]
    same = rows().filter(
        to__in=numbers,
        body=form.instance.body,
        created_at__gte=timezone.now() - timedelta(hours=1),
    )
    same = same.exclude(status__in=(Status.FAILED, Status.CANCELLED))
    return same.exclude(idempotency_key__in=form.keys(numbers)).order_by().exists()


def _page(
    request: HttpRequest,
    model_admin: ActionAdmin,
    form: ComposeForm,
    template: str,
    title: Any,
    **context: Any,
) -> HttpResponse:
    context |= {"form": form, "media": model_admin.media + form.media}
    action_url = model_admin.url("compose")
    page: HttpResponse = model_admin.page(
        request, template, title, action_url=action_url, **context
    )
    return page


# --- sending --------------------------------------------------------------------------------------


def _send(request: HttpRequest, model_admin: ActionAdmin, form: ComposeForm) -> HttpResponse:
    failed: list[str] = []
    if form.send_at_once:
        new = _store_drafts(form, request.user, failed)
        if new:
            model_admin.carry_out(request, SEND, new)
    else:
        outcome = _queued(form)
        try:
            new = _store_queued(form, request.user, outcome)
        except (ValidationError, Error) as error:
            form.add_error(None, _why_not_queued(error))
            return _write_page(request, model_admin, form)
        if new:
            model_admin.message_user(request, model_admin.summary(outcome, new), outcome.level)
    for words in failed:
        model_admin.message_user(request, words, messages.ERROR)
    if known := len(form.recipients.numbers) - len(new) - len(failed):
        words = ngettext(
            "%s message was already created when you submitted this form before and will not be "
            "sent again.",
            "%s messages were already created when you submitted this form before and will not be "
            "sent again.",
            known,
        )
        model_admin.message_user(request, words % known, messages.WARNING)
    one = len(form.recipients.numbers) == len(new) == 1
    to = model_admin.url("change", new[0]) if one else model_admin.url("changelist")
    return HttpResponseRedirect(to)


def _queued(form: ComposeForm) -> Outcome:
    at = form.cleaned_data["send_at"]
    return Outcome(gettext("Queued to be sent at %s") % _time(at), QUEUED.why) if at else QUEUED


def _time(at: Any) -> str:
    return date_format(times.local(at), "SHORT_DATETIME_FORMAT")


def _store_drafts(form: ComposeForm, user: Any, failed: list[str]) -> list[int]:
    """Return the keys of the drafts to send, which no worker sends, and add a sentence to
    ``failed`` for each that failed."""
    drafts = []
    for message in form.messages(user):
        try:
            drafts += [message] if _is_new(message) else _left([message])
        except Exception as error:
            parts = {"number": mask(message.to), "why": " ".join(_why_not(error).messages)}
            failed.append(gettext("Not sent to %(number)s. %(why)s") % parts)
    return [message.pk for message in drafts]


def _left(known: list[SmsMessage]) -> list[SmsMessage]:
    """Return the drafts that an earlier try of this form has left, because its process ended or
    the provider was paused. One that was edited since is not the form's any more.

    :param known: messages of the form whose keys are stored already
    """
    written = {one.idempotency_key: _content(one) for one in known}
    found = rows().filter(status=Status.DRAFT, idempotency_key__in=written)
    return [one for one in found if _content(one) == written[one.idempotency_key]]


def _content(message: SmsMessage) -> tuple[str, ...]:
    return message.to, message.body, message.sender, message.using


def _why_not(error: Exception) -> ValidationError:
    """Return why nothing was stored, without a database error's own text, which quotes values."""
    if isinstance(error, ValidationError):
        return ValidationError(error.messages)
    logger.error("a message of the admin was not stored: %s", type(error).__name__)
    words = gettext("It could not be stored (%s), so nothing was sent.")
    return ValidationError(words % type(error).__name__)


def _is_new(draft: SmsMessage) -> bool:
    try:
        with transaction.atomic(using=write_db()):
            draft.save(using=write_db())
    except IntegrityError:
        if not rows().filter(idempotency_key=draft.idempotency_key).exists():
            raise
        return False
    return True


def _store_queued(form: ComposeForm, user: Any, outcome: Outcome) -> list[int]:
    """Return the keys of those that it has put into the queue."""
    try:
        return _store_in_bulk(form, user, outcome)
    except IntegrityError:  # the same form was submitted at the same moment
        return _store_in_bulk(form, user, outcome)


def _why_not_queued(error: Exception) -> ValidationError:
    """Return why they are not in the queue, or what to do where they may be there: the answer to
    the COMMIT may be what was lost. The form that is shown again gives the same keys."""
    if not isinstance(error, sending.UNAVAILABLE):
        return _why_not(error)
    logger.error("the database failed for messages of the admin: %s", type(error).__name__)
    return ValidationError(
        gettext(
            "The database did not answer. The messages may be in the queue. Send this form again "
            "without changes: nothing is sent twice."
        )
    )


def _store_in_bulk(form: ComposeForm, user: Any, outcome: Outcome) -> list[int]:
    every = form.messages(user)
    with transaction.atomic(using=write_db()):
        stored = send_mass_sms(every)
        if stored.bad:  # all or nothing: a part was not requested
            raise stored.errors[0][1]
        new = [message for message in every if message.pk is not None]
        known = [message for message in every if message.pk is None]
        for start in range(0, len(known), BATCH_MESSAGES):
            left = _left(known[start : start + BATCH_MESSAGES])
            sending.enqueue(rows(message.pk for message in left))
            new += left
        log(user, new, str(outcome))
    return [message.pk for message in new]

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
from django.contrib.admin.widgets import AdminSplitDateTime
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import Error, IntegrityError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from .. import (
    circuit_breaker,
    clock,
    conf,
    handover,
    limits,
    mailing_counts,
    opt_out,
    sending,
    times,
)
from ..exceptions import SmsNotSent
from ..models import SmsMailing, SmsMessage, rows, write_db
from ..numbers import is_russian_mobile, mask
from ..sms import send_mass_sms
from ..states import Status
from . import copying, recipients, text_words
from .action_views import BATCH_MESSAGES, ActionAdmin
from .actions import QUEUED, SEND, Outcome, log
from .forms import SmsMessageForm
from .money import cost_of
from .number_forms import NumbersForm
from .permissions import Unlogged, grouped, may_see_number, may_see_text
from .wording import balance_words, error_words, paused_words, stop_of

logger = logging.getLogger(__name__)

MAX_LEFT_OUT_SHOWN = 200  # the most skipped numbers that the page lists
MAX_NUMBERS_LOOKED_UP = 500  # the most numbers in the query for those that just got this text
ANY_NUMBER = "+79000000000"
SAVED = Outcome(
    _("Saved as draft"),
    _("Not sent until you choose “Send”."),
    history=_("Saved as draft."),
)


def new_nonce() -> str:
    return secrets.token_hex(16)


class ComposeForm(SmsMessageForm, NumbersForm):
    """One text and its recipients.

    Once it is valid, it has ``instance``, too, which has the text's size.

    :ivar opted_out: numbers that get nothing, because they are on the do-not-send list
    :ivar given: all numbers, these too, in their order
    """

    to = None  # type: ignore[assignment]
    send_at = forms.SplitDateTimeField(
        label=_("Send at"), required=False, widget=AdminSplitDateTime
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
        words = gettext("Empty: now. It is %s by the clock of this site.")
        self.fields["send_at"].help_text = words % _time(timezone.now())
        self.fields["numbers"].widget.attrs["autofocus"] = True

    def clean_send_at(self) -> Any:
        at = self.cleaned_data["send_at"]
        if at is not None and at <= timezone.now():
            raise ValidationError(_("This time has passed. Leave it empty to send now."))
        if at is not None and (problem := times.problem(at)):
            raise ValidationError(problem)
        return at

    def clean(self) -> Any:
        cleaned = super().clean()
        self.read_numbers()
        # The model looks at the text only beside a number.
        self.instance.to = next(iter(self.recipients.lines), ANY_NUMBER)
        if "using" in self.cleaned_data:
            self._leave_out_unreachable()
        if not self.errors:
            self._leave_out_opted_out()
        return cleaned

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
        return few and self.cleaned_data["send_at"] is None and not self.cleaned_data["name"]

    def mailing(self, user: Any) -> SmsMailing | None:
        """Return a new mailing for the messages; None for a single one."""
        if len(self.recipients.numbers) < 2:
            return None
        given = {name: self.cleaned_data[name] for name in ("body", "sender", "using")}
        name = self.cleaned_data["name"] or gettext("Mailing of %s") % _time(timezone.now())
        at = self.cleaned_data["send_at"]
        return SmsMailing(name=name, **given, send_after=at, created_by=user)

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
    """Answer GET by the form, its POST by what would be sent, and send or save by the POST from
    there."""
    if not model_admin.may_compose(request):
        raise PermissionDenied
    if request.method != "POST":
        copied = copying.filled(request, model_admin)
        return _write_page(request, model_admin, ComposeForm(initial=copied))
    form = ComposeForm(request.POST, request.FILES)
    if corrected := form.corrections():
        form = ComposeForm(corrected)
    if not form.is_valid() or "_back" in request.POST:
        return _write_page(request, model_admin, form)
    if corrected or not {"_send", "_save"} & request.POST.keys():
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
        (_("When"), ("send_at", "name")),
    ]
    # Some themes show the label of a hidden field.
    return [
        (title, {"fields": [name for name in names if not form[name].is_hidden]})
        for title, names in groups
    ]


def _check_page(request: HttpRequest, model_admin: ActionAdmin, form: ComposeForm) -> HttpResponse:
    found = form.recipients
    # Who may see no whole number could find one out here, by trying those that fit its mask.
    may_see = may_see_number(request.user)
    opted_out, numbers = (form.opted_out, found.numbers) if may_see else ([], form.given)
    left_out = sorted(
        [*found.bad, *found.doubled, *form.unreachable, *opted_out], key=lambda one: one.line
    )
    read_out = [one for one in found.read_out if may_see and one.number in found.lines]
    state = circuit_breaker.state_of(form.cleaned_data["using"])
    stopped = stop_of(state.alias)
    segments = len(numbers) * form.instance.segments
    cost = cost_of(state, segments)
    return _page(
        request,
        model_admin,
        form,
        "compose_check",
        _("Check and send"),
        number=len(numbers),
        segments=segments,
        cost=cost,
        numbers=Unlogged(", ".join(map(grouped, numbers))),
        phone=text_words.phone(form.instance.body, _sender(form)),
        advice=[Unlogged(words) for words in text_words.advice(form.instance.body)],
        doubled=len(found.doubled),
        bad=len(found.bad),
        opted_out=len(opted_out),
        may_see_number=may_see,
        unreachable=len(form.unreachable),
        left_out=left_out[:MAX_LEFT_OUT_SHOWN],
        more=len(left_out) - MAX_LEFT_OUT_SHOWN,
        to_correct=Unlogged(form.to_correct if may_see else ""),
        read_out=read_out[:MAX_LEFT_OUT_SHOWN],
        more_read_out=len(read_out) - MAX_LEFT_OUT_SHOWN,
        state=state,
        waits=bool(stopped) or state.is_paused,
        balance=balance_words(state),
        warnings=list(_warnings(form, state, stopped, cost.warning, request.user)),
        most=conf.send_at_once(),
        hidden=[form[name] for name in form.fields if name != "file"],
    )


def _sender(form: ComposeForm) -> Any:
    return form.cleaned_data["sender"] or text_words.own_sender(form.cleaned_data["using"])


def _warnings(
    form: ComposeForm, state: Any, stopped: str, of_money: str, user: Any
) -> Iterator[str]:
    numbers = form.recipients.numbers
    if stopped:
        words = gettext("Nothing is sent through “%(name)s”: %(why)s.")
        yield words % {"name": state.alias, "why": stopped}
    elif state.is_paused:
        yield gettext("“%(name)s” is paused. %(why)s") % {
            "name": state.alias,
            "why": paused_words(state),
        }
    if not form.send_at_once and handover.lacks_sender(state):
        words = gettext(
            "No worker has been seen for “%(name)s” lately, so messages will stay queued. Ask your "
            "administrator to start sms_worker."
        )
        yield words % {"name": state.alias}
    if of_money:
        yield of_money
    if braces := text_words.warning_of_braces(form.instance.body):
        yield Unlogged(braces)
    if _just_sent(form, user):
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


def _just_sent(form: ComposeForm, user: Any) -> bool:
    """Return whether this text has just been written to one of the numbers, by any other form:
    what this form has stored it does not store again.

    Users who may not see every text and number could guess them here. For them only what they have
    written counts.
    """
    numbers = form.recipients.numbers[:MAX_NUMBERS_LOOKED_UP]
    same = rows().filter(
        to__in=numbers,
        body=form.instance.body,
        sensitive=False,  # or the warning would confirm what a user guesses
        created_at__gte=timezone.now() - timedelta(hours=1),
    )
    same = same.exclude(status__in=(Status.FAILED, Status.CANCELLED))
    if not (may_see_text(user) and may_see_number(user)):
        same = same.filter(created_by=user, resend_of=None)
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
    mailing = None
    saves = "_save" in request.POST
    if form.send_at_once and not saves:
        new = _store_drafts(form, request.user, failed)
        if new:
            model_admin.carry_out(request, SEND, new)
    else:
        outcome = SAVED if saves else _queued(form)
        try:
            new = _store_many(form, request.user, outcome)
        except (ValidationError, Error) as error:
            form.add_error(None, _why_not(error) if saves else _why_not_queued(error))
            return _write_page(request, model_admin, form)
        if new:
            mailing = rows(new[:1]).values_list("mailing", flat=True).first()
            words = _summary(model_admin, outcome, new, mailing)
            model_admin.message_user(request, words, outcome.level)
            model_admin.report_waits(request, new if outcome.waits else [])
    for words in failed:
        model_admin.message_user(request, words, messages.ERROR)
    if form.opted_out:
        words = ngettext(
            "%s number is on the do-not-send list and gets nothing.",
            "%s numbers are on the do-not-send list and get nothing.",
            len(form.opted_out),
        )
        model_admin.message_user(request, words % len(form.opted_out), messages.WARNING)
    if known := len(form.recipients.numbers) - len(new) - len(failed):
        words = ngettext(
            "%s message was already created when you submitted this form before and will not be "
            "sent again.",
            "%s messages were already created when you submitted this form before and will not be "
            "sent again.",
            known,
        )
        model_admin.message_user(request, words % known, messages.WARNING)
    if len(form.recipients.numbers) == len(new) == 1:
        return HttpResponseRedirect(model_admin.url("change", new[0]))
    return HttpResponseRedirect(_next_page(model_admin, mailing, saves=saves))


def _summary(model_admin: ActionAdmin, outcome: Outcome, new: list[int], mailing: Any) -> str:
    if mailing is None:
        return model_admin.summary(outcome, new)
    number = ngettext("%s message", "%s messages", len(new)) % len(new)
    return format_html("{}: {}. {}", outcome.what, number, outcome.why)


def _next_page(model_admin: ActionAdmin, mailing: Any, *, saves: bool) -> str:
    """Return the address of the mailing, or of the list."""
    if mailing is not None and model_admin.admin_site.is_registered(SmsMailing):
        site = model_admin.admin_site.name
        return reverse("admin:django_smska_smsmailing_change", args=[mailing], current_app=site)
    return f"{model_admin.url('changelist')}{'?status__exact=draft' if saves else ''}"


def _queued(form: ComposeForm) -> Outcome:
    at = form.cleaned_data["send_at"]
    return Outcome(gettext("Queued to be sent at %s") % _time(at)) if at else QUEUED


def _time(at: Any) -> str:
    return date_format(times.local(at), "SHORT_DATETIME_FORMAT")


def _store_drafts(form: ComposeForm, user: Any, failed: list[str]) -> list[int]:
    """Return the keys of the drafts to send, which no worker sends, and add a sentence to
    ``failed`` for each that failed."""
    drafts: list[SmsMessage] = []
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


def _store_many(form: ComposeForm, user: Any, outcome: Outcome) -> list[int]:
    """Return the keys of those that it has put into the queue, or of the drafts."""
    store = _store_drafts_in_bulk if outcome is SAVED else _store_in_bulk
    try:
        return store(form, user, outcome)
    except IntegrityError:  # the same form was submitted at the same moment
        return store(form, user, outcome)


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


def _named(error: SmsNotSent, message: SmsMessage) -> ValidationError:
    """Return the refusal of one message of many, with its number."""
    parts = {"number": mask(message.to), "why": error_words(error.text)}
    return ValidationError(gettext("Not sent to %(number)s. %(why)s") % parts)


def _store_drafts_in_bulk(form: ComposeForm, user: Any, outcome: Outcome) -> list[int]:
    every, drafts, mailing = form.messages(user), list[SmsMessage](), form.mailing(user)
    with transaction.atomic(using=write_db()):
        for start in range(0, len(every), BATCH_MESSAGES):
            batch = every[start : start + BATCH_MESSAGES]
            keys = [message.idempotency_key for message in batch]
            stored = rows().filter(idempotency_key__in=keys)
            known = set(stored.values_list("idempotency_key", flat=True))
            new = [message for message in batch if message.idempotency_key not in known]
            if mailing is not None and new and mailing.pk is None:
                mailing.save(using=write_db())
            for message in new:
                message.mailing = mailing
                message.prepare()
            rows().bulk_create(new)
            if mailing is not None and new:
                mailing_counts.add(mailing.pk, sum(message.segments for message in new))
            drafts += _left(batch)
        log(user, drafts, str(outcome))
    return [draft.pk for draft in drafts]


def _store_in_bulk(form: ComposeForm, user: Any, outcome: Outcome) -> list[int]:
    every = form.messages(user)
    with transaction.atomic(using=write_db()):
        stored = send_mass_sms(every, exempt=True, mailing=form.mailing(user))
        if stored.bad:  # all or nothing: a part was not requested
            index, error = stored.errors[0]
            raise _named(error, every[index]) if isinstance(error, SmsNotSent) else error
        new = [message for message in every if message.pk is not None]
        known = [message for message in every if message.pk is None]
        for start in range(0, len(known), BATCH_MESSAGES):
            left = _left(known[start : start + BATCH_MESSAGES])
            sending.enqueue(rows(message.pk for message in left))
            new += left
        log(user, new, str(outcome))
    return [message.pk for message in new]

"""Store what the page for writing has checked, and send it.

However often its form is submitted, each message is stored and sent once.
"""

from __future__ import annotations

import logging
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db import Error, IntegrityError, transaction
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from .. import mailing_counts, sending
from ..batch_update import per_row
from ..exceptions import SmsNotSent
from ..models import SmsMailing, SmsMessage, mailings, rows, write_db
from ..numbers import mask
from ..sms import send_mass_sms
from ..states import Status
from .action_views import BATCH_MESSAGES, ActionAdmin
from .actions import QUEUED, SEND, Outcome, log
from .compose_form import ComposeForm
from .compose_times import time_words
from .wording import error_words

logger = logging.getLogger(__name__)

SAVED = Outcome(
    _("Saved as draft"),
    _("Not sent until you choose “Send”."),
    history=_("Saved as draft."),
)


def store_and_send(
    request: HttpRequest, model_admin: ActionAdmin, form: ComposeForm
) -> HttpResponseRedirect:
    """Do what the form's button says, and return the page that shows it.

    :raises ValidationError: where nothing was stored, or it is not known; it says what to do
    """
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
            raise _why_not(error) if saves else _why_not_queued(error) from None
        if new:
            mailing = rows(new[:1]).values_list("mailing", flat=True).first()
            words = _summary(request, model_admin, outcome, new, mailing)
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


def _summary(
    request: HttpRequest, model_admin: ActionAdmin, outcome: Outcome, new: list[int], mailing: Any
) -> str:
    if mailing is None:
        return model_admin.summary(request, outcome, new)
    number = ngettext("%s message", "%s messages", len(new)) % len(new)
    return format_html("{}: {}. {}", outcome.what, number, outcome.why)


def _next_page(model_admin: ActionAdmin, mailing: Any, *, saves: bool) -> str:
    """Return the address of the mailing, or of the list."""
    if mailing is not None and model_admin.admin_site.is_registered(SmsMailing):
        site = model_admin.admin_site.name
        return reverse("admin:django_smska_smsmailing_change", args=[mailing], current_app=site)
    return f"{model_admin.url('changelist')}{'?status__exact=draft' if saves else ''}"


def _queued(form: ComposeForm) -> Outcome:
    at, plan = form.cleaned_data["send_at"], form.plan
    if plan.ends:
        return Outcome(gettext("Queued"), plan.outcome)
    if plan:
        words = gettext("Queued to be sent from %(first)s until %(last)s")
        return Outcome(words % plan.from_until)
    return Outcome(gettext("Queued to be sent at %s") % time_words(at)) if at else QUEUED


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


def _set_times(drafts: list[SmsMessage], asked: list[SmsMessage]) -> None:
    """Give stored drafts the times of the form, which may have been another one before."""
    by_key = {message.idempotency_key: message.send_after for message in asked}
    leaves = {draft.pk: by_key[draft.idempotency_key] for draft in drafts}
    if leaves:
        found = rows(leaves).filter(status=Status.DRAFT)
        found.update(send_after=per_row("send_after", leaves))


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
            batch = known[start : start + BATCH_MESSAGES]
            left = _left(batch)
            _set_times(left, batch)
            if form.at_any_hour:
                mailings({draft.mailing_id for draft in left} - {None}).update(at_any_hour=True)
            sending.enqueue(rows(message.pk for message in left))
            new += left
        log(user, new, str(outcome))
    return [message.pk for message in new]

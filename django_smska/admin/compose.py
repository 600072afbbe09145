"""The admin's page to write one text to one number or to thousands.

A second page shows the result of the check, and sends. Nothing is stored before that.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.contrib.admin.helpers import AdminForm
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from .. import circuit_breaker, conf, handover
from ..models import rows
from ..numbers import is_russian_mobile, mask
from ..states import Status
from . import clients, compose_previews, compose_store, copying, template_choice, text_words, trial
from .action_views import ActionAdmin
from .actions import MAX_ITEMS_SHOWN
from .compose_form import ComposeForm
from .forms import focus_on_error
from .money import cost_of
from .permissions import Unlogged, grouped, may_see_number, may_see_text
from .wording import balance_words, paused_words, stop_of

MAX_LEFT_OUT_SHOWN = 200  # the most skipped numbers that the page lists
MAX_NUMBERS_LOOKED_UP = 500  # the most numbers in the query for those that just got this text


@sensitive_variables()
@sensitive_post_parameters()
def compose(request: HttpRequest, *, model_admin: ActionAdmin) -> HttpResponse:
    """Answer GET by the form, its POST by what would be sent, and send or save by the POST from
    there."""
    if not model_admin.may_compose(request):
        raise PermissionDenied
    offers = may_see_number(request.user) and clients.is_set()
    sources = clients.Sources(request.user) if offers else None
    if request.method != "POST":
        copied = copying.filled(request, model_admin)
        copied |= template_choice.filled(request, model_admin)
        copied |= _chosen_group(request, model_admin, sources)
        return _write_page(request, model_admin, ComposeForm(initial=copied, sources=sources))
    if "_use_template" in request.POST:
        return _write_page(request, model_admin, template_choice.used(request, sources))
    form = ComposeForm(request.POST, request.FILES, sources=sources)
    corrected = form.corrections()
    if corrected is None and "_leave_out" in request.POST:
        corrected = form.without_incomplete()
    if corrected:
        corrected.pop("_send_at_night", None)  # it was said of other recipients
        form = ComposeForm(corrected, sources=sources)
    if not form.is_valid() or "_back" in request.POST:
        return _write_page(request, model_admin, form)
    sends = {"_send", "_send_at_night", "_save"} & request.POST.keys()
    if corrected or form.incomplete or not sends:
        return _check_page(request, model_admin, form)
    try:
        return compose_store.store_and_send(request, model_admin, form)
    except ValidationError as error:
        form.add_error(None, error)
        return _write_page(request, model_admin, form)


def _chosen_group(
    request: HttpRequest, model_admin: ActionAdmin, sources: clients.Sources | None
) -> dict[str, Any]:
    """Return the form's initial values for the group of the address."""
    if clients.GROUP not in request.GET:
        return {}
    key = request.GET[clients.GROUP]
    if sources is None or not key or key not in dict(sources.choices()):
        model_admin.message_user(request, gettext("The group was not found."), messages.ERROR)
        return {}
    return {clients.GROUP: key}


def _write_page(request: HttpRequest, model_admin: ActionAdmin, form: ComposeForm) -> HttpResponse:
    form.forget_column()
    template_choice.offer(form, request.user)
    for words in form.sources.problems if form.sources else ():
        model_admin.message_user(request, words, messages.WARNING)
    fieldsets = _fieldsets(form)
    focus_on_error(form, [name for _title, shown in fieldsets for name in shown["fields"]])
    return _page(
        request,
        model_admin,
        form,
        "compose",
        _("Write a message"),
        errors=form.errors,
        adminform=AdminForm(form, fieldsets, {}, model_admin=model_admin),
        back_url=model_admin.url("changelist"),
    )


def _fieldsets(form: ComposeForm) -> list[Any]:
    groups = [
        (_("Recipients"), ("numbers", "file", "column_letter", "group")),
        (_("Message"), ("template", "body", "sender", "using")),
        (_("When"), ("when", "send_at", "spread", "name")),
    ]
    # Some themes show the label of a hidden field.
    return [
        (
            title,
            {"fields": [one for one in names if one in form.fields and not form[one].is_hidden]},
        )
        for title, names in groups
    ]


def _check_page(request: HttpRequest, model_admin: ActionAdmin, form: ComposeForm) -> HttpResponse:
    found = form.recipients
    # Who may see no whole number could find one out here, by trying those that fit its mask.
    may_see = may_see_number(request.user)
    opted_out, numbers = (form.opted_out, found.numbers) if may_see else ([], form.given)
    incomplete = compose_previews.incomplete(form, request.user)
    left_out = sorted(
        [*found.bad, *found.doubled, *form.unreachable, *opted_out], key=lambda one: one.line
    )
    left_out = [*incomplete, *left_out]
    read_out = [one for one in found.read_out if may_see and one.number in found.lines]
    state = circuit_breaker.state_of(form.cleaned_data["using"])
    stopped = stop_of(state.alias)
    segments = sum(map(form.segments_for, numbers))
    cost = cost_of(state, segments)
    plan = form.plan if numbers == found.numbers else form.plan_of(numbers)
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
        **compose_previews.shown(form, numbers, _sender(form), request.user),
        incomplete=len(incomplete),
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
        trial=trial.answer(request, model_admin, form),
        waits=bool(stopped) or state.is_paused,
        balance=balance_words(state),
        plan=plan,
        warnings=[
            *([plan.words] if plan.words else []),
            *_warnings(form, numbers, state, stopped, cost.warning, request.user),
        ],
        most=conf.send_at_once(),
        hidden=[form[name] for name in form.fields if name != "file"],
    )


def _sender(form: ComposeForm) -> Any:
    return form.cleaned_data["sender"] or text_words.own_sender(form.cleaned_data["using"])


def _warnings(
    form: ComposeForm, numbers: list[str], state: Any, stopped: str, of_money: str, user: Any
) -> Iterator[str]:
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
    if _just_sent(form, user):
        yield gettext(
            "This text went to some of these numbers within the last hour. They would get it twice."
        )
    if others := [number for number in numbers if not is_russian_mobile(number)]:
        yield _others_words(others, user)


def _others_words(numbers: list[str], user: Any) -> str:
    """Return a warning that names what is not a Russian mobile number: a landline, or abroad."""
    shown = grouped if may_see_number(user) else mask
    more = ["…"] if len(numbers) > MAX_ITEMS_SHOWN else []
    words = ngettext(
        "%(number)s number is not a Russian mobile number: %(numbers)s. Not every provider sends "
        "to it.",
        "%(number)s numbers are not Russian mobile numbers: %(numbers)s. Not every provider sends "
        "to them.",
        len(numbers),
    )
    named = ", ".join([*map(shown, numbers[:MAX_ITEMS_SHOWN]), *more])
    return Unlogged(words % {"number": len(numbers), "numbers": named})


def _just_sent(form: ComposeForm, user: Any) -> bool:
    """Return whether one of the numbers has just got the same text, by any other form: what this
    form has stored it does not store again.

    Users who may not see every text and number could guess them here. For them only what they have
    written counts.
    """
    numbers = form.recipients.numbers[:MAX_NUMBERS_LOOKED_UP]
    texts = {number: form.stored_text_for(number) for number in numbers}
    same = rows().filter(
        to__in=numbers,
        body__in=set(texts.values()),
        sensitive=False,  # or the warning would confirm what a user guesses
        created_at__gte=timezone.now() - timedelta(hours=1),
    )
    same = same.exclude(status__in=(Status.FAILED, Status.CANCELLED))
    if not (may_see_text(user) and may_see_number(user)):
        same = same.filter(created_by=user, resend_of=None)
    same = same.exclude(idempotency_key__in=form.keys(numbers))
    same = same.exclude(idempotency_key__startswith=trial.prefix(user)).order_by()
    if form.filling is None:
        return same.exists()
    return any(texts[to] == body for to, body in same.values_list("to", "body").distinct())


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

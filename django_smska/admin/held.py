"""The admin's page about held messages: a person releases or cancels them, see ``held_queue``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.db.models import Min, QuerySet, Sum
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext, ngettext

from .. import circuit_breaker, clock, held_queue
from ..models import SmsMessage, write_db
from ..providers import providers
from .action_views import BATCH_MESSAGES, ActionAdmin
from .actions import CANCEL, MAX_KEYS, log
from .wording import nothing_sent_through

#: The same as the action, with the permission of this page.
CANCEL_HELD = replace(CANCEL, permission="release")


@dataclass(frozen=True)
class Hold:
    """What is held of one provider, as this user may see it.

    :param moment: what was due at this moment is held
    :param oldest: the time at which the first of them was due
    :param nothing_sent: that sending is stopped, and why; "" where it is not
    """

    alias: str
    moment: datetime
    number: int
    segments: int
    oldest: datetime
    nothing_sent: str

    @property
    def before(self) -> str:
        """The moment as the form carries it."""
        return self.moment.isoformat()


def answer(request: HttpRequest, model_admin: ActionAdmin) -> HttpResponse:
    """Answer GET by the numbers, and POST by the release or the cancelling of one provider's."""
    if request.method == "POST":
        alias = request.POST.get("alias", "")
        moment = held_queue.moments(providers).get(alias)
        if moment is None or moment.isoformat() != request.POST.get("before"):
            words = gettext("Nothing was done, because what is held has changed. Look at it again.")
            model_admin.message_user(request, words, messages.ERROR)
        elif "_release" in request.POST:
            _release(request, model_admin, alias, moment)
        elif "_cancel" in request.POST:
            _cancel(request, model_admin, alias)
        return HttpResponseRedirect(model_admin.url("held"))
    holds = [_hold(request, model_admin, *one) for one in held_queue.moments(providers).items()]
    return model_admin.page(
        request,
        "held",
        gettext("Held messages"),
        holds=[hold for hold in holds if hold is not None],
        action_url=model_admin.url("held"),
        list_url=model_admin.url("changelist"),
    )


def _held(request: HttpRequest, model_admin: ActionAdmin, alias: str) -> Any:
    seen: Any = model_admin.get_queryset(request).using(write_db()).filter(using=alias)
    return seen.held(clock.now(), alias)


def _hold(
    request: HttpRequest, model_admin: ActionAdmin, alias: str, moment: datetime
) -> Hold | None:
    held: QuerySet[SmsMessage] = _held(request, model_admin, alias).order_by()
    found = held.aggregate(segments=Sum("segments"), oldest=Min("send_after"))
    number = held.count()
    if not number:
        return None
    stop = nothing_sent_through(alias)
    return Hold(alias, moment, number, found["segments"], found["oldest"], stop)


def _release(request: HttpRequest, model_admin: ActionAdmin, alias: str, moment: datetime) -> None:
    if _held(request, model_admin, alias).count() < held_queue.number_held(alias):
        words = gettext("Nothing was released, because you may not see all that is held.")
        model_admin.message_user(request, words, messages.ERROR)
        return
    number = held_queue.release(alias, moment)
    words = ngettext(
        "%(number)s message of “%(name)s” is released.",
        "%(number)s messages of “%(name)s” are released.",
        number,
    )
    _report(request, model_admin, alias, words % {"number": number, "name": alias})


def _cancel(request: HttpRequest, model_admin: ActionAdmin, alias: str) -> None:
    """Cancel what is held, in batches, each with the histories of its messages."""
    held = _held(request, model_admin, alias).order_by("pk").values_list("pk", flat=True)
    number, last = 0, 0
    while number < MAX_KEYS and (keys := list(held.filter(pk__gt=last)[:BATCH_MESSAGES])):
        number += len(model_admin.hand_over_all(request, CANCEL_HELD, keys))
        last = keys[-1]
    words = ngettext(
        "%(number)s message of “%(name)s” is cancelled.",
        "%(number)s messages of “%(name)s” are cancelled.",
        number,
    )
    _report(request, model_admin, alias, words % {"number": number, "name": alias})


def _report(request: HttpRequest, model_admin: ActionAdmin, alias: str, words: str) -> None:
    model_admin.message_user(request, words, messages.SUCCESS)
    log(request.user, list(circuit_breaker.states_of([alias])), words)

"""The timeline of one message: what happened when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext, ngettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from ..models import SmsMessage
from ..states import FINAL, Status
from ..times import local
from .wording import MARKS, failure

LATER = timedelta(minutes=1)  # the time after its creation from which a message was put off


def badge(message: SmsMessage) -> str:
    """Return the status's label, with a mark in front."""
    mark = MARKS[Status(message.status)]
    words = message.get_status_display()
    return format_html('<span class="smska-status smska-{}">{}</span>', mark, words)


_SENT = ("sent_at", pgettext_lazy("SMS list", "sent %s"))
_SENDING = pgettext_lazy("SMS list", "being sent since %s")
#: The one time of each status that the list shows: its field, and the words with it.
_MOMENTS: dict[Status, tuple[str, Any]] = {
    Status.QUEUED: ("send_after", pgettext_lazy("SMS list", "waiting since %s")),
    Status.CLAIMED: ("claimed_at", _SENDING),
    Status.SENDING: ("sending_at", _SENDING),
    Status.SENT: _SENT,
    Status.DELIVERED: _SENT,
    Status.REJECTED: _SENT,
    Status.EXPIRED: _SENT,
    Status.DELETED: _SENT,
    Status.UNCONFIRMED: _SENT,
    Status.UNKNOWN: ("sending_at", pgettext_lazy("SMS list", "attempted %s")),
    Status.FAILED: ("finished_at", pgettext_lazy("SMS list", "failed %s")),
    Status.CANCELLED: ("finished_at", pgettext_lazy("SMS list", "cancelled %s")),
}
_WRITTEN = ("created_at", pgettext_lazy("SMS list", "written %s"))
_DUE = pgettext_lazy("SMS list", "due %s")


def when(message: SmsMessage) -> str:
    """Return the time that matters most in its status, with a word; the others are its title."""
    name, words = _MOMENTS.get(Status(message.status), _WRITTEN)
    at = getattr(message, name)
    if at is None:
        (name, words), at = _WRITTEN, message.created_at
    elif message.status == Status.QUEUED and at > timezone.now():
        words = _DUE
    shown = str(words) % _day_and_time(at)
    markup = '<time class="smska-when" datetime="{}" title="{}">{}</time>'
    return format_html(markup, local(at).isoformat(), _every_time(message), shown)


def _day_and_time(moment: datetime) -> str:
    """Return the time alone for today, and with a word for the days beside it."""
    at = local(moment)
    time = date_format(at, "TIME_FORMAT")
    days = (at.date() - local(timezone.now()).date()).days
    if days == 0:
        return time
    if days == -1:
        return gettext("yesterday %s") % time
    if days == 1:
        return gettext("tomorrow %s") % time
    return date_format(at, "SHORT_DATETIME_FORMAT")


def _every_time(message: SmsMessage) -> str:
    names = ["created_at", "sent_at", "finished_at"]
    if message.send_after > message.created_at + LATER:
        names.insert(1, "send_after")
    field: Any = message._meta.get_field
    known = [(field(name).verbose_name, getattr(message, name)) for name in names]
    return ", ".join(f"{words}: {_time(at)[1]}" for words, at in known if at is not None)


# --- what happened when ---------------------------------------------------------------------------


#: How the codes begin of messages whose last attempt was none: nothing was asked of the gateway.
_NOT_TRIED = ("expired", "paused", "stopped", "limit", "rate", "opted-out", "lease", "test")


@dataclass(frozen=True)
class Step:
    """A step in the life of a message.

    :param after: the time since the step before, as text, or a remark
    """

    what: str
    at: datetime
    after: str = ""


def steps(message: SmsMessage) -> list[Step]:
    """Return what has happened so far, in order."""
    found = [Step(_written(message), message.created_at)]
    if message.status == Status.DRAFT:
        return found
    if message.send_after > message.created_at + LATER:
        found.append(Step(gettext("To be sent from this time on"), message.send_after))
    if message.sending_at:
        found.append(
            Step(gettext("Request to the gateway began"), message.sending_at, _tries(message))
        )
    found += _attempt(message)
    if message.sent_at:
        accepted = gettext("Accepted by the gateway")
        remark = _since(message.sending_at, message.sent_at)
        if message.proof:
            row: Any = message  # Django adds the method
            remark = gettext("known by %(what)s") % {"what": row.get_proof_display()}
        found.append(Step(accepted, message.sent_at, remark))
    if message.finished_at and message.status in FINAL:
        since = message.sent_at or message.created_at
        what = message.get_status_display().capitalize()
        found.append(Step(what, message.finished_at, _since(since, message.finished_at)))
    if message.erased_at:
        found.append(Step(gettext("Number and text erased"), message.erased_at))
    return sorted(found, key=lambda step: step.at)


def _attempt(message: SmsMessage) -> list[Step]:
    """Return how the last attempt ended, where it was not accepted."""
    began = max(at for at in (message.sending_at, message.claimed_at, message.created_at) if at)
    if message.status == Status.UNKNOWN:
        return [Step(gettext("No clear answer from the gateway"), message.sending_at or began)]
    code = message.error_code
    ended = {Status.QUEUED: began, Status.FAILED: message.finished_at}.get(Status(message.status))
    if ended is None or not (message.attempts and code) or code.startswith(_NOT_TRIED):
        return []
    what = gettext("Attempt %s failed") % message.attempts
    return [Step(what, ended, str(failure(code).short))]


def _written(message: SmsMessage) -> str:
    if message.resend_of_id:
        words = gettext("Created by %(who)s to send message %(number)s again")
    else:
        words = gettext("Created by %(who)s")
    who = str(message.created_by or gettext("the site"))
    return words % {"who": who, "number": message.resend_of_id}


def _tries(message: SmsMessage) -> str:
    if message.attempts < 2:
        return ""
    return ngettext("%s attempt", "%s attempts", message.attempts) % message.attempts


def _since(start: datetime | None, end: datetime) -> str:
    if start is None or end < start:
        return ""
    passed = end - start
    return (
        gettext("after %s") % lasting(passed)
        if passed >= timedelta(seconds=1)
        else gettext("at once")
    )


def lasting(time: timedelta) -> str:
    """Return a time as its two largest parts: ``4 s``, ``2 min 5 s``, ``2 d 4 h``."""
    left = max(round(time.total_seconds()), 0)
    parts: list[tuple[int, str]] = []
    for size, words in ((86400, _("%s d")), (3600, _("%s h")), (60, _("%s min")), (1, _("%s s"))):
        number, left = divmod(left, size)
        parts.append((number, str(words)))
    first = next((i for i, part in enumerate(parts) if part[0]), len(parts) - 1)
    shown = [words % number for number, words in parts[first : first + 2] if number]
    return " ".join(shown) or parts[-1][1] % 0


def timeline(message: SmsMessage) -> str:
    """Return the steps as an HTML list, with the number of status queries."""
    found = [(*_time(step.at), step.what, step.after) for step in steps(message)]
    items = format_html_join(
        "", '<li><time datetime="{}">{}</time> <strong>{}</strong> <span>{}</span></li>', found
    )
    asked = _asked(message)
    more = format_html("<li><strong>{}</strong> <span>{}</span></li>", *asked) if asked else ""
    return format_html('<ol class="smska-timeline">{}{}</ol>', items, more)


def _asked(message: SmsMessage) -> tuple[str, str] | None:
    if message.status == Status.UNKNOWN and (message.status_queries or message.next_status_at):
        number = message.status_queries
        if not number:
            return gettext("The provider will be asked"), _next(message)
        words = ngettext("Provider asked %s time", "Provider asked %s times", number) % number
        return words, _next(message)
    if message.status != Status.SENT or not (message.sent_at and message.gateway_id):
        return None
    number = message.status_queries
    if not number:
        return gettext("Waiting for the delivery report"), _next(message)
    words = ngettext("Status checked %s time", "Status checked %s times", number)
    return words % number, _next(message)


def _next(message: SmsMessage) -> str:
    if not message.next_status_at:
        return ""
    return gettext("next: %s") % _time(message.next_status_at)[1]


def _time(at: datetime) -> tuple[str, str]:
    moment = local(at)
    return moment.isoformat(), date_format(moment, "SHORT_DATETIME_FORMAT")

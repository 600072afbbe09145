"""The timeline of one message: what happened when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from ..models import SmsMessage
from ..states import FINAL, Status
from ..times import local
from .wording import MARKS


def badge(message: SmsMessage) -> str:
    """Return the status's label, with a mark in front."""
    mark = MARKS[Status(message.status)]
    words = message.get_status_display()
    return format_html('<span class="smska-status smska-{}">{}</span>', mark, words)


def times(message: SmsMessage) -> str:
    """Return when it was written, accepted and finished, each day shown once."""
    found = [at for at in (message.created_at, message.sent_at, message.finished_at) if at]
    days = [local(at).date() for at in found]
    words = [
        date_format(local(at), "TIME_FORMAT" if day in days[:i] else "SHORT_DATETIME_FORMAT")
        for i, (at, day) in enumerate(zip(found, days, strict=True))
    ]
    items = format_html_join("", "<span>{}</span>", ((word,) for word in words))
    return format_html('<span class="smska-times">{}</span>', items)


# --- what happened when ---------------------------------------------------------------------------


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
    if message.send_after > message.created_at + timedelta(minutes=1):
        found.append(Step(gettext("To be sent from this time on"), message.send_after))
    if message.sending_at:
        found.append(
            Step(gettext("Request to the gateway began"), message.sending_at, _tries(message))
        )
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
    return gettext("after %s") % lasting(end - start) if start and end >= start else ""


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
        words = ngettext("Provider asked %s time", "Provider asked %s times", number) % number
        return words, _next(message)
    if message.status != Status.SENT or not (message.sent_at and message.gateway_id):
        return None
    number = message.status_queries
    words = ngettext("Status checked %s time", "Status checked %s times", number)
    return words % number, _next(message)


def _next(message: SmsMessage) -> str:
    if not message.next_status_at:
        return ""
    return gettext("next: %s") % _time(message.next_status_at)[1]


def _time(at: datetime) -> tuple[str, str]:
    moment = local(at)
    return moment.isoformat(), date_format(moment, "SHORT_DATETIME_FORMAT")

"""One message's life for people who read it: what happened when, and what to do now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from ..models import SmsMessage
from ..states import FINAL, Status

MARKS = {
    Status.DRAFT: "waiting",
    Status.QUEUED: "waiting",
    Status.CLAIMED: "moving",
    Status.SENDING: "moving",
    Status.SENT: "moving",
    Status.DELIVERED: "good",
    Status.UNCONFIRMED: "doubt",
    Status.UNKNOWN: "doubt",
    Status.CANCELLED: "over",
}


def badge(message: SmsMessage) -> str:
    """The status in words, with a mark in front."""
    mark = MARKS.get(Status(message.status), "bad")
    words = message.get_status_display()
    return format_html('<span class="smska-status smska-{}">{}</span>', mark, words)


def times(message: SmsMessage) -> str:
    """When it was written, taken and finished, each day told once."""
    found = [at for at in (message.created_at, message.sent_at, message.finished_at) if at]
    days = [_local(at).date() for at in found]
    words = [
        date_format(_local(at), "TIME_FORMAT" if day in days[:i] else "SHORT_DATETIME_FORMAT")
        for i, (at, day) in enumerate(zip(found, days, strict=True))
    ]
    items = format_html_join("", "<span>{}</span>", ((word,) for word in words))
    return format_html('<span class="smska-times">{}</span>', items)


# --- what happened when ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """``after``: the time since the step before, in words, or a remark."""

    what: str
    at: datetime
    after: str = ""


def steps(message: SmsMessage) -> list[Step]:
    """What has happened so far, in order."""
    found = [Step(_written(message), message.created_at)]
    if message.status == Status.DRAFT:
        return found
    if message.send_after > message.created_at + timedelta(minutes=1):
        found.append(Step(gettext("To be sent from this time on"), message.send_after))
    if message.sending_at:
        found.append(Step(gettext("Handed to the gateway"), message.sending_at, _tries(message)))
    if message.sent_at:
        taken = gettext("Taken by the gateway")
        found.append(Step(taken, message.sent_at, _since(message.sending_at, message.sent_at)))
    if message.finished_at and message.status in FINAL:
        since = message.sent_at or message.created_at
        what = message.get_status_display().capitalize()
        found.append(Step(what, message.finished_at, _since(since, message.finished_at)))
    return sorted(found, key=lambda step: step.at)


def _written(message: SmsMessage) -> str:
    if message.resend_of_id:
        words = gettext("Made by %(who)s, to send message %(number)s again")
    else:
        words = gettext("Written by %(who)s")
    who = str(message.created_by or gettext("the program"))
    return words % {"who": who, "number": message.resend_of_id}


def _tries(message: SmsMessage) -> str:
    if message.attempts < 2:
        return ""
    return ngettext("%s attempt", "%s attempts", message.attempts) % message.attempts


def _since(start: datetime | None, end: datetime) -> str:
    return gettext("after %s") % lasting(end - start) if start and end >= start else ""


def lasting(time: timedelta) -> str:
    """``4 s``, ``2 min 5 s``, ``3 h 20 min``, ``2 d 4 h``: the two largest parts."""
    left = max(round(time.total_seconds()), 0)
    parts = []
    for size, words in ((86400, _("%s d")), (3600, _("%s h")), (60, _("%s min")), (1, _("%s s"))):
        number, left = divmod(left, size)
        parts.append((number, str(words)))
    first = next((i for i, (number, words) in enumerate(parts) if number), len(parts) - 1)
    shown = [words % number for number, words in parts[first : first + 2] if number]
    return " ".join(shown) or parts[-1][1] % 0


def timeline(message: SmsMessage) -> str:
    """The steps as a list, and what is known of the status questions."""
    found = [(*_time(step.at), step.what, step.after) for step in steps(message)]
    items = format_html_join(
        "", '<li><time datetime="{}">{}</time> <strong>{}</strong> <span>{}</span></li>', found
    )
    asked = _asked(message)
    more = format_html("<li><strong>{}</strong> <span>{}</span></li>", *asked) if asked else ""
    return format_html('<ol class="smska-timeline">{}{}</ol>', items, more)


def _asked(message: SmsMessage) -> tuple[str, str] | None:
    if message.status != Status.SENT or not (message.sent_at and message.gateway_id):
        return None
    number = message.status_questions
    words = ngettext(
        "Asked %s time whether it arrived", "Asked %s times whether it arrived", number
    )
    if not message.next_status_at:
        return words % number, ""
    return words % number, gettext("next: %s") % _time(message.next_status_at)[1]


def _time(at: datetime) -> tuple[str, str]:
    local = _local(at)
    return local.isoformat(), date_format(local, "SHORT_DATETIME_FORMAT")


def _local(at: datetime) -> datetime:
    return timezone.localtime(at) if timezone.is_aware(at) else at


# --- what to do now -------------------------------------------------------------------------------

_LOGIN = _("The gateway refuses our login. Tell your administrator; then choose “Send again”.")
_BUSY = _("The gateway was out of order or too busy. Choose “Send again” a little later.")
_NUMBER = _("The gateway does not take this number. Check it, and write a new message.")
_AWAY = _(
    "The gateway could not be reached. Choose “Send again” later; if that fails, too, tell your "
    "administrator."
)
_STOPPED = _(
    "The program stopped or failed before it was sent. Choose “Send again”; if this happens often, "
    "tell your administrator."
)
#: By the error's code or its beginning: those of the provider's document, and our own.
FAILURES: dict[str, Any] = {
    "-1": _LOGIN,
    "-2": _("This sender name belongs to somebody else. Write a new message with another one."),
    "-3": _BUSY,
    "-4": _("The gateway did not understand the request. Tell your administrator."),
    "-5": _("The account had too few credits. Top it up, then choose “Send again”."),
    "-6": _NUMBER,
    "-7": _("This sender name is not allowed. Have it registered, or write with another one."),
    "http-401": _LOGIN,
    "http-403": _LOGIN,
    "http-429": _BUSY,
    "rate": _BUSY,
    "number": _NUMBER,
    "text": _("It has characters that cannot be sent. Write a new message without them."),
    **dict.fromkeys(("http", "connect", "deadline", "hung-up", "spoke-first"), _AWAY),
    **dict.fromkeys(("lease", "database", "transaction", "crash", "provider"), _STOPPED),
    "paused": _(
        "The provider was paused. Choose “Send again” when it works again; its page tells why it "
        "was paused."
    ),
    "expired": _(
        "It waited for too long and was not sent. If it is still wanted, choose “Send again”. If "
        "this happens often, tell your administrator that sms_worker may not be running."
    ),
    "": _(
        "It was surely not sent. Choose “Send again”; if that fails, too, tell your administrator "
        "what the gateway said."
    ),
}
_NO_ID = _(
    "It counts as sent, and there is no id with which the gateway could be asked whether it "
    "arrived. If it is important, ask the recipient."
)


def by_code(words: Mapping[str, Any], code: str) -> Any:
    """The words for an error's code, for its beginning (``http`` of ``http-404``), or for all."""
    return words.get(code) or words.get(code.partition("-")[0]) or words[""]


ADVICE: dict[Status, Any] = {
    Status.DRAFT: _("It is not sent before you choose “Save and send” or “Send”."),
    Status.QUEUED: _("It waits for its turn. There is nothing to do."),
    Status.CLAIMED: _("It is being sent right now."),
    Status.SENDING: _("It is being sent right now."),
    Status.SENT: _("The gateway has taken it and is delivering it. The status comes by itself."),
    Status.DELIVERED: _("It has arrived. There is nothing to do."),
    Status.REJECTED: _(
        "The recipient's network refused it. Check the number, and reach them some other way."
    ),
    Status.EXPIRED: _(
        "The phone could not be reached for too long. Reach them some other way, or choose “Send "
        "again”."
    ),
    Status.DELETED: _("The gateway removed it before it arrived. Ask the provider why."),
    Status.UNCONFIRMED: _(
        "The gateway took it and never told whether it arrived. Most such messages do. If it is "
        "important, ask the recipient."
    ),
    Status.CANCELLED: _("It was cancelled and never sent."),
    Status.UNKNOWN: _(
        "The connection broke after the request had begun, so nobody knows whether the gateway "
        "took this message, and it cannot be asked. Ask the recipient, or look at the list of "
        "messages in your account at the gateway, at about the time at “Handed to the gateway”. "
        "Then choose “It was sent” or “Send again”. If it was taken after all, the recipient gets "
        "a second one, and you pay twice."
    ),
}


_ANOTHERS = _("Somebody who may decide about messages must look at this one.")
_SENT_AGAIN = _(
    "It was sent again as a new message. If you learn that this one was taken, too, choose “It was "
    "sent”."
)


def advice(message: SmsMessage, *, may_decide: bool = True) -> str:
    """What a person should do about it now, in plain words; ``may_decide``: about unknown ones."""
    if message.status == Status.FAILED:
        return str(by_code(FAILURES, message.error_code))
    if message.status == Status.UNKNOWN and not may_decide:
        return str(_ANOTHERS)
    if message.status == Status.UNKNOWN and hasattr(message, "resent_as"):
        return str(_SENT_AGAIN)
    if message.status == Status.SENT and not message.gateway_id:
        return str(_NO_ID)
    return str(ADVICE[Status(message.status)])

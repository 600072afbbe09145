"""What a person should do about one message, as its page says it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.utils.formats import date_format
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .. import clock, handover, held_queue, kill_switch, sending
from ..checked_backend import traits
from ..circuit_breaker import state_of
from ..models import REPORTED, SmsMessage
from ..states import Status
from ..times import local
from . import resending, waiting
from .wording import error_words, failure, undelivered


class Rights(NamedTuple):
    """What the reader may do.

    :param decide: about *unknown* messages, and send again
    :param send: drafts
    :param edit: this draft
    :param write: new messages, on the page for that
    :param release: what is held
    """

    decide: bool = True
    send: bool = True
    edit: bool = True
    write: bool = True
    release: bool = True


ALL_RIGHTS = Rights()


_NO_ID = _(
    "It counts as sent. The gateway gave no ID, so it cannot be asked whether the message "
    "arrived. If it is important, ask the recipient."
)
ADVICE: dict[Status, Any] = {
    Status.DRAFT: _("It is not sent until you choose “Save and send”."),
    Status.QUEUED: _("It is waiting for its turn. There is nothing to do."),
    Status.CLAIMED: _("It is about to be sent."),
    Status.SENDING: _("It is being sent right now."),
    Status.SENT: _(
        "The gateway has accepted it and is delivering it. The status will update automatically."
    ),
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
        "The gateway accepted it and never reported whether it arrived. Most such messages do "
        "arrive. If it is important, ask the recipient."
    ),
    Status.CANCELLED: _("It was cancelled and never sent."),
    Status.UNKNOWN: _(
        "No clear answer came from the gateway. It may or may not have accepted this message, and "
        "it cannot be asked. Ask the recipient, or look at the list of messages in your account at "
        "the gateway, at about the time of “Request to the gateway began”. Then choose “Mark as "
        "sent” or “Send again”. If you send it again and it was accepted after all, the recipient "
        "gets a second message, and you pay twice."
    ),
}


_IS_ASKED = _(
    "No clear answer came from the gateway. The provider is asked at %(time)s whether it has "
    "accepted this message. Wait for that before you decide."
)
_ASKED_IN_VAIN = _(
    "No clear answer came from the gateway, and the provider was asked in vain about this "
    "message. That is no proof that it was not accepted. Ask the recipient, or look at the list "
    "of messages in your account at the provider, at about the time of “Request to the gateway "
    "began”. Then choose “Mark as sent” or “Send again”. If you send it again and it was accepted "
    "after all, the recipient gets a second message, and you pay twice."
)
_MAY_BE_REPORTED = _(
    "No clear answer came from the gateway. If it accepted this message, it reports that, usually "
    "within minutes, and the status will update automatically. Wait for that before you decide. If "
    "no report comes, that is no proof that the message was not accepted. Then ask the recipient, "
    "or look for it in the records of the provider, at about the time of “Request to the gateway "
    "began”, and choose “Mark as sent” or “Send again”. If you send it again and it was accepted "
    "after all, the recipient gets a second message, and you pay twice."
)
_MAY_NOT_DECIDE = _("A colleague with the permission to resend must decide about this message.")
_SENT_AGAIN = _(
    "It was sent again as a new message. If you learn that this one was accepted, too, choose "
    "“Mark as sent”."
)

_DRAFT_AS_IT_IS = _("It is not sent until you choose “Send”.")
_DRAFT_OF_MAILING = _(
    "It is a draft of the mailing “%(name)s”. It is sent when that goes on, or when a person sends "
    "it alone. If it is not to be sent, cancel it."
)
_STOPPED = _("It is waiting, because its mailing “%(name)s” is stopped.")
_DRAFT_OF_OTHERS = _("It is not sent until a colleague with the permission to send does that.")

_WAITS = _("It is waiting, because sending is stopped. It is sent when a person resumes it.")
_HELD = _(
    "It is held, because no worker was seen for a long time. Choose “Held messages…” above the "
    "list, and release or cancel it."
)
_HELD_FOR_OTHERS = _(
    "It is held, because no worker was seen for a long time. A colleague with the permission to "
    "release held messages must decide about it."
)
_IS_WAITING = _("It is waiting.")
_LEAVES = _("It leaves at %(time)s on %(date)s.")
_IS_DUE = _("It is to be sent at %(time)s on %(date)s.")
_IS_TRIED_AGAIN = _("The last attempt failed. %(why)s. At %(time)s it is tried again.")
_NOT_SENT_AFTER = _("If it is still waiting at %(time)s on %(date)s, it is not sent any more.")
_IS_TOO_LATE = _(
    "It waited too long: it was to be sent before %(time)s on %(date)s, and is not sent any more. "
    "The next worker that runs marks it as failed. If this happens often, ask your administrator."
)
_HAS_NO_SENDER = _(
    "The process that was to send it has stopped or hangs. The next worker that runs corrects the "
    "status. If it stays as it is, ask your administrator whether sms_worker is running."
)
_IS_NOT_UPDATED = _(
    "The gateway has accepted it and is delivering it. At present the status is not updated. "
    "Choose “Refresh status”, or ask your administrator whether sms_worker is running."
)
_NO_REPORTS = _(
    "It counts as sent. This provider does not report whether a message arrived. If it is "
    "important, ask the recipient."
)
_COLLEAGUE_RESENDS = _("%(why)s. A colleague with the permission to resend can send it again.")
_COLLEAGUE_WRITES = _("%(why)s. A colleague who may send messages can write a correct one.")
_NOT_AGAIN = _("%(why)s. It cannot be sent again as it is.")
_WAS_SENT_AGAIN = _("%(why)s. It was sent again as a new message.")
_OPTED_OUT = _(
    "It was cancelled and never sent, because its number is on the do-not-send list. If the "
    "recipient wants messages again, remove the number from the list, and write a new message."
)

#: Where the text is stored no more, so that it cannot be sent again.
_WITHOUT_TEXT: dict[Status, Any] = {
    Status.FAILED: _("It was not sent."),
    Status.EXPIRED: _("The phone could not be reached for too long."),
    Status.UNKNOWN: _(
        "No clear answer came from the gateway. If you learn that the message was accepted, "
        "choose “Mark as sent”."
    ),
}

LATE_QUESTION = timedelta(minutes=5)  # after which a question that is due will not be asked soon


def advice(message: SmsMessage, rights: Rights = ALL_RIGHTS) -> str:
    """Return what a person should do about it now.

    :param rights: of that person
    """
    if message.status == Status.DRAFT:
        return _of_draft(message, rights)
    if message.status in _WITHOUT_TEXT and (why := sending.lost_text(message)):
        return f"{_WITHOUT_TEXT[Status(message.status)]} {gettext(why)}"
    if sending.was_opted_out(message):
        return str(_OPTED_OUT)
    if message.status == Status.CANCELLED and message.error_code == REPORTED:
        return error_words(message.error_text)
    if message.status == Status.QUEUED:
        return _of_queued(message, may_release=rights.release)
    if message.status == Status.UNKNOWN:
        return _of_unknown(message, may_decide=rights.decide)
    if message.status in (Status.FAILED, Status.EXPIRED):
        return _of_undelivered(message, rights)
    if message.status == Status.SENT:
        return _of_sent(message)
    if _is_past_lease(message):
        return str(_HAS_NO_SENDER)
    return str(ADVICE[Status(message.status)])


def _of_draft(message: SmsMessage, rights: Rights) -> str:
    if message.mailing is not None:
        return str(_DRAFT_OF_MAILING) % {"name": message.mailing.name}
    if not rights.send:
        return str(_DRAFT_OF_OTHERS)
    return str(ADVICE[Status.DRAFT] if rights.edit else _DRAFT_AS_IT_IS)


def _of_queued(message: SmsMessage, *, may_release: bool) -> str:
    """Return why it waits and until when, or when it leaves; only where none of this is known to
    be of importance, there is nothing to do."""
    if message.expires_at is not None and message.expires_at <= clock.now():
        return str(_IS_TOO_LATE) % _date_and_time(message.expires_at)
    is_due = message.send_after <= clock.now()
    if message.mailing is not None and message.mailing.stopped_at is not None:
        found = [str(_STOPPED) % {"name": message.mailing.name}]
    elif kill_switch.stopped([message.using]):
        found = [str(_WAITS)]
    elif held_queue.is_held(message):
        found = [str(_HELD if may_release else _HELD_FOR_OTHERS)]
    elif why := waiting.of_message(message):
        when = str(_IS_DUE) % _date_and_time(message.send_after)
        found = [str(_IS_WAITING) if is_due or message.attempts else when, why]
    else:
        return str(ADVICE[Status.QUEUED]) if is_due else _of_later(message)
    until = message.expires_at and str(_NOT_SENT_AFTER) % _date_and_time(message.expires_at)
    return " ".join([*found, until or ""]).strip()


def _of_later(message: SmsMessage) -> str:
    at = _date_and_time(message.send_after)
    if message.attempts and message.error_code:
        return str(_IS_TRIED_AGAIN) % {**at, "why": failure(message.error_code).short}
    return str(_LEAVES) % at


def _date_and_time(moment: datetime) -> dict[str, str]:
    at = local(moment)
    return {"date": date_format(at, "DATE_FORMAT"), "time": date_format(at, "TIME_FORMAT")}


def _of_unknown(message: SmsMessage, *, may_decide: bool) -> str:
    if may_decide and hasattr(message, "resent_as"):
        return str(_SENT_AGAIN)
    if may_decide and sending.is_proved(message):
        return gettext(sending.PROVED)
    if (at := _next_question(message)) is not None:
        return str(_IS_ASKED) % {"time": date_format(local(at), "TIME_FORMAT")}
    if not may_decide:
        return str(_MAY_NOT_DECIDE)
    words = _MAY_BE_REPORTED if traits(message.using).proving else ADVICE[Status.UNKNOWN]
    found = _ASKED_IN_VAIN if message.status_queries else words
    return f"{found} {resending.obstacle(message)}".strip()


def _of_undelivered(message: SmsMessage, rights: Rights) -> str:
    """Return what to do after a failure or a phone that could not be reached; no button that the
    reader does not have."""
    found = failure(message.error_code)
    is_failed = message.status == Status.FAILED
    why = {"why": undelivered(message.status, message.error_code)}
    if hasattr(message, "resent_as"):
        return str(_WAS_SENT_AGAIN) % why
    if is_failed and not found.resend_helps and not rights.write:
        return str(_COLLEAGUE_WRITES) % why
    if (found.resend_helps or not is_failed) and not rights.decide:
        return str(_COLLEAGUE_RESENDS) % why
    if found.resend_helps and resending.lacks_sender(message):
        return f"{str(_NOT_AGAIN) % why} {resending.obstacle(message)}"
    return str(found.advice if is_failed else ADVICE[Status.EXPIRED])


def _of_sent(message: SmsMessage) -> str:
    known = traits(message.using)
    if not message.gateway_id and not known.pushed:
        return str(_NO_ID)
    if not (known.polled or known.pushed):
        return str(_NO_REPORTS)
    query_at = message.next_status_at
    is_late = query_at is not None and query_at <= clock.now() - LATE_QUESTION
    stands = not known.pushed and (is_late or handover.lacks_sender(state_of(message.using)))
    return str(_IS_NOT_UPDATED if stands else ADVICE[Status.SENT])


def _is_past_lease(message: SmsMessage) -> bool:
    held = message.status in (Status.CLAIMED, Status.SENDING)
    return held and message.lease_until is not None and message.lease_until <= clock.now()


def _next_question(message: SmsMessage) -> datetime | None:
    """Return when a worker asks the provider for an *unknown* message; ``None`` also where no
    worker runs, or the provider is paused."""
    at = message.next_status_at if message.status == Status.UNKNOWN else None
    return at if at is not None and at > clock.now() - LATE_QUESTION else None

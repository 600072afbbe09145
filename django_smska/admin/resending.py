"""What speaks against sending messages, or sending them again, and what to know before it: in
words, for each way to the action."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from django.utils.formats import date_format
from django.utils.translation import gettext, ngettext

from .. import allowed_senders, sending
from ..models import SmsMessageQuerySet, rows
from ..states import Status
from ..times import local
from .wording import failure


def fails_again(message: Any) -> bool:
    """Return whether the same text to the same number would fail for the same reason."""
    return message.status == Status.FAILED and not failure(message.error_code).resend_helps


def lacks_sender(message: Any) -> bool:
    """Return whether its sender is none that its provider may use (any more)."""
    return not allowed_senders.is_allowed(message.sender, message.using)


def obstacles_of_drafts(messages: Sequence[Any]) -> dict[int, str]:
    """Return by key why these drafts are not sent.

    :param messages: or rows with their fields
    """
    advice = gettext("Choose another one on its page.")
    return {
        message.pk: f"{_no_sender(message.sender, message.using)} {advice}"
        for message in messages
        if message.status == Status.DRAFT and lacks_sender(message)
    }


def obstacle_of_mailing(messages: SmsMessageQuerySet) -> str:
    """Return why these messages of a mailing are not sent, or sent again; "" where they may be."""
    # They have few senders, but each program may give each message its own.
    for sender, using in messages.order_by().values_list("sender", "using").distinct():
        if not allowed_senders.is_allowed(sender, using):
            advice = gettext("Or write a new mailing with another one, and cancel what waits.")
            return f"{_no_sender(sender, using)} {_allow()} {advice}"
    return ""


def _no_sender(sender: str, using: str) -> str:
    words = gettext("The sender “%(sender)s” is none of those that “%(name)s” may use.")
    return words % {"sender": sender, "name": using}


def _allow() -> str:
    return gettext('Ask your administrator to add it to OPTIONS["senders"].')


def obstacles(messages: Sequence[Any]) -> dict[int, str]:
    """Return by key why these messages are not sent again.

    :param messages: or rows with their fields
    """
    again = rows().filter(resend_of__in=[message.pk for message in messages])
    resent = set(again.values_list("resend_of_id", flat=True))
    found = {
        message.pk: gettext("It was sent again already.")
        if message.pk in resent
        else obstacle(message)
        for message in messages
    }
    return {key: why for key, why in found.items() if why}


def obstacle(message: Any) -> str:
    """Return why this message is not sent again; "" where it may be."""
    if message.status not in sending.RESENDABLE:
        return ""  # the action's statuses say so
    if why := sending.lost_text(message):
        return gettext(why)
    if sending.is_proved(message):
        return gettext(sending.PROVED)
    if lacks_sender(message):
        advice = gettext("Choose “Copy to a new message” on its page, and another sender there.")
        return f"{_no_sender(message.sender, message.using)} {advice}"
    if not fails_again(message):
        return ""
    words = gettext("%(why)s. It would fail again. Choose “Copy to a new message” on its page.")
    return words % {"why": failure(message.error_code).short}


def warnings(messages: Sequence[Any]) -> list[str]:
    """Return what to know of the first copies, before these messages are sent again."""
    statuses = Counter(message.status for message in messages)
    number = statuses[Status.UNKNOWN]
    unknown = ngettext(
        "%(number)s message may have arrived, because no clear answer came from the gateway. If "
        "it did, the recipient gets it twice, and you pay twice. Make sure that it did not arrive.",
        "%(number)s messages may have arrived, because no clear answer came from the gateway. If "
        "they did, the recipients get them twice, and you pay twice. Make sure that they did not "
        "arrive.",
        number,
    )
    found = [unknown % {"number": number}] if number else []
    if delivered := [one for one in messages if one.status == Status.DELIVERED]:
        found.append(_of_delivered(delivered))
    if number := statuses[Status.UNCONFIRMED]:
        words = ngettext(
            "%(number)s message was accepted by the gateway, and may have arrived. If it did, the "
            "recipient gets it twice. You pay twice.",
            "%(number)s messages were accepted by the gateway, and may have arrived. If they did, "
            "the recipients get them twice. You pay twice.",
            number,
        )
        found.append(words % {"number": number})
    return found


def _of_delivered(messages: Sequence[Any]) -> str:
    if len(messages) == 1 and (at := _finished(messages[0])):
        words = gettext(
            "1 message has already been delivered (%(time)s). Its recipient gets it a second time, "
            "and you pay twice."
        )
        return words % {"time": at}
    words = ngettext(
        "%(number)s message has already been delivered. Its recipient gets it a second time, and "
        "you pay twice.",
        "%(number)s messages have already been delivered. Their recipients get them a second "
        "time, and you pay twice.",
        len(messages),
    )
    return words % {"number": len(messages)}


def notes(messages: Iterable[Any]) -> dict[int, str]:
    """Return by key what stands beside a message in a list of those that are sent again."""
    return {one.pk: " ".join(filter(None, [_status(one), _finished(one)])) for one in messages}


def _status(message: Any) -> str:
    if message.status == Status.UNKNOWN:
        return gettext("unknown whether it arrived")
    return str(Status(message.status).label)


def _finished(message: Any) -> str:
    at = message.finished_at
    return date_format(local(at), "SHORT_DATETIME_FORMAT") if at is not None else ""

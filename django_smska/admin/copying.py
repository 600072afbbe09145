"""The form for writing, filled from a message, as far as this user may see it."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.http import HttpRequest
from django.utils.translation import gettext

from ..models import SmsMessage
from ..providers import providers
from ..states import Status
from . import resending
from .action_views import ActionAdmin
from .actions import read_keys
from .permissions import may_see_number, may_see_text, placeholder

COPY = "copy"  # the parameter with the key of the message: no address shows a number or a text
#: Statuses of messages that still go to their recipients.
_ON_ITS_WAY = (Status.QUEUED, Status.CLAIMED, Status.SENDING, Status.SENT)


def address(model_admin: ActionAdmin, message: SmsMessage) -> str:
    return f"{model_admin.url('compose')}?{COPY}={message.pk}"


def filled(request: HttpRequest, model_admin: ActionAdmin) -> dict[str, Any]:
    """Return the form's initial values, and say what is not among them."""
    if COPY not in request.GET:
        return {}
    keys = read_keys(request.GET[COPY])
    message = model_admin.get_queryset(request).filter(pk__in=keys[:1]).first()
    if message is None or not model_admin.has_view_permission(request, message):
        model_admin.message_user(
            request, gettext("The message to copy was not found."), messages.ERROR
        )
        return {}
    found = _values(request.user, message)
    for words in _warnings(message, found):
        model_admin.message_user(request, words, messages.WARNING)
    return found


def _values(user: Any, message: SmsMessage) -> dict[str, Any]:
    found: dict[str, Any] = {"sender": message.sender}
    if message.using in providers:
        found["using"] = message.using
    if may_see_text(user) and not placeholder(message):
        found["body"] = message.body
    if may_see_number(user) and message.erased_at is None:
        found["numbers"] = message.to
    return found


def _warnings(message: SmsMessage, found: dict[str, Any]) -> list[str]:
    words = resending.warnings([message])
    if message.status in _ON_ITS_WAY:
        words.append(gettext("The first message is still sent: this copy does not replace it."))
    if "body" not in found:
        words.append(
            gettext("The text was not copied, because it is sensitive, erased or hidden from you.")
        )
    if "numbers" not in found:
        words.append(gettext("The number was not copied, because it is erased or hidden from you."))
    return words

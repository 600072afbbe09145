"""The admin's page after a draft was edited that is none any more. What was written is on it, so
that it can be copied, and what another user has done in the meantime."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import router
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..models import SmsMessage, rows
from . import timeline
from .action_views import ActionAdmin
from .actions import read_keys
from .compose_form import new_nonce
from .guard import history_words
from .permissions import Unlogged

#: The fields of the draft's form that the form for a new message has, too, by their names there.
_CARRIED = {"numbers": "to", "body": "body", "sender": "sender", "using": "using"}


def page(request: HttpRequest, model_admin: ActionAdmin, object_id: str) -> HttpResponse:
    """Answer the POST of a draft's form with what was in it."""
    message = rows(read_keys(object_id)).first()
    may_write = model_admin.has_add_permission(request) and model_admin.may(request, "send")
    carried = {name: Unlogged(request.POST.get(own, "")) for name, own in _CARRIED.items()}
    shown = model_admin.page(
        request,
        "lost_edits",
        _("Your changes were not saved"),
        badge=timeline.badge(message) if message else "",
        entry=_last_entry(request, model_admin, message, object_id),
        text=carried["body"],
        number=carried["numbers"],
        carried=[*carried.items(), ("nonce", new_nonce())] if may_write else [],
        action_url=model_admin.url("compose"),
        back_url=model_admin.url("change", object_id) if message else "",
        list_url=model_admin.url("changelist"),
    )
    shown.status_code = HTTPStatus.CONFLICT
    return shown


def _last_entry(
    request: HttpRequest, model_admin: ActionAdmin, message: SmsMessage | None, object_id: str
) -> dict[str, Any] | None:
    """Return the newest entry of the message's history: who, when and what."""
    content_type = ContentType.objects.get_for_model(SmsMessage)
    entries = LogEntry.objects.using(router.db_for_write(LogEntry))
    entries = entries.filter(content_type=content_type, object_id=object_id)
    entry = entries.select_related("user").order_by("-pk").first()
    if entry is None:
        return None
    words = model_admin.seen_words(request.user, message, history_words(entry))
    what = gettext("Deleted.") if entry.is_deletion() else words
    return {"who": entry.user.get_username(), "when": entry.action_time, "what": what}

"""Who did what with a message last, as the admin's log knows it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import router, transaction
from django.utils.formats import date_format
from django.utils.translation import gettext

from .. import log_fields
from ..models import SmsMessage
from ..times import local
from .permissions import external_text_for

logger = logging.getLogger(__name__)


def last_actions(user: Any, messages: Sequence[SmsMessage]) -> dict[str, list[int]]:
    """Return by sentence the keys of those of these messages that had an action in the admin.

    :param user: who reads it
    """
    entries = _entries([message.pk for message in messages])
    groups: dict[tuple[str, str], list[int]] = {}
    times: dict[tuple[str, str], Any] = {}
    for message in messages:
        if (entry := entries.get(str(message.pk))) is not None:
            said = external_text_for(user, message, entry.change_message)
            group = (str(entry.user), said)
            groups.setdefault(group, []).append(message.pk)
            times[group] = max(entry.action_time, times.get(group, entry.action_time))
    return {_sentence(*group, times[group]): keys for group, keys in groups.items()}


def _sentence(who: str, said: str, at: Any) -> str:
    parts = {"who": who, "what": said, "time": date_format(local(at), "SHORT_DATETIME_FORMAT")}
    return gettext("Last action: %(what)s (%(who)s, %(time)s)") % parts


def _entries(pks: list[int]) -> dict[str, LogEntry]:
    """Return by key the last entry that an action has written. A log that cannot be read must not
    keep the outcome of an action from being shown."""
    try:
        with transaction.atomic(using=router.db_for_read(LogEntry)):
            of_messages = LogEntry.objects.filter(
                content_type=ContentType.objects.get_for_model(SmsMessage),
                object_id__in=[str(pk) for pk in pks],
                action_flag=CHANGE,
            )
            # Django's own entries, of edits, are JSON.
            done = of_messages.exclude(change_message__startswith="[")
            return {str(one.object_id): one for one in done.select_related("user").order_by("pk")}
    except Exception as error:
        name = type(error).__name__
        extra = log_fields.of_messages(pks, "", name)
        logger.error("the histories of messages cannot be read: %s", name, extra=extra)
        return {}

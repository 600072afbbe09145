"""Whose eyes are for which part of a message: its text and its whole number are permissions."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext

from .models import SmsMessage
from .numbers import mask


def may_see_text(user: Any) -> bool:
    return bool(user.has_perm("django_smska.see_text_smsmessage"))


def may_see_number(user: Any) -> bool:
    return bool(user.has_perm("django_smska.see_number_smsmessage"))


def number_for(user: Any, message: SmsMessage) -> str:
    """The recipient's number, masked for those who may not see it."""
    return str(message.to) if may_see_number(user) else mask(str(message.to))


def text_for(user: Any, message: SmsMessage) -> str:
    """The message's text, or a word in its place for those who may not see it."""
    return str(message.body) if may_see_text(user) else gettext("(hidden)")

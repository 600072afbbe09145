"""The sender IDs that a provider's account may use, where its option ``senders`` lists them."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.translation import gettext_lazy as _

from .checked_backend import CheckedBackend
from .exceptions import InvalidProvider
from .providers import providers

#: By alias. To make a backend for each message costs too much.
_allowed: dict[str, tuple[str, ...] | None] = {}


@receiver(setting_changed)  # in tests
def _forget(**kwargs: Any) -> None:
    _allowed.clear()


def of(alias: str) -> tuple[str, ...] | None:
    """Return the senders that messages of this provider may name, its own first; ``None`` for any.
    In a test run, too, the settings say so."""
    if alias not in _allowed:
        try:
            _allowed[alias] = CheckedBackend(alias, providers.configured(alias)).allowed_senders
        except InvalidProvider:  # who sends through it is refused for that
            return None
    return _allowed[alias]


def is_allowed(sender: str, alias: str) -> bool:
    """Return whether the provider's account may use this sender. A message may always leave its
    sender to the provider."""
    allowed = of(alias)
    return not sender or allowed is None or sender in allowed


def require(sender: str, alias: str) -> None:
    """Raise ``ValidationError`` for a sender that the provider's account may not use."""
    allowed = of(alias)
    if allowed is None or is_allowed(sender, alias):
        return
    if allowed:
        words = _("The sender must be one of these: %(names)s. Or leave it empty.")
    else:
        words = _("The providers of this one have no sender in common. Leave it empty.")
    raise ValidationError(
        {"sender": ValidationError(words, code="sender", params={"names": ", ".join(allowed)})}
    )

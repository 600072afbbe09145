"""The stand-in gateway in the place of the project's provider, for the time of a test."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from django.test import override_settings

from django_smska.providers import DEFAULT_ALIAS, DEFAULT_BACKEND, providers
from django_smska.senders import can_be_shown

from .account import Accepted
from .gateway import StandInGateway

LOCMEM = "django_smska.backends.locmem.SmsBackend"
CONNECT_SECONDS, DEADLINE_SECONDS = 2, 5  # on loopback nothing honest is slower

#: The gateways in use, with their aliases, the oldest first.
in_use: list[tuple[str, StandInGateway]] = []


@contextmanager
def use_stand_in_gateway(
    using: str = DEFAULT_ALIAS,
    *,
    options: dict[str, Any] | None = None,
    **gateway: Any,
) -> Generator[StandInGateway]:
    """Send the messages of one alias to a stand-in gateway on a free port of loopback.

    Every other alias keeps its messages in memory, so that none reaches its real provider. A
    transaction must not be open: a backend with a network sends after the commit.

    :param using: the alias; it need not be in ``SMS_PROVIDERS``
    :param options: further OPTIONS of the smska backend, such as ``{"deadline": 0.5}``
    :param gateway: as with :class:`~django_smska.testing.gateway.StandInGateway`
    """
    with StandInGateway(**gateway) as stand_in:
        entry = {
            "BACKEND": DEFAULT_BACKEND,
            "OPTIONS": {
                "api_key": stand_in.api_key,
                "api_password": stand_in.api_password,
                "sender_id": _sender_id(using),
                "url": stand_in.url,
                "connect_timeout": CONNECT_SECONDS,
                "deadline": DEADLINE_SECONDS,
                **(options or {}),
            },
        }
        entries = {**{alias: {"BACKEND": LOCMEM} for alias in providers}, using: entry}
        with override_settings(SMS_PROVIDERS=entries, SMSKA_LOCMEM_IN_TESTS=False):
            in_use.append((using, stand_in))
            try:
                yield stand_in
            finally:
                in_use.remove((using, stand_in))


def accepted() -> list[tuple[str, Accepted]]:
    """Return what the gateways in use have accepted, each with its alias."""
    return [(alias, entry) for alias, gateway in in_use for entry in gateway.accepted]


def _sender_id(alias: str) -> str:
    """Return the project's own sender ID, where a phone can show it."""
    value: Any = providers.settings.get(alias)
    entry: dict[str, Any] = {**value} if isinstance(value, dict) else {}
    options: dict[str, Any] = entry.get("OPTIONS") or {}
    sender = options.get("sender_id")
    return sender if isinstance(sender, str) and can_be_shown(sender) else "Test"

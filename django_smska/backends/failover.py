"""Tries several providers in turn, as long as the message was surely not taken."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from ..exceptions import GatewayUnreachable, InvalidProvider, SmsNotSent, gettext_noop
from ..receipts import Receipt
from ..states import PAUSES, STOPPING_KINDS
from .base import BaseSmsBackend

#: When an ailing provider may be tried again, by alias, for all instances in this process:
#: repeated wrong logins lock accounts.
_resting: dict[str, float] = {}


class SmsBackend(BaseSmsBackend):
    """OPTIONS: ``providers``, aliases of ``SMS_PROVIDERS`` in the order to try them.

    The next one is tried after a refusal that concerns the provider (wrong login, no credits, not
    reached) or the moment (-3), never after an unknown outcome. The message's ``using`` becomes
    the alias that took it, and that one is asked for its report.
    """

    announces_first_byte = True

    def __init__(
        self, *, providers: Sequence[str] = (), alias: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(alias=alias, **kwargs)
        if isinstance(providers, str) or not providers or alias in providers:
            raise InvalidProvider(
                "OPTIONS must define 'providers', a list of other aliases to try in turn.",
                alias=alias,
            )
        _refuse_unknown(alias, providers)
        self.backends = [_configured(name) for name in providers]
        self.deadline = sum(backend.deadline for backend in self.backends)
        self._opened = ExitStack()

    def open(self) -> bool:
        opened = [backend for backend in self.backends if backend.open()]
        for backend in opened:
            self._opened.callback(backend.close)
        return bool(opened)

    def close(self) -> None:
        self._opened.close()

    def send_message(self, message: Any) -> Receipt:
        error: SmsNotSent = GatewayUnreachable(
            gettext_noop("None of the providers can be tried just now. Nothing was sent."),
            alias=self.alias,
        )
        for backend in self.backends:
            if _resting.get(str(backend.alias), 0) > time.monotonic():
                continue
            try:
                return self._send(backend, message)
            except SmsNotSent as refusal:
                if refusal.kind not in STOPPING_KINDS | {"temporary"}:
                    raise
                error = refusal
                _rest(str(backend.alias), refusal.kind)
        raise error.with_traceback(None)

    def _send(self, backend: BaseSmsBackend, message: Any) -> Receipt:
        if not backend.announces_first_byte:
            self.before_first_byte(message)
        return replace(backend.send_message(message), alias=str(backend.alias))


def _rest(alias: str, kind: str) -> None:
    if kind in PAUSES:
        _resting[alias] = time.monotonic() + PAUSES[kind]


def _refuse_unknown(alias: str | None, names: Sequence[str]) -> None:
    from ..providers import providers

    unknown = [name for name in names if not isinstance(name, str) or name not in providers]
    if unknown:
        raise InvalidProvider(
            f"'providers' in its OPTIONS names {', '.join(map(repr, unknown))}: SMS_PROVIDERS has "
            f"no such entry. Known aliases: {', '.join(map(repr, providers))}.",
            alias=alias,
            hint="Add the entry to SMS_PROVIDERS, or correct 'providers'.",
            check="E001",
        )


def _configured(alias: str) -> BaseSmsBackend:
    from ..providers import providers  # the handler makes backends, this one makes some of its own

    if _backend_of(providers.settings.get(alias)) == f"{__name__}.SmsBackend":
        raise InvalidProvider("A failover cannot be one of another's 'providers'.", alias=alias)
    return providers.configured(alias)


def _backend_of(entry: Any) -> Any:
    return entry.get("BACKEND") if isinstance(entry, dict) else None

"""Try several providers in turn, as long as the message was definitely not accepted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from django.core.checks import CheckMessage, Warning

from .. import log_fields
from ..exceptions import (
    ErrorKind,
    GatewayUnreachable,
    InvalidProvider,
    SmsError,
    SmsNotSent,
    gettext_noop,
)
from ..receipts import Receipt, Report
from ..states import STOPPING_KINDS, WAITING_KINDS
from .base import BaseSmsBackend

if TYPE_CHECKING:
    from ..checked_backend import CheckedBackend

logger = logging.getLogger(__name__)

#: Errors after which the next provider may accept the message.
KINDS_FOR_THE_NEXT = WAITING_KINDS | {ErrorKind.TEMPORARY}
NONE_OPEN = gettext_noop("None of the providers can be tried just now. Nothing was sent.")


class SmsBackend(BaseSmsBackend):
    """Try several providers in turn, as long as the message was definitely not accepted.

    :param providers: aliases of ``SMS_PROVIDERS`` in the order to try them; required

    The next one is tried after an error about the provider (wrong login, no credits, not reached)
    or a temporary one (-3), never after an unknown outcome. The message's ``using`` becomes the
    alias that accepted it, and that one is queried for its report.

    Its ``rate`` and ``most_at_once`` are the lowest of its members', since any of them may get
    every message. So its ``senders``, where it has none itself, are those that all members with
    such a list have in common.

    ``skipped`` holds the aliases that are not tried until :meth:`close`: those that the engine
    knows as paused, and those that refused for a reason that concerns the provider.
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
        self.members = [_member(name) for name in providers]
        self.deadline = sum(member.deadline for member in self.members)
        self.rate = min(self._rates(), default=None)
        self.most_at_once = min(
            (one.most_at_once for one in self.members if one.most_at_once), default=None
        )
        self.prefixes = self._prefixes()
        self.skipped: set[str] = set()
        self._is_open = False

    def open(self) -> bool:
        """Open the members that may be tried; one that cannot be opened fails at its turn."""
        if self._is_open:
            return False
        self._is_open = True
        for member in self._open_members():
            with suppress(SmsError):
                member.open()
        return True

    def close(self) -> None:
        self._is_open = False
        self.skipped = set()
        for member in self.members:
            member.close()

    def send_message(self, message: Any) -> Receipt:
        error: SmsError = GatewayUnreachable(NONE_OPEN, alias=self.alias, code="paused")
        refused: list[SmsError] = []
        for member in self._open_members():
            if member.alias in self.skipped:  # another thread has found that out in the meantime
                continue
            outcome = self._send(member, message)
            if isinstance(outcome, Receipt):
                return replace(outcome, alias=member.alias, refused=tuple(refused))
            if isinstance(outcome, _PassedOver):
                continue
            error = outcome
            if not (isinstance(error, SmsNotSent) and error.kind in KINDS_FOR_THE_NEXT):
                break
            words = "failover %s: not accepted by %s: %s"
            extra = log_fields.of_message(message, error.code, alias=member.alias)
            logger.warning(words, self.alias, member.alias, error, extra=extra)
            if error.kind in STOPPING_KINDS:
                self.skipped.add(member.alias)
            refused.append(error)
        error.refused = tuple(one for one in refused if one is not error)
        error.retry_in = max(one.retry_in for one in (error, *refused))
        raise error.with_traceback(None)

    def find(self, message: Any) -> Report | None:
        """Ask the members in turn, for a message whose process stopped during its request."""
        silent: SmsError | None = None
        for member in self.members:
            try:
                found = member.find(message) if member.can_be_asked else None
            except SmsError as error:  # another one may know it
                silent = error
                continue
            if found is not None:
                return replace(found, alias=member.alias)
        if silent is not None:
            raise silent.with_traceback(None)
        return None

    def check(self) -> list[CheckMessage]:
        """Warn where a member is slower than another one, so that it slows down all."""
        if self.rate is None or {member.rate for member in self.members} == {self.rate}:
            return []
        faster = [member.alias for member in self.members if member.rate != self.rate]
        return [
            Warning(
                f"SMS_PROVIDERS[{self.alias!r}] sends at most {self.rate:.3g} messages a second, "
                f"the lowest 'rate' of its members. It could send more through "
                f"{', '.join(map(repr, faster))}.",
                hint="Give its members the same 'rate', or leave the slow ones out of 'providers'.",
                id="smska.W021",
            )
        ]

    def _rates(self) -> list[float]:
        return [member.rate for member in self.members if member.rate is not None]

    def _prefixes(self) -> tuple[str, ...]:
        """Return those of all members; none where one of them sends to all numbers."""
        every = [member.prefixes for member in self.members]
        return tuple(chain.from_iterable(every)) if all(every) else ()

    def _open_members(self) -> list[CheckedBackend]:
        return [member for member in self.members if member.alias not in self.skipped]

    def _send(self, member: CheckedBackend, message: Any) -> Receipt | SmsError:
        """Send through this member, unless it was stopped or paused while it connected, or while
        it waited for the permission."""
        announce = getattr(message, "before_first_byte", None)
        look = getattr(message, "look_for_stops", None)

        def begin() -> None:
            for step in (announce, look):
                if step is not None:
                    step()
            if member.alias in self.skipped:
                raise _PassedOver(alias=member.alias)

        message.before_first_byte = begin
        try:
            member.open()
            return member.send_message(message)
        except SmsError as error:
            return error.with_traceback(None)
        finally:
            message.before_first_byte = announce


class _PassedOver(SmsNotSent):
    """A member may not be tried any more, and its request has not begun."""


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


def _member(alias: str) -> CheckedBackend:
    # Not at the top: the handler imports backends, and this backend needs the handler.
    from ..checked_backend import CheckedBackend, unusable
    from ..providers import providers

    if _backend_of(providers.settings.get(alias)) == f"{__name__}.SmsBackend":
        raise InvalidProvider("A failover cannot be one of another's 'providers'.", alias=alias)
    try:
        return CheckedBackend(alias, providers.configured(alias))
    except InvalidProvider as error:  # the system check reports it; the others can still send
        return unusable(alias, error)


def _backend_of(entry: Any) -> Any:
    options: Any = entry
    return options.get("BACKEND") if isinstance(entry, dict) else None

"""What the contract test asks of each provider's counterpart."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from django.http import HttpRequest

from django_smska.exceptions import SmsNotSent

from .standin import Standin, Taking


class Counterpart(Standin):
    """A provider's stand-in, and what is known of its backend."""

    #: The dotted path of the backend's module.
    backend: ClassVar[str]
    #: What its backend can do beside sending: some of ``balance``, ``status`` (it is polled for
    #: reports), ``find``, ``reports`` and ``inbound`` (both are pushed).
    can: ClassVar[frozenset[str]] = frozenset()
    #: Whether a receipt has the provider's id.
    gives_ids: ClassVar[bool] = True
    #: What its answers mean that definitely refuse a message.
    refusals: ClassVar[list[tuple[type[SmsNotSent], bytes]]] = []
    #: The login that is right: none of it may be shown.
    secrets: ClassVar[tuple[str, ...]] = ()
    #: The provider's words of reports, by what they mean.
    statuses: ClassVar[dict[str, str]] = {}

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Return OPTIONS with which the backend reaches this stand-in."""

    @abstractmethod
    def wrong_login(self) -> dict[str, Any]:
        """Return what to change in them, so that the login is wrong."""

    # --- only of one that can do it

    def set_status(self, taking: Taking, word: str) -> None:
        """Let queries of this message be answered so, by one of the words of ``statuses``."""
        raise NotImplementedError

    def report(self, taking: Taking, word: str) -> HttpRequest:
        """Return the request by which the provider pushes a report, as it reaches a view."""
        raise NotImplementedError

    def forged(self, request: HttpRequest) -> list[HttpRequest]:
        """Return requests like this one that are not the provider's; none where all that
        authenticates it is the secret in the address."""
        return []

    def inbound(self, sender: str, to: str, body: str, the_id: str) -> HttpRequest:
        """Return the request by which the provider pushes a phone's message."""
        raise NotImplementedError

"""What a backend answers: plain values, without Django."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class Receipt:
    """The gateway accepted the message.

    :param gateway_id: the gateway's id, empty where it gave none that can be used: then no report
        can be polled
    :param balance: credits after the message as the gateway reported them, for display only,
        because answers overtake each other
    :param alias: the provider that accepted it, where that is not the requested one (failover)
    :param refused: the errors of the providers that were tried before it
    """

    gateway_id: str = ""
    balance: Decimal | None = None
    alias: str = ""
    refused: tuple[Exception, ...] = ()


@dataclass(frozen=True)
class Report:
    """A delivery report.

    :param status: one of ``sent``, ``delivered``, ``rejected``, ``expired``, ``deleted``, or empty
        where the gateway's text is not understood: then nothing changes
    :param raw: number and word as the gateway sent them, ``"4|DELIVRD"``
    """

    status: str = ""
    raw: str = ""

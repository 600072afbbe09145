"""What a backend answers: plain values, without Django."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum

#: What a balance counts, where that is no currency. Money is in the currency of the account, which
#: the prices have, too.
CREDITS, MONEY = "credits", "money"


@dataclass(frozen=True)
class Receipt:
    """The gateway accepted the message.

    :param gateway_id: the gateway's id, empty where it gave none that can be used: then no report
        can be polled
    :param balance: credits after the message as the gateway reported them, for display only,
        because answers overtake each other
    :param alias: the provider that accepted it, where that is not the requested one (failover)
    :param refused: the errors of the providers that were tried before it
    :param price: what it costs, where the provider says so
    :param currency: of the price, three letters (ISO 4217)
    :param segments: that the provider charges for
    """

    gateway_id: str = ""
    balance: Decimal | None = None
    alias: str = ""
    refused: tuple[Exception, ...] = ()
    price: Decimal | None = None
    currency: str = ""
    segments: int | None = None


@dataclass(frozen=True)
class Report:
    """A delivery report, polled or pushed, or the answer to :meth:`find`.

    :param status: one of ``sent``, ``delivered``, ``rejected``, ``expired``, ``deleted``, or empty
        where the gateway's text is not understood: then nothing changes
    :param raw: number and word as the gateway sent them, ``"4|DELIVRD"``
    :param gateway_id: of a pushed report, and of what was found: the gateway's id
    :param reference: of a pushed report: our own, where the gateway returns it
    :param price: what it costs, where the provider says so
    :param currency: of the price, three letters (ISO 4217)
    :param segments: that the provider charges for
    :param alias: the provider that knows the message, where that is not the requested one
        (failover)
    """

    status: str = ""
    raw: str = ""
    gateway_id: str = ""
    reference: str = ""
    price: Decimal | None = None
    currency: str = ""
    segments: int | None = None
    alias: str = ""


@dataclass(frozen=True)
class Inbound:
    """A message that a phone sent to a number of ours. Its ``repr`` has neither number nor text.

    :param sender: the phone's number, with a plus where the provider leaves it out
    :param to: our number or short code
    :param gateway_id: the provider's id, by which a repeated delivery is recognized
    """

    sender: str = field(repr=False)
    to: str
    body: str = field(repr=False)
    gateway_id: str = ""


class Evidence(str, Enum):
    """What a provider can prove about a message whose outcome is unknown, from the strongest to the
    weakest. All of it can prove that a message was accepted; only ``CERTAIN`` also that it was not.
    """

    CERTAIN = "certain"  # it can be asked by our reference, and "not found" is a proof
    ASKED = "asked"  # it can be asked by our reference
    REPORTED = "told"  # its pushed reports carry our reference
    SEARCHED = "searched"  # it can be searched by number, text and time
    MUTE = "mute"  # nothing: a person decides

    def __str__(self) -> str:  # as of a StrEnum, which Python 3.10 has not
        return str(self.value)

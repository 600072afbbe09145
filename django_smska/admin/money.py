"""What sending costs, and what of the balance is left, for the page before it."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from django.utils.translation import gettext, ngettext

from .. import conf, pricing
from ..conf import Price
from ..models import ProviderState
from .wording import amount

CENT, MILLIONTH = Decimal("0.01"), Decimal("0.000001")


class Cost(NamedTuple):
    """What is said about the money, in words; each is empty where it is not known.

    :ivar total: what all of it costs
    :ivar each: what a segment costs, and how that is known
    :ivar left: what is left of the balance
    :ivar warning: that the balance does not suffice, or may not
    """

    total: str = ""
    each: str = ""
    left: str = ""
    warning: str = ""


def cost_of(state: ProviderState, segments: int) -> Cost:
    """Return what so many segments cost through this provider."""
    if not segments:
        return Cost()
    price, balance = pricing.price_of_segment(state.alias), pricing.balance_of(state)
    unit = pricing.unit_of_balance(state.alias)
    cost = Cost()
    if price is not None:
        cost = Cost(_about(price.amount * segments, price.unit), _each(state.alias, price))
    if balance is None:
        return cost
    if price is None or not unit or price.unit != unit:
        return cost._replace(warning=_warning_by_number(balance, unit, segments))
    left = balance - price.amount * segments
    if left < 0:
        return cost._replace(warning=_warning(-left, unit))
    words = gettext("%(amount)s, if nothing else is sent")
    return cost._replace(left=words % {"amount": _about(left, unit)})


def total_of(alias: str, segments: int) -> str:
    """Return in words what so many segments cost through this provider, or ""."""
    price = pricing.price_of_segment(alias) if alias and segments else None
    return "" if price is None else _about(price.amount * segments, price.unit)


def _about(number: Decimal, unit: str) -> str:
    return gettext("about %s") % amount(_rounded(number), unit)


def _rounded(number: Decimal) -> Decimal:
    return number.quantize(CENT if number >= 1 else MILLIONTH)


def _each(alias: str, price: Price) -> str:
    words = gettext("%s for each segment, on average of the newest messages")
    if alias in conf.prices():
        words = gettext("%s for each segment")
    return words % amount(_rounded(price.amount), price.unit)


def _warning(missing: Decimal, unit: str) -> str:
    words = gettext(
        "The balance does not suffice. The account lacks %s. Top it up first. When it is empty, "
        "sending pauses until you do."
    )
    return words % _about(missing, unit)


def _warning_by_number(balance: Decimal, unit: str, segments: int) -> str:
    """Return a warning where balance and price cannot be compared: by the numbers alone."""
    if balance >= segments:
        return ""
    words = ngettext(
        "This is %(number)s segment, and the balance is %(balance)s. That may not be enough.",
        "These are %(number)s segments, and the balance is %(balance)s. That may not be enough.",
        segments,
    )
    return words % {"number": segments, "balance": amount(balance, unit)}

"""What a segment costs, and what a balance counts.

Balances are shown, and nothing is charged by them: under load they come out of order.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from . import checked_backend, conf
from .conf import Price
from .models import ProviderState, rows
from .receipts import MONEY
from .states import Status

NEWEST_MESSAGES = 50  # of each status, whose prices count


def price_of_segment(alias: str) -> Price | None:
    """Return what a segment costs through this provider: by the settings, or else by what it said
    of its newest messages; ``None`` where neither is known."""
    return conf.prices().get(alias) or _charged(alias)


def unit_of_balance(alias: str) -> str:
    """Return what this provider's balance counts: ``"credits"``, a currency, ``"money"`` where the
    currency is not known, or "" where nothing is.

    The currency of an account is that of its charges. A price in the settings may be in another.
    """
    unit = checked_backend.balance_unit(alias)
    charged = _charged(alias) if unit == MONEY else None
    return charged.unit if charged and charged.unit else unit


def balance_of(state: ProviderState) -> Decimal | None:
    """Return the balance that this provider reported last."""
    known = state.balance_at is not None and checked_backend.has_balance(state.alias)
    return state.balance if known else None


def _charged(alias: str) -> Price | None:
    """Return the mean price of a segment in the currency that was charged last."""
    found = [row for status in (Status.SENT, Status.DELIVERED) for row in _newest(alias, status)]
    priced = [row for row in found if row.price is not None]
    if not priced:
        return None
    unit = max(priced, key=lambda row: row.pk).currency
    same = [row for row in priced if row.currency == unit]
    segments = sum(_segments(row) for row in same)
    total: Decimal = sum((row.price for row in same), Decimal(0))
    return Price(total / segments, unit) if segments else None


def _newest(alias: str, status: Status) -> Any:
    """Return the newest messages, priced or not: an index has them in this order."""
    of_provider = rows().filter(status=status, using=alias).order_by("-send_after")
    wanted = ("pk", "price", "currency", "segments", "billed_segments")
    return of_provider.values_list(*wanted, named=True)[:NEWEST_MESSAGES]


def _segments(row: Any) -> int:
    counted: int = row.segments if row.billed_segments is None else row.billed_segments
    return counted

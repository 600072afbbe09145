"""Keep messages in a list, for test runs."""

from __future__ import annotations

import copy
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ..receipts import CREDITS, Receipt, Report
from .base import BaseSmsBackend

if TYPE_CHECKING:
    from ..models import SmsMessage

#: The messages "sent" in this process: ``django_smska.sms.outbox`` is this list.
outbox: list[SmsMessage] = []


class SmsBackend(BaseSmsBackend):
    """Append a copy of each message to ``django_smska.sms.outbox``.

    Its reports say that every message is delivered, and its balance is 1000 credits.
    """

    uses_network = False
    balance_unit = CREDITS

    def send_message(self, message: SmsMessage) -> Receipt:
        outbox.append(copy.copy(message))
        return Receipt(gateway_id=f"locmem-{len(outbox)}")

    def get_status(self, message: SmsMessage) -> Report:
        return Report("delivered", "4|DELIVRD")

    def get_balance(self) -> Decimal:
        return Decimal(1000)


def in_test_run(alias: str) -> SmsBackend:
    """Return the backend of every alias in a test run; the outbox is emptied before each test.

    Django's runner has no hook for that, so the first message of the run patches ``TestCase.run``.
    (Under pytest the plugin also empties it, because not every test there is a ``TestCase``.)
    """
    from unittest import TestCase  # not at start-up: only test runs need it

    run = TestCase.run
    if not hasattr(run, "empties_the_outbox"):

        def run_with_empty_outbox(self: TestCase, result: Any = None) -> Any:
            outbox.clear()
            return run(self, result)

        run_with_empty_outbox.empties_the_outbox = True  # type: ignore[attr-defined]
        TestCase.run = run_with_empty_outbox  # type: ignore[method-assign]
    return SmsBackend(alias=alias)

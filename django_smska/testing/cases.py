"""What a ``TestCase`` needs for SMS."""

from __future__ import annotations

import unittest
from typing import TYPE_CHECKING

from django_smska.backends.locmem import outbox

from .assertions import assert_no_sms_sent, assert_sms_queued, assert_sms_sent

if TYPE_CHECKING:
    from django_smska.models import SmsMessage

    _Base = unittest.TestCase
else:
    _Base = object


class SmsTestMixin(_Base):
    """Put it before the ``TestCase``: ``class OrderReady(SmsTestMixin, TestCase)``.

    The outbox is empty at the start of each test, whatever ``setUp`` does.
    """

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        outbox.clear()
        return super().run(result)

    @property
    def sms_outbox(self) -> list[SmsMessage]:
        """The messages that this test has "sent": ``django_smska.sms.outbox``."""
        return outbox

    #: As :func:`~django_smska.testing.assertions.assert_sms_sent`.
    assertSMSSent = staticmethod(assert_sms_sent)
    #: As :func:`~django_smska.testing.assertions.assert_no_sms_sent`.
    assertNoSMSSent = staticmethod(assert_no_sms_sent)
    #: As :func:`~django_smska.testing.assertions.assert_sms_queued`.
    assertSMSQueued = staticmethod(assert_sms_queued)

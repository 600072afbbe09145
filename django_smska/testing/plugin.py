"""The pytest plugin: an outbox that is empty at the start of each test, ``smsoutbox``, a gateway
that misbehaves on demand, ``sms_gateway``, and processes that tests start send no SMS, either.

It imports nothing of Django before a test runs: pytest loads plugins before coverage starts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from django_smska.models import SmsMessage

    from .gateway import StandInGateway

TEST_RUN = "SMSKA_TEST_RUN"  # as in django_smska.conf


def pytest_configure(config: pytest.Config) -> None:
    before = os.environ.get(TEST_RUN)
    os.environ[TEST_RUN] = "1"
    config.add_cleanup(lambda: _restore(before))


def _restore(before: str | None) -> None:
    if before is None:
        os.environ.pop(TEST_RUN, None)
    else:
        os.environ[TEST_RUN] = before


@pytest.fixture(autouse=True)
def _empty_smsoutbox() -> Iterator[None]:
    locmem = sys.modules.get("django_smska.backends.locmem")
    if locmem is not None:
        locmem.outbox.clear()
    yield


@pytest.fixture
def smsoutbox(_empty_smsoutbox: None) -> list[SmsMessage]:
    """Return the messages that this test has "sent": ``django_smska.sms.outbox``."""
    from django_smska.backends.locmem import outbox

    return outbox


@pytest.fixture
def sms_gateway(transactional_db: None, _empty_smsoutbox: None) -> Iterator[StandInGateway]:
    """Yield a stand-in gateway to which the alias ``default`` sends in this test.

    It needs pytest-django's ``transactional_db``: a backend with a network sends after a commit.
    """
    from .stand_in import use_stand_in_gateway

    with use_stand_in_gateway() as gateway:
        yield gateway

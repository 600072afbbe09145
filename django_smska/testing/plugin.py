"""The pytest plugin: an outbox that is empty at the start of each test, and ``smsoutbox``.

It imports nothing of Django before a test runs: pytest loads plugins before coverage starts.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _empty_smsoutbox() -> Iterator[None]:
    locmem = sys.modules.get("django_smska.backends.locmem")
    if locmem is not None:
        locmem.outbox.clear()
    yield


@pytest.fixture
def smsoutbox(_empty_smsoutbox: None) -> list[Any]:
    """The messages that this test has "sent": ``django_smska.sms.outbox``."""
    from django_smska.backends.locmem import outbox

    return outbox

"""The process's monotonic clock, by which the package measures every wait and deadline.

Tests that freeze time must not stop it, or the deadline of a gateway that hangs would never pass.
freezegun replaces ``time.monotonic`` wherever it finds it, also as a name in another module.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

#: Return seconds from an unknown start.
now: Callable[[], float] = partial(time.monotonic)
if hasattr(time, "clock_gettime"):
    # This module may be loaded while time is frozen, and freezegun leaves this function alone.
    now = partial(time.clock_gettime, time.CLOCK_MONOTONIC)

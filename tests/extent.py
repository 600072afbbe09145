"""How much of a wide table is tested: by default a sample, and with ``SMSKA_REQUIRE_ALL`` set to 1
each entry. CI does that in one run, of the tables whose entries differ most.
"""

import os

ALL = os.environ.get("SMSKA_REQUIRE_ALL", "") == "1"


def sample(entries, every, start=0):
    """Return each ``every``-th of the entries, beginning at ``start`` modulo ``every``, or all."""
    entries = list(entries)
    return entries if ALL else entries[start % every :: every]

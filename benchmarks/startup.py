"""How much later ``manage.py check`` ends with the app installed, and what the app imports for it.

Both run in turns, each in a new process with compiled modules; the median of the pairs'
differences counts.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile

import common

LIMIT = 30  # ms
CHECK = """
import sys
from django.conf import settings
from tests import settings as base
values = {name: getattr(base, name) for name in dir(base) if name.isupper()}
if sys.argv.pop(1) == "without":
    values["INSTALLED_APPS"] = [app for app in base.INSTALLED_APPS if app != "django_smska"]
    del values["SMS_PROVIDERS"]
settings.configure(**values)
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "check"])
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def check(which: str, caches: str) -> tuple[float, float, set[str]]:
    """Milliseconds by the clock and of the processor, and the packages that were imported."""
    env = {**os.environ, "PYTHONPYCACHEPREFIX": caches, "PYTHONDONTWRITEBYTECODE": ""}
    before, output = processor(), []

    def run() -> None:
        command = [sys.executable, "-c", CHECK, which]
        output.append(subprocess.check_output(command, cwd=common.ROOT, env=env, text=True))

    clock = common.seconds(run)
    busy = processor() - before
    return clock * 1000, busy * 1000, set(output[0].splitlines()[-1].split())


def processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(runs: int, caches: str) -> None:
    kinds = ["without", "with"]
    clocks: dict[str, list[float]] = {kind: [] for kind in kinds}
    busy: dict[str, list[float]] = {kind: [] for kind in kinds}
    packages: dict[str, set[str]] = {}
    for turn in range(-1, runs):
        for kind in kinds if turn % 2 else reversed(kinds):
            seconds, worked, packages[kind] = check(kind, caches)
            if turn >= 0:  # the first only compiles
                clocks[kind].append(seconds)
                busy[kind].append(worked)
    lines = []
    for name, times in (("by the clock", clocks), ("of the processor", busy)):
        added = statistics.median(b - a for a, b in zip(*times.values(), strict=True))
        medians = [f"{statistics.median(times[kind]):.0f}" for kind in kinds]
        lines.append([name, *medians, common.verdict(added, LIMIT, at_least=False)])
    common.table("manage.py check, in ms", ["", "without", "with", "added"], lines)
    added_packages = packages["with"] - packages["without"]
    print("Added packages:", *sorted(added_packages))
    print("requests:", "imported, MISSED" if "requests" in packages["with"] else "not imported")


if __name__ == "__main__":
    options = common.arguments(runs=40)
    import django

    django.setup()
    with tempfile.TemporaryDirectory() as caches:
        main(options.runs, caches)

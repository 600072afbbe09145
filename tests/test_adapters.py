"""The adapters, each on a site with the app that it serves: the tests of the folder ``adapters``.

The apps are the dependency group ``adapters``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .packages import require

FOLDER = Path(__file__).parent / "adapters"
APPS = {"test_allauth": "allauth", "test_otp": "django_otp", "test_two_factor": "two_factor"}


@pytest.mark.slow
def test_on_their_site():
    require(*APPS.values())
    arguments = ["-q", "-p", "no:cacheprovider", "--ds", "tests.adapters.settings", str(FOLDER)]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=FOLDER.parent.parent, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr
    assert "skipped" not in ended.stdout


def test_each_test_file_is_known():
    assert {path.stem for path in FOLDER.glob("test_*.py")} == set(APPS)

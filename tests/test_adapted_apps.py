"""Other apps that send through ``django_smska.adapters``, in a project of their own.

They are the dependency group ``adapters``.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.db import connection

from .documents import ROOT
from .packages import require

APPS = ("drfpasswordless", "phone_verify", "rest_framework", "sendsms", "sms")
#: Of ``test_adapters``, whose sites are others.
OTHERS = ("allauth", "django_otp", "two_factor")


@pytest.mark.slow
@pytest.mark.django_db
def test_the_project():
    """It has a user model of its own, so it runs in a process of its own."""
    require(*APPS)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
         "-o", "addopts=", "--ds", "tests.adapted.settings", "tests/adapted/cases.py"],
        cwd=ROOT,
        env={
            **{name: value for name, value in os.environ.items() if "PYTEST" not in name},
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "ADAPTED_TEST_DATABASE": f"{connection.settings_dict['NAME']}_adapted",
        },
        capture_output=True,
        text=True,
        timeout=600,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr
    assert " passed" in ran.stdout and "skipped" not in ran.stdout


#: Import all modules but those for other packages; print what of other apps came with them.
IMPORT_ALL = """
import sys
from pathlib import Path
import django
django.setup()
import django_smska
root = Path(django_smska.__path__[0])
for path in sorted(root.rglob("*.py")):
    names = path.relative_to(root.parent).with_suffix("").parts
    if not {"adapters", "migrations", "health_check", "metrics"} & set(names):
        __import__(".".join(names).removesuffix(".__init__"))
print(*sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:])))
print(*[name for name in sys.modules if name.startswith("django_smska.adapters")])
"""


@pytest.mark.slow
def test_nothing_else_imports_an_adapter_or_its_app():
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
    }
    ran = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *APPS, *OTHERS],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout.split()) == (0, []), ran.stderr

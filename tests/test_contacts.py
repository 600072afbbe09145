"""The address book, on a site where it is installed, and a site where it is not."""

from __future__ import annotations

import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.apps import apps
from django.contrib.auth.models import Permission
from django.core.management import call_command

from django_smska import personal_data

FOLDER = Path(__file__).parent / "contacts"
TESTS = 40  # at least


@pytest.mark.slow
def test_on_its_site():
    arguments = ["-q", "-p", "no:cacheprovider", "--ds", "tests.contacts.settings", str(FOLDER)]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=FOLDER.parent.parent, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr
    assert "skipped" not in ended.stdout
    assert int(ended.stdout.split(" passed")[0].split()[-1]) >= TESTS


@pytest.mark.django_db
def test_where_it_is_not_installed_nothing_knows_it():
    assert not apps.is_installed("django_smska.contacts")
    out = StringIO()
    call_command("sms_groups", stdout=out)
    assert "contact" not in out.getvalue()
    assert not Permission.objects.filter(content_type__app_label="smska_contacts").exists()
    assert "deleted" not in personal_data.erase("8 913 400-10-20").details


def in_a_new_process(code):
    """Return what it prints on a site without the address book."""
    ended = subprocess.run(
        [sys.executable, "-c", f"import django, sys; django.setup(); {code}"],
        cwd=FOLDER.parent.parent, capture_output=True, text=True, timeout=60,
        env={"DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": str(FOLDER.parent.parent)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.slow
def test_an_import_does_not_add_its_models_to_the_other_app():
    code = (
        "import django_smska.contacts.models; from django.apps import apps; "
        "print('contact' in apps.all_models['django_smska'])"
    )
    assert in_a_new_process(code) == "False\n"


@pytest.mark.slow
def test_no_module_of_the_engine_imports_it():
    code = "print([one for one in sys.modules if one.startswith('django_smska.contacts')])"
    assert in_a_new_process(code) == "[]\n"

"""What a project's own tests see: an outbox, and no way to send a paid SMS."""

import os
import subprocess
import sys
import textwrap

import pytest
from django.db import transaction

from django_smska.sms import outbox, providers, queue_sms, send_mass_sms, send_sms

NUMBER = "+79041764995"


@pytest.mark.parametrize("run", [1, 2])
def test_the_outbox_is_empty_at_the_start_of_each_test(db, run):
    assert outbox == []
    send_sms(NUMBER, f"text {run}")
    assert len(outbox) == 1


def test_the_fixture_is_the_outbox(db, smsoutbox):
    assert smsoutbox is outbox
    send_sms(NUMBER, "text", sender="Shop")
    (message,) = smsoutbox
    assert (message.to, message.body, message.sender, message.using) == (
        NUMBER, "text", "Shop", "default",
    )  # fmt: skip


def test_a_view_under_a_test_case_fills_the_outbox_before_it_returns(db, smsoutbox):
    with transaction.atomic():
        send_sms(NUMBER, "text")
        assert len(smsoutbox) == 1


def test_queued_messages_are_not_in_the_outbox_before_a_worker_came(db, smsoutbox):
    queue_sms(NUMBER, "text")
    send_mass_sms([(NUMBER, "text")])
    assert smsoutbox == []


SUITE = """
    from django.test import SimpleTestCase, TestCase, TransactionTestCase
    from django_smska.sms import outbox, providers, send_sms

    class InATransaction(TestCase):
        def test_one(self):
            self.assertEqual(outbox, [])
            self.assertEqual(send_sms("+79041764995", "one").status, "sent")
            self.assertEqual(len(outbox), 1)

        test_two = test_one

    class OutsideOne(TransactionTestCase):
        test_one = test_two = InATransaction.test_one

    class NoDatabase(SimpleTestCase):
        def test_every_alias_is_locmem(self):
            self.assertEqual(outbox, [])
            name = type(providers["default"]).__module__
            self.assertEqual(name, "django_smska.backends.locmem")
"""


@pytest.mark.parametrize("parallel", [[], ["--parallel=2"]])
def test_the_same_holds_under_djangos_own_runner(tmp_path, parallel):
    package = tmp_path / "suite"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "test_suite.py").write_text(textwrap.dedent(SUITE))
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    env["DATABASE_URL"] = "sqlite://:memory:"
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, "-W", "error", "-m", "django", "test", "suite"]
    command += ["--noinput", *parallel]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "Ran 5 tests" in run.stderr


def test_outside_of_a_test_run_the_settings_decide():
    code = (
        "import django; django.setup()\n"
        "import django.test.utils\n"
        "from django_smska.sms import providers\n"
        "print(type(providers['default']).__module__)"
    )
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert run.stdout.strip() == "django_smska.backends.smska", run.stderr


def test_start_up_does_not_load_requests():
    code = (
        "import sys, django; django.setup()\n"
        "from django.core.management import call_command\n"
        "call_command('check')\n"
        "import django_smska.sms, django_smska.worker\n"
        "print('requests' in sys.modules, 'urllib3' in sys.modules)"
    )
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert run.stdout.splitlines()[-1] == "False False", run.stderr


def test_the_version_module_loads_no_django():
    code = "import sys, django_smska, django_smska.testing.plugin; print('django' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "False", run.stderr


def test_a_provider_in_a_test_run_is_named_by_its_alias():
    assert providers["default"].alias == "default"

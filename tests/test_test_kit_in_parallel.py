"""The test kit in a project whose tests run in several processes at once."""

import os
import re
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.slow

SETTINGS = """
    SECRET_KEY = "secret"
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
    INSTALLED_APPS = [
        "django.contrib.auth", "django.contrib.contenttypes", "django_smska",
    ]
    DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
    USE_TZ = True
    SMS_PROVIDERS = {
        "default": {"OPTIONS": {"api_key": "real", "api_password": "real", "sender_id": "Shop"}}
    }
"""
#: Each process waits, with its gateway open, for that of the other one.
MEETING = """
    import time
    from pathlib import Path

    FOLDER = Path(__file__).parent / "ports"

    def meet(name, port):
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / name).write_text(str(port))
        end = time.monotonic() + 60
        while len(found := list(FOLDER.iterdir())) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        assert len(found) == 2, "the other process did not come"
"""
PYTEST = """
    import pytest
    from django_smska.sms import queue_sms, send_sms
    from django_smska.testing import (
        assert_no_sms_sent, assert_sms_queued, assert_sms_sent, run_sms_worker,
    )
    from meeting import meet

    NUMBER = "+79041764995"

    @pytest.mark.django_db
    @pytest.mark.parametrize("run", [1, 2])
    def test_the_outbox(smsoutbox, run):
        assert_no_sms_sent()
        send_sms(NUMBER, "sent")
        queue_sms(NUMBER, "queued")
        assert_sms_queued(contains="queued")
        assert run_sms_worker() == {"sent": 1}
        assert_sms_sent(to="8 904 176-49-95", count=2)

    def test_the_gateway(sms_gateway, worker_id):
        meet(worker_id, sms_gateway.port)
        send_sms(NUMBER, f"from {worker_id}")
        assert [one.text for one in sms_gateway.accepted] == [f"from {worker_id}"]
"""
DJANGO = """
    from django.test import TestCase, TransactionTestCase
    from django_smska.sms import queue_sms, send_sms
    from django_smska.testing import SmsTestMixin, run_sms_worker, use_stand_in_gateway
    from meeting import meet

    NUMBER = "+79041764995"

    class One(SmsTestMixin, TransactionTestCase):
        def test_the_gateway(self):
            name = type(self).__name__
            with use_stand_in_gateway() as gateway:
                meet(name, gateway.port)
                send_sms(NUMBER, f"from {name}")
                self.assertSMSSent(contains=name, count=1)
                self.assertEqual([one.text for one in gateway.accepted], [f"from {name}"])

    class Two(One):
        pass

    class Outbox(SmsTestMixin, TestCase):
        def test_the_outbox(self):
            self.assertNoSMSSent()
            send_sms(NUMBER, "sent")
            queue_sms(NUMBER, "queued")
            self.assertSMSQueued(contains="queued")
            self.assertEqual(run_sms_worker(), {"sent": 1})
            self.assertSMSSent(count=2)

        test_again = test_the_outbox
"""


@pytest.fixture
def project(tmp_path):
    def make(name, code):
        for file, text in (("shop_settings", SETTINGS), ("meeting", MEETING), (name, code)):
            (tmp_path / f"{file}.py").write_text(textwrap.dedent(text))
        (tmp_path / "pytest.ini").write_text("[pytest]\nDJANGO_SETTINGS_MODULE = shop_settings\n")
        return tmp_path

    return make


def ran(folder, *command):
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env |= {"DJANGO_SETTINGS_MODULE": "shop_settings"}
    env["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, sys.path)])
    env.pop("SMSKA_TEST_RUN", None)  # that of the test run around
    run = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


def ports(folder):
    return {path.read_text() for path in (folder / "ports").iterdir()}


def test_under_pytest_xdist_each_process_has_its_own(project):
    folder = project("test_shop", PYTEST)
    said = ran(folder, "pytest", "-p", "no:cacheprovider", "-n", "2", "--dist", "each")
    assert "6 passed" in said
    assert len(ports(folder)) == 2


def test_under_djangos_parallel_runner_each_process_has_its_own(project):
    folder = project("test_shop", DJANGO)
    said = ran(folder, "django", "test", "--parallel", "2", "--noinput")
    assert re.search("Ran 4 tests", said) and "OK" in said
    assert len(ports(folder)) == 2

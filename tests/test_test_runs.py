"""What a project's own tests see: an outbox, and no way to send a paid SMS."""

import os
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from urllib.request import urlopen

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction

from django_smska import circuit_breaker, conf
from django_smska.exceptions import AuthenticationFailed
from django_smska.sms import outbox, providers, queue_sms, send_mass_sms, send_sms

from .extent import ALL
from .ports import free_port

pytestmark = pytest.mark.slow

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
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    env["DATABASE_URL"] = "sqlite://:memory:"
    assert "Ran 5 tests" in run_suite(tmp_path, SUITE, env, *parallel).stderr


# --- the processes that tests start ---------------------------------------------------------------


def environment(gateway, **more):
    """That of a child which would send to this gateway if it did not know of the test run."""
    mine = {"DJANGO_SETTINGS_MODULE": "tests.sending_process", "SMSKA_URL": gateway.url}
    return {**os.environ, **mine, "PYTHONPATH": os.pathsep.join(sys.path), **more}


def ended(command, env, cwd=None):
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=cwd)
    assert run.returncode == 0, run.stderr
    return run


SENDING = [sys.executable, "-m", "tests.sending_process"]


def test_a_child_of_a_test_sends_nothing(gateway):
    run = ended(SENDING, environment(gateway))
    assert run.stdout == "django_smska.backends.locmem\n"
    assert gateway.connections == 0


def test_a_child_that_has_to_sends(gateway):
    """The same child, so that the tests around this one cannot pass for another reason."""
    for env in ({"SMSKA_REALLY": "1"}, {"SMSKA_TEST_RUN": ""}, {"SMSKA_TEST_RUN": "0"}):
        assert ended(SENDING, environment(gateway, **env)).stdout.endswith("backends.smska\n")
    assert len(gateway.accepted) == 3


CHILDREN = """
    import multiprocessing, os, subprocess, sys
    from concurrent.futures import ProcessPoolExecutor
    from django.test import LiveServerTestCase, SimpleTestCase, TestCase
    from tests.sending_process import send

    def in_a(method):
        with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
            return pool.submit(send).result()

    class Children:
        def check(self, where):
            self.assertEqual(where.strip(), "django_smska.backends.locmem")

        def test_spawned(self):
            self.check(in_a("spawn"))

        def test_subprocess(self):
            command = [sys.executable, "-m", "tests.sending_process"]
            self.check(subprocess.check_output(command, text=True))

    class WithoutADatabase(Children, SimpleTestCase):
        def test_forked(self):
            self.check(in_a("fork"))

        def test_forked_by_a_server(self):
            self.check(in_a("forkserver"))

        def test_grandchild(self):
            code = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])"
            command = [sys.executable, "-c", code, "-m", "tests.sending_process"]
            self.check(subprocess.check_output(command, text=True))

    class InATransaction(Children, TestCase):
        pass

    class WithALiveServer(Children, LiveServerTestCase):
        pass
"""


def run_suite(folder, code, env, *options):
    package = folder / "suite"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "test_suite.py").write_text(textwrap.dedent(code))
    env["PYTHONPATH"] = os.pathsep.join([str(folder), *sys.path])
    env.pop("SMSKA_TEST_RUN", None)  # that of the test run around
    command = [sys.executable, "-W", "error", "-m", "django", "test", "suite", "--noinput"]
    return ended([*command, *options], env)


@pytest.mark.parametrize("method", ["", *(["fork", "spawn"] if ALL else [])])
def test_under_djangos_own_runner_a_child_sends_nothing(tmp_path, gateway, method):
    """No test of the suite has touched a provider before it starts its child."""
    options, tests = [], 9
    if method:
        # multiprocessing allows no children of the runner's own processes.
        options, tests = ["--parallel=2", "-k", "subprocess", "-k", "grandchild"], 4
        (tmp_path / "sitecustomize.py").write_text(
            f"import multiprocessing; multiprocessing.set_start_method({method!r}, force=True)"
        )
    run = run_suite(tmp_path, CHILDREN, environment(gateway), *options)
    assert f"Ran {tests} tests" in run.stderr
    assert gateway.connections == 0


def test_under_another_runner_the_database_is_enough(tmp_path, gateway):
    """One that makes no system checks."""
    env = environment(gateway, DJANGO_SETTINGS_MODULE="unchecked")
    (tmp_path / "unchecked.py").write_text(
        textwrap.dedent(
            """
            from django.test.runner import DiscoverRunner
            from tests.sending_process import *

            class Unchecked(DiscoverRunner):
                def run_checks(self, databases):
                    pass

            TEST_RUNNER = "unchecked.Unchecked"
            """
        )
    )
    run = run_suite(tmp_path, CHILDREN, env, "-k", "subprocess")
    assert "Ran 3 tests" in run.stderr and gateway.connections == 0


def test_after_the_test_run_a_child_sends_again(gateway):
    code = (
        "import django, os, subprocess, sys; django.setup()\n"
        "from django.test.utils import setup_test_environment, teardown_test_environment\n"
        "from django_smska.sms import providers\n"
        "for _ in range(2):\n"
        "    setup_test_environment()\n"
        "    print(type(providers['default']).__module__, os.environ['SMSKA_TEST_RUN'])\n"
        "    teardown_test_environment()\n"
        "    print(type(providers['default']).__module__, os.environ.get('SMSKA_TEST_RUN'))\n"
    )
    env = environment(gateway)
    del env["SMSKA_TEST_RUN"]
    run = ended([sys.executable, "-c", code], env)
    during, after = "django_smska.backends.locmem 1", "django_smska.backends.smska None"
    assert run.stdout.splitlines() == [during, after, during, after]


def test_pytest_sets_the_variable_and_puts_it_back(tmp_path, gateway):
    (tmp_path / "test_it.py").write_text(
        "import os\ndef test_it(): assert os.environ['SMSKA_TEST_RUN'] not in ('', '0')"
    )
    code = (
        "import os, pytest; code = pytest.main(['-c', 'none.ini', 'test_it.py'])\n"
        "print(int(code), os.environ.get('SMSKA_TEST_RUN'))"
    )
    (tmp_path / "none.ini").touch()
    for before in ({}, {"SMSKA_TEST_RUN": "0"}):
        env = environment(gateway)
        del env["SMSKA_TEST_RUN"]
        run = ended([sys.executable, "-c", code], {**env, **before}, cwd=tmp_path)
        assert run.stdout.splitlines()[-1] == f"0 {before.get('SMSKA_TEST_RUN')}"


def test_djangos_testserver_sends_nothing(tmp_path, gateway):
    """It serves a test's data, so that nothing that it sends is wanted; no test need start it."""
    port = free_port()
    env = environment(gateway)
    del env["SMSKA_TEST_RUN"]
    (tmp_path / "empty.json").write_text("[]")
    command = [sys.executable, "-m", "django", "testserver", str(tmp_path / "empty.json")]
    command += ["--noinput", "--addrport", str(port)]
    where = ""
    with subprocess.Popen(command, env=env) as server:
        try:
            while server.poll() is None:
                with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/") as answer:
                    where = answer.read().decode()
                    break
                time.sleep(0.1)
        finally:
            server.terminate()
    assert where == "django_smska.backends.locmem" and gateway.connections == 0


def test_a_site_with_the_variable_is_warned_of_at_deployment(gateway):
    command = [sys.executable, "-m", "django", "check", "--deploy", "--tag", "sms"]
    assert "smska.W016" in ended(command, environment(gateway)).stderr
    for env in ({"SMSKA_REALLY": "1"}, {"SMSKA_TEST_RUN": ""}):
        assert "no issues" in ended(command, environment(gateway, **env)).stdout


@pytest.mark.parametrize(("really", "said"), [("", True), ("1", False)])
def test_a_worker_says_that_it_sends_nothing(tmp_path, gateway, really, said):
    (tmp_path / "worker_settings.py").write_text(
        "from tests.sending_process import *\n"
        f"DATABASES['default']['NAME'] = {str(tmp_path / 'db.sqlite3')!r}\n"
    )
    env = environment(gateway, SMSKA_REALLY=really, DJANGO_SETTINGS_MODULE="worker_settings")
    env["PYTHONPATH"] += os.pathsep + str(tmp_path)
    manage = [sys.executable, "-m", "django"]
    ended([*manage, "migrate"], env)
    run = ended([*manage, "sms_worker", "--once"], env)
    assert ("SMSKA_TEST_RUN is set" in run.stdout) == said
    run = ended([*manage, "sendtestsms", NUMBER], env)
    assert ("SMSKA_TEST_RUN is set" in run.stdout) == said
    balance = subprocess.run(
        [*manage, "sms_balance"], env=env, capture_output=True, text=True, check=False
    )
    assert ("SMSKA_TEST_RUN is set" in balance.stderr) == said
    assert balance.returncode == int(said)


def test_a_test_run_leaves_a_pause_as_it_was(db, monkeypatch):
    """In a site that has inherited the variable, whose database is the real one."""
    circuit_breaker.note_error("default", AuthenticationFailed())
    monkeypatch.setattr(conf, "test_environment", lambda: None)
    assert conf.sends_nothing()
    assert send_sms(NUMBER, "text").status == "sent"
    with pytest.raises(CommandError, match="no gateway is queried, and no pause is ended"):
        call_command("sms_balance")
    state = circuit_breaker.state_of("default")
    assert state.is_paused and state.balance is None


def test_outside_of_a_test_run_the_settings_decide():
    code = (
        "import django; django.setup()\n"
        "import django.test.utils\n"
        "from django_smska.sms import providers\n"
        "print(type(providers['default']).__module__)"
    )
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"}
    del env["SMSKA_TEST_RUN"]
    run = ended([sys.executable, "-c", code], env)
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

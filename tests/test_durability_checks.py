"""The checks of what a database keeps when its machine fails, asked of real databases."""

import contextlib
import sys

import pytest
from django.core.checks import run_checks
from django.db import connection

from django_smska.models import ProviderState

ONLY = {
    vendor: pytest.mark.skipif(connection.vendor != vendor, reason=f"of {vendor}")
    for vendor in ("sqlite", "postgresql", "mysql")
}
IDS = ("smska.W017", "smska.W018", "smska.W019")
STATES = ProviderState._meta.db_table


@pytest.fixture(autouse=True)
def alone(transactional_db):
    """A setting of MariaDB holds for the whole server, and so for the tests beside this one."""
    if connection.vendor != "mysql":
        yield
        return
    keeper = connection.copy()  # the tests close theirs
    with contextlib.closing(keeper), keeper.cursor() as cursor:
        cursor.execute("SELECT GET_LOCK('durability', 60)")
        assert cursor.fetchone() == (1,)
        yield


def found(**more):
    return [one for one in run_checks(databases=["default"], **more) if one.id in IDS]


def execute(*statements):
    with connection.cursor() as cursor:
        for sql in statements:
            cursor.execute(sql)


@contextlib.contextmanager
def with_options(**options):
    """Connect with these OPTIONS, as a project's settings would have it."""
    usual = connection.settings_dict["OPTIONS"]
    connection.close()
    connection.settings_dict["OPTIONS"] = usual | options
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict["OPTIONS"] = usual


def test_a_durable_database_is_passed_over():
    assert found() == []


def test_no_database_is_asked_unless_it_is_named():
    connection.close()
    run_checks()
    assert connection.connection is None


@ONLY["sqlite"]
class TestSQLite:
    @pytest.mark.parametrize("setting", ["synchronous=OFF", "journal_mode=MEMORY"])
    def test_what_may_ruin_the_file_is_warned_of(self, setting, tmp_path):
        usual = connection.settings_dict["NAME"]
        with with_options(init_command=f"PRAGMA {setting}"):
            connection.settings_dict["NAME"] = str(tmp_path / "new.sqlite3")
            try:
                [warning] = found()
            finally:
                connection.close()
                connection.settings_dict["NAME"] = usual
        assert (warning.id, setting in warning.msg) == ("smska.W017", True)
        assert "PRAGMA synchronous=FULL" in warning.hint and "DATABASES['default']" in warning.hint

    def test_the_last_commits_are_a_matter_of_deployment(self):
        """NORMAL is usual under development, where no power cut costs an SMS."""
        assert found() == []
        [warning] = found(include_deployment_checks=True)
        assert warning.id == "smska.W017" and "synchronous=NORMAL" in warning.msg

    def test_its_hint_helps(self):
        [warning] = found(include_deployment_checks=True)
        with with_options(init_command=warning.hint.split("'")[3]):
            assert found(include_deployment_checks=True) == []

    def test_what_is_only_in_memory_is_not_meant_to_last(self):
        usual = connection.settings_dict["NAME"]
        connection.close()
        connection.settings_dict["NAME"] = ":memory:"
        try:
            assert found() == []
        finally:
            connection.inc_thread_sharing()  # lets Django close what is in memory
            connection.connection.close()
            connection.connection = None
            connection.dec_thread_sharing()
            connection.settings_dict["NAME"] = usual


@ONLY["postgresql"]
class TestPostgreSQL:
    def test_commits_that_wait_for_no_disk_are_warned_of(self):
        with with_options(options="-c synchronous_commit=off"):
            [warning] = found()
            assert (warning.id, "synchronous_commit=off" in warning.msg) == ("smska.W017", True)
            assert warning.hint.startswith("Set synchronous_commit to on")
            execute("SET synchronous_commit = on")
            assert found() == []

    @pytest.mark.parametrize("name", ["fsync", "full_page_writes"])
    def test_a_server_that_waits_for_no_disk_is_warned_of(self, name):
        """These are the whole server's, which others use, so a view says that they are off."""
        execute(
            "CREATE TEMPORARY VIEW pg_settings AS SELECT name, CASE name WHEN"
            f" '{name}' THEN 'off' ELSE setting END AS setting FROM pg_catalog.pg_settings"
        )
        try:
            [warning] = found()
        finally:
            connection.close()
        assert (warning.id, f"{name}=off" in warning.msg) == ("smska.W017", True)
        assert found() == []


@ONLY["mysql"]
class TestMariaDB:
    @pytest.mark.parametrize(("value", "expected"), [(0, 1), (1, 0), (2, 1), (3, 0)])
    def test_commits_that_wait_for_no_disk_are_warned_of(self, value, expected):
        execute(f"SET GLOBAL innodb_flush_log_at_trx_commit = {value}")
        try:
            warnings = found()
        finally:
            execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1")
        assert [one.id for one in warnings] == ["smska.W017"] * expected
        for warning in warnings:
            assert f"innodb_flush_log_at_trx_commit={value}" in warning.msg
            assert "innodb_flush_log_at_trx_commit to 1" in warning.hint

    def test_a_table_without_transactions_is_warned_of_and_the_hint_helps(self):
        execute(f"ALTER TABLE {STATES} ENGINE=Aria")
        try:
            [warning] = found()
            assert (warning.id, f"{STATES} in Aria" in warning.msg) == ("smska.W018", True)
            execute(warning.hint.removeprefix("Run: "))
            assert found() == []
        finally:
            execute(f"ALTER TABLE {STATES} ENGINE=InnoDB")

    def test_so_are_tables_that_are_still_to_be_made(self):
        usual = connection.settings_dict["NAME"]
        execute(f"DROP DATABASE IF EXISTS {usual}_narrow", f"CREATE DATABASE {usual}_narrow")
        connection.settings_dict["NAME"] = f"{usual}_narrow"
        try:
            with with_options(init_command="SET default_storage_engine=Aria"):
                [warning] = found()
            assert (warning.id, "makes tables in Aria" in warning.msg) == ("smska.W018", True)
            with with_options(init_command=warning.hint.split("'")[3]):
                assert found() == []
        finally:
            connection.close()
            connection.settings_dict["NAME"] = usual
            execute(f"DROP DATABASE {usual}_narrow")


def test_a_database_that_cannot_be_reached_is_named_and_breaks_no_check(tmp_path):
    usual = connection.settings_dict.copy()
    connection.close()
    wrong = {"NAME": str(tmp_path / "no" / "such")} if connection.vendor == "sqlite" else {}
    connection.settings_dict |= wrong or {"PORT": "1"}
    try:
        ours = [check for check in database_checks() if check.__module__.startswith("django_smska")]
        warnings = [one for check in ours for one in check(None, databases=["default"])]
    finally:
        connection.close()
        connection.settings_dict.update(usual)
    [warning] = warnings
    assert warning.id == "smska.W019" and "(OperationalError)" in warning.msg
    assert "DATABASES['default']" in warning.hint


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite makes the file")
def test_a_database_that_does_not_exist_is_another_case(monkeypatch):
    usual = connection.settings_dict["NAME"]
    connection.close()
    connection.settings_dict["NAME"] = "smska_no_such"
    try:
        [warning] = found()
    finally:
        connection.close()
        connection.settings_dict["NAME"] = usual
    assert warning.id == "smska.W019"
    assert "'default' does not exist on its server" in warning.msg
    assert "createdb" in warning.hint and "DATABASES['default']" in warning.hint


def test_a_missing_table_is_named_except_by_migrate_itself(monkeypatch):
    def missing():
        return [one for one in run_checks(databases=["default"]) if one.id == "smska.W020"]

    present = connection.introspection.table_names()
    assert missing() == []
    present.remove(STATES)
    with monkeypatch.context() as patched:
        patched.setattr(connection.introspection, "table_names", lambda: present)
        [warning] = missing()
        assert f"has no table {STATES}:" in warning.msg
        assert warning.hint == "Run 'manage.py migrate'."
        patched.setattr(sys, "argv", ["manage.py", "migrate"])
        assert missing() == []


def database_checks():
    from django.core.checks.registry import registry

    every = registry.get_checks(include_deployment_checks=True)
    return [check for check in every if "database" in check.tags]

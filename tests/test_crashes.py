"""A database server that crashes under load; and one that loses commits, which must be found.

``python -m tests.crashes postgresql --crashes 50`` is the long form.
"""

import os
import re
import subprocess
import sys

import pytest
from django.db import connection

from .crashes import NO_VERDICT
from .database_servers import SERVERS, PgBouncer, require_mount, require_program

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(connection.vendor not in SERVERS, reason="SQLite has no server to crash"),
]


def crash(*arguments):
    require_program(*SERVERS[connection.vendor].programs)
    command = [sys.executable, "-m", "tests.crashes", connection.vendor, *arguments]
    return subprocess.run(
        command, env=os.environ, capture_output=True, text=True, timeout=900, check=False
    )


def test_a_crash_loses_and_doubles_nothing_and_keeps_what_callers_were_promised():
    """No text is accepted twice, no row is lost, no status lies, no more are unknown than were in
    flight, and no worker ends; what a caller heard of a message stays true."""
    ended = crash("--crashes", "6", "--seed", "1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "crashes of the server               6" in ended.stdout


@pytest.mark.skipif(connection.vendor != "postgresql", reason="PgBouncer is PostgreSQL's")
def test_the_same_holds_through_a_pooler_that_gives_each_transaction_another_connection():
    require_program(*PgBouncer.programs)
    ended = crash("--crashes", "3", "--seed", "1", "--pooled")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "crashes of the server               3" in ended.stdout


def test_a_full_disk_loses_and_doubles_nothing():
    require_mount()
    for seed in "12345":
        ended = crash("--crashes", "2", "--seed", seed, "--full")
        if ended.returncode != NO_VERDICT:
            break
    assert ended.returncode == 0, ended.stdout + ended.stderr
    counts = dict(re.findall(r"^(\S.*?) {2,}(\d+)$", ended.stdout, re.MULTILINE))
    assert counts["times that the disk was full"] == "2" and counts["callers that met it"] != "0"


def test_a_server_that_forgets_commits_is_found():
    """As the check smska.W017 says: without its settings, messages are sent twice or lost."""
    ended = crash("--crashes", "3", "--seed", "1", "--careless")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    verdict = ended.stdout.splitlines()[-1]
    assert verdict.startswith("VIOLATIONS: "), ended.stdout + ended.stderr
    assert "accepted twice" in verdict or "lost" in verdict

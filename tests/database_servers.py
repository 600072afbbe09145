"""Database servers of a test's own, which it may crash: other data, another port, no root.

``SMSKA_REQUIRE_SERVERS`` forbids to skip a test because a program is missing.
"""

import contextlib
import glob
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pytest

from .ports import free_port

UNPRIVILEGED_UID = 65534  # has no files and no rights on any Unix
START_SECONDS = 60


def program(name):
    """Return the path of a server's program, or None."""
    newest = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)
    return next(iter(newest), None) or shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")


def require_program(*names):
    """Skip the test where one of them is missing; fail it in CI."""
    if missing := [name for name in names if program(name) is None]:
        _leave_out(f"there is no {' and no '.join(missing)}")


def require_mount():
    """Skip the test where no disk of a few megabytes can be made; fail it in CI."""
    if not may_mount():
        _leave_out("no tmpfs can be mounted here")


def _leave_out(why):
    if os.environ.get("SMSKA_REQUIRE_SERVERS"):
        pytest.fail(f"{why}, and SMSKA_REQUIRE_SERVERS is set")
    pytest.skip(why)


def may_mount():
    """Return whether a disk of a few megabytes can be made here."""
    with tempfile.TemporaryDirectory() as folder:
        made = os.geteuid() == 0 and mount(folder, 1, check=False) == 0
        return made and subprocess.run(["umount", folder], check=False).returncode == 0


def mount(folder, megabytes, *, check=True):
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder]
    return subprocess.run(command, check=check, capture_output=True).returncode


class Server:
    """A process that listens on ``port``, with a directory of its own.

    No server may run as root, so that root runs it as another user.
    """

    programs = ()  # that it needs
    crash_signal = signal.SIGKILL
    stop_signal = signal.SIGTERM

    def __init__(self, *, disk_mb=None):
        self.port = free_port()
        self.folder = tempfile.mkdtemp(prefix="smska-server-")
        # Not in the folder: its disk may get full.
        self.log = tempfile.TemporaryFile("w+", prefix="smska-server-")  # noqa: SIM115
        self.user = None
        self.disk_mb = disk_mb
        if disk_mb is not None:
            mount(self.folder, disk_mb)
        if os.geteuid() == 0:
            user = pwd.getpwuid(UNPRIVILEGED_UID)
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self.user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self.process = None

    def __enter__(self):
        try:
            self.install()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info):
        if self.process is not None:
            self.crash()
        if self.disk_mb is not None:
            subprocess.run(["umount", "--lazy", self.folder], check=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.log.close()

    def run(self, name, *arguments):
        """Start a program in the folder; its output is in the file ``log``."""
        return subprocess.Popen(
            [program(name), *arguments],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "HOME": self.folder, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            **(self.user or {}),
        )

    def said(self):
        """Return what it and its tools have printed, in all its lives."""
        size = os.fstat(self.log.fileno()).st_size
        return os.pread(self.log.fileno(), size, 0).decode(errors="replace")

    def install(self):
        """Make what is there before the first start."""

    def start(self):
        self.process = self.run(*self.command())
        end = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"{self.programs[0]} does not start: {self.said()[-2000:]}")
            time.sleep(0.05)

    def answers(self):
        with contextlib.closing(socket.socket()) as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    def begin(self):
        """End it in peace, so that its tables are on the disk, and start it as it is to be."""
        self.process.send_signal(self.stop_signal)
        self.process.wait(START_SECONDS)
        self.settings = self.later
        self.start()

    def crash(self):
        """End it at once, whatever it was at; it cannot write what it has in memory."""
        self.process.send_signal(self.crash_signal)
        self.process.wait()

    def fill_disk(self):
        """Leave no byte on its disk."""
        with contextlib.suppress(OSError), open(f"{self.folder}/filler", "ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)

    def free_disk(self):
        """Give the bytes back; start it again where it has ended."""
        os.unlink(f"{self.folder}/filler")
        if self.process.poll() is not None or not self.answers():
            self.crash()
            self.start()

    def is_damaged(self):
        """Return whether its own log says that a full disk has damaged its tables."""
        return False

    def checked(self, *command):
        code = self.run(*command).wait(START_SECONDS)
        if code != 0:
            raise AssertionError(f"{command[0]} ended with {code}: {self.said()[-2000:]}")


class PostgreSQL(Server):
    """``careless``, once it has begun: a commit does not wait for the disk, and nothing else writes
    it soon."""

    programs = ("postgres", "initdb")
    crash_signal = signal.SIGQUIT  # what "pg_ctl stop -m immediate" sends; it ends its children
    stop_signal = signal.SIGINT  # waits for no client

    CARELESS = {
        "synchronous_commit": "off",
        "wal_writer_delay": "10s",
        "wal_writer_flush_after": "1GB",
        "wal_buffers": "64MB",
    }

    def __init__(self, *, careless=False, **kwargs):
        super().__init__(**kwargs)
        self.settings, self.later = {}, self.CARELESS if careless else {}

    @property
    def url(self):
        return f"postgres://smska@127.0.0.1:{self.port}/postgres"

    def install(self):
        self.checked(
            "initdb", "-D", "data", "-U", "smska", "-A", "trust", "-E", "UTF8", "--no-sync"
        )

    def command(self):
        fixed = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "port": self.port}
        settings = {**fixed, **self.settings}.items()
        return ["postgres", "-D", "data", *(f"--{name}={value}" for name, value in settings)]

    def answers(self):
        """A server that recovers from a crash listens, and refuses."""
        command = ["pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return super().answers() and self.run(*command).wait(START_SECONDS) == 0


class MariaDB(Server):
    """``careless``, once it has begun: a commit does not wait for the disk, and nothing else writes
    it soon."""

    programs = ("mariadbd", "mariadb-install-db")

    CARELESS = {"innodb_flush_log_at_trx_commit": 0, "innodb_flush_log_at_timeout": 2700}

    def __init__(self, *, careless=False, **kwargs):
        super().__init__(**kwargs)
        self.settings, self.later = {}, self.CARELESS if careless else {}

    @property
    def url(self):
        return f"mysql://root@127.0.0.1:{self.port}/smska"

    def install(self):
        self.checked(
            "mariadb-install-db",
            "--no-defaults",
            f"--datadir={self.folder}/data",
            f"--tmpdir={self.folder}",  # two that install side by side disturb each other in /tmp
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )

    def command(self):
        fixed = {
            "datadir": f"{self.folder}/data",
            "socket": f"{self.folder}/socket",
            "pid-file": f"{self.folder}/pid",
            "bind-address": "127.0.0.1",
            "port": self.port,
            "character-set-server": "utf8mb4",
        }
        settings = {**fixed, **self.settings}.items()
        return ["mariadbd", "--no-defaults", *(f"--{name}={value}" for name, value in settings)]

    def is_damaged(self):
        return bool(re.search("index corruption|Assertion failure", self.said()))


class PgBouncer(Server):
    """A pooler before a PostgreSQL: each transaction may be on another connection, and more
    processes are connected than it has connections."""

    programs = ("pgbouncer",)

    def __init__(self, server):
        super().__init__()
        self.server = server

    @property
    def url(self):
        return self.server.url.replace(f":{self.server.port}/", f":{self.port}/")

    def install(self):
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": 3,
            "server_login_retry": 0.2,  # seconds: it is 15 by default
        }
        with open(f"{self.folder}/pgbouncer.ini", "w") as file:
            file.write(f"[databases]\n* = host=127.0.0.1 port={self.server.port} user=smska\n")
            file.writelines(
                ["[pgbouncer]\n", *(f"{key} = {one}\n" for key, one in settings.items())]
            )

    def command(self):
        return ["pgbouncer", "pgbouncer.ini"]


SERVERS = {"postgresql": PostgreSQL, "mysql": MariaDB}

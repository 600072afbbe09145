"""A real Kannel of a test's own: bearerbox and smsbox on free ports of the loopback, configured as
the documentation says.

``SMSKA_REQUIRE_KANNEL`` forbids to skip a test because the programs are missing.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

import pytest

from .documents import ROOT
from .ports import free_port

START_SECONDS = 60
USERNAME, PASSWORD = "shop & sons", "p<a>s&s%20"
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"  # which a user's shell may not have
#: Numbers that this Kannel refuses: smsbox, and bearerbox by a list and for want of an SMSC.
IN_BLACK_LIST, NOT_ROUTABLE, NO_SMSC = "+79040000002", "+79040000001", "+375291234567"


def require_kannel():
    """Skip the test where Kannel is missing; fail it in CI."""
    if all(shutil.which(name, path=PATH) for name in ("bearerbox", "smsbox")):
        return
    if os.environ.get("SMSKA_REQUIRE_KANNEL"):
        pytest.fail("there is no Kannel, and SMSKA_REQUIRE_KANNEL is set")
    pytest.skip("there is no Kannel")


def documented():
    """Return the groups of the file that the documentation gives, by their names."""
    groups = {}
    for line in (ROOT / "docs/howto/kannel.conf").read_text().splitlines():
        name, _, value = line.partition(" = ")
        if name == "group":
            group = groups.setdefault(value, {})
        elif value and not line.startswith("#"):
            group[name] = value
    return groups


class Kannel:
    """Both boxes, connected to one SMSC over SMPP; a context manager.

    :param folder: for its configuration, store and logs
    :param smsc_port: where the SMSC listens
    :param changes: of the configuration, by group: None removes a line
    """

    def __init__(self, folder, smsc_port, **changes):
        self.folder = folder
        self.boxes = {}
        self.admin_port, self.box_port, self.port = free_port(), free_port(), free_port()
        self.groups = documented()
        for group, lines in [*self.of_a_test(smsc_port).items(), *changes.items()]:
            self.groups[group.replace("_", "-")] |= lines

    def of_a_test(self, smsc_port):
        return {
            "core": {
                "admin-port": self.admin_port,
                "admin-password": "admin",
                "smsbox-port": self.box_port,
                "log-file": None,
                "store-location": self.folder,
                "sms-resend-freq": 1,
                "black-list-receiver-regex": f"{NOT_ROUTABLE[2:]}$",
            },
            "smsc": {
                "host": "127.0.0.1",
                "port": smsc_port,
                "reconnect-delay": 1,
                "denied-prefix": NO_SMSC[:4],
                "allowed-smsc-id": "operator",
            },
            "smsbox": {"sendsms-port": self.port, "log-file": None, "http-queue-delay": 1},
            "sendsms-user": {
                "username": f'"{USERNAME}"',
                "password": f'"{PASSWORD}"',
                "default-smsc": "operator",
                "black-list-regex": f"{IN_BLACK_LIST[2:]}$",
            },
        }

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/cgi-bin/sendsms"

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info):
        for name in ("smsbox", "bearerbox"):
            self.kill(name)

    def start(self):
        lines = []
        for group, values in self.groups.items():
            lines += ["", f"group = {group}"]
            lines += [f"{name} = {value}" for name, value in values.items() if value is not None]
        (self.folder / "kannel.conf").write_text("\n".join([*lines, ""]))
        self.run("bearerbox", self.box_port)
        self.run("smsbox", self.port)
        self.wait_for(lambda: "smsbox:shop" in self.status(), "smsbox is connected to bearerbox")

    def freeze(self, name):
        """Stop a box, until it may :meth:`go_on`, or is killed."""
        self.boxes[name].send_signal(signal.SIGSTOP)
        os.waitpid(self.boxes[name].pid, os.WUNTRACED)  # all of its threads stand

    def go_on(self, name):
        self.boxes[name].send_signal(signal.SIGCONT)

    def kill(self, name):
        """End a box at once, whatever it was at."""
        box = self.boxes.pop(name, None)
        if box is not None:
            box.send_signal(signal.SIGKILL)
            box.wait()

    def run(self, name, port):
        with open(self.folder / f"{name}.log", "a") as log:
            self.boxes[name] = subprocess.Popen(
                [shutil.which(name, path=PATH), "-v", "1", "kannel.conf"],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.wait_for(lambda: _listens(port), f"{name} listens")

    def wait_for(self, condition, what):
        end = time.monotonic() + START_SECONDS
        while not condition():
            ended = [name for name, box in self.boxes.items() if box.poll() is not None]
            assert not ended and time.monotonic() < end, f"not so: {what}; {self.log()[-3000:]}"
            time.sleep(0.02)

    def status(self):
        """Return what bearerbox says of its connections."""
        address = f"http://127.0.0.1:{self.admin_port}/status.txt?password=admin"
        with urllib.request.urlopen(address, timeout=START_SECONDS) as answer:
            return answer.read().decode()

    def is_idle(self):
        """Return whether bearerbox has handed on all reports that it has got."""
        queues = re.findall(r"\((\d+) queued", self.status())
        return set(queues) == {"0"}

    def waiting_bytes(self):
        """Return how many bytes of smsbox bearerbox has not read."""
        with open("/proc/net/tcp") as file:
            lines = [line.split() for line in file.readlines()[1:]]
        ours = [one for one in lines if int(one[1].partition(":")[2], 16) == self.box_port]
        return sum(int(one[4].partition(":")[2], 16) for one in ours if one[3] == "01")

    def log(self):
        files = [self.folder / f"{name}.log" for name in ("bearerbox", "smsbox")]
        return "".join(file.read_text(errors="replace") for file in files if file.exists())


def _listens(port):
    with contextlib.closing(socket.socket()) as one:
        return one.connect_ex(("127.0.0.1", port)) == 0

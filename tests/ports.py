"""Ports for the servers that tests start."""

import random
import socket
from contextlib import closing

#: Below what Linux, macOS and Windows give to outgoing connections, of which tests make many: one
#: of them could take the port before its server does.
PORTS = range(20_000, 32_000)
#: Not the one that tests seed: two processes would choose the same.
CHANCE = random.SystemRandom()


def free_port():
    """Return a port of the loopback that nothing uses."""
    while True:
        port = CHANCE.choice(PORTS)
        with closing(socket.socket()) as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port

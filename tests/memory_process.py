"""What a test starts: a process that measures its memory, ``python -m tests.memory_process URL``.

It asks the gateway there. Then it asks again for each line of its input (``send``, ``balance``,
``query``), and prints by how many KiB its memory grew at its peak, as Linux counts them (``VmHWM``,
see proc(5)).
"""

import sys

from .sms_ka import Client as Gateway


def ask(wire, what):
    """Send, or query the balance or a status; return the outcome."""
    if what == "send":
        return wire.send("79041764995", "a text", "T")
    return wire.balance() if what == "balance" else wire.status("an-id")


def pages(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))


def peak(wire, what):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak is now what is in use
    before = pages("VmRSS")
    ask(wire, what)
    return pages("VmHWM") - before


def main(url):
    wire = Gateway("test", "test", url=url, deadline=20)
    for what in ("send", "balance", "query"):
        ask(wire, what)
    for line in sys.stdin:
        print(peak(wire, line.strip()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

"""A gateway that wants to harm this process: its time, its memory, its outcomes."""

from __future__ import annotations

import gzip
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, cycle, islice, repeat
from pathlib import Path

import pytest

from django_smska import monotonic
from django_smska.exceptions import GatewayUnreachable, QueryFailed, SmsOutcomeUnknown
from django_smska.receipts import Receipt
from django_smska.testing.faults import Fault, frame
from django_smska.testing.gateway import StandInGateway

from .conftest import HURRIED_SECONDS
from .memory_process import ask
from .sms_ka import Client as Gateway

KINDS = ("send", "balance", "query")
GIGABYTE = 10**9
MEMORY_KIB = 5 * 1024
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
BLANKS = b" " * 65536
ZEROS = zlib.compress(b" " * 16 * 1024**2)
BOMB = gzip.compress(b" " * 16 * 1024**2) * 4


def client(gateway, **options):
    return Gateway("test", "test", url=gateway.url, **{"deadline": 20, "keep_alive": 60, **options})


@dataclass(frozen=True)
class Pieces(Fault):
    """Answers with the bytes that ``of(line)`` yields, where ``line`` is the honest answer. Then it
    hangs up, unless it ``stays``."""

    of: Callable[[bytes], Iterable[bytes]] = lambda line: [frame(line)]
    stays: bool = False

    @property
    def kind(self):
        return replace(super().kind, play=self.play)

    def play(self, wire, fault, line):
        for data in self.of(line):
            wire.send(data)
        return b"" if self.stays else None


@contextmanager
def hostile(play, **options):
    """Give a gateway that answers every request like this."""
    with StandInGateway(**options) as gateway:
        for kind in KINDS:
            gateway.script_all(Pieces("answer", of=play), on=kind)
        yield gateway


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def length(size):
    return b"Content-Length: %d\r\n\r\n" % size


def first(data, more):
    """Return bytes, then others without end."""
    return chain([data], repeat(more))


# --- too much -------------------------------------------------------------------------------------

#: What never ends, or is larger than any answer. The honest line is in most of them.
FLOODS = {
    "length": lambda line: first(OK + length(GIGABYTE) + line, BLANKS),
    "no length": lambda line: first(OK + b"\r\n" + line, BLANKS),
    "chunks": lambda line: first(CHUNKED + chunk(line), chunk(BLANKS)),
    "one chunk": lambda line: first(CHUNKED + b"3fffffff\r\n" + line, BLANKS),
    "chunk size": lambda line: first(CHUNKED, b"f" * 65536),
    "chunk extensions": lambda line: first(CHUNKED, b"1;" + b"x" * 60000 + b"\r\na\r\n"),
    "short extensions": lambda line: first(CHUNKED, b"1;x\r\na\r\n" * 5000),
    "trailers": lambda line: first(CHUNKED + chunk(line) + b"0\r\n", b"X: y\r\n" * 5000),
    "long trailers": lambda line: first(
        CHUNKED + chunk(line) + b"0\r\n", b"X: " + b"y" * 60000 + b"\r\n"
    ),
    "interim answers": lambda line: repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "interim headers": lambda line: repeat(
        b"HTTP/1.1 100 Continue\r\n" + b"X: y\r\n" * 90 + b"\r\n"
    ),
    "long headers": lambda line: [
        OK,
        *(b"X-%d: %s\r\n" % (number, b"a" * 65000) for number in range(98)),
        length(len(line)) + line,
    ],
    "folded header": lambda line: [
        OK + b"X: y\r\n",
        *repeat(b" %s\r\n" % (b"a" * 65000), 97),
        length(len(line)) + line,
    ],
    "one header": lambda line: first(OK + b"X: ", b"a" * 65536),
    "headers": lambda line: first(OK, b"X: y\r\n" * 5000),
    "status line": lambda line: first(b"HTTP/1.1 200 ", b"a" * 65536),
    "no HTTP": lambda line: first(line, b"<html>" * 10000),
    "gzip": lambda line: first(OK + b"Content-Encoding: gzip\r\n" + length(GIGABYTE), BOMB),
    "deflate": lambda line: first(OK + b"Content-Encoding: deflate\r\n" + length(GIGABYTE), ZEROS),
    "br": lambda line: first(OK + b"Content-Encoding: br\r\n\r\n", BOMB),
    "nested": lambda line: first(
        OK + b"Content-Encoding: gzip, deflate\r\nContent-Encoding: gzip\r\n\r\n", BOMB
    ),
    "gzip of the transfer": lambda line: first(
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", chunk(BOMB)
    ),
    "redirect": lambda line: first(
        b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n" + length(GIGABYTE), BLANKS
    ),
}


def is_doubt(outcome, kind):
    return isinstance(outcome, SmsOutcomeUnknown if kind == "send" else QueryFailed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FLOODS)
def test_what_is_too_long_for_an_answer_ends_the_exchange(name, kind):
    """By its size, long before the deadline: the error's code says so."""
    with hostile(FLOODS[name]) as gateway:
        wire = client(gateway)
        outcome = ask(wire, kind)
        assert is_doubt(outcome, kind) and outcome.code.startswith("lost-"), outcome
        assert gateway.wait_for(lambda: gateway.open_connections == 0)
        wire.close()


@pytest.mark.parametrize("name", ["length", "long headers", "chunks"])
def test_so_it_does_over_tls(name, tls, ca_bundle):
    with hostile(FLOODS[name], tls=tls) as gateway:
        wire = client(gateway, ca_bundle=ca_bundle)
        assert is_doubt(ask(wire, "send"), "send")
        assert gateway.wait_for(lambda: gateway.open_connections == 0)


#: Whole answers that are as long as they may be, and cost most to read.
LONGEST = {
    "refusals": b"-1\n" * 21000,
    "lines": b"0|\n" * 21000,
    "fields": b"0|" + b"a|" * 31000,
    "digits": b"0|Message sent|" + b"9" * 63000,
    "entities": b"-4|" + b"&amp;" * 12000,
}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts pages")
def test_no_answer_needs_much_memory():
    plays = FLOODS | {name: lambda _, body=body: [frame(body)] for name, body in LONGEST.items()}
    playing = iter(())

    def play(line):
        return next(playing, lambda line: [frame(line)])(line)

    with hostile(play) as gateway, measuring(gateway.url) as measure:
        needed = {}
        for name, kind in ((name, kind) for name in plays for kind in KINDS):
            playing = iter([plays[name]])
            needed[name, kind] = measure(kind)
    assert {which: kib for which, kib in needed.items() if kib > MEMORY_KIB} == {}


@contextmanager
def measuring(url):
    """Give a function that lets a fresh process ask the gateway, and returns the KiB it needed."""
    command = [sys.executable, "-m", "tests.memory_process", url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def measure(kind):
            process.stdin.write(f"{kind}\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield measure
        process.stdin.close()


# --- too slow -------------------------------------------------------------------------------------


#: So long a hostile gateway plays to a client that stays, in pieces so far from each other; and
#: so late may a busy machine be.
PLAY_SECONDS, STEP_SECONDS, MARGIN_SECONDS = 60, 0.1, 15


@dataclass(frozen=True)
class Slow(Fault):
    """Sends what ``of(line)`` yields, a piece now and then, until the client has gone."""

    of: Callable[[bytes], Iterable[bytes]] = lambda line: [b""]
    begins: threading.Event = field(default_factory=threading.Event)

    @property
    def kind(self):
        return replace(super().kind, play=self.play)

    def play(self, wire, fault, line):
        self.begins.set()
        for data in islice(self.of(line), int(PLAY_SECONDS / STEP_SECONDS)):
            self.send(wire, data)
            wire.wait(STEP_SECONDS)

    def send(self, wire, data):
        wire.send(data)


class SlowRecord(Slow):
    def send(self, wire, data):
        wire.send_beneath_tls(data)


def slowly(data, piece):
    """Yield what comes at once, then a piece without end, byte by byte."""
    return chain([data], (bytes([byte]) for byte in cycle(piece)))


def still(data):
    """Yield what comes at once, and then nothing."""
    return chain([data], repeat(b""))


SLOW = {
    "silence": lambda line: still(b""),
    "status line": lambda line: slowly(b"HTTP/1.1 200 ", b"O"),
    "headers": lambda line: slowly(OK, b"X: yyyyyyyy\r\n"),
    "interim answers": lambda line: slowly(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": lambda line: slowly(OK + length(9999) + line, b" "),
    "body without length": lambda line: slowly(OK + b"\r\n" + line, b" "),
    "chunk size": lambda line: slowly(CHUNKED, b"0"),
    "chunk": lambda line: slowly(CHUNKED + b"fff\r\n" + line, b" "),
    "trailers": lambda line: slowly(CHUNKED + chunk(line) + b"0\r\n", b"X: y\r\n"),
    "pause": lambda line: still(OK + length(len(line)) + line[:-1]),
}


def ask_slow(gateway, fault, kind, **options):
    """Return how long the client stays, and the outcome."""
    gateway.script_all(fault, on=kind)
    wire = client(gateway, deadline=HURRIED_SECONDS, connect_timeout=HURRIED_SECONDS, **options)
    start = time.monotonic()
    outcome = ask(wire, kind)
    seconds = time.monotonic() - start
    wire.close()
    return seconds, outcome


def is_ended_by_the_deadline(outcome, kind):
    return is_doubt(outcome, kind) and outcome.code == "deadline"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_too_slow_ends_at_the_deadline(kind, hurried):
    """Long before the gateway ends it."""
    faults = {name: Slow("answer", of=play) for name, play in SLOW.items()}
    hurried(lambda: all(fault.begins.is_set() for fault in faults.values()))

    def run(fault):
        with StandInGateway() as gateway:
            return ask_slow(gateway, fault, kind)

    with ThreadPoolExecutor(len(faults)) as pool:
        results = dict(zip(faults, pool.map(run, faults.values()), strict=True))
    late = {name: seconds for name, (seconds, _) in results.items() if seconds > MARGIN_SECONDS}
    outcomes = {name: outcome for name, (_, outcome) in results.items()}
    false = {name: one for name, one in outcomes.items() if not is_ended_by_the_deadline(one, kind)}
    assert (late, false) == ({}, {})


@pytest.mark.slow
def test_a_tls_record_that_is_too_slow_ends_at_the_deadline(tls, ca_bundle, hurried):
    fault = SlowRecord("answer", of=lambda line: slowly(b"\x17\x03\x03\x40\x00", b"x"))
    hurried(fault.begins.is_set)
    with StandInGateway(tls=tls) as gateway:
        seconds, outcome = ask_slow(gateway, fault, "send", ca_bundle=ca_bundle)
    assert seconds < MARGIN_SECONDS and is_ended_by_the_deadline(outcome, "send")


def test_a_name_with_many_silent_addresses_ends_at_the_deadline(monkeypatch):

    clock, late, look_up = monotonic.now, [0], socket.getaddrinfo

    def connect(self, address):
        late[0] += self.gettimeout()
        raise TimeoutError

    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: look_up(*args, **more) * 8)
    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(monotonic, "now", lambda: clock() + late[0])
    wire = Gateway("k", "p", url="http://127.0.0.1:1/", connect_timeout=40, deadline=100)
    assert isinstance(wire.send("79041764995", "a", "T"), GatewayUnreachable)
    assert 99 < late[0] < 100.1


# --- cut, or reset --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("end", ["reset", "finish"])
@pytest.mark.parametrize("framed", [frame, lambda line: CHUNKED + chunk(line) + b"0\r\n\r\n"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_is_cut_anywhere_is_no_answer(kind, framed, end):
    """But behind the last byte of its body, nothing that counts is missing."""
    place, whole = 0, 1

    class Cut(Pieces):
        def play(self, wire, fault, line):
            nonlocal whole
            whole = framed(line).index(line) + len(line)
            wire.send(framed(line)[:place])
            getattr(wire, end)()

    with StandInGateway() as gateway:
        gateway.script_all(Cut("answer"), on=kind)
        wire = client(gateway)
        while place < whole:
            outcome = ask(wire, kind)
            assert is_doubt(outcome, kind), (place, outcome)
            place += 1
        assert place > 60


def test_a_last_size_that_is_cut_ends_no_id():
    """The "0" may be the beginning of "0f"."""
    with hostile(lambda line: [CHUNKED + chunk(b"0|Message sent|5a77") + b"0"]) as gateway:
        assert ask(client(gateway), "send") == Receipt("")


# --- more than one answer -------------------------------------------------------------------------

UNASKED = frame(b"0|Message sent|unasked|Balance status|5")
MORE = {
    "an answer": lambda line: [frame(line) + UNASKED],
    "a part of one": lambda line: [frame(line) + UNASKED[:9]],
    "garbage": lambda line: [frame(line) + b"x"],
    "behind chunks": lambda line: [CHUNKED + chunk(line) + b"0\r\n\r\n" + UNASKED],
    "a body behind none": lambda line: [b"HTTP/1.1 204 No Content\r\n\r\n", frame(line)],
}


@pytest.mark.parametrize("name", MORE)
def test_a_connection_with_more_than_one_answer_is_not_used_again(name):
    with StandInGateway() as gateway:
        gateway.script(1, Pieces("answer", of=MORE[name], stays=True))
        wire = client(gateway)
        first, second = ask(wire, "send"), ask(wire, "send")
        assert gateway.connections == 2
        ids = [entry.id for entry in gateway.accepted]
        assert isinstance(first, SmsOutcomeUnknown) or first.gateway_id == ids[0]
        assert second.gateway_id == ids[1]


@pytest.mark.slow
@pytest.mark.parametrize("early", [b"", frame(b"Wait")], ids=["silence", "odd answer"])
def test_the_late_answer_to_a_request_is_not_that_to_the_next(early, let_deadlines_pass):
    """Neither where the first one was given up at the deadline, nor where its answer was odd."""

    class Late(Pieces):
        def play(self, wire, fault, line):
            if early:
                wire.send(early)
            else:
                let_deadlines_pass()
            wire.read(1)  # the next request has begun, or the connection has ended
            return frame(line)

    with StandInGateway() as gateway:
        gateway.script(1, Late("answer"))
        wire = client(gateway, deadline=100)
        assert isinstance(ask(wire, "send"), SmsOutcomeUnknown)
        second = ask(wire, "send")
        assert second.gateway_id == gateway.accepted[1].id

"""How the stand-in gateway spoils its answers, and which request meets which fault.

``FAULTS`` lists every fault by name. A ``Fault`` is one of them with its parameters, and with the
truth that the client cannot see: whether the message was accepted. With a fault before the request
is read, a redirect, a 4xx or a refusal it never is; with one that only changes a later status it
always is.

Standard library only.
"""

from __future__ import annotations

import difflib
import functools
import gzip
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http.client import responses

from django_smska.monotonic import now as monotonic
from django_smska.testing.account import ERRORS, Account

PATH = "/api/httppost.php"
MEGABYTE = 1024 * 1024
HEADERS = (("Content-Type", "text/html; charset=UTF-8"),)
BOTH, ACCEPTED, NOT_ACCEPTED = (True, False), (True,), (False,)


class Gone(Exception):
    """The client has hung up, or the gateway is closing."""


class Wire:
    """One accepted connection: buffered reading, writing, and abrupt ways to end it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.served = 0
        self._buffer = b""

    def read(self, count: int) -> bytes:
        """Return exactly ``count`` bytes."""
        while len(self._buffer) < count:
            self._fill()
        return self._cut(count)

    def read_head(self) -> bytes:
        """Return a request's head without the blank line; ValueError if it cannot be HTTP."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._fill()
            # A TLS greeting has no blank line to wait for.
            if not self._buffer[:1].isupper() or len(self._buffer) > 65536:
                raise ValueError("This is not an HTTP request.")
        return self._cut(end + 4)[:-4]

    def _fill(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise Gone
        self._buffer += data

    def _cut(self, count: int) -> bytes:
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_beneath_tls(self, data: bytes) -> None:
        socket.socket.sendall(self.sock, data)

    def wait(self, seconds: float | None) -> None:
        """Throw away what comes for so long (None: always); ``Gone`` when the client hangs up."""
        deadline = monotonic() + (seconds or 0)
        try:
            while seconds is None or deadline > monotonic():
                self.sock.settimeout(seconds and max(deadline - monotonic(), 0.001))
                if not self.sock.recv(65536):
                    raise Gone
        except TimeoutError:
            pass
        self.sock.settimeout(None)

    def reset(self) -> None:
        """End the connection by RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def finish(self) -> None:
        """Send FIN and let the client close first, because unread bytes would turn FIN into RST."""
        socket.socket.shutdown(self.sock, socket.SHUT_WR)
        self.wait(1)


def frame(body: bytes, status: int = 200, headers: Iterable[tuple[str, str]] = HEADERS) -> bytes:
    """Return a whole, correct HTTP answer."""
    lines = [f"HTTP/1.1 {status} {responses.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "\r\n"]).encode() + body


@dataclass(frozen=True)
class Fault:
    """One fault to play.

    :param name: a key of ``FAULTS``
    :param accepted: is the message accepted, and written to the ledger? ``None`` means the fault's
        usual truth: accepted, where that is possible. Otherwise the answer is ``-3|Sent Error``.
    :param seconds: how long "late" waits, and the interval of the slow ones
    :param until: a ``threading.Event`` for which "late" waits instead, and "answers_twice" before
        it goes on
    :param said: a ``threading.Event`` that is set when "speaks_first" or "answers_twice" has spoken
        unasked
    :param size: bytes of "huge_body" and "slow_body"
    :param location: where a redirect points; "" means here, or the other name of this host
    :param body: what "answer" says; ``{line}`` in it is the honest line
    :param status: of "answer"
    :param headers: of "answer"
    """

    name: str
    accepted: bool | None = None
    seconds: float = 1.0
    until: threading.Event | None = None
    said: threading.Event | None = None
    size: int = 512 * MEGABYTE
    location: str = ""
    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = HEADERS

    def __post_init__(self) -> None:
        if self.name not in FAULTS:
            near = ", ".join(difflib.get_close_matches(self.name, FAULTS, n=3))
            hint = f" Use one of: {near}." if near else ""
            raise ValueError(f"There is no fault {self.name!r}.{hint}")
        accepted = self.kind.truths[0] if self.accepted is None else self.accepted
        if accepted not in self.kind.truths:
            wrong = f"accepted={accepted}"
            raise ValueError(f"The fault {self.name!r} cannot have {wrong}. Omit 'accepted'.")
        object.__setattr__(self, "accepted", accepted)

    @property
    def kind(self) -> Kind:
        return FAULTS[self.name]


def answer(
    body: bytes,
    status: int = 200,
    headers: Iterable[tuple[str, str]] = HEADERS,
    accepted: bool = True,
) -> Fault:
    """Return the fault that answers just these bytes; ``{line}`` in them is the honest line."""
    return Fault("answer", accepted, body=body, status=status, headers=tuple(headers))


Play = Callable[[Wire, Fault, bytes], "bytes | None"]


@dataclass(frozen=True)
class Kind:
    """What is common to all faults of one name.

    :param group: under which heading the fault is listed
    :param play: spoils the honest line; returns the answer to write on a connection that goes on,
        or ``None``: the connection is at its end
    :param truths: the values that ``accepted`` can have, the usual one first
    :param stage: "accept" strikes before TLS, "head" before the request is read, "request" after
        it. The first two strike the connection that is opened next, whatever is asked over it.
    :param on: "send", "query" or "balance": the requests that it is meant for
    :param drawn: may be drawn by chance when no names were chosen
    :param prepare: changes the account, before it is asked for the honest line
    """

    group: str
    play: Play
    truths: tuple[bool, ...] = BOTH
    stage: str = "request"
    on: str = "send"
    drawn: bool = True
    prepare: Callable[[Account, str], object] | None = None


FAULTS: dict[str, Kind] = {}


# ---------------------------------------------------------------- ways to play


def _honest(wire: Wire, fault: Fault, line: bytes) -> bytes:
    return frame(line)


def _say(wire: Wire, fault: Fault, line: bytes) -> bytes:
    return frame(fault.body.replace(b"{line}", line), fault.status, fault.headers)


def _reset(wire: Wire, fault: Fault, line: bytes) -> None:
    wire.reset()


def _close(wire: Wire, fault: Fault, line: bytes) -> None:
    return None


def _silence(wire: Wire, fault: Fault, line: bytes) -> None:
    wire.wait(None)


# The next three may also meet a request that came over an older connection: then there is a line
# already, and nothing more to read.


def _reset_on_greeting(wire: Wire, fault: Fault, line: bytes) -> None:
    if not line:
        wire.sock.recv(65536)
    wire.reset()


def _plain_answer(wire: Wire, fault: Fault, line: bytes) -> None:
    if not line:
        wire.sock.recv(65536)
    wire.send_beneath_tls(frame(b"Bad Request", 400))
    wire.finish()


def _reset_after_20_bytes(wire: Wire, fault: Fault, line: bytes) -> None:
    if not line:
        wire.read(20)
    wire.reset()


def _close_if_reused(wire: Wire, fault: Fault, line: bytes) -> bytes | None:
    return None if wire.served else frame(line)


def _answer_and_close(wire: Wire, fault: Fault, line: bytes) -> None:
    wire.send(frame(line))


def _corrupt_tls(wire: Wire, fault: Fault, line: bytes) -> None:
    wire.send_beneath_tls(b"\x17\x03\x03\x00\x40" + b"\xa5" * 64)


def _late(wire: Wire, fault: Fault, line: bytes) -> bytes:
    if fault.until is None:
        wire.wait(fault.seconds)
    _await(wire, fault)
    return frame(line)


def _await(wire: Wire, fault: Fault) -> None:
    while fault.until and not fault.until.is_set():
        wire.wait(0.02)


def _speaks_first(wire: Wire, fault: Fault, line: bytes) -> None:
    _speak(wire, fault)
    wire.wait(None)


def _answers_twice(wire: Wire, fault: Fault, line: bytes) -> bytes:
    wire.send(frame(line))
    _await(wire, fault)
    _speak(wire, fault)
    return b""


def _speak(wire: Wire, fault: Fault) -> None:
    wire.send(frame(UNASKED))
    if fault.said:
        fault.said.set()


def _endless_100(wire: Wire, fault: Fault, line: bytes) -> None:
    while True:
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        wire.wait(0.01)


def _byte_by_byte(wire: Wire, fault: Fault, line: bytes) -> None:
    for byte in frame(line):
        wire.send(bytes([byte]))
        wire.wait(fault.seconds)


def _long_body(wire: Wire, fault: Fault, line: bytes, piece: int, pause: float) -> None:
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % fault.size + line)
    for start in range(len(line), fault.size, piece):
        wire.send(b" " * min(piece, fault.size - start))
        if pause:
            wire.wait(pause)


def _slow_body(wire: Wire, fault: Fault, line: bytes) -> None:
    _long_body(wire, fault, line, 1024, fault.seconds)


def _huge_body(wire: Wire, fault: Fault, line: bytes) -> None:
    _long_body(wire, fault, line, 65536, 0)


@functools.cache
def _bomb() -> bytes:
    return gzip.compress(b" " * 16 * MEGABYTE) * 32


def _gzip_bomb(wire: Wire, fault: Fault, line: bytes) -> bytes:
    return frame(gzip.compress(line) + _bomb(), headers=(*HEADERS, ("Content-Encoding", "gzip")))


def _status(status: int) -> Play:
    page = b"" if status == 204 else HTML
    return lambda wire, fault, line: frame(page, status)


def _redirect(status: int, elsewhere: bool) -> Play:
    def play(wire: Wire, fault: Fault, line: bytes) -> bytes:
        other = f"http://localhost:{wire.sock.getsockname()[1]}/elsewhere"
        location = fault.location or (other if elsewhere else PATH)
        return frame(b"", status, (*HEADERS, ("Location", location)))

    return play


def _raw(template: bytes) -> Play:
    def play(wire: Wire, fault: Fault, line: bytes) -> None:
        data = template.replace(b"{length}", b"%d" % len(line))
        wire.send(data.replace(b"{half}", line[: len(line) // 2]).replace(b"{line}", line))

    return play


def _edit(pattern: bytes, replacement: bytes, headers: Iterable[tuple[str, str]] = HEADERS) -> Play:
    return lambda wire, fault, line: frame(re.sub(pattern, replacement, line), headers=headers)


# ---------------------------------------------------------------- tables

HTML = b"<html><head><title>Error</title></head><body><h1>Something broke</h1></body></html>"
PHP_WARNING = (
    b"<br />\n<b>Warning</b>:  mysql_query(): Access denied in "
    b"<b>/var/www/api/httppost.php</b> on line <b>42</b><br />\n"
)
UNASKED = b"0|Message sent|unasked0unasked00|Balance status|5"
OK = b"HTTP/1.1 200 OK\r\n"

RAW = {
    "not_http": b"SSH-2.0-OpenSSH_9.2p1\r\n",
    "cut_status_line": b"HTTP/1.1 2",
    "cut_headers": OK + b"Content-Type: text/ht",
    "short_body": OK + b"Content-Length: {length}\r\n\r\n{half}",
    "cut_chunks": OK + b"Transfer-Encoding: chunked\r\n\r\nff\r\n{line}",
    "no_length": OK + b"\r\n{line}",
    "no_length_cut": OK + b"\r\n{half}",
    "two_lengths": OK + b"Content-Length: 5\r\nContent-Length: {length}\r\n\r\n{line}",
    "many_headers": OK
    + b"".join(b"X-Header-%d: 1\r\n" % number for number in range(150))
    + b"Content-Length: {length}\r\n\r\n{line}",
}

# What is found in the honest line, and what stands there instead.
EVERYTHING, ID = rb".+", rb"(?<=Message sent\|)[^|]+"
BALANCE, STATUS = rb"(?<=Balance status\|).+", rb"(?<=0\|Status\|).+"
PAYLOADS = {
    "bom": (rb"^", b"\xef\xbb\xbf"),
    "blank_lines": (EVERYTHING, rb"\r\n\n\g<0>\n\r\n"),
    "crlf": (rb"$", b"\r\n"),
    "spaces_round_bars": (rb"\|", b" | "),
    "missing_field": (rb"\|[^|]*$", b""),
    "extra_field": (rb"$", b"|extra"),
    "empty_body": (EVERYTHING, b""),
    "html_200": (EVERYTHING, HTML),
    "php_warning": (rb"^", PHP_WARNING),
    "two_lines": (EVERYTHING, rb"\g<0>\n\g<0>"),
    "contradicting_lines": (EVERYTHING, rb"\g<0>\n" + ERRORS[-3]),
    "nul": (rb"$", b"\0"),
    "line_separator": (rb"$", "\u2028|".encode()),
    "underscore": (rb"^", b"_"),
    "odd_code": (rb"^0\|", "\u0660|".encode()),
    "no_id": (ID, b""),
    "nul_id": (ID, b"ah1\0acugxz98a27t9z"),
    "long_id": (ID, b"a1" * 5000),
    "script_id": (ID, b"<script>alert(1)</script>"),
    "unknown_id": (ID, rb"x\g<0>"),
    "balance_decimal": (BALANCE, b"7463.50"),
    "balance_comma": (BALANCE, b"7463,50"),
    "balance_negative": (BALANCE, b"-12"),
    "balance_space": (BALANCE, b"7 463,50"),
    "balance_nbsp": (BALANCE, "7\u00a0463".encode()),
    "balance_nan": (BALANCE, b"NaN"),
}
STATUS_PAYLOADS = {
    "status_unknown_number": (STATUS, b"9|DELIVRD"),
    "status_unknown_word": (STATUS, b"4|SOMETHING"),
    "status_unknown": (STATUS, b"2|ENROUTE"),
    "status_contradicts": (STATUS, b"4|EXPIRED"),
    "status_with_error_code": (rb"^0", b"-4"),
}
REFUSALS = {
    "wrong_login": -1,
    "foreign_sender": -2,
    "sent_error": -3,
    "bad_arguments": -4,
    "no_credit": -5,
    "bad_number": -6,
    "bad_sender": -7,
}
PREPARATIONS: dict[str, Callable[[Account, str], object]] = {
    "credit_ends": lambda account, msisdn: setattr(account, "balance", 0),
    "password_changed": lambda account, msisdn: setattr(account, "api_password", "changed"),
}
FATES: dict[str, Callable[[Account, str], object]] = {
    "status_goes_back": lambda account, msisdn: account.fate(msisdn, "DELIVRD", "ACCEPTD"),
    "status_never_final": lambda account, msisdn: account.fate(msisdn, "ACCEPTD"),
}


def _add(
    group: str,
    plays: Mapping[str, Play],
    truths: tuple[bool, ...] = BOTH,
    stage: str = "request",
    on: str = "send",
) -> None:
    for name, play in plays.items():
        FAULTS[name] = Kind(group, play, truths, stage, on)


_add(
    "before the first byte",
    {
        "reset_at_accept": _reset,
        "tls_reset": _reset_on_greeting,
        "tls_hang": _silence,
        "tls_plain": _plain_answer,
    },
    NOT_ACCEPTED,
    stage="accept",
)
_add("after it", {"reset_after_20_bytes": _reset_after_20_bytes}, NOT_ACCEPTED, stage="head")
_add(
    "after it",
    {
        "reset_after_request": _reset,
        "close_without_answer": _close,
        "silence": _silence,
        "late": _late,
        "reused_closed": _close_if_reused,
        "corrupt_tls": _corrupt_tls,
        "closed_after_answer": _answer_and_close,
    },
)
# Not drawn: where they come late enough, no client can know.
FAULTS["speaks_first"] = Kind("unasked", _speaks_first, NOT_ACCEPTED, stage="head", drawn=False)
FAULTS["answers_twice"] = Kind("unasked", _answers_twice, drawn=False)
_add("http", {name: _raw(template) for name, template in RAW.items()})
_add("http", {"endless_100": _endless_100})
_add("http", {f"http_{status}": _status(status) for status in (204, 500, 502, 503)})
_add(
    "http",
    {f"http_{status}": _status(status) for status in (400, 401, 403, 404, 429)},
    NOT_ACCEPTED,
)
for _code in (301, 302, 303, 307, 308):
    _add("http", {f"redirect_{_code}": _redirect(_code, False)}, NOT_ACCEPTED)
    _add("http", {f"redirect_{_code}_elsewhere": _redirect(_code, True)}, NOT_ACCEPTED)
_add(
    "time and size",
    {
        "byte_by_byte": _byte_by_byte,
        "slow_body": _slow_body,
        "huge_body": _huge_body,
        "gzip_bomb": _gzip_bomb,
    },
)
_add("payload", {name: _edit(*edit) for name, edit in PAYLOADS.items()})
_add("payload", {"no_content_type": _edit(rb"$", b"", ())})
_add(
    "payload",
    {
        "windows_1251": _edit(
            rb"$",
            "|рублей".encode("cp1251"),
            (("Content-Type", "text/plain; charset=windows-1251"),),
        )
    },
)
_add("payload", {name: _edit(*edit) for name, edit in STATUS_PAYLOADS.items()}, on="query")
_add(
    "meaning",
    {name: _edit(EVERYTHING, ERRORS[code]) for name, code in REFUSALS.items()},
    NOT_ACCEPTED,
)
for _name, _prepare in PREPARATIONS.items():
    FAULTS[_name] = Kind("meaning", _honest, NOT_ACCEPTED, drawn=False, prepare=_prepare)
for _name, _prepare in FATES.items():
    FAULTS[_name] = Kind("meaning", _honest, ACCEPTED, prepare=_prepare)
FAULTS["answer"] = Kind("payload", _say, drawn=False)


class Script:
    """Which request meets which fault: scripted by number, for all, or drawn with a seed.

    Requests of each sort ("send", "query", "balance") are counted from 1. What the n-th one meets
    depends on the seed and on n alone, not on the order of threads. Not locked: the gateway is.
    """

    def __init__(self, seed: int | None, rate: float, names: Iterable[str] | None) -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"A fault rate lies between 0 and 1; {rate} does not.")
        self.seed = random.randrange(2**32) if seed is None else seed
        self.rate = rate
        self.names = [Fault(name).name for name in names or _names_to_draw()]
        self.counts: Counter[str] = Counter()
        self.single: dict[tuple[str, int], Fault | None] = {}
        self.all: dict[str, Fault] = {}

    def first_free(self, on: str) -> int:
        """Return the number of the next request that nothing is scripted for."""
        number = self.counts[on] + 1
        while (on, number) in self.single:
            number += 1
        return number

    def planned(self, on: str, number: int) -> Fault | None:
        """Return what the request of this sort and number meets."""
        if (on, number) in self.single:
            return self.single[on, number]
        return self.all.get(on) or self._drawn(on, number)

    def begin(self, on: str) -> Fault | None:
        """Count one more request and return what it meets."""
        self.counts[on] += 1
        return self.planned(on, self.counts[on])

    def begin_early(self, stage: str) -> Fault | None:
        """Return what the next request meets if it strikes at this stage, and count it then."""
        for on in ("send", "query", "balance"):
            fault = self.planned(on, self.counts[on] + 1)
            if fault and fault.kind.stage == stage:
                return self.begin(on)
        return None

    def _drawn(self, on: str, number: int) -> Fault | None:
        dice = random.Random(f"{self.seed}:{on}:{number}") if self.rate else None
        names = [name for name in self.names if FAULTS[name].on == on] if dice else []
        if not dice or not names or dice.random() >= self.rate:
            return None
        name = dice.choice(names)
        return Fault(name, dice.choice(FAULTS[name].truths))


def _names_to_draw() -> list[str]:
    return [name for name, kind in FAULTS.items() if kind.drawn]

"""A stand-in for the SMS-ka HTTP gateway, on loopback, for tests, demos and development::

    with StandInGateway(balance=1000) as gateway:
        gateway.script(3, Fault("reset_after_request", accepted=True))
        ...                                    # send to gateway.url, login "test", password "test"
        assert gateway.times_accepted("79041764995", "Hello") == 1

It speaks the provider's documented protocol, keeps accepted messages in a ledger written before it
answers, and plays every fault of ``django_smska.testing.faults``. Each message costs one credit.
``GET /`` shows the accepted messages.

A message is first "3|ACCEPTD", and delivered from the second query on. The number's last two digits
choose another fate::

    01  rejected (5)      03  deleted          05  delivered, then goes back to accepted
    02  expired           04  never final      06  rejected (6)

Standard library only, but for our own rule about senders.
"""

from __future__ import annotations

import contextlib
import html
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterable
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

from django_smska.testing.account import DELIVERED, ENDINGS, ERRORS, Accepted, Account, Received
from django_smska.testing.faults import (
    FAULTS,
    PATH,
    Fault,
    Gone,
    Script,
    Wire,
    answer,
    frame,
)

__all__ = ["FAULTS", "Accepted", "Fault", "Received", "StandInGateway", "answer", "closed_port"]

FORM_TYPE = "application/x-www-form-urlencoded"
MAX_BODY_BYTES = 1024 * 1024
NOT_FOUND = frame(b"Not Found", 404)


def _require_fault(fault: object) -> None:
    if not isinstance(fault, Fault):
        raise TypeError(f"A fault is scripted as Fault({str(fault)!r}), not as {fault!r}.")


class StandInGateway(Account):
    """The gateway on a loopback port; a context manager, or ``start()`` and ``close()``.

    :param host: an address of loopback
    :param port: 0 for a free one
    :param api_key: the login that is right
    :param api_password: its password
    :param balance: credits, one for each message
    :param senders: the sender names that are allowed; ``None`` allows any that a phone can show
    :param ledger: path of a file that each accepted message is appended to, a JSON object a line,
        and synced to disk before the answer
    :param latency: seconds between the ledger and the answer
    :param fault_rate: from 0 to 1: the share of requests that meet a drawn fault
    :param fault_names: the names to draw from; ``None``: all that leave the account as it is
    :param seed: draws the same faults again; ``None`` for a random one (see ``seed``)
    :param tls: ``ssl.SSLContext`` of a server, or ``None`` for plain HTTP
    :param on_send: called with each send's ``Received``, its answer's line and its ``Fault`` or
        ``None``
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str = "test",
        api_password: str = "test",
        balance: Decimal | int = 1000,
        senders: Iterable[str] | None = None,
        ledger: str | os.PathLike[str] | None = None,
        latency: float = 0,
        fault_rate: float = 0,
        fault_names: Iterable[str] | None = None,
        seed: int | None = None,
        tls: ssl.SSLContext | None = None,
        on_send: Callable[[Received, str, Fault | None], object] | None = None,
    ) -> None:
        if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"The stand-in gateway serves loopback only, not {host}.")
        if not 0 <= port <= 65535:
            raise ValueError(f"A port lies between 0 and 65535; {port} does not.")
        self._script = Script(seed, fault_rate, fault_names)
        super().__init__(api_key, api_password, balance, senders, ledger)
        self.host, self.port = host, port
        self.latency = latency
        self._tls, self._on_send = tls, on_send
        self._requests: list[Received] = []
        self._open: dict[threading.Thread, Wire] = {}
        self._closing = threading.Event()
        self.connections = 0

    # ---- life

    def start(self) -> StandInGateway:
        """Listen; return self. OSError if the port is in use or the ledger cannot be written."""
        if self._ledger:
            open(self._ledger, "a").close()
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = socket.create_server((self.host, self.port), family=family, backlog=1024)
        self.port = self._listener.getsockname()[1]
        # Where shutting a listener down does not wake its accept(), this does.
        self._listener.settimeout(0.1)
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def close(self) -> None:
        """Free the port and every connection, also during requests. May be called again."""
        with self._changed:
            self._closing.set()
        _hang_up(self._listener)
        self._acceptor.join()
        self._listener.close()
        with self._changed:
            threads = dict(self._open)
        for wire in threads.values():
            _hang_up(wire.sock)
        for thread in threads:
            thread.join()

    def __enter__(self) -> StandInGateway:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The address to send to."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self._tls else ''}://{host}:{self.port}{PATH}"

    # ---- faults

    @property
    def seed(self) -> int:
        """The seed of the drawn faults; a new gateway with it draws the same ones."""
        return self._script.seed

    def script(self, number: int, fault: Fault | None, on: str | None = None) -> None:
        """Let the request of this number (from 1) meet ``fault``; None keeps it from any fault.

        :param on: "send", "query" or "balance"; only these requests are counted. ``None`` means
            what the fault is meant for: the sends, but for the status payloads.
        """
        if number < 1:
            raise ValueError(f"Requests are counted from 1; there is none with number {number}.")
        if fault is not None:
            _require_fault(fault)
        with self._changed:
            self._script.single[on or (fault.kind.on if fault else "send"), number] = fault

    def script_next(self, fault: Fault, on: str | None = None) -> None:
        """Let the next request without a scripted fault meet this one."""
        _require_fault(fault)
        with self._changed:
            self.script(self._script.first_free(on or fault.kind.on), fault, on)

    def script_all(self, fault: Fault, on: str | None = None) -> None:
        """Let every request meet ``fault`` that nothing else is scripted for."""
        _require_fault(fault)
        with self._changed:
            self._script.all[on or fault.kind.on] = fault

    def unscript(self) -> None:
        """Drop everything scripted and stop drawing: honest answers from now on."""
        with self._changed:
            self._script.single.clear()
            self._script.all.clear()
            self._script.rate = 0

    # ---- what was seen

    @property
    def requests(self) -> list[Received]:
        """Every request that was read whole, oldest first."""
        with self._changed:
            return list(self._requests)

    @property
    def sends(self) -> int:
        """The number of sends that have begun, including those struck before they were read."""
        return self._script.counts["send"]

    @property
    def queries(self) -> int:
        """The number of status queries that have begun."""
        return self._script.counts["query"]

    @property
    def balances(self) -> int:
        """The number of balance requests that have begun."""
        return self._script.counts["balance"]

    @property
    def open_connections(self) -> int:
        """The number of open connections, idle ones too."""
        return len(self._open)

    def wait_for(self, condition: Callable[[], Any], timeout: float = 10) -> bool:
        """Wait until ``condition()`` holds: ``gateway.wait_for(lambda: gateway.sends >= 3)``."""
        with self._changed:
            return bool(self._changed.wait_for(condition, timeout))

    # ---- connections

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                continue
            self.connections += 1
            thread = threading.Thread(
                target=self._serve, args=(sock, self.connections), daemon=True
            )
            with self._changed:
                self._open[thread] = Wire(sock)
            thread.start()

    def _serve(self, sock: socket.socket, connection: int) -> None:
        wire = self._open[threading.current_thread()]
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._struck(wire, "accept"):
                return
            self._secure(wire)
            if not self._struck(wire, "head"):
                self._converse(wire, connection)
        except (Gone, OSError):
            pass
        finally:
            wire.sock.close()
            with self._changed:
                del self._open[threading.current_thread()]
                self._changed.notify_all()

    def _struck(self, wire: Wire, stage: str) -> bool:
        with self._changed:
            fault = self._script.begin_early(stage)
            self._changed.notify_all()
        if fault:
            fault.kind.play(wire, fault, b"")
        return fault is not None

    def _secure(self, wire: Wire) -> None:
        if self._tls is None:
            return
        with self._changed:
            secure = self._tls.wrap_socket(
                wire.sock, server_side=True, do_handshake_on_connect=False
            )
            wire.sock = secure
            if self._closing.is_set():
                raise Gone
        secure.do_handshake()

    def _converse(self, wire: Wire, connection: int) -> None:
        going_on = True
        while going_on:
            try:
                request = self._receive(wire, connection)
            except ValueError:
                wire.send(frame(b"Bad Request", 400))
                return wire.finish()
            data = self._handle(wire, request)
            wire.served += 1
            if data is None:
                return None
            wire.send(data)
            going_on = request.headers.get("connection", "").lower() != "close"

    def _receive(self, wire: Wire, connection: int) -> Received:
        method, target, headers = _parse_head(wire.read_head())
        body = wire.read(_length(headers))
        is_form = headers.get("content-type", "").lower().startswith(FORM_TYPE)
        pairs = parse_qsl(body.decode(errors="replace"), keep_blank_values=True) if is_form else ()
        with self._changed:
            number = len(self._requests) + 1
            request = Received(number, connection, method, target, headers, dict(pairs), body)
            self._requests.append(request)
            self._changed.notify_all()
        return request

    def _handle(self, wire: Wire, request: Received) -> bytes | None:
        path = request.target.partition("?")[0]
        if path == PATH:
            return self._answer(wire, request)
        if path == "/" and request.method == "GET":
            return frame(_page(self).encode())
        return NOT_FOUND

    def _answer(self, wire: Wire, request: Received) -> bytes | None:
        fault = self._begin(request)
        line = self._line(request, fault)
        if self._on_send and request.sort == "send":
            self._on_send(request, line.decode(), fault)
        if self.latency:
            self._closing.wait(self.latency)
        return fault.kind.play(wire, fault, line) if fault else frame(line)

    def _begin(self, request: Received) -> Fault | None:
        if request.method != "POST":
            return None
        with self._changed:
            fault = self._script.begin(request.sort)
            self._changed.notify_all()
        return fault

    def _line(self, request: Received, fault: Fault | None) -> bytes:
        if fault and fault.kind.prepare:
            fault.kind.prepare(self, request.form.get("MSISDN", ""))
        elif fault and request.sort == "send" and not fault.accepted:
            return ERRORS[-3]
        return self.answer_to(request)


@contextlib.contextmanager
def closed_port(host: str = "127.0.0.1") -> Generator[int]:
    """Give a port where nothing listens, which no other process can use in the meantime."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        yield sock.getsockname()[1]


def _hang_up(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # SSLSocket's own shutdown() drops its TLS state under the thread that uses it.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _parse_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _version = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    return method, target, {name.lower(): value.strip() for name, _, value in pairs}


def _length(headers: dict[str, str]) -> int:
    length = int(headers.get("content-length", "0"))
    if not 0 <= length <= MAX_BODY_BYTES:
        raise ValueError(f"A body of {length} bytes is not read.")
    return length


# ---------------------------------------------------------------- the page

STYLE = """
:root { --ink: #1c2430; --faint: #5b6675; --line: #d5dbe3; }
body { margin: 0; background: #f4f6f8; color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
main { box-sizing: border-box; max-width: 68rem; margin: 2rem auto; padding: 1.5rem 2rem;
  background: #fff; border: 1px solid var(--line); border-radius: 8px; }
h1 { margin: 0.5rem 0; font-size: 1.6rem; line-height: 1.25; }
h2 { margin: 2rem 0 0.5rem; font-size: 1.1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.5rem 0.9rem 0.5rem 0; border-top: 1px solid var(--line); text-align: left;
  vertical-align: top; }
th { border: 0; white-space: nowrap; }
td:first-child, .number { white-space: nowrap; }
.text { min-width: 14rem; overflow-wrap: anywhere; }
.id { color: var(--faint); font: 0.8rem/1.8 ui-monospace, monospace; }
.state { padding: 0.1rem 0.5rem; border-radius: 6px; background: #eef1f5; white-space: nowrap; }
.state.DELIVRD { background: #e3f4e6; }
.state.REJECTD, .state.EXPIRED, .state.DELETED { background: #fde7e7; }
.none { color: var(--faint); }
@media (max-width: 40rem) { main { margin: 0; padding: 1rem; border: 0; border-radius: 0; } }
"""
PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Stand-in SMS gateway</title>
  <link rel="icon" href="data:,">
  <style>{style}</style>
</head>
<body>
<main>
<h1>Stand-in SMS gateway</h1>
<p>It plays the provider for development. No phone rings. Balance: {balance}.</p>
<h2>Messages accepted: {count}</h2>
{messages}
<h2>What the last two digits of a number do</h2>
<p>Each query about a message gets the next of these answers, and the last one for ever.</p>
<div class="wide"><table>{endings}</table></div>
</main>
</body>
</html>
"""
MAX_SHOWN = 200
NONE = '<p class="none">None so far. Send one, then load this page again.</p>'
SCROLLING = '<div class="wide" tabindex="0" role="region" aria-label="Messages">'
COLUMNS = ["Time", "Number", "Sender", "Text", "Status", "Id"]
WORDS = {
    "ACCEPTD": "accepted",
    "DELIVRD": "delivered",
    "REJECTD": "rejected",
    "EXPIRED": "expired",
    "DELETED": "deleted",
}


def _row(cells: Iterable[str], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>\n"


def _page(account: Account) -> str:
    """Return the page at ``/``: what was accepted, newest first, and no secrets."""
    accepted = account.accepted
    endings = {f"…{end}": fate for end, fate in ENDINGS.items()} | {"any other": DELIVERED}
    fates = (_row([end, " → ".join(map(_state, fate))]) for end, fate in endings.items())
    return PAGE.format(
        style=STYLE,
        balance=f"{Decimal(account.balance):f}",
        count=len(accepted),
        messages=_table(account, accepted[: -MAX_SHOWN - 1 : -1], len(accepted)),
        endings="".join(fates),
    )


def _table(account: Account, newest: list[Accepted], count: int) -> str:
    if not newest:
        return NONE
    cut = f"<p>The newest {MAX_SHOWN} of them:</p>" if count > MAX_SHOWN else ""
    rows = _row(COLUMNS, "th") + "".join(_message(account, entry) for entry in newest)
    return f"{cut}{SCROLLING}<table>{rows}</table></div>"


def _message(account: Account, entry: Accepted) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.time))
    number, sender = html.escape(f"+{entry.msisdn}"), html.escape(entry.sender)
    text, status = html.escape(entry.text), _state(account.status(entry))
    return (
        f'<tr><td>{when}</td><td class="number">{number}</td><td>{sender}</td>'
        f'<td class="text">{text}</td><td>{status}</td><td class="id">{entry.id}</td></tr>\n'
    )


def _state(status: str) -> str:
    """Return a status such as "4|DELIVRD" as people read it, with the raw one as its tooltip."""
    number, _, word = status.partition("|")
    known = word in WORDS
    words = f"{WORDS[word]} ({number})" if known else html.escape(status)
    title = html.escape(status)
    return f'<span class="state {word if known else ""}" title="{title}">{words}</span>'

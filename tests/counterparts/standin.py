"""A provider on loopback, which a subclass gives its protocol: honest answers, and spoilt ones."""

from __future__ import annotations

import json
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from django_smska.testing.faults import Gone, Wire, frame


@dataclass(frozen=True)
class Received:
    """A request as it came; header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Taking:
    """A message that the provider accepted."""

    id: str
    number: str  # digits alone
    body: str
    sender: str
    reference: str = ""
    callback: str = ""  # where its report is to be pushed, if the request says that


def reply(body: Any, status: int = 200, *, kind: str = "application/json") -> bytes:
    """Return a whole HTTP answer; what is no text becomes JSON."""
    text = body if isinstance(body, str) else json.dumps(body)
    return frame(text.encode(), status, [("Content-Type", kind)])


#: What spoils the answer to a request: it gets the connection, and what makes the honest answer.
Spoiler = Callable[[Wire, Callable[[], bytes]], None]


def instead(data: bytes) -> Spoiler:
    """Answer this; the message is not accepted."""
    return lambda wire, honest: wire.send(data)


def accepts_and_answers(data: bytes) -> Spoiler:
    """Accept the message, and answer this."""

    def spoil(wire: Wire, honest: Callable[[], bytes]) -> None:
        honest()
        wire.send(data)

    return spoil


def cut_in_half(data: bytes) -> Spoiler:
    """Send the first half of this answer, and hang up; the message is not accepted."""

    def spoil(wire: Wire, honest: Callable[[], bytes]) -> None:
        wire.send(data[: len(data) // 2])
        wire.finish()

    return spoil


def accepts_and_resets(wire: Wire, honest: Callable[[], bytes]) -> None:
    honest()
    wire.reset()


def accepts_and_hangs_up(wire: Wire, honest: Callable[[], bytes]) -> None:
    honest()
    wire.finish()


def accepts_and_waits(until: threading.Event) -> Spoiler:
    """Accept the message, and answer nothing until then; the connection is reset after that."""

    def spoil(wire: Wire, honest: Callable[[], bytes]) -> None:
        honest()
        until.wait(60)
        wire.reset()

    return spoil


def accepts_and_cuts(wire: Wire, honest: Callable[[], bytes]) -> None:
    """Send all of the honest answer but its last three bytes, and hang up."""
    wire.send(honest()[:-3])
    wire.finish()


def resets(wire: Wire, honest: Callable[[], bytes]) -> None:
    """Do not accept the message, and reset the connection."""
    wire.reset()


class Standin(ABC):
    """A provider on a loopback port; a context manager.

    A subclass defines :meth:`answer`, which appends to ``accepted``. ``spoil`` lets the next
    request that sends a message meet a spoiler; ``refuse_next`` the answer that it would give of
    itself.

    :ivar accepted: what was accepted, oldest first
    :ivar requests: every request that was read whole
    """

    def __init__(self) -> None:
        self.accepted: list[Taking] = []
        self.requests: list[Received] = []
        self._spoilers: list[Spoiler | None] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    # --- what a subclass defines

    @abstractmethod
    def answer(self, request: Received) -> bytes:
        """Return the honest answer, after what was accepted is in ``accepted``."""

    @abstractmethod
    def sends(self, request: Received) -> bool:
        """Return whether this request sends a message."""

    # --- life

    def __enter__(self) -> Any:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for sock in (self._listener, *self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def spoil(self, *spoilers: Spoiler | None) -> None:
        """Let the next requests that send a message meet these; None is for an honest answer."""
        self._spoilers += spoilers

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        wire = Wire(sock)
        try:
            while True:
                self._one(wire)
        except (Gone, OSError):
            pass
        finally:
            sock.close()
            self._open.discard(sock)

    def _one(self, wire: Wire) -> None:
        first, *lines = wire.read_head().decode("latin-1").split("\r\n")
        method, target, _version = first.split(" ")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = wire.read(int(headers.get("content-length", 0)))
        request = Received(method, target, headers, body)
        with self._lock:
            self.requests.append(request)
            spoiler = self._spoilers.pop(0) if self._spoilers and self.sends(request) else None

        def honest() -> bytes:
            with self._lock:
                return self.answer(request)

        if spoiler is None:
            wire.send(honest())
        else:
            spoiler(wire, honest)
            raise Gone

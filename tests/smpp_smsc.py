"""An SMSC of the operator, as SMPP 3.4 has it, on a loopback port: what Kannel talks to."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

BIND_TRANSCEIVER, UNBIND, SUBMIT, DELIVER, ENQUIRE_LINK = 0x09, 0x06, 0x04, 0x05, 0x15
ANSWER = 0x80000000  # is added to the number of what it answers

DELIVERED, EXPIRED, DELETED = "DELIVRD", "EXPIRED", "DELETED"
UNDELIVERABLE, ACCEPTED, UNKNOWN, REJECTED = "UNDELIV", "ACCEPTD", "UNKNOWN", "REJECTD"
#: The message_state of a receipt (5.2.28).
STATES = {
    DELIVERED: 2,
    EXPIRED: 3,
    DELETED: 4,
    UNDELIVERABLE: 5,
    ACCEPTED: 6,
    UNKNOWN: 7,
    REJECTED: 8,
}
MESSAGE_STATE, RECEIPTED_MESSAGE_ID = 0x0427, 0x001E
INVALID_NUMBER = 0x0B

#: The GSM alphabet (3GPP TS 23.038, 6.2.1) by its codes, and what follows an escape.
ALPHABET = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENSION = {
    0x0A: "\f",
    0x14: "^",
    0x28: "{",
    0x29: "}",
    0x2F: "\\",
    0x3C: "[",
    0x3D: "~",
    0x3E: "]",
    0x40: "|",
    0x65: "€",
}


@dataclass(frozen=True)
class Part:
    """One submit_sm."""

    number: str
    number_type: int  # 1 is international
    sender: str
    validity: str
    coding: int
    esm_class: int
    data: bytes

    @property
    def header(self) -> bytes:
        """The part's header without its length."""
        return self.data[1 : 1 + self.data[0]] if self.esm_class & 0x40 else b""

    @property
    def place(self) -> tuple[int, int, int]:
        """Reference, number of parts, and which of them it is."""
        return tuple(self.header[2:5]) or (0, 1, 1)  # type: ignore[return-value]

    @property
    def content(self) -> bytes:
        return self.data[len(self.header) + 1 :] if self.header else self.data


def text_of(*parts: Part) -> str:
    """Return the text of these parts: a character may stand in two of them."""
    data = b"".join(part.content for part in parts)
    return data.decode("utf-16-be") if parts[0].coding == 8 else from_gsm(data)


def from_gsm(data: bytes) -> str:
    text, codes = "", iter(data)
    for code in codes:
        text += EXTENSION[next(codes)] if code == 0x1B else ALPHABET[code]
    return text


def to_gsm(text: str) -> bytes:
    escaped = {character: bytes([0x1B, code]) for code, character in EXTENSION.items()}
    return b"".join(escaped.get(one) or bytes([ALPHABET.index(one)]) for one in text)


class Smsc:
    """An SMSC that accepts connections while it is ``up``; a context manager.

    :ivar parts: what was submitted and accepted, oldest first
    :ivar answers: by number: the status of the answer, the words of the receipts that follow
    :ivar states_in_receipts: whether they have them as optional parameters, too
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.parts: list[Part] = []
        self.answers: dict[str, tuple[int, list[str]]] = {}
        self.states_in_receipts = True
        self.changed = threading.Condition()
        self._listener: socket.socket | None = None
        self._bound: list[socket.socket] = []
        self._open: set[socket.socket] = set()
        self._sending = threading.Lock()
        self._sequence = 0

    def __enter__(self) -> Smsc:
        self.go_up()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.go_down()

    def go_up(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def go_down(self) -> None:
        """End all connections, and accept none."""
        listener, self._listener = self._listener, None
        for sock in (listener, *self._open):
            with suppress(OSError, AttributeError):
                sock.shutdown(socket.SHUT_RDWR)
        if listener is not None:
            listener.close()
        self.wait_for(lambda: not self._open, "the connections are closed")

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = 30) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, seconds), f"not within {seconds} s: {what}"

    def wait_for_kannel(self) -> None:
        self.wait_for(lambda: self._bound, "Kannel is bound")

    def texts(self) -> list[str]:
        """Return the texts that were accepted whole, in the order of their last parts."""
        whole, begun = [], {}
        for part in list(self.parts):
            reference, count, which = part.place
            pieces = begun.setdefault((part.number, reference, count), {})
            pieces[which] = part
            if len(pieces) == count:
                whole.append(text_of(*(pieces[one] for one in sorted(pieces))))
                pieces.clear()
        return whole

    def sent_to(self, number: str) -> list[Part]:
        return [part for part in list(self.parts) if part.number == number]

    def deliver(self, sender: str, to: str, text: str) -> None:
        """Let a phone send a text."""
        ucs2 = any(one not in (*ALPHABET, *EXTENSION.values()) for one in text)
        data = text.encode("utf-16-be") if ucs2 else to_gsm(text)
        self._deliver(self._bound[-1], sender, to, 0, 8 if ucs2 else 0, data)

    # --- the wire

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self._open.add(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with sock, sock.makefile("rb") as file:
                while len(head := file.read(16)) == 16:
                    length, command, _, sequence = struct.unpack(">4I", head)
                    self._answer(sock, command, sequence, file.read(length - 16))
        except OSError:
            pass
        finally:
            with self.changed:
                self._open.discard(sock)
                if sock in self._bound:
                    self._bound.remove(sock)
                self.changed.notify_all()

    def _answer(self, sock: socket.socket, command: int, sequence: int, body: bytes) -> None:
        if command == BIND_TRANSCEIVER:
            self._send(sock, command | ANSWER, sequence, b"smsc\0")
            with self.changed:
                self._bound.append(sock)
                self.changed.notify_all()
        elif command == SUBMIT:
            self._submitted(sock, sequence, body)
        elif command in (ENQUIRE_LINK, UNBIND):
            self._send(sock, command | ANSWER, sequence)

    def _submitted(self, sock: socket.socket, sequence: int, body: bytes) -> None:
        part, wants_receipt = _parse(body)
        status, words = self.answers.get(part.number, (0, [DELIVERED]))
        if status:
            self._send(sock, SUBMIT | ANSWER, sequence, status=status)
            return
        with self.changed:
            self.parts.append(part)
            the_id = f"id-{len(self.parts)}"
            self.changed.notify_all()
        self._send(sock, SUBMIT | ANSWER, sequence, the_id.encode() + b"\0")
        for word in words if wants_receipt else ():
            receipt = (
                f"id:{the_id} sub:001 dlvrd:001 submit date:2611291200 done date:2611291201 "
                f"stat:{word} err:007 text:"
            )
            data = receipt.encode() + part.content[:20]
            options = b""
            if self.states_in_receipts:
                options += _option(RECEIPTED_MESSAGE_ID, the_id.encode() + b"\0")
                options += _option(MESSAGE_STATE, bytes([STATES[word]]))
            self._deliver(sock, part.number, part.sender, 4, 0, data, options)

    def _deliver(
        self,
        sock: socket.socket,
        sender: str,
        to: str,
        esm_class: int,
        coding: int,
        data: bytes,
        options: bytes = b"",
    ) -> None:
        with self._sending:
            self._sequence += 1
            sequence = self._sequence
        addresses = b"\0\1\1%b\0\0\0%b\0" % (sender.encode(), to.encode())
        flags = bytes([esm_class, 0, 0, 0, 0, 0, 0, coding, 0, len(data)])
        self._send(sock, DELIVER, sequence, addresses + flags + data + options)

    def _send(
        self, sock: socket.socket, command: int, sequence: int, body: bytes = b"", status: int = 0
    ) -> None:
        with self._sending:
            sock.sendall(struct.pack(">4I", 16 + len(body), command, status, sequence) + body)


def _option(tag: int, value: bytes) -> bytes:
    return struct.pack(">2H", tag, len(value)) + value


def _parse(body: bytes) -> tuple[Part, bool]:
    """Read a submit_sm (SMPP 3.4, 4.4.1); return it, and whether it asks for a receipt."""

    def text() -> str:
        nonlocal body
        one, _, body = body.partition(b"\0")
        return one.decode("latin-1")

    def byte() -> int:
        nonlocal body
        one, body = body[0], body[1:]
        return one

    text()  # the type of service
    byte(), byte()
    sender = text()
    number_type, _ = byte(), byte()
    number = text()
    esm_class, _, _ = byte(), byte(), byte()
    text()  # when to deliver
    validity = text()
    wants_receipt, _, coding, _ = byte(), byte(), byte(), byte()
    data = body[1 : 1 + body[0]]
    return Part(number, number_type, sender, validity, coding, esm_class, data), bool(wants_receipt)

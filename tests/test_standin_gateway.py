"""The stand-in gateway: that it speaks the documented protocol, and spoils it as scripted."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from http.client import HTTPConnection
from io import StringIO
from typing import Any
from urllib.parse import urlencode

import pytest
import trustme

from django_smska.testing import faults
from django_smska.testing.gateway import FAULTS, Fault, StandInGateway, answer, closed_port

NUMBER, TEXT = "79041764995", "Проверка"
LOGIN = {"APIKey": "test", "APIPassword": "test"}
SEND = {**LOGIN, "Message": TEXT, "MSISDN": NUMBER, "SenderID": "test"}
TRUTHS = [(name, accepted) for name, kind in FAULTS.items() for accepted in kind.truths]


@pytest.fixture
def gateway() -> Iterator[StandInGateway]:
    with StandInGateway() as running:
        yield running


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_gateway(authority: trustme.CA) -> Iterator[StandInGateway]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with StandInGateway(tls=context) as running:
        yield running


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def request_bytes(form: dict[str, str], close: bool = True) -> bytes:
    body = urlencode(form).encode()
    end = "close" if close else "keep-alive"
    head = (
        f"POST /api/httppost.php HTTP/1.1\r\nHost: x\r\nConnection: {end}\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def connect(gateway: StandInGateway) -> socket.socket:
    return socket.create_connection((gateway.host, gateway.port), timeout=10)


def read_all(sock: socket.socket, limit: int = 10**7) -> bytes:
    data = b""
    while len(data) < limit and (more := sock.recv(65536)):
        data += more
    return data


def exchange(gateway: StandInGateway, data: bytes) -> bytes:
    with connect(gateway) as sock:
        sock.sendall(data)
        return read_all(sock)


def post(gateway: StandInGateway, form: dict[str, str] = SEND, **changes: str) -> bytes:
    """Return the body of the answer to a form."""
    return exchange(gateway, request_bytes({**form, **changes})).partition(b"\r\n\r\n")[2]


def query(gateway: StandInGateway, message_id: str) -> str:
    return post(gateway, LOGIN, Action="query", BatchId=message_id).decode()


def send(gateway: StandInGateway, **changes: str) -> str:
    """Send honestly and return the message's id."""
    return post(gateway, **changes).decode().split("|")[2]


def statuses(gateway: StandInGateway, message_id: str, count: int = 4) -> list[str]:
    return [query(gateway, message_id).removeprefix("0|Status|") for _ in range(count)]


class TestProtocol:
    def test_send(self, gateway: StandInGateway) -> None:
        """A send is answered by the documented line and costs one credit."""
        line = post(gateway).decode()
        assert re.fullmatch(r"0\|Message sent\|[0-9a-z]{17}\|Balance status\|999", line)
        assert gateway.balance == 999

    def test_ids_are_unique(self, gateway: StandInGateway) -> None:
        """Each message has an id of its own."""
        assert send(gateway) != send(gateway)

    def test_balance(self, gateway: StandInGateway) -> None:
        """A balance is answered with the document's leading underscore, as it was set."""
        gateway.balance = Decimal("7464.50")
        assert post(gateway, LOGIN, Action="balance") == b"_0|Balance status|7464.50"

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"APIPassword": "wrong"}, -1),
            ({"APIKey": "wrong"}, -1),
            ({"Message": ""}, -4),
            ({"SenderID": ""}, -4),
            ({"MSISDN": ""}, -4),
            ({"Action": "resend"}, -4),
            ({"Action": ""}, -4),
            ({"MSISDN": "+79041764995"}, -6),
            ({"MSISDN": "89041764995"}, -6),
            ({"MSISDN": "7904176499"}, -6),
            ({"MSISDN": "٧٩٠٤١٧٦٤٩٩٥"}, -6),
            ({"SenderID": "Other"}, -7),
        ],
    )
    def test_refusals(self, changes: dict[str, str], code: int) -> None:
        """What is wrong is refused with the documented text, and not accepted."""
        with StandInGateway(senders=["test"]) as gateway:
            assert post(gateway, **changes) == faults.ERRORS[code]
            assert gateway.accepted == []

    def test_texts_are_the_documented_ones(self) -> None:
        """The error texts are the provider's, letter by letter."""
        assert faults.ERRORS[-3] == b"-3|Sent Error"
        assert faults.ERRORS[-6].endswith(b"is not valid or can not be reached via the API")
        assert faults.ERRORS[-7] == b"-7|Your SenderID is not valid."

    def test_missing_login(self, gateway: StandInGateway) -> None:
        """A form without login lacks a parameter."""
        assert post(gateway, {"Action": "balance"}) == faults.ERRORS[-4]

    def test_no_credit(self) -> None:
        """Credit ends where it ends, and can be filled up in the middle."""
        with StandInGateway(balance=1) as gateway:
            assert post(gateway).endswith(b"|0")
            assert post(gateway) == faults.ERRORS[-5]
            gateway.balance = Decimal(5)
            assert post(gateway).endswith(b"|4")

    def test_password_changed(self, gateway: StandInGateway) -> None:
        """The password can be changed in the middle."""
        gateway.api_password = "new"
        assert post(gateway) == faults.ERRORS[-1]
        assert post(gateway, APIPassword="new").startswith(b"0|")

    def test_get_is_refused(self, gateway: StandInGateway) -> None:
        """The parameters are read from a POST only."""
        data = exchange(
            gateway,
            b"GET /api/httppost.php?%b HTTP/1.1\r\nConnection: close\r\n\r\n"
            % urlencode(SEND).encode(),
        )
        assert data.endswith(faults.ERRORS[-4])
        assert (gateway.accepted, gateway.sends) == ([], 0)

    def test_json_is_refused(self, gateway: StandInGateway) -> None:
        """A body that is no form has no parameters."""
        data = request_bytes(SEND).replace(b"x-www-form-urlencoded", b"json")
        assert exchange(gateway, data).endswith(faults.ERRORS[-4])

    def test_other_path(self, gateway: StandInGateway) -> None:
        """Any other address is not found."""
        data = request_bytes(SEND).replace(b"httppost.php", b"other.php")
        assert exchange(gateway, data).startswith(b"HTTP/1.1 404 ")
        assert gateway.accepted == []

    @pytest.mark.parametrize(
        "data",
        [
            b"nonsense\r\n\r\n",
            b"HELLO\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
        ],
    )
    def test_bad_request(self, gateway: StandInGateway, data: bytes) -> None:
        """What is no HTTP request is answered 400, and the connection is closed."""
        assert exchange(gateway, data).startswith(b"HTTP/1.1 400 ")

    def test_unknown_id(self, gateway: StandInGateway) -> None:
        """The status of an unknown id, or of none, is an error."""
        assert query(gateway, "unknown") == faults.ERRORS[-4].decode()
        assert post(gateway, LOGIN, Action="query") == faults.ERRORS[-4]


class TestFates:
    @pytest.mark.parametrize(
        ("ending", "expected"),
        [
            ("95", "3|ACCEPTD 4|DELIVRD 4|DELIVRD 4|DELIVRD"),
            ("01", "3|ACCEPTD 5|REJECTD 5|REJECTD 5|REJECTD"),
            ("02", "3|ACCEPTD 7|EXPIRED 7|EXPIRED 7|EXPIRED"),
            ("03", "3|ACCEPTD 8|DELETED 8|DELETED 8|DELETED"),
            ("04", "3|ACCEPTD 3|ACCEPTD 3|ACCEPTD 3|ACCEPTD"),
            ("05", "3|ACCEPTD 4|DELIVRD 3|ACCEPTD 3|ACCEPTD"),
            ("06", "3|ACCEPTD 6|REJECTD 6|REJECTD 6|REJECTD"),
        ],
    )
    def test_by_ending(self, gateway: StandInGateway, ending: str, expected: str) -> None:
        """The last two digits of a number choose its fate; delivered is the usual one."""
        assert statuses(gateway, send(gateway, MSISDN=f"790417649{ending}")) == expected.split()

    def test_chosen(self, gateway: StandInGateway) -> None:
        """A fate can be chosen for a number, from a later query on."""
        gateway.fate("+" + NUMBER, "REJECTD", after=2)
        expected = ["3|ACCEPTD", "3|ACCEPTD", "5|REJECTD", "5|REJECTD"]
        assert statuses(gateway, send(gateway)) == expected

    def test_any_status(self, gateway: StandInGateway) -> None:
        """Any sequence can be shown, undocumented statuses too."""
        gateway.fate(NUMBER, "9|STRANGE", "DELETED", after=0)
        assert statuses(gateway, send(gateway), 2) == ["9|STRANGE", "8|DELETED"]

    def test_unknown_word(self, gateway: StandInGateway) -> None:
        """A status word that does not exist is refused, with those that do."""
        with pytest.raises(ValueError, match=r"No status 'DELIVERED'\. Use ACCEPTD, DELIVRD"):
            gateway.fate(NUMBER, "DELIVERED")


class TestRecords:
    def test_request(self, gateway: StandInGateway) -> None:
        """A request is kept as it came: form, headers, bytes, connection."""
        post(gateway)
        request = gateway.requests[0]
        assert request.form == SEND
        assert request.body == urlencode(SEND).encode()
        assert request.headers["host"] == "x"
        assert (request.number, request.connection, request.sort) == (1, 1, "send")

    def test_ledger(self, gateway: StandInGateway) -> None:
        """The ledger has each message accepted, and counts a text that came twice."""
        first, second = send(gateway), send(gateway)
        assert [entry.id for entry in gateway.accepted] == [first, second]
        assert (gateway.accepted[1].text, gateway.accepted[1].request) == (TEXT, 2)
        assert gateway.times_accepted(NUMBER, TEXT) == 2
        assert gateway.times_accepted(NUMBER, "other") == 0

    def test_counters(self, gateway: StandInGateway) -> None:
        """Sends, queries and balances are counted apart."""
        query(gateway, send(gateway))
        post(gateway, LOGIN, Action="balance")
        post(gateway, LOGIN, Action="balance")
        assert (gateway.sends, gateway.queries, gateway.balances) == (1, 1, 2)

    def test_ledger_is_written_before_the_answer(self, tmp_path: Any) -> None:
        """A message stands in the ledger's file while its answer is still awaited."""
        path, release = tmp_path / "ledger.jsonl", threading.Event()
        with StandInGateway(ledger=path) as gateway, connect(gateway) as sock:
            gateway.script_next(Fault("late", until=release))
            sock.sendall(request_bytes(SEND))
            assert gateway.wait_for(lambda: gateway.accepted)
            entry = json.loads(path.read_text("utf-8"))
            release.set()
            assert entry["id"].encode() in read_all(sock)
        assert (entry["msisdn"], entry["text"], entry["sender"]) == (NUMBER, TEXT, "test")

    def test_ledger_is_appended_to(self, tmp_path: Any) -> None:
        """A later run goes on in the same file."""
        path = tmp_path / "ledger.jsonl"
        for _ in range(2):
            with StandInGateway(ledger=path) as gateway:
                post(gateway)
        assert len(path.read_text("utf-8").splitlines()) == 2

    def test_ledger_that_cannot_be_written(self, tmp_path: Any) -> None:
        """A ledger that cannot be written stops the start, not the first message."""
        with pytest.raises(FileNotFoundError):
            StandInGateway(ledger=tmp_path / "no" / "ledger").start()

    def test_many_at_once(self, gateway: StandInGateway) -> None:
        """Many clients at once are all accepted, once each."""
        threads = [
            threading.Thread(target=post, args=(gateway,), kwargs={"Message": str(number)})
            for number in range(50)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(gateway.times_accepted(NUMBER, str(number)) == 1 for number in range(50))
        assert gateway.balance == 950

    def test_on_send(self) -> None:
        """`on_send` is called with each send, its line and its fault."""
        seen: list[Any] = []
        with StandInGateway(on_send=lambda *args: seen.append(args)) as gateway:
            gateway.script(2, Fault("sent_error"))
            post(gateway)
            post(gateway)
            post(gateway, LOGIN, Action="balance")
        assert [request.number for request, _, _ in seen] == [1, 2]
        assert seen[0][1].startswith("0|Message sent|")
        assert seen[1][1:] == ("-3|Sent Error", Fault("sent_error"))


class TestConnections:
    def test_keep_alive(self, gateway: StandInGateway) -> None:
        """Several requests can follow on one connection."""
        with connect(gateway) as sock:
            sock.sendall(request_bytes(SEND, close=False) + request_bytes(SEND))
            assert read_all(sock).count(b"0|Message sent|") == 2
        assert [request.connection for request in gateway.requests] == [1, 1]

    def test_request_in_pieces(self, gateway: StandInGateway) -> None:
        """A request may arrive byte by byte."""
        with connect(gateway) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in request_bytes(SEND):
                sock.sendall(bytes([byte]))
            assert b"0|Message sent|" in read_all(sock)

    def test_tls(self, tls_gateway: StandInGateway, trusting: ssl.SSLContext) -> None:
        """With a certificate it speaks TLS, and says so in its address."""
        assert tls_gateway.url.startswith("https://127.0.0.1:")
        with trusting.wrap_socket(connect(tls_gateway), server_hostname="127.0.0.1") as sock:
            sock.sendall(request_bytes(SEND))
            assert b"0|Message sent|" in read_all(sock)

    def test_https_to_a_plain_port(self, gateway: StandInGateway, trusting: ssl.SSLContext) -> None:
        """A TLS greeting to the plain port gets a plain answer, at once."""
        with connect(gateway) as sock, pytest.raises(ssl.SSLError):
            trusting.wrap_socket(sock, server_hostname="127.0.0.1")

    @pytest.mark.slow
    def test_close_frees_everything(self) -> None:
        """Closing ends idle connections and frees the port, for the next gateway too."""
        with StandInGateway() as gateway:
            clients = [connect(gateway) for _ in range(100)]
            assert gateway.wait_for(lambda: gateway.connections == 100)
        assert gateway.open_connections == 0
        assert [client.recv(1) for client in clients] == [b""] * 100
        for client in clients:
            client.close()
        with StandInGateway(port=gateway.port) as again:
            assert post(again).startswith(b"0|")
        again.close()

    def test_port_in_use(self, gateway: StandInGateway) -> None:
        """A port that is in use is an error at the start."""
        with pytest.raises(OSError, match="in use"):
            StandInGateway(port=gateway.port).start()

    @pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "::"])
    def test_loopback_only(self, host: str) -> None:
        """It serves loopback only."""
        with pytest.raises(ValueError, match="loopback only"):
            StandInGateway(host=host)

    def test_closed_port(self) -> None:
        """`closed_port` gives a port that refuses connections."""
        with closed_port() as port, pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))

    def test_latency(self) -> None:
        """Closing does not wait for the latency to pass."""
        with StandInGateway(latency=600) as gateway, connect(gateway) as sock:
            sock.sendall(request_bytes(SEND))
            assert gateway.wait_for(lambda: gateway.accepted)


class TestScript:
    def test_numbered(self, gateway: StandInGateway) -> None:
        """`script(3, …)` strikes the third send; other requests are not counted."""
        gateway.script(3, Fault("sent_error"))
        post(gateway, LOGIN, Action="balance")
        codes = [post(gateway)[:2] for _ in range(4)]
        assert codes == [b"0|", b"0|", b"-3", b"0|"]

    def test_next(self, gateway: StandInGateway) -> None:
        """`script_next` strikes the next send that nothing is scripted for."""
        post(gateway)
        gateway.script(3, Fault("bad_number"))
        gateway.script_next(Fault("sent_error"))
        gateway.script_next(Fault("bad_sender"))
        assert [post(gateway)[:2] for _ in range(4)] == [b"-3", b"-6", b"-7", b"0|"]

    def test_all(self, gateway: StandInGateway) -> None:
        """`script_all` strikes every send, but for those scripted one by one."""
        gateway.script_all(Fault("sent_error"))
        gateway.script(2, None)
        assert [post(gateway)[:2] for _ in range(3)] == [b"-3", b"0|", b"-3"]
        gateway.unscript()
        assert post(gateway)[:2] == b"0|"

    def test_other_requests(self, gateway: StandInGateway) -> None:
        """Balances and queries can be struck too; status payloads strike queries only."""
        gateway.script_next(Fault("http_502"), on="balance")
        gateway.script_next(Fault("status_unknown_word"))
        message_id = send(gateway)
        assert post(gateway, LOGIN, Action="balance") == faults.HTML
        assert statuses(gateway, message_id, 2) == ["4|SOMETHING", "4|DELIVRD"]

    def test_numbers_count_from_one(self, gateway: StandInGateway) -> None:
        """There is no request number 0."""
        with pytest.raises(ValueError, match="counted from 1"):
            gateway.script(0, Fault("silence"))

    def test_drawn_faults_repeat(self) -> None:
        """The same seed draws the same fault for the n-th send, in any order."""
        first, second = (StandInGateway(seed=7, fault_rate=0.3)._script for _ in range(2))
        drawn = [first.planned("send", number) for number in range(1, 200)]
        assert drawn == [second.planned("send", n) for n in range(199, 0, -1)][::-1]
        met = [fault for fault in drawn if fault]
        assert 20 < len(met) < 100
        assert {fault.accepted for fault in met} == {True, False}

    def test_seed_is_reported(self) -> None:
        """A random seed is shown, so that a run can be repeated."""
        script = StandInGateway(fault_rate=1)._script
        again = StandInGateway(fault_rate=1, seed=script.seed)._script
        assert script.planned("send", 1) == again.planned("send", 1) is not None

    def test_drawn_from_names(self) -> None:
        """Faults are drawn from the names given, and strike at the rate given."""
        with StandInGateway(fault_rate=1, fault_names=["http_500"]) as gateway:
            assert {post(gateway) for _ in range(5)} == {faults.HTML}
            assert post(gateway, LOGIN, Action="balance").startswith(b"_0|")

    @pytest.mark.parametrize("rate", [-0.1, 1.1])
    def test_rate(self, rate: float) -> None:
        """A rate that is no share is refused."""
        with pytest.raises(ValueError, match="between 0 and 1"):
            StandInGateway(fault_rate=rate)

    def test_unknown_name(self) -> None:
        """An unknown fault is refused, with names like it."""
        with pytest.raises(ValueError, match=r"no fault 'silent'\. Use one of: silence"):
            Fault("silent")

    def test_impossible_truth(self) -> None:
        """A truth that a fault cannot have is refused."""
        with pytest.raises(ValueError, match="'reset_at_accept' cannot have accepted=True"):
            Fault("reset_at_accept", accepted=True)

    def test_usual_truth(self) -> None:
        """Without a truth the message is accepted wherever that is possible."""
        assert Fault("silence").accepted is True
        assert Fault("http_404").accepted is False


def played(gateway: StandInGateway, fault: Fault) -> bytes | type[Exception]:
    """Play a fault and return the whole answer, or the class of the error."""
    gateway.script_next(fault)
    try:
        return exchange(gateway, request_bytes(SEND))
    except OSError as error:
        return type(error)


def body_of(gateway: StandInGateway, fault: Fault) -> bytes:
    data = played(gateway, fault)
    assert isinstance(data, bytes)
    return data.partition(b"\r\n\r\n")[2]


@pytest.mark.slow
class TestEveryFault:
    @pytest.mark.parametrize(("name", "accepted"), TRUTHS)
    def test_truth_and_end(self, gateway: StandInGateway, name: str, accepted: bool) -> None:
        """The message is accepted or not as the fault says; it ends when the client hangs up."""
        on = FAULTS[name].on
        message_id = send(gateway) if on == "query" else ""
        gateway.script_next(Fault(name, accepted, body=b"{line}", seconds=0.001))
        form = {**LOGIN, "Action": "query", "BatchId": message_id} if message_id else SEND
        with contextlib.suppress(OSError), connect(gateway) as sock:
            sock.sendall(request_bytes(form))
            assert gateway.wait_for(
                lambda: gateway.sends == 1 and gateway.queries == bool(message_id)
            )
            if name not in ("silence", "tls_hang"):
                sock.recv(1)
        assert gateway.wait_for(lambda: gateway.open_connections == 0)
        assert len(gateway.accepted) == (1 if on == "query" else accepted)

    @pytest.mark.parametrize(
        "name", ["silence", "endless_100", "byte_by_byte", "slow_body", "huge_body"]
    )
    def test_ends_with_the_gateway(self, name: str) -> None:
        """A fault that goes on and on ends when the gateway is closed."""
        with StandInGateway() as gateway, connect(gateway) as sock:
            gateway.script_next(Fault(name))
            sock.sendall(request_bytes(SEND))
            assert gateway.wait_for(lambda: gateway.accepted)
        assert gateway.open_connections == 0

    @pytest.mark.parametrize(("name", "accepted"), TRUTHS)
    def test_on_a_reused_connection(
        self, gateway: StandInGateway, name: str, accepted: bool
    ) -> None:
        """Each fault can strike a later request of a connection as well."""
        on = FAULTS[name].on
        with contextlib.suppress(OSError), connect(gateway) as sock:
            sock.sendall(request_bytes(SEND, close=False))
            message_id = sock.recv(65536).decode().split("|")[2]
            gateway.script_next(Fault(name, accepted, body=b"{line}", seconds=0.001))
            asked = {**LOGIN, "Action": "query", "BatchId": message_id}
            sock.sendall(request_bytes(asked if on == "query" else SEND))
            assert gateway.wait_for(lambda: len(gateway.requests) == 2)
            if FAULTS[name].play is not faults._silence:
                sock.recv(1)
        assert gateway.wait_for(lambda: gateway.open_connections == 0)
        assert len(gateway.accepted) == (1 if on == "query" else 1 + accepted)


class TestBrokenConnections:
    @pytest.mark.parametrize(
        "name", ["reset_at_accept", "tls_reset", "reset_after_20_bytes", "reset_after_request"]
    )
    def test_reset(self, gateway: StandInGateway, name: str) -> None:
        """A reset is a real one, not a polite end."""
        assert played(gateway, Fault(name)) in (ConnectionResetError, BrokenPipeError)

    def test_close(self, gateway: StandInGateway) -> None:
        """`close_without_answer` ends politely, without a byte."""
        assert played(gateway, Fault("close_without_answer")) == b""

    def test_late_by_seconds(self, gateway: StandInGateway) -> None:
        """`late` answers honestly in the end."""
        assert body_of(gateway, Fault("late", seconds=0.01)).startswith(b"0|Message sent|")

    def test_late_and_not_accepted(self, gateway: StandInGateway) -> None:
        """A send that is not accepted is answered by an error, never by a success."""
        assert body_of(gateway, Fault("late", False, seconds=0.01)) == b"-3|Sent Error"

    @pytest.mark.parametrize("accepted", [True, False])
    def test_reused_connection_closed(self, gateway: StandInGateway, accepted: bool) -> None:
        """`reused_closed` serves a new connection, and ends an older one without an answer."""
        gateway.script_all(Fault("reused_closed", accepted))
        with connect(gateway) as sock:
            sock.sendall(request_bytes(SEND, close=False))
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK")
            sock.sendall(request_bytes(SEND, close=False))
            assert sock.recv(65536) == b""
        assert len(gateway.accepted) == 2 * accepted

    def test_closed_after_answer(self, gateway: StandInGateway) -> None:
        """`closed_after_answer` ends a connection that the client wanted to keep."""
        gateway.script_next(Fault("closed_after_answer"))
        assert b"0|Message" in exchange(gateway, request_bytes(SEND, close=False))

    @pytest.mark.slow
    def test_endless_100(self, gateway: StandInGateway) -> None:
        """`endless_100` says "100 Continue" again and again."""
        gateway.script_next(Fault("endless_100"))
        with connect(gateway) as sock:
            sock.sendall(request_bytes(SEND))
            assert read_all(sock, limit=200).count(b"HTTP/1.1 100 Continue\r\n\r\n") >= 8


class TestTls:
    def test_corrupt_record(self, tls_gateway: StandInGateway, trusting: ssl.SSLContext) -> None:
        """`corrupt_tls` breaks the TLS stream after the message was accepted."""
        tls_gateway.script_next(Fault("corrupt_tls"))
        with trusting.wrap_socket(connect(tls_gateway), server_hostname="127.0.0.1") as sock:
            sock.sendall(request_bytes(SEND))
            with pytest.raises(ssl.SSLError):
                sock.recv(65536)
        assert len(tls_gateway.accepted) == 1

    def test_reset_in_greeting(self, tls_gateway: StandInGateway, trusting: ssl.SSLContext) -> None:
        """`tls_reset` resets before the handshake is done."""
        tls_gateway.script_next(Fault("tls_reset"))
        with connect(tls_gateway) as sock, pytest.raises(ConnectionResetError):
            trusting.wrap_socket(sock, server_hostname="127.0.0.1")

    @pytest.mark.slow
    def test_hang_in_greeting(self, tls_gateway: StandInGateway, trusting: ssl.SSLContext) -> None:
        """`tls_hang` takes the greeting and says nothing."""
        tls_gateway.script_next(Fault("tls_hang"))
        with connect(tls_gateway) as sock:
            sock.settimeout(0.05)
            with pytest.raises(TimeoutError):
                trusting.wrap_socket(sock, server_hostname="127.0.0.1")

    def test_plain_answer(self, tls_gateway: StandInGateway, trusting: ssl.SSLContext) -> None:
        """`tls_plain` answers a TLS greeting in plain HTTP."""
        tls_gateway.script_next(Fault("tls_plain"))
        with connect(tls_gateway) as sock, pytest.raises(ssl.SSLError):
            trusting.wrap_socket(sock, server_hostname="127.0.0.1")

    @pytest.mark.parametrize("name", ["silence", "huge_body", "slow_body", "endless_100"])
    def test_ends_when_the_client_hangs_up(
        self, tls_gateway: StandInGateway, trusting: ssl.SSLContext, name: str
    ) -> None:
        """A fault that goes on and on ends with the client, over TLS too."""
        tls_gateway.script_next(Fault(name))
        with trusting.wrap_socket(connect(tls_gateway), server_hostname="127.0.0.1") as sock:
            sock.sendall(request_bytes(SEND))
            assert tls_gateway.wait_for(lambda: tls_gateway.accepted)
        assert tls_gateway.wait_for(lambda: tls_gateway.open_connections == 0)


class TestHttp:
    @pytest.mark.parametrize("name", [name for name in FAULTS if name.startswith("http_")])
    def test_status(self, gateway: StandInGateway, name: str) -> None:
        """`http_…` answers with that status."""
        data = played(gateway, Fault(name))
        assert isinstance(data, bytes)
        assert data.startswith(f"HTTP/1.1 {name[5:]} ".encode())

    @pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
    def test_redirect(self, gateway: StandInGateway, code: int) -> None:
        """`redirect_…` points to itself, to another host name, or where it is reported."""
        plain = played(gateway, Fault(f"redirect_{code}"))
        other = played(gateway, Fault(f"redirect_{code}_elsewhere"))
        shown = played(gateway, Fault(f"redirect_{code}", location="https://example.org/"))
        assert f"HTTP/1.1 {code} ".encode() in plain
        assert b"Location: /api/httppost.php\r\n" in plain
        assert f"Location: http://localhost:{gateway.port}/elsewhere\r\n".encode() in other
        assert b"Location: https://example.org/\r\n" in shown

    @pytest.mark.parametrize(
        ("name", "pattern"),
        [
            ("not_http", rb"SSH-2.0-OpenSSH_9.2p1\r\n"),
            ("cut_status_line", rb"HTTP/1.1 2"),
            ("cut_headers", rb"HTTP/1.1 200 OK\r\nContent-Type: text/ht"),
            ("no_length", rb"HTTP/1.1 200 OK\r\n\r\n0\|Message sent\|\w{17}\|Balance status\|999"),
            ("no_length_cut", rb"HTTP/1.1 200 OK\r\n\r\n0\|Message sent\|\w{10}"),
            ("short_body", rb"(?s).*Content-Length: 51\r\n\r\n0\|Message sent\|\w{10}"),
            (
                "two_lengths",
                rb"(?s).*Length: 5\r\nContent-Length: 51\r\n\r\n0\|Message sent\|.*\|999",
            ),
            ("cut_chunks", rb"(?s).*chunked\r\n\r\nff\r\n0\|Message sent\|.*\|999"),
            ("many_headers", rb"(?s)HTTP/1.1 200 OK\r\n(X-Header-\d+: 1\r\n){150}.*\|999"),
        ],
    )
    def test_raw(self, gateway: StandInGateway, name: str, pattern: bytes) -> None:
        """Each broken form of HTTP is what its name says."""
        data = played(gateway, Fault(name))
        assert isinstance(data, bytes)
        assert re.fullmatch(pattern, data), data

    def test_generic_answer(self, gateway: StandInGateway) -> None:
        """`answer` says any bytes, with any status and headers, round the honest line."""
        data = played(gateway, answer(b"<{line}>", 418, [("X-One", "1")], accepted=False))
        assert data == (
            b"HTTP/1.1 418 I'm a Teapot\r\nX-One: 1\r\nContent-Length: 15\r\n\r\n<-3|Sent Error>"
        )


class TestTimeAndSize:
    @pytest.mark.slow
    def test_byte_by_byte(self, gateway: StandInGateway) -> None:
        """`byte_by_byte` is a correct answer, slowly."""
        assert body_of(gateway, Fault("byte_by_byte", seconds=0.0001)).startswith(b"0|Message")

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["huge_body", "slow_body"])
    def test_body_of_some_size(self, gateway: StandInGateway, name: str) -> None:
        """A long body starts with the line, and has the length that it announces."""
        body = body_of(gateway, Fault(name, size=200_000, seconds=0.00001))
        assert len(body) == 200_000
        assert body.startswith(b"0|Message sent|")

    def test_huge_by_default(self, gateway: StandInGateway) -> None:
        """`huge_body` announces 512 MB."""
        gateway.script_next(Fault("huge_body"))
        with connect(gateway) as sock:
            sock.sendall(request_bytes(SEND))
            assert b"Content-Length: 536870912\r\n" in read_all(sock, limit=100)

    def test_gzip_bomb(self, gateway: StandInGateway) -> None:
        """`gzip_bomb` unpacks to half a gigabyte from half a megabyte, the line in front."""
        gateway.script_next(Fault("gzip_bomb"))
        client = HTTPConnection(gateway.host, gateway.port, timeout=10)
        client.request("POST", faults.PATH, urlencode(SEND), {"Content-Type": gateway_form()})
        response = client.getresponse()
        assert response.headers["Content-Encoding"] == "gzip"
        assert int(response.headers["Content-Length"]) < 1_000_000
        with gzip.open(response) as unpacked:
            assert unpacked.read(15) == b"0|Message sent|"
            assert len(unpacked.read(16 * 2**20)) == 16 * 2**20
        client.close()


def gateway_form() -> str:
    return "application/x-www-form-urlencoded"


LINE = rb"0\|Message sent\|\w{17}\|Balance status\|999"
ID_PLACE = rb"0\|Message sent\|%b\|Balance status\|999"
BALANCE_PLACE = rb"0\|Message sent\|\w{17}\|Balance status\|%b"


class TestPayloads:
    @pytest.mark.parametrize(
        ("name", "pattern"),
        [
            ("bom", b"\xef\xbb\xbf" + LINE),
            ("blank_lines", rb"\r\n\n" + LINE + rb"\n\r\n"),
            ("crlf", LINE + rb"\r\n"),
            ("spaces_round_bars", rb"0 \| Message sent \| \w{17} \| Balance status \| 999"),
            ("missing_field", rb"0\|Message sent\|\w{17}\|Balance status"),
            ("extra_field", LINE + rb"\|extra"),
            ("empty_body", rb""),
            ("html_200", rb"<html>.*</html>"),
            ("php_warning", rb"<br />\n<b>Warning</b>: .*<br />\n" + LINE),
            ("two_lines", LINE + rb"\n" + LINE),
            ("contradicting_lines", LINE + rb"\n-3\|Sent Error"),
            ("nul", LINE + rb"\0"),
            ("line_separator", LINE + "\u2028".encode() + rb"\|"),
            ("underscore", rb"_" + LINE),
            ("odd_code", "\u0660".encode() + LINE[1:]),
            ("windows_1251", LINE + rb"\|" + "рублей".encode("cp1251")),
            ("no_id", ID_PLACE % b""),
            ("nul_id", ID_PLACE % b"ah1\0acugxz98a27t9z"),
            ("long_id", ID_PLACE % rb"(a1){5000}"),
            ("script_id", ID_PLACE % rb"<script>alert\(1\)</script>"),
            ("unknown_id", ID_PLACE % rb"x\w{17}"),
            ("balance_decimal", BALANCE_PLACE % rb"7463\.50"),
            ("balance_comma", BALANCE_PLACE % rb"7463,50"),
            ("balance_negative", BALANCE_PLACE % rb"-12"),
            ("balance_space", BALANCE_PLACE % rb"7 463,50"),
            ("balance_nbsp", BALANCE_PLACE % "7\u00a0463".encode()),
            ("balance_nan", BALANCE_PLACE % rb"NaN"),
        ],
    )
    def test_line(self, gateway: StandInGateway, name: str, pattern: bytes) -> None:
        """Each payload spoils the honest line in one way only."""
        body = body_of(gateway, Fault(name))
        assert re.fullmatch(pattern, body, re.DOTALL), body

    @pytest.mark.parametrize(
        "name", [name for name, kind in FAULTS.items() if kind.group == "payload"]
    )
    def test_no_lie(self, gateway: StandInGateway, name: str) -> None:
        """No payload says "Message sent" of a message that was not accepted."""
        gateway.script_next(Fault(name, False, body=b"{line}"), on="send")
        assert b"Message sent" not in post(gateway)
        assert gateway.accepted == []

    def test_odd_balance_answer(self, gateway: StandInGateway) -> None:
        """The balance payloads spoil the balance answer in the same way."""
        gateway.script_next(Fault("balance_comma"), on="balance")
        assert post(gateway, LOGIN, Action="balance") == b"_0|Balance status|7463,50"

    def test_no_content_type(self, gateway: StandInGateway) -> None:
        """`no_content_type` leaves that header out; all others have one."""
        assert b"Content-Type" not in played(gateway, Fault("no_content_type"))
        assert b"Content-Type: text/html; charset=UTF-8" in played(gateway, Fault("bom"))
        assert b"charset=windows-1251" in played(gateway, Fault("windows_1251"))

    @pytest.mark.parametrize(
        ("name", "line"),
        [
            ("status_unknown_number", "0|Status|9|DELIVRD"),
            ("status_unknown_word", "0|Status|4|SOMETHING"),
            ("status_unknown", "0|Status|2|ENROUTE"),
            ("status_contradicts", "0|Status|4|EXPIRED"),
            ("status_with_error_code", "-4|Status|3|ACCEPTD"),
        ],
    )
    def test_status(self, gateway: StandInGateway, name: str, line: str) -> None:
        """The status payloads spoil the answer to the next query."""
        gateway.script_next(Fault(name))
        message_id = send(gateway)
        assert query(gateway, message_id) == line


class TestMeanings:
    @pytest.mark.parametrize(("name", "code"), faults.REFUSALS.items())
    def test_refusal(self, gateway: StandInGateway, name: str, code: int) -> None:
        """A refusal has the documented text; the message is not accepted."""
        assert body_of(gateway, Fault(name)) == faults.ERRORS[code]

    def test_credit_ends(self, gateway: StandInGateway) -> None:
        """`credit_ends` empties the account, then and from then on."""
        assert body_of(gateway, Fault("credit_ends")) == faults.ERRORS[-5]
        assert post(gateway) == faults.ERRORS[-5]
        gateway.balance = Decimal(10)
        assert post(gateway).endswith(b"|9")

    def test_password_changed(self, gateway: StandInGateway) -> None:
        """`password_changed` locks the client out, then and from then on."""
        assert body_of(gateway, Fault("password_changed")) == faults.ERRORS[-1]
        assert post(gateway) == faults.ERRORS[-1]
        assert post(gateway, APIPassword=gateway.api_password).startswith(b"0|")

    def test_status_goes_back(self, gateway: StandInGateway) -> None:
        """`status_goes_back` takes a final status back."""
        message_id = body_of(gateway, Fault("status_goes_back")).decode().split("|")[2]
        assert statuses(gateway, message_id, 3) == ["3|ACCEPTD", "4|DELIVRD", "3|ACCEPTD"]

    def test_status_never_final(self, gateway: StandInGateway) -> None:
        """`status_never_final` stays at accepted."""
        message_id = body_of(gateway, Fault("status_never_final")).decode().split("|")[2]
        assert set(statuses(gateway, message_id)) == {"3|ACCEPTD"}

    def test_unknown_id(self, gateway: StandInGateway) -> None:
        """`unknown_id` shows an id that no query will find."""
        message_id = body_of(gateway, Fault("unknown_id")).decode().split("|")[2]
        assert query(gateway, message_id) == faults.ERRORS[-4].decode()


class TestPage:
    def page(self, gateway: StandInGateway) -> str:
        return exchange(gateway, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n").decode()

    def test_newest_first(self, gateway: StandInGateway) -> None:
        """The page shows what was accepted, newest first, and the balance."""
        first, second = send(gateway), send(gateway)
        page = self.page(gateway)
        assert page.index(second) < page.index(first)
        assert f"+{NUMBER}" in page
        assert TEXT in page
        assert "Balance: 998." in page

    def test_escaped(self, gateway: StandInGateway) -> None:
        """What came from outside is escaped."""
        send(gateway, Message="<script>{0}</script>", SenderID="<b>")
        page = self.page(gateway)
        assert "&lt;script&gt;{0}&lt;/script&gt;" in page
        assert "<script>" not in page
        assert "<b>" not in page

    def test_a_fate_of_ones_own_is_escaped(self, gateway: StandInGateway) -> None:
        """An unknown status is shown as it is on the wire."""
        send(gateway)
        gateway.fate(NUMBER, '9|"<b>', after=0)
        page = self.page(gateway)
        assert ">9|&quot;&lt;b&gt;</span>" in page
        assert "<b>" not in page

    def test_status(self, gateway: StandInGateway) -> None:
        """The page shows the status that was reported last."""
        message_id = send(gateway, MSISDN="79041764906")
        statuses(gateway, message_id, 2)
        page = self.page(gateway)
        row = page[page.index("+79041764906") : page.index(message_id)]
        assert 'title="6|REJECTD">rejected (6)</span>' in row

    def test_endings(self, gateway: StandInGateway) -> None:
        """The page shows what the end of a number does."""
        page = self.page(gateway)
        row = page[page.index("<td>…02</td>") : page.index("<td>…03</td>")]
        assert row.index("accepted (3)") < row.index("→") < row.index("expired (7)")

    def test_before_the_first(self, gateway: StandInGateway) -> None:
        """An empty ledger is said in words, not shown as an empty table."""
        assert "None so far." in self.page(gateway)
        send(gateway)
        assert "None so far." not in self.page(gateway)

    def test_no_secrets(self) -> None:
        """Login and password are not on the page."""
        with StandInGateway(api_key="login-1", api_password="secret-1") as gateway:
            send(gateway, APIKey="login-1", APIPassword="secret-1")
            page = self.page(gateway)
        assert "login-1" not in page
        assert "secret-1" not in page


RUN = """
import sys
from django.conf import settings
if not settings.configured:
    settings.configure()
from django.core.management import call_command
from django_smska.management.commands.sms_gateway import Command
call_command(Command(), *sys.argv[1:])
"""


@contextlib.contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[str], list[str], int]]:
    """Run the command; give the process, the three lines that it greets with, and its port."""
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", RUN, "--port", "0", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment
    ) as process:
        assert process.stdout
        try:
            greeting = [process.stdout.readline().rstrip() for _ in range(3)]
            yield process, greeting, int(re.findall(r":(\d+)/", greeting[0])[0])
        finally:
            process.kill()


def command(*options: str) -> str:
    from django.core.management import call_command

    from django_smska.management.commands.sms_gateway import Command

    out = StringIO()
    call_command(Command(), *options, stdout=out)
    return out.getvalue()


class TestCommand:
    @pytest.mark.slow
    @pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
    def test_run(self, tmp_path: Any, ending: signal.Signals) -> None:
        """It shows its address, shows each send with a masked number, and ends on a signal."""
        ledger = str(tmp_path / "ledger")
        options = ["--ledger", ledger, "--fault", "sent_error@2", "--api-password", "p@ss"]
        with running(*options) as (process, greeting, port):
            assert greeting[2] == (
                f"SMS_URL=smska://test:p%40ss@127.0.0.1:{port}/api/httppost.php?sender_id=Test"
            )
            assert "django_smska.conf.sms_url(os.environ['SMS_URL'])" in process.stdout.readline()
            for _ in range(2):
                with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
                    sock.sendall(request_bytes({**SEND, "APIPassword": "p@ss"}))
                    read_all(sock)
            process.send_signal(ending)
            output, _ = process.communicate(timeout=10)
        assert re.search(r"^\+7904•••4995  test  0\|Message sent\|\w{17}\|", output)
        assert "-3|Sent Error  [sent_error]" in output
        assert output.endswith("Closed. Messages accepted: 1.\n")
        assert NUMBER not in output
        assert process.returncode == 0
        assert NUMBER in (tmp_path / "ledger").read_text("utf-8")

    @pytest.mark.slow
    def test_senders(self) -> None:
        """`--sender` names those that are allowed, and the greeting the first of them."""
        with running("--sender", "My Shop", "--sender", "Other") as (_, greeting, port):
            assert greeting[2].endswith("?sender_id=My%20Shop")
            for sender, line in (("Other", b"0|Message"), ("test", faults.ERRORS[-7])):
                with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
                    sock.sendall(request_bytes({**SEND, "SenderID": sender}))
                    assert line in read_all(sock)

    def test_list_faults(self) -> None:
        """`--list-faults` names every fault with its truths."""
        lines = command("--list-faults").splitlines()
        assert [line.split()[0] for line in lines] == list(FAULTS)
        assert any(
            re.fullmatch(r"silence +after it +accepted, not-accepted", line) for line in lines
        )

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--host", "0.0.0.0"], "loopback only, not 0.0.0.0"),
            (["--host", "example.org"], "'example.org' does not appear to be an IP"),
            (["--balance", "much"], "--balance much is not a number"),
            (["--balance", "NaN"], "NaN is not"),
            (["--fault", "silent"], "no fault 'silent'. Use one of: silence"),
            (["--fault", "foo"], "There is no fault 'foo'. See --list-faults;"),
            (["--fault", "silence:maybe"], "write :accepted or :not-accepted, not :maybe"),
            (["--fault", "silence@x"], "after @ comes a whole number"),
            (["--fault", "silence@0"], "counted from 1"),
            (["--fault", "http_404:accepted"], "cannot have accepted=True"),
            (["--fault-rate", "2"], "between 0 and 1"),
            (["--port", "99999"], "between 0 and 65535"),
            (["--ledger", "/no/such/place"], "ledger that can be written"),
        ],
    )
    def test_bad_options(self, options: list[str], message: str) -> None:
        """A bad option is refused with what is wrong and what helps."""
        from django.core.management.base import CommandError

        with pytest.raises(CommandError, match=re.escape(message)):
            command("--port", "0", *options)

    def test_port_in_use(self, gateway: StandInGateway) -> None:
        """A port in use is shown, with a way out."""
        from django.core.management.base import CommandError

        with pytest.raises(CommandError, match="Choose a free port with --port") as caught:
            command("--port", str(gateway.port))
        assert "ledger" not in str(caught.value)

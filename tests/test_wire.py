"""The wire against misbehaving gateways on real sockets: never a false "sent", never a false
"not sent", and one request a send."""

import errno
import gc
import socket
import threading
from dataclasses import replace
from unittest import mock

import pytest

from django_smska import monotonic
from django_smska.exceptions import (
    AuthenticationFailed,
    GatewayUnreachable,
    InvalidRequest,
    QueryFailed,
    SmsNotSent,
    SmsOutcomeUnknown,
)
from django_smska.receipts import Receipt
from django_smska.testing.faults import FAULTS, Fault, answer, frame
from django_smska.testing.gateway import StandInGateway, closed_port
from django_smska.wire import ANSWER_LIMIT_BYTES

from .conftest import PATIENT, server_context
from .sms_ka import Client as Gateway

NUMBER = "79041764995"
SLOW = {"silence", "late", "endless_100", "byte_by_byte", "slow_body", "tls_hang"}
BEFORE_THE_FIRST_BYTE = {"tls_reset", "tls_hang", "tls_plain"}


@pytest.fixture
def network(settings):
    """Let requests leave this machine, as far as this test run's own guard lets them."""
    settings.SMSKA_NETWORK_IN_TESTS = True


def client(gateway, **options):
    options = {**PATIENT, **options}
    return Gateway("test", "test", url=gateway.url, **options)


class Hook:
    def __init__(self, error=None, waits_for=None):
        self.calls, self.error, self.waits_for = 0, error, waits_for

    def __call__(self):
        self.calls += 1
        assert self.waits_for is None or self.waits_for.wait(60)
        if self.error:
            raise self.error


def is_true(result, gateway, hook):
    """The verdict does not lie about the ledger, and nothing was sent twice or elsewhere."""
    accepted = len(gateway.accepted)
    assert not any(request.target == "/elsewhere" for request in gateway.requests)
    assert accepted <= 1 and gateway.sends <= 1
    assert hook.calls <= 1
    if isinstance(result, Receipt):
        return accepted == 1
    if isinstance(result, SmsNotSent):
        return accepted == 0
    return isinstance(result, SmsOutcomeUnknown) and hook.calls == 1


SEND_FAULTS = [
    (name, accepted)
    for name, kind in FAULTS.items()
    if kind.on == "send" and name not in ("answer", "reused_closed", "credit_ends")
    for accepted in kind.truths
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "accepted"), SEND_FAULTS)
def test_no_fault_makes_the_wire_lie(name, accepted, gateway):
    said = threading.Event()
    gateway.script(1, Fault(name, accepted, seconds=0.05, size=4_000_000, said=said))
    hook = Hook(waits_for=said if name == "speaks_first" else None)
    deadline = 0.3 if name in SLOW else 60
    wire = client(gateway, deadline=deadline, connect_timeout=deadline)
    try:
        result = wire.send(NUMBER, "Привет", "Test", hook)
    finally:
        wire.close()
    assert is_true(result, gateway, hook), result


@pytest.mark.parametrize(
    "name", sorted(BEFORE_THE_FIRST_BYTE | {"corrupt_tls", "reset_after_request", "silence"})
)
@pytest.mark.parametrize("keep_alive", [0, 1])
def test_over_tls_the_handshake_is_before_the_first_byte(
    name, keep_alive, tls, ca_bundle, let_deadlines_pass
):

    unsent = name in BEFORE_THE_FIRST_BYTE
    with StandInGateway(tls=tls) as gateway:

        def wait_and_let_them_pass():
            gateway.wait_for(lambda: gateway.sends and (unsent or gateway.requests), timeout=60)
            let_deadlines_pass()

        gateway.script(1, Fault(name))
        hook = Hook()
        wire = client(gateway, ca_bundle=ca_bundle, deadline=100, keep_alive=keep_alive)
        wire.backend._wire.connect_timeout = 100
        other = threading.Thread(target=wait_and_let_them_pass)
        if name in SLOW:
            other.start()
        result = wire.send(NUMBER, "text", "Test", hook)
        wire.close()
        if name in SLOW:
            other.join()
        assert is_true(result, gateway, hook), result
        assert hook.calls == (0 if unsent else 1)
        assert isinstance(result, GatewayUnreachable if unsent else SmsOutcomeUnknown)


def test_tls_works_and_an_untrusted_certificate_is_definitely_not_sent(tls, ca_bundle):
    with StandInGateway(tls=tls) as gateway:
        assert isinstance(client(gateway, ca_bundle=ca_bundle).send(NUMBER, "a", "T"), Receipt)
        hook = Hook()
        refused = client(gateway).send(NUMBER, "a", "T", hook)
        assert isinstance(refused, GatewayUnreachable) and hook.calls == 0
        assert gateway.sends == 1


def test_a_closed_port_is_definitely_not_sent():
    hook = Hook()
    with closed_port() as port:
        wire = Gateway("k", "p", url=f"http://127.0.0.1:{port}/x")
        assert isinstance(wire.send(NUMBER, "a", "T", hook), GatewayUnreachable)
    assert hook.calls == 0


def test_an_unknown_name_is_definitely_not_sent(monkeypatch):
    def no_such_name(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    result = Gateway("k", "p", url="http://sms.invalid/x").send(NUMBER, "a", "T")
    assert isinstance(result, GatewayUnreachable)


def test_an_address_of_a_family_that_the_host_lacks_is_passed_over(gateway, monkeypatch):
    """As with an AAAA record where IPv6 is switched off."""
    look_up, no_family = socket.getaddrinfo, 255

    def with_another(*args, **kwargs):
        found = look_up(*args, **kwargs)
        return [(no_family, *one[1:]) for one in found] + found

    monkeypatch.setattr(socket, "getaddrinfo", with_another)
    assert isinstance(client(gateway).send(NUMBER, "a", "T"), Receipt)
    assert gateway.sends == 1


def test_without_any_usable_family_it_is_definitely_not_sent(monkeypatch):
    address = (255, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: [address])
    result = Gateway("k", "p", url="http://127.0.0.1:1/").send(NUMBER, "a", "T")
    assert isinstance(result, GatewayUnreachable)


def test_a_hook_that_raises_ends_the_attempt_with_nothing_written(gateway):
    hook = Hook(LookupError("claim lost"))
    wire = client(gateway)
    with pytest.raises(LookupError, match="claim lost"):
        wire.send(NUMBER, "a", "T", hook)
    wire.close()
    assert gateway.wait_for(lambda: gateway.open_connections == 0)
    assert gateway.sends == 0 and gateway.requests == []


def test_the_hook_is_called_when_the_connection_stands(gateway):
    seen = []
    wire = client(gateway)
    wire.send(NUMBER, "a", "T", lambda: seen.append((gateway.wait_for(
        lambda: gateway.open_connections == 1), gateway.sends)))  # fmt: skip
    assert seen == [(True, 0)]


def test_a_connection_is_replaced_where_permission_was_slow(gateway, monkeypatch):
    """While the database was slow, the gateway may have hung up on the idle connection."""

    clock = monotonic.now
    late = [0]
    monkeypatch.setattr(monotonic, "now", lambda: clock() + late[0])
    wire = client(gateway, deadline=100)
    assert isinstance(wire.send(NUMBER, "a", "T", lambda: late.append(late.pop() + 2)), Receipt)
    assert gateway.connections == 2 and gateway.sends == 1


@pytest.mark.slow
@pytest.mark.parametrize("error", [None, LookupError("claim lost")])
def test_the_deadline_does_not_run_while_permission_is_waited_for(gateway, monkeypatch, error):
    """A rate or a slow database is no fault of the gateway's."""
    from django_smska import wire as module

    clock, sleep = monotonic.now, module.time.sleep
    late, looks = [0], threading.Semaphore(0)

    def look(seconds):
        sleep(seconds)
        looks.release()

    def permission():
        late[0] = 1000
        assert looks.acquire(timeout=60) and looks.acquire(timeout=60)  # the watchdog has looked
        if error:
            raise error

    monkeypatch.setattr(monotonic, "now", lambda: clock() + late[0])
    monkeypatch.setattr(module.time, "sleep", look)
    wire = client(gateway, deadline=100)
    if error:
        with pytest.raises(LookupError):
            wire.send(NUMBER, "a", "T", permission)
        return
    assert isinstance(wire.send(NUMBER, "a", "T", permission), Receipt)
    assert gateway.sends == 1


def test_the_deadline_goes_on_after_permission(monkeypatch):
    """With what was left of it, not from the start."""

    clock, look_up = monotonic.now, socket.getaddrinfo
    late = [0]

    def slow_look_up(*args, **kwargs):
        late[0] += 6
        return look_up(*args, **kwargs)

    monkeypatch.setattr(monotonic, "now", lambda: clock() + late[0])
    monkeypatch.setattr(socket, "getaddrinfo", slow_look_up)
    with StandInGateway(on_send=lambda *_: late.append(late.pop() + 6)) as gateway:
        gateway.script(1, Fault("silence"))
        result = client(gateway, deadline=10).send(NUMBER, "a", "T")
    assert isinstance(result, SmsOutcomeUnknown) and result.code == "deadline"


def test_where_it_cannot_be_replaced_nothing_was_written(gateway, monkeypatch):

    clock = monotonic.now
    late = [0]
    monkeypatch.setattr(monotonic, "now", lambda: clock() + late[0])

    def leave():
        gateway.close()
        late[0] = 2

    wire = client(gateway, deadline=100)
    assert isinstance(wire.send(NUMBER, "a", "T", leave), GatewayUnreachable)
    assert gateway.sends == 0


def test_the_request_has_the_documented_fields_and_no_action(gateway):
    client(gateway).send(NUMBER, "a", "MyShop")
    assert gateway.requests[0].form == {
        "APIKey": "test",
        "APIPassword": "test",
        "Message": "a",
        "MSISDN": NUMBER,
        "SenderID": "MyShop",
    }
    assert gateway.requests[0].method == "POST"
    assert gateway.requests[0].headers["accept-encoding"] == "identity"


NASTY = "Привет! + & = % ; | \" ' \\ \n\r\n\t <b> €{} № «ёлка» — 😀👨‍👩‍👧 %D0%9F &amp; ?#"


@pytest.mark.parametrize("text", [NASTY, "+", "a=b&c=d", "100%", "0|Message sent|x", " ", "\n"])
def test_every_character_of_text_and_password_arrives_as_it_is(text):
    login = {"api_key": f"k{text}", "api_password": f"p{text}"}
    with StandInGateway(**login, senders=[f"s{text}"]) as gateway:
        wire = Gateway(f"k{text}", f"p{text}", url=gateway.url)
        assert isinstance(wire.send(NUMBER, text, f"s{text}"), Receipt)
        assert gateway.accepted[0].text == text
        assert gateway.accepted[0].sender == f"s{text}"


def test_a_fresh_connection_is_reused_and_an_idle_one_is_not(gateway, monkeypatch):

    now = monotonic.now()
    monkeypatch.setattr(monotonic, "now", lambda: now)
    wire = client(gateway, keep_alive=1)
    for text in "abc":
        assert isinstance(wire.send(NUMBER, text, "T"), Receipt)
    assert gateway.connections == 1
    monkeypatch.setattr(monotonic, "now", lambda: now + 60)
    assert isinstance(wire.send(NUMBER, "d", "T"), Receipt)
    assert gateway.connections == 2


def test_with_keep_alive_0_no_connection_is_reused(gateway):
    wire = client(gateway, keep_alive=0)
    for text in "abc":
        assert isinstance(wire.send(NUMBER, text, "T"), Receipt)
    assert gateway.connections == 3
    assert gateway.requests[0].headers["connection"] == "close"


@pytest.mark.parametrize("status", [102, 103, 199])
def test_an_interim_answer_is_not_read_as_the_answer(gateway, status):
    """Nor is the answer that follows it read as the one to the next request."""
    interim = b"HTTP/1.1 %d Wait\r\n\r\n" % status
    honest = FAULTS["answer"]

    def play(wire, fault, line):
        wire.send(interim)
        return frame(line)

    gateway.script(1, None)
    wire = client(gateway)
    with mock.patch.dict(FAULTS, answer=replace(honest, play=play)):
        gateway.script(2, answer(b"", accepted=True))
        gateway.script(4, answer(b"", accepted=True))
        results = [wire.send(NUMBER, f"text {n}", "T") for n in range(5)]
    kinds = [type(result).__name__ for result in results]
    assert kinds == ["Receipt", "SmsOutcomeUnknown", "Receipt", "SmsOutcomeUnknown", "Receipt"]
    ids = {entry.text: entry.id for entry in gateway.accepted}
    assert [results[n].gateway_id for n in (0, 2, 4)] == [ids[f"text {n}"] for n in (0, 2, 4)]


def test_an_answer_that_comes_twice_is_not_read_as_the_next_one(gateway):
    begins = [threading.Event() for _ in range(5)]

    def play(wire, fault, line):
        wire.send(frame(line))
        begins[1].wait(30)  # the client begins its next request
        return frame(line)

    wire = client(gateway)
    with mock.patch.dict(FAULTS, answer=replace(FAULTS["answer"], play=play)):
        gateway.script(1, answer(b""))
        results = [wire.send(NUMBER, f"text {n}", "T", begins[n].set) for n in range(4)]
    ids = {entry.text: entry.id for entry in gateway.accepted}
    for n, result in enumerate(results):
        if isinstance(result, Receipt):
            assert result.gateway_id == ids[f"text {n}"]
        else:
            assert isinstance(result, SmsOutcomeUnknown)


@pytest.mark.slow
def test_at_the_hook_no_byte_has_left(gateway):
    """Not even the head of the request."""
    got = []

    def serve(server):
        sock, _ = server.accept()
        with sock:
            sock.settimeout(0.2)
            try:
                got.append(sock.recv(1))
            except TimeoutError:
                got.append(b"")
            asked.set()
            sock.settimeout(60)
            sock.recv(1)  # it hangs up when something was written

    asked = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=[server])
        thread.start()
        wire = Gateway("k", "p", url=f"http://127.0.0.1:{server.getsockname()[1]}/", deadline=60)
        result = wire.send(NUMBER, "a", "T", lambda: asked.wait(60))
        thread.join()
    assert got == [b""]
    assert isinstance(result, SmsOutcomeUnknown)


@pytest.mark.parametrize("accepted", [True, False])
def test_a_reused_connection_that_dies_is_unknown(gateway, accepted):
    gateway.script(2, Fault("reused_closed", accepted))
    wire = client(gateway)
    assert isinstance(wire.send(NUMBER, "a", "T"), Receipt)
    assert isinstance(wire.send(NUMBER, "b", "T"), SmsOutcomeUnknown)
    assert gateway.sends == 2


@pytest.fixture(params=["http", "https"])
def either(request, tls):
    with StandInGateway(tls=tls if request.param == "https" else None) as gateway:
        yield gateway


def test_who_speaks_first_is_no_gateway(either, ca_bundle):
    """What was there before the request was written is no answer to it."""
    said = threading.Event()
    either.script(1, Fault("speaks_first", said=said))
    hook = Hook(waits_for=said)
    result = client(either, ca_bundle=ca_bundle).send(NUMBER, "a", "T", hook)
    assert isinstance(result, GatewayUnreachable) and result.code == "spoke-first"
    assert hook.calls == 1 and either.accepted == [] and either.requests == []


def test_who_speaks_first_while_permission_is_awaited_is_no_gateway(either, ca_bundle, monkeypatch):
    """A new connection would only race with what comes on it."""

    said, late, clock = threading.Event(), [0], monotonic.now
    monkeypatch.setattr(monotonic, "now", lambda: clock() + late[0])
    either.script_all(Fault("speaks_first", said=said))

    def permission():
        assert said.wait(60)
        late[0] = 2

    result = client(either, ca_bundle=ca_bundle).send(NUMBER, "a", "T", permission)
    assert isinstance(result, GatewayUnreachable) and either.requests == []


@pytest.mark.parametrize("accepted", [True, False])
def test_a_kept_connection_that_has_spoken_is_not_used_again(either, ca_bundle, accepted):
    """Even if it speaks as late as while permission is waited for."""
    until, said = threading.Event(), threading.Event()
    either.script(1, Fault("answers_twice", accepted, until=until, said=said))
    wire = client(either, ca_bundle=ca_bundle, keep_alive=60)
    first = wire.send(NUMBER, "a", "T")
    assert isinstance(first, Receipt if accepted else SmsNotSent)

    def permission():
        until.set()
        assert said.wait(60)

    second = wire.send(NUMBER, "b", "T", permission)
    (entry,) = [entry for entry in either.accepted if entry.text == "b"]
    assert second.gateway_id == entry.id


def test_over_tls_a_kept_connection_is_used_again(tls, ca_bundle):
    """Its session's tickets are no answer."""
    with StandInGateway(tls=tls) as gateway:
        wire = client(gateway, ca_bundle=ca_bundle, keep_alive=60)
        assert all(isinstance(wire.send(NUMBER, text, "T"), Receipt) for text in "abc")
        assert gateway.connections == 1


def test_a_redirect_is_not_followed_and_its_body_not_read(gateway):
    gateway.script_all(answer(b"x" * 10, 302, [("Location", "http://localhost/elsewhere")]))
    assert isinstance(client(gateway).send(NUMBER, "a", "T"), GatewayUnreachable)
    assert len(gateway.requests) == 1


def test_an_answer_beyond_the_limit_is_unknown(gateway):
    padding = b" " * ANSWER_LIMIT_BYTES
    gateway.script(1, answer(b"{line}" + padding))
    gateway.script(2, answer(b"{line}\n" + padding[:1000]))
    wire = client(gateway)
    assert isinstance(wire.send(NUMBER, "a", "T"), SmsOutcomeUnknown)
    assert isinstance(wire.send(NUMBER, "b", "T"), Receipt)


def test_the_environment_changes_nothing(gateway, monkeypatch, tmp_path):
    with closed_port() as port:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret")
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        assert isinstance(client(gateway).send(NUMBER, "a", "T"), Receipt)
    assert "authorization" not in gateway.requests[0].headers


def test_cookies_are_not_kept(gateway):
    gateway.script(1, answer(b"{line}", headers=[("Set-Cookie", "a=b")]))
    wire = client(gateway)
    wire.send(NUMBER, "a", "T")
    wire.send(NUMBER, "b", "T")
    assert "cookie" not in gateway.requests[1].headers


@pytest.mark.usefixtures("network")
def test_an_explicit_proxy_gets_the_request(gateway):
    wire = Gateway(
        "test", "test", url="http://sms.invalid/api", proxy=gateway.url.rsplit("/", 2)[0]
    )
    wire.send(NUMBER, "a", "T")
    assert gateway.requests[0].target == "http://sms.invalid/api"


@pytest.fixture
def collected_here():
    """urllib3 2.0 does not close the answer of a proxy that refuses, so that it is collected: in
    this test, not in a later one."""
    yield
    gc.collect()


@pytest.mark.slow
@pytest.mark.usefixtures("collected_here")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_refusing_proxy_before_tls_is_definitely_not_sent(gateway):
    """CONNECT passes through the same code as a request, and is none."""
    hook = Hook()
    proxy = gateway.url.rsplit("/", 2)[0]
    wire = Gateway("test", "test", url="https://sms.invalid/api", proxy=proxy)
    assert isinstance(wire.send(NUMBER, "a", "T", hook), GatewayUnreachable)
    assert hook.calls == 0


def test_threads_share_a_client(gateway):
    wire = client(gateway)
    results = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(wire.send(NUMBER, f"t{n}", "T")))
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(result, Receipt) for result in results)
    assert sorted(entry.text for entry in gateway.accepted) == sorted(f"t{n}" for n in range(20))
    ids = {result.gateway_id for result in results}
    assert ids == {entry.id for entry in gateway.accepted}


def test_balance_and_status(gateway):
    wire = client(gateway)
    assert wire.balance() == 1000
    receipt = wire.send(NUMBER, "a", "T")
    assert wire.balance() == 999
    assert wire.status(receipt.gateway_id).status == "sent"
    assert wire.status(receipt.gateway_id).status == "delivered"
    assert isinstance(wire.status("unknown"), QueryFailed)
    gateway.api_password = "changed"
    assert isinstance(wire.balance(), AuthenticationFailed)
    assert isinstance(wire.status(receipt.gateway_id), AuthenticationFailed)


@pytest.mark.parametrize("name", ["reset_after_request", "cut_headers", "http_500", "gzip_bomb"])
@pytest.mark.parametrize("on", ["balance", "query"])
def test_a_question_without_an_answer_is_an_error_of_the_question(gateway, name, on):
    gateway.script_all(Fault(name, accepted=False), on=on)
    wire = client(gateway)
    result = wire.balance() if on == "balance" else wire.status("x")
    assert isinstance(result, QueryFailed)


def test_a_gateway_that_prints_what_it_was_sent_shows_no_secret():
    with StandInGateway(api_key="the-login", api_password="the-password") as gateway:
        echo = b"-4|the-login the-password 79041764995 9041764995 the whole text"
        gateway.script_all(answer(echo, accepted=False))
        result = Gateway("the-login", "the-password", url=gateway.url).send(
            NUMBER, "the whole text", "T"
        )
    for secret in ("the-login", "the-password", "1764995", "whole"):
        assert secret not in str(result)
    assert "withheld" in str(result)


STATUS_ECHOES = {
    "login": b"0|Status|4|the-login",
    "password": b"0|Status|9|SOMETHING the-password",
    "password in base64": b"0|Status|4|dGhlLXBhc3N3b3Jk",
    "text": b"0|Status|4|DELIVRD the%20whole%20text",
    "number": b"0|Status|4|79041764995",
    "a refusal": b"-4|the-login the-password 79041764995",
    "no line": b"Warning: select * where password='the-password' and to='79041764995'",
}


@pytest.mark.parametrize("echo", STATUS_ECHOES)
def test_a_status_answer_that_repeats_secrets_is_withheld(echo):
    with StandInGateway(api_key="the-login", api_password="the-password") as gateway:
        gateway.script_all(answer(STATUS_ECHOES[echo]), on="query")
        wire = Gateway("the-login", "the-password", url=gateway.url)
        result = wire.status("some-id", text="the whole text", msisdn=NUMBER)
        shown = f"{result!r} {result}"
        for secret in ("the-login", "the-password", "dGhl", "1764995", "whole"):
            assert secret not in shown


def test_the_backend_withholds_what_a_status_answer_repeats_of_the_message(gateway):
    from types import SimpleNamespace

    from django_smska.backends.smska import SmsBackend

    gateway.script_all(answer("0|Status|4|DELIVRD Ваш код 1234".encode()), on="query")
    backend = SmsBackend(api_key="test", api_password="test", url=gateway.url)
    message = SimpleNamespace(to="+" + NUMBER, body="Ваш код 1234", gateway_id="x")
    assert "код" not in backend.get_status(message).raw


@pytest.mark.parametrize(
    "echo", ["the-password", "THE-PASSWORD", NUMBER, NUMBER[1:], "key", "whole_text"]
)
def test_an_id_that_repeats_what_was_sent_is_none(echo):
    with StandInGateway(api_key="key", api_password="the-password") as gateway:
        gateway.script_all(answer(f"0|Message sent|{echo}|Balance status|5".encode()))
        result = Gateway("key", "the-password", url=gateway.url).send(NUMBER, "whole text", "T")
    assert result == Receipt("", 5)


# --- why it could not be reached


def refusal(url, made=lambda: None, **options):
    hook = Hook()
    wire = Gateway("k", "p", url=url, **{**PATIENT, **options})
    made()
    result = wire.send(NUMBER, "a", "T", hook)
    assert isinstance(result, GatewayUnreachable) and hook.calls == 0
    return result


def test_a_refused_connection_says_so_and_where():
    with closed_port() as port:
        result = refusal(f"http://127.0.0.1:{port}/x")
    assert result.code == "connect-refused"
    assert "was refused" in str(result) and f"127.0.0.1:{port}" in str(result)


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize("reason", [socket.EAI_NONAME, socket.EAI_AGAIN])
def test_an_unknown_name_says_so_and_which(monkeypatch, reason):
    def no_such_name(*args, **kwargs):
        raise socket.gaierror(reason, "not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    result = refusal("https://sms.invalid/x")
    assert result.code == "connect-name"
    assert "host name was not found" in str(result) and "sms.invalid:443" in str(result)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TimeoutError(), "connect-timeout"),
        (OSError(errno.ENETUNREACH, "x"), "connect-network"),
        (OSError(errno.EHOSTUNREACH, "x"), "connect-network"),
        (OSError(errno.EMFILE, "x"), "connect-ConnectionError"),
        (ConnectionResetError(), "hung-up"),
    ],
)
def test_other_failures_to_connect_are_named(monkeypatch, error, code):
    def connect(self, address):
        raise error

    monkeypatch.setattr(socket.socket, "connect", connect)
    assert refusal("http://127.0.0.1:1/").code == code


def test_a_certificate_says_so(tls, ca_bundle, authority):
    with StandInGateway(tls=tls) as gateway:
        untrusted = refusal(gateway.url)
    with StandInGateway(tls=server_context(authority, "example.org")) as gateway:
        foreign = refusal(gateway.url, ca_bundle=ca_bundle)
    for result in (untrusted, foreign):
        assert result.code == "connect-certificate" and "certificate" in str(result)


def test_tls_to_a_plain_port_says_so(gateway):
    result = refusal(gateway.url.replace("http:", "https:"))
    assert result.code == "connect-tls" and "https://" in str(result)


HANDSHAKES = {"tls_hang": "connect-timeout", "tls_reset": "hung-up", "tls_plain": "connect-tls"}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), HANDSHAKES.items())
def test_a_failed_handshake_says_how(gateway, name, code):
    gateway.script(1, Fault(name))
    short = {"connect_timeout": 0.5} if name == "tls_hang" else {}
    assert refusal(gateway.url.replace("http:", "https:"), **short).code == code


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there_says_so_without_its_login(scheme):
    with closed_port() as port:
        result = refusal(f"{scheme}://sms.invalid/", proxy=f"http://me:word@127.0.0.1:{port}")
    assert result.code == "connect-proxy"
    assert f"(proxy 127.0.0.1:{port})" in str(result)
    assert "me" not in result.address and "word" not in str(result)


@pytest.mark.slow
@pytest.mark.usefixtures("network")
@pytest.mark.usefixtures("collected_here")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_proxy_that_does_not_connect_says_so(gateway):
    result = refusal("https://sms.invalid/", proxy=gateway.url.rsplit("/", 2)[0])
    assert result.code == "connect-tunnel" and "sms.invalid:443" in str(result)


def test_a_bundle_that_has_gone_says_so(tls, tmp_path):
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    with StandInGateway(tls=tls) as gateway:
        result = refusal(gateway.url, made=bundle.unlink, ca_bundle=bundle)
    assert result.code == "connect-bundle"


def test_a_wrong_path_says_where(gateway):
    gateway.script(1, Fault("http_404"))
    result = client(gateway).send(NUMBER, "a", "T")
    assert f"Address: 127.0.0.1:{gateway.port}. The gateway said: HTTP 404" in str(result)


def test_a_text_that_cannot_be_written_is_no_fault_of_the_gateway(gateway):
    result = client(gateway).send(NUMBER, "half \ud83d", "T")
    assert isinstance(result, InvalidRequest) and gateway.connections == 0
    assert "half" not in str(result)

"""A project's tests mock HTTP with the usual libraries: they see what would become of a message,
and no request leaves the machine."""

import contextlib
import socket
import subprocess
import sys
import threading

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

from django_smska import wire, wire_in_tests
from django_smska.exceptions import (
    AuthenticationFailed,
    GatewayUnreachable,
    SmsOutcomeUnknown,
)
from django_smska.models import SmsMessage
from django_smska.sms import providers, queue_sms, send_sms
from django_smska.testing import run_sms_worker

from .conftest import options
from .documents import run
from .packages import package

NUMBER = "+79041764995"
URL = "http://sms.example/api/httppost.php"
FORM = {"APIKey": "test", "APIPassword": "test", "SenderID": "Test", "Message": "text"}
FORM["MSISDN"] = NUMBER[1:]


@pytest.fixture(autouse=True)
def no_network(settings, transactional_db, gateway, monkeypatch):
    """Let the provider's address be another machine's, and fail where its name is looked up."""
    settings.SMSKA_LOCMEM_IN_TESTS = False
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": {**options(gateway), "url": URL}}}
    look_up = socket.getaddrinfo

    def guarded(host, *args, **more):
        assert host != "sms.example", "a test looks up the gateway's name"
        return look_up(host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", guarded)


def status():
    return SmsMessage.objects.get().status


def with_responses(answer):
    """Return a context in which the library answers so: with a text, or by raising."""
    mock = package("responses").RequestsMock()
    mock.add("POST", URL, body=answer)
    return mock


def with_requests_mock(answer):
    mock = package("requests_mock").Mocker()
    raises = isinstance(answer, Exception)
    mock.register_uri("POST", URL, **({"exc": answer} if raises else {"text": answer}))
    return mock


each_mock = pytest.mark.parametrize("mocked", [with_responses, with_requests_mock])


@each_mock
def test_an_answer_is_read_as_the_gateways(mocked, gateway):
    answer = read_from(gateway)
    with mocked(answer):
        assert send_sms(NUMBER, "text").gateway_id
    assert status() == "sent"


def read_from(gateway, **wrong):
    """Return what the stand-in answers to a send."""
    with requests.Session() as session:
        session.trust_env = False
        return session.post(gateway.url, {**FORM, **wrong}).text


@each_mock
def test_a_refusal_is_read_as_the_gateways(mocked, gateway):
    answer = read_from(gateway, APIPassword="other")
    with mocked(answer), pytest.raises(AuthenticationFailed):
        send_sms(NUMBER, "text")
    assert status() == "failed"


def new_connection_error():
    inner = urllib3.exceptions.NewConnectionError(None, "refused")
    return requests.ConnectionError(urllib3.exceptions.MaxRetryError(None, URL, inner))


@pytest.mark.parametrize(
    "error",
    [
        requests.ReadTimeout(),
        requests.Timeout(),
        requests.ConnectionError(),
        requests.ConnectionError("Connection aborted", ConnectionResetError()),
        requests.exceptions.ChunkedEncodingError(),
        requests.exceptions.SSLError(),
        requests.exceptions.ProxyError(),
        OSError(),
        ValueError(),
    ],
    ids=lambda error: type(error).__name__,
)
@each_mock
def test_any_other_error_is_a_doubt(mocked, error):
    with mocked(error), pytest.raises(SmsOutcomeUnknown):
        send_sms(NUMBER, "text")
    assert status() == "unknown"


@pytest.mark.parametrize(
    "error",
    [
        requests.ConnectTimeout(),
        new_connection_error(),
        requests.ConnectionError(ConnectionRefusedError()),
        requests.ConnectionError(socket.gaierror()),
    ],
    ids=["timeout", "new", "refused", "name"],
)
@each_mock
def test_an_error_that_no_connection_was_made_is_none(mocked, error):
    with mocked(error), pytest.raises(GatewayUnreachable):
        send_sms(NUMBER, "text")
    assert status() == "failed"


def test_one_that_was_only_handled_decides_nothing():
    error = requests.ReadTimeout()
    error.__context__ = ConnectionRefusedError()
    with with_responses(error), pytest.raises(SmsOutcomeUnknown):
        send_sms(NUMBER, "text")


def test_a_body_that_breaks_off_is_a_doubt():
    responses = package("responses")
    with responses.RequestsMock() as mock:
        mock.add("POST", URL, body="0,12", headers={"Content-Length": "99"})
        with pytest.raises(SmsOutcomeUnknown):
            send_sms(NUMBER, "text")
    assert status() == "unknown"


def test_the_row_is_sending_when_the_mock_is_called(gateway):
    seen, answer = [], read_from(gateway)

    def callback(request):
        seen.append(status())
        return 200, {}, answer

    with package("responses").RequestsMock() as mock:
        mock.add_callback("POST", URL, callback)
        send_sms(NUMBER, "text")
    assert seen == ["sending"]


@pytest.mark.parametrize("name", ["responses.RequestsMock", "requests_mock.Mocker"])
def test_a_mock_without_an_answer_sends_nothing(name):
    library, mocker = name.split(".")
    with getattr(package(library), mocker)(), pytest.raises(GatewayUnreachable) as refused:
        send_sms(NUMBER, "text")
    assert refused.value.code == "test-no-answer" and status() == "failed"


def test_what_a_mock_lets_pass_reaches_no_other_machine():
    with package("responses").RequestsMock() as mock:
        mock.add_passthru("http://")
        with pytest.raises(GatewayUnreachable) as refused:
            send_sms(NUMBER, "text")
    assert refused.value.code == "test-run"
    with package("requests_mock").Mocker(real_http=True), pytest.raises(GatewayUnreachable):
        send_sms(NUMBER, "text 2")


def test_what_a_mock_lets_pass_reaches_the_standin(settings, gateway):
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": options(gateway)}}
    with package("responses").RequestsMock() as mock:
        mock.add_passthru("http://127.0.0.1")
        send_sms(NUMBER, "text")
    assert gateway.sends == 1 and status() == "sent"


# --- without a mock, or with one of another client ------------------------------------------------


def refusal():
    with pytest.raises(GatewayUnreachable, match="SMSKA_NETWORK_IN_TESTS = True") as refused:
        send_sms(NUMBER, "text")
    return refused.value.code


def test_without_a_mock_no_other_machine_is_reached():
    assert refusal() == "test-run" and status() == "failed"
    with pytest.raises(GatewayUnreachable):
        providers["default"].get_balance()


def test_nor_through_a_proxy_on_this_machine(settings, gateway):
    proxied = {**options(gateway), "url": URL, "proxy": "http://127.0.0.1:9"}
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": proxied}}
    assert refusal() == "test-run"


def test_a_mock_of_httpx_does_not_hide_a_real_request():
    respx, httpx = package("respx"), package("httpx")
    with respx.mock(assert_all_called=False) as mock:
        mock.post(URL).mock(return_value=httpx.Response(200, text="0,1,2"))
        assert refusal() == "test-run"


def test_a_setting_allows_real_requests(settings, gateway, monkeypatch):
    settings.SMSKA_NETWORK_IN_TESTS = True
    port = int(gateway.url.split(":")[2].split("/")[0])
    url = f"http://shop.example:{port}/api/httppost.php"
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": {**options(gateway), "url": url}}}
    look_up = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *a, **m: look_up("127.0.0.1", *a, **m))
    assert send_sms(NUMBER, "text").status == "sent"


# --- vcrpy ----------------------------------------------------------------------------------------


def record(path, gateway, host="sms.example", times=1):
    """Record sends through the stand-in, as if it had been the provider's host."""
    vcr = package("vcr")
    with vcr.use_cassette(str(path), record_mode="all"):
        for _ in range(times):
            requests.post(gateway.url, FORM, headers={"Accept-Encoding": "identity"})
    port = gateway.url.split("/")[2]
    path.write_text(path.read_text().replace(port, host))


@pytest.mark.slow
def test_a_recorded_cassette_answers_once(tmp_path, gateway):
    vcr = package("vcr")
    record(tmp_path / "sms.yaml", gateway)
    sends = gateway.sends
    with vcr.use_cassette(str(tmp_path / "sms.yaml"), record_mode="none"):
        assert send_sms(NUMBER, "text").status == "sent"
        with pytest.raises(GatewayUnreachable) as refused:
            send_sms(NUMBER, "text 2")
    assert refused.value.code == "test-no-answer" and gateway.sends == sends


@pytest.mark.parametrize("mode", ["once", "new_episodes", "all"])
def test_a_cassette_that_would_record_sends_nothing(tmp_path, mode):
    with package("vcr").use_cassette(str(tmp_path / "none.yaml"), record_mode=mode):
        assert refusal() == "test-recording"


def test_what_a_cassette_ignores_reaches_no_other_machine(tmp_path):
    vcr = package("vcr")
    ignores = {"record_mode": "none", "ignore_hosts": ["sms.example"]}
    with vcr.use_cassette(str(tmp_path / "none.yaml"), **ignores):
        assert refusal() == "test-run"


@pytest.fixture
def beyond(monkeypatch):
    """Return the addresses beyond this machine that a socket was to connect to; none is reached."""
    tried, connect = [], socket.socket.connect

    def guarded(sock, address):
        if sock.family == socket.AF_INET and not address[0].startswith("127."):
            tried.append(address)
            raise ConnectionRefusedError
        return connect(sock, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    return tried


ELSEWHERE = "http://192.0.2.2/api/httppost.php"


@pytest.fixture
def elsewhere(settings, gateway):
    """Let the provider's address be one that needs no lookup."""
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": {**options(gateway), "url": ELSEWHERE}}}


def test_a_real_class_that_another_thread_puts_back_does_not_connect(
    tmp_path, gateway, elsewhere, beyond, monkeypatch
):
    vcr = package("vcr")
    record(tmp_path / "sms.yaml", gateway, "192.0.2.2")
    begin = wire.Attempt.begin_without_connection

    def begin_and_reset(attempt):
        begin(attempt)
        resets.enter_context(vcr.patch.force_reset())

    monkeypatch.setattr(wire.Attempt, "begin_without_connection", begin_and_reset)
    with (
        vcr.use_cassette(str(tmp_path / "sms.yaml"), record_mode="none"),
        contextlib.ExitStack() as resets,
    ):
        assert send_sms(NUMBER, "text").status == "sent"
    assert beyond == []


def test_a_mock_that_ends_in_between_does_not_connect(elsewhere, beyond, monkeypatch):
    mock = package("responses").RequestsMock(assert_all_requests_are_fired=False)
    begin = wire.Attempt.begin_without_connection

    def begin_and_stop(attempt):
        begin(attempt)
        mock.stop()

    monkeypatch.setattr(wire.Attempt, "begin_without_connection", begin_and_stop)
    mock.start()
    assert refusal() == "test-run" and beyond == [] and status() == "failed"


def test_an_address_that_is_checked_nowhere_else_does_not_connect(elsewhere, beyond, monkeypatch):
    monkeypatch.setattr(wire_in_tests._LocalAdapter, "add_headers", HTTPAdapter.add_headers)
    assert refusal() == "test-run" and beyond == []


def test_nor_does_a_local_name_of_another_machine(settings, gateway, beyond, monkeypatch):
    url = URL.replace("sms.example", "shop.localhost")
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": {**options(gateway), "url": url}}}
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.2", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: found)
    assert refusal() == "test-run" and beyond == []


@pytest.mark.slow
def test_many_threads_replay_one_cassette(tmp_path, gateway, elsewhere, beyond, settings):
    vcr = package("vcr")
    record(tmp_path / "sms.yaml", gateway, "192.0.2.2")
    start, counts = threading.Barrier(16), []
    request = requests.Request("POST", ELSEWHERE, data=FORM).prepare()

    def replay():
        start.wait()
        for _ in range(20):
            one = wire_in_tests.WireInTests(network=False)
            with wire.Attempt(5, 1, lambda: None) as attempt:
                counts.append(one._exchange(attempt, request).status)

    path = str(tmp_path / "sms.yaml")
    with vcr.use_cassette(path, record_mode="none", allow_playback_repeats=True):
        threads = [threading.Thread(target=replay) for _ in range(16)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert counts == [200] * 320 and beyond == []


@pytest.mark.slow
def test_a_worker_replays_a_cassette(tmp_path, gateway, elsewhere, beyond):
    vcr = package("vcr")
    record(tmp_path / "sms.yaml", gateway, "192.0.2.2", times=12)
    for number in range(10):
        queue_sms(f"+790417649{number:02}", "text")
    with vcr.use_cassette(str(tmp_path / "sms.yaml"), record_mode="none"):
        assert run_sms_worker() == {"sent": 10}
    assert beyond == []


@pytest.mark.slow
def test_many_threads_record_one_cassette(tmp_path, gateway, settings, beyond):
    vcr = package("vcr")
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": options(gateway)}}
    for number in range(10):
        queue_sms(f"+790417649{number:02}", "text")
    with vcr.use_cassette(str(tmp_path / "sms.yaml"), record_mode="new_episodes") as cassette:
        assert run_sms_worker() == {"sent": 10}
        assert len(cassette) == gateway.sends == 10


@pytest.mark.slow
def test_a_wire_that_is_first_loaded_under_a_cassette_is_made_of_the_real_classes():
    package("vcr")
    code = (
        "import vcr, django; django.setup()\n"
        "from django_smska.backends.smska import SmsBackend\n"
        "with vcr.use_cassette('none.yaml', record_mode='none'):\n"
        "    SmsBackend(api_key='k', api_password='p', alias='a').open()\n"
        "from django_smska import wire\n"
        "print([one.__module__ for one in wire.PhasedHTTPSConnection.__mro__\n"
        "       if one.__module__.startswith('vcr')])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout == "[]\n", run.stderr


# --- the guide ------------------------------------------------------------------------------------


@pytest.fixture
def documented(settings):
    settings.SMS_PROVIDERS = {
        "default": {"OPTIONS": {"api_key": "k", "api_password": "p", "sender_id": "Test"}}
    }


def test_the_example_of_responses(documented):
    package("responses")
    names = run("howto/mocking", "responses.RequestsMock()")
    names["test_an_accepted_message"]()
    assert status() == "sent"
    names["test_a_lost_answer_is_not_sent_again"]()
    assert SmsMessage.objects.order_by("pk").last().status == "unknown"


def test_the_example_of_requests_mock(documented):
    package("requests_mock")
    example_in(run("howto/mocking", "requests_mock.Mocker()"))()
    assert status() == "failed"


def test_the_example_of_a_cassette(tmp_path, gateway):
    package("vcr")
    record(tmp_path / "sms.yaml", gateway)
    example_in(run("howto/mocking", "vcr.use_cassette"))(str(tmp_path / "sms.yaml"))


def test_the_example_of_frozen_time(settings, smsoutbox):
    package("freezegun")
    settings.SMSKA_LOCMEM_IN_TESTS = True
    example_in(run("howto/mocking", "freeze_time"))()
    assert len(smsoutbox) == 1


def example_in(names):
    [function] = [one for name, one in names.items() if name.startswith("test_")]
    return function

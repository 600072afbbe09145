"""An abort in the middle: no frame that it leaves holds a secret, and the phase is kept.

A web server's abort, a timeout by signal or by gevent may strike at any line. Error trackers then
report the local variables of every frame.
"""

import gc
import signal
import sys
import threading

import pytest
import trustme

from django_smska import wire
from django_smska.backends.smska import SmsBackend
from django_smska.exceptions import SmsError
from django_smska.exchange import Request
from django_smska.models import SmsMessage
from django_smska.protocol import read_send_answer
from django_smska.sms import send_sms
from django_smska.testing.faults import Fault
from django_smska.testing.gateway import StandInGateway
from django_smska.wire import Wire

from .conftest import options

# Put together, so that no constant of a frame holds them.
LOGIN, PASSWORD = "-".join(("the", "login")), "-".join(("pass", "word"))
TEXT, DIGITS = " ".join(("the", "whole", "text")), "904" + "1764995"
SECRETS = (LOGIN, PASSWORD, TEXT, DIGITS)
HERE = __file__

# A socket that is cut off while it is being made is closed by Python, with a warning.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.slow,
]


@pytest.fixture(autouse=True)
def _collected_here():
    """The warning comes when the socket is collected: in this test, not in a later one. Until its
    deadline the watchdog holds what was cut off before it could be forgotten."""
    gc.freeze()  # what is older need not be looked at
    yield
    wire.watchdog.reset()
    gc.collect()
    gc.unfreeze()


def frames(error, seen=None):
    """Every frame that an error tracker walks, but for those of the test itself."""
    seen = set() if seen is None else seen
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    place = error.__traceback__
    while place is not None:
        if place.tb_frame.f_code.co_filename != HERE:
            yield place.tb_frame
        place = place.tb_next
    yield from frames(error.__cause__, seen)
    yield from frames(error.__context__, seen)


def shown(error):
    """What is shown of an error: each local variable by name and content."""
    found = {}
    for frame in frames(error):
        for name, value in frame.f_locals.items():
            content = repr(value)
            if isinstance(value, (dict, list, tuple, set)):
                content += repr(list(value))
            found[f"{frame.f_code.co_filename}:{frame.f_lineno} {name}"] = content
    return found


def leaks(error):
    spellings = [*SECRETS, *(secret.replace(" ", "+") for secret in SECRETS)]
    return [
        place for place, content in shown(error).items() if any(s in content for s in spellings)
    ]


@pytest.fixture(params=["http", "https"])
def account(request, tmp_path):
    tls, bundle = None, None
    if request.param == "https":
        import ssl

        authority = trustme.CA()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(tls)
        bundle = str(tmp_path / "ca.pem")
        authority.cert_pem.write_to_path(bundle)
    with StandInGateway(api_key=LOGIN, api_password=PASSWORD, tls=tls) as gateway:
        gateway.tls, gateway.ca_bundle = tls, bundle
        yield gateway


def provider(gateway, **more):
    more = {"api_key": LOGIN, "api_password": PASSWORD, "ca_bundle": gateway.ca_bundle, **more}
    return options(gateway, **{"deadline": 60, "connect_timeout": 60, **more})


def exchange(gateway, hook):
    """Send over the bare wire."""
    form = {
        "APIKey": LOGIN,
        "APIPassword": PASSWORD,
        "Message": TEXT,
        "MSISDN": "7" + DIGITS,
        "SenderID": "Shop",
    }
    request = Request(name="send", url=gateway.url, body=form, secrets=[LOGIN, PASSWORD, TEXT])
    del form
    bare = Wire(ca_bundle=gateway.ca_bundle, deadline=60, connect_timeout=60)
    bare.exchange(request, read_send_answer, hook)


def message():
    return SmsMessage(to="+7" + DIGITS, body=TEXT, sender="Shop")


class Abort:
    """Let a signal raise ``error`` in this thread as soon as ``hangs()`` returns true."""

    def __init__(self, error, hangs):
        self.error, self.hangs, self.over = error, hangs, threading.Event()

    def __enter__(self):
        self.old = signal.signal(signal.SIGUSR1, self._raise)
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self):
        if self.hangs():
            # One that comes right before the call that waits does not wake it.
            while not self.over.wait(0.02):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    def _raise(self, *args):
        if not self.over.is_set():
            self.over.set()
            raise self.error

    def __exit__(self, *exc_info):
        self.over.set()
        self.thread.join()
        signal.signal(signal.SIGUSR1, self.old)


class Timeout(BaseException):
    """As gevent's."""


class Hook:
    def __init__(self, phase):
        self.asked, self.hangs, self.passed = threading.Event(), phase == "hook", False

    def __call__(self, *args):
        self.asked.set()
        if self.hangs:
            threading.Event().wait(30)
        self.passed = True


ERRORS = [SystemExit(1), KeyboardInterrupt(), Timeout()]
# Where it hangs, and whether the request had begun.
PHASES = {"connect": False, "hook": False, "answer": True, "body": True}


def hang(gateway, phase, asked):
    """Make the gateway hang, and return what waits until it does."""
    if phase == "hook":
        return lambda: asked.wait(10)
    if phase == "connect":
        gateway.script_all(Fault("tls_hang"))
        return lambda: gateway.wait_for(lambda: gateway.sends == 1)
    gateway.script_all(Fault("silence" if phase == "answer" else "slow_body", seconds=60))
    return lambda: gateway.wait_for(lambda: gateway.accepted)


def phases(gateway):
    # Over plain HTTP nothing is waited for between the connection and the hook.
    return [phase for phase in PHASES if gateway.ca_bundle or phase != "connect"]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("over", ["backend", "wire"])
def test_an_abort_shows_no_secret_in_any_frame(account, error, over):
    for phase in phases(account):
        with StandInGateway(api_key=LOGIN, api_password=PASSWORD, tls=account.tls) as gateway:
            gateway.ca_bundle = account.ca_bundle
            hook = Hook(phase)
            backend = SmsBackend(alias="default", **provider(gateway))
            one = message()
            one.before_first_byte = hook
            abort = Abort(error, hang(gateway, phase, hook.asked))
            with pytest.raises(type(error)) as raised, abort:
                if over == "backend":
                    backend.send_message(one)
                else:
                    exchange(gateway, hook)
            assert raised.value is error
            assert leaks(error) == [], phase
            assert hook.passed == PHASES[phase]
            assert gateway.wait_for(lambda: gateway.open_connections == 0)


@pytest.mark.parametrize("phase", ["hook", "answer", "body"])
def test_the_phase_is_kept(account, phase, settings, transactional_db, monkeypatch):
    """What had begun stays *sending*, and ends as unknown; what had not is not sent."""
    settings.SMSKA_LOCMEM_IN_TESTS = False
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": provider(account)}}
    hook = Hook(phase)
    if phase == "hook":
        from django_smska import sending

        monkeypatch.setattr(sending, "mark_sending", hook)
    error = SystemExit(1)
    with pytest.raises(SystemExit), Abort(error, hang(account, phase, hook.asked)):
        send_sms("+7" + DIGITS, TEXT)
    assert leaks(error) == []
    assert SmsMessage.objects.get().status == ("sending" if PHASES[phase] else "claimed")
    assert len(account.accepted) == PHASES[phase]


# --- at any line ----------------------------------------------------------------------------------


def abort_at(place, run):
    """Raise SystemExit at a line, the first time that it runs; return the error, or None."""
    error = SystemExit(1)

    def trace(frame, event, arg):
        if event == "line" and (frame.f_code.co_filename, frame.f_lineno) == place:
            raise error
        return trace

    sys.settrace(trace)
    try:
        run()
    except SystemExit as stopped:
        return stopped
    finally:
        sys.settrace(None)
    return None


def lines_of(run):
    """The lines of the package, and of those that it sends through, that run."""
    found = {}

    def trace(frame, event, arg):
        if event == "line":
            found[frame.f_code.co_filename, frame.f_lineno] = None
        return trace

    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(None)
    ours = [place for place in found if "/django_smska/" in place[0] and "testing" not in place[0]]
    theirs = [place for place in found if "/requests/" in place[0] or "/urllib3/" in place[0]]
    return ours + theirs[::3]


@pytest.mark.parametrize("fault", [None, "bad_arguments", "close_without_answer"])
def test_at_no_line_is_a_secret_in_a_frame(fault, account):
    """Below the backend's door, whose caller has nothing but the message."""
    if fault:
        account.script_all(Fault(fault))

    def run():
        try:
            backend.send_message(one)
        except SmsError as error:
            assert leaks(error) == []

    def strike_each_line():
        run()  # what is made at the first use is made
        for place in lines_of(run):
            if (error := abort_at(place, run)) is not None:
                struck.append(place)
                leaking.update({place: leaks(error)} if leaks(error) else {})

    backend, one = SmsBackend(alias="default", **provider(account)), message()
    struck, leaking = [], {}
    # What is raised by a trace function confuses Python about the exceptions that a thread handles.
    thread = threading.Thread(target=strike_each_line)
    thread.start()
    thread.join()
    assert leaking == {}
    assert len(struck) > 200

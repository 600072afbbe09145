"""Shared parts: the stand-in gateway, and providers that really talk to it."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from importlib import import_module
from pathlib import Path

import pytest
import trustme
from django.contrib import admin
from django.db import connection
from django.utils import timezone

from django_smska import monotonic
from django_smska.testing.gateway import StandInGateway

#: Sites of their own, which test_adapters.py and test_contacts.py run.
SITES = {"adapters", "contacts"}
collect_ignore = sorted(SITES - set(os.environ["DJANGO_SETTINGS_MODULE"].split(".")))

EXAMPLE = Path(__file__).resolve().parent.parent / "example_project"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def pytest_report_header():
    return f"database: {connection.vendor}, {connection.settings_dict['NAME']}"


def pytest_make_parametrize_id(val, argname):
    """Name no test by bytes: those of an archive hold its time, so that two processes that collect
    a second apart would have different tests."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch):
    """Refuse each connection to another machine."""
    connect = socket.socket.connect

    def guarded(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOOPBACK:
            raise AssertionError(f"a test connects to {address[0]}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def gateway():
    with StandInGateway() as gateway:
        yield gateway


#: What a request on loopback needs on no machine, however busy: a test that waits for a deadline
#: lets it pass.
PATIENT = {"connect_timeout": 60, "deadline": 60}


def options(gateway, **more):
    """Return OPTIONS of the smska backend for this gateway."""
    return {
        "api_key": "test",
        "api_password": "test",
        "sender_id": "Test",
        "url": gateway.url,
        **PATIENT,
        **more,
    }


#: To pass in 0.3 s by ``hurried``, while no socket's own timeout is shorter than a machine is busy.
HURRIED_SECONDS = 30


@pytest.fixture
def hurried(monkeypatch):
    """Let the package's clock stand until ``hurried(has_begun)`` has begun, and then run a hundred
    times as fast as the real one: however busy the machine is, a deadline passes neither earlier,
    nor much later."""
    clock = monotonic.now

    def hurry(has_begun):
        stood, begun = clock(), []

        def now():
            if not begun and has_begun():
                begun.append(clock())
            return stood + (100 * (clock() - begun[0]) if begun else 0)

        monkeypatch.setattr(monotonic, "now", now)

    return hurry


@pytest.fixture
def let_deadlines_pass(monkeypatch):
    """Return a function that lets the deadlines of all requests pass at once."""
    clock, late = monotonic.now, [0]
    monkeypatch.setattr(monotonic, "now", lambda: clock() + late[0])

    def jump():
        late[0] += 1000

    return jump


@pytest.fixture
def one_moment(monkeypatch):
    """Let the time stand, so that no day ends while a test runs."""
    moment = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: moment)


@pytest.fixture
def sleeps_pass(monkeypatch):
    """Let each sleep of this thread pass at once, by the package's clock too."""
    mine, clock, sleep, slept = threading.get_ident(), monotonic.now, time.sleep, [0]

    def skip(seconds):
        if threading.get_ident() == mine:
            slept[0] += seconds
        else:
            sleep(seconds)

    monkeypatch.setattr(time, "sleep", skip)
    monkeypatch.setattr(monotonic, "now", lambda: clock() + slept[0])


@pytest.fixture
def provider(gateway, settings, transactional_db):
    """Let the default provider be the smska backend, and the stand-in its gateway."""
    settings.SMSKA_LOCMEM_IN_TESTS = False
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": options(gateway)}}
    return gateway


@pytest.fixture
def example(settings, monkeypatch):
    """Serve the example project's pages, without the tables of its login."""
    before = dict(admin.site._registry)  # allauth adds to it
    monkeypatch.syspath_prepend(str(EXAMPLE))
    own = import_module("shop.settings")
    settings.MIDDLEWARE = ["tests.middleware.strict_csp", *own.MIDDLEWARE]
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "shop", "allauth", "allauth.account"]
    settings.ROOT_URLCONF = "shop.urls"
    for name in vars(own):
        if name.startswith(("ACCOUNT_", "ALLAUTH_")) or name == "AUTHENTICATION_BACKENDS":
            setattr(settings, name, getattr(own, name))
    yield
    admin.site._registry = before


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_bundle(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture(scope="module")
def tls(authority):
    return server_context(authority, "127.0.0.1", "localhost")


def server_context(authority, *names):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context

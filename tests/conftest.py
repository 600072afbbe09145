"""Shared parts: the stand-in gateway, and providers that really talk to it."""

from __future__ import annotations

import socket

import pytest
from django.db import connection

from django_smska.testing.gateway import StandInGateway

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def pytest_report_header():
    return f"database: {connection.vendor}, {connection.settings_dict['NAME']}"


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


def options(gateway, **more):
    """Return OPTIONS of the smska backend for this gateway, with waits long enough on loopback."""
    return {
        "api_key": "test",
        "api_password": "test",
        "sender_id": "Test",
        "url": gateway.url,
        "connect_timeout": 2,
        "deadline": 5,
        **more,
    }


@pytest.fixture
def provider(gateway, settings, transactional_db):
    """Let the default provider be the smska backend, and the stand-in its gateway."""
    settings.SMSKA_LOCMEM_IN_TESTS = False
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": options(gateway)}}
    return gateway

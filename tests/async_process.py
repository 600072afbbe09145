"""A site under uvicorn, on the test database: ``python -m tests.async_process``.

It prints its port. ``SMSKA_URL`` is the gateway's address, ``SMSKA_DB`` the name of the database,
``SMSKA_DB_USER`` the user for it, if that is another one. ``python -m tests.async_process fork``
sends from a process and its child instead. ``SMSKA_CALLS`` names what the view calls.
"""

import asyncio
import os
import signal
import socket
import sys
import threading
import time

import django
from asgiref.sync import sync_to_async
from django.http import JsonResponse
from django.urls import path


class Connections:
    """Count the connections of this process that are open."""

    def __init__(self):
        from django.db.backends.signals import connection_created

        self.seen, self.peak, self.lock = set(), 0, threading.Lock()
        connection_created.connect(self.note)

    def note(self, connection, **kwargs):
        with self.lock:
            self.seen.add(connection)
            self.peak = max(self.peak, self.open())

    def open(self):
        return sum(one.connection is not None for one in self.seen)


cancelled = 0


async def send(request):
    from django_smska.sms import asend_sms, send_sms

    global cancelled
    calls = {"asend_sms": asend_sms, "sync_to_async(send_sms)": sync_to_async(send_sms)}
    call = calls[os.environ.get("SMSKA_CALLS", "asend_sms")]
    try:
        message = await call(request.GET["to"], request.GET["text"])
    except asyncio.CancelledError:
        cancelled += 1
        raise
    return JsonResponse({"status": message.status})


async def state(request):
    return JsonResponse(
        {
            "open": connections.open(),
            "peak": connections.peak,
            "cancelled": cancelled,
            "cpu": time.process_time(),
        }
    )


urlpatterns = [path("send", send), path("state", state)]


def configure():
    global connections
    django.setup()
    from django.conf import settings
    from django.db import connection

    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = []
    connection.settings_dict["NAME"] = os.environ["SMSKA_DB"]
    if user := os.environ.get("SMSKA_DB_USER"):
        connection.settings_dict.update(USER=user, PASSWORD=user)
    settings.SMSKA_LOCMEM_IN_TESTS = False  # it is a child of a test run
    options = {
        "api_key": "test",
        "api_password": "test",
        "sender_id": "Test",
        "url": os.environ["SMSKA_URL"],
        "connect_timeout": 100,
        "deadline": 100,
    }
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": options}}
    connections = Connections()


def serve():
    import uvicorn
    from django.core.asgi import get_asgi_application

    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = uvicorn.Config(get_asgi_application(), log_level="warning", lifespan="off")
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(config).run(sockets=[listener])


def fork():
    """Fork while the only thread that sends holds connections. Print what became of a message of
    the parent, one of the child, the number that the thread then sees, and one more message."""
    from asgiref.sync import async_to_sync

    from django_smska import async_calls, database_slots
    from django_smska.models import SmsMessage
    from django_smska.sms import asend_sms

    def send():
        return async_to_sync(asend_sms)("+79041764995", f"from {os.getpid()}").status

    def hold():
        with database_slots.working():
            SmsMessage.objects.count()
            holding.set()
            forked.wait()
            print(SmsMessage.objects.count(), flush=True)

    async_calls.MAX_THREADS = 1
    print(send(), flush=True)
    holding, forked = threading.Event(), threading.Event()
    held = async_calls._threads.submit(hold)
    holding.wait()
    child = os.fork()
    if not child:
        signal.alarm(60)
        print(send(), flush=True)
        os._exit(0)
    code = os.waitpid(child, 0)[1]
    forked.set()
    held.result()
    assert code == 0
    print(send(), flush=True)


if __name__ == "__main__":
    configure()
    fork() if sys.argv[1:] else serve()

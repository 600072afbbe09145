"""Sending from asynchronous code: under uvicorn, a process with few connections to its database.

uvicorn is the dependency group ``async``.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from http.client import HTTPConnection
from typing import ClassVar
from urllib.parse import urlencode

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import SynchronousOnlyOperation, ValidationError
from django.db import OperationalError, close_old_connections, connection, connections, transaction
from django.http import HttpResponse
from django.test import TestCase, TransactionTestCase, override_settings
from django.urls import path
from django.utils import translation
from django.utils.translation import gettext_lazy

from django_smska import async_calls, clock, conf, database_slots, limits, rate_limit, sms
from django_smska.backends.base import BaseSmsBackend
from django_smska.exceptions import ErrorKind, InvalidRecipient, SmsNotSent
from django_smska.models import ProviderState, SmsMessage
from django_smska.receipts import Receipt, Report
from django_smska.signals import sms_sent
from django_smska.sms import aqueue_sms, asend_code, asend_sms, outbox, send_sms
from django_smska.testing import assert_sms_sent, run_sms_worker
from django_smska.testing.gateway import Fault, StandInGateway

from .conftest import options
from .packages import require

NUMBER = "+79041764995"
REQUESTS = 200
PATIENCE_SECONDS = 100


class Holding:
    """A gateway that answers no send before it may.

    :ivar most: the most that it held at once
    """

    def __init__(self):
        self.may_answer = threading.Event()
        self.lock, self.held, self.most = threading.Lock(), 0, 0
        self.gateway = StandInGateway(balance=10**6, on_send=self.hold)

    def hold(self, *args):
        with self.lock:
            self.held += 1
            self.most = max(self.most, self.held)
        self.may_answer.wait(PATIENCE_SECONDS)
        with self.lock:
            self.held -= 1

    def wait_for(self, number):
        assert self.gateway.wait_for(lambda: self.gateway.sends >= number, PATIENCE_SECONDS)


@pytest.fixture
def holding(settings, transactional_db):
    """Let the default provider be a gateway that answers when ``may_answer`` is set."""
    held = Holding()
    with held.gateway:
        settings.SMSKA_LOCMEM_IN_TESTS = False
        long = {"connect_timeout": PATIENCE_SECONDS, "deadline": PATIENCE_SECONDS}
        settings.SMS_PROVIDERS = {"default": {"OPTIONS": options(held.gateway, **long)}}
        yield held
        held.may_answer.set()


def statuses():
    return Counter(SmsMessage.objects.values_list("status", flat=True))


def wait_until(condition):
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


# --- under uvicorn --------------------------------------------------------------------------------


@contextmanager
def role_of_few_connections():
    """Make a user of PostgreSQL that may have 20 connections; elsewhere there is none."""
    if connection.vendor != "postgresql":
        yield ""
        return
    name = f"smska_few_{os.getpid()}"
    rights = "ALL ON ALL TABLES IN SCHEMA public", "ALL ON ALL SEQUENCES IN SCHEMA public"
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{name}' CONNECTION LIMIT 20")
        try:
            for right in rights:
                cursor.execute(f"GRANT {right} TO {name}")
            yield name
        finally:
            for right in rights:
                cursor.execute(f"REVOKE {right} FROM {name}")
            cursor.execute(f"DROP ROLE {name}")


@contextmanager
def process(*words, url, user=""):
    env = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "SMSKA_DB": str(connection.settings_dict["NAME"]),
        "SMSKA_DB_USER": user,
        "SMSKA_URL": url,
    }
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "tests.async_process"]
    started = subprocess.Popen([*command, *words], env=env, stdout=subprocess.PIPE, text=True)
    try:
        yield started
    finally:
        started.terminate()
        started.communicate()


class Site:
    def __init__(self, port, user):
        self.port, self.user = port, user

    def is_connected(self):
        """Return whether the process, or the server of its user, has a connection open."""
        if self.user:
            with connection.cursor() as cursor:
                cursor.execute("SELECT FROM pg_stat_activity WHERE usename = %s", [self.user])
                if cursor.fetchall():
                    return True
        return self.state()["open"] > 0

    def state(self):
        client = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        client.request("GET", "/state")
        answer = json.load(client.getresponse())
        client.close()
        return answer

    async def get(self, number):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        query = urlencode({"to": f"+79{number:09}", "text": f"text {number}"})
        head = f"GET /send?{query} HTTP/1.0\r\n\r\n"
        writer.write(head.encode())
        try:
            answer = await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()
        return json.loads(answer.partition(b"\r\n\r\n")[2])["status"]

    async def get_all(self):
        return Counter(await asyncio.gather(*map(self.get, range(REQUESTS))))


@pytest.fixture
def site(holding):
    require("uvicorn")
    with role_of_few_connections() as user, process(url=holding.gateway.url, user=user) as started:
        yield Site(int(started.stdout.readline()), user)


@pytest.mark.slow
def test_200_requests_at_once_hold_no_connection_while_the_gateway_is_waited_for(site, holding):
    with ThreadPoolExecutor(1) as client:
        answers = client.submit(asyncio.run, site.get_all())
        try:
            holding.wait_for(REQUESTS)  # of them none is answered
            wait_until(lambda: not site.is_connected())
        finally:
            holding.may_answer.set()
    assert answers.result() == {"sent": REQUESTS}
    assert statuses() == {"sent": REQUESTS}
    assert Counter(one.text for one in holding.gateway.accepted).most_common(1)[0][1] == 1
    assert len(holding.gateway.accepted) == REQUESTS
    assert holding.most == REQUESTS
    assert site.state()["peak"] <= database_slots.MAX_SLOTS


@pytest.mark.slow
def test_what_a_visitor_who_leaves_has_asked_for_is_sent_and_recorded(site, holding):
    async def ask_and_leave():
        asked = asyncio.create_task(site.get(1))
        await asyncio.to_thread(holding.wait_for, 1)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(ask_and_leave())
    wait_until(lambda: site.state()["cancelled"] == 1)
    assert statuses() == {"sending": 1}
    holding.may_answer.set()
    wait_until(lambda: statuses() == {"sent": 1})


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_threads_and_connections_of_its_own(provider):
    with process("fork", url=provider.url) as started:
        lines = started.stdout.read().split()
    assert lines == ["sent", "sent", "2", "sent"]
    assert statuses() == {"sent": 3}


# --- in one process -------------------------------------------------------------------------------


@pytest.fixture
def thread_names():
    """The threads in which messages were recorded as sent."""
    names = []

    def note(**kwargs):
        names.append(threading.current_thread().name)

    sms_sent.connect(note)
    yield names
    sms_sent.disconnect(note)


@pytest.mark.parametrize("name", ["send_sms", "send_code", "queue_sms"])
def test_an_async_twin_has_the_same_parameters(name):
    twin = getattr(sms, f"a{name}")
    assert inspect.signature(twin) == inspect.signature(getattr(sms, name))
    assert inspect.iscoroutinefunction(twin)
    assert twin.__name__ == f"a{name}" and twin.__doc__.startswith(f"Like :func:`{name}`")


@pytest.mark.parametrize("name", ["send", "refresh_status"])
def test_an_async_twin_of_a_message_has_the_same_parameters(name):
    twin = getattr(SmsMessage, f"a{name}")
    assert inspect.signature(twin) == inspect.signature(getattr(SmsMessage, name))
    assert inspect.iscoroutinefunction(twin)


def test_it_is_sent_in_a_thread_that_ends(provider, thread_names):
    message = async_to_sync(asend_sms)(NUMBER, "a text")
    assert message.status == "sent" and len(provider.accepted) == 1
    assert thread_names == ["smska-async (_work)"] or thread_names == ["smska-async"]
    wait_until(lambda: not any("smska" in one.name for one in threading.enumerate()))
    left = [one for slot in database_slots._slots._free for one in slot.values()]
    assert left and all(one.connection is None for one in left)


def test_errors_are_raised_in_the_caller(provider):
    provider.script_all(Fault("bad_number"))
    with pytest.raises(ValidationError):
        async_to_sync(asend_sms)("12", "a text")
    with pytest.raises(SmsNotSent):
        async_to_sync(asend_sms)(NUMBER, "a text")
    assert statuses() == {"failed": 1}


def test_a_code_is_sent_with_its_own_arguments(provider):
    message = async_to_sync(asend_code)(NUMBER, "Code: 4711", code="4711", valid_for=60)
    assert message.status == "sent" and "4711" not in message.body


def test_what_is_queued_is_stored_only(provider):
    message = async_to_sync(aqueue_sms)(NUMBER, "a text", priority=3)
    assert (message.status, message.priority, provider.sends) == ("queued", 3, 0)


def test_a_message_is_sent_and_its_report_asked_for(provider):
    message = SmsMessage.objects.create(to=NUMBER, body="a text")
    async_to_sync(message.asend)()
    assert message.status == "sent"
    async_to_sync(message.arefresh_status)()
    async_to_sync(message.arefresh_status)()
    assert message.status == "delivered" == SmsMessage.objects.get().status


def test_context_variables_are_the_callers(provider, settings, monkeypatch):
    settings.SMSKA_LIMITS = {"caller": ["1/h"]}

    async def call():
        with translation.override("ru"), limits.acting_for("someone"):
            await asend_sms(NUMBER, gettext_lazy("Yes"))
            with pytest.raises(limits.LimitExceeded):
                await asend_sms("+79041764996", "another")
        with limits.acting_for("another"):
            await asend_sms("+79041764996", "another")

    async_to_sync(call)()
    assert [one.text for one in provider.accepted] == ["Да", "another"]


def test_a_number_of_threads_is_not_exceeded(holding, monkeypatch):
    monkeypatch.setattr(async_calls, "MAX_THREADS", 2)

    async def send_five():
        sends = [asyncio.create_task(asend_sms(f"+7904176499{n}", "a text")) for n in range(5)]
        await asyncio.to_thread(holding.wait_for, 2)
        names = [one.name for one in threading.enumerate()]
        assert sum("smska-async" in name for name in names) == 2
        holding.may_answer.set()
        return await asyncio.gather(*sends)

    sent = async_to_sync(send_five)()
    assert [one.status for one in sent] == ["sent"] * 5
    assert holding.most == 2


def test_what_waits_for_a_thread_is_sent_though_its_caller_is_cancelled(holding, monkeypatch):
    monkeypatch.setattr(async_calls, "MAX_THREADS", 1)

    async def cancel():
        first = asyncio.create_task(asend_sms(NUMBER, "first"))
        await asyncio.to_thread(holding.wait_for, 1)
        second = asyncio.create_task(asend_sms(NUMBER, "second"))
        await asyncio.to_thread(wait_until, lambda: len(async_calls._threads._jobs) == 1)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        holding.may_answer.set()
        await first

    async_to_sync(cancel)()
    wait_until(lambda: statuses() == {"sent": 2})
    wait_until(lambda: not any("smska" in one.name for one in threading.enumerate()))


async def send_and_leave(holding):
    """Be cancelled while the gateway holds the request."""
    send = asyncio.create_task(asend_sms(NUMBER, "a text"))
    await asyncio.to_thread(holding.wait_for, 1)
    send.cancel()
    with pytest.raises(asyncio.CancelledError):
        await send


def test_an_error_without_a_caller_is_logged(holding, caplog):
    holding.gateway.script_all(Fault("bad_number"))

    async_to_sync(send_and_leave)(holding)
    holding.may_answer.set()
    wait_until(lambda: "whose caller was cancelled" in caplog.text)
    assert "a text" not in caplog.text and NUMBER not in caplog.text
    assert statuses() == {"failed": 1}


@pytest.mark.slow
def test_it_is_logged_once_with_the_status_and_without_a_traceback(holding, caplog):
    holding.gateway.script_all(Fault("bad_number"))

    async def cancel():
        await send_and_leave(holding)
        holding.may_answer.set()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(others)
        del others

    asyncio.run(cancel())
    gc.collect()
    [line] = [one for one in caplog.records if one.levelname == "ERROR"]
    row = SmsMessage.objects.get()
    assert (line.sms, line.status, line.code) == (row.pk, "failed", row.error_code)
    assert not line.exc_info


@pytest.mark.parametrize("is_logged", [False, True])
def test_an_error_that_the_caller_leaves_at_the_last_moment_is_logged_once(caplog, is_logged):
    """The thread did not see it leave; the loop does."""

    async def leave():
        async def fail():
            raise InvalidRecipient(alias="default", code="-6", sms=7)

        task, caller = asyncio.ensure_future(fail()), async_calls._Caller()
        await asyncio.wait([task])
        if is_logged:
            caller.log(task.exception(), "failed")
        caller.hear(task)

    asyncio.run(leave())
    [line] = caplog.records
    assert (line.sms, line.code) == (7, "-6")


def test_a_receiver_that_sends_does_not_wait_for_a_slot(provider, monkeypatch):
    """It holds the only one."""
    monkeypatch.setattr(database_slots, "_slots", database_slots._Slots(1))

    def send_another(message, **kwargs):
        if message.body == "first":
            async_to_sync(asend_sms)(NUMBER, "second")

    sms_sent.connect(send_another)
    try:
        async_to_sync(asend_sms)(NUMBER, "first")
    finally:
        sms_sent.disconnect(send_another)
    assert [one.text for one in provider.accepted] == ["first", "second"]


def test_what_a_receiver_awaits_goes_on_though_the_caller_is_cancelled(provider):
    async def cancel():
        begun, may_end, ended = asyncio.Event(), asyncio.Event(), threading.Event()

        async def work():
            begun.set()
            await may_end.wait()
            ended.set()

        def receive(**kwargs):
            async_to_sync(work)()

        sms_sent.connect(receive)
        try:
            send = asyncio.create_task(asend_sms(NUMBER, "a text"))
            await begun.wait()
            send.cancel()
            with pytest.raises(asyncio.CancelledError):
                await send
            may_end.set()
            assert await asyncio.to_thread(ended.wait, 10)
        finally:
            sms_sent.disconnect(receive)

    async_to_sync(cancel)()


@pytest.mark.skipif(connection.vendor != "sqlite", reason="not a database in memory")
def test_a_database_in_memory_is_used_by_the_one_thread_that_sees_it(
    provider, thread_names, monkeypatch
):
    monkeypatch.setattr(type(connections["default"]), "is_in_memory_db", lambda self: True)
    assert async_to_sync(asend_sms)(NUMBER, "a text").status == "sent"
    assert thread_names == ["MainThread"]


# --- transactions ---------------------------------------------------------------------------------


def in_transaction(call):
    """Await ``call()`` in a transaction of asynchronous code; return what it returns."""

    async def work():
        atomic = transaction.atomic()
        await sync_to_async(atomic.__enter__)()
        try:
            return await call()
        finally:
            await sync_to_async(atomic.__exit__)(None, None, None)

    return async_to_sync(work)()


def test_inside_a_transaction_it_is_sent_after_the_commit(provider):
    async def send():
        message = await asend_sms(NUMBER, "a text")
        return message, message.status, provider.sends

    message, status, sends = in_transaction(send)
    assert (status, sends) == ("claimed", 0)
    assert (message.status, provider.sends) == ("sent", 1)


def test_inside_a_transaction_a_code_is_sent_before_it_returns(provider):
    async def send():
        message = await asend_code(NUMBER, "Code: 4711", code="4711")
        return message.status, provider.sends

    assert in_transaction(send) == ("sent", 1)


async def send_view(request):
    assert await SmsMessage.objects.acount() == 1, "it does not see the test's transaction"
    message = await asend_sms(NUMBER, "from the view")
    return HttpResponse(message.status)


urlpatterns = [path("", send_view)]


class InATestRun:
    async def test_the_outbox_is_filled_before_the_view_returns(self):
        await aqueue_sms(NUMBER, "there already")
        response = await self.async_client.get("/")
        assert response.content == b"sent"
        assert [one.body for one in outbox] == ["from the view"]

    async def test_a_worker_runs_in_the_thread_of_synchronous_code(self):
        await aqueue_sms(NUMBER, "queued")
        with pytest.raises(SynchronousOnlyOperation):
            run_sms_worker()
        assert await sync_to_async(run_sms_worker)() == {"sent": 1}
        assert_sms_sent(body="queued")


@override_settings(ROOT_URLCONF=__name__)
class InATestCase(InATestRun, TestCase):
    pass


@override_settings(ROOT_URLCONF=__name__)
class InATransactionTestCase(InATestRun, TransactionTestCase):
    pass


# --- the slots ------------------------------------------------------------------------------------


@pytest.fixture
def one_slot(transactional_db, monkeypatch):
    monkeypatch.setattr(database_slots, "_slots", database_slots._Slots(1))
    return database_slots._slots


def in_thread(call):
    """Call it in a thread that has a slot; return what it returns."""
    results = []

    def work():
        with database_slots.working():
            results.append(call())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    return results[0]


def used():
    SmsMessage.objects.count()
    return connection.connection


@pytest.mark.parametrize(
    ("age", "in_test_run", "stays"),
    [(0, False, False), (600, False, True), (None, False, True), (None, True, False)],
)
def test_a_slot_follows_conn_max_age(one_slot, monkeypatch, age, in_test_run, stays):
    """Not in a test run, whose database is destroyed at its end."""
    monkeypatch.setattr(conf, "in_test_run", lambda: in_test_run)
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", age)
    first = in_thread(used)
    (slot,) = one_slot._free
    assert (slot["default"].connection is first) is stays
    assert (in_thread(used) is first) is stays
    slot["default"].close()


def test_a_connection_is_kept_while_another_thread_wants_it(one_slot):
    def work_while_another_waits():
        other.start()
        wait_until(lambda: one_slot.waiting == 1)
        return used()

    results = []
    other = threading.Thread(target=lambda: results.append(in_thread(used)))
    first = in_thread(work_while_another_waits)
    other.join(PATIENCE_SECONDS)
    assert results == [first]


def test_a_connection_that_the_last_waiting_thread_left_is_closed(transactional_db, monkeypatch):
    """Two come back while one thread waits, which is slow to wake up and takes only one of them."""
    slots = database_slots._Slots(2)
    monkeypatch.setattr(database_slots, "_slots", slots)
    both = threading.Barrier(2)

    def work():
        used()
        both.wait(PATIENCE_SECONDS)

    slots.waiting = 1
    with ThreadPoolExecutor(2) as threads:
        for one in [threads.submit(in_thread, work) for _ in range(2)]:
            one.result()
    slots.waiting = 0
    in_thread(used)
    assert [slot["default"].connection for slot in slots._free] == [None, None]


def test_a_broken_connection_is_not_passed_on(one_slot):
    def work_while_another_waits():
        other.start()
        wait_until(lambda: one_slot.waiting == 1)
        mine = used()
        connection.errors_occurred = True
        return mine

    results = []
    other = threading.Thread(target=lambda: results.append(in_thread(used)))
    first = in_thread(work_while_another_waits)
    other.join(PATIENCE_SECONDS)
    assert results and results != [first]


def test_an_open_transaction_is_not_passed_on(one_slot):
    def wait_in_transaction():
        with transaction.atomic(), database_slots.released():
            return len(one_slot._free), connection.in_atomic_block

    assert in_thread(wait_in_transaction) == (0, True)
    assert len(one_slot._free) == 1


def test_what_a_backend_opens_while_it_waits_is_closed(one_slot):
    def open_while_waiting():
        used()
        with database_slots.released():
            opened = used() and connections["default"]
        return opened

    assert in_thread(open_while_waiting).connection is None
    assert len(one_slot._free) == 1


def test_one_that_cannot_be_closed_keeps_no_outcome_from_its_record(one_slot, monkeypatch):
    """It gets a slot again all the same."""

    def wait_with_a_broken_one():
        used()
        with database_slots.released():
            used()
            broken = connections["default"]
            close = broken.close

            def refuse():
                close()
                raise OperationalError("server closed the connection")

            monkeypatch.setattr(broken, "close", refuse)
        return database_slots._this.holds is not None

    assert in_thread(wait_with_a_broken_one)


def test_elsewhere_connections_stay_as_they_are(one_slot):
    mine = used()
    with database_slots.released(), database_slots.held():
        assert used() is mine
    close_old_connections()


class Watching(BaseSmsBackend):
    """Notes whether a slot is held while it is called."""

    rate = 1000.0
    held: ClassVar[dict[str, bool]] = {}

    def note(self, name):
        self.held[name] = database_slots._this.holds is not None

    def send_message(self, message):
        self.note("send")
        return Receipt("1")

    def get_status(self, message):
        self.note("report")
        return Report("delivered", "4|DELIVRD")

    def get_balance(self):
        self.note("balance")
        return Decimal(5)


@pytest.fixture
def watched(settings, transactional_db, monkeypatch):
    settings.SMSKA_LOCMEM_IN_TESTS = False
    settings.SMS_PROVIDERS = {"default": {"BACKEND": f"{__name__}.Watching"}}
    monkeypatch.setattr(Watching, "held", {})
    return Watching.held


def test_no_slot_is_held_in_any_wait(watched, monkeypatch):
    """The sleep is that for a slot of the rate; the balance shows that a pause is over."""

    def sleep(seconds):
        watched["sleep"] = database_slots._this.holds is not None

    monkeypatch.setattr(rate_limit.time, "sleep", sleep)
    ProviderState.objects.create(
        alias="default", reason=ErrorKind.UNREACHABLE, paused_at=clock.now(), probe_at=clock.now()
    )
    message = async_to_sync(asend_sms)(NUMBER, "a text")
    async_to_sync(message.arefresh_status)()
    assert message.status == "delivered"
    assert watched == dict.fromkeys(["balance", "sleep", "send", "report"], False)


# --- the synchronous one --------------------------------------------------------------------------


def test_no_query_runs_between_the_mark_and_the_record(settings, transactional_db):
    """The connection of a synchronous caller is bound to its thread, and idle in the meantime."""
    events, mine = [], connections["default"]

    def note_query(execute, sql, params, *args):
        events.append(f"{sql} {params}")
        return execute(sql, params, *args)

    def note_request(*args):
        events.append("the request" if not mine.in_atomic_block else "in a transaction")
        time.sleep(0.05)
        events.append("the answer")

    settings.SMSKA_LOCMEM_IN_TESTS = False
    with StandInGateway(on_send=note_request) as gateway:
        settings.SMS_PROVIDERS = {"default": {"OPTIONS": options(gateway)}}
        with mine.execute_wrapper(note_query):
            send_sms(NUMBER, "a text")
    marks = [at for at, event in enumerate(events) if "sending" in event and "UPDATE" in event]
    assert events[marks[0] + 1 : marks[0] + 3] == ["the request", "the answer"]
    assert "'sent'" in events[marks[0] + 3]

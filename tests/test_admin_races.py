"""Two admins, or an admin and a worker, with the same message at the same time.

Each pair is run several times. Each time, each thread waits for the other one before another one of
its writes, where it holds no lock yet; one that has no such write ends the wait of the other.
"""

import re
import threading
from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import product

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.messages import get_messages
from django.db import connection, connections, transaction
from django.db.models.signals import post_save
from django.test import Client

from django_smska import clock, held_queue, sending
from django_smska.admin.actions import send_as_saved
from django_smska.conflicts import repeat_conflicts
from django_smska.exceptions import WrongStatus
from django_smska.models import SmsMessage, rows
from django_smska.testing.gateway import StandInGateway
from django_smska.worker import Worker

from .conftest import options

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

LIST = "/admin/django_smska/smsmessage/"
#: Before which of its writes each thread waits: nine races for each pair.
ROUNDS = list(product((1, 2, 3), repeat=2))
ACCEPTED = {"sent", "delivered"}


# --- the threads


class Meeting:
    """Lets a thread wait for the other one before its write with this number, from 1."""

    WRITES = re.compile(
        r"BEGIN|(UPDATE|INSERT INTO|DELETE FROM) .django_smska_smsmessage|.*FOR UPDATE", re.S
    )

    def __init__(self, barrier, number):
        self.barrier, self.left, self.block = barrier, number, None

    def __call__(self, execute, sql, params, many, context):
        if self.WRITES.match(sql) and self._holds_no_lock(context["connection"]):
            self.left -= 1
            if self.left == 0:
                with suppress(threading.BrokenBarrierError):
                    self.barrier.wait()
        return execute(sql, params, many, context)

    def _holds_no_lock(self, connection):
        if connection.vendor == "sqlite":  # its lock begins with the transaction
            return not connection.in_atomic_block
        block, self.block = self.block, next(iter(connection.atomic_blocks), None)
        return block is None or block is not self.block


def race(numbers, *calls):
    """Run the calls at the same time; return what they return."""
    barrier, results = threading.Barrier(2), {}

    def run(number, call):
        try:
            with connection.execute_wrapper(Meeting(barrier, number)):
                results[call] = call()
        except Exception as error:
            results[call] = error
        finally:
            barrier.abort()
            connections.close_all()

    pairs = zip(numbers, calls, strict=True)
    threads = [threading.Thread(target=run, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[call] for call in calls]


# --- what they do


class Actor:
    """A user, or a worker, and what the pages of that user said."""

    def __init__(self, name):
        self.name, self.client, self.said = name, Client(), []
        self.client.force_login(User.objects.create_superuser(name))

    def act(self, what, message):
        self.message, self.what = message, what
        self.said = getattr(self, what)()
        return self.said

    def _post(self, address, data):
        self.client.cookies.pop("messages", None)
        response = self.client.post(f"{LIST}{address}", data)
        if response.status_code == 409:
            return [str(response.context["title"])]
        assert response.status_code == 302
        return [str(words) for words in get_messages(response.wsgi_request)]

    def _press(self):
        return self._post(f"{self.what}/", {"pks": self.message.pk})

    send = cancel = refresh = resend = confirm_sent = _press

    def delete(self):
        return self._post(f"{self.message.pk}/delete/", {"post": "yes"})

    def edit(self, button="_save"):
        data = {"to": self.message.to, "body": self.text, "using": "default", "priority": "0"}
        data |= {"send_after_0": "2026-01-01", "send_after_1": "12:00", button: "1"}
        return self._post(f"{self.message.pk}/change/", data)

    def edit_and_send(self):
        return self.edit("_send")

    def worker(self):
        done = Worker(concurrency=2).run_once()
        return ["Sent by a worker"] * done["sent"]

    @property
    def text(self):
        return f"{self.message.body} {self.name}"

    @property
    def edits(self):
        return self.what.startswith("edit")

    def says(self, words):
        """Without what is said of the other one."""
        return any(words in one.partition("Last action:")[0] for one in self.said)


def make(status, number):
    message = SmsMessage(to="+79041764995", body=f"Race {number}:")
    message.save()
    if status == "sent":
        message.send()
        rows().filter(pk=message.pk).update(next_status_at=clock.now())
    elif status != "draft":
        rows().filter(pk=message.pk).update(
            status=status, expires_at=message.created_at.replace(year=2100), sending_at=clock.now()
        )
    message.refresh_from_db()
    return message


# --- what must be true


class Facts:
    """What is stored, and what the gateway accepted."""

    def __init__(self, gateway, message):
        self.row = rows().filter(pk=message.pk).first()
        self.again = rows().filter(resend_of=message.pk).first()
        self.accepted = [one for one in gateway.accepted if one.text.startswith(message.body)]
        self.texts = [one.text for one in self.accepted]
        entries = LogEntry.objects.filter(object_id=message.pk)
        self.history = list(entries.values_list("change_message", flat=True))

    @property
    def status(self):
        return self.row.status if self.row else "deleted"


def lies(facts, actor, other):
    """Yield what this user's page says and is not so."""
    truths = {
        "Sent:": facts.status in ACCEPTED and facts.accepted != [],
        "Sent by a worker": facts.accepted != [],
        "Cancelled:": facts.status in ("cancelled", "deleted") and not facts.accepted,
        "Delivered:": facts.status == "delivered",
        "Queued again:": facts.again is not None,
        "Marked as sent:": facts.status in ACCEPTED,
        "deleted successfully": facts.status == "deleted" and not facts.accepted,
        "was not deleted": facts.status in (*ACCEPTED, "queued"),
        "already been deleted": facts.row is None,
        "nothing to do": facts.row is None,
        "Not done: <a ": other.says("changed successfully"),
        "Your changes were not saved": facts.row is None or facts.row.body != actor.text,
        "Perhaps it was deleted": facts.row is None,
        "Skipped:": other.said != [],
        "changed successfully": not facts.row
        or facts.row.body in (actor.text, other.edits and other.text),
    }
    yield from (words for words, true in truths.items() if actor.says(words) and not true)
    yield from (
        words
        for words in actor.said
        if not any(one in words for one in truths) and "No final status" not in words
    )
    if actor.edits and actor.says("Sent:") and facts.texts != [actor.text]:
        yield "that it was sent, with another text"


def problems(facts, start, left, right):
    """Yield what is wrong after a race, as sentences."""
    for actor, other in ((left, right), (right, left)):
        yield from (f"{actor.what} says {words}" for words in lies(facts, actor, other))
        if not actor.said and actor.what != "worker":
            yield f"{actor.what} says nothing"
    for words in ("Sent", "Queued again:", "Marked as sent:", "deleted successfully"):
        if left.says(words) and right.says(words):
            yield f"both say {words}"
    if len(facts.accepted) > 1:
        yield "it was sent twice"
    row = facts.again or facts.row
    if row is not None and row.status in ACCEPTED and facts.accepted:
        stored = row.body, row.gateway_id, row.attempts
        if stored != (facts.texts[0], facts.accepted[0].id, 1):
            yield f"{stored} is stored, and {facts.accepted[0]} was sent"
    if facts.accepted and (row is None or row.status not in ACCEPTED):
        yield f"it was sent, and is {facts.status}"
    if facts.status in ACCEPTED and start != "unknown" and not facts.accepted:
        yield "it was not sent"
    for words, note in (("Sent:", "Sent."), ("Cancelled:", "Cancelled.")):
        if facts.history.count(note) != left.says(words) + right.says(words):
            yield f"its history has {facts.history}"


PAIRS = [
    ("draft", "send", "send"),
    ("draft", "send", "cancel"),
    ("draft", "send", "edit"),
    ("draft", "send", "edit_and_send"),
    ("draft", "send", "delete"),
    ("draft", "send", "worker"),
    ("draft", "cancel", "cancel"),
    ("draft", "cancel", "edit"),
    ("draft", "cancel", "edit_and_send"),
    ("draft", "cancel", "delete"),
    ("draft", "edit", "edit"),
    ("draft", "edit", "edit_and_send"),
    ("draft", "edit", "delete"),
    ("draft", "edit_and_send", "edit_and_send"),
    ("draft", "edit_and_send", "delete"),
    ("draft", "edit_and_send", "worker"),
    ("draft", "delete", "delete"),
    ("queued", "send", "send"),
    ("queued", "send", "cancel"),
    ("queued", "send", "worker"),
    ("queued", "cancel", "worker"),
    ("queued", "edit", "worker"),
    ("queued", "worker", "worker"),
    ("unknown", "resend", "resend"),
    ("unknown", "resend", "confirm_sent"),
    ("unknown", "confirm_sent", "confirm_sent"),
    ("unknown", "resend", "worker"),
    ("failed", "resend", "resend"),
    ("sent", "refresh", "refresh"),
    ("sent", "refresh", "worker"),
]


@pytest.mark.parametrize(("start", "one", "other"), PAIRS, ids=map("-".join, PAIRS))
def test_one_send_no_write_reverted_and_every_page_true(provider, start, one, other):
    left, right = Actor("left"), Actor("right")
    held_queue.heartbeat(["default"])  # or pages warn that no worker is seen
    found = []
    for place, numbers in enumerate(ROUNDS):
        message = make(start, place)
        answers = race(numbers, partial(left.act, one, message), partial(right.act, other, message))
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        Worker().run_once()
        facts = Facts(provider, message)
        wrong = list(problems(facts, start, left, right))
        found += [
            f"{numbers}: {words} [{left.said} | {right.said} | {facts.status}]" for words in wrong
        ]
        LogEntry.objects.all().delete()
    assert not found, "\n".join(["", *found])


def test_there_are_two_hundred_races():
    assert len(PAIRS) * len(ROUNDS) >= 200


# --- what a race meets rarely


def test_save_and_send_sends_what_was_saved_or_nothing(provider):
    """Another user saves the same draft between this one's commit and this one's sending."""
    left, message = Actor("left"), make("draft", 0)

    def save_another(sender, instance, **kwargs):
        other = rows().filter(pk=message.pk)
        transaction.on_commit(lambda: other.update(body="The text of another"))

    post_save.connect(save_another, SmsMessage)
    try:
        said = left.act("edit_and_send", message)
    finally:
        post_save.disconnect(save_another, SmsMessage)
    assert any(one.startswith("Not done: <a ") and "Nothing was sent." in one for one in said)
    assert (rows().get().status, provider.sends) == ("draft", 0)


def test_save_and_send_later_queues_what_was_saved_or_nothing(provider):
    message = make("draft", 0)
    rows().update(send_after=clock.now() + timedelta(days=1))
    message.refresh_from_db()
    as_saved = send_as_saved(message)
    rows().update(body="The text of another")
    with pytest.raises(WrongStatus) as refused:
        as_saved.do(rows().get(), None)
    assert refused.value.code == "changed" and rows().get().status == "draft"
    assert str(send_as_saved(rows().get()).do(rows().get(), None)).startswith("Queued")


def test_an_answer_that_comes_after_the_lease_is_not_called_skipped(settings):
    """A worker counts the request as lost while the gateway is answering it."""

    def lose(*args):
        rows().update(lease_until=clock.now() - timedelta(seconds=1))
        sending.recover()
        connections.close_all()

    settings.SMSKA_LOCMEM_IN_TESTS = False
    with StandInGateway(on_send=lose) as gateway:
        settings.SMS_PROVIDERS = {"default": {"OPTIONS": options(gateway)}}
        [said] = Actor("left").act("send", make("draft", 0))
    assert said.startswith("Unknown whether it was sent: <a ")
    assert "A late answer says that the gateway accepted it." in said
    assert rows().get().status == "unknown" and len(gateway.accepted) == 1


@pytest.mark.skipif("connection.vendor == 'sqlite'", reason="it has one lock for all")
def test_a_deadlock_is_run_again():
    """Each of two transactions waits for a row of the other one; the database ends one of them."""
    first, second = make("draft", 0), make("draft", 1)
    both_have_one, tries = threading.Barrier(2), []

    def lock(one, other):
        tries.append(one)
        with transaction.atomic():
            rows().filter(pk=one.pk).update(sender="1")
            if tries.count(one) == 1:
                both_have_one.wait(30)
            rows().filter(pk=other.pk).update(sender="2")

    def repeated(*messages):
        return repeat_conflicts(partial(lock, *messages))

    answers = race((0, 0), partial(repeated, first, second), partial(repeated, second, first))
    assert answers == [None, None] and len(tries) > 2

"""A full disk, on SQLite: the file may not grow. ``test_crashes`` has the servers."""

from collections import Counter
from contextlib import contextmanager, suppress

import pytest
from django.db import Error, OperationalError, connection

from django_smska.exceptions import SmsNotSent
from django_smska.models import rows
from django_smska.sms import queue_sms, send_mass_sms, send_sms
from django_smska.testing.faults import answer
from django_smska.worker import Worker

NUMBER = "+79041764995"
MAX_PAGES = 0xFFFFFFFE  # SQLite's own limit

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.slow,
    pytest.mark.skipif(connection.vendor != "sqlite", reason="its file is the disk"),
]


def pragma(words):
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA {words}")
        return cursor.fetchone()[0]


@contextmanager
def full_disk():
    """Let the file have no free page, and not grow."""
    pragma(f"max_page_count = {pragma('page_count')}")
    with suppress(Error), connection.cursor() as cursor:
        cursor.execute("CREATE TABLE ballast (bytes)")
    try:
        with suppress(Error), connection.cursor() as cursor:
            while True:
                cursor.execute("INSERT INTO ballast VALUES (zeroblob(2000))")
        yield
    finally:
        pragma(f"max_page_count = {MAX_PAGES}")
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS ballast")


def fill_pages(text):
    """Queue until no page has room for one more."""
    for number in range(1000):
        try:
            queue_sms(NUMBER, f"{text} {number}")
        except OperationalError as error:
            assert "full" in str(error)
            return number
    raise AssertionError("the disk is not full")


def test_what_cannot_be_stored_is_not_sent(provider):
    with full_disk():
        queued = fill_pages("queued")
        with pytest.raises(SmsNotSent) as caught:
            send_sms(NUMBER, "x" * 500)
        assert caught.value.code == "database"
        with pytest.raises(OperationalError, match="full"):
            send_mass_sms([(NUMBER, f"mass {number} {'x' * 100}") for number in range(50)])
    assert (rows().count(), provider.sends) == (queued, 0)


def test_a_worker_sends_each_once_and_finishes_them_afterwards(provider):
    worker = Worker(concurrency=4)
    with full_disk():
        queued = fill_pages("queued")
        for _ in range(3):
            with suppress(Error):
                worker.run_once()
        early = Counter(one.text for one in provider.accepted)
        unsent = rows().filter(status__in=["queued", "claimed"]).values_list("body", flat=True)
        assert not early.keys() & set(unsent)
    while worker.has_work():
        worker.run_once()
    sent = Counter(one.text for one in provider.accepted)
    assert sent == {f"queued {number}": 1 for number in range(queued)}
    assert set(rows().values_list("status", flat=True)) == {"sent"}


def test_a_worker_whose_every_write_may_fail_asks_for_each_once(provider, monkeypatch):
    """A refusal's words take 800 bytes of a row, so that later writes find no room."""
    asked = Counter()
    monkeypatch.setattr(
        provider, "_on_send", lambda request, *_: asked.update([request.form["Message"]])
    )
    provider.script_all(answer(b"-4|" + b"No such route. " * 54 + b"|", accepted=False), "send")
    worker, errors = Worker(concurrency=4), 0
    with full_disk():
        queued = fill_pages("queued")
        for _ in range(5):
            try:
                worker.run_once()
            except OperationalError:
                errors += 1
    assert errors > 0
    while worker.has_work():
        worker.run_once()
    assert asked == {f"queued {number}": 1 for number in range(queued)}
    assert set(rows().values_list("status", flat=True)) == {"failed"}

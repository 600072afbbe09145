"""The processes of the chaos test, on its database: ``python -m tests.chaos_process``.

It reads commands and forks a child for ``start ROLE CONCURRENCY``, so that a new one is at work at
once. ``worker`` is ``manage.py sms_worker``; ``once`` one pass of a worker, which ``SMSKA_DIE_AT``
may end early (see ``worker_process``); ``admin`` a person who edits drafts and presses Send until
SIGTERM.
``SMSKA_CHAOS`` holds the settings as JSON; ``SMSKA_PLANT`` names a bug of `PLANTS` to plant.
"""

import json
import logging
import os
import random
import signal
import sys
import threading
import time
import uuid
from types import SimpleNamespace

import django

#: Bugs that this app must not have, each of which must be found.
PLANTS = (
    "claim_without_condition",
    "dead_sending_back_to_queued",
    "retry_on_timeout",
    "save_of_a_whole_row",
    "mark_without_token",
    "record_without_token",
    "permission_for_all",
    "permission_for_a_key",
    "mark_after_the_send",
    "living_counted_as_dead",
    "doubt_counts_as_failed",
    "doubt_counts_as_sent",
    "nothing_recovered",
    "refused_row_deleted",
)
CHILDREN = set()  # process ids that were not waited for
TICK = 0.05  # seconds: all admins press Send at the same moment


def plant(name, patch=setattr):
    """Replace the part of the app that keeps this bug away; ``patch`` works like ``setattr``."""
    from django.db import models
    from django.db.models import F

    from django_smska import sending, states
    from django_smska.exceptions import SmsNotSent, SmsOutcomeUnknown
    from django_smska.models import SmsMessage, rows
    from django_smska.receipts import Receipt
    from django_smska.states import Status

    attempt, call, decide = sending.attempt, sending._call, states.decide
    turn, record, save = sending._record_and_mark, sending.record, SmsMessage.save

    def claim_without_condition(candidates, now, token=None, *, immediate=False):
        pks = list(candidates.values_list("pk", flat=True))
        token = token or uuid.uuid4().hex
        claimed = sending.claim_fields(token, now) | {"immediate": immediate}
        rows(pks).update(status=Status.CLAIMED, **claimed, attempts=F("attempts") + 1)
        mine = rows(pks).filter(token=token).in_bulk()
        return [mine[pk] for pk in pks if pk in mine]

    def recover(held, new):
        ours = rows().filter(**held).update(status=new, token="", lease_until=None)
        return {"queued": ours, "unknown": 0, "failed": sending.fail_overdue(rows())}

    def recover_all_to_queued():
        dead = {"status__in": ["claimed", "sending"], "lease_until__lte": django_now()}
        return recover(dead, Status.QUEUED)

    def recover_the_living():
        return recover({"status": "sending"}, Status.UNKNOWN)

    def decide_doubt(new):
        def decided(kind, **kwargs):
            return states.Decision(new) if kind == "unknown" else decide(kind, **kwargs)

        return decided

    def save_whole_row(message, *args, **kwargs):
        whole = save if message._state.adding else models.Model.save
        whole(message, *args, **kwargs)

    def mark_without_token(outcomes, going, now):
        turn(outcomes, [], now) if outcomes else None
        group = set(map(sending.claim_of, going))
        claimed = rows(pk for pk, _ in group).filter(status=Status.CLAIMED)
        moved = claimed.update(status=Status.SENDING, sending_at=now)
        return group if moved == len(group) else set()

    def record_without_token(results, **kwargs):
        for result in results:
            held = rows([result.message.pk]).values_list("token", flat=True)
            result.message.token = held.get()
        record(results, **kwargs)

    def permission_for_all(outcomes, going, now):
        turn(outcomes, going, now)
        return set(map(sending.claim_of, going))

    def permission_for_a_key(outcomes, going, now):
        keys = {pk for pk, _ in turn(outcomes, going, now)}
        return {sending.claim_of(message) for message in going if message.pk in keys}

    def mark_after_the_send(backend, message, mark):
        outcome = attempt(backend, message, lambda message: True)
        mark(message)
        return outcome

    def doubt_is_sent(backend, message):
        outcome = call(backend, message)
        return Receipt("") if isinstance(outcome, SmsOutcomeUnknown) else outcome

    def delete_refused(results, **kwargs):
        record(results, **kwargs)
        refused = [one.message.pk for one in results if isinstance(one.outcome, SmsNotSent)]
        rows(refused).filter(status=Status.FAILED).delete()

    def recover_nothing():
        return {"queued": 0, "unknown": 0, "failed": 0}

    bugs = {
        "claim_without_condition": (sending, "claim", claim_without_condition),
        "dead_sending_back_to_queued": (sending, "recover", recover_all_to_queued),
        "retry_on_timeout": (states, "decide", decide_doubt(Status.QUEUED)),
        "save_of_a_whole_row": (SmsMessage, "save", save_whole_row),
        "mark_without_token": (sending, "_record_and_mark", mark_without_token),
        "record_without_token": (sending, "record", record_without_token),
        "permission_for_all": (sending, "_record_and_mark", permission_for_all),
        "permission_for_a_key": (sending, "_record_and_mark", permission_for_a_key),
        "mark_after_the_send": (sending, "attempt", mark_after_the_send),
        "living_counted_as_dead": (sending, "recover", recover_the_living),
        "doubt_counts_as_failed": (states, "decide", decide_doubt(Status.FAILED)),
        "doubt_counts_as_sent": (sending, "_call", doubt_is_sent),
        "nothing_recovered": (sending, "recover", recover_nothing),
        "refused_row_deleted": (sending, "record", delete_refused),
    }
    assert set(bugs) == set(PLANTS)
    patch(*bugs[name])


def django_now():
    from django.utils import timezone

    return timezone.now()


def configure():
    """Set up Django on the test database, with the settings of the chaos."""
    django.setup()
    from django.conf import settings
    from django.db import connections

    chaos = json.loads(os.environ["SMSKA_CHAOS"])
    connections["default"].settings_dict["NAME"] = chaos.pop("DATABASE")
    settings.SMSKA_LOCMEM_IN_TESTS = False  # it is a child of a test run
    for name, value in chaos.items():
        setattr(settings, name, value)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


def sign_claims():
    """Begin the tokens of this process's claims with its process id: the parent must know whose
    lease to end."""
    from django_smska import worker

    def uuid4():
        return SimpleNamespace(hex=signature(os.getpid()) + uuid.uuid4().hex[8:])

    worker.uuid = SimpleNamespace(uuid4=uuid4)


def signature(pid):
    return f"{pid:08x}"


def work(concurrency):
    from django.core.management import call_command

    call_command("sms_worker", concurrency=concurrency, interval=0.05)


def work_once(concurrency):
    from django_smska import sending
    from django_smska.worker import Worker

    from .worker_process import plant as plant_death

    plant_death(sending)
    Worker(concurrency=concurrency).run_once()


def press_send(_concurrency):
    """Press Send on the rows that every other admin presses Send on at the same moment."""
    from django.db import Error, connections

    from django_smska.exceptions import SmsError

    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *args: stopped.set())
    while not stopped.is_set():
        tick = int(time.time() / TICK) + 1
        try:
            message = _row_of(tick)
            time.sleep(max(tick * TICK - time.time(), 0))
            if message is None:
                continue
            if random.random() < 0.3:  # type, save, and find that another was faster
                time.sleep(random.uniform(0, 4 * TICK))
                message.priority += 1
                message.save()
            message.send()
        except SmsError:
            pass
        except Error as error:
            logging.error("the database went away (%s)", type(error).__name__)
            connections.close_all()


def _row_of(tick):
    """The same row for all admins: by turns a draft, and whatever row."""
    from django_smska.models import SmsMessage

    among = SmsMessage.objects.order_by("pk")
    if tick % 2:
        among = among.filter(status="draft")
    first = among.values_list("pk", flat=True).first()
    if first is None:
        return None
    last = among.values_list("pk", flat=True).last()
    pk = first if tick % 2 else random.Random(tick).randint(first, last)
    return SmsMessage.objects.filter(pk=pk).first()


ROLES = {"worker": work, "once": work_once, "admin": press_send}


def fork(role, concurrency):
    """Start a child in this role; return its process id."""
    pid = os.fork()
    if pid:
        CHILDREN.add(pid)
        return pid
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        random.seed()
        ROLES[role](concurrency)
        code = 0
    except BaseException:
        logging.exception("the %s ended", role)
    finally:
        os._exit(code)


def obey(command, *words):
    if command == "start":
        return fork(words[0], int(words[1]))
    pid, status = os.waitpid(int(words[0]), {"poll": os.WNOHANG, "wait": 0}[command])
    CHILDREN.discard(pid)
    return os.waitstatus_to_exitcode(status) if pid else "alive"


def main():
    configure()
    sign_claims()
    from django_smska import wire  # noqa: F401  once, for all children

    if name := os.environ.get("SMSKA_PLANT"):
        plant(name)
    for line in sys.stdin:
        print(obey(*line.split()), flush=True)
    for pid in CHILDREN:  # the parent has gone
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()

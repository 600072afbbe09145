"""A worker in a process of its own, on the test database: ``python -m tests.worker_process``.

``SMSKA_DIE_AT`` names the step at which it kills itself with SIGKILL; ``SMSKA_URL`` is the
gateway's address, ``SMSKA_DB`` the name of the test database. ``SMSKA_SETTINGS`` has more settings,
as JSON.
"""

import json
import os
import signal

import django

STEPS = ("claimed", "connected", "marked", "answered", "recorded", "before_both", "after_both")


def die(*steps):
    if os.environ.get("SMSKA_DIE_AT") in steps:
        os.kill(os.getpid(), signal.SIGKILL)


def plant(sending):
    """Put the death at its step, around the real functions."""

    claim, turn, record_error = sending.claim, sending._record_and_mark, sending._record_error

    def dying_claim(*args, **kwargs):
        claimed = claim(*args, **kwargs)
        die("claimed")
        return claimed

    def dying_turn(outcomes, going, now):
        die(outcomes and "answered", going and "connected", outcomes and going and "before_both")
        marked = turn(outcomes, going, now)
        die(outcomes and "recorded", going and "marked", outcomes and going and "after_both")
        return marked

    def dying_record(*args):
        die("answered")
        record_error(*args)
        die("recorded")

    sending.claim, sending._record_and_mark, sending._record_error = (
        dying_claim,
        dying_turn,
        dying_record,
    )


def configure():
    django.setup()
    from django.conf import settings
    from django.db import connections

    connections["default"].settings_dict["NAME"] = os.environ["SMSKA_DB"]
    settings.SMSKA_LOCMEM_IN_TESTS = False  # it is a child of a test run
    settings.SMS_PROVIDERS = {
        "default": {
            "OPTIONS": {
                "api_key": "test",
                "api_password": "test",
                "sender_id": "Test",
                "url": os.environ.get("SMSKA_URL", ""),
                "deadline": 20,
            }
        }
    }
    for name, value in json.loads(os.environ.get("SMSKA_SETTINGS", "{}")).items():
        setattr(settings, name, value)


def main():
    configure()
    from django_smska import sending
    from django_smska.worker import Worker

    plant(sending)
    Worker(concurrency=int(os.environ.get("SMSKA_CONCURRENCY", "4"))).run_once()


if __name__ == "__main__":
    main()

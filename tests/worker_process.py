"""A worker in a process of its own, on the test database: ``python -m tests.worker_process``.

``SMSKA_DIE_AT`` names the step at which it kills itself with SIGKILL; ``SMSKA_URL`` is the
gateway's address, ``SMSKA_DB`` the name of the test database.
"""

import os
import signal

import django

STEPS = ("claimed", "connected", "marked", "answered", "recorded")


def die(step):
    if os.environ.get("SMSKA_DIE_AT") == step:
        os.kill(os.getpid(), signal.SIGKILL)


def plant(sending):
    """Put the death at its step, around the real functions."""

    def around(name, before=None, after=None):
        real = getattr(sending, name)

        def wrapped(*args, **kwargs):
            die(before)
            result = real(*args, **kwargs)
            die(after)
            return result

        setattr(sending, name, wrapped)

    around("claim", after="claimed")
    around("mark_sending", before="connected", after="marked")
    around("record", before="answered", after="recorded")


def configure():
    django.setup()
    from django.conf import settings
    from django.db import connections

    connections["default"].settings_dict["NAME"] = os.environ["SMSKA_DB"]
    settings.SMS_PROVIDERS = {
        "default": {
            "OPTIONS": {
                "api_key": "test",
                "api_password": "test",
                "sender_id": "Test",
                "url": os.environ["SMSKA_URL"],
                "deadline": 20,
            }
        }
    }


def main():
    configure()
    from django_smska import sending
    from django_smska.worker import Worker

    plant(sending)
    Worker(concurrency=int(os.environ.get("SMSKA_CONCURRENCY", "4"))).run_once()


if __name__ == "__main__":
    main()

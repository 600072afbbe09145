"""Settings of a task engine's worker in a process of its own, on the test database.

``SMSKA_DB`` is the name of the test database, ``SMSKA_URL`` the gateway's address, ``SMSKA_ENGINE``
the settings of the engine, as JSON.
"""

import json
import os

from .settings import *  # noqa: F403
from .settings import DATABASES

DATABASES["default"]["NAME"] = os.environ["SMSKA_DB"]

SMSKA_LOCMEM_IN_TESTS = False  # it is a child of a test run, and sends to the stand-in
SMS_PROVIDERS = {
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

globals().update(json.loads(os.environ["SMSKA_ENGINE"]))

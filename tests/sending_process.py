"""What a test may start: a process that sends an SMS, ``python -m tests.sending_process``.

``SMSKA_URL`` is the gateway's address. This is also the project's views and settings.
"""

import os

from django.http import HttpResponse
from django.urls import path

from .settings import *  # noqa: F403

ROOT_URLCONF = __name__
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
SMS_PROVIDERS = {
    "default": {
        "OPTIONS": {
            "api_key": "test",
            "api_password": "test",
            "sender_id": "Test",
            "url": os.environ.get("SMSKA_URL", "http://127.0.0.1:9/"),
        }
    }
}
SMSKA_LOCMEM_IN_TESTS = os.environ.get("SMSKA_REALLY", "") == ""


def send():
    """Send one, and return where it went."""
    import django

    django.setup()
    from django_smska.models import SmsMessage
    from django_smska.sms import providers

    backend = providers["default"]
    assert backend.send_messages([SmsMessage(to="+79041764995", body="from a child")]) == 1
    return type(backend).__module__


urlpatterns = [path("", lambda request: HttpResponse(send()))]

if __name__ == "__main__":
    print(send())

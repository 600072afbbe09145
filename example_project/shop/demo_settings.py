"""Settings of ``manage.py demo``: a database of its own, and no way to a real gateway."""

from .settings import *  # noqa: F403
from .settings import BASE_DIR, SQLITE_OPTIONS, env

DEMO = True
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": env("DEMO_DATABASE_FILE", default=str(BASE_DIR / "demo.sqlite3")),
        "OPTIONS": SQLITE_OPTIONS,
    }
}

# The demo puts its stand-in gateway here as soon as it knows the port.
SMS_PROVIDERS = dict.fromkeys(
    ("default", "codes"), {"BACKEND": "django_smska.backends.dummy.SmsBackend"}
)
# Also where a test starts the demo.
SMSKA_LOCMEM_IN_TESTS = False

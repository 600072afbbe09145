"""Settings of the test suite. ``DATABASE_URL`` chooses the database; SQLite is the default."""

from pathlib import Path

import environ

env = environ.Env()

SECRET_KEY = "tests"
DEBUG = False
USE_TZ = True
TIME_ZONE = "Europe/Moscow"
LANGUAGE_CODE = "en"
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
ALLOWED_HOSTS = ["*"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

DATABASES = {
    "default": env.db("DATABASE_URL", default=f"sqlite:///{Path(__file__).parent / 'db.sqlite3'}")
}
if (
    DATABASES["default"]["ENGINE"].endswith("sqlite3")
    and DATABASES["default"]["NAME"] != ":memory:"
):
    # A file, not memory: workers in other processes and threads must see it.
    file = Path(DATABASES["default"]["NAME"])
    DATABASES["default"] |= {
        "TEST": {"NAME": str(file.with_name(f"test-{file.name}"))},
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }
elif DATABASES["default"]["ENGINE"].endswith("mysql"):
    DATABASES["default"] |= {"TEST": {"CHARSET": "utf8mb4"}, "OPTIONS": {"charset": "utf8mb4"}}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_smska",
    "tests",  # for its command flush
]
# tox checks the database before any test has made tables in one of its own.
SILENCED_SYSTEM_CHECKS = ["smska.W020"]
MIDDLEWARE = [
    "tests.middleware.strict_csp",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

SMS_PROVIDERS = {
    "default": {
        "OPTIONS": {
            "api_key": "test",
            "api_password": "test",
            "sender_id": "Test",
            "url": "https://sms.invalid/api/httppost.php",
        }
    }
}
# The tests of limits set their own: all others send the same text to the same number.
SMSKA_LIMITS = None
# The tests of quiet hours set theirs: all others run at any hour.
SMSKA_QUIET_HOURS = None

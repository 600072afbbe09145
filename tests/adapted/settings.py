import os

from tests.settings import *  # noqa: F403
from tests.settings import DATABASES, MIDDLEWARE

DATABASES["default"].setdefault("TEST", {})["NAME"] = os.environ.get("ADAPTED_TEST_DATABASE")
SECRET_KEY = "tests" * 7  # of 32 bytes at least, as PyJWT wants it

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "rest_framework",
    "rest_framework.authtoken",
    "drfpasswordless",
    "phone_verify",
    "django_smska",
    "tests.adapted",
]
MIDDLEWARE = [name for name in MIDDLEWARE if "CommonMiddleware" in name]
AUTH_USER_MODEL = "adapted.User"
ROOT_URLCONF = "tests.adapted.urls"

SMS_BACKEND = "django_smska.adapters.django_sms.SmsBackend"
DEFAULT_FROM_SMS = "Shop"
SENDSMS_BACKEND = "django_smska.adapters.django_sendsms.SmsBackend"
SENDSMS_DEFAULT_FROM_PHONE = "Shop"
PASSWORDLESS_AUTH = {
    "PASSWORDLESS_AUTH_TYPES": ["MOBILE"],
    "PASSWORDLESS_SMS_CALLBACK": "django_smska.adapters.drfpasswordless.send_code",
    "PASSWORDLESS_MOBILE_MESSAGE": "Код для входа: %s",
    "PASSWORDLESS_MOBILE_NOREPLY_NUMBER": "Shop",
}
PHONE_VERIFICATION = {
    "BACKEND": "django_smska.adapters.phone_verify.Backend",
    "OPTIONS": {"sender": "Shop"},
    "TOKEN_LENGTH": 6,
    "MESSAGE": "{app}: {security_code}",
    "APP_NAME": "Shop",
    "SECURITY_CODE_EXPIRATION_SECONDS": 600,
    "VERIFY_SECURITY_CODE_ONLY_ONCE": True,
}

"""A site with the apps that ``django_smska.adapters`` serves, set up as the guide says."""

from tests import settings as base
from tests.documents import run

DATABASES = {"default": {**base.DATABASES["default"]}}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    file = DATABASES["default"]["TEST"]["NAME"]
    DATABASES["default"]["TEST"] = {"NAME": f"{file}.adapters"}
else:
    DATABASES["default"]["NAME"] += "_adapters"

INSTALLED_APPS = [*base.INSTALLED_APPS]
MIDDLEWARE = base.MIDDLEWARE[1:]  # their pages do not keep to our policy for content

globals().update(
    (name, value) for name, value in vars(base).items() if name.isupper() and name not in globals()
)
for words in ("AccountMiddleware", "TWO_FACTOR_SMS_GATEWAY", "django_smska.adapters.otp"):
    found = run("howto/adapters", words, INSTALLED_APPS=INSTALLED_APPS, MIDDLEWARE=MIDDLEWARE)
    globals().update((name, value) for name, value in found.items() if name.isupper())
# The guide calls the project's own app "shop".
INSTALLED_APPS = list(dict.fromkeys(name for name in INSTALLED_APPS if name != "shop"))
INSTALLED_APPS += ["tests.adapters", "allauth.headless"]
MIDDLEWARE = list(dict.fromkeys(MIDDLEWARE))
ACCOUNT_ADAPTER = "tests.adapters.accounts.AccountAdapter"
ROOT_URLCONF = "tests.adapters.urls"
ACCOUNT_RATE_LIMITS = False  # ours are looked at

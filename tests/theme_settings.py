"""A whole site for people to look at: both languages, and the admin theme ``SMSKA_THEME``."""

import os

from .settings import *  # noqa: F403
from .settings import INSTALLED_APPS, MIDDLEWARE

#: Each theme: the apps before Django's admin.
THEMES = {
    "django": [],
    "unfold": ["unfold"],
    "jazzmin": ["jazzmin"],
    "grappelli": ["grappelli"],
}
THEME = os.environ.get("SMSKA_THEME", "django")

INSTALLED_APPS = [*THEMES[THEME], *INSTALLED_APPS]
MIDDLEWARE = [
    # The themes have scripts and styles of their own in their pages.
    *(name for name in MIDDLEWARE if THEME == "django" or name != "tests.middleware.strict_csp"),
    "django.middleware.locale.LocaleMiddleware",
]
ROOT_URLCONF = "tests.theme_urls"
LANGUAGES = [("en", "English"), ("ru", "Русский")]
SMSKA_LOCMEM_IN_TESTS = False

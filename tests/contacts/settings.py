"""The test site with the address book, in a database of its own."""

from tests import settings as base
from tests.documents import run

DATABASES = {"default": {**base.DATABASES["default"]}}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    file = DATABASES["default"]["TEST"]["NAME"]
    DATABASES["default"]["TEST"] = {"NAME": f"{file}.contacts"}
else:
    DATABASES["default"]["NAME"] += "_contacts"

globals().update(
    (name, value) for name, value in vars(base).items() if name.isupper() and name not in globals()
)
# As the guide says.
found = run("howto/contacts", "SMSKA_RECIPIENTS", INSTALLED_APPS=[*base.INSTALLED_APPS])
globals().update((name, value) for name, value in found.items() if name.isupper())

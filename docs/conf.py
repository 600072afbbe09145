"""Sphinx: ``sphinx-build -W --keep-going -b html docs docs/_build/html``."""

import sys
from importlib.util import find_spec
from pathlib import Path

import django
from django.conf import settings

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
settings.configure(
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django_smska",
    ],
    USE_TZ=True,
)
django.setup()

project = "django-smska"
author = "The django-smska developers"
release = version = __import__("django_smska").__version__

extensions = ["sphinx.ext.autodoc", "smska_reference"]
exclude_patterns = ["_build"]
highlight_language = "text"

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signatures are read by people; py.typed serves the programs

html_theme = "furo" if find_spec("furo") else "alabaster"
html_title = f"django-smska {release}"

"""Packages of the dependency groups, with which the tests try the app as its users have it.

Where one is not installed its tests skip and say so; ``SMSKA_REQUIRE_PACKAGES`` forbids that.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec

import pytest


def package(name):
    """Return the module of this name; skip where it is not installed."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if not name.startswith(error.name or "?"):
            raise  # one that it needs itself
    _miss(name)


def require(*names):
    """Skip where one of these is not installed. None is imported."""
    for name in names:
        if find_spec(name) is None:
            _miss(name)


def _miss(name):
    why = f"{name} is not installed"
    if os.environ.get("SMSKA_REQUIRE_PACKAGES"):
        pytest.fail(f"{why}, and SMSKA_REQUIRE_PACKAGES is set")
    pytest.skip(f"{why}: its tests are left out")

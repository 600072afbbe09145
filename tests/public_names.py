"""What projects may name, out of the reference: ``python -m tests.public_names`` writes the list.

A line of ``public_names.txt`` that changes is a change for each project that uses it.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LIST = Path(__file__).with_name("public_names.txt")
DIRECTIVE = re.compile(
    r"^\.\. auto(?:function|class|data|module):: ([\w.]+).*\n((?:   .*\n)*)", re.MULTILINE
)
IMPORT = re.compile(r"^ +from (django_smska[\w.]*) import (\w+(?:, \w+)*)", re.MULTILINE)
#: They need other apps; their own tests import them.
OF_OTHERS = ("django_smska.adapters", "django_smska.contacts", "django_smska.metrics")


def public_names() -> list[str]:
    """Return a line for each name, with its parameters where it can be called."""
    pages = sorted((ROOT / "docs").rglob("*.rst"))
    found = {line for page in pages for line in _lines(page.read_text(encoding="utf-8"))}
    return sorted(found)


def _lines(page: str) -> Iterator[str]:
    for module, names in IMPORT.findall(page):
        for name in names.split(", "):
            path = f"{module}.{name}"
            yield path if module.startswith(OF_OTHERS) else _line(path, _imported(path))
    for name, options in DIRECTIVE.findall(page):
        thing = _imported(name)
        if not inspect.ismodule(thing):
            yield _line(name, thing)
        for member in _members(thing, options):
            yield _line(f"{name}.{member}", getattr(thing, member))


def _imported(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        module, _, last = name.rpartition(".")
        return getattr(_imported(module), last)


def _members(thing: Any, options: str) -> list[str]:
    named = re.search(r":members:([^:]*)", options)
    if named is None:
        return []
    if names := re.findall(r"\w+", named[1]):
        return names
    return [name for name in vars(thing) if not name.startswith("_")]


def _line(name: str, thing: Any) -> str:
    called = thing.__init__ if isinstance(thing, type) else thing
    is_ours = getattr(called, "__module__", "").startswith("django_smska")
    if not (callable(thing) and is_ours):
        return name  # no parameters, or those of Python or Django
    parameters = inspect.signature(thing).parameters.values()
    return f"{name}({', '.join(map(_parameter, parameters))})"


def _parameter(one: inspect.Parameter) -> str:
    star = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
    only = "keyword " if one.kind == one.KEYWORD_ONLY else ""
    optional = "" if one.default is one.empty or star else "=…"
    return f"{only}{star}{one.name}{optional}"


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import_module("django").setup()
    LIST.write_text("\n".join(public_names()) + "\n", encoding="utf-8")

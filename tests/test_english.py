"""The words that the project does not use: each has a plainer one that says more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import django_smska

ROOT = Path(__file__).parent.parent
PACKAGE = Path(django_smska.__file__).parent  # elsewhere, where the wheel is tested

#: What must not occur, and what to write.
BANNED = {
    "surely": "definitely, or nothing",
    "deeds?": "action, operation",
    "shall": "a question with the button's verb",
    '(?<!")told(?!")|tells?': "reported, says, shows",
    "taken|took": "accepted, claimed, read",
    "anew": "again",
    "meanwhile": "in the meantime",
    "cures?": "fix",
    "ill|ails?|ailing": "failing",
    "nobody|somebody|whoever": "worker, caller, process, transaction",
    "by itself|by themselves": "automatically",
    "in the air": "in flight",
    "(?:for|of|ask|asks|asked|give|gives|grant) leave": "permission",
}
SOURCES = ("*.py", "*.html", "*.js", "*.css", "*.rst", "*.toml")
FOLDERS = (PACKAGE, *(ROOT / name for name in ("example_project", "docs", "benchmarks", "tests")))


def texts() -> list[Path]:
    found = [path for path in ROOT.glob("*.rst") if path.name != "README.ru.rst"]
    for folder in FOLDERS:
        found += [path for suffix in SOURCES for path in folder.rglob(suffix)]
    found = [path for path in found if path != Path(__file__) and "_build" not in path.parts]
    return sorted(found)


def name_of(path: Path) -> str:
    top = PACKAGE.parent if path.is_relative_to(PACKAGE) else ROOT
    return path.relative_to(top).as_posix()


@pytest.mark.slow
@pytest.mark.parametrize("words", BANNED, ids=lambda words: re.sub(r"\W+", "-", words))
def test_a_plainer_word_is_used(words):
    """Also in names, whose parts an underscore joins."""
    banned = re.compile(rf"(?<![A-Za-z])(?:{words})(?![A-Za-z])", re.IGNORECASE)
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if banned.search(line.replace("\\n", " "))
    ]
    assert not found, f"write {BANNED[words]}:\n" + "\n".join(found)


def test_all_is_looked_at():
    names = {name_of(path) for path in texts()}
    assert {"README.rst", "CHANGELOG.rst", "django_smska/sms.py", "tests/conftest.py"} <= names
    assert "django_smska/templates/admin/django_smska/smsmessage/page.html" in names

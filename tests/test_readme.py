"""The README and its Russian sister: short, plain, and true."""

from __future__ import annotations

import re

import pytest

from django_smska import conf
from tests.documents import CHANGELOG, DOCUMENTS, GUIDE, ROOT, blocks

README = DOCUMENTS["README"]


def test_it_can_be_read_in_one_go():
    assert len(README.splitlines()) < 200


def test_nothing_is_installed_from_an_index_that_does_not_have_it():
    for text in (*DOCUMENTS.values(), GUIDE, CHANGELOG):
        assert re.findall(r"pip install [^\n]*?(?<![/\w])django[-_]smska\b(?!\S*\.whl)", text) == []


def test_the_code_of_the_guide_compiles():
    assert len(blocks(GUIDE)) == GUIDE.count("code-block:: python") > 1
    for block in blocks(GUIDE):
        compile(block, "README.ru.rst", "exec")


def test_the_guide_lists_each_setting_with_its_default():
    listed = dict(re.findall(r"^ +``(SMSKA_\w+)`` +(\w+)", GUIDE, re.M))
    words = {dict: "словарь", tuple: "список"}
    defaults = {name: one.default for name, one in conf.Setting.known.items()}
    assert listed == {
        name: words.get(type(default)) or str(default) or "пусто"
        for name, default in defaults.items()
    }


@pytest.mark.parametrize(
    "name", ["README.rst", "README.ru.rst", "SECURITY.rst", "example_project/README.rst"]
)
def test_links_lead_to_files(name):
    path = ROOT / name
    text = path.read_text(encoding="utf-8")
    targets = re.findall(r"<([^<>\s:]+)>`__?|^ *\.\. image:: (\S+)", text, re.M)
    missing = [one for one in map("".join, targets) if not (path.parent / one).is_file()]
    assert missing == []

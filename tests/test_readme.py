"""The README and its Russian sister: short, plain, and true."""

from __future__ import annotations

import re

import pytest

from tests.documents import CHANGELOG, CODE, DOCUMENTS, GUIDE, ROOT, blocks

README = DOCUMENTS["README"]

#: Words that a reader with English as a second language misreads, and what to write instead.
WRONG = {
    r"surely": "definitely",
    r"deeds?": "action",
    r"shall": "a plain statement",
    r"told|tells?": "reported, says",
    r"taken|took": "accepted",
    r"anew": "again",
    r"meanwhile": "in the meantime",
    r"cures?": "fix",
    r"ill|ails?|ailing": "failing",
    r"nobody|somebody": "worker, caller, process",
    r"by itself|by themselves": "automatically",
    r"in the air": "in flight",
    r"leave (?:to|of)": "permission",
}


def prose(text):
    """The text without its code."""
    return re.sub(r"``.*?``|^ +\$? ?python.*$", "", CODE.sub("", text), flags=re.S | re.M)


@pytest.mark.parametrize("name", [*DOCUMENTS, "CHANGELOG"])
def test_plain_words(name):
    text = prose(CHANGELOG if name == "CHANGELOG" else DOCUMENTS[name])
    found = {
        f"{match[0]}: write {better}"
        for wrong, better in WRONG.items()
        for match in re.finditer(rf"\b(?:{wrong})\b", text, re.I)
    }
    assert found == set()


def test_it_can_be_read_in_one_go():
    assert len(README.splitlines()) < 200


def test_nothing_is_installed_from_an_index_that_does_not_have_it():
    for text in (*DOCUMENTS.values(), GUIDE, CHANGELOG):
        assert re.findall(r"pip install [^\n]*?(?<![/\w])django[-_]smska\b(?!\S*\.whl)", text) == []


def test_the_code_of_the_guide_compiles():
    assert len(blocks(GUIDE)) == GUIDE.count("code-block:: python") > 1
    for block in blocks(GUIDE):
        compile(block, "README.ru.rst", "exec")


@pytest.mark.parametrize("name", ["README.rst", "README.ru.rst", "example_project/README.rst"])
def test_links_lead_to_files(name):
    path = ROOT / name
    text = path.read_text(encoding="utf-8")
    targets = re.findall(r"<([^<>\s:]+)>`__?|^ *\.\. image:: (\S+)", text, re.M)
    missing = [one for one in map("".join, targets) if not (path.parent / one).is_file()]
    assert missing == []

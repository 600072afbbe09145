"""The documents of the repository, and the Python in them."""

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.rst") if "_build" not in path.parts)

#: The text of each document, by its name: "README", "tutorial", "howto/queues".
DOCUMENTS = {
    "README": (ROOT / "README.rst").read_text(encoding="utf-8"),
    **{
        path.relative_to(ROOT / "docs").with_suffix("").as_posix(): path.read_text(encoding="utf-8")
        for path in PAGES
    },
}
GUIDE = (ROOT / "README.ru.rst").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.rst").read_text(encoding="utf-8")

CODE = re.compile(r"^( *)\.\. code-block:: python\n\n((?:\1 +\S.*\n|\n)+)", re.M)


def blocks(text):
    return [textwrap.dedent(match[2]).strip() + "\n" for match in CODE.finditer(text)]


def block_with(document, words):
    """The one block of the document that has these words."""
    [found] = [block for block in blocks(DOCUMENTS[document]) if words in block]
    return found


def run(document, words, **names):
    """Execute the block that has these words; return its names."""
    names = {"__name__": "docs", **names}
    exec(compile(block_with(document, words), document, "exec"), names)
    return names

"""Bring the translations up to date, of the package and of the example shop:
``python -m tests.catalogue``.

Texts that are new in the code come into each ``django.po`` without a translation, those that left
it go, and ``django.mo`` is compiled. A new language starts from a ``django.po`` with a header.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog
from babel.messages.extract import DEFAULT_KEYWORDS, extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

import django_smska

PACKAGE = Path(django_smska.__file__).parent
SHOP = PACKAGE.parent / "example_project/shop"
KEYWORDS: dict[str, Any] = {
    **DEFAULT_KEYWORDS,
    "gettext_lazy": None,
    "gettext_noop": None,
    "ngettext_lazy": (1, 2),
    "pgettext_lazy": ((1, "c"), 2),
    "npgettext_lazy": ((1, "c"), 2, 3),
}


class PlainCatalog(Catalog):
    """Names no date and no program's version, which would change the files each time."""

    KEPT = ("Language", "Plural-Forms", "MIME-Version", "Content-Type", "Content-Transfer-Encoding")

    mime_headers = property(
        lambda self: [pair for pair in Catalog.mime_headers.fget(self) if pair[0] in self.KEPT],
        Catalog.mime_headers.fset,
    )


def languages(app: Path = PACKAGE) -> list[str]:
    return sorted(folder.name for folder in (app / "locale").iterdir() if folder.is_dir())


def path(language: str, suffix: str, app: Path = PACKAGE) -> Path:
    return app / "locale" / language / "LC_MESSAGES" / f"django.{suffix}"


def read(language: str, app: Path = PACKAGE) -> Catalog:
    with path(language, "po", app).open("rb") as file:
        return read_po(file, locale=language)


def texts(app: Path = PACKAGE) -> Iterator[tuple[Any, str | None]]:
    """Every text in the app that is marked for translation, with its context: a string, or
    singular and plural."""
    for source in sorted(app.rglob("*.py")):
        yield from _texts_in(source.read_text(encoding="utf-8"))
    for template in sorted((app / "templates").rglob("*.*")):
        code = templatize(template.read_text(encoding="utf-8"))
        # What was HTML is no Python: its indentation would not be understood.
        yield from _texts_in("\n".join(line.strip() for line in code.splitlines()))


def _texts_in(code: str) -> Iterator[tuple[Any, str | None]]:
    for _, text, _, context in extract("python", io.BytesIO(code.encode()), KEYWORDS):
        yield text, context


def updated(old: Catalog, app: Path = PACKAGE) -> Catalog:
    """The texts of today with the translations that ``old`` has."""
    new = PlainCatalog(locale=old.locale, header_comment="# Translations of django-smska.")
    new.fuzzy = False
    new.mime_headers = old.mime_headers
    for text, context in texts(app):
        known = old.get(text, context)
        if known is None:
            new.add(text, context=context)
        else:
            kept = {"flags": known.flags, "user_comments": known.user_comments}
            new.add(text, known.string, context=context, **kept)
    return new


def compiled(catalog: Catalog) -> bytes:
    file = io.BytesIO()
    write_mo(file, catalog)
    return file.getvalue()


def main() -> None:
    for app, language in [(one, code) for one in (PACKAGE, SHOP) for code in languages(one)]:
        catalog = updated(read(language, app), app)
        with path(language, "po", app).open("wb") as file:
            write_po(file, catalog, width=99, no_location=True, sort_output=True)
        path(language, "mo", app).write_bytes(compiled(catalog))
        empty = [message.id for message in catalog if not message.string]
        print(f"{app.name}, {language}: {len(catalog)} texts, {len(empty)} without a translation")
        for text in empty:
            print(f"  {text}")


if __name__ == "__main__":
    main()

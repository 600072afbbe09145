"""Find a saved text by its name and language, and fill its placeholders."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from django.utils.translation import get_language, gettext, override

from . import placeholders
from .exceptions import UnknownTemplate
from .models import SmsTemplate, write_db
from .query_errors import hides_frames

MAX_NAMES_LISTED = 20  # the most names that an error lists


@hides_frames
def render(name: str, language: str | None, values: list[tuple[str, Any]]) -> str:
    """Return the text of a template with its values, in a language or in the active one.

    :param language: a code; None for the active one
    :param values: names and values; some may be of no use
    :raises UnknownTemplate: for a name, or a language, without a text
    :raises ValidationError: for a text or a value that cannot be used; it names the placeholder
    """
    wanted = get_language() if language is None else language
    template = _find(name, wanted or "")
    written_in = template.language or wanted
    text, every = placeholders.Text(template.body), placeholders.by_key(values)
    with override(written_in) if written_in else nullcontext():
        return text.render(every)


def _find(name: str, language: str) -> SmsTemplate:
    # Some databases find a name in other letters, too.
    found = SmsTemplate.objects.using(write_db()).filter(name=name)
    by_language = {_code(one.language): one for one in found if one.name == name}
    for code in _fallbacks(language):
        if code in by_language:
            return by_language[code]
    if not by_language:
        raise _unknown(name)
    words = gettext(
        "The template “%(name)s” has no text for the language “%(language)s”, and none for all "
        "languages. It has: %(languages)s."
    )
    languages = ", ".join(sorted(by_language))
    raise UnknownTemplate(words % {"name": name, "language": language, "languages": languages})


def _fallbacks(language: str) -> tuple[str, ...]:
    """Return the languages whose text will do: "ru-ru", "ru", and all."""
    code = _code(language)
    return (code, code.partition("-")[0], "")


def _code(language: str) -> str:
    return language.replace("_", "-").lower()


def _unknown(name: str) -> UnknownTemplate:
    every = SmsTemplate.objects.using(write_db()).order_by("name")
    names = list(every.values_list("name", flat=True).distinct()[: MAX_NAMES_LISTED + 1])
    if not names:
        words = gettext("There is no template “%(name)s”, and no other. Save it in the admin.")
        return UnknownTemplate(words % {"name": name})
    listed = ", ".join([*names[:MAX_NAMES_LISTED], *(["…"] if names[MAX_NAMES_LISTED:] else [])])
    words = gettext("There is no template “%(name)s”. There are: %(names)s.")
    return UnknownTemplate(words % {"name": name, "names": listed})

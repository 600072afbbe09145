"""Fill the placeholders of a text: ``Здравствуйте, {имя}!``.

A placeholder is a name in one pair of braces, and nothing else: no tag, filter, lookup or call.
Django's own template engine puts the values in, without loaders, libraries and builtins, so that
numbers and dates are written as in the language of the text. A value is never read as a template.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import date, time
from decimal import Decimal
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.template import Context, Engine
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

MAX_NAME_CHARACTERS = 40
MAX_NAMED = 5  # the most placeholders that an error lists

#: Whatever has braces in it: a placeholder, or what looks like one.
_BRACES = re.compile(r"\{+[^{}\n]{0,200}\}+|[{}]+")
_HOW = _("Write a name in one pair of braces, of letters, digits, blanks, _ and -: {name}.")
_NO_BRACES = _("To send brackets, use ( ) or [ ].")
_LOCALISED = (int, float, Decimal, date, time)


class _Engine(Engine):
    default_builtins: ClassVar[list[str]] = []


#: It can load, call and filter nothing.
_ENGINE = _Engine(loaders=[], autoescape=False)


def key(name: str) -> str:
    """Return what is the same for all spellings of a name: ``{ Имя }`` is the column ``имя``."""
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


def is_name(name: str) -> bool:
    """Return whether a placeholder may have this name."""
    return 0 < len(key(name)) <= MAX_NAME_CHARACTERS and all(map(_may_stand_in_name, name))


def shown(names: Iterable[str]) -> str:
    """Return names as placeholders, as errors list them."""
    listed = list(names)
    more = ["…"] if len(listed) > MAX_NAMED else []
    return ", ".join([*(f"{{{name}}}" for name in listed[:MAX_NAMED]), *more])


class Text:
    """A text with placeholders.

    :ivar names: the names as they stand in the text, by their :func:`key`, in their order
    :raises ValidationError: for braces that are no placeholder; it says what to do
    """

    def __init__(self, text: str) -> None:
        self.names: dict[str, str] = {}
        self._source = text
        parts: list[str] = []
        end = 0
        for found in _BRACES.finditer(text):
            parts += text[end : found.start()], self._variable(found[0])
            end = found.end()
        # What stands outside of placeholders has no braces, so that it is no template's tag.
        self._template = _ENGINE.from_string("".join([*parts, text[end:]]))

    def render(self, values: Mapping[str, Any]) -> str:
        """Return the text with the values, of any type, in the place of its placeholders.

        Line breaks, tabs and further blanks in a value become one blank, so that a value adds no
        line to the text.

        :param values: by the :func:`key` of their names; others are ignored
        :raises ValidationError: where one is missing, empty, or can be called; it names the
            placeholder, never a value
        """
        if not self.names:
            return self._source
        every = {f"value{at}": self._checked(one, values) for at, one in enumerate(self.names)}
        # What is added to a SafeString is none, and pages escape it.
        return self._template.render(Context(every, autoescape=False)) + ""

    def _variable(self, written: str) -> str:
        if not (written[1:-1] and is_name(written[1:-1])):
            raise _no_placeholder(written)
        name = " ".join(written[1:-1].split())
        self.names.setdefault(key(name), name)
        return f"{{{{ value{list(self.names).index(key(name))} }}}}"

    def _checked(self, name: str, values: Mapping[str, Any]) -> Any:
        value = values.get(name, "")
        problem = None if name in values else _("There is no value for %(name)s.")
        if callable(value):
            problem = _("The value of %(name)s is a function. Pass what it returns.")
        elif value is not None and not isinstance(value, _LOCALISED):
            value = " ".join(str(value).split())
        if value is None or value == "":
            problem = problem or _("The value of %(name)s is empty.")
        if problem:
            params = {"name": shown([self.names[name]])}
            raise ValidationError(problem, code="placeholder", params=params)
        return value


def by_key(values: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return values by the keys of their names.

    :raises ValidationError: for two of one name
    """
    found: dict[str, Any] = {}
    for name, value in values:
        if key(name) in found:
            words = _("There are two values for %(name)s.")
            raise ValidationError(words, code="placeholder", params={"name": shown([name.strip()])})
        found[key(name)] = value
    return found


def _may_stand_in_name(character: str) -> bool:
    is_blank = character.isspace() and character not in "\n\r"
    # A letter may be followed by marks: й on some keyboards.
    is_mark = unicodedata.category(character)[0] == "M"
    return character.isalnum() or is_mark or is_blank or character in "_-"


def _no_placeholder(written: str) -> ValidationError:
    params = {"what": _cut(written)}
    bare = written.strip("{} \t")
    if not re.fullmatch(r"\{[^{}]*\}", written) and is_name(bare):
        words = _("“%(what)s”: write %(name)s, with one brace on each side.")
        params["name"] = shown([" ".join(bare.split())])
        return ValidationError(words, code="braces", params=params)
    words = format_lazy("{} {} {}", _("“%(what)s” is no placeholder."), _HOW, _NO_BRACES)
    return ValidationError(words, code="braces", params=params)


def _cut(written: str) -> str:
    return written if len(written) <= MAX_NAME_CHARACTERS else f"{written[:MAX_NAME_CHARACTERS]}…"

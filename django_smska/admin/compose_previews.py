"""What the page that checks shows of the texts: as phones show them, and what cannot be made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from django.utils.translation import gettext

from ..numbers import mask
from ..segments import count
from . import permissions, text_words
from .compose_form import ComposeForm
from .permissions import Unlogged
from .recipients import LeftOut

MOST_FIRST = 3  # the most first rows that are shown as phones


def shown(form: ComposeForm, numbers: list[str], sender: str, user: Any) -> dict[str, Any]:
    """Return the texts as phones show them, and their sizes, for the template of the page.

    :param numbers: those that get a text, as far as the user may know
    """
    if form.filling is None:
        text = form.instance.body
        phones = [{**text_words.phone(text, sender), "to": ""}]
        sizes = [form.instance.segments]
    else:
        sizes = [form.segments_for(number) for number in numbers] or [0]
        text = form.text_for(_longest(form, numbers)) if numbers else ""
        phones = [
            _phone(form, number, sender, words, user) for number, words in _rows(form, numbers)
        ]
    return {
        "phones": phones,
        "advice": [Unlogged(words) for words in text_words.advice(text)],
        "fewest": min(sizes),
        "most_segments": max(sizes),
    }


def incomplete(form: ComposeForm, user: Any) -> list[LeftOut]:
    """Return the rows whose text cannot be made, without their cells for a user who may not see
    numbers."""
    if permissions.may_see_number(user):
        return form.incomplete
    return [replace(one, written=gettext("(hidden)")) for one in form.incomplete]


def _rows(form: ComposeForm, numbers: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the first numbers and that of the longest text, each with the words above its phone."""
    first = numbers[:MOST_FIRST]
    yield from ((number, gettext("To %(number)s")) for number in first)
    if len(numbers) > MOST_FIRST and (longest := _longest(form, numbers)) not in first:
        yield longest, gettext("The longest, to %(number)s")


def _longest(form: ComposeForm, numbers: list[str]) -> str:
    def size(number: str) -> tuple[int, int]:
        return form.segments_for(number), len(form.text_for(number))

    return max(numbers, key=size)


def _phone(form: ComposeForm, number: str, sender: str, words: str, user: Any) -> dict[str, Any]:
    text = form.text_for(number)
    sees = permissions.may_see_number(user)
    to = words % {"number": permissions.grouped(number) if sees else mask(number)}
    seen = text if sees else permissions.without(text, number=number)
    phone = text_words.phone(seen, sender)
    label = f"{phone['label']}. {to}"
    return {**phone, "label": Unlogged(label), "to": Unlogged(to), "segments": count(text).segments}

"""The search of the list of messages: by number, text, idempotency key and gateway id.

Each way has an index, or looks at the newest rows alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError
from django.db.models import Q
from django.db.models.functions import Substr
from django.utils.text import capfirst
from django.utils.translation import gettext

from ..models import SmsMessage
from ..numbers import find, normalize, plain
from . import clients
from .permissions import grouped, may_see_number, may_see_text
from .wording import number_words

NEWEST_ROWS = 50_000  # the number of newest rows searched for a part of a number or of a text
MAX_ID_CHARACTERS = 64  # the longest gateway id
MAX_KEY_CHARACTERS = 128  # the longest idempotency key
MAX_KEYS = 2000  # the most messages that are first looked for by each way alone
MAX_NUMBERS = 20  # the most whole numbers that one search looks for
MIN_DIGITS, MAX_DIGITS = 3, 15  # of a part of a number
MIN_CHARACTERS, MAX_CHARACTERS = 3, 200  # of a part of a text

# Words beside a number, such as "тел. 8904" or "Anna 4995"; "gw-17" and "x4995" are names.
_WORD = re.compile(r"[^\W\d_]+(?![\w-])[.:,]*")


class Way(NamedTuple):
    """One way to look for a term.

    :param condition: finds the messages
    :param words: what is looked for
    :param in_part: no index helps to find a part, so that only the newest rows are searched
    :param note: what the user is to know of it, even if something is found
    """

    condition: Q
    words: str
    in_part: bool = False
    note: str = ""


def ways(term: str, user: Any) -> Iterator[Way]:
    """Yield the ways in which this user may look for a term.

    A thousand searches would reveal the digits that a mask hides, so that numbers are searched for
    users alone who may see them.
    """
    numbers, texts = may_see_number(user), may_see_text(user)
    if term.isascii() and term.isprintable() and len(term) <= MAX_ID_CHARACTERS:
        by_id = Q(gateway_id=term)
        if not numbers:  # where a gateway repeats the number
            by_id &= ~Q(gateway_id__contains=Substr("to", 3))
        yield Way(by_id, gettext("a gateway ID"))
    if numbers and texts and len(term) <= MAX_KEY_CHARACTERS:  # a project may make keys of both
        yield Way(Q(idempotency_key=term), gettext("an idempotency key"))
    if numbers and (whole := _whole_numbers(term)):
        yield Way(Q(to__in=whole), gettext("the number %s") % ", ".join(map(grouped, whole)))
        return
    if numbers:
        yield from _by_digits(term)
        yield from _by_name(term, user)
    if texts and MIN_CHARACTERS <= len(term) <= MAX_CHARACTERS:
        yield Way(_in_text(term), gettext("a part of a text"), in_part=True)


def _whole_numbers(term: str) -> list[str]:
    """Return the number that the term is, in any spelling, or those that stand in it."""
    try:
        return [normalize(term)]
    except ValidationError:
        return [one.number for one in find(plain(term))[:MAX_NUMBERS]]


def _by_digits(term: str) -> Iterator[Way]:
    bare = _WORD.sub("", plain(term))
    digits = re.sub(r"[^0-9]", "", bare)
    if not MIN_DIGITS <= len(digits) <= MAX_DIGITS or not re.fullmatch(r"[0-9\s+().\-]+", bare):
        return
    if len(digits) == MIN_DIGITS:  # elsewhere in a number they would fit to too many
        words = gettext("a number that ends with %s") % digits
        yield Way(Q(to__endswith=digits), words, in_part=True)
        return
    part = Q(to__contains=digits)
    if digits.startswith("8"):
        part |= Q(to__startswith=f"+7{digits[1:]}")
    yield Way(part, gettext("a number with the digits %s") % digits, in_part=True)


def _by_name(term: str, user: Any) -> Iterator[Way]:
    is_name = any(map(str.isalpha, term)) and MIN_CHARACTERS <= len(term) <= MAX_CHARACTERS
    if not (is_name and clients.is_set()):
        return
    found = clients.named(user, term)
    note = gettext(
        "More than %s clients have this name. Messages to some of them are not found. Write more "
        "of the name."
    )
    most = number_words(clients.MAX_FOUND)
    yield Way(Q(to__in=found.numbers), gettext("a name"), note=note % most if found.cut else "")


def _in_text(term: str) -> Q:
    """Find a part of a text, also with a capital letter at its start or without one: SQLite ignores
    case in ASCII alone. What no user may see, a sensitive text, is not found."""
    spellings = sorted({term, term.lower(), str(capfirst(term))})
    return any_of(Q(body__contains=one) for one in spellings) & Q(sensitive=False)


def any_of(conditions: Iterable[Q]) -> Q:
    found = Q(pk__in=())
    for one in conditions:
        found |= one
    return found


def condition(found: list[Way]) -> Q:
    """Return a filter for what any of these ways finds.

    Rows are looked for by each way alone, because a database that is to find either, the newest
    first, reads the whole table. Where there are many, it finds enough of them soon.
    """
    whole = [way.condition for way in found if not way.in_part]
    parts = [way.condition for way in found if way.in_part]
    if not parts:
        return any_of(whole)
    newest = SmsMessage.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    part = any_of(parts) & Q(pk__gt=newest - NEWEST_ROWS)
    by_whole, by_part = _keys(whole), _keys([part])
    if len(by_whole) > MAX_KEYS:
        return any_of(whole) | part
    if len(by_part) > MAX_KEYS:
        return Q(pk__in=by_whole) | part if by_whole else part
    return Q(pk__in={*by_whole, *by_part})


def _keys(conditions: list[Q]) -> list[int]:
    """Return the keys of messages that any of these finds, by one query; one too many where there
    are more than ``MAX_KEYS``."""
    every = [SmsMessage.objects.filter(one).order_by().values_list("pk") for one in conditions]
    if not every:
        return []
    first, *others = every
    united = first.union(*others, all=True).order_by() if others else first.order_by("-pk")
    return [key for (key,) in united[: MAX_KEYS + 1]]


def help_text(user: Any) -> str:
    """Return what this user can search for."""
    numbers, texts = may_see_number(user), may_see_text(user)
    known = {
        gettext("number in any spelling, or its last digits"): numbers,
        gettext("name of the client"): numbers and clients.is_set(),
        gettext("words of the text"): texts,
        gettext("idempotency key"): numbers and texts,
        gettext("gateway ID"): True,
    }
    return str(capfirst(", ".join(words for words, may in known.items() if may)))


def found_nothing(term: str, found: list[Way], *, filtered: bool) -> str:
    """Return what was looked for in vain.

    :param filtered: whether the list's filters left messages out
    """
    said: list[Any] = [gettext("Nothing was found for “%s”.") % term]
    if found:
        said.append(gettext("It was looked for as: %s.") % ", ".join(way.words for way in found))
    if any(way.in_part for way in found):
        number = number_words(NEWEST_ROWS)
        said.append(
            gettext("Parts are searched for in the newest %s messages. Try the whole number.")
            % number
        )
    if filtered:
        said.append(gettext("Filters are chosen, too."))
    return " ".join(said)

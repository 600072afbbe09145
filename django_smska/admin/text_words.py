"""What is said about a text before it is sent: what would make it cost less, what looks forgotten
in it, and how a phone shows it. ``counter.js`` says the same while the text is typed, by the words
of the widget.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any

from django.utils.functional import lazy
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from .. import opt_out
from ..segments import MOST_FEWER, count, is_of_other_script, parts, savings
from .permissions import Unlogged

ODD = _("Because of {characters}, one SMS holds 70 characters and not 160.")
WITHOUT_ODD = _("Without such characters: {less} SMS and not {segments}.")
NAMED = _("“{character}”")
SENDER = _("The provider's sender")
PHONE = _("As a phone shows it")
MARK = _("SMS {number}")
JOINED = _("A mark with a number shows where the next SMS begins. Phones join them to one text.")


def _fewer(number: int) -> str:
    return ngettext(
        "{number} character fewer at the end would make it {less} SMS and not {segments}.",
        "{number} characters fewer at the end would make it {less} SMS and not {segments}.",
        number,
    )


def _every_fewer() -> str:
    return "\n".join(_fewer(number) for number in range(1, MOST_FEWER + 1))


#: A line for each number: a script does not know the language's plurals.
FEWER = lazy(_every_fewer, str)()


def advice(text: str) -> Iterator[str]:
    """Yield what would make the text cost less."""
    segments, found = count(text).segments, savings(text)
    if found.odd:
        yield str(ODD).format(characters=", ".join(map(_named, found.odd)))
    if found.without_odd < segments:
        yield str(WITHOUT_ODD).format(less=found.without_odd, segments=segments)
    elif found.fewer:
        parts = {"number": found.fewer, "less": found.without_fewer, "segments": segments}
        yield _fewer(found.fewer).format(**parts)


def phone(text: str, sender: str) -> dict[str, Any]:
    """Return what the template of the phone shows.

    :param sender: what stands above the text
    """
    return {
        "label": PHONE,
        "sender": sender,
        "parts": [
            (str(MARK).format(number=number), Unlogged(part))
            for number, part in enumerate(parts(text), start=1)
        ],
        "joined": JOINED,
    }


def own_sender(alias: str) -> Any:
    """Return the sender of a provider's messages that name none, or words where it is not known."""
    known = opt_out.senders(alias)
    return known[0] if len(known) == 1 else SENDER


def _named(character: str) -> str:
    """Return a character as people see it, with its code where they do not, or see another."""
    code = f"U+{ord(character):04X}"
    if unicodedata.category(character)[0] not in "LNPS":
        return code
    seen = str(NAMED).format(character=character)
    return f"{seen} ({code})" if is_of_other_script(character) else seen

"""The project's clients, as ``SMSKA_RECIPIENTS`` gives them: recipients, and names beside numbers.

All of it is for users who may see whole numbers. The functions are the project's and may raise
anything, so that what they do is undone, and only the kind of the error is logged.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db import connections, transaction
from django.db.models import Q, QuerySet
from django.utils.formats import date_format
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.translation import gettext, gettext_noop, ngettext, pgettext

from .. import conf, placeholders
from ..dotted_paths import function_at
from ..numbers import normalize
from ..shapes import is_mapping, is_sequence
from ..times import local
from . import recipients, tables
from .permissions import Unlogged, may_see_number
from .wording import number_words

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    Clients = QuerySet[Any, Any]
else:
    Clients = QuerySet

SETTING = "SMSKA_RECIPIENTS"
GROUP = "group"  # the parameter of the page for writing with the key of a group, and the field
NUMBER, NAME = "number", "name"  # the keys of a client
MAX_NAME_CHARACTERS = 40  # the longest name that a list shows whole
MAX_NAMED = 500  # the most numbers whose names are looked for at once
MAX_FOUND = 500  # the most numbers that the search for a name looks for
MAX_WORDS = 5  # the most words of a name that is looked for
MAX_UNITED = 10  # the most groups in one query
MAX_PAGE_SHARE = 0.9  # of the form that carries the recipients on; the rest of it is the text

_RAISED = gettext_noop("%(error)s was raised")
_WRONG = gettext_noop("the setting is wrong")
_NO_ROWS = gettext_noop("it returns neither a QuerySet nor a list of dicts")
_NO_NUMBER = gettext_noop("row %(row)s is no dict with the key “number”")


class Unreadable(Exception):
    """A function of ``SMSKA_RECIPIENTS`` cannot be used.

    :param why: a text of the catalogue; with its ``parts``, no value of a client is in it
    """

    def __init__(self, label: str, path: str, why: str, **parts: Any) -> None:
        super().__init__(f"{path}: {why % parts}")
        self.label, self.path, self.why, self.parts = label, path, why, parts

    @property
    def words(self) -> str:
        """The same for a page."""
        words = gettext("“%(label)s” cannot be read. Ask your administrator. %(path)s: %(why)s.")
        why = gettext(self.why) % self.parts
        return words % {"label": self.label, "path": self.path, "why": why}

    def log(self) -> None:
        logger.warning("clients cannot be read: %s", self)


@dataclass(frozen=True)
class Group:
    """Clients that a user may write to.

    :param label: as staff see it
    :param key: the same in each language, as far as the project's labels are
    :param rows: a QuerySet of dicts, or a list of them
    """

    label: str
    path: str
    key: str
    rows: Any = field(repr=False)


@dataclass(frozen=True)
class Recipients:
    """The clients of a group, as a table.

    :param text: the table, as :func:`recipients.read` reads it
    :param rows: the number of clients
    :param blank: those of them without a number
    """

    label: str
    text: str = field(repr=False)
    rows: int
    blank: int

    @property
    def words(self) -> str:
        """Where the recipients come from, as a sentence."""
        words = ngettext(
            "%(number)s recipient from “%(label)s”.",
            "%(number)s recipients from “%(label)s”.",
            self.rows,
        )
        said = words % {"number": number_words(self.rows), "label": self.label}
        if not self.blank:
            return said
        more = ngettext("%s of them has no number.", "%s of them have no number.", self.blank)
        return f"{said} {more % number_words(self.blank)}"


# --- the project's functions ----------------------------------------------------------------------


def is_set() -> bool:
    """Return whether the setting names a function, or something wrong."""
    try:
        return bool(conf.recipients())
    except ImproperlyConfigured:
        return True


def is_offered(path: str) -> bool:
    """Return whether the setting names this function."""
    try:
        return path in [one for _label, one in conf.recipients()]
    except ImproperlyConfigured:
        return False


def groups(user: Any) -> tuple[list[Group], list[Unreadable]]:
    """Return the groups of all functions, and the errors of those that failed, which are logged.

    No client has been read yet.
    """
    found: list[Group] = []
    failed: list[Unreadable] = []
    try:
        sources = conf.recipients()
    except ImproperlyConfigured:
        sources, failed = [], [Unreadable(SETTING, SETTING, _WRONG)]
    for label, path in sources:
        try:
            found += _groups_of(str(label), path, user)
        except Unreadable as error:
            failed.append(error)
    for one in failed:
        one.log()
    return found, failed


def _groups_of(label: str, path: str, user: Any) -> list[Group]:
    with _reading(label, path):
        returned = function_at(path, 1)(user)
        parts = list(returned.items()) if is_mapping(returned) else [("", returned)]
        parts = [(str(part), rows) for part, rows in parts]
    if not all(isinstance(rows, QuerySet) or is_sequence(rows) for _part, rows in parts):
        raise Unreadable(label, path, _NO_ROWS)
    return [
        Group(f"{label}: {part}" if part else label, path, key_of(path, part), rows)
        for part, rows in parts
    ]


def key_of(path: str, part: str) -> str:
    """Return the key of a group, by its function and by its label there."""
    return f"{path} {part}".strip()


@contextmanager
def _reading(label: str, path: str) -> Generator[None]:
    """Raise ``Unreadable`` for whatever is raised inside, and keep the request's transactions fit:
    PostgreSQL refuses every query after one that failed."""
    try:
        with _savepoints():
            yield
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(label, path, _RAISED, error=type(error).__name__) from None


@contextmanager
def _savepoints() -> Generator[None]:
    with ExitStack() as stack:
        for connection in connections.all(initialized_only=True):
            if connection.in_atomic_block:
                stack.enter_context(transaction.atomic(using=connection.alias))
        yield


# --- recipients -----------------------------------------------------------------------------------


class Sources:
    """The groups among which a user chooses recipients. They are asked for once, when needed."""

    def __init__(self, user: Any) -> None:
        self._user = user

    @cached_property
    def _groups(self) -> tuple[list[Group], list[Unreadable]]:
        return groups(self._user)

    @property
    def problems(self) -> list[str]:
        """What cannot be chosen, as sentences."""
        return [error.words for error in self._groups[1]]

    def choices(self) -> list[tuple[str, str]]:
        return [("", "—"), *((one.key, one.label) for one in self._groups[0])]

    def recipients(self, key: str) -> Recipients:
        """Return the clients of the group with this key.

        :raises ValidationError: where they cannot be read, or are too many or none
        """
        group = next(one for one in self._groups[0] if one.key == key)
        try:
            rows = _rows(group)
            text, blank = _table(group, rows)
        except Unreadable as error:
            error.log()
            raise ValidationError(error.words) from None
        return Recipients(group.label, text, len(rows), blank)


def _rows(group: Group) -> list[Mapping[str, Any]]:
    most = recipients.MAX_NUMBERS
    with _reading(group.label, group.path):
        rows = list(group.rows[: most + 1])
        number = len(rows)
        if number > most:
            is_query = isinstance(group.rows, QuerySet)
            number = group.rows.count() if is_query else len(group.rows)
    if not rows:
        raise ValidationError(gettext("“%s” has no recipients.") % group.label)
    if number > most:
        words = gettext(
            "“%(label)s” has %(number)s recipients, and one mailing at most %(most)s. Choose a "
            "smaller group."
        )
        parts = {"number": number_words(number), "most": number_words(most)}
        raise ValidationError(words % {"label": group.label, **parts})
    return rows


def _table(group: Group, rows: list[Mapping[str, Any]]) -> tuple[str, int]:
    """Return the rows as a table, and how many of them have no number."""
    for at, row in enumerate(rows, start=1):
        if not (is_mapping(row) and NUMBER in row):
            raise Unreadable(group.label, group.path, _NO_NUMBER, row=at)
    columns = [one for one in dict.fromkeys(key for row in rows for key in row) if one != NUMBER]
    with _reading(group.label, group.path):  # a value's own text
        heads = [_cell(one) for one in columns]
        if named := _name_head(heads):
            columns, heads = [NAME, *columns], [named, *heads]
        cells = [[_cell(row.get(one)) for one in (NUMBER, *columns)] for row in rows]
        text = recipients.pasted_table([recipients.NUMBER_HEAD, *heads], cells)
    if len(columns) >= tables.MAX_COLUMNS or _is_too_large(text):
        words = gettext("“%s” has too much text. Ask your administrator to leave out columns.")
        raise ValidationError(words % group.label)
    return text, sum(not one[0].strip() for one in cells)


def _name_head(heads: list[str]) -> str:
    """Return what staff call the column of names, for a second column with this head, or ""."""
    word = pgettext("contacts", "name")
    return (
        word if NAME in heads and placeholders.key(word) not in map(placeholders.key, heads) else ""
    )


def _is_too_large(text: str) -> bool:
    """Return whether the next page's form could not carry the table, or no reader read it."""
    most = min(settings.DATA_UPLOAD_MAX_MEMORY_SIZE or float("inf"), tables.MAX_FILE_BYTES)
    longest = max(map(len, text.splitlines()))
    is_long = longest > tables.MAX_ROW_CHARACTERS
    return is_long or len(text.encode(errors="replace")) > most * MAX_PAGE_SHARE


def _cell(value: Any) -> str:
    """Return a value as people read it, without characters that no table can have."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return date_format(local(value), "SHORT_DATETIME_FORMAT")
    if isinstance(value, date):
        return date_format(value, "SHORT_DATE_FORMAT")
    return str(value).replace("\0", " ").replace("\ufffd", "?")


# --- names ----------------------------------------------------------------------------------------


def names(user: Any, numbers: Iterable[str]) -> dict[str, str]:
    """Return the names of the clients with these numbers, as far as there are any.

    An error of the project leaves names out, and is logged.

    :param numbers: as E.164
    """
    wanted = sorted({str(one) for one in numbers if str(one).startswith("+")})[:MAX_NAMED]
    found: dict[str, str] = {}
    if not (wanted and is_set() and may_see_number(user)):
        return found

    def read(groups_with_names: list[Clients]) -> None:
        missing = {number for number in wanted if number not in found}
        spellings = [one for number in missing for one in _spellings(number)]
        if not missing:
            return
        for rows in _united([one.filter(number__in=spellings) for one in groups_with_names]):
            for number, name in rows.values_list(NUMBER, NAME):
                if (known := _e164(number)) in missing and (words := _one_line(name)):
                    found.setdefault(known, Unlogged(words))

    _read_each(user, read)
    return found


def put_names(user: Any, rows: Iterable[Any], number: str) -> None:
    """Give each row ``client_name``, for :func:`beside`.

    :param number: the attribute of a row with its number
    """
    every = list(rows)
    found = names(user, [getattr(row, number) for row in every])
    for row in every:
        row.client_name = found.get(getattr(row, number), "")


def beside(shown: str, row: Any) -> str:
    """Return a number with the client's name below it, cut where it is long."""
    name = getattr(row, "client_name", "")
    if not name:
        return shown
    start = Truncator(name).chars(MAX_NAME_CHARACTERS)
    html = '{}<span class="smska-client" title="{}">{}</span>'
    return format_html(html, shown, name, start)


def before(shown: str, row: Any) -> str:
    """Return a number behind the client's name, where there is only one line."""
    name = getattr(row, "client_name", "")
    start = Truncator(name).chars(MAX_NAME_CHARACTERS)
    return Unlogged(f"{start}, {shown}" if name else shown)


class Named(NamedTuple):
    """The numbers of the clients with a name.

    :param cut: whether there are more
    """

    numbers: list[str]
    cut: bool


def named(user: Any, term: str) -> Named:
    """Return the numbers of the clients whose names have all words of ``term``."""
    found: dict[str, None] = {}
    cut = False

    def read(groups_with_names: list[Clients]) -> None:
        nonlocal cut
        for rows in _united([one.filter(_in_name(term, one)) for one in groups_with_names]):
            pairs = list(rows.values_list(NUMBER, NAME)[: MAX_FOUND + 1])
            cut = cut or len(pairs) > MAX_FOUND
            found.update(dict.fromkeys(filter(None, (_e164(number) for number, _name in pairs))))

    _read_each(user, read)
    return Named(list(found)[:MAX_FOUND], cut or len(found) > MAX_FOUND)


def _in_name(term: str, rows: Clients) -> Q:
    """SQLite ignores case in ASCII alone, so that it looks for words in the spellings of names."""
    is_sqlite = connections[rows.db].vendor == "sqlite"
    found = Q()
    for word in term.split()[:MAX_WORDS]:
        spellings = {word}
        if is_sqlite and not word.isascii():
            spellings |= {word.lower(), word.upper(), word.title()}
        part = Q()
        for one in sorted(spellings):
            part |= Q(name__icontains=one)
        found &= part
    return found


def _read_each(user: Any, read: Callable[[list[Clients]], None]) -> None:
    """Call ``read`` with the groups of each function that have names. Errors are logged."""
    for path, listed in groupby(groups(user)[0], lambda one: one.path):
        of_one = list(listed)
        try:
            with _reading(of_one[0].label, path):
                read([one.rows for one in of_one if _has_names(one.rows)])
        except Unreadable as error:
            error.log()


def _has_names(rows: Any) -> bool:
    if not isinstance(rows, QuerySet):
        return False
    query = rows.query
    return {NUMBER, NAME} <= {*query.values_select, *query.annotation_select}


def _united(querysets: list[Clients]) -> Iterator[Clients]:
    """Yield one query for the groups of one model, because each costs the page its time."""
    alike: dict[Any, list[Clients]] = defaultdict(list)
    for rows in querysets:
        alike[rows.model, rows.db].append(rows.order_by().values(NUMBER, NAME))
    for every in alike.values():
        for start in range(0, len(every), MAX_UNITED):
            first, *others = every[start : start + MAX_UNITED]
            # A union is ordered by its model again, which may be by a column that is not in it.
            yield first.union(*others).order_by() if others else first


def _spellings(number: str) -> list[str]:
    """Return the spellings in which projects store a number, without marks between the digits."""
    digits = number.removeprefix("+")
    if not digits.startswith("7"):
        return [number, digits]
    return [number, digits, f"8{digits[1:]}", digits[1:]]


def _e164(number: Any) -> str:
    """Return a number of the project as messages have it, or ""."""
    digits = str(number)
    for spelling in (digits if isinstance(number, int) else number, f"+{digits}"):
        with suppress(ValidationError):
            return normalize(spelling)
        if not digits.isdecimal():
            break
    return ""


def _one_line(name: Any) -> str:
    return " ".join(str(name or "").split())

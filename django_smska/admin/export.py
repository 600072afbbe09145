"""Messages as a table for Excel: an XLSX file, or a CSV file that it opens with a double click,
where its language is Russian.

For CSV that means UTF-8 with a byte order mark, semicolons, CRLF, and days before months. The file
is streamed from the database to the browser in pieces.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from copy import copy
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

from asgiref.sync import sync_to_async
from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import PAGE_VAR
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.core.handlers.asgi import ASGIRequest
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict, StreamingHttpResponse
from django.shortcuts import redirect
from django.utils import timezone, translation
from django.utils.text import capfirst
from django.utils.translation import gettext, ngettext

from ..models import SmsMessage
from ..numbers import is_invisible, mask
from ..redact import withhold
from ..states import Status
from . import xlsx
from .action_views import ActionAdmin
from .actions import read_keys
from .guard import not_understood
from .permissions import instead_of_text, may_see_number, may_see_text, without
from .wording import error_words

BATCH_ROWS = 2000  # a query, and a piece of the file
MAX_EXCEL_MESSAGES = xlsx.MAX_SHEET_ROWS - 1  # messages that Excel shows of a CSV file
WHOLE_LIST, NOTHING = "", "0"  # instead of keys
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

# The idempotency key is not among them: projects write numbers into theirs.
COLUMNS = (
    *("created_at", "status", "to", "body", "sender", "segments", "using"),
    *("sent_at", "finished_at", "billed_segments", "price", "currency"),
    *("gateway_id", "error_text", "created_by", "resend_of", "id"),
)
# What spreadsheets read as the start of a formula (OWASP, "CSV injection"), and the apostrophe
# itself, so that removing one restores what was written.
FORMULA = ("=", "+", "-", "\u2212", "@", "'")
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tabs and line ends
# Texts of which spreadsheets make a number, a date, a time, a truth value or an error.
SAME_NUMBER = re.compile(r"0|[1-9][0-9]{0,10}")  # from 12 digits on Excel shows 1.23E+11
NUMBER_MARKS = re.compile(r"[\d\s.,:/\\()%'’₽$€£¥\u2212-]*")
WORD = re.compile(r"[^\W\d_]+")
BESIDE_MARKS = re.compile(r"[^\W\d_]+\+?|(?<=:\d\d)\+")  # 1E+5, 10:30+03:00
NUMBER_WORD = re.compile(
    r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|янв|фев|мар|апр|ма[йя]|июн|июл|авг|сен|окт|ноя|"
    r"дек)[^\W\d_]*|[eе]|[ap]m?|t|z|utc|gmt|г|год|года|р|руб|rub|usd|eur",
    re.IGNORECASE,
)
CONSTANT = re.compile(r"true|false|истина|ложь|#[\w/]+[!?]?", re.IGNORECASE)


# --- which messages -------------------------------------------------------------------------------


def choose(model_admin: ActionAdmin, request: HttpRequest, pks: str) -> tuple[QuerySet[Any], str]:
    """Return the messages ``pks``, or all of the filtered list, and a description."""
    if pks != WHOLE_LIST:
        chosen = model_admin.get_queryset(request).filter(pk__in=read_keys(pks))
        return chosen, gettext("chosen by hand")
    preserved = dict(parse_qsl(model_admin.get_preserved_filters(request)))
    filters = QueryDict(preserved.get("_changelist_filters", ""), mutable=True)
    filters.pop(PAGE_VAR, None)
    listed: Any = copy(request)
    listed.GET = filters
    changelist = model_admin.get_changelist_instance(listed)
    return changelist.queryset, "; ".join(_described(changelist)) or gettext("all messages")


def _described(changelist: Any) -> Iterator[str]:
    """Yield the list's filters by their titles, without numbers, because the log keeps them."""
    others = set(changelist.get_filters_params())
    for spec in changelist.filter_specs:
        _everything, *choices = spec.choices(changelist)
        chosen = [f"{spec.title}: {one['display']}" for one in choices if one["selected"]]
        if chosen:
            others -= set(spec.expected_parameters())
        yield from chosen
    yield from sorted(others)
    if changelist.query:
        yield gettext("search: %s") % withhold(changelist.query, [])


# --- the file -------------------------------------------------------------------------------------


def columns_for(user: Any) -> list[str]:
    return [name for name in COLUMNS if name != "body" or may_see_text(user)]


def headings(columns: list[str]) -> list[str]:
    fields = (SmsMessage._meta.get_field(name) for name in columns)
    return [str(capfirst(field.verbose_name)) for field in fields]  # type: ignore[union-attr]


def safe(text: str) -> str:
    """Return ``text`` for a CSV file: with an apostrophe before it if a spreadsheet would calculate
    with it or show something else, and without what cannot be seen before its start.
    """
    text = CONTROL.sub("", text)
    start = next((at for at, one in enumerate(text) if not _is_blank(one)), len(text))
    text = text[start:]
    first = unicodedata.normalize("NFKC", text[:1])
    return f"'{text}" if first.startswith(FORMULA) or _is_changed(text) else text


def _is_blank(character: str) -> bool:
    return character.isspace() or is_invisible(character)


def _is_changed(text: str) -> bool:
    """Return whether a spreadsheet would change ``text``: 0042, 12.05, 1/2, 3E5, TRUE."""
    if SAME_NUMBER.fullmatch(text):
        return False
    if not re.search(r"\d", text):
        return bool(CONSTANT.fullmatch(text))
    are_of_numbers = all(NUMBER_WORD.fullmatch(word[0]) for word in WORD.finditer(text))
    return are_of_numbers and bool(NUMBER_MARKS.fullmatch(BESIDE_MARKS.sub("", text)))


def csv_pieces(chosen: QuerySet[Any], user: Any) -> Iterator[tuple[bytes, int]]:
    """Yield the file piece by piece, each with the number of its messages, newest first.

    Languages and time zone are those at the first piece.
    """
    columns = columns_for(user)
    sources, shown = _sources(columns), _shown_to(user, columns)

    def cell(column: str, value: Any, text: xlsx.Cell) -> str | int:
        if isinstance(text, Decimal):
            return f"{text:f}".replace(".", ",")  # as Excel reads a number where it is Russian
        if isinstance(text, int) or isinstance(value, datetime):
            return text
        if column == "to":
            # As a number, of which spreadsheets keep 15 digits, it is found in other tables.
            digits = text.removeprefix("+")
            return digits if re.fullmatch("[0-9]{7,15}", digits) else safe(digits)
        return safe(text)

    yield b"\xef\xbb\xbf" + _lines([headings(columns)]), 0
    for batch in _batches(chosen, columns):
        lines = (
            [
                cell(column, row[source], text)
                for column, source, text in zip(columns, sources, shown(row), strict=True)
            ]
            for row in batch
        )
        yield _lines(lines), len(batch)


def xlsx_pieces(chosen: QuerySet[Any], user: Any) -> Iterator[tuple[bytes, int]]:
    """Yield pieces as :func:`csv_pieces` does, with all texts unchanged."""
    columns = columns_for(user)
    shown = _shown_to(user, columns)
    book = xlsx.Book(headings(columns))
    try:
        for batch in _batches(chosen, columns):
            yield book.add([shown(row) for row in batch]), len(batch)
    finally:  # a download that is broken off leaves an open file otherwise
        last = book.close()
    yield last, 0


def _sources(columns: list[str]) -> list[str]:
    """Return where the value of each column comes from, as a query names it."""
    user_model: Any = get_user_model()
    user = f"created_by__{user_model.USERNAME_FIELD}"
    return [user if column == "created_by" else column for column in columns]


def _batches(chosen: QuerySet[Any], columns: list[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield batches of rows, each from a query of its own.

    MySQL's client reads the whole answer to a query before it returns a row, and a cursor would
    stay open as long as the slowest download.
    """
    # Number and text are read also where they are no columns: other texts may repeat them. By name,
    # because Django 5.2.0 drops what values_list() is asked for twice.
    hiding = ("to", "body", "code", "sensitive", "erased_at")
    older = chosen.order_by("-pk").values(*hiding, *_sources(columns))
    batch = list(older[:BATCH_ROWS])
    while batch:
        yield batch
        batch = list(older.filter(pk__lt=batch[-1]["id"])[:BATCH_ROWS])


def _shown_to(user: Any, columns: list[str]) -> Callable[[dict[str, Any]], list[xlsx.Cell]]:
    """Return a function that turns a row of :func:`_batches` into what this user may see."""
    zone = timezone.get_current_timezone()
    statuses = {status.value: str(status.label) for status in Status}
    whole, seen = may_see_number(user), may_see_text(user)
    sources = _sources(columns)

    def line(row: dict[str, Any]) -> list[xlsx.Cell]:
        text = None if seen and not row["sensitive"] else row["body"]
        hidden = {"number": None if whole else row["to"], "text": text}
        row["body"] = (
            instead_of_text(sensitive=row["sensitive"], erased_at=row["erased_at"]) or (row["body"])
        )
        cells = zip(columns, sources, strict=True)
        return [shown(column, row[source], hidden) for column, source in cells]

    def shown(column: str, value: Any, hidden: dict[str, str | None]) -> xlsx.Cell:
        if value is None:
            return ""
        if isinstance(value, int):
            return value
        if isinstance(value, Decimal):
            return value.normalize()  # without the zeros of its column
        if isinstance(value, datetime):
            local = value.astimezone(zone) if timezone.is_aware(value) else value
            return local.strftime("%d.%m.%Y %H:%M:%S")
        if column == "status":
            value = statuses[value]
        elif column == "to" and not whole:
            value = mask(value) if value else ""
        elif column == "error_text":
            value = error_words(without(value, **hidden))
        elif column == "gateway_id":  # others wrote it
            value = without(value, **hidden)
        return str(value)

    return line


def _lines(table: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=";", quoting=csv.QUOTE_ALL).writerows(table)
    return text.getvalue().encode()


# --- the page and the download --------------------------------------------------------------------


def ask(model_admin: ActionAdmin, request: HttpRequest, pks: str) -> HttpResponse:
    """Return the page that says what the file would hold."""
    try:
        chosen, which = choose(model_admin, request, pks)
    except IncorrectLookupParameters:
        return _not_understood(model_admin, request)
    user = request.user
    return model_admin.page(
        request,
        "export",
        gettext("Export"),
        which=which,
        pks=pks,
        number=chosen.order_by().count(),
        most=MAX_EXCEL_MESSAGES,
        columns=headings(columns_for(user)),
        may_see_number=may_see_number(user),
        may_see_text=may_see_text(user),
        zone=timezone.get_current_timezone_name(),
        action_url=model_admin.with_filters(request, model_admin.url("export")),
        back_url=model_admin.with_filters(request, model_admin.url("changelist")),
    )


def download(model_admin: ActionAdmin, request: HttpRequest, pks: str) -> Any:
    """Return the file. A log entry is written before its first byte, and completed after its last
    one."""
    try:
        chosen, which = choose(model_admin, request, pks)
    except IncorrectLookupParameters:
        return _not_understood(model_admin, request)
    if "_xlsx" in request.POST:
        pieces, content_type, ending = xlsx_pieces, XLSX, "xlsx"
    else:
        pieces, content_type, ending = csv_pieces, "text/csv; charset=utf-8", "csv"
    file = _noted(pieces(chosen, request.user), _note(request.user, which), which)
    content = _asynchronous(file) if isinstance(request, ASGIRequest) else file
    response = StreamingHttpResponse(content, content_type=content_type)
    response["Content-Disposition"] = f'attachment; filename="sms-{date.today()}.{ending}"'
    return response


def _not_understood(model_admin: ActionAdmin, request: HttpRequest) -> HttpResponse:
    model_admin.message_user(request, not_understood(), messages.ERROR)
    return redirect(model_admin.url("changelist"))


def _note(user: Any, which: str) -> LogEntry:
    entry: LogEntry = LogEntry.objects.create(
        user_id=user.pk,
        content_type=ContentType.objects.get_for_model(SmsMessage),
        object_repr=gettext("Export of SMS messages"),
        action_flag=CHANGE,
        change_message=gettext("Export started: %s.") % which,
    )
    return entry


def _noted(
    file: Iterator[tuple[bytes, int]], entry: LogEntry, which: str
) -> Generator[bytes, None, None]:
    """Yield the pieces. Then write to the log entry how many messages left, also after a broken
    download."""
    number, language = 0, translation.get_language() or "en"
    try:
        for piece, messages_in_it in file:
            number += messages_in_it
            if piece:
                yield piece
    finally:
        with translation.override(language):
            words = ngettext(
                "Exported %(number)s message: %(which)s.",
                "Exported %(number)s messages: %(which)s.",
                number,
            )
        entry.change_message = words % {"number": number, "which": which}
        entry.save(update_fields=["change_message"])


async def _asynchronous(file: Generator[bytes, None, None]) -> AsyncIterator[bytes]:
    """Yield the pieces for ASGI, where Django would read a plain iterator to its end first."""
    try:
        while piece := await sync_to_async(lambda: next(file, b""))():
            yield piece
    finally:
        await sync_to_async(file.close)()

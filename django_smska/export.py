"""Messages as a CSV file that Excel opens with a double click, where its language is Russian.

That means: UTF-8 with a byte order mark, semicolons, CRLF, days before months. The file goes from
the database to the browser piece by piece, however long it is.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from copy import copy
from datetime import date, datetime
from typing import TYPE_CHECKING, Any
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

from .deeds import read_keys
from .guard import not_understood
from .models import SmsMessage
from .numbers import mask
from .privacy import may_see_number, may_see_text, without
from .redact import withhold
from .states import Status

if TYPE_CHECKING:
    from .admin import SmsMessageAdmin

BATCH = 2000  # rows a query, and lines a piece of the file
COUNTED = 10_000  # messages that the page counts; the file has no such limit

# The idempotency key is not among them: projects write numbers into theirs.
COLUMNS = (
    *("created_at", "status", "to", "body", "sender", "segments", "using"),
    *("sent_at", "finished_at", "gateway_id", "error_text", "created_by", "resend_of", "id"),
)
# What spreadsheets take for the start of a formula, also in its full-width forms (OWASP, "CSV
# injection"), and the apostrophe itself, so that taking one off gives back what was written.
FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "'")
CONTROL = ("\t", "\r", "\n")


# --- which messages -------------------------------------------------------------------------------


def choose(
    model_admin: SmsMessageAdmin, request: HttpRequest, pks: str
) -> tuple[QuerySet[Any], str]:
    """The messages ``pks``, or without these all that the filtered list has; and a description."""
    if pks:
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
    """The list's filters in its own words, without numbers: they stand in the journal."""
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
    """Put an apostrophe before what a spreadsheet would calculate with, a number with + as well."""
    risky = text.lstrip().startswith(FORMULA) or text.startswith(CONTROL)
    return f"'{text}" if risky else text


def pieces(chosen: QuerySet[Any], user: Any) -> Iterator[tuple[str, int]]:
    """The file's text piece by piece, each with the number of its messages, newest first.

    Languages and time zone are those at the first piece.
    """
    columns = columns_for(user)
    shown = _shown_to(user)
    yield "\ufeff" + _lines([headings(columns)]), 0
    for batch in _batches(chosen, columns):
        yield _lines([shown(columns, *row) for row in batch]), len(batch)


def _batches(chosen: QuerySet[Any], columns: list[str]) -> Iterator[list[tuple[Any, ...]]]:
    """MySQL's client takes in the whole answer to a query before the first row of it can be read,
    and a cursor would stay open as long as the slowest download: so each batch is a query."""
    name = f"created_by__{get_user_model().USERNAME_FIELD}"
    wanted = [name if column == "created_by" else column for column in columns]
    older = chosen.order_by("-pk").values_list("to", "body", *wanted)
    batch = list(older[:BATCH])
    while batch:
        yield batch
        batch = list(older.filter(pk__lt=batch[-1][-1])[:BATCH])


def _shown_to(user: Any) -> Callable[..., list[str]]:
    zone = timezone.get_current_timezone()
    statuses = {status.value: str(status.label) for status in Status}
    whole, seen = may_see_number(user), may_see_text(user)

    def line(columns: list[str], number: str, text: str, *values: Any) -> list[str]:
        hidden = {"number": None if whole else number, "text": None if seen else text}
        return [shown(*cell, hidden) for cell in zip(columns, values, strict=True)]

    def shown(column: str, value: Any, hidden: dict[str, str | None]) -> str:
        if value is None:
            return ""
        if isinstance(value, datetime):
            local = value.astimezone(zone) if timezone.is_aware(value) else value
            return local.strftime("%d.%m.%Y %H:%M:%S")
        if column == "status":
            value = statuses[value]
        elif column == "to" and not whole:
            value = mask(value)
        elif column in ("error_text", "gateway_id"):  # others wrote these
            value = without(value, **hidden)
        return safe(str(value))

    return line


def _lines(table: Any) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=";", quoting=csv.QUOTE_ALL).writerows(table)
    return text.getvalue()


# --- the page and the download --------------------------------------------------------------------


def ask(model_admin: SmsMessageAdmin, request: HttpRequest, pks: str) -> HttpResponse:
    """The page that says what the file would hold."""
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
        number=chosen.order_by()[: COUNTED + 1].count(),
        counted=COUNTED,
        columns=headings(columns_for(user)),
        may_see_number=may_see_number(user),
        may_see_text=may_see_text(user),
        zone=timezone.get_current_timezone_name(),
        action_url=model_admin._back(request, model_admin._url("export")),
        back_url=model_admin._back(request, model_admin._url("changelist")),
    )


def download(model_admin: SmsMessageAdmin, request: HttpRequest, pks: str) -> Any:
    """The file. That it was asked for is noted before its first byte, how much of it left after its
    last."""
    try:
        chosen, which = choose(model_admin, request, pks)
    except IncorrectLookupParameters:
        return _not_understood(model_admin, request)
    file = _noted(pieces(chosen, request.user), _note(request.user, which), which)
    content = _asynchronous(file) if isinstance(request, ASGIRequest) else file
    response = StreamingHttpResponse(content, content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="sms-{date.today()}.csv"'
    return response


def _not_understood(model_admin: SmsMessageAdmin, request: HttpRequest) -> HttpResponse:
    model_admin.message_user(request, not_understood(), messages.ERROR)
    return redirect(model_admin._url("changelist"))


def _note(user: Any, which: str) -> LogEntry:
    entry: LogEntry = LogEntry.objects.create(
        user_id=user.pk,
        content_type=ContentType.objects.get_for_model(SmsMessage),
        object_repr=gettext("Export of SMS messages"),
        action_flag=CHANGE,
        change_message=gettext("Began to export: %s.") % which,
    )
    return entry


def _noted(
    file: Iterator[tuple[str, int]], entry: LogEntry, which: str
) -> Generator[str, None, None]:
    """The pieces; whether the download ends or breaks, its entry tells how many messages left."""
    number, language = 0, translation.get_language() or "en"
    try:
        for piece, messages_in_it in file:
            number += messages_in_it
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


async def _asynchronous(file: Generator[str, None, None]) -> AsyncIterator[str]:
    """Under ASGI Django would read a plain iterator to its end before it sends the first byte."""
    try:
        while piece := await sync_to_async(lambda: next(file, ""))():
            yield piece
    finally:
        await sync_to_async(file.close)()

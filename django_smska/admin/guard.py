"""What the admin accepts from addresses and forms, and what a debug page shows of it.

Django makes a lookup of every parameter in the address of a list. With these a user could find
out, character by character, what no page shows, and a regular expression or a NUL breaks the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from functools import wraps
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import (
    ERROR_FLAG,
    IGNORED_PARAMS,
    ORDER_VAR,
    PAGE_VAR,
    ChangeList,
)
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse, QueryDict
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext
from django.views.debug import SafeExceptionReporterFilter

from .. import times
from . import permissions

if TYPE_CHECKING:
    AdminBase = admin.ModelAdmin[Any]
    ListBase = ChangeList
else:
    AdminBase = admin.ModelAdmin
    ListBase = ChangeList

TEMPLATES = "admin/django_smska/smsmessage"

#: Returns the value to look for, or None for an invalid one.
Check = Callable[[str], str | None]

_HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair: no page can be made of it
_ORDER = re.compile(r"(-?[0-9]{1,2}(\.-?[0-9]{1,2}){0,9})?")


def one_of(values: Callable[[], Iterable[str]]) -> Check:
    """Return a check that accepts one of these values."""
    return lambda value: value if value in set(values()) else None


def moment(value: str) -> str | None:
    """Return a date or a time as the database looks for it."""
    try:
        at = parse_datetime(value)
    except ValueError:
        return None
    if at is not None and timezone.is_naive(at):
        at = timezone.make_aware(at)
    if at is None or not times.FIRST <= at <= times.LAST:
        return None
    return str(times.as_stored(at))


def _any(value: str) -> str | None:
    return value


#: What every list of the admin understands, apart from its filters.
TURNING: dict[str, Check] = {
    **dict.fromkeys((*IGNORED_PARAMS, PAGE_VAR, ERROR_FLAG), _any),
    ORDER_VAR: lambda value: value if _ORDER.fullmatch(value) else None,
}


def asked(query: QueryDict, known: Mapping[str, Check]) -> QueryDict:
    """Return the query with its values as they are looked for.

    Raises ``IncorrectLookupParameters`` for a parameter that is not ``known``, occurs twice, or has
    an invalid value.
    """
    clean = query.copy()
    for name, values in query.lists():
        check = known.get(name)
        value = check(values[0]) if check and len(values) == 1 and "\0" not in values[0] else None
        if value is None:
            raise IncorrectLookupParameters(f"{name!r} is not understood")
        clean[name] = value
    return clean


class SortableList(ListBase):
    """Sorts by the columns of ``sortable_by`` alone: an order shows what a column hides, and the
    others have no index."""

    def get_ordering_field(self, field_name: Any) -> Any:
        may = field_name in (self.sortable_by or ())
        return super().get_ordering_field(field_name) if may else None


class DiscreetReport(SafeExceptionReporterFilter):
    """Reports of errors show no variable and nothing that was typed, with ``DEBUG``, too: any of
    them may hold numbers and texts."""

    def is_active(self, request: Any) -> bool:
        return True

    def get_post_parameters(self, request: Any) -> Any:
        return dict.fromkeys(request.POST, self.cleansed_substitute)

    def get_traceback_frame_variables(self, request: Any, tb_frame: Any) -> Any:
        return [(name, self.cleansed_substitute) for name in tb_frame.f_locals]


def guarded(view: Callable[..., Any]) -> Callable[..., Any]:
    """Return the view with discreet reports, and 400 for what cannot be read as text."""

    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        request.exception_reporter_filter = DiscreetReport()
        for name, values in (*request.GET.lists(), *request.POST.lists()):
            if any(map(_HALF.search, (name, *values))):
                raise BadRequest("There is half a surrogate pair in the request.")
        return view(request, *args, **kwargs)

    return answer


class GuardedAdmin(AdminBase):
    """The base of our admins.

    :cvar look_ups: the parameters, apart from ``TURNING``, that may stand in the address of the
        list, each with its check
    """

    look_ups: Mapping[str, Check] = {}

    def get_urls(self) -> list[URLPattern]:
        urls = [*self.own_urls(), *super().get_urls()]
        for url in urls:
            url.callback = guarded(url.callback)
        return urls

    def own_urls(self) -> list[URLPattern]:
        return []

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        return lookup in self.look_ups

    def to_field_allowed(self, request: HttpRequest, to_field: str) -> bool:
        """Let rows be found by their primary key alone: a key of a project may hold a number."""
        return to_field == self.opts.pk.name

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return SortableList

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        listed: Any = copy(request)
        listed.GET = asked(request.GET, {**TURNING, **self.look_ups})
        return super().get_changelist_instance(listed)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        if ERROR_FLAG in request.GET:  # or Django reports a second one as a database error
            self.message_user(request, not_understood(), messages.ERROR)
            query = request.GET.copy()
            del query[ERROR_FLAG]
            request.GET = query  # type: ignore[assignment]
        return super().changelist_view(request, extra_context)

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        # PostgreSQL refuses NUL, and Django does not check it.
        return None if "\0" in object_id else super().get_object(request, object_id, from_field)

    def page(
        self, request: HttpRequest, template: str, title: Any, **context: Any
    ) -> TemplateResponse:
        """Return a page of our own, inside the frame of the change form.

        Every variable that a template of any supported Django reads is set: for a missing one
        Django writes the whole context into its log, if that is at DEBUG.
        """
        request.current_app = self.admin_site.name
        frame = {
            **self.admin_site.each_context(request),
            "title": title,
            "subtitle": None,
            "original": str(title),  # for the breadcrumbs; unfold insists on a str or a row
            "opts": self.opts,
            "media": self.media,
            "add": False,
            "errors": None,
            "has_view_permission": True,
        }
        return TemplateResponse(request, f"{TEMPLATES}/{template}.html", {**frame, **context})

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show a history without what the user may not see: programs and gateways write to it."""
        response = super().history_view(request, object_id, extra_context)
        context = getattr(response, "context_data", None) or {}
        for entry in context.get("action_list", ()):
            entry.get_change_message = permissions.external_text_for(
                request.user, context["object"], _message_of(entry)
            )
        return response


def _message_of(entry: Any) -> str:
    try:
        return str(entry.get_change_message())
    except Exception:  # it is JSON, and none of Django's
        return str(entry.change_message)


def not_understood() -> str:
    return gettext("This filter is not known. Choose another.")

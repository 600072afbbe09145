"""What the admin accepts from addresses and forms, and what a debug page shows of it.

Django makes a lookup of every parameter in the address of a list. With these a user could find
out, character by character, what no page shows, and a regular expression or a NUL breaks the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, cast

from django.apps import apps
from django.contrib import admin, messages
from django.contrib.admin.options import IS_POPUP_VAR, IncorrectLookupParameters
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.contrib.admin.views.main import (
    ERROR_FLAG,
    IGNORED_PARAMS,
    ORDER_VAR,
    PAGE_VAR,
    ChangeList,
)
from django.contrib.auth import get_permission_codename
from django.core.exceptions import BadRequest, PermissionDenied
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.template.response import TemplateResponse
from django.urls import URLPattern, reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.text import capfirst
from django.utils.translation import gettext
from django.views.debug import SafeExceptionReporterFilter

from .. import times
from . import clients, permissions

if TYPE_CHECKING:
    AdminBase = admin.ModelAdmin[Any]
    ListBase = ChangeList
else:
    AdminBase = admin.ModelAdmin
    ListBase = ChangeList

TEMPLATES = "admin/django_smska/smsmessage"

#: Returns the value to look for, or None for an invalid one.
Check = Callable[[str], str | None]

_EVERY_NAME = {*permissions.NAMES, *permissions.CONTACTS_NAMES}
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
    others have no index.

    :ivar is_live: whether a script renews the list
    """

    is_live: Any = False

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


def guarded(
    view: Callable[..., Any], refused: Callable[[HttpRequest], HttpResponse | None]
) -> Callable[..., Any]:
    """Return the view with discreet reports, and 400 for what cannot be read as text.

    :param refused: returns the page for a user who lacks a permission, or None for the site's own
    """

    @wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        request.exception_reporter_filter = DiscreetReport()
        for name, values in (*request.GET.lists(), *request.POST.lists()):
            if any(map(_HALF.search, (name, *values))):
                raise BadRequest("There is half a surrogate pair in the request.")
        try:
            return view(request, *args, **kwargs)
        except PermissionDenied:
            response = refused(request)
            if response is None:
                raise
            _roll_back()
            return response

    return answer


def _roll_back() -> None:
    """Undo what a refused request has stored. Django does it at an exception alone."""
    for connection in connections.all(initialized_only=True):
        if connection.settings_dict["ATOMIC_REQUESTS"] and connection.in_atomic_block:
            connection.set_rollback(True)


class GuardedAdmin(AdminBase):
    """The base of our admins.

    :cvar look_ups: the parameters, apart from ``TURNING``, that may stand in the address of the
        list, each with its check
    :cvar number: the attribute of a row with the number beside which a client's name stands, or ""
    :cvar needs: the permissions for each page, by the last part of its URL's name: "view" for that
        of this model, and whole codenames for those of others
    """

    look_ups: Mapping[str, Check] = {}
    number = ""
    needs: Mapping[str, tuple[str, ...]] = {
        "changelist": ("view",),
        "change": ("view",),
        "history": ("view",),
        "add": ("add",),
        "delete": ("delete",),
    }

    class Media:
        css = {"all": ("django_smska/admin.css",)}

    def get_urls(self) -> list[URLPattern]:
        urls = [*self.own_urls(), *super().get_urls()]
        for url in urls:
            name = (url.name or "").removeprefix(f"{self.opts.app_label}_{self.opts.model_name}_")
            url.callback = guarded(url.callback, partial(self.refused, page=name))
        return urls

    def own_urls(self) -> list[URLPattern]:
        return []

    def without_transaction(self, view: Callable[..., Any]) -> Callable[..., Any]:
        view = self.admin_site.admin_view(view)
        for alias in connections:  # no transaction may be open while the network is waited for
            view = transaction.non_atomic_requests(using=alias)(view)
        return view

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        return lookup in self.look_ups

    def to_field_allowed(self, request: HttpRequest, to_field: str) -> bool:
        """Let rows be found by their primary key alone: a key of a project may hold a number."""
        return to_field == self.opts.pk.name

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return SortableList

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        listed: Any = copy(request)
        listed.GET = asked(request.GET, {**TURNING, **self.look_ups})
        found: Any = super().get_changelist_instance(listed)
        found.searches, found.search_help_text = found.search_help_text, None
        if self.number and request.method == "GET":
            found.result_list = list(found.result_list)
            clients.put_names(request.user, found.result_list, self.number)
        if not found.is_popup:
            found.title = capfirst(self.opts.verbose_name_plural)
        return cast(ChangeList, found)

    def get_action_choices(
        self, request: HttpRequest, default_choices: Any = None, action_location: Any = None
    ) -> Any:
        """Name the empty choice. Django has dashes there, or words without a translation."""
        where = {"action_location": action_location} if action_location else {}  # Django 6.1
        empty = [("", gettext("Choose what to do"))]
        return super().get_action_choices(request, default_choices or empty, **where)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        if ERROR_FLAG in request.GET:  # or Django reports a second one as a database error
            self.message_user(request, not_understood(), messages.ERROR)
            query = request.GET.copy()
            del query[ERROR_FLAG]
            request.GET = query  # type: ignore[assignment]
        context: dict[str, Any] = {"links": [], "unfold": has_unfold(), **(extra_context or {})}
        if is_renewed := "X-Smska-Renew" in request.headers:
            context["messages"] = []  # they wait for a page that a person sees
        response = super().changelist_view(request, context)
        if request.method == "GET" and not is_renewed and isinstance(response, TemplateResponse):
            for words in permissions.gap_words(permissions.held(request.user)):
                self.message_user(request, ask_for(words), messages.WARNING)
        return response

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        context["unfold"] = has_unfold()
        shown = kwargs.get("obj")
        if self.number and shown is not None:
            clients.put_names(request.user, [shown], self.number)
        return super().render_change_form(request, context, *args, **kwargs)

    # --- refusals

    def needed(self, request: HttpRequest, page: str) -> set[str]:
        """Return the codenames of the permissions that this request to the page needs."""
        copies = page == "change" and "_saveasnew" in request.POST
        return self.codenames(self.needs.get("add" if copies else page, ()))

    def codenames(self, needs: Iterable[str]) -> set[str]:
        """Return the codenames of what ``needs`` says."""
        theirs = _EVERY_NAME
        return {one if one in theirs else get_permission_codename(one, self.opts) for one in needs}

    def refused(self, request: HttpRequest, page: str) -> HttpResponse | None:
        """Return the page that says which permissions are missing; nothing else is on it.

        Return None for a request that the admin does not let in at all.
        """
        if not self.admin_site.has_permission(request):
            return None
        held = permissions.held(request.user)
        # Of those that no user can have it says nothing.
        missing = self.needed(request, page) & _EVERY_NAME - held
        may_view = self.has_view_permission(request)
        index = reverse("admin:index", current_app=self.admin_site.name)
        response = self.page(
            request,
            "refused",
            gettext("You may not do this"),
            missing=list(permissions.names_of(missing).values()),
            gaps=list(permissions.gap_words(held)),
            back_url=self.list_url() if may_view and page != "changelist" else index,
            has_view_permission=may_view,
        )
        response.status_code = 403
        return response

    def list_url(self) -> str:
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"
        return reverse(name, current_app=self.admin_site.name)

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        # PostgreSQL refuses NUL, and Django does not check it.
        return None if "\0" in object_id else super().get_object(request, object_id, from_field)

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Answer a popup without the form that opened it. Django fails where the request names no
        model, and reads the choices of that form without a check of permissions."""
        post = request.POST.copy()
        post.pop("_source_model", None)
        request.POST = post  # type: ignore[assignment]
        return super().response_add(request, obj, post_url_continue)

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
            "unfold": has_unfold(),
        }
        return TemplateResponse(request, f"{TEMPLATES}/{template}.html", {**frame, **context})

    def get_form(
        self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any
    ) -> Any:
        """Return a form without hints for input, where there is none."""
        if obj is not None and not self.has_change_permission(request, obj):
            kwargs["help_texts"] = dict.fromkeys((field.name for field in self.opts.fields), "")
        return super().get_form(request, obj, change, **kwargs)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show a history without what the user may not see: programs and gateways write to it."""
        response = super().history_view(request, object_id, extra_context)
        context: dict[str, Any] = getattr(response, "context_data", None) or {}
        for entry in context.get("action_list", ()):
            entry.get_change_message = self.seen_words(
                request.user, context["object"], history_words(entry)
            )
        return response

    def seen_words(self, user: Any, obj: Any, words: str) -> str:
        """Return what a gateway or program wrote about this row, as this user may see it."""
        return permissions.external_text_for(user, obj, words)


def history_words(entry: Any) -> str:
    """Return what an entry of a history says was done."""
    try:
        return str(entry.get_change_message())
    except Exception:  # it is JSON, and none of Django's
        return str(entry.change_message)


def ask_for(words: str) -> str:
    """Return the sentence with what the user can do about it."""
    return " ".join((words, gettext("Ask your administrator.")))


def has_unfold() -> bool:
    """Return whether the theme is unfold, which has other places for titles and links."""
    return apps.is_installed("unfold")


def not_understood() -> str:
    return gettext("This filter is not known. Choose another.")


class EntriesAdmin(GuardedAdmin):
    """An admin of rows that are never changed."""

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def url(self, name: str, *args: Any) -> str:
        model = f"{self.opts.app_label}_{self.opts.model_name}"
        return reverse(f"admin:{model}_{name}", args=args, current_app=self.admin_site.name)

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: Any) -> HttpResponse:
        """Go back to the list. Django goes there only where entries may be changed."""
        response = super().response_delete(request, obj_display, obj_id)
        if IS_POPUP_VAR in request.POST or not self.has_view_permission(request):
            return response
        filters: Any = {"preserved_filters": self.get_preserved_filters(request), "opts": self.opts}
        return HttpResponseRedirect(add_preserved_filters(filters, self.url("changelist")))


class ReadOnlyAdmin(GuardedAdmin):
    """An admin in which nothing is added, changed or deleted."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

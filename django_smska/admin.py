"""The admin: watch messages, and do with them what ``sending`` and ``delivery`` offer.

A deed is chosen by a button or an action, shown on a page that says what would follow, and done by
that page's POST. No GET changes or sends anything. What a deed did to a message is in its history.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.contrib.admin.utils import flatten
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db import connections, transaction
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from . import conf
from .deeds import (
    CANCEL,
    DEEDS,
    LISTED,
    PASSED_OVER,
    REFRESH,
    RESEND,
    SEND,
    Deed,
    Outcome,
    Plan,
    balance_words,
    log,
    paused_words,
    read_keys,
    try_deed,
)
from .exceptions import WrongStatus
from .forms import SmsMessageForm, aliases
from .models import ProviderState, SmsMessage, rows, write_db
from .numbers import normalize
from .states import Status

BATCH = 1000  # rows a transaction
COUNTED = 10_000  # rows that the list goes back

if TYPE_CHECKING:
    MessageAdminBase = admin.ModelAdmin[SmsMessage]
    StateAdminBase = admin.ModelAdmin[ProviderState]
    PaginatorBase = Paginator[Any]
else:
    MessageAdminBase = StateAdminBase = admin.ModelAdmin
    PaginatorBase = Paginator


# --- messages -------------------------------------------------------------------------------------


class RecentPaginator(PaginatorBase):
    """Goes back ten thousand rows: counting millions takes longer than the rest of the page, and
    nobody turns to page 1000. Filters and search find what is older."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[:COUNTED].count())


class UsingFilter(admin.SimpleListFilter):
    """By provider; the choices are those of the settings, not found by a walk over the table."""

    title = _("provider")
    parameter_name = "using"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return aliases()

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(using=self.value()) if self.value() else queryset


def _matches(term: str) -> Q:
    """A number in any spelling, a part of one of four digits or more, or a whole gateway id."""
    found = Q(gateway_id=term)
    try:
        return found | Q(to=normalize(term))
    except ValidationError:
        pass
    digits = re.sub(r"\D", "", term)
    if len(digits) >= 4 and re.fullmatch(r"[\d\s+().\-]+", term):
        found |= Q(to__contains=digits)
        if digits.startswith("8"):
            found |= Q(to__startswith=f"+7{digits[1:]}")
    return found


_TEXT = ("to", "body", "sender", "using")
_WHEN = ("priority", "send_after", "expires_at")
_SIZE = ("segments", "encoding")
_MADE = ("created_at", "created_by")
_STATE = (
    ("status", "attempts"),
    ("gateway_id", "gateway_status"),
    ("error_code", "error_text"),
    ("resend_of", "resent_as_link"),
)
_TIMES = (("claimed_at", "sending_at", "sent_at"), ("finished_at", "next_status_at"))
_DECIDE = _(
    "The connection broke after the request had begun, so nobody knows whether the gateway took "
    "this message, and it cannot be asked. Ask the recipient, or look at the list of messages in "
    "your account at the gateway, at about the time at “Request began”. Then choose “It was sent” "
    "or “Send again”. If it was taken after all, the recipient gets a second one, and you pay "
    "twice."
)


def _short_time(field: str, title: Any) -> Callable[[SmsMessage], str]:
    """A column that is narrow enough for three of its kind."""

    @admin.display(description=title)
    def column(obj: SmsMessage) -> str:
        time = getattr(obj, field)
        if not time:
            return ""
        local = timezone.localtime(time) if timezone.is_aware(time) else time
        return date_format(local, "SHORT_DATETIME_FORMAT")

    return column


@admin.register(SmsMessage)
class SmsMessageAdmin(MessageAdminBase):
    """Drafts can be edited; from then on a message is only read, and changed by deeds."""

    form = SmsMessageForm
    list_display = (
        *("status", "to", "sender", "text_start", "segments", "using"),
        _short_time("created_at", _("created")),
        _short_time("sent_at", _("sent")),
        _short_time("finished_at", _("finished")),
    )
    list_display_links = ("to",)
    list_filter = ("status", UsingFilter, "created_at")
    list_per_page = 50
    ordering = ("-id",)
    sortable_by = ("to",)
    search_fields = ("to", "gateway_id")
    search_help_text = _(
        "A number in any spelling, or a gateway id. The list shows the newest 10,000 at most: "
        "search or filter for what is older."
    )
    show_full_result_count = False
    paginator = RecentPaginator
    show_facets = admin.ShowFacets.NEVER
    actions = ("send_selected", "refresh_selected", "cancel_selected")
    readonly_fields = tuple(flatten((*_STATE, _SIZE, _MADE, *_TIMES)))

    # --- who may what

    def _may(self, request: HttpRequest, permission: str, obj: Any = None) -> bool:
        codename = get_permission_codename(permission, self.opts)
        return self.has_view_permission(request, obj) and request.user.has_perm(
            f"{self.opts.app_label}.{codename}"
        )

    def has_send_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, "send", obj)

    def has_refresh_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, "refresh", obj)

    def has_cancel_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, "change", obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and (
            obj is None or obj.status == Status.DRAFT
        )

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """One at a time, and only what was never sent."""
        return (
            obj is not None
            and obj.status in (Status.DRAFT, Status.CANCELLED)
            and super().has_delete_permission(request, obj)
        )

    # --- the list

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        return (queryset.filter(_matches(term)) if term else queryset), False

    @admin.display(description=_("text"))
    def text_start(self, obj: SmsMessage) -> str:
        text = " ".join(obj.body.split())
        return text if len(text) <= 40 else f"{text[:40]}…"

    @admin.action(description=_("Send…"), permissions=["send"])
    def send_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        return self._ask(request, SEND, queryset)

    @admin.action(description=_("Refresh status…"), permissions=["refresh"])
    def refresh_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        return self._ask(request, REFRESH, queryset)

    @admin.action(description=_("Cancel sending…"), permissions=["cancel"])
    def cancel_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        return self._ask(request, CANCEL, queryset)

    # --- one message

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return [(None, {"fields": _TEXT}), (_("When"), {"fields": _WHEN})]
        if obj.status == Status.DRAFT:
            known = ("status", _SIZE, _MADE)
            return [*self.get_fieldsets(request), (_("What is known"), {"fields": known})]
        decide = self._what_to_decide(request, obj) if obj.status == Status.UNKNOWN else ""
        return [
            (None, {"fields": _STATE, "description": decide}),
            (_("Message"), {"fields": ("to", "body", ("sender", "using"), _SIZE)}),
            (_("When"), {"fields": (_WHEN, _MADE, *_TIMES)}),
        ]

    def _what_to_decide(self, request: HttpRequest, obj: SmsMessage) -> Any:
        if not self._may(request, "resend", obj):
            return _("Somebody who may decide about messages must look at this one.")
        if hasattr(obj, "resent_as"):
            return _(
                "It was sent again as a new message. If you learn that this one was taken, too, "
                "choose “It was sent”."
            )
        return _DECIDE

    @admin.display(description=_("sent again as"))
    def resent_as_link(self, obj: SmsMessage) -> str:
        again = SmsMessage.objects.filter(resend_of=obj).first()
        return self._link(again.pk, again) if again else self.get_empty_value_display()

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        obj = kwargs.get("obj")
        context["deeds"] = self._buttons(request, obj) if obj is not None else []
        context["may_send"] = self.has_send_permission(request)
        context["show_save_and_add_another"] = context["show_save_and_continue"] = False
        return super().render_change_form(request, context, *args, **kwargs)

    def _buttons(self, request: HttpRequest, obj: SmsMessage) -> list[dict[str, Any]]:
        fit = [deed for deed in DEEDS if obj.status in deed.statuses]
        if RESEND in fit and hasattr(obj, "resent_as"):
            fit.remove(RESEND)
        if SEND in fit and self.has_change_permission(request, obj):
            fit.remove(SEND)  # it would send what is stored, not what stands in the form
        return [
            {"label": deed.label, "url": f"{self._url(deed.name)}?pks={obj.pk}"}
            for deed in fit
            if self._may(request, deed.permission, obj)
        ]

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        if "_send" in request.POST and not self.has_send_permission(request):
            raise PermissionDenied
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except (WrongStatus, PermissionDenied):
            # Somebody sent or cancelled the draft while it was being edited?
            gone = request.method == "POST" and object_id is not None
            if not (gone and self._may(request, "change")):
                raise
        words = _("This is no draft any more: your changes were not saved.")
        self.message_user(request, words, messages.ERROR)
        return HttpResponseRedirect(self._url("change", object_id))

    def save_model(self, request: HttpRequest, obj: SmsMessage, form: Any, change: bool) -> None:
        if not change:
            obj.created_by = request.user  # type: ignore[assignment]
        super().save_model(request, obj, form, change)
        if "_send" in request.POST:
            # The network is waited for after the commit, and yet before the page is answered.
            transaction.on_commit(partial(self._carry_out, request, SEND, [obj.pk]), write_db())

    def delete_model(self, request: HttpRequest, obj: SmsMessage) -> None:
        never_sent = (Status.DRAFT, Status.CANCELLED)
        if not rows([obj.pk]).select_for_update().filter(status__in=never_sent).exists():
            raise PermissionDenied
        super().delete_model(request, obj)

    # --- deeds

    def _url(self, name: str, *args: Any) -> str:
        site = self.admin_site.name
        return reverse(f"admin:django_smska_smsmessage_{name}", args=args, current_app=site)

    def _link(self, key: Any, words: Any) -> str:
        return format_html('<a href="{}">{}</a>', self._url("change", key), words)

    def _summary(self, outcome: Outcome, keys: list[int]) -> str:
        number = ngettext("%s message", "%s messages", len(keys)) % len(keys)
        links = format_html_join(", ", "{}", ((self._link(key, key),) for key in keys[:LISTED]))
        more = "…" if len(keys) > LISTED else ""
        return format_html("{}: {} ({}{}). {}", outcome.what, number, links, more, outcome.why)

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(f"{deed.name}/", self._view(deed), name=f"django_smska_smsmessage_{deed.name}")
            for deed in DEEDS
        ]
        return own + super().get_urls()

    def _view(self, deed: Deed) -> Callable[..., Any]:
        view = self.admin_site.admin_view(partial(self.deed_view, deed=deed))
        for alias in connections:  # no transaction may be open while the network is waited for
            view = transaction.non_atomic_requests(using=alias)(view)
        return view

    def deed_view(self, request: HttpRequest, deed: Deed) -> HttpResponse:
        """GET shows what would be done with the messages ``pks``; POST does it."""
        if not self._may(request, deed.permission):
            raise PermissionDenied
        if request.method != "POST":
            return self._ask(
                request, deed, self._chosen(request, read_keys(request.GET.get("pks", "")))
            )
        keys = read_keys(request.POST.get("pks", ""))
        self._carry_out(request, deed, keys)
        if len(keys) == 1:
            return HttpResponseRedirect(self._back(request, self._url("change", keys[0])))
        return HttpResponseRedirect(self._back(request, self._url("changelist")))

    def _chosen(self, request: HttpRequest, keys: list[int]) -> QuerySet[SmsMessage]:
        return self.get_queryset(request).using(write_db()).filter(pk__in=keys)

    def _back(self, request: HttpRequest, url: str) -> str:
        filters = self.get_preserved_filters(request)
        return str(add_preserved_filters({"preserved_filters": filters, "opts": self.opts}, url))

    def _ask(self, request: HttpRequest, deed: Deed, chosen: QuerySet[SmsMessage]) -> HttpResponse:
        plan = Plan(deed, chosen)
        if plan.too_many:
            words = gettext("Choose at most %s messages, for example by a filter.") % plan.limit
            self.message_user(request, words, messages.ERROR)
            return HttpResponseRedirect(self._back(request, self._url("changelist")))
        listed = list(chosen.filter(pk__in=plan.first))
        if not all(self._may(request, deed.permission, message) for message in listed):
            raise PermissionDenied
        one = len(plan.chosen) == 1
        back = self._url("change", plan.chosen[0]) if one else self._url("changelist")
        context = {
            **self.admin_site.each_context(request),
            "title": deed.label,
            "original": deed.label,  # for the breadcrumbs
            "opts": self.opts,
            "media": self.media,
            "has_view_permission": True,
            "deed": deed,
            "plan": plan,
            "listed": listed,
            "action_url": self._back(request, self._url(deed.name)),
            "back_url": self._back(request, back),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/django_smska/smsmessage/confirm.html", context)

    def _carry_out(self, request: HttpRequest, deed: Deed, keys: list[int]) -> None:
        """Do the deed, note it in each message's history, and tell what became of how many."""
        at_once = deed.hand_over is None or len(keys) <= conf.send_at_once()
        work = self._one_by_one if at_once else self._in_bulk
        groups: dict[Outcome, list[int]] = defaultdict(list)
        for start in range(0, len(keys), BATCH):
            for key, outcome in work(request, deed, keys[start : start + BATCH]):
                groups[outcome].append(key)
        for outcome, done in groups.items():
            self.message_user(request, self._summary(outcome, done), outcome.level)
        if not groups:
            self.message_user(request, _("There was nothing to do."), messages.WARNING)

    def _one_by_one(
        self, request: HttpRequest, deed: Deed, keys: list[int]
    ) -> Iterator[tuple[int, Outcome]]:
        ill: set[str] = set()
        for message in self._chosen(request, keys).order_by("pk"):
            outcome = PASSED_OVER
            if message.status in deed.statuses and self._may(request, deed.permission, message):
                outcome = try_deed(deed, message, request.user, ill)
            if outcome is not PASSED_OVER:
                log(request.user, [message], str(outcome))
            yield message.pk, outcome

    def _in_bulk(
        self, request: HttpRequest, deed: Deed, keys: list[int]
    ) -> Iterator[tuple[int, Outcome]]:
        assert deed.hand_over is not None
        with transaction.atomic(using=write_db()):
            chosen = self._chosen(request, keys).filter(status__in=deed.handed_from)
            fit = [
                message
                for message in chosen.select_for_update().only("pk", "to", "status")
                if self._may(request, deed.permission, message)
            ]
            moved = {message.pk for message in fit}
            deed.hand_over(rows(moved))
            log(request.user, fit, str(deed.handed_over))
        for key in keys:
            yield key, deed.handed_over if key in moved else PASSED_OVER


# --- providers ------------------------------------------------------------------------------------


@admin.register(ProviderState)
class ProviderStateAdmin(StateAdminBase):
    """What the workers know of each provider, to read."""

    list_display = ("alias", "state", "paused_at", "credits", "strikes")
    fields = (*list_display, "detail")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description=_("state"))
    def state(self, obj: ProviderState) -> Any:
        if not obj.is_paused:
            return _("well")
        return format_html(gettext("paused: {}"), paused_words(obj))

    @admin.display(description=_("balance"))
    def credits(self, obj: ProviderState) -> Any:
        return balance_words(obj)

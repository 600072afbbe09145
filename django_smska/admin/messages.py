"""The admin of messages: list, search, form and actions.

Every action has a confirmation page, and only the POST of that page changes or sends anything. The
outcome is written into the message's history.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.html import escape, format_html
from django.utils.text import Truncator, capfirst
from django.utils.translation import gettext, ngettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from .. import held_queue, mailing_counts
from ..exceptions import WrongStatus
from ..models import ProviderState, SmsInbound, SmsMailing, SmsMessage, rows, write_db
from ..numbers import mask
from ..providers import providers
from ..states import Status
from . import alerts, clients, copying, permissions, resending, search, timeline
from .action_views import ActionAdmin
from .actions import (
    ACTIONS,
    CANCEL,
    CONFIRM_SENT,
    REFRESH,
    RESEND,
    SEND,
    keys_among,
    read_keys,
    send_as_saved,
)
from .advice import Rights, advice
from .forms import DraftForm, SmsActionForm, aliases, require_no_braces
from .guard import moment, one_of
from .wording import error_words, money

logger = logging.getLogger(__name__)

LIVE_FOR = timedelta(minutes=30)  # the time for which the list is renewed, as in its script
_MOVING = (Status.CLAIMED, Status.SENDING)
MAX_LISTED = 10_000  # the number of newest rows that the list shows
RECEIVED = "received"  # the parameter with the key of a received message
MAILING = "mailing"  # the same of a mailing

if TYPE_CHECKING:
    PaginatorBase = Paginator[Any]
else:
    PaginatorBase = Paginator


# --- messages -------------------------------------------------------------------------------------


class RecentPaginator(PaginatorBase):
    """Goes back ten thousand rows, because counting millions takes longer than the page's rest.

    Filters and search find older messages.
    """

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[:MAX_LISTED].count())


class UsingFilter(admin.SimpleListFilter):
    """Filters by provider; the choices come from the settings, without a query."""

    title = _("provider")
    parameter_name = "using"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return aliases()

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(using=self.value()) if self.value() else queryset


class NeedsFilter(admin.SimpleListFilter):
    """Filters messages that need attention."""

    title = _("what to do")
    parameter_name = "needs"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("attention", _("needs attention"))]

    def queryset(self, request: HttpRequest, queryset: Any) -> QuerySet[Any]:
        return _needing_attention(queryset) if self.value() == "attention" else queryset


class ReceivedFilter(admin.SimpleListFilter):
    """Filters the messages to the number from which one was received; the link of that one is the
    only way here."""

    title = _("number")
    parameter_name = RECEIVED

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        key = request.GET.get(RECEIVED)
        if key is None:
            return []
        return [(key, mask(self._number(request.user, key)))]  # the log of an export quotes it

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() is None:
            return queryset
        number = self._number(request.user, str(self.value()))
        return queryset.filter(to=number) if number else queryset.none()

    def _number(self, user: Any, key: str) -> str:
        """Return the number, or "" for an erased message and for a user who may not see it."""
        if not user.has_perm("django_smska.view_smsinbound"):
            return ""
        received = SmsInbound.objects.filter(pk=key).values_list("sender", flat=True)
        return received.first() or ""


class MailingFilter(admin.SimpleListFilter):
    """Filters the messages of a mailing, whose page leads here."""

    title = _("mailing")
    parameter_name = MAILING

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        key = request.GET.get(MAILING)
        found = SmsMailing.objects.filter(pk=key).first() if key is not None else None
        return [] if key is None else [(key, found.name if found else key)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset if self.value() is None else queryset.filter(mailing=self.value())


def _needing_attention(messages: QuerySet[Any]) -> QuerySet[Any]:
    return messages.filter(pk__in=SmsMessage.objects.needing_attention(timezone.now()))


def _is_live(found: Any) -> bool:
    """Return whether a message of this list is on its way, or will be soon."""
    now = timezone.now()
    return not found.is_popup and any(
        message.status in _MOVING
        or (message.status == Status.QUEUED and message.send_after < now + LIVE_FOR)
        or (message.status == Status.SENT and message.sent_at and message.sent_at > now - LIVE_FOR)
        for message in found.result_list
    )


class Titled:
    """A row with a title that this user may read; the templates use nothing else of the row."""

    def __init__(self, row: Any, title: str) -> None:
        self.pk = row.pk
        self._meta = row._meta
        self._title = title

    def __str__(self) -> str:
        return self._title

    def __repr__(self) -> str:
        return repr(self._title)


def _key(value: str) -> str | None:
    return value if re.fullmatch(r"[1-9][0-9]{0,17}", value) else None


_WRITTEN = ("to", "body", "sender", "using")
_WHEN = ("priority", "send_after", "expires_at")
_SIZE = ("segments", "billed_segments")
_MADE = ("created_at", "created_by")
_RAW = ("gateway_id", "gateway_status", "error_code", "error_text")
_TECHNICAL = (*_RAW, "attempts", "encoding")
_SHOWN = (
    "status_badge",
    "timeline",
    "whole_number",
    "masked_number",
    "hidden_text",
    "error",
    "resent_as_link",
    "cost",
)


def _has(obj: SmsMessage, name: str) -> bool:
    """Return whether there is anything to show."""
    return bool(getattr(obj, name))


@admin.register(SmsMessage)
class SmsMessageAdmin(ActionAdmin):
    """Drafts can be edited; other messages are only shown, and changed by actions."""

    class Media(ActionAdmin.Media):
        js = ("django_smska/live.js",)

    form = DraftForm
    action_form = SmsActionForm
    list_display: Any = ("status_badge", "whole_number", "when", "text_start", "provider")
    list_display_links = ("whole_number",)
    list_filter = (ReceivedFilter, MailingFilter, NeedsFilter, "status", UsingFilter, "created_at")
    list_per_page = 50
    ordering = ("-id",)
    sortable_by = ("whole_number",)
    search_fields = ("to", "gateway_id")
    show_full_result_count = False
    paginator = RecentPaginator
    show_facets = admin.ShowFacets.NEVER
    number = "to"
    look_ups = {
        "needs": one_of(lambda: ["attention"]),
        "status__exact": one_of(lambda: Status.values),
        "using": one_of(lambda: providers),
        "created_at__gte": moment,
        "created_at__lt": moment,
        **dict.fromkeys((RECEIVED, MAILING), _key),
    }
    needs = {
        **ActionAdmin.needs,
        "compose": ("view", "add", "send"),
        "export": ("view", "export"),
        "held": ("view", "release"),
        "statistics": ("view",),
    }
    actions = (
        "send_selected",
        "refresh_selected",
        "cancel_selected",
        "confirm_sent_selected",
        "resend_selected",
        "export_selected",
    )
    readonly_fields = (*_SHOWN, *_SIZE, *_MADE, *_TECHNICAL, "resend_of", "mailing")

    # --- who may what

    def has_send_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "send", obj)

    def has_refresh_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "refresh", obj)

    def has_resend_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "resend", obj)

    def has_cancel_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "change", obj)

    def has_release_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "release", obj)

    def has_export_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, "export", obj)

    def needed(self, request: HttpRequest, page: str) -> set[str]:
        needs = super().needed(request, page)
        if page == "change" and request.method == "POST" and "_saveasnew" not in request.POST:
            needs = self.codenames(("change", "see_text_smsmessage", "see_number_smsmessage"))
        if "_send" in request.POST and page in ("add", "change"):
            needs |= self.codenames(("view", "send") if page == "add" else ("send",))
        return needs

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Allow to edit drafts to users who may see what the form shows: text and number. A
        sensitive text may be seen by no user."""
        if not super().has_change_permission(request, obj):
            return False
        user = request.user
        seen = permissions.may_see_text(user) and permissions.may_see_number(user)
        return obj is None or (obj.status == Status.DRAFT and seen and not obj.sensitive)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Allow to delete one message at a time, if it was never sent."""
        return (
            obj is not None
            and obj.status in (Status.DRAFT, Status.CANCELLED)
            and super().has_delete_permission(request, obj)
        )

    # --- the list

    def get_list_display(self, request: HttpRequest) -> Any:
        """Mask the numbers and leave out the texts for users who may not see them; one provider
        needs no column."""
        columns = list(self.list_display)
        if not permissions.may_see_number(request.user):
            columns[columns.index("whole_number")] = "masked_number"
        if not permissions.may_see_text(request.user):
            columns[columns.index("text_start")] = "details"
        if len(list(providers)) == 1:
            columns.remove("provider")
        return columns

    def get_list_display_links(self, request: HttpRequest, list_display: Any) -> Any:
        return [name for name in ("whole_number", "masked_number") if name in list_display]

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        # The list has its own copy of the request, and this one dict.
        ways: dict[str, list[search.Way]] = {}
        cast(Any, request).smska_ways = ways
        found: Any = super().get_changelist_instance(request)
        found.is_live = partial(_is_live, found)
        found.searches = search.help_text(request.user)
        found.found_nothing = ""
        found.notes = [way.note for listed in ways.values() for way in listed if way.note]
        if found.query and not found.result_count:
            known = ways.get(found.query.strip(), [])
            words = search.found_nothing(found.query, known, filtered=found.has_active_filters)
            found.found_nothing = permissions.Unlogged(words)
        return found

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        ways = list(search.ways(term, request.user))
        getattr(request, "smska_ways", {})[term] = ways
        return queryset.filter(search.condition(ways)), False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        found = [*self._stopped(request), *alerts.alerts()]
        context = {"alerts": found, "counted": MAX_LISTED, **(extra_context or {})}
        context["links"] = list(self._links(request))
        context["ask_url"] = self._ask_url(request)
        context["first_url"] = self._url_to_write(request)
        context["has_add_permission"] = self._has_add_link(request)
        return super().changelist_view(request, context)

    def _stopped(self, request: HttpRequest) -> list[alerts.Alert]:
        """Return the line about the mailing whose messages are shown, or about all, if stopped."""
        if not self.admin_site.is_registered(SmsMailing):
            return []
        of_mailings: Any = self.admin_site.get_model_admin(SmsMailing)
        line = alerts.stopped_line(_key(request.GET.get(MAILING, "")), of_mailings.url)
        return [line] if line is not None else []

    def _ask_url(self, request: HttpRequest) -> str:
        """Return where the alerts' buttons ask for a balance; "" for a user who may not, and on a
        site without that page."""
        if not self.admin_site.is_registered(ProviderState):
            return ""
        of_providers: Any = self.admin_site.get_model_admin(ProviderState)
        may = of_providers.has_stop_permission(request)
        return str(of_providers.url("balances")) if may else ""

    def _url_to_write(self, request: HttpRequest) -> str:
        """Return where this user writes a message, or ""."""
        if not self.has_add_permission(request):
            return ""
        return self.url("compose" if self.may_compose(request) else "add")

    def _has_add_link(self, request: HttpRequest) -> bool:
        """Return False where the user has the page for writing, which stores drafts, too."""
        return self.has_add_permission(request) and not self.may_compose(request)

    def get_model_perms(self, request: HttpRequest) -> dict[str, bool]:
        """Return what the index and the sidebar offer."""
        return {**super().get_model_perms(request), "add": self._has_add_link(request)}

    def _links(self, request: HttpRequest) -> Iterator[tuple[str, Any]]:
        """Yield the list's links to other pages: address and label."""
        if self.may_compose(request):
            yield self.url("compose"), _("Write to one or many…")
        yield self.url("statistics"), _("Statistics")
        if self.has_release_permission(request) and held_queue.moments(providers):
            yield self.url("held"), _("Held messages…")
        if self.has_export_permission(request):
            yield self.url("export"), _("Export…")

    @admin.display(description=_("status"))
    def status_badge(self, obj: SmsMessage) -> str:
        return timeline.badge(obj)

    @admin.display(description=_("number"), ordering="to")
    def whole_number(self, obj: SmsMessage) -> str:
        return clients.beside(permissions.grouped(str(obj.to)) or gettext("(erased)"), obj)

    @admin.display(description=_("number"))
    def masked_number(self, obj: SmsMessage) -> str:
        return mask(str(obj.to))

    @admin.display(description=_("text"))
    def text_start(self, obj: SmsMessage) -> str:
        seen = permissions.placeholder(obj) or obj.body
        text = Truncator(" ".join(seen.split())).chars(50)
        return format_html('<span class="smska-start">{}</span>{}', text, self.details(obj))

    @admin.display(description=_("details"))
    def details(self, obj: SmsMessage) -> str:
        """Return what is not so of most messages, for the line under the text."""
        number = obj.segments
        known: list[str] = []
        if number > 1:
            words = ngettext("%(number)s segment", "%(number)s segments", number)
            known.append(words % {"number": number})
        if obj.price is not None:
            known.append(money(obj.price, obj.currency))
        if obj.sender:
            known.append(gettext("from %s") % obj.sender)
        shown = " · ".join(known)
        return format_html('<span class="smska-details">{}</span>', shown) if shown else ""

    @admin.display(description=_("provider"))
    def provider(self, obj: SmsMessage) -> str:
        label = '<span class="smska-label">{}: </span>{}'
        return format_html(label, capfirst(gettext("provider")), obj.using)

    @admin.display(description=pgettext_lazy("SMS list", "when"))
    def when(self, obj: SmsMessage) -> str:
        return timeline.when(obj)

    @admin.action(description=_("Send…"), permissions=["send"])
    def send_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        return self.confirm(request, SEND, queryset)

    @admin.action(description=_("Refresh status…"), permissions=["refresh"])
    def refresh_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        return self.confirm(request, REFRESH, queryset)

    @admin.action(description=_("Cancel sending…"), permissions=["cancel"])
    def cancel_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        return self.confirm(request, CANCEL, queryset)

    @admin.action(description=_("Mark as sent…"), permissions=["resend"])
    def confirm_sent_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        return self.confirm(request, CONFIRM_SENT, queryset)

    @admin.action(description=_("Send again…"), permissions=["resend"])
    def resend_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        return self.confirm(request, RESEND, queryset)

    @admin.action(description=_("Export…"), permissions=["export"])
    def export_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        from . import export

        # As Django reads it. For the whole list its filter is enough.
        if forms.BooleanField(required=False).clean(request.POST.get("select_across")):
            return export.ask(self, request, export.WHOLE_LIST)
        keys = map(str, queryset.values_list("pk", flat=True))
        return export.ask(self, request, ",".join(keys) or export.NOTHING)

    def response_action(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        chosen = keys_among(request.POST.getlist(ACTION_CHECKBOX_NAME))
        post = request.POST.copy()
        post.setlist(ACTION_CHECKBOX_NAME, [str(key) for key in chosen])
        request.POST = post  # type: ignore[assignment]
        return super().response_action(request, *args, **kwargs)

    # --- one message

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        """Return a message to show. Other parties' texts may repeat what this user may not see."""
        message = super().get_object(request, object_id, from_field)
        for name in _RAW if message is not None else ():
            words = permissions.external_text_for(request.user, message, getattr(message, name))
            setattr(message, name, words)
        return message

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Let an address fill in text fields only: other fields cannot read text."""
        given = super().get_changeform_initial_data(request)
        return {name: value for name, value in given.items() if name in _WRITTEN}

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        # Django shows a description as HTML.
        what_to_do = escape(self._what_to_do(request, obj)) if obj is not None else ""
        if obj is None or self.has_change_permission(request, obj):
            written = {"fields": _WRITTEN, "description": what_to_do}
            return [(None, written), (_("When"), {"fields": _WHEN})]
        whole = permissions.may_see_number(request.user)
        number = "whole_number" if whole else "masked_number"
        seen = permissions.may_see_text(request.user) and not permissions.placeholder(obj)
        text = "body" if seen else "hidden_text"
        # Both may be known to be nothing.
        size = tuple(name for name in _SIZE if getattr(obj, name) is not None)
        cost = [] if obj.price is None else ["cost"]
        named = ["sender"] if obj.sender else []
        named += ["using"] if len(list(providers)) > 1 or obj.using not in providers else []
        waits = obj.expires_at and obj.status in (Status.DRAFT, Status.QUEUED)
        more = [*named, size, *cost, *(["expires_at"] if waits else [])]
        raw = [name for name in _TECHNICAL if _has(obj, name)]
        raw = ["error" if name == "error_text" else name for name in raw]
        linked = ["resend_of"] if obj.resend_of_id else []
        linked += ["resent_as_link"] if hasattr(obj, "resent_as") else []
        linked += ["mailing"] if obj.mailing_id else []
        return [
            (None, {"fields": ("status_badge", *linked), "description": what_to_do}),
            (_("Message"), {"fields": (number, text, *more)}),
            (None, {"fields": ("timeline",)}),
            (_("For technical support"), {"fields": raw, "classes": ("collapse",)}),
        ]

    def _what_to_do(self, request: HttpRequest, obj: SmsMessage) -> str:
        words = advice(obj, self._rights(request, obj))
        seen = permissions.may_see_text(request.user) and not permissions.placeholder(obj)
        if obj.status == Status.DRAFT and seen and request.method == "GET":
            try:
                require_no_braces(obj.body)
            except ValidationError as error:
                return " ".join([*error.messages, words])
        return words

    def _rights(self, request: HttpRequest, obj: SmsMessage) -> Rights:
        return Rights(
            decide=self.may(request, "resend", obj),
            send=self.may(request, "send", obj),
            edit=self.has_change_permission(request, obj),
            write=self.may_compose(request),
            release=self.has_release_permission(request, obj),
        )

    @admin.display(description=_("What has happened"))
    def timeline(self, obj: SmsMessage) -> str:
        return timeline.timeline(obj)

    @admin.display(description=_("text"))
    def hidden_text(self, obj: SmsMessage) -> str:
        return permissions.placeholder(obj) or gettext("(hidden)")

    @admin.display(description=_("error"))
    def error(self, obj: SmsMessage) -> str:
        return error_words(obj.error_text) or self.get_empty_value_display()

    @admin.display(description=_("price"))
    def cost(self, obj: SmsMessage) -> str:
        price = obj.price
        return self.get_empty_value_display() if price is None else money(price, obj.currency)

    @admin.display(description=_("sent again as"))
    def resent_as_link(self, obj: SmsMessage) -> str:
        again = SmsMessage.objects.filter(resend_of=obj).first()
        return self.link_to(again.pk, again) if again else self.get_empty_value_display()

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        obj = kwargs.get("obj")
        if obj is not None:
            number = permissions.number_for(request.user, obj) or gettext("(erased)")
            words = gettext("SMS to %(number)s") % {"number": number}
            title = permissions.Unlogged(words)
            context |= {"title": title, "subtitle": None, "original": Titled(obj, title)}
        else:
            context["title"] = gettext("New draft")
        context["actions"] = self._buttons(request, obj) if obj is not None else []
        context["may_send"] = self.has_send_permission(request)
        context["show_save_and_add_another"] = context["show_save_and_continue"] = False
        return super().render_change_form(request, context, *args, **kwargs)

    def _buttons(self, request: HttpRequest, obj: SmsMessage) -> list[dict[str, Any]]:
        fit = [action for action in ACTIONS if obj.status in action.statuses]
        if RESEND in fit and resending.obstacles([obj]):
            fit.remove(RESEND)
        if SEND in fit and self.has_change_permission(request, obj):
            fit.remove(SEND)  # it would send what is stored, not what is in the form
        buttons = [
            {"label": action.label, "url": f"{self.url(action.name)}?pks={obj.pk}"}
            for action in fit
            if self.may(request, action.permission, obj)
        ]
        if self.may_compose(request):
            copy = {"label": _("Copy to a new message"), "url": copying.address(self, obj)}
            # First where sending again does not help, or is not needed.
            fails = resending.fails_again(obj) or resending.lacks_sender(obj)
            first = obj.status == Status.DELIVERED or fails
            buttons.insert(0 if first else len(buttons), copy)
        return buttons

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        if "_send" in request.POST and not self.has_send_permission(request):
            raise PermissionDenied
        may_edit = request.method == "POST" and self.may(request, "change")
        if may_edit and self._is_deleted(object_id or ""):
            return self._lost_edits(request, object_id or "")
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except (WrongStatus, PermissionDenied) as error:
            # Was the draft sent or cancelled while it was being edited?
            gone = isinstance(error, WrongStatus) or self._is_gone(object_id or "")
            if not (gone and may_edit):
                raise
        return self._lost_edits(request, object_id or "")

    def _lost_edits(self, request: HttpRequest, object_id: str) -> HttpResponse:
        from . import lost_edits

        return lost_edits.page(request, self, object_id)

    def _is_deleted(self, object_id: str) -> bool:
        keys = read_keys(object_id)
        return bool(keys) and not rows(keys).exists()

    def _is_gone(self, object_id: str) -> bool:
        """Return whether the message is no longer a draft."""
        return rows(read_keys(object_id)).exclude(status=Status.DRAFT).exists()

    def save_model(self, request: HttpRequest, obj: SmsMessage, form: Any, change: bool) -> None:
        if not change:
            obj.created_by = request.user
        super().save_model(request, obj, form, change)
        if "_send" in request.POST:
            # After the commit, and before the page is answered.
            send = partial(self.carry_out, request, send_as_saved(obj), [obj.pk])
            transaction.on_commit(send, write_db())

    def response_post_save_add(self, request: HttpRequest, obj: SmsMessage) -> HttpResponseRedirect:
        """Show the message after “Save and send”, so that its outcome is seen."""
        return self._seen_off(request, obj) or super().response_post_save_add(request, obj)

    def response_post_save_change(
        self, request: HttpRequest, obj: SmsMessage
    ) -> HttpResponseRedirect:
        return self._seen_off(request, obj) or super().response_post_save_change(request, obj)

    def _seen_off(self, request: HttpRequest, obj: SmsMessage) -> HttpResponseRedirect | None:
        if "_send" not in request.POST:
            return None
        return HttpResponseRedirect(self.with_filters(request, self.url("change", obj.pk)))

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, extra_context)
        except PermissionDenied:  # was it sent or deleted after its page was opened?
            if request.method != "POST" or not self.may(request, "delete"):
                raise
        words = _(
            "This message was not deleted. Only drafts and cancelled messages can be deleted."
        )
        if self._is_deleted(object_id):
            words = _("This message has already been deleted.")
        self.message_user(request, words, messages.ERROR)
        return HttpResponseRedirect(self.with_filters(request, self.url("changelist")))

    def delete_model(self, request: HttpRequest, obj: SmsMessage) -> None:
        never_sent = (Status.DRAFT, Status.CANCELLED)
        if not rows([obj.pk]).select_for_update().filter(status__in=never_sent).exists():
            raise PermissionDenied
        if obj.mailing_id is not None:
            mailing_counts.remove(obj)
        super().delete_model(request, obj)

    # --- pages of our own

    def own_urls(self) -> list[URLPattern]:
        pages = {
            "compose": self.without_transaction(self.compose_view),
            "export": self.admin_site.admin_view(self.export_view),
            "held": self.without_transaction(self.held_view),
            "statistics": self.without_transaction(self.statistics_view),
        }
        return [
            *super().own_urls(),
            *(
                path(f"{name}/", view, name=f"django_smska_smsmessage_{name}")
                for name, view in pages.items()
            ),
        ]

    # Most processes show no page, so each page's module is imported by its view.

    def compose_view(self, request: HttpRequest) -> HttpResponse:
        """Write one text to one number or to thousands."""
        from .compose import compose

        return compose(request, model_admin=self)

    def statistics_view(self, request: HttpRequest) -> HttpResponse:
        """Show counts, shares and times of the messages of a range of days."""
        from .statistics import page

        if not self.has_view_permission(request):
            raise PermissionDenied
        title = gettext("Statistics of SMS messages")
        shown = page(request.GET)
        return self.page(request, "statistics", title, list_url=self.url("changelist"), **shown)

    def held_view(self, request: HttpRequest) -> HttpResponse:
        """Show what is held, and release or cancel it."""
        from . import held

        if not self.has_release_permission(request):
            raise PermissionDenied
        return held.answer(request, self)

    def export_view(self, request: HttpRequest) -> Any:
        """Answer GET by what a file of the filtered list would hold, and POST by the file."""
        from . import export

        if not self.has_export_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return export.ask(self, request, request.GET.get("pks", ""))
        return export.download(self, request, request.POST.get("pks", ""))

"""The admin of messages: list, search, form and actions.

Every action has a confirmation page, and only the POST of that page changes or sends anything. The
outcome is written into the message's history.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.contrib.auth import get_permission_codename
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db import connections, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Substr
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.functional import cached_property
from django.utils.html import format_html, format_html_join
from django.utils.text import Truncator
from django.utils.translation import gettext, ngettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from .. import conf
from ..exceptions import WrongStatus
from ..models import SmsMessage, rows, write_db
from ..numbers import mask, normalize
from ..providers import providers
from ..states import Status
from . import alerts, permissions, timeline
from .actions import (
    ACTIONS,
    CANCEL,
    CONFIRM_SENT,
    LISTED,
    REFRESH,
    RESEND,
    SEND,
    SKIPPED,
    Action,
    Outcome,
    Plan,
    crashed,
    error_words,
    hand_over_one,
    keys_among,
    log,
    read_keys,
    run_action,
)
from .forms import SmsActionForm, SmsMessageForm, aliases
from .guard import GuardedAdmin, moment, one_of

logger = logging.getLogger(__name__)

BATCH = 1000  # rows per transaction
MAX_LISTED = 10_000  # rows that the list goes back
SEARCHED_FOR_PARTS = 50_000  # newest rows, among which a part of a number is looked for
MAX_ID_CHARACTERS = 64  # characters of a gateway id

if TYPE_CHECKING:
    PaginatorBase = Paginator[Any]
else:
    PaginatorBase = Paginator


# --- messages -------------------------------------------------------------------------------------


class RecentPaginator(PaginatorBase):
    """Goes back ten thousand rows: counting millions takes longer than the rest of the page, and
    nobody turns to page 1000. Filters and search find what is older."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[:MAX_LISTED].count())


class UsingFilter(admin.SimpleListFilter):
    """By provider; the choices are those of the settings, not found by a walk over the table."""

    title = _("provider")
    parameter_name = "using"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return aliases()

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(using=self.value()) if self.value() else queryset


class NeedsFilter(admin.SimpleListFilter):
    """What a person must look at."""

    title = _("what to do")
    parameter_name = "needs"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("person", _("needs a person"))]

    def queryset(self, request: HttpRequest, queryset: Any) -> QuerySet[Any]:
        return alerts.needing_attention(queryset) if self.value() == "person" else queryset


def _matches(term: str, *, numbers: bool) -> Q:
    """A whole gateway id, or with ``numbers`` a number in any spelling, or four or more digits of a
    number of a newer message."""
    found = Q(pk__in=())
    if term.isascii() and term.isprintable() and len(term) <= MAX_ID_CHARACTERS:
        found = Q(gateway_id=term)
    if not numbers:  # or the digits that a mask hides could be found by a thousand searches
        return found & ~Q(gateway_id__contains=Substr("to", 3))  # where a gateway repeats it
    try:
        return found | Q(to=normalize(term))
    except ValidationError:
        pass
    digits = re.sub(r"[^0-9]", "", term)
    if 4 <= len(digits) <= 15 and re.fullmatch(r"[0-9\s+().\-]+", term):
        part = Q(to__contains=digits)
        if digits.startswith("8"):
            part |= Q(to__startswith=f"+7{digits[1:]}")
        # No index helps to find a part: a table of millions would be read as a whole.
        newest = SmsMessage.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
        found |= part & Q(pk__gt=newest - SEARCHED_FOR_PARTS)
    return found


_WRITTEN = ("to", "body", "sender", "using")
_WHEN = ("priority", "send_after", "expires_at")
_SIZE = ("segments", "encoding")
_MADE = ("created_at", "created_by")
_RAW = ("gateway_id", "gateway_status", "error_code", "error_text")
_SHOWN = (
    "status_badge",
    "timeline",
    "masked_number",
    "hidden_text",
    "error",
    "resent_as_link",
)


def _page(name: str) -> Any:
    """The module of a page, imported when somebody opens it: most of what starts shows no page."""
    return import_module(f".{name}", __package__)


def _has(obj: SmsMessage, name: Any) -> bool:
    """Whether there is anything to show."""
    return isinstance(name, tuple) or bool(getattr(obj, name))


@admin.register(SmsMessage)
class SmsMessageAdmin(GuardedAdmin):
    """Drafts can be edited; from then on a message is only read, and changed by actions."""

    form = SmsMessageForm
    action_form = SmsActionForm
    list_display: Any = (
        "status_badge",
        "to",
        "times",
        "text_start",
        "segments",
        "sender",
        "using",
    )
    list_display_links = ("to",)
    list_filter = (NeedsFilter, "status", UsingFilter, "created_at")
    list_per_page = 50
    ordering = ("-id",)
    sortable_by = ("to",)
    search_fields = ("to", "gateway_id")
    show_full_result_count = False
    paginator = RecentPaginator
    show_facets = admin.ShowFacets.NEVER
    look_ups = {
        "needs": one_of(lambda: ["person"]),
        "status__exact": one_of(lambda: Status.values),
        "using": one_of(lambda: providers),
        "created_at__gte": moment,
        "created_at__lt": moment,
    }
    actions = (
        "send_selected",
        "refresh_selected",
        "cancel_selected",
        "confirm_sent_selected",
        "resend_selected",
        "export_selected",
    )
    readonly_fields = (*_SHOWN, *_SIZE, *_MADE, *_RAW, "resend_of", "attempts")

    class Media:
        css = {"all": ("django_smska/admin.css",)}

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

    def has_resend_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, "resend", obj)

    def has_cancel_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, "change", obj)

    def has_export_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, "export", obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A draft's form shows its text and its number."""
        if not super().has_change_permission(request, obj):
            return False
        user = request.user
        seen = permissions.may_see_text(user) and permissions.may_see_number(user)
        return obj is None or (obj.status == Status.DRAFT and seen)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """One at a time, and only what was never sent."""
        return (
            obj is not None
            and obj.status in (Status.DRAFT, Status.CANCELLED)
            and super().has_delete_permission(request, obj)
        )

    # --- the list

    def get_list_display(self, request: HttpRequest) -> Any:
        """Those who may not see a number see its mask, and no column of texts."""
        columns = list(self.list_display)
        if not permissions.may_see_number(request.user):
            columns[columns.index("to")] = "masked_number"
        if not permissions.may_see_text(request.user):
            columns.remove("text_start")
        return columns

    def get_list_display_links(self, request: HttpRequest, list_display: Any) -> Any:
        return [name for name in ("to", "masked_number") if name in list_display]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        numbers = permissions.may_see_number(request.user)
        return queryset.filter(_matches(term, numbers=numbers)), False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        context = {"alerts": alerts.alerts(), "counted": MAX_LISTED, **(extra_context or {})}
        context["links"] = list(self._links(request))
        return super().changelist_view(request, context)

    def _links(self, request: HttpRequest) -> Iterator[tuple[str, Any]]:
        """Pages that the list leads to: address and words."""
        if self.has_add_permission(request) and self.has_send_permission(request):
            yield self._url("compose"), _("Write to one or many…")
        yield self._url("statistics"), _("Statistics")
        if self.has_export_permission(request):
            yield self._url("export"), _("Export…")

    @admin.display(description=_("status"))
    def status_badge(self, obj: SmsMessage) -> str:
        return timeline.badge(obj)

    @admin.display(description=_("number"))
    def masked_number(self, obj: SmsMessage) -> str:
        return mask(str(obj.to))

    @admin.display(description=_("text"))
    def text_start(self, obj: SmsMessage) -> str:
        text = Truncator(" ".join(obj.body.split())).chars(50)
        return format_html('<span class="smska-start">{}</span>', text)

    @admin.display(description=pgettext_lazy("SMS list", "when"))
    def times(self, obj: SmsMessage) -> str:
        return timeline.times(obj)

    @admin.action(description=_("Send…"), permissions=["send"])
    def send_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        return self._ask(request, SEND, queryset)

    @admin.action(description=_("Refresh status…"), permissions=["refresh"])
    def refresh_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        return self._ask(request, REFRESH, queryset)

    @admin.action(description=_("Cancel sending…"), permissions=["cancel"])
    def cancel_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        return self._ask(request, CANCEL, queryset)

    @admin.action(description=_("It was sent…"), permissions=["resend"])
    def confirm_sent_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        return self._ask(request, CONFIRM_SENT, queryset)

    @admin.action(description=_("Send again…"), permissions=["resend"])
    def resend_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        return self._ask(request, RESEND, queryset)

    @admin.action(description=_("Export…"), permissions=["export"])
    def export_selected(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
        every = request.POST.get("select_across") == "1"  # then the list's filter says it all
        keys = [] if every else queryset.values_list("pk", flat=True)
        asked: HttpResponse = _page("export").ask(self, request, ",".join(map(str, keys)))
        return asked

    def export_view(self, request: HttpRequest) -> Any:
        """GET shows what a file of the filtered list would hold; POST answers with the file."""
        if not self.has_export_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return _page("export").ask(self, request, request.GET.get("pks", ""))
        return _page("export").download(self, request, request.POST.get("pks", ""))

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
        """A message to show. What others wrote about it may repeat what a user may not see."""
        message = super().get_object(request, object_id, from_field)
        for name in _RAW if message is not None else ():
            words = permissions.words_for(request.user, message, getattr(message, name))
            setattr(message, name, words)
        return message

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Only texts can be filled in by an address: no other kind of field reads them."""
        given = super().get_changeform_initial_data(request)
        return {name: value for name, value in given.items() if name in _WRITTEN}

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None or self.has_change_permission(request, obj):
            return [(None, {"fields": _WRITTEN}), (_("When"), {"fields": _WHEN})]
        number = "to" if permissions.may_see_number(request.user) else "masked_number"
        text = "body" if permissions.may_see_text(request.user) else "hidden_text"
        more = [name for name in ("sender", "using", _SIZE, "expires_at") if _has(obj, name)]
        raw = [name for name in (*_RAW, "attempts") if _has(obj, name)]
        raw = ["error" if name == "error_text" else name for name in raw]
        linked = ["resend_of"] if obj.resend_of_id else []
        linked += ["resent_as_link"] if hasattr(obj, "resent_as") else []
        what_to_do = timeline.advice(obj, may_decide=self._may(request, "resend", obj))
        return [
            (None, {"fields": ("status_badge", *linked), "description": what_to_do}),
            (_("Message"), {"fields": (number, text, *more)}),
            (_("What has happened"), {"fields": ("timeline",)}),
            (_("The gateway's own words"), {"fields": raw, "classes": ("collapse",)}),
        ]

    @admin.display(description=_("steps"))
    def timeline(self, obj: SmsMessage) -> str:
        return timeline.timeline(obj)

    @admin.display(description=_("text"))
    def hidden_text(self, obj: SmsMessage) -> str:
        return gettext("(hidden)")

    @admin.display(description=_("error"))
    def error(self, obj: SmsMessage) -> str:
        return error_words(obj.error_text) or self.get_empty_value_display()

    @admin.display(description=_("sent again as"))
    def resent_as_link(self, obj: SmsMessage) -> str:
        again = SmsMessage.objects.filter(resend_of=obj).first()
        return self._link(again.pk, again) if again else self.get_empty_value_display()

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        obj = kwargs.get("obj")
        context["actions"] = self._buttons(request, obj) if obj is not None else []
        context["may_send"] = self.has_send_permission(request)
        context["show_save_and_add_another"] = context["show_save_and_continue"] = False
        return super().render_change_form(request, context, *args, **kwargs)

    def _buttons(self, request: HttpRequest, obj: SmsMessage) -> list[dict[str, Any]]:
        fit = [action for action in ACTIONS if obj.status in action.statuses]
        if RESEND in fit and hasattr(obj, "resent_as"):
            fit.remove(RESEND)
        if SEND in fit and self.has_change_permission(request, obj):
            fit.remove(SEND)  # it would send what is stored, not what stands in the form
        return [
            {"label": action.label, "url": f"{self._url(action.name)}?pks={obj.pk}"}
            for action in fit
            if self._may(request, action.permission, obj)
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
        except (WrongStatus, PermissionDenied) as error:
            # Somebody sent or cancelled the draft while it was being edited?
            gone = isinstance(error, WrongStatus) or self._is_gone(object_id or "")
            if not (gone and request.method == "POST" and self._may(request, "change")):
                raise
        words = _("This is no draft any more: your changes were not saved.")
        self.message_user(request, words, messages.ERROR)
        return HttpResponseRedirect(self._url("change", object_id))

    def _is_gone(self, object_id: str) -> bool:
        """True for a message that is no draft any more."""
        return rows(read_keys(object_id)).exclude(status=Status.DRAFT).exists()

    def save_model(self, request: HttpRequest, obj: SmsMessage, form: Any, change: bool) -> None:
        if not change:
            obj.created_by = request.user
        super().save_model(request, obj, form, change)
        if "_send" in request.POST:
            # The network is waited for after the commit, and yet before the page is answered.
            transaction.on_commit(partial(self._carry_out, request, SEND, [obj.pk]), write_db())

    def response_post_save_add(self, request: HttpRequest, obj: SmsMessage) -> HttpResponseRedirect:
        """Whoever sends wants to see what becomes of it."""
        return self._seen_off(request, obj) or super().response_post_save_add(request, obj)

    def response_post_save_change(
        self, request: HttpRequest, obj: SmsMessage
    ) -> HttpResponseRedirect:
        return self._seen_off(request, obj) or super().response_post_save_change(request, obj)

    def _seen_off(self, request: HttpRequest, obj: SmsMessage) -> HttpResponseRedirect | None:
        if "_send" not in request.POST:
            return None
        return HttpResponseRedirect(self._back(request, self._url("change", obj.pk)))

    def delete_model(self, request: HttpRequest, obj: SmsMessage) -> None:
        never_sent = (Status.DRAFT, Status.CANCELLED)
        if not rows([obj.pk]).select_for_update().filter(status__in=never_sent).exists():
            raise PermissionDenied
        super().delete_model(request, obj)

    # --- actions

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

    def own_urls(self) -> list[URLPattern]:
        own = [
            path(
                f"{action.name}/", self._view(action), name=f"django_smska_smsmessage_{action.name}"
            )
            for action in ACTIONS
        ]
        write = self._wrap(lambda request: _page("compose").compose(request, model_admin=self))
        own.append(path("compose/", write, name="django_smska_smsmessage_compose"))
        view = self.admin_site.admin_view(self.export_view)
        own.append(path("export/", view, name="django_smska_smsmessage_export"))
        tell = self._wrap(self.statistics_view)
        own.append(path("statistics/", tell, name="django_smska_smsmessage_statistics"))
        return own

    def _view(self, action: Action) -> Callable[..., Any]:
        return self._wrap(partial(self.action_view, action=action))

    def _wrap(self, view: Callable[..., Any]) -> Callable[..., Any]:
        view = self.admin_site.admin_view(view)
        for alias in connections:  # no transaction may be open while the network is waited for
            view = transaction.non_atomic_requests(using=alias)(view)
        return view

    def statistics_view(self, request: HttpRequest) -> HttpResponse:
        """Counts, shares and times of the messages of a range of days."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        title = gettext("Statistics of SMS messages")
        shown = _page("statistics").page(request.GET)
        return self.page(request, "statistics", title, list_url=self._url("changelist"), **shown)

    def action_view(self, request: HttpRequest, action: Action) -> HttpResponse:
        """GET shows what would be done with the messages ``pks``; POST does it."""
        if not self._may(request, action.permission):
            raise PermissionDenied
        if request.method != "POST":
            return self._ask(
                request, action, self._chosen(request, read_keys(request.GET.get("pks", "")))
            )
        keys = read_keys(request.POST.get("pks", ""))
        self._carry_out(request, action, keys)
        if len(keys) == 1:
            return HttpResponseRedirect(self._back(request, self._url("change", keys[0])))
        return HttpResponseRedirect(self._back(request, self._url("changelist")))

    def _chosen(self, request: HttpRequest, keys: list[int]) -> QuerySet[SmsMessage]:
        return self.get_queryset(request).using(write_db()).filter(pk__in=keys)

    def _back(self, request: HttpRequest, url: str) -> str:
        filters = self.get_preserved_filters(request)
        return str(add_preserved_filters({"preserved_filters": filters, "opts": self.opts}, url))

    def _ask(
        self, request: HttpRequest, action: Action, chosen: QuerySet[SmsMessage]
    ) -> HttpResponse:
        plan = Plan(action, chosen)
        if plan.too_many:
            words = gettext("Choose at most %s messages, for example by a filter.") % plan.limit
            self.message_user(request, words, messages.ERROR)
            return HttpResponseRedirect(self._back(request, self._url("changelist")))
        listed = list(chosen.filter(pk__in=plan.first))
        if not all(self._may(request, action.permission, message) for message in listed):
            raise PermissionDenied
        one = len(plan.chosen) == 1
        back = self._url("change", plan.chosen[0]) if one else self._url("changelist")
        return self.page(
            request,
            "confirm",
            action.label,
            action=action,
            plan=plan,
            listed=[
                (
                    permissions.Unlogged(permissions.number_for(request.user, message)),
                    permissions.Unlogged(
                        Truncator(permissions.text_for(request.user, message)).chars(60)
                    ),
                    message.segments,
                )
                for message in listed
            ],
            action_url=self._back(request, self._url(action.name)),
            back_url=self._back(request, back),
        )

    def _carry_out(self, request: HttpRequest, action: Action, keys: list[int]) -> None:
        """Do the action, note it in each message's history, and tell what became of how many."""
        at_once = action.hand_over is None or len(keys) <= conf.send_at_once()
        work = self._one_by_one if at_once else self._in_bulk
        groups: dict[Outcome, list[int]] = defaultdict(list)
        for start in range(0, len(keys), BATCH):
            for key, outcome in self._outcomes(work, request, action, keys[start : start + BATCH]):
                groups[outcome].append(key)
        for outcome, done in groups.items():
            self.message_user(request, self._summary(outcome, done), outcome.level)
        if not groups:
            self.message_user(request, _("There was nothing to do."), messages.WARNING)

    def _outcomes(
        self, work: Callable[..., Any], request: HttpRequest, action: Action, keys: list[int]
    ) -> Iterator[tuple[int, Outcome]]:
        """One for each message, also where the database goes away among them: what was sent and is
        paid for must be reported."""
        left = dict.fromkeys(keys)
        try:
            for key, outcome in work(request, action, keys):
                del left[key]
                yield key, outcome
        except Exception as error:
            outcome = crashed(list(left), error)
            yield from ((key, outcome) for key in left)

    def _one_by_one(
        self, request: HttpRequest, action: Action, keys: list[int]
    ) -> Iterator[tuple[int, Outcome]]:
        failing: set[str] = set()
        for message in self._chosen(request, keys).order_by("pk"):
            may = partial(self._may, request, action.permission, message)
            outcome = run_action(action, message, request.user, may, failing)
            if outcome is not SKIPPED:
                log(request.user, [message], str(outcome))
            yield message.pk, outcome

    def _in_bulk(
        self, request: HttpRequest, action: Action, keys: list[int]
    ) -> Iterator[tuple[int, Outcome]]:
        try:
            moved = self._hand_over_all(request, action, keys)
        except Exception as error:  # one of them ended the query of all
            logger.error("handing over %s messages: %s", len(keys), type(error).__name__)
            yield from self._one_by_one(request, hand_over_one(action), keys)
            return
        for key in keys:
            yield key, action.handed_over if key in moved else SKIPPED

    def _hand_over_all(self, request: HttpRequest, action: Action, keys: list[int]) -> set[Any]:
        """Hand over those that fit, in one transaction; return their keys."""
        assert action.hand_over is not None
        with transaction.atomic(using=write_db()):
            chosen = self._chosen(request, keys).filter(status__in=action.handed_from)
            fit = [
                message
                for message in chosen.select_for_update().only("pk", "to", "status")
                if self._may(request, action.permission, message)
            ]
            moved = {message.pk for message in fit}
            action.hand_over(rows(moved))
            log(request.user, fit, str(action.handed_over))
        return moved

"""The admin of providers."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .. import circuit_breaker, kill_switch
from ..models import ProviderState, rows
from ..providers import providers
from ..states import Status
from . import balances, permissions
from .actions import log
from .guard import ReadOnlyAdmin
from .wording import (
    balance_words,
    error_words,
    paused_words,
    stop_of,
    stopped_words,
)


@admin.register(ProviderState)
class ProviderStateAdmin(ReadOnlyAdmin):
    """What the workers know about each provider, read-only."""

    list_display = ("alias", "state", "paused_at", "credits", "failures", "worker_seen_at")
    sortable_by = ()
    fields = (*list_display, "probe_at", "details")
    needs = {**ReadOnlyAdmin.needs, **dict.fromkeys(("stop", "balances"), ("view", "stop"))}

    def get_queryset(self, request: HttpRequest) -> QuerySet[ProviderState]:
        return super().get_queryset(request).exclude(alias=kill_switch.EVERY)

    def has_stop_permission(self, request: HttpRequest) -> bool:
        may = permissions.may(request.user, "stop", self.opts)
        return may and self.has_view_permission(request)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        links = [
            (self.url("balances"), _("Balances and pauses…")),
            (self.url("stop"), _("Stop or resume…")),
        ]
        shown = {"links": links if self.has_stop_permission(request) else []}
        return super().changelist_view(request, {**shown, **(extra_context or {})})

    def url(self, name: str) -> str:
        site = self.admin_site.name
        return reverse(f"admin:django_smska_providerstate_{name}", current_app=site)

    def own_urls(self) -> list[URLPattern]:
        stop = self.admin_site.admin_view(self.stop_view)
        asking = self.without_transaction(self.balances_view)
        return [
            path("stop/", stop, name="django_smska_providerstate_stop"),
            path("balances/", asking, name="django_smska_providerstate_balances"),
        ]

    def stop_view(self, request: HttpRequest) -> HttpResponse:
        """Answer GET by what is stopped, and POST by stopping or resuming one provider, or all."""
        if not self.has_stop_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            self._stop_or_resume(request)
            return HttpResponseRedirect(self.url("stop"))
        stops = kill_switch.stops()
        aliases = dict.fromkeys([kill_switch.EVERY, *providers, *stops])
        return self.page(
            request,
            "stop",
            gettext("Stop or resume sending"),
            lines=[_line(alias, stops) for alias in aliases],
            action_url=self.url("stop"),
            list_url=self.url("changelist"),
        )

    def _stop_or_resume(self, request: HttpRequest) -> None:
        alias = request.POST.get("alias", "")
        every = alias == kill_switch.EVERY
        if "_stop" in request.POST and (every or alias in providers):
            kill_switch.stop(alias, by=request.user.get_username())
            words = gettext("Sending through “%(name)s” is stopped.") % {"name": alias}
            words = gettext("All sending is stopped.") if every else words
        elif "_resume" in request.POST and alias in kill_switch.stops():
            kill_switch.resume(alias)
            words = gettext("The stop of “%(name)s” is ended.") % {"name": alias}
            words = gettext("The stop of all sending is ended.") if every else words
        else:
            self.message_user(request, _("There was nothing to do."), messages.WARNING)
            return
        self.message_user(request, words, messages.SUCCESS)
        log(request.user, list(circuit_breaker.states_of([alias])), words)

    def balances_view(self, request: HttpRequest) -> HttpResponse:
        """Answer GET by the balances that are known, and POST by asking one provider."""
        if not self.has_stop_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            self._ask(request)
            return HttpResponseRedirect(self._back(request))
        states = [circuit_breaker.state_of(alias) for alias in providers]
        return self.page(
            request,
            "balances",
            gettext("Balances and pauses"),
            lines=[{**balances.line_of(one), "state": self.state(one)} for one in states],
            action_url=self.url("balances"),
            list_url=self.url("changelist"),
        )

    def _ask(self, request: HttpRequest) -> None:
        alias = request.POST.get("alias", "")
        if alias in providers:
            self.message_user(request, *balances.ask(request.user, alias))
        else:
            self.message_user(request, _("There was nothing to do."), messages.WARNING)

    def _back(self, request: HttpRequest) -> str:
        """Return where the button was: in the list of messages, or on this page."""
        if "_list" not in request.POST or not permissions.may_view(request.user):
            return self.url("balances")
        site = self.admin_site.name
        return reverse("admin:django_smska_smsmessage_changelist", current_app=site)

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        """Return a provider to show. Its gateway's text may repeat what was sent."""
        state = super().get_object(request, object_id, from_field)
        if state is not None:
            state.detail = permissions.detail_for(request.user, state, state.detail)
        return state

    @admin.display(description=_("state"))
    def state(self, obj: ProviderState) -> Any:
        if obj.alias not in providers:
            return _("not in the settings")
        if stopped := stop_of(obj.alias):
            return stopped
        if not obj.is_paused:
            return _("works")
        return format_html(gettext("paused: {}"), paused_words(obj))

    @admin.display(description=_("balance"))
    def credits(self, obj: ProviderState) -> Any:
        return balance_words(obj)

    @admin.display(description=_("details"))
    def details(self, obj: ProviderState) -> str:
        return error_words(obj.detail) or self.get_empty_value_display()


def _line(alias: str, stops: dict[str, ProviderState | None]) -> dict[str, Any]:
    """Return the line of one provider, or of all of them, on the page that stops sending."""
    queued = rows().filter(status=Status.QUEUED)
    mine = queued if alias == kill_switch.EVERY else queued.filter(using=alias)
    return {
        "alias": alias,
        "name": str(ProviderState(alias=alias)),
        "queued": mine.count(),
        "stopped": stopped_words(stops[alias]) if alias in stops else "",
        "by_setting": alias in stops and stops[alias] is None,
    }

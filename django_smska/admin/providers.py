"""The admin of providers."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..exceptions import SAID
from ..models import ProviderState
from ..providers import providers
from . import permissions
from .guard import GuardedAdmin
from .wording import balance_words, error_words, paused_words


@admin.register(ProviderState)
class ProviderStateAdmin(GuardedAdmin):
    """What the workers know about each provider, read-only."""

    list_display = ("alias", "state", "paused_at", "credits", "failures", "worker_seen_at")
    sortable_by = ()
    fields = (*list_display, "probe_at", "details")

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        """Return a provider to show. Its gateway's text may repeat what was sent."""
        state = super().get_object(request, object_id, from_field)
        if state is not None and not permissions.may_see_text(request.user):
            state.detail = state.detail.partition(SAID)[0]
        if state is not None:
            state.detail = permissions.external_text_for(request.user, state, state.detail)
        return state

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description=_("state"))
    def state(self, obj: ProviderState) -> Any:
        if obj.alias not in providers:
            return _("not in the settings")
        if not obj.is_paused:
            return _("works")
        return format_html(gettext("paused: {}"), paused_words(obj))

    @admin.display(description=_("balance"))
    def credits(self, obj: ProviderState) -> Any:
        return balance_words(obj)

    @admin.display(description=_("details"))
    def details(self, obj: ProviderState) -> str:
        return error_words(obj.detail) or self.get_empty_value_display()

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth import get_user_model

from .models import SmsDevice

if TYPE_CHECKING:
    user_model_search_fields: Any
else:
    from django_otp.admin import user_model_search_fields


@admin.register(SmsDevice)
class SmsDeviceAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not subscriptable at run time
    """As django-otp's own: the token is not shown."""

    list_display = ("user", "name", "number", "created_at", "last_used_at", "confirmed")
    list_filter = ("created_at", "last_used_at", "confirmed")
    raw_id_fields = ("user",)
    readonly_fields = ("created_at", "last_used_at")
    fields = ("user", "name", "number", "confirmed", "created_at", "last_used_at")

    def get_search_fields(self, request: Any) -> list[str]:
        user_model: Any = get_user_model()
        names, _help = user_model_search_fields([user_model.USERNAME_FIELD, "email"])
        return [*names, "number"]

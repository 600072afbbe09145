"""The addresses of the webhooks: ``path("sms/", include("django_smska.urls"))``."""

from __future__ import annotations

from django.urls import URLPattern, path

from .webhooks import webhook

app_name = "django_smska"

urlpatterns: list[URLPattern] = [path("<alias>/<key>/<kind>/", webhook, name="webhook")]

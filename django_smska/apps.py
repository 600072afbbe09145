from django.apps import AppConfig
from django.utils.translation import pgettext_lazy


class SmskaConfig(AppConfig):
    name = "django_smska"
    verbose_name = pgettext_lazy("app", "SMS")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks  # noqa: F401  (registers the system checks)

from django.apps import AppConfig
from django.utils.translation import pgettext_lazy


class SmskaConfig(AppConfig):
    name = "django_smska"
    verbose_name = pgettext_lazy("app", "SMS")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django.db.backends.signals import connection_created

        from . import checks  # and registers the system checks

        connection_created.connect(checks.mark_test_run)

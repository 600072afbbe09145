from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class OtpConfig(AppConfig):
    name = "django_smska.adapters.otp"
    label = "smska_otp"
    verbose_name = _("One-time codes by SMS")
    default_auto_field = "django.db.models.BigAutoField"

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ContactsConfig(AppConfig):
    name = "django_smska.contacts"
    label = "smska_contacts"
    verbose_name = _("SMS contacts")
    default_auto_field = "django.db.models.BigAutoField"
    #: What ``django_smska.personal_data`` hands out and erases.
    sms_personal_data = "django_smska.contacts.models.of_number"
    sms_free_texts = {"contact": ("name", "note"), "contactgroup": ("name",)}

"""The admin of messages, sent and received, templates, mailings, providers, erasures and the
do-not-send list.

The modules that read files of numbers are here, too, and the commands use them without the admin.
"""

from django.apps import apps

if apps.is_installed("django.contrib.admin"):
    from .erasures import SmsErasureAdmin
    from .inbound import SmsInboundAdmin
    from .mailings import SmsMailingAdmin
    from .messages import SmsMessageAdmin
    from .opt_outs import SmsOptOutAdmin
    from .providers import ProviderStateAdmin
    from .saved_templates import SmsTemplateAdmin
    from .users import SmsPermissionsMixin

__all__ = [
    "SmsPermissionsMixin",
    "ProviderStateAdmin",
    "SmsErasureAdmin",
    "SmsInboundAdmin",
    "SmsMailingAdmin",
    "SmsMessageAdmin",
    "SmsOptOutAdmin",
    "SmsTemplateAdmin",
]

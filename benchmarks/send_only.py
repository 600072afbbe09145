"""A provider as the bare pool uses it: no delivery report is asked for."""

from django_smska.backends.smska import SmsBackend as _SmsBackend


class SmsBackend(_SmsBackend):
    """Sends as SMS-ka's backend does."""

    gives_reports = False

"""The admin of messages and providers."""

from .messages import SmsMessageAdmin
from .providers import ProviderStateAdmin

__all__ = ["ProviderStateAdmin", "SmsMessageAdmin"]

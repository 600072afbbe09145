"""Signals about messages, sent after the commit.

Each has ``sender=SmsMessage`` and ``message``, but for ``sms_received``; a receiver's exception is
logged and has no other effect.
"""

from django.dispatch import Signal

#: The gateway accepted the message.
sms_sent = Signal()
#: The message was not sent and will not be; ``message.error_text`` says why.
sms_failed = Signal()
#: The status changed to ``new`` from ``old`` (strings): after every attempt and every report.
sms_status_changed = Signal()
#: A phone sent a message to a number of ours: ``sender=SmsInbound`` and ``inbound``, the stored
#: row. Once for each, also where the provider delivers it again.
sms_received = Signal()

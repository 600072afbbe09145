"""Messages as sending leaves them, for pages that only show them."""

from datetime import timedelta

from django_smska.exceptions import InvalidRecipient, SmsOutcomeUnknown
from django_smska.models import SmsMessage
from django_smska.segments import count

ERRORS = {"failed": InvalidRecipient(code="-6"), "unknown": SmsOutcomeUnknown(code="deadline")}
ACCEPTED = ("sent", "delivered", "rejected", "expired", "deleted", "unconfirmed")
BEGUN = (*ACCEPTED, "sending", "failed", "unknown")


def message(to, body, status, at, *, ended_after=20, **fields):
    """Return an unsaved message of this status that was written ``at``.

    ``ended_after``: the seconds until its final status.
    """
    size = count(body)
    begun, accepted = status in BEGUN, status in ACCEPTED
    ended = accepted and status != "sent" or status in ("failed", "cancelled")
    error = ERRORS.get(status)
    times = {
        "created_at": at,
        "send_after": at,
        "expires_at": at + timedelta(days=1),
        "lease_until": at + timedelta(days=100),
        "sending_at": at + timedelta(seconds=1) if begun else None,
        "sent_at": at + timedelta(seconds=2) if accepted else None,
        "finished_at": at + timedelta(seconds=ended_after) if ended else None,
    }
    return SmsMessage(
        to=to,
        body=body,
        status=status,
        segments=size.segments,
        encoding=size.encoding,
        attempts=int(begun),
        error_code=error.code if error else "",
        error_text=str(error) if error else "",
        **times,
        **fields,
    )

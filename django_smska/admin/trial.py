"""The test message of the page for writing: its text, sent to the writer's own phone before the
others get it.

It belongs to no mailing. The page remembers the number by the user's newest test message.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.widgets import AdminTextInputWidget
from django.contrib.messages import constants
from django.db import connections
from django.http import HttpRequest
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..forms import PhoneField
from ..models import SmsMessage, SmsMessageQuerySet, rows, write_db
from ..sms import send_sms
from ..states import Status
from ..times import local
from .action_views import ActionAdmin
from .actions import Outcome, log, outcome_of
from .compose_form import ComposeForm
from .forms import UnloggedErrors
from .permissions import Unlogged, grouped, may_see_number
from .wording import error_words

BUTTON = "_test"
MAX_TRIES = 20  # of one text to one number that were definitely not sent
_GOING = frozenset({Status.QUEUED, Status.CLAIMED, Status.SENDING})
_NOT_SENT = frozenset({Status.FAILED, Status.CANCELLED})


class TrialForm(forms.Form):
    """The number of the user's own phone."""

    # It stands in the form of the page, whose other buttons need no number.
    use_required_attribute = False

    test_number = PhoneField(
        label=_("My number"),
        help_text=_(
            "The text goes to this number now, apart from the others. It costs money, too."
        ),
        widget=AdminTextInputWidget(
            attrs={
                "type": "tel",
                "inputmode": "tel",
                "autocomplete": "tel",
                "form": "smska-check",
                "aria-describedby": "smska-test-help",
            }
        ),
    )


@dataclass(frozen=True)
class Trial:
    """What the page shows of the test.

    :ivar words: what became of it; "" before the button was pressed
    :ivar level: of these words, as messages have it
    :ivar url: of the message, where one is stored
    """

    form: TrialForm
    words: str = ""
    level: str = ""
    url: str = ""


def answer(request: HttpRequest, model_admin: ActionAdmin, form: ComposeForm) -> Trial | None:
    """Send the test where its button was pressed, and return what the page shows; None where no
    recipient has a text yet.

    :param form: valid, with the text to send
    """
    if not form.given:
        return None
    if BUTTON not in request.POST:
        typed = request.POST.get("test_number") or remembered(request.user)
        return Trial(TrialForm(initial={"test_number": Unlogged(typed)}))
    asked = TrialForm(request.POST, error_class=UnloggedErrors)
    # The page is long: without this, its answer would be out of sight.
    asked.fields["test_number"].widget.attrs["autofocus"] = True
    if not asked.is_valid():
        asked.fields["test_number"].widget.attrs["aria-invalid"] = "true"
        return Trial(asked)
    message, outcome = _send(request.user, form, asked.cleaned_data["test_number"])
    url = model_admin.url("change", message.pk) if message.pk is not None else ""
    words = f"{outcome.what}: {outcome.why}" if outcome.why else str(outcome.what)
    return Trial(asked, Unlogged(words), constants.DEFAULT_TAGS[outcome.level], url)


def prefix(user: Any) -> str:
    """Return how the idempotency keys of a user's test messages begin. The key of a user may be a
    name or a number, so that it is hashed."""
    return f"test-{hashlib.sha256(str(user.pk).encode()).hexdigest()[:16]}-"


def remembered(user: Any) -> str:
    """Return the number of the user's newest test message, or "" for a user who may see none."""
    if not may_see_number(user):
        return ""
    # Sorted here, because a database may otherwise read the whole table from its end.
    found = _tests_of(user).filter(erased_at=None).order_by().values_list("pk", "to")
    return max(found, default=(0, ""))[1]


def _tests_of(user: Any) -> SmsMessageQuerySet:
    begins = prefix(user)
    found = rows().filter(idempotency_key__startswith=begins)
    if connections[write_db()].vendor == "sqlite":  # whose LIKE reads every row
        found = found.filter(idempotency_key__gte=begins, idempotency_key__lt=f"{begins}~")
    return found


def text_of(form: ComposeForm) -> str:
    """Return the text to try: that of the first number, also if it is on the do-not-send list, or
    the text would show that it is."""
    return form.stored_text_for(next(iter(form.given), ""))


def _send(user: Any, form: ComposeForm, number: str) -> tuple[SmsMessage, Outcome]:
    """Send it, unless the same form has sent the same text to this number; return the message, and
    what became of it."""
    content: dict[str, Any] = {
        "body": text_of(form),
        **{name: form.cleaned_data[name] for name in ("sender", "using")},
    }
    key, known = _key(user, form.cleaned_data["nonce"], number, content)
    if known is not None:
        return known, _outcome(known, again=True)
    try:
        message = send_sms(number, **content, idempotency_key=key, created_by=user, exempt=True)
        outcome = _outcome(message)
    except Exception as error:
        message = rows().filter(idempotency_key=key).first() or SmsMessage(to=number, **content)
        outcome = outcome_of(message, error)
    if message.pk is not None:
        log(user, [message], gettext("Test from the page for writing: %s") % outcome)
    return message, outcome


def _key(
    user: Any, nonce: str, number: str, content: dict[str, Any]
) -> tuple[str, SmsMessage | None]:
    """Return the key of the next try, and the message that makes another try one too many: of what
    was definitely not sent there may be another."""
    hashed = hashlib.sha256(chr(0).join([nonce, number, *content.values()]).encode()).hexdigest()
    keys = [f"{prefix(user)}{hashed}-{index}" for index in range(MAX_TRIES)]
    tried = {one.idempotency_key: one for one in rows().filter(idempotency_key__in=keys)}
    last = None
    for key in keys:
        last = tried.get(key, last)
        if key not in tried:
            return key, last if last is not None and last.status not in _NOT_SENT else None
    return keys[-1], last


def _outcome(message: SmsMessage, *, again: bool = False) -> Outcome:
    """Return what became of a stored test.

    :param again: it was stored before, and the button has sent nothing now
    """
    parts = {"number": grouped(str(message.to)), "why": error_words(message.error_text)}
    parts["time"] = _time(message.sent_at) if message.sent_at else ""
    status = message.get_status_display()  # its history shows no number
    if message.status in _GOING:
        words = gettext("It is being sent to %(number)s.")
        return Outcome(words % parts, level=messages.INFO, history=status)
    if message.status == Status.UNKNOWN:
        words = gettext("Unknown whether it was sent to %(number)s. %(why)s")
        return Outcome(words % parts, level=messages.ERROR, history=status)
    if message.status in _NOT_SENT:
        words = gettext("Not sent to %(number)s. %(why)s")
        return Outcome(words % parts, level=messages.ERROR, history=status)
    words = (
        gettext("It was sent to %(number)s already, at %(time)s. It is not sent twice.")
        if again
        else gettext("Sent at %(time)s to %(number)s.")
    )
    return Outcome(words % parts, history=status)


def _time(moment: Any) -> str:
    at = local(moment)
    is_today = at.date() == local(timezone.now()).date()
    return date_format(at, "TIME_FORMAT" if is_today else "SHORT_DATETIME_FORMAT")

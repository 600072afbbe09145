"""One-time codes by SMS: send one, check what the visitor types.

The code is kept in the session as a keyed hash, with its expiry and the wrong tries. (Keep sessions
on the server, as is Django's default: one in a cookie could be played back with its tries undone.)

Anybody can press "send me a code", and each costs money. ``SMSKA_LIMITS`` bounds how often: per
number, with a wait that grows from code to code, and per visitor, since the view is decorated with
``limit_visitors``. So one visitor cannot close the form for all others.
"""

import secrets
from datetime import timedelta
from typing import Any

from django.contrib.sessions.backends.base import SessionBase
from django.utils import timezone
from django.utils.crypto import constant_time_compare, salted_hmac
from django.utils.translation import gettext
from django.views.decorators.debug import sensitive_variables

from django_smska import sms
from django_smska.models import SmsMessage

LIFE = timedelta(minutes=5)
TRIES = 3

SESSION = "sms_code"


@sensitive_variables("code", "text")
def send_code(session: SessionBase, number: str) -> SmsMessage:
    """Send a new code, and return its message; the one before is void.

    What ``sms.send_code`` raises was not sent, so that the code before stays good.
    """
    code = f"{secrets.randbelow(1_000_000):06d}"
    text = f"{code} – ваш код. Никому его не говорите."
    expires = timezone.now() + LIFE
    message = sms.send_code(number, text, code=code, valid_for=LIFE)
    session[SESSION] = {
        "number": number,
        "hash": _hash(number, code),
        "expires": expires.timestamp(),
        "tries": 0,
    }
    return message


def _hash(number: str, code: str) -> str:
    return salted_hmac("shop.codes", f"{number}/{code}", algorithm="sha256").hexdigest()


def pending_number(session: SessionBase) -> str:
    """The number that a code was sent to, or nothing."""
    return (session.get(SESSION) or {}).get("number", "")


def check_code(session: SessionBase, typed: str) -> str:
    """Return what is wrong with the code as a sentence, or nothing if it is right.

    A right code is used up. Requests at the same instant may each count as the same try: a handful
    of guesses out of a million.
    """
    sent: dict[str, Any] | None = session.get(SESSION)
    if sent is None:
        return gettext("Ask for a code first.")
    if sent["tries"] >= TRIES:
        return gettext("Too many wrong tries: this code is locked. Ask for another.")
    if timezone.now().timestamp() >= sent["expires"]:
        return gettext("This code has expired. Ask for another.")
    if constant_time_compare(sent["hash"], _hash(sent["number"], typed.strip())):
        del session[SESSION]
        return ""
    session[SESSION] = {**sent, "tries": sent["tries"] + 1}
    left = TRIES - sent["tries"] - 1
    return gettext("This is not the code. Tries left: %s.") % left if left else _locked_now()


def _locked_now() -> str:
    return gettext("This is not the code, and it is locked now. Ask for another.")

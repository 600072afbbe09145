"""One-time codes by SMS: send one, check what the visitor types.

The code is kept in the session as a keyed hash, with its expiry and the wrong tries. (Keep sessions
on the server, as is Django's default: one in a cookie could be played back with its tries undone.)

Anybody can press "send me a code", and each costs money. How often is counted in the messages
themselves, so the limits hold for all processes and outlive a restart, whatever a visitor does to
cookies.
"""

import secrets
from datetime import timedelta
from typing import Any

from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.crypto import constant_time_compare, salted_hmac
from django.views.decorators.debug import sensitive_variables

from django_smska.models import SmsMessage
from django_smska.sms import send_sms

LIFE = timedelta(minutes=5)
COOL_DOWN = 60  # seconds between two codes to one number
A_DAY_TO_ONE_NUMBER = 5
AN_HOUR_IN_ALL = 100  # put a CAPTCHA before the form if your shop needs more
TRIES = 3

KEY = "code/"  # begins the idempotency key of every code
SESSION = "sms_code"


class TooMany(Exception):
    """No code is sent now; the text says so to the visitor."""


@sensitive_variables("code", "text")
def send_code(session: SessionBase, number: str) -> None:
    """Send a new code; the one before is void. Raises ``TooMany``, and all that ``send_sms`` does.

    Two requests in the same minute have the same key, so that only one is sent, even if they come
    at the same instant.
    """
    _refuse_too_many(number)
    code = f"{secrets.randbelow(1_000_000):06d}"
    text = f"{code} – ваш код. Никому его не говорите."
    now = timezone.now()
    expires = now + LIFE
    before = session.get(SESSION)
    _remember(session, number, code, expires.timestamp())
    key = f"{KEY}{number}/{int(now.timestamp()) // COOL_DOWN}"
    try:
        send_sms(number, text, expires_at=expires, idempotency_key=key)
    except ValidationError as error:
        if "idempotency_key" not in error.message_dict:
            raise
        session[SESSION] = before  # another request of this minute sent another code
        raise TooMany(
            "A code was sent a moment ago. Wait a minute before you ask for another."
        ) from None


def _remember(session: SessionBase, number: str, code: str, expires: float) -> None:
    """Before sending: even if the outcome is unknown, the code may arrive and must be good."""
    session[SESSION] = {
        "number": number,
        "hash": _hash(number, code),
        "expires": expires,
        "tries": 0,
    }


def _hash(number: str, code: str) -> str:
    return salted_hmac("shop.codes", f"{number}/{code}", algorithm="sha256").hexdigest()


def _refuse_too_many(number: str) -> None:
    now = timezone.now()
    codes = SmsMessage.objects.filter(idempotency_key__startswith=KEY)
    mine = codes.filter(to=number)
    if mine.filter(created_at__gt=now - timedelta(seconds=COOL_DOWN)).exists():
        raise TooMany("A code was sent a moment ago. Wait a minute before you ask for another.")
    if mine.filter(created_at__gt=now - timedelta(days=1)).count() >= A_DAY_TO_ONE_NUMBER:
        raise TooMany("This number got too many codes today. Come back tomorrow.")
    if codes.filter(created_at__gt=now - timedelta(hours=1)).count() >= AN_HOUR_IN_ALL:
        raise TooMany("Too many people ask for codes just now. Try again in an hour.")


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
        return "Ask for a code first."
    if sent["tries"] >= TRIES:
        return "Too many wrong tries: this code is locked. Ask for another."
    if timezone.now().timestamp() >= sent["expires"]:
        return "This code has expired. Ask for another."
    if constant_time_compare(sent["hash"], _hash(sent["number"], typed.strip())):
        del session[SESSION]
        return ""
    session[SESSION] = {**sent, "tries": sent["tries"] + 1}
    left = TRIES - sent["tries"] - 1
    return f"This is not the code. Tries left: {left}." if left else _locked_now()


def _locked_now() -> str:
    return "This is not the code, and it is locked now. Ask for another."

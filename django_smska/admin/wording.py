"""The admin's texts about statuses, errors and providers: one table for each."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from django.template.defaultfilters import floatformat
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from .. import circuit_breaker, clock, held_queue, kill_switch, pricing, sending
from ..checked_backend import traits
from ..exceptions import AGAIN, AT, SAID
from ..models import REPORTED, ProviderState, SmsMessage
from ..receipts import CREDITS, MONEY
from ..states import Status
from ..times import clock_time, local

# --- statuses -------------------------------------------------------------------------------------

#: The mark of each status: the sign of its badge, and the colour of its bars.
MARKS = {
    Status.DRAFT: "waiting",
    Status.QUEUED: "waiting",
    Status.CLAIMED: "moving",
    Status.SENDING: "moving",
    Status.SENT: "moving",
    Status.DELIVERED: "good",
    Status.UNCONFIRMED: "doubt",
    Status.UNKNOWN: "doubt",
    Status.FAILED: "bad",
    Status.REJECTED: "bad",
    Status.EXPIRED: "bad",
    Status.DELETED: "bad",
    Status.CANCELLED: "over",
}


# --- money ----------------------------------------------------------------------------------------


def money(amount: Decimal, currency: str) -> str:
    """Return an amount as people write it, without zeros at its end: ``2.50 RUB``, ``0.0079 USD``.

    :param currency: empty where the provider names none
    """
    digits: Any = amount.normalize().as_tuple().exponent
    number = number_format(amount, max(2, -digits), use_l10n=True, force_grouping=True)
    return f"{number}\N{NO-BREAK SPACE}{currency}".strip()


def time_left_words(seconds: float) -> str:
    """Return a time as people say it: minutes, or hours."""
    minutes = max(round(seconds / 60), 1)
    if minutes < 90:
        return ngettext("about %s minute left", "about %s minutes left", minutes) % minutes
    hours = round(minutes / 60)
    return ngettext("about %s hour left", "about %s hours left", hours) % hours


def amount(number: Decimal, unit: str) -> str:
    """Return an amount with the word for what it counts: ``831 credits``, ``17.50 RUB``.

    :param unit: as ``pricing.unit_of_balance`` has it
    """
    shown = floatformat(number, -2)
    if unit == CREDITS:
        # Where plurals have several forms, a fraction has that of two.
        whole = number == number.to_integral_value()
        count = int(abs(number)) if whole else 2
        words = ngettext("%(number)s credit", "%(number)s credits", count)
    elif unit == MONEY:
        words = gettext("%(number)s in the account's currency")
    elif not unit:
        words = gettext("%(number)s (unit not known)")
    else:
        return money(number, unit)
    return words % {"number": shown}


# --- failures -------------------------------------------------------------------------------------


class Failure(NamedTuple):
    """The words for a failure.

    :param short: what happened, for tables
    :param advice: what happened and what to do now
    """

    short: Any
    advice: Any


_LOGIN = Failure(
    _("The gateway refuses this site's login"),
    _(
        "The gateway refuses this site's login. Ask your administrator to correct it, then choose "
        "“Send again”."
    ),
)
_SENDER_NOT_ALLOWED = _("The sender name is not allowed")
_BUSY = Failure(
    _("The gateway was out of order or too busy"),
    _("The gateway was out of order or too busy. Choose “Send again” a little later."),
)
_NUMBER = Failure(
    _("The gateway does not accept the number"),
    _("The gateway does not accept the number. Check it, and write a new message."),
)
_UNREACHABLE = Failure(
    _("The gateway could not be reached"),
    _(
        "The gateway could not be reached. Choose “Send again” later. If that fails, too, ask "
        "your administrator."
    ),
)
_STOPPED = Failure(
    _("This site had an error before it was sent"),
    _(
        "This site had an error before it was sent. Choose “Send again”. If this happens often, "
        "ask your administrator."
    ),
)
#: Of messages that were not sent, by the error's code or its beginning: the codes of the
#: provider's document, and our own.
FAILURES: dict[str, Failure] = {
    "-1": _LOGIN,
    "-2": Failure(
        _SENDER_NOT_ALLOWED,
        _("This sender name belongs to another account. Write a new message with another one."),
    ),
    "-3": _BUSY,
    "-4": Failure(
        _("The gateway did not understand the request"),
        _("The gateway did not understand the request. Ask your administrator."),
    ),
    "-5": Failure(
        _("The account had too few credits"),
        _("The account had too few credits. Top it up, then choose “Send again”."),
    ),
    "-6": _NUMBER,
    "-7": Failure(
        _SENDER_NOT_ALLOWED,
        _("This sender name is not allowed. Register it with the provider, or use another one."),
    ),
    "http-401": _LOGIN,
    "http-403": _LOGIN,
    "http-429": _BUSY,
    "rate": _BUSY,
    "number": _NUMBER,
    "text": Failure(
        _("It has characters that cannot be sent"),
        _("It has characters that cannot be sent. Write a new message without them."),
    ),
    **dict.fromkeys(("http", "connect", "deadline", "hung-up", "spoke-first"), _UNREACHABLE),
    **dict.fromkeys(("lease", "database", "transaction", "crash", "provider"), _STOPPED),
    "paused": Failure(
        _("The provider was paused"),
        _(
            "The provider was paused. Choose “Send again” when it works again; its page says why "
            "it was paused."
        ),
    ),
    "stopped": Failure(
        _("Sending was stopped"),
        _("Sending was stopped. Choose “Send again” when it is resumed."),
    ),
    "limit": Failure(
        _("A limit of this site was reached"),
        _(
            "A limit of this site was reached. Choose “Send again” tomorrow, or ask your "
            "administrator to raise it (SMSKA_LIMITS)."
        ),
    ),
    "opted-out": Failure(
        _("The number is on the do-not-send list"),
        _("The recipient asked for no messages. Reach them some other way."),
    ),
    "expired": Failure(
        _("It waited too long and was not sent"),
        _(
            "It waited too long and was not sent. If it is still wanted, choose “Send again”. "
            "If this happens often, ask your administrator whether sms_worker is running."
        ),
    ),
    "test": Failure(
        _("Not sent in a test run"),
        _("Only a run of tests ends so. Ask your administrator why this site is in one."),
    ),
    "": Failure(
        _("Not sent for another reason"),
        _(
            "It was not sent. Choose “Send again”. If that fails, too, show your administrator "
            "what the gateway answered."
        ),
    ),
}
#: The other ends that a message may come to without having arrived, for tables.
UNDELIVERED: dict[Status, Any] = {
    Status.REJECTED: _("The recipient's network refused it"),
    Status.EXPIRED: _("The phone could not be reached for too long"),
    Status.DELETED: _("The gateway removed it before it arrived"),
    Status.UNCONFIRMED: _("The gateway never reported whether it arrived"),
    Status.UNKNOWN: _("No clear answer from the gateway"),
}


def failure(code: str) -> Failure:
    """Return the text for an error's code, for its beginning (``http`` of ``http-404``), or for
    all others."""
    return FAILURES.get(code) or FAILURES.get(code.partition("-")[0]) or FAILURES[""]


def undelivered(status: str, code: str) -> Any:
    """Return the short reason why a message of this final or unknown status did not arrive."""
    return failure(code).short if status == Status.FAILED else UNDELIVERED[Status(status)]


# --- what to do now -------------------------------------------------------------------------------

_NO_ID = _(
    "It counts as sent. The gateway gave no ID, so it cannot be asked whether the message "
    "arrived. If it is important, ask the recipient."
)
ADVICE: dict[Status, Any] = {
    Status.DRAFT: _("It is not sent until you choose “Save and send” or “Send”."),
    Status.QUEUED: _("It is waiting for its turn. There is nothing to do."),
    Status.CLAIMED: _("It is being sent right now."),
    Status.SENDING: _("It is being sent right now."),
    Status.SENT: _(
        "The gateway has accepted it and is delivering it. The status will update automatically."
    ),
    Status.DELIVERED: _("It has arrived. There is nothing to do."),
    Status.REJECTED: _(
        "The recipient's network refused it. Check the number, and reach them some other way."
    ),
    Status.EXPIRED: _(
        "The phone could not be reached for too long. Reach them some other way, or choose “Send "
        "again”."
    ),
    Status.DELETED: _("The gateway removed it before it arrived. Ask the provider why."),
    Status.UNCONFIRMED: _(
        "The gateway accepted it and never reported whether it arrived. Most such messages do "
        "arrive. If it is important, ask the recipient."
    ),
    Status.CANCELLED: _("It was cancelled and never sent."),
    Status.UNKNOWN: _(
        "No clear answer came from the gateway. It may or may not have accepted this message, and "
        "it cannot be asked. Ask the recipient, or look at the list of messages in your account at "
        "the gateway, at about the time of “Request to the gateway began”. Then choose “It was "
        "sent” or “Send again”. If you send it again and it was accepted after all, the recipient "
        "gets a second message, and you pay twice."
    ),
}


_IS_ASKED = _(
    "No clear answer came from the gateway. The provider is asked at %(time)s whether it has "
    "accepted this message. Wait for that before you decide."
)
_ASKED_IN_VAIN = _(
    "No clear answer came from the gateway, and the provider was asked in vain about this "
    "message. That is no proof that it was not accepted. Ask the recipient, or look at the list "
    "of messages in your account at the provider, at about the time of “Request to the gateway "
    "began”. Then choose “It was sent” or “Send again”. If you send it again and it was accepted "
    "after all, the recipient gets a second message, and you pay twice."
)
_MAY_BE_REPORTED = _(
    "No clear answer came from the gateway. If it accepted this message, it reports that, usually "
    "within minutes, and the status will update automatically. Wait for that before you decide. If "
    "no report comes, that is no proof that the message was not accepted. Then ask the recipient, "
    "or look for it in the records of the provider, at about the time of “Request to the gateway "
    "began”, and choose “It was sent” or “Send again”. If you send it again and it was accepted "
    "after all, the recipient gets a second message, and you pay twice."
)
_MAY_NOT_DECIDE = _("A colleague with the permission to resend must decide about this message.")
_SENT_AGAIN = _(
    "It was sent again as a new message. If you learn that this one was accepted, too, choose “It "
    "was sent”."
)

_WAITS = _("It is waiting, because sending is stopped. It is sent when a person resumes it.")
_HELD = _(
    "It is held, because no worker was seen for a long time. Choose “Held messages…” above the "
    "list, and release or cancel it."
)
_OPTED_OUT = _(
    "It was cancelled and never sent, because its number is on the do-not-send list. If the "
    "recipient wants messages again, remove the number from the list, and write a new message."
)

#: Where the text is stored no more, so that it cannot be sent again.
_WITHOUT_TEXT: dict[Status, Any] = {
    Status.FAILED: _("It was not sent."),
    Status.EXPIRED: _("The phone could not be reached for too long."),
    Status.UNKNOWN: _(
        "No clear answer came from the gateway. If you learn that the message was accepted, "
        "choose “It was sent”."
    ),
}

LATE_QUESTION = timedelta(minutes=5)  # after which a question that is due will not be asked soon


def advice(message: SmsMessage, *, may_decide: bool = True) -> str:
    """Return what a person should do about it now.

    :param may_decide: about unknown messages
    """
    if message.status in _WITHOUT_TEXT and (why := sending.lost_text(message)):
        return f"{_WITHOUT_TEXT[Status(message.status)]} {gettext(why)}"
    if sending.was_opted_out(message):
        return str(_OPTED_OUT)
    if message.status == Status.CANCELLED and message.error_code == REPORTED:
        return error_words(message.error_text)
    if message.status == Status.QUEUED and kill_switch.stopped([message.using]):
        return str(_WAITS)
    if held_queue.is_held(message):
        return str(_HELD)
    if message.status == Status.FAILED:
        return str(failure(message.error_code).advice)
    if message.status == Status.UNKNOWN and may_decide and hasattr(message, "resent_as"):
        return str(_SENT_AGAIN)
    if may_decide and sending.is_proved(message):
        return gettext(sending.PROVED)
    if (at := _next_question(message)) is not None:
        return str(_IS_ASKED) % {"time": date_format(local(at), "TIME_FORMAT")}
    if message.status == Status.UNKNOWN and not may_decide:
        return str(_MAY_NOT_DECIDE)
    if message.status == Status.UNKNOWN and message.status_queries:
        return str(_ASKED_IN_VAIN)
    if message.status == Status.UNKNOWN and traits(message.using).proving:
        return str(_MAY_BE_REPORTED)
    if _gets_no_report(message):
        return str(_NO_ID)
    return str(ADVICE[Status(message.status)])


def _gets_no_report(message: SmsMessage) -> bool:
    """Return whether it was sent and there is no way to learn more."""
    without_id = message.status == Status.SENT and not message.gateway_id
    return without_id and not traits(message.using).pushed


def _next_question(message: SmsMessage) -> datetime | None:
    """Return when a worker asks the provider for an *unknown* message; ``None`` also where no
    worker runs, or the provider is paused."""
    at = message.next_status_at if message.status == Status.UNKNOWN else None
    return at if at is not None and at > clock.now() - LATE_QUESTION else None


# --- errors ---------------------------------------------------------------------------------------


def error_words(stored: str) -> str:
    """Return a stored error in the reader's language; the gateway's own text stays as it is."""
    if stored.startswith(sending.LATE):
        late = error_words(stored.removeprefix(sending.LATE))
        return gettext("A late answer: %s") % late
    ours, again, time = stored.partition(AGAIN)
    if again:
        words = gettext("%(why)s The next attempt is possible at %(time)s")
        return words % {"why": gettext(ours), "time": time}
    ours, said, theirs = stored.partition(SAID)
    ours, at, address = ours.partition(AT)
    words = gettext(ours)
    if at:
        words = gettext("%(ours)s Address: %(address)s") % {"ours": words, "address": address}
    if not said:
        return words
    parts = {"ours": words, "theirs": gettext(theirs)}
    return gettext("%(ours)s The gateway said: %(theirs)s") % parts


# --- providers ------------------------------------------------------------------------------------


def balance_words(state: ProviderState) -> str:
    """Return the balance that the gateway reported last, and when."""
    balance = pricing.balance_of(state)
    if balance is None or state.balance_at is None:
        return gettext("not known")
    at = date_format(local(state.balance_at), "SHORT_DATETIME_FORMAT")
    parts = {"balance": amount(balance, pricing.unit_of_balance(state.alias)), "time": at}
    return gettext("%(balance)s, as of %(time)s") % parts


def ask_words(state: ProviderState, *, has_balance: bool = True) -> str:
    """Return the label of the button that asks a provider for its balance; "" where there is
    nothing to ask for."""
    if not state.is_paused:
        return gettext("Ask for the balance") if has_balance else ""
    return gettext("Ask for the balance and try again") if has_balance else gettext("Try again")


def stopped_words(row: ProviderState | None) -> str:
    """Return since when and by whom sending is stopped.

    :param row: of ``kill_switch.stops()``
    """
    if row is None:
        return gettext("stopped by the setting SMSKA_STOPPED")
    since = date_format(local(row.stopped_at), "SHORT_DATETIME_FORMAT") if row.stopped_at else ""
    words = gettext("stopped since %(time)s by %(who)s")
    return words % {"time": since, "who": row.stopped_by}


def nothing_sent_words(alias: str, row: ProviderState | None) -> str:
    """Return a sentence that says so of one provider, or of every one."""
    words = gettext("Nothing is sent through “%(name)s”: %(why)s.")
    if alias == kill_switch.EVERY:
        words = gettext("Nothing is sent through any provider: %(why)s.")
    return words % {"name": alias, "why": stopped_words(row)}


def _stop_of(alias: str) -> tuple[str, ProviderState | None] | None:
    """Return what is stopped, this provider or every one, and its row."""
    stops = kill_switch.stops()
    return next(((one, stops[one]) for one in (kill_switch.EVERY, alias) if one in stops), None)


def stop_of(alias: str) -> str:
    """Return why nothing is sent through this provider, also where every one is stopped; "" where
    it is not stopped."""
    found = _stop_of(alias)
    return stopped_words(found[1]) if found else ""


def nothing_sent_through(alias: str) -> str:
    """Return the same as a sentence."""
    found = _stop_of(alias)
    return nothing_sent_words(*found) if found else ""


def paused_words(state: ProviderState) -> str:
    """Return why it is paused, what to do, and when it is tried again; "" where it is not."""
    if not state.is_paused:
        return ""
    pause = circuit_breaker.PAUSES.get(state.reason)
    words = (
        [gettext(pause.why), pause.advice and gettext(pause.advice)] if pause else [state.reason]
    )
    if state.probe_at is not None and state.probe_at > timezone.now():
        words.append(gettext("It is tried again at %s.") % clock_time(state.probe_at))
    else:
        words.append(gettext("The next message tries it again."))
    return " ".join(one for one in words if one)

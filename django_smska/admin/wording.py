"""The admin's texts about statuses, errors and providers: one table for each."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple

from django.template.defaultfilters import floatformat
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.translation import get_language, gettext, ngettext
from django.utils.translation import gettext_lazy as _

from .. import circuit_breaker, kill_switch, pricing, sending
from ..exceptions import AGAIN, AT, SAID
from ..models import ProviderState
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


def number_words(number: int) -> str:
    """Return a number as this language writes it."""
    return number_format(number, use_l10n=True, force_grouping=True)


# --- money ----------------------------------------------------------------------------------------


#: By ISO code; those that several currencies have are of the one that most people mean.
CURRENCY_SIGNS = {
    "RUB": "\N{RUBLE SIGN}",
    "EUR": "\N{EURO SIGN}",
    "USD": "$",
    "GBP": "\N{POUND SIGN}",
    "KZT": "\N{TENGE SIGN}",
    "UAH": "\N{HRYVNIA SIGN}",
    "TRY": "\N{TURKISH LIRA SIGN}",
    "INR": "\N{INDIAN RUPEE SIGN}",
}


def money(amount: Decimal, currency: str) -> str:
    """Return an amount as people write it, without zeros at its end: ``$0.0079``, in Russian
    ``2,50 ₽``; ``2.50 CHF`` where no sign is known.

    :param currency: empty where the provider names none
    """
    digits: Any = amount.normalize().as_tuple().exponent
    number = number_format(amount, max(2, -digits), use_l10n=True, force_grouping=True)
    sign = CURRENCY_SIGNS.get(currency)
    if sign and (get_language() or "").startswith("en"):
        return f"-{sign}{number[1:]}" if amount < 0 else f"{sign}{number}"
    return f"{number}\N{NO-BREAK SPACE}{sign or currency}".strip()


def time_left_words(seconds: float) -> str:
    """Return a time as people say it: minutes, or hours."""
    minutes = max(round(seconds / 60), 1)
    if minutes < 90:
        return ngettext("about %s minute left", "about %s minutes left", minutes) % minutes
    hours = round(minutes / 60)
    return ngettext("about %s hour left", "about %s hours left", hours) % hours


def amount(number: Decimal, unit: str) -> str:
    """Return an amount with the word for what it counts: ``831 credits``, ``$17.50``.

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
    :param resend_helps: False where the same text to the same number fails again
    """

    short: Any
    advice: Any
    resend_helps: bool = True


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
    _(
        "The gateway does not accept the number. Choose “Copy to a new message”, and correct the "
        "number there."
    ),
    resend_helps=False,
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
        _(
            "This sender name belongs to another account. Choose “Copy to a new message”, and use "
            "another sender name there."
        ),
        resend_helps=False,
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
        _(
            "This sender name is not allowed. Register it with the provider, or choose “Copy to a "
            "new message”, and use another one there."
        ),
        resend_helps=False,
    ),
    "http-401": _LOGIN,
    "http-403": _LOGIN,
    "http-429": _BUSY,
    "rate": _BUSY,
    "number": _NUMBER,
    "text": Failure(
        _("It has characters that cannot be sent"),
        _(
            "It has characters that cannot be sent. Choose “Copy to a new message”, and remove "
            "them there."
        ),
        resend_helps=False,
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

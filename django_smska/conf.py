"""The app's settings, each read when it is called, and SMS providers as URLs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from datetime import time, timedelta
from decimal import Decimal
from difflib import get_close_matches
from math import isfinite
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit
from zoneinfo import ZoneInfo

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import Promise

from . import limit_rules, replies
from .exceptions import InvalidProvider
from .limit_rules import Limits
from .receipts import CREDITS
from .redact import Hidden, contained
from .shapes import is_collection, is_mapping, is_sequence

T = TypeVar("T")
PRICE_LIMIT = 10**6  # of a segment, in any currency
_UNIT = re.compile(f"[A-Z]{{3}}|{CREDITS}")
MAX_DURATION = timedelta(days=36525)  # a date that far ahead is still in the calendar


class WrongPart(Exception):
    """A part of a setting cannot be used; the text says which, and how it is written."""


class Setting(Generic[T]):
    """A setting of this app: called, it returns the value, or the default where there is none.

    Raises ``ImproperlyConfigured`` for a value that cannot be used; a system check reads them all.
    """

    known: ClassVar[dict[str, Setting[Any]]] = {}

    def __init__(self, name: str, default: Any, read: Callable[[Any], T], wanted: str) -> None:
        self.name, self.default, self.read, self.wanted = name, default, read, wanted
        self.known[name] = self

    def __call__(self) -> T:
        value = getattr(settings, self.name, self.default)
        try:
            return self.read(value)
        except WrongPart as error:
            raise ImproperlyConfigured(f"{self.name}: {error}.") from None
        except (TypeError, ValueError, OverflowError):
            words = f"{self.name} must be {self.wanted}, not {repr(value)[:50]}."
            raise ImproperlyConfigured(words) from None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value):
        raise TypeError
    return value


def _seconds(value: Any) -> timedelta:
    wait = value if isinstance(value, timedelta) else timedelta(seconds=_number(value))
    if not timedelta(0) < wait <= MAX_DURATION:
        raise ValueError
    return wait


def _duration(name: str, seconds: int) -> Setting[timedelta]:
    return Setting(name, seconds, _seconds, "a number of seconds above 0, up to a hundred years")


def _whole(name: str, default: int, most: int) -> Setting[int]:
    def read(value: Any) -> int:
        if not 1 <= _number(value) <= most or value != int(value):
            raise ValueError
        return int(value)

    return Setting(name, default, read, f"a whole number from 1 to {most}")


def _credits(value: Any) -> float:
    if _number(value) < 0:
        raise ValueError
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _seconds_or_never(value: Any) -> timedelta | None:
    if value is None or (not isinstance(value, (bool, timedelta)) and value == 0):
        return None
    return _seconds(value)


def _stopped(value: Any) -> frozenset[str]:
    """Return the aliases that are stopped."""
    known = getattr(settings, "SMS_PROVIDERS", {})
    if isinstance(value, bool):
        return frozenset(known if value else ())
    if not is_collection(value):
        raise TypeError
    if unknown := [alias for alias in value if not (isinstance(alias, str) and alias in known)]:
        raise WrongPart(f"{unknown[0]!r} is not in SMS_PROVIDERS")
    return frozenset(value)


def _limits(value: Any) -> Limits:
    try:
        return limit_rules.parse(value)
    except ValueError as error:
        raise WrongPart(str(error)) from None


def _public_url(value: Any) -> str:
    """Return the address of the site without a slash at its end."""
    if value in (None, ""):
        return ""
    if not isinstance(value, str):
        raise TypeError
    parts = urlsplit(value)
    wrong = parts.query or parts.fragment or parts.username or not parts.hostname
    if parts.scheme not in ("http", "https") or wrong or any(map(str.isspace, value)):
        raise ValueError
    return value.rstrip("/")


class Price(NamedTuple):
    """What a segment costs.

    :param unit: three letters (ISO 4217), ``"credits"``, or empty where it is not known
    """

    amount: Decimal
    unit: str


def _prices(value: Any) -> dict[str, Price]:
    if not is_mapping(value):
        raise TypeError
    known = getattr(settings, "SMS_PROVIDERS", {})
    if unknown := [alias for alias in value if alias not in known]:
        raise WrongPart(f"{unknown[0]!r} is not in SMS_PROVIDERS")
    return {str(alias): _price(alias, price) for alias, price in value.items()}


def _price(alias: Any, price: Any) -> Price:
    """Return the price of a segment, from a pair such as ``("3.50", "RUB")``."""
    try:
        amount, unit = price
        found = Price(Decimal(str(amount)), unit if unit == CREDITS else unit.upper())
        if not 0 < found.amount < PRICE_LIMIT or not _UNIT.fullmatch(found.unit):
            raise ValueError
        return found
    except (ArithmeticError, AttributeError, TypeError, ValueError):
        example = f"a price and its unit, such as ('3.50', 'RUB') or (1, '{CREDITS}')"
        raise WrongPart(f"{alias!r} must have {example}") from None


def _stop_words(value: Any) -> frozenset[str]:
    if value is None:
        return frozenset()
    if not (is_collection(value) and all(isinstance(one, str) for one in value)):
        raise TypeError
    return replies.parse(value)


def _choice(name: str, *choices: str) -> Setting[str]:
    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError
        return str(value)

    return Setting(name, choices[0], read, " or ".join(map(repr, choices)))


def _alias(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError
    return value or None


def _dotted_path(value: Any) -> str | None:
    if value in (None, ""):
        return None
    return _path(value)


def _path(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    if not all(map(str.isidentifier, value.split("."))) or "." not in value:
        raise ValueError
    return value


class QuietHours(NamedTuple):
    """When the messages of a mailing are not to leave, by the clock of their recipients.

    :param time_zone: its IANA name
    :param zone_of: the dotted path of a function that knows the zones of numbers, or empty; then
        ``time_zone`` is that of the numbers of which it knows none
    """

    start: time
    until: time
    time_zone: str
    zone_of: str = ""


QUIET_HOURS = {"from": "21:00", "until": "09:00", "time_zone": "Europe/Moscow"}


def _quiet_hours(value: Any) -> QuietHours | None:
    if value is None:
        return None
    if not is_mapping(value):
        raise TypeError
    if unknown := [name for name in value if name not in QUIET_HOURS]:
        raise WrongPart(f"{unknown[0]!r} is not one of {', '.join(map(repr, QUIET_HOURS))}")
    given: dict[str, Any] = {**QUIET_HOURS, **value}
    start, until = (_hour(name, given[name]) for name in ("from", "until"))
    if start == until:
        raise WrongPart("'from' and 'until' are the same time; for no quiet hours, set it to None")
    zone = given["time_zone"]
    if isinstance(zone, str) and "." in zone:
        return QuietHours(start, until, QUIET_HOURS["time_zone"], _path_of_function(zone))
    if not is_time_zone(zone):
        raise WrongPart(f"'time_zone' must be {_ZONE}, not {repr(zone)[:50]}")
    return QuietHours(start, until, zone)


_ZONE = 'the name of a zone, such as "Asia/Omsk", or the dotted path of a function'
_HOUR = re.compile("([01][0-9]|2[0-3]):([0-5][0-9])")


def _hour(name: str, value: Any) -> time:
    found = _HOUR.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise WrongPart(f'{name!r} must be a time such as "21:00", not {repr(value)[:50]}')
    return time(int(found[1]), int(found[2]))


def _path_of_function(value: str) -> str:
    try:
        return _dotted_path(value) or ""
    except ValueError:
        raise WrongPart(f"'time_zone' must be {_ZONE}, not {repr(value)[:50]}") from None


def is_time_zone(name: Any) -> bool:
    """Return whether this is the IANA name of a time zone that this machine knows."""
    try:
        return isinstance(name, str) and bool(ZoneInfo(name).key)
    except (KeyError, ValueError, OSError):  # OSError: the name of a folder
        return False


def _recipients(value: Any) -> list[tuple[Any, str]]:
    """Return pairs of a label and the path of a function. A label of gettext stands in a pair: as
    the key of a dict it is translated at once, when settings cannot be translated yet."""
    if not (is_mapping(value) or is_sequence(value)):
        raise TypeError
    pairs = list(value.items()) if is_mapping(value) else list(value)
    if not all(is_sequence(pair) and len(pair) == 2 for pair in pairs):
        raise TypeError
    if not all(isinstance(label, (str, Promise)) for label, _path in pairs):
        raise WrongPart("each label must be a text")
    return [(label, _path_of(path)) for label, path in pairs]


def _path_of(path: Any) -> str:
    try:
        return _path(path)
    except (TypeError, ValueError):
        example = "the dotted path of a function, such as 'shop.sms.clients'"
        raise WrongPart(f"each label must have {example}") from None


#: Seconds that a worker's claim holds. It must outlast one send.
lease = _duration("SMSKA_LEASE", 120)
#: Seconds after which an unsent message is no longer sent.
expires_after = _duration("SMSKA_EXPIRES_AFTER", 24 * 3600)
#: Seconds that ``send_after`` may lie in the future.
max_ahead = _duration("SMSKA_MAX_AHEAD", 366 * 24 * 3600)
#: Seconds after sending during which delivery reports are polled.
status_window = _duration("SMSKA_STATUS_WINDOW", 72 * 3600)
#: Seconds that ``sms_prune`` keeps finished messages.
keep_for = _duration("SMSKA_KEEP", 180 * 24 * 3600)
#: What ``sms_prune`` does with older ones: delete them, or blank numbers and texts.
prune = _choice("SMSKA_PRUNE", "delete", "blank")
#: Attempts when the gateway says "not now" (-3).
max_attempts = _whole("SMSKA_MAX_ATTEMPTS", 5, 1000)
#: The longest text, in segments; TS 23.040 can number 255.
max_segments = _whole("SMSKA_MAX_SEGMENTS", 10, 255)
#: Messages that the admin sends while a person waits; more go into the queue.
send_at_once = _whole("SMSKA_SEND_AT_ONCE", 5, 1000)
#: The balance below which the admin warns, in whatever unit the account has; 0 for never.
low_balance = Setting("SMSKA_LOW_BALANCE", 100, _credits, "a number of credits, 0 or above")
#: What a segment costs, by provider: ``{"default": ("3.50", "RUB")}``, or ``("1", "credits")``.
#: Where a provider is left out, the prices count that it said lately.
prices = Setting("SMSKA_PRICES", {}, _prices, "a dict of a price and its currency by provider")
#: The alias in ``TASKS`` of the task engine that sends what is queued.
tasks = Setting("SMSKA_TASKS", None, _alias, "an alias of TASKS or None")
#: The dotted path of a function that gives queued messages to any other task engine, see
#: :doc:`/howto/task-engines`.
enqueue = Setting(
    "SMSKA_ENQUEUE",
    None,
    _dotted_path,
    'the dotted path of a function, such as "shop.tasks.enqueue_sms", or None',
)
#: What may be sent at most, see :doc:`/howto/limits`. What the dict leaves out has its default;
#: None turns off one limit, or all.
limits = Setting("SMSKA_LIMITS", limit_rules.DEFAULTS, _limits, "a dict, or None")
#: Whether nothing is sent: True for all providers, or a list of aliases; see
#: :doc:`/howto/stopping`.
stopped = Setting("SMSKA_STOPPED", False, _stopped, "True, False or a list of aliases")
#: Seconds without any worker after which what is due then is held until a person decides; 0 or
#: None for never. See :doc:`/howto/restoring`.
hold_after = Setting(
    "SMSKA_HOLD_AFTER",
    6 * 3600,
    _seconds_or_never,
    "a number of seconds up to a hundred years, 0 or None",
)
#: The address of the site as providers reach it, without a path below its root; see
#: :doc:`/howto/webhooks`.
public_url = Setting(
    "SMSKA_PUBLIC_URL", "", _public_url, 'an address such as "https://shop.example"'
)
#: What a person answers who wants no more messages; an empty list for none. See
#: :doc:`/howto/inbound`.
stop_words = Setting(
    "SMSKA_STOP_WORDS",
    replies.STOP_WORDS,
    _stop_words,
    "a list of words, each with a letter or a digit",
)
#: When the messages of mailings are not to leave, by the clock of their recipients; None for never.
#: See :doc:`/howto/quiet-hours`. What the dict leaves out has its default.
quiet_hours = Setting("SMSKA_QUIET_HOURS", QUIET_HOURS, _quiet_hours, "a dict, or None")
#: Whom staff may choose as recipients, and whose names stand beside numbers: a label that they see,
#: and the dotted path of a function; see :doc:`/howto/recipients`.
recipients = Setting(
    "SMSKA_RECIPIENTS",
    {},
    _recipients,
    'a dict or pairs of labels and dotted paths, such as {"Clients": "shop.sms.clients"}',
)
#: Whether a test run keeps all messages in memory; False lets it use the configured providers.
locmem_in_tests = Setting("SMSKA_LOCMEM_IN_TESTS", True, _flag, "True or False")
#: Whether a test run, with ``SMSKA_LOCMEM_IN_TESTS`` off, may send beyond this machine; see
#: :doc:`/howto/mocking`.
network_in_tests = Setting("SMSKA_NETWORK_IN_TESTS", False, _flag, "True or False")


def unknown_settings() -> list[str]:
    """Return names in the settings that look like this app's, and are not known."""
    ours = [name for name in dir(settings) if name.startswith(("SMSKA_", "SMS_PROVIDER"))]
    return [name for name in ours if name not in (*Setting.known, "SMS_PROVIDERS")]


def secret_keys() -> list[str | bytes]:
    """Return the project's ``SECRET_KEY``, and the older ones of ``SECRET_KEY_FALLBACKS``."""
    return [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]


def uses_time_zones() -> bool:
    """Return ``USE_TZ``: whether times have time zones."""
    return bool(settings.USE_TZ)


#: The environment variable that keeps a test run's child processes from sending: Django's own flag
#: is in memory, which a new process does not share.
TEST_RUN = "SMSKA_TEST_RUN"
_TESTSERVER = "django.core.management.commands.testserver"


_marked_here = False  # whether this process has set the variable


def in_test_run() -> bool:
    """Return whether this process, or one that started it, runs tests; child processes inherit it.

    Tests run between ``setup_test_environment()`` and ``teardown_test_environment()``, in pytest,
    and behind ``manage.py testserver``.
    """
    global _marked_here
    runs = test_environment() is not None
    if _marked_here and not runs:
        os.environ.pop(TEST_RUN, None)
        _marked_here = False
    marked = os.environ.get(TEST_RUN, "") not in ("", "0")
    if runs and not marked:
        os.environ[TEST_RUN] = "1"
        _marked_here = True
    return runs or marked or _TESTSERVER in sys.modules


def test_environment() -> Any:
    """Return what setup_test_environment() keeps until teardown_test_environment(), or None."""
    utils = sys.modules.get("django.test.utils")
    return getattr(getattr(utils, "_TestState", None), "saved_data", None)


def sends_nothing() -> bool:
    """Return whether a process that runs no tests itself keeps all messages in memory."""
    return in_test_run() and test_environment() is None and locmem_in_tests()


# --- SMS_URL --------------------------------------------------------------------------------------


def _listed(value: str) -> list[str]:
    return value.split(",")


_OPTIONS: dict[str, Callable[[str], Any]] = {
    "sender_id": str,
    "senders": _listed,
    "connect_timeout": float,
    "deadline": float,
    "keep_alive": float,
    "proxy": str,
    "ca_bundle": str,
    "rate": str,
}


class _Gateway(NamedTuple):
    """How the URL of a provider becomes the OPTIONS of its backend.

    :param backend: the name of the backend's module
    :param written: what comes behind the scheme, for the error where it does not
    :param login: the options for the URL's user and, where there are two, password
    :param tls: whether ``url`` becomes an https:// address
    :param path: of ``url``, where the URL has none
    :param options: those of the backend alone, which may follow the ``?``
    """

    backend: str
    written: str
    login: tuple[str, ...]
    tls: bool = True
    path: str = ""
    options: tuple[str, ...] = ()


_KANNEL = _Gateway(
    "kannel",
    "username:password@host:port/path",
    ("username", "password"),
    path="/cgi-bin/sendsms",
    options=("smsc",),
)
_SMSKA = _Gateway(
    "smska", "login:password@host/path", ("api_key", "api_password"), path="/api/httppost.php"
)
#: What reaches a provider over HTTP, by the scheme of its URL.
_GATEWAYS = {
    "smska": _SMSKA._replace(tls=False),
    "smskas": _SMSKA,
    "twilio": _Gateway(
        "twilio",
        "account_sid:auth_token@api.twilio.com",
        ("account_sid", "auth_token"),
        options=("messaging_service_sid", "signing_key"),
    ),
    "infobip": _Gateway("infobip", "api_key@host", ("api_key",)),
    "kannel": _KANNEL._replace(tls=False),
    "kannels": _KANNEL,
    "smsc": _Gateway(
        "smsc",
        "login:password@smsc.ru",
        ("login", "password"),
        path="/sys/",
        options=("secret",),
    ),
}


def sms_url(url: str) -> dict[str, Any]:
    """Turn a URL into an entry of ``SMS_PROVIDERS``.

    ``smska://login:password@host/path?sender_id=Name`` (``smskas://`` for TLS),
    ``twilio://account_sid:auth_token@api.twilio.com?sender_id=Name``,
    ``infobip://api_key@host?sender_id=Name``, ``smsc://login:password@smsc.ru?sender_id=Name``,
    ``kannel://username:password@host:port?sender_id=Name`` (``kannels://`` for TLS); the other
    options of the backend may follow.
    ``consolesms://``, ``filesms:///folder``, ``memorysms://``, ``dummysms://``. What logs in is
    percent-encoded where it holds ``:/?#[]@%``. Raises ``InvalidProvider`` without repeating the
    URL, which may hold a password.
    """
    given = Hidden(url=url)
    del url
    entry = contained(lambda: _entry_of(given.url))
    if isinstance(entry, BaseException):
        raise entry
    return entry


def _entry_of(url: Any) -> dict[str, Any]:
    scheme = url.partition(":")[0] if isinstance(url, str) else ""
    if scheme not in _SCHEMES:
        raise _refused(f"it must be a URL that starts with one of: {', '.join(_SCHEMES)}")
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = None  # the error's text repeats the URL
    if parts is None:
        raise _refused("login, password or host hold a character that must be percent-encoded")
    return _SCHEMES[scheme](parts)


def _gateway_entry(parts: SplitResult) -> dict[str, Any]:
    gateway = _GATEWAYS[parts.scheme]
    login = [parts.username, parts.password][: len(gateway.login)]
    more = parts.password and len(gateway.login) == 1
    if parts.fragment or more or not (all(login) and parts.hostname):
        raise _refused(
            f"it must be {parts.scheme}://{gateway.written}, with :/?#[]@% percent-encoded in "
            f"{' and '.join(gateway.written.partition('@')[0].split(':'))}"
        )
    return _entry(
        gateway.backend,
        **dict(zip(gateway.login, (unquote(part or "") for part in login), strict=True)),
        url=_address(parts, gateway),
        **_query_options(parts.query, gateway),
    )


def _address(parts: SplitResult, gateway: _Gateway) -> str:
    """Return the address without the login."""
    try:
        port = parts.port
    except ValueError:
        port = -1
    if port == -1:
        raise _refused("the port after the host must be a number")
    scheme = "https" if gateway.tls else "http"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{scheme}://{host}{f':{port}' if port else ''}{parts.path or gateway.path}"


def _query_options(query: str, gateway: _Gateway) -> dict[str, Any]:
    known: dict[str, Callable[[str], Any]] = {**_OPTIONS, **dict.fromkeys(gateway.options, str)}
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            # Another name may be a piece of a password with a bare "?" or "&".
            misspelt = get_close_matches(name, known, n=1)
            unknown = f"unknown option {name!r}" if misspelt else "an unknown option"
            raise _refused(f"{unknown}; known: {', '.join(known)}")
        try:
            options[name] = known[name](value)
        except ValueError:
            raise _refused(f"{name!r} must be a number of seconds") from None
    return options


def _file_entry(parts: SplitResult) -> dict[str, Any]:
    if parts.netloc or not parts.path:
        raise _refused("a folder needs three slashes: filesms:///var/tmp/sms")
    return _entry("filebased", file_path=unquote(parts.path))


def _plain_entry(name: str) -> Callable[[SplitResult], dict[str, Any]]:
    return lambda parts: _entry(name)


def _entry(name: str, **options: Any) -> dict[str, Any]:
    return {"BACKEND": f"django_smska.backends.{name}.SmsBackend", "OPTIONS": options}


def _refused(why: str) -> InvalidProvider:
    return InvalidProvider(f"SMS_URL cannot be used: {why}.")


_SCHEMES: dict[str, Callable[[SplitResult], dict[str, Any]]] = {
    **dict.fromkeys(_GATEWAYS, _gateway_entry),
    "consolesms": _plain_entry("console"),
    "filesms": _file_entry,
    "memorysms": _plain_entry("locmem"),
    "dummysms": _plain_entry("dummy"),
}

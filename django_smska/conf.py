"""The app's settings, each read when it is called, and SMS providers as URLs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from difflib import get_close_matches
from math import isfinite
from typing import Any, ClassVar, Generic, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from .exceptions import InvalidProvider
from .redact import Hidden, contained

T = TypeVar("T")
MAX_DURATION = timedelta(days=36525)  # a date that far ahead is still in the calendar


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


def _alias(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError
    return value or None


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
#: Attempts when the gateway says "not now" (-3).
max_attempts = _whole("SMSKA_MAX_ATTEMPTS", 5, 1000)
#: The longest text, in segments; TS 23.040 can number 255.
max_segments = _whole("SMSKA_MAX_SEGMENTS", 10, 255)
#: Messages that the admin sends while a person waits; more go into the queue.
send_at_once = _whole("SMSKA_SEND_AT_ONCE", 5, 1000)
#: Credits below which the admin warns; 0 for never.
low_balance = Setting("SMSKA_LOW_BALANCE", 100, _credits, "a number of credits, 0 or above")
#: The alias in ``TASKS`` of the task engine that sends what is queued.
tasks = Setting("SMSKA_TASKS", None, _alias, "an alias of TASKS or None")
#: Whether a test run keeps all messages in memory; False lets it use the configured providers.
locmem_in_tests = Setting("SMSKA_LOCMEM_IN_TESTS", True, _flag, "True or False")


def unknown_settings() -> list[str]:
    """Return names in the settings that look like this app's, and are not known."""
    ours = [name for name in dir(settings) if name.startswith(("SMSKA_", "SMS_PROVIDER"))]
    return [name for name in ours if name not in (*Setting.known, "SMS_PROVIDERS")]


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

_GATEWAY_OPTIONS: dict[str, Callable[[str], Any]] = {
    "sender_id": str,
    "connect_timeout": float,
    "deadline": float,
    "keep_alive": float,
    "proxy": str,
    "ca_bundle": str,
    "rate": str,
}


def sms_url(url: str) -> dict[str, Any]:
    """Turn a URL into an entry of ``SMS_PROVIDERS``.

    ``smska://login:password@host/path?sender_id=Name`` (``smskas://`` for TLS; the other options
    of the backend may follow), ``consolesms://``, ``filesms:///folder``, ``memorysms://``,
    ``dummysms://``. Login and password are percent-encoded where they hold ``:/?#[]@%``. Raises
    ``InvalidProvider`` without repeating the URL, which may hold a password.
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
    if parts.fragment or not (parts.username and parts.password and parts.hostname):
        raise _refused(
            "it must be smska://login:password@host/path, with :/?#[]@% percent-encoded in login "
            "and password"
        )
    try:
        port = parts.port
    except ValueError:
        port = -1
    if port == -1:
        raise _refused("the port after the host must be a number")
    scheme = "https" if parts.scheme == "smskas" else "http"
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    address = f"{scheme}://{host}{f':{port}' if port else ''}{parts.path or '/api/httppost.php'}"
    return _entry(
        "smska",
        api_key=unquote(parts.username),
        api_password=unquote(parts.password),
        url=address,
        **_query_options(parts.query),
    )


def _query_options(query: str) -> dict[str, Any]:
    options = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _GATEWAY_OPTIONS:
            # Another name may be a piece of a password with a bare "?" or "&".
            misspelt = get_close_matches(name, _GATEWAY_OPTIONS, n=1)
            unknown = f"unknown option {name!r}" if misspelt else "an unknown option"
            raise _refused(f"{unknown}; known: {', '.join(_GATEWAY_OPTIONS)}")
        try:
            options[name] = _GATEWAY_OPTIONS[name](value)
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
    "smska": _gateway_entry,
    "smskas": _gateway_entry,
    "consolesms": _plain_entry("console"),
    "filesms": _file_entry,
    "memorysms": _plain_entry("locmem"),
    "dummysms": _plain_entry("dummy"),
}

"""The app-wide settings, one function each, read when called; and SMS providers as URLs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from math import inf
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from .exceptions import InvalidProvider

LONGEST = timedelta(days=36525)


def lease() -> timedelta:
    """``SMSKA_LEASE``: seconds that a claim holds, 120. It must outlast one send."""
    return _duration("SMSKA_LEASE", 120)


def expires_after() -> timedelta:
    """``SMSKA_EXPIRES_AFTER``: seconds after which an unsent message is not sent, 24 hours."""
    return _duration("SMSKA_EXPIRES_AFTER", 24 * 3600)


def max_ahead() -> timedelta:
    """``SMSKA_MAX_AHEAD``: seconds ahead to which a sending may be put off, 366 days."""
    return _duration("SMSKA_MAX_AHEAD", 366 * 24 * 3600)


def max_attempts() -> int:
    """``SMSKA_MAX_ATTEMPTS``: attempts when the gateway says "not now" (-3), 5."""
    return int(_positive("SMSKA_MAX_ATTEMPTS", 5))


def max_segments() -> int:
    """``SMSKA_MAX_SEGMENTS``: longest text in segments, 255 (all that TS 23.040 can number)."""
    return int(_positive("SMSKA_MAX_SEGMENTS", 255))


def status_window() -> timedelta:
    """``SMSKA_STATUS_WINDOW``: seconds after sending in which reports are asked for, 72 hours."""
    return _duration("SMSKA_STATUS_WINDOW", 72 * 3600)


def send_at_once() -> int:
    """``SMSKA_SEND_AT_ONCE``: how many messages the admin sends while one waits, 5."""
    return int(_positive("SMSKA_SEND_AT_ONCE", 5))


def low_balance() -> float:
    """``SMSKA_LOW_BALANCE``: credits below which the admin warns, 100; 0 for never."""
    return _positive("SMSKA_LOW_BALANCE", 100, or_zero=True)


def keep_for() -> timedelta:
    """``SMSKA_KEEP``: seconds that ``sms_prune`` keeps finished messages, 180 days."""
    return _duration("SMSKA_KEEP", 180 * 24 * 3600)


def tasks() -> str | None:
    """``SMSKA_TASKS``: the alias in ``TASKS`` of the engine that sends what is queued, None."""
    alias = getattr(settings, "SMSKA_TASKS", None)
    if alias is not None and not isinstance(alias, str):
        raise ImproperlyConfigured(f"SMSKA_TASKS must be an alias of TASKS, not {alias!r}.")
    return alias or None


def uses_time_zones() -> bool:
    """``USE_TZ``: whether times have time zones."""
    return bool(settings.USE_TZ)


def locmem_in_tests() -> bool:
    """``SMSKA_LOCMEM_IN_TESTS``: whether a test run keeps all messages in memory, True."""
    return bool(getattr(settings, "SMSKA_LOCMEM_IN_TESTS", True))


def _duration(name: str, default: float) -> timedelta:
    """A number of seconds that can be added to any time of today: at most a hundred years."""
    seconds = _positive(name, default)
    if not seconds <= LONGEST.total_seconds():
        raise ImproperlyConfigured(f"{name} must be at most a hundred years, not {seconds!r} s.")
    return timedelta(seconds=seconds)


def _positive(name: str, default: float, *, or_zero: bool = False) -> float:
    value = getattr(settings, name, default)
    if isinstance(value, timedelta):
        value = value.total_seconds()
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 <= value < inf or (value == 0 and not or_zero):
        wanted = "0 or a number above it" if or_zero else "a number above 0"
        raise ImproperlyConfigured(f"{name} must be {wanted}, not {value!r}.")
    return value


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
    scheme = url.partition(":")[0] if isinstance(url, str) else ""
    if scheme not in _SCHEMES:
        raise _refused(f"it must be a URL that starts with one of: {', '.join(_SCHEMES)}")
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = None  # its words repeat the URL
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
            raise _refused(f"unknown option {name!r}; known: {', '.join(_GATEWAY_OPTIONS)}")
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

"""The addresses at which providers push reports and replies.

Each kind of each provider holds a secret of its own, because several providers sign nothing.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from django.urls import NoReverseMatch, get_script_prefix, reverse
from django.utils.crypto import constant_time_compare

from . import conf
from .keyed_hash import keyed_hashes

REPORT, INBOUND = "report", "inbound"
KEY_CHARACTERS = 32  # 128 bits


#: What is missing, and how to add it.
NO_PUBLIC_URL = 'Set SMSKA_PUBLIC_URL to the address of the site, such as "https://shop.example".'
NO_URLS = 'Add path("sms/", include("django_smska.urls")) to the urlpatterns of the site.'


def webhook_url(alias: str, kind: str) -> str:
    """Return the public address for a provider's requests, or "" where :func:`missing` says what
    there is to set up.

    :param kind: ``REPORT`` or ``INBOUND``
    """
    return public_address(_path(alias, kind))


def public_address(path: str) -> str:
    """Return the public address of a path of this site, or "" where none is set up.

    The path of a web process begins with the site's root (``SCRIPT_NAME``), which the setting may
    have, too. A worker does not know the root.
    """
    public, root = conf.public_url(), get_script_prefix().rstrip("/")
    if root and urlsplit(public).path == root:
        path = path.removeprefix(root)
    return f"{public}{path}" if public and path else ""


def missing() -> str:
    """Return what must be set up before providers can push anything, or ""."""
    if not conf.public_url():
        return NO_PUBLIC_URL
    return "" if _path("alias", REPORT) else NO_URLS


def _path(alias: str, kind: str) -> str:
    try:
        return reverse("django_smska:webhook", args=[alias, _keys(alias, kind)[0], kind])
    except NoReverseMatch:
        return ""


def is_key(alias: str, key: str, kind: str) -> bool:
    """Return whether this is the secret in the provider's address of this kind, also in older ones
    of ``SECRET_KEY_FALLBACKS``."""
    return any(constant_time_compare(key, one) for one in _keys(alias, kind))


def _keys(alias: str, kind: str) -> list[str]:
    """Return the secrets. Addresses for reports go along with each message, and so into logs of
    others: who knows one of them must not be able to claim what phones have written."""
    return [one[:KEY_CHARACTERS] for one in keyed_hashes(f"webhook.{kind}", alias)]

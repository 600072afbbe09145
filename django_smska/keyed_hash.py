"""Keyed hashes: who has the database alone cannot find out what was hashed.

There are only so many phone numbers that a plain hash of one can be looked up.
"""

from __future__ import annotations

from django.utils.crypto import salted_hmac

from . import conf


def keyed_hash(purpose: str, value: str) -> str:
    """Return the hash of a value by the project's ``SECRET_KEY``: 64 hexadecimal digits.

    :param purpose: such as ``"number"``: the same value has another hash for another purpose
    """
    return keyed_hashes(purpose, value)[0]


def keyed_hashes(purpose: str, value: str) -> list[str]:
    """Return the hashes under which a value may be stored: by the ``SECRET_KEY``, then by each of
    ``SECRET_KEY_FALLBACKS``."""
    return [
        salted_hmac(f"django_smska.{purpose}", value, secret=key, algorithm="sha256").hexdigest()
        for key in conf.secret_keys()
    ]

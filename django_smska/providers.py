"""``settings.SMS_PROVIDERS`` made into backend instances, in the manner of Django's mailers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from . import conf
from .backends import locmem
from .backends.base import BaseSmsBackend
from .exceptions import InvalidProvider, ProviderDoesNotExist
from .redact import contained
from .shapes import is_mapping

DEFAULT_ALIAS = "default"
KEYS = ("BACKEND", "OPTIONS")  # of an entry
DEFAULT_BACKEND = "django_smska.backends.smska.SmsBackend"


class ProvidersHandler:
    """``providers["alias"]`` makes a new backend instance.

    In a test run (Django's or pytest's) and in the processes that it starts, every alias is the
    locmem backend, whatever ``SMS_PROVIDERS`` says, so that a project's tests send no paid SMS by
    mistake. ``SMSKA_LOCMEM_IN_TESTS = False`` ends that.
    """

    def __getitem__(self, alias: str) -> BaseSmsBackend:
        self.require(alias)
        if keeps_in_memory():
            return locmem.in_test_run(alias)
        return self.configured(alias)

    def __contains__(self, alias: object) -> bool:
        return alias in self.settings

    def __iter__(self) -> Iterator[str]:
        return iter(self.settings)

    def get(self, alias: str, default: Any = None) -> Any:
        """Make the alias's backend; return ``default`` for an alias that is not in the settings."""
        try:
            return self[alias]
        except ProviderDoesNotExist:
            return default

    @property
    def default(self) -> BaseSmsBackend:
        """A new backend of the alias ``default``."""
        return self[DEFAULT_ALIAS]

    @property
    def settings(self) -> Mapping[str, Any]:
        """``SMS_PROVIDERS``, empty where it is not set."""
        # No local variable: it would be shown with all passwords.
        if not isinstance(getattr(settings, "SMS_PROVIDERS", {}), Mapping):
            raise InvalidProvider(
                "SMS_PROVIDERS must be a dict: alias -> {'BACKEND': …, 'OPTIONS': {…}}.",
                check="E001",
            )
        return getattr(settings, "SMS_PROVIDERS", {})

    def require(self, alias: str) -> None:
        """Raise ``ProviderDoesNotExist`` for an alias that is not in the settings."""
        if not isinstance(alias, str) or alias not in self:
            known = ", ".join(repr(name) for name in self) or "none"
            raise ProviderDoesNotExist(
                f"The SMS provider {alias!r} is not configured. Known aliases: {known}. "
                "Add it to SMS_PROVIDERS, or correct 'using'.",
                check="E001",
            )

    def configured(self, alias: str) -> BaseSmsBackend:
        """Make the backend that the settings name, also in a test run."""
        self.require(alias)
        # The frames below hold the password in local variables, which Django's debug page shows,
        # so that the traceback begins here.
        made = contained(lambda: _create(alias, self.settings[alias]))
        if isinstance(made, BaseException):
            raise made
        return made


def _create(alias: str, entry: Any) -> BaseSmsBackend:
    backend = _backend_class(alias, entry)
    options = entry.get("OPTIONS", {})
    try:
        return backend(alias=alias, **options)  # type: ignore[no-any-return]
    except InvalidProvider:
        raise
    except Exception as error:
        raise InvalidProvider(
            f"The backend cannot be made: {_why(error, backend, options)}.",
            alias=alias,
            check="E004",
            hint="Add to OPTIONS what the backend needs.",
        ) from None


def _why(error: Exception, backend: Any, options: Mapping[str, Any]) -> str:
    """Name what is missing or too much; another party's text may quote a password."""
    if isinstance(error, TypeError):
        try:
            inspect.signature(backend).bind(alias="", **options)
        except (TypeError, ValueError) as mismatch:
            return str(mismatch)
    return f"it raised {type(error).__name__}"


def _about_key(name: Any) -> str:
    """Say where a foreign key of an entry belongs. Its value may be a password."""
    near = get_close_matches(str(name).upper(), KEYS, n=1)
    if near:
        return f"{name!r}: did you mean {near[0]!r}?"
    return f"{name!r} belongs in OPTIONS."


def _backend_class(alias: str, entry: Any) -> Any:
    foreign = [one for one in entry if one not in KEYS] if is_mapping(entry) else []
    if not is_mapping(entry) or foreign:
        about = "".join(f" {_about_key(name)}" for name in foreign)
        raise InvalidProvider(
            f"An entry is a dict of 'BACKEND' and 'OPTIONS'; sms_url() makes one of a URL.{about}",
            alias=alias,
            check="E001",
        )
    options = entry.get("OPTIONS", {})
    if not is_mapping(options) or "alias" in options:
        raise InvalidProvider(
            "OPTIONS must be a dict, and must not define 'alias'.", alias=alias, check="E001"
        )
    path = entry.get("BACKEND", DEFAULT_BACKEND)
    try:
        backend = import_string(path)
        if not hasattr(backend, "send_message"):
            raise TypeError("this is not an SMS backend")
        return backend
    except (ImportError, AttributeError, TypeError) as error:
        raise InvalidProvider(
            f"Could not find BACKEND {path!r}: {error}",
            alias=alias,
            check="E002",
            hint="Correct the dotted path of the backend class.",
        ) from None
    except Exception as error:  # of another party's module, whose text may hold anything
        raise InvalidProvider(
            f"BACKEND {path!r} cannot be imported: it raised {type(error).__name__}.",
            alias=alias,
            check="E002",
            hint="Import it in a shell to see why.",
        ) from None


def keeps_in_memory() -> bool:
    """Return whether this is a test run, in which every alias is the locmem backend."""
    return conf.in_test_run() and conf.locmem_in_tests()


providers = ProvidersHandler()

"""System checks: each has an id, a hint, a test and a line in the README."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured

from . import conf
from .backends.base import BaseSmsBackend
from .exceptions import InvalidProvider
from .providers import DEFAULT_ALIAS, providers

TAG = "sms"
#: What a backend's check() says, and only ``check --deploy`` shows: the gateway's public address is
#: http://, and a warning at each start is one that is overlooked.
FOR_DEPLOYMENT = {"smska.W002"}
MARGIN = 30  # seconds for looking up the host's name and for writing the outcome


@register(TAG)
def check_providers(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Every entry of ``SMS_PROVIDERS`` can be made a backend, and its lease is long enough."""
    backends, messages = _configured()
    for backend in backends:
        messages += [one for one in backend.check() if one.id not in FOR_DEPLOYMENT]
        messages += _check_lease(backend)
    return messages


@register(TAG)
def check_default_alias(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    try:
        if DEFAULT_ALIAS in providers:
            return []
    except InvalidProvider:
        return []  # E001 says it
    return [
        Warning(
            "SMS_PROVIDERS has no 'default' entry: sending without 'using' will fail.",
            hint="Add a 'default' entry to SMS_PROVIDERS.",
            id="smska.W001",
        )
    ]


@register(TAG)
def check_tasks(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """``SMSKA_TASKS`` names an engine that has workers."""
    problem = _problem_of_tasks()
    if problem is None:
        return []
    return [
        Error(
            f"SMSKA_TASKS cannot be used: {problem}",
            hint="Name an entry of TASKS whose backend has workers (Django 5.2 needs the "
            "django-tasks package), or remove SMSKA_TASKS: sms_worker sends without it.",
            id="smska.E008",
        )
    ]


def _problem_of_tasks() -> str | None:
    try:
        alias = conf.tasks()
        if alias is not None:
            from .tasks import queue_of, require_workers

            queue_of(alias)
            require_workers(alias)
    except (ImportError, ImproperlyConfigured) as error:
        return str(error)
    except Exception as error:  # another party's backend may raise anything, with anything in it
        return f"its backend raised {type(error).__name__}."
    return None


@register(TAG, deploy=True)
def check_no_development_backend(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    backends, _ = _configured()
    return [
        Error(
            f"SMS_PROVIDERS['default'] uses a development backend "
            f"({type(backend).__module__}): no SMS would be sent.",
            hint="Use django_smska.backends.smska.SmsBackend, or another provider's.",
            id="smska.E007",
        )
        for backend in backends
        if backend.alias == DEFAULT_ALIAS and not backend.uses_network
    ]


@register(TAG, deploy=True)
def check_addresses(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Each provider is reached over TLS, or on this machine."""
    backends, _ = _configured()
    return [one for backend in backends for one in backend.check() if one.id in FOR_DEPLOYMENT]


def _configured() -> tuple[list[BaseSmsBackend], list[CheckMessage]]:
    backends: list[BaseSmsBackend] = []
    errors: list[CheckMessage] = []
    try:
        aliases = list(providers)
    except InvalidProvider as error:
        return [], [_as_check(error)]
    for alias in aliases:
        try:
            backends.append(providers.configured(alias))
        except InvalidProvider as error:
            errors.append(_as_check(error))
    return backends, errors


def _as_check(error: InvalidProvider) -> Error:
    return Error(str(error), hint=error.hint, id=f"smska.{error.check}")


def _check_lease(backend: BaseSmsBackend) -> list[CheckMessage]:
    if not backend.uses_network:
        return []
    try:
        lease = conf.lease().total_seconds()
    except ImproperlyConfigured as error:
        return [Error(str(error), hint="Correct SMSKA_LEASE.", id="smska.E006")]
    needed = backend.deadline + MARGIN
    if lease >= needed:
        return []
    return [
        Error(
            f"SMSKA_LEASE ({lease:g} s) is shorter than one send through "
            f"SMS_PROVIDERS[{backend.alias!r}] may take: a worker that is only slow would count "
            "as dead.",
            hint=f"Set SMSKA_LEASE to at least {needed:g} (deadline + {MARGIN}).",
            id="smska.E006",
        )
    ]

"""What providers push: reports and replies. ``django_smska.urls`` leads here."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import RequestDataTooBig
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from . import checked_backend, inbound, log_fields, pushed_reports
from .checked_backend import CheckedBackend
from .exceptions import InvalidProvider, QueryFailed
from .webhook_urls import INBOUND, REPORT, is_key

logger = logging.getLogger(__name__)

MOST_BYTES = 64 * 1024  # Infobip's largest batch, of 100 reports, has about half of that

METHODS = ["GET", "POST"]


def _commits_each_step(view: Any) -> Any:
    """Keep ``ATOMIC_REQUESTS`` from holding rows locked from the first report to the last."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


def _unlogged(view: Any) -> Any:
    """Keep Django from logging, and mailing, a refusal or a failure: the address has a secret, and
    its query may have a number and a text."""

    @wraps(view)
    def unlogged(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response: Any = view(request, *args, **kwargs)
        response._has_been_logged = True  # as Django marks what it has logged
        return response  # type: ignore[no-any-return]

    return unlogged


@csrf_exempt  # the provider has no form of ours
@login_not_required
@never_cache
@sensitive_post_parameters()
@_commits_each_step
@_unlogged
def webhook(request: HttpRequest, alias: str, key: str, kind: str) -> HttpResponse:
    """Apply what a provider pushes, and answer 200 as it wants it.

    What is not the provider's is refused by 403, and more than 64 KiB by 413. What cannot be read,
    is repeated or belongs to no message is answered by 200, too: otherwise it would be pushed
    again. Only where the database fails the answer is 500, so that nothing is lost.
    """
    if request.method not in METHODS:
        return HttpResponseNotAllowed(METHODS)
    backend = _backend(alias, key, kind) if kind in (REPORT, INBOUND) else None
    if backend is None:
        return HttpResponse(status=403)
    try:
        if _is_too_long(request):
            return HttpResponse(status=413)
        if not backend.authenticate(request):
            extra = log_fields.of_provider(alias, "webhook")
            logger.warning("provider %s: a webhook request is not authentic", alias, extra=extra)
            return HttpResponse(status=403)
        _apply(backend, kind, request)
    except Exception as error:  # Django's page about it would show the request
        words, name = "provider %s: a webhook was not applied (%s)", type(error).__name__
        logger.error(words, alias, name, extra=log_fields.of_provider(alias, name))
        return HttpResponse(status=500)
    return HttpResponse(backend.webhook_answer, content_type="text/plain; charset=utf-8")


def _backend(alias: str, key: str, kind: str) -> CheckedBackend | None:
    """Return the provider's backend, if the address has its secret."""
    if not is_key(alias, key, kind):
        return None
    try:
        return checked_backend.configured(alias)
    except InvalidProvider as error:
        logger.error("%s", error, extra=log_fields.of_provider(alias, error.check))
        return None


def _is_too_long(request: HttpRequest) -> bool:
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not length.isdecimal() or len(length) > 9 or int(length) > MOST_BYTES:
        return True
    try:
        return len(request.body) > MOST_BYTES  # it may come in chunks, without a length
    except RequestDataTooBig:
        return True


@sensitive_variables()
def _apply(backend: CheckedBackend, kind: str, request: HttpRequest) -> None:
    """Apply the reports, and store the messages of phones: several providers push both to one
    address. What cannot be read is in the log, and the other kind is read all the same."""
    if kind == REPORT or backend.one_webhook:
        with suppress(QueryFailed):
            pushed_reports.receive(backend.alias, backend.parse_reports(request))
    if kind == INBOUND or backend.one_webhook:
        with suppress(QueryFailed):
            inbound.receive(backend.alias, backend.parse_inbound(request))

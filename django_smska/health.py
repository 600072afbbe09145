"""A view for monitoring: whether messages leave. It shows numbers and states only.

::

    path("health/sms/", health)
"""

from __future__ import annotations

import logging
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.db import Error, transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from . import provider_status
from .provider_status import MAX_AGE_SECONDS, ProviderStatus

logger = logging.getLogger(__name__)


# With ATOMIC_REQUESTS a database that is away would raise before the view begins.
@transaction.non_atomic_requests
@login_not_required  # what asks has no account here
@never_cache
@require_safe
def health(request: HttpRequest, max_age: float = MAX_AGE_SECONDS) -> JsonResponse:
    """Answer 200, or 503 where messages do not leave and no person wants that.

    It makes no request to a provider.

    :param max_age: seconds for which a message may be due
    """
    try:
        found = provider_status.read()
    except Error as error:  # its text may hold the database's address
        logger.error("the health of sending cannot be read: %s", type(error).__name__)
        return JsonResponse({"healthy": False, "problem": "database"}, status=503)
    healthy = not any(one.fails(max_age) for one in found)
    providers = {one.alias: _shown(one, max_age) for one in found}
    answer = {"healthy": healthy, "providers": providers}
    return JsonResponse(answer, status=200 if healthy else 503)


def _shown(one: ProviderStatus, max_age: float) -> dict[str, Any]:
    problems = one.problems(max_age)
    return {
        "problems": [problem.code for problem in problems if problem.fails],
        "warnings": [problem.code for problem in problems if not problem.fails],
        "queued": one.queued,
        "due": one.due,
        "oldest_due_seconds": one.oldest_due_seconds,
        "held": one.held,
        "unknown": one.unknown,
        "worker_seen": not one.no_worker,
    }

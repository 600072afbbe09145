"""A check for django-health-check, version 4 or newer. Only what names this module imports it.

::

    HealthCheckView.as_view(checks=["django_smska.health_check.Sms"])
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import Error, connections

from . import provider_status
from .models import write_db
from .provider_status import MAX_AGE_SECONDS

if TYPE_CHECKING:  # where types are checked, it need not be installed
    HealthCheck = Any
    ServiceUnavailable: type[Exception]
    ServiceWarning: type[Exception]
else:
    from health_check import HealthCheck
    from health_check.exceptions import ServiceUnavailable, ServiceWarning

logger = logging.getLogger(__name__)


@dataclass
class Sms(HealthCheck):
    """Whether messages leave, of every provider. It makes no request to one.

    :param max_age: seconds for which a message may be due
    :param warnings: fail also where something waits for a person, such as *unknown* messages
    """

    max_age: float = MAX_AGE_SECONDS
    warnings: bool = False

    def run(self) -> None:
        error = self._error()
        if error is not None:  # raised here, so that no query's values hang on it
            raise error

    def _error(self) -> Exception | None:
        try:
            # It may run in a thread of its own, which closes no connection at its end.
            with connections[write_db()].temporary_connection():
                found = provider_status.read()
        except Error as error:
            name = type(error).__name__
            logger.error("the health of sending cannot be read: %s", name)
            return ServiceUnavailable(f"the database cannot be read ({name})")
        problems = [(one.alias, problem) for one in found for problem in one.problems(self.max_age)]
        if failing := [f"{alias}: {one.code}" for alias, one in problems if one.fails]:
            return ServiceUnavailable("; ".join(failing))
        if problems and self.warnings:
            return ServiceWarning("; ".join(f"{alias}: {one.code}" for alias, one in problems))
        return None

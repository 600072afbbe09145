"""Spans of OpenTelemetry, where the project has loaded it: this module imports nothing of it.

A span has the key of a message and never its number or text. The spans that instrumentations of
HTTP clients would make of our requests are suppressed, because the address of a request may hold
login, number and text.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from . import __version__

logger = logging.getLogger(__name__)

SPAN = "send sms"
NOT_BEGUN, ABORTED, ACCEPTED = "not-begun", "aborted", "accepted"  # beside the kinds of errors


class Span:
    """The span of one attempt. What fails in it is logged, and never ends the attempt."""

    def __init__(self, trace: Any, attributes: dict[str, Any]) -> None:
        self._trace, self._attributes = trace, attributes
        self._span: Any = None
        self._outcome: dict[str, Any] = {"smska.outcome": ABORTED}
        self._failed = True

    def __enter__(self) -> Span:
        try:
            tracer = self._trace.get_tracer("django_smska", __version__)
            self._scope = tracer.start_as_current_span(
                SPAN,
                kind=self._trace.SpanKind.CLIENT,
                attributes=self._attributes,
                # An exception's own text may hold the request.
                record_exception=False,
                set_status_on_exception=False,
            )
            self._span = self._scope.__enter__()
        except Exception as error:
            _report(error)
        return self

    def begins(self) -> None:
        """Note that the first byte of the request is written next."""
        if self._span is not None:
            try:
                self._span.add_event("first byte")
            except Exception as error:
                _report(error)

    def ends(self, outcome: Any) -> None:
        """Note the outcome: a receipt, an ``SmsError``, or None where nothing was begun."""
        kind = getattr(outcome, "kind", ACCEPTED if outcome is not None else NOT_BEGUN)
        self._outcome = {"smska.outcome": str(kind)}
        self._failed = hasattr(outcome, "kind")
        if self._failed:
            self._outcome["error.type"] = str(getattr(outcome, "code", "") or kind)
        elif accepted_by := getattr(outcome, "alias", None):  # by a member of a failover
            self._outcome["smska.accepted_by"] = accepted_by

    def __exit__(self, *exc_info: object) -> None:
        if self._span is None:
            return
        try:
            self._span.set_attributes(self._outcome)
            if self._failed:
                self._span.set_status(self._trace.StatusCode.ERROR)
        except Exception as error:
            _report(error)
        try:
            self._scope.__exit__(None, None, None)
        except Exception as error:
            _report(error)


class _NoSpan:
    """What stands for a span where there is none."""

    def __enter__(self) -> _NoSpan:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def begins(self) -> None:
        pass

    def ends(self, outcome: Any) -> None:
        pass


_NO_SPAN = _NoSpan()


def attempt(alias: Any, message: Any) -> Span | _NoSpan:
    """Return the span of an attempt to send a message through a provider."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return _NO_SPAN
    return Span(
        trace,
        {
            "smska.provider": str(alias),
            "smska.message": message.pk,
            "smska.segments": message.segments,
            "smska.attempt": message.attempts,
        },
    )


def without_http_spans() -> AbstractContextManager[Any]:
    """Return a block in which instrumented HTTP clients make no spans and add no headers."""
    # Each instrumentation imports it, so that none is active where it is not there.
    instrumentation = sys.modules.get("opentelemetry.instrumentation.utils")
    if instrumentation is None:
        return nullcontext()
    suppress = getattr(instrumentation, "suppress_http_instrumentation", None)
    found: AbstractContextManager[Any] = suppress() if suppress else _without_any_spans()
    return found


@contextmanager
def _without_any_spans() -> Generator[None]:
    """Set what the instrumentations of version 0.43 and older ask for."""
    context: Any = sys.modules["opentelemetry.context"]
    suppressed = context.set_value(context._SUPPRESS_INSTRUMENTATION_KEY, True)
    token = context.attach(suppressed)
    try:
        yield
    finally:
        context.detach(token)


def _report(error: Exception) -> None:
    logger.warning("a span was not recorded: %s", type(error).__name__)

"""Delivery reports that providers push: in any order, twice, early and late."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from . import checked_backend, delivery, log_fields, sending, states
from .models import Proof, SmsMessage, rows
from .receipts import Report
from .states import Status

logger = logging.getLogger(__name__)

MOST_TRIES = 5  # to write to a row whose status changes between reading and writing


def receive(alias: str, reports: Iterable[Report]) -> int:
    """Apply the reports of a provider; return of how many the message is known here.

    A final status never moves. A report of a message that is still *sending* is kept, and applied
    with the outcome of its request. One of an *unknown* message proves that it was accepted.
    """
    return sum(_apply(alias, report) for report in reports)


def _apply(alias: str, report: Report) -> bool:
    message = None
    for _ in range(MOST_TRIES):
        message = _message_of(alias, report)
        if message is None:
            words = "provider %s: a report of a message that is not known here"
            logger.info(words, alias, extra=log_fields.of_provider(alias))
            return False
        if _apply_to(message, alias, report):
            return True
    words = "provider %s: a report was not applied, for its message kept changing"
    logger.warning(words, alias, extra=log_fields.of_message(message, alias=alias))
    return True


def _message_of(alias: str, report: Report) -> SmsMessage | None:
    """Return the message with our reference, if this provider may have sent it; without one, the
    newest with the provider's id."""
    if report.reference:
        found = rows().filter(reference=report.reference).first()
        if found is not None and checked_backend.may_have_sent(alias, found.using):
            return found
    if report.gateway_id:
        return rows().filter(using=alias, gateway_id=report.gateway_id).order_by("-id").first()
    return None


def _apply_to(message: SmsMessage, alias: str, report: Report) -> bool:
    """Apply a report to a message as it was read; return False where it has changed since."""
    if _may_be_of_a_refusal(message, alias, report):
        words, extra = "message %s: provider %s reports %r", log_fields.of_message(message)
        logger.info(words, message.pk, alias, report.status, extra=extra)
        return True
    if message.status == Status.SENDING:
        return _keep_for_later(message, report)
    if message.status == Status.UNKNOWN:
        if not report.status:  # its word may be one for "refused"
            words = "message %s: what provider %s reports is not understood"
            logger.warning(words, message.pk, alias, extra=log_fields.of_message(message))
            return True
        return delivery.prove_by(Proof.REPORT, message, replace(report, alias=alias))
    if message.status == Status.SENT:
        _remember_id(message, report)
        delivery.apply([(message, report)])
    elif message.status in states.FINAL - {Status.FAILED, Status.CANCELLED}:
        delivery.keep_price([message], report)
    elif report.status in states.ACCEPTED:  # some providers report their refusals, too
        logger.error(
            "message %s is %s, and provider %s reports it as %r: was its answer a false refusal?",
            message.pk,
            message.status,
            alias,
            report.status,
            extra=log_fields.of_message(message),
        )
        if _waits_for_another_attempt(message):
            return sending.cancel_reported(message)
    return True


def _waits_for_another_attempt(message: SmsMessage) -> bool:
    """Return whether it was tried and may be tried again; a draft, when its mailing goes on."""
    waiting = (Status.DRAFT, Status.QUEUED, Status.CLAIMED)
    return message.status in waiting and message.sending_at is not None


def _may_be_of_a_refusal(message: SmsMessage, alias: str, report: Report) -> bool:
    """Return whether a member of a failover reports what may be its refusal, after which another
    member was tried: it says nothing about that one's request."""
    in_doubt = message.status in (Status.SENDING, Status.UNKNOWN)
    return in_doubt and alias != message.using and report.status not in states.ACCEPTED


def _keep_for_later(message: SmsMessage, report: Report) -> bool:
    """Keep the report until the outcome of the request is recorded. A final one stays."""
    report = delivery.without_text(message, report)
    delivery.keep_price([message], report)
    changes: dict[str, Any] = {"reported_status": report.status, "gateway_status": report.raw}
    sending = rows([message.pk]).filter(status=Status.SENDING)
    if not report.status or sending.exclude(reported_status__in=("", Status.SENT)).exists():
        return True
    return bool(sending.filter(reported_status__in=("", Status.SENT)).update(**changes))


def _remember_id(message: SmsMessage, report: Report) -> None:
    """Keep the provider's id where its answer had none."""
    if report.gateway_id and not message.gateway_id:
        rows([message.pk]).filter(gateway_id="").update(gateway_id=report.gateway_id)
        message.gateway_id = report.gateway_id

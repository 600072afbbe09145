"""``manage.py sms_webhooks``: the addresses that providers call."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_smska import checked_backend, webhook_urls
from django_smska.checked_backend import CheckedBackend
from django_smska.exceptions import InvalidProvider
from django_smska.providers import providers
from django_smska.webhook_urls import INBOUND, REPORT, webhook_url

NONE = "No provider of SMS_PROVIDERS calls the site."


class Command(BaseCommand):
    help = (
        "Prints the addresses at which providers push delivery reports and the messages of phones, "
        "to be pasted into their web pages. Keep them secret: who knows one can pretend to be the "
        "provider."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--using", metavar="ALIAS", help="only this provider")

    def handle(self, **options: Any) -> None:
        if why := webhook_urls.missing():
            raise CommandError(f"There are no addresses yet. {why}")
        lines = [line for alias in _aliases(options["using"]) for line in _lines(alias)]
        self.stdout.write("\n".join(lines) or NONE)


def _aliases(using: str | None) -> list[str]:
    try:
        if using is not None:
            providers.require(using)
        return list(providers) if using is None else [using]
    except InvalidProvider as error:
        raise CommandError(str(error)) from None


def _lines(alias: str) -> list[str]:
    try:
        backend = checked_backend.configured(alias)
    except InvalidProvider as error:
        raise CommandError(str(error)) from None
    kinds = _kinds(backend)
    return [f"{alias}, {words}: {webhook_url(alias, kind)}" for kind, words in kinds.items()]


def _kinds(backend: CheckedBackend) -> dict[str, str]:
    """Return in words what is pushed to which address."""
    if backend.one_webhook:
        return {REPORT: "reports and messages of phones"}
    found: dict[str, str] = {}
    if backend.takes_reports:
        found[REPORT] = "reports"
    if backend.takes_inbound:
        found[INBOUND] = "messages of phones"
    return found

"""Checks of the database for commands."""

from __future__ import annotations

from django.apps import apps
from django.core.management.base import CommandError
from django.db import connections

from django_smska.models import write_db


def require_tables() -> None:
    """Raise ``CommandError`` that says what to run where ``migrate`` was forgotten."""
    connection = connections[write_db()]
    present = connection.introspection.table_names()
    models = apps.get_app_config("django_smska").get_models()
    missing = sorted({model._meta.db_table for model in models}.difference(present))
    if missing:
        raise CommandError(
            f"The database {connection.alias!r} has no table {missing[0]}. Run 'manage.py migrate'."
        )

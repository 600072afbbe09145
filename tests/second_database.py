"""A second database of the tests, with all tables, and the routers that use it."""

import contextlib
from pathlib import Path

from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connections

from django_smska.models import ProviderState, SmsDay, SmsDayCount, SmsMessage

ALIAS = "second"
COPIED = (User, SmsMessage, ProviderState, SmsDay, SmsDayCount)
BESIDE = ("auth", "contenttypes", "admin", "sessions")  # what the messages' admin needs


class Replica:
    """Messages are read from the second database, which lags behind, and written to the first."""

    def db_for_read(self, model, **hints):
        return ALIAS if model._meta.app_label == "django_smska" else None

    def db_for_write(self, model, **hints):
        return "default" if model._meta.app_label == "django_smska" else None

    def allow_relation(self, one, other, **hints):
        return True


class Apart:
    """Messages and users are in the second database, all else in the first."""

    def db_for_read(self, model, **hints):
        return ALIAS if model._meta.app_label in ("django_smska", *BESIDE) else None

    db_for_write = db_for_read


@contextlib.contextmanager
def second_database():
    """Make it beside the test database, and remove it."""
    default = connections["default"]
    name = f"{default.settings_dict['NAME']}_second"
    connections.settings[ALIAS] = {**default.settings_dict, "NAME": name}
    try:
        _create(default, name)
        call_command("migrate", database=ALIAS, verbosity=0)
        yield
    finally:
        connections[ALIAS].close()
        _drop(default, name)
        del connections[ALIAS]
        del connections.settings[ALIAS]


def _create(default, name):
    _drop(default, name)
    if default.vendor != "sqlite":
        _execute(default, f"CREATE DATABASE {default.ops.quote_name(name)}")


def _drop(default, name):
    if default.vendor == "sqlite":
        for ending in ("", "-wal", "-shm"):
            Path(f"{name}{ending}").unlink(missing_ok=True)
    else:
        _execute(default, f"DROP DATABASE IF EXISTS {default.ops.quote_name(name)}")


def _execute(default, sql):
    with default.cursor() as cursor:
        cursor.execute(sql)


def replicate():
    """Let the replica catch up."""
    for model in reversed(COPIED):
        model._base_manager.using(ALIAS).all().delete()
    for model in COPIED:
        present = model._base_manager.using("default").order_by("pk")
        model._base_manager.using(ALIAS).bulk_create(present)

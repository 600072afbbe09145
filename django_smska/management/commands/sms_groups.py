"""``manage.py sms_groups``: makes groups of users: who sees, who writes, who decides."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.db import router, transaction
from django.utils import translation

import django_smska
from django_smska.admin.permissions import (
    APP,
    CONTACTS_APP,
    CONTACTS_GROUPS,
    CONTACTS_NAMES,
    GROUPS,
    NAMES,
    gap_words,
    has_contacts,
    translated,
)
from django_smska.management.tables import DatabaseCommand, require_tables

#: Those in which the groups may have been named.
LANGUAGES = ("en", *(one.name for one in Path(django_smska.__file__).parent.glob("locale/*")))
WHO = {
    "viewers": "who see messages, with masked numbers and without texts",
    "writers": "who write and send, too, and read numbers, texts and replies",
    "managers": "who decide, too: cancel, resend, settle, stop, export, do-not-send list",
}


class Command(DatabaseCommand):
    help = (
        "Makes three groups of users with the permissions that belong together, and says which. "
        "Run it again after an update: it adds what a group lacks and removes nothing, so that "
        "what people have added stays. Their names are in the language of LANGUAGE_CODE."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        for group, who in WHO.items():
            parser.add_argument(f"--{group}", metavar="NAME", help=f"the group of those {who}")

    def handle(self, **options: Any) -> None:
        if not apps.is_installed("django.contrib.auth"):
            raise CommandError("There are no groups without django.contrib.auth.")
        require_tables()
        names = {group: _name(group, (options[group] or "").strip()) for group in GROUPS}
        if len(set(names.values())) < len(names):
            raise CommandError("Write three different names.")
        # Permissions are written here as Django stores them, in English.
        with translation.override("en"), transaction.atomic(using=_database()):
            permissions = _permissions()
            for group, name in names.items():
                more = CONTACTS_GROUPS[group] if has_contacts() else ()
                wanted = {one: permissions[one] for one in (*GROUPS[group][1], *more)}
                self.stdout.write("\n".join(_make(name, wanted)))


def _database() -> str:
    """Return the database of groups and permissions."""
    from django.contrib.auth.models import Group

    return str(router.db_for_write(Group))


def _name(group: str, given: str) -> str:
    """Return the name of the group.

    Without a given one that is ours in the language of the site; in another language, if the group
    was made before ``LANGUAGE_CODE`` was changed.
    """
    from django.contrib.auth.models import Group

    if given:
        _require_storable(Group(name=given))
        return given
    wanted, *others = (_in_language(one, group) for one in [settings.LANGUAGE_CODE, *LANGUAGES])
    known = Group.objects.using(_database()).filter(name__in=[wanted, *others])
    found = list(known.order_by("pk").values_list("name", flat=True))
    return wanted if wanted in found or not found else str(found[0])


def _in_language(language: str, group: str) -> str:
    with translation.override(language):
        return str(GROUPS[group][0])


def _require_storable(group: Any) -> None:
    try:
        group.clean_fields()
    except ValidationError as error:
        raise CommandError(f"The name {group.name!r}: {' '.join(error.messages)}") from None


def _permissions() -> dict[str, Any]:
    """Return the app's permissions, and those for contacts, by their codenames."""
    from django.contrib.auth.models import Permission

    labels, names = [APP], [*NAMES]
    if has_contacts():
        labels, names = [APP, CONTACTS_APP], [*NAMES, *CONTACTS_NAMES]
    stored = Permission.objects.using(_database()).filter(content_type__app_label__in=labels)
    found = {one.codename: one for one in stored}
    if missing := ", ".join(one for one in names if one not in found):
        raise CommandError(f"These permissions are missing: {missing}. Run 'manage.py migrate'.")
    return found


def _make(name: str, wanted: dict[str, Any]) -> Iterator[str]:
    """Make the group or add what it lacks; yield what is to be said about it."""
    from django.contrib.auth.models import Group

    group, is_new = Group.objects.using(_database()).get_or_create(name=name)
    had = list(group.permissions.select_related("content_type").order_by("pk"))
    group.permissions.add(*wanted.values())
    yield f"{name}: {'made' if is_new else 'was there'}."
    for one in wanted.values():
        yield f"  {'has' if one in had else 'added'}: {translated(one.name)}"
    others = [one for one in had if one not in wanted.values()]
    for one in others:
        app = one.content_type.app_label
        named = translated(one.name) if app in (APP, CONTACTS_APP) else one.name
        yield f"  has more: {named} ({app}.{one.codename})"
    ours = {one.codename for one in others if one.content_type.app_label == APP}
    for words in gap_words({*wanted, *ours}):
        yield f"  note: {words}"

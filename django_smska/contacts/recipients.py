"""The contacts as recipients of a mailing, for the setting ``SMSKA_RECIPIENTS``."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext, pgettext

from .models import Contact, ContactGroup

PATH = f"{__name__}.contacts"


def contacts(user: Any) -> dict[str, QuerySet[Contact, dict[str, Any]]]:
    """Return all contacts and those of each group, by their labels, as dicts with ``number`` and
    ``name``; nothing for a user who may not see contacts.

    Notes are left out, because no message is to have them.
    """
    if not user.has_perm("smska_contacts.view_contact"):
        return {}
    every = Contact.objects.order_by("pk").values("number", "name")
    of_groups = {label: every.filter(groups=key) for key, label in labels().items()}
    return {_all(): every, **of_groups}


def _all() -> str:
    return pgettext("contacts", "All")


def labels() -> dict[Any, str]:
    """Return the label of each group by its primary key; none is that of all contacts."""
    found: dict[Any, str] = {}
    for key, name in ContactGroup.objects.values_list("pk", "name"):
        is_used = name == _all() or name in found.values()
        found[key] = gettext("Group “%s”") % name if is_used else name
    return found

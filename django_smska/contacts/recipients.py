"""The contacts as recipients of a mailing, for the setting ``SMSKA_RECIPIENTS``."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext, pgettext

from .models import Contact, ContactGroup


def contacts(user: Any) -> dict[str, QuerySet[Contact, dict[str, Any]]]:
    """Return all contacts and those of each group, by their labels, as dicts with ``number`` and
    ``name``; nothing for a user who may not see contacts.

    Notes are left out, because no message is to have them.
    """
    if not user.has_perm("smska_contacts.view_contact"):
        return {}
    every = Contact.objects.order_by("pk").values("number", "name")
    found = {pgettext("contacts", "All"): every}
    for key, name in ContactGroup.objects.values_list("pk", "name"):
        label = gettext("Group “%s”") % name if name in found else name
        found[label] = every.filter(groups=key)
    return found

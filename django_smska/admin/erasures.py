"""The admin of erasures, the proof that a person's data were erased."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.contrib import admin
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..models import SmsErasure
from ..states import Status
from .guard import ReadOnlyAdmin

#: The counts of ``personal_data.erase``.
COUNTS = {
    "cancelled": _("Waiting messages cancelled"),
    "received": _("Received messages blanked"),
    "histories": _("Entries of the admin's log erased or masked"),
    "do_not_send": _("Do-not-send entries whose number was erased"),
    "limits": _("Counters of limits deleted"),
}


@admin.register(SmsErasure)
class SmsErasureAdmin(ReadOnlyAdmin):
    """When, by whom and how much was erased, read-only."""

    list_display = ("erased_at", "erased_by", "messages", "number_hash")
    fields = (*list_display, "counts")
    ordering = ("-id",)
    sortable_by = ()
    show_full_result_count = False

    @admin.display(description=_("details"))
    def counts(self, obj: SmsErasure) -> str:
        return "\n".join(_lines(obj.details))


def _lines(details: dict[str, Any]) -> Iterator[str]:
    if not details.get("finished"):
        yield gettext("It has not finished. Run sms_prune --number again.")
    for name, words in COUNTS.items():
        if name in details:
            yield f"{words}: {details[name]}"
    for label, number in details.get("deleted", {}).items():
        yield gettext("Deleted, %(what)s: %(number)s") % {"what": _plural(label), "number": number}
    for label, keys in details.get("changed", {}).items():
        parts = {"what": _plural(label), "keys": ", ".join(map(str, keys))}
        yield gettext("Number replaced by dots, %(what)s: %(keys)s") % parts
    for status, number in details.get("kept", {}).items():
        label = Status(status).label if status in Status.values else status
        kept = gettext("Messages kept with the status “%s”") % label
        yield f"{kept}: {number}"


def _plural(label: str) -> str:
    """Return how users call the rows of this model, whose app may be gone."""
    try:
        return str(apps.get_model(label)._meta.verbose_name_plural)
    except LookupError:
        return label

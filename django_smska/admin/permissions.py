"""Who may do what: the app's permissions, groups of them, and what users may see of a message."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from django.apps import apps
from django.contrib.auth import get_permission_codename
from django.utils.translation import gettext, gettext_noop, pgettext_lazy

from ..exceptions import SAID
from ..models import SmsMessage
from ..numbers import mask
from ..redact import WITHHELD, repeats, withhold

PIECE_DIGITS = 5  # digits in a row that count as a part of a number

APP = "django_smska"
VIEW = "view_smsmessage"
#: Each permission of the app by its codename, with the name that Django stores.
NAMES = {
    VIEW: gettext_noop("Can view SMS message"),
    "see_text_smsmessage": gettext_noop("Can see the text of SMS messages"),
    "see_number_smsmessage": gettext_noop("Can see the whole number of SMS messages"),
    "add_smsmessage": gettext_noop("Can add SMS message"),
    "change_smsmessage": gettext_noop("Can change SMS message"),
    "send_smsmessage": gettext_noop("Can send SMS messages"),
    "refresh_smsmessage": gettext_noop("Can refresh the status of SMS messages"),
    "resend_smsmessage": gettext_noop("Can decide about and resend SMS messages"),
    "export_smsmessage": gettext_noop("Can export SMS messages"),
    "release_smsmessage": gettext_noop("Can release or cancel held SMS messages"),
    "delete_smsmessage": gettext_noop("Can delete SMS message"),
    "view_providerstate": gettext_noop("Can view SMS provider"),
    "stop_providerstate": gettext_noop("Can stop and resume sending"),
    "view_smsoptout": gettext_noop("Can view do-not-send entry"),
    "add_smsoptout": gettext_noop("Can add do-not-send entry"),
    "delete_smsoptout": gettext_noop("Can delete do-not-send entry"),
    "view_smsinbound": gettext_noop("Can view received SMS"),
    "delete_smsinbound": gettext_noop("Can delete received SMS"),
    "view_smserasure": gettext_noop("Can view erasure"),
    "view_smstemplate": gettext_noop("Can view SMS template"),
    "add_smstemplate": gettext_noop("Can add SMS template"),
    "change_smstemplate": gettext_noop("Can change SMS template"),
    "delete_smstemplate": gettext_noop("Can delete SMS template"),
}
#: The app ``django_smska.contacts``, where it is installed, and its permissions.
CONTACTS_APP = "smska_contacts"
CONTACTS_NAMES = {
    "view_contact": gettext_noop("Can view contact"),
    "add_contact": gettext_noop("Can add contact"),
    "change_contact": gettext_noop("Can change contact"),
    "delete_contact": gettext_noop("Can delete contact"),
    "view_contactgroup": "Can view group",
    "add_contactgroup": "Can add group",
    "change_contactgroup": "Can change group",
    "delete_contactgroup": "Can delete group",
}
#: What people read for these: Django's permissions for groups of users have the same names.
_READ_AS = {
    "Can view group": gettext_noop("Can view contact group"),
    "Can add group": gettext_noop("Can add contact group"),
    "Can change group": gettext_noop("Can change contact group"),
    "Can delete group": gettext_noop("Can delete contact group"),
}
_VIEWERS = (VIEW, "view_providerstate")
_WRITERS = (
    *_VIEWERS,
    *("see_text_smsmessage", "see_number_smsmessage"),
    *("add_smsmessage", "send_smsmessage", "refresh_smsmessage"),
    "view_smsinbound",
    "view_smstemplate",
)
_MANAGERS = (
    *_WRITERS,
    *("change_smsmessage", "resend_smsmessage", "export_smsmessage", "release_smsmessage"),
    "stop_providerstate",
    *("view_smsoptout", "add_smsoptout", "delete_smsoptout"),
    "view_smserasure",
    *("add_smstemplate", "change_smstemplate", "delete_smstemplate"),
)
#: The groups that ``sms_groups`` makes: the name of each, and its permissions. Each has all of the
#: group before it. Deleting messages is in none, because what is deleted cannot be explained.
GROUPS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "viewers": (pgettext_lazy("group of users", "SMS: viewers"), _VIEWERS),
    "writers": (pgettext_lazy("group of users", "SMS: writers"), _WRITERS),
    "managers": (pgettext_lazy("group of users", "SMS: managers"), _MANAGERS),
}
#: What ``sms_groups`` adds to them where there are contacts.
CONTACTS_GROUPS: dict[str, tuple[str, ...]] = {
    "viewers": (),
    "writers": ("view_contact", "view_contactgroup"),
    "managers": tuple(CONTACTS_NAMES),
}
#: Permissions that are of no use without one of these others. The first is the one to give.
_OF_NO_USE_WITHOUT = {
    "see_text_smsmessage": (VIEW, "view_providerstate", "view_smstemplate"),
    "see_number_smsmessage": (
        *(VIEW, "view_providerstate", "view_smsinbound"),
        *("view_smsoptout", "add_smsoptout", "view_contact"),
    ),
    "send_smsmessage": (VIEW,),
    "refresh_smsmessage": (VIEW,),
    "resend_smsmessage": (VIEW,),
    "export_smsmessage": (VIEW,),
    "release_smsmessage": (VIEW,),
    "delete_smsmessage": (VIEW,),
    "stop_providerstate": ("view_providerstate",),
    "delete_smsoptout": ("view_smsoptout",),
    "delete_smsinbound": ("view_smsinbound",),
    "change_smstemplate": ("see_text_smsmessage",),
}
_DIGITS = re.compile(r"\d(?:[\W_]{0,3}\d){4,}")
_RUSSIAN = re.compile(r"(\+7)([0-9]{3})([0-9]{3})([0-9]{2})([0-9]{2})")
# As people write them. A date and a time do not begin like this.
_NUMBER = re.compile(r"(?<!\d)(?:\+\d|[789])(?:[\s().\-]{0,3}\d){9,14}")


class Unlogged(str):
    """A number or a text that pages show, and logs and reports of a page's context do not."""

    def __repr__(self) -> str:
        return "'•••'"


def may(user: Any, action: str, opts: Any) -> bool:
    """Return whether the user has the permission for an action on rows of a model."""
    return bool(user.has_perm(f"{opts.app_label}.{get_permission_codename(action, opts)}"))


def held(user: Any) -> set[str]:
    """Return the codenames of the app's permissions that the user has, and of those for contacts.

    To change includes to view, as in Django.
    """
    has = {one for one in NAMES if user.has_perm(f"{APP}.{one}")}
    if has_contacts():
        has |= {one for one in CONTACTS_NAMES if user.has_perm(f"{CONTACTS_APP}.{one}")}
    return _with_view(has)


def has_contacts() -> bool:
    """Return whether the app ``django_smska.contacts`` is installed."""
    return apps.is_installed("django_smska.contacts")


def _with_view(codenames: Iterable[str]) -> set[str]:
    has = set(codenames)
    models = ("smsmessage", "smstemplate", "contact", "contactgroup")
    return has | {f"view_{one}" for one in models if f"change_{one}" in has}


def gaps(codenames: Collection[str]) -> dict[str, str]:
    """Return the permissions of this set that are of no use, each with the one that it lacks.

    :param codenames: the permissions of a user or of a group
    """
    has = _with_view(codenames)
    return {
        one: others[0]
        for one, others in _OF_NO_USE_WITHOUT.items()
        if one in has and not has.intersection(others)
    }


def gap_words(codenames: Collection[str]) -> Iterator[str]:
    """Yield a sentence for each gap."""
    found = gaps(codenames)
    names = names_of({*found, *found.values()})
    for has, lacks in found.items():
        words = gettext("“%(has)s” is of no use without “%(lacks)s”.")
        yield words % {"has": names[has], "lacks": names[lacks]}


def names_of(codenames: Collection[str]) -> dict[str, str]:
    """Return the permissions' names as users know them, by their codenames."""
    from django.contrib.auth.models import Permission

    if not codenames:
        return {}
    ours = NAMES | CONTACTS_NAMES
    labels = (APP, CONTACTS_APP)
    stored = Permission.objects.filter(
        content_type__app_label__in=labels, codename__in=ours.keys() & codenames
    )
    names = ours | dict(stored.values_list("codename", "name"))
    return {one: translated(names[one]) for one in ours if one in codenames}


def translated(name: str) -> str:
    """Return the stored name of a permission of the app, or of contacts, in the reader's language.
    One that the project has given stays as it is."""
    is_ours = name in (*NAMES.values(), *CONTACTS_NAMES.values())
    return gettext(_READ_AS.get(name, name)) if is_ours else name


def may_view(user: Any) -> bool:
    return bool(user.has_perm("django_smska.view_smsmessage"))


def may_see_text(user: Any) -> bool:
    return bool(user.has_perm("django_smska.see_text_smsmessage"))


def may_see_number(user: Any) -> bool:
    return bool(user.has_perm("django_smska.see_number_smsmessage"))


def number_for(user: Any, message: SmsMessage) -> str:
    """Return the recipient's number, masked for users who may not see it."""
    return grouped(str(message.to)) if may_see_number(user) else mask(str(message.to))


def grouped(number: str) -> str:
    """Return a number as people read it: ``+7 904 176-49-95``. Those of other plans stay as they
    are, because their groups differ from country to country."""
    found = _RUSSIAN.fullmatch(number)
    return "{} {} {}-{}-{}".format(*found.groups()) if found else number


def text_for(user: Any, message: SmsMessage) -> str:
    """Return the message's text, or a placeholder for users who may not see it."""
    seen = str(message.body) if may_see_text(user) else gettext("(hidden)")
    return placeholder(message) or seen


def placeholder(message: SmsMessage) -> str:
    """Return what every user is shown instead of the text, or "" where it may be seen."""
    return instead_of_text(sensitive=message.sensitive, erased_at=message.erased_at)


def instead_of_text(*, sensitive: bool, erased_at: Any) -> str:
    """Do the same by the fields of a row."""
    if erased_at is not None:
        return gettext("(erased)")
    return gettext("(hidden: sensitive)") if sensitive else ""


def external_text_for(user: Any, message: Any, text: str) -> str:
    """Return what a gateway or program wrote about this message, as this user may see it."""
    sensitive = getattr(message, "sensitive", False)
    if sensitive and repeats(text, [message.body, message.code]):
        return gettext(WITHHELD)
    return without(
        text,
        number=None if may_see_number(user) else str(getattr(message, "to", "")),
        text=None if may_see_text(user) else str(getattr(message, "body", "")),
    )


def detail_for(user: Any, state: Any, text: str) -> str:
    """Return an error of a provider, as this user may see it: its gateway may repeat what was
    sent."""
    seen = text if may_see_text(user) else text.partition(SAID)[0]
    return external_text_for(user, state, seen)


def without(external: str, *, number: str | None = None, text: str | None = None) -> str:
    """Return an external text without parts of the number and without other numbers.

    Where it repeats a piece of the message's text, all of it is withheld.

    :param number: the message's, or ``None`` where the user may see it
    :param text: the message's, or ``None`` where the user may see it
    """
    if text and withhold(external, [text]) == WITHHELD:
        return gettext(WITHHELD)
    if number is None:
        return external
    shown = _NUMBER.sub("•••", _DIGITS.sub(lambda found: _unless_of(number, found[0]), external))
    # In another spelling: a URL, base64.
    return gettext(WITHHELD) if repeats(shown, [number.lstrip("+")]) else shown


def _unless_of(number: str, found: str) -> str:
    digits = "".join(str(int(one)) for one in found if one.isdecimal())
    parts = (digits[at : at + PIECE_DIGITS] for at in range(len(digits) - PIECE_DIGITS + 1))
    return "•••" if any(part in number for part in parts) else found

"""Import many contacts at once: what would be done, and doing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.db import router, transaction

from ..conflicts import repeat_conflicts
from .memberships import BATCH_ROWS, batches, join
from .models import Contact, ContactGroup, stored


class Renamed(NamedTuple):
    """A known contact that stands in the table with another name."""

    number: str
    known: str
    name: str


@dataclass
class Plan:
    """What an import would do.

    :ivar new: the numbers that are not known
    :ivar known: how many are
    :ivar named: the numbers of known contacts that have no name and get one
    :ivar renamed: those whose name is another one
    """

    new: list[str] = field(default_factory=list[str], repr=False)
    known: int = 0
    named: list[str] = field(default_factory=list[str], repr=False)
    renamed: list[Renamed] = field(default_factory=list[Renamed], repr=False)


class Outcome(NamedTuple):
    """How many contacts were added, got a name, and came into the group."""

    added: int
    named: int
    joined: int


def plan(names: Mapping[str, str]) -> Plan:
    """Return what the import of these names, by number in E.164, would do. It is one query for a
    thousand."""
    found = Plan()
    for numbers in batches(list(names)):
        known = dict(stored().filter(number__in=numbers).order_by().values_list("number", "name"))
        found.known += len(known)
        found.new += [number for number in numbers if number not in known]
        for number, before in known.items():
            if not names[number] or names[number] == before:
                continue
            if before:
                found.renamed.append(Renamed(number, before, names[number]))
            else:
                found.named.append(number)
    return found


def store(
    names: Mapping[str, str],
    *,
    group: ContactGroup | None = None,
    new_group: str = "",
    replace: bool = False,
    created_by: Any = None,
) -> Outcome:
    """Store contacts in one transaction. Repeated, it changes nothing.

    :param names: by number in E.164
    :param group: where they go
    :param new_group: the name of the group where they go; it is made if there is none
    :param replace: give known contacts the names of the table, also where they have others
    :param created_by: a user, such as ``request.user``
    """

    def run() -> Outcome:
        with transaction.atomic(using=database):
            todo = plan(names)
            _add({number: names[number] for number in todo.new}, created_by)
            to_name = [*todo.named, *(one.number for one in todo.renamed if replace)]
            _rename({number: names[number] for number in to_name})
            into = group or _group(new_group)
            joined = join(_keys(names), into) if into else 0
            return Outcome(len(todo.new), len(to_name), joined)

    database = router.db_for_write(Contact)
    return repeat_conflicts(run)


def _add(names: Mapping[str, str], created_by: Any) -> None:
    new = [
        Contact(number=number, name=name, created_by=created_by) for number, name in names.items()
    ]
    # Another process may add one of them at this moment.
    stored().bulk_create(new, batch_size=BATCH_ROWS, ignore_conflicts=True)


def _rename(names: Mapping[str, str]) -> None:
    for numbers in batches(list(names)):
        changed = list(stored().filter(number__in=numbers))
        for one in changed:
            one.name = names[one.number]
        stored().bulk_update(changed, ["name"], batch_size=BATCH_ROWS // 4)


def _group(name: str) -> ContactGroup | None:
    if not name:
        return None
    groups = ContactGroup.objects.using(router.db_for_write(ContactGroup))
    return groups.get_or_create(name=name)[0]


def _keys(names: Mapping[str, str]) -> list[Any]:
    keys: list[Any] = []
    for numbers in batches(list(names)):
        keys += stored().filter(number__in=numbers).values_list("pk", flat=True)
    return keys

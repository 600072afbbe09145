"""Who is in which group, many contacts at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from django.db import router, transaction

from ..conflicts import repeat_conflicts
from .models import Contact, ContactGroup

BATCH_ROWS = 1000  # the rows of one query

#: The rows that link contacts to groups.
Membership: Any = Contact.groups.through


def join(keys: list[Any], group: ContactGroup) -> int:
    """Add the contacts with these keys to the group; return how many were not in it."""
    return _in_one_transaction(lambda: sum(_join(batch, group) for batch in batches(keys)))


def take_out(keys: list[Any], group: ContactGroup) -> int:
    """Remove the contacts with these keys from the group; return how many were in it."""
    return _in_one_transaction(
        lambda: sum(_of(batch, group).delete()[0] for batch in batches(keys))
    )


def batches(keys: list[Any]) -> Iterator[list[Any]]:
    """Yield them in parts for one query; sorted, so that two processes wait for each other in
    turn."""
    every = iter(sorted(keys))
    while batch := list(islice(every, BATCH_ROWS)):
        yield batch


def _join(keys: list[Any], group: ContactGroup) -> int:
    there = set(_of(keys, group).values_list("contact", flat=True))
    new = [Membership(contact_id=key, contactgroup=group) for key in keys if key not in there]
    # Another process may add one of them at this moment.
    _every().bulk_create(new, ignore_conflicts=True)
    return len(new)


def _of(keys: list[Any], group: ContactGroup) -> Any:
    return _every().filter(contactgroup=group, contact__in=keys)


def _every() -> Any:
    return Membership.objects.using(router.db_for_write(Contact))


def _in_one_transaction(operation: Callable[[], int]) -> int:
    def run() -> int:
        with transaction.atomic(using=router.db_for_write(Contact)):
            return operation()

    return repeat_conflicts(run)

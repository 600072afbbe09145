"""The do-not-send list: numbers that asked for no messages, from one sender or from all.

It is asked before a message is stored, when one is claimed, and by the UPDATE that permits the
first byte of its request. So an entry that is committed before that UPDATE is obeyed, however long
the message has been in the queue.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import Any

from django.core.exceptions import ValidationError
from django.core.signals import setting_changed
from django.db import connections
from django.db.models import Q, QuerySet
from django.dispatch import receiver
from django.utils.translation import gettext_lazy as _

from .batch_update import Bar
from .checked_backend import CheckedBackend
from .conflicts import repeat_conflicts
from .exceptions import InvalidProvider, RecipientOptedOut
from .fields import fit
from .keyed_hash import keyed_hash, keyed_hashes
from .models import SmsMessage, SmsOptOut, problem_of_text, write_db
from .numbers import normalize
from .providers import DEFAULT_ALIAS, providers
from .query_errors import hides_frames

__all__ = ["is_opted_out", "opt_in", "opt_out", "opt_out_many"]

#: The purpose of the hash that stands for a number.
NUMBER = "number"
#: The error code of messages that were refused or cancelled.
CODE = "opted-out"
BATCH_NUMBERS = 1000  # the numbers of one query


# --- the list -------------------------------------------------------------------------------------


@hides_frames
def opt_out(
    number: Any, *, sender: str = "", reason: str = "", source: str = "", created_by: Any = None
) -> bool:
    """Put a number on the do-not-send list; return False where it is there already.

    An entry that is there stays as it is. Messages that are queued for the number are cancelled
    when their turn comes.

    :param number: in any spelling of :func:`django_smska.numbers.normalize`
    :param sender: the sender ID that may not write to it, exactly as in the messages; empty for all
    :param reason: at most 200 characters
    :param source: where the entry comes from, at most 64 characters
    :param created_by: a user, such as ``request.user``
    :raises ValidationError: for what is no number, or too long; nothing is stored
    """
    numbers = [normalize(number)]
    del number
    return bool(
        opt_out_many(numbers, sender=sender, reason=reason, source=source, created_by=created_by)
    )


@hides_frames
def opt_out_many(
    numbers: Iterable[Any],
    *,
    sender: str = "",
    reason: str = "",
    source: str = "",
    created_by: Any = None,
) -> int:
    """Put many numbers on the do-not-send list; return how many were not there.

    A thousand are stored at once. Where it fails on the way it can be repeated.

    The rest is as with :func:`opt_out`.
    """
    about = {"sender": sender, "reason": reason, "source": source}
    require_storable(about)
    every = map(normalize, numbers)  # an iterator: a debug page does not show what it holds
    added = 0
    while batch := list(dict.fromkeys(islice(every, BATCH_NUMBERS))):
        added += _store(batch, about, created_by)
    return added


@hides_frames
def opt_in(number: Any, *, sender: str = "") -> int:
    """Take a number off the do-not-send list; return how many entries that were.

    :param number: in any spelling of :func:`django_smska.numbers.normalize`
    :param sender: take off the entry of this sender alone; empty for all entries of the number
    :raises ValidationError: for what is no number
    """
    found = entries_of(normalize(number))
    del number
    found = found.filter(sender=sender) if sender else found
    return repeat_conflicts(lambda: found.all().delete()[0])


@hides_frames
def stop(number: str, senders: Collection[str], *, reason: str, source: str) -> None:
    """Put a number on the do-not-send list because its person, or a provider, said so.

    :param senders: which may not write to it; empty for all. Where one of them cannot be listed,
        the entry is for all, too
    :param reason: made to fit the column
    """
    reason = str(fit(reason, SmsOptOut._meta.get_field("reason"), connections[write_db()]))
    for sender in sorted(senders) or [""]:
        try:
            require_storable({"sender": sender})
        except ValidationError:
            sender = ""
        opt_out(number, sender=sender, reason=reason, source=source)


def stop_at_provider(message: SmsMessage, error: RecipientOptedOut) -> None:
    """Put the number of a message on the list that the provider refused because of its own list.

    :param error: of the provider, with its alias
    """
    alias = error.alias or message.using
    reason = error.code if error.code.isascii() else ""
    own = [message.sender] if message.sender else senders(alias)
    stop(message.to, own, reason=reason, source=alias)


@hides_frames
def is_opted_out(number: Any, *, sender: str = "", using: str = DEFAULT_ALIAS) -> bool:
    """Return whether :func:`~django_smska.sms.send_sms` would refuse a message to this number.

    :param sender: the sender ID; empty for the provider's
    :param using: an alias of ``SMS_PROVIDERS``
    :raises ValidationError: for what is no number
    """
    numbers = [normalize(number)]
    del number
    return bool(barred(numbers, sender=sender, using=using))


def entries() -> QuerySet[SmsOptOut]:
    """Return the whole list, in the database that messages are written to."""
    return SmsOptOut.objects.using(write_db())


def entries_of(number: str) -> QuerySet[SmsOptOut]:
    """Return the entries of a number in E.164, also where its person was erased."""
    return of_number(entries(), number)


def of_number(listed: QuerySet[SmsOptOut], number: str) -> QuerySet[SmsOptOut]:
    """Return those entries that are of this number in E.164."""
    return listed.filter(_are_of([number]))


@hides_frames
def listed(numbers: Collection[str], sender: str) -> set[str]:
    """Return those of the numbers in E.164 that have an entry for this sender alone, or for all
    where it is empty."""
    senders = _senders_by_number(numbers)
    return {number for number in numbers if sender in senders.get(number, ())}


def _are_of(numbers: Collection[str]) -> Q:
    # The plain numbers hold also where SECRET_KEY was changed and the old one thrown away.
    return Q(number_hash__in=_by_hash(numbers)) | Q(number__in=numbers)


def _by_hash(numbers: Collection[str]) -> dict[str, str]:
    return {one: number for number in numbers for one in keyed_hashes(NUMBER, number)}


def _senders_by_number(numbers: Collection[str]) -> dict[str, set[str]]:
    """Return by number the senders that may not write to it; "" for all. It is one query for a
    thousand numbers."""
    senders: dict[str, set[str]] = defaultdict(set)
    every = iter(numbers)
    while batch := list(islice(every, BATCH_NUMBERS)):
        by_hash = _by_hash(batch)
        found = entries().filter(_are_of(batch)).order_by()
        for number, hashed, sender in found.values_list("number", "number_hash", "sender"):
            senders[by_hash.get(hashed) or number].add(sender)
    return senders


def _store(numbers: list[str], about: dict[str, str], created_by: Any) -> int:
    known = listed(numbers, about["sender"])
    new = [
        SmsOptOut(
            number=number, number_hash=keyed_hash(NUMBER, number), **about, created_by=created_by
        )
        for number in numbers
        if number not in known
    ]
    # Another process may add one of them at this moment.
    repeat_conflicts(lambda: entries().bulk_create(new, ignore_conflicts=True))
    return len(new)


def require_storable(about: dict[str, str]) -> None:
    """Raise ``ValidationError`` for a text that a column would refuse, or MariaDB cut."""
    errors: dict[str, Any] = {}
    for name, value in about.items():
        field: Any = SmsOptOut._meta.get_field(name)
        if problem := problem_of_text(field, value, one_line=True):
            errors[name] = problem
        elif len(value) > field.max_length:
            errors[name] = _("This is longer than %s characters.") % field.max_length
    if errors:
        raise ValidationError(errors)


# --- messages -------------------------------------------------------------------------------------


@hides_frames
def refused(messages: Sequence[Any]) -> list[bool]:
    """Return for each message whether its number is on the list, for its sender. It is one query
    for a thousand messages, and none without one."""
    asked = {one.to for one in messages if not one.despite_opt_out}
    listed = _senders_by_number(asked)
    return [
        one.to in listed
        and not one.despite_opt_out
        and not listed[one.to].isdisjoint(_senders_of(one.sender, one.using))
        for one in messages
    ]


@hides_frames
def barred(numbers: Collection[str], *, sender: str, using: str) -> set[str]:
    """Return those of the numbers in E.164 to which no message of this sender goes."""
    own = set(_senders_of(sender, using))
    listed = _senders_by_number(numbers)
    return {number for number in numbers if own & listed.get(number, set())}


def require(message: SmsMessage) -> None:
    """Raise ``RecipientOptedOut`` for a message whose number is on the list."""
    if refused([message])[0]:
        raise error_for(message)


def error_for(message: SmsMessage) -> RecipientOptedOut:
    """Return the error of a message whose number is on the list."""
    return RecipientOptedOut(alias=message.using, code=CODE, sms=message.pk)


def bar_of(message: SmsMessage) -> Bar | None:
    """Return which entries keep this message back; ``None`` for none."""
    if message.despite_opt_out:
        return None
    return Bar(tuple(keyed_hashes(NUMBER, message.to)), _senders_of(message.sender, message.using))


def _senders_of(sender: str, using: str) -> tuple[str, ...]:
    """Return the senders whose entries hold for a message: "", and what it is sent from."""
    own = [sender] if sender else senders(using)
    return ("", *own)


#: By alias, the senders of messages that name none. To make a backend for each message costs too
#: much.
_senders: dict[str, tuple[str, ...]] = {}


@receiver(setting_changed)  # in tests
def _forget_senders(**kwargs: Any) -> None:
    _senders.clear()


def senders(alias: str) -> tuple[str, ...]:
    """Return from whom a message comes that names no sender: the ``sender_id`` of the provider, or
    those of all members of a failover. In a test run, too, the settings say so."""
    if alias not in _senders:
        try:
            backend = CheckedBackend(alias, providers.configured(alias))
        except InvalidProvider:
            return ()
        _senders[alias] = tuple(sorted(backend.senders))
    return _senders[alias]

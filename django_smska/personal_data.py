"""What is stored about one person: to be handed out, or erased.

Other apps take part by an attribute ``sms_personal_data`` of their ``AppConfig``: the dotted path
of a function that returns a QuerySet of what they store about a number in E.164. Its rows are
handed out with the rest, and an erasure deletes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from django.apps import apps
from django.db import models, router, transaction
from django.db.models import Case, Count, Q, Value, When
from django.db.models.functions import Replace
from django.utils.module_loading import import_string

from . import limits, retention, sending
from .keyed_hash import keyed_hash, keyed_hashes
from .models import (
    SmsErasure,
    SmsInbound,
    SmsMailing,
    SmsMessage,
    SmsMessageQuerySet,
    SmsOptOut,
    mailings,
    rows,
    write_db,
)
from .numbers import mask, normalize
from .states import FINAL, NEEDS_TEXT, Status

#: The purpose of the hash that stands for a number.
NUMBER = "number"
WAITING = (Status.DRAFT, Status.QUEUED)
ERASED_ENTRY = "SMS"  # what is left of the name of an erased row in the admin's log
#: The columns of a message that are no one's data.
INTERNAL = {"token", "lease_until", "code", "text_hash", "immediate"}


# --- erase ----------------------------------------------------------------------------------------


def erase(number: Any, *, by: str = "", dry_run: bool = False) -> SmsErasure:
    """Erase a person's number and texts; return the record of it, which has no number in it.

    Messages that wait are cancelled, and finished and received ones are blanked, however new. What
    is being sent, awaits its report or is unknown is kept: ``details["kept"]`` has how many, by
    status. On the do-not-send list the hash stays, so that the person still gets nothing.

    :param number: in any spelling of :func:`django_smska.numbers.normalize`
    :param by: who does it, at most 150 characters
    :param dry_run: change nothing, and return an unsaved record of what would be done
    :raises ValidationError: for what is no number
    """
    person = _Person(normalize(number))
    del number
    erasure = SmsErasure(number_hash=keyed_hash(NUMBER, person.number), erased_by=by[:150])
    if dry_run:
        erasure.messages, erasure.details = person.blankable(), person.counts()
        return erasure
    erasure.details = {"finished": False}  # also where this process ends on the way
    erasure.save(using=write_db())
    done: dict[str, Any] = {"cancelled": person.cancel()}
    deleted: dict[str, int] = {}
    done["histories"] = done["received"] = 0
    for keys in retention.batches(person.messages.filter(status__in=FINAL)):
        with transaction.atomic(using=write_db()):
            done["histories"] += _erase_histories(SmsMessage, keys)
            erasure.messages += retention.blank(rows(keys))
            erasure.save(using=write_db())
    for keys in retention.batches(person.received):
        with transaction.atomic(using=write_db()):
            done["histories"] += _erase_histories(SmsInbound, keys)
            done["received"] += retention.blank_received(keys)
    done["histories"] += _erase_histories(SmsOptOut, [one.pk for one in person.opt_outs])
    for label, theirs in person.in_other_apps().items():
        with transaction.atomic(using=theirs.db):
            keys = list(theirs.values_list("pk", flat=True))
            done["histories"] += _erase_histories(theirs.model, keys)
            deleted[label] = _delete(theirs)
    done["histories"] += _mask_histories(person)
    done["do_not_send"] = person.blank_opt_outs()
    if named := person.erase_from_mailings():
        done["mailings"] = named
    done["limits"] = limits.forget(person.number)
    if deleted:
        done["deleted"] = deleted
    erasure.details = {**done, "kept": person.kept(), "finished": True}
    erasure.save(using=write_db())
    return erasure


class _Person:
    """The rows about the person with this number. No error report shows the number."""

    def __init__(self, number: str) -> None:
        self.number = number
        self.hashes = keyed_hashes(NUMBER, number)

    @property
    def messages(self) -> SmsMessageQuerySet:
        return rows().filter(to=self.number)

    @property
    def received(self) -> models.QuerySet[SmsInbound]:
        """Return what came from the number, also where the provider left the plus out."""
        return retention.received().filter(sender__in=(self.number, self.number[1:]))

    @property
    def opt_outs(self) -> models.QuerySet[SmsOptOut]:
        """Return the entries of the do-not-send list that are not blank."""
        named = ~Q(number="", reason="", source="")
        return SmsOptOut.objects.using(write_db()).filter(named, self._found_by_hash)

    @property
    def every_opt_out(self) -> models.QuerySet[SmsOptOut]:
        return SmsOptOut.objects.using(write_db()).filter(self._found_by_hash)

    @property
    def _found_by_hash(self) -> Q:
        return Q(number_hash__in=self.hashes) | Q(number=self.number)

    def blank_opt_outs(self) -> int:
        """Blank the entries of the do-not-send list; return how many.

        They get the hash by the present key, because one that is older than all keys was found by
        its number alone. Where the sender has an entry with that hash already, that one is enough.
        """
        present = keyed_hash(NUMBER, self.number)
        blank = {"number": "", "reason": "", "source": "", "number_hash": present}
        with transaction.atomic(using=write_db()):
            named = list(self.opt_outs.order_by("pk").values_list("pk", "sender"))
            for key, sender in named:
                entries = self.every_opt_out.filter(sender=sender)
                if entries.filter(number_hash=present).exclude(pk=key).exists():
                    entries.filter(pk=key).delete()
                else:
                    entries.filter(pk=key).update(**blank)
        return len(named)

    @property
    def erasures(self) -> models.QuerySet[SmsErasure]:
        return SmsErasure.objects.using(write_db()).filter(number_hash__in=self.hashes)

    @property
    def mailings(self) -> Iterator[SmsMailing]:
        """Iterate over the mailings whose name or text has the number in it. People write both, in
        any spelling, so that no query finds it."""
        for mailing in mailings().only("name", "body").order_by("pk").iterator():
            if self._written.search(f"{mailing.name}\n{mailing.body}"):
                yield mailing

    @property
    def _written(self) -> re.Pattern[str]:
        """Return what finds the number in a text, however it is grouped."""
        own = self.number.removeprefix("+7") if self.number.startswith("+7") else self.number[1:]
        start = r"(?:\+?[78][\s().-]{0,3})?" if len(own) < len(self.number) - 1 else r"\+?"
        digits = r"[\s().\u2010-\u2015\u2212-]{0,3}".join(own)
        return re.compile(rf"(?<![0-9]){start}\(?{digits}(?![0-9])")

    def erase_from_mailings(self) -> int:
        """Take the number out of names and texts of mailings, and out of their histories; return
        how many mailings had it."""
        number = 0
        for mailing in list(self.mailings):
            name, body = (self._written.sub("•••", text) for text in (mailing.name, mailing.body))
            mailings([mailing.pk]).update(name=name, body=body)
            _erase_histories(SmsMailing, [mailing.pk])
            number += 1
        return number

    def cancel(self) -> int:
        waiting = self.messages.filter(status__in=WAITING)
        return sum(sending.cancel(rows(keys)) for keys in retention.batches(waiting))

    def blankable(self) -> int:
        return self.messages.filter(status__in=(*FINAL, *WAITING)).count()

    def kept(self) -> dict[str, int]:
        """Return how many messages still have the number, by status."""
        by_status = self.messages.exclude(status__in=(*FINAL, *WAITING)).order_by()
        return dict(by_status.values_list("status").annotate(Count("pk")))

    def in_other_apps(self) -> dict[str, models.QuerySet[Any]]:
        """Return the rows of other apps, by the label of their model."""
        found = [of_number(self.number) for of_number in _other_apps()]
        return {theirs.model._meta.label_lower: theirs for theirs in found}

    def counts(self) -> dict[str, Any]:
        """Return what :func:`erase` would do."""
        deleted = {label: theirs.count() for label, theirs in self.in_other_apps().items()}
        named = sum(1 for _mailing in self.mailings)
        return {
            **({"deleted": deleted} if deleted else {}),
            **({"mailings": named} if named else {}),
            "cancelled": self.messages.filter(status__in=WAITING).count(),
            "received": self.received.count(),
            "do_not_send": self.opt_outs.count(),
            "kept": self.kept(),
        }


def _other_apps() -> list[Callable[[str], models.QuerySet[Any]]]:
    """Return the functions of other apps; each app that is installed may name one."""
    configs = apps.get_app_configs()
    paths = [getattr(config, "sms_personal_data", None) for config in configs]
    return [import_string(path) for path in paths if path is not None]


def _delete(found: models.QuerySet[Any]) -> int:
    """Delete these rows and what hangs on them; return how many of the first they were."""
    return int(found.delete()[1].get(found.model._meta.label, 0))


# --- the admin's log ------------------------------------------------------------------------------


def _entries(model: type[models.Model]) -> models.QuerySet[Any] | None:
    """Return the entries of the admin's log about this model; None where there is no admin."""
    if not apps.is_installed("django.contrib.admin"):
        return None
    log: Any = apps.get_model("admin", "LogEntry")
    entries: models.QuerySet[Any] = log.objects.using(router.db_for_write(log))
    label = {"content_type__app_label": model._meta.app_label}
    return entries.filter(content_type__model=model._meta.model_name, **label)


def _erase_histories(model: type[models.Model], keys: list[Any]) -> int:
    """Blank the history of these rows, into which any program may write; return how many entries.
    Who did something, and when, stays."""
    entries = _entries(model)
    if entries is None:
        return 0
    theirs = entries.filter(object_id__in=[str(key) for key in keys])
    return theirs.update(object_repr=ERASED_ENTRY, change_message="")


def _mask_histories(person: _Person) -> int:
    """Take the number from all other entries, as of rows that were deleted long ago; return how
    many entries."""
    masked, digits = mask(person.number), person.number[2:]
    shorter = Replace("object_repr", Value(masked), Value("•••"))
    quoting = When(change_message__contains=digits, then=Value(""))
    rest = Case(quoting, default="change_message", output_field=models.TextField())
    changed = 0
    others: list[Any] = [found.model for found in person.in_other_apps().values()]
    for model in (SmsMessage, SmsInbound, SmsOptOut, *others):
        entries = _entries(model)
        if entries is None:
            continue
        named = Q(object_repr__contains=masked) | Q(change_message__contains=digits)
        for keys in retention.batches(entries.filter(named)):
            changed += entries.filter(pk__in=keys).update(object_repr=shorter, change_message=rest)
    return changed


# --- hand out -------------------------------------------------------------------------------------


def records(number: Any) -> Iterator[dict[str, Any]]:
    """Yield all that is stored about a person, as plain values: first the messages, oldest first,
    then the received ones, the entries of the do-not-send list, the rows of other apps, mailings
    whose name or text has the number in it, and the erasures. ``record`` says which it is.

    A sensitive text that waits to be sent is left out: it is for the recipient's phone alone.

    :param number: in any spelling of :func:`django_smska.numbers.normalize`
    :raises ValidationError: for what is no number
    """
    person = _Person(normalize(number))
    for keys in retention.batches(person.messages):
        for message in rows(keys).order_by("pk"):
            yield {"record": "message", **_message(message)}
    for keys in retention.batches(person.received):
        for received in retention.received().filter(pk__in=keys).order_by("pk"):
            yield {"record": "received", **_values(received)}
    for entry in person.every_opt_out.order_by("pk"):
        yield {"record": "do-not-send", **_values(entry)}
    for theirs in person.in_other_apps().values():
        for row in theirs.order_by("pk"):
            yield {"record": row._meta.model_name, **_values(row), **_related(row)}
    for mailing in person.mailings:
        yield {"record": "mailing", "id": mailing.pk, "name": mailing.name, "body": mailing.body}
    for erasure in person.erasures.order_by("pk"):
        yield {"record": "erasure", **_values(erasure)}


def _message(message: SmsMessage) -> dict[str, Any]:
    if message.sensitive and message.status in NEEDS_TEXT:
        message.body = ""
    values = _values(message)
    return {name: value for name, value in values.items() if name not in INTERNAL}


def _values(row: models.Model) -> dict[str, Any]:
    return {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}


def _related(row: models.Model) -> dict[str, list[str]]:
    """Return the names of the rows that this one is linked to, such as groups."""
    return {
        field.name: [str(one) for one in getattr(row, field.name).all()]
        for field in row._meta.many_to_many
    }

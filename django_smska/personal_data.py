"""What is stored about one person: to be handed out, or erased.

Other apps take part by an attribute ``sms_personal_data`` of their ``AppConfig``: the dotted path
of a function that returns a QuerySet of what they store about a number in E.164. Its rows are
handed out with the rest, and an erasure deletes them. A second attribute, ``sms_free_texts``, has
the columns in which their users may have written a number, by the names of their models. There an
erasure replaces the number by dots.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

from django.apps import apps
from django.db import IntegrityError, models, router, transaction
from django.db.models import Count, Q
from django.utils.module_loading import import_string

from . import limits, retention, sending
from .keyed_hash import keyed_hash, keyed_hashes
from .models import (
    ProviderState,
    SmsErasure,
    SmsInbound,
    SmsMailing,
    SmsMessage,
    SmsMessageQuerySet,
    SmsOptOut,
    SmsTemplate,
    dots,
    rows,
    write_db,
)
from .numbers import mask, normalize
from .states import FINAL, NEEDS_TEXT, Status

#: The purpose of the hash that stands for a number.
NUMBER = "number"
WAITING = (Status.DRAFT, Status.QUEUED)
BATCH_ENTRIES = 200  # the entries of the admin's log that one UPDATE changes
ERASED_ENTRY = "SMS"  # what is left of the name of an erased row in the admin's log
#: The columns of a message that are no one's data.
INTERNAL = {"token", "lease_until", "code", "text_hash", "immediate"}
#: The columns in which people and providers write what they like, a number in any spelling, too.
#: Of messages the column of the number alone decides whose they are.
FREE_TEXTS: dict[Any, tuple[str, ...]] = {
    SmsMailing: ("name", "body"),
    SmsTemplate: ("name", "body"),
    SmsOptOut: ("reason", "source"),
    ProviderState: ("detail",),
}
#: What ``record`` says of those that are handed out whole. They are about no other person.
WHOLE = {SmsMailing: "mailing", SmsTemplate: "template"}


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
    erasure = SmsErasure(
        number_hash=keyed_hash(NUMBER, person.number), erased_by=person.hidden_in(by, _dots())[:150]
    )
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
    done["do_not_send"] = person.blank_opt_outs()
    changed = person.in_free_texts()
    for model, keys in changed.items():
        for key in keys:
            person.erase_from(model, key)
    if changed:
        done["changed"] = _by_label(changed)
    done["histories"] += _mask_histories(person)
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
    def free_texts(self) -> Iterator[tuple[Any, list[str]]]:
        """Iterate over the rows in whose free text the number stands, with the columns that have
        it. The person's own rows are left out: they are handed out and erased whole."""
        own = {theirs.model: theirs for theirs in self.in_other_apps().values()}
        own[SmsOptOut] = self.every_opt_out
        for model, columns in _free_texts().items():
            skipped = set(own[model].values_list("pk", flat=True)) if model in own else set[Any]()
            found = _stored(model).filter(self.may_stand_in(*columns)).order_by("pk")
            for row in found.iterator():
                hits = [name for name in columns if self.stands_in(getattr(row, name) or "")]
                if hits and row.pk not in skipped:
                    yield row, hits

    def in_free_texts(self) -> dict[Any, list[Any]]:
        """Return the keys of these rows, by their model."""
        every = groupby(self.free_texts, key=lambda found: found[0]._meta.model)
        return {model: [row.pk for row, _hits in found] for model, found in every}

    def may_stand_in(self, *columns: str) -> Q:
        """Return the condition for rows that may have the number, however it is grouped. Databases
        differ in their expressions, so :meth:`stands_in` decides."""
        # MariaDB counts bytes: three marks are at most twelve.
        pattern = "[^0-9]{0,12}".join(self._own_digits)
        found = Q()
        for name in columns:
            found |= Q(**{f"{name}__regex": pattern})
        return found

    def stands_in(self, text: str) -> bool:
        return bool(self._written.search(text))

    def hidden_in(self, text: str, dots: str) -> str:
        """Return the text with dots in the place of the number."""
        return self._written.sub(dots, text)

    @property
    def _own_digits(self) -> str:
        """Return the digits that each spelling has."""
        return self.number.removeprefix("+7") if self.number.startswith("+7") else self.number[1:]

    @property
    def _written(self) -> re.Pattern[str]:
        """Return what finds the number in a text, however it is grouped."""
        own = self._own_digits
        start = r"(?:\+?[78][\s().-]{0,3})?" if len(own) < len(self.number) - 1 else r"\+?"
        digits = r"[\s().\u2010-\u2015\u2212-]{0,3}".join(own)
        return re.compile(rf"(?<![0-9]){start}\(?{digits}(?![0-9])")

    def erase_from(self, model: Any, key: Any) -> None:
        """Put dots in the place of the number in the free texts of a row."""
        columns, hidden = _free_texts()[model], _dots()
        with transaction.atomic(using=_database(model)):
            found = _stored(model).filter(pk=key)
            for texts in found.select_for_update().values(*columns):
                try:
                    with transaction.atomic(using=_database(model)):
                        found.update(**self._hidden_in_all(texts, hidden))
                except IntegrityError:  # the name is unique, and another one had the number, too
                    found.update(**self._hidden_in_all(texts, f"{hidden}{key}"))

    def _hidden_in_all(self, texts: dict[str, str | None], dots: str) -> dict[str, str]:
        return {name: self.hidden_in(text, dots) for name, text in texts.items() if text}

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
        changed = _by_label(self.in_free_texts())
        return {
            **({"deleted": deleted} if deleted else {}),
            **({"changed": changed} if changed else {}),
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


def _free_texts() -> dict[Any, tuple[str, ...]]:
    """Return the columns of free text, by their model; each app that is installed may name some."""
    found = dict(FREE_TEXTS)
    for config in apps.get_app_configs():
        for name, columns in getattr(config, "sms_free_texts", {}).items():
            found[config.get_model(name)] = tuple(columns)
    return found


def _dots() -> str:
    """Return what stands in the place of a number, as the database can store it."""
    return dots()[:3]


def _database(model: Any) -> str:
    """Return the alias of the database in which rows of this model are changed."""
    return write_db() if model in FREE_TEXTS else router.db_for_write(model)


def _stored(model: Any) -> models.QuerySet[Any]:
    found: models.QuerySet[Any] = model._default_manager.using(_database(model))
    return found


def _by_label(found: dict[Any, list[Any]]) -> dict[str, list[Any]]:
    return {model._meta.label_lower: keys for model, keys in found.items()}


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
    named = person.may_stand_in("object_repr", "change_message")
    named |= Q(change_message__contains=person.number[2:])
    if digits := re.findall("[0-9]+", mask(person.number)):
        # A database that lacks the mask's dots refuses a query with them.
        masked = "[^0-9]{1,12}".join(digits)
        named |= Q(object_repr__regex=masked) | Q(change_message__regex=masked)
    changed = 0
    others = [found.model for found in person.in_other_apps().values()]
    for model in {*apps.get_app_config("django_smska").get_models(), *_free_texts(), *others}:
        entries = _entries(model)
        if entries is None:
            continue
        for keys in retention.batches(entries.filter(named)):
            changed += _mask_entries(entries.filter(pk__in=keys), person)
    return changed


def _mask_entries(entries: models.QuerySet[Any], person: _Person) -> int:
    masked, digits, hidden = mask(person.number), person.number[2:], _dots()
    changed: list[Any] = []
    for entry in entries:
        before = entry.object_repr, entry.change_message
        entry.object_repr = person.hidden_in(before[0].replace(masked, hidden), hidden)
        entry.change_message = before[1].replace(masked, hidden)
        if digits in before[1] or person.stands_in(before[1]):
            entry.change_message = ""
        if (entry.object_repr, entry.change_message) != before:
            changed.append(entry)
    entries.bulk_update(changed, ["object_repr", "change_message"], batch_size=BATCH_ENTRIES)
    return len(changed)


# --- hand out -------------------------------------------------------------------------------------


def records(number: Any) -> Iterator[dict[str, Any]]:
    """Yield all that is stored about a person, as plain values: first the messages, oldest first,
    then the received ones, the entries of the do-not-send list, the rows of other apps, mailings
    and templates whose name or text has the number in it, other free texts that have it, and the
    erasures. ``record`` says which it is.

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
    for row, hits in person.free_texts:
        yield _free_text(row, hits)
    for erasure in person.erasures.order_by("pk"):
        yield {"record": "erasure", **_values(erasure)}


def _message(message: SmsMessage) -> dict[str, Any]:
    if message.sensitive and message.status in NEEDS_TEXT:
        message.body = ""
    values = _values(message)
    return {name: value for name, value in values.items() if name not in INTERNAL}


def _free_text(row: Any, hits: list[str]) -> dict[str, Any]:
    """Return the texts of a row. One that may be about another person keeps all others."""
    model = row._meta.model
    whole = model in WHOLE
    record = WHOLE[model] if whole else f"text of {row._meta.model_name}"
    names = FREE_TEXTS[model] if whole else hits
    return {"record": record, "id": row.pk, **{name: getattr(row, name) for name in names}}


def _values(row: models.Model) -> dict[str, Any]:
    return {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}


def _related(row: models.Model) -> dict[str, list[str]]:
    """Return the names of the rows that this one is linked to, such as groups."""
    return {
        field.name: [str(one) for one in getattr(row, field.name).all()]
        for field in row._meta.many_to_many
    }

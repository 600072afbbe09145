"""One row is one text to one number, accepted at most once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connections, models, router, transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from . import conf, times
from .exceptions import WrongStatus
from .fields import (
    UNSENDABLE,
    ExactField,
    ExternalCharField,
    ExternalTextField,
    UserField,
    unsupported_character,
)
from .numbers import mask, normalize
from .providers import DEFAULT_ALIAS
from .segments import count
from .states import Status

MAX_NEEDING_ATTENTION = 500  # the most messages of each status that are examined
MAX_PRIORITY = 32767  # the highest priority that every database can store


class SmsMessageQuerySet(models.QuerySet["SmsMessage"]):
    """Queries about messages; what changes them is in ``sending`` and ``delivery``."""

    def due(self, now: datetime) -> SmsMessageQuerySet:
        """Return queued messages whose time has come and whose expiry has not, in their order."""
        # A condition on a plain column invites its index, and then a sort of the whole queue.
        hidden: dict[str, Any] = {
            "expiry": Coalesce("expires_at", "expires_at"),
            "start": F("send_after"),
        }
        if connections[self.db].vendor == "sqlite":  # it has no statistics to choose by
            hidden["start"] = Coalesce("send_after", "send_after")
        queued = self.alias(**hidden).filter(
            Q(status=Status.QUEUED), Q(start__lte=now), Q(expiry__gt=now)
        )
        return queued.order_by("-priority", "send_after", "id")

    def next_time(self) -> SmsMessageQuerySet:
        """Return queued messages, the one whose time is next first."""
        return self.filter(status=Status.QUEUED).order_by("send_after")

    def overdue(self, now: datetime) -> SmsMessageQuerySet:
        """Return queued messages that expired unsent."""
        return self.filter(status=Status.QUEUED, expires_at__lte=now)

    def stale(self, now: datetime) -> SmsMessageQuerySet:
        """Return messages held longer than their lease, because the worker has crashed or hung."""
        return self.filter(status__in=(Status.CLAIMED, Status.SENDING), lease_until__lte=now)

    def awaiting_report(self, now: datetime) -> SmsMessageQuerySet:
        """Return sent messages whose next status query is due."""
        return self.filter(status=Status.SENT, next_status_at__lte=now).order_by("next_status_at")

    def needing_attention(self, now: datetime, *, most: int = MAX_NEEDING_ATTENTION) -> list[Any]:
        """Return the keys of the messages that a person must look at: those that are *unknown*, and
        those that failed in the last seven days, unless they were sent again.

        Of each status it examines the newest ``most``, so that it stays quick in a long table.
        """
        return [
            *self._not_resent(Status.UNKNOWN, most),
            *self._not_resent(Status.FAILED, most, since=now - timedelta(days=7)),
        ]

    def _not_resent(self, status: Status, most: int, since: datetime | None = None) -> list[Any]:
        # Each condition that no index serves comes after the limit: in one query, PostgreSQL joins
        # whole tables first.
        newest = self.filter(status=status).order_by("-id")
        found = [
            pk
            for pk, finished in newest.values_list("pk", "finished_at")[:most]
            if since is None or (finished is not None and finished >= since)
        ]
        again = SmsMessage.objects.using(self.db).filter(resend_of__in=found).order_by()
        resent = set(again.values_list("resend_of_id", flat=True)) if found else set()
        return [pk for pk in found if pk not in resent]

    def bulk_update(self, *args: Any, **kwargs: Any) -> int:
        """Refuse it, because only ``save()`` checks the values and that the message is a draft."""
        raise TypeError("bulk_update() would write messages unchecked. Call save() on each draft.")

    def refresh_status(self) -> dict[str, int]:
        """Query the reports of these messages; return how many have which status.

        Messages that cannot be queried are counted under their present status.
        """
        from .delivery import refresh

        return refresh(self)


class SmsMessage(models.Model):
    """A message, from its draft to its delivery report.

    ``status`` and the times are written by ``sending`` and ``delivery`` alone, each by a
    conditional UPDATE; :meth:`save` writes what a person may edit, and only while it is a draft.
    """

    #: The fields that ``save()`` writes: those of a draft, and what follows from them.
    SAVED = (
        "to",
        "body",
        "sender",
        "using",
        "priority",
        "send_after",
        "expires_at",
        "idempotency_key",
        "segments",
        "encoding",
        "created_by",
    )

    to = models.CharField(_("number"), max_length=16)
    body = models.TextField(_("text"))
    sender = models.CharField(
        _("sender"), max_length=32, blank=True, help_text=_("Empty: the provider's sender ID.")
    )
    using = models.CharField(_("provider"), max_length=64, default=DEFAULT_ALIAS)
    status = models.CharField(
        _("status"), max_length=16, choices=Status.choices, default=Status.DRAFT, editable=False
    )

    gateway_id = models.CharField(_("gateway id"), max_length=64, blank=True, editable=False)
    gateway_status = ExternalCharField(
        _("gateway status"), max_length=64, blank=True, editable=False
    )
    error_code = ExternalCharField(_("error code"), max_length=32, blank=True, editable=False)
    error_text = ExternalTextField(_("error"), blank=True, editable=False)

    segments = models.PositiveSmallIntegerField(
        pgettext_lazy("SMS", "segments"), default=0, editable=False
    )
    encoding = models.CharField(_("encoding"), max_length=8, blank=True, editable=False)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0, editable=False)
    priority = models.SmallIntegerField(_("priority"), default=0, help_text=_("Higher goes first."))
    send_after = models.DateTimeField(
        _("send after"), default=timezone.now, help_text=_("Not sent before this time.")
    )
    expires_at = models.DateTimeField(
        _("expires at"),
        null=True,
        blank=True,
        help_text=_("Not sent after this time. Empty: the site's default lifetime."),
    )
    idempotency_key = ExactField(
        _("idempotency key"), max_length=128, unique=True, null=True, blank=True, default=None
    )
    resend_of = models.OneToOneField(
        "self",
        models.PROTECT,
        verbose_name=_("resend of"),
        related_name="resent_as",
        null=True,
        blank=True,
        editable=False,
    )
    created_by = UserField(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        verbose_name=_("created by"),
        related_name="+",
        null=True,
        blank=True,
        editable=False,
    )

    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)
    claimed_at = models.DateTimeField(_("claimed"), null=True, editable=False)
    sending_at = models.DateTimeField(_("request began"), null=True, editable=False)
    sent_at = models.DateTimeField(_("sent"), null=True, editable=False)
    finished_at = models.DateTimeField(_("finished"), null=True, editable=False)

    #: The caller waits for it: when this claim ends unsent, no worker sends it later.
    immediate = models.BooleanField(default=False, editable=False)
    token = models.CharField(max_length=32, blank=True, editable=False)
    lease_until = models.DateTimeField(null=True, editable=False)
    next_status_at = models.DateTimeField(_("next status query"), null=True, editable=False)
    status_queries = models.PositiveSmallIntegerField(default=0, editable=False)

    #: Whether this very object was inserted: only then may a lost row mean a rollback.
    _inserted_here = False

    objects = SmsMessageQuerySet.as_manager()

    #: The monotonic time after which this process may not begin to send it. No column.
    leave_until = math.inf

    class Meta:
        verbose_name = _("SMS message")
        verbose_name_plural = _("SMS messages")
        ordering = ("-id",)
        permissions = [
            ("send_smsmessage", "Can send SMS messages"),
            ("refresh_smsmessage", "Can refresh the status of SMS messages"),
            ("resend_smsmessage", "Can decide about and resend SMS messages"),
            ("see_text_smsmessage", "Can see the text of SMS messages"),
            ("see_number_smsmessage", "Can see the whole number of SMS messages"),
            ("export_smsmessage", "Can export SMS messages"),
        ]
        indexes = [
            models.Index(
                fields=["status", "using", "-priority", "send_after", "id"], name="smska_claim"
            ),
            models.Index(fields=["status", "using", "send_after"], name="smska_due"),
            models.Index(fields=["status", "expires_at"], name="smska_expiry"),
            models.Index(fields=["status", "next_status_at"], name="smska_report"),
            models.Index(fields=["status", "-id"], name="smska_status"),
            models.Index(fields=["to"], name="smska_number"),
            models.Index(fields=["gateway_id"], name="smska_gateway_id"),
            models.Index(fields=["created_at"], name="smska_created"),
        ]
        constraints = [
            models.CheckConstraint(
                name="smska_status_known", condition=Q(status__in=Status.values)
            ),
            models.CheckConstraint(
                name="smska_claim_has_lease",
                condition=~Q(status__in=["claimed", "sending"]) | Q(lease_until__isnull=False),
            ),
            models.CheckConstraint(
                name="smska_queued_has_expiry",
                condition=Q(status__in=["draft", "cancelled"]) | Q(expires_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"SMS {self.pk or ''} → {mask(str(self.to))}".replace("  ", " ")

    def __repr__(self) -> str:
        return f"<SmsMessage {self.pk} {self.status} {mask(str(self.to))}>"

    def save(
        self,
        *,
        force_insert: Any = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        """Store a new message, or the edited fields of a draft.

        A new message whose transaction was rolled back is stored as new again.

        Raises ``WrongStatus`` for a message that is no longer a draft, and ``ValueError`` for
        ``update_fields`` that may not be edited; then nothing is stored.
        """
        if self._inserted_here and rolled_back([self]):
            self.make_new()
        if self._state.adding:
            self._start_new()
            super().save(
                force_insert=force_insert or True,
                force_update=force_update,
                using=using,
                update_fields=update_fields,
            )
            self._inserted_here = True
            return
        fields = self._editable(update_fields)
        if not fields:
            return
        self.prepare()
        if fields & {"to", "body"}:
            fields |= {"segments", "encoding"}
        with transaction.atomic(using=write_db()):
            if not rows().select_for_update().filter(pk=self.pk, status=Status.DRAFT).exists():
                raise WrongStatus("Only a draft can be edited. Send a new message.", sms=self.pk)
            super().save(
                force_insert=force_insert,
                force_update=force_update,
                using=using,
                update_fields=sorted(fields),
            )

    def make_new(self) -> None:
        """Let the next ``save()`` insert this object, whatever row it had."""
        self.pk, self._state.adding, self._state.db = None, True, None

    @classmethod
    def _editable(cls, names: Iterable[str] | None) -> set[str]:
        """Return the fields that are to be saved."""
        if names is None:
            return set(cls.SAVED)
        fields = {"created_by" if name == "created_by_id" else name for name in names}
        if cls._times() <= fields:
            fields -= cls._times() - set(cls.SAVED)
        if wrong := sorted(fields - set(cls.SAVED)):
            raise ValueError(
                f"save() cannot write {', '.join(wrong)}. It writes: "
                f"{', '.join(cls.SAVED)}. Only sending writes the other fields."
            )
        return fields

    @classmethod
    def _times(cls) -> set[str]:
        """Return the fields that ``update_or_create()`` adds to those that it was given."""
        fields = cls._meta.concrete_fields
        return {one.name for one in fields if type(one).pre_save is not models.Field.pre_save}

    def _start_new(self) -> None:
        """Clear the result fields, so that a copied instance does not look sent."""
        if self.status not in (Status.DRAFT, Status.QUEUED, Status.CLAIMED):
            raise WrongStatus(f"A new message cannot be {self.status}. Create a draft.")
        self.prepare()
        for name in ("gateway_id", "gateway_status", "error_code", "error_text"):
            setattr(self, name, "")
        for name in ("sending_at", "sent_at", "finished_at", "next_status_at"):
            setattr(self, name, None)

    def prepare(self) -> None:
        """Normalize number and line ends, set expiry and segments, and check every field.

        Raises ``ValidationError`` with the field's name, never with its value.
        """
        self._tidy()
        errors = dict(self._problems())
        if not errors:
            self._measure()
            errors = dict(self._problems_of_size())
        if errors:
            raise ValidationError(errors)
        self.clean_fields(exclude=self._unchecked())

    def _tidy(self) -> None:
        for name in ("body", "sender"):
            value = getattr(self, name)
            if isinstance(value, Promise):
                value = str(value)  # a lazy translation
            if isinstance(value, str):
                setattr(self, name, str.__str__(value))  # no subclass with its own encode()
        if isinstance(self.body, str):
            # Browsers and files end lines with CR LF, and CR would count as a GSM character.
            self.body = self.body.replace("\r\n", "\n").replace("\r", "\n")
        self.idempotency_key = self.idempotency_key or None

    def _problems(self) -> Iterator[tuple[str, ValidationError]]:
        """Yield what is wrong with each field alone."""
        try:
            self.to = normalize(self.to)
        except ValidationError as error:
            yield "to", error
        for name in ("body", "sender", "idempotency_key"):
            if problem := self._problem_of_text(name):
                yield name, problem
        for name, latest in self._latest_times().items():
            if words := times.problem(getattr(self, name), latest):
                yield name, ValidationError(words, code="invalid")
        if not (isinstance(self.priority, int) and abs(self.priority) <= MAX_PRIORITY):
            words = _("This must be a whole number from %(least)s to %(most)s.")
            params = {"least": -MAX_PRIORITY, "most": MAX_PRIORITY}
            yield "priority", ValidationError(words, code="invalid", params=params)

    def _problem_of_text(self, name: str) -> ValidationError | None:
        value = getattr(self, name)
        if name == "idempotency_key" and value is None:
            return None
        if problem := _unstorable(value, one_line=name != "body"):
            return ValidationError(problem, code="invalid")
        return self._problem_of_character(name)

    def _latest_times(self) -> dict[str, Callable[[], datetime]]:
        """Return the fields with a time to check, and what gives the latest time of each."""
        bounds = {"send_after": times.latest}
        if self.expires_at is not None:
            bounds["expires_at"] = times.latest_expiry
        if self._state.adding:
            bounds["created_at"] = times.latest
        return bounds

    def _problem_of_character(self, name: str) -> ValidationError | None:
        """Return the error about a character that the database's character set does not have."""
        text = getattr(self, name)
        if text.isascii():
            return None
        field = self._meta.get_field(name)
        unsupported = unsupported_character(text, field, connections[write_db()])
        if unsupported is None:
            return None
        return ValidationError(
            _(
                "The database cannot store character %(place)s (%(code)s), because it is not set "
                "up for all characters (UTF-8). Remove the character, or ask your administrator."
            ),
            code="charset",
            params={"place": text.index(unsupported) + 1, "code": f"U+{ord(unsupported):04X}"},
        )

    def clean(self) -> None:
        self.prepare()

    @classmethod
    def _unchecked(cls) -> set[str]:
        """Return the fields that are not edited, and those whose check would be a query."""
        fields = cls._meta.concrete_fields
        return {one.name for one in fields if not one.editable or one.is_relation} | {"id"}

    def _measure(self) -> None:
        size = count(self.body)
        self.segments, self.encoding = size.segments, size.encoding
        if self.expires_at is None and self.status != Status.DRAFT:
            self.expires_at = self.send_after + conf.expires_after()

    def _problems_of_size(self) -> Iterator[tuple[str, ValidationError]]:
        if not self.body.strip():
            yield "body", ValidationError(_("The text is empty."), code="empty")
        elif self.segments > conf.max_segments():
            words = _("The text has %(segments)s segments; the maximum is %(most)s. Shorten it.")
            params = {"segments": self.segments, "most": conf.max_segments()}
            yield "body", ValidationError(words, code="too_long", params=params)
        if self.expires_at is not None and self.expires_at <= self.send_after:
            words = _("It would expire before it may be sent.")
            yield "expires_at", ValidationError(words, code="expired")

    def send(self) -> None:
        """Send this draft or queued message now.

        Inside a transaction it is sent right after the commit.

        :raises SmsNotSent: if it was not sent: it has *failed*, or is a draft as before, and no
            worker sends it later
        :raises SmsOutcomeUnknown: if it may have been sent, or will be: a queued message stays
            queued while its provider is paused (code "paused"), or where too many wait under its
            rate ("rate")
        :raises WrongStatus: if it is neither draft nor queued
        """
        from .sending import send

        send(self)

    def refresh_status(self) -> None:
        """Ask the gateway for the delivery report. Raises ``SmsError`` for an unusable answer."""
        from .delivery import refresh_one

        refresh_one(self)


class ProviderState(models.Model):
    """The circuit breaker of a provider, its balance and its rate, as all workers see them."""

    alias = models.CharField(_("provider"), max_length=64, primary_key=True)
    reason = models.CharField(_("reason"), max_length=16, blank=True)
    detail = ExternalTextField(_("details"), blank=True)
    failures = models.PositiveIntegerField(_("failures in a row"), default=0)
    probes = models.PositiveIntegerField(_("probes since the pause"), default=0)
    paused_at = models.DateTimeField(_("paused since"), null=True)
    probe_at = models.DateTimeField(_("next probe"), null=True)
    balance = models.DecimalField(_("balance"), max_digits=18, decimal_places=4, null=True)
    balance_at = models.DateTimeField(_("balance reported"), null=True)
    next_send_at = models.DateTimeField(_("next sending"), null=True)
    worker_seen_at = models.DateTimeField(_("worker last seen"), null=True)

    class Meta:
        verbose_name = _("SMS provider")
        verbose_name_plural = _("SMS providers")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return self.alias

    @property
    def is_paused(self) -> bool:
        return self.paused_at is not None


class SmsDay(models.Model):
    """A day on which messages were written. ``daily_counts`` keeps these rows and their counts.

    :ivar settled: every counted status is final, so that the day is not counted again
    """

    day = models.DateField(primary_key=True)
    counted_at = models.DateTimeField(null=True)
    settled = models.BooleanField(default=False)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.day)


class SmsDayCount(models.Model):
    """The number of messages of one day that have all these columns in common.

    ``error_code`` is kept of failed messages only, and ``delivered_within_seconds`` of delivered
    ones: the upper end of a range of delivery times, or 0. ``messages`` and ``segments`` include
    the pruned ones, which are in no other table.
    """

    day = models.ForeignKey(SmsDay, models.CASCADE, related_name="counts", db_index=False)
    using = ExactField(max_length=64)
    sender = ExactField(max_length=32)
    status = models.CharField(max_length=16)
    error_code = ExactField(max_length=32)
    delivered_within_seconds = models.PositiveBigIntegerField(default=0)
    messages = models.PositiveBigIntegerField(default=0)
    segments = models.PositiveBigIntegerField(default=0)
    pruned_messages = models.PositiveBigIntegerField(default=0)
    pruned_segments = models.PositiveBigIntegerField(default=0)

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                name="smska_day_count",
                fields=(
                    *("day", "using", "sender", "status", "error_code"),
                    "delivered_within_seconds",
                ),
            )
        ]

    def __str__(self) -> str:
        return f"{self.day_id} {self.using} {self.status}: {self.messages}"


for _model in (SmsMessage, ProviderState, SmsDay):
    times.make_readable(_model)


def write_db() -> str:
    """Return the alias of the database that messages are written to."""
    return router.db_for_write(SmsMessage)


def provider_states() -> models.QuerySet[ProviderState]:
    """Return the rows of the providers, in the database that is written to."""
    return ProviderState.objects.using(write_db())


def rows(pks: Iterable[Any] | None = None) -> SmsMessageQuerySet:
    """Return messages in the database that is written to: a replica may lag behind a claim."""
    every = SmsMessage.objects.using(write_db())
    return every if pks is None else every.filter(pk__in=list(pks))


def rolled_back(messages: Iterable[SmsMessage]) -> list[SmsMessage]:
    """Return those of these saved objects whose row is not there, since its transaction was rolled
    back. It is one query, and none without an object.

    A row with the key of an object and another time of creation is another message's: SQLite gives
    a key out again after a rollback.
    """
    unsent = [one for one in messages if one.status in (Status.DRAFT, Status.QUEUED)]
    if not unsent:
        return []
    created = dict(rows(one.pk for one in unsent).values_list("pk", "created_at"))
    return [one for one in unsent if created.get(one.pk) != one.created_at]


_CONTROL = re.compile("[\x00-\x1f]")


def _unstorable(value: Any, *, one_line: bool) -> Any:
    """Return why a text cannot be stored or sent, or None."""
    if not isinstance(value, str):
        return _("This must be text.")
    if UNSENDABLE.search(value):
        return _("The text has a character that cannot be sent (NUL or half a surrogate pair).")
    if one_line and _CONTROL.search(value):
        return _("This must be one line.")
    return None

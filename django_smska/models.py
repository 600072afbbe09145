"""One row is one text to one number, accepted at most once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connections, models, router, transaction
from django.db.models import F, OuterRef, Q, Subquery, Value
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from . import conf, fields, times
from .exceptions import SmsError, WrongStatus
from .fields import (
    UNSENDABLE,
    unsupported_character,
)
from .keyed_hash import keyed_hash, keyed_hashes
from .numbers import mask, normalize
from .providers import DEFAULT_ALIAS
from .query_errors import hides_values
from .receipts import Receipt
from .references import CHARACTERS, new_reference
from .segments import count, with_plain_lines
from .states import Status

MAX_NEEDING_ATTENTION = 500  # the most messages of each status that are examined
MAX_PRIORITY = 32767  # the highest priority that every database can store
MAX_CODE_CHARACTERS = 64  # the longest one-time code
DOTS = "••••"  # what a wiped text has in the place of its code
EVERY_ALIAS = "*"  # of the row that says whether every provider is stopped
#: Django's fields without their types, because the annotation beside each says what the attribute
#: of a row holds: to every type checker, with and without the stubs of Django.
columns: Any = models
ours: Any = fields
#: The error code of a message that is cancelled because a report says that it was sent before.
REPORTED = "reported"
PLAIN_DOTS = "...."  # the same, where the database's character set lacks the others


class Proof(models.TextChoices):
    """How it became known that a message was accepted whose outcome was *unknown*."""

    PERSON = "person"
    REPORT = "report"
    ANSWER = "answer"

    @property
    def label(self) -> Any:
        """Its name for people; lazy."""
        return PROOFS[self]


PROOFS: dict[Proof, Any] = {
    Proof.PERSON: _("a person"),
    Proof.REPORT: _("a report of the provider"),
    Proof.ANSWER: _("an answer of the provider"),
}


class _Creating:
    """``create()`` as Django's, but no frame keeps the values, which a debug page would show."""

    model: type[SmsMessage]
    _db: str | None

    def create(self, **values: Any) -> SmsMessage:
        message = self.model(**values)
        del values
        message.save(force_insert=True, using=self._db)
        return message


class SmsMessageQuerySet(_Creating, models.QuerySet["SmsMessage"]):
    """Queries about messages; what changes them is in ``sending`` and ``delivery``."""

    def due(self, now: datetime, alias: Any = None) -> SmsMessageQuerySet:
        """Return queued messages whose time has come and whose expiry has not, in their order,
        without those that are held.

        :param alias: of their provider, if they have but one: its hold is then found once, and not
            for each row
        """
        # A condition on a plain column invites its index, and then a sort of the whole queue.
        hidden: dict[str, Any] = {
            "expiry": Coalesce("expires_at", "expires_at"),
            "start": F("send_after"),
            "released": Coalesce("send_after", "send_after"),
        }
        if connections[self.db].vendor == "sqlite":  # it has no statistics to choose by
            hidden["start"] = Coalesce("send_after", "send_after")
        queued = self.alias(**hidden).filter(
            Q(status=Status.QUEUED),
            Q(start__lte=now),
            Q(expiry__gt=now),
            Q(released__gt=_held_before(alias or OuterRef("using"))),
        )
        return queued.order_by("-priority", "send_after", "id")

    def held(self, now: datetime, alias: Any = None) -> SmsMessageQuerySet:
        """Return queued messages that wait for a person, see ``held_queue``; not expired ones.

        :param alias: as with :meth:`due`
        """
        held_before = _held_before(alias or OuterRef("using"))
        queued = self.filter(status=Status.QUEUED, send_after__lte=held_before)
        return queued.filter(expires_at__gt=now)

    def not_held(self) -> SmsMessageQuerySet:
        """Leave out what waits for a person, see ``held_queue``."""
        free = self.alias(released=Coalesce("send_after", "send_after"))
        return free.filter(Q(released__gt=_held_before(OuterRef("using"))))

    def next_times(self, alias: Any) -> Any:
        """Return the times of a provider's queued messages that are not held, the next one first.

        :param alias: the provider, or what refers to it in a query
        """
        queued = self.filter(status=Status.QUEUED, send_after__gt=_held_before(alias))
        # Django would sort by what it selects: that is no plain column here, and has no index.
        time = times.Readable("send_after")
        return queued.order_by("send_after").values_list(time, flat=True)

    def overdue(self, now: datetime) -> SmsMessageQuerySet:
        """Return queued messages that expired unsent."""
        return self.filter(status=Status.QUEUED, expires_at__lte=now)

    def stale(self, now: datetime) -> SmsMessageQuerySet:
        """Return messages held longer than their lease, because the worker has crashed or hung."""
        return self.filter(status__in=(Status.CLAIMED, Status.SENDING), lease_until__lte=now)

    def unsent(self) -> SmsMessageQuerySet:
        """Return messages that were definitely not sent, and never will be."""
        cancelled = Q(status=Status.CANCELLED) & ~Q(error_code=REPORTED)
        return self.filter(Q(status=Status.FAILED) | cancelled)

    def awaiting_report(self, now: datetime) -> SmsMessageQuerySet:
        """Return sent messages whose next status query is due."""
        return self.filter(status=Status.SENT, next_status_at__lte=now).order_by("next_status_at")

    def awaiting_proof(self, now: datetime) -> SmsMessageQuerySet:
        """Return *unknown* messages for which the provider is due to be asked."""
        return self.filter(status=Status.UNKNOWN, next_status_at__lte=now).order_by(
            "next_status_at"
        )

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
        resent: set[Any] = set(again.values_list("resend_of_id", flat=True)) if found else set()
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


if TYPE_CHECKING:

    class SmsMessageManager(SmsMessageQuerySet):
        """``SmsMessage.objects``: a manager with all methods of the query set."""

        def get_queryset(self) -> SmsMessageQuerySet: ...
        def db_manager(self, using: str) -> SmsMessageManager: ...
else:

    class SmsMessageManager(_Creating, models.Manager.from_queryset(SmsMessageQuerySet)):
        """``SmsMessage.objects``."""


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
        "has_site_lifetime",
        "idempotency_key",
        "sensitive",
        "code",
        "despite_opt_out",
        "segments",
        "encoding",
        "text_hash",
        "created_by",
    )

    to: str = columns.CharField(_("number"), max_length=16)
    body: str = columns.TextField(_("text"))
    sender: str = columns.CharField(
        _("sender"), max_length=32, blank=True, help_text=_("Empty: the provider's sender ID.")
    )
    using: str = columns.CharField(_("provider"), max_length=64, default=DEFAULT_ALIAS)
    status: str = columns.CharField(
        _("status"), max_length=16, choices=Status.choices, default=Status.DRAFT, editable=False
    )

    #: The status of a pushed report that came while the answer to the request was awaited.
    reported_status: str = columns.CharField(max_length=16, blank=True, editable=False)
    #: What says that a message was accepted whose outcome was *unknown*.
    proof: str = columns.CharField(
        _("resolved by"), max_length=8, blank=True, choices=Proof.choices, editable=False
    )
    #: Our own name of it, which providers that can return it are given.
    reference: str = ours.ExactField(
        _("reference"), max_length=CHARACTERS, unique=True, default=new_reference, editable=False
    )
    gateway_id: str = columns.CharField(_("gateway id"), max_length=64, blank=True, editable=False)
    gateway_status: str = ours.ExternalCharField(
        _("gateway status"), max_length=64, blank=True, editable=False
    )
    error_code: str = ours.ExternalCharField(
        _("error code"), max_length=32, blank=True, editable=False
    )
    error_text: str = ours.ExternalTextField(_("error"), blank=True, editable=False)

    segments: int = columns.PositiveSmallIntegerField(
        pgettext_lazy("SMS", "segments"), default=0, editable=False
    )
    encoding: str = columns.CharField(_("encoding"), max_length=8, blank=True, editable=False)
    #: What the provider said that it costs; None where it did not.
    price: Decimal | None = columns.DecimalField(
        _("price"), max_digits=12, decimal_places=6, null=True, editable=False
    )
    currency: str = columns.CharField(_("currency"), max_length=3, blank=True, editable=False)
    billed_segments: int | None = columns.PositiveSmallIntegerField(
        _("billed segments"), null=True, editable=False
    )
    attempts: int = columns.PositiveSmallIntegerField(_("attempts"), default=0, editable=False)
    priority: int = columns.SmallIntegerField(
        _("priority"), default=0, help_text=_("Higher goes first.")
    )
    send_after: datetime = columns.DateTimeField(
        _("send after"), default=timezone.now, help_text=_("Not sent before this time.")
    )
    expires_at: datetime | None = columns.DateTimeField(
        _("expires at"),
        null=True,
        blank=True,
        help_text=_("Not sent after this time. Empty: the site's default lifetime."),
    )
    #: ``expires_at`` comes from ``SMSKA_EXPIRES_AFTER``, and not from the caller: it may be moved.
    has_site_lifetime: bool = columns.BooleanField(default=False, editable=False)
    idempotency_key: str | None = ours.ExactField(
        _("idempotency key"), max_length=128, unique=True, null=True, blank=True, default=None
    )
    resend_of: SmsMessage | None = columns.OneToOneField(
        "self",
        models.PROTECT,
        verbose_name=_("resend of"),
        related_name="resent_as",
        null=True,
        blank=True,
        editable=False,
    )
    mailing: SmsMailing | None = columns.ForeignKey(
        "SmsMailing",
        models.SET_NULL,
        verbose_name=_("mailing"),
        related_name="messages",
        null=True,
        blank=True,
        editable=False,
        db_index=False,  # smska_mailing begins with it
    )
    created_by: Any = ours.UserField(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        verbose_name=_("created by"),
        related_name="+",
        null=True,
        blank=True,
        editable=False,
    )

    created_at: datetime = columns.DateTimeField(_("created"), default=timezone.now, editable=False)
    claimed_at: datetime | None = columns.DateTimeField(_("claimed"), null=True, editable=False)
    sending_at: datetime | None = columns.DateTimeField(
        _("request began"), null=True, editable=False
    )
    sent_at: datetime | None = columns.DateTimeField(_("sent"), null=True, editable=False)
    finished_at: datetime | None = columns.DateTimeField(_("finished"), null=True, editable=False)

    #: The caller waits for it: when this claim ends unsent, no worker sends it later.
    immediate: bool = columns.BooleanField(default=False, editable=False)
    #: The local day whose segments include it, under the limit of the provider.
    counted_on: date | None = columns.DateField(null=True, editable=False)
    #: Its text is for the recipient alone, and is wiped once it is not needed for sending.
    sensitive: bool = columns.BooleanField(_("sensitive"), default=False, editable=False)
    #: The one-time code in the text, until it is wiped; empty where there is none.
    code: str = ours.ExactField(
        max_length=MAX_CODE_CHARACTERS, blank=True, default="", editable=False
    )
    #: It is sent also where its number is on the do-not-send list: a code that was asked for.
    despite_opt_out: bool = columns.BooleanField(default=False, editable=False)
    #: Of a sensitive text with an idempotency key: to compare with when the text is wiped.
    text_hash: str = columns.CharField(max_length=64, blank=True, default="", editable=False)
    #: When number and text were blanked, because they were old or the person asked for it.
    erased_at: datetime | None = columns.DateTimeField(_("erased"), null=True, editable=False)
    token: str = columns.CharField(max_length=32, blank=True, editable=False)
    lease_until: datetime | None = columns.DateTimeField(null=True, editable=False)
    next_status_at: datetime | None = columns.DateTimeField(
        _("next status query"), null=True, editable=False
    )
    status_queries: int = columns.PositiveSmallIntegerField(default=0, editable=False)

    #: Whether this very object was inserted: only then may a lost row mean a rollback.
    _inserted_here = False
    #: Whether this object has, or had, a row.
    _was_stored = False
    #: Whether the next check keeps the reference: what it counts for is noted by it.
    _is_reference_new = False

    objects: ClassVar[SmsMessageManager] = SmsMessageManager()

    if TYPE_CHECKING:  # what Django adds
        id: int
        resend_of_id: int | None
        mailing_id: int | None
        created_by_id: Any

        # What ``send_messages`` of a backend sets.
        receipt: Receipt | None
        error: SmsError | None

        def get_status_display(self) -> str: ...
        def get_proof_display(self) -> str: ...

    #: The monotonic time after which this process may not begin to send it. No column.
    leave_until = math.inf
    #: When the recipient's next quiet hours begin, for a message of a mailing that heeds them. No
    #: column.
    quiet_from: datetime | None = None

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
            ("release_smsmessage", "Can release or cancel held SMS messages"),
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
            models.Index(fields=["erased_at", "id"], name="smska_erased"),
            models.Index(fields=["mailing", "status", "-id"], name="smska_mailing"),
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

    @hides_values
    def save(
        self,
        *,
        force_insert: Any = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        """Store a new message, or the edited fields of a draft.

        A new message whose transaction was rolled back is stored as new again. A copy of a stored
        one leaves its mailing, whose page counts only what ``send_mass_sms`` and the admin put
        there.

        Raises ``WrongStatus`` for a message that is no longer a draft, and ``ValueError`` for
        ``update_fields`` that may not be edited; then nothing is stored.
        """
        if self._inserted_here and rolled_back([self]):
            self.make_new()
        if self._state.adding:
            self._start_new()
            with self._hidden_from_row():
                super().save(
                    force_insert=force_insert or True,
                    force_update=force_update,
                    using=using,
                    update_fields=update_fields,
                )
            self._inserted_here = self._was_stored = True
            return
        fields = self._editable(update_fields)
        if not fields:
            return
        self.prepare()
        if fields & {"to", "body", "sensitive", "code", "idempotency_key"}:
            fields |= {"sensitive", "segments", "encoding", "text_hash"}
        with transaction.atomic(using=write_db()):
            draft = rows().select_for_update().filter(pk=self.pk, status=Status.DRAFT)
            before = draft.values_list("segments", "mailing_id").first()
            if before is None:
                raise WrongStatus("Only a draft can be edited. Send a new message.", sms=self.pk)
            super().save(
                force_insert=force_insert,
                force_update=force_update,
                using=using,
                update_fields=sorted(fields),
            )
            if "segments" in fields and before[1] is not None:
                from .mailing_counts import resize

                resize(before[1], self.segments - before[0])

    @classmethod
    def from_db(cls, *args: Any, **kwargs: Any) -> SmsMessage:
        message = super().from_db(*args, **kwargs)
        message._was_stored = True
        return message

    def make_new(self) -> None:
        """Let the next ``save()`` insert this object, whatever row it had."""
        self.pk, self._state.adding, self._state.db = None, True, None
        self.counted_on, self._inserted_here, self._was_stored = None, False, False
        self.reference, self._is_reference_new = new_reference(), True

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
        pre_save = columns.Field.pre_save
        fields: Iterable[Any] = cls._meta.concrete_fields
        return {one.name for one in fields if type(one).pre_save is not pre_save}

    def _start_new(self) -> None:
        """Clear the result fields, so that a copied instance does not look sent."""
        if self.status not in (Status.DRAFT, Status.QUEUED, Status.CLAIMED):
            raise WrongStatus(f"A new message cannot be {self.status}. Create a draft.")
        if self._was_stored:  # it is a copy
            self.mailing = None
        self.prepare()
        if self.status == Status.DRAFT:
            self.counted_on = None
        for name in ("gateway_id", "gateway_status", "error_code", "error_text", "currency"):
            setattr(self, name, "")
        for name in (
            *("sending_at", "sent_at", "finished_at", "next_status_at", "erased_at"),
            *("price", "billed_segments"),
        ):
            setattr(self, name, None)
        self.reported_status = self.proof = ""

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

    def check_text(self) -> None:
        """Set the size of the text alone, and raise ``ValidationError`` where it cannot be sent."""
        problem = self._problem_of_text("body")
        if problem is None:
            self._measure()
            problem = dict(self._problems_of_size()).get("body")
        if problem is not None:
            raise problem

    def _tidy(self) -> None:
        if self._state.adding and not self._is_reference_new:  # it may be a copy of a stored one
            self.reference = new_reference()
        self._is_reference_new = False
        for name in ("body", "sender", "code"):
            value = getattr(self, name)
            if isinstance(value, Promise):
                value = str(value)  # a lazy translation
            if isinstance(value, str):
                setattr(self, name, str.__str__(value))  # no subclass with its own encode()
        if isinstance(self.body, str):
            self.body = with_plain_lines(self.body)
        self.idempotency_key = self.idempotency_key or None
        self.sensitive = self.sensitive or bool(self.code)

    def _problems(self) -> Iterator[tuple[str, ValidationError]]:
        """Yield what is wrong with each field alone."""
        try:
            self.to = normalize(self.to)
        except ValidationError as error:
            yield "to", error
        for name in ("body", "sender", "idempotency_key", "code"):
            if problem := self._problem_of_text(name):
                yield name, problem
            elif name == "code" and self.code and (words := self._problem_of_code()):
                yield name, ValidationError(words, code="code")
        for name in ("sensitive", "despite_opt_out"):
            if not isinstance(getattr(self, name), bool):
                yield name, ValidationError(_("This must be True or False."), code="invalid")
        if self.despite_opt_out and not self.code:
            words = _("Only a one-time code may be sent despite the do-not-send list. Pass code=….")
            yield "despite_opt_out", ValidationError(words, code="despite_opt_out")
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
        return problem_of_text(self._meta.get_field(name), value, one_line=name != "body")

    def _problem_of_code(self) -> Any:
        """Return why the code cannot be found in the text and replaced, or None."""
        if len(self.code) > MAX_CODE_CHARACTERS:
            return _("This code is too long.")
        if self.code != self.code.strip() or self.code not in str(self.body):
            return _("The text does not contain this code. Write both in the same way.")
        return None

    def _latest_times(self) -> dict[str, Callable[[], datetime]]:
        """Return the fields with a time to check, and what gives the latest time of each."""
        bounds = {"send_after": times.latest}
        if self.expires_at is not None:
            bounds["expires_at"] = times.latest_expiry
        if self._state.adding:
            bounds["created_at"] = times.latest
        return bounds

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
        hashed = self.sensitive and self.idempotency_key
        self.text_hash = keyed_hash("text", f"{self.idempotency_key} {self.body}") if hashed else ""
        if self.expires_at is None and self.status != Status.DRAFT:
            self.expires_at = self.send_after + conf.expires_after()
            self.has_site_lifetime = True

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

    def wipe(self) -> None:
        """Show on this object what is stored of a sensitive text that is not needed any more."""
        if self.sensitive:
            self.body = self.body.replace(self.code, dots()) if self.code else ""
            self.code = ""

    @contextmanager
    def _hidden_from_row(self) -> Generator[None]:
        """Store no sensitive text that this process alone will send: it has it in memory."""
        body, code = self.body, self.code
        if self.immediate and self.status == Status.CLAIMED:
            self.wipe()
            self.code = code and dots()  # wiping the text replaces dots by dots
        try:
            yield
        finally:
            self.body, self.code = body, code

    def repeats(self, message: SmsMessage) -> bool:
        """Return whether a new message with this one's idempotency key has its number and text."""
        if self.to != message.to:
            return False
        if not self.sensitive:
            return self.body == message.body
        return self.text_hash in keyed_hashes("text", f"{message.idempotency_key} {message.body}")

    @hides_values
    def send(self, *, exempt: bool = False) -> None:
        """Send this draft or queued message now.

        Inside a transaction it is sent right after the commit.

        :param exempt: as with :func:`~django_smska.sms.send_sms`, for a draft
        :raises LimitExceeded: for a draft that ``SMSKA_LIMITS`` does not allow; it stays a draft
        :raises SmsNotSent: if it was not sent: it has *failed*, or is a draft as before, and no
            worker sends it later
        :raises SmsOutcomeUnknown: if it may have been sent, or will be: a queued message stays
            queued while its provider is paused (code "paused") or stopped ("stopped"), or where too
            many wait under its rate ("rate")
        :raises WrongStatus: if it is neither draft nor queued
        """
        from .sending import send

        send(self, exempt=exempt)

    async def asend(self, *, exempt: bool = False) -> None:
        """Like :meth:`send`, for asynchronous code (:func:`~django_smska.sms.asend_sms`)."""
        from .async_calls import run

        await run(self.using, lambda: self.send(exempt=exempt))

    @hides_values
    def refresh_status(self) -> None:
        """Ask the gateway for the delivery report. Raises ``SmsError`` for an unusable answer."""
        from .delivery import refresh_one

        refresh_one(self)

    async def arefresh_status(self) -> None:
        """Like :meth:`refresh_status`, for asynchronous code."""
        from .async_calls import run

        await run(self.using, self.refresh_status)


class Resent(int):
    """The number of messages that were queued again.

    :ivar errors: ``(primary key, error)`` of those that were not
    """

    errors: list[tuple[int, SmsError]]


class SmsMailing(models.Model):
    """Messages that were written together, and are watched, stopped and counted together.

    :ivar body: the text, where all have the same one; with its placeholders, as it was written
    :ivar stopped_at: since when its messages wait, as drafts, until a person lets it go on
    :ivar at_any_hour: its messages leave in the quiet hours, too (``SMSKA_QUIET_HOURS``)
    :ivar segments: of all its messages
    :ivar again: how many of its messages were sent again, as new ones of the mailing
    :ivar counts: the number of messages by status, pruned ones included, as at ``counted_at``.
        ``mailing_counts`` writes this column and the next ones.
    :ivar pruned: the same of those that are in no other table
    :ivar prices: what providers have said that it cost, by currency, as at ``priced_at``
    :ivar samples: times, and how many waited then, which give the rate
    :ivar settled: every counted status is final, so that it is not counted again
    """

    name: str = columns.CharField(pgettext_lazy("mailing", "name"), max_length=200)
    body: str = columns.TextField(_("text"), blank=True, editable=False)
    sender: str = columns.CharField(_("sender"), max_length=32, blank=True, editable=False)
    using: str = columns.CharField(_("provider"), max_length=64, blank=True, editable=False)
    send_after: datetime | None = columns.DateTimeField(_("send after"), null=True, editable=False)
    created_at: datetime = columns.DateTimeField(_("created"), default=timezone.now, editable=False)
    created_by: Any = ours.UserField(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        verbose_name=_("created by"),
        related_name="+",
        null=True,
        blank=True,
        editable=False,
    )
    stopped_at: datetime | None = columns.DateTimeField(
        _("stopped since"), null=True, editable=False
    )
    stopped_by: str = ours.ExternalCharField(
        _("stopped by"), max_length=150, blank=True, editable=False
    )
    at_any_hour: bool = columns.BooleanField(default=True, editable=False)
    segments: int = columns.PositiveBigIntegerField(
        pgettext_lazy("SMS", "segments"), default=0, editable=False
    )
    again: int = columns.PositiveIntegerField(default=0, editable=False)
    counts: dict[str, int] = ours.JsonTextField(default=dict, editable=False)
    pruned: dict[str, int] = ours.JsonTextField(default=dict, editable=False)
    samples: list[Any] = ours.JsonTextField(default=list, editable=False)
    counted_at: datetime | None = columns.DateTimeField(null=True, editable=False)
    settled: bool = columns.BooleanField(default=False, editable=False)
    prices: dict[str, str] = ours.JsonTextField(default=dict, editable=False)
    priced_at: datetime | None = columns.DateTimeField(null=True, editable=False)

    if TYPE_CHECKING:  # what Django adds
        id: int
        created_by_id: Any
        messages: SmsMessageManager

    class Meta:
        verbose_name = _("mailing")
        verbose_name_plural = _("mailings")
        default_permissions = ()  # who may see messages may see them
        ordering = ("-id",)

    def __str__(self) -> str:
        return self.name

    #: The fields that ``save()`` writes of a stored one. The others change behind the object.
    SAVED = ("name", "body", "sender", "using", "send_after", "at_any_hour", "created_by")

    def save(
        self,
        *,
        force_insert: Any = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        """Store a new one, or what describes it; neither its counts nor whether it is stopped."""
        if update_fields is None and not self._state.adding and not force_insert:
            update_fields = self.SAVED
        super().save(
            force_insert=force_insert,
            force_update=force_update,
            using=using,
            update_fields=update_fields,
        )

    def require_name(self) -> None:
        """Raise ``ValidationError`` where its name cannot be stored."""
        field: Any = self._meta.get_field("name")
        self.name = str(self.name)
        problem = problem_of_text(field, self.name, one_line=True)
        if problem is None and not self.name.strip():
            problem = ValidationError(_("Give the mailing a name."), code="empty")
        if problem is None and len(self.name) > field.max_length:
            words = _("This is longer than %s characters.") % field.max_length
            problem = ValidationError(words, code="too_long")
        if problem is not None:
            raise ValidationError({"name": problem})

    def stop(self, by: str = "") -> int:
        """Let no more of its messages leave; return how many wait now, as drafts.

        Requests that have begun end normally.

        :param by: the name of who stops it, for the page
        """
        from .mailings import stop

        return stop(self, by)

    def resume(self) -> int:
        """Queue what waits; return how many messages."""
        from .mailings import resume

        return resume(self)

    def resend_failed(self, *, created_by: Any = None, most: int | None = None) -> Resent:
        """Queue the texts again of those that have definitely failed, each as a new message of this
        mailing; never of an *unknown* one.

        :param created_by: the user who decided so
        :param most: the most messages
        """
        from .mailings import resend_failed

        return resend_failed(self, created_by=created_by, most=most)


class SmsTemplate(models.Model):
    """A text with placeholders, such as ``{name}``, in one language.

    :ivar name: by which code and people choose it, the same in every language
    :ivar language: a code, such as ``ru``; empty for all that have no text of their own
    """

    name: str = columns.CharField(pgettext_lazy("template", "name"), max_length=100)
    language: str = columns.CharField(_("language"), max_length=16, blank=True, default="")
    body: str = columns.TextField(_("text"))
    created_at: datetime = columns.DateTimeField(_("created"), default=timezone.now, editable=False)
    changed_at: datetime = columns.DateTimeField(_("changed"), auto_now=True)
    created_by: Any = ours.UserField(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        verbose_name=_("created by"),
        related_name="+",
        null=True,
        blank=True,
        editable=False,
    )

    if TYPE_CHECKING:  # what Django adds
        id: int
        created_by_id: Any

    class Meta:
        verbose_name = _("SMS template")
        verbose_name_plural = _("SMS templates")
        ordering = ("name", "language")
        constraints = (
            models.UniqueConstraint(
                fields=("name", "language"),
                name="smska_template_name",
                violation_error_message=_("There is a template with this name and language."),
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.language})" if self.language else self.name


class ProviderState(models.Model):
    """The circuit breaker of a provider, its balance and its rate, as all workers see them.

    The row of the alias ``*`` says whether every provider is stopped.
    """

    alias: str = columns.CharField(_("provider"), max_length=64, primary_key=True)
    reason: str = columns.CharField(_("reason"), max_length=16, blank=True)
    detail: str = ours.ExternalTextField(_("details"), blank=True)
    failures: int = columns.PositiveIntegerField(_("failures in a row"), default=0)
    probes: int = columns.PositiveIntegerField(_("probes since the pause"), default=0)
    paused_at: datetime | None = columns.DateTimeField(_("paused since"), null=True)
    probe_at: datetime | None = columns.DateTimeField(_("next probe"), null=True)
    balance: Decimal | None = columns.DecimalField(
        _("balance"), max_digits=18, decimal_places=4, null=True
    )
    balance_at: datetime | None = columns.DateTimeField(_("balance reported"), null=True)
    next_send_at: datetime | None = columns.DateTimeField(_("next sending"), null=True)
    worker_seen_at: datetime | None = columns.DateTimeField(_("worker last seen"), null=True)
    #: The local day of ``segments_used``.
    segments_on: date | None = columns.DateField(_("segments counted on"), null=True)
    segments_used: int = columns.PositiveBigIntegerField(_("segments used that day"), default=0)
    #: ``kill_switch`` writes these two.
    stopped_at: datetime | None = columns.DateTimeField(_("stopped since"), null=True)
    stopped_by: str = ours.ExternalCharField(_("stopped by"), max_length=150, blank=True)
    #: What was due at this moment is held; see ``held_queue``.
    held_before: datetime | None = columns.DateTimeField(_("held if due before"), null=True)

    class Meta:
        verbose_name = _("SMS provider")
        verbose_name_plural = _("SMS providers")
        default_permissions = ("view",)
        permissions = [("stop_providerstate", "Can stop and resume sending")]

    def __str__(self) -> str:
        return gettext("every provider") if self.alias == EVERY_ALIAS else self.alias

    @property
    def is_paused(self) -> bool:
        return self.paused_at is not None


class SmsLimit(models.Model):
    """What was let through lately for one number or one caller. ``limits`` keeps these rows.

    :ivar key: a keyed hash, so that the row shows neither number nor address
    :ivar log: JSON, see ``limits``; of a number, it names the messages by their references
    :ivar ends_at: when nothing in it counts any more
    """

    key: str = columns.CharField(max_length=64, primary_key=True)
    log: str = columns.TextField(default="[]")
    ends_at: datetime = columns.DateTimeField(db_index=True)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"limit {self.key[:8]}"


class SmsOptOut(models.Model):
    """A number on the do-not-send list, for one sender or for all. ``opt_out`` keeps these rows.

    :ivar number: in E.164; empty where the person was erased: then the hash alone is kept
    :ivar number_hash: by ``keyed_hash``
    :ivar sender: the sender ID that may not write to it; empty for all
    :ivar source: where the entry came from, as people say it: "call centre", "Unisender"
    """

    number: str = ours.ExactField(_("number"), max_length=16, blank=True, db_index=True)
    number_hash: str = columns.CharField(max_length=64, editable=False)
    sender: str = ours.ExactField(
        _("sender"),
        max_length=32,
        blank=True,
        help_text=_("Empty: all. Otherwise exactly as in the messages."),
    )
    reason: str = columns.CharField(_("reason"), max_length=200, blank=True)
    source: str = columns.CharField(
        _("source"), max_length=64, blank=True, help_text=_("Where the entry comes from.")
    )
    created_at: datetime = columns.DateTimeField(_("created"), default=timezone.now, editable=False)
    created_by: Any = ours.UserField(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        verbose_name=_("created by"),
        related_name="+",
        null=True,
        blank=True,
        editable=False,
    )

    class Meta:
        verbose_name = _("do-not-send entry")
        verbose_name_plural = _("do-not-send entries")
        default_permissions = ("add", "delete", "view")
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(name="smska_opt_out", fields=("number_hash", "sender"))
        ]

    def __str__(self) -> str:
        return mask(str(self.number)) if self.number else gettext("erased number")

    def __repr__(self) -> str:
        return f"<SmsOptOut {self.pk} {mask(str(self.number))}>"


class SmsInbound(models.Model):
    """A message that a phone sent to a number of ours; a provider's webhook brings it.

    :ivar using: the alias of the provider
    :ivar sender: the phone's number, in E.164 where it has that form
    :ivar to: our number or short code
    :ivar gateway_id: the provider's id, by which a repeated delivery is recognized; None where it
        gave none
    """

    using: str = columns.CharField(_("provider"), max_length=64, editable=False)
    sender: str = columns.CharField(pgettext_lazy("SMS", "from"), max_length=32, editable=False)
    to: str = columns.CharField(
        pgettext_lazy("SMS", "to"), max_length=32, blank=True, editable=False
    )
    body: str = ours.ExternalTextField(_("text"), blank=True, editable=False)
    gateway_id: str | None = ours.ExactField(
        _("gateway id"), max_length=64, null=True, editable=False
    )
    received_at: datetime = columns.DateTimeField(
        _("received"), default=timezone.now, editable=False
    )

    class Meta:
        verbose_name = _("received SMS")
        verbose_name_plural = pgettext_lazy("several SMS", "received SMS")
        default_permissions = ("delete", "view")
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(name="smska_inbound", fields=("using", "gateway_id"))
        ]
        indexes = [
            models.Index(fields=["sender"], name="smska_inbound_number"),
            models.Index(fields=["received_at"], name="smska_inbound_received"),
        ]

    def __str__(self) -> str:
        return f"SMS {mask(str(self.sender))} → {self.to}"

    def __repr__(self) -> str:
        return f"<SmsInbound {self.pk} {mask(str(self.sender))}>"


class SmsErasure(models.Model):
    """The proof that a person's data were erased; without a name or a number.

    :ivar number_hash: by ``keyed_hash``: who asks with the number finds it
    :ivar messages: how many rows were erased
    """

    number_hash: str = columns.CharField(
        _("number hash"), max_length=64, db_index=True, editable=False
    )
    erased_at: datetime = columns.DateTimeField(_("erased"), default=timezone.now, editable=False)
    erased_by: str = columns.CharField(_("erased by"), max_length=150, blank=True, editable=False)
    messages: int = columns.PositiveBigIntegerField(_("messages"), default=0, editable=False)
    details: Any = ours.JsonTextField(_("details"), default=dict, editable=False)

    class Meta:
        verbose_name = _("erasure")
        verbose_name_plural = _("erasures")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{times.local(self.erased_at):%Y-%m-%d %H:%M}"


class SmsDay(models.Model):
    """A day on which messages were written. ``daily_counts`` keeps these rows and their counts.

    :ivar settled: every counted status is final, so that the day is not counted again
    """

    day: date = columns.DateField(primary_key=True)
    counted_at: datetime | None = columns.DateTimeField(null=True)
    settled: bool = columns.BooleanField(default=False)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.day)


class SmsDayCount(models.Model):
    """The number of messages of one day that have all these columns in common.

    ``error_code`` is kept of failed messages only, and ``delivered_within_seconds`` of delivered
    ones: the upper end of a range of delivery times, or 0. ``messages``, ``segments`` and ``price``
    include the pruned ones, which are in no other table.

    :ivar price: the sum of the known prices; None where none is known
    """

    day_id: date
    day: SmsDay = columns.ForeignKey(SmsDay, models.CASCADE, related_name="counts", db_index=False)
    using: str = ours.ExactField(max_length=64)
    sender: str = ours.ExactField(max_length=32)
    status: str = columns.CharField(max_length=16)
    error_code: str = ours.ExactField(max_length=32)
    delivered_within_seconds: int = columns.PositiveBigIntegerField(default=0)
    currency: str = ours.ExactField(max_length=3, default="")
    messages: int = columns.PositiveBigIntegerField(default=0)
    segments: int = columns.PositiveBigIntegerField(default=0)
    price: Decimal | None = columns.DecimalField(max_digits=20, decimal_places=6, null=True)
    pruned_messages: int = columns.PositiveBigIntegerField(default=0)
    pruned_segments: int = columns.PositiveBigIntegerField(default=0)
    pruned_price: Decimal | None = columns.DecimalField(max_digits=20, decimal_places=6, null=True)

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                name="smska_day_count",
                fields=(
                    *("day", "using", "sender", "status", "error_code"),
                    *("delivered_within_seconds", "currency"),
                ),
            )
        ]

    def __str__(self) -> str:
        return f"{self.day_id} {self.using} {self.status}: {self.messages}"


def _held_before(alias: Any) -> Coalesce:
    """Return, for a query, the moment up to which the queue of this provider is held."""
    held = Subquery(ProviderState.objects.filter(alias=alias).values("held_before"))
    return Coalesce(held, Value(times.as_stored(times.FIRST)))


for _model in (
    *(SmsMessage, SmsMailing, ProviderState, SmsDay, SmsLimit),
    *(SmsOptOut, SmsInbound, SmsErasure),
):
    times.make_readable(_model)


def write_db() -> str:
    """Return the alias of the database that messages are written to."""
    return router.db_for_write(SmsMessage)


def dots() -> str:
    """Return what stands for a code that was wiped, as the database can store it."""
    body = SmsMessage._meta.get_field("body")
    lacking = unsupported_character(DOTS, body, connections[write_db()])
    return DOTS if lacking is None else PLAIN_DOTS


def mailings(pks: Iterable[Any] | None = None) -> models.QuerySet[SmsMailing]:
    """Return mailings in the database that messages are written to."""
    every = SmsMailing.objects.using(write_db())
    return every if pks is None else every.filter(pk__in=list(pks))


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


def problem_of_text(field: Any, text: Any, *, one_line: bool) -> ValidationError | None:
    """Return why a text cannot be stored in this field, or sent, or None."""
    if problem := _unstorable(text, one_line=one_line):
        return ValidationError(problem, code="invalid")
    if text.isascii():
        return None
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

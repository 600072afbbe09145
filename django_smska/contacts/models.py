"""A contact is a number and who answers there; groups are for mailings."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models, router
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from .. import fields, times
from ..models import problem_of_text
from ..numbers import mask, normalize

# Without it, an import on a site without this app would add the models to ``django_smska``.
LABEL = "smska_contacts"

#: Django's fields without their types: the annotation beside each says what an attribute holds.
columns: Any = models
ours: Any = fields


class _Checked(models.Model):
    """Refuses a text that a column cannot hold, with the reason."""

    class Meta:
        abstract = True

    def clean(self) -> None:
        super().clean()
        errors: dict[str, Any] = {}
        for field in self._meta.concrete_fields:
            value = getattr(self, field.attname)
            if isinstance(value, str) and (why := problem_of_text(field, value, one_line=True)):
                errors[field.name] = why
        if errors:
            raise ValidationError(errors)


class ContactGroup(_Checked):
    """Contacts that get messages together."""

    name: str = ours.ExactField(pgettext_lazy("contacts", "name"), max_length=100, unique=True)

    objects: ClassVar[models.Manager[ContactGroup]] = models.Manager()

    class Meta(_Checked.Meta):
        abstract = False
        app_label = LABEL
        # With the app's own tables, whose character sets are looked at.
        db_table = "django_smska_contactgroup"
        verbose_name = pgettext_lazy("contacts", "group")
        verbose_name_plural = pgettext_lazy("contacts", "groups")
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Contact(_Checked):
    """A number, which is stored once, and who answers there.

    :ivar number: in E.164; ``save()`` accepts any spelling of ``django_smska.numbers.normalize``
    :ivar note: for the staff; no message has it
    """

    number: str = ours.ExactField(
        _("number"),
        max_length=16,
        unique=True,
        error_messages={"unique": _("There is a contact with this number already.")},
    )
    name: str = columns.CharField(
        pgettext_lazy("contacts", "name"), max_length=200, blank=True, db_index=True
    )
    note: str = columns.CharField(_("note"), max_length=500, blank=True)
    groups: Any = columns.ManyToManyField(
        ContactGroup,
        related_name="contacts",
        blank=True,
        verbose_name=pgettext_lazy("contacts", "groups"),
        db_table="django_smska_contact_groups",
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

    objects: ClassVar[models.Manager[Contact]] = models.Manager()

    class Meta(_Checked.Meta):
        abstract = False
        app_label = LABEL
        db_table = "django_smska_contact"
        verbose_name = _("contact")
        verbose_name_plural = _("contacts")
        ordering = ("name", "id")

    def __str__(self) -> str:
        """Return the masked number alone: the admin's log keeps it after the contact is gone."""
        return mask(self.number)

    def __repr__(self) -> str:
        return f"<Contact {self.pk} {mask(self.number)}>"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Store the contact with its number in E.164.

        :raises ValidationError: for what is no number; nothing is stored
        """
        self._normalize()
        super().save(*args, **kwargs)

    def clean_fields(self, exclude: Any = None) -> None:
        """Make the number E.164 before its length and uniqueness are looked at."""
        if "number" not in (exclude or ()):
            self._normalize()
        super().clean_fields(exclude)

    def _normalize(self) -> None:
        try:
            self.number = normalize(self.number)
        except ValidationError as error:
            raise ValidationError({"number": error}) from None


times.make_readable(Contact)


def stored() -> models.QuerySet[Contact]:
    """Return every contact, in the database that is written to."""
    return Contact.objects.using(router.db_for_write(Contact))


def of_number(number: str) -> models.QuerySet[Contact]:
    """Return the contact with this number in E.164, if there is one."""
    return stored().filter(number=number)

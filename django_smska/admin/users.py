"""The app's permissions in a project's admins of users and groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.http import HttpRequest

from . import permissions

if TYPE_CHECKING:
    AdminBase = admin.ModelAdmin[Any]
    FieldBase = forms.ModelMultipleChoiceField[Permission]
else:
    AdminBase, FieldBase = object, forms.ModelMultipleChoiceField


_APPS = (permissions.APP, permissions.CONTACTS_APP)


class PermissionsField(FieldBase):
    """Shows the names of the app's permissions in the reader's language."""

    def label_from_instance(self, obj: Any) -> str:
        if obj.content_type.app_label not in _APPS:
            return str(obj)
        return f"{obj.content_type} | {permissions.translated(obj.name)}"


class SmsPermissionsMixin(AdminBase):
    """Translates the permissions in an admin of users or groups, and warns of those of no use.

    The database has one name for all readers, so that it stays as Django wrote it.
    """

    def formfield_for_manytomany(self, db_field: Any, request: Any = None, **kwargs: Any) -> Any:
        if db_field.related_model is Permission:
            kwargs.setdefault("form_class", PermissionsField)
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        for words in permissions.gap_words(_codenames(form.instance)):
            self.message_user(request, words, messages.WARNING)


def _codenames(saved: Any) -> set[str]:
    """Return the app's permissions of a group or a user, as they are stored now."""
    if isinstance(saved, Group):
        own = saved.permissions.filter(content_type__app_label__in=_APPS)
        return set(own.values_list("codename", flat=True))
    # Another instance, because this one may remember the permissions that the user had.
    users: Any = get_user_model()
    return permissions.held(users._base_manager.get(pk=saved.pk))

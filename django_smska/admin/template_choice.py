"""Saved texts on the page for writing: a choice and a button that fills the text."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..models import SmsTemplate
from . import permissions
from .action_views import ActionAdmin
from .actions import read_keys
from .clients import Sources
from .compose_form import ComposeForm

TEMPLATE = "template"  # the parameter with its key, and the field
MAX_OFFERED = 200  # the most that the choice has


class _SelectWithButton(forms.Select):
    """The choice, and the button that needs no script."""

    def render(self, *args: Any, **kwargs: Any) -> SafeString:
        button = '{} <input type="submit" class="button" name="_use_template" value="{}">'
        return format_html(button, super().render(*args, **kwargs), _("Fill in this text"))


def for_user(user: Any) -> QuerySet[SmsTemplate]:
    """Return the templates whose texts the user may see."""
    every = SmsTemplate.objects.all()
    may = any(permissions.may(user, one, SmsTemplate._meta) for one in ("view", "change"))
    return every if may and permissions.may_see_text(user) else every.none()


def offer(form: ComposeForm, user: Any) -> None:
    """Add the choice to the form, where there is any."""
    choices = [(one.pk, str(one)) for one in for_user(user)[:MAX_OFFERED]]
    if choices:
        form.fields[TEMPLATE] = forms.ChoiceField(
            label=_("Template"),
            choices=[("", "—"), *choices],
            required=False,
            widget=_SelectWithButton,
            help_text=_("It replaces the text below."),
        )


def filled(request: HttpRequest, model_admin: ActionAdmin) -> dict[str, Any]:
    """Return the form's initial values for the template of the address."""
    if TEMPLATE not in request.GET:
        return {}
    template = _chosen(request.GET[TEMPLATE], request.user)
    if template is None:
        words = gettext("The template was not found, or its text is hidden from you.")
        model_admin.message_user(request, words, messages.ERROR)
        return {}
    return {"body": template.body, TEMPLATE: template.pk}


def used(request: HttpRequest, sources: Sources | None) -> ComposeForm:
    """Return the form with the text of the chosen template and all else as it was typed.

    An uploaded file is read, because the next page cannot carry it.
    """
    data: dict[str, Any] = dict(request.POST.items())
    if template := _chosen(data.get(TEMPLATE, ""), request.user):
        data["body"] = template.body
    form = ComposeForm(data, request.FILES, sources=sources)
    form.is_valid()
    if "file" in form.errors:
        return form
    # What was not typed yet is no error.
    typed = {name: form[name].value() for name in form.fields if name != "file"}
    initial = {**typed, TEMPLATE: data.get(TEMPLATE, "")}
    return ComposeForm(initial=initial, sources=sources)


def _chosen(key: str, user: Any) -> SmsTemplate | None:
    return for_user(user).filter(pk__in=read_keys(key)[:1]).first()

"""The pages of the import: a form, what would be done, and doing it."""

from __future__ import annotations

from typing import Any, cast

from django.contrib import messages
from django.contrib.admin.helpers import AdminForm
from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from ..admin import permissions
from ..admin.forms import focus_on_error
from . import imports
from .forms import ImportForm
from .models import Contact, ContactGroup

MAX_LINES_SHOWN = 200  # the most lines that a table of the preview lists
TEMPLATES = "admin/smska_contacts"


@sensitive_variables()
@sensitive_post_parameters()
def import_view(request: HttpRequest, model_admin: Any) -> HttpResponse:
    if not model_admin.has_import_permission(request):
        raise PermissionDenied
    may_add = permissions.may(request.user, "add", ContactGroup._meta)
    if request.method != "POST":
        return _form_page(request, model_admin, ImportForm(may_add_groups=may_add))
    form = ImportForm(request.POST, request.FILES, may_add_groups=may_add)
    if not form.is_valid() or "_back" in request.POST:
        return _form_page(request, model_admin, form)
    if "_add" not in request.POST:
        return _preview(request, model_admin, form)
    return _store(request, model_admin, form)


def _form_page(request: HttpRequest, model_admin: Any, form: ImportForm) -> HttpResponse:
    if "_back" in request.POST:
        form.forget_columns()
    fieldsets = [
        (_("Contacts"), ["numbers", "file", "column_letter", "name_letter"]),
        (_("For all of them"), ["group", "new_group", "replace"]),
    ]
    shown = [
        (
            title,
            {"fields": [one for one in names if one in form.fields and not form[one].is_hidden]},
        )
        for title, names in fieldsets
    ]
    focus_on_error(form, [name for _title, one in shown for name in one["fields"]])
    return _page(
        request,
        model_admin,
        form,
        "import",
        _("Import contacts"),
        errors=form.errors,
        adminform=AdminForm(cast(Any, form), shown, {}, model_admin=model_admin),
        back_url=model_admin.url("changelist"),
    )


def _preview(request: HttpRequest, model_admin: Any, form: ImportForm) -> HttpResponse:
    found, plan = form.found, imports.plan(form.found.names)
    renamed = [
        {"number": permissions.grouped(one.number), "known": one.known, "name": one.name}
        for one in plan.renamed
    ]
    group = form.cleaned_data["group"] or form.cleaned_data.get("new_group")
    return _page(
        request,
        model_admin,
        form,
        "import_check",
        _("Check and import"),
        new=len(plan.new),
        known=plan.known,
        named=len(plan.named),
        number_renamed=len(renamed),
        renamed=renamed[:MAX_LINES_SHOWN],
        more_renamed=len(renamed) - MAX_LINES_SHOWN,
        replace=form.cleaned_data["replace"],
        group=permissions.Unlogged(group or ""),
        found=found,
        number_left_out=len(found.left_out),
        left_out=found.left_out[:MAX_LINES_SHOWN],
        more=len(found.left_out) - MAX_LINES_SHOWN,
        hidden=[form[name] for name in form.fields if name != "file"],
    )


def _store(request: HttpRequest, model_admin: Any, form: ImportForm) -> HttpResponse:
    given = form.cleaned_data
    done = imports.store(
        form.found.names,
        group=given["group"],
        new_group=given.get("new_group", ""),
        replace=given["replace"],
        created_by=request.user,
    )
    words = _said(done, str(given["group"] or given.get("new_group", "")))
    model_admin.message_user(request, words, messages.SUCCESS)
    _note(request.user, words)
    return HttpResponseRedirect(model_admin.url("changelist"))


def _said(done: imports.Outcome, group: str) -> str:
    said = [ngettext("%s contact was added.", "%s contacts were added.", done.added) % done.added]
    if done.named:
        words = ngettext("%s contact got a name.", "%s contacts got a name.", done.named)
        said.append(words % done.named)
    if group:
        words = ngettext(
            "%(number)s contact came into the group “%(group)s”.",
            "%(number)s contacts came into the group “%(group)s”.",
            done.joined,
        )
        said.append(words % {"number": done.joined, "group": group})
    return " ".join(said)


def _note(user: Any, words: str) -> None:
    """Write the import into the admin's log, as one entry."""
    LogEntry.objects.create(
        user_id=user.pk,
        content_type=ContentType.objects.get_for_model(Contact),
        object_repr=gettext("Import of contacts"),
        action_flag=ADDITION,
        change_message=words,
    )


def _page(
    request: HttpRequest,
    model_admin: Any,
    form: ImportForm,
    template: str,
    title: Any,
    **context: Any,
) -> HttpResponse:
    context |= {"form": form, "media": model_admin.media + form.media}
    page: TemplateResponse = model_admin.page(
        request, template, title, action_url=model_admin.url("import"), **context
    )
    page.template_name = f"{TEMPLATES}/{template}.html"
    return page

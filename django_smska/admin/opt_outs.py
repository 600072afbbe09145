"""The admin of the do-not-send list: search, add, delete, and import of files."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import AdminForm
from django.contrib.admin.models import ADDITION, LogEntry
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.admin.widgets import AdminTextInputWidget
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.functional import cached_property
from django.utils.translation import gettext, gettext_noop, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables

from .. import opt_out
from ..forms import PhoneField
from ..models import SmsOptOut
from ..numbers import normalize
from . import clients, permissions
from .forms import UnloggedErrors, focus_on_error
from .guard import EntriesAdmin
from .number_forms import NumbersForm

MAX_NUMBERS = 30_000  # the most numbers of one import
MAX_LISTED = 10_000  # the number of newest rows that the list shows
MAX_LINES_SHOWN = 200  # the most lines that the preview lists

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[SmsOptOut]
    PaginatorBase = Paginator[Any]
else:
    ModelForm, PaginatorBase = forms.ModelForm, Paginator


_WAS_LISTED = gettext_noop("The number was on the list already. Its entry was not changed.")
_IS_LISTED = gettext_noop("The number is on the do-not-send list.")


class _Adding(Enum):
    """What became of an entry that a user added. ``HIDDEN``: the user may not learn it."""

    NEW = 1
    KNOWN = 2
    HIDDEN = 3


class RecentPaginator(PaginatorBase):
    """Goes back ten thousand rows. Search finds older ones."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[:MAX_LISTED].count())


class SmsOptOutForm(ModelForm):
    """Takes a number in any spelling."""

    number = PhoneField(
        label=_("Number"),
        widget=AdminTextInputWidget(attrs={"inputmode": "tel"}),
        help_text=_("8 904 176-49-95 or +7 904 176-49-95; other countries with + and their code."),
    )

    class Meta:
        model = SmsOptOut
        fields = ("number", "sender", "reason", "source")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"error_class": UnloggedErrors, **kwargs})


class ImportForm(NumbersForm):
    """Many numbers, and what is noted about all of them."""

    most_numbers = MAX_NUMBERS

    sender = forms.CharField(
        label=_("Sender"),
        required=False,
        max_length=32,
        widget=AdminTextInputWidget,
        help_text=_("Empty: all. Otherwise exactly as in the messages."),
    )
    reason = forms.CharField(
        label=_("Reason"), required=False, max_length=200, widget=AdminTextInputWidget
    )
    source = forms.CharField(
        label=_("Source"),
        required=False,
        max_length=64,
        widget=AdminTextInputWidget,
        help_text=_("Where the entry comes from."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"error_class": UnloggedErrors, **kwargs})

    def clean(self) -> Any:
        self.read_numbers()
        try:
            opt_out.require_storable(self.about)
        except ValidationError as error:
            self.add_error(None, error)
        return self.cleaned_data

    @property
    def about(self) -> dict[str, str]:
        """Return what is noted about each number."""
        return {name: self.cleaned_data.get(name, "") for name in ("sender", "reason", "source")}


@admin.register(SmsOptOut)
class SmsOptOutAdmin(EntriesAdmin):
    """Entries are added and deleted, never changed."""

    form: Any = SmsOptOutForm
    list_display: Any = ("whole_number", "sender", "reason", "source", "created_at", "created_by")
    list_select_related = ("created_by",)
    list_per_page = 50
    ordering = ("-id",)
    sortable_by = ()
    actions = None
    search_fields = ("number",)
    search_help_text = _("A whole number, in any spelling.")
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = RecentPaginator
    number = "number"
    change_list_template = "admin/django_smska/smsoptout/change_list.html"
    needs = {**EntriesAdmin.needs, "import": ("view", "add", "see_number_smsmessage")}

    # --- who may what

    def has_import_permission(self, request: HttpRequest) -> bool:
        """Allow to import to users who may see whole numbers: the preview says which are listed."""
        return (
            self.has_view_permission(request)
            and self.has_add_permission(request)
            and permissions.may_see_number(request.user)
        )

    # --- the list and one entry

    def get_list_display(self, request: HttpRequest) -> Any:
        return self._shown(request, self.list_display)

    def get_list_display_links(self, request: HttpRequest, list_display: Any) -> Any:
        return list_display[:1]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.form.Meta.fields if obj is None else self._shown(request, self.list_display)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return () if obj is None else self._shown(request, self.list_display)

    def _shown(self, request: HttpRequest, names: Iterable[str]) -> list[str]:
        """Return the columns; for a user who may not see whole numbers they are masked."""
        if permissions.may_see_number(request.user):
            return list(names)
        careful = {"whole_number": "masked_number", "reason": "careful_reason"}
        return [careful.get(name, name) for name in names]

    @admin.display(description=_("number"))
    def whole_number(self, obj: SmsOptOut) -> str:
        return clients.beside(permissions.grouped(str(obj.number or obj)), obj)

    @admin.display(description=_("number"))
    def masked_number(self, obj: SmsOptOut) -> str:
        return str(obj)

    @admin.display(description=_("reason"))
    def careful_reason(self, obj: SmsOptOut) -> str:
        return permissions.without(obj.reason, number=str(obj.number))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find a whole number. For a user who may not see one a search finds nothing: a thousand
        would reveal the digits that a mask hides."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if not permissions.may_see_number(request.user):
            return queryset.none(), False
        try:
            return opt_out.of_number(queryset, normalize(term)), False
        except ValidationError:
            return queryset.none(), False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        context = dict(extra_context or {})
        if self.has_import_permission(request):
            context["links"] = [(self.url("import"), _("Import…"))]
        return super().changelist_view(request, context)

    # --- add

    def save_model(self, request: HttpRequest, obj: SmsOptOut, form: Any, change: bool) -> None:
        """Store it, or find the entry that is there."""
        about = {name: getattr(obj, name) for name in ("sender", "reason", "source")}
        is_new = opt_out.opt_out(obj.number, **about, created_by=request.user)
        obj.pk = opt_out.entries_of(obj.number).filter(sender=obj.sender).values_list("pk")[0][0]
        cast(Any, obj).adding = _Adding.HIDDEN
        if permissions.may_see_number(request.user):
            cast(Any, obj).adding = _Adding.NEW if is_new else _Adding.KNOWN

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Log no addition of what was there; where the user may not learn it, what is shown."""
        if obj.adding == _Adding.NEW:
            return super().log_addition(request, obj, message)
        if obj.adding == _Adding.HIDDEN:
            return super().log_addition(request, obj, gettext(_IS_LISTED))
        return None

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Say what was done, and to users who may not see whole numbers, the same of any number."""
        if obj.adding == _Adding.NEW or IS_POPUP_VAR in request.POST:
            return super().response_add(request, obj, post_url_continue)
        if obj.adding == _Adding.KNOWN:
            self.message_user(request, gettext(_WAS_LISTED), messages.WARNING)
        else:
            self.message_user(request, gettext(_IS_LISTED), messages.SUCCESS)
        if "_addanother" in request.POST:
            return HttpResponseRedirect(request.get_full_path())
        return self.response_post_save_add(request, obj)

    # --- import

    def own_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.import_view)
        return [path("import/", view, name="django_smska_smsoptout_import")]

    def import_view(self, request: HttpRequest) -> HttpResponse:
        """Answer GET by the form, its POST by a preview, and add the numbers by that one's POST."""
        if not self.has_import_permission(request):
            raise PermissionDenied
        return _import(request, self)


@sensitive_variables()
@sensitive_post_parameters()
def _import(request: HttpRequest, model_admin: SmsOptOutAdmin) -> HttpResponse:
    if request.method != "POST":
        return _form_page(request, model_admin, ImportForm())
    form = ImportForm(request.POST, request.FILES)
    if corrected := form.corrections():
        form = ImportForm(corrected)
    if not form.is_valid() or "_back" in request.POST:
        return _form_page(request, model_admin, form)
    if corrected or "_add" not in request.POST:
        return _preview(request, model_admin, form)
    return _add(request, model_admin, form)


def _form_page(request: HttpRequest, model_admin: SmsOptOutAdmin, form: ImportForm) -> HttpResponse:
    names = ["numbers", "file", "column_letter"]
    groups = [
        (_("Numbers"), {"fields": [name for name in names if not form[name].is_hidden]}),
        (_("For all of them"), {"fields": ["sender", "reason", "source"]}),
    ]
    focus_on_error(form, [name for _title, shown in groups for name in shown["fields"]])
    return _page(
        request,
        model_admin,
        form,
        "import",
        _("Import numbers"),
        errors=form.errors,
        adminform=AdminForm(cast(Any, form), groups, {}, model_admin=model_admin),
        back_url=model_admin.url("changelist"),
    )


def _preview(request: HttpRequest, model_admin: SmsOptOutAdmin, form: ImportForm) -> HttpResponse:
    found = form.recipients
    known = opt_out.listed(found.numbers, form.cleaned_data["sender"])
    left_out = sorted(found.bad + found.doubled, key=lambda one: one.line)
    return _page(
        request,
        model_admin,
        form,
        "import_check",
        _("Check and import"),
        new=len(found.lines) - len(known),
        known=len(known),
        doubled=len(found.doubled),
        bad=len(found.bad),
        left_out=left_out[:MAX_LINES_SHOWN],
        more=len(left_out) - MAX_LINES_SHOWN,
        to_correct=permissions.Unlogged(form.to_correct),
        hidden=[form[name] for name in form.fields if name != "file"],
    )


def _add(request: HttpRequest, model_admin: SmsOptOutAdmin, form: ImportForm) -> HttpResponse:
    added = opt_out.opt_out_many(form.recipients.lines, **form.about, created_by=request.user)
    words = ngettext("%s number was added.", "%s numbers were added.", added) % added
    if known := len(form.recipients.lines) - added:
        there = ngettext("%s was on the list already.", "%s were on the list already.", known)
        words = f"{words} {there % known}"
    model_admin.message_user(request, words, messages.SUCCESS)
    _note(request.user, words)
    return HttpResponseRedirect(model_admin.url("changelist"))


def _note(user: Any, words: str) -> None:
    """Write the import into the admin's log, as one entry."""
    LogEntry.objects.create(
        user_id=user.pk,
        content_type=ContentType.objects.get_for_model(SmsOptOut),
        object_repr=gettext("Import into the do-not-send list"),
        action_flag=ADDITION,
        change_message=words,
    )


def _page(
    request: HttpRequest,
    model_admin: SmsOptOutAdmin,
    form: ImportForm,
    template: str,
    title: Any,
    **context: Any,
) -> HttpResponse:
    context |= {"form": form, "media": model_admin.media + form.media}
    page: HttpResponse = model_admin.page(
        request, template, title, action_url=model_admin.url("import"), **context
    )
    return page

"""The admin of contacts and their groups.

Who may not see whole numbers sees masked ones, finds none by search, and adds and changes nothing,
because an answer to a number that was typed says whether there is such a contact.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import ValidationError
from django.db import connections
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.text import capfirst
from django.utils.translation import gettext, ngettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from .. import opt_out
from ..admin import clients, permissions
from ..admin.guard import GuardedAdmin, SortableList
from ..models import SmsMessage
from ..numbers import find, mask, normalize, plain
from ..providers import DEFAULT_ALIAS
from . import memberships
from .forms import ContactForm, GroupActionForm, GroupForm
from .import_views import import_view
from .models import Contact, ContactGroup
from .recipients import PATH, labels

MIN_DIGITS = 3  # of a part of a number
IN_NO_GROUP = "none"
SEE_NUMBER = "see_number_smsmessage"

if TYPE_CHECKING:
    ListBase = SortableList
else:
    ListBase = SortableList


class GroupFilter(admin.SimpleListFilter):
    """Filters by group, or for contacts in no group."""

    title = pgettext_lazy("contacts", "group")
    parameter_name = "group"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        groups = ContactGroup.objects.values_list("pk", "name")
        return [*((str(key), name) for key, name in groups), (IN_NO_GROUP, _("in no group"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() == IN_NO_GROUP:
            return queryset.filter(groups=None)
        return queryset.filter(groups=self.value()) if self.value() else queryset


def _group_key(value: str) -> str | None:
    return value if re.fullmatch(r"[1-9][0-9]{0,17}|none", value) else None


class ContactList(ListBase):
    """Looks up which contacts of the page are on the do-not-send list, all at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        self.result_list = list(self.result_list)
        if not permissions.may_see_number(request.user):
            return
        numbers = [one.number for one in self.result_list]
        barred = opt_out.barred(numbers, sender="", using=DEFAULT_ALIAS)
        for one in self.result_list:
            one.is_opted_out = one.number in barred


class ContactsAdmin(GuardedAdmin):
    """What contacts and groups have in common."""

    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ()
    list_per_page = 50

    def url(self, name: str, *args: Any) -> str:
        model = f"{self.opts.app_label}_{self.opts.model_name}"
        return reverse(f"admin:{model}_{name}", args=args, current_app=self.admin_site.name)

    def needed(self, request: HttpRequest, page: str) -> set[str]:
        needs = super().needed(request, page)
        if page == "change" and request.method == "POST":
            needs |= self.codenames(("change",))
        return needs


@admin.register(Contact)
class ContactAdmin(ContactsAdmin):
    """Search, add, change, delete, and import of tables; actions for groups."""

    form: Any = ContactForm
    action_form = GroupActionForm
    actions = ("join_group", "leave_group")
    list_display: Any = ("shown_name", "whole_number", "do_not_send", "group_names")
    list_filter = (GroupFilter,)
    ordering = ("name", "pk")
    search_fields = ("name",)
    change_list_template = "admin/smska_contacts/change_list.html"
    look_ups = {"group": _group_key}
    needs = {
        **ContactsAdmin.needs,
        "add": ("add", SEE_NUMBER),
        "import": ("view", "add", "change", SEE_NUMBER),
    }

    # --- who may what

    def has_add_permission(self, request: HttpRequest) -> bool:
        return super().has_add_permission(request) and permissions.may_see_number(request.user)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        may = super().has_change_permission(request, obj)
        return may and permissions.may_see_number(request.user)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Allow to view to those who have the permission to change, as Django does, even where it
        is of no use."""
        return any(permissions.may(request.user, one, self.opts) for one in ("view", "change"))

    def has_import_permission(self, request: HttpRequest) -> bool:
        return (
            self.has_view_permission(request)
            and self.has_add_permission(request)
            and self.has_change_permission(request)
        )

    def needed(self, request: HttpRequest, page: str) -> set[str]:
        needs = super().needed(request, page)
        changes = page == "change" and request.method == "POST"
        return needs | {SEE_NUMBER} if changes else needs

    # --- the list

    def get_list_display(self, request: HttpRequest) -> Any:
        if permissions.may_see_number(request.user):
            return self.list_display
        return ("careful_name", "masked_number", "group_names")

    def get_list_display_links(self, request: HttpRequest, list_display: Any) -> Any:
        return [one for one in list_display if one in ("whole_number", "masked_number")]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return ContactList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        every: QuerySet[Any] = super().get_queryset(request)
        return every.prefetch_related("groups")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        may_see = permissions.may_see_number(request.user)
        return queryset.filter(_found_by(term, queryset.db, may_see_number=may_see)), False

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        found: Any = super().get_changelist_instance(request)
        if permissions.may_see_number(request.user):
            found.searches = gettext("A name, or a number in any spelling.")
        else:
            found.searches = gettext("A name.")
        if not found.is_popup:
            found.title = str(capfirst(self.opts.verbose_name_plural))
        return found

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> Any:
        context = dict(extra_context or {})
        if self.has_import_permission(request):
            context["links"] = [(self.url("import"), _("Import…"))]
        return super().changelist_view(request, context)

    @admin.display(description=pgettext_lazy("contacts", "name"))
    def shown_name(self, obj: Contact) -> str:
        return obj.name or "—"

    @admin.display(description=pgettext_lazy("contacts", "name"))
    def careful_name(self, obj: Contact) -> str:
        return permissions.without(obj.name, number=obj.number) or "—"

    @admin.display(description=_("note"))
    def careful_note(self, obj: Contact) -> str:
        return permissions.without(obj.note, number=obj.number)

    @admin.display(description=_("number"))
    def whole_number(self, obj: Contact) -> str:
        return permissions.grouped(obj.number)

    @admin.display(description=_("number"))
    def masked_number(self, obj: Contact) -> str:
        return mask(obj.number)

    @admin.display(description=pgettext_lazy("contacts", "groups"))
    def group_names(self, obj: Contact) -> str:
        return ", ".join(group.name for group in obj.groups.all())

    @admin.display(description=_("do-not-send list"))
    def do_not_send(self, obj: Any) -> str:
        return gettext("on the do-not-send list") if obj.is_opted_out else ""

    # --- one contact

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return self.form.Meta.fields
        made = ("created_at", "created_by")
        if self.has_change_permission(request, obj):
            return (*self.form.Meta.fields, *made)
        return self.get_readonly_fields(request, obj)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        made = ("created_at", "created_by")
        if obj is None or self.has_change_permission(request, obj):
            return made
        if permissions.may_see_number(request.user):
            return ("whole_number", "name", "group_names", "note", *made)
        return ("masked_number", "careful_name", "group_names", "careful_note", *made)

    def save_model(self, request: HttpRequest, obj: Contact, form: Any, change: bool) -> None:
        if not change:
            obj.created_by = request.user
        super().save_model(request, obj, form, change)

    def seen_words(self, user: Any, obj: Any, words: str) -> str:
        return (
            words
            if permissions.may_see_number(user)
            else permissions.without(words, number=obj.number)
        )

    # --- actions

    @admin.action(description=_("Add to the group"), permissions=["change"])
    def join_group(self, request: HttpRequest, queryset: QuerySet[Contact]) -> None:
        if group := self._chosen_group(request):
            number = memberships.join(_keys(queryset), group)
            words = ngettext(
                "%(number)s contact was added to “%(group)s”.",
                "%(number)s contacts were added to “%(group)s”.",
                number,
            )
            self.message_user(request, words % {"number": number, "group": group})

    @admin.action(description=_("Remove from the group"), permissions=["change"])
    def leave_group(self, request: HttpRequest, queryset: QuerySet[Contact]) -> None:
        if group := self._chosen_group(request):
            number = memberships.take_out(_keys(queryset), group)
            words = ngettext(
                "%(number)s contact was removed from “%(group)s”.",
                "%(number)s contacts were removed from “%(group)s”.",
                number,
            )
            self.message_user(request, words % {"number": number, "group": group})

    def _chosen_group(self, request: HttpRequest) -> ContactGroup | None:
        """Return the group beside the action, or ask for one."""
        chosen = GroupActionForm(request.POST)
        del chosen.fields["action"]  # its choices are those of the list
        group = chosen.cleaned_data.get("group") if chosen.is_valid() else None
        if group is None:
            self.message_user(request, gettext("Choose a group, too."), messages.WARNING)
        return group

    # --- import

    def own_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.import_view)
        return [path("import/", view, name="smska_contacts_contact_import")]

    def import_view(self, request: HttpRequest) -> HttpResponse:
        """Answer GET by the form, its POST by a preview, and store by that one's POST."""
        return import_view(request, self)


def _keys(chosen: QuerySet[Any]) -> list[Any]:
    return list(chosen.order_by().values_list("pk", flat=True))


def _found_by(term: str, alias: str, *, may_see_number: bool) -> Q:
    """Return the condition for a name or a number. Digits are looked for by users alone who may see
    numbers: a name may hold one."""
    if not may_see_number and re.search(r"\d", term):
        return Q(pk__in=())
    return _by_name(term, alias) | (_by_number(term) if may_see_number else Q(pk__in=()))


def _by_name(term: str, alias: str) -> Q:
    """Find each word anywhere. SQLite ignores case in ASCII alone, so that spellings are tried."""
    found = Q()
    for word in term.split():
        spellings = {word}
        if connections[alias].vendor == "sqlite":
            spellings |= {word.lower(), word.upper(), word.title()}
        part = Q()
        for one in sorted(spellings):
            part |= Q(name__icontains=one)
        found &= part
    return found


def _by_number(term: str) -> Q:
    try:
        return Q(number=normalize(term))
    except ValidationError:
        numbers = [one.number for one in find(plain(term))]
    digits = re.sub(r"[^0-9]", "", plain(term))
    if numbers or len(digits) < MIN_DIGITS or not re.fullmatch(r"[0-9\s+().\-]+", plain(term)):
        return Q(number__in=numbers)
    part = Q(number__contains=digits)
    if digits.startswith("8"):
        part |= Q(number__startswith=f"+7{digits[1:]}")
    return part


# --- groups


@admin.register(ContactGroup)
class ContactGroupAdmin(ContactsAdmin):
    """Groups, and how many are in each. A group that is deleted leaves its contacts as they are."""

    form: Any = GroupForm
    fields = ("name",)
    list_display = ("name", "members")
    ordering = ("name",)
    search_fields = ("name",)
    actions = None
    change_form_template = "admin/django_smska/smstemplate/change_form.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        groups: Any = super().get_queryset(request)
        counted: QuerySet[Any] = groups.annotate(number_of_contacts=Count("contacts"))
        return counted

    @admin.display(description=_("contacts"))
    def members(self, obj: Any) -> str:
        url = reverse("admin:smska_contacts_contact_changelist", current_app=self.admin_site.name)
        return format_html('<a href="{}?group={}">{}</a>', url, obj.pk, obj.number_of_contacts)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        obj = kwargs.get("obj")
        url = self._url_to_write(request, obj) if obj is not None else ""
        context |= {"write_url": url, "write_label": _("Write to them")}
        return super().render_change_form(request, context, *args, **kwargs)

    def _url_to_write(self, request: HttpRequest, group: ContactGroup) -> str:
        """Return where this user writes to the group, or ""."""
        user: Any = request.user
        site = self.admin_site
        sees = user.has_perm("smska_contacts.view_contact") and permissions.may_see_number(user)
        if not (sees and site.is_registered(SmsMessage)):
            return ""
        of_messages: Any = site.get_model_admin(SmsMessage)
        if not (of_messages.may_compose(request) and clients.is_offered(PATH)):
            return ""
        key = clients.key_of(PATH, labels()[group.pk])
        return f"{of_messages.url('compose')}?{urlencode({clients.GROUP: key})}"

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return () if obj is None else ("members",)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("name",) if obj is None else ("name", "members")

    def get_deleted_objects(
        self, objs: Iterable[Any], request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """Name the groups alone, and not each link of a contact to them."""
        names = [str(one) for one in objs]
        return names, {str(self.opts.verbose_name_plural): len(names)}, set(), []

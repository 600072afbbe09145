"""The admin of messages that phones sent: a list with search, and single messages."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.translation import gettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from ..models import SmsInbound
from ..numbers import mask, normalize
from ..providers import providers
from ..times import local
from . import clients, permissions
from .guard import EntriesAdmin, moment, one_of
from .messages import RECEIVED, RecentPaginator, UsingFilter

#: The text comes early, because a phone shows the first columns only.
LIST = ("received", "text_start", "whole_number", "to", "using", "sent_link")
FIELDS = ("received_at", "whole_number", "to", "whole_text", "using", "gateway_id", "sent_messages")
LINKS = ("sent_link", "sent_messages")  # to messages, which not every user may see
#: What users see instead who may not see whole numbers.
CAREFUL = {
    "whole_number": "masked_number",
    "text_start": "careful_start",
    "whole_text": "careful_text",
    "gateway_id": "careful_id",
}


@admin.register(SmsInbound)
class SmsInboundAdmin(EntriesAdmin):
    """Received messages are read and deleted, never changed."""

    list_display: Any = LIST
    list_filter = (UsingFilter, "received_at")
    list_per_page = 50
    ordering = ("-id",)
    sortable_by = ()
    actions = None
    search_fields = ("sender",)
    search_help_text = _("A whole number, in any spelling.")
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = RecentPaginator
    change_list_template = "admin/django_smska/smsinbound/change_list.html"
    number = "sender"
    look_ups = {
        "using": one_of(lambda: providers),
        "received_at__gte": moment,
        "received_at__lt": moment,
    }

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    # --- what is shown to whom

    def get_list_display(self, request: HttpRequest) -> Any:
        shown = self._shown(request, LIST)
        return shown if len(list(providers)) > 1 else [name for name in shown if name != "using"]

    def get_list_display_links(self, request: HttpRequest, list_display: Any) -> Any:
        return list_display[:1]

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self._shown(request, FIELDS)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self._shown(request, FIELDS)

    def _shown(self, request: HttpRequest, names: Any) -> list[str]:
        user: Any = request.user
        shown = [name for name in names if name not in LINKS or permissions.may_view(user)]
        if permissions.may_see_number(user):
            return shown
        return [CAREFUL.get(name, name) for name in shown]

    def seen_words(self, user: Any, obj: SmsInbound, words: str) -> str:
        return words if permissions.may_see_number(user) else _without_numbers(obj, words)

    # --- columns

    @admin.display(description=_("received"))
    def received(self, obj: SmsInbound) -> str:
        return date_format(local(obj.received_at), "SHORT_DATETIME_FORMAT")

    @admin.display(description=pgettext_lazy("SMS", "from"))
    def whole_number(self, obj: SmsInbound) -> str:
        return clients.beside(permissions.grouped(str(obj.sender)) or gettext("(erased)"), obj)

    @admin.display(description=pgettext_lazy("SMS", "from"))
    def masked_number(self, obj: SmsInbound) -> str:
        return mask(str(obj.sender)) if obj.sender else gettext("(erased)")

    @admin.display(description=_("text"))
    def whole_text(self, obj: SmsInbound) -> str:
        return str(obj.body)

    @admin.display(description=_("text"))
    def careful_text(self, obj: SmsInbound) -> str:
        return _without_numbers(obj, obj.body)

    @admin.display(description=_("text"))
    def text_start(self, obj: SmsInbound) -> str:
        return _start(obj.body)

    @admin.display(description=_("text"))
    def careful_start(self, obj: SmsInbound) -> str:
        return _start(_without_numbers(obj, obj.body))

    @admin.display(description=_("gateway id"))
    def careful_id(self, obj: SmsInbound) -> str:
        return _without_numbers(obj, obj.gateway_id or "")

    @admin.display(description=_("your messages"))
    def sent_messages(self, obj: SmsInbound) -> str:
        return self._sent(obj, gettext("Show messages to this number"))

    @admin.display(description=_("your messages"))
    def sent_link(self, obj: SmsInbound) -> str:
        return self._sent(obj, gettext("Show"))

    def _sent(self, obj: SmsInbound, words: str) -> str:
        """Link to the messages to this number. The address has the key of this row, because
        addresses with a number get into logs."""
        if not obj.sender.startswith("+"):  # nothing is ever sent to it
            return self.get_empty_value_display()
        site = self.admin_site.name
        url = reverse("admin:django_smska_smsmessage_changelist", current_app=site)
        query = urlencode({RECEIVED: obj.pk})
        return format_html('<a href="{}?{}">{}</a>', url, query, words)

    # --- search

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find a whole number or short code. For a user who may not see one a search finds nothing:
        a thousand would reveal the digits that a mask hides."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if not permissions.may_see_number(request.user):
            return queryset.none(), False
        found = Q(sender=term)
        with suppress(ValidationError):
            found |= Q(sender=normalize(term))
        return queryset.filter(found), False


def _without_numbers(obj: SmsInbound, words: str) -> str:
    return permissions.without(words, number=str(obj.sender))


def _start(text: str) -> str:
    shown = Truncator(" ".join(text.split())).chars(50)
    return format_html('<span class="smska-start">{}</span>', shown)

"""The admin of templates: texts with placeholders, saved under a name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.translation import gettext, pgettext_lazy
from django.utils.translation import gettext_lazy as _

from ..models import SmsMessage, SmsTemplate
from ..placeholders import Text
from ..segments import with_plain_lines
from . import permissions
from .forms import CountedTextarea, UnloggedErrors
from .guard import GuardedAdmin

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[SmsTemplate]
else:
    ModelForm = forms.ModelForm

ALL_LANGUAGES = pgettext_lazy("template", "all languages")


class SmsTemplateForm(ModelForm):
    """A text for one of the site's languages, or for all, with placeholders only in its braces."""

    language = forms.ChoiceField(label=_("Language"), required=False)

    class Meta:
        model = SmsTemplate
        fields = ("name", "language", "body")
        widgets = {"body": CountedTextarea}
        help_texts = {
            "name": _("By which it is chosen, here and in code. The same in each language."),
            "body": _(
                "A name in braces, such as {name}, is filled in for each recipient, from the "
                "column of the table with this head."
            ),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"error_class": UnloggedErrors, **kwargs})
        if "language" in self.fields:
            field: Any = self.fields["language"]
            field.choices = list(_languages(self.instance.language))

    def clean_body(self) -> str:
        body = with_plain_lines(str(self.cleaned_data["body"]))
        Text(body)
        return body


def _languages(stored: str) -> Iterator[tuple[str, Any]]:
    """Yield the choices; a stored language that the site no longer has is one, too."""
    names = dict(settings.LANGUAGES)
    yield "", ALL_LANGUAGES
    for code, name in names.items():
        yield code, gettext(name)
    if stored and stored not in names:
        yield stored, stored


@admin.register(SmsTemplate)
class SmsTemplateAdmin(GuardedAdmin):
    """Texts are shown to users who may see those of messages, and changed by them alone."""

    form: Any = SmsTemplateForm
    list_display: Any = ("name", "text_start", "write", "shown_language", "changed_at")
    list_per_page = 50
    ordering = ("name", "language")
    sortable_by = ()
    actions = None
    search_fields = ("name",)
    show_full_result_count = False
    change_form_template = "admin/django_smska/smstemplate/change_form.html"

    # --- who may what

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        sees = permissions.may_see_text(request.user)
        return sees and super().has_change_permission(request, obj)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Allow to view to users who may change: without the text they may view alone."""
        return any(permissions.may(request.user, one, self.opts) for one in ("view", "change"))

    def needed(self, request: HttpRequest, page: str) -> set[str]:
        if page == "change" and request.method == "POST":
            return self.codenames(("change", "see_text_smsmessage"))
        return super().needed(request, page)

    # --- the list

    def get_list_display(self, request: HttpRequest) -> Any:
        """Leave out the texts for users who may not see them, and the link for those who may not
        write."""
        hidden = {
            "text_start": not permissions.may_see_text(request.user),
            "write": not self._may_write(request),
        }
        return [name for name in self.list_display if not hidden.get(name)]

    @admin.display(description=_("language"))
    def shown_language(self, obj: SmsTemplate) -> str:
        names = {"": ALL_LANGUAGES, **dict(settings.LANGUAGES)}
        return gettext(str(names.get(obj.language, obj.language)))

    @admin.display(description=_("text"))
    def text_start(self, obj: SmsTemplate) -> str:
        text = Truncator(" ".join(obj.body.split())).chars(80)
        return format_html('<span class="smska-start">{}</span>', text)

    @admin.display(description=_("write a message"))
    def write(self, obj: SmsTemplate) -> str:
        words = gettext("Write with this template")
        link = '<a href="{}" aria-label="{}: {}">{}</a>'
        return format_html(link, self._url_to_write(obj), words, obj, words)

    def _may_write(self, request: HttpRequest) -> bool:
        site = self.admin_site
        if not (site.is_registered(SmsMessage) and permissions.may_see_text(request.user)):
            return False
        of_messages: Any = site.get_model_admin(SmsMessage)
        return bool(of_messages.may_compose(request))

    def _url_to_write(self, obj: SmsTemplate) -> str:
        name = "admin:django_smska_smsmessage_compose"
        return f"{reverse(name, current_app=self.admin_site.name)}?template={obj.pk}"

    # --- one template

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None or permissions.may_see_text(request.user):
            return ("name", "language", "body")
        return ("name", "language", "hidden_text")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("hidden_text",)

    @admin.display(description=_("text"))
    def hidden_text(self, obj: SmsTemplate) -> str:
        return gettext("(hidden)")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if not change:
            obj.created_by = request.user
        super().save_model(request, obj, form, change)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        obj: Any = kwargs.get("obj")
        context |= {"write_url": "", "write_label": _("Write with this template")}
        if obj is not None and self._may_write(request):
            context["write_url"] = self._url_to_write(obj)
        return super().render_change_form(request, context, *args, **kwargs)

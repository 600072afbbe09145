"""The admin of mailings: a list with their progress, and a page that follows one of them."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet, Sum
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from .. import circuit_breaker, mailing_counts, mailings
from ..exceptions import WrongStatus
from ..models import SmsMailing, SmsMessage
from ..providers import providers
from ..states import Status
from ..times import local
from . import alerts, permissions, resending
from .actions import MAX_ONE_BY_ONE, log
from .compose_times import Plan
from .guard import TEMPLATES, EntriesAdmin
from .mailing_times import quiet_plan, waiting
from .messages import MAILING
from .money import cost_of, total_of
from .permissions import may
from .wording import money

_MESSAGES = SmsMessage._meta
_SEES = "view_smsmessage"
_CHANGED = _("The mailing has changed in the meantime. Nothing was done. Look at it again.")


@admin.register(SmsMailing)
class SmsMailingAdmin(EntriesAdmin):
    """Mailings are watched, stopped and let go on. Who may see messages may see them."""

    list_display: Any = ("name", "progress", "begins", "created_by")
    list_per_page = 25
    ordering = ("-id",)
    sortable_by = ()
    actions = None
    search_fields = ("name",)
    show_full_result_count = False
    needs = {
        **dict.fromkeys(("changelist", "change", "history", "progress", "statistics"), (_SEES,)),
        **dict.fromkeys(("stop", "resume"), (_SEES, "send_smsmessage")),
        "resend": (_SEES, "resend_smsmessage"),
    }

    class Media(EntriesAdmin.Media):
        js = ("django_smska/progress.js", "django_smska/live.js")

    # --- who may what

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return any(may(request.user, one, _MESSAGES) for one in ("view", "change"))

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_send_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and may(request.user, "send", _MESSAGES)

    def has_resend_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and may(request.user, "resend", _MESSAGES)

    # --- the list

    def get_queryset(self, request: HttpRequest) -> QuerySet[SmsMailing]:
        return super().get_queryset(request).select_related("created_by")

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        found: Any = super().get_changelist_instance(request)
        found.result_list = list(found.result_list)
        mailing_counts.refresh(found.result_list)
        found.is_live = not found.is_popup and any(map(_is_live, found.result_list))
        return found

    @admin.display(description=_("progress"))
    def progress(self, obj: SmsMailing) -> str:
        found = mailing_counts.progress(obj)
        bar = format_html(
            '<progress class="smska-bar" value="{}" max="{}" aria-hidden="true"></progress> ',
            found.total - found.waiting - found.drafts,
            found.total,
        )
        return format_html("{}<span>{}</span>", bar, "; ".join(summary(obj, found)))

    @admin.display(description=_("begins"))
    def begins(self, obj: SmsMailing) -> str:
        return date_format(local(obj.send_after or obj.created_at), "SHORT_DATETIME_FORMAT")

    # --- one mailing

    def own_urls(self) -> list[URLPattern]:
        views = {
            "progress": self.progress_view,
            "statistics": self.statistics_view,
            "stop": self.stop_view,
            "resume": self.resume_view,
            "resend": self.resend_view,
        }
        return [
            path(
                f"<int:key>/{name}/",
                self.without_transaction(view),
                name=f"django_smska_smsmailing_{name}",
            )
            for name, view in views.items()
        ]

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        if object_id is None or request.method == "POST":
            raise PermissionDenied
        mailing = self.get_object(request, object_id)
        if not self.has_view_permission(request, mailing):
            raise PermissionDenied
        if mailing is None:
            self.message_user(request, _("There is no such mailing."), messages.WARNING)
            return HttpResponseRedirect(self.url("changelist"))
        body = mailing.body if permissions.may_see_text(request.user) else ""
        return self.page(
            request,
            "mailing",
            mailing.name,
            **self._shown(request, mailing),
            body=permissions.Unlogged(body),
            list_url=self.messages_url(mailing),
            cost=_cost(mailing),
            history_url=self.url("history", mailing.pk),
            statistics_url=self.url("statistics", mailing.pk),
            back_url=self.url("changelist"),
        )

    def progress_view(self, request: HttpRequest, key: int) -> HttpResponse:
        """Answer with the part of the page that changes, for the script that renews it."""
        mailing = self._mailing(request, key)
        request.current_app = self.admin_site.name
        shown = self._shown(request, mailing)
        return TemplateResponse(request, f"{TEMPLATES}/mailing_progress.html", shown)

    def statistics_view(self, request: HttpRequest, key: int) -> HttpResponse:
        """Show which part arrived and when, and why others did not."""
        from .mailing_statistics import page

        mailing = self._mailing(request, key)
        return self.page(
            request,
            "mailing_statistics",
            gettext("Statistics of “%s”") % mailing.name,
            mailing=mailing,
            back_url=self.url("change", mailing.pk),
            **page(mailing),
        )

    def _mailing(self, request: HttpRequest, key: int) -> SmsMailing:
        mailing: SmsMailing | None = self.get_object(request, str(key))
        if mailing is None or not self.has_view_permission(request, mailing):
            raise PermissionDenied
        return mailing

    def _shown(self, request: HttpRequest, mailing: SmsMailing) -> dict[str, Any]:
        mailing_counts.refresh([mailing])
        found = mailing_counts.progress(mailing)
        failed = 0
        if found.failed and mailing.stopped_at is None:
            failed = mailings.failed(mailing)[:MAX_ONE_BY_ONE].count()
        may_send = self.has_send_permission(request)
        may_resend = self.has_resend_permission(request)
        return {
            "mailing": mailing,
            "progress": found,
            "gone": found.total - found.waiting - found.drafts,
            "lines": list(self._lines(mailing, found)),
            "waiting": waiting(mailing, found),
            "warnings": _warnings(mailing) if found.waiting else [],
            "is_live": _is_live(mailing),
            "may_stop": may_send and found.waiting and mailing.stopped_at is None,
            "may_resume": may_send and (found.drafts or mailing.stopped_at is not None),
            "failed": failed if may_resend else 0,
            "urls": {
                name: self.url(name, mailing.pk)
                for name in ("progress", "statistics", "stop", "resume", "resend")
            },
        }

    def _lines(self, mailing: SmsMailing, found: mailing_counts.Progress) -> Any:
        """Yield what there is of each kind: its name, its number, and the list of its messages."""
        kinds: tuple[tuple[Any, int, Status | None], ...] = (
            (_("Delivered"), found.delivered, Status.DELIVERED),
            (_("Sent, not delivered yet"), found.sent, None),
            (_("Waiting to be sent"), found.waiting, None),
            (_("Drafts"), found.drafts, Status.DRAFT),
            (_("Not delivered"), found.not_delivered, None),
            (_("Not sent"), found.failed, Status.FAILED),
            (_("Unknown whether it was sent"), found.unknown, Status.UNKNOWN),
            (_("Cancelled"), found.cancelled, Status.CANCELLED),
        )
        for words, number, status in kinds:
            if number:
                yield words, number, self.messages_url(mailing, status)

    def messages_url(self, mailing: SmsMailing, status: Status | None = None) -> str:
        """Return the address of the list of its messages, of one status or of all."""
        name = "admin:django_smska_smsmessage_changelist"
        query = {MAILING: mailing.pk, **({"status__exact": str(status)} if status else {})}
        return f"{reverse(name, current_app=self.admin_site.name)}?{urlencode(query)}"

    # --- actions

    def stop_view(self, request: HttpRequest, key: int) -> HttpResponse:
        mailing = self._to_act_on(request, key, self.has_send_permission(request))
        number = mailing.stop(by=request.user.get_username())
        words = ngettext("Stopped: %s message waits.", "Stopped: %s messages wait.", number)
        return self._done(request, mailing, words % number)

    def resume_view(self, request: HttpRequest, key: int) -> HttpResponse:
        """Answer GET by what would leave, and let it leave by POST."""
        if request.method != "POST":
            return self._ask_resume(request, self._mailing(request, key))
        mailing = self._to_act_on(request, key, self.has_send_permission(request))
        if request.POST.get("state") != _state(mailing):
            self.message_user(request, _CHANGED, messages.WARNING)
            return HttpResponseRedirect(self.url("change", mailing.pk))
        if why_not := resending.obstacle_of_mailing(mailings.drafts(mailing)):
            return self._refused(request, mailing, why_not)
        if "_send_at_night" in request.POST:
            mailings.send_at_night(mailing)
            mailing.refresh_from_db()
        plan = quiet_plan(mailing, mailings.drafts(mailing))
        number = mailing.resume()
        words = ngettext("Queued: %s message.", "Queued: %s messages.", number) % number
        return self._done(request, mailing, f"{words} {plan.outcome}".strip())

    def _ask_resume(self, request: HttpRequest, mailing: SmsMailing) -> HttpResponse:
        if not self.has_send_permission(request):
            raise PermissionDenied
        drafts = mailings.drafts(mailing)
        found = drafts.aggregate(number=Count("*"), segments=Sum("segments"))
        return self._ask(
            request,
            mailing,
            "resume",
            gettext("Let the mailing go on") if mailing.stopped_at else gettext("Send the drafts"),
            question=gettext("Queue these messages? The workers send them."),
            nothing=gettext("No message of this mailing is a draft."),
            number=found["number"],
            segments=found["segments"] or 0,
            state=_state(mailing),
            plan=quiet_plan(mailing, drafts),
            may_send_at_night=True,
            refused=resending.obstacle_of_mailing(drafts),
        )

    def resend_view(self, request: HttpRequest, key: int) -> HttpResponse:
        """Answer GET by what would be sent again, and send it by POST."""
        if request.method != "POST":
            return self._ask_resend(request, self._mailing(request, key))
        mailing = self._to_act_on(request, key, self.has_resend_permission(request))
        last = request.POST.get("state", "")
        if mailing.stopped_at is not None or not re.fullmatch("[1-9][0-9]{0,17}", last):
            self.message_user(request, _CHANGED, messages.WARNING)
            return HttpResponseRedirect(self.url("change", mailing.pk))
        if why_not := resending.obstacle_of_mailing(mailings.failed(mailing)):
            return self._refused(request, mailing, why_not)
        result = mailings.resend_failed(
            mailing, created_by=request.user, most=MAX_ONE_BY_ONE, last=int(last)
        )
        words = ngettext("Queued again: %s message.", "Queued again: %s messages.", result)
        refused = [one for _pk, one in result.errors if not isinstance(one, WrongStatus)]
        if refused:
            more = ngettext(
                "%s message cannot be sent again: its number is on the do-not-send list, or a "
                "limit does not allow it.",
                "%s messages cannot be sent again: their numbers are on the do-not-send list, or a "
                "limit does not allow it.",
                len(refused),
            )
            self.message_user(request, more % len(refused), messages.WARNING)
        return self._done(request, mailing, words % int(result))

    def _ask_resend(self, request: HttpRequest, mailing: SmsMailing) -> HttpResponse:
        if not self.has_resend_permission(request):
            raise PermissionDenied
        going = mailings.failed(mailing).order_by("pk").values_list("pk", "segments")
        chosen = list(going[:MAX_ONE_BY_ONE]) if mailing.stopped_at is None else []
        return self._ask(
            request,
            mailing,
            "resend",
            gettext("Write again to those that it was not sent to"),
            question=gettext(
                "These messages were definitely not sent. Send their texts again as new messages? "
                "You will be charged again."
            ),
            nothing=_nothing_to_resend(mailing),
            number=len(chosen),
            segments=sum(segments for _pk, segments in chosen),
            state=chosen[-1][0] if chosen else "",
            plan=quiet_plan(mailing, mailings.of(mailing).filter(pk__in=[pk for pk, _ in chosen])),
            may_send_at_night=False,
            refused=resending.obstacle_of_mailing(mailings.failed(mailing)),
        )

    def _ask(
        self,
        request: HttpRequest,
        mailing: SmsMailing,
        name: str,
        title: str,
        *,
        plan: Plan,
        may_send_at_night: bool,
        **about: Any,
    ) -> HttpResponse:
        """Return the page that asks before anything is queued.

        :param may_send_at_night: the page has a button for it, where it is quiet hours
        :param about: what else the template shows; ``refused`` is why nothing is queued, or ""
        """
        state = circuit_breaker.state_of(mailing.using) if mailing.using else None
        return self.page(
            request,
            "mailing_ask",
            title,
            **about,
            mailing=mailing,
            cost=cost_of(state, about["segments"]) if state is not None else None,
            warnings=[*([plan.words] if plan.words else []), *_warnings(mailing)],
            may_send_at_night=may_send_at_night and plan.words,
            action_url=self.url(name, mailing.pk),
            back_url=self.url("change", mailing.pk),
        )

    def _to_act_on(self, request: HttpRequest, key: int, allowed: bool) -> SmsMailing:
        mailing = self._mailing(request, key)
        if not allowed or request.method != "POST":
            raise PermissionDenied
        return mailing

    def _refused(self, request: HttpRequest, mailing: SmsMailing, why: str) -> HttpResponse:
        self.message_user(request, why, messages.ERROR)
        return HttpResponseRedirect(self.url("change", mailing.pk))

    def _done(self, request: HttpRequest, mailing: SmsMailing, words: str) -> HttpResponse:
        log(request.user, [mailing], words)
        self.message_user(request, words, messages.SUCCESS)
        return HttpResponseRedirect(self.url("change", mailing.pk))


def _is_live(mailing: SmsMailing) -> bool:
    """Return whether its numbers change without a person."""
    found = mailing_counts.progress(mailing)
    return not mailing.settled and bool(found.waiting or found.sent)


def _nothing_to_resend(mailing: SmsMailing) -> str:
    """Return why nothing is sent again; of a stopped mailing it is not known whether any failed."""
    if mailing.stopped_at is not None:
        return gettext("This mailing is stopped. Let it go on first.")
    return gettext(
        "No message of this mailing has failed, or each one was sent again already, or would fail "
        "again."
    )


def _state(mailing: SmsMailing) -> str:
    """Return what must be the same when a person agrees as when the page asked."""
    at = mailing.stopped_at
    return f"{'' if at is None else at.timestamp()} {mailings.drafts(mailing).count()}"


def summary(mailing: SmsMailing, found: mailing_counts.Progress) -> list[str]:
    """Return in few words how far it is."""
    words = [
        gettext("%(number)s of %(total)s delivered")
        % {"number": found.delivered, "total": found.total}
    ]
    kinds = (
        (gettext("waiting: %s"), found.waiting),
        (gettext("drafts: %s"), found.drafts),
        (gettext("not sent: %s"), found.failed),
        (gettext("unknown: %s"), found.unknown),
    )
    words += [gettext("stopped")] if mailing.stopped_at is not None else []
    return words + [text % number for text, number in kinds if number]


def _warnings(mailing: SmsMailing) -> list[str]:
    """Return why its messages may wait longer than a person expects."""
    aliases = [mailing.using] if mailing.using else providers
    return [alert.words for alert in alerts.of(aliases) if alert.warns]


def _cost(mailing: SmsMailing) -> str:
    """Return its segments, and the prices that providers have reported, or else what all of them
    cost."""
    mailing_counts.refresh_prices(mailing)
    words = ngettext("%s segment", "%s segments", mailing.segments) % mailing.segments
    prices = [money(Decimal(price), one) for one, price in sorted(mailing.prices.items())]
    if not prices and (total := total_of(mailing.using, mailing.segments)):
        prices = [gettext("%s if all are sent") % total]
    return " · ".join([words, *prices])

"""The confirmation pages of the admin's actions, and their POST."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from django.contrib import messages
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.core.exceptions import PermissionDenied
from django.db import Error, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.text import Truncator
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from .. import log_fields, mailings
from ..models import SmsMailing, SmsMessage, rows, write_db
from ..numbers import mask
from . import clients, history, permissions, resending, waiting
from .actions import (
    ACTIONS,
    MAX_ITEMS_SHOWN,
    RESEND,
    SEND,
    SKIPPED,
    Action,
    Mode,
    Outcome,
    Plan,
    crashed,
    hand_over_one,
    log,
    mailing_stopped,
    read_keys,
    resend_as_seen,
    run_action,
)
from .guard import GuardedAdmin

logger = logging.getLogger(__name__)

BATCH_MESSAGES = 1000  # the messages of one transaction


class ActionAdmin(GuardedAdmin):
    """Adds a confirmation page for each action to an admin of messages."""

    # To change includes to view, as in Django.
    needs = {
        **GuardedAdmin.needs,
        **{
            one.name: ("change",) if one.permission == "change" else ("view", one.permission)
            for one in ACTIONS
        },
    }

    def may(self, request: HttpRequest, permission: str, obj: Any = None) -> bool:
        return self.has_view_permission(request, obj) and permissions.may(
            request.user, permission, self.opts
        )

    def may_compose(self, request: HttpRequest) -> bool:
        """Return whether the user has the page for writing, which sends and stores drafts."""
        return self.has_add_permission(request) and self.may(request, "send")

    def url(self, name: str, *args: Any) -> str:
        site = self.admin_site.name
        return reverse(f"admin:django_smska_smsmessage_{name}", args=args, current_app=site)

    def link_to(self, key: Any, words: Any) -> str:
        return format_html('<a href="{}">{}</a>', self.url("change", key), words)

    def summary(self, request: HttpRequest, outcome: Outcome, keys: list[int]) -> str:
        """Return what was done with which messages. It names their recipients, all of them masked:
        a cookie may carry it to the next page."""
        shown = keys[:MAX_ITEMS_SHOWN]
        names = self._recipients(request, shown)
        if len(keys) == 1 and keys[0] in names:
            named = self.link_to(keys[0], gettext("SMS to %(number)s") % {"number": names[keys[0]]})
        else:
            number = ngettext("%s message", "%s messages", len(keys)) % len(keys)
            links = [(self.link_to(key, names.get(key, key)),) for key in shown]
            more = "…" if len(keys) > len(shown) else ""
            named = format_html("{} ({}{})", number, format_html_join(", ", "{}", links), more)
        words = format_html("{}: {}. {}", outcome.what, named, outcome.why)
        if outcome.mailing is None or not self.admin_site.is_registered(SmsMailing):
            return words
        link = format_html('<a href="{}">{}</a>', self.mailing_url(outcome.mailing), _("Mailing"))
        return format_html("{} {}", words, link)

    def _recipients(self, request: HttpRequest, keys: list[int]) -> dict[int, str]:
        """Return the masked numbers of messages. What was done is reported without them, too."""
        try:
            found = dict(self._chosen(request, keys).values_list("pk", "to"))
        except Error as error:
            name = type(error).__name__
            extra = log_fields.of_messages(keys, "", name)
            logger.error("the recipients of messages are not known: %s", name, extra=extra)
            return {}
        return {key: mask(str(to)) if to else gettext("(erased)") for key, to in found.items()}

    def mailing_url(self, key: Any) -> str:
        site = self.admin_site.name
        return reverse("admin:django_smska_smsmailing_change", args=[key], current_app=site)

    def own_urls(self) -> list[URLPattern]:
        return [
            path(f"{one.name}/", self._view(one), name=f"django_smska_smsmessage_{one.name}")
            for one in ACTIONS
        ]

    def _view(self, action: Action) -> Callable[..., Any]:
        return self.without_transaction(partial(self.action_view, action=action))

    def action_view(self, request: HttpRequest, action: Action) -> HttpResponse:
        """Answer GET by what would be done with the messages ``pks``, and do it by POST."""
        if not self.may(request, action.permission):
            raise PermissionDenied
        if request.method != "POST":
            return self.confirm(
                request, action, self._chosen(request, read_keys(request.GET.get("pks", "")))
            )
        keys = read_keys(request.POST.get("pks", ""))
        if action is RESEND and "seen" in request.POST:
            action = resend_as_seen(request.POST["seen"])
        self.carry_out(request, action, keys)
        if len(keys) == 1:
            return HttpResponseRedirect(self.with_filters(request, self.url("change", keys[0])))
        return HttpResponseRedirect(self.with_filters(request, self.url("changelist")))

    def _chosen(self, request: HttpRequest, keys: list[int]) -> QuerySet[SmsMessage]:
        return self.get_queryset(request).using(write_db()).filter(pk__in=keys)

    def with_filters(self, request: HttpRequest, url: str) -> str:
        filters = self.get_preserved_filters(request)
        return str(add_preserved_filters({"preserved_filters": filters, "opts": self.opts}, url))

    def confirm(
        self, request: HttpRequest, action: Action, chosen: QuerySet[SmsMessage]
    ) -> HttpResponse:
        may_see_number = permissions.may_see_number(request.user)
        plan = Plan(action, chosen, names_opted_out=may_see_number)
        if plan.mode is Mode.REFUSED:
            self._refuse(request, action)
            return HttpResponseRedirect(self.with_filters(request, self.url("changelist")))
        listed = list(chosen.filter(pk__in=plan.first))
        if not all(self.may(request, action.permission, message) for message in listed):
            raise PermissionDenied
        notes = resending.notes(listed) if action is RESEND else {}
        clients.put_names(request.user, listed, "to")
        one = len(plan.chosen) == 1
        back = self.url("change", plan.chosen[0]) if one else self.url("changelist")
        return self.page(
            request,
            "confirm",
            action.label,
            action=action,
            plan=plan,
            listed=[
                (
                    clients.before(permissions.number_for(request.user, message), message),
                    permissions.Unlogged(
                        Truncator(permissions.text_for(request.user, message)).chars(60)
                    ),
                    message.segments,
                    message.pk in plan.opted_out,
                    notes.get(message.pk, ""),
                )
                for message in listed
            ],
            stopped=[(self.mailing_url(one.pk), one, number) for one, number in plan.stopped]
            if self.admin_site.is_registered(SmsMailing)
            else [("", one, number) for one, number in plan.stopped],
            last_actions=self.last_actions(request, plan.left_out),
            action_url=self.with_filters(request, self.url(action.name)),
            back_url=self.with_filters(request, back),
        )

    def _refuse(self, request: HttpRequest, action: Action) -> None:
        text = gettext("Select at most %s messages; a filter can help.") % action.most
        self.message_user(request, text, messages.ERROR)

    def carry_out(self, request: HttpRequest, action: Action, keys: list[int]) -> None:
        """Do the action, note it in the history of each message, and report the outcomes."""
        mode = action.mode(len(keys))
        if mode is Mode.REFUSED:
            self._refuse(request, action)
            return
        work = self._one_by_one if mode is Mode.NOW else self._in_bulk
        groups: dict[Outcome, list[int]] = defaultdict(list)
        for start in range(0, len(keys), BATCH_MESSAGES):
            batch = keys[start : start + BATCH_MESSAGES]
            for key, outcome in self._outcomes(work, request, action, batch):
                alike = replace(outcome, history="", new=None)
                groups[alike].append(outcome.new or key)
        skipped = groups.pop(SKIPPED, [])
        for outcome, done in groups.items():
            self.message_user(request, self.summary(request, outcome, done), outcome.level)
        if skipped:
            self._report_skipped(request, skipped)
        self.report_waits(request, [key for one in groups if one.waits for key in groups[one]])
        if not groups and not skipped:
            self.message_user(request, _("There was nothing to do."), messages.WARNING)

    def _report_skipped(self, request: HttpRequest, keys: list[int]) -> None:
        """Report messages with which nothing was done, and who has done something with them."""
        words = self.last_actions(request, keys)
        known = {key for group in words.values() for key in group}
        for sentence, group in words.items():
            outcome = replace(SKIPPED, why=f"{SKIPPED.why} {sentence}")
            self.message_user(request, self.summary(request, outcome, group), outcome.level)
        if others := [key for key in keys if key not in known]:
            self.message_user(request, self.summary(request, SKIPPED, others), SKIPPED.level)

    def last_actions(self, request: HttpRequest, keys: list[int]) -> dict[str, list[int]]:
        """Return by sentence what was last done in the admin with messages, if they are few."""
        if not keys or len(keys) > MAX_ITEMS_SHOWN:
            return {}
        return history.last_actions(request.user, list(self._chosen(request, keys).order_by("pk")))

    def report_waits(self, request: HttpRequest, keys: list[int]) -> None:
        """Warn where messages that were queued just now are not sent soon."""
        if not keys:
            return
        aliases = rows(keys[:BATCH_MESSAGES]).order_by().values_list("using", flat=True)
        try:
            found = waiting.of_providers(aliases.distinct())
        except Error as error:  # what was done is reported all the same
            name = type(error).__name__
            extra = log_fields.of_messages(keys, "", name)
            logger.error("why messages wait is not known: %s", name, extra=extra)
            return
        for words in found:
            self.message_user(request, words, messages.WARNING)

    def _outcomes(
        self, work: Callable[..., Any], request: HttpRequest, action: Action, keys: list[int]
    ) -> Iterator[tuple[int, Outcome]]:
        """Yield an outcome for each message, also if the database goes away among them, because
        messages that were sent and are paid for must be reported."""
        left = dict.fromkeys(keys)
        try:
            for key, outcome in work(request, action, keys):
                del left[key]
                yield key, outcome
        except Exception as error:
            outcome = crashed(list(left), error)
            yield from ((key, outcome) for key in left)

    def _one_by_one(
        self, request: HttpRequest, action: Action, keys: list[int]
    ) -> Iterator[tuple[int, Outcome]]:
        failing: set[str] = set()
        for message in self._chosen(request, keys).order_by("pk"):
            may = partial(self.may, request, action.permission, message)
            outcome = run_action(action, message, request.user, may, failing)
            if not outcome.is_skipped:
                log(request.user, [message], str(outcome))
            yield message.pk, outcome

    def _in_bulk(
        self, request: HttpRequest, action: Action, keys: list[int]
    ) -> Iterator[tuple[int, Outcome]]:
        try:
            moved = self.hand_over_all(request, action, keys)
        except Exception as error:  # one of them ended the query of all
            words, name = "%s messages were not handed over together: %s", type(error).__name__
            logger.error(words, len(keys), name, extra=log_fields.of_messages(keys, "", name))
            yield from self._one_by_one(request, hand_over_one(action), keys)
            return
        for key in keys:
            yield key, moved.get(key, SKIPPED)

    def hand_over_all(
        self, request: HttpRequest, action: Action, keys: list[int]
    ) -> dict[Any, Outcome]:
        """Hand over those that fit, in one transaction; return their outcomes, by their keys."""
        assert action.hand_over is not None
        with transaction.atomic(using=write_db()):
            possible = action.statuses_in(Mode.QUEUE)
            chosen = self._chosen(request, keys).filter(status__in=possible)
            fit = [
                message
                for message in chosen.select_for_update().only(
                    "pk", "to", "status", "sender", "using"
                )
                if self.may(request, action.permission, message)
            ]
            stopped = mailings.stopped(m.pk for m in fit) if action.name == SEND.name else {}
            held_back = {key: mailing_stopped(mailing) for key, mailing in stopped.items()}
            against = action.obstacles(fit)
            held_back |= {key: replace(SKIPPED, why=why) for key, why in against.items()}
            fit = [message for message in fit if message.pk not in held_back]
            action.hand_over(rows(message.pk for message in fit))
            log(request.user, fit, str(action.handed_over))
        return {**held_back, **dict.fromkeys([m.pk for m in fit], action.handed_over)}

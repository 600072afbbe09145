"""Who may do what in the admin: every URL, action and button, by every kind of user.

The URLs, actions, buttons and permissions are those of the admin itself. What is new there needs a
line in ``TABLE``.
"""

import re
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import NamedTuple

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth import get_permission_codename
from django.contrib.auth.models import Permission, User
from django.test import RequestFactory
from django.urls import URLResolver, get_resolver

from django_smska.admin.actions import ACTIONS
from django_smska.admin.permissions import NAMES
from django_smska.models import (
    ProviderState,
    SmsErasure,
    SmsInbound,
    SmsMailing,
    SmsMessage,
    SmsOptOut,
    SmsTemplate,
    rows,
)
from django_smska.sms import outbox
from django_smska.states import Status

from .extent import ALL

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

START = "/admin/django_smska/"
MODELS = list(apps.get_app_config("django_smska").get_models())
ADMINS = {one._meta.model_name: admin.site._registry.get(one) for one in MODELS}
ADMINS = {name: one for name, one in ADMINS.items() if one is not None}

#: Every permission of the app, by its codename.
EVERY = frozenset(
    codename
    for opts in (one._meta for one in MODELS)
    for codename in (
        *(get_permission_codename(name, opts) for name in opts.default_permissions),
        *(codename for codename, _ in opts.permissions),
    )
)

# --- the table


class Gives(Enum):
    PAGE = "200, and nothing is changed"
    MOVES = "302, and nothing is changed"
    DOES = "302, and something is changed"
    KEEPS = "409, and nothing is changed"
    FILE = "a file, and nothing is changed"


class Cell(NamedTuple):
    """One way to use one URL.

    :ivar url: below the app's, with ``<pk>`` for a key
    :ivar way: "GET", an action of a list, or the button that a POST carries; "POST" for one without
        a name
    :ivar needs: the permissions that are needed, all of them; those for the URL's own model without
        the model's name. "change" includes "view", as in Django. None: it is refused to all.
    :ivar gives: what those get who may; by default DOES for a POST, and else PAGE
    :ivar status: of the message
    """

    url: str
    way: str
    needs: str | None
    gives: Gives | None = None
    status: str = "draft"

    def __str__(self):
        return f"{self.way} {self.url} ({self.status})"

    @property
    def result(self):
        return self.gives or (Gives.DOES if self.posts and not self.is_action else Gives.PAGE)

    @property
    def posts(self):
        return self.way != "GET"

    @property
    def is_action(self):
        return self.way.endswith("_selected")

    @property
    def permissions(self):
        """Return the codenames of what it needs."""
        opts = ADMINS[self.url.partition("/")[0]].opts
        words = (self.needs or "").split()
        own = (one if one in EVERY else get_permission_codename(one, opts) for one in words)
        return frozenset(own)


SEES = "view_smsmessage"
SEES_TEXT = "see_text_smsmessage"
SEES_ALL = "see_text_smsmessage see_number_smsmessage"
READS = ("view_smsinbound",)
IMPORTS = "view add see_number_smsmessage"
SENT = ("queued", "sent", "unknown", "failed")
TABLE = [
    Cell("smsmessage/", "GET", "view"),
    Cell("smsmessage/", "send_selected", "view send"),
    Cell("smsmessage/", "refresh_selected", "view refresh", status="sent"),
    Cell("smsmessage/", "cancel_selected", "change"),
    Cell("smsmessage/", "confirm_sent_selected", "view resend", status="unknown"),
    Cell("smsmessage/", "resend_selected", "view resend", status="unknown"),
    Cell("smsmessage/", "export_selected", "view export"),
    Cell("smsmessage/add/", "GET", "add"),
    Cell("smsmessage/add/", "_save", "add"),
    Cell("smsmessage/add/", "_continue", "add"),
    Cell("smsmessage/add/", "_addanother", "add"),
    Cell("smsmessage/add/", "_send", "add view send"),
    Cell("smsmessage/<pk>/", "GET", "", Gives.MOVES),
    Cell("smsmessage/<pk>/change/", "GET", "view"),
    Cell("smsmessage/<pk>/change/", "GET", "view", status="unknown"),
    Cell("smsmessage/<pk>/change/", "_save", f"change {SEES_ALL}"),
    Cell("smsmessage/<pk>/change/", "_continue", f"change {SEES_ALL}"),
    Cell("smsmessage/<pk>/change/", "_saveasnew", "add"),
    Cell("smsmessage/<pk>/change/", "_send", f"change {SEES_ALL} send"),
    *(
        Cell("smsmessage/<pk>/change/", "_save", "change", Gives.KEEPS, one)
        for one in (*SENT, "cancelled")
    ),
    Cell("smsmessage/<pk>/history/", "GET", "view"),
    Cell("smsmessage/<pk>/delete/", "GET", "delete"),
    Cell("smsmessage/<pk>/delete/", "POST", "delete"),
    Cell("smsmessage/<pk>/delete/", "POST", "delete", status="cancelled"),
    *(Cell("smsmessage/<pk>/delete/", "POST", "view delete", Gives.MOVES, one) for one in SENT),
    Cell("smsmessage/send/", "GET", "view send"),
    Cell("smsmessage/send/", "POST", "view send"),
    Cell("smsmessage/refresh/", "GET", "view refresh", status="sent"),
    Cell("smsmessage/refresh/", "POST", "view refresh", status="sent"),
    Cell("smsmessage/confirm_sent/", "GET", "view resend", status="unknown"),
    Cell("smsmessage/confirm_sent/", "POST", "view resend", status="unknown"),
    Cell("smsmessage/resend/", "GET", "view resend", status="unknown"),
    Cell("smsmessage/resend/", "POST", "view resend", status="unknown"),
    Cell("smsmessage/cancel/", "GET", "change"),
    Cell("smsmessage/cancel/", "POST", "change"),
    Cell("smsmessage/compose/", "GET", "view add send"),
    Cell("smsmessage/compose/", "_check", "view add send", Gives.PAGE),
    Cell("smsmessage/compose/", "_back", "view add send", Gives.PAGE),
    Cell("smsmessage/compose/", "_use_template", "view add send", Gives.PAGE),
    Cell("smsmessage/compose/", "_correct", "view add send", Gives.PAGE),
    Cell("smsmessage/compose/", "_leave_out", "view add send", Gives.PAGE),
    Cell("smsmessage/compose/", "_test", "view add send", Gives.PAGE),  # without a number
    Cell("smsmessage/compose/", "_send", "view add send"),
    Cell("smsmessage/compose/", "_save", "view add send"),
    Cell("smsmessage/export/", "GET", "view export"),
    Cell("smsmessage/export/", "_xlsx", "view export", Gives.FILE),
    Cell("smsmessage/export/", "_csv", "view export", Gives.FILE),
    Cell("smsmessage/statistics/", "GET", "view"),
    Cell("smsmessage/held/", "GET", "view release", status="queued"),
    Cell("smsmessage/held/", "_release", "view release", status="queued"),
    Cell("smsmessage/held/", "_cancel", "view release", status="queued"),
    Cell("providerstate/", "GET", "view"),
    Cell("providerstate/stop/", "GET", "view stop"),
    Cell("providerstate/stop/", "_stop", "view stop"),
    Cell("providerstate/stop/", "_resume", "view stop"),
    Cell("providerstate/balances/", "GET", "view stop"),
    Cell("providerstate/balances/", "_ask", "view stop"),
    Cell("providerstate/add/", "GET", None),
    Cell("providerstate/<pk>/", "GET", "", Gives.MOVES),
    Cell("providerstate/<pk>/change/", "GET", "view"),
    Cell("providerstate/<pk>/change/", "_save", None),
    Cell("providerstate/<pk>/history/", "GET", "view"),
    Cell("providerstate/<pk>/delete/", "GET", None),
    Cell("providerstate/<pk>/delete/", "POST", None),
    Cell("smserasure/", "GET", "view"),
    Cell("smserasure/add/", "GET", None),
    Cell("smserasure/<pk>/", "GET", "", Gives.MOVES),
    Cell("smserasure/<pk>/change/", "GET", "view"),
    Cell("smserasure/<pk>/change/", "_save", None),
    Cell("smserasure/<pk>/history/", "GET", "view"),
    Cell("smserasure/<pk>/delete/", "GET", None),
    Cell("smserasure/<pk>/delete/", "POST", None),
    Cell("smsinbound/", "GET", "view"),
    Cell("smsinbound/add/", "GET", None),
    Cell("smsinbound/<pk>/", "GET", "", Gives.MOVES),
    Cell("smsinbound/<pk>/change/", "GET", "view"),
    Cell("smsinbound/<pk>/change/", "_save", None),
    Cell("smsinbound/<pk>/history/", "GET", "view"),
    Cell("smsinbound/<pk>/delete/", "GET", "delete"),
    Cell("smsinbound/<pk>/delete/", "POST", "delete"),
    Cell("smsmailing/", "GET", SEES),
    Cell("smsmailing/add/", "GET", None),
    Cell("smsmailing/<pk>/", "GET", "", Gives.MOVES),
    Cell("smsmailing/<pk>/change/", "GET", SEES),
    Cell("smsmailing/<pk>/change/", "_save", None),
    Cell("smsmailing/<pk>/history/", "GET", SEES),
    Cell("smsmailing/<pk>/delete/", "GET", None),
    Cell("smsmailing/<pk>/delete/", "POST", None),
    Cell("smsmailing/<pk>/progress/", "GET", SEES),
    Cell("smsmailing/<pk>/statistics/", "GET", SEES),
    Cell("smsmailing/<pk>/stop/", "GET", None, status="queued"),
    Cell("smsmailing/<pk>/stop/", "POST", f"{SEES} send_smsmessage", status="queued"),
    Cell("smsmailing/<pk>/resume/", "GET", f"{SEES} send_smsmessage"),
    Cell("smsmailing/<pk>/resume/", "POST", f"{SEES} send_smsmessage"),
    Cell("smsmailing/<pk>/resend/", "GET", f"{SEES} resend_smsmessage", status="failed"),
    Cell("smsmailing/<pk>/resend/", "POST", f"{SEES} resend_smsmessage", status="failed"),
    Cell("smsoptout/", "GET", "view"),
    Cell("smsoptout/add/", "GET", "add"),
    Cell("smsoptout/add/", "_save", "add"),
    Cell("smsoptout/add/", "_continue", "add"),
    Cell("smsoptout/add/", "_addanother", "add"),
    Cell("smsoptout/<pk>/", "GET", "", Gives.MOVES),
    Cell("smsoptout/<pk>/change/", "GET", "view"),
    Cell("smsoptout/<pk>/change/", "_save", None),
    Cell("smsoptout/<pk>/change/", "_saveasnew", "add"),
    Cell("smsoptout/<pk>/history/", "GET", "view"),
    Cell("smsoptout/<pk>/delete/", "GET", "delete"),
    Cell("smsoptout/<pk>/delete/", "POST", "delete"),
    Cell("smsoptout/import/", "GET", IMPORTS),
    Cell("smsoptout/import/", "_check", IMPORTS, Gives.PAGE),
    Cell("smsoptout/import/", "_correct", IMPORTS, Gives.PAGE),
    Cell("smsoptout/import/", "_back", IMPORTS, Gives.PAGE),
    Cell("smsoptout/import/", "_add", IMPORTS),
    Cell("smstemplate/", "GET", "view"),
    Cell("smstemplate/add/", "GET", "add"),
    Cell("smstemplate/add/", "_save", "add"),
    Cell("smstemplate/add/", "_continue", "add"),
    Cell("smstemplate/add/", "_addanother", "add"),
    Cell("smstemplate/<pk>/", "GET", "", Gives.MOVES),
    Cell("smstemplate/<pk>/change/", "GET", "view"),
    Cell("smstemplate/<pk>/change/", "_save", f"change {SEES_TEXT}"),
    Cell("smstemplate/<pk>/change/", "_continue", f"change {SEES_TEXT}"),
    Cell("smstemplate/<pk>/change/", "_addanother", f"change {SEES_TEXT}"),
    Cell("smstemplate/<pk>/history/", "GET", "view"),
    Cell("smstemplate/<pk>/delete/", "GET", "delete"),
    Cell("smstemplate/<pk>/delete/", "POST", "delete"),
]

TEXT, NUMBER = "The stored text", "+79048884337"
LISTED_PK = 10**6  # that no sequence gives
LISTED = "+79063334455"  # on the do-not-send list
RECEIVED_TEXT, RECEIVED = "What a phone sent", "+79074445566"
TYPED_TEXT, TYPED_NUMBER = "What was typed", "+79052223344"
MESSAGE = {
    "to": TYPED_NUMBER,
    "body": TYPED_TEXT,
    "using": "default",
    "priority": "0",
    "send_after_0": "2026-01-01",
    "send_after_1": "12:00",
}
HELD_BEFORE = datetime(2099, 1, 1, tzinfo=timezone.utc)
#: What a POST carries, apart from its button, by URL, or by URL and button. Each other one carries
#: ``pks`` and "Yes, I am sure".
FORMS = {
    "smsmessage/add/": MESSAGE,
    "smsmessage/<pk>/change/": MESSAGE,
    "smsmessage/compose/": {
        "numbers": TYPED_NUMBER,
        "body": TYPED_TEXT,
        "using": "default",
        "nonce": "n",
    },
    "smsmessage/held/": {"alias": "default", "before": HELD_BEFORE.isoformat()},
    "providerstate/<pk>/change/": {"reason": ""},
    "providerstate/stop/ _stop": {"alias": "default"},
    "providerstate/stop/ _resume": {"alias": "gone"},
    "providerstate/balances/": {"alias": "default"},
    "smserasure/<pk>/change/": {"messages": "7"},
    "smsmailing/<pk>/resume/": {"state": " 1"},
    "smsmailing/<pk>/resend/": {"state": "9" * 18},
    "smsinbound/<pk>/change/": {"body": "changed"},
    "smsoptout/add/": {"number": TYPED_NUMBER, "reason": "STOP"},
    "smsoptout/<pk>/change/": {"number": TYPED_NUMBER, "reason": "STOP"},
    "smsoptout/import/": {"numbers": f"{TYPED_NUMBER}\n123"},
    "smstemplate/add/": {"name": "new", "language": "", "body": "{x}"},
    "smstemplate/<pk>/change/": {"name": "other", "language": "", "body": "{x}"},
}
#: The pages that take the messages from their address.
OF_PKS = {f"smsmessage/{action.name}/" for action in ACTIONS}
OF_KEYS = {**dict.fromkeys(OF_PKS, "pks"), "smsmessage/compose/": "copy"}


# --- who


class Who(NamedTuple):
    has: frozenset[str]
    is_staff: bool = True
    is_active: bool = True
    is_superuser: bool = False

    def may(self, cell):
        if cell.needs is None or not (self.is_staff and self.is_active):
            return False
        return self.is_superuser or cell.permissions <= self.held

    @property
    def held(self):
        seen = {one.replace("change_", "view_") for one in self.has if one.startswith("change_")}
        return self.has | seen

    def turns(self, cell):
        """Return whether the answer turns at one of this user's permissions, or shows what they may
        not see."""
        if self.is_superuser or not self.has:
            return True
        missing = cell.permissions - self.has
        own = self.has <= cell.permissions and len(missing) < 2
        most = {EVERY - {one} for one in (*cell.permissions, *SEES_ALL.split(), *READS)}
        return own or self.has in most

    def sees(self, what):
        return self.is_superuser or f"see_{what}_smsmessage" in self.has


def everybody():
    """Yield a name and a user for each set of permissions at which a cell's answer turns."""
    needed = frozenset().union(*(cell.permissions for cell in TABLE))
    sets = {frozenset(), EVERY - needed, *(EVERY - {one} for one in needed)}
    sets |= {frozenset({one}) for one in needed}
    for cell in TABLE:
        sets |= {cell.permissions, *(cell.permissions - {one} for one in cell.permissions)}
    for has in sorted(sets, key=lambda one: (len(one), sorted(one))):
        few = len(has) * 2 < len(EVERY)
        names = sorted(has if few else EVERY - has)
        yield f"{'' if few else 'all but '}{' '.join(names) or 'no permission'}", Who(has)
    yield "superuser", Who(frozenset(), is_superuser=True)
    yield "no staff", Who(frozenset(EVERY), is_staff=False, is_superuser=True)
    yield "inactive", Who(frozenset(EVERY), is_active=False, is_superuser=True)


PEOPLE = dict(everybody())


@pytest.fixture
def log_in(client):
    def log_in(who):
        fields = {"is_staff": who.is_staff, "is_active": who.is_active}
        user = User.objects.create_user("colleague", is_superuser=who.is_superuser, **fields)
        user.user_permissions.set(Permission.objects.filter(codename__in=who.has))
        client.force_login(user)
        client.user = user
        return client

    return log_in


# --- asking


def make(status="draft"):
    """Store one message, of this status, and a provider. Gateways repeat what is in it."""
    rows().update(resend_of=None)
    rows().delete()
    running = {"stopped_at": None, "held_before": HELD_BEFORE}
    ProviderState.objects.update_or_create(alias="default", defaults=running)
    stopped = {"stopped_at": datetime.now(timezone.utc)}
    ProviderState.objects.update_or_create(alias="gone", defaults=stopped)
    SmsErasure.objects.get_or_create(pk=1)
    SmsOptOut.objects.all().delete()
    SmsOptOut.objects.create(
        pk=LISTED_PK, number=LISTED, number_hash="h", reason=f"wrote from {LISTED}"
    )
    SmsInbound.objects.all().delete()
    said = f"{RECEIVED_TEXT} from {RECEIVED}"
    SmsInbound.objects.create(pk=LISTED_PK, using="default", sender=RECEIVED, body=said)
    SmsTemplate.objects.all().delete()
    SmsTemplate.objects.create(pk=LISTED_PK, name="ready", body=TEXT)
    SmsMailing.objects.all().delete()
    mailing = SmsMailing.objects.create(pk=LISTED_PK, name="Autumn", body=TEXT, settled=True)
    SmsMailing.objects.update(counts={status: 1})  # it is settled, so that no page counts it
    message = SmsMessage(to=NUMBER, body=TEXT, mailing=mailing)
    message.save()
    said = f"Not sent. The gateway said: {NUMBER[1:]}: {TEXT}"
    rows([message.pk]).update(
        status=status,
        expires_at=message.created_at + timedelta(days=status == "queued"),
        gateway_id="g1" if status == "sent" else "",
        error_text=said,
        idempotency_key=NUMBER,
    )
    return message


def address(cell, message):
    keys = {"smsmessage": message.pk, "providerstate": "default", "smserasure": 1}
    keys |= dict.fromkeys(("smsoptout", "smsinbound", "smsmailing", "smstemplate"), LISTED_PK)
    key = keys[cell.url.partition("/")[0]]
    return START + cell.url.replace("<pk>", str(key))


def ask(client, cell, message, **more):
    to = address(cell, message)
    if not cell.posts:
        return client.get(to, {OF_KEYS[cell.url]: message.pk} if cell.url in OF_KEYS else {})
    if cell.is_action:
        data = {"action": cell.way, "_selected_action": message.pk}
    else:
        form = FORMS.get(f"{cell.url} {cell.way}") or FORMS.get(cell.url)
        data = {cell.way: "1", **(form or {"pks": message.pk, "post": "yes"})}
    return client.post(to, data | more)


def everything():
    tables = [list(one.model.objects.order_by("pk").values()) for one in ADMINS.values()]
    return tables, len(outbox)


def shown(client, response):
    """Return all that the user sees next, its numbers also without blanks and hyphens."""
    page = b"".join(response) if response.streaming else response.content
    more = client.get(response["Location"]).content if response.status_code == 302 else b""
    return with_numbers((page + more).decode(errors="replace"))


def with_numbers(page):
    """Return the page, followed by it with the groups of its numbers joined."""
    return page + re.sub(r"(?<=[0-9])[ \-](?=[0-9])", "", page)


def result_of(response, before):
    changed = everything() != before
    if response.streaming:
        return Gives.FILE if not changed else "a file, and something is changed"
    for one in (Gives.PAGE, Gives.MOVES, Gives.DOES, Gives.KEEPS):
        if (response.status_code, changed) == (int(one.value[:3]), one is Gives.DOES):
            return one
    return f"{response.status_code}, and {'something' if changed else 'nothing'} is changed"


def is_refused(response, cell, who):
    if not (who.is_staff and who.is_active):
        return response.status_code == 302 and "/login/" in response["Location"]
    if cell.is_action and response.status_code != 403:  # it is not offered in the list
        offered = getattr(response, "context", None) and "plan" in response.context
        return response.status_code in (200, 302) and not offered
    return response.status_code == 403


def problems(client, cell, who, callbacks):
    """Yield what is wrong with the answer to this user, as sentences."""
    message = make(cell.status)
    LogEntry.objects.log_actions(client.user.pk, [message], CHANGE, f"{NUMBER}: {TEXT}")
    before, notes = everything(), LogEntry.objects.count()
    with callbacks(execute=True):
        response = ask(client, cell, message)
    result = result_of(response, before)
    if who.may(cell) and result is not cell.result:
        yield f"it gives {result}, not {cell.result}"
    if not who.may(cell) and not (is_refused(response, cell, who) and everything() == before):
        yield f"it is not refused: {result}"
    own = cell.gives not in (Gives.MOVES, Gives.KEEPS)
    named = cell.needs is not None and not cell.is_action and own
    if response.status_code == 403 and named:
        missing = cell.permissions - who.held
        if response.context["missing"] != [NAMES[one] for one in NAMES if one in missing]:
            yield f"it names {response.context['missing']} as missing"
    if not who.may(cell) and LogEntry.objects.count() > notes:
        yield "it is noted in a history"
    page = shown(client, response)
    if TEXT in page and not who.sees("text"):
        yield "it shows the text"
    if any(one[5:] in page for one in (NUMBER, LISTED, RECEIVED)) and not who.sees("number"):
        yield "it shows the number"
    reads = who.may(Cell("smsinbound/", "GET", "view"))
    if RECEIVED_TEXT in page and not reads:
        yield "it shows what was received"
    shows = cell.way == "GET" and cell.url in ("smsinbound/", "smsinbound/<pk>/change/")
    whole = RECEIVED_TEXT in page and (RECEIVED in page) == who.sees("number")
    if reads and shows and not whole:
        yield "it hides what was received"
    if who.may(cell) and cell.way == "GET" and cell.url in ("smsmessage/", CHANGE_URL):
        parts = {what for what, words in (("text", TEXT), ("number", NUMBER[2:])) if words in page}
        yield from (f"it hides the {what}" for what in {"text", "number"} - parts if who.sees(what))


CHANGE_URL = "smsmessage/<pk>/change/"


# --- the tests


def urls(resolver, route=""):
    """Yield the routes below the app's, as the table names them."""
    for one in resolver.url_patterns:
        whole = route + str(one.pattern)
        if isinstance(one, URLResolver):
            yield from urls(one, whole)
        elif f"/{whole}".startswith(START):
            yield re.sub("<[^>]+>", "<pk>", f"/{whole}").removeprefix(START)


def test_every_url_is_in_the_table():
    assert {cell.url for cell in TABLE if cell.way == "GET"} == set(urls(get_resolver()))


def test_every_action_of_a_list_is_in_the_table():
    request = RequestFactory().get("/")
    request.user = User(is_active=True, is_superuser=True)
    found = {
        (f"{name}/", action)
        for name, model_admin in ADMINS.items()
        for action in model_admin.get_actions(request)
    }
    assert {(cell.url, cell.way) for cell in TABLE if cell.is_action} == found
    assert not any(
        model_admin.get_actions(request, action_location=admin.ActionLocation.CHANGE_FORM)
        for model_admin in ADMINS.values()
        if hasattr(admin, "ActionLocation")
    )


ASKED = {name: [cell for cell in TABLE if ALL or who.turns(cell)] for name, who in PEOPLE.items()}


@pytest.mark.parametrize("name", [name for name, cells in ASKED.items() if cells])
def test_each_user_may_do_what_the_table_says(log_in, name, django_capture_on_commit_callbacks):
    who = PEOPLE[name]
    client = log_in(who)
    found = [
        f"{cell}: {problem}"
        for cell in ASKED[name]
        for problem in problems(client, cell, who, django_capture_on_commit_callbacks)
    ]
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize("name", ["superuser", "no permission", "no staff"])
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"])
def test_other_methods_show_and_do_no_more_than_get(log_in, name, method):
    client = log_in(PEOPLE[name])
    for cell in TABLE:
        if cell.posts:
            continue
        message = make(cell.status)
        before, expected = everything(), ask(client, cell, message).status_code
        response = client.generic(method, address(cell, message), b"_save=1&post=yes&pks=1")
        assert response.status_code in (expected, 405) or cell.result is Gives.MOVES, cell
        assert everything() == before, cell


def test_a_post_without_the_csrf_token_does_nothing(log_in):
    client = log_in(PEOPLE["superuser"])
    client.handler.enforce_csrf_checks = True
    for cell in TABLE:
        message = make(cell.status)
        before = everything()
        if cell.posts:
            assert ask(client, cell, message).status_code == 403, cell
        assert everything() == before, cell


def test_what_has_no_post_in_the_table_does_nothing_by_post(log_in):
    """With every button and field that there is anywhere in the admin."""
    client = log_in(PEOPLE["superuser"])
    every = {name: value for form in FORMS.values() for name, value in form.items()}
    every |= {cell.way: "1" for cell in TABLE if cell.posts} | {"post": "yes", "status": "queued"}
    changing = {cell.url for cell in TABLE if cell.posts and cell.needs is not None}
    for cell in TABLE:
        if cell.url in changing:
            continue
        message = make()
        before = everything()
        response = client.post(address(cell, message), every | {"pks": message.pk})
        assert response.status_code in (200, 302, 403, 405), cell
        assert everything() == before, cell


def test_every_button_is_in_the_table(log_in, django_capture_on_commit_callbacks):
    client, found = log_in(PEOPLE["superuser"]), set()
    for cell in TABLE:
        with django_capture_on_commit_callbacks(execute=True):
            response = ask(client, cell, make(cell.status))
        for form in page_of(response).split("<form")[1:]:
            action = re.match(rf'[^>]*action="{START}([^"?]*)', form)
            url = action[1] if action else cell.url
            found |= {(url, name) for name in re.findall(r'type="submit"[^>]*name="(_\w+)"', form)}
    assert len({name for _, name in found}) > 4
    assert found <= {(cell.url, cell.way) for cell in TABLE}


def page_of(response):
    return "" if response.streaming else with_numbers(response.content.decode())


def test_who_may_only_view_sees_no_button_and_no_field(log_in):
    client = log_in(Who(frozenset({"view_smsmessage"})))
    for status in ("draft", "queued", "sent", "delivered", "unknown"):
        page = page_of(ask(client, Cell(CHANGE_URL, "GET", "view"), make(status)))
        assert not any(f"{url}?pks=" in page for url in OF_PKS)
        assert '<input type="submit"' not in page and "<textarea" not in page


# --- tampering


def test_rows_outside_of_the_querysets_are_neither_shown_nor_changed(
    log_in, monkeypatch, django_capture_on_commit_callbacks
):
    """As where a project lets each branch see its own messages alone."""
    for model_admin in ADMINS.values():
        of_admin = model_admin.get_queryset
        monkeypatch.setattr(
            model_admin, "get_queryset", lambda request, every=of_admin: every(request).none()
        )
    client = log_in(PEOPLE["superuser"])
    for cell in TABLE:
        message = make(cell.status)
        before, accepted = list(rows().values()), len(outbox)
        with django_capture_on_commit_callbacks(execute=True):
            response = ask(client, cell, message, select_across="1")
        page = shown(client, response)
        assert TEXT not in page and NUMBER[5:] not in page, cell
        if TYPED_TEXT in rows().values_list("body", flat=True):  # another row was written
            rows().filter(body=TYPED_TEXT).delete()
            assert "smsmessage" in cell.url and cell.way in ("_send", *SAVES), cell
        assert list(rows().values()) == before and len(outbox) == accepted, cell


SAVES = ("_save", "_continue", "_addanother", "_saveasnew")


def tampered():
    """Return a value for each column that no form has, as a POST would carry it."""
    form = {name.partition("_0")[0].partition("_1")[0] for name in MESSAGE} | {"sender"}
    names = {one.name for one in SmsMessage._meta.concrete_fields} - form - {"expires_at"}
    values = dict.fromkeys(names, "7") | {"status": "sent", "created_by": "", "resend_of": ""}
    times = {f"{name}_{part}": "2026-01-01" for name in names for part in (0, 1)}
    return {f"{name}{end}": value for name, value in values.items() for end in ("", "_id")} | times


@pytest.mark.parametrize("button", ["_save", "_saveasnew", "_continue"])
@pytest.mark.parametrize("url", ["smsmessage/add/", CHANGE_URL])
def test_a_form_writes_no_field_that_it_does_not_show(log_in, url, button):
    client, rest = log_in(PEOPLE["superuser"]), tampered()
    message = make()
    assert len(rest) > 80
    columns = ("status", "gateway_id", "error_text", "attempts", "token", "created_at")
    plain = {name: getattr(SmsMessage(), name) for name in ("status", "gateway_id", "attempts")}
    stored = rows().values(*columns).get()
    assert ask(client, Cell(url, button, "add"), message, **rest).status_code == 302
    if url == CHANGE_URL and button != "_saveasnew":
        assert rows().values(*columns).get() == stored
    else:
        new = rows().exclude(pk=message.pk).get()
        assert {name: getattr(new, name) for name in plain} == plain
        assert new.created_by == client.user and new.token == "" and new.resend_of is None
        assert new.idempotency_key is None and new.pk != 7


@pytest.mark.parametrize("status", [one for one in Status.values if one != "draft"])
def test_no_post_to_its_page_changes_what_is_no_draft(log_in, status):
    client = log_in(PEOPLE["superuser"])
    for button in ("_save", "_send", "_continue", "_popup"):
        message = make()
        leased = {"lease_until": message.created_at, "status": status}
        rows().update(**leased)
        before = everything()
        response = ask(client, Cell(CHANGE_URL, button, ""), message, **tampered())
        assert response.status_code == 409 and everything() == before, button


@pytest.mark.parametrize("field", [one.name for one in SmsMessage._meta.get_fields()])
def test_a_popup_gives_no_field_but_the_key(log_in, field):
    client = log_in(PEOPLE["superuser"])
    for url in ("smsmessage/add/", CHANGE_URL):
        message = make()
        before = everything()
        cell = Cell(url, "_popup", "add")
        response = ask(client, cell, message, _to_field=field, _source_model="auth.user")
        if field == "id":
            assert response.status_code == 200 and everything() != before
            assert TYPED_NUMBER[5:] not in page_of(response)
        else:
            assert response.status_code == 400 and everything() == before


@pytest.mark.parametrize("model", ["x", "x.y", "a.b.c", ".", "auth.user", "\0"])
def test_no_source_of_a_popup_ends_its_page(log_in, model):
    cell = Cell("smsmessage/add/", "_popup", "add")
    response = ask(log_in(PEOPLE["superuser"]), cell, make(), _source_model=model)
    assert response.status_code == 200 and rows().filter(body=TYPED_TEXT).exists()


@pytest.mark.parametrize("chosen", ["99999999", "x", ""])
def test_an_export_of_nothing_is_no_export_of_all(log_in, chosen):
    """Messages that were chosen may be pruned before the button is pressed."""
    client = log_in(PEOPLE["superuser"])
    cell = Cell("smsmessage/", "export_selected", "view export")
    response = ask(client, cell, make(), _selected_action=chosen)
    assert response.status_code == 302 or response.context["number"] == 0


@pytest.mark.parametrize("across", ["1", "true", "on", "0", "false", ""])
def test_all_of_the_list_is_exported_where_django_says_so(log_in, across):
    """By the filter, not by the keys of what may be millions of rows."""
    client, message = log_in(PEOPLE["superuser"]), make()
    other = SmsMessage(to=NUMBER, body=TEXT)
    other.save()
    cell = Cell("smsmessage/", "export_selected", "view export")
    response = ask(client, cell, message, select_across=across)
    every = across not in ("0", "false", "")
    assert response.context["pks"] == ("" if every else str(message.pk))
    assert response.context["number"] == (2 if every else 1)


def test_all_of_the_list_is_all_of_the_filtered_list(log_in):
    client, message = log_in(PEOPLE["superuser"]), make()
    queued = SmsMessage(to=NUMBER, body=TEXT)
    queued.save()
    rows([queued.pk]).update(status="queued", expires_at=queued.created_at)
    for action in ACTIONS:
        data = {"action": f"{action.name}_selected", "select_across": "1"}
        response = client.post(
            f"{START}smsmessage/?status__exact=queued", data | {"_selected_action": message.pk}
        )
        fit = [str(queued.pk)] if "queued" in action.statuses else []
        assert response.context["plan"].pks.split(",") == (fit or [""])


@pytest.mark.parametrize(
    "keys", ["{0},{0}", "{0},99999999", "99999999", "{0} ", "-{0}", "{0},x", ""]
)
def test_keys_that_are_written_by_hand_do_no_more_than_one_press(log_in, keys):
    client = log_in(PEOPLE["superuser"])
    for action in ACTIONS:
        message = make(sorted(action.statuses)[0])
        done = len(outbox)
        response = client.post(
            f"{START}smsmessage/{action.name}/", {"pks": keys.format(message.pk)}, follow=True
        )
        assert response.status_code == 200 and len(outbox) - done <= 1
        assert rows().count() <= 2

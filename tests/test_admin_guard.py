"""What can be learnt from the admin, and brought down in it, by addresses and forms."""

import re
import sys
from io import BytesIO
from urllib.parse import quote, urlencode
from zipfile import ZipFile

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Permission, User
from django.core.signals import got_request_exception
from django.db import connection
from django.db.models import ForeignObjectRel
from django.test.utils import CaptureQueriesContext, override_settings
from django.utils.timezone import now
from django.views.debug import ExceptionReporter

from django_smska.admin.actions import ACTIONS
from django_smska.models import ProviderState, SmsMessage, rows
from django_smska.sms import outbox

from .extent import sample

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

LIST = "/admin/django_smska/smsmessage/"
STATES = "/admin/django_smska/providerstate/"
#: Of the same mask and size; only a user who may not see them must not see which is which.
ONE = ("+79041764995", "+79045554995")
OTHER = ("+79048884995", "+79042224995")
TEXTS = ("The first text", "Another event")


@pytest.fixture
def log_in(client):
    def log_in(*names):
        user = User.objects.create_user("clerk", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=names))
        client.force_login(user)
        return client

    return log_in


@pytest.fixture
def boss(client):
    client.force_login(User.objects.create_superuser("boss"))
    return client


def make(to=ONE[0], **values):
    message = SmsMessage(to=to, body=TEXTS[0])
    message.save()
    values = {"status": "failed", "expires_at": now(), "gateway_id": "gw-17"} | values
    rows([message.pk]).update(**values)
    return rows().get(pk=message.pk)


@pytest.mark.parametrize("gateway_id", ["79041764995", "9041764995"])
def test_a_number_is_not_found_as_a_gateways_id(log_in, gateway_id):
    """A user who may not see it could try the digits that the mask hides."""
    clerk = log_in("view_smsmessage")
    make("+79041764995", gateway_id=gateway_id)
    assert clerk.get(LIST).context["cl"].result_count == 1
    assert clerk.get(LIST, {"q": gateway_id}).context["cl"].result_count == 0


def hide(numbers, text, suffix):
    """Put into the two rows what a clerk may not see, also where gateways repeat it."""
    for message, number in zip(rows().order_by("pk"), numbers, strict=True):
        said = f"No route to {number} ({number[1:]}, 8 ({number[2:5]}) {number[5:]}): {text}"
        rows([message.pk]).update(
            to=number,
            body=text,
            idempotency_key=f"{number}-{suffix}",
            token=f"{suffix}{message.pk}",
            error_text=f"Not sent. The gateway said: {said}",
            gateway_status=f"2|{number[-10:]}",
        )
        LogEntry.objects.filter(object_id=message.pk).update(change_message=f"Sent. {said}")
    ProviderState.objects.update(detail=f"Refused. The gateway said: {numbers[0]} {text}")


def look_ups():
    """Every field, by every way to look for it that Django knows, relations included."""
    for field in SmsMessage._meta.get_fields():
        names = ["", "__exact", "__in", "__isnull", *(f"__{one}" for one in field.get_lookups())]
        if field.is_relation:
            related = SmsMessage if isinstance(field, ForeignObjectRel) else field.related_model
            names += [f"__{one.name}__startswith" for one in related._meta.concrete_fields]
        if field.get_internal_type() == "DateTimeField":
            names += ["__year", "__date__gte", "__hour"]
        yield from (f"{field.name}{name}" for name in names)


def addresses(pks):
    values = [ONE[0], ONE[0][:7], TEXTS[0], "t", "1", "A"]
    for name in look_ups():
        value = TEXTS[0] if "body" in name else ONE[0][: 7 if "with" in name else 12]
        query = urlencode({name: value})
        yield f"{LIST}?{query}"
        if name.endswith("with"):
            yield f"{LIST}export/?{urlencode({'_changelist_filters': query})}"
    for column in range(9):
        yield f"{LIST}?o={column}"
        yield f"{LIST}?o=-{column}"
        yield f"{LIST}export/?{urlencode({'_changelist_filters': f'o={column}'})}"
    for term in [
        *values,
        ONE[0][2:],
        "8 (904) 176-49-95",
        "1764995",
        "176",
        "gw-17",
        f"{ONE[0]}-a",
    ]:
        yield f"{LIST}?{urlencode({'q': term})}"
        yield f"{LIST}?{urlencode({'q': term, '_facets': 1, '_popup': 1})}"
        yield f"{LIST}export/?{urlencode({'_changelist_filters': urlencode({'q': term})})}"
        self = {"app_label": "django_smska", "model_name": "smsmessage", "field_name": "resend_of"}
        yield f"/admin/autocomplete/?{urlencode({'term': term, **self})}"
    for field in SmsMessage._meta.concrete_fields:
        yield f"{LIST}?_popup=1&_to_field={field.name}"
        for key in (quote(ONE[0]), f"{quote(ONE[0])}-a", f"a{pks[0]}"):
            yield f"{LIST}{key}/change/?_to_field={field.name}"
            yield f"{LIST}{key}/delete/?_to_field={field.name}"
    for pk in pks:
        yield from (f"{LIST}{pk}/{page}/" for page in ("change", "history", "delete"))
    for action in ACTIONS:
        yield f"{LIST}{action.name}/?pks={','.join(map(str, pks))}"
    yield from (LIST, f"{LIST}statistics/", f"{LIST}export/", f"{LIST}compose/", "/admin/")
    for name in ("detail", "alias", "reason"):
        yield from (f"{STATES}?{name}__contains={value}" for value in (ONE[0][:7], "T"))
    yield from (STATES, f"{STATES}default/change/", f"{STATES}default/history/")


def posts(pks):
    """Forms that show a page and store nothing, or a file."""
    keys = ",".join(map(str, pks))
    compose = {"sender": "", "using": "default", "nonce": "n", "_check": "1"}
    for number in (ONE[0], OTHER[0], f"{ONE[0]} {OTHER[0]}", ONE[0][:9]):
        for text in (*TEXTS, TEXTS[0][:9]):
            yield f"{LIST}compose/", compose | {"numbers": number, "body": text}
    for query in (ONE[0], TEXTS[0], f"{ONE[0]}-a"):
        listed = f"?{urlencode({'_changelist_filters': urlencode({'q': query})})}"
        for button in ("_csv", "_xlsx"):
            yield f"{LIST}export/{listed}", {"pks": "", button: "1"}
        for action in (*(one.name for one in ACTIONS), "export"):
            data = {"action": f"{action}_selected", "_selected_action": pks}
            yield f"{LIST}?{urlencode({'q': query})}", data | {"select_across": "1"}
            yield LIST, data
    yield f"{LIST}export/", {"pks": keys, "_csv": "1"}
    form = {"to": ONE[0], "body": TEXTS[0], "using": "default", "_popup": "1"}
    yield f"{LIST}add/", form
    for pk in pks:
        yield f"{LIST}{pk}/change/", form


def seen(client, address, data=None):
    """All that an answer shows: without what differs from one request to the next."""
    post = {"data": data, "follow": True}  # so that its messages are on this page
    response = client.get(address) if data is None else client.post(address, **post)
    assert response.status_code < 500
    content = b"".join(response) if response.streaming else response.content
    if "spreadsheet" in response.headers["Content-Type"]:
        file = ZipFile(BytesIO(content))
        content = b"".join(file.read(name) for name in file.namelist() if "sheet" in name)
    page = content.decode()
    page = re.sub(r'(name="(csrfmiddlewaretoken|nonce)" value=)"\w+"', r"\1", page)
    page = re.sub(r'nonce="[^"]*"', "", page)
    page = re.sub("It is [^<]* by the clock of this site", "", page)
    return response.status_code, response.get("Location"), page


@pytest.mark.parametrize(
    ("start", "names"),
    [
        (0, ["view_smsmessage"]),
        (
            5,
            [
                *(
                    "view_smsmessage",
                    "view_providerstate",
                    "export_smsmessage",
                    "resend_smsmessage",
                ),
                "add_smsmessage",
                *(
                    "change_smsmessage",
                    "delete_smsmessage",
                    "send_smsmessage",
                    "refresh_smsmessage",
                ),
            ],
        ),
    ],
)
def test_no_answer_shows_apart_what_a_user_may_not_see(log_in, start, names):
    client = log_in(*names)
    pks = [make(status="delivered").pk, make().pk]
    ProviderState.objects.create(alias="default", reason="funds", paused_at=now())
    LogEntry.objects.log_actions(client.session["_auth_user_id"], rows(pks), CHANGE, "x")
    hide(ONE, TEXTS[0], "a")
    client.get(f"{LIST}statistics/")
    asked = sample(dict.fromkeys(addresses(pks)), 12, start)
    every = [*((address,) for address in asked), *sample(posts(pks), 5, start)]
    before = [seen(client, *one) for one in every]
    hide(OTHER, TEXTS[1], "b")
    LogEntry.objects.filter(object_id=None).delete()  # of the exports so far
    for one, shown in zip(every, before, strict=True):
        assert seen(client, *one) == shown, one
    assert rows().count() == 2


@pytest.mark.parametrize("sees", ["number", "text"])
def test_words_of_others_are_shown_without_what_may_not_be_seen(log_in, sees):
    client = log_in("view_smsmessage", "export_smsmessage", f"see_{sees}_smsmessage")
    message = make()
    LogEntry.objects.log_actions(client.session["_auth_user_id"], [message], CHANGE, "x")
    said = {"number": f"{ONE[0]} 8-904-176-49-95 1764995", "text": TEXTS[0]}
    for hidden, words in said.items():
        rows().update(error_text=words, gateway_status=words[:64], gateway_id=words[:64])
        LogEntry.objects.update(change_message=words)
        pages = [client.get(f"{LIST}{message.pk}/{page}/") for page in ("change", "history")]
        pages.append(client.post(f"{LIST}export/", {"pks": message.pk}))
        for page in pages:
            content = page.content if not page.streaming else b"".join(page.streaming_content)
            for word in words.split() if hidden == "number" else [words]:
                assert (word in content.decode()) is (hidden == sees)


def test_what_looks_like_a_number_and_is_a_date_or_a_key_is_shown(log_in):
    client = log_in("view_smsmessage")
    message = make()
    words = (
        "Queued to be sent at 01.12.2026 12:30; sent again as message 3123456 on 2026-11-25 12:00"
    )
    LogEntry.objects.log_actions(client.session["_auth_user_id"], [message], CHANGE, words)
    assert words in client.get(f"{LIST}{message.pk}/history/").content.decode()


@pytest.mark.parametrize("message", ["[1]", '[{"changed": 5}]', "[", '{"a": 1}', "[null]"])
def test_a_history_entry_that_is_none_of_djangos_ends_no_history(boss, message):
    found = make()
    LogEntry.objects.log_actions(boss.session["_auth_user_id"], [found], CHANGE, "x")
    LogEntry.objects.update(change_message=message)
    assert boss.get(f"{LIST}{found.pk}/history/").status_code == 200


def test_a_number_is_found_by_those_who_may_see_it(log_in):
    make()
    client = log_in("view_smsmessage", "see_number_smsmessage")
    for term in (ONE[0], "8 904 176-49-95", "1764995"):
        assert client.get(LIST, {"q": term}).context["cl"].result_count == 1
    assert client.get(LIST, {"o": "-1"}).context["cl"].queryset.query.order_by[0] == "-to"


@pytest.mark.parametrize(
    "query", ["to=%2B79041764995", "to__startswith=1", "body__contains=T", "x=1"]
)
def test_nothing_but_the_lists_own_filters_is_understood_by_anybody(boss, query):
    response = boss.get(f"{LIST}?{query}", follow=True)
    assert response.redirect_chain == [(f"{LIST}?e=1", 302)]
    assert [str(one) for one in response.context["messages"]] == [
        "This filter is not known. Choose another."
    ]
    assert boss.get(f"{LIST}?e=1&{query}")["Location"] == f"{LIST}?e=1"


def test_every_link_of_the_list_is_understood(boss, settings):
    settings.SMS_PROVIDERS = {"default": {}, "bulk": {}}
    [make() for _ in range(3)]
    page = boss.get(LIST).content.decode()
    links = set(re.findall(r'href="(\?[^"]+)"', page))
    assert len(links) > 18 and any("created_at__gte" in link for link in links)
    for link in links:
        assert boss.get(LIST + link.replace("&amp;", "&")).status_code == 200


@pytest.mark.parametrize("at", ["2026-01-01", "2026-01-01 12:00", "2026-01-01T12:00:00Z"])
@pytest.mark.parametrize("use_tz", [True, False])
def test_a_time_is_looked_for_with_or_without_a_zone(boss, settings, at, use_tz):
    settings.USE_TZ = use_tz
    assert boss.get(LIST, {"created_at__gte": at}).status_code == 200


# --- junk

JUNK = [
    *("%00", "a%00b", "%ff", "%ED%A0%80", "%F0%9F%98%80", "(", "(a%2B)%2B%24", "1" * 60_000, "-1"),
    *(str(10**30), "x" * 60_000, "%5B%5D", "1,2", "%E2%80%AE", "0001-01-01", "9999-12-31", "%27"),
]
NAMES = [
    *("q", "p", "o", "all", "e", "_facets", "_popup", "_source_model", "using", "status"),
    *(
        "status__exact",
        "status__in",
        "status__isnull",
        "created_at__gte",
        "created_at__lt",
        "needs",
    ),
    *("using__regex", "using__iregex", "to__regex", "body__regex", "id__in", "created_at__year"),
    *("created_by__username__regex", "_changelist_filters", "%00", "%ff", "resend_of__gt"),
]


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: junk[:12])
@pytest.mark.parametrize("page", ["", "export/", "statistics/", "add/", "states"])
def test_no_junk_in_an_address_ends_a_page_or_costs_more_than_the_list(boss, page, junk):
    found = make()
    address = STATES if page == "states" else LIST + page
    names = NAMES if page in ("", "states") else ["days", "by", "using", "to", "send_after", "pks"]
    for name in sample(names, 5, JUNK.index(junk)):
        queries_of_it = [f"{name}={junk}"]
        if page == "":
            queries_of_it += [f"e=1&{name}={junk}", f"{name}={junk}&{name}={junk}"]
        for query in queries_of_it:
            with CaptureQueriesContext(connection) as queries:
                response = boss.get(f"{address}?{query}")
            assert response.status_code in (200, 302), (response.status_code, query[:80])
            assert not any("regex" in one["sql"].lower() for one in queries)
            if page == "" and response.status_code == 302:
                assert response["Location"] == f"{LIST}?e=1"
    filters = quote(f"{NAMES[0]}={junk}&using__regex={junk}")
    for where in ("change", "history", "delete"):
        response = boss.get(f"{LIST}{found.pk}/{where}/?_changelist_filters={filters}&p={junk}")
        assert response.status_code in (200, 302, 403)
    assert boss.get(f"{LIST}export/?_changelist_filters={filters}").status_code in (200, 302)


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: junk[:12])
def test_no_junk_in_a_key_ends_a_page(boss, junk):
    key = junk[:2000]
    for start in (LIST, STATES):
        for page in ("change", "history", "delete"):
            assert boss.get(f"{start}{key}/{page}/").status_code in (302, 403, 404)
    for action in ACTIONS:
        assert boss.get(f"{LIST}{action.name}/?pks={junk}").status_code == 200
        assert boss.post(f"{LIST}{action.name}/", {"pks": junk}).status_code == 302
    self = "app_label=django_smska&model_name=smsmessage&field_name=resend_of"
    assert boss.get(f"/admin/autocomplete/?term={junk}&{self}").status_code == 200


TYPED = ["\0", "a\0b", "1" * 60_000, "x" * 60_000, "-1", str(10**30), "(", "\u202e", "😀\0", "[]"]


@pytest.mark.parametrize("junk", TYPED, ids=lambda junk: ascii(junk[:8]))
def test_no_junk_in_a_form_ends_its_page_or_is_sent(boss, junk):
    draft = make(status="draft")
    form = {"to": ONE[0], "body": "x", "sender": "", "using": "default", "priority": "0"}
    form |= {"send_after_0": "2026-01-01", "send_after_1": "12:00", "_save": "1"}
    compose = {"numbers": ONE[0], "body": "x", "sender": "", "using": "default", "nonce": "n"}
    for name in [*form, "expires_at_0", "expires_at_1", "send_at_1", "_popup", "_to_field", "x"]:
        for address in (f"{LIST}add/", f"{LIST}{draft.pk}/change/"):
            response = boss.post(address, form | {name: junk})
            assert response.status_code in (200, 302, 400), name
    for name in [*compose, "send_at_0", "send_at_1", "file", junk[:100]]:
        response = boss.post(f"{LIST}compose/", compose | {name: junk})
        assert response.status_code == 200, name
    for data in (
        {"action": junk, "_selected_action": draft.pk},
        {"action": "send_selected", "_selected_action": [draft.pk, junk]},
        {"action": "send_selected", "_selected_action": junk},
        {"action": "send_selected", "_selected_action": draft.pk, "index": junk},
        {"action": "export_selected", "_selected_action": junk, "select_across": junk},
    ):
        assert boss.post(LIST, data).status_code in (200, 302), data
    assert boss.post(f"{LIST}export/", {"pks": junk}).status_code == 200
    assert not outbox


@pytest.mark.parametrize("page", ["", "add/", "compose/", "export/", "statistics/", "1/change/"])
@pytest.mark.parametrize("name", ["q", "numbers", "body", "_changelist_filters", "x"])
def test_half_a_surrogate_pair_is_refused(boss, page, name):
    """A browser cannot send it; a program can, by naming an encoding of its own."""
    encoding = "text/html; charset=utf-7"
    response = boss.get(f"{LIST}{page}?{name}=%2B2AA-", CONTENT_TYPE=encoding)
    assert response.status_code == 400


# --- reports of errors


@pytest.mark.parametrize("debug", [True, False])
def test_no_report_of_a_crash_shows_a_number_or_a_text(boss, monkeypatch, debug):
    """Neither the page that DEBUG shows nor the mail of errors."""
    shown = []

    def report(sender, request, **kwargs):
        reporter = ExceptionReporter(request, *sys.exc_info())
        shown.append(reporter.get_traceback_text() + reporter.get_traceback_html())

    message = make(status="draft")
    data = {"to": ONE[0], "body": TEXTS[0], "using": "default", "priority": "0", "_save": "1"}
    data |= {"send_after_0": "2026-01-01", "send_after_1": "12:00"}
    compose = {"numbers": ONE[0], "body": TEXTS[0], "using": "default", "nonce": "n", "_send": "1"}
    typed_numbers = {name: value for name, value in compose.items() if name != "_send"}
    boss.raise_request_exception = False
    got_request_exception.connect(report)
    try:
        with override_settings(DEBUG=debug):
            for broken, address, typed in (
                ("django.db.models.query.QuerySet._insert", f"{LIST}add/", data),
                ("django_smska.models.SmsMessage.save", f"{LIST}{message.pk}/change/", data),
                ("django_smska.admin.compose.balance_words", f"{LIST}compose/", typed_numbers),
                ("django_smska.admin.timeline.timeline", f"{LIST}{make().pk}/change/", None),
                ("django_smska.admin.timeline.badge", LIST, None),
                (
                    "django_smska.admin.action_views.Truncator",
                    f"{LIST}send/?pks={message.pk}",
                    None,
                ),
                (
                    "django_smska.admin.xlsx.Book.add",
                    f"{LIST}export/",
                    {"pks": message.pk, "_xlsx": "1"},
                ),
            ):
                with monkeypatch.context() as context:
                    context.setattr(broken, crash)
                    response = boss.post(address, typed) if typed else boss.get(address)
                    if response.streaming:
                        with pytest.raises(RuntimeError):
                            b"".join(response.streaming_content)
                        continue
                assert response.status_code == 500, broken
                shown.append(response.content.decode())
    finally:
        got_request_exception.disconnect(report)
    assert len(shown) == 12
    for page in shown:
        assert not [words for words in (ONE[0][2:], ONE[0][5:], TEXTS[0]) if words in page]


def crash(*args, **kwargs):
    raise RuntimeError("crash")

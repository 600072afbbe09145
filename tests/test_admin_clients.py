"""``SMSKA_RECIPIENTS``: whom staff choose as recipients, and whose names stand beside numbers."""

import logging
import sys
from datetime import date, datetime
from html.parser import HTMLParser

import pytest
from django.contrib.auth.models import Group as UserGroup
from django.contrib.auth.models import Permission, User
from django.core.checks import run_checks
from django.db import connection, transaction
from django.db.models import F, Value
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.translation import gettext_lazy

from django_smska import opt_out
from django_smska.admin import clients as admin_clients
from django_smska.admin import recipients
from django_smska.models import SmsInbound, SmsMessage, rows
from django_smska.sms import outbox

from .second_database import ALIAS, second_database

pytestmark = pytest.mark.django_db

START = "/admin/django_smska/"
LIST = f"{START}smsmessage/"
PAGE = f"{LIST}compose/"
ANNA, BORIS, GRETA = "+79215550317", "+79215550318", "+491711234567"
PATH = f"{__name__}.clients"


def clients(user):
    """The clients of these tests are Django's users: what a shop has in a model of its own."""
    return User.objects.filter(is_staff=False).values(
        number=F("username"), name=F("first_name"), city=F("last_name")
    )


@pytest.fixture(autouse=True)
def setting(settings):
    settings.SMSKA_RECIPIENTS = {"Clients": PATH}


@pytest.fixture
def answers(monkeypatch):
    """Let the project's function be another one."""

    def answers(function):
        monkeypatch.setattr(sys.modules[__name__], "clients", function)

    return answers


@pytest.fixture
def boss(client):
    client.force_login(User.objects.create_superuser("boss"))
    return client


@pytest.fixture
def log_in(client):
    def log_in(*names):
        user = User.objects.create_user("clerk", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=names))
        client.force_login(user)
        return client

    return log_in


@pytest.fixture
def people():
    User.objects.create(username="8 921 555-03-17", first_name="Анна", last_name="Пермь")
    User.objects.create(username=BORIS, first_name="Борис", last_name="Омск")


def make(to=ANNA, body="The text", **values):
    message = SmsMessage(to=to, body=body)
    message.save()
    rows([message.pk]).update(**values)
    return message


def written(**changes):
    form = {"numbers": "", "body": "Hello", "sender": "", "using": "default", "nonce": "n1"}
    return form | {"group": PATH} | changes


def checked(client, **changes):
    return client.post(PAGE, written(**changes))


def errors(response):
    return {name: list(words) for name, words in response.context["errors"].items()}


def carried_by(response):
    """Return the hidden fields of a page, as a browser would post them."""
    fields = {}

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag == "input" and ("type", "hidden") in attrs:
                fields[dict(attrs)["name"]] = dict(attrs).get("value", "")

    Reader().feed(response.content.decode())
    return fields


def text_of(response):
    """Return what a page shows, in one line."""
    texts = []

    class Reader(HTMLParser):
        def handle_data(self, data):
            texts.append(data)

    Reader().feed(response.content.decode())
    return " ".join(" ".join(texts).split())


def shown(response):
    return [str(message) for message in response.context["messages"]]


def warned(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("django_s")]


def found(client, term):
    return list(client.get(LIST, {"q": term}).context["cl"].result_list)


# --- the choice of a group


def test_a_group_is_chosen_and_what_was_seen_is_what_is_sent(boss, people):
    response = checked(boss)
    assert "2 recipients from “Clients”." in text_of(response)
    assert "+7 921 555-03-17, +7 921 555-03-18" in text_of(response)
    User.objects.filter(username=BORIS).delete()
    User.objects.create(username=GRETA)
    boss.post(PAGE, carried_by(response) | {"_send": "1"})
    assert [message.to for message in outbox] == [ANNA, BORIS]


@pytest.mark.parametrize("body", ["Привет, {имя}", "Привет, {name}", "Привет, {Имя}"])
def test_names_have_the_name_that_staff_give_them(boss, people, settings, body):
    settings.LANGUAGE_CODE = "ru"
    boss.post(PAGE, carried_by(checked(boss, body=body)) | {"_send": "1"})
    assert {one.to: one.body for one in outbox} == {ANNA: "Привет, Анна", BORIS: "Привет, Борис"}


def test_a_column_of_the_project_with_that_name_is_the_one(boss, people, settings, answers):
    settings.LANGUAGE_CODE = "ru"
    rows = [{"number": ANNA, "name": "Анна Белова", "Имя": "Анечка"}]
    answers(lambda user: rows)
    boss.post(PAGE, carried_by(checked(boss, body="{имя}")) | {"_send": "1"})
    assert [one.body for one in outbox] == ["Анечка"]


def test_the_page_that_sends_asks_the_project_nothing(boss, people, answers):
    fields = carried_by(checked(boss))
    answers(lambda user: pytest.fail("it was asked"))
    boss.post(PAGE, fields | {"_send": "1"})
    assert len(outbox) == 2


def test_a_page_that_comes_back_has_the_table_and_no_group(boss, people):
    """As with a file. A group beside it would be a second source."""
    response = checked(boss, body="")
    assert errors(response) == {"body": ["This field is required."]}
    form = response.context["form"]
    assert form["group"].value() == "" and "921 555-03-17" in form["numbers"].value()
    again = boss.post(PAGE, written(numbers=form["numbers"].value(), group=""))
    assert "+7 921 555-03-17, +7 921 555-03-18" in text_of(again)


def test_no_group_is_offered_where_none_is_set(boss, settings):
    assert 'name="group"' in boss.get(PAGE).content.decode()
    settings.SMSKA_RECIPIENTS = {}
    assert 'name="group"' not in boss.get(PAGE).content.decode()


def test_who_sees_masked_numbers_alone_gets_no_group(log_in, people):
    client = log_in("view_smsmessage", "add_smsmessage", "send_smsmessage")
    assert 'name="group"' not in client.get(PAGE).content.decode()
    response = checked(client)
    assert errors(response) == {"numbers": ["Enter at least one number."]}
    assert b"555-03" not in response.content


def test_a_function_may_return_groups(boss, people, answers):
    answers(lambda user: {"VIP": clients_of("Омск"), "": clients_of("Пермь")})
    page = boss.get(PAGE).content.decode()
    assert ">Clients: VIP</option>" in page and ">Clients</option>" in page
    assert "1 recipient from “Clients: VIP”." in text_of(checked(boss, group=f"{PATH} VIP"))
    assert "+7 921 555-03-17" in text_of(checked(boss))


def clients_of(city):
    return User.objects.filter(last_name=city).values(number=F("username"), name=F("first_name"))


def test_the_function_is_given_the_user_who_asks(boss, answers):
    asked = []
    answers(lambda user: asked.append(user.username) or [{"number": BORIS}])
    assert "1 recipient from “Clients”." in text_of(checked(boss))
    assert asked == ["boss"]


def test_a_list_of_dicts_is_enough(boss, answers):
    answers(lambda user: [{"number": 79215550317}, {"number": "921 555 0318", "note": None}])
    assert "+7 921 555-03-17, +7 921 555-03-18" in text_of(checked(boss))


@pytest.mark.parametrize(("language", "label"), [("en", "Number"), ("ru", "Номер")])
def test_a_label_is_in_the_readers_language(boss, people, settings, language, label):
    settings.SMSKA_RECIPIENTS = [(gettext_lazy("Number"), PATH)]
    settings.LANGUAGE_CODE = language
    assert f">{label}</option>" in boss.get(PAGE).content.decode()
    assert checked(boss).context["form"].chosen.label == label


@pytest.mark.parametrize("given", [{"numbers": ANNA}, {"numbers": "Ann"}])
def test_a_group_beside_numbers_is_refused(boss, people, given):
    words = "Enter numbers, upload a file or choose a group: only one of them."
    assert errors(checked(boss, **given)) == {"group": [words]}


def test_a_column_that_was_chosen_for_a_table_is_not_that_of_a_group(boss, people):
    text = text_of(checked(boss, column_letter="B"))
    assert "+7 921 555-03-17, +7 921 555-03-18" in text


def test_a_group_that_is_gone_is_refused(boss):
    words = "This group cannot be read now. Choose another."
    assert errors(checked(boss, group=f"{PATH} VIP"))["group"] == [words]


def test_an_empty_group_is_refused(boss):
    assert errors(checked(boss))["group"] == ["“Clients” has no recipients."]


def test_clients_without_a_number_are_counted(boss, people, answers):
    more = [{"number": None}, {"number": "  "}, {"number": "12"}]
    answers(lambda user: [*more, {"number": ANNA}])
    text = text_of(checked(boss))
    assert "4 recipients from “Clients”. 2 of them have no number." in text
    assert "1 message," in text and "1 entry is not a phone number." in text


def test_too_many_are_refused_and_counted(boss, people, monkeypatch):
    User.objects.create(username=GRETA)
    monkeypatch.setattr(recipients, "MAX_NUMBERS", 2)
    [words] = errors(checked(boss))["group"]
    assert words == (
        "“Clients” has 3 recipients, and one mailing at most 2. Choose a smaller group."
    )


def test_more_text_than_a_form_can_carry_is_refused(boss, answers, settings):
    """The next page would be refused as a whole, without a word why."""
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 20_000
    answers(lambda user: [{"number": ANNA, "note": "Ж" * 9_100}])
    assert errors(checked(boss))["group"] == [
        "“Clients” has too much text. Ask your administrator to leave out columns."
    ]
    answers(lambda user: [{"number": ANNA, "note": "Ж" * 8_900}])
    assert len(carried_by(checked(boss))) > 1


# --- the table


def numbers_in(answers, boss, *given):
    answers(lambda user: list(given))
    response = checked(boss)
    return response.context["form"].recipients.numbers


@pytest.mark.parametrize(
    "more",
    [
        {"phone": GRETA},
        {"Телефон": BORIS, "phone2": BORIS},
        {"☎": BORIS},
        {"sms": BORIS, "mobile": BORIS, "tel": BORIS},
        {"card": "4276 3800 1234 5678"},
        {"note": f'"{BORIS}"\t{BORIS}; {BORIS}\n{BORIS},|'},
        {"name": "ООО «Телефон»\0\x1f\u2028Ltd.", "city": "\ufffd"},
        {"": "blank"},
        {},
    ],
)
def test_only_the_column_of_the_numbers_is_read(answers, boss, more):
    """Whatever the other columns are called and hold."""
    given = [{**more, "number": "8 921 555 03 17"}, {**more, "number": "not known"}]
    assert numbers_in(answers, boss, *given) == [ANNA]
    assert numbers_in(answers, boss, *reversed(given)) == [ANNA]


def test_rows_that_look_like_heads_are_none(answers, boss):
    heads = {"number": "12", "a": "Phone", "b": "Телефон", "c": "Имя", "d": "Город"}
    assert numbers_in(answers, boss, heads, heads, {"number": ANNA, "a": BORIS}) == [ANNA]


def test_numbers_of_other_columns_are_never_read_if_the_table_cannot_be(boss, people):
    """A quotation mark that is never closed would make lines of text of it."""
    broken = f'☎\tphone\n{ANNA}\t"{BORIS}'
    assert "numbers" in errors(checked(boss, numbers=broken, group=""))


def test_cells_are_written_as_people_read_them(answers, boss):
    values = {
        "day": date(2026, 3, 7),
        "at": datetime(2026, 3, 7, 9, 30, tzinfo=timezone.get_fixed_timezone(0)),
        "none": None,
        "sum": 12,
        "name": " Ann\tB.\n",
    }
    answers(lambda user: [{"number": ANNA, **values}])
    user = User(is_superuser=True, is_active=True)
    heads, cells = admin_clients.Sources(user).recipients(PATH).text.split("\n")
    assert heads.split("\t") == ["☎", "day", "at", "none", "sum", "name"]
    assert cells.split("\t") == [
        ANNA, "03/07/2026", "03/07/2026 12:30 p.m.", "", "12", "Ann B."
    ]  # fmt: skip


# --- functions that fail


def raising(user):
    raise ValueError(ANNA)


def without_arguments_of_clients():
    return []


def failing_query(user):
    return User.objects.annotate(number=F("username"), name=Value(ANNA)).extra(
        where=["no_such_column = '+79215550317'"]
    )


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (raising, "ValueError was raised"),
        (lambda user: None, "it returns neither a QuerySet nor a list of dicts"),
        (lambda user: {"VIP": ANNA}, "it returns neither a QuerySet nor a list of dicts"),
        (without_arguments_of_clients, "ImproperlyConfigured was raised"),
    ],
)
def test_a_function_that_fails_is_named_and_the_others_are_offered(
    boss, people, answers, settings, caplog, function, why
):
    settings.SMSKA_RECIPIENTS = {"Clients": PATH, "Friends": f"{__name__}.clients_of_perm"}
    answers(function)
    response = boss.get(PAGE)
    [said] = shown(response)
    assert said == f"“Clients” cannot be read. Ask your administrator. {PATH}: {why}."
    assert warned(caplog) == [f"clients cannot be read: {PATH}: {why}"]
    page = response.content.decode()
    assert ">Friends</option>" in page and ">Clients</option>" not in page
    assert ANNA not in page + caplog.text


def clients_of_perm(user):
    return clients_of("Пермь")


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda user: [{"number": ANNA}, {"name": "A"}], "row 2 is no dict with the key “number”"),
        (lambda user: User.objects.all(), "row 1 is no dict with the key “number”"),
        (lambda user: [ANNA], "row 1 is no dict with the key “number”"),
        (failing_query, "OperationalError was raised"),
        (lambda user: [{"number": ANNA, "name": Silent()}], "LookupError was raised"),
    ],
)
def test_rows_that_cannot_be_used_are_an_error_of_the_field(boss, answers, caplog, function, why):
    answers(function)
    if connection.vendor == "postgresql":
        why = why.replace("Operational", "Programming")
    [words] = errors(checked(boss))["group"]
    assert words == f"“Clients” cannot be read. Ask your administrator. {PATH}: {why}."
    assert warned(caplog) == [f"clients cannot be read: {PATH}: {why}"]
    assert ANNA not in words + caplog.text


class Silent:
    def __str__(self):
        raise LookupError(ANNA)


def test_a_wrong_setting_is_no_broken_page(boss, settings, caplog):
    settings.SMSKA_RECIPIENTS = PATH
    make()
    assert boss.get(LIST).status_code == 200
    assert "SMSKA_RECIPIENTS: the setting is wrong." in shown(boss.get(PAGE))[0]
    assert warned(caplog) == ["clients cannot be read: SMSKA_RECIPIENTS: the setting is wrong"] * 2


def test_the_log_is_english_whatever_the_readers_language(boss, answers, settings, caplog):
    answers(raising)
    settings.LANGUAGE_CODE = "ru"
    assert boss.get(PAGE).status_code == 200
    assert warned(caplog) == [f"clients cannot be read: {PATH}: ValueError was raised"]


# --- the setting and its check


def problems():
    return [(one.id, one.msg) for one in run_checks(tags=["sms"]) if "RECIPIENTS" in one.msg]


@pytest.mark.parametrize(
    "value",
    [["shop.sms.clients"], {1: "shop.sms.clients"}, {"A": "clients"}, {"A": None}, {"A": len}],
)
def test_a_value_that_is_none_is_an_error(settings, value):
    settings.SMSKA_RECIPIENTS = value
    assert [id for id, _words in problems()] == ["smska.E011"]


async def awaited(user):
    return []


def without_arguments():
    return []


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no_such_shop.clients", "No module named 'no_such_shop'."),
        (f"{__name__}.no_such_function", "does not define"),
        (f"{__name__}.START", "is not a callable object"),
        (f"{__name__}.awaited", "is an 'async def'"),
        (f"{__name__}.without_arguments", "cannot be called with one: too many positional"),
        ("tests.raises_at_import.clients", "its module raised"),
    ],
)
def test_a_path_that_names_no_such_function_is_an_error(settings, path, words):
    settings.SMSKA_RECIPIENTS = [("A", path), (gettext_lazy("B"), path)]
    [(id, said)] = problems()
    assert id == "smska.E015" and words in said and repr(path) in said


def test_a_good_setting_is_no_error(settings):
    settings.SMSKA_RECIPIENTS = [(gettext_lazy("Number"), PATH)]
    assert problems() == []


# --- names


def received():
    return SmsInbound.objects.create(sender=ANNA, body="Yes", using="default")


@pytest.fixture
def pages(people):
    """Return each page with a number, and the permission to see it."""
    sms = make()
    opt_out.opt_out(ANNA)
    entry = opt_out.entries_of(ANNA).get()
    return {
        LIST: "view_smsmessage",
        f"{LIST}{sms.pk}/change/": "view_smsmessage",
        f"{LIST}send/?pks={sms.pk}": "send_smsmessage",
        f"{START}smsoptout/": "view_smsoptout",
        f"{START}smsoptout/{entry.pk}/change/": "view_smsoptout",
        f"{START}smsinbound/": "view_smsinbound",
        f"{START}smsinbound/{received().pk}/change/": "view_smsinbound",
    }


@pytest.mark.slow
def test_a_name_stands_beside_each_number_for_those_who_may_see_it(log_in, pages):
    User.objects.filter(first_name="Анна").update(username="89215550317")
    seeing = log_in("see_number_smsmessage", *pages.values(), "view_smsmessage")
    named = {url: "Анна" in text_of(seeing.get(url)) for url in pages}
    assert named == dict.fromkeys(pages, True)


@pytest.mark.slow
def test_who_sees_masked_numbers_alone_sees_no_name(log_in, pages):
    User.objects.filter(first_name="Анна").update(username="89215550317")
    masked = log_in(*pages.values(), "view_smsmessage")
    for url in pages:
        response = masked.get(url)
        assert response.status_code == 200 and "Анна" not in response.content.decode()


@pytest.mark.slow
@pytest.mark.parametrize("spelling", [ANNA, "79215550317", "89215550317", "9215550317"])
def test_a_name_is_found_by_the_usual_spellings_of_its_number(boss, spelling):
    User.objects.create(username=spelling, first_name="Zoe")
    make()
    assert "Zoe" in text_of(boss.get(LIST))


def test_a_name_of_another_country_is_found(boss):
    User.objects.create(username=GRETA[1:], first_name="Greta")
    make(to=GRETA)
    assert "Greta" in text_of(boss.get(LIST))


def test_a_name_is_text_and_a_long_one_is_cut(boss):
    name = "<script>alert(1)</script>" + "é" * 60
    User.objects.create(username=ANNA, first_name=name)
    sms = make(status="failed", expires_at=timezone.now())
    whole = "&lt;script&gt;alert(1)&lt;/script&gt;" + "é" * 60
    for url in (LIST, f"{LIST}{sms.pk}/change/"):
        page = boss.get(url).content.decode()
        assert "<script>alert" not in page
        assert f'title="{whole}">&lt;script&gt;alert(1)&lt;/script&gt;' in page
        assert "é" * 14 + "…</span>" in page and "é" * 15 + "…" not in page
    page = boss.get(f"{LIST}resend/?pks={sms.pk}").content.decode()
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page


def queries(client, url):
    with CaptureQueriesContext(connection) as context:
        assert client.get(url).status_code == 200
    return len(context)


@pytest.mark.slow
@pytest.mark.parametrize("url", [LIST, f"{START}smsinbound/", f"{START}smsoptout/"])
def test_a_page_asks_each_function_once(boss, answers, url):
    answers(lambda user: {city: clients_of(city) for city in "ABC"})
    SmsInbound.objects.create(sender=GRETA, body="Yes", using="default")
    opt_out.opt_out(GRETA)
    make(to=GRETA)
    one = queries(boss, url)
    for number in range(12):
        to = f"+79215550{number:03}"
        make(to=to)
        opt_out.opt_out(to)
        SmsInbound.objects.create(sender=to, body="Yes", using="default")
        User.objects.create(username=to, first_name="Ann", last_name="ABC"[number % 3])
    assert queries(boss, url) == one
    assert text_of(boss.get(url)).count("Ann") == 12
    answers(lambda user: clients_of("A"))
    assert queries(boss, url) == one


def test_the_order_of_a_model_stops_no_name(boss, answers):
    """Several groups of a model whose own order is by columns that are no number and no name."""
    things = Permission.objects.values("name", number=F("codename"))
    assert Permission._meta.ordering and not things.query.order_by
    answers(lambda user: {"One": things, "Other": things.filter(pk__gt=0)})
    Permission.objects.filter(codename="view_user").update(codename=ANNA, name="Zoë Quill")
    make(to=ANNA)
    assert "Zoë Quill" in text_of(boss.get(LIST))
    assert "Zoë Quill" in text_of(boss.get(f"{LIST}?q=quill"))


def test_the_first_function_that_knows_a_name_is_the_one(boss, people, settings):
    settings.SMSKA_RECIPIENTS = {"A": f"{__name__}.nameless", "B": PATH, "C": f"{__name__}.others"}
    make(to=BORIS)
    text = text_of(boss.get(LIST))
    assert "Борис" in text and "Omsk" not in text


def nameless(user):
    return User.objects.values(number=F("username"))


def others(user):
    return User.objects.values(number=F("username"), name=Value("Omsk"))


@pytest.mark.parametrize(
    "function",
    [
        failing_query,
        raising,
        lambda user: clients_of("Пермь")[:5],  # cannot be filtered any more
        lambda user: User.objects.annotate(number=F("first_name"), name=Value(1) / F("id") / 0),
    ],
)
def test_an_error_of_the_project_leaves_names_out_and_breaks_no_list(
    boss, people, answers, settings, caplog, function
):
    settings.SMSKA_RECIPIENTS = {"Clients": PATH, "Friends": f"{__name__}.others"}
    answers(function)
    make()
    make(to=BORIS)
    response = boss.get(LIST)
    assert response.status_code == 200 and "Omsk" in text_of(response)
    assert len(warned(caplog)) <= 1 and ANNA not in caplog.text
    assert all(record.levelno == logging.WARNING for record in caplog.records)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("url", [LIST, f"{LIST}?q=анна", f"{START}smsinbound/"])
def test_a_failing_query_leaves_the_requests_transaction_fit(
    boss, answers, settings, monkeypatch, caplog, url
):
    """PostgreSQL refuses every query after one that failed."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    answers(failing_query)
    make()
    received()
    response = boss.get(url)
    assert response.status_code == 200
    assert response.context["cl"].result_count == (0 if "q=" in url else 1)
    assert set(warned(caplog)) == {
        f"clients cannot be read: {PATH}: "
        f"{'Programming' if connection.vendor == 'postgresql' else 'Operational'}Error was raised"
    }


@pytest.mark.django_db(transaction=True)
def test_what_a_failing_function_stored_is_undone_in_a_transaction(boss, answers):
    def store_and_fail(user):
        UserGroup.objects.create(name="half")
        raise ValueError

    answers(store_and_fail)
    with transaction.atomic():
        admin_clients.groups(User(is_superuser=True, is_active=True))
    assert not UserGroup.objects.exists()


def test_an_abort_is_not_swallowed(boss, answers):
    def abort(user):
        raise KeyboardInterrupt

    answers(abort)
    with pytest.raises(KeyboardInterrupt):
        admin_clients.groups(None)


# --- search


@pytest.mark.parametrize(
    "term",
    ["Петрова", "петрова", "ПЕТРОВА", "етров", "анна петр", "Петрова Анна", "Rosa", "rosa"],
)
def test_messages_are_found_by_a_name(boss, people, term):
    User.objects.filter(first_name="Анна").update(first_name="Анна Rosa Петрова")
    wanted = make()
    make(to=BORIS)
    assert found(boss, term) == [wanted]


@pytest.mark.parametrize("term", ["Ан", "Анна Борис", "100", "%", "___"])
def test_other_terms_find_no_name(boss, people, term):
    make()
    make(to=BORIS)
    assert found(boss, term) == []


def test_who_sees_masked_numbers_alone_finds_no_name(log_in, people):
    make()
    client = log_in("view_smsmessage", "see_text_smsmessage")
    assert found(client, "Анна") == []
    page = text_of(client.get(LIST, {"q": "Анна"}))
    assert "a name" not in page and "of the client" not in page and "a part of a text" in page


def test_the_page_says_that_names_are_looked_for(boss, settings):
    page = text_of(boss.get(LIST, {"q": "Zoe"}))
    assert "name of the client" in page and "It was looked for as:" in page
    assert "a name, a part of a text." in page
    settings.SMSKA_RECIPIENTS = {}
    page = text_of(boss.get(LIST, {"q": "Zoe"}))
    assert "name of the client" not in page and "a name" not in page


def test_a_name_of_many_clients_is_cut_and_the_page_says_so(boss, monkeypatch):
    monkeypatch.setattr(admin_clients, "MAX_FOUND", 3)
    for number in range(5):
        to = f"+7921555030{number}"
        User.objects.create(username=to, first_name="Ann" if number else "Anna")
        make(to=to)
    response = boss.get(LIST, {"q": "ann"})
    assert response.context["cl"].result_count == 3
    assert "More than 3 clients have this name." in text_of(response)
    response = boss.get(LIST, {"q": "anna"})
    assert response.context["cl"].result_count == 1
    assert "More than" not in text_of(response)


def test_a_search_asks_the_project_once_and_the_list_once(boss, people, answers):
    asked = []
    answers(lambda user: asked.append(1) or clients_of("Пермь"))
    assert found(boss, "nothing") == []
    assert len(asked) == 1
    make()
    assert len(found(boss, "Анна")) == 1
    assert len(asked) == 3


def test_a_search_finds_the_rest_where_the_project_fails(boss, answers, caplog):
    answers(raising)
    wanted = make(body="Ваш заказ")
    assert found(boss, "заказ") == [wanted]
    assert set(warned(caplog)) == {f"clients cannot be read: {PATH}: ValueError was raised"}


# --- clients in another database


@pytest.fixture(scope="module")
def second(django_db_setup, django_db_blocker):
    with django_db_blocker.unblock(), second_database():
        yield


@pytest.mark.slow
@pytest.mark.django_db(transaction=True, databases=["default", ALIAS])
def test_clients_may_be_in_another_database(second, boss, answers):
    User.objects.using(ALIAS).create(username="89215550317", first_name="Ёлкина")
    answers(lambda user: clients_of("").using(ALIAS))
    wanted = make()
    assert "Ёлкина" in text_of(boss.get(LIST))
    assert found(boss, "ёлкина") == [wanted]
    assert "1 recipient from “Clients”." in text_of(checked(boss))


@pytest.mark.django_db(transaction=True, databases=["default", ALIAS])
def test_each_database_has_its_own_open_transaction(second, boss, answers):
    answers(lambda user: failing_query(user).using(ALIAS))
    with transaction.atomic(), transaction.atomic(using=ALIAS):
        assert admin_clients.names(User(is_superuser=True, is_active=True), [ANNA]) == {}
        assert User.objects.count() == 1 and User.objects.using(ALIAS).count() == 0

"""The search of the list of messages: what is found by which term, and by whom."""

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_smska.admin import search
from django_smska.models import SmsMessage, rows

pytestmark = pytest.mark.django_db

LIST = "/admin/django_smska/smsmessage/"


@pytest.fixture
def boss(client):
    client.force_login(User.objects.create_superuser("boss"))
    return client


@pytest.fixture
def log_in(client):
    def log_in(*names):
        user = User.objects.create_user("clerk", is_staff=True)
        names = [f"{name}_smsmessage" for name in ("view", *names)]
        user.user_permissions.set(Permission.objects.filter(codename__in=names))
        client.force_login(user)
        return client

    return log_in


def make(to="89041764995", body="The text", **values):
    message = SmsMessage(to=to, body=body, idempotency_key=values.pop("idempotency_key", None))
    message.save()
    rows([message.pk]).update(**values)
    return rows().get(pk=message.pk)


def found(client, term, **filters):
    return list(client.get(LIST, {"q": term, **filters}).context["cl"].result_list)


def page(client, term):
    return client.get(LIST, {"q": term}).content.decode()


# --- numbers and ids


@pytest.mark.parametrize(
    "term",
    [
        "+79041764995",
        "+7 904 176-49-95",
        "89041764995",
        "8 (904) 176-49-95",
        "9041764995",
        " 8-904-176-49-95 ",
        "тел. 8904 176-49-95",
        "Петрова О. 8 904 1764995, после 18",
        "wa:+7(904)176-49-95",
        "8904",
        "8904 176",
        "7904",
        "4995",
        "176-49",
        "995",
        "тел. 8904",
        "моб.: 904-17",
        "№ 4995",
        "gw-17",
    ],
)
def test_a_number_is_found_in_any_spelling_and_a_gateway_id_whole(boss, term):
    wanted = make(gateway_id="gw-17")
    make(to="+491711234567", body="Another one")
    assert found(boss, term) == [wanted]


@pytest.mark.parametrize(
    "term", ["95", "499", "904", "gw-1", "gw 17", "+7 905", "x4995", "а4995", "№4995x", "тел."]
)
def test_too_few_digits_and_names_with_digits_find_no_number(boss, term):
    """Three digits are looked for at the end alone: elsewhere in a number they fit to too many."""
    make(gateway_id="gw-17")
    assert not found(boss, term)


def test_several_numbers_are_found_together(boss):
    one, other = make(), make("8 921 555-03-17")
    make("8 921 555-03-18")
    assert found(boss, "8 904 176-49-95, 8 921 555-03-17") == [other, one]


def test_parts_are_looked_for_among_the_newest_only(boss, monkeypatch):
    """It would read the whole table; a whole number is found by its index, however old."""
    old = make(body="Ваш заказ готов")
    new = make(to="89051764995", body="Ваш заказ готов")
    monkeypatch.setattr(search, "NEWEST_ROWS", new.pk - old.pk)
    assert found(boss, "1764995") == found(boss, "заказ") == found(boss, "995") == [new]
    assert found(boss, "89041764995") == [old]


def test_the_queries_are_as_many_for_many_rows_as_for_one(boss):
    def queries():
        with CaptureQueriesContext(connection) as context:
            found(boss, "4995 text")
        return len(context)

    make(body="4995 text")
    one = queries()
    for _ in range(12):
        make(body="4995 text")
    assert queries() == one


@pytest.mark.parametrize("most", [0, 1, 2, 3, 2000])
def test_it_finds_the_same_however_many_there_are(boss, monkeypatch, most):
    """By an id or a key, also of an old message, and by a part of one of the newest."""
    old = make(gateway_id="tulips", body="Old", status="sent", expires_at=timezone.now())
    make(body="The tulips of last year")
    keyed = make(body="Keyed", idempotency_key="tulips")
    parts = [make(body=f"{number} tulips") for number in range(3)]
    monkeypatch.setattr(search, "NEWEST_ROWS", 4)
    monkeypatch.setattr(search, "MAX_KEYS", most)
    assert found(boss, "tulips") == [*reversed(parts), keyed, old]
    assert found(boss, "tulips", status__exact="sent") == [old]


def test_no_query_looks_for_an_id_or_a_part_in_the_order_of_the_list(boss):
    """SQLite and MariaDB would read the whole table from its end."""
    make(gateway_id="tulips")
    make(body="Some tulips")
    with CaptureQueriesContext(connection) as context:
        assert len(found(boss, "tulips")) == 2
    lists = [one["sql"] for one in context if "error_text" in one["sql"]]
    assert lists and not any('gateway_id" =' in sql or "LIKE" in sql for sql in lists)


# --- texts and keys


@pytest.mark.parametrize("term", ["Ёлкина", "ёлкина", "заказ № 1042", "1042", "100%", "_ok_"])
def test_a_part_of_a_text_is_found(boss, term):
    wanted = make(body="Ёлкина, ваш заказ № 1042 готов на 100% _ok_")
    make(body="Другой текст: 1000 xokx")
    assert found(boss, term) == [wanted]


def test_a_sensitive_text_is_not_found(boss):
    make(body="Your code is 512733", sensitive=True)
    assert not found(boss, "512733") and not found(boss, "code")


def test_an_idempotency_key_is_found_whole(boss):
    wanted = make(idempotency_key="order-1042-ready")
    make(idempotency_key="order-1043-ready")
    assert found(boss, "order-1042-ready") == [wanted]
    assert not found(boss, "order-1042")


@pytest.mark.parametrize(
    ("names", "terms"),
    [
        ([], {"gw-17"}),
        (["see_number"], {"gw-17", "4995", "89041764995"}),
        (["see_text"], {"gw-17", "Ready"}),
        (["see_number", "see_text"], {"gw-17", "4995", "89041764995", "Ready", "key-1"}),
    ],
)
def test_what_a_user_may_not_see_is_not_found(log_in, names, terms):
    clerk = log_in(*names)
    make(body="Ready", gateway_id="gw-17", idempotency_key="key-1")
    every = {"gw-17", "4995", "89041764995", "Ready", "key-1"}
    assert {term for term in every if found(clerk, term)} == terms


# --- what the page says


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "Gateway ID"),
        (["see_number"], "Number in any spelling, or its last digits, gateway ID"),
        (["see_text"], "Words of the text, gateway ID"),
    ],
)
def test_the_page_says_what_can_be_searched_for(log_in, names, words):
    clerk = log_in(*names)
    make()
    assert f'<p class="help smska-searches">{words}</p>' in clerk.get(LIST).content.decode()


@pytest.mark.parametrize(
    ("term", "words"),
    [
        ("89301112233", "a gateway ID, an idempotency key, the number +7 930 111-22-33.<"),
        ("тел. 893", "an idempotency key, a number that ends with 893, a part of a text."),
        ("8930 11", "a number with the digits 893011, a part of a text."),
        ("Ёж", "Nothing was found for “Ёж”. It was looked for as: an idempotency key.<"),
        ("<i>", "Nothing was found for “&lt;i&gt;”."),
    ],
)
def test_where_nothing_is_found_it_says_what_was_looked_for(boss, term, words):
    make()
    assert words in page(boss, term)


@pytest.mark.slow
def test_it_says_where_parts_are_looked_for_and_that_filters_are_chosen(boss):
    make()
    assert "in the newest 50,000 messages. Try the whole number." in page(boss, "nowhere")
    assert "newest" not in page(boss, "Ёж").partition("Nothing was found")[2][:200]
    assert "Filters are chosen, too." not in page(boss, "nowhere")
    response = boss.get(LIST, {"q": "4995", "status__exact": "failed"})
    assert "Filters are chosen, too." in response.content.decode()
    assert "Nothing was found" not in page(boss, "4995")


def test_to_a_user_who_sees_no_numbers_no_search_for_one_is_promised(log_in):
    clerk = log_in()
    make()
    words = "Nothing was found for “4995”. It was looked for as: a gateway ID."
    assert words in page(clerk, "4995")

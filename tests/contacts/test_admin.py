"""The admin of contacts and groups: who sees, finds and changes what."""

import re
from html import escape, unescape

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_smska.contacts.models import Contact, ContactGroup
from django_smska.opt_out import opt_out

from .conftest import ALL
from .test_book import NUMBER, OTHER, make

pytestmark = pytest.mark.django_db

LIST, GROUPS = "/admin/smska_contacts/contact/", "/admin/smska_contacts/contactgroup/"
MASKED = "+7913•••1020"
VIEWS = ("view_contact", "view_contactgroup")


def html(response):
    assert response.status_code == 200
    return response.content.decode()


def found(client, **query):
    """Return the names in the list, in its order."""
    response = client.get(LIST, query)
    assert response.status_code == 200
    return [one.name for one in response.context["cl"].result_list]


@pytest.fixture
def book():
    vip, garden = (ContactGroup.objects.create(name=name) for name in ("VIP", "Сад"))
    make(NUMBER, "Анна Кузнецова", vip, garden, note="код от двери 8 913 400-10-20")
    make(OTHER, "Борис", vip)
    make("+995555123456", "Нино")
    return vip


# --- the list


def test_it_shows_names_numbers_and_groups(log_in, book):
    page = html(log_in(*ALL).get(LIST))
    assert "Анна Кузнецова" in page and "+7 913 400-10-20" in page and "VIP, Сад" in page
    assert "Import…" in page


def test_it_needs_as_many_queries_for_three_contacts_as_for_thirty(log_in, book):
    client = log_in(*ALL)

    def queries():
        client.get(LIST)
        with CaptureQueriesContext(
            connection,
        ) as captured:
            html(client.get(LIST))
        return len(captured)

    few = queries()
    for at in range(27):
        make(f"+7913400{at + 2000}", f"Клиент {at}", book)
        opt_out(f"+7913400{at + 2000}")
    assert queries() == few


def test_it_says_who_is_on_the_do_not_send_list(log_in, book):
    opt_out(OTHER)
    client = log_in(*ALL)
    rows = {one.name: one for one in client.get(LIST).context["cl"].result_list}
    assert [name for name, row in rows.items() if row.is_opted_out] == ["Борис"]
    assert html(client.get(LIST)).count("on the do-not-send list") == 1


@pytest.mark.parametrize(
    ("term", "names"),
    [
        ("8 (913) 400-10-20", ["Анна Кузнецова"]),
        ("тел. 79134001020", ["Анна Кузнецова"]),
        ("400102", ["Анна Кузнецова", "Борис"]),
        ("10-21", ["Борис"]),
        ("8913400", ["Анна Кузнецова", "Борис"]),
        ("21", []),
        ("кузнецова", ["Анна Кузнецова"]),
        ("КУЗНЕЦОВА анна", ["Анна Кузнецова"]),
        ("нина", []),
        ("+7 913 400-99-99", []),
    ],
)
def test_search_finds_names_and_numbers_in_any_spelling(log_in, book, term, names):
    assert found(log_in(*ALL), q=term) == names


def test_the_filter_shows_a_group_or_those_in_none(log_in, book):
    client = log_in(*ALL)
    assert found(client, group=book.pk) == ["Анна Кузнецова", "Борис"]
    assert found(client, group="none") == ["Нино"]
    assert client.get(LIST, {"group": "x"}).status_code == 302
    assert client.get(LIST, {"groups__name": "VIP"}).status_code == 302
    assert client.get(LIST, {"number__startswith": "+7913400102"}).status_code == 302


# --- who may not see whole numbers


def test_without_that_permission_numbers_are_masked_everywhere(log_in, book):
    opt_out(NUMBER)
    Contact.objects.filter(number=NUMBER).update(name="Анна 8 913 400-10-20")
    client, anna = (
        log_in(*VIEWS, "change_contact", "add_contact"),
        Contact.objects.get(number=NUMBER),
    )
    assert MASKED in html(client.get(LIST))
    for page in (LIST, f"{LIST}{anna.pk}/change/", f"{LIST}{anna.pk}/history/"):
        words = html(client.get(page))
        assert "400-10-20" not in words and "4001020" not in words and "do-not-send" not in words


@pytest.mark.parametrize("term", [NUMBER, "8 913 400-10-20", "1020", "400", "13"])
def test_without_it_search_finds_no_number(log_in, book, term):
    Contact.objects.filter(number=NUMBER).update(name="Анна 8 913 400-10-20")
    client = log_in(*VIEWS)
    assert found(client, q=term) == []
    assert found(client, q="Борис") == ["Борис"]


def test_without_it_nothing_is_added_or_changed(log_in, book):
    client = log_in(*(set(ALL) - {"see_number_smsmessage"}))
    anna = Contact.objects.get(number=NUMBER)
    form = {"number": OTHER, "name": "Вера", "note": ""}
    for url in (f"{LIST}add/", f"{LIST}{anna.pk}/change/", f"{LIST}import/"):
        response = client.post(url, form)
        assert response.status_code == 403
        assert "Can see the whole number of SMS messages" in response.content.decode()
    action = {"action": "join_group", "group": book.pk, "_selected_action": anna.pk}
    client.post(LIST, action)
    assert Contact.objects.count() == 3 and Contact.objects.get(pk=anna.pk).name == "Анна Кузнецова"


# --- each page, by permission


@pytest.mark.parametrize(
    ("url", "needs"),
    [
        (LIST, {"view_contact"}),
        (f"{LIST}add/", {"add_contact", "see_number_smsmessage"}),
        (f"{LIST}<pk>/change/", {"view_contact"}),
        (f"{LIST}<pk>/history/", {"view_contact"}),
        (f"{LIST}<pk>/delete/", {"delete_contact"}),
        (
            f"{LIST}import/",
            {"view_contact", "add_contact", "change_contact", "see_number_smsmessage"},
        ),
        (GROUPS, {"view_contactgroup"}),
        (f"{GROUPS}add/", {"add_contactgroup"}),
        (f"{GROUPS}<pk>/change/", {"view_contactgroup"}),
        (f"{GROUPS}<pk>/history/", {"view_contactgroup"}),
        (f"{GROUPS}<pk>/delete/", {"delete_contactgroup"}),
    ],
)
def test_each_page_needs_its_permissions_and_names_the_missing_ones(log_in, book, url, needs):
    pk = book.pk if url.startswith(GROUPS) else Contact.objects.get(number=NUMBER).pk
    url = url.replace("<pk>", str(pk))
    assert log_in(*needs).get(url).status_code == 200
    for missing in needs:
        others = set(ALL) - {missing}
        if missing == "view_contact":
            others -= {"change_contact"}  # it includes to view
        if missing == "view_contactgroup":
            others -= {"change_contactgroup"}
        response = log_in(*others).get(url)
        assert response.status_code == 403, missing
        assert "You lack th" in response.content.decode()


def test_every_url_of_the_admin_is_in_that_table():
    from django.contrib import admin

    names = {
        url.name.rpartition("_")[2]
        for model in (Contact, ContactGroup)
        for url in admin.site._registry[model].get_urls()
        if url.name
    }
    assert names == {"changelist", "add", "change", "history", "delete", "import"}


# --- add, change, delete


def test_a_contact_is_added_in_any_spelling_with_groups(log_in, book):
    client = log_in(*ALL)
    form = {"number": "8 (913) 400-77-88", "name": "Вера", "note": "", "groups": [book.pk]}
    assert client.post(f"{LIST}add/", form).status_code == 302
    vera = Contact.objects.get(name="Вера")
    assert vera.number == "+79134007788" and vera.created_by == client.user
    assert list(vera.groups.all()) == [book]
    assert not LogEntry.objects.filter(object_repr__contains="Вера").exists()


@pytest.mark.parametrize(
    ("number", "words"),
    [("8 913 400-10-20", "There is a contact with this number already"), ("8913", "11 digits")],
)
def test_what_is_wrong_with_a_number_stands_at_its_field(log_in, book, number, words):
    page = html(log_in(*ALL).post(f"{LIST}add/", {"number": number, "name": "Вера", "note": ""}))
    assert words in page and Contact.objects.count() == 3


def test_a_contact_is_changed(log_in, book):
    boris = Contact.objects.get(number=OTHER)
    form = {"number": "+7 913 400-10-22", "name": "Борис П.", "note": "должен 300"}
    assert log_in(*ALL).post(f"{LIST}{boris.pk}/change/", form).status_code == 302
    boris.refresh_from_db()
    assert (boris.number, boris.name, boris.note) == ("+79134001022", "Борис П.", "должен 300")
    assert not boris.groups.exists()


def test_a_deleted_group_leaves_its_contacts(log_in, book):
    client = log_in(*ALL)
    page = html(client.get(f"{GROUPS}{book.pk}/delete/"))
    assert "VIP" in page and "Contact_groups" not in page and "1020" not in page
    assert client.post(f"{GROUPS}{book.pk}/delete/", {"post": "yes"}).status_code == 302
    assert Contact.objects.count() == 3 and not ContactGroup.objects.filter(name="VIP").exists()


# --- groups


def test_groups_show_how_many_are_in_them_with_one_query(log_in, book):
    client = log_in(*ALL)
    page = html(client.get(GROUPS))
    assert f'<a href="{LIST}?group={book.pk}">2</a>' in page
    with CaptureQueriesContext(connection) as few:
        client.get(GROUPS)
    for at in range(20):
        Contact.objects.get(number=NUMBER).groups.add(ContactGroup.objects.create(name=f"г{at}"))
    with CaptureQueriesContext(connection) as many:
        client.get(GROUPS)
    assert len(few) == len(many)
    assert f'<a href="{LIST}?group={book.pk}">2</a>' in html(
        client.get(f"{GROUPS}{book.pk}/change/")
    )


def test_chosen_contacts_join_and_leave_a_group(log_in, book):
    client, garden = log_in(*ALL), ContactGroup.objects.get(name="Сад")
    pks = list(Contact.objects.values_list("pk", flat=True))
    action = {"action": "join_group", "group": garden.pk, "_selected_action": pks}
    said = html(client.post(LIST, action, follow=True))
    assert "2 contacts were added to “Сад”." in said and garden.contacts.count() == 3
    said = html(client.post(LIST, action | {"action": "leave_group"}, follow=True))
    assert "3 contacts were removed from “Сад”." in said and garden.contacts.count() == 0


def test_an_action_without_a_group_asks_for_one(log_in, book):
    client = log_in(*ALL)
    action = {"action": "join_group", "_selected_action": [Contact.objects.latest("pk").pk]}
    assert "Choose a group, too." in html(client.post(LIST, action | {"group": ""}, follow=True))
    for group in ("99999", "x"):
        said = html(client.post(LIST, action | {"group": group}, follow=True))
        assert "No action selected." in said and "added to" not in said


def test_all_of_a_filtered_list_may_join(log_in, book):
    garden = ContactGroup.objects.get(name="Сад")
    action = {"action": "join_group", "group": garden.pk, "select_across": "1"}
    first = Contact.objects.get(number=OTHER).pk
    log_in(*ALL).post(f"{LIST}?group={book.pk}", action | {"_selected_action": first})
    assert {one.name for one in garden.contacts.all()} == {"Анна Кузнецова", "Борис"}


# --- from a group to the page for writing


WRITES = (*ALL, "view_smsmessage", "add_smsmessage", "send_smsmessage")
TO_THEM = re.compile(r'<a href="([^"]*)">Write to them</a>')


def to_them(client, group):
    found = TO_THEM.search(html(client.get(f"{GROUPS}{group.pk}/change/")))
    return unescape(found[1]) if found else ""


@pytest.mark.parametrize("name", ["VIP", "Сад & Ко", "All"])
def test_a_group_leads_to_the_page_for_writing_with_it_chosen(log_in, book, name):
    """Also one that is called like all contacts."""
    ContactGroup.objects.filter(pk=book.pk).update(name=name)
    client = log_in(*WRITES)
    form = client.get(to_them(client, book)).context["form"]
    page = str(form["group"])
    assert re.findall(r'<option value="[^"]*" selected>([^<]*)<', page) == [
        f"Contacts: {escape('Group “All”' if name == 'All' else name)}"
    ]
    data = {"group": form["group"].value(), "body": "Hello", "using": "default", "nonce": "n"}
    checked = client.post("/admin/django_smska/smsmessage/compose/", data)
    assert checked.context["number"] == 2


@pytest.mark.parametrize(
    "missing", ["send_smsmessage", "add_smsmessage", "see_number_smsmessage", "view_contact"]
)
def test_who_may_not_write_to_them_has_no_link(log_in, book, missing):
    lacks = {missing, "change_contact"} if missing == "view_contact" else {missing}
    assert to_them(log_in(*(set(WRITES) - lacks)), book) == ""


@pytest.mark.parametrize("setting", [{}, {"Clients": "shop.clients.all"}, 7])
def test_where_the_setting_does_not_offer_contacts_there_is_no_link(
    log_in, book, settings, setting
):
    settings.SMSKA_RECIPIENTS = setting
    assert to_them(log_in(*WRITES), book) == ""


@pytest.mark.parametrize("key", ["", "nothing", "\0"])
def test_a_group_that_is_not_offered_is_not_found(log_in, book, key):
    page = log_in(*WRITES).get("/admin/django_smska/smsmessage/compose/", {"group": key})
    assert "The group was not found." in html(page)
    assert not page.context["form"]["group"].value()

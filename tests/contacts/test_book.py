"""Contacts and groups as rows, as recipients, and as a person's data."""

import json
from io import StringIO

import pytest
from django.apps import apps
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import AnonymousUser, Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.utils.module_loading import import_string

from django_smska import personal_data
from django_smska.admin import clients
from django_smska.admin.permissions import CONTACTS_NAMES, gap_words, held
from django_smska.contacts import memberships
from django_smska.contacts.models import Contact, ContactGroup
from django_smska.contacts.recipients import contacts
from django_smska.models import SmsErasure
from tests import columns
from tests.documents import run as run_block

pytestmark = pytest.mark.django_db

NUMBER, OTHER = "+79134001020", "+79134001021"


def make(number, name="", *groups, **fields):
    made = Contact.objects.create(number=number, name=name, **fields)
    made.groups.set(groups)
    return made


def run(*arguments):
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


# --- rows


@pytest.mark.parametrize("written", ["8 (913) 400-10-20", "79134001020", "+7 913 400 10 20"])
def test_the_number_is_stored_as_e164(written):
    assert Contact.objects.get(pk=make(written).pk).number == NUMBER


@pytest.mark.parametrize("written", ["", "Анна", "8913400102", "+8913400102012345678"])
def test_what_is_no_number_is_refused_and_says_why(written):
    with pytest.raises(ValidationError) as refused:
        make(written, "Анна")
    assert list(refused.value.message_dict) == ["number"]
    assert not Contact.objects.exists()


def test_full_clean_makes_it_e164_before_it_is_compared():
    make(NUMBER)
    with pytest.raises(ValidationError, match="There is a contact with this number already"):
        Contact(number="8 913 400-10-20").full_clean()


def test_a_number_is_stored_once():
    make(NUMBER)
    with pytest.raises(IntegrityError), transaction.atomic():
        make("8 913 400-10-20")


@pytest.mark.parametrize("field", ["name", "note"])
def test_a_text_with_a_nul_is_refused(field):
    with pytest.raises(ValidationError) as refused:
        Contact(number=NUMBER, **{field: "Ан\0на"}).full_clean()
    assert list(refused.value.message_dict) == [field]


def test_neither_name_nor_whole_number_stands_in_its_representations():
    contact = Contact(number=NUMBER, name="Анна", pk=7)
    assert (str(contact), repr(contact)) == ("+7913•••1020", "<Contact 7 +7913•••1020>")


def test_groups_differ_by_case():
    """On every database: what is compared is what was typed."""
    ContactGroup.objects.create(name="vip")
    ContactGroup.objects.create(name="VIP")
    assert ContactGroup.objects.get(name="VIP").name == "VIP"


def test_a_contact_joins_and_leaves_once():
    group = ContactGroup.objects.create(name="Сад")
    keys = [make(NUMBER).pk, make(OTHER, "", group).pk]
    assert memberships.join(keys, group) == 1
    assert memberships.join(keys, group) == 0
    assert group.contacts.count() == 2
    assert memberships.take_out(keys[:1], group) == 1
    assert memberships.take_out(keys[:1], group) == 0
    assert group.contacts.get().number == OTHER


def test_the_code_of_the_guide():
    anna = run_block("howto/contacts", "Contact.objects.create")["anna"]
    assert anna.number == "+79041764995" and anna.groups.get().name == "Regulars"


# --- recipients


def test_the_setting_of_the_guide_names_them(settings):
    assert import_string(settings.SMSKA_RECIPIENTS["Contacts"]) is contacts


def test_recipients_are_all_and_those_of_each_group(user_with, django_assert_num_queries):
    vip, empty = (ContactGroup.objects.create(name=name) for name in ("VIP", "Сад"))
    make(NUMBER, "Анна", vip, note="не звонить")
    make(OTHER, "Борис")
    user = user_with("view_contact")
    user.has_perm("view_contact")
    with django_assert_num_queries(1):
        found = contacts(user)
    assert list(found) == ["All", "VIP", "Сад"]
    anna, boris = {"number": NUMBER, "name": "Анна"}, {"number": OTHER, "name": "Борис"}
    assert list(found["All"]) == [anna, boris]
    assert list(found["VIP"]) == [anna] and list(found["Сад"]) == []
    assert empty.contacts.count() == 0


def test_names_are_found_where_there_are_groups(user_with):
    """The order of the model must not get into the one query for all groups."""
    make(NUMBER, "Анна", ContactGroup.objects.create(name="VIP"))
    make(OTHER, "Борис", ContactGroup.objects.create(name="Сад"))
    user = user_with("view_contact", "see_number_smsmessage")
    assert clients.names(user, [NUMBER, OTHER]) == {NUMBER: "Анна", OTHER: "Борис"}
    assert clients.named(user, "нна").numbers == [NUMBER]


def test_a_group_that_is_called_like_all_of_them_is_another_choice(user_with):
    ContactGroup.objects.create(name="All")
    make(NUMBER)
    found = contacts(user_with("view_contact"))
    assert {label: len(rows) for label, rows in found.items()} == {"All": 1, "Group “All”": 0}


def test_who_may_not_see_contacts_gets_none(user_with):
    make(NUMBER)
    assert contacts(user_with("view_contactgroup")) == {}
    assert contacts(AnonymousUser()) == {}


# --- a person's data


def entry(user, contact, words):
    LogEntry.objects.create(
        user=user, content_type=ContentType.objects.get_for_model(Contact),
        object_id=str(contact.pk), object_repr=str(contact), action_flag=CHANGE,
        change_message=words,
    )  # fmt: skip


def test_the_file_of_a_person_has_the_contact():
    vip = ContactGroup.objects.create(name="VIP")
    make(NUMBER, "Анна", vip, note="звонить после обеда")
    make(OTHER, "Борис")
    [found] = json.loads(run("sms_person", "8 913 400-10-20"))
    assert found["record"] == "contact" and found["number"] == NUMBER
    assert (found["name"], found["note"], found["groups"]) == (
        "Анна",
        "звонить после обеда",
        ["VIP"],
    )


def test_an_erasure_deletes_the_contact_and_blanks_its_histories():
    user = User.objects.create_user("olga")
    anna = make(NUMBER, "Анна", ContactGroup.objects.create(name="VIP"))
    boris = make(OTHER, "Борис")
    entry(user, anna, "раньше Анна К.")
    entry(user, boris, "раньше Борис К.")
    entry(user, Contact(pk=anna.pk + 100, number=NUMBER), "прежняя запись")  # deleted long ago
    erasure = personal_data.erase("8 913 400-10-20", by="olga")
    assert erasure.details["deleted"] == {"smska_contacts.contact": 1}
    assert erasure.details["histories"] == 2 and erasure.details["finished"]
    assert [one.number for one in Contact.objects.all()] == [OTHER]
    assert memberships.Membership.objects.count() == 0
    left = list(LogEntry.objects.order_by("pk").values_list("object_repr", "change_message"))
    assert left == [
        ("SMS", ""),
        ("+7913•••1021", "раньше Борис К."),
        ("•••", "прежняя запись"),
    ]
    assert list(personal_data.records(NUMBER))[0]["record"] == "erasure"


def test_a_dry_run_counts_the_contact_and_keeps_it():
    make(NUMBER, "Анна")
    assert "Would delete 1 of smska_contacts.contact." in run(
        "sms_prune", "--number", NUMBER, "--dry-run"
    )
    assert Contact.objects.count() == 1
    assert "Deleted 1 of smska_contacts.contact." in run("sms_prune", "--number", NUMBER)
    assert "Deleted 0 of smska_contacts.contact." in run("sms_prune", "--number", NUMBER)


def test_the_admin_of_erasures_says_how_many(admin_client):
    make(NUMBER, "Анна")
    erasure = personal_data.erase(NUMBER)
    SmsErasure.objects.filter(pk=erasure.pk).update(
        details=erasure.details | {"deleted": {"smska_contacts.contact": 1, "gone.model": 2}}
    )
    page = admin_client.get(f"/admin/django_smska/smserasure/{erasure.pk}/change/").content.decode()
    assert "Deleted, contacts: 1" in page and "Deleted, gone.model: 2" in page


THIRD, THIRD_SPELT = "+79687315204", "8-968-731-52-04"


def test_a_number_that_staff_wrote_beside_others_is_handed_out_and_erased():
    first, second = (ContactGroup.objects.create(name=f"{one} VIP") for one in (THIRD, THIRD_SPELT))
    anna = make(NUMBER, f"Анна ({THIRD})", first, note="звонить после обеда")
    boris = make(OTHER, "Борис", note=f"муж, {THIRD_SPELT}")
    make(THIRD, "Вера", note=f"и {THIRD_SPELT}")
    records = json.loads(run("sms_person", THIRD))
    assert [one["record"] for one in records if one.get("number") == THIRD] == ["contact"]
    assert records[1:] == [
        {"record": "text of contact", "id": anna.pk, "name": f"Анна ({THIRD})"},
        {"record": "text of contact", "id": boris.pk, "note": f"муж, {THIRD_SPELT}"},
        {"record": "text of contactgroup", "id": first.pk, "name": f"{THIRD} VIP"},
        {"record": "text of contactgroup", "id": second.pk, "name": f"{THIRD_SPELT} VIP"},
    ]
    out = run("sms_prune", "--number", THIRD)
    assert f"Replaced the number in 2 of smska_contacts.contact: {anna.pk}, {boris.pk}." in out
    left = list(Contact.objects.order_by("pk").values_list("number", "name", "note"))
    assert left == [
        (NUMBER, "Анна (•••)", "звонить после обеда"), (OTHER, "Борис", "муж, •••"),
    ]  # fmt: skip
    names = ContactGroup.objects.order_by("pk").values_list("name", flat=True)
    assert list(names) == ["••• VIP", f"•••{second.pk} VIP"]
    assert [one["record"] for one in personal_data.records(THIRD)] == ["erasure"]


def test_the_log_of_a_group_that_is_gone_loses_the_number():
    group = ContactGroup.objects.create(name=f"Семья {THIRD_SPELT}")
    LogEntry.objects.log_actions(User.objects.create_user("olga").pk, [group], CHANGE, "Создана")
    group.delete()
    personal_data.erase(THIRD)
    entry = LogEntry.objects.get()
    assert (entry.object_repr, entry.change_message) == ("Семья •••", "Создана")


def test_each_column_of_text_was_decided_about():
    """It fails for a new column: is it handed out and erased, and does the guide say so?"""
    config = apps.get_app_config("smska_contacts")
    every = columns.of_text("smska_contacts")
    found = {model._meta.model_name: names for model, names in every.items()}
    searched = {name: set(columns) for name, columns in config.sms_free_texts.items()}
    assert found == {
        **searched,
        "contact": searched["contact"] | {"number"},
        "contact_groups": set(),
    }


# --- groups of users


def codenames(name):
    own = Group.objects.get(name=name).permissions.filter(content_type__app_label="smska_contacts")
    return set(own.values_list("codename", flat=True))


def test_sms_groups_gives_managers_the_contacts_and_lets_writers_see_them():
    run("sms_groups")
    assert codenames("SMS: viewers") == set()
    assert codenames("SMS: writers") == {"view_contact", "view_contactgroup"}
    assert codenames("SMS: managers") == set(CONTACTS_NAMES)
    assert "added" not in run("sms_groups")


def test_their_names_are_those_that_django_stores():
    stored = Permission.objects.filter(content_type__app_label="smska_contacts")
    assert dict(stored.values_list("codename", "name")) == CONTACTS_NAMES


def test_permissions_for_groups_of_contacts_are_named_clearly():
    """Their permissions have the same names in the database."""
    out = run("sms_groups")
    assert "added: Can add contact group\n" in out and "Can add group" not in out
    users = Permission.objects.get(codename="add_group")
    contacts = Permission.objects.get(codename="add_contactgroup")
    Group.objects.get(name="SMS: writers").permissions.add(users, contacts)
    out = run("sms_groups")
    assert "has more: Can add group (auth.add_group)\n" in out
    assert "has more: Can add contact group (smska_contacts.add_contactgroup)\n" in out


def test_whole_numbers_are_of_use_to_who_sees_contacts_alone(user_with):
    assert list(gap_words(held(user_with("see_number_smsmessage"))))
    assert not list(gap_words(held(user_with("see_number_smsmessage", "view_contact"))))

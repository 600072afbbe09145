"""``manage.py sms_groups``, and what a user in each of its groups can do in the admin."""

from io import StringIO

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.contrib.messages.storage.cookie import CookieStorage
from django.core.management import CommandError, call_command
from django.test import RequestFactory

from django_smska.admin import permissions
from django_smska.admin.permissions import GROUPS, NAMES
from django_smska.models import SmsMessage

from .documents import run
from .test_admin_permissions import TABLE, Who, problems

pytestmark = pytest.mark.django_db

VIEWERS, WRITERS, MANAGERS = "SMS: viewers", "SMS: writers", "SMS: managers"


def made(*args):
    out = StringIO()
    call_command("sms_groups", *args, stdout=out)
    return out.getvalue()


def codenames(name):
    return set(Group.objects.get(name=name).permissions.values_list("codename", flat=True))


# --- the command


def test_it_makes_three_groups_and_says_which_permissions_they_have():
    out = made()
    assert list(Group.objects.order_by("pk").values_list("name", flat=True)) == [
        VIEWERS,
        WRITERS,
        MANAGERS,
    ]
    for name, (_, wanted) in zip((VIEWERS, WRITERS, MANAGERS), GROUPS.values(), strict=True):
        assert codenames(name) == set(wanted)
    assert out.startswith(
        "SMS: viewers: made.\n"
        "  added: Can view SMS message\n"
        "  added: Can view SMS provider\n"
        "SMS: writers: made.\n"
    )
    assert "has" not in out.replace("whole", "") and "note" not in out


def test_each_has_all_of_the_one_before_it():
    viewers, writers, managers = (set(wanted) for _, wanted in GROUPS.values())
    assert viewers < writers < managers < set(NAMES)
    assert set(NAMES) - managers == {"delete_smsmessage", "delete_smsinbound"}


def test_a_second_run_changes_nothing():
    made()
    before = {name: codenames(name) for name in (VIEWERS, WRITERS, MANAGERS)}
    out = made()
    assert {name: codenames(name) for name in before} == before and Group.objects.count() == 3
    assert "made" not in out and "added" not in out
    assert "SMS: viewers: was there.\n  has: Can view SMS message\n" in out


def test_it_adds_what_is_missing_and_takes_nothing_away():
    made()
    group = Group.objects.get(name=WRITERS)
    group.permissions.remove(Permission.objects.get(codename="send_smsmessage"))
    more = Permission.objects.filter(codename__in=["change_smsmessage", "view_user"])
    group.permissions.add(*more)
    out = made()
    assert "  added: Can send SMS messages\n" in out and out.count("added") == 1
    assert "  has more: Can change SMS message (django_smska.change_smsmessage)\n" in out
    assert "  has more: Can view user (auth.view_user)\n" in out
    assert codenames(WRITERS) == {*GROUPS["writers"][1], "change_smsmessage", "view_user"}


def test_what_is_of_no_use_in_a_changed_group_is_named():
    made()
    stop = Permission.objects.get(codename="delete_smsoptout")
    Group.objects.get(name=VIEWERS).permissions.add(stop)
    words = "“Can delete do-not-send entry” is of no use without “Can view do-not-send entry”."
    assert f"  note: {words}\n" in made()


def test_the_names_may_be_given():
    out = made("--viewers", "Склад", "--writers", " Кассиры ", "--managers", "Директор")
    assert set(Group.objects.values_list("name", flat=True)) == {"Склад", "Кассиры", "Директор"}
    assert "Кассиры: made." in out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--viewers", "X", "--writers", "X"], "three different names"),
        (["--viewers", MANAGERS], "three different names"),
        (["--viewers", "x" * 151], "at most 150 characters"),
    ],
)
def test_names_that_cannot_be_are_refused_and_nothing_is_made(args, words):
    with pytest.raises(CommandError, match=words):
        made(*args)
    assert not Group.objects.exists()


def test_a_group_named_in_another_language_is_found(monkeypatch, settings):
    """``LANGUAGE_CODE`` was changed after the first run."""
    from django_smska.management.commands import sms_groups

    monkeypatch.setattr(sms_groups, "_in_language", lambda language, group: f"{group} {language}")
    settings.LANGUAGE_CODE = "ru"
    made()
    settings.LANGUAGE_CODE = "en"
    assert "viewers ru: was there." in made()
    assert set(Group.objects.values_list("name", flat=True)) == {f"{one} ru" for one in GROUPS}


def test_where_migrate_was_not_finished_it_says_so():
    Permission.objects.filter(codename="release_smsmessage").delete()
    with pytest.raises(CommandError, match="release_smsmessage. Run 'manage.py migrate'"):
        made()
    assert not Group.objects.exists()


def test_without_the_app_of_groups_it_says_so(monkeypatch):
    known = apps.is_installed
    monkeypatch.setattr(apps, "is_installed", lambda app: known(app) and "auth" not in app)
    with pytest.raises(CommandError, match=r"django\.contrib\.auth"):
        made()


# --- their names in the admin of users and groups


@pytest.fixture
def with_names():
    """Let the admins of the documentation stand in for Django's."""
    registered = dict(admin.site._registry)
    yield run("howto/admin", "SmsPermissionsMixin")
    admin.site._registry = registered


def labels_of(model, user):
    """Return the permissions that the form of a user or of a group offers, as it names them."""
    request = RequestFactory().get("/")
    request.user = user
    row = user if model is User else Group(name="shop")
    form = admin.site._registry[model].get_form(request, row, change=True)(instance=row)
    field = "permissions" if model is Group else "user_permissions"
    return [label for _, label in form.fields[field].choices]


@pytest.mark.parametrize("model", [Group, User])
def test_they_are_in_the_language_of_the_reader(with_names, monkeypatch, model):
    boss = User.objects.create_superuser("boss")
    Permission.objects.filter(codename="export_smsmessage").update(name="May fetch Excel")
    monkeypatch.setattr(permissions, "gettext", lambda words: f"«{words}»")
    labels = labels_of(model, boss)
    assert "SMS | SMS message | «Can send SMS messages»" in labels
    assert "SMS | SMS provider | «Can stop and resume sending»" in labels
    assert "SMS | SMS message | May fetch Excel" in labels
    assert "Authentication and Authorization | user | Can add user" in labels
    assert sum("«" in label for label in labels) == len(NAMES) - 1


@pytest.mark.parametrize("model", [Group, User])
def test_their_content_types_are_not_looked_up_one_by_one(
    with_names, django_assert_max_num_queries, model
):
    boss = User.objects.create_superuser("boss")
    ContentType.objects.clear_cache()
    with django_assert_max_num_queries(5):
        assert labels_of(model, boss)


def save(model, pk, data):
    """Save a group or a user in these admins; return the warnings that are shown."""
    boss = User.objects.create_superuser("boss")
    request = RequestFactory().post("/", data)
    request.user, request._dont_enforce_csrf_checks = boss, True
    request.session, request._messages = {}, CookieStorage(request)
    response = admin.site._registry[model].changeform_view(request, str(pk))
    assert response.status_code == 302
    return [str(one) for one in request._messages if one.level_tag == "warning"]


def keys(*codenames):
    return list(Permission.objects.filter(codename__in=codenames).values_list("pk", flat=True))


OF_NO_USE = "“Can export SMS messages” is of no use without “Can view SMS message”."


def test_who_saves_a_group_reads_which_of_its_permissions_are_of_no_use(with_names):
    group = Group.objects.create(name="Бухгалтерия")
    data = {"name": "Бухгалтерия", "permissions": keys("export_smsmessage", "view_user")}
    assert save(Group, group.pk, data) == [OF_NO_USE]
    assert codenames("Бухгалтерия") == {"export_smsmessage", "view_user"}


@pytest.mark.parametrize(("given", "said"), [((), [OF_NO_USE]), (("view_smsmessage",), [])])
def test_who_saves_a_user_reads_it_unless_a_group_has_the_other(with_names, given, said):
    """The user had the other one before, directly."""
    group = Group.objects.create(name="Смена")
    group.permissions.set(keys(*given))
    user = User.objects.create_user("nina", is_staff=True)
    user.user_permissions.set(keys("view_smsmessage"))
    data = {"username": "nina", "is_active": "on", "is_staff": "on", "groups": [group.pk]}
    data |= {"date_joined_0": "2026-11-30", "date_joined_1": "10:00"}
    data |= {"user_permissions": keys("export_smsmessage")}
    assert save(User, user.pk, data) == said


# --- what they can do

#: What each group can do, in addition to the one before it: the buttons of each page.
TASKS = {
    "viewers": {
        "smsmessage/": "GET",
        "smsmessage/<pk>/change/": "GET",
        "smsmessage/<pk>/history/": "GET",
        "smsmessage/statistics/": "GET",
        "smsmailing/": "GET",
        "smsmailing/<pk>/change/": "GET",
        "smsmailing/<pk>/history/": "GET",
        "smsmailing/<pk>/progress/": "GET",
        "smsmailing/<pk>/statistics/": "GET",
        "providerstate/": "GET",
        "providerstate/<pk>/change/": "GET",
        "providerstate/<pk>/history/": "GET",
    },
    "writers": {
        "smsmessage/": "send_selected refresh_selected",
        "smsmailing/<pk>/stop/": "POST",
        "smsmailing/<pk>/resume/": "GET POST",
        "smsmessage/compose/": (
            "GET _check _back _use_template _correct _leave_out _test _send _save"
        ),
        "smstemplate/": "GET",
        "smstemplate/<pk>/change/": "GET",
        "smstemplate/<pk>/history/": "GET",
        "smsmessage/add/": "GET _save _continue _addanother _send",
        "smsmessage/<pk>/change/": "_saveasnew",
        "smsmessage/send/": "GET POST",
        "smsmessage/refresh/": "GET POST",
        "smsinbound/": "GET",
        "smsinbound/<pk>/change/": "GET",
        "smsinbound/<pk>/history/": "GET",
    },
    "managers": {
        "smsmessage/": "cancel_selected confirm_sent_selected resend_selected export_selected",
        "smsmessage/<pk>/change/": "_save _continue _send",
        "smsmessage/cancel/": "GET POST",
        "smsmessage/confirm_sent/": "GET POST",
        "smsmessage/resend/": "GET POST",
        "smsmessage/export/": "GET _xlsx _csv",
        "smsmailing/<pk>/resend/": "GET POST",
        "smsmessage/held/": "GET _release _cancel",
        "providerstate/stop/": "GET _stop _resume",
        "providerstate/balances/": "GET _ask",
        "smsoptout/": "GET",
        "smsoptout/add/": "GET _save _continue _addanother",
        "smsoptout/<pk>/change/": "GET _saveasnew",
        "smsoptout/<pk>/history/": "GET",
        "smsoptout/<pk>/delete/": "GET POST",
        "smsoptout/import/": "GET _check _correct _back _add",
        "smstemplate/add/": "GET _save _continue _addanother",
        "smstemplate/<pk>/change/": "_save _continue _addanother",
        "smstemplate/<pk>/delete/": "GET POST",
        "smserasure/": "GET",
        "smserasure/<pk>/change/": "GET",
        "smserasure/<pk>/history/": "GET",
    },
}


def tasks(group):
    """Yield each URL and way that the members of the group may use."""
    for name, own in TASKS.items():
        yield from ((url, way) for url, ways in own.items() for way in ways.split())
        if name == group:
            return


@pytest.fixture
def log_in(client):
    def log_in(group):
        made()
        client.user = User.objects.create_user("rita", is_staff=True)
        client.user.groups.add(Group.objects.get(name=str(GROUPS[group][0])))
        client.force_login(client.user)
        return client

    return log_in


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_a_member_can_do_the_tasks_of_the_group_and_no_others(
    log_in, group, django_capture_on_commit_callbacks
):
    """By requests to every page, with every button."""
    client, who = log_in(group), Who(frozenset(GROUPS[group][1]))
    found = [
        f"{cell}: {problem}"
        for cell in TABLE
        for problem in problems(client, cell, who, django_capture_on_commit_callbacks)
    ]
    assert not found, "\n".join(["", *found])
    # Each other answer is the same to all: it redirects from an old address.
    allowed = {(one.url, one.way) for one in TABLE if who.may(one) and one.needs}
    assert allowed == set(tasks(group))


@pytest.mark.parametrize("group", ["writers", "managers"])
def test_who_writes_sees_what_was_written(log_in, group):
    client = log_in(group)
    form = {"numbers": "8 921 555-01-23", "body": "Ключ у соседей", "using": "default"}
    form |= {"nonce": "of the test", "_send": "1"}
    page = client.post("/admin/django_smska/smsmessage/compose/", form, follow=True)
    assert "Ключ у соседей" in page.content.decode()
    assert "+7 921 555-01-23" in page.content.decode()


def test_a_viewer_sees_neither_text_nor_number(log_in):
    client = log_in("viewers")
    message = SmsMessage(to="+79215550123", body="Ключ у соседей")
    message.save()
    for page in ("", f"{message.pk}/change/", f"{message.pk}/history/"):
        words = client.get(f"/admin/django_smska/smsmessage/{page}").content.decode()
        assert "соседей" not in words and "5550123" not in words

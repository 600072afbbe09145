"""The page for a user who lacks a permission, and the sentences about permissions of no use."""

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.test import override_settings

from django_smska.admin import opt_outs, permissions
from django_smska.admin.permissions import GROUPS, NAMES, gaps
from django_smska.models import SmsMessage, SmsOptOut

pytestmark = pytest.mark.django_db

START = "/admin/django_smska/"
LIST = f"{START}smsmessage/"
NUMBER, TEXT = "+79167770042", "Столик на двоих в 19:30"


def log_in(client, *codenames):
    user = User.objects.create_user("olga", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client.force_login(user)
    return client


def page_of(response):
    return response.content.decode()


def draft():
    message = SmsMessage(to=NUMBER, body=TEXT)
    message.save()
    return message


# --- the page


@pytest.mark.parametrize("page", ["", "compose/", "export/", "statistics/", "add/", "held/"])
def test_a_refusal_is_a_page_of_the_admin_that_names_what_is_missing(client, page):
    draft()
    response = log_in(client).get(f"{LIST}{page}")
    words = page_of(response)
    assert response.status_code == 403
    assert "<h1>You may not do this</h1>" in words and 'id="site-name"' in words
    assert response.context["missing"]
    for name in response.context["missing"]:
        assert f"<strong>{name}</strong>" in words
    assert "Ask your administrator for what you need." in words
    assert 'href="/admin/" class="closelink"' in words


def test_it_names_only_what_is_missing_and_leads_back_to_what_may_be_seen(client):
    response = log_in(client, "view_smsmessage", "send_smsmessage").get(f"{LIST}compose/")
    assert response.context["missing"] == ["Can add SMS message"]
    assert f'href="{LIST}" class="closelink"' in page_of(response)


def test_it_reads_no_variable_that_is_not_set(client, settings):
    """For such a one Django logs all variables."""
    [engine] = settings.TEMPLATES
    strict = engine | {"OPTIONS": engine["OPTIONS"] | {"string_if_invalid": "!!invalid!!"}}
    with override_settings(TEMPLATES=[strict]):
        mine = log_in(client, "view_smsmessage", "stop_providerstate")
        for page in ("smsmessage/compose/", "smserasure/", "providerstate/add/", "smsoptout/"):
            assert "!!invalid!!" not in page_of(mine.get(f"{START}{page}"))


@pytest.mark.slow
def test_it_shows_nothing_of_the_message(client):
    pk = draft().pk
    for page in ("change", "history", "delete"):
        words = page_of(log_in(client).get(f"{LIST}{pk}/{page}/"))
        assert not any(one in words for one in (NUMBER[1:], NUMBER[-4:], TEXT, "Столик"))
        User.objects.all().delete()


@pytest.mark.parametrize("model", ["smserasure", "smsinbound", "providerstate"])
def test_where_no_permission_helps_it_says_so(client, model):
    client.force_login(User.objects.create_superuser("boss"))
    response = client.get(f"{START}{model}/add/")
    assert response.status_code == 403
    assert "You lack no permission<" in page_of(response)
    assert "Ask your administrator" not in page_of(response)


def test_a_message_that_cannot_be_deleted_is_no_matter_of_permissions(client):
    message = draft()
    values = {"status": "delivered", "expires_at": message.created_at}
    SmsMessage.objects.filter(pk=message.pk).update(**values)
    mine = log_in(client, "view_smsmessage", "delete_smsmessage")
    response = mine.get(f"{LIST}{message.pk}/delete/")
    assert response.status_code == 403 and response.context["missing"] == []
    assert "You lack no permission<" in page_of(response)


def test_a_template_of_the_site_for_403_is_theirs(client, settings, tmp_path):
    (tmp_path / "403.html").write_text("The shop is closed.")
    [engine] = settings.TEMPLATES
    with override_settings(TEMPLATES=[{**engine, "DIRS": [tmp_path]}]):
        mine = log_in(client)  # and so are refusals of other pages of the admin
        assert page_of(mine.get("/admin/auth/user/")) == "The shop is closed."
        assert "The shop is closed." not in page_of(mine.get(LIST))


def test_who_is_not_logged_in_gets_the_form_to_log_in(client):
    assert "/admin/login/" in client.get(LIST)["Location"]


def test_what_the_site_itself_refuses_gets_no_page_of_ours(client, monkeypatch):
    """An admin that lets in a few addresses alone, say."""
    answers = iter([PermissionDenied, False])

    def has_permission(request):
        answer = next(answers)
        if answer is PermissionDenied:
            raise answer("not from here")
        return answer

    monkeypatch.setattr(admin.site, "has_permission", has_permission)
    response = client.get(LIST)
    assert response.status_code == 403 and "SMS" not in page_of(response)


def test_a_name_that_the_project_gave_is_used(client):
    Permission.objects.filter(codename="export_smsmessage").update(name="May fetch Excel")
    response = log_in(client, "view_smsmessage").get(f"{LIST}export/")
    assert response.context["missing"] == ["May fetch Excel"]


@pytest.mark.django_db(transaction=True)
def test_what_a_refused_request_stored_is_undone(client, monkeypatch):
    """Django does it at an exception, with ATOMIC_REQUESTS; here there is a page instead."""

    def store(request, model_admin):
        SmsOptOut.objects.create(number=NUMBER, number_hash="of this test")
        raise PermissionDenied

    monkeypatch.setattr(opt_outs, "_import", store)
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    client.force_login(User.objects.create_superuser("boss"))
    assert client.get(f"{START}smsoptout/import/").status_code == 403
    assert not SmsOptOut.objects.exists()


# --- names


def test_the_names_are_those_that_django_stores():
    stored = Permission.objects.filter(content_type__app_label="django_smska")
    assert dict(stored.values_list("codename", "name")) == NAMES


# --- permissions of no use


@pytest.mark.parametrize("name", GROUPS)
def test_no_group_has_a_gap(name):
    assert gaps(GROUPS[name][1]) == {}


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ("", {}),
        ("view_smsmessage", {}),
        ("send_smsmessage", {"send_smsmessage": "view_smsmessage"}),
        ("add_smsmessage send_smsmessage", {"send_smsmessage": "view_smsmessage"}),
        ("change_smsmessage resend_smsmessage", {}),
        ("add_smsmessage", {}),
        ("see_number_smsmessage", {"see_number_smsmessage": "view_smsmessage"}),
        ("see_number_smsmessage view_smsinbound", {}),
        ("see_text_smsmessage view_smsoptout", {"see_text_smsmessage": "view_smsmessage"}),
        ("view_smsmessage stop_providerstate", {"stop_providerstate": "view_providerstate"}),
        ("delete_smsinbound", {"delete_smsinbound": "view_smsinbound"}),
    ],
)
def test_a_permission_without_the_one_that_it_lacks_is_a_gap(has, expected):
    assert gaps(has.split()) == expected


def test_without_gaps_nothing_is_looked_up(django_assert_num_queries):
    with django_assert_num_queries(0):
        assert list(permissions.gap_words(["view_smsmessage"])) == []


@pytest.mark.slow
def test_a_list_says_which_permission_is_of_no_use(client):
    mine = log_in(client, "view_smsmessage", "stop_providerstate")
    said = "“Can stop and resume sending” is of no use without “Can view SMS provider”."
    assert f"{said} Ask your administrator." in page_of(mine.get(LIST))
    assert page_of(mine.get(LIST)).count(said) == 1
    assert said in page_of(mine.get(f"{START}providerstate/"))


def test_a_refusal_says_which_permission_is_of_no_use(client):
    response = log_in(client, "resend_smsmessage").get(LIST)
    said = "“Can decide about and resend SMS messages” is of no use without “Can view SMS message”."
    assert response.status_code == 403 and said in page_of(response)


def test_who_has_all_that_is_needed_reads_nothing_of_it(client):
    mine = log_in(client, *GROUPS["managers"][1])
    assert "is of no use" not in page_of(mine.get(LIST))

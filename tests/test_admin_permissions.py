"""Who may do what in the admin: every URL and action, by every kind of user, by GET and POST."""

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.urls import reverse

from django_smska.admin.actions import ACTIONS
from django_smska.models import SmsMessage
from django_smska.sms import outbox

pytestmark = pytest.mark.django_db

NAME = "django_smska_smsmessage_"
ROLES = {
    "anonymous": None,
    "no permissions": (),
    "view": ("view",),
    "add": ("add",),
    "change": ("change", "see_text", "see_number"),
    "change unseen": ("change",),
    "send": ("view", "send"),
    "refresh": ("view", "refresh"),
    "resend": ("view", "resend"),
    "export": ("view", "export"),
    "delete": ("view", "delete"),
    "compose": ("view", "add", "send"),
    "all but view": ("add", "delete", "send", "refresh", "resend", "export"),
    "see the text": ("view", "send", "see_text"),
    "see the number": ("view", "send", "see_number"),
    "superuser": (
        *("view", "add", "change", "delete", "send", "refresh", "resend"),
        *("see_text", "see_number", "export"),
    ),
}

#: Each URL: who sees it, as sets of permissions of which all are needed; and the status of the
#: message with which its action can be done.
SEES = ({"view"}, {"change"})
NEEDS = {
    "changelist": (SEES, None),
    "add": (({"add"},), None),
    "history": (SEES, None),
    "delete": (({"delete"},), "draft"),
    "change": (SEES, None),
    "send": (({"view", "send"},), "draft"),
    "refresh": (({"view", "refresh"},), "sent"),
    "confirm_sent": (({"view", "resend"},), "unknown"),
    "resend": (({"view", "resend"},), "unknown"),
    "cancel": (({"change"},), "draft"),
    "compose": (({"view", "add", "send"},), None),
    "export": (({"view", "export"},), None),
    "statistics": (SEES, None),
}
OWN = {action.name for action in ACTIONS}


@pytest.fixture
def log_in(client):
    def log_in(role):
        if ROLES[role] is not None:
            user = User.objects.create_user("colleague", is_staff=True)
            user.is_superuser = role == "superuser"
            user.save()
            codenames = [f"{name}_smsmessage" for name in ROLES[role]]
            user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
            client.force_login(user)
        return client

    return log_in


def make(status):
    message = SmsMessage(to="89041764995", body="The text")
    message.save()
    SmsMessage.objects.filter(pk=message.pk).update(
        status=status, expires_at=message.created_at, gateway_id="g1" if status == "sent" else ""
    )
    return message


def allowed(role, name):
    return ROLES[role] is not None and any(needed <= set(ROLES[role]) for needed in NEEDS[name][0])


def address(name, message):
    if name in OWN:
        return reverse(f"admin:{NAME}{name}") + f"?pks={message.pk}"
    whole = ("changelist", "add", "compose", "export", "statistics")
    args = [] if name in whole else [message.pk]
    return reverse(f"admin:{NAME}{name}", args=args)


def everything():
    return list(SmsMessage.objects.order_by("pk").values()), len(outbox)


def refused(response, role):
    if role == "anonymous":
        return response.status_code == 302 and "/login/" in response["Location"]
    return response.status_code == 403


def test_every_url_is_in_the_matrix():
    """A URL that is added to the admin must be added to the table above."""
    urls = admin.site._registry[SmsMessage].get_urls()
    assert {url.name.removeprefix(NAME) for url in urls if url.name} == set(NEEDS)


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", NEEDS)
def test_get_shows_the_page_or_refuses_and_changes_nothing(log_in, name, role):
    message = make(NEEDS[name][1] or "draft")
    before = everything()
    response = log_in(role).get(address(name, message))
    assert response.status_code == 200 if allowed(role, name) else refused(response, role)
    assert everything() == before


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", sorted(OWN))
def test_post_does_the_action_or_refuses(log_in, name, role):
    message = make(NEEDS[name][1])
    before = everything()
    response = log_in(role).post(address(name, message), {"pks": str(message.pk)})
    if allowed(role, name):
        assert response.status_code == 302 and everything() != before
    else:
        assert refused(response, role) and everything() == before


@pytest.mark.parametrize("role", ROLES)
def test_post_edits_a_draft_only_with_change_permission(log_in, role):
    message = make("draft")
    before = everything()
    data = {
        "to": "+79041764995",
        "body": "Changed",
        "using": "default",
        "priority": "0",
        "send_after_0": "2026-01-01",
        "send_after_1": "12:00",
        "_save": "1",
    }
    response = log_in(role).post(address("change", message), data)
    if {"change", "see_text", "see_number"} <= set(ROLES[role] or ()):
        assert response.status_code == 302 and everything() != before
    else:
        assert refused(response, role) and everything() == before


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("button", ["_save", "_send"])
def test_post_adds_only_with_add_and_sends_only_with_send_permission(
    log_in, role, button, django_capture_on_commit_callbacks
):
    data = {
        "to": "89041764995",
        "body": "New",
        "using": "default",
        "priority": "0",
        "send_after_0": "2026-01-01",
        "send_after_1": "12:00",
        button: "1",
    }
    has = set(ROLES[role] or ())
    may = "add" in has and (button == "_save" or {"view", "send"} <= has)
    with django_capture_on_commit_callbacks(execute=True):
        response = log_in(role).post(reverse(f"admin:{NAME}add"), data)
    assert response.status_code == 302 if may else refused(response, role)
    assert SmsMessage.objects.count() == int(may)
    assert len(outbox) == int(may and button == "_send")


def test_every_action_is_listed_too():
    actions = admin.site._registry[SmsMessage].actions
    assert set(actions) == {f"{name}_selected" for name in {*OWN, "export"}}


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("action", [*sorted(OWN), "export", "delete"])
def test_an_action_shows_a_page_to_whom_it_is_offered_and_does_nothing_yet(log_in, action, role):
    message = make(NEEDS[action][1] or "draft")
    before = everything()
    name = "delete_selected" if action == "delete" else f"{action}_selected"
    data = {"action": name, "_selected_action": message.pk, "post": "yes"}
    response = log_in(role).post(reverse(f"admin:{NAME}changelist"), data)
    if action != "delete" and allowed(role, action):
        assert response.status_code == 200 and b'name="pks"' in response.content
    elif allowed(role, "changelist"):
        assert response.status_code in (200, 302) and b'name="pks"' not in response.content
    else:
        assert refused(response, role)
    assert everything() == before


@pytest.mark.parametrize("status", ["draft", "queued", "sent", "delivered", "unknown"])
def test_the_buttons_of_a_page_are_those_that_the_user_may_press(log_in, status):
    """Who may only view sees none, and no field to type into."""
    page = log_in("view").get(address("change", make(status))).content.decode()
    assert not any(f"/{name}/?pks=" in page for name in OWN)
    assert '<input type="submit"' not in page and "<textarea" not in page


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
def test_post_deletes_only_with_permission_and_only_what_was_never_sent(log_in, role):
    client = log_in(role)
    for status in ("draft", "cancelled", "queued", "sent", "unknown", "failed"):
        message = make(status)
        response = client.post(address("delete", message), {"post": "yes"})
        goes = "delete" in (ROLES[role] or ()) and status in ("draft", "cancelled")
        assert response.status_code == 302 if goes else refused(response, role)
        assert SmsMessage.objects.filter(pk=message.pk).exists() is not goes


@pytest.mark.parametrize("role", [role for role in ROLES if role != "anonymous"])
def test_providers_are_only_read(log_in, role):
    from django_smska.models import ProviderState

    ProviderState.objects.create(alias="default", reason="funds")
    client = log_in(role)
    urls = {
        name: reverse(f"admin:django_smska_providerstate_{name}", args=args)
        for name, args in {"changelist": [], "add": [], "change": ["default"]}.items()
    }
    sees = role == "superuser"
    assert client.get(urls["changelist"]).status_code == (200 if sees else 403)
    assert client.get(urls["change"]).status_code == (200 if sees else 403)
    assert client.get(urls["add"]).status_code == 403
    assert client.post(urls["change"], {"reason": ""}).status_code == 403
    assert ProviderState.objects.get().reason == "funds"


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("status", ["draft", "unknown"])
def test_no_page_shows_a_text_or_a_whole_number_without_its_permission(log_in, role, status):
    message, client, has = make(status), log_in(role), set(ROLES[role] or ())
    for name in NEEDS:
        page = client.get(address(name, message), follow=True).content.decode()
        if "see_text" not in has:
            assert "The text" not in page, name
        if "see_number" not in has:
            assert "9041764995" not in page, name
        if name in ("changelist", "change") and allowed(role, name):
            assert ("The text" in page) == ("see_text" in has), name
            assert ("9041764995" in page) == ("see_number" in has), name
            assert "4995" in page, name

"""How an action is done: the confirmation page and its POST agree."""

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError

from django_smska.admin import SmsMessageAdmin, actions
from django_smska.admin.actions import ACTIONS, Mode
from django_smska.models import SmsMessage, rows
from django_smska.sms import outbox
from tests.test_admin import LIST, choose, make, post

BY_NAME = {action.name: action for action in ACTIONS}

pytestmark = pytest.mark.django_db


@pytest.fixture
def boss(client):
    client.force_login(User.objects.create_superuser("boss"))
    return client


@pytest.fixture(autouse=True)
def limits(settings, monkeypatch):
    settings.SMSKA_SEND_AT_ONCE = 2
    monkeypatch.setattr(actions, "MAX_ONE_BY_ONE", 3)
    monkeypatch.setattr(actions, "MAX_KEYS", 4)


@pytest.mark.parametrize("name", ["send", "refresh", "cancel"])
def test_few_are_done_now_more_are_queued_and_too_many_are_refused(name):
    modes = [BY_NAME[name].mode(number) for number in range(6)]
    assert modes == [*[Mode.NOW] * 3, *[Mode.QUEUE] * 2, Mode.REFUSED]


@pytest.mark.parametrize("name", ["confirm_sent", "resend"])
def test_what_no_worker_does_is_never_queued(name):
    assert [BY_NAME[name].mode(number) for number in range(5)] == [Mode.NOW] * 4 + [Mode.REFUSED]


@pytest.mark.parametrize("drafts", range(1, 5))
@pytest.mark.parametrize("queued", [0, 1, 3])
def test_the_post_does_what_the_page_says(boss, drafts, queued):
    """Also where the queued ones among many are skipped, so that few enough for now are left."""
    messages = [*(make() for _ in range(drafts)), *(make("queued") for _ in range(queued))]
    response = choose(boss, "send", *messages)
    if drafts + queued > 4:
        assert response.status_code == 302
        return
    page, plan = response.content.decode(), response.context["plan"]
    assert plan.mode is not Mode.REFUSED
    assert ("Sending starts at once" in page) == (plan.mode is Mode.NOW)
    texts = boss.post(f"{LIST}send/", {"pks": plan.pks}, follow=True).context["messages"]
    text, *more = map(str, texts)
    waits = plan.mode is not Mode.NOW  # and no worker is seen
    assert [one for one in more if "no worker is sending them" not in one] == []
    assert len(more) == waits
    first = "Sent: " if plan.mode is Mode.NOW else "Queued for sending: "
    count = f"{plan.number} messages (" if plan.number > 1 else "<a "
    assert text.startswith(f"{first}{count}")
    assert len(outbox) == (plan.number if plan.mode is Mode.NOW else 0)


@pytest.mark.parametrize(
    ("name", "status", "most"), [("send", "draft", 4), ("resend", "unknown", 3)]
)
def test_a_post_with_too_many_does_nothing(boss, name, status, most):
    """No page sends one, but a POST that is written by hand is bounded, too."""
    messages = [make(status) for _ in range(6)]
    assert post(boss, name, *messages) == [f"Select at most {most} messages; a filter can help."]
    assert set(SmsMessage.objects.values_list("status", flat=True)) == {status}
    assert SmsMessage.objects.count() == 6 and not outbox


def test_a_database_that_goes_away_after_the_action_hides_no_outcome(boss, monkeypatch, caplog):
    def fail(aliases):
        raise OperationalError("server closed the connection")

    messages = [make() for _ in range(3)]
    monkeypatch.setattr("django_smska.admin.waiting.of_providers", fail)
    [text] = post(boss, "send", *messages)
    assert text.startswith("Queued for sending: 3 messages (")
    assert "why messages wait is not known: OperationalError" in caplog.text


class TestOutcomesNameRecipients:
    """No key says anything to a person. A cookie may carry the words, so the numbers are masked."""

    @pytest.mark.parametrize(
        ("name", "status", "start"),
        [
            ("send", "draft", "Sent"),
            ("send", "delivered", "Skipped"),
            ("refresh", "sent", "No final status yet"),
            ("cancel", "queued", "Cancelled"),
            ("confirm_sent", "unknown", "Marked as sent"),
        ],
    )
    def test_one_message(self, boss, name, status, start):
        message = make(status)
        words = f'<a href="{LIST}{message.pk}/change/">SMS to +7904•••4995</a>'
        assert post(boss, name, message)[0].startswith(f"{start}: {words}. ")

    def test_a_message_that_is_sent_again_leads_to_the_new_one(self, boss):
        words = post(boss, "resend", make("unknown"))[0]
        again = SmsMessage.objects.exclude(resend_of=None).get()
        assert words.startswith(
            f'Queued again: <a href="{LIST}{again.pk}/change/">SMS to +7904•••4995</a>.'
        )

    def test_several_sent_again_have_one_sentence(self, boss):
        words = post(boss, "resend", make("unknown"), make("unknown", "89041764996"))
        new = list(SmsMessage.objects.exclude(resend_of=None).order_by("pk"))
        links = [f'<a href="{LIST}{one.pk}/change/">+7904•••{one.to[-4:]}</a>' for one in new]
        assert words[0] == f"Queued again: 2 messages ({', '.join(links)}). "

    def test_an_erased_message(self, boss):
        message = make("sent")
        rows([message.pk]).update(to="", body="")
        assert ">SMS to (erased)</a>" in post(boss, "cancel", message)[0]

    def test_without_the_database_the_keys_are_enough(self, boss, monkeypatch, caplog):
        chosen = SmsMessageAdmin._chosen

        def gone_after_the_action(self, request, keys):
            if outbox:
                raise OperationalError("server closed the connection")
            return chosen(self, request, keys)

        monkeypatch.setattr(SmsMessageAdmin, "_chosen", gone_after_the_action)
        message = make()
        assert post(boss, "send", message)[0].startswith("Sent: 1 message (")
        assert len(outbox) == 1
        assert "the recipients of messages are not known: OperationalError" in caplog.text

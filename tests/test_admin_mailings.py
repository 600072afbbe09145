"""The admin's pages of mailings: what they show, and what their buttons do."""

import re
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.urls import resolve, reverse
from django.utils.timezone import now

from django_smska import circuit_breaker, mailing_counts
from django_smska.exceptions import GatewayUnreachable
from django_smska.models import SmsMailing, SmsMessage
from django_smska.opt_out import opt_out
from django_smska.sms import send_mass_sms

pytestmark = pytest.mark.django_db

LIST = "/admin/django_smska/smsmailing/"
MESSAGES = "/admin/django_smska/smsmessage/"


def mail(many=3, name="Autumn sale", **more):
    pairs = [(f"+7916{n:07}", f"Sale {n}") for n in range(many)]
    return send_mass_sms(pairs, mailing=name, **more).mailing


def page_of(mailing):
    return f"{LIST}{mailing.pk}/change/"


def text_of(answer):
    return " ".join(re.sub(r"<[^>]*>", " ", answer.content.decode()).split())


def buttons(answer):
    found = re.findall(r'<input type="submit"[^>]* value="([^"]*)"', answer.content.decode())
    return [words for words in found if words != "Log out"]


def state_of(answer):
    return re.search(r'name="state" value="([^"]*)"', answer.content.decode())[1]


def agree(client, mailing, action):
    url = f"{LIST}{mailing.pk}/{action}/"
    return client.post(url, {"state": state_of(client.get(url))}, follow=True)


def go_on(client, mailing):
    return agree(client, mailing, "resume")


def set_status(new, *messages):
    SmsMessage.objects.filter(pk__in=[one.pk for one in messages]).update(status=new)


def statuses():
    return sorted(SmsMessage.objects.values_list("status", flat=True))


@pytest.fixture
def desk(client):
    """Return a client of a user who has these permissions."""

    def log_in(*codenames):
        user = User.objects.create_user("desk", is_staff=True)
        names = [f"{one}_smsmessage" for one in codenames]
        user.user_permissions.set(Permission.objects.filter(codename__in=names))
        client.force_login(user)
        return client

    return log_in


class TestList:
    def test_it_says_how_far_each_one_is(self, admin_client):
        mailing = mail(4)
        one, two, three, _four = mailing.messages.order_by("pk")
        set_status("delivered", one)
        set_status("failed", two)
        set_status("unknown", three)
        shown = text_of(admin_client.get(LIST))
        assert "Select" not in shown
        assert "Autumn sale 1 of 4 delivered; waiting: 1; not sent: 1; unknown: 1" in shown

    def test_the_number_of_queries_does_not_depend_on_that_of_mailings(self, admin_client):
        def queries():
            with CaptureQueriesContext(connection) as found:
                admin_client.get(LIST)
            return len(found)

        mail()
        admin_client.get(LIST)
        SmsMailing.objects.update(counted_at=None)
        few = queries()
        for number in range(5):
            mail(name=f"Number {number}")
        SmsMailing.objects.update(counted_at=None)
        assert queries() == few

    def test_who_may_not_see_messages_sees_none(self, desk):
        mail()
        assert desk("send").get(LIST).status_code == 403


class TestPage:
    def test_it_shows_each_kind_with_a_link_to_its_messages(self, admin_client):
        mailing = mail(4)
        one, two, _three, _four = mailing.messages.order_by("pk")
        set_status("delivered", one)
        set_status("failed", two)
        answer = admin_client.get(page_of(mailing))
        assert "1 of 4 delivered" in text_of(answer)
        links = re.findall(r'<a href="([^"]*mailing=[^"]*)">(\d+)</a>', answer.content.decode())
        [url] = [url.replace("&amp;", "&") for url, _number in links if "failed" in url]
        listed = admin_client.get(url).context["cl"].result_list
        assert [row.pk for row in listed] == [two.pk]

    def test_the_list_of_messages_shows_its_own_alone(self, admin_client):
        mail(2, "Other")
        mailing = mail(3)
        url = reverse("admin:django_smska_smsmessage_changelist")
        shown = admin_client.get(f"{url}?mailing={mailing.pk}")
        assert {row.mailing_id for row in shown.context["cl"].result_list} == {mailing.pk}
        assert "Autumn sale" in text_of(shown)
        assert admin_client.get(f"{url}?mailing=1x").status_code == 302  # not understood

    def test_a_message_leads_to_its_mailing(self, admin_client):
        mailing = mail(1)
        message = mailing.messages.get()
        url = reverse("admin:django_smska_smsmessage_change", args=[message.pk])
        assert page_of(mailing) in admin_client.get(url).content.decode()

    def test_a_text_is_shown_to_whom_may_see_it(self, desk):
        mailing = SmsMailing(name="Autumn sale", body="Boots at half price")
        send_mass_sms([("+79161234567", "Boots at half price")], mailing=mailing)
        client = desk("view")
        assert "half price" not in text_of(client.get(page_of(mailing)))
        one = Permission.objects.get(codename="see_text_smsmessage")
        User.objects.get(username="desk").user_permissions.add(one)
        assert "half price" in text_of(client.get(page_of(mailing)))

    def test_it_says_why_messages_wait(self, admin_client):
        mailing = mail()
        circuit_breaker.note_error("default", GatewayUnreachable())
        assert "“default” is paused." in text_of(admin_client.get(page_of(mailing)))

    def test_the_part_that_changes_comes_alone(self, admin_client):
        mailing = mail(2)
        answer = admin_client.get(f"{LIST}{mailing.pk}/progress/")
        assert "0 of 2 delivered" in text_of(answer) and "<html" not in answer.content.decode()
        assert "data-live" in answer.content.decode()
        set_status("delivered", *mailing.messages.all())
        SmsMailing.objects.update(counted_at=None)
        answer = admin_client.get(f"{LIST}{mailing.pk}/progress/")
        assert "data-live" not in answer.content.decode()

    def test_one_that_is_not_there_is_a_word_on_the_list(self, admin_client):
        answer = admin_client.get(f"{LIST}777/change/", follow=True)
        assert "There is no such mailing." in text_of(answer)


class TestActions:
    def test_stop_and_go_on(self, desk):
        mailing = mail(2)
        client = desk("view", "send")
        assert buttons(client.get(page_of(mailing))) == ["Stop"]
        answer = client.post(f"{LIST}{mailing.pk}/stop/", follow=True)
        assert "Stopped: 2 messages wait." in text_of(answer) and "by desk" in text_of(answer)
        assert buttons(answer) == [] and "Go on…" in text_of(answer)
        assert statuses() == ["draft", "draft"]
        answer = go_on(client, mailing)
        assert "Queued: 2 messages." in text_of(answer)
        assert statuses() == ["queued", "queued"]
        words = LogEntry.objects.order_by("pk").values_list("change_message", flat=True)
        assert list(words) == ["Stopped: 2 messages wait.", "Queued: 2 messages."]

    def test_write_again_to_those_that_failed_alone(self, desk):
        mailing = mail(4)
        one, two, three, _four = mailing.messages.order_by("pk")
        set_status("failed", one, two)
        set_status("unknown", three)
        opt_out(two.to)
        client = desk("view", "resend")
        assert "Write again to 2 that it was not sent to…" in text_of(client.get(page_of(mailing)))
        shown = text_of(client.get(f"{LIST}{mailing.pk}/resend/"))
        assert "2 messages, 2 segments" in shown
        assert SmsMessage.objects.count() == 4  # nothing yet
        shown = text_of(agree(client, mailing, "resend"))
        assert "Queued again: 1 message." in shown
        assert "1 message cannot be sent again" in shown
        assert SmsMessage.objects.get(resend_of=one).created_by.username == "desk"

    def test_the_page_before_says_how_much_and_what_it_costs(self, admin_client, settings):
        settings.SMSKA_PRICES = {"default": ("2.50", "RUB")}
        mailing = mail(3, using="default")
        mailing.stop(by="olga")
        shown = text_of(admin_client.get(f"{LIST}{mailing.pk}/resume/"))
        assert "Let the mailing go on" in shown and "3 messages, 3 segments, about ₽7.50" in shown
        assert statuses() == ["draft"] * 3

    def test_its_page_says_what_all_of_it_costs_until_prices_are_reported(
        self, admin_client, settings
    ):
        settings.SMSKA_PRICES = {"default": ("3.20", "RUB")}
        mailing = mail(5, using="default")
        assert "5 segments · about ₽16.00 if all are sent" in text_of(
            admin_client.get(page_of(mailing))
        ).replace("\N{NO-BREAK SPACE}", " ")
        SmsMailing.objects.update(prices={"RUB": "15.5"})
        shown = text_of(admin_client.get(page_of(mailing))).replace("\N{NO-BREAK SPACE}", " ")
        assert "5 segments · ₽15.50" in shown and "if all are sent" not in shown

    def test_where_some_were_not_sent_it_leads_to_the_reasons(self, admin_client):
        mailing = mail(2)
        assert "Why they were not sent" not in text_of(admin_client.get(page_of(mailing)))
        set_status("failed", mailing.messages.first())
        SmsMailing.objects.update(counted_at=None)
        page = admin_client.get(page_of(mailing)).content.decode()
        assert f'<a href="{LIST}{mailing.pk}/statistics/">Why they were not sent</a>' in page

    def test_what_has_changed_since_the_page_asked_is_not_done(self, admin_client):
        mailing = mail(3)
        mailing.stop()
        state = state_of(admin_client.get(f"{LIST}{mailing.pk}/resume/"))
        one = mailing.messages.first()
        set_status("cancelled", one)
        url = f"{LIST}{mailing.pk}/resume/"
        shown = text_of(admin_client.post(url, {"state": state}, follow=True))
        assert "has changed in the meantime" in shown
        assert statuses() == ["cancelled", "draft", "draft"]
        assert "has changed" in text_of(admin_client.post(url, follow=True))

    def test_a_double_click_on_stop_lets_nothing_go(self, admin_client):
        mailing = mail(2)
        for _ in range(2):
            admin_client.post(f"{LIST}{mailing.pk}/stop/")
        assert statuses() == ["draft", "draft"]

    def test_what_fails_after_the_page_asked_is_not_sent_again_unseen(self, admin_client):
        mailing = mail(3)
        one, _two, three = mailing.messages.order_by("pk")
        set_status("failed", one)
        state = state_of(admin_client.get(f"{LIST}{mailing.pk}/resend/"))
        set_status("failed", three)
        admin_client.post(f"{LIST}{mailing.pk}/resend/", {"state": state})
        assert SmsMessage.objects.exclude(resend_of=None).get().resend_of_id == one.pk

    def test_nothing_is_sent_again_while_it_is_stopped(self, admin_client):
        mailing = mail(2)
        set_status("failed", mailing.messages.first())
        state = state_of(admin_client.get(f"{LIST}{mailing.pk}/resend/"))
        mailing.stop()
        assert "Write again" not in text_of(admin_client.get(page_of(mailing)))
        admin_client.post(f"{LIST}{mailing.pk}/resend/", {"state": state})
        assert SmsMessage.objects.count() == 2

    def test_of_a_stopped_one_it_is_not_said_that_none_failed(self, admin_client):
        mailing = mail(2)
        set_status("failed", mailing.messages.first())
        mailing.stop()
        shown = admin_client.get(f"{LIST}{mailing.pk}/resend/").content.decode()
        assert "This mailing is stopped. Let it go on first." in shown
        assert "No message of this mailing has failed" not in shown and "Yes:" not in shown
        assert "Yes:" in admin_client.get(f"{LIST}{mailing.pk}/resume/").content.decode()

    def test_its_actions_are_in_no_transaction_of_the_request(self):
        """Workers must see that it is stopped before the last of its rows is moved."""
        for name in ("stop", "resume", "resend"):
            view = resolve(f"{LIST}1/{name}/").func
            assert view._non_atomic_requests == {"default", *connections}

    def test_a_deleted_draft_is_counted_no_more(self, admin_client):
        mailing = mail(2)
        mailing.stop()
        mailing_counts.refresh([mailing])
        one = mailing.messages.first()
        admin_client.post(f"{MESSAGES}{one.pk}/delete/", {"post": "yes"})
        shown = text_of(admin_client.get(page_of(mailing)))
        assert "0 of 1 delivered" in shown and "1 segment" in shown

    @pytest.mark.parametrize("action", ["stop", "resume", "resend"])
    def test_only_a_post_does_anything_and_only_of_who_may(self, desk, action):
        mailing = mail(2)
        set_status("failed", mailing.messages.order_by("pk").first())
        if action == "resume":
            mailing.stop()
        before = statuses()
        client = desk("view", "send" if action == "resend" else "resend")
        assert client.post(f"{LIST}{mailing.pk}/{action}/").status_code == 403
        assert client.get(f"{LIST}{mailing.pk}/{action}/").status_code == 403
        assert statuses() == before
        answer = client.get(page_of(mailing))
        words = {"stop": "Stop", "resume": "Go on…", "resend": "Write again"}[action]
        assert words not in buttons(answer) and words not in text_of(answer)


class TestCompose:
    """The page for writing makes a mailing of many messages."""

    def write(self, client, button="_send", many=7, **more):
        numbers = "\n".join(f"8 916 555 {n:02} {n:02}" for n in range(10, 10 + many))
        given = {"numbers": numbers, "body": "Boots at half price", "using": "default", **more}
        return client.post(f"{MESSAGES}compose/", {"nonce": "n-1", button: "1", **given})

    def test_many_messages_are_a_mailing_and_its_page_comes_next(self, admin_client):
        answer = self.write(admin_client, name="Autumn sale")
        mailing = SmsMailing.objects.get()
        assert answer["Location"] == page_of(mailing)
        assert (mailing.name, mailing.using) == ("Autumn sale", "default")
        assert mailing.body == "Boots at half price"
        assert mailing.created_by.username == "admin" and mailing.segments == 7
        assert "0 of 7 delivered" in text_of(admin_client.get(page_of(mailing)))

    def test_without_a_name_it_has_date_and_time(self, admin_client):
        self.write(admin_client)
        assert re.fullmatch(r"Mailing of \d.*\d+:\d\d.*", SmsMailing.objects.get().name)

    def test_the_same_form_again_makes_no_other_one(self, admin_client):
        self.write(admin_client, name="Autumn sale")
        self.write(admin_client, name="Autumn sale")
        assert (SmsMailing.objects.count(), SmsMessage.objects.count()) == (1, 7)

    def test_drafts_are_one_whose_page_sends_them(self, admin_client):
        answer = self.write(admin_client, "_save")
        mailing = SmsMailing.objects.get()
        assert answer["Location"] == page_of(mailing)
        shown = text_of(admin_client.get(page_of(mailing)))
        assert "Drafts 7" in shown and "Send…" in shown
        go_on(admin_client, mailing)
        assert statuses() == ["queued"] * 7

    def test_a_single_message_is_none(self, admin_client):
        self.write(admin_client, many=1, name="Autumn sale")
        assert not SmsMailing.objects.exists() and SmsMessage.objects.count() == 1

    def test_a_few_are_one_where_they_have_a_name(self, admin_client):
        self.write(admin_client, many=2, name="Two of them")
        assert SmsMailing.objects.get().messages.count() == 2
        assert statuses() == ["queued"] * 2


def lines(client, query=""):
    return [(one.words, one.url) for one in client.get(f"{MESSAGES}{query}").context["alerts"]]


WAITS = "The mailing “{}” is stopped. Its messages wait until you let it go on."


class TestStoppedOnesAboveTheListOfMessages:
    @pytest.mark.slow
    def test_one_is_named_with_a_link_to_its_page(self, admin_client):
        mail(1, "Lilies")
        asters = mail(2, "Asters")
        assert lines(admin_client) == []
        asters.stop()
        line = (WAITS.format("Asters"), page_of(asters))
        assert lines(admin_client) == [line]
        shown = admin_client.get(MESSAGES).content.decode()
        assert f'<a href="{page_of(asters)}">{line[0]}</a>' in shown
        asters.resume()
        assert lines(admin_client) == []

    def test_only_those_whose_drafts_wait(self, admin_client):
        asters = mail(2, "Asters")
        asters.stop()
        SmsMessage.objects.update(status="cancelled")
        assert lines(admin_client) == []
        query = f"?mailing={asters.pk}"
        assert lines(admin_client, query) == [(WAITS.format("Asters"), page_of(asters))]

    def test_the_list_of_one_speaks_of_that_one(self, admin_client):
        asters, lilies = mail(1, "Asters"), mail(1, "Lilies")
        asters.stop()
        assert lines(admin_client, f"?mailing={lilies.pk}") == []
        lilies.stop()
        query = f"?mailing={lilies.pk}"
        assert lines(admin_client, query) == [(WAITS.format("Lilies"), page_of(lilies))]

    def test_many_are_one_line_by_as_many_queries(self, admin_client):
        def queries():
            with CaptureQueriesContext(connection) as found:
                lines(admin_client)
            return len(found)

        mail(1, "Mailing 0").stop()
        one = queries()
        for number in (1, 2):
            mail(1, f"Mailing {number}").stop()
        words = "3 mailings are stopped. Their messages wait until you let them go on."
        assert lines(admin_client) == [(words, LIST)]
        # Each of the two shown rows more is of a mailing: no query follows from that.
        assert queries() == one


class TestDraftsOfAStoppedOne:
    """The queue would only set them aside again."""

    @pytest.fixture
    def boss(self, client):
        client.force_login(User.objects.create_superuser("lev"))
        return client

    @pytest.fixture
    def stopped(self):
        mailing = mail(7, "Night shift")
        mailing.stop()
        return mailing

    def sent(self, client, *keys):
        pks = ",".join(map(str, keys))
        answer = client.post(f"{MESSAGES}send/", {"pks": pks}, follow=True)
        return [str(one) for one in answer.context["messages"]]

    def test_many_are_skipped_with_the_reason_and_a_link(self, boss, stopped):
        other = mail(8, "Day shift")
        other.messages.update(status="draft")
        keys = [*stopped.messages.values_list("pk", flat=True)]
        others = [*other.messages.values_list("pk", flat=True)]
        said = self.sent(boss, *keys, *others)
        assert any(words.startswith("Queued for sending: 8 messages") for words in said)
        [skipped] = [words for words in said if words.startswith("Skipped: 7 messages")]
        assert "Its mailing “Night shift” is stopped" in skipped
        assert f'<a href="{page_of(stopped)}">' in skipped
        assert set(stopped.messages.values_list("status", flat=True)) == {"draft"}
        assert set(other.messages.values_list("status", flat=True)) == {"queued"}
        noted = LogEntry.objects.values_list("object_id", flat=True)
        assert sorted(noted) == sorted(map(str, others))

    def test_the_page_before_says_so(self, boss, stopped):
        keys = stopped.messages.values_list("pk", flat=True)
        answer = boss.get(f"{MESSAGES}send/?pks={','.join(map(str, keys))}")
        assert answer.context["plan"].number == 0
        assert "Not sent, because their mailing is stopped." in text_of(answer)
        assert f'<a href="{page_of(stopped)}">Night shift</a>: 7 messages' in (
            answer.content.decode()
        )

    def test_one_with_a_later_time_is_skipped_too(self, boss, stopped):
        draft = stopped.messages.first()
        SmsMessage.objects.filter(pk=draft.pk).update(send_after=now() + timedelta(hours=3))
        [said] = self.sent(boss, draft.pk)
        assert said.startswith("Skipped: <a ") and "Night shift" in said

    def test_a_few_are_sent_alone_by_a_person(self, boss, stopped):
        self.sent(boss, *stopped.messages.values_list("pk", flat=True)[:2])
        assert stopped.messages.filter(status="sent").count() == 2

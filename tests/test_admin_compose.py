"""Write a text, check whom it goes to, send it: to one number or to thousands."""

import io
import re
import sys
from datetime import datetime, timedelta
from html.parser import HTMLParser
from threading import Barrier, Thread

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.signals import got_request_exception
from django.db import DataError, InterfaceError, OperationalError, connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils.formats import date_format
from django.utils.timezone import now
from django.views.debug import ExceptionReporter
from openpyxl import Workbook

from django_smska.admin import SmsMessageAdmin, recipients
from django_smska.admin.compose_form import ComposeForm
from django_smska.admin.permissions import grouped
from django_smska.models import ProviderState, SmsMailing, SmsMessage
from django_smska.sms import outbox
from django_smska.states import Status
from django_smska.testing.gateway import Fault

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

LIST = "/admin/django_smska/smsmessage/"
PAGE = f"{LIST}compose/"
ONE, TWO = "+79041764995", "+79041764996"
LATER = f"{now() + timedelta(days=200):%Y-%m-%d}"
NOON = datetime.fromisoformat(f"{LATER}T12:00+03:00")
SECRET = "-".join(("se", "cret"))  # not as such in the source, which reports quote


@pytest.fixture
def boss(client):
    client.user = User.objects.create_superuser("boss")
    client.force_login(client.user)
    return client


def filled(**changes):
    form = {"numbers": ONE, "body": "Hello", "sender": "", "using": "default", "nonce": "n1"}
    return form | changes


def many(number):
    return "\n".join(f"+7904{index:07}" for index in range(number))


def at(date, time="12:00"):
    return {"send_at_0": date, "send_at_1": time}


def check(client, **changes):
    """What the second page carries on; it must have been shown."""
    response = client.post(PAGE, filled(**changes))
    assert "hidden" in response.context, response.context["errors"]
    return carried_by(response)


def carried_by(response):
    """The hidden fields of a page, as a browser would post them."""
    fields = {}

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag == "input" and ("type", "hidden") in attrs:
                fields[dict(attrs)["name"]] = dict(attrs).get("value", "")

    Reader().feed(response.content.decode())
    return fields


def send(client, **changes):
    return client.post(PAGE, check(client, **changes) | {"_send": "1"}, follow=True)


def shown(response):
    return [str(message) for message in response.context["messages"]]


def errors(response):
    return {name: list(words) for name, words in response.context["errors"].items()}


def stored():
    return list(SmsMessage.objects.order_by("pk").values_list("to", flat=True))


# --- the first page


def test_every_page_has_a_nonce_of_its_own(boss):
    nonces = {boss.get(PAGE).context["form"]["nonce"].value() for _ in range(2)}
    assert len(nonces) == 2 and all(len(nonce) == 32 for nonce in nonces)


def test_the_first_field_has_the_focus(boss):
    page = boss.get(PAGE).content.decode()
    assert page.count(" autofocus") == 1
    assert " autofocus" in page[page.index('<textarea name="numbers"') :].split(">")[0]


@pytest.mark.parametrize(
    ("changes", "focused"),
    [
        ({"numbers": ""}, "numbers"),
        ({"body": ""}, "body"),
        ({"numbers": "", "body": ""}, "numbers"),
        ({"when": "other"}, "send_at_0"),
    ],
)
def test_after_an_error_the_first_wrong_field_has_the_focus(boss, changes, focused):
    page = boss.post(PAGE, filled(**changes)).content.decode()
    assert re.findall(r'name="(\w+)"[^>]* autofocus', page) == [focused]
    assert page.count(" autofocus") == 1


def test_after_an_error_of_no_field_the_list_of_errors_has_the_focus(boss, monkeypatch):
    def fail(*args, **options):
        raise OperationalError("gone")

    monkeypatch.setattr("django_smska.admin.compose_store._store_many", fail)
    page = boss.post(PAGE, filled(numbers=many(9), _send="1")).content.decode()
    assert '<p class="errornote" tabindex="-1" autofocus>' in page
    assert page.count(" autofocus") == 1


def test_one_provider_is_no_choice(boss, settings):
    assert '<select name="using"' not in boss.get(PAGE).content.decode()
    settings.SMS_PROVIDERS = {"default": {}, "bulk": {}}
    assert '<select name="using"' in boss.get(PAGE).content.decode()


@pytest.mark.parametrize(
    "changes, field, words",
    [
        ({"numbers": " \n"}, "numbers", "Enter at least one number."),
        ({"numbers": "Ivan\n12"}, "numbers", "Line 1, “Ivan”: A number has only digits"),
        ({"body": " "}, "body", "required"),
        ({"body": "x" * 50_000}, "body", "the maximum is 10"),
        ({"sender": "two\nlines"}, "sender", "one line"),
        ({"using": "unknown"}, "using", "not one of the available choices"),
        (at("2020-01-01"), "send_at", "This time has passed."),
        (at("tomorrow"), "send_at", "valid date"),
        ({"nonce": ""}, "nonce", "required"),
        ({"numbers": "1\n" * 10_001}, "numbers", "More than 10000 numbers"),
    ],
)
def test_what_is_wrong_is_said_at_its_field_and_nothing_is_stored(boss, changes, field, words):
    response = boss.post(PAGE, filled(_send="1", **changes))
    assert list(errors(response)) == [field] and words in errors(response)[field][0]
    assert not SmsMessage.objects.exists() and not outbox


def test_what_was_typed_is_kept_on_the_way_back(boss):
    typed = {"numbers": f"{ONE}\nIvan", "body": "two\nlines", **at(LATER)}
    response = boss.post(PAGE, check(boss, **typed) | {"_back": "1"})
    page = response.content.decode()
    assert f"{ONE}\nIvan</textarea>" in page and "two\nlines</textarea>" in page
    assert f'value="{LATER}"' in page and 'value="12:00"' in page and 'value="n1"' in page
    assert "errornote" not in page and not SmsMessage.objects.exists()


# --- numbers from a file


def upload(client, data, name="people.csv", **changes):
    return client.post(PAGE, filled(numbers="", file=SimpleUploadedFile(name, data), **changes))


def test_a_file_is_as_good_as_typing(boss):
    data = f"Имя;Телефон\nИван;{ONE}\nЁж;{ONE}\nЯк;none\nЛев;{TWO}".encode("windows-1251")
    response = upload(boss, data)
    page = response.content.decode()
    assert "come from the column “Телефон”" in page
    assert response.context["numbers"] == f"{grouped(ONE)}, {grouped(TWO)}"
    assert [one.line for one in response.context["left_out"]] == [3, 4]
    carried = carried_by(response)
    back = boss.post(PAGE, carried | {"_back": "1"}).content.decode()
    assert f"{ONE}\n{ONE}\nnone\n{TWO}</textarea>" in back
    boss.post(PAGE, carried | {"_send": "1"})
    assert stored() == [ONE, TWO]


def test_the_numbers_of_a_file_outlive_an_error_elsewhere(boss):
    response = upload(boss, f"{ONE}\n{TWO}".encode(), body="")
    assert list(errors(response)) == ["body"]
    assert f"{ONE}\n{TWO}</textarea>" in response.content.decode()


def test_numbers_are_not_read_from_two_places(boss):
    file = SimpleUploadedFile("people.csv", TWO.encode())
    response = boss.post(PAGE, filled(file=file))
    assert "above or upload a file, not both" in errors(response)["file"][0]


def test_a_file_that_cannot_be_read_is_reported_at_its_field(boss):
    assert "cannot be read" in errors(upload(boss, b"\x89PNG\0"))["file"][0]
    assert list(errors(upload(boss, b"x" * (recipients.MAX_FILE_BYTES + 1)))) == ["file"]


def test_where_the_column_is_not_clear_it_can_be_chosen(boss):
    data = f"Телефон;Телефон мамы\n{ONE};{TWO}".encode()
    response = upload(boss, data)
    assert "“A: Телефон”, “B: Телефон мамы”" in errors(response)["file"][0]
    page = response.content.decode()
    assert '<select name="column_letter"' in page and '<option value="B">B: Телефон мамы' in page
    response = upload(boss, data, column_letter="B")
    assert response.context["numbers"] == grouped(TWO)
    carried = carried_by(response)
    assert carried["column_letter"] == ""  # another file may have others there
    boss.post(PAGE, carried | {"_send": "1"})
    assert stored() == [TWO]


def test_the_column_of_a_pasted_table_can_be_chosen_too(boss):
    table = f"Номер заказа\tТелефон\tТелефон мамы\n9000000001\t{ONE}\t{TWO}"
    response = boss.post(PAGE, filled(numbers=table))
    assert list(errors(response)) == ["numbers"]
    page = response.content.decode()
    assert '<select name="column_letter"' in page and "9000000001" in page
    response = boss.post(PAGE, filled(numbers=table, column_letter="C"))
    assert response.context["numbers"] == grouped(TWO)
    assert "come from the column “Телефон мамы”" in response.content.decode()
    boss.post(PAGE, carried_by(response) | {"_send": "1"})
    assert stored() == [TWO]


def test_the_choice_of_a_column_is_not_seen_before_it_is_needed(boss):
    assert '<select name="column_letter"' not in boss.get(PAGE).content.decode()
    response = upload(boss, b"\x89PNG\0", column_letter="B")
    assert 'value="B"' not in response.content.decode()


def test_what_is_hidden_in_a_file_is_reported_and_gets_nothing(boss):
    book = Workbook()
    for row in (["Имя", "Телефон"], ["A", ONE], ["B", TWO]):
        book.active.append(row)
    book.active.row_dimensions[2].hidden = True
    book.create_sheet("Архив").sheet_state = "hidden"
    data = io.BytesIO()
    book.save(data)
    response = upload(boss, data.getvalue(), name="people.xlsx")
    page = response.content.decode()
    assert "Left out: 1 hidden row." in page and "Left out: hidden sheets “Архив”." in page
    assert response.context["numbers"] == grouped(TWO)


# --- the second page


def test_the_second_page_shows_all_and_does_nothing(boss):
    numbers = f"{ONE}\n8 904 176-49-95\nIvan <b>\n{TWO}"
    response = boss.post(PAGE, filled(numbers=numbers, body="я" * 71))
    page = response.content.decode()
    assert "2 messages, 4 segments" in page and "2 segments for each number" in page
    assert f"{grouped(ONE)}, {grouped(TWO)}</p>" in page and "я" * 71 in page
    assert "1 entry is not a phone number." in page and "1 repeats an earlier number" in page
    assert "Ivan &lt;b&gt;" in page and "The same number as in line 1." in page
    assert "Sending starts at once" in page and 'value="Send now"' in page
    assert not SmsMessage.objects.exists() and not outbox


@pytest.mark.parametrize(("sees", "shown"), [(True, "+7 495 123-45-67"), (False, "+7495•••4567")])
def test_it_names_what_is_no_mobile_number(client, sees, shown):
    user = User.objects.create_user("nina", is_staff=True)
    wanted = ["view_smsmessage", "add_smsmessage", "send_smsmessage"]
    wanted += ["see_number_smsmessage"] if sees else []
    user.user_permissions.set(Permission.objects.filter(codename__in=wanted))
    client.force_login(user)
    response = client.post(PAGE, filled(numbers=f"{ONE}\n8 495 123-45-67"))
    [words] = [one for one in response.context["warnings"] if "Russian mobile" in one]
    assert words == (
        f"1 number is not a Russian mobile number: {shown}. Not every provider sends to it."
    )
    assert "4567" not in repr(response.context["warnings"]) and words in response.content.decode()


def test_of_many_that_are_no_mobile_numbers_it_names_ten(boss):
    landlines = "\n".join(f"+7495123{number:04}" for number in range(11))
    [words] = [
        one
        for one in boss.post(PAGE, filled(numbers=landlines)).context["warnings"]
        if "Russian mobile" in one
    ]
    assert "+7 495 123-00-09, …. Not every" in words and "00-10" not in words


def test_it_shows_the_balance_and_warns(boss, settings):
    settings.SMSKA_SEND_AT_ONCE = 1
    state = ProviderState.objects.create(alias="default", balance=3, balance_at=now())
    numbers = f"{ONE}\n{TWO}\n+491711234567"

    def page(**changes):
        return boss.post(PAGE, filled(numbers=numbers, **changes)).content.decode()

    assert "3 credits, as of " in page() and "may not be enough" not in page()
    assert "may not be enough" in page(body="я" * 71)
    assert "1 number is not a Russian mobile number: +491711234567. Not every" in page()
    assert "No worker has been seen" in page() and "is paused" not in page()
    settings.SMSKA_ENQUEUE = "tests.backends.Minimal"
    assert "No worker has been seen" not in page()
    settings.SMSKA_ENQUEUE = None
    ProviderState.objects.update(worker_seen_at=now(), paused_at=now(), reason="funds")
    assert "No worker has been seen" not in page()
    assert "“default” is paused. The account has too few credits. Top it up." in page()
    one = boss.post(PAGE, filled()).content.decode()
    assert "The provider is paused or stopped: what cannot be sent now stays a draft." in one
    assert "Sending starts" not in one
    state.delete()
    assert "not known" in page() and "may not be enough" not in page(body="я" * 71)


def test_it_warns_of_a_text_that_went_to_the_same_number_a_moment_ago(boss):
    """Also if another form or another person sent it; not if nothing came of it."""

    def warns(**changes):
        response = boss.post(PAGE, filled(nonce="n2", numbers=f"{TWO}\n{ONE}", **changes))
        return "within the last hour" in response.content.decode()

    assert not warns()
    send(boss)
    assert warns() and not warns(body="Other")
    SmsMessage.objects.update(status=Status.FAILED)
    assert not warns()
    SmsMessage.objects.update(status=Status.SENT, created_at=now() - timedelta(hours=2))
    assert not warns()


@pytest.mark.parametrize("by", ["oneself", "another", "oneself, again"])
def test_who_may_not_see_all_is_warned_of_their_own_messages_alone(client, by):
    """Or they could find out, number by number, who got which text."""
    user = User.objects.create_user("clerk", is_staff=True)
    needed = ["view_smsmessage", "add_smsmessage", "send_smsmessage", "see_text_smsmessage"]
    user.user_permissions.set(Permission.objects.filter(codename__in=needed))
    client.force_login(user)
    first = SmsMessage(to=ONE, body="Hello", created_by=None if by == "another" else user)
    first.save()
    if by == "oneself, again":
        other = SmsMessage(to=TWO, body="Hello")
        other.save()
        SmsMessage.objects.filter(pk=first.pk).update(resend_of=other)
    page = client.post(PAGE, filled(numbers=ONE, body="Hello")).content.decode()
    assert ("within the last hour" in page) is (by == "oneself")


def test_of_very_many_that_are_left_out_some_are_named(boss):
    numbers = "\n".join([ONE, *(f"x{index}" for index in range(300))])
    page = boss.post(PAGE, filled(numbers=numbers)).content.decode()
    assert "300 entries are not phone numbers." in page and "And 100 more." in page
    assert page.count("only digits") == 200


def test_numbers_among_words_are_shown_with_these(boss):
    numbers = f"Иванова <А>. {ONE}\n{TWO}\nwa {TWO}\nдом 89041764997"
    page = boss.post(PAGE, filled(numbers=numbers)).content.decode()
    shown = page[page.index("Read out of other words") : page.index("1 repeats an earlier")]
    for line, words, number in ((1, "Иванова &lt;А&gt;. ", ONE), (4, "дом 8", "+79041764997")):
        assert f"<td>{line}</td><td>{words}" in shown and f"<td>{grouped(number)}</td>" in shown
    assert TWO not in shown and shown.count("<tr>") == 3


def test_of_very_many_numbers_among_words_some_are_shown(boss):
    numbers = "\n".join(f"Анна {index}й дом +7904{index:07}" for index in range(203))
    page = boss.post(PAGE, filled(numbers=numbers)).content.decode()
    assert "And 3 more." in page and page.count("<td>Анна ") == 200


def test_a_number_that_the_provider_does_not_send_to_is_skipped(boss, settings, provider):
    """As its backend says, or the limits of the site."""
    numbers = f"{ONE}\n8 495 123-45-67\n+447911123456\n{TWO}"
    settings.SMSKA_LIMITS = {"prefixes": {"default": ["+79", "+44"]}}
    response = boss.post(PAGE, filled(numbers=numbers))
    page = response.content.decode()
    assert response.context["numbers"] == "+7 904 176-49-95, +447911123456, +7 904 176-49-96"
    assert "1 is a number that the provider does not send to." in page
    assert "<td>2</td><td>+74951234567</td>" in page
    assert "This provider sends only to numbers that start with +79, +44." in page
    send(boss, numbers=numbers, **at(LATER))
    assert stored() == [ONE, "+447911123456", TWO]
    settings.SMSKA_LIMITS = {}
    assert "start with +79." in boss.post(PAGE, filled(numbers=numbers)).content.decode()
    settings.SMSKA_LIMITS = None
    page = boss.post(PAGE, filled(numbers=numbers)).content.decode()
    assert "4 messages" in page and "2 numbers are not Russian mobile numbers" in page


def test_where_the_provider_sends_to_none_of_them_nothing_can_be_sent(boss, settings):
    settings.SMSKA_LIMITS = MOBILE_ONLY
    page = boss.post(PAGE, filled(numbers="8 495 123-45-67")).content.decode()
    assert "0 messages" in page and 'name="_send"' not in page and 'name="_correct"' in page


MOBILE_ONLY = {"prefixes": {"default": ["+79"]}}
MESSY = f"{ONE}\nИванова 8904176499\nтел. {TWO}, 8 495 123-45-67\nИванова А."


def offered(response):
    return str(response.context["to_correct"])


def test_what_was_skipped_can_be_corrected_on_the_second_page(boss, settings):
    settings.SMSKA_LIMITS = MOBILE_ONLY
    response = boss.post(PAGE, filled(numbers=MESSY))
    assert offered(response) == "Иванова 8904176499\n+74951234567\nИванова А."
    assert f"\n{offered(response)}</textarea>" in response.content.decode()
    corrected = "Иванова 89041764997\r\n+74951234567\r\n89041764998, x"
    carried = carried_by(response) | {"corrected": corrected, "_correct": "1"}
    response = boss.post(PAGE, carried)
    assert response.context["numbers"] == (
        "+7 904 176-49-95, +7 904 176-49-96, +7 904 176-49-97, +7 904 176-49-98"
    )
    assert offered(response) == "+74951234567"
    assert [(one.line, one.number) for one in response.context["read_out"]] == [
        (3, TWO),
        (5, "+79041764997"),
    ]
    boss.post(PAGE, carried_by(response) | {"corrected": offered(response), "_send": "1"})
    assert stored() == [ONE, TWO, "+79041764997", "+79041764998"]


@pytest.mark.parametrize("button", ["_send", "_back"])
def test_a_correction_is_not_lost_by_another_button(boss, button):
    """It is checked before anything is sent."""
    response = boss.post(PAGE, filled(numbers=MESSY))
    carried = carried_by(response) | {"corrected": "89041764997", button: "1"}
    response = boss.post(PAGE, carried)
    numbers = f"{ONE}\n\nтел. {TWO}, 8 495 123-45-67\n\n89041764997"
    assert response.context["form"]["numbers"].value() == numbers and not stored()


def test_what_was_skipped_and_left_as_it_was_hinders_nothing(boss):
    response = boss.post(PAGE, filled(numbers=MESSY))
    carried = carried_by(response) | {"corrected": offered(response).replace("\n", "\r\n")}
    again = boss.post(PAGE, carried | {"_back": "1"})
    assert again.context["form"]["numbers"].value() == MESSY
    boss.post(PAGE, carried | {"_send": "1"})
    assert stored() == [ONE, TWO, "+74951234567"]


def test_a_correction_outlives_an_error_elsewhere(boss):
    carried = carried_by(boss.post(PAGE, filled(numbers=MESSY)))
    response = boss.post(PAGE, carried | {"corrected": "89041764997", "body": ""})
    assert errors(response).keys() == {"body"}
    assert response.context["form"]["numbers"].value().endswith("\n89041764997")


def test_what_a_file_has_wrong_can_be_corrected(boss):
    data = f"Имя;Телефон\nИван;{ONE}\nАнна;8904176499\nПётр;{TWO}".encode()
    response = upload(boss, data, name="people.csv")
    assert offered(response) == "8904176499"
    carried = carried_by(response) | {"corrected": "89041764990", "_correct": "1"}
    assert boss.post(PAGE, carried).context["numbers"] == (
        "+7 904 176-49-95, +7 904 176-49-96, +7 904 176-49-90"
    )


def test_all_that_was_skipped_is_offered_however_much_is_listed(boss):
    numbers = "\n".join([ONE, *(f"x{index}" for index in range(300))])
    assert len(offered(boss.post(PAGE, filled(numbers=numbers))).splitlines()) == 300


def test_who_may_see_no_numbers_is_shown_and_offered_none(client):
    user = User.objects.create_user("clerk", is_staff=True)
    needed = ["view_smsmessage", "add_smsmessage", "send_smsmessage"]
    user.user_permissions.set(Permission.objects.filter(codename__in=needed))
    client.force_login(user)
    response = client.post(PAGE, filled(numbers=MESSY))
    page = response.content.decode()
    assert not offered(response) and not response.context["read_out"]
    assert "Read out of" not in page and 'name="corrected"' not in page


def test_a_time_is_read_and_reported_by_the_clock_that_is_shown(boss, monkeypatch):
    response = boss.post(PAGE, filled(**at(LATER)))
    day = NOON.strftime("%m/%d/%Y")
    assert f'value="Send at {date_format(NOON, "DATETIME_FORMAT")}"' in response.content.decode()
    monkeypatch.setattr("django_smska.admin.compose_form.timezone.now", lambda: NOON)
    assert f"It is {day} noon by" in ComposeForm().fields["send_at"].help_text


# --- sending


@pytest.mark.django_db(transaction=True)
def test_one_is_sent_while_one_waits(boss, provider):
    response = send(boss, body="two\r\nlines", sender="Shop")
    message = SmsMessage.objects.get()
    assert provider.times_accepted("79041764995", "two\nlines") == 1
    assert (message.status, message.sender, message.created_by) == ("sent", "Shop", boss.user)
    assert shown(response)[0].startswith("Sent: <a ")
    assert response.redirect_chain == [(f"{LIST}{message.pk}/change/", 302)]
    assert [entry.change_message for entry in LogEntry.objects.all()] == ["Sent."]


@pytest.mark.django_db(transaction=True)
def test_a_handful_is_sent_while_one_waits_and_each_outcome_is_shown(boss, provider):
    provider.script(2, Fault("reset_after_request"), on="send")
    response = send(boss, numbers=f"{ONE}\n{TWO}\n+491711234567")
    assert [words.split(":")[0] for words in shown(response)] == [
        "Sent",
        "Unknown whether it was sent",
        "Queued for sending",
        "Messages are waiting for “default”, but no worker is sending them. Ask your administrator "
        "to start sms_worker.",
    ]
    assert response.redirect_chain == [(LIST, 302)]
    assert LogEntry.objects.count() == 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("number", [1, 5, 6])
def test_pressing_twice_sends_once(boss, provider, number):
    carried = check(boss, numbers=many(number)) | {"_send": "1"}
    boss.post(PAGE, carried, follow=True)
    first = list(SmsMessage.objects.values())
    response = boss.post(PAGE, carried, follow=True)
    assert list(SmsMessage.objects.values()) == first and len(first) == number
    assert provider.sends == (number if number <= 5 else 0)
    assert len(shown(response)) == 1 and "will not be sent again" in shown(response)[0]
    assert LogEntry.objects.count() == number


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("number", [3, 30])
def test_pressing_at_the_same_moment_sends_once(boss, provider, number):
    """Each of four requests believes to be the first."""
    carried = check(boss, numbers=many(number)) | {"_send": "1"}
    start, statuses = Barrier(4), []

    def press():
        client = Client()
        client.cookies = boss.cookies
        start.wait(10)
        statuses.append(client.post(PAGE, carried).status_code)
        connections.close_all()

    threads = [Thread(target=press) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert statuses == [302] * 4
    assert sorted(stored()) == many(number).split()
    assert LogEntry.objects.count() == number
    assert provider.sends == (number if number <= 5 else 0)


@pytest.fixture
def stopped(monkeypatch):
    """Press "Send" in a process that is killed before it sends."""

    def press(client, carried):
        with monkeypatch.context() as patch:
            patch.setattr(SmsMessageAdmin, "carry_out", lambda *args: None)
            client.post(PAGE, carried)

    return press


@pytest.mark.django_db(transaction=True)
def test_pressing_again_sends_what_a_killed_process_has_left(boss, provider, stopped):
    carried = check(boss, numbers=many(3)) | {"_send": "1"}
    stopped(boss, carried)
    first = SmsMessage.objects.order_by("pk").first()
    SmsMessage.objects.filter(pk=first.pk).update(
        status="sending", expires_at=first.send_after, lease_until=now() + timedelta(minutes=1)
    )
    texts = shown(boss.post(PAGE, carried, follow=True))
    assert texts[0].startswith("Sent: 2 messages") and texts[1].startswith("1 message was already")
    statuses = SmsMessage.objects.order_by("pk").values_list("status", flat=True)
    assert list(statuses) == ["sending", "sent", "sent"] and provider.sends == 2


def test_what_was_left_goes_into_the_queue_with_many_more(boss, stopped):
    carried = check(boss, numbers=many(3)) | {"_send": "1"}
    stopped(boss, carried)
    text = shown(boss.post(PAGE, carried | {"numbers": many(7)}, follow=True))[0]
    assert text.startswith("Queued for sending: 7 messages. ")
    assert list(SmsMessage.objects.values_list("status", flat=True)) == ["queued"] * 7
    assert LogEntry.objects.count() == 7


@pytest.mark.parametrize("number", [2, 6])
def test_what_was_left_and_then_edited_is_not_sent(boss, stopped, number):
    """The form has not shown what is in it now."""
    carried = check(boss, numbers=many(2)) | {"_send": "1"}
    stopped(boss, carried)
    edited = SmsMessage.objects.order_by("pk").first()
    SmsMessage.objects.filter(pk=edited.pk).update(sender="Shop")
    boss.post(PAGE, carried | {"numbers": many(number)})
    drafts = SmsMessage.objects.filter(status="draft")
    assert [message.pk for message in drafts] == [edited.pk]


def test_numbers_that_are_added_on_the_way_back_get_theirs_and_no_other_a_second(boss):
    send(boss)
    response = send(boss, numbers=f"{ONE}\n{TWO}")
    assert stored() == [ONE, TWO] and len(outbox) == 2
    assert "1 message was already created when you submitted this form before" in shown(response)[1]


@pytest.mark.parametrize("changes", [{"body": "Other"}, {"sender": "Shop"}, {"nonce": "n2"}])
def test_another_text_or_another_form_is_another_message(boss, changes):
    send(boss)
    send(boss, **changes)
    assert stored() == [ONE, ONE]


def test_more_than_a_handful_go_into_the_queue(boss):
    response = send(boss, numbers=many(6))
    assert shown(response)[0].startswith("Queued for sending: 6 messages. ")
    messages = SmsMessage.objects.all()
    assert all(one.status == Status.QUEUED and one.created_by == boss.user for one in messages)
    words = {entry.change_message for entry in LogEntry.objects.all()}
    assert LogEntry.objects.count() == 6 and len(words) == 1
    assert words.pop().startswith("Queued for sending")
    page = f"/admin/django_smska/smsmailing/{SmsMailing.objects.get().pk}/change/"
    assert not outbox and response.redirect_chain == [(page, 302)]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("error", "is_committed"),
    [(OperationalError, True), (OperationalError, False), (InterfaceError, True)],
)
def test_where_the_answer_to_the_commit_is_lost_the_form_can_be_sent_again(
    boss, monkeypatch, error, is_committed
):
    carried = check(boss, numbers=many(6)) | {"_send": "1"}
    commit = connection.commit

    def lose_it():
        if is_committed:
            commit()
        raise error("server closed the connection")

    with monkeypatch.context() as patch:
        patch.setattr(connection, "commit", lose_it)
        response = boss.post(PAGE, carried)
    [text] = errors(response)["__all__"]
    assert "may be in the queue" in text and "nothing is sent twice" in text
    assert SmsMessage.objects.count() == (6 if is_committed else 0)
    checked = boss.post(PAGE, carried_by(response) | {"numbers": many(6), "body": "Hello"})
    assert "within the last hour" not in checked.content.decode()
    text = shown(boss.post(PAGE, carried_by(checked) | {"_send": "1"}, follow=True))[0]
    assert text.startswith("6 messages were already" if is_committed else "Queued for sending: 6")
    assert SmsMessage.objects.count() == 6


def test_where_the_database_refuses_them_nothing_was_sent(boss, monkeypatch):
    carried = check(boss, numbers=many(6)) | {"_send": "1"}

    def refuse(messages, **options):
        raise DataError("a value")

    monkeypatch.setattr("django_smska.admin.compose_store.send_mass_sms", refuse)
    [text] = errors(boss.post(PAGE, carried))["__all__"]
    assert text == "It could not be stored (DataError), so nothing was sent."


def test_a_limit_that_holds_for_staff_too_is_said_with_the_number(boss, settings):
    carried = check(boss, numbers=f"{many(6)}\n+447911123456") | {"_send": "1"}
    settings.SMSKA_LIMITS = {"segments": 6}
    [text] = errors(boss.post(PAGE, carried))["__all__"]
    assert text.startswith("Not sent to +4479•••3456. ")
    assert not SmsMessage.objects.exists()


def test_one_with_a_time_waits_for_it_in_the_queue(boss):
    response = send(boss, **at(LATER))
    message = SmsMessage.objects.get()
    day = NOON.strftime("%m/%d/%Y")
    assert (message.status, message.send_after) == ("queued", NOON) and not outbox
    assert message.expires_at == NOON + timedelta(days=1)
    assert shown(response)[0].startswith(f"Queued to be sent at {day} noon: <a ")
    assert f"{day} noon" in LogEntry.objects.get().change_message


def test_a_time_that_passes_on_the_second_page_sends_nothing(boss, monkeypatch):
    carried = check(boss, **at(LATER))
    late = NOON + timedelta(hours=1)
    monkeypatch.setattr("django_smska.admin.compose_form.timezone.now", lambda: late)
    boss.force_login(boss.user)
    response = boss.post(PAGE, carried | {"_send": "1"})
    assert list(errors(response)) == ["send_at"] and not SmsMessage.objects.exists()


def test_the_time_costs_no_time_zone(boss, settings):
    settings.USE_TZ = False
    send(boss, **at(LATER))
    assert SmsMessage.objects.get().send_after == NOON.replace(tzinfo=None)


def test_two_hundred_take_a_few_queries(boss):
    def queries(number, nonce):
        carried = check(boss, numbers=many(number), nonce=nonce) | {"_send": "1"}
        with CaptureQueriesContext(connection) as context:
            boss.post(PAGE, carried)
        return len(context)

    queries(10, "warm")
    assert queries(200, "two hundred") <= 32
    assert SmsMessage.objects.count() == 210 and LogEntry.objects.count() == 210


def test_ten_thousand_fit_through_the_pages(boss, settings):
    settings.SMSKA_MAX_SEGMENTS = 255
    carried = check(boss, numbers=many(10_000), body="я" * 10_000)
    response = boss.post(PAGE, carried | {"_back": "1"})
    assert response.context["form"].recipients.numbers == many(10_000).split()


def test_nothing_of_it_is_seen_without_the_permissions_to_see(client):
    """Who writes sees what is written there and then; not afterwards."""
    user = User.objects.create_user("clerk", is_staff=True)
    codenames = [f"{name}_smsmessage" for name in ("view", "add", "send")]
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client.force_login(user)
    response = send(client, body="Secret")
    page = response.content.decode()
    assert stored() == [ONE] and len(outbox) == 1
    assert "Secret" not in page and "9041764" not in page


@pytest.mark.parametrize(
    ("button", "frame"), [("_send", "_store_in_bulk"), ("_save", "_store_drafts_in_bulk")]
)
def test_a_crash_reports_neither_text_nor_number(boss, monkeypatch, button, frame):
    """To those who get Django's mails of errors."""
    shown = []

    def crash(**fields):
        raise RuntimeError("crash")

    def report(sender, request, **kwargs):
        reporter = ExceptionReporter(request, *sys.exc_info())
        shown.append(reporter.get_traceback_text() + reporter.get_traceback_html())

    carried = check(boss, numbers=many(6), body=SECRET) | {button: "1"}
    monkeypatch.setattr("django_smska.admin.compose_form.SmsMessage", crash)
    boss.raise_request_exception = False
    got_request_exception.connect(report)
    try:
        assert boss.post(PAGE, carried).status_code == 500
    finally:
        got_request_exception.disconnect(report)
    assert frame in shown[0]
    assert SECRET not in shown[0] and many(6)[-12:] not in shown[0]


@pytest.mark.parametrize("missing", ["view", "add", "send"])
def test_post_needs_every_permission(client, missing):
    user = User.objects.create_user("clerk", is_staff=True)
    codenames = [f"{name}_smsmessage" for name in {"view", "add", "send"} - {missing}]
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client.force_login(user)
    for button in ("_check", "_send", "_back"):
        assert client.post(PAGE, filled(**{button: "1"})).status_code == 403
    assert not SmsMessage.objects.exists()


def test_post_needs_the_csrf_token(boss):
    boss.handler.enforce_csrf_checks = True
    assert boss.post(PAGE, filled(_send="1")).status_code == 403


@pytest.mark.django_db(transaction=True)
def test_with_atomic_requests_the_network_is_waited_for_outside_of_a_transaction(
    boss, provider, monkeypatch
):
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)
    assert shown(send(boss))[0].startswith("Sent: <a ")


def test_the_clock_of_the_site_ends_with_one_full_stop(boss):
    page = boss.get(PAGE).content.decode()
    assert "by the clock of this site." in page and ".m.." not in page


# --- drafts


def save(client, **changes):
    return client.post(PAGE, check(client, **changes) | {"_save": "1"}, follow=True)


@pytest.mark.parametrize("number", [2, 7])
def test_drafts_are_what_this_page_stores_too(boss, number):
    """However many: the button is on the page that shows what is checked."""
    response = save(boss, numbers=many(number), body="For the weekend", sender="SHOP")
    drafts = list(SmsMessage.objects.all())
    assert [one.status for one in drafts] == ["draft"] * number and not outbox
    assert {(one.body, one.sender, one.created_by) for one in drafts} == {
        ("For the weekend", "SHOP", User.objects.get())
    }
    [text] = shown(response)
    assert text.startswith(f"Saved as draft: {number} messages. ")
    assert text.endswith("Not sent until you choose “Send”.")
    mailing = SmsMailing.objects.get()
    assert response.redirect_chain == [
        (f"/admin/django_smska/smsmailing/{mailing.pk}/change/", 302)
    ]
    assert LogEntry.objects.filter(change_message="Saved as draft.").count() == number


def test_one_draft_leads_to_its_page_and_keeps_its_time(boss):
    later = now() + timedelta(days=9)
    response = save(boss, numbers=ONE, **at(f"{later:%Y-%m-%d}"))
    [draft] = SmsMessage.objects.all()
    assert response.redirect_chain == [(f"{LIST}{draft.pk}/change/", 302)]
    assert (draft.status, draft.send_after.date()) == ("draft", later.date())


def test_saving_twice_stores_once_and_the_same_form_sends_its_drafts(boss):
    carried = check(boss, numbers=many(3))
    for _ in range(2):
        boss.post(PAGE, carried | {"_save": "1"}, follow=True)
    assert list(SmsMessage.objects.values_list("status", flat=True)) == ["draft"] * 3
    boss.post(PAGE, carried | {"_send": "1"}, follow=True)
    assert list(SmsMessage.objects.values_list("status", flat=True)) == ["sent"] * 3
    assert len(outbox) == 3


def test_nothing_wrong_is_saved_as_a_draft(boss):
    response = boss.post(PAGE, filled(body=" ") | {"_save": "1"})
    assert list(errors(response)) == ["body"] and not SmsMessage.objects.exists()


ADD = 'href="/admin/django_smska/smsmessage/add/'


@pytest.mark.parametrize(("wanted", "doors"), [("add send", 1), ("add", 0), ("send", 0)])
def test_there_is_one_door_to_writing(client, wanted, doors):
    user = User.objects.create_user("rita", is_staff=True)
    codenames = [f"{name}_smsmessage" for name in ("view", *wanted.split())]
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    client.force_login(user)
    may_add_only = wanted == "add"
    SmsMessage.objects.create(to=ONE, body="Hello")  # an empty list offers to write the first one
    for page in ("/admin/", "/admin/django_smska/", LIST):  # the list has the sidebar, too
        assert (ADD in client.get(page).content.decode()) is may_add_only, page
    assert client.get(LIST).content.decode().count(f'href="{PAGE}') == doors
    assert client.get(f"{LIST}add/").status_code == (200 if "add" in wanted else 403)

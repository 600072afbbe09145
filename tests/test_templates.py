"""Texts that are saved in the admin, sent by code."""

from datetime import date
from decimal import Decimal

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Permission, User
from django.core.exceptions import ValidationError
from django.utils.translation import override

from django_smska.admin.permissions import gaps
from django_smska.exceptions import SmsNotSent, UnknownTemplate
from django_smska.models import SmsMessage, SmsTemplate
from django_smska.sms import (
    asend_template,
    outbox,
    queue_sms,
    render_template,
    send_code,
    send_mass_sms,
    send_template,
)

pytestmark = pytest.mark.django_db

TO = "+79041764995"


def save(body, name="ready", language=""):
    return SmsTemplate.objects.create(name=name, language=language, body=body)


# --- which text


@pytest.mark.parametrize(
    ("language", "expected"),
    [("ru", "ru"), ("ru-ru", "ru"), ("RU_ru", "ru"), ("pt-br", "pt-br"), ("pt", "all"),
     ("de-at", "all"), ("", "all")],
)  # fmt: skip
def test_the_text_is_that_of_the_language_or_of_all(language, expected):
    for code in ("ru", "pt-br", ""):
        save(code or "all", language=code)
    assert render_template("ready", language=language) == expected
    with override("en"):
        assert render_template("ready", language=language) == expected


def test_without_a_language_it_is_the_active_one():
    save("Готово", language="ru")
    save("Ready")
    with override("ru"):
        assert render_template("ready") == "Готово"
    with override("de"):
        assert render_template("ready") == "Ready"
    with override(None):
        assert render_template("ready") == "Ready"


def test_numbers_and_dates_are_written_in_the_language_of_the_text():
    save("{sum} {day}", language="ru")
    save("{sum} {day}", "any")
    values = {"sum": Decimal("9.5"), "day": date(2026, 5, 9)}
    with override("en"):
        assert render_template("ready", language="ru", **values) == "9,5 9 мая 2026 г."
        assert render_template("any", **values) == "9.5 May 9, 2026"
        assert render_template("any", language="ru", **values) == "9,5 9 мая 2026 г."


def test_an_unknown_name_is_reported_with_those_that_are_there():
    with pytest.raises(UnknownTemplate, match="no template “x”, and no other"):
        render_template("x")
    save("a", language="ru")
    save("b", language="de")
    save("c", "code")
    with pytest.raises(UnknownTemplate, match="no template “Ready”. There are: code, ready.$"):
        render_template("Ready", language="ru")
    with pytest.raises(SmsNotSent, match="“ready” has no text for the language “en”.* de, ru.$"):
        render_template("ready", language="en")


# --- sending it


def test_what_is_no_parameter_of_sending_is_a_value():
    save("{name}, {order}: {Sender}")
    message = send_template(
        "ready", TO, name="Anna", order="A-17", values={"sender": "we"}, sender="Shop", priority=3
    )
    assert outbox == [message] and message.body == "Anna, A-17: we"
    assert (message.sender, message.priority, message.status) == ("Shop", 3, "sent")


def test_a_template_takes_part_in_each_way_of_sending():
    save("Code {code}")
    assert queue_sms(TO, render_template("ready", code=7)).body == "Code 7"
    with_code = send_code(TO, render_template("ready", code="1234"), code="1234")
    assert with_code.sensitive and with_code.body == "Code ••••"
    pairs = ((f"{TO[:-1]}{at}", render_template("ready", code=at)) for at in range(3))
    assert send_mass_sms(pairs) == 3
    assert {one.body for one in SmsMessage.objects.filter(body__startswith="Code ")} >= {"Code 2"}


@pytest.mark.parametrize(
    ("name", "values", "error"),
    [
        ("gone", {}, UnknownTemplate),
        ("ready", {}, ValidationError),
        ("ready", {"order": ""}, ValidationError),
        ("ready", {"order": dict}, ValidationError),
        ("ready", {"order": 1, "values": {"Order": 2}}, ValidationError),
        ("broken", {"order": 1}, ValidationError),
        ("ready", {"order": 1, "using": "gone"}, Exception),
        ("ready", {"order": 1, "send_after": date(2030, 1, 1)}, TypeError),
    ],
)
def test_what_is_wrong_is_raised_before_anything_is_stored(name, values, error):
    save("{order}")
    save("{% now 'Y' %}", "broken")
    with pytest.raises(error):
        send_template(name, TO, **values)
    assert not SmsMessage.objects.exists() and not outbox


def test_no_frame_of_an_error_holds_a_number_or_a_value():
    """Error trackers report the local variables of every frame."""
    save("{order} {more}")
    number, secret = "".join(("+7904", "1764995")), "-".join(("Sec", "ret"))
    with pytest.raises(ValidationError) as caught:
        send_template("ready", number, order=secret, sender="x")
    place, frames = caught.value.__traceback__.tb_next, 0
    while place is not None:
        seen = repr(place.tb_frame.f_locals)
        assert number not in seen and secret not in seen
        place, frames = place.tb_next, frames + 1
    assert frames


@pytest.mark.django_db(transaction=True)
def test_asynchronous_code_sends_in_its_own_language():
    save("Готово: {order}", language="ru")
    save("Ready: {order}")

    async def both():
        with override("ru"):
            first = await asend_template("ready", TO, order=1)
        with override("en"):
            return first, await asend_template("ready", TO, order=2)

    # Unlike asyncio.run(), it lets synchronous code run in this thread, with its connection.
    assert [one.body for one in async_to_sync(both)()] == ["Готово: 1", "Ready: 2"]


# --- the admin


LIST = "/admin/django_smska/smstemplate/"
COMPOSE = "/admin/django_smska/smsmessage/compose/"


@pytest.fixture
def log_in(client):
    def log_in(*codenames):
        user = User.objects.create_user("clerk", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        client.user = user
        return client

    return log_in


EDITS = [f"{name}_smstemplate" for name in ("view", "add", "change", "delete")]
SEES = "see_text_smsmessage"
WRITES = [f"{name}_smsmessage" for name in ("view", "add", "send")]


def fields(**changes):
    return {"name": "ready", "language": "ru", "body": "Готово, {имя}"} | changes


def test_a_template_is_added_and_changed(log_in):
    client = log_in(*EDITS, SEES)
    response = client.post(f"{LIST}add/", fields(body="Готово,\r\n{имя}"))
    one = SmsTemplate.objects.get()
    assert response.status_code == 302 and (one.language, one.body) == ("ru", "Готово,\n{имя}")
    assert one.created_by == client.user
    page = client.get(f"{LIST}{one.pk}/change/").content.decode()
    assert '<option value="">all languages</option>' in page
    assert '<option value="ru" selected>Russian</option>' in page
    assert "data-segments=" in page and "django_smska/counter.js" in page
    client.post(f"{LIST}{one.pk}/change/", fields(language="", body="x"))
    one.refresh_from_db()
    assert (one.language, one.body, str(one)) == ("", "x", "ready")
    assert "all languages" in client.get(LIST).content.decode()
    client.post(f"{LIST}{one.pk}/delete/", {"post": "yes"})
    assert not SmsTemplate.objects.exists()


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"body": "{{имя}}"}, "body", "write {имя}, with one brace on each side."),
        ({"body": "{% if x %}"}, "body", "is no placeholder"),
        ({"body": ""}, "body", "required"),
        ({"language": "xx"}, "language", "not one of the available choices"),
        ({"name": "there"}, "__all__", "There is a template with this name and language."),
    ],
)
def test_what_is_wrong_is_said_at_its_field(log_in, changes, field, words):
    save("x", "there", "ru")
    response = log_in(*EDITS, SEES).post(f"{LIST}add/", fields(**changes))
    errors = response.context["adminform"].form.errors
    assert list(errors) == [field] and words in errors[field][0]
    assert SmsTemplate.objects.count() == 1


def test_a_language_that_the_site_has_no_more_is_kept(log_in):
    one = save("x", language="tlh")
    client = log_in(*EDITS, SEES)
    assert '<option value="tlh" selected>tlh</option>' in (
        client.get(f"{LIST}{one.pk}/change/").content.decode()
    )
    client.post(f"{LIST}{one.pk}/change/", fields(language="tlh", body="y"))
    one.refresh_from_db()
    assert (one.language, one.body) == ("tlh", "y")


def test_who_may_not_see_texts_sees_that_it_is_hidden_and_changes_nothing(log_in):
    one = save("Secret {x}")
    client = log_in(*EDITS, *WRITES)
    for url in (LIST, f"{LIST}{one.pk}/change/", f"{LIST}{one.pk}/history/", COMPOSE):
        page = client.get(url).content.decode()
        assert "Secret" not in page and "?template=" not in page
    assert "(hidden)" in client.get(f"{LIST}{one.pk}/change/").content.decode()
    assert client.post(f"{LIST}{one.pk}/change/", fields()).status_code == 403
    assert SmsTemplate.objects.get().body == "Secret {x}"


@pytest.mark.parametrize(("lacks", "links"), [("", 1), ("send_smsmessage", 0), (SEES, 0)])
def test_who_may_write_is_led_to_the_page_for_it(log_in, lacks, links):
    one = save("Secret {x}")
    client = log_in(*({*EDITS, *WRITES, SEES} - {lacks}))
    href = f'href="{COMPOSE}?template={one.pk}"'
    for url in (LIST, f"{LIST}{one.pk}/change/"):
        assert client.get(url).content.decode().count(href) == links, url
    assert f"{COMPOSE}?template" not in client.get(f"{LIST}add/").content.decode()


def test_changing_templates_is_of_no_use_without_their_texts():
    assert gaps({"change_smstemplate"}) == {"change_smstemplate": SEES}
    assert not gaps({"change_smstemplate", SEES}) and not gaps({"view_smstemplate", SEES})

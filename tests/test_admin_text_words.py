"""What the pages say about a text: its cost, what looks forgotten in it, how a phone shows it."""

import re
from html import unescape

import pytest
from django.contrib.auth.models import User
from django.template.loader import render_to_string

from django_smska.admin import text_words
from django_smska.admin.forms import CountedTextarea

PAGE = "/admin/django_smska/smsmessage/compose/"


# --- what would make it cost less


@pytest.mark.parametrize(
    "text, said",
    [
        ("", []),
        ("Parcel 7", []),
        ("Посылка №7", []),
        ("Посылка — «Ёлка»", []),
        (
            "Parcel №7",
            ["Because of “№”, one SMS holds 70 characters and not 160."],
        ),
        (
            "Parcel №7 — " + "x" * 130,
            [
                "Because of “№”, “—”, one SMS holds 70 characters and not 160.",
                "Without such characters: 1 SMS and not 3.",
            ],
        ),
        (
            "a\u00a0b\u200b",
            ["Because of U+00A0, U+200B, one SMS holds 70 characters and not 160."],
        ),
        (
            "Parсel",
            ["Because of “с” (U+0441), one SMS holds 70 characters and not 160."],
        ),
        ("ы" * 71, ["1 character fewer at the end would make it 1 SMS and not 2."]),
        ("ы" * 138, ["4 characters fewer at the end would make it 2 SMS and not 3."]),
        ("ы" * 90, []),
        ("z" * 163, ["3 characters fewer at the end would make it 1 SMS and not 2."]),
    ],
)
def test_what_would_make_a_text_cost_less(text, said):
    assert list(text_words.advice(text)) == said


def test_the_script_has_the_words_for_each_number_of_characters():
    lines = str(CountedTextarea().attrs["data-fewer"]).split("\n")
    assert [line.split(" at the end")[0] for line in lines] == [
        "{number} character fewer",
        *["{number} characters fewer"] * 9,
    ]


# --- on a phone


def phone(text, sender="Shop"):
    context = {"phone": text_words.phone(text, sender)}
    return render_to_string("admin/django_smska/smsmessage/phone.html", context)


def bubble(page):
    (found,) = re.findall(r'<p class="smska-phone-text">(.*?)</p>', page, re.DOTALL)
    return found


def test_a_phone_shows_lines_and_blanks_as_they_are():
    page = phone("Dear  Ann,\n\n <b>&</b>\n")
    assert unescape(bubble(page)) == "Dear  Ann,\n\n <b>&</b>\n" and "<b>" not in page
    assert "smska-cut" not in page and "Phones join" not in page
    assert '<p class="smska-phone-sender">Shop</p>' in page


def test_a_phone_shows_where_each_further_segment_begins():
    text = "ы" * 66 + "🚀" + "ы" * 80
    mark = '<span class="smska-cut" role="img" aria-label="SMS {0}">{0}</span>'
    cut = bubble(phone(text)).split(mark.format(2))
    assert cut[0] == "ы" * 66
    assert cut[1].split(mark.format(3)) == ["🚀" + "ы" * 65, "ы" * 15]
    assert "Phones join them to one text." in phone(text)


@pytest.fixture
def boss(client, db):
    client.force_login(User.objects.create_superuser("boss"))
    return client


def check(client, body, sender=""):
    fields = {"numbers": "+79041764995", "using": "default", "nonce": "n1"}
    return client.post(PAGE, {**fields, "body": body, "sender": sender}).content.decode()


def test_the_second_page_shows_the_phone_and_what_would_save(boss):
    page = check(boss, "Parcel №7\r\n" + "x" * 80, sender="Depot")
    assert unescape(bubble(page)).startswith("Parcel №7\nxxx")
    assert '<p class="smska-phone-sender">Depot</p>' in page
    assert "2 segments for each number. Because of “№”" in page
    assert "Without such characters: 1 SMS and not 2." in page


def test_reports_of_the_pages_context_show_no_text(boss):
    """Those who get Django's mails of errors may not see texts."""
    fields = {"numbers": "+79041764995", "using": "default", "nonce": "n1"}
    context = boss.post(PAGE, {**fields, "body": "Ann №" + "x" * 80}).context
    for name in ("phones", "advice"):
        assert context[name] and not re.search("Ann|xxx|№", repr(context[name]))


@pytest.mark.parametrize(
    "options, shown",
    [({"sender_id": "Depot"}, "Depot"), ({}, "The provider&#x27;s sender")],
)
def test_above_the_text_stands_the_sender_that_the_provider_takes(boss, settings, options, shown):
    login = {"api_key": "k", "api_password": "p"}
    backend = "django_smska.backends.smska.SmsBackend"
    settings.SMS_PROVIDERS = {"default": {"BACKEND": backend, "OPTIONS": {**login, **options}}}
    assert f'<p class="smska-phone-sender">{shown}</p>' in check(boss, "Hello")
    assert f'data-sender="{shown}"' in boss.get(PAGE).content.decode()

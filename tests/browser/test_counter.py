"""The counter under a text: what it shows, and that it agrees with Python."""

import random

import pytest

from django_smska.admin import text_words
from django_smska.models import SmsMessage
from django_smska.segments import GSM_BASIC, GSM_EXTENSION, count, parts, savings

from .pages import fits

LIST = "/admin/django_smska/smsmessage/"

TABLE = [
    "",
    "a" * 160,
    "a" * 161,
    "a" * 306,
    "a" * 307,
    "€" * 80,
    "€" * 81,
    "a" * 152 + "€" + "a" * 152,
    "a" * 151 + "[" + "a" * 153,
    "я" * 70,
    "я" * 71,
    "я" * 134,
    "я" * 135,
    "😀" * 35,
    "😀" * 36,
    "я" * 66 + "😀" + "я" * 66,
    "я" * 65 + "😀" + "я" * 67,
    "Order №5",
    "{}[]^~|\\\f€",
    "two\nlines\r\nthree\rfour",
    "\t",
    "e\u0301 \u00a0 \u200b \ufeff 👨‍👩‍👧 🇷🇺",
    "Parcel №7 — “blue”" + "x" * 150,
    "Your pаrcel, Ånn: garçon, ğ ẅ",
    "Parcel для Ann",
    "a №—“”«",
    "a №—“”«»",
    "🎉",
    "я" * 80,
    "я" * 81,
    "я" * 66 + "😀" * 4,
]


def texts():
    """The table, and texts drawn near each boundary from characters of every width."""
    draw = random.Random(20140505)
    latin, wide = sorted(GSM_BASIC), sorted(GSM_EXTENSION)
    other = [*"яЖё№«»—ç`\t\u00a0", *"😀🚀𝄞"]
    kinds = [latin, latin + wide, latin + wide * 30, latin + other, other, latin * 9 + [*"№🚀"]]
    lengths = [1, 60, 70, 80, 134, 153, 160, 201, 306, 320, 460, 700]
    drawn = (
        "".join(draw.choices(draw.choice(kinds), k=draw.choice(lengths) + draw.randrange(-1, 4)))
        for _ in range(600)
    )
    return [*TABLE, *drawn]


@pytest.fixture
def writing(look, superuser):
    page = look(superuser)
    page.goto(f"{LIST}add/")
    return page


def test_python_and_javascript_count_the_same(writing):
    shown = writing.evaluate("texts => texts.map(smska.count)", texts())
    for text, size in zip(texts(), shown, strict=True):
        assert size == {**count(text)._asdict(), "characters": len(text)}, repr(text)


def test_python_and_javascript_cut_at_the_same_places(writing):
    shown = writing.evaluate("texts => texts.map(smska.parts)", texts())
    for text, cut in zip(texts(), shown, strict=True):
        assert cut == parts(text), repr(text)


def test_python_and_javascript_know_the_same_savings(writing):
    shown = writing.evaluate("texts => texts.map(smska.savings)", texts())
    for text, found in zip(texts(), shown, strict=True):
        assert {**found, "odd": tuple(found["odd"])} == savings(text)._asdict(), repr(text)
    assert len({found["fewer"] for found in shown}) > 5  # each is met
    assert sum(bool(found["odd"]) for found in shown) > 20


def test_python_and_javascript_know_the_same_alphabet(writing):
    """Every character of the first two planes, alone: 1 unit, 2 units, or another alphabet."""
    units = """() => Array.from({length: 0x20000}, (_, code) => String.fromCodePoint(code))
        .map((one) => [one, smska.count(one)])
        .filter(([one, size]) => size.encoding === "GSM-7")
        .map(([one, size]) => [one, size.units])"""
    expected = {**dict.fromkeys(GSM_BASIC, 1), **dict.fromkeys(GSM_EXTENSION, 2)}
    assert dict(writing.evaluate(units)) == expected


def test_the_counter_follows_the_typing(writing):
    counter = writing.locator(".smska-counter")
    assert counter.inner_text().strip() == "The text is empty."
    writing.fill("#id_body", "Order 5")
    assert "Characters: 7. Room left in this segment: 153." in counter.inner_text()
    assert "Segments: 1." in counter.inner_text() and "Because" not in counter.inner_text()
    writing.fill("#id_body", "Order №5\n" + "x" * 70)
    assert "Characters: 79. Room left in this segment: 55." in counter.inner_text()
    assert "Segments: 2." in counter.inner_text()
    writing.fill("#id_body", " \n")
    assert counter.inner_text().strip() == "The text is empty."


@pytest.mark.parametrize(
    "text",
    [
        "Order №5",
        "Parcel №7 — " + "x" * 130,
        "a\u00a0b\u200b",
        "Parсel",
        "Посылка №7",
        "ы" * 71,
        "ы" * 138,
        "ы" * 90,
        "z" * 163,
    ],
)
def test_the_counter_advises_as_the_check_page_does(writing, text):
    writing.fill("#id_body", text)
    said = writing.locator(".smska-counter [role=status]").inner_text()
    assert said == " ".join([f"Segments: {count(text).segments}.", *text_words.advice(text)])


def test_the_phone_shows_the_text_the_sender_and_where_it_is_cut(writing):
    phone = writing.locator(".smska-phone")
    assert not phone.is_visible()
    writing.fill("#id_body", "Dear  Ann,\n\n<b>")
    assert phone.locator(".smska-phone-text").inner_text() == "Dear  Ann,\n\n<b>"
    assert phone.locator(".smska-phone-sender").inner_text() == "Test"
    assert phone.locator(".smska-cut").count() == 0
    assert not phone.get_by_text("Phones join").is_visible()
    writing.fill("#id_sender", "Depot")
    assert phone.locator(".smska-phone-sender").inner_text() == "Depot"
    writing.fill("#id_body", "ы" * 66 + "🚀" + "ы" * 80)
    shown = phone.locator(".smska-phone-text").evaluate(
        "box => [...box.childNodes].map(one => one.textContent)"
    )
    assert shown == ["ы" * 66, "2", "🚀" + "ы" * 65, "3", "ы" * 15]
    marks = [mark.get_attribute("aria-label") for mark in phone.locator(".smska-cut").all()]
    assert marks == ["SMS 2", "SMS 3"]
    assert phone.get_by_text("Phones join").is_visible()


def test_the_counter_is_reported_to_screen_readers(writing):
    described = writing.get_attribute("#id_body", "aria-describedby").split()
    assert "id_body_counter" in described
    assert writing.locator("#id_body_counter").is_visible()
    assert writing.locator(".smska-counter [role=status]").count() == 1


def test_the_counter_stands_under_a_stored_drafts_text(look, superuser):
    draft = SmsMessage(to="+79041764995", body="Order №5")
    draft.save()
    page = look(superuser)
    page.goto(f"{LIST}{draft.pk}/change/")
    assert "Because of “№”, one SMS holds 70" in page.locator(".smska-counter").inner_text()
    assert page.locator(".smska-phone-text").inner_text() == "Order №5"


@pytest.mark.parametrize("theme, width", [("light", 1200), ("dark", 360)])
def test_the_phone_is_accessible_and_fits(look, superuser, accessible, theme, width):
    page = look(superuser, theme=theme, width=width)
    page.goto(f"{LIST}compose/")
    page.fill("#id_body", "Ваш заказ готов: https://shop.example/" + "x" * 150)
    assert page.locator(".smska-cut").count() == 2
    accessible(page)
    assert fits(page)


def test_without_scripts_the_check_page_shows_the_same_phone(look, superuser):
    text = "Посылка\n\nу двери " + "ы" * 80
    pages = [look(superuser), look(superuser, script=False)]
    for page in pages:
        page.goto(f"{LIST}compose/")
        page.fill("#id_numbers", "+79041764995")
        page.fill("#id_body", text)
    live = pages[0].locator(".smska-phone").inner_text()
    for page in pages:
        page.click("input[name=_check]")
        page.wait_for_selector("input[name=_send]")
        assert page.locator(".smska-phone").inner_text() == live

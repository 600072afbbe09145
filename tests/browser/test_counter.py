"""The counter under a text: what it shows, and that it agrees with Python."""

import random

import pytest

from django_smska.models import SmsMessage
from django_smska.segments import GSM_BASIC, GSM_EXTENSION, count

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
]


def texts():
    """The table, and texts drawn near each boundary from characters of every width."""
    draw = random.Random(20140505)
    latin, wide = sorted(GSM_BASIC), sorted(GSM_EXTENSION)
    other = [*"яЖё№«»—ç`\t\u00a0", *"😀🚀𝄞"]
    kinds = [latin, latin + wide, latin + wide * 30, latin + other, other]
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
    shown = writing.evaluate("texts => texts.map(smskaCount)", texts())
    for text, size in zip(texts(), shown, strict=True):
        assert size == {**count(text)._asdict(), "characters": len(text)}, repr(text)


def test_python_and_javascript_know_the_same_alphabet(writing):
    """Every character of the first two planes, alone: 1 unit, 2 units, or another alphabet."""
    units = """() => Array.from({length: 0x20000}, (_, code) => String.fromCodePoint(code))
        .map((one) => [one, smskaCount(one)])
        .filter(([one, size]) => size.encoding === "GSM-7")
        .map(([one, size]) => [one, size.units])"""
    expected = {**dict.fromkeys(GSM_BASIC, 1), **dict.fromkeys(GSM_EXTENSION, 2)}
    assert dict(writing.evaluate(units)) == expected


def test_the_counter_follows_the_typing(writing):
    counter = writing.locator(".smska-counter")
    assert "Characters: 0. Room left in this segment: 160." in counter.inner_text()
    writing.fill("#id_body", "Order 5")
    assert "Characters: 7. Room left in this segment: 153." in counter.inner_text()
    assert "Segments: 1. Alphabet: Latin (GSM-7)." in counter.inner_text()
    writing.fill("#id_body", "Order №5\n" + "x" * 70)
    assert "Characters: 79. Room left in this segment: 55." in counter.inner_text()
    assert "Segments: 2." in counter.inner_text()
    assert "because of “№”, character 7." in counter.inner_text()
    writing.fill("#id_body", "a\u00a0b")
    assert "because of “U+00A0”, character 2." in counter.inner_text()


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
    assert "because of “№”, character 7." in page.locator(".smska-counter").inner_text()

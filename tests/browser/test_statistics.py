"""The statistics in a real browser."""

from datetime import timedelta

import pytest
from django.utils import timezone

from django_smska import daily_counts
from django_smska.models import SmsMessage
from django_smska.states import Status

from .pages import fits

PAGE = "/admin/django_smska/smsmessage/statistics/"


@pytest.fixture
def messages(transactional_db):
    """Some of each status on each of some days, so many of a sender's long name and of codes."""
    now = timezone.now()
    SmsMessage.objects.bulk_create(
        SmsMessage(
            to="+79041764995",
            body="Hello",
            sender="A sender with a long name",
            status=status if number % 3 else Status.DELIVERED,
            error_code="-6" if status == Status.FAILED else "",
            segments=2,
            created_at=now - timedelta(days=day),
            expires_at=now,
            lease_until=now,
            sent_at=now - timedelta(days=day),
            finished_at=now - timedelta(days=day) + timedelta(seconds=number**2),
        )
        for day in range(12)
        for status in Status.values
        for number in range(1 + day % 5)
    )
    daily_counts.catch_up()


@pytest.mark.parametrize(("theme", "width"), [("light", 1200), ("dark", 360)])
def test_the_page_is_accessible_and_fits(look, superuser, messages, accessible, theme, width):
    page = look(superuser, theme=theme, width=width)
    page.goto(PAGE)
    assert page.locator("svg[role=img]").count() == 4
    for summary in page.locator("summary", has_text=": table").all():
        summary.click()
    assert fits(page)
    accessible(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_each_colour_stands_out_from_the_ground(look, superuser, messages, theme):
    """Three to one at least, as WCAG asks for parts of pictures."""
    page = look(superuser, theme=theme)
    page.goto(PAGE)
    ratios = page.evaluate(
        """() => {
            const channel = c => c <= 10.31475 ? c / 3294.6 : ((c / 255 + .055) / 1.055) ** 2.4;
            const light = colour => {
                const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(channel);
                return .2126 * r + .7152 * g + .0722 * b + .05;
            };
            const ground = light(getComputedStyle(document.body).backgroundColor);
            const fill = path => light(getComputedStyle(path).fill);
            return [...document.querySelectorAll(".smska-legend path")]
                .map(path => Math.max(fill(path) / ground, ground / fill(path)));
        }"""
    )
    assert len(ratios) == 10
    assert min(ratios) >= 3


def test_the_keyboard_chooses_a_range_and_opens_the_numbers(look, superuser, messages):
    page = look(superuser)
    page.goto(PAGE)
    page.get_by_label("Period").focus()
    page.keyboard.press("7")
    for _ in range(9):  # a date has a stop for each of its parts, and one for its calendar
        page.keyboard.press("Tab")
    page.keyboard.press("w")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Show").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/statistics/?*")
    assert "days=7&since=&until=&by=week" in page.url
    numbers = page.locator("details", has_text="Share delivered: table")
    assert not numbers.locator("table").is_visible()
    numbers.locator("summary").focus()
    page.keyboard.press("Enter")
    assert numbers.locator("table").is_visible()
    assert numbers.get_by_role("columnheader").first.text_content() == "Week from"


def test_the_pictures_are_drawn_without_scripts(look, superuser, messages):
    page = look(superuser, script=False)
    page.goto(PAGE)
    box = page.locator("svg[role=img]").first.locator("path.smska-bar-good").bounding_box()
    assert box["width"] > 200 and box["height"] > 50


def test_a_screen_reader_hears_the_title_and_the_description(look, superuser, messages):
    page = look(superuser)
    page.goto(PAGE)
    picture = page.get_by_role("img", name="Messages by status")
    described_by = picture.get_attribute("aria-describedby")
    assert (
        f"{SmsMessage.objects.count()} messages in total."
        in page.locator(f"#{described_by}").inner_html()
    )

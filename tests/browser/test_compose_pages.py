"""Write, check and send in a real browser."""

import pytest

from django_smska.models import SmsMessage, rows
from django_smska.sms import outbox

from .pages import fits

LIST = "/admin/django_smska/smsmessage/"
PAGE = f"{LIST}compose/"


@pytest.fixture
def writing(look, superuser):
    page = look(superuser)
    page.goto(PAGE)
    return page


def test_a_text_with_lines_is_counted_as_it_is_stored(writing):
    """Browsers send two characters for a line's end; the counter and the app count one."""
    writing.fill("#id_numbers", "+79041764995")
    writing.fill("#id_body", "a\n" * 80 + "b")
    assert "Segments: 2." in writing.locator(".smska-counter").inner_text()
    writing.click("text=Check…")
    assert "1 message, 2 segments" in writing.inner_text("#content")


def test_with_the_keyboard_alone_from_the_form_to_the_sent_message(look, superuser, accessible):
    page = look(superuser)
    page.goto(PAGE)
    page.focus("#id_numbers")
    page.keyboard.type("8 904 176-49-95")
    for _ in range(2):
        page.keyboard.press("Tab")
    page.keyboard.type("Ready")
    until(page, "input[name=_check]")
    page.keyboard.press("Enter")
    page.wait_for_selector("input[name=_send]")
    until(page, "input[name=_send]")
    page.keyboard.press("Enter")
    page.wait_for_selector(".messagelist")
    assert "Sent: SMS to" in page.inner_text(".messagelist")
    assert [message.body for message in outbox] == ["Ready"]


def until(page, selector):
    """Press Tab until this has the focus."""
    for _ in range(40):
        if page.locator(selector).evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the Tab key does not lead to {selector}")


def test_going_back_in_the_browser_and_pressing_again_sends_nothing_twice(writing):
    writing.fill("#id_numbers", "+79041764995")
    writing.fill("#id_body", "Ready")
    writing.click("text=Check…")
    writing.click("input[name=_send]")
    writing.wait_for_selector(".messagelist")
    writing.go_back()
    writing.click("input[name=_send]")
    writing.wait_for_selector(".messagelist")
    assert "will not be sent again" in writing.inner_text(".messagelist")
    assert SmsMessage.objects.count() == len(outbox) == 1


def test_without_scripts_a_file_of_numbers_is_sent(look, superuser):
    page = look(superuser, script=False)
    page.goto(PAGE)
    data = "Имя;Телефон\nИван;8 904 176-49-95\nЁж;+79041764996\n".encode("windows-1251")
    file = {"name": "people.csv", "mimeType": "text/csv", "buffer": data}
    page.set_input_files("#id_file", file)
    page.fill("#id_body", "Ready")
    assert page.locator(".smska-counter").count() == 0
    page.click("input[name=_check]")
    assert "The numbers come from the column “Телефон”." in page.inner_text("#content")
    page.click("input[name=_back]")
    assert page.input_value("#id_numbers").split("\n")[1:] == ["8 904 176-49-95", "+79041764996"]
    page.click("input[name=_check]")
    page.click("input[name=_send]")
    assert "Sent: 2 messages" in page.inner_text(".messagelist")


@pytest.mark.parametrize("theme, width", [("light", 1200), ("dark", 360)])
def test_the_pages_are_accessible_and_fit(look, superuser, accessible, theme, width):
    page = look(superuser, theme=theme, width=width)
    page.goto(PAGE)
    looks_well(page, accessible)
    page.click("input[name=_check]")
    page.wait_for_selector(".errornote")
    looks_well(page, accessible)
    numbers = [f"+7904{index:07}" for index in range(400)]
    page.fill("#id_numbers", "\n".join([*numbers, *(["Ivan", numbers[0]] * 30)]))
    page.fill("#id_body", "Ваш заказ №5 готов: https://shop.example/" + "x" * 100)
    looks_well(page, accessible)
    page.click("input[name=_check]")
    page.wait_for_selector("input[name=_send]")
    looks_well(page, accessible)


def looks_well(page, accessible):
    accessible(page)
    assert fits(page)


@pytest.mark.parametrize("width, theme", [(1200, "light"), (360, "dark")])
def test_what_was_skipped_is_corrected_in_its_place(look, superuser, accessible, width, theme):
    page = look(superuser, width=width, theme=theme)
    page.goto(PAGE)
    page.fill("#id_numbers", "Anna 8 904 176-49-95\nPaul 8 904 176-49-9\nx <y>")
    page.fill("#id_body", "Ready")
    page.click("text=Check…")
    field = page.get_by_label("Correct the skipped ones")
    assert field.input_value() == "Paul 8 904 176-49-9\nx <y>"
    accessible(page)
    assert fits(page)
    field.fill("Paul 8 904 176-49-96")
    page.click("text=Add as corrected and check again")
    assert page.inner_text(".smska-numbers") == "+7 904 176-49-95, +7 904 176-49-96"
    assert page.locator("[name=corrected]").count() == 0
    page.click("input[name=_send]")
    page.wait_for_selector(".messagelist")
    assert len(outbox) == 2


@pytest.mark.parametrize("width, theme", [(1200, "dark"), (360, "light")])
def test_the_text_of_a_cancelled_draft_can_be_written_again(
    look, superuser, accessible, complaints, width, theme
):
    message = SmsMessage(to="+79041764995", body="Old")
    message.save()
    page = look(superuser, width=width, theme=theme)
    page.goto(f"{LIST}{message.pk}/change/")
    page.fill("#id_body", "Mine")
    rows([message.pk]).update(status="cancelled")
    page.click("input[name=_save]")
    assert page.locator("textarea").input_value() == "Mine"
    accessible(page)
    assert fits(page)
    complaints.clear()  # of the status 409
    page.click("text=Write it as a new message")
    assert page.input_value("#id_body") == "Mine"
    assert page.input_value("#id_numbers") == "+79041764995"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_test_to_oneself_by_the_enter_key_before_anything_else_is_sent(
    look, superuser, accessible, theme
):
    page = look(superuser, width=360, theme=theme)
    page.goto(PAGE)
    page.fill("#id_numbers", "+79261110022\nAnna 99")
    page.fill("#id_body", "Ready")
    page.click("text=Check…")
    page.fill("#id_test_number", "12")
    page.press("#id_test_number", "Enter")
    page.wait_for_selector(".smska-test .errorlist")
    assert page.locator("#id_test_number").evaluate("one => one === document.activeElement")
    accessible(page)
    page.fill("#id_test_number", "8 916 555-01-01")
    page.press("#id_test_number", "Enter")
    page.wait_for_selector(".smska-test [role=status]")
    assert "to +7 916 555-01-01" in page.inner_text(".smska-test [role=status]")
    assert [one.to for one in outbox] == ["+79165550101"] and fits(page)
    accessible(page)
    page.click("text=Send now")
    page.wait_for_selector(".messagelist")
    assert [one.to for one in outbox] == ["+79165550101", "+79261110022"]

"""A shop manager's whole job by the keyboard: a messy file, a test, a stop, failures, the cost."""

import pytest

from django_smska.models import SmsMessage
from django_smska.testing.faults import Fault
from django_smska.worker import Worker

PAGE = "/admin/django_smska/smsmessage/compose/"
GOOD = 12
ROWS = [
    "ФИО;Моб. телефон;Заказ",
    *(f"Клиент {at};8 (903) 200-11-{at};А-{at}" for at in range(10, 10 + GOOD)),
    "Иванова А.;тел. 8 903 200-12-40;А-40",
    ";8 903 200-12-41;А-41",
    "Ершов;паспорт 4509 123456;А-42",
    ";;",
    "Клиент 10;89032001110;А-10",
]


@pytest.fixture
def gateway_of_the_day(provider, settings):
    """After the test message it refuses a number, and later it does not answer."""
    settings.SMSKA_PRICES = {"default": ("4.50", "RUB")}
    settings.SMSKA_SEND_AT_ONCE = 1
    provider.script(4, Fault("bad_number"))
    provider.script(6, Fault("close_without_answer"))
    return provider


def test_it_goes_by_the_keyboard_from_the_file_to_the_statistics(
    look, superuser, gateway_of_the_day
):
    page = look(superuser)
    page.goto(PAGE)
    table = {"name": "k.csv", "mimeType": "text/csv", "buffer": "\r\n".join(ROWS).encode("cp1251")}
    page.set_input_files("#id_file", table)
    page.fill("#id_body", "Здравствуйте, {имя}! Заказ {заказ} готов.")
    page.press("#id_name", "Enter")
    page.get_by_text("You can write: {ФИО}, {Заказ}").wait_for()
    page.fill("#id_body", "Здравствуйте, {ФИО}! Заказ {заказ} готов.")
    page.press("#id_name", "Enter")
    page.fill("[name=test_number]", "8 904 176-49-95")
    page.press("input[name=_test]", "Enter")
    page.get_by_text("to +7 904 176-49-95. Look at the message").wait_for()
    page.press("input[name=_leave_out]", "Enter")
    page.get_by_text(f"{GOOD + 1} messages, {GOOD + 1} segments, about ₽58.50").wait_for()
    page.press("input[name=_send]", "Enter")
    page.get_by_text(f"0 of {GOOD + 1} delivered").first.wait_for()

    page.get_by_role("button", name="Stop").press("Enter")
    page.get_by_text(f"Stopped: {GOOD + 1} messages wait.").wait_for()
    assert len(gateway_of_the_day.accepted) == 1  # the test
    page.get_by_role("button", name="Go on…").press("Enter")
    page.get_by_role("button", name="Yes: Let the mailing go on").press("Enter")
    page.get_by_text(f"Queued: {GOOD + 1} messages.").wait_for()
    Worker().run_once()
    page.get_by_role("row", name="Not sent 1").wait_for()
    page.get_by_role("row", name="Unknown whether it was sent 1").wait_for()
    assert "58.50" in page.inner_text("#content")
    texts = [one.text for one in gateway_of_the_day.accepted[1:]]
    assert len(texts) == len(set(texts)) >= GOOD - 1
    assert "Здравствуйте, Иванова А.! Заказ А-40 готов." in texts

    page.get_by_role("link", name="Why they were not sent").press("Enter")
    page.get_by_role("heading", name="What failed").wait_for()
    assert "about ₽49.50" in page.inner_text("#content").replace("\N{NO-BREAK SPACE}", " ")
    assert SmsMessage.objects.count() == GOOD + 2

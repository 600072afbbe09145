"""Prices and billed segments, where the provider says them; nothing where it does not."""

import json
from decimal import Decimal
from io import BytesIO, StringIO
from zipfile import ZipFile

import pytest
from django.core.management import call_command
from django.utils import translation

from django_smska.admin.wording import money
from django_smska.models import SmsMessage
from django_smska.sms import send_sms
from tests.test_admin_export import exported

pytestmark = pytest.mark.django_db

LIST = "/admin/django_smska/smsmessage/"
NUMBER = "+79041764995"


def make(**fields):
    message = send_sms(NUMBER, "Ваш заказ готов")
    SmsMessage.objects.filter(pk=message.pk).update(**fields)
    return message


def content(response):
    assert response.status_code == 200
    return response.content.decode().partition('id="content"')[2]


@pytest.mark.parametrize(
    ("amount", "english", "russian"),
    [
        ("3.500000", "3.50", "3,50"),
        ("0.007900", "0.0079", "0,0079"),
        ("0", "0.00", "0,00"),
        ("100", "100.00", "100,00"),
        ("1234567.1", "1,234,567.10", "1\xa0234\xa0567,10"),
        ("0.000001", "0.000001", "0,000001"),
    ],
)
def test_an_amount(amount, english, russian):
    assert money(Decimal(amount), "RUB") == f"{english}\xa0RUB"
    assert money(Decimal(amount), "") == english
    with translation.override("ru"):
        assert money(Decimal(amount), "RUB") == f"{russian}\xa0RUB"


@pytest.mark.parametrize(
    ("price", "currency", "shown"),
    [("3.5", "RUB", "3.50\xa0RUB"), ("0.0079", "", "0.0079"), ("0", "RUB", "0.00\xa0RUB")],
)
def test_a_message_shows_what_is_known(admin_client, price, currency, shown):
    message = make(price=price, currency=currency, billed_segments=4)
    page = content(admin_client.get(f"{LIST}{message.pk}/change/"))
    assert "Price:" in page and shown in page
    assert "Billed segments:" in page
    assert page.index("Encoding:") < page.index("Billed segments:") < page.index("Price:")
    assert f"1 · {shown}" in content(admin_client.get(LIST))


def test_billed_segments_without_a_price(admin_client):
    message = make(billed_segments=0)
    page = content(admin_client.get(f"{LIST}{message.pk}/change/"))
    assert "Billed segments:" in page and "Price:" not in page


def test_a_message_shows_nothing_of_what_is_not_known(admin_client):
    message = make()
    page = content(admin_client.get(f"{LIST}{message.pk}/change/"))
    assert "Segments:" in page and "Billed" not in page and "Price" not in page
    page = content(admin_client.get(LIST))
    assert '<td class="field-size">1</td>' in page


def test_an_export_has_them_as_numbers(admin_client):
    make()
    make(price="3.5", currency="RUB", billed_segments=2)
    make(price="0", currency="USD", billed_segments=0)
    make(price="100")
    lines = exported(admin_client, f"{LIST}export/", _csv="1")
    read = [(line["Price"], line["Currency"], line["Billed segments"]) for line in lines]
    assert read == [("100", "", ""), ("0", "USD", "0"), ("3,5", "RUB", "2"), ("", "", "")]
    file = admin_client.post(f"{LIST}export/", {"_xlsx": "1"})
    book = ZipFile(BytesIO(b"".join(file.streaming_content)))
    sheet = book.read("xl/worksheets/sheet1.xml").decode()
    assert "<c><v>3.5</v></c>" in sheet and "<c><v>100</v></c>" in sheet
    assert sheet.count("<v>0</v>") == 2


def test_a_persons_file_has_them():
    make()
    make(price="3.5", currency="RUB", billed_segments=2)
    out = StringIO()
    call_command("sms_person", NUMBER, stdout=out)
    columns = ("price", "currency", "billed_segments")
    read = [tuple(one[name] for name in columns) for one in json.loads(out.getvalue())]
    assert read == [(None, "", None), ("3.500000", "RUB", 2)]

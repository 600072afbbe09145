"""Prices and billed segments, where the provider says them; nothing where it does not."""

import json
import re
from decimal import Decimal
from io import BytesIO, StringIO
from zipfile import ZipFile

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.utils import timezone, translation

from django_smska import opt_out
from django_smska.admin.wording import money
from django_smska.models import ProviderState, SmsMessage
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


def without_token(page):
    return re.sub(r"csrfmiddlewaretoken[^>]*", "", page)


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
    assert money(Decimal(amount), "RUB") == f"₽{english}"
    assert money(Decimal(amount), "") == english
    with translation.override("ru"):
        assert money(Decimal(amount), "RUB") == f"{russian}\xa0₽"


@pytest.mark.parametrize(
    ("currency", "english", "russian"),
    [
        ("EUR", "-€2.50", "-2,50\xa0€"),
        ("USD", "-$2.50", "-2,50\xa0$"),
        ("CHF", "-2.50\xa0CHF", "-2,50\xa0CHF"),
    ],
)
def test_a_currency_without_a_well_known_sign_keeps_its_code(currency, english, russian):
    assert money(Decimal("-2.5"), currency) == english
    with translation.override("ru"):
        assert money(Decimal("-2.5"), currency) == russian


@pytest.mark.parametrize(
    ("price", "currency", "shown"),
    [("3.5", "RUB", "₽3.50"), ("0.0079", "", "0.0079"), ("0", "RUB", "₽0.00")],
)
def test_a_message_shows_what_is_known(admin_client, price, currency, shown):
    message = make(price=price, currency=currency, billed_segments=4)
    page = content(admin_client.get(f"{LIST}{message.pk}/change/"))
    assert "Price:" in page and shown in page
    assert "Billed segments:" in page
    assert page.index("Segments:") < page.index("Billed segments:") < page.index("Price:")
    assert f'<span class="smska-details">{shown}</span>' in content(admin_client.get(LIST))


def test_billed_segments_without_a_price(admin_client):
    message = make(billed_segments=0)
    page = content(admin_client.get(f"{LIST}{message.pk}/change/"))
    assert "Billed segments:" in page and "Price:" not in page


def test_a_message_shows_nothing_of_what_is_not_known(admin_client):
    message = make()
    page = content(admin_client.get(f"{LIST}{message.pk}/change/"))
    assert "Segments:" in page and "Billed" not in page and "Price" not in page
    page = content(admin_client.get(LIST))
    assert "smska-details" not in page and "segment" not in page


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


class TestBeforeSending:
    """What the page before sending says: 3 numbers, and 2 segments for each."""

    NUMBERS = ("+79031112233", "+79031112244", "+79031112255")

    @pytest.fixture
    def accounts(self, settings):
        """Let there be a provider whose balance is in roubles."""
        login = {"login": "shop", "password": "x"}
        smsc = {"BACKEND": "django_smska.backends.smsc.SmsBackend", "OPTIONS": login}
        settings.SMS_PROVIDERS = {**settings.SMS_PROVIDERS, "smsc": smsc}

    def page(self, client, using="smsc", body="я" * 71):
        form = {"numbers": "\n".join(self.NUMBERS), "body": body, "using": using, "nonce": "n"}
        return content(client.post(f"{LIST}compose/", form))

    def balance(self, balance, alias="smsc"):
        state = {"balance": Decimal(balance), "balance_at": timezone.now()}
        ProviderState.objects.update_or_create(alias=alias, defaults=state)

    def test_cost_and_what_is_left(self, admin_client, accounts, settings):
        settings.SMSKA_PRICES = {"smsc": ("206.50", "RUB")}
        self.balance("2000.25")
        page = self.page(admin_client)
        assert "3 messages, 6 segments, about ₽1,239.00</strong>" in page
        assert "about ₽1,239.00: ₽206.50 for each segment</dd>" in page
        assert "<dd>₽2,000.25, as of " in page
        assert "<dd>about ₽761.25, if nothing else is sent</dd>" in page
        assert "smska-warns" not in page

    def test_a_balance_that_does_not_suffice(self, admin_client, accounts, settings):
        settings.SMSKA_PRICES = {"smsc": ("2.50", "RUB")}
        self.balance("14.90")
        page = self.page(admin_client)
        assert '<li class="smska-warns">The balance does not suffice. The account lacks ' in page
        assert "lacks about ₽0.10. Top it up first." in page
        assert "Left after sending" not in page and "about ₽15.00" in page
        self.balance("15")
        page = self.page(admin_client)
        assert "suffice" not in page and "<dd>about ₽0.00, if nothing" in page

    def test_a_price_that_was_charged(self, admin_client, accounts):
        make(using="smsc", status="delivered", segments=1, price="0.0079", currency="RUB")
        self.balance("5")
        page = self.page(admin_client)
        average = "₽0.0079 for each segment, on average of the newest messages"
        assert f"about ₽0.0474: {average}" in page
        assert "about ₽4.95, if nothing else" in page and "smska-warns" not in page

    @pytest.mark.parametrize("price", [None, ("3.50", "RUB")])
    def test_what_cannot_be_compared(self, admin_client, settings, price):
        settings.SMSKA_PRICES = {} if price is None else {"default": price}
        self.balance(5, "default")
        page = self.page(admin_client, "default")
        assert "These are 6 segments, and the balance is 5 credits. That may not be" in page
        assert ("about ₽21.00" in page) is (price is not None)
        assert "Left after sending" not in page and "suffice" not in page
        self.balance(6, "default")
        assert "may not be enough" not in self.page(admin_client, "default")

    def test_a_price_in_credits(self, admin_client, settings):
        settings.SMSKA_PRICES = {"default": (1, "credits")}
        self.balance(831, "default")
        page = self.page(admin_client, "default")
        assert "about 6 credits: 1 credit for each segment" in page
        assert "about 825 credits, if nothing else is sent" in page

    def test_without_a_balance(self, admin_client, accounts, settings):
        settings.SMSKA_PRICES = {"smsc": ("2.50", "RUB")}
        page = self.page(admin_client)
        assert "<dd>not known</dd>" in page and "about ₽15.00" in page
        assert "Left after sending" not in page and "smska-warns" not in page

    def test_of_a_provider_that_had_the_alias_before(self, admin_client, settings):
        settings.SMS_PROVIDERS = {"default": {"BACKEND": "tests.pushing.Mute"}}
        self.balance(1, "default")
        page = self.page(admin_client, "default")
        assert "<dd>not known</dd>" in page and "enough" not in page

    def test_no_one_learns_who_is_on_the_do_not_send_list(self, client, accounts, settings):
        """By numbers and a balance that suffices for some of them."""
        settings.SMSKA_PRICES = {"smsc": ("2.50", "RUB")}
        self.balance("14.90")
        seller = User.objects.create_user("seller", is_staff=True)
        names = ("view_smsmessage", "add_smsmessage", "send_smsmessage")
        seller.user_permissions.set(Permission.objects.filter(codename__in=names))
        client.force_login(seller)
        before = without_token(self.page(client))
        opt_out.opt_out(self.NUMBERS[0])
        assert without_token(self.page(client)) == before and "suffice" in before

    def test_drafts_and_what_is_sent_again(self, admin_client, accounts, settings):
        settings.SMSKA_PRICES = {"smsc": ("2.50", "RUB")}
        self.balance("14.90")
        few = make(using="smsc", status="draft", segments=5)
        page = content(admin_client.get(f"{LIST}send/?pks={few.pk}"))
        assert "<td>5, about ₽12.50</td>" in page
        assert "Left after sending: about ₽2.40, if nothing else is sent</td>" in page
        many = make(using="smsc", status="unknown", segments=9, gateway_id="")
        page = content(admin_client.get(f"{LIST}resend/?pks={many.pk}"))
        assert "<strong>The balance does not suffice. The account lacks about ₽7.60" in page

"""What the head of a column, or the text beside a number, says about the digits: a phone number, or
the number of an order, a card, a passport."""

from __future__ import annotations

import re
from enum import IntEnum

from ..numbers import plain

_PHONE = re.compile(
    r"\b(\w*(?<!micro)(?<!head)phone\w*|tel\d*|telefon\w*|mob|mobil\w*|cell\w*|msisdn|gsm|sms|"
    r"whats ?app\d*|wats ?app\d*|viber\d*|"
    r"\w*телефон\w*|телеф|тел\d*|тлф|моб|мобил\w*|сотов\w*|смс|в[ао]тс?[ао]пп?|вацап|вайбер)\b"
)
# Among them the numbers that a shop, a school, a clinic or a bank has in its tables.
_SOMETHING_ELSE = re.compile(
    r"\b(ids?|uuid|guid|codes?|pin|orders?|contracts?|agreements?|\w*cards?|passports?|"
    r"date|datetime|timestamp|time|birth\w*|dob|age|year|created|updated|inn|snils|ssn|tin|"
    r"accounts?|acc|acct|iban|swift|bic|articles?|art|sku|sum|amount|total|price|cost|balance|"
    r"payments?|paid|transactions?|zip|zipcode|postal|postcode|invoices?|waybill|track\w*|"
    r"shipments?|parcels?|receipts?|polic(?:y|ies)|documents?|docs?|series|serial|tickets?|"
    r"bookings?|reservations?|vouchers?|coupons?|promo\w*|certificates?|licen[cs]es?|barcode|ean|"
    r"upc|gtin|imei|imsi|iccid|vin|model|fax\w*|qty|quantity|count|bonus\w*|points?|discount|"
    r"members?|membership|"
    r"ид|идентификатор\w*|код[аы]?|пин|заказ(?:а|ы|у|ов|ам)?|догов\w*|контракт(?:а|ы|ов)?|"
    r"\w*карт(?:а|ы|е|у|ой)?|\w*карточк\w*|паспорт\w*|дат[аыеу]|время|рождени\w*|др|возраст|год|"
    r"создан\w*|инн|снилс|огрн\w*|кпп|бик|окпо|омс|\w*счет[ауе]?|лицевой|л с|р с|артикул\w*|арт|"
    r"сумм[аыуе]|итог\w*|цен[аыуе]|стоимост\w*|баланс\w*|платеж\w*|оплат\w*|транзакц\w*|индекс\w*|"
    r"накладн\w*|трек\w*|отправлени\w*|посылк\w*|чек[аи]?|полис\w*|документ\w*|сери[яи]|серийн\w*|"
    r"заявк\w*|заявлени\w*|обращени\w*|тикет\w*|билет\w*|брон[ьи]|бронировани\w*|ваучер\w*|купон\w*|"
    r"промокод\w*|сертификат\w*|лицензи\w*|штрих\w*|модел[ьи]|факс\w*|кол во|количеств\w*|бонус\w*|"
    r"балл\w*|скидк\w*|абонемент\w*|членск\w*|табельн\w*|зачетк\w*|студенческ\w*|кадастр\w*|"
    r"гос ?номер\w*|дел[оа])\b"
)
_EXTENSION = re.compile(r"\b(x ?\d{1,5}|ext|extension|доб|добавочн\w*|внутр\w*)\b")
_BARE = re.compile(r"no|nr|n|(# )?п п")  # a row's own number, where it is all that is said
_VAGUE = re.compile(
    r"\b(номер[аыу]?|numbers?|num|контакт\w*|contacts?|связ[ьи]|получател\w*|recipients?|кому)\b"
)
_NO_NUMBER = re.compile(
    r"\b(имя|фио|ф и о|фамили\w*|отчеств\w*|клиент\w*|покупател\w*|заказчик\w*|ученик\w*|"
    r"пациент\w*|"
    r"родител\w*|e ?mail|почт\w*|город\w*|адрес\w*|комментари\w*|примечани\w*|статус\w*|компани\w*|"
    r"организаци\w*|менеджер\w*|регион\w*|источник\w*|класс|групп[аы]|"
    r"\w*name|first|last|customers?|clients?|users?|city|address|comments?|notes?|status|company|"
    r"manager|region|country|source|tags?|gender|login|логин)\b"
)


_UNIT_AFTER = re.compile(
    r"\s*(?:[₽$€£¥]|р\.?\s*\Z|(?:руб|рубл(?:ь|я|ей)|шт|rub|usd|eur)\b)", re.IGNORECASE
)
_UNIT_BEFORE = re.compile(r"[₽$€£¥]\s*\Z")
_LAST_WORD = re.compile(r"\w+(?=\W*\Z)")
_LAST_CHARACTERS = 40  # those that are looked at before a number, so that long texts cost no time


class Kind(IntEnum):
    """What digits under a head or beside a text are, in the order of trust."""

    SOMETHING_ELSE = 0
    UNKNOWN = 1
    VAGUE = 2
    PHONE = 3


def kind(text: str) -> Kind:
    """Return what ``text``, a head or a few words, says about digits."""
    words = _words(text)
    something_else = _SOMETHING_ELSE.search(words) or _BARE.fullmatch(words)
    if _PHONE.search(words):  # "Phone for this order" is neither
        return Kind.VAGUE if something_else else Kind.PHONE
    if something_else:
        return Kind.SOMETHING_ELSE
    if _VAGUE.search(words):
        return Kind.VAGUE
    return Kind.SOMETHING_ELSE if "#" in words else Kind.UNKNOWN


def has_extension(text: str) -> bool:
    """Return whether the text beside a number names an extension."""
    return bool(_EXTENSION.search(_words(text)))


def is_amount(before: str, after: str) -> bool:
    """Return whether the text on the sides of digits makes them a price or a quantity."""
    return bool(_UNIT_BEFORE.search(before[-_LAST_CHARACTERS:]) or _UNIT_AFTER.match(after))


def is_introduced(before: str) -> bool:
    """Return whether the last word before a number says that it is one of a phone."""
    last = _LAST_WORD.search(before[-_LAST_CHARACTERS:])
    return last is not None and kind(last[0]) == Kind.PHONE


def is_head(text: str) -> bool:
    """Return whether ``text`` is what people write above a column."""
    return kind(text) != Kind.UNKNOWN or bool(_NO_NUMBER.search(_words(text)))


def _words(text: str) -> str:
    """Return ``PhoneNumber``, ``phone_number`` and ``Phone-number`` as one spelling; № is #."""
    text = re.sub("[№#]", " # ", text)  # or NFKC makes "No" of one
    apart = re.sub(r"(?<=[a-zа-яё])(?=[A-ZА-ЯЁ])", " ", plain(text))
    return " ".join(re.sub(r"[^\w#]|_", " ", apart.casefold().replace("ё", "е")).split())

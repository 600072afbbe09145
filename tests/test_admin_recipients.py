"""Numbers out of pasted text and out of tables."""

import re

import pytest
from django.core.exceptions import ValidationError

from django_smska.admin import recipients, tables
from django_smska.admin.phone_words import Kind, kind
from django_smska.admin.recipients import ReadOut, UnclearColumn, column, read, without
from django_smska.numbers import find, plain
from tests import messy_lines

ONE, TWO, THREE = "+79041764995", "+79041764996", "+79041764997"


def left_out(found):
    return [(one.line, one.written) for one in found]


def chosen(text, asked=""):
    found = column(text if isinstance(text, bytes) else text.encode(), asked)
    return found.title, found.lines


@pytest.mark.parametrize(
    "text",
    [
        "8 904 176-49-95\n8 904 176-49-96",
        "+7(904)1764995\r\n+7(904)1764996\r\n",
        "89041764995,9041764996",
        "8 904 176-49-95; 8 (904) 176 49 96;",
        "\n\n  79041764995 \t 79041764996",
        '\'+79041764995\n="+79041764996"',
        "\u00a08\u00a0904\u00a0176\u201149\u201195\n8.904.176.49.96",
        "89041764995 89041764996",
        "8 904 176-49-95   8 904 176-49-96",
        "+7 904 176 49 95/8(904)1764996",
        "8904 1764995 / +7904 1764996;",
        "8 904 176-49-95 и 8 904 176-49-96",
        "79041764995|79041764996",
        "79041764995,0\n79041764996,00\n",
        "79041764995.0, 7.9041764996E+10",
        "7,9041764995E+10;7,9041764996e10",
        "tel:+7-904-176-49-95\ntel:89041764996",
        "тел. 8904 176 49 95\nwa 89041764996",
        "Иванова А. 89041764995\nПетрову: +7 (904) 176-49-96 (после 18)",
        "1. 8 904 176-49-95\n2) 9041764996",
        "• 8 904 176-49-95\n• 8 904 176-49-96",
        "моб.: 89041764995 кв. 12\nдом 7 кв 3 т. 89041764996",
        "Иванов\t89041764995\tТомск\nПетров, Пётр, 89041764996",
        "\u202a+7\u00a0904\u00a0176-49-95\u202c\n８９０４１７６４９９６",
    ],
)
def test_numbers_are_read_in_any_spelling(text):
    found = read(text)
    assert found.numbers == [ONE, TWO] and not found.bad and not found.doubled


def test_words_among_pasted_numbers_are_no_head():
    for text in (f"{ONE}\nзаказ\n{TWO}", f"Иванов\n{ONE}\n{TWO}", f"Телефон\n{ONE}\n{TWO}"):
        assert read(text).numbers == [ONE, TWO]
    assert read(f"Телефон;Имя\n{ONE};\ud800").numbers == [ONE]


@pytest.mark.parametrize("text", ["+8 904 176-49-95", "Иван +89041764995", "89041764995x15"])
def test_no_number_is_seen_where_there_can_be_none(text):
    found = read(text)
    assert not found.numbers and [one.written for one in found.bad] == [text]


def test_doubled_and_bad_numbers_are_reported_with_their_lines_and_why():
    found = read("8 904 176-49-95\nIvan\n\n+7 904 176 49 95, 8904176\n89041764996")
    assert found.numbers == [ONE, TWO]
    assert left_out(found.doubled) == [(4, "+7 904 176 49 95")]
    assert str(found.doubled[0].why) == "The same number as in line 1."
    assert left_out(found.bad) == [(2, "Ivan"), (4, "8904176")]
    assert "only digits" in found.bad[0].why and "11 digits" in found.bad[1].why


@pytest.mark.parametrize(
    "text, words",
    [
        ("Заказ 9000000001", "not clear which digits"),
        ("карта 89041764995", "not clear which digits"),
        ("ИНН 79041764995", "not clear which digits"),
        ("факс 84951234567", "not clear which digits"),
        ("8 495 123-45-67 доб. 12", "cannot be sent to an extension"),
        ("Тел. 8 904 176-49-95 внутр. 12", "cannot be sent to an extension"),
        ("8 904 176-49-95 12", "A Russian number|not clear"),
        ("12 89041764995 x", "not clear which digits"),
        ("Иванов 89041764995 id1234567", "not clear which digits"),
        ("мама 89041764995 папа 89041764996", "more than one number here. Separate them"),
        ("tel:+79041764995;ext=17", "cannot be sent to an extension"),
        ("8 029 123-45-67", r"starts with \+70"),
        ("Анна +4915112345678…", "only digits"),
        ("Анна +49 151 123 456…", "not clear|only digits"),
        ("890417649951", "A Russian number has 11 digits"),
        ("Анна 8 904 176-49-9", "A Russian number has 11 digits"),
        ("тел. 890417649951 (дом)", "A Russian number has 11 digits"),
        ("Минск 8 029 123-45-67", r"starts with \+70"),
        ("Иван +89041764995", r"starts with \+89"),
        ("8904176499 и 8904176498", "only digits"),
    ],
)
def test_digits_that_may_be_something_else_get_nothing(text, words):
    found = read(text)
    assert not found.numbers and len(found.bad) == 1
    assert re.search(words, found.bad[0].why)


@pytest.mark.parametrize("text", ["7,90418E+10", "7.90418E+10", "7,90418e+10; 89041764996"])
def test_a_number_that_a_spreadsheet_has_shortened_is_reported_to_be_one(text):
    bad = read(text).bad
    assert len(bad) == 1 and "A spreadsheet has shortened this number" in bad[0].why


def test_there_is_a_limit(monkeypatch):
    monkeypatch.setattr(recipients, "MAX_NUMBERS", 3)
    assert len(read("89041764995\n1\n2").bad) == 2
    with pytest.raises(ValidationError, match="More than 3 numbers"):
        read("89041764995\n1\n2\n3")


# --- lines as people paste them


@pytest.mark.parametrize("text, numbers", messy_lines.lines())
def test_each_messy_line_gives_its_numbers_and_no_other(text, numbers):
    assert read(text).numbers == numbers


@pytest.mark.parametrize(
    "text, numbers",
    [
        (f"{ONE}\n9041 550101", [ONE, "+79041550101"]),
        ("9041 550101\n90 55 550102", ["+79041550101", "+79055550102"]),
        (f"9041 550101, {ONE}", ["+79041550101", ONE]),
        (f"{ONE}\n9204 550101\n9041 550101", [ONE, "+79041550101"]),  # the year 2004
        (f"{ONE}\n9041 550101\n4509 550101", [ONE]),
        (f"{ONE}\n9041 550101\nИванов 12", [ONE]),
        ("9041 550101", []),
        ("9204 550101\n9799 550101", []),
        (f"{ONE}\nпаспорт\n9041 550101", [ONE]),
        (f"Телефон\n{ONE}\n9041 550101", [ONE, "+79041550101"]),
    ],
)
def test_the_shape_of_a_passport_is_read_among_phone_numbers_alone(text, numbers):
    """Its third and fourth digits are a year, which many phone numbers have no place for."""
    assert read(text).numbers == numbers


def test_what_may_be_a_passport_is_offered_with_the_reason():
    [bad] = read(f"{ONE}\n9204 550101").bad
    assert bad.why.startswith("This may be a passport.") and "with 8 or +7" in bad.why
    assert "passport" not in read(f"{ONE}\n4509 550101").bad[0].why


def test_it_is_kept_where_another_line_is_corrected():
    text = f"{ONE}\n9041 550101\n9204 550101"
    assert recipients.without(text, set()) == f"{ONE}\n9041 550101\n"


def test_all_messy_lines_together_give_their_numbers():
    lines = messy_lines.lines()
    assert len(lines) > 200
    found = read("\n".join(text for text, _numbers in lines))
    assert found.numbers == [number for _text, numbers in lines for number in numbers]


@pytest.mark.parametrize("text", [text for text, numbers in messy_lines.lines() if numbers])
def test_with_a_digit_too_few_or_too_many_a_line_gives_less(text):
    text = plain(text)
    for one in find(text):
        if one.number.startswith("+7"):
            for wrong in (text[: one.end - 1], text[: one.end] + "1"):
                assert len(read(wrong + text[one.end :]).numbers) < len(read(text).numbers)


def test_numbers_among_words_are_listed_with_these():
    """Others are not: there is nothing to look at."""
    text = f"тел. {ONE}\n{TWO} / 8 904 176-49-97\n1. 89041764998\nАнна, {TWO}\n{ONE} дом"
    found = read(f"{text}\n18:00 89041764999\nмоб. 89041764990 89041764991")
    assert found.read_out == [
        ReadOut(1, f"тел. {ONE}", ONE),
        ReadOut(6, "18:00 89041764999", "+79041764999"),
        ReadOut(7, "моб. 89041764990 89041764991", "+79041764990"),
        ReadOut(7, "моб. 89041764990 89041764991", "+79041764991"),
    ]
    assert "4995" not in repr(found.read_out)


def test_what_is_refused_can_be_left_out_of_the_text():
    """A line stays in its place, and what is read from the rest is the same."""
    office = "+74951234567"
    text = f"Анна\n{ONE}, 12, тел. {TWO}; 8904\n\n8 495 123-45-67, {ONE} {TWO}, 79041764997,0\nx"
    rest = without(text, [office])
    assert rest == f"\n{ONE}, тел. {TWO}\n\n{ONE} {TWO}, 79041764997,0\n"
    before, after = read(text), read(rest)
    assert after.lines | {office: 4} == before.lines and not after.bad
    assert after.doubled == before.doubled and after.read_out == before.read_out
    assert without(f"моб. 84951234567 {ONE} {TWO}", [office]) == f"{ONE}, {TWO}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece", ["до 9 ", "1.1.2024", "8/904/", "тел ", "№1!", "9041 7000", "_9 "]
)
@pytest.mark.parametrize("length", [300, 100_000])
def test_a_long_line_is_read_like_a_short_one(piece, length):
    """One that takes more than linear time would not end."""
    words = piece * (length // len(piece))
    assert set(read(f"{words} {ONE} x {words}").numbers) <= {ONE}
    assert read(f"{ONE}\n{words}x").numbers == [ONE]


# --- CSV


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "windows-1251", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_csv_is_read_with_any_delimiter_and_encoding(encoding, delimiter):
    table = [["Имя", "Телефон"], ["Иван", "8 904 176-49-95"], ["Ёж", "+79041764996"]]
    data = "\r\n".join(delimiter.join(row) for row in table).encode(encoding)
    assert chosen(data) == ("Телефон", "\n8 904 176-49-95\n+79041764996")
    assert read(column(data).lines).numbers == [ONE, TWO]


@pytest.mark.parametrize(
    "head",
    ["phone", "Phone number", "PHONE_NUMBER", "tel", "Tel.", "mobile", "msisdn", "Номер"]
    + ["Телефон 1", "Моб. тел.", "Сотовый"],
)
def test_the_column_is_found_by_its_head(head):
    """Even where another one has more numbers."""
    data = f"Старый,{head},Отель\n{ONE},{TWO},1\n{ONE},,2".encode()
    assert chosen(data) == (head, f"\n{TWO}\n")


@pytest.mark.parametrize("head", ["Hotel", "Автомобиль", "Сотрудник", "Контакт"])
def test_without_a_telling_head_it_is_the_column_with_most_numbers(head):
    data = f"{head};Связь\nx;{ONE}\n{TWO};{THREE}".encode()
    assert chosen(data) == ("Связь", f"\n{ONE}\n{THREE}")


def test_a_telling_head_over_no_numbers_is_not_followed():
    data = f"Номер заказа;Контакт\n17;{ONE}\n18;{TWO}".encode()
    assert column(data).title == "Контакт"


def test_a_table_without_a_head_loses_no_number():
    assert chosen(f"1;{ONE}\n2;{TWO}") == ("B", f"{ONE}\n{TWO}")
    assert chosen(f"{ONE}\n{TWO}\n") == ("A", f"{ONE}\n{TWO}")
    assert read(column(f"\n{ONE}, {TWO};{THREE}".encode()).lines).numbers == [ONE, TWO, THREE]
    assert column(b"8904176\n89041764996").lines.startswith("8904176\n")


def test_a_line_is_a_row_of_the_table():
    """Whatever stands in its cells: blank rows, line ends in quotes, a few numbers in a cell."""
    data = f'Phone;Note\n\n"{ONE}";"a\nb"\n"x\ny";\n"{TWO},{THREE}";'.encode()
    found = read(column(data).lines)
    assert found.numbers == [ONE, TWO, THREE]
    assert left_out(found.bad) == [(4, "x y")]


def test_a_comma_in_the_head_does_not_hide_the_semicolons():
    data = f"Имя, фамилия;Телефон\nИван;{ONE}".encode()
    assert column(data).title == "Телефон"


def test_a_long_cell_is_cut_and_so_no_number():
    found = read(column(f"{ONE}\n{TWO}{' ' * 1000}x{'9' * 1000}".encode()).lines)
    assert found.numbers == [ONE] and len(found.bad[0].written) == tables.MAX_SHOWN_CHARACTERS + 1


# --- which column


@pytest.mark.parametrize(
    "head",
    ["Номер заказа", "№ заказа", "№", "Order number", "orderNo", "order_id", "ID", "id клиента"]
    + ["Номер договора", "Contract", "Номер карты", "Card No.", "Бонусная карта", "Паспорт"]
    + ["Серия и номер паспорта", "Passport", "Дата", "Дата заказа", "ИНН", "СНИЛС", "Л/с", "Р/с"]
    + ["Расчётный счёт", "Account", "Артикул", "SKU", "Сумма", "Цена, руб.", "Total price", "Код"]
    + ["Индекс", "ZIP", "Накладная", "Трек-номер", "Штрихкод", "IMEI", "Факс", "Номер чека"]
    + ["№ п/п", "№№", "Квитанция №", "Рег. №", "Ticket #"],
)
@pytest.mark.parametrize("numbers", ["9000000001", "89000000001"])
def test_numbers_of_something_else_are_never_phone_numbers(head, numbers):
    """Not even where they are more, or where nothing else is a number."""
    assert kind(head) == Kind.SOMETHING_ELSE
    text = f"{head};Контакты\n{numbers};{ONE}\n{numbers};\n{numbers};{TWO}"
    assert chosen(text) == ("Контакты", f"\n{ONE}\n\n{TWO}")
    with pytest.raises(ValidationError, match="No column with phone numbers was found"):
        column(f"{head};Имя\n{numbers};Иван".encode())
    with pytest.raises(ValidationError, match="No column with phone numbers was found"):
        column(f"{head}\n{numbers}\n{numbers}".encode())
    with pytest.raises(ValidationError, match="No column with phone numbers was found"):
        read(f"{head}\r\n{numbers}\r\n{numbers}\r\n")


@pytest.mark.parametrize(
    "head",
    ["Телефон", "ТЕЛЕФОН", " тел.", "Тел", "Мобильный", "моб.тел", "Сотовый номер", "phone"]
    + [
        "PhoneNumber",
        "phone_number",
        "Mobile",
        "MSISDN",
        "Cell",
        "WhatsApp",
        "Ватсап",
        "Номер тел.",
    ]
    + ["Номер телефона", "Телефон заказчика", "Контактный телефон", "customerPhone", "Phone 1"],
)
def test_heads_of_phone_numbers_are_known(head):
    assert kind(head) == Kind.PHONE


@pytest.mark.parametrize("head", ["Автомобиль", "Hotel", "Картина", "Заказчик", "Отель", "Датский"])
def test_words_that_have_others_within_are_not_these(head):
    assert kind(head) == Kind.UNKNOWN


@pytest.mark.parametrize(
    "heads, names",
    [
        ("Телефон;Телефон родителя", "“A: Телефон”, “B: Телефон родителя”"),
        ("Телефон;Телефон", "“A: Телефон”, “B: Телефон”"),
        ("Мобильный;WhatsApp", "“A: Мобильный”, “B: WhatsApp”"),
        ("Ромашка;Лютик", "“A: Ромашка”, “B: Лютик”"),
        ("Контакт;Номер", "“A: Контакт”, “B: Номер”"),
    ],
)
def test_where_two_columns_may_be_meant_it_asks(heads, names):
    text = f"{heads};Имя\n{ONE};{THREE};Иван\n{TWO};89161234567;Пётр"
    with pytest.raises(UnclearColumn, match=names) as asked:
        column(text.encode())
    assert [letter for letter, _name in asked.value.columns] == ["A", "B"]
    assert "Choose it below" in asked.value.messages[0]
    assert chosen(text, asked="B")[1] == f"\n{THREE}\n89161234567"
    with pytest.raises(ValidationError, match="has no column Q"):
        column(text.encode(), "Q")


def test_two_columns_without_heads_are_asked_for_by_their_letters():
    with pytest.raises(UnclearColumn, match="“B”, “D”"):
        column(f"1;{ONE};x;{TWO}\n2;{TWO};y;{THREE}\n".encode())


def test_a_second_fuller_column_is_not_chosen_without_asking():
    """It may be the manager's."""
    text = f"Телефон;Имя;Телефон менеджера\n{ONE};A;{THREE}\n;B;{THREE}\n;C;{THREE}"
    with pytest.raises(UnclearColumn):
        column(text.encode())
    with pytest.raises(UnclearColumn):
        column(text.replace("Телефон менеджера", "Позвонить").encode())
    other = text.replace("Телефон менеджера", "Номер карты")
    assert chosen(other) == ("Телефон", f"\n{ONE}\n\n")


@pytest.mark.slow
def test_a_fuller_column_is_seen_however_far_down_and_right():
    rows = "".join(f"x;{ONE}{';' * 100}\n" for _ in range(2000))
    rows += "".join(f"x;{';' * 100}{TWO}\n" for _ in range(3000))
    with pytest.raises(UnclearColumn, match="“B”, “CX”"):
        column(rows.encode())


def test_columns_that_were_not_asked_for_are_named():
    text = f"Телефон;Логин\n{ONE};{ONE}\n{TWO};{TWO}"
    found = column(text.encode())
    assert (found.title, found.notes) == (
        "Телефон",
        ["Left out: other columns with phone numbers, B: Логин."],
    )


def test_ten_digits_below_a_word_that_says_nothing_are_asked_for():
    """Numbers of parcels begin with 9, too."""
    with pytest.raises(UnclearColumn, match="“B: Ромашка”"):
        column("Имя;Ромашка\nИван;9000000001\nПётр;9000000002".encode())
    assert chosen("Имя;Номер\nИван;9041764995")[0] == "Номер"
    assert chosen("Иван;9041764995\nПётр;9041764996")[0] == "B"
    text = f"Ромашка;Лютик\n9000000001;{ONE}\n9000000002;{TWO}"
    assert chosen(text)[0] == "Лютик"


def test_the_words_of_a_head_do_not_make_numbers():
    """A phone shop has its models in a column, and a clinic landlines."""
    text = f"Модель телефона;Телефон;Кому\nX1;8 495 123-45-67;{ONE}\nY2;84951234568;{TWO}"
    assert chosen(text) == ("Кому", f"\n{ONE}\n{TWO}")


@pytest.mark.parametrize(
    "above", ["Отчёт по заказам;;\n", "Магазин;;\nтел. 8 904 000-00-00;;\n\n", "Отчёт за май\n"]
)
def test_title_rows_may_stand_above_the_heads(above):
    text = f"{above}Номер заказа;Имя;Телефон\n89000000001;A;{ONE}\n89000000002;B;{TWO}"
    title, lines = chosen(text)
    assert title == "Телефон" and read(lines).numbers == [ONE, TWO]
    assert lines.split("\n").index(ONE) == above.count("\n") + 1


@pytest.mark.parametrize("title", ["Телефоны клиентов", "Магазин, тел. 8 904 000-00-00", "Май"])
def test_a_title_may_stand_above_a_single_head(title):
    found = read(column(f'"{title}"\nТелефон\n{ONE}\n{TWO}'.encode()).lines)
    assert found.numbers == [ONE, TWO] and not found.bad


def test_commas_below_a_single_head_are_between_numbers():
    lines = column(f"Телефон\n{ONE}, {TWO}\n{THREE}\n".encode()).lines
    assert read(lines).numbers == [ONE, TWO, THREE]
    lines = column(b"phone\n7,90418E+10\n79041764995,00\n").lines
    assert read(lines).numbers == [ONE] and "shortened" in read(lines).bad[0].why
    with pytest.raises(UnclearColumn):
        column(f"Телефоны\n9000000001,{ONE},{TWO}\n9000000002,{TWO},{ONE}".encode())
    assert chosen(f"Заказы\n{ONE};Иван\n{TWO};Пётр") == ("A", f"\n{ONE}\n{TWO}")
    assert chosen(f"9000000001;{ONE}") == ("B", ONE)
    found = column(f"Телефоны\nИван,{ONE},9000000001\nПётр,{TWO},9000000002".encode())
    assert read(found.lines).numbers == [ONE, TWO]


def test_a_single_column_may_have_a_title_and_its_head_twice():
    title, lines = chosen(f"Имя;Телефон\nA;{ONE}\nИмя;Телефон\nB;{TWO}")
    assert read(lines).numbers == [ONE, TWO] and not read(lines).bad


def test_heads_may_be_missing_in_part():
    assert chosen(f";Телефон;\n9000000001;{ONE};x\n9000000002;{TWO};y")[0] == "Телефон"
    assert chosen(f"Номер заказа;;\n89000000001;{ONE};x\n89000000002;{TWO};y")[0] == "B"


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=;\r"])
def test_the_line_that_excel_announces_the_delimiter_with_is_no_row(line):
    text = f"{line}\nИмя, фамилия;Телефон\nИван, Томск;{ONE}"
    assert chosen(text) == ("Телефон", f"\n\n{ONE}")
    assert chosen(f"sep=^\nИмя^Телефон\nИван^{ONE}") == ("Телефон", f"\n\n{ONE}")


def test_commas_in_every_cell_do_not_hide_the_delimiter():
    text = f"Иванов, Иван, И.;{ONE}\nПетров, Пётр, П.;{TWO}\n1,5;{THREE}"
    assert chosen(text) == ("B", f"{ONE}\n{TWO}\n{THREE}")


def test_a_file_of_two_encodings_keeps_its_heads():
    text = f"Имя;Телефон;Город\nИван;{ONE};Томск\n".encode() + "Ёж;+79041764996;".encode("cp1251")
    assert read(column(text).lines).numbers == [ONE, TWO]
    assert column(text).title == "Телефон"


def test_what_is_pasted_with_heads_is_a_table_too():
    """Copied from a spreadsheet, or from a CSV file in an editor."""
    for delimiter in "\t;,":
        text = f"Номер заказа,Телефон\n9000000001,{ONE}\n9000000002,{TWO}".replace(",", delimiter)
        found = read(text)
        assert found.numbers == [ONE, TWO] and found.column.title == "Телефон"
    assert read(f"{ONE}\n{TWO}").column is None
    with pytest.raises(UnclearColumn):
        read(f"Телефон\tТелефон мамы\n{ONE}\t{TWO}")
    assert read(f"Телефон\tТелефон мамы\n{ONE}\t{TWO}", asked="B").numbers == [TWO]

"""Texts with placeholders on the page for writing: each row of the table gets its own."""

import csv
import io
import re
from datetime import timedelta
from time import perf_counter

import pytest
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils.timezone import now
from openpyxl import Workbook

from django_smska.models import SmsMailing, SmsMessage, SmsOptOut, SmsTemplate
from django_smska.opt_out import opt_out
from django_smska.sms import outbox

from .test_admin_compose import LATER, at, carried_by, errors, shown

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

PAGE = "/admin/django_smska/smsmessage/compose/"
ANNA, BORIS, VERA = "+79031112201", "+79031112202", "+79031112203"
BODY = "Здравствуйте, {имя}! Ждём вас {День}."
TABLE = (
    "Фамилия;Имя ;Телефон;День\n"
    f"Белова;Анна;{ANNA};в среду\n"
    f"Волков;Борис;8 903 111-22-02;в пятницу\n"
)
TEXTS = {
    ANNA: "Здравствуйте, Анна! Ждём вас в среду.",
    BORIS: "Здравствуйте, Борис! Ждём вас в пятницу.",
}


@pytest.fixture
def boss(client):
    client.user = User.objects.create_superuser("boss")
    client.force_login(client.user)
    return client


@pytest.fixture
def clerk(client):
    """May write, and see neither numbers nor texts."""
    client.user = User.objects.create_user("clerk", is_staff=True)
    needed = [f"{name}_smsmessage" for name in ("view", "add", "send")]
    client.user.user_permissions.set(Permission.objects.filter(codename__in=needed))
    client.force_login(client.user)
    return client


def write(client, numbers=TABLE, body=BODY, **changes):
    form = {"numbers": numbers, "body": body, "sender": "", "using": "default", "nonce": "n1"}
    return client.post(PAGE, form | changes)


def upload(client, data, body=BODY, name="people.csv", **changes):
    data = data.encode() if isinstance(data, str) else data
    return write(client, "", body, file=SimpleUploadedFile(name, data), **changes)


def press(client, response, button="_send", **changes):
    """Press a button of the page that checks."""
    return client.post(PAGE, carried_by(response) | {button: "1"} | changes, follow=True)


def stored():
    return dict(SmsMessage.objects.order_by("pk").values_list("to", "body"))


def listed(response):
    return [(one.line, one.written, one.why) for one in response.context["left_out"]]


def offered(response):
    return str(response.context["to_correct"])


def may_be_sent(response):
    page = response.content.decode()
    return 'name="_send"' in page or 'name="_save"' in page


def numbers_of(response):
    return response.context["form"]["numbers"].value()


# --- a table, and what becomes of it


def xlsx(rows):
    book, data = Workbook(), io.BytesIO()
    for row in rows:
        book.active.append(row)
    book.save(data)
    return data.getvalue()


@pytest.mark.parametrize("way", ["pasted", "pasted with tabs", "csv", "windows-1251", "xlsx"])
def test_each_row_gets_its_own_text(boss, way):
    rows = [row.split(";") for row in TABLE.splitlines()]
    response = {
        "pasted": lambda: write(boss),
        "pasted with tabs": lambda: write(boss, TABLE.replace(";", "\t")),
        "csv": lambda: upload(boss, TABLE),
        "windows-1251": lambda: upload(boss, TABLE.encode("windows-1251")),
        "xlsx": lambda: upload(boss, xlsx(rows), name="people.xlsx"),
    }[way]()
    assert may_be_sent(response) and not stored()
    press(boss, response)
    assert stored() == TEXTS and {one.body for one in outbox} == set(TEXTS.values())


def test_the_mailing_keeps_the_text_with_its_placeholders(boss, settings):
    settings.SMSKA_SEND_AT_ONCE = 1
    press(boss, write(boss))
    mailing = SmsMailing.objects.get()
    assert mailing.body == BODY and stored() == TEXTS


def test_the_next_page_carries_the_columns_that_are_needed_and_no_other(boss):
    response = upload(boss, f"Список\n{TABLE}")
    assert carried_by(response)["numbers"] == (
        f"\nТелефон\tИмя\tДень\n{ANNA}\tАнна\tв среду\n8 903 111-22-02\tБорис\tв пятницу"
    )
    back = press(boss, response, "_back")
    assert numbers_of(back).startswith("\nТелефон\tИмя\tДень\n")
    assert carried_by(back)["column_letter"] == ""
    again = write(boss, numbers_of(back), "{имя} {день}")
    assert may_be_sent(again)


def test_without_placeholders_only_the_numbers_are_carried(boss):
    assert carried_by(upload(boss, TABLE, "Hello"))["numbers"] == f"\n{ANNA}\n8 903 111-22-02"


def test_one_recipient_has_placeholders_too(boss):
    response = press(boss, write(boss, f"Телефон\tИмя\n{ANNA}\tАнна", "Hi {ИМЯ}"))
    message = SmsMessage.objects.get()
    assert (message.to, message.body, message.mailing) == (ANNA, "Hi Анна", None)
    assert response.redirect_chain == [
        (f"/admin/django_smska/smsmessage/{message.pk}/change/", 302)
    ]


@pytest.mark.parametrize("head", ["Связь", "Контакт", "Кому"])
def test_a_column_that_is_found_by_its_numbers_is_found_again(boss, head):
    body = f"{{кличка}} {{{head}}}"
    response = upload(boss, f"{head};Кличка\n{ANNA};Мурка\n{BORIS};Рекс", body)
    back = press(boss, response, "_back")
    press(boss, write(boss, numbers_of(back), body))
    assert stored() == {ANNA: f"Мурка {ANNA}", BORIS: f"Рекс {BORIS}"}


def test_of_two_columns_of_numbers_the_chosen_one_stays(boss):
    data = f"Телефон;Телефон мамы;Имя\n{ANNA};{VERA};Анна\n{BORIS};;Борис"
    response = upload(boss, data, "{имя} {телефон}")
    assert list(errors(response)) == ["file"]
    response = upload(boss, data, "{имя} {телефон}", column_letter="B")
    press(boss, response)
    assert stored() == {VERA: f"Анна {ANNA}"}


def test_delimiters_quotes_and_signs_in_cells_change_nothing(boss):
    """Whatever they would make of the table that is carried."""
    names = ['"', 'ООО "А;Б"', "a;b|c,d", "=1+1", "'", '"x', "{имя}", "{{ x }}", "<b>", "Имя", "%s"]
    people = {f"+790311122{at:02}": name for at, name in enumerate(names)}
    data = io.StringIO()
    csv.writer(data, delimiter=";").writerows([["Имя", "Телефон", "a, b"]])
    csv.writer(data, delimiter=";").writerows([[name, to, ";"] for to, name in people.items()])
    response = upload(boss, data.getvalue(), "<{имя}>")
    page = response.content.decode()
    assert "<b>" not in page.replace("&lt;b&gt;", "") and "&lt;&quot;&gt;" in page
    press(boss, response)
    assert stored() == {to: f"<{name}>" for to, name in people.items()}


def test_a_head_that_stands_again_gets_nothing(boss):
    data = f"Телефон;Имя\n{ANNA};Анна\nТелефон;Имя\n{BORIS};Борис"
    press(boss, upload(boss, data, "{имя}"))
    assert stored() == {ANNA: "Анна", BORIS: "Борис"}


# --- what is wrong with the text


@pytest.mark.parametrize(
    ("numbers", "body", "words"),
    [
        (TABLE, "{отчество}", "no column for {отчество}. You can write: {Фамилия}, {Имя}, "),
        (TABLE, "{имя} {x} {y}", "There is no column for {x}, {y}."),
        (ANNA, "{имя}", "The text has {имя} in it, and the numbers stand in no table with heads."),
        (f"1;{ANNA}\n2;{BORIS}", "{имя}", "stand in no table"),
        (TABLE.replace("Фамилия", "имя"), "{имя}", "Two columns are named “имя”. Rename one"),
        (TABLE, "{{имя}}", "write {имя}, with one brace on each side."),
        (TABLE, "{% if x %}", "“{% if x %}” is no placeholder."),
        (ANNA, "Hello :}", "“}” is no placeholder."),
    ],
)
def test_it_is_said_at_the_text_and_nothing_is_stored(boss, numbers, body, words):
    for response in (write(boss, numbers, body, _send="1"), upload(boss, numbers, body, _send="1")):
        assert list(errors(response)) == ["body"] and words in errors(response)["body"][0]
    assert not stored()


def test_a_placeholder_can_be_corrected_without_another_upload(boss):
    """All columns are there, because any may be meant."""
    response = upload(boss, TABLE, "{Имя клиента}")
    assert list(errors(response)) == ["body"]
    press(boss, write(boss, numbers_of(response), "{имя} {фамилия}"))
    assert stored() == {ANNA: "Анна Белова", BORIS: "Борис Волков"}


def test_a_file_outlives_a_text_that_is_missing(boss):
    response = upload(boss, TABLE, " ")
    assert numbers_of(response).startswith("Телефон\tФамилия\tИмя\tДень\n")


# --- rows without a value

GAPS = (
    "Имя\tТелефон\tДень\n"
    f"Анна\t{ANNA}\tв среду\n"
    f"\t{BORIS}\t\n"
    f"Пётр\t8 903 111-22-0\tв четверг\n"
    f"Вера\t{VERA}\t\n"
    f"\t{ANNA}\tв пятницу\n"
)


def test_rows_that_lack_a_value_are_listed_and_nothing_can_be_sent(boss):
    response = write(boss, GAPS)
    assert not may_be_sent(response)
    found = listed(response)
    assert found[:2] == [
        (3, BORIS, "Nothing in the columns “Имя”, “День”."),
        (5, f"{VERA}, Вера", "Nothing in the column “День”."),
    ]
    assert [line for line, *_ in found[2:]] == [4, 6]
    assert "The texts for 2 rows cannot be made." in response.content.decode()
    for button in ("_send", "_save"):
        again = press(boss, response, button)
        assert listed(again)[:2] == found[:2] and not stored()


def test_they_can_be_left_out(boss):
    response = press(boss, write(boss, GAPS), "_leave_out")
    assert may_be_sent(response) and [line for line, *_ in listed(response)] == [4, 6]
    press(boss, response)
    assert stored() == {ANNA: TEXTS[ANNA]}


def test_where_all_lack_a_value_nothing_is_left_to_send(boss):
    response = press(boss, write(boss, f"Телефон\tИмя\n{ANNA}\t\n{BORIS}\t", "{имя}"), "_leave_out")
    assert list(errors(response)) == ["numbers"] and not stored()


def test_whole_rows_are_corrected_in_place(boss):
    """Those that lack a value, and those whose number cannot be read."""
    response = write(boss, GAPS)
    assert offered(response) == (f"{BORIS}\t\t\n8 903 111-22-0\tПётр\tв четверг\n{VERA}\tВера\t")
    assert "between its cells: Телефон; Имя; День." in response.content.decode()
    corrected = f"{BORIS}\tБорис\tв пятницу\r\n8 903 111-22-09;Пётр;в четверг\r\n{VERA}\tВера\t"
    response = press(boss, response, "_correct", corrected=corrected)
    assert [line for line, *_ in listed(response)] == [9, 6] and not may_be_sent(response)
    assert offered(response) == f"{VERA}\tВера\t"
    response = press(boss, response, "_leave_out", corrected=offered(response))
    press(boss, response, corrected="")
    peter = "Здравствуйте, Пётр! Ждём вас в четверг."
    assert stored() == TEXTS | {"+79031112209": peter}


def test_a_correction_is_not_lost_by_another_button(boss):
    response = write(boss, GAPS)
    for button in ("_send", "_leave_out", "_save"):
        again = press(boss, response, button, corrected=f"{BORIS}\tБорис\tв пятницу")
        assert not stored() and again.context["number"] == 2


def test_of_a_cell_with_a_good_and_a_bad_number_only_the_bad_one_is_corrected(boss):
    response = write(boss, f'Телефон\tИмя\n"{ANNA}, 8903"\tАнна', "{имя}")
    assert offered(response) == "8903\tАнна" and may_be_sent(response)
    response = press(boss, response, "_correct", corrected=f"{BORIS}\tБорис")
    press(boss, response)
    assert stored() == {ANNA: "Анна", BORIS: "Борис"}


def mutilated(text):
    """Return the text with each of its characters removed, doubled, or made a line end."""
    for place, one in enumerate(text):
        for instead in ("", one * 2, "\n", '"', "\t"):
            yield text[:place] + instead + text[place + 1 :]


def test_a_mutilated_correction_sends_no_row_with_the_values_of_another(boss):
    names = {"Борис": {BORIS}, "Вера": {VERA}}
    table = f"Телефон\tИмя\tДень\n{BORIS}\tБорис\t\n{VERA}\tВера\t\n{ANNA}\tАнна\tx"
    carried = carried_by(write(boss, table, "{имя} {день}"))
    good = f"{BORIS}\tБорис\tу\n{VERA}\tВера\tя"
    texts = list(mutilated(good))
    for corrected in texts[::2]:
        response = boss.post(PAGE, carried | {"corrected": corrected, "_correct": "1"})
        form = response.context["form"]
        for number in form.recipients.numbers:
            words = form.text_for(number)
            for name, numbers in names.items():
                if name in words:
                    assert number not in {BORIS, VERA, ANNA} - numbers, corrected
            assert not ("Борис" in words and ("Вера" in words or VERA[5:] in words)), corrected
            assert "+7" not in words and "903111" not in words, corrected
    assert len(texts) > 100


def test_a_value_that_is_not_whole_is_no_value(boss):
    response = write(boss, f"Телефон\tИмя\n{ANNA}\t{'я' * 201}\n{BORIS}\t{'я' * 200}", "{имя}")
    assert [one[0] for one in listed(response)] == [2]
    assert "More than 200 characters in the column “Имя”." in listed(response)[0][2]
    assert response.context["number"] == 1


def test_a_text_that_is_too_long_is_named_by_its_row(boss, settings):
    settings.SMSKA_MAX_SEGMENTS = 2
    response = write(boss, f"Телефон\tИмя\n{ANNA}\tАнна\n{BORIS}\t{'я' * 140}", "{имя}")
    assert listed(response) == [
        (3, f"{BORIS}, {'я' * 140}", "The text has 3 segments; the maximum is 2. Shorten it.")
    ]
    assert not may_be_sent(response)


def test_a_cell_with_two_numbers_is_no_value_for_both(boss):
    table = f'Телефон;Имя\n"{ANNA}, {BORIS}";Анна'
    assert may_be_sent(write(boss, table, "{имя}"))
    response = write(boss, table, "{имя} {телефон}")
    assert "several numbers" in listed(response)[0][2] and not may_be_sent(response)


def test_a_cell_with_a_number_from_another_row_is_no_value_either(boss):
    """Or one person would read the number of another."""
    table = f'Телефон;Имя\n{BORIS};Борис\n"{ANNA}, {BORIS}";Анна'
    response = write(boss, table, "{имя} {телефон}")
    [(line, _written, why), _doubled] = listed(response)
    assert line == 3 and "several numbers" in why and not may_be_sent(response)


def test_a_sign_for_unreadable_bytes_leaves_the_others_as_they_are(boss):
    table = f"Phone;Name\n{ANNA};Ann\ufffd\ufffd Smith\n"
    press(boss, write(boss, table, "{name}, hello"))
    assert stored() == {ANNA: "Ann\ufffd\ufffd Smith, hello"}


# --- numbers that occur twice, or get nothing


def test_of_a_number_that_occurs_twice_the_first_row_counts(boss):
    response = write(boss, f"{TABLE}Орлова;Ольга;8 (903) 111-22-01;в субботу\n")
    [(line, written, why)] = listed(response)
    assert (line, written) == (4, "8 (903) 111-22-01") and "same number as in line 2" in why
    press(boss, response)
    assert stored() == TEXTS


def test_the_do_not_send_list_and_unreachable_numbers_are_as_without_placeholders(boss, settings):
    settings.SMSKA_LIMITS = {"prefixes": {"default": ["+79"]}}
    opt_out(BORIS)
    table = f"{TABLE}Орлова;Ольга;8 495 123-45-67;в субботу\n"
    response = write(boss, table)
    assert offered(response) == "+74951234567\tОльга\tв субботу"
    response = press(boss, response, "_correct", corrected=f"{VERA}\tВера\tв субботу")
    assert response.context["number"] == 2
    press(boss, response)
    assert stored().keys() == {ANNA, VERA} and SmsOptOut.objects.count() == 1


# --- sizes and previews


def test_segments_are_counted_for_each_row_and_their_sum_is_the_cost(boss, settings):
    settings.SMSKA_SEND_AT_ONCE = 1
    settings.SMSKA_PRICES = {"default": ("3", "RUB")}
    lengths = [10, 80, 10, 10, 200]
    rows = [f"+790311122{at:02}\t{'я' * length}" for at, length in enumerate(lengths)]
    response = write(boss, "\n".join(["Телефон\tИмя", *rows]), "{имя}")
    page = response.content.decode()
    assert "5 messages, 8 segments, about ₽24" in page
    assert "From 1 to 3 segments for each number." in page
    phones = response.context["phones"]
    assert [len(phone["parts"]) for phone in phones] == [1, 2, 1, 4 - 1]
    assert "To +7 903 111-22-00: 1 segment" in re.sub(r"\s+", " ", page)
    assert "The longest, to +7 903 111-22-04: 3 segments" in page
    press(boss, response)
    assert list(SmsMessage.objects.order_by("to").values_list("segments", flat=True)) == [
        1, 2, 1, 1, 3
    ]  # fmt: skip
    assert SmsMailing.objects.get().segments == 8


def test_reports_of_the_context_show_no_number_and_no_text(boss):
    context = write(boss, GAPS).context
    for name in ("phones", "advice", "to_correct", "left_out", "form", "numbers"):
        assert not re.search("Анна|Вера|111", repr(context[name])), name


# --- sending once


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("number", [2, 9])
@pytest.mark.parametrize("button", ["_send", "_save"])
def test_pressing_twice_stores_and_sends_once(boss, number, button):
    rows = [f"+790311122{at:02};Имя {at}" for at in range(number)]
    response = upload(boss, "\n".join(["Телефон;Имя", *rows]), "Hi {имя}")
    for _ in range(2):
        second = press(boss, response, button)
    assert stored() == {row[:12]: f"Hi {row[13:]}" for row in rows}
    assert len(outbox) == (number if number < 5 and button == "_send" else 0)
    words = "will not be sent again" if button == "_send" else f"Saved as draft: {number} messages"
    assert words in shown(second)[-1]


def test_a_form_that_is_checked_again_is_the_same_form(boss):
    """Back, check, send: the table is read from what it was kept in."""
    response = upload(boss, TABLE)
    press(boss, response)
    back = press(boss, response, "_back")
    again = press(boss, write(boss, numbers_of(back)))
    assert stored() == TEXTS and "will not be sent again" in shown(again)[-1]


def test_another_value_is_another_message(boss):
    press(boss, write(boss))
    press(boss, write(boss, TABLE.replace("Анна", "Аня")))
    assert SmsMessage.objects.count() == 3


def test_it_warns_of_the_same_text_to_the_same_number_alone(boss):
    press(boss, write(boss))

    def warns(table):
        return "within the last hour" in write(boss, table, nonce="n2").content.decode()

    assert warns(TABLE) and not warns(TABLE.replace("Анна", "Аня").replace("Борис", "Боря"))
    swapped = TABLE.replace("Анна", "x").replace("Борис", "Анна").replace("в пятницу", "в среду")
    assert not warns(swapped)


def test_at_a_later_time_each_gets_its_own_text_too(boss):
    press(boss, write(boss, **at(LATER)))
    assert stored() == TEXTS and not outbox
    assert SmsMessage.objects.first().send_after > now() + timedelta(days=100)


# --- who may not see numbers


def test_who_may_see_no_numbers_is_shown_none_of_the_table(clerk):
    table = f"{GAPS}Оля\t+79031112299\tзвоните {VERA}\n"
    response = write(clerk, table)
    page = re.sub('<input type="hidden"[^>]*>', "", response.content.decode())  # what it carries on
    assert BORIS[5:] not in re.sub("[ -]", "", page) and "(hidden)" in page
    assert not offered(response) and 'name="corrected"' not in page
    assert 'name="_leave_out"' in page
    response = press(clerk, response, "_leave_out")
    [first, second] = response.context["phones"]
    assert "Анна" in first["parts"][0][1] and first["to"] == "To +7903•••2201"
    assert VERA[5:] not in second["parts"][0][1] and "Оля" in second["parts"][0][1]
    press(clerk, response)
    assert stored().keys() == {ANNA, "+79031112299"}


def test_the_do_not_send_list_is_not_revealed_by_the_texts(clerk):
    """Nor by their segments, nor by the rows that lack a value."""

    def page(numbers):
        found = write(clerk, numbers).content.decode()
        return re.sub('<input type="hidden"[^>]*>', "", found)

    before = page(GAPS), page(TABLE)
    for number in (ANNA, BORIS, VERA):
        opt_out(number)
    assert (page(GAPS), page(TABLE)) == before


def test_the_do_not_send_list_is_not_revealed_by_numbers_and_the_test(clerk, settings):
    settings.SMSKA_SEND_AT_ONCE = 1
    abroad = "+491711234567"
    table = f"Телефон;Имя\n{abroad};Анна\n{BORIS};Борис\n"

    def page():
        found = write(clerk, table, "{имя}").content.decode()
        return re.sub('<input type="hidden"[^>]*>', "", found)

    before = page()
    assert "1 number is not a Russian mobile number" in before
    opt_out(abroad)
    assert page() == before
    write(clerk, table, "{имя}", _test="1", test_number=VERA)
    assert [(one.to, one.body) for one in outbox] == [(VERA, "Анна")]


# --- large tables


def test_ten_thousand_rows_fit_through_the_pages(boss, settings):
    rows = [f"+7903{at:07};Клиент {at};{at} ₽" for at in range(10_000)]
    data = "\n".join(["Телефон;Имя;Долг", *rows])
    start = perf_counter()
    response = upload(boss, data, "{имя}, ваш долг {долг}.")
    checked = perf_counter()
    assert response.context["number"] == 10_000
    carried = carried_by(response)
    press(boss, response)
    print(
        f"10,000 rows: {checked - start:.1f} s to check, {perf_counter() - checked:.1f} s to send"
    )
    assert len(carried["numbers"].encode()) < settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    assert stored() == {
        row[:12]: "Клиент {0}, ваш долг {0} ₽.".format(int(row[5:12])) for row in rows
    }


@pytest.mark.parametrize("way", [upload, write])
def test_a_table_that_the_next_page_cannot_carry_is_refused(boss, settings, way):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 500_000
    table = "\n".join(["Телефон;Имя", *(f"+790311{at:05};{'я' * 90}" for at in range(2200))])
    response = way(boss, table, "{имя}")
    assert "the table is too large. Split it." in errors(response)["numbers"][0]
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = None
    assert may_be_sent(way(boss, table, "{имя}"))


# --- saved templates


def template(**changes):
    return SmsTemplate.objects.create(**{"name": "ready", "body": "{имя}: готово", **changes})


def test_without_a_template_there_is_no_choice(boss):
    assert 'name="template"' not in boss.get(PAGE).content.decode()
    template()
    page = boss.get(PAGE).content.decode()
    assert 'name="template"' in page and 'name="_use_template"' in page


def test_a_template_fills_the_text_and_all_else_stays(boss):
    one = template(language="ru")
    response = upload(
        boss, TABLE, "", template=one.pk, _use_template="1", sender="Shop", **at(LATER, "09:30")
    )
    page = response.content.decode()
    assert "errornote" not in page and "{имя}: готово</textarea>" in page
    assert f'<option value="{one.pk}" selected>ready (ru)</option>' in page
    assert f'value="{LATER}"' in page and 'value="09:30"' in page and 'value="Shop"' in page
    assert 'value="n1"' in page
    press(boss, write(boss, numbers_of(response), "{имя}: готово"))
    assert stored() == {ANNA: "Анна: готово", BORIS: "Борис: готово"}


def test_a_template_leaves_the_chosen_time_as_it_is(boss):
    """Its moment is fixed, and is none of the choices any more."""
    response = write(boss, ANNA, "", template=template().pk, _use_template="1", when="hour")
    [chosen] = re.findall(r'<option value="([^"]*)" selected>', when_of(response))
    assert chosen.startswith("hour 20")


def when_of(response):
    return re.search(r'<select name="when".*?</select>', response.content.decode(), re.DOTALL)[0]


def test_a_file_that_cannot_be_read_is_reported_then_too(boss):
    response = upload(boss, b"\x89PNG\0", template=template().pk, _use_template="1")
    assert "cannot be read" in errors(response)["file"][0]
    assert "{имя}: готово</textarea>" in response.content.decode()


@pytest.mark.parametrize("key", ["", "x", "999999", "1,2", "-1"])
def test_where_none_is_chosen_the_text_stays(boss, key):
    template(pk=1000)
    response = write(boss, ANNA, "Hello", template=key, _use_template="1")
    assert response.context["form"]["body"].value() == "Hello" and not stored()


def test_an_address_can_name_a_template(boss):
    one = template()
    assert "{имя}: готово</textarea>" in boss.get(f"{PAGE}?template={one.pk}").content.decode()
    for key in ("0", "x", one.pk + 1):
        response = boss.get(f"{PAGE}?template={key}")
        assert shown(response) == ["The template was not found, or its text is hidden from you."]


@pytest.mark.parametrize("lacks", ["see_text_smsmessage", "view_smstemplate"])
def test_who_may_not_see_templates_gets_none(clerk, lacks):
    one = template()
    every = {"see_text_smsmessage", "view_smstemplate"} - {lacks}
    clerk.user.user_permissions.add(*Permission.objects.filter(codename__in=every))
    for response in (
        clerk.get(f"{PAGE}?template={one.pk}"),
        write(clerk, ANNA, "Hello", template=one.pk, _use_template="1"),
    ):
        page = response.content.decode()
        assert "готово" not in page and 'name="template"' not in page

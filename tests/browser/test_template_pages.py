"""A messy table with names, a saved text, and what a person does about rows without a name."""

import pytest

from django_smska.models import SmsMessage, SmsTemplate, rows

from .pages import fits

PAGE = "/admin/django_smska/smsmessage/compose/"
NAMES = ["Анна", "Пётр", "Ёлка", 'ООО "Ромашка"', "Саша; Маша", "{имя}", "О'Нил", "  Иван   Ильич "]


def people():
    """Return 168 lines as a shop exports them, as cp1251: a title, a blank line, odd spellings."""
    lines = ["Клиенты на 30.11;;;", ";;;", "№;ФИО;Моб. телефон;Сумма"]
    spellings = ("8 (921) {} {}-{}", "+7921{}{}{}", "8921{}{}{}", "921 {}-{}-{}")
    for at in range(165):
        number = spellings[at % 4].format(f"{at:03}", "40", "17")
        name = NAMES[at % len(NAMES)].replace('"', '""')
        lines.append(f'{at + 1};"{name}";{number};{at},50')
    lines[10] = '8;" ";8921 007-40-17;7,50'  # no name
    lines[20] = "18;Глеб;8921 017-40-1;17,50"  # a digit is missing
    lines[30] = lines[29]  # twice
    return "\r\n".join(lines).encode("windows-1251")


@pytest.mark.parametrize(
    "width, theme, script", [(1280, "light", True), (768, "dark", True), (360, "light", False)]
)
def test_a_messy_table_with_names_goes_the_whole_way(
    look, superuser, accessible, settings, width, theme, script
):
    template = SmsTemplate.objects.create(name="debt", body="{фио}, к оплате {Сумма}")
    page = look(superuser, width=width, theme=theme, script=script)
    page.goto(PAGE)
    file = {"name": "people.csv", "mimeType": "text/csv", "buffer": people()}
    page.set_input_files("#id_file", file)
    page.select_option("#id_template", str(template.pk))
    page.click("input[name=_use_template]")
    page.wait_for_load_state()
    assert page.input_value("#id_body") == "{фио}, к оплате {Сумма}"
    assert page.locator(".errornote").count() == 0 and "ФИО" in page.input_value("#id_numbers")
    looks_well(page, accessible, script)
    page.fill("#id_sender", "Shop")
    page.press("#id_sender", "Enter")  # as the button that checks
    page.wait_for_selector("input[name=_leave_out]")
    assert "The text for 1 row cannot be made." in page.inner_text(".smska-alerts")
    assert page.locator("input[name=_send]").count() == 0
    looks_well(page, accessible, script)
    field = page.get_by_label("Correct the skipped ones")
    assert field.input_value() == "8921 007-40-17\t\t7,50\n8921 017-40-1\tГлеб\t17,50"
    field.fill("8921 007-40-17\tЛев\t7,50\n8921 017-40-17;Глеб;17,50")
    page.click("text=Add as corrected and check again")
    page.wait_for_selector("input[name=_send]")
    assert "164 messages" in page.inner_text("#content")
    assert page.locator(".smska-phone").count() == 4
    looks_well(page, accessible, script)
    page.click("input[name=_send]")
    page.wait_for_selector(".messagelist")
    texts = dict(rows().values_list("to", "body"))
    assert len(texts) == SmsMessage.objects.count() == 164
    assert texts["+79210074017"] == "Лев, к оплате 7,50"
    assert texts["+79210174017"] == "Глеб, к оплате 17,50"
    for at in range(165):
        if at not in (7, 17, 27):
            name = " ".join(NAMES[at % len(NAMES)].split())
            assert texts[f"+7921{at:03}4017"] == f"{name}, к оплате {at},50"
    page.go_back()
    page.click("input[name=_send]")
    page.wait_for_selector(".messagelist")
    assert "will not be sent again" in page.inner_text(".messagelist")
    assert SmsMessage.objects.count() == 164


def looks_well(page, accessible, script):
    if script:  # axe is one
        accessible(page)
    assert fits(page)


@pytest.mark.parametrize("width, theme", [(1280, "light"), (360, "dark")])
def test_a_template_is_written_and_used(look, superuser, accessible, width, theme):
    page = look(superuser, width=width, theme=theme)
    page.goto("/admin/django_smska/smstemplate/add/")
    page.fill("#id_name", "ready")
    page.fill("#id_body", "Готово, {{имя}}")
    page.click("input[name=_save]")
    assert "write {имя}, with one brace" in page.inner_text("#content")
    looks_well(page, accessible, True)
    page.fill("#id_body", "Готово, {имя}")
    page.click("input[name=_save]")
    page.wait_for_selector(".messagelist")
    looks_well(page, accessible, True)
    page.click("text=Write with this template")
    page.wait_for_selector("#id_numbers")
    assert page.input_value("#id_body") == "Готово, {имя}"

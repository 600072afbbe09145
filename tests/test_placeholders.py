"""Texts with placeholders: what is one, what may stand in its place, and what is refused."""

import pickle
from datetime import date, datetime, timezone
from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError
from django.utils.safestring import SafeData, mark_safe
from django.utils.translation import gettext_lazy, override

from django_smska.placeholders import Text, by_key, key


def filled(text, **values):
    return Text(text).render(by_key(values.items()))


def refused(text, **values):
    with pytest.raises(ValidationError) as caught:
        filled(text, **values)
    return " ".join(caught.value.messages)


@pytest.mark.parametrize(
    ("text", "values", "expected"),
    [
        ("Здравствуйте, {имя}!", {"имя": "Ёж"}, "Здравствуйте, Ёж!"),
        ("{ Имя\t Клиента }", {"имя  КЛИЕНТА": "Оля"}, "Оля"),
        ("{a}{b}{A}", {"a": 1, "b": 2}, "121"),
        ("{order_no} {order-no}", {"order_no": "x", "order-no": "y"}, "x y"),
        ("{и\u0306од}", {"йод": "x"}, "x"),
        ("{客户} {2}", {"客户": "王", "2": "two"}, "王 two"),
        ("{%s}" % ("x" * 40), {"x" * 40: "y"}, "y"),
        ("100 % (50 %) 'a' \"b\" <c> & # \\", {}, "100 % (50 %) 'a' \"b\" <c> & # \\"),
        ("two\nlines {a}", {"a": " b\r\n\tc  d "}, "two\nlines b c d"),
        ("{a}", {"a": False, "unused": None}, "False"),
        ("{a}", {"a": 0}, "0"),
        ("{a}", {"a": gettext_lazy("Phone")}, "Phone"),
    ],
)
def test_values_take_the_place_of_their_names(text, values, expected):
    assert filled(text, **values) == expected


@pytest.mark.parametrize(
    "value",
    ["{{ value0 }}", "{% load i18n %}", "{a}", "{{ settings.SECRET_KEY }}", "{# x #}", "%s %(a)s",
     "<b> & 'x'", "{{a}}", "}{", "{% include '/etc/passwd' %}", "${a}"],
)  # fmt: skip
def test_a_value_is_put_in_as_it_stands(value):
    assert filled("<{a}> {b}", a=value, b=value) == f"<{value}> {value}"


def test_the_text_is_never_marked_as_safe_for_pages():
    for text in (filled("{a}", a="<b>"), filled("{a}", a=mark_safe("<b>")), filled("<b>")):
        assert type(text) is str and not isinstance(text, SafeData)


def test_numbers_and_dates_are_written_as_in_the_language_of_the_page(settings):
    settings.TIME_ZONE = "Europe/Moscow"
    text = "{sum}, {day}, {at}"
    at = datetime(2026, 3, 1, 22, 30, tzinfo=timezone.utc)
    with override("ru"):
        assert filled(text, sum=Decimal("1.50"), day=date(2026, 3, 8), at=at) == (
            "1,50, 8 марта 2026 г., 2 марта 2026 г. 1:30"
        )
    with override("en"):
        assert filled(text, sum=1.5, day=date(2026, 3, 8), at=at).startswith("1.5, March 8, 2026")


class Blank:
    def __str__(self):
        return " \n"


@pytest.mark.parametrize("value", ["", " \t\n", "\u00a0", None, Blank()])
def test_an_empty_value_is_refused_by_the_name_of_its_placeholder(value):
    assert refused("{a} { Имя }", a="x", имя=value) == "The value of {Имя} is empty."


def test_a_missing_value_and_a_function_are_refused():
    assert refused("{a} {b}", a="x") == "There is no value for {b}."
    for function in (lambda: "x", str, Blank):
        assert refused("{a}", a=function).startswith("The value of {a} is a function.")


def test_no_refusal_has_a_value_in_it():
    assert "Secret" not in refused("{a} {b} {c}", a="Secret", b="Secret Б")


def test_two_spellings_of_one_name_are_no_two_values():
    with pytest.raises(ValidationError, match="two values for {A}"):
        by_key([("a", 1), (" A", 2)])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Dear {{имя}}!", "“{{имя}}”: write {имя}, with one brace on each side."),
        ("{{ имя }", "“{{ имя }”: write {имя}, with one brace on each side."),
        ("{}", "“{}” is no placeholder. Write a name in one pair of braces"),
        ("{ }", "“{ }” is no placeholder."),
        ("a { b", "“{” is no placeholder. Write a name"),
        ("a } b", "“}” is no placeholder."),
        ("{a{b}", "“{” is no placeholder."),
        ("{a.b}", "“{a.b}” is no placeholder."),
        ("{a|safe}", "“{a|safe}” is no placeholder."),
        ("{a()}", "“{a()}” is no placeholder."),
        ("{a\nb}", "is no placeholder."),
        ("{% if a %}", "“{% if a %}” is no placeholder."),
        ("{%s}" % ("x" * 41), "is no placeholder."),
        ("{" * 30_000, "is no placeholder."),
        ("{a" * 30_000, "is no placeholder."),
    ],
)
def test_other_braces_are_refused_with_what_to_write(text, words):
    found = refused(text, a="1")
    assert words in found and len(found) < 250
    if "no placeholder" in words:
        assert "To send brackets, use ( ) or [ ]." in found


def test_the_names_are_listed_as_they_stand():
    text = Text("{ Имя } {b} {имя}")
    assert text.names == {"имя": "Имя", "b": "b"} and key("  ИМЯ ") == "имя"


@pytest.mark.slow
def test_ten_thousand_texts_of_one_template_differ():
    text = Text("{name}: {order}")
    found = {text.render({"name": "Anna", "order": str(at)}) for at in range(10_000)}
    assert len(found) == 10_000


def test_errors_survive_pickling():
    with pytest.raises(ValidationError) as caught:
        Text("{}")
    assert pickle.loads(pickle.dumps(caught.value)).messages == caught.value.messages

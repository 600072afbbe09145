import pytest
from django.core.exceptions import ValidationError

from django_smska.numbers import is_russian_mobile, mask, normalize

NBSP, THIN, MINUS = "\u00a0", "\u2009", "\u2212"


@pytest.mark.parametrize(
    "typed",
    [
        "+79041764995",
        "8 904 176-49-95",
        "8(904)176 49 95",
        "79041764995",
        "9041764995",
        " +7 (904) 176-49-95 ",
        f"8{NBSP}904{THIN}176{MINUS}49\u201195",
        "+7.904.176.49.95",
    ],
)
def test_every_usual_spelling_of_a_russian_number_is_one_number(typed):
    assert normalize(typed) == "+79041764995"


@pytest.mark.parametrize(
    "number", ["+4915112345678", "+12025550123", "+375291234567", "+861012345678"]
)
def test_a_foreign_number_needs_its_plus(number):
    assert normalize(number) == number
    with pytest.raises(ValidationError):
        normalize(number[1:])


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "",
        "  ",
        79041764995,
        "abc",
        "+",
        "++79041764995",
        "7904176499",
        "+7904176499",
        "+790417649950",
        "89041764995x2",
        "+89041764995",
        "0079041764995",
        "+0123456789",
        "+1234567890123456",
        "+12345",
        "٨٩٠٤١٧٦٤٩٩٥",
        "8904+1764995",
        "8904176４995",
        "+7904\0176499",
        "8;9041764995",
    ],
)
def test_what_cannot_be_a_number_is_refused_without_being_repeated(wrong):
    with pytest.raises(ValidationError) as refused:
        normalize(wrong)
    assert "4995" not in str(refused.value)


@pytest.mark.parametrize("short", ["8 904 12", "7904", "+7 904 176", "904176499"])
def test_a_russian_number_of_a_wrong_length_is_told_so(short):
    with pytest.raises(ValidationError, match="A Russian number has 11 digits"):
        normalize(short)


def test_number_objects_of_other_libraries_are_taken():
    class PhoneNumber:
        as_e164 = "+79041764995"

    assert normalize(PhoneNumber()) == "+79041764995"


def test_an_invalid_number_object_is_refused():
    class PhoneNumber:
        as_e164 = None

    with pytest.raises(ValidationError):
        normalize(PhoneNumber())


def test_only_seven_nine_and_nine_digits_is_a_russian_mobile():
    assert is_russian_mobile("+79041764995")
    assert not is_russian_mobile("+74951234567")
    assert not is_russian_mobile("+4915112345678")


def test_a_masked_number_shows_its_ends_alone():
    assert mask("+79041764995") == "+7904•••4995"
    assert mask("+12345678") == "•••"

import pytest
from django import forms
from django.core.exceptions import ValidationError

from django_smska.forms import PhoneField
from django_smska.numbers import is_russian_mobile, mask, normalize, plain

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
        "\u202a+79041764995\u202c",
        "\u2800+79041764995\u2800",
        "8\u200b904\u200d176\u200e49\u206095",
        "\ufeff8904\u00ad1764995\u061c",
        "8️⃣9️⃣0️⃣4️⃣1️⃣7️⃣6️⃣4️⃣9️⃣9️⃣5️⃣",
        "7\ufe0e9041764995\U000e0100",
        "＋７（９０４）１７６－４９－９５",
        "⁺7．904．176．49．95",
        "８９０４１７６4995",
        "𝟖9041764995",
        "8\u3000904\u2007176\u202f49\u200a95",
        "79041764995.0",
        "89041764995,00",
        "9041764995.0",
        "7.9041764995E+10",
        "8,9041764995e10",
        "tel:+7-904-176-49-95",
        "TEL:89041764995",
        "tel:+7(904)176.49.95",
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
        "+7904\0176499",
        "8;9041764995",
    ],
)
def test_what_cannot_be_a_number_is_refused_without_being_repeated(wrong):
    with pytest.raises(ValidationError) as refused:
        normalize(wrong)
    assert "4995" not in str(refused.value)


@pytest.mark.parametrize("short", ["8 904 12", "7904", "+7 904 176", "904176499"])
def test_a_russian_number_of_a_wrong_length_is_reported_so(short):
    with pytest.raises(ValidationError, match="A Russian number has 11 digits"):
        normalize(short)


@pytest.mark.parametrize(
    "typed, words",
    [
        ("8 029 123-45-67", "starts with \\+70. Another country needs \\+ and its own code"),
        ("+7 050 123-45-67", "starts with \\+70"),
        ("7 171 123-45-67", "starts with \\+71"),
        ("8(212)555-12-34", "starts with \\+72"),
        ("+75001234567", "starts with \\+75"),
        ("8904a764995", "only digits, blanks, brackets, hyphens, dots and a leading"),
        ("٨٩٠٤١٧٦٤٩٩٥", "digits 0 to 9"),
        ("8904176499۵", "digits 0 to 9"),
        ("+4915112344995²", "digits 0 to 9"),
        ("8904176④995", "digits 0 to 9"),
        ("7,90418E+10", "A spreadsheet has shortened this number"),
        ("7.90418e+10", "A spreadsheet has shortened this number"),
        ("tel:+79041764995;ext=12", "cannot be sent to an extension"),
        ("tel:9041764995;phone-context=+7", "cannot be sent to an extension"),
        ("89041764995, 89051764995", "more than one number"),
        ("8904 176-49-95 / 8905 176-49-95", "more than one number"),
        ("89041764995\n89051764995", "more than one number"),
        ("+79041764995 +4915112345678", "more than one number"),
        ("+79041764995+79041764996", "more than one number"),
    ],
)
def test_what_is_wrong_with_a_number_is_named(typed, words):
    with pytest.raises(ValidationError, match=words):
        normalize(typed)


@pytest.mark.parametrize("number", ["+73012123456", "+74951234567", "+76001234567", "+77011234567"])
def test_every_plan_of_seven_is_known(number):
    assert normalize(number) == normalize("8" + number[2:]) == number


@pytest.mark.parametrize(
    "value, name",
    [
        (79041764995, "int"),
        (b"+79041764995", "bytes"),
        (["+79041764995"], "list"),
        (None, "NoneType"),
        (7.9e10, "float"),
    ],
)
def test_what_is_no_text_is_refused_by_its_type(value, name):
    with pytest.raises(ValidationError, match=f"This must be text, not {name}."):
        normalize(value)


class Parsed:
    """What ``phonenumbers.parse`` returns, as far as it is looked at."""

    extension = None
    italian_leading_zero = None
    number_of_leading_zeros = None

    def __init__(self, country_code, national_number, **more):
        self.country_code = country_code
        self.national_number = national_number
        vars(self).update(more)


def test_objects_of_phonenumbers_are_numbers():
    assert normalize(Parsed(7, 9041764995)) == "+79041764995"
    assert normalize(Parsed(39, 612345678, italian_leading_zero=True)) == "+390612345678"
    two = {"italian_leading_zero": True, "number_of_leading_zeros": 2}
    assert normalize(Parsed(39, 12345678, **two)) == "+390012345678"


@pytest.mark.parametrize(
    "wrong, words",
    [
        (Parsed(None, None), "Enter a phone number"),
        (Parsed(7, 9041764995, extension="17"), "cannot be sent to an extension"),
        (Parsed(7, 291234567), "11 digits"),
    ],
)
def test_objects_of_phonenumbers_that_are_no_numbers_are_refused(wrong, words):
    with pytest.raises(ValidationError, match=words):
        normalize(wrong)


def test_number_objects_of_other_libraries_are_accepted():
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


def test_a_text_of_ligatures_does_not_swell():
    """NFKC makes 18 letters of this one, and a file may have millions of it."""
    assert len(plain("\ufdfa" * 60)) == 60
    assert plain("\ufb01\u00bd\uff11") == "fi\u00bd1"


class PhoneForm(forms.Form):
    phone = PhoneField(validators=[lambda number: None if number[:3] == "+79" else bad()])
    other = PhoneField(required=False, initial="+79041764995")


def bad():
    raise ValidationError("Write a mobile number.")


def test_a_form_field_has_e164():
    """Its validators, too, and what is only written in another way is not changed."""
    form = PhoneForm({"phone": " 8 (904) 176-49-95 ", "other": "8 904 176-49-95"})
    assert form.is_valid() and form.changed_data == ["phone"]
    assert form.cleaned_data == {"phone": "+79041764995", "other": "+79041764995"}
    assert 'type="tel"' in str(form["phone"]) and 'autocomplete="tel"' in str(form["phone"])


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "This field is required."),
        ("  ", "This field is required."),
        ("8 904", "A Russian number has 11 digits"),
        ("+49 30 123456", "Write a mobile number."),
        ("9" * 100_000, "A Russian number has 11 digits"),
        ("8904176\0004995", "A number has only digits"),
    ],
)
def test_a_form_field_says_what_is_wrong(typed, words):
    form = PhoneForm({"phone": typed, "other": ""})
    assert not form.is_valid() and form.errors["phone"][0].startswith(words)
    assert form.cleaned_data["other"] == ""

"""What the gateway repeats of a request is not shown, in whatever spelling it comes."""

import base64
import json
import unicodedata
from html import escape
from urllib.parse import quote, quote_plus, urlencode

import pytest

from django_smska.admin import permissions
from django_smska.redact import WITHHELD, withhold

TEXT = "Ваш код 4321. Никому & никогда его не говорите, <пожалуйста>!"
PASSWORD = "p+w&d %слово"
SECRETS = ["log-in", PASSWORD, TEXT]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    "spell",
    [
        str,
        str.upper,
        quote,
        quote_plus,
        escape,
        json.dumps,
        lambda secret: urlencode({"APIPassword": secret}),
        lambda secret: f"Array ( [Message] => {secret[:20]}",
        lambda secret: secret.replace(" ", "  \n"),
        lambda secret: quote(quote(secret)),
        lambda secret: escape(escape(secret)),
        lambda secret: quote(secret, encoding="windows-1251", errors="replace"),
        lambda secret: "".join(f"&#{ord(c)};" for c in secret),
        lambda secret: "".join(f"&#x{ord(c):x};" for c in secret),
        lambda secret: "".join(f"\\u{{{ord(c):x}}}" for c in secret),
        lambda secret: repr(secret.encode()),
        lambda secret: "".join(f"={byte:02X}" for byte in secret.encode()),
        lambda secret: secret.encode().hex(),
        lambda secret: base64.b64encode(secret.encode()).decode(),
        lambda secret: base64.urlsafe_b64encode(f"a:{secret}".encode()).decode().rstrip("="),
        lambda secret: secret.encode().decode("windows-1251", errors="replace"),
        lambda secret: secret.encode().decode("latin-1"),
        lambda secret: "".join(f"\\{c}" if c in "'&<%+" else c for c in secret),
        lambda secret: "\u200b".join(secret),
        lambda secret: unicodedata.normalize("NFD", secret),
    ],
)
def test_a_secret_is_withheld_in_every_spelling(secret, spell):
    assert withhold(f"Warning: query({spell(secret)}) failed", SECRETS) == WITHHELD


@pytest.mark.parametrize(
    "number",
    ["79041764995", "+7 904 176-49-95", "8(904)176-49-95", "9041764995", "7.904.176.49.95"],
)
def test_a_number_is_masked_in_every_spelling(number):
    assert withhold(f"-6|Invalid MSISDN {number}.", SECRETS) == "-6|Invalid MSISDN •••."


@pytest.mark.parametrize(
    "spelled",
    ["%37%39041764995", "&#55;9041764995", "7-9-0-4%2D176-49-95",
     base64.b64encode(b"to=79041764995").decode(), b"79041764995".hex()],
)  # fmt: skip
def test_the_number_is_not_shown_in_other_spellings(spelled):
    shown = withhold(f"-6|Invalid MSISDN {spelled}.", SECRETS, "79041764995")
    assert shown == WITHHELD or ("•••" in shown and sum(c.isdigit() for c in shown) < 7)


def test_a_secret_of_marks_alone_is_withheld():
    assert withhold("login failed: !@#$%^&*()", ["!@#$%^&*()"]) == WITHHELD


@pytest.mark.parametrize(
    "words",
    ["-6|Invalid MSISDN. The mobile number is not valid", "<h1>502 Bad Gateway</h1>", ""],
)
def test_other_words_are_kept(words):
    assert withhold(words, SECRETS) == words


def test_a_text_of_one_or_two_characters_is_no_secret():
    assert withhold("-3|Sent Error", ["test-login", "test-word", "S", "ok"]) == "-3|Sent Error"


@pytest.mark.parametrize(
    "spelling",
    ["9041764995", "8 (904) 176-49-95", "904_176_4995", "%39041764995", "9&#48;41764995"]
    + ["OTA0MTc2NDk5NQ==", "39303431373634393935"],
)
def test_a_user_who_sees_no_numbers_sees_them_in_no_spelling(spelling):
    shown = permissions.without(f"-6|{spelling} is not valid", number="+79041764995")
    assert spelling not in shown
    assert "is not valid" in permissions.without("-6|5551 is not valid", number="+79041764995")

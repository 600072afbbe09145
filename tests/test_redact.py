"""What the gateway repeats of a request is not shown, in whatever spelling it comes."""

import json
from html import escape
from urllib.parse import quote, quote_plus, urlencode

import pytest

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
    "words",
    ["-6|Invalid MSISDN. The mobile number is not valid", "<h1>502 Bad Gateway</h1>", ""],
)
def test_other_words_are_kept(words):
    assert withhold(words, SECRETS) == words


def test_a_text_of_one_or_two_characters_is_no_secret():
    assert withhold("-3|Sent Error", ["test-login", "test-word", "S", "ok"]) == "-3|Sent Error"

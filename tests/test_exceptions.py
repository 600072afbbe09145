import copy
import os
import pickle
import subprocess
import sys

import pytest

from django_smska import exceptions
from django_smska.exceptions import ErrorKind, InvalidProvider, ProviderDoesNotExist, SmsError

ERRORS = [
    cls for cls in vars(exceptions).values() if isinstance(cls, type) and issubclass(cls, SmsError)
]


@pytest.mark.parametrize("cls", ERRORS)
def test_every_error_survives_pickling_with_all_it_carries(cls):
    error = cls(
        alias="bulk",
        code="-6",
        gateway_text="-6|Invalid MSISDN",
        answered=True,
        retry_in=65,
        sms=17,
    )
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is cls
        assert (twin.alias, twin.code, twin.gateway_text, twin.answered, twin.sms) == (
            "bulk", "-6", "-6|Invalid MSISDN", True, 17,
        )  # fmt: skip
        assert twin.retry_in == 65
        assert str(twin) == str(error)


def test_an_error_names_its_provider_the_cause_and_the_gateways_words():
    error = exceptions.InsufficientCredits(alias="bulk", gateway_text="-5|Insufficient Credits.")
    assert str(error) == (
        "SMS_PROVIDERS['bulk']: The account at the gateway has too few credits. Top it up. "
        "The gateway said: -5|Insufficient Credits."
    )


@pytest.mark.parametrize("cls", [InvalidProvider, ProviderDoesNotExist])
def test_configuration_errors_survive_pickling_and_name_the_alias_once(cls):
    error = cls("Unknown option 'x'.", alias="bulk", hint="Remove it.", check="E003")
    twin = pickle.loads(pickle.dumps(error))
    assert str(twin) == str(error) == "SMS_PROVIDERS['bulk']: Unknown option 'x'."
    assert (twin.alias, twin.hint, twin.check) == ("bulk", "Remove it.", "E003")


def test_the_kinds_are_those_of_the_classes():
    assert {cls.kind for cls in ERRORS} == set(ErrorKind)
    assert all(type(cls.kind) is ErrorKind for cls in ERRORS)
    assert f"{ErrorKind.FUNDS}" == str(ErrorKind.FUNDS) == "funds"


def test_the_tree_is_as_its_docstring_draws_it():
    drawn = [
        line.split("── ")[1].split()[0] for line in exceptions.__doc__.splitlines() if "── " in line
    ]
    defined = [cls.__name__ for cls in [*ERRORS[1:], ProviderDoesNotExist]]
    assert drawn == defined


def test_a_missing_alias_is_a_key_error_and_a_configuration_error():
    assert issubclass(ProviderDoesNotExist, KeyError)
    assert issubclass(ProviderDoesNotExist, exceptions.ImproperlyConfigured)


def test_errors_need_no_settings():
    """A process that unpickles or catches an error may have none."""
    code = "from django_smska import exceptions; print(exceptions.InsufficientCredits(alias='a'))"
    environment = {name: value for name, value in os.environ.items() if "DJANGO" not in name}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "too few credits" in ran.stdout


@pytest.mark.parametrize("cls", ERRORS)
def test_no_error_names_an_option_that_only_some_providers_have(cls):
    assert [name for name in ("api_key", "api_password", "username") if name in str(cls())] == []

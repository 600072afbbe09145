import sys
import traceback
from decimal import Decimal

import environ
import pytest
from django.core.checks import run_checks
from django.views.debug import ExceptionReporter

from django_smska import sms
from django_smska.backends import locmem, smska
from django_smska.conf import sms_url
from django_smska.exceptions import InvalidProvider, ProviderDoesNotExist
from django_smska.providers import providers

PASSWORD = "".join(("pass", "-", "word"))  # not as such in the source, which tracebacks quote
GOOD = {
    "api_key": "login",
    "api_password": PASSWORD,
    "url": "https://host/api",
    "sender_id": "Shop",
}


@pytest.fixture
def real(settings):
    settings.SMSKA_LOCMEM_IN_TESTS = False
    return settings


def test_in_a_test_run_every_alias_is_locmem(settings):
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": GOOD}, "bulk": {"BACKEND": "no.such.Backend"}}
    assert isinstance(providers["default"], locmem.SmsBackend)
    assert isinstance(providers["bulk"], locmem.SmsBackend)
    assert isinstance(providers.default, locmem.SmsBackend)
    assert providers["bulk"].alias == "bulk"


def test_outside_of_one_it_is_what_the_settings_say(real):
    real.SMS_PROVIDERS = {"default": {"OPTIONS": GOOD}}
    assert isinstance(providers["default"], smska.SmsBackend)
    assert providers["default"] is not providers["default"]


def test_the_handler_is_a_mapping_of_aliases(settings):
    settings.SMS_PROVIDERS = {"default": {}, "bulk": {}}
    assert list(providers) == ["default", "bulk"]
    assert "bulk" in providers and "other" not in providers
    assert providers.get("other") is None
    assert providers.get("other", 5) == 5
    assert isinstance(providers.get("bulk"), locmem.SmsBackend)


def test_an_unknown_alias_is_refused_with_those_that_are_known(settings):
    settings.SMS_PROVIDERS = {"default": {}, "bulk": {}}
    with pytest.raises(ProviderDoesNotExist) as refused:
        providers["blk"]
    assert str(refused.value) == (
        "The SMS provider 'blk' is not configured. Known aliases: 'default', 'bulk'. "
        "Add it to SMS_PROVIDERS, or correct 'using'."
    )


def test_without_the_setting_there_are_none(settings):
    del settings.SMS_PROVIDERS
    with pytest.raises(ProviderDoesNotExist, match="Known aliases: none"):
        providers["default"]


WRONG = [
    ({"BACKEND": "no.such.Backend"}, "E002", "Could not find BACKEND 'no.such.Backend'"),
    ({"BACKEND": "django_smska.backends.smska.Backend"}, "E002", "Could not find BACKEND"),
    ({"BACKEND": None}, "E002", "Could not find BACKEND None"),
    ({"OPTIONS": GOOD, "OPTION": {}}, "E001", "An entry is a dict of 'BACKEND' and 'OPTIONS'"),
    ("smska://a:b@host/", "E001", "sms_url() makes one of a URL"),
    ({"OPTIONS": []}, "E001", "OPTIONS must be a dict"),
    ({"OPTIONS": {"alias": "x", **GOOD}}, "E001", "must not define 'alias'"),
    ({"OPTIONS": {**GOOD, "apikey": "x"}}, "E003", "Unknown option 'apikey'"),
    ({}, "E004", "'api_key' and 'api_password' must not be empty"),
    ({"OPTIONS": {**GOOD, "deadline": "soon"}}, "E005", "'deadline' must be a number"),
]


@pytest.mark.parametrize(("entry", "check", "words"), WRONG)
def test_a_wrong_entry_is_refused_and_reported_by_a_check(real, entry, check, words):
    real.SMS_PROVIDERS = {"default": entry}
    with pytest.raises(InvalidProvider) as refused:
        providers["default"]
    assert str(refused.value).startswith("SMS_PROVIDERS['default']: ")
    assert words in str(refused.value)
    errors = run_checks(tags=["sms"])
    assert [(error.id, bool(error.hint)) for error in errors] == [(f"smska.{check}", True)]
    assert str(refused.value) == errors[0].msg


def test_the_traceback_of_a_wrong_entry_shows_no_password(real):
    """Django's debug page shows the local variables of every frame."""
    real.SMS_PROVIDERS = {"default": {"OPTIONS": {**GOOD, "apikey": "x"}}}
    try:
        providers["default"]
    except InvalidProvider:
        html = ExceptionReporter(None, *sys.exc_info()).get_traceback_html()
        plain = traceback.format_exc()
    assert "Unknown option" in html
    assert PASSWORD not in html + plain


def test_checks_are_silent_where_all_is_well(real):
    real.SMS_PROVIDERS = {"default": {"OPTIONS": GOOD}}
    assert run_checks(tags=["sms"], include_deployment_checks=True) == []


def ids(**kwargs):
    return [error.id for error in run_checks(tags=["sms"], **kwargs)]


def test_a_missing_default_alias_is_warned_about(settings):
    settings.SMS_PROVIDERS = {"bulk": {"OPTIONS": GOOD}}
    assert ids() == ["smska.W001"]
    del settings.SMS_PROVIDERS
    assert ids() == ["smska.W001"]


def test_providers_that_are_no_dict_are_an_error(settings):
    settings.SMS_PROVIDERS = ["smska://"]
    assert ids() == ["smska.E001"]


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://host/", ["smska.W002"]),
        ("HTTP://HOST/", ["smska.W002"]),
        ("https://host/", []),
        ("http://127.0.0.1:8009/", []),
        ("http://[::1]/", []),
    ],
)
def test_http_is_warned_about_before_deployment_only(settings, url, found):
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": {**GOOD, "url": url}}}
    assert ids() == []
    assert ids(include_deployment_checks=True) == found


def test_the_address_that_is_the_default_is_warned_about_too(settings):
    options = {name: value for name, value in GOOD.items() if name != "url"}
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": options}}
    assert ids() == []
    assert ids(include_deployment_checks=True) == ["smska.W002"]
    (warning,) = run_checks(tags=["sms"], include_deployment_checks=True)
    assert "SILENCED_SYSTEM_CHECKS" in warning.hint


def test_a_missing_sender_is_warned_about(settings):
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": {**GOOD, "sender_id": ""}}}
    assert ids() == ["smska.W003"]


@pytest.mark.parametrize("name", ["console", "dummy", "locmem", "filebased"])
def test_a_development_backend_as_default_is_a_deployment_error(settings, name):
    entry = {"BACKEND": f"django_smska.backends.{name}.SmsBackend", "OPTIONS": {}}
    if name == "filebased":
        entry["OPTIONS"] = {"file_path": "/var/tmp/sms"}
    settings.SMS_PROVIDERS = {"default": entry, "other": entry}
    assert ids() == []
    assert ids(include_deployment_checks=True) == ["smska.E007"]


def test_a_lease_shorter_than_a_send_is_an_error(settings):
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": {**GOOD, "deadline": 100}}}
    assert ids() == ["smska.E006"]
    settings.SMSKA_LEASE = 130
    assert ids() == []
    settings.SMSKA_LEASE = "long"
    assert ids() == ["smska.E006"]


@pytest.mark.parametrize(
    ("url", "backend", "options"),
    [
        (
            "smska://login:password@my2.sms-ka.net/api/httppost.php?sender_id=MyShop",
            "smska",
            {
                "api_key": "login",
                "api_password": "password",
                "url": "http://my2.sms-ka.net/api/httppost.php",
                "sender_id": "MyShop",
            },
        ),
        (
            "smskas://l%40x:p%3A%2F%23%D0%BF@host:8443/x?deadline=5&connect_timeout=2.5&keep_alive=0"
            "&proxy=http://proxy:1&ca_bundle=/etc/ca.pem",
            "smska",
            {
                "api_key": "l@x",
                "api_password": "p:/#п",
                "url": "https://host:8443/x",
                "deadline": 5,
                "connect_timeout": 2.5,
                "keep_alive": 0,
                "proxy": "http://proxy:1",
                "ca_bundle": "/etc/ca.pem",
            },
        ),
        (
            "smska://a:b@host",
            "smska",
            {"api_key": "a", "api_password": "b", "url": "http://host/api/httppost.php"},
        ),
        ("consolesms://", "console", {}),
        ("filesms:///var/tmp/sms", "filebased", {"file_path": "/var/tmp/sms"}),
        ("memorysms://", "locmem", {}),
        ("dummysms://", "dummy", {}),
    ],
)
def test_a_url_is_an_entry(url, backend, options, real):
    entry = sms_url(url)
    assert entry == {"BACKEND": f"django_smska.backends.{backend}.SmsBackend", "OPTIONS": options}
    real.SMS_PROVIDERS = {"default": entry}
    assert type(providers["default"]).__module__ == f"django_smska.backends.{backend}"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "must be a URL that starts with one of: smska, smskas"),
        ("https://login:secret@host/", "must be a URL that starts with"),
        ("smska://login:secret@/", "smska://login:password@host/path"),
        ("smska://login@host/?x=secret", "smska://login:password@host/path"),
        ("smska://login:se#cret@host/", "percent-encoded in login and password"),
        ("smska://login:se/cret@host/", "percent-encoded in login and password"),
        ("smska://login:secret@host:notaport/", "the port after the host must be a number"),
        ("smska://login:secret@host/?sender=X", "unknown option 'sender'; known: sender_id"),
        ("smska://login:secret@host/?deadline=soon", "'deadline' must be a number"),
        ("filesms://folder", "three slashes"),
        (None, "must be a URL"),
    ],
)
def test_a_wrong_url_is_refused_without_being_repeated(url, words):
    with pytest.raises(InvalidProvider, match=words) as refused:
        sms_url(url)
    assert "secret" not in str(refused.value)


def test_django_environ_casts_it(monkeypatch):
    monkeypatch.setenv("SMS_URL", "smska://login:pa%24s@host/api?sender_id=Shop")
    entry = environ.Env()("SMS_URL", cast=sms_url)
    assert entry["OPTIONS"]["api_password"] == "pa$s"


def test_the_public_names_are_these():
    assert sorted(sms.__all__) == [
        "outbox", "providers", "queue_sms", "send_mass_sms", "send_sms",
    ]  # fmt: skip
    assert providers["default"].get_balance() == Decimal(1000)
    assert sms.outbox is locmem.outbox

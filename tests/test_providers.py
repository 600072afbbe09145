import sys
import traceback
from datetime import timedelta
from decimal import Decimal

import environ
import pytest
from django.core.checks import run_checks
from django.db import connections
from django.views.debug import ExceptionReporter

from django_smska import conf, sms
from django_smska.backends import locmem, smska
from django_smska.backends.base import BaseSmsBackend
from django_smska.conf import sms_url
from django_smska.exceptions import InvalidProvider, ProviderDoesNotExist
from django_smska.providers import providers
from django_smska.wire import Wire

PASSWORD = "".join(("pass", "-", "word"))  # not as such in the source, which tracebacks quote
ACCOUNT, SERVICE = "AC" + "1f" * 16, "MG" + "2e" * 16
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
    ({"OPTIONS": GOOD, "OPTION": {}}, "E001", "'OPTION': did you mean 'OPTIONS'?"),
    ({"options": GOOD}, "E001", "'options': did you mean 'OPTIONS'?"),
    ({"backend": "x"}, "E001", "'backend': did you mean 'BACKEND'?"),
    (GOOD, "E001", "'api_key' belongs in OPTIONS."),
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
    errors = run_checks(tags=["sms"], databases=[])
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


def shown_of(error):
    """What trackers and debug pages show: each frame's local variables, but for this module's."""
    shown = [repr(error), str(error)]
    while error is not None:
        place = error.__traceback__
        while place is not None:
            if place.tb_frame.f_code.co_filename != __file__:
                shown += [f"{name}={value!r}" for name, value in place.tb_frame.f_locals.items()]
            place = place.tb_next
        error = error.__cause__ or error.__context__
    return "\n".join(shown)


WRONG_URLS = [
    "http://host:99999/",
    "http://host:abc/",
    "http://host:0/",
    "http://host:-1/",
    "http://*.example/",
    "http://.example/",
    "http://a..b/",
    "http://ho st/",
    "http://host/a path",
    " http://host/",
    "http://host/\n",
    "http://" + "a" * 64 + ".example/",
    "http://" + ".".join(["a" * 60] * 5) + "/",
    "http://xn--" + "ж" * 64 + "/",
    "http://ж" + "ж" * 63 + ".example/",
    "http://\u2100.example/",
    "http://[::1/",
    "http://[::g]/",
    "http://1.2.3.400/",
    "http://1.2.3/",
    "http://host\\@other/",
    "http://:secret@host/",
    "http://:80/",
    "http:host",
    "//host/",
    "host",
    "http://host/\ud800",
    5,
    b"http://host/",
]


@pytest.mark.parametrize("url", WRONG_URLS, ids=repr)
@pytest.mark.parametrize("option", ["url", "proxy"])
def test_a_wrong_address_is_reported_by_the_check(real, option, url):
    if option == "proxy" and url in ("http://:secret@host/", "http://host/a path"):
        url = "http://me:" + PASSWORD + "@ho st:1"
    real.SMS_PROVIDERS = {"default": {"OPTIONS": {**GOOD, option: url}}}
    (error,) = run_checks(tags=["sms"], databases=[])
    assert error.id == "smska.E005" and f"'{option}'" in error.msg and error.hint
    with pytest.raises(InvalidProvider) as refused:
        providers["default"]
    assert PASSWORD not in shown_of(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://my2.sms-ka.net/api/httppost.php",
        "http://127.0.0.1:8009/x",
        "http://[::1]:8009/",
        "http://sms_gateway:80/",
        "https://смс.рф/путь",
        "https://host./",
        "https://xn--e1aybc.xn--p1ai/",
        "http://localhost",
    ],
)
def test_a_right_address_can_be_used(real, url):
    real.SMS_PROVIDERS = {"default": {"OPTIONS": {**GOOD, "url": url}}}
    assert "smska.E005" not in ids()
    with providers["default"] as backend:  # which makes the client
        assert backend.url == url


def test_a_bundle_that_is_not_there_is_reported_by_the_check(real, tmp_path):
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    for path in (
        tmp_path / "none.pem",
        str(tmp_path / "none.pem"),
        str(wrong),
        "~/none.pem",
        5,
        True,
    ):
        real.SMS_PROVIDERS = {"default": {"OPTIONS": {**GOOD, "ca_bundle": path}}}
        (error,) = run_checks(tags=["sms"], databases=[])
        assert error.id == "smska.E005" and "'ca_bundle'" in error.msg and error.hint


class Explosive:
    """Another party's backend, which quotes its options."""

    def __init__(self, *, alias, error, api_password):
        raise error(f"cannot use {api_password}")

    def send_message(self, message):
        pass


@pytest.mark.parametrize("error", [ValueError, OSError, KeyError, TypeError, ZeroDivisionError])
def test_a_backend_that_cannot_be_made_shows_no_option(real, error):
    options = {"error": error, "api_password": PASSWORD}
    entry = {"BACKEND": f"{__name__}.Explosive", "OPTIONS": options}
    real.SMS_PROVIDERS = {"default": entry}
    with pytest.raises(InvalidProvider, match=f"it raised {error.__name__}") as refused:
        providers["default"]
    assert PASSWORD not in shown_of(refused.value)
    assert ids() == ["smska.E004"]
    entry["OPTIONS"] = {"error": error}
    with pytest.raises(InvalidProvider, match="missing a required .*'api_password'"):
        providers["default"]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_abort_in_making_a_backend_shows_no_option(real, error):
    options = {"error": error, "api_password": PASSWORD}
    entry = {"BACKEND": f"{__name__}.Explosive", "OPTIONS": options}
    real.SMS_PROVIDERS = {"default": entry}
    with pytest.raises(error) as stopped:
        providers["default"]
    stopped.value.args = ()
    assert PASSWORD not in shown_of(stopped.value)


@pytest.mark.parametrize("url", ["smska://login:{}@h:x/", "smska://{}", "smska://a:{}@[h/", "x:{}"])
def test_no_frame_shows_what_a_wrong_url_holds(url, settings):
    with pytest.raises(InvalidProvider) as refused:
        sms_url(url.format(PASSWORD))
    assert PASSWORD not in shown_of(refused.value)
    settings.SMS_PROVIDERS = url.format(PASSWORD)
    with pytest.raises(InvalidProvider) as refused:
        providers["default"]
    assert PASSWORD not in shown_of(refused.value)


def test_checks_are_silent_where_all_is_well(real):
    real.SMS_PROVIDERS = {"default": {"OPTIONS": GOOD}}
    assert run_checks(tags=["sms"], databases=[], include_deployment_checks=True) == []


def ids(**kwargs):
    return [error.id for error in run_checks(tags=["sms"], databases=[], **kwargs)]


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
    (warning,) = run_checks(tags=["sms"], databases=[], include_deployment_checks=True)
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


class Apart:
    """Keeps the messages in a database of their own."""

    def db_for_write(self, model, **hints):
        return "other" if model._meta.app_label == "django_smska" else None

    db_for_read = db_for_write


@pytest.mark.parametrize(("name", "found"), [("other.sqlite3", ["smska.E012"]), (None, [])])
def test_a_database_without_the_users_is_an_error(settings, monkeypatch, name, found):
    """Two aliases of one database are none."""
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": GOOD}}
    settings.DATABASE_ROUTERS = ["tests.test_providers.Apart"]
    usual = connections.settings["default"]
    other = {**usual, "NAME": name or connections["default"].settings_dict["NAME"]}
    monkeypatch.setitem(connections.settings, "other", other)
    try:
        errors = run_checks(tags=["sms"], databases=[])
        assert [error.id for error in errors] == found
        assert all("'other'" in error.msg and "auth.User" in error.msg for error in errors)
    finally:
        del connections["other"]


def test_a_send_ends_before_a_web_server_kills_its_process():
    """gunicorn does so after 30 seconds, of which the balance of a paused provider takes ten."""
    backend = smska.SmsBackend(alias="default", **GOOD)
    assert backend.deadline == Wire().deadline == BaseSmsBackend.deadline == 20


def test_a_lease_shorter_than_a_send_is_an_error(settings):
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": {**GOOD, "deadline": 100}}}
    assert ids() == ["smska.E006"]
    settings.SMSKA_LEASE = 130
    assert ids() == []


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("SMSKA_LEASE", "long"),
        ("SMSKA_LEASE", 0),
        ("SMSKA_LEASE", None),
        ("SMSKA_EXPIRES_AFTER", -1),
        ("SMSKA_EXPIRES_AFTER", timedelta(0)),
        ("SMSKA_EXPIRES_AFTER", 1e12),
        ("SMSKA_STATUS_WINDOW", float("nan")),
        ("SMSKA_STATUS_WINDOW", float("inf")),
        ("SMSKA_KEEP", timedelta.max),
        ("SMSKA_KEEP", []),
        ("SMSKA_MAX_ATTEMPTS", 2.5),
        ("SMSKA_MAX_ATTEMPTS", 10**400),
        ("SMSKA_MAX_SEGMENTS", "3"),
        ("SMSKA_MAX_SEGMENTS", 0),
        ("SMSKA_MAX_SEGMENTS", 256),
        ("SMSKA_SEND_AT_ONCE", True),
        ("SMSKA_LOW_BALANCE", -0.5),
        ("SMSKA_LOW_BALANCE", None),
        ("SMSKA_TASKS", 5),
        ("SMSKA_LOCMEM_IN_TESTS", "False"),
    ],
)
def test_a_wrong_value_is_an_error_at_start(settings, name, wrong):
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": GOOD}}
    setattr(settings, name, wrong)
    (error,) = run_checks(tags=["sms"], databases=[])
    assert error.id == "smska.E011"
    assert error.msg.startswith(f"{name} must be ") and repr(wrong)[:20] in error.msg
    assert name in error.hint and len(error.msg) < 150


def test_right_values_are_no_error(settings):
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": GOOD}}
    settings.SMSKA_LEASE = timedelta(minutes=5)
    settings.SMSKA_EXPIRES_AFTER = 0.5
    settings.SMSKA_MAX_SEGMENTS = 3.0
    settings.SMSKA_LOW_BALANCE = 0
    settings.SMSKA_TASKS = ""
    assert run_checks(tags=["sms"], databases=[]) == []
    assert conf.lease() == timedelta(minutes=5) and conf.max_segments() == 3


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("SMSKA_EXPIRE_AFTER", "Did you mean SMSKA_EXPIRES_AFTER?"),
        ("SMSKA_MAXSEGMENTS", "Did you mean SMSKA_MAX_SEGMENTS?"),
        ("SMS_PROVIDER", "Did you mean SMS_PROVIDERS?"),
        ("SMSKA_ZZZ", "Remove it. Known: SMS_PROVIDERS, SMSKA_LEASE, "),
    ],
)
def test_an_unknown_name_is_warned_about(settings, name, hint):
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": GOOD}}
    setattr(settings, name, "secret")
    (warning,) = run_checks(tags=["sms"], databases=[])
    assert warning.id == "smska.W011" and name in warning.msg
    assert warning.hint.startswith(hint) and "secret" not in str(warning)


@pytest.mark.parametrize(
    ("use_tz", "zone", "warns"),
    [
        (False, "Europe/Berlin", True),
        (False, "Europe/Moscow", False),
        (False, "UTC", False),
        (True, "Europe/Berlin", False),
    ],
)
def test_times_by_a_clock_that_is_set_forward_and_back(settings, use_tz, zone, warns):
    settings.SMS_PROVIDERS = {"default": {"OPTIONS": GOOD}}
    settings.USE_TZ, settings.TIME_ZONE = use_tz, zone
    found = run_checks(tags=["sms"], databases=[])
    assert [one.id for one in found] == (["smska.W022"] if warns else [])


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
            "&proxy=http://proxy:1&ca_bundle=/dev/null",
            "smska",
            {
                "api_key": "l@x",
                "api_password": "p:/#п",
                "url": "https://host:8443/x",
                "deadline": 5,
                "connect_timeout": 2.5,
                "keep_alive": 0,
                "proxy": "http://proxy:1",
                "ca_bundle": "/dev/null",
            },
        ),
        (
            "smska://a:b@host",
            "smska",
            {"api_key": "a", "api_password": "b", "url": "http://host/api/httppost.php"},
        ),
        (
            f"twilio://{ACCOUNT}:to%40ken@api.twilio.com?sender_id=%2B15005550006",
            "twilio",
            {
                "account_sid": ACCOUNT,
                "auth_token": "to@ken",
                "url": "https://api.twilio.com",
                "sender_id": "+15005550006",
            },
        ),
        (
            f"twilio://{ACCOUNT}:token@host:8443?messaging_service_sid={SERVICE}&rate=5/s",
            "twilio",
            {
                "account_sid": ACCOUNT,
                "auth_token": "token",
                "url": "https://host:8443",
                "messaging_service_sid": SERVICE,
                "rate": "5/s",
            },
        ),
        (
            "infobip://ke%2Fy-1@xyz1ab.api.infobip.com?sender_id=Shop",
            "infobip",
            {"api_key": "ke/y-1", "url": "https://xyz1ab.api.infobip.com", "sender_id": "Shop"},
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
    ("url", "backend", "options"),
    [
        (
            "twilio://AC1:to%40ken@api.twilio.com?sender_id=%2B15005550006",
            "twilio",
            {
                "account_sid": "AC1",
                "auth_token": "to@ken",
                "url": "https://api.twilio.com",
                "sender_id": "+15005550006",
            },
        ),
        (
            "twilio://AC1:token@host:8443?messaging_service_sid=MG1&rate=5/s",
            "twilio",
            {
                "account_sid": "AC1",
                "auth_token": "token",
                "url": "https://host:8443",
                "messaging_service_sid": "MG1",
                "rate": "5/s",
            },
        ),
        (
            "infobip://ke%2Fy-1@xyz1ab.api.infobip.com?sender_id=Shop",
            "infobip",
            {"api_key": "ke/y-1", "url": "https://xyz1ab.api.infobip.com", "sender_id": "Shop"},
        ),
        (
            "kannel://sh%40op:pa%3Ass@127.0.0.1:13013?sender_id=Shop&smsc=operator",
            "kannel",
            {
                "username": "sh@op",
                "password": "pa:ss",
                "url": "http://127.0.0.1:13013/cgi-bin/sendsms",
                "sender_id": "Shop",
                "smsc": "operator",
            },
        ),
        (
            "kannels://shop:pass@kannel.example/send",
            "kannel",
            {"username": "shop", "password": "pass", "url": "https://kannel.example/send"},
        ),
    ],
)
def test_a_url_names_the_login_as_its_backend_does(url, backend, options):
    entry = sms_url(url)
    assert entry == {"BACKEND": f"django_smska.backends.{backend}.SmsBackend", "OPTIONS": options}


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
        ("smska://login:pa@ss?secret@host/", "an unknown option; known: sender_id"),
        ("smska://login:pa@ss?x=1&secret", "an unknown option; known: sender_id"),
        ("smska://login:secret@host/?deadline=soon", "'deadline' must be a number"),
        ("smskas://login@host/?x=secret", "smskas://login:password@host/path"),
        ("twilio://AC1@host", "twilio://account_sid:auth_token@api.twilio.com, with"),
        ("twilio://AC1:sec/ret@host", "percent-encoded in account_sid and auth_token"),
        ("twilio://AC1:secret@host?messaging_sid=MG1", "'messaging_sid'; known: sender_id, .*"),
        ("smska://a:secret@host?messaging_service_sid=MG1", "an unknown option; known: "),
        ("infobip://host", "infobip://api_key@host, with :.* percent-encoded in api_key"),
        ("infobip://key:secret@host", "infobip://api_key@host, with"),
        ("infobip://secret@host:x", "the port after the host must be a number"),
        ("kannel://secret@host", "kannel://username:password@host:port/path, with"),
        ("kannels://shop:secret@host?smcs=a", "unknown option 'smcs'; known: .*, smsc"),
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
        "aqueue_sms",
        "asend_code",
        "asend_sms",
        "asend_template",
        "outbox",
        "providers",
        "queue_sms",
        "render_template",
        "send_code",
        "send_mass_sms",
        "send_sms",
        "send_template",
    ]  # fmt: skip
    assert providers["default"].get_balance() == Decimal(1000)
    assert sms.outbox is locmem.outbox

"""What a third party's backend does wrong concerns that provider alone."""

import json
import re
from decimal import Decimal
from io import StringIO
from unittest import mock

import pytest
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.utils import timezone

from django_smska import checked_backend, circuit_breaker, delivery
from django_smska.exceptions import (
    GatewayUnreachable,
    InvalidProvider,
    InvalidRecipient,
    InvalidRequest,
    InvalidSender,
    ProviderFailed,
    QueryFailed,
    SmsError,
    SmsNotSent,
    SmsOutcomeUnknown,
    WrongStatus,
)
from django_smska.models import ProviderState, SmsMessage
from django_smska.receipts import Receipt, Report
from django_smska.sms import providers, queue_sms, send_sms
from django_smska.worker import Worker

from .backends import Denied, Hostile, Locked, Minimal, OfNoKind, Sealed, Unformed

NUMBER = "+79041764995"
SECRET = "secret 79041764995"

CRASH = RuntimeError(SECRET)
RAISED = [
    CRASH,
    QueryFailed(SECRET),
    InvalidProvider(SECRET),
    Unformed(SECRET),
    WrongStatus(SECRET),
    SmsError(SECRET),
    KeyError(SECRET),
    RecursionError(SECRET),
    UnicodeEncodeError("ascii", SECRET, 0, 1, SECRET),
    SmsNotSent(SECRET, retry_in="soon"),
]


@pytest.fixture(autouse=True)
def _counted(settings):
    settings.SMSKA_LOCMEM_IN_TESTS = False
    Hostile.calls.clear()


@pytest.fixture
def use(settings, transactional_db):
    """Make "bad" a hostile provider; "zz" is a good one that is served after it."""

    def use(backend="Hostile", **options):
        settings.SMS_PROVIDERS = {
            "bad": {"BACKEND": f"tests.backends.{backend}", "OPTIONS": options},
            "zz": {"BACKEND": "tests.backends.Minimal"},
        }

    return use


def queue(using, number=1):
    return [queue_sms(NUMBER, f"text {n}", using=using) for n in range(number)]


def statuses(using):
    found = SmsMessage.objects.filter(using=using).order_by("pk")
    return list(found.values_list("status", flat=True))


def due():
    SmsMessage.objects.update(send_after=timezone.now(), next_status_at=timezone.now())


def run(*args):
    out = StringIO()
    error = None
    try:
        call_command(*args, stdout=out)
    except CommandError as raised:
        error = str(raised)
    return out.getvalue(), error


# --- the worker -----------------------------------------------------------------------------------

PLACES = [
    "__init__", "open", "close", "send_message", "get_status", "get_balance", "uses_network",
    "announces_first_byte", "deadline", "rate", "gives_reports", "has_balance",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("error", RAISED[:4], ids=lambda error: type(error).__name__)
def test_whatever_raises_the_next_provider_goes_on(use, caplog, place, error):
    use(raises={place: error})
    queue("bad", 2)
    ProviderState.objects.create(alias="bad")
    for _ in range(4):
        queue("zz", 2)
        Worker(concurrency=2).run_once()
        due()
        ProviderState.objects.exclude(probe_at=None).update(probe_at=timezone.now())
    assert set(statuses("zz")) == {"sent"}
    # The text of these two is written for people.
    ours = [("get_status", QueryFailed), ("__init__", InvalidProvider)]
    assert SECRET not in caplog.text or (place, type(error)) in ours
    refused = {"failed"} if (place, type(error)) == ("send_message", Unformed) else set()
    assert set(statuses("bad")) <= {"sent", "delivered", "queued", "unknown"} | refused


@pytest.mark.slow
def test_what_cannot_be_opened_keeps_its_queue_whole_and_is_paused(use, caplog):
    use(raises={"open": CRASH})
    queue("bad", 3)
    for _ in range(5):
        Worker().run_once()
    assert statuses("bad") == ["queued"] * 3
    assert set(SmsMessage.objects.values_list("attempts", flat=True)) == {0}
    assert Hostile.calls["open"] == 3 and Hostile.calls["send_message"] == 0
    state = circuit_breaker.state_of("bad")
    assert (state.is_paused, state.reason) == (True, "broken")
    assert "provider bad: open failed (RuntimeError, " in caplog.text
    assert "paused (broken)" in run("sms_status")[0]


def test_a_crash_is_logged_with_its_place_and_without_values(use, caplog):
    use("Broken")
    with pytest.raises(SmsOutcomeUnknown):
        send_sms(NUMBER, SECRET, using="bad")
    (line,) = [one for one in caplog.messages if "send_message failed" in one]
    assert re.fullmatch(
        r"provider bad: send_message failed \(ZeroDivisionError, \S+/tests/backends\.py:\d+\)", line
    )
    assert SECRET not in caplog.text


def test_an_attribute_that_fails_once_does_not_count_for_long(use):
    use(raises={"gives_reports": CRASH})
    assert not checked_backend.traits("bad").polled
    Hostile.calls.clear()
    with mock.patch.object(Hostile, "gives_reports", True):
        assert checked_backend.traits("bad").polled
    assert checked_backend.traits("bad").polled and not Hostile.calls["gives_reports"]


def test_one_that_cannot_be_opened_for_a_report_is_asked_later(use):
    use()
    queue("bad", 2)
    Worker().run_once()
    use(raises={"open": CRASH})
    due()
    before = timezone.now()
    assert delivery.query_due(limit=10) == 2
    assert set(statuses("bad")) == {"sent"} and Hostile.calls["get_status"] == 0
    assert circuit_breaker.state_of("bad").failures == 1
    assert not SmsMessage.objects.filter(next_status_at__lte=before).exists()


@pytest.mark.slow
def test_and_sends_again_when_it_is_mended(use):
    use(raises={"open": CRASH})
    queue("bad", 3)
    for _ in range(3):
        Worker().run_once()
    use()
    Worker().run_once()
    assert statuses("bad") == ["queued"] * 3
    ProviderState.objects.update(probe_at=timezone.now())
    Worker().run_once()
    assert statuses("bad") == ["sent"] * 3
    assert not circuit_breaker.state_of("bad").is_paused


def test_a_backend_that_cannot_be_made_is_paused_like_any_other(use):
    use(raises={"__init__": CRASH})
    queue("bad")
    for _ in range(3):
        Worker().run_once()
    assert statuses("bad") == ["queued"]
    state = circuit_breaker.state_of("bad")
    assert state.reason == "broken" and "it raised RuntimeError" in state.detail


def test_our_own_error_of_an_open_counts_as_what_it_is(use):
    use(raises={"open": GatewayUnreachable()})
    queue("bad")
    Worker().run_once()
    assert circuit_breaker.state_of("bad").reason == "unreachable"
    assert statuses("bad") == ["queued"]


@pytest.mark.parametrize("error", [InvalidRecipient(), OfNoKind(), SmsOutcomeUnknown()])
def test_an_error_of_an_open_is_none_of_the_messages(use, error):
    use(raises={"open": error})
    with pytest.raises(ProviderFailed) as refused:
        send_sms(NUMBER, "text", using="bad")
    assert refused.value.code == f"crash-{type(error).__name__}"


def test_a_program_that_fails_before_the_first_byte_costs_no_message(use):
    use(raises={"send_message": CRASH}, returns={"announces_first_byte": True})
    queue("bad", 5)
    Worker(concurrency=1).run_once()
    assert statuses("bad") == ["queued"] * 5
    assert Hostile.calls["send_message"] == 3
    assert circuit_breaker.state_of("bad").reason == "broken"


@pytest.mark.parametrize(
    "rate", ["fast", "0.000001/h", 1e-320, float("nan"), float("inf"), -1, 0, True, object(), [1]]
)
def test_a_rate_that_cannot_be_read_does_not_count_as_none(use, rate):
    use(returns={"rate": rate})
    with pytest.raises(ProviderFailed, match="20/s"):
        send_sms(NUMBER, "text", using="bad")
    assert Hostile.calls["send_message"] == 0


@pytest.mark.parametrize("place", ["deadline", "uses_network", "gives_reports", "has_balance"])
@pytest.mark.parametrize("value", [None, "x", float("nan"), object(), 10**400])
def test_other_attributes_of_no_sense_do_no_harm(use, place, value):
    use(returns={place: value})
    assert send_sms(NUMBER, "text", using="bad").status == "sent"
    assert isinstance(run_checks(), list)


def test_a_backend_that_inherits_nothing_can_send(use):
    use("Stranger")
    assert send_sms(NUMBER, "text", using="bad").gateway_id == "stranger-1"
    queue("bad")
    Worker().run_once()
    assert statuses("bad") == ["sent", "sent"]
    assert [one for one in run_checks() if "bad" in one.msg] == []
    assert "has no balance" in run("sms_balance", "--using", "bad")[1]


# --- a send ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [SmsNotSent, SmsOutcomeUnknown])
def test_an_error_that_quotes_the_request_keeps_none_of_it(use, caplog, error):
    use("Quoting", token="Zq8-hidden-token", error=error)
    with pytest.raises(error) as raised:
        send_sms(NUMBER, "Your PIN is 4471", using="bad")
    message = SmsMessage.objects.get()
    shown = f"{raised.value} {raised.value.code} {message.error_code} {message.error_text}"
    assert raised.value.args == (error.summary,)
    for secret in ("9041764995", "4471", "Zq8-hidden-token"):
        assert secret not in shown + caplog.text


def test_an_error_that_quotes_nothing_keeps_its_words(use):
    use("Talkative", refuse="text")
    with pytest.raises(SmsNotSent, match="refused by its option"):
        send_sms(NUMBER, "text", using="bad")


@pytest.mark.parametrize("send", ["now", "worker"])
def test_a_close_that_raises_loses_no_outcome(use, send):
    use(raises={"close": CRASH})
    if send == "now":
        send_sms(NUMBER, "text", using="bad")
    else:
        queue("bad")
        Worker().run_once()
    assert statuses("bad") == ["sent"]
    assert Hostile.calls["close"] >= 1


class Unprintable:
    def __str__(self):
        raise ValueError(SECRET)


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong",
    [
        {"balance": Decimal("NaN")},
        {"balance": Decimal("sNaN")},
        {"balance": float("inf")},
        {"balance": "12"},
        {"balance": object()},
        {"balance": Decimal("1e400")},
        {"balance": 10**5000},
        {"gateway_id": "x" * 65},
        {"gateway_id": "a\0b"},
        {"gateway_id": "\ud800"},
        {"gateway_id": None},
        {"gateway_id": Unprintable()},
        {"alias": "unknown"},
        {"alias": ["zz"]},
        {"alias": "x" * 100},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_an_accepted_message_stays_so_whatever_the_receipt_holds(use, wrong):
    use(returns={"send_message": Receipt(**{"gateway_id": "good-1", **wrong})})
    message = send_sms(NUMBER, "text", using="bad")
    assert (message.status, message.using) == ("sent", "bad")
    assert message.gateway_id == ("" if "gateway_id" in wrong else "good-1")
    queue("bad", 2)
    Worker().run_once()
    assert statuses("bad") == ["sent"] * 3
    assert circuit_breaker.state_of("bad").balance is None


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("announces", [False, True])
def test_only_the_two_errors_of_a_send_are_believed(use, announces, error):
    """All else is a doubt once the request may have begun, and the program's failure before."""
    use(raises={"send_message": error}, returns={"announces_first_byte": announces})
    believed = isinstance(error, SmsNotSent)
    expected = SmsNotSent if announces or believed else SmsOutcomeUnknown
    with pytest.raises(expected) as raised:
        send_sms(NUMBER, "text", using="bad")
    assert statuses("bad") == ["failed" if announces or believed else "unknown"]
    assert SECRET not in str(raised.value)
    assert raised.value.__context__ is None and raised.value.__cause__ is None


@pytest.mark.parametrize(
    "error",
    [Denied(), OfNoKind(), Sealed(), Locked("words"), SmsNotSent("a\0b", code="\ud800" * 50)],
)
def test_an_error_of_another_class_is_made_fit_for_the_table(use, error):
    use(raises={"send_message": error})
    doubt = isinstance(error, SmsOutcomeUnknown)
    with pytest.raises(SmsOutcomeUnknown if doubt else SmsNotSent):
        send_sms(NUMBER, "text", using="bad")
    row = SmsMessage.objects.get()
    assert row.status == ("unknown" if doubt else "failed")
    assert "\0" not in row.error_text and row.error_text


def test_an_error_that_names_another_provider_is_counted_against_its_own(use):
    use(raises={"send_message": GatewayUnreachable(alias="zz")})
    with pytest.raises(GatewayUnreachable):
        send_sms(NUMBER, "text", using="bad")
    assert (
        circuit_breaker.state_of("bad").is_paused and not circuit_breaker.state_of("zz").is_paused
    )


@pytest.mark.parametrize("abort", [KeyboardInterrupt, SystemExit])
def test_an_abort_goes_through(use, abort):
    use(raises={"send_message": abort()})
    with pytest.raises(abort):
        send_sms(NUMBER, "text", using="bad")
    assert statuses("bad") == ["sending"]


ABORTS = [KeyboardInterrupt, SystemExit, GeneratorExit]


@pytest.mark.slow
@pytest.mark.parametrize("abort", ABORTS)
@pytest.mark.parametrize(("announces", "ends"), [(False, "unknown"), (True, "queued")])
def test_an_abort_in_a_workers_thread_counts_as_a_crash(use, abort, announces, ends):
    use(raises={"send_message": abort()}, returns={"announces_first_byte": announces})
    queue("bad", 8)
    queue("zz", 2)
    Worker(concurrency=3).run_once()
    assert statuses("bad") == [ends] * 3 + ["queued"] * 5 and statuses("zz") == ["sent"] * 2
    assert circuit_breaker.state_of("bad").is_paused


@pytest.mark.parametrize("abort", ABORTS)
def test_an_abort_in_a_query_ends_the_queries_of_that_provider(use, abort):
    use(raises={"get_status": abort()})
    queue("bad", 2)
    queue("zz", 2)
    Worker().run_once()
    due()
    Worker().run_once()
    assert set(statuses("bad")) == {"sent"} and Hostile.calls["get_status"] == 1


@pytest.mark.parametrize(("raised", "ends"), [({}, "sent"), ({"send_message": CRASH}, "unknown")])
def test_what_a_backend_writes_on_a_message_is_its_own(use, raised, ends):
    use("Scribbler", raises=raised)
    queue("bad", 2)
    queue("zz", 2)
    Worker(concurrency=2).run_once()
    assert statuses("bad") == [ends] * 2 and statuses("zz") == ["sent"] * 2
    if not raised:
        assert send_sms(NUMBER, "text", using="bad").gateway_id == "hostile-1"


def test_without_the_engine_the_run_goes_on_after_a_crash(use):
    use(raises={"send_message": CRASH})
    messages = [SmsMessage(to=NUMBER, body="text") for _ in range(2)]
    assert providers["bad"].send_messages(messages) == 0
    assert all(isinstance(message.error, SmsOutcomeUnknown) for message in messages)


# --- reports and balances -------------------------------------------------------------------------

NO_REPORTS = [
    None, "delivered", ("delivered", "4"), 7, Report("teleported", "9|X"), Report("failed", ""),
    Report("queued", ""), Report(["delivered"], ""), Report(None, None), Report("", "x" * 5000),
    Report("", "a\0b\ud800c"), Report("", b"4|DELIVRD"), Report("", "☺" * 70 + "😀" * 70),
    Report("unconfirmed", ""), Report("sent", "😀\n" * 40),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("report", NO_REPORTS, ids=lambda one: type(one).__name__)
def test_a_report_of_no_sense_changes_no_status(use, report):
    use(returns={"get_status": report})
    message = send_sms(NUMBER, "text", using="bad")
    send_sms(NUMBER, "text", using="bad")
    due()
    Worker().run_once()
    assert statuses("bad") == ["sent"] * 2
    assert Hostile.calls["get_status"] == 2
    message.refresh_from_db()
    assert len(message.gateway_status) <= 64
    if isinstance(report, Report):
        message.refresh_status()
    else:
        with pytest.raises(QueryFailed, match="no usable answer"):
            message.refresh_status()
    assert not circuit_breaker.state_of("bad").is_paused


def test_a_known_status_is_kept_with_words_made_to_fit(use):
    use(returns={"get_status": Report("delivered", "4|DELIVRD\0" + "x" * 500)})
    message = send_sms(NUMBER, "text", using="bad")
    message.refresh_status()
    assert message.status == "delivered" and message.gateway_status.startswith("4|DELIVRD x")


NO_BALANCES = [
    None, "12.5", True, b"1", float("nan"), float("inf"), Decimal("NaN"), Decimal("sNaN"),
    Decimal("-Infinity"), Decimal("1e1000"), 10**5000, [], object(),
]  # fmt: skip


@pytest.mark.parametrize("balance", NO_BALANCES, ids=lambda balance: type(balance).__name__)
def test_a_balance_of_no_sense_is_a_sentence(use, balance):
    use(returns={"get_balance": balance})
    out, error = run("sms_balance", "--min", "5")
    assert (
        out
        == "bad: The provider's backend on this site gave no usable answer; the log says more.\n"
    )
    assert error == "No balance from: bad."
    assert list(json.loads(run("sms_balance", "--json")[0])["bad"]) == ["error"]


@pytest.mark.parametrize("place", ["__init__", "get_balance", "has_balance"])
def test_a_balance_that_cannot_be_asked_for_is_a_sentence(use, place):
    use(raises={place: CRASH})
    for args in ([], ["--using", "bad"]):
        out, error = run("sms_balance", *args)
        assert error and SECRET not in out + error


@pytest.mark.parametrize("balance, shown", [(7, "7"), (7.25, "7.25"), (Decimal("1E-9"), "0.0000")])
def test_any_number_is_a_balance(use, balance, shown):
    use(returns={"get_balance": balance})
    assert run("sms_balance")[0] == f"bad: {shown} (unit not known)\n"


@pytest.mark.parametrize("place", ["__init__", "open", "send_message", "close"])
def test_a_test_message_says_in_words_what_became_of_it(use, place):
    use(raises={place: CRASH})
    out, error = run("sendtestsms", NUMBER, "--using", "bad")
    assert (error is None) == (place == "close")
    assert SECRET not in out + str(error)


# --- system checks --------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["check", "rate"])
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_a_check_that_raises_is_one_warning(use, place, error):
    use(raises={place: error})
    found = [one for one in run_checks() if "'bad'" in one.msg]
    assert [one.id for one in found] == ["smska.W009"]
    assert SECRET not in found[0].msg


@pytest.mark.parametrize("returned", [None, 7, ["a problem"], [None]])
def test_a_check_that_returns_no_messages_is_one_warning(use, settings, returned):
    use(returns={"check": returned})
    settings.SMS_PROVIDERS["worse"] = {"BACKEND": "nowhere.SmsBackend"}
    ids = [one.id for one in run_checks() if one.id.startswith("smska")]
    assert sorted(ids) == ["smska.E002", "smska.W001", "smska.W009"]


def test_a_paused_provider_that_cannot_ask_for_its_balance_is_tried(use):
    use(raises={"get_balance": CRASH})
    now = timezone.now()
    ProviderState.objects.create(alias="bad", reason="unreachable", paused_at=now, probe_at=now)
    queue("bad", 2)
    Worker().run_once()
    assert statuses("bad") == ["sent", "sent"]
    assert not circuit_breaker.state_of("bad").is_paused


class TestTheProvidersOwnRules:
    """What it would refuse, or charge for without end, is refused before the request."""

    @pytest.fixture
    def strict(self, settings, monkeypatch, transactional_db):
        settings.SMSKA_LOCMEM_IN_TESTS = False
        settings.SMS_PROVIDERS = {"default": {"BACKEND": "tests.backends.Minimal"}}
        monkeypatch.setattr(Minimal, "sender_rule", re.compile("[A-Za-z]{3,11}"))
        monkeypatch.setattr(Minimal, "most_segments", 2)

    @pytest.mark.parametrize(
        ("more", "error"),
        [
            ({"sender": "Т-Shop"}, InvalidSender),
            ({"sender": "Shop\u200b"}, InvalidSender),
            ({"body": "Ж" * 140}, InvalidRequest),
        ],
    )
    def test_a_message_that_breaks_them_is_not_sent(self, strict, more, error):
        with pytest.raises(error, match="Nothing was sent"):
            send_sms("+79041764969", **{"body": "text", **more})
        assert SmsMessage.objects.get().status == "failed"

    @pytest.mark.parametrize("more", [{"sender": "Shop"}, {"body": "Ж" * 130}, {}])
    def test_others_are(self, strict, more):
        assert send_sms("+79041764969", **{"body": "text", **more}).status == "sent"

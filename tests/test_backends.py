"""One contract for every backend; then what is each one's own."""

import io
import pickle
from decimal import Decimal
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from django_smska import circuit_breaker
from django_smska.backends import console, dummy, failover, filebased, locmem, smska
from django_smska.checked_backend import provider
from django_smska.exceptions import (
    AuthenticationFailed,
    GatewayUnreachable,
    InvalidProvider,
    InvalidRecipient,
    QueryFailed,
    SmsOutcomeUnknown,
)
from django_smska.models import ProviderState, SmsMessage
from django_smska.receipts import Receipt
from django_smska.sms import providers, queue_sms, send_sms
from django_smska.testing.gateway import Fault, StandInGateway, closed_port
from django_smska.worker import Worker

from .backends import Empty, Hostile, Minimal, Talkative
from .conftest import options


def sms(to="+79041764995", body="Ваш заказ готов", sender="Shop"):
    return SmsMessage(to=to, body=body, sender=sender)


class Contract:
    """What every backend does alike."""

    @pytest.fixture
    def backend(self):
        return self.make(alias="alias")

    def test_one_message_gets_a_receipt(self, backend):
        assert isinstance(backend.send_message(sms()), Receipt)

    def test_several_messages_carry_their_receipts(self, backend):
        messages = [sms(), sms(), sms()]
        with backend:
            assert backend.send_messages(messages) == 3
        assert all(isinstance(message.receipt, Receipt) for message in messages)
        assert [message.error for message in messages] == [None] * 3

    def test_no_messages_are_no_messages(self, backend):
        assert backend.send_messages([]) == 0
        assert backend.send_messages(iter(())) == 0

    def test_anything_with_number_text_and_sender_can_be_sent(self, backend):
        message = SimpleNamespace(to="+79041764995", body="text", sender="")
        assert isinstance(backend.send_message(message), Receipt)

    def test_it_opens_and_closes_as_often_as_one_likes(self, backend):
        backend.close()
        backend.open()
        backend.open()
        backend.close()
        backend.close()
        with backend as opened:
            assert opened is backend
        assert backend.send_messages([sms()]) == 1

    def test_what_is_left_over_of_the_options_is_refused_by_name(self):
        with pytest.raises(InvalidProvider) as refused:
            self.make(alias="bulk", api_kee="x")
        assert "SMS_PROVIDERS['bulk']: Unknown option 'api_kee'." in str(refused.value)
        assert refused.value.check == "E003"

    def test_repr_shows_the_alias_and_no_option(self, backend):
        assert "alias='alias'" in repr(backend)
        assert "test" not in repr(backend).replace("tests.", "")

    def test_without_reports_or_balance_it_says_so(self, backend):
        if not backend.gives_reports:
            with pytest.raises(QueryFailed, match="no delivery reports"):
                backend.get_status(sms())
        if not backend.has_balance:
            with pytest.raises(QueryFailed, match="no balance"):
                backend.get_balance()

    def test_its_check_makes_no_noise(self, backend):
        assert isinstance(backend.check(), list)


class TestSmska(Contract):
    @pytest.fixture(autouse=True)
    def _gateway(self, gateway):
        self.gateway = gateway

    def make(self, **more):
        return smska.SmsBackend(**options(self.gateway), **more)

    def test_the_senders_own_name_goes_before_the_providers(self, backend):
        backend.send_messages([sms(sender="Own"), sms(sender="")])
        assert [entry.sender for entry in self.gateway.accepted] == ["Own", "Test"]

    def test_any_spelling_of_a_russian_mobile_number_is_accepted(self, backend):
        backend.send_message(sms(to="8 (904) 176-49-95"))
        assert self.gateway.accepted[0].msisdn == "79041764995"

    @pytest.mark.parametrize("number", ["+4915112345678", "+74951234567", "nonsense", ""])
    def test_any_other_number_is_refused_before_the_network(self, backend, number):
        with pytest.raises(InvalidRecipient) as refused:
            backend.send_message(sms(to=number))
        assert self.gateway.requests == []
        assert refused.value.alias == "alias"
        assert "1234567" not in str(refused.value)

    def test_a_refused_message_does_not_hold_up_the_next(self, backend):
        self.gateway.script(2, Fault("bad_number"))
        messages = [sms(), sms(), sms()]
        assert backend.send_messages(messages) == 2
        assert messages[1].receipt is None
        assert isinstance(messages[1].error, InvalidRecipient)

    def test_a_wrong_login_ends_the_run(self, backend):
        """Repeated wrong logins lock accounts."""
        self.gateway.api_password = "other"
        messages = [sms(), sms(), sms()]
        assert backend.send_messages(messages) == 0
        assert self.gateway.sends == 1
        assert all(isinstance(message.error, AuthenticationFailed) for message in messages)

    def test_it_announces_the_first_byte(self, backend):
        message = sms()
        seen = []
        message.before_first_byte = lambda: seen.append(self.gateway.sends)
        backend.send_message(message)
        assert seen == [0]

    def test_an_error_survives_pickling(self, backend):
        with closed_port() as port:
            backend.url = f"http://127.0.0.1:{port}/"
            with pytest.raises(GatewayUnreachable) as refused:
                backend.send_message(sms())
        assert pickle.loads(pickle.dumps(refused.value)).alias == "alias"

    def test_balance_and_reports(self, backend):
        message = sms()
        message.gateway_id = backend.send_message(message).gateway_id
        assert backend.get_balance() == Decimal(999)
        assert backend.get_status(message).raw == "3|ACCEPTD"

    def test_a_message_without_an_id_cannot_be_asked_about(self, backend):
        with pytest.raises(QueryFailed, match="no ID"):
            backend.get_status(sms())

    @pytest.mark.parametrize(
        ("wrong", "words", "check"),
        [
            ({"api_key": ""}, "'api_key' and 'api_password' must not be empty", "E004"),
            ({"api_password": ""}, "must not be empty", "E004"),
            ({"deadline": "30"}, "'deadline' must be a number of seconds", "E005"),
            ({"deadline": 0}, "'deadline' must be a number of seconds", "E005"),
            ({"keep_alive": -1}, "'keep_alive' must be a number of seconds", "E005"),
            ({"connect_timeout": True}, "'connect_timeout' must be a number", "E005"),
            ({"url": "ftp://host/"}, "'url' must be an http:// or https:// address", "E005"),
            ({"url": "https://"}, "'url' must be an http:// or https:// address", "E005"),
            ({"url": "https://me:secret@host/"}, "must hold no login", "E005"),
            ({"url": "https://host/?APIPassword=secret"}, "must hold no login", "E005"),
            ({"proxy": "socks5://host:1"}, "'proxy' must be an http:// address", "E005"),
        ],
    )
    def test_wrong_options_are_refused_with_a_hint(self, wrong, words, check):
        with pytest.raises(InvalidProvider, match=words) as refused:
            smska.SmsBackend(alias="default", **{**options(self.gateway), **wrong})
        assert refused.value.check == check
        assert "secret" not in str(refused.value)

    def test_a_plain_address_is_warned_about_where_there_is_a_way(self, backend):
        assert backend.check() == []  # loopback
        backend.url = "http://host/"
        assert [message.id for message in backend.check()] == ["smska.W002"]
        backend.url = "https://host/"
        assert backend.check() == []


class TestLocmem(Contract):
    make = staticmethod(locmem.SmsBackend)

    def test_messages_are_in_the_outbox(self, backend, smsoutbox):
        message = sms()
        backend.send_message(message)
        assert [(one.to, one.body, one.sender) for one in smsoutbox] == [
            ("+79041764995", "Ваш заказ готов", "Shop")
        ]
        message.body = "changed"
        assert smsoutbox[0].body == "Ваш заказ готов"


class TestConsole(Contract):
    make = staticmethod(console.SmsBackend)

    def test_messages_are_written_for_people(self):
        stream = io.StringIO()
        console.SmsBackend(stream=stream).send_message(sms())
        assert stream.getvalue() == (
            "SMS to +79041764995 from Shop (1 × UCS-2)\nВаш заказ готов\n" + "-" * 79 + "\n"
        )

    def test_the_default_stream_is_standard_output(self, capsys):
        console.SmsBackend().send_message(sms(sender=""))
        assert capsys.readouterr().out.startswith("SMS to +79041764995 (1 × UCS-2)\n")


class TestFilebased(Contract):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder = tmp_path / "new" / "folder"

    def make(self, **more):
        return filebased.SmsBackend(file_path=str(self.folder), **more)

    def test_messages_are_appended_to_a_file_a_day(self, backend):
        backend.send_messages([sms(), sms(body="second")])
        self.make().send_message(sms(body="third"))
        (file,) = self.folder.iterdir()
        text = file.read_text(encoding="utf-8")
        assert text.count("SMS to +79041764995 from Shop") == 3
        assert text.index("Ваш заказ готов") < text.index("second") < text.index("third")

    def test_a_missing_folder_option_is_refused(self):
        with pytest.raises(InvalidProvider, match="must define 'file_path'"):
            filebased.SmsBackend(alias="default")


class TestDummy(Contract):
    make = staticmethod(dummy.SmsBackend)


class TestMinimal(Contract):
    make = staticmethod(Minimal)


class TestTalkative(Contract):
    make = staticmethod(Talkative)

    def test_the_error_names_the_options_that_there_are(self):
        with pytest.raises(InvalidProvider, match="knows: refuse"):
            Talkative(alias="x", refuze="y")


class TestFailover(Contract):
    @pytest.fixture(autouse=True)
    def _providers(self, gateway, settings):
        with StandInGateway() as second:
            settings.SMSKA_LOCMEM_IN_TESTS = False
            settings.SMS_PROVIDERS = {
                "first": {"OPTIONS": options(gateway)},
                "second": {"OPTIONS": options(second)},
                "minimal": {"BACKEND": "tests.backends.Minimal"},
                "both": {
                    "BACKEND": "django_smska.backends.failover.SmsBackend",
                    "OPTIONS": {"providers": ["first", "second"]},
                },
            }
            self.first, self.second = gateway, second
            yield

    def make(self, *, alias=None, providers=("first", "second"), **more):
        return failover.SmsBackend(providers=providers, alias=alias, **more)

    def test_the_first_that_takes_it_is_named_in_the_receipt(self, backend):
        assert backend.send_message(sms()).alias == "first"
        assert self.second.sends == 0

    @pytest.mark.parametrize("name", ["no_credit", "sent_error", "http_404"])
    def test_the_next_is_tried_where_the_first_definitely_did_not_take_it(self, backend, name):
        self.first.script_all(Fault(name))
        assert backend.send_message(sms()).alias == "second"
        assert len(self.second.accepted) == 1

    @pytest.mark.parametrize(
        ("rates", "rate", "warns_of"),
        [
            (["100/m", "5/s"], 100 / 60, ["'second'"]),
            ([None, "5/s"], 5, ["'first'"]),
            (["5/s", "300/m"], 5, []),
            ([None, None], None, []),
        ],
    )
    def test_its_rate_is_the_lowest_of_its_members(self, settings, rates, rate, warns_of):
        for alias, one in zip(["first", "second"], rates, strict=True):
            settings.SMS_PROVIDERS[alias]["OPTIONS"]["rate"] = one
        checked = provider("both")
        assert checked.rate == rate
        warnings = [one for one in checked.check() if one.id == "smska.W021"]
        assert [one.msg.split()[-1].rstrip(".") for one in warnings] == warns_of

    def test_a_wrong_login_is_not_repeated(self, backend):
        self.first.script_all(Fault("wrong_login"))
        assert backend.send_messages([sms(), sms(), sms()]) == 3
        assert self.first.sends == 1 and self.second.sends == 3

    @pytest.mark.parametrize("accepted", [True, False])
    def test_after_an_unknown_outcome_nothing_else_is_tried(self, backend, accepted):
        self.first.script_all(Fault("close_without_answer", accepted=accepted))
        with pytest.raises(SmsOutcomeUnknown):
            backend.send_message(sms())
        assert self.second.sends == 0

    def test_a_wrong_number_is_wrong_everywhere(self, backend):
        self.first.script_all(Fault("bad_number"))
        with pytest.raises(InvalidRecipient):
            backend.send_message(sms())
        assert self.second.sends == 0

    def test_where_none_takes_it_the_last_refusal_is_raised(self, backend):
        self.first.script_all(Fault("no_credit"))
        self.second.script_all(Fault("wrong_login"))
        with pytest.raises(AuthenticationFailed) as refused:
            backend.send_message(sms())
        assert refused.value.alias == "second"
        with pytest.raises(GatewayUnreachable, match="None of the providers"):
            backend.send_message(sms())
        assert (self.first.sends, self.second.sends) == (1, 1)

    def test_a_stored_message_is_tracked_with_the_one_that_accepted_it(self, transactional_db):
        self.first.script_all(Fault("no_credit"))
        message = send_sms("+79041764995", "text", using="both")
        assert (message.status, message.using) == ("sent", "second")
        message.refresh_status()
        assert message.gateway_status == "3|ACCEPTD" and self.second.queries == 1

    def queue(self, number=5):
        return [queue_sms("+79041764995", "text", using="both") for _ in range(number)]

    def reasons(self):
        return dict(ProviderState.objects.exclude(paused_at=None).values_list("alias", "reason"))

    @pytest.mark.slow
    def test_a_queue_is_paused_where_none_takes_it(self, transactional_db):
        self.first.script_all(Fault("no_credit"))
        self.second.script_all(Fault("wrong_login"))
        self.queue()
        for _ in range(3):
            Worker(concurrency=1).run_once()
            SmsMessage.objects.update(send_after=timezone.now())
        assert SmsMessage.objects.filter(status="queued", attempts__lte=1).count() == 5
        assert (self.first.sends, self.second.sends) == (1, 1)
        assert self.reasons() == {"first": "funds", "second": "account"}

    @pytest.mark.slow
    def test_a_member_that_fails_is_paused_for_all_and_named(self, transactional_db, caplog):
        """A wrong login is not tried again by the next process, as from cron."""
        self.first.script_all(Fault("wrong_login"))
        self.queue()
        for _ in range(3):
            Worker().run_once()
            self.queue()
        Worker().run_once()
        assert self.first.sends == 1 and len(self.second.accepted) == 20
        assert self.reasons() == {"first": "account"}
        assert caplog.text.count("failover both: not accepted by first") == 1
        assert caplog.text.count("provider first is paused (account)") == 1
        out = io.StringIO()
        with pytest.raises(CommandError, match="Needs attention: first"):
            call_command("sms_status", stdout=out)
        assert "paused (account)" in out.getvalue()

    @pytest.mark.slow
    def test_a_member_is_looked_at_when_its_time_has_come(self, transactional_db):
        self.first.script_all(Fault("wrong_login"), on="send")
        self.queue(1)
        Worker().run_once()
        self.first.unscript()
        self.queue(1)
        Worker().run_once()
        assert self.first.balances == 0 and len(self.second.accepted) == 2
        ProviderState.objects.update(probe_at=timezone.now())
        self.queue(3)
        Worker().run_once()
        assert self.first.balances == 1 and len(self.first.accepted) == 3
        assert self.reasons() == {}

    @pytest.mark.slow
    def test_a_member_that_hangs_is_passed_over_after_a_few(self, transactional_db):
        self.first.script_all(Fault("close_without_answer"), on="send")
        self.queue(10)
        Worker().run_once()
        assert SmsMessage.objects.filter(status="unknown").count() == 3
        assert len(self.second.accepted) == 7
        assert self.reasons() == {"first": "hanging"}

    def test_a_success_of_one_member_says_nothing_of_another(self, transactional_db):
        circuit_breaker.note_error("first", AuthenticationFailed())
        send = self.make(alias="both")
        circuit_breaker.note("both", send.send_message(sms()))
        circuit_breaker.note("both", Receipt(alias="second"))
        assert self.reasons() == {}
        circuit_breaker.note_error("first", AuthenticationFailed())
        circuit_breaker.note("both", Receipt(alias="second"))
        assert self.reasons() == {"first": "account"}

    @pytest.mark.slow
    @pytest.mark.parametrize("place", ["__init__", "open", "rate", "send_message", "close"])
    def test_a_member_whose_program_fails_is_passed_over(self, transactional_db, settings, place):
        settings.SMS_PROVIDERS["first"] = {
            "BACKEND": "tests.backends.Hostile",
            "OPTIONS": {
                "raises": {place: RuntimeError("secret")},
                "returns": {"announces_first_byte": True},
            },
        }
        Hostile.calls.clear()
        self.queue(10)
        Worker(concurrency=1).run_once()
        assert SmsMessage.objects.filter(status="sent").count() == 10
        if place == "close":
            assert len(self.second.accepted) == 0
        else:
            assert len(self.second.accepted) == 10
            assert self.reasons() == {"first": "broken"}
            assert Hostile.calls["send_message"] <= 3

    def test_one_that_does_not_announce_its_first_byte_is_announced(self, transactional_db):
        self.first.script_all(Fault("no_credit"))
        backend = self.make(alias="x", providers=["first", "minimal"])
        message = sms()
        seen = []
        message.before_first_byte = lambda: seen.append(1)
        assert backend.send_message(message).alias == "minimal"
        assert len(seen) == 2

    @pytest.mark.parametrize("wrong", [(), "first", ["self"], ["unknown"]])
    def test_wrong_aliases_are_refused(self, wrong):
        with pytest.raises(InvalidProvider):
            self.make(alias="self", providers=wrong)


def test_aliases_that_a_failover_does_not_find_are_named_with_the_option(settings):
    settings.SMSKA_LOCMEM_IN_TESTS = False
    backend = "django_smska.backends.failover.SmsBackend"
    members = {"providers": ["mane", "main", "bakup", 5]}
    settings.SMS_PROVIDERS = {
        "both": {"BACKEND": backend, "OPTIONS": members},
        "main": {"BACKEND": "django_smska.backends.dummy.SmsBackend"},
    }
    with pytest.raises(InvalidProvider) as refused:
        providers["both"]
    assert str(refused.value) == (
        "SMS_PROVIDERS['both']: 'providers' in its OPTIONS names 'mane', 'bakup', 5: SMS_PROVIDERS "
        "has no such entry. Known aliases: 'both', 'main'."
    )
    assert "correct 'providers'" in refused.value.hint


def test_all_wrong_options_are_named_at_once():
    wrong = {
        "api_key": "",
        "apikey": "hidden-1",
        "deadline": "hidden",
        "keep_alive": -1,
        "sender_id": 5,
        "url": "ftp://host/",
        "proxy": "socks://host",
        "rate": "fast",
    }
    with pytest.raises(InvalidProvider) as refused:
        smska.SmsBackend(api_password="hidden-2", alias="default", **wrong)
    for name in wrong:
        assert f"'{name}'" in str(refused.value)
    assert "hidden" not in str(refused.value)


SENDERS = [
    ("MyShop", True),
    ("My Shop 24", True),
    ("A-B.C_D&E+F", True),
    ("79041764995", True),
    ("+79041764995", True),
    ("123456789012345", True),
    ("900", True),
    ("MyLongShop12", False),
    ("Магазин", False),
    ("МуShор", False),  # Cyrillic letters that look Latin
    ("Café", False),
    ("1234567890123456", False),
    (" Shop", False),
    ("Shop\u00a0", False),
    ("Shop\n", False),
    ("٩٠٠", False),
    ("Shop™", False),
]


@pytest.mark.parametrize(("sender", "right"), SENDERS)
def test_a_sender_that_no_phone_shows_is_warned_of(gateway, caplog, sender, right):
    """At start, and once for each such name that a message brings along. The stand-in refuses it,
    as the gateway does."""
    backend = smska.SmsBackend(**options(gateway, sender_id=sender))
    found = [warning.id for warning in backend.check()]
    assert found == ([] if right else ["smska.W012"])
    for _ in range(2):
        backend = smska.SmsBackend(**options(gateway), alias="of-this-test")
        assert backend.send_messages([sms(sender=sender)]) == right
    warned = [one for one in caplog.records if "will be refused; a sender has" in one.getMessage()]
    assert len(warned) == (not right)
    assert len(gateway.accepted) == 2 * right


def test_a_backend_without_send_message_says_what_is_missing():
    with pytest.raises(TypeError, match="Empty .* must define send_message"):
        Empty().send_message(sms())

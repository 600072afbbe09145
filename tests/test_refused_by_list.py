"""A provider that refuses numbers because of a list of its own: they are on ours from then on."""

from contextlib import nullcontext
from datetime import timedelta

import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from django_smska import opt_out, sending
from django_smska.backends.base import BaseSmsBackend
from django_smska.exceptions import RecipientOptedOut, SmsOutcomeUnknown
from django_smska.models import SmsMessage, SmsOptOut, rows
from django_smska.sms import queue_sms, send_mass_sms, send_sms
from django_smska.worker import Worker

from .test_inbound import NUMBER, OTHER, entry, listed, refusing


class Refusing(BaseSmsBackend):
    """Its provider has a list of its own; ``raises``: what it answers."""

    def __init__(self, *, sender_id="", raises=None, **kwargs):
        super().__init__(**kwargs)
        self.sender_id, self.raises = sender_id, raises

    def send_message(self, message):
        if self.raises is not None:
            raise self.raises
        raise RecipientOptedOut("The person wrote STOP.", code="21610", answered=True)


def refusing_site(**options):
    return {"default": {"BACKEND": f"{__name__}.Refusing", "OPTIONS": options}}


@pytest.mark.django_db(transaction=True)
class TestProvidersList:
    @pytest.fixture(autouse=True)
    def site(self, settings):
        settings.SMSKA_LOCMEM_IN_TESTS = False
        settings.SMS_PROVIDERS = refusing_site(sender_id="MyShop")

    def assert_failed(self, message):
        message.refresh_from_db()
        assert (message.status, message.error_code) == ("failed", "21610")
        assert message.finished_at is not None

    def test_the_message_fails_and_the_number_is_listed(self):
        with pytest.raises(RecipientOptedOut) as caught:
            send_sms(NUMBER, "Скидки")
        assert caught.value.code == "21610"
        self.assert_failed(SmsMessage.objects.get())
        assert listed() == [(NUMBER, "MyShop")]
        listed_entry = SmsOptOut.objects.get()
        assert (listed_entry.reason, listed_entry.source) == ("21610", "default")
        with pytest.raises(RecipientOptedOut) as caught:
            queue_sms(NUMBER, "Скидки")
        assert caught.value.code == "opted-out" and SmsMessage.objects.count() == 1
        assert queue_sms(NUMBER, "Приём", sender="Clinic").status == "queued"

    def test_of_the_sender_that_the_message_names(self):
        with pytest.raises(RecipientOptedOut):
            send_sms(NUMBER, "Приём", sender="Clinic")
        assert listed() == [(NUMBER, "Clinic")]

    def test_by_a_worker(self):
        send_mass_sms([(NUMBER, "Скидки"), (OTHER, "Скидки")])
        Worker().run_once()
        for message in SmsMessage.objects.all():
            self.assert_failed(message)
        assert listed() == [(NUMBER, "MyShop"), (OTHER, "MyShop")]
        assert not send_mass_sms([(NUMBER, "Скидки")])

    def test_through_a_failover_it_is_the_members_sender(self, settings):
        settings.SMS_PROVIDERS |= {
            "spare": entry(sender_id="Clinic"),
            "both": {
                "BACKEND": "django_smska.backends.failover.SmsBackend",
                "OPTIONS": {"providers": ["default", "spare"]},
            },
        }
        with pytest.raises(RecipientOptedOut):
            send_sms(NUMBER, "Скидки", using="both")
        assert listed() == [(NUMBER, "MyShop")]
        assert SmsOptOut.objects.get().source == "default"

    def test_without_a_sender_it_is_for_all(self, settings):
        settings.SMS_PROVIDERS = refusing_site()
        with pytest.raises(RecipientOptedOut):
            send_sms(NUMBER, "Скидки")
        assert listed() == [(NUMBER, "")]

    def test_our_own_refusal_adds_nothing(self):
        opt_out.opt_out(NUMBER)
        with pytest.raises(RecipientOptedOut):
            send_sms(NUMBER, "Скидки")
        assert listed() == [(NUMBER, "")]

    def test_another_error_adds_nothing(self, settings):
        settings.SMS_PROVIDERS = refusing_site(raises=SmsOutcomeUnknown(code="21610"))
        with pytest.raises(SmsOutcomeUnknown):
            send_sms(NUMBER, "Скидки")
        assert listed() == []

    @pytest.mark.parametrize("code", ["", "код", "x" * 50])
    def test_whatever_code_it_has(self, settings, code):
        settings.SMS_PROVIDERS = refusing_site(raises=RecipientOptedOut(code=code))
        with pytest.raises(RecipientOptedOut):
            send_sms(NUMBER, "Скидки")
        assert len(listed()) == 1 and SmsMessage.objects.get().status == "failed"

    @pytest.mark.parametrize("inside", [False, True])
    def test_a_list_that_cannot_be_written_fails_no_record(self, caplog, inside):
        message = queue_sms(NUMBER, "Скидки")
        rows().update(status="claimed", token="t", lease_until=timezone.now() + timedelta(hours=1))
        message.refresh_from_db()
        result = sending.Result(message, RecipientOptedOut(code="21610", alias="default"))
        within = transaction.atomic() if inside else nullcontext()
        insert = f"INTO {connection.ops.quote_name('django_smska_smsoptout')}"
        with refusing(insert, OperationalError), within:
            sending.record([result])
            if inside:  # the caller's transaction goes on
                assert rows().exists()
        self.assert_failed(message)
        assert listed() == [] and "was not put on the list: OperationalError" in caplog.text
        assert NUMBER not in caplog.text

    def test_a_late_refusal_is_listed_too(self):
        """The worker's lease had ended, so that the row is unknown by now."""
        message = queue_sms(NUMBER, "Скидки")
        rows().update(status="unknown", token="t")
        message.token, message.status = "t", "sending"
        sending.record([sending.Result(message, RecipientOptedOut(code="21610", alias="default"))])
        assert SmsMessage.objects.get().status == "unknown"
        assert listed() == [(NUMBER, "MyShop")]

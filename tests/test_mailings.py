"""Mailings: many messages that are watched, stopped and counted together."""

import threading
from collections import Counter
from datetime import timedelta
from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_smska import clock, conf, mailing_counts, mailings, pushed_reports, retention, sending
from django_smska.admin.wording import FAILURES
from django_smska.conflicts import repeat_conflicts
from django_smska.exceptions import RecipientOptedOut
from django_smska.models import Proof, ProviderState, SmsMailing, SmsMessage, rows
from django_smska.opt_out import opt_out
from django_smska.receipts import Receipt, Report
from django_smska.sms import send_mass_sms
from django_smska.testing.gateway import Fault
from django_smska.worker import Worker

pytestmark = pytest.mark.django_db(transaction=True)

NOW = timezone.now().replace(microsecond=0) + timedelta(days=1)


def numbers(many, first=0):
    return [f"+7916{n:07}" for n in range(first, first + many)]


def mail(many=3, name="Autumn", first=0, **more):
    pairs = [(number, f"Sale {number[-4:]}") for number in numbers(many, first)]
    return send_mass_sms(pairs, mailing=name, **more).mailing


def statuses(mailing=None):
    every = SmsMessage.objects.all() if mailing is None else mailing.messages
    return Counter(every.order_by().values_list("status", flat=True))


def set_status(new, **about):
    SmsMessage.objects.filter(**about).update(status=new, finished_at=clock.now())


def progress(mailing):
    mailing.refresh_from_db()
    mailing_counts.refresh([mailing])
    return mailing_counts.progress(mailing)


def prices(mailing):
    progress(mailing)
    mailing_counts.refresh_prices(mailing)
    mailing.refresh_from_db()
    return {one: f"{Decimal(price):f}" for one, price in mailing.prices.items()}


@pytest.fixture
def at(monkeypatch):
    """A clock that the test sets."""

    class Clock:
        now = NOW

        def forward(self, seconds):
            self.now += timedelta(seconds=seconds)

    ours = Clock()
    monkeypatch.setattr(clock, "now", lambda: ours.now)
    return ours


class TestNew:
    def test_a_name_makes_one_that_has_all_messages(self):
        result = send_mass_sms([("+79161234567", "A"), ("8 916 765-43-21", "B")], mailing="Autumn")
        assert (result, result.mailing.name) == (2, "Autumn")
        assert {one.mailing_id for one in SmsMessage.objects.all()} == {result.mailing.pk}

    def test_without_one_there_is_none(self):
        assert send_mass_sms([("+79161234567", "A")]).mailing is None
        assert not SmsMailing.objects.exists()

    def test_an_object_may_get_more(self):
        mailing = mail(2)
        assert progress(mailing).total == 2
        send_mass_sms([("+79161234567", "One more")], mailing=mailing)
        mailing.refresh_from_db()
        assert mailing.messages.count() == 3 and SmsMailing.objects.count() == 1

    def test_a_stale_object_that_is_saved_changes_neither_counts_nor_stop(self):
        mailing = mail(2)
        SmsMailing.objects.get().stop(by="olga")
        mailing.name = "Winter"
        mailing.save()
        mailing.refresh_from_db()
        assert (mailing.name, mailing.segments, mailing.stopped_by) == ("Winter", 2, "olga")

    def test_where_nothing_is_stored_there_is_none(self):
        result = send_mass_sms([("12", "A"), ("+79161234567", "")], mailing="Autumn")
        assert (result, result.bad, result.mailing) == (0, 2, None)
        assert not SmsMailing.objects.exists()

    def test_a_rollback_takes_it_back_and_the_same_object_can_be_used_again(self):
        mailing = SmsMailing(name="Autumn")
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            send_mass_sms([("+79161234567", "A")], mailing=mailing)
            raise ZeroDivisionError
        assert not SmsMailing.objects.exists()
        assert send_mass_sms([("+79161234567", "A")], mailing=mailing).mailing is mailing
        assert SmsMailing.objects.get().messages.count() == 1

    @pytest.mark.parametrize("name", ["", " ", "x" * 201, "two\nlines", "\x00"])
    def test_a_name_that_cannot_be_shown_is_refused_before_anything_is_stored(self, name):
        with pytest.raises(ValidationError) as caught:
            send_mass_sms([("+79161234567", "A")], mailing=name)
        assert list(caught.value.message_dict) == ["name"]
        assert not (SmsMailing.objects.exists() or SmsMessage.objects.exists())

    def test_a_row_whose_key_is_stored_already_stays_where_it_is(self):
        first = [SmsMessage(to="+79161234567", body="A", idempotency_key="k-1")]
        again = [SmsMessage(to="+79161234567", body="A", idempotency_key="k-1")]
        old = send_mass_sms(first, mailing="First").mailing
        assert send_mass_sms(again, mailing="Second").mailing is None
        assert SmsMessage.objects.get().mailing_id == old.pk


class TestStop:
    def test_what_waits_becomes_drafts_and_nothing_leaves(self, provider):
        mailing = mail(5)
        assert mailing.stop(by="olga") == 5
        assert (mailing.stopped_by, mailing.stopped_at is None) == ("olga", False)
        Worker().run_once()
        assert (statuses(), provider.sends) == ({"draft": 5}, 0)

    def test_other_messages_go_on(self, provider):
        mail(2).stop()
        other = mail(2, "Other", first=50)
        send_mass_sms([("+79161234567", "Alone")])
        Worker().run_once()
        assert statuses() == {"draft": 2, "sent": 3} and statuses(other) == {"sent": 2}

    def test_it_goes_on_with_each_message_once(self, provider):
        mailing = mail(4)
        mailing.stop()
        assert mailing.resume() == 4
        assert (mailing.stopped_at, mailing.stopped_by) == (None, "")
        Worker().run_once()
        texts = sorted(entry.text for entry in provider.accepted)
        assert texts == [f"Sale {n:04}" for n in range(4)]

    def test_who_stopped_it_first_is_kept(self):
        mailing = mail(1)
        mailing.stop(by="olga")
        at = mailing.stopped_at
        mailing.stop(by="petr")
        assert (mailing.stopped_by, mailing.stopped_at) == ("olga", at)

    def test_what_is_stored_later_waits_too(self, provider):
        mailing = mail(2)
        mailing.stop()
        send_mass_sms([(number, "Late") for number in numbers(3, 70)], mailing=mailing)
        Worker().run_once()
        assert (statuses(), provider.sends) == ({"draft": 5}, 0)
        assert set(rows().values_list("attempts", "token", "lease_until")) == {(0, "", None)}

    @pytest.mark.slow
    def test_a_long_stopped_tail_keeps_no_worker_from_what_is_behind_it(self, provider):
        """What was queued while it was stopped is set aside batch by batch, in one pass."""
        mailing = mail(1)
        mailing.stop()
        send_mass_sms([(number, "Late") for number in numbers(450, 100)], mailing=mailing)
        send_mass_sms([("+79161234567", "Alone")])
        Worker(concurrency=2).run_once()
        assert statuses() == {"draft": 451, "sent": 1}

    def test_a_worker_that_has_claimed_before_may_not_begin(self, provider):
        mail(3)
        claimed = sending.claim(rows().order_by("pk")[:2], clock.now())
        assert SmsMailing.objects.get().stop() == 3
        assert sending.mark_sending(claimed) == set()
        assert set(rows().values_list("status", "attempts", "token")) == {("draft", 0, "")}
        sending.release(claimed)
        assert statuses() == {"draft": 3}

    def test_what_a_request_has_begun_for_ends_normally(self, provider):
        mail(3)
        claimed = sending.claim(rows().order_by("pk")[:1], clock.now())
        sending.mark_sending(claimed)
        assert SmsMailing.objects.get().stop() == 2
        sending.record([sending.Result(claimed[0], Receipt("id-1"))])
        assert statuses() == {"draft": 2, "sent": 1}

    def test_what_is_held_stays_held(self):
        mailing = mail(2)
        ProviderState.objects.create(alias="default", held_before=clock.now() + timedelta(hours=1))
        assert (mailing.stop(), mailing.resume()) == (0, 0)
        assert set(rows().values_list("status", flat=True)) == {"queued"}
        assert rows().held(clock.now()).count() == 2

    def test_a_report_that_a_draft_was_accepted_before_ends_it(self, provider):
        """It was tried, refused, and set aside."""
        mailing = mail(1)
        rows().update(sending_at=clock.now(), gateway_id="g-1")
        mailing.stop()
        message = mailing.messages.get()
        pushed_reports.receive(
            "default", [Report("delivered", "DELIVRD", "g-1", message.reference)]
        )
        mailing.resume()
        assert statuses() == {"cancelled": 1}

    def test_what_is_sent_again_ends_where_the_first_one_is_proved(self, provider):
        mailing = mail(1)
        set_status("unknown")
        first = mailing.messages.get()
        sending.resend(first)
        mailing.stop()
        assert statuses() == {"unknown": 1, "draft": 1}
        first.refresh_from_db()
        sending.prove_sent(first, Proof.REPORT)
        mailing.resume()
        assert statuses() == {"sent": 1, "cancelled": 1}

    def test_who_lets_it_go_on_ends_a_stop_that_is_not_through(self, monkeypatch):
        mailing, other, calls = mail(6), SmsMailing.objects.get(), []
        monkeypatch.setattr(mailings, "BATCH_ROWS", 2)

        def then_a_colleague_acts(batch):
            done = repeat_conflicts(batch)
            calls.append(batch)
            if len(calls) == 1:
                other.resume()
            return done

        monkeypatch.setattr(mailings, "repeat_conflicts", then_a_colleague_acts)
        assert mailing.stop() == 2
        assert statuses() == {"queued": 6}

    @pytest.mark.slow
    def test_the_last_of_two_people_decides(self, monkeypatch):
        """One lets it go on while the other one's stop has moved but a part."""
        monkeypatch.setattr("django_smska.mailings.BATCH_ROWS", 2)
        mailing, other = mail(40), SmsMailing.objects.get()

        def go_on():
            try:
                other.resume()
            finally:
                connection.close()

        set_aside, colleague = sending.set_aside, threading.Thread(target=go_on)

        def interrupted(found, **changes):
            if colleague.ident is None:
                colleague.start()
            return set_aside(found, **changes)

        with monkeypatch.context() as patch:
            patch.setattr(sending, "set_aside", interrupted)
            mailing.stop()
        colleague.join()
        mailing.refresh_from_db()
        assert (mailing.stopped_at, statuses()) == (None, {"queued": 40})

    def test_a_person_sends_one_of_them_all_the_same(self, provider):
        mailing = mail(2)
        mailing.stop()
        mailing.messages.first().send()
        assert statuses() == {"draft": 1, "sent": 1}

    def test_the_lifetime_of_the_site_begins_again(self, at, settings):
        settings.SMSKA_EXPIRES_AFTER = 3600
        mailing = mail(1)
        mailing.stop()
        at.forward(86400)
        mailing.resume()
        message = mailing.messages.get()
        assert (message.status, message.expires_at) == ("queued", at.now + conf.expires_after())

    def test_and_that_of_one_that_was_tried(self, at, settings):
        settings.SMSKA_EXPIRES_AFTER = 3600
        mailing = mail(1)
        created = mailing.messages.get().created_at
        later = at.now + timedelta(seconds=240)
        end = created + timedelta(seconds=3600)
        rows().update(attempts=2, send_after=later, expires_at=end)
        mailing.stop()
        at.forward(86400)
        mailing.resume()
        assert mailing.messages.get().expires_at == at.now + conf.expires_after()

    def test_a_time_of_the_caller_stays(self, at):
        end = NOW + timedelta(hours=5)
        message = SmsMessage(to="+79161234567", body="Doors open", expires_at=end, send_after=NOW)
        mailing = send_mass_sms([message], mailing="Concert").mailing
        mailing.stop()
        mailing.resume()
        assert mailing.messages.get().expires_at == end

    @pytest.mark.parametrize("is_claimed", [False, True])
    def test_and_that_of_one_that_was_tried_or_claimed(self, at, is_claimed):
        end = at.now + timedelta(hours=5)
        message = SmsMessage(to="+79161234567", body="Doors open", expires_at=end)
        message.send_after = at.now
        mailing = send_mass_sms([message], mailing="Concert").mailing
        rows().update(created_at=at.now)
        if is_claimed:
            assert sending.claim(rows(), at.now)
        else:
            rows().update(attempts=1, send_after=at.now + timedelta(seconds=240))
        mailing.stop()
        assert (statuses(), rows().get().attempts) == ({"draft": 1}, int(not is_claimed))
        mailing.resume()
        assert mailing.messages.get().expires_at == end

    def test_a_later_time_stays(self, at):
        begin = NOW + timedelta(hours=5)
        message = SmsMessage(to="+79161234567", body="Doors open", send_after=begin)
        mailing = send_mass_sms([message], mailing="Concert").mailing
        mailing.stop()
        mailing.resume()
        assert mailing.messages.get().send_after == begin

    def test_an_interrupted_resume_can_be_repeated(self, monkeypatch, provider):
        monkeypatch.setattr("django_smska.mailings.BATCH_ROWS", 2)
        mailing = mail(5)
        assert mailing.stop() == 5
        enqueue, batches = sending.enqueue, []

        def once(found):
            if batches:
                raise ConnectionError
            batches.append(1)
            return enqueue(found)

        with monkeypatch.context() as patch, pytest.raises(ConnectionError):
            patch.setattr(sending, "enqueue", once)
            mailing.resume()
        assert statuses() == {"queued": 2, "draft": 3}
        assert mailing.resume() == 3
        Worker().run_once()
        assert statuses() == {"sent": 5} and provider.sends == 5

    def test_what_was_decided_before_is_not_touched(self):
        mailing = mail(4)
        first, second, third, _fourth = mailing.messages.order_by("pk")
        set_status("cancelled", pk=first.pk)
        set_status("unknown", pk=second.pk)
        set_status("sent", pk=third.pk)
        assert (mailing.stop(), mailing.resume()) == (1, 1)
        assert statuses() == {"cancelled": 1, "unknown": 1, "sent": 1, "queued": 1}

    @pytest.mark.slow
    def test_stopping_and_going_on_again_and_again_beside_workers_sends_each_once(self, provider):
        mailing = mail(60)
        ended = threading.Event()

        def work():
            try:
                while not ended.is_set():
                    Worker(concurrency=2).run_once()
            finally:
                connection.close()

        workers = [threading.Thread(target=work) for _ in range(2)]
        for one in workers:
            one.start()
        try:
            for _ in range(8):
                mailing.stop()
                mailing.resume()
            provider.wait_for(lambda: len(provider.accepted) >= 60, timeout=60)
        finally:
            ended.set()
            for one in workers:
                one.join()
        Worker().run_once()
        assert statuses() == {"sent": 60}
        assert len({entry.text for entry in provider.accepted}) == len(provider.accepted) == 60


class TestResendFailed:
    def test_only_what_definitely_failed_goes_again_and_once(self, provider):
        mailing = mail(5)
        one, two, three, four, _five = mailing.messages.order_by("pk")
        set_status("failed", pk__in=[one.pk, two.pk])
        set_status("unknown", pk=three.pk)
        set_status("delivered", pk=four.pk)
        result = mailing.resend_failed()
        assert (result, result.errors) == (2, [])
        again = mailing.messages.exclude(resend_of=None)
        assert {message.resend_of_id for message in again} == {one.pk, two.pk}
        assert mailing.resend_failed() == 0
        set_status("failed", pk__in=[message.pk for message in again])
        assert mailing.resend_failed(most=1) == 1

    @pytest.mark.parametrize("code", sorted(mailings.FAILS_AGAIN))
    def test_what_would_fail_again_is_left_out(self, code):
        mailing = mail(1)
        rows().update(status="failed", error_code=code)
        assert mailing.resend_failed() == 0

    def test_the_pages_and_this_agree_on_what_would(self):
        hopeless = {code for code, one in FAILURES.items() if not one.resend_helps}
        assert hopeless == mailings.FAILS_AGAIN

    def test_what_cannot_be_sent_again_is_reported(self):
        mailing = mail(2)
        first, _second = mailing.messages.order_by("pk")
        set_status("failed")
        opt_out(first.to)
        result = mailing.resend_failed()
        [(key, error)] = result.errors
        assert (result, key, type(error)) == (1, first.pk, RecipientOptedOut)

    def test_a_text_that_is_not_stored_any_more_is_left_out(self):
        mailing = mail(2)
        set_status("failed")
        retention.blank(rows([mailing.messages.first().pk]))
        assert mailing.resend_failed() == 1


class TestCounts:
    def test_each_message_is_in_one_number(self, at):
        mailing = mail(13)
        every = list(mailing.messages.order_by("pk"))
        known = ("queued", "claimed", "sending", "draft", "sent", "unconfirmed", "delivered")
        known += ("rejected", "expired", "deleted", "failed", "unknown", "cancelled")
        for message, status in zip(every, known, strict=True):
            SmsMessage.objects.filter(pk=message.pk).update(status=status, lease_until=NOW)
        found = progress(mailing)
        assert found == mailing_counts.Progress(
            *(13, 3, 1, 2, 1, 3, 1, 1, 1), again=0, seconds_left=None
        )

    def test_what_was_sent_again_is_one_recipient(self, at):
        mailing = mail(3)
        set_status("failed", pk=mailing.messages.first().pk)
        mailing.resend_failed()
        found = progress(mailing)
        assert (found.total, found.waiting, found.failed, found.again) == (3, 3, 1, 1)

    def test_a_deleted_draft_counts_no_more_and_nothing_falls_below_none(self):
        """A draft that was edited since has more segments than were noted, and what was sent again
        of a delivered one was no recipient less."""
        mailing = mail(1)
        set_status("delivered")
        again = sending.resend(mailing.messages.get())
        again.segments = 9
        mailing_counts.remove(again)
        mailing.refresh_from_db()
        assert (mailing.segments, mailing.again, mailing.counted_at) == (0, 0, None)

    def test_what_had_arrived_and_is_sent_again_is_another_one(self, at):
        mailing = mail(1)
        set_status("delivered")
        sending.resend(mailing.messages.get())
        found = progress(mailing)
        assert (found.total, found.delivered, found.waiting) == (2, 1, 1)

    def test_it_is_counted_again_after_many_have_moved(self, at):
        mailing = mail(2)
        assert progress(mailing).waiting == 2
        mailing.stop()
        assert progress(mailing).drafts == 2
        mailing.resume()
        assert progress(mailing).waiting == 2

    def test_it_is_counted_at_most_once_in_two_seconds(self, at):
        mailing = mail(2)
        assert progress(mailing).waiting == 2
        set_status("sent")
        at.forward(1.9)
        assert progress(mailing).waiting == 2
        at.forward(0.1)
        assert progress(mailing).sent == 2

    def test_and_no_more_once_all_is_final(self, at):
        mailing = mail(2)
        set_status("delivered")
        assert progress(mailing).delivered == 2
        at.forward(100)
        mailing.refresh_from_db()
        with CaptureQueriesContext(
            connection,
        ) as queries:
            mailing_counts.refresh([mailing])
        assert (mailing.settled, len(queries)) == (True, 0)

    def test_but_again_when_one_is_sent_again(self, at):
        mailing = mail(2)
        set_status("failed")
        progress(mailing)
        mailing.resend_failed()
        at.forward(2)
        assert progress(mailing).waiting == 2

    def test_pruned_ones_stay_counted(self, at):
        mailing = mail(4)
        ended = mailing.messages.order_by("pk")[:3]
        set_status("delivered", pk__in=[message.pk for message in ended])
        at.forward(60)
        assert list(retention.delete_old(at.now)) == [(3, 0)]
        found = progress(mailing)
        assert (found.total, found.delivered, found.waiting) == (4, 3, 1)
        set_status("failed", status="queued")
        at.forward(60)
        list(retention.delete_old(at.now))
        found = progress(mailing)
        assert (found.total, found.delivered, found.failed) == (4, 3, 1)
        assert mailing.settled and not SmsMessage.objects.exists()

    def test_an_edited_draft_changes_its_segments(self):
        mailing = mail(2)
        mailing.stop()
        draft = mailing.messages.first()
        for body, total in (("Sale! " * 60, 4), ("Sale", 2), ("Sale!", 2)):
            draft.body = body
            draft.save()
            mailing.refresh_from_db()
            assert (
                mailing.segments
                == total
                == sum(mailing.messages.values_list("segments", flat=True))
            )

    def test_a_draft_of_none_is_edited_as_ever(self):
        draft = SmsMessage(to="+79161234567", body="A")
        draft.save()
        draft.body = "A" * 200
        draft.save(update_fields=["body"])
        assert SmsMessage.objects.get().segments == 2

    def test_a_copy_of_a_draft_leaves_it(self):
        mailing = mail(2)
        mailing.stop()
        copy = mailing.messages.first()
        copy.pk, copy._state.adding = None, True
        copy.save()
        assert SmsMessage.objects.get(pk=copy.pk).mailing is None
        assert mailing.messages.count() == 2 and progress(mailing).total == 2

    def test_a_new_message_keeps_the_one_that_it_is_given(self):
        mailing = mail(1)
        SmsMessage(to="+79161234567", body="A", mailing=mailing).save()
        assert mailing.messages.count() == 2

    def test_one_whose_transaction_was_rolled_back_stays_in_it(self):
        mailing, message = mail(1), None
        with transaction.atomic():
            message = SmsMessage(to="+79161234567", body="A", mailing=mailing)
            message.save()
            transaction.set_rollback(True)
        message.save()
        assert mailing.messages.count() == 2

    def test_its_text_ends_with_its_messages_and_its_name_stays(self, at):
        mailing = SmsMailing(name="Autumn", body="Boots at half price", created_at=NOW)
        send_mass_sms([("+79161234567", "Boots at half price")], mailing=mailing)
        at.forward(86400)
        assert retention.blank_old_mailings(at.now) == 0  # it is still to be sent
        set_status("delivered")
        assert retention.blank_old_mailings(NOW) == 0
        assert retention.blank_old_mailings(at.now) == 1
        mailing.refresh_from_db()
        assert (mailing.name, mailing.body) == ("Autumn", "")

    def test_the_number_of_queries_does_not_depend_on_that_of_mailings_and_messages(self, at):
        def queries(many):
            for n in range(many):
                mail(4, f"Number {n}", first=100 * n)
            at.forward(10)
            found = list(SmsMailing.objects.all())
            with CaptureQueriesContext(connection) as queries:
                mailing_counts.refresh(found)
            SmsMessage.objects.all().delete()
            return [query["sql"].split()[0] for query in queries]

        assert queries(1) == queries(9)

    def test_large_ones_are_counted_in_turns_the_stalest_first(self, at, monkeypatch):
        monkeypatch.setattr(mailing_counts, "MAX_COUNTED", 10)
        for n, many in enumerate((8, 7, 3, 12)):
            mail(many, f"Number {n}", first=100 * n)
        set_status("sent")

        def counted():
            at.forward(10)
            found = list(SmsMailing.objects.order_by("pk"))
            mailing_counts.refresh(found)
            stored = SmsMailing.objects.order_by("pk").values_list("counted_at", flat=True)
            assert [mailing.counted_at for mailing in found] == list(stored)
            return [n for n, mailing in enumerate(found) if mailing.counted_at == at.now]

        assert counted() == [0]  # eight, and two more would fit
        assert counted() == [1, 2]
        assert counted() == [3]  # alone it is too large, and counted all the same
        assert counted() == [0]
        set_status("delivered")
        assert counted() == [1, 2]
        found = list(SmsMailing.objects.order_by("pk"))
        shown = [mailing_counts.progress(mailing).delivered for mailing in found]
        assert shown == [0, 7, 3, 0]  # the others show what was counted before

    def test_one_that_was_never_counted_has_the_size_of_its_segments(self, at, monkeypatch):
        monkeypatch.setattr(mailing_counts, "MAX_COUNTED", 3)
        send_mass_sms([("+79161234561", "x" * 161)], mailing="A")
        send_mass_sms([("+79161234562", "x" * 161)], mailing="B")
        found = list(SmsMailing.objects.order_by("pk"))
        mailing_counts.refresh(found)
        assert [bool(mailing.counted_at) for mailing in found] == [True, False]

    def test_segments_are_those_of_all_messages(self):
        mailing = send_mass_sms(
            [("+79161234567", "x" * 161), ("+79161234568", "y")], mailing="A"
        ).mailing
        send_mass_sms([("+79161234569", "z")], mailing=mailing)
        set_status("failed", body="x" * 161)
        mailing.resend_failed()
        mailing.refresh_from_db()
        assert (mailing.segments, mailing.again) == (2 + 1 + 1 + 2, 1)

    def test_prices_are_summed_up_once_nothing_waits(self, at):
        mailing = mail(4)
        every = list(mailing.messages.order_by("pk"))
        for message, price in zip(every, ("1.20", "1.20", "0.05", None), strict=True):
            currency = "RUB" if price == "1.20" else "USD"
            rows([message.pk]).update(price=price, currency=currency if price else "")
        assert prices(mailing) == {}
        set_status("sent")
        at.forward(2)
        assert prices(mailing) == {"RUB": "2.400000", "USD": "0.050000"}
        rows([every[3].pk]).update(price="0.5", currency="RUB")
        at.forward(599)
        assert prices(mailing)["RUB"] == "2.400000"
        at.forward(1)
        assert prices(mailing)["RUB"] == "2.900000"

    def test_prices_of_pruned_messages_stay(self, at):
        mailing = mail(1)
        rows().update(price="1.20", currency="RUB")
        set_status("delivered")
        assert prices(mailing) == {"RUB": "1.200000"}
        at.forward(3600)
        list(retention.delete_old(at.now))
        assert prices(mailing) == {"RUB": "1.200000"}

    def test_the_time_left_follows_from_the_rate_of_the_last_minute(self, at):
        mailing = mail(40)
        every = list(mailing.messages.order_by("pk").values_list("pk", flat=True))
        assert progress(mailing).seconds_left is None
        for seconds, gone in ((20, 10), (20, 20)):
            at.forward(seconds)
            set_status("sent", pk__in=every[:gone])
            found = progress(mailing)
        assert (found.waiting, found.seconds_left) == (20, 40)
        at.forward(20)
        set_status("sent", pk__in=every[:38])
        assert progress(mailing).seconds_left == pytest.approx(2 * 60 / 38)
        at.forward(61)  # nothing left in the last minute
        assert progress(mailing).seconds_left is None


def test_a_fault_of_one_message_is_seen_in_its_mailing(provider):
    mailing = mail(3)
    provider.script(1, Fault("bad_number"))
    Worker(concurrency=1).run_once()
    found = progress(mailing)
    assert (found.total, found.sent, found.failed) == (3, 2, 1)


def test_a_mailing_that_is_deleted_leaves_its_messages():
    mailing = mail(2)
    mailing.delete()
    assert set(SmsMessage.objects.values_list("mailing", "status")) == {(None, "queued")}

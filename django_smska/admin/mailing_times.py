"""When the messages of a mailing leave that wait: its pages say so."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from django.utils.formats import date_format
from django.utils.timezone import now
from django.utils.translation import gettext

from .. import circuit_breaker, clock, conf, mailing_counts, mailings, quiet_hours
from ..models import SmsMailing, SmsMessageQuerySet
from ..states import Status
from ..times import local
from .compose_times import Plan, plan_of_stored
from .wording import stop_of, time_left_words

MAX_NUMBERS_LOOKED_AT = 10_000  # the most recipients whose quiet hours are looked at for a page


class Waiting(NamedTuple):
    """What the page of a mailing says of the messages that wait.

    :ivar words: why none of them leaves now, and until when; may be empty
    :ivar time_left: until the last one has left; may be empty
    """

    words: str = ""
    time_left: str = ""


def waiting(mailing: SmsMailing, found: mailing_counts.Progress) -> Waiting:
    """Return what the page says. It is four queries where messages wait."""
    if not found.waiting or _is_paused(mailing.using):
        return Waiting()
    moment = clock.now()
    queued = mailings.of(mailing).filter(status=Status.QUEUED)
    # Most wait for no time of theirs: what is due is not sorted.
    ahead = queued.filter(send_after__gt=moment).order_by("-send_after")
    last = ahead.values_list("send_after", flat=True).first()
    later = 0.0 if last is None else (last - moment).total_seconds()
    if later > 0 and not queued.filter(send_after__lte=moment).exists():
        return Waiting(_why_later(mailing, queued, moment))
    if found.seconds_left is None:
        return Waiting()
    return Waiting(time_left=time_left_words(max(found.seconds_left, later)))


def quiet_plan(mailing: SmsMailing, messages: SmsMessageQuerySet) -> Plan:
    """Return which of these messages of a mailing would wait for the end of quiet hours, if all
    were queued now. Of very many it looks at a part."""
    hours = None if mailing.at_any_hour else conf.quiet_hours()
    if hours is None:
        return Plan()
    # No generator: error reports would show the variables of its frame.
    first = messages.order_by("pk").values_list("to", "send_after")[:MAX_NUMBERS_LOOKED_AT]
    return plan_of_stored(dict(first), hours)


def _is_paused(alias: str) -> bool:
    """Return whether the provider sends nothing now, which the page says above."""
    return bool(alias) and (bool(stop_of(alias)) or circuit_breaker.state_of(alias).is_paused)


def _why_later(mailing: SmsMailing, queued: SmsMessageQuerySet, moment: datetime) -> str:
    first = queued.order_by("send_after").values_list("send_after", "to").first()
    if first is None:
        return ""
    at, number = first
    hours = None if mailing.at_any_hour else conf.quiet_hours()
    if hours is not None:
        zone = quiet_hours.zones([number], hours)[number]
        if quiet_hours.end_of(moment, zone, hours) == at:
            return gettext("Waits until %s: quiet hours.") % _when(at)
    return gettext("Next message: %s") % _when(at)


def _when(at: datetime) -> str:
    is_today = local(at).date() == local(now()).date()
    return date_format(local(at), "TIME_FORMAT" if is_today else "SHORT_DATETIME_FORMAT")

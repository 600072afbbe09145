"""Messages that phones send to this site: each is stored once, and STOP is obeyed."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, connections, transaction

from . import conf, log_fields, opt_out, replies
from .conflicts import repeat_conflicts
from .exceptions import one_line
from .fields import fit
from .models import SmsInbound, rows, write_db
from .numbers import normalize
from .query_errors import hides_frames
from .receipts import Inbound
from .signals import sms_received

logger = logging.getLogger(__name__)

SOURCE = "STOP"  # of the entries of the do-not-send list
MAX_ID_CHARACTERS = 64
#: An international number whose plus the provider left out. A shorter one may be national.
_WITHOUT_PLUS = re.compile(r"[1-9][0-9]{10,14}")


@hides_frames
def receive(alias: str, messages: Sequence[Inbound]) -> int:
    """Store what a provider delivered; return how many of the messages are new.

    A message is known by its ``gateway_id``: one that is delivered again changes nothing. Each new
    one is committed together with what follows from a STOP word, and announced after the commit
    (``sms_received``).

    :param alias: the provider in ``SMS_PROVIDERS``
    :raises DatabaseError: where one could not be stored; those before it are. The provider should
        deliver all of them again
    """
    words = conf.stop_words()
    # The word as it came: the row has "?" for what the database cannot hold.
    every = [(_row(alias, one), replies.stop_word(one.body, words)) for one in messages]
    known = _known(alias, [row.gateway_id for row, _ in every if row.gateway_id])
    return sum(_store_once(row, word) for row, word in every if row.gateway_id not in known)


def _row(alias: str, message: Inbound) -> SmsInbound:
    return SmsInbound(
        using=alias,
        sender=_fit("sender", one_line(_number(message.sender))),
        to=_fit("to", one_line(message.to)),
        body=_fit("body", message.body),
        gateway_id=_id(message.gateway_id),
    )


def _number(text: str) -> str:
    """Return a number in E.164; what is none, such as a short code or a name, as it is."""
    for spelling in (text, f"+{text}") if _WITHOUT_PLUS.fullmatch(text) else (text,):
        try:
            return normalize(spelling)
        except ValidationError:
            pass
    return text


def _is_number(text: str) -> bool:
    """Return whether it is E.164. A plus alone says nothing: the sender may be faked."""
    try:
        return normalize(text) == text
    except ValidationError:
        return False


def _fit(name: str, text: str) -> str:
    return str(fit(text, SmsInbound._meta.get_field(name), connections[write_db()]))


def _id(text: str) -> str | None:
    """Return an id that every database can compare: of a strange or long one its hash."""
    if not text:
        return None
    if text.isascii() and text.isprintable() and len(text) <= MAX_ID_CHARACTERS:
        return text
    return sha256(text.encode(errors="surrogatepass")).hexdigest()


def _known(alias: str, ids: list[str]) -> set[Any]:
    if not ids:
        return set()
    stored = SmsInbound.objects.using(write_db()).filter(using=alias, gateway_id__in=ids)
    return set(stored.values_list("gateway_id", flat=True))


def _store_once(row: SmsInbound, word: str) -> bool:
    """Store a message; return False where another process was faster."""
    try:
        repeat_conflicts(lambda: _store(row, word))
    except IntegrityError:
        if not _known(row.using, [row.gateway_id] if row.gateway_id else []):
            raise
        return False
    return True


def _store(row: SmsInbound, word: str) -> None:
    row.pk = None  # a try before this one was rolled back
    with transaction.atomic(using=write_db()):
        row.save(force_insert=True, using=write_db())
        _obey(row, word)
        transaction.on_commit(partial(_announce, row), using=write_db())


def _announce(row: SmsInbound) -> None:
    sms_received.send_robust(SmsInbound, inbound=row)


# --- STOP -----------------------------------------------------------------------------------------


def _obey(row: SmsInbound, word: str) -> None:
    """Put the number on the do-not-send list where the message is a STOP word.

    :param word: that it is, or ""
    """
    if not word:
        return
    if not _is_number(row.sender):  # nothing is ever sent to it
        words = "a STOP word came through %s from what is no phone number"
        logger.warning(words, row.using, extra=log_fields.of_provider(row.using))
        return
    opt_out.stop(row.sender, _senders(row), reason=word, source=SOURCE)


def _senders(row: SmsInbound) -> set[str]:
    """Return from whom the person wants no more messages.

    A reply goes to a number, and messages may come from a name, to which no phone can reply. So
    that is the number, what this provider sends from where a message names no sender, and the
    sender of the newest message that the person got through it.
    """
    own = opt_out.senders(row.using)
    if not own:  # an entry for all alone keeps back a message that names no sender
        return set()
    got = rows().filter(to=row.sender, using=row.using, sending_at__isnull=False)
    newest = got.order_by("-sending_at").values_list("sender", flat=True)[:1]
    return {*own, *newest, row.to, _fit("to", _number(row.to))} - {""}

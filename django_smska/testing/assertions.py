"""Assertions about what was sent and queued, whose failures list what was sent instead.

They show numbers and texts in full, one-time codes too: these are the test's own, and without them
a failure would not say what is wrong. A sensitive text that is wiped by now is shown as it is
stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.utils.functional import Promise

from django_smska.backends.locmem import outbox
from django_smska.numbers import normalize
from django_smska.segments import with_plain_lines

if TYPE_CHECKING:
    from django_smska.models import SmsMessage

__unittest = True  # unittest leaves the frames of this module out of a traceback

MOST_LISTED = 20  # of the messages in a failure's text

Text = str | Promise


def assert_sms_sent(
    *,
    to: Any = None,
    contains: Text | None = None,
    body: Text | None = None,
    sender: str | None = None,
    using: str | None = None,
    count: int | None = None,
) -> list[SmsMessage]:
    """Fail unless a message was sent that fits all that is given; return those that fit.

    Sent is what is in ``django_smska.sms.outbox``, and what a stand-in gateway in use has
    accepted.

    :param to: the number, in any spelling of :func:`django_smska.numbers.normalize`
    :param contains: a part of the text
    :param body: the whole text
    :param sender: the sender ID of the message; "" for one that names none
    :param using: the alias of the provider
    :param count: how many must fit; by default one or more
    :raises AssertionError: otherwise; its text lists what was sent instead, the nearest first, and
        why others were not: queued, claimed, failed and unknown ones
    :raises ValueError: for a ``to`` that is no phone number
    """
    __tracebackhide__ = True
    wanted = _wanted(to=to, contains=contains, body=body, sender=sender, using=using)
    found = _sent()
    fit = [message for message in found if not wanted.misses(message)]
    if _is_enough(fit, count):
        return fit
    raise AssertionError(_failure("sent", wanted, found, fit, count) + _unsent(wanted, "queued"))


def assert_no_sms_sent(
    *,
    to: Any = None,
    contains: Text | None = None,
    body: Text | None = None,
    sender: str | None = None,
    using: str | None = None,
) -> None:
    """Fail if a message was sent that fits all that is given; by default, if any was sent.

    In memory a message is sent at once, also in a transaction that is rolled back later.

    The parameters are those of :func:`assert_sms_sent`.

    :raises AssertionError: its text lists these messages
    """
    __tracebackhide__ = True
    wanted = _wanted(to=to, contains=contains, body=body, sender=sender, using=using)
    found = _sent()
    fit = [message for message in found if not wanted.misses(message)]
    if fit:
        raise AssertionError(_failure("sent", wanted, found, fit, 0))


def assert_sms_queued(
    *,
    to: Any = None,
    contains: Text | None = None,
    body: Text | None = None,
    sender: str | None = None,
    using: str | None = None,
    count: int | None = None,
) -> list[SmsMessage]:
    """Fail unless a message that fits all that is given waits for a worker; return those that do.

    The parameters are those of :func:`assert_sms_sent`. It needs the database.

    :raises AssertionError: otherwise; its text lists what is queued, what was sent instead, and
        why others were not
    :raises ValueError: for a ``to`` that is no phone number
    """
    __tracebackhide__ = True
    wanted = _wanted(to=to, contains=contains, body=body, sender=sender, using=using)
    found = _queued()
    fit = [message for message in found if not wanted.misses(message)]
    if _is_enough(fit, count):
        return fit
    failed = _failure("queued", wanted, found, fit, count)
    raise AssertionError(failed + _sent_instead(wanted) + _unsent(wanted))


# --- what is wanted -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Condition:
    """What one argument asks of a message.

    :param words: it, as a part of "No SMS was sent …"
    :param miss: returns why a message does not fit, "" where it does
    """

    words: str
    miss: Callable[[Any], str]


class _Wanted:
    def __init__(self, conditions: list[_Condition]) -> None:
        self.conditions = conditions

    @property
    def words(self) -> str:
        return "".join(f" {one.words}" for one in self.conditions)

    def misses(self, message: Any) -> list[str]:
        """Return why a message does not fit: nothing where it does."""
        return [why for one in self.conditions if (why := one.miss(message))]


def _wanted(*, to: Any, contains: Any, body: Any, sender: Any, using: Any) -> _Wanted:
    made = (
        _to(to) if to is not None else None,
        _contains(with_plain_lines(str(contains))) if contains is not None else None,
        _body(with_plain_lines(str(body))) if body is not None else None,
        _sender(str(sender)) if sender is not None else None,
        _using(using) if using is not None else None,
    )
    return _Wanted([one for one in made if one is not None])


def _to(value: Any) -> _Condition:
    try:
        number = normalize(value)
    except ValidationError as error:
        words = " ".join(error.messages)
        raise ValueError(f"to={value!r} is no phone number: {words}") from None
    return _Condition(
        f"to {number}", lambda one: "" if one.to == number else "it went to another number"
    )


def _contains(part: str) -> _Condition:
    return _Condition(
        f"with {part!r} in its text",
        lambda one: "" if part in one.body else f"its text does not contain {part!r}",
    )


def _body(text: str) -> _Condition:
    return _Condition(
        f"with the text {text!r}",
        lambda one: "" if one.body == text else _difference(one.body, text),
    )


def _difference(body: str, text: str) -> str:
    same = next(
        (place for place, pair in enumerate(zip(body, text, strict=False)) if len(set(pair)) > 1),
        min(len(body), len(text)),
    )
    return f"its text differs from character {same + 1} on"


def _sender(sender: str) -> _Condition:
    return _Condition(
        f"from the sender {sender!r}",
        lambda one: "" if one.sender == sender else f"its sender is {_named(one.sender)}",
    )


def _named(sender: str) -> str:
    return repr(sender) if sender else "the provider's own ('')"


def _using(alias: str) -> _Condition:
    return _Condition(
        f"through {alias!r}",
        lambda one: "" if one.using == alias else f"it went through {one.using!r}",
    )


def _is_enough(fit: Sequence[Any], count: int | None) -> bool:
    return len(fit) == count if count is not None else bool(fit)


# --- what there is --------------------------------------------------------------------------------


def _sent() -> list[Any]:
    return [*outbox, *_accepted()]


def _accepted() -> list[Any]:
    """Return what the stand-in gateways in use have accepted, as messages."""
    from . import stand_in

    if not stand_in.in_use:
        return []
    from django_smska.models import SmsMessage

    return [
        SmsMessage(to=f"+{one.msisdn}", body=one.text, sender=one.sender, using=alias)
        for alias, one in stand_in.accepted()
    ]


def _queued() -> list[Any]:
    from .unsent import unsent

    return unsent("queued")


# --- what a failure says --------------------------------------------------------------------------


def _failure(
    verb: str, wanted: _Wanted, found: list[Any], fit: list[Any], count: int | None
) -> str:
    if fit:
        number = "None was to be" if count == 0 else f"{count} were to be"
        head = f"{len(fit)} SMS {_was(fit)} {verb}{wanted.words}. {number}."
        return head + _listed(fit, wanted)
    head = f"No SMS was {verb}{wanted.words}."
    if not found:
        return f"{head} None was {verb} at all."
    return f"{head} {len(found)} {_was(found)} {verb} instead:{_listed(found, wanted)}"


def _was(messages: Sequence[Any]) -> str:
    return "was" if len(messages) == 1 else "were"


def _listed(
    messages: Sequence[Any], wanted: _Wanted, note: Callable[[Any], str] = lambda one: ""
) -> str:
    """Return a line for each message, those first that miss the least.

    :param note: returns a line to add to the message's, "" for none
    """
    nearest = sorted(messages, key=lambda one: len(wanted.misses(one)))
    shown = nearest[:MOST_LISTED]
    lines = [f"\n  {_line(one, wanted)}{_indented(note(one))}" for one in shown]
    if len(nearest) > MOST_LISTED:
        lines.append(f"\n  … and {len(nearest) - MOST_LISTED} more")
    return "".join(lines)


def _line(message: Any, wanted: _Wanted) -> str:
    line = f"to {message.to} through {message.using!r}: {message.body!r}"
    misses = wanted.misses(message)
    if len(misses) == 1 and len(wanted.conditions) > 1:
        return f"{line}\n    Nearly: {misses[0]}."
    return f"{line}\n    {'; '.join(misses)}." if misses else line


def _indented(note: str) -> str:
    return f"\n    {note}" if note else ""


def _unsent(wanted: _Wanted, *more: str) -> str:
    """Return what was not sent and why, where the test may ask the database.

    :param more: further statuses
    """
    # Django and pytest-django each raise an error of their own for a test without a database.
    with suppress(Exception, AssertionError):
        from .unsent import unsent, why

        if found := unsent("claimed", "sending", "failed", "unknown", *more):
            return f"\n{len(found)} {_was(found)} not sent:" + _listed(found, wanted, why)
    return ""


def _sent_instead(wanted: _Wanted) -> str:
    if not (sent := _sent()):
        return ""
    return f"\n{len(sent)} {_was(sent)} sent:{_listed(sent, wanted)}"

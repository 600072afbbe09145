"""Every error that django-smska raises.

::

    SmsError
    ├── SmsNotSent                 the gateway definitely did not accept the message
    │   ├── InvalidRecipient       the number is wrong or cannot be reached
    │   │   └── RecipientOptedOut  the number is on the do-not-send list
    │   ├── InvalidSender          the sender ID is not allowed
    │   ├── InvalidRequest         the gateway refuses the text or a parameter
    │   ├── AuthenticationFailed   wrong login, locked account
    │   ├── InsufficientCredits    the account is empty
    │   ├── TemporaryFailure       the gateway says: not now
    │   │   └── GatewayBusy        the gateway asks for fewer requests
    │   ├── GatewayUnreachable     no connection, or no SMS gateway at that address
    │   ├── ProviderFailed         the provider's backend on this site failed
    │   ├── SendingStopped         a person, or SMSKA_STOPPED, has stopped the provider
    │   ├── LimitExceeded          a limit of this site (SMSKA_LIMITS)
    │   │   └── NumberNotAllowed   (InvalidRecipient) the first digits of the number
    │   └── UnknownTemplate        no text is saved under this name
    ├── SmsOutcomeUnknown          it may have been accepted: a person decides
    ├── QueryFailed                a balance or status query without a usable answer
    │   └── QueryCrashed           the provider's backend on this site failed in a query
    └── WrongStatus                the message's status does not allow this
    InvalidProvider                (ImproperlyConfigured) a wrong entry in SMS_PROVIDERS
    └── ProviderDoesNotExist       (KeyError) no such alias
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Any, ClassVar

from django.core.exceptions import ImproperlyConfigured

#: Separates our text from the address that could not be reached.
AT = " Address: "
#: Separates our text from the gateway's own.
SAID = " The gateway said: "
#: Separates the reason of a pause from the local time at which the provider may be tried.
AGAIN = " The next attempt is possible at "


def gettext_noop(text: str) -> str:
    """Mark ``text`` for translation where it is shown. Django's own needs settings to do that."""
    return text


def one_line(text: str) -> str:
    """Return ``text`` with single blanks for line ends, and for control and format characters."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


class ErrorKind(str, Enum):
    """What an error concerns, which decides what follows: see ``states``. Each class has one."""

    ERROR = "error"  # of no other kind; no backend may raise it
    STATUS = "status"  # the message's status; no backend may raise it
    MESSAGE = "message"  # this message alone
    SENDER = "sender"  # every message with this sender
    TEMPORARY = "temporary"  # this message, and not for long
    ACCOUNT = "account"  # the provider: its login
    FUNDS = "funds"  # the provider: its credits
    UNREACHABLE = "unreachable"  # the provider: its address, or the way there
    BUSY = "busy"  # the provider: all are asked to wait
    BROKEN = "broken"  # its backend on this site
    UNKNOWN = "unknown"  # whether the message was accepted
    QUERY = "query"  # a balance or status query, not a message

    def __str__(self) -> str:  # as of a StrEnum, which Python 3.10 has not
        return str(self.value)


class SmsError(Exception):
    """Base of all errors about messages.

    The request is never carried, so that no password, text or whole number can leak through an
    error report.

    :param alias: the provider's alias
    :param code: the cause, as the gateway or this app names it, such as ``"-6"`` or ``"connect"``
    :param gateway_text: the gateway's own text, cleaned of secrets
    :param sms: primary key of the stored message
    :param answered: the gateway answered this very request, so that login and connection work
    :param retry_in: the least seconds before the same message may be tried again, where the
        provider says so
    :ivar refused: the errors of the providers that were tried before this one (failover)
    """

    kind: ClassVar[ErrorKind] = ErrorKind.ERROR
    #: Host and port that could not be reached.
    address = ""
    summary = gettext_noop("The SMS could not be processed.")
    refused: tuple[SmsError, ...] = ()
    retry_in: float = 0

    def __init__(
        self,
        message: str = "",
        *,
        alias: str | None = None,
        code: str = "",
        gateway_text: str = "",
        answered: bool = False,
        retry_in: float = 0,
        sms: Any = None,
    ) -> None:
        super().__init__(message or self.summary)
        self.alias = alias
        self.code = code
        self.gateway_text = gateway_text
        self.answered = answered
        self.retry_in = retry_in
        self.sms = sms

    def __str__(self) -> str:
        return f"SMS_PROVIDERS[{self.alias!r}]: {self.text}" if self.alias else self.text

    @property
    def text(self) -> str:
        """Return what went wrong and what to do, the address, and the gateway's own text.

        It is one line that a terminal only prints, whatever a third party's backend puts into it.
        """
        at = f"{AT}{self.address}." if self.address else ""
        said = f"{SAID}{self.gateway_text}" if self.gateway_text else ""
        return one_line(f"{self.args[0]}{at}{said}")


class SmsNotSent(SmsError):
    """The gateway definitely did not accept the message."""

    kind = ErrorKind.MESSAGE
    summary = gettext_noop("The SMS was not sent.")


class InvalidRecipient(SmsNotSent):
    """The number is not valid for this gateway (-6)."""

    summary = gettext_noop("The gateway does not send to this number. Correct the number.")


class RecipientOptedOut(InvalidRecipient):
    """The recipient asked for no messages: the number is on the do-not-send list.

    Where the message was stored before that, it is *cancelled*. A backend raises it where the
    provider has such a list and refused the message (Twilio: 21610): that message *failed*, and the
    number is put on the list here, too.
    """

    summary = gettext_noop("This number is on the do-not-send list. Nothing was sent.")

    def __str__(self) -> str:
        return self.text  # the provider's settings are not to blame


class InvalidSender(SmsNotSent):
    """The sender ID is not registered or not allowed (-2, -7)."""

    kind = ErrorKind.SENDER
    summary = gettext_noop(
        "The gateway does not accept this sender ID; every message with it will fail. "
        "Register the name with the provider, or correct the sender ID."
    )


class InvalidRequest(SmsNotSent):
    """The gateway refuses a parameter (-4), or answers with a code that is not documented."""

    summary = gettext_noop("The gateway refused the message.")


class AuthenticationFailed(SmsNotSent):
    """The login is wrong or the account is locked (-1)."""

    kind = ErrorKind.ACCOUNT
    summary = gettext_noop(
        "The gateway refused the login. Correct it in the provider's OPTIONS in the settings, or "
        "ask the provider whether the account is locked."
    )


class InsufficientCredits(SmsNotSent):
    """The account has too few credits for the message (-5)."""

    kind = ErrorKind.FUNDS
    summary = gettext_noop("The account at the gateway has too few credits. Top it up.")


class TemporaryFailure(SmsNotSent):
    """The gateway failed inside (-3)."""

    kind = ErrorKind.TEMPORARY
    summary = gettext_noop("The gateway could not process the message just now.")


class GatewayBusy(TemporaryFailure):
    """The gateway asks for fewer requests (HTTP 429): all messages wait, not only this one."""

    kind = ErrorKind.BUSY


class GatewayUnreachable(SmsNotSent):
    """No byte of the request was written, or what answers is not the gateway (HTTP 3xx, 4xx)."""

    kind = ErrorKind.UNREACHABLE
    summary = gettext_noop("The gateway could not be reached. Nothing was sent.")


class ProviderFailed(SmsNotSent):
    """The provider's backend on this site failed, before the first byte of a request."""

    kind = ErrorKind.BROKEN
    summary = gettext_noop(
        "The provider's backend on this site failed. Nothing was sent; the log says more."
    )


class SendingStopped(SmsNotSent):
    """A person has stopped the provider, or ``SMSKA_STOPPED`` has. Its queue waits."""

    kind = ErrorKind.BUSY
    summary = gettext_noop(
        "Sending is stopped. Nothing was sent. To resume it, use the admin or “manage.py sms_stop "
        "--resume”, or correct SMSKA_STOPPED."
    )


class LimitExceeded(SmsNotSent):
    """A limit of this site was reached (``SMSKA_LIMITS``). Nothing was stored or sent.

    :param retry_at: when the same message would pass, if nothing else is sent in the meantime;
        ``None`` where it never would
    """

    summary = gettext_noop("A limit of this site was reached. Nothing was sent.")

    def __init__(self, message: str = "", *, retry_at: datetime | None = None, **rest: Any) -> None:
        super().__init__(message, **rest)
        self.retry_at = retry_at

    def __str__(self) -> str:
        return self.text  # the provider's settings are not to blame


class NumberNotAllowed(LimitExceeded, InvalidRecipient):
    """The provider, or ``SMSKA_LIMITS``, sends only to numbers with other first digits."""

    summary = gettext_noop(
        "This provider sends only to numbers with other first digits (SMSKA_LIMITS, prefixes). "
        "Nothing was sent."
    )


class UnknownTemplate(SmsNotSent):
    """No text is saved under this name, or none in this language (``send_template``)."""

    summary = gettext_noop("There is no such template. Nothing was sent.")

    def __str__(self) -> str:
        return self.text  # the provider's settings are not to blame


class SmsOutcomeUnknown(SmsError):
    """The request may have reached the gateway and no clear answer came back.

    Never send such a message again automatically, because the gateway cannot be queried about it.
    """

    kind = ErrorKind.UNKNOWN
    summary = gettext_noop(
        "The gateway may or may not have accepted the SMS. Find out whether it arrived before "
        "it is sent again."
    )


class QueryFailed(SmsError):
    """A balance or status query got no usable answer; nothing was changed."""

    kind = ErrorKind.QUERY
    summary = gettext_noop("The gateway gave no usable answer.")


class QueryCrashed(QueryFailed):
    """The provider's backend on this site failed in a query; the gateway itself may work."""

    kind = ErrorKind.BROKEN


class WrongStatus(SmsError):
    """The message's status does not allow the operation; nothing was changed."""

    kind = ErrorKind.STATUS
    summary = gettext_noop("The message's status does not allow this.")

    def __str__(self) -> str:
        return self.text  # the provider's settings are not to blame


class InvalidProvider(ImproperlyConfigured):
    """An entry of ``settings.SMS_PROVIDERS`` is wrong.

    :param hint: how to fix it
    :param check: the id of the system check that reports it, ``"E005"``
    """

    def __init__(
        self,
        message: str,
        *,
        alias: str | None = None,
        hint: str = "Correct SMS_PROVIDERS.",
        check: str = "E005",
    ) -> None:
        self.alias = alias
        self.hint = hint
        self.check = check
        if alias is not None:
            message = f"SMS_PROVIDERS[{alias!r}]: {message}"
        super().__init__(message)

    def __reduce__(self) -> tuple[Any, ...]:
        # The message already names the alias: rebuild it without naming the alias twice.
        return _rebuild, (type(self), self.args, self.__dict__)


class ProviderDoesNotExist(InvalidProvider, KeyError):
    """The alias is not in ``settings.SMS_PROVIDERS``."""

    __str__ = Exception.__str__  # KeyError shows its text as a quoted repr


def _rebuild(cls: type[InvalidProvider], args: tuple[Any, ...], state: dict[str, Any]) -> Any:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error

"""A provider by settings alone: its requests as templates, its answers as conditions."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from .. import log_fields
from ..conf import WrongPart
from ..exceptions import (
    AuthenticationFailed,
    GatewayBusy,
    InsufficientCredits,
    InvalidRecipient,
    InvalidRequest,
    InvalidSender,
    QueryFailed,
    RecipientOptedOut,
    SmsError,
    SmsNotSent,
    SmsOutcomeUnknown,
    TemporaryFailure,
    gettext_noop,
)
from ..exchange import CANNOT_BE_WRITTEN, Answer, Request, clean, decode
from ..http_answers import Condition, Place, Said, conditions, path, place, several
from ..http_templates import PARTS, Call, read
from ..json_answers import json_value
from ..receipts import CREDITS, Evidence, Receipt, Report
from ..redact import Hidden, repeats
from ..shapes import is_object
from ..webhook_urls import REPORT
from .over_http import MAX_STEP_SECONDS, HttpBackend, problem_of_address

if TYPE_CHECKING:
    from django.http import HttpRequest

_T = TypeVar("_T")

logger = logging.getLogger(__name__)

#: What ``refused`` may name.
KINDS: dict[str, type[SmsNotSent]] = {
    "recipient": InvalidRecipient,
    "opted_out": RecipientOptedOut,
    "sender": InvalidSender,
    "request": InvalidRequest,
    "login": AuthenticationFailed,
    "credits": InsufficientCredits,
    "busy": GatewayBusy,
    "temporary": TemporaryFailure,
}
#: Those that a query may raise, too.
OF_THE_ACCOUNT = ("login", "credits", "busy")
#: What ``statuses`` may name.
STATUSES = ("sent", "delivered", "rejected", "expired", "deleted")

OF_A_MESSAGE = ("to", "to_digits", "to_number", "reference")
OF_A_SEND = (*OF_A_MESSAGE, "sender", "report_url")
#: The text as it is, in hexadecimal UCS-2, and percent-encoded.
TEXTS = ("text", "text_hex", "text_url")
PLACEHOLDERS = (*OF_A_SEND, *TEXTS, "gateway_id")
#: The queries: the placeholders of their requests, and the place that each answer must have.
QUERIES: dict[str, tuple[tuple[str, ...], str]] = {
    "status_query": ((*OF_A_MESSAGE, "gateway_id"), "status"),
    "find_query": (OF_A_MESSAGE, "id"),
    "balance_query": ((), "balance"),
}
PLACES = ("id", "status", "balance", "price", "segments", "code")
IN_REPORTS = ("reference", "id", "status", "price", "segments")
LOGIN_REFUSED = gettext_noop(
    "The provider refused the login. Correct 'secrets' in the settings, or ask the provider."
)
HINT = "See “Describe a provider in the settings” in the documentation."

_CODE = re.compile("-?[0-9]{1,6}|[A-Za-z_. -]{1,32}")
_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")


class SmsBackend(HttpBackend):
    """Send through a provider that the settings describe. It takes the options of
    :class:`~django_smska.backends.over_http.HttpBackend`, too.

    :param secrets: a dict of what logs in; ``{name}`` stands for each one in headers and bodies
    :param url: the address that sends a message; required
    :param method: of that request
    :param headers: a dict of templates
    :param basic: the template of ``login:password`` for HTTP Basic
    :param json: the body as JSON: a dict with templates in it
    :param form: the body as a form: a dict of templates
    :param text: the body as plain text: a template
    :param xml: the body as XML: a template
    :param accepted: a condition, or a list of them, of which one means that it was accepted
    :param refused: a dict of kinds, with conditions that mean it was definitely not accepted
    :param retry_in: the least seconds before a refused message may be tried again
    :param id: where the provider's id stands in the answer
    :param price: where its price stands
    :param currency: of the price, three letters
    :param segments: where the number of its segments stands
    :param balance: where the account's balance stands
    :param balance_unit: what it counts: ``credits``, or a currency of three letters
    :param code: where the provider's code of an error stands
    :param statuses: a dict of our statuses, with the provider's words for each
    :param status_query: a dict: the request for a report, and where its ``status`` stands
    :param find_query: a dict: the request for a message by its reference, where its ``id`` and
        ``status`` stand, and conditions that mean it is not known (``missing``)
    :param balance_query: a dict: the request for the balance, and where ``balance`` stands
    :param reports: a dict: where ``reference``, ``id`` and ``status`` stand in pushed reports
    :param most_at_once: the most requests at once that the provider allows
    """

    def __init__(
        self,
        *,
        secrets: Mapping[str, str] | None = None,
        url: str = "",
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        basic: str = "",
        json: Any = None,
        form: Mapping[str, str] | None = None,
        text: str | None = None,
        xml: str | None = None,
        accepted: Any = None,
        refused: Mapping[str, Any] | None = None,
        retry_in: float = 0,
        id: str = "",
        price: str = "",
        currency: str = "",
        segments: str = "",
        balance: str = "",
        balance_unit: str = "",
        code: str = "",
        statuses: Mapping[str, Any] | None = None,
        status_query: Mapping[str, Any] | None = None,
        find_query: Mapping[str, Any] | None = None,
        balance_query: Mapping[str, Any] | None = None,
        reports: Mapping[str, Any] | None = None,
        most_at_once: int | None = None,
        **rest: Any,
    ) -> None:
        given = Hidden(secrets={} if secrets is None else secrets)
        del secrets
        self._secrets_are = _problem_of_secrets(given.secrets)
        self._rules = {
            "url": url, "method": method, "headers": headers, "basic": basic, "json": json,
            "form": form, "text": text, "xml": xml, "accepted": accepted, "refused": refused,
            "id": id, "price": price, "segments": segments, "balance": balance, "code": code,
            "statuses": statuses, "status_query": status_query, "find_query": find_query,
            "balance_query": balance_query, "reports": reports,
        }  # fmt: skip
        self.retry_in, self.currency, self.most_at_once = retry_in, currency, most_at_once
        self.balance_unit = balance_unit
        super().__init__(login={} if self._secrets_are else given.secrets, url=url, **rest)

    # --- options

    def _refuse_wrong_options(self) -> None:
        super()._refuse_wrong_options()
        if self._secrets_are:
            self._refuse(f"'secrets' {self._secrets_are}.")
        if not _is_within(self.retry_in, 0, MAX_STEP_SECONDS):
            self._refuse(f"'retry_in' must be a number of seconds up to {MAX_STEP_SECONDS}.")
        if self.most_at_once is not None and not _is_within(self.most_at_once, 1, 10**6, int):
            self._refuse("'most_at_once' must be a whole number from 1 on, or None.")
        if not re.fullmatch("([A-Za-z]{3})?", str(self.currency)):
            self._refuse("'currency' must be three letters, such as RUB.")
        if not re.fullmatch(f"([A-Za-z]{{3}}|{CREDITS})?", str(self.balance_unit)):
            self._refuse(f"'balance_unit' must be '{CREDITS}', or three letters, such as RUB.")
        if self._secrets_are or self._wrong:
            return  # the rules name what is wrong here
        try:
            self._read_rules()
            self._refuse_what_is_missing()
        except WrongPart as error:
            self._refuse(f"{error}.", HINT)

    def _read_rules(self) -> None:
        """Read the settings once, so that a message costs no more than its request."""
        rules, secrets = self._rules, tuple(vars(self.login))
        self.call = Call(rules, (*OF_A_SEND, *secrets), in_body=TEXTS)
        self.places = {name: read(name, place, rules.get(name)) for name in PLACES}
        self.accepted = read("accepted", conditions, rules["accepted"])
        self.refused = read("refused", _refused, rules["refused"] or {})
        self.statuses = read("statuses", _statuses, rules["statuses"] or {})
        self.queries = {
            name: read(name, Query, rules[name], (*known, *secrets), needed)
            for name, (known, needed) in QUERIES.items()
            if rules[name] is not None
        }
        self.reports = read("reports", Reports, rules["reports"])
        self.webhook_answer = self.reports.answer
        if self.takes_reports:
            self.reports_by = "both" if self.gives_reports else "push"

    def _refuse_what_is_missing(self) -> None:
        names = self.call.names
        if self.call.method == "GET":
            raise WrongPart("'method' must be POST, PUT or PATCH, so that no address holds a text")
        for call in (self.call, *(query.call for query in self.queries.values())):
            call.refuse_in_headers(vars(self.login))
        if names.isdisjoint(TEXTS):
            raise WrongPart(
                "'json', 'form', 'text' or 'xml' must have {text}, {text_hex} or {text_url} in it"
            )
        if names.isdisjoint(("to", "to_digits", "to_number")):
            raise WrongPart("the body or 'headers' must have {to}, {to_digits} or {to_number}")
        if (self.queries.keys() - {"balance_query"} or self.takes_reports) and not self.statuses:
            raise WrongPart("'statuses' must be a dict such as {'delivered': ['DELIVRD']}")
        by_reference = "find_query" in self.queries or "reference" in self.reports.places
        if by_reference and "reference" not in names:
            raise WrongPart(
                "a message is found by its reference only where the body or 'headers' have "
                "{reference}"
            )

    @property
    def evidence(self) -> Evidence:  # type: ignore[override]
        if "find_query" in self.queries:
            return Evidence.ASKED
        pushed = "reference" in self.reports.places and self.webhook_url(REPORT)
        return Evidence.REPORTED if pushed else Evidence.MUTE

    @property
    def gives_reports(self) -> bool:
        return "status_query" in self.queries

    @property
    def takes_reports(self) -> bool:
        return bool(self.reports.places)

    @property
    def has_balance(self) -> bool:
        return "balance_query" in self.queries

    def _urls(self) -> list[str]:
        return [self.url, *(query.url for query in self.queries.values())]

    # --- requests

    def send_request(self, message: Any) -> Request:
        values = self._values(
            message,
            **_texts(message.body),
            sender=message.sender or self.sender_id,
            report_url=self.webhook_url(REPORT),
        )
        return self.request("send", message, **self.call.parts(values))

    def get_status(self, message: Any) -> Report:
        if not message.gateway_id:
            text = gettext_noop("The gateway gave no ID to query by.")
            raise QueryFailed(text, alias=self.alias)
        asked = self._asked("status_query", self._report, message, gateway_id=message.gateway_id)
        return asked or Report()

    def find(self, message: Any) -> Report | None:
        if "find_query" not in self.queries:
            return super().find(message)
        return self._asked("find_query", self._found, message)

    def get_balance(self) -> Decimal:
        if not self.has_balance:
            return super().get_balance()
        place_of = self.queries["balance_query"].places["balance"]
        balance = self._asked("balance_query", lambda said, _: said.number_at(place_of))
        assert balance is not None  # it has no conditions of what is missing
        return balance

    def _values(self, message: Any, **more: str) -> dict[str, Any]:
        """Return what the placeholders stand for. No frame that an error leaves may keep this."""
        if message is None:
            return dict(vars(self.login))
        digits = str(message.to).removeprefix("+")
        return {
            **more,
            **vars(self.login),
            "to": str(message.to),
            "to_digits": digits,
            "to_number": int(digits) if digits.isdecimal() else digits,
            "reference": message.reference,
        }

    def _asked(
        self,
        name: str,
        read_said: Callable[[Said, Query], _T | None],
        message: Any = None,
        **more: str,
    ) -> _T | None:
        """Make a query; return ``None`` where the provider does not know the message."""
        query = self.queries[name]

        def meaning(answer: Answer) -> _T | SmsError | None:
            said = Said.by(answer)
            if any(one.holds(said) for one in query.missing):
                return None
            if kind := self._kind(said, OF_THE_ACCOUNT):
                return self._refusal(kind, said)
            result = read_said(said, query) if said.status == 200 else None
            failed = QueryFailed(code=f"http-{said.status}", gateway_text=clean(said.text))
            return failed if result is None else result

        def request() -> Request:
            return self.request(name, message, **query.call.parts(self._values(message, **more)))

        return self.query(request, meaning)

    # --- what an answer means

    def read_send_answer(self, answer: Answer) -> Receipt | SmsError:
        said = Said.by(answer)
        accepted, kind = any(one.holds(said) for one in self.accepted), self._kind(said, KINDS)
        if accepted == bool(kind):  # neither, or both
            code = "contradiction" if accepted else f"http-{said.status}"
            return SmsOutcomeUnknown(code=code, gateway_text=clean(said.text))
        if kind:
            return self._refusal(kind, said)
        return Receipt(
            said.id_at(self.places["id"]),
            said.number_at(self.places["balance"]),
            **self._charged(said, self.places),
        )

    def _kind(self, said: Said, kinds: Iterable[str]) -> str:
        """Return the first of these kinds of which a condition holds, in the order of the settings;
        "" where none does."""
        held = (
            kind for kind, every in self.refused.items() if any(one.holds(said) for one in every)
        )
        return next((kind for kind in held if kind in kinds), "")

    def _refusal(self, kind: str, said: Said) -> SmsNotSent:
        code = said.at(self.places["code"])
        known = _CODE.fullmatch(code) and not repeats(code, vars(self.login).values())
        return KINDS[kind](
            LOGIN_REFUSED if kind == "login" else "",
            code=code if known else f"http-{said.status}",
            gateway_text=clean(said.text),
            answered=kind != "login",
            retry_in=self.retry_in,
        )

    def _charged(self, said: Said, places: Mapping[str, Place | None]) -> dict[str, Any]:
        price = said.number_at(places.get("price"))
        segments = said.number_at(places.get("segments"))
        return {
            "price": price,
            "currency": "" if price is None else self.currency,
            "segments": None if segments is None else int(segments),
        }

    def _report(self, said: Said, query: Query) -> Report | None:
        word = said.at(query.places["status"])
        charged = self._charged(said, query.places)
        return Report(self.statuses.get(word, ""), clean(word), **charged) if word else None

    def _found(self, said: Said, query: Query) -> Report | None:
        """Return what is known of a message; that it is there means that it was accepted."""
        the_id, word = said.id_at(query.places["id"]), said.at(query.places.get("status"))
        status = self.statuses.get(word, "") if word else "sent"
        charged = self._charged(said, query.places)
        return Report(status, clean(word), gateway_id=the_id, **charged) if the_id else None

    # --- webhooks

    def parse_reports(self, request: HttpRequest) -> list[Report]:
        pushed = [self._pushed(said) for said in self.reports.each(request)]
        if None in pushed:
            if not any(pushed):
                raise ValueError("no report of a message")
            extra = log_fields.of_provider(self.alias)
            words = "provider %s: some of the reports cannot be read"
            logger.warning(words, self.alias, extra=extra)
        return [one for one in pushed if one is not None]

    def _pushed(self, said: Said) -> Report | None:
        places = self.reports.places
        word, the_id = said.at(places["status"]), said.id_at(places.get("id"))
        reference = said.id_at(places.get("reference"))
        if not word or not (the_id or reference):
            return None
        return Report(
            self.statuses.get(word, ""),
            clean(word),
            gateway_id=the_id,
            reference=reference,
            **self._charged(said, places),
        )


# --- what the settings hold -----------------------------------------------------------------------


class Query:
    """A request that sends nothing, and where its answer has what is asked for.

    :param known: the placeholders that may occur in it
    :param needed: the place that must be given
    """

    def __init__(self, given: Any, known: tuple[str, ...], needed: str) -> None:
        _refuse_others(given, (*PARTS, *PLACES, "missing"))
        self.url = given.get("url", "")
        if problem := problem_of_address(self.url, ("http", "https")):
            raise WrongPart(f"'url' {problem}")
        self.call = Call(given, known)
        self.places = {name: read(name, place, given.get(name)) for name in PLACES}
        if self.places[needed] is None:
            raise WrongPart(f"{needed!r} must be a path such as 'data.{needed}'")
        missing = given.get("missing")
        self.missing = [] if missing is None else read("missing", conditions, missing)
        if missing is not None and needed == "balance":
            raise WrongPart("'missing' has no meaning here: remove it")


class Reports:
    """What the provider pushes, as JSON or as the fields of a form or an address."""

    def __init__(self, given: Any) -> None:
        given = {} if given is None else given
        _refuse_others(given, (*IN_REPORTS, "each", "answer"))
        self.answer = given.get("answer", "")
        self.path = read("each", path, given["each"]) if "each" in given else ()
        self.places = {name: read(name, path, given[name]) for name in IN_REPORTS if name in given}
        if given and ("status" not in given or not given.keys() & {"reference", "id"}):
            raise WrongPart("must have 'status', and 'reference' or 'id'")
        if not isinstance(self.answer, str):
            raise WrongPart("'answer' must be text")

    def each(self, request: HttpRequest) -> list[Said]:
        value: Any = {**request.GET.dict(), **request.POST.dict()}
        if request.content_type == "application/json":
            value = json_value(decode(request.body))
        found = Said("", value).value_at(self.path)
        return [Said("", one) for one in several(found)]


def _refused(given: Any) -> dict[str, list[Condition]]:
    _refuse_others(given, tuple(KINDS))
    return {kind: read(kind, conditions, one) for kind, one in given.items()}


def _statuses(given: Any) -> dict[str, str]:
    """Return our status for each of the provider's words."""
    _refuse_others(given, STATUSES)
    pairs = [(str(word), status) for status, words in given.items() for word in several(words)]
    if len(dict(pairs)) < len(pairs):
        raise WrongPart("has a word that stands for two statuses")
    return dict(pairs)


def _refuse_others(given: Any, known: tuple[str, ...]) -> None:
    listed = ", ".join(map(repr, known))
    if not is_object(given):
        raise WrongPart(f"must be a dict with some of: {listed}")
    if others := [name for name in given if name not in known]:
        raise WrongPart(f"has an unknown {others[0]!r}; known here: {listed}")


def _texts(text: str) -> dict[str, str]:
    """Return the text as its placeholders stand for it. Raises ``InvalidRequest``."""
    try:
        forms = (text, text.encode("utf-16-be").hex(), quote(text, safe=""))
        return dict(zip(TEXTS, forms, strict=True))
    except UnicodeError:  # its own text quotes the message
        raise InvalidRequest(CANNOT_BE_WRITTEN, code="text") from None


def _problem_of_secrets(given: Any) -> str:
    if not is_object(given):
        return "must be a dict such as {'key': os.environ['SMS_KEY']}"
    if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in given):
        return "must have names of letters, digits and _, which can be placeholders"
    clash = [name for name in given if name in PLACEHOLDERS]
    return f"must not have the name {clash[0]!r}, which has a meaning of its own" if clash else ""


def _is_within(number: Any, least: float, most: float, *types: type) -> bool:
    return type(number) in (types or (int, float)) and least <= number <= most

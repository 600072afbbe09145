"""Requests as settings describe them: templates with placeholders, which no text can break out of.

What cannot be used raises ``WrongPart``, whose text says which part, and what it must be.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from string import Formatter
from typing import Any, TypeVar
from urllib.parse import quote
from xml.sax.saxutils import escape

from .conf import WrongPart
from .exceptions import InvalidRequest, InvalidSender
from .exchange import CANNOT_BE_WRITTEN, json_body
from .shapes import is_list, is_object

Values = Mapping[str, Any]
_T = TypeVar("_T")

#: The bodies that a request may have, and their types; that of a form comes with the form.
BODIES = {
    "json": "application/json; charset=utf-8",
    "form": "",
    "text": "text/plain; charset=utf-8",
    "xml": "text/xml; charset=utf-8",
}
PARTS = ("url", "method", "headers", "basic", *BODIES)
METHODS = ("GET", "POST", "PUT", "PATCH")
#: What may stand in an address, because proxies and servers keep addresses in their logs.
IN_ADDRESSES = ("reference", "gateway_id")

#: What people write who may not be the site's own, without escapes.
WRITTEN = {"text", "sender"}

_IN_HEADERS = re.compile("[ -~]*")
_NOT_IN_XML = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_XML_MARKS = {'"': "&quot;", "'": "&apos;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}


def read(name: str, make: Callable[..., _T], *arguments: Any) -> _T:
    """Return what ``make`` makes of a setting; a ``WrongPart`` that it raises names the setting."""
    try:
        return make(*arguments)
    except WrongPart as error:
        between = ": " if str(error).startswith("'") else " "
        raise WrongPart(f"{name!r}{between}{error}") from None


class Template:
    """A text with placeholders such as ``{to}``; ``{{`` and ``}}`` stand for braces.

    :param known: the placeholders that may occur
    """

    def __init__(self, text: Any, known: Iterable[str]) -> None:
        if not isinstance(text, str):
            raise WrongPart("must be text")
        try:
            parts = list(Formatter().parse(text))
        except ValueError:
            raise WrongPart("has a brace too much or too few; write {{ and }} for braces") from None
        self.parts = [(literal, name) for literal, name, *_ in parts]
        self.names = {name for _, name in self.parts if name is not None}
        known = list(known)
        wrong = [name for name in sorted(self.names) if name not in known]
        if wrong or any(spec or conversion for *_, spec, conversion in parts):
            listed = ", ".join(f"{{{name}}}" for name in known) or "none"
            unknown = ", ".join(f"{{{name}}}" for name in wrong) or "with a format"
            raise WrongPart(f"has an unknown placeholder, {unknown}; known here: {listed}")

    def render(self, values: Values, quoted: Callable[[str], str] = str) -> Any:
        """Return the text; a placeholder that stands alone keeps the type of its value."""
        if len(self.parts) == 1 and not self.parts[0][0] and self.parts[0][1] is not None:
            value = values[self.parts[0][1]]
            return quoted(value) if isinstance(value, str) else value
        return "".join(
            literal + ("" if name is None else quoted(str(values[name])))
            for literal, name in self.parts
        )


def tree(given: Any, known: Iterable[str]) -> Any:
    """Return a JSON value with a template for each text in it."""
    if isinstance(given, str):
        return Template(given, known)
    if is_object(given) and all(isinstance(name, str) for name in given):
        return {name: read(name, tree, one, known) for name, one in given.items()}
    if isinstance(given, (list, tuple)):
        every: list[Any] = [*given]
        return [tree(one, known) for one in every]
    if given is None or isinstance(given, (bool, int, float)):
        return given
    raise WrongPart("may hold only text, numbers, True, False, None, lists and dicts")


def flat(given: Any, known: Iterable[str]) -> Any:
    """Return a template for each field of a form, or for each header."""
    if not is_object(given) or not all(isinstance(name, str) for name in given):
        raise WrongPart("must be a dict of texts")
    return {name: read(name, Template, one, known) for name, one in given.items()}


def filled(node: Any, values: Values) -> Any:
    """Return the tree with its templates rendered. A field is left out where a placeholder of its
    has no value, such as the sender."""
    if isinstance(node, Template):
        return node.render(values)
    if is_object(node):
        return {
            name: filled(one, values)
            for name, one in node.items()
            if not (isinstance(one, Template) and any(values[name] == "" for name in one.names))
        }
    return [filled(one, values) for one in node] if is_list(node) else node


def names_in(node: Any) -> set[str]:
    """Return the placeholders that occur in a tree."""
    if isinstance(node, Template):
        return node.names
    inner = node.values() if is_object(node) else node if is_list(node) else ()
    return set[str]().union(*map(names_in, inner))


class Call:
    """A request as settings describe it.

    :param given: what they say, by the names of ``PARTS``
    :param known: the placeholders that may occur in its headers and body
    :param in_body: those that may occur in the body alone
    """

    def __init__(
        self, given: Mapping[str, Any], known: Iterable[str], in_body: Iterable[str] = ()
    ) -> None:
        known = list(known)
        bodies = [name for name in BODIES if given.get(name) is not None]
        if len(bodies) > 1:
            raise WrongPart(f"{bodies[0]!r} and {bodies[1]!r} cannot both be the body: keep one")
        self.kind = "".join(bodies)
        self.method = given.get("method") or ("POST" if bodies else "GET")
        if self.method not in METHODS:
            raise WrongPart(f"'method' must be one of {', '.join(METHODS)}")
        in_address = [name for name in known if name in IN_ADDRESSES]
        self.url = read("url", Template, given.get("url"), in_address)
        self.headers = read("headers", flat, given.get("headers") or {}, known)
        self.basic = read("basic", Template, given.get("basic") or "", known)
        make = {"json": tree, "form": flat}.get(self.kind, Template)
        self.body = read(self.kind, make, given[self.kind], [*known, *in_body]) if bodies else None
        if (
            isinstance(self.body, Template)
            and self.kind == "text"
            and len(self.body.parts) > 1
            and self.body.names & WRITTEN
        ):
            raise WrongPart(
                "'text' has no escapes, so that {text} and {sender} may stand in it only alone; "
                "write {text_url} or {text_hex}, or use 'form' or 'json'"
            )

    @property
    def names(self) -> set[str]:
        return names_in([self.headers, self.basic, self.body])

    def refuse_in_headers(self, secrets: Values) -> None:
        """Refuse a secret in a header that cannot hold its value."""
        for name in sorted(names_in(self.headers) & secrets.keys()):
            if not _IN_HEADERS.fullmatch(str(secrets[name])):
                raise WrongPart(
                    f"'headers' cannot hold the value of {name!r}: only ASCII can stand there"
                )

    def parts(self, values: Values) -> dict[str, Any]:
        """Return what :class:`~django_smska.exchange.Request` needs. Raises ``SmsNotSent`` for what
        cannot be written."""
        headers = {"Content-Type": BODIES[self.kind]} if BODIES.get(self.kind) else {}
        headers |= {name: _header(text) for name, text in filled(self.headers, values).items()}
        if self.basic.parts:
            login = str(self.basic.render(values)).encode()
            headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        url = self.url.render(values, lambda text: quote(text, safe=""))
        return {"url": url, "method": self.method, "headers": headers, "body": self._body(values)}

    def _body(self, values: Values) -> bytes | dict[str, str]:
        if self.kind == "json":
            return json_body(filled(self.body, values))
        if self.kind == "form":
            return {name: str(text) for name, text in filled(self.body, values).items()}
        if self.body is None:
            return b""
        text = self.body.render(values, _in_xml if self.kind == "xml" else str)
        try:
            return str(text).encode()
        except UnicodeError:  # its own text quotes the message
            raise InvalidRequest(CANNOT_BE_WRITTEN, code="text") from None


def _header(text: Any) -> str:
    if not _IN_HEADERS.fullmatch(str(text)):  # of all values only a sender can be such
        raise InvalidSender(code="header")
    return str(text)


def _in_xml(text: str) -> str:
    """Return text as it may stand in an element or an attribute."""
    if _NOT_IN_XML.search(text):
        raise InvalidRequest(CANNOT_BE_WRITTEN, code="text")
    return escape(text, _XML_MARKS)

"""Canaries: a login, a password, a text with a code and a number that occur nowhere else, in every
spelling, and what an error tracker, a debug page or an error mail shows of an error.

They are put together here, because a traceback quotes the source of its frames.
"""

import base64
import html
import json
import logging
import pickle
import re
import traceback
from contextlib import contextmanager
from urllib.parse import quote, quote_plus

from django.db import connection
from django.test import RequestFactory, override_settings
from django.utils.log import AdminEmailHandler
from django.views.debug import technical_500_response

LOGIN = "-".join(("kenar", "log", "5f1c"))
PASSWORD = "+".join(("Кенар", "pa&ss", "%41w0rd"))
CODE = "-".join(("7K29", "QXWM"))
TEXT = f"Канарейка {'в'} тексте, код {CODE}. <b>Никому</b>"
NUMBER = "+7" + "916" + "0352847"  # no example of a page has it
NATIONAL = NUMBER[2:]
CANARIES = {
    "login": LOGIN,
    "password": PASSWORD,
    "text": TEXT[:20],
    "code": CODE,
    "number": NATIONAL,
}


def found(shown):
    """Return the names of the canaries in ``shown``, a text or bytes, in any spelling."""
    if isinstance(shown, str):
        shown = shown.encode(errors="surrogatepass")
    shown = re.sub(rb"(?<=\d)[ ()\-]{1,2}(?=\d)", b"", shown) + shown  # a number with blanks
    return {name for name, one in SPELLINGS.items() if any(spelling in shown for spelling in one)}


def _spellings(canary):
    plain = canary.encode()
    texts = [
        quote(canary),
        quote_plus(canary),
        html.escape(canary),
        json.dumps(canary)[1:-1],
        ascii(canary)[1:-1],
        repr(plain)[2:-1],
        plain.hex(),
        *(base64.b64encode(b" " * pad + plain).decode()[4:-4] for pad in range(3)),
    ]
    both = [plain, canary.encode("utf-16-le"), canary.encode("windows-1251", "replace")]
    return {*both, *(text.encode() for text in texts)}


SPELLINGS = {name: _spellings(canary) for name, canary in CANARIES.items()}


# --- what is shown of an error --------------------------------------------------------------------


def chain(error):
    """Return the error and all that hang on it, also those that Python does not print."""
    seen, waiting = [], [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseException) and not any(one is other for other in seen):
            seen.append(one)
            waiting += [one.__cause__, one.__context__, *getattr(one, "refused", ()), *one.args]
            waiting += getattr(one, "error_list", [])
    return seen


def words(error):
    return "".join(f"{one!r} {one} {one.args} {vars(one)}" for one in chain(error))


def traceback_with_locals(error):
    frames = [frame for one in chain(error) for frame, _ in traceback.walk_tb(one.__traceback__)]
    shown = [f"{name} = {_repr(value)}" for one in frames for name, value in one.f_locals.items()]
    lines = [line for one in chain(error) for line in traceback.format_exception(one)]
    return "\n".join([*lines, *shown])


def _repr(value):
    try:
        return repr(value)
    except Exception as error:  # a queryset of a subquery has none
        return f"<{type(error).__name__}: {error}>"


def pickled(error):
    return b"".join(pickle.dumps(one) for one in chain(error) if _is_public(one))


def _is_public(error):
    return type(error).__module__.startswith("django")


@override_settings(DEBUG=True)
def debug_page(error):
    pages = [
        technical_500_response(
            RequestFactory().get("/", headers={"accept": accepts}),
            type(error),
            error,
            error.__traceback__,
        )
        for accepts in ("text/html", "text/plain")
    ]
    return b"".join(page.content for page in pages)


class _Mail(AdminEmailHandler):
    """Keeps what Django would mail to ADMINS."""

    def send_mail(self, subject, message, *args, html_message=None, **kwargs):
        self.written = f"{subject}\n{message}\n{html_message}"


@override_settings(DEBUG=False, ADMINS=["boss@example.org"])
def error_mail(error):
    record = logging.LogRecord("django.request", logging.ERROR, "", 0, "It failed", (), None)
    record.exc_info = (type(error), error, error.__traceback__)
    record.request, record.status_code = RequestFactory().get("/"), 500
    handler = _Mail(include_html=True)
    handler.emit(record)
    return handler.written


def sentry_event(error):
    """Return what Sentry's SDK sends of an error, with all that it can record."""

    with _sentry() as (scope, sent):
        scope.capture_exception(error)
    return "".join(sent)


@contextmanager
def _sentry():
    from sentry_sdk import Client, new_scope
    from sentry_sdk.transport import Transport

    class Capturing(Transport):
        def capture_envelope(self, envelope):
            sent.append(envelope.serialize().decode())

    sent = []
    client = Client(
        dsn="http://key@127.0.0.1/1",
        transport=Capturing,
        default_integrations=False,
        auto_enabling_integrations=False,
        include_local_variables=True,
        max_value_length=1_000_000,
    )
    with new_scope() as scope:
        scope.set_client(client)
        yield scope, sent
        client.flush()
    client.close()


# --- what is shown of all the rest ----------------------------------------------------------------


def dump():
    """Return every stored value by table and column, of all tables of the database."""
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            columns = [column[0] for column in cursor.description]
            for row in cursor.fetchall():
                for column, value in zip(columns, row, strict=True):
                    yield (table, column), value if isinstance(value, bytes) else str(value)

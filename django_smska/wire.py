"""One HTTP request, by phase, to any provider. It does not use Django's settings.

Whether the provider may have accepted a message is decided by *phase*, never by the class of an
exception: until :meth:`Attempt.begin` has run, nothing was written and the message was not
accepted; after it, only a complete and understood answer decides, and all else is unknown.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from http.client import HTTPResponse
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from . import __version__, log_fields, monotonic, tracing
from .exceptions import (
    GatewayUnreachable,
    InvalidRequest,
    QueryFailed,
    SmsError,
    SmsOutcomeUnknown,
)
from .exchange import CANNOT_BE_WRITTEN, Answer, Request
from .numbers import mask
from .receipts import Receipt, Report
from .redact import PIECE_CHARACTERS, contained, repeats, withhold
from .unreachable import cause_of, unreachable

logger = logging.getLogger(__name__)

STALE_SECONDS = 1.0  # the silence after which the peer may have ended the connection
QUERY_DEADLINE_SECONDS = 10.0  # less than for a send, since a query leaves no doubt
ANSWER_LIMIT_BYTES = 64 * 1024  # of head and body together; a real answer has a few hundred
SPOKE, HUNG_UP = "spoke-first", "hung-up"

# --- one attempt, by phase ----------------------------------------------------------------------


class _Aborted(Exception):
    """Raised inside requests before the first byte; not an OSError, which urllib3 would retry."""


class _Watchdog:
    """Ends attempts that outlive their deadline, in one thread while there is any.

    A read timeout alone does not end an answer that comes a byte now and then.
    """

    STEP_SECONDS = 0.05  # between two checks
    IDLE_STEPS = 40  # without an attempt before the thread ends

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all attempts, as in a new process."""
        self._lock = threading.Lock()
        self._attempts: dict[Attempt, float] = {}
        self._thread: threading.Thread | None = None

    def watch(self, attempt: Attempt, deadline: float) -> None:
        with self._lock:
            self._attempts[attempt] = monotonic.now() + deadline
            # A fork has copied the attribute, and not the thread.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._look, daemon=True)
                self._thread.start()

    def left(self, attempt: Attempt) -> float:
        """Return the seconds that the attempt has left, above 0."""
        with self._lock:
            return max(self._attempts.get(attempt, 0) - monotonic.now(), 0.001)

    def forget(self, attempt: Attempt) -> float:
        """Return the seconds that the attempt had left."""
        now = monotonic.now()
        with self._lock:
            return self._attempts.pop(attempt, now) - now

    def _look(self) -> None:
        idle = 0
        while idle < self.IDLE_STEPS:
            time.sleep(self.STEP_SECONDS)
            now = monotonic.now()
            with self._lock:
                idle = 0 if self._attempts else idle + 1
                late = [attempt for attempt, end in self._attempts.items() if end <= now]
                for attempt in late:
                    del self._attempts[attempt]
                if idle == self.IDLE_STEPS:
                    self._thread = None
            for attempt in late:
                attempt.expire()


watchdog = _Watchdog()
if hasattr(os, "register_at_fork"):
    # A fork may come while another thread holds the lock.
    os.register_at_fork(after_in_child=watchdog.reset)


class Attempt:
    """One request, and which phase it is in.

    The socket is watched by a duplicate of its descriptor, since TLS detaches the original during
    the handshake; ``shutdown()`` on the duplicate ends every read and write on both.
    """

    def __init__(self, deadline: float, keep_alive: float, before_first_byte: Callable[[], Any]):
        self.keep_alive = keep_alive
        self.begun = False
        self.mocked = False
        self.expired = False
        self.error: BaseException | None = None
        self.heard = ""
        self.proxy = ""  # the error's code while the proxy is being connected to
        self.incoming: _Incoming | None = None
        self._borrowed: list[tuple[Any, Any]] = []
        self._deadline = deadline
        self._before_first_byte = before_first_byte
        self._lock = threading.Lock()
        self._lines: list[socket.socket] = []

    def __enter__(self) -> Attempt:
        watchdog.watch(self, self._deadline)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.give_back(None)
        if self.incoming is not None:  # urllib3 leaves it open after some errors
            self.incoming.close()
        watchdog.forget(self)
        with self._lock:
            for line in self._lines:
                line.close()
            self._lines.clear()

    def watch(self, sock: socket.socket) -> None:
        with self._lock:
            # An SSLSocket refuses dup(); its descriptor does not.
            self._lines.append(socket.socket(fileno=os.dup(sock.fileno())))
        if self.expired:
            self.expire()

    def keep(self, pool: Any, conn: Any) -> None:
        """Hold a connection that urllib3 is done with, until the answer is understood."""
        self._borrowed.append((pool, conn))

    def give_back(self, receipt_id: str | None) -> None:
        """Return the connection to the pool if its answer was complete and understood.

        :param receipt_id: the answer's id, empty for other answers, ``None`` where the answer was
            not understood. Then the connection is closed, because a late answer on it would be read
            as the answer to the next request.
        """
        for pool, conn in self._borrowed:
            if conn is not None:
                if receipt_id is None or (receipt_id and receipt_id == conn.last_id):
                    conn.close()
                conn.last_id = receipt_id or ""
            pool.put_back(conn)
        self._borrowed.clear()

    def repeats_id(self, receipt_id: str) -> bool:
        """Return whether this connection has given this id for the message before."""
        return any(conn is not None and receipt_id == conn.last_id for _, conn in self._borrowed)

    def begin(self, conn: _PhasedConnection) -> None:
        """Announce the first byte on a connection that stands.

        Data that came before the request was written cannot be its answer. A fresh connection on
        which the other side speaks first is given up, and a kept one is replaced. So is one on
        which permission was slow, because the gateway may have hung up.
        """
        if self.begun:
            return
        asked = monotonic.now()
        self._ask_permission()
        late = monotonic.now() - asked > STALE_SECONDS
        heard = conn.heard()
        if (late and heard != SPOKE) or (heard and conn.kept):
            conn.connect_again()
            heard = conn.heard()
        self.heard = heard
        if heard:
            raise _Aborted
        self._abort_if_expired()
        self.begun = True

    def begin_without_connection(self) -> None:
        """Announce the first byte to a test's mock, which answers in place of a connection."""
        self._ask_permission()
        self.begun = self.mocked = True

    def _ask_permission(self) -> None:
        """Call the hook. Its time does not count, because the deadline is the gateway's."""
        self._abort_if_expired()
        left = watchdog.forget(self)
        try:
            self._before_first_byte()
        except BaseException as error:
            self.error = error
            raise _Aborted from None
        finally:
            watchdog.watch(self, left)

    def _abort_if_expired(self) -> None:
        if self.expired:
            raise _Aborted

    def expire(self) -> None:
        self.expired = True
        with self._lock:
            for line in self._lines:
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)


_current: ContextVar[Attempt] = ContextVar("django_smska_attempt")


class AnswerTooLong(Exception):
    """More came than any answer of a gateway has."""


class _Incoming(io.RawIOBase):
    """The bytes of one answer, head and body together, at most ``ANSWER_LIMIT_BYTES`` of them.

    http.client alone accepts a hundred header lines of 64 KiB, and interim answers, chunks and
    trailers without end.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._left = ANSWER_LIMIT_BYTES
        self.ended = False  # the other side has ended it
        self.more = False  # something came behind the answer
        self._read_whole = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._read_whole:
            return 0
        count: int = self._raw.readinto(buffer)
        self.ended = count == 0
        self._left -= count
        if self._left < 0:
            raise AnswerTooLong
        return count

    def note_more(self, reader: io.BufferedReader) -> None:
        """Note what the reader still has when the answer is at its end."""
        self._read_whole = True
        self.more = bool(reader.peek(1))

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Reader(io.BufferedReader):
    """http.client closes it behind the last byte of the answer, and drops what else it holds."""

    def close(self) -> None:
        if not self.closed:
            self.raw.note_more(self)  # type: ignore[attr-defined]
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        attempt = _current.get()
        attempt.incoming = _Incoming(self.fp.detach())
        self.fp = _Reader(attempt.incoming)


class _NoHeaderWarnings(logging.Filter):
    """Drop urllib3's warnings about headers, which quote what the gateway repeats."""

    def filter(self, record: logging.LogRecord) -> bool:
        return _current.get(None) is None or record.levelno < logging.WARNING


logging.getLogger("urllib3.connection").addFilter(_NoHeaderWarnings())
# Its lines at DEBUG have the whole address, in which a provider may want the number.
logging.getLogger("urllib3.connectionpool").addFilter(lambda record: _current.get(None) is None)


class _PhasedConnection:
    """A connection that connects first, then announces the first byte, then writes."""

    sock: Any
    proxy: Any
    port: Any
    timeout: Any
    socket_options: Any
    _dns_host: Any
    response_class: Any = _Response
    _tunnel_host: str | None
    # http.client prints whole requests where a program has set this for all its connections.
    debuglevel = 0
    _connecting = False
    idle_since = 0.0
    kept = False  # it has carried a request before
    last_id = ""  # the id that it gave last

    def connect(self) -> None:
        self._connecting = True
        self.kept = False
        try:
            super().connect()  # type: ignore[misc]
        finally:
            self._connecting = False

    def _new_conn(self) -> socket.socket:
        attempt = _current.get()
        attempt.proxy = "connect-proxy" if self.proxy else ""
        sock = self._connected(attempt)
        attempt.watch(sock)
        attempt.proxy = "connect-tunnel" if self._tunnel_host else ""
        return sock

    def _connected(self, attempt: Attempt) -> socket.socket:
        """Connect to the first address that answers.

        urllib3 gives each of them the whole timeout, and a name may have many that are silent.
        """
        failed = OSError("the name has no address")
        for family, kind, protocol, _, address in self._addresses():
            sock = None
            try:
                sock = socket.socket(family, kind, protocol)  # raises where there is no IPv6
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(min(self.timeout, watchdog.left(attempt)))
                sock.connect(address)
                return sock
            except OSError as error:
                if sock is not None:
                    sock.close()
                failed = error
        try:
            raise failed
        finally:
            del failed  # its frames lead to it

    def _addresses(self) -> list[Any]:
        return socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)

    def _tunnel(self) -> None:
        super()._tunnel()  # type: ignore[misc]
        _current.get().proxy = ""

    def send(self, data: Any) -> None:
        # A proxy's CONNECT also passes here, while connecting: it carries no message.
        if not self._connecting:
            if self.sock is None:
                self.connect()
            _current.get().begin(self)
        super().send(data)  # type: ignore[misc]

    def connect_again(self) -> None:
        # close() would also forget the request that is being written.
        self.sock.close()
        self.connect()

    def heard(self) -> str:
        """Return what the other side has done unasked: ``SPOKE``, ``HUNG_UP``, or "".

        It reads instead of polling, because over TLS the session's tickets also make the socket
        readable.
        """
        timeout = self.sock.gettimeout()
        self.sock.settimeout(0)
        try:
            return SPOKE if self.sock.recv(1) else HUNG_UP
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError, TimeoutError):
            return ""
        except OSError:
            return HUNG_UP
        finally:
            self.sock.settimeout(timeout)


class PhasedHTTPConnection(_PhasedConnection, HTTPConnection):
    pass


class PhasedHTTPSConnection(_PhasedConnection, HTTPSConnection):
    pass


if TYPE_CHECKING:
    _Pool = HTTPConnectionPool
else:
    _Pool = object


class _FreshPool(_Pool):
    """Reuse a connection only while it is fresh.

    On one that the gateway has closed, "accepted" and "not accepted" look the same.
    """

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn = cast(Any, super()._get_conn(timeout))
        attempt = _current.get()
        if conn.sock is not None:
            if monotonic.now() - conn.idle_since >= attempt.keep_alive:
                conn.close()
            else:
                attempt.watch(conn.sock)
        return conn

    def _put_conn(self, conn: Any) -> None:
        _current.get().keep(self, conn)

    def put_back(self, conn: Any) -> None:
        if conn is not None:
            conn.idle_since, conn.kept = monotonic.now(), True
        super()._put_conn(conn)


class HTTPPool(_FreshPool, HTTPConnectionPool):
    ConnectionCls = cast(Any, PhasedHTTPConnection)


class HTTPSPool(_FreshPool, HTTPSConnectionPool):
    ConnectionCls = cast(Any, PhasedHTTPSConnection)


class PhasedAdapter(HTTPAdapter):
    """requests' adapter over the two pools; ``max_retries`` stays 0: a retry is a second SMS."""

    pools: dict[str, Any] = {"http": HTTPPool, "https": HTTPSPool}

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self.pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = self.pools
        return manager


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Ignore redirects, of which requests would read the whole body even without following."""
        return None


_T = TypeVar("_T")


# --- the wire -----------------------------------------------------------------------------------


class Wire:
    """The way to one provider; threads may share it.

    :param connect_timeout: seconds for each address tried and each step of a TLS handshake
    :param deadline: seconds for connection, request and answer together, however slowly the other
        side answers, and however many addresses its name has. Only the lookup of the name may
        outlast it. The time inside ``before_first_byte`` is not counted, because the provider is
        not at fault for it.
    :param keep_alive: seconds for which an idle connection may be used again, 0 for never. A kept
        connection on which something comes unasked is not used again. 0 also guards against a
        gateway that answers twice, the second time while the next request is on its way: the second
        answer would count as the next one's.
    :param proxy: ``http://host:port`` or ``None``; the environment's proxies and ``.netrc`` are
        ignored
    :param ca_bundle: path of a file of CA certificates, or ``None`` for requests' own
    :param pool_size: connections kept for threads
    """

    def __init__(
        self,
        *,
        connect_timeout: float = 10,
        deadline: float = 20,
        keep_alive: float = 1,
        proxy: str | None = None,
        ca_bundle: str | None = None,
        pool_size: int = 64,
    ) -> None:
        self.connect_timeout = connect_timeout
        self.deadline = deadline
        self.keep_alive = keep_alive
        self._through = f" (proxy {_host_and_port(proxy)})" if proxy else ""
        self._session = _session(proxy, ca_bundle, pool_size, close=not keep_alive)
        del proxy
        self._prepared: tuple[tuple[str, str], Any] = (("", ""), None)

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def exchange(
        self,
        request: Request,
        read: Callable[[Answer], _T | SmsError],
        before_first_byte: Callable[[], Any] = lambda: None,
        deadline: float = math.inf,
    ) -> _T | SmsError:
        """Make exactly one request, and return what ``read`` makes of the answer to it.

        Errors about the message are returned, so that the caller raises them from a frame that
        holds no secret. Any other exception (``SystemExit``, a timeout by signal) is raised without
        the frames that it left.

        :param before_first_byte: called once, when the connection stands and nothing is written;
            what it raises ends the attempt unsent and is raised
        :param deadline: seconds, where that is less than the wire's own
        """
        attempt = Attempt(min(self.deadline, deadline), self.keep_alive, before_first_byte)
        result = contained(lambda: self._outcome(attempt, request, read))
        if isinstance(result, SmsError) or not isinstance(result, BaseException):
            return result
        raise result

    def query(self, request: Request, read: Callable[[Answer], _T | SmsError]) -> _T | SmsError:
        """Make a request that sends nothing, so that no doubt can come of it."""
        result = self.exchange(request, read, deadline=QUERY_DEADLINE_SECONDS)
        if isinstance(result, SmsOutcomeUnknown):
            return QueryFailed(code=result.code, gateway_text=result.gateway_text)
        return result

    def _outcome(
        self, attempt: Attempt, asked: Request, read: Callable[[Answer], _T | SmsError]
    ) -> _T | SmsError:
        result = self._redacted(self._answer(attempt, asked, read), asked)
        whose = f" to {mask('+' + asked.number)}" if asked.name == "send" else ""
        extra = log_fields.of_provider(None, getattr(result, "code", ""))
        logger.debug("%s%s: %s", asked.name, whose, _brief(result), extra=extra)
        return result

    def _answer(
        self, attempt: Attempt, asked: Request, read: Callable[[Answer], _T | SmsError]
    ) -> _T | SmsError:
        try:
            request = self._prepare(asked)
        except UnicodeError:  # half of a surrogate pair; the error's text quotes the message
            return InvalidRequest(CANNOT_BE_WRITTEN, code="text")
        with attempt:
            answer = self._exchange(attempt, request)
            result: Any = read(answer) if isinstance(answer, Answer) else answer
            if isinstance(result, Receipt):
                result = _checked(result, attempt, asked)
            if isinstance(answer, Answer) and _is_clean(attempt, answer, result):
                attempt.give_back(result.gateway_id if isinstance(result, Receipt) else "")
        return result  # type: ignore[no-any-return]

    def _prepare(self, asked: Request) -> requests.PreparedRequest:
        """Return it as requests wants it, which takes long to read an address: the last is kept."""
        address, prepared = self._prepared
        if address != (asked.method, asked.url):
            prepared = self._session.prepare_request(requests.Request(asked.method, asked.url))
            self._prepared = (asked.method, asked.url), prepared
        request = cast(Any, prepared.copy())
        request.headers.update(asked.headers)
        request.prepare_body(asked.body, None)
        return request  # type: ignore[no-any-return]

    def _redacted(self, result: _T | SmsError, asked: Request) -> _T | SmsError:
        """Withhold secrets that the provider repeats, in each text that is stored or shown."""
        if isinstance(result, GatewayUnreachable):
            result.address = self._address(asked.url)
        if isinstance(result, SmsError):
            result.gateway_text = withhold(result.gateway_text, asked.secrets, asked.number)
        elif isinstance(result, Report):
            words = withhold(result.raw, asked.secrets, asked.number)
            return replace(result, raw=words)
        return result

    def _address(self, url: str) -> str:
        return _host_and_port(url) + self._through

    def _exchange(self, attempt: Attempt, request: requests.PreparedRequest) -> Answer | SmsError:
        """Make the request; its phase decides what a failure means."""
        answer, raised = None, None
        token = _current.set(attempt)
        try:
            with tracing.without_http_spans():
                answer = self._post(attempt, request)
        except Exception as error:  # http.client and urllib3 leak a few classes of their own
            raised = error
        finally:
            _current.reset(token)
        if attempt.error is not None:
            raise attempt.error
        # The watchdog's shutdown looks like the end of a body without a length.
        if answer is not None and (answer.framed or not attempt.expired):
            return answer
        return self._failure(attempt, raised, request)

    def _failure(
        self, attempt: Attempt, error: Exception | None, request: requests.PreparedRequest
    ) -> SmsError:
        if attempt.begun:
            lost = f"lost-{type(error).__name__}"[:32]
            return SmsOutcomeUnknown(code="deadline" if attempt.expired else lost)
        code = attempt.heard or attempt.proxy or cause_of(error)
        address = self._address(request.url or "")
        return unreachable("deadline" if attempt.expired else code, address)

    def _post(self, attempt: Attempt, request: requests.PreparedRequest) -> Answer:
        response = self._session.send(
            request,
            timeout=(self.connect_timeout, self.deadline),
            allow_redirects=False,
            stream=True,
        )
        with contextlib.closing(response):
            return _read(response, attempt)


def _checked(receipt: Receipt, attempt: Attempt, asked: Request) -> Receipt | SmsOutcomeUnknown:
    """Return the receipt with its id, if that is the provider's own and new."""
    gateway_id = receipt.gateway_id
    if gateway_id and attempt.repeats_id(gateway_id):
        return SmsOutcomeUnknown(code="repeated-id", gateway_text=gateway_id)
    secrets = [*asked.secrets, asked.number]
    long = [
        secret for secret in secrets if len(secret) >= PIECE_CHARACTERS
    ]  # shorter ones match by chance
    if gateway_id in secrets or repeats(gateway_id, long):
        return replace(receipt, gateway_id="")
    return receipt


def _is_clean(attempt: Attempt, answer: Answer, result: Any) -> bool:
    """Return whether it is one whole answer that was understood: then no more follows on it."""
    confused = isinstance(result, (SmsOutcomeUnknown, QueryFailed))
    more = attempt.expired or attempt.incoming is None or attempt.incoming.more
    success = 200 <= answer.status < 300
    return success and answer.framed and not confused and not more


def _session(
    proxy: str | None, ca_bundle: str | None, pool_size: int, *, close: bool
) -> requests.Session:
    session = _Session()
    session.trust_env = False
    session.verify = ca_bundle or True
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.update(
        {"User-Agent": f"django-smska/{__version__}", "Accept-Encoding": "identity"}
    )
    if close:
        session.headers["Connection"] = "close"
    if proxy:
        session.proxies = {"http": proxy, "https": proxy}
    for scheme in ("http://", "https://"):
        session.mount(scheme, PhasedAdapter(pool_maxsize=pool_size))
    return session


def _read(response: requests.Response, attempt: Attempt) -> Answer:
    """Read the body as it was sent."""
    if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
        raise ValueError("an encoded body was not requested")
    raw = response.raw
    announced = raw.chunked or raw.length_remaining is not None
    pieces = iter(lambda: raw.read(io.DEFAULT_BUFFER_SIZE, decode_content=False), b"")
    body = b"".join(pieces)
    # "0" ends chunks, and may be the beginning of "0f".
    cut = attempt.incoming is not None and attempt.incoming.ended
    return Answer(response.status_code, body, announced and not cut)


def _host_and_port(url: str) -> str:
    """Return host and port, because an address may hold a login."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def _brief(result: Any) -> str:
    return f"{type(result).__name__} {result.code}" if isinstance(result, SmsError) else "ok"

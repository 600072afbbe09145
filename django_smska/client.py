"""A client of SMS-ka: one request, by phase. It does not use Django's settings.

Whether the gateway may have accepted a message is decided by *phase*, never by the class of an
exception: until :meth:`_Attempt.begin` has run, nothing was written and the message was not
accepted; after it, only a complete and understood line decides, and all else is unknown.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from decimal import Decimal
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from . import __version__
from .exceptions import (
    GatewayUnreachable,
    InvalidRequest,
    QueryFailed,
    SmsError,
    SmsOutcomeUnknown,
)
from .numbers import mask
from .protocol import (
    CANNOT_BE_WRITTEN,
    Answer,
    read_balance_answer,
    read_send_answer,
    read_status_answer,
)
from .receipts import Receipt, Report
from .redact import PIECE_CHARACTERS, Hidden, contained, repeats, withhold
from .unreachable import cause_of, unreachable

logger = logging.getLogger(__name__)

STALE_SECONDS = 1.0  # the silence after which the peer may have ended the connection
QUERY_DEADLINE_SECONDS = 10.0  # less than for a send, since a query leaves no doubt
BODY_LIMIT_BYTES = 64 * 1024  # a real answer has under a hundred
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
        self._attempts: dict[_Attempt, float] = {}
        self._thread: threading.Thread | None = None

    def watch(self, attempt: _Attempt, deadline: float) -> None:
        with self._lock:
            self._attempts[attempt] = time.monotonic() + deadline
            # A fork has copied the attribute, and not the thread.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._look, daemon=True)
                self._thread.start()

    def forget(self, attempt: _Attempt) -> float:
        """Return the seconds that the attempt had left."""
        now = time.monotonic()
        with self._lock:
            return self._attempts.pop(attempt, now) - now

    def _look(self) -> None:
        idle = 0
        while idle < self.IDLE_STEPS:
            time.sleep(self.STEP_SECONDS)
            now = time.monotonic()
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


class _Attempt:
    """One request, and which phase it is in.

    The socket is watched by a duplicate of its descriptor, since TLS detaches the original during
    the handshake; ``shutdown()`` on the duplicate ends every read and write on both.
    """

    def __init__(self, deadline: float, keep_alive: float, before_first_byte: Callable[[], Any]):
        self.keep_alive = keep_alive
        self.begun = False
        self.expired = False
        self.error: BaseException | None = None
        self.heard = ""
        self.proxy = ""  # the error's code while the proxy is being connected to
        self._borrowed: list[tuple[Any, Any]] = []
        self._deadline = deadline
        self._before_first_byte = before_first_byte
        self._lock = threading.Lock()
        self._lines: list[socket.socket] = []

    def __enter__(self) -> _Attempt:
        watchdog.watch(self, self._deadline)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.give_back(None)
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
        self._abort_if_expired()
        asked = time.monotonic()
        try:
            self._ask_permission()
        except BaseException as error:
            self.error = error
            raise _Aborted from None
        late = time.monotonic() - asked > STALE_SECONDS
        heard = conn.heard()
        if (late and heard != SPOKE) or (heard and conn.kept):
            conn.connect_again()
            heard = conn.heard()
        self.heard = heard
        if heard:
            raise _Aborted
        self._abort_if_expired()
        self.begun = True

    def _ask_permission(self) -> None:
        """Call the hook. Its time does not count, because the deadline is the gateway's."""
        left = watchdog.forget(self)
        try:
            self._before_first_byte()
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


_current: ContextVar[_Attempt] = ContextVar("django_smska_attempt")


class _NoHeaderWarnings(logging.Filter):
    """Drop urllib3's warnings about headers, which quote what the gateway repeats."""

    def filter(self, record: logging.LogRecord) -> bool:
        return _current.get(None) is None or record.levelno < logging.WARNING


logging.getLogger("urllib3.connection").addFilter(_NoHeaderWarnings())


class _PhasedConnection:
    """A connection that connects first, then announces the first byte, then writes."""

    sock: Any
    proxy: Any
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
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        attempt.watch(sock)
        attempt.proxy = "connect-tunnel" if self._tunnel_host else ""
        return sock

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


class _PhasedHTTPConnection(_PhasedConnection, HTTPConnection):
    pass


class _PhasedHTTPSConnection(_PhasedConnection, HTTPSConnection):
    pass


class _FreshPool:
    """Reuse a connection only while it is fresh.

    On one that the gateway has closed, "accepted" and "not accepted" look the same.
    """

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn: Any = super()._get_conn(timeout)  # type: ignore[misc]
        attempt = _current.get()
        if conn.sock is not None:
            if time.monotonic() - conn.idle_since >= attempt.keep_alive:
                conn.close()
            else:
                attempt.watch(conn.sock)
        return conn

    def _put_conn(self, conn: Any) -> None:
        _current.get().keep(self, conn)

    def put_back(self, conn: Any) -> None:
        if conn is not None:
            conn.idle_since, conn.kept = time.monotonic(), True
        super()._put_conn(conn)  # type: ignore[misc]


class _HTTPPool(_FreshPool, HTTPConnectionPool):
    ConnectionCls = _PhasedHTTPConnection


class _HTTPSPool(_FreshPool, HTTPSConnectionPool):
    ConnectionCls = _PhasedHTTPSConnection


class _PhasedAdapter(HTTPAdapter):
    """requests' adapter over the two pools; ``max_retries`` stays 0: a retry is a second SMS."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
        return manager


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Ignore redirects, of which requests would read the whole body even without following."""
        return None


_T = TypeVar("_T", Receipt, Report, Decimal)


# --- the client ---------------------------------------------------------------------------------


class Gateway:
    """A client of one SMS-ka account; threads may share it.

    :param url: address of ``httppost.php``
    :param connect_timeout: seconds for each address tried and each step of a TLS handshake
    :param deadline: seconds for connection, request and answer together, however slowly the other
        side answers. The time inside ``before_first_byte`` is not counted, because the gateway is
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
        api_key: str,
        api_password: str,
        *,
        url: str,
        connect_timeout: float = 10,
        deadline: float = 30,
        keep_alive: float = 1,
        proxy: str | None = None,
        ca_bundle: str | None = None,
        pool_size: int = 64,
    ) -> None:
        self._login = Hidden(APIKey=api_key, APIPassword=api_password)
        del api_key, api_password
        self.url = url
        self.connect_timeout = connect_timeout
        self.deadline = deadline
        self.keep_alive = keep_alive
        self._address = _address(url, proxy)
        self._session = _session(proxy, ca_bundle, pool_size, close=not keep_alive)
        del proxy
        # Made once: only the body differs, and requests takes long to prepare one.
        self._request = self._session.prepare_request(requests.Request("POST", url))

    def __repr__(self) -> str:
        return f"<Gateway {self.url}>"

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def send(
        self,
        msisdn: str,
        text: str,
        sender: str,
        before_first_byte: Callable[[], Any] = lambda: None,
    ) -> Receipt | SmsError:
        """Send ``text`` to ``msisdn`` (``79XXXXXXXXX``), in exactly one request.

        ``before_first_byte`` is called once, when the connection stands and nothing is written;
        what it raises ends the attempt unsent and is raised. Errors about the message are
        returned, so that the caller raises them from a frame that holds no secret. Any other
        exception (``SystemExit``, a timeout by signal) is raised without the frames that it left.
        """
        asked = Hidden(
            form={"Message": text, "MSISDN": msisdn, "SenderID": sender},
            secrets=[text],
            number=msisdn,
        )
        del text, msisdn
        return self._ask("send", asked, read_send_answer, before_first_byte)

    def balance(self) -> Decimal | SmsError:
        """Query the credits left."""
        asked = Hidden(form={"Action": "balance"}, secrets=[], number="")
        return self._query("balance", asked, read_balance_answer)

    def status(self, gateway_id: str, *, text: str = "", msisdn: str = "") -> Report | SmsError:
        """Query the delivery status of the message with this id.

        :param text: the message's own, which is withheld where the answer repeats it
        :param msisdn: its number, likewise
        """
        form = {"Action": "query", "BatchId": gateway_id}
        asked = Hidden(form=form, secrets=[text], number=msisdn)
        del text, msisdn
        return self._query("query", asked, read_status_answer)

    def _query(
        self, name: str, asked: Hidden, read: Callable[[Answer], _T | SmsError]
    ) -> _T | SmsError:
        result = self._ask(name, asked, read, lambda: None, QUERY_DEADLINE_SECONDS)
        if isinstance(result, SmsOutcomeUnknown):
            return QueryFailed(code=result.code, gateway_text=result.gateway_text)
        return result

    def _ask(
        self,
        name: str,
        asked: Hidden,
        read: Callable[[Answer], _T | SmsError],
        hook: Callable[[], Any],
        most: float = math.inf,
    ) -> _T | SmsError:
        attempt = _Attempt(min(self.deadline, most), self.keep_alive, hook)
        result = contained(lambda: self._outcome(name, attempt, asked, read))
        if isinstance(result, SmsError) or not isinstance(result, BaseException):
            return result
        raise result

    def _outcome(
        self,
        name: str,
        attempt: _Attempt,
        asked: Hidden,
        read: Callable[[Answer], _T | SmsError],
    ) -> _T | SmsError:
        result = self._redacted(self._answer(attempt, asked, read), asked)
        whose = f" to {mask('+' + asked.number)}" if name == "send" else ""
        logger.debug("%s%s: %s", name, whose, _brief(result))
        return result

    def _answer(
        self, attempt: _Attempt, asked: Hidden, read: Callable[[Answer], _T | SmsError]
    ) -> _T | SmsError:
        try:
            request = self._request.copy()
            request.prepare_body({**vars(self._login), **asked.form}, None)
        except UnicodeError:  # half of a surrogate pair; the error's text quotes the message
            return InvalidRequest(CANNOT_BE_WRITTEN, code="text")
        with attempt:
            answer = self._exchange(attempt, request)
            result: Any = read(answer) if isinstance(answer, Answer) else answer
            if isinstance(result, Receipt):
                result = self._checked(result, attempt, asked)
            if isinstance(answer, Answer) and _is_clean(answer, result):
                attempt.give_back(result.gateway_id if isinstance(result, Receipt) else "")
        return result  # type: ignore[no-any-return]

    def _checked(
        self, receipt: Receipt, attempt: _Attempt, asked: Hidden
    ) -> Receipt | SmsOutcomeUnknown:
        """Return the receipt with its id, if that is the gateway's own and new."""
        gateway_id = receipt.gateway_id
        if gateway_id and attempt.repeats_id(gateway_id):
            return SmsOutcomeUnknown(code="repeated-id", gateway_text=gateway_id)
        secrets = [*self._secrets(asked), asked.number]
        long = [
            secret for secret in secrets if len(secret) >= PIECE_CHARACTERS
        ]  # shorter ones match by chance
        if gateway_id in secrets or repeats(gateway_id, long):
            return Receipt("", receipt.balance)
        return receipt

    def _redacted(self, result: _T | SmsError, asked: Hidden) -> _T | SmsError:
        """Withhold secrets that the gateway repeats, in each text that is stored or shown."""
        if isinstance(result, GatewayUnreachable):
            result.address = self._address
        if isinstance(result, SmsError):
            words = withhold(result.gateway_text, self._secrets(asked), asked.number)
            result.gateway_text = words
        elif isinstance(result, Report):
            words = withhold(result.raw, self._secrets(asked), asked.number)
            return Report(result.status, words)  # type: ignore[return-value]
        return result

    def _secrets(self, asked: Hidden) -> list[str]:
        return [self._login.APIKey, self._login.APIPassword, *asked.secrets]

    def _exchange(self, attempt: _Attempt, request: requests.PreparedRequest) -> Answer | SmsError:
        """Make the request; its phase decides what a failure means."""
        answer, raised = None, None
        token = _current.set(attempt)
        try:
            answer = self._post(request)
        except Exception as error:  # http.client and urllib3 leak a few classes of their own
            raised = error
        finally:
            _current.reset(token)
        if attempt.error is not None:
            raise attempt.error
        # The watchdog's shutdown looks like the end of a body without a length.
        if answer is not None and (answer.framed or not attempt.expired):
            return answer
        return self._failure(attempt, raised)

    def _failure(self, attempt: _Attempt, error: Exception | None) -> SmsError:
        if attempt.begun:
            lost = f"lost-{type(error).__name__}"[:32]
            return SmsOutcomeUnknown(code="deadline" if attempt.expired else lost)
        code = attempt.heard or attempt.proxy or cause_of(error)
        return unreachable("deadline" if attempt.expired else code, self._address)

    def _post(self, request: requests.PreparedRequest) -> Answer:
        response = self._session.send(
            request,
            timeout=(self.connect_timeout, self.deadline),
            allow_redirects=False,
            stream=True,
        )
        with contextlib.closing(response):
            return _read(response)


def _is_clean(answer: Answer, result: Any) -> bool:
    """Return whether it is one whole answer that was understood: then no more follows on it."""
    confused = isinstance(result, (SmsOutcomeUnknown, QueryFailed))
    return answer.status == 200 and answer.framed and not confused


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
        session.mount(scheme, _PhasedAdapter(pool_maxsize=pool_size))
    return session


def _read(response: requests.Response) -> Answer:
    """Read the body as it was sent, at most ``BODY_LIMIT_BYTES`` of it."""
    if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
        raise ValueError("an encoded body was not requested")
    raw = response.raw
    framed = raw.chunked or raw.length_remaining is not None
    body = b"".join(_chunks(raw))
    if len(body) > BODY_LIMIT_BYTES:
        raise ValueError("the answer is too long")
    return Answer(response.status_code, body, framed)


def _chunks(raw: Any) -> Iterator[bytes]:
    left = BODY_LIMIT_BYTES + 1
    while left > 0 and (data := raw.read(left, decode_content=False)):
        left -= len(data)
        yield data


def _address(url: str, proxy: str | None) -> str:
    """Return host and port, and the proxy's, because an address may hold a login."""
    through = f" (proxy {_address(proxy, None)})" if proxy else ""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}{through}"


def _brief(result: Any) -> str:
    return f"{type(result).__name__} {result.code}" if isinstance(result, SmsError) else "ok"

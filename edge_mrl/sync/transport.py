"""HTTP to one server: one connection that stays open; incomplete or damaged responses are not used.

It needs the standard library only. Redirects are not followed: the token is for the server that gave it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from edge_mrl._version import __version__
from edge_mrl.documents import clean
from edge_mrl.errors import NetworkError, OversizedAnswerError, ServerError, UsageError, reason
from edge_mrl.sync.address import host_and_port, proxy_for, proxy_headers, server_address
from edge_mrl.sync.answers.intermediaries import intermediary_error
from edge_mrl.sync.answers.limits import MAX_REFUSAL_BYTES, OVERSIZED_WAIT_S, answer_limit
from edge_mrl.wire import PROTOCOL, SEEN, digest, matches_digest, seen_headers

__all__ = ["Response", "Timeouts", "Transport"]

#: Characters that an error message shows of a text that is not known to be the server's.
SHOWN_CHARS = 200
#: Characters of a refusal of the server: longer than any of them, so that none is cut.
REFUSAL_CHARS = 2_000
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, in seconds.

    Attributes:
        connect_s: For a connection, TLS included.
        read_s: For the next bytes of a response.
        total_s: For a request and its whole response, even while bytes keep coming.
        whole_s: The former name of ``total_s``; it goes with the next minor version.
    """

    connect_s: float = 10.0
    read_s: float = 30.0
    total_s: float = 120.0
    whole_s: InitVar[float | None] = None

    def __post_init__(self, whole_s: float | None) -> None:
        if whole_s is not None:
            warnings.warn("whole_s is now total_s", DeprecationWarning, stacklevel=3)
            object.__setattr__(self, "total_s", whole_s)


@dataclass(frozen=True, slots=True)
class Response:
    """A server's response to one request.

    Attributes:
        status: The HTTP status, 200 to 299.
        headers: The headers by lower-case name.
        body: The body, which matches its digest.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            NetworkError: The body is not a JSON object.
        """
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise NetworkError(f"the server's response is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise NetworkError("the server's response is not a JSON object")
        return value


class Transport:
    """A connection to one server, opened when it is first needed. For one thread at a time.

    Args:
        server: The server's address.
        ca: A file of certificates to trust instead of the system's.
        insecure: Allow http:// to other machines.
        timeouts: How long to wait.
        plain: The server is not edge-mrl's: its responses have no digest and no sequence number.

    Raises:
        UsageError: The address or the file of certificates cannot be used.
    """

    def __init__(
        self,
        server: str,
        *,
        ca: str | None = None,
        insecure: bool = False,
        timeouts: Timeouts | None = None,
        plain: bool = False,
    ) -> None:
        self._plain = plain
        self.server = server_address(server, insecure=insecure)
        self.timeouts = timeouts or Timeouts()
        self.bytes_sent = 0
        self.bytes_received = 0
        self._url = urlsplit(self.server)
        self._proxy = proxy_for(self._url)
        self._tls = _trust(ca) if self._url.scheme == "https" else None
        self._connection: http.client.HTTPConnection | None = None

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
        total_s: float | None = None,
    ) -> Response:
        """Send a request and read its whole response.

        Args:
            method: "GET", "POST" or "PUT".
            path: The path from /v1 on, with its query.
            body: The body of the request.
            headers: Headers besides those of the protocol.
            repeatable: Whether the request may be sent twice: the server may have closed a connection
                that was kept open.
            total_s: Seconds for request and response; None for the transport's own limit.

        Raises:
            ServerError: The server refused the request.
            IntermediaryError: A proxy or the like answered in the server's place.
            OversizedAnswerError: The response is larger than one to this path can be.
            NetworkError: No response came, or it is incomplete, damaged or for another request.
        """
        limit = self.timeouts.total_s if total_s is None else total_s
        until = time.monotonic() + limit
        reused = self._connection is not None
        try:
            return self._exchange(method, path, body, headers or {}, until)
        except _StaleError:
            if not reused or not repeatable:
                raise
            return self._exchange(method, path, body, headers or {}, until)

    def open(self) -> None:
        """Connect, if there is no connection. If this fails, nothing was sent.

        Raises:
            NetworkError: The server cannot be reached.
        """
        try:
            self._connect(time.monotonic() + self.timeouts.connect_s)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise NetworkError(f"{self.server}: {_said(error)}") from error

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        until: float,
    ) -> Response:
        sequence = secrets.token_hex(16)
        whole = self._headers(sequence, body) | dict(headers)
        try:
            connection = self._connect(until)
            with _Watchdog(connection, until) as watchdog:
                response = self._exchange_once(connection, method, path, body, whole)
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            self.close()
            if time.monotonic() >= until:
                raise NetworkError(f"{self.server} took too long") from error
            kind = _StaleError if _is_stale(error) else NetworkError
            raise kind(f"{self.server}: {_said(error)}") from error
        except BaseException:
            self.close()
            raise
        if watchdog.expired:
            self.close()
            raise NetworkError(f"{self.server} took too long")
        return self._checked(response, whole, len(body or b""))

    def _headers(self, sequence: str, body: bytes | None) -> dict[str, str]:
        headers = {"User-Agent": f"edge-mrl/{__version__}", "Accept-Encoding": "identity"}
        if self._plain:
            return headers
        headers |= {"Edge-MRL-Protocol": PROTOCOL, "Edge-MRL-Sequence": sequence}
        if body is not None:
            headers["Content-Digest"] = digest(body)
        return headers

    def _connect(self, until: float) -> http.client.HTTPConnection:
        if self._connection is not None:
            return self._connection
        timeout = max(min(self.timeouts.connect_s, until - time.monotonic()), 0.001)
        connection = self._new_connection(timeout)
        connection.connect()
        sock = connection.sock
        sock.settimeout(self.timeouts.read_s)
        # A request goes out in two writes, headers and body: it must not wait for an acknowledgement.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        return connection

    def _new_connection(self, timeout: float) -> http.client.HTTPConnection:
        host, port = host_and_port(self._url)
        at = (host, port) if self._proxy is None else host_and_port(self._proxy)
        if self._tls is None:
            return http.client.HTTPConnection(*at, timeout=timeout)
        connection = http.client.HTTPSConnection(*at, timeout=timeout, context=self._tls)
        if self._proxy is not None:
            connection.set_tunnel(host, port, headers=proxy_headers(self._proxy))
        return connection

    def _exchange_once(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
    ) -> Response:
        target = self._url.path + path
        if self._proxy is not None and self._tls is None:
            target = f"{self._url.scheme}://{self._url.netloc}{target}"
            headers = headers | proxy_headers(self._proxy)
            headers["Host"] = self._url.netloc
        connection.request(method, target, body=body, headers=headers)
        self.bytes_sent += len(body or b"")
        response = connection.getresponse()
        most = answer_limit(path, plain=self._plain)
        try:
            data = self._read(response, most if response.status < 300 else MAX_REFUSAL_BYTES)
        except BaseException:
            response.close()
            raise
        if response.will_close:
            self.close()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Response(response.status, names, data)

    def _read(self, response: http.client.HTTPResponse, most: int) -> bytes:
        """A response's body, of ``most`` bytes at most, however they are framed."""
        if (response.length or 0) > most:
            raise self._oversized(f"{response.length:,}", most)
        parts, size = [], 0
        while part := response.read(min(_CHUNK_BYTES, most + 1 - size)):
            parts.append(part)
            size += len(part)
            self.bytes_received += len(part)
            if size > most:
                raise self._oversized(f"more than {most:,}", most)
        if response.length:  # the connection ended before the length that was announced
            raise http.client.IncompleteRead(b"", response.length)
        return b"".join(parts)

    def _oversized(self, size: str, most: int) -> OversizedAnswerError:
        return OversizedAnswerError(
            f"{self.server} answers with {size} bytes, expected at most {most:,} to this request: it was "
            "not read to its end; check that this is an edge-mrl server (--server URL)",
            retry_after_s=OVERSIZED_WAIT_S,
        )

    def _checked(self, response: Response, sent: Mapping[str, str], sent_bytes: int) -> Response:
        """The response, if it is complete, belongs to this request, and is not a refusal."""
        headers = response.headers
        if not self._plain:
            self._check_sender(response, sent["Edge-MRL-Sequence"], sent_bytes)
            # From servers of before, nothing.
            if headers.get(SEEN.lower(), own := seen_headers(sent)) != own:
                raise NetworkError(
                    f"{self.server} refuses with {response.status} what this device did not send: "
                    "something between them has changed, or taken away, a header of the request"
                )
        if 300 <= response.status < 400:
            raise ServerError(
                f"{self.server} redirects to {headers.get('location', '?')!r:.{SHOWN_CHARS}}: if that "
                "is the server's new address, name it with --server; the token is not sent there by "
                "itself",
                status=response.status,
            )
        if response.status >= 400:
            raise _refusal(self.server, response)
        return response

    def _check_sender(self, response: Response, sequence: str, sent_bytes: int) -> None:
        """Make sure that the server gave the response, to this request, and that it is undamaged."""
        headers, status = response.headers, response.status
        named = headers.get("edge-mrl-sequence")
        if named == sequence and matches_digest(response.body, headers.get("content-digest")):
            return
        self.close()
        wait_s = _retry_after(headers) if status in (429, 502, 503, 504) else None
        if named is None:
            raise intermediary_error(
                self.server, status, headers, sent_bytes=sent_bytes, retry_after_s=wait_s
            )
        raise NetworkError(
            f"{self.server}: the response ({status}) is damaged, or belongs to another request",
            retry_after_s=wait_s,
        )


class _StaleError(NetworkError):
    """The server had closed a connection that was kept open, before it read the request."""


class _Watchdog:
    """Ends a connection when its time is up: a time-out of each read does not limit a slow stream."""

    def __init__(self, connection: http.client.HTTPConnection, until: float) -> None:
        self.expired = False
        self._sock = connection.sock
        self._timer = threading.Timer(max(until - time.monotonic(), 0), self._expire)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _expire(self) -> None:
        self.expired = True
        with contextlib.suppress(OSError):
            # Not the TLS socket's own method: it would change the socket while another thread reads.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)


def _refusal(server: str, response: Response) -> ServerError:
    try:
        error = response.json().get("error")
    except NetworkError:
        error = None
    details: dict[str, Any] = error if isinstance(error, dict) else {}
    if not details:
        details = {"message": response.body[:SHOWN_CHARS].decode("utf-8", "replace")}
    # It goes to terminals and logs, whatever it is.
    code = clean(str(details.get("code", "unknown")))[:SHOWN_CHARS]
    message = clean(str(details.get("message", "")))
    if len(message) > REFUSAL_CHARS:
        message = message[:REFUSAL_CHARS].rpartition(" ")[0] + " [...]"
    said = f"{message} ({code})" if message else code
    return ServerError(
        f"{server} refuses with {response.status}: {said}",
        status=response.status,
        code=code,
        details=details,
        retry_after_s=_retry_after(response.headers),
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, from a number or an HTTP date; None if it does not ask."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    if not text:
        return None
    from email.utils import parsedate_to_datetime

    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def _is_stale(error: Exception) -> bool:
    return isinstance(
        error, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError
    )


def _said(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no response in time"
    return reason(error)


def _trust(ca: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"--ca {ca}: this file has no certificates ({reason(error)})") from error

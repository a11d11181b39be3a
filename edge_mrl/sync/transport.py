"""HTTP to one server: one connection, kept open, nothing believed that is not whole.

Standard library alone. Redirects are not followed: the token is for the server that gave it.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import SplitResult, unquote, urlsplit

from edge_mrl._version import __version__
from edge_mrl.errors import NetworkError, ServerError, UsageError, reason
from edge_mrl.wire import PROTOCOL, digest, matches_digest

__all__ = ["Answer", "Timeouts", "Transport", "server_address"]

#: Most bytes of an answer: a page of 512 documents of some passages each is a few megabytes.
MAX_ANSWER_BYTES = 256 << 20
#: Characters of a server's words that are shown.
MOST_SAID = 200
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, in seconds.

    Attributes:
        connect_s: For a connection, TLS included.
        read_s: For the next bytes.
        whole_s: For a request and its answer, however they drip.
    """

    connect_s: float = 10.0
    read_s: float = 30.0
    whole_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said to one request.

    Attributes:
        status: The HTTP status, 200 to 299.
        headers: By lower-case name.
        body: Compared with its digest.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            NetworkError: It is none.
        """
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise NetworkError(f"the server's answer is no JSON: {error}") from error
        if not isinstance(value, dict):
            raise NetworkError("the server's answer is no JSON object")
        return value


def server_address(text: str, *, insecure: bool = False) -> str:
    """A server's address in one spelling: scheme, host, port, and a path before /v1 if it has one.

    Raises:
        UsageError: It is none, or would carry the token in the clear over a network.
    """
    url = urlsplit(text if "://" in text else f"https://{text}")
    try:
        port = url.port
    except ValueError as error:
        raise UsageError(f"server {text!r}: {error}") from error
    host = url.hostname
    if url.scheme not in ("http", "https") or not host:
        raise UsageError(f"server {text!r}: expected https://HOST[:PORT]")
    if url.username is not None or url.query or url.fragment:
        raise UsageError(f"server {text!r}: expected no user, query or fragment")
    if url.scheme == "http" and not insecure and not _is_loopback(host):
        raise UsageError(
            f"server {text!r}: over http:// anybody on the way can read token and vectors; use "
            "https://, or --insecure if you know the network"
        )
    name = f"[{host}]" if ":" in host else host
    at = "" if port is None else f":{port}"
    return f"{url.scheme}://{name}{at}{url.path.rstrip('/')}"


class Transport:
    """A connection to one server, made when it is first needed. For one thread at a time.

    Args:
        server: Its address.
        ca: A file of certificates to trust instead of the system's.
        insecure: Allow http:// to other machines.
        timeouts: How long to wait.
        plain: The server is none of ours: its answers have no digest and no sequence.

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
        self._proxy = _proxy_for(self._url)
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
        whole_s: float | None = None,
    ) -> Answer:
        """Send a request and read its whole answer.

        Args:
            method: "GET", "POST" or "PUT".
            path: From /v1 on, with its query.
            body: What is sent.
            headers: Beside those of the protocol.
            repeatable: Whether it may be sent twice, where a connection that was kept turns out to be
                closed by the server.
            whole_s: How long request and answer may take; None for the transport's own limit.

        Raises:
            ServerError: The server said no.
            NetworkError: No answer came, or none that can be believed.
        """
        limit = self.timeouts.whole_s if whole_s is None else whole_s
        until = time.monotonic() + limit
        reused = self._connection is not None
        try:
            return self._exchange(method, path, body, headers or {}, until)
        except _StaleError:
            if not reused or not repeatable:
                raise
            return self._exchange(method, path, body, headers or {}, until)

    def open(self) -> None:
        """Connect, if there is no connection: what fails here was not sent.

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
    ) -> Answer:
        sequence = secrets.token_hex(16)
        whole = self._headers(sequence, body) | dict(headers)
        try:
            connection = self._connect(until)
            with _Watchdog(connection, until) as watchdog:
                answer = self._ask(connection, method, path, body, whole)
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            self.close()
            if time.monotonic() >= until:
                raise NetworkError(f"{self.server} took too long") from error
            kind = _StaleError if _is_stale(error) else NetworkError
            raise kind(f"{self.server}: {_said(error)}") from error
        except BaseException:
            self.close()
            raise
        if watchdog.bit:
            self.close()
            raise NetworkError(f"{self.server} took too long")
        return self._believe(answer, sequence)

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
        host, port = _host_and_port(self._url)
        at = (host, port) if self._proxy is None else _host_and_port(self._proxy)
        if self._tls is None:
            return http.client.HTTPConnection(*at, timeout=timeout)
        connection = http.client.HTTPSConnection(*at, timeout=timeout, context=self._tls)
        if self._proxy is not None:
            connection.set_tunnel(host, port, headers=_proxy_headers(self._proxy))
        return connection

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
    ) -> Answer:
        target = self._url.path + path
        if self._proxy is not None and self._tls is None:
            target = f"{self._url.scheme}://{self._url.netloc}{target}"
            headers = headers | _proxy_headers(self._proxy)
            headers["Host"] = self._url.netloc
        connection.request(method, target, body=body, headers=headers)
        self.bytes_sent += len(body or b"")
        response = connection.getresponse()
        data = self._read(response)
        if response.will_close:
            self.close()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, data)

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        parts, size = [], 0
        while part := response.read(_CHUNK_BYTES):
            parts.append(part)
            size += len(part)
            self.bytes_received += len(part)
            if size > MAX_ANSWER_BYTES:
                raise http.client.HTTPException(f"an answer of over {MAX_ANSWER_BYTES} bytes")
        if response.length:  # the connection ended before the length that was announced
            raise http.client.IncompleteRead(b"", response.length)
        return b"".join(parts)

    def _believe(self, answer: Answer, sequence: str) -> Answer:
        """The answer, if it is whole, to this request, and not a refusal."""
        headers = answer.headers
        right = self._plain or headers.get("edge-mrl-sequence") == sequence
        if right and not self._plain:
            right = matches_digest(answer.body, headers.get("content-digest"))
        if 300 <= answer.status < 400:
            raise ServerError(
                f"{self.server} sends us to {headers.get('location', '?')!r:.{MOST_SAID}}: say so "
                "with --server if that is right; the token is not sent there by itself",
                status=answer.status,
            )
        if not right:
            # A proxy between us may answer by itself: believed only as a reason to try again.
            self.close()
            wait_s = _retry_after(headers) if answer.status in (429, 502, 503, 504) else None
            raise NetworkError(
                f"{self.server}: an answer ({answer.status}) that is damaged, or not to what was asked",
                retry_after_s=wait_s,
            )
        if answer.status >= 400:
            raise _refusal(self.server, answer)
        return answer


class _StaleError(NetworkError):
    """A kept connection that the server had closed before it read the request."""


class _Watchdog:
    """Ends a connection when its time is up: time-outs of single reads do not bound a drip."""

    def __init__(self, connection: http.client.HTTPConnection, until: float) -> None:
        self.bit = False
        self._sock = connection.sock
        self._timer = threading.Timer(max(until - time.monotonic(), 0), self._bite)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _bite(self) -> None:
        self.bit = True
        with contextlib.suppress(OSError):
            # Not the TLS socket's own method, which would change it under the reader.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)


def _refusal(server: str, answer: Answer) -> ServerError:
    try:
        error = answer.json().get("error")
    except NetworkError:
        error = None
    details: dict[str, Any] = error if isinstance(error, dict) else {}
    if not details:
        details = {"message": answer.body[:MOST_SAID].decode("utf-8", "replace")}
    code = str(details.get("code", "unknown"))
    message = str(details.get("message", ""))
    said = f"{message[:MOST_SAID]} ({code})" if message else code
    return ServerError(
        f"{server} says {answer.status}: {said}",
        status=answer.status,
        code=code,
        details=details,
        retry_after_s=_retry_after(answer.headers),
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, as the server asks; None if it does not. Dates are as HTTP has them."""
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
        return "no answer in time"
    return reason(error)


def _trust(ca: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"--ca {ca}: no file of certificates ({reason(error)})") from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_and_port(url: SplitResult) -> tuple[str, int]:
    default = 443 if url.scheme == "https" else 80
    return url.hostname or "", url.port or default


def _proxy_for(url: SplitResult) -> SplitResult | None:
    """The proxy that the environment names for a server (HTTPS_PROXY, HTTP_PROXY, NO_PROXY)."""
    from urllib import request

    bypass = request.proxy_bypass_environment  # type: ignore[attr-defined]  # its stub lacks it

    host, port = _host_and_port(url)
    proxies = request.getproxies_environment()
    found = proxies.get(url.scheme) or proxies.get("all")
    # A proxy has another machine's loopback.
    if not found or _is_loopback(host) or bypass(f"{host}:{port}", proxies):
        return None
    proxy = urlsplit(found if "://" in found else f"http://{found}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise UsageError(f"the proxy {proxy.scheme}://{proxy.hostname}: expected http://HOST:PORT")
    return proxy


def _proxy_headers(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    import base64

    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}

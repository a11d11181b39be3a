"""A network that fails: an HTTP proxy in front of a server, with faults drawn from a seed.

It understands requests, so that each fault hits one exchange: lost before or after the server saw it,
doubled, delivered late, answered with an older answer, cut, changed by a bit, stalled, refused.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Self

__all__ = ["FAULTS", "Proxy"]

#: What may happen to an exchange.
FAULTS = (
    "drop_request",
    "lose_answer",
    "duplicate",
    "late",
    "old_answer",
    "truncate_request",
    "truncate_answer",
    "corrupt_request",
    "corrupt_answer",
    "stall",
    "unavailable",
)
UPSTREAM_S = 20.0
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as it came."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, as the server gave it."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def data(self) -> bytes:
        """Its bytes on the wire."""
        lines = [f"HTTP/1.1 {self.status} {self.reason}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines += [f"content-length: {len(self.body)}", "", ""]
        return "\r\n".join(lines).encode("latin-1") + self.body


class Proxy:
    """Stands between devices and a server; ``url`` is what devices are told.

    Args:
        target: Host and port of the server; may change, as the server may be started again elsewhere.
        seed: Of the faults.
        rate: Share of exchanges with a fault.
        stall_s: How long a stalled exchange hangs: longer than the client waits.
        faults: Those that may happen.
    """

    def __init__(
        self,
        target: tuple[str, int],
        *,
        seed: int,
        rate: float,
        stall_s: float = 3.0,
        faults: tuple[str, ...] = FAULTS,
    ) -> None:
        self.target = target
        self.rate = rate
        self.exchanges = 0
        self.met: Counter[str] = Counter()
        self._faults, self._stall_s = faults, stall_s
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._refusals = 0
        self._older: dict[str, list[Answer]] = {}
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def heal(self) -> None:
        """Let everything through from now on."""
        with self._lock:
            self.rate, self._refusals = 0.0, 0

    def close(self) -> None:
        """Stop listening; late deliveries are over when this returns."""
        self._closed.set()
        with contextlib.suppress(OSError):  # wakes the thread that accepts
            socket.create_connection(self._listener.getsockname(), 1).close()
        self._listener.close()
        for thread in list(self._threads):
            thread.join(UPSTREAM_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads = [t for t in self._threads if t.is_alive()]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(1.0)
        with client, client.makefile("rb") as reader:
            while not self._closed.is_set():
                try:
                    request = _read(reader)
                except TimeoutError:
                    return  # idle: the client connects again
                except (OSError, ValueError):
                    return
                if request is None or not self._exchange(client, request):
                    return

    def _draw(self) -> tuple[str | None, float, random.Random]:
        """The fault of the next exchange, a delay, and chance of its own."""
        with self._lock:
            self.exchanges += 1
            fault = None
            if self._refusals:
                self._refusals -= 1
                fault = "unavailable"
            elif self._chance.random() < self.rate:
                fault = self._chance.choice(self._faults)
                if fault == "unavailable":
                    self._refusals = self._chance.randrange(5)
            if fault:
                self.met[fault] += 1
            return fault, self._chance.uniform(0.05, 1.0), random.Random(self._chance.random())

    def _exchange(self, client: socket.socket, request: Request) -> bool:
        """Do one exchange; whether the connection goes on."""
        fault, delay_s, chance = self._draw()
        if fault == "stall":
            time.sleep(self._stall_s)
            return False
        if fault in ("drop_request", "late"):
            if fault == "late":
                self._spawn(self._deliver, request, delay_s)
            return False
        if fault == "unavailable":
            headers = (("retry-after", str(chance.randrange(2))), ("content-type", "text/plain"))
            return _send(client, Answer(503, "Service Unavailable", headers, b"storm").data())
        if fault == "truncate_request":
            self._send_part(request, chance)
            return False
        if fault == "corrupt_request" and request.body:
            body = _flip(request.body, chance)
            request = Request(request.method, request.path, request.headers, body)
        if fault == "duplicate":
            self._forward(request)
        answer = self._forward(request)
        if answer is None or fault == "lose_answer":
            return False
        return self._reply(client, request, answer, fault, chance)

    def _reply(
        self,
        client: socket.socket,
        request: Request,
        answer: Answer,
        fault: str | None,
        chance: random.Random,
    ) -> bool:
        with self._lock:
            before = self._older.setdefault(request.path.partition("?")[0], [])
            older = chance.choice(before) if before else None
            before.append(answer)
            del before[:-8]
        if fault == "old_answer" and older is not None:
            answer = older
        data = answer.data()
        if fault == "truncate_answer":
            _send(client, data[: chance.randrange(1, len(data))])
            return False
        if fault == "corrupt_answer" and answer.body:
            data = data[: -len(answer.body)] + _flip(answer.body, chance)
        return _send(client, data)

    def _deliver(self, request: Request, delay_s: float) -> None:
        """Bring a request that its sender has given up, after others."""
        self._closed.wait(delay_s)
        self._forward(request)

    def _forward(self, request: Request) -> Answer | None:
        connection = http.client.HTTPConnection(*self.target, timeout=UPSTREAM_S)
        try:
            headers = {name: value for name, value in request.headers if name.lower() not in _HOP}
            connection.request(request.method, request.path, request.body or None, headers)
            answer = connection.getresponse()
            body = answer.read()
            kept = tuple(pair for pair in answer.getheaders() if pair[0].lower() not in _HOP)
            return Answer(answer.status, answer.reason, kept, body)
        except (OSError, http.client.HTTPException):
            return None  # the server is down
        finally:
            connection.close()

    def _send_part(self, request: Request, chance: random.Random) -> None:
        """Send a request that ends in its middle."""
        lines = [f"{request.method} {request.path} HTTP/1.1", f"host: {self.target[0]}"]
        lines += [f"{n}: {v}" for n, v in request.headers if n.lower() not in _HOP]
        lines += [f"content-length: {len(request.body)}", "", ""]
        data = "\r\n".join(lines).encode("latin-1") + request.body
        with contextlib.suppress(OSError), socket.create_connection(self.target, 5) as upstream:
            upstream.sendall(data[: chance.randrange(1, len(data))])


def _read(reader: BinaryIO) -> Request | None:
    """The next request of a connection; None where it ends."""
    first = reader.readline(65_536)
    if not first:
        return None
    method, path, _ = first.decode("latin-1").split()
    headers = http.client.parse_headers(reader)
    size = int(headers.get("content-length", "0"))
    body = reader.read(size)
    if len(body) < size:
        return None
    return Request(method, path, tuple(headers.items()), body)


def _send(client: socket.socket, data: bytes) -> bool:
    try:
        client.sendall(data)
    except OSError:
        return False
    return True


def _flip(data: bytes, chance: random.Random) -> bytes:
    """The data with one bit changed."""
    place, bit = chance.randrange(len(data)), 1 << chance.randrange(8)
    return data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]

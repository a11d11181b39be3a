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
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
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
    "stall_answer",
    "unavailable",
)
UPSTREAM_S = 20.0
#: Every other late request comes after all others: when the network is well again.
LATE_S = (0.05, 1.0)
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host"})
#: What is changed by a bit where a request has no body, as of a pull.
_HEADERS = ("Authorization", "Edge-MRL-Space", "Edge-MRL-Sequence", "Edge-MRL-Protocol")


#: Faults that end an exchange before the server could answer.
_LOST = frozenset({"drop_request", "late", "stall", "truncate_request", "unavailable"})


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

    Attributes:
        rate: As it was given; may change.
        deaf: Whether every answer to a push is lost.
        exchanges: Requests that came while it failed on purpose.
        met: Faults that really happened, by kind; "server_down" where there was nobody to ask.
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
        self.deaf = False
        self.exchanges = 0
        self.met: Counter[str] = Counter()
        self._faults, self._stall_s = faults, stall_s
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self._refusals = 0
        self._older: dict[str, list[Answer]] = {}
        self._closed = threading.Event()
        self._healed = threading.Event()
        self._late: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def heal(self) -> None:
        """Let everything through from now on; what is late is delivered when this returns."""
        with self._lock:
            self.rate, self._refusals = 0.0, 0
            late, self._late = self._late, []
        self._healed.set()
        for thread in late:
            thread.join(UPSTREAM_S)

    def close(self) -> None:
        """Stop listening; late deliveries are over when this returns."""
        self._closed.set()
        self._healed.set()
        with contextlib.suppress(OSError):  # wakes the thread that accepts
            socket.create_connection(self._listener.getsockname(), 1).close()
        self._listener.close()
        for thread in list(self._threads):
            thread.join(UPSTREAM_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _spawn(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads = [t for t in self._threads if t.is_alive()]
        self._threads.append(thread)
        thread.start()
        return thread

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

    def _draw(self) -> tuple[str | None, random.Random]:
        """The fault of the next exchange, and chance of its own."""
        with self._lock:
            self.exchanges += not self._healed.is_set()
            fault = None
            if self._refusals:
                self._refusals -= 1
                fault = "unavailable"
            elif self._chance.random() < self.rate:
                fault = self._chance.choice(self._faults)
                if fault == "unavailable":
                    self._refusals = self._chance.randrange(5)
            return fault, random.Random(self._chance.random())

    def _count(self, fault: str) -> None:
        """Count a fault that has really happened."""
        with self._lock:
            self.met[fault] += not self._healed.is_set()

    def _exchange(self, client: socket.socket, request: Request) -> bool:
        """Do one exchange; whether the connection goes on."""
        fault, chance = self._draw()
        if fault in _LOST:
            self._count(fault)
            return self._lose(client, request, fault, chance)
        if fault == "corrupt_request":
            self._count(fault)
            request = _corrupt(request, chance)
        if fault == "duplicate":
            self._count(fault)
            self._forward(request)
        answer = self._forward(request)
        if answer is None:
            if fault not in ("corrupt_request", "duplicate"):  # which are counted already
                self._count("server_down")
            return False
        if self.deaf and request.path == "/v1/push":
            fault = "lose_answer"
        if fault in ("lose_answer", "stall_answer"):
            self._count(fault)
            self._closed.wait(self._stall_s if fault == "stall_answer" else 0)
            return False
        return self._reply(client, request, answer, fault, chance)

    def _lose(
        self, client: socket.socket, request: Request, fault: str, chance: random.Random
    ) -> bool:
        """Exchanges that end before the server could answer."""
        if fault == "stall":
            self._closed.wait(self._stall_s)
        elif fault == "late":
            delay_s = chance.uniform(*LATE_S) if chance.random() < 0.5 else UPSTREAM_S
            thread = self._spawn(self._deliver, request, delay_s)
            with self._lock:
                self._late.append(thread)
        elif fault == "truncate_request":
            self._send_part(request, chance)
        elif fault == "unavailable":
            headers = (
                ("retry-after", str(int(chance.random() < 0.1))),
                ("content-type", "text/plain"),
            )
            return _send(client, Answer(503, "Service Unavailable", headers, b"storm").data())
        return False

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
        data = answer.data()
        if fault == "old_answer" and older is not None:
            self._count(fault)
            data = older.data()
        elif fault == "truncate_answer":
            self._count(fault)
            _send(client, data[: chance.randrange(1, len(data))])
            return False
        elif fault == "corrupt_answer":
            self._count(fault)
            # Half of them in the body, however short that is beside the head.
            head = 0 if not answer.body or chance.random() < 0.5 else len(data) - len(answer.body)
            return _send(client, data[:head] + _flip(data[head:], chance)) and False
        return _send(client, data)

    def _deliver(self, request: Request, delay_s: float) -> None:
        """Bring a request that its sender has given up, after others."""
        self._healed.wait(delay_s)
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


def _corrupt(request: Request, chance: random.Random) -> Request:
    """The request with a bit of its body changed, or of a header.

    Not of its first line: nothing but TLS protects that.
    """
    if request.body and chance.random() < 0.8:
        return Request(request.method, request.path, request.headers, _flip(request.body, chance))
    name = chance.choice(_HEADERS).lower()
    changed = tuple(
        (key, _flip_text(value, chance) if key.lower() == name else value)
        for key, value in request.headers
    )
    return Request(request.method, request.path, changed, request.body)


def _flip_text(value: str, chance: random.Random) -> str:
    """The value of a header with one bit changed, and still one line."""
    data = _flip(value.encode("latin-1"), chance)
    return "".join(c if c.isprintable() else "?" for c in data.decode("latin-1"))


def _flip(data: bytes, chance: random.Random) -> bytes:
    """The data with one bit changed."""
    place, bit = chance.randrange(len(data)), 1 << chance.randrange(8)
    return data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]

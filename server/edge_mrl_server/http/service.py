"""What all requests of a process share, and what each of them goes through."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect, Request

from edge_mrl.errors import WireError
from edge_mrl.wire import (
    CONTENT_TYPE,
    MAX_BODY_BYTES,
    PROTOCOL,
    Message,
    decode_message,
    matches_digest,
)
from edge_mrl_server.errors import InvalidTokenError
from edge_mrl_server.http.heads import HeadCache
from edge_mrl_server.http.limits import Buckets, InFlight
from edge_mrl_server.http.metrics import Metrics
from edge_mrl_server.http.refusals import Refusal
from edge_mrl_server.http.snapshot import SnapshotCache
from edge_mrl_server.http.threads import Threads
from edge_mrl_server.settings import Settings
from edge_mrl_server.storage import Database, Principal, accounts

__all__ = ["Reply", "Service", "json_reply", "one_vector", "sequence", "space"]

T = TypeVar("T")
#: Threads that never write: devices can pull while all others wait for a standby.
ONLY_READ = 2
#: Tokens that are remembered as valid.
MAX_KNOWN = 100_000
#: An IPv6 address with its port and zone is shorter.
MAX_ADDRESS_CHARS = 80
_SPACE = re.compile(r"[0-9a-f]{64}")
_SEQUENCE = re.compile(r"[0-9A-Za-z]{1,64}")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer whose whole body is in memory."""

    body: bytes
    media_type: str = "application/json"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def json_reply(value: Mapping[str, Any], *, status: int = 200) -> Reply:
    """A reply of one JSON object."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Reply(text.encode(), status=status)


class Service:
    """The state of a server process."""

    def __init__(self, database: Database, settings: Settings, metrics: Metrics) -> None:
        self.database = database
        self.settings = settings
        self.metrics = metrics
        self.heads = HeadCache()
        self.snapshots = SnapshotCache(settings.cache, max_bytes=settings.cache_bytes)
        self.in_flight = InFlight(settings.in_flight_bytes)
        self._devices = Buckets(settings.device_rate)
        self._tenants = Buckets(settings.tenant_rate)
        self._enrollments = Buckets(settings.enroll_rate)
        self._failures = Buckets(settings.failure_rate, what="requests without a valid token")
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._threads = Threads(
            settings.threads,
            writers=max(1, settings.threads - ONLY_READ),
            writes_s=settings.write_timeout_s,
        )

    async def work(
        self, function: Callable[..., T], *arguments: Any, writes: bool = False, **options: Any
    ) -> T:
        """Run a function that blocks in one of a few threads.

        Args:
            function: The function.
            *arguments: Its positional arguments.
            writes: Whether it commits: it may wait until a standby confirms.
            **options: Its keyword arguments.

        Raises:
            Refusal: All threads stay busy, or a commit is not confirmed in time.
        """
        return await self._threads.run(lambda: function(*arguments, **options), writes=writes)

    async def admit(self, request: Request) -> Principal:
        """Check what every request with a token must have.

        Raises:
            InvalidTokenError: The token is not valid.
            Refusal: Another protocol, no sequence, or too many requests.
        """
        check_protocol(request)
        principal = await self._authenticate(request)
        request.state.principal = principal
        limits = principal.limits
        name = f"{principal.tenant}/{principal.device}"
        self._devices.take(name, rate=limits.get("device_requests_per_s"))
        self._tenants.take(principal.tenant, rate=limits.get("tenant_requests_per_s"))
        return principal

    async def _authenticate(self, request: Request) -> Principal:
        address, key = self._address(request), b""
        try:
            token = _token(request)
            key = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
            # Devices that were let in before are not kept out by what others of their address do.
            if key not in self._known:
                self._failures.take(address, count=0)
            principal, new = await self.work(_principal, self.database, token)
        except InvalidTokenError:
            self._known.pop(key, None)
            self._failures.take(address)
            raise
        self._known[key] = None
        self._known.move_to_end(key)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        if new:
            await self.work(_confirm, self.database, principal, token, writes=True)
        return principal

    def admit_stranger(self, request: Request) -> None:
        """Check what a request without a token must have."""
        check_protocol(request)
        self._enrollments.take(self._address(request))

    def _address(self, request: Request) -> str:
        """Where a request comes from; the last entry is the only one that no client can choose."""
        if self.settings.behind_proxy:
            given = ",".join(request.headers.getlist("x-forwarded-for"))
            last = given.rpartition(",")[2].strip()
            if last:
                return last[:MAX_ADDRESS_CHARS]
        return request.client.host if request.client else ""

    async def frame(
        self, request: Request, stack: AsyncExitStack, *, most: int = MAX_BODY_BYTES
    ) -> Message:
        """The request's body, decoded.

        Raises:
            Refusal: The body is not a frame, too large, too slow, or not what its digest says.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != CONTENT_TYPE:
            raise Refusal(400, "malformed", f"content type {kind[:80]!r}: expected {CONTENT_TYPE}")
        body = await self.body(request, stack, most=most)
        try:
            return decode_message(body)
        except WireError as error:
            raise Refusal(400, "malformed", str(error)) from error

    async def body(
        self, request: Request, stack: AsyncExitStack, *, most: int = MAX_BODY_BYTES
    ) -> bytes:
        """The whole body, checked against its digest.

        Args:
            request: The request.
            stack: Holds the bytes until the request is done.
            most: Bytes that the body may have.

        Raises:
            Refusal: The body is too large, too slow, or not what its digest says.
        """
        add = stack.enter_context(self.in_flight.hold())
        data = await self._read(request, add, most)
        given = request.headers.get("content-digest")
        if not matches_digest(data, given):
            raise Refusal(
                400,
                "digest",
                "the body is not what its Content-Digest (sha-256) says: send it again",
            )
        return data

    async def _read(self, request: Request, add: Callable[[int], None], most: int) -> bytes:
        declared = request.headers.get("content-length", "0")
        size = int(declared) if declared.isascii() and declared.isdigit() else 0
        if size > most:
            raise _too_large(size, most)
        add(size)
        parts: list[bytes] = []
        total = 0
        chunks = request.stream().__aiter__()
        deadline = asyncio.get_running_loop().time() + 3 * self.settings.body_timeout_s
        try:
            while True:
                left = deadline - asyncio.get_running_loop().time()
                async with asyncio.timeout(min(self.settings.body_timeout_s, left)):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return b"".join(parts)
                total += len(chunk)
                if total > most:
                    raise _too_large(total, most)
                if total > size:
                    add(total - size)
                    size = total
                parts.append(chunk)
        except TimeoutError as error:
            raise Refusal(408, "timeout", "the body came too slowly") from error
        except ClientDisconnect as error:
            raise Refusal(400, "malformed", "the body ended early") from error


def _token(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise InvalidTokenError("expected the header Authorization: Bearer TOKEN")
    return token.strip()


def check_protocol(request: Request) -> None:
    """Check the two headers that every request has."""
    protocol = request.headers.get("edge-mrl-protocol")
    if protocol != PROTOCOL:
        raise Refusal(400, "protocol", f"Edge-MRL-Protocol {protocol!r:.40}: expected {PROTOCOL}")
    if sequence(request) is None:
        raise Refusal(400, "malformed", "expected Edge-MRL-Sequence, 1 to 64 letters and digits")


def sequence(request: Request) -> str | None:
    """The request's sequence, if it has one that can be repeated."""
    value = request.headers.get("edge-mrl-sequence", "")
    return value if _SEQUENCE.fullmatch(value) else None


def space(request: Request) -> str:
    """The embedding space that the vectors of a request are said to be of."""
    value = request.headers.get("edge-mrl-space", "")
    if not _SPACE.fullmatch(value):
        raise Refusal(400, "malformed", "expected Edge-MRL-Space, 64 lower-case hex digits")
    return value


def one_vector(message: Message) -> NDArray[np.float32]:
    """The only vector of a query, float32[full_dim] of unit length."""
    vectors = message.vectors
    if vectors.dtype.kind != "f" or len(vectors) != 1:
        raise Refusal(400, "malformed", "expected one vector, float16 or float32")
    query: NDArray[np.float32] = vectors[0].astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        length = float(np.linalg.norm(query))
    if not abs(length - 1) <= 0.01:
        raise Refusal(400, "malformed", "the vector is not of unit length")
    return query


def _principal(database: Database, token: str) -> tuple[Principal, bool]:
    with database.read() as transaction:
        return accounts.authenticate(transaction, token)


def _confirm(database: Database, principal: Principal, token: str) -> None:
    with database.write() as transaction:
        accounts.confirm(transaction, principal, token)


def _too_large(size: int, most: int) -> Refusal:
    return Refusal(413, "too_large", f"a body of {size} bytes, expected at most {most}")

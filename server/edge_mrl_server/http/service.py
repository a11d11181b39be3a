"""What all requests of a process share, and what each of them goes through."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from edge_mrl.errors import WireError
from edge_mrl.wire import (
    CONTENT_TYPE,
    MAX_BODY_BYTES,
    PROTOCOL,
    Message,
    decode_message,
    now_ms,
)
from edge_mrl_server.errors import InvalidTokenError
from edge_mrl_server.http.heads import HeadCache
from edge_mrl_server.http.limits import Buckets, InFlight, cost_of_json
from edge_mrl_server.http.load.addresses import Proxies
from edge_mrl_server.http.load.bodies import Reading, check_digest, json_of_frame
from edge_mrl_server.http.load.crowd import Crowd
from edge_mrl_server.http.load.turns import HEALTH, READ, STRANGERS, WRITE, Who, limits_for
from edge_mrl_server.http.making import Making
from edge_mrl_server.http.metrics import Metrics
from edge_mrl_server.http.refusals import Refusal
from edge_mrl_server.http.snapshot import SnapshotCache
from edge_mrl_server.http.threads import Threads
from edge_mrl_server.settings import Settings
from edge_mrl_server.storage import Database, Principal, accounts, clock_behind_ms, marks

__all__ = [
    "Reply",
    "Service",
    "bearer",
    "held",
    "is_space",
    "json_reply",
    "named_space",
    "of",
    "one_vector",
    "sequence",
    "space",
]

T = TypeVar("T")
#: Threads that never write: devices can pull while all others wait for a standby.
ONLY_READ = 2
#: Tokens that are remembered as valid.
MAX_KNOWN = 100_000
#: Bytes of JSON in a frame that has no documents and no ids.
MAX_HEADER_BYTES = 64 << 10
#: Requests of clients that are not known yet at once: of one address, and of all.
MAX_STRANGERS, MAX_ALL_STRANGERS = 16, 256
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
        self.making = Making()
        self.in_flight = InFlight(settings.in_flight_bytes)
        self._devices = Buckets(settings.device_rate)
        self._tenants = Buckets(settings.tenant_rate)
        self._enrollments = Buckets(settings.enroll_rate)
        self._failures = Buckets(settings.failure_rate, what="requests without a valid token")
        #: The tenant and device of each token that was valid when it was last shown.
        self._known: OrderedDict[bytes, Who] = OrderedDict()
        self._check: asyncio.Future[int] | None = None
        self._crowd = Crowd()
        self._proxies = Proxies(settings.proxies)
        self._threads = Threads(
            limits_for(settings.threads, writers=max(1, settings.threads - ONLY_READ)),
            writes_s=settings.write_timeout_s,
        )

    async def work(
        self,
        function: Callable[..., T],
        *arguments: Any,
        who: Who,
        kind: str = READ,
        **options: Any,
    ) -> T:
        """Run a function that blocks in one of a few threads, when its turn has come.

        Args:
            function: The function.
            *arguments: Its positional arguments.
            who: For whom.
            kind: ``READ``; or ``WRITE`` if it commits: it may wait until a standby confirms.
            **options: Its keyword arguments.

        Raises:
            Refusal: All threads stay busy, or a commit is not confirmed in time.
        """
        return await self._threads.run(lambda: function(*arguments, **options), who=who, kind=kind)

    async def check(self) -> int:
        """See that the database answers. Anyone may ask: who asks while it is asked gets that answer.

        Returns:
            Milliseconds that this clock is behind the newest stamp; 0 up to five minutes.

        Raises:
            UnavailableError: It does not answer.
            Refusal: All threads stay busy.
        """
        if self._check is None or self._check.done():
            work = self.work(clock_behind_ms, self.database, who=Who(HEALTH))
            self._check = asyncio.ensure_future(work)
            self._check.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._check)

    async def admit(self, request: Request, *, renewing: bool = False) -> Principal:
        """Check what every request with a token must have, and count it until it is answered.

        Args:
            request: The request.
            renewing: Whether it asks for a new token: an expired one may do that for a while.

        Raises:
            InvalidTokenError: The token is not valid.
            Refusal: Another protocol, no sequence, or too many requests.
        """
        check_protocol(request)
        principal = await self._authenticate(request, renewing=renewing)
        request.state.principal = principal
        limits, tenant = principal.limits, principal.tenant
        name = f"{tenant}/{principal.device}"
        self._devices.take(name, rate=limits.get("device_requests_per_s"))
        self._tenants.take(tenant, rate=limits.get("tenant_requests_per_s"))
        most = self.settings.device_requests
        held(request).enter_context(self._crowd.enter([(name, most)], what="a device"))
        most = self.settings.tenant_requests
        held(request).enter_context(self._crowd.enter([(tenant, most)], what="a tenant"))
        return principal

    async def meet(self, request: Request, principal: Principal) -> None:
        """Compare the marks of the device's store with those of earlier requests.

        Raises:
            UnsureCopyError: The device has to send the request again with another mark.
            ClonedError: The store is a copy.
        """
        said = marks.parse(request.headers.get("edge-mrl-copy"))
        # Nearly always nothing is new, and that needs no thread.
        if said and marks.judge(principal.marks, said, now=now_ms())[1] != "known":
            await self.work(
                marks.meet, self.database, principal, said, who=of(principal), kind=WRITE
            )

    async def _authenticate(self, request: Request, *, renewing: bool) -> Principal:
        address = self._address(request)
        days = self.settings.grace_days if renewing else None
        key, who = b"", Who(STRANGERS, address)
        try:
            token = bearer(request)
            key = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
            # Devices that were let in before are not kept out by what others of their address do.
            if key in self._known:
                who = self._known[key]
            else:
                self._failures.take(address, count=0)
                self._enter_as_stranger(request, address)
            principal, new = await self.work(_principal, self.database, token, days, who=who)
        except InvalidTokenError:
            self._known.pop(key, None)
            self._failures.take(address)
            raise
        who = of(principal)
        self._known[key] = who
        self._known.move_to_end(key)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        if new:
            await self.work(_confirm, self.database, principal, token, who=who, kind=WRITE)
        return principal

    def admit_stranger(self, request: Request) -> Who:
        """Check what a request without a token must have, and count it until it is answered.

        Raises:
            Refusal: Another protocol, no sequence, or too many requests.
        """
        check_protocol(request)
        address = self._address(request)
        self._enrollments.take(address)
        self._enter_as_stranger(request, address)
        return Who(STRANGERS, address)

    def _enter_as_stranger(self, request: Request, address: str) -> None:
        names = [(f"{STRANGERS}/{address}", MAX_STRANGERS), (STRANGERS, MAX_ALL_STRANGERS)]
        held(request).enter_context(self._crowd.enter(names, what="clients without a token"))

    def _address(self, request: Request) -> str:
        """Where a request comes from."""
        peer = request.client.host if request.client else ""
        return self._proxies.client(peer, request.headers.getlist("x-forwarded-for"))

    async def frame(
        self,
        request: Request,
        read: Callable[[Message], T],
        *,
        most: int = MAX_BODY_BYTES,
        most_header: int = MAX_HEADER_BYTES,
        copies: int = 1,
    ) -> T:
        """The request's body, decoded and read in a thread.

        Args:
            request: The request, admitted.
            read: What to make of the message; what it raises is raised here.
            most: Bytes that the body may have.
            most_header: Bytes that its JSON may have: refused before it is parsed.
            copies: How often the body will be in memory at once.

        Raises:
            Refusal: The body is not a frame, too large, too slow, or not what its digest says.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != CONTENT_TYPE:
            raise Refusal(400, "malformed", f"content type {kind[:80]!r}: expected {CONTENT_TYPE}")
        who = of(request.state.principal)
        add = held(request).enter_context(self.in_flight.hold(who.group))
        body = await Reading(self.settings.body_timeout_s, add).read(request, most, most_header)
        given = request.headers.get("content-digest")
        add((copies - 1) * len(body) + cost_of_json(json_of_frame(body)))

        def decode() -> T:
            check_digest(body, given)
            try:
                return read(decode_message(memoryview(body)))
            except WireError as error:
                raise Refusal(400, "malformed", str(error)) from error

        return await self.work(decode, who=who)

    async def body(self, request: Request, *, most: int, optional: bool = False) -> bytes:
        """The whole body, of a few kilobytes, checked against its digest.

        Args:
            request: The request.
            most: Bytes that the body may have.
            optional: Whether there may be none, which needs no digest.

        Raises:
            Refusal: The body is too large, too slow, or not what its digest says.
        """
        add = held(request).enter_context(self.in_flight.hold(STRANGERS))
        data = bytes(await Reading(self.settings.body_timeout_s, add).read(request, most))
        if data or not optional:
            check_digest(data, request.headers.get("content-digest"))
        return data


def of(principal: Principal) -> Who:
    """A device, as one of those who take turns."""
    return Who(principal.tenant, principal.device)


def held(request: Request) -> ExitStack:
    """What a request holds until it is answered."""
    stack: ExitStack = request.scope["state"]["held"]
    return stack


def bearer(request: Request) -> str:
    """The request's token.

    Raises:
        InvalidTokenError: It has none.
    """
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
    value = named_space(request)
    if value is None:
        raise Refusal(400, "malformed", "expected Edge-MRL-Space, 64 lower-case hex digits")
    return value


def named_space(request: Request) -> str | None:
    """The embedding space of a device's store; None where it does not say."""
    value = request.headers.get("edge-mrl-space")
    if value is not None and not is_space(value):
        raise Refusal(400, "malformed", "expected Edge-MRL-Space, 64 lower-case hex digits")
    return value


def is_space(value: object) -> bool:
    """Whether this can be the id of an embedding space."""
    return isinstance(value, str) and _SPACE.fullmatch(value) is not None


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


def _principal(database: Database, token: str, days: float | None) -> tuple[Principal, bool]:
    with database.read() as transaction:
        return accounts.authenticate(transaction, token, renewing_days=days)


def _confirm(database: Database, principal: Principal, token: str) -> None:
    with database.write() as transaction:
        accounts.confirm(transaction, principal, token)

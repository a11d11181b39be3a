"""One run of a sync: push what waits, then pull what changed; what stops it is part of its outcome."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

import numpy as np

from edge_mrl.bundle import read_manifest
from edge_mrl.errors import NetworkError, NotEnrolledError, ServerError, UsageError
from edge_mrl.index import find_bundle
from edge_mrl.store import Outgoing, Verdict, replica
from edge_mrl.sync.policy import Backoff, Policy
from edge_mrl.sync.pull import Puller
from edge_mrl.wire import MAX_BODY_BYTES, MAX_ITEMS, Item, encode_items

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.encode import Encoder
    from edge_mrl.store import Agreed, Enrollment, Store
    from edge_mrl.sync.enrollment import Link
    from edge_mrl.sync.remote import Pushed, Remote

__all__ = ["ATTEMPTS", "BodySize", "Cause", "Means", "Outcome", "Run", "Target"]

T = TypeVar("T")
#: Why a run ended before all was done: what the application allows, the network or a busy server, a
#: refusal that only a person can change, or the store itself.
Cause = Literal["policy", "network", "refused", "store"]

#: How often a request is sent in one run before the run gives up.
ATTEMPTS = 4
#: The longest wait between these, in seconds.
ATTEMPT_WAIT_S = 4.0
#: Bodies shrink to this where the uplink is so slow that larger ones run out of time.
LEAST_BODY_BYTES = 1 << 14
#: Statuses of HTTP that pass: time-outs, too many requests, and whatever ails the server.
_PASSING = frozenset({408, 425, 429})
#: Statuses of the server's own that a damaged request may get.
_DAMAGED = frozenset({"digest", "timeout"})
#: Refusals that the device has an answer to: see ``Run._catch_up``.
_BEHIND = frozenset({"fenced", "restored", "superseded"})
#: How often in one run: one may come behind another, and two processes may push from one store.
CATCH_UPS = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run did.

    Attributes:
        pushed: Versions that the server has now.
        stale: Versions that had lost against newer ones there.
        pulled: Documents that other devices wrote.
        deleted: Documents that they deleted.
        dead: Versions that will not be sent (see ``SyncClient.dead_letters``).
        bytes_sent: Bytes of bodies sent, those of failed requests included.
        bytes_received: Bytes of bodies received.
        waiting: Why it ended before all was done, in plain words; None if all was done.
        cause: The kind of reason.
        retry_after_s: When the server asks to be asked again, in seconds.
        resent: Documents and deletions that were queued again, as the server was restored from an older
            copy; None where it was not.
    """

    pushed: int = 0
    stale: int = 0
    pulled: int = 0
    deleted: int = 0
    dead: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    waiting: str | None = None
    cause: Cause | None = None
    retry_after_s: float | None = None
    resent: int | None = None

    @property
    def done(self) -> bool:
        """Whether everything was sent, and everything pulled that was to be."""
        return self.waiting is None


class Target(Protocol):
    """Where documents can be pushed, other than a server of ours."""

    def push(self, items: Sequence[Item]) -> Sequence[tuple[str, int]]:
        """Send documents; returns for each its status and a newer stamp or 0, as a server does.

        Raises:
            NetworkError: Nobody knows whether something was stored: it is sent again.
        """

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes sent and received so far."""

    def close(self) -> None:
        """Let go of the connection."""


class BodySize:
    """How much is sent at once: less after failures, for perhaps the uplink is too slow for more.

    Attributes:
        size_bytes: Most bytes of a body.
    """

    def __init__(self) -> None:
        self.size_bytes = MAX_BODY_BYTES

    def shrink(self) -> None:
        """A body did not go through."""
        self.size_bytes = max(self.size_bytes // 2, LEAST_BODY_BYTES)

    def grow(self) -> None:
        """One did."""
        self.size_bytes = min(self.size_bytes * 2, MAX_BODY_BYTES)


@dataclass(frozen=True, slots=True, eq=False)
class Means:
    """What a run works with.

    Attributes:
        store: The store.
        link: Its way to its server.
        target: Where to push instead of to that; None for that.
        encoder: Opens the store's encoder.
        policy: How many bytes may be used.
        body: How much is sent at once, as runs before found.
        push_only: Send, and do not pull.
    """

    store: Store
    link: Link
    target: Target | None
    encoder: Callable[[], Encoder]
    policy: Policy
    body: BodySize
    push_only: bool


class _HoldError(Exception):
    """A run is to end here, for a reason that is no failure."""


class Run:
    """One run: what it may still do, and what it has done.

    Args:
        means: What it works with.
        attempts: How often each request is sent at most.
        step: Called after each commit with what was done so far.

    Attributes:
        outcome: What was done so far.
    """

    def __init__(self, means: Means, attempts: int, step: Callable[[Outcome], None] | None) -> None:
        self.outcome = Outcome()
        self._means = means
        self._store = means.store
        self._attempts = attempts
        self._step = step
        self._remote: Remote | None = None
        self._start = (0, 0)
        self._first = True

    def all(self) -> None:
        """Push and pull; what stops it goes into the outcome."""
        try:
            self._all()
        except _HoldError as error:
            self._waits(str(error), "policy")
        except ServerError as error:
            passing = _passes(error)
            self._waits(str(error), "network" if passing else "refused", error.retry_after_s)
        except NetworkError as error:
            self._waits(str(error), "network", error.retry_after_s)
        except UsageError as error:
            self._waits(str(error), "refused")
        self._count_bytes()

    def _all(self) -> None:
        means = self._means
        if means.target is not None:
            self._start = means.target.traffic
            self._push(None)
            replica.mark_success(self._store)
            return
        self._remote = remote = means.link.follow()
        self._start = (remote.transport.bytes_sent, remote.transport.bytes_received)
        means.link.renew(remote)
        if self._enrollment.is_open:
            self._settle(remote)
        puller = None if means.push_only else self._puller(remote)
        if puller is not None and self._enrollment.cursor == 0:
            # Before anything is sent: see Puller.bootstrap.
            self._agreed(puller.bootstrap())
        backoff = Backoff(cap_s=ATTEMPT_WAIT_S, first_s=0.25)
        for _ in range(CATCH_UPS):
            try:
                self._push(remote)
                if puller is not None:
                    puller.changes()
            except ServerError as error:
                if error.code not in _BEHIND:
                    raise
                if error.code == "superseded":  # another process pushes: let it
                    time.sleep(backoff.failed())
                self._catch_up(remote, error)
            else:
                replica.mark_success(self._store)
                return
        raise NetworkError(f"{remote.transport.server} has changed again and again: trying later")

    @property
    def _enrollment(self) -> Enrollment:
        found = replica.enrollment_of(self._store)
        if found is None:
            raise NotEnrolledError(self._store.path)
        return found

    def _puller(self, remote: Remote) -> Puller:
        folder = find_bundle(self._store)
        bundle = (folder, read_manifest(folder))
        return Puller(self._store, remote, bundle, attempt=self._attempt, pulled=self._pulled)

    def _catch_up(self, remote: Remote, error: ServerError) -> None:
        """Pull everything: the server has forgotten deletions, or was restored from an older copy.

        Where it is "superseded", no more has happened than that another process pushed from this store.
        """
        # What became of the last push must be known before: it may arrive while everything is pulled.
        self._settle(remote)
        if error.code != "superseded":
            self._agreed(self._puller(remote).everything())

    def _settle(self, remote: Remote) -> None:
        """Have the server say whether the last push arrived, and refuse it from now on if it did not."""
        now = self._enrollment
        number = now.push if now.is_open else now.push + 1
        header = {"cursor": now.cursor, "push": number, "epoch": now.epoch}
        frame = encode_items(header, [], like=np.empty((0, self._dim), np.float16))
        try:
            refused = self._attempt(lambda: remote.push(frame, 0)).refused
        except ServerError as error:
            last = error.details.get("push")
            if error.code != "superseded" or not isinstance(last, int):
                raise
            # This store is an older copy of itself: what it sent then may have arrived.
            number, refused = last, ()
        replica.settle_push(self._store, number, refused=refused)

    def _agreed(self, agreed: Agreed | None) -> None:
        if agreed is not None and agreed.resent is not None:
            self.outcome = replace(self.outcome, resent=agreed.resent)

    # --- pushing

    def _push(self, remote: Remote | None) -> None:
        stuck = 0
        while batch := replica.outgoing(self._store, limit=MAX_ITEMS):
            with_text = self._with_text(remote)
            items, unsendable = self._items(batch, with_text=with_text)
            if unsendable:
                self._take(unsendable, self._enrollment.offset_ms)
                continue
            now = self._enrollment
            frame, count = self._frame(items, now)
            if not count:
                verdict = Verdict(items[0].id, items[0].stamp, "too_large")
                self._take([verdict], self._enrollment.offset_ms)
                continue
            self._within_cap(len(frame))
            if remote is not None:
                names = [item.id for item in items[:count]]
                if not replica.begin_push(self._store, now.push + 1, names):
                    self._settle(remote)  # another process has begun one
                    continue
            results, offset_ms = self._send(remote, frame, items[:count])
            pairs = zip(items, results, strict=False)
            verdicts = [Verdict(item.id, item.stamp, *result) for item, result in pairs]
            self._take(verdicts, offset_ms, number=now.push + 1 if remote is not None else 0)
            ahead = all(verdict.status == "clock_ahead" for verdict in verdicts)
            stuck = stuck + 1 if ahead else 0
            if stuck > 1:
                raise NetworkError(
                    "the server's clock is behind the stamps that it has accepted before: waiting for it"
                )

    def _with_text(self, remote: Remote | None) -> bool:
        found = replica.enrollment_of(self._store)
        if found is None and remote is not None:
            raise NotEnrolledError(self._store.path)
        return found is not None and found.with_text

    def _items(
        self, batch: Sequence[Outgoing], *, with_text: bool
    ) -> tuple[list[Item], list[Verdict]]:
        """What to send, and what cannot be: neither its vectors nor its text are here."""
        lost = [
            Verdict(one.id, one.stamp, replica.NO_VECTORS)
            for one in batch
            if one.vectors is None and one.document is not None and not one.document.text
        ]
        if lost:
            return [], lost
        made = self._embed([one for one in batch if one.vectors is None and not one.deleted])
        items = []
        for one in batch:
            if one.deleted or one.document is None:
                none = np.empty((0, self._dim), np.float16)
                items.append(Item(one.id, one.stamp, none, deleted=True))
                continue
            vectors: NDArray[Any] = made[one.id] if one.vectors is None else one.vectors
            document = one.document
            items.append(
                Item(
                    one.id,
                    one.stamp,
                    vectors,
                    text=document.text if with_text else None,
                    metadata=document.metadata if with_text else None,
                    spans=one.spans if with_text else (),
                )
            )
        return items, []

    @property
    def _dim(self) -> int:
        return self._store.binding.full_dim or 1

    def _embed(self, batch: Sequence[Outgoing]) -> dict[str, NDArray[np.float16]]:
        """Vectors of documents whose own are not kept, from their text."""
        if not batch:
            return {}
        texts = [
            one.document.text[start:end]
            for one in batch
            if one.document is not None
            for start, end in one.spans
        ]
        full = self._means.encoder().encode(texts, kind="document").full
        if full is None:
            raise UsageError(f"the bundle of {self._store.path} gives no full vectors")
        ends = np.cumsum([len(one.spans) for one in batch])
        parts = np.split(full.astype(np.float16), ends[:-1])
        return {one.id: part for one, part in zip(batch, parts, strict=True)}

    def _frame(self, items: Sequence[Item], now: Enrollment) -> tuple[bytes, int]:
        """As many of the first items as fit into a body; 0 where not even one does."""
        limit = self._means.body.size_bytes
        left = self._left()
        if left is not None:
            limit = min(limit, max(left, 0))
        size, count = 0, 0
        for item in items:
            size += _size(item)
            if count and size > limit:
                break
            count += 1
        like = np.empty((0, self._dim), np.float16)
        header: dict[str, Any] = {}
        if self._remote is not None:
            header = {"cursor": now.cursor, "push": now.push + 1, "epoch": now.epoch}
        while count:
            frame = encode_items(header, items[:count], like=like)
            if len(frame) <= MAX_BODY_BYTES:
                return frame, count
            count //= 2
        return b"", 0

    def _send(
        self, remote: Remote | None, frame: bytes, items: Sequence[Item]
    ) -> tuple[Sequence[tuple[str, int]], int]:
        target = self._means.target
        if remote is None:
            assert target is not None
            return self._attempt(lambda: target.push(items)), 0
        pushed: Pushed = self._attempt(lambda: self._push_once(remote, frame, len(items)))
        return pushed.results, pushed.offset_ms

    def _push_once(self, remote: Remote, frame: bytes, count: int) -> Pushed:
        try:
            answer = remote.push(frame, count)
        except ServerError:
            raise
        except NetworkError:
            # Perhaps the uplink is too slow for so much at once.
            self._means.body.shrink()
            raise
        self._means.body.grow()
        return answer

    def _take(self, verdicts: Sequence[Verdict], offset_ms: int, *, number: int = 0) -> None:
        replica.acknowledge(self._store, verdicts, offset_ms=offset_ms, number=number)
        statuses = [verdict.status for verdict in verdicts]
        pushed, stale = statuses.count("applied"), statuses.count("stale")
        dead = len(statuses) - pushed - stale - statuses.count("clock_ahead")
        now = self.outcome
        self.outcome = replace(
            now, pushed=now.pushed + pushed, stale=now.stale + stale, dead=now.dead + dead
        )
        self._tell()

    def _pulled(self, put: int, deleted: int) -> None:
        now = self.outcome
        self.outcome = replace(now, pulled=now.pulled + put, deleted=now.deleted + deleted)
        self._tell()

    # --- requests

    def _attempt(self, ask: Callable[[], T]) -> T:
        """Send a request, again where that may help.

        A refusal that would end the run is asked for once more: on the way, a bit of the token may
        have been changed, and the server does not know that.
        """
        backoff = Backoff(cap_s=ATTEMPT_WAIT_S, first_s=0.25)
        refused: ServerError | None = None
        while True:
            self._within_cap(0)
            self._first = False
            try:
                return ask()
            except NetworkError as error:
                if isinstance(error, ServerError) and not _passes(error):
                    same = refused is not None and refused.code == error.code
                    if same or error.code in _BEHIND or error.code == "head_unknown":
                        raise
                    refused = error
                    continue
                wait_s = backoff.failed(error.retry_after_s)
                if backoff.failures >= self._attempts or wait_s > 2 * ATTEMPT_WAIT_S:
                    raise
                time.sleep(wait_s)

    def _left(self) -> int | None:
        most = self._means.policy.max_bytes
        return None if most is None else most - sum(self._traffic())

    def _within_cap(self, size_bytes: int) -> None:
        """Stop before a request that would go beyond the run's byte cap; the first one always goes."""
        left = self._left()
        if left is not None and not self._first and left < max(size_bytes, 1):
            most = self._means.policy.max_bytes
            raise _HoldError(f"this run's {most:,} bytes are used up")

    def _traffic(self) -> tuple[int, int]:
        target = self._means.target
        if target is not None:
            now = target.traffic
        elif self._remote is not None:
            now = (self._remote.transport.bytes_sent, self._remote.transport.bytes_received)
        else:
            return (0, 0)
        return now[0] - self._start[0], now[1] - self._start[1]

    def _count_bytes(self) -> None:
        sent, received = self._traffic()
        self.outcome = replace(self.outcome, bytes_sent=sent, bytes_received=received)

    def _tell(self) -> None:
        self._count_bytes()
        if self._step is not None:
            self._step(self.outcome)

    def _waits(self, reason: str, cause: Cause, retry_after_s: float | None = None) -> None:
        self.outcome = replace(
            self.outcome, waiting=reason, cause=cause, retry_after_s=retry_after_s
        )


def _passes(error: ServerError) -> bool:
    """Whether a refusal is one of those that pass by themselves."""
    return error.status >= 500 or error.status in _PASSING or error.code in _DAMAGED


def _size(item: Item) -> int:
    """About the bytes of an item in a frame; text may take more where it must be escaped."""
    size = 64 + 2 * len(item.id.encode()) + item.vectors.nbytes + 14 * len(item.spans)
    if item.text is not None:
        size += len(item.text.encode()) + len(item.text) // 8
    if item.metadata:
        size += len(json.dumps(dict(item.metadata)))
    return size

"""Keeping a store and a server level, whatever the network does.

Pushing empties the store's queue, pulling brings what other devices wrote; both are harmless to repeat,
so that anything may fail at any moment. ``SyncClient`` does it once or keeps doing it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeVar

import numpy as np

from edge_mrl import replica
from edge_mrl.bundle import read_manifest
from edge_mrl.clock import now_ms
from edge_mrl.credentials import Credentials
from edge_mrl.encoder import Encoder
from edge_mrl.errors import (
    EdgeMrlError,
    NetworkError,
    ServerError,
    StoreError,
    UsageError,
)
from edge_mrl.index import Index, find_bundle
from edge_mrl.outbox import MAX_QUEUE_BYTES, Enrolment
from edge_mrl.policy import MAX_WAIT_S, Backoff, Conditions, Policy
from edge_mrl.pull import Puller
from edge_mrl.remote import Remote
from edge_mrl.remote import enroll as ask_to_enroll
from edge_mrl.replica import DeadLetter, Outgoing, Queue, Verdict
from edge_mrl.rerank import Reranker
from edge_mrl.store import Store
from edge_mrl.transport import Timeouts, Transport, server_address
from edge_mrl.wire import MAX_BODY_BYTES, MAX_ITEMS, Item, encode_items

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.documents import Document
    from edge_mrl.remote import Pushed

__all__ = [
    "Cause",
    "Outcome",
    "Status",
    "SyncClient",
    "Target",
    "enroll",
    "move",
    "retry_letters",
    "status_of",
]

T = TypeVar("T")
#: Why a run ended before all was done: what the application allows, the network or a busy server, a
#: refusal that only a person can change, or the store itself.
Cause = Literal["policy", "network", "refused", "store"]

#: How often a request is sent in one run before the run gives up.
ATTEMPTS = 4
#: The longest wait between these, in seconds.
ATTEMPT_WAIT_S = 4.0
#: Seconds between two looks for what other devices wrote.
INTERVAL_S = 60.0
#: Seconds between two looks for what this device wrote, which cost a row of the store each.
LOOK_S = 1.0
#: Bodies shrink to this where the uplink is so slow that larger ones run out of time.
LEAST_BODY_BYTES = 1 << 14
#: A token is renewed when less than this is left of it.
RENEW_MS = 14 * 86_400_000
#: Statuses of HTTP that pass: time-outs, too many requests, and whatever ails the server.
_PASSING = frozenset({408, 425, 429})
#: Statuses of the server's own that a damaged request may get.
_DAMAGED = frozenset({"digest", "timeout"})


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

    @property
    def done(self) -> bool:
        """Whether everything was sent, and everything pulled that was to be."""
        return self.waiting is None


@dataclass(frozen=True, slots=True)
class Status:
    """Where a store's sync stands.

    Attributes:
        server: The server's address.
        tenant: Whose documents these are.
        device: This store's name there.
        queue: What waits.
        dead: Versions that will not be sent.
        cursor: The server's last change that was pulled.
        success_ms: When a sync last went through, in milliseconds since 1970; None for never.
        with_text: Whether text and metadata are sent.
        waiting: Why it waits; None where nothing failed.
    """

    server: str
    tenant: str
    device: str
    queue: Queue
    dead: int
    cursor: int
    success_ms: int | None
    with_text: bool
    waiting: str | None


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


def enroll(  # noqa: PLR0913 - each is a choice of its own, made once
    store: Store,
    server: str,
    code: str,
    *,
    name: str | None = None,
    ca: str | None = None,
    insecure: bool = False,
    with_text: bool = False,
    max_queue: int = MAX_QUEUE_BYTES,
) -> Status:
    """Make a store a device of a tenant; every document that is there is queued.

    Args:
        store: An open store.
        server: The server's address.
        code: The one-time code from its administrator.
        name: What the device is called there, for people; None for this machine's name.
        ca: A file of certificates to trust instead of the system's.
        insecure: Allow http:// to other machines.
        with_text: Send text and metadata too.
        max_queue: Bytes of vectors that may wait in the store.

    Raises:
        UsageError: The address is none, or the bundle gives no full vectors.
        NetworkError: The server cannot be reached, or refuses the code.
    """
    full_dim = read_manifest(find_bundle(store)).full_dim
    if full_dim is None or not store.writable:
        raise UsageError(
            f"{store.path} cannot be synced: "
            + (
                "its bundle gives no full vectors (it was exported with --coarse-only)"
                if full_dim is None
                else "it is read-only"
            )
        )
    if name is None:
        import socket

        name = socket.gethostname()
    with Transport(server, ca=ca, insecure=insecure) as transport:
        grant = ask_to_enroll(transport, code, name)
        address = transport.server
    found = Credentials(
        address,
        grant.tenant,
        grant.device,
        grant.token,
        grant.expires_ms,
        None if ca is None else str(Path(ca).resolve()),
        insecure,
    )
    # The code is spent: the token first, then the store, which is bound to what the file says.
    found.write(store.path)
    wanted = Enrolment(
        address, grant.tenant, grant.device, offset_ms=grant.offset_ms, with_text=with_text,
        max_queue=max_queue,
    )  # fmt: skip
    replica.enrol(store, wanted, full_dim=full_dim)
    return status_of(store)


def move(store: Store, *, server: str | None = None, ca: str | None = None) -> None:
    """Note the same server's new address, or new certificates to trust.

    Raises:
        UsageError: The store is not enrolled, or the address is none.
    """
    found = Credentials.read(store.path)
    if found is None:
        raise UsageError(f"{store.path} is not enrolled: `edge-mrl enroll` does that")
    if server is not None:
        found = replace(found, server=server_address(server, insecure=found.insecure))
    if ca is not None:
        found = replace(found, ca=str(Path(ca).resolve()))
    found.write(store.path)
    replica.set_server(store, found.server)


class _HoldError(Exception):
    """A run is to end here, for a reason that is no failure."""


class SyncClient:
    """Syncs one store with one server. Safe to share between threads; one request at a time.

    Attributes:
        policy: When it may use the network.
    """

    def __init__(
        self,
        store: Store,
        *,
        encoder: Callable[[], Encoder],
        target: Target | None,
        policy: Policy,
        conditions: Callable[[], Conditions],
        push_only: bool,
        timeouts: Timeouts | None,
    ) -> None:
        self.policy = policy
        self._store = store
        self._encoder = encoder
        self._target = target
        self._conditions = conditions
        self._push_only = push_only or target is not None
        self._timeouts = timeouts
        self._owned: list[Any] = []
        self._lock = threading.Lock()
        self._remote: Remote | None = None
        self._credentials: Credentials | None = None
        self._waiting: str | None = None
        self._body_bytes = MAX_BODY_BYTES
        self._runner: _Runner | None = None
        self._rerank_lock = threading.Lock()
        self._reranker: Reranker | None = None

    @classmethod
    def open(
        cls,
        store: Index | Store | str | os.PathLike[str],
        *,
        policy: Policy | None = None,
        conditions: Callable[[], Conditions] = Conditions,
        push_only: bool = False,
        target: Target | None = None,
        timeouts: Timeouts | None = None,
    ) -> SyncClient:
        """Open what a store needs to be synced.

        Args:
            store: An open index or store, which stays the caller's, or a store's file.
            policy: When it may use the network.
            conditions: Asked before each run how the device is placed.
            push_only: Send, and do not pull.
            target: Where to push instead of to the server that the store is enrolled with.
            timeouts: How long to wait.

        Raises:
            UsageError: The store is not enrolled, or is a copy of one that is.
            StoreError: The store cannot be used.
        """
        owned: list[Any] = []
        if isinstance(store, Index):
            index = store
        elif isinstance(store, Store):
            index = Index(store, None, open_encoder=Encoder.open)
        else:
            index = Index.open(store)
            owned.append(index)
        client = cls(
            index.store,
            encoder=lambda: index.encoder,
            target=target,
            policy=policy or Policy(),
            conditions=conditions,
            push_only=push_only,
            timeouts=timeouts,
        )
        client._owned = owned
        try:
            if target is None:
                client._follow_credentials()
        except BaseException:
            client.close()
            raise
        return client

    @property
    def store(self) -> Store:
        """The store."""
        return self._store

    def sync_once(
        self,
        *,
        now: bool = False,
        attempts: int = ATTEMPTS,
        step: Callable[[Outcome], None] | None = None,
    ) -> Outcome:
        """Push what waits, then pull what changed.

        Whatever goes wrong with the network or the server is part of the outcome, not an error.

        Args:
            now: Whatever the policy says of the conditions.
            attempts: How often each request is sent at most.
            step: Called after each commit with what was done so far.

        Raises:
            StoreError: The store cannot be used.
        """
        with self._lock:
            run = _Run(self, attempts, step)
            reason = None if now else self.policy.why_not(self._conditions())
            if reason is not None:
                run.outcome = replace(run.outcome, waiting=reason, cause="policy")
            else:
                run.all()
            self._waiting = run.outcome.waiting
            return run.outcome

    def start(
        self,
        *,
        interval_s: float = INTERVAL_S,
        max_wait_s: float = MAX_WAIT_S,
        notify: Callable[[Outcome], None] | None = None,
        notify_dead: Callable[[Sequence[DeadLetter]], None] | None = None,
        step: Callable[[Outcome], None] | None = None,
    ) -> None:
        """Keep syncing in a thread of its own: soon after each write, and to see what others wrote.

        Args:
            interval_s: Seconds between two pulls.
            max_wait_s: The longest wait after failures, in seconds.
            notify: Called after each run, in that thread.
            notify_dead: Called with new dead letters.
            step: Called after each commit.
        """
        if self._runner is not None:
            raise UsageError("the client is running already")
        backoff = Backoff(cap_s=max_wait_s)
        self._runner = _Runner(self, interval_s, backoff, (notify, notify_dead, step))
        self._runner.start()

    def stop(self, *, timeout_s: float | None = None) -> None:
        """End the thread, after the request that it is at; what waits stays in the store."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.stop(timeout_s)

    def sync_now(self) -> None:
        """Have the thread run at once, whatever the policy says of the conditions."""
        if self._runner is None:
            raise UsageError(
                "the client is not running: call start() first, or sync_once(now=True)"
            )
        self._runner.wake(now=True)

    def status(self) -> Status:
        """Where it stands."""
        return status_of(self._store, self._waiting)

    def dead_letters(self) -> list[DeadLetter]:
        """Versions that will not be sent, by id."""
        return replica.dead_letters(self._store)

    def retry(self, ids: Iterable[str] | None = None) -> int:
        """Send dead letters again, all or some; what was deleted elsewhere is put again.

        Returns:
            How many are queued.
        """
        return retry_letters(self._store, self._encoder, ids)

    def drop(self, ids: Iterable[str] | None = None) -> int:
        """Forget dead letters, all or some; the store's documents stay. Returns how many."""
        return replica.drop_letters(self._store, ids)

    def set_with_text(self, *, with_text: bool) -> None:
        """Choose whether text and metadata are sent; everything is then sent once more with them."""
        replica.set_with_text(self._store, with_text=with_text)

    def rerank(
        self, ids: Sequence[str], query: NDArray[np.float32], *, deadline_s: float
    ) -> Mapping[str, float]:
        """Scores of documents by the server's full vectors: what ``Index.search(rerank=client)`` asks.

        Does not wait for a sync that is going on. See ``edge_mrl.rerank.Reranker``.
        """
        with self._rerank_lock:
            if self._reranker is None:
                self._reranker = Reranker(self._store.path, self._store.binding.space_id)
            reranker = self._reranker
        return reranker.rerank(ids, query, deadline_s=deadline_s)

    def close(self) -> None:
        """End the thread and close what was opened here."""
        self.stop()
        if self._reranker is not None:
            self._reranker.close()
        with self._lock:
            if self._remote is not None:
                self._remote.close()
            if self._target is not None:
                self._target.close()
            for thing in self._owned:
                thing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _follow_credentials(self) -> Remote:
        """The server by the credentials' file, which another process may have replaced."""
        found = Credentials.read(self._store.path)
        enrolment = replica.enrolment(self._store)
        where = self._store.path
        again = f"`edge-mrl enroll --server URL --code CODE --store {where}`"
        if found is None:
            if enrolment is None:
                raise UsageError(f"{where} is not enrolled: {again}")
            raise UsageError(
                f"{where} is a copy, or its file {where.name}-sync.json is gone: two stores must not "
                f"be one device; enrol this one, {again}"
            )
        if enrolment is None:  # enrolling was interrupted behind the server's answer
            wanted = Enrolment(found.server, found.tenant, found.device)
            full_dim = read_manifest(find_bundle(self._store)).full_dim
            replica.enrol(self._store, wanted, full_dim=full_dim)
        elif enrolment.device != found.device:
            raise UsageError(
                f"{where} is device {enrolment.device}, its file {where.name}-sync.json is of device "
                f"{found.device}: it was copied or restored; {again}"
            )
        if found != self._credentials or self._remote is None:
            if self._remote is not None:
                self._remote.close()
            space_id = self._store.binding.space_id
            self._remote = Remote(found, space_id, timeouts=self._timeouts)
            self._credentials = found
        return self._remote

    def _renew(self, remote: Remote) -> None:
        """Ask for a new token in good time; the old one lives until the new one is used."""
        found = self._credentials
        if found is None or found.expires_ms is None:
            return
        enrolment = replica.enrolment(self._store)
        offset_ms = 0 if enrolment is None else enrolment.offset_ms
        if found.expires_ms - (now_ms() + offset_ms) > RENEW_MS:
            return
        token, expires_ms = remote.new_token()
        fresh = replace(found, token=token, expires_ms=expires_ms)
        fresh.write(self._store.path)
        self._credentials, remote.token = fresh, token


class _Run:
    """One run: what it may still do, and what it has done."""

    def __init__(
        self, client: SyncClient, attempts: int, step: Callable[[Outcome], None] | None
    ) -> None:
        self.outcome = Outcome()
        self._client = client
        self._store = client.store
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
        client = self._client
        if client._target is not None:  # noqa: SLF001 - the run is a part of the client
            self._start = client._target.traffic  # noqa: SLF001
            self._push(None)
            replica.mark_success(self._store)
            return
        self._remote = remote = client._follow_credentials()  # noqa: SLF001
        self._start = (remote.transport.bytes_sent, remote.transport.bytes_received)
        client._renew(remote)  # noqa: SLF001
        puller: Puller | None = None
        if not client._push_only:  # noqa: SLF001
            puller = self._puller(remote)
            if self._enrolment.cursor == 0:
                # Before anything is sent: see Puller.bootstrap.
                puller.bootstrap()
        self._fenced(remote, lambda: self._push(remote))
        if puller is not None:
            self._fenced(remote, puller.changes)
        else:
            replica.mark_success(self._store)

    @property
    def _enrolment(self) -> Enrolment:
        found = replica.enrolment(self._store)
        if found is None:
            raise UsageError(f"{self._store.path} is not enrolled any more")
        return found

    def _puller(self, remote: Remote) -> Puller:
        folder = find_bundle(self._store)
        bundle = (folder, read_manifest(folder))
        return Puller(self._store, remote, bundle, attempt=self._attempt, pulled=self._pulled)

    def _fenced(self, remote: Remote, work: Callable[[], None]) -> None:
        """Do something; where the server has forgotten deletions since, pull everything first."""
        try:
            work()
        except ServerError as error:
            if error.code != "fenced":
                raise
            self._puller(remote).everything()
            work()

    # --- pushing

    def _push(self, remote: Remote | None) -> None:
        stuck = 0
        while batch := replica.outgoing(self._store, limit=MAX_ITEMS):
            with_text = self._with_text(remote)
            items, unsendable = self._items(batch, with_text=with_text)
            if unsendable:
                self._settle(unsendable, self._enrolment.offset_ms)
                continue
            frame, count = self._frame(items)
            if not count:
                verdict = Verdict(items[0].id, items[0].stamp, "too_large")
                self._settle([verdict], self._enrolment.offset_ms)
                continue
            self._within_cap(len(frame))
            results, offset_ms = self._send(remote, frame, items[:count])
            pairs = zip(items, results, strict=False)
            verdicts = [Verdict(item.id, item.stamp, *result) for item, result in pairs]
            self._settle(verdicts, offset_ms)
            ahead = all(verdict.status == "clock_ahead" for verdict in verdicts)
            stuck = stuck + 1 if ahead else 0
            if stuck > 1:
                raise NetworkError(
                    "the server's clock is behind the stamps that it has accepted before: waiting for it"
                )

    def _with_text(self, remote: Remote | None) -> bool:
        found = replica.enrolment(self._store)
        if found is None and remote is not None:
            raise UsageError(f"{self._store.path} is not enrolled any more")
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
        full = self._client._encoder().encode(texts, kind="document").full  # noqa: SLF001
        if full is None:
            raise UsageError(f"the bundle of {self._store.path} gives no full vectors")
        ends = np.cumsum([len(one.spans) for one in batch])
        parts = np.split(full.astype(np.float16), ends[:-1])
        return {one.id: part for one, part in zip(batch, parts, strict=True)}

    def _frame(self, items: Sequence[Item]) -> tuple[bytes, int]:
        """As many of the first items as fit into a body; 0 where not even one does."""
        limit = self._client._body_bytes  # noqa: SLF001
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
        header = {"cursor": self._enrolment.cursor} if self._remote is not None else {}
        while count:
            frame = encode_items(header, items[:count], like=like)
            if len(frame) <= MAX_BODY_BYTES:
                return frame, count
            count //= 2
        return b"", 0

    def _send(
        self, remote: Remote | None, frame: bytes, items: Sequence[Item]
    ) -> tuple[Sequence[tuple[str, int]], int]:
        target = self._client._target  # noqa: SLF001
        if remote is None:
            assert target is not None
            return self._attempt(lambda: target.push(items)), 0
        names = [item.id for item in items]
        pushed: Pushed = self._attempt(lambda: self._push_once(remote, frame, names))
        return pushed.results, pushed.offset_ms

    def _push_once(self, remote: Remote, frame: bytes, names: Sequence[str]) -> Pushed:
        client = self._client
        remote.transport.open()  # what cannot go out is not marked as sent
        fresh = replica.mark_sent(self._store, names)
        try:
            answer = remote.push(frame, len(names))
        except ServerError as error:
            if error.status < 500:
                replica.unmark_sent(self._store, fresh)
            raise
        except NetworkError:
            # Perhaps the uplink is too slow for so much at once.
            client._body_bytes = max(client._body_bytes // 2, LEAST_BODY_BYTES)  # noqa: SLF001
            raise
        client._body_bytes = min(client._body_bytes * 2, MAX_BODY_BYTES)  # noqa: SLF001
        return answer

    def _settle(self, verdicts: Sequence[Verdict], offset_ms: int) -> None:
        replica.acknowledge(self._store, verdicts, offset_ms=offset_ms)
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
                    if same or error.code in ("fenced", "head_unknown"):
                        raise
                    refused = error
                    continue
                wait_s = backoff.failed(error.retry_after_s)
                if backoff.failures >= self._attempts or wait_s > 2 * ATTEMPT_WAIT_S:
                    raise
                time.sleep(wait_s)

    def _left(self) -> int | None:
        most = self._client.policy.max_bytes
        return None if most is None else most - sum(self._traffic())

    def _within_cap(self, size_bytes: int) -> None:
        """Stop before a request that would go beyond the run's byte cap; the first one always goes."""
        left = self._left()
        if left is not None and not self._first and left < max(size_bytes, 1):
            most = self._client.policy.max_bytes
            raise _HoldError(f"this run's {most:,} bytes are used up")

    def _traffic(self) -> tuple[int, int]:
        target = self._client._target  # noqa: SLF001
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


class _Runner:
    """A thread that syncs again and again."""

    def __init__(
        self,
        client: SyncClient,
        interval_s: float,
        backoff: Backoff,
        told: tuple[
            Callable[[Outcome], None] | None,
            Callable[[Sequence[DeadLetter]], None] | None,
            Callable[[Outcome], None] | None,
        ],
    ) -> None:
        self._client = client
        self._interval_s = interval_s
        self._backoff = backoff
        self._notify, self._notify_dead, self._step = told
        self._condition = threading.Condition()
        self._stopping = False
        self._woken = False
        self._now = False
        self._thread = threading.Thread(target=self._loop, name="edge-mrl-sync", daemon=True)

    def start(self) -> None:
        """Start."""
        self._thread.start()

    def stop(self, timeout_s: float | None) -> None:
        """End."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def wake(self, *, now: bool) -> None:
        """Run at once."""
        with self._condition:
            self._woken, self._now = True, self._now or now
            self._condition.notify_all()

    def _loop(self) -> None:
        while not self._stopping:
            seen = self._newest()
            outcome = self._run_once()
            wait_s = self._wait_after(outcome)
            self._sleep(wait_s, seen, look=outcome.done)

    def _run_once(self) -> Outcome:
        with self._condition:
            now, self._now, self._woken = self._now, False, False
        try:
            outcome = self._client.sync_once(now=now, attempts=1, step=self._step)
        except EdgeMrlError as error:  # the store is busy, or worse: it stays so or it does not
            outcome = Outcome(waiting=str(error), cause="store")
            self._client._waiting = str(error)  # noqa: SLF001 - the runner is a part of the client
        if outcome.dead and self._notify_dead is not None:
            self._notify_dead(self._client.dead_letters())
        if self._notify is not None:
            self._notify(outcome)
        return outcome

    def _wait_after(self, outcome: Outcome) -> float:
        if outcome.done:
            self._backoff.succeeded()
            return self._interval_s
        if outcome.cause == "policy":
            return self._interval_s
        if outcome.pushed or outcome.pulled or outcome.deleted:
            self._backoff.succeeded()  # it gets on
        return self._backoff.failed(outcome.retry_after_s)

    def _sleep(self, wait_s: float, seen: int, *, look: bool) -> None:
        """Wait, but not longer than until something is written here, where the network is well."""
        until = time.monotonic() + wait_s
        with self._condition:
            while not self._stopping and not self._woken:
                left = until - time.monotonic()
                if left <= 0 or (look and self._newest() != seen):
                    return
                self._condition.wait(min(left, LOOK_S) if look else left)

    def _newest(self) -> int:
        """The newest stamp that waits: another one means that something was written."""
        try:
            return replica.newest_queued(self._client.store)
        except StoreError:
            return 0


def retry_letters(
    store: Store, encoder: Callable[[], Encoder], ids: Iterable[str] | None = None
) -> int:
    """Queue dead letters again; documents that were deleted elsewhere are embedded and put again."""
    queued, documents = replica.retry_letters(store, ids)
    return queued + _put_again(store, encoder, documents)


def _put_again(store: Store, encoder: Callable[[], Encoder], documents: Sequence[Document]) -> int:
    if not documents:
        return 0
    from edge_mrl.index import embed

    store.put(embed(encoder(), documents, store.rule, store.keep_full))
    return len(documents)


def status_of(store: Store, waiting: str | None = None) -> Status:
    """Where a store's sync stands.

    Raises:
        UsageError: It is not enrolled.
    """
    found = replica.enrolment(store)
    if found is None:
        raise UsageError(
            f"{store.path} is not enrolled: `edge-mrl enroll --server URL --code CODE --store "
            f"{store.path}`"
        )
    return Status(
        found.server,
        found.tenant,
        found.device,
        replica.queue(store),
        replica.count_letters(store),
        found.cursor,
        found.success_ms or None,
        found.with_text,
        waiting,
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

"""Keeping a store and a server level, whatever the network does.

Pushing empties the store's queue, pulling brings what other devices wrote; both are harmless to repeat,
so that anything may fail at any moment. ``SyncClient`` does it once or keeps doing it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from edge_mrl.encode import Encoder
from edge_mrl.errors import EdgeMrlError, UsageError
from edge_mrl.index import Index
from edge_mrl.store import Store, replica
from edge_mrl.sync.background import Runner
from edge_mrl.sync.enrollment import Link, Status, enroll, move, retry_letters, status_of
from edge_mrl.sync.policy import MAX_WAIT_S, Backoff, Conditions, Policy
from edge_mrl.sync.reranker import Reranker
from edge_mrl.sync.run import ATTEMPTS, BodySize, Cause, Means, Outcome, Run, Target

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_mrl.store import DeadLetter
    from edge_mrl.sync.transport import Timeouts

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

#: Seconds between two looks for what other devices wrote.
INTERVAL_S = 60.0


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
        self._link = Link(store, timeouts)
        self._body = BodySize()
        self._owned: list[Any] = []
        self._lock = threading.Lock()
        self._waiting: str | None = None
        self._runner: Runner | None = None
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
                client._link.follow()
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
            means = Means(
                self._store, self._link, self._target, self._encoder, self.policy, self._body,
                self._push_only,
            )  # fmt: skip
            run = Run(means, attempts, step)
            reason = None if now else self.policy.why_not(self._conditions())
            if reason is not None:
                run.outcome = replace(run.outcome, waiting=reason, cause="policy")
            else:
                run.all()
            self._waiting = run.outcome.waiting
            return run.outcome

    def attempt(self, *, now: bool, step: Callable[[Outcome], None] | None = None) -> Outcome:
        """Sync once, each request being sent once; whatever goes wrong is part of the outcome.

        Args:
            now: Whatever the policy says of the conditions.
            step: Called after each commit with what was done so far.
        """
        try:
            return self.sync_once(now=now, attempts=1, step=step)
        except EdgeMrlError as error:  # the store is busy, or worse: it stays so or it does not
            self._waiting = str(error)
            return Outcome(waiting=str(error), cause="store")

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
        self._runner = Runner(self, interval_s, backoff, (notify, notify_dead, step))
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
        return replica.list_dead_letters(self._store)

    def retry(self, ids: Iterable[str] | None = None) -> int:
        """Send dead letters again, all or some; what was deleted elsewhere is put again.

        Returns:
            How many are queued.
        """
        return retry_letters(self._store, self._encoder, ids)

    def drop(self, ids: Iterable[str] | None = None) -> int:
        """Forget dead letters, all or some; the store's documents stay. Returns how many."""
        return replica.drop_dead_letters(self._store, ids)

    def resend(self) -> None:
        """Have the next sync pull everything, and send again what the server lacks of this device's."""
        replica.resend(self._store)

    def set_with_text(self, *, with_text: bool) -> None:
        """Choose whether text and metadata are sent; everything is then sent once more with them."""
        replica.set_with_text(self._store, with_text=with_text)

    def set_margin(self, margin: float | None) -> None:
        """Remember when ``Index.search(rerank="auto")`` asks the server.

        Args:
            margin: The doubt up to which the local order is kept, as ``edge_mrl.search.calibrate_margin``
                finds it; None for the default.

        Raises:
            NotEnrolledError: The store is not enrolled.
        """
        replica.set_margin(self._store, margin)

    def rerank(
        self, ids: Sequence[str], query: NDArray[np.float32], *, deadline_s: float
    ) -> Mapping[str, float]:
        """Scores of documents by the server's full vectors: what ``Index.search(rerank=client)`` asks.

        Does not wait for a sync that is going on. See ``edge_mrl.sync.Reranker``.
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
            self._link.close()
            if self._target is not None:
                self._target.close()
            for thing in self._owned:
                thing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

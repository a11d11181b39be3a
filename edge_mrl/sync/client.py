"""Keeping a store and a server in sync, whatever the network does.

Pushing empties the store's queue; pulling brings what other devices wrote. Both are harmless to repeat,
so anything may fail at any moment. ``SyncClient`` syncs once, or keeps syncing in the background.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from edge_mrl.encode import Encoder
from edge_mrl.errors import EdgeMrlError, UsageError
from edge_mrl.ingest import embed
from edge_mrl.store import Store, find_bundle, replica
from edge_mrl.sync.background import BackgroundSync, Listener
from edge_mrl.sync.budget import ATTEMPTS, Budget
from edge_mrl.sync.link import Link
from edge_mrl.sync.outcome import Outcome, internal_fault
from edge_mrl.sync.policy import MAX_WAIT_S, Backoff, Conditions, Policy
from edge_mrl.sync.pushes.body import BodySize
from edge_mrl.sync.reranker import Reranker
from edge_mrl.sync.run import Run
from edge_mrl.sync.status import Status, status_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_mrl.store import DeadLetter, Key
    from edge_mrl.sync.targets.target import PushTarget
    from edge_mrl.sync.transport import Timeouts

__all__ = ["SyncClient", "retry_dead_letters"]

#: Seconds between two looks for what other devices wrote.
INTERVAL_S = 60.0


class WithStore(Protocol):
    """A store together with the encoder it was made with: an ``Index``."""

    @property
    def store(self) -> Store:
        """The store."""

    @property
    def encoder(self) -> Encoder:
        """The encoder."""


class SyncClient:
    """Syncs one store with one server. Safe to share between threads; it sends one request at a time.

    Attributes:
        policy: When it may use the network.
    """

    def __init__(
        self,
        source: WithStore,
        *,
        target: PushTarget | None,
        policy: Policy,
        conditions: Callable[[], Conditions],
        push_only: bool,
        timeouts: Timeouts | None,
    ) -> None:
        self.policy = policy
        self._source = source
        self._store = source.store
        self._target = target
        self._conditions = conditions
        self._push_only = push_only
        self._link = Link(source.store, timeouts)
        self._body = BodySize()
        self._opened: _OpenedStore | None = None
        self._lock = threading.Lock()
        self._waiting: str | None = None
        self._background: BackgroundSync | None = None
        self._rerank_lock = threading.Lock()
        self._reranker: Reranker | None = None

    @classmethod
    def open(
        cls,
        store: WithStore | Store | str | os.PathLike[str],
        *,
        policy: Policy | None = None,
        conditions: Callable[[], Conditions] = Conditions,
        push_only: bool = False,
        target: PushTarget | None = None,
        timeouts: Timeouts | None = None,
        key: Key | None = None,
    ) -> SyncClient:
        """Open what a store needs to be synced.

        Args:
            store: An open index or an open store, which the caller closes, or the path of a store.
            policy: When it may use the network.
            conditions: Called before each run; returns the state of power and network.
            push_only: Push, and do not pull.
            target: Where to push instead of to the server that the store is enrolled with; then nothing
                is pulled.
            timeouts: How long to wait.
            key: Gives the key of an encrypted store that is named by its path.

        Raises:
            NotEnrolledError: The store is not enrolled.
            UsageError: The store is a copy of one that is enrolled.
            StoreError: The store cannot be used.
        """
        opened: _OpenedStore | None = None
        source: WithStore
        if isinstance(store, str | os.PathLike):
            source = opened = _OpenedStore(Store.open(store, key=key), owned=True)
        elif isinstance(store, Store):
            source = opened = _OpenedStore(store, owned=False)
        else:
            source = store
        client = cls(
            source,
            target=target,
            policy=policy or Policy(),
            conditions=conditions,
            push_only=push_only,
            timeouts=timeouts,
        )
        client._opened = opened
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

        Failures of the network and refusals of the server are part of the outcome, not errors.

        Args:
            now: Sync whatever the policy says about the conditions.
            attempts: How often each request is sent at most.
            step: Called after each commit with the outcome so far.

        Raises:
            StoreError: The store cannot be used.
        """
        with self._lock:
            reason = None if now else self.policy.why_not(self._conditions())
            if reason is not None:
                outcome = Outcome(waiting=reason, cause="policy")
            else:
                run = Run(
                    store=self._store,
                    link=self._link,
                    encoder=self._encoder,
                    budget=Budget(max_bytes=self.policy.max_bytes, attempts=attempts),
                    target=self._target,
                    body=self._body,
                    push_only=self._push_only,
                    step=step,
                )
                outcome = run.sync()
            self._waiting = outcome.waiting
            return outcome

    def attempt(self, *, now: bool, step: Callable[[Outcome], None] | None = None) -> Outcome:
        """Sync once, sending each request once; whatever fails is part of the outcome.

        Args:
            now: Sync whatever the policy says about the conditions.
            step: Called after each commit with the outcome so far.
        """
        try:
            return self.sync_once(now=now, attempts=1, step=step)
        except EdgeMrlError as error:  # the store is busy, or damaged
            self._waiting = str(error)
            return Outcome(waiting=str(error), cause="store")
        except Exception as error:  # noqa: BLE001 - nobody is there to catch it
            waiting, cause = internal_fault(error)
            self._waiting = waiting
            return Outcome(waiting=waiting, cause=cause)

    def start(
        self,
        *,
        interval_s: float = INTERVAL_S,
        max_wait_s: float = MAX_WAIT_S,
        notify: Callable[[Outcome], None] | None = None,
        notify_dead: Callable[[Sequence[DeadLetter]], None] | None = None,
        step: Callable[[Outcome], None] | None = None,
    ) -> None:
        """Keep syncing in a thread: soon after each write here, and regularly for what others wrote.

        Args:
            interval_s: Seconds between two pulls.
            max_wait_s: The longest wait after failures, in seconds.
            notify: Called after each run, in that thread.
            notify_dead: Called with all dead letters after a run that added some.
            step: Called after each commit with the outcome so far.

        Raises:
            UsageError: The client is already running.
        """
        if self._background is not None:
            raise UsageError("the client is already running: call stop() before starting it again")
        self._background = BackgroundSync(
            self,
            interval_s=interval_s,
            backoff=Backoff(cap_s=max_wait_s),
            listener=_Callbacks(notify=notify, notify_dead=notify_dead, step=step),
        )
        self._background.start()

    def stop(self, *, timeout_s: float | None = None) -> None:
        """End the thread after its current request; what waits stays in the store.

        Args:
            timeout_s: Seconds to wait for the thread at most; None to wait until it has ended.
        """
        background, self._background = self._background, None
        if background is not None:
            background.stop(timeout_s)

    def sync_now(self) -> None:
        """Have the thread sync at once, whatever the policy says about the conditions.

        Raises:
            UsageError: The client is not running.
        """
        if self._background is None:
            raise UsageError(
                "the client is not running: call start() first, or sync_once(now=True)"
            )
        self._background.wake(now=True)

    def report(self, waiting: str) -> None:
        """Note why nothing is synced now: ``status().waiting``."""
        self._waiting = waiting

    def status(self) -> Status:
        """Where the store's sync stands."""
        return status_of(self._store, self._waiting)

    def dead_letters(self) -> list[DeadLetter]:
        """Versions that will not be sent, by id."""
        return replica.list_dead_letters(self._store)

    def retry(self, ids: Iterable[str] | None = None) -> int:
        """Queue dead letters again; documents that were deleted elsewhere are stored again.

        Args:
            ids: Documents; None for all dead letters.

        Returns:
            How many were queued.
        """
        return retry_dead_letters(self._store, self._encoder, ids)

    def drop(self, ids: Iterable[str] | None = None) -> int:
        """Delete dead letters; the store's documents stay.

        Args:
            ids: Documents; None for all dead letters.

        Returns:
            How many were deleted.
        """
        return replica.drop_dead_letters(self._store, ids)

    def resend(self) -> None:
        """Have the next sync pull everything, and send again what the server lacks of this device's."""
        replica.resend(self._store)

    def set_with_text(self, *, with_text: bool) -> None:
        """Choose whether text and metadata are sent; if so, everything is sent again with them."""
        replica.set_with_text(self._store, with_text=with_text)

    def set_margin(self, margin: float | None) -> None:
        """Choose when ``Index.search(rerank="auto")`` asks the server.

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
        """Ask the server how well documents answer a query: what ``Index.search(rerank=client)`` calls.

        It does not wait for a sync that is running. See ``edge_mrl.sync.Reranker.rerank``.
        """
        with self._rerank_lock:
            if self._reranker is None:
                self._reranker = Reranker(self._store, self._store.binding.space_id)
            reranker = self._reranker
        return reranker.rerank(ids, query, deadline_s=deadline_s)

    def close(self) -> None:
        """End the thread, and close the connections and what ``open`` opened."""
        self.stop()
        if self._reranker is not None:
            self._reranker.close()
        with self._lock:
            self._link.close()
            if self._target is not None:
                self._target.close()
            if self._opened is not None:
                self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _encoder(self) -> Encoder:
        return self._source.encoder


class _OpenedStore:
    """A store whose encoder is opened when it is first needed: most syncs embed nothing."""

    def __init__(self, store: Store, *, owned: bool) -> None:
        self._store = store
        self._owned = owned
        self._encoder: Encoder | None = None

    @property
    def store(self) -> Store:
        """The store."""
        return self._store

    @property
    def encoder(self) -> Encoder:
        """The encoder of the store's bundle, opened again after another process has reindexed."""
        manifest = None if self._encoder is None else self._encoder.manifest
        if manifest is None or (manifest.space_id, manifest.code_id) != self.store.binding.code:
            self._close_encoder()
            self._encoder = Encoder.open(find_bundle(self.store))
        assert self._encoder is not None
        return self._encoder

    def close(self) -> None:
        """Close the encoder, and the store if it was opened here."""
        self._close_encoder()
        if self._owned:
            self.store.close()

    def _close_encoder(self) -> None:
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Callbacks(Listener):
    """A listener of functions."""

    notify: Callable[[Outcome], None] | None
    notify_dead: Callable[[Sequence[DeadLetter]], None] | None
    step: Callable[[Outcome], None] | None

    def committed(self, outcome: Outcome) -> None:
        if self.step is not None:
            self.step(outcome)

    def dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        if self.notify_dead is not None:
            self.notify_dead(letters)

    def ran(self, outcome: Outcome) -> None:
        if self.notify is not None:
            self.notify(outcome)


def retry_dead_letters(
    store: Store, encoder: Callable[[], Encoder], ids: Iterable[str] | None = None
) -> int:
    """Queue dead letters again; documents that were deleted elsewhere are embedded and stored again.

    Args:
        store: An open store.
        encoder: Opens the store's encoder.
        ids: Documents; None for all dead letters.

    Returns:
        How many were queued.
    """
    queued, documents = replica.requeue_dead_letters(store, ids)
    if documents:
        store.put(embed(encoder(), documents, store.rule, store.keep_full))
    return queued + len(documents)

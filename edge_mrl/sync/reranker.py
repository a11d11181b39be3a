"""Asking the server for scores: document ids and the query's full vector are sent, cosines come back.

A search does not wait for the server longer than its deadline.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl.errors import EdgeMrlError, NetworkError, NotEnrolledError
from edge_mrl.sync.credentials import Credentials
from edge_mrl.sync.policy import Backoff
from edge_mrl.sync.remote import Remote
from edge_mrl.sync.transport import Timeouts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_mrl.store import Store

__all__ = ["Reranker"]

#: How long a request may go on after its search has ended, so that its connection stays usable, in
#: seconds.
PATIENCE_S = 2.0


class Reranker:
    """Asks a store's server for scores, through a connection of its own that stays open.

    Safe to share between threads. It answers one search at a time.

    Args:
        store: The open store, which has its credentials; or the file of a plain one.
        space_id: The embedding space of the store's full vectors.
    """

    def __init__(self, store: Store | Path, space_id: str) -> None:
        self._store = store
        self._space_id = space_id
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy = False
        self._backoff = Backoff(cap_s=30.0, first_s=0.5)
        self._silent_until = 0.0

    def rerank(
        self, ids: Sequence[str], query: NDArray[np.float32], *, deadline_s: float
    ) -> Mapping[str, float]:
        """Ask the server how well documents answer a query.

        Args:
            ids: At most 1,000 documents.
            query: The query's full vector, float32[full_dim].
            deadline_s: Seconds until this call gives up. The request itself may go on for two seconds,
                so that the connection can be used again.

        Returns:
            Cosines by id, in [-1, 1], for the documents that the server has.

        Raises:
            NetworkError: The server did not answer in time, or is busy with an earlier search. After a
                failure it is not asked for some seconds.
        """
        job = _Job(list(ids), query)
        with self._lock:
            if time.monotonic() < self._silent_until:
                raise NetworkError(
                    "the server did not answer a moment ago; it will be asked again soon"
                )
            if self._busy:
                raise NetworkError("the server is still busy with an earlier search")
            self._busy = True
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="edge-mrl-rerank", daemon=True
                )
                self._thread.start()
        self._jobs.put(job)
        if not job.done.wait(deadline_s):
            raise NetworkError(f"the server did not answer within {deadline_s * 1000:.0f} ms")
        if job.error is not None:
            raise NetworkError(str(job.error)) from job.error
        return job.scores

    def close(self) -> None:
        """End the thread and the connection."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            thread.join(PATIENCE_S + 1)

    def _work(self) -> None:
        remote: Remote | None = None
        known: Credentials | None = None
        while (job := self._jobs.get()) is not None:
            try:
                found = Credentials.read(self._store)
                if found is None:
                    store = self._store
                    raise NotEnrolledError(store if isinstance(store, Path) else store.path)
                if remote is None or found != known:
                    timeouts = Timeouts(connect_s=PATIENCE_S, read_s=PATIENCE_S)
                    remote, known = Remote(found, self._space_id, timeouts=timeouts), found
                job.scores = remote.rerank(job.ids, job.query, total_s=PATIENCE_S)
            except EdgeMrlError as error:
                job.error = error
            with self._lock:
                self._busy = False
                if job.error is None:
                    self._backoff.succeeded()
                else:
                    wait_s = self._backoff.failed(getattr(job.error, "retry_after_s", None))
                    self._silent_until = time.monotonic() + wait_s
            job.done.set()
        if remote is not None:
            remote.close()


class _Job:
    """One request for scores, and its result."""

    __slots__ = ("done", "error", "ids", "query", "scores")

    def __init__(self, ids: list[str], query: NDArray[np.float32]) -> None:
        self.ids = ids
        self.query = query
        self.scores: Mapping[str, float] = {}
        self.error: EdgeMrlError | None = None
        self.done = threading.Event()

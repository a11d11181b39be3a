"""Asking the server for the order: a shortlist's ids and the query's full vector go up, scores come back.

The local order is always at hand. The server has until a deadline; whatever it does until then, or does
not do, the search is over by then, and says whose order it is.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edge_mrl.errors import EdgeMrlError, NetworkError, NotEnrolledError, UsageError
from edge_mrl.store import replica
from edge_mrl.sync import Backoff, Credentials, Remote, Timeouts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.store import Store

__all__ = [
    "DEFAULT_MARGIN",
    "Margin",
    "Reranker",
    "Scorer",
    "calibrate_margin",
    "doubt",
    "merge",
]

#: How far the scores of 128-dimensional codes are from those of full vectors, as a standard deviation
#: after a linear fit over the best 100: 0.042 to 0.062 on four sets of data.
NOISE = 0.05
#: Doubt up to which ``rerank="auto"`` keeps the local order (see ``doubt``): with codes cut to 128
#: dimensions 13 to 29 % of the questions, at 99.0 to 100.0 % of the nDCG@10; behind linear heads 17 to
#: 35 %, at 100 % (bench/results/rerank.json).
DEFAULT_MARGIN = 0.25
#: With fewer documents that both have scored, one scale cannot be told from the other.
LEAST_COMMON = 5
#: How long a request may go on behind its search, so that its connection stays usable, in seconds.
PATIENCE_S = 2.0


class Scorer(Protocol):
    """What a search can ask for scores: a ``Reranker``, or a ``SyncClient``."""

    def rerank(
        self, ids: Sequence[str], query: NDArray[np.float32], *, deadline_s: float
    ) -> Mapping[str, float]:
        """Scores of documents, for those that the server has, within a time.

        Raises:
            NetworkError: There are none; at the deadline at the latest.
        """


class Reranker:
    """Asks a store's server, through a connection of its own that stays open.

    Args:
        store: The store's file, beside which the credentials are.
        space_id: The space of its vectors.
    """

    def __init__(self, store: Path, space_id: str) -> None:
        self._path = store
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
        """Scores of documents, for those that the server has.

        Args:
            ids: At most 1,000 documents.
            query: float32[D].
            deadline_s: When to give up; the request itself may go on for a moment behind it.

        Raises:
            NetworkError: There are none. For some seconds after a failure the server is not asked.
        """
        job = _Job(list(ids), query)
        with self._lock:
            if time.monotonic() < self._silent_until:
                raise NetworkError("the server did not answer a moment ago")
            if self._busy:
                raise NetworkError("the server is still busy with an earlier question")
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
                found = Credentials.read(self._path)
                if found is None:
                    raise NotEnrolledError(self._path)
                if remote is None or found != known:
                    timeouts = Timeouts(connect_s=PATIENCE_S, read_s=PATIENCE_S)
                    remote, known = Remote(found, self._space_id, timeouts=timeouts), found
                job.scores = remote.rerank(job.ids, job.query, whole_s=PATIENCE_S)
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
    """A question, and what became of it."""

    __slots__ = ("done", "error", "ids", "query", "scores")

    def __init__(self, ids: list[str], query: NDArray[np.float32]) -> None:
        self.ids = ids
        self.query = query
        self.scores: Mapping[str, float] = {}
        self.error: EdgeMrlError | None = None
        self.done = threading.Event()


def merge(
    local: Sequence[tuple[str, float]],
    server: Mapping[str, float],
    own: Callable[[Sequence[str]], Mapping[str, float]],
) -> dict[str, float] | None:
    """One scale for all: the server's scores, and for documents that it lacks the nearest to them.

    Where this store has the full vectors, the score is exact; else it is what the straight line through
    the documents that both have scored says.

    Args:
        local: Ids and local scores.
        server: The server's scores.
        own: Gives exact scores by full vectors, for those documents whose are here.

    Returns:
        Scores by id; None where too few documents are on the server to compare.
    """
    scores = dict(server)
    missing = [name for name, _ in local if name not in scores]
    if missing:
        scores |= own(missing)
    missing = [name for name, _ in local if name not in scores]
    if not missing:
        return scores
    both = [(score, scores[name]) for name, score in local if name in scores]
    if len(both) < LEAST_COMMON:
        return None
    x, y = np.array(both, np.float64).T
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum()) / spread if spread > 0 else 1.0
    by_name = dict(local)
    for name in missing:
        scores[name] = float(y.mean() + slope * (by_name[name] - x.mean()))
    return scores


@dataclass(frozen=True, slots=True)
class Margin:
    """What calibrating found.

    Attributes:
        margin: The doubt up to which the local order is kept.
        noise: The standard deviation between local and full scores.
        calls_saved: The share of the questions that do not reach the server.
        kept: The quality with it, as a share of that of asking always.
    """

    margin: float
    noise: float
    calls_saved: float
    kept: float


def doubt(scores: Sequence[float] | NDArray[Any], *, noise: float = NOISE) -> float:
    """How many documents are to be expected above the first one, once the full vectors decide.

    Each score is taken as the full vector's with an error of a standard deviation, so that the j-th
    overtakes the first with the probability that a normal variable of twice the variance exceeds their
    distance.

    Args:
        scores: Local scores of the shortlist, from the best.
        noise: The standard deviation.

    Returns:
        0 for one document or none; the more, the less the local order says.
    """
    values = np.asarray(scores, np.float64)
    if len(values) < 2:
        return 0.0
    distances = (values[0] - values[1:]) / (2 * noise)
    return float(sum(0.5 * math.erfc(d) for d in distances.tolist()))


def calibrate_margin(
    local: Sequence[Sequence[float]],
    quality_local: Sequence[float],
    quality_server: Sequence[float],
    *,
    keep: float = 0.995,
    noise: float = NOISE,
    store: Store | None = None,
) -> Margin:
    """Choose the margin for ``rerank="auto"`` on questions whose answers are known.

    Args:
        local: For each question the local scores of its shortlist, from the best.
        quality_local: For each question how good the local order is, say its nDCG@10.
        quality_server: The same for the server's order.
        keep: The share of the server's mean quality that is to be kept at least.
        noise: The standard deviation between local and full scores.
        store: Where to keep it, for all searches with ``rerank="auto"``.

    Returns:
        The margin that saves most calls.

    Raises:
        UsageError: No questions, or lists of different lengths.
    """
    if not local or not len(local) == len(quality_local) == len(quality_server):
        raise UsageError(
            f"{len(local)} questions, {len(quality_local)} and {len(quality_server)} qualities: "
            "expected as many of each, and at least one"
        )
    doubts = np.array([doubt(scores, noise=noise) for scores in local])
    order = np.argsort(doubts, kind="stable")
    mine, theirs = np.asarray(quality_local, float), np.asarray(quality_server, float)
    # The mean when the first n of the order, the least doubtful, keep their local order.
    total = theirs.sum() + np.concatenate([[0.0], np.cumsum((mine - theirs)[order])])
    enough = np.flatnonzero(total >= keep * theirs.sum())
    count = int(enough[-1]) if len(enough) else 0
    margin = float(doubts[order[count - 1]]) if count else 0.0
    kept = float(total[count] / theirs.sum()) if theirs.sum() else 1.0
    found = Margin(margin, noise, count / len(doubts), kept)
    if store is not None:
        replica.set_margin(store, margin)
    return found

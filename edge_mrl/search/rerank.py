"""Reranking by a server's scores: merging them with local ones, and when to ask for them at all.

Arithmetic alone: ``edge_mrl.sync.Reranker`` is what asks a server. The local order is always available;
the server has until a deadline, and an answer that comes later is not used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edge_mrl.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "DEFAULT_MARGIN",
    "Margin",
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


class Scorer(Protocol):
    """What a search can ask for scores: a ``Reranker``, or a ``SyncClient``."""

    def rerank(
        self, ids: Sequence[str], query: NDArray[np.float32], *, deadline_s: float
    ) -> Mapping[str, float]:
        """Scores of documents, for those that the server has, within a time.

        Raises:
            NetworkError: There are none; at the deadline at the latest.
        """


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
) -> Margin:
    """Choose the margin for ``rerank="auto"`` on questions whose answers are known.

    Args:
        local: For each question the local scores of its shortlist, from the best.
        quality_local: For each question how good the local order is, say its nDCG@10.
        quality_server: The same for the server's order.
        keep: The share of the server's mean quality that is to be kept at least.
        noise: The standard deviation between local and full scores.

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
    return Margin(margin, noise, count / len(doubts), kept)

"""Retrieval metrics by query, and the uncertainty of a ratio of their means.

The metrics are trec_eval's own, by pytrec_eval (Van Gysel and de Rijke, SIGIR 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BOOTSTRAP_ROUNDS", "Interval", "QueryMetrics", "bootstrap_ratio", "judge", "ratio"]

BOOTSTRAP_ROUNDS = 2000
#: Results on a page.
TOP = 10
#: The longest ranking that a metric reads.
DEEP = 100


@dataclass(frozen=True, slots=True)
class QueryMetrics:
    """Metrics of each query, float64[queries] each."""

    ndcg_at_10: NDArray[np.float64]
    recall_at_100: NDArray[np.float64]
    mrr_at_10: NDArray[np.float64]

    def means(self) -> dict[str, float]:
        """The mean of each metric over the queries."""
        return {
            name: round(float(getattr(self, name).mean()), 4) for name in self.__dataclass_fields__
        }


@dataclass(frozen=True, slots=True)
class Interval:
    """A ratio with the ends of its 95 % interval."""

    ratio: float
    low: float
    high: float


def judge(found: NDArray[np.intp], relevance: Sequence[dict[int, float]]) -> QueryMetrics:
    """nDCG@10 (linear gains), recall@100 and MRR@10 of some rankings, as in trec_eval.

    Args:
        found: intp[queries, k], rows from the best; -1 for no result.
        relevance: For each query, the gain of each relevant document's row, whole numbers above 0.
    """
    import pytrec_eval

    wanted = {"ndcg_cut.10", "recall.100"}
    judged = {
        str(query): {str(row): round(gain) for row, gain in gains.items()}
        for query, gains in enumerate(relevance)
    }
    by_query = pytrec_eval.RelevanceEvaluator(judged, wanted).evaluate(_run(found[:, :DEEP]))
    first = pytrec_eval.RelevanceEvaluator(judged, {"recip_rank"}).evaluate(_run(found[:, :TOP]))
    rows = [
        [by_query[q]["ndcg_cut_10"], by_query[q]["recall_100"], first[q]["recip_rank"]]
        for q in judged
    ]
    ndcg, recall, mrr = np.array(rows, dtype=np.float64).T
    return QueryMetrics(ndcg, recall, mrr)


def _run(found: NDArray[np.intp]) -> dict[str, dict[str, float]]:
    """Rankings with decreasing scores, so that trec_eval breaks no ties."""
    return {
        str(query): {str(row): float(-place) for place, row in enumerate(rows) if row >= 0}
        or {"none": 0.0}
        for query, rows in enumerate(found.tolist())
    }


def ratio(ours: NDArray[np.float64], base: NDArray[np.float64], *, seed: int = 1) -> Interval:
    """Ratio of two means over the same queries, with its 95 % bootstrap interval over queries.

    Args:
        ours: float64[queries].
        base: float64[queries], not all 0.
        seed: Seed of the resampling; equal seeds draw the same queries.
    """
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(ours), (BOOTSTRAP_ROUNDS, len(ours)))
    below = base[picks].mean(axis=1)
    drawn = ours[picks].mean(axis=1)[below > 0] / below[below > 0]
    low, high = np.quantile(drawn, [0.025, 0.975])
    middle = float(ours.mean() / base.mean())
    return Interval(round(middle, 4), round(float(low), 4), round(float(high), 4))


def bootstrap_ratio(
    ours: NDArray[np.float64], base: NDArray[np.float64], *, seed: int = 1
) -> dict[str, float]:
    """``ratio`` as values for JSON."""
    found = ratio(ours, base, seed=seed)
    return {"ratio": found.ratio, "low": found.low, "high": found.high}

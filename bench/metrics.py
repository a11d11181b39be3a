"""Retrieval metrics by query, and the uncertainty of a ratio of their means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["QueryMetrics", "bootstrap_ratio", "evaluate"]

BOOTSTRAP_ROUNDS = 2000


@dataclass(frozen=True, slots=True)
class QueryMetrics:
    """float64[queries] each."""

    ndcg_at_10: NDArray[np.float64]
    recall_at_100: NDArray[np.float64]
    mrr_at_10: NDArray[np.float64]

    def means(self) -> dict[str, float]:
        """Mean of each over the queries."""
        return {
            name: round(float(getattr(self, name).mean()), 4) for name in self.__dataclass_fields__
        }


def evaluate(scores: NDArray[np.float32], relevance: list[dict[int, float]]) -> QueryMetrics:
    """Score every document for every query, as trec_eval does (nDCG with linear gains).

    Args:
        scores: float32[queries, documents]; equal scores are ordered by document number,
            -inf stands for a document that was not found.
        relevance: For each query, the gain of each relevant document.
    """
    rows = [_one(row, gains) for row, gains in zip(scores, relevance, strict=True)]
    ndcg, recall, mrr = np.array(rows, dtype=np.float64).T
    return QueryMetrics(ndcg, recall, mrr)


def _one(scores: NDArray[np.float32], gains: dict[int, float]) -> tuple[float, float, float]:
    top = np.argsort(-scores, kind="stable")[:100]
    top = top[scores[top] > -np.inf]
    got = np.array([gains.get(int(document), 0.0) for document in top])
    best = np.sort(np.array(list(gains.values())))[::-1][:10]
    discounts = 1 / np.log2(np.arange(2, 12))
    ndcg = (got[:10] * discounts[: len(got[:10])]).sum() / (best * discounts[: len(best)]).sum()
    relevant = np.count_nonzero(list(gains.values()))
    first = np.flatnonzero(got[:10] > 0)
    mrr = 1 / (first[0] + 1) if len(first) else 0.0
    return float(ndcg), float(np.count_nonzero(got) / relevant), float(mrr)


def bootstrap_ratio(
    ours: NDArray[np.float64], base: NDArray[np.float64], *, seed: int = 1
) -> dict[str, float]:
    """Ratio of two means over the same queries, with its 95 % interval by resampling queries."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(ours), (BOOTSTRAP_ROUNDS, len(ours)))
    ratios = ours[picks].mean(axis=1) / base[picks].mean(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return {
        "ratio": round(float(ours.mean() / base.mean()), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }

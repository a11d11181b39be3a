"""Retrieval metrics from scores of every document, in numpy: a second opinion on trec_eval's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_mrl_export.quality.metrics import QueryMetrics, bootstrap_ratio

__all__ = ["QueryMetrics", "bootstrap_ratio", "evaluate"]


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

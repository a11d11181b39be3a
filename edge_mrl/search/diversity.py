"""Answers that say different things: maximal marginal relevance.

Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and producing
summaries", SIGIR 1998.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_mrl.codes import normalize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.search.scan import Match
    from edge_mrl.store import CodeTable

__all__ = ["candidates", "diversify"]

#: Candidates for each document that is to be returned, and the least number of them.
PER_ANSWER, LEAST = 5, 50


def candidates(k: int) -> int:
    """How many of the best documents k different ones are chosen from."""
    return max(PER_ANSWER * k, LEAST)


def diversify(matches: list[Match], table: CodeTable, *, k: int, diversity: float) -> list[Match]:
    """Choose documents one by one: near to the query, and far from those that were chosen before.

    The next one has the largest ``(1 - diversity) * score - diversity * nearest``, where ``nearest`` is
    the largest cosine of its best passage's code and those of the chosen ones.

    Args:
        matches: The best documents, from the best.
        table: The store's codes.
        k: The number of documents to return at most.
        diversity: From 0, the order of the scores, to 1, which looks at the differences alone.

    Returns:
        At most k matches, in the order in which they were chosen.
    """
    if not matches:
        return []
    vectors = _vectors(matches, table)
    scores = np.array([match.score for match in matches])
    nearest = np.full(len(matches), -np.inf)
    left = np.ones(len(matches), np.bool_)
    chosen: list[int] = []
    while len(chosen) < min(k, len(matches)):
        worth = scores if not chosen else (1 - diversity) * scores - diversity * nearest
        best = int(np.argmax(np.where(left, worth, -np.inf)))
        chosen.append(best)
        left[best] = False
        np.maximum(nearest, vectors @ vectors[best], out=nearest)
    return [matches[place] for place in chosen]


def _vectors(matches: list[Match], table: CodeTable) -> NDArray[np.float32]:
    """float32[n, dim]: the codes of the matches' passages, of length 1."""
    rows = np.array([match.row for match in matches], np.int64)
    order = np.argsort(rows)
    levels = table.gather_levels(rows[order])[0]
    vectors = np.empty(levels.shape, np.float32)
    vectors[order] = normalize(levels.astype(np.float32))
    return vectors

"""Exact search: every query against every code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge_mrl.codetable import as_floats, chunks, lengths

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.codetable import CodeTable

__all__ = ["Match", "nearest"]

#: Queries at a time, which bounds the scores that are held.
CHUNK_QUERIES = 16


@dataclass(frozen=True, slots=True)
class Match:
    """A document that answers a query.

    Attributes:
        key: The document's key.
        position: Its best passage, counted from 0; the first of equals.
        score: Cosine of that passage's code and the query's, in [-1, 1].
    """

    key: int
    position: int
    score: float


def nearest(queries: NDArray[np.int8], table: CodeTable, *, k: int) -> list[list[Match]]:
    """Find the documents whose best passage is nearest to each query.

    The result is exact and the same on every machine: dot products of codes are whole numbers.

    Args:
        queries: int8[q, dim].
        table: The store's codes.
        k: Most documents for each query.

    Returns:
        For each query at most k matches, by score from the best, equals by the documents' ids.
    """
    if not len(table.keys):
        return [[] for _ in queries]
    found = []
    for first in range(0, len(queries), CHUNK_QUERIES):
        some = queries[first : first + CHUNK_QUERIES]
        scores = _dots(some, table.codes)
        scores /= np.maximum(
            lengths(some)[:, None] * table.lengths, 1.0
        )  # a code of zeros scores 0
        found += [_best(row, table, k) for row in scores]
    return found


def _dots(queries: NDArray[np.int8], codes: NDArray[np.int8]) -> NDArray[np.float64]:
    """float64[q, n]: exact dot products."""
    left = as_floats(queries)
    dots = np.empty((len(queries), len(codes)), np.float64)
    for rows in chunks(codes):
        dots[:, rows] = left @ as_floats(codes[rows]).T
    return dots


def _best(scores: NDArray[np.float64], table: CodeTable, k: int) -> list[Match]:
    best = np.maximum.reduceat(scores, table.starts)
    if k < len(best):
        # Everything level with the k-th stays in, so that ids decide between equals.
        candidates = np.flatnonzero(best >= np.partition(best, -k)[-k])
    else:
        candidates = np.arange(len(best))
    order = np.lexsort((table.ranks[candidates], -best[candidates]))[:k]
    return [_match(scores, table, int(document)) for document in candidates[order]]


def _match(scores: NDArray[np.float64], table: CodeTable, document: int) -> Match:
    first = int(table.starts[document])
    after = int(table.starts[document + 1]) if document + 1 < len(table.starts) else len(scores)
    position = int(np.argmax(scores[first:after]))
    return Match(int(table.keys[document]), position, float(scores[first + position]))

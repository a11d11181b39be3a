"""Exact search: every query against every code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.store import CodeTable

__all__ = ["Match", "nearest"]

#: Codes turned into floats at a time: 8 MB, which small devices have and large caches hold.
CHUNK_VALUES = 2**21
#: Queries at a time, which bounds the scores that are held.
CHUNK_QUERIES = 16
#: Up to here a dot product of codes is below 2**24: exact in float32, whatever the order of its sum.
FLOAT32_EXACT_DIM = 1040


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
    norms = _norms(table.codes)
    found = []
    for first in range(0, len(queries), CHUNK_QUERIES):
        some = queries[first : first + CHUNK_QUERIES]
        scores = _dots(some, table.codes)
        scores /= np.maximum(_norms(some)[:, None] * norms, 1.0)  # a code of zeros scores 0
        found += [_best(row, table, k) for row in scores]
    return found


def _dots(queries: NDArray[np.int8], codes: NDArray[np.int8]) -> NDArray[np.float64]:
    """float64[q, n]: exact dot products."""
    dim = codes.shape[1]
    kind = np.float32 if dim <= FLOAT32_EXACT_DIM else np.float64
    left, rows = queries.astype(kind), max(1, CHUNK_VALUES // dim)
    dots = np.empty((len(queries), len(codes)), np.float64)
    for first in range(0, len(codes), rows):
        np.matmul(
            left, codes[first : first + rows].astype(kind).T, out=dots[:, first : first + rows]
        )
    return dots


def _norms(codes: NDArray[np.int8]) -> NDArray[np.float64]:
    """float64[n]: lengths of codes."""
    squares = np.einsum("nd,nd->n", codes, codes, dtype=np.int64, casting="safe")
    return np.sqrt(squares.astype(np.float64))


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

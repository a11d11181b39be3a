"""The scan: 1-bit codes of all rows, then whole codes of the best, exhaustive at each stage.

There is no graph index that could be damaged or miss a row. docs/benchmarks.md measures what the 1-bit
stage loses, compared with ``exact=True``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edge_mrl.codes import INT8
from edge_mrl.errors import UsageError
from edge_mrl.machine import require_room_for_products
from edge_mrl.search import compiled
from edge_mrl.search.compiled import TIES
from edge_mrl.search.funnel import DEFAULT_WIDTH, WORD_DIMS, Funnel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from edge_mrl.store import CodeTable

__all__ = ["EXACT_BELOW", "Match", "nearest"]

#: Up to this many times the width, all rows are scored: the 1-bit stage would save a millisecond at
#: most, and would miss more of the best rows than it does among a million.
EXACT_BELOW = 4
#: Values whose codes are gathered at a time: 2 MB of int8 codes, which small devices have.
CHUNK_VALUES = 2**21
#: The largest distance in a byte, how many words are summed in bytes, and the most that all but the last
#: of them may count where their sum could be larger.
MOST_BYTE, MOST_BYTE_WORDS = 254, 4
MOST_BEFORE_LAST = MOST_BYTE - WORD_DIMS


@dataclass(frozen=True, slots=True)
class Match:
    """A document that was found by its codes.

    Attributes:
        key: The document's key.
        row: The row of its best passage; of equals, the first.
        score: Cosine of that passage's code and the query's, in [-1, 1].
    """

    key: int
    row: int
    score: float


def nearest(
    queries: NDArray[np.int8],
    table: CodeTable,
    *,
    k: int,
    exact: bool = False,
    width: int = DEFAULT_WIDTH,
    keys: NDArray[np.int64] | None = None,
    funnel: Funnel | None = None,
) -> list[list[Match]]:
    """Find the documents whose best passage is nearest to each query.

    The result is the same on every machine, because distances and dot products of codes are integers.

    Args:
        queries: int8[q, dim].
        table: The store's codes.
        k: The number of documents to return at most for each query.
        exact: Score every row by its whole code.
        width: The least number of rows that the last stage of bits passes on. Where it is the only one, a
            wider stage never finds worse.
        keys: int64[n], the documents to search; None for all. They are selected before the scan, so that
            k documents are found if there are k.
        funnel: The stages; ``width`` is not used then. None compares all bits and then whole codes; in
            stores of many rows and long codes, half of the bits first (``Funnel.default``). If there are
            several stages before the last, widening any but the last of them may also find worse; only
            stages as wide as the store are certain to find what ``exact`` finds.

    Returns:
        For each query at most k matches, from the best; equal scores in the order of the ids.

    Raises:
        UsageError: k or width is below 1, or the codes cannot be searched with the funnel.
        OutOfMemoryError: There is not enough memory.
    """
    for name, value in (("k", k), ("width", width)):
        if value < 1:
            raise UsageError(f"{name} is {value}, expected at least 1")
    if funnel is None:
        funnel = Funnel.default(table.layout, width, rows=table.rows)
    funnel.check(table.layout)
    mask = None if keys is None else table.selected(keys)
    candidates = table.live if mask is None else int(np.count_nonzero(mask))
    if not candidates:
        return [[] for _ in queries]
    require_room_for_products()
    if exact or not funnel.coarse or candidates <= EXACT_BELOW * max(funnel.shortlist, k):
        return _exhaustive(queries, table, mask, k)
    return [_funnel(query, table, mask, candidates, k, funnel) for query in queries]


def _exhaustive(
    queries: NDArray[np.int8], table: CodeTable, mask: NDArray[np.bool_] | None, k: int
) -> list[list[Match]]:
    if mask is None:
        mask = np.ones(table.rows, np.bool_)
        mask[table.dead] = False
    rows = np.flatnonzero(mask)
    step = max(1, CHUNK_VALUES // table.dim)
    scorer = compiled.scorer_of(queries, table.layout.packing)
    scores = np.empty((len(queries), len(rows)), np.float64)
    keys = np.empty(len(rows), np.uint32)
    for first in range(0, len(rows), step):
        some = slice(first, first + step)
        codes, keys[some] = table.gather(rows[some])
        scores[:, some] = scorer.cosines(codes)
    return [_best(rows, keys, row, table, k) for row in scores]


def _funnel(
    query: NDArray[np.int8],
    table: CodeTable,
    mask: NDArray[np.bool_] | None,
    candidates: int,
    k: int,
    funnel: Funnel,
) -> list[Match]:
    first = funnel.coarse[0]
    distances = _distances(query, table, first.dims)
    far = np.iinfo(distances.dtype).max
    if mask is None:
        distances[table.dead] = far
    else:
        np.putmask(distances, ~mask, far)
    whole = compiled.scorer_of(query[None], table.layout.packing)
    widths = [max(stage.width or 0, k) for stage in funnel.coarse]
    while True:
        widths = [min(width, candidates) for width in widths]
        rows = _closest(distances, first.dims, widths[0])
        for stage, width in zip(funnel.coarse[1:], widths[1:], strict=True):
            if stage.bits == 1:
                rows = rows[
                    _closest(_distances_of(query, table, rows, stage.dims), stage.dims, width)
                ]
            else:
                levels = table.gather_levels(rows)[0][:, : stage.dims]
                scorer = compiled.scorer_of(query[None, : stage.dims], INT8)
                rows = rows[_highest(scorer.cosines(levels.view(np.uint8))[0], width)]
        codes, keys = table.gather(rows)
        matches = _best(rows, keys, whole.cosines(codes)[0], table, k)
        # Documents of many passages may fill the candidates: widen the stages until k are found.
        if len(matches) == k or widths[-1] == candidates:
            return matches
        widths = [4 * width for width in widths]


def _words(query: NDArray[np.int8], table: CodeTable, dims: int) -> NDArray[np.uint64]:
    """The first words of the query's 1-bit code."""
    return table.layout.bit_words(query[None])[: -(-dims // WORD_DIMS), 0]


def _distances(query: NDArray[np.int8], table: CodeTable, dims: int) -> NDArray[Any]:
    """uint8[rows], or uint16 from 257 dimensions on: Hamming distances of the 1-bit codes.

    In a byte, distances end at 254: of 255 and 256 dimensions, rows whose first three words differ in
    more than 190 bits are all as far as 190 and what the last word adds. 255 is left for rows that do not
    count.
    """
    words = _words(query, table, dims)
    in_bytes = len(words) <= MOST_BYTE_WORDS
    kind: Any = np.uint8 if in_bytes else np.uint16
    distances = np.empty(table.rows, kind)
    capped = in_bytes and dims > MOST_BYTE
    if compiled.fill_distances(table, words, distances, capped=capped):
        return distances
    most = max(part.rows for part in table.parts)
    mixed, counts = np.empty(most, np.uint64), np.empty(most, np.uint8)
    for part in table.parts:
        rows = part.rows
        some = distances[part.first : part.first + rows]
        for number, word in enumerate(words):
            np.bitwise_xor(part.segment.bits[number], word, out=mixed[:rows])
            if number == 0:
                np.bitwise_count(mixed[:rows], out=some)
            else:
                np.bitwise_count(mixed[:rows], out=counts[:rows])
                if capped and number == MOST_BYTE_WORDS - 1:
                    np.minimum(some, MOST_BEFORE_LAST, out=some)
                np.add(some, counts[:rows], out=some)
    return distances


def _distances_of(
    query: NDArray[np.int8], table: CodeTable, rows: NDArray[np.int64], dims: int
) -> NDArray[np.int64]:
    """int64[n]: Hamming distances of the 1-bit codes of some rows."""
    words = _words(query, table, dims)
    bits = table.gather_bits(rows, len(words))
    distances: NDArray[np.int64] = np.bitwise_count(bits ^ words[:, None]).sum(
        axis=0, dtype=np.int64
    )
    return distances


def _highest(scores: NDArray[np.float64], width: int) -> NDArray[np.int64]:
    """Indices of the ``width`` highest scores, ascending; of equals, the first."""
    if width >= len(scores):
        return np.arange(len(scores))
    least = np.partition(scores, -width)[-width]
    above = np.flatnonzero(scores > least)
    level = np.flatnonzero(scores == least)[: width - len(above)]
    return np.sort(np.concatenate([above, level]))


def _closest(distances: NDArray[Any], dim: int, width: int) -> NDArray[np.int64]:
    """The rows within the least distance that at least ``width`` rows have, ascending.

    The distance is found by bisection. Counting rows below a limit is so fast that this beats a histogram
    (0.5 ms against 1.1 ms at 1M rows).
    """
    if (found := compiled.closest(distances, dim, width)) is not None:
        return found
    low, high = 0, dim
    while low < high:
        middle = (low + high) // 2
        if np.count_nonzero(distances <= middle) >= width:
            high = middle
        else:
            low = middle + 1
    within = distances <= low
    if np.count_nonzero(within) <= TIES * width:
        return np.flatnonzero(within)
    closer = np.flatnonzero(distances < low)
    level = np.flatnonzero(distances == low)[: TIES * width - len(closer)]
    return np.sort(np.concatenate([closer, level]))


def _best(
    rows: NDArray[np.int64],
    keys: NDArray[np.uint32],
    scores: NDArray[np.float64],
    table: CodeTable,
    k: int,
) -> list[Match]:
    """The k best documents among some rows; the rows of one document are adjacent."""
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    best = np.maximum.reduceat(scores, starts)
    # Everything with the score of the k-th stays, so that ids decide between equals.
    least = np.partition(best, -k)[-k] if k < len(best) else -np.inf
    chosen = np.flatnonzero(best >= least)
    chosen = chosen[_order(best[chosen], keys[starts[chosen]].tolist(), table)][:k]
    ends = np.append(starts, len(rows))
    return [_match(rows, keys, scores, int(ends[i]), int(ends[i + 1])) for i in chosen]


def _order(scores: NDArray[np.float64], keys: Sequence[int], table: CodeTable) -> NDArray[np.int64]:
    """Indices by score, from the best; ids are read only if scores are equal."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    if not (ranked[1:] == ranked[:-1]).any():
        return order
    names = table.names(keys)
    by_id = {key: place for place, key in enumerate(sorted(keys, key=lambda key: names[key]))}
    return np.lexsort((np.array([by_id[key] for key in keys]), -scores))


def _match(
    rows: NDArray[np.int64],
    keys: NDArray[np.uint32],
    scores: NDArray[np.float64],
    first: int,
    after: int,
) -> Match:
    place = first + int(np.argmax(scores[first:after]))
    return Match(int(keys[place]), int(rows[place]), float(scores[place]))

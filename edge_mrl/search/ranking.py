"""Which documents answer a query, by vector, by keyword, or by both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from edge_mrl.errors import UsageError
from edge_mrl.search.diversity import candidates, diversify
from edge_mrl.search.funnel import DEFAULT_WIDTH, Funnel, tuned_funnel
from edge_mrl.search.fusion import fuse
from edge_mrl.search.scan import Match, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.encode import Encoding
    from edge_mrl.search.options import SearchOptions
    from edge_mrl.store import View

__all__ = ["RESCORE_DEPTH", "QueryVectors", "Ranked", "rank"]

#: Documents of each ranking that a hybrid search fuses; a lower rank adds less than 1/160.
HYBRID_DEPTH = 100
#: Documents that are rescored by full vectors. The best 100 by codes of 128 dimensions keep 99.5 % or
#: more of the nDCG@10 of a search by full vectors alone (docs/benchmarks.md).
RESCORE_DEPTH = 100


@dataclass(frozen=True, slots=True)
class QueryVectors:
    """A query's vectors: int8[dim], and float32[D] if the bundle gives full vectors."""

    coarse: NDArray[np.int8]
    full: NDArray[np.float32] | None

    @classmethod
    def of(cls, encoding: Encoding) -> list[Self]:
        """The vectors of each query, from the encoding of all."""
        fulls = [None] * len(encoding) if encoding.full is None else list(encoding.full)
        return [cls(*pair) for pair in zip(encoding.coarse, fulls, strict=True)]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document that was found.

    Attributes:
        key: The document's key.
        row: The row of its best passage; None if it was found by its words alone.
        score: A cosine, BM25, or the fused score, depending on the mode.
    """

    key: int
    row: int | None
    score: float


def rank(
    view: View, query: str, vectors: QueryVectors | None, options: SearchOptions
) -> list[Ranked]:
    """Rank the documents that answer a query, from the best.

    Args:
        view: One state of a store.
        query: The words.
        vectors: The query's vectors; None only in mode "keyword".
        options: How to search.

    Returns:
        At most ``options.k`` documents, from the best.

    Raises:
        UsageError: The filter cannot be understood, or the store cannot be searched with the stages.
    """
    if options.mode == "keyword" or vectors is None:
        return _by_keyword(view, query, options.k, options)
    if options.mode == "vector":
        return _by_vector(view, vectors, options.k, options)
    depth = max(options.k, HYBRID_DEPTH)
    by_vector = _by_vector(view, vectors, depth, options)
    by_keyword = _by_keyword(view, query, depth, options)
    rows = {found.key: found.row for found in by_vector}
    fused = fuse([[found.key for found in ranking] for ranking in (by_vector, by_keyword)])
    best = sorted(fused.items(), key=lambda item: (-item[1], item[0]))[: options.k]
    return [Ranked(key, rows.get(key), score) for key, score in best]


def _by_keyword(view: View, query: str, k: int, options: SearchOptions) -> list[Ranked]:
    matches = view.keyword_matches(query, k=k, where=options.filter or None)
    return [Ranked(key, None, score) for key, score in matches]


def _by_vector(view: View, vectors: QueryVectors, k: int, options: SearchOptions) -> list[Ranked]:
    wanted, k = k, candidates(k) if options.diversity else k
    funnel = _funnel(view, options)
    rescore = view.keeps_full and vectors.full is not None
    depth = max(k, funnel.rescored or RESCORE_DEPTH) if rescore else k
    matches = _nearest(view, vectors, depth, options, funnel)
    if rescore:
        matches = _rescored(view, vectors, matches)
    if options.diversity:
        matches = diversify(matches[:k], view.codes, k=wanted, diversity=options.diversity)
    return [Ranked(match.key, match.row, match.score) for match in matches[:wanted]]


def _nearest(
    view: View, vectors: QueryVectors, k: int, options: SearchOptions, funnel: Funnel
) -> list[Match]:
    """The k nearest documents that the filter selects.

    If enough of the nearest documents match it, they are the answer. Only where few do, all that match
    are looked up first, and searched alone.
    """

    def search(k: int, keys: NDArray[np.int64] | None = None) -> list[Match]:
        code = vectors.coarse[None]
        return nearest(code, view.codes, k=k, exact=options.exact, keys=keys, funnel=funnel)[0]

    if not options.filter:
        return search(k)
    depth = view.judged_depth(k)
    near = {match.key: match for match in search(depth)}
    found = view.first_matching(options.filter, list(near), k)
    if found is not None and (len(found) == k or len(near) < depth):
        return [near[key] for key in found]
    return search(k, view.select(options.filter))


def _funnel(view: View, options: SearchOptions) -> Funnel:
    """The stages that were asked for; else those that the store is tuned to; else the default ones."""
    funnel = options.funnel
    if funnel is not None and funnel.rescored is not None and not view.keeps_full:
        raise UsageError(f"the funnel {funnel} ends with full vectors, but the store keeps none")
    if funnel is None and options.width is None:
        funnel = tuned_funnel(view)
    if funnel is not None:
        return funnel
    codes = view.codes
    return Funnel.default(codes.layout, options.width or DEFAULT_WIDTH, rows=codes.rows)


def _rescored(view: View, vectors: QueryVectors, matches: list[Match]) -> list[Match]:
    """The matches by the cosine of their full vectors; unchanged if one of them has none.

    Cosines of codes and of full vectors are on different scales, so they must not be mixed.
    """
    keys = [match.key for match in matches]
    places = view.places(keys, sound=True)
    rows = {match.key: match.row for match in matches if match.key in places}
    fulls = view.fulls_at({key: row - places[key][0] for key, row in rows.items()})
    matches = [match for match in matches if match.key not in view.damaged]
    if vectors.full is None or not all(match.key in fulls for match in matches):
        return matches
    rescored = []
    for match in matches:
        vector = fulls[match.key]
        length = max(float(np.linalg.norm(vector)), 1e-12)
        rescored.append(Match(match.key, match.row, float(vector @ vectors.full) / length))
    return sorted(rescored, key=lambda match: -match.score)

"""Which documents answer a query, by vector, by keyword, or by both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edge_mrl.errors import UsageError
from edge_mrl.search.funnel import DEFAULT_WIDTH, Funnel, tuned_funnel
from edge_mrl.search.fusion import fuse
from edge_mrl.search.scan import Match, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.store import View

__all__ = ["MODES", "Mode", "Options", "Ranked", "Vectors", "rank"]

Mode = Literal["vector", "keyword", "hybrid"]
MODES: tuple[Mode, ...] = ("vector", "keyword", "hybrid")
#: Documents of each ranking that a hybrid search fuses: a document below takes less than 1/160.
HYBRID_DEPTH = 100
#: Documents that are scored again by full vectors. With 128 dimensions the best 100 of the codes
#: hold what a full search finds to 99.5 % of nDCG@10 or more (docs/benchmarks.md).
RESCORE_DEPTH = 100


@dataclass(frozen=True, slots=True)
class Options:
    """How to search.

    Attributes:
        k: Most documents.
        mode: By vector, by keyword, or both fused.
        where: Which documents count (see ``edge_mrl.store.filters``); None for all.
        exact: Score every code instead of those that the 1-bit stage passes on.
        width: Rows that the 1-bit stage passes on; None for the store's own stages.
        stages: Which codes are compared, of how many rows; None for the store's own.
    """

    k: int = 10
    mode: Mode = "vector"
    where: Mapping[str, Any] | None = None
    exact: bool = False
    width: int | None = None
    stages: Funnel | None = None

    def __post_init__(self) -> None:
        for name, value in (("k", self.k), ("width", self.width)):
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}, expected at least 1")
        if self.width is not None and self.stages is not None:
            raise UsageError("width and stages are both given: stages have widths of their own")
        if self.mode not in MODES:
            raise UsageError(f"mode is {self.mode!r}, expected one of {', '.join(MODES)}")


@dataclass(frozen=True, slots=True)
class Vectors:
    """A query's vectors: int8[dim], and float32[D] where the bundle gives full vectors."""

    coarse: NDArray[np.int8]
    full: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Ranked:
    """A document that answers.

    Attributes:
        key: The document's key.
        row: The row of the passage that answers best; None if only its words were looked at.
        score: Cosine, BM25, or the fused score, by the mode.
    """

    key: int
    row: int | None
    score: float


def rank(view: View, query: str, vectors: Vectors | None, options: Options) -> list[Ranked]:
    """Rank the documents that answer a query, from the best.

    Args:
        view: One state of a store.
        query: The words.
        vectors: The query's vectors; None only in mode "keyword".
        options: How to search.
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


def _by_keyword(view: View, query: str, k: int, options: Options) -> list[Ranked]:
    matches = view.keyword_matches(query, k=k, where=options.where)
    return [Ranked(key, None, score) for key, score in matches]


def _by_vector(view: View, vectors: Vectors, k: int, options: Options) -> list[Ranked]:
    keys = None if options.where is None else view.select(options.where)
    funnel = _funnel(view, options)
    rescore = view.keeps_full and vectors.full is not None
    matches = nearest(
        vectors.coarse[None],
        view.codes,
        k=max(k, funnel.rescored or RESCORE_DEPTH) if rescore else k,
        exact=options.exact,
        keys=keys,
        funnel=funnel,
    )[0]
    if rescore:
        matches = _rescored(view, vectors, matches)
    return [Ranked(match.key, match.row, match.score) for match in matches[:k]]


def _funnel(view: View, options: Options) -> Funnel:
    """The stages that were asked for, or else those that the store was tuned to, or the default."""
    funnel = options.stages
    if funnel is not None and funnel.rescored is not None and not view.keeps_full:
        raise UsageError(f"the funnel {funnel} ends with full vectors, but the store keeps none")
    if funnel is None and options.width is None:
        funnel = tuned_funnel(view)
    return funnel or Funnel.default(view.codes.layout, options.width or DEFAULT_WIDTH)


def _rescored(view: View, vectors: Vectors, matches: list[Match]) -> list[Match]:
    """The matches by the cosine of full vectors; unchanged unless all of them have theirs.

    Cosines of codes and of full vectors are on different scales: a mixed order would be wrong.
    """
    keys = [match.key for match in matches]
    fulls = view.fulls(keys)
    if vectors.full is None or len(fulls) < len(keys):
        return matches
    places = view.places(keys)
    rescored = []
    for match in matches:
        vector = fulls[match.key][match.row - places[match.key][0]]
        length = max(float(np.linalg.norm(vector)), 1e-12)
        rescored.append(Match(match.key, match.row, float(vector @ vectors.full) / length))
    return sorted(rescored, key=lambda match: -match.score)

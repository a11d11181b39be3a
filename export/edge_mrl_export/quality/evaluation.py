"""Retrieval quality that codes keep, by dimensions, precision and stage of the search.

Every ranking is exhaustive over all documents, except in the stage "funnel". Codes are made from full
vectors as a bundle's graph makes them (FORMAT.md, "Codes"), and are searched with the query's int8 code,
as in a store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_mrl.codes import CODE_KINDS, code_bytes, normalize
from edge_mrl.errors import UsageError
from edge_mrl_export.quality.cache import Cache
from edge_mrl_export.quality.coding import (
    Coding,
    check_dim,
    codes_of,
    levels,
    own_coding,
    truncated,
)
from edge_mrl_export.quality.metrics import Interval, QueryMetrics, judge, ratio
from edge_mrl_export.quality.subject import Encoded, Subject
from edge_mrl_export.texts import Retrieval

__all__ = [
    "FUNNEL_LEAST",
    "FUNNEL_SHARE",
    "KINDS",
    "WIDTHS",
    "Evaluation",
    "Row",
    "Scale",
    "SetVectors",
    "evaluate",
    "ndcg_alone",
    "usual_dims",
]

Float = NDArray[np.float32]
Rows = NDArray[np.intp]

#: Precision of a dimension, from the largest.
KINDS = ("float32", *CODE_KINDS)
#: Lengths of the shortlist that full vectors order again.
WIDTHS = (50, 100, 200)
#: The store's first stage passes on 5,000 of a million rows: one in FUNNEL_SHARE, at least FUNNEL_LEAST.
FUNNEL_SHARE, FUNNEL_LEAST = 200, 100
#: Length of a ranking: what recall@100 and the longest shortlist need.
DEPTH = max(WIDTHS)
#: Without judgements, the full model's best so many are relevant, the first with the largest gain.
JUDGED = 10
#: Scores held in memory at a time: 64 MB.
CHUNK_VALUES = 2**24
SHORTEST_DIM = 16


@dataclass(frozen=True, slots=True)
class Row:
    """The quality of one way to search.

    Attributes:
        dim: Dimensions of the code.
        kind: One of KINDS.
        stage: "alone", "funnel", or "rerank N".
        code_bytes: Size of one document's code.
        ndcg_at_10: Mean over queries; without judgements, the full model's ranking is what is relevant.
        recall_at_100: Mean over queries.
        mrr_at_10: Mean over queries.
        overlap_at_10: Share of the full fp32 vectors' ten best that are among these ten.
        kept: Share of the full fp32 vectors' nDCG@10.
        by_query: float64[queries], nDCG@10; not in the JSON.
    """

    dim: int
    kind: str
    stage: str
    code_bytes: int
    ndcg_at_10: float
    recall_at_100: float
    mrr_at_10: float
    overlap_at_10: float
    kept: Interval
    by_query: NDArray[np.float64] = field(repr=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        del values["by_query"]
        return {**values, "kept": asdict(self.kept)}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The quality of all ways to search, on one set.

    Attributes:
        name: Name of the set.
        asked: What kind of queries they are.
        judged_by: What decides relevance.
        documents: Number of documents.
        queries: Number of queries.
        base: The full fp32 vectors' metrics.
        base_by_query: float64[queries], their nDCG@10.
        full: The bundle's own full vectors; None for a source model.
        rows: By dimensions, kind and stage.
    """

    name: str
    asked: str
    judged_by: str
    documents: int
    queries: int
    base: dict[str, float]
    base_by_query: NDArray[np.float64] = field(repr=False, compare=False)
    full: Row | None
    rows: list[Row]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "asked": self.asked,
            "judged_by": self.judged_by,
            "documents": self.documents,
            "queries": self.queries,
            "base": self.base,
            "full": None if self.full is None else self.full.as_json(),
            "rows": [row.as_json() for row in self.rows],
        }


@dataclass(frozen=True, slots=True, eq=False)
class SetVectors:
    """Vectors of a set: by the measured model, and by the fp32 model that it is compared with."""

    documents: Encoded
    queries: Encoded
    base_documents: Encoded
    base_queries: Encoded

    @classmethod
    def of(cls, subject: Subject, data: Retrieval, cache: Cache) -> SetVectors:
        """Encode the set's texts, or take their vectors from the cache."""
        parts = ((data.documents, "document"), (data.queries, "query"))
        base = [subject.base.vectors(cache, texts, kind) for texts, kind in parts]
        own = base
        if subject.model is not subject.base:
            own = [subject.model.vectors(cache, texts, kind) for texts, kind in parts]
        return cls(*own, *base)


def usual_dims(subject: Subject) -> tuple[int, ...]:
    """Dimensions to measure, ascending: powers of 2 from 16, the bundle's own, and the full width.

    With a head, only up to the head's dimensions, and the full width without it.
    """
    width = subject.model.width
    most = width if subject.head is None else subject.head.shape[1]
    dims = {width, min(subject.dim or most, most)}
    size = SHORTEST_DIM
    while size <= most:
        dims.add(size)
        size *= 2
    return tuple(sorted(dims))


def evaluate(
    subject: Subject,
    data: Retrieval,
    vectors: SetVectors,
    dims: Sequence[int],
    *,
    kinds: Sequence[str] = KINDS,
    codings: Mapping[tuple[int, str], Coding] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Measure retrieval for every dimension, kind and stage.

    Args:
        subject: What is measured.
        data: Documents, queries, and judgements if there are any.
        vectors: The vectors of these texts.
        dims: Dimensions of codes.
        kinds: Precisions of a dimension.
        codings: How codes are made, by dimensions and kind; None for the subject's own way.
        advance: Called after each dimension and kind.

    Raises:
        UsageError: The full vectors find nothing relevant, or a dimension is out of range.
    """
    scale = Scale.of(data, vectors)
    full = None
    if subject.model is not subject.base:
        width = subject.model.width
        found = _ranked(vectors.queries.full, vectors.documents.full, scale.own)
        full = scale.row(width, "float32", "full", found)
    rows = []
    for dim in dims:
        check_dim(subject, dim)
        for kind in kinds:
            coding = codings[dim, kind] if codings else own_coding(subject, dim, kind)
            for stage, found in _stages(subject, vectors, scale.own, coding, dim, kind):
                rows.append(scale.row(dim, kind, stage, found))
            advance()
    return Evaluation(
        name=data.name,
        asked=data.asked,
        judged_by="judgements" if data.relevance else f"the full model's own best {JUDGED}",
        documents=len(data.documents),
        queries=len(data.queries),
        base=scale.base.means(),
        base_by_query=scale.base.ndcg_at_10,
        full=full,
        rows=rows,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """What rankings are compared with.

    Attributes:
        base: The full fp32 vectors' metrics.
        relevance: For each query, the gain of each relevant document's row.
        exact: intp[q, DEPTH], the full fp32 vectors' ranking.
        own: For each query the row that is left out of its results; None if there is none.
    """

    base: QueryMetrics
    relevance: Sequence[dict[int, float]]
    exact: Rows
    own: Rows | None

    @classmethod
    def of(cls, data: Retrieval, vectors: SetVectors) -> Scale:
        """Rank a set by full fp32 vectors, which also judge where people did not.

        Raises:
            UsageError: The full vectors find nothing relevant.
        """
        own = None if data.own is None else np.array(data.own, dtype=np.intp)
        exact = _ranked(vectors.base_queries.full, vectors.base_documents.full, own)
        relevance = data.relevance or _own_judgement(exact)
        base = judge(exact, relevance)
        if not base.ndcg_at_10.any():
            raise UsageError(
                f"{data.name}: the full model finds nothing relevant; was it trained for this language?"
            )
        return cls(base, relevance, exact, own)

    def row(self, dim: int, kind: str, stage: str, found: Rows) -> Row:
        """The quality of some rankings."""
        metrics = judge(found, self.relevance)
        best = self.exact[:, :JUDGED]
        same = (found[:, :JUDGED, None] == best[:, None, :]) & (best >= 0)[:, None, :]
        return Row(
            dim=dim,
            kind=kind,
            stage=stage,
            code_bytes=4 * dim if kind == "float32" else code_bytes(dim, kind),
            **metrics.means(),
            overlap_at_10=round(float(same.any(axis=1).mean()), 4),
            kept=ratio(metrics.ndcg_at_10, self.base.ndcg_at_10),
            by_query=metrics.ndcg_at_10,
        )


def ndcg_alone(
    subject: Subject,
    vectors: SetVectors,
    scale: Scale,
    coding: Coding,
    *,
    dim: int,
    kind: str,
) -> NDArray[np.float64]:
    """float64[queries]: nDCG@10 of an exhaustive search by one code, without the other stages."""
    _, found = next(_stages(subject, vectors, scale.own, coding, dim, kind))
    return judge(found[:, :JUDGED], scale.relevance).ndcg_at_10


def _own_judgement(exact: Rows) -> list[dict[int, float]]:
    """The full model's ten best are relevant, with gains from 10 to 1."""
    return [
        {int(row): float(JUDGED - place) for place, row in enumerate(rows[:JUDGED]) if row >= 0}
        for rows in exact
    ]


def _stages(
    subject: Subject,
    vectors: SetVectors,
    own: Rows | None,
    coding: Coding,
    dim: int,
    kind: str,
) -> Iterator[tuple[str, Rows]]:
    """Rankings by one code: alone, after the funnel's first stage, and reranked by full vectors."""
    pair = (vectors.queries, vectors.documents)
    if kind == "float32":
        queries, documents = (truncated(subject, side.full, coding.head, dim) for side in pair)
    else:
        codes = [codes_of(subject, side, coding.head, dim) for side in pair]
        queries, documents = (
            normalize(codes[0].astype(np.float32)),
            levels(codes[1], coding.packing),
        )
    coarse = _ranked(queries, documents, own)
    yield "alone", coarse
    if kind != "float32":
        bits = [coding.packing.bits(side) for side in codes]
        yield "funnel", _funnel(queries, documents, bits, own)
    for width in WIDTHS:
        yield f"rerank {width}", _reranked(coarse, vectors, width)


def _ranked(queries: Float, documents: Float, own: Rows | None) -> Rows:
    """intp[q, DEPTH]: rows from the best, equal scores by row; -1 behind the last."""
    depth = min(DEPTH, len(documents))
    found = np.full((len(queries), DEPTH), -1, np.intp)
    step = max(1, CHUNK_VALUES // len(documents))
    for start in range(0, len(queries), step):
        some = slice(start, start + step)
        scores = queries[some] @ documents.T
        _leave_out(scores, own, some)
        rows = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
        rows.sort(axis=1)
        best = np.take_along_axis(scores, rows, axis=1)
        order = np.argsort(-best, axis=1, kind="stable")
        found[some, :depth] = np.take_along_axis(rows, order, axis=1)
        missing = np.take_along_axis(best, order, axis=1) == -np.inf
        found[some, :depth][missing] = -1
    return found


def _leave_out(scores: Float, own: Rows | None, some: slice) -> None:
    if own is not None:
        rows = own[some]
        scores[np.arange(len(rows)), rows] = -np.inf


def _funnel(
    queries: Float, documents: Float, bits: Sequence[NDArray[np.uint8]], own: Rows | None
) -> Rows:
    """The rows that 1-bit codes pass on, ranked by the codes."""
    width = min(len(documents), max(FUNNEL_LEAST, len(documents) // FUNNEL_SHARE))
    found = np.full((len(queries), DEPTH), -1, np.intp)
    for query, vector in enumerate(queries):
        far = np.bitwise_count(bits[1] ^ bits[0][query]).sum(axis=1, dtype=np.int32)
        if own is not None:
            far[own[query]] = np.iinfo(np.int32).max
        limit = np.partition(far, width - 1)[width - 1]
        rows = np.flatnonzero(far <= limit)
        scores = documents[rows] @ vector
        rows = rows[np.argsort(-scores, kind="stable")][:DEPTH]
        found[query, : len(rows)] = rows
    return found


def _reranked(found: Rows, vectors: SetVectors, width: int) -> Rows:
    """The first ``width`` rows ranked by full vectors, the others as before."""
    again = found.copy()
    for query, first in enumerate(found[:, :width]):
        rows = first[first >= 0]
        scores = vectors.documents.full[rows] @ vectors.queries.full[query]
        again[query, : len(rows)] = rows[np.argsort(-scores, kind="stable")]
    return again

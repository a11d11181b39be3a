"""Questions in words: their vectors, their answers, and a server's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_mrl.arguments import each_text
from edge_mrl.errors import BindingError, UsageError
from edge_mrl.ingest import MOST_CHANGES
from edge_mrl.search import (
    DEFAULT_MARGIN,
    RESCORE_DEPTH,
    QueryVectors,
    Results,
    answer,
    exact_scores,
    reorder,
)
from edge_mrl.store import replica

if TYPE_CHECKING:
    from edge_mrl.encode import Encoder
    from edge_mrl.index.facade import Index
    from edge_mrl.search import Hit, Scorer, SearchOptions

__all__ = ["ask", "ask_and_rerank", "code_of_encoder"]


def ask(index: Index, queries: Sequence[str], options: SearchOptions) -> list[Results]:
    """The answers to questions, all from one state of the store; see ``Index.search_many``."""
    found, _, damaged = _find(index, queries, options)
    return [Results(tuple(hits), damaged=damaged) for hits in found]


def ask_and_rerank(
    index: Index, query: str, options: SearchOptions, rerank: Scorer | str, deadline_s: float
) -> Results:
    """The answers to a question, ordered by whoever has the full vectors; see ``Index.search``."""
    shortlist = replace(options, k=max(options.k, RESCORE_DEPTH))
    (hits,), (vectors,), damaged = _find(index, [query], shortlist)
    full = None if vectors is None else vectors.full
    if full is None:
        reason = "the bundle gives no full vectors" if hits else None
        return Results(tuple(hits[: options.k]), reason=reason, damaged=damaged)
    results = reorder(
        hits,
        k=options.k,
        margin=_margin(index) if rerank == "auto" else None,
        ask=lambda ids: index.scorer(rerank).rerank(ids, full, deadline_s=deadline_s),
        own=lambda ids: exact_scores(index.store, ids, full),
    )
    return replace(results, damaged=damaged)


def _margin(index: Index) -> float:
    found = replica.enrollment_of(index.store)
    return DEFAULT_MARGIN if found is None or found.margin is None else found.margin


def _find(
    index: Index, queries: Sequence[str], options: SearchOptions
) -> tuple[list[list[Hit]], list[QueryVectors | None], tuple[str, ...]]:
    """Hits for each query, the queries' vectors, and damaged documents that were left out."""
    queries = _texts(queries)
    for _ in range(MOST_CHANGES):
        vectors, code = _encode(index, queries, options)
        with index.store.searching() as view:
            if code in (None, view.binding.code):
                hits = answer(view, queries, vectors, options)
                return hits, vectors, tuple(view.names(view.damaged))
        index.store.refresh()  # somebody has just changed the bundle
    raise BindingError(f"other processes keep changing the bundle of {index.path}: try again")


def _encode(
    index: Index, queries: Sequence[str], options: SearchOptions
) -> tuple[list[QueryVectors | None], tuple[str, str] | None]:
    """Vectors for each query, and the code they are of; None where no vector is needed."""
    if options.mode == "keyword":
        return [None] * len(queries), None
    encoder = index.encoder
    vectors = QueryVectors.of(encoder.encode(queries, kind="query"))
    return [*vectors], code_of_encoder(encoder)


def code_of_encoder(encoder: Encoder) -> tuple[str, str]:
    """The embedding space and the code of an encoder's bundle."""
    return encoder.manifest.space_id, encoder.manifest.code_id


def _texts(queries: Sequence[str]) -> list[str]:
    """The questions, checked.

    Raises:
        UsageError: One is no text.
    """
    try:
        return list(each_text("queries", queries))
    except UsageError as error:
        if isinstance(queries, Sequence) and any(hasattr(one, "__array__") for one in queries):
            raise UsageError(f"{error}; for a vector use search_vector") from error
        raise

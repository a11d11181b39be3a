"""What a search gives back: documents, each with the passage that answers best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge_mrl.errors import DamagedError
from edge_mrl.search.fusion import best_passage
from edge_mrl.search.ranking import Options, Ranked, Vectors, rank

if TYPE_CHECKING:
    from edge_mrl.documents import Document
    from edge_mrl.store import Place, View

__all__ = ["Hit", "answer"]


@dataclass(frozen=True, slots=True)
class Hit:
    """A document found by a search, with the passage that answers best.

    Attributes:
        id: The document's id.
        text: The passage.
        start: Where it starts in the document's text, in characters.
        end: Where it ends.
        score: By vector, the cosine of query and passage, in [-1, 1], of their codes, or of the
            full vectors where the store keeps them; by keyword, BM25; hybrid, the sum of
            1 / (60 + rank) over both rankings.
        metadata: The document's metadata.
    """

    id: str
    text: str
    start: int
    end: int
    score: float
    metadata: Mapping[str, Any]


def answer(
    view: View, queries: Sequence[str], vectors: Sequence[Vectors | None], options: Options
) -> list[list[Hit]]:
    """Answer queries from one state of a store, given their vectors: ``search_many`` without a model."""
    pairs = zip(queries, vectors, strict=True)
    rankings = [rank(view, query, vector, options) for query, vector in pairs]
    keys = sorted({found.key for ranking in rankings for found in ranking})
    by_row = {found.key for ranking in rankings for found in ranking if found.row is not None}
    by_word = [key for key in keys if key not in by_row]
    documents = view.documents(keys)
    places = {**view.places(sorted(by_row)), **view.places(by_word, partial=True)}
    return [
        [_hit(found, query, documents[found.key], places.get(found.key)) for found in ranking]
        for query, ranking in zip(queries, rankings, strict=True)
    ]


def _hit(found: Ranked, query: str, document: Document, place: Place | None) -> Hit:
    start, end = 0, len(document.text)
    if place is not None:
        first, spans = place
        position = (
            best_passage(document.text, spans, query) if found.row is None else found.row - first
        )
        if not 0 <= position < len(spans):
            raise DamagedError(f"the passages of document {document.id!r} are not where they were")
        start, end = spans[position]
    text = document.text[start:end]
    return Hit(document.id, text, start, end, found.score, document.metadata)

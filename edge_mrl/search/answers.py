"""What a search gives back: documents, each with the passage that answers best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, overload

from edge_mrl.errors import DamagedError
from edge_mrl.markdown import Outline, is_markdown
from edge_mrl.search.fusion import best_passage
from edge_mrl.search.ranking import rank

if TYPE_CHECKING:
    from edge_mrl.documents import Document
    from edge_mrl.search.options import SearchOptions
    from edge_mrl.search.ranking import QueryVectors, Ranked
    from edge_mrl.store import Place, View

__all__ = ["Hit", "Results", "answer"]


@dataclass(frozen=True, slots=True)
class Hit:
    """A document found by a search, with the passage that answers best.

    Attributes:
        id: The document's id.
        text: The passage.
        start: The passage's start in the document's text, in characters.
        end: Its end.
        score: In mode "vector", the cosine of query and passage, in [-1, 1]: of their codes, or of their
            full vectors if the store keeps those. In mode "keyword", BM25. In mode "hybrid", the sum of
            1 / (60 + rank) over both rankings.
        metadata: The document's metadata.
        headings: Of Markdown, the headings that the passage stands below, from the outermost.
    """

    id: str
    text: str
    start: int
    end: int
    score: float
    metadata: Mapping[str, Any]
    headings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Results(Sequence[Hit]):
    """The hits of one search, from the best: a sequence of ``Hit``, and who ordered them.

    Equal to other results that are the same in all fields, and to a list or tuple of the same hits.

    Attributes:
        hits: The hits. Equal scores come in the order of their ids.
        ranked_by: "server" if the server ordered them by full vectors, else "local".
        reason: Why the order is the local one, if the server could have been asked: a sentence for
            people. None if nobody was to be asked, or if the server ordered the hits.
        damaged: Ids of documents that were left out because they are not what was stored: put them again,
            or delete them. Empty for a sound store.
    """

    hits: tuple[Hit, ...] = ()
    ranked_by: Literal["local", "server"] = "local"
    reason: str | None = None
    damaged: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Results):
            return self._parts() == other._parts()
        return tuple(other) == self.hits if isinstance(other, list | tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.hits)

    def _parts(self) -> tuple[object, ...]:
        return self.hits, self.ranked_by, self.reason, self.damaged


def answer(
    view: View,
    queries: Sequence[str],
    vectors: Sequence[QueryVectors | None],
    options: SearchOptions,
) -> list[list[Hit]]:
    """Answer queries from one state of a store, given their vectors.

    Args:
        view: The state.
        queries: The words.
        vectors: For each query its vectors; None in mode "keyword".
        options: How to search.

    Returns:
        For each query its hits, from the best. Damaged documents are left out, and are in
        ``view.damaged``.

    Raises:
        UsageError: The filter cannot be understood, or the store cannot be searched by the stages.
        DamagedError: What all documents share is not what was stored.
    """
    while True:
        # Those that were found to be damaged are left out, and others take their places.
        before = set(view.damaged)
        wide = replace(options, k=options.k + len(before))
        rankings = [
            [found for found in rank(view, query, vector, wide) if found.key not in before]
            for query, vector in zip(queries, vectors, strict=True)
        ]
        rankings = [ranking[: options.k] for ranking in rankings]
        keys = sorted({found.key for ranking in rankings for found in ranking})
        by_row = {found.key for ranking in rankings for found in ranking if found.row is not None}
        by_word = [key for key in keys if key not in by_row]
        documents = view.documents(keys, sound=True)
        for document in documents.values() if options.filter else ():
            view.require_match(options.filter or {}, document.metadata)
        places = view.places(sorted(by_row), sound=True)
        places |= view.places(by_word, partial=True, sound=True)
        if view.damaged == before:
            break
    return [
        [_hit(found, query, documents[found.key], places.get(found.key)) for found in ranking]
        for query, ranking in zip(queries, rankings, strict=True)
    ]


def _hit(found: Ranked, query: str, document: Document, place: Place | None) -> Hit:
    """A document with its best passage; with its whole text if it has no passages."""
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
    above = _headings(document, start, end)
    return Hit(document.id, text, start, end, found.score, document.metadata, above)


def _headings(document: Document, start: int, end: int) -> tuple[str, ...]:
    """The headings above the first text of a passage that is no heading itself."""
    if not is_markdown(document.id):
        return ()
    return Outline(document.text[:end]).above(start, end)

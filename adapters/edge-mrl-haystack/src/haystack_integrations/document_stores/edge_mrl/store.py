"""A store of Haystack's documents."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from haystack import Document, default_from_dict, default_to_dict
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack_integrations.document_stores.edge_mrl.filters import translate

import edge_mrl
from edge_mrl import Index

__all__ = ["EdgeMRLDocumentStore"]

#: What a document has beside its text, as JSON, among the metadata.
WHOLE = "_document"


class EdgeMRLDocumentStore:
    """A store of edge-mrl as Haystack's document store, opened when it is first needed.

    Args:
        path: The store's file.
        bundle: The bundle's folder or name; needed to make a store.
    """

    def __init__(self, path: str, bundle: str | None = None) -> None:
        self.path, self.bundle = str(path), None if bundle is None else str(bundle)
        self._index: Index | None = None
        self._lock = threading.Lock()

    @property
    def index(self) -> Index:
        """The opened index; threads may share it."""
        with self._lock:
            if self._index is None:
                self._index = Index.open(self.path, self.bundle)
            return self._index

    def close(self) -> None:
        """Close the store; it is opened again when it is needed."""
        with self._lock:
            if self._index is not None:
                self._index.close()
            self._index = None

    def to_dict(self) -> dict[str, Any]:
        """How it is written in a pipeline's file."""
        return default_to_dict(self, path=self.path, bundle=self.bundle)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EdgeMRLDocumentStore:
        """Read what ``to_dict`` wrote."""
        found: EdgeMRLDocumentStore = default_from_dict(cls, data)
        return found

    def count_documents(self) -> int:
        """How many documents there are."""
        return len(self.index)

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        """How many documents match."""
        return len(self.index.select(translate(filters)))

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """Documents that match, in the order in which they were written."""
        return [_read(found) for found in self.index.documents(translate(filters))]

    def write_documents(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Write documents; returns how many were written.

        Args:
            documents: The documents.
            policy: What becomes of those whose ids are there: FAIL (as NONE), SKIP or OVERWRITE.

        Raises:
            ValueError: They are no list of documents.
            DuplicateDocumentError: An id is there; nothing was written.
        """
        if not isinstance(documents, list) or not all(isinstance(d, Document) for d in documents):
            raise ValueError("documents is no list of Documents")
        if policy != DuplicatePolicy.OVERWRITE:
            known = set(self.index.get([d.id for d in documents]))
            if known and policy != DuplicatePolicy.SKIP:
                raise DuplicateDocumentError(f"documents are there already: {sorted(known)[:3]}")
            documents = [d for d in documents if d.id not in known]
        self.index.put(map(_written, documents))
        return len(documents)

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete documents; unknown ids are no error."""
        self.index.delete(document_ids)

    def delete_all_documents(self) -> None:
        """Delete all documents."""
        self.index.delete(self.index.select())

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Delete documents that match; returns how many."""
        return self.index.delete(self.index.select(translate(filters)))

    def search(
        self,
        query: str,
        *,
        top_k: int,
        mode: Literal["hybrid", "vector", "keyword"],
        filters: Mapping[str, Any] | None = None,
    ) -> list[Document]:
        """The documents that answer a question best, with their scores."""
        found = self.index.search(query, top_k, mode=mode, filter=translate(filters))
        whole = self.index.get([hit.id for hit in found])
        return [
            replace(_read(whole[hit.id]), score=float(hit.score))
            for hit in found
            if hit.id in whole
        ]


def _written(document: Document) -> edge_mrl.Document:
    facts = document.to_dict(flatten=False)
    text = facts.pop("content")
    rest = {name: value for name, value in facts.items() if value is not None and name != "score"}
    rest["empty"] = text is None
    about = {**document.meta, WHOLE: json.dumps(rest, ensure_ascii=False)}
    return edge_mrl.Document(document.id, text or "", about)


def _read(found: edge_mrl.Document) -> Document:
    kept = found.metadata.get(WHOLE)
    if kept is None:  # written by another program
        return Document(id=found.id, content=found.text, meta=dict(found.metadata))
    facts = json.loads(kept)
    content = None if facts.pop("empty") else found.text
    return Document.from_dict({**facts, "content": content})

"""A store of LangChain's documents."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

import edge_mrl
from edge_mrl import Index, Results
from langchain_edge_mrl.embeddings import EdgeMRLEmbeddings

__all__ = ["EdgeMRLVectorStore"]


class EdgeMRLVectorStore(VectorStore):
    """A store of edge-mrl as LangChain's vector store. Documents come back whole, with their ids.

    Searches take edge-mrl's options as keyword arguments: ``filter``, and ``mode`` ("vector", "keyword"
    or "hybrid").

    Args:
        index: An opened index.
    """

    def __init__(self, index: Index) -> None:
        self.index = index

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        bundle: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> Self:
        """Open a store, or make it with a bundle; arguments as for ``edge_mrl.Index.open``."""
        return cls(Index.open(path, bundle, **options))

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **options: Any,
    ) -> Self:
        """Make a store at ``path`` with the bundle of ``embedding``, and add texts.

        Args:
            texts: The texts.
            embedding: An ``EdgeMRLEmbeddings``: edge-mrl makes its own vectors.
            metadatas: Metadata of each text.
            ids: An id for each text; those that are missing are made.
            **options: ``path``, the store's file, and options of ``edge_mrl.Index.open``.

        Raises:
            TypeError: ``embedding`` is of another kind, or there is no ``path``.
        """
        if not isinstance(embedding, EdgeMRLEmbeddings):
            raise TypeError(
                f"embedding is {type(embedding).__name__}, expected EdgeMRLEmbeddings: a store keeps the "
                "codes of its bundle"
            )
        if "path" not in options:
            raise TypeError("path is missing: name the store's file, path='notes.db'")
        store = cls.open(options.pop("path"), embedding.bundle, **options)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @property
    def embeddings(self) -> EdgeMRLEmbeddings:
        """The embeddings of the store's bundle."""
        return EdgeMRLEmbeddings(bundle=str(self.index.encoder.path))

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **_: Any,
    ) -> list[str]:
        """Add texts; one with a known id replaces the former. Returns the ids."""
        texts = list(texts)
        if metadatas is not None and len(metadatas) != len(texts):
            raise ValueError(f"{len(metadatas)} metadatas for {len(texts)} texts")
        if ids is not None and len(ids) != len(texts):
            raise ValueError(f"{len(ids)} ids for {len(texts)} texts")
        names = [name or uuid.uuid4().hex for name in ids or [None] * len(texts)]
        about = metadatas or [{}] * len(texts)
        self.index.put(
            edge_mrl.Document(name, text, dict(metadata))
            for name, text, metadata in zip(names, texts, about, strict=True)
        )
        return names

    def delete(self, ids: list[str] | None = None, **_: Any) -> bool:
        """Delete documents; unknown ids are no error. None deletes all."""
        self.index.delete(list(self.index.ids()) if ids is None else ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents by their ids; unknown ones are left out."""
        found = self.index.get(ids)
        return [_document(found[name]) for name in ids if name in found]

    def similarity_search(self, query: str, k: int = 4, **options: Any) -> list[Document]:
        """The k documents that answer a question best."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **options)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, **options: Any
    ) -> list[tuple[Document, float]]:
        """The same with scores; in mode "vector" the score is a cosine, and higher is better."""
        return self._whole(self.index.search(query, k, **options))

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **options: Any
    ) -> list[Document]:
        """The k documents that are nearest to a full vector of the store's embedding space."""
        vector = np.asarray(embedding, np.float32)
        found = self._whole(self.index.search_vector(vector, k, **options))
        return [document for document, _ in found]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,  # noqa: ARG002 - edge-mrl chooses its candidates itself
        lambda_mult: float = 0.5,
        **options: Any,
    ) -> list[Document]:
        """Documents that answer, and differ from each other; ``lambda_mult`` 1 is the plain order."""
        found = self.index.search(query, k, diversity=1 - lambda_mult, **options)
        return [document for document, _ in self._whole(found)]

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,  # noqa: ARG002 - edge-mrl chooses its candidates itself
        lambda_mult: float = 0.5,
        **options: Any,
    ) -> list[Document]:
        """The same for a full vector."""
        vector = np.asarray(embedding, np.float32)
        found = self.index.search_vector(vector, k, diversity=1 - lambda_mult, **options)
        return [document for document, _ in self._whole(found)]

    def close(self) -> None:
        """Close the store and the bundle."""
        self.index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return lambda cosine: min(max(cosine, 0.0), 1.0)

    def _whole(self, results: Results) -> list[tuple[Document, float]]:
        documents: Mapping[str, edge_mrl.Document] = self.index.get([hit.id for hit in results])
        return [
            (_document(documents[hit.id]), float(hit.score))
            for hit in results
            if hit.id in documents  # not deleted since
        ]


def _document(found: edge_mrl.Document) -> Document:
    return Document(found.text, id=found.id, metadata=dict(found.metadata))

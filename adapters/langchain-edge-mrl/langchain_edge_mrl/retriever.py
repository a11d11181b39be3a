"""A store as a retriever of passages."""

from __future__ import annotations

import threading
from typing import Any, Literal

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import PrivateAttr

from edge_mrl import Index

__all__ = ["EdgeMRLRetriever"]


class EdgeMRLRetriever(BaseRetriever):
    """The passages of a store that answer a question, or their documents.

    Attributes:
        store: The store's file; it must exist.
        k: How many documents at most.
        mode: "hybrid", by meaning and by words; "vector" or "keyword".
        filter: Which documents, by their metadata.
        whole: Whether whole documents are returned, instead of the passages that answer.
    """

    store: str
    k: int = 4
    mode: Literal["hybrid", "vector", "keyword"] = "hybrid"
    filter: dict[str, Any] | None = None
    whole: bool = False
    _index: Index | None = PrivateAttr(None)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @property
    def index(self) -> Index:
        """The opened store; threads may share it."""
        with self._lock:
            if self._index is None:
                self._index = Index.open(self.store)
            return self._index

    def close(self) -> None:
        """Close the store; it is opened again when it is needed."""
        with self._lock:
            if self._index is not None:
                self._index.close()
            self._index = None

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 - nothing is reported to it
        **options: Any,
    ) -> list[Document]:
        given = {"k": self.k, "mode": self.mode, "filter": self.filter, **options}
        results = self.index.search(query, **given)
        texts = {}
        if self.whole:
            texts = {d.id: d.text for d in self.index.get([hit.id for hit in results]).values()}
        return [
            Document(
                texts.get(hit.id, hit.text),
                id=hit.id,
                metadata={
                    **hit.metadata,
                    "id": hit.id,
                    "score": hit.score,
                    "start": hit.start,
                    "end": hit.end,
                    "headings": list(hit.headings),
                },
            )
            for hit in results
        ]

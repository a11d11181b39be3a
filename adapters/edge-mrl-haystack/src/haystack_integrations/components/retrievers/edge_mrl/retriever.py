"""A retriever that takes questions in words."""

from typing import Any, Literal

from haystack import Document, component, default_from_dict, default_to_dict
from haystack_integrations.document_stores.edge_mrl import EdgeMRLDocumentStore

__all__ = ["EdgeMRLRetriever"]


@component
class EdgeMRLRetriever:
    """The documents of a store that answer a question.

    Args:
        document_store: The store.
        top_k: How many documents at most.
        mode: "hybrid", by meaning and by words; "vector" or "keyword".
        filters: Which documents.
    """

    def __init__(
        self,
        document_store: EdgeMRLDocumentStore,
        top_k: int = 10,
        mode: Literal["hybrid", "vector", "keyword"] = "hybrid",
        filters: dict[str, Any] | None = None,
    ) -> None:
        self.document_store, self.top_k, self.mode = document_store, top_k, mode
        self.filters = filters

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Search; what is given here goes before what the retriever was made with."""
        found = self.document_store.search(
            query, top_k=top_k or self.top_k, mode=self.mode, filters=filters or self.filters
        )
        return {"documents": found}

    def to_dict(self) -> dict[str, Any]:
        """How it is written in a pipeline's file."""
        return default_to_dict(
            self,
            document_store=self.document_store.to_dict(),
            top_k=self.top_k,
            mode=self.mode,
            filters=self.filters,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "EdgeMRLRetriever":
        """Read what ``to_dict`` wrote."""
        given = data["init_parameters"]
        given["document_store"] = EdgeMRLDocumentStore.from_dict(given["document_store"])
        found: EdgeMRLRetriever = default_from_dict(cls, data)
        return found

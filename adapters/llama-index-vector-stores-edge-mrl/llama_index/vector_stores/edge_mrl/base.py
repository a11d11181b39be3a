"""A store of LlamaIndex's nodes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
from llama_index.vector_stores.edge_mrl.filters import translate

from edge_mrl import Document, Index, Results

__all__ = ["EdgeMRLVectorStore"]

#: The node's id among the metadata, for filters.
NODE_ID = "_node_id"
_MODES = {
    VectorStoreQueryMode.DEFAULT: "vector",
    VectorStoreQueryMode.MMR: "vector",
    VectorStoreQueryMode.TEXT_SEARCH: "keyword",
    VectorStoreQueryMode.SPARSE: "keyword",
    VectorStoreQueryMode.HYBRID: "hybrid",
    VectorStoreQueryMode.SEMANTIC_HYBRID: "hybrid",
}


class EdgeMRLVectorStore(BasePydanticVectorStore):
    """A store of edge-mrl as LlamaIndex's vector store; it embeds nodes and questions by itself.

    Args:
        index: An opened index.
    """

    stores_text: bool = True
    is_embedding_query: bool = False
    _index: Index = PrivateAttr()

    def __init__(self, index: Index) -> None:
        super().__init__()
        self._index = index

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
    def class_name(cls) -> str:
        """Its name in LlamaIndex's files."""
        return "EdgeMRLVectorStore"

    @property
    def client(self) -> Index:
        """The opened index."""
        return self._index

    def add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        """Add nodes; one with a known id replaces the former. Returns their ids."""
        self._index.put(
            Document(
                node.node_id,
                node.get_content(metadata_mode=MetadataMode.NONE),
                {
                    **node_to_metadata_dict(node, remove_text=True, flat_metadata=False),
                    NODE_ID: node.node_id,
                },
            )
            for node in nodes
        )
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        """Delete all nodes of a document."""
        self._index.delete(self._index.select({"ref_doc_id": ref_doc_id}))

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Nodes with these ids, or all, as far as they match the filters."""
        return [_node(found) for found in self._index.documents(_where(node_ids, None, filters))]

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **_: Any,
    ) -> None:
        """Delete nodes with these ids, or those that match the filters."""
        if node_ids is not None or filters is not None:
            self._index.delete(self._index.select(_where(node_ids, None, filters)))

    def clear(self) -> None:
        """Delete all nodes."""
        self._index.delete(self._index.select())

    def query(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        """The nodes that answer best, from the best.

        Args:
            query: The question. Empty lists of ids, as LlamaIndex's retriever sends them, mean all.
            **options: ``mmr_threshold`` for mode MMR, where the retriever passes it.

        Raises:
            ValueError: There is neither a text nor a vector, or edge-mrl has no such mode or filter.
        """
        mode = _MODES.get(query.mode)
        if mode is None:
            raise ValueError(f"edge-mrl has no mode {query.mode.value}")
        where = _where(query.node_ids or None, query.doc_ids or None, query.filters)
        how: dict[str, Any] = {"filter": where}
        k = query.similarity_top_k
        if mode == "hybrid":
            k = query.hybrid_top_k or k
        if query.mode == VectorStoreQueryMode.MMR:
            threshold = options.get("mmr_threshold", query.mmr_threshold)
            how["diversity"] = 0.5 if threshold is None else 1 - threshold
        if query.query_str is not None:
            return self._result(self._index.search(query.query_str, k, mode=mode, **how))
        if query.query_embedding is None or mode != "vector":
            raise ValueError(f"mode {query.mode.value} needs query_str, the question in words")
        vector = np.asarray(query.query_embedding, np.float32)
        return self._result(self._index.search_vector(vector, k, **how))

    async def async_add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        """See ``add``."""
        return await asyncio.to_thread(self.add, nodes)

    async def adelete(self, ref_doc_id: str, **_: Any) -> None:
        """See ``delete``."""
        await asyncio.to_thread(self.delete, ref_doc_id)

    async def aquery(self, query: VectorStoreQuery, **options: Any) -> VectorStoreQueryResult:
        """See ``query``."""
        return await asyncio.to_thread(self.query, query, **options)

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """See ``get_nodes``."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **_: Any,
    ) -> None:
        """See ``delete_nodes``."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters)

    async def aclear(self) -> None:
        """See ``clear``."""
        await asyncio.to_thread(self.clear)

    def close(self) -> None:
        """Close the store and the bundle."""
        self._index.close()

    def _result(self, results: Results) -> VectorStoreQueryResult:
        documents = self._index.get([hit.id for hit in results])
        hits = [hit for hit in results if hit.id in documents]  # not deleted since
        return VectorStoreQueryResult(
            nodes=[_node(documents[hit.id]) for hit in hits],
            similarities=[float(hit.score) for hit in hits],
            ids=[hit.id for hit in hits],
        )


def _where(
    node_ids: list[str] | None, doc_ids: list[str] | None, filters: MetadataFilters | None
) -> dict[str, Any]:
    parts = [translate(filters)]
    if node_ids is not None:
        parts.append({NODE_ID: {"$in": node_ids}})
    if doc_ids is not None:
        parts.append({"ref_doc_id": {"$in": doc_ids}})
    parts = [part for part in parts if part]
    return {"$and": parts} if parts else {}


def _node(found: Document) -> BaseNode:
    return metadata_dict_to_node(dict(found.metadata), text=found.text)

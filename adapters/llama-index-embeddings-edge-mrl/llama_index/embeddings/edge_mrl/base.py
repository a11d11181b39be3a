"""Embeddings of a bundle."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr

from edge_mrl import Encoder

__all__ = ["EdgeMRLEmbedding"]


class EdgeMRLEmbedding(BaseEmbedding):
    """Vectors of a bundle, which is opened when it is first needed.

    Attributes:
        bundle: A bundle's folder, a .zip of one, "hf://OWNER/NAME", or the name of an installed one.
        dim: Dimensions of the vectors: the full ones (the default), or up to those of the code.
        threads: Use at most so many threads (default: one per core).
        low_memory: Use less memory; slower.
    """

    bundle: str = Field("minilm", description="The bundle's folder or name.")
    dim: int | None = Field(None, description="Dimensions; None for the full ones.")
    threads: int | None = Field(None, description="Threads; None for one per core.")
    low_memory: bool = Field(default=False, description="Use less memory; slower.")
    _encoder: Encoder | None = PrivateAttr(None)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    def __init__(self, bundle: str = "minilm", **options: Any) -> None:
        options.setdefault("model_name", bundle)
        options.setdefault("embed_batch_size", 256)
        super().__init__(bundle=bundle, **options)

    @classmethod
    def class_name(cls) -> str:
        """Its name in LlamaIndex's files."""
        return "EdgeMRLEmbedding"

    @property
    def encoder(self) -> Encoder:
        """The bundle's encoder; threads may share it."""
        with self._lock:
            if self._encoder is None:
                self._encoder = Encoder.open(
                    self.bundle, threads=self.threads, low_memory=self.low_memory
                )
            return self._encoder

    def close(self) -> None:
        """Free the bundle; it is opened again when it is needed."""
        with self._lock:
            if self._encoder is not None:
                self._encoder.close()
            self._encoder = None

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self.encoder.encode_query(query, dim=self.dim).tolist()
        return vector

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self.encoder.encode_document(texts, dim=self.dim).tolist()
        return vectors

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)

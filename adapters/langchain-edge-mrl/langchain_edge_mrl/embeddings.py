"""Embeddings of a bundle."""

from __future__ import annotations

import threading
from typing import Any

from langchain_core.embeddings import Embeddings
from pydantic import BaseModel, ConfigDict, PrivateAttr

from edge_mrl import Encoder

__all__ = ["EdgeMRLEmbeddings"]


class EdgeMRLEmbeddings(BaseModel, Embeddings):
    """Vectors of a bundle, which is opened when it is first needed.

    Attributes:
        bundle: A bundle's folder, a .zip of one, "hf://OWNER/NAME", or the name of an installed one.
        dim: Dimensions of the vectors: the full ones (the default), or up to those of the code.
        threads: Use at most so many threads (default: one per core).
        low_memory: Use less memory; slower.
    """

    model_config = ConfigDict(extra="forbid")

    bundle: str = "minilm"
    dim: int | None = None
    threads: int | None = None
    low_memory: bool = False
    _encoder: Encoder | None = PrivateAttr(None)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @property
    def encoder(self) -> Encoder:
        """The bundle's encoder; threads may share it."""
        with self._lock:
            if self._encoder is None:
                self._encoder = Encoder.open(
                    self.bundle, threads=self.threads, low_memory=self.low_memory
                )
            return self._encoder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of length 1 for documents."""
        vectors: list[list[float]] = self.encoder.encode_document(texts, dim=self.dim).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """A vector of length 1 for a question."""
        vector: list[float] = self.encoder.encode_query(text, dim=self.dim).tolist()
        return vector

    def close(self) -> None:
        """Free the bundle; it is opened again when it is needed."""
        with self._lock:
            if self._encoder is not None:
                self._encoder.close()
            self._encoder = None

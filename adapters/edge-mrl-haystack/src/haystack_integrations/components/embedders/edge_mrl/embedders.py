"""Vectors of a bundle, for stores of others."""

import threading
from dataclasses import replace

from haystack import Document, component

from edge_mrl import Encoder

__all__ = ["EdgeMRLDocumentEmbedder", "EdgeMRLTextEmbedder"]


class _Bundle:
    def __init__(self, name: str) -> None:
        self._name = name
        self._encoder: Encoder | None = None
        self._lock = threading.Lock()

    def opened(self) -> Encoder:
        """The bundle's encoder, opened if it is not yet."""
        with self._lock:
            if self._encoder is None:
                self._encoder = Encoder.open(self._name)
            return self._encoder


@component
class EdgeMRLTextEmbedder:
    """The vector of a question.

    Args:
        bundle: The bundle's folder or name.
        dim: Dimensions: the full ones (the default), or up to those of the code.
    """

    def __init__(self, bundle: str = "minilm", dim: int | None = None) -> None:
        self.bundle, self.dim = bundle, dim
        self._opening = _Bundle(bundle)

    def warm_up(self) -> None:
        """Open the bundle; the first run does it otherwise."""
        self._opening.opened()

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, list[float]]:
        """Embed a question."""
        return {"embedding": self._opening.opened().encode_query(text, dim=self.dim).tolist()}


@component
class EdgeMRLDocumentEmbedder:
    """The vectors of documents.

    Args:
        bundle: The bundle's folder or name.
        dim: Dimensions: the full ones (the default), or up to those of the code.
    """

    def __init__(self, bundle: str = "minilm", dim: int | None = None) -> None:
        self.bundle, self.dim = bundle, dim
        self._opening = _Bundle(bundle)

    def warm_up(self) -> None:
        """Open the bundle; the first run does it otherwise."""
        self._opening.opened()

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Give documents their embeddings; those that were given stay as they are."""
        texts = [document.content or "" for document in documents]
        vectors = self._opening.opened().encode_document(texts, dim=self.dim).tolist()
        pairs = zip(documents, vectors, strict=True)
        return {"documents": [replace(one, embedding=vector) for one, vector in pairs]}

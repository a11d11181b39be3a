"""edge-mrl for llm: two embedding models, for documents and for questions."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import llm

from edge_mrl import Encoder

__all__ = ["EdgeMRL", "register_embedding_models"]

__version__ = "0.1.0"

#: Texts that are encoded together.
WINDOW = 256


class EdgeMRL(llm.EmbeddingModel):
    """A bundle as an embedding model, opened when it is first needed.

    Args:
        kind: What its texts are: "document" or "query".
        encoder: Gives the bundle's encoder.
    """

    def __init__(self, kind: str, encoder: Callable[[], Encoder]) -> None:
        self.model_id = f"edge-mrl/{kind}"
        self._kind, self._encoder = kind, encoder

    def embed_batch(self, items: Iterable[str | bytes]) -> Iterator[list[float]]:
        """Vectors of length 1, one for each text."""
        encoder = self._encoder()
        encode = encoder.encode_query if self._kind == "query" else encoder.encode_document
        waiting = iter(items)
        while window := [str(item) for item in islice(waiting, WINDOW)]:
            yield from encode(window).tolist()


class _Shared:
    """One encoder for both models."""

    def __init__(self) -> None:
        self._opened: Encoder | None = None
        self._lock = threading.Lock()

    def __call__(self) -> Encoder:
        with self._lock:
            if self._opened is None:
                self._opened = Encoder.open(_bundle())
            return self._opened


def _bundle() -> str:
    from edge_mrl.bundle import installed_bundle

    return os.environ.get("EDGE_MRL_BUNDLE") or str(installed_bundle())


@llm.hookimpl
def register_embedding_models(register: Callable[..., Any]) -> None:
    """Add the models to those of llm."""
    encoder = _Shared()
    register(EdgeMRL("document", encoder), aliases=("edge-mrl",))
    register(EdgeMRL("query", encoder))

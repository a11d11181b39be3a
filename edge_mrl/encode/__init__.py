"""Text to vectors: the graph, the tokenizer, passages, and proof that both work here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.encode.encoder import Encoder, Encoding
    from edge_mrl.encode.passages import passage_rule, split
    from edge_mrl.encode.session import available_threads
    from edge_mrl.encode.verification import (
        BATCH_MIN,
        GOLDEN_FORMAT,
        Verification,
        cosines,
        encode_vector,
        verify,
    )

__all__ = [
    "BATCH_MIN",
    "GOLDEN_FORMAT",
    "Encoder",
    "Encoding",
    "Verification",
    "available_threads",
    "cosines",
    "encode_vector",
    "passage_rule",
    "split",
    "verify",
]

__getattr__ = lazily(
    __name__,
    {
        "encoder": ("Encoder", "Encoding"),
        "passages": ("passage_rule", "split"),
        "session": ("available_threads",),
        "verification": (
            "BATCH_MIN",
            "GOLDEN_FORMAT",
            "Verification",
            "cosines",
            "encode_vector",
            "verify",
        ),
    },
)

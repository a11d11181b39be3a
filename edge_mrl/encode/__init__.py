"""Text to vectors: the tokenizer, the graph, passages, and the check that all work on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.encode.context import embedded_texts
    from edge_mrl.encode.encoder import Encoder, Encoding, OpeningKeywords, check_opening
    from edge_mrl.encode.graph_session import available_threads
    from edge_mrl.encode.passages import (
        WITH_HEADINGS,
        passage_rule,
        split_passages,
        token_spans,
    )
    from edge_mrl.encode.structure import split_document
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
    "WITH_HEADINGS",
    "Encoder",
    "Encoding",
    "OpeningKeywords",
    "Verification",
    "available_threads",
    "check_opening",
    "cosines",
    "embedded_texts",
    "encode_vector",
    "passage_rule",
    "split_document",
    "split_passages",
    "token_spans",
    "verify",
]

__getattr__ = lazily(
    __name__,
    {
        "context": ("embedded_texts",),
        "encoder": ("Encoder", "Encoding", "OpeningKeywords", "check_opening"),
        "graph_session": ("available_threads",),
        "passages": ("WITH_HEADINGS", "passage_rule", "split_passages", "token_spans"),
        "structure": ("split_document",),
        "verification": (
            "BATCH_MIN",
            "GOLDEN_FORMAT",
            "Verification",
            "cosines",
            "encode_vector",
            "verify",
        ),
    },
    renamed={"split": "split_passages"},
)

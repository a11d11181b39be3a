"""Text to vectors: the tokenizer, the graph, passages, and the check that all work on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.encode.encoder import Encoder, Encoding, OpeningKeywords, check_opening
    from edge_mrl.encode.graph_session import available_threads
    from edge_mrl.encode.passages import (
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
    "Encoder",
    "Encoding",
    "OpeningKeywords",
    "Verification",
    "available_threads",
    "check_opening",
    "cosines",
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
        "encoder": ("Encoder", "Encoding", "OpeningKeywords", "check_opening"),
        "graph_session": ("available_threads",),
        "passages": ("passage_rule", "split_passages", "token_spans"),
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

"""Documents become entries of a store: split into passages and embedded, batch by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.ingest.again import REINDEX_DOCUMENTS, embed_again, require_rule, rule_for
    from edge_mrl.ingest.embedding import Refused, embed, full_vectors
    from edge_mrl.ingest.putting import MOST_CHANGES, PutOptions, Stored, batches, put_documents

__all__ = [
    "MOST_CHANGES",
    "REINDEX_DOCUMENTS",
    "PutOptions",
    "Refused",
    "Stored",
    "batches",
    "embed",
    "embed_again",
    "full_vectors",
    "put_documents",
    "require_rule",
    "rule_for",
]

__getattr__ = lazily(
    __name__,
    {
        "again": ("REINDEX_DOCUMENTS", "embed_again", "require_rule", "rule_for"),
        "embedding": ("Refused", "embed", "full_vectors"),
        "putting": ("MOST_CHANGES", "PutOptions", "Stored", "batches", "put_documents"),
    },
)

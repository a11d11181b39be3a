"""Documents become entries of a store: split into passages and embedded, batch by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.ingest.again import (
        ReindexOptions,
        Tally,
        recode,
        reindex_store,
        require_rule,
        require_space,
        rule_for,
    )
    from edge_mrl.ingest.embedding import Refused, embed, full_vectors
    from edge_mrl.ingest.exchange import Loaded, Parsed, dump_lines, load_lines, parse_line
    from edge_mrl.ingest.putting import MOST_CHANGES, PutOptions, Stored, batches, put_documents

__all__ = [
    "MOST_CHANGES",
    "Loaded",
    "Parsed",
    "PutOptions",
    "Refused",
    "ReindexOptions",
    "Stored",
    "Tally",
    "batches",
    "dump_lines",
    "embed",
    "full_vectors",
    "load_lines",
    "parse_line",
    "put_documents",
    "recode",
    "reindex_store",
    "require_rule",
    "require_space",
    "rule_for",
]

__getattr__ = lazily(
    __name__,
    {
        "again": (
            "ReindexOptions",
            "Tally",
            "recode",
            "reindex_store",
            "require_rule",
            "require_space",
            "rule_for",
        ),
        "embedding": ("Refused", "embed", "full_vectors"),
        "exchange": ("Loaded", "Parsed", "dump_lines", "load_lines", "parse_line"),
        "putting": ("MOST_CHANGES", "PutOptions", "Stored", "batches", "put_documents"),
    },
    retired={
        "again": {"REINDEX_DOCUMENTS": "recode decides how many documents are committed together"},
        "former": {"embed_again": "use recode with known=None"},
    },
)

"""The facade: an index is a store and its bundle, documents in and answers out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.index.asynchronous import AsyncIndex
    from edge_mrl.index.facade import Index

__all__ = ["AsyncIndex", "Index"]

__getattr__ = lazily(
    __name__,
    {"asynchronous": ("AsyncIndex",), "facade": ("Index",)},
    former={
        "edge_mrl.ingest": ("Stored", "embed"),
        "edge_mrl.search": ("Hit",),
        "edge_mrl.store": ("binding_of", "find_bundle"),
    },
)

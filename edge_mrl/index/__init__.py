"""The facade: an index is a store and its bundle, documents in and answers out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.index.asynchronous import AsyncIndex
    from edge_mrl.index.facade import Index
    from edge_mrl.index.supplying import codes_of_server

__all__ = ["AsyncIndex", "Index", "codes_of_server"]

__getattr__ = lazily(
    __name__,
    {
        "asynchronous": ("AsyncIndex",),
        "facade": ("Index",),
        "supplying": ("codes_of_server",),
    },
    former={
        "edge_mrl.ingest": ("Stored", "embed"),
        "edge_mrl.search": ("Hit",),
        "edge_mrl.store": ("binding_of", "find_bundle"),
    },
)

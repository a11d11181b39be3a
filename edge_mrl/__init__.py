"""Semantic search that lives on the device: encode, store and search text offline.

Names are loaded when they are first used, so that ``import edge_mrl`` costs nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from edge_mrl._version import __version__

if TYPE_CHECKING:
    from edge_mrl.documents import Document
    from edge_mrl.encode import Encoder, Encoding, Verification
    from edge_mrl.index import Index
    from edge_mrl.search import Hit
    from edge_mrl.sync import SyncClient

__all__ = [
    "Document",
    "Encoder",
    "Encoding",
    "Hit",
    "Index",
    "SyncClient",
    "Verification",
    "__version__",
]

# From 1.29 on, ONNX Runtime reports its use to its maker unless told not to before it is loaded: it
# makes a device id and a database in the user's cache, and a thread that uploads. Nothing here does.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Document": "documents",
    "Encoder": "encode.encoder",
    "Encoding": "encode.encoder",
    "Hit": "search",
    "Index": "index",
    "SyncClient": "sync.client",
    "Verification": "encode.verification",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

"""Semantic search that lives on the device: encode, store and search text offline.

These names are the public interface; ``import edge_mrl`` loads none of them before it is used.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edge_mrl._version import __version__
from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.documents import Document
    from edge_mrl.encode import Encoder, Encoding, Verification
    from edge_mrl.errors import (
        BindingError,
        BundleError,
        DamagedError,
        EdgeMrlError,
        EncoderError,
        FormatError,
        GateError,
        GraphError,
        HashError,
        IntermediaryError,
        ManifestError,
        MissingDependencyError,
        MissingFileError,
        NetworkError,
        NoStoreError,
        NotAStoreError,
        NotEnrolledError,
        OutOfMemoryError,
        OversizedAnswerError,
        RefusedDocumentsError,
        ServerError,
        SignatureError,
        StepError,
        StoreBusyError,
        StoreError,
        StoreKeyError,
        StoreVersionError,
        TokenizerError,
        TruncatedError,
        UsageError,
        WireError,
    )
    from edge_mrl.index import AsyncIndex, Index
    from edge_mrl.search import Hit, Results, SearchOptions
    from edge_mrl.store import Stats
    from edge_mrl.sync import SyncClient

__all__ = [
    "AsyncIndex",
    "BindingError",
    "BundleError",
    "DamagedError",
    "Document",
    "EdgeMrlError",
    "Encoder",
    "EncoderError",
    "Encoding",
    "FormatError",
    "GateError",
    "GraphError",
    "HashError",
    "Hit",
    "Index",
    "IntermediaryError",
    "ManifestError",
    "MissingDependencyError",
    "MissingFileError",
    "NetworkError",
    "NoStoreError",
    "NotAStoreError",
    "NotEnrolledError",
    "OutOfMemoryError",
    "OversizedAnswerError",
    "RefusedDocumentsError",
    "Results",
    "SearchOptions",
    "ServerError",
    "SignatureError",
    "Stats",
    "StepError",
    "StoreBusyError",
    "StoreError",
    "StoreKeyError",
    "StoreVersionError",
    "SyncClient",
    "TokenizerError",
    "TruncatedError",
    "UsageError",
    "Verification",
    "WireError",
    "__version__",
]

# From 1.29 on, ONNX Runtime reports its use to its maker unless this is set before it is loaded: it
# makes a device id and a database in the user's cache, and a thread that uploads.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Modules that have moved are still found where they were, and warn.
__path__.append(str(Path(__file__).parent / "_moved"))

__getattr__ = lazily(
    __name__,
    {
        "documents": ("Document",),
        "encode": ("Encoder", "Encoding", "Verification"),
        "errors": (
            "BindingError",
            "BundleError",
            "DamagedError",
            "EdgeMrlError",
            "EncoderError",
            "FormatError",
            "GateError",
            "GraphError",
            "HashError",
            "IntermediaryError",
            "ManifestError",
            "MissingDependencyError",
            "MissingFileError",
            "NetworkError",
            "NoStoreError",
            "NotAStoreError",
            "NotEnrolledError",
            "OutOfMemoryError",
            "OversizedAnswerError",
            "RefusedDocumentsError",
            "ServerError",
            "SignatureError",
            "StepError",
            "StoreBusyError",
            "StoreError",
            "StoreKeyError",
            "StoreVersionError",
            "TokenizerError",
            "TruncatedError",
            "UsageError",
            "WireError",
        ),
        "index": ("AsyncIndex", "Index"),
        "search": ("Hit", "Results", "SearchOptions"),
        "store": ("Stats",),
        "sync": ("SyncClient",),
    },
)

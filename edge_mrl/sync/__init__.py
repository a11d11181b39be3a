"""Keeping a store and a server in sync, whatever the network does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.sync.client import (
        Outcome,
        Status,
        SyncClient,
        Target,
        enroll,
        move,
        retry_letters,
        status_of,
    )
    from edge_mrl.sync.credentials import Credentials
    from edge_mrl.sync.policy import Backoff, Conditions, Policy
    from edge_mrl.sync.remote import Page, Remote
    from edge_mrl.sync.reranker import Reranker
    from edge_mrl.sync.targets.qdrant import open_target
    from edge_mrl.sync.transport import Timeouts

__all__ = [
    "Backoff",
    "Conditions",
    "Credentials",
    "Outcome",
    "Page",
    "Policy",
    "Remote",
    "Reranker",
    "Status",
    "SyncClient",
    "Target",
    "Timeouts",
    "enroll",
    "move",
    "open_target",
    "retry_letters",
    "status_of",
]

__getattr__ = lazily(
    __name__,
    {
        "client": (
            "Outcome",
            "Status",
            "SyncClient",
            "Target",
            "enroll",
            "move",
            "retry_letters",
            "status_of",
        ),
        "credentials": ("Credentials",),
        "policy": ("Backoff", "Conditions", "Policy"),
        "remote": ("Page", "Remote"),
        "reranker": ("Reranker",),
        "targets.qdrant": ("open_target",),
        "transport": ("Timeouts",),
    },
)

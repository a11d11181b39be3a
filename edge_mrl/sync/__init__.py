"""Keeping a store and a server in sync, whatever the network does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.sync.client import SyncClient, retry_dead_letters
    from edge_mrl.sync.credentials import Credentials
    from edge_mrl.sync.enrollment import EnrollmentOptions, enroll, move
    from edge_mrl.sync.outcome import Cause, Outcome
    from edge_mrl.sync.policy import Conditions, Policy
    from edge_mrl.sync.pulls.page import ChangePage
    from edge_mrl.sync.pulls.recoding import ServerCodes
    from edge_mrl.sync.remote import Remote
    from edge_mrl.sync.reranker import Reranker
    from edge_mrl.sync.status import Status, status_of
    from edge_mrl.sync.targets.qdrant import open_target
    from edge_mrl.sync.targets.target import PushBatch, PushResult, PushTarget
    from edge_mrl.sync.transport import Timeouts

__all__ = [
    "Cause",
    "ChangePage",
    "Conditions",
    "Credentials",
    "EnrollmentOptions",
    "Outcome",
    "Policy",
    "PushBatch",
    "PushResult",
    "PushTarget",
    "Remote",
    "Reranker",
    "ServerCodes",
    "Status",
    "SyncClient",
    "Timeouts",
    "enroll",
    "move",
    "open_target",
    "retry_dead_letters",
    "status_of",
]

__getattr__ = lazily(
    __name__,
    {
        "client": ("SyncClient", "retry_dead_letters"),
        "credentials": ("Credentials",),
        "enrollment": ("EnrollmentOptions", "enroll", "move"),
        "outcome": ("Cause", "Outcome"),
        "policy": ("Conditions", "Policy"),
        "pulls.page": ("ChangePage",),
        "pulls.recoding": ("ServerCodes",),
        "remote": ("Remote",),
        "reranker": ("Reranker",),
        "status": ("Status", "status_of"),
        "targets.qdrant": ("open_target",),
        "targets.target": ("PushBatch", "PushResult", "PushTarget"),
        "transport": ("Timeouts",),
    },
    renamed={"Target": "PushTarget", "retry_letters": "retry_dead_letters"},
)

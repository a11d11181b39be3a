"""Documents, codes and their file: the only room with SQL on a store's tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.store import reindex, replica
    from edge_mrl.store.codefile.file import Layout, Segment
    from edge_mrl.store.codefile.table import CodeTable, Part
    from edge_mrl.store.maintain import Compaction, Health, check, compact, stats
    from edge_mrl.store.replica.arrivals import Agreed
    from edge_mrl.store.replica.dead_letters import DeadLetter
    from edge_mrl.store.replica.outbox import MAX_QUEUE_BYTES, Enrollment
    from edge_mrl.store.replica.queue import Outgoing, Queue, Verdict
    from edge_mrl.store.store import Binding, Counts, Entry, Store, text_hash
    from edge_mrl.store.view import Place, View

__all__ = [
    "MAX_QUEUE_BYTES",
    "Agreed",
    "Binding",
    "CodeTable",
    "Compaction",
    "Counts",
    "DeadLetter",
    "Enrollment",
    "Entry",
    "Health",
    "Layout",
    "Outgoing",
    "Part",
    "Place",
    "Queue",
    "Segment",
    "Store",
    "Verdict",
    "View",
    "check",
    "compact",
    "reindex",
    "replica",
    "stats",
    "text_hash",
]

__getattr__ = lazily(
    __name__,
    {
        "codefile.file": ("Layout", "Segment"),
        "codefile.table": ("CodeTable", "Part"),
        "maintain": ("Compaction", "Health", "check", "compact", "stats"),
        "replica.arrivals": ("Agreed",),
        "replica.dead_letters": ("DeadLetter",),
        "replica.outbox": ("MAX_QUEUE_BYTES", "Enrollment"),
        "replica.queue": ("Outgoing", "Queue", "Verdict"),
        "store": ("Binding", "Counts", "Entry", "Store", "text_hash"),
        "view": ("Place", "View"),
    },
)

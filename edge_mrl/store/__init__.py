"""Documents, codes and their file: the only room with SQL on a store's tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.store import reindex, replica
    from edge_mrl.store.binding import SEARCH_STAGES
    from edge_mrl.store.bundles import binding_of, find_bundle
    from edge_mrl.store.codefile.file import Layout, Segment
    from edge_mrl.store.codefile.table import CodeBlock, CodeTable
    from edge_mrl.store.compaction import Compaction, compact
    from edge_mrl.store.health import Health, check
    from edge_mrl.store.keywords import full_text_problem
    from edge_mrl.store.records import Binding, Counts, Entry, text_hash
    from edge_mrl.store.replica.arrivals import Agreed
    from edge_mrl.store.replica.dead_letters import DeadLetter
    from edge_mrl.store.replica.outbox import MAX_QUEUE_BYTES, Enrollment
    from edge_mrl.store.replica.queue import Outgoing, Queue, Verdict
    from edge_mrl.store.roots import (
        Moved,
        Root,
        forget_root,
        move_some,
        read_roots,
        sources_below,
        write_roots,
    )
    from edge_mrl.store.statistics import Stats, stats
    from edge_mrl.store.store import Store
    from edge_mrl.store.view import Place, View

__all__ = [
    "MAX_QUEUE_BYTES",
    "SEARCH_STAGES",
    "Agreed",
    "Binding",
    "CodeBlock",
    "CodeTable",
    "Compaction",
    "Counts",
    "DeadLetter",
    "Enrollment",
    "Entry",
    "Health",
    "Layout",
    "Moved",
    "Outgoing",
    "Place",
    "Queue",
    "Root",
    "Segment",
    "Stats",
    "Store",
    "Verdict",
    "View",
    "binding_of",
    "check",
    "compact",
    "find_bundle",
    "forget_root",
    "full_text_problem",
    "move_some",
    "read_roots",
    "reindex",
    "replica",
    "sources_below",
    "stats",
    "text_hash",
    "write_roots",
]

__getattr__ = lazily(
    __name__,
    {
        "binding": ("SEARCH_STAGES",),
        "bundles": ("binding_of", "find_bundle"),
        "codefile.file": ("Layout", "Segment"),
        "codefile.table": ("CodeTable", "CodeBlock"),
        "compaction": ("Compaction", "compact"),
        "health": ("Health", "check"),
        "keywords": ("full_text_problem",),
        "records": ("Binding", "Counts", "Entry", "text_hash"),
        "replica.arrivals": ("Agreed",),
        "replica.dead_letters": ("DeadLetter",),
        "replica.outbox": ("MAX_QUEUE_BYTES", "Enrollment"),
        "replica.queue": ("Outgoing", "Queue", "Verdict"),
        "roots": (
            "Moved",
            "Root",
            "forget_root",
            "move_some",
            "read_roots",
            "sources_below",
            "write_roots",
        ),
        "statistics": ("Stats", "stats"),
        "store": ("Store",),
        "view": ("Place", "View"),
    },
)

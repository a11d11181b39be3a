"""Documents, codes and their file: the only room with SQL on a store's tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl.store import reindex, replica
    from edge_mrl.store.binding import ENGINES, SEARCH_STAGES, Bound
    from edge_mrl.store.bundles import binding_of, find_bundle
    from edge_mrl.store.codefile.file import Layout, Segment
    from edge_mrl.store.codefile.table import CodeBlock, CodeTable
    from edge_mrl.store.compaction import Compaction, compact
    from edge_mrl.store.engine.cipher import Key
    from edge_mrl.store.engine.conversion import Conversion, convert
    from edge_mrl.store.engine.keys import (
        key_from_descriptor,
        key_from_environment,
        key_from_file,
    )
    from edge_mrl.store.engine.private import PrivateData, PrivateStream, private_data
    from edge_mrl.store.engine.userdata import check_query, copy_rows
    from edge_mrl.store.health.check import Health, check
    from edge_mrl.store.health.statistics import Stats, stats
    from edge_mrl.store.keywords.expression import full_text_problem
    from edge_mrl.store.listing import list_documents, list_entries, list_ids
    from edge_mrl.store.records import Binding, Counts, Entry, text_hash
    from edge_mrl.store.replica.dead_letters import DeadLetter
    from edge_mrl.store.replica.outbox import MAX_QUEUE_BYTES, Enrollment
    from edge_mrl.store.replica.queue import Outgoing, Queue, Verdict
    from edge_mrl.store.replica.reconciling import Agreed
    from edge_mrl.store.roots import (
        Moved,
        Root,
        forget_root,
        move_some,
        read_roots,
        sources_below,
        write_roots,
    )
    from edge_mrl.store.store import Store
    from edge_mrl.store.view import Place, View

__all__ = [
    "ENGINES",
    "MAX_QUEUE_BYTES",
    "SEARCH_STAGES",
    "Agreed",
    "Binding",
    "Bound",
    "CodeBlock",
    "CodeTable",
    "Compaction",
    "Conversion",
    "Counts",
    "DeadLetter",
    "Enrollment",
    "Entry",
    "Health",
    "Key",
    "Layout",
    "Moved",
    "Outgoing",
    "Place",
    "PrivateData",
    "PrivateStream",
    "Queue",
    "Root",
    "Segment",
    "Stats",
    "Store",
    "Verdict",
    "View",
    "binding_of",
    "check",
    "check_query",
    "compact",
    "convert",
    "copy_rows",
    "find_bundle",
    "forget_root",
    "full_text_problem",
    "key_from_descriptor",
    "key_from_environment",
    "key_from_file",
    "list_documents",
    "list_entries",
    "list_ids",
    "move_some",
    "private_data",
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
        "binding": ("ENGINES", "SEARCH_STAGES", "Bound"),
        "bundles": ("binding_of", "find_bundle"),
        "codefile.file": ("Layout", "Segment"),
        "codefile.table": ("CodeTable", "CodeBlock"),
        "compaction": ("Compaction", "compact"),
        "engine.cipher": ("Key",),
        "engine.conversion": ("Conversion", "convert"),
        "engine.keys": ("key_from_descriptor", "key_from_environment", "key_from_file"),
        "engine.private": ("PrivateData", "PrivateStream", "private_data"),
        "health.check": ("Health", "check"),
        "keywords.expression": ("full_text_problem",),
        "listing": ("list_documents", "list_entries", "list_ids"),
        "records": ("Binding", "Counts", "Entry", "text_hash"),
        "replica.reconciling": ("Agreed",),
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
        "health.statistics": ("Stats", "stats"),
        "store": ("Store",),
        "engine.userdata": ("check_query", "copy_rows"),
        "view": ("Place", "View"),
    },
)

"""Where the server keeps what devices send: SQLite or PostgreSQL behind one interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl_server.storage import accounts, heads, marks, ranking, receipts, removal
    from edge_mrl_server.storage.accounts import present_tenant
    from edge_mrl_server.storage.agreement.offers import MAX_LOST
    from edge_mrl_server.storage.agreement.sums import fill_sums
    from edge_mrl_server.storage.clocks import Restamped, clock_behind_ms, restamp
    from edge_mrl_server.storage.database import (
        Database,
        hold_database,
        is_file,
        open_database,
    )
    from edge_mrl_server.storage.engines.copies import (
        Copied,
        Restored,
        backup,
        check_restored,
        restore,
    )
    from edge_mrl_server.storage.engines.postgres import PostgresDatabase
    from edge_mrl_server.storage.engines.prefix_index import IndexMade
    from edge_mrl_server.storage.heads import Head
    from edge_mrl_server.storage.pulls import (
        Changes,
        LivePages,
        PullQuery,
        changes_after,
        live_pages,
        note_pull,
    )
    from edge_mrl_server.storage.pushes import Push, push
    from edge_mrl_server.storage.records import Principal, Tenant
    from edge_mrl_server.storage.removal import purge
    from edge_mrl_server.storage.spaces import require_space
    from edge_mrl_server.storage.tokens import IssuedToken

__all__ = [
    "MAX_LOST",
    "Changes",
    "Copied",
    "Database",
    "Head",
    "IndexMade",
    "IssuedToken",
    "LivePages",
    "PostgresDatabase",
    "Principal",
    "PullQuery",
    "Push",
    "Restamped",
    "Restored",
    "Tenant",
    "accounts",
    "backup",
    "changes_after",
    "check_restored",
    "clock_behind_ms",
    "fill_sums",
    "heads",
    "hold_database",
    "is_file",
    "live_pages",
    "marks",
    "note_pull",
    "open_database",
    "present_tenant",
    "purge",
    "push",
    "ranking",
    "receipts",
    "removal",
    "require_space",
    "restamp",
    "restore",
]

__getattr__ = lazily(
    __name__,
    {
        "": ("accounts", "heads", "marks", "ranking", "receipts", "removal"),
        "accounts": ("present_tenant",),
        "clocks": ("Restamped", "clock_behind_ms", "restamp"),
        "database": ("Database", "hold_database", "is_file", "open_database"),
        "engines.copies": ("Copied", "Restored", "backup", "check_restored", "restore"),
        "engines.postgres": ("PostgresDatabase",),
        "engines.prefix_index": ("IndexMade",),
        "heads": ("Head",),
        "agreement.offers": ("MAX_LOST",),
        "pulls": ("Changes", "LivePages", "PullQuery", "changes_after", "live_pages", "note_pull"),
        "pushes": ("Push", "push"),
        "removal": ("purge",),
        "records": ("Principal", "Tenant"),
        "spaces": ("require_space",),
        "tokens": ("IssuedToken",),
        "agreement.sums": ("fill_sums",),
    },
)

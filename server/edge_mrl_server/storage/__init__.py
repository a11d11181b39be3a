"""Where the server keeps what devices send: SQLite or PostgreSQL behind one interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_mrl.lazy import lazily

if TYPE_CHECKING:
    from edge_mrl_server.storage.accounts import Enrolled, require_tenant
    from edge_mrl_server.storage.database import Database, open_database
    from edge_mrl_server.storage.engines.postgres import PostgresDatabase
    from edge_mrl_server.storage.pulls import Wanted, changes_after, live_pages, note_pull
    from edge_mrl_server.storage.pushes import Push, purge, push, restored
    from edge_mrl_server.storage.records import Principal, Tenant

__all__ = [
    "Database",
    "Enrolled",
    "PostgresDatabase",
    "Principal",
    "Push",
    "Tenant",
    "Wanted",
    "changes_after",
    "live_pages",
    "note_pull",
    "open_database",
    "purge",
    "push",
    "require_tenant",
    "restored",
]

__getattr__ = lazily(
    __name__,
    {
        "accounts": ("Enrolled", "require_tenant"),
        "database": ("Database", "open_database"),
        "engines.postgres": ("PostgresDatabase",),
        "pulls": ("Wanted", "changes_after", "live_pages", "note_pull"),
        "pushes": ("Push", "purge", "push", "restored"),
        "records": ("Principal", "Tenant"),
    },
)

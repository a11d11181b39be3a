"""Where the server keeps what devices send: SQLite or PostgreSQL behind one interface."""

from __future__ import annotations

from edge_mrl_server.storage.database import Database, open_database

__all__ = ["Database", "open_database"]

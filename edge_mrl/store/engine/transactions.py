"""Transactions of a store's database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["one_state", "transaction"]


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    """Run a block in a transaction: IMMEDIATE to write, DEFERRED to read one state of the store."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors, such as a full disk, end the transaction themselves.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def one_state(connection: sqlite3.Connection) -> Iterator[None]:
    """Run a block in a transaction that reads: its own, or the one that is open."""
    if connection.in_transaction:
        yield
        return
    with transaction(connection, "DEFERRED"):
        yield

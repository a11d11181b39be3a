"""Giving back the space of deleted documents."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge_mrl.errors import DamagedError
from edge_mrl.store.codefile.file import GENERATION_BYTES
from edge_mrl.store.codefile.state import read_dead, read_state, write_state
from edge_mrl.store.engine.sizes import stored_bytes
from edge_mrl.store.records import passage_check, sound_passages
from edge_mrl.store.statements import insert_into

if TYPE_CHECKING:
    from edge_mrl.store.store import Store

__all__ = ["Compaction", "compact"]

_PASSAGES = ("first_row", "document", "rows", "crc", "spans", "codes")


@dataclass(frozen=True, slots=True)
class Compaction:
    """What compacting gave back.

    Attributes:
        before_bytes: Bytes on disk of store, log and code file before it.
        after_bytes: Bytes on disk after it.
        rows_dropped: Rows of deleted passages that were dropped.
    """

    before_bytes: int
    after_bytes: int
    rows_dropped: int


def compact(store: Store) -> Compaction:
    """Drop the rows of deleted passages, and give free space back to the file system.

    The store can be read meanwhile, and a kill at any moment loses nothing. It needs about as much free
    space as the store takes.

    Raises:
        StoreError: The store cannot be written, or there is not enough free space. Nothing is lost.
    """
    before = sum(stored_bytes(store.path).values())
    with store.writing() as state, store.locked() as (connection, cache):
        dropped = len(read_dead(connection))
        if dropped:
            _renumber(connection)
            rows = state.next_row - dropped
            write_state(
                connection,
                replace(
                    state,
                    changes=state.changes + 1,
                    next_row=rows,
                    filed=0,
                    generation=os.urandom(GENERATION_BYTES),
                ),
            )
        connection.execute("INSERT INTO keywords (keywords) VALUES ('optimize')")
    with store.locked() as (connection, cache):
        cache.remove()
        connection.execute("VACUUM")
        cache.keep_up(read_state(connection))
        # A reader keeps the log in use; then the next to close the store folds it in.
        (patience,) = connection.execute("PRAGMA busy_timeout").fetchone()
        connection.execute("PRAGMA busy_timeout = 100")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        connection.execute(f"PRAGMA busy_timeout = {patience}")
    return Compaction(before, sum(stored_bytes(store.path).values()), dropped)


def _renumber(connection: sqlite3.Connection) -> None:
    schema = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'passages'"
    (sql,) = connection.execute(schema).fetchone()
    _, _, columns = sql.partition("(")
    connection.execute(f"CREATE TABLE compacted ({columns}")
    row = 0
    columns = "first_row, document, rows, spans, codes, crc"
    for values in connection.execute(f"SELECT {columns} FROM passages ORDER BY first_row"):  # noqa: S608
        if not sound_passages(*values):
            raise DamagedError(f"the passages of document {values[1]} cannot be trusted")
        _, key, rows, spans, codes, _ = values
        crc = passage_check(row, key, rows, spans, codes)
        connection.execute(insert_into("compacted", _PASSAGES), (row, key, rows, crc, spans, codes))
        row += rows
    connection.execute("DROP TABLE passages")
    connection.execute("ALTER TABLE compacted RENAME TO passages")
    connection.execute("DELETE FROM tombstones")
    connection.execute("DELETE FROM segments")

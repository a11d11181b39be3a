"""Making again what a store can make from what is sound in it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING

from edge_mrl.documents import id_problem
from edge_mrl.errors import DamagedError, StoreError
from edge_mrl.store.codefile.file import GENERATION_BYTES
from edge_mrl.store.codefile.state import State, read_state, rewrite_tombstones, write_state
from edge_mrl.store.file import transaction
from edge_mrl.store.health.rewriting import Rescued, rewrite
from edge_mrl.store.health.salvage import is_damage
from edge_mrl.store.health.words import index_words
from edge_mrl.store.records import (
    DOCUMENT_COLUMNS,
    checksum,
    decode_metadata,
    sound_document,
    sound_passages,
)
from edge_mrl.store.replica.mending import mend_queue
from edge_mrl.store.replica.withheld import WITHHELD_COLUMNS
from edge_mrl.store.roots import drop_damaged_roots
from edge_mrl.store.rows import insert_fields

if TYPE_CHECKING:
    from edge_mrl.store.store import Store

__all__ = ["repair"]

#: How far counters jump where the last value is lost, so that no number is given out twice.
_JUMP = 1 << 20
#: Parts whose repair moves rows or documents, after which lists and indexes are made again too.
_BASIC = frozenset({"indexes", "orphans", "documents", "state", "tombstones"})
#: What is made again when the file is written anew.
_ALL = _BASIC | {"fields", "keywords"}


def repair(store: Store, parts: Collection[str]) -> Rescued | None:
    """Make parts of a store again, in one transaction; the code file after it.

    Where the file itself is damaged, or that is not possible, it is written anew.

    Args:
        store: The store.
        parts: What is damaged, by the names that ``check`` gives.

    Returns:
        What was lost when the file was written anew; None if it was not.
    """
    if "structure" not in parts:
        try:
            _repair_in_place(store, parts)
        except StoreError as error:
            if not is_damage(error):
                raise
        else:
            return None
    return rewrite(store, lambda new: _repair(new, _ALL))


def _repair_in_place(store: Store, parts: Collection[str]) -> None:
    with store.locked() as (connection, cache):
        # With it, SQLite deletes rows whose entry in an index is lost.
        connection.execute("PRAGMA writable_schema = ON")
        try:
            with transaction(connection, "IMMEDIATE"):
                _repair(connection, parts)
        finally:
            connection.execute("PRAGMA writable_schema = RESET")
        files = [name for name in parts if name.startswith("codes")]
        if files or not _BASIC.isdisjoint(parts):
            cache.remove()
            cache.roll()
    store.refresh()


def _repair(connection: sqlite3.Connection, parts: Collection[str]) -> None:
    basic = not _BASIC.isdisjoint(parts)
    if basic:
        _remove_lost(connection)
        connection.execute("REINDEX")
        _mend_state(connection)
    _drop_damaged(connection, parts)
    if basic or "queue" in parts:
        with suppress(DamagedError):  # "sync" is damaged and was not asked for
            mend_queue(connection)
    if basic or "fields" in parts:
        _index_fields(connection)
    if basic or "keywords" in parts:
        index_words(connection)


def _drop_damaged(connection: sqlite3.Connection, parts: Collection[str]) -> None:
    """Delete damaged rows that the store can do without."""
    for table, columns in (
        ("settings", "name, value"),
        ("dead", "id, stamp, reason, since_ms, deleted, metadata, text"),
        ("withheld", WITHHELD_COLUMNS),
    ):
        if table in parts:
            _drop_unsound(connection, table, columns)
    if "reindexing" in parts:
        connection.execute("DELETE FROM reindexed")
        connection.execute("DELETE FROM reindexing")
    if "roots" in parts:
        drop_damaged_roots(connection)
    if "sync" in parts:
        connection.execute("DELETE FROM sync")


def _remove_lost(connection: sqlite3.Connection) -> None:
    """Remove documents that nobody can name, or that hide behind another of their name."""
    seen: dict[str, int] = {}
    gone = []
    query = f"SELECT {DOCUMENT_COLUMNS} FROM documents NOT INDEXED ORDER BY key"  # noqa: S608
    for row in connection.execute(query):
        key, name = row[:2]
        sound = sound_document(*row)
        if not sound and (id_problem(name) is not None or not _indexed(connection, key, name)):
            gone.append(key)
        elif sound and name in seen:
            gone.append(seen[name])  # the later one was put when this one was not found
            seen[name] = key
        elif sound:
            seen[name] = key
    for key in gone:
        for table in ("passages", "fulls", "reindexed", "fields"):
            query = f"DELETE FROM {table} WHERE document = ?"  # noqa: S608 - own names
            connection.execute(query, (key,))
        connection.execute("DELETE FROM documents WHERE key = ?", (key,))
    for table in ("passages", "fulls", "reindexed"):
        query = f"DELETE FROM {table} WHERE document NOT IN (SELECT key FROM documents)"  # noqa: S608
        connection.execute(query)


def _indexed(connection: sqlite3.Connection, key: int, name: str) -> bool:
    rows = connection.execute("SELECT key FROM documents WHERE id = ?", (name,)).fetchall()
    return (key,) in rows


def _mend_state(connection: sqlite3.Connection) -> None:
    """Count again, and list again which rows are deleted."""
    try:
        state = read_state(connection)
    except DamagedError:
        keys = "SELECT ifnull(max(key), 0) FROM documents"
        rows = "SELECT ifnull(max(first_row + rows), 0) FROM passages"
        ((key,), (row,)) = (connection.execute(query).fetchone() for query in (keys, rows))
        changes = int.from_bytes(os.urandom(6), "little")  # no state that was seen before
        state = State(changes, key + _JUMP, row, 0, os.urandom(GENERATION_BYTES))
    _move_unsound(connection)
    state = State(
        state.changes + 1, state.next_key, _rows(connection, state), 0, os.urandom(GENERATION_BYTES)
    )
    connection.execute("DELETE FROM segments")
    rewrite_tombstones(connection, state.next_row)
    write_state(connection, state)


def _rows(connection: sqlite3.Connection, state: State) -> int:
    query = "SELECT ifnull(max(first_row + rows), 0) FROM passages"
    (used,) = connection.execute(query).fetchone()
    return max(state.next_row, int(used))


def _move_unsound(connection: sqlite3.Connection) -> None:
    """Let damaged passages take no rows: which ones they had is not known for sure."""
    columns = "first_row, document, rows, spans, codes, crc"
    rows = connection.execute(f"SELECT {columns} FROM passages").fetchall()  # noqa: S608 - own names
    at = min([0, *(row[0] for row in rows)]) - 1
    for row in rows:
        if row[0] >= 0 and not sound_passages(*row):
            query = (
                "UPDATE passages SET first_row = ?, rows = 0, spans = x'', codes = x'', crc = -1 "
                "WHERE first_row = ?"
            )
            connection.execute(query, (at, row[0]))
            at -= 1


def _drop_unsound(connection: sqlite3.Connection, table: str, columns: str) -> None:
    """Delete the rows whose checksum is wrong."""
    query = f"SELECT {columns}, crc FROM {table}"  # noqa: S608 - own names
    rows = connection.execute(query).fetchall()
    name = columns.split(",", 1)[0]
    for *values, crc in rows:
        if checksum(*values) != crc:
            # Text that is no UTF-8 cannot be bound as text.
            bound = values[0].encode("utf-8", "surrogateescape")
            where = f"DELETE FROM {table} WHERE CAST({name} AS BLOB) = ?"  # noqa: S608
            connection.execute(where, (bound,))


def _index_fields(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM fields")
    query = f"SELECT {DOCUMENT_COLUMNS} FROM documents WHERE metadata <> '{{}}'"  # noqa: S608
    for row in connection.execute(query).fetchall():
        if sound_document(*row):
            with suppress(ValueError, RecursionError):
                insert_fields(connection, row[0], decode_metadata(row[2]))

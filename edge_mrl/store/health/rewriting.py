"""Writing a damaged store anew from what can be read of it.

The new database is made beside the store, repaired there, and copied over the old pages in one
transaction (SQLite's backup): a kill at any moment leaves the old store or the new one, and whoever has
the store open goes on.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_mrl.documents import clean
from edge_mrl.errors import StoreBusyError, StoreError
from edge_mrl.store.engine.cipher import database_errors
from edge_mrl.store.engine.making import remove_with_log
from edge_mrl.store.engine.modes import create_private
from edge_mrl.store.file import prepare, transaction
from edge_mrl.store.health.salvage import Row, Source
from edge_mrl.store.records import DOCUMENT_COLUMNS, checksum, sound_document, sound_passages
from edge_mrl.store.schema.tables import mend_definitions
from edge_mrl.store.statements import insert_into

if TYPE_CHECKING:
    from edge_mrl.store.store import Store

__all__ = ["Rescued", "discard_unfinished", "rewrite"]

#: Tables that are made again from others.
_MADE = ("fields", "keywords", "segments", "migrations", "tombstones")
#: Tables of one row, whose key is 1.
_SINGLE = ("binding", "state", "sync", "agreement", "reindexing")
#: What stands for a value that must be there and is not; no checksum agrees with it.
_NOTHING: dict[str, Any] = {"INTEGER": 0, "REAL": 0.0, "TEXT": "", "BLOB": b""}
_PASSAGES = ("first_row", "document", "rows", "spans", "codes", "crc")
_PAGES = 8
_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Rescued:
    """What could not be taken over.

    Attributes:
        lost: Ids of documents that could not be read, as far as they are known.
        unnamed: How many more there were.
        tables: Names of tables that could not be read to their end.
        kept: The name of the former file, where something was lost.
    """

    lost: tuple[str, ...] = ()
    unnamed: int = 0
    tables: tuple[str, ...] = ()
    kept: str | None = None


def rewrite(store: Store, repair: Callable[[sqlite3.Connection], None]) -> Rescued:
    """Write a store anew.

    Args:
        store: The store.
        repair: Makes again in the new database what can be made, in a transaction.

    Raises:
        StoreBusyError: Another process writes the store.
        StoreError: There is not enough space, or what the store is bound to cannot be read. It is as it
            was.
    """
    if store.encrypted:
        # Of an encrypted page with a wrong bit nothing can be read, and SQLCipher lets a connection that
        # has seen one read and write no more.
        raise StoreError(
            f"{store.path} is damaged, and is encrypted: restore a copy. Without one, `edge-mrl get` and "
            "`search` still give what they can; copy that out, then make the store again from your "
            "files, or enroll a new one with the server"
        )
    target = _unfinished(store)
    with store.locked() as (connection, cache):
        try:
            remove_with_log(target)
            create_private(target)
            with closing(store.other(store.path)) as old, closing(store.other(target)) as new:
                (version,) = old.execute("PRAGMA data_version").fetchone()
                rescued = _carry(old, new, store.path)
                with transaction(new, "IMMEDIATE"):
                    repair(new)
                if rescued.lost or rescued.unnamed or rescued.tables:
                    rescued = _keep(store, old, rescued)
                _copy_over(new, connection, partial(_require_same, old, version, store.path))
        except OSError as error:
            raise StoreError(f"{store.path} cannot be written anew: {error.strerror}") from error
        finally:
            with suppress(OSError):
                remove_with_log(target)
        cache.remove()
        cache.roll()
    store.refresh()
    return rescued


def discard_unfinished(store: Store) -> None:
    """Delete what a repair left that was killed."""
    with suppress(OSError):
        remove_with_log(_unfinished(store))


def _unfinished(store: Store) -> Path:
    path = store.path.resolve()
    return path.with_name(f".{path.name}-edge-mrl-again")


def _carry(old: sqlite3.Connection, new: sqlite3.Connection, path: Path) -> Rescued:
    """Fill the new database; nobody can write the old one meanwhile."""
    (size,) = old.execute("PRAGMA page_size").fetchone()
    new.execute(f"PRAGMA page_size = {size}")
    prepare(new, path, lambda _: None)
    for pragma in ("synchronous = OFF", "journal_mode = MEMORY", "foreign_keys = OFF"):
        new.execute(f"PRAGMA {pragma}").fetchone()
    with _readable(old), transaction(new, "IMMEDIATE"):
        tables = [
            name
            for (name,) in new.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if name not in _MADE and not name.startswith(("keywords_", "sqlite_"))
        ]
        broken = tuple(table for table in tables if _carry_table(old, new, table))
        if new.execute("SELECT 1 FROM binding").fetchone() is None:
            raise StoreError(
                f"{path} is damaged (what it is bound to cannot be read): restore a copy, or make the "
                "store again"
            )
        return replace(_missing(old, new), tables=broken)


@contextmanager
def _readable(old: sqlite3.Connection) -> Iterator[None]:
    """Let damaged definitions of tables be right, in a transaction that is taken back."""
    old.execute("PRAGMA writable_schema = ON")
    old.execute("BEGIN IMMEDIATE")
    try:
        with suppress(*database_errors()):
            mend_definitions(old)
        old.execute("PRAGMA writable_schema = RESET")
        yield
    finally:
        old.execute("ROLLBACK")


def _carry_table(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> bool:
    """Copy a table's rows; returns whether some may be missing."""
    info = new.execute(f"PRAGMA table_info({table})").fetchall()
    names = [row[1] for row in info]
    keys = ", ".join(row[1] for row in sorted(info, key=lambda row: row[5]) if row[5])
    by_number = "WITHOUT ROWID" not in _definition(new, table)
    source = Source(old, table, ", ".join(names), None if by_number else keys)
    for row in source.rows():
        values = [1, *row[1:]] if table in _SINGLE else list(row)
        for place, (_, _, kind, needed, _, key) in enumerate(info):
            if values[place] is None and (needed or key):
                values[place] = _NOTHING.get(kind)
        try:
            _insert(new, table, names, values)
        except new.IntegrityError:
            if _sound(table, names, values):  # the other row of this key is damaged, or the same
                _insert(new, table, names, values, replace=True)
    return source.broken


def _definition(connection: sqlite3.Connection, table: str) -> str:
    query = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?"
    (sql,) = connection.execute(query, (table,)).fetchone()
    return str(sql)


def _insert(
    new: sqlite3.Connection,
    table: str,
    names: Sequence[str],
    values: Sequence[Any],
    *,
    replace: bool = False,
) -> None:
    query = insert_into(table, names, replace=replace)
    try:
        new.execute(query, values)
    except UnicodeEncodeError:  # text that damage made no UTF-8 goes in as its bytes
        marks = ", ".join("CAST(? AS TEXT)" if isinstance(one, str) else "?" for one in values)
        query = query[: query.index(" VALUES ")] + f" VALUES ({marks})"
        new.execute(query, [_raw(value) for value in values])


def _raw(value: Any) -> Any:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def _sound(table: str, names: Sequence[str], values: Sequence[Any]) -> bool:
    row = dict(zip(names, values, strict=True))
    if table == "documents":
        return sound_document(*(row[name] for name in DOCUMENT_COLUMNS.split(", ")))
    if table == "passages":
        return sound_passages(*(row[name] for name in _PASSAGES))
    if table == "outbox":
        del row["queued_ms"]
    if table == "dead":
        del row["detail"]
    return bool(
        checksum(*(value for name, value in row.items() if name != "crc")) == row.get("crc")
    )


def _missing(old: sqlite3.Connection, new: sqlite3.Connection) -> Rescued:
    """Which documents are gone, by the index of ids, and by rows that belong to them."""
    have = {key for (key,) in new.execute("SELECT key FROM documents")}
    ids = {name for (name,) in new.execute("SELECT id FROM documents")}
    lost: dict[int, str] = {}
    query = "SELECT key, id FROM documents INDEXED BY sqlite_autoindex_documents_1"
    for key, name in _as_far_as_possible(old, query):
        if name in ids:
            have.add(key)  # it has got another key
        elif key not in have:
            lost[key] = clean(str(name))
    owners = {key for (key,) in new.execute("SELECT document FROM passages")}
    owners |= {key for (key,) in _as_far_as_possible(old, "SELECT id FROM keywords_docsize")}
    return Rescued(tuple(sorted(lost.values())), len(owners - have - lost.keys()))


def _as_far_as_possible(old: sqlite3.Connection, query: str) -> Iterator[Row]:
    with suppress(*database_errors()):
        yield from old.execute(query)


def _keep(store: Store, old: sqlite3.Connection, rescued: Rescued) -> Rescued:
    """Keep the former file beside the store, since not all of it could be read."""
    kept = store.path.with_name(f"{store.path.name}-damaged")
    remove_with_log(kept)
    create_private(kept)
    with closing(store.other(kept)) as copy:
        old.backup(copy)
    return replace(rescued, kept=kept.name)


def _copy_over(
    new: sqlite3.Connection, connection: sqlite3.Connection, require_same: Callable[[], None]
) -> None:
    """Copy all pages in one transaction; it is taken back if another process wrote meanwhile."""
    deadline = time.monotonic() + _PATIENCE_S

    def advance(status: int, remaining: int, total: int) -> None:
        busy = status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
        if remaining == total or remaining > 0:
            require_same()
        if busy and time.monotonic() > deadline:
            raise StoreBusyError("another process is writing: try again in a moment")

    new.backup(connection, pages=_PAGES, progress=advance, sleep=0.02)


def _require_same(old: sqlite3.Connection, version: int, path: Path) -> None:
    if old.execute("PRAGMA data_version").fetchone()[0] != version:
        raise StoreBusyError(f"{path} was written by another process meanwhile: try again")

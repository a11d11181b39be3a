"""Changing a store to another bundle: new codes are made beside the old ones, then swapped in.

Searches use the old codes until the swap, which is one transaction. New codes are committed in batches:
a kill loses one batch, and the next run goes on from there. Documents may be put and deleted meanwhile;
where one changes, the database deletes its new codes by a cascade.
"""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edge_mrl.codes import Packing
from edge_mrl.documents import PassageRule
from edge_mrl.errors import DamagedError, UsageError
from edge_mrl.store.binding import write_bound
from edge_mrl.store.codefile.file import GENERATION_BYTES
from edge_mrl.store.codefile.state import read_state, write_state
from edge_mrl.store.records import (
    Binding,
    checksum,
    encode_codes,
    encode_full,
    encode_spans,
    passage_check,
    text_hash,
)
from edge_mrl.store.replica.foreign import note_remade
from edge_mrl.store.replica.outbox import rewind
from edge_mrl.store.statements import insert_into, insert_row

if TYPE_CHECKING:
    import sqlite3

    from edge_mrl.documents import Document
    from edge_mrl.store.records import Entry
    from edge_mrl.store.store import Store

__all__ = [
    "Reindexing",
    "abandon",
    "begin",
    "finish",
    "interrupted",
    "pending",
    "progress",
    "stage",
]


@dataclasses.dataclass(frozen=True, slots=True)
class Reindexing:
    """What a store is being changed to.

    Attributes:
        binding: What its codes will be.
        rule: How its documents will be split into passages.
        keep_full: What it will keep of full vectors; None for nothing.
    """

    binding: Binding
    rule: PassageRule
    keep_full: str | None


def interrupted(store: Store) -> Reindexing | None:
    """What an interrupted reindexing was changing the store to, or None if none was interrupted."""
    with store.locked() as (connection, _):
        row = connection.execute("SELECT binding, crc FROM reindexing").fetchone()
    if row is None:
        return None
    text, crc = row
    if checksum(text) != crc:
        raise DamagedError("what it is being changed to cannot be trusted")
    values = json.loads(text)
    bound = values["binding"]
    if packing := bound.pop("packing", None):
        centre = None if packing["centre"] is None else tuple(packing["centre"])
        bound["packing"] = Packing(packing["kind"], packing["step"], centre)
    return Reindexing(Binding(**bound), PassageRule(**values["rule"]), values["keep_full"])


def begin(store: Store, wanted: Reindexing) -> int:
    """Start reindexing, or go on where the same change was interrupted.

    Returns:
        How many documents have new codes already.

    Raises:
        UsageError: The store keeps full vectors, and the new bundle gives none.
    """
    if wanted.keep_full is not None and wanted.binding.full_dim is None:
        raise UsageError(
            f"{store.path} keeps full vectors ({wanted.keep_full}), and the bundle "
            f"{wanted.binding.bundle} gives none: export it without --coarse-only"
        )
    before = None
    with suppress(DamagedError):  # then it begins anew
        before = interrupted(store)
    text = json.dumps(dataclasses.asdict(wanted), sort_keys=True)
    with store.writing(), store.locked() as (connection, _):
        same = before is not None and _comparable(before) == _comparable(wanted)
        if not same:
            connection.execute("DELETE FROM reindexed")
        row = {"id": 1, "binding": text, "crc": checksum(text)}
        insert_row(connection, "reindexing", row, replace=True)
    return progress(store)[0]


def progress(store: Store) -> tuple[int, int]:
    """How many documents have new codes, and how many documents there are."""
    query = "SELECT (SELECT count(*) FROM reindexed), (SELECT count(*) FROM documents)"
    with store.locked() as (connection, _):
        done, total = connection.execute(query).fetchone()
    return done, total


def pending(store: Store, *, limit: int, after: int) -> list[tuple[int, Document]]:
    """The next documents without new codes, each with its key.

    Args:
        store: The store.
        limit: Return at most this many documents.
        after: Only documents with a larger key.

    Raises:
        DamagedError: A document is not what was stored.
    """
    query = (
        "SELECT key FROM documents WHERE key > ? AND NOT EXISTS "
        "(SELECT 1 FROM reindexed WHERE document = key) ORDER BY key LIMIT ?"
    )
    with store.reading() as view, store.locked() as (connection, _):
        keys = [key for (key,) in connection.execute(query, (after, limit))]
        return sorted(view.documents(keys).items())


def stage(store: Store, wanted: Reindexing, rows: Sequence[tuple[int, Entry]]) -> None:
    """Store new codes of documents, except of those that have changed since they were read.

    Args:
        store: The store.
        wanted: What the store is being changed to.
        rows: Keys, and the documents with their new codes.
    """
    values = [_values(key, entry, wanted) for key, entry in rows]
    with store.writing(), store.locked() as (connection, _):
        connection.executemany(
            "INSERT OR REPLACE INTO reindexed (document, rows, crc, full_crc, spans, codes, vectors) "
            "SELECT ?, ?, ?, ?, ?, ?, ? "
            "WHERE EXISTS (SELECT 1 FROM documents WHERE key = ? AND hash = ?)",
            values,
        )


def finish(store: Store) -> bool:
    """Swap the new codes in if every document has them.

    Returns:
        Whether they were swapped in: False if a document has no new codes, or nothing is to be changed.
    """
    wanted = interrupted(store)
    if wanted is None:
        return False
    with store.writing() as state, store.locked() as (connection, _):
        missing = (
            "SELECT 1 FROM documents WHERE NOT EXISTS "
            "(SELECT 1 FROM reindexed WHERE document = key) LIMIT 1"
        )
        if connection.execute(missing).fetchone():
            return False
        for table in ("passages", "fulls", "tombstones", "segments"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - own names
        rows = _swap_in(connection)
        connection.execute(
            "INSERT INTO fulls (document, crc, vectors) SELECT document, full_crc, vectors "
            "FROM reindexed WHERE vectors IS NOT NULL"
        )
        connection.execute("DELETE FROM reindexed")
        connection.execute("DELETE FROM reindexing")
        write_bound(connection, store.path, wanted.binding, wanted.rule, wanted.keep_full)
        # What other devices wrote is here without its text: its new codes come from the server.
        rewind(connection)
        note_remade(connection)
        now = read_state(connection)
        write_state(
            connection,
            dataclasses.replace(
                now,
                changes=state.changes + 1,
                next_row=rows,
                filed=0,
                generation=os.urandom(GENERATION_BYTES),
            ),
        )
    store.refresh()
    with store.locked() as (connection, cache):
        cache.remove()
        cache.keep_up(read_state(connection))
    return True


def abandon(store: Store) -> None:
    """Give up an interrupted reindexing; its new codes are deleted."""
    with store.writing(), store.locked() as (connection, _):
        connection.execute("DELETE FROM reindexed")
        connection.execute("DELETE FROM reindexing")


def _swap_in(connection: sqlite3.Connection) -> int:
    """Write the new passages with their rows; returns how many rows there are."""
    query = (
        "SELECT document, rows, crc, spans, codes FROM reindexed WHERE rows > 0 ORDER BY document"
    )
    insert = insert_into("passages", ("first_row", "document", "rows", "crc", "spans", "codes"))
    first = 0
    for key, rows, crc, spans, codes in connection.execute(query):
        sound = isinstance(spans, bytes) and isinstance(codes, bytes) and len(spans) == 8 * rows
        if not sound or zlib.crc32(spans, zlib.crc32(codes, key)) != crc:
            raise DamagedError(
                f"the new codes of document {key} cannot be trusted: give up this change, and begin again"
            )
        check = passage_check(first, key, rows, spans, codes)
        connection.execute(insert, (first, key, rows, check, spans, codes))
        first += rows
    return first


def _comparable(wanted: Reindexing) -> tuple[Any, ...]:
    return (*wanted.binding.code, wanted.rule, wanted.keep_full)


def _values(key: int, entry: Entry, wanted: Reindexing) -> tuple[Any, ...]:
    spans, codes = encode_spans(entry.spans), encode_codes(entry, wanted.binding)
    full = None
    if wanted.keep_full is not None and entry.full is not None and entry.spans:
        full = encode_full(entry.full, wanted.keep_full)
    return (
        key,
        len(entry.spans),
        zlib.crc32(spans, zlib.crc32(codes, key)),
        None if full is None else zlib.crc32(full, key),
        spans,
        codes,
        full,
        key,
        text_hash(entry.document.text),
    )

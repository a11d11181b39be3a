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
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edge_mrl.codes import Packing
from edge_mrl.documents import PassageRule, clean
from edge_mrl.errors import DamagedError, UsageError
from edge_mrl.store.binding import write_bound
from edge_mrl.store.codefile.file import GENERATION_BYTES
from edge_mrl.store.codefile.state import read_state, write_state
from edge_mrl.store.engine.explaining import named_damage
from edge_mrl.store.records import (
    Binding,
    checksum,
    encode_codes,
    encode_full,
    encode_spans,
    passage_check,
    text_hash,
)
from edge_mrl.store.replica.foreign import note_remade, received_from
from edge_mrl.store.replica.outbox import known_versions, rewind
from edge_mrl.store.statements import insert_into, insert_row, select_rows
from edge_mrl.wire import group_of

if TYPE_CHECKING:
    import sqlite3

    import numpy as np
    from numpy.typing import NDArray

    from edge_mrl.documents import Document
    from edge_mrl.store.records import Entry
    from edge_mrl.store.store import Store
    from edge_mrl.wire import Version

__all__ = [
    "Passages",
    "Reindexing",
    "abandon",
    "begin",
    "finish",
    "groups_without_vectors",
    "interrupted",
    "is_done",
    "may_use_vectors",
    "of_versions",
    "passages",
    "pending",
    "progress",
    "space_needed",
    "stage",
]

#: Bytes that SQLite takes for a document's row of passages, beside spans and codes.
_ROW_BYTES = 48
#: How often new codes are on disk at the peak of the swap: staged, in the log twice, in their table,
#: and in the code file.
_COPIES = 5


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


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Passages:
    """The passages of a document as they are in the store now.

    Attributes:
        spans: Offsets (start, end) in its text, in characters.
        crc: The checksum of their row, by which it is seen whether they have changed.
        full: float32[n, full_dim], where the store keeps their full vectors; else None.
    """

    spans: Sequence[tuple[int, int]]
    crc: int
    full: NDArray[np.float32] | None


def interrupted(store: Store) -> Reindexing | None:
    """What an interrupted reindexing was changing the store to, or None if none was interrupted."""
    with store.locked() as (connection, _):
        row = connection.execute("SELECT binding, crc FROM reindexing").fetchone()
    if row is None:
        return None
    text, crc = row
    if checksum(text) != crc:
        error = DamagedError("what it is being changed to cannot be trusted")
        raise named_damage(store.path, error)
    values = json.loads(text)
    bound = values["binding"]
    if packing := bound.pop("packing", None):
        centre = None if packing["centre"] is None else tuple(packing["centre"])
        bound["packing"] = Packing(packing["kind"], packing["step"], centre)
    return Reindexing(Binding(**bound), PassageRule(**values["rule"]), values["keep_full"])


def is_done(store: Store, wanted: Reindexing) -> bool:
    """Whether the store is what it shall be changed to, with that very bundle.

    If so, and the store was being changed to something else, that is given up.
    """
    with store.reading(), store.locked() as (connection, _):
        now = Reindexing(store.binding, store.rule, store.keep_full)
        same = _comparable(now) == _comparable(wanted)
        if not same or now.binding.bundle != wanted.binding.bundle or received_from(connection):
            return False
        (other,) = connection.execute("SELECT count(*) FROM reindexing").fetchone()
    if other and store.writable:
        abandon(store)
    return True


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


def may_use_vectors(store: Store, wanted: Reindexing) -> bool:
    """Whether new codes can be made of the full vectors that the store keeps.

    They can within one embedding space, unless some came from a server of another one.
    """
    if store.keep_full is None or store.binding.space_id != wanted.binding.space_id:
        return False
    with store.locked() as (connection, _):
        return received_from(connection) is None


def passages(store: Store, keys: Sequence[int]) -> dict[int, Passages]:
    """The passages of documents by key, of those that have any; damaged ones are left out."""
    with store.reading() as view, store.locked() as (connection, _):
        checks = dict(select_rows(connection, "document, crc", "document", keys, "passages"))
        places = view.places(keys, partial=True, sound=True)
        kept = view.fulls(list(places), sound=True)
    found = {}
    for key, (_, spans) in places.items():
        full = kept.get(key)
        whole = full is not None and len(full) == len(spans)
        found[key] = Passages(spans, checks[key], full if whole else None)
    return found


def groups_without_vectors(store: Store, wanted: Reindexing) -> dict[int, int]:
    """Groups of ids of the documents for which only a server may have vectors, and how many there are.

    They have passages and no new codes yet, and the store keeps no vectors that can be used.
    """
    query = (
        "SELECT id FROM documents JOIN passages ON document = key "
        "WHERE NOT EXISTS (SELECT 1 FROM reindexed WHERE reindexed.document = key)"
    )
    if may_use_vectors(store, wanted):
        query += " AND NOT EXISTS (SELECT 1 FROM fulls WHERE fulls.document = key)"
    if wanted.rule != store.rule:
        query += " AND text = ''"
    with store.locked() as (connection, _):
        return dict(Counter(group_of(clean(name)) for (name,) in connection.execute(query)))


def of_versions(store: Store, versions: Mapping[str, Version]) -> dict[int, str]:
    """Of documents given by id: those that are here in this very version, and have no new codes yet."""
    names = list(versions)
    with store.locked() as (connection, _):
        known = known_versions(connection, names)
        same = [name for name, one in known.items() if one.version == versions[name]]
        keys = dict(select_rows(connection, "key, id", "id", same))
        done = {
            key
            for (key,) in select_rows(connection, "document", "document", list(keys), "reindexed")
        }
    return {key: name for key, name in keys.items() if key not in done}


def space_needed(store: Store, wanted: Reindexing) -> int:
    """About how many bytes of disk the change needs, beside what the store takes, until it is done."""
    with store.locked() as (connection, _):
        query = "SELECT count(*), ifnull(sum(rows), 0), ifnull(sum(length(codes)), 0) FROM passages"
        documents, rows, old = connection.execute(query).fetchone()
        query = "SELECT ifnull(sum(length(vectors)), 0) FROM fulls"
        (vectors,) = (
            (0,) if may_use_vectors(store, wanted) else connection.execute(query).fetchone()
        )
    more = max(1.0, store.rule.max_tokens / wanted.rule.max_tokens)
    spans = 8 * rows + _ROW_BYTES * documents
    codes = wanted.binding.packing.bytes(wanted.binding.dim) * rows
    return int(old + spans + _COPIES * more * (codes + spans + vectors))


def stage(
    store: Store,
    wanted: Reindexing,
    rows: Sequence[tuple[int, Entry]],
    *,
    made_of: Mapping[int, Passages] | None = None,
) -> None:
    """Store new codes of documents, except of those that have changed since they were read.

    Args:
        store: The store.
        wanted: What the store is being changed to.
        rows: Keys, and the documents with their new codes.
        made_of: By key, passages of documents whose new codes are of these very passages. They are left
            out where the passages have changed. Where an entry has no full vectors, the ones that the
            store keeps stay as they are.
    """
    seen = made_of or {}
    values = [
        (*_values(key, entry, wanted), seen[key].crc if key in seen else None)
        for key, entry in rows
    ]
    # New vectors that only wait for a server are kept where the former ones are.
    waiting = int(wanted.keep_full == "until-synced")
    with store.writing(), store.locked() as (connection, _):
        connection.executemany(_STAGE, [(*row, waiting) for row in values])


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
        lacking = connection.execute(_WITHOUT_CODES).fetchone() is not None
        remade = connection.execute(f"{_KEPT} LIMIT 1").fetchone() is None
        for table in ("passages", "tombstones", "segments"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - own names
        rows = _swap_in(connection)
        _take_vectors(connection)
        connection.execute("DELETE FROM reindexed")
        connection.execute("DELETE FROM reindexing")
        write_bound(connection, store.path, wanted.binding, wanted.rule, wanted.keep_full)
        if lacking:  # their new codes come from the server
            rewind(connection)
        if remade:
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


#: Parameters: 1 key, 2 rows, 3 checksum, 4 checksum of the vectors, 5 spans, 6 codes, 7 vectors, 8 hash
#: of the text, 9 checksum of the passages that the codes are of, or NULL, 10 whether vectors only wait.
_STAGE = """
INSERT OR REPLACE INTO reindexed (document, rows, crc, full_crc, spans, codes, vectors)
SELECT ?1, ?2, ?3,
    CASE WHEN ?9 IS NOT NULL AND ?7 IS NULL THEN (SELECT crc FROM fulls WHERE document = ?1)
         WHEN ?10 = 0 OR EXISTS (SELECT 1 FROM fulls WHERE document = ?1) THEN ?4 END,
    ?5, ?6,
    CASE WHEN ?10 = 0 OR EXISTS (SELECT 1 FROM fulls WHERE document = ?1) THEN ?7 END
WHERE EXISTS (SELECT 1 FROM documents WHERE key = ?1 AND hash = ?8)
    AND (?9 IS NULL OR EXISTS (SELECT 1 FROM passages WHERE document = ?1 AND crc = ?9))
"""
#: Staged documents whose full vectors stay as they are.
_KEPT = "SELECT document FROM reindexed WHERE full_crc IS NOT NULL AND vectors IS NULL"
#: Documents of other devices that had codes, have no text to make new ones of, and got none.
_WITHOUT_CODES = (
    "SELECT 1 FROM reindexed JOIN passages USING (document) JOIN documents ON key = document "
    "WHERE reindexed.rows = 0 AND text = '' LIMIT 1"
)


def _take_vectors(connection: sqlite3.Connection) -> None:
    """Put the new full vectors in the place of those that do not stay."""
    connection.execute(f"DELETE FROM fulls WHERE document NOT IN ({_KEPT})")  # noqa: S608 - own text
    connection.execute(
        "INSERT INTO fulls (document, crc, vectors) SELECT document, full_crc, vectors "
        "FROM reindexed WHERE vectors IS NOT NULL"
    )


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
        text_hash(entry.document.text),
    )

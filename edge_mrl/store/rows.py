"""Documents as rows of a store's tables: written, changed and deleted within a transaction."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from edge_mrl.documents import Document
from edge_mrl.errors import StoreError, UsageError
from edge_mrl.store.codefile.state import State, add_tombstones, rewrite_tombstones
from edge_mrl.store.filters.values import field_rows
from edge_mrl.store.keywords.form import keyword_text
from edge_mrl.store.records import (
    DOCUMENT_COLUMNS,
    Binding,
    Entry,
    decode_metadata,
    document_check,
    encode_codes,
    encode_full,
    encode_metadata,
    encode_spans,
    passage_check,
    sound_document,
    sound_passages,
    text_hash,
)
from edge_mrl.store.statements import insert_into, select_rows

__all__ = [
    "EntryRows",
    "Taking",
    "insert_fields",
    "leave_out_vectors",
    "put_metadata",
    "put_rows",
    "remove_documents",
    "remove_full",
    "sound_hashes",
]

#: Keys are 32-bit in the code file. A key is used once: this is four billion changed documents.
MAX_KEY = 2**32 - 1
#: When a file was changed. Where nothing else of it changed, the document did not.
CHANGED_AT = "mtime"

_DOCUMENTS = insert_into("documents", ("key", "id", "metadata", "source", "hash", "crc", "text"))
_PASSAGES = insert_into("passages", ("first_row", "document", "rows", "crc", "spans", "codes"))
_FULLS = insert_into("fulls", ("document", "crc", "vectors"))
_FIELDS = insert_into("fields", ("name", "kind", "value", "document"))
_NO_TEXT = text_hash("")
_PLACES = "first_row, document, rows, spans, codes, crc"
_FORGET_WORDS = "INSERT INTO keywords (keywords, rowid, text) VALUES ('delete', ?, ?)"
_KEYWORDS = insert_into("keywords", ("rowid", "text"))


class EntryRows:
    """An entry as the values of its rows; its key and its first row are set last."""

    __slots__ = (
        "codes",
        "digest",
        "document",
        "first_row",
        "full",
        "key",
        "metadata",
        "passages",
        "spans",
    )

    def __init__(self, entry: Entry, binding: Binding, keep_full: str | None) -> None:
        self.document = entry.document
        self.metadata = encode_metadata(entry.document)
        self.digest = text_hash(entry.document.text)
        self.passages = len(entry.spans)
        self.spans = encode_spans(entry.spans)
        self.codes = encode_codes(entry, binding)
        self.full = _full_bytes(entry, binding, keep_full)
        self.key = self.first_row = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of the full vectors that are kept."""
        return 0 if self.full is None else len(self.full)

    def document_row(self) -> tuple[Any, ...]:
        """Values of the table ``documents``."""
        document = self.document
        source = document.source
        crc = document_check(self.key, document.id, self.metadata, source, self.digest)
        return (self.key, document.id, self.metadata, source, self.digest, crc, document.text)

    def passage_row(self) -> tuple[Any, ...]:
        """Values of the table ``passages``."""
        values = (self.first_row, self.key, self.passages, self.spans, self.codes)
        return (*values[:3], passage_check(*values), *values[3:])

    def field_rows(self) -> list[tuple[Any, ...]]:
        """Values of the table ``fields``, a row for each value in the metadata."""
        if self.metadata == "{}":
            return []
        return [(*field, self.key) for field in field_rows(decode_metadata(self.metadata))]


def _full_bytes(entry: Entry, binding: Binding, keep_full: str | None) -> bytes | None:
    if keep_full is None or not entry.spans:
        return None
    shape = (len(entry.spans), binding.full_dim)
    if entry.full is None or entry.full.shape != shape:
        got = None if entry.full is None else list(entry.full.shape)
        raise UsageError(
            f"full vectors of document {entry.document.id!r} are {got}, "
            f"expected float32{list(shape)}: this store keeps them"
        )
    return encode_full(entry.full, keep_full)


def leave_out_vectors(rows: Sequence[EntryRows], room: int | None) -> None:
    """Drop the full vectors for which the queue has no room; they can be made again from the text.

    Args:
        rows: Documents that are going to be put.
        room: Bytes of vectors that may still be queued; None for any number.
    """
    if room is None:
        return
    for row in rows:
        if row.size_bytes > room:
            row.full = None
        room -= row.size_bytes


def put_rows(
    connection: sqlite3.Connection, path: Path, rows: Sequence[EntryRows], state: State
) -> State:
    """Write documents, each in place of the one of its id; returns the state after it.

    Raises:
        StoreError: The store has no keys left.
    """
    ids = [row.document.id for row in rows]
    known = dict(select_rows(connection, "id, key", "id", ids))
    damaged = remove_documents(connection, list(known.values()))
    # The words of a damaged document are still indexed under its key, which is not used again.
    known = {name: key for name, key in known.items() if key not in damaged}
    key, first = state.next_key, state.next_row
    for row in rows:
        row.first_row = first
        first += row.passages
        row.key = known.get(row.document.id, key)
        key += row.key == key
    if key > MAX_KEY or first > MAX_KEY:
        raise StoreError(f"{path} has used all its keys: make the store again in another file")
    write = connection.executemany
    write(_DOCUMENTS, [row.document_row() for row in rows])
    write(_PASSAGES, [row.passage_row() for row in rows if row.passages])
    write(
        _FULLS,
        [
            (row.key, zlib.crc32(row.full, row.key), row.full)
            for row in rows
            if row.full is not None
        ],
    )
    write(_FIELDS, [field for row in rows for field in row.field_rows()])
    write(_KEYWORDS, [(row.key, keyword_text(row.document.text)) for row in rows])
    return replace(state, next_key=key, next_row=first)


def remove_full(connection: sqlite3.Connection, ids: Sequence[str]) -> int:
    """Delete the full vectors of documents; returns of how many."""
    keys = select_rows(connection, "key", "id", ids)
    done = connection.executemany("DELETE FROM fulls WHERE document = ?", keys)
    return max(done.rowcount, 0) if keys else 0


def remove_documents(connection: sqlite3.Connection, keys: Sequence[int]) -> set[int]:
    """Delete documents with their passages, codes, fields, keywords and full vectors.

    A damaged document is deleted as well. The index of words cannot be told which words it had, so they
    stay until ``check`` repairs it; no search finds them.

    Returns:
        Keys of the damaged ones.
    """
    rows = select_rows(connection, _PLACES, "document", keys, table="passages")
    sound = [row for row in rows if sound_passages(*row)]
    add_tombstones(connection, [(row[0], row[2]) for row in sound])
    damaged = set()
    for row in select_rows(connection, DOCUMENT_COLUMNS, "key", keys):
        key, _, metadata, *_, text = row
        if sound_document(*row):
            connection.execute(_FORGET_WORDS, (key, keyword_text(text)))
            _remove_fields(connection, key, metadata)
        else:
            damaged.add(key)
    connection.executemany("DELETE FROM fields WHERE document = ?", [(key,) for key in damaged])
    connection.executemany("DELETE FROM documents WHERE key = ?", [(key,) for key in keys])
    if len(sound) < len(rows):  # which rows these had is not known for sure
        (next_row,) = connection.execute("SELECT next_row FROM state").fetchone()
        rewrite_tombstones(connection, next_row)
    return damaged


def sound_hashes(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, bytes]:
    """Hashes of the texts of those documents that are sound and whose text is here, by id."""
    documents = select_rows(connection, DOCUMENT_COLUMNS, "id", ids)
    rows = {row[0]: row for row in documents if sound_document(*row)}
    hidden = set()
    for place in select_rows(connection, _PLACES, "document", list(rows), "passages"):
        if rows[place[1]][4] == _NO_TEXT or not sound_passages(*place):
            hidden.add(place[1])
    for key, crc, data in select_rows(
        connection, "document, crc, vectors", "document", list(rows), "fulls"
    ):
        if not isinstance(data, bytes) or zlib.crc32(data, key) != crc:
            hidden.add(key)
    return {row[1]: row[4] for key, row in rows.items() if key not in hidden}


def put_metadata(
    connection: sqlite3.Connection, document: Document, metadata: str
) -> Literal["stale", "same", "changed"]:
    """Write a document's metadata and source if its text is still the one that is stored.

    Args:
        connection: In a transaction that writes.
        document: The document.
        metadata: Its metadata, encoded.

    Returns:
        "stale" if its text is not stored any more; then nothing was written. Else whether the
        metadata is "same" or "changed". Of a document that is a whole file, a new time alone is the same,
        and is not written.
    """
    digest = text_hash(document.text)
    query = f"SELECT {DOCUMENT_COLUMNS} FROM documents WHERE id = ? AND hash = ?"  # noqa: S608
    row = connection.execute(query, (document.id, digest)).fetchone()
    if row is None or not sound_document(*row):
        return "stale"
    key, _, old, source, *_ = row
    if source == document.source == document.id and _differ_in_time(old, metadata):
        return "same"
    if (old, source) != (metadata, document.source):
        _remove_fields(connection, key, old)
        crc = document_check(key, document.id, metadata, document.source, digest)
        connection.execute(
            "UPDATE documents SET metadata = ?, source = ?, crc = ? WHERE key = ?",
            (metadata, document.source, crc, key),
        )
        insert_fields(connection, key, decode_metadata(metadata))
    return "same" if old == metadata else "changed"


def _differ_in_time(old: str, new: str) -> bool:
    """Whether the metadata of a file differs in the time of its last change alone, or not at all."""
    if old == new or f'"{CHANGED_AT}"' not in new:
        return old == new
    before, after = decode_metadata(old), decode_metadata(new)
    return {**before, CHANGED_AT: 0} == {**after, CHANGED_AT: 0} and CHANGED_AT in before


def insert_fields(connection: sqlite3.Connection, key: int, metadata: dict[str, Any]) -> None:
    """Index the metadata of the document with this key."""
    connection.executemany(_FIELDS, [(*field, key) for field in field_rows(metadata)])


def _remove_fields(connection: sqlite3.Connection, key: int, metadata: str) -> None:
    try:
        rows = field_rows(decode_metadata(metadata))
    except ValueError:  # damaged: a search by them can only find nothing, and `check` says so
        rows = []
    query = "DELETE FROM fields WHERE name = ? AND kind = ? AND value = ? AND document = ?"
    connection.executemany(query, [(*row, key) for row in rows])


class Taking:
    """A transaction that writes what other devices wrote; see ``Store.taking``.

    Attributes:
        connection: For what else belongs to this transaction.
        state: The store's state after what was written so far.
        changed: Whether any document was put or deleted.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        binding: Binding,
        keep_full: str | None,
        state: State,
    ) -> None:
        self.connection = connection
        self.state = state
        self.changed = False
        self._path = path
        self._binding = binding
        self._keep_full = keep_full

    def put(self, entries: Sequence[Entry]) -> None:
        """Store documents, each in place of the one of its id.

        Raises:
            UsageError: Codes of the wrong type or shape.
        """
        rows = [EntryRows(entry, self._binding, self._keep_full) for entry in entries]
        self.state = put_rows(self.connection, self._path, rows, self.state)
        self.changed = self.changed or bool(rows)

    def delete(self, ids: Sequence[str]) -> None:
        """Delete those of the documents that are there."""
        keys = [key for (key,) in select_rows(self.connection, "key", "id", ids)]
        remove_documents(self.connection, keys)
        self.changed = self.changed or bool(keys)

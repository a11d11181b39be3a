"""Storing what other devices wrote."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edge_mrl.codes import INT8
from edge_mrl.errors import (
    DamagedError,
    NetworkError,
    NotEnrolledError,
    OutOfMemoryError,
    StoreError,
)
from edge_mrl.store.records import Binding, decode_metadata, encode_codes, text_hash
from edge_mrl.store.replica.dead_letters import (
    DELETED_ELSEWHERE,
    REPLACED_ELSEWHERE,
    write_dead_letter,
)
from edge_mrl.store.replica.enrollment import require
from edge_mrl.store.replica.names import own_names
from edge_mrl.store.replica.outbox import (
    Known,
    known_versions,
    seen,
    write_enrollment,
    write_versions,
)
from edge_mrl.store.replica.withheld import Withheld, forget_withheld, write_withheld
from edge_mrl.store.statements import select_rows
from edge_mrl.wire import Version, now_ms

if TYPE_CHECKING:
    from edge_mrl.store.records import Entry
    from edge_mrl.store.store import Store
    from edge_mrl.wire import Item

__all__ = ["Applied", "LocalDocuments", "apply_pulled", "concerns_documents", "waiting_among"]


@dataclass(frozen=True, slots=True)
class Applied:
    """What other devices wrote, in numbers.

    Attributes:
        put: How many documents were put in the store.
        deleted: How many were deleted in it.
        withheld: How many versions could not be stored.
        conflicts: How many of them replaced another text of this device's, now a dead letter.
    """

    put: int
    deleted: int
    withheld: int = 0
    conflicts: int = 0


def apply_pulled(
    store: Store,
    pulled: Sequence[tuple[Item, Entry | None]],
    *,
    cursor: int | None,
    epoch: str = "",
    offset_ms: int | None = None,
    withheld: Sequence[Withheld] = (),
    code: tuple[str, str] | None = None,
) -> Applied:
    """Store what other devices wrote, where it is newer than what is here.

    Args:
        store: The store.
        pulled: Items, each with its document as this store keeps it; None for a deletion.
        withheld: Versions that arrived with these and cannot be stored.
        cursor: The server's change up to which all was pulled with these; None if some is missing.
        epoch: The server's epoch, in which ``cursor`` counts.
        offset_ms: The server's clock less this machine's, in milliseconds; None if not known.
        code: Space and code that the entries are of; None if they are the store's for certain.

    Raises:
        NotEnrolledError: The store is not enrolled.
        NetworkError: The store was bound to another bundle meanwhile; nothing is stored.
    """
    with store.taking() as taking:
        connection = taking.connection
        now = require(connection, store)
        if code not in (None, store.binding.code):
            raise NetworkError("the store was changed to another bundle meanwhile: try again")
        names = [item.id for item, _ in pulled]
        local = LocalDocuments(connection, names, store.binding, own_names(connection, now))
        news = _newer_versions(connection, pulled, local)
        if store.keep_full == "until-synced":
            query = "DELETE FROM fulls WHERE document = ?"
            connection.executemany(query, [(key,) for key in news.same])
        write_versions(connection, news.versions)
        after = replace(
            now,
            cursor=now.cursor if cursor is None else cursor,
            epoch=now.epoch if cursor is None else epoch,
            offset_ms=now.offset_ms if offset_ms is None else offset_ms,
            success_ms=now_ms(),
        )
        write_enrollment(connection, seen(after, [item.stamp for item, _ in pulled]))
        forget_withheld(connection, _versions_of(pulled))
        unknown = _not_here(connection, withheld)
        write_withheld(connection, unknown)
        gone = [name for name in news.gone if name in local.keys]
        taking.delete(gone)
        taking.put(news.entries)
        return Applied(len(news.entries), len(gone), len(unknown), local.conflicts)


def concerns_documents(error: Exception) -> bool:
    """Whether it may be one of the documents that an attempt to store them failed for.

    If not, the store, the disk or the memory is the reason.
    """
    if isinstance(error, DamagedError):
        return True
    if isinstance(error, StoreError):
        cause = error.__cause__
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        return isinstance(cause, sqlite3.Error) and code in _DOCUMENTS
    return not isinstance(
        error, NotEnrolledError | NetworkError | OutOfMemoryError | OSError | MemoryError
    )


#: SQLite's codes for values that it cannot take; 0 where the Python module itself refused them.
_DOCUMENTS = frozenset(
    {
        0, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE,
    }
)  # fmt: skip


def _versions_of(pulled: Sequence[tuple[Item, Entry | None]]) -> dict[str, Version]:
    return {item.id: Version(item.stamp, item.device or "") for item, _ in pulled}


def _not_here(connection: sqlite3.Connection, letters: Sequence[Withheld]) -> list[Withheld]:
    """What is newer than what is here."""
    known = known_versions(connection, [one.id for one in letters])
    return [one for one in letters if one.id not in known or known[one.id].version < one.version]


@dataclass(frozen=True, slots=True)
class _News:
    """What of a pull is new here: documents, ids of deletions, keys of equal documents, versions."""

    entries: list[Entry]
    gone: list[str]
    same: list[int]
    versions: dict[str, Known]


def _newer_versions(
    connection: sqlite3.Connection,
    pulled: Sequence[tuple[Item, Entry | None]],
    local: LocalDocuments,
) -> _News:
    """What of a pull replaces what is here; what it replaces leaves the queue."""
    known = known_versions(connection, [item.id for item, _ in pulled])
    news = _News([], [], [], {})
    for item, entry in pulled:
        version = Version(item.stamp, item.device or "")
        before = known.get(item.id)
        if before is not None and not _newer(version, before, local, entry):
            if before.version == version and before.acknowledged < item.stamp:
                news.versions[item.id] = replace(before, acknowledged=item.stamp)
            continue
        news.versions[item.id] = Known(version, item.deleted, item.stamp)
        local.take_off_queue(item, before)
        if entry is None:
            news.gone.append(item.id)
        elif local.same(entry):
            news.same.append(local.keys[item.id])
        else:
            mine = local.keep_replaced(item, entry, before)
            news.entries.append(local.complete(item, entry, own_file=not mine))
    return news


def _newer(version: Version, before: Known, local: LocalDocuments, entry: Entry | None) -> bool:
    """Whether a version that was pulled replaces what is here."""
    if version != before.version:
        return version > before.version
    # The same one: only where its codes are missing here, after the store's bundle was changed.
    return entry is not None and bool(entry.spans) and local.is_hollow(entry.document.id)


@dataclass(frozen=True, slots=True)
class _LocalRow:
    """What only this device knows of a document, and what text of it is here."""

    metadata: str
    source: str | None
    has_text: bool
    digest: bytes


class LocalDocuments:
    """What a store has of documents that others have written too."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        names: Sequence[str],
        binding: Binding,
        own: Collection[str],
    ) -> None:
        self._connection = connection
        self._binding = binding
        self._own = own
        columns = "id, key, metadata, source, text <> '', hash"
        rows = select_rows(connection, columns, "id", names)
        self.conflicts = 0
        self.keys: dict[str, int] = {}
        self._rows: dict[str, _LocalRow] = {}
        for name, key, metadata, source, has_text, digest in rows:
            self.keys[name] = key
            self._rows[name] = _LocalRow(metadata, source, bool(has_text), digest)
        keys = list(self.keys.values())
        self._codes = dict(select_rows(connection, "document, codes", "document", keys, "passages"))
        self._queued = waiting_among(connection, names)

    def is_hollow(self, name: str) -> bool:
        """Whether a document is here without text and codes."""
        return (
            name in self.keys
            and not self._rows[name].has_text
            and self.keys[name] not in self._codes
        )

    def take_off_queue(self, item: Item, before: Known | None) -> None:
        """Take a version that lost off the queue. What was written here and deleted elsewhere is kept."""
        if item.id in self._queued:
            self._connection.execute("DELETE FROM outbox WHERE id = ?", (item.id,))
        mine = before is not None and before.version.device in self._own
        accepted = before is None or before.acknowledged >= before.version.stamp
        if item.deleted and mine and not accepted and item.id in self._rows:
            self._keep_as_letter(item, DELETED_ELSEWHERE)

    def keep_replaced(self, item: Item, entry: Entry, before: Known | None) -> bool:
        """Keep a text of this device's that another text takes the place of, as a dead letter.

        An edit that comes with its text, of a document that was put here without a file, is no case of
        this. Returns whether there was such a text.
        """
        row = self._rows.get(item.id)
        mine = before is None or before.version.device in self._own
        if row is None or not row.has_text or not mine:
            return False
        if row.digest == text_hash(entry.document.text):
            return False
        if entry.document.text and row.source is None:
            return False
        self._keep_as_letter(item, REPLACED_ELSEWHERE)
        self.conflicts += 1
        return True

    def _keep_as_letter(self, item: Item, reason: str) -> None:
        query = "SELECT metadata, text FROM documents WHERE id = ?"
        metadata, text = self._connection.execute(query, (item.id,)).fetchone()
        letter = (item.id, item.stamp, reason, 0)
        write_dead_letter(self._connection, letter, kept=(metadata, text))

    def same(self, entry: Entry) -> bool:
        """Whether the same text is here already: the same codes, and no other text or metadata came.

        Two devices that read the same files write the same documents. Where the newer version comes
        without its text, the text that is here is that version's too.
        """
        name = entry.document.id
        if name not in self.keys or entry.document.text or entry.document.metadata:
            return False
        here, there = self._codes.get(self.keys[name]), encode_codes(entry, self._binding)
        if here is None or not entry.spans or len(here) != len(there):
            return False
        if self._binding.packing != INT8:
            return bytes(here) == there
        # They travelled as float16: a value between two codes may be rounded the other way.
        rows = [np.frombuffer(data, np.int8).astype(np.int16) for data in (here, there)]
        return bool((np.abs(rows[0] - rows[1]) <= 1).all())

    def complete(self, item: Item, entry: Entry, *, own_file: bool) -> Entry:
        """The document with what only this device knows: its file, and metadata that was not sent.

        Args:
            item: As it arrived.
            entry: The document, made of it.
            own_file: Whether it may still be the document of this device's file.
        """
        row = self._rows.get(item.id)
        if row is None or not own_file:
            return entry
        document = replace(entry.document, source=row.source)
        if item.metadata is None:
            document = replace(document, metadata=decode_metadata(row.metadata))
        return replace(entry, document=document)


def waiting_among(connection: sqlite3.Connection, names: Sequence[str]) -> set[str]:
    """Those of the documents that wait in the queue."""
    return {name for (name,) in select_rows(connection, "id", "id", names, "outbox")}

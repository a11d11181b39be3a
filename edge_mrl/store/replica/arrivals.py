"""What other devices wrote, on its way into a store; and agreeing with a server on what is not there."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edge_mrl.codes import INT8
from edge_mrl.errors import NetworkError
from edge_mrl.store.records import Binding, decode_metadata, encode_codes
from edge_mrl.store.replica.dead_letters import DELETED_ELSEWHERE, write_dead_letter
from edge_mrl.store.replica.enrollment import require
from edge_mrl.store.replica.outbox import (
    Known,
    Queued,
    known_versions,
    restamp,
    write_enrollment,
    write_queue,
    write_versions,
)
from edge_mrl.store.view import select_rows
from edge_mrl.wire import Version, now_ms

if TYPE_CHECKING:
    from edge_mrl.store.store import Entry, Store
    from edge_mrl.sync import Page
    from edge_mrl.wire import Item

__all__ = ["Agreed", "apply_pulled", "reconcile"]


def apply_pulled(
    store: Store,
    pulled: Sequence[tuple[Item, Entry | None]],
    *,
    cursor: int | None,
    epoch: str = "",
    offset_ms: int | None = None,
) -> tuple[int, int]:
    """Take over what other devices wrote, where it is newer than what is here.

    Args:
        store: The store.
        pulled: Items, and the document that each is here; None for a deletion.
        cursor: How far the server's changes were pulled with these; None if that is not to be said yet.
        epoch: The server's epoch, in which ``cursor`` counts.
        offset_ms: The server's clock less this machine's; None if it was not said.

    Returns:
        Documents put, and documents deleted.
    """
    counts = (0, 0)

    def decide(connection: sqlite3.Connection) -> tuple[list[Entry], list[str]]:
        nonlocal counts
        now = require(connection, store)
        names = [item.id for item, _ in pulled]
        known = known_versions(connection, names)
        local = _Local(connection, names, store.binding, now.device)
        entries, gone, same, versions, last = [], [], [], {}, now.last
        for item, entry in pulled:
            version = Version(item.stamp, item.device or "")
            last = max(last, item.stamp)
            before = known.get(item.id)
            if before is not None and not _newer(version, before, local, entry):
                if before.version == version and before.acknowledged < item.stamp:
                    versions[item.id] = replace(before, acknowledged=item.stamp)
                continue
            versions[item.id] = Known(version, item.deleted, item.stamp)
            local.take_off_queue(item, before)
            if entry is None:
                gone.append(item.id)
            elif local.same(entry):
                same.append((local.keys[item.id],))
            else:
                entries.append(local.complete(item, entry))
        if store.keep_full == "until-synced":
            connection.executemany("DELETE FROM fulls WHERE document = ?", same)
        write_versions(connection, versions)
        write_enrollment(
            connection,
            replace(
                now,
                last=last,
                floor=max(now.floor, *(i.stamp for i, _ in pulled)) if pulled else now.floor,
                cursor=now.cursor if cursor is None else cursor,
                epoch=now.epoch if cursor is None else epoch,
                offset_ms=now.offset_ms if offset_ms is None else offset_ms,
                success_ms=now_ms(),
            ),
        )
        gone = [name for name in gone if name in local.keys]
        counts = len(entries), len(gone)
        return entries, gone

    store.take(decide)
    return counts


def _newer(version: Version, before: Known, local: _Local, entry: Entry | None) -> bool:
    """Whether a version that was pulled replaces what is here."""
    if version != before.version:
        return version > before.version
    # The same one: only where its codes are missing here, after the store's bundle was changed.
    return entry is not None and bool(entry.spans) and local.is_hollow(entry.document.id)


class _Local:
    """What a store has of documents that others have written too."""

    def __init__(
        self, connection: sqlite3.Connection, names: Sequence[str], binding: Binding, device: str
    ) -> None:
        self._connection = connection
        self._binding = binding
        self._device = device
        rows = select_rows(connection, "id, key, metadata, source, text <> ''", "id", names)
        self.keys = {row[0]: row[1] for row in rows}
        self._rows = {row[0]: row[2:] for row in rows}
        columns = "document, codes"
        keys = list(self.keys.values())
        self._codes = dict(select_rows(connection, columns, "document", keys, "passages"))
        self._queued = {row[0] for row in select_rows(connection, "id", "id", names, "outbox")}

    def is_hollow(self, name: str) -> bool:
        """Whether a document is here without text and codes."""
        return name in self.keys and not self._rows[name][2] and self.keys[name] not in self._codes

    def take_off_queue(self, item: Item, before: Known | None) -> None:
        """Give up a version that lost. What was written here and deleted elsewhere stays readable."""
        if item.id in self._queued:
            self._connection.execute("DELETE FROM outbox WHERE id = ?", (item.id,))
        mine = before is not None and before.version.device == self._device
        accepted = before is None or before.acknowledged >= before.version.stamp
        if item.deleted and mine and not accepted and item.id in self._rows:
            query = "SELECT metadata, text FROM documents WHERE id = ?"
            metadata, text = self._connection.execute(query, (item.id,)).fetchone()
            write_dead_letter(
                self._connection, item.id, item.stamp, DELETED_ELSEWHERE, 0, metadata, text
            )

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

    def complete(self, item: Item, entry: Entry) -> Entry:
        """The document with what only this device knows: its file, and metadata that was not sent."""
        row = self._rows.get(item.id)
        if row is None:
            return entry
        document = replace(entry.document, source=row[1])
        if item.metadata is None:
            document = replace(document, metadata=decode_metadata(row[0]))
        return replace(entry, document=document)


@dataclass(frozen=True, slots=True)
class Agreed:
    """What came of agreeing with a server.

    Attributes:
        deleted: Documents that were deleted here, as they were there.
        resent: Documents and deletions that are queued again, for the server was restored from an older
            copy; None where it was not.
    """

    deleted: int
    resent: int | None


def reconcile(store: Store, there: Mapping[str, int], end: Page, *, push: int) -> Agreed:
    """Agree with a server, after everything was pulled, on what is not there.

    Where it has forgotten deletions that were not seen here (a fence): what it had once and has no more
    was deleted. It goes, and what was written to it since is kept as a dead letter. What no server had
    gets a new stamp, above those that were forgotten.

    Where it was restored from an older copy (an epoch): what it has lost of this device's, which came
    after the copy, is queued as it was.

    Args:
        store: The store.
        there: What the server has, deletions included: stamps by id.
        end: The last page.
        push: The number of the last push before the first page; it must be known what became of it.

    Raises:
        NetworkError: Another process has pushed since: what it sent may be there, and not in ``there``.
    """
    agreed = Agreed(0, None)

    def decide(connection: sqlite3.Connection) -> tuple[list[Entry], list[str]]:
        nonlocal agreed
        before = require(connection, store)
        restored = before.epoch not in ("", end.epoch)
        unseen = end.fence > before.cursor
        rows = connection.execute("SELECT id, stamp FROM versions").fetchall()
        names = [name for name, stamp in rows if there.get(name, 0) < stamp]
        known = known_versions(connection, names)
        lost, gone, fresh = {}, {}, []
        for name, one in known.items():
            forgotten = name not in there and unseen
            if not one.acknowledged:
                fresh += [name] if forgotten else []
            # Whether what arrived before the copy is there, the copy says. A deletion does no harm twice.
            elif restored and (not forgotten or one.sent > end.kept or one.deleted):
                lost[name] = one
            elif forgotten:
                gone[name] = one
        if gone and before.push != push:
            raise NetworkError("another process pushed while everything was pulled: trying later")
        resent = _queue_lost(connection, before.device, lost, there) if restored else None
        local = _Local(connection, list(gone), store.binding, before.device)
        for name, one in gone.items():
            local.take_off_queue(_tombstone(name, one.version.stamp), one)
        connection.executemany("DELETE FROM versions WHERE id = ?", [(name,) for name in gone])
        now = replace(before, cursor=end.cursor, epoch=end.epoch, success_ms=now_ms())
        restamp(connection, now, fresh)
        agreed = Agreed(len(local.keys), resent)
        return [], list(local.keys)

    store.take(decide)
    return agreed


def _queue_lost(
    connection: sqlite3.Connection, device: str, lost: Mapping[str, Known], there: Mapping[str, int]
) -> int:
    """Queue again, as it was, what a server has lost of this device's; returns how many."""
    waiting = {row[0] for row in select_rows(connection, "id", "id", list(lost), "outbox")}
    versions, rows = {}, []
    for name, one in lost.items():
        stamp, has = one.version.stamp, there.get(name, 0)
        sent = one.sent if has else 0
        versions[name] = replace(one, acknowledged=min(one.acknowledged, has), sent=sent)
        # One that had lost against a newer version goes too: that may be lost as well.
        judged = one.acknowledged >= stamp - 1 and name not in waiting
        if one.version.device == device and judged:
            rows.append(Queued(name, stamp, one.deleted, now_ms(), 0))
    write_versions(connection, versions)
    write_queue(connection, rows)
    return len(rows)


def _tombstone(name: str, stamp: int) -> Item:
    from edge_mrl.wire import Item

    return Item(name, stamp, np.empty((0, 1), np.float16), deleted=True)

"""A store as one of several copies: what it sends, what a server said of it, what comes from elsewhere.

Everything here is one transaction each: what a kill interrupts has happened wholly, or not at all, and
doing it again is harmless.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edge_mrl.clock import Version, next_stamp, now_ms
from edge_mrl.codes import INT8
from edge_mrl.documents import Document
from edge_mrl.errors import DamagedError, UsageError
from edge_mrl.outbox import (
    Enrolment,
    Known,
    Queued,
    known_versions,
    queue_crc,
    read_enrolment,
    restamp,
    rewind,
    write_enrolment,
    write_queue,
    write_versions,
)
from edge_mrl.records import Binding, checksum, decode_metadata, encode_codes
from edge_mrl.store import Entry, bind
from edge_mrl.view import select_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.store import Store
    from edge_mrl.wire import Item

__all__ = [
    "DeadLetter",
    "Outgoing",
    "Queue",
    "Verdict",
    "acknowledge",
    "apply",
    "count_letters",
    "dead_letters",
    "drop_letters",
    "enrol",
    "enrolment",
    "ever_acknowledged",
    "mark_sent",
    "mark_success",
    "newest_queued",
    "outgoing",
    "queue",
    "reconcile",
    "resend",
    "retry_letters",
    "set_margin",
    "set_server",
    "set_with_text",
    "unmark_sent",
]

#: Why a version cannot be sent, beside what a server says: "invalid", "too_large", "forbidden".
DELETED_ELSEWHERE = "deleted_elsewhere"
NO_VECTORS = "no_vectors"


@dataclass(frozen=True, slots=True, eq=False)
class Outgoing:
    """A document that waits to be sent.

    Attributes:
        id: Its name.
        stamp: The version that waits.
        deleted: Whether it is a deletion; then there is nothing below.
        document: The document.
        spans: Offsets (start, end) of its n passages.
        vectors: float16[n, full_dim]; None where they are to be made from the text.
    """

    id: str
    stamp: int
    deleted: bool
    document: Document | None = None
    spans: Sequence[tuple[int, int]] = ()
    vectors: NDArray[np.float16] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a server said of a version: the status, and the version it has where that is newer."""

    id: str
    stamp: int
    status: str
    newer: int = 0


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits: documents, bytes of vectors kept for them, and since when the oldest one does."""

    items: int
    size_bytes: int
    oldest_ms: int | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A version that will not be sent.

    Attributes:
        id: The document.
        reason: "invalid", "too_large", "forbidden" (the server's words), "no_vectors" (its text is
            not here), or "deleted_elsewhere".
        since_ms: Since when, in milliseconds since 1970.
        deleted: Whether the version is a deletion.
        document: The document, kept here where it was deleted elsewhere; None for a deletion.
    """

    id: str
    reason: str
    since_ms: int
    deleted: bool
    document: Document | None


def enrolment(store: Store) -> Enrolment | None:
    """Where a store is synced to; None if it is not."""
    with store.locked() as (connection, _):
        return read_enrolment(connection)


def enrol(store: Store, wanted: Enrolment, *, full_dim: int | None) -> None:
    """Bind a store to a server and a device, and queue what the server lacks.

    Enrolled again with the same server and tenant, under another device's name, it keeps what it knows
    and sends what it had not sent. With another one it starts over, and everything is queued.

    Args:
        store: The store.
        wanted: Server, tenant, device, the clock's offset, and what is sent.
        full_dim: Dimensions of the bundle's full vectors: stores of the first version do not know them.

    Raises:
        UsageError: The bundle gives no full vectors.
    """
    if full_dim is None:
        raise UsageError(
            f"{store.path} cannot be synced: its bundle {store.binding.bundle} gives no full vectors "
            "(it was exported with --coarse-only)"
        )
    with store.writing(), store.locked() as (connection, _):
        keep_full = store.keep_full or "until-synced"
        before = read_enrolment(connection)
        binding = replace(store.binding, full_dim=full_dim)
        bind(connection, store.path, binding, store.rule, keep_full)
        same = before is not None and (before.server, before.tenant) == (
            wanted.server,
            wanted.tenant,
        )
        if before is not None and same:
            kept = replace(
                wanted, cursor=before.cursor, last=before.last, floor=before.floor,
                success_ms=before.success_ms, margin=before.margin,
            )  # fmt: skip
            restamp(connection, kept)
        else:
            for table in ("versions", "outbox", "dead"):
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 - own names
            last = 0 if before is None else before.last
            _queue_all(connection, replace(wanted, last=last))
    store.refresh()


def _queue_all(connection: sqlite3.Connection, enrolment: Enrolment) -> None:
    """Queue every document that is there, with a new stamp."""
    query = (
        "SELECT id, ifnull(length(vectors), 0) FROM documents LEFT JOIN fulls ON document = key "
        "ORDER BY key"
    )
    last, time_ms, versions, rows = enrolment.last, now_ms(), {}, []
    known = {}
    for name, size in connection.execute(query):
        last = next_stamp(last, offset_ms=enrolment.offset_ms)
        known[name] = Version(last, enrolment.device)
        rows.append(Queued(name, last, deleted=False, queued_ms=time_ms, size_bytes=size))
    before = known_versions(connection, list(known))
    for name, version in known.items():
        old = before.get(name, Known(version, deleted=False, acknowledged=0))
        versions[name] = replace(old, version=version, deleted=False)
    write_versions(connection, versions)
    write_queue(connection, rows)
    write_enrolment(connection, replace(enrolment, last=last))


def set_with_text(store: Store, *, with_text: bool) -> None:
    """Choose whether text and metadata are sent; from then on, everything goes once more with them."""
    with store.writing(), store.locked() as (connection, _):
        before = _require(connection, store)
        if before.with_text == with_text:
            return
        after = replace(before, with_text=with_text)
        if with_text:
            _queue_all(connection, after)
        else:
            write_enrolment(connection, after)


def resend(store: Store) -> int:
    """Queue what this device wrote once more, and have everything pulled again.

    For a server that was restored from a backup. Versions stay as they are, so that nothing newer is
    overwritten, and a server that has them already says so.

    Returns:
        How many documents and deletions were queued.
    """
    with store.writing(), store.locked() as (connection, _):
        mine = _require(connection, store)
        query = (
            "SELECT id, stamp, deleted FROM versions WHERE device = ? AND NOT EXISTS "
            "(SELECT 1 FROM outbox WHERE outbox.id = versions.id) ORDER BY stamp"
        )
        time_ms = now_ms()
        rows = [
            Queued(name, stamp, bool(deleted), time_ms, 0)
            for name, stamp, deleted in connection.execute(query, (mine.device,))
        ]
        write_queue(connection, rows)
        rewind(connection)
    return len(rows)


def set_server(store: Store, server: str) -> None:
    """The same server has another address."""
    with store.writing(), store.locked() as (connection, _):
        write_enrolment(connection, replace(_require(connection, store), server=server))


def set_margin(store: Store, margin: float | None) -> None:
    """Keep what ``rerank="auto"`` asks by."""
    with store.writing(), store.locked() as (connection, _):
        value = None if margin is None else float(margin)
        write_enrolment(connection, replace(_require(connection, store), margin=value))


def mark_success(store: Store, *, cursor: int | None = None, offset_ms: int | None = None) -> None:
    """Note that a sync went through, how far, and what was learnt of the clock."""
    with store.writing(), store.locked() as (connection, _):
        before = _require(connection, store)
        write_enrolment(
            connection,
            replace(
                before,
                success_ms=now_ms(),
                cursor=before.cursor if cursor is None else cursor,
                offset_ms=before.offset_ms if offset_ms is None else offset_ms,
            ),
        )


def mark_sent(store: Store, ids: Sequence[str]) -> list[str]:
    """Note that documents are about to be sent, durably, before they are: an answer may be lost.

    Costs a commit only where one of them was never sent before.

    Returns:
        Those that never were: see ``unmark_sent``.
    """
    with store.locked() as (connection, _):
        if not _unsent(connection, ids):
            return []
    with store.writing(), store.locked() as (connection, _):
        sent = _require(connection, store).cursor + 1
        fresh = _unsent(connection, ids)
        write_versions(connection, {k: replace(known, sent=sent) for k, known in fresh.items()})
    return list(fresh)


def unmark_sent(store: Store, ids: Sequence[str]) -> None:
    """Note that documents were not sent after all: the server said that it stored nothing."""
    if not ids:
        return
    with store.writing(), store.locked() as (connection, _):
        known = known_versions(connection, ids)
        write_versions(connection, {name: replace(known[name], sent=0) for name in known})


def _unsent(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, Known]:
    known = known_versions(connection, ids)
    return {
        name: one
        for name, one in known.items()
        if not (one.sent or one.acknowledged or one.deleted)
    }


def ever_acknowledged(store: Store) -> bool:
    """Whether a server has any of the store's documents."""
    with store.locked() as (connection, _):
        query = "SELECT 1 FROM versions WHERE acknowledged > 0 LIMIT 1"
        return connection.execute(query).fetchone() is not None


def queue(store: Store) -> Queue:
    """What waits."""
    query = "SELECT count(*), ifnull(sum(bytes), 0), min(queued_ms) FROM outbox"
    with store.locked() as (connection, _):
        return Queue(*connection.execute(query).fetchone())


def newest_queued(store: Store) -> int:
    """The largest stamp that waits; 0 for none."""
    with store.locked() as (connection, _):
        query = "SELECT ifnull(max(stamp), 0) FROM outbox"
        newest: int = connection.execute(query).fetchone()[0]
        return newest


def count_letters(store: Store) -> int:
    """How many versions will not be sent."""
    with store.locked() as (connection, _):
        count: int = connection.execute("SELECT count(*) FROM dead").fetchone()[0]
        return count


def outgoing(store: Store, *, limit: int, after: int = 0) -> list[Outgoing]:
    """The oldest documents that wait, as they are now.

    Args:
        store: The store.
        limit: Most documents.
        after: Only those with a larger stamp.

    Raises:
        DamagedError: A row is not what was written.
    """
    query = (
        "SELECT id, stamp, deleted, bytes, crc FROM outbox WHERE stamp > ? ORDER BY stamp LIMIT ?"
    )
    with store.reading() as view, store.locked() as (connection, _):
        rows = connection.execute(query, (after, limit)).fetchall()
        for name, stamp, deleted, size, crc in rows:
            if queue_crc(name, stamp, deleted, size) != crc:
                raise DamagedError(f"the queue's row of document {name!r} cannot be trusted")
        live = [name for name, _, deleted, *_ in rows if not deleted]
        keys = {name: key for key, name in select_rows(connection, "key, id", "id", live)}
        documents = view.documents(list(keys.values()))
        places = view.places(list(keys.values()), partial=True)
        fulls = _fulls(connection, store, list(keys.values()))
    found = []
    for name, stamp, deleted, *_ in rows:
        if deleted:
            found.append(Outgoing(name, stamp, deleted=True))
            continue
        if name not in keys:
            raise DamagedError(f"document {name!r} waits to be sent, and is not there")
        key = keys[name]
        spans = places[key][1] if key in places else []
        vectors = fulls.get(key)
        if not spans:
            vectors = np.empty((0, store.binding.full_dim or 1), np.float16)
        document = documents[key]
        found.append(
            Outgoing(name, stamp, deleted=False, document=document, spans=spans, vectors=vectors)
        )
    return found


def _fulls(
    connection: sqlite3.Connection, store: Store, keys: list[int]
) -> dict[int, NDArray[np.float16]]:
    """Vectors as they are sent; none where only int8 is kept, which is not what was embedded."""
    dim = store.binding.full_dim
    if dim is None or store.keep_full not in ("until-synced", "fp16"):
        return {}
    found = {}
    rows = select_rows(connection, "document, crc, vectors", "document", keys, "fulls")
    for key, crc, data in rows:
        if zlib.crc32(data, key) != crc:
            raise DamagedError(f"the full vectors of document {key} cannot be trusted")
        found[key] = np.frombuffer(data, "<f2").reshape(-1, dim)
    return found


def acknowledge(store: Store, verdicts: Sequence[Verdict], *, offset_ms: int) -> None:
    """Take over what a server said of versions that were sent, all in one transaction.

    A row leaves the queue only if it is still the version that was sent; then the vectors that were
    kept for it go too.

    Args:
        store: The store.
        verdicts: What it said.
        offset_ms: The server's clock less this machine's.
    """
    with store.writing(), store.locked() as (connection, _):
        now = _require(connection, store)
        known = known_versions(connection, [verdict.id for verdict in verdicts])
        done, letters, versions, last, floor = [], [], {}, now.last, now.floor
        for verdict in verdicts:
            last = max(last, verdict.newer)
            if verdict.status in ("applied", "stale"):
                done.append(verdict)
                floor = max(floor, verdict.newer, verdict.stamp)
                if verdict.id in known:
                    before = known[verdict.id]
                    # A version that lost was never accepted, though the server knows the document.
                    got = verdict.stamp - (verdict.status == "stale")
                    stamp = max(before.acknowledged, got)
                    versions[verdict.id] = replace(before, acknowledged=stamp)
            elif verdict.status != "clock_ahead":
                letters.append(verdict)
        write_versions(connection, versions)
        _bury(connection, letters)
        _dequeue(connection, store, done)
        after = replace(now, last=last, floor=floor, offset_ms=offset_ms)
        if any(verdict.status == "clock_ahead" for verdict in verdicts):
            # Down to what a server has already: below that a version would lose against itself.
            restamp(connection, replace(after, last=floor))
        else:
            write_enrolment(connection, after)


def _dequeue(connection: sqlite3.Connection, store: Store, done: Sequence[Verdict]) -> None:
    gone = []
    for verdict in done:
        row = connection.execute(
            "DELETE FROM outbox WHERE id = ? AND stamp = ? RETURNING id",
            (verdict.id, verdict.stamp),
        ).fetchone()
        if row is not None:
            gone.append((verdict.id,))
    if store.keep_full == "until-synced":
        query = "DELETE FROM fulls WHERE document = (SELECT key FROM documents WHERE id = ?)"
        connection.executemany(query, gone)


def _bury(connection: sqlite3.Connection, letters: Iterable[Verdict]) -> None:
    """Move versions from the queue to the dead letters; their documents stay where they are."""
    for letter in letters:
        row = connection.execute(
            "DELETE FROM outbox WHERE id = ? AND stamp = ? RETURNING deleted",
            (letter.id, letter.stamp),
        ).fetchone()
        if row is not None:
            _write_letter(connection, letter.id, letter.stamp, letter.status, row[0])


def _write_letter(
    connection: sqlite3.Connection,
    name: str,
    stamp: int,
    reason: str,
    deleted: int,
    *kept: str | None,
) -> None:
    metadata, text = kept or (None, None)
    values = (name, stamp, reason, now_ms(), deleted, metadata, text)
    connection.execute(
        "INSERT OR REPLACE INTO dead VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*values, checksum(*values))
    )


def apply(
    store: Store,
    pulled: Sequence[tuple[Item, Entry | None]],
    *,
    cursor: int | None,
    offset_ms: int | None = None,
) -> tuple[int, int]:
    """Take over what other devices wrote, where it is newer than what is here.

    Args:
        store: The store.
        pulled: Items, and the document that each is here; None for a deletion.
        cursor: How far the server's changes were pulled with these; None if that is not to be said yet.
        offset_ms: The server's clock less this machine's; None if it was not said.

    Returns:
        Documents put, and documents deleted.
    """
    counts = (0, 0)

    def decide(connection: sqlite3.Connection) -> tuple[list[Entry], list[str]]:
        nonlocal counts
        now = _require(connection, store)
        names = [item.id for item, _ in pulled]
        known = known_versions(connection, names)
        local = _Local(connection, names, store.binding)
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
        write_enrolment(
            connection,
            replace(
                now,
                last=last,
                floor=max(now.floor, *(i.stamp for i, _ in pulled)) if pulled else now.floor,
                cursor=now.cursor if cursor is None else cursor,
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
        self, connection: sqlite3.Connection, names: Sequence[str], binding: Binding
    ) -> None:
        self._connection = connection
        self._binding = binding
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
        accepted = before is None or before.acknowledged >= before.version.stamp
        if item.deleted and not accepted and item.id in self._rows:
            query = "SELECT metadata, text FROM documents WHERE id = ?"
            metadata, text = self._connection.execute(query, (item.id,)).fetchone()
            _write_letter(
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


def reconcile(
    store: Store, there: Collection[str], *, cursor: int, fence: int, arrived: int = 0
) -> int:
    """Agree with a server that has forgotten deletions, after everything was pulled (a fence).

    What a server had once and has no more was deleted: it goes, and what was written to it since is
    kept as a dead letter. So does what was sent at a cursor before the fence without an answer, where the
    push has arrived: others of its documents are there. What no server had, as far as can be known, gets
    a new stamp, above those that were forgotten.

    Where nothing was forgotten, nothing goes: the server was restored from an older copy.

    Args:
        store: The store.
        there: All ids that the server has, deletions included.
        cursor: How far its changes were pulled.
        fence: Its last change among the deletions that it has forgotten; 0 for none.
        arrived: The largest stamp of this device's that it has; 0 for none.

    Returns:
        Documents deleted.
    """
    count = 0

    def decide(connection: sqlite3.Connection) -> tuple[list[Entry], list[str]]:
        nonlocal count
        now = replace(_require(connection, store), cursor=cursor, success_ms=now_ms())
        query = "SELECT id, acknowledged, sent > 0 AND sent <= ? AND stamp <= ? FROM versions"
        # A deletion of what was sent at a cursor has a change above that cursor. A push is stored whole,
        # and stamps go in order: one without an answer has arrived if any stamp from there on has.
        found = connection.execute(query, (fence, arrived))
        rows = [row for row in found if row[0] not in there]
        gone = [name for name, known, sent in rows if fence and (known or sent)]
        local = _Local(connection, gone, store.binding)
        for name in gone:
            known = known_versions(connection, [name])[name]
            local.take_off_queue(_tombstone(name, known.version.stamp), known)
        forget = [(name,) for name in gone]
        connection.executemany("DELETE FROM versions WHERE id = ?", forget)
        restamp(connection, now, sorted({row[0] for row in rows} - {*gone}))
        gone = [name for name in gone if name in local.keys]
        count = len(gone)
        return [], gone

    store.take(decide)
    return count


def _tombstone(name: str, stamp: int) -> Item:
    from edge_mrl.wire import Item

    return Item(name, stamp, np.empty((0, 1), np.float16), deleted=True)


def dead_letters(store: Store) -> list[DeadLetter]:
    """Versions that will not be sent, by id.

    Raises:
        DamagedError: One is not what was written.
    """
    query = "SELECT id, stamp, reason, since_ms, deleted, metadata, text, crc FROM dead ORDER BY id"
    with store.locked() as (connection, _):
        rows = connection.execute(query).fetchall()
    here = store.get([row[0] for row in rows])
    letters = []
    for *values, crc in rows:
        if checksum(*values) != crc:
            raise DamagedError(f"the dead letter of document {values[0]!r} cannot be trusted")
        name, _, reason, since_ms, deleted, metadata, text = values
        document = None if deleted else here.get(name)
        if text is not None:
            document = Document(name, text, decode_metadata(metadata))
        letters.append(DeadLetter(name, reason, since_ms, bool(deleted), document))
    return letters


def retry_letters(store: Store, ids: Iterable[str] | None = None) -> tuple[int, list[Document]]:
    """Queue dead letters again, with new stamps.

    Args:
        store: The store.
        ids: Which; None for all.

    Returns:
        How many were queued, and documents that were deleted elsewhere: they are to be put again.
    """
    wanted = None if ids is None else set(ids)
    letters = [letter for letter in dead_letters(store) if wanted is None or letter.id in wanted]
    gone = [letter for letter in letters if letter.reason == DELETED_ELSEWHERE]
    again = [letter for letter in letters if letter.reason != DELETED_ELSEWHERE]
    with store.writing(), store.locked() as (connection, _):
        now = _require(connection, store)
        rows = [Queued(letter.id, now.last, letter.deleted, now_ms(), 0) for letter in again]
        write_queue(connection, rows)
        restamp(connection, now, [letter.id for letter in again])
        _forget_letters(connection, [letter.id for letter in again])
    documents = [letter.document for letter in gone if letter.document is not None]
    return len(again), documents


def drop_letters(store: Store, ids: Iterable[str] | None = None) -> int:
    """Forget dead letters: what the store holds stays, and is not sent; returns how many.

    Args:
        store: The store.
        ids: Which; None for all.
    """
    with store.writing(), store.locked() as (connection, _):
        rows = connection.execute("SELECT id FROM dead").fetchall()
        wanted = {row[0] for row in rows} & ({row[0] for row in rows} if ids is None else set(ids))
        _forget_letters(connection, sorted(wanted))
        if store.keep_full == "until-synced":
            query = "DELETE FROM fulls WHERE document = (SELECT key FROM documents WHERE id = ?)"
            connection.executemany(query, [(name,) for name in wanted])
    return len(wanted)


def _forget_letters(connection: sqlite3.Connection, names: Sequence[str]) -> None:
    connection.executemany("DELETE FROM dead WHERE id = ?", [(name,) for name in names])


def _require(connection: sqlite3.Connection, store: Store) -> Enrolment:
    found = read_enrolment(connection)
    if found is None:
        raise UsageError(
            f"{store.path} is not enrolled: `edge-mrl enroll --server URL --code CODE --store "
            f"{store.path}`"
        )
    return found

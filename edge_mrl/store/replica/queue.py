"""The queue as it is sent: what goes out, under which number, and what a server said of it."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edge_mrl.errors import DamagedError
from edge_mrl.store.replica.dead_letters import move_to_dead_letters
from edge_mrl.store.replica.enrollment import require
from edge_mrl.store.replica.outbox import (
    NEVER,
    known_versions,
    queue_crc,
    restamp,
    write_enrollment,
    write_versions,
)
from edge_mrl.store.statements import select_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_mrl.documents import Document
    from edge_mrl.store.store import Store

__all__ = [
    "Outgoing",
    "Queue",
    "Verdict",
    "acknowledge",
    "begin_push",
    "newest_queued",
    "outgoing",
    "queue_of",
    "settle_push",
]


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


def queue_of(store: Store) -> Queue:
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


def begin_push(store: Store, number: int, ids: Sequence[str]) -> bool:
    """Note that a push goes out, durably, before it does: its answer may be lost.

    Args:
        store: The store.
        number: One more than the last push's.
        ids: The documents in it.

    Returns:
        Whether it may: False where another process has begun one in the meantime.
    """
    with store.writing(), store.locked() as (connection, _):
        now = require(connection, store)
        if now.is_open or number != now.push + 1:
            return False
        fresh = {
            name: replace(one, sent=number)
            for name, one in known_versions(connection, ids).items()
            if one.acknowledged == NEVER and not one.deleted
        }
        write_versions(connection, fresh)
        write_enrollment(connection, replace(now, push=number))
    return True


def settle_push(store: Store, number: int, *, refused: Collection[str] | None) -> None:
    """Take over what became of the last push; a server says it, and lets it arrive no more.

    Args:
        store: The store.
        number: Up to which it is said.
        refused: Documents of the push that it refused; None where the push did not arrive.
    """
    with store.writing(), store.locked() as (connection, _):
        now = require(connection, store)
        # Another process may have begun the next one meanwhile.
        query = "SELECT id FROM versions WHERE sent BETWEEN 1 AND ? AND acknowledged = ?"
        sent = [name for (name,) in connection.execute(query, (number, NEVER))]
        versions = {
            name: one.settled(arrived=refused is not None and name not in refused)
            for name, one in known_versions(connection, sent).items()
        }
        write_versions(connection, versions)
        push, answered = max(now.push, number), max(now.answered, number)
        write_enrollment(connection, replace(now, push=push, answered=answered))


def acknowledge(
    store: Store, verdicts: Sequence[Verdict], *, offset_ms: int, number: int = 0
) -> None:
    """Take over what a server said of versions that were sent, all in one transaction.

    A row leaves the queue only if it is still the version that was sent; then the vectors that were
    kept for it go too.

    Args:
        store: The store.
        verdicts: What it said.
        offset_ms: The server's clock less this machine's.
        number: That of the push; 0 where there was none.
    """
    with store.writing(), store.locked() as (connection, _):
        now = require(connection, store)
        known = known_versions(connection, [verdict.id for verdict in verdicts])
        versions = {name: one.settled(arrived=False) for name, one in known.items()}
        done, letters, last, floor = [], [], now.last, now.floor
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
        move_to_dead_letters(connection, [(one.id, one.stamp, one.status) for one in letters])
        _dequeue(connection, store, done)
        answered = max(now.answered, number)
        after = replace(now, last=last, floor=floor, offset_ms=offset_ms, answered=answered)
        if any(verdict.status == "clock_ahead" for verdict in verdicts):
            # Down to what a server has already: below that a version would lose against itself.
            restamp(connection, replace(after, last=floor))
        else:
            write_enrollment(connection, after)


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

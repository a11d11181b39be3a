"""The queue of documents to send: reading it, numbering pushes, and taking over a server's answers."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edge_mrl.errors import DamagedError
from edge_mrl.store.binding import forget_floor
from edge_mrl.store.engine.explaining import named_damage
from edge_mrl.store.replica.dead_letters import move_to_dead_letters
from edge_mrl.store.replica.enrollment import Span, passed_over, require
from edge_mrl.store.replica.mending import mend_queue
from edge_mrl.store.replica.names import own_names
from edge_mrl.store.replica.outbox import (
    NEVER,
    Known,
    known_versions,
    queue_crc,
    read_enrollment,
    restamp,
    seen,
    write_enrollment,
    write_versions,
)
from edge_mrl.store.replica.settlement import give_up
from edge_mrl.store.statements import select_rows
from edge_mrl.wire import Version

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

#: How often a queue that is damaged is read again after it was made again.
_MENDED = 2


@dataclass(frozen=True, slots=True, eq=False)
class Outgoing:
    """A document that waits to be sent.

    Attributes:
        id: The document.
        stamp: The stamp of the version that waits.
        deleted: Whether that version is a deletion; then the other attributes are empty.
        document: The document as it is now.
        spans: Offsets (start, end) of its n passages, in characters.
        vectors: float16[n, full_dim], its full vectors; None if they have to be made again from the text.
        device: The device that wrote the version; None for this one.
        damaged: Whether the document is not what was stored; then it is empty, too.
    """

    id: str
    stamp: int
    deleted: bool
    document: Document | None = None
    spans: Sequence[tuple[int, int]] = ()
    vectors: NDArray[np.float16] | None = None
    device: str | None = None
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a server said of a version that was sent.

    Attributes:
        id: The document.
        stamp: The stamp of the version that was sent.
        status: "applied"; "stale", if the server has a newer version; "clock_ahead", if the stamp is too
            far in the future; "invalid", "too_large" or "forbidden", if the server refused the version.
        newer: The stamp of the version that the server has, if that is newer, or the same with another
            content; else 0.
        detail: What was said beside the status, for people.
    """

    id: str
    stamp: int
    status: str
    newer: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits to be sent.

    Attributes:
        items: Number of documents and deletions.
        size_bytes: Bytes of the full vectors that are kept for them.
        oldest_ms: Since when the oldest one waits, in milliseconds since 1970; None if nothing waits.
    """

    items: int
    size_bytes: int
    oldest_ms: int | None


def queue_of(store: Store) -> Queue:
    """What waits to be sent."""
    query = "SELECT count(*), ifnull(sum(bytes), 0), min(queued_ms) FROM outbox"
    with store.locked() as (connection, _):
        return Queue(*connection.execute(query).fetchone())


def newest_queued(store: Store) -> int:
    """A number that changes when something is queued to be sent; 0 if nothing waits.

    The largest stamp alone would not do: behind one that is ahead of the time, it stays the same.
    """
    with store.locked() as (connection, _):
        query = "SELECT count(*), ifnull(max(stamp), 0) FROM outbox"
        count, newest = connection.execute(query).fetchone()
        return (int(count) << 64) + int(newest)


def outgoing(store: Store, *, limit: int, after: int = 0, new: bool = False) -> list[Outgoing]:
    """The oldest documents that wait, as they are now.

    Args:
        store: The store.
        limit: Return at most this many documents.
        after: Only those with a larger stamp.
        new: Only those of which no server has, or may have, any version.

    Returns:
        The documents. A queue that is damaged is made again first, from versions and documents; a
        document that is damaged is there without its content.
    """
    for _ in range(_MENDED):
        if (found := _outgoing(store, limit, after, new=new)) is not None:
            return found
        with store.writing(), store.locked() as (connection, _):
            mend_queue(connection)
    raise named_damage(store.path, DamagedError("the queue cannot be trusted"))


def _outgoing(store: Store, limit: int, after: int, *, new: bool) -> list[Outgoing] | None:
    """The same; None if the queue itself is damaged."""
    columns = "SELECT id, outbox.stamp, outbox.deleted, bytes, outbox.crc FROM outbox"
    unknown = f"JOIN versions USING (id) WHERE acknowledged = {NEVER} AND sent = 0 AND"
    query = (
        f"{columns} {unknown if new else 'WHERE'} outbox.stamp > ? ORDER BY outbox.stamp LIMIT ?"
    )
    with store.reading() as view, store.locked() as (connection, _):
        rows = connection.execute(query, (after, limit)).fetchall()
        if any(queue_crc(*values) != crc for *values, crc in rows):
            return None
        live = [name for name, _, deleted, *_ in rows if not deleted]
        keys = {name: key for key, name in select_rows(connection, "key, id", "id", live)}
        documents = view.documents(list(keys.values()), sound=True)
        places = view.places(list(keys.values()), partial=True, sound=True)
        fulls = _fulls(connection, store, list(keys.values()))
        damaged = set(view.damaged)
        writers = _other_writers(connection, [name for name, *_ in rows])
    found = []
    for name, stamp, deleted, *_ in rows:
        if deleted:
            found.append(Outgoing(name, stamp, deleted=True, device=writers.get(name)))
            continue
        key = keys.get(name)
        if key is None or key in damaged:  # not there by its name, or not what was stored
            found.append(Outgoing(name, stamp, deleted=False, damaged=True))
            continue
        spans = places[key][1] if key in places else []
        vectors = fulls.get(key)
        if not spans:
            vectors = np.empty((0, store.binding.full_dim or 1), np.float16)
        document = documents[key]
        one = Outgoing(name, stamp, deleted=False, document=document, spans=spans, vectors=vectors)
        found.append(replace(one, device=writers.get(name)))
    return found


def _other_writers(connection: sqlite3.Connection, names: Sequence[str]) -> dict[str, str]:
    """The devices that wrote versions which this one offers, by id."""
    now = read_enrollment(connection)
    device = "" if now is None else now.device
    rows = select_rows(connection, "id, device", "id", names, "versions")
    return {name: writer for name, writer in rows if writer != device}


def _fulls(
    connection: sqlite3.Connection, store: Store, keys: list[int]
) -> dict[int, NDArray[np.float16]]:
    """Full vectors as they are sent, by key; where int8 is kept, they are made again from the text."""
    dim = store.binding.full_dim
    if dim is None or store.keep_full not in ("until-synced", "fp16"):
        return {}
    found = {}
    rows = select_rows(connection, "document, crc, vectors", "document", keys, "fulls")
    for key, crc, data in rows:
        if not isinstance(data, bytes) or zlib.crc32(data, key) != crc:
            continue  # made again, too
        found[key] = np.frombuffer(data, "<f2").reshape(-1, dim)
    return found


def begin_push(store: Store, number: int, ids: Sequence[str]) -> bool:
    """Note on disk that a push is about to go out, since its answer may be lost.

    Args:
        store: The store.
        number: The number of the last push, plus one.
        ids: The documents in the push.

    Returns:
        Whether the push may go out: False if another process has begun one meanwhile.
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
    """Take over whether a push arrived. The server said so, and does not accept that push any more.

    Args:
        store: The store.
        number: The number of the push; earlier ones are settled with it.
        refused: Documents of the push that the server refused; None if the push did not arrive.
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
        if sent and refused is not None:
            forget_floor(connection)
        push, answered = max(now.push, number), max(now.answered, number)
        write_enrollment(connection, replace(now, push=push, answered=answered))


def acknowledge(
    store: Store,
    verdicts: Sequence[Verdict],
    *,
    offset_ms: int,
    number: int = 0,
    span: Span | None = None,
) -> Collection[str]:
    """Take over what a server said of versions that were sent, in one transaction.

    A document leaves the queue only if its version is still the one that was sent. Then the full vectors
    that were kept for it are deleted too.

    Args:
        store: The store.
        verdicts: What the server said.
        offset_ms: The server's clock less this machine's, in milliseconds.
        number: The number of the push; 0 if it had none.
        span: The server's changes that are this push, which need not be pulled; None if it does not say.

    Returns:
        Documents that wait again: the server does not take them under a former name of this device, so
        they go under the present one.
    """
    with store.writing(), store.locked() as (connection, _):
        now = require(connection, store)
        now = passed_over(now, span)
        now = replace(now, offset_ms=offset_ms, answered=max(now.answered, number))
        known = known_versions(connection, [verdict.id for verdict in verdicts])
        judged = _judge(verdicts, known)
        versions, letters, ahead = judged.versions, judged.letters, judged.ahead
        own = own_names(connection, now)
        former = {one.id for one in letters if _is_former(known.get(one.id), now.device, own)}
        # The server takes it as no offer (any more): it goes under the present name, in the next push.
        versions |= {name: _renamed(known[name], now.device) for name in former}
        write_versions(connection, versions)
        offered = {one.id for one in letters if _is_other(known.get(one.id), own)}
        letters = [one for one in letters if one.id not in offered | former]
        _dequeue(connection, store, [one for one in verdicts if one.id in offered])
        give_up(connection, {name: known[name] for name in offered})
        move_to_dead_letters(
            connection, [(one.id, one.stamp, one.status, one.detail) for one in letters]
        )
        _dequeue(connection, store, judged.done)
        if any(verdict.status not in ("applied", "clock_ahead") for verdict in verdicts):
            forget_floor(connection)
        after = seen(now, judged.stamps)
        if ahead:
            # These alone: others that wait may be ahead for good reason, above what the server has.
            # Down to what a server has already: below that a version would lose against itself.
            restamp(connection, replace(after, last=after.floor), list(ahead), above=ahead)
        else:
            write_enrollment(connection, after)
        return former


@dataclass(frozen=True, slots=True)
class _Judged:
    """What follows from a server's verdicts.

    Attributes:
        versions: What is known now of the versions that were sent, by id.
        done: Verdicts on documents that leave the queue.
        letters: Verdicts that refuse.
        stamps: Stamps that the server has, or has seen.
        ahead: Stamps that the server has of documents whose own stamp is ahead of its time, by id.
    """

    versions: dict[str, Known]
    done: list[Verdict]
    letters: list[Verdict]
    stamps: list[int]
    ahead: dict[str, int]


def _judge(verdicts: Sequence[Verdict], known: Mapping[str, Known]) -> _Judged:
    versions = {name: one.settled(arrived=False) for name, one in known.items()}
    judged = _Judged(versions, [], [], [], {})
    for verdict in verdicts:
        if verdict.status in ("applied", "stale"):
            judged.done.append(verdict)
            judged.stamps.extend([verdict.newer, verdict.stamp])
            if verdict.id in known:
                before = known[verdict.id]
                # A version that lost was never accepted, though the server knows the document.
                got = verdict.stamp - (verdict.status == "stale")
                stamp = max(before.acknowledged, got)
                versions[verdict.id] = replace(before, acknowledged=stamp)
        elif verdict.status == "clock_ahead":
            # What the server has of the document may be ahead of the time too: a write of this device
            # whose answer was lost, or of a copy of this store. The next stamp has to be above that.
            judged.ahead[verdict.id] = verdict.newer
            judged.stamps.append(verdict.newer)
        else:
            judged.letters.append(verdict)
    return judged


def _is_other(known: Known | None, own: Collection[str]) -> bool:
    return known is not None and known.version.device not in own


def _is_former(known: Known | None, device: str, own: Collection[str]) -> bool:
    return known is not None and known.version.device in own and known.version.device != device


def _renamed(known: Known, device: str) -> Known:
    settled = known.settled(arrived=False)
    return replace(settled, version=Version(known.version.stamp, device))


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

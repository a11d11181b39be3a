"""What an enrolled store keeps of its own writes: versions of documents, and a queue of those to send.

Both are written in the transaction of the document itself, so that a document and its row in the queue
are there together or not at all. A store that was never enrolled has neither.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace

from edge_mrl.errors import DamagedError
from edge_mrl.store.binding import forget_bootstrap
from edge_mrl.store.records import checksum
from edge_mrl.store.replica.agreement import move_sums
from edge_mrl.store.replica.withheld import drop_withheld, list_withheld
from edge_mrl.store.statements import insert_into, select_rows
from edge_mrl.wire import Version, latest_stamp, next_stamp, now_ms

__all__ = [
    "MAX_QUEUE_BYTES",
    "NEVER",
    "UNKNOWN",
    "Change",
    "Enrollment",
    "Known",
    "Queued",
    "Stamps",
    "drop_versions",
    "known_versions",
    "most_queued",
    "note",
    "note_put",
    "queue_crc",
    "read_enrollment",
    "restamp",
    "rewind",
    "seen",
    "write_enrollment",
    "write_queue",
    "write_versions",
]

#: Bytes of vectors that wait for a server at most, by default: those of 300,000 passages of 384
#: dimensions. Beyond it they are made again from the text when it is their turn.
MAX_QUEUE_BYTES = 256 << 20


#: Stamps in ``Known.acknowledged`` that no version has. No server has the document; or a server has a
#: version of it, and this device does not know which.
NEVER = 0
UNKNOWN = 1


@dataclass(frozen=True, slots=True)
class Enrollment:
    """With which server and under which name a store is synced, and how far.

    Attributes:
        server: The server's address.
        tenant: Whose documents these are.
        device: This store's name there, which breaks ties between equal stamps.
        cursor: The server's last change that was pulled; 0 before the first pull.
        last: The largest stamp that was written or seen here.
        floor: The largest stamp that the server is known to have, of any device.
        offset_ms: Milliseconds to add to this machine's clock to get the server's time.
        with_text: Whether text and metadata are sent.
        max_queue: At most this many bytes of vectors wait in the queue.
        success_ms: When a sync last succeeded, in milliseconds since 1970; 0 for never.
        margin: ``rerank="auto"`` asks the server from this doubt on; None for the default.
        epoch: The server's epoch in which ``cursor`` counts. A server with another epoch was restored
            from an older copy. Empty if the server did not say.
        push: The number of the last push that was begun.
        answered: The number of the last push of which this device knows whether it arrived: ``push``, or
            one less.
    """

    server: str
    tenant: str
    device: str
    cursor: int = 0
    last: int = 0
    floor: int = 0
    offset_ms: int = 0
    with_text: bool = False
    max_queue: int = MAX_QUEUE_BYTES
    success_ms: int = 0
    margin: float | None = None
    epoch: str = ""
    push: int = 0
    answered: int = 0

    @property
    def is_open(self) -> bool:
        """Whether it is not known yet if the last push arrived."""
        return self.push > self.answered


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the version of a document.

    Attributes:
        version: The version that the store has.
        deleted: Whether it is a deletion.
        acknowledged: The newest stamp of this document that the server has; ``NEVER`` if the server
            does not have the document, ``UNKNOWN`` if it has a version that this device does not know.
        sent: The number of the push in which this document first reached the server. While
            ``acknowledged`` is ``NEVER``: of a push that may or may not have arrived. 0 if the document
            was in no such push.
    """

    version: Version
    deleted: bool
    acknowledged: int
    sent: int = 0

    @property
    def is_open(self) -> bool:
        """Whether it was sent in a push that may or may not have arrived."""
        return self.sent > 0 and self.acknowledged == NEVER

    def settled(self, *, arrived: bool) -> Known:
        """The same, once it is known whether the push arrived; then the server has some version of it.

        Args:
            arrived: Whether it did.
        """
        if not self.is_open:
            return self
        return replace(self, acknowledged=UNKNOWN) if arrived else replace(self, sent=0)


@dataclass(frozen=True, slots=True)
class Change:
    """A document that was written.

    Attributes:
        id: The document.
        deleted: Whether it was deleted.
        size_bytes: Bytes of its full vectors that are kept to be sent.
    """

    id: str
    deleted: bool
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Queued:
    """A row of the queue.

    Attributes:
        id: The document.
        stamp: The stamp of the version that waits.
        deleted: Whether that version is a deletion.
        queued_ms: Since when the document waits, in milliseconds since 1970.
        size_bytes: Bytes of its full vectors that are kept to be sent.
    """

    id: str
    stamp: int
    deleted: bool
    queued_ms: int
    size_bytes: int


_ENROLLMENT = tuple(field.name for field in fields(Enrollment))
_VERSION = ("id", "stamp", "device", "deleted", "acknowledged", "sent", "crc")
_OUTBOX = ("id", "stamp", "deleted", "queued_ms", "bytes", "crc")


def read_enrollment(connection: sqlite3.Connection) -> Enrollment | None:
    """The enrollment of a store, or None if it is not enrolled.

    Raises:
        DamagedError: The enrollment is not what was written.
    """
    row = connection.execute(
        f"SELECT {', '.join(_ENROLLMENT)}, crc FROM sync"  # noqa: S608 - own names
    ).fetchone()
    if row is None:
        return None
    *columns, crc = row
    if checksum(*columns) != crc:
        raise DamagedError("what it knows of its server cannot be trusted")
    values = dict(zip(_ENROLLMENT, columns, strict=True))
    return Enrollment(**values | {"with_text": bool(values["with_text"])})


def write_enrollment(connection: sqlite3.Connection, enrollment: Enrollment) -> None:
    """Write the enrollment of a store."""
    # Truth is a number in SQLite, and the checksum is of what will be read.
    values = [int(v) if isinstance(v, bool) else v for v in astuple(enrollment)]
    statement = insert_into("sync", ("id", *_ENROLLMENT, "crc"), replace=True)
    connection.execute(statement, (1, *values, checksum(*values)))


class Stamps:
    """Gives stamps to what is written here.

    A stamp that is further ahead than any right clock could be counts for its own document only: the next
    version of that document is above it, and every other document is stamped by the time. So one wrong
    clock, wherever it was, freezes nothing.

    Args:
        enrollment: The largest stamp so far, and the clock's offset.
        wall: The clock, in milliseconds since 1970.

    Attributes:
        last: The largest stamp given or seen that is not ahead of the time.
    """

    def __init__(self, enrollment: Enrollment, *, wall: Callable[[], int] = now_ms) -> None:
        self._offset_ms = enrollment.offset_ms
        self._wall = wall
        self._latest = latest_stamp(offset_ms=enrollment.offset_ms, wall=wall)
        self.last = 0
        self.see(enrollment.last)

    def see(self, stamp: int) -> None:
        """Follow a stamp that was seen, unless it is ahead of the time."""
        if self.last < stamp <= self._latest:
            self.last = stamp

    def next_after(self, known: Known | None, *, acknowledged: bool = False, above: int = 0) -> int:
        """The stamp of a document's next version.

        Args:
            known: What is known of the document; None for nothing.
            acknowledged: Only be above what a server has, as where the version here was never accepted.
            above: A stamp that it has to be above too.
        """
        seen = above
        if known is not None:
            seen = (
                known.acknowledged if acknowledged else max(known.acknowledged, known.version.stamp)
            )
            seen = max(seen, above)
        stamp = next_stamp(max(self.last, seen), offset_ms=self._offset_ms, wall=self._wall)
        self.see(stamp)
        return stamp


def seen(enrollment: Enrollment, stamps: Iterable[int]) -> Enrollment:
    """The enrollment after stamps of versions that a server has were seen."""
    clock, floor = Stamps(enrollment), enrollment.floor
    latest = latest_stamp(offset_ms=enrollment.offset_ms)
    for stamp in stamps:
        clock.see(stamp)
        floor = max(floor, stamp) if stamp <= latest else floor
    return replace(enrollment, last=clock.last, floor=floor)


def note(
    connection: sqlite3.Connection,
    changes: Sequence[Change],
    *,
    wall: Callable[[], int] = now_ms,
) -> None:
    """Give each written document a new version, and queue it. Call in the transaction of the write.

    In a store that is not enrolled this does nothing.
    """
    enrollment = read_enrollment(connection) if changes else None
    if enrollment is None:
        return
    time_ms, clock = wall(), Stamps(enrollment, wall=wall)
    names = [change.id for change in changes]
    known = known_versions(connection, names)
    # Of versions that could not be stored here, the next one must be the newer one too.
    withheld = {one.id: one.version.stamp for one in list_withheld(connection, names)}
    versions, rows = {}, []
    for change in changes:
        before = known.get(change.id)
        stamp = clock.next_after(before, above=withheld.get(change.id, 0))
        # Put again after a deletion, it is a new document: that a server has none is no reason to
        # take it for deleted elsewhere (reconciling.reconcile).
        old = before is not None and (change.deleted or not before.deleted)
        acknowledged, sent = (before.acknowledged, before.sent) if before and old else (NEVER, 0)
        version = Version(stamp, enrollment.device)
        versions[change.id] = Known(version, change.deleted, acknowledged, sent)
        rows.append(Queued(change.id, stamp, change.deleted, time_ms, change.size_bytes))
    write_versions(connection, versions)
    write_queue(connection, rows)
    # A letter about an older version is of no use any more.
    connection.executemany("DELETE FROM dead WHERE id = ?", [(name,) for name in names])
    drop_withheld(connection, names)
    write_enrollment(connection, replace(enrollment, last=clock.last))


def note_put(
    connection: sqlite3.Connection, sizes: Mapping[str, int], changed: Sequence[str]
) -> None:
    """Queue documents that were put. Call in the transaction of the write.

    Args:
        connection: In a transaction that writes.
        sizes: Bytes of the vectors that are kept, by id.
        changed: Ids of documents of which only the metadata changed: queued where metadata is sent.
    """
    changes = [Change(name, deleted=False, size_bytes=size) for name, size in sizes.items()]
    enrollment = read_enrollment(connection) if changed else None
    if enrollment is not None and enrollment.with_text:
        query = (
            "SELECT ifnull(max(length(vectors)), 0) FROM fulls JOIN documents "
            "ON key = document WHERE id = ?"
        )
        for name in changed:
            (size,) = connection.execute(query, (name,)).fetchone()
            changes.append(Change(name, deleted=False, size_bytes=size))
    note(connection, changes)


def known_versions(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, Known]:
    """Versions of those documents that have one, by id.

    Of a version that is not what was written, nothing is believed: the server may have any version of
    that document.
    """
    found = {}
    for *values, crc in select_rows(connection, ", ".join(_VERSION), "id", ids, "versions"):
        name, stamp, device, deleted, acknowledged, sent = values
        if checksum(*values) == crc:
            found[name] = Known(Version(stamp, device), bool(deleted), acknowledged, sent)
        else:
            found[name] = _unknown_version(connection, name)
    return found


def _unknown_version(connection: sqlite3.Connection, name: str) -> Known:
    """What is left of a damaged version: what waits in the queue; or any version is newer."""
    query = "SELECT stamp, deleted, bytes, crc FROM outbox WHERE id = ?"
    row = connection.execute(query, (name,)).fetchone()
    if row is not None and queue_crc(name, *row[:3]) == row[3]:
        device = connection.execute("SELECT device FROM sync").fetchone()
        return Known(Version(row[0], device[0] if device else ""), bool(row[1]), UNKNOWN)
    there = connection.execute("SELECT 1 FROM documents WHERE id = ?", (name,)).fetchone()
    return Known(Version(1, ""), there is None, UNKNOWN)


def write_versions(connection: sqlite3.Connection, versions: Mapping[str, Known]) -> None:
    """Write versions of documents, given by id."""
    rows = []
    for name, known in versions.items():
        version = known.version
        values = (
            name,
            version.stamp,
            version.device,
            int(known.deleted),
            known.acknowledged,
            known.sent,
        )
        rows.append((*values, checksum(*values)))
    move_sums(connection, list(versions), [row[:4] for row in rows])
    connection.executemany(insert_into("versions", _VERSION, replace=True), rows)


def drop_versions(connection: sqlite3.Connection, names: Sequence[str]) -> None:
    """Forget the versions of documents."""
    move_sums(connection, names, [])
    connection.executemany("DELETE FROM versions WHERE id = ?", [(name,) for name in names])


def write_queue(connection: sqlite3.Connection, rows: Iterable[Queued]) -> None:
    """Queue documents. One that waits already is replaced, and keeps the time since when it waits."""
    connection.executemany(
        f"{insert_into('outbox', _OUTBOX)} ON CONFLICT (id) DO UPDATE SET stamp = excluded.stamp, "
        "deleted = excluded.deleted, bytes = excluded.bytes, crc = excluded.crc",
        [_queue_row(row) for row in rows],
    )


def queue_crc(name: str, stamp: int, deleted: int, size_bytes: int) -> int:
    """The checksum of a row of the queue; the time, which nothing depends on, is left out."""
    return checksum(name, stamp, deleted, size_bytes)


def _queue_row(row: Queued) -> tuple[object, ...]:
    deleted = int(row.deleted)
    crc = queue_crc(row.id, row.stamp, deleted, row.size_bytes)
    return (row.id, row.stamp, deleted, row.queued_ms, row.size_bytes, crc)


def most_queued(connection: sqlite3.Connection) -> int | None:
    """How many bytes of vectors may be queued, or None if the store is not enrolled."""
    enrollment = read_enrollment(connection)
    return None if enrollment is None else enrollment.max_queue


def restamp(
    connection: sqlite3.Connection,
    enrollment: Enrollment,
    ids: Sequence[str] | None = None,
    *,
    above: Mapping[str, int] | None = None,
    wall: Callable[[], int] = now_ms,
) -> Enrollment:
    """Give queued documents new stamps, in their present order.

    Each is above what a server has of its document, and above ``enrollment.last`` where that is not ahead
    of the time. A version of another device, queued to be offered, keeps its stamp: it is that version's.

    Args:
        connection: In a transaction that writes.
        enrollment: Has the stamp that the new ones follow. It is written back with the last new stamp.
        ids: Which documents; None for all that wait.
        above: Stamps by id that the new ones have to be above too.
        wall: The clock, in milliseconds since 1970.
    """
    query = "SELECT id, stamp, deleted, queued_ms, bytes FROM outbox ORDER BY stamp"
    wanted = None if ids is None else set(ids)
    rows = [
        Queued(name, stamp, bool(deleted), queued, size)
        for name, stamp, deleted, queued, size in connection.execute(query)
        if wanted is None or name in wanted
    ]
    known = known_versions(connection, [row.id for row in rows])
    clock = Stamps(enrollment, wall=wall)
    versions, fresh = {}, []
    for row in rows:
        found = known.get(row.id)
        if found is not None and found.version.device != enrollment.device:
            continue
        least = (above or {}).get(row.id, 0)
        stamp = clock.next_after(found, acknowledged=True, above=least)
        version = Version(stamp, enrollment.device)
        before = (found or Known(version, row.deleted, NEVER)).settled(arrived=True)
        versions[row.id] = replace(before, version=version, deleted=row.deleted)
        fresh.append(replace(row, stamp=stamp))
    write_versions(connection, versions)
    write_queue(connection, fresh)
    after = replace(enrollment, last=clock.last)
    write_enrollment(connection, after)
    return after


def rewind(connection: sqlite3.Connection) -> None:
    """Have the next sync pull everything again: codes pulled before belong to another bundle."""
    enrollment = read_enrollment(connection)
    if enrollment is not None:
        write_enrollment(connection, replace(enrollment, cursor=0))
        forget_bootstrap(connection)

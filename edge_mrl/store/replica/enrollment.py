"""Enrolling a store with a server, and what it keeps of its enrollment.

Each function here, and in ``dead_letters``, ``queue`` and ``arrivals``, is one transaction: after a kill
it has happened completely or not at all, and doing it again is harmless.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edge_mrl.errors import DamagedError, NotEnrolledError, UsageError
from edge_mrl.store.binding import (
    FLOOR,
    forget_bootstrap,
    forget_floor,
    read_setting,
    write_bound,
    write_setting,
)
from edge_mrl.store.replica.agreement import read_agreement, write_agreement
from edge_mrl.store.replica.names import keep_name
from edge_mrl.store.replica.outbox import (
    NEVER,
    Enrollment,
    Known,
    Queued,
    Stamps,
    known_versions,
    read_enrollment,
    restamp,
    write_enrollment,
    write_queue,
    write_versions,
)
from edge_mrl.wire import Version, latest_stamp, now_ms

if TYPE_CHECKING:
    from edge_mrl.store.store import Store

__all__ = [
    "Span",
    "drop_floor",
    "enroll",
    "enrollment_of",
    "ever_acknowledged",
    "floor_of",
    "is_blank",
    "mark_success",
    "pass_floor",
    "pass_over",
    "passed_over",
    "require",
    "resend",
    "set_floor",
    "set_margin",
    "set_server",
    "set_with_text",
]


def enrollment_of(store: Store) -> Enrollment | None:
    """The enrollment of a store, or None if it is not enrolled."""
    with store.locked() as (connection, _):
        return read_enrollment(connection)


def enroll(store: Store, wanted: Enrollment, *, full_dim: int | None) -> None:
    """Enroll a store with a server, and queue the documents that the server does not have.

    A store that is enrolled again with the same server and tenant, under a new device name, keeps what it
    knows of the server and sends what it had not sent, with the stamps of then. With another server or
    tenant it starts over: all documents are queued.

    Args:
        store: The store.
        wanted: Server, tenant, device, the clock's offset, and what is sent.
        full_dim: Dimensions of the bundle's full vectors, which stores of the first version do not know.
            None if the bundle gives no full vectors.

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
        before = read_enrollment(connection)
        binding = replace(store.binding, full_dim=full_dim)
        write_bound(connection, store.path, binding, store.rule, keep_full)
        same = before is not None and (before.server, before.tenant) == (
            wanted.server,
            wanted.tenant,
        )
        if before is not None and same:
            kept = replace(
                wanted, cursor=before.cursor, last=before.last, floor=before.floor,
                success_ms=before.success_ms, margin=before.margin, epoch=before.epoch,
            )  # fmt: skip
            keep_name(connection, before.device)
            _rename(connection, before.device, wanted.device)
            restamp(connection, kept, _queued_ahead(connection, kept))
        else:
            keep_name(connection, None)
            for table in ("versions", "outbox", "dead", "withheld", "agreement"):
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 - own names
            last = 0 if before is None else before.last
            _queue_all(connection, replace(wanted, last=last))
    store.refresh()


def _rename(connection: sqlite3.Connection, device: str, name: str) -> None:
    """Give what this device wrote under its former name, and no server has yet, the new name.

    What waits keeps its stamp: it was written then, and wins over nothing that was written since. So does
    what was pulled while it waited, as the answer to a push was lost: under the former name, no server
    would take it from this device again. The server keeps what else it has under the former name: with
    another one here, the two would never agree.
    """
    query = (
        "SELECT id FROM versions WHERE device = ? "
        "AND (acknowledged < stamp OR id IN (SELECT id FROM outbox))"
    )
    known = known_versions(connection, [name for (name,) in connection.execute(query, (device,))])
    renamed = {
        key: replace(one.settled(arrived=True), version=Version(one.version.stamp, name))
        for key, one in known.items()
    }
    write_versions(connection, renamed)


def _queued_ahead(connection: sqlite3.Connection, enrollment: Enrollment) -> list[str]:
    """What waits with a stamp that is ahead of the server's time."""
    latest = latest_stamp(offset_ms=enrollment.offset_ms)
    rows = connection.execute("SELECT id FROM outbox WHERE stamp > ?", (latest,))
    return [name for (name,) in rows]


def _queue_all(connection: sqlite3.Connection, enrollment: Enrollment) -> None:
    """Queue every document that is there, with a new stamp."""
    query = (
        "SELECT id, ifnull(length(vectors), 0) FROM documents LEFT JOIN fulls ON document = key "
        "ORDER BY key"
    )
    time_ms, clock = now_ms(), Stamps(enrollment)
    sizes = dict(connection.execute(query).fetchall())
    before = known_versions(connection, list(sizes))
    versions, rows = {}, []
    for name, size in sizes.items():
        stamp = clock.next_after(before.get(name))
        version = Version(stamp, enrollment.device)
        old = before.get(name, Known(version, deleted=False, acknowledged=NEVER))
        versions[name] = replace(old, version=version, deleted=False)
        rows.append(Queued(name, stamp, deleted=False, queued_ms=time_ms, size_bytes=size))
    write_versions(connection, versions)
    write_queue(connection, rows)
    write_enrollment(connection, replace(enrollment, last=clock.last))


def set_with_text(store: Store, *, with_text: bool) -> None:
    """Choose whether text and metadata are sent.

    If they are from now on, all documents are sent again with them.
    """
    with store.writing(), store.locked() as (connection, _):
        before = require(connection, store)
        if before.with_text == with_text:
            return
        after = replace(before, with_text=with_text)
        if with_text:
            _queue_all(connection, after)
        else:
            write_enrollment(connection, after)


def resend(store: Store) -> None:
    """Have the next sync pull everything, and send again this device's documents that the server lacks.

    A sync does so by itself if the server says that it was restored from an older copy.
    """
    with store.writing(), store.locked() as (connection, _):
        # No server's epoch has this name.
        write_enrollment(connection, replace(require(connection, store), epoch="resend"))
        forget_bootstrap(connection)
        now = read_agreement(connection)
        write_agreement(connection, replace(now, tries=0, next_ms=0, there=0, here=0))


def set_server(store: Store, server: str) -> None:
    """Change the address of the server that the store is enrolled with."""
    with store.writing(), store.locked() as (connection, _):
        write_enrollment(connection, replace(require(connection, store), server=server))


def set_margin(store: Store, margin: float | None) -> None:
    """Keep the margin of doubt from which ``rerank="auto"`` asks the server; None for the default."""
    with store.writing(), store.locked() as (connection, _):
        value = None if margin is None else float(margin)
        write_enrollment(connection, replace(require(connection, store), margin=value))


def mark_success(store: Store, *, cursor: int | None = None, offset_ms: int | None = None) -> None:
    """Note that a sync succeeded.

    Args:
        store: The store.
        cursor: The server's last change that was pulled; None leaves it as it is.
        offset_ms: The server's clock less this machine's, in milliseconds; None leaves it as it is.
    """
    with store.writing(), store.locked() as (connection, _):
        before = require(connection, store)
        write_enrollment(
            connection,
            replace(
                before,
                success_ms=now_ms(),
                cursor=before.cursor if cursor is None else cursor,
                offset_ms=before.offset_ms if offset_ms is None else offset_ms,
            ),
        )


def ever_acknowledged(store: Store) -> bool:
    """Whether a server has acknowledged any of the store's documents."""
    with store.locked() as (connection, _):
        query = "SELECT 1 FROM versions WHERE acknowledged > ? LIMIT 1"
        return connection.execute(query, (NEVER,)).fetchone() is not None


@dataclass(frozen=True, slots=True)
class Span:
    """Changes of a server of which a device knows that they are its own push.

    Attributes:
        first: The server's last change before them.
        last: The last of them; ``first`` if there are none.
        epoch: The epoch in which they count.
    """

    first: int
    last: int
    epoch: str


def is_blank(store: Store) -> bool:
    """Whether a store has nothing of a server yet, and no server has, or may have, anything of it."""
    with store.locked() as (connection, _):
        now = require(connection, store)
        query = "SELECT 1 FROM versions WHERE acknowledged > ? OR sent > 0 LIMIT 1"
        known = connection.execute(query, (NEVER,)).fetchone() is not None
        return not (now.cursor or now.epoch or now.push or known)


def floor_of(store: Store) -> Span | None:
    """Where a server stood before a blank store exchanged anything with it; None once it is filled."""
    with store.locked() as (connection, _):
        return _read_floor(connection)


def set_floor(store: Store, floor: Span) -> None:
    """Note where a server stands, unless there is a note. Call while the store is blank."""
    with store.writing(), store.locked() as (connection, _):
        if _read_floor(connection) is None:
            write_setting(connection, FLOOR, f"{floor.first} {floor.epoch}")
            write_enrollment(connection, replace(require(connection, store), epoch=floor.epoch))


def drop_floor(store: Store) -> None:
    """Have a store be filled without a snapshot."""
    with store.writing(), store.locked() as (connection, _):
        forget_floor(connection)


def pass_floor(store: Store, floor: Span) -> None:
    """Go on from there: all that is older has arrived. The next changes begin behind it."""
    with store.writing(), store.locked() as (connection, _):
        now = require(connection, store)
        cursor = max(now.cursor, floor.first)
        write_enrollment(connection, replace(now, cursor=cursor, epoch=floor.epoch))
        write_setting(connection, FLOOR, None)


def pass_over(store: Store, span: Span) -> bool:
    """Move the cursor over changes that are this device's own push; False if it does not stand there."""
    with store.writing(), store.locked() as (connection, _):
        now = require(connection, store)
        after = passed_over(now, span)
        if after != now:
            write_enrollment(connection, after)
        return after != now


def passed_over(now: Enrollment, span: Span | None) -> Enrollment:
    """The enrollment with its cursor behind a span, if it stands in it.

    Before anything was pulled, it is of any epoch: the span says which one that is.
    """
    if span is None:
        return now
    if not now.cursor and not now.epoch:
        now = replace(now, epoch=span.epoch)
    if now.epoch != span.epoch or not span.first <= now.cursor < span.last:
        return now
    return replace(now, cursor=span.last)


def _read_floor(connection: sqlite3.Connection) -> Span | None:
    try:
        text = read_setting(connection, FLOOR)
    except DamagedError:
        text = None
    if text is None:
        return None
    first, _, epoch = text.partition(" ")
    return Span(int(first), int(first), epoch)


def require(connection: sqlite3.Connection, store: Store) -> Enrollment:
    """Where a store is synced to.

    Raises:
        NotEnrolledError: The store is not enrolled.
    """
    found = read_enrollment(connection)
    if found is None:
        raise NotEnrolledError(store.path)
    return found

"""Agreeing with a server, after everything was pulled, on what it does not have.

What was seen of it while that was pulled, and how far, is kept in the store: a device that is interrupted
goes on from there. That stays right while documents are pushed: they come behind that.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edge_mrl.errors import DamagedError, NetworkError
from edge_mrl.store.binding import SWEEP, forget_bootstrap, read_setting, write_setting
from edge_mrl.store.records import checksum
from edge_mrl.store.replica.arrivals import LocalDocuments, waiting_among
from edge_mrl.store.replica.enrollment import require
from edge_mrl.store.replica.names import own_names
from edge_mrl.store.replica.outbox import (
    NEVER,
    Known,
    Queued,
    drop_versions,
    known_versions,
    restamp,
    write_queue,
    write_versions,
)
from edge_mrl.store.replica.settlement import Rules, lose_or_offer
from edge_mrl.store.statements import select_rows
from edge_mrl.wire import Version, now_ms

if TYPE_CHECKING:
    from edge_mrl.store.store import Store
    from edge_mrl.wire import Item

__all__ = [
    "Agreed",
    "ServerPosition",
    "Sweep",
    "forget_sweep",
    "is_sweep_sound",
    "note_swept",
    "reconcile",
    "sweep_of",
]

#: Stamps by id of what was seen of a server, deletions included, while everything is pulled.
_SWEPT = """CREATE TABLE IF NOT EXISTS swept (
    id TEXT PRIMARY KEY,
    stamp INTEGER NOT NULL,
    crc INTEGER NOT NULL
) WITHOUT ROWID"""

_ANOTHER = "another process has pulled everything meanwhile: try again later"


@dataclass(frozen=True, slots=True)
class Sweep:
    """How far everything was pulled, from the beginning.

    Attributes:
        since: The server's last change that was pulled.
        fence: The server's fence when it was begun.
        epoch: The epoch in which ``since`` counts.
        count: How many documents were seen, deletions included.
    """

    since: int
    fence: int
    epoch: str
    count: int = 0


def sweep_of(store: Store) -> Sweep | None:
    """How far everything was pulled; None if that was not begun, or is done."""
    with store.locked() as (connection, _):
        return _read_sweep(connection)


def _read_sweep(connection: sqlite3.Connection) -> Sweep | None:
    try:
        text = read_setting(connection, SWEEP)
    except DamagedError:  # from the beginning, then
        return None
    return None if text is None else Sweep(**json.loads(text))


def note_swept(store: Store, seen: Mapping[str, int], now: Sweep, *, before: Sweep | None) -> Sweep:
    """Note what a page had, in one transaction. Call when its documents are stored.

    Args:
        store: The store.
        seen: Stamps of its documents by id.
        now: How far everything was pulled with it.
        before: How far without it; None for the first page.

    Returns:
        How far, with the number of documents.

    Raises:
        NetworkError: Another process has pulled everything meanwhile: try again.
    """
    with store.writing(), store.locked() as (connection, _):
        connection.execute(_SWEPT)
        if _read_sweep(connection) != before:
            raise NetworkError(_ANOTHER)
        if before is None:
            connection.execute("DELETE FROM swept")
        again = len(select_rows(connection, "id", "id", list(seen), "swept"))
        count = (0 if before is None else before.count) + len(seen) - again
        rows = [(name, stamp, checksum(name, stamp)) for name, stamp in seen.items()]
        connection.executemany("INSERT OR REPLACE INTO swept VALUES (?, ?, ?)", rows)
        now = replace(now, count=count)
        write_setting(connection, SWEEP, json.dumps(asdict(now)))
        return now


def is_sweep_sound(store: Store) -> bool:
    """Whether what was seen of the server is as it was written: what is not there may be deleted here."""
    with store.writing(), store.locked() as (connection, _):
        connection.execute(_SWEPT)
        now, count = _read_sweep(connection), 0
        for name, stamp, crc in connection.execute("SELECT id, stamp, crc FROM swept"):
            count += checksum(name, stamp) == crc
        (rows,) = connection.execute("SELECT count(*) FROM swept").fetchone()
        return now is not None and count == rows == now.count


def forget_sweep(store: Store) -> None:
    """Have everything be pulled from the beginning, the next time that it is."""
    with store.writing(), store.locked() as (connection, _):
        write_setting(connection, SWEEP, None)


@dataclass(frozen=True, slots=True)
class Agreed:
    """What agreeing with a server changed.

    Attributes:
        deleted: How many documents were deleted here because they were deleted on the server.
        resent: How many documents and deletions are queued again because the server was restored from an
            older copy; None if it was not restored.
    """

    deleted: int
    resent: int | None


@dataclass(frozen=True, slots=True)
class ServerPosition:
    """Where a server stands after everything was pulled from it.

    Attributes:
        cursor: Its last change that was pulled.
        fence: The last change among the deletions that it has forgotten; 0 if it has forgotten none.
        epoch: The epoch in which it counts its changes; another one after it was restored.
        kept: This device's last push that the server had when the epoch began.
        offers: The largest stamp of other devices' versions that it takes; None from an older server,
            which takes none.
    """

    cursor: int
    fence: int
    epoch: str
    kept: int
    offers: int | None = None


def reconcile(store: Store, server: ServerPosition, *, push: int | None) -> Agreed:
    """Agree with a server, after everything was pulled, on what the server does not have.

    Where the server has forgotten deletions that this device never saw (a fence): documents that the
    server once had and does not have now were deleted there. They are deleted here, and what was written
    to them since is kept as a dead letter. Documents that no server ever had get a new stamp, above the
    forgotten ones.

    Where the server was restored from an older copy (another epoch): what it lost of this device's
    documents, written after that copy, is queued as it was. So are versions of other devices that this
    one can send; the others it gives up (``settlement``).

    Args:
        store: The store.
        server: Where the server stood at the last page.
        push: The number of the last push before the last page was asked for; None if it was not known
            then whether that had arrived.

    Raises:
        NotEnrolledError: The store is not enrolled.
        NetworkError: Another process has pushed since; what it sent may be on the server, and not among
            what was seen. Or it has pulled everything meanwhile. The store is unchanged: try again later.
    """
    with store.taking() as taking:
        connection = taking.connection
        connection.execute(_SWEPT)
        swept = _read_sweep(connection)
        stood = None if swept is None else (swept.since, swept.fence, swept.epoch)
        if stood != (server.cursor, server.fence, server.epoch):
            raise NetworkError(_ANOTHER)
        before = require(connection, store)
        there = _older_there(connection)
        own = own_names(connection, before)
        restored = before.epoch not in ("", server.epoch)
        missing = _missing_there(
            connection, there, server, unseen=server.fence > before.cursor, restored=restored
        )
        if missing.gone and before.push != push:
            raise NetworkError(
                "another process pushed while everything was pulled: try again later"
            )
        resent = None
        if restored:
            rules = Rules(before.device, own, store.keep_full, server.offers)
            resent = _queue_lost(connection, rules, missing.lost, there)
            resent += _offer_lost(connection, missing.lost, there, rules)
        local = LocalDocuments(connection, list(missing.gone), store.binding, own)
        for name, one in missing.gone.items():
            local.take_off_queue(_tombstone(name, one.version.stamp), one)
        drop_versions(connection, list(missing.gone))
        now = replace(before, cursor=server.cursor, epoch=server.epoch, success_ms=now_ms())
        restamp(connection, now, missing.fresh)
        forget_bootstrap(connection)
        connection.execute("DELETE FROM swept")
        taking.delete(list(local.keys))
        return Agreed(len(local.keys), resent)


@dataclass(frozen=True, slots=True)
class _Missing:
    """What a server does not have: lost there, deleted there, or new here and never sent."""

    lost: dict[str, Known]
    gone: dict[str, Known]
    fresh: list[str]


def _older_there(connection: sqlite3.Connection) -> dict[str, int]:
    """Stamps that the server has of what is newer here, by id; 0 for what it does not have."""
    query = (
        "SELECT id, ifnull(swept.stamp, 0) FROM versions LEFT JOIN swept USING (id) "
        "WHERE ifnull(swept.stamp, 0) < versions.stamp"
    )
    return dict(connection.execute(query).fetchall())


def _missing_there(
    connection: sqlite3.Connection,
    there: Mapping[str, int],
    server: ServerPosition,
    *,
    unseen: bool,
    restored: bool,
) -> _Missing:
    """Sort the versions that are newer here than on the server by the reason for that."""
    missing = _Missing({}, {}, [])
    for name, one in known_versions(connection, list(there)).items():
        forgotten = not there[name] and unseen
        if one.acknowledged == NEVER:
            missing.fresh.extend([name] if forgotten else [])
        # What arrived before the copy was made, the copy shows. Deleting twice does no harm.
        elif restored and (not forgotten or one.sent > server.kept or one.deleted):
            missing.lost[name] = one
        elif forgotten:
            missing.gone[name] = one
    return missing


def _queue_lost(
    connection: sqlite3.Connection,
    rules: Rules,
    lost: Mapping[str, Known],
    there: Mapping[str, int],
) -> int:
    """Queue again, as it was, what a server has lost of this device's; returns how many."""
    waiting = waiting_among(connection, list(lost))
    versions, rows = {}, []
    for name, one in lost.items():
        if one.version.device not in rules.own:
            continue
        stamp, has = one.version.stamp, there.get(name, 0)
        sent = one.sent if has else 0
        version = Version(stamp, rules.writer(one.version))
        known = min(one.acknowledged, has)
        versions[name] = replace(one, version=version, acknowledged=known, sent=sent)
        # One that had lost against a newer version goes too: that may be lost as well.
        judged = one.acknowledged >= stamp - 1 and name not in waiting
        if judged:
            rows.append(Queued(name, stamp, one.deleted, now_ms(), 0))
    write_versions(connection, versions)
    write_queue(connection, rows)
    return len(rows)


def _offer_lost(
    connection: sqlite3.Connection,
    lost: Mapping[str, Known],
    there: Mapping[str, int],
    rules: Rules,
) -> int:
    """Offer what a server has lost of other devices' versions, or give it up; returns how many wait."""
    waiting = waiting_among(connection, list(lost))
    others = {
        name: one
        for name, one in lost.items()
        # A deletion of what the server does not have says nothing.
        if one.version.device not in rules.own
        and name not in waiting
        and (there[name] or not one.deleted)
    }
    queued, _, _ = lose_or_offer(connection, others, there, rules)
    return queued


def _tombstone(name: str, stamp: int) -> Item:
    from edge_mrl.wire import Item

    return Item(name, stamp, np.empty((0, 1), np.float16), deleted=True)

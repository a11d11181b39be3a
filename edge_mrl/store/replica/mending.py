"""Making versions and queue again where damage has hit them, from what is sound of both."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Any

from edge_mrl.documents import id_problem
from edge_mrl.store.records import checksum
from edge_mrl.store.replica.outbox import (
    UNKNOWN,
    Enrollment,
    Known,
    Queued,
    read_enrollment,
    write_enrollment,
    write_queue,
    write_versions,
)
from edge_mrl.wire import Version, next_stamp, now_ms

__all__ = ["mend_queue"]

_VERSION = "id, stamp, device, deleted, acknowledged, sent"
_OUTBOX = "id, stamp, deleted, queued_ms, bytes"


def mend_queue(connection: sqlite3.Connection) -> None:
    """Give every document a version, and queue this device's versions that no server has acknowledged.

    A document whose version is lost gets a new one, since nobody knows what the server has of it.
    """
    enrollment = read_enrollment(connection)
    if enrollment is None:
        for table in ("versions", "outbox", "dead", "agreement"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - own names
        return
    versions = _sound_versions(connection)
    queued = _sound_queue(connection)
    documents = {
        name
        for (name,) in connection.execute("SELECT id FROM documents")
        if id_problem(name) is None
    }
    for name, row in queued.items():
        if name not in versions:  # a row of the queue has all that matters of it
            version = Version(row.stamp, enrollment.device)
            versions[name] = Known(version, row.deleted, UNKNOWN)
    wrong = {name for name, one in versions.items() if one.deleted == (name in documents)}
    lost = sorted((documents - versions.keys()) | (wrong & documents))
    for name in wrong:
        del versions[name]
    enrollment = _give_new(enrollment, lost, versions)
    dead = {name for (name,) in connection.execute("SELECT id FROM dead")}
    rows = []
    for name, one in versions.items():
        stamp, mine = one.version.stamp, one.version.device == enrollment.device
        if mine and one.acknowledged < stamp - 1 and name not in dead:
            before = queued.get(name)
            kept = before is not None and before.stamp == stamp
            size = before.size_bytes if before is not None and kept else 0
            since = before.queued_ms if before is not None else now_ms()
            rows.append(Queued(name, stamp, one.deleted, since, size))
    # Without a row there, the sums are made again from the versions.
    for table in ("versions", "outbox", "agreement"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608 - own names
    write_versions(connection, versions)
    write_queue(connection, rows)
    write_enrollment(connection, enrollment)


def _give_new(enrollment: Enrollment, names: list[str], versions: dict[str, Known]) -> Enrollment:
    last = enrollment.last
    for name in names:
        last = next_stamp(last, offset_ms=enrollment.offset_ms)
        version = Version(last, enrollment.device)
        versions[name] = Known(version, deleted=False, acknowledged=UNKNOWN)
    return replace(enrollment, last=last)


def _sound_versions(connection: sqlite3.Connection) -> dict[str, Known]:
    found = {}
    query = f"SELECT {_VERSION}, crc FROM versions"  # noqa: S608 - own names
    for *values, crc in connection.execute(query):
        if _sound(values, crc):
            name, stamp, device, deleted, acknowledged, sent = values
            found[name] = Known(Version(stamp, device), bool(deleted), acknowledged, sent)
    return found


def _sound_queue(connection: sqlite3.Connection) -> dict[str, Queued]:
    found = {}
    query = f"SELECT {_OUTBOX}, crc FROM outbox"  # noqa: S608 - own names
    for name, stamp, deleted, queued, size, crc in connection.execute(query):
        if _sound([name, stamp, deleted, size], crc):
            since = queued if isinstance(queued, int) else now_ms()
            found[name] = Queued(name, stamp, bool(deleted), since, size)
    return found


def _sound(values: list[Any], crc: Any) -> bool:
    return id_problem(values[0]) is None and checksum(*values) == crc
